/*
 * settle.c
 *		What became of changes, written in one short transaction.
 *
 * Tables are touched in one fixed order: queue, deferred, record, dead_letter,
 * intent.  Everything is done in arrays, a few statements a reply.
 */
#include "compat.h"

#include "utils/builtins.h"
#include "utils/json.h"

#include "canonical.h"
#include "conflict.h"
#include "history.h"
#include "intents.h"
#include "queue_row.h"
#include "records.h"
#include "settle.h"
#include "sfsync.h"
#include "source.h"
#include "sql.h"

static bool
leaves_queue(const Outcome *outcome)
{
	return outcome->kind != OUTCOME_AGAIN && outcome->kind != OUTCOME_CREATE_AGAIN;
}

/* What is dead stays too: a retry, or newer data, go on from there. */
static bool
stays_deferred(const Outcome *outcome)
{
	return outcome->kind == OUTCOME_DEFERRED || outcome->kind == OUTCOME_HELD ||
		   outcome->kind == OUTCOME_DEAD;
}

static const char *
deferred_state(const Outcome *outcome)
{
	return outcome->kind == OUTCOME_DEAD ? "dead" : outcome->kind == OUTCOME_HELD ? "held" : "waiting";
}

static const char dequeue_query[] =
	"DELETE FROM sfsync.queue q USING unnest($1, $2) AS r(xid, n) WHERE q.xid = r.xid AND q.n = r.n"
	" AND q.more_keys IS NULL";

static const char dequeue_shared_query[] =
	"WITH shared AS MATERIALIZED (SELECT q.at, pg_catalog.array_agg(r.n) AS settled"
	" FROM unnest($1, $2) AS r(xid, n) CROSS JOIN LATERAL " QUEUE_ROW
	" WHERE q.more_keys IS NOT NULL AND " QUEUE_ROW_HAS " GROUP BY q.at),"
	" gone AS (DELETE FROM sfsync.queue q USING shared s WHERE q.ctid = s.at"
	" RETURNING q.*, s.settled) " QUEUE_PUT_BACK " WHERE e.n <> ALL (g.settled)";

static void
dequeue(SqlScope *scope, const Outcome *outcomes, int n)
{
	int nrefs = 0;
	uint64 *xids;
	int32 *ns;

	for (int i = 0; i < n; i++)
		nrefs += outcomes[i].unit->nrefs;
	xids = palloc(sizeof(uint64) * Max(nrefs, 1));
	ns = palloc(sizeof(int32) * Max(nrefs, 1));
	nrefs = 0;
	for (int i = 0; i < n; i++)
		for (int r = 0; leaves_queue(&outcomes[i]) && r < outcomes[i].unit->nrefs; r++)
		{
			xids[nrefs] = outcomes[i].unit->refs[r].xid;
			ns[nrefs++] = outcomes[i].unit->refs[r].n;
		}
	if (nrefs > 0 &&
		SQL_RUN(scope, dequeue_query, sql_arg_xids(xids, nrefs), sql_arg_ints(ns, nrefs)) < (uint64) nrefs)
		SQL_RUN(scope, dequeue_shared_query, sql_arg_xids(xids, nrefs), sql_arg_ints(ns, nrefs));
}

static const char undefer_query[] =
	"DELETE FROM sfsync.deferred d USING unnest($2, $3) AS u(key, renewed)"
	" WHERE d.mapping = $1 AND d.key = u.key AND coalesce(d.renewed, '0') = u.renewed";

static const char keep_renewed_query[] =
	"UPDATE sfsync.deferred SET captured = false, due_at = pg_catalog.clock_timestamp(), parent_key = NULL,"
	" state = CASE WHEN state = 'held' AND deleted THEN state ELSE 'waiting' END"
	" WHERE mapping = $1 AND key = ANY ($2)";

/* True: something was added meanwhile to what was under way; only that is left, and is to be read. */
static bool
undefer(SqlScope *scope, const Outcome *outcomes, int n)
{
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	uint64 *renewed = palloc(sizeof(uint64) * Max(n, 1));
	SqlArg mapping = sql_arg_int(n > 0 ? outcomes[0].unit->queue->mapping : 0);
	int nkeys = 0;

	for (int i = 0; i < n; i++)
	{
		if (!outcomes[i].unit->deferred || !leaves_queue(&outcomes[i]) || stays_deferred(&outcomes[i]))
			continue;
		keys[nkeys] = outcomes[i].unit->key;
		renewed[nkeys++] = outcomes[i].unit->renewed;
	}
	if (nkeys == 0 || SQL_RUN(scope, undefer_query, mapping, sql_arg_texts(keys, nkeys),
							  sql_arg_xids(renewed, nkeys)) == (uint64) nkeys)
		return false;
	return SQL_RUN(scope, keep_renewed_query, mapping, sql_arg_texts(keys, nkeys)) > 0;
}

