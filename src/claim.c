/*
 * claim.c
 *		Decides what changed rows mean for Salesforce, and prepares requests.
 *
 * Rows are read here, as they are now: what is sent is never older than the
 * events it settles.  What needs no request (nothing mapped changed, a value
 * can't be coerced, ...) is decided at once.
 */
#include "compat.h"

#include <time.h>

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "deliver.h"
#include "payload.h"
#include "sfsync.h"
#include "source.h"

/* Turns that a child waits for a parent that is at hand. */
#define MAX_WAITS 100

/* A unit while it is decided. */
typedef struct Candidate
{
	Unit *unit;
	char *record_key;
	SourceRow *row;
	const RecordRow *record;     /* that we know under its key; NULL */
	const RecordRow *old_record; /* under a key that the row had before; NULL */
	RestRecord payload;
	const char *operation;
	const char *salesforce_id;
} Candidate;

typedef struct Claim
{
	Delivery *delivery;
	MappingDelivery *state;
	Mapping *mapping;
	Connection *connection;
	MemoryContext context; /* becomes the request's */
	int n;
	Candidate *candidates;
	RecordRow *records;
	int nrecords;
} Claim;

static char *
key_utf8(const char *key)
{
	return pg_server_to_any(key, strlen(key), PG_UTF8);
}

static bool
case_sensitive(const Mapping *mapping)
{
	return mapping->key_field->case_sensitive;
}

static bool
writes_record(List *requests, const char *object, const char *record_key)
{
	ListCell *lc;

	foreach(lc, requests)
	{
		Request *request = lfirst(lc);

		if (request->nunits == 0 || strcmp(request->object, object) != 0)
			continue;
		for (int i = 0; i < request->nunits; i++)
			if (strcmp(request->outcomes[i].record_key, record_key) == 0)
				return true;
	}
	return false;
}

/* Is a record of that key in flight, or about to be, under whatever key or mapping? */
static bool
record_in_flight(const Claim *claim, const char *record_key)
{
	return writes_record(claim->delivery->requests, claim->mapping->object, record_key) ||
		   writes_record(claim->delivery->outgoing, claim->mapping->object, record_key);
}

/* Take units whose record is free; of two that share a record the first. */
static void
gather(Claim *claim, Unit **units, int n)
{
	claim->candidates = palloc0(sizeof(Candidate) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		char *record_key = rest_record_key(key_utf8(units[i]->key), case_sensitive(claim->mapping));
		bool taken = record_in_flight(claim, record_key);

		for (int j = 0; j < claim->n && !taken; j++)
			taken = strcmp(claim->candidates[j].record_key, record_key) == 0;
		if (taken)
			continue;
		claim->candidates[claim->n].unit = units[i];
		claim->candidates[claim->n++].record_key = record_key;
	}
}

static const RecordRow *
find_record(const Claim *claim, const char *record_key)
{
	for (int i = 0; i < claim->nrecords; i++)
		if (strcmp(claim->records[i].record_key, record_key) == 0)
			return &claim->records[i];
	return NULL;
}

static void
read_records(Claim *claim)
{
	int max = 0;
	char **keys;
	int n = 0;

	for (int i = 0; i < claim->n; i++)
		max += 1 + claim->candidates[i].unit->nold;
	keys = palloc(sizeof(char *) * Max(max, 1));
	for (int i = 0; i < claim->n; i++)
	{
		Unit *unit = claim->candidates[i].unit;

		keys[n++] = claim->candidates[i].record_key;
		for (int o = 0; o < unit->nold; o++)
			keys[n++] = rest_record_key(key_utf8(unit->old_keys[o]), case_sensitive(claim->mapping));
	}
	claim->records = records_of_keys(claim->mapping->id, keys, n, &claim->nrecords);
	for (int i = 0; i < claim->n; i++)
		claim->candidates[i].record = find_record(claim, claim->candidates[i].record_key);
}

/* Which record the row had under a key before: the newest that is known. */
static void
read_old_key(Claim *claim, Candidate *candidate)
{
	Unit *unit = candidate->unit;

	for (int o = 0; o < unit->nold && !candidate->old_record; o++)
	{
		char *record_key = rest_record_key(key_utf8(unit->old_keys[o]), case_sensitive(claim->mapping));
		const RecordRow *record = find_record(claim, record_key);

		if (record && strcmp(record->key, unit->old_keys[o]) == 0)
			candidate->old_record = record;
	}
}

