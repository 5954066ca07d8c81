/* The form in which values are compared, and its hash: canonical.c, lexical.c */
#include "unit.h"

#include <time.h>

#include "canonical.h"
#include "coerce.h"
#include "lexical.h"

static char *tiers[] = {"Gold", "Silver", "Été"};

static SfField
field_of(SfType type)
{
	SfField f = {0};

	f.name = "F__c";
	f.type = type;
	f.createable = f.updateable = f.nillable = true;
	switch (type)
	{
		case SF_DOUBLE:
		case SF_CURRENCY:
			f.precision = 18;
			f.scale = 2;
			break;
		case SF_PERCENT:
			f.precision = 18;
			f.scale = 5;
			break;
		case SF_PICKLIST:
		case SF_MULTIPICKLIST:
			f.restricted_picklist = true;
			f.picklist = tiers;
			f.npicklist = lengthof(tiers);
			break;
		case SF_BOOLEAN:
			f.nillable = false;
			break;
		default:
			break;
	}
	return f;
}

static FieldValue
value_of(FieldValueKind kind, const char *text)
{
	FieldValue value = {0};

	value.kind = text == NULL && (kind == FV_STRING || kind == FV_NUMBER) ? FV_NULL : kind;
	value.text = text != NULL ? pstrdup(text) : NULL;
	value.boolean = kind == FV_BOOL && strcmp(text, "true") == 0;
	return value;
}

static char *
canonical(SfType type, FieldValueKind kind, const char *text)
{
	SfField field = field_of(type);
	FieldValue value = value_of(kind, text);

	return canonical_value(&value, &field);
}

