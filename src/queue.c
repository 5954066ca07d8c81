/*
 * queue.c
 *		Every statement on the tables a change passes through, but settling,
 *		which is in settle.c.
 */
#include "compat.h"

#include "miscadmin.h"
#include "access/twophase.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "queue.h"
#include "source.h"
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
	window->n = window->row = -1;
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
	window->n = window->row = -1;
	return false;
}

bool
queue_read(QueueWindow *window, int limit, MemoryContext context, QueueEventFunction take, void *arg,
		   int *nread)
{
	SqlScope scope;
	bool ended = false;

	*nread = 0;
	sql_open(&scope, false);
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
	sql_open(&scope, false);
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
	" d.changed_at, d.times, d.key_left"

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
	sql_open(&scope, false);
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

	sql_open(&scope, false);
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
	sql_open(&scope, false);
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
	sql_open(&scope, false);
	nfound = SQL_RUN(&scope, circles_query, sql_arg_int(mapping), sql_arg_ints(rows, n),
					 sql_arg_ints(parent_mappings, n), sql_arg_texts(parent_keys, n), sql_arg_texts(keys, n));
	for (int i = 0; i < nfound; i++)
		circles[sql_int(i, 1)] = true;
	sql_close(&scope);
	return circles;
}

void
deferred_remove(int mapping, const char *key)
{
	SqlScope scope;

	sql_open(&scope, false);
	SQL_RUN(&scope, "DELETE FROM sfsync.deferred WHERE mapping = $1 AND key = $2", sql_arg_int(mapping),
			sql_arg_text(key));
	sql_close(&scope);
}

/*
 * Records and dead letters
 */

static FieldValueKind
kind_of_json(const char *type)
{
	return strcmp(type, "null") == 0      ? FV_NULL
		   : strcmp(type, "boolean") == 0 ? FV_BOOL
		   : strcmp(type, "number") == 0  ? FV_NUMBER
										  : FV_STRING;
}

static void
take_replaced(SqlScope *scope, uint64 row, RecordRow *record)
{
	int n;
	char **names = sql_texts(scope, row, 5, &record->nreplaced);
	char **types = sql_texts(scope, row, 6, &n);
	char **values = sql_texts(scope, row, 7, &n);

	record->replaced = MemoryContextAllocZero(scope->caller, sizeof(RestField) * Max(record->nreplaced, 1));
	for (int i = 0; i < record->nreplaced; i++)
	{
		FieldValue *value = &record->replaced[i].value;

		record->replaced[i].name = names[i];
		value->kind = kind_of_json(types[i]);
		value->text = values[i] ? pg_server_to_any(values[i], strlen(values[i]), PG_UTF8) : NULL;
		value->boolean = value->kind == FV_BOOL && strcmp(values[i], "true") == 0;
	}
}

#define RECORD_COLUMNS                                                                                                    \
	"r.record_key, r.key, r.salesforce_id, r.memory,"                                                                     \
	" CASE WHEN r.replaced IS NOT NULL THEN ARRAY(SELECT e.key FROM pg_catalog.jsonb_each(r.replaced) e ORDER BY 1) END," \
	" CASE WHEN r.replaced IS NOT NULL THEN ARRAY(SELECT pg_catalog.jsonb_typeof(e.value)"                                \
	" FROM pg_catalog.jsonb_each(r.replaced) e ORDER BY e.key) END,"                                                      \
	" CASE WHEN r.replaced IS NOT NULL THEN ARRAY(SELECT e.value FROM pg_catalog.jsonb_each_text(r.replaced) e"           \
	" ORDER BY e.key) END, r.at_keys, coalesce(r.displaced_by = '0', false)"

/* Key by key: a plan made while the table was small would read all of the mapping each time. */
#define RECORDS_BY_KEY                                                                                       \
	"(SELECT DISTINCT u.k FROM pg_catalog.unnest($2) AS u(k)) u CROSS JOIN LATERAL"                          \
	" (SELECT * FROM sfsync.record WHERE mapping = $1 AND record_key = u.k LIMIT 1) r"

