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

#include "budget.h"

typedef struct ThrottleSettings
{
	int budget_percent;
	int max_concurrent;
	int max_batch_size;
	int64 base_delay;
	int64 max_delay;
	int64 timeout; /* of a request */
} ThrottleSettings;

typedef struct Throttle
{
	ThrottleSettings set;
	Budget budget;
	int failures;      /* of the server in a row */
	int limits;        /* waits for a short limit in a row */
	int64 retry_at;    /* no request before; 0 none */
	int64 asked_until; /* the part of it that the server asked for */
	bool over_budget;
	bool refused; /* over_budget because Salesforce said so, not by the usage told */
	bool probing; /* over_budget, and a request is out to see whether it still is */
	int batch_size;
	int trouble_at; /* batch size that met trouble last; 0 none */
	int streak;     /* batches that went well in a row, towards larger ones */
	int read_size;  /* records that are read by one request */
	int concurrency;
	int concurrency_goal; /* what it grows to again, step by step, after an outage */
	int successes;        /* fast ones in a row, towards more concurrency */
} Throttle;

/* Nothing is known of the server yet. */
extern void throttle_init(Throttle *throttle, const ThrottleSettings *settings);

/* New settings; keeps the state within them. */
extern void throttle_configure(Throttle *throttle, const ThrottleSettings *settings);

/* Go on with what a worker before this one had learnt; 0: nothing. */
extern void throttle_resume(Throttle *throttle, int batch_size, int concurrency);

/* Full jitter: random * min(max_delay, base * 2^attempt), at least 1 ms. */
extern int64 backoff_delay(int64 base, int64 max, int attempt, double random);

/* When a request in flight has to come back first. */
#define THROTTLE_AFTER_REPLY PG_INT64_MAX

/*
 * When may the next request start, with in_flight of them open?  Not after now:
 * at once.  ready is the number of records that could go, oldest_at the time of
 * their oldest change: near the budget, few of them wait for more.
 */
extern int64 throttle_may_send(const Throttle *throttle, int64 now, int in_flight, int ready,
							   int64 oldest_at);

/* A request has been sent. */
extern void throttle_sent(Throttle *throttle, int64 now, double random);

/* Usage as Sforce-Limit-Info or /limits tell it; app_limit 0: the app has no allowance of its own. */
extern void throttle_usage(Throttle *throttle, int64 used, int64 limit, int64 now, double random);
extern void throttle_app_usage(Throttle *throttle, int64 used, int64 limit, int64 now, double random);

/*
 * A request with so many records came back well, after so many microseconds;
 * backlog: more is waiting.
 */
extern void throttle_success(Throttle *throttle, int64 elapsed, int records, bool backlog);

/*
 * The server or the network failed; retry_after in seconds, -1 if not told.  Here
 * and below: told, it is what is waited for, however long our own wait would be.
 */
extern void throttle_failure(Throttle *throttle, int64 now, int retry_after, double random);

/* Lock contention or a governor limit met by a request of so many records. */
extern void throttle_contention(Throttle *throttle, int records);

/* A request of so many records wasn't done in time. */
extern void throttle_timeout(Throttle *throttle, int records);

/* A request that read so many records came back, or didn't in time (elapsed < 0). */
extern void throttle_read(Throttle *throttle, int64 elapsed, int records);

/* ConcurrentRequests limit, or too many requests: fewer at once, and a short wait, longer each time. */
extern void throttle_concurrent_limit(Throttle *throttle, int64 now, int retry_after, double random);

/* TotalRequests limit: as over budget; probe slowly. */
extern void throttle_daily_limit(Throttle *throttle, int64 now, int retry_after, double random);

#endif /* SFSYNC_THROTTLE_H */
