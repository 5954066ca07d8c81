/* The work at hand: folding, order, choice of what goes into a request: batch.c */
#include "unit.h"

#include "batch.h"

static Unit *
event(Work *work, char operation, const char *key, const char *old_key, int n, int column)
{
	uint8 bitmap[2] = {0};
	WorkEvent e = {.mapping = 1,
				   .operation = operation,
				   .key = key,
				   .old_key = old_key,
				   .changed = bitmap,
				   .changed_len = column > 0 ? 2 : -1,
				   .event_at = 100 + n,
				   .ref = {7, n}};

	if (column > 0)
		bitmap[(column - 1) / 8] = 1 << ((column - 1) % 8);
	return batch_event(work, &e);
}

static int
pick(Work *work, int max, Unit **units)
{
	return batch_pick(work, batch_queue(work, 1), max, units);
}

static void
changes_of_a_row_are_folded(void **state)
{
	Work *work = batch_create();
	Unit *unit = event(work, EVENT_UPDATE, "a", NULL, 1, 2);
	Unit *units[10];

	assert_ptr_equal(event(work, EVENT_UPDATE, "a", NULL, 2, 9), unit);
	assert_int_equal(batch_size(work), 1);
	assert_int_equal(unit->nrefs, 2);
	assert_int_equal(unit->changed[0], 1 << 1);
	assert_int_equal(unit->changed[1], 1 << 0);
	assert_int_equal(unit->first_event_at, 101);
	assert_int_equal(unit->event_at, 102);
	assert_false(unit->whole);
	assert_int_equal(pick(work, 10, units), 1);
	batch_done(work, unit);
	assert_int_equal(batch_size(work), 0);
	assert_int_equal(pick(work, 10, units), 0);
}

static void
an_event_counts_once(void **state)
{
	Work *work = batch_create();
	Unit *unit = event(work, EVENT_UPDATE, "a", NULL, 1, 1);

	assert_null(event(work, EVENT_UPDATE, "a", NULL, 1, 1));
	batch_start(unit);
	assert_null(event(work, EVENT_UPDATE, "a", NULL, 1, 1));
	assert_non_null(event(work, EVENT_UPDATE, "a", NULL, 2, 1));
	assert_null(event(work, EVENT_UPDATE, "a", NULL, 2, 1));
	assert_int_equal(batch_size(work), 2);
}

static void
a_row_in_flight_gets_a_successor(void **state)
{
	Work *work = batch_create();
	Unit *unit = event(work, EVENT_INSERT, "a", NULL, 1, 0);
	Unit *next;
	Unit *units[10];

	assert_true(unit->whole && unit->inserted);
	batch_start(unit);
	next = event(work, EVENT_UPDATE, "a", NULL, 2, 3);
	assert_ptr_not_equal(next, unit);
	assert_int_equal(pick(work, 10, units), 0);
	batch_done(work, unit);
	assert_int_equal(pick(work, 10, units), 1);
	assert_ptr_equal(units[0], next);
	assert_ptr_equal(batch_find(work, 1, "a"), next);
}

static void
what_failed_takes_its_successor_in(void **state)
{
	Work *work = batch_create();
	Unit *unit = event(work, EVENT_UPDATE, "a", NULL, 1, 1);

	batch_start(unit);
	(void) event(work, EVENT_UPDATE, "a", NULL, 2, 12);
	(void) event(work, EVENT_DELETE, "a", NULL, 3, 0);
	batch_fold_next(work, unit);
	assert_null(unit->next);
	assert_int_equal(unit->nrefs, 3);
	assert_int_equal(unit->changed[1], 1 << 3);
	assert_true(unit->deleted);
	assert_int_equal(batch_size(work), 1);
	batch_again(unit);
	batch_done(work, unit);
	assert_int_equal(batch_size(work), 0);
}

static void
requests_are_of_one_kind(void **state)
{
	Work *work = batch_create();
	Unit *units[10];

	event(work, EVENT_INSERT, "a", NULL, 1, 0)->kind = UNIT_UPSERT;
	event(work, EVENT_INSERT, "b", NULL, 2, 0)->kind = UNIT_DELETE;
	(void) event(work, EVENT_INSERT, "c", NULL, 3, 0);
	assert_int_equal(pick(work, 10, units), 2);
	assert_string_equal(units[0]->key, "a");
	assert_string_equal(units[1]->key, "c");
	assert_int_equal(pick(work, 1, units), 1);
}

