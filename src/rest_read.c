/*
 * rest_read.c
 *		Replies of the REST API to requests that read: records, their history and
 *		their users.  Pure.
 */
#define SFSYNC_USE_JSON_C
#include "compat.h"

#include "rest_internal.h"
#include "rest_json.h"

#define MAX_USER_NAME 255

/* ------------------------------------------------------------------------
 * Replies of queries
 * ------------------------------------------------------------------------
 */

/* The records of a reply, in json-c's memory. */
typedef struct Records
{
	json_object *reply; /* to be put when done */
	json_object **items;
	int n;
} Records;

/*
 * A path that we are told to ask: of this API, and without anything that could
 * end the line or lead elsewhere.
 */
static bool
is_next_path(const char *path)
{
	static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/%?=&";
	static const char prefix[] = "/services/data/";

	return path != NULL && strlen(path) <= 2000 && strncmp(path, prefix, sizeof(prefix) - 1) == 0 &&
		   strspn(path, safe) == strlen(path) && strstr(path, "..") == NULL;
}

/* The reply of one query: its records, and where the rest of them is. */
static bool
read_page(Records *records, json_object *json, RestPage *page)
{
	json_object *array = rest_member(json, "records");
	json_object *done = rest_member(json, "done");
	json_object *next = rest_member(json, "nextRecordsUrl");
	int n;

	if (!json_object_is_type(array, json_type_array) || !json_object_is_type(done, json_type_boolean) ||
		json_object_get_boolean(done) != (next == NULL) ||
		(next != NULL && !is_next_path(rest_plain_string(next))))
	{
		page->error = pstrdup("the reply is not that of a query");
		return false;
	}
	if (next != NULL && page->next != NULL)
	{
		page->error = pstrdup("several parts of the reply are incomplete: ask for fewer keys");
		return false;
	}
	if (next != NULL)
		page->next = pstrdup(rest_plain_string(next));

	n = (int) json_object_array_length(array);
	records->items = repalloc(records->items, sizeof(json_object *) * (records->n + n + 1));
	for (int i = 0; i < n; i++)
		records->items[records->n++] = json_object_array_get_idx(array, i);
	return true;
}

static bool
read_parts(Records *records, RestPage *page)
{
	json_object *parts = rest_composite_parts(records->reply, 0, &page->error);
	int n = parts != NULL ? (int) json_object_array_length(parts) : 0;

	for (int i = 0; i < n; i++)
	{
		int http_status;
		json_object *body = rest_composite_part(parts, i, &http_status);

		if (http_status != 200)
		{
			page->http_status = http_status;
			page->failure = rest_part_error(http_status, body);
			return false;
		}
		if (!read_page(records, body, page))
			return false;
	}
	return parts != NULL;
}

/* False, with the reason in *page, when there is no answer. */
static bool
open_records(Records *records, const char *body, size_t len, RestPage *page)
{
	memset(page, 0, sizeof(*page));
	records->reply = rest_parse_json(body, len);
	records->items = palloc(sizeof(json_object *));
	records->n = 0;
	if (rest_member(records->reply, "compositeResponse") != NULL)
		return read_parts(records, page);
	return read_page(records, records->reply, page);
}

/* Done with a reply, which was good or not: a page of a bad one is not to be followed. */
static bool
close_records(Records *records, bool ok, RestPage *page)
{
	json_object_put(records->reply);
	pfree(records->items);
	if (!ok)
		page->next = NULL;
	return ok;
}

/* ------------------------------------------------------------------------
 * Records
 * ------------------------------------------------------------------------
 */

static bool
find_member_nocase(json_object *parent, const char *key, json_object **value)
{
	json_object_object_foreach(parent, name, candidate)
	{
		if (pg_strcasecmp(name, key) == 0)
		{
			*value = candidate;
			return true;
		}
	}
	return false;
}

/*
 * A member whatever its case: field names come in canonical case, whatever was
 * asked.  False if there is none.
 */
static bool
find_member(json_object *parent, const char *key, json_object **value)
{
	*value = NULL;
	return json_object_is_type(parent, json_type_object) &&
		   (json_object_object_get_ex(parent, key, value) || find_member_nocase(parent, key, value));
}

/* The Id that a member holds; NULL if it is none. */
static char *
read_id(json_object *parent, const char *key)
{
	json_object *value;
	const char *id;

	find_member(parent, key, &value);
	id = rest_plain_string(value);
	return id != NULL ? rest_id18(id) : NULL;
}

static bool
read_time(json_object *parent, const char *key, int64 *time, char **error)
{
	json_object *value;
	const char *text;

	find_member(parent, key, &value);
	text = rest_plain_string(value);
	if (text != NULL && rest_parse_time(text, time))
		return true;
	*error = psprintf("a record of the reply has no valid %s", key);
	return false;
}

/*
 * The text of a JSON number; NULL if it is none.  json-c keeps that of numbers
 * with a point or exponent, prints integers again, and takes those that it
 * can't hold for the nearest that it can: these two are refused.
 */
