/*
 * bulk_store.c
 *		Bulk jobs and their rows in tables, so that a worker that starts finds
 *		them.
 *
 * A row holds what its unit was: the events that it settles, and what is
 * remembered of the record once it is written.  Rows leave with the settling of
 * their outcome (settle.c).
 */
#include "compat.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "bulk_job.h"
#include "datum.h"
#include "sql.h"

/* Events as text, "xid.n,xid.n": SQL has nothing to do with them. */
static char *
write_refs(const Unit *unit)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < unit->nrefs; i++)
		appendStringInfo(&text, "%s" UINT64_FORMAT ".%d", i > 0 ? "," : "", unit->refs[i].xid,
						 unit->refs[i].n);
	return text.data;
}

static void
read_refs(Unit *unit, const char *text)
{
	char *end;

	while (*text != '\0')
	{
		QueueRef ref;

		ref.xid = strtoull(text, &end, 10);
		if (*end != '.')
			return;
		ref.n = (int32) strtol(end + 1, &end, 10);
		batch_add_ref(unit, ref);
		text = *end == ',' ? end + 1 : end;
	}
}

typedef struct RowArrays
{
	char **keys;
	char **ids;
	char **refs;
	int32 *attempts;
	int32 *flags;
	uint64 *xids;
	TimestampTz *whole_at;
	TimestampTz *changed_at;
	TimestampTz *first_event_at;
	TimestampTz *event_at;
	uint8 **changed;
	int *changed_lengths;
	uint8 **times;
	int *times_lengths;
	uint8 **memories;
	int *memory_lengths;
} RowArrays;

#define FLAG_DEFERRED 1
#define FLAG_DELETED 2
#define FLAG_WHOLE 4
#define FLAG_ROW_REMAINS 8
#define FLAG_INSERTED 16
#define FLAG_RECORD_SETTLED 32
#define FLAG_CAPTURED 64

static void
allocate(RowArrays *arrays, int n)
{
	arrays->keys = palloc0(sizeof(char *) * n);
	arrays->ids = palloc0(sizeof(char *) * n);
	arrays->refs = palloc0(sizeof(char *) * n);
	arrays->attempts = palloc0(sizeof(int32) * n);
	arrays->flags = palloc0(sizeof(int32) * n);
	arrays->xids = palloc0(sizeof(uint64) * n);
	arrays->whole_at = palloc0(sizeof(TimestampTz) * n);
	arrays->changed_at = palloc0(sizeof(TimestampTz) * n);
	arrays->first_event_at = palloc0(sizeof(TimestampTz) * n);
	arrays->event_at = palloc0(sizeof(TimestampTz) * n);
	arrays->changed = palloc0(sizeof(uint8 *) * n);
	arrays->changed_lengths = palloc0(sizeof(int) * n);
	arrays->times = palloc0(sizeof(uint8 *) * n);
	arrays->times_lengths = palloc0(sizeof(int) * n);
	arrays->memories = palloc0(sizeof(uint8 *) * n);
	arrays->memory_lengths = palloc0(sizeof(int) * n);
}

static void
take_row(RowArrays *arrays, int i, const Outcome *outcome)
{
	const Unit *unit = outcome->unit;

	arrays->keys[i] = unit->key;
	arrays->ids[i] = unconstify(char *, outcome->salesforce_id);
	arrays->refs[i] = write_refs(unit);
	arrays->attempts[i] = unit->attempts;
	arrays->flags[i] = (unit->deferred ? FLAG_DEFERRED : 0) | (unit->deleted ? FLAG_DELETED : 0) |
					   (unit->whole ? FLAG_WHOLE : 0) | (outcome->row_remains ? FLAG_ROW_REMAINS : 0) |
					   (unit->inserted ? FLAG_INSERTED : 0) | (unit->captured ? FLAG_CAPTURED : 0) |
					   (outcome->conflicts.record_settled ? FLAG_RECORD_SETTLED : 0);
	arrays->xids[i] = unit->min_xid;
	arrays->whole_at[i] = unit->whole_at;
	arrays->changed_at[i] = unit->changed_at;
	arrays->first_event_at[i] = unit->first_event_at;
	arrays->event_at[i] = unit->event_at;
	arrays->changed[i] = unit->changed;
	arrays->changed_lengths[i] = unit->changed_len;

	/* eight bytes a time, as in memory: a dump comes back to a machine of the same kind, or is adopted */
	arrays->times[i] = (uint8 *) unit->times;
	arrays->times_lengths[i] = unit->times ? unit->changed_len * BITS_PER_BYTE * (int) sizeof(int64) : 0;
	if (outcome->memory)
		arrays->memories[i] = bulk_memory_write(outcome, &arrays->memory_lengths[i]);
}

