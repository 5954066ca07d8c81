/*
 * reply.c
 *		What replies mean: record by record, or for a request as a whole.
 *
 * Three scopes are never mixed (design, section 8): a record is retried by
 * itself and becomes a dead letter in the end; a server backs off and its
 * records keep their attempts; a connection is blocked until someone acts.
 */
#include "compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "bulk_job.h"
#include "create_field.h"
#include "deliver.h"
#include "describe.h"
#include "errors.h"
#include "mapping.h"
#include "payload.h"
#include "sfsync.h"
#include "throttle.h"

static void
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
commit(void)
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
			if (outcome->last_in_turn)
				batch_postpone(outcome->unit);
			break;
		default:
			batch_done(delivery->work, outcome->unit);
	}
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
	{
		Mapping *mapping;
		int remaining = batch_size(delivery->work);

		begin();
		MemoryContextSwitchTo(caller);
		mapping = mapping_get(mapping_id);
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
		commit();
	}
	MemoryContextSwitchTo(delivery->context);
	if (request)
		request->finished = true;
	for (int i = 0; i < n; i++)
		release_unit(delivery, &outcomes[i]);
	MemoryContextSwitchTo(caller);
}

/*
 * Results of single records
 */

static void
set_dead(const Request *request, int i, const RestError *error, const HttpReply *reply)
{
	Outcome *outcome = &request->outcomes[i];

	outcome->kind = OUTCOME_DEAD;
	outcome->error = *error;
	if (!outcome->error.code)
		outcome->error.code = pstrdup("UNKNOWN");
	outcome->http_status = reply->status;
	outcome->request_id = reply->request_id ? pstrdup(reply->request_id) : NULL;
	outcome->payload =
		rest_payload(request->object, request->external_id, request->key_is_number, &request->records[i]);
}

static char *
error_text(const RestError *error)
{
	return psprintf("%s: %s", error->code ? error->code : "UNKNOWN", error->message);
}

/* Records of one reply that failed as often are tried again together. */
void
reply_set_later(const Request *request, int i, const RestError *error, bool count_attempt)
{
	Outcome *outcome = &request->outcomes[i];

	outcome->kind = OUTCOME_DEFERRED;
	outcome->count_attempt = count_attempt;
	outcome->reason = error_text(error);
	outcome->due_at = GetCurrentTimestamp() + backoff_delay((int64) sfsync_retry_base_delay * 1000,
															(int64) sfsync_retry_max_delay * 1000,
															outcome->unit->attempts, request->jitter);
}

void
reply_set_retry(const Request *request, int i, const RestError *error, const HttpReply *reply)
{
	if (request->outcomes[i].unit->attempts + 1 >= sfsync_max_attempts)
		set_dead(request, i, error, reply);
	else
		reply_set_later(request, i, error, true);
}

/*
 * The parent is not there: wait for it, however long.  Which one it is tells the
 * message alone (reference, section 8); it is one that the record names.
 */
static void
set_orphan(const Request *request, int i, const RestError *error)
{
	static const char prefix[] = "Foreign key external ID: ";
	Outcome *outcome = &request->outcomes[i];
	const RestRecord *record = &request->records[i];
	const char *key = strstr(error->message, prefix);
	const char *end = key ? strstr(key, " not found for field ") : NULL;
	int attempts = Min(outcome->unit->attempts + 1, sfsync_max_attempts - 2);

	outcome->kind = OUTCOME_DEFERRED;
	outcome->count_attempt = attempts > outcome->unit->attempts;
	outcome->reason = psprintf("%s: %s", error->code, error->message);
	outcome->due_at = GetCurrentTimestamp() + backoff_delay((int64) sfsync_retry_base_delay * 1000,
															(int64) sfsync_retry_max_delay * 1000,
															Max(attempts, 1), connection_random());
	key = end ? pnstrdup(key + strlen(prefix), end - key - strlen(prefix)) : NULL;
	for (int f = 0; f < record->nfields; f++)
	{
		const FieldValue *value = &record->fields[f].value;

		if (value->kind != FV_LOOKUP || (key && strcmp(value->text, key) != 0))
			continue;
		outcome->parent_mapping = value->lookup->parent_mapping;
		outcome->parent_key = value->text;
	}
}

