/*
 * delete_policy.c
 *		What a deleted row means for its record.
 */
#include "compat.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "api.h"
#include "coerce.h"
#include "datum.h"
#include "delete_policy.h"
#include "names.h"

#define TOKEN_NOW "$now"
#define TOKEN_KEY "$key"

static const char *const tokens[] = {TOKEN_NOW, TOKEN_KEY};

/* One value of the object. */
typedef struct GivenValue
{
	char *name; /* of the field, as it was written */
	JsonbValue value;
} GivenValue;

/* What is wrong with the values; code 0: nothing. */
typedef struct Fault
{
	int code;
	char *message;
	char *detail; /* NULL, or one line more */
	char *hint;   /* likewise */
} Fault;

bool
delete_policy_sets_values(const char *on_delete)
{
	return strcmp(on_delete, "archive") == 0 || strcmp(on_delete, "deactivate") == 0;
}

/*
 * Reading the object.  The server's own type, since that of json-c would lose
 * digits of numbers.
 */

static Jsonb *
read_json(const char *values)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(values)));
}

static GivenValue *
given_values(const char *values, int *n)
{
	Jsonb *json = read_json(values);
	JsonbIterator *iterator = JsonbIteratorInit(&json->root);
	GivenValue *given = palloc0(sizeof(GivenValue) * Max(JB_ROOT_COUNT(json), 1));
	JsonbIteratorToken token;
	JsonbValue item;

	*n = 0;
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			given[*n].name = pnstrdup(item.val.string.val, item.val.string.len);
		else if (token == WJB_VALUE)
			given[(*n)++].value = item;
	}
	return given;
}

/* NULL unless it is a string. */
static char *
given_string(const GivenValue *given)
{
	if (given->value.type != jbvString)
		return NULL;
	return pnstrdup(given->value.val.string.val, given->value.val.string.len);
}

static bool
is_token(const GivenValue *given, const char *token)
{
	char *string = given_string(given);

	return string && strcmp(string, token) == 0;
}

/*
 * The form, which can be checked without knowing the object
 */

static void
set_fault(Fault *fault, int code, char *message, char *detail, char *hint)
{
	fault->code = code;
	fault->message = message;
	fault->detail = detail;
	fault->hint = hint;
}

static void
raise_fault(const Fault *fault)
{
	if (fault->code != 0)
		ereport(ERROR, (errcode(fault->code), errmsg("%s", fault->message), errdetail("%s", fault->detail),
						errhint("%s", fault->hint)));
}

static void
check_form(const GivenValue *given, Fault *fault)
{
	char *string = given_string(given);
	const char *nearest;

	api_check_name("delete_values", given->name);
	if (given->value.type == jbvBinary)
		set_fault(
			fault, ERRCODE_INVALID_PARAMETER_VALUE,
			psprintf("value of field \"%s\" in argument \"delete_values\" is no single value", given->name),
			pstrdup("A value must be a string, a number, true, false or null."),
			pstrdup("For example: {\"Archived__c\": true}"));
	else if (string && string[0] == '$' && strcmp(string, TOKEN_NOW) != 0 && strcmp(string, TOKEN_KEY) != 0)
	{
		nearest = nearest_match(string, tokens, lengthof(tokens));
		set_fault(
			fault, ERRCODE_INVALID_PARAMETER_VALUE,
			psprintf("unknown token \"%s\" for field \"%s\" in argument \"delete_values\"", string,
					 given->name),
			psprintf("A string that begins with $ must be one of: %s.", names_list(tokens, lengthof(tokens))),
			nearest ? psprintf("Perhaps you meant \"%s\".", nearest)
					: pstrdup("$now is the time of the delete, $key the key of the row."));
	}
}

static void
refuse_values(const char *on_delete)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("argument \"delete_values\" doesn't go with on_delete '%s'", on_delete),
					errdetail("It tells the fields to set under the policies archive and deactivate."),
					errhint("Leave the argument out, or pass on_delete => 'archive' or 'deactivate'.")));
}

static void
require_values(const char *on_delete)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		 errmsg("on_delete '%s' needs the argument \"delete_values\"", on_delete),
		 errdetail("It must be a JSON object of the fields to set when a row is deleted."),
		 errhint("For example: delete_values => '{\"Archived__c\": true, \"Archived_At__c\": \"$now\"}'")));
}