static char *
number_text(json_object *value)
{
	const char *text;
	char *plain;

	if (!json_object_is_type(value, json_type_int) && !json_object_is_type(value, json_type_double))
		return NULL;
	text = json_object_get_string(value);
	if (strcmp(text, "-9223372036854775808") == 0 || strcmp(text, "18446744073709551615") == 0)
		return NULL;

	/* NaN and Infinity are numbers to json-c */
	plain = rest_plain_number(text);
	if (plain == NULL)
		return NULL;
	pfree(plain);
	return pstrdup(text);
}

/*
 * False for what no field that is written holds: objects, arrays, U+0000.  A
 * field of a parent, Account.Name, comes inside it (section 7.1).
 */
static bool
read_value(json_object *record, const char *field, FieldValue *result)
{
	const char *dot = strchr(field, '.');
	json_object *value;

	memset(result, 0, sizeof(*result));
	result->kind = FV_ABSENT;
	if (!find_member(record, dot != NULL ? pnstrdup(field, dot - field) : field, &value))
		return true;
	if (dot != NULL && value != NULL)
		return json_object_is_type(value, json_type_object) && read_value(value, dot + 1, result);
	switch (json_object_get_type(value))
	{
		case json_type_null:
			result->kind = FV_NULL;
			return true;
		case json_type_boolean:
			result->kind = FV_BOOL;
			result->boolean = json_object_get_boolean(value);
			return true;
		case json_type_int:
		case json_type_double:
			result->kind = FV_NUMBER;
			result->text = number_text(value);
			return result->text != NULL;
		case json_type_string:
			result->kind = FV_STRING;
			result->text = rest_string_copy(value);
			return result->text != NULL;
		default:
			return false;
	}
}

static bool
read_record(json_object *record, const char *const *fields, int nfields, RestRead *read, char **error)
{
	memset(read, 0, sizeof(*read));
	read->id = read_id(record, "Id");
	if (read->id == NULL)
	{
		*error = pstrdup("a record of the reply has no valid Id");
		return false;
	}
	if (!read_time(record, "LastModifiedDate", &read->last_modified, error) ||
		!read_time(record, "SystemModstamp", &read->system_modstamp, error))
		return false;
	read->last_modified_by = read_id(record, "LastModifiedById");
	read->values = palloc(sizeof(FieldValue) * Max(nfields, 1));
	for (int i = 0; i < nfields; i++)
	{
		if (!read_value(record, fields[i], &read->values[i]))
		{
			*error = psprintf("a record of the reply has no valid %s", fields[i]);
			return false;
		}
	}
	read->found = true;
	return true;
}

/* One record of a retrieve, which is to be that asked. */
static bool
read_retrieved(json_object *record, const char *id, const char *const *fields, int nfields, RestRead *read,
			   char **error)
{
	char *asked;

	if (record == NULL)
	{
		memset(read, 0, sizeof(*read));
		return true;
	}
	if (!read_record(record, fields, nfields, read, error))
		return false;
	asked = rest_id18(id);
	if (asked != NULL && strcmp(asked, read->id) == 0)
		return true;
	*error = psprintf("the reply has record %s in the place of %s", read->id, id);
	return false;
}

bool
rest_parse_retrieve(const char *body, size_t len, const char *const *ids, int nids, const char *const *fields,
					int nfields, RestRead *reads, char **error)
{
	json_object *json = rest_parse_json(body, len);
	bool ok = false;

	*error = NULL;
	if (!json_object_is_type(json, json_type_array))
		*error = pstrdup("the reply is not a list of records");
	else if (json_object_array_length(json) != (size_t) nids)
		*error =
			psprintf("the reply has %zu records for %d Ids", (size_t) json_object_array_length(json), nids);
	else
	{
		ok = true;
		for (int i = 0; i < nids && ok; i++)
			ok =
				read_retrieved(json_object_array_get_idx(json, i), ids[i], fields, nfields, &reads[i], error);
	}
	json_object_put(json);
	return ok;
}

/* The external ID as Salesforce stores it; a number as plain digits. */
static char *
read_key(json_object *record, const char *ext_field, char **error)
{
	json_object *value;
	char *key = NULL;

	find_member(record, ext_field, &value);
	if (json_object_is_type(value, json_type_string))
		key = rest_string_copy(value);
	else if (json_object_is_type(value, json_type_int) || json_object_is_type(value, json_type_double))
		key = rest_number_key(json_object_get_string(value));
	if (key == NULL)
		*error = psprintf("a record of the reply has no %s", ext_field);
	return key;
}

