/*
 * status.c
 *		Functions that look: views' helpers, wait_for_sync; repair of
 *		dead letters; and what CREATE EXTENSION sets off.
 */
#include "compat.h"

#include "access/xact.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"

#include "api.h"
#include "history.h"
#include "options.h"
#include "sfsync.h"
#include "shmem.h"
#include "sql.h"

/*
 * Helpers of the views
 */

static Datum
name_datum(const char *name)
{
	return DirectFunctionCall1(namein, CStringGetDatum(name));
}

static void
put_routes(ReturnSetInfo *result, const Mapping *mapping)
{
	for (int i = 0; i < mapping->nroutes; i++)
	{
		const Route *route = &mapping->routes[i];
		const MappingColumn *column = &mapping->columns[route->column];
		const char *texts[8] = {mapping->name,
								column->expression ? NULL : column->name,
								column->type_name,
								route->field_name,
								route->field ? route->field->type_name : NULL,
								route_kind_name(route->rule),
								route_status_name(route->status),
								route->detail ? route->detail : column->expression};
		Datum values[8] = {0};

		if (texts[1])
			values[1] = name_datum(texts[1]);
		api_put_row(result, 8, texts, values);
	}
}

/* Before metadata are cached nothing is decided but what the user said. */
static void
put_undescribed(ReturnSetInfo *result, const Mapping *mapping)
{
	for (int i = 0; i < mapping->ncolumns; i++)
	{
		const MappingColumn *column = &mapping->columns[i];
		const char *texts[8] = {mapping->name,
								column->expression ? NULL : column->name,
								column->type_name,
								column->field_name,
								NULL,
								column->expression ? "expression" : NULL,
								"unmatched",
								"metadata of the object are not cached yet"};
		Datum values[8] = {0};

		if (mapping->broken)
			texts[7] = mapping->broken;
		if (texts[1])
			values[1] = name_datum(texts[1]);
		api_put_row(result, 8, texts, values);
	}
}

PG_FUNCTION_INFO_V1(sfsync_resolved_fields);

Datum
sfsync_resolved_fields(PG_FUNCTION_ARGS)
{
	int n;
	int *ids;

	InitMaterializedSRF(fcinfo, 0);
	ids = mapping_ids(&n);
	for (int i = 0; i < n; i++)
	{
		Mapping *mapping = mapping_look(ids[i]);

		if (!mapping)
			continue;
		if (mapping->meta)
			put_routes((ReturnSetInfo *) fcinfo->resultinfo, mapping);
		else
			put_undescribed((ReturnSetInfo *) fcinfo->resultinfo, mapping);
	}
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(sfsync_server_settings);

Datum
sfsync_server_settings(PG_FUNCTION_ARGS)
{
	int n;
	const char **names;

	InitMaterializedSRF(fcinfo, 0);
	names = server_names(&n);
	for (int i = 0; i < n; i++)
	{
		ServerOptions *options = server_options(GetForeignServerByName(names[i], false)->serverid);
		const char *texts[3] = {options->name, "", options->environment};
		Datum values[3] = {name_datum(options->name), Int32GetDatum(options->api_budget), 0};

		api_put_row((ReturnSetInfo *) fcinfo->resultinfo, 3, texts, values);
	}
	return (Datum) 0;
}

/*
 * Waiting
 */

/* A transaction id that is not given out yet is another cluster's, of a dump. */
static const char unsettled_query[] =
	"SELECT EXISTS (SELECT FROM sfsync.queue WHERE xid >= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"
	" AND ($2 = 0 OR mapping = $2))"
	" OR EXISTS (SELECT FROM sfsync.queue WHERE xid < pg_catalog.pg_snapshot_xmax($1::text::pg_catalog.pg_snapshot)"
	" AND pg_catalog.pg_visible_in_snapshot(xid, $1::text::pg_catalog.pg_snapshot) AND ($2 = 0 OR mapping = $2))"
	" OR EXISTS (SELECT FROM sfsync.deferred WHERE state = 'waiting'"
	" AND pg_catalog.pg_visible_in_snapshot(xid, $1::text::pg_catalog.pg_snapshot) AND ($2 = 0 OR mapping = $2))"
	" OR EXISTS (SELECT FROM sfsync.backfill_job b JOIN sfsync.mapping m ON m.id = b.mapping WHERE b.state = 'running'"
	" AND pg_catalog.pg_visible_in_snapshot(b.xid, $1::text::pg_catalog.pg_snapshot) AND ($2 = 0 OR b.mapping = $2))";

static char *
current_snapshot(void)
{
	SqlScope scope;
	char *snapshot;

	sql_open_latest(&scope);
	SQL_RUN0(&scope, "SELECT pg_catalog.pg_current_snapshot()::text");
	snapshot = sql_text(&scope, 0, 1);
	sql_close(&scope);
	return snapshot;
}

static bool
settled(const char *snapshot, int mapping)
{
	SqlScope scope;
	bool result;

	sql_open_latest(&scope);
	SQL_RUN(&scope, unsettled_query, sql_arg_text(snapshot), sql_arg_int(mapping));
	result = !sql_bool(0, 1);
	sql_close(&scope);
	return result;
}

static void
nap(TimestampTz until)
{
	static uint32 wait_event = 0;
	long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

	if (wait_event == 0)
		wait_event = NAMED_WAIT_EVENT("SfsyncWaitForSync");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, Min(Max(left, 1), 10),
					 wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

PG_FUNCTION_INFO_V1(sfsync_wait_for_sync);

Datum
sfsync_wait_for_sync(PG_FUNCTION_ARGS)
{
	TimestampTz until;
	char *snapshot;
	int mapping = PG_ARGISNULL(1) ? 0 : mapping_require(api_text(fcinfo, 1));

	api_require(fcinfo, 0, "timeout");
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("sfsync.wait_for_sync can't see changes in a transaction of this isolation level"),
				 errdetail("Its snapshot stays as it was when it began."),
				 errhint("Call it in READ COMMITTED.")));
	until = DatumGetTimestampTz(DirectFunctionCall2(
		timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()), PG_GETARG_DATUM(0)));
	snapshot = current_snapshot();
	while (!settled(snapshot, mapping))
	{
		if (GetCurrentTimestamp() >= until)
			PG_RETURN_BOOL(false);
		nap(until);
	}
	PG_RETURN_BOOL(true);
}

