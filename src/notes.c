/*
 * notes.c
 *		The transaction's buffer of captured changes, and its way into the queue.
 *
 * The queue is written in bulk just before commit or prepare, when deferred
 * triggers have run.  Notes of a rolled back subtransaction are cut off, which
 * is why they can't go to the queue at once: written under a savepoint's xid
 * they would be lost to the transaction's own later part as well.  A buffer
 * over work_mem goes on in a temporary file.
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
#include "storage/buffile.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "batch.h"
#include "capture.h"
#include "guard.h"
#include "notes.h"
#include "queue_row.h"
#include "sfsync.h"
#include "shmem.h"

typedef struct Mark
{
	int level;    /* of the subtransaction */
	int64 length; /* of the buffer when it began */
} Mark;

/* The buffer: a file, empty at most times, and behind it a piece in memory. */
typedef struct Notes
{
	BufFile *file;
	int64 file_length;
	StringInfoData memory;
	int nmarks;
	int max_marks;
	Mark *marks;
	int nmappings; /* that there are deletes of */
	NotedMapping *mappings;
} Notes;

static Notes *buffer = NULL; /* in TopTransactionContext */

static void
make_buffer(void)
{
	MemoryContext caller;

	if (buffer)
		return;
	caller = MemoryContextSwitchTo(TopTransactionContext);
	buffer = palloc0(sizeof(Notes));
	initStringInfo(&buffer->memory);
	MemoryContextSwitchTo(caller);
}

static int64
buffer_length(void)
{
	return buffer ? buffer->file_length + buffer->memory.len : 0;
}

static void
seek(int64 offset)
{
	if (BufFileSeek(buffer->file, 0, offset, SEEK_SET) != 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not seek in the temporary file of captured changes: %m")));
}

/* The file must outlive the subtransaction that happens to fill the memory. */
static void
spill(void)
{
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);

	CurrentResourceOwner = TopTransactionResourceOwner;
	if (!buffer->file)
		buffer->file = BufFileCreateTemp(false);
	seek(buffer->file_length);
	BufFileWrite(buffer->file, buffer->memory.data, buffer->memory.len);
	buffer->file_length += buffer->memory.len;
	resetStringInfo(&buffer->memory);
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(caller);
}

static int
note_data_length(const Note *note)
{
	return note->key_len + Max(note->old_len, 0) + Max(note->changed_len, 0);
}

static void
cut_buffer(int64 length)
{
	if (length < buffer->file_length)
	{
		buffer->file_length = length;
		resetStringInfo(&buffer->memory);
	}
	else
		buffer->memory.len = length - buffer->file_length;
}

static char *
put(char *to, const void *bytes, int len)
{
	if (len > 0)
		memcpy(to, bytes, len);
	return to + Max(len, 0);
}

void
notes_add(int mapping, char operation, const char *key, const char *old_key, const uint8 *changed,
		  int changed_len)
{
	Note note = {0};
	char *to;

	make_buffer();
	note.at = GetCurrentTimestamp();
	note.mapping = mapping;
	note.operation = operation;
	note.key_len = strlen(key);
	note.old_len = old_key ? (int) strlen(old_key) : -1;
	note.changed_len = changed_len;
	enlargeStringInfo(&buffer->memory, sizeof(note) + note_data_length(&note));
	to = put(buffer->memory.data + buffer->memory.len, &note, sizeof(note));
	to = put(to, key, note.key_len);
	to = put(to, old_key, note.old_len);
	to = put(to, changed, changed_len);
	buffer->memory.len = to - buffer->memory.data;
	if (buffer->memory.len > work_mem * (int64) 1024)
		spill();
}

void
notes_add_delete(const NotedMapping *mapping, char operation, const char *key, const char *old_key)
{
	NotedMapping *noted = NULL;

	make_buffer();
	for (int i = 0; i < buffer->nmappings && !noted; i++)
		if (buffer->mappings[i].mapping == mapping->mapping)
			noted = &buffer->mappings[i];
	if (!noted)
	{
		MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);

		buffer->mappings = buffer->mappings
							   ? repalloc(buffer->mappings, sizeof(NotedMapping) * (buffer->nmappings + 1))
							   : palloc(sizeof(NotedMapping));
		noted = &buffer->mappings[buffer->nmappings++];
		MemoryContextSwitchTo(caller);
		*noted = *mapping;
		noted->deletes = 0;
	}
	noted->guard = mapping->guard;
	noted->deletes++;
	notes_add(mapping->mapping, operation, key, old_key, NULL, -1);
}