/* A row with an unresolved dead letter is sent whole: what it failed with is pending too. */
static void
read_dead_letters(Claim *claim, char *const *keys)
{
	int n;
	char **failed = dead_letters_of_keys(claim->mapping, keys, claim->n, &n);

	for (int f = 0; f < n; f++)
		for (int i = 0; i < claim->n; i++)
			if (strcmp(claim->candidates[i].unit->key, failed[f]) == 0)
				claim->candidates[i].unit->whole = true;
}

static void
read_all(Claim *claim)
{
	char **keys = palloc(sizeof(char *) * Max(claim->n, 1));
	SourceRow *rows;

	for (int i = 0; i < claim->n; i++)
		keys[i] = claim->candidates[i].unit->key;
	rows = source_read(claim->mapping, keys, claim->n);
	for (int i = 0; i < claim->n; i++)
		claim->candidates[i].row = &rows[i];
	read_records(claim);
	read_dead_letters(claim, keys);
	for (int i = 0; i < claim->n; i++)
		read_old_key(claim, &claim->candidates[i]);
}

/*
 * Decisions.  Each returns the request that the unit needs; UNIT_UNDECIDED
 * means that it is settled, or put off, without one.
 */

static UnitKind
decided(Claim *claim, Candidate *candidate, OutcomeKind kind)
{
	Outcome *outcome = delivery_decide(claim->delivery, candidate->unit, kind);

	outcome->record_key = candidate->record_key;
	return UNIT_UNDECIDED;
}

static UnitKind
dead(Claim *claim, Candidate *candidate, const RestError *error)
{
	Outcome *outcome = delivery_decide(claim->delivery, candidate->unit, OUTCOME_DEAD);

	outcome->operation = candidate->operation;
	outcome->record_key = candidate->record_key;
	outcome->salesforce_id = candidate->salesforce_id;
	outcome->payload = payload_json(claim->mapping, &candidate->payload);
	outcome->error = *error;
	return UNIT_UNDECIDED;
}

static UnitKind
put_off(Claim *claim, Candidate *candidate, OutcomeKind kind, const char *reason)
{
	Outcome *outcome = delivery_decide(claim->delivery, candidate->unit, kind);

	outcome->reason = reason;
	outcome->due_at = GetCurrentTimestamp() + (int64) sfsync_retry_base_delay * 1000;
	return UNIT_UNDECIDED;
}

/* Two rows whose keys are one to Salesforce (design, section 2.2). */
static bool
key_is_taken(Claim *claim, Candidate *candidate, RestError *error)
{
	char *owner;
	SourceRow *row;

	if (!candidate->record || strcmp(candidate->record->key, candidate->unit->key) == 0)
		return false;
	owner = candidate->record->key;
	row = source_read(claim->mapping, &owner, 1);
	if (!row->found)
		return false;
	error->code = pstrdup("DUPLICATE_KEY");
	error->message =
		psprintf("to Salesforce the key is the same as \"%s\", whose row has the record: "
				 "blanks at the ends%s make no difference in field %s",
				 owner, case_sensitive(claim->mapping) ? "" : " and case", claim->mapping->external_id);
	error->fields = palloc(sizeof(char *));
	error->fields[0] = claim->mapping->external_id;
	error->nfields = 1;
	return true;
}

static bool
build(Claim *claim, Candidate *candidate, bool whole, PayloadUse use, RestError *error)
{
	return payload_build(claim->mapping, candidate->row, key_utf8(candidate->unit->key),
						 whole ? NULL : candidate->unit->changed, candidate->unit->changed_len, use,
						 &candidate->payload, error);
}

/*
 * A row came to the key of a row that was deleted: the deleted one's record goes
 * first, then this one's record gets the key.
 */
static bool
takes_over(const Claim *claim, const Candidate *candidate)
{
	return candidate->unit->deleted && candidate->record && candidate->old_record &&
		   strcmp(claim->mapping->on_delete, "delete") == 0;
}

