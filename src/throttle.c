/*
 * throttle.c
 *		How fast a server may be asked.  Pure.
 */
#include "compat.h"

#include "throttle.h"

#define SECOND INT64CONST(1000000)
#define MINUTE (60 * SECOND)

/* A daily limit is looked at again after 5 to 15 minutes (section 2.6). */
#define PROBE_MIN (5 * MINUTE)
#define PROBE_SPREAD (10 * MINUTE)

/* A server can't send us away for longer than this. */
#define RETRY_AFTER_MAX (60 * MINUTE)

#define FAST_REQUEST (5 * SECOND)
#define SLOW_REQUEST (10 * SECOND)

#define BATCH_STEP 20
#define BATCH_FLOOR 10
#define CONCURRENCY_STEP_AFTER 10 /* good requests in a row */

static int64
later(int64 now, int64 delay)
{
	return now > PG_INT64_MAX - delay ? PG_INT64_MAX : now + delay;
}

/* Random numbers come from the caller: hold them to [0, 1]. */
static int64
portion(int64 range, double random)
{
	if (!(random > 0.0))
		return 0;
	if (random >= 1.0)
		return range;
	return (int64) ((double) range * random);
}

static void
wait_until(Throttle *throttle, int64 when)
{
	throttle->retry_at = Max(throttle->retry_at, when);
}

/* Is the share of the org's calls used up?  False while usage is unknown. */
static bool
budget_reached(const Throttle *throttle)
{
	int64 share;

	if (throttle->api_used < 0 || throttle->api_limit <= 0)
		return false;
	/* in two parts, so that no limit can overflow */
	share = throttle->api_limit / 100 * throttle->budget_percent +
			throttle->api_limit % 100 * throttle->budget_percent / 100;
	return throttle->api_used >= share;
}

static void
start_probing(Throttle *throttle, int64 now, double random)
{
	throttle->over_budget = true;
	throttle->retry_at = Max(throttle->retry_at, later(now, PROBE_MIN + portion(PROBE_SPREAD, random)));
}

static void
leave_budget_stop(Throttle *throttle)
{
	throttle->over_budget = false;
	throttle->refused = false;
	/* a back-off that runs at the same time keeps its own end */
	if (throttle->failures == 0)
		throttle->retry_at = 0;
}

void
throttle_init(Throttle *throttle, int budget_percent, int max_concurrent, int max_batch_size,
			  int64 base_delay, int64 max_delay)
{
	memset(throttle, 0, sizeof(*throttle));
	throttle->api_used = -1;
	throttle->api_limit = -1;
	throttle_configure(throttle, budget_percent, max_concurrent, max_batch_size, base_delay, max_delay);
}

/* A state that stood at its old maximum follows the maximum. */
static int
follow_limit(int state, int old_limit, int new_limit)
{
	return state >= old_limit ? new_limit : Min(state, new_limit);
}

void
throttle_configure(Throttle *throttle, int budget_percent, int max_concurrent, int max_batch_size,
				   int64 base_delay, int64 max_delay)
{
	int old_batch = throttle->max_batch_size;
	int old_concurrent = throttle->max_concurrent;

	throttle->budget_percent = Min(Max(budget_percent, 0), 100);
	throttle->max_concurrent = Max(max_concurrent, 1);
	throttle->max_batch_size = Max(max_batch_size, 1);
	throttle->base_delay = Max(base_delay, 1000);
	throttle->max_delay = Max(max_delay, throttle->base_delay);
	throttle->batch_size = follow_limit(throttle->batch_size, old_batch, throttle->max_batch_size);
	throttle->concurrency = follow_limit(throttle->concurrency, old_concurrent, throttle->max_concurrent);

	/* a larger share takes effect at once, a smaller one with the next reply */
	if (throttle->over_budget && !throttle->refused && !budget_reached(throttle))
		leave_budget_stop(throttle);
}

int64
backoff_delay(int64 base, int64 max, int attempt, double random)
{
	int64 ceiling = Max(base, 1);

	for (int i = 0; i < attempt && ceiling < max; i++)
		ceiling = ceiling > max / 2 ? max : ceiling * 2;
	ceiling = Min(ceiling, max);
	return Max(portion(ceiling, random), 1000);
}

bool
throttle_may_send(const Throttle *throttle, int64 now, int in_flight)
{
	if (now < throttle->retry_at)
		return false;

	/* a probe goes alone: what it finds decides about the rest */
	if (throttle->over_budget || throttle->failures > 0)
		return in_flight == 0;
	return in_flight < throttle->concurrency;
}

void
throttle_usage(Throttle *throttle, int64 used, int64 limit, int64 now, double random)
{
	if (used < 0 || limit <= 0)
		return;
	throttle->api_used = used;
	throttle->api_limit = limit;

	if (budget_reached(throttle))
	{
		/* replies of requests that were under way don't prolong the wait */
		if (!throttle->over_budget || now >= throttle->retry_at)
			start_probing(throttle, now, random);
	}
	else if (throttle->over_budget)
	{
		/*
		 * The header lags behind (section 2.3).  A refusal weighs more than
		 * usage told with it or right after it: its wait is served in full.
		 */
		if (!throttle->refused || now >= throttle->retry_at)
			leave_budget_stop(throttle);
	}
}

void
throttle_success(Throttle *throttle, int64 elapsed, bool backlog)
{
	throttle->failures = 0;
	if (!throttle->over_budget)
		throttle->retry_at = 0;

	if (elapsed > SLOW_REQUEST)
		throttle_contention(throttle);
	if (elapsed >= FAST_REQUEST)
		return;

	if (backlog)
		throttle->batch_size = Min(throttle->batch_size + BATCH_STEP, throttle->max_batch_size);
	if (++throttle->successes >= CONCURRENCY_STEP_AFTER)
	{
		throttle->successes = 0;
		throttle->concurrency = Min(throttle->concurrency + 1, throttle->max_concurrent);
	}
}

void
throttle_failure(Throttle *throttle, int64 now, int retry_after, double random)
{
	int64 delay;

	delay = backoff_delay(throttle->base_delay, throttle->max_delay, throttle->failures, random);
	/* what the server asks for, spread a little, as others were told the same */
	if (retry_after >= 0)
		delay = Min(retry_after * SECOND, RETRY_AFTER_MAX) + portion(throttle->base_delay, random);
	if (throttle->failures < PG_INT32_MAX)
		throttle->failures++;
	throttle->successes = 0;
	wait_until(throttle, later(now, delay));
}

void
throttle_contention(Throttle *throttle)
{
	int floor = Min(BATCH_FLOOR, throttle->max_batch_size);

	throttle->batch_size = Max(throttle->batch_size / 2, floor);
	throttle->successes = 0;
}

void
throttle_concurrent_limit(Throttle *throttle, int64 now, double random)
{
	throttle->concurrency = Max(throttle->concurrency / 2, 1);
	throttle->successes = 0;
	/* it ends when one of the org's long requests ends: seconds (section 2.6) */
	wait_until(throttle, later(now, throttle->base_delay + portion(4 * throttle->base_delay, random)));
}

void
throttle_daily_limit(Throttle *throttle, int64 now, double random)
{
	throttle->refused = true;
	start_probing(throttle, now, random);
}
