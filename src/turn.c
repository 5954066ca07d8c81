/*
 * turn.c
 *		The worker's turn: read, decide, send, settle.
 */
#include "compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "bulk_job.h"
#include "claim.h"
#include "create_field.h"
#include "fetch.h"
#include "intents.h"
#include "lock.h"
#include "look.h"
#include "mapping.h"
#include "move.h"
#include "reply.h"
#include "send.h"
#include "sfsync.h"
#include "turn.h"

/* Salesforce may still apply a request for so long after it was sent (design, section 3). */
#define LATE_WRITE_SECONDS 600

/* Where something is ready but couldn't be taken up. */
#define LOOK_AGAIN_MS 100

/* live_only: what only backfills want is left alone. */
static void
claim_mapping(Delivery *delivery, MappingDelivery *state, bool live_only)
{
	ClaimRound round = {NULL, true};
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);

	round.queue = batch_queue(delivery->work, state->id);
	MemoryContextSwitchTo(caller);
	while (round.progress && state->deliverable && !state->blocked &&
		   (round.queue->nready - (live_only ? round.queue->nlater : 0) > 0 || state->needs_metadata ||
			state->users_wanted))
	{
		if (!delivery_guard(delivery, state, claim, &round))
			break;
		CHECK_FOR_INTERRUPTS();
	}
}

static void
claim_all(Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->mappings)
	{
		MappingDelivery *state = lfirst(lc);

		if (state->creation_due && state->deliverable && !state->blocked)
			(void) delivery_guard(delivery, state, create_field_step, NULL);
	}
	for (int later = 0; later < 2; later++)
	{
		foreach(lc, delivery->mappings)
			if (!((MappingDelivery *) lfirst(lc))->has_lookups)
				claim_mapping(delivery, lfirst(lc), later == 0);
		foreach(lc, delivery->mappings)
			if (((MappingDelivery *) lfirst(lc))->has_lookups)
				claim_mapping(delivery, lfirst(lc), later == 0);
	}
}

/* Records of requests whose outcome stayed unknown are sent once more. */
static void
verify_intents(Delivery *delivery)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz oldest;
	int32 *ids;
	int n = 0;
	ListCell *lc;

	if (delivery->next_verify == 0 || delivery->next_verify > now)
		return;
	ids = palloc(sizeof(int32) * Max(list_length(delivery->mappings), 1));
	foreach(lc, delivery->mappings)
		if (lock_mapping(((MappingDelivery *) lfirst(lc))->id, AccessShareLock, false))
			ids[n++] = ((MappingDelivery *) lfirst(lc))->id;
	oldest = intents_verify(now - LATE_WRITE_SECONDS * USECS_PER_SEC, ids, n);
	delivery->next_verify = oldest ? oldest + LATE_WRITE_SECONDS * USECS_PER_SEC : 0;
	if (n < list_length(delivery->mappings))
		delivery_soonest(&delivery->next_verify, now + USECS_PER_SEC);
	delivery->deferred_from = DT_NOBEGIN;
	delivery->next_due = now;
}

/* Outcomes that needed no request, mapping by mapping. */
static void
settle_decided(Delivery *delivery)
{
	int n = list_length(delivery->decided);
	Outcome *outcomes = palloc(sizeof(Outcome) * Max(n, 1));

	delivery->again = n > 0;
	while (delivery->decided != NIL)
	{
		int mapping = ((Outcome *) linitial(delivery->decided))->unit->queue->mapping;
		ListCell *lc;

		n = 0;
		foreach(lc, delivery->decided)
		{
			Outcome *outcome = lfirst(lc);

			if (outcome->unit->queue->mapping != mapping)
				continue;
			outcomes[n++] = *outcome;
			delivery->decided = foreach_delete_current(delivery->decided, lc);
		}
		reply_finish(delivery, mapping, outcomes, n, NULL);
	}
}

static void
begin_turn(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactIsoLevel = XACT_REPEATABLE_READ;
	PushActiveSnapshot(GetTransactionSnapshot());
}

static bool
chunks_done(const Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->chunks)
		if (((BackfillChunk *) lfirst(lc))->chunk.pending == 0)
			return true;
	return false;
}

