/*
 * claim.c
 *		Takes units at hand, has their rows and what is known of their records
 *		read, and has each decided and its request prepared.
 *
 * Rows are read here, as they are now: what is sent is never older than the
 * events it settles.  What needs no request (nothing mapped changed, a value
 * can't be coerced, ...) is decided at once.
 */
#include "compat.h"

#include "utils/memutils.h"

#include "bulk_job.h"
#include "claim.h"
#include "delete_policy.h"
#include "drift.h"
#include "judge.h"
#include "keymap.h"
#include "locked.h"
#include "payload.h"

static const char in_flight[] = "in flight"; /* what such a key is of, in claim->keys */

static void
add_written(Claim *claim, List *requests)
{
	ListCell *lc;

	foreach(lc, requests)
	{
		const Request *request = lfirst(lc);

		if (request->nunits == 0 || strcmp(request->target.object, claim->mapping->object) != 0)
			continue;
		for (int i = 0; i < request->nunits; i++)
		{
			(void) keymap_add(claim->keys, request->outcomes[i].record_key, in_flight);
			if (request->outcomes[i].holder_key)
				(void) keymap_add(claim->keys, request->outcomes[i].holder_key, in_flight);
		}
	}
}

bool
claim_record_in_flight(const Claim *claim, const char *record_key)
{
	return keymap_find(claim->keys, record_key) == in_flight ||
		   bulk_jobs_write(claim->delivery, claim->mapping->object, record_key);
}

bool
claim_reads_first(const Claim *claim, const Unit *unit)
{
	return claim->mapping->checks || (unit->deleted && delete_policy_sets_values(claim->mapping->on_delete));
}

/* Is reading what the unit needs next? */
static bool
is_unread(const Claim *claim, const Unit *unit)
{
	return claim_reads_first(claim, unit) && !unit->read;
}

/* What has been read is good no more: it is read again. */
static void
drop_stale_reads(const Claim *claim, Unit **units, int n)
{
	for (int i = 0; i < n; i++)
		if (units[i]->read && !read_is_fresh(claim, units[i]))
			batch_forget_read(units[i]);
}

/*
 * Take units whose record is free; of two that share a record the first.  Where
 * records are read first, all that are taken have been read, or none has.
 */
static void
gather(Claim *claim, Unit **units, int n)
{
	claim->candidates = palloc0(sizeof(Candidate) * Max(n, 1));
	claim->keys = keymap_create(CurrentMemoryContext, n, NULL);
	add_written(claim, claim->delivery->requests);
	add_written(claim, claim->delivery->outgoing);
	drop_stale_reads(claim, units, n);
	for (int i = 0; i < n; i++)
	{
		Candidate *candidate = &claim->candidates[claim->n];
		char *record_key;

		if (is_unread(claim, units[i]) != is_unread(claim, units[0]))
			continue;
		record_key = mapping_record_key(claim->mapping, units[i]->key);
		if (bulk_jobs_write(claim->delivery, claim->mapping->object, record_key) ||
			!keymap_add(claim->keys, record_key, candidate))
			continue;
		candidate->unit = units[i];
		candidate->record_key = record_key;
		claim->n++;
	}
}

/*
 * Rows whose record may be known under a key that they had before: of a dump,
 * or a server that was adopted, whose key changes are in the table of deferred
 * changes.
 */
static void
move_record(Claim *claim, const Candidate *candidate)
{
	const Unit *unit = candidate->unit;

	if (record_has_moved(claim->mapping->id, candidate->record_key))
		return;
	for (int o = 0; o < unit->nold; o++)
	{
		RecordMove move = {claim->mapping->id, unit->old_keys[o], unit->key};
		char *from = mapping_record_key(claim->mapping, move.from);
		int n;

		(void) records_of_keys(claim->mapping->id, &from, 1, &n);
		move.from_record_key = from;
		move.to_record_key = candidate->record_key;
		move.case_sensitive = claim->mapping->key_field->case_sensitive;
		move.overlaps = true;
		if (record_move(&move) || n > 0)
			break;
	}
}

/* The record isn't known: it is looked for where it may be, or made. */
static void
expect(const Claim *claim, Candidate *candidate, const RecordRow *record)
{
	MemoryContext caller = MemoryContextSwitchTo(claim->delivery->context);

	candidate->expected = record;
	for (int i = 0; i < record->nat; i++)
		if (record->at_keys[i][0] != '\0' && strcmp(record->at_keys[i], candidate->record_key) != 0)
			batch_look_under(candidate->unit, record->at_keys[i]);
	MemoryContextSwitchTo(caller);
}

