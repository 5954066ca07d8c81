/*
 * decide.c
 *		What a changed row means for Salesforce: which request its record needs,
 *		or none.
 *
 * What needs no request (nothing mapped changed, a value can't be coerced, ...)
 * is decided at once.  Where the mapping's policy asks for it, the record has
 * been read before, and is weighed field by field (judge.c).
 */
#include "compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "backfills.h"
#include "claim.h"
#include "datum.h"
#include "delete_policy.h"
#include "judge.h"
#include "payload.h"
#include "sfsync.h"

/* Turns that a child waits for a parent that is at hand. */
#define MAX_WAITS 100

static bool
case_sensitive(const Mapping *mapping)
{
	return mapping->key_field->case_sensitive;
}

/*
 * Each of the following returns the request that the unit needs;
 * UNIT_UNDECIDED means that it is settled, or put off, without one.
 */

static UnitKind
decided(Claim *claim, Candidate *candidate, OutcomeKind kind)
{
	Outcome *outcome = delivery_decide(claim->delivery, candidate->unit, kind);

	outcome->record_key = candidate->record_key;
	outcome->salesforce_id = candidate->salesforce_id;
	outcome->conflicts = candidate->noted.conflicts;
	outcome->expected_id = candidate->expected ? candidate->expected->salesforce_id : NULL;
	outcome->set_replaced = candidate->noted.set_replaced;
	outcome->replaced = candidate->noted.replaced;
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
	return payload_build(claim->mapping, candidate->row, datum_key_utf8(candidate->unit->key),
						 whole ? NULL : candidate->unit->changed, candidate->unit->changed_len, use,
						 &candidate->payload, error);
}

/*
 * Keys
 */

/* Does Salesforce have the row's record under another key, as far as is known? */
static bool
is_moving(const Candidate *candidate)
{
	const RecordRow *own = candidate_record(candidate);

	return own && (own->moving || own->shares_key);
}

static bool
may_have_key(const RecordRow *record, const char *record_key)
{
	if (!record->moving)
		return strcmp(record->record_key, record_key) == 0;
	for (int i = 0; i < record->nat; i++)
		if (strcmp(record->at_keys[i], record_key) == 0)
			return true;
	return false;
}

/* In name only, and its row is gone: nothing of it will ever be looked for. */
static bool
is_abandoned(const RecordRow *record)
{
	return record->expected && record->record_key[0] == ' ';
}

/* Another record that may have the row's key in Salesforce; NULL. */
static const RecordRow *
find_holder(const Claim *claim, const Candidate *candidate)
{
	const RecordRow *own = candidate_record(candidate);

	for (int i = 0; i < claim->nrecords; i++)
		if (&claim->records[i] != own && &claim->records[i] != candidate->expected &&
			!is_abandoned(&claim->records[i]) && may_have_key(&claim->records[i], candidate->record_key))
			return &claim->records[i];
	return NULL;
}

/* The record that has the key gives it up, which takes nothing else of it; then the row goes on. */
static UnitKind
free_key(const Claim *claim, Candidate *candidate)
{
	RestField *field;

	if (candidate->holder->expected || claim_record_in_flight(claim, candidate->holder->record_key))
		return UNIT_WAITING;
	field = palloc0(sizeof(RestField));
	field->name = claim->mapping->external_id;
	field->value.kind = FV_NULL;
	candidate->payload = (RestRecord){.fields = field, .nfields = 1};
	candidate->operation = "key_change";
	return UNIT_FREE_KEY;
}

/*
 * A write that gives the record its key: by Id, or of a record that is made.
 * What has that key must have given it up.
 */
static bool
must_free_key(const Claim *claim, Candidate *candidate)
{
	candidate->sets_key = is_moving(candidate);
	candidate->holder =
		candidate->sets_key || !candidate_record(candidate) ? find_holder(claim, candidate) : NULL;
	return candidate->holder != NULL;
}

/* In the unit's own memory. */
static void
note_parent(const Claim *claim, Unit *unit, int mapping, const char *key)
{
	MemoryContext caller = MemoryContextSwitchTo(claim->delivery->context);

	batch_set_parent(unit, mapping, key);
	MemoryContextSwitchTo(caller);
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
		if (!key || !delivery_of(claim->delivery, field->lookup->parent_mapping)->deliverable ||
			!batch_is_at_hand(claim->delivery->work, field->lookup->parent_mapping, key) ||
			batch_waits_for(claim->delivery->work, field->lookup->parent_mapping, key, candidate->unit))
			continue;
		if (candidate->unit->waits++ >= MAX_WAITS)
			return false;
		note_parent(claim, candidate->unit, field->lookup->parent_mapping, key);
		return true;
	}
	return false;
}