/*
 * A field or the object is not as the metadata say: have them fetched, and try
 * once more.  Refused again, with new metadata, it is the record's own fault.
 */
static void
set_refused(Delivery *delivery, const Request *request, int i, const RestError *error, const HttpReply *reply)
{
	Unit *unit = request->outcomes[i].unit;

	if (unit->refused_once)
	{
		set_dead(request, i, error, reply);
		return;
	}
	unit->refused_once = true;
	delivery_of(delivery, request->mapping)->describe_wanted = true;
	request->outcomes[i].kind = OUTCOME_AGAIN;
}

/*
 * Coercion keeps values from errors like these, by metadata: they are old, then.
 * Seldom enough, for the error may have other reasons.
 */
static bool
metadata_suspected(Delivery *delivery, const Request *request, const RestError *error)
{
	static const char *const codes[] = {"INVALID_TYPE_ON_FIELD_IN_RECORD", "INVALID_FIELD", "STRING_TOO_LONG",
										"NUMBER_OUTSIDE_VALID_RANGE",
										"INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"};
	MappingDelivery *state = delivery_of(delivery, request->mapping);
	TimestampTz now = GetCurrentTimestamp();
	bool suspicious = false;

	for (int i = 0; i < lengthof(codes) && error->code; i++)
		suspicious |= strcmp(error->code, codes[i]) == 0;
	if (!suspicious || (!state->describe_wanted &&
						!TimestampDifferenceExceeds(state->suspected_at, now, 10 * sfsync_retry_base_delay)))
		return false;
	state->suspected_at = now;
	return true;
}

static OutcomeKind
deleted_kind(const Outcome *outcome)
{
	return outcome->row_remains ? OUTCOME_CREATE_AGAIN : OUTCOME_DELETED;
}

/* No such record any more. */
static void
set_gone(const Request *request, UnitKind kind, int i, const RestError *error, const HttpReply *reply)
{
	Outcome *outcome = &request->outcomes[i];

	if (kind == UNIT_DELETE)
		outcome->kind = deleted_kind(outcome);
	else if (kind == UNIT_FREE_KEY)
	{
		outcome->kind = OUTCOME_AGAIN;
		outcome->key_freed = true;
	}
	else if (outcome->memory)
		outcome->kind = OUTCOME_AGAIN; /* it is read again, and seen to be gone */
	else if (kind == UNIT_UPDATE && (!outcome->unit->whole || strcmp(outcome->operation, "key_change") == 0))
		outcome->kind = OUTCOME_CREATE_AGAIN;
	else
		set_dead(request, i, error, reply);
}

/* Somebody made the record after it was looked for: it is read again, once. */
static bool
came_before_us(const Request *request, UnitKind kind, int i, const RestError *error)
{
	Unit *unit = request->outcomes[i].unit;

	if (kind != UNIT_CREATE || unit->refused_once || !error->code ||
		strcmp(error->code, "DUPLICATE_VALUE") != 0 || strstr(error->message, request->external_id) == NULL)
		return false;
	unit->refused_once = true;
	return true;
}

/* New metadata made no difference. */
static bool
refused_before(const Unit *unit)
{
	return unit->refused_once || unit->attempts > 0;
}

