/* Values of columns into values of fields: coerce.c */
#include "unit.h"

#include "coerce.h"

static char *active_tiers[] = {"Gold", "Silver", "Blue; Light", "Été"};

/* The fields that the cases below name. */
static SfField
field_of(SfType type)
{
	SfField f = {0};

	f.name = "F__c";
	f.type = type;
	f.createable = f.updateable = f.nillable = true;
	switch (type)
	{
		case SF_STRING:
		case SF_EMAIL:
			f.length = 20;
			break;
		case SF_TEXTAREA:
			f.length = 32000;
			break;
		case SF_INT:
			f.digits = 8;
			break;
		case SF_DOUBLE:
		case SF_CURRENCY:
			f.precision = 18;
			f.scale = 2;
			break;
		case SF_PERCENT:
			f.precision = 5;
			break;
		case SF_PICKLIST:
		case SF_MULTIPICKLIST:
			f.length = 255;
			f.restricted_picklist = true;
			f.picklist = active_tiers;
			f.npicklist = 3;
			break;
		case SF_BOOLEAN:
			f.nillable = false;
			f.defaulted_on_create = true;
			break;
		default:
			break;
	}
	return f;
}

/* Either text is what is sent, or reason a part of why it is refused. */
typedef struct Case
{
	SourceKind kind;
	SfType type;
	const char *source;
	FieldValueKind sent;
	const char *text;
	const char *reason;
} Case;

static const CoerceOptions plain = {false, false};
static const CoerceOptions truncating = {false, true};
static const CoerceOptions keeping = {true, false};

static bool
coerce_text_value(SourceKind kind, const char *source, const SfField *field, const CoerceOptions *options,
				  FieldValue *out, char **reason)
{
	SourceValue value = {0};

	value.kind = kind;
	value.isnull = source == NULL;
	value.text = source != NULL ? pstrdup(source) : NULL;
	return coerce_value(&value, field, options, out, reason);
}

static bool
check_sent(const Case *c, const FieldValue *out)
{
	if (out->kind != c->sent)
		return false;
	if (c->sent == FV_BOOL)
		return out->boolean == (strcmp(c->text, "true") == 0);
	if (c->text == NULL || out->text == NULL)
		return c->text == out->text;
	return strcmp(c->text, out->text) == 0;
}

/* A reason is one line, short, and a sentence for a DBA. */
static bool
check_reason(const Case *c, const char *reason)
{
	return reason != NULL && strstr(reason, c->reason) != NULL && strpbrk(reason, "\n\r") == NULL &&
		   strlen(reason) < 500;
}

static void
run_cases(const Case *cases, size_t n, const CoerceOptions *options)
{
	int wrong = 0;

	for (size_t i = 0; i < n; i++)
	{
		const Case *c = &cases[i];
		SfField field = field_of(c->type);
		FieldValue out;
		char *reason;
		bool ok = coerce_text_value(c->kind, c->source, &field, options, &out, &reason);
		bool expected = c->reason == NULL;

		if (ok == expected && (ok ? check_sent(c, &out) && reason == NULL : check_reason(c, reason)))
			continue;
		diag("case %zu \"%s\": kind %d \"%s\", reason \"%s\"", i, c->source ? c->source : "NULL", out.kind,
			 out.text ? out.text : "-", reason ? reason : "-");
		wrong++;
	}
	assert_int_equal(wrong, 0);
}

#define RUN(cases) run_cases(cases, lengthof(cases), &plain)
#define REFUSED(reason) FV_ABSENT, NULL, reason
#define NUMBER(text) FV_NUMBER, text, NULL
#define STRING(text) FV_STRING, text, NULL

