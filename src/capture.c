/*
 * capture.c
 *		Row and truncate triggers, and the transaction's buffer of events.
 *
 * A trigger call only notes key, operation, changed columns and time; the
 * queue is written in bulk just before commit or prepare, when deferred
 * triggers have run.  Notes of a rolled back subtransaction are cut off, which
 * is why they can't go to the queue at once: written under a savepoint's xid
 * they would be lost to the transaction's own later part as well.  A buffer
 * over work_mem goes on in a temporary file.
 */
#include "compat.h"

#include "access/attmap.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "storage/buffile.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "batch.h"
#include "capture.h"
#include "datum.h"
#include "sfsync.h"
#include "shmem.h"

/* What a mapping wants to know of a relation's rows. */
typedef struct Target
{
	int mapping;
	int nkeys;
	AttrNumber *keys; /* attribute numbers of the relation at hand */
	Oid *key_types;
	bool fix_settings; /* a key's text depends on them */
	bool *watched;     /* by attribute of the relation at hand */
	AttrNumber *root;  /* its number in the mapped table; NULL: the same */
} Target;

typedef struct Captured
{
	Oid relid; /* hash key */
	bool valid;
	MemoryContext context; /* of targets */
	int ntargets;
	Target *targets;
} Captured;

/* A note in the buffer; key, old key and bitmap follow it. */
typedef struct Note
{
	TimestampTz at;
	int32 mapping;
	int32 key_len;
	int32 old_len;     /* -1: none */
	int32 changed_len; /* -1: none */
	char operation;
} Note;

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
} Notes;

static HTAB *captured_relations = NULL;
static Notes *buffer = NULL; /* in TopTransactionContext */

/*
 * What to capture
 */

static void
forget_targets(Captured *captured)
{
	if (captured->context)
		MemoryContextDelete(captured->context);
	captured->context = NULL;
	captured->targets = NULL;
	captured->ntargets = 0;
}

void
capture_invalidate(Oid relid)
{
	HASH_SEQ_STATUS scan;
	Captured *captured;

	if (!captured_relations)
		return;
	hash_seq_init(&scan, captured_relations);
	while ((captured = hash_seq_search(&scan)) != NULL)
		if (relid == InvalidOid || captured->relid == relid)
			captured->valid = false;
}

static List *
with_ancestors(Relation rel)
{
	List *relids = list_make1_oid(RelationGetRelid(rel));

	if (rel->rd_rel->relispartition)
		relids = list_concat(relids, get_partition_ancestors(RelationGetRelid(rel)));
	return relids;
}