static const char rows_query[] =
	"INSERT INTO sfsync.bulk_row (job, mapping, key, salesforce_id, events, attempts, flags, xid, whole_at,"
	" changed_at, first_event_at, event_at, changed, times, memory)"
	" SELECT $1, $2, u.* FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
	" AS u(key, salesforce_id, events, attempts, flags, xid, whole_at, changed_at, first_event_at, event_at,"
	" changed, times, memory)";

int64
bulk_store(BulkJob *job)
{
	SqlScope scope;
	RowArrays arrays;
	int n = job->n;
	int64 id;

	allocate(&arrays, Max(n, 1));
	for (int i = 0; i < n; i++)
		take_row(&arrays, i, &job->rows[i].outcome);
	sql_open(&scope);
	SQL_RUN(&scope,
			"INSERT INTO sfsync.bulk_job (mapping, server, object, operation, rows)"
			" VALUES ($1, $2, $3, $4, $5) RETURNING id",
			sql_arg_int(job->mapping), sql_arg_name(job->server), sql_arg_text(job->target.object),
			sql_arg_text(bulk_operation_name(job->operation)), sql_arg_int(n));
	id = sql_bigint(0, 1);
	SQL_RUN(&scope, rows_query, sql_arg_bigint(id), sql_arg_int(job->mapping), sql_arg_texts(arrays.keys, n),
			sql_arg_texts(arrays.ids, n), sql_arg_texts(arrays.refs, n), sql_arg_ints(arrays.attempts, n),
			sql_arg_ints(arrays.flags, n), sql_arg_xids(arrays.xids, n), sql_arg_times(arrays.whole_at, n),
			sql_arg_times(arrays.changed_at, n), sql_arg_times(arrays.first_event_at, n),
			sql_arg_times(arrays.event_at, n), sql_arg_byteas(arrays.changed, arrays.changed_lengths, n),
			sql_arg_byteas(arrays.times, arrays.times_lengths, n),
			sql_arg_byteas(arrays.memories, arrays.memory_lengths, n));
	sql_close(&scope);
	return id;
}

void
bulk_store_state(int64 id, const char *state, const char *job)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(
		&scope,
		"UPDATE sfsync.bulk_job SET state = $2, job = coalesce($3, job),"
		" closed_at = CASE WHEN $2 = 'closed' THEN pg_catalog.clock_timestamp() ELSE closed_at END WHERE id = $1",
		sql_arg_bigint(id), sql_arg_text(state), sql_arg_text(job));
	sql_close(&scope);
}

bool
bulk_store_has(int64 id)
{
	SqlScope scope;
	bool found;

	sql_open(&scope);
	found = SQL_RUN(&scope, "SELECT FROM sfsync.bulk_job WHERE id = $1", sql_arg_bigint(id)) > 0;
	sql_close(&scope);
	return found;
}

void
bulk_store_forget_rows(int64 id)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, "DELETE FROM sfsync.bulk_row WHERE job = $1", sql_arg_bigint(id));
	sql_close(&scope);
}

