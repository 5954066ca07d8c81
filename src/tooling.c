/*
 * tooling.c
 *		Custom fields by the Tooling API: requests and replies.  Pure.
 */
#define SFSYNC_USE_JSON_C
#include "compat.h"

#include "rest_internal.h"
#include "rest_json.h"
#include "tooling.h"

#define MAX_NAME 40 /* of a field, without __c; and of a label */
#define MAX_DIGITS 18
#define MAX_TEXT 255
#define MIN_LONG_TEXT 256
#define MAX_LONG_TEXT 131072
#define ANY_LENGTH 32768
#define MAX_PICKLIST 1000

/* ------------------------------------------------------------------------
 * Names and types
 * ------------------------------------------------------------------------
 */

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/*
 * The words of a column's name, each with a capital first letter, with a
 * separator between: underscores don't stand twice, first or last.  NULL if it
 * holds anything that a field's name can't.
 */
static char *
join_words(const char *column, char separator)
{
	StringInfoData out;
	bool start = true;

	initStringInfo(&out);
	for (const char *p = column; *p != '\0'; p++)
	{
		if (*p == '_')
		{
			start = true;
			continue;
		}
		if (!is_letter(*p) && !is_digit(*p))
			return NULL;
		if (start && out.len > 0)
			appendStringInfoChar(&out, separator);
		appendStringInfoChar(&out, start ? (char) pg_ascii_toupper((unsigned char) *p) : *p);
		start = false;
	}
	if (out.len == 0 || out.len > MAX_NAME || !is_letter(out.data[0]))
		return NULL;
	return out.data;
}

char *
tooling_field_name(const char *column)
{
	char *words = join_words(column, '_');

	return words != NULL ? psprintf("%s__c", words) : NULL;
}

char *
tooling_field_label(const char *column)
{
	return join_words(column, ' ');
}

NewField
tooling_text(int length)
{
	NewField field = {NEW_FIELD_TEXT};

	field.length = length > 0 ? Min(length, MAX_LONG_TEXT) : ANY_LENGTH;
	if (field.length > MAX_TEXT)
	{
		field.type = NEW_FIELD_LONG_TEXT;
		field.length = Max(field.length, MIN_LONG_TEXT);
	}
	return field;
}

/*
 * PostgreSQL has scales below zero, and above the precision; Salesforce has
 * neither.
 */
NewField
tooling_number(int precision, int scale)
{
	NewField field = {NEW_FIELD_NUMBER};

	field.precision = scale < 0 ? precision - scale : Max(precision, scale);
	field.scale = Max(scale, 0);
	return precision > 0 && field.precision <= MAX_DIGITS ? field : tooling_text(MAX_TEXT);
}

/* Salesforce trims values and takes no two that differ by case alone. */
NewField
tooling_picklist(char **labels, int nlabels)
{
	NewField field = {NEW_FIELD_PICKLIST};
	bool good = nlabels > 0 && nlabels <= MAX_PICKLIST;

	for (int i = 0; i < nlabels && good; i++)
	{
		size_t len = strlen(labels[i]);

		good = len > 0 && labels[i][0] != ' ' && labels[i][len - 1] != ' ' && strchr(labels[i], ';') == NULL;
		for (int j = 0; j < i && good; j++)
			good = pg_strcasecmp(labels[i], labels[j]) != 0;
	}
	if (!good)
		return tooling_text(MAX_TEXT);
	field.labels = labels;
	field.nlabels = nlabels;
	return field;
}

/* ------------------------------------------------------------------------
 * Requests
 * ------------------------------------------------------------------------
 */

static void
append_member(StringInfo out, const char *separator, const char *key, const char *value)
{
	appendStringInfo(out, "%s\"%s\":", separator, key);
	rest_append_json_string(out, value);
}

/* Not restricted: a label that is added to the enum later must not fail. */
static void
append_picklist(StringInfo out, const NewField *field)
{
	appendStringInfoString(
		out, ",\"valueSet\":{\"restricted\":false,\"valueSetDefinition\":{\"sorted\":false,\"value\":[");
	for (int i = 0; i < field->nlabels; i++)
	{
		appendStringInfoString(out, i > 0 ? ",{" : "{");
		append_member(out, "", "fullName", field->labels[i]);
		append_member(out, ",", "label", field->labels[i]);
		appendStringInfoString(out, ",\"default\":false}");
	}
	appendStringInfoString(out, "]}}");
}

