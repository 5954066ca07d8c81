/*
 * queue.c
 *		Statements on the tables where changes wait, but settling, which is in
 *		settle.c.
 */
#include "compat.h"

#include "miscadmin.h"
#include "access/twophase.h"
#include "utils/memutils.h"

#include "queue.h"
#include "sql.h"

/*
 * Reading the queue
 */

static void
end_window(QueueWindow *window)
{
	if (window->seen)
		pfree(window->seen);
	window->seen = window->upto;
	window->upto = NULL;
	if (window->late)
		pfree(window->late);
	window->late = NULL;
	window->nlate = 0;
}

void
queue_rewind(QueueWindow *window)
{
	end_window(window);
	end_window(window);
	window->seen_xmin = 0;
}

static const char late_query[] =
	"SELECT x FROM pg_catalog.pg_snapshot_xip($1::text::pg_catalog.pg_snapshot) AS x"
	" WHERE pg_catalog.pg_visible_in_snapshot(x, $2::text::pg_catalog.pg_snapshot) ORDER BY x";

static void
begin_window(SqlScope *scope, QueueWindow *window, MemoryContext context)
{
	SQL_RUN0(scope, "SELECT pg_catalog.pg_current_snapshot()::text");
	window->upto = MemoryContextStrdup(context, sql_text(scope, 0, 1));
	window->xid = 0;
	window->n = window->row = PG_INT32_MIN; /* what is adopted has numbers below 0 */
	window->next_late = 0;
	if (!window->seen)
		return;
	window->nlate = SQL_RUN(scope, late_query, sql_arg_text(window->seen), sql_arg_text(window->upto));
	if (window->nlate > 0)
	{
		window->late = MemoryContextAlloc(context, sizeof(uint64) * window->nlate);
		for (int i = 0; i < window->nlate; i++)
			window->late[i] = sql_xid(i, 1);
	}
	SQL_RUN(scope, "SELECT pg_catalog.pg_snapshot_xmax($1::text::pg_catalog.pg_snapshot)",
			sql_arg_text(window->seen));
	window->xid = sql_xid(0, 1);
}

static const char late_rows_query[] =
	"SELECT xid, n, mapping, operation, key, old_key, changed, event_at, more_keys, more_at FROM sfsync.queue"
	" WHERE xid = $1 AND n > $2 ORDER BY xid, n LIMIT $3";

static const char rows_query[] =
	"SELECT xid, n, mapping, operation, key, old_key, changed, event_at, more_keys, more_at FROM sfsync.queue"
	" WHERE (xid, n) > ($1, $2) AND xid < pg_catalog.pg_snapshot_xmax($4::text::pg_catalog.pg_snapshot)"
	" AND pg_catalog.pg_visible_in_snapshot(xid, $4::text::pg_catalog.pg_snapshot)"
	" ORDER BY xid, n LIMIT $3";

/*
 * Take events of a row, up to limit, from the position on; the row may have
 * been divided since they were taken.  False: there are more.
 */
static bool
take_row(SqlScope *scope, uint64 row, QueueWindow *window, bool late, int limit, QueueEventFunction take,
		 void *arg, int *nread)
{
	uint64 xid = sql_xid(row, 1);
	int32 n = sql_int(row, 2);
	int32 next = late || xid == window->xid ? Max(window->n + 1, n) : n;
	int nmore;
	int ntimes;
	char **keys = sql_texts(scope, row, 9, &nmore);
	TimestampTz *times = sql_times(scope, row, 10, &ntimes);
	int32 last = n + Min(nmore, ntimes);
	MemoryContext statement = CurrentMemoryContext;
	WorkEvent event;

	event.mapping = sql_int(row, 3);
	event.operation = sql_char(row, 4);
	event.ref.xid = xid;
	for (; next <= last && *nread < limit; next++, (*nread)++)
	{
		event.ref.n = next;
		event.key = next == n ? sql_text(scope, row, 5) : keys[next - n - 1];
		event.old_key = sql_text(scope, row, 6);
		event.changed = sql_bytes(scope, row, 7, &event.changed_len);
		event.event_at = next == n ? sql_time(row, 8) : times[next - n - 1];
		MemoryContextSwitchTo(scope->caller);
		take(&event, arg);
		MemoryContextSwitchTo(statement);
	}
	if (!late)
		window->xid = xid;
	window->n = next - 1;
	window->row = next > last ? window->n : n - 1;
	return next > last;
}