static bool
same(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

typedef struct Form
{
	SfType type;
	FieldValueKind kind;
	const char *text;
	const char *form; /* NULL: null */
} Form;

/* To the letter: hashes of these are in tables and dumps. */
static void
forms(void **state)
{
	static const Form cases[] = {
		{SF_STRING, FV_STRING, "plain", "plain"},
		{SF_STRING, FV_STRING, "Case is KEPT", "Case is KEPT"},
		{SF_STRING, FV_STRING, " \t\n trimmed \r\n", "trimmed"},
		{SF_STRING, FV_STRING, "\u00a0\u3000 in\u00a0side \u2028\u2029\u200a\u1680\u205f\u202f",
		 "in\u00a0side"},
		{SF_STRING, FV_STRING, "\u200b", "\u200b"},
		{SF_STRING, FV_STRING, "", NULL},
		{SF_STRING, FV_STRING, " \t\r\n\u00a0", NULL},
		{SF_STRING, FV_NULL, NULL, NULL},
		{SF_STRING, FV_STRING, "a\r\nb\rc\nd\r\n\r\ne", "a\nb\nc\nd\n\ne"},
		{SF_TEXTAREA, FV_STRING, "a\r\n\tb  c", "a\n\tb  c"},
		{SF_STRING, FV_STRING, "a\x01\x1f\x7f\xc2\x80\xc2\x9f\xc2\x85z", "az"},
		{SF_STRING, FV_STRING, "\x01 a \x02", "a"},
		{SF_STRING, FV_STRING, "\x01\x02", NULL},
		{SF_STRING, FV_STRING, "\xc2", "\xc2"},
		{SF_STRING, FV_STRING, "\xe2\x80", "\xe2\x80"},
		{SF_STRING, FV_STRING, "\U0001F600\u00e4", "\U0001F600\u00e4"},
		{SF_STRING, FV_NUMBER, "12.50", "12.50"},
		{SF_STRING, FV_BOOL, "true", "true"},
		{SF_PHONE, FV_STRING, " +49 30 1 ", "+49 30 1"},
		{SF_URL, FV_STRING, "HTTPS://Example.com/A ", "HTTPS://Example.com/A"},
		{SF_EMAIL, FV_STRING, " Chloe.Myers@example.COM", "chloe.myers@example.com"},
		{SF_EMAIL, FV_STRING, "JÖRG@ÉTÉ.fr", "jörg@été.fr"},
		{SF_PICKLIST, FV_STRING, "Gold ", "gold"},
		{SF_PICKLIST, FV_STRING, "ÉTÉ", "été"},
		{SF_PICKLIST, FV_STRING, "Not in the list", "not in the list"},
		{SF_MULTIPICKLIST, FV_STRING, "Silver;Gold", "gold;silver"},
		{SF_MULTIPICKLIST, FV_STRING, " gold ; SILVER;;Gold; \u00a0;", "gold;silver"},
		{SF_MULTIPICKLIST, FV_STRING, "a", "a"},
		{SF_MULTIPICKLIST, FV_STRING, ";; ;", NULL},
		{SF_MULTIPICKLIST, FV_STRING, ";", NULL},
		{SF_BOOLEAN, FV_BOOL, "true", "true"},
		{SF_BOOLEAN, FV_BOOL, "false", "false"},
		{SF_BOOLEAN, FV_STRING, "TRUE", "true"},
		{SF_BOOLEAN, FV_STRING, " false", "false"},
		{SF_BOOLEAN, FV_STRING, "", "false"},
		{SF_BOOLEAN, FV_NULL, NULL, "false"},
		{SF_BOOLEAN, FV_STRING, "maybe", "maybe"},
		{SF_INT, FV_NUMBER, "42", "42"},
		{SF_INT, FV_NUMBER, "42.0", "42"},
		{SF_INT, FV_NUMBER, "-0", "0"},
		{SF_INT, FV_NUMBER, "1.0E7", "10000000"},
		{SF_INT, FV_STRING, "+7", "7"},
		{SF_LONG, FV_NUMBER, "9223372036854775807", "9223372036854775807"},
		{SF_DOUBLE, FV_NUMBER, "251.0", "251"},
		{SF_DOUBLE, FV_NUMBER, "0.10", "0.1"},
		{SF_DOUBLE, FV_NUMBER, "-0.004", "0"},
		{SF_DOUBLE, FV_NUMBER, "-0.005", "-0.01"},
		{SF_DOUBLE, FV_NUMBER, "1.005", "1.01"},
		{SF_DOUBLE, FV_NUMBER, "-1.005", "-1.01"},
		{SF_DOUBLE, FV_NUMBER, "9.12260031E8", "912260031"},
		{SF_DOUBLE, FV_NUMBER, "1.0E-3", "0"},
		{SF_DOUBLE, FV_NUMBER, "100", "100"},
		{SF_DOUBLE, FV_NUMBER, "0.0", "0"},
		{SF_DOUBLE, FV_NUMBER, "1234567890123.45", "1234567890123.45"},
		{SF_DOUBLE, FV_NUMBER, "1234567890123456.78", "1234567890123456.8"},
		{SF_DOUBLE, FV_NUMBER, "NaN", "NaN"},
		{SF_DOUBLE, FV_STRING, "twelve", "twelve"},
		{SF_PERCENT, FV_NUMBER, "50", "50"},
		{SF_PERCENT, FV_NUMBER, "1.0E-5", "0.00001"},
		{SF_CURRENCY, FV_STRING, " 19.90 ", "19.9"},
		{SF_DATE, FV_STRING, "2021-10-03", "2021-10-03"},
		{SF_DATE, FV_STRING, "2021-02-30", "2021-02-30"},
		{SF_DATETIME, FV_STRING, "2022-03-17T16:21:26.000+0000", "2022-03-17T16:21:26Z"},
		{SF_DATETIME, FV_STRING, "2022-03-17T16:21:26.999Z", "2022-03-17T16:21:26Z"},
		{SF_DATETIME, FV_STRING, "2022-03-17T16:21:26Z", "2022-03-17T16:21:26Z"},
		{SF_DATETIME, FV_STRING, "2022-03-17 16:21:26", "2022-03-17T16:21:26Z"},
		{SF_DATETIME, FV_STRING, "2022-01-01T00:30:00+05:45", "2021-12-31T18:45:00Z"},
		{SF_DATETIME, FV_STRING, "2024-02-28T20:00:00.5-0800", "2024-02-29T04:00:00Z"},
		{SF_DATETIME, FV_STRING, "1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59Z"},
		{SF_DATETIME, FV_STRING, "1700-01-01T00:00:00.000+0000", "1700-01-01T00:00:00Z"},
		{SF_DATETIME, FV_STRING, "4000-12-31T00:00:00.000+0000", "4000-12-31T00:00:00Z"},
		{SF_DATETIME, FV_STRING, "2022-03-17", "2022-03-17T00:00:00Z"},
		{SF_DATETIME, FV_STRING, "2022-03-17T16:21:26+99:00", "2022-03-17T16:21:26+99:00"},
		{SF_DATETIME, FV_STRING, "2022-03-17T16:21:26Zz", "2022-03-17T16:21:26Zz"},
		{SF_TIME, FV_STRING, "11:59:59.000Z", "11:59:59.000"},
		{SF_TIME, FV_STRING, "11:59:59.1239", "11:59:59.123"},
		{SF_TIME, FV_STRING, "00:00:00", "00:00:00.000"},
		{SF_TIME, FV_STRING, "24:00:00", "24:00:00"},
		{SF_REFERENCE, FV_STRING, "A00000000000000", "A00000000000000BAA"},
		{SF_REFERENCE, FV_STRING, "A00000000000000BAA", "A00000000000000BAA"},
		{SF_REFERENCE, FV_STRING, "a00000000000000BAA", "a00000000000000BAA"},
		{SF_REFERENCE, FV_NULL, NULL, NULL},
		{SF_REFERENCE, FV_LOOKUP, " Key 7 ", "ext: Key 7 "},
		{SF_ID, FV_STRING, "000000000000000", "000000000000000AAA"},
		{SF_OTHER, FV_STRING, " x ", "x"},
	};
	int wrong = 0;

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		char *form = canonical(cases[i].type, cases[i].kind, cases[i].text);

		if (same(form, cases[i].form))
			continue;
		diag("case %zu \"%s\": \"%s\"", i, cases[i].text ? cases[i].text : "NULL", form ? form : "NULL");
		wrong++;
	}
	assert_int_equal(wrong, 0);
}

