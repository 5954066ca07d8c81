/*
 * rest_reply.c
 *		Replies of the REST API.  Pure.
 */
#define SFSYNC_USE_JSON_C
#include "compat.h"

#include "rest_internal.h"
#include "rest_json.h"

#define MAX_MESSAGE 1000 /* bytes of an error's message */
#define MAX_CODE 100
#define MAX_EXCERPT 200 /* bytes shown of a body that is not JSON */
#define MAX_ERROR_FIELDS 100

static void
read_error_fields(json_object *array, RestError *error)
{
	size_t n;

	if (!json_object_is_type(array, json_type_array))
		return;
	n = Min(json_object_array_length(array), MAX_ERROR_FIELDS);
	if (n == 0)
		return;
	error->fields = palloc(sizeof(char *) * n);
	for (size_t i = 0; i < n; i++)
	{
		char *name = rest_clean_string(json_object_array_get_idx(array, i), MAX_CODE);

		if (name != NULL)
			error->fields[error->nfields++] = name;
	}
}

/*
 * One error: statusCode in collections, errorCode of requests (trap 23), error
 * of OAuth.  False when it is none of these.
 */
static bool
read_error(json_object *json, RestError *error)
{
	memset(error, 0, sizeof(*error));
	if (!json_object_is_type(json, json_type_object))
		return false;
	error->code = rest_clean_string(rest_member(json, "statusCode"), MAX_CODE);
	if (error->code == NULL)
		error->code = rest_clean_string(rest_member(json, "errorCode"), MAX_CODE);
	if (error->code == NULL)
		error->code = rest_clean_string(rest_member(json, "error"), MAX_CODE);
	error->message = rest_clean_string(rest_member(json, "message"), MAX_MESSAGE);
	if (error->message == NULL)
		error->message = rest_clean_string(rest_member(json, "error_description"), MAX_MESSAGE);
	read_error_fields(rest_member(json, "fields"), error);
	if (error->code == NULL && error->message == NULL)
		return false;
	if (error->message == NULL)
		error->message = pstrdup(error->code);
	return true;
}

/* The first of an array of errors, or one bare (section 0.3). */
static bool
read_error_body(json_object *json, RestError *error)
{
	if (json_object_is_type(json, json_type_array))
		json = json_object_array_length(json) > 0 ? json_object_array_get_idx(json, 0) : NULL;
	return read_error(json, error);
}

RestError
rest_parse_error(int http_status, const char *body, size_t len)
{
	RestError error;
	json_object *json = len > 0 ? rest_parse_json(body, len) : NULL;
	bool understood = read_error_body(json, &error);

	json_object_put(json);
	if (understood)
		return error;

	memset(&error, 0, sizeof(error));
	if (len == 0)
		error.message = psprintf("HTTP %d without a body", http_status);
	else
		error.message = psprintf("HTTP %d with a body that is not Salesforce's: %s", http_status,
								 rest_clean_front(body, len, MAX_EXCERPT));
	return error;
}

char *
rest_error_text(const RestError *error)
{
	return psprintf("%s: %s", error->code != NULL ? error->code : "UNKNOWN", error->message);
}

/* ------------------------------------------------------------------------
 * Replies of collections
 * ------------------------------------------------------------------------
 */

static bool
read_success(json_object *json, int index, RestResult *result, char **error)
{
	const char *id = rest_plain_string(rest_member(json, "id"));
	json_object *created = rest_member(json, "created");

	result->id = id != NULL ? rest_id18(id) : NULL;
	if (result->id == NULL)
	{
		*error = psprintf("result %d has no valid Id", index + 1);
		return false;
	}
	if (created != NULL && !json_object_is_type(created, json_type_boolean))
	{
		*error = psprintf("result %d: \"created\" is not true or false", index + 1);
		return false;
	}
	result->success = true;
	result->created = created != NULL && json_object_get_boolean(created);
	return true;
}

