/*
 * describe.c
 *		Parsing of a describe reply, and its reduced form.  Pure.
 */
#define SFSYNC_USE_JSON_C
#include "compat.h"

#include "describe.h"
#include "rest_json.h"

/* A describe has some hundreds of fields; nobody's has this many. */
#define MAX_FIELDS 5000
#define MAX_NAME 255

/* The first thing that was wrong, as the parser goes along. */
typedef struct Reader
{
	char *error;
} Reader;

static const struct
{
	const char *name;
	SfType type;
} sf_types[] = {
	{"id", SF_ID},
	{"reference", SF_REFERENCE},
	{"string", SF_STRING},
	{"textarea", SF_TEXTAREA},
	{"phone", SF_PHONE},
	{"url", SF_URL},
	{"email", SF_EMAIL},
	{"combobox", SF_COMBOBOX},
	{"encryptedstring", SF_ENCRYPTED},
	{"picklist", SF_PICKLIST},
	{"multipicklist", SF_MULTIPICKLIST},
	{"boolean", SF_BOOLEAN},
	{"int", SF_INT},
	{"long", SF_LONG},
	{"double", SF_DOUBLE},
	{"currency", SF_CURRENCY},
	{"percent", SF_PERCENT},
	{"date", SF_DATE},
	{"datetime", SF_DATETIME},
	{"time", SF_TIME},
	{"base64", SF_BASE64},
};

/* The keys read, which are those of the reduced form. */
static const char *const object_keys[] = {"name",       "label",     "keyPrefix", "createable",
										  "updateable", "deletable", "queryable"};

static const char *const field_keys[] = {"name",
										 "label",
										 "type",
										 "length",
										 "digits",
										 "precision",
										 "scale",
										 "createable",
										 "updateable",
										 "nillable",
										 "defaultedOnCreate",
										 "defaultValue",
										 "calculated",
										 "custom",
										 "externalId",
										 "idLookup",
										 "unique",
										 "caseSensitive",
										 "restrictedPicklist",
										 "htmlFormatted",
										 "relationshipName",
										 "referenceTo"};

static void
complain(Reader *reader, const char *key, const char *expected)
{
	if (reader->error == NULL)
		reader->error = psprintf("not a describe: \"%s\" is not %s", key, expected);
}

static char *
read_string(Reader *reader, json_object *parent, const char *key)
{
	json_object *value = rest_member(parent, key);
	char *copy;

	if (value == NULL)
		return NULL;
	copy = rest_string_copy(value);
	if (copy == NULL)
		complain(reader, key, "text");
	return copy;
}

/*
 * API names go into URLs, SOQL and JSON keys, so they must be what they claim
 * to be: letters, digits and underscores.
 */
bool
describe_is_name(const char *name, size_t len)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";

	return len > 0 && len <= MAX_NAME && strspn(name, letters) == len;
}

static char *
read_name(Reader *reader, json_object *parent, const char *key)
{
	char *name = read_string(reader, parent, key);

	if (name == NULL || !describe_is_name(name, strlen(name)))
	{
		complain(reader, key, "an API name");
		return NULL;
	}
	return name;
}

static bool
read_bool(Reader *reader, json_object *parent, const char *key)
{
	json_object *value = rest_member(parent, key);

	if (value != NULL && !json_object_is_type(value, json_type_boolean))
		complain(reader, key, "true or false");
	return value != NULL && json_object_get_boolean(value);
}

static int
read_int(Reader *reader, json_object *parent, const char *key)
{
	json_object *value = rest_member(parent, key);
	int64 number;

	if (value == NULL)
		return 0;
	number = json_object_get_int64(value);
	if (!json_object_is_type(value, json_type_int) || number < 0 || number > PG_INT32_MAX)
	{
		complain(reader, key, "a size");
		return 0;
	}
	return (int) number;
}

/* An array that may be absent; its length in *n. */
static json_object *
read_array(Reader *reader, json_object *parent, const char *key, int *n)
{
	json_object *value = rest_member(parent, key);

	*n = 0;
	if (value == NULL)
		return NULL;
	if (!json_object_is_type(value, json_type_array) || json_object_array_length(value) > PG_INT32_MAX)
	{
		complain(reader, key, "an array");
		return NULL;
	}
	*n = (int) json_object_array_length(value);
	return value;
}

static SfType
type_from_name(const char *name)
{
	for (size_t i = 0; i < lengthof(sf_types); i++)
	{
		if (strcmp(sf_types[i].name, name) == 0)
			return sf_types[i].type;
	}
	return SF_OTHER;
}

static void
read_reference_to(Reader *reader, json_object *json, SfField *field)
{
	int n;
	json_object *array = read_array(reader, json, "referenceTo", &n);

	field->reference_to = palloc0(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		char *name = rest_string_copy(json_object_array_get_idx(array, i));

		if (name == NULL)
		{
			complain(reader, "referenceTo", "a list of names");
			return;
		}
		field->reference_to[field->nreference_to++] = name;
	}
}

