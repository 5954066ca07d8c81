/*
 * fetch.h
 *		Fills the work at hand from the queue, deferred changes and backfills.
 */
#ifndef SFSYNC_FETCH_H
#define SFSYNC_FETCH_H

#include "delivery.h"

extern void fetch(Delivery *delivery);

/* Mappings that were passed over and can go now need the queue's beginning again. */
extern bool fetch_left_behind(const Delivery *delivery);
extern void fetch_note_chunks(Delivery *delivery);

/* When progress within chunks is to be noted; 0: there is none. */
extern TimestampTz fetch_progress_due(const Delivery *delivery);

/* Deferred changes of units that got an event go along with it. */
extern void fetch_join_deferred(Delivery *delivery, List *fresh);
extern void fetch_merge_deferred(Delivery *delivery, Unit *unit, const DeferredRow *row);

#endif /* SFSYNC_FETCH_H */