/* A record that is stored under the candidate's key, or, where other rows share that, is its own. */
static void
take_record(const Claim *claim, Candidate *candidate, const RecordRow *record, bool at_key)
{
	if (record->expected)
		expect(claim, candidate, record);
	else if (at_key)
		candidate->record = record;
	else
		candidate->old_record = record;
}

static void
read_records(Claim *claim)
{
	char **record_keys = palloc(sizeof(char *) * Max(claim->n, 1));
	char **keys = palloc(sizeof(char *) * Max(claim->n, 1));

	for (int i = 0; i < claim->n; i++)
	{
		record_keys[i] = claim->candidates[i].record_key;
		keys[i] = claim->candidates[i].unit->key;
	}
	claim->records = records_at_keys(claim->mapping->id, record_keys, keys, claim->n, &claim->nrecords);
	for (int r = 0; r < claim->nrecords; r++)
	{
		const RecordRow *record = &claim->records[r];
		const void *found = keymap_find(claim->keys, record->record_key);
		const Candidate *at_key = found != in_flight ? found : NULL;

		if (at_key)
			take_record(claim, &claim->candidates[at_key - claim->candidates], record, true);
		for (int i = 0; record->shares_key && i < claim->n; i++)
			if (&claim->candidates[i] != at_key && strcmp(record->key, keys[i]) == 0)
				take_record(claim, &claim->candidates[i], record, false);
	}
}

static void
read_rows(Claim *claim)
{
	char **keys = palloc(sizeof(char *) * Max(claim->n, 1));
	SourceRow *rows;

	for (int i = 0; i < claim->n; i++)
		keys[i] = claim->candidates[i].unit->key;
	rows = source_read(claim->mapping, keys, claim->n);
	for (int i = 0; i < claim->n; i++)
		claim->candidates[i].row = &rows[i];
}

/* Requests of ours that Salesforce may have carried out, or not. */
static void
read_intents(Claim *claim)
{
	char **keys = palloc(sizeof(char *) * Max(claim->n, 1));

	if (claim->delivery->next_verify == 0)
		return;
	for (int i = 0; i < claim->n; i++)
		keys[i] = claim->candidates[i].unit->key;
	claim->intents = intents_of_keys(claim->mapping->id, keys, claim->n, &claim->nintents);
}

static void
read_parents_of(Claim *claim, int f)
{
	const MappingField *field = &claim->mapping->fields[f];
	const Mapping *parent = mapping_get(field->lookup->parent_mapping);
	char **record_keys = palloc0(sizeof(char *) * Max(claim->n, 1));
	char **asked = palloc(sizeof(char *) * Max(claim->n, 1));
	keymap_hash *ids;
	RecordRow *records;
	int nrecords;
	int n = 0;

	if (!parent || !parent->key_field)
		return;
	for (int i = 0; i < claim->n; i++)
	{
		const SourceRow *row = claim->candidates[i].row;
		char *key = row->found ? payload_parent_key(field, row) : NULL;

		if (key)
			asked[n++] = record_keys[i] = rest_record_key(key, parent->key_field->case_sensitive);
	}
	records = records_of_keys(parent->id, asked, n, &nrecords);
	ids = keymap_create(CurrentMemoryContext, nrecords, NULL);
	for (int r = 0; r < nrecords; r++)
		(void) keymap_add(ids, records[r].record_key, records[r].salesforce_id);
	for (int i = 0; i < claim->n; i++)
		if (record_keys[i])
			claim->candidates[i].parent_ids[f] = keymap_find(ids, record_keys[i]);
	keymap_destroy(ids);
}

/* Ids of the records that lookups refer to: in that form Salesforce tells them. */
static void
read_parents(Claim *claim)
{
	bool any = false;

	for (int f = 0; f < claim->mapping->nfields; f++)
		any |= claim->mapping->fields[f].lookup != NULL;
	if (!any || !claim->mapping->checks)
		return;
	for (int i = 0; i < claim->n; i++)
		claim->candidates[i].parent_ids = palloc0(sizeof(char *) * claim->mapping->nfields);
	for (int f = 0; f < claim->mapping->nfields; f++)
		if (claim->mapping->fields[f].lookup)
			read_parents_of(claim, f);
}

static void
read_ids(Claim *claim)
{
	for (int i = 0; i < claim->n; i++)
		if (claim->candidates[i].unit->nold > 0 && !claim->candidates[i].unit->expected)
			move_record(claim, &claim->candidates[i]);
	read_records(claim);
}

static void
read_all(Claim *claim)
{
	read_rows(claim);
	read_ids(claim);
	claim->fields = judge_fields(claim->mapping, &claim->nfields);
	read_intents(claim);
	read_parents(claim);
}

