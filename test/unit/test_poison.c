/* Who is to blame when a write fails as a whole: poison.c */
#include "unit.h"

#include "poison.h"

#define N 1024
#define ATTEMPTS 10

/*
 * A worker with rows to send, one request at a time, and a server.  A row has
 * the limit that a split gave it; rows of a request that failed go to the end.
 */
typedef struct Row
{
	int id;
	int limit;
	int attempts;
	int64 since;
	bool dead;
	bool sent;
} Row;

typedef struct Run
{
	Poison poison;
	Row rows[N];
	int queue[N];
	int nqueue;
	int requests;
	int controls;
	int dead;
	int sent;
	uint64_t seed;
} Run;

/* Does a write of these rows fail as a whole? */
typedef bool (*Server)(Run *run, const int *ids, int n);

static Run *
new_run(int n)
{
	Run *run = calloc(1, sizeof(Run));

	assert_non_null(run);
	run->seed = 3;
	run->nqueue = n;
	for (int i = 0; i < n; i++)
	{
		run->rows[i].id = i;
		run->queue[i] = i;
	}
	return run;
}

static const char *
key_of(int id)
{
	static char key[16];

	snprintf(key, sizeof(key), "%d", id);
	return key;
}

static int
pick(Run *run, int max, int *ids)
{
	int n = 0;

	for (int i = 0; i < run->nqueue && n < max; i++)
	{
		Row *row = &run->rows[run->queue[i]];

		if (row->limit > 0 && n > 0 && row->limit <= n)
			continue;
		if (row->limit > 0)
			max = Min(max, row->limit);
		ids[n++] = row->id;
	}
	return n;
}

static void
take_out(Run *run, const int *ids, int n)
{
	int kept = 0;

	for (int i = 0; i < run->nqueue; i++)
	{
		bool taken = false;

		for (int j = 0; j < n && !taken; j++)
			taken = ids[j] == run->queue[i];
		if (!taken)
			run->queue[kept++] = run->queue[i];
	}
	run->nqueue = kept;
}

static void
put_back(Run *run, const int *ids, int n)
{
	for (int i = 0; i < n; i++)
		run->queue[run->nqueue++] = ids[i];
}

static void
failed(Run *run, const int *ids, int n)
{
	PoisonVerdict verdict = poison_failed(&run->poison, 1, key_of(ids[0]), run->rows[ids[0]].since, n);

	for (int i = 0; i < n; i++)
	{
		if (run->rows[ids[i]].since == 0)
			run->rows[ids[i]].since = poison_mark(&run->poison);
		if (verdict == POISON_SPLIT)
			run->rows[ids[i]].limit = (n + 1) / 2;
	}
	if (poison_suspected(&run->poison, 1, key_of(ids[0])))
		run->rows[ids[0]].limit = 1;
	if (verdict == POISON_RECORD && ++run->rows[ids[0]].attempts == ATTEMPTS)
	{
		run->rows[ids[0]].dead = true;
		run->dead++;
		poison_forget(&run->poison, 1, key_of(ids[0]));
		return;
	}
	put_back(run, ids, n);
}

static void
passed(Run *run, const int *ids, int n, int64 mark)
{
	poison_passed(&run->poison, mark, true);
	for (int i = 0; i < n; i++)
	{
		poison_forget(&run->poison, 1, key_of(ids[i]));
		run->rows[ids[i]].sent = true;
		run->sent++;
	}
}

/* One request; control: whether requests that aren't writes come back well. */
static void
step(Run *run, Server server, int batch_size, bool control)
{
	static int ids[N];
	int n = pick(run, poison_batch(&run->poison, batch_size), ids);
	int64 mark = poison_mark(&run->poison);

	run->requests++;
	if (poison_wants_control(&run->poison))
	{
		run->controls++;
		if (control)
			poison_passed(&run->poison, mark, false);
		else
			poison_other_failed(&run->poison);
	}
	take_out(run, ids, n);
	if (server(run, ids, n))
		failed(run, ids, n);
	else
		passed(run, ids, n, mark);
}