void
delete_values_check(const char *on_delete, const char *values)
{
	Jsonb *json;
	GivenValue *given;
	int n;

	if (!delete_policy_sets_values(on_delete))
	{
		if (values)
			refuse_values(on_delete);
		return;
	}
	if (!values)
		require_values(on_delete);
	json = read_json(values);
	if (!JB_ROOT_IS_OBJECT(json) || JB_ROOT_COUNT(json) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument \"delete_values\" must be a JSON object with at least one field"),
			 errdetail("It names the fields that are set in place of a delete, and their values."),
			 errhint(
				 "For example: delete_values => '{\"Archived__c\": true, \"Archived_At__c\": \"$now\"}'")));
	given = given_values(values, &n);
	for (int i = 0; i < n; i++)
	{
		Fault fault = {0};

		check_form(&given[i], &fault);
		raise_fault(&fault);
	}
}

/*
 * Values for fields
 */

/* The day in the mapping's time zone. */
static char *
day_of(TimestampTz now, const char *zone)
{
	Datum local = DirectFunctionCall2(timestamptz_zone, CStringGetTextDatum(zone), TimestampTzGetDatum(now));
	SourceValue day;

	datum_read(DirectFunctionCall1(timestamp_date, local), false, DATEOID, zone, &day);
	return day.text;
}

static void
source_value(const GivenValue *given, const SfField *field, const char *key, TimestampTz now,
			 const char *zone, SourceValue *out)
{
	memset(out, 0, sizeof(*out));
	out->kind = SRC_TEXT;
	if (is_token(given, TOKEN_KEY))
		out->text = pstrdup(key);
	else if (is_token(given, TOKEN_NOW) && field->type == SF_DATE)
	{
		out->kind = SRC_DATE;
		out->text = day_of(now, zone);
	}
	else if (is_token(given, TOKEN_NOW))
		datum_read(TimestampTzGetDatum(now), false, TIMESTAMPTZOID, zone, out);
	else if (given->value.type == jbvBool)
	{
		out->kind = SRC_BOOL;
		out->text = pstrdup(given->value.val.boolean ? "true" : "false");
	}
	else if (given->value.type == jbvNumeric)
		datum_read(NumericGetDatum(given->value.val.numeric), false, NUMERICOID, zone, out);
	else if (given->value.type == jbvString)
	{
		char *string = given_string(given);

		out->text = pg_server_to_any(string, strlen(string), PG_UTF8);
	}
	else
		out->isnull = true;
}

static bool
field_value(const GivenValue *given, const SfField *field, const char *key, TimestampTz now, const char *zone,
			FieldValue *out, char **reason)
{
	CoerceOptions options = {false, false};
	SourceValue value;

	source_value(given, field, key, now, zone, &value);
	return coerce_value(&value, field, &options, out, reason);
}

/*
 * Do the object's fields take the values?
 */

static char *
field_hint(const SfObject *meta, const char *name)
{
	const char *nearest = nearest_field(meta, name);

	return nearest ? psprintf("Perhaps you meant \"%s\".", nearest)
				   : pstrdup("After a change in Salesforce run sfsync.refresh_schema().");
}

/* How a key will look is not known yet: whether it fits shows when it is sent. */
static bool
takes_value(const GivenValue *given, const SfField *field, const char *zone, char **reason)
{
	FieldValue ignored;

	if (is_token(given, TOKEN_KEY))
	{
		const char *never = coerce_incompatible(SRC_TEXT, field);

		*reason = never ? pstrdup(never) : NULL;
		return !never;
	}
	return field_value(given, field, "", GetCurrentTimestamp(), zone, &ignored, reason);
}

