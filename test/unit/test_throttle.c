/* Back-off, budget, sizes of batches: throttle.c */
#include "unit.h"

#include "throttle.h"

#define SECOND INT64CONST(1000000)
#define MINUTE (60 * SECOND)
#define NOW (1000 * MINUTE)

static const ThrottleSettings usual = {80, 4, 1000, SECOND, 10 * MINUTE, 120 * SECOND};

static Throttle
fresh(void)
{
	Throttle t;

	throttle_init(&t, &usual);
	return t;
}

static void
configure(Throttle *t, int budget_percent, int max_concurrent, int max_batch_size, int64 base, int64 max)
{
	ThrottleSettings settings = {budget_percent, max_concurrent, max_batch_size, base, max, 120 * SECOND};

	throttle_configure(t, &settings);
}

/* May a request start at once, with more than enough to send? */
static bool
may_send(const Throttle *t, int64 now, int in_flight)
{
	return throttle_may_send(t, now, in_flight, 5000, now) <= now;
}

/* Many requests that went well, each as large as allowed. */
static void
go_well(Throttle *t, int n)
{
	for (int i = 0; i < n; i++)
		throttle_success(t, SECOND, t->batch_size, true);
}

static void
starts_at_full_speed(void **state)
{
	Throttle t = fresh();

	(void) state;
	assert_int_equal(t.batch_size, 1000);
	assert_int_equal(t.concurrency, 4);
	assert_true(budget_left(&t.budget) == INT64_MAX);
	assert_true(may_send(&t, 0, 0));
	assert_true(may_send(&t, NOW, 3));
	assert_false(may_send(&t, NOW, 4));
}