/*
 * Rows whose record was read
 */

static JudgeCase
start_judging(Claim *claim, Candidate *candidate)
{
	const RecordRow *record = candidate_record(candidate);
	const UnitRead *read = candidate->unit->read;
	JudgeCase judged = {.mapping = claim->mapping, .unit = candidate->unit, .row = candidate->row};
	Memory *memory = palloc0(sizeof(Memory));

	judged.read = &read->record;
	judged.fields = claim->fields;
	judged.nfields = claim->nfields;
	judged.our_user = claim->connection->token ? claim->connection->token->user_id : NULL;
	judged.clock_skew = claim->connection->clock_skew;
	judged.intents = claim->intents;
	judged.nintents = claim->nintents;
	judged.parent_ids = candidate->parent_ids;
	judged.history = read->history;
	judged.nhistory = read->nhistory;
	judged.history_fields = claim->fields;
	if (record)
	{
		judged.replaced = record->replaced;
		judged.nreplaced = record->nreplaced;
		*memory = memory_copy(&record->memory);
	}
	memset(&candidate->noted, 0, sizeof(Outcome));
	candidate->noted.memory = memory;
	return judged;
}

static UnitKind
create(Claim *claim, Candidate *candidate)
{
	JudgeCase judged = start_judging(claim, candidate);
	RestError error = {0};
	bool guarded =
		strcmp(claim->mapping->conflict_policy, "strict") == 0 && !candidate->unit->read->ambiguous;
	bool good;

	/* all of the row is at stake, also if the record should turn out to be there by now */
	batch_add_whole(candidate->unit, BATCH_NEVER);
	candidate->operation = guarded ? "create" : "upsert";
	candidate->salesforce_id = NULL;
	good = build(claim, candidate, true, PAYLOAD_CREATE, &error);
	circle_leave_out(claim, candidate);
	if (key_is_taken(claim, candidate, &error) || !good)
		return dead(claim, candidate, &error);
	if (must_free_key(claim, candidate))
		return free_key(claim, candidate);
	judge_create(&judged, &candidate->payload, &candidate->noted);
	return guarded ? UNIT_CREATE : UNIT_UPSERT;
}

/* The record that is remembered is not there any more. */
static UnitKind
decide_gone(Claim *claim, Candidate *candidate)
{
	const UnitRead *read = candidate->unit->read;
	const RecordRow *record = candidate_record(candidate);
	JudgeCase judged;

	if (!read->gone_read)
		return UNIT_READ;
	judged = start_judging(claim, candidate);
	candidate->salesforce_id = record->salesforce_id;
	if (judge_gone(&judged, &read->gone, &candidate->noted))
		return decided(claim, candidate, OUTCOME_CONFLICT);
	record_forget(claim->mapping->id, record->record_key);
	candidate->record = candidate->old_record = NULL;
	return create(claim, candidate);
}

/*
 * The condition has whole seconds, and equality passes: an edit in the second
 * of the read would not be seen (reference, section 4.5).  That second has to
 * pass first.
 */
static bool
second_is_open(const UnitRead *read)
{
	int64 ahead = read->record.last_modified / USECS_PER_SEC - read->server_at / USECS_PER_SEC;

	/* a time further ahead is none of a clock: nothing is gained by waiting for it */
	return ahead >= 0 && ahead <= 2;
}

static UnitKind
next_second(Claim *claim, Candidate *candidate)
{
	Outcome *outcome = delivery_decide(claim->delivery, candidate->unit, OUTCOME_DEFERRED);

	outcome->reason = "the record was modified in this very second; it is read again in the next";
	outcome->due_at = GetCurrentTimestamp() + USECS_PER_SEC;
	return UNIT_UNDECIDED;
}

/* The record is there: what is left to write of it? */
static UnitKind
decide_there(Claim *claim, Candidate *candidate, bool moved)
{
	Unit *unit = candidate->unit;
	JudgeCase judged = start_judging(claim, candidate);
	Judgement judgement = judge_update(&judged, &candidate->noted);
	RestError error = judgement.error;

	candidate->operation = moved ? "key_change" : "update";
	candidate->salesforce_id = unit->read->record.id;
	candidate->payload = judgement.record;
	if (key_is_taken(claim, candidate, &error) || !judgement.good)
		return dead(claim, candidate, &error);
	if (judgement.kept_by_time && claim->mapping->meta->history_object && !unit->read->history_read)
		return UNIT_READ;
	candidate->memory_changed = judgement.memory_changed;
	if (moved && must_free_key(claim, candidate))
		return free_key(claim, candidate);
	if (moved)
		candidate->payload.external_id = datum_key_utf8(unit->key);
	else if (candidate->payload.nfields == 0)
		return decided(claim, candidate,
					   candidate->noted.conflicts.n > 0 ? OUTCOME_CONFLICT : OUTCOME_UNCHANGED);
	if (!judgement.guarded)
		return UNIT_UPDATE;
	if (second_is_open(unit->read))
		return next_second(claim, candidate);
	candidate->unmodified_since = unit->read->record.last_modified;
	return UNIT_GUARDED_UPDATE;
}