static void
a_limit_holds_for_the_whole_request(void **state)
{
	Work *work = batch_create();
	Unit *units[10];

	for (int i = 0; i < 6; i++)
		event(work, EVENT_INSERT, psprintf("%d", i), NULL, i, 0)->limit = i < 4 ? 2 : 0;
	assert_int_equal(pick(work, 10, units), 2);
	batch_start(units[0]);
	batch_start(units[1]);
	assert_int_equal(pick(work, 10, units), 2);
	batch_start(units[0]);
	batch_start(units[1]);
	assert_int_equal(pick(work, 10, units), 2);
}

/* What batch_take offers, in order; keys that are not to go yet are in refused. */
typedef struct Taken
{
	Work *work;
	const char *refused;
	char order[200];
	bool shared;
	bool look;
} Taken;

static bool
take(const WorkEvent *event, void *arg)
{
	Taken *taken = arg;

	if (taken->refused && strstr(taken->refused, event->key))
		return false;
	sprintf(taken->order + strlen(taken->order), "%c%s ", event->operation, event->key);
	if (event->operation == EVENT_KEY_CHANGE)
	{
		Unit *unit = batch_move(taken->work, event, taken->shared);

		if (taken->look)
			batch_add_old_key(taken->work, unit, event->old_key);
	}
	else
		(void) batch_fold(taken->work, event);
	return true;
}

static void
a_key_change_is_put_aside_with_what_follows(void **state)
{
	Work *work = batch_create();
	Taken taken = {.work = work};
	Unit *units[10];

	(void) event(work, EVENT_UPDATE, "a", NULL, 1, 1);
	assert_null(event(work, EVENT_KEY_CHANGE, "b", "a", 2, 2));
	assert_null(event(work, EVENT_INSERT, "a", NULL, 3, 0));
	assert_null(event(work, EVENT_UPDATE, "b", NULL, 4, 3));
	assert_null(event(work, EVENT_UPDATE, "b", NULL, 4, 3));
	(void) event(work, EVENT_UPDATE, "c", NULL, 5, 3);
	assert_true(batch_has_aside(work));
	assert_true(batch_is_at_hand(work, 1, "b"));
	assert_int_equal(batch_size(work), 5);
	assert_int_equal(pick(work, 10, units), 1);
	assert_string_equal(units[0]->key, "c");
	batch_take(work, take, &taken);
	assert_string_equal(taken.order, "Kb Ia Ub ");
	assert_false(batch_has_aside(work));
	assert_int_equal(batch_size(work), 3);
	assert_int_equal(pick(work, 10, units), 3);
	assert_true(batch_find(work, 1, "a")->inserted);
	assert_int_equal(batch_find(work, 1, "b")->changed[0], 7);
	assert_int_equal(batch_find(work, 1, "b")->nrefs, 3);
	assert_int_equal(batch_find(work, 1, "b")->nold, 0);
}

static void
what_cannot_go_holds_up_its_own_keys_alone(void **state)
{
	Work *work = batch_create();
	Taken taken = {.work = work, .refused = "b"};

	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 1, 1);
	(void) event(work, EVENT_KEY_CHANGE, "c", "b", 2, 1);
	(void) event(work, EVENT_KEY_CHANGE, "y", "x", 3, 1);
	(void) event(work, EVENT_UPDATE, "c", NULL, 4, 1);
	(void) event(work, EVENT_UPDATE, "y", NULL, 5, 1);
	batch_take(work, take, &taken);
	assert_string_equal(taken.order, "Ky Uy ");
	taken.refused = NULL;
	batch_take(work, take, &taken);
	assert_string_equal(taken.order, "Ky Uy Kb Kc Uc ");
	assert_null(batch_find(work, 1, "a"));
	assert_null(batch_find(work, 1, "b"));
	assert_int_equal(batch_find(work, 1, "c")->nrefs, 3);
}

/* The order of time, also where the xids say otherwise. */
static void
what_is_put_aside_goes_by_time(void **state)
{
	Work *work = batch_create();
	Taken taken = {.work = work};
	WorkEvent later = {1, EVENT_KEY_CHANGE, "c", "b", NULL, -1, 300, {7, 1}};
	WorkEvent earlier = {1, EVENT_KEY_CHANGE, "b", "a", NULL, -1, 200, {8, 1}};

	assert_null(batch_event(work, &later));
	assert_null(batch_event(work, &earlier));
	assert_null(batch_event(work, &earlier));
	batch_take(work, take, &taken);
	assert_string_equal(taken.order, "Kb Kc ");
	assert_int_equal(batch_size(work), 1);
}