static void
delay_has_full_jitter(void **state)
{
	static const struct
	{
		int attempt;
		double random;
		int64 expected;
	} cases[] = {
		{0, 0.0, 1000}, /* never at once */
		{0, 0.5, SECOND / 2},
		{1, 0.5, SECOND},
		{3, 0.25, 2 * SECOND},
		{9, 0.5, 256 * SECOND},
		{10, 0.5, 5 * MINUTE}, /* 1024 s are over the maximum */
		{1000000, 0.5, 5 * MINUTE},
		{INT_MAX, 1.0, 10 * MINUTE},
		{-5, 0.5, SECOND / 2},
		{2, -3.0, 1000},
		{2, 7.0, 4 * SECOND},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
		assert_int_equal(backoff_delay(SECOND, 10 * MINUTE, cases[i].attempt, cases[i].random),
						 cases[i].expected);
	assert_int_equal(backoff_delay(SECOND, 10 * MINUTE, 2, 0.0 / 0.0 * 1.0), 1000);
	assert_int_equal(backoff_delay(1, INT64_MAX, 200, 0.0), 1000);
}

/* 100,000 clients that were refused at once spread evenly over the range. */
static void
delay_is_spread_evenly(void **state)
{
	uint64_t seed = 42;
	int bucket[10] = {0};
	int n = 100000;

	(void) state;
	for (int i = 0; i < n; i++)
	{
		int64 delay = backoff_delay(SECOND, 10 * MINUTE, 4, next_fraction(&seed));

		assert_in_range(delay, 1000, 16 * SECOND);
		bucket[Min(delay / (16 * SECOND / 10), 9)]++;
	}
	for (int i = 0; i < 10; i++)
		assert_in_range(bucket[i], n / 10 - n / 100, n / 10 + n / 100);
}

static void
failures_back_off_and_probe_alone(void **state)
{
	Throttle t = fresh();
	int64 now = NOW;

	(void) state;
	for (int i = 0; i < 20; i++)
	{
		int64 expected = Min(SECOND << i, 10 * MINUTE) / 2;

		throttle_failure(&t, now, -1, 0.5);
		assert_int_equal(t.failures, i + 1);
		assert_int_equal(t.retry_at, now + expected);
		assert_false(may_send(&t, t.retry_at - 1, 0));
		assert_true(may_send(&t, t.retry_at, 0));
		assert_false(may_send(&t, t.retry_at, 1));
		now = t.retry_at;
	}
	throttle_success(&t, SECOND, 1, true);
	assert_int_equal(t.failures, 0);
	assert_true(may_send(&t, now, 1));
	assert_false(may_send(&t, now, 2));
	go_well(&t, 2);
	assert_true(may_send(&t, now, 3));
}

static void
a_second_failure_never_shortens_the_wait(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_failure(&t, NOW, 60, 0.0);
	throttle_failure(&t, NOW, -1, 0.0);
	assert_int_equal(t.retry_at, NOW + 60 * SECOND);
}

static void
retry_after_is_honoured_within_reason(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_failure(&t, NOW, 30, 0.5);
	assert_int_equal(t.retry_at, NOW + 30 * SECOND + SECOND / 2);
	t = fresh();
	throttle_failure(&t, NOW, 0, 0.0);
	assert_true(may_send(&t, NOW + 1000, 0));
	t = fresh();
	throttle_failure(&t, NOW, INT_MAX, 0.0);
	assert_int_equal(t.retry_at, NOW + 60 * MINUTE);
	t = fresh();
	throttle_failure(&t, INT64_MAX - 5, INT_MAX, 0.9);
	assert_int_equal(t.retry_at, INT64_MAX);
}

static void
budget_stops_and_resumes(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_usage(&t, 11999, 15000, NOW, 0.0);
	assert_false(t.over_budget);
	throttle_usage(&t, 12000, 15000, NOW, 0.5);
	assert_true(t.over_budget);
	assert_int_equal(t.retry_at, NOW + 10 * MINUTE);
	assert_false(may_send(&t, NOW + MINUTE, 0));

	/* requests under way don't prolong the wait */
	throttle_usage(&t, 12003, 15000, NOW + MINUTE, 0.9);
	assert_int_equal(t.retry_at, NOW + 10 * MINUTE);

	/* the probe goes alone, and finds no change */
	assert_true(may_send(&t, t.retry_at, 0));
	assert_false(may_send(&t, t.retry_at, 1));
	throttle_success(&t, SECOND, 1, true);
	throttle_usage(&t, 12004, 15000, NOW + 10 * MINUTE, 0.0);
	assert_int_equal(t.retry_at, NOW + 15 * MINUTE);

	/* room again: it begins slowly */
	throttle_usage(&t, 3000, 15000, NOW + 11 * MINUTE, 0.0);
	assert_false(t.over_budget);
	assert_true(may_send(&t, NOW + 11 * MINUTE, 0));
	assert_false(may_send(&t, NOW + 11 * MINUTE, 1));
	go_well(&t, 3);
	assert_true(may_send(&t, NOW + 11 * MINUTE, 3));
}

static void
usage_out_of_range(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_usage(&t, -1, 15000, NOW, 0.0);
	throttle_usage(&t, 5, 0, NOW, 0.0);
	throttle_usage(&t, 5, -7, NOW, 0.0);
	assert_true(budget_left(&t.budget) == INT64_MAX);
	throttle_usage(&t, INT64_MAX / 2, INT64_MAX, NOW, 0.0);
	assert_false(t.over_budget);
	throttle_usage(&t, INT64_MAX, INT64_MAX, NOW, 0.0);
	assert_true(t.over_budget);
	t = fresh();
	configure(&t, 0, 4, 1000, SECOND, MINUTE);
	throttle_usage(&t, 0, 100, NOW, 0.0);
	assert_true(t.over_budget);
}

/* A refusal outweighs the usage that a lagging header tells. */
static void
daily_limit_is_served_in_full(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_daily_limit(&t, NOW, -1, 0.0);
	assert_true(t.over_budget);
	assert_int_equal(t.retry_at, NOW + 5 * MINUTE);
	throttle_usage(&t, 10, 15000, NOW + SECOND, 0.0);
	assert_true(t.over_budget);
	configure(&t, 100, 4, 1000, SECOND, 10 * MINUTE);
	assert_true(t.over_budget);
	assert_false(may_send(&t, NOW + 5 * MINUTE - 1, 0));
	throttle_usage(&t, 10, 15000, NOW + 5 * MINUTE, 0.0);
	assert_false(t.over_budget);
	throttle_daily_limit(&t, NOW, -1, 1.0);
	assert_int_equal(t.retry_at, NOW + 15 * MINUTE);

	/* the probe is refused, or not: then what it tells counts */
	throttle_sent(&t, t.retry_at, 0.0);
	throttle_daily_limit(&t, t.retry_at, -1, 0.0);
	assert_true(t.over_budget);
	assert_int_equal(t.retry_at, NOW + 20 * MINUTE);
	throttle_sent(&t, t.retry_at, 0.0);
	throttle_usage(&t, 10, 15000, t.retry_at, 0.0);
	assert_false(t.over_budget);
	throttle_daily_limit(&t, NOW, 60 * 30, 0.0);
	assert_int_equal(t.retry_at, NOW + 30 * MINUTE);
}

/* The end of the budget stop leaves a back-off as it is. */
static void
scopes_do_not_mix(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_usage(&t, 15000, 15000, NOW, 0.0);
	throttle_failure(&t, NOW, 20 * 60, 0.0);
	throttle_usage(&t, 1, 15000, NOW, 0.0);
	assert_false(t.over_budget);
	assert_int_equal(t.retry_at, NOW + 20 * MINUTE);
	assert_int_equal(t.batch_size, 1000);
	assert_int_equal(t.concurrency_goal, 4);
}

static void
batch_size_adapts(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_contention(&t, 1000);
	assert_int_equal(t.batch_size, 500);
	/* those that were under way together count once */
	throttle_contention(&t, 1000);
	throttle_contention(&t, 700);
	assert_int_equal(t.batch_size, 500);
	throttle_success(&t, SECOND, 500, true);
	assert_int_equal(t.batch_size, 520);
	throttle_success(&t, SECOND, 520, false); /* nothing is waiting */
	throttle_success(&t, SECOND, 17, true);   /* nor does a small one tell */
	assert_int_equal(t.batch_size, 520);
	throttle_success(&t, 7 * SECOND, 520, true); /* neither fast nor slow */
	assert_int_equal(t.batch_size, 520);
	throttle_success(&t, 11 * SECOND, 520, true);
	assert_int_equal(t.batch_size, 260);
	throttle_contention(&t, 8); /* a lock in a small batch isn't for its size */
	assert_int_equal(t.batch_size, 260);
	for (int i = 0; i < 30; i++)
		throttle_contention(&t, t.batch_size);
	assert_int_equal(t.batch_size, 10);
	for (int i = 0; i < 30; i++)
		throttle_timeout(&t, t.batch_size);
	assert_int_equal(t.batch_size, 1);
	go_well(&t, 30);
	assert_int_equal(t.batch_size, 1000);
}

/* An org that meets locks when more than so many records go together. */
static int
trouble_of(Throttle *t, int bearable, int requests)
{
	int trouble = 0;

	for (int i = 0; i < requests; i++)
	{
		if (t->batch_size > bearable)
		{
			trouble++;
			throttle_contention(t, t->batch_size);
		}
		else
			throttle_success(t, SECOND, t->batch_size, true);
	}
	return trouble;
}

static void
batch_size_converges(void **state)
{
	static const int bearable[] = {700, 200, 97, 40, 11};

	(void) state;
	for (size_t i = 0; i < lengthof(bearable); i++)
	{
		Throttle t = fresh();
		int64 sent = 0;
		int trouble;

		trouble = trouble_of(&t, bearable[i], 7);
		assert_true(trouble <= 7);
		assert_in_range(t.batch_size, bearable[i] / 3, bearable[i] * 3 / 2 + 20);
		trouble = 0;
		for (int r = 0; r < 200; r++)
		{
			sent += t.batch_size <= bearable[i] ? t.batch_size : 0;
			trouble += trouble_of(&t, bearable[i], 1);
		}
		diag("an org that bears %d: %d of 200 requests met trouble, %lld records each", bearable[i], trouble,
			 (long long) sent / 200);
		assert_true(trouble <= 50);
		assert_true(sent / 200 >= bearable[i] / 2);

		/* it is over */
		go_well(&t, 22);
		assert_int_equal(t.batch_size, 1000);
	}
}

/* An org that takes so long for a record: requests stay well below the time-out. */
static void
batch_size_follows_latency(void **state)
{
	static const int milliseconds[] = {5, 50, 400, 3000};

	(void) state;
	for (size_t i = 0; i < lengthof(milliseconds); i++)
	{
		Throttle t = fresh();
		int timeouts = 0;
		int64 elapsed = 0;

		for (int r = 0; r < 100; r++)
		{
			elapsed = (int64) t.batch_size * milliseconds[i] * 1000;
			if (elapsed > t.set.timeout)
				timeouts++, throttle_timeout(&t, t.batch_size);
			else
				throttle_success(&t, elapsed, t.batch_size, true);
		}
		diag("%d ms a record: %d time-outs, then %d records a request", milliseconds[i], timeouts,
			 t.batch_size);
		assert_true(timeouts <= 5);
		assert_true(elapsed <= 12 * SECOND || t.batch_size <= 10);
	}
}

/* A time-out in the settings of less than 20 seconds: half of it is slow. */
static void
slow_is_relative_to_the_timeout(void **state)
{
	Throttle t;
	ThrottleSettings settings = usual;

	(void) state;
	settings.timeout = 2 * SECOND;
	throttle_init(&t, &settings);
	throttle_success(&t, SECOND / 3, 1000, true);
	assert_int_equal(t.batch_size, 1000);
	throttle_success(&t, SECOND + 1, 1000, true);
	assert_int_equal(t.batch_size, 500);
}

static void
reads_adapt(void **state)
{
	Throttle t = fresh();

	(void) state;
	assert_int_equal(t.read_size, 2000);
	throttle_read(&t, -1, 2000);
	throttle_read(&t, -1, 2000); /* was under way with the first */
	assert_int_equal(t.read_size, 1000);
	throttle_read(&t, 11 * SECOND, 1000);
	assert_int_equal(t.read_size, 500);
	throttle_read(&t, SECOND, 3);
	throttle_read(&t, 7 * SECOND, 500);
	assert_int_equal(t.read_size, 500);
	for (int i = 0; i < 20; i++)
		throttle_read(&t, SECOND, t.read_size);
	assert_int_equal(t.read_size, 2000);
	for (int i = 0; i < 20; i++)
		throttle_read(&t, -1, t.read_size);
	assert_int_equal(t.read_size, 1);
	assert_int_equal(t.batch_size, 1000);
}

static void
concurrency_adapts_slowly(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_concurrent_limit(&t, NOW, -1, 0.5);
	assert_int_equal(t.concurrency, 2);
	assert_int_equal(t.retry_at, NOW + 3 * SECOND);
	throttle_concurrent_limit(&t, NOW, -1, 0.0);
	throttle_concurrent_limit(&t, NOW, -1, 0.0);
	assert_int_equal(t.concurrency, 1);
	go_well(&t, 9);
	assert_int_equal(t.concurrency, 1);
	go_well(&t, 1);
	assert_int_equal(t.concurrency, 2);
	go_well(&t, 100);
	assert_int_equal(t.concurrency, 4);
	/* what counts against the limit lowers it, too */
	throttle_success(&t, 21 * SECOND, 100, true);
	assert_int_equal(t.concurrency, 2);
	throttle_concurrent_limit(&t, NOW, 120, 0.5);
	assert_int_equal(t.retry_at, NOW + 120 * SECOND + SECOND / 2);
}

/* Whatever kind of limit or failure says so, and however long our own wait would be. */
static void
retry_after_is_what_is_waited_for(void **state)
{
	Throttle t = fresh();

	(void) state;
	t.failures = 30;
	throttle_failure(&t, NOW, 2, 0.5);
	assert_int_equal(t.retry_at, NOW + 2 * SECOND + SECOND / 2);
	t = fresh();
	throttle_concurrent_limit(&t, NOW, 1, 0.25);
	assert_int_equal(t.retry_at, NOW + SECOND + SECOND / 4);
	t = fresh();
	throttle_daily_limit(&t, NOW, 1, 0.5);
	assert_true(t.over_budget);
	assert_int_equal(t.retry_at, NOW + SECOND + SECOND / 2);
	t = fresh();
	throttle_usage(&t, 15000, 15000, NOW, 0.5); /* the same reply's header */
	throttle_daily_limit(&t, NOW, 1, 0.0);
	assert_int_equal(t.retry_at, NOW + SECOND);
	throttle_sent(&t, t.retry_at, 0.5);
	throttle_daily_limit(&t, NOW + SECOND, 1, 0.0);
	assert_int_equal(t.retry_at, NOW + 2 * SECOND);
	throttle_daily_limit(&t, NOW, INT_MAX, 0.0);
	assert_int_equal(t.retry_at, NOW + 60 * MINUTE);

	/* our own share of the calls is no matter of the server's */
	t = fresh();
	throttle_usage(&t, 12000, 15000, NOW, 0.5);
	throttle_concurrent_limit(&t, NOW, 1, 0.0);
	assert_int_equal(t.retry_at, NOW + 10 * MINUTE);
}

/* What was under way when the server asked for a wait doesn't end it. */
static void
success_does_not_end_what_was_asked_for(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_concurrent_limit(&t, NOW, 60, 0.0);
	throttle_success(&t, SECOND, 100, true);
	assert_int_equal(t.retry_at, NOW + MINUTE);
	assert_false(may_send(&t, NOW + MINUTE - 1, 0));
	assert_true(may_send(&t, NOW + MINUTE, 0));
	throttle_concurrent_limit(&t, NOW + MINUTE, -1, 0.0);
	throttle_success(&t, SECOND, 100, true);
	assert_true(may_send(&t, NOW + MINUTE, 0));
}

static void
short_limits_make_longer_waits(void **state)
{
	static const int seconds[] = {5, 9, 17, 33, 61, 61, 61};
	Throttle t = fresh();
	int64 now = NOW;

	(void) state;
	for (size_t i = 0; i < lengthof(seconds); i++)
	{
		throttle_concurrent_limit(&t, now, -1, 1.0);
		assert_int_equal(t.retry_at, now + seconds[i] * SECOND);
		throttle_concurrent_limit(&t, now + 1, -1, 0.0); /* was under way with it */
		assert_int_equal(t.retry_at, now + seconds[i] * SECOND);
		now = t.retry_at;
	}
	throttle_success(&t, SECOND, 100, true);
	throttle_concurrent_limit(&t, now, -1, 1.0);
	assert_int_equal(t.retry_at, now + 5 * SECOND);
}

/* An org that tells no usage: what isn't refused any more goes on. */
static void
daily_limit_ends_without_usage(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_daily_limit(&t, NOW, -1, 0.0);
	throttle_success(&t, SECOND, 1, true); /* was under way */
	assert_true(t.over_budget);
	assert_int_equal(t.retry_at, NOW + 5 * MINUTE);
	throttle_sent(&t, t.retry_at, 0.0);
	throttle_success(&t, SECOND, 1, true);
	assert_false(t.over_budget);
	assert_true(may_send(&t, NOW + 5 * MINUTE, 0));
}

static void
used_up(void **state)
{
	Throttle t = fresh();

	(void) state;
	assert_false(budget_used_up(&t.budget));
	throttle_usage(&t, 14999, 15000, NOW, 0.0);
	assert_false(budget_used_up(&t.budget));
	throttle_usage(&t, 15000, 15000, NOW, 0.0);
	assert_true(budget_used_up(&t.budget));
	t = fresh();
	throttle_app_usage(&t, 10, 10, NOW, 0.0);
	assert_true(budget_used_up(&t.budget));
}

/* After an outage of days: one request, then one more for each that went well. */
static void
an_outage_ends_slowly(void **state)
{
	Throttle t = fresh();
	int64 now = NOW;
	int probes = 0;

	(void) state;
	for (int i = 0; i < 4; i++)
		throttle_failure(&t, now, -1, 0.5);
	for (uint64_t seed = 5; now < NOW + 3 * 24 * 60 * MINUTE; probes++)
	{
		now = t.retry_at;
		throttle_failure(&t, now, -1, next_fraction(&seed));
	}
	diag("%d probes in an outage of three days", probes);
	assert_in_range(probes, 700, 1100);
	now = t.retry_at;
	for (int room = 1; room <= 4; room++)
	{
		assert_true(may_send(&t, now, room - 1));
		assert_false(may_send(&t, now, room));
		throttle_success(&t, SECOND, 1000, true);
	}
	assert_false(may_send(&t, now, 4));
	assert_int_equal(t.batch_size, 1000);
}

/* Workers that were sent away together don't come back together. */
static void
no_two_in_step(void **state)
{
	enum
	{
		WORKERS = 200
	};
	static Throttle workers[WORKERS];
	uint64_t seed = 11;
	int together = 0;

	(void) state;
	for (int limit = 0; limit < 3; limit++)
	{
		for (int i = 0; i < WORKERS; i++)
		{
			workers[i] = fresh();
			if (limit == 0)
				throttle_failure(&workers[i], NOW, 60, next_fraction(&seed));
			else if (limit == 1)
				throttle_usage(&workers[i], 12000, 15000, NOW, next_fraction(&seed));
			else
				throttle_concurrent_limit(&workers[i], NOW, -1, next_fraction(&seed));
			for (int j = 0; j < i; j++)
				together += llabs(workers[i].retry_at - workers[j].retry_at) < SECOND / 10000;
		}
	}
	diag("%d of %d pairs come back within 0.1 ms of each other", together, 3 * WORKERS * (WORKERS - 1) / 2);
	assert_true(together < 3 * WORKERS * (WORKERS - 1) / 2 / 500);
}

static void
resumes_what_was_learnt(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_resume(&t, 0, 0);
	assert_int_equal(t.batch_size, 1000);
	assert_int_equal(t.concurrency, 4);
	throttle_resume(&t, 60, 1);
	assert_int_equal(t.batch_size, 60);
	assert_int_equal(t.concurrency, 1);
	go_well(&t, 3);
	assert_int_equal(t.concurrency, 4);
	throttle_resume(&t, 5000, 50);
	assert_int_equal(t.batch_size, 1000);
	assert_int_equal(t.concurrency, 4);
}

/* Near the budget a few changes wait for more; what can't wait says until when. */
static void
waits_for_fuller_batches(void **state)
{
	Throttle t = fresh();
	int64 when;

	(void) state;
	throttle_usage(&t, 11950, 15000, NOW, 0.5);
	for (int i = 0; i < 15; i++)
		throttle_sent(&t, NOW, 0.5);
	when = throttle_may_send(&t, NOW, 0, 3, NOW);
	assert_int_equal(when, NOW + 10 * MINUTE); /* it would be more, but usage has to be seen */
	assert_true(throttle_may_send(&t, when, 0, 3, NOW) <= when);
	assert_true(throttle_may_send(&t, NOW, 0, 1000, NOW) <= NOW);
	assert_true(throttle_may_send(&t, NOW, 0, 0, 0) <= NOW);
	assert_true(throttle_may_send(&t, NOW, 4, 1000, NOW) == THROTTLE_AFTER_REPLY);
	/* our own calls alone reach the budget: before Salesforce says so */
	for (int i = 0; i < 35; i++)
		throttle_sent(&t, NOW, 0.5);
	assert_true(t.over_budget);
	assert_int_equal(throttle_may_send(&t, NOW, 0, 1000, NOW), NOW + 10 * MINUTE);
	/* a larger share: at once */
	configure(&t, 90, 4, 1000, SECOND, 10 * MINUTE);
	assert_false(t.over_budget);
	assert_true(throttle_may_send(&t, NOW, 0, 3, NOW) <= NOW);
}

static void
settings_change(void **state)
{
	Throttle t = fresh();

	(void) state;
	configure(&t, 80, 2, 200, SECOND, MINUTE);
	assert_int_equal(t.batch_size, 200);
	assert_int_equal(t.concurrency, 2);
	configure(&t, 80, 8, 400, SECOND, MINUTE); /* stood at its limit */
	assert_int_equal(t.batch_size, 400);
	assert_int_equal(t.concurrency, 8);
	throttle_contention(&t, 400);
	configure(&t, 80, 8, 1000, SECOND, MINUTE);
	assert_int_equal(t.batch_size, 200); /* what was learnt is kept */

	throttle_usage(&t, 85, 100, NOW, 0.0);
	assert_true(t.over_budget);
	configure(&t, 90, 8, 1000, SECOND, MINUTE);
	assert_false(t.over_budget);
	assert_true(may_send(&t, NOW, 0));

	configure(&t, 500, -3, 0, -1, -1);
	assert_int_equal(t.budget.percent, 100);
	assert_int_equal(t.set.max_concurrent, 1);
	assert_int_equal(t.batch_size, 1);
	throttle_contention(&t, 1);
	assert_int_equal(t.batch_size, 1);
	throttle_failure(&t, NOW, -1, 0.5);
	assert_true(t.retry_at > NOW);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(starts_at_full_speed),
		cmocka_unit_test(delay_has_full_jitter),
		cmocka_unit_test(delay_is_spread_evenly),
		cmocka_unit_test(failures_back_off_and_probe_alone),
		cmocka_unit_test(a_second_failure_never_shortens_the_wait),
		cmocka_unit_test(retry_after_is_honoured_within_reason),
		cmocka_unit_test(budget_stops_and_resumes),
		cmocka_unit_test(usage_out_of_range),
		cmocka_unit_test(daily_limit_is_served_in_full),
		cmocka_unit_test(scopes_do_not_mix),
		cmocka_unit_test(batch_size_adapts),
		cmocka_unit_test(batch_size_converges),
		cmocka_unit_test(batch_size_follows_latency),
		cmocka_unit_test(slow_is_relative_to_the_timeout),
		cmocka_unit_test(reads_adapt),
		cmocka_unit_test(concurrency_adapts_slowly),
		cmocka_unit_test(retry_after_is_what_is_waited_for),
		cmocka_unit_test(success_does_not_end_what_was_asked_for),
		cmocka_unit_test(short_limits_make_longer_waits),
		cmocka_unit_test(daily_limit_ends_without_usage),
		cmocka_unit_test(used_up),
		cmocka_unit_test(an_outage_ends_slowly),
		cmocka_unit_test(no_two_in_step),
		cmocka_unit_test(resumes_what_was_learnt),
		cmocka_unit_test(waits_for_fuller_batches),
		cmocka_unit_test(settings_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