/* What is left to write when everything decided is settled. */
static void
finish_turn(Delivery *delivery)
{
	bool idle = batch_size(delivery->work) == 0;
	TimestampTz progress = fetch_progress_due(delivery);
	TimestampTz due;

	if (idle)
		connections_rest(GetCurrentTimestamp());
	due = delivery_state_due(delivery);
	if (!chunks_done(delivery) && (progress == 0 || progress > GetCurrentTimestamp()) &&
		!connections_dirty(true) && (due == 0 || (!idle && due > GetCurrentTimestamp())))
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	delivery_write_state(delivery, idle);
	fetch_note_chunks(delivery);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* Is there something ready (or passed over) for a mapping that can be delivered, and nothing under way? */
static bool
left_ready(Delivery *delivery)
{
	ListCell *lc;

	if (delivery->requests != NIL)
		return false;
	foreach(lc, delivery->mappings)
	{
		MappingDelivery *state = lfirst(lc);
		MappingQueue *queue = batch_find_queue(delivery->work, state->id);

		if (((queue && queue->nready > 0) || state->behind || state->users_wanted) && state->deliverable &&
			!state->blocked && state->held_until == 0)
			return true;
	}
	return (delivery->look && delivery_possible(delivery)) || fetch_left_behind(delivery);
}

static long
time_to_wait(Delivery *delivery)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = 0;
	ListCell *lc;

	if (left_ready(delivery))
	{
		if (delivery->again)
			return 0;
		delivery_soonest(&next, now + MILLISECONDS(LOOK_AGAIN_MS));
	}
	delivery_soonest(&next, delivery->next_due);
	delivery_soonest(&next, delivery->next_verify);
	delivery_soonest(&next, delivery->next_retry);
	delivery_soonest(&next, bulk_jobs_next(delivery));
	foreach(lc, delivery->mappings)
		delivery_soonest(&next, ((MappingDelivery *) lfirst(lc))->held_until);
	if (delivery->prepared)
		delivery_soonest(&next, now + USECS_PER_SEC);
	delivery_soonest(&next, delivery_state_due(delivery));
	delivery_soonest(&next, fetch_progress_due(delivery));
	return next == 0 ? -1 : Max(TimestampDifferenceMilliseconds(now, next), 1);
}

long
turn_take(Delivery *delivery, bool woken)
{
	MemoryContext caller = MemoryContextSwitchTo(delivery->turn_context);
	bool moved;

	if (woken)
	{
		delivery->look = true;
		delivery->deferred_from = DT_NOBEGIN;
		delivery->next_due = GetCurrentTimestamp();
		delivery->backfills_running = true;
	}
	else if (delivery->prepared)
		delivery->look = true;
	delivery->turn_started = GetCurrentTimestamp();
	begin_turn();
	MemoryContextSwitchTo(delivery->turn_context);
	look_at_mappings(delivery, woken);
	verify_intents(delivery);
	fetch(delivery);
	bulk_measure(delivery);
	claim_all(delivery);
	bulk_jobs_turn(delivery);
	PopActiveSnapshot();
	CommitTransactionCommand();

	MemoryContextSwitchTo(delivery->turn_context);
	send_outgoing(delivery);
	moved = move_keys(delivery);
	MemoryContextSwitchTo(delivery->turn_context);
	settle_decided(delivery);
	delivery->again |= moved;
	bulk_jobs_release(delivery);
	finish_turn(delivery);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(delivery->turn_context);
	return time_to_wait(delivery);
}

void
turn_recover(Delivery *delivery)
{
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);
	ListCell *lc;

	/* from behind: each goes to the front */
	for (int i = list_length(delivery->decided) - 1; i >= 0; i--)
		batch_again(((Outcome *) list_nth(delivery->decided, i))->unit);
	delivery->decided = NIL;
	for (int r = list_length(delivery->outgoing) - 1; r >= 0; r--)
	{
		Request *request = list_nth(delivery->outgoing, r);

		for (int i = request->nunits - 1; i >= 0; i--)
			batch_again(request->outcomes[i].unit);
		if (request->kind == REQUEST_LOGIN)
			request->connection->login_in_flight = false;
		if (request->kind == REQUEST_USERINFO)
			request->connection->user_in_flight = false;
		if (request->kind == REQUEST_LIMITS)
			request->connection->limits_in_flight = false;
		if (request->kind == REQUEST_VERSIONS)
			request->connection->versions_in_flight = false;
		if (request->kind == REQUEST_DESCRIBE)
			delivery_of(delivery, request->mapping)->describe_in_flight = false;
		if (request->kind == REQUEST_BULK)
			request->bulk->in_flight = false;
		if (request->kind == REQUEST_CREATE_FIELD)
			create_field_recover(delivery_of(delivery, request->mapping));
		MemoryContextDelete(request->context);
	}
	list_free(delivery->outgoing);
	delivery->outgoing = NIL;
	bulk_jobs_recover(delivery);
	foreach(lc, delivery->mappings)
		delivery_begin_anew(lfirst(lc));
	delivery->look = true;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(delivery->turn_context);
}

bool
turn_replies(Delivery *delivery)
{
	HttpReply *reply;
	bool any = false;

	http_pump(delivery->http);
	while ((reply = http_collect(delivery->http)) != NULL)
	{
		MemoryContext caller = MemoryContextSwitchTo(delivery->turn_context);

		reply_settle(delivery, reply->tag, reply);
		http_reply_free(reply);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(delivery->turn_context);
		any = true;
		CHECK_FOR_INTERRUPTS();
	}
	return any;
}
