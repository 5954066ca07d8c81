/*
 * The share of the org's calls over simulated days: budget.c and throttle.c
 *
 * An org of 15,000 calls a day, counted by the minute in a rolling window, tells
 * its usage late.  Databases with a load of changes call it when they may, and
 * other integrations call it as they like.
 */
#include "unit.h"

#include "throttle.h"

#define SECOND INT64CONST(1000000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY_MINUTES 1440
#define DAY_SECONDS 86400
#define START (8000 * 24 * HOUR)
#define LIMIT 15000
#define DAYS_MAX 8
#define QUEUE_SIZE (1 << 21)

typedef struct Database
{
	Throttle t;
	int32 *arrived; /* seconds at which waiting changes came, a ring */
	int64 head;
	int64 tail;
	int64 calls[DAYS_MAX];
	int64 sent[DAYS_MAX];
	double waited[DAYS_MAX]; /* seconds, of all changes sent that day */
	int longest[DAYS_MAX];
	int unaware; /* calls beyond the share, before it was told */
	int probes;  /* after it was told */
	int last_probe;
	int closest_probes; /* least seconds between two of them */
	int throttled;      /* seconds */
} Database;

typedef struct World
{
	uint64_t seed;
	int minutes[DAY_MINUTES]; /* calls of the window */
	int used;
	int told;
	int lag; /* seconds: the number told is so old, and renewed so often */
	int told_at;
	int history[16384]; /* used at each second, to tell it late */
	int highest;
	int ndatabases;
	Database databases[2];
} World;

/* Changes that come, and calls of others, in a second. */
typedef int (*Load)(World *world, int second);

static World *
new_world(int lag, int ndatabases, int percent)
{
	World *world = calloc(1, sizeof(World));

	assert_non_null(world);
	world->seed = 7;
	world->lag = lag;
	world->ndatabases = ndatabases;
	for (int i = 0; i < ndatabases; i++)
	{
		ThrottleSettings set = {percent, 4, 200, SECOND, 10 * MINUTE, 120 * SECOND};

		throttle_init(&world->databases[i].t, &set);
		world->databases[i].arrived = malloc(sizeof(int32) * QUEUE_SIZE);
		world->databases[i].closest_probes = INT_MAX;
	}
	return world;
}

static void
free_world(World *world)
{
	for (int i = 0; i < world->ndatabases; i++)
		free(world->databases[i].arrived);
	free(world);
}

static int64
clock_of(int second)
{
	return START + second * SECOND;
}

static void
roll(World *world, int second)
{
	if (second % 60 == 0)
	{
		world->used -= world->minutes[second / 60 % DAY_MINUTES];
		world->minutes[second / 60 % DAY_MINUTES] = 0;
	}
}

static void
count_call(World *world, int second, int calls)
{
	world->minutes[second / 60 % DAY_MINUTES] += calls;
	world->used += calls;
	world->highest = Max(world->highest, world->used);
}

/* What the header says: of lag seconds ago, and renewed only every so often. */
static int
told_usage(World *world, int second)
{
	if (world->lag == 0)
		return world->used;
	if (second - world->told_at >= world->lag / 2)
	{
		world->told_at = second;
		world->told = world->history[Max(second - world->lag, 0) % 16384];
	}
	return world->told;
}

static void
note_beyond(World *world, Database *database, int second)
{
	if (world->used < LIMIT / 100 * database->t.budget.percent)
		return;
	if (!database->t.over_budget)
	{
		database->unaware++;
		return;
	}
	if (database->probes++ > 0)
		database->closest_probes = Min(database->closest_probes, second - database->last_probe);
	database->last_probe = second;
}

static void
make_call(World *world, Database *database, int second)
{
	int day = second / DAY_SECONDS;
	int n = Min(database->tail - database->head, database->t.batch_size);

	note_beyond(world, database, second);
	throttle_sent(&database->t, clock_of(second), next_fraction(&world->seed));
	count_call(world, second, 1);
	database->calls[day]++;
	database->sent[day] += n;
	for (int i = 0; i < n; i++)
	{
		int wait = second - database->arrived[database->head++ % QUEUE_SIZE];

		database->waited[day] += wait;
		database->longest[day] = Max(database->longest[day], wait);
	}
	throttle_usage(&database->t, told_usage(world, second), LIMIT, clock_of(second),
				   next_fraction(&world->seed));
	throttle_success(&database->t, SECOND / 5, n, database->tail > database->head);
}

