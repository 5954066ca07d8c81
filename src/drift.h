/*
 * drift.h
 *		What changes under a mapping after it was made: columns that begin to
 *		feed a field, fields that can't be written any more.
 */
#ifndef SFSYNC_DRIFT_H
#define SFSYNC_DRIFT_H

#include "batch.h"
#include "mapping.h"

/*
 * While a mapping is read: what its columns fed when it was last looked at, and
 * how far the creation of fields for new ones is.
 */
extern void drift_recall(const Mapping *mapping, RouteColumn *columns);

/*
 * Compare what is mapped with what was mapped when last looked at; rows whose
 * column is not null are queued for each column that feeds a field now and
 * didn't then, and changes that came while it was in quarantine.  What is in
 * quarantine is told.  In the worker's transaction.  True if anything was queued.
 */
extern bool drift_follow(const Mapping *mapping);

/*
 * The same for one column and field at once, in the transaction of the function
 * that maps them, so that wait_for_sync waits for it.
 */
extern void drift_begin(const Mapping *mapping, AttrNumber attnum, const SfField *field);

/* Is there a field in quarantine, which may come back? */
extern bool drift_in_quarantine(const Mapping *mapping);

/*
 * A row's changes that are about to be settled: what is in quarantine of them is
 * kept for later.  Within settling.
 */
extern void drift_note(const Mapping *mapping, const Unit *const *units, int n);

#endif /* SFSYNC_DRIFT_H */