static UnitKind
decide_checked(Claim *claim, Candidate *candidate)
{
	const UnitRead *read = candidate->unit->read;

	if (parent_at_hand(claim, candidate))
		return UNIT_WAITING;
	if (!read)
		return decide_unread(claim, candidate);
	if (read->record.found)
		return decide_there(claim, candidate, is_moving(candidate));
	if (candidate_record(candidate))
		return decide_gone(claim, candidate);
	return create(claim, candidate);
}

/*
 * Rows that are there, when the row wins in any case
 */

/* What the delete policy replaced, of a row that came back. */
static void
add_replaced(Candidate *candidate)
{
	const RecordRow *record = candidate_record(candidate);
	RestRecord *payload = &candidate->payload;

	if (!record || record->nreplaced == 0)
		return;
	payload->fields = payload->fields ? repalloc(payload->fields,
												 sizeof(RestField) * (payload->nfields + record->nreplaced))
									  : palloc(sizeof(RestField) * record->nreplaced);
	for (int i = 0; i < record->nreplaced; i++)
	{
		bool there = false;

		for (int f = 0; f < payload->nfields && !there; f++)
			there = strcmp(payload->fields[f].name, record->replaced[i].name) == 0;
		if (!there)
			payload->fields[payload->nfields++] = record->replaced[i];
	}
	candidate->noted.set_replaced = true;
}

static UnitKind
decide_present(Claim *claim, Candidate *candidate)
{
	Unit *unit = candidate->unit;
	const RecordRow *own = candidate_record(candidate);
	bool moved = is_moving(candidate);
	bool whole = unit->whole || unit->deleted || !own;
	RestError error = {0};
	bool good;

	candidate->operation = moved ? "key_change" : whole ? "upsert" : "update";
	candidate->salesforce_id = own ? own->salesforce_id : NULL;
	if (parent_at_hand(claim, candidate))
		return UNIT_WAITING;
	if (unit->nold > 0 && !own && !unit->looked_up)
		return UNIT_LOOKUP;
	if (!whole && !unit->changed && !moved)
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	good = build(claim, candidate, whole, own ? PAYLOAD_UPDATE : PAYLOAD_CREATE, &error);
	circle_leave_out(claim, candidate);
	if (key_is_taken(claim, candidate, &error) || !good)
		return dead(claim, candidate, &error);
	if (must_free_key(claim, candidate))
		return free_key(claim, candidate);
	add_replaced(candidate);
	if (moved)
		return UNIT_UPDATE;
	if (whole)
		return UNIT_UPSERT;
	if (candidate->payload.nfields == 0)
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	candidate->payload.external_id = NULL;
	return UNIT_UPDATE;
}

/*
 * Rows that are not there
 */

/* The record is updated in place of a delete. */
static UnitKind
archive(Claim *claim, Candidate *candidate)
{
	Unit *unit = candidate->unit;
	JudgeCase judged = start_judging(claim, candidate);
	RestRecord values;
	RestError error = {0};
	Judgement judgement;
	bool good =
		delete_values_record(claim->mapping, datum_key_utf8(unit->key), unit->event_at, &values, &error);

	candidate->payload = values;
	if (!good)
		return dead(claim, candidate, &error);
	judgement = judge_archive(&judged, &values, &candidate->noted);
	candidate->payload = judgement.record;
	candidate->memory_changed = judgement.memory_changed;
	if (candidate->payload.nfields == 0)
		return decided(claim, candidate,
					   candidate->noted.conflicts.n > 0 ? OUTCOME_CONFLICT : OUTCOME_UNCHANGED);

	/* the key goes along where it is free; there is no row any more that needs it */
	candidate->sets_key = !must_free_key(claim, candidate) && is_moving(candidate);
	if (candidate->sets_key)
		candidate->payload.external_id = datum_key_utf8(unit->key);
	if (!judgement.guarded)
		return UNIT_UPDATE;
	if (second_is_open(unit->read))
		return next_second(claim, candidate);
	candidate->unmodified_since = unit->read->record.last_modified;
	return UNIT_GUARDED_UPDATE;
}

