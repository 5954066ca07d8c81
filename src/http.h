/*
 * http.h
 *		libcurl behind submit, wait on one descriptor, collect.  No other
 *		module includes curl.  Errors are values: nothing here throws but
 *		http_perform, which checks for interrupts.
 */
#ifndef SFSYNC_HTTP_H
#define SFSYNC_HTTP_H

typedef struct HttpClient HttpClient;

typedef struct HttpRequest
{
	const char *method;
	const char *url;
	const char *bearer;       /* token for Authorization; NULL: none */
	const char *content_type; /* NULL: no body */
	const char *body;         /* copied */
	size_t body_len;
	int body_fd;  /* 0 none; body_len bytes from the start of this file, in place of body */
	int reply_fd; /* 0 none; where the body of a reply with status 200 is written, from the start */
	const char *const *headers; /* further "Name: value" lines, NULL-terminated; may be NULL */
	const char *ca_file;        /* NULL: the system's */
	int connect_timeout;        /* ms */
	int timeout;                /* ms, whole request */
	size_t max_reply;           /* bytes; more is HTTP_TOO_LARGE */
	void *tag;                  /* comes back with the reply */
} HttpRequest;

/* Descriptors are duplicated: they need to stay open during http_submit only. */

typedef enum HttpOutcome
{
	HTTP_REPLIED,  /* a whole reply: look at status */
	HTTP_NOT_SENT, /* resolve, connect, TLS failed: nothing can have been applied */
	HTTP_LOST,     /* cut or timed out after sending began: unknown whether applied */
	HTTP_TOO_LARGE /* reply over max_reply: applied or not, unknown */
} HttpOutcome;

typedef struct HttpReply
{
	void *tag;
	HttpOutcome outcome;
	int status;
	char *body; /* zero-terminated; may be NULL; so is one that went to a file */
	size_t body_len;
	char *error;     /* sentence for users where outcome is not HTTP_REPLIED */
	bool tls_failed; /* certificate or handshake */
	bool timed_out;
	bool resent;   /* by libcurl: the reply is that to the second time, the first may have been carried out */
	int64 elapsed; /* microseconds */
	int64 server_date; /* Date header, seconds since the epoch; 0 if absent */
	int retry_after;   /* seconds; -1 if absent */
	char *limit_info;  /* Sforce-Limit-Info; NULL if absent */
	char *request_id;  /* X-Sfdc-Request-Id; NULL if absent */
	char *content_type;
	char *last_modified;
	char *locator;     /* Sforce-Locator: of the next page of a bulk job's results */
	char *resolved_ip; /* address talked to; NULL if none */
} HttpReply;

/* Memory is libc's (malloc), freed by http_reply_free: it outlives contexts. */

/* NULL when out of memory or descriptors. */
extern HttpClient *http_create(void);

/* Closes connections and drops requests in flight without a reply. */
extern void http_destroy(HttpClient *client);

/* Start a request.  False when it can't even be started (out of memory). */
extern bool http_submit(HttpClient *client, const HttpRequest *request);

/* The one descriptor to wait on for reading: sockets and timer of all requests. */
extern int http_wait_fd(HttpClient *client);

/* Let libcurl do what it can now; never blocks. */
extern void http_pump(HttpClient *client);

/* A finished request, or NULL.  Free it with http_reply_free. */
extern HttpReply *http_collect(HttpClient *client);
extern void http_reply_free(HttpReply *reply);

/* Requests that were submitted and whose replies are not collected. */
extern int http_in_flight(HttpClient *client);

/*
 * Submit and wait, for foreground use.  Waits on the latch too and calls
 * CHECK_FOR_INTERRUPTS, so it throws when cancelled; the client must then be
 * destroyed by its owner (a memory context callback or PG_FINALLY).
 */
extern HttpReply *http_perform(HttpClient *client, const HttpRequest *request);

#endif /* SFSYNC_HTTP_H */
