/*
 * reconcile.c
 *		Whose value stays, field by field.
 */
#include "compat.h"

#ifdef FRONTEND
#include "common/logging.h"
#endif

#include "reconcile.h"

#define SECOND INT64CONST(1000000)

/*
 * Memory
 */

#define MEMORY_VERSION 1
#define ENTRY_BYTES 24

static uint64
get_uint64(const uint8 *bytes)
{
	uint64 value = 0;

	for (int i = 0; i < 8; i++)
		value = value << 8 | bytes[i];
	return value;
}

static void
put_uint64(uint8 *bytes, uint64 value)
{
	for (int i = 7; i >= 0; i--, value >>= 8)
		bytes[i] = (uint8) value;
}

Memory
memory_read(const uint8 *bytes, int len)
{
	Memory memory = {0, NULL};

	if (len < 1 || bytes[0] != MEMORY_VERSION || (len - 1) % ENTRY_BYTES != 0)
		return memory;
	memory.n = (len - 1) / ENTRY_BYTES;
	memory.fields = palloc0(sizeof(FieldMemory) * Max(memory.n, 1));
	for (int i = 0; i < memory.n; i++)
	{
		const uint8 *entry = bytes + 1 + i * ENTRY_BYTES;
		int64 at = (int64) get_uint64(entry + 16);

		memory.fields[i].field = get_uint64(entry);
		memory.fields[i].value = get_uint64(entry + 8);
		memory.fields[i].theirs = (at & 1) != 0;
		memory.fields[i].at = at & ~INT64CONST(1);
	}
	return memory;
}

Memory
memory_copy(const Memory *memory)
{
	Memory copy = {memory->n, palloc(sizeof(FieldMemory) * Max(memory->n, 1))};

	for (int i = 0; i < memory->n; i++)
		copy.fields[i] = memory->fields[i];
	return copy;
}

/* The lowest bit of a time, a microsecond, tells whose the value is. */
uint8 *
memory_write(const Memory *memory, int *len)
{
	uint8 *bytes = palloc(1 + memory->n * ENTRY_BYTES);

	bytes[0] = MEMORY_VERSION;
	for (int i = 0; i < memory->n; i++)
	{
		const FieldMemory *field = &memory->fields[i];
		uint8 *entry = bytes + 1 + i * ENTRY_BYTES;

		put_uint64(entry, field->field);
		put_uint64(entry + 8, field->value);
		put_uint64(entry + 16, (uint64) ((field->at & ~INT64CONST(1)) | (field->theirs ? 1 : 0)));
	}
	*len = 1 + memory->n * ENTRY_BYTES;
	return bytes;
}

FieldMemory *
memory_find(const Memory *memory, uint64 field)
{
	for (int i = 0; i < memory->n; i++)
		if (memory->fields[i].field == field)
			return &memory->fields[i];
	return NULL;
}

/* Its entry, made when missing. */
static FieldMemory *
memory_entry(Memory *memory, uint64 field)
{
	FieldMemory *entry = memory_find(memory, field);

	if (entry)
		return entry;
	memory->fields = memory->fields ? repalloc(memory->fields, sizeof(FieldMemory) * (memory->n + 1))
									: palloc(sizeof(FieldMemory));
	entry = &memory->fields[memory->n++];
	memset(entry, 0, sizeof(*entry));
	entry->field = field;
	return entry;
}

void
memory_wrote(Memory *memory, uint64 field, uint64 value, int64 at)
{
	FieldMemory *entry = memory_entry(memory, field);

	entry->value = value;
	entry->theirs = false;
	entry->at = at;
}

int64
memory_last_write(const Memory *memory)
{
	int64 last = 0;

	for (int i = 0; i < memory->n; i++)
		if (!memory->fields[i].theirs)
			last = Max(last, memory->fields[i].at);
	return last;
}

/*
 * Decisions
 */

/* Seconds, rounded down: times before 2000 are negative. */
static int64
second_of(int64 time)
{
	return time / SECOND - (time % SECOND < 0 ? 1 : 0);
}

static bool
later(int64 event_at, int64 theirs_at)
{
	return event_at != RECONCILE_NEVER && second_of(event_at) > second_of(theirs_at);
}

/* Is the record's last change our write of that time? */
static bool
last_change_is(const ReconcileRecord *record, int64 write_at)
{
	return record->by_us && write_at != 0 && second_of(record->modified_at) <= second_of(write_at);
}