static void
append_type(StringInfo out, const NewField *field)
{
	switch (field->type)
	{
		case NEW_FIELD_TEXT:
			appendStringInfo(out, "\"type\":\"Text\",\"length\":%d", field->length);
			break;
		case NEW_FIELD_LONG_TEXT:
			appendStringInfo(out, "\"type\":\"LongTextArea\",\"length\":%d,\"visibleLines\":3",
							 field->length);
			break;
		case NEW_FIELD_NUMBER:
			appendStringInfo(out, "\"type\":\"Number\",\"precision\":%d,\"scale\":%d", field->precision,
							 field->scale);
			break;
		case NEW_FIELD_CHECKBOX:
			appendStringInfoString(out, "\"type\":\"Checkbox\",\"defaultValue\":\"false\"");
			break;
		case NEW_FIELD_DATE:
			appendStringInfoString(out, "\"type\":\"Date\"");
			break;
		case NEW_FIELD_DATETIME:
			appendStringInfoString(out, "\"type\":\"DateTime\"");
			break;
		case NEW_FIELD_TIME:
			appendStringInfoString(out, "\"type\":\"Time\"");
			break;
		case NEW_FIELD_PICKLIST:
			appendStringInfoString(out, "\"type\":\"Picklist\"");
			append_picklist(out, field);
			break;
	}
}

static RestCall *
post(const char *api_version, const char *resource, const StringInfoData *body)
{
	StringInfoData path;

	rest_start_path(&path, api_version, resource);
	return rest_make_call("POST", &path, body);
}

RestCall *
tooling_create_field(const char *api_version, const char *object, const char *name, const char *label,
					 const NewField *field)
{
	StringInfoData body;

	initStringInfo(&body);
	append_member(&body, "{", "FullName", psprintf("%s.%s", object, name));
	append_member(&body, ",\"Metadata\":{", "label", label);
	append_member(&body, ",", "description", "Made by sfsync for a column of a mapped PostgreSQL table");
	appendStringInfoString(&body, ",\"required\":false,");
	append_type(&body, field);
	appendStringInfoString(&body, "}}");
	return post(api_version, "/tooling/sobjects/CustomField", &body);
}

RestCall *
tooling_find_permission_set(const char *api_version)
{
	StringInfoData path;

	rest_start_path(&path, api_version, "/query?q=");
	rest_append_encoded(&path, "SELECT Id FROM PermissionSet WHERE Name = '" TOOLING_PERMISSION_SET "'");
	return rest_make_call("GET", &path, NULL);
}

RestCall *
tooling_create_permission_set(const char *api_version)
{
	StringInfoData body;

	initStringInfo(&body);
	append_member(&body, "{", "Name", TOOLING_PERMISSION_SET);
	append_member(&body, ",", "Label", TOOLING_PERMISSION_SET);
	appendStringInfoChar(&body, '}');
	return post(api_version, "/sobjects/PermissionSet", &body);
}

RestCall *
tooling_grant_field(const char *api_version, const char *permission_set, const char *object, const char *name)
{
	StringInfoData body;

	initStringInfo(&body);
	append_member(&body, "{", "ParentId", permission_set);
	append_member(&body, ",", "SobjectType", object);
	append_member(&body, ",", "Field", psprintf("%s.%s", object, name));
	appendStringInfoString(&body, ",\"PermissionsRead\":true,\"PermissionsEdit\":true}");
	return post(api_version, "/sobjects/FieldPermissions", &body);
}

RestCall *
tooling_assign(const char *api_version, const char *permission_set, const char *user)
{
	StringInfoData body;

	initStringInfo(&body);
	append_member(&body, "{", "AssigneeId", user);
	append_member(&body, ",", "PermissionSetId", permission_set);
	appendStringInfoChar(&body, '}');
	return post(api_version, "/sobjects/PermissionSetAssignment", &body);
}

/* ------------------------------------------------------------------------
 * Replies
 * ------------------------------------------------------------------------
 */

static char *
member_id(json_object *json, const char *key)
{
	const char *id = rest_plain_string(rest_member(json, key));

	return id != NULL ? rest_id18(id) : NULL;
}

bool
tooling_parse_found(const char *body, size_t len, char **id, char **error)
{
	json_object *json = rest_parse_json(body, len);
	json_object *records = rest_member(json, "records");
	bool good = json_object_is_type(records, json_type_array);

	*id = NULL;
	if (good && json_object_array_length(records) > 0)
	{
		*id = member_id(json_object_array_get_idx(records, 0), "Id");
		good = *id != NULL;
	}
	json_object_put(json);
	if (!good)
		*error = pstrdup("the reply is not that of a query");
	return good;
}

bool
tooling_parse_created(const char *body, size_t len, char **id, char **error)
{
	json_object *json = rest_parse_json(body, len);
	json_object *success = rest_member(json, "success");

	*id = json_object_get_boolean(success) ? member_id(json, "id") : NULL;
	json_object_put(json);
	if (*id == NULL)
		*error = pstrdup("the reply does not tell the Id of what was created");
	return *id != NULL;
}