static bool
read_result(json_object *json, int index, RestResult *result, char **error)
{
	json_object *success = rest_member(json, "success");

	result->http_status = 200;
	if (!json_object_is_type(success, json_type_boolean))
	{
		*error = psprintf("result %d does not tell success", index + 1);
		return false;
	}
	if (json_object_get_boolean(success))
		return read_success(json, index, result, error);
	if (!json_object_is_type(rest_member(json, "errors"), json_type_array) ||
		!read_error_body(rest_member(json, "errors"), &result->error))
		result->error.message = pstrdup("Salesforce gave no reason");
	return true;
}

bool
rest_parse_results(const char *body, size_t len, int nresults, RestResult *results, char **error)
{
	json_object *json = rest_parse_json(body, len);
	bool ok = false;

	*error = NULL;
	memset(results, 0, sizeof(RestResult) * nresults);
	if (!json_object_is_type(json, json_type_array))
		*error = pstrdup("the reply is not a list of results");
	else if (json_object_array_length(json) != (size_t) nresults)
		*error = psprintf("the reply has %zu results for %d records", (size_t) json_object_array_length(json),
						  nresults);
	else
	{
		ok = true;
		for (int i = 0; i < nresults && ok; i++)
			ok = read_result(json_object_array_get_idx(json, i), i, &results[i], error);
	}
	json_object_put(json);
	return ok;
}

/* ------------------------------------------------------------------------
 * Replies of composite requests
 * ------------------------------------------------------------------------
 */

RestError
rest_part_error(int http_status, json_object *body)
{
	RestError error;

	if (!read_error_body(body, &error))
	{
		memset(&error, 0, sizeof(error));
		error.message = psprintf("HTTP %d without a reason", http_status);
	}
	return error;
}

/* Does the part bear the name that rest_append_part gave it? */
static bool
is_part(json_object *part, int index, int nparts)
{
	const char *reference = rest_plain_string(rest_member(part, "referenceId"));
	char expected[64];

	snprintf(expected, sizeof(expected), "part%dof%d", index + 1, nparts);
	return reference != NULL && strcmp(reference, expected) == 0 &&
		   json_object_is_type(rest_member(part, "httpStatusCode"), json_type_int);
}

/* In the order asked, as collateSubrequests was false. */
json_object *
rest_composite_parts(json_object *json, int nparts, char **error)
{
	json_object *parts = rest_member(json, "compositeResponse");
	bool ok = json_object_is_type(parts, json_type_array);
	size_t n = ok ? json_object_array_length(parts) : 0;

	*error = NULL;
	ok = n > 0 && n <= REST_COMPOSITE_LIMIT && (nparts == 0 || n == (size_t) nparts);
	for (size_t i = 0; i < n && ok; i++)
		ok = is_part(json_object_array_get_idx(parts, i), (int) i, (int) n);
	if (ok)
		return parts;
	*error = pstrdup("the reply does not answer all parts of the request");
	return NULL;
}

json_object *
rest_composite_part(json_object *parts, int index, int *http_status)
{
	json_object *part = json_object_array_get_idx(parts, index);

	*http_status = json_object_get_int(rest_member(part, "httpStatusCode"));
	return rest_member(part, "body");
}

bool
rest_unpack(const char *body, size_t len, int ncalls, RestPart *results, char **error)
{
	json_object *json = rest_parse_json(body, len);
	json_object *parts = rest_composite_parts(json, ncalls, error);

	for (int i = 0; i < ncalls && parts != NULL; i++)
	{
		json_object *part = rest_composite_part(parts, i, &results[i].http_status);

		results[i].body = part == NULL ? pstrdup("") : rest_json_text(part);
		results[i].body_len = strlen(results[i].body);
	}
	json_object_put(json);
	return parts != NULL;
}

/* A reply to PATCH by Id has no body when all is well (section 4.2). */
static void
read_update(json_object *part, int http_status, const RestRecord *record, RestResult *result)
{
	memset(result, 0, sizeof(*result));
	result->http_status = http_status;
	result->success = http_status >= 200 && http_status <= 299;
	if (result->success)
		result->id = rest_id18(record->salesforce_id);
	else
		result->error = rest_part_error(http_status, part);
}