static RecordRow *
take_records(SqlScope *scope, MemoryContext statement, int n)
{
	RecordRow *rows = MemoryContextAllocZero(scope->caller, sizeof(RecordRow) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		uint8 *memory;
		int len;

		rows[i].record_key = sql_text(scope, i, 1);
		rows[i].key = sql_text(scope, i, 2);
		rows[i].salesforce_id = sql_text(scope, i, 3);
		rows[i].expected = rows[i].salesforce_id[0] == '?';
		memory = sql_bytes(scope, i, 4, &len);
		MemoryContextSwitchTo(scope->caller);
		rows[i].memory = memory_read(memory, len);
		MemoryContextSwitchTo(statement);
		take_replaced(scope, i, &rows[i]);
		rows[i].moving = !sql_isnull(i, 8);
		rows[i].at_keys = sql_texts(scope, i, 8, &rows[i].nat);
		rows[i].shares_key = sql_bool(i, 9);
	}
	return rows;
}

RecordRow *
records_of_keys(int mapping, char *const *record_keys, int nkeys, int *n)
{
	SqlScope scope;
	RecordRow *rows;

	sql_open(&scope, false);
	*n = SQL_RUN(&scope,
				 "SELECT " RECORD_COLUMNS " FROM " RECORDS_BY_KEY " WHERE r.salesforce_id NOT LIKE '?%'",
				 sql_arg_int(mapping), sql_arg_texts(record_keys, nkeys));
	rows = take_records(&scope, CurrentMemoryContext, *n);
	sql_close(&scope);
	return rows;
}

static const char by_key_query[] = "SELECT " RECORD_COLUMNS " FROM " RECORDS_BY_KEY;

/*
 * The index on at_keys is asked key by key (for all at once it takes time by
 * their square), and for all mappings: no other is to be read along with it.
 */
#define AT_KEY "(SELECT * FROM sfsync.record WHERE at_keys && ARRAY[u.key] OFFSET 0)"

static const char at_keys_query[] =
	"SELECT " RECORD_COLUMNS " FROM " RECORDS_BY_KEY " UNION ALL SELECT " RECORD_COLUMNS
	" FROM (SELECT DISTINCT o.record_key FROM pg_catalog.unnest($2) AS u(key) CROSS JOIN LATERAL " AT_KEY " o"
	" WHERE o.mapping = $1) m"
	" JOIN sfsync.record r ON r.mapping = $1 AND r.record_key = m.record_key"
	" WHERE r.record_key NOT IN (SELECT pg_catalog.unnest($2))"
	" UNION ALL SELECT " RECORD_COLUMNS " FROM sfsync.record r WHERE r.mapping = $1 AND r.displaced_by = '0'"
	" AND r.key = ANY ($3) AND r.record_key <> ALL ($2) AND NOT r.at_keys && $2";

/* Has the mapping records that Salesforce may have under other keys?  Few have: then bitmaps may be scanned. */
static bool
any_moves(SqlScope *scope, SqlArg mapping)
{
	if (SQL_RUN(
			scope,
			"SELECT FROM sfsync.record WHERE mapping = $1 AND pg_catalog.cardinality(at_keys) >= 0 LIMIT 1",
			mapping) == 0)
		return false;
	sql_allow_bitmaps();
	return true;
}

RecordRow *
records_at_keys(int mapping, char *const *record_keys, char *const *keys, int nkeys, int *n)
{
	SqlScope scope;
	RecordRow *rows;
	SqlArg id = sql_arg_int(mapping);

	sql_open(&scope, false);
	if (any_moves(&scope, id))
		*n =
			SQL_RUN(&scope, at_keys_query, id, sql_arg_texts(record_keys, nkeys), sql_arg_texts(keys, nkeys));
	else
		*n = SQL_RUN(&scope, by_key_query, id, sql_arg_texts(record_keys, nkeys));
	rows = take_records(&scope, CurrentMemoryContext, *n);
	sql_close(&scope);
	return rows;
}

