/*
 * reply.h
 *		What the files that judge replies share: finish.c, verdict.c, reply.c.
 *		Others use what deliver.h has of them.
 */
#ifndef SFSYNC_REPLY_H
#define SFSYNC_REPLY_H

#include "deliver.h"

/* A transaction whose loss in a crash does no harm: what it settles is then sent again. */
extern void reply_begin(void);
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
