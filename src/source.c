/*
 * source.c
 *		Reading rows of mapped tables, by their keys, as the mapping's owner.
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
#include "utils/guc.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "datum.h"
#include "expression.h"
#include "lock.h"
#include "sfsync.h"
#include "source_internal.h"
#include "sql.h"

/*
 * The mapped table is locked before it is read.  What policies and functions of
 * users read beside is not known; nobody else is to wait for it long.
 */
#define LONGEST_WAIT "200ms"

void
source_open(SourceScope *scope, const Mapping *mapping)
{
	scope->caller = CurrentMemoryContext;
	sfsync_enter_user(mapping->owner, &scope->saved);
	if (!lock_may_wait())
		(void) set_config_option("lock_timeout", LONGEST_WAIT, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	SPI_connect();
}

void
source_close(SourceScope *scope)
{
	SPI_finish();
	sfsync_leave(&scope->saved);
	MemoryContextSwitchTo(scope->caller);
}

void
source_run(const char *query, int nargs, Oid *types, Datum *values)
{
	if (SPI_execute_with_args(query, nargs, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the source table");
}

char *
source_type(Oid type)
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

char *
source_key_operator(const Mapping *mapping, int i, SourceOrder order)
{
	TypeCacheEntry *entry = lookup_type_cache(mapping->key_types[i], TYPECACHE_EQ_OPR | TYPECACHE_GT_OPR);

	return operator_name(order == SOURCE_EQUAL ? entry->eq_opr : entry->gt_opr);
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
						 source_type(get_array_type(mapping->key_types[i])));
	appendStringInfoString(&sql, ")) WITH ORDINALITY AS k(");
	for (int i = 0; i < mapping->nkeys; i++)
		appendStringInfo(&sql, "%s%d, ", k, i);
	appendStringInfo(&sql, "%so) JOIN %s AS s ON", k, mapping->source_name);
	for (int i = 0; i < mapping->nkeys; i++)
		appendStringInfo(&sql, "%s s.%s %s k.%s%d", i ? " AND" : "",
						 quote_identifier(mapping->key_columns[i]),
						 source_key_operator(mapping, i, SOURCE_EQUAL), k, i);
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
	SourceScope scope;

	source_open(&scope, mapping);
	key_arrays(mapping, reading->keys, reading->nkeys, types, values);
	source_run(read_query(reading), mapping->nkeys, types, values);
	MemoryContextSwitchTo(scope.caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		int64 ordinal =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));

		take_row(reading, i, &reading->rows[ordinal - 1]);
	}
	source_close(&scope);
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