typedef struct Pair
{
	SfType type;
	FieldValueKind sent_kind;
	const char *sent;
	FieldValueKind read_kind;
	const char *read;
} Pair;

static void
check_pairs(const Pair *pairs, size_t n, bool equal)
{
	int wrong = 0;

	for (size_t i = 0; i < n; i++)
	{
		char *sent = canonical(pairs[i].type, pairs[i].sent_kind, pairs[i].sent);
		char *read = canonical(pairs[i].type, pairs[i].read_kind, pairs[i].read);

		if (same(sent, read) == equal && (canonical_hash(sent) == canonical_hash(read)) == equal)
			continue;
		diag("pair %zu: \"%s\" and \"%s\"", i, sent ? sent : "NULL", read ? read : "NULL");
		wrong++;
	}
	assert_int_equal(wrong, 0);
}

#define SENT(text) FV_STRING, text
#define READ(text) FV_STRING, text
#define SENT_NUMBER(text) FV_NUMBER, text
#define READ_NUMBER(text) FV_NUMBER, text

/* What Salesforce answers for what was sent: the reference's samples and traps. */
static void
echoes(void **state)
{
	static const Pair pairs[] = {
		/* 3.4: trimmed, '' and blanks are null (trap 7) */
		{SF_STRING, SENT("  x  "), READ("x")},
		{SF_STRING, SENT(""), FV_NULL, NULL},
		{SF_STRING, SENT("   "), FV_NULL, NULL},
		{SF_STRING, SENT("\u00a0"), FV_NULL, NULL},
		{SF_STRING, SENT("x\u00a0"), READ("x")},
		{SF_STRING, SENT("x\u00a0"), READ("x\u00a0")},
		{SF_TEXTAREA, SENT("a\r\nb"), READ("a\nb")},
		{SF_TEXTAREA, SENT("a\nb"), READ("a\r\nb")},
		{SF_TEXTAREA, SENT("a\rb"), READ("a\nb")},
		{SF_STRING, SENT("a\177b"), READ("ab")},

		/* 3.4: the recorded e-mail (trap 8) */
		{SF_EMAIL, SENT("Chloe.Myers@example.com"), READ("chloe.myers@example.com")},

		/* 3.4: lists (trap 12) */
		{SF_PICKLIST, SENT("gold"), READ("Gold")},
		{SF_PICKLIST, SENT("été"), READ("ÉTÉ")},
		{SF_MULTIPICKLIST, SENT("Silver;Gold"), READ("Gold;Silver")},
		{SF_MULTIPICKLIST, SENT("Silver;Gold"), READ("Gold; Silver")},
		{SF_MULTIPICKLIST, SENT("Silver;Silver"), READ("Silver")},

		/* 3.4: numbers always have a decimal part, large ones an exponent (trap 10) */
		{SF_DOUBLE, SENT_NUMBER("10046"), READ_NUMBER("10046.0")},
		{SF_DOUBLE, SENT_NUMBER("251"), READ_NUMBER("251.0")},
		{SF_DOUBLE, SENT_NUMBER("10000000000"), READ_NUMBER("1.0E10")},
		{SF_DOUBLE, SENT_NUMBER("912260031"), READ("9.12260031E8")},
		{SF_DOUBLE, SENT_NUMBER("1234567890123456.78"), READ_NUMBER("1.2345678901234568E15")},
		{SF_DOUBLE, SENT_NUMBER("1234567890123456.78"), READ_NUMBER("1234567890123456.75")},
		{SF_DOUBLE, SENT_NUMBER("9999999999999999.99"), READ_NUMBER("1.0E16")},
		{SF_DOUBLE, SENT_NUMBER("123456789012345.67"), READ_NUMBER("1.2345678901234567E14")},
		{SF_DOUBLE, SENT_NUMBER("-0.00"), READ_NUMBER("0.0")},
		{SF_DOUBLE, SENT_NUMBER("0"), READ_NUMBER("-0.0")},
		{SF_INT, SENT_NUMBER("100"), READ_NUMBER("100")},
		{SF_INT, SENT_NUMBER("10000"), READ("10000")},
		{SF_PERCENT, SENT_NUMBER("50.00"), READ_NUMBER("50.0")},

		/* rounded on either side (trap 11) */
		{SF_CURRENCY, SENT_NUMBER("1.005"), READ_NUMBER("1.01")},
		{SF_CURRENCY, SENT_NUMBER("-2.345"), READ_NUMBER("-2.35")},

		/* 3.4: time stamps (traps 2 and 3) */
		{SF_DATETIME, SENT("2022-03-17T16:21:26.000Z"), READ("2022-03-17T16:21:26.000+0000")},
		{SF_DATETIME, SENT("2026-11-03T08:15:30.000Z"), READ("2026-11-03T09:15:30+01:00")},
		{SF_TIME, SENT("11:59:59.000000Z"), READ("11:59:59.000Z")},

		/* a checkbox is never null (trap 9) */
		{SF_BOOLEAN, FV_NULL, NULL, FV_BOOL, "false"},
		{SF_BOOLEAN, SENT("true"), FV_BOOL, "true"},

		/* 3.5: Ids (trap 16) */
		{SF_REFERENCE, SENT("001Vr00000m4eGC"), READ("001Vr00000m4eGCIAY")},
	};

	(void) state;
	check_pairs(pairs, lengthof(pairs), true);
}

