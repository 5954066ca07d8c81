/*
 * errors.h
 *		Salesforce's error codes into what to do about them (reference,
 *		section 12; design, section 8).  Pure.
 */
#ifndef SFSYNC_ERRORS_H
#define SFSYNC_ERRORS_H

typedef enum ErrorScope
{
	/* one record */
	SCOPE_RECORD_PERMANENT,  /* dead letter at once */
	SCOPE_RECORD_RETRY,      /* attempts are counted */
	SCOPE_RECORD_PARENT,     /* Foreign key external ID ... not found: wait for it */
	SCOPE_RECORD_GONE,       /* no such record (any more): done for a delete,
								 * create for an update */
	SCOPE_RECORD_COLLATERAL, /* rolled back because of another: send again, free */
	SCOPE_RECORD_NO_ROOM,    /* the org takes no more records; those that it has may be changed */
	/* all records of the mapping alike */
	SCOPE_MAPPING,
	/* the request or the server: back off, records keep their attempts */
	SCOPE_REQUEST, /* this request can't be parsed as it is: bisect */
	SCOPE_SERVER,
	SCOPE_CONCURRENT_LIMIT, /* of long requests at once, or whatever else status 429 says: seconds */
	SCOPE_UNKNOWN_LIMIT,    /* of requests; the text doesn't say which */
	SCOPE_DAILY_LIMIT,
	/* the connection */
	SCOPE_SESSION,   /* token ran out: log in once, repeat */
	SCOPE_CONNECTION /* blocked until an operator acts */
} ErrorScope;

static inline bool
error_is_limit(ErrorScope scope)
{
	return scope >= SCOPE_CONCURRENT_LIMIT && scope <= SCOPE_DAILY_LIMIT;
}

/*
 * Classify an error of a record (http_status 200) or of a whole request.
 * code and message may be NULL (HTML or empty bodies).
 */
extern ErrorScope error_classify(int http_status, const char *code, const char *message);

/* Classify a reply of the token endpoint (section 1.2). */
extern ErrorScope error_classify_oauth(int http_status, const char *error, const char *description);

/* Does the code of an error that may pass say that it was too much at once? */
extern bool error_is_contention(const char *code);

/* Does it say that the org doesn't have the version of the API that was asked (section 12.3)? */
extern bool error_is_version(int http_status, const char *code);

/* hints.c: a sentence on what to do about a code, ours included; never NULL. */
extern const char *error_hint(const char *code);

#endif /* SFSYNC_ERRORS_H */
