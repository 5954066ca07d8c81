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

static void
a_key_change_goes_before_its_old_key(void **state)
{
	Work *work = batch_create();
	Unit *units[10];
	Unit *moved;
	Unit *again;

	(void) event(work, EVENT_UPDATE, "a", NULL, 1, 1);
	moved = event(work, EVENT_KEY_CHANGE, "b", "a", 2, 1);
	again = event(work, EVENT_INSERT, "a", NULL, 3, 0);
	assert_true(again->key_left);
	assert_int_equal(moved->nold, 1);
	assert_int_equal(pick(work, 10, units), 1);
	assert_ptr_equal(units[0], moved);
	batch_start(moved);
	assert_int_equal(pick(work, 10, units), 0);
	batch_done(work, moved);
	assert_int_equal(pick(work, 10, units), 1);
	assert_ptr_equal(units[0], again);
}

static void
a_chain_of_keys_is_one_row(void **state)
{
	Work *work = batch_create();
	Unit *last;

	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 1, 1);
	last = event(work, EVENT_KEY_CHANGE, "c", "b", 2, 1);
	assert_int_equal(last->nold, 2);
	assert_string_equal(last->old_keys[0], "b");
	assert_string_equal(last->old_keys[1], "a");
}

static void
swapped_keys_do_not_wait_for_each_other(void **state)
{
	Work *work = batch_create();
	Unit *units[10];

	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 1, 1);
	(void) event(work, EVENT_KEY_CHANGE, "a", "b", 2, 1);
	assert_int_equal(pick(work, 10, units), 2);
}

static void
a_key_change_waits_for_its_old_key_in_flight(void **state)
{
	Work *work = batch_create();
	Unit *units[10];
	Unit *old = event(work, EVENT_INSERT, "a", NULL, 1, 0);

	batch_start(old);
	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 2, 1);
	assert_int_equal(pick(work, 10, units), 0);
	batch_done(work, old);
	assert_int_equal(pick(work, 10, units), 1);
	assert_string_equal(units[0]->key, "b");
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

	assert_non_null(event(work, operation, psprintf("k%d", key),
						  operation == EVENT_KEY_CHANGE ? psprintf("k%d", old) : NULL, n,
						  operation == EVENT_UPDATE ? 1 + next_random(seed) % 16 : 0));
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
		if (next_random(&seed) % 2 == 0 && nflying < KEYS)
			start_some(work, flying, &nflying, &seed);
		if (next_random(&seed) % 2 == 0 && nflying > 0)
			settle_some(work, flying, &nflying, settled, &seed);
	}
	for (int rounds = 0; batch_size(work) > 0; rounds++)
	{
		assert_true(rounds < 100000);
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
	static const char operations[] = {EVENT_INSERT, EVENT_UPDATE, EVENT_KEY_CHANGE};

	for (int i = 0; i < 3; i++)
	{
		Work *work = batch_create();
		Unit *unit = event(work, EVENT_HELD_DELETE, "a", NULL, 1, 0);

		assert_ptr_equal(event(work, operations[i], "a", "b", 2, 1), unit);
		assert_null(unit->hold);
		assert_ptr_equal(event(work, EVENT_DELETE, "a", NULL, 3, 0), unit);
		assert_null(unit->hold);
		assert_ptr_equal(event(work, EVENT_HELD_DELETE, "a", NULL, 4, 0), unit);
		assert_non_null(unit->hold);
	}
}

static void
a_key_that_was_left_is_not_held(void **state)
{
	Work *work = batch_create();
	Unit *unit = event(work, EVENT_HELD_DELETE, "a", NULL, 1, 0);

	(void) event(work, EVENT_KEY_CHANGE, "b", "a", 2, 0);
	assert_null(unit->hold);
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
		cmocka_unit_test(a_key_change_goes_before_its_old_key),
		cmocka_unit_test(a_chain_of_keys_is_one_row),
		cmocka_unit_test(swapped_keys_do_not_wait_for_each_other),
		cmocka_unit_test(a_key_change_waits_for_its_old_key_in_flight),
		cmocka_unit_test(rows_that_wait_in_a_circle),
		cmocka_unit_test(random_histories),
		cmocka_unit_test(live_changes_overtake_backfills),
		cmocka_unit_test(a_cancelled_backfill_is_dropped),
		cmocka_unit_test(a_held_delete_stays_held),
		cmocka_unit_test(a_row_that_is_there_again_is_not_held),
		cmocka_unit_test(a_key_that_was_left_is_not_held),
		cmocka_unit_test(an_older_hold_joins_deletes_alone),
		cmocka_unit_test(a_successor_decides_on_the_hold),
	};

	return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
