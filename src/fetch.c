/*
 * fetch.c
 *		Fills the work at hand: from the queue, from deferred changes that are
 *		due, from backfills.
 *
 * How much is at hand is bounded, however long the queue.  Events of a mapping
 * that can't be delivered are passed over when others could go: they are found
 * again by reading the queue from its start, once the mapping can.
 */
#include "compat.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "backfills.h"
#include "bulk_job.h"
#include "delivery.h"
#include "expression.h"
#include "fetch.h"
#include "lock.h"
#include "locked.h"
#include "sfsync.h"
#include "source.h"

#define AT_HAND_LOW 6000 /* units below which more is read */
#define AT_HAND_MAX 10000
#define IDLE_MAPPING_MAX 500 /* units at hand of a mapping that can't go */
#define PAGE 1000
#define CHUNK_ROWS 2000
#define NOTE_INTERVAL_MS 1000

typedef struct Taking
{
	Delivery *delivery;
	List *fresh; /* units that got an event: they may have a deferred row */
} Taking;

static void
take_event(const WorkEvent *event, void *arg)
{
	Taking *taking = arg;
	Delivery *delivery = taking->delivery;
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);
	MappingQueue *queue = batch_queue(delivery->work, event->mapping);
	MappingDelivery *state = delivery_of(delivery, event->mapping);
	Unit *unit = NULL;

	/* once some were passed over, so are all, until they are read again in their order */
	if (state->behind || (!state->deliverable && queue->nunits >= IDLE_MAPPING_MAX))
		state->behind = true;
	else
		unit = batch_event(delivery->work, event);
	MemoryContextSwitchTo(caller);
	if (unit)
		taking->fresh = lappend(taking->fresh, unit);
}

/* A record that made requests fail goes alone. */
static bool
suspected(int mapping_id, const char *key)
{
	Mapping *mapping = mapping_get(mapping_id);

	return mapping && connection_suspects(mapping->serverid, mapping->owner, mapping_id, key);
}

void
fetch_merge_deferred(Delivery *delivery, Unit *unit, const DeferredRow *row)
{
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);

	batch_deferred(unit);
	if (row->attempts > 0 || unit->limit == 0)
		unit->limit = suspected(row->mapping, row->key) ? 1 : 0;
	unit->inserted = false;
	if (row->held && row->deleted)
		batch_join_hold(unit, row->reason);
	unit->attempts = row->attempts;
	if (row->whole_at != 0)
		batch_add_whole(unit, row->whole_at);
	unit->whole |= row->whole;
	unit->deleted |= row->deleted;
	unit->key_left |= row->key_left;
	unit->captured |= row->captured;
	unit->renewed = row->renewed;
	unit->missing_since = row->missing_since;
	for (int i = 0; i < row->nold; i++)
		batch_add_old_key(delivery->work, unit, row->old_keys[i]);
	if (row->times && row->ntimes == row->changed_len * 8)
		batch_add_times(unit, row->changed, row->changed_len, row->times);
	else
		batch_add_changed(unit, row->changed, row->changed_len, row->changed_at);
	if (unit->min_xid == 0 || row->xid < unit->min_xid)
		unit->min_xid = row->xid;
	if (unit->first_event_at == 0 || row->first_event_at < unit->first_event_at)
		unit->first_event_at = row->first_event_at;
	unit->event_at = Max(unit->event_at, row->event_at);
	MemoryContextSwitchTo(caller);
}

/*
 * Changes of rows that wait are merged into what waits: it keeps its time and
 * attempts.  What was held goes on with the new change; a delete that is to be
 * held becomes so at once, for what waits tells nothing of that.
 */
void
fetch_join_deferred(Delivery *delivery, List *fresh)
{
	int n = list_length(fresh);
	int32 *mappings = palloc(sizeof(int32) * Max(n, 1));
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	TimestampTz now = GetCurrentTimestamp();
	DeferredRow *rows;
	int nrows;

	for (int i = 0; i < n; i++)
	{
		Unit *unit = list_nth(fresh, i);

		mappings[i] = unit->queue->mapping;
		keys[i] = unit->key;
	}
	rows = deferred_of_keys(mappings, keys, n, &nrows);
	for (int i = 0; i < nrows; i++)
	{
		Unit *unit = batch_find(delivery->work, rows[i].mapping, rows[i].key);
		Outcome *outcome;

		while (unit && unit->in_flight)
			unit = unit->next;
		if (!unit || unit->deferred)
			continue;
		fetch_merge_deferred(delivery, unit, &rows[i]);
		if (rows[i].held || unit->hold || rows[i].due_at <= now || rows[i].missing_since != 0)
			continue;
		if (batch_find(delivery->work, rows[i].mapping, rows[i].key) != unit)
			continue; /* its turn comes after the one in flight */
		outcome = delivery_decide(delivery, unit, OUTCOME_DEFERRED);
		outcome->reason = rows[i].reason;
		outcome->due_at = rows[i].due_at;
	}
}

