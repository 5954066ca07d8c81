/*
 * send.h
 *		Prepared requests go out.
 */
#ifndef SFSYNC_SEND_H
#define SFSYNC_SEND_H

#include "delivery.h"

/* After the commit of the transaction that prepared them: what is to be sent is in flight. */
extern void send_outgoing(Delivery *delivery);

#endif /* SFSYNC_SEND_H */
