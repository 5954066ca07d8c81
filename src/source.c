/*
 * source.c
 *		Reading rows of mapped tables, as the mapping's owner.
 *
 * Statements are built from catalog names, quoted, with schema-qualified types
 * and operators, so that no search_path matters; keys are parameters.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "bitmap.h"
#include "datum.h"
#include "expression.h"
#include "sfsync.h"
#include "source.h"
#include "sql.h"

/* Tables up to this many pages are counted rather than estimated. */
#define COUNT_PAGES 10000

typedef struct OwnerScope
{
	OwnerContext saved;
	MemoryContext caller;
} OwnerScope;

static void
open_scope(OwnerScope *scope, const Mapping *mapping)
{
	scope->caller = CurrentMemoryContext;
	sfsync_enter_user(mapping->owner, &scope->saved);
	SPI_connect();
}

static void
close_scope(OwnerScope *scope)
{
	SPI_finish();
	sfsync_leave(&scope->saved);
	MemoryContextSwitchTo(scope->caller);
}

static void
run(const char *query, int nargs, Oid *types, Datum *values)
{
	if (SPI_execute_with_args(query, nargs, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the source table");
}

static char *
type_name(Oid type)
{
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Form_pg_type form;
	char *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	form = (Form_pg_type) GETSTRUCT(tuple);
	name = quote_qualified_identifier(get_namespace_name(form->typnamespace), NameStr(form->typname));
	ReleaseSysCache(tuple);
	return name;
}

static char *
operator_name(Oid operator)
{
	HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	Form_pg_operator form;
	char *name;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	name = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
					NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return name;
}

static char *
key_operator(const Mapping *mapping, int i, bool equality)
{
	TypeCacheEntry *entry = lookup_type_cache(mapping->key_types[i], TYPECACHE_EQ_OPR | TYPECACHE_GT_OPR);

	return operator_name(equality ? entry->eq_opr : entry->gt_opr);
}

/* Keys as one text array a key column. */
static void
key_arrays(const Mapping *mapping, char *const *keys, int nkeys, Oid *types, Datum *values)
{
	char **column = palloc(sizeof(char *) * nkeys);
	char ***split = palloc(sizeof(char **) * nkeys);

	for (int i = 0; i < nkeys; i++)
	{
		split[i] = key_split(keys[i], mapping->nkeys);
		if (!split[i])
			ereport(ERROR, (errcode(ERRCODE_DATA_EXCEPTION),
							errmsg("a captured key doesn't have the %d parts of the key of mapping \"%s\"",
								   mapping->nkeys, mapping->name)));
	}
	for (int k = 0; k < mapping->nkeys; k++)
	{
		for (int i = 0; i < nkeys; i++)
			column[i] = split[i][k];
		types[k] = TEXTARRAYOID;
		values[k] = sql_arg_texts(column, nkeys).value;
	}
}

/* What is read of rows. */
typedef struct Reading
{
	const Mapping *mapping;
	int ncolumns;
	int *columns;
	bool *references; /* is the column, or a part of it, a reference to a parent's key? */
	bool filter;
	int nkeys;
	char *const *keys;
	SourceRow *rows;
} Reading;

static void
need(Reading *reading, int column, bool *needed, bool reference)
{
	if (!needed[column])
		reading->columns[reading->ncolumns++] = column;
	needed[column] = true;
	reading->references[column] |= reference;
}

/* The columns that feed a field, or tell the row's time. */
static Reading
whole_rows(const Mapping *mapping)
{
	Reading reading = {.mapping = mapping, .filter = mapping->filter != NULL};
	bool *needed = palloc0(sizeof(bool) * Max(mapping->ncolumns, 1));

	reading.columns = palloc(sizeof(int) * Max(mapping->ncolumns, 1));
	reading.references = palloc0(sizeof(bool) * Max(mapping->ncolumns, 1));
	if (mapping->updated_at >= 0)
		need(&reading, mapping->updated_at, needed, false);
	for (int f = 0; f < mapping->nfields; f++)
	{
		const RouteLookup *lookup = mapping->fields[f].lookup;

		for (int i = 0; lookup && i < lookup->ncolumns; i++)
			need(&reading, lookup->columns[i], needed, true);
		if (!lookup)
			need(&reading, mapping->fields[f].column, needed, false);
	}
	return reading;
}

/* What expressions make of rows that don't pass the filter doesn't matter: it may guard them. */
static void
append_column(StringInfo sql, const Reading *reading, const MappingColumn *column)
{
	if (!column->expression)
		appendStringInfo(sql, ", s.%s", quote_identifier(column->name));
	else if (reading->filter)
		appendStringInfo(sql, ", CASE WHEN (%s) THEN (%s) END", reading->mapping->filter, column->expression);
	else
		appendStringInfo(sql, ", (%s)", column->expression);
}

/* Expressions name columns alone: what else is in the statement has names like no column's. */
static const char *
key_prefix(const Mapping *mapping)
{
	char *prefix = pstrdup("k");

	for (int i = 0; i < mapping->ncolumns; i++)
		if (strncmp(mapping->columns[i].name, prefix, strlen(prefix)) == 0)
		{
			prefix = psprintf("%s_", prefix);
			i = -1;
		}
	return prefix;
}

static char *
read_query(const Reading *reading)
{
	const Mapping *mapping = reading->mapping;
	const char *k = key_prefix(mapping);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT k.%so, %s", k, reading->filter ? "(" : "true");
	if (reading->filter)
		appendStringInfo(&sql, "%s) IS TRUE", mapping->filter);
	for (int i = 0; i < reading->ncolumns; i++)
		append_column(&sql, reading, &mapping->columns[reading->columns[i]]);
	appendStringInfoString(&sql, " FROM ROWS FROM (pg_catalog.unnest(");
	for (int i = 0; i < mapping->nkeys; i++)
		appendStringInfo(&sql, "%s$%d::%s", i ? "), pg_catalog.unnest(" : "", i + 1,
						 type_name(get_array_type(mapping->key_types[i])));
	appendStringInfoString(&sql, ")) WITH ORDINALITY AS k(");
	for (int i = 0; i < mapping->nkeys; i++)
		appendStringInfo(&sql, "%s%d, ", k, i);
	appendStringInfo(&sql, "%so) JOIN %s AS s ON", k, mapping->source_name);
	for (int i = 0; i < mapping->nkeys; i++)
		appendStringInfo(&sql, "%s s.%s %s k.%s%d", i ? " AND" : "",
						 quote_identifier(mapping->key_columns[i]), key_operator(mapping, i, true), k, i);
	return sql.data;
}

static void
take_row(const Reading *reading, uint64 row, SourceRow *out)
{
	const Mapping *mapping = reading->mapping;
	TupleDesc desc = SPI_tuptable->tupdesc;
	bool isnull;

	out->found = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[row], desc, 2, &isnull));
	out->filtered = !out->found;
	if (!out->values)
		out->values = palloc0(sizeof(SourceValue) * Max(mapping->ncolumns, 1));
	for (int i = 0; out->found && i < reading->ncolumns; i++)
	{
		int column = reading->columns[i];
		Datum value = SPI_getbinval(SPI_tuptable->vals[row], desc, i + 3, &isnull);
		Oid type = TupleDescAttr(desc, i + 2)->atttypid;
		SourceValue *read = &out->values[column];

		datum_read(value, isnull, type, mapping->zone, read);
		if (reading->references[column] && !isnull)
			read->key = datum_key_utf8(datum_key_text(value, type));
	}
}

static void
read_rows(void *arg)
{
	const Reading *reading = arg;
	const Mapping *mapping = reading->mapping;
	Oid *types = palloc(sizeof(Oid) * mapping->nkeys);
	Datum *values = palloc(sizeof(Datum) * mapping->nkeys);
	OwnerScope scope;

	open_scope(&scope, mapping);
	key_arrays(mapping, reading->keys, reading->nkeys, types, values);
	run(read_query(reading), mapping->nkeys, types, values);
	MemoryContextSwitchTo(scope.caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		int64 ordinal =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));

		take_row(reading, i, &reading->rows[ordinal - 1]);
	}
	close_scope(&scope);
}

