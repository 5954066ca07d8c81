/*
 * source_keys.c
 *		The keys of mapped tables: in their order, how many there are, and as the
 *		JSON that users see.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "bitmap.h"
#include "datum.h"
#include "expression.h"
#include "source_internal.h"

/* Tables up to this many pages are counted rather than estimated. */
#define COUNT_PAGES 10000

/*
 * In their order
 */

/*
 * "Greater than the last key", column by column.  Row comparison would need
 * one operator name for all columns; the bound on the first column is what an
 * index can use.
 */
static void
append_after(StringInfo sql, const Mapping *mapping)
{
	const char *first = quote_identifier(mapping->key_columns[0]);

	if (mapping->nkeys > 1)
		appendStringInfo(sql, " AND (s.%s %s $1::%s OR s.%s %s $1::%s) AND (", first,
						 source_key_operator(mapping, 0, SOURCE_GREATER), source_type(mapping->key_types[0]),
						 first, source_key_operator(mapping, 0, SOURCE_EQUAL),
						 source_type(mapping->key_types[0]));
	else
		appendStringInfoString(sql, " AND (");
	for (int k = 0; k < mapping->nkeys; k++)
	{
		const char *column = quote_identifier(mapping->key_columns[k]);

		appendStringInfo(sql, "s.%s %s $%d::%s", column, source_key_operator(mapping, k, SOURCE_GREATER),
						 k + 1, source_type(mapping->key_types[k]));
		if (k < mapping->nkeys - 1)
			appendStringInfo(sql, " OR (s.%s %s $%d::%s AND (", column,
							 source_key_operator(mapping, k, SOURCE_EQUAL), k + 1,
							 source_type(mapping->key_types[k]));
	}
	for (int k = 0; k < mapping->nkeys - 1; k++)
		appendStringInfoString(sql, "))");
	appendStringInfoChar(sql, ')');
}

/* Of the filter and of expressions nobody knows what they were: all rows. */
static bool
is_of_columns(const SourceChoice *choice)
{
	for (int i = MaxHeapAttributeNumber / 8; i < choice->changed_len; i++)
		if (choice->changed[i])
			return false;
	return choice->changed != NULL;
}

static void
append_not_null(StringInfo sql, const Mapping *mapping, const SourceChoice *choice)
{
	bool first = true;

	for (int c = 0; c < mapping->ncolumns; c++)
	{
		if (!bitmap_has(choice->changed, choice->changed_len, mapping->columns[c].attnum))
			continue;
		appendStringInfo(sql, "%ss.%s IS NOT NULL", first ? " AND (" : " OR ",
						 quote_identifier(mapping->columns[c].name));
		first = false;
	}
	appendStringInfoString(sql, first ? " AND false" : ")");
}

/* In a scope: of a filter that is kept, the text for a statement. */
static void
append_filter(StringInfo sql, const Mapping *mapping, const char *filter)
{
	Relation rel = relation_open(mapping->source, AccessShareLock);
	char *reason;
	Expression *expression = expression_resolve(rel, mapping->owner, filter, true, &reason);

	relation_close(rel, AccessShareLock);
	if (!expression)
		ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION), errmsg("filter: %s", reason),
						errdetail("The filter is: %s", filter),
						errhint("The table or a function may have changed since; give it another filter.")));
	appendStringInfo(sql, " AND (%s)", expression->text);
}

static char *
keys_query(const Mapping *mapping, bool after, const SourceChoice *choice, int limit)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int k = 0; k < mapping->nkeys; k++)
		appendStringInfo(&sql, "%ss.%s", k ? ", " : "", quote_identifier(mapping->key_columns[k]));
	appendStringInfo(&sql, " FROM %s AS s WHERE true", mapping->source_name);
	if (is_of_columns(choice))
		append_not_null(&sql, mapping, choice);
	if (after)
		append_after(&sql, mapping);
	if (choice->filter)
		append_filter(&sql, mapping, choice->filter);
	appendStringInfoString(&sql, " ORDER BY ");
	for (int k = 0; k < mapping->nkeys; k++)
		appendStringInfo(&sql, "%ss.%s", k ? ", " : "", quote_identifier(mapping->key_columns[k]));
	appendStringInfo(&sql, " LIMIT %d", limit);
	return sql.data;
}

static char *
result_key(const Mapping *mapping, uint64 row)
{
	char **parts = palloc(sizeof(char *) * mapping->nkeys);

	for (int k = 0; k < mapping->nkeys; k++)
	{
		bool isnull;
		Datum value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, k + 1, &isnull);

		if (isnull)
			return NULL;
		parts[k] = datum_key_text(value, mapping->key_types[k]);
	}
	return key_join(parts, mapping->nkeys);
}

static void
key_values(const Mapping *mapping, const char *key, Oid *types, Datum *values)
{
	char **parts = key_split(key, mapping->nkeys);

	if (!parts)
		elog(ERROR, "key has not the parts of mapping \"%s\"", mapping->name);
	for (int k = 0; k < mapping->nkeys; k++)
	{
		types[k] = TEXTOID;
		values[k] = CStringGetTextDatum(parts[k]);
	}
}