static void
check_field(const GivenValue *given, const SfObject *meta, const char *external_id, const char *zone,
			Fault *fault)
{
	const SfField *field = describe_field(meta, given->name);
	char *reason = NULL;

	if (!field)
		set_fault(fault, ERRCODE_UNDEFINED_COLUMN,
				  psprintf("field \"%s\" of object %s does not exist", given->name, meta->name),
				  pstrdup("delete_values must name fields that the integration user may see."),
				  field_hint(meta, given->name));
	else if (pg_strcasecmp(field->name, external_id) == 0)
		set_fault(fault, ERRCODE_INVALID_PARAMETER_VALUE,
				  psprintf("field \"%s\" of object %s is the external ID", field->name, meta->name),
				  pstrdup("It carries the key, by which a row that returns finds its record."),
				  pstrdup("Leave it out of delete_values."));
	else if (!field->updateable)
		set_fault(fault, ERRCODE_INVALID_PARAMETER_VALUE,
				  psprintf("field \"%s\" of object %s is read-only", field->name, meta->name),
				  pstrdup("It is a formula or a system field, or the integration user may not edit it."),
				  pstrdup("Grant Edit on the field by a permission set, or leave it out of delete_values."));
	else if (!takes_value(given, field, zone, &reason))
		set_fault(fault, ERRCODE_INVALID_PARAMETER_VALUE,
				  psprintf("field \"%s\" of object %s can't take its value in delete_values", field->name,
						   meta->name),
				  pg_any_to_server(reason, strlen(reason), PG_UTF8),
				  pstrdup("Pass a value that the type of the field takes."));
}

/* {"Name": 1, "name": 2} is twice the same field to Salesforce. */
static void
check_repeated(const GivenValue *given, int i, Fault *fault)
{
	for (int j = 0; j < i; j++)
		if (pg_strcasecmp(given[j].name, given[i].name) == 0)
			set_fault(fault, ERRCODE_INVALID_PARAMETER_VALUE,
					  psprintf("delete_values names field \"%s\" twice", given[i].name),
					  pstrdup("Salesforce's names ignore case."), pstrdup("Name it once."));
}

static void
check_fields(const char *values, const SfObject *meta, const char *external_id, const char *zone,
			 Fault *fault)
{
	int n;
	GivenValue *given = given_values(values, &n);

	for (int i = 0; i < n && fault->code == 0; i++)
	{
		check_field(&given[i], meta, external_id, zone, fault);
		check_repeated(given, i, fault);
	}
}

void
delete_values_check_fields(const char *values, const SfObject *meta, const char *external_id,
						   const char *zone)
{
	Fault fault = {0};

	check_fields(values, meta, external_id, zone, &fault);
	raise_fault(&fault);
}

char *
delete_values_fault(const char *values, const SfObject *meta, const char *external_id, const char *zone)
{
	Fault fault = {0};

	check_fields(values, meta, external_id, zone, &fault);
	if (fault.code == 0)
		return NULL;
	return psprintf("delete_values: %s%s%s", fault.message, fault.detail ? ": " : "",
					fault.detail ? fault.detail : "");
}

/*
 * The record to send
 */

static void
set_error(RestError *error, const char *field, const char *reason)
{
	error->code = pstrdup("COERCION_ERROR");
	error->message = psprintf("delete_values, field %s: %s", field, reason);
	error->fields = palloc(sizeof(char *));
	error->fields[0] = pstrdup(field);
	error->nfields = 1;
}

bool
delete_values_record(const Mapping *mapping, const char *key, TimestampTz now, RestRecord *record,
					 RestError *error)
{
	int n;
	GivenValue *given = given_values(mapping->delete_values, &n);
	bool good = true;

	memset(record, 0, sizeof(*record));
	record->fields = palloc0(sizeof(RestField) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		const SfField *field = describe_field(mapping->meta, given[i].name);
		RestField *out = &record->fields[record->nfields];
		char *reason = NULL;

		if (field && field_value(&given[i], field, key, now, mapping->zone, &out->value, &reason))
		{
			out->name = field->name;
			record->nfields++;
			continue;
		}
		if (good)
			set_error(error, field ? field->name : given[i].name, field ? reason : "there is no such field");
		good = false;
	}
	return good;
}

/*
 * Holding.  Under ignore there is nothing to hold back.  Rows that left with a
 * partition are of interest as far as their records are known; for the guard any
 * row is, since a delete also finds records by the key.
 */
DeleteHold
delete_hold(const Mapping *mapping, const Unit *unit, bool record_known, bool in_doubt)
{
	if (!unit->hold || strcmp(mapping->on_delete, "ignore") == 0)
		return DELETE_GOES;
	if (record_known || in_doubt || !(unit->left || unit->inserted))
		return DELETE_HELD;
	return DELETE_NOTHING;
}