/*
 * Where evaluating fails
 */

/* Something of one row alone; what is wrong, or NULL. */
static char *
try_row(const Reading *whole, bool filter, int column)
{
	Reading part = *whole;

	part.filter = filter;
	part.ncolumns = column < 0 ? 0 : 1;
	part.columns = &column;
	return expression_guard(read_rows, &part);
}

/* One row with which the statement fails: what is it that fails? */
static void
read_failing_row(const Reading *whole)
{
	const Mapping *mapping = whole->mapping;
	SourceRow *row = whole->rows;
	Reading plain = *whole;

	plain.filter = false;
	plain.columns = palloc(sizeof(int) * Max(whole->ncolumns, 1));
	plain.ncolumns = 0;
	for (int i = 0; i < whole->ncolumns; i++)
		if (!mapping->columns[whole->columns[i]].expression)
			plain.columns[plain.ncolumns++] = whole->columns[i];
	read_rows(&plain);
	if (!row->found)
		return;
	row->errors = palloc0(sizeof(char *) * mapping->ncolumns);
	if (whole->filter)
		row->failed = try_row(whole, true, -1);
	for (int i = 0; i < whole->ncolumns && row->found && !row->failed; i++)
		if (mapping->columns[whole->columns[i]].expression)
			row->errors[whole->columns[i]] = try_row(whole, false, whole->columns[i]);
}

