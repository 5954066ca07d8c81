/*
 * history.c
 *		sfsync.history: what happened to one row, and the log behind it.
 *
 * Most of it is put together from what is kept anyway: the queue, deferred
 * changes, requests under way, dead letters and conflicts.  What those forget
 * goes to a log, as far as the setting sfsync.history asks for it: the worker
 * appends to it in the transaction that settles, a statement or two a reply.
 */
#include "compat.h"

#include "access/xact.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/xid8.h"

#include "api.h"
#include "history.h"
#include "queue_row.h"
#include "sfsync.h"
#include "source.h"
#include "sql.h"

#define UPKEEP_INTERVAL_MS (10 * 60 * 1000)
#define UPKEEP_ROWS 10000 /* deleted in one transaction */
#define MAX_DETAIL 500    /* characters of what came from Salesforce */

/*
 * Writing
 */

/* Is the outcome one that the level wants on record, with the events that led to it? */
static bool
logged(const Outcome *outcome)
{
	if (outcome->kind == OUTCOME_AGAIN || sfsync_history_level == HISTORY_OFF)
		return false;
	if (sfsync_history_level == HISTORY_ALL)
		return true;
	return outcome->kind == OUTCOME_DEAD || outcome->kind == OUTCOME_HELD ||
		   outcome->kind == OUTCOME_CONFLICT || outcome->conflicts.n > 0 || outcome->count_attempt ||
		   outcome->unit->attempts > 0;
}

/* "update: name, phone" of a row q of the queue. */
#define CAPTURED_DETAIL                                                                                           \
	"CASE q.operation WHEN 'I' THEN 'insert' WHEN 'D' THEN 'delete' WHEN 'H' THEN 'delete, held by delete_guard'" \
	" WHEN 'K' THEN 'key change from ' || q.old_key WHEN 'P' THEN 'left with partition ' || q.old_key"            \
	" ELSE 'update' END"                                                                                          \
	" || coalesce((SELECT ': ' || pg_catalog.string_agg(a.attname, ', ' ORDER BY a.attnum)"                       \
	" FROM sfsync.mapping s JOIN pg_catalog.pg_attribute a ON a.attrelid = s.source::oid"                         \
	" WHERE s.id = q.mapping AND a.attnum > 0 AND NOT a.attisdropped"                                             \
	" AND a.attnum <= 8 * pg_catalog.length(q.changed)"                                                           \
	" AND pg_catalog.get_bit(q.changed, (a.attnum - 1)::bigint) = 1), '')"

static const char captured_query[] =
	"INSERT INTO sfsync.history_log (mapping, key, at, event, detail, actor, xid)"
	" SELECT $1, CASE WHEN r.n = q.n THEN q.key ELSE q.more_keys[r.n - q.n] END,"
	" CASE WHEN r.n = q.n THEN q.event_at ELSE q.more_at[r.n - q.n] END, 'captured', " CAPTURED_DETAIL
	", pg_catalog.pg_get_userbyid(q.actor), q.xid"
	" FROM unnest($2, $3) AS r(xid, n) CROSS JOIN LATERAL " QUEUE_ROW " WHERE " QUEUE_ROW_HAS;

void
history_captured(const Mapping *mapping, const Outcome *outcomes, int n)
{
	int nrefs = 0;
	uint64 *xids;
	int32 *ns;
	SqlScope scope;

	for (int i = 0; i < n; i++)
		nrefs += outcomes[i].unit->nrefs;
	if (nrefs == 0 || sfsync_history_level == HISTORY_OFF)
		return;
	xids = palloc(sizeof(uint64) * nrefs);
	ns = palloc(sizeof(int32) * nrefs);
	nrefs = 0;
	for (int i = 0; i < n; i++)
		for (int r = 0; logged(&outcomes[i]) && r < outcomes[i].unit->nrefs; r++)
		{
			/* sent again as a whole, its events stay in the queue */
			if (outcomes[i].kind == OUTCOME_CREATE_AGAIN)
				break;
			xids[nrefs] = outcomes[i].unit->refs[r].xid;
			ns[nrefs++] = outcomes[i].unit->refs[r].n;
		}
	if (nrefs == 0)
		return;
	sql_open(&scope);
	SQL_RUN(&scope, captured_query, sql_arg_text(mapping->name), sql_arg_xids(xids, nrefs),
			sql_arg_ints(ns, nrefs));
	sql_close(&scope);
}

