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

		if (!outcome->unit->next)
			continue;
		if (outcome->kind == OUTCOME_DEAD || outcome->kind == OUTCOME_HELD)
			outcome->kind = OUTCOME_AGAIN;
		if (outcome->kind == OUTCOME_AGAIN || outcome->kind == OUTCOME_CREATE_AGAIN ||
			outcome->kind == OUTCOME_DEFERRED)
			batch_fold_next(delivery->work, outcome->unit);
	}
}

static void
release_unit(Delivery *delivery, const Outcome *outcome)
{
	switch (outcome->kind)
	{
		case OUTCOME_CREATE_AGAIN:
			outcome->unit->whole = true;
			batch_again(outcome->unit);
			break;
		case OUTCOME_AGAIN:
			batch_again(outcome->unit);
			break;
		case OUTCOME_DEFERRED:
			if (delivery->next_due == 0 || outcome->due_at < delivery->next_due)
				delivery->next_due = outcome->due_at;
			if (outcome->due_at <= delivery->deferred_from)
				delivery->deferred_from = outcome->due_at - 1;
			batch_done(delivery->work, outcome->unit);
			break;
		default:
			batch_done(delivery->work, outcome->unit);
	}
}

static bool
anything_to_write(const Outcome *outcomes, int n, int64 intent)
{
	if (intent != 0)
		return true;
	for (int i = 0; i < n; i++)
		if (outcomes[i].kind != OUTCOME_AGAIN)
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

/* Later; records of one reply that failed as often are tried again together. */
static void
set_later(const Request *request, int i, const RestError *error, bool count_attempt)
{
	Outcome *outcome = &request->outcomes[i];

	outcome->kind = OUTCOME_DEFERRED;
	outcome->count_attempt = count_attempt;
	outcome->reason = error_text(error);
	outcome->due_at = GetCurrentTimestamp() + backoff_delay((int64) sfsync_retry_base_delay * 1000,
															(int64) sfsync_retry_max_delay * 1000,
															outcome->unit->attempts, request->jitter);
}

static void
set_retry(const Request *request, int i, const RestError *error, const HttpReply *reply)
{
	if (request->outcomes[i].unit->attempts + 1 >= sfsync_max_attempts)
		set_dead(request, i, error, reply);
	else
		set_later(request, i, error, true);
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
	if (!end)
		return;
	key = pnstrdup(key + strlen(prefix), end - key - strlen(prefix));
	for (int f = 0; f < record->nfields; f++)
	{
		const FieldValue *value = &record->fields[f].value;

		if (value->kind != FV_LOOKUP || strcmp(value->text, key) != 0)
			continue;
		outcome->parent_mapping = value->lookup->parent_mapping;
		outcome->parent_key = value->text;
	}
}

/*
 * A field or the object is not as the metadata say: have them fetched, and try
 * once more.  Refused again, with new metadata, it is the mapping's fault if
 * others are, too (poison_blames_mapping), and after some attempts the record's.
 */
static bool
refused_before(const Unit *unit)
{
	return unit->refused_once || unit->attempts > 0;
}

static void
set_refused(Delivery *delivery, const Request *request, int i, const RestError *error, const HttpReply *reply)
{
	Unit *unit = request->outcomes[i].unit;

	if (refused_before(unit))
	{
		set_retry(request, i, error, reply);
		return;
	}
	unit->refused_once = true;
	delivery_of(delivery, request->mapping)->describe_wanted = true;
	request->outcomes[i].kind = OUTCOME_AGAIN;
}

static OutcomeKind
deleted_kind(const Outcome *outcome)
{
	return outcome->row_remains ? OUTCOME_CREATE_AGAIN : OUTCOME_DELETED;
}

static void
set_failed(Delivery *delivery, const Request *request, int i, const RestError *error, const HttpReply *reply)
{
	Outcome *outcome = &request->outcomes[i];

	switch (error_classify(200, error->code, error->message))
	{
		case SCOPE_RECORD_GONE:
			if (request->kind == REQUEST_DELETE)
				outcome->kind = deleted_kind(outcome);
			else if (request->kind == REQUEST_UPDATE && !outcome->unit->whole)
				outcome->kind = OUTCOME_CREATE_AGAIN;
			else if (request->kind == REQUEST_UPDATE && strcmp(outcome->operation, "key_change") == 0)
				outcome->kind = OUTCOME_CREATE_AGAIN;
			else
				set_dead(request, i, error, reply);
			break;
		case SCOPE_RECORD_COLLATERAL:
			outcome->kind = OUTCOME_AGAIN;
			break;
		case SCOPE_RECORD_RETRY:
			throttle_contention(&request->connection->throttle, request->nunits);
			set_retry(request, i, error, reply);
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
			set_refused(delivery, request, i, error, reply);
			break;
		case SCOPE_CONNECTION:
			connection_block(request->connection, error_text(error), GetCurrentTimestamp());
			outcome->kind = OUTCOME_AGAIN;
			break;
		default:
			set_dead(request, i, error, reply);
	}
}

/* Of a single record's error, or of a request's: the server or a limit of it. */
static void
server_refused(Connection *connection, ErrorScope scope, const char *trouble, int retry_after,
			   TimestampTz now)
{
	if (scope == SCOPE_SESSION)
		connection_drop_token(connection);
	if (scope == SCOPE_CONCURRENT_LIMIT || scope == SCOPE_DAILY_LIMIT)
		connection_limited(connection, trouble, scope == SCOPE_DAILY_LIMIT, retry_after, now);
	else
		connection_failed(connection, trouble, retry_after, now);
}

/*
 * Is the server well, whatever it says of single records?  During maintenance,
 * say, it refuses each of them for a reason of its own: then it has to wait, and
 * they keep their attempts.
 */
static void
judge_server(Delivery *delivery, Request *request, const RestResult *results, const HttpReply *reply)
{
	Connection *connection = request->connection;

	for (int i = 0; i < request->nunits; i++)
	{
		const RestError *error = &results[i].error;
		ErrorScope scope;

		if (results[i].success)
			continue;
		scope = error_classify(200, error->code, error->message);
		if (scope != SCOPE_SERVER && scope != SCOPE_CONCURRENT_LIMIT && scope != SCOPE_DAILY_LIMIT &&
			scope != SCOPE_SESSION)
			continue;
		server_refused(connection, scope, error_text(error), reply->retry_after, GetCurrentTimestamp());
		return;
	}
	poison_passed(&connection->poison, request->mark, true);
	connection_well(connection, reply->elapsed, request->nunits,
					batch_size(delivery->work) > request->nunits);
}

/* Records refused, with the newest metadata, for a reason that concerns all of the mapping. */
static int
refused_for_all(const Request *request, const RestResult *results)
{
	int n = 0;

	for (int i = 0; i < request->nunits; i++)
		if (!results[i].success && refused_before(request->outcomes[i].unit) &&
			error_classify(200, results[i].error.code, results[i].error.message) == SCOPE_MAPPING)
			n++;
	return n;
}

static void mapping_refused(Delivery *delivery, Request *request, const char *trouble, TimestampTz now);

static bool
settle_results(Delivery *delivery, Request *request, const HttpReply *reply, char **error)
{
	RestResult *results = palloc0(sizeof(RestResult) * request->nunits);
	MappingDelivery *state = delivery_of(delivery, request->mapping);

	if (!rest_parse_results(reply->body ? reply->body : "", reply->body_len, request->nunits, results, error))
		return false;
	judge_server(delivery, request, results, reply);
	if (poison_blames_mapping(&state->refusals, refused_for_all(request, results), request->nunits))
	{
		mapping_refused(delivery, request, error_text(&results[0].error), GetCurrentTimestamp());
		return true;
	}
	for (int i = 0; i < request->nunits; i++)
	{
		Outcome *outcome = &request->outcomes[i];

		poison_forget(&request->connection->poison, request->mapping, outcome->unit->key);
		if (!results[i].success)
		{
			set_failed(delivery, request, i, &results[i].error, reply);
			continue;
		}
		outcome->kind = request->kind == REQUEST_DELETE ? deleted_kind(outcome) : OUTCOME_SYNCED;
		outcome->salesforce_id = results[i].id;
	}
	reply_finish(delivery, request->mapping, request->outcomes, request->nunits, request);
	return true;
}

/* Nobody knows whether a request was, or still will be, carried out. */
static void
leave_unknown(Delivery *delivery, Request *request)
{
	if (request->intent == 0)
		return;
	begin();
	intent_unknown(request->intent);
	commit();
	if (delivery->next_verify == 0)
		delivery->next_verify = GetCurrentTimestamp();
	request->intent = 0;
}

/* All units of a request go back to be sent again. */
static void
send_again(Delivery *delivery, Request *request, bool keep_intent)
{
	for (int i = 0; i < request->nunits; i++)
		request->outcomes[i].kind = OUTCOME_AGAIN;
	if (keep_intent)
		leave_unknown(delivery, request);
	reply_finish(delivery, request->mapping, request->outcomes, request->nunits, request);
}

/*
 * Replies for a request as a whole
 */

/* The request can't be digested: halve it, down to the record that is the cause. */
static void
bisect(Delivery *delivery, Request *request, const RestError *error, const HttpReply *reply)
{
	if (request->nunits == 1 && request->records)
	{
		set_dead(request, 0, error, reply);
		reply_finish(delivery, request->mapping, request->outcomes, 1, request);
		return;
	}
	for (int i = 0; i < request->nunits; i++)
		request->outcomes[i].unit->limit = Max(request->nunits / 2, 1);
	send_again(delivery, request, false);
}

/*
 * It failed as a whole, and not for what it says: the server is down, or a
 * record makes it stumble (poison.h).
 */
static void
failed_as_a_whole(Delivery *delivery, Request *request, const RestError *error, const char *trouble,
				  const HttpReply *reply, TimestampTz now)
{
	Connection *connection = request->connection;
	Unit *first = request->outcomes[0].unit;
	PoisonVerdict verdict = connection_write_failed(connection, request->mapping, first->key,
													first->failed_since, request->nunits);

	if (reply->timed_out)
		throttle_timeout(&connection->throttle, request->nunits);
	if (verdict == POISON_RECORD || verdict == POISON_UNSURE)
	{
		leave_unknown(delivery, request);
		if (verdict == POISON_RECORD)
			set_retry(request, 0, error, reply);
		else
			set_later(request, 0, error, false);
		if (request->outcomes[0].kind == OUTCOME_DEAD)
			poison_forget(&connection->poison, request->mapping, first->key);
		reply_finish(delivery, request->mapping, request->outcomes, 1, request);
		return;
	}
	connection_failed(connection, trouble, reply->retry_after, now);
	for (int i = 0; i < request->nunits; i++)
	{
		Unit *unit = request->outcomes[i].unit;

		if (unit->failed_since == 0)
			unit->failed_since = poison_mark(&connection->poison);
		if (verdict == POISON_SPLIT)
			unit->limit = (request->nunits + 1) / 2;
	}
	send_again(delivery, request, true);
	for (int i = 0; i < request->nunits; i++)
		batch_postpone(request->outcomes[i].unit);
}

static void
session_ended(Delivery *delivery, Request *request, const char *trouble, TimestampTz now)
{
	Connection *connection = request->connection;

	/* of several requests in flight with the token, the first to come back counts */
	if (connection->token && request->token_serial == connection->token_serial)
	{
		connection_drop_token(connection);
		if (++connection->session_failures > 1)
			connection_block(connection, trouble, now);
	}
	send_again(delivery, request, false);
}

static void
mapping_refused(Delivery *delivery, Request *request, const char *trouble, TimestampTz now)
{
	MappingDelivery *state = delivery_of(delivery, request->mapping);
	bool again = false;

	for (int i = 0; i < request->nunits; i++)
	{
		again |= request->outcomes[i].unit->refused_once;
		request->outcomes[i].unit->refused_once = true;
	}
	send_again(delivery, request, false);
	state->describe_wanted = true;
	if (!again)
		return;
	begin();
	delivery_block(delivery, state, trouble, now);
	state->refused_until = state->blocked_until;
	commit();
}

static bool
is_write(const Request *request)
{
	return request->nunits > 0 && request->records != NULL;
}

/* The server failed, was too busy, or stumbled over the request. */
static void
server_failed(Delivery *delivery, Request *request, const RestError *error, const char *trouble,
			  const HttpReply *reply, TimestampTz now)
{
	Connection *connection = request->connection;
	bool in_time = !error->code || strcmp(error->code, "REQUEST_RUNNING_TOO_LONG") != 0;

	if (!in_time)
		throttle_timeout(&connection->throttle, request->nunits);
	if (error_is_contention(error->code))
		throttle_contention(&connection->throttle, request->nunits);
	if (is_write(request) && (reply->status >= 500 || !in_time))
	{
		failed_as_a_whole(delivery, request, error, trouble, reply, now);
		return;
	}
	poison_other_failed(&connection->poison);
	connection_failed(connection, trouble, reply->retry_after, now);
	send_again(delivery, request, true);
}

static void
request_refused(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	Connection *connection = request->connection;
	RestError error = rest_parse_error(reply->status, reply->body, reply->body_len);
	char *trouble = psprintf("HTTP status %d: %s%s%s", reply->status, error.code ? error.code : "",
							 error.code ? ": " : "", error.message);
	ErrorScope scope = error_classify(reply->status, error.code, error.message);

	switch (scope)
	{
		case SCOPE_SESSION:
			session_ended(delivery, request, trouble, now);
			break;
		case SCOPE_CONNECTION:
			connection_block(connection, trouble, now);
			send_again(delivery, request, false);
			break;
		case SCOPE_MAPPING:
			mapping_refused(delivery, request, trouble, now);
			break;
		case SCOPE_CONCURRENT_LIMIT:
		case SCOPE_DAILY_LIMIT:
			server_refused(connection, scope, trouble, reply->retry_after, now);
			send_again(delivery, request, false);
			break;
		case SCOPE_SERVER:
		case SCOPE_RECORD_COLLATERAL:
			server_failed(delivery, request, &error, trouble, reply, now);
			break;
		default:
			bisect(delivery, request, &error, reply);
	}
}

/* No reply, or none that says what became of the request. */
static void
no_reply(Delivery *delivery, Request *request, const char *trouble, const HttpReply *reply, TimestampTz now)
{
	RestError error = {.code = pstrdup(reply->timed_out ? "REQUEST_TIMEOUT" : "NO_REPLY"),
					   .message = pstrdup(trouble)};

	if (is_write(request) && reply->outcome != HTTP_NOT_SENT)
	{
		failed_as_a_whole(delivery, request, &error, trouble, reply, now);
		return;
	}
	poison_other_failed(&request->connection->poison);
	connection_failed(request->connection, trouble, -1, now);
	send_again(delivery, request, false);
}

static void
write_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	char *error;

	if (reply->outcome != HTTP_REPLIED)
		no_reply(delivery, request, reply->error, reply, now);
	else if (reply->status != 200)
		request_refused(delivery, request, reply, now);
	else if (!settle_results(delivery, request, reply, &error))
		no_reply(delivery, request, psprintf("the reply can't be understood: %s", error), reply, now);
}