/*
 * Parents go before children: a reference to a record that is about to be made
 * would be refused.  Within one mapping, and for a parent that doesn't get on, it
 * is left to Salesforce's answer, which has the row wait for its time.
 */
static bool
parent_at_hand(const Claim *claim, const Candidate *candidate)
{
	for (int i = 0; i < claim->mapping->nfields; i++)
	{
		const MappingField *field = &claim->mapping->fields[i];
		char *key;

		if (!field->lookup || field->lookup->parent_mapping == claim->mapping->id)
			continue;
		key = payload_parent_key(field, candidate->row);
		if (key && batch_find(claim->delivery->work, field->lookup->parent_mapping, key))
			return candidate->unit->waits++ < MAX_WAITS;
	}
	return false;
}

static UnitKind
decide_present(Claim *claim, Candidate *candidate)
{
	Unit *unit = candidate->unit;
	bool known = candidate->record != NULL;
	bool moved = !known && candidate->old_record;
	bool whole = unit->whole || unit->deleted || !known;
	RestError error = {0};
	bool good;

	candidate->operation = moved ? "key_change" : whole ? "upsert" : "update";
	candidate->salesforce_id = known   ? candidate->record->salesforce_id
							   : moved ? candidate->old_record->salesforce_id
									   : NULL;
	if (parent_at_hand(claim, candidate))
		return UNIT_WAITING;
	if (takes_over(claim, candidate))
	{
		candidate->operation = "delete";
		return UNIT_DELETE;
	}
	if (unit->nold > 0 && !known && !candidate->old_record && !unit->looked_up)
		return UNIT_LOOKUP;
	if (!whole && !unit->changed)
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	good = build(claim, candidate, whole, known || moved ? PAYLOAD_UPDATE : PAYLOAD_CREATE, &error);
	if (key_is_taken(claim, candidate, &error) || !good)
		return dead(claim, candidate, &error);
	if (moved)
		return UNIT_UPDATE;
	if (whole)
		return UNIT_UPSERT;
	if (candidate->payload.nfields == 0)
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	candidate->payload.external_id = NULL;
	return UNIT_UPDATE;
}

static UnitKind
decide_deleted(Claim *claim, Candidate *candidate)
{
	Unit *unit = candidate->unit;
	const RecordRow *record = candidate->record;

	candidate->operation = "delete";
	candidate->payload.external_id = key_utf8(unit->key);
	if (strcmp(claim->mapping->on_delete, "ignore") == 0)
		return decided(claim, candidate, OUTCOME_IGNORED);

	/* another row's record, whose key is the same to Salesforce, is not ours to delete */
	if (record && strcmp(record->key, unit->key) != 0)
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	if (!record)
		record = candidate->old_record;
	if (record)
	{
		candidate->salesforce_id = record->salesforce_id;
		return UNIT_DELETE;
	}

	/* made and deleted again before anything was sent */
	if (unit->inserted && claim->delivery->next_verify == 0)
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	if (unit->looked_up)
		return decided(claim, candidate, OUTCOME_DELETED);
	return UNIT_LOOKUP;
}

/*
 * The row is not there, and no delete of it was captured.  The delete may
 * stand further back in the queue: wait until everything that had been
 * committed when the row was first missed has been read.
 */
static UnitKind
decide_missing(Claim *claim, Candidate *candidate)
{
	Unit *unit = candidate->unit;

	if (unit->key_left || (unit->chunk && unit->nrefs == 0 && !unit->deferred))
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	if (unit->missing_since == 0)
	{
		FullTransactionId next = ReadNextFullTransactionId();

		unit->missing_since = U64FromFullTransactionId(next);
	}
	else if (claim->delivery->window.seen_xmin >= unit->missing_since)
		return put_off(
			claim, candidate, OUTCOME_HELD,
			"the row is not in the table, or its owner may not see it, and no delete of it was captured");
	return put_off(claim, candidate, OUTCOME_DEFERRED,
				   "the row is not in the table; waiting for the change that removed it");
}

static UnitKind
decide(Claim *claim, Candidate *candidate)
{
	if (candidate->row->found)
		return decide_present(claim, candidate);
	if (candidate->unit->deleted)
		return decide_deleted(claim, candidate);
	return decide_missing(claim, candidate);
}

