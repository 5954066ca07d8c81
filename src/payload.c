/*
 * payload.c
 *		A row as a record to send.
 */
#include "compat.h"

#include "mb/pg_wchar.h"

#include "bitmap.h"
#include "coerce.h"
#include "datum.h"
#include "names.h"
#include "payload.h"

#define MESSAGES_MAX 500 /* bytes of what is said of a row's values */

static bool
field_changed(const Mapping *mapping, const MappingField *field, const uint8 *changed, int changed_len)
{
	if (!changed)
		return true;
	for (int i = 0; i < field->ninputs; i++)
		if (bitmap_has(changed, changed_len, mapping->columns[field->inputs[i]].attnum))
			return true;
	return false;
}

/*
 * Is it for no change of the row that the field is sent, but since its expression
 * is new?  Then a null says nothing of a field that was never ours.
 */
static bool
field_begins(const Mapping *mapping, const MappingField *field, const uint8 *changed, int changed_len)
{
	if (!changed || !mapping->columns[field->column].expression)
		return false;
	for (int i = 0; i < field->ninputs; i++)
		if (field->inputs[i] != field->column &&
			bitmap_has(changed, changed_len, mapping->columns[field->inputs[i]].attnum))
			return false;
	return true;
}

char *
payload_parent_key(const MappingField *field, const SourceRow *row)
{
	char **parts = palloc(sizeof(char *) * field->lookup->ncolumns);

	for (int i = 0; i < field->lookup->ncolumns; i++)
	{
		const SourceValue *value = &row->values[field->lookup->columns[i]];

		if (value->isnull)
			return NULL;
		parts[i] = value->key;
	}
	return key_join(parts, field->lookup->ncolumns);
}

/* The relation is copied: the mapping may be read again while the record is under way. */
static bool
lookup_value(const MappingField *field, const SourceRow *row, FieldValue *out, char **reason)
{
	char *key = payload_parent_key(field, row);
	FieldLookup *relation;

	memset(out, 0, sizeof(*out));
	if (!key)
	{
		out->kind = field->keep_null ? FV_ABSENT : FV_NULL;
		if (field->field->nillable || field->keep_null)
			return true;
		*reason = pstrdup("the field must have a value, and the foreign key is null");
		return false;
	}
	if (pg_encoding_verifymbstr(PG_UTF8, key, (int) strlen(key)) != (int) strlen(key))
	{
		*reason = pstrdup("the foreign key has no form in UTF-8");
		return false;
	}
	relation = palloc0(sizeof(FieldLookup));
	relation->relationship = pstrdup(field->relation.relationship);
	relation->external_id = pstrdup(field->relation.external_id);
	relation->key_is_number = field->relation.key_is_number;
	relation->parent_mapping = field->relation.parent_mapping;
	if (field->relation.parent_object)
		relation->parent_object = pstrdup(field->relation.parent_object);
	out->kind = FV_LOOKUP;
	out->text = key;
	out->lookup = relation;
	return true;
}

static bool
field_value(const MappingField *field, const SourceRow *row, bool begins, FieldValue *out, char **reason)
{
	const SourceValue *value = &row->values[field->column];
	CoerceOptions options = {field->keep_null, field->truncate};

	if (field->lookup)
		return lookup_value(field, row, out, reason);
	memset(out, 0, sizeof(*out));
	if (begins && value->isnull)
		return true; /* FV_ABSENT */
	if (!coerce_value(value, field->field, &options, out, reason))
		return false;
	if (begins && out->kind == FV_NULL)
		out->kind = FV_ABSENT;
	return true;
}

/* Fields whose values can't be sent. */
typedef struct Problems
{
	RestError *error; /* has the code of the first */
	int nunsaid;      /* fields at the end that its message doesn't tell of yet */
} Problems;

