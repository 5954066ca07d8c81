/*
 * create_field.h
 *		new_columns 'create_field': a field for each column that was added later
 *		and matches none.
 */
#ifndef SFSYNC_CREATE_FIELD_H
#define SFSYNC_CREATE_FIELD_H

#include "delivery.h"

/* When is the next field due to be created?  0: none is wanted. */
extern TimestampTz create_field_due(const MappingDelivery *state, const Mapping *mapping);

/* A MappingStep: prepare the next request of a creation that is due. */
extern void create_field_step(Delivery *delivery, MappingDelivery *state, void *arg);

/*
 * Settle its reply.  False when the reply is about the session, a limit or the
 * server: then it is to be handled as any other's, and the step is repeated.
 */
extern bool create_field_reply(Delivery *delivery, Request *request, const HttpReply *reply);

/* The request was not sent. */
extern void create_field_recover(MappingDelivery *state);

#endif /* SFSYNC_CREATE_FIELD_H */
