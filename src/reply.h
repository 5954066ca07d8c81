/*
 * reply.h
 *		What replies mean: reply.c for requests, verdict.c for single records,
 *		meet.c for records found by external ID; and finish.c, which settles it.
 */
#ifndef SFSYNC_REPLY_H
#define SFSYNC_REPLY_H

#include "delivery.h"

extern void reply_settle(Delivery *delivery, Request *request, const HttpReply *reply);

/* A read that brought nothing: its units are sent again, as the trouble allows. */
extern void reply_failed(Delivery *delivery, Request *request, const char *trouble, TimestampTz now);
extern void reply_refused(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now);
extern void reply_mapping_refused(Delivery *delivery, Request *request, const char *trouble, TimestampTz now);

/* A record is tried again, and is a dead letter in the end; or it is tried again, and that doesn't count. */
extern void reply_set_retry(const Request *request, int i, const RestError *error, const HttpReply *reply);
extern void reply_set_later(const Request *request, int i, const RestError *error, bool count_attempt);

/* What was asked for is there: the units go on. */
extern void reply_go_on(Delivery *delivery, Request *request);

/* Results of the records of a part, as outcomes; not settled yet. */
extern void reply_set_results(Delivery *delivery, Request *request, const RequestPart *part,
							  const RestResult *results, const HttpReply *reply);

/*
 * Settle outcomes of one mapping in a transaction, then let go of their units.
 * request is what they come from, whose intent ends; NULL if there was none.
 */
extern void reply_finish(Delivery *delivery, int mapping, Outcome *outcomes, int n, Request *request);

/*
 * For these files alone
 */

/*
 * A transaction whose loss in a crash does no harm: what it settles is then sent
 * again.  While somebody drops the mapping (0: none), that is waited for: there
 * is nothing to settle after it.
 */
extern void reply_begin(int mapping);
extern void reply_commit(void);

/* What becomes of a unit of a request, or of all of a part. */
extern void reply_set_dead(const Request *request, int i, const RestError *error, const HttpReply *reply);
extern void reply_set_again(Request *request, const RequestPart *part);

/* A row's record among those that were found by external ID. */
typedef struct Met
{
	int read; /* index; -1: none */
	int key;  /* which of the row's keys it has: 0 the row's own, else one that it had before */
	bool ambiguous;
	bool all; /* of the row's keys were asked for, or as many as one request has room for */
} Met;

/*
 * For each unit of a request that asked by external ID; what is certain is
 * known from now on.  all: there are no more records than those.  Within a
 * transaction.
 */
extern Met *meet_records(const Request *request, const RestRead *reads, int nreads, bool all);

/* The mapping is to blame: its metadata are fetched, and refused again it is blocked. */
extern void reply_block_refused(Delivery *delivery, Request *request, const RequestPart *part,
								const char *trouble, TimestampTz now);

/*
 * The first result that tells of the server rather than of its record, with its
 * scope; NULL.  And what follows for the server, which is well without one.
 */
extern const RestResult *reply_find_ailing(const RestResult *results, int n, ErrorScope *scope);
extern void reply_judge_server(Delivery *delivery, Request *request, const RestResult *ailing,
							   ErrorScope scope, const HttpReply *reply);

/* What becomes of each unit of a part, by its result. */
extern void reply_judge_results(Delivery *delivery, Request *request, const RequestPart *part,
								const RestResult *results, const HttpReply *reply);

#endif /* SFSYNC_REPLY_H */