static void
numbers(void **state)
{
	static const Case cases[] = {
		{SRC_INTEGER, SF_INT, "42", NUMBER("42")},
		{SRC_INTEGER, SF_INT, "-42", NUMBER("-42")},
		{SRC_INTEGER, SF_INT, "+7", NUMBER("7")},
		{SRC_INTEGER, SF_INT, "0", NUMBER("0")},
		{SRC_INTEGER, SF_INT, "99999999", NUMBER("99999999")},
		{SRC_INTEGER, SF_INT, "100000000", REFUSED("has 9 digits left of the point, field F__c takes 8")},
		{SRC_INTEGER, SF_LONG, "9223372036854775807", NUMBER("9223372036854775807")},
		{SRC_INTEGER, SF_LONG, "-9223372036854775808", NUMBER("-9223372036854775808")},
		{SRC_NUMERIC, SF_LONG, "9223372036854775808", REFUSED("beyond the range")},
		{SRC_NUMERIC, SF_INT, "2.5", NUMBER("3")},
		{SRC_NUMERIC, SF_INT, "-2.5", NUMBER("-3")},
		{SRC_NUMERIC, SF_INT, "-0.4", NUMBER("0")},
		{SRC_NUMERIC, SF_INT, "99999999.5", REFUSED("has 9 digits")},

		/* exactly, and rounded half away from zero as round() does */
		{SRC_NUMERIC, SF_DOUBLE, "1234567890123456.78", NUMBER("1234567890123456.78")},
		{SRC_NUMERIC, SF_DOUBLE, "0.1", NUMBER("0.1")},
		{SRC_NUMERIC, SF_DOUBLE, "10.50", NUMBER("10.50")},
		{SRC_NUMERIC, SF_DOUBLE, "1.005", NUMBER("1.01")},
		{SRC_NUMERIC, SF_DOUBLE, "-1.005", NUMBER("-1.01")},
		{SRC_NUMERIC, SF_DOUBLE, "1.00499999999999999999", NUMBER("1.00")},
		{SRC_NUMERIC, SF_DOUBLE, "9.995", NUMBER("10.00")},
		{SRC_NUMERIC, SF_DOUBLE, "999.999", NUMBER("1000.00")},
		{SRC_NUMERIC, SF_DOUBLE, "-0.004", NUMBER("0.00")},
		{SRC_NUMERIC, SF_DOUBLE, "-0.005", NUMBER("-0.01")},
		{SRC_NUMERIC, SF_DOUBLE, "-0", NUMBER("0")},
		{SRC_NUMERIC, SF_DOUBLE, "9999999999999999.99", NUMBER("9999999999999999.99")},
		{SRC_NUMERIC, SF_DOUBLE, "9999999999999999.995",
		 REFUSED("has 17 digits left of the point, field F__c takes 16")},
		{SRC_NUMERIC, SF_DOUBLE, "12345678901234567", REFUSED("has 17 digits")},
		{SRC_NUMERIC, SF_DOUBLE, "NaN", REFUSED("\"NaN\" is not a number")},
		{SRC_NUMERIC, SF_DOUBLE, "Infinity", REFUSED("not a number")},
		{SRC_NUMERIC, SF_DOUBLE, "-Infinity", REFUSED("not a number")},
		{SRC_NUMERIC, SF_PERCENT, "50", NUMBER("50")},
		{SRC_NUMERIC, SF_PERCENT, "99999.5", REFUSED("has 6 digits")},
		{SRC_NUMERIC, SF_CURRENCY, "19.99", NUMBER("19.99")},

		/* floats come with exponents */
		{SRC_FLOAT, SF_DOUBLE, "1e-05", NUMBER("0.00")},
		{SRC_FLOAT, SF_DOUBLE, "1.5e+15", NUMBER("1500000000000000")},
		{SRC_FLOAT, SF_DOUBLE, "1.234e2", NUMBER("123.4")},
		{SRC_FLOAT, SF_DOUBLE, "12345e-3", NUMBER("12.35")},
		{SRC_FLOAT, SF_DOUBLE, "0e300", NUMBER("0")},
		{SRC_FLOAT, SF_DOUBLE, "1e+300", REFUSED("has 301 digits")},
		{SRC_FLOAT, SF_DOUBLE, "1e99999999999999999999", REFUSED("not a number")},
		{SRC_FLOAT, SF_DOUBLE, "-Infinity", REFUSED("not a number")},

		/* text that is a plain number */
		{SRC_TEXT, SF_DOUBLE, "  12.5 ", NUMBER("12.5")},
		{SRC_TEXT, SF_DOUBLE, "007", NUMBER("7")},
		{SRC_TEXT, SF_DOUBLE, ".5", NUMBER("0.5")},
		{SRC_TEXT, SF_DOUBLE, "1e3", REFUSED("not a number")},
		{SRC_TEXT, SF_DOUBLE, "0x1F", REFUSED("not a number")},
		{SRC_TEXT, SF_DOUBLE, "1,5", REFUSED("not a number")},
		{SRC_TEXT, SF_DOUBLE, "1.2.3", REFUSED("not a number")},
		{SRC_TEXT, SF_DOUBLE, "--1", REFUSED("not a number")},
		{SRC_TEXT, SF_DOUBLE, "-", REFUSED("not a number")},
		{SRC_TEXT, SF_DOUBLE, ".", REFUSED("not a number")},
		{SRC_TEXT, SF_DOUBLE, "12 000", REFUSED("not a number")},
		{SRC_BOOL, SF_DOUBLE, "true", REFUSED("a number field takes numbers")},
	};

	(void) state;
	RUN(cases);
}

/* numeric has up to 147,455 digits; none of them may hurt. */
static void
huge_numbers(void **state)
{
	SfField field = field_of(SF_DOUBLE);
	FieldValue out;
	char *reason;
	char *text = palloc(150001);

	(void) state;
	memset(text, '9', 150000);
	text[150000] = '\0';
	assert_false(coerce_text_value(SRC_NUMERIC, text, &field, &plain, &out, &reason));
	assert_true(strlen(reason) < 200);
	text[16] = '.';
	assert_false(coerce_text_value(SRC_NUMERIC, text, &field, &plain, &out, &reason));
	text[0] = '1';
	assert_true(coerce_text_value(SRC_NUMERIC, text, &field, &plain, &out, &reason));
	assert_string_equal(out.text, "2000000000000000.00");
}

/* A sum that is known: 0.01 to 99.99 survive digit for digit. */
static void
every_cent(void **state)
{
	SfField field = field_of(SF_CURRENCY);

	(void) state;
	for (int i = 0; i < 10000; i++)
	{
		char *source = psprintf("%d.%02d", i / 100, i % 100);
		FieldValue out;
		char *reason;

		assert_true(coerce_text_value(SRC_NUMERIC, source, &field, &plain, &out, &reason));
		assert_string_equal(out.text, source);
	}
}

static __int128
power_of_ten(int n)
{
	__int128 power = 1;

	while (n-- > 0)
		power *= 10;
	return power;
}

/* Digits of a number without its point, as a whole number; *scale is how many were behind it. */
static __int128
whole_of(const char *text, int *scale)
{
	bool negative = *text == '-';
	__int128 whole = 0;
	bool behind = false;

	*scale = 0;
	for (text += negative; *text != '\0'; text++)
	{
		if (*text == '.')
		{
			behind = true;
			continue;
		}
		assert_in_range(*text, '0', '9');
		whole = whole * 10 + (*text - '0');
		*scale += behind;
	}
	return negative ? -whole : whole;
}

