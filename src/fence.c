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
#include "options.h"
#include "queue_row.h"
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

/* A library that was replaced stays in place until the server is restarted. */
static char *
version_mismatch(const char *version)
{
	if (strcmp(version, SFSYNC_VERSION) == 0)
		return NULL;
	return psprintf("the extension has version %s, the library that is loaded version %s: restart the server,"
					" and run ALTER EXTENSION sfsync UPDATE",
					version, SFSYNC_VERSION);
}

char *
fence_reason(const char *server)
{
	SqlScope scope;
	bool elsewhere = false;
	char *version;
	char *reason;

	sql_open_latest(&scope);
	SQL_RUN0(&scope, "SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'sfsync'");
	version = sql_text(&scope, 0, 1);
	if (SQL_RUN(&scope, "SELECT system_identifier, database FROM sfsync.server_state WHERE server = $1",
				sql_arg_name(server)) == 1)
		elsewhere = sql_bigint(0, 1) != (int64) GetSystemIdentifier() || sql_oid(0, 2) != MyDatabaseId;
	else

		/* create_mapping binds: a dump is being restored, and the binding comes after the mappings */
		elsewhere =
			SQL_RUN(&scope, "SELECT FROM sfsync.mapping WHERE server = $1 LIMIT 1", sql_arg_name(server)) > 0;
	sql_close(&scope);
	reason = version_mismatch(version);
	if (reason)
		return reason;
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

	sql_open(&scope);
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
 * Transaction ids of another cluster mean nothing here, and may repeat: what
 * came along in the queue is new by the transaction that adopts it, in the order
 * in which it was committed as far as that can be told.  It is before what the
 * transaction captures itself, whose numbers begin at 0, and behind what it
 * adopted of another server.
 */
static const char adopt_queue_query[] =
	"WITH o AS (SELECT q.ctid AS at, q.xid, q.n, pg_catalog.max(q.event_at) OVER (PARTITION BY q.xid) AS committed"
	" FROM sfsync.queue q JOIN sfsync.mapping m ON m.id = q.mapping WHERE m.server = $1),"
	" r AS (SELECT at, pg_catalog.row_number() OVER (ORDER BY committed, xid, n) AS n FROM o)"
	" UPDATE sfsync.queue q SET xid = pg_catalog.pg_current_xact_id(), n = b.n + 2 * r.n FROM r,"
	" (SELECT coalesce(pg_catalog.max(n), -2000000000) AS n FROM sfsync.queue"
	" WHERE xid = pg_catalog.pg_current_xact_id() AND n < 0) b WHERE r.at = q.ctid";

/* Those get numbers one by one. */
static const char separate_query[] =
	"WITH gone AS (DELETE FROM sfsync.queue q USING sfsync.mapping m WHERE m.id = q.mapping AND m.server = $1"
	" AND q.more_keys IS NOT NULL RETURNING q.*) " QUEUE_PUT_BACK;

/* Ids of transactions, and intents: those say what the original sent, so their records are looked at again. */
static const char *const adopt_queries[] = {
	/* bulk jobs are the other database's; what their rows stand for is still to be sent */
	"DELETE FROM sfsync.bulk_row r USING sfsync.bulk_job j WHERE j.id = r.job AND j.server = $1",
	"DELETE FROM sfsync.bulk_job WHERE server = $1",
	separate_query,
	adopt_queue_query,
	"UPDATE sfsync.deferred d SET xid = pg_catalog.pg_current_xact_id(), missing_since = NULL"
	" FROM sfsync.mapping m WHERE m.id = d.mapping AND m.server = $1",
	"UPDATE sfsync.backfill_job b SET xid = pg_catalog.pg_current_xact_id()"
	" FROM sfsync.mapping m WHERE m.id = b.mapping AND m.server = $1",
	"UPDATE sfsync.intent i SET state = 'unknown'"
	" FROM sfsync.mapping m WHERE m.id = i.mapping AND m.server = $1",
};

/*
 * A restored table has other attribute numbers if it had dropped columns before.
 * Then the numbers that are stored mean nothing, and nobody knows any more which
 * columns changed when: rows are sent whole, and as carefully as by a backfill.
 */
static const char *const renumber_queries[] = {
	"INSERT INTO sfsync.queue (xid, event_at, n, mapping, operation, key, actor)"
	" SELECT xid, event_at, n + 1, mapping, 'W', key, actor FROM sfsync.queue WHERE mapping = $1 AND operation = 'K'",
	"UPDATE sfsync.queue SET operation = CASE operation WHEN 'U' THEN 'W' ELSE operation END, changed = NULL"
	" WHERE mapping = $1 AND operation IN ('U', 'K')",
	"UPDATE sfsync.deferred SET whole = true, whole_at = coalesce(whole_at, '-infinity'), changed = NULL,"
	" changed_at = NULL, times = NULL WHERE mapping = $1 AND changed IS NOT NULL",
	/* longer ones are about filters and expressions, whose numbers are their own */
	"UPDATE sfsync.backfill_job SET changed = NULL WHERE mapping = $1 AND pg_catalog.octet_length(changed) <= 200",
	"UPDATE sfsync.mapping_state SET mapped = NULL, quarantined = NULL WHERE mapping = $1",
	"UPDATE sfsync.missed x SET attnum = -a.attnum FROM sfsync.mapping m, pg_catalog.pg_attribute a"
	" WHERE x.mapping = $1 AND m.id = $1 AND a.attrelid = m.source AND a.attname = m.table_columns[x.attnum]",
	"DELETE FROM sfsync.missed x USING sfsync.mapping m WHERE x.mapping = $1 AND m.id = $1"
	" AND x.attnum BETWEEN 1 AND pg_catalog.cardinality(m.table_columns)",
	"UPDATE sfsync.missed SET attnum = -attnum WHERE mapping = $1 AND attnum < 0",
	"UPDATE sfsync.field_creation x SET attnum = -a.attnum FROM sfsync.mapping m, pg_catalog.pg_attribute a"
	" WHERE x.mapping = $1 AND m.id = $1 AND a.attrelid = m.source AND a.attname = m.table_columns[x.attnum]",
	"DELETE FROM sfsync.field_creation x USING sfsync.mapping m WHERE x.mapping = $1 AND m.id = $1"
	" AND x.attnum BETWEEN 1 AND pg_catalog.cardinality(m.table_columns)",
	"UPDATE sfsync.field_creation SET attnum = -attnum WHERE mapping = $1 AND attnum < 0",
	"UPDATE sfsync.mapping m SET key_attnums ="
	" ARRAY(SELECT a.attnum FROM pg_catalog.unnest(m.key_columns) WITH ORDINALITY k(c, o)"
	" JOIN pg_catalog.pg_attribute a ON a.attrelid = m.source AND a.attname = k.c ORDER BY k.o), filter_attnums ="
	" ARRAY(SELECT coalesce(a.attnum, 0) FROM pg_catalog.unnest(m.filter_columns) WITH ORDINALITY k(c, o)"
	" LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = m.source AND a.attname = k.c ORDER BY k.o)"
	" WHERE m.id = $1",
	"UPDATE sfsync.rule r SET attnum = a.attnum FROM sfsync.mapping m, pg_catalog.pg_attribute a"
	" WHERE m.id = r.mapping AND m.id = $1 AND a.attrelid = m.source AND a.attname = r.column_name",
	"UPDATE sfsync.rule r SET expression_attnums ="
	" ARRAY(SELECT coalesce(a.attnum, 0) FROM pg_catalog.unnest(r.expression_columns) WITH ORDINALITY k(c, o)"
	" LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = m.source AND a.attname = k.c ORDER BY k.o)"
	" FROM sfsync.mapping m WHERE m.id = r.mapping AND m.id = $1 AND r.expression IS NOT NULL",
};

/* Mappings whose table's columns have other numbers now. */
static const char renumbered_query[] =
	"SELECT m.id FROM sfsync.mapping m WHERE m.server = $1 AND m.attnums_of <> m.source::oid AND m.table_columns <>"
	" ARRAY(SELECT CASE WHEN NOT a.attisdropped THEN a.attname END FROM pg_catalog.pg_attribute a"
	" WHERE a.attrelid = m.source AND a.attnum > 0 ORDER BY a.attnum)";

static const char columns_query[] =
	"UPDATE sfsync.mapping m SET attnums_of = m.source::oid, table_columns ="
	" ARRAY(SELECT CASE WHEN NOT a.attisdropped THEN a.attname END FROM pg_catalog.pg_attribute a"
	" WHERE a.attrelid = m.source AND a.attnum > 0 ORDER BY a.attnum)"
	" WHERE m.server = $1 AND m.attnums_of <> m.source::oid";

static void
take_over(SqlScope *scope, const char *server)
{
	int n;
	int *renumbered;

	for (int i = 0; i < lengthof(adopt_queries); i++)
		SQL_RUN(scope, adopt_queries[i], sql_arg_name(server));
	n = SQL_RUN(scope, renumbered_query, sql_arg_name(server));
	renumbered = sql_column_ints(scope, 1);
	for (int m = 0; m < n; m++)
		for (int i = 0; i < lengthof(renumber_queries); i++)
			SQL_RUN(scope, renumber_queries[i], sql_arg_int(renumbered[m]));
	SQL_RUN(scope, columns_query, sql_arg_name(server));
}

Datum
sfsync_adopt(PG_FUNCTION_ARGS)
{
	const char *server = NameStr(*PG_GETARG_NAME(0));
	SqlScope scope;

	(void) server_by_name(server);
	fence_bind(server);
	sql_open(&scope);
	if (SQL_RUN(&scope,
				"UPDATE sfsync.server_state SET system_identifier = $2, database = $3"
				" WHERE server = $1 AND (system_identifier <> $2 OR database <> $3)",
				sql_arg_name(server), sql_arg_bigint((int64) GetSystemIdentifier()),
				sql_arg_oid(MyDatabaseId)) > 0)
	{
		take_over(&scope, server);
		shmem_restart_worker_at_commit();
	}
	sql_close(&scope);
	mapping_changed(InvalidOid);
	shmem_wake_at_commit();
	PG_RETURN_VOID();
}