/*
 * An expression that can't be evaluated with any row (its function was dropped)
 * is no fault of the rows: read again, the mapping has it quarantined.
 */
static bool
still_resolves(const Mapping *mapping)
{
	Relation rel = relation_open(mapping->source, AccessShareLock);
	bool good = true;
	char *reason;

	if (mapping->filter)
		good = expression_resolve(rel, mapping->owner, mapping->filter, true, &reason) != NULL;
	for (int c = 0; c < mapping->ncolumns && good; c++)
		if (mapping->columns[c].expression && !mapping->columns[c].broken)
			good = expression_resolve(rel, mapping->owner, mapping->columns[c].expression, false, &reason) !=
				   NULL;
	relation_close(rel, AccessShareLock);
	return good;
}

static void
read_guarded(const Reading *reading, bool first)
{
	Reading part = *reading;
	char *error = expression_guard(read_rows, &part);

	if (!error)
		return;
	if (first && !still_resolves(reading->mapping))
	{
		mapping_forget(reading->mapping->id);
		ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION), errmsg("%s", error)));
	}
	if (reading->nkeys == 1)
	{
		read_failing_row(reading);
		return;
	}
	part.nkeys = reading->nkeys / 2;
	read_guarded(&part, false);
	part.keys += part.nkeys;
	part.rows += part.nkeys;
	part.nkeys = reading->nkeys - part.nkeys;
	read_guarded(&part, false);
}

SourceRow *
source_read(const Mapping *mapping, char *const *keys, int nkeys)
{
	Reading reading = whole_rows(mapping);

	reading.keys = keys;
	reading.nkeys = nkeys;
	reading.rows = palloc0(sizeof(SourceRow) * Max(nkeys, 1));
	if (nkeys == 0)
		return reading.rows;
	if (mapping->evaluates)
		read_guarded(&reading, true);
	else
		read_rows(&reading);
	return reading.rows;
}

