/*
 * http.c
 *		libcurl behind submit, wait on one descriptor, collect.
 *
 * One epoll descriptor holds libcurl's sockets, a timerfd with libcurl's next
 * deadline and an eventfd for replies that are known without the network; the
 * caller waits on that one descriptor together with its latch.
 *
 * Nothing here throws, except http_perform when it is cancelled: an error that
 * longjmps through libcurl's frames leaves its handles in an undefined state.
 * Callbacks record what went wrong and return failure.
 */
#include "compat.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <curl/curl.h>

#ifndef FRONTEND
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/wait_event.h"
#endif

#include "http.h"
#include "url.h"

#define HTTP_DEFAULT_MAX_REPLY ((size_t) 64 * 1024 * 1024)
#define HTTP_DEFAULT_TIMEOUT (10 * 60 * 1000) /* ms */
#define HTTP_MAX_HEADER ((size_t) 256 * 1024) /* all headers of a reply */
#define HTTP_MAX_HEADER_VALUE 1024            /* of a header that is kept */
#define HTTP_MAX_RETRY_AFTER (7 * 24 * 60 * 60)
#define HTTP_FIRST_BUFFER ((size_t) 16 * 1024)
#define HTTP_ERROR_SIZE 512
#define HTTP_POOL_SIZE 8
#define HTTP_EVENTS 32

typedef struct HttpTransfer
{
	struct HttpTransfer *prev;
	struct HttpTransfer *next;
	HttpClient *client;
	CURL *easy; /* NULL when the request was refused at once */
	struct curl_slist *headers;
	char *url;
	char *body;
	size_t body_len;
	int body_fd; /* in place of body; -1 none */
	size_t body_sent;
	int reply_fd;     /* for the reply's body; -1 none */
	int file_errno;   /* of either; 0 none */
	size_t body_size; /* allocated for the reply's body */
	size_t max_reply;
	size_t header_bytes;
	int timeout;
	bool sent;   /* sending may have begun */
	bool resent; /* and once more */
	struct timespec sent_at;
	bool reads;    /* may be sent any number of times */
	bool repeated; /* would have been, after a pause */
	bool too_large;
	bool no_memory;
	char *retry_after; /* as received: needs Date, which may follow */
	HttpReply *reply;  /* under construction */
	char curl_error[CURL_ERROR_SIZE];
} HttpTransfer;

struct HttpClient
{
	CURLM *multi;
	int epoll_fd;
	int timer_fd;
	int event_fd;
	bool broken; /* epoll refused a socket */
	HttpTransfer *active;
	HttpTransfer *done; /* finished, oldest first */
	HttpTransfer *done_last;
	int in_flight; /* submitted and not collected */
	CURL *pool[HTTP_POOL_SIZE];
	int npool;
};

/*
 * libcurl's resolver runs in threads.  A thread inherits the signal mask of
 * the moment it is made, so with all signals blocked around libcurl it never
 * takes one that is meant for the server process.
 */
static void
block_signals(sigset_t *saved)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
}

static void
restore_signals(const sigset_t *saved)
{
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

/* ----------------------------------------------------------------
 * What libcurl asks of the descriptor
 * ----------------------------------------------------------------
 */

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	HttpClient *client = arg;
	struct epoll_event event = {0};
	int rc;

	if (what == CURL_POLL_REMOVE)
	{
		/* A closed descriptor has left the set by itself. */
		epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}

	event.data.fd = fd;
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;

	rc = epoll_ctl(client->epoll_fd, EPOLL_CTL_MOD, fd, &event);
	if (rc < 0 && errno == ENOENT)
		rc = epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event);
	if (rc < 0)
	{
		client->broken = true;
		return -1;
	}
	return 0;
}

static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	HttpClient *client = arg;
	struct itimerspec spec = {{0}};

	/* All zeroes disarm, so "at once" is one nanosecond. */
	if (timeout_ms == 0)
		spec.it_value.tv_nsec = 1;
	else if (timeout_ms > 0)
	{
		spec.it_value.tv_sec = timeout_ms / 1000;
		spec.it_value.tv_nsec = (timeout_ms % 1000) * 1000000L;
	}
	if (timerfd_settime(client->timer_fd, 0, &spec, NULL) < 0)
	{
		client->broken = true;
		return -1;
	}
	return 0;
}

