/*
 * sql.c
 *		Statements on the extension's own tables.
 */
#include "compat.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "datum.h"
#include "sql.h"

#define MAX_ARGS 24
#define PLAN_KEPT_MS 1000

typedef struct KeptPlan
{
	const char *query; /* hash key: the address */
	SPIPlanPtr plan;
	TimestampTz made_at;
} KeptPlan;

static HTAB *kept_plans = NULL;

void
sql_open(SqlScope *scope)
{
	scope->caller = CurrentMemoryContext;
	scope->latest = false;
	sfsync_enter_owner(&scope->saved);
	SPI_connect();
}

void
sql_open_latest(SqlScope *scope)
{
	scope->caller = CurrentMemoryContext;
	scope->latest = true;
	sfsync_enter_owner(&scope->saved);
	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
}

void
sql_close(SqlScope *scope)
{
	SPI_finish();
	if (scope->latest)
		PopActiveSnapshot();
	sfsync_leave(&scope->saved);
	MemoryContextSwitchTo(scope->caller);
}

void
sql_allow_bitmaps(void)
{
	(void) set_config_option("enable_bitmapscan", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

static SPIPlanPtr
make_plan(const char *query, const SqlArg *args, int nargs)
{
	Oid types[MAX_ARGS];
	SPIPlanPtr plan;

	for (int i = 0; i < nargs; i++)
		types[i] = args[i].type;
	plan = SPI_prepare_cursor(query, nargs, types, CURSOR_OPT_GENERIC_PLAN);
	if (!plan || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
	return plan;
}

/*
 * A plan is made with the sizes that the tables have then.  They may grow from
 * nothing to a million rows while statistics, which would have plans made
 * anew, are not yet gathered: so it is good for a moment only.
 */
static SPIPlanPtr
kept_plan(const char *query, const SqlArg *args, int nargs)
{
	TimestampTz now = GetCurrentTimestamp();
	KeptPlan *kept;
	bool found;

	if (!kept_plans)
	{
		HASHCTL ctl = {.keysize = sizeof(char *), .entrysize = sizeof(KeptPlan)};

		kept_plans = hash_create("sfsync plans", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	kept = hash_search(kept_plans, &query, HASH_FIND, NULL);
	if (!kept)
	{
		SPIPlanPtr plan = make_plan(query, args, nargs);

		kept = hash_search(kept_plans, &query, HASH_ENTER, &found);
		kept->plan = plan;
		kept->made_at = now;
	}
	else if (TimestampDifferenceExceeds(kept->made_at, now, PLAN_KEPT_MS))
	{
		SPIPlanPtr old = kept->plan;

		kept->plan = make_plan(query, args, nargs);
		kept->made_at = now;
		SPI_freeplan(old);
	}
	return kept->plan;
}

uint64
sql_run(SqlScope *scope, const char *query, const SqlArg *args, int nargs, long limit)
{
	Datum values[MAX_ARGS];
	char nulls[MAX_ARGS];
	SPIPlanPtr plan;
	int result;

	if (nargs > MAX_ARGS)
		elog(ERROR, "a statement has %d arguments", nargs);
	plan = kept_plan(query, args, nargs);
	for (int i = 0; i < nargs; i++)
	{
		values[i] = args[i].value;
		nulls[i] = args[i].isnull ? 'n' : ' ';
	}
	result = SPI_execute_plan(plan, values, nulls, scope->latest, limit);
	if (result < 0)
		elog(ERROR, "could not run a statement: %s", SPI_result_code_string(result));
	return SPI_processed;
}

/*
 * Arguments
 */

static SqlArg
arg(Oid type, Datum value, bool isnull)
{
	SqlArg result = {type, value, isnull};

	return result;
}

SqlArg
sql_arg_int(int32 value)
{
	return arg(INT4OID, Int32GetDatum(value), false);
}

SqlArg
sql_arg_bigint(int64 value)
{
	return arg(INT8OID, Int64GetDatum(value), false);
}

SqlArg
sql_arg_bool(bool value)
{
	return arg(BOOLOID, BoolGetDatum(value), false);
}

SqlArg
sql_arg_oid(Oid value)
{
	return arg(OIDOID, ObjectIdGetDatum(value), false);
}

SqlArg
sql_arg_text(const char *value)
{
	return arg(TEXTOID, value ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

SqlArg
sql_arg_name(const char *value)
{
	return arg(NAMEOID, value ? DirectFunctionCall1(namein, CStringGetDatum(value)) : (Datum) 0,
			   value == NULL);
}

SqlArg
sql_arg_jsonb(const char *value)
{
	return arg(JSONBOID, value ? DirectFunctionCall1(jsonb_in, CStringGetDatum(value)) : (Datum) 0,
			   value == NULL);
}

SqlArg
sql_arg_time(TimestampTz value)
{
	return arg(TIMESTAMPTZOID, TimestampTzGetDatum(value), value == 0);
}

SqlArg
sql_arg_xid(uint64 value)
{
	return arg(XID8OID, FullTransactionIdGetDatum(FullTransactionIdFromU64(value)), value == 0);
}

SqlArg
sql_arg_bytes(const uint8 *value, int len)
{
	bytea *bytes;

	if (len < 0)
		return arg(BYTEAOID, (Datum) 0, true);
	bytes = palloc(VARHDRSZ + len);
	SET_VARSIZE(bytes, VARHDRSZ + len);
	memcpy(VARDATA(bytes), value, len);
	return arg(BYTEAOID, PointerGetDatum(bytes), false);
}

/* nulls may be NULL: none is. */
static SqlArg
array_arg(Oid array_type, Oid type, Datum *elements, bool *nulls, int n)
{
	int lower = 1;
	int16 len;
	bool byval;
	char align;
	ArrayType *array;

	get_typlenbyvalalign(type, &len, &byval, &align);
	array = construct_md_array(elements, nulls, 1, &n, &lower, type, len, byval, align);
	return arg(array_type, PointerGetDatum(array), false);
}

SqlArg
sql_arg_texts(char *const *values, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));
	bool *nulls = palloc(sizeof(bool) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		nulls[i] = values[i] == NULL;
		elements[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(values[i]);
	}
	return array_arg(TEXTARRAYOID, TEXTOID, elements, nulls, n);
}

SqlArg
sql_arg_names(char *const *values, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = DirectFunctionCall1(namein, CStringGetDatum(values[i]));
	return array_arg(NAMEARRAYOID, NAMEOID, elements, NULL, n);
}

SqlArg
sql_arg_ints(const int32 *values, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = Int32GetDatum(values[i]);
	return array_arg(INT4ARRAYOID, INT4OID, elements, NULL, n);
}

SqlArg
sql_arg_smallints(const int16 *values, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = Int16GetDatum(values[i]);
	return array_arg(INT2ARRAYOID, INT2OID, elements, NULL, n);
}

SqlArg
sql_arg_xids(const uint64 *values, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = FullTransactionIdGetDatum(FullTransactionIdFromU64(values[i]));
	return array_arg(XID8ARRAYOID, XID8OID, elements, NULL, n);
}

SqlArg
sql_arg_times(const TimestampTz *values, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = TimestampTzGetDatum(values[i]);
	return array_arg(TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, elements, NULL, n);
}

SqlArg
sql_arg_byteas(uint8 *const *values, const int *lengths, int n)
{
	Datum *elements = palloc0(sizeof(Datum) * Max(n, 1));
	bool *nulls = palloc(sizeof(bool) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		nulls[i] = values[i] == NULL;
		if (!nulls[i])
			elements[i] = sql_arg_bytes(values[i], lengths[i]).value;
	}
	return array_arg(BYTEAARRAYOID, BYTEAOID, elements, nulls, n);
}

char *
sql_from_utf8(const char *text)
{
	return text ? datum_from_utf8(text) : NULL;
}

/*
 * Results
 */

static Datum
value(uint64 row, int col, bool *isnull)
{
	Assert(row < SPI_processed);
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col, isnull);
}

bool
sql_isnull(uint64 row, int col)
{
	bool isnull;

	(void) value(row, col, &isnull);
	return isnull;
}

int32
sql_int(uint64 row, int col)
{
	bool isnull;
	Datum datum = value(row, col, &isnull);

	return isnull ? 0 : DatumGetInt32(datum);
}

int64
sql_bigint(uint64 row, int col)
{
	bool isnull;
	Datum datum = value(row, col, &isnull);

	return isnull ? 0 : DatumGetInt64(datum);
}

bool
sql_bool(uint64 row, int col)
{
	bool isnull;
	Datum datum = value(row, col, &isnull);

	return !isnull && DatumGetBool(datum);
}

Oid
sql_oid(uint64 row, int col)
{
	bool isnull;
	Datum datum = value(row, col, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(datum);
}

char
sql_char(uint64 row, int col)
{
	bool isnull;
	Datum datum = value(row, col, &isnull);

	return isnull ? '\0' : DatumGetChar(datum);
}

TimestampTz
sql_time(uint64 row, int col)
{
	bool isnull;
	Datum datum = value(row, col, &isnull);

	return isnull ? 0 : DatumGetTimestampTz(datum);
}

uint64
sql_xid(uint64 row, int col)
{
	bool isnull;
	Datum datum = value(row, col, &isnull);

	return isnull ? 0 : U64FromFullTransactionId(DatumGetFullTransactionId(datum));
}

char *
sql_text(SqlScope *scope, uint64 row, int col)
{
	char *text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col);

	return text ? MemoryContextStrdup(scope->caller, text) : NULL;
}

uint8 *
sql_bytes(SqlScope *scope, uint64 row, int col, int *len)
{
	bool isnull;
	Datum datum = value(row, col, &isnull);
	bytea *bytes;
	uint8 *copy;

	*len = -1;
	if (isnull)
		return NULL;
	bytes = DatumGetByteaPP(datum);
	*len = VARSIZE_ANY_EXHDR(bytes);
	copy = MemoryContextAlloc(scope->caller, Max(*len, 1));
	memcpy(copy, VARDATA_ANY(bytes), *len);
	return copy;
}

char **
sql_texts(SqlScope *scope, uint64 row, int col, int *n)
{
	bool isnull;
	Datum datum = value(row, col, &isnull);
	ArrayType *array;
	Datum *elements;
	bool *nulls;
	char **texts;

	*n = 0;
	if (isnull)
		return NULL;
	array = DatumGetArrayTypeP(datum);
	if (ARR_ELEMTYPE(array) == NAMEOID)
		deconstruct_array(array, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &elements, &nulls, n);
	else
		deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, n);
	texts = MemoryContextAlloc(scope->caller, sizeof(char *) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			texts[i] = NULL;
		else if (ARR_ELEMTYPE(array) == NAMEOID)
			texts[i] = MemoryContextStrdup(scope->caller, NameStr(*DatumGetName(elements[i])));
		else
			texts[i] = MemoryContextStrdup(scope->caller, TextDatumGetCString(elements[i]));
	}
	return texts;
}

TimestampTz *
sql_times(SqlScope *scope, uint64 row, int col, int *n)
{
	bool isnull;
	Datum datum = value(row, col, &isnull);
	Datum *elements;
	bool *nulls;
	TimestampTz *times;

	*n = 0;
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(datum), TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &elements, &nulls, n);
	times = MemoryContextAllocZero(scope->caller, sizeof(TimestampTz) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		if (!nulls[i])
			times[i] = DatumGetTimestampTz(elements[i]);
	return times;
}

/* Whole columns */

char **
sql_column(SqlScope *scope, int col)
{
	uint64 n = SPI_processed;
	char **texts = MemoryContextAlloc(scope->caller, sizeof(char *) * Max(n, 1));

	for (uint64 i = 0; i < n; i++)
		texts[i] = sql_text(scope, i, col);
	return texts;
}

int *
sql_column_ints(SqlScope *scope, int col)
{
	uint64 n = SPI_processed;
	int *ints = MemoryContextAlloc(scope->caller, sizeof(int) * Max(n, 1));

	for (uint64 i = 0; i < n; i++)
		ints[i] = sql_int(i, col);
	return ints;
}

Oid *
sql_column_oids(SqlScope *scope, int col)
{
	uint64 n = SPI_processed;
	Oid *oids = MemoryContextAlloc(scope->caller, sizeof(Oid) * Max(n, 1));

	for (uint64 i = 0; i < n; i++)
		oids[i] = sql_oid(i, col);
	return oids;
}
