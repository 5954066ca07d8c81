/*
 * trouble.h
 *		Requests that fail as a whole, or as a part, and not for what they say.
 */
#ifndef SFSYNC_TROUBLE_H
#define SFSYNC_TROUBLE_H

#include "delivery.h"

/*
 * A request or a part of it failed, and not for what it says.  Says of its units
 * what becomes of them.
 */
extern void trouble(Request *request, const RequestPart *part, int status, const RestError *error,
					const char *text, const HttpReply *reply, TimestampTz now);

/* The same where there was no reply, or none that can be understood. */
extern void trouble_no_reply(Request *request, const RequestPart *part, const char *text,
							 const HttpReply *reply, TimestampTz now);

/* The server is away, or a limit is met. */
extern void trouble_of_server(Connection *connection, ErrorScope scope, const char *text, int retry_after,
							  TimestampTz now);

/* Someone has to act. */
extern void trouble_of_connection(Connection *connection, int status, const char *code, const char *text,
								  TimestampTz now);

/* Does the error of a record speak of the server, and not of the record? */
extern bool trouble_is_server(const RestResult *result, ErrorScope *scope);

#endif /* SFSYNC_TROUBLE_H */
