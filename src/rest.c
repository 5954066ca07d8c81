/*
 * rest.c
 *		Requests of the REST API that write, and those for metadata.  Pure.
 */
#include "compat.h"

#include "rest_internal.h"

/* ------------------------------------------------------------------------
 * Writing: URLs, JSON, SOQL
 * ------------------------------------------------------------------------
 */

void
rest_append_encoded(StringInfo out, const char *text)
{
	static const char hex[] = "0123456789ABCDEF";

	for (; *text != '\0'; text++)
	{
		unsigned char c = (unsigned char) *text;

		if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
			c == '_' || c == '.' || c == '~')
			appendStringInfoChar(out, *text);
		else
		{
			appendStringInfoChar(out, '%');
			appendStringInfoChar(out, hex[c >> 4]);
			appendStringInfoChar(out, hex[c & 15]);
		}
	}
}

void
rest_append_json_string(StringInfo out, const char *text)
{
	appendStringInfoChar(out, '"');
	for (; *text != '\0'; text++)
	{
		unsigned char c = (unsigned char) *text;

		if (c == '"' || c == '\\')
		{
			appendStringInfoChar(out, '\\');
			appendStringInfoChar(out, *text);
		}
		else if (c == '\n')
			appendStringInfoString(out, "\\n");
		else if (c == '\r')
			appendStringInfoString(out, "\\r");
		else if (c == '\t')
			appendStringInfoString(out, "\\t");
		else if (c < 0x20 || c == 0x7F)
			appendStringInfo(out, "\\u%04x", c);
		else
			appendStringInfoChar(out, *text);
	}
	appendStringInfoChar(out, '"');
}

/* Is the text a number as JSON spells it, so that it can be sent bare? */
static bool
is_json_number(const char *text)
{
	char *plain = rest_plain_number(text);
	bool same = plain != NULL && strcmp(plain, text) == 0;

	if (plain != NULL)
		pfree(plain);
	return same;
}

static void
append_json_value(StringInfo out, const FieldValue *value)
{
	switch (value->kind)
	{
		case FV_ABSENT:
		case FV_NULL:
			appendStringInfoString(out, "null");
			break;
		case FV_BOOL:
			appendStringInfoString(out, value->boolean ? "true" : "false");
			break;
		case FV_NUMBER:
			/* digit for digit, never through a double (trap 10) */
			if (is_json_number(value->text))
				appendStringInfoString(out, value->text);
			else
				rest_append_json_string(out, value->text);
			break;
		case FV_STRING:
		case FV_LOOKUP:
			rest_append_json_string(out, value->text);
			break;
	}
}

/* Salesforce takes text for numbers too (section 3.4), so none is lost here. */
static void
append_json_key(StringInfo out, const char *key, bool is_number)
{
	char *number = is_number ? rest_number_key(key) : NULL;

	if (number != NULL)
		appendStringInfoString(out, number);
	else
		rest_append_json_string(out, key);
}

/* "Account":{"PG_Key__c":"1"}, with the type where the relation has several (section 8). */
static void
append_lookup(StringInfo out, const FieldValue *value)
{
	const FieldLookup *lookup = value->lookup;

	rest_append_json_string(out, lookup->relationship);
	appendStringInfoString(out, ":{");
	if (lookup->parent_object != NULL)
	{
		appendStringInfoString(out, "\"attributes\":{\"type\":");
		rest_append_json_string(out, lookup->parent_object);
		appendStringInfoString(out, "},");
	}
	rest_append_json_string(out, lookup->external_id);
	appendStringInfoChar(out, ':');
	append_json_key(out, value->text, lookup->key_is_number);
	appendStringInfoChar(out, '}');
}

/*
 * The fields of a record, its external ID among them, as members of an object;
 * separator stands before the first.
 */
static void
append_members(StringInfo out, const char *separator, const RestTarget *target, const RestRecord *record)
{
	if (record->external_id != NULL && target->key_field != NULL)
	{
		appendStringInfoString(out, separator);
		rest_append_json_string(out, target->key_field);
		appendStringInfoChar(out, ':');
		append_json_key(out, record->external_id, target->key_is_number);
		separator = ",";
	}
	for (int i = 0; i < record->nfields; i++)
	{
		const RestField *field = &record->fields[i];

		if (field->value.kind == FV_ABSENT)
			continue;
		appendStringInfoString(out, separator);
		separator = ",";
		if (field->value.kind == FV_LOOKUP)
		{
			append_lookup(out, &field->value);
			continue;
		}
		rest_append_json_string(out, field->name);
		appendStringInfoChar(out, ':');
		append_json_value(out, &field->value);
	}
}

