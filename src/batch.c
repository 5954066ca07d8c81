/*
 * batch.c
 *		The work at hand: captured changes folded to one unit a row.
 */
#include "compat.h"

#ifndef FRONTEND
#include "utils/memutils.h"
#endif

#include "batch.h"
#include "batch_internal.h"

/* Rows that wait for each other in a circle, at most. */
#define MAX_CIRCLE 100

Work *
batch_create(void)
{
	Work *work = palloc0(sizeof(Work));

	work->at_hand = unit_map_create();
	work->moved = unit_map_create();
	work->concerned = unit_map_create();
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

Unit *
batch_find(Work *work, int mapping, const char *key)
{
	return unit_map_get(work->at_hand, mapping, key);
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
		unit_map_set(work->at_hand, mapping, key, unit);
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
	unit_map_set(work->moved, unit->queue->mapping, old_key, unit);
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
		if (unit_map_get(work->moved, unit->queue->mapping, unit->old_keys[i]) == unit)
			unit_map_remove(work->moved, unit->queue->mapping, unit->old_keys[i]);
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
	Unit *mover = unit_map_get(work->moved, unit->queue->mapping, unit->key);

	return mover && mover != unit && unit->nold == 0;
}

/* Nothing is sent of a key that a key change concerns, but a delete that it waits for. */
static bool
is_put_aside(Work *work, const Unit *unit)
{
	return !unit->replaced && work->naside > 0 &&
		   unit_map_has(work->concerned, unit->queue->mapping, unit->key);
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

/* Of its last event; 0: there is none. */
static uint64
last_xid(const Unit *unit)
{
	return unit->nrefs > 0 ? unit->refs[unit->nrefs - 1].xid : 0;
}

static bool
has_delete(const dlist_head *list, const Unit *unit)
{
	dlist_iter iter;

	dlist_foreach(iter, unconstify(dlist_head *, list))
	{
		const Unit *other = dlist_container(Unit, node, iter.cur);

		if (other->deleted && (other->first_event_at <= unit->event_at ||
							   (last_xid(unit) != 0 && last_xid(other) == last_xid(unit))))
			return true;
	}
	return false;
}

bool
batch_has_delete(const MappingQueue *queue, const Unit *unit)
{
	return has_delete(&queue->ready, unit) || has_delete(&queue->later, unit);
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
		next = unit_map_get(work->at_hand, mapping, key);
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
		if (unit_map_get(work->moved, unit->queue->mapping, next->old_keys[i]) == next)
			unit_map_set(work->moved, unit->queue->mapping, next->old_keys[i], unit);
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
		if (unit_map_get(work->moved, queue->mapping, unit->old_keys[i]) == unit)
			unit_map_remove(work->moved, queue->mapping, unit->old_keys[i]);
	if (unit->chunk)
		unit->chunk->pending--;
	if (unit->next)
	{
		unit_map_set(work->at_hand, queue->mapping, unit->key, unit->next);
		make_ready(unit->next, true);
	}
	else
		unit_map_remove(work->at_hand, queue->mapping, unit->key);
	queue->nunits--;
	work->nunits--;
	free_unit(unit);
}