/* Rounding and the check of size, by whole numbers of 128 bits instead of digits. */
static void
random_numbers(void **state)
{
	uint64_t seed = seed_of("random_numbers");
	int refused = 0;

	(void) state;
	for (int i = 0; i < trials(); i++)
	{
		SfField field = field_of(SF_DOUBLE);
		int left = 1 + next_random(&seed) % 19;
		int right = next_random(&seed) % 18;
		char *source = pstrdup(next_random(&seed) % 2 ? "-" : "");
		bool nines = next_random(&seed) % 4 == 0;
		int scale;
		int sent_scale;
		__int128 wanted;
		__int128 sent;
		FieldValue out;
		char *reason;
		bool ok;

		field.scale = next_random(&seed) % 8;
		for (int d = -left; d < right; d++)
			source = psprintf("%s%s%d", source, d == 0 ? "." : "",
							  nines && d != right - 1 ? 9 : (int) (next_random(&seed) % 10));
		wanted = whole_of(source, &scale);
		for (; scale < field.scale; scale++)
			wanted *= 10;
		if (scale > field.scale)
		{
			__int128 unit = power_of_ten(scale - field.scale);

			wanted = (wanted + (wanted < 0 ? -unit / 2 : unit / 2)) / unit;
		}
		ok = coerce_text_value(SRC_NUMERIC, source, &field, &plain, &out, &reason);
		if (ok != (wanted < power_of_ten(18) && wanted > -power_of_ten(18)))
			fail_msg("%s to scale %d: %s", source, field.scale, ok ? out.text : reason);
		refused += !ok;
		if (!ok)
			continue;
		sent = whole_of(out.text, &sent_scale);
		assert_in_range(sent_scale, 0, field.scale);
		if (sent * power_of_ten(field.scale - sent_scale) != wanted || strncmp(out.text, "-0", 3) == 0)
			fail_msg("%s to scale %d: %s", source, field.scale, out.text);
	}
	assert_in_range(refused, trials() / 50, trials() / 2);
}

static void
checkboxes(void **state)
{
	static const Case cases[] = {
		{SRC_BOOL, SF_BOOLEAN, "true", FV_BOOL, "true", NULL},
		{SRC_BOOL, SF_BOOLEAN, "false", FV_BOOL, "false", NULL},
		{SRC_TEXT, SF_BOOLEAN, " Yes ", FV_BOOL, "true", NULL},
		{SRC_TEXT, SF_BOOLEAN, "OFF", FV_BOOL, "false", NULL},
		{SRC_TEXT, SF_BOOLEAN, "t", FV_BOOL, "true", NULL},
		{SRC_INTEGER, SF_BOOLEAN, "1", FV_BOOL, "true", NULL},
		{SRC_INTEGER, SF_BOOLEAN, "0", FV_BOOL, "false", NULL},
		{SRC_NUMERIC, SF_BOOLEAN, "1.00", FV_BOOL, "true", NULL},
		{SRC_NUMERIC, SF_BOOLEAN, "0.0", FV_BOOL, "false", NULL},
		{SRC_NUMERIC, SF_BOOLEAN, "1.01", REFUSED("neither true nor false")},
		{SRC_NUMERIC, SF_BOOLEAN, "NaN", REFUSED("neither true nor false")},
		{SRC_FLOAT, SF_BOOLEAN, "1", FV_BOOL, "true", NULL},
		{SRC_INTEGER, SF_BOOLEAN, "2", REFUSED("neither true nor false")},
		{SRC_TEXT, SF_BOOLEAN, "truest", REFUSED("neither true nor false")},
		{SRC_TEXT, SF_BOOLEAN, "", FV_BOOL, "false", NULL},
		{SRC_TEXT, SF_BOOLEAN, NULL, FV_BOOL, "false", NULL},
		{SRC_DATE, SF_BOOLEAN, "2026-01-01", REFUSED("a checkbox takes")},
		{SRC_BOOL, SF_STRING, "true", STRING("true")},
		{SRC_BOOL, SF_STRING, "false", STRING("false")},
	};

	(void) state;
	RUN(cases);
}

