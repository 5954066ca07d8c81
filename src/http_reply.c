/*
 * http_reply.c
 *		What comes back for a request: the reply's headers and body, within
 *		bounds, or a sentence on why there is none.
 */
#include "compat.h"

#include <time.h>
#include <unistd.h>

#include "http_internal.h"

#define HTTP_MAX_HEADER ((size_t) 256 * 1024) /* all headers of a reply */
#define HTTP_MAX_HEADER_VALUE 1024            /* of a header that is kept */
#define HTTP_MAX_RETRY_AFTER (7 * 24 * 60 * 60)
#define HTTP_FIRST_BUFFER ((size_t) 16 * 1024)

void
http_wipe_and_free(char *text, size_t len)
{
	if (text == NULL)
		return;
	explicit_bzero(text, len);
	free(text);
}

void
http_reply_free(HttpReply *reply)
{
	if (reply == NULL)
		return;
	/* The body may be a token reply. */
	http_wipe_and_free(reply->body, reply->body_len);
	free(reply->error);
	free(reply->limit_info);
	free(reply->request_id);
	free(reply->content_type);
	free(reply->last_modified);
	free(reply->locator);
	free(reply->resolved_ip);
	free(reply);
}

/* ----------------------------------------------------------------
 * The body
 * ----------------------------------------------------------------
 */

static bool
reserve_body(HttpTransfer *transfer, size_t needed)
{
	size_t size = Max(transfer->body_size, HTTP_FIRST_BUFFER);
	char *grown;

	if (needed <= transfer->body_size)
		return true;
	while (size < needed)
		size *= 2;
	grown = realloc(transfer->reply->body, size);
	if (grown == NULL)
	{
		transfer->no_memory = true;
		return false;
	}
	transfer->reply->body = grown;
	transfer->body_size = size;
	return true;
}

static bool
write_body(HttpTransfer *transfer, const char *data, size_t len)
{
	while (len > 0)
	{
		ssize_t n = pwrite(transfer->reply_fd, data, len, (off_t) transfer->reply->body_len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			transfer->file_errno = n < 0 ? errno : ENOSPC;
			return false;
		}
		transfer->reply->body_len += n;
		data += n;
		len -= n;
	}
	return true;
}

/* Errors stay in memory, where they are read from. */
static bool
goes_to_file(HttpTransfer *transfer)
{
	long status = 0;

	if (transfer->reply_fd < 0)
		return false;
	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	return status == 200;
}

/* Called with decompressed bytes, so the bound holds for those. */
static size_t
on_body(char *data, size_t size, size_t nmemb, void *arg)
{
	HttpTransfer *transfer = arg;
	HttpReply *reply = transfer->reply;
	size_t len = size * nmemb;

	if (len > transfer->max_reply - reply->body_len)
	{
		transfer->too_large = true;
		return CURL_WRITEFUNC_ERROR;
	}
	if (goes_to_file(transfer))
		return write_body(transfer, data, len) ? len : CURL_WRITEFUNC_ERROR;
	if (!reserve_body(transfer, reply->body_len + len + 1))
		return CURL_WRITEFUNC_ERROR;
	memcpy(reply->body + reply->body_len, data, len);
	reply->body_len += len;
	reply->body[reply->body_len] = '\0';
	return len;
}

/* ----------------------------------------------------------------
 * Headers
 * ----------------------------------------------------------------
 */

/*
 * If the line is the named header, replace *value by its value: trimmed,
 * bounded, and printable ASCII, as it ends up in tables and messages.
 */
static bool
take_header(const char *line, size_t len, const char *name, char **value)
{
	size_t name_len = strlen(name);
	size_t i;
	char *copy;

	if (len <= name_len || line[name_len] != ':' || pg_strncasecmp(line, name, name_len) != 0)
		return false;
	line += name_len + 1;
	len -= name_len + 1;
	while (len > 0 && (*line == ' ' || *line == '\t'))
	{
		line++;
		len--;
	}
	while (len > 0 && strchr(" \t\r\n", line[len - 1]) != NULL)
		len--;
	len = Min(len, HTTP_MAX_HEADER_VALUE);
	copy = malloc(len + 1);
	if (copy == NULL)
		return true;
	for (i = 0; i < len; i++)
		copy[i] = line[i] >= 0x20 && line[i] < 0x7f ? line[i] : '?';
	copy[len] = '\0';
	free(*value);
	*value = copy;
	return true;
}

