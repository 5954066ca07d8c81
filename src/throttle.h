/*
 * throttle.h
 *		How fast a server may be asked: back-off with jitter, the share of the
 *		org's API calls, size of batches, number of requests in flight
 *		(design, section 8).  Pure; the clock is passed in.
 *
 * Times are microseconds of any one clock; random numbers are in [0, 1).
 */
#ifndef SFSYNC_THROTTLE_H
#define SFSYNC_THROTTLE_H

typedef struct Throttle
{
	/* configuration */
	int budget_percent;
	int max_concurrent;
	int max_batch_size;
	int64 base_delay;
	int64 max_delay;
	/* state */
	int failures;   /* of the server in a row */
	int64 retry_at; /* no request before; 0 none */
	bool over_budget;
	bool refused;   /* over_budget because Salesforce said so, not by
								 * the usage told */
	int64 api_used; /* -1 unknown */
	int64 api_limit;
	int batch_size;
	int concurrency;
	int successes; /* fast ones in a row, towards more concurrency */
} Throttle;

extern void throttle_init(Throttle *throttle, int budget_percent, int max_concurrent, int max_batch_size,
						  int64 base_delay, int64 max_delay);

/* New settings; keeps the state within them. */
extern void throttle_configure(Throttle *throttle, int budget_percent, int max_concurrent, int max_batch_size,
							   int64 base_delay, int64 max_delay);

/* Full jitter: random * min(max_delay, base * 2^attempt), at least 1 ms. */
extern int64 backoff_delay(int64 base, int64 max, int attempt, double random);

/* May a request start now, with in_flight of them open? */
extern bool throttle_may_send(const Throttle *throttle, int64 now, int in_flight);

/* Usage as Sforce-Limit-Info or /limits tell it. */
extern void throttle_usage(Throttle *throttle, int64 used, int64 limit, int64 now, double random);

/* A request came back well, after so many microseconds; backlog: more is waiting. */
extern void throttle_success(Throttle *throttle, int64 elapsed, bool backlog);

/* The server or the network failed; retry_after in seconds, -1 if not told. */
extern void throttle_failure(Throttle *throttle, int64 now, int retry_after, double random);

/* Lock contention, a slow request, a governor limit: smaller batches. */
extern void throttle_contention(Throttle *throttle);

/* ConcurrentRequests limit: fewer requests at once, and a short wait. */
extern void throttle_concurrent_limit(Throttle *throttle, int64 now, double random);

/* TotalRequests limit: as over budget; probe slowly. */
extern void throttle_daily_limit(Throttle *throttle, int64 now, double random);

#endif /* SFSYNC_THROTTLE_H */
