/*
 * rest_query.c
 *		Requests of the REST API that read: records by Id, and queries as SOQL.
 *		Pure.
 */
#include "compat.h"

#include "lexical.h"
#include "rest_internal.h"

#define SOQL_LIMIT 90000     /* characters; Salesforce takes 100,000 */
#define ENCODED_LIMIT 400000 /* bytes of a query as it is sent */
#define LITERAL_LIMIT 4000   /* characters of one (section 5.6) */
#define LOOKUP_QUERIES 5     /* queries in a composite request (section 6) */

#define NO_SUCH_CONDITION "Id = NULL"

/* Salesforce knows times of the years 1700 to 4000 (section 3.4). */
#define OLDEST_TIME INT64CONST(-9467020800000000)
#define LATEST_TIME INT64CONST(63145440000000000)

/* What RestRead always has. */
static const char *const always_read[] = {"Id", "LastModifiedDate", "LastModifiedById", "SystemModstamp"};

typedef struct NameList
{
	const char **names;
	int n;
} NameList;

/* Add the names that are not there yet. */
static void
add_names(NameList *list, const char *const *names, int n)
{
	list->names = list->names == NULL ? palloc(sizeof(char *) * (n + 1))
									  : repalloc(list->names, sizeof(char *) * (list->n + n + 1));
	for (int i = 0; i < n; i++)
	{
		int j = 0;

		while (j < list->n && pg_strcasecmp(list->names[j], names[i]) != 0)
			j++;
		if (j == list->n)
			list->names[list->n++] = names[i];
	}
}

static void
append_json_strings(StringInfo out, const char *const *texts, int n)
{
	appendStringInfoChar(out, '[');
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			appendStringInfoChar(out, ',');
		rest_append_json_string(out, texts[i]);
	}
	appendStringInfoChar(out, ']');
}

RestCall *
rest_retrieve(const char *api_version, const char *object, const char *const *ids, int nids,
			  const char *const *fields, int nfields)
{
	StringInfoData path;
	StringInfoData body;
	RestCall *call;
	NameList list = {NULL, 0};

	add_names(&list, always_read, lengthof(always_read));
	add_names(&list, fields, nfields);
	rest_start_path(&path, api_version, "/composite/sobjects/");
	rest_append_encoded(&path, object);
	initStringInfo(&body);
	appendStringInfoString(&body, "{\"ids\":");
	append_json_strings(&body, ids, nids);
	appendStringInfoString(&body, ",\"fields\":");
	append_json_strings(&body, list.names, list.n);
	appendStringInfoChar(&body, '}');
	pfree(list.names);
	call = rest_make_call("POST", &path, &body);
	call->taken = nids;
	return call;
}

typedef enum LiteralKind
{
	LITERAL_TEXT,
	LITERAL_NUMBER,
	LITERAL_ID
} LiteralKind;

/*
 * A value as a SOQL literal (section 7.2); NULL if no field can hold it.  One
 * such among many would fail the whole query.
 */
static char *
soql_literal(const char *value, LiteralKind kind)
{
	StringInfoData out;

	if (lexical_characters(value) > LITERAL_LIMIT)
		return NULL;
	if (kind == LITERAL_NUMBER)
		return rest_number_key(value);
	if (kind == LITERAL_ID)
	{
		char *id = rest_id18(value);

		return id != NULL ? psprintf("'%s'", id) : NULL;
	}
	initStringInfo(&out);
	appendStringInfoChar(&out, '\'');
	for (; *value != '\0'; value++)
	{
		unsigned char c = (unsigned char) *value;

		if (c == '\'' || c == '"' || c == '\\')
			appendStringInfo(&out, "\\%c", c);
		else if (c < 0x20 || c == 0x7F)
			appendStringInfo(&out, "\\u%04X", c);
		else
			appendStringInfoChar(&out, *value);
	}
	appendStringInfoChar(&out, '\'');
	return out.data;
}

static int
encoded_length(const char *text)
{
	StringInfoData out;
	int length;

	initStringInfo(&out);
	rest_append_encoded(&out, text);
	length = out.len;
	pfree(out.data);
	return length;
}

/*
 * "field IN (...)" with as many of the values as the query has room for; how
 * many these are.  Values that no record can have count, and are left out.
 */
static int
append_in(StringInfo soql, const char *field, LiteralKind kind, const char *const *values, int nvalues)
{
	int characters = lexical_characters(soql->data) + (int) strlen(field);
	int encoded = 3 * characters;
	bool empty = true;
	int i;

	for (i = 0; i < nvalues; i++)
	{
		char *literal = soql_literal(values[i], kind);

		if (literal == NULL)
			continue;
		characters += lexical_characters(literal) + 1;
		encoded += encoded_length(literal) + 3;
		if (!empty && (characters > SOQL_LIMIT || encoded > ENCODED_LIMIT))
		{
			pfree(literal);
			break;
		}
		if (empty)
			appendStringInfo(soql, "%s IN (", field);
		else
			appendStringInfoChar(soql, ',');
		appendStringInfoString(soql, literal);
		pfree(literal);
		empty = false;
	}
	appendStringInfoString(soql, empty ? NO_SUCH_CONDITION : ")");
	return i;
}

static void
start_select(StringInfo soql, const NameList *list, const char *object)
{
	initStringInfo(soql);
	for (int i = 0; i < list->n; i++)
		appendStringInfo(soql, "%s%s", i == 0 ? "SELECT " : ",", list->names[i]);
	appendStringInfo(soql, " FROM %s WHERE ", object);
	pfree(list->names);
}

