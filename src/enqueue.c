/*
 * enqueue.c
 *		From the transaction's buffer into the queue, in bulk.
 *
 * Events that differ in key and time only share a row (queue_row.h): what a
 * statement on many rows captures costs little more than the keys.
 */
#include "compat.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "batch.h"
#include "enqueue.h"
#include "guard.h"
#include "notes.h"
#include "queue_row.h"
#include "sfsync.h"
#include "shmem.h"

#define INSERT_BATCH 500
#define BATCH_BYTES (64 * 1024)
#define KEPT_SLOTS 16
#define QUEUE_COLUMNS 11
#define ROW_BYTES 1950      /* four rows fill a page, and none is over what is stored out of line */
#define EMPTY_ROW_BYTES 140 /* at most, with two empty arrays */

/*
 * What writing takes and is the same for each transaction: most write one row,
 * and to make this anew would cost them more than the row.
 */
typedef struct Kept
{
	bool valid; /* nothing has happened to the queue since it was looked up */
	Oid queue;
	Oid index;
	MemoryContext context; /* of what follows; NULL: that isn't made */
	MemoryContext rows;    /* of one batch */
	TupleDesc desc;
	IndexInfo *index_info;
	int nslots;
	TupleTableSlot *slots[INSERT_BATCH];
} Kept;

/* A row that may take more events. */
typedef struct OpenRow
{
	TupleTableSlot *slot; /* NULL: there is none */
	Note note;            /* the first event */
	const uint8 *changed; /* of that */
	Size bytes;           /* about */
	int nmore;
	Datum more_keys[QUEUE_ROW_EVENTS - 1];
	Datum more_at[QUEUE_ROW_EVENTS - 1];
} OpenRow;

typedef struct Writer
{
	Relation queue;
	Relation index;
	BulkInsertState bulk;
	int nrows;  /* of this batch, the open one included */
	Size bytes; /* of those before the open one, about */
	FullTransactionId xid;
	Oid actor;
	int32 n;
	bool *held; /* by mapping that there are deletes of: they are too many to be sent */
	bool *gone; /* its table was dropped: partitions have not left it, but went with it */
} Writer;

static Kept kept;
static OpenRow open_row;          /* too large to be made for each transaction */
static int32 row_n[INSERT_BATCH]; /* n of each row of the batch */

void
enqueue_invalidate(Oid relid)
{
	if (relid == InvalidOid || relid == kept.queue || relid == kept.index)
		kept.valid = false;
}

static void
forget_kept(void)
{
	if (kept.context)
		MemoryContextDelete(kept.context);
	kept.context = NULL;
	kept.nslots = 0;
}

/* False: the extension was dropped by this very transaction. */
static bool
find_queue(void)
{
	if (!kept.valid)
	{
		kept.valid = true; /* an invalidation meanwhile clears it again */
		kept.queue = sfsync_relation("queue");
		kept.index = sfsync_relation("queue_order");
		forget_kept();
	}
	if (OidIsValid(kept.queue) && OidIsValid(kept.index))
		return true;
	kept.valid = false;
	return false;
}

