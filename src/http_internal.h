/*
 * http_internal.h
 *		One request of libcurl's, from its making to its reply: for the files
 *		of the HTTP client.  Others include http.h.
 *
 * http.c has the client, http_request.c says what is asked and how,
 * http_reply.c takes what comes back.  Nothing here throws.
 */
#ifndef SFSYNC_HTTP_INTERNAL_H
#define SFSYNC_HTTP_INTERNAL_H

#include <time.h>

#include <curl/curl.h>

#include "http.h"

typedef struct HttpTransfer
{
	struct HttpTransfer *prev;
	struct HttpTransfer *next;
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

/*
 * http_request.c
 */

/* Take over what the request holds; NULL when out of memory or descriptors. */
extern HttpTransfer *http_transfer_create(const HttpRequest *request);

/* Its handle must have been given back. */
extern void http_transfer_free(HttpTransfer *transfer);

/* Tell its handle what to ask.  False when out of memory, or a header can't be sent. */
extern bool http_transfer_prepare(HttpTransfer *transfer, const HttpRequest *request);

/* Why a URL may not be asked (a constant); NULL if it may. */
extern const char *http_request_refused(const char *url);

/*
 * http_reply.c
 */

/* Tell its handle where the reply goes. */
extern bool http_reply_prepare(HttpTransfer *transfer);

/* libcurl is done with it: complete the reply. */
extern void http_reply_complete(HttpTransfer *transfer, CURLcode code);

/* It may not be asked: complete the reply. */
extern void http_reply_refuse(HttpTransfer *transfer, const char *reason);

/* What may hold a token or a secret. */
extern void http_wipe_and_free(char *text, size_t len);

/* Room for the sentence of a failure, which is made with the transfer: there may be none when it is needed. */
#define HTTP_ERROR_SIZE 512

#endif /* SFSYNC_HTTP_INTERNAL_H */