static void
texts(void **state)
{
	static const Case cases[] = {
		{SRC_TEXT, SF_STRING, "plain", STRING("plain")},
		{SRC_TEXT, SF_STRING, " \t\r\n trimmed \n", STRING("trimmed")},
		{SRC_TEXT, SF_STRING, "two\nlines\r\n\tof it", STRING("two\nlines\r\n\tof it")},
		{SRC_TEXT, SF_STRING, "\"\\/'<>&%", STRING("\"\\/'<>&%")},
		{SRC_TEXT, SF_STRING, "12345678901234567890", STRING("12345678901234567890")},
		{SRC_TEXT, SF_STRING, "  12345678901234567890  ", STRING("12345678901234567890")},
		{SRC_TEXT, SF_STRING, "123456789012345678901",
		 REFUSED("value has 21 characters, field F__c takes 20")},
		{SRC_TEXT, SF_STRING, "ÄÖÜäöüß€\U0001F600ÄÖÜäöüß€\U0001F600ÄÖ",
		 STRING("ÄÖÜäöüß€\U0001F600ÄÖÜäöüß€\U0001F600ÄÖ")},
		{SRC_TEXT, SF_STRING, "ÄÖÜäöüß€\U0001F600ÄÖÜäöüß€\U0001F600ÄÖÜ", REFUSED("has 21 characters")},
		{SRC_TEXT, SF_STRING, "a\001b", REFUSED("control character U+0001")},
		{SRC_TEXT, SF_STRING, "a\037b", REFUSED("U+001F")},
		{SRC_TEXT, SF_STRING, "a\177b", STRING("a\177b")},
		{SRC_TEXT, SF_STRING,
		 "a\xff"
		 "b",
		 REFUSED("UTF-8")},
		{SRC_TEXT, SF_STRING, "a\xc3", REFUSED("UTF-8")},
		{SRC_TEXT, SF_STRING, "\xed\xa0\x80", REFUSED("UTF-8")},
		{SRC_TEXT, SF_STRING, "\xc0\x80", REFUSED("UTF-8")},
		{SRC_TEXT, SF_STRING, "", FV_NULL, NULL, NULL},
		{SRC_TEXT, SF_STRING, " \n\t ", FV_NULL, NULL, NULL},
		{SRC_TEXT, SF_STRING, NULL, FV_NULL, NULL, NULL},
		{SRC_INTEGER, SF_STRING, "00042", STRING("00042")},
		{SRC_NUMERIC, SF_STRING, "NaN", STRING("NaN")},
		{SRC_FLOAT, SF_STRING, "1e+20", STRING("1e+20")},
		{SRC_DATE, SF_STRING, "infinity", STRING("infinity")},
		{SRC_TIMESTAMPTZ, SF_TEXTAREA, "2026-11-03T08:15:30.123456Z", STRING("2026-11-03T08:15:30.123456Z")},
		{SRC_JSON, SF_TEXTAREA, "{\"a\": [1, null]}", STRING("{\"a\": [1, null]}")},
		{SRC_ARRAY, SF_TEXTAREA, "[1,2]", STRING("[1,2]")},
		{SRC_BYTEA, SF_TEXTAREA, "AAEC", STRING("AAEC")},
		{SRC_TEXT, SF_PHONE, "+49 30 1234", STRING("+49 30 1234")},
		{SRC_INTEGER, SF_PHONE, "4930123", STRING("4930123")},
		{SRC_TEXT, SF_URL, "https://example.com/?a=b", STRING("https://example.com/?a=b")},
		{SRC_TEXT, SF_OTHER, "x", REFUSED("can't be written")},
		{SRC_TEXT, SF_ID, "001000000000000AAA", REFUSED("Id of a record can't be written")},
		{SRC_BYTEA, SF_BASE64, "AAEC", STRING("AAEC")},
		{SRC_BYTEA, SF_BASE64, "", FV_NULL, NULL, NULL},
		{SRC_BYTEA, SF_BASE64, "=", REFUSED("not base64")},
		{SRC_TEXT, SF_BASE64, "AAEC", REFUSED("takes bytea")},
		{SRC_TEXT, SF_EMAIL, "Ann.Lee@Example.com", STRING("Ann.Lee@Example.com")},
		{SRC_TEXT, SF_EMAIL, " a@b.c ", STRING("a@b.c")},
		{SRC_TEXT, SF_EMAIL, "a@b", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "@b.c", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "a@.c", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "a@b.", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "a@b..c", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "a@b@c.d", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "a b@c.d", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "a@b.c\nBcc: d", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, ".a@b.c", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "a.@b.c", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "a..b@c.d", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "a.b+c'd@e-f.gh", STRING("a.b+c'd@e-f.gh")},
		{SRC_TEXT, SF_EMAIL, "123", REFUSED("not an e-mail address")},
		{SRC_TEXT, SF_EMAIL, "somebody@example.commm", REFUSED("has 22 characters")},
		{SRC_TEXT, SF_REFERENCE, "000000000000000", STRING("000000000000000AAA")},
		{SRC_TEXT, SF_REFERENCE, "A00000000000000BAA", STRING("A00000000000000BAA")},
		{SRC_TEXT, SF_REFERENCE, "A00000000000000AAA", REFUSED("not a Salesforce Id")},
		{SRC_TEXT, SF_REFERENCE, "42", REFUSED("not a Salesforce Id")},
		{SRC_INTEGER, SF_REFERENCE, "42", REFUSED("a lookup takes Salesforce Ids")},
	};

	(void) state;
	RUN(cases);
}

/* Overlong values are cut between characters and trimmed again. */
static void
truncation(void **state)
{
	static const Case cases[] = {
		{SRC_TEXT, SF_STRING, "123456789012345678901234", STRING("12345678901234567890")},
		{SRC_TEXT, SF_STRING, "1234567890123456789 1234", STRING("1234567890123456789")},
		{SRC_TEXT, SF_STRING, "€€€€€€€€€€€€€€€€€€€€€€", STRING("€€€€€€€€€€€€€€€€€€€€")},
		{SRC_TEXT, SF_STRING, "short", STRING("short")},
		{SRC_TEXT, SF_STRING, "12345678901234567890\001", REFUSED("control character")},
		{SRC_TEXT, SF_EMAIL, "somebody@example.commm", REFUSED("has 22 characters")},
		{SRC_TEXT, SF_PICKLIST, "Goldest", REFUSED("not an active value")},
		{SRC_NUMERIC, SF_PERCENT, "123456", REFUSED("has 6 digits")},
	};

	(void) state;
	run_cases(cases, lengthof(cases), &truncating);
}

