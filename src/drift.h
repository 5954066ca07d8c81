/*
 * drift.h
 *		Columns that begin to feed a field after the mapping was made: a new
 *		column, a field that appeared or came back.
 */
#ifndef SFSYNC_DRIFT_H
#define SFSYNC_DRIFT_H

#include "mapping.h"

/*
 * Compare what is mapped with what was mapped when last looked at; rows whose
 * column is not null are queued for each column that feeds a field now and
 * didn't then, so that no change made meanwhile is missed.  In the worker's
 * transaction.  True if anything was queued.
 */
extern bool drift_follow(const Mapping *mapping);

/*
 * The same for one column and field at once, in the transaction of the function
 * that maps them, so that wait_for_sync waits for it.
 */
extern void drift_begin(const Mapping *mapping, AttrNumber attnum, const SfField *field);

#endif /* SFSYNC_DRIFT_H */