/*
 * Requests
 */

static const char *
request_name(UnitKind kind)
{
	return kind == UNIT_UPSERT ? "upsert" : kind == UNIT_UPDATE ? "update" : "delete";
}

static Request *
make_request(Claim *claim, RequestKind kind)
{
	Request *request = palloc0(sizeof(Request));

	request->context = claim->context;
	request->kind = kind;
	request->connection = claim->connection;
	request->mapping = claim->mapping->id;
	request->object = pstrdup(claim->mapping->object);
	request->external_id = pstrdup(claim->mapping->external_id);
	request->server = pstrdup(claim->mapping->server);
	request->key_is_number = claim->mapping->key_field && payload_key_is_number(claim->mapping);
	return request;
}

/* Field names belong to the mapping, which may be read again while the request is under way. */
static void
own_names(RestRecord *record)
{
	for (int i = 0; i < record->nfields; i++)
		record->fields[i].name = pstrdup(record->fields[i].name);
}

static char **
distinct_fields(const Request *request, int *n)
{
	char **names;
	int max = 0;

	for (int i = 0; i < request->nunits; i++)
		max = Max(max, request->records[i].nfields);
	names = palloc(sizeof(char *) * Max(max * 4, 1));
	*n = 0;
	for (int i = 0; i < request->nunits; i++)
		for (int f = 0; f < request->records[i].nfields; f++)
		{
			bool known = false;

			for (int k = 0; k < *n && !known; k++)
				known = strcmp(names[k], request->records[i].fields[f].name) == 0;
			if (!known && *n < max * 4)
				names[(*n)++] = unconstify(char *, request->records[i].fields[f].name);
		}
	return names;
}

static void
note_intent(Request *request, const char *operation)
{
	char **keys = palloc(sizeof(char *) * request->nunits);
	int nfields = 0;
	char **fields = request->records ? distinct_fields(request, &nfields) : NULL;

	for (int i = 0; i < request->nunits; i++)
		keys[i] = request->outcomes[i].unit->key;
	request->intent = intent_add(request->mapping, operation, keys, request->nunits, fields, nfields);
}

static void
build_call(Claim *claim, Request *request, UnitKind kind)
{
	const char *version = claim->connection->options->api_version;
	const char **ids;

	switch (kind)
	{
		case UNIT_UPSERT:
			request->call = rest_upsert(version, request->object, request->external_id,
										request->key_is_number, request->records, request->nunits);
			break;
		case UNIT_UPDATE:
			request->call = rest_update(version, request->object, request->external_id,
										request->key_is_number, request->records, request->nunits);
			break;
		default:
			ids = palloc(sizeof(char *) * request->nunits);
			for (int i = 0; i < request->nunits; i++)
				ids[i] = request->outcomes[i].salesforce_id;
			request->call = rest_delete(version, ids, request->nunits);
	}
}

static void
add_unit(Request *request, const Candidate *candidate)
{
	Outcome *outcome = &request->outcomes[request->nunits];

	outcome->unit = candidate->unit;
	outcome->operation = candidate->operation;
	outcome->record_key = candidate->record_key;
	outcome->salesforce_id = candidate->salesforce_id ? pstrdup(candidate->salesforce_id) : NULL;
	outcome->row_remains = candidate->row->found;
	request->records[request->nunits] = candidate->payload;
	if (candidate->row->found && strcmp(candidate->operation, "upsert") != 0)
		request->records[request->nunits].salesforce_id = outcome->salesforce_id;
	own_names(&request->records[request->nunits]);
	request->nunits++;
}

static void
prepare_write(Claim *claim, UnitKind kind, const UnitKind *kinds)
{
	Request *request = make_request(claim, kind == UNIT_UPSERT   ? REQUEST_UPSERT
										   : kind == UNIT_UPDATE ? REQUEST_UPDATE
																 : REQUEST_DELETE);

	request->outcomes = palloc0(sizeof(Outcome) * claim->n);
	request->records = palloc0(sizeof(RestRecord) * claim->n);
	for (int i = 0; i < claim->n; i++)
		if (kinds[i] == kind)
			add_unit(request, &claim->candidates[i]);
	build_call(claim, request, kind);
	note_intent(request, request_name(kind));
	delivery_send_later(claim->delivery, request);
}