static void
a_record_that_is_looked_for_keeps_others_from_its_key(void **state)
{
	Work *work = batch_create();
	Taken taken = {.work = work, .look = true};
	Unit *units[10];
	Unit *moved;

	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 1, 1);
	(void) event(work, EVENT_KEY_CHANGE, "c", "b", 2, 1);
	(void) event(work, EVENT_INSERT, "b", NULL, 3, 0);
	batch_take(work, take, &taken);
	moved = batch_find(work, 1, "c");
	assert_int_equal(moved->nold, 1);
	assert_string_equal(moved->old_keys[0], "b");
	assert_int_equal(pick(work, 10, units), 1);
	assert_ptr_equal(units[0], moved);
	batch_done(work, moved);
	assert_int_equal(pick(work, 10, units), 1);
	assert_string_equal(units[0]->key, "b");
}

/* Two rows may have had the key: what is known of one may be meant for the other. */
static void
a_shared_key_keeps_what_is_at_hand(void **state)
{
	Work *work = batch_create();
	Taken taken = {.work = work};

	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 1, 1);
	batch_take(work, take, &taken);
	taken.shared = true;
	(void) event(work, EVENT_KEY_CHANGE, "a", "b", 2, 2);
	batch_take(work, take, &taken);
	assert_int_equal(batch_find(work, 1, "b")->changed[0], 1);
	assert_int_equal(batch_find(work, 1, "a")->changed[0], 3);
	assert_int_equal(batch_size(work), 2);
}

static void
what_came_to_the_old_key_later_stays_there(void **state)
{
	Work *work = batch_create();
	Taken taken = {.work = work};

	(void) event(work, EVENT_INSERT, "a", NULL, 9, 0);
	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 1, 1);
	batch_take(work, take, &taken);
	assert_true(batch_find(work, 1, "a")->whole);
	assert_int_equal(batch_find(work, 1, "a")->nrefs, 1);
	assert_int_equal(batch_find(work, 1, "b")->nrefs, 1);
}

static void
a_delete_before_a_key_change_is_not_the_movers(void **state)
{
	Work *work = batch_create();
	Taken taken = {.work = work};

	(void) event(work, EVENT_DELETE, "b", NULL, 1, 0);
	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 2, 1);
	batch_take(work, take, &taken);
	assert_false(batch_find(work, 1, "b")->deleted);
	(void) event(work, EVENT_DELETE, "c", NULL, 9, 0);
	(void) event(work, EVENT_KEY_CHANGE, "c", "b", 3, 1);
	batch_take(work, take, &taken);
	assert_true(batch_find(work, 1, "c")->deleted);
}

static void
a_delete_that_a_key_change_waits_for_can_go(void **state)
{
	Work *work = batch_create();
	Unit *units[10];
	Unit *deleted = event(work, EVENT_DELETE, "b", NULL, 1, 0);

	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 2, 1);
	assert_int_equal(pick(work, 10, units), 0);
	deleted->replaced = true;
	assert_int_equal(pick(work, 10, units), 1);
	assert_ptr_equal(units[0], deleted);
}

static void
check_steps(const int *holders, int n, const char *expected)
{
	KeyStep steps[10];
	char text[11] = "";

	batch_key_steps(holders, n, steps);
	for (int i = 0; i < n; i++)
		text[i] = steps[i] == KEY_TAKE ? 't' : steps[i] == KEY_WAIT ? 'w' : 'f';
	assert_string_equal(text, expected);
}

static void
keys_are_given_up_where_nobody_goes_on(void **state)
{
	check_steps((int[]){KEY_IS_FREE}, 1, "t");
	check_steps((int[]){KEY_HELD_ELSEWHERE}, 1, "f");
	check_steps((int[]){1, 0}, 2, "ff");                       /* a swap */
	check_steps((int[]){1, 2, 0}, 3, "fff");                   /* a circle */
	check_steps((int[]){1, 2, 3, KEY_IS_FREE}, 4, "ffwt");     /* a chain */
	check_steps((int[]){1, KEY_HELD_ELSEWHERE}, 2, "ff");      /* its end is held */
	check_steps((int[]){2, KEY_IS_FREE, 3, 2, 1}, 5, "ftffw"); /* a way into a circle, and one beside */
}

/*
 * Random histories: no key is in flight twice, and each event is settled
 * exactly once.
 */
#define KEYS 12
#define EVENTS 4000

