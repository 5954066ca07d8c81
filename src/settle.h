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
 * mapping may be NULL where all are OUTCOME_DISCARDED.  True if deferred changes
 * that waited for one of the records became due.
 */
extern bool queue_settle(const Mapping *mapping, Outcome *outcomes, int n, int64 intent);

#endif /* SFSYNC_SETTLE_H */
