/*
 * settle.h
 *		Outcomes into the tables.
 */
#ifndef SFSYNC_SETTLE_H
#define SFSYNC_SETTLE_H

#include "mapping.h"
#include "outcome.h"

/*
 * Write what became of units, and remove the request's intent (0: none).
 * mapping is NULL when it is gone: then nothing is kept.  True if deferred changes
 * that waited for one of the records became due.  After an error it can be done
 * again, in another transaction.
 */
extern bool queue_settle(const Mapping *mapping, const Outcome *outcomes, int n, int64 intent);

#endif /* SFSYNC_SETTLE_H */