static void
append_record(StringInfo out, const RestTarget *target, const RestRecord *record)
{
	appendStringInfoString(out, "{\"attributes\":{\"type\":");
	rest_append_json_string(out, target->object);
	appendStringInfoChar(out, '}');
	if (record->salesforce_id != NULL)
	{
		appendStringInfoString(out, ",\"id\":");
		rest_append_json_string(out, record->salesforce_id);
	}
	append_members(out, ",", target, record);
	appendStringInfoChar(out, '}');
}

char *
rest_payload(const RestTarget *target, const RestRecord *record)
{
	StringInfoData out;

	initStringInfo(&out);
	append_record(&out, target, record);
	return out.data;
}

void
rest_start_path(StringInfo path, const char *api_version, const char *resource)
{
	initStringInfo(path);
	appendStringInfoString(path, "/services/data/v");
	rest_append_encoded(path, api_version);
	appendStringInfoString(path, resource);
}

RestCall *
rest_make_call(const char *method, const StringInfoData *path, const StringInfoData *body)
{
	RestCall *call = palloc0(sizeof(RestCall));

	call->method = method;
	call->path = path->data;
	if (body != NULL)
	{
		call->body = body->data;
		call->body_len = (size_t) body->len;
	}
	return call;
}

static void
append_collection(StringInfo body, const RestTarget *target, const RestRecord *records, int nrecords)
{
	appendStringInfoString(body, "{\"allOrNone\":false,\"records\":[");
	for (int i = 0; i < nrecords; i++)
	{
		if (i > 0)
			appendStringInfoChar(body, ',');
		append_record(body, target, &records[i]);
	}
	appendStringInfoString(body, "]}");
}

/* POST or PATCH without a key in the path. */
static RestCall *
plain_collection(const char *method, const char *api_version, const RestTarget *target,
				 const RestRecord *records, int nrecords)
{
	StringInfoData path;
	StringInfoData body;

	rest_start_path(&path, api_version, "/composite/sobjects");
	initStringInfo(&body);
	append_collection(&body, target, records, nrecords);
	return rest_make_call(method, &path, &body);
}

RestCall *
rest_create(const char *api_version, const RestTarget *target, const RestRecord *records, int nrecords)
{
	return plain_collection("POST", api_version, target, records, nrecords);
}

RestCall *
rest_update(const char *api_version, const RestTarget *target, const RestRecord *records, int nrecords)
{
	return plain_collection("PATCH", api_version, target, records, nrecords);
}

RestCall *
rest_upsert(const char *api_version, const RestTarget *target, const RestRecord *records, int nrecords)
{
	StringInfoData path;
	StringInfoData body;

	rest_start_path(&path, api_version, "/composite/sobjects/");
	rest_append_encoded(&path, target->object);
	appendStringInfoChar(&path, '/');
	rest_append_encoded(&path, target->key_field);
	initStringInfo(&body);
	append_collection(&body, target, records, nrecords);
	return rest_make_call("PATCH", &path, &body);
}

RestCall *
rest_delete(const char *api_version, const char *const *ids, int nids)
{
	StringInfoData path;

	rest_start_path(&path, api_version, "/composite/sobjects?ids=");
	for (int i = 0; i < nids; i++)
	{
		if (i > 0)
			appendStringInfoChar(&path, ',');
		rest_append_encoded(&path, ids[i]);
	}
	appendStringInfoString(&path, "&allOrNone=false");
	return rest_make_call("DELETE", &path, NULL);
}

/* ------------------------------------------------------------------------
 * Composite requests
 * ------------------------------------------------------------------------
 */

void
rest_open_composite(StringInfo body)
{
	initStringInfo(body);
	appendStringInfoString(body, "{\"allOrNone\":false,\"collateSubrequests\":false,\"compositeRequest\":[");
}

/* "Name: value" lines as the members of an object. */
static void
append_headers(StringInfo body, const char *const *headers)
{
	appendStringInfoString(body, ",\"httpHeaders\":{");
	for (int i = 0; headers[i] != NULL; i++)
	{
		const char *colon = strchr(headers[i], ':');
		char *name = pnstrdup(headers[i], colon - headers[i]);

		if (i > 0)
			appendStringInfoChar(body, ',');
		rest_append_json_string(body, name);
		appendStringInfoChar(body, ':');
		rest_append_json_string(body, colon + 1 + strspn(colon + 1, " "));
		pfree(name);
	}
	appendStringInfoChar(body, '}');
}