/*
 * pause, resume, refresh_schema
 */

static void
set_paused(FunctionCallInfo fcinfo, bool paused)
{
	int n = 1;
	int one;
	int *ids = &one;
	SqlScope scope;

	if (PG_ARGISNULL(0))
		ids = mapping_ids(&n);
	else
		one = mapping_require(api_text(fcinfo, 0));
	for (int i = 0; i < n; i++)
	{
		Mapping *mapping = mapping_get(ids[i]);

		if (!mapping)
			continue;
		mapping = api_mapping(mapping->name);
		sql_open(&scope);
		SQL_RUN(&scope, "UPDATE sfsync.mapping SET paused = $2 WHERE id = $1 AND paused <> $2",
				sql_arg_int(mapping->id), sql_arg_bool(paused));
		sql_close(&scope);
		mapping_changed(mapping->source);
	}
	shmem_wake_at_commit();
}

PG_FUNCTION_INFO_V1(sfsync_pause);

Datum
sfsync_pause(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, true);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(sfsync_resume);

Datum
sfsync_resume(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, false);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(sfsync_refresh_schema);

Datum
sfsync_refresh_schema(PG_FUNCTION_ARGS)
{
	SqlScope scope;
	char *server = api_name(fcinfo, 0);
	char *object = api_text(fcinfo, 1);
	uint64 n;

	if (server)
		(void) server_by_name(server);
	sql_open(&scope);
	SQL_RUN0(&scope,
			 "INSERT INTO sfsync.object (server, object) SELECT DISTINCT server, object FROM sfsync.mapping"
			 " ON CONFLICT DO NOTHING");
	n = SQL_RUN(&scope,
				"UPDATE sfsync.object SET refresh = true WHERE ($1 IS NULL OR server = $1)"
				" AND ($2 IS NULL OR pg_catalog.lower(object) = pg_catalog.lower($2))",
				sql_arg_name(server), sql_arg_text(object));
	SQL_RUN(
		&scope,
		"UPDATE sfsync.field_creation c SET retry_at = NULL FROM sfsync.mapping m WHERE m.id = c.mapping"
		" AND ($1 IS NULL OR m.server = $1) AND ($2 IS NULL OR pg_catalog.lower(m.object) = pg_catalog.lower($2))",
		sql_arg_name(server), sql_arg_text(object));
	sql_close(&scope);
	if (object && n == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("no mapping has object \"%s\"", object),
						errdetail("Metadata are kept of objects that tables are mapped to."),
						errhint("sfsync.status lists the objects.")));
	mapping_changed(InvalidOid);
	shmem_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * Dead letters
 */

static const char retry_query[] =
	"INSERT INTO sfsync.deferred AS d (mapping, key, state, reason, due_at, attempts, whole, whole_at,"
	" deleted, first_event_at, event_at, xid)"
	" SELECT m.id, l.external_id, 'waiting', 'retry of a dead letter', pg_catalog.clock_timestamp(), 0, true,"
	" coalesce(l.event_at, l.first_failed_at),"
	" l.operation IN ('delete', 'hard_delete', 'archive', 'deactivate'),"
	" coalesce(l.event_at, l.first_failed_at), coalesce(l.event_at, l.first_failed_at), pg_catalog.pg_current_xact_id()"
	" FROM sfsync.dead_letter l JOIN sfsync.mapping m ON m.name = l.mapping WHERE l.id = $1"
	" ON CONFLICT (mapping, key) DO UPDATE SET state = 'waiting', due_at = excluded.due_at, attempts = 0,"
	" reason = excluded.reason";