static void
set_failed(Delivery *delivery, const Request *request, UnitKind kind, int i, const RestResult *result,
		   const HttpReply *reply)
{
	Outcome *outcome = &request->outcomes[i];
	const RestError *error = &result->error;

	if (came_before_us(request, kind, i, error))
	{
		outcome->kind = OUTCOME_AGAIN;
		return;
	}
	switch (error_classify(error->code ? 200 : result->http_status, error->code, error->message))
	{
		case SCOPE_RECORD_GONE:
			set_gone(request, kind, i, error, reply);
			break;
		case SCOPE_RECORD_COLLATERAL:
			outcome->kind = OUTCOME_AGAIN;
			break;
		case SCOPE_RECORD_RETRY:
			if (error_is_contention(error->code))
				throttle_contention(&request->connection->throttle, request->nunits);
			reply_set_retry(request, i, error, reply);
			break;
		case SCOPE_RECORD_PARENT:
			set_orphan(request, i, error);
			break;
		case SCOPE_SERVER:
		case SCOPE_CONCURRENT_LIMIT:
		case SCOPE_DAILY_LIMIT:
		case SCOPE_SESSION:
			outcome->kind = OUTCOME_AGAIN; /* judge_server has made the server wait */
			break;
		case SCOPE_MAPPING:
			/* if it is not the mapping's fault, either (poison_blames_mapping) */
			if (refused_before(outcome->unit))
				reply_set_retry(request, i, error, reply);
			else
				set_refused(delivery, request, i, error, reply);
			break;
		case SCOPE_CONNECTION:
			connection_block(request->connection, error_text(error), GetCurrentTimestamp());
			outcome->kind = OUTCOME_AGAIN;
			break;
		default:
			if (metadata_suspected(delivery, request, error))
				set_refused(delivery, request, i, error, reply);
			else
				set_dead(request, i, error, reply);
	}
}

TimestampTz
reply_server_time(const HttpReply *reply)
{
	return reply->server_date == 0
			   ? 0
			   : (reply->server_date - ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)) *
					 USECS_PER_SEC;
}

/* When Salesforce answered, by its clock. */
static TimestampTz
answered_at(const Request *request, const HttpReply *reply)
{
	TimestampTz at = reply_server_time(reply);

	return at != 0 ? at : GetCurrentTimestamp() + request->connection->clock_skew;
}

static void set_again(Request *request, const RequestPart *part);
static void block_refused(Delivery *delivery, Request *request, const RequestPart *part, const char *trouble,
						  TimestampTz now);

/* Records refused, with the newest metadata, for a reason that concerns all of the mapping. */
static int
refused_for_all(const Request *request, const RequestPart *part, const RestResult *results)
{
	int n = 0;

	for (int i = 0; i < part->n; i++)
		if (!results[i].success && refused_before(request->outcomes[part->first + i].unit) &&
			error_classify(200, results[i].error.code, results[i].error.message) == SCOPE_MAPPING)
			n++;
	return n;
}

/*
 * Is the server well, whatever it says of single records?  During maintenance,
 * say, it refuses each of them for a reason of its own: then it has to wait, and
 * they keep their attempts.
 */
static void
judge_server(Delivery *delivery, Request *request, const RestResult *ailing, ErrorScope scope,
			 const HttpReply *reply)
{
	Connection *connection = request->connection;

	if (ailing)
	{
		trouble_of_server(connection, scope, error_text(&ailing->error), reply->retry_after,
						  GetCurrentTimestamp());
		return;
	}
	poison_passed(&connection->poison, request->mark, true);
	connection_well(connection, reply->elapsed, request->nunits,
					batch_size(delivery->work) > request->nunits);
}

static const RestResult *
find_ailing(const RestResult *results, int n, ErrorScope *scope)
{
	for (int i = 0; i < n; i++)
		if (trouble_is_server(&results[i], scope))
			return &results[i];
	return NULL;
}

static void
set_results(Delivery *delivery, Request *request, const RequestPart *part, const RestResult *results,
			const HttpReply *reply)
{
	MappingDelivery *state = delivery_of(delivery, request->mapping);

	if (poison_blames_mapping(&state->refusals, refused_for_all(request, part, results), part->n))
	{
		set_again(request, part);
		block_refused(delivery, request, part, error_text(&results[0].error), GetCurrentTimestamp());
		return;
	}
	for (int i = 0; i < part->n; i++)
	{
		Outcome *outcome = &request->outcomes[part->first + i];

		poison_forget(&request->connection->poison, request->mapping, outcome->unit->key);
		if (!results[i].success)
		{
			set_failed(delivery, request, part->kind, part->first + i, &results[i], reply);
			continue;
		}
		if (part->kind == UNIT_FREE_KEY)
		{
			outcome->kind = OUTCOME_AGAIN;
			outcome->key_freed = true;
			outcome->written_at = answered_at(request, reply);
			continue;
		}
		outcome->kind = part->kind == UNIT_DELETE ? deleted_kind(outcome) : OUTCOME_SYNCED;
		outcome->written_at = answered_at(request, reply);
		if (results[i].id)
			outcome->salesforce_id = results[i].id;
	}
}