/* Rows left go with it: whatever happens to them doesn't come from the job. */
void
bulk_store_remove(int64 id)
{
	SqlScope scope;

	bulk_store_forget_rows(id);
	sql_open(&scope);
	SQL_RUN(&scope, "DELETE FROM sfsync.bulk_job WHERE id = $1", sql_arg_bigint(id));
	sql_close(&scope);
}

BulkStored *
bulk_stored_jobs(int *n)
{
	SqlScope scope;
	BulkStored *jobs;

	sql_open(&scope);
	*n = SQL_RUN0(&scope, "SELECT id, mapping, server, operation, job, state, closed_at FROM sfsync.bulk_job"
						  " ORDER BY id");
	jobs = MemoryContextAllocZero(scope.caller, sizeof(BulkStored) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		jobs[i].id = sql_bigint(i, 1);
		jobs[i].mapping = sql_int(i, 2);
		jobs[i].server = sql_text(&scope, i, 3);
		jobs[i].operation = sql_text(&scope, i, 4);
		jobs[i].job = sql_text(&scope, i, 5);
		jobs[i].state = sql_text(&scope, i, 6);
		jobs[i].closed_at = sql_time(i, 7);
	}
	sql_close(&scope);
	return jobs;
}

/* The unit of a row, in flight as it was. */
static void
restore_unit(Delivery *delivery, SqlScope *scope, int i, Unit *unit)
{
	int flags = sql_int(i, 5);
	int len;
	int times_len;
	uint8 *changed = sql_bytes(scope, i, 11, &len);
	uint8 *times = sql_bytes(scope, i, 12, &times_len);

	read_refs(unit, sql_text(scope, i, 3));
	unit->attempts = sql_int(i, 4);
	unit->deferred = (flags & FLAG_DEFERRED) != 0;
	unit->deleted = (flags & FLAG_DELETED) != 0;
	unit->inserted = (flags & FLAG_INSERTED) != 0;
	unit->captured = (flags & FLAG_CAPTURED) != 0;
	if (sql_time(i, 7) != 0)
		batch_add_whole(unit, sql_time(i, 7));
	unit->whole = (flags & FLAG_WHOLE) != 0;
	if (times_len == len * BITS_PER_BYTE * (int) sizeof(int64))
		batch_add_times(unit, changed, len, (const int64 *) times);
	else if (len > 0)
		batch_add_changed(unit, changed, len, sql_time(i, 8));
	unit->min_xid = sql_xid(i, 6);
	unit->first_event_at = sql_time(i, 9);
	unit->event_at = sql_time(i, 10);
	unit->restored = true;
	batch_start(unit);
}

void
bulk_stored_rows(Delivery *delivery, BulkJob *job)
{
	SqlScope scope;
	int n;
	MemoryContext statement;

	sql_open(&scope);
	statement = CurrentMemoryContext;
	n = SQL_RUN(
		&scope,
		"SELECT key, salesforce_id, events, attempts, flags, xid, whole_at, changed_at, first_event_at,"
		" event_at, changed, times, memory FROM sfsync.bulk_row WHERE job = $1",
		sql_arg_bigint(job->id));
	for (int i = 0; i < n; i++)
	{
		char *key = sql_text(&scope, i, 1);
		char *id = sql_text(&scope, i, 2);
		int len;
		uint8 *memory = sql_bytes(&scope, i, 13, &len);
		Unit *unit;
		BulkRow *row;

		MemoryContextSwitchTo(delivery->context);
		unit = batch_unit(delivery->work, job->mapping, key);
		restore_unit(delivery, &scope, i, unit);
		MemoryContextSwitchTo(job->context);
		row = bulk_job_add(job, rest_record_key(datum_key_utf8(key), job->case_sensitive), id);
		row->outcome.unit = unit;
		row->outcome.row_remains = (sql_int(i, 5) & FLAG_ROW_REMAINS) != 0;
		row->outcome.conflicts.record_settled = (sql_int(i, 5) & FLAG_RECORD_SETTLED) != 0;
		bulk_memory_read(&row->outcome, memory, len);
		MemoryContextSwitchTo(statement);
	}
	sql_close(&scope);
}
