/*
 * http_request.c
 *		What a request asks of Salesforce, and how: headers, body, TLS, proxy,
 *		time-outs.
 */
#include "compat.h"

#include <fcntl.h>
#include <unistd.h>

#include "http_internal.h"
#include "url.h"

#define HTTP_DEFAULT_MAX_REPLY ((size_t) 64 * 1024 * 1024)
#define HTTP_DEFAULT_TIMEOUT (10 * 60 * 1000) /* ms */

/* ----------------------------------------------------------------
 * Transfers
 * ----------------------------------------------------------------
 */

/* Header lines hold the access token. */
static void
free_headers(struct curl_slist *headers)
{
	struct curl_slist *line;

	for (line = headers; line != NULL; line = line->next)
		explicit_bzero(line->data, strlen(line->data));
	curl_slist_free_all(headers);
}

void
http_transfer_free(HttpTransfer *transfer)
{
	if (transfer == NULL)
		return;
	free_headers(transfer->headers);
	http_wipe_and_free(transfer->body, transfer->body_len);
	if (transfer->body_fd >= 0)
		close(transfer->body_fd);
	if (transfer->reply_fd >= 0)
		close(transfer->reply_fd);
	free(transfer->retry_after);
	free(transfer->url);
	http_reply_free(transfer->reply);
	free(transfer);
}

static bool
take_body(HttpTransfer *transfer, const HttpRequest *request)
{
	if (request->content_type == NULL)
		return true;
	if (request->body_fd < 0 || (request->body_fd == 0 && request->body == NULL && request->body_len > 0))
		return false;
	transfer->body_len = request->body_len;
	if (request->body_fd > 0)
	{
		transfer->body_fd = fcntl(request->body_fd, F_DUPFD_CLOEXEC, 0);
		return transfer->body_fd >= 0;
	}
	transfer->body = malloc(request->body_len + 1);
	if (transfer->body != NULL && request->body_len > 0)
		memcpy(transfer->body, request->body, request->body_len);
	return transfer->body != NULL;
}

static bool
take_reply_fd(HttpTransfer *transfer, const HttpRequest *request)
{
	if (request->reply_fd == 0)
		return true;
	if (request->reply_fd < 0)
		return false;
	transfer->reply_fd = fcntl(request->reply_fd, F_DUPFD_CLOEXEC, 0);
	return transfer->reply_fd >= 0;
}

HttpTransfer *
http_transfer_create(const HttpRequest *request)
{
	HttpTransfer *transfer = calloc(1, sizeof(HttpTransfer));

	if (transfer == NULL)
		return NULL;
	transfer->body_fd = transfer->reply_fd = -1;
	transfer->max_reply = request->max_reply > 0 ? request->max_reply : HTTP_DEFAULT_MAX_REPLY;
	transfer->timeout = request->timeout > 0 ? request->timeout : HTTP_DEFAULT_TIMEOUT;
	transfer->reads = strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0;
	transfer->url = strdup(request->url);
	transfer->reply = calloc(1, sizeof(HttpReply));
	if (transfer->url == NULL || transfer->reply == NULL)
	{
		http_transfer_free(transfer);
		return NULL;
	}
	transfer->reply->tag = request->tag;
	transfer->reply->retry_after = -1;
	/* Room for the sentence now: there may be none when it is needed. */
	transfer->reply->error = calloc(1, HTTP_ERROR_SIZE);
	if (transfer->reply->error == NULL || !take_body(transfer, request) || !take_reply_fd(transfer, request))
	{
		http_transfer_free(transfer);
		return NULL;
	}
	return transfer;
}

/* ----------------------------------------------------------------
 * While it is sent
 * ----------------------------------------------------------------
 */

/* A request on a connection that just went is sent again by libcurl within this time. */
#define REPEAT_MS 1000

/*
 * Connected, TLS done, the request not yet sent: the point of no return.
 *
 * libcurl sends a request once more when a connection that it had kept ends
 * without a reply.  That is welcome where the server had closed it already.
 * But when it ends after a long silence, the request may have been carried out
 * long ago, and what it sets may have been changed since: who asked for it has to
 * look again.
 */
static int
on_before_request(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	HttpTransfer *transfer = arg;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (transfer->sent && !transfer->reads &&
		(now.tv_sec - transfer->sent_at.tv_sec) * 1000 + (now.tv_nsec - transfer->sent_at.tv_nsec) / 1000000 >
			REPEAT_MS)
	{
		transfer->repeated = true;
		return CURL_PREREQFUNC_ABORT;
	}
	transfer->resent = transfer->sent;
	if (!transfer->sent)
		transfer->sent_at = now;
	transfer->sent = true;
	return CURL_PREREQFUNC_OK;
}

/* A body from a file.  libcurl goes back to its start when it sends a request again. */
static size_t
on_read(char *buffer, size_t size, size_t nitems, void *arg)
{
	HttpTransfer *transfer = arg;
	size_t wanted = Min(size * nitems, transfer->body_len - transfer->body_sent);
	ssize_t n;

	do
		n = pread(transfer->body_fd, buffer, wanted, (off_t) transfer->body_sent);
	while (n < 0 && errno == EINTR);
	if (n < 0 || (n == 0 && wanted > 0))
	{
		transfer->file_errno = n < 0 ? errno : EIO;
		return CURL_READFUNC_ABORT;
	}
	transfer->body_sent += n;
	return n;
}

