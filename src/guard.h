/*
 * guard.h
 *		The delete guard: a transaction that means more deletes of a mapping
 *		than it allows has them held.
 */
#ifndef SFSYNC_GUARD_H
#define SFSYNC_GUARD_H

#include "notes.h"

/*
 * Do the transaction's notes mean more deletes than the mapping's guard allows?
 * A row that it deleted and inserted again, or inserted and deleted, is none.
 */
extern bool guard_exceeded(const NotedMapping *mapping);

#endif /* SFSYNC_GUARD_H */