/*
 * Keys
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
						 key_operator(mapping, 0, false), type_name(mapping->key_types[0]), first,
						 key_operator(mapping, 0, true), type_name(mapping->key_types[0]));
	else
		appendStringInfoString(sql, " AND (");
	for (int k = 0; k < mapping->nkeys; k++)
	{
		const char *column = quote_identifier(mapping->key_columns[k]);

		appendStringInfo(sql, "s.%s %s $%d::%s", column, key_operator(mapping, k, false), k + 1,
						 type_name(mapping->key_types[k]));
		if (k < mapping->nkeys - 1)
			appendStringInfo(sql, " OR (s.%s %s $%d::%s AND (", column, key_operator(mapping, k, true), k + 1,
							 type_name(mapping->key_types[k]));
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
		ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION), errmsg("filter: %s", reason)));
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
	OwnerScope scope;

	if (last_key)
		key_values(mapping, last_key, types, values);
	open_scope(&scope, mapping);
	run(keys_query(mapping, last_key != NULL, choice, limit), last_key ? mapping->nkeys : 0, types, values);
	MemoryContextSwitchTo(scope.caller);
	*nkeys = 0;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char *key = result_key(mapping, i);

		if (key)
			keys[(*nkeys)++] = key;
	}
	close_scope(&scope);
	return keys;
}

int64
source_row_count(const Mapping *mapping, const char *filter)
{
	StringInfoData sql;
	OwnerScope scope;
	int64 count = -1;
	bool isnull;

	open_scope(&scope, mapping);
	run(psprintf("SELECT CASE WHEN sum(c.reltuples) >= 0 AND sum(c.relpages) > %d"
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
		run(sql.data, 0, NULL, NULL);
		count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	close_scope(&scope);
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
	OwnerScope scope;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT FROM %s AS s WHERE (%s) IS NOT TRUE", losing->mapping->source_name,
					 losing->filter);
	if (losing->mapping->filter && !losing->mapping->filter_uses.broken)
		appendStringInfo(&sql, " AND (%s)", losing->mapping->filter);
	appendStringInfo(&sql, " LIMIT %d", losing->limit + 1);
	open_scope(&scope, losing->mapping);
	run(sql.data, 0, NULL, NULL);
	losing->more = SPI_processed > losing->limit;
	close_scope(&scope);
}

/* Where it can't be told, since the filter fails with a row, it may be as many as there are. */
bool
source_loses_more(const Mapping *mapping, const char *filter, int limit)
{
	Losing losing = {mapping, filter, limit, false};

	return expression_guard(count_lost, &losing) ? source_row_count(mapping, NULL) > limit : losing.more;
}

char *
source_key_json(const Mapping *mapping, const char *key)
{
	Oid *types = palloc(sizeof(Oid) * Max(mapping->nkeys, 1));
	Datum *values = palloc(sizeof(Datum) * Max(mapping->nkeys, 1));
	OwnerScope scope;
	StringInfoData sql;
	char *json;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT pg_catalog.jsonb_build_object(");
	for (int k = 0; k < mapping->nkeys; k++)
		appendStringInfo(&sql, "%s%s, $%d::%s", k ? ", " : "", quote_literal_cstr(mapping->key_columns[k]),
						 k + 1, type_name(mapping->key_types[k]));
	appendStringInfoString(&sql, ")::pg_catalog.text");
	key_values(mapping, key, types, values);
	open_scope(&scope, mapping);
	run(sql.data, mapping->nkeys, types, values);
	json = MemoryContextStrdup(scope.caller, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	close_scope(&scope);
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
	OwnerScope scope;
	StringInfoData sql;
	char *key;

	if (!JB_ROOT_IS_OBJECT(DatumGetJsonbP(jsonb)))
		bad_key(mapping, "It is not a JSON object.");
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int k = 0; k < mapping->nkeys; k++)
		appendStringInfo(&sql, "%s($1 OPERATOR(pg_catalog.->>) %s)::%s", k ? ", " : "",
						 quote_literal_cstr(mapping->key_columns[k]), type_name(mapping->key_types[k]));
	open_scope(&scope, mapping);
	run(sql.data, 1, types, &jsonb);
	MemoryContextSwitchTo(scope.caller);
	key = result_key(mapping, 0);
	close_scope(&scope);
	if (!key)
		bad_key(mapping, "A key column is missing or null.");
	return key;
}