#define OWNERS_BY_ID                                                                                             \
	"SELECT u.i::pg_catalog.int4 - 1, r.record_key, true FROM pg_catalog.unnest($2) WITH ORDINALITY AS u(id, i)" \
	" CROSS JOIN LATERAL (SELECT record_key FROM sfsync.record WHERE mapping = $1 AND salesforce_id = u.id LIMIT 1) r"

static const char by_id_query[] = OWNERS_BY_ID;

static const char owner_query[] = OWNERS_BY_ID
	" UNION ALL"
	" SELECT u.i::pg_catalog.int4 - 1, r.record_key, false FROM pg_catalog.unnest($3) WITH ORDINALITY AS u(key, i)"
	" CROSS JOIN LATERAL " AT_KEY
	" r WHERE r.mapping = $1 AND NOT (r.salesforce_id LIKE '?%' AND r.record_key LIKE ' %')";

RecordOwners *
record_owners(int mapping, char *const *ids, char *const *record_keys, int n)
{
	RecordOwners *owners = palloc0(sizeof(RecordOwners) * Max(n, 1));
	SqlArg id = sql_arg_int(mapping);
	SqlScope scope;
	int found;

	sql_open(&scope, false);
	if (any_moves(&scope, id))
		found = SQL_RUN(&scope, owner_query, id, sql_arg_texts(ids, n), sql_arg_texts(record_keys, n));
	else
		found = SQL_RUN(&scope, by_id_query, id, sql_arg_texts(ids, n));
	for (int i = 0; i < found; i++)
	{
		RecordOwners *its = &owners[sql_int(i, 1)];
		char *row = sql_text(&scope, i, 2);
		MemoryContext statement = MemoryContextSwitchTo(scope.caller);

		if (sql_bool(i, 3))
			its->row = row;
		else
			its->waiting = lappend(its->waiting, row);
		MemoryContextSwitchTo(statement);
	}
	sql_close(&scope);
	return owners;
}

static const char record_put_query[] =
	"INSERT INTO sfsync.record AS r (mapping, record_key, key, salesforce_id, memory)"
	" SELECT $1, u.record_key, u.key, u.id, u.memory FROM unnest($2, $3, $4, $5) AS u(record_key, key, id, memory)"
	" ON CONFLICT (mapping, record_key) DO UPDATE SET key = excluded.key, salesforce_id = excluded.salesforce_id,"
	" memory = excluded.memory WHERE r.key <> excluded.key OR r.salesforce_id <> excluded.salesforce_id"
	" OR r.memory IS DISTINCT FROM excluded.memory";

void
record_put(int mapping, char *const *record_keys, char *const *keys, char *const *salesforce_ids,
		   Memory *const *memories, int n)
{
	SqlScope scope;
	uint8 **bytes = palloc0(sizeof(uint8 *) * Max(n, 1));
	int *lengths = palloc0(sizeof(int) * Max(n, 1));

	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
		if (memories[i])
			bytes[i] = memory_write(memories[i], &lengths[i]);
	sql_open(&scope, false);
	SQL_RUN(&scope, record_put_query, sql_arg_int(mapping), sql_arg_texts(record_keys, n),
			sql_arg_texts(keys, n), sql_arg_texts(salesforce_ids, n), sql_arg_byteas(bytes, lengths, n));
	sql_close(&scope);
}

static const char record_meet_query[] =
	"INSERT INTO sfsync.record AS r (mapping, record_key, key, salesforce_id, at_keys)"
	" SELECT $1, u.record_key, u.key, u.id, CASE WHEN u.at_key <> u.record_key THEN ARRAY[u.at_key] END"
	" FROM unnest($2, $3, $4, $5) AS u(record_key, key, id, at_key)"
	" ON CONFLICT (mapping, record_key) DO UPDATE SET key = excluded.key, salesforce_id = excluded.salesforce_id,"
	" memory = NULL, replaced = NULL, at_keys = excluded.at_keys WHERE r.salesforce_id <> excluded.salesforce_id";