static void
prepare_lookup(Claim *claim, const UnitKind *kinds)
{
	Request *request = make_request(claim, REQUEST_LOOKUP);
	int max = 0;
	const char **asked;

	for (int i = 0; i < claim->n; i++)
		max += kinds[i] == UNIT_LOOKUP ? 1 + claim->candidates[i].unit->nold : 0;
	request->outcomes = palloc0(sizeof(Outcome) * claim->n);
	request->keys = palloc(sizeof(char *) * max);
	request->record_keys = palloc(sizeof(char *) * max);
	asked = palloc(sizeof(char *) * max);
	for (int i = 0; i < claim->n; i++)
	{
		Unit *unit = claim->candidates[i].unit;

		if (kinds[i] != UNIT_LOOKUP)
			continue;
		request->outcomes[request->nunits].unit = unit;
		request->outcomes[request->nunits++].record_key = claim->candidates[i].record_key;
		for (int k = -1; k < unit->nold && request->nkeys < 2000; k++)
		{
			const char *key = k < 0 ? unit->key : unit->old_keys[k];

			request->keys[request->nkeys] = pstrdup(key);
			request->record_keys[request->nkeys] =
				rest_record_key(key_utf8(key), case_sensitive(claim->mapping));
			asked[request->nkeys++] = key_utf8(key);
		}
	}
	request->call = rest_lookup(claim->connection->options->api_version, request->object,
								request->external_id, request->key_is_number, asked, request->nkeys);
	delivery_send_later(claim->delivery, request);
}

/*
 * What may be asked at all
 */

static void
prepare_login(Claim *claim)
{
	Connection *connection = claim->connection;
	Request *request = make_request(claim, REQUEST_LOGIN);
	Credentials *credentials = credentials_load(connection->serverid, connection->owner);
	char *error = NULL;

	request->login = auth_call(connection->options, credentials, (int64) time(NULL), &error);
	credentials_wipe(credentials);
	if (!request->login)
	{
		connection_block(connection, error, GetCurrentTimestamp());
		return;
	}
	connection->login_in_flight = true;
	delivery_send_later(claim->delivery, request);
}

static void
prepare_limits(Claim *claim)
{
	Request *request = make_request(claim, REQUEST_LIMITS);

	request->call = rest_limits(claim->connection->options->api_version);
	claim->connection->limits_in_flight = true;
	delivery_send_later(claim->delivery, request);
}

/* Usage is asked for before anything is sent; later, to see whether the server is well. */
static bool
limits_ready(Claim *claim)
{
	Connection *connection = claim->connection;

	if (connection->limits_in_flight)
		return connection->limits_known;
	if (connection->limits_known && !poison_wants_control(&connection->poison))
		return true;
	prepare_limits(claim);
	return false;
}

static void
prepare_describe(Claim *claim)
{
	Request *request = make_request(claim, REQUEST_DESCRIBE);

	if (claim->mapping->meta && claim->mapping->last_modified && !claim->state->describe_wanted)
		request->if_modified_since = psprintf("If-Modified-Since: %s", claim->mapping->last_modified);
	request->call = rest_describe(claim->connection->options->api_version, request->object);
	claim->state->describe_in_flight = true;
	delivery_send_later(claim->delivery, request);
}

/*
 * Credentials that can't be read block the connection, not the mapping: a
 * changed option or user mapping lifts it.
 */
static void
try_login(Claim *claim)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		MemoryContextSwitchTo(caller);
		prepare_login(claim);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		connection_block(claim->connection,
						 error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message,
						 GetCurrentTimestamp());
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
}

static bool
stale(const Mapping *mapping)
{
	return mapping->metadata_at + (int64) sfsync_schema_ttl * 1000 < GetCurrentTimestamp();
}