/* ----------------------------------------------------------------
 * What libcurl tells of a request
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

/* ----------------------------------------------------------------
 * Transfers
 * ----------------------------------------------------------------
 */

static void
wipe_and_free(char *text, size_t len)
{
	if (text == NULL)
		return;
	explicit_bzero(text, len);
	free(text);
}

/* Header lines hold the access token. */
static void
free_headers(struct curl_slist *headers)
{
	struct curl_slist *line;

	for (line = headers; line != NULL; line = line->next)
		explicit_bzero(line->data, strlen(line->data));
	curl_slist_free_all(headers);
}

static void
transfer_free(HttpTransfer *transfer)
{
	if (transfer == NULL)
		return;
	free_headers(transfer->headers);
	wipe_and_free(transfer->body, transfer->body_len);
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

static HttpTransfer *
transfer_create(HttpClient *client, const HttpRequest *request)
{
	HttpTransfer *transfer = calloc(1, sizeof(HttpTransfer));

	if (transfer == NULL)
		return NULL;
	transfer->client = client;
	transfer->body_fd = transfer->reply_fd = -1;
	transfer->max_reply = request->max_reply > 0 ? request->max_reply : HTTP_DEFAULT_MAX_REPLY;
	transfer->timeout = request->timeout > 0 ? request->timeout : HTTP_DEFAULT_TIMEOUT;
	transfer->reads = strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0;
	transfer->url = strdup(request->url);
	transfer->reply = calloc(1, sizeof(HttpReply));
	if (transfer->url == NULL || transfer->reply == NULL)
	{
		transfer_free(transfer);
		return NULL;
	}
	transfer->reply->tag = request->tag;
	transfer->reply->retry_after = -1;
	/* Room for the sentence now: there may be none when it is needed. */
	transfer->reply->error = calloc(1, HTTP_ERROR_SIZE);
	if (transfer->reply->error == NULL || !take_body(transfer, request) || !take_reply_fd(transfer, request))
	{
		transfer_free(transfer);
		return NULL;
	}
	return transfer;
}

static void
activate(HttpClient *client, HttpTransfer *transfer)
{
	transfer->prev = NULL;
	transfer->next = client->active;
	if (client->active != NULL)
		client->active->prev = transfer;
	client->active = transfer;
}

static void
deactivate(HttpClient *client, HttpTransfer *transfer)
{
	if (transfer->prev != NULL)
		transfer->prev->next = transfer->next;
	else
		client->active = transfer->next;
	if (transfer->next != NULL)
		transfer->next->prev = transfer->prev;
	transfer->prev = transfer->next = NULL;
}

static void
append_done(HttpClient *client, HttpTransfer *transfer)
{
	transfer->next = NULL;
	if (client->done_last != NULL)
		client->done_last->next = transfer;
	else
		client->done = transfer;
	client->done_last = transfer;
}

/* ----------------------------------------------------------------
 * Setting up a request
 * ----------------------------------------------------------------
 */

/* The scheme, host and path of a URL held to url_refused; a query is ours. */
static const char *
request_refused(const char *url)
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
	wipe_and_free(line, size);
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

static bool
set_callbacks(HttpTransfer *transfer)
{
	CURL *easy = transfer->easy;

	return curl_easy_setopt(easy, CURLOPT_PRIVATE, (char *) transfer) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->curl_error) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_before_request) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer) == CURLE_OK;
}

/* A handle that was used before keeps TLS sessions; connections are the multi's. */
static CURL *
take_handle(HttpClient *client)
{
	if (client->npool > 0)
		return client->pool[--client->npool];
	return curl_easy_init();
}

static void
give_handle(HttpClient *client, CURL *easy)
{
	if (easy == NULL)
		return;
	if (client->npool == HTTP_POOL_SIZE)
		curl_easy_cleanup(easy);
	else
	{
		curl_easy_reset(easy);
		client->pool[client->npool++] = easy;
	}
}