void
reply_set_results(Delivery *delivery, Request *request, const RequestPart *part, const RestResult *results,
				  const HttpReply *reply)
{
	ErrorScope scope;
	const RestResult *ailing = find_ailing(results, part->n, &scope);

	if (ailing)
		trouble_of_server(request->connection, scope, error_text(&ailing->error), reply->retry_after,
						  GetCurrentTimestamp());
	set_results(delivery, request, part, results, reply);
}

/*
 * Requests, or parts of them, that are refused as a whole.  Each of the
 * following says of the units what becomes of them; they are let go of after.
 */

static void
set_again(Request *request, const RequestPart *part)
{
	for (int i = 0; i < part->n; i++)
		request->outcomes[part->first + i].kind = OUTCOME_AGAIN;
}

/* It can't be digested: halve it, down to the record that is the cause. */
static void
bisect(Request *request, const RequestPart *part, const RestError *error, const HttpReply *reply)
{
	if (part->n == 1 && request->records)
	{
		set_dead(request, part->first, error, reply);
		return;
	}
	set_again(request, part);
	for (int i = 0; i < part->n; i++)
		request->outcomes[part->first + i].unit->limit = Max(part->n / 2, 1);
}

static void
session_ended(Request *request, const char *trouble, TimestampTz now)
{
	Connection *connection = request->connection;

	/* of several requests in flight with the token, the first to come back counts */
	if (connection->token && request->token_serial == connection->token_serial)
	{
		connection_drop_token(connection);
		if (++connection->session_failures > 1)
			connection_block(connection, trouble, now);
	}
}

static void
block_refused(Delivery *delivery, Request *request, const RequestPart *part, const char *trouble,
			  TimestampTz now)
{
	MappingDelivery *state = delivery_of(delivery, request->mapping);
	bool again = false;

	for (int i = 0; i < part->n; i++)
	{
		Unit *unit = request->outcomes[part->first + i].unit;

		again |= unit->refused_once;
		unit->refused_once = true;
	}
	state->describe_wanted = true;
	if (!again)
		return;
	begin();
	delivery_block(delivery, state, trouble, now);
	state->refused_until = state->blocked_until;
	commit();
}

/* True if it may have been carried out all the same. */
static bool
part_refused(Delivery *delivery, Request *request, const RequestPart *part, int status,
			 const RestError *error, const HttpReply *reply, TimestampTz now)
{
	Connection *connection = request->connection;
	char *text = psprintf("HTTP status %d: %s%s%s", status, error->code ? error->code : "",
						  error->code ? ": " : "", error->message);
	ErrorScope scope = error_classify(status, error->code, error->message);

	set_again(request, part);
	switch (scope)
	{
		case SCOPE_SESSION:
			session_ended(request, text, now);
			return false;
		case SCOPE_CONNECTION:
			connection_block(connection, text, now);
			return false;
		case SCOPE_MAPPING:
			block_refused(delivery, request, part, text, now);
			return false;
		case SCOPE_CONCURRENT_LIMIT:
		case SCOPE_DAILY_LIMIT:
			trouble_of_server(connection, scope, text, reply->retry_after, now);
			return false;
		case SCOPE_SERVER:
		case SCOPE_RECORD_COLLATERAL:
			trouble(delivery, request, part, status, error, text, reply, now);
			return true;
		default:
			bisect(request, part, error, reply);
			return false;
	}
}