/* A delete, after a look at the record: one that someone changed since stays. */
static UnitKind
delete_checked(Claim *claim, Candidate *candidate)
{
	const UnitRead *read = candidate->unit->read;
	bool sets_values = delete_policy_sets_values(claim->mapping->on_delete);
	JudgeCase judged;

	if (!read)
		return UNIT_READ;
	if (!read->record.found)
		return decided(claim, candidate, OUTCOME_DELETED);
	candidate->salesforce_id = read->record.id;
	if (sets_values)
		return archive(claim, candidate);
	judged = start_judging(claim, candidate);
	if (judge_edited(&judged, &candidate->noted))
		return decided(claim, candidate, OUTCOME_CONFLICT);
	return UNIT_DELETE;
}

static UnitKind
decide_deleted(Claim *claim, Candidate *candidate)
{
	Unit *unit = candidate->unit;
	const RecordRow *record = candidate_record(candidate);

	candidate->operation = claim->mapping->on_delete;
	candidate->payload.external_id = datum_key_utf8(unit->key);
	if (strcmp(claim->mapping->on_delete, "ignore") == 0)
		return decided(claim, candidate, OUTCOME_IGNORED);

	/* another row's record, whose key is the same to Salesforce, is not ours to delete */
	if (record && strcmp(record->key, unit->key) != 0)
		return decided(claim, candidate, OUTCOME_UNCHANGED);

	/* what would be found under the key is another row's record */
	if (!record && unit->nold == 0 && find_holder(claim, candidate))
		return decided(claim, candidate, OUTCOME_UNCHANGED);

	/* made and deleted again before anything was sent */
	if (!record && candidate->expected && candidate->expected->moving && candidate->expected->nat == 0)
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	if (!record && unit->inserted && claim->delivery->next_verify == 0)
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	if (claim_reads_first(claim, unit))
		return delete_checked(claim, candidate);
	if (record)
	{
		candidate->salesforce_id = record->salesforce_id;
		return UNIT_DELETE;
	}
	if (unit->looked_up)
		return decided(claim, candidate, OUTCOME_DELETED);
	return UNIT_LOOKUP;
}

/* A delete may wait for a person. */
static UnitKind
decide_delete(Claim *claim, Candidate *candidate)
{
	bool known = candidate_record(candidate) != NULL;

	if (known && strcmp(candidate_record(candidate)->key, candidate->unit->key) != 0)
		return decide_deleted(claim, candidate);
	switch (delete_hold(claim->mapping, candidate->unit, known, claim->delivery->next_verify != 0))
	{
		case DELETE_HELD:
			return put_off(claim, candidate, OUTCOME_HELD, candidate->unit->hold);
		case DELETE_NOTHING:
			return decided(claim, candidate, OUTCOME_UNCHANGED);
		default:
			return decide_deleted(claim, candidate);
	}
}

/* Is the row part of a request of ours that Salesforce may have carried out, or not? */
static bool
in_intent(const Claim *claim, const Unit *unit)
{
	for (int i = 0; i < claim->nintents; i++)
		for (int k = 0; k < claim->intents[i].nkeys; k++)
			if (strcmp(claim->intents[i].keys[k], unit->key) == 0)
				return true;
	return false;
}

/*
 * The row is not there, and no delete of it was captured.  The delete may
 * stand further back in the queue: wait until everything that had been
 * committed when the row was first missed has been read.  Then it has been
 * settled, or the row is hidden: its owner may not see what was captured.
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
	else if (claim->delivery->window.seen_xmin >= unit->missing_since && !unit->captured)
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	else if (claim->delivery->window.seen_xmin >= unit->missing_since)
		return put_off(
			claim, candidate, OUTCOME_HELD,
			"the row is not in the table, or its owner may not see it, and no delete of it was captured");
	claim->delivery->look = true; /* no other event may come to have the queue read */
	return put_off(claim, candidate, OUTCOME_DEFERRED,
				   "the row is not in the table; waiting for the change that removed it");
}

/*
 * Filters
 */

/* Did the filter itself change, or a column that it uses?  When, by the events. */
static bool
filter_changed(const Mapping *mapping, const Unit *unit, int64 *at)
{
	bool changed = batch_column_changed(unit, MAPPING_FILTER_ATTNUM - 1, at);

	for (int i = 0; i < mapping->filter_uses.ninputs; i++)
	{
		const MappingColumn *column = &mapping->columns[mapping->filter_uses.inputs[i]];
		int64 column_at;

		if (!batch_column_changed(unit, column->attnum - 1, &column_at))
			continue;
		changed = true;
		*at = Max(*at, column_at);
	}
	return changed;
}

