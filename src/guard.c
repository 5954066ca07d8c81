/*
 * guard.c
 *		The delete guard: counts the rows that a transaction deletes on the
 *		whole.
 *
 * Counting needs a table of the keys that the transaction touched.  It is made
 * only when there are more deletes than allowed, and for a part of the keys at a
 * time: so it stays small, however large the transaction.
 */
#include "compat.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "batch.h"
#include "guard.h"

/* Notes, and so keys, that one pass looks at, about. */
#define NOTES_A_PASS 500000

/* What happened to a key: known by its hash, of which 64 bits don't meet by chance. */
typedef struct KeyState
{
	uint64 hash;
	char status;
	bool was_there; /* before the transaction */
	bool deleted;   /* at its end */
} KeyState;

#define SH_PREFIX keys
#define SH_ELEMENT_TYPE KeyState
#define SH_KEY_TYPE uint64
#define SH_KEY hash
#define SH_HASH_KEY(tb, key) ((uint32) ((key) >> 32))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct Count
{
	int mapping;
	int64 notes;
	int passes;
	int pass;
	keys_hash *keys;
	int64 deleted;
} Count;

static void
count_note(const Note *note, const char *data, void *arg)
{
	Count *count = arg;

	if (note->mapping == count->mapping)
		count->notes++;
}

static void
see_note(const Note *note, const char *data, void *arg)
{
	Count *count = arg;
	bool deletes = note->operation == EVENT_DELETE;
	uint64 hash;
	KeyState *key;
	bool found;

	if (note->mapping != count->mapping || note->operation == EVENT_PARTITION_LEFT)
		return;
	hash = hash_bytes_extended((const unsigned char *) data, note->key_len, 0);
	if (hash % count->passes != count->pass)
		return;
	key = keys_insert(count->keys, hash, &found);
	if (!found)
	{
		key->was_there = note->operation != EVENT_INSERT;
		key->deleted = false;
	}
	count->deleted += (deletes && key->was_there) - (key->deleted && key->was_there);
	key->deleted = deletes;
}

static int64
count_deleted(int mapping)
{
	Count count = {.mapping = mapping};

	notes_each(count_note, &count);
	count.passes = count.notes / NOTES_A_PASS + 1;
	for (count.pass = 0; count.pass < count.passes; count.pass++)
	{
		count.keys = keys_create(CurrentMemoryContext, 1024, NULL);
		notes_each(see_note, &count);
		keys_destroy(count.keys);
	}
	return count.deleted;
}

int64
guard_exceeded(const NotedMapping *mapping)
{
	int64 deleted;

	if (mapping->guard == 0 || mapping->deletes <= mapping->guard)
		return 0;
	deleted = count_deleted(mapping->mapping);
	return deleted > mapping->guard ? deleted : 0;
}