void
capture_at_subxact(SubXactEvent event)
{
	int level = GetCurrentTransactionNestLevel();
	int64 length = -1;

	/* without a buffer no mark is needed: one that is made later begins empty */
	if (event == SUBXACT_EVENT_PRE_COMMIT_SUB || !buffer)
		return;
	while (buffer->nmarks > 0 && buffer->marks[buffer->nmarks - 1].level >= level)
		length = buffer->marks[--buffer->nmarks].length;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		cut_buffer(length < 0 ? 0 : length);
	if (event != SUBXACT_EVENT_START_SUB)
		return;
	if (buffer->nmarks == buffer->max_marks)
	{
		buffer->max_marks = buffer->max_marks ? buffer->max_marks * 2 : 16;
		buffer->marks = buffer->marks
							? repalloc(buffer->marks, buffer->max_marks * sizeof(Mark))
							: MemoryContextAlloc(TopTransactionContext, buffer->max_marks * sizeof(Mark));
	}
	buffer->marks[buffer->nmarks].level = level;
	buffer->marks[buffer->nmarks++].length = buffer_length();
}

/*
 * Writing the queue
 */

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

static Kept kept;

typedef struct Writer
{
	Relation queue;
	Relation index;
	BulkInsertState bulk;
	int nrows;                 /* of this batch, the open one included */
	int32 first[INSERT_BATCH]; /* n of each */
	Size bytes;                /* of those before the open one, about */
	TupleTableSlot *row;       /* the open one, which may take more events; NULL: none */
	Note note;                 /* its first event */
	const uint8 *changed;      /* of that */
	Size row_bytes;
	int nmore;
	Datum more_keys[QUEUE_ROW_EVENTS - 1];
	Datum more_at[QUEUE_ROW_EVENTS - 1];
	FullTransactionId xid;
	Oid actor;
	int32 n;
	bool *held; /* by buffer->mappings: its deletes are too many to be sent */
	bool *gone; /* its table was dropped: partitions have not left it, but went with it */
} Writer;

