/*
 * trouble.c
 *		Requests that fail, and not for what they say: what that means for the
 *		server, and for the records that they carried.
 *
 * The decision who is to blame is poison.c's.
 */
#include "compat.h"

#include "delivery.h"
#include "errors.h"
#include "poison.h"
#include "reply.h"
#include "throttle.h"
#include "trouble.h"

void
trouble_of_server(Connection *connection, ErrorScope scope, const char *text, int retry_after,
				  TimestampTz now)
{
	if (scope == SCOPE_SESSION)
		connection_drop_token(connection);
	if (error_is_limit(scope))
		connection_limited(connection, text, scope, retry_after, now);
	else
		connection_failed(connection, text, retry_after, now);
}

void
trouble_of_connection(Connection *connection, int status, const char *code, const char *text, TimestampTz now)
{
	if (error_is_version(status, code))
		connection_block_version(connection, NULL, text, now);
	else
		connection_block(connection, text, now);
}

bool
trouble_is_server(const RestResult *result, ErrorScope *scope)
{
	const RestError *error = &result->error;

	if (result->success)
		return false;
	*scope = error_classify(error->code ? 200 : result->http_status, error->code, error->message);
	return *scope == SCOPE_SERVER || error_is_limit(*scope) || *scope == SCOPE_SESSION;
}

/* The record makes the server stumble, or it has done so before. */
static void
blame_record(Request *request, int i, bool count_attempt, const RestError *error, const HttpReply *reply)
{
	Outcome *outcome = &request->outcomes[i];

	if (count_attempt)
		reply_set_retry(request, i, error, reply);
	else
		reply_set_later(request, i, error, false);
	if (outcome->kind == OUTCOME_DEAD)
		poison_forget(&request->connection->poison, request->mapping, outcome->unit->key);
}

/*
 * The server is down, or a record makes it stumble.  What was sent is sent again,
 * in halves if that may tell, after all others.
 */
static void
write_failed(Request *request, const RequestPart *part, const RestError *error, const char *text,
			 const HttpReply *reply, TimestampTz now)
{
	Connection *connection = request->connection;
	const Unit *first = request->outcomes[part->first].unit;
	PoisonVerdict verdict =
		connection_write_failed(connection, request->mapping, first->key, first->failed_since, part->n);

	if (verdict == POISON_RECORD || verdict == POISON_UNSURE)
	{
		blame_record(request, part->first, verdict == POISON_RECORD, error, reply);
		return;
	}
	connection_failed(connection, text, reply->retry_after, now);
	for (int i = 0; i < part->n; i++)
	{
		Outcome *outcome = &request->outcomes[part->first + i];

		outcome->kind = OUTCOME_AGAIN;
		outcome->last_in_turn = true;
		if (outcome->unit->failed_since == 0)
			outcome->unit->failed_since = poison_mark(&connection->poison);
		if (verdict == POISON_SPLIT)
			outcome->unit->limit = (part->n + 1) / 2;
	}
}

static void
other_failed(Request *request, const RequestPart *part, const char *text, int retry_after, TimestampTz now)
{
	poison_other_failed(&request->connection->poison);
	connection_failed(request->connection, text, retry_after, now);
	for (int i = 0; i < part->n; i++)
		request->outcomes[part->first + i].kind = OUTCOME_AGAIN;
}

void
trouble(Request *request, const RequestPart *part, int status, const RestError *error, const char *text,
		const HttpReply *reply, TimestampTz now)
{
	Throttle *throttle = &request->connection->throttle;
	bool too_long = error->code && (strcmp(error->code, "REQUEST_RUNNING_TOO_LONG") == 0 ||
									strcmp(error->code, "QUERY_TIMEOUT") == 0);

	if (too_long && !request->records)
		throttle_read(throttle, -1, part->n);
	else if (too_long)
		throttle_timeout(throttle, part->n);
	if (request->records && error_is_contention(error->code))
		throttle_contention(throttle, part->n);
	if (request->records && (status >= 500 || too_long))
		write_failed(request, part, error, text, reply, now);
	else
		other_failed(request, part, text, reply->retry_after, now);
}

void
trouble_no_reply(Request *request, const RequestPart *part, const char *text, const HttpReply *reply,
				 TimestampTz now)
{
	RestError error = {.code = pstrdup(reply->timed_out ? "REQUEST_TIMEOUT" : "NO_REPLY"),
					   .message = pstrdup(text)};

	if (request->records)
		connection_note_failed_write(request->connection);
	if (reply->timed_out)
		throttle_timeout(&request->connection->throttle, part->n);
	if (request->records && reply->outcome != HTTP_NOT_SENT)
		write_failed(request, part, &error, text, reply, now);
	else
		other_failed(request, part, text, -1, now);
}
