/*
 * rest.c
 *		Requests of the REST API, and the forms of numbers, keys and Ids.  Pure.
 */
#include "compat.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "lexical.h"
#include "rest.h"

#define MAX_EXPONENT 5000

#define SOQL_LIMIT 90000 /* characters; Salesforce takes 100,000 */
#define LOOKUP_QUERIES 5 /* queries in a composite request (section 6) */

#define NO_SUCH_CONDITION "Id = NULL"

/* ------------------------------------------------------------------------
 * Numbers and names
 * ------------------------------------------------------------------------
 */

/* Sign and digits of "[+-]digits", bounded; false if it is anything else. */
static bool
parse_exponent(const char *text, int *exponent)
{
	bool negative = *text == '-';
	int value = 0;

	if (*text == '-' || *text == '+')
		text++;
	if (*text == '\0')
		return false;
	for (; *text != '\0'; text++)
	{
		if (*text < '0' || *text > '9')
			return false;
		if (value <= MAX_EXPONENT)
			value = value * 10 + (*text - '0');
	}
	if (value > MAX_EXPONENT)
		return false;
	*exponent = negative ? -value : value;
	return true;
}

/* Digits with the decimal point after the first `point` of them. */
static char *
place_point(bool negative, const char *digits, int ndigits, int point)
{
	StringInfoData out;
	int first = 0;

	initStringInfo(&out);
	if (negative)
		appendStringInfoChar(&out, '-');
	while (first < point && (first >= ndigits || digits[first] == '0'))
		first++;
	if (first >= point)
		appendStringInfoChar(&out, '0');
	for (int i = first; i < point; i++)
		appendStringInfoChar(&out, i < ndigits ? digits[i] : '0');
	if (point < ndigits)
	{
		appendStringInfoChar(&out, '.');
		for (int i = point; i < 0; i++)
			appendStringInfoChar(&out, '0');
		for (int i = Max(point, 0); i < ndigits; i++)
			appendStringInfoChar(&out, digits[i]);
	}
	return out.data;
}

char *
rest_plain_number(const char *text)
{
	bool negative = *text == '-';
	char *digits;
	char *result;
	int ndigits = 0;
	int point = -1;
	int exponent = 0;

	if (*text == '-' || *text == '+')
		text++;
	digits = palloc(strlen(text) + 1);
	for (; (*text >= '0' && *text <= '9') || (*text == '.' && point < 0); text++)
	{
		if (*text == '.')
			point = ndigits;
		else
			digits[ndigits++] = *text;
	}
	if (ndigits == 0 || (*text != '\0' && *text != 'e' && *text != 'E') ||
		(*text != '\0' && !parse_exponent(text + 1, &exponent)))
	{
		pfree(digits);
		return NULL;
	}
	if (point < 0)
		point = ndigits;
	result = place_point(negative, digits, ndigits, point + exponent);
	pfree(digits);
	return result;
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

/*
 * The key of a number field, so that equal numbers are equal texts: 00123,
 * 123.0 and 1.23E2 are one key (trap 20).  NULL if it is no number.
 */
char *
rest_number_key(const char *text)
{
	char *plain = rest_plain_number(text);
	char *end;

	if (plain == NULL)
		return NULL;
	end = plain + strlen(plain);
	if (strchr(plain, '.') != NULL)
	{
		while (end[-1] == '0')
			end--;
		if (end[-1] == '.')
			end--;
		*end = '\0';
	}
	return strcmp(plain, "-0") == 0 ? pstrdup("0") : plain;
}

/* The checksum character of five characters of an Id (section 3.5). */
static char
id_checksum(const char *five)
{
	int bits = 0;

	for (int i = 0; i < 5; i++)
	{
		if (five[i] >= 'A' && five[i] <= 'Z')
			bits |= 1 << i;
	}
	return "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[bits];
}

char *
rest_id18(const char *id)
{
	char full[19];
	size_t len = strlen(id);

	if (len != 15 && len != 18)
		return NULL;
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) id[i];

		if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')))
			return NULL;
	}
	memcpy(full, id, 15);
	for (int group = 0; group < 3; group++)
		full[15 + group] = id_checksum(id + 5 * group);
	full[18] = '\0';

	/* an Id whose case was altered is not repaired, as Salesforce refuses it */
	return len == 15 || strcmp(id, full) == 0 ? pstrdup(full) : NULL;
}

char *
rest_record_key(const char *key, bool case_sensitive)
{
	char *trimmed = lexical_trim(key, strlen(key));

	return case_sensitive ? trimmed : lexical_fold(trimmed);
}