/* Edits that must be seen. */
static void
edits(void **state)
{
	static const Pair pairs[] = {
		{SF_STRING, SENT("x"), READ("X")},
		{SF_STRING, SENT("x"), FV_NULL, NULL},
		{SF_STRING, SENT("a b"), READ("a  b")},
		{SF_STRING, SENT("a b"), READ("ab")},
		{SF_STRING, SENT("a\nb"), READ("a\n\nb")},
		{SF_STRING, SENT("0"), READ("0.0")},
		{SF_STRING, SENT("ä"), READ("a")},
		{SF_EMAIL, SENT("a@b.c"), READ("b@b.c")},
		{SF_PICKLIST, SENT("Gold"), READ("Silver")},
		{SF_PICKLIST, SENT("Gold"), FV_NULL, NULL},
		{SF_MULTIPICKLIST, SENT("a;b"), READ("a")},
		{SF_MULTIPICKLIST, SENT("a;b"), READ("a;c")},
		{SF_MULTIPICKLIST, SENT("ab"), READ("a;b")},
		{SF_DOUBLE, SENT_NUMBER("0"), FV_NULL, NULL},
		{SF_DOUBLE, SENT_NUMBER("1.01"), READ_NUMBER("1.02")},
		{SF_DOUBLE, SENT_NUMBER("1"), READ_NUMBER("-1.0")},
		{SF_DOUBLE, SENT_NUMBER("123456789012.34"), READ_NUMBER("123456789012.35")},
		{SF_LONG, SENT_NUMBER("9007199254740993"), READ_NUMBER("9007199254740992")},
		{SF_DATE, SENT("2021-10-03"), READ("2021-10-04")},
		{SF_DATETIME, SENT("2022-03-17T16:21:26.000Z"), READ("2022-03-17T16:21:27.000+0000")},
		{SF_DATETIME, SENT("2022-03-17T16:21:26.000Z"), READ("2022-03-17T16:21:26.000+0100")},
		{SF_TIME, SENT("11:59:59.000Z"), READ("11:59:59.001Z")},
		{SF_BOOLEAN, FV_BOOL, "true", FV_BOOL, "false"},
		{SF_BOOLEAN, FV_NULL, NULL, FV_BOOL, "true"},
		{SF_REFERENCE, SENT("001Vr00000m4eGC"), READ("001Vr00000m4eGc")},
	};

	(void) state;
	check_pairs(pairs, lengthof(pairs), false);
}

