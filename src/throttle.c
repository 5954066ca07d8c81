/*
 * throttle.c
 *		How fast a server may be asked.  Pure.
 */
#include "compat.h"

#include "throttle.h"

#define SECOND INT64CONST(1000000)
#define MINUTE (60 * SECOND)

/* A server can't send us away for longer than this. */
#define RETRY_AFTER_MAX (60 * MINUTE)

/* Nor does a limit that passes within seconds make us wait for longer. */
#define SHORT_LIMIT_MAX MINUTE

/* Longer ones count against the limit of concurrent requests (reference, section 2.5). */
#define LONG_REQUEST (20 * SECOND)
#define SLOW_REQUEST (10 * SECOND)

#define READ_MAX 2000 /* Ids per call (section 5.6) */
#define READ_STEP 100
#define BATCH_STEP 20             /* times the number of good batches in a row */
#define BATCH_FLOOR 10            /* smaller ones don't make locks rarer, and cost calls */
#define CALM_BATCHES 10           /* good ones in a row before the size that met trouble is tried again */
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

/* Ever larger: base * 2^attempt, up to max. */
static int64
grown(int64 base, int64 max, int attempt)
{
	int64 range = Max(base, 1);

	for (int i = 0; i < attempt && range < max; i++)
		range = range > max / 2 ? max : range * 2;
	return Min(range, max);
}

/*
 * Wait as long as the server asks for, spread a little, as others were told the
 * same; or for our own delay.  What was to be waited for before holds.
 */
static void
wait_for(Throttle *throttle, int64 now, int64 delay, int retry_after, double random)
{
	if (retry_after > 0)
	{
		delay = Min(retry_after * SECOND, RETRY_AFTER_MAX) + portion(throttle->set.base_delay, random);
		throttle->asked_until = Max(throttle->asked_until, later(now, delay));
	}
	throttle->retry_at = Max(throttle->retry_at, later(now, delay));
}

/*
 * The budget
 */

/* A limit of the day is looked at again after 5 to 15 minutes, by default (reference, section 2.6). */
static void
start_probing(Throttle *throttle, int64 now, int retry_after, double random)
{
	int64 delay = throttle->set.max_delay / 2 + portion(throttle->set.max_delay, random);

	throttle->over_budget = true;
	throttle->concurrency = 1;
	wait_for(throttle, now, delay, retry_after, random);
}

static void
leave_budget_stop(Throttle *throttle)
{
	throttle->over_budget = false;
	throttle->refused = false;
	budget_refill(&throttle->budget);
	/* a back-off that runs at the same time keeps its own end */
	if (throttle->failures == 0)
		throttle->retry_at = throttle->asked_until;
}

static void
judge_usage(Throttle *throttle, int64 now, double random)
{
	bool probed = throttle->probing;

	throttle->probing = false;
	if (probed)
		throttle->refused = false; /* or it will be said again */
	if (budget_left(&throttle->budget) <= 0)
	{
		/* replies of requests that were under way don't prolong the wait */
		if (!throttle->over_budget || now >= throttle->retry_at)
			start_probing(throttle, now, -1, random);
	}
	else if (throttle->over_budget)
	{
		/*
		 * The header lags behind (section 2.3).  A refusal weighs more than
		 * usage told by requests that were under way: its wait is served in full.
		 */
		if (!throttle->refused || now >= throttle->retry_at)
			leave_budget_stop(throttle);
	}
}

void
throttle_usage(Throttle *throttle, int64 used, int64 limit, int64 now, double random)
{
	if (used < 0 || limit <= 0)
		return;
	budget_told(&throttle->budget, used, limit, now);
	judge_usage(throttle, now, random);
}

void
throttle_app_usage(Throttle *throttle, int64 used, int64 limit, int64 now, double random)
{
	budget_told_app(&throttle->budget, used, limit, now);
	judge_usage(throttle, now, random);
}

/*
 * Settings
 */

void
throttle_init(Throttle *throttle, const ThrottleSettings *settings)
{
	memset(throttle, 0, sizeof(*throttle));
	throttle->read_size = READ_MAX;
	throttle_configure(throttle, settings);
}