static const char defer_query[] =
	"INSERT INTO sfsync.deferred (mapping, key, state, reason, due_at, attempts, whole, deleted, old_keys,"
	" changed, first_event_at, event_at, xid, missing_since, parent_mapping, parent_key, whole_at, changed_at, times,"
	" has_record, key_left, captured, renewed)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)"
	" ON CONFLICT (mapping, key) DO UPDATE SET state = excluded.state, reason = excluded.reason,"
	" due_at = excluded.due_at, attempts = excluded.attempts, whole = excluded.whole, deleted = excluded.deleted,"
	" old_keys = excluded.old_keys, changed = excluded.changed, first_event_at = excluded.first_event_at,"
	" event_at = excluded.event_at, xid = excluded.xid, missing_since = excluded.missing_since,"
	" parent_mapping = excluded.parent_mapping, parent_key = excluded.parent_key, whole_at = excluded.whole_at,"
	" changed_at = excluded.changed_at, times = excluded.times, has_record = excluded.has_record,"
	" key_left = excluded.key_left, captured = excluded.captured, renewed = excluded.renewed";

static void
defer(SqlScope *scope, const Outcome *outcome)
{
	const Unit *unit = outcome->unit;
	TimestampTz event_at = unit->event_at ? unit->event_at : GetCurrentTimestamp();
	TimestampTz due_at = outcome->due_at ? outcome->due_at
						 : outcome->kind == OUTCOME_DEAD
							 ? GetCurrentTimestamp() + sfsync_retry_base_delay * INT64CONST(1000)
							 : GetCurrentTimestamp();
	SqlArg old_keys = sql_arg_texts(unit->old_keys, unit->nold);
	SqlArg parent = sql_arg_int(outcome->parent_mapping);
	SqlArg times = sql_arg_times(unit->times, unit->times ? unit->changed_len * 8 : 0);
	const char *reason = outcome->kind == OUTCOME_DEAD ? "there is a dead letter" : outcome->reason;

	times.isnull = unit->times == NULL;
	old_keys.isnull = unit->nold == 0 || unit->expected;
	parent.isnull = outcome->parent_key == NULL;
	SQL_RUN(scope, defer_query, sql_arg_int(unit->queue->mapping), sql_arg_text(unit->key),
			sql_arg_text(deferred_state(outcome)), sql_arg_text(sql_from_utf8(reason)), sql_arg_time(due_at),
			sql_arg_int(unit->attempts + (outcome->count_attempt ? 1 : 0)), sql_arg_bool(unit->whole),
			sql_arg_bool(unit->deleted), old_keys,
			sql_arg_bytes(unit->changed, unit->changed ? unit->changed_len : -1),
			sql_arg_time(unit->first_event_at ? unit->first_event_at : event_at), sql_arg_time(event_at),
			sql_arg_xid(unit->min_xid ? unit->min_xid : 3), sql_arg_xid(unit->missing_since), parent,
			sql_arg_text(sql_from_utf8(outcome->parent_key)), sql_arg_time(unit->whole_at),
			sql_arg_time(unit->changed_at), times, sql_arg_bool(outcome->has_record),
			sql_arg_bool(unit->key_left), sql_arg_bool(unit->captured), sql_arg_xid(unit->renewed));
}

/*
 * What could be sent of a new row that is part of a circle of lookups was sent;
 * the lookups follow when the parent is there.
 */
static const char fill_query[] =
	"INSERT INTO sfsync.deferred AS d (mapping, key, state, reason, due_at, attempts, whole, deleted, changed,"
	" changed_at, first_event_at, event_at, xid, parent_mapping, parent_key, has_record)"
	" VALUES ($1, $2, 'waiting', $3, $4, 0, false, false, $5, $6, $6, $6, $7, $8, $9, true)"
	" ON CONFLICT (mapping, key) DO UPDATE SET whole = true, whole_at = coalesce(d.whole_at, '-infinity'),"
	" has_record = true";