static bool
contains(const int *ids, int n, int id)
{
	for (int i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

static bool
down(Run *run, const int *ids, int n)
{
	return true;
}

static bool
well(Run *run, const int *ids, int n)
{
	return false;
}

static bool
row_77(Run *run, const int *ids, int n)
{
	return contains(ids, n, 77);
}

static bool
first_and_last(Run *run, const int *ids, int n)
{
	return contains(ids, n, 0) || contains(ids, n, N - 1);
}

static bool
every_hundredth(Run *run, const int *ids, int n)
{
	for (int i = 0; i < n; i++)
		if (ids[i] % 100 == 50)
			return true;
	return false;
}

static bool
flapping(Run *run, const int *ids, int n)
{
	return next_fraction(&run->seed) < 0.5;
}

static void
finish(Run *run, Server server, int batch_size, int most)
{
	while (run->nqueue > 0 && run->requests < most)
		step(run, server, batch_size, server != flapping || next_fraction(&run->seed) < 0.5);
}

/* One record among many is found by halving. */
static void
one_record(void **state)
{
	static const int sizes[] = {100, 200, 1000};

	(void) state;
	for (size_t i = 0; i < lengthof(sizes); i++)
	{
		Run *run = new_run(sizes[i]);

		finish(run, row_77, 1000, 1000);
		diag("one of %d: %d requests, %d of them to make sure of the record", sizes[i], run->requests,
			 ATTEMPTS);
		assert_int_equal(run->nqueue, 0);
		assert_int_equal(run->dead, 1);
		assert_true(run->rows[77].dead);
		assert_int_equal(run->sent, sizes[i] - 1);
		assert_true(run->requests - ATTEMPTS <= 3 * 10 + 4);
		assert_true(run->controls <= ATTEMPTS);
		assert_int_equal(run->poison.nsuspects, 0);
		free(run);
	}
}

static void
several_records(void **state)
{
	Run *run = new_run(N);

	(void) state;
	finish(run, first_and_last, 1000, 1000);
	diag("two of %d: %d requests", N, run->requests);
	assert_int_equal(run->dead, 2);
	assert_int_equal(run->sent, N - 2);
	assert_true(run->requests < 120);
	free(run);

	run = new_run(1000);
	finish(run, every_hundredth, 1000, 3000);
	diag("ten of 1000: %d requests", run->requests);
	assert_int_equal(run->dead, 10);
	assert_int_equal(run->sent, 990);
	assert_true(run->requests < 500);
	free(run);
}

/* A server that is down blames nobody, however long; then all goes in few requests. */
static void
an_outage(void **state)
{
	static const int sizes[] = {1, 2, 7, 1000};

	(void) state;
	for (size_t i = 0; i < lengthof(sizes); i++)
	{
		Run *run = new_run(sizes[i]);

		for (int r = 0; r < 5000; r++)
			step(run, down, 1000, r % 2);
		for (int r = 0; r < sizes[i]; r++)
			assert_int_equal(run->rows[r].attempts, 0);
		assert_int_equal(run->dead, 0);
		run->requests = 0;
		finish(run, well, 1000, 1000);
		diag("%d rows after an outage: %d requests", sizes[i], run->requests);
		assert_int_equal(run->sent, sizes[i]);
		assert_true(run->requests <= 10);
		free(run);
	}
}

/* The outage begins while a record is under suspicion, or after a good start. */
static void
an_outage_in_the_middle(void **state)
{
	for (int start = 1; start < 40; start++)
	{
		Run *run = new_run(500);
		int attempts;

		(void) state;
		for (int r = 0; r < start; r++)
			step(run, row_77, 100, true);
		attempts = run->rows[77].attempts;
		for (int r = 0; r < 2000 && run->nqueue > 0; r++)
			step(run, down, 100, false);
		assert_true(run->rows[77].attempts <= attempts + 1);
		for (int r = 0; r < 500; r++)
			assert_true(run->rows[r].attempts == 0 || r == 77);
		finish(run, row_77, 100, 5000);
		assert_int_equal(run->dead, 1);
		assert_int_equal(run->sent, 499);
		free(run);
	}
}

/* A server that fails every other request at random. */
static void
a_flapping_server(void **state)
{
	int dead = 0;
	int sent = 0;

	(void) state;
	for (int i = 0; i < 300; i++)
	{
		Run *run = new_run(300);

		run->seed = i + 1;
		finish(run, flapping, 100, 5000);
		dead += run->dead;
		sent += run->sent;
		free(run);
	}
	diag("%d of %d records blamed by a server that fails half of all requests", dead, sent);
	assert_int_equal(dead, 0);
	assert_int_equal(sent, 300 * 300);
}

/* A lone record may be what fails, or the server: it waits until another write passes. */
static void
a_lone_record(void **state)
{
	Poison poison = {0};
	int64 since = 0;

	(void) state;
	for (int i = 0; i < 100; i++)
	{
		poison_passed(&poison, poison_mark(&poison), false); /* that others read says nothing */
		assert_int_equal(poison_failed(&poison, 1, "a", since, 1), POISON_SERVER);
		since = 1;
	}
	assert_true(poison_suspected(&poison, 1, "a"));
	assert_false(poison_suspected(&poison, 2, "a"));
	assert_false(poison_wants_control(&poison));
	poison_passed(&poison, 0, true); /* was sent before the first failure */
	assert_int_equal(poison_failed(&poison, 1, "a", since, 1), POISON_SERVER);
	poison_passed(&poison, poison_mark(&poison), true);
	assert_int_equal(poison_failed(&poison, 1, "a", since, 1), POISON_UNSURE);
	assert_true(poison_wants_control(&poison));
	assert_int_equal(poison_failed(&poison, 1, "a", since, 1), POISON_UNSURE);
	assert_int_equal(poison_failed(&poison, 1, "a", since, 1), POISON_UNSURE);
	poison_passed(&poison, poison_mark(&poison), false);
	assert_false(poison_wants_control(&poison));
	assert_int_equal(poison_failed(&poison, 1, "a", since, 1), POISON_RECORD);

	/* another failure in between: it may be the server again */
	poison_passed(&poison, poison_mark(&poison), false);
	assert_int_equal(poison_failed(&poison, 1, "b", 0, 7), POISON_SPLIT);
	assert_int_equal(poison_failed(&poison, 1, "a", since, 1), POISON_UNSURE);
	poison_passed(&poison, poison_mark(&poison), true);
	assert_int_equal(poison_failed(&poison, 1, "a", since, 1), POISON_RECORD);
	poison_forget(&poison, 1, "a");
	assert_int_equal(poison_failed(&poison, 1, "a", 0, 1), POISON_SERVER);
}

static void
suspects_are_bounded(void **state)
{
	Poison poison = {0};

	(void) state;
	for (int i = 0; i < 5000; i++)
	{
		char *key = psprintf("%d", i);

		poison_passed(&poison, poison_mark(&poison), true);
		assert_int_equal(poison_failed(&poison, 1, key, 0, 1), POISON_SERVER);
	}
	assert_int_equal(poison.nsuspects, 200);
	assert_true(poison_suspected(&poison, 1, "4999"));
	assert_false(poison_suspected(&poison, 1, "10"));
	for (int i = 0; i < 5000; i++)
		poison_forget(&poison, 1, psprintf("%d", i));
	assert_int_equal(poison.nsuspects, 0);
}

static void
blames_mapping(void **state)
{
	int in_a_row = 0;

	(void) state;
	assert_true(poison_blames_mapping(&in_a_row, 200, 200));
	in_a_row = 0;
	assert_false(poison_blames_mapping(&in_a_row, 199, 200)); /* one was accepted */
	assert_false(poison_blames_mapping(&in_a_row, 1, 1));
	assert_false(poison_blames_mapping(&in_a_row, 1, 1));
	assert_true(poison_blames_mapping(&in_a_row, 1, 1));
	assert_false(poison_blames_mapping(&in_a_row, 0, 1));
	assert_false(poison_blames_mapping(&in_a_row, 2, 2));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_record),
		cmocka_unit_test(several_records),
		cmocka_unit_test(an_outage),
		cmocka_unit_test(an_outage_in_the_middle),
		cmocka_unit_test(a_flapping_server),
		cmocka_unit_test(a_lone_record),
		cmocka_unit_test(suspects_are_bounded),
		cmocka_unit_test(blames_mapping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
