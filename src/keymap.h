/*
 * keymap.h
 *		A map from keys to what they are of: a round looks thousands of keys up
 *		among thousands.
 *
 * Keys are not copied.
 */
#ifndef SFSYNC_KEYMAP_H
#define SFSYNC_KEYMAP_H

#include "common/hashfn.h"

typedef struct KeyMapEntry
{
	const char *key;
	const void *value;
	uint32 hash;
	char status;
} KeyMapEntry;

#define SH_PREFIX keymap
#define SH_ELEMENT_TYPE KeyMapEntry
#define SH_KEY_TYPE const char *
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) (key), strlen(key))
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, entry) (entry)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* False if the key is there already: its value stays. */
static inline bool
keymap_add(keymap_hash *map, const char *key, const void *value)
{
	bool found;
	KeyMapEntry *entry = keymap_insert(map, key, &found);

	if (!found)
		entry->value = value;
	return !found;
}

/* NULL if the key is not there. */
static inline const void *
keymap_find(keymap_hash *map, const char *key)
{
	const KeyMapEntry *entry = keymap_lookup(map, key);

	return entry ? entry->value : NULL;
}

#endif /* SFSYNC_KEYMAP_H */