/* What was read before a write that didn't come off is not to be relied on. */
static void
finish_write(Delivery *delivery, Request *request, bool keep_intent)
{
	if (request->records)
		for (int i = 0; i < request->nunits; i++)
			if (request->outcomes[i].kind == OUTCOME_AGAIN)
				batch_forget_read(request->outcomes[i].unit);
	if (keep_intent && request->intent != 0)
	{
		begin();
		intent_unknown(request->intent);
		commit();
		if (delivery->next_verify == 0)
			delivery->next_verify = GetCurrentTimestamp();
		request->intent = 0;
	}
	reply_finish(delivery, request->mapping, request->outcomes, request->nunits, request);
}

static RequestPart
all_of(const Request *request)
{
	RequestPart all = {UNIT_UNDECIDED, 0, request->nunits};

	return all;
}

/* Was it refused for being compressed?  The first that is tells; then it goes again as it is. */
static bool
gzip_refused(Request *request, const HttpReply *reply)
{
	Connection *connection = request->connection;

	if (!request->compressed || connection->gzip_taken ||
		(reply->status != 400 && reply->status != 411 && reply->status != 415 && reply->status < 500))
		return false;
	connection->gzip_refused = true;
	return true;
}

void
reply_refused(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	RequestPart all = all_of(request);
	RestError error = rest_parse_error(reply->status, reply->body, reply->body_len);

	if (gzip_refused(request, reply))
	{
		set_again(request, &all);
		finish_write(delivery, request, reply->status >= 500);
		return;
	}

	finish_write(delivery, request, part_refused(delivery, request, &all, reply->status, &error, reply, now));
}

void
reply_mapping_refused(Delivery *delivery, Request *request, const char *trouble, TimestampTz now)
{
	RequestPart all = all_of(request);

	set_again(request, &all);
	block_refused(delivery, request, &all, trouble, now);
	finish_write(delivery, request, false);
}

/* No reply, or none that says what became of the request. */
static void
no_reply(Delivery *delivery, Request *request, const char *text, const HttpReply *reply, TimestampTz now)
{
	RequestPart all = all_of(request);

	trouble_no_reply(delivery, request, &all, text, reply, now);
	finish_write(delivery, request, request->records && reply->outcome != HTTP_NOT_SENT);
}

void
reply_failed(Delivery *delivery, Request *request, const char *trouble, TimestampTz now)
{
	RequestPart all = all_of(request);

	poison_other_failed(&request->connection->poison);
	connection_failed(request->connection, trouble, -1, now);
	set_again(request, &all);
	finish_write(delivery, request, false);
}

void
reply_go_on(Delivery *delivery, Request *request)
{
	RequestPart all = all_of(request);

	set_again(request, &all);
	finish_write(delivery, request, false);
}

/*
 * Replies to writes
 */

static bool
settle_guarded(Delivery *delivery, Request *request, const HttpReply *reply, char **error)
{
	RestResult *results = palloc0(sizeof(RestResult) * request->nunits);
	bool *failed = palloc0(sizeof(bool) * request->nunits);
	bool any_failed = false;
	ErrorScope scope = SCOPE_SERVER;
	const RestResult *ailing;

	if (!rest_parse_update_if(reply->body ? reply->body : "", reply->body_len, request->records,
							  request->nunits, results, failed, error))
		return false;
	ailing = find_ailing(results, request->nunits, &scope);
	judge_server(delivery, request, ailing, scope, reply);
	set_results(delivery, request, &request->parts[0], results, reply);
	for (int i = 0; i < request->nunits; i++)
	{
		if (failed[i])
			request->outcomes[i].kind = OUTCOME_AGAIN; /* someone was faster: read, and decide again */
		any_failed |= failed[i];
	}

	/* that someone may be we: libcurl repeats what was sent on a connection that had just died */
	finish_write(delivery, request, any_failed);
	return true;
}

