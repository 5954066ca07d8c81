/*
 * batch.c
 *		The work at hand: captured changes folded to one unit a row.
 */
#include "compat.h"

#include "common/hashfn.h"
#ifdef FRONTEND
#include "common/logging.h"
#endif

#include "batch.h"

/* Rows that wait for each other in a circle, at most. */
#define MAX_CIRCLE 100

/*
 * Map of "mapping:key": to the units at hand, and those that a key moved to; or
 * to the number of events put aside that concern it.
 */
typedef struct UnitEntry
{
	char *name;
	Unit *unit;
	int count;
	char status;
} UnitEntry;

#define SH_PREFIX units
#define SH_ELEMENT_TYPE UnitEntry
#define SH_KEY_TYPE char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) (key), strlen(key))
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#ifdef FRONTEND
#define SH_RAW_ALLOCATOR pg_malloc0
#endif
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* An event put aside, for a key change. */
typedef struct Aside
{
	WorkEvent event; /* and all it refers to, in one piece */
} Aside;

struct Work
{
	int nunits;
	units_hash *at_hand;   /* the first unit of each key */
	units_hash *moved;     /* key of a record that is looked for, to the unit that has it */
	units_hash *concerned; /* by what is put aside */
	int naside;
	int max_aside;
	Aside **aside;
	int nqueues;
	MappingQueue **queues;
};

static units_hash *
create_map(void)
{
#ifdef FRONTEND
	return units_create(256, NULL);
#else
	return units_create(CurrentMemoryContext, 256, NULL);
#endif
}

Work *
batch_create(void)
{
	Work *work = palloc0(sizeof(Work));

	work->at_hand = create_map();
	work->moved = create_map();
	work->concerned = create_map();
	return work;
}

int
batch_size(const Work *work)
{
	return work->nunits;
}

MappingQueue *
batch_find_queue(const Work *work, int mapping)
{
	for (int i = 0; i < work->nqueues; i++)
		if (work->queues[i]->mapping == mapping)
			return work->queues[i];
	return NULL;
}

MappingQueue *
batch_queue(Work *work, int mapping)
{
	MappingQueue *queue = batch_find_queue(work, mapping);

	if (queue)
		return queue;
	queue = palloc0(sizeof(MappingQueue));
	queue->mapping = mapping;
	dlist_init(&queue->ready);
	dlist_init(&queue->later);
	work->queues = work->queues ? repalloc(work->queues, sizeof(MappingQueue *) * (work->nqueues + 1))
								: palloc(sizeof(MappingQueue *));
	work->queues[work->nqueues++] = queue;
	return queue;
}

static Unit *
map_get(units_hash *map, int mapping, const char *key)
{
	char *name = psprintf("%d:%s", mapping, key);
	UnitEntry *entry = units_lookup(map, name);

	pfree(name);
	return entry ? entry->unit : NULL;
}

static void
map_set(units_hash *map, int mapping, const char *key, Unit *unit)
{
	char *name = psprintf("%d:%s", mapping, key);
	bool found;
	UnitEntry *entry = units_insert(map, name, &found);

	if (found)
		pfree(name);
	entry->unit = unit;
}

static void
map_remove(units_hash *map, int mapping, const char *key)
{
	char *name = psprintf("%d:%s", mapping, key);
	UnitEntry *entry = units_lookup(map, name);

	if (entry)
	{
		char *owned = entry->name;

		units_delete_item(map, entry);
		pfree(owned);
	}
	pfree(name);
}

Unit *
batch_find(Work *work, int mapping, const char *key)
{
	return map_get(work->at_hand, mapping, key);
}

static Unit *
make_unit(Work *work, MappingQueue *queue, const char *key)
{
	Unit *unit = palloc0(sizeof(Unit));

	unit->queue = queue;
	unit->key = pstrdup(key);
	queue->nunits++;
	work->nunits++;
	return unit;
}