static void
live(World *world, Database *database, Load load, int second)
{
	int n = load(world, second);

	for (int i = 0; i < n && database->tail - database->head < QUEUE_SIZE; i++)
		database->arrived[database->tail++ % QUEUE_SIZE] = second;
	if (database->t.over_budget)
		database->throttled++;
	while (database->tail > database->head &&
		   throttle_may_send(&database->t, clock_of(second), 0, database->tail - database->head,
							 clock_of(database->arrived[database->head % QUEUE_SIZE])) <= clock_of(second))
		make_call(world, database, second);
}

static void
run(World *world, int days, Load load, Load others)
{
	for (int second = 0; second < days * DAY_SECONDS; second++)
	{
		roll(world, second);
		if (others)
			count_call(world, second, others(world, second));
		for (int i = 0; i < world->ndatabases; i++)
			live(world, &world->databases[i], load, second);
		world->history[second % 16384] = world->used;
	}
}

static double
latency(const Database *database, int day)
{
	return database->sent[day] ? database->waited[day] / database->sent[day] : 0;
}

static void
report(const char *name, const World *world, int days)
{
	for (int i = 0; i < world->ndatabases; i++)
		for (int day = 0; day < days; day++)
			diag("%s, database %d, day %d: %lld calls, %lld changes, waited %.1f s, longest %d s", name, i,
				 day + 1, (long long) world->databases[i].calls[day],
				 (long long) world->databases[i].sent[day], latency(&world->databases[i], day),
				 world->databases[i].longest[day]);
	diag("%s: at most %d calls in a day; beyond the share %d and %d probes, throttled %d s", name,
		 world->highest, world->databases[0].unaware, world->databases[0].probes,
		 world->databases[0].throttled);
}

/* Changes at an even or random rate, so many a day. */
static int
random_load(World *world, int a_day)
{
	double rate = (double) a_day / DAY_SECONDS;
	int n = (int) rate;

	return n + (next_fraction(&world->seed) < rate - n ? 1 : 0);
}

static int
load_10000(World *world, int second)
{
	return random_load(world, 10000);
}

static int
load_100000(World *world, int second)
{
	return random_load(world, 100000);
}

/* Office hours, and every hour a job that changes 3,000 rows one by one in five minutes. */
static int
load_bursts(World *world, int second)
{
	int in_day = second % DAY_SECONDS;
	int n = 0;

	if (in_day >= 8 * 3600 && in_day < 18 * 3600)
		n += random_load(world, 86400);
	if (second % 3600 < 300)
		n += 10;
	return n;
}

/* Five million rows at once, and a change now and then. */
static int
load_backlog(World *world, int second)
{
	return second == 10 ? QUEUE_SIZE - 1000 : random_load(world, 5000);
}

static int
load_100000_later(World *world, int second)
{
	return second < DAY_SECONDS ? 0 : random_load(world, 100000);
}

static int
others_9000(World *world, int second)
{
	return random_load(world, 9000);
}

/* Every other integration's night run eats what is left, and more. */
static int
others_greedy(World *world, int second)
{
	int in_day = second % DAY_SECONDS;

	return in_day >= 3600 && in_day < 2 * 3600 && second > DAY_SECONDS ? random_load(world, 13000 * 24) : 0;
}

/* A load that fits is never held up. */
static void
what_fits_goes_at_once(void **state)
{
	World *world = new_world(0, 1, 80);

	run(world, 5, load_10000, NULL);
	report("10,000 single changes", world, 5);
	assert_in_range(world->highest, 9000, 12000);
	assert_int_equal(world->databases[0].throttled, 0);
	for (int day = 0; day < 5; day++)
		assert_true(latency(&world->databases[0], day) < 0.5);
	free_world(world);
}

/* One that doesn't is spread: all day long a call every 7.2 seconds. */
static void
more_is_spread_evenly(void **state)
{
	World *world = new_world(0, 1, 80);
	Database *database = &world->databases[0];

	run(world, 6, load_100000, NULL);
	report("100,000 single changes", world, 6);
	assert_true(world->highest <= 12000);
	assert_int_equal(database->throttled, 0);
	assert_int_equal(database->probes + database->unaware, 0);
	for (int day = 1; day < 6; day++)
	{
		/* the allowance is used, so nothing waits longer than it must */
		assert_true(database->calls[day] > 11000);
		assert_true(latency(database, day) < 10);
		assert_true(database->longest[day] < 60);
	}
	free_world(world);
}

static void
bursts(void **state)
{
	World *world = new_world(0, 1, 80);
	Database *database = &world->databases[0];

	run(world, 6, load_bursts, NULL);
	report("bursts", world, 6);
	assert_true(world->highest <= 12000);
	assert_int_equal(database->throttled, 0);
	for (int day = 0; day < 6; day++)
	{
		assert_true(latency(database, day) < 15);
		assert_true(database->longest[day] < 180);
	}
	free_world(world);
}

