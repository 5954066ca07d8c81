/*
 * rest.h
 *		Requests and replies of the REST API: collections, composite, query
 *		(reference, sections 4 to 7).  Pure: text in, text out.
 *
 * All memory is palloc'd in the current context; json-c's own is freed before
 * a function returns.  Parsers bound the depth of what they read and take any
 * bytes.
 */
#ifndef SFSYNC_REST_H
#define SFSYNC_REST_H

#include "field.h"

#define REST_COLLECTION_LIMIT 200 /* records per collection (section 5.1) */

typedef struct RestCall
{
	const char *method; /* a constant */
	char *path;         /* from /services on, encoded */
	char *body;         /* NULL if none */
	size_t body_len;
} RestCall;

typedef struct RestField
{
	const char *name;
	FieldValue value; /* FV_ABSENT is left out */
} RestField;

typedef struct RestRecord
{
	const char *salesforce_id; /* for updates; NULL else */
	const char *external_id;   /* value of the external ID field; NULL: not sent */
	RestField *fields;
	int nfields;
} RestRecord;

/* What Salesforce says of one record, or of a request as a whole. */
typedef struct RestError
{
	char *code;    /* NULL where there was none (HTML, empty) */
	char *message; /* never NULL; bounded, one line */
	char **fields;
	int nfields;
} RestError;

typedef struct RestResult
{
	bool success;
	bool created;    /* false when the reply doesn't tell */
	char *id;        /* 18 characters; NULL on failures */
	RestError error; /* the first, when not success */
} RestResult;

/* PATCH /composite/sobjects/X/Ext (section 5.4); ext_is_number: a number field. */
extern RestCall *rest_upsert(const char *api_version, const char *object, const char *ext_field,
							 bool ext_is_number, const RestRecord *records, int nrecords);

/* PATCH /composite/sobjects by Id (section 5.3); ext_field only where records carry one. */
extern RestCall *rest_update(const char *api_version, const char *object, const char *ext_field,
							 bool ext_is_number, const RestRecord *records, int nrecords);

/* DELETE /composite/sobjects?ids= (section 5.5). */
extern RestCall *rest_delete(const char *api_version, const char *const *ids, int nids);

/*
 * Ids by external ID, as long SOQL inside one composite request (section 5.6):
 * SELECT Id, Ext FROM X WHERE Ext IN (...).  NULL when the keys are too long
 * for one request: ask for half of them.  Keys of a number field that are no
 * numbers are left out, as no record can have them.
 */
extern RestCall *rest_lookup(const char *api_version, const char *object, const char *ext_field,
							 bool ext_is_number, const char *const *keys, int nkeys);

extern RestCall *rest_describe(const char *api_version, const char *object);
extern RestCall *rest_limits(const char *api_version);
extern RestCall *rest_versions(void);

/* The record as JSON text, as sent inside a collection: for dead letters and preview. */
extern char *rest_payload(const char *object, const char *ext_field, bool ext_is_number,
						  const RestRecord *record);

/*
 * Parse the reply of a collection.  Exactly nresults are expected; false, and
 * *error, when the body is anything else (then nothing may be settled).
 */
extern bool rest_parse_results(const char *body, size_t len, int nresults, RestResult *results, char **error);

/* Text of Salesforce as it may stand in logs and views: one line, bounded, valid UTF-8. */
extern char *rest_clean_text(const char *text, size_t len);

/* Parse a request-level error: array or object, OAuth's form, HTML, nothing. */
extern RestError rest_parse_error(int http_status, const char *body, size_t len);

typedef struct RestFound
{
	char *key; /* as Salesforce stores it */
	char *id;
} RestFound;

/*
 * Parse the reply of rest_lookup.  False with *failure set (a sub-request
 * failed; *http_status is its) or with *error set (no such reply, or one that
 * lacks parts of the answer).  A next page is returned as *next (a path), NULL
 * if all is there; its reply, a plain query's, is parsed here too.  Keys that
 * come as JSON numbers are told as plain digits.
 */
extern bool rest_parse_lookup(const char *body, size_t len, const char *ext_field, RestFound **found,
							  int *nfound, char **next, RestError *failure, int *http_status, char **error);

/* Sforce-Limit-Info (section 2.3): the org-wide usage. */
extern bool rest_parse_limit_info(const char *header, int64 *used, int64 *limit);

/* DailyApiRequests of /limits (section 2.2). */
extern bool rest_parse_limits(const char *body, size_t len, int64 *used, int64 *limit);

/* Is the version (like "66.0") among those listed (section 2.1)? *newest is palloc'd. */
extern bool rest_parse_versions(const char *body, size_t len, const char *version, char **newest);

/* The Id in its 18-character form (section 3.5); NULL if it is no Id. */
extern char *rest_id18(const char *id);

/* A blank to Salesforce, which trims them. */
extern bool rest_is_blank(char c);

/*
 * A key of a number field in its one form: plain digits (trap 20).  NULL if it
 * is no number.
 */
extern char *rest_number_key(const char *key);

/*
 * The form in which Salesforce compares external IDs (trap 17): blanks
 * trimmed, case folded unless the field is case-sensitive.
 */
extern char *rest_record_key(const char *key, bool case_sensitive);

/*
 * A number, exponent or not, as plain digits: [-]digits[.digits], the integer
 * part without leading zeros, the fraction as it was.  NULL if it is none.
 */
extern char *rest_plain_number(const char *text);

/*
 * The whole text as one JSON value of bounded depth, valid UTF-8, nothing
 * behind it; NULL if it is anything else.  Free with json_object_put.
 */
struct json_object;
extern struct json_object *rest_parse_json(const char *text, size_t len);

#endif /* SFSYNC_REST_H */