static void
make_ready(Unit *unit, bool first)
{
	dlist_head *list;

	unit->later = unit->chunk && unit->nrefs == 0 && !unit->deferred;
	list = unit->later ? &unit->queue->later : &unit->queue->ready;
	if (first)
		dlist_push_head(list, &unit->node);
	else
		dlist_push_tail(list, &unit->node);
	unit->queue->nready++;
	unit->queue->nlater += unit->later ? 1 : 0;
	unit->listed = true;
	unit->in_flight = false;
}

static void
leave_list(Unit *unit)
{
	dlist_delete(&unit->node);
	unit->queue->nready--;
	unit->queue->nlater -= unit->later ? 1 : 0;
	unit->listed = false;
}

/* It may belong to the other list by now. */
static void
list_anew(Unit *unit)
{
	if (!unit->listed)
		return;
	leave_list(unit);
	make_ready(unit, false);
}

Unit *
batch_unit(Work *work, int mapping, const char *key)
{
	MappingQueue *queue = batch_queue(work, mapping);
	Unit *unit = batch_find(work, mapping, key);

	if (!unit)
	{
		unit = make_unit(work, queue, key);
		map_set(work->at_hand, mapping, key, unit);
		make_ready(unit, false);
	}
	else if (unit->in_flight)
	{
		if (!unit->next)
			unit->next = make_unit(work, queue, key);
		unit = unit->next;
	}
	return unit;
}

static void
add_old_key(Unit *unit, const char *old_key)
{
	for (int i = 0; i < unit->nold; i++)
		if (strcmp(unit->old_keys[i], old_key) == 0)
			return;
	unit->old_keys =
		unit->old_keys ? repalloc(unit->old_keys, sizeof(char *) * (unit->nold + 1)) : palloc(sizeof(char *));
	unit->old_keys[unit->nold++] = pstrdup(old_key);
}

void
batch_look_under(Unit *unit, const char *old_key)
{
	unit->expected = true;
	add_old_key(unit, old_key);
}

void
batch_add_old_key(Work *work, Unit *unit, const char *old_key)
{
	add_old_key(unit, old_key);
	map_set(work->moved, unit->queue->mapping, old_key, unit);
}

/* Room for bits up to len * 8, and, once there is one time a bit, for their times. */
static void
widen(Unit *unit, int len)
{
	uint8 *changed;

	if (len <= unit->changed_len)
		return;
	changed = palloc0(len);
	if (unit->changed)
	{
		memcpy(changed, unit->changed, unit->changed_len);
		pfree(unit->changed);
	}
	if (unit->times)
	{
		int64 *times = palloc0(sizeof(int64) * len * 8);

		memcpy(times, unit->times, sizeof(int64) * unit->changed_len * 8);
		pfree(unit->times);
		unit->times = times;
	}
	unit->changed = changed;
	unit->changed_len = len;
}

static bool
bit_set(const uint8 *bits, int len, int bit)
{
	return bit / 8 < len && (bits[bit / 8] & (1 << (bit % 8))) != 0;
}

/* From one time for all to a time for each. */
static void
spread_times(Unit *unit)
{
	if (unit->times)
		return;
	unit->times = palloc0(sizeof(int64) * Max(unit->changed_len, 1) * 8);
	for (int bit = 0; bit < unit->changed_len * 8; bit++)
		if (bit_set(unit->changed, unit->changed_len, bit))
			unit->times[bit] = unit->changed_at;
}

static void
add_bit(Unit *unit, int bit, int64 at)
{
	bool was = bit_set(unit->changed, unit->changed_len, bit);

	unit->times[bit] = was ? Max(unit->times[bit], at) : at;
	unit->changed[bit / 8] |= 1 << (bit % 8);
}

