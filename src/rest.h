/*
 * rest.h
 *		Requests and replies of the REST API: collections, composite, query
 *		(reference, sections 4 to 7).  Pure: text in, text out.
 *
 * rest.c has the requests that write, rest_reply.c their replies; rest_query.c
 * those that read, rest_read.c their replies; rest_form.c has the forms of
 * numbers, Ids, keys and times.
 * A time is in microseconds since 2000-01-01 UTC, like TimestampTz.
 *
 * All memory is palloc'd in the current context; json-c's own is freed before
 * a function returns.  Parsers bound the depth of what they read and take any
 * bytes.
 */
#ifndef SFSYNC_REST_H
#define SFSYNC_REST_H

#include "field.h"

#define REST_COLLECTION_LIMIT 200 /* records per collection (section 5.1) */
#define REST_RETRIEVE_LIMIT 2000  /* Ids per retrieve (section 5.6) */
#define REST_PACK_LIMIT 5         /* collections per composite request (section 6) */
#define REST_COMPOSITE_LIMIT 25   /* parts of a composite request (section 6) */

typedef struct RestCall
{
	const char *method; /* a constant */
	char *path;         /* from /services on, encoded */
	char *body;         /* NULL if none */
	size_t body_len;
	int taken; /* those that read: for how many of the keys or Ids it asks, from the first */
} RestCall;

/* An object, and the field by which its records are known outside. */
typedef struct RestTarget
{
	const char *object;
	const char *key_field; /* external ID; NULL: none is sent */
	bool key_is_number;    /* a number field */
} RestTarget;

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

	/*
	 * 200 in collections, else the status of the record's own part.  Without a
	 * code the status is all that tells what failed.
	 */
	int http_status;
} RestResult;

/* POST /composite/sobjects (section 5.2): creates, and never updates. */
extern RestCall *rest_create(const char *api_version, const RestTarget *target, const RestRecord *records,
							 int nrecords);

/* PATCH /composite/sobjects/X/Ext (section 5.4). */
extern RestCall *rest_upsert(const char *api_version, const RestTarget *target, const RestRecord *records,
							 int nrecords);

/* PATCH /composite/sobjects by Id (section 5.3); the key field only where records carry one. */
extern RestCall *rest_update(const char *api_version, const RestTarget *target, const RestRecord *records,
							 int nrecords);

/* DELETE /composite/sobjects?ids= (section 5.5). */
extern RestCall *rest_delete(const char *api_version, const char *const *ids, int nids);

/*
 * Several collections calls (up to REST_PACK_LIMIT) as the parts of one
 * composite request (section 6.1).  headers are "Name: value" lines that each
 * part gets, NULL-terminated; NULL for none.  A single call is returned as it
 * is, and its reply is not to be unpacked.
 */
extern RestCall *rest_pack(const char *api_version, const char *const *headers, RestCall *const *calls,
						   int ncalls);

/*
 * PATCH by Id in a composite request (sections 4.5 and 6.1), up to
 * REST_COMPOSITE_LIMIT records.  Each is written only if the record was not
 * modified after its unmodified_since, which counts in whole seconds.  headers
 * as above.
 */
extern RestCall *rest_update_if(const char *api_version, const char *const *headers, const RestTarget *target,
								const RestRecord *records, const int64 *unmodified_since, int nrecords);

/* Metadata of an object (section 3), usage (section 2.2), versions (section 2.1, without a token). */
extern RestCall *rest_describe(const char *api_version, const char *object);
extern RestCall *rest_limits(const char *api_version);
extern RestCall *rest_versions(void);
extern RestCall *rest_userinfo(void);

/* The record as JSON text, as sent inside a collection: for dead letters and preview. */
extern char *rest_payload(const RestTarget *target, const RestRecord *record);

/*
 * Parse the reply of a collection.  Exactly nresults are expected; false, and
 * *error, when the body is anything else (then nothing may be settled).
 */
extern bool rest_parse_results(const char *body, size_t len, int nresults, RestResult *results, char **error);

/* The reply of one call that was packed. */
typedef struct RestPart
{
	int http_status;
	char *body; /* for rest_parse_results or rest_parse_error; "" if there was none */
	size_t body_len;
} RestPart;

/* Parse the reply of rest_pack; false and *error unless it answers exactly the calls packed. */
extern bool rest_unpack(const char *body, size_t len, int ncalls, RestPart *parts, char **error);

/*
 * Parse the reply of rest_update_if.  A record that was modified meanwhile is
 * no success, and its precondition_failed is true.  False and *error as above.
 */
extern bool rest_parse_update_if(const char *body, size_t len, const RestRecord *records, int nrecords,
								 RestResult *results, bool *precondition_failed, char **error);

/* Parse a request-level error: array or object, OAuth's form, HTML, nothing. */
extern RestError rest_parse_error(int http_status, const char *body, size_t len);

/* "CODE: message", for people; palloc'd. */
extern char *rest_error_text(const RestError *error);

/* Sforce-Limit-Info (section 2.3): the org-wide usage. */
extern bool rest_parse_limit_info(const char *header, int64 *used, int64 *limit);

/* The same of an allowance that the connected app has to itself; false if there is none. */
extern bool rest_parse_app_limit_info(const char *header, int64 *used, int64 *limit);

/* DailyApiRequests of /limits (section 2.2). */
extern bool rest_parse_limits(const char *body, size_t len, int64 *used, int64 *limit);

/* Is the version (like "66.0") among those listed (section 2.1)? *newest is palloc'd. */
extern bool rest_parse_versions(const char *body, size_t len, const char *version, char **newest);