static void
defer_fill(SqlScope *scope, const Outcome *outcome)
{
	const Unit *unit = outcome->unit;
	TimestampTz event_at = unit->event_at ? unit->event_at : GetCurrentTimestamp();

	SQL_RUN(
		scope, fill_query, sql_arg_int(unit->queue->mapping), sql_arg_text(unit->key),
		sql_arg_text(psprintf("created without its lookups, which wait for the row \"%s\" that refers to it",
							  sql_from_utf8(outcome->parent_key))),
		sql_arg_time(outcome->due_at), sql_arg_bytes(outcome->fill, outcome->fill_len),
		sql_arg_time(event_at), sql_arg_xid(unit->min_xid ? unit->min_xid : 3),
		sql_arg_int(outcome->parent_mapping), sql_arg_text(sql_from_utf8(outcome->parent_key)));
}

/* What waited for the records that are there now is due. */
static bool
wake_children(SqlScope *scope, const Mapping *mapping, const Outcome *outcomes, int n)
{
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	int nkeys = 0;

	for (int i = 0; i < n; i++)
		if (outcomes[i].kind == OUTCOME_SYNCED)
			keys[nkeys++] = outcomes[i].unit->key;
	return nkeys > 0 &&
		   SQL_RUN(scope,
				   "UPDATE sfsync.deferred SET due_at = pg_catalog.clock_timestamp(), parent_key = NULL"
				   " WHERE parent_mapping = $1 AND parent_key = ANY ($2) AND state = 'waiting'",
				   sql_arg_int(mapping->id), sql_arg_texts(keys, nkeys)) > 0;
}

/* What is remembered from now on, NULL for nothing: what was written is ours. */
static Memory *
memory_after(const Mapping *mapping, const Outcome *outcome)
{
	TimestampTz at = outcome->written_at ? outcome->written_at : GetCurrentTimestamp();
	Memory *memory;

	if (!outcome->memory)
		return NULL;
	memory = palloc(sizeof(Memory));
	*memory = memory_copy(outcome->memory);
	for (int i = 0; i < outcome->nwrote; i++)
		memory_wrote(memory, outcome->wrote[i], outcome->wrote_values[i], at);
	if (outcome->sets_key)
		memory_wrote(memory, canonical_hash(mapping->external_id), canonical_hash(outcome->record_key), at);
	return memory;
}

static void
remember_records(const Mapping *mapping, const Outcome *outcomes, int n)
{
	char **record_keys = palloc(sizeof(char *) * Max(n, 1));
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	char **ids = palloc(sizeof(char *) * Max(n, 1));
	Memory **memories = palloc(sizeof(Memory *) * Max(n, 1));
	int nsynced = 0;

	for (int i = 0; i < n; i++)
	{
		if (outcomes[i].kind != OUTCOME_SYNCED || !outcomes[i].salesforce_id ||
			(outcomes[i].stored_key && !outcomes[i].sets_key))
			continue;
		record_keys[nsynced] = unconstify(char *, outcomes[i].record_key);
		keys[nsynced] = outcomes[i].unit->key;
		memories[nsynced] = memory_after(mapping, &outcomes[i]);
		ids[nsynced++] = unconstify(char *, outcomes[i].salesforce_id);
	}
	record_put(mapping->id, record_keys, keys, ids, memories, nsynced);
	for (int i = 0; i < n; i++)
		if (outcomes[i].set_replaced &&
			(outcomes[i].kind == OUTCOME_SYNCED || outcomes[i].kind == OUTCOME_UNCHANGED ||
			 outcomes[i].kind == OUTCOME_CONFLICT))
			record_replaced(mapping->id, outcomes[i].record_key, outcomes[i].replaced);
}

static void
settle_conflicts(const Mapping *mapping, const Outcome *outcomes, int n)
{
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	StringInfoData ids;
	bool *open;
	int added = 0;

	for (int i = 0; i < n; i++)
		keys[i] = outcomes[i].unit->key;
	open = conflicts_open(mapping, keys, n);
	initStringInfo(&ids);
	for (int i = 0; i < n; i++)
	{
		ConflictNotes notes = outcomes[i].conflicts;

		if (!leaves_queue(&outcomes[i]) || stays_deferred(&outcomes[i]))
			continue;
		notes.all_settled = outcomes[i].kind == OUTCOME_DELETED;
		if (open[i] || notes.n > 0)
			added +=
				conflicts_settle(mapping, keys[i], outcomes[i].salesforce_id, &notes, open[i], added, &ids);
	}
	if (added > 0)
		conflicts_notify(mapping, ids.data, added);
}

