/*
 * finish.c
 *		Outcomes written in a transaction, and their units let go of.
 */
#include "compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "delivery.h"
#include "fetch.h"
#include "lock.h"
#include "mapping.h"
#include "reply.h"
#include "settle.h"

/* How long others have to take what was given up for them. */
#define GIVE_WAY_MS 50

void
reply_begin(int mapping)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (mapping != 0)
		(void) lock_mapping(mapping, AccessShareLock, true);
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
reply_commit(void)
{
	PopActiveSnapshot();

	/* lost in a crash, the events are sent again, which is harmless */
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true,
							 0, false);
	CommitTransactionCommand();
}

/*
 * Settling, and letting go of the units
 */

static void
count_outcome(Delivery *delivery, MappingDelivery *state, const Outcome *outcome)
{
	switch (outcome->kind)
	{
		case OUTCOME_SYNCED:
		case OUTCOME_DELETED:
			state->counters.synced++;
			state->counters.last_synced_at = GetCurrentTimestamp();
			break;
		case OUTCOME_UNCHANGED:
			state->counters.unchanged++;
			break;
		case OUTCOME_CONFLICT:
			break;
		case OUTCOME_IGNORED:
			state->counters.ignored++;
			break;
		case OUTCOME_DEAD:
			if (state->counters.last_error)
				pfree(state->counters.last_error);
			state->counters.last_error = MemoryContextStrdup(delivery->context, outcome->error.code);
			break;
		default:
			return;
	}
	state->dirty = true;
}

/* Newer changes of the same row are folded into what wasn't delivered. */
static void
fold_successors(Delivery *delivery, Outcome *outcomes, int n)
{
	for (int i = 0; i < n; i++)
	{
		Outcome *outcome = &outcomes[i];
		Unit *next = outcome->unit->next;

		if (!next)
			continue;
		if (outcome->kind == OUTCOME_SYNCED && outcome->fill)
		{
			/* its deferred row will be there */
			batch_add_changed(next, outcome->fill, outcome->fill_len, outcome->unit->event_at);
			next->deferred = true;
		}
		if (outcome->kind == OUTCOME_DEAD || outcome->kind == OUTCOME_HELD)
			outcome->kind = OUTCOME_AGAIN;
		if (outcome->kind == OUTCOME_AGAIN || outcome->kind == OUTCOME_CREATE_AGAIN ||
			outcome->kind == OUTCOME_DEFERRED)
			batch_fold_next(delivery->work, outcome->unit);
	}
}

/* What was added to a deferred row while it was under way goes along when it is written anew. */
static void
join_renewed(Delivery *delivery, int mapping, const Outcome *outcomes, int n)
{
	int32 *mappings = palloc(sizeof(int32) * Max(n, 1));
	char **keys = palloc(sizeof(char *) * Max(n, 1));
	DeferredRow *rows;
	int nkeys = 0;

	for (int i = 0; i < n; i++)
	{
		if (outcomes[i].kind != OUTCOME_DEFERRED && outcomes[i].kind != OUTCOME_HELD &&
			outcomes[i].kind != OUTCOME_DEAD)
			continue;
		mappings[nkeys] = mapping;
		keys[nkeys++] = outcomes[i].unit->key;
	}
	rows = deferred_of_keys(mappings, keys, nkeys, &nkeys);
	for (int r = 0; r < nkeys; r++)
	{
		Unit *unit = batch_find(delivery->work, mapping, rows[r].key);

		if (unit && unit->renewed != rows[r].renewed)
			fetch_merge_deferred(delivery, unit, &rows[r]);
	}
}

static void
note_due(Delivery *delivery, TimestampTz due_at)
{
	if (delivery->next_due == 0 || due_at < delivery->next_due)
		delivery->next_due = due_at;
	if (due_at <= delivery->deferred_from)
		delivery->deferred_from = due_at - 1;
}

static void
release_unit(Delivery *delivery, const Outcome *outcome)
{
	if (outcome->kind == OUTCOME_DEFERRED || (outcome->kind == OUTCOME_SYNCED && outcome->fill))
		note_due(delivery, outcome->due_at);
	switch (outcome->kind)
	{
		case OUTCOME_CREATE_AGAIN:
			outcome->unit->whole = true;
			batch_again(outcome->unit);
			break;
		case OUTCOME_AGAIN:
			batch_again(outcome->unit);
			break;
		default:
			batch_done(delivery->work, outcome->unit);
	}
}

