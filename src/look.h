/*
 * look.h
 *		Which mappings can be delivered now.
 */
#ifndef SFSYNC_LOOK_H
#define SFSYNC_LOOK_H

#include "delivery.h"

/*
 * At the beginning of a turn, in its transaction: look at every mapping anew.  A
 * change of configuration or catalog may have mended what blocks one.  woken: a
 * commit may have given up a lock.
 */
extern void look_at_mappings(Delivery *delivery, bool woken);

#endif /* SFSYNC_LOOK_H */
