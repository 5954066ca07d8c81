/*
 * check.c
 *		check_mapping: what is, or will be, in the way of a mapping, from cached
 *		metadata and a sample of rows, without the network.
 */
#include "compat.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "api.h"
#include "coerce.h"
#include "datum.h"
#include "source.h"
#include "sql.h"

/* Rows whose values are tried. */
#define SAMPLE_ROWS 500

static void
find(ReturnSetInfo *result, const char *severity, const char *column, const char *field, const char *finding,
	 const char *hint)
{
	const char *texts[5] = {severity, column, field, finding, hint};
	Datum values[5] = {0};

	if (column)
		values[1] = sql_arg_name(column).value;
	api_put_row(result, 5, texts, values);
}

/* Of what a row gives: an expression has no column name, and is named in the finding. */
static void
find_of(ReturnSetInfo *result, const char *severity, const MappingColumn *column, const char *field,
		const char *finding, const char *hint)
{
	if (column->expression)
		finding = psprintf("%s: %s", mapping_column_label(column), finding);
	find(result, severity, column->expression ? NULL : column->name, field, finding, hint);
}

static void
check_object(ReturnSetInfo *result, const Mapping *mapping)
{
	if (!mapping->meta->createable)
		find(result, "error", NULL, NULL,
			 psprintf("the integration user may not create records of %s", mapping->object),
			 "Grant Create on the object by a permission set, then run sfsync.refresh_schema().");
	if (!mapping->meta->updateable)
		find(result, "error", NULL, NULL,
			 psprintf("the integration user may not edit records of %s", mapping->object),
			 "Grant Edit on the object by a permission set, then run sfsync.refresh_schema().");
	if (!mapping->meta->deletable &&
		(strcmp(mapping->on_delete, "delete") == 0 || strcmp(mapping->on_delete, "hard_delete") == 0))
		find(result, "error", NULL, NULL,
			 psprintf("the integration user may not delete records of %s", mapping->object),
			 "Grant Delete on the object by a permission set, or set on_delete to 'ignore'.");
}

/* Reference, sections 4.3 and 16 (17 to 19). */
static void
check_key(ReturnSetInfo *result, const Mapping *mapping)
{
	const SfField *field = mapping->key_field;

	if (!field->unique)
		find(result, "warning", NULL, field->name,
			 "the external ID is not unique in Salesforce: a key may match several records, which fails",
			 "Mark the field as Unique.");
	else if (!field->case_sensitive && field->type == SF_STRING)
		find(result, "info", NULL, field->name,
			 "the external ID ignores case: keys that differ by case alone are one record",
			 "Make the field case-sensitive if such keys occur.");
}

static bool
is_fed(const Mapping *mapping, const SfField *field)
{
	for (int i = 0; i < mapping->nfields; i++)
		if (mapping->fields[i].field == field)
			return true;
	return field == mapping->key_field;
}

static void
check_required(ReturnSetInfo *result, const Mapping *mapping)
{
	for (int i = 0; i < mapping->meta->nfields; i++)
	{
		const SfField *field = &mapping->meta->fields[i];

		if (describe_required(field) && !is_fed(mapping, field))
			find(result, "error", NULL, field->name,
				 "Salesforce requires the field when a record is created, and no column feeds it",
				 "Add a column of that name, or map one with sfsync.map_field.");
	}
}

/* Columns that feed nothing, and why. */
static void
check_routes(ReturnSetInfo *result, const Mapping *mapping)
{
	for (int i = 0; i < mapping->nroutes; i++)
	{
		const Route *route = &mapping->routes[i];
		const char *severity = NULL;

		if (route->status == ROUTE_INCOMPATIBLE)
			severity = "error";
		else if (route->status == ROUTE_QUARANTINED)
			severity = "warning";
		else if (route->status == ROUTE_UNMATCHED || route->status == ROUTE_READ_ONLY)
			severity = "info";
		if (severity)
			find_of(result, severity, &mapping->columns[route->column], route->field_name,
					route->detail ? route->detail : "the column matches no field",
					route->status == ROUTE_UNMATCHED
						? "Map it with sfsync.map_field, or exclude it with sfsync.exclude_column."
						: NULL);
	}
}

/* Characters that a column can hold; -1: no limit; 0: it holds no text. */
static int
text_limit(const MappingColumn *column)
{
	int32 typmod = column->typmod;
	Oid base = getBaseTypeAndTypmod(column->type, &typmod);

	if (base == TEXTOID)
		return -1;
	if (base != VARCHAROID && base != BPCHAROID)
		return 0;
	return typmod < 0 ? -1 : typmod - VARHDRSZ;
}