static const char forget_query[] =
	"DELETE FROM sfsync.record r USING unnest($2, $3) AS u(key, id)"
	" WHERE r.mapping = $1 AND r.record_key = u.key AND r.salesforce_id = coalesce(u.id, r.salesforce_id)";

/* Records that are gone, and what stood out of its place until now. */
static void
forget_records(SqlScope *scope, const Mapping *mapping, const Outcome *outcomes, int n)
{
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	char **ids = palloc(sizeof(char *) * Max(n, 1));
	int ngone = 0;

	for (int i = 0; i < n; i++)
	{
		const Outcome *outcome = &outcomes[i];
		bool gone =
			outcome->kind == OUTCOME_DELETED || outcome->kind == OUTCOME_CREATE_AGAIN || outcome->forget;

		if (!gone && !(outcome->kind == OUTCOME_SYNCED && outcome->stored_key && outcome->sets_key))
			continue;
		keys[ngone] = unconstify(char *, outcome->stored_key ? outcome->stored_key : outcome->record_key);
		ids[ngone++] = unconstify(char *, outcome->salesforce_id);
	}
	if (ngone > 0)
		SQL_RUN(scope, forget_query, sql_arg_int(mapping->id), sql_arg_texts(keys, ngone),
				sql_arg_texts(ids, ngone));
}

/* That they gave up their keys was our write, too, and is not to be taken for someone else's. */
static void
remember_given_up(const Mapping *mapping, char **keys, int nkeys, TimestampTz at)
{
	int n;
	RecordRow *rows = records_of_keys(mapping->id, keys, nkeys, &n);

	for (int i = 0; i < n; i++)
	{
		Memory *memory = &rows[i].memory;

		memory_wrote(memory, canonical_hash(mapping->external_id), 0, at);
		record_put(mapping->id, &rows[i].record_key, &rows[i].key, &rows[i].salesforce_id, &memory, 1);
	}
}

/* Records in name only: the row has a real one now, or is gone. */
static void
forget_expected(const Mapping *mapping, const Outcome *outcomes, int n)
{
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	int nkeys = 0;

	for (int i = 0; i < n; i++)
		if (outcomes[i].expected_id && leaves_queue(&outcomes[i]) && !stays_deferred(&outcomes[i]))
			keys[nkeys++] = unconstify(char *, outcomes[i].record_key);
	records_not_expected(mapping->id, keys, nkeys);
}

/* Keys that records have got or given up. */
static void
settle_keys(const Mapping *mapping, const Outcome *outcomes, int n)
{
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	char **ids = palloc(sizeof(char *) * Max(n, 1));
	TimestampTz at = 0;
	int nkeys = 0;

	for (int i = 0; i < n; i++)
	{
		if (outcomes[i].kind != OUTCOME_SYNCED || !outcomes[i].sets_key)
			continue;
		keys[nkeys] = unconstify(char *, outcomes[i].record_key);
		ids[nkeys++] = unconstify(char *, outcomes[i].salesforce_id);
	}
	records_have_own(mapping->id, keys, ids, nkeys);
	nkeys = 0;
	for (int i = 0; i < n; i++)
	{
		if (!outcomes[i].key_freed)
			continue;
		keys[nkeys] = unconstify(char *, outcomes[i].holder_key);
		ids[nkeys++] = unconstify(char *, outcomes[i].holder_id);
		at = Max(at, outcomes[i].written_at);
	}
	if (mapping->checks && at != 0)
		remember_given_up(mapping, keys, nkeys, at);
	records_have_none(mapping->id, keys, ids, nkeys);
}

static const char resolve_query[] =
	"UPDATE sfsync.dead_letter SET status = 'resolved', resolved_at = pg_catalog.clock_timestamp(),"
	" note = CASE WHEN status = 'retrying' THEN 'retried' ELSE 'a later change of the row went through' END"
	" WHERE mapping = $1 AND external_id = ANY ($2) AND status IN ('open', 'retrying')";

static void
resolve_dead_letters(SqlScope *scope, const Mapping *mapping, const Outcome *outcomes, int n)
{
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	int nkeys = 0;

	for (int i = 0; i < n; i++)
		if (leaves_queue(&outcomes[i]) && !stays_deferred(&outcomes[i]) && outcomes[i].kind != OUTCOME_DEAD)
			keys[nkeys++] = outcomes[i].unit->key;
	if (nkeys > 0)
		SQL_RUN(scope, resolve_query, sql_arg_text(mapping->name), sql_arg_texts(keys, nkeys));
}

