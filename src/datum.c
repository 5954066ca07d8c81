/*
 * datum.c
 *		Values of PostgreSQL into text that no session setting changes.
 *
 * Types whose text depends on DateStyle, TimeZone and the like have a form of
 * their own here; for the rest the type's output function is right, under
 * the settings of datum_fix_settings.
 */
#include "compat.h"

#include <locale.h>

#include "access/detoast.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/base64.h"
#include "common/shortest_dec.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/cash.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "datum.h"

/*
 * Characters of text that are looked at, and their bytes at most.  The largest
 * text field takes 131,072; more would only fill the worker's memory.
 */
#define TEXT_LIMIT 140000
#define TEXT_BYTES (4 * TEXT_LIMIT)

/* Bytes of other values: as base64, what fits into a request of 50 MB. */
#define VALUE_LIMIT (36 * 1024 * 1024)

#define CHUNK 4096 /* bytes converted at once for the server */

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
		{"xmloption", "content"},
		{"lc_monetary", "C"},
		{"lc_numeric", "C"},
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
		case CASHOID:
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
integer_text(int64 value)
{
	char *text = palloc(MAXINT8LEN + 1);

	pg_lltoa(value, text);
	return text;
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

/*
 * Convert as much as there is a conversion for.  The result ends with a zero;
 * *used is how much of the text it stands for.
 */
static char *
convert_front(const char *text, size_t len, int from, int to, size_t *used)
{
	Oid conversion = FindDefaultConversionProc(from, to);
	size_t size = len * MAX_CONVERSION_GROWTH + 1;
	char *result = palloc(size);

	result[0] = '\0';
	*used = 0;
	if (OidIsValid(conversion) && len > 0)
		*used =
			pg_do_encoding_conversion_buf(conversion, from, to, (unsigned char *) unconstify(char *, text),
										  len, (unsigned char *) result, size, true);
	return result;
}

/*
 * Text of the server's encoding in UTF-8, or NULL where it has no such form.
 * Never an error: one value must not keep the others from going.
 */
static char *
to_utf8(const char *text, size_t len)
{
	char *result;
	size_t used;

	if (GetDatabaseEncoding() == PG_UTF8)
		return pnstrdup(text, len);
	if (GetDatabaseEncoding() == PG_SQL_ASCII)
		return pg_verify_mbstr(PG_UTF8, text, len, true) ? pnstrdup(text, len) : NULL;
	result = convert_front(text, len, GetDatabaseEncoding(), PG_UTF8, &used);
	return used == len ? repalloc(result, strlen(result) + 1) : NULL;
}

char *
datum_key_utf8(const char *key)
{
	char *result = to_utf8(key, strlen(key));

	return result ? result : psprintf("\xFF%s", key);
}

/* Bytes that are no UTF-8 as question marks, so that the rest can be shown. */
static char *
without_invalid(const char *text)
{
	char *copy = pstrdup(text);

	if (!pg_verify_mbstr(PG_UTF8, text, strlen(text), true))
	{
		for (unsigned char *p = (unsigned char *) copy; *p; p++)
			if (*p >= 0x80)
				*p = '?';
	}
	return copy;
}

char *
datum_from_utf8(const char *text)
{
	const char *rest = without_invalid(text);
	const char *end = rest + strlen(rest);
	StringInfoData result;

	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		return unconstify(char *, rest);
	initStringInfo(&result);
	while (rest < end)
	{
		size_t len = pg_encoding_mbcliplen(PG_UTF8, rest, (int) Min(end - rest, CHUNK), CHUNK);
		size_t used;
		char *front = convert_front(rest, len, PG_UTF8, GetDatabaseEncoding(), &used);

		appendStringInfoString(&result, front);
		pfree(front);
		rest += used;
		if (used < len)
		{
			appendStringInfoChar(&result, '?');
			rest += pg_utf_mblen((const unsigned char *) rest);
		}
	}
	return result.data;
}

static void
make_unusable(SourceValue *out, const char *reason)
{
	out->unusable = reason;
	out->text = pstrdup("");
}

/*
 * No more than the front of a long text.  Counted by first bytes: "char" can
 * hold half a character, also in a database that is UTF-8.
 */
static void
cut_characters(SourceValue *out)
{
	char *end = out->text;
	int n = 0;

	for (; *end; end++)
		if (((unsigned char) *end & 0xC0) != 0x80 && n++ == TEXT_LIMIT)
			break;
	if (!*end)
		return;
	*end = '\0';
	out->cut = true;
	out->text = repalloc(out->text, end - out->text + 1);
}

/* Text of the server's encoding, or of UTF-8. */
static void
set_text(const char *text, size_t len, bool is_utf8, SourceValue *out)
{
	int encoding = GetDatabaseEncoding();

	if (is_utf8 || encoding == PG_SQL_ASCII)
		encoding = PG_UTF8;
	if (len > TEXT_BYTES)
	{
		len = pg_encoding_mbcliplen(encoding, text, len, TEXT_BYTES);
		out->cut = true;
	}
	out->text = is_utf8 ? pnstrdup(text, len) : to_utf8(text, len);
	if (out->text)
		cut_characters(out);
	else
		make_unusable(out, "value has no form in UTF-8: it holds bytes that are invalid, or a character that "
						   "Unicode lacks");
}

/* Of a value of 1 GB no more is read than needed. */
static void
read_text(Datum value, Oid base, SourceValue *out)
{
	struct varlena *front = PG_DETOAST_DATUM_SLICE(value, 0, TEXT_BYTES + 1);
	const char *text = VARDATA_ANY(front);
	size_t len = VARSIZE_ANY_EXHDR(front);

	/* as in the cast to text: the padding of char(n) is no part of the value */
	while (base == BPCHAROID && len > 0 && text[len - 1] == ' ')
		len--;
	set_text(text, len, false, out);
	if ((Pointer) front != DatumGetPointer(value))
		pfree(front);
}

/*
 * Digits behind the point of money.  Its values keep no note of them: they are
 * those of the database's lc_monetary, whatever the session or the settings
 * that are fixed here say.
 */
static int
money_scale(void)
{
	static char known_locale[128];
	static int digits;
	const char *locale = GetConfigOptionResetString("lc_monetary");
	int nest_level;

	if (locale[0] && strcmp(locale, known_locale) == 0)
		return digits;
	nest_level = NewGUCNestLevel();
	(void) set_config_option("lc_monetary", locale, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
	digits = PGLC_localeconv()->frac_digits;
	AtEOXact_GUC(false, nest_level);
	if (digits < 0 || digits > 10)
		digits = 2; /* as the type's own functions */
	strlcpy(known_locale, locale, sizeof(known_locale));
	return digits;
}

static char *
money_text(Datum value)
{
	Numeric amount = int64_div_fast_to_numeric(DatumGetCash(value), money_scale());

	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(amount)));
}