bool
rest_parse_find(const char *body, size_t len, const char *ext_field, const char *const *fields, int nfields,
				RestRead **reads, int *nreads, RestPage *page)
{
	Records records;
	bool ok = open_records(&records, body, len, page);
	RestRead *result = ok ? palloc(sizeof(RestRead) * (records.n + 1)) : NULL;

	for (int i = 0; i < records.n && ok; i++)
	{
		ok = read_record(records.items[i], fields, nfields, &result[i], &page->error);
		if (ok)
			result[i].key = read_key(records.items[i], ext_field, &page->error);
		ok = ok && result[i].key != NULL;
	}
	*reads = ok ? result : NULL;
	*nreads = ok ? records.n : 0;
	return close_records(&records, ok, page);
}

bool
rest_parse_lookup(const char *body, size_t len, const char *ext_field, RestRead **reads, int *nreads,
				  RestPage *page)
{
	Records records;
	bool ok = open_records(&records, body, len, page);
	RestRead *result = ok ? palloc0(sizeof(RestRead) * (records.n + 1)) : NULL;

	for (int i = 0; i < records.n && ok; i++)
	{
		result[i].found = true;
		result[i].id = read_id(records.items[i], "Id");
		if (result[i].id == NULL)
			page->error = pstrdup("a record of the reply has no valid Id");
		else
			result[i].key = read_key(records.items[i], ext_field, &page->error);
		ok = page->error == NULL;
	}
	*reads = ok ? result : NULL;
	*nreads = ok ? records.n : 0;
	return close_records(&records, ok, page);
}

static bool
read_deleted(json_object *record, RestRead *read, char **error)
{
	json_object *deleted;

	if (!read_record(record, NULL, 0, read, error))
		return false;
	find_member(record, "IsDeleted", &deleted);
	if (!json_object_is_type(deleted, json_type_boolean))
	{
		*error = pstrdup("a record of the reply has no valid IsDeleted");
		return false;
	}
	read->deleted = json_object_get_boolean(deleted);
	read->master_record_id = read_id(record, "MasterRecordId");
	return true;
}

bool
rest_parse_find_deleted(const char *body, size_t len, RestRead **reads, int *nreads, RestPage *page)
{
	Records records;
	bool ok = open_records(&records, body, len, page);
	RestRead *result = ok ? palloc(sizeof(RestRead) * (records.n + 1)) : NULL;

	for (int i = 0; i < records.n && ok; i++)
		ok = read_deleted(records.items[i], &result[i], &page->error);
	*reads = ok ? result : NULL;
	*nreads = ok ? records.n : 0;
	return close_records(&records, ok, page);
}

/* ------------------------------------------------------------------------
 * History and users
 * ------------------------------------------------------------------------
 */

/* The field asked that a history row is of; -1 if none. */
static int
history_field(json_object *row, const char *const *fields, int nfields)
{
	json_object *value;
	const char *name;

	find_member(row, "Field", &value);
	name = rest_plain_string(value);
	for (int i = 0; i < nfields && name != NULL; i++)
	{
		char *other = rest_history_name(fields[i]);

		if (pg_strcasecmp(fields[i], name) == 0 || (other != NULL && pg_strcasecmp(other, name) == 0))
			return i;
	}
	return -1;
}

static bool
read_change(json_object *row, const char *parent_field, RestChange *change, char **error)
{
	change->id = read_id(row, parent_field);
	if (change->id == NULL)
	{
		*error = psprintf("a record of the reply has no valid %s", parent_field);
		return false;
	}
	change->by = read_id(row, "CreatedById");
	return read_time(row, "CreatedDate", &change->at, error);
}

bool
rest_parse_history(const char *body, size_t len, const char *parent_field, const char *const *fields,
				   int nfields, RestChange **changes, int *nchanges, RestPage *page)
{
	Records records;
	bool ok = open_records(&records, body, len, page);
	RestChange *result = ok ? palloc(sizeof(RestChange) * (records.n + 1)) : NULL;
	int n = 0;

	for (int i = 0; i < records.n && ok; i++)
	{
		ok = read_change(records.items[i], parent_field, &result[n], &page->error);
		result[n].field = history_field(records.items[i], fields, nfields);

		/* a name that nobody asked for tells nothing of the fields asked */
		if (result[n].field >= 0)
			n++;
	}
	*changes = ok ? result : NULL;
	*nchanges = ok ? n : 0;
	return close_records(&records, ok, page);
}

bool
rest_parse_users(const char *body, size_t len, RestUser **users, int *nusers, RestPage *page)
{
	Records records;
	bool ok = open_records(&records, body, len, page);
	RestUser *result = ok ? palloc(sizeof(RestUser) * (records.n + 1)) : NULL;

	for (int i = 0; i < records.n && ok; i++)
	{
		json_object *name;

		find_member(records.items[i], "Name", &name);
		result[i].id = read_id(records.items[i], "Id");
		result[i].name = rest_clean_string(name, MAX_USER_NAME);
		ok = result[i].id != NULL && result[i].name != NULL;
		if (!ok)
			page->error = pstrdup("a record of the reply has no valid Id or Name");
	}
	*users = ok ? result : NULL;
	*nusers = ok ? records.n : 0;
	return close_records(&records, ok, page);
}