/* A large backlog doesn't use up what the day's changes need. */
static void
a_backlog_leaves_room(void **state)
{
	World *world = new_world(0, 1, 80);
	Database *database = &world->databases[0];

	run(world, 3, load_backlog, NULL);
	report("a backlog", world, 3);
	assert_true(world->highest <= 12000);
	assert_int_equal(database->throttled, 0);
	assert_true(database->sent[0] + database->sent[1] > QUEUE_SIZE - 1000);
	assert_true(latency(database, 2) < 20);
	free_world(world);
}

/* The number told is minutes old and comes again and again; others have their part. */
static void
lagging_header(void **state)
{
	World *world = new_world(240, 1, 80);
	Database *database = &world->databases[0];

	run(world, 5, load_100000_later, others_9000);
	report("a lagging header, others with 9,000", world, 5);
	assert_int_equal(database->probes + database->unaware, 0);
	assert_int_equal(database->throttled, 0);
	for (int day = 2; day < 5; day++)
	{
		assert_true(database->longest[day] < 120);
		assert_true(database->calls[day] > 2500);
		assert_true(latency(database, day) < 45);
	}
	free_world(world);
}

/* Others run over our share: all that we add are slow probes, and then it goes on. */
static void
others_eat_it(void **state)
{
	World *world = new_world(60, 1, 80);
	Database *database = &world->databases[0];

	run(world, 4, load_10000, others_greedy);
	report("others eat it", world, 4);
	assert_true(world->highest > 12000);
	assert_true(database->throttled > 3600);
	assert_true(database->unaware <= 30);
	assert_true(database->probes > 100);
	assert_true(database->closest_probes >= 300);
	assert_true(database->tail - database->head < 500);
	free_world(world);
}

/* Two databases of one org, each with a share of its own of what all use. */
static void
two_databases(void **state)
{
	World *world = new_world(30, 2, 80);

	world->databases[1].t.set.budget_percent = 50;
	throttle_configure(&world->databases[1].t, &world->databases[1].t.set);
	run(world, 5, load_100000, NULL);
	report("two databases", world, 5);
	assert_true(world->highest <= 12000);
	assert_int_equal(world->databases[0].probes + world->databases[0].unaware, 0);
	/* the other one has used more than half by then: this one waits, but for probes */
	assert_true(world->databases[1].unaware <= 30);
	assert_true(world->databases[1].closest_probes >= 300);
	assert_true(world->databases[0].calls[4] > 9000);
	free_world(world);
}

/* Two equal ones share it and stay within it. */
static void
two_equal_databases(void **state)
{
	World *world = new_world(30, 2, 80);

	run(world, 5, load_100000, NULL);
	report("two equal databases", world, 5);
	assert_true(world->highest <= 12000 + 4);
	for (int day = 1; day < 5; day++)
		assert_true(world->databases[0].calls[day] + world->databases[1].calls[day] > 10500);
	free_world(world);
}

/*
 * Single functions
 */

static Budget
fresh(void)
{
	Budget budget = {.percent = 80};

	return budget;
}

static void
nothing_is_held_while_usage_is_unknown(void **state)
{
	Budget budget = fresh();

	for (int i = 0; i < 1000; i++)
		budget_spend(&budget, START);
	assert_true(budget_left(&budget) == PG_INT64_MAX);
	assert_false(budget_is_near(&budget));
	assert_true(budget_when(&budget, START, false, START) <= START);
	budget_told(&budget, -1, 100, START);
	budget_told(&budget, 1, 0, START);
	budget_told(&budget, 1, -5, START);
	assert_true(budget_left(&budget) == PG_INT64_MAX);
	budget_told(&budget, INT64_MAX / 2, INT64_MAX, START);
	assert_true(budget_left(&budget) > 0);
}

/* Calls that the number told may lack count, for five minutes. */
static void
own_calls_count_before_they_are_told(void **state)
{
	Budget budget = fresh();

	budget_told(&budget, 100, 1000, START);
	assert_int_equal(budget_left(&budget), 700);
	for (int i = 0; i < 30; i++)
		budget_spend(&budget, START);
	budget_told(&budget, 100, 1000, START + SECOND);
	assert_int_equal(budget_left(&budget), 670);
	budget_told(&budget, 110, 1000, START + SECOND);
	assert_int_equal(budget_left(&budget), 670);
	budget_told(&budget, 300, 1000, START + SECOND);
	assert_int_equal(budget_left(&budget), 500);
	budget_told(&budget, 105, 1000, START + 6 * MINUTE);
	assert_int_equal(budget_left(&budget), 695);
	/* the clock is set back */
	budget_spend(&budget, START - HOUR);
	assert_int_equal(budget_left(&budget), 694);
}