static void
settle_some(Work *work, Unit **flying, int *nflying, int *settled, uint64_t *seed)
{
	int i = next_random(seed) % *nflying;
	Unit *unit = flying[i];

	flying[i] = flying[--*nflying];
	if (next_random(seed) % 4 == 0)
	{
		batch_fold_next(work, unit);
		batch_again(unit);
		return;
	}
	for (int r = 0; r < unit->nrefs; r++)
		settled[unit->refs[r].n]++;
	batch_done(work, unit);
}

static void
start_some(Work *work, Unit **flying, int *nflying, uint64_t *seed)
{
	Unit *units[5];
	int n = pick(work, 1 + next_random(seed) % 5, units);

	for (int i = 0; i < n; i++)
	{
		for (int f = 0; f < *nflying; f++)
			assert_string_not_equal(flying[f]->key, units[i]->key);
		batch_start(units[i]);
		flying[(*nflying)++] = units[i];
	}
}

static void
random_event(Work *work, int n, uint64_t *seed)
{
	static const char operations[] = "IUUUDK";
	char operation = operations[next_random(seed) % 6];
	int key = next_random(seed) % KEYS;
	int old = (key + 1 + next_random(seed) % (KEYS - 1)) % KEYS;

	(void) event(work, operation, psprintf("k%d", key),
				 operation == EVENT_KEY_CHANGE ? psprintf("k%d", old) : NULL, n,
				 operation == EVENT_UPDATE ? 1 + next_random(seed) % 16 : 0);
}

/* As the worker does: not what is in flight. */
static bool
take_idle(const WorkEvent *event, void *arg)
{
	Work *work = arg;
	Unit *unit = batch_find(work, 1, event->key);
	Unit *left = event->old_key ? batch_find(work, 1, event->old_key) : NULL;

	if (event->operation != EVENT_KEY_CHANGE)
		return batch_fold(work, event) != NULL;
	if ((unit && unit->in_flight) || (left && left->in_flight))
		return false;
	return batch_move(work, event, event->ref.n % 3 == 0) != NULL;
}

static void
random_histories(void **state)
{
	uint64_t seed = 42;
	Work *work = batch_create();
	Unit *flying[KEYS * 2];
	int nflying = 0;
	int settled[EVENTS] = {0};

	for (int n = 0; n < EVENTS; n++)
	{
		random_event(work, n, &seed);
		if (next_random(&seed) % 2 == 0)
			batch_take(work, take_idle, work);
		if (next_random(&seed) % 2 == 0 && nflying < KEYS)
			start_some(work, flying, &nflying, &seed);
		if (next_random(&seed) % 2 == 0 && nflying > 0)
			settle_some(work, flying, &nflying, settled, &seed);
	}
	for (int rounds = 0; batch_size(work) > 0; rounds++)
	{
		assert_true(rounds < 100000);
		batch_take(work, take_idle, work);
		if (nflying < KEYS)
			start_some(work, flying, &nflying, &seed);
		if (nflying > 0)
			settle_some(work, flying, &nflying, settled, &seed);
	}
	for (int n = 0; n < EVENTS; n++)
		assert_int_equal(settled[n], 1);
}

static Unit *
backfill(Work *work, const char *key, Chunk *chunk)
{
	Unit *unit = batch_unit(work, 1, key);

	(void) batch_backfill(unit, chunk);
	return unit;
}

/* Live changes go before rows of backfills, which fill up what they leave. */
static void
live_changes_overtake_backfills(void **state)
{
	Work *work = batch_create();
	MappingQueue *queue = batch_queue(work, 1);
	Chunk chunk = {0};
	Chunk other = {0};
	Unit *units[10];
	Unit *a = backfill(work, "a", &chunk);
	Unit *b = backfill(work, "b", &chunk);
	Unit *c = backfill(work, "c", &chunk);
	Unit *live;

	assert_int_equal(chunk.pending, 3);
	assert_int_equal(queue->nlater, 3);
	assert_ptr_equal(batch_first(queue), a);
	assert_false(batch_backfill(a, &other));
	assert_int_equal(other.pending, 0);
	live = event(work, EVENT_INSERT, "x", NULL, 1, 0);
	assert_ptr_equal(batch_first(queue), live);
	assert_int_equal(pick(work, 3, units), 3);
	assert_ptr_equal(units[0], live);
	assert_ptr_equal(units[1], a);
	assert_ptr_equal(units[2], b);

	/* a change of a row that a backfill wants is a live one, and counts for both */
	assert_ptr_equal(event(work, EVENT_UPDATE, "c", NULL, 2, 1), c);
	assert_int_equal(queue->nlater, 2);
	assert_int_equal(queue->nready, 4);
	assert_int_equal(pick(work, 10, units), 4);
	assert_ptr_equal(units[1], c);
	batch_start(c);
	batch_done(work, c);
	assert_int_equal(chunk.pending, 2);

	/* what failed keeps its place among the live ones, or behind them */
	batch_start(a);
	batch_again(a);
	assert_int_equal(queue->nlater, 2);
	batch_postpone(live);
	assert_ptr_equal(batch_first(queue), live);
	batch_deferred(b);
	assert_int_equal(queue->nlater, 1);

	/* a live change that a backfill comes to stays one */
	(void) batch_backfill(live, &other);
	assert_int_equal(queue->nlater, 1);
	assert_int_equal(other.pending, 1);
}