/* An error unless the caller is the owner of an unresolved dead letter's mapping.  False if there is none. */
static bool
keep_mapping_of(int64 dead_letter)
{
	SqlScope scope;
	char *mapping = NULL;

	sql_open_latest(&scope);
	if (SQL_RUN(&scope,
				"SELECT mapping FROM sfsync.dead_letter WHERE id = $1 AND status IN ('open', 'retrying')",
				sql_arg_bigint(dead_letter)) == 1)
		mapping = sql_text(&scope, 0, 1);
	sql_close(&scope);
	if (mapping)
		api_keep_mapping(api_mapping(mapping));
	return mapping != NULL;
}

PG_FUNCTION_INFO_V1(sfsync_retry);

Datum
sfsync_retry(PG_FUNCTION_ARGS)
{
	int64 id = PG_GETARG_INT64(0);
	SqlScope scope;
	bool open;

	if (!keep_mapping_of(id))
		PG_RETURN_BOOL(false);
	sql_open(&scope);
	open =
		SQL_RUN(&scope, "UPDATE sfsync.dead_letter SET status = 'retrying' WHERE id = $1 AND status = 'open'",
				sql_arg_bigint(id)) > 0;
	if (open)
		SQL_RUN(&scope, retry_query, sql_arg_bigint(id));
	sql_close(&scope);
	if (open)
		history_repair(id, "retried");
	shmem_wake_at_commit();
	PG_RETURN_BOOL(open);
}

/* Of one that is tried again and under way, the outcome decides. */
static const char discard_query[] =
	"UPDATE sfsync.dead_letter l SET status = 'discarded', note = $2, resolved_at = pg_catalog.clock_timestamp()"
	" FROM (SELECT id, status FROM sfsync.dead_letter WHERE id = $1 FOR UPDATE) o WHERE l.id = o.id"
	" AND (o.status = 'open' OR o.status = 'retrying' AND NOT EXISTS (SELECT FROM sfsync.mapping m"
	" WHERE m.name = l.mapping AND (EXISTS (SELECT FROM sfsync.intent i WHERE i.mapping = m.id"
	" AND i.state = 'in_flight' AND l.external_id = ANY (i.keys)) OR EXISTS (SELECT FROM sfsync.bulk_row b"
	" WHERE b.mapping = m.id AND b.key = l.external_id)))) RETURNING o.status = 'retrying'";

/* A delete of the row that is held is a change of its own. */
static const char give_up_query[] =
	"DELETE FROM sfsync.deferred d USING sfsync.dead_letter l, sfsync.mapping m WHERE l.id = $1"
	" AND m.name = l.mapping AND d.mapping = m.id AND d.key = l.external_id"
	" AND (d.state = 'dead' OR $2 AND NOT (d.state = 'held' AND d.deleted))";

PG_FUNCTION_INFO_V1(sfsync_discard);

Datum
sfsync_discard(PG_FUNCTION_ARGS)
{
	SqlScope scope;
	char *reason = api_text(fcinfo, 1);
	bool unresolved;

	api_require(fcinfo, 0, "dead_letter_id");
	if (!reason || reason[strspn(reason, " \t\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("argument \"reason\" must not be empty"),
				 errdetail("A change that is given up is never sent."),
				 errhint("Say why the change is given up; it is kept in the dead letter's note.")));
	if (!keep_mapping_of(PG_GETARG_INT64(0)))
		PG_RETURN_BOOL(false);
	sql_open(&scope);
	unresolved = SQL_RUN(&scope, discard_query, sql_arg_bigint(PG_GETARG_INT64(0)), sql_arg_text(reason)) > 0;
	if (unresolved)
	{
		SqlArg retrying = sql_arg_bool(sql_bool(0, 1));

		SQL_RUN(&scope, give_up_query, sql_arg_bigint(PG_GETARG_INT64(0)), retrying);
	}
	sql_close(&scope);
	if (unresolved)
		history_repair(PG_GETARG_INT64(0), "discarded");
	PG_RETURN_BOOL(unresolved);
}

/*
 * CREATE EXTENSION
 */

PG_FUNCTION_INFO_V1(sfsync_announce);

Datum
sfsync_announce(PG_FUNCTION_ARGS)
{
	if (shmem_available())
		shmem_start_at_commit();
	else
		ereport(WARNING, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						  errmsg("sfsync is not preloaded: changes will be captured, but not delivered"),
						  errhint("Add sfsync to shared_preload_libraries and restart the server.")));
	PG_RETURN_VOID();
}