static void
make_kept(const Writer *writer)
{
	MemoryContext context;
	MemoryContext caller;

	if (!kept.valid)
		forget_kept(); /* changed before it was locked */
	if (kept.context)
		return;
	context = AllocSetContextCreate(CurrentMemoryContext, "sfsync queue", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(context);
	kept.desc = CreateTupleDescCopy(RelationGetDescr(writer->queue));
	kept.index_info = BuildIndexInfo(writer->index);
	kept.rows = AllocSetContextCreate(context, "sfsync queue rows", ALLOCSET_START_SMALL_SIZES);
	MemoryContextSwitchTo(caller);
	MemoryContextSetParent(context, CacheMemoryContext);
	kept.context = context;
	kept.valid = true;
}

/* An empty slot; one of a transaction that failed may be full. */
static TupleTableSlot *
next_slot(Writer *writer)
{
	int i = writer->nrows++;

	if (i == kept.nslots)
	{
		MemoryContext caller = MemoryContextSwitchTo(kept.context);

		kept.slots[i] = MakeSingleTupleTableSlot(kept.desc, table_slot_callbacks(writer->queue));
		kept.nslots++;
		MemoryContextSwitchTo(caller);
	}
	return ExecClearTuple(kept.slots[i]);
}

/* The index is on xid and n, which are at hand. */
static void
write_batch(Writer *writer)
{
	MemoryContext caller = MemoryContextSwitchTo(kept.rows);
	Datum values[2] = {FullTransactionIdGetDatum(writer->xid), (Datum) 0};
	bool nulls[2] = {false, false};

	if (writer->nrows == 1)
		table_tuple_insert(writer->queue, kept.slots[0], GetCurrentCommandId(true), 0, writer->bulk);
	else
		table_multi_insert(writer->queue, kept.slots, writer->nrows, GetCurrentCommandId(true), 0,
						   writer->bulk);
	for (int i = 0; i < writer->nrows; i++)
	{
		values[1] = Int32GetDatum(row_n[i]);
		(void) index_insert(writer->index, values, nulls, &kept.slots[i]->tts_tid, writer->queue,
							UNIQUE_CHECK_NO, false, kept.index_info);
		ExecClearTuple(kept.slots[i]);
	}
	writer->nrows = 0;
	writer->bytes = 0;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(kept.rows);
}

static Datum
bytes_datum(const char *bytes, int len)
{
	bytea *value = palloc(VARHDRSZ + len);

	SET_VARSIZE(value, VARHDRSZ + len);
	memcpy(VARDATA(value), bytes, len);
	return PointerGetDatum(value);
}

/* The open row takes no more events. */
static void
end_row(Writer *writer)
{
	TupleTableSlot *slot = open_row.slot;
	MemoryContext caller;

	if (!slot)
		return;
	caller = MemoryContextSwitchTo(kept.rows);
	slot->tts_isnull[9] = slot->tts_isnull[10] = open_row.nmore == 0;
	if (open_row.nmore > 0)
	{
		slot->tts_values[9] = PointerGetDatum(
			construct_array(open_row.more_keys, open_row.nmore, TEXTOID, -1, false, TYPALIGN_INT));
		slot->tts_values[10] =
			PointerGetDatum(construct_array(open_row.more_at, open_row.nmore, TIMESTAMPTZOID,
											sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	}
	ExecStoreVirtualTuple(slot);
	MemoryContextSwitchTo(caller);
	open_row.slot = NULL;
	writer->bytes += open_row.bytes;
	if (writer->nrows == INSERT_BATCH || writer->bytes >= BATCH_BYTES)
		write_batch(writer);
}

static void
begin_row(Writer *writer, const Note *note, const char *data)
{
	TupleTableSlot *slot = next_slot(writer);
	MemoryContext caller = MemoryContextSwitchTo(kept.rows);

	/* a later version's columns are null */
	memset(slot->tts_isnull, true, kept.desc->natts * sizeof(bool));
	memset(slot->tts_isnull, false, QUEUE_COLUMNS * sizeof(bool));
	row_n[writer->nrows - 1] = writer->n;
	slot->tts_values[0] = FullTransactionIdGetDatum(writer->xid);
	slot->tts_values[1] = TimestampTzGetDatum(note->at);
	slot->tts_values[2] = Int32GetDatum(writer->n);
	slot->tts_values[3] = Int32GetDatum(note->mapping);
	slot->tts_values[4] = CharGetDatum(note->operation);
	slot->tts_values[5] = bytes_datum(data, note->key_len);
	data += note->key_len;
	slot->tts_isnull[6] = note->old_len < 0;
	if (note->old_len >= 0)
	{
		slot->tts_values[6] = bytes_datum(data, note->old_len);
		data += note->old_len;
	}
	slot->tts_isnull[7] = note->changed_len < 0;
	if (note->changed_len >= 0)
		slot->tts_values[7] = bytes_datum(data, note->changed_len);
	slot->tts_values[8] = ObjectIdGetDatum(writer->actor);
	MemoryContextSwitchTo(caller);

	open_row.slot = slot;
	open_row.note = *note;
	open_row.changed =
		note->changed_len > 0 ? (const uint8 *) VARDATA(DatumGetPointer(slot->tts_values[7])) : NULL;
	open_row.bytes = EMPTY_ROW_BYTES + note_data_length(note);
	open_row.nmore = 0;
}

static Size
more_bytes(const Note *note)
{
	return INTALIGN(VARHDRSZ + note->key_len) + sizeof(TimestampTz);
}

/* Does the event differ from the open row's first in key and time only? */
static bool
joins_row(const Note *note, const char *data)
{
	const Note *like = &open_row.note;

	return open_row.slot && note->mapping == like->mapping && note->operation == like->operation &&
		   note->old_len < 0 && like->old_len < 0 && note->changed_len == like->changed_len &&
		   (note->changed_len <= 0 ||
			memcmp(data + note->key_len, open_row.changed, note->changed_len) == 0) &&
		   open_row.nmore < QUEUE_ROW_EVENTS - 1 && open_row.bytes + more_bytes(note) <= ROW_BYTES;
}

static void
join_row(const Note *note, const char *data)
{
	MemoryContext caller = MemoryContextSwitchTo(kept.rows);

	open_row.more_keys[open_row.nmore] = bytes_datum(data, note->key_len);
	open_row.more_at[open_row.nmore++] = TimestampTzGetDatum(note->at);
	open_row.bytes += more_bytes(note);
	MemoryContextSwitchTo(caller);
}

static void
write_note(const Note *as_noted, const char *data, void *arg)
{
	Writer *writer = arg;
	Note note = *as_noted;

	if (note.operation == EVENT_PARTITION_LEFT && notes_flagged(writer->gone, note.mapping))
		return;
	if (note.operation == EVENT_DELETE && notes_flagged(writer->held, note.mapping))
		note.operation = EVENT_HELD_DELETE;
	if (joins_row(&note, data))
		join_row(&note, data);
	else
	{
		end_row(writer);
		begin_row(writer, &note, data);
	}
	writer->n++;
}

static bool
is_held(const NotedMapping *mapping)
{
	int64 deleted = guard_exceeded(mapping);

	if (deleted > 0)
		ereport(
			LOG,
			(errmsg(
				 "sfsync: a transaction deletes %lld rows of table \"%s\", more than delete_guard (%d): they are held",
				 (long long) deleted, get_rel_name(mapping->source), mapping->guard),
			 errhint("sfsync.release_deletes sends the deletes, sfsync.discard_deletes gives them up.")));
	return deleted > 0;
}

static void
look_at_mappings(Writer *writer, const NotedMapping *mappings, int n)
{
	writer->held = palloc0(sizeof(bool) * Max(n, 1));
	writer->gone = palloc0(sizeof(bool) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		writer->held[i] = is_held(&mappings[i]);
		writer->gone[i] = !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(mappings[i].source));
	}
}

/*
 * Write what the transaction captured into the queue.  Straight into table and
 * index, as COPY does: nobody has triggers or rules there, and the transaction
 * needs no rights on it.
 */
void
enqueue_notes(int64 bytes, const NotedMapping *mappings, int nmappings)
{
	Writer writer = {0};

	if (!find_queue())
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	writer.queue = table_open(kept.queue, RowExclusiveLock);
	writer.index = index_open(kept.index, RowExclusiveLock);
	make_kept(&writer);
	open_row.slot = NULL;
	writer.bulk = bytes > BATCH_BYTES ? GetBulkInsertState() : NULL;
	writer.xid = GetTopFullTransactionId();
	writer.actor = GetSessionUserId();
	look_at_mappings(&writer, mappings, nmappings);

	notes_each(write_note, &writer);
	end_row(&writer);
	if (writer.nrows > 0)
		write_batch(&writer);

	if (writer.bulk)
	{
		table_finish_bulk_insert(writer.queue, 0);
		FreeBulkInsertState(writer.bulk);
	}
	index_close(writer.index, NoLock);
	table_close(writer.queue, NoLock);
	PopActiveSnapshot();
	if (kept.nslots > KEPT_SLOTS)
		forget_kept();
	shmem_wake_at_commit();
}
