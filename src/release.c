/*
 * release.c
 *		release_deletes, discard_deletes: what a person decides of held deletes.
 *
 * Held are deletes that the guard held back, rows that left with a partition,
 * and rows that are missing without a delete.
 */
#include "compat.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "api.h"
#include "batch.h"
#include "shmem.h"
#include "sql.h"

#define HELD_DELETES "mapping = $1 AND state = 'held' AND (deleted OR missing_since IS NOT NULL)"

/* A dead letter of the row ends with what becomes of it. */
static const char release_query[] =
	"WITH released AS (UPDATE sfsync.deferred SET state = 'waiting', reason = 'released', deleted = true,"
	" missing_since = NULL, due_at = pg_catalog.clock_timestamp() WHERE " HELD_DELETES " RETURNING key)"
	" SELECT pg_catalog.count(*) FROM released";

/* A dead letter of the row has nothing left to wait for. */
static const char discard_query[] =
	"WITH discarded AS (DELETE FROM sfsync.deferred WHERE " HELD_DELETES " RETURNING key),"
	" ended AS (UPDATE sfsync.dead_letter l SET status = 'discarded', resolved_at = pg_catalog.clock_timestamp(),"
	" note = 'given up with the held delete of the row' FROM discarded d, sfsync.mapping m"
	" WHERE m.id = $1 AND l.mapping = m.name AND l.external_id = d.key AND l.status IN ('open', 'retrying'))"
	" SELECT pg_catalog.count(*) FROM discarded";

/* Returns how many rows that are. */
static int64
decide_held(FunctionCallInfo fcinfo, const char *query)
{
	Mapping *mapping;
	SqlScope scope;
	int64 n;

	api_require(fcinfo, 0, "mapping");
	mapping = api_mapping(api_text(fcinfo, 0));
	api_keep_mapping(mapping);
	sql_open(&scope);
	SQL_RUN(&scope, query, sql_arg_int(mapping->id));
	n = sql_bigint(0, 1);
	sql_close(&scope);
	shmem_wake_at_commit();
	return n;
}

PG_FUNCTION_INFO_V1(sfsync_release_deletes);

Datum
sfsync_release_deletes(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(decide_held(fcinfo, release_query));
}

/*
 * Rows that a filter leaves out are still there: their records are known no
 * more, or the next change of the row would delete them after all.
 */
static void
forget_left_out(FunctionCallInfo fcinfo)
{
	Mapping *mapping;
	SqlScope scope;

	api_require(fcinfo, 0, "mapping");
	mapping = api_mapping(api_text(fcinfo, 0));
	sql_open(&scope);
	SQL_RUN(&scope,
			"DELETE FROM sfsync.record r USING sfsync.deferred d WHERE d.mapping = $1 AND d.state = 'held'"
			" AND d.reason = $2 AND r.mapping = $1 AND r.key = d.key",
			sql_arg_int(mapping->id), sql_arg_text(BATCH_FILTER_HOLD));
	sql_close(&scope);
}

PG_FUNCTION_INFO_V1(sfsync_discard_deletes);

Datum
sfsync_discard_deletes(PG_FUNCTION_ARGS)
{
	int64 n;

	forget_left_out(fcinfo);
	n = decide_held(fcinfo, discard_query);

	if (n > 0)
		ereport(LOG, (errmsg("sfsync: mapping \"%s\": %lld held deletes were discarded by role \"%s\"",
							 api_text(fcinfo, 0), (long long) n, GetUserNameFromId(GetUserId(), false))));
	PG_RETURN_INT64(n);
}