static const char *
event_name(const Outcome *outcome)
{
	switch (outcome->kind) /* a conflict is kept in a table of its own */
	{
		case OUTCOME_SYNCED:
			return "synced";
		case OUTCOME_DELETED:
			return "deleted";
		case OUTCOME_UNCHANGED:
			return "unchanged";
		case OUTCOME_IGNORED:
			return "ignored";
		case OUTCOME_DEFERRED:
			return outcome->count_attempt ? "failed" : "waiting";
		case OUTCOME_HELD:
			return "held";
		case OUTCOME_CREATE_AGAIN:
			return "gone";
		default:
			return NULL;
	}
}

static const char *
event_detail(const Outcome *outcome)
{
	switch (outcome->kind)
	{
		case OUTCOME_SYNCED:
		case OUTCOME_DELETED:
			return psprintf("%s%s%s", outcome->operation ? outcome->operation : "sent",
							outcome->salesforce_id ? ", record " : "",
							outcome->salesforce_id ? outcome->salesforce_id : "");
		case OUTCOME_DEFERRED:
		case OUTCOME_HELD:
			return outcome->reason;
		case OUTCOME_CREATE_AGAIN:
			return "the record is not there any more: the whole row is sent";
		default:
			return NULL;
	}
}

static const char settled_query[] =
	"INSERT INTO sfsync.history_log (mapping, key, at, event, detail)"
	" SELECT $1, u.key, pg_catalog.clock_timestamp(), u.event, pg_catalog.\"left\"(u.detail, $5)"
	" FROM unnest($2, $3, $4) AS u(key, event, detail)";

/* The time is the dead letter's own, by which history knows the two for one. */
static const char dead_query[] =
	"INSERT INTO sfsync.history_log (mapping, key, at, event, detail)"
	" SELECT $1, u.k, l.failed_at, 'dead_letter', pg_catalog.\"left\"(l.error_code || ': ' || l.error_message, $3)"
	" FROM pg_catalog.unnest($2) AS u(k) CROSS JOIN LATERAL (SELECT * FROM sfsync.dead_letter"
	" WHERE mapping = $1 AND external_id = u.k AND status IN ('open', 'retrying') LIMIT 1) l";

void
history_settled(const Mapping *mapping, const Outcome *outcomes, int n)
{
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	char **events = palloc(sizeof(char *) * Max(n, 1));
	char **details = palloc(sizeof(char *) * Max(n, 1));
	char **dead = palloc(sizeof(char *) * Max(n, 1));
	int nlogged = 0;
	int ndead = 0;
	SqlScope scope;

	for (int i = 0; i < n; i++)
	{
		if (!logged(&outcomes[i]))
			continue;
		if (outcomes[i].kind == OUTCOME_DEAD)
			dead[ndead++] = outcomes[i].unit->key;
		else if (event_name(&outcomes[i]))
		{
			keys[nlogged] = outcomes[i].unit->key;
			events[nlogged] = unconstify(char *, event_name(&outcomes[i]));
			details[nlogged++] = sql_from_utf8(event_detail(&outcomes[i]));
		}
	}
	if (nlogged == 0 && ndead == 0)
		return;
	sql_open(&scope);
	if (nlogged > 0)
		SQL_RUN(&scope, settled_query, sql_arg_text(mapping->name), sql_arg_texts(keys, nlogged),
				sql_arg_texts(events, nlogged), sql_arg_texts(details, nlogged), sql_arg_int(MAX_DETAIL));
	if (ndead > 0)
		SQL_RUN(&scope, dead_query, sql_arg_text(mapping->name), sql_arg_texts(dead, ndead),
				sql_arg_int(MAX_DETAIL));
	sql_close(&scope);
}

static const char repair_query[] =
	"INSERT INTO sfsync.history_log (mapping, key, at, event, detail, actor, xid)"
	" SELECT mapping, external_id, pg_catalog.clock_timestamp(), $2, coalesce(note, error_code), $3,"
	" pg_catalog.pg_current_xact_id() FROM sfsync.dead_letter WHERE id = $1";

void
history_repair(int64 dead_letter, const char *event)
{
	SqlScope scope;

	if (sfsync_history_level == HISTORY_OFF)
		return;
	sql_open(&scope);
	SQL_RUN(&scope, repair_query, sql_arg_bigint(dead_letter), sql_arg_text(event),
			sql_arg_text(GetUserNameFromId(GetSessionUserId(), true)));
	sql_close(&scope);
}

/*
 * Upkeep
 */

static const char old_log_query[] =
	"DELETE FROM sfsync.history_log WHERE ctid = ANY (ARRAY(SELECT ctid FROM sfsync.history_log"
	" WHERE at < pg_catalog.clock_timestamp() - $1 * interval '1 second' ORDER BY at LIMIT $2))";