/* One page of one xid that committed late, or of the main range. */
static bool
read_page(SqlScope *scope, QueueWindow *window, int limit, QueueEventFunction take, void *arg, int *nread)
{
	bool late = window->next_late < window->nlate;
	int before = *nread;
	int rows = (limit - before) / Max(window->row_events, 1) + 1;
	bool whole = true;
	int i = 0;
	int n;

	if (late)
		n = SQL_RUN(scope, late_rows_query, sql_arg_xid(window->late[window->next_late]),
					sql_arg_int(window->row), sql_arg_bigint(rows));
	else
		n = SQL_RUN(scope, rows_query, sql_arg_xid(Max(window->xid, 1)), sql_arg_int(window->row),
					sql_arg_bigint(rows), sql_arg_text(window->upto));
	for (; whole && i < n; i++)
		whole = *nread < limit && take_row(scope, i, window, late, limit, take, arg, nread);
	if (i > 0)
		window->row_events = (*nread - before) / i;
	if (!whole || n == rows)
		return false;
	if (!late)
		return true;
	window->next_late++;
	window->n = window->row = PG_INT32_MIN;
	return false;
}

bool
queue_read(QueueWindow *window, int limit, MemoryContext context, QueueEventFunction take, void *arg,
		   int *nread)
{
	SqlScope scope;
	bool ended = false;

	*nread = 0;
	sql_open(&scope);
	if (!window->upto)
		begin_window(&scope, window, context);
	while (!ended && *nread < limit)
		ended = read_page(&scope, window, limit, take, arg, nread);
	if (ended)
	{
		end_window(window);
		SQL_RUN(&scope, "SELECT pg_catalog.pg_snapshot_xmin($1::text::pg_catalog.pg_snapshot)",
				sql_arg_text(window->seen));
		window->seen_xmin = sql_xid(0, 1);
	}
	sql_close(&scope);
	return ended;
}

bool
queue_prepared_transactions(void)
{
	SqlScope scope;
	bool any;

	if (max_prepared_xacts == 0)
		return false;
	sql_open(&scope);
	any = sql_run(&scope,
				  "SELECT FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()",
				  NULL, 0, 1) > 0;
	sql_close(&scope);
	return any;
}

/*
 * Deferred changes
 */

#define DEFERRED_COLUMNS                                                                                        \
	"d.mapping, d.key, d.state = 'held', d.due_at, d.attempts, d.whole, d.deleted, d.old_keys,"                 \
	" d.changed, d.first_event_at, d.event_at, d.xid, d.missing_since, d.reason, d.state = 'dead', d.whole_at," \
	" d.changed_at, d.times, d.key_left, d.captured, d.renewed"

static const char due_query[] =
	"SELECT " DEFERRED_COLUMNS " FROM sfsync.deferred d WHERE d.state = 'waiting'"
	" AND d.due_at > $1 AND d.due_at <= $2 AND d.mapping = ANY ($3) ORDER BY d.due_at LIMIT $4";

static const char keys_query[] = "SELECT " DEFERRED_COLUMNS " FROM unnest($1, $2) AS k(mapping, key)"
								 " JOIN sfsync.deferred d ON d.mapping = k.mapping AND d.key = k.key";

static DeferredRow *
take_deferred(SqlScope *scope, int n)
{
	DeferredRow *rows = MemoryContextAllocZero(scope->caller, sizeof(DeferredRow) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		DeferredRow *row = &rows[i];

		row->mapping = sql_int(i, 1);
		row->key = sql_text(scope, i, 2);
		row->held = sql_bool(i, 3);
		row->due_at = sql_time(i, 4);
		row->attempts = sql_int(i, 5);
		row->whole = sql_bool(i, 6);
		row->deleted = sql_bool(i, 7);
		row->old_keys = sql_texts(scope, i, 8, &row->nold);
		row->changed = sql_bytes(scope, i, 9, &row->changed_len);
		row->first_event_at = sql_time(i, 10);
		row->event_at = sql_time(i, 11);
		row->xid = sql_xid(i, 12);
		row->missing_since = sql_xid(i, 13);
		row->reason = sql_text(scope, i, 14);
		row->dead = sql_bool(i, 15);
		row->whole_at = sql_time(i, 16);
		row->changed_at = sql_time(i, 17);
		row->times = sql_times(scope, i, 18, &row->ntimes);
		row->key_left = sql_bool(i, 19);
		row->captured = sql_bool(i, 20);
		row->renewed = sql_xid(i, 21);
	}
	return rows;
}

DeferredRow *
deferred_due(const int *mappings, int nmappings, TimestampTz after, TimestampTz now, int limit, int *n)
{
	SqlScope scope;
	DeferredRow *rows;
	SqlArg from = sql_arg_time(after);

	from.isnull = false;
	sql_open(&scope);
	*n = SQL_RUN(&scope, due_query, from, sql_arg_time(now), sql_arg_ints(mappings, nmappings),
				 sql_arg_bigint(limit));
	rows = take_deferred(&scope, *n);
	sql_close(&scope);
	return rows;
}