/*
 * A dead letter may be discarded while its retry is at hand: that is not sent.
 * What else has come to the row goes on.
 */
static void
find_given_up(Claim *claim)
{
	char **keys = palloc(sizeof(char *) * Max(claim->n, 1));
	Candidate **candidates = palloc(sizeof(Candidate *) * Max(claim->n, 1));
	bool *given_up;
	int n = 0;

	for (int i = 0; i < claim->n; i++)
	{
		const Unit *unit = claim->candidates[i].unit;

		if (!unit->deferred || unit->nrefs > 0 || unit->chunk)
			continue;
		keys[n] = unit->key;
		candidates[n++] = &claim->candidates[i];
	}
	given_up = deferred_given_up(claim->mapping->id, keys, n);
	for (int i = 0; i < n; i++)
		candidates[i]->given_up = given_up[i];
}

static UnitKind
decide_candidate(Claim *claim, Candidate *candidate)
{
	if (!candidate->given_up)
		return candidate->row ? decide(claim, candidate) : decide_unread(claim, candidate);
	(void) delivery_decide(claim->delivery, candidate->unit, OUTCOME_DISCARDED);
	return UNIT_UNDECIDED;
}

static void
discard_units(Delivery *delivery, MappingQueue *queue)
{
	while (batch_first(queue))
		(void) delivery_decide(delivery, batch_first(queue), OUTCOME_DISCARDED);
}

/* Memory that reading has changed is stored before anything is sent. */
static void
store_memories(Claim *claim)
{
	char **record_keys = palloc(sizeof(char *) * Max(claim->n, 1));
	char **keys = palloc(sizeof(char *) * Max(claim->n, 1));
	char **ids = palloc(sizeof(char *) * Max(claim->n, 1));
	Memory **memories = palloc(sizeof(Memory *) * Max(claim->n, 1));
	int n = 0;

	for (int i = 0; i < claim->n; i++)
	{
		const Candidate *candidate = &claim->candidates[i];
		const RecordRow *record = candidate_record(candidate);

		if (!candidate->memory_changed || !record)
			continue;
		record_keys[n] = record->record_key;
		keys[n] = record->key;
		ids[n] = record->salesforce_id;
		memories[n++] = candidate->noted.memory;
	}
	record_put(claim->mapping->id, record_keys, keys, ids, memories, n);
}

/* Units whose record is to be read: their rows matter only where it may not be needed, since the row is gone. */
static bool
rows_matter(const Claim *claim)
{
	if (claim->mapping->filter)
		return true; /* those out of it cost no call */
	for (int i = 0; i < claim->n; i++)
	{
		const Unit *unit = claim->candidates[i].unit;

		if (unit->deleted || unit->key_left || unit->missing_since != 0)
			return true;
	}
	return false;
}

static bool
send_reads(Claim *claim, UnitKind *kinds)
{
	if (claim_count(kinds, claim->n, UNIT_READ) == 0)
		return false;
	reads_prepare(claim, kinds);
	for (int i = 0; i < claim->n; i++)
		if (kinds[i] == UNIT_READ)
			batch_start(claim->candidates[i].unit);
	return true;
}

static bool
send_writes(Claim *claim, UnitKind *kinds)
{
	bool taken;
	bool sent;

	family_keep_together(claim, kinds);
	taken = bulk_take(claim, kinds);
	sent = writes_prepare(claim, kinds) || taken;

	if (!sent && claim_count(kinds, claim->n, UNIT_LOOKUP) > 0)
	{
		writes_prepare_lookup(claim, kinds);
		return true;
	}
	for (int i = 0; i < claim->n; i++)
		if (kinds[i] == UNIT_LOOKUP)
			claim->candidates[i].unit->kind = UNIT_LOOKUP;
	return sent;
}

/* What changed of columns whose field is in quarantine is settled without them, and sent later. */
static void
keep_quarantined(const Claim *claim)
{
	const Unit **units;
	int n = 0;

	if (!drift_in_quarantine(claim->mapping))
		return;
	units = palloc(sizeof(Unit *) * Max(claim->n, 1));
	for (int i = 0; i < claim->n; i++)
		if (claim->candidates[i].unit->changed && !claim->candidates[i].unit->deleted)
			units[n++] = claim->candidates[i].unit;
	drift_note(claim->mapping, units, n);
}

/*
 * Keys that other records have: those of which a row goes on by itself, in this
 * round, are waited for; the others are given up first.  One record is asked for
 * one key at a time.
 */
