/*
 * deliver.c
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
#include "deliver.h"
#include "fetch.h"
#include "intents.h"
#include "look.h"
#include "mapping.h"
#include "move.h"
#include "payload.h"
#include "reply.h"
#include "send.h"
#include "sfsync.h"
#include "subxact.h"

/* Salesforce may still apply a request for so long after it was sent (design, section 3). */
#define LATE_WRITE_SECONDS 600

/* States of servers and counters are written at most so often while busy. */
#define STATE_INTERVAL_MS 1000

/* Where something is ready but couldn't be taken up. */
#define LOOK_AGAIN_MS 100

Delivery *
deliver_create(HttpClient *http)
{
	MemoryContext context =
		AllocSetContextCreate(TopMemoryContext, "sfsync delivery", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Delivery *delivery = palloc0(sizeof(Delivery));

	delivery->context = context;
	delivery->turn_context = AllocSetContextCreate(context, "sfsync turn", ALLOCSET_DEFAULT_SIZES);
	delivery->http = http;
	delivery->work = batch_create();
	delivery->next_verify = 1; /* look at the first turn */
	MemoryContextSwitchTo(caller);
	connection_init();
	return delivery;
}

/* What its transaction noted is undone: note it again. */
static void
begin_anew(MappingDelivery *state)
{
	state->seen_serial = 0;
	state->lock_told = state->block_told = true;
}

MappingDelivery *
delivery_of(Delivery *delivery, int mapping)
{
	MappingDelivery *state;
	MemoryContext caller;
	ListCell *lc;

	foreach(lc, delivery->mappings)
	{
		state = lfirst(lc);
		if (state->id == mapping)
			return state;
	}
	caller = MemoryContextSwitchTo(delivery->context);
	state = palloc0(sizeof(MappingDelivery));
	state->id = mapping;
	state->deliverable = true;
	begin_anew(state);
	delivery->mappings = lappend(delivery->mappings, state);
	MemoryContextSwitchTo(caller);
	return state;
}

static int64
block_delay(const MappingDelivery *state)
{
	int64 delay = (int64) sfsync_retry_base_delay << Min(state->failures, 20);

	return MILLISECONDS(Min(delay, sfsync_retry_max_delay));
}

void
delivery_block(Delivery *delivery, MappingDelivery *state, const char *reason, TimestampTz now)
{
	char *copy = MemoryContextStrdup(delivery->context, reason);

	if (!state->blocked || strcmp(state->blocked, reason) != 0)
	{
		Mapping *mapping = mapping_get(state->id);

		ereport(LOG,
				(errmsg("sfsync: mapping \"%s\" is blocked: %s", mapping ? mapping->name : "?", reason)));
	}
	if (state->blocked)
		pfree(state->blocked);
	state->blocked = copy;
	state->blocked_until = now + block_delay(state);
	state->failures++;
	mapping_state_blocked(state->id, reason, state->blocked_until);
	state->block_told = true;
}

void
delivery_unblock(MappingDelivery *state)
{
	if (state->blocked)
		pfree(state->blocked);
	state->blocked = NULL;
	if (state->block_told)
		mapping_state_goes(state->id);
	state->block_told = false;
}

Outcome *
delivery_decide(Delivery *delivery, Unit *unit, OutcomeKind kind)
{
	MemoryContext caller = MemoryContextSwitchTo(delivery->turn_context);
	Outcome *outcome = palloc0(sizeof(Outcome));

	outcome->unit = unit;
	outcome->kind = kind;
	delivery->decided = lappend(delivery->decided, outcome);
	batch_start(unit);
	MemoryContextSwitchTo(caller);
	return outcome;
}

Request *
delivery_request(RequestKind kind, Connection *connection, const Mapping *mapping)
{
	Request *request = palloc0(sizeof(Request));

	request->context = CurrentMemoryContext;
	request->kind = kind;
	request->connection = connection;
	request->mapping = mapping->id;
	request->target.object = pstrdup(mapping->object);
	request->target.key_field = pstrdup(mapping->external_id);
	request->target.key_is_number = mapping->key_field && payload_key_is_number(mapping);
	request->server = pstrdup(mapping->server);
	return request;
}

void
delivery_send_later(Delivery *delivery, Request *request)
{
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);

	delivery->outgoing = lappend(delivery->outgoing, request);
	MemoryContextSwitchTo(caller);
}

