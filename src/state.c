/*
 * state.c
 *		Statements on the tables that tell of the worker's state.
 */
#include "compat.h"

#include "mapping.h"
#include "sql.h"
#include "state.h"

static const char add_query[] =
	"INSERT INTO sfsync.mapping_state AS s (mapping, synced, unchanged, ignored, last_synced_at, last_error)"
	" VALUES ($1, $2, $3, $4, $5, $6)"
	" ON CONFLICT (mapping) DO UPDATE SET synced = s.synced + $2, unchanged = s.unchanged + $3,"
	" ignored = s.ignored + $4, last_synced_at = coalesce($5, s.last_synced_at),"
	" last_error = coalesce($6, s.last_error)";

void
mapping_state_add(int mapping, const MappingCounters *counters)
{
	SqlScope scope;

	if (!mapping_hold(mapping))
		return;
	sql_open(&scope);
	SQL_RUN(&scope, add_query, sql_arg_int(mapping), sql_arg_bigint(counters->synced),
			sql_arg_bigint(counters->unchanged), sql_arg_bigint(counters->ignored),
			sql_arg_time(counters->last_synced_at), sql_arg_text(counters->last_error));
	sql_close(&scope);
}

void
mapping_state_blocked(int mapping, const char *reason, TimestampTz until)
{
	SqlScope scope;

	if (!mapping_hold(mapping))
		return;
	sql_open(&scope);
	SQL_RUN(&scope,
			"INSERT INTO sfsync.mapping_state AS s (mapping, blocked, blocked_until, last_error)"
			" VALUES ($1, $2, $3, $2)"
			" ON CONFLICT (mapping) DO UPDATE SET blocked = $2, blocked_until = $3,"
			" last_error = coalesce($2, s.last_error)",
			sql_arg_int(mapping), sql_arg_text(reason), sql_arg_time(until));
	sql_close(&scope);
}

void
mapping_state_goes(int mapping)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope,
			"UPDATE sfsync.mapping_state SET blocked = NULL, blocked_until = NULL"
			" WHERE mapping = $1 AND blocked IS NOT NULL",
			sql_arg_int(mapping));
	sql_close(&scope);
}

bool
mapping_state_waits(int mapping, const char *reason)
{
	SqlScope scope;
	bool other;

	if (!mapping_hold(mapping))
		return false;
	sql_open(&scope);
	other = SQL_RUN(&scope,
					"INSERT INTO sfsync.mapping_state AS s (mapping, waits) SELECT $1, $2"
					" WHERE $2 IS NOT NULL OR EXISTS"
					" (SELECT FROM sfsync.mapping_state WHERE mapping = $1 AND waits IS NOT NULL)"
					" ON CONFLICT (mapping) DO UPDATE SET waits = $2 WHERE s.waits IS DISTINCT FROM $2",
					sql_arg_int(mapping), sql_arg_text(reason)) > 0;
	sql_close(&scope);
	return other;
}

static const char server_put_query[] =
	"UPDATE sfsync.server_state SET organization_id = coalesce($2, organization_id), user_id = coalesce($3, user_id),"
	" state_since = CASE WHEN state = $4 THEN state_since ELSE pg_catalog.clock_timestamp() END,"
	" state = $4, detail = $5, retry_at = $6, api_used = coalesce($7, api_used), api_limit = coalesce($8, api_limit),"
	" calls = calls + $9, batch_size = $10, concurrency = $11,"
	" clock_skew = $12 * interval '1 microsecond' WHERE server = $1";

void
server_state_put(const ServerState *state)
{
	SqlScope scope;
	const Usage *org = &state->throttle->budget.org;
	SqlArg used = sql_arg_bigint(org->told);
	SqlArg limit = sql_arg_bigint(org->limit);

	used.isnull = limit.isnull = org->limit <= 0;
	sql_open(&scope);
	SQL_RUN(&scope, server_put_query, sql_arg_name(state->server), sql_arg_text(state->organization_id),
			sql_arg_text(state->user_id), sql_arg_text(state->state), sql_arg_text(state->detail),
			sql_arg_time(state->retry_at), used, limit, sql_arg_bigint(state->calls),
			sql_arg_int(state->throttle->batch_size), sql_arg_int(state->throttle->concurrency),
			sql_arg_bigint(state->clock_skew));
	sql_close(&scope);
}

void
object_put(const char *server, const char *object, const char *describe, const char *last_modified)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope,
			"INSERT INTO sfsync.object (server, object, describe, last_modified, fetched_at)"
			" VALUES ($1, $2, $3, $4, pg_catalog.clock_timestamp())"
			" ON CONFLICT (server, object) DO UPDATE SET describe = excluded.describe,"
			" last_modified = excluded.last_modified, fetched_at = excluded.fetched_at, refresh = false",
			sql_arg_name(server), sql_arg_text(object), sql_arg_jsonb(describe), sql_arg_text(last_modified));
	sql_close(&scope);
	mapping_changed(InvalidOid);
}

void
object_touch(const char *server, const char *object)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope,
			"UPDATE sfsync.object SET fetched_at = pg_catalog.clock_timestamp(), refresh = false"
			" WHERE server = $1 AND object = $2",
			sql_arg_name(server), sql_arg_text(object));
	sql_close(&scope);
	mapping_changed(InvalidOid);
}