/* ----------------------------------------------------------------
 * Finishing a request
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

static void
finish(HttpClient *client, HttpTransfer *transfer, CURLcode code)
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

	curl_multi_remove_handle(client->multi, transfer->easy);
	give_handle(client, transfer->easy);
	transfer->easy = NULL;
	deactivate(client, transfer);
	append_done(client, transfer);
}

static void
finish_completed(HttpClient *client)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(client->multi, &left)) != NULL)
	{
		char *arg = NULL;
		CURL *easy = message->easy_handle;
		CURLcode code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, &arg);
		finish(client, (HttpTransfer *) arg, code);
	}
}

/* ----------------------------------------------------------------
 * The interface
 * ----------------------------------------------------------------
 */

/* Once in a process, and never in the postmaster, whose children would share it. */
static bool
initialize_curl(void)
{
	static bool initialized = false;
	sigset_t saved;

	if (!initialized)
	{
		block_signals(&saved);
		initialized = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
		restore_signals(&saved);
	}
	return initialized;
}

static bool
watch(HttpClient *client, int fd)
{
	struct epoll_event event = {0};

	event.events = EPOLLIN;
	event.data.fd = fd;
	return fd >= 0 && epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

HttpClient *
http_create(void)
{
	HttpClient *client;

	if (!initialize_curl())
		return NULL;
	client = calloc(1, sizeof(HttpClient));
	if (client == NULL)
		return NULL;
	client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	client->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	client->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	client->multi = curl_multi_init();
	if (client->epoll_fd < 0 || client->multi == NULL || !watch(client, client->timer_fd) ||
		!watch(client, client->event_fd) ||
		curl_multi_setopt(client->multi, CURLMOPT_SOCKETFUNCTION, on_socket) != CURLM_OK ||
		curl_multi_setopt(client->multi, CURLMOPT_SOCKETDATA, client) != CURLM_OK ||
		curl_multi_setopt(client->multi, CURLMOPT_TIMERFUNCTION, on_timer) != CURLM_OK ||
		curl_multi_setopt(client->multi, CURLMOPT_TIMERDATA, client) != CURLM_OK)
	{
		http_destroy(client);
		return NULL;
	}
	return client;
}

void
http_destroy(HttpClient *client)
{
	HttpTransfer *transfer;
	sigset_t saved;

	if (client == NULL)
		return;
	block_signals(&saved);
	while ((transfer = client->active) != NULL)
	{
		deactivate(client, transfer);
		curl_multi_remove_handle(client->multi, transfer->easy);
		curl_easy_cleanup(transfer->easy);
		transfer_free(transfer);
	}
	while ((transfer = client->done) != NULL)
	{
		client->done = transfer->next;
		transfer_free(transfer);
	}
	while (client->npool > 0)
		curl_easy_cleanup(client->pool[--client->npool]);
	if (client->multi != NULL)
		curl_multi_cleanup(client->multi);
	restore_signals(&saved);
	if (client->timer_fd >= 0)
		close(client->timer_fd);
	if (client->event_fd >= 0)
		close(client->event_fd);
	if (client->epoll_fd >= 0)
		close(client->epoll_fd);
	free(client);
}

/* A reply known without the network still has to end the caller's wait. */
static void
refuse(HttpClient *client, HttpTransfer *transfer, const char *reason)
{
	uint64 one = 1;
	int len;
	const char *host = url_host(transfer->url, &len);

	transfer->reply->outcome = HTTP_NOT_SENT;
	snprintf(transfer->reply->error, HTTP_ERROR_SIZE, "request to %.*s refused: %s", len, host, reason);
	append_done(client, transfer);
	client->in_flight++;
	if (write(client->event_fd, &one, sizeof(one)) < 0)
		client->broken = true;
}

bool
http_submit(HttpClient *client, const HttpRequest *request)
{
	HttpTransfer *transfer = transfer_create(client, request);
	const char *reason;
	sigset_t saved;
	bool started;

	if (transfer == NULL)
		return false;
	reason = request_refused(request->url);
	if (reason != NULL)
	{
		refuse(client, transfer, reason);
		return true;
	}

	block_signals(&saved);
	transfer->easy = take_handle(client);
	started = transfer->easy != NULL && set_security(transfer, request) && set_transport(transfer, request) &&
			  set_method(transfer, request) && set_headers(transfer, request) && set_callbacks(transfer) &&
			  curl_multi_add_handle(client->multi, transfer->easy) == CURLM_OK;
	if (!started)
		give_handle(client, transfer->easy);
	restore_signals(&saved);

	if (!started)
	{
		transfer_free(transfer);
		return false;
	}
	activate(client, transfer);
	client->in_flight++;
	return true;
}

int
http_wait_fd(HttpClient *client)
{
	return client->epoll_fd;
}

static void
drain(int fd)
{
	uint64 count;

	if (read(fd, &count, sizeof(count)) < 0)
		return; /* not due, or due again soon */
}

static void
handle_event(HttpClient *client, const struct epoll_event *event)
{
	int fd = event->data.fd;
	int running;
	int mask = 0;

	if (fd == client->event_fd)
	{
		drain(fd);
		return;
	}
	if (fd == client->timer_fd)
	{
		drain(fd);
		curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
		return;
	}
	if (event->events & EPOLLIN)
		mask |= CURL_CSELECT_IN;
	if (event->events & EPOLLOUT)
		mask |= CURL_CSELECT_OUT;
	if (event->events & (EPOLLERR | EPOLLHUP))
		mask |= CURL_CSELECT_ERR;
	curl_multi_socket_action(client->multi, fd, mask, &running);
}

/*
 * Without its descriptor a request would hang for ever: poll all of them.
 * Happens only when the kernel refuses (out of memory or of watches).
 */
static void
pump_broken(HttpClient *client)
{
	struct itimerspec spec = {{0}};
	int running;

	client->broken = false;
	curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	spec.it_value.tv_nsec = 100 * 1000 * 1000L;
	if (client->broken)
		timerfd_settime(client->timer_fd, 0, &spec, NULL);
}

void
http_pump(HttpClient *client)
{
	struct epoll_event events[HTTP_EVENTS];
	sigset_t saved;
	int n;
	int i;

	block_signals(&saved);
	n = epoll_wait(client->epoll_fd, events, HTTP_EVENTS, 0);
	for (i = 0; i < n; i++)
		handle_event(client, &events[i]);
	if (client->broken)
		pump_broken(client);
	finish_completed(client);
	restore_signals(&saved);
}

HttpReply *
http_collect(HttpClient *client)
{
	HttpTransfer *transfer = client->done;
	HttpReply *reply;

	if (transfer == NULL)
		return NULL;
	client->done = transfer->next;
	if (client->done == NULL)
		client->done_last = NULL;
	client->in_flight--;
	reply = transfer->reply;
	transfer->reply = NULL;
	transfer_free(transfer);
	return reply;
}

void
http_reply_free(HttpReply *reply)
{
	if (reply == NULL)
		return;
	/* The body may be a token reply. */
	wipe_and_free(reply->body, reply->body_len);
	free(reply->error);
	free(reply->limit_info);
	free(reply->request_id);
	free(reply->content_type);
	free(reply->last_modified);
	free(reply->locator);
	free(reply->resolved_ip);
	free(reply);
}

int
http_in_flight(HttpClient *client)
{
	return client->in_flight;
}

#ifndef FRONTEND
HttpReply *
http_perform(HttpClient *client, const HttpRequest *request)
{
	static uint32 wait_event = 0;
	HttpReply *reply;

	if (wait_event == 0)
		wait_event = NAMED_WAIT_EVENT("SfsyncSalesforce");
	if (!http_submit(client, request))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not start a request to Salesforce"),
						errdetail("Out of memory.")));
	while ((reply = http_collect(client)) == NULL)
	{
		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH,
								 http_wait_fd(client), -1, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		http_pump(client);
	}
	return reply;
}
#endif
