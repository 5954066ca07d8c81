/*
 * move.c
 *		Key changes: what is known and pending of a row goes over to its new key,
 *		at once and for good, before anything of either key is sent.
 *
 * A key change doesn't wait in the queue until its record has the new key.  The
 * record and what is pending of the row are renamed in one transaction, in the
 * order in which the keys changed; from then on it is the record that says that
 * Salesforce may have it under another key (records.c), and the row's next write,
 * by Id, sets it.  So a chain of changes, a swap or a crash in between leave
 * nothing to be put together again.
 */
#include "compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "datum.h"
#include "delivery.h"
#include "fetch.h"
#include "lock.h"
#include "mapping.h"
#include "move.h"
#include "records.h"
#include "settle.h"

/* The keys of one pass: the rows', before it and after. */
typedef struct Moving
{
	Delivery *delivery;
	int mapping; /* passes are of one mapping */
	const Mapping *config;
	List *units; /* that rows came to */
	List *fresh; /* that got other events that had waited */
	int n;
	int max;
	char **from;
	char **to;
	bool progress;
} Moving;

/* What is deferred of a key becomes part of what is at hand.  False: a delete, which is to be sent first, isn't due. */
static bool
take_deferred(Moving *moving, const char *key, bool target)
{
	Delivery *delivery = moving->delivery;
	Unit *unit = batch_find(delivery->work, moving->mapping, key);
	char *keys[1] = {unconstify(char *, key)};
	int32 mappings[1] = {moving->mapping};
	DeferredRow *row;
	int n;
	MemoryContext caller;

	if (target && unit && unit->deferred)
		return true;
	row = deferred_of_keys(mappings, keys, 1, &n);
	if (n == 0 || (unit && unit->deferred && unit->renewed == row->renewed))
		return true;
	if (target && row->deleted && !row->held && !row->dead)
		return false;
	caller = MemoryContextSwitchTo(delivery->context);
	if (!target)
		fetch_merge_deferred(delivery, batch_unit(delivery->work, moving->mapping, key), row);
	MemoryContextSwitchTo(caller);
	deferred_remove(moving->mapping, key);
	return true;
}

/* Has the old row of the key been deleted, and is that yet to be sent? */
static bool
delete_goes_first(Moving *moving, const WorkEvent *event)
{
	Unit *unit = batch_find(moving->delivery->work, event->mapping, event->key);

	if (!unit || !unit->deleted || unit->hold || unit->event_at > event->event_at)
		return false;
	moving->progress |= !unit->replaced;
	unit->replaced = true;
	return true;
}

/* Rows that change places: each goes from where it was before the pass to where it is after. */
static void
note_keys(Moving *moving, const WorkEvent *event, bool overlapped)
{
	for (int i = moving->n - 1; i >= 0 && !overlapped; i--)
		if (strcmp(moving->to[i], event->old_key) == 0)
		{
			moving->to[i] = pstrdup(event->key);
			return;
		}
	if (moving->n == moving->max)
	{
		moving->max = Max(moving->max * 2, 64);
		moving->from = moving->from ? repalloc(moving->from, sizeof(char *) * moving->max)
									: palloc(sizeof(char *) * moving->max);
		moving->to = moving->to ? repalloc(moving->to, sizeof(char *) * moving->max)
								: palloc(sizeof(char *) * moving->max);
	}
	moving->from[moving->n] = pstrdup(event->old_key);
	moving->to[moving->n++] = pstrdup(event->key);
}

/*
 * What is at hand of a row whose record isn't known tells where it may be: under
 * its key and those that it had before, or nowhere, since it was never sent.
 */
static void
expect_record(const Moving *moving, const Mapping *mapping, const char *key)
{
	const Unit *unit = batch_find(moving->delivery->work, mapping->id, key);
	bool unsent = unit && unit->inserted && moving->delivery->next_verify == 0;
	int nold = unit ? unit->nold : 0;
	char **at_keys = palloc(sizeof(char *) * (nold + 1));
	int n = 0;

	if (!unsent)
		at_keys[n++] = mapping_record_key(mapping, key);
	for (int i = 0; i < nold; i++)
		at_keys[n++] = mapping_record_key(mapping, unit->old_keys[i]);
	record_expect(mapping->id, mapping_record_key(mapping, key), key, at_keys, n);
}

/* Where rows may have the same key for a moment: does what is at hand tell of another at the key? */
static bool
is_occupied(const Moving *moving, const Mapping *mapping, const char *key)
{
	const Unit *unit = batch_find(moving->delivery->work, mapping->id, key);

	return mapping->key_overlaps && unit && !unit->deleted && !unit->key_left;
}

/* True if the row is, or may be, one whose key another row has got already. */
static bool
move_record(const Moving *moving, const Mapping *mapping, const WorkEvent *event, const Unit *left)
{
	RecordMove move = {mapping->id, event->old_key, event->key};

	move.from_record_key = mapping_record_key(mapping, event->old_key);
	move.to_record_key = mapping_record_key(mapping, event->key);
	move.case_sensitive = mapping->key_field->case_sensitive;
	move.overlaps = mapping->key_overlaps;
	move.xid = event->ref.xid;
	if (!record_is_overlapped(&move))
		expect_record(moving, mapping, event->old_key);
	if (is_occupied(moving, mapping, event->key))
		expect_record(moving, mapping, event->key);
	if (mapping->key_overlaps && left && left->moved_by == move.xid && record_split(&move))
		return true;
	return record_move(&move);
}