/*
 * Or may it be a request whose reply we never saw?  Not if it is a write that
 * we know of and that came after: the record was read before that one.
 */
static bool
last_change_is_intent(const ReconcileRecord *record, int64 last_write)
{
	return record->by_us && record->intent_at != 0 &&
		   second_of(record->modified_at) >= second_of(record->intent_at) &&
		   (second_of(last_write) <= second_of(record->intent_at) ||
			second_of(record->modified_at) > second_of(last_write));
}

/*
 * The value is not the one that we remember.  What our last write set and
 * automation changed in the same moment is still ours; so is what a request set
 * whose reply we never saw.  Returns the time of that write; 0 if it is neither.
 */
static int64
echo_of(const ReconcileRecord *record, const ReconcileField *field, const FieldMemory *entry,
		int64 last_write)
{
	if (entry && !entry->theirs && entry->at == last_write && last_change_is(record, last_write))
		return entry->at;
	return field->in_intent && last_change_is_intent(record, last_write) ? record->modified_at : 0;
}

/*
 * History knows when a value was set, unless it has not got that change: what
 * it tells is then older than what we remember.
 */
static bool
history_decides(const ReconcileRecord *record, const ReconcileField *field, const FieldMemory *entry)
{
	return field->history_at != 0 && field->history_at <= record->modified_at &&
		   (!entry || second_of(field->history_at) > second_of(entry->at));
}

/* The value is known, and when it was set at the latest: history may tell that it was before. */
static bool
remember_earlier(const ReconcileField *field, FieldMemory *entry)
{
	if (!entry->theirs || field->history_at == 0 || field->history_at >= entry->at)
		return false;
	entry->at = field->history_at;
	return true;
}

/* Bring the memory of one field up to date; true if it changed. */
static bool
remember(const ReconcileRecord *record, const ReconcileField *field, Memory *memory, int64 last_write)
{
	FieldMemory *entry = memory_find(memory, field->name);
	int64 echo;
	int64 at;

	if (entry && entry->value == field->remote)
		return remember_earlier(field, entry);
	if (!entry && field->empty)
		return false; /* never touched */
	echo = echo_of(record, field, entry, last_write);
	if (echo != 0)
	{
		memory_wrote(memory, field->name, field->remote, echo);
		return true;
	}
	at = history_decides(record, field, entry) ? field->history_at : record->modified_at;
	entry = memory_entry(memory, field->name);
	entry->value = field->remote;
	entry->theirs = true;
	entry->at = at;
	return true;
}

static FieldDecision
decide_by_time(const ReconcileField *field, const Memory *memory)
{
	const FieldMemory *entry = memory_find(memory, field->name);

	if (!entry || !entry->theirs || later(field->event_at, entry->at))
		return FIELD_WRITE;
	return FIELD_KEEP;
}

static FieldDecision
decide(const ReconcileField *field, const Memory *memory)
{
	if (!field->changed || field->policy == POLICY_CREATE_ONLY)
		return FIELD_LEAVE;
	if (!field->readable)
		return field->policy == POLICY_FILL_IF_EMPTY ? FIELD_LEAVE : FIELD_WRITE;
	if (field->known && field->wanted == field->remote)
		return FIELD_EQUAL;
	switch (field->policy)
	{
		case POLICY_SOURCE_WINS:
			return FIELD_WRITE;
		case POLICY_FILL_IF_EMPTY:
			return field->empty ? decide_by_time(field, memory) : FIELD_LEAVE;
		default:
			return decide_by_time(field, memory);
	}
}

bool
reconcile(const ReconcileRecord *record, ReconcileField *fields, int n, Memory *memory)
{
	int64 last_write = memory_last_write(memory);
	bool changed = false;

	for (int i = 0; i < n; i++)
		if (fields[i].readable)
			changed |= remember(record, &fields[i], memory, last_write);
	for (int i = 0; i < n; i++)
		fields[i].decision = decide(&fields[i], memory);
	return changed;
}

bool
reconcile_edited_since(const ReconcileRecord *record, const Memory *memory, int64 event_at)
{
	for (int i = 0; i < memory->n; i++)
		if (memory->fields[i].theirs && !later(event_at, memory->fields[i].at))
			return true; /* although we have written since */
	if (last_change_is(record, memory_last_write(memory)) ||
		last_change_is_intent(record, memory_last_write(memory)))
		return false;
	return !later(event_at, record->modified_at);
}