static void
checkbox_default(void **state)
{
	SfField field = field_of(SF_BOOLEAN);
	FieldValue value = value_of(FV_NULL, NULL);

	(void) state;
	field.default_boolean = true;
	assert_string_equal(canonical_value(&value, &field), "true");
}

/* A value that is canonical is so without the list, so that old hashes hold when the list changes. */
static void
lists_do_not_matter(void **state)
{
	SfField field = field_of(SF_PICKLIST);
	FieldValue value = value_of(FV_STRING, "GOLD");
	char *with_list = canonical_value(&value, &field);

	(void) state;
	field.npicklist = 0;
	field.restricted_picklist = false;
	assert_string_equal(canonical_value(&value, &field), with_list);
}

static void
comparable(void **state)
{
	SfField html = field_of(SF_TEXTAREA);

	(void) state;
	assert_true(canonical_comparable(&html));
	html.html_formatted = true;
	assert_false(canonical_comparable(&html));
	for (int type = SF_ID; type <= SF_OTHER; type++)
	{
		SfField field = field_of((SfType) type);

		assert_int_equal(canonical_comparable(&field),
						 type != SF_BASE64 && type != SF_ENCRYPTED && type != SF_OTHER);
	}
}

/* They are stored: the same on every machine and in every release. */
static void
hashes(void **state)
{
	static const struct
	{
		const char *text;
		uint64 hash;
	} cases[] = {
		{"", UINT64CONST(0xefd01f60ba992926)},
		{"a", UINT64CONST(0x82a2a958a9bece5b)},
		{"foobar", UINT64CONST(0x2c22194922d1672b)},
		{"\xc3\xa4\xff", UINT64CONST(0xe08f446b549d81fd)},
	};

	(void) state;
	assert_true(canonical_hash(NULL) == 0);
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		uint64 hash = canonical_hash(cases[i].text);

		if (hash != cases[i].hash)
			fail_msg("\"%s\": 0x%llx", cases[i].text, (unsigned long long) hash);
	}
}