static void
picklists(void **state)
{
	static const Case cases[] = {
		{SRC_TEXT, SF_PICKLIST, "Gold", STRING("Gold")},
		{SRC_TEXT, SF_PICKLIST, " gOLD ", STRING("Gold")},
		{SRC_TEXT, SF_PICKLIST, "Golden",
		 REFUSED("\"Golden\" is not an active value of the restricted picklist F__c")},
		{SRC_TEXT, SF_PICKLIST, "Gol", REFUSED("not an active value")},
		{SRC_TEXT, SF_PICKLIST, "Été", REFUSED("not an active value")}, /* npicklist is 3 */
		{SRC_TEXT, SF_PICKLIST, "", FV_NULL, NULL, NULL},
		{SRC_ARRAY, SF_PICKLIST, "[]", REFUSED("single values")},
		{SRC_JSON, SF_PICKLIST, "\"Gold\"", REFUSED("single values")},
		{SRC_TEXT, SF_MULTIPICKLIST, "Gold;Silver", STRING("Gold;Silver")},
		{SRC_TEXT, SF_MULTIPICKLIST, " silver ; GOLD;;Silver; ", STRING("Silver;Gold")},
		{SRC_TEXT, SF_MULTIPICKLIST, "Gold;Tin", REFUSED("\"Tin\" is not an active value")},
		{SRC_TEXT, SF_MULTIPICKLIST, " ; ;", FV_NULL, NULL, NULL},
		{SRC_BYTEA, SF_MULTIPICKLIST, "AAEC", REFUSED("takes text or an array")},
	};
	SfField open = field_of(SF_PICKLIST);
	FieldValue out;
	char *reason;
	char text[300];

	(void) state;
	RUN(cases);

	/* letters of all kinds, in any case, become the list's spelling */
	open.npicklist = 4;
	assert_true(coerce_text_value(SRC_TEXT, "éTÉ", &open, &plain, &out, &reason));
	assert_string_equal(out.text, "Été");
	assert_false(coerce_text_value(SRC_TEXT, "éT", &open, &plain, &out, &reason));
	assert_false(coerce_text_value(SRC_TEXT, "éTÉs", &open, &plain, &out, &reason));
	open.npicklist = 3;

	/* a list that is not restricted swallows any value of up to 255 characters */
	open.restricted_picklist = false;
	memset(text, 'x', sizeof(text));
	text[255] = '\0';
	assert_true(coerce_text_value(SRC_TEXT, text, &open, &plain, &out, &reason));
	assert_string_equal(out.text, text);
	text[255] = 'x';
	text[256] = '\0';
	assert_false(coerce_text_value(SRC_TEXT, text, &open, &plain, &out, &reason));
	assert_string_equal(reason, "value has 256 characters, a picklist value takes 255");
	assert_true(coerce_text_value(SRC_TEXT, "gold", &open, &plain, &out, &reason));
	assert_string_equal(out.text, "gold");
	assert_false(coerce_text_value(SRC_TEXT, "a\001", &open, &plain, &out, &reason));

	/* restricted, and nothing is active */
	open.restricted_picklist = true;
	open.npicklist = 0;
	open.picklist = NULL;
	assert_false(coerce_text_value(SRC_TEXT, "Gold", &open, &plain, &out, &reason));
}

static SourceValue
array_of(SourceValue *elems, int n)
{
	SourceValue array = {false, SRC_ARRAY, "[]", n, elems};

	return array;
}

static void
arrays_to_multipicklists(void **state)
{
	SfField field = field_of(SF_MULTIPICKLIST);
	FieldValue out;
	char *reason;
	SourceValue good[] = {
		{false, SRC_TEXT, "silver", 0, NULL}, {true, SRC_TEXT, NULL, 0, NULL},
		{false, SRC_TEXT, " Gold ", 0, NULL}, {false, SRC_TEXT, "Silver", 0, NULL},
		{false, SRC_TEXT, "  ", 0, NULL},
	};
	SourceValue bad[] = {{false, SRC_TEXT, "Blue; Light", 0, NULL}};
	SourceValue unknown[] = {{false, SRC_TEXT, "Gold", 0, NULL}, {false, SRC_TEXT, "Tin", 0, NULL}};
	SourceValue nothing[] = {{true, SRC_TEXT, NULL, 0, NULL}};
	SourceValue nested[] = {{false, SRC_ARRAY, "[]", 0, NULL}};
	SourceValue broken[] = {{false, SRC_TEXT, "\xff", 0, NULL}};
	SourceValue numbers[] = {{false, SRC_INTEGER, "1", 0, NULL}, {false, SRC_INTEGER, "2", 0, NULL}};
	SourceValue value;

	(void) state;
	value = array_of(good, lengthof(good));
	assert_true(coerce_value(&value, &field, &plain, &out, &reason));
	assert_string_equal(out.text, "Silver;Gold");
	value = array_of(bad, 1);
	assert_false(coerce_value(&value, &field, &plain, &out, &reason));
	assert_non_null(strstr(reason, "holds a semicolon"));
	value = array_of(unknown, 2);
	assert_false(coerce_value(&value, &field, &plain, &out, &reason));
	assert_non_null(strstr(reason, "\"Tin\""));
	value = array_of(nested, 1);
	assert_false(coerce_value(&value, &field, &plain, &out, &reason));
	value = array_of(broken, 1);
	assert_false(coerce_value(&value, &field, &plain, &out, &reason));
	value = array_of(nothing, 1);
	assert_true(coerce_value(&value, &field, &plain, &out, &reason));
	assert_int_equal(out.kind, FV_NULL);
	value = array_of(NULL, 0);
	assert_true(coerce_value(&value, &field, &keeping, &out, &reason));
	assert_int_equal(out.kind, FV_ABSENT);
	field.restricted_picklist = false;
	value = array_of(numbers, 2);
	assert_true(coerce_value(&value, &field, &plain, &out, &reason));
	assert_string_equal(out.text, "1;2");
	field.length = 2;
	assert_false(coerce_value(&value, &field, &plain, &out, &reason));
}

