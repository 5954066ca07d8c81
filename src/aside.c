/*
 * aside.c
 *		Events put aside: key changes, and what comes after them of the keys that
 *		they concern.
 */
#include "compat.h"

#include "batch.h"
#include "batch_internal.h"

static void
concern_keys(Work *work, const WorkEvent *event, int by)
{
	unit_map_count(work->concerned, event->mapping, event->key, by);
	if (event->operation == EVENT_KEY_CHANGE)
		unit_map_count(work->concerned, event->mapping, event->old_key, by);
	batch_queue(work, event->mapping)->nunits += by;
	work->nunits += by;
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
has_ref(const Unit *unit, QueueRef ref)
{
	for (int i = unit->nrefs - 1; i >= 0; i--)
		if (unit->refs[i].xid == ref.xid && unit->refs[i].n == ref.n)
			return true;
	return false;
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
is_stuck(UnitMap *stuck, const WorkEvent *event)
{
	return unit_map_has(stuck, event->mapping, event->key) ||
		   (event->operation == EVENT_KEY_CHANGE && unit_map_has(stuck, event->mapping, event->old_key));
}

void
batch_take(Work *work, BatchTakeFunction take, void *arg)
{
	UnitMap *stuck = unit_map_create();
	int left = 0;

	qsort(work->aside, work->naside, sizeof(Aside *), compare_asides);
	for (int i = 0; i < work->naside; i++)
	{
		Aside *aside = work->aside[i];
		const WorkEvent *event = &aside->event;

		if (is_stuck(stuck, event) || !take(event, arg))
		{
			unit_map_set(stuck, event->mapping, event->key, NULL);
			if (event->operation == EVENT_KEY_CHANGE)
				unit_map_set(stuck, event->mapping, event->old_key, NULL);
			work->aside[left++] = aside;
			continue;
		}
		concern_keys(work, event, -1);
		pfree(aside);
	}
	work->naside = left;
	unit_map_free(stuck);
}

bool
batch_is_at_hand(Work *work, int mapping, const char *key)
{
	return batch_find(work, mapping, key) || unit_map_has(work->concerned, mapping, key);
}

Unit *
batch_event(Work *work, const WorkEvent *event)
{
	bool concerned = unit_map_has(work->concerned, event->mapping, event->key);

	for (Unit *unit = batch_find(work, event->mapping, event->key); unit; unit = unit->next)
		if (has_ref(unit, event->ref))
			return NULL;
	if (!concerned && event->operation != EVENT_KEY_CHANGE)
		return batch_fold(work, event);
	if (!concerned || !is_aside(work, event->ref))
		put_aside(work, event);
	return NULL;
}