bool
rest_parse_update_if(const char *body, size_t len, const RestRecord *records, int nrecords,
					 RestResult *results, bool *precondition_failed, char **error)
{
	json_object *json = rest_parse_json(body, len);
	json_object *parts = rest_composite_parts(json, nrecords, error);

	for (int i = 0; i < nrecords && parts != NULL; i++)
	{
		int http_status;
		json_object *part = rest_composite_part(parts, i, &http_status);

		read_update(part, http_status, &records[i], &results[i]);
		precondition_failed[i] = http_status == 412;
	}
	json_object_put(json);
	return parts != NULL;
}

/* ------------------------------------------------------------------------
 * Usage and versions
 * ------------------------------------------------------------------------
 */

/* Digits, bounded; NULL if there are none or too many, else where they end. */
static const char *
parse_digits(const char *text, int64 *value)
{
	const char *start = text;

	*value = 0;
	for (; *text >= '0' && *text <= '9'; text++)
	{
		if (text - start >= 18)
			return NULL;
		*value = *value * 10 + (*text - '0');
	}
	return text > start ? text : NULL;
}

/* "17/250" behind a word of the header; org: not that of per-app-api-usage=. */
static bool
parse_usage(const char *header, const char *word, bool org, int64 *used, int64 *limit)
{
	for (const char *p = strstr(header, word); p != NULL; p = strstr(p + 1, word))
	{
		const char *end;
		int64 u;
		int64 l;

		if (org && p > header && p[-1] == '-')
			continue;
		end = parse_digits(p + strlen(word), &u);
		if (end == NULL || *end != '/' || parse_digits(end + 1, &l) == NULL || l == 0)
			return false;
		*used = u;
		*limit = l;
		return true;
	}
	return false;
}

bool
rest_parse_limit_info(const char *header, int64 *used, int64 *limit)
{
	return parse_usage(header, "api-usage=", true, used, limit);
}

bool
rest_parse_app_limit_info(const char *header, int64 *used, int64 *limit)
{
	return parse_usage(header, "per-app-api-usage=", false, used, limit);
}

bool
rest_parse_limits(const char *body, size_t len, int64 *used, int64 *limit)
{
	json_object *json = rest_parse_json(body, len);
	json_object *daily = rest_member(json, "DailyApiRequests");
	json_object *max = rest_member(daily, "Max");
	json_object *remaining = rest_member(daily, "Remaining");
	bool ok = json_object_is_type(max, json_type_int) && json_object_is_type(remaining, json_type_int);

	if (ok)
	{
		int64 m = json_object_get_int64(max);
		int64 r = json_object_get_int64(remaining);

		/* what remains can be negative: more was used than was bought */
		ok = m > 0 && m <= PG_INT64_MAX / 4 && r <= m && r >= -(PG_INT64_MAX / 4);
		if (ok)
		{
			*used = m - r;
			*limit = m;
		}
	}
	json_object_put(json);
	return ok;
}

/* "66.0" as 66 and 0 in one number; -1 if it is no version. */
static int64
version_number(const char *text)
{
	int64 major;
	int64 minor;
	const char *end = text != NULL ? parse_digits(text, &major) : NULL;

	if (end == NULL || *end != '.')
		return -1;
	end = parse_digits(end + 1, &minor);
	if (end == NULL || *end != '\0' || major > 100000 || minor > 999)
		return -1;
	return major * 1000 + minor;
}

bool
rest_parse_versions(const char *body, size_t len, const char *version, char **newest)
{
	json_object *json = rest_parse_json(body, len);
	int64 wanted = version_number(version);
	int64 highest = -1;
	bool listed = false;
	size_t n = json_object_is_type(json, json_type_array) ? json_object_array_length(json) : 0;

	for (size_t i = 0; i < n; i++)
	{
		json_object *entry = json_object_array_get_idx(json, i);
		int64 number = version_number(rest_plain_string(rest_member(entry, "version")));

		if (number < 0)
			continue;
		listed |= number == wanted;
		highest = Max(highest, number);
	}
	json_object_put(json);
	*newest = highest < 0 ? NULL : psprintf("%d.%d", (int) (highest / 1000), (int) (highest % 1000));
	return listed;
}

char *
rest_version_missing(const char *version, const char *newest)
{
	if (newest == NULL)
		return psprintf("the org has no API version %s", version);
	return psprintf("the org has no API version %s; its newest is %s", version, newest);
}