static void
order_keys(Claim *claim, UnitKind *kinds)
{
	int *holders = palloc(sizeof(int) * claim->n);
	KeyStep *steps = palloc(sizeof(KeyStep) * claim->n);

	if (claim_count(kinds, claim->n, UNIT_FREE_KEY) == 0)
		return;
	for (int i = 0; i < claim->n; i++)
	{
		const RecordRow *holder = claim->candidates[i].holder;

		holders[i] = kinds[i] == UNIT_FREE_KEY  ? KEY_HELD_ELSEWHERE
					 : kinds[i] == UNIT_WAITING ? KEY_HELD_ELSEWHERE
												: KEY_IS_FREE;
		for (int j = 0; kinds[i] == UNIT_FREE_KEY && j < claim->n; j++)
			if (candidate_record(&claim->candidates[j]) == holder && kinds[j] != UNIT_UNDECIDED)
				holders[i] = j;
	}
	batch_key_steps(holders, claim->n, steps);
	for (int i = 0; i < claim->n; i++)
	{
		bool asked = false;

		if (kinds[i] != UNIT_FREE_KEY)
			continue;
		for (int j = 0; j < i; j++)
			asked |= kinds[j] == UNIT_FREE_KEY && claim->candidates[j].holder == claim->candidates[i].holder;
		if (steps[i] == KEY_WAIT || asked)
			kinds[i] = UNIT_WAITING;
	}
}

/*
 * One round: decide for a batch, and prepare one request.  What it doesn't
 * take stays ready.
 */
static bool
claim_batch(Claim *claim, MappingQueue *queue)
{
	int most = Max(connection_batch(claim->connection), REST_RETRIEVE_LIMIT);
	Unit **units = palloc(sizeof(Unit *) * most);
	UnitKind *kinds;
	bool reading;
	bool progress = false;
	int n = batch_pick(claim->delivery->work, queue, most, units);

	if (n == 0)
		return false;
	reading = is_unread(claim, units[0]);
	gather(claim, units,
		   Min(n, reading ? connection_read(claim->connection) : connection_batch(claim->connection)));
	if (claim->n == 0)
		return false;
	kinds = palloc(sizeof(UnitKind) * claim->n);
	if (!reading || rows_matter(claim))
		read_all(claim);
	else
		read_ids(claim);
	find_given_up(claim);
	keep_quarantined(claim);
	circle_find(claim);
	for (int i = 0; i < claim->n; i++)
	{
		Candidate *candidate = &claim->candidates[i];

		kinds[i] = decide_candidate(claim, candidate);
		if (kinds[i] == UNIT_WAITING)
			batch_postpone(candidate->unit);
		progress |= kinds[i] == UNIT_UNDECIDED;
	}
	order_keys(claim, kinds);
	store_memories(claim);
	if (send_reads(claim, kinds))
		return true;
	return send_writes(claim, kinds) || progress;
}

static bool
may_send(Claim *claim, MappingQueue *queue)
{
	const Unit *first = batch_first(queue);

	return delivery_may_send(claim->delivery, claim->connection, queue->nready,
							 first ? first->first_event_at : 0, &claim->state->held_until);
}

/*
 * The context becomes the request's.  Without a request it goes with the turn,
 * within which everything decided here is settled.
 */
static bool
claim_once(Delivery *delivery, MappingDelivery *state, const Mapping *mapping, MappingQueue *queue)
{
	Claim claim = {.delivery = delivery, .state = state};
	MemoryContext context =
		AllocSetContextCreate(delivery->turn_context, "sfsync request", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	int outgoing = list_length(delivery->outgoing);
	bool progress = false;

	if (delivery_lock_source(delivery, state, mapping))
		claim.mapping = mapping_get(state->id);
	if (!claim.mapping) /* locked by others, or dropped by them just now */
	{
		MemoryContextSwitchTo(caller);
		return false;
	}
	claim.connection = connection_get(claim.mapping->serverid, claim.mapping->owner);
	if (may_send(&claim, queue) && claim_ready(&claim))
	{
		if (state->users_wanted)
		{
			reads_prepare_users(&claim);
			progress = true;
		}
		else
			progress = claim_batch(&claim, queue);
	}
	if (claim.keys)
		keymap_destroy(claim.keys);
	MemoryContextSwitchTo(caller);
	if (list_length(delivery->outgoing) > outgoing)
		MemoryContextSetParent(context, delivery->context);
	return progress;
}

void
claim(Delivery *delivery, MappingDelivery *state, void *arg)
{
	ClaimRound *round = arg;
	const Mapping *mapping = mapping_get(state->id);

	round->progress = false;
	if (mapping)
		round->progress = claim_once(delivery, state, mapping, round->queue);
	else
		discard_units(delivery, round->queue);
}
