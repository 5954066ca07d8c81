/*
 * payload.c
 *		A row as a record to send.
 */
#include "compat.h"

#include "coerce.h"
#include "payload.h"

static bool
column_changed(const Mapping *mapping, int column, const uint8 *changed, int changed_len)
{
	int bit = mapping->columns[column].attnum - 1;

	return !changed || (bit / 8 < changed_len && (changed[bit / 8] & (1 << (bit % 8))) != 0);
}

static void
set_error(RestError *error, const char *column, const SfField *field, const char *reason)
{
	error->code = pstrdup("COERCION_ERROR");
	error->message = psprintf("column \"%s\", field %s: %s", column, field->name, reason);
	error->fields = palloc(sizeof(char *));
	error->fields[0] = pstrdup(field->name);
	error->nfields = 1;
}

/* The key is a value of the external ID field and has to fit it like any other. */
static bool
check_key(const Mapping *mapping, const char *external_id, RestError *error)
{
	SourceValue value = {.kind = SRC_TEXT, .text = unconstify(char *, external_id)};
	CoerceOptions options = {false, false};
	FieldValue ignored;
	char *reason = NULL;

	if (coerce_value(&value, mapping->key_field, &options, &ignored, &reason) && ignored.kind != FV_NULL)
		return true;
	set_error(error, mapping->key_columns[0], mapping->key_field,
			  reason ? reason : "the key is empty to Salesforce");
	return false;
}

bool
payload_build(const Mapping *mapping, const SourceRow *row, const char *external_id, const uint8 *changed,
			  int changed_len, PayloadUse use, RestRecord *record, RestError *error)
{
	bool good = check_key(mapping, external_id, error);

	memset(record, 0, sizeof(*record));
	record->external_id = external_id;
	record->fields = palloc0(sizeof(RestField) * Max(mapping->nfields, 1));
	for (int i = 0; i < mapping->nfields; i++)
	{
		const MappingField *map = &mapping->fields[i];
		CoerceOptions options = {map->keep_null, map->truncate};
		RestField *out = &record->fields[record->nfields];
		char *reason = NULL;

		if (!(use == PAYLOAD_CREATE ? map->field->createable : map->field->updateable))
			continue;
		if (!column_changed(mapping, map->column, changed, changed_len))
			continue;
		if (!coerce_value(&row->values[map->column], map->field, &options, &out->value, &reason))
		{
			if (good)
				set_error(error, mapping->columns[map->column].name, map->field, reason);
			good = false;
			continue;
		}
		if (out->value.kind == FV_ABSENT)
			continue;
		out->name = map->field->name;
		record->nfields++;
	}
	return good;
}

bool
payload_key_is_number(const Mapping *mapping)
{
	switch (mapping->key_field->type)
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

char *
payload_json(const Mapping *mapping, const RestRecord *record)
{
	return rest_payload(mapping->object, mapping->external_id, payload_key_is_number(mapping), record);
}