static const char old_dead_letters_query[] =
	"DELETE FROM sfsync.dead_letter WHERE id = ANY (ARRAY(SELECT id FROM sfsync.dead_letter"
	" WHERE status IN ('resolved', 'discarded')"
	" AND resolved_at < pg_catalog.clock_timestamp() - $1 * interval '1 second' ORDER BY resolved_at LIMIT $2))";

/* True if it deleted as much as it may at a time. */
static bool
delete_old(const char *query, int retention)
{
	SqlScope scope;
	uint64 n;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	sql_open(&scope);
	n = SQL_RUN(&scope, query, sql_arg_int(retention), sql_arg_int(UPKEEP_ROWS));
	sql_close(&scope);
	PopActiveSnapshot();
	CommitTransactionCommand();
	return n == UPKEEP_ROWS;
}

void
history_upkeep(void)
{
	static TimestampTz next = 0;
	static int history_retention = 0;
	static int dead_letter_retention = 0;
	TimestampTz now = GetCurrentTimestamp();
	bool more = false;

	if (now < next && history_retention == sfsync_history_retention &&
		dead_letter_retention == sfsync_dead_letter_retention)
		return;
	next = TimestampTzPlusMilliseconds(now, UPKEEP_INTERVAL_MS);
	history_retention = sfsync_history_retention;
	dead_letter_retention = sfsync_dead_letter_retention;
	if (history_retention > 0)
		more |= delete_old(old_log_query, history_retention);
	if (dead_letter_retention > 0)
		more |= delete_old(old_dead_letters_query, dead_letter_retention);
	if (more)
		next = now;
}

/*
 * Reading
 */

static const char history_query[] =
	"WITH m AS (SELECT id, name, key, source_key::jsonb FROM unnest($1, $2, $3, $4) AS u(id, name, key, source_key))"
	" SELECT h.at, h.event,"
	" CASE WHEN (SELECT pg_catalog.count(*) FROM m) > 1 THEN coalesce(h.name || ': ' || h.detail, h.name)"
	" ELSE h.detail END, h.actor, h.xid FROM ("

	/* what is on its way */
	"SELECT m.name, q.event_at AS at, 1 AS o, 'captured' AS event, " CAPTURED_DETAIL " AS detail,"
	" pg_catalog.pg_get_userbyid(q.actor)::text AS actor, q.xid"
	" FROM m JOIN sfsync.queued q ON q.mapping = m.id AND (q.key = m.key OR q.operation = 'K' AND q.old_key = m.key)"
	" UNION ALL SELECT m.name, i.sent_at, 2, 'sent', i.operation || CASE WHEN i.state = 'unknown'"
	" THEN '; no reply came, the outcome is unknown' ELSE '; in flight' END, NULL, NULL"
	" FROM m JOIN sfsync.intent i ON i.mapping = m.id AND m.key = ANY (i.keys)"
	" UNION ALL SELECT m.name, pg_catalog.clock_timestamp(), 9, d.state || ' now', d.reason"
	" || CASE WHEN d.state = 'waiting' THEN '; next attempt at ' || date_trunc('second', d.due_at) ELSE '' END"
	" || CASE WHEN d.attempts > 0 THEN '; attempts so far: ' || d.attempts ELSE '' END, NULL, d.xid"
	" FROM m JOIN sfsync.deferred d ON d.mapping = m.id AND d.key = m.key AND d.state <> 'dead'"

	/* what is kept of dead letters and conflicts */
	" UNION ALL SELECT m.name, l.failed_at, 3, 'dead_letter', l.error_code || ': ' || l.error_message, NULL, NULL"
	" FROM m JOIN sfsync.dead_letter l ON l.mapping = m.name AND l.external_id = m.key"
	" WHERE NOT EXISTS (SELECT FROM sfsync.history_log g WHERE g.mapping = m.name AND g.key = m.key"
	" AND g.at = l.failed_at AND g.event = 'dead_letter')"
	" UNION ALL SELECT m.name, l.resolved_at, 4, l.status, coalesce(l.note, l.error_code), NULL, NULL"
	" FROM m JOIN sfsync.dead_letter l ON l.mapping = m.name AND l.external_id = m.key"
	" WHERE l.resolved_at IS NOT NULL AND (l.status <> 'discarded' OR NOT EXISTS (SELECT FROM sfsync.history_log g"
	" WHERE g.mapping = m.name AND g.key = m.key AND g.event = 'discarded' AND g.at >= l.resolved_at))"
	" UNION ALL SELECT m.name, c.detected_at, 3, 'conflict', coalesce(c.field, 'the record as a whole')"
	" || ': Salesforce''s ' || coalesce(c.salesforce_value::text, 'state') || ' stays, against '"
	" || coalesce(c.source_value::text, 'the row''s') || ' (' || c.policy || ')', c.salesforce_modified_by, NULL"
	" FROM m JOIN sfsync.conflict c ON c.mapping = m.name AND c.source_key = m.source_key"
	" UNION ALL SELECT m.name, c.resolved_at, 4, 'conflict_resolved', coalesce(c.field, 'the record as a whole')"
	" || ': ' || c.resolution, NULL, NULL"
	" FROM m JOIN sfsync.conflict c ON c.mapping = m.name AND c.source_key = m.source_key"
	" WHERE c.resolved_at IS NOT NULL"

	" UNION ALL SELECT m.name, g.at, CASE WHEN g.event = 'captured' THEN 1 ELSE 3 END, g.event, g.detail, g.actor, g.xid"
	" FROM m JOIN sfsync.history_log g ON g.mapping = m.name AND g.key = m.key"
	") h ORDER BY h.at, h.o";

