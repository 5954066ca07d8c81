/*
 * datum.c
 *		Values of PostgreSQL into text that no session setting changes.
 *
 * Types whose text depends on DateStyle, TimeZone and the like have a form of
 * their own here; for the rest the type's output function is right, under
 * the settings of datum_fix_settings.
 */
#include "compat.h"

#include "catalog/pg_type.h"
#include "common/base64.h"
#include "common/shortest_dec.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "datum.h"

void
datum_fix_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"DateStyle", "ISO, YMD"},
		{"IntervalStyle", "postgres"},
		{"TimeZone", "UTC"},
		{"extra_float_digits", "1"},
		{"bytea_output", "hex"},
		{"xmlbinary", "base64"},
		{"lc_monetary", "C"},
		{"quote_all_identifiers", "off"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
}

bool
datum_needs_fixed_settings(Oid type)
{
	switch (getBaseType(type))
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case NUMERICOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case UUIDOID:
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return false;
		default:
			return true;
	}
}

SourceKind
datum_kind(Oid type)
{
	Oid base = getBaseType(type);

	switch (base)
	{
		case BOOLOID:
			return SRC_BOOL;
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
			return SRC_INTEGER;
		case NUMERICOID:
			return SRC_NUMERIC;
		case FLOAT4OID:
		case FLOAT8OID:
			return SRC_FLOAT;
		case DATEOID:
			return SRC_DATE;
		case TIMEOID:
			return SRC_TIME;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return SRC_TIMESTAMPTZ;
		case BYTEAOID:
			return SRC_BYTEA;
		case JSONOID:
		case JSONBOID:
			return SRC_JSON;
		default:
			return OidIsValid(get_element_type(base)) ? SRC_ARRAY : SRC_TEXT;
	}
}

static char *
float_text(Datum value, Oid base)
{
	char *text = palloc(DOUBLE_SHORTEST_DECIMAL_LEN);

	if (base == FLOAT4OID)
		float_to_shortest_decimal_buf(DatumGetFloat4(value), text);
	else
		double_to_shortest_decimal_buf(DatumGetFloat8(value), text);
	return text;
}

/* Date and time in XML Schema form; infinity and -infinity by their names. */
static char *
datetime_text(Datum value, Oid base)
{
	char *text = palloc(MAXDATELEN + 1);

	JsonEncodeDateTime(text, value, base, NULL);
	return text;
}

/* The instant as UTC with a Z, which goes before " BC". */
static char *
instant_text(TimestampTz value)
{
	char *text = datetime_text(TimestampTzGetDatum(value), TIMESTAMPOID);
	char *bc;

	if (TIMESTAMP_NOT_FINITE(value))
		return text;
	bc = strstr(text, " BC");
	return bc ? psprintf("%.*sZ BC", (int) (bc - text), text) : psprintf("%sZ", text);
}

static char *
output_text(Datum value, Oid base)
{
	Oid function;
	bool varlena;

	getTypeOutputInfo(base, &function, &varlena);
	return OidOutputFunctionCall(function, value);
}

static char *
base64_text(Datum value)
{
	bytea *bytes = DatumGetByteaPP(value);
	int len = VARSIZE_ANY_EXHDR(bytes);
	int size = pg_b64_enc_len(len);
	char *text = palloc(size + 1);

	size = pg_b64_encode(BASE64_INPUT(VARDATA_ANY(bytes)), len, text, size);
	if (size < 0)
		elog(ERROR, "could not encode a value of type bytea");
	text[size] = '\0';
	return text;
}

static char *
to_utf8(char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

static void
read_array(Datum value, Oid base, const char *zone, SourceValue *out)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	Oid element = ARR_ELEMTYPE(array);
	int16 typlen;
	bool byval;
	char align;
	Datum *values;
	bool *nulls;
	StringInfoData json;

	get_typlenbyvalalign(element, &typlen, &byval, &align);
	deconstruct_array(array, element, typlen, byval, align, &values, &nulls, &out->nelems);
	out->elems = palloc0(sizeof(SourceValue) * Max(out->nelems, 1));
	for (int i = 0; i < out->nelems; i++)
		datum_read(values[i], nulls[i], element, zone, &out->elems[i]);

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	for (int i = 0; i < out->nelems; i++)
	{
		if (i > 0)
			appendStringInfoChar(&json, ',');
		if (nulls[i])
			appendStringInfoString(&json, "null");
		else
			escape_json(&json, out->elems[i].text);
	}
	appendStringInfoChar(&json, ']');
	out->text = json.data;
}

static TimestampTz
timestamp_in_zone(Datum value, const char *zone)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamp_zone, CStringGetTextDatum(zone), value));
}

void
datum_read(Datum value, bool isnull, Oid type, const char *zone, SourceValue *out)
{
	Oid base = getBaseType(type);

	memset(out, 0, sizeof(*out));
	out->isnull = isnull;
	out->kind = datum_kind(type);
	if (isnull)
		return;
	switch (out->kind)
	{
		case SRC_BOOL:
			out->text = pstrdup(DatumGetBool(value) ? "true" : "false");
			break;
		case SRC_FLOAT:
			out->text = float_text(value, base);
			break;
		case SRC_DATE:
		case SRC_TIME:
			out->text = datetime_text(value, base);
			break;
		case SRC_TIMESTAMPTZ:
			out->text = instant_text(base == TIMESTAMPOID ? timestamp_in_zone(value, zone)
														  : DatumGetTimestampTz(value));
			break;
		case SRC_BYTEA:
			out->text = base64_text(value);
			break;
		case SRC_ARRAY:
			read_array(value, base, zone, out);
			break;
		default:
			out->text = to_utf8(output_text(value, base));
	}
}

char *
datum_key_text(Datum value, Oid type)
{
	Oid base = getBaseType(type);

	switch (base)
	{
		case BOOLOID:
			return pstrdup(DatumGetBool(value) ? "true" : "false");
		case TEXTOID:
		case VARCHAROID:
			return TextDatumGetCString(value);
		case BPCHAROID:

			/* as the cast to text: the padding is no part of the value */
			return TextDatumGetCString(DirectFunctionCall1(rtrim1, value));
		case FLOAT4OID:
		case FLOAT8OID:
			return float_text(value, base);
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
			return datetime_text(value, base);
		case TIMESTAMPTZOID:
			return instant_text(DatumGetTimestampTz(value));
		default:
			return output_text(value, base);
	}
}

char *
key_join(char *const *parts, int nparts)
{
	StringInfoData key;

	if (nparts == 1)
		return parts[0];
	initStringInfo(&key);
	for (int i = 0; i < nparts; i++)
	{
		if (i > 0)
			appendStringInfoChar(&key, ':');
		for (const char *p = parts[i]; *p; p++)
		{
			if (*p == ':' || *p == '\\')
				appendStringInfoChar(&key, '\\');
			appendStringInfoChar(&key, *p);
		}
	}
	return key.data;
}

char **
key_split(const char *key, int nparts)
{
	char **parts = palloc(sizeof(char *) * nparts);
	StringInfoData part;
	int n = 0;

	if (nparts == 1)
	{
		parts[0] = pstrdup(key);
		return parts;
	}
	initStringInfo(&part);
	for (const char *p = key;; p++)
	{
		if (*p == '\0' || *p == ':')
		{
			if (n == nparts)
				return NULL;
			parts[n++] = pstrdup(part.data);
			resetStringInfo(&part);
			if (*p == '\0')
				break;
			continue;
		}
		if (*p == '\\' && p[1] != '\0')
			p++;
		appendStringInfoChar(&part, *p);
	}
	return n == nparts ? parts : NULL;
}