static void
dates_and_times(void **state)
{
	static const Case cases[] = {
		{SRC_DATE, SF_DATE, "2026-11-03", STRING("2026-11-03")},
		{SRC_DATE, SF_DATE, "1700-01-01", STRING("1700-01-01")},
		{SRC_DATE, SF_DATE, "4000-12-31", STRING("4000-12-31")},
		{SRC_DATE, SF_DATE, "1699-12-31", REFUSED("outside the years 1700 to 4000")},
		{SRC_DATE, SF_DATE, "4001-01-01", REFUSED("outside the years")},
		{SRC_DATE, SF_DATE, "5874897-12-31", REFUSED("outside the years")},
		{SRC_DATE, SF_DATE, "2000-01-01 BC", REFUSED("outside the years")},
		{SRC_DATE, SF_DATE, "infinity", REFUSED("can't be stored")},
		{SRC_DATE, SF_DATE, "-infinity", REFUSED("can't be stored")},
		{SRC_TEXT, SF_DATE, "2024-02-29", STRING("2024-02-29")},
		{SRC_TEXT, SF_DATE, "2000-02-29", STRING("2000-02-29")},
		{SRC_TEXT, SF_DATE, "1900-02-29", REFUSED("not a date")},
		{SRC_TEXT, SF_DATE, "2026-02-29", REFUSED("not a date")},
		{SRC_TEXT, SF_DATE, "2026-13-01", REFUSED("not a date")},
		{SRC_TEXT, SF_DATE, "2026-00-10", REFUSED("not a date")},
		{SRC_TEXT, SF_DATE, "2026-04-31", REFUSED("not a date")},
		{SRC_TEXT, SF_DATE, "2026-1-1", REFUSED("not a date")},
		{SRC_TEXT, SF_DATE, "26-01-01", REFUSED("not a date")},
		{SRC_TEXT, SF_DATE, "002026-01-01", REFUSED("not a date")},
		{SRC_TEXT, SF_DATE, "03.11.2026", REFUSED("not a date")},
		{SRC_TEXT, SF_DATE, "2026-11-03T00:00:00Z", REFUSED("not a date")},
		{SRC_TEXT, SF_DATE, "99999999999999999999-01-01", REFUSED("not a date")},
		{SRC_TIMESTAMPTZ, SF_DATE, "2026-11-03T23:15:30Z", REFUSED("a date field takes date")},

		{SRC_TIMESTAMPTZ, SF_DATETIME, "2026-11-03T08:15:30Z", STRING("2026-11-03T08:15:30.000Z")},
		{SRC_TIMESTAMPTZ, SF_DATETIME, "2026-11-03T08:15:30.999999Z", STRING("2026-11-03T08:15:30.000Z")},
		{SRC_TIMESTAMPTZ, SF_DATETIME, "2026-12-31T23:59:59.9999999Z", STRING("2026-12-31T23:59:59.000Z")},
		{SRC_TIMESTAMPTZ, SF_DATETIME, "1699-12-31T23:59:59Z", REFUSED("outside the years")},
		{SRC_TIMESTAMPTZ, SF_DATETIME, "1700-01-01T00:00:00Z", STRING("1700-01-01T00:00:00.000Z")},
		{SRC_TEXT, SF_DATETIME, "1700-01-01T00:00:00+01:00", REFUSED("outside the years")},
		{SRC_TIMESTAMPTZ, SF_DATETIME, "4000-12-31T00:00:00.9Z", STRING("4000-12-31T00:00:00.000Z")},
		{SRC_TIMESTAMPTZ, SF_DATETIME, "4000-12-31T00:00:01Z", REFUSED("outside the years")},
		{SRC_TIMESTAMPTZ, SF_DATETIME, "294276-12-31T23:59:59Z", REFUSED("outside the years")},
		{SRC_TIMESTAMPTZ, SF_DATETIME, "2026-11-03T08:15:30Z BC", REFUSED("outside the years")},
		{SRC_TIMESTAMPTZ, SF_DATETIME, "infinity", REFUSED("can't be stored")},
		{SRC_DATE, SF_DATETIME, "2026-11-03", STRING("2026-11-03T00:00:00.000Z")},
		{SRC_DATE, SF_DATETIME, "2026-11-03 BC", REFUSED("outside the years")},
		{SRC_DATE, SF_DATETIME, "-infinity", REFUSED("can't be stored")},
		{SRC_TEXT, SF_DATETIME, "2026-11-03T08:15:30Z", STRING("2026-11-03T08:15:30.000Z")},
		{SRC_TEXT, SF_DATETIME, "2026-11-03 08:15:30+00", STRING("2026-11-03T08:15:30.000Z")},
		{SRC_TEXT, SF_DATETIME, "2026-01-01T00:15:30.7+05:45", STRING("2025-12-31T18:30:30.000Z")},
		{SRC_TEXT, SF_DATETIME, "2026-12-31T20:00:00-0800", STRING("2027-01-01T04:00:00.000Z")},
		{SRC_TEXT, SF_DATETIME, "2026-11-03T08:15:30+16", REFUSED("not a time stamp")},
		{SRC_TEXT, SF_DATETIME, "2026-11-03T08:15:30+01:60", REFUSED("not a time stamp")},
		{SRC_TEXT, SF_DATETIME, "2026-11-03T08:15:30+01:00 ", STRING("2026-11-03T07:15:30.000Z")},
		{SRC_TEXT, SF_DATETIME, "2026-11-03T08:15:30+01:00x", REFUSED("not a time stamp")},
		{SRC_TEXT, SF_DATETIME, "2026-11-03T08:15:30 CET", REFUSED("not a time stamp")},
		{SRC_TEXT, SF_DATETIME, "2026-11-03T25:15:30Z", REFUSED("not a time stamp")},
		{SRC_TEXT, SF_DATETIME, "2026-11-03T08:15:30.Z", REFUSED("not a time stamp")},
		{SRC_TEXT, SF_DATETIME, "2026-11-03T08:15:30", REFUSED("not a time stamp")},
		{SRC_TIME, SF_DATETIME, "08:15:30", REFUSED("a date/time field takes")},

		{SRC_TIME, SF_TIME, "08:15:30", STRING("08:15:30.000Z")},
		{SRC_TIME, SF_TIME, "08:15:30.1239", STRING("08:15:30.123Z")},
		{SRC_TIME, SF_TIME, "23:59:59.999999", STRING("23:59:59.999Z")},
		{SRC_TIME, SF_TIME, "08:15:30.05", STRING("08:15:30.050Z")},
		{SRC_TIME, SF_TIME, "24:00:00", REFUSED("not a time from 00:00:00")},
		{SRC_TEXT, SF_TIME, "08:15:30.1Z", STRING("08:15:30.100Z")},
		{SRC_TEXT, SF_TIME, "8:15:30", REFUSED("not a time")},
		{SRC_TEXT, SF_TIME, "08:15", REFUSED("not a time")},
		{SRC_TEXT, SF_TIME, "08:15:30+01", REFUSED("not a time")},
		{SRC_TIMESTAMPTZ, SF_TIME, "2026-11-03T08:15:30Z", REFUSED("a time field takes time")},
	};

	(void) state;
	RUN(cases);
}

