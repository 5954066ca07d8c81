/*
 * locked.h
 *		Mappings whose table somebody else has locked, or that somebody drops.
 */
#ifndef SFSYNC_LOCKED_H
#define SFSYNC_LOCKED_H

#include "delivery.h"

/*
 * Lock a mapped table for reading, or return false at once: the mapping can't be
 * delivered for now.  DDL on it has then been seen (get the mapping again), and
 * one that runs doesn't hold up others.
 */
extern bool delivery_lock_source(Delivery *delivery, MappingDelivery *state, const Mapping *mapping);

/* Was the table locked when it was tried just now?  next: when to try again. */
extern bool locked_rests(const MappingDelivery *state, TimestampTz now, TimestampTz *next);

/* Is somebody dropping the mapping?  Else nobody does until the turn's transaction ends. */
extern bool locked_by_drop(MappingDelivery *state, bool woken, TimestampTz now, TimestampTz *next);

/* If it was, or can't be read anew: is it still?  woken: by a commit of who may have had it. */
extern bool locked_still(MappingDelivery *state, const Mapping *mapping, bool woken, TimestampTz now,
						 TimestampTz *next);

#endif /* SFSYNC_LOCKED_H */
