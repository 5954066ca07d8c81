/*
 * intents.c
 *		Statements on the table of intents.
 */
#include "compat.h"

#include "utils/memutils.h"

#include "intents.h"
#include "sql.h"

int64
intent_add(int mapping, const char *operation, char *const *keys, int nkeys, char *const *fields, int nfields)
{
	SqlScope scope;
	int64 id;

	sql_open(&scope);
	SQL_RUN(&scope,
			"INSERT INTO sfsync.intent (mapping, operation, keys, fields, sent_at)"
			" VALUES ($1, $2, $3, $4, pg_catalog.clock_timestamp()) RETURNING id",
			sql_arg_int(mapping), sql_arg_text(operation), sql_arg_texts(keys, nkeys),
			sql_arg_texts(fields, nfields));
	id = sql_bigint(0, 1);
	sql_close(&scope);
	return id;
}

IntentRow *
intents_of_keys(int mapping, char *const *keys, int nkeys, int *n)
{
	SqlScope scope;
	IntentRow *rows;

	sql_open(&scope);
	*n = SQL_RUN(&scope,
				 "SELECT keys, fields, sent_at FROM sfsync.intent WHERE mapping = $1"
				 " AND state <> 'in_flight' AND keys && $2",
				 sql_arg_int(mapping), sql_arg_texts(keys, nkeys));
	rows = MemoryContextAllocZero(scope.caller, sizeof(IntentRow) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		rows[i].keys = sql_texts(&scope, i, 1, &rows[i].nkeys);
		rows[i].fields = sql_texts(&scope, i, 2, &rows[i].nfields);
		rows[i].sent_at = sql_time(i, 3);
	}
	sql_close(&scope);
	return rows;
}

void
intent_remove(int64 id)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, "DELETE FROM sfsync.intent WHERE id = $1", sql_arg_bigint(id));
	sql_close(&scope);
}

void
intent_unknown(int64 id)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, "UPDATE sfsync.intent SET state = 'unknown' WHERE id = $1", sql_arg_bigint(id));
	sql_close(&scope);
}

void
intents_of_dead_worker(void)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN0(&scope, "UPDATE sfsync.intent SET state = 'unknown' WHERE state = 'in_flight'");
	sql_close(&scope);
}

static const char deleted_query[] =
	"WITH old AS (SELECT * FROM sfsync.intent WHERE mapping = $1 AND state = 'unknown' AND operation <> 'delete'"
	" AND keys && $2), rest AS (UPDATE sfsync.intent i SET keys = ARRAY(SELECT k FROM pg_catalog.unnest(i.keys) k"
	" WHERE k <> ALL ($2)) FROM old WHERE i.id = old.id)"
	" INSERT INTO sfsync.intent (mapping, operation, keys, fields, sent_at, state)"
	" SELECT mapping, 'delete', ARRAY(SELECT DISTINCT k FROM pg_catalog.unnest(keys) k WHERE k = ANY ($2)), fields,"
	" sent_at, 'unknown' FROM old";

void
intents_deleted(int mapping, char *const *keys, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope);
	SQL_RUN(&scope, deleted_query, sql_arg_int(mapping), sql_arg_texts(keys, n));
	sql_close(&scope);
}

static const char verify_query[] =
	"WITH old AS (UPDATE sfsync.intent SET state = 'verifying' WHERE state = 'unknown' AND sent_at <= $1 AND mapping = ANY ($2)"
	" RETURNING *)"
	" INSERT INTO sfsync.deferred AS d (mapping, key, state, reason, due_at, attempts, whole, whole_at, deleted,"
	" first_event_at, event_at, xid, captured, renewed)"
	" SELECT o.mapping, k.key, 'waiting', 'looked at again: the reply to a request never came',"
	" pg_catalog.clock_timestamp(), 0, true, '-infinity', pg_catalog.bool_or(o.operation = 'delete'),"
	" pg_catalog.min(o.sent_at), pg_catalog.max(o.sent_at), pg_catalog.pg_current_xact_id(), false, pg_catalog.pg_current_xact_id()"
	" FROM old o, pg_catalog.unnest(o.keys) AS k(key) GROUP BY o.mapping, k.key"
	" ON CONFLICT (mapping, key) DO UPDATE SET whole = true, whole_at = coalesce(d.whole_at, '-infinity'),"
	" deleted = d.deleted OR excluded.deleted, renewed = excluded.renewed";

/* Where it set a key, that of the record isn't certain. */
static const char verify_keys_query[] =
	"UPDATE sfsync.record r SET at_keys = coalesce(r.at_keys, ARRAY[r.record_key]) || ''::pg_catalog.text"
	" FROM sfsync.intent i JOIN sfsync.mapping m ON m.id = i.mapping WHERE i.state = 'unknown' AND i.sent_at <= $1"
	" AND i.mapping = ANY ($2)"
	" AND m.external_id = ANY (i.fields) AND r.mapping = i.mapping AND r.key = ANY (i.keys)";

/* Those that were looked at are over once nothing of theirs waits any more, or for too long. */
static const char verified_query[] =
	"DELETE FROM sfsync.intent i WHERE i.state = 'verifying' AND i.sent_at <= $1 AND i.mapping = ANY ($2)"
	" AND (NOT EXISTS"
	" (SELECT FROM sfsync.deferred d WHERE d.mapping = i.mapping AND d.key = ANY (i.keys) AND d.state = 'waiting')"
	" OR i.sent_at <= $1 - interval '1 hour')";

static const char next_verify_query[] =
	"SELECT pg_catalog.min(CASE state WHEN 'unknown' THEN sent_at ELSE $1 + interval '10 s' END)"
	" FROM sfsync.intent WHERE state <> 'in_flight' AND mapping = ANY ($2)";

TimestampTz
intents_verify(TimestampTz before, const int32 *mappings, int n)
{
	SqlArg ids = sql_arg_ints(mappings, n);
	SqlScope scope;
	TimestampTz next;

	sql_open(&scope);
	SQL_RUN(&scope, verified_query, sql_arg_time(before), ids);
	SQL_RUN(&scope, verify_keys_query, sql_arg_time(before), ids);
	SQL_RUN(&scope, verify_query, sql_arg_time(before), ids);
	SQL_RUN(&scope, next_verify_query, sql_arg_time(before), ids);
	next = sql_time(0, 1);
	sql_close(&scope);
	return next;
}