static void
nulls(void **state)
{
	SfField required = field_of(SF_STRING);
	SfField owner = field_of(SF_REFERENCE);
	SfField checkbox = field_of(SF_BOOLEAN);
	FieldValue out;
	char *reason;

	(void) state;
	required.nillable = false;
	assert_false(coerce_text_value(SRC_TEXT, NULL, &required, &plain, &out, &reason));
	assert_string_equal(reason, "value is NULL, and field F__c must have a value");
	assert_false(coerce_text_value(SRC_TEXT, "  ", &required, &plain, &out, &reason));
	assert_string_equal(reason, "value is empty, and field F__c must have a value");
	assert_true(coerce_text_value(SRC_TEXT, NULL, &required, &keeping, &out, &reason));
	assert_int_equal(out.kind, FV_ABSENT);
	owner.nillable = false;
	owner.defaulted_on_create = true;
	assert_false(coerce_text_value(SRC_TEXT, NULL, &owner, &plain, &out, &reason));
	assert_true(coerce_text_value(SRC_TEXT, NULL, &checkbox, &keeping, &out, &reason));
	assert_int_equal(out.kind, FV_ABSENT);
	checkbox.default_boolean = true;
	assert_true(coerce_text_value(SRC_BOOL, NULL, &checkbox, &plain, &out, &reason));
	assert_int_equal(out.kind, FV_BOOL);
	assert_true(out.boolean);
}

/* What has no text at all, and of what only the front is there. */
static void
unusable_values(void **state)
{
	SourceValue unusable = {.kind = SRC_TEXT, .text = "", .unusable = "value is a riddle"};
	SourceValue front = {.kind = SRC_TEXT, .text = "0000000000000000000000000001", .cut = true};
	SfField text = field_of(SF_STRING);
	SfField number = field_of(SF_DOUBLE);
	FieldValue out;
	char *reason;

	(void) state;
	assert_false(coerce_value(&unusable, &text, &plain, &out, &reason));
	assert_string_equal(reason, "value is a riddle");
	assert_false(coerce_value(&front, &text, &plain, &out, &reason));
	assert_string_equal(reason, "value has more than 28 characters, and field F__c takes less");
	assert_true(coerce_value(&front, &text, &truncating, &out, &reason));
	assert_string_equal(out.text, "00000000000000000000");
	assert_false(coerce_value(&front, &number, &truncating, &out, &reason));
	text.length = 0;
	assert_false(coerce_value(&front, &text, &truncating, &out, &reason));
}

/* Long values, and what could break a log line, are not shown. */
static void
reasons_are_short(void **state)
{
	SfField field = field_of(SF_DOUBLE);
	FieldValue out;
	char *reason;
	char text[5000];

	(void) state;
	memset(text, 'z', sizeof(text));
	text[1] = '\n';
	text[sizeof(text) - 1] = '\0';
	assert_false(coerce_text_value(SRC_TEXT, text, &field, &plain, &out, &reason));
	assert_null(strchr(reason, '\n'));
	assert_non_null(strstr(reason, "zzz...\""));
	assert_true(strlen(reason) < 120);

	/* 60 characters, whole ones */
	for (int i = 0; i < 2000; i++)
		memcpy(text + 2 * i, "ä", 2);
	text[4000] = '\0';
	assert_false(coerce_text_value(SRC_TEXT, text, &field, &plain, &out, &reason));
	assert_int_equal(strspn(reason, "\"\xc3\xa4"), 121);
	assert_memory_equal(reason + 121, "...\"", 4);
}

/* Any kind into any type gives a value or a reason, and agrees with the matrix. */
static void
every_combination(void **state)
{
	static const char *const sources[] = {
		"true",      "42",   "4.2", "4e2", "Gold", "2026-11-03", "2026-11-03T08:15:30Z",
		"08:15:30",  "AAEC", "{}",  "[]",  "",     "infinity",   "NaN",
		"\xff\xfe",  "-",    "T",   ";",   "=",    "@.",         "::",
		"0000-00-00"};

	(void) state;
	for (int type = SF_ID; type <= SF_OTHER; type++)
	{
		SfField field = field_of((SfType) type);

		for (int kind = SRC_BOOL; kind <= SRC_ARRAY; kind++)
		{
			const char *never = coerce_incompatible((SourceKind) kind, &field);

			for (size_t i = 0; i < lengthof(sources); i++)
			{
				FieldValue out;
				char *reason;
				bool ok = coerce_text_value((SourceKind) kind, sources[i], &field, &plain, &out, &reason);

				assert_true(ok == (reason == NULL));
				if (never != NULL)
					assert_string_equal(reason, never);
				if (ok && (out.kind == FV_STRING || out.kind == FV_NUMBER))
					assert_true(out.text[0] != '\0');
			}
		}
	}
}