static void
a_cancelled_backfill_is_dropped(void **state)
{
	Work *work = batch_create();
	MappingQueue *queue = batch_queue(work, 1);
	Chunk chunk = {0};
	Chunk other = {0};
	Unit *flying = backfill(work, "flying", &chunk);

	(void) backfill(work, "a", &chunk);
	(void) backfill(work, "b", &chunk);
	(void) backfill(work, "other", &other);
	(void) backfill(work, "changed", &chunk);
	(void) event(work, EVENT_UPDATE, "changed", NULL, 1, 1);
	batch_start(flying);
	batch_drop_backfill(work, queue, &chunk);
	assert_int_equal(chunk.pending, 2);
	assert_null(batch_find(work, 1, "a"));
	assert_null(batch_find(work, 1, "b"));
	assert_non_null(batch_find(work, 1, "other"));
	assert_non_null(batch_find(work, 1, "changed"));
	assert_int_equal(queue->nready, 2);
	assert_int_equal(queue->nlater, 1);
	batch_done(work, flying);
	batch_done(work, batch_find(work, 1, "changed"));
	assert_int_equal(chunk.pending, 0);
	assert_int_equal(batch_size(work), 1);
}

/* Deletes that a person decides on. */
static void
a_held_delete_stays_held(void **state)
{
	Work *work = batch_create();
	Unit *unit = event(work, EVENT_UPDATE, "a", NULL, 1, 2);

	assert_null(unit->hold);
	assert_ptr_equal(event(work, EVENT_HELD_DELETE, "a", NULL, 2, 0), unit);
	assert_true(unit->deleted);
	assert_non_null(strstr(unit->hold, "delete_guard"));
	assert_false(unit->left);
	(void) event(work, EVENT_DELETE, "a", NULL, 3, 0);
	assert_non_null(unit->hold);
	unit = event(work, EVENT_PARTITION_LEFT, "b", "public.p1", 4, 0);
	assert_true(unit->deleted && unit->left);
	assert_non_null(strstr(unit->hold, "partition public.p1 left the table"));
	assert_int_equal(unit->nold, 0);
	assert_null(event(work, EVENT_DELETE, "c", NULL, 5, 0)->hold);
}

static void
a_row_that_is_there_again_is_not_held(void **state)
{
	static const char operations[] = {EVENT_INSERT, EVENT_UPDATE};

	for (int i = 0; i < 2; i++)
	{
		Work *work = batch_create();
		Unit *unit = event(work, EVENT_HELD_DELETE, "a", NULL, 1, 0);

		assert_ptr_equal(event(work, operations[i], "a", NULL, 2, 1), unit);
		assert_null(unit->hold);
		assert_ptr_equal(event(work, EVENT_DELETE, "a", NULL, 3, 0), unit);
		assert_null(unit->hold);
		assert_ptr_equal(event(work, EVENT_HELD_DELETE, "a", NULL, 4, 0), unit);
		assert_non_null(unit->hold);
	}
}

static void
a_key_that_gets_a_row_is_not_held(void **state)
{
	Work *work = batch_create();
	Taken taken = {.work = work};

	(void) event(work, EVENT_HELD_DELETE, "b", NULL, 1, 0);
	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 2, 0);
	batch_take(work, take, &taken);
	assert_null(batch_find(work, 1, "b")->hold);
}