void
batch_add_changed(Unit *unit, const uint8 *changed, int len, int64 at)
{
	bool first = !unit->changed;

	if (len <= 0)
		return;
	widen(unit, len);
	if (first)
		unit->changed_at = at;
	if (unit->times || at != unit->changed_at)
	{
		spread_times(unit);
		for (int bit = 0; bit < len * 8; bit++)
			if (bit_set(changed, len, bit))
				add_bit(unit, bit, at);
	}
	else
		for (int i = 0; i < len; i++)
			unit->changed[i] |= changed[i];
}

void
batch_add_times(Unit *unit, const uint8 *changed, int len, const int64 *times)
{
	widen(unit, len);
	spread_times(unit);
	for (int bit = 0; bit < len * 8; bit++)
		if (bit_set(changed, len, bit))
			add_bit(unit, bit, times[bit]);
}

void
batch_add_whole(Unit *unit, int64 at)
{
	unit->whole_at = unit->whole && unit->whole_at != 0 ? Max(unit->whole_at, at) : at;
	unit->whole = true;
}

void
batch_add_changes_of(Unit *unit, const Unit *other)
{
	if (other->whole && other->whole_at != 0)
		batch_add_whole(unit, other->whole_at);
	unit->whole |= other->whole;
	if (other->times)
		batch_add_times(unit, other->changed, other->changed_len, other->times);
	else
		batch_add_changed(unit, other->changed, other->changed_len, other->changed_at);
}

bool
batch_column_changed(const Unit *unit, int bit, int64 *at)
{
	bool whole = unit->whole && unit->whole_at != 0;
	bool changed = bit_set(unit->changed, unit->changed_len, bit);

	*at = whole ? unit->whole_at : BATCH_NEVER;
	if (changed)
		*at = Max(*at, unit->times ? unit->times[bit] : unit->changed_at);
	return whole || changed;
}

void
batch_forget_read(Unit *unit)
{
#ifndef FRONTEND
	if (unit->read_context)
		MemoryContextDelete(unit->read_context);
#endif
	unit->read = NULL;
	unit->read_context = NULL;
}

static bool
has_ref(const Unit *unit, QueueRef ref)
{
	for (int i = unit->nrefs - 1; i >= 0; i--)
		if (unit->refs[i].xid == ref.xid && unit->refs[i].n == ref.n)
			return true;
	return false;
}

void
batch_add_ref(Unit *unit, QueueRef ref)
{
	if (unit->nrefs == unit->max_refs)
	{
		unit->max_refs = Max(unit->max_refs * 2, 2);
		unit->refs = unit->refs ? repalloc(unit->refs, sizeof(QueueRef) * unit->max_refs)
								: palloc(sizeof(QueueRef) * unit->max_refs);
	}
	unit->refs[unit->nrefs++] = ref;
	if (unit->min_xid == 0 || ref.xid < unit->min_xid)
		unit->min_xid = ref.xid;
}

static void
add_event_time(Unit *unit, int64 event_at)
{
	if (unit->first_event_at == 0 || event_at < unit->first_event_at)
		unit->first_event_at = event_at;
	unit->event_at = Max(unit->event_at, event_at);
}

#define HOLD_HINT "sfsync.release_deletes sends the deletes, sfsync.discard_deletes gives them up"

void
batch_hold(Unit *unit, const char *reason)
{
	if (unit->hold)
		pfree(unit->hold);
	unit->hold = reason ? pstrdup(reason) : NULL;
}

static bool
is_filters(const char *reason)
{
	return reason && strcmp(reason, BATCH_FILTER_HOLD) == 0;
}

void
batch_join_hold(Unit *unit, const char *reason)
{
	bool untouched = !unit->whole && !unit->changed && unit->nold == 0;

	if (reason && !unit->hold && (untouched || is_filters(reason)))
		batch_hold(unit, reason);
}