/* A state that stood at its old maximum follows the maximum. */
static int
follow_limit(int state, int old_limit, int new_limit)
{
	return state >= old_limit ? new_limit : Min(state, new_limit);
}

void
throttle_configure(Throttle *throttle, const ThrottleSettings *settings)
{
	ThrottleSettings old = throttle->set;
	ThrottleSettings *set = &throttle->set;
	bool at_goal;

	*set = *settings;
	set->max_concurrent = Max(set->max_concurrent, 1);
	set->max_batch_size = Max(set->max_batch_size, 1);
	set->base_delay = Max(set->base_delay, 1000);
	set->max_delay = Max(set->max_delay, set->base_delay);
	if (set->budget_percent != old.budget_percent)
		budget_refill(&throttle->budget);
	throttle->budget.percent = Min(Max(set->budget_percent, 0), 100);
	throttle->batch_size = follow_limit(throttle->batch_size, old.max_batch_size, set->max_batch_size);
	at_goal = throttle->concurrency >= throttle->concurrency_goal;
	throttle->concurrency_goal =
		follow_limit(throttle->concurrency_goal, old.max_concurrent, set->max_concurrent);
	throttle->concurrency =
		at_goal ? throttle->concurrency_goal : Min(throttle->concurrency, throttle->concurrency_goal);

	/* a larger share takes effect at once, a smaller one with the next reply */
	if (throttle->over_budget && !throttle->refused && budget_left(&throttle->budget) > 0)
		leave_budget_stop(throttle);
}

void
throttle_resume(Throttle *throttle, int batch_size, int concurrency)
{
	if (batch_size > 0)
		throttle->batch_size = Min(batch_size, throttle->set.max_batch_size);
	if (concurrency > 0)
		throttle->concurrency = Min(concurrency, throttle->set.max_concurrent);
}

/*
 * Asking
 */

int64
backoff_delay(int64 base, int64 max, int attempt, double random)
{
	return Max(portion(grown(base, max, attempt), random), 1000);
}

int64
throttle_may_send(const Throttle *throttle, int64 now, int in_flight, int ready, int64 oldest_at)
{
	/* a probe goes alone: what it finds decides about the rest */
	int room = throttle->over_budget || throttle->failures > 0 ? 1 : throttle->concurrency;
	int64 when;

	if (in_flight >= room)
		return THROTTLE_AFTER_REPLY;
	if (now < throttle->retry_at || throttle->over_budget)
		return throttle->retry_at;
	when = budget_when(&throttle->budget, now, ready == 0 || ready >= throttle->batch_size, oldest_at);
	/* only replies tell that there is room again */
	return Min(when, later(throttle->budget.credit_at, throttle->set.max_delay));
}

void
throttle_sent(Throttle *throttle, int64 now, double random)
{
	budget_spend(&throttle->budget, now);
	throttle->probing = throttle->over_budget;
	if (budget_left(&throttle->budget) <= 0 && (!throttle->over_budget || now >= throttle->retry_at))
		start_probing(throttle, now, -1, random);
}

/*
 * Sizes
 */

static void
more_concurrency(Throttle *throttle)
{
	if (throttle->concurrency < throttle->concurrency_goal)
		throttle->concurrency++;
	else if (++throttle->successes >= CONCURRENCY_STEP_AFTER)
	{
		throttle->successes = 0;
		throttle->concurrency_goal = Min(throttle->concurrency_goal + 1, throttle->set.max_concurrent);
		throttle->concurrency = throttle->concurrency_goal;
	}
}

static void
less_concurrency(Throttle *throttle)
{
	throttle->concurrency_goal = Max(throttle->concurrency_goal / 2, 1);
	throttle->concurrency = Min(throttle->concurrency, throttle->concurrency_goal);
	throttle->successes = 0;
}

/*
 * Grow by ever larger steps, but stay below the size that met trouble last
 * until it has gone well for a while.
 */
