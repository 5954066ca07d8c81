/*
 * turn.h
 *		The worker's work: fetch what changed, decide what it means for
 *		Salesforce, send it, settle the replies.
 *
 * A turn is one transaction that reads the queue and the rows and notes the
 * intents; requests are sent after its commit, and each reply is settled in a
 * transaction of its own.  None is open while requests are in flight.
 */
#ifndef SFSYNC_TURN_H
#define SFSYNC_TURN_H

#include "delivery.h"

/*
 * Do what can be done now.  woken: something may have changed.  Returns
 * milliseconds until there may be more to do; -1: nothing on its own.
 */
extern long turn_take(Delivery *delivery, bool woken);

/* After an error in a turn, its transaction aborted: what it had begun is ready again. */
extern void turn_recover(Delivery *delivery);

/* Settle the replies that have come; false if there was none. */
extern bool turn_replies(Delivery *delivery);

#endif /* SFSYNC_TURN_H */