/*
 * Ids by external ID
 */

static void
remember_found(Request *request, const RestFound *found, int nfound, bool case_sensitive)
{
	char **record_keys = palloc(sizeof(char *) * Max(nfound, 1));
	char **keys = palloc(sizeof(char *) * Max(nfound, 1));
	char **ids = palloc(sizeof(char *) * Max(nfound, 1));
	int n = 0;

	for (int f = 0; f < nfound; f++)
	{
		char *record_key = rest_record_key(found[f].key, case_sensitive);
		bool double_match = false;

		for (int k = 0; k < n; k++)
			double_match |= strcmp(record_keys[k], record_key) == 0;
		for (int k = 0; k < request->nkeys && !double_match; k++)
		{
			if (strcmp(request->record_keys[k], record_key) != 0)
				continue;
			record_keys[n] = record_key;
			keys[n] = request->keys[k];
			ids[n++] = found[f].id;
			break;
		}
	}
	record_put(request->mapping, record_keys, keys, ids, n);
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
	send_again(delivery, request, false);
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
		no_reply(delivery, request, reply->error, reply, now);
	else if (reply->status != 200)
		request_refused(delivery, request, reply, now);
	else if (rest_parse_lookup(reply->body ? reply->body : "", reply->body_len, request->external_id, &found,
							   &nfound, &next, &failure, &status, &error))
	{
		poison_passed(&request->connection->poison, request->mark, false);
		connection_well(request->connection, reply->elapsed, 0, true);
		lookup_done(delivery, request, found, nfound);
	}
	else if (error)
		no_reply(delivery, request, psprintf("the reply can't be understood: %s", error), reply, now);
	else
		mapping_refused(delivery, request,
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
		state->describe_wanted = false;
		begin();
		if (reply->status == 304)
			object_touch(request->server, request->object);
		else
			object_put(request->server, request->object, NULL, NULL);
		commit();
		connection_well(request->connection, reply->elapsed, 0, true);
	}
	else
		request_refused(delivery, request, reply, now);
}

/*
 * Usage at the start, or whether the server is well.  Not every user may ask;
 * the header of other replies tells usage as well.
 */
static void
limits_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	Connection *connection = request->connection;
	RestError error = {0};
	ErrorScope scope = SCOPE_RECORD_PERMANENT;
	int64 used;
	int64 limit;

	connection->limits_in_flight = false;
	if (reply->outcome != HTTP_REPLIED)
	{
		no_reply(delivery, request, reply->error, reply, now);
		return;
	}
	if (reply->status != 200)
	{
		error = rest_parse_error(reply->status, reply->body, reply->body_len);
		scope = error_classify(reply->status, error.code, error.message);
	}
	if (scope >= SCOPE_SERVER && scope <= SCOPE_SESSION)
	{
		request_refused(delivery, request, reply, now);
		return;
	}
	connection->limits_known = true;
	poison_passed(&connection->poison, request->mark, false);
	if (reply->status == 200 &&
		rest_parse_limits(reply->body ? reply->body : "", reply->body_len, &used, &limit))
		connection_note_usage(connection, used, limit, now);
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
	connection_note_reply(request->connection, reply, now);
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