static void
check_fields(ReturnSetInfo *result, const Mapping *mapping)
{
	for (int i = 0; i < mapping->nfields; i++)
	{
		const MappingField *map = &mapping->fields[i];
		const MappingColumn *column = &mapping->columns[map->column];
		int limit = text_limit(column);

		if (map->field->length > 0 && map->field->type != SF_PICKLIST && limit != 0 &&
			(limit < 0 || limit > map->field->length))
			find_of(result, "info", column, map->field->name,
					psprintf("%s can hold more than the %d characters that the field takes",
							 column->expression ? "it" : "the column", map->field->length),
					map->truncate ? "Longer values are cut."
								  : "Longer values become dead letters; overlong => 'truncate' cuts them.");
		if (!map->field->nillable && map->field->type != SF_BOOLEAN && !map->keep_null && !column->not_null)
			find_of(result, "info", column, map->field->name,
					"the field must have a value: a null becomes a dead letter",
					column->expression ? "Use coalesce, or null_rule => 'keep'."
									   : "Make the column NOT NULL, or map it with null_rule => 'keep'.");
	}
}

/* Why the row's value would fail; NULL if it wouldn't. */
static char *
value_fault(const MappingField *map, const SourceRow *row)
{
	CoerceOptions options = {map->keep_null, map->truncate};
	FieldValue value;
	char *reason = NULL;

	if (map->lookup || !row->found || row->failed)
		return NULL;
	if (row->errors && row->errors[map->column])
		return row->errors[map->column];
	return coerce_value(&row->values[map->column], map->field, &options, &value, &reason)
			   ? NULL
			   : datum_from_utf8(reason);
}

/* A sample of rows. */
typedef struct Sample
{
	int n;
	char **keys;
	SourceRow *rows;
} Sample;

static char *
faults(const Mapping *mapping, const Sample *sample, int nfailed, int first, const char *reason)
{
	return psprintf("%d of %d rows looked at would fail, the first: %s (row %s)", nfailed, sample->n, reason,
					source_key_json(mapping, sample->keys[first]));
}

/* The first value of a column that would fail now, and how many do. */
static void
check_column(ReturnSetInfo *result, const Mapping *mapping, const MappingField *map, const Sample *sample)
{
	char *reason = NULL;
	int first = 0;
	int nfailed = 0;

	for (int i = 0; i < sample->n; i++)
	{
		char *fault = value_fault(map, &sample->rows[i]);

		if (fault && nfailed++ == 0)
		{
			first = i;
			reason = fault;
		}
	}
	if (nfailed > 0)
		find_of(result, "warning", &mapping->columns[map->column], map->field->name,
				faults(mapping, sample, nfailed, first, reason),
				"Correct the values; until then their rows become dead letters.");
}

static void
check_filter(ReturnSetInfo *result, const Mapping *mapping, const Sample *sample)
{
	int first = -1;
	int nfailed = 0;

	for (int i = 0; i < sample->n; i++)
		if (sample->rows[i].failed && nfailed++ == 0)
			first = i;
	if (nfailed > 0)
		find(result, "warning", NULL, NULL,
			 psprintf("filter %s: %s", mapping->filter,
					  faults(mapping, sample, nfailed, first, sample->rows[first].failed)),
			 "Correct the values or the filter; until then their rows become dead letters.");
}

static void
check_sample(ReturnSetInfo *result, const Mapping *mapping)
{
	SourceChoice all = {NULL, 0, NULL};
	Sample sample;

	sample.keys = source_keys_after(mapping, NULL, &all, SAMPLE_ROWS, &sample.n);
	sample.rows = source_read(mapping, sample.keys, sample.n);
	check_filter(result, mapping, &sample);
	for (int i = 0; i < mapping->nfields; i++)
		check_column(result, mapping, &mapping->fields[i], &sample);
}

PG_FUNCTION_INFO_V1(sfsync_check_mapping);

Datum
sfsync_check_mapping(PG_FUNCTION_ARGS)
{
	Mapping *mapping;
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	api_require(fcinfo, 0, "mapping");
	mapping = api_mapping(api_text(fcinfo, 0));
	api_require_metadata(mapping);
	InitMaterializedSRF(fcinfo, 0);
	check_object(result, mapping);
	check_key(result, mapping);
	check_required(result, mapping);
	check_routes(result, mapping);
	check_fields(result, mapping);
	check_sample(result, mapping);
	return (Datum) 0;
}