static void
forget_headers(HttpTransfer *transfer)
{
	HttpReply *reply = transfer->reply;

	free(reply->limit_info);
	free(reply->request_id);
	free(reply->content_type);
	free(reply->last_modified);
	free(reply->locator);
	free(transfer->retry_after);
	reply->limit_info = reply->request_id = reply->locator = NULL;
	reply->content_type = reply->last_modified = NULL;
	transfer->retry_after = NULL;
	reply->server_date = 0;
}

static size_t
on_header(char *line, size_t size, size_t nmemb, void *arg)
{
	HttpTransfer *transfer = arg;
	HttpReply *reply = transfer->reply;
	size_t len = size * nmemb;
	char *date = NULL;

	transfer->header_bytes += len;
	if (transfer->header_bytes > HTTP_MAX_HEADER)
	{
		transfer->too_large = true;
		return 0;
	}

	/* A status line: whatever came before was an interim or a proxy's reply. */
	if (len >= 5 && memcmp(line, "HTTP/", 5) == 0)
		forget_headers(transfer);
	else if (reply->body_len > 0)
		return len; /* a trailer */
	else if (take_header(line, len, "Date", &date))
	{
		time_t when = date == NULL ? -1 : curl_getdate(date, NULL);

		reply->server_date = when > 0 ? when : 0;
		free(date);
	}
	else if (!take_header(line, len, "Retry-After", &transfer->retry_after) &&
			 !take_header(line, len, "Sforce-Limit-Info", &reply->limit_info) &&
			 !take_header(line, len, "X-Sfdc-Request-Id", &reply->request_id) &&
			 !take_header(line, len, "Sforce-Locator", &reply->locator) &&
			 !take_header(line, len, "Content-Type", &reply->content_type))
		(void) take_header(line, len, "Last-Modified", &reply->last_modified);
	return len;
}

/* Seconds, or a date that the server's own clock is held against. */
static int
parse_retry_after(const char *value, int64 server_date)
{
	char *end;
	int64 seconds;

	if (value == NULL)
		return -1;
	if (value[0] >= '0' && value[0] <= '9')
	{
		errno = 0;
		seconds = strtoll(value, &end, 10);
		if (*end == '\0' && errno == 0)
			return (int) Min(seconds, HTTP_MAX_RETRY_AFTER);
	}
	seconds = curl_getdate(value, NULL);
	if (seconds < 0)
		return -1;
	seconds -= server_date > 0 ? server_date : (int64) time(NULL);
	return (int) Min(Max(seconds, 0), HTTP_MAX_RETRY_AFTER);
}

bool
http_reply_prepare(HttpTransfer *transfer)
{
	CURL *easy = transfer->easy;

	return curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->curl_error) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer) == CURLE_OK;
}

/* ----------------------------------------------------------------
 * Failures
 * ----------------------------------------------------------------
 */

static bool
is_tls_failure(CURLcode code)
{
	switch (code)
	{
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_INVALIDCERTSTATUS:
		case CURLE_SSL_ENGINE_NOTFOUND:
		case CURLE_SSL_ENGINE_SETFAILED:
		case CURLE_SSL_ENGINE_INITFAILED:
		case CURLE_SSL_CRL_BADFILE:
		case CURLE_USE_SSL_FAILED:
			return true;
		default:
			return false;
	}
}

/* curl's own words where it has some; they may quote the peer's bytes. */
static const char *
curl_reason(HttpTransfer *transfer, CURLcode code)
{
	char *c;

	if (transfer->curl_error[0] == '\0')
		return curl_easy_strerror(code);
	for (c = transfer->curl_error; *c != '\0'; c++)
	{
		if (*c < 0x20 || *c >= 0x7f)
			*c = *c == '\n' && c[1] == '\0' ? '\0' : '?';
	}
	return transfer->curl_error;
}

/*
 * The host and port of a URL, for messages; not zero-terminated.  What stands
 * before an @ may be a password.
 */
static const char *
url_host(const char *url, int *len)
{
	const char *host = strstr(url, "://");
	size_t authority;
	const char *at;

	host = host == NULL ? url : host + 3;
	authority = strcspn(host, "/?#");
	while ((at = memchr(host, '@', authority)) != NULL)
	{
		authority -= at + 1 - host;
		host = at + 1;
	}
	*len = (int) Min(authority, 200);
	return host;
}