static void
never_compatible(void **state)
{
	static const struct
	{
		SourceKind kind;
		SfType type;
		bool compatible;
	} cases[] = {
		{SRC_BYTEA, SF_DOUBLE, false},
		{SRC_JSON, SF_DATE, false},
		{SRC_ARRAY, SF_BOOLEAN, false},
		{SRC_TEXT, SF_OTHER, false},
		{SRC_TIMESTAMPTZ, SF_DATE, false},
		{SRC_DATE, SF_DATETIME, true},
		{SRC_DATE, SF_TIME, false},
		{SRC_BOOL, SF_INT, false},
		{SRC_INTEGER, SF_REFERENCE, false},
		{SRC_JSON, SF_TEXTAREA, true},
		{SRC_ARRAY, SF_MULTIPICKLIST, true},
		{SRC_ARRAY, SF_STRING, true},
		{SRC_TEXT, SF_INT, true},
		{SRC_BYTEA, SF_BASE64, true},
		{SRC_BYTEA, SF_EMAIL, false},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		SfField field = field_of(cases[i].type);

		assert_int_equal(coerce_incompatible(cases[i].kind, &field) == NULL, cases[i].compatible);
	}
}

/* ------------------------------------------------------------------------
 * The README's table of what goes where, made from the code
 * ------------------------------------------------------------------------
 */

static const struct
{
	SourceKind kind;
	const char *types;
} column_types[] = {
	{SRC_BOOL, "`boolean`"},
	{SRC_INTEGER, "`smallint`, `integer`, `bigint`, `oid`"},
	{SRC_NUMERIC, "`numeric`, `money`"},
	{SRC_FLOAT, "`real`, `double precision`"},
	{SRC_TEXT,
	 "`text`, `varchar`, `char(40)`, `name`, `\"char\"`, `uuid`, `xml`, `interval`, `timetz`, `bit(8)`, `varbit`, "
	 "`inet`, `cidr`, `macaddr`, `macaddr8`, `point`, `line`, `lseg`, `box`, `path`, `polygon`, `circle`, "
	 "`tsvector`, `tsquery`, `jsonpath`, `int4range`, `numrange`, `tstzrange`, `daterange`, `int8multirange`, "
	 "`pg_lsn`, `xid8`, `regclass`"},
	{SRC_DATE, "`date`"},
	{SRC_TIMESTAMPTZ, "`timestamp`, `timestamptz`"},
	{SRC_TIME, "`time`"},
	{SRC_BYTEA, "`bytea`"},
	{SRC_JSON, "`json`, `jsonb`"},
	{SRC_ARRAY, "`integer[]`, `text[]`, `point[]`"},
};

/* Fields of the types in a column of the table are alike; SF_ID ends a list. */
static const struct
{
	const char *name;
	SfType types[5];
} field_types[] = {
	{"Text", {SF_STRING, SF_TEXTAREA, SF_COMBOBOX, SF_ENCRYPTED}},
	{"Phone, URL", {SF_PHONE, SF_URL}},
	{"Email", {SF_EMAIL}},
	{"Picklist", {SF_PICKLIST}},
	{"Multi-select", {SF_MULTIPICKLIST}},
	{"Checkbox", {SF_BOOLEAN}},
	{"Number", {SF_DOUBLE, SF_CURRENCY, SF_PERCENT, SF_INT, SF_LONG}},
	{"Date", {SF_DATE}},
	{"Date/Time", {SF_DATETIME}},
	{"Time", {SF_TIME}},
	{"Lookup", {SF_REFERENCE}},
	{"Base64", {SF_BASE64}},
};

static bool
goes(SourceKind kind, int column)
{
	SfField first = field_of(field_types[column].types[0]);
	bool compatible = coerce_incompatible(kind, &first) == NULL;

	for (int i = 1; i < lengthof(field_types[column].types) && field_types[column].types[i] != SF_ID; i++)
	{
		SfField field = field_of(field_types[column].types[i]);

		assert_int_equal(coerce_incompatible(kind, &field) == NULL, compatible);
	}
	return compatible;
}

static char *
conversion_table(void)
{
	char *table = pstrdup("| column type |");

	for (int c = 0; c < lengthof(field_types); c++)
		table = psprintf("%s %s |", table, field_types[c].name);
	table = psprintf("%s\n| --- |", table);
	for (int c = 0; c < lengthof(field_types); c++)
		table = psprintf("%s :-: |", table);
	for (int r = 0; r < lengthof(column_types); r++)
	{
		table = psprintf("%s\n| %s |", table, column_types[r].types);
		for (int c = 0; c < lengthof(field_types); c++)
			table = psprintf("%s %s |", table, goes(column_types[r].kind, c) ? "✓" : "–");
	}
	return psprintf("%s\n\n", table);
}

static char *
read_file(const char *name)
{
	FILE *file = fopen(name, "r");
	char *text = palloc0(1000000);

	assert_non_null(file);
	assert_true(fread(text, 1, 999999, file) > 0);
	fclose(file);
	return text;
}

/* Every kind and every type that can be written is in it, and the README has it to the letter. */
static void
readme_table(void **state)
{
	char *table = conversion_table();
	int named = 0;

	(void) state;
	assert_int_equal(lengthof(column_types), SRC_ARRAY - SRC_BOOL + 1);
	for (int c = 0; c < lengthof(field_types); c++)
	{
		for (int i = 0; i < lengthof(field_types[c].types) && field_types[c].types[i] != SF_ID; i++)
			named++;
	}
	assert_int_equal(named, SF_OTHER - SF_REFERENCE);
	if (strstr(read_file("../../README.md"), table) != NULL)
		return;
	fputs(table, stdout);
	fail_msg("README.md should have the table above");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(huge_numbers),
		cmocka_unit_test(every_cent),
		cmocka_unit_test(random_numbers),
		cmocka_unit_test(checkboxes),
		cmocka_unit_test(texts),
		cmocka_unit_test(truncation),
		cmocka_unit_test(picklists),
		cmocka_unit_test(arrays_to_multipicklists),
		cmocka_unit_test(dates_and_times),
		cmocka_unit_test(nulls),
		cmocka_unit_test(unusable_values),
		cmocka_unit_test(reasons_are_short),
		cmocka_unit_test(every_combination),
		cmocka_unit_test(never_compatible),
		cmocka_unit_test(readme_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
