/*
 * unit_map.h
 *		Maps of a mapping and a key, to a unit or to a number.
 */
#ifndef SFSYNC_UNIT_MAP_H
#define SFSYNC_UNIT_MAP_H

#include "batch.h"

typedef struct units_hash UnitMap;

/* What it holds later is allocated in the context current now. */
extern UnitMap *unit_map_create(void);
extern void unit_map_free(UnitMap *map);

/* Is it there, with a unit or without? */
extern bool unit_map_has(UnitMap *map, int mapping, const char *key);

/* NULL: there is none. */
extern Unit *unit_map_get(UnitMap *map, int mapping, const char *key);
extern void unit_map_set(UnitMap *map, int mapping, const char *key, Unit *unit);
extern void unit_map_remove(UnitMap *map, int mapping, const char *key);

/* Add to its number, of which 0 is not kept. */
extern void unit_map_count(UnitMap *map, int mapping, const char *key, int by);

#endif /* SFSYNC_UNIT_MAP_H */