/* Is there a token and are there metadata?  Else have them fetched. */
static bool
ready(Claim *claim)
{
	MappingDelivery *state = claim->state;
	Mapping *mapping = claim->mapping;

	if (!claim->connection->token)
	{
		if (!claim->connection->login_in_flight)
			try_login(claim);
		return false;
	}
	if (!limits_ready(claim))
		return false;
	if (!mapping->has_metadata || mapping->refresh_wanted || state->describe_wanted || stale(mapping))
	{
		if (!state->describe_in_flight)
		{
			prepare_describe(claim);
			return false;
		}
		if (!mapping->has_metadata || state->describe_wanted)
			return false;
	}
	if (mapping->broken)
		delivery_block(claim->delivery, state, mapping->broken, GetCurrentTimestamp());
	return !mapping->broken;
}

static void
discard_units(Delivery *delivery, MappingQueue *queue)
{
	while (batch_first(queue))
		(void) delivery_decide(delivery, batch_first(queue), OUTCOME_DISCARDED);
}

/*
 * One round: decide for a batch, prepare the request of the kind that its first
 * unit needs.  The others stay ready, with their kind known.
 */
static bool
claim_batch(Claim *claim, MappingQueue *queue)
{
	int max = Min(connection_batch(claim->connection), REST_COLLECTION_LIMIT);
	Unit **units = palloc(sizeof(Unit *) * max);
	UnitKind *kinds;
	UnitKind first = UNIT_UNDECIDED;
	bool progress = false;

	gather(claim, units, batch_pick(claim->delivery->work, queue, max, units));
	if (claim->n == 0)
		return false;
	read_all(claim);
	kinds = palloc(sizeof(UnitKind) * claim->n);
	for (int i = 0; i < claim->n; i++)
	{
		kinds[i] = decide(claim, &claim->candidates[i]);
		if (kinds[i] == UNIT_WAITING)
		{
			batch_postpone(claim->candidates[i].unit);
			continue;
		}
		if (first == UNIT_UNDECIDED)
			first = kinds[i];
		if (kinds[i] == UNIT_UNDECIDED)
			progress = true;
		else
			claim->candidates[i].unit->kind = kinds[i];
	}
	if (first == UNIT_LOOKUP)
		prepare_lookup(claim, kinds);
	else if (first != UNIT_UNDECIDED)
		prepare_write(claim, first, kinds);
	for (int i = 0; i < claim->n; i++)
		if (kinds[i] == first && first != UNIT_UNDECIDED)
			batch_start(claim->candidates[i].unit);
	return progress || first != UNIT_UNDECIDED;
}

static bool
may_send(const Delivery *delivery, MappingDelivery *state, Connection *connection, MappingQueue *queue)
{
	int waiting = 0;
	TimestampTz oldest_at = 0;
	ListCell *lc;

	foreach(lc, delivery->outgoing)
		if (((Request *) lfirst(lc))->connection == connection)
			waiting++;
	if (batch_first(queue))
		oldest_at = batch_first(queue)->first_event_at;
	return connection_may_send(connection, connection->in_flight + waiting, queue->nready, oldest_at,
							   &state->held_until);
}

/*
 * The context becomes the request's.  Without a request it goes with the turn,
 * within which everything decided here is settled.
 */
static bool
claim_once(Delivery *delivery, MappingDelivery *state, MappingQueue *queue)
{
	Claim claim = {.delivery = delivery, .state = state};
	MemoryContext caller = CurrentMemoryContext;
	int outgoing = list_length(delivery->outgoing);
	bool progress = false;

	claim.context = AllocSetContextCreate(delivery->turn_context, "sfsync request", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(claim.context);
	claim.mapping = mapping_get(state->id);
	if (!delivery_lock_source(claim.mapping))
	{
		MemoryContextSwitchTo(caller);
		return false;
	}
	claim.mapping = mapping_get(state->id);
	claim.connection = connection_get(claim.mapping->serverid, claim.mapping->owner);
	if (may_send(delivery, state, claim.connection, queue) && ready(&claim))
		progress = claim_batch(&claim, queue);
	MemoryContextSwitchTo(caller);
	if (list_length(delivery->outgoing) > outgoing)
		MemoryContextSetParent(claim.context, delivery->context);
	return progress;
}

void
claim(Delivery *delivery, MappingDelivery *state, void *arg)
{
	ClaimRound *round = arg;

	round->progress = false;
	if (mapping_get(state->id))
		round->progress = claim_once(delivery, state, round->queue);
	else
		discard_units(delivery, round->queue);
}