static void
an_older_hold_joins_deletes_alone(void **state)
{
	Work *work = batch_create();
	Unit *unit = event(work, EVENT_DELETE, "a", NULL, 1, 0);

	batch_join_hold(unit, NULL);
	assert_null(unit->hold);
	batch_join_hold(unit, "older");
	assert_string_equal(unit->hold, "older");
	batch_join_hold(unit, "another");
	assert_string_equal(unit->hold, "older");
	unit = event(work, EVENT_INSERT, "b", NULL, 2, 0);
	(void) event(work, EVENT_DELETE, "b", NULL, 3, 0);
	batch_join_hold(unit, "older");
	assert_null(unit->hold);
	unit = event(work, EVENT_UPDATE, "c", NULL, 4, 2);
	batch_join_hold(unit, "older");
	assert_null(unit->hold);
}

static void
a_successor_decides_on_the_hold(void **state)
{
	Work *work = batch_create();
	Unit *held = event(work, EVENT_HELD_DELETE, "a", NULL, 1, 0);
	Unit *cancelled = event(work, EVENT_HELD_DELETE, "b", NULL, 2, 0);
	Unit *late = event(work, EVENT_DELETE, "c", NULL, 3, 0);

	batch_start(held);
	batch_start(cancelled);
	batch_start(late);
	(void) event(work, EVENT_DELETE, "a", NULL, 4, 0);
	(void) event(work, EVENT_INSERT, "b", NULL, 5, 0);
	(void) event(work, EVENT_PARTITION_LEFT, "c", "p", 6, 0);
	batch_fold_next(work, held);
	batch_fold_next(work, cancelled);
	batch_fold_next(work, late);
	assert_non_null(strstr(held->hold, "delete_guard"));
	assert_null(cancelled->hold);
	assert_non_null(strstr(late->hold, "partition p"));
	assert_true(late->left);
}

static void
rows_that_wait_in_a_circle(void **state)
{
	Work *work = batch_create();
	Unit *a = batch_unit(work, 1, "k");
	Unit *b = batch_unit(work, 2, "k");
	Unit *c = batch_unit(work, 1, "c");

	(void) state;

	/* to itself; to none at hand */
	assert_true(batch_waits_for(work, 1, "k", a));
	assert_false(batch_waits_for(work, 2, "k", a));
	assert_false(batch_waits_for(work, 3, "k", a));

	/* c waits for b, b for a: keys alike in another mapping are other rows */
	batch_set_parent(b, 1, "k");
	batch_set_parent(c, 2, "k");
	assert_true(batch_waits_for(work, 2, "k", a));
	assert_true(batch_waits_for(work, 1, "c", a));
	assert_false(batch_waits_for(work, 1, "k", c));

	/* who is sent waits no more */
	batch_start(b);
	assert_false(batch_waits_for(work, 1, "c", a));
	batch_again(b);
	assert_false(batch_waits_for(work, 1, "c", a));

	/* a circle that the row is not part of comes to an end, too */
	batch_set_parent(b, 1, "c");
	assert_false(batch_waits_for(work, 1, "c", a));
	batch_done(work, c);
	assert_false(batch_waits_for(work, 2, "k", a));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(changes_of_a_row_are_folded),
		cmocka_unit_test(an_event_counts_once),
		cmocka_unit_test(a_row_in_flight_gets_a_successor),
		cmocka_unit_test(what_failed_takes_its_successor_in),
		cmocka_unit_test(requests_are_of_one_kind),
		cmocka_unit_test(a_limit_holds_for_the_whole_request),
		cmocka_unit_test(a_key_change_is_put_aside_with_what_follows),
		cmocka_unit_test(what_cannot_go_holds_up_its_own_keys_alone),
		cmocka_unit_test(what_is_put_aside_goes_by_time),
		cmocka_unit_test(a_record_that_is_looked_for_keeps_others_from_its_key),
		cmocka_unit_test(a_shared_key_keeps_what_is_at_hand),
		cmocka_unit_test(what_came_to_the_old_key_later_stays_there),
		cmocka_unit_test(a_delete_before_a_key_change_is_not_the_movers),
		cmocka_unit_test(a_delete_that_a_key_change_waits_for_can_go),
		cmocka_unit_test(keys_are_given_up_where_nobody_goes_on),
		cmocka_unit_test(rows_that_wait_in_a_circle),
		cmocka_unit_test(random_histories),
		cmocka_unit_test(live_changes_overtake_backfills),
		cmocka_unit_test(a_cancelled_backfill_is_dropped),
		cmocka_unit_test(a_held_delete_stays_held),
		cmocka_unit_test(a_row_that_is_there_again_is_not_held),
		cmocka_unit_test(a_key_that_gets_a_row_is_not_held),
		cmocka_unit_test(an_older_hold_joins_deletes_alone),
		cmocka_unit_test(a_successor_decides_on_the_hold),
	};

	return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