/* Is its text JSON as it is?  NaN and infinity are not. */
static bool
is_bare_json(const SourceValue *element)
{
	const char *text = element->text;

	switch (element->kind)
	{
		case SRC_NUMERIC:
		case SRC_FLOAT:
			return !(text[0] == 'N' || text[0] == 'I' || text[1] == 'I');
		case SRC_BOOL:
		case SRC_INTEGER:
		case SRC_JSON:
		case SRC_ARRAY:
			return true;
		default:
			return false;
	}
}

/* One element as to_json gives it. */
static void
append_element(StringInfo json, const SourceValue *element)
{
	if (element->isnull)
	{
		appendStringInfoString(json, "null");
		return;
	}
	if (is_bare_json(element))
	{
		appendStringInfoString(json, element->text);
		return;
	}
	escape_json(json, element->text);
}

/* The elements from *next on, of the dimensions that are left. */
static void
append_dimension(StringInfo json, const SourceValue *elements, int ndim, const int *dims, int *next)
{
	appendStringInfoChar(json, '[');
	for (int i = 0; ndim > 0 && i < dims[0]; i++)
	{
		if (i > 0)
			appendStringInfoChar(json, ',');
		if (ndim > 1)
			append_dimension(json, elements, ndim - 1, dims + 1, next);
		else
			append_element(json, &elements[(*next)++]);
	}
	appendStringInfoChar(json, ']');
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
	int next = 0;

	get_typlenbyvalalign(element, &typlen, &byval, &align);
	deconstruct_array(array, element, typlen, byval, align, &values, &nulls, &out->nelems);
	out->elems = palloc0(sizeof(SourceValue) * Max(out->nelems, 1));
	for (int i = 0; i < out->nelems; i++)
	{
		datum_read(values[i], nulls[i], element, zone, &out->elems[i]);
		if (out->elems[i].unusable)
		{
			make_unusable(out, out->elems[i].unusable);
			return;
		}
	}
	initStringInfo(&json);
	append_dimension(&json, out->elems, ARR_NDIM(array), ARR_DIMS(array), &next);
	set_text(json.data, json.len, true, out);
}