/* Without a past of our own: what is left, over a day.  With one: what comes back, too. */
static void
pace_of_what_is_left(void **state)
{
	Budget budget = fresh();
	int64 now = START;

	budget_told(&budget, 7000, 10000, now);
	assert_int_equal(budget_interval(&budget, now) / SECOND, DAY_SECONDS / 920); /* of 1,000, less 80 */

	/* 100 calls every hour for a day, and as many others */
	budget = fresh();
	budget_told(&budget, 4800, 10000, now);
	for (int hour = 0; hour < 24; hour++, now += HOUR)
	{
		for (int i = 0; i < 100; i++)
			budget_spend(&budget, now);
		budget_told(&budget, 4800 + hour, 10000, now + 10 * MINUTE);
	}
	budget_told(&budget, 7000, 10000, now);
	assert_in_range(budget_interval(&budget, now) / SECOND, DAY_SECONDS / 3400, DAY_SECONDS / 2900);
	/* a day without calls: nothing comes back any more */
	now += 25 * HOUR;
	budget_told(&budget, 7000, 10000, now);
	budget_spend(&budget, now);
	assert_in_range(budget_interval(&budget, now) / SECOND, 93, 95);
}

static void
credit(void **state)
{
	Budget budget = fresh();
	int at_once = 0;
	int64 now = START;
	int64 when;

	budget_told(&budget, 7000, 10000, now);
	assert_true(budget_is_near(&budget));
	while (budget_when(&budget, now, false, now) <= now && at_once < 1000)
	{
		budget_spend(&budget, now);
		at_once++;
	}
	assert_in_range(at_once, 40, 60); /* half of a tenth of 1,000 */

	/* a full batch, or one that is old, still goes; until the credit is used up */
	assert_true(budget_when(&budget, now, true, now) <= now);
	assert_true(budget_when(&budget, now, false, now - HOUR) <= now);
	assert_true(budget_when(&budget, now, false, 0) <= now);
	when = budget_when(&budget, now, false, now);
	assert_true(when > now && when < now + 90 * SECOND);
	while (budget_when(&budget, now, true, now) <= now && at_once < 1000)
	{
		budget_spend(&budget, now);
		at_once++;
	}
	assert_in_range(at_once, 90, 100);
	when = budget_when(&budget, now, true, now);
	assert_in_range((when - now) / SECOND, 60, 110);
	assert_true(budget_when(&budget, when + SECOND, true, now) <= when + SECOND);

	/* it grows again */
	now += 12 * HOUR;
	assert_true(budget_when(&budget, now, false, now) <= now);
}

static void
at_the_share(void **state)
{
	Budget budget = fresh();

	budget_told(&budget, 800, 1000, START);
	assert_int_equal(budget_left(&budget), 0);
	assert_true(budget_when(&budget, START, true, 0) == PG_INT64_MAX);
	assert_true(budget_interval(&budget, START) == PG_INT64_MAX);
	budget_told(&budget, 5000, 1000, START);
	assert_true(budget_left(&budget) < 0);
	assert_true(budget_when(&budget, START, true, 0) == PG_INT64_MAX);
}

/* An allowance of the app's own counts in full, beside the org's. */
static void
app_allowance(void **state)
{
	Budget budget = fresh();

	budget_told(&budget, 100, 100000, START);
	budget_told_app(&budget, 10, 250, START);
	assert_int_equal(budget_left(&budget), 240);
	assert_false(budget_is_near(&budget));
	budget_told_app(&budget, 200, 250, START);
	assert_true(budget_is_near(&budget));
	budget_told_app(&budget, 250, 250, START);
	assert_int_equal(budget_left(&budget), 0);
	budget_told_app(&budget, 0, 0, START);
	assert_int_equal(budget_left(&budget), 80000 - 100);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_held_while_usage_is_unknown),
		cmocka_unit_test(own_calls_count_before_they_are_told),
		cmocka_unit_test(pace_of_what_is_left),
		cmocka_unit_test(credit),
		cmocka_unit_test(at_the_share),
		cmocka_unit_test(app_allowance),
		cmocka_unit_test(what_fits_goes_at_once),
		cmocka_unit_test(more_is_spread_evenly),
		cmocka_unit_test(bursts),
		cmocka_unit_test(a_backlog_leaves_room),
		cmocka_unit_test(lagging_header),
		cmocka_unit_test(others_eat_it),
		cmocka_unit_test(two_databases),
		cmocka_unit_test(two_equal_databases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