static void
append_query(StringInfo body, const char *api_version, const char *resource, const char *soql, int part,
			 int nparts)
{
	StringInfoData path;
	RestCall *call;

	rest_start_path(&path, api_version, resource);
	appendStringInfoString(&path, "?q=");
	rest_append_encoded(&path, soql);
	call = rest_make_call("GET", &path, NULL);
	rest_append_part(body, part, nparts, NULL, call);
	pfree(call->path);
	pfree(call);
}

/* A query of any length goes inside a composite request (section 5.6). */
static RestCall *
query_call(const char *api_version, const char *resource, StringInfo soql, int taken)
{
	StringInfoData body;
	RestCall *call;

	rest_open_composite(&body);
	append_query(&body, api_version, resource, soql->data, 0, 1);
	pfree(soql->data);
	call = rest_close_composite(&body, api_version);
	call->taken = taken;
	return call;
}

RestCall *
rest_find(const char *api_version, const RestTarget *target, const char *const *keys, int nkeys,
		  const char *const *fields, int nfields)
{
	StringInfoData soql;
	NameList list = {NULL, 0};
	int taken;
	LiteralKind key_kind = target->key_is_number ? LITERAL_NUMBER : LITERAL_TEXT;

	add_names(&list, always_read, lengthof(always_read));
	add_names(&list, &target->key_field, 1);
	add_names(&list, fields, nfields);
	start_select(&soql, &list, target->object);
	taken = append_in(&soql, target->key_field, key_kind, keys, nkeys);
	return query_call(api_version, "/query", &soql, taken);
}

RestCall *
rest_scan(const char *api_version, const RestTarget *target, const char *const *fields, int nfields)
{
	StringInfoData soql;
	NameList list = {NULL, 0};

	add_names(&list, always_read, lengthof(always_read));
	add_names(&list, &target->key_field, 1);
	add_names(&list, fields, nfields);
	start_select(&soql, &list, target->object);
	appendStringInfo(&soql, "%s != null", target->key_field);
	return query_call(api_version, "/query", &soql, 0);
}

RestCall *
rest_find_deleted(const char *api_version, const char *object, bool has_master, const char *const *ids,
				  int nids)
{
	static const char *const further[] = {"IsDeleted", "MasterRecordId"};
	StringInfoData soql;
	NameList list = {NULL, 0};
	int taken;

	add_names(&list, always_read, lengthof(always_read));
	add_names(&list, further, has_master ? 2 : 1);
	start_select(&soql, &list, object);
	taken = append_in(&soql, "Id", LITERAL_ID, ids, nids);
	return query_call(api_version, "/queryAll", &soql, taken);
}

char *
rest_history_name(const char *field)
{
	size_t len = strlen(field);

	if (len <= 2 || strcmp(field + len - 2, "Id") != 0)
		return NULL;
	return pnstrdup(field, len - 2);
}

static void
append_history_fields(StringInfo soql, const char *const *fields, int nfields)
{
	for (int i = 0; i < nfields; i++)
	{
		char *other = rest_history_name(fields[i]);

		appendStringInfo(soql, "%s'%s'", i == 0 ? "Field IN (" : ",", fields[i]);
		if (other != NULL)
			appendStringInfo(soql, ",'%s'", other);
	}
	appendStringInfoString(soql, nfields > 0 ? ") AND " : NO_SUCH_CONDITION " AND ");
}

RestCall *
rest_history(const char *api_version, const char *history_object, const char *parent_field,
			 const char *const *ids, int nids, const char *const *fields, int nfields, int64 since)
{
	const char *const names[] = {parent_field, "Field", "CreatedDate", "CreatedById"};
	StringInfoData soql;
	NameList list = {NULL, 0};
	int taken;

	add_names(&list, names, lengthof(names));
	start_select(&soql, &list, history_object);
	append_history_fields(&soql, fields, nfields);
	if (since > OLDEST_TIME)
		appendStringInfo(&soql, "CreatedDate >= %s AND ", rest_soql_time(Min(since, LATEST_TIME)));
	taken = append_in(&soql, parent_field, LITERAL_ID, ids, nids);
	appendStringInfoString(&soql, " ORDER BY CreatedDate DESC");
	return query_call(api_version, "/query", &soql, taken);
}

RestCall *
rest_users(const char *api_version, const char *const *ids, int nids)
{
	static const char *const names[] = {"Id", "Name"};
	StringInfoData soql;
	NameList list = {NULL, 0};
	int taken;

	add_names(&list, names, lengthof(names));
	start_select(&soql, &list, "User");
	taken = append_in(&soql, "Id", LITERAL_ID, ids, nids);
	return query_call(api_version, "/query", &soql, taken);
}

RestCall *
rest_lookup(const char *api_version, const RestTarget *target, const char *const *keys, int nkeys)
{
	StringInfoData soql[LOOKUP_QUERIES];
	StringInfoData body;
	RestCall *call;
	LiteralKind key_kind = target->key_is_number ? LITERAL_NUMBER : LITERAL_TEXT;
	int nparts = 0;
	int taken = 0;

	do
	{
		NameList list = {NULL, 0};

		add_names(&list, always_read, 1);
		add_names(&list, &target->key_field, 1);
		start_select(&soql[nparts], &list, target->object);
		taken += append_in(&soql[nparts++], target->key_field, key_kind, keys + taken, nkeys - taken);
	} while (taken < nkeys && nparts < LOOKUP_QUERIES);

	rest_open_composite(&body);
	for (int i = 0; i < nparts; i++)
	{
		append_query(&body, api_version, "/query", soql[i].data, i, nparts);
		pfree(soql[i].data);
	}
	call = rest_close_composite(&body, api_version);
	call->taken = taken;
	return call;
}