static Datum
oid_array(List *oids)
{
	Datum *values = palloc(sizeof(Datum) * list_length(oids));

	for (int i = 0; i < list_length(oids); i++)
		values[i] = ObjectIdGetDatum(list_nth_oid(oids, i));
	return PointerGetDatum(
		construct_array(values, list_length(oids), OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

/* Elements of a name[]; *n of them. */
static Datum *
name_array(Datum array, int *n)
{
	Datum *names;

	deconstruct_array(DatumGetArrayTypeP(array), NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &names, NULL, n);
	return names;
}

static void
set_keys(Target *target, Relation rel, Datum key_columns)
{
	Datum *names = name_array(key_columns, &target->nkeys);

	target->keys = palloc(sizeof(AttrNumber) * target->nkeys);
	target->key_types = palloc(sizeof(Oid) * target->nkeys);
	for (int i = 0; i < target->nkeys; i++)
	{
		const char *name = NameStr(*DatumGetName(names[i]));

		target->keys[i] = get_attnum(RelationGetRelid(rel), name);
		if (target->keys[i] <= 0)
		{
			/* the key column was dropped or renamed: the worker reports it */
			target->nkeys = 0;
			return;
		}
		target->key_types[i] = TupleDescAttr(RelationGetDescr(rel), target->keys[i] - 1)->atttypid;
		if (datum_needs_fixed_settings(target->key_types[i]))
			target->fix_settings = true;
	}
}

static void
set_watched(Target *target, Relation rel, Oid source, Datum excluded)
{
	TupleDesc desc = RelationGetDescr(rel);
	int nexcluded;
	Datum *names = name_array(excluded, &nexcluded);

	target->watched = palloc0(sizeof(bool) * Max(desc->natts, 1));
	if (source != RelationGetRelid(rel))
		target->root = palloc0(sizeof(AttrNumber) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		target->watched[i] = !attr->attisdropped;
		for (int x = 0; x < nexcluded; x++)
			if (namestrcmp(DatumGetName(names[x]), NameStr(attr->attname)) == 0)
				target->watched[i] = false;
		if (target->root && target->watched[i])
			target->root[i] = get_attnum(source, NameStr(attr->attname));
	}
}

static void
load_target(Target *target, Relation rel, HeapTuple row, TupleDesc desc)
{
	bool isnull;
	Oid source;

	target->mapping = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
	source = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
	set_keys(target, rel, SPI_getbinval(row, desc, 3, &isnull));
	set_watched(target, rel, source, SPI_getbinval(row, desc, 4, &isnull));
}

static const char load_query[] =
	"SELECT m.id, m.source::oid, m.key_columns,"
	" ARRAY(SELECT r.column_name FROM sfsync.rule r WHERE r.mapping = m.id AND r.field IS NULL)"
	" FROM sfsync.mapping m WHERE m.source::oid = ANY($1) ORDER BY m.id";

/*
 * Read the mappings of a relation.  With the latest snapshot: the mapping may
 * have been made after the snapshot of a serializable transaction.
 */
static void
load_targets(Captured *captured, Relation rel)
{
	Oid types[1] = {OIDARRAYOID};
	Datum values[1];
	OwnerContext saved;
	MemoryContext caller = CurrentMemoryContext;

	captured->context =
		AllocSetContextCreate(CacheMemoryContext, "sfsync captured relation", ALLOCSET_SMALL_SIZES);
	sfsync_enter_owner(&saved);
	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	values[0] = oid_array(with_ancestors(rel));
	if (SPI_execute_with_args(load_query, 1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read sfsync.mapping");

	MemoryContextSwitchTo(captured->context);
	captured->targets = palloc0(sizeof(Target) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
		load_target(&captured->targets[i], rel, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	captured->ntargets = SPI_processed;
	MemoryContextSwitchTo(caller);

	SPI_finish();
	PopActiveSnapshot();
	sfsync_leave(&saved);
}

static Captured *
captured_relation(Relation rel)
{
	Oid relid = RelationGetRelid(rel);
	Captured *captured;
	bool found;

	if (!captured_relations)
	{
		HASHCTL ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(Captured)};

		captured_relations = hash_create("sfsync captured relations", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	captured = hash_search(captured_relations, &relid, HASH_ENTER, &found);
	if (!found)
	{
		captured->context = NULL;
		captured->valid = false;
	}
	if (!captured->valid)
	{
		forget_targets(captured);
		captured->valid = true; /* an invalidation while loading clears it again */
		PG_TRY();
		{
			load_targets(captured, rel);
		}
		PG_CATCH();
		{
			captured->valid = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	return captured;
}

/*
 * The buffer
 */

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

static void
cut_buffer(int64 length)
{
	if (length < buffer->file_length)
	{
		buffer->file_length = length;
		resetStringInfo(&buffer->memory);
	}
	else
	{
		buffer->memory.len = length - buffer->file_length;
		buffer->memory.data[buffer->memory.len] = '\0';
	}
}

static void
append_note(int mapping, char operation, const char *key, const char *old_key, const uint8 *changed,
			int changed_len)
{
	Note note = {0};

	make_buffer();
	note.at = GetCurrentTimestamp();
	note.mapping = mapping;
	note.operation = operation;
	note.key_len = strlen(key);
	note.old_len = old_key ? (int) strlen(old_key) : -1;
	note.changed_len = changed_len;
	appendBinaryStringInfo(&buffer->memory, (char *) &note, sizeof(note));
	appendBinaryStringInfo(&buffer->memory, key, note.key_len);
	if (old_key)
		appendBinaryStringInfo(&buffer->memory, old_key, note.old_len);
	if (changed_len > 0)
		appendBinaryStringInfo(&buffer->memory, (const char *) changed, changed_len);
	if (buffer->memory.len > work_mem * (int64) 1024)
		spill();
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
#define QUEUE_COLUMNS 9

typedef struct Writer
{
	Relation queue;
	Relation index;
	IndexInfo *index_info;
	BulkInsertState bulk;
	MemoryContext context; /* of one batch */
	TupleTableSlot *slots[INSERT_BATCH];
	int nslots;
	int max_slots;
	FullTransactionId xid;
	Oid actor;
	int32 n;
} Writer;

static void
write_batch(Writer *writer)
{
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];

	table_multi_insert(writer->queue, writer->slots, writer->nslots, GetCurrentCommandId(true), 0,
					   writer->bulk);
	for (int i = 0; i < writer->nslots; i++)
	{
		TupleTableSlot *slot = writer->slots[i];

		FormIndexDatum(writer->index_info, slot, NULL, values, nulls);
		(void) index_insert(writer->index, values, nulls, &slot->tts_tid, writer->queue, UNIQUE_CHECK_NO,
							false, writer->index_info);
		ExecClearTuple(slot);
	}
	writer->nslots = 0;
	MemoryContextReset(writer->context);
}

static Datum
bytes_datum(const char *bytes, int len)
{
	bytea *value = palloc(VARHDRSZ + len);

	SET_VARSIZE(value, VARHDRSZ + len);
	memcpy(VARDATA(value), bytes, len);
	return PointerGetDatum(value);
}

static void
write_note(const Note *note, const char *data, void *arg)
{
	Writer *writer = arg;
	TupleTableSlot *slot;
	MemoryContext caller;

	if (writer->nslots == writer->max_slots)
		writer->slots[writer->max_slots++] =
			MakeSingleTupleTableSlot(RelationGetDescr(writer->queue), table_slot_callbacks(writer->queue));
	slot = writer->slots[writer->nslots++];
	caller = MemoryContextSwitchTo(writer->context);

	memset(slot->tts_isnull, false, QUEUE_COLUMNS * sizeof(bool));
	slot->tts_values[0] = FullTransactionIdGetDatum(writer->xid);
	slot->tts_values[1] = TimestampTzGetDatum(note->at);
	slot->tts_values[2] = Int32GetDatum(writer->n++);
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
	ExecStoreVirtualTuple(slot);
	MemoryContextSwitchTo(caller);
	if (writer->nslots == INSERT_BATCH)
		write_batch(writer);
}

static int
note_data_length(const Note *note)
{
	return note->key_len + Max(note->old_len, 0) + Max(note->changed_len, 0);
}

static void
read_file(void *into, size_t size)
{
	if (BufFileRead(buffer->file, into, size) != size)
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not read the temporary file of captured changes")));
}

typedef void (*NoteFunction)(const Note *note, const char *data, void *arg);

/* Every note in the order of its making. */
static void
each_note(NoteFunction function, void *arg)
{
	int64 at = 0;
	StringInfoData data;

	initStringInfo(&data);
	if (buffer->file_length > 0)
		seek(0);
	while (at < buffer->file_length)
	{
		Note note;

		read_file(&note, sizeof(note));
		resetStringInfo(&data);
		enlargeStringInfo(&data, note_data_length(&note));
		read_file(data.data, note_data_length(&note));
		function(&note, data.data, arg);
		at += sizeof(note) + note_data_length(&note);
	}
	for (at = 0; at < buffer->memory.len;)
	{
		Note note;

		memcpy(&note, buffer->memory.data + at, sizeof(note));
		function(&note, buffer->memory.data + at + sizeof(note), arg);
		at += sizeof(note) + note_data_length(&note);
	}
	pfree(data.data);
}

typedef struct Showing
{
	CaptureFunction show;
	void *arg;
} Showing;

static void
show_note(const Note *note, const char *data, void *arg)
{
	Showing *showing = arg;
	const char *old_key = data + note->key_len;
	WorkEvent event = {0};

	event.mapping = note->mapping;
	event.operation = note->operation;
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
	Showing showing = {show, arg};

	if (buffer)
		each_note(show_note, &showing);
}

/*
 * Write what the transaction captured into the queue.  Straight into table and
 * index, as COPY does: nobody has triggers or rules there, and the transaction
 * needs no rights on it.
 */
static void
flush_buffer(void)
{
	Oid queue = sfsync_relation("queue");
	Oid index = sfsync_relation("queue_order");
	Writer *writer;

	if (!OidIsValid(queue) || !OidIsValid(index))
		return; /* the extension was dropped by this very transaction */
	PushActiveSnapshot(GetTransactionSnapshot());
	writer = palloc0(sizeof(Writer));
	writer->queue = table_open(queue, RowExclusiveLock);
	writer->index = index_open(index, RowExclusiveLock);
	writer->index_info = BuildIndexInfo(writer->index);
	writer->bulk = buffer_length() > 64 * 1024 ? GetBulkInsertState() : NULL;
	writer->context =
		AllocSetContextCreate(CurrentMemoryContext, "sfsync queue rows", ALLOCSET_DEFAULT_SIZES);
	writer->xid = GetTopFullTransactionId();
	writer->actor = GetSessionUserId();

	each_note(write_note, writer);
	if (writer->nslots > 0)
		write_batch(writer);

	for (int i = 0; i < writer->max_slots; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	if (writer->bulk)
	{
		table_finish_bulk_insert(writer->queue, 0);
		FreeBulkInsertState(writer->bulk);
	}
	MemoryContextDelete(writer->context);
	index_close(writer->index, RowExclusiveLock);
	table_close(writer->queue, RowExclusiveLock);
	pfree(writer);
	PopActiveSnapshot();
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

/*
 * Triggers
 */

static char *
row_key(const Target *target, TupleTableSlot *slot)
{
	char **parts = palloc(sizeof(char *) * target->nkeys);
	OwnerContext saved;

	if (target->fix_settings)
		sfsync_enter_user(GetUserId(), &saved);
	for (int i = 0; i < target->nkeys; i++)
	{
		bool isnull;
		Datum value = slot_getattr(slot, target->keys[i], &isnull);

		if (isnull)
			ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
							errmsg("null value in a key column of a table that is mapped to Salesforce"),
							errhint("Key columns of a mapping must be NOT NULL.")));
		parts[i] = datum_key_text(value, target->key_types[i]);
	}
	if (target->fix_settings)
		sfsync_leave(&saved);
	return key_join(parts, target->nkeys);
}

static bool
attribute_differs(TupleTableSlot *old, TupleTableSlot *new, int i)
{
	Form_pg_attribute attr = TupleDescAttr(new->tts_tupleDescriptor, i);

	if (old->tts_isnull[i] != new->tts_isnull[i])
		return true;
	if (old->tts_isnull[i])
		return false;
	return !datum_image_eq(old->tts_values[i], new->tts_values[i], attr->attbyval, attr->attlen);
}

/* Bitmap of what changed, by number in the mapped table; length 0 if nothing did. */
static int
changed_columns(const Target *target, TupleTableSlot *old, TupleTableSlot *new, uint8 *bitmap)
{
	int natts = new->tts_tupleDescriptor->natts;
	int len = 0;

	slot_getallattrs(old);
	slot_getallattrs(new);
	for (int i = 0; i < natts; i++)
	{
		int attnum;

		if (!target->watched[i] || !attribute_differs(old, new, i))
			continue;
		attnum = target->root ? target->root[i] : i + 1;
		if (attnum <= 0)
			continue;
		bitmap[(attnum - 1) / 8] |= 1 << ((attnum - 1) % 8);
		len = Max(len, (attnum - 1) / 8 + 1);
	}
	return len;
}

static void
capture_update(const Target *target, TupleTableSlot *old, TupleTableSlot *new)
{
	uint8 bitmap[(MaxHeapAttributeNumber + 7) / 8] = {0};
	int len = changed_columns(target, old, new, bitmap);
	bool key_touched = false;
	char *key;
	char *old_key = NULL;

	for (int i = 0; i < target->nkeys; i++)
		if (attribute_differs(old, new, target->keys[i] - 1))
			key_touched = true;
	if (len == 0 && !key_touched)
		return;
	key = row_key(target, new);
	if (key_touched)
	{
		old_key = row_key(target, old);
		if (strcmp(key, old_key) == 0)
			old_key = NULL;
	}
	append_note(target->mapping, old_key ? EVENT_KEY_CHANGE : EVENT_UPDATE, key, old_key, bitmap, len);
}

static void
capture_row(const Target *target, TriggerData *data)
{
	if (target->nkeys == 0)
		return;
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		append_note(target->mapping, EVENT_INSERT, row_key(target, data->tg_trigslot), NULL, NULL, -1);
	else if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		append_note(target->mapping, EVENT_DELETE, row_key(target, data->tg_trigslot), NULL, NULL, -1);
	else
		capture_update(target, data->tg_trigslot, data->tg_newslot);
}

PG_FUNCTION_INFO_V1(sfsync_capture);

Datum
sfsync_capture(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Captured *captured;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"sfsync.capture\" must be fired AFTER ROW"),
						errhint("sfsync.create_mapping attaches it.")));
	if (!sfsync_capture_enabled)
		return PointerGetDatum(NULL);
	captured = captured_relation(data->tg_relation);
	for (int i = 0; i < captured->ntargets; i++)
		capture_row(&captured->targets[i], data);
	return PointerGetDatum(NULL);
}

PG_FUNCTION_INFO_V1(sfsync_capture_truncate);

Datum
sfsync_capture_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"sfsync.capture_truncate\" must be fired by TRUNCATE"),
						errhint("sfsync.create_mapping attaches it.")));
	if (sfsync_capture_enabled && captured_relation(data->tg_relation)->ntargets > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot truncate table \"%s\": it is mapped to Salesforce",
						RelationGetRelationName(data->tg_relation)),
				 errdetail("TRUNCATE would leave the records of its rows in Salesforce without a trace."),
				 errhint("Use DELETE, or a superuser may set sfsync.capture to off for the transaction.")));
	return PointerGetDatum(NULL);
}
