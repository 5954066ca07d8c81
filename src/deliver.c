/*
 * deliver.c
 *		The worker's turn: read, decide, send, settle.
 */
#include "compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "bulk_job.h"
#include "create_field.h"
#include "deliver.h"
#include "drift.h"
#include "gzip.h"
#include "intents.h"
#include "mapping.h"
#include "sfsync.h"

/* Salesforce may still apply a request for so long after it was sent (design, section 3). */
#define LATE_WRITE_SECONDS 600

/* States of servers and counters are written at most so often while busy. */
#define STATE_INTERVAL_MS 1000

/* Where something is ready but couldn't be taken up: its table was locked. */
#define LOOK_AGAIN_MS 100

#define MAX_REPLY_BYTES (64 * 1024 * 1024)

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
	delivery->mappings = lappend(delivery->mappings, state);
	MemoryContextSwitchTo(caller);
	return state;
}

static int64
block_delay(const MappingDelivery *state)
{
	int64 delay = (int64) sfsync_retry_base_delay << Min(state->failures, 20);

	return Min(delay, sfsync_retry_max_delay) * INT64CONST(1000);
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
}

void
delivery_unblock(MappingDelivery *state)
{
	if (!state->blocked)
		return;
	pfree(state->blocked);
	state->blocked = NULL;
	mapping_state_blocked(state->id, NULL, 0);
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

void
delivery_send_later(Delivery *delivery, Request *request)
{
	MemoryContext caller = MemoryContextSwitchTo(delivery->context);

	delivery->outgoing = lappend(delivery->outgoing, request);
	MemoryContextSwitchTo(caller);
}

bool
delivery_lock_source(const Mapping *mapping)
{
	return !mapping->source_name || ConditionalLockRelationOid(mapping->source, AccessShareLock);
}

bool
delivery_guard(Delivery *delivery, MappingDelivery *state, MappingStep step, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool good = true;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		MemoryContextSwitchTo(caller);
		step(delivery, state, arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;

		/* someone configures at this moment, or wants us gone: no fault of the mapping, the turn begins anew */
		if (error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ||
			error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		delivery_block(delivery, state,
					   error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message,
					   GetCurrentTimestamp());
		good = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return good;
}

/*
 * Which mappings can be delivered now
 */

typedef struct Look
{
	TimestampTz now;
	TimestampTz next; /* when to look again; 0 never */
} Look;

static void
soonest(TimestampTz *next, TimestampTz candidate)
{
	if (candidate != 0 && (*next == 0 || candidate < *next))
		*next = candidate;
}

static void
follow_drift(Delivery *delivery, MappingDelivery *state, const Mapping *mapping)
{
	if (state->seen_serial == mapping->serial || !mapping->meta || mapping->broken)
		return;
	if (drift_follow(mapping))
		delivery->backfills_running = true;
	state->seen_serial = mapping->serial;
}

/* Parents go before children, and neither at the same time as its relatives. */
static void
look_at_lookups(Delivery *delivery, MappingDelivery *state, const Mapping *mapping)
{
	state->has_lookups = false;
	for (int i = 0; i < mapping->nfields; i++)
	{
		const RouteLookup *lookup = mapping->fields[i].lookup;

		if (!lookup)
			continue;
		state->has_lookups |= lookup->parent_mapping != mapping->id;
		state->has_family = delivery_of(delivery, lookup->parent_mapping)->has_family = true;
	}
}

/* Who adds a column may have added its field just before. */
static void
look_at_columns(MappingDelivery *state, const Mapping *mapping)
{
	int highest = 0;

	for (int i = 0; i < mapping->ncolumns; i++)
		if (mapping->columns[i].attnum <= MaxHeapAttributeNumber) /* else it is an expression */
			if (!mapping->columns[i].expression)
				highest = Max(highest, mapping->columns[i].attnum);
	if (state->seen_attnum != 0 && highest > state->seen_attnum)
		state->describe_due = true;
	state->seen_attnum = highest;
}

/* What is blocked for its metadata, or in quarantine, is looked at again though nothing is to be sent. */
static void
look_at_metadata(MappingDelivery *state, const Mapping *mapping, Look *look)
{
	TimestampTz stale_at = mapping->metadata_at + (int64) sfsync_schema_ttl * 1000;

	state->needs_metadata =
		!mapping->has_metadata || mapping->refresh_wanted || state->describe_wanted || state->describe_due;
	if (!mapping->broken && !drift_in_quarantine(mapping))
		return;
	if (stale_at <= look->now)
		state->needs_metadata = true;
	else
		soonest(&look->next, stale_at);
}

/* The token for the creation of a field is asked for like that for metadata. */
static void
look_at_creation(MappingDelivery *state, const Mapping *mapping, const Connection *connection, Look *look)
{
	TimestampTz due = create_field_due(state, mapping);

	state->creation_due = due != 0 && due <= look->now;
	if (!state->creation_due)
		soonest(&look->next, due);
	else if (!connection->token)
		state->needs_metadata = true;
}

/* So is that for a job. */
static void
look_at_bulk(const Delivery *delivery, MappingDelivery *state, const Mapping *mapping,
			 const Connection *connection)
{
	state->bulk_threshold = bulk_threshold(mapping, connection);
	if (!connection->token && bulk_has_job(delivery, mapping->id))
		state->needs_metadata = true;
}

static void
look_at_mapping(Delivery *delivery, MappingDelivery *state, void *arg)
{
	Look *look = arg;
	Mapping *mapping = mapping_get(state->id);
	Connection *connection;
	TimestampTz again;

	state->deliverable = state->needs_metadata = state->creation_due = false;
	state->bulk_threshold = 0;
	state->held_until = 0;
	if (!mapping)
	{
		state->deliverable = true; /* what is left of it is thrown away */
		return;
	}
	if (state->blocked && Max(state->blocked_until, state->refused_until) > look->now)
	{
		soonest(&look->next, Max(state->blocked_until, state->refused_until));
		return;
	}
	if (mapping->paused || !sfsync_enabled)
		return;
	if (!OidIsValid(mapping->serverid) || !mapping->source_name)
	{
		delivery_block(delivery, state, mapping->broken, look->now);
		return;
	}
	connection = connection_get(mapping->serverid, mapping->owner);
	if (!connection_usable(connection, look->now, &again))
	{
		soonest(&look->next, again);
		return;
	}
	look_at_columns(state, mapping);
	look_at_metadata(state, mapping, look);
	if (mapping->broken && !state->needs_metadata)
	{
		delivery_block(delivery, state, mapping->broken, look->now);
		soonest(&look->next, state->blocked_until);
		return;
	}
	delivery_unblock(state);
	state->deliverable = true;
	look_at_bulk(delivery, state, mapping, connection);
	look_at_lookups(delivery, state, mapping);
	if (mapping->refresh_wanted || state->describe_wanted || state->describe_due)
		return; /* what follows is for metadata that hold */
	follow_drift(delivery, state, mapping);
	look_at_creation(state, mapping, connection, look);
}

/* A change of configuration or catalog may have mended what blocks a mapping. */
static void
look_at_mappings(Delivery *delivery)
{
	Look look = {GetCurrentTimestamp(), 0};
	ListCell *lc;

	if (mapping_was_invalidated())
	{
		int n;
		int *ids = mapping_ids(&n);

		connections_mark_stale();
		for (int i = 0; i < n; i++)
			(void) delivery_of(delivery, ids[i]);
		foreach(lc, delivery->mappings)
			((MappingDelivery *) lfirst(lc))->blocked_until = 0;
		delivery->backfills_running = true;
		delivery->deferred_from = DT_NOBEGIN;
		delivery->next_due = look.now;
	}
	foreach(lc, delivery->mappings)
	{
		MappingDelivery *state = lfirst(lc);
		bool was = state->deliverable;

		if (!delivery_guard(delivery, state, look_at_mapping, &look))
			state->deliverable = false;
		if (state->deliverable && !was)
		{
			delivery->deferred_from = DT_NOBEGIN;
			delivery->next_due = look.now;
		}
	}
	delivery->next_retry = look.next;
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

/*
 * Sending
 */

static const char *const *
request_headers(const Request *request)
{
	const ServerOptions *options = request->connection->options;
	const char **headers = palloc0(sizeof(char *) * 8);
	int n = 0;

	headers[n++] = request->kind == REQUEST_BULK ? bulk_accept(request) : "Accept: application/json";
	if (request->kind == REQUEST_LOGIN)
		return headers;

	headers[n++] = "Sforce-Call-Options: client=sfsync";
	if (!options->auto_assign)
		headers[n++] = HEADER_NO_ASSIGNMENT;
	if (options->duplicate_allow_save)
		headers[n++] = HEADER_ALLOW_SAVE;
	if (request->if_modified_since)
		headers[n++] = request->if_modified_since;
	if (request->compressed)
		headers[n++] = "Content-Encoding: gzip";
	return headers;
}

/* A large body goes compressed, unless the server has not taken that. */
static void
fill_call(Request *request, HttpRequest *http)
{
	const RestCall *call = request->call;
	const Connection *connection = request->connection;
	char *compressed = NULL;

	http->method = call->method;
	http->url = psprintf("%s%s", connection->token->instance_url, call->path);
	http->bearer = connection->token->access_token;
	http->content_type = call->body ? "application/json; charset=UTF-8" : NULL;
	http->body = call->body;
	http->body_len = call->body_len;
	if (call->body && call->body_len >= GZIP_FROM && !connection->gzip_refused)
		compressed = gzip_compress(call->body, call->body_len, &http->body_len);
	if (compressed)
		http->body = compressed;
	else
		http->body_len = call->body_len;
	request->compressed = compressed != NULL;
}

static bool
send(Delivery *delivery, Request *request)
{
	Connection *connection = request->connection;
	HttpRequest http = {0};

	http.connect_timeout = sfsync_connect_timeout;
	http.timeout = sfsync_request_timeout;
	http.ca_file = connection->options->ca_file;
	http.max_reply = MAX_REPLY_BYTES;
	http.tag = request;
	if (request->kind == REQUEST_LOGIN)
	{
		http.method = "POST";
		http.url = request->login->url;
		http.content_type = "application/x-www-form-urlencoded";
		http.body = request->login->body;
		http.body_len = request->login->body_len;
	}
	else
		fill_call(request, &http);
	if (request->kind == REQUEST_BULK)
		bulk_fill(request, &http);
	http.headers = request_headers(request);
	return http_submit(delivery->http, &http);
}

/* Changed options may have taken the token away since the request was prepared. */
static bool
may_be_sent(const Request *request)
{
	return request->kind == REQUEST_LOGIN || request->connection->token != NULL;
}

static void
send_outgoing(Delivery *delivery)
{
	List *outgoing = delivery->outgoing;
	ListCell *lc;

	delivery->outgoing = NIL;
	foreach(lc, outgoing)
	{
		Request *request = lfirst(lc);
		MemoryContext caller = MemoryContextSwitchTo(delivery->context);

		delivery->requests = lappend(delivery->requests, request);
		MemoryContextSwitchTo(caller);
		request->connection->in_flight++;
		request->started = GetCurrentTimestamp();
		request->token_serial = request->connection->token_serial;
		request->mark = poison_mark(&request->connection->poison);
		request->jitter = connection_random();
		if (!may_be_sent(request) || !send(delivery, request))
		{
			HttpReply none = {.tag = request,
							  .outcome = HTTP_NOT_SENT,
							  .retry_after = -1,
							  .error = "the request could not be started"};

			reply_settle(delivery, request, &none);
		}
		else if (request->login)
			auth_call_wipe(request->login);
		else
			connection_sent(request->connection, request->started);
	}
	list_free(outgoing);
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
		soonest(&next, now + LOOK_AGAIN_MS * INT64CONST(1000));
	}
	soonest(&next, delivery->next_due);
	soonest(&next, delivery->next_verify);
	soonest(&next, delivery->next_retry);
	soonest(&next, bulk_jobs_next(delivery));
	foreach(lc, delivery->mappings)
		soonest(&next, ((MappingDelivery *) lfirst(lc))->held_until);
	if (delivery->prepared)
		soonest(&next, now + USECS_PER_SEC);
	if (state_dirty(delivery))
		soonest(&next, delivery->state_written + STATE_INTERVAL_MS * INT64CONST(1000));
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
	look_at_mappings(delivery);
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