static int
on_seek(void *arg, curl_off_t offset, int origin)
{
	HttpTransfer *transfer = arg;

	if (origin != SEEK_SET || offset < 0 || (size_t) offset > transfer->body_len)
		return CURL_SEEKFUNC_FAIL;
	transfer->body_sent = (size_t) offset;
	return CURL_SEEKFUNC_OK;
}

/* ----------------------------------------------------------------
 * What libcurl is told
 * ----------------------------------------------------------------
 */

/* The scheme, host and path of a URL held to url_refused; a query is ours. */
const char *
http_request_refused(const char *url)
{
	size_t len = strcspn(url, "?");
	char *base = strndup(url, len);
	const char *reason;

	if (base == NULL)
		return "out of memory";
	if (url[len + strcspn(url + len, "# \t\r\n")] != '\0')
		reason = "the query is not encoded";
	else
		reason = url_refused(base);
	free(base);
	return reason;
}

static bool
add_header(HttpTransfer *transfer, const char *name, const char *value)
{
	struct curl_slist *headers;
	size_t size;
	char *line;

	/* A line break would be a header of the value's choice. */
	if (name[strcspn(name, "\r\n")] != '\0' || value[strcspn(value, "\r\n")] != '\0')
		return false;
	size = strlen(name) + strlen(value) + 1;
	line = malloc(size);
	if (line == NULL)
		return false;
	snprintf(line, size, "%s%s", name, value);
	headers = curl_slist_append(transfer->headers, line);
	http_wipe_and_free(line, size);
	if (headers == NULL)
		return false;
	transfer->headers = headers;
	return true;
}

static bool
set_headers(HttpTransfer *transfer, const HttpRequest *request)
{
	const char *const *line;

	/* curl's own Expect costs a round trip on bodies over 1 MB. */
	if (!add_header(transfer, "Expect:", ""))
		return false;
	if (request->content_type != NULL && !add_header(transfer, "Content-Type: ", request->content_type))
		return false;
	if (request->bearer != NULL && !add_header(transfer, "Authorization: Bearer ", request->bearer))
		return false;
	for (line = request->headers; line != NULL && *line != NULL; line++)
	{
		if (!add_header(transfer, *line, ""))
			return false;
	}
	return curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers) == CURLE_OK;
}

static bool
set_method(HttpTransfer *transfer, const HttpRequest *request)
{
	CURL *easy = transfer->easy;

	if (transfer->body_fd >= 0)
	{
		if (curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L) != CURLE_OK ||
			curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t) transfer->body_len) != CURLE_OK ||
			curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read) != CURLE_OK ||
			curl_easy_setopt(easy, CURLOPT_READDATA, transfer) != CURLE_OK ||
			curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek) != CURLE_OK ||
			curl_easy_setopt(easy, CURLOPT_SEEKDATA, transfer) != CURLE_OK)
			return false;
	}
	else if (transfer->body != NULL || strcmp(request->method, "POST") == 0)
	{
		if (curl_easy_setopt(easy, CURLOPT_POST, 1L) != CURLE_OK ||
			curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) transfer->body_len) !=
				CURLE_OK ||
			curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->body != NULL ? transfer->body : "") !=
				CURLE_OK)
			return false;
		if (strcmp(request->method, "POST") == 0)
			return true;
	}
	else if (strcmp(request->method, "HEAD") == 0)
		return curl_easy_setopt(easy, CURLOPT_NOBODY, 1L) == CURLE_OK;
	else if (strcmp(request->method, "GET") == 0)
		return curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L) == CURLE_OK;
	return curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method) == CURLE_OK;
}

/* Whom to talk to, and what must hold before a byte is sent. */
static bool
set_security(HttpTransfer *transfer, const HttpRequest *request)
{
	CURL *easy = transfer->easy;

	if (curl_easy_setopt(easy, CURLOPT_URL, transfer->url) != CURLE_OK ||
		curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") != CURLE_OK ||
		curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) != CURLE_OK ||
		curl_easy_setopt(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L) != CURLE_OK ||
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) != CURLE_OK ||
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) != CURLE_OK ||
		curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2) != CURLE_OK)
		return false;

	/* A bundle of one's own replaces the system's, its directory included. */
	if (request->ca_file != NULL && (curl_easy_setopt(easy, CURLOPT_CAINFO, request->ca_file) != CURLE_OK ||
									 curl_easy_setopt(easy, CURLOPT_CAPATH, NULL) != CURLE_OK))
		return false;

	/* The environment's proxy is a DBA's choice, but not for loopback. */
	return !url_is_loopback(transfer->url) || curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK;
}

static bool
set_transport(HttpTransfer *transfer, const HttpRequest *request)
{
	CURL *easy = transfer->easy;
	long connect_timeout =
		request->connect_timeout > 0 ? Min(request->connect_timeout, transfer->timeout) : transfer->timeout;

	/*
	 * One request per connection at a time: with HTTP/2 the loss of a
	 * connection would leave all requests in doubt at once.
	 */
	return curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_timeout) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) transfer->timeout) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_USERAGENT, "sfsync/1.0") == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "") == CURLE_OK &&
		   /* Don't wait for a resolver that hangs when a request is dropped. */
		   curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK;
}

bool
http_transfer_prepare(HttpTransfer *transfer, const HttpRequest *request)
{
	return set_security(transfer, request) && set_transport(transfer, request) &&
		   set_method(transfer, request) && set_headers(transfer, request) &&
		   curl_easy_setopt(transfer->easy, CURLOPT_PREREQFUNCTION, on_before_request) == CURLE_OK &&
		   curl_easy_setopt(transfer->easy, CURLOPT_PREREQDATA, transfer) == CURLE_OK;
}
