/*
 * send.c
 *		Prepared requests go out.
 */
#include "compat.h"

#include "utils/memutils.h"

#include "bulk_job.h"
#include "gzip.h"
#include "reply.h"
#include "send.h"
#include "sfsync.h"

#define MAX_REPLY_BYTES (64 * 1024 * 1024)

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

void
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