TimestampTz
deferred_next_due(const int *mappings, int nmappings, TimestampTz now)
{
	SqlScope scope;
	TimestampTz due = 0;

	sql_open(&scope);
	if (SQL_RUN(&scope,
				"SELECT due_at FROM sfsync.deferred WHERE state = 'waiting' AND due_at > $1"
				" AND mapping = ANY ($2) ORDER BY due_at LIMIT 1",
				sql_arg_time(now), sql_arg_ints(mappings, nmappings)) == 1)
		due = sql_time(0, 1);
	sql_close(&scope);
	return due;
}

DeferredRow *
deferred_of_keys(const int32 *mappings, char *const *keys, int nkeys, int *n)
{
	SqlScope scope;
	DeferredRow *rows;

	*n = 0;
	if (nkeys == 0)
		return NULL;
	sql_open(&scope);
	*n = SQL_RUN(&scope, keys_query, sql_arg_ints(mappings, nkeys), sql_arg_texts(keys, nkeys));
	rows = take_deferred(&scope, *n);
	sql_close(&scope);
	return rows;
}

static const char circles_query[] =
	"WITH RECURSIVE chain(row, mapping, key, depth) AS ("
	" SELECT r.row, r.mapping, r.key, 1 FROM unnest($2, $3, $4) AS r(row, mapping, key)"
	" UNION SELECT c.row, d.parent_mapping, d.parent_key, c.depth + 1 FROM chain c"
	" JOIN sfsync.deferred d ON d.mapping = c.mapping AND d.key = c.key"
	" WHERE d.parent_key IS NOT NULL AND NOT d.has_record AND c.depth < 100)"
	" SELECT DISTINCT c.row FROM chain c"
	" WHERE c.mapping = $1 AND c.key = ($5::pg_catalog.text[])[c.row + 1]";

bool *
deferred_circles(int mapping, char *const *keys, const int32 *parent_mappings, char *const *parent_keys,
				 int n)
{
	bool *circles = palloc0(sizeof(bool) * Max(n, 1));
	int32 *rows = palloc(sizeof(int32) * Max(n, 1));
	int nfound;
	SqlScope scope;

	for (int i = 0; i < n; i++)
		rows[i] = i;
	sql_open(&scope);
	nfound = SQL_RUN(&scope, circles_query, sql_arg_int(mapping), sql_arg_ints(rows, n),
					 sql_arg_ints(parent_mappings, n), sql_arg_texts(parent_keys, n), sql_arg_texts(keys, n));
	for (int i = 0; i < nfound; i++)
		circles[sql_int(i, 1)] = true;
	sql_close(&scope);
	return circles;
}

static const char gone_query[] =
	"SELECT k.i FROM unnest($2) WITH ORDINALITY AS k(key, i) LEFT JOIN sfsync.deferred d ON d.mapping = $1"
	" AND d.key = k.key WHERE d.key IS NULL";

static const char discarded_query[] =
	"SELECT k.i FROM unnest($2) WITH ORDINALITY AS k(key, i) WHERE EXISTS (SELECT FROM sfsync.mapping m"
	" JOIN sfsync.dead_letter l ON l.mapping = m.name WHERE m.id = $1 AND l.external_id = k.key"
	" AND l.status = 'discarded')";

/* All dead letters are looked through only when there is reason to. */
bool *
deferred_given_up(int mapping, char *const *keys, int n)
{
	bool *gone = palloc0(sizeof(bool) * Max(n, 1));
	bool *given_up = palloc0(sizeof(bool) * Max(n, 1));
	int ngone;
	int nfound = 0;
	SqlScope scope;

	sql_open(&scope);
	ngone = n > 0 ? SQL_RUN(&scope, gone_query, sql_arg_int(mapping), sql_arg_texts(keys, n)) : 0;
	for (int i = 0; i < ngone; i++)
		gone[sql_bigint(i, 1) - 1] = true;
	if (ngone > 0)
		nfound = SQL_RUN(&scope, discarded_query, sql_arg_int(mapping), sql_arg_texts(keys, n));
	for (int i = 0; i < nfound; i++)
		given_up[sql_bigint(i, 1) - 1] = gone[sql_bigint(i, 1) - 1];
	sql_close(&scope);
	return given_up;
}

void
deferred_remove(int mapping, const char *key)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, "DELETE FROM sfsync.deferred WHERE mapping = $1 AND key = $2", sql_arg_int(mapping),
			sql_arg_text(key));
	sql_close(&scope);
}