/* ------------------------------------------------------------------------
 * Writing: URLs, JSON, SOQL
 * ------------------------------------------------------------------------
 */

/* Everything but RFC 3986's unreserved characters is percent-encoded. */
static void
append_encoded(StringInfo out, const char *text)
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

static void
append_json_string(StringInfo out, const char *text)
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
				append_json_string(out, value->text);
			break;
		case FV_STRING:
		case FV_LOOKUP:
			append_json_string(out, value->text);
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
		append_json_string(out, key);
}

/* "Account":{"PG_Key__c":"1"}, with the type where the relation has several (section 8). */
static void
append_lookup(StringInfo out, const FieldValue *value)
{
	const FieldLookup *lookup = value->lookup;

	append_json_string(out, lookup->relationship);
	appendStringInfoString(out, ":{");
	if (lookup->parent_object != NULL)
	{
		appendStringInfoString(out, "\"attributes\":{\"type\":");
		append_json_string(out, lookup->parent_object);
		appendStringInfoString(out, "},");
	}
	append_json_string(out, lookup->external_id);
	appendStringInfoChar(out, ':');
	append_json_key(out, value->text, lookup->key_is_number);
	appendStringInfoChar(out, '}');
}

static void
append_record(StringInfo out, const char *object, const char *ext_field, bool ext_is_number,
			  const RestRecord *record)
{
	appendStringInfoString(out, "{\"attributes\":{\"type\":");
	append_json_string(out, object);
	appendStringInfoChar(out, '}');
	if (record->salesforce_id != NULL)
	{
		appendStringInfoString(out, ",\"id\":");
		append_json_string(out, record->salesforce_id);
	}
	if (record->external_id != NULL && ext_field != NULL)
	{
		appendStringInfoChar(out, ',');
		append_json_string(out, ext_field);
		appendStringInfoChar(out, ':');
		append_json_key(out, record->external_id, ext_is_number);
	}
	for (int i = 0; i < record->nfields; i++)
	{
		if (record->fields[i].value.kind == FV_ABSENT)
			continue;
		appendStringInfoChar(out, ',');
		if (record->fields[i].value.kind == FV_LOOKUP)
		{
			append_lookup(out, &record->fields[i].value);
			continue;
		}
		append_json_string(out, record->fields[i].name);
		appendStringInfoChar(out, ':');
		append_json_value(out, &record->fields[i].value);
	}
	appendStringInfoChar(out, '}');
}

char *
rest_payload(const char *object, const char *ext_field, bool ext_is_number, const RestRecord *record)
{
	StringInfoData out;

	initStringInfo(&out);
	append_record(&out, object, ext_field, ext_is_number, record);
	return out.data;
}

/* The path of a resource of this version, open for more. */
static void
start_path(StringInfo path, const char *api_version, const char *resource)
{
	initStringInfo(path);
	appendStringInfoString(path, "/services/data/v");
	append_encoded(path, api_version);
	appendStringInfoString(path, resource);
}

static RestCall *
make_call(const char *method, const StringInfoData *path, const StringInfoData *body)
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
append_collection(StringInfo body, const char *object, const char *ext_field, bool ext_is_number,
				  const RestRecord *records, int nrecords)
{
	appendStringInfoString(body, "{\"allOrNone\":false,\"records\":[");
	for (int i = 0; i < nrecords; i++)
	{
		if (i > 0)
			appendStringInfoChar(body, ',');
		append_record(body, object, ext_field, ext_is_number, &records[i]);
	}
	appendStringInfoString(body, "]}");
}

RestCall *
rest_upsert(const char *api_version, const char *object, const char *ext_field, bool ext_is_number,
			const RestRecord *records, int nrecords)
{
	StringInfoData path;
	StringInfoData body;

	start_path(&path, api_version, "/composite/sobjects/");
	append_encoded(&path, object);
	appendStringInfoChar(&path, '/');
	append_encoded(&path, ext_field);
	initStringInfo(&body);
	append_collection(&body, object, ext_field, ext_is_number, records, nrecords);
	return make_call("PATCH", &path, &body);
}

RestCall *
rest_update(const char *api_version, const char *object, const char *ext_field, bool ext_is_number,
			const RestRecord *records, int nrecords)
{
	StringInfoData path;
	StringInfoData body;

	start_path(&path, api_version, "/composite/sobjects");
	initStringInfo(&body);
	append_collection(&body, object, ext_field, ext_is_number, records, nrecords);
	return make_call("PATCH", &path, &body);
}