/*
 * Units that can be worked on: those of mappings that can't go now don't keep
 * others out, nor do rows of backfills that are at hand.
 */
static int
at_hand(Delivery *delivery)
{
	ListCell *lc;
	int n = 0;

	foreach(lc, delivery->mappings)
	{
		MappingDelivery *state = lfirst(lc);
		MappingQueue *queue = state->deliverable ? batch_find_queue(delivery->work, state->id) : NULL;

		if (queue)
			n += queue->nunits - queue->nlater - bulk_units(delivery, state->id);
	}
	return n;
}

/* At least so many that it shows whether a bulk job is worth it. */
static int
at_hand_low(const Delivery *delivery)
{
	ListCell *lc;
	int low = AT_HAND_LOW;

	foreach(lc, delivery->mappings)
	{
		const MappingDelivery *state = lfirst(lc);

		if (state->bulk_off_until <= delivery->turn_started)
			low = Max(low, state->bulk_threshold);
	}
	return low;
}

static void
read_queue(Delivery *delivery)
{
	Taking taking = {delivery, NIL};
	int nread;

	if (!delivery_possible(delivery))
		return; /* busy writers must not pay for reading what can't go */
	while (delivery->look && at_hand(delivery) < at_hand_low(delivery))
		if (queue_read(&delivery->window, PAGE, delivery->context, take_event, &taking, &nread))
			delivery->look = false;
	if (taking.fresh != NIL)
		fetch_join_deferred(delivery, taking.fresh);
}

static int *
deliverable_mappings(Delivery *delivery, int *n)
{
	int *ids = palloc(sizeof(int) * Max(list_length(delivery->mappings), 1));
	ListCell *lc;

	*n = 0;
	foreach(lc, delivery->mappings)
	{
		MappingDelivery *state = lfirst(lc);

		if (state->deliverable)
			ids[(*n)++] = state->id;
	}
	return ids;
}

static void
read_deferred(Delivery *delivery)
{
	TimestampTz now = GetCurrentTimestamp();
	int nids;
	int *ids;
	int room = AT_HAND_MAX - at_hand(delivery);
	DeferredRow *rows;
	int n;

	if (delivery->next_due == 0 || delivery->next_due > now || room <= 0)
		return;
	ids = deliverable_mappings(delivery, &nids);
	rows = deferred_due(ids, nids, delivery->deferred_from, now, Min(room, PAGE), &n);
	for (int i = 0; i < n; i++)
	{
		MemoryContext caller = MemoryContextSwitchTo(delivery->context);
		Unit *first = batch_find(delivery->work, rows[i].mapping, rows[i].key);
		Unit *unit = NULL;

		if (!first || !(first->deferred || (first->next && first->next->deferred)))
			unit = batch_unit(delivery->work, rows[i].mapping, rows[i].key);
		MemoryContextSwitchTo(caller);
		if (unit)
			fetch_merge_deferred(delivery, unit, &rows[i]);
	}
	if (n == Min(room, PAGE))
	{
		/* rows of one instant may be left: they are found at hand the next time */
		delivery->deferred_from = rows[n - 1].due_at - 1;
		return;
	}
	delivery->deferred_from = now;
	delivery->next_due = deferred_next_due(ids, nids, now);
}

/*
 * Backfills
 */

static int
chunks_of(Delivery *delivery, int64 job, BackfillChunk **last)
{
	ListCell *lc;
	int n = 0;

	foreach(lc, delivery->chunks)
	{
		BackfillChunk *chunk = lfirst(lc);

		if (chunk->job != job)
			continue;
		*last = chunk;
		n++;
	}
	return n;
}

