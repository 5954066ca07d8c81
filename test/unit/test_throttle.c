/* Back-off, budget, sizes of batches: throttle.c */
#include "unit.h"

#include "throttle.h"

#define SECOND INT64CONST(1000000)
#define MINUTE (60 * SECOND)
#define NOW (1000 * MINUTE)

static Throttle
fresh(void)
{
	Throttle t;

	throttle_init(&t, 80, 4, 1000, SECOND, 10 * MINUTE);
	return t;
}

static void
starts_at_full_speed(void **state)
{
	Throttle t = fresh();

	(void) state;
	assert_int_equal(t.batch_size, 1000);
	assert_int_equal(t.concurrency, 4);
	assert_int_equal(t.api_used, -1);
	assert_true(throttle_may_send(&t, 0, 0));
	assert_true(throttle_may_send(&t, NOW, 3));
	assert_false(throttle_may_send(&t, NOW, 4));
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
		assert_false(throttle_may_send(&t, t.retry_at - 1, 0));
		assert_true(throttle_may_send(&t, t.retry_at, 0));
		assert_false(throttle_may_send(&t, t.retry_at, 1));
		now = t.retry_at;
	}
	throttle_success(&t, SECOND, true);
	assert_int_equal(t.failures, 0);
	assert_true(throttle_may_send(&t, now, 3));
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
	assert_true(throttle_may_send(&t, NOW, 0));
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
	assert_false(throttle_may_send(&t, NOW + MINUTE, 0));

	/* requests under way don't prolong the wait */
	throttle_usage(&t, 12003, 15000, NOW + MINUTE, 0.9);
	assert_int_equal(t.retry_at, NOW + 10 * MINUTE);

	/* the probe goes alone, and finds no change */
	assert_true(throttle_may_send(&t, t.retry_at, 0));
	assert_false(throttle_may_send(&t, t.retry_at, 1));
	throttle_success(&t, SECOND, true);
	throttle_usage(&t, 12004, 15000, NOW + 10 * MINUTE, 0.0);
	assert_int_equal(t.retry_at, NOW + 15 * MINUTE);

	throttle_usage(&t, 3000, 15000, NOW + 11 * MINUTE, 0.0);
	assert_false(t.over_budget);
	assert_true(throttle_may_send(&t, NOW + 11 * MINUTE, 3));
}

static void
usage_out_of_range(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_usage(&t, -1, 15000, NOW, 0.0);
	throttle_usage(&t, 5, 0, NOW, 0.0);
	throttle_usage(&t, 5, -7, NOW, 0.0);
	assert_int_equal(t.api_used, -1);
	throttle_usage(&t, INT64_MAX / 2, INT64_MAX, NOW, 0.0);
	assert_false(t.over_budget);
	throttle_usage(&t, INT64_MAX, INT64_MAX, NOW, 0.0);
	assert_true(t.over_budget);
	t = fresh();
	throttle_configure(&t, 0, 4, 1000, SECOND, MINUTE);
	throttle_usage(&t, 0, 100, NOW, 0.0);
	assert_true(t.over_budget);
}

/* A refusal outweighs the usage that a lagging header tells. */
static void
daily_limit_is_served_in_full(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_daily_limit(&t, NOW, 0.0);
	assert_true(t.over_budget);
	assert_int_equal(t.retry_at, NOW + 5 * MINUTE);
	throttle_usage(&t, 10, 15000, NOW + SECOND, 0.0);
	assert_true(t.over_budget);
	throttle_configure(&t, 100, 4, 1000, SECOND, 10 * MINUTE);
	assert_true(t.over_budget);
	assert_false(throttle_may_send(&t, NOW + 5 * MINUTE - 1, 0));
	throttle_usage(&t, 10, 15000, NOW + 5 * MINUTE, 0.0);
	assert_false(t.over_budget);
	throttle_daily_limit(&t, NOW, 1.0);
	assert_int_equal(t.retry_at, NOW + 15 * MINUTE);
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
	assert_int_equal(t.concurrency, 4);
}

static void
batch_size_adapts(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_contention(&t);
	assert_int_equal(t.batch_size, 500);
	throttle_success(&t, SECOND, true);
	assert_int_equal(t.batch_size, 520);
	throttle_success(&t, SECOND, false); /* nothing is waiting */
	assert_int_equal(t.batch_size, 520);
	throttle_success(&t, 7 * SECOND, true); /* neither fast nor slow */
	assert_int_equal(t.batch_size, 520);
	throttle_success(&t, 11 * SECOND, true);
	assert_int_equal(t.batch_size, 260);
	for (int i = 0; i < 30; i++)
		throttle_contention(&t);
	assert_int_equal(t.batch_size, 10);
	for (int i = 0; i < 200; i++)
		throttle_success(&t, SECOND, true);
	assert_int_equal(t.batch_size, 1000);
}

static void
concurrency_adapts_slowly(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_concurrent_limit(&t, NOW, 0.5);
	assert_int_equal(t.concurrency, 2);
	assert_int_equal(t.retry_at, NOW + 3 * SECOND);
	throttle_concurrent_limit(&t, NOW, 0.0);
	throttle_concurrent_limit(&t, NOW, 0.0);
	assert_int_equal(t.concurrency, 1);
	for (int i = 0; i < 9; i++)
		throttle_success(&t, SECOND, true);
	assert_int_equal(t.concurrency, 1);
	throttle_success(&t, SECOND, true);
	assert_int_equal(t.concurrency, 2);
	for (int i = 0; i < 100; i++)
		throttle_success(&t, SECOND, true);
	assert_int_equal(t.concurrency, 4);
}

static void
settings_change(void **state)
{
	Throttle t = fresh();

	(void) state;
	throttle_configure(&t, 80, 2, 200, SECOND, MINUTE);
	assert_int_equal(t.batch_size, 200);
	assert_int_equal(t.concurrency, 2);
	throttle_configure(&t, 80, 8, 400, SECOND, MINUTE); /* stood at its limit */
	assert_int_equal(t.batch_size, 400);
	assert_int_equal(t.concurrency, 8);
	throttle_contention(&t);
	throttle_configure(&t, 80, 8, 1000, SECOND, MINUTE);
	assert_int_equal(t.batch_size, 200); /* what was learnt is kept */

	throttle_usage(&t, 85, 100, NOW, 0.0);
	assert_true(t.over_budget);
	throttle_configure(&t, 90, 8, 1000, SECOND, MINUTE);
	assert_false(t.over_budget);
	assert_true(throttle_may_send(&t, NOW, 0));

	throttle_configure(&t, 500, -3, 0, -1, -1);
	assert_int_equal(t.budget_percent, 100);
	assert_int_equal(t.max_concurrent, 1);
	assert_int_equal(t.batch_size, 1);
	throttle_contention(&t);
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
		cmocka_unit_test(concurrency_adapts_slowly),
		cmocka_unit_test(settings_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