/* The parts of a reply; one that wasn't packed is the only one. */
static bool
unpack(const Request *request, const HttpReply *reply, RestPart *parts, char **error)
{
	const char *body = reply->body ? reply->body : "";

	if (request->nparts > 1)
		return rest_unpack(body, reply->body_len, request->nparts, parts, error);
	parts[0].http_status = reply->status;
	parts[0].body = unconstify(char *, body);
	parts[0].body_len = reply->body_len;
	return true;
}

static bool
settle_parts(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now, char **error)
{
	RestPart parts[REST_PACK_LIMIT] = {0};
	RestResult *results[REST_PACK_LIMIT] = {0};
	const RestResult *ailing = NULL;
	ErrorScope scope = SCOPE_SERVER;
	bool unknown = false;

	if (!unpack(request, reply, parts, error))
		return false;
	for (int p = 0; p < request->nparts; p++)
	{
		results[p] = palloc0(sizeof(RestResult) * request->parts[p].n);
		if (parts[p].http_status == 200 &&
			!rest_parse_results(parts[p].body, parts[p].body_len, request->parts[p].n, results[p], error))
			return false;
		if (parts[p].http_status == 200 && !ailing)
			ailing = find_ailing(results[p], request->parts[p].n, &scope);
	}
	judge_server(delivery, request, ailing, scope, reply);
	for (int p = 0; p < request->nparts; p++)
	{
		RestError refusal;

		if (parts[p].http_status == 200)
		{
			set_results(delivery, request, &request->parts[p], results[p], reply);
			continue;
		}
		refusal = rest_parse_error(parts[p].http_status, parts[p].body, parts[p].body_len);
		unknown |=
			part_refused(delivery, request, &request->parts[p], parts[p].http_status, &refusal, reply, now);
	}
	finish_write(delivery, request, unknown);
	return true;
}

static void
write_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	char *error;
	bool understood;

	if (reply->outcome != HTTP_REPLIED)
	{
		no_reply(delivery, request, reply->error, reply, now);
		return;
	}
	if (reply->status != 200)
	{
		reply_refused(delivery, request, reply, now);
		return;
	}
	understood = request->kind == REQUEST_GUARDED_UPDATE
					 ? settle_guarded(delivery, request, reply, &error)
					 : settle_parts(delivery, request, reply, now, &error);
	if (!understood)
		no_reply(delivery, request, psprintf("the reply can't be understood: %s", error), reply, now);
}

static void
read_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	if (reply->timed_out)
		throttle_read(&request->connection->throttle, -1, request->nunits);
	if (reply->outcome != HTTP_REPLIED)
		reply_failed(delivery, request, reply->error, now);
	else if (reply->status != 200)
		reply_refused(delivery, request, reply, now);
	else
	{
		throttle_read(&request->connection->throttle, reply->elapsed, request->nunits);
		poison_passed(&request->connection->poison, request->mark, false);
		connection_well(request->connection, reply->elapsed, 0, true);
		reads_settle(delivery, request, reply, now);
	}
}

/*
 * Ids by external ID
 */

/* The record found under a key; NULL if there is none, or more than one. */
static const RestFound *
found_at(const RestFound *found, int nfound, const char *record_key, bool case_sensitive)
{
	const RestFound *match = NULL;

	for (int f = 0; f < nfound; f++)
	{
		if (strcmp(rest_record_key(found[f].key, case_sensitive), record_key) != 0)
			continue;
		if (match)
			return NULL;
		match = &found[f];
	}
	return match;
}

/* A row's record is the one under a key that it had before; else the one under its own. */
static void
remember_found(Request *request, const RestFound *found, int nfound, bool case_sensitive)
{
	char **record_keys = palloc(sizeof(char *) * Max(request->nunits, 1));
	char **keys = palloc(sizeof(char *) * Max(request->nunits, 1));
	char **ids = palloc(sizeof(char *) * Max(request->nunits, 1));
	char **at_keys = palloc(sizeof(char *) * Max(request->nunits, 1));
	int n = 0;
	int first = 0;

	for (int i = 0; i < request->nunits; i++)
	{
		const Unit *unit = request->outcomes[i].unit;
		int nkeys = Min(1 + unit->nold, request->nkeys - first);
		const RestFound *match = NULL;

		for (int k = 1; k <= nkeys && !match; k++)
		{
			at_keys[n] = request->record_keys[first + k % nkeys];
			match = found_at(found, nfound, at_keys[n], case_sensitive);
		}
		if (match)
		{
			record_keys[n] = request->record_keys[first];
			keys[n] = unit->key;
			ids[n++] = match->id;
		}
		first += nkeys;
	}
	record_meet(request->mapping, record_keys, keys, ids, at_keys, n);
}