const char *
delivery_fault(ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE || error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		return "reading the table needs a lock that another session holds: of another table, that a policy or"
			   " function reads, or of a partition that is being attached";
	return error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message;
}

typedef struct Guarded
{
	Delivery *delivery;
	MappingDelivery *state;
	MappingStep step;
	void *arg;
} Guarded;

static void
run_guarded(void *arg)
{
	const Guarded *guarded = arg;

	guarded->step(guarded->delivery, guarded->state, guarded->arg);
}

bool
delivery_guard(Delivery *delivery, MappingDelivery *state, MappingStep step, void *arg)
{
	Guarded guarded = {delivery, state, step, arg};
	ErrorData *error = subxact_try(run_guarded, &guarded);

	if (!error)
		return true;
	delivery_block(delivery, state, delivery_fault(error), GetCurrentTimestamp());
	begin_anew(state);
	return false;
}

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

	if (delivery->next_verify == 0 || delivery->next_verify > now)
		return;
	oldest = intents_verify(now - LATE_WRITE_SECONDS * USECS_PER_SEC);
	delivery->next_verify = oldest ? oldest + LATE_WRITE_SECONDS * USECS_PER_SEC : 0;
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

/*
 * State for the views
 */

static bool
state_dirty(const Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->mappings)
		if (((MappingDelivery *) lfirst(lc))->dirty)
			return true;
	return connections_dirty(false);
}

static void
write_counters(Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->mappings)
	{
		MappingDelivery *state = lfirst(lc);

		if (!state->dirty)
			continue;
		mapping_state_add(state->id, &state->counters);
		if (state->counters.last_error)
			pfree(state->counters.last_error);
		memset(&state->counters, 0, sizeof(state->counters));
		state->dirty = false;
	}
}

/* Within a transaction; when the work is done, or it's been a while, or a state is another. */
void
delivery_write_state(Delivery *delivery, bool idle)
{
	TimestampTz now = GetCurrentTimestamp();
	bool due = idle || TimestampDifferenceExceeds(delivery->state_written, now, STATE_INTERVAL_MS);

	if (due)
	{
		write_counters(delivery);
		delivery->state_written = now;
	}
	connections_write_state(due);
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

	if (!chunks_done(delivery) && !connections_dirty(true) &&
		!(state_dirty(delivery) &&
		  (idle ||
		   TimestampDifferenceExceeds(delivery->state_written, GetCurrentTimestamp(), STATE_INTERVAL_MS))))
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
	return (delivery->look && deliver_possible(delivery)) || fetch_left_behind(delivery);
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
	if (state_dirty(delivery))
		delivery_soonest(&next, delivery->state_written + MILLISECONDS(STATE_INTERVAL_MS));
	return next == 0 ? -1 : Max(TimestampDifferenceMilliseconds(now, next), 1);
}

long
deliver_turn(Delivery *delivery, bool woken)
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

bool
deliver_possible(const Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->mappings)
		if (((MappingDelivery *) lfirst(lc))->deliverable)
			return true;
	return delivery->mappings == NIL;
}

void
deliver_recover(Delivery *delivery)
{
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);
	ListCell *lc;

	foreach(lc, delivery->decided)
		batch_again(((Outcome *) lfirst(lc))->unit);
	delivery->decided = NIL;
	foreach(lc, delivery->outgoing)
	{
		Request *request = lfirst(lc);

		for (int i = 0; i < request->nunits; i++)
			batch_again(request->outcomes[i].unit);
		if (request->kind == REQUEST_LOGIN)
			request->connection->login_in_flight = false;
		if (request->kind == REQUEST_LIMITS)
			request->connection->limits_in_flight = false;
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
		begin_anew(lfirst(lc));
	delivery->look = true;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(delivery->turn_context);
}

bool
deliver_replies(Delivery *delivery)
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
