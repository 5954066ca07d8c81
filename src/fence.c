/*
 * fence.c
 *		The clone guard.
 *
 * The binding is a row of sfsync.server_state and travels with dumps; the
 * cluster's system identifier and the database's oid don't.
 */
#include "compat.h"

#include "access/xlog.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "fence.h"
#include "mapping.h"
#include "secret.h"
#include "sfsync.h"
#include "shmem.h"
#include "sql.h"

static char *
environment_mismatch(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, true);
	ServerOptions *options;

	if (!server)
		return NULL;
	options = server_options(server->serverid);
	if (!options->environment || strcmp(options->environment, sfsync_environment) == 0)
		return NULL;
	return psprintf("option environment of the server is \"%s\", the setting sfsync.environment is \"%s\"",
					options->environment, sfsync_environment);
}

char *
fence_reason(const char *server)
{
	SqlScope scope;
	bool elsewhere = false;

	sql_open(&scope, true);
	if (SQL_RUN(&scope, "SELECT system_identifier, database FROM sfsync.server_state WHERE server = $1",
				sql_arg_name(server)) == 1)
		elsewhere = sql_bigint(0, 1) != (int64) GetSystemIdentifier() || sql_oid(0, 2) != MyDatabaseId;
	else

		/* create_mapping binds: a dump is being restored, and the binding comes after the mappings */
		elsewhere =
			SQL_RUN(&scope, "SELECT FROM sfsync.mapping WHERE server = $1 LIMIT 1", sql_arg_name(server)) > 0;
	sql_close(&scope);
	if (elsewhere)
		return psprintf("this database is a copy of the one that the server is bound to; "
						"sfsync.adopt('%s') binds it here, once the other one no longer sends",
						server);
	return environment_mismatch(server);
}

void
fence_bind(const char *server)
{
	SqlScope scope;

	sql_open(&scope, false);
	SQL_RUN(&scope,
			"INSERT INTO sfsync.server_state (server, system_identifier, database)"
			" VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
			sql_arg_name(server), sql_arg_bigint((int64) GetSystemIdentifier()), sql_arg_oid(MyDatabaseId));
	sql_close(&scope);
}

PG_FUNCTION_INFO_V1(sfsync_fence);

Datum
sfsync_fence(PG_FUNCTION_ARGS)
{
	char *reason = fence_reason(NameStr(*PG_GETARG_NAME(0)));

	if (!reason)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(reason));
}

PG_FUNCTION_INFO_V1(sfsync_adopt);

/*
 * Transaction ids of another cluster mean nothing here: what came along in the
 * queue goes to the deferred changes, which are found by time.  Intents of the
 * original say what it sent, not what we did: those records are looked at again.
 */
static const char adopt_queue_query[] =
	"WITH q AS (DELETE FROM sfsync.queue q USING sfsync.mapping m WHERE m.id = q.mapping AND m.server = $1"
	" RETURNING q.*)"
	" INSERT INTO sfsync.deferred AS d (mapping, key, state, reason, due_at, attempts, whole, deleted, whole_at, old_keys,"
	" first_event_at, event_at, xid)"
	" SELECT mapping, key, 'waiting', 'adopted with the database', pg_catalog.clock_timestamp(), 0, true,"
	" pg_catalog.bool_or(operation = 'D'), '-infinity', pg_catalog.array_agg(old_key) FILTER (WHERE old_key IS NOT NULL),"
	" pg_catalog.min(event_at), pg_catalog.max(event_at), pg_catalog.pg_current_xact_id()"
	" FROM q GROUP BY mapping, key"
	" ON CONFLICT (mapping, key) DO UPDATE SET whole = true, deleted = d.deleted OR excluded.deleted,"
	" due_at = excluded.due_at, event_at = excluded.event_at";

Datum
sfsync_adopt(PG_FUNCTION_ARGS)
{
	const char *server = NameStr(*PG_GETARG_NAME(0));
	SqlScope scope;
	uint64 updated;

	(void) GetForeignServerByName(server, false);
	fence_bind(server);
	sql_open(&scope, false);
	updated = SQL_RUN(&scope,
					  "UPDATE sfsync.server_state SET system_identifier = $2, database = $3"
					  " WHERE server = $1 AND (system_identifier <> $2 OR database <> $3)",
					  sql_arg_name(server), sql_arg_bigint((int64) GetSystemIdentifier()),
					  sql_arg_oid(MyDatabaseId));
	if (updated > 0)
	{
		SQL_RUN(&scope, adopt_queue_query, sql_arg_name(server));
		SQL_RUN(&scope,
				"UPDATE sfsync.deferred d SET xid = pg_catalog.pg_current_xact_id(), missing_since = NULL"
				" FROM sfsync.mapping m WHERE m.id = d.mapping AND m.server = $1",
				sql_arg_name(server));
		SQL_RUN(&scope,
				"UPDATE sfsync.backfill_job b SET xid = pg_catalog.pg_current_xact_id()"
				" FROM sfsync.mapping m WHERE m.id = b.mapping AND m.server = $1",
				sql_arg_name(server));
		SQL_RUN(&scope,
				"UPDATE sfsync.mapping_state s SET mapped = NULL"
				" FROM sfsync.mapping m WHERE m.id = s.mapping AND m.server = $1",
				sql_arg_name(server));
		SQL_RUN(&scope,
				"UPDATE sfsync.intent i SET state = 'unknown'"
				" FROM sfsync.mapping m WHERE m.id = i.mapping AND m.server = $1",
				sql_arg_name(server));
		SQL_RUN(&scope,
				"UPDATE sfsync.mapping m SET attnums_of = m.source::oid, key_attnums ="
				" ARRAY(SELECT a.attnum FROM pg_catalog.unnest(m.key_columns) WITH ORDINALITY k(c, o)"
				" JOIN pg_catalog.pg_attribute a ON a.attrelid = m.source AND a.attname = k.c ORDER BY k.o)"
				" WHERE m.server = $1",
				sql_arg_name(server));
		SQL_RUN(
			&scope,
			"UPDATE sfsync.rule r SET attnum = a.attnum FROM sfsync.mapping m, pg_catalog.pg_attribute a"
			" WHERE m.id = r.mapping AND m.server = $1 AND a.attrelid = m.source AND a.attname = r.column_name",
			sql_arg_name(server));
		SQL_RUN(
			&scope,
			"UPDATE sfsync.mapping m SET filter_attnums ="
			" ARRAY(SELECT coalesce(a.attnum, 0) FROM pg_catalog.unnest(m.filter_columns) WITH ORDINALITY k(c, o)"
			" LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = m.source AND a.attname = k.c ORDER BY k.o)"
			" WHERE m.server = $1 AND m.filter IS NOT NULL",
			sql_arg_name(server));
		SQL_RUN(
			&scope,
			"UPDATE sfsync.rule r SET expression_attnums ="
			" ARRAY(SELECT coalesce(a.attnum, 0) FROM pg_catalog.unnest(r.expression_columns) WITH ORDINALITY k(c, o)"
			" LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = m.source AND a.attname = k.c ORDER BY k.o)"
			" FROM sfsync.mapping m WHERE m.id = r.mapping AND m.server = $1 AND r.expression IS NOT NULL",
			sql_arg_name(server));
	}
	sql_close(&scope);
	mapping_changed(InvalidOid);
	shmem_wake_at_commit();
	PG_RETURN_VOID();
}
