/*
 * notes.c
 *		The transaction's buffer of captured changes.
 *
 * The queue is written from it just before commit or prepare, when deferred
 * triggers have run.  Notes of a rolled back subtransaction are cut off, which
 * is why they can't go to the queue at once: written under a savepoint's xid
 * they would be lost to the transaction's own later part as well.  A buffer
 * over work_mem goes on in a temporary file.
 */
#include "compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/buffile.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "capture.h"
#include "enqueue.h"
#include "guard.h"
#include "notes.h"

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

int
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

bool
notes_flagged(const bool *flags, int mapping)
{
	for (int i = 0; i < buffer->nmappings; i++)
		if (buffer->mappings[i].mapping == mapping)
			return flags[i];
	return false;
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
 * Reading
 */

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
	if (note->operation == EVENT_DELETE && notes_flagged(showing->held, note->mapping))
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

void
capture_at_xact(XactEvent event)
{
	if (!buffer)
		return;
	if (event == XACT_EVENT_PRE_COMMIT || event == XACT_EVENT_PRE_PREPARE)
	{
		if (buffer_length() > 0)
			enqueue_notes(buffer_length(), buffer->mappings, buffer->nmappings);
		if (buffer->file)
			BufFileClose(buffer->file);
		buffer = NULL;
	}
	else if (event == XACT_EVENT_ABORT)
		buffer = NULL; /* memory and file go with the transaction */
}