static const char dead_letter_query[] =
	"INSERT INTO sfsync.dead_letter AS l (mapping, source, source_key, operation, object, external_id, salesforce_id,"
	" payload, error_code, error_message, error_fields, http_status, request_id, attempts, event_at,"
	" first_failed_at, failed_at)"
	" VALUES ($1, $2::oid::regclass, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,"
	" pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp())"
	" ON CONFLICT (mapping, external_id) WHERE status IN ('open', 'retrying') DO UPDATE SET source = excluded.source,"
	" operation = excluded.operation, salesforce_id = excluded.salesforce_id, payload = excluded.payload,"
	" error_code = excluded.error_code, error_message = excluded.error_message, error_fields = excluded.error_fields,"
	" http_status = excluded.http_status, request_id = excluded.request_id, attempts = l.attempts + 1,"
	" event_at = excluded.event_at, failed_at = excluded.failed_at, status = 'open'"
	" RETURNING id";

static int64
add_dead_letter(SqlScope *scope, const Mapping *mapping, const Outcome *outcome)
{
	const Unit *unit = outcome->unit;
	SqlArg status = sql_arg_int(outcome->http_status);
	char **fields = palloc(sizeof(char *) * Max(outcome->error.nfields, 1));

	status.isnull = outcome->http_status == 0;
	for (int i = 0; i < outcome->error.nfields; i++)
		fields[i] = sql_from_utf8(outcome->error.fields[i]);
	SQL_RUN(scope, dead_letter_query, sql_arg_text(mapping->name), sql_arg_oid(mapping->source),
			sql_arg_jsonb(source_key_json(mapping, unit->key)), sql_arg_text(outcome->operation),
			sql_arg_text(mapping->object), sql_arg_text(unit->key), sql_arg_text(outcome->salesforce_id),
			sql_arg_jsonb(sql_from_utf8(outcome->payload)), sql_arg_text(sql_from_utf8(outcome->error.code)),
			sql_arg_text(sql_from_utf8(outcome->error.message)),
			sql_arg_texts(fields, outcome->error.nfields), status, sql_arg_text(outcome->request_id),
			sql_arg_int(unit->attempts + 1), sql_arg_time(unit->event_at));
	return sql_bigint(0, 1);
}

/* One notification a mapping and code: ids, mapping, code and count, never values. */
static void
notify(SqlScope *scope, const Mapping *mapping, const Outcome *outcomes, const int64 *ids, int n)
{
	for (int i = 0; i < n; i++)
	{
		StringInfoData json;
		int count = 0;

		if (ids[i] == 0)
			continue;
		for (int j = 0; j < i; j++)
			if (ids[j] != 0 && strcmp(outcomes[j].error.code, outcomes[i].error.code) == 0)
				count++;
		if (count > 0)
			continue; /* told with the first of its code */
		initStringInfo(&json);
		appendStringInfoString(&json, "{\"mapping\":");
		escape_json(&json, mapping->name);
		appendStringInfoString(&json, ",\"error_code\":");
		escape_json(&json, outcomes[i].error.code);
		appendStringInfoString(&json, ",\"ids\":[");
		for (int j = i; j < n; j++)
		{
			if (ids[j] == 0 || strcmp(outcomes[j].error.code, outcomes[i].error.code) != 0)
				continue;
			if (count++ < 100)
				appendStringInfo(&json, "%s" INT64_FORMAT, count > 1 ? "," : "", ids[j]);
		}
		appendStringInfo(&json, "],\"count\":%d}", count);
		SQL_RUN(scope, "SELECT pg_catalog.pg_notify('sfsync_dead_letter', $1)", sql_arg_text(json.data));
	}
}

static void
add_dead_letters(SqlScope *scope, const Mapping *mapping, const Outcome *outcomes, int n)
{
	int64 *ids = palloc0(sizeof(int64) * Max(n, 1));
	int ndead = 0;

	for (int i = 0; i < n; i++)
	{
		if (outcomes[i].kind != OUTCOME_DEAD)
			continue;
		ids[i] = add_dead_letter(scope, mapping, &outcomes[i]);
		if (ndead++ == 0)
			ereport(LOG, (errmsg("sfsync: mapping \"%s\": a change became a dead letter: %s", mapping->name,
								 outcomes[i].error.code)));
	}
	if (ndead > 0)
		notify(scope, mapping, outcomes, ids, n);
}