static void
lookup_done(Delivery *delivery, Request *request, const RestFound *found, int nfound)
{
	Mapping *mapping;

	begin();
	mapping = mapping_get(request->mapping);
	if (mapping && mapping->key_field)
		remember_found(request, found, nfound, mapping->key_field->case_sensitive);
	commit();
	for (int i = 0; i < request->nunits; i++)
		request->outcomes[i].unit->looked_up = true;
	reply_go_on(delivery, request);
}

static void
lookup_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	RestFound *found;
	int nfound;
	char *next;
	char *error = NULL;
	RestError failure = {0};
	int status = 0;

	if (reply->outcome != HTTP_REPLIED)
		reply_failed(delivery, request, reply->error, now);
	else if (reply->status != 200)
		reply_refused(delivery, request, reply, now);
	else if (rest_parse_lookup(reply->body ? reply->body : "", reply->body_len, request->external_id, &found,
							   &nfound, &next, &failure, &status, &error))
	{
		poison_passed(&request->connection->poison, request->mark, false);
		connection_well(request->connection, reply->elapsed, 0, true);
		lookup_done(delivery, request, found, nfound);
	}
	else if (error)
		reply_failed(delivery, request, psprintf("the reply can't be understood: %s", error), now);
	else
		reply_mapping_refused(delivery, request,
							  psprintf("query of %s failed: %s", request->object, failure.message), now);
}

/*
 * Login and metadata
 */

static void
login_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	Connection *connection = request->connection;
	AuthToken *token;
	ErrorScope scope = SCOPE_SERVER;
	char *error = NULL;

	connection->login_in_flight = false;
	if (reply->outcome != HTTP_REPLIED)
	{
		connection_failed(connection, reply->error, -1, now);
		return;
	}
	token = auth_parse(reply->status, reply->body, reply->body_len, connection->options->login_url, &scope,
					   &error);
	if (token)
	{
		connection_set_token(connection, token);
		explicit_bzero(token->access_token, strlen(token->access_token));
	}
	else if (scope == SCOPE_CONNECTION)
		connection_block(connection, error, now);
	else
		connection_failed(connection, error, reply->retry_after, now);
}

static void
store_describe(Delivery *delivery, Request *request, const HttpReply *reply)
{
	char *error;
	char *reduced = describe_reduce(reply->body ? reply->body : "", reply->body_len, &error);

	if (!reduced)
	{
		connection_failed(request->connection,
						  psprintf("metadata of %s can't be understood: %s", request->object, error), -1,
						  GetCurrentTimestamp());
		return;
	}
	delivery_of(delivery, request->mapping)->describe_wanted = false;
	delivery_of(delivery, request->mapping)->describe_due = false;
	begin();
	object_put(request->server, request->object, reduced, reply->last_modified);
	commit();
	connection_well(request->connection, reply->elapsed, 0, true);
}

static void
describe_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	MappingDelivery *state = delivery_of(delivery, request->mapping);

	state->describe_in_flight = false;
	if (reply->outcome != HTTP_REPLIED)
		connection_failed(request->connection, reply->error, -1, now);
	else if (reply->status == 200)
		store_describe(delivery, request, reply);
	else if (reply->status == 304 || reply->status == 404)
	{
		state->describe_wanted = state->describe_due = false;
		begin();
		if (reply->status == 304)
			object_touch(request->server, request->object);
		else
			object_put(request->server, request->object, NULL, NULL);
		commit();
		connection_well(request->connection, reply->elapsed, 0, true);
	}
	else
		reply_refused(delivery, request, reply, now);
}

