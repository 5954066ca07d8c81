/*
 * unit_map.c
 *		Maps of a mapping and a key, to a unit or to a number.
 */
#include "compat.h"

#include "common/hashfn.h"
#ifdef FRONTEND
#include "common/logging.h"
#endif

#include "unit_map.h"

typedef struct UnitEntry
{
	char *name; /* "mapping:key" */
	Unit *unit;
	int count;
	char status;
} UnitEntry;

#define SH_PREFIX units
#define SH_ELEMENT_TYPE UnitEntry
#define SH_KEY_TYPE char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) (key), strlen(key))
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#ifdef FRONTEND
#define SH_RAW_ALLOCATOR pg_malloc0
#endif
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

UnitMap *
unit_map_create(void)
{
#ifdef FRONTEND
	return units_create(256, NULL);
#else
	return units_create(CurrentMemoryContext, 256, NULL);
#endif
}

void
unit_map_free(UnitMap *map)
{
	units_iterator iterator;
	UnitEntry *entry;

	units_start_iterate(map, &iterator);
	while ((entry = units_iterate(map, &iterator)) != NULL)
		pfree(entry->name);
	units_destroy(map);
}

static UnitEntry *
find(UnitMap *map, int mapping, const char *key)
{
	char *name = psprintf("%d:%s", mapping, key);
	UnitEntry *entry = units_lookup(map, name);

	pfree(name);
	return entry;
}

static UnitEntry *
find_or_add(UnitMap *map, int mapping, const char *key)
{
	char *name = psprintf("%d:%s", mapping, key);
	bool found;
	UnitEntry *entry = units_insert(map, name, &found);

	if (found)
		pfree(name);
	else
	{
		entry->unit = NULL;
		entry->count = 0;
	}
	return entry;
}

static void
drop(UnitMap *map, UnitEntry *entry)
{
	char *name = entry->name;

	units_delete_item(map, entry);
	pfree(name);
}

bool
unit_map_has(UnitMap *map, int mapping, const char *key)
{
	return find(map, mapping, key) != NULL;
}

Unit *
unit_map_get(UnitMap *map, int mapping, const char *key)
{
	const UnitEntry *entry = find(map, mapping, key);

	return entry ? entry->unit : NULL;
}

void
unit_map_set(UnitMap *map, int mapping, const char *key, Unit *unit)
{
	find_or_add(map, mapping, key)->unit = unit;
}

void
unit_map_remove(UnitMap *map, int mapping, const char *key)
{
	UnitEntry *entry = find(map, mapping, key);

	if (entry)
		drop(map, entry);
}

void
unit_map_count(UnitMap *map, int mapping, const char *key, int by)
{
	UnitEntry *entry = find_or_add(map, mapping, key);

	entry->count += by;
	if (entry->count == 0)
		drop(map, entry);
}