/* What is settled, or goes another way, is not the bulk job's any more. */
static void
leave_bulk(SqlScope *scope, const Outcome *outcomes, int n)
{
	char **keys = palloc(sizeof(char *) * Max(n, 1));

	if (n == 0 || outcomes[0].bulk_job == 0)
		return;
	for (int i = 0; i < n; i++)
		keys[i] = outcomes[i].unit->key;
	SQL_RUN(scope, "DELETE FROM sfsync.bulk_row WHERE job = $1 AND key = ANY ($2)",
			sql_arg_bigint(outcomes[0].bulk_job), sql_arg_texts(keys, n));
}

#define NAME_DEAD                                                                                            \
	"UPDATE sfsync.deferred d SET reason ="                                                                  \
	" pg_catalog.regexp_replace(d.reason, '; the parent is dead letter .*$', '')"                            \
	" || '; the parent is dead letter ' || l.id || ': ' || l.error_code"                                     \
	" FROM sfsync.dead_letter l, sfsync.mapping p WHERE p.id = d.parent_mapping AND l.mapping = p.name"      \
	" AND l.external_id = d.parent_key AND l.status IN ('open', 'retrying') AND d.state = 'waiting' AND "

/* A child that waits for a parent that failed says so, whichever comes first. */
static void
name_dead_parents(SqlScope *scope, const Outcome *outcomes, int n)
{
	SqlArg mapping = sql_arg_int(outcomes[0].unit->queue->mapping);
	char **dead = palloc(sizeof(char *) * n);
	char **children = palloc(sizeof(char *) * n);
	int ndead = 0;
	int nchildren = 0;

	for (int i = 0; i < n; i++)
	{
		if (outcomes[i].kind == OUTCOME_DEAD)
			dead[ndead++] = outcomes[i].unit->key;
		if (outcomes[i].parent_key)
			children[nchildren++] = outcomes[i].unit->key;
	}
	if (ndead > 0)
		SQL_RUN(scope, NAME_DEAD "d.parent_mapping = $1 AND d.parent_key = ANY ($2)", mapping,
				sql_arg_texts(dead, ndead));
	if (nchildren > 0)
		SQL_RUN(scope, NAME_DEAD "d.mapping = $1 AND d.key = ANY ($2)", mapping,
				sql_arg_texts(children, nchildren));
}

/* A request whose outcome is unknown may yet make anew what was deleted here. */
static void
note_deletes(const Mapping *mapping, const Outcome *outcomes, int n)
{
	char **keys = palloc(sizeof(char *) * n);
	int nkeys = 0;

	for (int i = 0; i < n; i++)
		if (outcomes[i].unit->deleted &&
			(outcomes[i].kind == OUTCOME_SYNCED || outcomes[i].kind == OUTCOME_DELETED))
			keys[nkeys++] = outcomes[i].unit->key;
	intents_deleted(mapping->id, keys, nkeys);
}

bool
queue_settle(const Mapping *mapping, const Outcome *outcomes, int n, int64 intent)
{
	SqlScope scope;
	bool woken = false;

	sql_open(&scope);
	if (n > 0 && mapping)
		history_captured(mapping, outcomes, n);
	if (n > 0)
	{
		leave_bulk(&scope, outcomes, n);
		dequeue(&scope, outcomes, n);
		woken = undefer(&scope, outcomes, n);
		for (int i = 0; mapping && i < n; i++)
			if (stays_deferred(&outcomes[i]))
				defer(&scope, &outcomes[i]);
			else if (outcomes[i].kind == OUTCOME_SYNCED && outcomes[i].fill)
				defer_fill(&scope, &outcomes[i]);
	}
	if (n > 0 && mapping)
	{
		woken |= wake_children(&scope, mapping, outcomes, n);
		forget_records(&scope, mapping, outcomes, n);
		remember_records(mapping, outcomes, n);
		settle_keys(mapping, outcomes, n);
		forget_expected(mapping, outcomes, n);
		settle_conflicts(mapping, outcomes, n);
		note_deletes(mapping, outcomes, n);
		resolve_dead_letters(&scope, mapping, outcomes, n);
		add_dead_letters(&scope, mapping, outcomes, n);
		name_dead_parents(&scope, outcomes, n);
		history_settled(mapping, outcomes, n);
	}
	if (intent != 0)
		intent_remove(intent);
	sql_close(&scope);
	return woken;
}