void
record_meet(int mapping, char *const *record_keys, char *const *keys, char *const *salesforce_ids,
			char *const *at_keys, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope, false);
	SQL_RUN(&scope, record_meet_query, sql_arg_int(mapping), sql_arg_texts(record_keys, n),
			sql_arg_texts(keys, n), sql_arg_texts(salesforce_ids, n), sql_arg_texts(at_keys, n));
	sql_close(&scope);
}

void
record_forget(int mapping, const char *record_key)
{
	SqlScope scope;

	sql_open(&scope, false);
	SQL_RUN(&scope, "DELETE FROM sfsync.record WHERE mapping = $1 AND record_key = $2", sql_arg_int(mapping),
			sql_arg_text(record_key));
	sql_close(&scope);
}

void
record_replaced(int mapping, const char *record_key, const char *replaced)
{
	SqlScope scope;

	sql_open(&scope, false);
	SQL_RUN(&scope, "UPDATE sfsync.record SET replaced = $3 WHERE mapping = $1 AND record_key = $2",
			sql_arg_int(mapping), sql_arg_text(record_key), sql_arg_jsonb(replaced));
	sql_close(&scope);
}

/*
 * Key changes.  What is known of a record goes with its row at once; at_keys
 * remembers under which keys Salesforce may still have it.  A record whose
 * place is taken is kept out of place: a blank leads its record key, as in no
 * other.  It may be there for good (its row is gone, and the record is not), or
 * until its own row's key change comes (displaced_by), or because Salesforce
 * takes the two rows' keys for one (displaced_by is 0).
 */

static const char overlapped_query[] =
	"SELECT record_key FROM sfsync.record WHERE mapping = $1 AND key = $2 AND displaced_by IS NOT NULL"
	" AND displaced_by <> '0' AND displaced_by = coalesce($3, displaced_by) LIMIT 1";

static const char mover_query[] =
	"SELECT record_key FROM sfsync.record WHERE mapping = $1 AND record_key = $3 AND key = $2"
	" UNION ALL SELECT record_key FROM sfsync.record WHERE mapping = $1 AND key = $2 AND displaced_by = '0'";

/* Record key under which the record is stored; NULL if it isn't known. */
static char *
find_mover(SqlScope *scope, const RecordMove *move, bool *overlapped)
{
	SqlArg mapping = sql_arg_int(move->mapping);
	SqlArg from = sql_arg_text(move->from);

	*overlapped =
		move->overlaps && SQL_RUN(scope, overlapped_query, mapping, from, sql_arg_xid(move->xid)) > 0;
	if (*overlapped || SQL_RUN(scope, mover_query, mapping, from, sql_arg_text(move->from_record_key)) > 0)
		return sql_text(scope, 0, 1);
	return NULL;
}

static const char displace_query[] =
	"UPDATE sfsync.record SET record_key = ' ' || salesforce_id, displaced_by = $4,"
	" at_keys = coalesce(at_keys, ARRAY[record_key])"
	" WHERE mapping = $1 AND record_key = $2 AND key = $3 AND record_key IS DISTINCT FROM $5";

static const char taken_query[] = "SELECT FROM sfsync.record WHERE mapping = $1 AND record_key = $2"
								  " AND record_key <> $3";

static const char move_query[] =
	"UPDATE sfsync.record SET record_key = CASE WHEN $5 THEN ' ' || salesforce_id ELSE $3 END, key = $4,"
	" displaced_by = CASE WHEN $5 THEN '0'::pg_catalog.xid8 END,"
	" at_keys = CASE WHEN coalesce(at_keys, ARRAY[record_key]) <> ARRAY[$3] THEN coalesce(at_keys, ARRAY[record_key])"
	" WHEN NOT $6 THEN ARRAY[$3, ''] END"
	" WHERE mapping = $1 AND record_key = $2";