/* A row that is there again, or was in between, has no held delete any more. */
static void
fold_hold(Unit *unit, const WorkEvent *event)
{
	switch (event->operation)
	{
		case EVENT_HELD_DELETE:
			batch_hold(unit, "its transaction deletes more rows than delete_guard allows; " HOLD_HINT);
			break;
		case EVENT_PARTITION_LEFT:
		{
			char *reason = psprintf("partition %s left the table; " HOLD_HINT, event->old_key);

			batch_hold(unit, reason);
			unit->left = true;
			pfree(reason);
			break;
		}
		case EVENT_DELETE:
			break;
		default:
			if (!is_filters(unit->hold))
				batch_hold(unit, NULL);
	}
}

/*
 * What is put aside
 */

static void
concern(Work *work, int mapping, const char *key, int by)
{
	char *name = psprintf("%d:%s", mapping, key);
	bool found;
	UnitEntry *entry = units_insert(work->concerned, name, &found);

	if (found)
		pfree(name);
	else
		entry->count = 0;
	entry->count += by;
	if (entry->count == 0)
		map_remove(work->concerned, mapping, key);
}

static void
concern_keys(Work *work, const WorkEvent *event, int by)
{
	concern(work, event->mapping, event->key, by);
	if (event->operation == EVENT_KEY_CHANGE)
		concern(work, event->mapping, event->old_key, by);
	batch_queue(work, event->mapping)->nunits += by;
	work->nunits += by;
}

static bool
is_concerned(units_hash *map, int mapping, const char *key)
{
	char *name = psprintf("%d:%s", mapping, key);
	UnitEntry *entry = units_lookup(map, name);

	pfree(name);
	return entry != NULL;
}

static void
put_aside(Work *work, const WorkEvent *event)
{
	int key_len = strlen(event->key) + 1;
	int old_len = event->old_key ? strlen(event->old_key) + 1 : 0;
	int changed_len = Max(event->changed_len, 0);
	Aside *aside = palloc(sizeof(Aside) + key_len + old_len + changed_len);
	char *data = (char *) (aside + 1);

	if (work->naside == work->max_aside)
	{
		work->max_aside = Max(work->max_aside * 2, 64);
		work->aside = work->aside ? repalloc(work->aside, sizeof(Aside *) * work->max_aside)
								  : palloc(sizeof(Aside *) * work->max_aside);
	}
	aside->event = *event;
	aside->event.key = memcpy(data, event->key, key_len);
	if (old_len > 0)
		aside->event.old_key = memcpy(data + key_len, event->old_key, old_len);
	if (changed_len > 0)
		aside->event.changed = memcpy(data + key_len + old_len, event->changed, changed_len);
	work->aside[work->naside++] = aside;
	concern_keys(work, event, 1);
}

bool
batch_has_aside(const Work *work)
{
	return work->naside > 0;
}

static bool
is_aside(const Work *work, QueueRef ref)
{
	for (int i = 0; i < work->naside; i++)
		if (work->aside[i]->event.ref.xid == ref.xid && work->aside[i]->event.ref.n == ref.n)
			return true;
	return false;
}

/*
 * By time: of two transactions that changed the same rows one after the other,
 * the later may have the lower xid.
 */
static int
compare_asides(const void *a, const void *b)
{
	const WorkEvent *x = &(*(Aside *const *) a)->event;
	const WorkEvent *y = &(*(Aside *const *) b)->event;

	if (x->event_at != y->event_at)
		return x->event_at < y->event_at ? -1 : 1;
	if (x->ref.xid != y->ref.xid)
		return x->ref.xid < y->ref.xid ? -1 : 1;
	return x->ref.n < y->ref.n ? -1 : x->ref.n > y->ref.n;
}

static bool
is_stuck(units_hash *stuck, const WorkEvent *event)
{
	return is_concerned(stuck, event->mapping, event->key) ||
		   (event->operation == EVENT_KEY_CHANGE && is_concerned(stuck, event->mapping, event->old_key));
}

static void
free_map(units_hash *map)
{
	units_iterator iterator;
	UnitEntry *entry;

	units_start_iterate(map, &iterator);
	while ((entry = units_iterate(map, &iterator)) != NULL)
		pfree(entry->name);
	units_destroy(map);
}