/*
 * A row that newly passes, if only since there is no filter any more, is sent
 * whole: what changed while it didn't pass was passed over.  Its record may be
 * there all the time: archived, or kept since someone had edited it.
 */
static void
welcome(const Mapping *mapping, Candidate *candidate)
{
	const RecordRow *record = candidate_record(candidate);
	int64 at;

	if (filter_changed(mapping, candidate->unit, &at) &&
		(!record || record->nreplaced > 0 || conflict_open_of_record(mapping, candidate->unit->key)))
		batch_add_whole(candidate->unit, at);
}

/*
 * The row doesn't pass the filter: as if it were deleted, where it has a record
 * of ours.  Of others nothing is asked: a table may hold many more rows than
 * pass.
 */
static UnitKind
decide_filtered(Claim *claim, Candidate *candidate)
{
	const RecordRow *record = candidate_record(candidate);
	Outcome *outcome;
	int64 at;

	if (record && strcmp(record->key, candidate->unit->key) != 0)
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	if (!record && !in_intent(claim, candidate->unit))
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	if (record && record->nreplaced > 0)
		return decided(claim, candidate, OUTCOME_UNCHANGED); /* it has left before */

	/* it has, and its record was kept since someone had edited it: other changes of the row don't undo that */
	if (record && !candidate->unit->deleted && !filter_changed(claim->mapping, candidate->unit, &at) &&
		conflict_open_of_record(claim->mapping, candidate->unit->key))
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	candidate->unit->deleted = true;
	if (!record || strcmp(claim->mapping->on_delete, "ignore") != 0)
		return decide_delete(claim, candidate);

	/* a row that returns is a new one */
	outcome = delivery_decide(claim->delivery, candidate->unit, OUTCOME_IGNORED);
	outcome->record_key = record->record_key;
	outcome->forget = true;
	return UNIT_UNDECIDED;
}

/*
 * Was the row that was deleted out of the filter, too?  Once all rows have been
 * looked at, those that passed have a record that is known.
 */
static bool
was_filtered(const Claim *claim, const Candidate *candidate)
{
	return claim->mapping->filter && candidate->unit->deleted && !candidate->record &&
		   !candidate->old_record && !in_intent(claim, candidate->unit) &&
		   backfill_was_done(claim->mapping->id);
}

static UnitKind
filter_failed(Claim *claim, Candidate *candidate)
{
	RestError error;

	payload_filter_error(candidate->row, &error);
	candidate->operation = candidate->record ? "update" : "upsert";
	candidate->salesforce_id = candidate->record ? candidate->record->salesforce_id : NULL;
	candidate->payload.external_id = datum_key_utf8(candidate->unit->key);
	return dead(claim, candidate, &error);
}

UnitKind
decide(Claim *claim, Candidate *candidate)
{
	if (candidate->unit->replaced)
		return decide_delete(claim, candidate);
	if (candidate->row->failed)
		return filter_failed(claim, candidate);
	if (candidate->row->filtered)
		return decide_filtered(claim, candidate);
	welcome(claim->mapping, candidate);
	if (!candidate->row->found && was_filtered(claim, candidate))
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	if (!candidate->row->found)
		return candidate->unit->deleted ? decide_delete(claim, candidate) : decide_missing(claim, candidate);
	return claim->mapping->checks ? decide_checked(claim, candidate) : decide_present(claim, candidate);
}

/* Does nothing that changed feed a field?  Then neither row nor record matter. */
static bool
nothing_mapped_changed(const Claim *claim, const Unit *unit)
{
	const Mapping *mapping = claim->mapping;
	int64 at;

	if (unit->whole || unit->deleted || unit->nold > 0)
		return false;
	for (int f = 0; f < mapping->nfields; f++)
		for (int i = 0; i < mapping->fields[f].ninputs; i++)
			if (batch_column_changed(unit, mapping->columns[mapping->fields[f].inputs[i]].attnum - 1, &at))
				return false;
	return true;
}

UnitKind
decide_unread(Claim *claim, Candidate *candidate)
{
	/* what would be found under the key is another row's record */
	if (!candidate_record(candidate) && candidate->unit->nold == 0 && must_free_key(claim, candidate))
		return free_key(claim, candidate);
	if (!claim->mapping->filter)
		welcome(claim->mapping, candidate); /* it may have had one */
	if (!is_moving(candidate) && nothing_mapped_changed(claim, candidate->unit))
		return decided(claim, candidate, OUTCOME_UNCHANGED);
	return UNIT_READ;
}