RestCall *
rest_delete(const char *api_version, const char *const *ids, int nids)
{
	StringInfoData path;

	start_path(&path, api_version, "/composite/sobjects?ids=");
	for (int i = 0; i < nids; i++)
	{
		if (i > 0)
			appendStringInfoChar(&path, ',');
		append_encoded(&path, ids[i]);
	}
	appendStringInfoString(&path, "&allOrNone=false");
	return make_call("DELETE", &path, NULL);
}

/* A key as a SOQL literal (section 7.2). */
static char *
soql_literal(const char *key, bool is_number)
{
	StringInfoData out;

	if (is_number)
		return rest_number_key(key);
	initStringInfo(&out);
	appendStringInfoChar(&out, '\'');
	for (; *key != '\0'; key++)
	{
		unsigned char c = (unsigned char) *key;

		if (c == '\'' || c == '"' || c == '\\')
			appendStringInfo(&out, "\\%c", c);
		else if (c < 0x20 || c == 0x7F)
			appendStringInfo(&out, "\\u%04X", c);
		else
			appendStringInfoChar(&out, *key);
	}
	appendStringInfoChar(&out, '\'');
	return out.data;
}

/* Characters of UTF-8 text: bytes that don't continue one. */
static int
count_characters(const char *text)
{
	int n = 0;

	for (; *text != '\0'; text++)
		n += ((unsigned char) *text & 0xC0) != 0x80;
	return n;
}

/* One query for as many keys as fit; *next moves past them. */
static char *
lookup_soql(const char *object, const char *ext_field, bool is_number, const char *const *keys, int nkeys,
			int *next)
{
	StringInfoData soql;
	int length;
	bool empty = true;

	initStringInfo(&soql);
	appendStringInfo(&soql, "SELECT Id,%s FROM %s WHERE ", ext_field, object);
	length = soql.len + (int) strlen(ext_field) + 6; /* " IN ()" */
	for (; *next < nkeys; (*next)++)
	{
		char *literal = soql_literal(keys[*next], is_number);

		if (literal == NULL)
			continue;
		length += count_characters(literal) + 1;
		if (!empty && length > SOQL_LIMIT)
			break;
		if (empty)
			appendStringInfo(&soql, "%s IN (", ext_field);
		else
			appendStringInfoChar(&soql, ',');
		appendStringInfoString(&soql, literal);
		pfree(literal);
		empty = false;
	}
	appendStringInfoString(&soql, empty ? NO_SUCH_CONDITION : ")");
	return soql.data;
}

/*
 * The sub-requests are named after their place and number, so that the reply
 * shows whether all of them were answered.
 */
static void
append_lookup_part(StringInfo body, const char *api_version, const char *soql, int part, int nparts)
{
	StringInfoData path;

	start_path(&path, api_version, "/query?q=");
	append_encoded(&path, soql);
	if (part > 0)
		appendStringInfoChar(body, ',');
	appendStringInfoString(body, "{\"method\":\"GET\",\"url\":");
	append_json_string(body, path.data);
	appendStringInfo(body, ",\"referenceId\":\"part%dof%d\"}", part + 1, nparts);
	pfree(path.data);
}

RestCall *
rest_lookup(const char *api_version, const char *object, const char *ext_field, bool ext_is_number,
			const char *const *keys, int nkeys)
{
	StringInfoData path;
	StringInfoData body;
	char *soql[LOOKUP_QUERIES];
	int nparts = 0;
	int next = 0;

	do
	{
		if (nparts == LOOKUP_QUERIES)
			return NULL;
		soql[nparts++] = lookup_soql(object, ext_field, ext_is_number, keys, nkeys, &next);
	} while (next < nkeys);

	start_path(&path, api_version, "/composite");
	initStringInfo(&body);
	appendStringInfoString(&body, "{\"allOrNone\":false,\"collateSubrequests\":false,\"compositeRequest\":[");
	for (int i = 0; i < nparts; i++)
	{
		append_lookup_part(&body, api_version, soql[i], i, nparts);
		pfree(soql[i]);
	}
	appendStringInfoString(&body, "]}");
	return make_call("POST", &path, &body);
}

RestCall *
rest_describe(const char *api_version, const char *object)
{
	StringInfoData path;

	start_path(&path, api_version, "/sobjects/");
	append_encoded(&path, object);
	appendStringInfoString(&path, "/describe");
	return make_call("GET", &path, NULL);
}

RestCall *
rest_limits(const char *api_version)
{
	StringInfoData path;

	start_path(&path, api_version, "/limits/");
	return make_call("GET", &path, NULL);
}

RestCall *
rest_versions(void)
{
	StringInfoData path;

	initStringInfo(&path);
	appendStringInfoString(&path, "/services/data/");
	return make_call("GET", &path, NULL);
}