static int
compare_hashes(const void *a, const void *b)
{
	uint64 x = *(const uint64 *) a;
	uint64 y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/* Short texts that resemble each other, as values do: no two hashes alike, and no bit that stands still. */
static void
hashes_spread(void **state)
{
	enum
	{
		N = 100000
	};
	uint64 *all = palloc(sizeof(uint64) * N);
	int ones[64] = {0};

	(void) state;
	for (int i = 0; i < N; i++)
	{
		char text[20];

		snprintf(text, sizeof(text), "%d", i);
		all[i] = canonical_hash(text);
		for (int bit = 0; bit < 64; bit++)
			ones[bit] += all[i] >> bit & 1;
	}
	qsort(all, N, sizeof(uint64), compare_hashes);
	for (int i = 1; i < N; i++)
		assert_true(all[i] != all[i - 1]);
	for (int bit = 0; bit < 64; bit++)
		assert_in_range(ones[bit], N * 48 / 100, N * 52 / 100);
}

/* ------------------------------------------------------------------------
 * Properties of random values
 * ------------------------------------------------------------------------
 */

/* Text with everything in it that a rule looks for. */
static char *
random_text(uint64_t *seed)
{
	static const char *const pieces[] = {" ",         "\t",
										 "\n",        "\r\n",
										 "\r",        "\u00a0",
										 "\u3000",    "a",
										 "B",         "ä",
										 "Ä",         "€",
										 "\u2028",    "\u200b",
										 ";",         ";",
										 "1",         "0",
										 ".",         "-",
										 "E",         "+",
										 ":",         "T",
										 "Z",         "\x7f",
										 "\x01",      "\xc2",
										 "\xe2",      "\xe2\x80",
										 "true",      "2024-02-29",
										 "12:30:59",  "001Vr00000m4eGC",
										 "\xff",      "@",
										 "\U0001F600"};
	char *text = palloc(200);
	int n = next_random(seed) % 10;

	text[0] = '\0';
	for (int i = 0; i < n; i++)
		strcat(text, one_of(seed, pieces, lengthof(pieces)));
	return text;
}

/* The canonical form of a canonical form is itself, whatever the type and the bytes. */
static void
idempotent(void **state)
{
	uint64_t seed = seed_of("idempotent");

	(void) state;
	for (int i = 0; i < trials(); i++)
	{
		SfType type = (SfType) (next_random(&seed) % (SF_OTHER + 1));
		char *text = random_text(&seed);
		char *once = canonical(type, FV_STRING, text);
		char *twice = canonical(type, FV_STRING, once);

		if (!same(once, twice))
			fail_msg("type %d \"%s\": \"%s\", then \"%s\"", type, text, once, twice ? twice : "NULL");
		if (once != NULL && *once == '\0')
			fail_msg("type %d \"%s\": an empty text", type, text);
	}
}

/* As Java prints a double: 17 digits always read back as the same one. */
static void
doubles_read_back(void **state)
{
	uint64_t seed = seed_of("doubles_read_back");

	(void) state;
	for (int i = 0; i < trials(); i++)
	{
		int64 units = (int64) (((uint64) next_random(&seed) << 32 | next_random(&seed)) %
							   UINT64CONST(1000000000000000000)) *
					  (next_random(&seed) % 2 ? 1 : -1);
		int digits = 1 + next_random(&seed) % 18;
		char sent[40];
		char read[40];

		for (int d = digits; d < 18; d++)
			units /= 10;
		snprintf(sent, sizeof(sent), "%s%lld.%02lld", units < 0 ? "-" : "", (long long) llabs(units / 100),
				 (long long) llabs(units % 100));
		/* 15 digits are enough where no more were sent */
		snprintf(read, sizeof(read), "%.*E", digits > 15 || next_random(&seed) % 2 ? 16 : 14,
				 strtod(sent, NULL));
		if (!same(canonical(SF_CURRENCY, FV_NUMBER, sent), canonical(SF_CURRENCY, FV_NUMBER, read)))
			fail_msg("\"%s\" and \"%s\"", sent, read);
	}
}

/* The calendar against the C library's. */
static void
instants(void **state)
{
	uint64_t seed = seed_of("instants");

	(void) state;
	for (int i = 0; i < trials(); i++)
	{
		/* the years 1700 to 4000 */
		int64 seconds =
			INT64CONST(-8520336000) +
			(int64) (((uint64) next_random(&seed) << 32 | next_random(&seed)) % UINT64CONST(72612547200));
		int minutes = (int) (next_random(&seed) % (2 * 14 * 60)) - 14 * 60;
		time_t local = (time_t) (seconds + minutes * 60);
		struct tm tm;
		char plain[40];
		char zoned[60];
		char *expected;

		gmtime_r(&local, &tm);
		strftime(plain, sizeof(plain), "%Y-%m-%dT%H:%M:%S", &tm);
		snprintf(zoned, sizeof(zoned), "%s.%03d%c%02d%s%02d", plain, (int) (next_random(&seed) % 1000),
				 minutes < 0 ? '-' : '+', abs(minutes) / 60, next_random(&seed) % 2 ? ":" : "",
				 abs(minutes) % 60);
		local = (time_t) seconds;
		gmtime_r(&local, &tm);
		strftime(plain, sizeof(plain), "%Y-%m-%dT%H:%M:%SZ", &tm);
		expected = canonical(SF_DATETIME, FV_STRING, zoned);
		if (!same(expected, plain))
			fail_msg("\"%s\": \"%s\", not \"%s\"", zoned, expected, plain);
	}

	/* nobody's calendar begins there, but a reply may say so */
	assert_string_equal(canonical(SF_DATETIME, FV_STRING, "0000-01-01T00:00:00Z"), "0000-01-01T00:00:00Z");
	assert_string_equal(canonical(SF_DATETIME, FV_STRING, "0000-02-28"), "0000-02-28T00:00:00Z");
	assert_string_equal(canonical(SF_DATETIME, FV_STRING, "0000-02-29"), "0000-02-29T00:00:00Z");
	assert_string_equal(canonical(SF_DATETIME, FV_STRING, "0000-03-01"), "0000-03-01T00:00:00Z");
}

/* ------------------------------------------------------------------------
 * A value goes to Salesforce and comes back
 * ------------------------------------------------------------------------
 */

/* A source value that a field of the type takes, more or less. */
static char *
random_source(uint64_t *seed, SfType type)
{
	static const char *const choices[] = {"Gold", "gold", "SILVER", "Silver", "été", "ÉTÉ"};
	static const char *const texts[] = {"a",      "B",          "ä",      "€",  " ",    "  ",
										"\u00a0", "\n",         "\r\n",   "\t", "\x7f", "0",
										";",      "\U0001F600", "\u3000", "\"", "\\"};
	static const char *const ids[] = {"001Vr00000m4eGC", "001Vr00000m4eGCIAY", "A00000000000000"};
	char *text = pstrdup("");

	switch (type)
	{
		case SF_PICKLIST:
			return pstrdup(one_of(seed, choices, lengthof(choices)));
		case SF_MULTIPICKLIST:
			for (int i = 1 + next_random(seed) % 4; i > 0; i--)
				text = psprintf("%s;%s ", text, one_of(seed, choices, lengthof(choices)));
			return text;
		case SF_EMAIL:
			return psprintf(" Ann.%X@Example%c.COM", (unsigned int) next_random(seed),
							'A' + next_random(seed) % 26);
		case SF_BOOLEAN:
			return pstrdup(next_random(seed) % 2 ? "yes" : "OFF");
		case SF_INT:
		case SF_LONG:
			return psprintf("%d", (int32) next_random(seed));
		case SF_DOUBLE:
		case SF_CURRENCY:
		case SF_PERCENT:
			return psprintf("%s%u%0*u.%u", next_random(seed) % 2 ? "-" : "",
							(unsigned int) next_random(seed) % 100, (int) (next_random(seed) % 11), 0u,
							(unsigned int) next_random(seed));
		case SF_DATE:
			return psprintf("%04d-%02d-%02d", 1700 + (int) (next_random(seed) % 2300),
							1 + next_random(seed) % 12, 1 + next_random(seed) % 28);
		case SF_DATETIME:
			return psprintf("%04d-%02d-%02dT%02u:59:%02u.%u+0%u:30", 1701 + (int) (next_random(seed) % 2299),
							1 + next_random(seed) % 12, 1 + next_random(seed) % 28, next_random(seed) % 24,
							next_random(seed) % 60, next_random(seed), next_random(seed) % 10);
		case SF_TIME:
			return psprintf("%02d:%02d:%02d.%d", next_random(seed) % 24, next_random(seed) % 60,
							next_random(seed) % 60, next_random(seed) % 1000000);
		case SF_REFERENCE:
			return pstrdup(one_of(seed, ids, lengthof(ids)));
		default:
			for (int i = next_random(seed) % 12; i > 0; i--)
				text = psprintf("%s%s", text, one_of(seed, texts, lengthof(texts)));
			return text;
	}
}

/* As Salesforce stores and prints text: trimmed more or less, and lines ended in its way. */
static char *
text_back(uint64_t *seed, char *text)
{
	static const char *const blanks[] = {" ", "\t", "\r", "\n", "\u00a0", "\u3000"};
	int n = next_random(seed) % 2 ? lengthof(blanks) : 4;
	char *back = pstrdup("");

	for (int i = 0; i < n;)
	{
		size_t len = strlen(text);
		size_t blank = strlen(blanks[i]);

		if (strncmp(text, blanks[i], blank) == 0)
			text += blank;
		else if (len >= blank && strcmp(text + len - blank, blanks[i]) == 0)
			text[len - blank] = '\0';
		else
		{
			i++;
			continue;
		}
		i = 0;
	}
	for (int unix_lines = next_random(seed) % 2; *text != '\0'; text++)
	{
		if (*text == '\x7f' && next_random(seed) % 2)
			continue;
		if (*text == '\n' && !unix_lines && back[0] != '\0' && back[strlen(back) - 1] != '\r')
			back = psprintf("%s\r", back);
		back = psprintf("%s%c", back, *text);
	}
	return *back != '\0' ? back : NULL;
}

/* Parts turned around, and letters of ASCII in another case. */
static char *
choices_back(uint64_t *seed, char *text)
{
	char *back = NULL;

	for (char *part = strtok(text, ";"); part != NULL; part = strtok(NULL, ";"))
		back =
			back == NULL ? pstrdup(part) : psprintf("%s%s%s", part, next_random(seed) % 2 ? "; " : ";", back);
	for (char *p = back; *p != '\0'; p++)
	{
		if (*p >= 'a' && *p <= 'z' && next_random(seed) % 4 == 0)
			*p -= 'a' - 'A';
	}
	return back;
}

static void
comes_back(uint64_t *seed, SfType type, FieldValue *value)
{
	switch (type)
	{
		case SF_BOOLEAN:
			return;
		case SF_INT:
		case SF_LONG:
			value->text = psprintf("%s%s", value->text, next_random(seed) % 2 ? ".0" : "");
			return;
		case SF_DOUBLE:
		case SF_CURRENCY:
		case SF_PERCENT:
			value->text = psprintf("%.16E", strtod(value->text, NULL));
			return;
		case SF_DATETIME:
			value->text = psprintf("%.19s.000+0000", value->text);
			return;
		case SF_DATE:
		case SF_TIME:
		case SF_REFERENCE:
			return;
		case SF_PICKLIST:
		case SF_MULTIPICKLIST:
			value->text = choices_back(seed, pstrdup(value->text));
			return;
		case SF_EMAIL:
			value->text = pstrdup(value->text);
			for (char *p = value->text; *p != '\0'; p++)
				*p = pg_ascii_tolower((unsigned char) *p);
			return;
		default:
			value->text = text_back(seed, pstrdup(value->text));
			value->kind = value->text != NULL ? FV_STRING : FV_NULL;
	}
}

/* What coercion makes of a value and what reads back for it are one. */
static void
round_trips(void **state)
{
	static const CoerceOptions plain = {false, false};
	uint64_t seed = seed_of("round_trips");
	int compared = 0;

	(void) state;
	for (int i = 0; i < trials(); i++)
	{
		SfType type = (SfType) (SF_REFERENCE + next_random(&seed) % (SF_TIME - SF_REFERENCE + 1));
		SfField field = field_of(type);
		SourceValue source = {.kind = SRC_TEXT, .text = random_source(&seed, type)};
		FieldValue sent;
		FieldValue read;
		char *reason;

		if (!coerce_value(&source, &field, &plain, &sent, &reason))
			fail_msg("type %d \"%s\": %s", type, source.text, reason);
		read = sent;
		if (read.kind != FV_NULL)
			comes_back(&seed, type, &read);
		if (!same(canonical_value(&sent, &field), canonical_value(&read, &field)))
			fail_msg("type %d \"%s\": sent \"%s\", read \"%s\"", type, source.text,
					 sent.text ? sent.text : "", read.text ? read.text : "NULL");
		compared += read.kind != FV_NULL;
	}
	assert_true(compared > trials() / 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forms),
		cmocka_unit_test(echoes),
		cmocka_unit_test(edits),
		cmocka_unit_test(checkbox_default),
		cmocka_unit_test(lists_do_not_matter),
		cmocka_unit_test(comparable),
		cmocka_unit_test(hashes),
		cmocka_unit_test(hashes_spread),
		cmocka_unit_test(idempotent),
		cmocka_unit_test(doubles_read_back),
		cmocka_unit_test(instants),
		cmocka_unit_test(round_trips),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
