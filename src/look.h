/*
 * look.h
 *		Which mappings can be delivered now.
 */
#ifndef SFSYNC_LOOK_H
#define SFSYNC_LOOK_H

#include "deliver.h"

/*
 * At the beginning of a turn, in its transaction: look at every mapping anew.  A
 * change of configuration or catalog may have mended what blocks one.
 */
extern void look_at_mappings(Delivery *delivery);

#endif /* SFSYNC_LOOK_H */