bool
record_move(const RecordMove *move)
{
	SqlScope scope;
	SqlArg mapping = sql_arg_int(move->mapping);
	SqlArg to_record_key = sql_arg_text(move->to_record_key);
	bool overlapped = false;
	bool taken;
	char *mover;

	sql_open(&scope, false);
	mover = find_mover(&scope, move, &overlapped);
	SQL_RUN(&scope, displace_query, mapping, to_record_key, sql_arg_text(move->to),
			sql_arg_xid(Max(move->xid, 1)), sql_arg_text(mover));
	if (mover)
	{
		taken = SQL_RUN(&scope, taken_query, mapping, to_record_key, sql_arg_text(mover)) > 0;
		SQL_RUN(&scope, move_query, mapping, sql_arg_text(mover), to_record_key, sql_arg_text(move->to),
				sql_arg_bool(taken), sql_arg_bool(move->case_sensitive));
	}
	sql_close(&scope);
	return overlapped;
}

bool
record_is_overlapped(const RecordMove *move)
{
	SqlScope scope;
	bool overlapped;

	if (!move->overlaps)
		return false;
	sql_open(&scope, false);
	overlapped = SQL_RUN(&scope, overlapped_query, sql_arg_int(move->mapping), sql_arg_text(move->from),
						 sql_arg_xid(move->xid)) > 0;
	sql_close(&scope);
	return overlapped;
}

static const char expect_query[] =
	"INSERT INTO sfsync.record (mapping, record_key, key, salesforce_id, at_keys)"
	" VALUES ($1, $2, $3, '?' || pg_catalog.gen_random_uuid(), $4) ON CONFLICT (mapping, record_key) DO NOTHING";

void
record_expect(int mapping, const char *record_key, const char *key, char *const *at_keys, int n)
{
	SqlScope scope;

	sql_open(&scope, false);
	SQL_RUN(&scope, expect_query, sql_arg_int(mapping), sql_arg_text(record_key), sql_arg_text(key),
			sql_arg_texts(at_keys, n));
	sql_close(&scope);
}

static const char split_query[] =
	"INSERT INTO sfsync.record (mapping, record_key, key, salesforce_id, at_keys)"
	" SELECT mapping, $3, $4, '?' || pg_catalog.gen_random_uuid(), ARRAY[record_key] || at_keys"
	" FROM sfsync.record WHERE mapping = $1 AND record_key = $2 AND salesforce_id LIKE '?%'"
	" ON CONFLICT (mapping, record_key) DO NOTHING";

bool
record_split(const RecordMove *move)
{
	SqlScope scope;
	SqlArg mapping = sql_arg_int(move->mapping);
	bool split = false;

	if (record_is_overlapped(move))
		return false;
	sql_open(&scope, false);
	if (SQL_RUN(&scope,
				"SELECT FROM sfsync.record WHERE mapping = $1 AND record_key = $2 AND key = $3"
				" AND salesforce_id LIKE '?%'",
				mapping, sql_arg_text(move->from_record_key), sql_arg_text(move->from)) > 0)
	{
		SQL_RUN(&scope, displace_query, mapping, sql_arg_text(move->to_record_key), sql_arg_text(move->to),
				sql_arg_xid(move->xid), sql_arg_text(NULL));
		split = SQL_RUN(&scope, split_query, mapping, sql_arg_text(move->from_record_key),
						sql_arg_text(move->to_record_key), sql_arg_text(move->to)) > 0;
	}
	sql_close(&scope);
	return split;
}

void
records_nowhere(int mapping, char *const *record_keys, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope, false);
	SQL_RUN(&scope,
			"UPDATE sfsync.record SET at_keys = '{}' WHERE mapping = $1 AND record_key = ANY ($2)"
			" AND salesforce_id LIKE '?%' AND at_keys <> '{}'",
			sql_arg_int(mapping), sql_arg_texts(record_keys, n));
	sql_close(&scope);
}

void
records_not_expected(int mapping, char *const *record_keys, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope, false);
	SQL_RUN(
		&scope,
		"DELETE FROM sfsync.record WHERE mapping = $1 AND record_key = ANY ($2) AND salesforce_id LIKE '?%'",
		sql_arg_int(mapping), sql_arg_texts(record_keys, n));
	sql_close(&scope);
}