/* Active values only; Salesforce takes and tells "value", never "label". */
static void
read_picklist(Reader *reader, json_object *json, SfField *field)
{
	int n;
	json_object *array = read_array(reader, json, "picklistValues", &n);

	field->picklist = palloc0(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		json_object *entry = json_object_array_get_idx(array, i);
		char *value;

		if (!json_object_is_type(entry, json_type_object))
		{
			complain(reader, "picklistValues", "a list of values");
			return;
		}
		if (!read_bool(reader, entry, "active"))
			continue;
		value = read_string(reader, entry, "value");
		if (value == NULL)
		{
			complain(reader, "value", "text");
			return;
		}
		field->picklist[field->npicklist++] = value;
	}
}

/* defaultValue has the type of the field; only a checkbox's is of use. */
static bool
read_default_boolean(json_object *json)
{
	json_object *value = rest_member(json, "defaultValue");

	if (json_object_is_type(value, json_type_boolean))
		return json_object_get_boolean(value);
	return json_object_is_type(value, json_type_string) && strcmp(json_object_get_string(value), "true") == 0;
}

static void
read_field_flags(Reader *reader, json_object *json, SfField *field)
{
	field->createable = read_bool(reader, json, "createable");
	field->updateable = read_bool(reader, json, "updateable");
	field->nillable = read_bool(reader, json, "nillable");
	field->defaulted_on_create = read_bool(reader, json, "defaultedOnCreate");
	field->calculated = read_bool(reader, json, "calculated");
	field->custom = read_bool(reader, json, "custom");
	field->external_id = read_bool(reader, json, "externalId");
	field->id_lookup = read_bool(reader, json, "idLookup");
	field->unique = read_bool(reader, json, "unique");
	field->case_sensitive = read_bool(reader, json, "caseSensitive");
	field->restricted_picklist = read_bool(reader, json, "restrictedPicklist");
	field->html_formatted = read_bool(reader, json, "htmlFormatted");
}

static void
read_field(Reader *reader, json_object *json, SfField *field)
{
	if (!json_object_is_type(json, json_type_object))
	{
		complain(reader, "fields", "a list of fields");
		return;
	}
	field->name = read_name(reader, json, "name");
	field->label = read_string(reader, json, "label");
	field->type_name = read_string(reader, json, "type");
	if (field->type_name == NULL)
	{
		complain(reader, "type", "text");
		return;
	}
	field->type = type_from_name(field->type_name);
	field->length = read_int(reader, json, "length");
	field->digits = read_int(reader, json, "digits");
	field->precision = read_int(reader, json, "precision");
	field->scale = read_int(reader, json, "scale");
	read_field_flags(reader, json, field);
	field->default_boolean = field->type == SF_BOOLEAN && read_default_boolean(json);
	read_picklist(reader, json, field);
	field->relationship_name = read_string(reader, json, "relationshipName");
	read_reference_to(reader, json, field);
	if (field->label == NULL && field->name != NULL)
		field->label = pstrdup(field->name);
}

static void
read_fields(Reader *reader, json_object *json, SfObject *object)
{
	int n;
	json_object *array = read_array(reader, json, "fields", &n);

	if (array == NULL || n == 0 || n > MAX_FIELDS)
	{
		complain(reader, "fields", "a list of fields");
		return;
	}
	object->fields = palloc0(sizeof(SfField) * n);
	object->nfields = n;
	for (int i = 0; i < n && reader->error == NULL; i++)
		read_field(reader, json_object_array_get_idx(array, i), &object->fields[i]);
}

/* An API name in json-c's memory; NULL if the value is none. */
static const char *
api_name(json_object *value)
{
	const char *name = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;

	return name != NULL && describe_is_name(name, (size_t) json_object_get_string_len(value)) ? name : NULL;
}

/* Does an object of this name hold the history of the one named object (reference, section 7.4)? */
static bool
is_history_of(const char *name, const char *object)
{
	size_t len = strlen(object);

	if (len > 3 && pg_strcasecmp(object + len - 3, "__c") == 0)
		return pg_strncasecmp(name, object, len - 3) == 0 && pg_strcasecmp(name + len - 3, "__History") == 0;

	/* an OpportunityHistory is about its stages: that of its fields has a name of its own */
	if (pg_strcasecmp(object, "Opportunity") == 0)
		return pg_strcasecmp(name, "OpportunityFieldHistory") == 0;
	return pg_strncasecmp(name, object, len) == 0 && pg_strcasecmp(name + len, "History") == 0;
}

/*
 * The child relationship through which an object has the history of its
 * fields; NULL if it has none that we may see.  What isn't understood here
 * doesn't matter, as history is of help only.
 */
static json_object *
history_relationship(json_object *json, const char *object)
{
	json_object *children = rest_member(json, "childRelationships");
	size_t n = json_object_is_type(children, json_type_array) ? json_object_array_length(children) : 0;

	for (size_t i = 0; i < n; i++)
	{
		json_object *child = json_object_array_get_idx(children, i);
		const char *name;

		if (!json_object_is_type(child, json_type_object))
			continue;
		name = api_name(rest_member(child, "childSObject"));
		if (name != NULL && api_name(rest_member(child, "field")) != NULL && is_history_of(name, object))
			return child;
	}
	return NULL;
}