/*
 * Usage at the start, or whether the server is well.  Not every user may ask;
 * the header of other replies tells usage as well.
 */
static void
limits_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	Connection *connection = request->connection;
	RestError error;
	ErrorScope scope = SCOPE_RECORD_PERMANENT;
	int64 used;
	int64 limit;

	connection->limits_in_flight = false;
	connection->limits_known = true; /* or never will be: nothing waits for it again */
	if (reply->outcome != HTTP_REPLIED)
	{
		reply_failed(delivery, request, reply->error, now);
		return;
	}
	if (reply->status != 200)
	{
		error = rest_parse_error(reply->status, reply->body, reply->body_len);
		scope = error_classify(reply->status, error.code, error.message);
	}
	if (scope >= SCOPE_SERVER && scope <= SCOPE_SESSION)
	{
		connection->limits_known = scope != SCOPE_SESSION;
		reply_refused(delivery, request, reply, now);
		return;
	}
	poison_passed(&connection->poison, request->mark, false);
	if (reply->status == 200 &&
		rest_parse_limits(reply->body ? reply->body : "", reply->body_len, &used, &limit))
		connection_note_usage(connection, used, limit, now);
}

static void
field_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	bool settled;

	if (reply->outcome != HTTP_REPLIED)
	{
		create_field_recover(delivery_of(delivery, request->mapping));
		connection_failed(request->connection, reply->error, -1, now);
		return;
	}
	begin();
	settled = create_field_reply(delivery, request, reply);
	commit();
	if (!settled)
		reply_refused(delivery, request, reply, now);
}

static void
dispatch(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	switch (request->kind)
	{
		case REQUEST_LOGIN:
			login_reply(delivery, request, reply, now);
			break;
		case REQUEST_LIMITS:
			limits_reply(delivery, request, reply, now);
			break;
		case REQUEST_DESCRIBE:
			describe_reply(delivery, request, reply, now);
			break;
		case REQUEST_LOOKUP:
			lookup_reply(delivery, request, reply, now);
			break;
		case REQUEST_BULK:
			bulk_reply(delivery, request, reply, now);
			break;
		case REQUEST_RETRIEVE:
		case REQUEST_FIND:
		case REQUEST_GONE:
		case REQUEST_HISTORY:
		case REQUEST_USERS:
			read_reply(delivery, request, reply, now);
			break;
		case REQUEST_CREATE_FIELD:
			field_reply(delivery, request, reply, now);
			break;
		default:
			write_reply(delivery, request, reply, now);
	}
}

/* A reply that could not be settled: its units are sent again, after a pause. */
static void
recover(Delivery *delivery, Request *request, TimestampTz now)
{
	MemoryContext caller;
	ErrorData *error;

	caller = MemoryContextSwitchTo(delivery->turn_context);
	error = CopyErrorData();
	EmitErrorReport();
	FlushErrorState();
	if (IsTransactionState())
		AbortCurrentTransaction();
	MemoryContextSwitchTo(delivery->context);
	if (!request->finished)
		for (int i = 0; i < request->nunits; i++)
			batch_again(request->outcomes[i].unit);
	connection_failed(request->connection, psprintf("a reply could not be settled: %s", error->message), -1,
					  now);
	MemoryContextSwitchTo(caller);
}

void
reply_settle(Delivery *delivery, Request *request, const HttpReply *reply)
{
	TimestampTz now = GetCurrentTimestamp();

	delivery->requests = list_delete_ptr(delivery->requests, request);
	request->connection->in_flight--;
	connection_note_reply(request->connection, reply, request->started, now);
	request->connection->gzip_taken |= request->compressed && reply->status == 200;
	PG_TRY();
	{
		dispatch(delivery, request, reply, now);
	}
	PG_CATCH();
	{
		recover(delivery, request, now);
	}
	PG_END_TRY();
	MemoryContextDelete(request->context);
}