bool
record_has_moved(int mapping, const char *record_key)
{
	SqlScope scope;
	bool has;

	sql_open(&scope, false);
	has = SQL_RUN(&scope,
				  "SELECT FROM sfsync.record WHERE mapping = $1 AND record_key = $2 AND at_keys IS NOT NULL",
				  sql_arg_int(mapping), sql_arg_text(record_key)) > 0;
	sql_close(&scope);
	return has;
}

static const char moved_dead_letters_query[] =
	"UPDATE sfsync.dead_letter SET status = 'resolved', resolved_at = pg_catalog.clock_timestamp(),"
	" note = 'the row got another key, and is sent anew under that'"
	" WHERE mapping = $1 AND external_id = ANY ($2) AND status IN ('open', 'retrying')";

static const char moved_conflicts_query[] =
	"UPDATE sfsync.conflict c SET source_key = u.new::jsonb FROM unnest($2, $3) AS u(old, new)"
	" WHERE c.mapping = $1 AND c.source_key = u.old::jsonb AND c.resolution IS NULL";

static const char moved_intents_query[] =
	"UPDATE sfsync.intent i SET keys = i.keys || ARRAY(SELECT u.new FROM unnest($2, $3) AS u(old, new)"
	" WHERE u.old = ANY (i.keys)) WHERE i.mapping = $1 AND i.state <> 'in_flight' AND i.keys && $2";

void
keys_moved(const Mapping *mapping, char *const *from, char *const *to, int n)
{
	char **old_keys = palloc(sizeof(char *) * Max(n, 1));
	char **new_keys = palloc(sizeof(char *) * Max(n, 1));
	SqlScope scope;

	for (int i = 0; i < n; i++)
	{
		old_keys[i] = source_key_json(mapping, from[i]);
		new_keys[i] = source_key_json(mapping, to[i]);
	}
	sql_open(&scope, false);
	SQL_RUN(&scope, moved_dead_letters_query, sql_arg_text(mapping->name), sql_arg_texts(from, n));
	SQL_RUN(&scope, moved_conflicts_query, sql_arg_text(mapping->name), sql_arg_texts(old_keys, n),
			sql_arg_texts(new_keys, n));
	SQL_RUN(&scope, moved_intents_query, sql_arg_int(mapping->id), sql_arg_texts(from, n),
			sql_arg_texts(to, n));
	sql_close(&scope);
}

static const char may_have_query[] =
	"UPDATE sfsync.record r SET at_keys = coalesce(r.at_keys, ARRAY[r.record_key]) || u.key"
	" FROM unnest($2, $3, $4) AS u(record_key, id, key) WHERE r.mapping = $1 AND r.record_key = u.record_key"
	" AND r.salesforce_id = u.id AND (r.at_keys IS NULL OR u.key <> ALL (r.at_keys))";

void
records_may_have(int mapping, char *const *record_keys, char *const *ids, char *const *keys, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope, false);
	SQL_RUN(&scope, may_have_query, sql_arg_int(mapping), sql_arg_texts(record_keys, n),
			sql_arg_texts(ids, n), sql_arg_texts(keys, n));
	sql_close(&scope);
}

static const char have_own_query[] =
	"UPDATE sfsync.record r SET at_keys = NULL, displaced_by = NULL FROM unnest($2, $3) AS u(record_key, id)"
	" WHERE r.mapping = $1 AND r.record_key = u.record_key AND r.salesforce_id = u.id";

void
records_have_own(int mapping, char *const *record_keys, char *const *ids, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope, false);
	SQL_RUN(&scope, have_own_query, sql_arg_int(mapping), sql_arg_texts(record_keys, n),
			sql_arg_texts(ids, n));
	sql_close(&scope);
}

static const char have_none_query[] =
	"UPDATE sfsync.record r SET at_keys = '{}' FROM unnest($2, $3) AS u(record_key, id)"
	" WHERE r.mapping = $1 AND r.record_key = u.record_key AND r.salesforce_id = u.id";