void
batch_take(Work *work, BatchTakeFunction take, void *arg)
{
	units_hash *stuck = create_map();
	int left = 0;

	qsort(work->aside, work->naside, sizeof(Aside *), compare_asides);
	for (int i = 0; i < work->naside; i++)
	{
		Aside *aside = work->aside[i];
		const WorkEvent *event = &aside->event;

		if (is_stuck(stuck, event) || !take(event, arg))
		{
			map_set(stuck, event->mapping, event->key, NULL);
			if (event->operation == EVENT_KEY_CHANGE)
				map_set(stuck, event->mapping, event->old_key, NULL);
			work->aside[left++] = aside;
			continue;
		}
		concern_keys(work, event, -1);
		pfree(aside);
	}
	work->naside = left;
	free_map(stuck);
}

bool
batch_is_at_hand(Work *work, int mapping, const char *key)
{
	return batch_find(work, mapping, key) || is_concerned(work->concerned, mapping, key);
}

Unit *
batch_event(Work *work, const WorkEvent *event)
{
	bool concerned = is_concerned(work->concerned, event->mapping, event->key);

	for (Unit *unit = batch_find(work, event->mapping, event->key); unit; unit = unit->next)
		if (has_ref(unit, event->ref))
			return NULL;
	if (!concerned && event->operation != EVENT_KEY_CHANGE)
		return batch_fold(work, event);
	if (!concerned || !is_aside(work, event->ref))
		put_aside(work, event);
	return NULL;
}

static void
note_event(Unit *unit, const WorkEvent *event)
{
	unit->kind = UNIT_UNDECIDED;
	unit->looked_up = false;
	unit->captured = true;
	batch_add_ref(unit, event->ref);
	add_event_time(unit, event->event_at);
	if (unit->later)
		list_anew(unit);
}

Unit *
batch_fold(Work *work, const WorkEvent *event)
{
	Unit *unit = batch_unit(work, event->mapping, event->key);

	switch (event->operation)
	{
		case EVENT_INSERT:
			if (unit->nrefs == 0 && !unit->deferred)
				unit->inserted = true;
			batch_add_whole(unit, event->event_at);
			break;
		case EVENT_WHOLE:
			batch_add_whole(unit, BATCH_NEVER);
			break;
		case EVENT_DELETE:
		case EVENT_HELD_DELETE:
		case EVENT_PARTITION_LEFT:
			unit->deleted = true;
			break;
		default:
			batch_add_changed(unit, event->changed, event->changed_len, event->event_at);
	}
	fold_hold(unit, event);
	note_event(unit, event);
	return unit;
}

/*
 * Key changes
 */

static void
forget_old_keys(Work *work, Unit *unit)
{
	for (int i = 0; i < unit->nold; i++)
	{
		if (map_get(work->moved, unit->queue->mapping, unit->old_keys[i]) == unit)
			map_remove(work->moved, unit->queue->mapping, unit->old_keys[i]);
		pfree(unit->old_keys[i]);
	}
	unit->nold = 0;
	unit->expected = false;
}

/* What is at hand of the row under its old key; what came to that key later stays there as well. */
static void
take_along(Work *work, Unit *unit, Unit *left, bool shared, bool stays)
{
	unit->inserted = left->inserted && unit->nrefs == 0 && !unit->deferred;
	batch_add_changes_of(unit, left);
	left->key_left |= shared;
	unit->captured |= left->captured;
	if (stays)
		return;
	for (int i = 0; i < left->nrefs; i++)
		batch_add_ref(unit, left->refs[i]);
	if (left->min_xid != 0 && (unit->min_xid == 0 || left->min_xid < unit->min_xid))
		unit->min_xid = left->min_xid;
	if (left->first_event_at != 0)
		add_event_time(unit, left->first_event_at);
	if (left->event_at != 0)
		add_event_time(unit, left->event_at);
	batch_done(work, left);
}

