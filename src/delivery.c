/*
 * delivery.c
 *		What the parts of the worker's turn share: what is known of mappings,
 *		how they are blocked, outcomes and requests, state for the views.
 */
#include "compat.h"

#include "utils/memutils.h"

#include "connection.h"
#include "delivery.h"
#include "lock.h"
#include "mapping.h"
#include "payload.h"
#include "sfsync.h"
#include "subxact.h"

/* States of servers and counters are written at most so often while busy. */
#define STATE_INTERVAL_MS 1000

Delivery *
delivery_create(HttpClient *http)
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

void
delivery_begin_anew(MappingDelivery *state)
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
	delivery_begin_anew(state);
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

bool
delivery_may_send(const Delivery *delivery, Connection *connection, int nready, TimestampTz oldest_at,
				  TimestampTz *again)
{
	int waiting = 0;
	ListCell *lc;

	foreach(lc, delivery->outgoing)
		if (((Request *) lfirst(lc))->connection == connection)
			waiting++;
	return connection_may_send(connection, connection->in_flight + waiting, nready, oldest_at, again);
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
	delivery_begin_anew(state);
	return false;
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

		if (!state->dirty || !lock_mapping(state->id, AccessShareLock, false))
			continue; /* where somebody drops it: later, if it is still there then */
		mapping_state_add(state->id, &state->counters);
		if (state->counters.last_error)
			pfree(state->counters.last_error);
		memset(&state->counters, 0, sizeof(state->counters));
		state->dirty = false;
	}
}

TimestampTz
delivery_state_due(const Delivery *delivery)
{
	return state_dirty(delivery) ? delivery->state_written + MILLISECONDS(STATE_INTERVAL_MS) : 0;
}

void
delivery_write_state(Delivery *delivery, bool idle)
{
	TimestampTz now = GetCurrentTimestamp();
	bool due = idle || delivery->state_written + MILLISECONDS(STATE_INTERVAL_MS) <= now;

	if (due)
	{
		write_counters(delivery);
		delivery->state_written = now;
	}
	connections_write_state(due);
}

bool
delivery_possible(const Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->mappings)
		if (((MappingDelivery *) lfirst(lc))->deliverable)
			return true;
	return delivery->mappings == NIL;
}
