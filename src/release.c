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

static const char release_query[] =
	"UPDATE sfsync.deferred SET state = 'waiting', reason = 'released', deleted = true, missing_since = NULL,"
	" due_at = pg_catalog.clock_timestamp() WHERE mapping = $1 AND state = 'held'"
	" AND (deleted OR missing_since IS NOT NULL)";

static const char discard_query[] = "DELETE FROM sfsync.deferred WHERE mapping = $1 AND state = 'held'"
									" AND (deleted OR missing_since IS NOT NULL)";

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
	n = SQL_RUN(&scope, query, sql_arg_int(mapping->id));
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