void
notes_invalidate(Oid relid)
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

	table_multi_insert(writer->queue, kept.slots, writer->nrows, GetCurrentCommandId(true), 0, writer->bulk);
	for (int i = 0; i < writer->nrows; i++)
	{
		values[1] = Int32GetDatum(writer->first[i]);
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

static bool
noted(const bool *flags, int mapping)
{
	for (int i = 0; i < buffer->nmappings; i++)
		if (buffer->mappings[i].mapping == mapping)
			return flags[i];
	return false;
}

/* The open row takes no more events. */
static void
end_row(Writer *writer)
{
	TupleTableSlot *row = writer->row;
	MemoryContext caller;

	if (!row)
		return;
	caller = MemoryContextSwitchTo(kept.rows);
	row->tts_isnull[9] = row->tts_isnull[10] = writer->nmore == 0;
	if (writer->nmore > 0)
	{
		row->tts_values[9] = PointerGetDatum(
			construct_array(writer->more_keys, writer->nmore, TEXTOID, -1, false, TYPALIGN_INT));
		row->tts_values[10] =
			PointerGetDatum(construct_array(writer->more_at, writer->nmore, TIMESTAMPTZOID,
											sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	}
	ExecStoreVirtualTuple(row);
	MemoryContextSwitchTo(caller);
	writer->row = NULL;
	writer->bytes += writer->row_bytes;
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
	writer->first[writer->nrows - 1] = writer->n;
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

	writer->row = slot;
	writer->note = *note;
	writer->changed =
		note->changed_len > 0 ? (const uint8 *) VARDATA(DatumGetPointer(slot->tts_values[7])) : NULL;
	writer->row_bytes = EMPTY_ROW_BYTES + note_data_length(note);
	writer->nmore = 0;
}

static Size
more_bytes(const Note *note)
{
	return INTALIGN(VARHDRSZ + note->key_len) + sizeof(TimestampTz);
}

/* Does the event differ from the open row's first in key and time only? */
static bool
joins_row(const Writer *writer, const Note *note, const char *data)
{
	return writer->row && note->mapping == writer->note.mapping &&
		   note->operation == writer->note.operation && note->old_len < 0 && writer->note.old_len < 0 &&
		   note->changed_len == writer->note.changed_len &&
		   (note->changed_len <= 0 ||
			memcmp(data + note->key_len, writer->changed, note->changed_len) == 0) &&
		   writer->nmore < QUEUE_ROW_EVENTS - 1 && writer->row_bytes + more_bytes(note) <= ROW_BYTES;
}

static void
join_row(Writer *writer, const Note *note, const char *data)
{
	MemoryContext caller = MemoryContextSwitchTo(kept.rows);

	writer->more_keys[writer->nmore] = bytes_datum(data, note->key_len);
	writer->more_at[writer->nmore++] = TimestampTzGetDatum(note->at);
	writer->row_bytes += more_bytes(note);
	MemoryContextSwitchTo(caller);
}

static void
write_note(const Note *as_noted, const char *data, void *arg)
{
	Writer *writer = arg;
	Note note = *as_noted;

	if (note.operation == EVENT_PARTITION_LEFT && noted(writer->gone, note.mapping))
		return;
	if (note.operation == EVENT_DELETE && noted(writer->held, note.mapping))
		note.operation = EVENT_HELD_DELETE;
	if (joins_row(writer, &note, data))
		join_row(writer, &note, data);
	else
	{
		end_row(writer);
		begin_row(writer, &note, data);
	}
	writer->n++;
}

static void
read_file(void *into, size_t size)
{
	if (BufFileRead(buffer->file, into, size) != size)
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not read the temporary file of captured changes")));
}

/* The note at an offset; its data either in the buffer's memory or read into data. */
static const char *
read_note(int64 at, Note *note, StringInfo data)
{
	if (at >= buffer->file_length)
	{
		const char *start = buffer->memory.data + (at - buffer->file_length);

		memcpy(note, start, sizeof(*note));
		return start + sizeof(*note);
	}
	seek(at);
	read_file(note, sizeof(*note));
	resetStringInfo(data);
	enlargeStringInfo(data, note_data_length(note));
	read_file(data->data, note_data_length(note));
	return data->data;
}

void
notes_each(NoteFunction function, void *arg)
{
	int64 end = buffer_length();
	StringInfoData data;
	Note note;

	initStringInfo(&data);
	for (int64 at = 0; at < end; at += sizeof(note) + note_data_length(&note))
		function(&note, read_note(at, &note, &data), arg);
	pfree(data.data);
}

typedef struct Showing
{
	CaptureFunction show;
	void *arg;
	bool *held; /* by buffer->mappings */
} Showing;

static void
show_note(const Note *note, const char *data, void *arg)
{
	Showing *showing = arg;
	const char *old_key = data + note->key_len;
	WorkEvent event = {0};

	event.mapping = note->mapping;
	event.operation = note->operation;
	if (note->operation == EVENT_DELETE && noted(showing->held, note->mapping))
		event.operation = EVENT_HELD_DELETE;
	event.key = pnstrdup(data, note->key_len);
	event.old_key = note->old_len < 0 ? NULL : pnstrdup(old_key, note->old_len);
	event.changed = (const uint8 *) old_key + Max(note->old_len, 0);
	event.changed_len = note->changed_len;
	event.event_at = note->at;
	showing->show(&event, showing->arg);
}

void
capture_each(CaptureFunction show, void *arg)
{
	int n = buffer ? buffer->nmappings : 0;
	Showing showing = {show, arg, palloc(sizeof(bool) * Max(n, 1))};

	for (int i = 0; i < n; i++)
		showing.held[i] = guard_exceeded(&buffer->mappings[i]) > 0;
	notes_each(show_note, &showing);
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
look_at_mappings(Writer *writer)
{
	writer->held = palloc0(sizeof(bool) * Max(buffer->nmappings, 1));
	writer->gone = palloc0(sizeof(bool) * Max(buffer->nmappings, 1));
	for (int i = 0; i < buffer->nmappings; i++)
	{
		const NotedMapping *mapping = &buffer->mappings[i];

		writer->held[i] = is_held(mapping);
		writer->gone[i] = !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(mapping->source));
	}
}

/*
 * Write what the transaction captured into the queue.  Straight into table and
 * index, as COPY does: nobody has triggers or rules there, and the transaction
 * needs no rights on it.
 */
static void
flush_buffer(void)
{
	Writer writer = {0};

	if (!find_queue())
		return;
	PushActiveSnapshot(GetTransactionSnapshot());
	writer.queue = table_open(kept.queue, RowExclusiveLock);
	writer.index = index_open(kept.index, RowExclusiveLock);
	make_kept(&writer);
	writer.bulk = buffer_length() > 64 * 1024 ? GetBulkInsertState() : NULL;
	writer.xid = GetTopFullTransactionId();
	writer.actor = GetSessionUserId();
	look_at_mappings(&writer);

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

void
capture_at_xact(XactEvent event)
{
	if (!buffer)
		return;
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
	{
		if (buffer_length() > 0)
			flush_buffer();
		if (buffer->file)
			BufFileClose(buffer->file);
		buffer = NULL;
	}
	else if (event == XACT_EVENT_ABORT)
		buffer = NULL; /* memory and file go with the transaction */
}