static void
describe_failure(HttpTransfer *transfer, CURLcode code)
{
	char *error = transfer->reply->error;
	HttpReply *reply = transfer->reply;
	long os_errno = 0;
	int len;
	const char *host = url_host(transfer->url, &len);

	curl_easy_getinfo(transfer->easy, CURLINFO_OS_ERRNO, &os_errno);
	if (transfer->no_memory || code == CURLE_OUT_OF_MEMORY)
		snprintf(error, HTTP_ERROR_SIZE, "out of memory while talking to %.*s", len, host);
	else if (transfer->file_errno != 0)
		snprintf(error, HTTP_ERROR_SIZE, "a temporary file failed while talking to %.*s: %s", len, host,
				 strerror(transfer->file_errno));
	else if (reply->outcome == HTTP_TOO_LARGE)
		snprintf(error, HTTP_ERROR_SIZE, "the reply of %.*s is larger than %zu bytes", len, host,
				 reply->body_len == 0 ? HTTP_MAX_HEADER : transfer->max_reply);
	else if (code == CURLE_COULDNT_RESOLVE_HOST)
		snprintf(error, HTTP_ERROR_SIZE, "could not resolve the host name of %.*s", len, host);
	else if (code == CURLE_COULDNT_RESOLVE_PROXY)
		snprintf(error, HTTP_ERROR_SIZE, "could not resolve the host name of the proxy");
	else if (code == CURLE_OPERATION_TIMEDOUT && transfer->sent)
		snprintf(error, HTTP_ERROR_SIZE, "no complete reply from %.*s within %d ms", len, host,
				 transfer->timeout);
	else if (code == CURLE_OPERATION_TIMEDOUT)
		snprintf(error, HTTP_ERROR_SIZE, "timed out while connecting to %.*s", len, host);
	else if (transfer->repeated)
		snprintf(error, HTTP_ERROR_SIZE, "the connection to %.*s ended without a reply", len, host);
	else if (transfer->sent)
		snprintf(error, HTTP_ERROR_SIZE, "lost the connection to %.*s before the reply was complete: %s", len,
				 host, curl_reason(transfer, code));
	else if (reply->tls_failed)
		snprintf(error, HTTP_ERROR_SIZE, "could not establish TLS with %.*s: %s", len, host,
				 curl_reason(transfer, code));
	else if (code == CURLE_COULDNT_CONNECT && os_errno != 0)
		snprintf(error, HTTP_ERROR_SIZE, "could not connect to %.*s: %s", len, host,
				 strerror((int) os_errno));
	else
		snprintf(error, HTTP_ERROR_SIZE, "could not send the request to %.*s: %s", len, host,
				 curl_reason(transfer, code));
}

void
http_reply_complete(HttpTransfer *transfer, CURLcode code)
{
	HttpReply *reply = transfer->reply;
	curl_off_t elapsed = 0;
	char *ip = NULL;
	long status = 0;

	curl_easy_getinfo(transfer->easy, CURLINFO_TOTAL_TIME_T, &elapsed);
	curl_easy_getinfo(transfer->easy, CURLINFO_PRIMARY_IP, &ip);
	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	reply->elapsed = elapsed;
	reply->resent = transfer->resent;
	reply->status = (int) status;
	reply->resolved_ip = ip != NULL && ip[0] != '\0' ? strdup(ip) : NULL;
	reply->retry_after = parse_retry_after(transfer->retry_after, reply->server_date);

	if (code == CURLE_OK)
		reply->outcome = HTTP_REPLIED;
	else if (transfer->too_large)
		reply->outcome = HTTP_TOO_LARGE;
	else
		reply->outcome = transfer->sent ? HTTP_LOST : HTTP_NOT_SENT;

	if (reply->outcome == HTTP_REPLIED)
	{
		free(reply->error);
		reply->error = NULL;
	}
	else
	{
		reply->tls_failed = !transfer->sent && is_tls_failure(code);
		reply->timed_out = code == CURLE_OPERATION_TIMEDOUT;
		describe_failure(transfer, code);
	}
}

void
http_reply_refuse(HttpTransfer *transfer, const char *reason)
{
	int len;
	const char *host = url_host(transfer->url, &len);

	transfer->reply->outcome = HTTP_NOT_SENT;
	snprintf(transfer->reply->error, HTTP_ERROR_SIZE, "request to %.*s refused: %s", len, host, reason);
}