/* Rows of the chunk that wait already are joined with what waits, like those of events. */
static void
take_chunk(Delivery *delivery, const BackfillJob *job, char **keys, int nkeys)
{
	List *fresh = NIL;
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);
	BackfillChunk *chunk = palloc0(sizeof(BackfillChunk));

	chunk->job = job->id;
	chunk->mapping = job->mapping;
	chunk->rows = nkeys;
	chunk->last = nkeys < CHUNK_ROWS;
	if (nkeys > 0)
		chunk->last_key = pstrdup(keys[nkeys - 1]);
	for (int i = 0; i < nkeys; i++)
	{
		Unit *unit = batch_find(delivery->work, job->mapping, keys[i]);

		if (!unit || !unit->restored || !unit->whole)
			unit = batch_unit(delivery->work, job->mapping, keys[i]);
		if (unit->in_flight)
			; /* it is on its way with all that it has */
		else if (job->changed)
			batch_add_changed(unit, job->changed, job->changed_len, BATCH_NEVER);
		else
			batch_add_whole(unit, BATCH_NEVER);
		if (job->filter_changed_at != 0)
			unit->event_at = Max(unit->event_at, job->filter_changed_at); /* rows may leave by it */
		if (job->hold)
			batch_hold(unit, BATCH_FILTER_HOLD);
		if (unit->min_xid == 0 || job->xid < unit->min_xid)
			unit->min_xid = job->xid;
		/* if not: it is counted by an earlier chunk, which ends first */
		(void) batch_backfill(unit, &chunk->chunk);
		fresh = lappend(fresh, unit);
	}
	delivery->chunks = lappend(delivery->chunks, chunk);
	MemoryContextSwitchTo(caller);
	/* what waits, or has a dead letter, goes with it: else that would count as done */
	fetch_join_deferred(delivery, fresh);
	list_free(fresh);
}

/*
 * Those in bulk jobs are not settled for long, and don't hold up others; but
 * when jobs have no room, they wait for it.
 */
static int
chunks_at_once(const Delivery *delivery, const MappingDelivery *state)
{
	const MappingQueue *queue = batch_find_queue(delivery->work, state->id);
	int in_bulk = bulk_units(delivery, state->id);

	if (in_bulk > 0 && !bulk_has_room(delivery, queue->nunits - in_bulk))
		return 0;
	return 1 + (at_hand_low(delivery) + in_bulk) / CHUNK_ROWS;
}

typedef struct KeysWanted
{
	const Mapping *mapping;
	const BackfillJob *job;
	const char *last_key;
	char **keys;
	int nkeys;
} KeysWanted;

static void
read_keys(void *arg)
{
	KeysWanted *wanted = arg;
	SourceChoice choice = {wanted->job->changed, wanted->job->changed_len, wanted->job->filter};

	wanted->keys = source_keys_after(wanted->mapping, wanted->last_key, &choice, CHUNK_ROWS, &wanted->nkeys);
}

/* The filter of a backfill is its own: when it fails, so does the backfill, and nothing else. */
static bool
read_filtered_keys(MappingDelivery *state, KeysWanted *wanted)
{
	char *error = expression_guard(read_keys, wanted);

	if (!error)
		return true;
	ereport(LOG, (errmsg("sfsync: mapping \"%s\": backfill %lld failed: %s", wanted->mapping->name,
						 (long long) wanted->job->id, error)));
	backfill_fail(wanted->job->id);
	if (state->counters.last_error)
		pfree(state->counters.last_error);
	state->counters.last_error =
		MemoryContextStrdup(TopMemoryContext, psprintf("a backfill failed: %s", error));
	state->dirty = true;
	return false;
}

static void
read_backfill(Delivery *delivery, MappingDelivery *state, void *arg)
{
	const BackfillJob *job = arg;
	BackfillChunk *last = NULL;
	int nchunks = chunks_of(delivery, job->id, &last);
	Mapping *mapping;
	KeysWanted wanted = {NULL, job, NULL, NULL, 0};

	if (!state->deliverable || nchunks >= chunks_at_once(delivery, state) || (last && last->last) ||
		at_hand(delivery) >= at_hand_low(delivery))
		return;
	mapping = mapping_get(job->mapping);
	if (!mapping || mapping->broken || !mapping->meta || !delivery_lock_source(delivery, state, mapping))
		return;
	wanted.mapping = mapping_get(job->mapping);
	if (!wanted.mapping)
		return;
	wanted.last_key = last ? last->last_key : job->last_key;
	if (!job->filter)
		read_keys(&wanted);
	else if (!read_filtered_keys(state, &wanted))
		return;
	take_chunk(delivery, job, wanted.keys, wanted.nkeys);
}

static bool
is_running(const BackfillJob *jobs, int n, int64 job)
{
	for (int i = 0; i < n; i++)
		if (jobs[i].id == job)
			return true;
	return false;
}

/* What is at hand of backfills that were cancelled, and not in flight, is let go. */
static void
drop_cancelled(Delivery *delivery, const BackfillJob *jobs, int n)
{
	ListCell *lc;

	foreach(lc, delivery->chunks)
	{
		BackfillChunk *chunk = lfirst(lc);
		MappingQueue *queue = batch_find_queue(delivery->work, chunk->mapping);

		if (queue && !is_running(jobs, n, chunk->job))
			batch_drop_backfill(delivery->work, queue, &chunk->chunk);
	}
}