/* The instant at which clocks of the zone show the time; near the limits of the type there is none. */
static void
read_local_time(Timestamp value, const char *zone, SourceValue *out)
{
	const int64 margin = 2 * USECS_PER_DAY;

	if (!TIMESTAMP_NOT_FINITE(value))
	{
		if (value < MIN_TIMESTAMP + margin || value >= END_TIMESTAMP - margin)
		{
			make_unusable(out, "value is too close to the limits of its type to be read in a time zone");
			return;
		}
		value = DatumGetTimestampTz(
			DirectFunctionCall2(timestamp_zone, CStringGetTextDatum(zone), TimestampGetDatum(value)));
	}
	out->text = instant_text(value);
}

static bool
too_large(Datum value, Oid base, SourceValue *out)
{
	Size size;

	if (get_typlen(base) != -1)
		return false;
	size = toast_raw_datum_size(value);
	if (size <= VALUE_LIMIT)
		return false;
	make_unusable(out,
				  psprintf("value has %zu bytes, and no more than %d fit into a request", size, VALUE_LIMIT));
	return true;
}

void
datum_read(Datum value, bool isnull, Oid type, const char *zone, SourceValue *out)
{
	Oid base = getBaseType(type);
	char *text;

	memset(out, 0, sizeof(*out));
	out->isnull = isnull;
	out->kind = datum_kind(type);
	if (isnull)
		return;
	if (base == TEXTOID || base == VARCHAROID || base == BPCHAROID)
	{
		read_text(value, base, out);
		return;
	}
	if (too_large(value, base, out))
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
			if (base == TIMESTAMPOID)
				read_local_time(DatumGetTimestamp(value), zone, out);
			else
				out->text = instant_text(DatumGetTimestampTz(value));
			break;
		case SRC_BYTEA:
			out->text = base64_text(value);
			break;
		case SRC_ARRAY:
			read_array(value, base, zone, out);
			break;
		default:
			text = base == CASHOID ? money_text(value) : output_text(value, base);
			set_text(text, strlen(text), false, out);
			pfree(text);
	}
}

char *
datum_key_text(Datum value, Oid type)
{
	/* a writer's row trigger comes here: what the server defines is no domain */
	Oid base = type < FirstGenbkiObjectId ? type : getBaseType(type);

	switch (base)
	{
		case BOOLOID:
			return pstrdup(DatumGetBool(value) ? "true" : "false");
		case INT2OID:
			return integer_text(DatumGetInt16(value));
		case INT4OID:
			return integer_text(DatumGetInt32(value));
		case INT8OID:
			return integer_text(DatumGetInt64(value));
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