Unit *
batch_move(Work *work, const WorkEvent *event, bool shared)
{
	Unit *unit = batch_unit(work, event->mapping, event->key);
	Unit *left = batch_find(work, event->mapping, event->old_key);

	Assert(!unit->in_flight && left != unit);
	if (unit->event_at <= event->event_at)
	{
		unit->deleted = unit->left = unit->inserted = false;
		batch_hold(unit, NULL);
	}
	unit->missing_since = 0;
	unit->attempts = 0;
	forget_old_keys(work, unit);
	batch_forget_read(unit);
	if (left)
		take_along(work, unit, left, shared, shared || left->event_at > event->event_at);
	batch_add_changed(unit, event->changed, event->changed_len, event->event_at);
	note_event(unit, event);
	unit->moved_by = event->ref.xid;
	return unit;
}

void
batch_forget_refs(Unit *unit)
{
	unit->nrefs = 0;
}

void
batch_key_steps(const int *holders, int n, KeyStep *steps)
{
	for (int i = 0; i < n; i++)
	{
		bool moves_on = holders[i] >= 0 && holders[holders[i]] == KEY_IS_FREE;

		steps[i] = holders[i] == KEY_IS_FREE ? KEY_TAKE : moves_on ? KEY_WAIT : KEY_FREE;
	}
}

/*
 * The key under which a row's record is looked for must not be written before
 * it is found, but by rows that are in the same situation.
 */
static bool
must_wait(Work *work, const Unit *unit)
{
	Unit *mover = map_get(work->moved, unit->queue->mapping, unit->key);

	return mover && mover != unit && unit->nold == 0;
}

/* Nothing is sent of a key that a key change concerns, but a delete that it waits for. */
static bool
is_put_aside(Work *work, const Unit *unit)
{
	return !unit->replaced && work->naside > 0 &&
		   is_concerned(work->concerned, unit->queue->mapping, unit->key);
}

bool
batch_backfill(Unit *unit, Chunk *chunk)
{
	if (unit->chunk)
		return false;
	unit->chunk = chunk;
	chunk->pending++;
	if (unit->nrefs == 0 && !unit->deferred)
		list_anew(unit);
	return true;
}

void
batch_deferred(Unit *unit)
{
	unit->deferred = true;
	if (unit->later)
		list_anew(unit);
}

void
batch_drop_backfill(Work *work, MappingQueue *queue, const Chunk *chunk)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &queue->later)
	{
		Unit *unit = dlist_container(Unit, node, iter.cur);

		if (unit->chunk == chunk)
			batch_done(work, unit);
	}
}

Unit *
batch_first(MappingQueue *queue)
{
	if (!dlist_is_empty(&queue->ready))
		return dlist_container(Unit, node, queue->ready.head.next);
	if (!dlist_is_empty(&queue->later))
		return dlist_container(Unit, node, queue->later.head.next);
	return NULL;
}

typedef struct Pick
{
	Unit **units;
	int n;
	int max;
	UnitKind kind;
} Pick;

static void
pick_from(Work *work, dlist_head *list, Pick *pick)
{
	dlist_iter iter;

	dlist_foreach(iter, list)
	{
		Unit *unit = dlist_container(Unit, node, iter.cur);

		if (pick->n >= pick->max)
			break;
		if (unit->kind != UNIT_UNDECIDED && pick->kind != UNIT_UNDECIDED && unit->kind != pick->kind)
			continue;
		if (must_wait(work, unit) || is_put_aside(work, unit))
			continue;
		if (unit->limit > 0)
		{
			if (pick->n > 0 && unit->limit <= pick->n)
				continue;
			pick->max = Min(pick->max, unit->limit);
		}
		if (pick->kind == UNIT_UNDECIDED)
			pick->kind = unit->kind;
		pick->units[pick->n++] = unit;
	}
}