char **
source_keys_after(const Mapping *mapping, const char *last_key, const SourceChoice *choice, int limit,
				  int *nkeys)
{
	Oid *types = palloc(sizeof(Oid) * mapping->nkeys);
	Datum *values = palloc(sizeof(Datum) * mapping->nkeys);
	char **keys = palloc(sizeof(char *) * limit);
	SourceScope scope;

	if (last_key)
		key_values(mapping, last_key, types, values);
	source_open(&scope, mapping);
	source_run(keys_query(mapping, last_key != NULL, choice, limit), last_key ? mapping->nkeys : 0, types,
			   values);
	MemoryContextSwitchTo(scope.caller);
	*nkeys = 0;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char *key = result_key(mapping, i);

		if (key)
			keys[(*nkeys)++] = key;
	}
	source_close(&scope);
	return keys;
}

/*
 * How many
 */

int64
source_row_count(const Mapping *mapping, const char *filter)
{
	StringInfoData sql;
	SourceScope scope;
	int64 count = -1;
	bool isnull;

	source_open(&scope, mapping);
	source_run(psprintf("SELECT CASE WHEN sum(c.reltuples) >= 0 AND sum(c.relpages) > %d"
						" THEN sum(c.reltuples)::pg_catalog.int8 ELSE -1 END"
						" FROM pg_catalog.pg_partition_tree(%u) t"
						" JOIN pg_catalog.pg_class c ON c.oid = t.relid WHERE t.isleaf",
						COUNT_PAGES, mapping->source),
			   0, NULL, NULL);
	if (SPI_processed == 1)
	{
		Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

		count = isnull ? -1 : DatumGetInt64(value);
	}
	if (count < 0)
	{
		initStringInfo(&sql);
		appendStringInfo(&sql, "SELECT pg_catalog.count(*) FROM %s AS s WHERE true", mapping->source_name);
		if (filter)
			append_filter(&sql, mapping, filter);
		source_run(sql.data, 0, NULL, NULL);
		count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	source_close(&scope);
	return count;
}

typedef struct Losing
{
	const Mapping *mapping;
	const char *filter;
	int limit;
	bool more;
} Losing;

static void
count_lost(void *arg)
{
	Losing *losing = arg;
	StringInfoData sql;
	SourceScope scope;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT FROM %s AS s WHERE (%s) IS NOT TRUE", losing->mapping->source_name,
					 losing->filter);
	if (losing->mapping->filter && !losing->mapping->filter_uses.broken)
		appendStringInfo(&sql, " AND (%s)", losing->mapping->filter);
	appendStringInfo(&sql, " LIMIT %d", losing->limit + 1);
	source_open(&scope, losing->mapping);
	source_run(sql.data, 0, NULL, NULL);
	losing->more = SPI_processed > losing->limit;
	source_close(&scope);
}

/* Where it can't be told, since the filter fails with a row, it may be as many as there are. */
bool
source_loses_more(const Mapping *mapping, const char *filter, int limit)
{
	Losing losing = {mapping, filter, limit, false};

	return expression_guard(count_lost, &losing) ? source_row_count(mapping, NULL) > limit : losing.more;
}

/*
 * As JSON
 */

char *
source_key_json(const Mapping *mapping, const char *key)
{
	Oid *types = palloc(sizeof(Oid) * Max(mapping->nkeys, 1));
	Datum *values = palloc(sizeof(Datum) * Max(mapping->nkeys, 1));
	SourceScope scope;
	StringInfoData sql;
	char *json;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT pg_catalog.jsonb_build_object(");
	for (int k = 0; k < mapping->nkeys; k++)
		appendStringInfo(&sql, "%s%s, $%d::%s", k ? ", " : "", quote_literal_cstr(mapping->key_columns[k]),
						 k + 1, source_type(mapping->key_types[k]));
	appendStringInfoString(&sql, ")::pg_catalog.text");
	key_values(mapping, key, types, values);
	source_open(&scope, mapping);
	source_run(sql.data, mapping->nkeys, types, values);
	json = MemoryContextStrdup(scope.caller, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	source_close(&scope);
	return json;
}

static void
bad_key(const Mapping *mapping, const char *detail)
{
	StringInfoData columns;

	initStringInfo(&columns);
	for (int k = 0; k < mapping->nkeys; k++)
		appendStringInfo(&columns, "%s\"%s\"", k ? ", " : "", mapping->key_columns[k]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("source_key is not a key of mapping \"%s\"", mapping->name), errdetail("%s", detail),
			 errhint("Pass a JSON object with the key columns: %s.", columns.data)));
}

/* The values as text are read by the types' input functions and printed as keys are. */
char *
source_key_from_json(const Mapping *mapping, Datum jsonb)
{
	Oid types[1] = {JSONBOID};
	SourceScope scope;
	StringInfoData sql;
	char *key;

	if (!JB_ROOT_IS_OBJECT(DatumGetJsonbP(jsonb)))
		bad_key(mapping, "It is not a JSON object.");
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int k = 0; k < mapping->nkeys; k++)
		appendStringInfo(&sql, "%s($1 OPERATOR(pg_catalog.->>) %s)::%s", k ? ", " : "",
						 quote_literal_cstr(mapping->key_columns[k]), source_type(mapping->key_types[k]));
	source_open(&scope, mapping);
	source_run(sql.data, 1, types, &jsonb);
	MemoryContextSwitchTo(scope.caller);
	key = result_key(mapping, 0);
	source_close(&scope);
	if (!key)
		bad_key(mapping, "A key column is missing or null.");
	return key;
}
