/*
 * move.h
 *		Key changes.
 */
#ifndef SFSYNC_MOVE_H
#define SFSYNC_MOVE_H

#include "delivery.h"

/* Carry out key changes that can be; true if there were any, or a delete may go before one. */
extern bool move_keys(Delivery *delivery);

#endif /* SFSYNC_MOVE_H */