/* The key of the row in each mapping of the table that the caller may look into. */
typedef struct Keys
{
	int n;
	int32 *ids;
	char **names;
	char **keys;
	char **source_keys; /* as JSON */
} Keys;

static int *
mappings_of(Oid source, int *n)
{
	SqlScope scope;
	int *ids;

	sql_open_latest(&scope);
	*n = SQL_RUN(&scope, "SELECT id FROM sfsync.mapping WHERE source::oid = $1 ORDER BY name",
				 sql_arg_oid(source));
	ids = sql_column_ints(&scope, 1);
	sql_close(&scope);
	if (*n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("argument \"source\": table \"%s\" is not mapped", get_rel_name(source)),
				 errdetail("A history is kept of rows of mapped tables."),
				 errhint("sfsync.status lists the tables that are; a partition's rows belong to its root.")));
	return ids;
}

static void
find_keys(Oid source, Datum source_key, Keys *keys)
{
	int n;
	int *ids = mappings_of(source, &n);
	Mapping *mapping = NULL;

	keys->ids = palloc(sizeof(int32) * n);
	keys->names = palloc(sizeof(char *) * n);
	keys->keys = palloc(sizeof(char *) * n);
	keys->source_keys = palloc(sizeof(char *) * n);
	for (int i = 0; i < n; i++)
	{
		mapping = mapping_get(ids[i]);
		if (!mapping || !has_privs_of_role(GetUserId(), mapping->owner))
			continue;
		keys->ids[keys->n] = mapping->id;
		keys->names[keys->n] = pstrdup(mapping->name);
		keys->keys[keys->n] = source_key_from_json(mapping, source_key);
		keys->source_keys[keys->n] = source_key_json(mapping, keys->keys[keys->n]);
		keys->n++;
	}
	if (keys->n == 0 && mapping)
		(void) api_mapping(mapping->name);
}

static void
put_history(ReturnSetInfo *result, const Keys *keys)
{
	SqlScope scope;
	uint64 n;

	sql_open_latest(&scope);
	n = SQL_RUN(&scope, history_query, sql_arg_ints(keys->ids, keys->n), sql_arg_texts(keys->names, keys->n),
				sql_arg_texts(keys->keys, keys->n), sql_arg_texts(keys->source_keys, keys->n));
	for (uint64 i = 0; i < n; i++)
	{
		const char *texts[5] = {"", sql_text(&scope, i, 2), sql_text(&scope, i, 3), sql_text(&scope, i, 4),
								sql_isnull(i, 5) ? NULL : ""};
		Datum values[5] = {0};

		values[0] = TimestampTzGetDatum(sql_time(i, 1));
		values[4] = FullTransactionIdGetDatum(FullTransactionIdFromU64(sql_xid(i, 5)));
		api_put_row(result, 5, texts, values);
	}
	sql_close(&scope);
}

PG_FUNCTION_INFO_V1(sfsync_history);

Datum
sfsync_history(PG_FUNCTION_ARGS)
{
	Keys keys = {0};

	api_require(fcinfo, 0, "source");
	api_require(fcinfo, 1, "source_key");
	InitMaterializedSRF(fcinfo, 0);
	find_keys(PG_GETARG_OID(0), PG_GETARG_DATUM(1), &keys);
	if (keys.n > 0)
		put_history((ReturnSetInfo *) fcinfo->resultinfo, &keys);
	return (Datum) 0;
}