/* What is ready again is first, and in the order that it had: parents come before children. */
static void
release_units(Delivery *delivery, const Outcome *outcomes, int n)
{
	for (int i = n - 1; i >= 0; i--)
		release_unit(delivery, &outcomes[i]);
	for (int i = 0; i < n; i++)
		if (outcomes[i].kind == OUTCOME_AGAIN && outcomes[i].last_in_turn)
			batch_postpone(outcomes[i].unit);
}

static const RestUser *
find_user(const Delivery *delivery, const char *id)
{
	ListCell *lc;

	foreach(lc, delivery->users)
		if (strcmp(((RestUser *) lfirst(lc))->id, id) == 0)
			return lfirst(lc);
	return NULL;
}

/* Ids of users get their names, those that are not known yet later. */
static void
name_users(Delivery *delivery, MappingDelivery *state, Outcome *outcomes, int n)
{
	for (int i = 0; i < n; i++)
		for (int c = 0; c < outcomes[i].conflicts.n; c++)
		{
			ConflictNote *note = &outcomes[i].conflicts.notes[c];
			const RestUser *user = note->modified_by ? find_user(delivery, note->modified_by) : NULL;

			if (user)
				note->modified_by = psprintf("%s (%s)", user->id, user->name);
			else if (note->modified_by)
				state->users_wanted = true;
		}
}

static bool
anything_to_write(const Outcome *outcomes, int n, int64 intent)
{
	if (intent != 0)
		return true;
	for (int i = 0; i < n; i++)
		if (outcomes[i].kind != OUTCOME_AGAIN || outcomes[i].bulk_job != 0)
			return true;
	return false;
}

/*
 * The mapping may have been dropped meanwhile: then there is nobody to settle
 * for, and nothing is left in its tables.
 */
static void
write_outcomes(Delivery *delivery, MappingDelivery *state, Outcome *outcomes, int n, int64 intent)
{
	MemoryContext caller = CurrentMemoryContext;
	int remaining = batch_size(delivery->work);
	Mapping *mapping;

	reply_begin(state->id);
	MemoryContextSwitchTo(caller);
	mapping = mapping_get(state->id);
	join_renewed(delivery, state->id, outcomes, n);
	if (queue_settle(mapping, outcomes, n, intent))
	{
		delivery->deferred_from = DT_NOBEGIN;
		delivery->next_due = GetCurrentTimestamp();
	}
	for (int i = 0; i < n; i++)
	{
		count_outcome(delivery, state, &outcomes[i]);
		if (outcomes[i].kind != OUTCOME_AGAIN && outcomes[i].kind != OUTCOME_CREATE_AGAIN &&
			!outcomes[i].unit->next)
			remaining--;
	}
	delivery_write_state(delivery, remaining == 0);
	reply_commit();
	MemoryContextSwitchTo(caller);
}

/*
 * Who decides about many changes at once (retry, release_deletes) comes to their
 * rows in another order.  If neither can go on, the worker gives way (worker.c).
 */
static bool
write_or_give_way(Delivery *delivery, MappingDelivery *state, Outcome *outcomes, int n, int64 intent)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile bool written = true;

	PG_TRY();
	{
		write_outcomes(delivery, state, outcomes, n, intent);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_T_R_DEADLOCK_DETECTED)
			PG_RE_THROW();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(caller);
		written = false;
	}
	PG_END_TRY();
	return written;
}

void
reply_finish(Delivery *delivery, int mapping_id, Outcome *outcomes, int n, Request *request)
{
	int64 intent = request ? request->intent : 0;
	MappingDelivery *state = delivery_of(delivery, mapping_id);
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);

	fold_successors(delivery, outcomes, n);
	name_users(delivery, state, outcomes, n);
	MemoryContextSwitchTo(caller);
	if (anything_to_write(outcomes, n, intent))
		while (!write_or_give_way(delivery, state, outcomes, n, intent))
		{
			/* who waited is to be first */
			(void) WaitLatch(MyLatch, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, GIVE_WAY_MS, PG_WAIT_EXTENSION);
			CHECK_FOR_INTERRUPTS();
		}
	MemoryContextSwitchTo(delivery->context);
	if (request)
		request->finished = true;
	release_units(delivery, outcomes, n);
	MemoryContextSwitchTo(caller);
}