/* What to say of one that isn't; newest may be NULL. */
extern char *rest_version_missing(const char *version, const char *newest);

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

/*
 * A record as read.  The values are those of the fields asked, in their order:
 * FV_NULL, FV_BOOL, FV_STRING, FV_NUMBER with the text of the reply (exponent
 * and all: see rest_plain_number), FV_ABSENT where the reply lacks the field.
 */
typedef struct RestRead
{
	bool found;
	bool deleted;           /* only rest_find_deleted tells */
	char *id;               /* 18 characters */
	char *key;              /* external ID as stored, a number's as plain digits; NULL: not asked */
	int64 last_modified;    /* LastModifiedDate */
	int64 system_modstamp;  /* SystemModstamp */
	char *last_modified_by; /* 18 characters; NULL if the reply doesn't tell */
	char *master_record_id; /* the record that a merge left of it; NULL else */
	FieldValue *values;
} RestRead;

/*
 * Records by Id (section 5.6), up to REST_RETRIEVE_LIMIT: the fields, and what
 * RestRead always has.
 */
extern RestCall *rest_retrieve(const char *api_version, const char *object, const char *const *ids, int nids,
							   const char *const *fields, int nfields);

/*
 * Parse its reply: reads[i] is that of ids[i], with found false where there is
 * no such record (any more).  False and *error when it is anything else.
 */
extern bool rest_parse_retrieve(const char *body, size_t len, const char *const *ids, int nids,
								const char *const *fields, int nfields, RestRead *reads, char **error);

/*
 * What the reply of a query tells beside its records.  Replies of queries come
 * inside those of composite requests, their next pages as plain ones; parsers
 * take both.  When a parser returns false, then either error is set (no such
 * reply, or one that lacks parts of the answer), or the query failed, with
 * http_status and failure.
 */
typedef struct RestPage
{
	char *next; /* path of the next page; NULL if all is there */
	int http_status;
	RestError failure;
	char *error;
} RestPage;

/*
 * Records by external ID, as long SOQL inside a composite request (section
 * 5.6).  call->taken tells for how many of the keys this asks, from the first;
 * the others did not fit.  Keys that no record can have, such as text for a
 * number field, count as taken and are not asked.
 */
extern RestCall *rest_find(const char *api_version, const RestTarget *target, const char *const *keys,
						   int nkeys, const char *const *fields, int nfields);
/*
 * All records that have an external ID, for rest_parse_find; fields may be
 * those of a parent, Account.Name, too.
 */
extern RestCall *rest_scan(const char *api_version, const RestTarget *target, const char *const *fields,
						   int nfields);
extern bool rest_parse_find(const char *body, size_t len, const char *ext_field, const char *const *fields,
							int nfields, RestRead **reads, int *nreads, RestPage *page);

/*
 * Records by Id, those in the recycle bin too (section 10).  has_master: the
 * object has the field MasterRecordId.  No values are read.  What is no Id
 * counts as taken and is not asked, here and below.
 */
extern RestCall *rest_find_deleted(const char *api_version, const char *object, bool has_master,
								   const char *const *ids, int nids);
extern bool rest_parse_find_deleted(const char *body, size_t len, RestRead **reads, int *nreads,
									RestPage *page);

/* A change of one field of one record (section 7.4). */
typedef struct RestChange
{
	char *id;
	int field; /* index of the field asked */
	int64 at;
	char *by; /* 18 characters; NULL if the reply doesn't tell */
} RestChange;

/*
 * The changes of these fields of these records since a time, newest first, so
 * that the first of a record and a field is the newest.
 */
extern RestCall *rest_history(const char *api_version, const char *history_object, const char *parent_field,
							  const char *const *ids, int nids, const char *const *fields, int nfields,
							  int64 since);
extern bool rest_parse_history(const char *body, size_t len, const char *parent_field,
							   const char *const *fields, int nfields, RestChange **changes, int *nchanges,
							   RestPage *page);

typedef struct RestUser
{
	char *id;
	char *name; /* one line, bounded */
} RestUser;

/* Names of users by Id. */
extern RestCall *rest_users(const char *api_version, const char *const *ids, int nids);
extern bool rest_parse_users(const char *body, size_t len, RestUser **users, int *nusers, RestPage *page);

/*
 * Ids by external ID, as long SOQL inside one composite request (section 5.6):
 * SELECT Id, Ext FROM X WHERE Ext IN (...).  It has room for call->taken of the
 * keys, one at least.  Keys of a number field that are no numbers are left out,
 * as no record can have them.
 */
extern RestCall *rest_lookup(const char *api_version, const RestTarget *target, const char *const *keys,
							 int nkeys);

/*
 * Parse its reply, or that of a further page: Ids and keys alone.  A reply need
 * not have all records at once: *page tells, as above.
 */
extern bool rest_parse_lookup(const char *body, size_t len, const char *ext_field, RestRead **reads,
							  int *nreads, RestPage *page);

/* ------------------------------------------------------------------------
 * Forms
 * ------------------------------------------------------------------------
 */

/* The Id in its 18-character form (section 3.5); NULL if it is no Id. */
extern char *rest_id18(const char *id);

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
 * A time as Salesforce writes it (section 3.4): "2022-03-17T16:21:24.000+0000",
 * with Z or +hh:mm too.  False if it is anything else.
 */
extern bool rest_parse_time(const char *text, int64 *time);

#endif /* SFSYNC_REST_H */