/* Each is told of in full while that is short. */
static void
add_problem(Problems *problems, const char *code, const char *what, const SfField *field, const char *reason)
{
	RestError *error = problems->error;
	char *message = psprintf("%s, field %s: %s", datum_key_utf8(what), field->name, reason);

	if (error->nfields == 0)
	{
		error->code = pstrdup(code);
		error->message = message;
		error->fields = palloc(sizeof(char *));
	}
	else
	{
		error->fields = repalloc(error->fields, sizeof(char *) * (error->nfields + 1));
		if (problems->nunsaid > 0 || strlen(error->message) + strlen(message) > MESSAGES_MAX)
			problems->nunsaid++;
		else
			error->message = psprintf("%s; %s", error->message, message);
	}
	error->fields[error->nfields++] = pstrdup(field->name);
}

/* The others, by name. */
static void
name_unsaid(const Problems *problems)
{
	RestError *error = problems->error;
	const char *const *names = (const char *const *) error->fields + (error->nfields - problems->nunsaid);

	if (problems->nunsaid > 0)
		error->message = psprintf("%s; %d more: %s", error->message, problems->nunsaid,
								  names_list(names, problems->nunsaid));
}

/* The key is a value of the external ID field and has to fit it like any other. */
static void
check_key(const Mapping *mapping, const char *external_id, Problems *problems)
{
	SourceValue value = {.kind = SRC_TEXT, .text = unconstify(char *, external_id)};
	CoerceOptions options = {false, false};
	FieldValue ignored;
	char *reason = NULL;

	if (coerce_value(&value, mapping->key_field, &options, &ignored, &reason) && ignored.kind != FV_NULL)
		return;
	add_problem(problems, "COERCION_ERROR", psprintf("column \"%s\"", mapping->key_columns[0]),
				mapping->key_field, reason ? reason : "the key is empty to Salesforce");
}

/* Why an expression could not be evaluated with the row; NULL if it could, or is none. */
static char *
evaluation_error(const MappingField *field, const SourceRow *row)
{
	return row->errors && row->errors[field->column] ? datum_key_utf8(row->errors[field->column]) : NULL;
}

void
payload_filter_error(const SourceRow *row, RestError *error)
{
	memset(error, 0, sizeof(*error));
	error->code = pstrdup("EXPRESSION_ERROR");
	error->message = psprintf("filter: %s", datum_key_utf8(row->failed));
}

bool
payload_build(const Mapping *mapping, const SourceRow *row, const char *external_id, const uint8 *changed,
			  int changed_len, PayloadUse use, RestRecord *record, RestError *error)
{
	Problems problems = {error, 0};

	memset(error, 0, sizeof(*error));
	check_key(mapping, external_id, &problems);
	memset(record, 0, sizeof(*record));
	record->external_id = external_id;
	record->fields = palloc0(sizeof(RestField) * Max(mapping->nfields, 1));
	for (int i = 0; i < mapping->nfields; i++)
	{
		const MappingField *map = &mapping->fields[i];
		RestField *out = &record->fields[record->nfields];
		char *reason = evaluation_error(map, row);
		bool evaluated = reason == NULL;

		if (!(use == PAYLOAD_CREATE ? map->field->createable : map->field->updateable))
			continue;
		if (!field_changed(mapping, map, changed, changed_len))
			continue;
		if (!evaluated ||
			!field_value(map, row, field_begins(mapping, map, changed, changed_len), &out->value, &reason))
		{
			add_problem(&problems, evaluated ? "COERCION_ERROR" : "EXPRESSION_ERROR",
						mapping_column_label(&mapping->columns[map->column]), map->field, reason);
			continue;
		}
		if (out->value.kind == FV_ABSENT)
			continue;
		out->name = map->field->name;
		record->nfields++;
	}
	name_unsaid(&problems);
	return error->nfields == 0;
}

int64
payload_updated_at(const Mapping *mapping, const SourceRow *row, int64 otherwise)
{
	const SourceValue *value;
	int64 time;

	if (mapping->updated_at < 0 || !row->found)
		return otherwise;
	value = &row->values[mapping->updated_at];
	return !value->isnull && value->text && rest_parse_time(value->text, &time) ? time : otherwise;
}

bool
payload_key_is_number(const Mapping *mapping)
{
	return describe_is_number(mapping->key_field);
}

char *
payload_json(const Mapping *mapping, const RestRecord *record)
{
	RestTarget target = {mapping->object, mapping->external_id, payload_key_is_number(mapping)};

	return rest_payload(&target, record);
}
