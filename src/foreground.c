/*
 * foreground.c
 *		Asking Salesforce from a session of a user.
 */
#include "compat.h"

#include <time.h>

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

#include "errors.h"
#include "foreground.h"
#include "sfsync.h"
#include "sql.h"

#define ATTEMPTS 4
#define PAUSE_MS 500 /* before the second attempt; doubles */

static void
refused(const Foreground *session, const char *problem, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_CONNECTION_EXCEPTION),
					errmsg("could not ask Salesforce, server \"%s\"", session->options->name),
					errdetail("%s", sql_from_utf8(problem)), errhint("%s", hint)));
}

HttpReply *
foreground_perform(Foreground *session, HttpRequest *request)
{
	request->ca_file = session->options->ca_file;
	request->connect_timeout = sfsync_connect_timeout;
	request->timeout = sfsync_request_timeout;
	http_reply_free(session->reply);
	session->reply = NULL;
	session->reply = http_perform(session->client, request);
	return session->reply;
}

static void
forget_token(Foreground *session)
{
	if (session->token)
		explicit_bzero(session->token->access_token, strlen(session->token->access_token));
	session->token = NULL;
}

bool
foreground_take_token(Foreground *session, AuthCall *call, char **error)
{
	HttpRequest request = {
		.method = "POST", .url = call->url, .body = call->body, .body_len = call->body_len};
	HttpReply *reply;
	ErrorScope scope;
	MemoryContext caller;

	request.content_type = "application/x-www-form-urlencoded";
	reply = foreground_perform(session, &request);
	auth_call_wipe(call);
	caller = MemoryContextSwitchTo(session->context);
	if (reply->outcome == HTTP_REPLIED)
		session->token = auth_parse(reply->status, reply->body, reply->body_len, session->options->login_url,
									&scope, error);
	else
		*error = reply->error;
	MemoryContextSwitchTo(caller);
	return session->token != NULL;
}

static void
log_in(Foreground *session)
{
	Credentials *credentials = credentials_load(session->options->serverid, session->owner);
	char *error;
	AuthCall *call = auth_call(session->options, credentials, (int64) time(NULL), &error);

	credentials_wipe(credentials);
	forget_token(session);
	if (!call)
		refused(session, error, FOREGROUND_KEY_HINT);
	if (!foreground_take_token(session, call, &error))
		refused(session, error, "Run sfsync.check_connection and follow its hints.");
}

void
foreground_start(Foreground *session, Oid serverid, Oid owner)
{
	session->options = server_options(serverid);
	session->owner = owner;
	session->context = CurrentMemoryContext;
	session->client = http_create();
	if (!session->client)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not make a client for HTTP"),
						errdetail("Out of memory or of file descriptors."), errhint("Try again later.")));
}

void
foreground_open(Foreground *session, Oid serverid, Oid owner)
{
	foreground_start(session, serverid, owner);
	log_in(session);
}

void
foreground_close(Foreground *session)
{
	forget_token(session);
	http_reply_free(session->reply);
	session->reply = NULL;
	if (session->client)
		http_destroy(session->client);
	session->client = NULL;
}

/* The worker leaves off there, too. */
static void
check_budget(const Foreground *session)
{
	int64 used;
	int64 limit;

	if (!session->reply->limit_info || !rest_parse_limit_info(session->reply->limit_info, &used, &limit))
		return;
	if ((double) used < (double) limit * session->options->api_budget / 100)
		return;
	ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					errmsg("the API calls of server \"%s\" are used up", session->options->name),
					errdetail("%lld of %lld calls were made in 24 hours; api_budget is %d %%.",
							  (long long) used, (long long) limit, session->options->api_budget),
					errhint("Try again later, or raise the server's option api_budget.")));
}

static void
pause_before(int attempt)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = NAMED_WAIT_EVENT("SfsyncRetry");
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, PAUSE_MS << attempt,
					 wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static HttpReply *
ask_once(Foreground *session, const RestCall *call)
{
	HttpRequest request = {0};

	request.method = call->method;
	request.url = psprintf("%s%s", session->token->instance_url, call->path);
	request.bearer = session->token->access_token;
	if (call->body)
	{
		request.content_type = "application/json; charset=UTF-8";
		request.body = call->body;
		request.body_len = call->body_len;
	}
	return foreground_perform(session, &request);
}

const char *
foreground_user(Foreground *session)
{
	AuthToken *token = session->token;
	const HttpReply *reply;
	AuthUser user;

	if (token->user_id)
		return token->user_id;
	reply = ask_once(session, rest_userinfo());
	if (reply->outcome == HTTP_REPLIED && reply->status == 200 &&
		auth_parse_user(reply->body, reply->body_len, &user))
		token->user_id = MemoryContextStrdup(session->context, user.user_id);
	return token->user_id;
}

const HttpReply *
foreground_ask(Foreground *session, const RestCall *call)
{
	bool logged_in = false;

	for (int attempt = 0;; attempt++)
	{
		HttpReply *reply = ask_once(session, call);
		RestError error;
		ErrorScope scope = SCOPE_SERVER;

		if (reply->outcome == HTTP_REPLIED && reply->status >= 200 && reply->status < 300)
		{
			check_budget(session);
			return reply;
		}
		memset(&error, 0, sizeof(error));
		error.message = reply->outcome == HTTP_REPLIED ? NULL : pstrdup(reply->error);
		if (reply->outcome == HTTP_REPLIED)
		{
			error = rest_parse_error(reply->status, reply->body, reply->body_len);
			scope = error_classify(reply->status, error.code, error.message);
		}
		if (scope == SCOPE_SESSION && !logged_in)
		{
			log_in(session);
			logged_in = true;
			continue;
		}
		if ((scope != SCOPE_SERVER && !error_is_limit(scope)) || scope == SCOPE_DAILY_LIMIT ||
			attempt + 1 >= ATTEMPTS)
			refused(session, error.code ? psprintf("%s: %s", error.code, error.message) : error.message,
					error_hint(error.code));
		pause_before(attempt);
	}
}
