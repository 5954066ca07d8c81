/*
 * rest_internal.h
 *		What the files of the REST layer share; others include rest.h.
 */
#ifndef SFSYNC_REST_INTERNAL_H
#define SFSYNC_REST_INTERNAL_H

#include "lib/stringinfo.h"

#include "rest.h"

struct json_object;

/* ------------------------------------------------------------------------
 * Requests (rest.c, rest_form.c)
 * ------------------------------------------------------------------------
 */

/* Everything but RFC 3986's unreserved characters is percent-encoded. */
extern void rest_append_encoded(StringInfo out, const char *text);
extern void rest_append_json_string(StringInfo out, const char *text);

/* The path of a resource of this version, open for more. */
extern void rest_start_path(StringInfo path, const char *api_version, const char *resource);
extern RestCall *rest_make_call(const char *method, const StringInfoData *path, const StringInfoData *body);

/* A composite request is opened, gets its parts, and is closed. */
extern void rest_open_composite(StringInfo body);
extern void rest_append_part(StringInfo body, int part, int nparts, const char *const *headers,
							 const RestCall *call);
extern RestCall *rest_close_composite(StringInfo body, const char *api_version);

/*
 * The name under which the history has a standard lookup: Account for AccountId
 * (section 7.4).  NULL if it is the field's own.  palloc'd.
 */
extern char *rest_history_name(const char *field);

/* To the second, in UTC: as SOQL spells it (section 7.2), and RFC 1123 in English (section 4.5). */
extern char *rest_soql_time(int64 time);
extern char *rest_http_date(int64 time);

/* ------------------------------------------------------------------------
 * Replies (rest_reply.c)
 * ------------------------------------------------------------------------
 */

/* The error of a part, which may lack a body. */
extern RestError rest_part_error(int http_status, struct json_object *body);

/*
 * The parts of a composite reply that answers exactly nparts, or any number
 * when that is 0; else NULL and *error.
 */
extern struct json_object *rest_composite_parts(struct json_object *json, int nparts, char **error);

/* The body of one of these parts, NULL if it has none. */
extern struct json_object *rest_composite_part(struct json_object *parts, int index, int *http_status);

#endif /* SFSYNC_REST_INTERNAL_H */
