/*
 * guard.h
 *		The delete guard: a transaction that means more deletes of a mapping
 *		than it allows has them held.
 */
#ifndef SFSYNC_GUARD_H
#define SFSYNC_GUARD_H

#include "notes.h"

/*
 * How many deletes do the transaction's notes mean, if these are more than the
 * mapping's guard allows?  Else 0.  A row that it deleted and inserted again, or
 * inserted and deleted, is none.
 */
extern int64 guard_exceeded(const NotedMapping *mapping);

#endif /* SFSYNC_GUARD_H */