static void
carry_out(Moving *moving, const Mapping *mapping, const WorkEvent *event)
{
	Delivery *delivery = moving->delivery;
	Unit *left = batch_find(delivery->work, event->mapping, event->old_key);
	bool was_deferred = left && left->deferred;
	bool shared = move_record(moving, mapping, event, left);
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);
	Unit *unit = batch_move(delivery->work, event, shared);

	MemoryContextSwitchTo(caller);
	if (left && batch_find(delivery->work, event->mapping, event->old_key) == left)
		moving->units = list_append_unique_ptr(moving->units, left);
	else if (left)
	{
		if (was_deferred)
			deferred_remove(event->mapping, event->old_key);
		moving->units = list_delete_ptr(moving->units, left);
		moving->fresh = list_delete_ptr(moving->fresh, left);
	}
	moving->units = list_append_unique_ptr(moving->units, unit);
	note_keys(moving, event, shared);
}

static bool
is_in_flight(const Moving *moving, const char *key)
{
	const Unit *unit = batch_find(moving->delivery->work, moving->mapping, key);

	return unit && unit->in_flight;
}

/* Is the record of a row about to give up its key, for another's sake? */
static bool
gives_up_key(const Moving *moving, const char *key)
{
	ListCell *lc;

	foreach(lc, moving->delivery->requests)
	{
		const Request *request = lfirst(lc);

		for (int i = 0; request->mapping == moving->mapping && i < request->nunits; i++)
			if (request->outcomes[i].holder_row && strcmp(request->outcomes[i].holder_row, key) == 0)
				return true;
	}
	return false;
}

/* An event that was put aside: may it go now? */
static bool
take(const WorkEvent *event, void *arg)
{
	Moving *moving = arg;

	if (event->mapping != moving->mapping)
		return false;
	if (event->operation != EVENT_KEY_CHANGE)
	{
		MemoryContext caller = MemoryContextSwitchTo(moving->delivery->context);
		Unit *unit = batch_fold(moving->delivery->work, event);

		MemoryContextSwitchTo(caller);
		moving->fresh = list_append_unique_ptr(moving->fresh, unit);
		return true;
	}
	if (is_in_flight(moving, event->key) || is_in_flight(moving, event->old_key) ||
		gives_up_key(moving, event->key) || gives_up_key(moving, event->old_key) ||
		delete_goes_first(moving, event) || !take_deferred(moving, event->old_key, false) ||
		!take_deferred(moving, event->key, true))
		return false;
	carry_out(moving, moving->config, event);
	moving->progress = true;
	return true;
}

/* What is at hand of the rows is kept as deferred from now on: their events leave the queue. */
static void
keep(Moving *moving, const Mapping *mapping)
{
	int n = list_length(moving->units);
	Outcome *outcomes = palloc0(sizeof(Outcome) * Max(n, 1));
	ListCell *lc;
	int i = 0;

	foreach(lc, moving->units)
	{
		Outcome *outcome = &outcomes[i++];

		outcome->unit = lfirst(lc);
		outcome->kind = OUTCOME_DEFERRED;
		outcome->reason = "the key of the row changed: the record is to get it";
		outcome->due_at = GetCurrentTimestamp();
	}
	if (n == 0)
		return;
	(void) queue_settle(mapping, outcomes, n, 0);
	keys_moved(mapping, moving->from, moving->to, moving->n);
	for (i = 0; i < n; i++)
	{
		batch_forget_refs(outcomes[i].unit);
		outcomes[i].unit->deferred = true;
	}
}

/* The mapping is gone: so is the queue. */
static bool
discard(const WorkEvent *event, void *arg)
{
	const Moving *moving = arg;

	return event->mapping == moving->mapping;
}

static void
move_at_hand(Moving *moving)
{
	Work *work = moving->delivery->work;

	moving->config = mapping_get(moving->mapping);
	if (!moving->config)
		batch_take(work, discard, moving);
	else if (moving->config->key_field && moving->config->source_name)
	{
		batch_take(work, take, moving);
		keep(moving, moving->config);
		fetch_join_deferred(moving->delivery, moving->fresh);
	}
}

static bool
move_mapping(Delivery *delivery, const MappingDelivery *state)
{
	Moving moving = {.delivery = delivery, .mapping = state->id};
	MemoryContext caller = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(caller);
	if (lock_mapping(state->id, AccessShareLock, false))
		move_at_hand(&moving);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return moving.progress || moving.fresh != NIL;
}

bool
move_keys(Delivery *delivery)
{
	volatile bool progress = false;
	ListCell *lc;

	if (!batch_has_aside(delivery->work))
		return false;
	PG_TRY();
	{
		foreach(lc, delivery->mappings)
		{
			const MappingDelivery *state = lfirst(lc);

			if (state->deliverable && !state->blocked)
				progress = move_mapping(delivery, state) || progress;
		}
	}
	PG_CATCH();
	{
		/* what is at hand went ahead of what is stored: begin again from that */
		EmitErrorReport();
		FlushErrorState();
		ereport(FATAL, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("sfsync: a key change could not be stored"),
						errdetail("The worker starts anew.")));
	}
	PG_END_TRY();
	return progress;
}
