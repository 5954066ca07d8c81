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
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "bulk_job.h"
#include "claim.h"
#include "create_field.h"
#include "delivery.h"
#include "describe.h"
#include "errors.h"
#include "intents.h"
#include "mapping.h"
#include "reply.h"
#include "sfsync.h"
#include "throttle.h"
#include "trouble.h"

/*
 * Requests, or parts of them, that are refused as a whole.  Each of the
 * following says of the units what becomes of them; they are let go of after.
 */

void
reply_set_again(Request *request, const RequestPart *part)
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
		reply_set_dead(request, part->first, error, reply);
		return;
	}
	reply_set_again(request, part);
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

void
reply_block_refused(Delivery *delivery, Request *request, const RequestPart *part, const char *trouble,
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
	reply_begin(request->mapping);
	delivery_block(delivery, state, trouble, now);
	state->refused_until = state->blocked_until;
	reply_commit();
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

	if (request->records)
		connection_note_failed_write(connection);
	reply_set_again(request, part);
	switch (scope)
	{
		case SCOPE_SESSION:
			session_ended(request, text, now);
			return false;
		case SCOPE_CONNECTION:
			trouble_of_connection(connection, status, error->code, text, now);
			return false;
		case SCOPE_MAPPING:
			reply_block_refused(delivery, request, part, text, now);
			return false;
		case SCOPE_CONCURRENT_LIMIT:
		case SCOPE_UNKNOWN_LIMIT:
		case SCOPE_DAILY_LIMIT:
			trouble_of_server(connection, scope, text, reply->retry_after, now);
			return false;
		case SCOPE_SERVER:
		case SCOPE_RECORD_COLLATERAL:
			trouble(request, part, status, error, text, reply, now);
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
		reply_begin(request->mapping);
		intent_unknown(request->intent);
		reply_commit();
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
	bool unknown;

	if (gzip_refused(request, reply))
	{
		reply_set_again(request, &all);
		finish_write(delivery, request, reply->status >= 500 || reply->resent);
		return;
	}
	unknown = part_refused(delivery, request, &all, reply->status, &error, reply, now);
	finish_write(delivery, request, unknown || reply->resent);
}

void
reply_mapping_refused(Delivery *delivery, Request *request, const char *trouble, TimestampTz now)
{
	RequestPart all = all_of(request);

	reply_set_again(request, &all);
	reply_block_refused(delivery, request, &all, trouble, now);
	finish_write(delivery, request, false);
}

/* No reply, or none that says what became of the request. */
static void
no_reply(Delivery *delivery, Request *request, const char *text, const HttpReply *reply, TimestampTz now)
{
	RequestPart all = all_of(request);

	trouble_no_reply(request, &all, text, reply, now);
	finish_write(delivery, request, request->records && reply->outcome != HTTP_NOT_SENT);
}

void
reply_failed(Delivery *delivery, Request *request, const char *trouble, TimestampTz now)
{
	RequestPart all = all_of(request);

	poison_other_failed(&request->connection->poison);
	connection_failed(request->connection, trouble, -1, now);
	reply_set_again(request, &all);
	finish_write(delivery, request, false);
}

void
reply_go_on(Delivery *delivery, Request *request)
{
	RequestPart all = all_of(request);

	reply_set_again(request, &all);
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

	if (!rest_parse_update_if(reply->body, reply->body_len, request->records, request->nunits, results,
							  failed, error))
		return false;
	ailing = reply_find_ailing(results, request->nunits, &scope);
	reply_judge_server(delivery, request, ailing, scope, reply);
	reply_judge_results(delivery, request, &request->parts[0], results, reply);
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
	const char *body = reply->body;

	if (request->nparts > 1)
		return rest_unpack(body, reply->body_len, request->nparts, parts, error);
	parts[0].http_status = reply->status;
	parts[0].body = unconstify(char *, body);
	parts[0].body_len = reply->body_len;
	return true;
}

/* What is refused when it comes a second time may have been carried out the first time. */
static bool
all_good(const RestResult *results, int n)
{
	for (int i = 0; i < n; i++)
		if (!results[i].success)
			return false;
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
			ailing = reply_find_ailing(results[p], request->parts[p].n, &scope);
	}
	reply_judge_server(delivery, request, ailing, scope, reply);
	for (int p = 0; p < request->nparts; p++)
	{
		RestError refusal;

		if (parts[p].http_status == 200)
		{
			reply_judge_results(delivery, request, &request->parts[p], results[p], reply);
			unknown |= reply->resent && !all_good(results[p], request->parts[p].n);
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

/* How many records one request may read; lookups go by the size of what is written. */
static void
note_read(const Request *request, int64 elapsed)
{
	if (request->kind != REQUEST_LOOKUP)
		throttle_read(&request->connection->throttle, elapsed, request->nunits);
}

static void
read_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	if (reply->timed_out)
		note_read(request, -1);
	if (reply->outcome != HTTP_REPLIED)
		reply_failed(delivery, request, reply->error, now);
	else if (reply->status != 200)
		reply_refused(delivery, request, reply, now);
	else
	{
		note_read(request, reply->elapsed);
		poison_passed(&request->connection->poison, request->mark, false);
		connection_answered(request->connection, reply->elapsed);
		reads_settle(delivery, request, reply, now);
	}
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
		trouble_of_server(connection, scope, error, reply->retry_after, now);
}

static ErrorScope
error_scope(const HttpReply *reply)
{
	RestError error = rest_parse_error(reply->status, reply->body, reply->body_len);

	return error_classify(reply->status, error.code, error.message);
}

/* At an address that each version of the API has. */
static bool
version_missing(const HttpReply *reply)
{
	RestError error;

	if (reply->status == 200)
		return false;
	error = rest_parse_error(reply->status, reply->body, reply->body_len);
	return reply->status == 404 || error_is_version(reply->status, error.code);
}

/* Who refuses to tell is left alone with it; one that fails is asked again. */
static void
userinfo_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	Connection *connection = request->connection;
	bool replied = reply->outcome == HTTP_REPLIED;
	ErrorScope scope = SCOPE_SERVER;
	AuthUser user;

	connection->user_in_flight = false;
	if (!connection->token || request->token_serial != connection->token_serial)
		return; /* it is about a login that is over */
	if (replied && reply->status == 200)
	{
		connection->user_tries = 0;
		if (auth_parse_user(reply->body, reply->body_len, &user))
			connection_set_user(connection, &user);
		return;
	}
	if (replied)
		scope = error_scope(reply);
	if (scope < SCOPE_SERVER || scope >= SCOPE_SESSION)
	{
		connection->user_tries = 0;
		return;
	}
	connection->user_tries--;
	if (replied)
		reply_refused(delivery, request, reply, now);
	else
		reply_failed(delivery, request, reply->error, now);
}

static void
store_describe(Delivery *delivery, Request *request, const HttpReply *reply)
{
	char *error;
	char *reduced = describe_reduce(reply->body, reply->body_len, &error);

	if (!reduced)
	{
		connection_failed(request->connection,
						  psprintf("metadata of %s can't be understood: %s", request->target.object, error),
						  -1, GetCurrentTimestamp());
		return;
	}
	delivery_of(delivery, request->mapping)->describe_wanted = false;
	delivery_of(delivery, request->mapping)->describe_due = false;
	reply_begin(0);
	object_put(request->server, request->target.object, reduced, reply->last_modified);
	reply_commit();
	connection_answered(request->connection, reply->elapsed);
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
	else if (reply->status == 404 && !request->connection->version_known)
		request->connection->version_doubted = true;
	else if (reply->status == 304 || reply->status == 404)
	{
		state->describe_wanted = state->describe_due = false;
		reply_begin(0);
		if (reply->status == 304)
			object_touch(request->server, request->target.object);
		else
			object_put(request->server, request->target.object, NULL, NULL);
		reply_commit();
		connection_answered(request->connection, reply->elapsed);
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
	ErrorScope scope = SCOPE_RECORD_PERMANENT;
	int64 used;
	int64 limit;

	connection->limits_in_flight = false;
	connection->version_known |= reply->status == 200;
	connection->limits_known = true; /* or never will be: nothing waits for it again */
	if (reply->outcome != HTTP_REPLIED)
	{
		reply_failed(delivery, request, reply->error, now);
		return;
	}
	if (reply->status != 200)
		scope = error_scope(reply);
	if (scope >= SCOPE_SERVER && scope <= SCOPE_SESSION)
	{
		connection->limits_known = scope != SCOPE_SESSION;
		reply_refused(delivery, request, reply, now);
		return;
	}
	poison_passed(&connection->poison, request->mark, false);
	if (!connection->version_known && version_missing(reply))
		connection->version_doubted = true;
	if (reply->status == 200 && rest_parse_limits(reply->body, reply->body_len, &used, &limit))
		connection_note_usage(connection, used, limit, now);
}

/* Who doesn't list any versions is taken to have the one that was asked for. */
static void
versions_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	Connection *connection = request->connection;
	char *newest = NULL;
	ErrorScope scope;

	connection->versions_in_flight = false;
	if (reply->outcome != HTTP_REPLIED)
	{
		reply_failed(delivery, request, reply->error, now);
		return;
	}
	if (reply->status == 200 &&
		!rest_parse_versions(reply->body, reply->body_len, connection->options->api_version, &newest) &&
		newest)
	{
		connection_block_version(connection, newest, NULL, now);
		return;
	}
	scope = reply->status == 200 ? SCOPE_RECORD_PERMANENT : error_scope(reply);
	if (scope >= SCOPE_SERVER && scope < SCOPE_SESSION)
	{
		reply_refused(delivery, request, reply, now);
		return;
	}
	connection->version_doubted = false;
	connection->version_known = true;
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
	reply_begin(request->mapping);
	settled = create_field_reply(delivery, request, reply);
	reply_commit();
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
		case REQUEST_USERINFO:
			userinfo_reply(delivery, request, reply, now);
			break;
		case REQUEST_LIMITS:
			limits_reply(delivery, request, reply, now);
			break;
		case REQUEST_VERSIONS:
			versions_reply(delivery, request, reply, now);
			break;
		case REQUEST_DESCRIBE:
			describe_reply(delivery, request, reply, now);
			break;
		case REQUEST_BULK:
			bulk_reply(delivery, request, reply, now);
			break;
		case REQUEST_LOOKUP:
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
		for (int i = request->nunits - 1; i >= 0; i--)
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
