/*
 * batch_internal.h
 *		The work at hand, as batch.c and aside.c share it.
 */
#ifndef SFSYNC_BATCH_INTERNAL_H
#define SFSYNC_BATCH_INTERNAL_H

#include "batch.h"
#include "unit_map.h"

/* An event put aside, for a key change. */
typedef struct Aside
{
	WorkEvent event; /* and all it refers to, in one piece */
} Aside;

struct Work
{
	int nunits;
	UnitMap *at_hand;   /* the first unit of each key */
	UnitMap *moved;     /* key of a record that is looked for, to the unit that has it */
	UnitMap *concerned; /* by what is put aside: how many events */
	int naside;
	int max_aside;
	Aside **aside;
	int nqueues;
	MappingQueue **queues;
};

#endif /* SFSYNC_BATCH_INTERNAL_H */