void
records_have_none(int mapping, char *const *record_keys, char *const *ids, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope, false);
	SQL_RUN(&scope, have_none_query, sql_arg_int(mapping), sql_arg_texts(record_keys, n),
			sql_arg_texts(ids, n));
	sql_close(&scope);
}

/*
 * Intents
 */

int64
intent_add(int mapping, const char *operation, char *const *keys, int nkeys, char *const *fields, int nfields)
{
	SqlScope scope;
	int64 id;

	sql_open(&scope, false);
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

	sql_open(&scope, false);
	*n = SQL_RUN(&scope,
				 "SELECT keys, fields, sent_at, state = 'verifying' FROM sfsync.intent WHERE mapping = $1"
				 " AND state <> 'in_flight' AND keys && $2",
				 sql_arg_int(mapping), sql_arg_texts(keys, nkeys));
	rows = MemoryContextAllocZero(scope.caller, sizeof(IntentRow) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		rows[i].keys = sql_texts(&scope, i, 1, &rows[i].nkeys);
		rows[i].fields = sql_texts(&scope, i, 2, &rows[i].nfields);
		rows[i].sent_at = sql_time(i, 3);
		rows[i].verifying = sql_bool(i, 4);
	}
	sql_close(&scope);
	return rows;
}

void
intent_remove(int64 id)
{
	SqlScope scope;

	sql_open(&scope, false);
	SQL_RUN(&scope, "DELETE FROM sfsync.intent WHERE id = $1", sql_arg_bigint(id));
	sql_close(&scope);
}

void
intent_unknown(int64 id)
{
	SqlScope scope;

	sql_open(&scope, false);
	SQL_RUN(&scope, "UPDATE sfsync.intent SET state = 'unknown' WHERE id = $1", sql_arg_bigint(id));
	sql_close(&scope);
}

void
intents_of_dead_worker(void)
{
	SqlScope scope;

	sql_open(&scope, false);
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
	sql_open(&scope, false);
	SQL_RUN(&scope, deleted_query, sql_arg_int(mapping), sql_arg_texts(keys, n));
	sql_close(&scope);
}

static const char verify_query[] =
	"WITH old AS (UPDATE sfsync.intent SET state = 'verifying' WHERE state = 'unknown' AND sent_at <= $1 RETURNING *)"
	" INSERT INTO sfsync.deferred AS d (mapping, key, state, reason, due_at, attempts, whole, whole_at, deleted,"
	" first_event_at, event_at, xid)"
	" SELECT o.mapping, k.key, 'waiting', 'looked at again: the reply to a request never came',"
	" pg_catalog.clock_timestamp(), 0, true, '-infinity', pg_catalog.bool_or(o.operation = 'delete'),"
	" pg_catalog.min(o.sent_at), pg_catalog.max(o.sent_at), pg_catalog.pg_current_xact_id()"
	" FROM old o, pg_catalog.unnest(o.keys) AS k(key) GROUP BY o.mapping, k.key"
	" ON CONFLICT (mapping, key) DO UPDATE SET whole = true, whole_at = coalesce(d.whole_at, '-infinity'),"
	" deleted = d.deleted OR excluded.deleted";

/* Where it set a key, that of the record isn't certain. */
static const char verify_keys_query[] =
	"UPDATE sfsync.record r SET at_keys = coalesce(r.at_keys, ARRAY[r.record_key]) || ''::pg_catalog.text"
	" FROM sfsync.intent i JOIN sfsync.mapping m ON m.id = i.mapping WHERE i.state = 'unknown' AND i.sent_at <= $1"
	" AND m.external_id = ANY (i.fields) AND r.mapping = i.mapping AND r.key = ANY (i.keys)";

/* Those that were looked at are over once nothing of theirs waits any more, or for too long. */
static const char verified_query[] =
	"DELETE FROM sfsync.intent i WHERE i.state = 'verifying' AND i.sent_at <= $1 AND (NOT EXISTS"
	" (SELECT FROM sfsync.deferred d WHERE d.mapping = i.mapping AND d.key = ANY (i.keys) AND d.state = 'waiting')"
	" OR i.sent_at <= $1 - interval '1 hour')";