static void
read_history(json_object *json, SfObject *object)
{
	json_object *child = history_relationship(json, object->name);

	if (child == NULL)
		return;
	object->history_object = rest_string_copy(rest_member(child, "childSObject"));
	object->history_parent = rest_string_copy(rest_member(child, "field"));
}

static SfObject *
read_object(json_object *json, char **error)
{
	Reader reader = {NULL};
	SfObject *object = palloc0(sizeof(SfObject));

	object->name = read_name(&reader, json, "name");
	object->label = read_string(&reader, json, "label");
	if (object->label == NULL && object->name != NULL)
		object->label = pstrdup(object->name);
	object->key_prefix = read_string(&reader, json, "keyPrefix");
	object->createable = read_bool(&reader, json, "createable");
	object->updateable = read_bool(&reader, json, "updateable");
	object->deletable = read_bool(&reader, json, "deletable");
	object->queryable = read_bool(&reader, json, "queryable");
	if (reader.error == NULL)
		read_fields(&reader, json, object);
	if (reader.error == NULL)
		read_history(json, object);

	*error = reader.error;
	return reader.error == NULL ? object : NULL;
}

/* The reply as an object, NULL and *error if it is none. */
static json_object *
open_reply(const char *text, size_t len, char **error)
{
	json_object *json = rest_parse_json(text, len);

	*error = NULL;
	if (json_object_is_type(json, json_type_object))
		return json;
	json_object_put(json);
	*error = pstrdup("not a describe: the text is not a JSON object");
	return NULL;
}

SfObject *
describe_parse(const char *json, size_t len, char **error)
{
	json_object *reply = open_reply(json, len, error);
	SfObject *object;

	if (reply == NULL)
		return NULL;
	object = read_object(reply, error);
	json_object_put(reply);
	return object;
}

/* Share the members named with a new object. */
static json_object *
copy_members(json_object *from, const char *const *keys, int nkeys)
{
	json_object *to = json_object_new_object();

	for (int i = 0; i < nkeys; i++)
	{
		json_object *value = rest_member(from, keys[i]);

		if (value != NULL)
			json_object_object_add(to, keys[i], json_object_get(value));
	}
	return to;
}

static json_object *
reduce_picklist(json_object *values)
{
	static const char *const keys[] = {"active", "value"};
	json_object *reduced = json_object_new_array();

	for (size_t i = 0; i < json_object_array_length(values); i++)
	{
		json_object *entry = json_object_array_get_idx(values, i);

		if (json_object_get_boolean(rest_member(entry, "active")))
			json_object_array_add(reduced, copy_members(entry, keys, lengthof(keys)));
	}
	return reduced;
}

static void
reduce_history(json_object *json, json_object *reduced)
{
	static const char *const keys[] = {"childSObject", "field"};
	json_object *child = history_relationship(json, json_object_get_string(rest_member(json, "name")));
	json_object *children;

	if (child == NULL)
		return;
	children = json_object_new_array();
	json_object_array_add(children, copy_members(child, keys, lengthof(keys)));
	json_object_object_add(reduced, "childRelationships", children);
}

/* json has passed read_object, so all of it has the types expected. */
static json_object *
reduce_object(json_object *json)
{
	json_object *reduced = copy_members(json, object_keys, lengthof(object_keys));
	json_object *fields = rest_member(json, "fields");
	json_object *reduced_fields = json_object_new_array();

	for (size_t i = 0; i < json_object_array_length(fields); i++)
	{
		json_object *field = json_object_array_get_idx(fields, i);
		json_object *values = rest_member(field, "picklistValues");
		json_object *copy = copy_members(field, field_keys, lengthof(field_keys));

		if (values != NULL && json_object_array_length(values) > 0)
			json_object_object_add(copy, "picklistValues", reduce_picklist(values));
		json_object_array_add(reduced_fields, copy);
	}
	json_object_object_add(reduced, "fields", reduced_fields);
	reduce_history(json, reduced);
	return reduced;
}

char *
describe_reduce(const char *json, size_t len, char **error)
{
	json_object *reply = open_reply(json, len, error);
	char *text = NULL;

	if (reply == NULL)
		return NULL;
	if (read_object(reply, error) != NULL)
	{
		json_object *reduced = reduce_object(reply);

		text = rest_json_text(reduced);
		json_object_put(reduced);
	}
	json_object_put(reply);
	return text;
}

const SfField *
describe_field(const SfObject *object, const char *name)
{
	for (int i = 0; i < object->nfields; i++)
	{
		if (pg_strcasecmp(object->fields[i].name, name) == 0)
			return &object->fields[i];
	}
	return NULL;
}

bool
describe_required(const SfField *field)
{
	return field->createable && !field->nillable && !field->defaulted_on_create;
}

bool
describe_is_number(const SfField *field)
{
	switch (field->type)
	{
		case SF_INT:
		case SF_LONG:
		case SF_DOUBLE:
		case SF_CURRENCY:
		case SF_PERCENT:
			return true;
		default:
			return false;
	}
}