static void
read_chunks(Delivery *delivery, BackfillJob *job)
{
	int before;

	do
	{
		before = list_length(delivery->chunks);
		delivery_guard(delivery, delivery_of(delivery, job->mapping), read_backfill, job);
	} while (list_length(delivery->chunks) > before);
}

static void
read_backfills(Delivery *delivery)
{
	int n;
	BackfillJob *jobs;

	if (!delivery->backfills_running)
		return;
	jobs = backfills_running(&n);
	drop_cancelled(delivery, jobs, n);
	delivery->backfills_running = n > 0;
	for (int i = 0; i < n; i++)
		read_chunks(delivery, &jobs[i]);
}

static void
advance(const BackfillChunk *chunk)
{
	BackfillStep step;
	Mapping *mapping;

	if (!backfill_advance(chunk->job, chunk->last_key, chunk->rows, chunk->last, &step))
		return; /* cancelled */
	if (step.percent / 10 == step.percent_before / 10)
		return;
	mapping = mapping_get(chunk->mapping);
	ereport(LOG, (errmsg("sfsync: backfill " INT64_FORMAT " of mapping \"%s\": %d percent, " INT64_FORMAT
						 " of " INT64_FORMAT " rows",
						 chunk->job, mapping ? mapping->name : "?", step.percent, step.rows_done,
						 step.rows_total)));
}

static int
settled_rows(const BackfillChunk *chunk)
{
	return chunk->rows - chunk->chunk.pending;
}

TimestampTz
fetch_progress_due(const Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->chunks)
	{
		const BackfillChunk *chunk = lfirst(lc);

		if (settled_rows(chunk) != chunk->noted)
			return delivery->chunks_noted + MILLISECONDS(NOTE_INTERVAL_MS);
	}
	return 0;
}

/* What is settled of a job's chunks that are not done; first is the foremost. */
static void
note_ahead(Delivery *delivery, const BackfillChunk *first)
{
	int64 rows = 0;
	ListCell *lc;

	if (!lock_mapping(first->mapping, AccessShareLock, false))
		return;
	foreach(lc, delivery->chunks)
	{
		BackfillChunk *chunk = lfirst(lc);

		if (chunk->job != first->job)
			continue;
		chunk->noted = settled_rows(chunk);
		rows += chunk->noted;
	}
	backfill_note_ahead(first->job, rows);
}

/* Now and then, so that there is something to be seen of a chunk that takes long. */
static void
note_progress(Delivery *delivery)
{
	List *noted = NIL;
	ListCell *lc;

	delivery->chunks_noted = GetCurrentTimestamp();
	foreach(lc, delivery->chunks)
	{
		const BackfillChunk *chunk = lfirst(lc);

		if (list_member_int(noted, (int) chunk->job))
			continue;
		note_ahead(delivery, chunk);
		noted = lappend_int(noted, (int) chunk->job);
	}
}

/* Write how far backfills are: those whose foremost chunks are settled go on from there. */
void
fetch_note_chunks(Delivery *delivery)
{
	List *passed = NIL; /* jobs with an open chunk, or that just end: later ones of it must wait */
	TimestampTz due = fetch_progress_due(delivery);
	bool advanced = false;
	ListCell *lc;

	foreach(lc, delivery->chunks)
	{
		BackfillChunk *chunk = lfirst(lc);

		if (chunk->chunk.pending > 0 || list_member_int(passed, (int) chunk->job) ||
			!lock_mapping(chunk->mapping, AccessShareLock, false))
		{
			passed = lappend_int(passed, (int) chunk->job);
			continue;
		}
		advance(chunk);
		advanced = true;
		delivery->chunks = foreach_delete_current(delivery->chunks, lc);
		if (chunk->last_key)
			pfree(chunk->last_key);
		pfree(chunk);
		delivery->look = true;
	}
	if (advanced || (due != 0 && due <= GetCurrentTimestamp()))
		note_progress(delivery);
}

bool
fetch_left_behind(const Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->mappings)
	{
		const MappingDelivery *state = lfirst(lc);
		const MappingQueue *queue = batch_find_queue(delivery->work, state->id);

		if (state->behind && state->deliverable && (!queue || queue->nunits < IDLE_MAPPING_MAX / 2))
			return true;
	}
	return false;
}

static void
catch_up(Delivery *delivery)
{
	ListCell *lc;

	if (!fetch_left_behind(delivery))
		return;
	foreach(lc, delivery->mappings)
		((MappingDelivery *) lfirst(lc))->behind = false;
	queue_rewind(&delivery->window);
	delivery->look = true;
}

void
fetch(Delivery *delivery)
{
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);

	catch_up(delivery);
	MemoryContextSwitchTo(caller);
	read_queue(delivery);
	read_deferred(delivery);
	read_backfills(delivery);
	delivery->prepared = queue_prepared_transactions();
}