static const char next_verify_query[] =
	"SELECT pg_catalog.min(CASE state WHEN 'unknown' THEN sent_at ELSE $1 + interval '10 s' END)"
	" FROM sfsync.intent WHERE state <> 'in_flight'";

TimestampTz
intents_verify(TimestampTz before)
{
	SqlScope scope;
	TimestampTz next;

	sql_open(&scope, false);
	SQL_RUN(&scope, verified_query, sql_arg_time(before));
	SQL_RUN(&scope, verify_keys_query, sql_arg_time(before));
	SQL_RUN(&scope, verify_query, sql_arg_time(before));
	SQL_RUN(&scope, next_verify_query, sql_arg_time(before));
	next = sql_time(0, 1);
	sql_close(&scope);
	return next;
}

/*
 * Backfills
 */

static bool
tells_of(const uint8 *changed, int len, int attnum)
{
	int bit = attnum - 1;

	return bit / 8 < len && (changed[bit / 8] & (1 << (bit % 8))) != 0;
}

BackfillJob *
backfills_running(int *n)
{
	SqlScope scope;
	BackfillJob *jobs;

	sql_open(&scope, false);
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
		if (jobs[i].changed && tells_of(jobs[i].changed, jobs[i].changed_len, MAPPING_FILTER_ATTNUM))
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

	sql_open(&scope, false);
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

	sql_open(&scope, false);
	SQL_RUN(&scope,
			"UPDATE sfsync.backfill_job SET state = 'failed', finished_at = pg_catalog.clock_timestamp()"
			" WHERE id = $1 AND state = 'running'",
			sql_arg_bigint(id));
	sql_close(&scope);
}

/* rows_total is what was counted at the start: more may have come, or some gone. */
static const char advance_query[] =
	"UPDATE sfsync.backfill_job SET last_key = coalesce($2, last_key), rows_done = rows_done + $3,"
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

	sql_open(&scope, false);
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

/*
 * State
 */

void
mapping_state_add(int mapping, const MappingCounters *counters)
{
	SqlScope scope;

	sql_open(&scope, false);
	SQL_RUN(
		&scope,
		"INSERT INTO sfsync.mapping_state AS s (mapping, synced, unchanged, ignored, last_synced_at, last_error)"
		" SELECT id, $2, $3, $4, $5, $6 FROM sfsync.mapping WHERE id = $1"
		" ON CONFLICT (mapping) DO UPDATE SET synced = s.synced + $2, unchanged = s.unchanged + $3,"
		" ignored = s.ignored + $4, last_synced_at = coalesce($5, s.last_synced_at),"
		" last_error = coalesce($6, s.last_error)",
		sql_arg_int(mapping), sql_arg_bigint(counters->synced), sql_arg_bigint(counters->unchanged),
		sql_arg_bigint(counters->ignored), sql_arg_time(counters->last_synced_at),
		sql_arg_text(counters->last_error));
	sql_close(&scope);
}

void
mapping_state_blocked(int mapping, const char *reason, TimestampTz until)
{
	SqlScope scope;

	sql_open(&scope, false);
	SQL_RUN(&scope,
			"INSERT INTO sfsync.mapping_state AS s (mapping, blocked, blocked_until, last_error)"
			" SELECT id, $2, $3, $2 FROM sfsync.mapping WHERE id = $1"
			" ON CONFLICT (mapping) DO UPDATE SET blocked = $2, blocked_until = $3,"
			" last_error = coalesce($2, s.last_error)",
			sql_arg_int(mapping), sql_arg_text(reason), sql_arg_time(until));
	sql_close(&scope);
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
	sql_open(&scope, false);
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

	sql_open(&scope, false);
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

	sql_open(&scope, false);
	SQL_RUN(&scope,
			"UPDATE sfsync.object SET fetched_at = pg_catalog.clock_timestamp(), refresh = false"
			" WHERE server = $1 AND object = $2",
			sql_arg_name(server), sql_arg_text(object));
	sql_close(&scope);
	mapping_changed(InvalidOid);
}