int
batch_pick(Work *work, MappingQueue *queue, int max, Unit **picked)
{
	Pick pick = {.units = picked, .max = max, .kind = UNIT_UNDECIDED};

	pick_from(work, &queue->ready, &pick);
	pick_from(work, &queue->later, &pick);
	return pick.n;
}

static void
forget_parent(Unit *unit)
{
	if (unit->waits_key)
		pfree(unit->waits_key);
	unit->waits_key = NULL;
}

void
batch_start(Unit *unit)
{
	leave_list(unit);
	unit->in_flight = true;
	forget_parent(unit);
}

void
batch_postpone(Unit *unit)
{
	list_anew(unit);
}

void
batch_set_parent(Unit *unit, int parent_mapping, const char *parent_key)
{
	forget_parent(unit);
	unit->waits_mapping = parent_mapping;
	unit->waits_key = pstrdup(parent_key);
}

bool
batch_waits_for(const Work *work, int mapping, const char *key, const Unit *unit)
{
	for (int i = 0; i < MAX_CIRCLE && key; i++)
	{
		const Unit *next;

		if (mapping == unit->queue->mapping && strcmp(key, unit->key) == 0)
			return true;
		next = map_get(work->at_hand, mapping, key);
		if (!next)
			return false;
		mapping = next->waits_mapping;
		key = next->waits_key;
	}
	return false;
}

void
batch_again(Unit *unit)
{
	make_ready(unit, true);
	unit->kind = UNIT_UNDECIDED;
}

static void
free_unit(Unit *unit)
{
	for (int i = 0; i < unit->nold; i++)
		pfree(unit->old_keys[i]);
	if (unit->old_keys)
		pfree(unit->old_keys);
	if (unit->changed)
		pfree(unit->changed);
	if (unit->times)
		pfree(unit->times);
	batch_forget_read(unit);
	if (unit->refs)
		pfree(unit->refs);
	forget_parent(unit);
	batch_hold(unit, NULL);
	pfree(unit->key);
	pfree(unit);
}

void
batch_fold_next(Work *work, Unit *unit)
{
	Unit *next = unit->next;

	if (!next)
		return;
	unit->next = NULL;
	batch_join_hold(next, unit->hold);
	batch_hold(unit, next->hold);
	unit->left |= next->left;
	unit->deleted |= next->deleted;
	unit->key_left |= next->key_left;
	unit->captured |= next->captured;
	if (next->deferred)
	{
		unit->deferred = true;
		unit->renewed = next->renewed;
	}
	for (int i = 0; i < next->nold; i++)
	{
		batch_add_old_key(work, unit, next->old_keys[i]);
		if (map_get(work->moved, unit->queue->mapping, next->old_keys[i]) == next)
			map_set(work->moved, unit->queue->mapping, next->old_keys[i], unit);
	}
	batch_add_changes_of(unit, next);
	for (int i = 0; i < next->nrefs; i++)
		batch_add_ref(unit, next->refs[i]);
	add_event_time(unit, next->event_at);
	unit->queue->nunits--;
	work->nunits--;
	if (next->chunk)
		next->chunk->pending--;
	free_unit(next);
}

void
batch_done(Work *work, Unit *unit)
{
	MappingQueue *queue = unit->queue;

	if (unit->listed)
		leave_list(unit);
	for (int i = 0; i < unit->nold; i++)
		if (map_get(work->moved, queue->mapping, unit->old_keys[i]) == unit)
			map_remove(work->moved, queue->mapping, unit->old_keys[i]);
	if (unit->chunk)
		unit->chunk->pending--;
	if (unit->next)
	{
		map_set(work->at_hand, queue->mapping, unit->key, unit->next);
		make_ready(unit->next, true);
	}
	else
		map_remove(work->at_hand, queue->mapping, unit->key);
	queue->nunits--;
	work->nunits--;
	free_unit(unit);
}