static void
larger_batches(Throttle *throttle)
{
	int size = throttle->batch_size + BATCH_STEP * ++throttle->streak;
	int below = throttle->trouble_at / 4 * 3;

	if (throttle->trouble_at > 0 && size > below)
	{
		if (throttle->streak <= CALM_BATCHES)
			size = Max(throttle->batch_size, below);
		else
		{
			throttle->trouble_at = 0;
			throttle->streak = 1;
			size = throttle->batch_size + BATCH_STEP;
		}
	}
	throttle->batch_size = Min(size, throttle->set.max_batch_size);
}

/*
 * Halve, once for all requests that were under way together: those that were
 * larger than what is allowed by now say nothing new.
 */
static void
smaller_batches(Throttle *throttle, int records, int floor)
{
	throttle->streak = 0;
	throttle->successes = 0;
	if (records > throttle->batch_size || records <= floor)
		return;
	throttle->trouble_at = records;
	throttle->batch_size = Max(records / 2, floor);
}

void
throttle_contention(Throttle *throttle, int records)
{
	smaller_batches(throttle, records, Min(BATCH_FLOOR, throttle->set.max_batch_size));
}

void
throttle_timeout(Throttle *throttle, int records)
{
	smaller_batches(throttle, records, 1);
}

/* Slow is also what comes near the time-out. */
static int64
slow_request(const Throttle *throttle)
{
	return throttle->set.timeout > 0 ? Min(SLOW_REQUEST, throttle->set.timeout / 2) : SLOW_REQUEST;
}

void
throttle_success(Throttle *throttle, int64 elapsed, int records, bool backlog)
{
	int64 slow = slow_request(throttle);

	throttle->failures = 0;
	throttle->limits = 0;
	if (!throttle->over_budget)
		throttle->retry_at = throttle->asked_until;
	else if (throttle->probing && throttle->refused && budget_left(&throttle->budget) > 0)
		leave_budget_stop(throttle); /* no usage is told, but it isn't refused any more */
	if (elapsed > LONG_REQUEST)
		less_concurrency(throttle);
	if (elapsed > slow)
		throttle_contention(throttle, records);
	if (elapsed >= slow / 2)
		return;
	more_concurrency(throttle);
	/* a batch that wasn't filled doesn't tell whether a larger one would do */
	if (backlog && records >= throttle->batch_size / 2)
		larger_batches(throttle);
}

void
throttle_read(Throttle *throttle, int64 elapsed, int records)
{
	if (elapsed < 0 || elapsed > slow_request(throttle))
	{
		if (records <= throttle->read_size)
			throttle->read_size = Max(records / 2, 1);
	}
	else if (records >= throttle->read_size / 2 && elapsed < slow_request(throttle) / 2)
		throttle->read_size = Min(throttle->read_size + READ_STEP, READ_MAX);
}

/*
 * Failures
 */

void
throttle_failure(Throttle *throttle, int64 now, int retry_after, double random)
{
	int64 delay =
		backoff_delay(throttle->set.base_delay, throttle->set.max_delay, throttle->failures, random);

	if (throttle->failures < PG_INT32_MAX)
		throttle->failures++;
	throttle->successes = 0;
	throttle->concurrency = 1;
	wait_for(throttle, now, delay, retry_after, random);
}

void
throttle_concurrent_limit(Throttle *throttle, int64 now, int retry_after, double random)
{
	int64 base = throttle->set.base_delay;
	/* it ends when one of the org's long requests ends: seconds (section 2.6) */
	int64 max = Max(Min(throttle->set.max_delay, SHORT_LIMIT_MAX), 4 * base);
	int64 range;

	/* those that were under way together count once */
	if (now >= throttle->retry_at && throttle->limits < PG_INT32_MAX)
		throttle->limits++;
	range = grown(4 * base, max, throttle->limits - 1);
	less_concurrency(throttle);
	wait_for(throttle, now, base + portion(range, random), retry_after, random);
}

void
throttle_daily_limit(Throttle *throttle, int64 now, int retry_after, double random)
{
	throttle->refused = true;
	throttle->probing = false;
	start_probing(throttle, now, retry_after, random);
	/* the usage told with it has begun a wait of our own */
	if (retry_after > 0)
		throttle->retry_at = throttle->asked_until;
}