/*
 * The parts are named after their place and number, so that the reply shows
 * whether all of them were answered.
 */
void
rest_append_part(StringInfo body, int part, int nparts, const char *const *headers, const RestCall *call)
{
	appendStringInfo(body, "%s{\"method\":\"%s\",\"url\":", part > 0 ? "," : "", call->method);
	rest_append_json_string(body, call->path);
	appendStringInfo(body, ",\"referenceId\":\"part%dof%d\"", part + 1, nparts);
	if (headers != NULL && headers[0] != NULL)
		append_headers(body, headers);
	if (call->body != NULL)
	{
		appendStringInfoString(body, ",\"body\":");
		appendBinaryStringInfo(body, call->body, (int) call->body_len);
	}
	appendStringInfoChar(body, '}');
}

RestCall *
rest_close_composite(StringInfo body, const char *api_version)
{
	StringInfoData path;

	appendStringInfoString(body, "]}");
	rest_start_path(&path, api_version, "/composite");
	return rest_make_call("POST", &path, body);
}

RestCall *
rest_pack(const char *api_version, const char *const *headers, RestCall *const *calls, int ncalls)
{
	StringInfoData body;

	if (ncalls == 1)
		return calls[0];
	rest_open_composite(&body);
	for (int i = 0; i < ncalls; i++)
		rest_append_part(&body, i, ncalls, headers, calls[i]);
	return rest_close_composite(&body, api_version);
}

/* PATCH /sobjects/X/Id (section 4.2); its body is the bare fields. */
static RestCall *
update_by_id(const char *api_version, const RestTarget *target, const RestRecord *record)
{
	StringInfoData path;
	StringInfoData body;

	rest_start_path(&path, api_version, "/sobjects/");
	rest_append_encoded(&path, target->object);
	appendStringInfoChar(&path, '/');
	rest_append_encoded(&path, record->salesforce_id);
	initStringInfo(&body);
	appendStringInfoChar(&body, '{');
	append_members(&body, "", target, record);
	appendStringInfoChar(&body, '}');
	return rest_make_call("PATCH", &path, &body);
}

/* The headers with one more in front, palloc'd. */
static const char **
with_header(const char *first, const char *const *headers)
{
	const char **all;
	int n = 0;

	while (headers != NULL && headers[n] != NULL)
		n++;
	all = palloc(sizeof(char *) * (n + 2));
	all[0] = first;
	for (int i = 0; i < n; i++)
		all[i + 1] = headers[i];
	all[n + 1] = NULL;
	return all;
}

RestCall *
rest_update_if(const char *api_version, const char *const *headers, const RestTarget *target,
			   const RestRecord *records, const int64 *unmodified_since, int nrecords)
{
	StringInfoData body;

	rest_open_composite(&body);
	for (int i = 0; i < nrecords; i++)
	{
		RestCall *call = update_by_id(api_version, target, &records[i]);
		char *condition = psprintf("If-Unmodified-Since: %s", rest_http_date(unmodified_since[i]));
		const char **all = with_header(condition, headers);

		rest_append_part(&body, i, nrecords, all, call);
		pfree(all);
		pfree(condition);
		pfree(call->body);
		pfree(call->path);
		pfree(call);
	}
	return rest_close_composite(&body, api_version);
}

/* ------------------------------------------------------------------------
 * Metadata and usage
 * ------------------------------------------------------------------------
 */

RestCall *
rest_describe(const char *api_version, const char *object)
{
	StringInfoData path;

	rest_start_path(&path, api_version, "/sobjects/");
	rest_append_encoded(&path, object);
	appendStringInfoString(&path, "/describe");
	return rest_make_call("GET", &path, NULL);
}

RestCall *
rest_limits(const char *api_version)
{
	StringInfoData path;

	rest_start_path(&path, api_version, "/limits/");
	return rest_make_call("GET", &path, NULL);
}

RestCall *
rest_versions(void)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfoString(&path, "/services/data/");
	return rest_make_call("GET", &path, NULL);
}

RestCall *
rest_userinfo(void)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfoString(&path, "/services/oauth2/userinfo");
	return rest_make_call("GET", &path, NULL);
}
