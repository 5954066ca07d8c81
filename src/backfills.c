/*
 * backfills.c
 *		Statements on the table of backfills.
 */
#include "compat.h"

#include "utils/memutils.h"

#include "backfills.h"
#include "bitmap.h"
#include "mapping.h"
#include "sql.h"

BackfillJob *
backfills_running(int *n)
{
	SqlScope scope;
	BackfillJob *jobs;

	sql_open(&scope);
	*n = SQL_RUN0(&scope, "SELECT id, mapping, last_key, xid, changed, filter, started_at, hold"
						  " FROM sfsync.backfill_job WHERE state = 'running' ORDER BY id");
	jobs = MemoryContextAllocZero(scope.caller, sizeof(BackfillJob) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		jobs[i].id = sql_bigint(i, 1);
		jobs[i].mapping = sql_int(i, 2);
		jobs[i].last_key = sql_text(&scope, i, 3);
		jobs[i].xid = sql_xid(i, 4);
		jobs[i].changed = sql_bytes(&scope, i, 5, &jobs[i].changed_len);
		jobs[i].filter = sql_text(&scope, i, 6);
		if (jobs[i].changed && bitmap_has(jobs[i].changed, jobs[i].changed_len, MAPPING_FILTER_ATTNUM))
			jobs[i].filter_changed_at = sql_time(i, 7);
		jobs[i].hold = sql_bool(i, 8);
	}
	sql_close(&scope);
	return jobs;
}

bool
backfill_was_done(int mapping)
{
	SqlScope scope;
	bool done;

	sql_open(&scope);
	done = SQL_RUN(&scope,
				   "SELECT FROM sfsync.backfill_job WHERE mapping = $1 AND state = 'done' AND changed IS NULL"
				   " AND filter IS NULL LIMIT 1",
				   sql_arg_int(mapping)) > 0;
	sql_close(&scope);
	return done;
}

void
backfill_fail(int64 id)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope,
			"UPDATE sfsync.backfill_job SET state = 'failed', finished_at = pg_catalog.clock_timestamp()"
			" WHERE id = $1 AND state = 'running'",
			sql_arg_bigint(id));
	sql_close(&scope);
}

/* rows_total is what was counted at the start: more may have come, or some gone. */
static const char advance_query[] =
	"UPDATE sfsync.backfill_job SET last_key = coalesce($2, last_key), rows_done = rows_done + $3, rows_ahead = 0,"
	" rows_per_second = coalesce(0.7 * rows_per_second, 0) + CASE WHEN rows_per_second IS NULL THEN 1 ELSE 0.3 END"
	" * $3 / greatest(extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(advanced_at, started_at)), 0.001),"
	" advanced_at = pg_catalog.clock_timestamp(),"
	" state = CASE WHEN $4 THEN 'done' ELSE state END,"
	" finished_at = CASE WHEN $4 THEN pg_catalog.clock_timestamp() END"
	" WHERE id = $1 AND state = 'running' RETURNING rows_done, coalesce(rows_total, 0)";

/* How far it is, of what was expected; the last percent is for its end. */
static int
percent_done(int64 done, int64 total)
{
	return total <= 0 ? 0 : (int) Min(100.0 * done / total, 99.0);
}

bool
backfill_advance(int64 id, const char *last_key, int64 rows, bool done, BackfillStep *step)
{
	SqlScope scope;
	bool running;

	sql_open(&scope);
	running = SQL_RUN(&scope, advance_query, sql_arg_bigint(id), sql_arg_text(last_key), sql_arg_bigint(rows),
					  sql_arg_bool(done)) == 1;
	if (running)
	{
		step->rows_done = sql_bigint(0, 1);
		step->rows_total = sql_bigint(0, 2);
		step->percent = done ? 100 : percent_done(step->rows_done, step->rows_total);
		step->percent_before = percent_done(step->rows_done - rows, step->rows_total);
	}
	sql_close(&scope);
	return running;
}

void
backfill_note_ahead(int64 id, int64 rows)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, "UPDATE sfsync.backfill_job SET rows_ahead = $2 WHERE id = $1 AND state = 'running'",
			sql_arg_bigint(id), sql_arg_bigint(rows));
	sql_close(&scope);
}
