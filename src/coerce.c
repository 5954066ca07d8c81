/*
 * coerce.c
 *		A column's value into a field's value.  Pure.
 *
 * What Salesforce would do to a value on its side (trim, round, truncate to
 * the second) is done here first, so that what is sent is what reads back.
 */
#include "compat.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "coerce.h"
#include "describe.h"
#include "lexical.h"
#include "rest.h"

#define QUOTE_LIMIT 60     /* characters of a value shown in a reason */
#define PICKLIST_LIMIT 255 /* characters of a picklist value */
#define FIRST_YEAR 1700    /* section 3.4, valid ranges */
#define LAST_YEAR 4000

/* One coercion under way. */
typedef struct Coercion
{
	const SourceValue *value;
	const SfField *field;
	const CoerceOptions *options;
	FieldValue *out;
	char *reason;
} Coercion;

#define KIND(k) (1 << (k))

#define SCALAR_KINDS                                                                                         \
	(KIND(SRC_BOOL) | KIND(SRC_INTEGER) | KIND(SRC_NUMERIC) | KIND(SRC_FLOAT) | KIND(SRC_TEXT) |             \
	 KIND(SRC_DATE) | KIND(SRC_TIMESTAMPTZ) | KIND(SRC_TIME))
#define NUMBER_KINDS (KIND(SRC_INTEGER) | KIND(SRC_NUMERIC) | KIND(SRC_FLOAT) | KIND(SRC_TEXT))

/* The kinds that a type takes, what to say of the others, and whether the front of a value can be kept. */
typedef struct TypeRule
{
	int kinds;
	const char *refusal;
	bool truncates;
} TypeRule;

static const TypeRule type_rules[] = {
	[SF_ID] = {0, "the Id of a record can't be written"},
	[SF_REFERENCE] = {KIND(SRC_TEXT), "a lookup takes Salesforce Ids, from a text column"},
	[SF_STRING] = {~0, NULL, true},
	[SF_TEXTAREA] = {~0, NULL, true},
	[SF_PHONE] = {SCALAR_KINDS, "a phone field takes text or numbers", true},
	[SF_URL] = {SCALAR_KINDS, "a URL field takes text", true},
	[SF_EMAIL] = {KIND(SRC_TEXT), "an e-mail field takes text"},
	[SF_COMBOBOX] = {~0, NULL, true},
	[SF_ENCRYPTED] = {~0, NULL, true},
	[SF_PICKLIST] = {SCALAR_KINDS, "a picklist takes single values"},
	[SF_MULTIPICKLIST] = {SCALAR_KINDS | KIND(SRC_ARRAY), "a multi-select picklist takes text or an array"},
	[SF_BOOLEAN] = {KIND(SRC_BOOL) | NUMBER_KINDS,
					"a checkbox takes boolean, or text or numbers that spell one"},
	[SF_INT] = {NUMBER_KINDS, "a number field takes numbers, or text that is one"},
	[SF_LONG] = {NUMBER_KINDS, "a number field takes numbers, or text that is one"},
	[SF_DOUBLE] = {NUMBER_KINDS, "a number field takes numbers, or text that is one"},
	[SF_CURRENCY] = {NUMBER_KINDS, "a currency field takes numbers, or text that is one"},
	[SF_PERCENT] = {NUMBER_KINDS, "a percent field takes numbers, or text that is one"},
	[SF_DATE] = {KIND(SRC_DATE) | KIND(SRC_TEXT), "a date field takes date, or text YYYY-MM-DD"},
	[SF_DATETIME] = {KIND(SRC_TIMESTAMPTZ) | KIND(SRC_DATE) | KIND(SRC_TEXT),
					 "a date/time field takes timestamp with time zone or date"},
	[SF_TIME] = {KIND(SRC_TIME) | KIND(SRC_TEXT), "a time field takes time, or text HH:MM:SS"},
	[SF_BASE64] = {KIND(SRC_BYTEA), "a base64 field takes bytea"},
	[SF_OTHER] = {0, "fields of this type can't be written"},
};

/* ------------------------------------------------------------------------
 * Text
 * ------------------------------------------------------------------------
 */

/* False, with the reason (palloc'd): what every check ends with when it fails. */
static bool
refuse(Coercion *c, char *reason)
{
	c->reason = reason;
	return false;
}

static bool
accept(Coercion *c, FieldValueKind kind, char *text)
{
	c->out->kind = kind;
	c->out->text = text;
	return true;
}

/* Where the character with this number starts, or the end. */
static const char *
character_at(const char *text, int number)
{
	for (; *text != '\0'; text++)
	{
		if (((unsigned char) *text & 0xC0) != 0x80 && number-- == 0)
			break;
	}
	return text;
}

/* The value as a reason may show it: quoted, on one line, not too long. */
static char *
quoted(const char *text)
{
	const char *end = character_at(text, QUOTE_LIMIT);
	char *shown = psprintf("\"%.*s%s\"", (int) (end - text), text, *end != '\0' ? "..." : "");

	for (char *p = shown; *p != '\0'; p++)
	{
		if ((unsigned char) *p < 0x20 || *p == 0x7F)
			*p = ' ';
	}
	return shown;
}

static bool
valid_utf8(const char *text)
{
	size_t len = strlen(text);

	return len <= PG_INT32_MAX && pg_encoding_verifymbstr(PG_UTF8, text, (int) len) == (int) len;
}

/* Control characters break JSON or are dropped on the way (trap 13). */
static bool
check_control_characters(Coercion *c, const char *text)
{
	for (; *text != '\0'; text++)
	{
		if ((unsigned char) *text < 0x20 && *text != '\n' && *text != '\r' && *text != '\t')
			return refuse(c,
						  psprintf("value holds the control character U+%04X, which Salesforce does not keep",
								   (unsigned char) *text));
	}
	return true;
}

static bool
check_length(Coercion *c, const char *text)
{
	int length = lexical_characters(text);

	if (c->field->length > 0 && length > c->field->length)
		return refuse(c, psprintf("value has %d characters, field %s takes %d", length, c->field->name,
								  c->field->length));
	return true;
}

static bool
coerce_text(Coercion *c, char *text)
{
	int limit = c->field->length;

	if (!check_control_characters(c, text))
		return false;
	if (c->options->truncate && limit > 0)
		text = lexical_trim(text, (size_t) (character_at(text, limit) - text));
	return check_length(c, text) && accept(c, FV_STRING, text);
}

/*
 * No more than Salesforce's own check surely refuses (INVALID_EMAIL_ADDRESS).
 * Dots stand between other characters only.
 */
static bool
is_email(const char *text)
{
	const char *at = strchr(text, '@');
	const char *dot;

	if (at == NULL || at == text || strchr(at + 1, '@') != NULL)
		return false;
	for (const char *p = text; *p != '\0'; p++)
	{
		if ((unsigned char) *p <= ' ' || *p == 0x7F || *p == ',' || *p == ';')
			return false;
	}
	dot = strrchr(at, '.');
	return dot != NULL && dot > at + 1 && dot[1] != '\0' && at[1] != '.' && at[-1] != '.' && text[0] != '.' &&
		   strstr(text, "..") == NULL;
}

static bool
coerce_email(Coercion *c, char *text)
{
	if (!is_email(text))
		return refuse(c, psprintf("%s is not an e-mail address", quoted(text)));
	return check_length(c, text) && accept(c, FV_STRING, text);
}

static bool
coerce_reference(Coercion *c, char *text)
{
	char *id = rest_id18(text);

	if (id == NULL)
		return refuse(c, psprintf("%s is not a Salesforce Id of 15 or 18 characters", quoted(text)));
	return accept(c, FV_STRING, id);
}

/* ------------------------------------------------------------------------
 * Picklists
 * ------------------------------------------------------------------------
 */

/* The value as the picklist spells it; NULL if it has none such. */
static const char *
picklist_spelling(const SfField *field, const char *text)
{
	const char *similar = NULL;

	for (int i = 0; i < field->npicklist; i++)
	{
		if (strcmp(field->picklist[i], text) == 0)
			return field->picklist[i];
		if (similar == NULL && lexical_same_letters(field->picklist[i], text))
			similar = field->picklist[i];
	}
	return similar;
}

/*
 * One value of a picklist, in Salesforce's spelling where the list is
 * restricted.  Only then does the server check it (section 3.3).
 */
static const char *
picklist_value(Coercion *c, const char *text)
{
	const char *spelling = text;
	int length = lexical_characters(text);

	if (!check_control_characters(c, text))
		return NULL;
	if (c->field->restricted_picklist)
	{
		spelling = picklist_spelling(c->field, text);
		if (spelling == NULL)
			refuse(c, psprintf("%s is not an active value of the restricted picklist %s", quoted(text),
							   c->field->name));
	}
	else if (length > PICKLIST_LIMIT)
	{
		refuse(c, psprintf("value has %d characters, a picklist value takes %d", length, PICKLIST_LIMIT));
		return NULL;
	}
	return spelling;
}

static bool
coerce_picklist(Coercion *c, const char *text)
{
	const char *value = picklist_value(c, text);

	return value != NULL && accept(c, FV_STRING, pstrdup(value));
}

/* Add a part to the values joined so far; blank ones and repeats are dropped. */
static bool
append_choice(Coercion *c, StringInfo joined, const char *text, size_t len)
{
	char *part = lexical_trim(text, len);
	const char *value;
	const char *p = joined->data;

	if (*part == '\0')
		return true;
	value = picklist_value(c, part);
	if (value == NULL)
		return false;
	len = strlen(value);
	while (*p != '\0')
	{
		const char *end = p + strcspn(p, ";");

		if ((size_t) (end - p) == len && strncmp(p, value, len) == 0)
			return true;
		p = *end == ';' ? end + 1 : end;
	}
	if (joined->len > 0)
		appendStringInfoChar(joined, ';');
	appendStringInfoString(joined, value);
	return true;
}

static bool
append_elements(Coercion *c, StringInfo joined)
{
	for (int i = 0; i < c->value->nelems; i++)
	{
		const SourceValue *elem = &c->value->elems[i];

		if (elem->isnull)
			continue;
		if ((KIND(elem->kind) & SCALAR_KINDS) == 0)
			return refuse(c, pstrdup("the elements of the array are no single values"));
		if (!valid_utf8(elem->text))
			return refuse(c, pstrdup("an element of the array is not valid UTF-8"));
		if (strchr(elem->text, ';') != NULL)
			return refuse(c,
						  psprintf("the element %s holds a semicolon, which separates values in Salesforce",
								   quoted(elem->text)));
		if (!append_choice(c, joined, elem->text, strlen(elem->text)))
			return false;
	}
	return true;
}

static bool coerce_null(Coercion *c);

static bool
coerce_multipicklist(Coercion *c, const char *text)
{
	StringInfoData joined;

	initStringInfo(&joined);
	if (c->value->kind == SRC_ARRAY)
	{
		if (!append_elements(c, &joined))
			return false;
	}
	else
	{
		for (;;)
		{
			size_t len = strcspn(text, ";");

			if (!append_choice(c, &joined, text, len))
				return false;
			if (text[len] == '\0')
				break;
			text += len + 1;
		}
	}
	if (joined.len == 0)
		return coerce_null(c);
	return check_length(c, joined.data) && accept(c, FV_STRING, joined.data);
}

/* ------------------------------------------------------------------------
 * Checkboxes and numbers
 * ------------------------------------------------------------------------
 */

static bool
coerce_checkbox(Coercion *c, const char *text)
{
	static const char *const spellings[][2] = {{"false", "true"}, {"f", "t"},    {"no", "yes"},
											   {"n", "y"},        {"off", "on"}, {"0", "1"}};
	char *number = c->value->kind == SRC_NUMERIC ? rest_number_key(text) : NULL;
	const char *word = number != NULL ? number : text;

	for (size_t i = 0; i < lengthof(spellings); i++)
	{
		for (int truth = 0; truth < 2; truth++)
		{
			if (lexical_same_letters(word, spellings[i][truth]))
			{
				c->out->boolean = truth == 1;
				return accept(c, FV_BOOL, NULL);
			}
		}
	}
	return refuse(c, psprintf("%s is neither true nor false", quoted(text)));
}

static int
digits_left(const char *digits)
{
	return strcmp(digits, "0") == 0 || strncmp(digits, "0.", 2) == 0 ? 0 : (int) strcspn(digits, ".");
}

/* Are the digits, all of an integer, above a limit that is written likewise? */
static bool
exceeds(const char *digits, const char *limit)
{
	size_t len = strlen(digits);
	size_t limit_len = strlen(limit);

	return len != limit_len ? len > limit_len : strcmp(digits, limit) > 0;
}

/* How much the field takes left of the point; -1 if the describe doesn't tell. */
static int
left_capacity(const SfField *field)
{
	if (field->type == SF_INT || field->type == SF_LONG)
		return field->digits > 0 ? field->digits : -1;
	return field->precision > 0 ? Max(field->precision - field->scale, 0) : -1;
}

/* Beyond the range: Salesforce says NUMBER_OUTSIDE_VALID_RANGE. */
static bool
check_range(Coercion *c, const char *plain)
{
	bool negative = plain[0] == '-';
	const char *digits = plain + negative;
	int left = digits_left(digits);
	int capacity = left_capacity(c->field);

	if (capacity >= 0 && left > capacity)
		return refuse(c, psprintf("%s has %d digits left of the point, field %s takes %d",
								  quoted(c->value->text), left, c->field->name, capacity));
	if ((c->field->type == SF_INT && exceeds(digits, negative ? "2147483648" : "2147483647")) ||
		(c->field->type == SF_LONG &&
		 exceeds(digits, negative ? "9223372036854775808" : "9223372036854775807")))
		return refuse(c,
					  psprintf("%s is beyond the range of field %s", quoted(c->value->text), c->field->name));
	return true;
}

static bool
coerce_number(Coercion *c, const char *text)
{
	bool whole = c->field->type == SF_INT || c->field->type == SF_LONG;
	char *plain = NULL;
	char *rounded;

	/* only floats come with an exponent; text must be a plain number */
	if (c->value->kind == SRC_FLOAT || strpbrk(text, "eE") == NULL)
		plain = rest_plain_number(text);
	if (plain == NULL)
		return refuse(c, psprintf("%s is not a number that Salesforce can store", quoted(text)));
	rounded = lexical_round(plain, whole ? 0 : c->field->scale);
	return check_range(c, rounded) && accept(c, FV_NUMBER, rounded);
}

/* ------------------------------------------------------------------------
 * Dates and times
 * ------------------------------------------------------------------------
 */

static bool
outside_years(Coercion *c)
{
	return refuse(c, psprintf("%s is outside the years %d to %d that Salesforce stores",
							  quoted(c->value->text), FIRST_YEAR, LAST_YEAR));
}

static bool
is_infinite(const char *text)
{
	return strcmp(text, "infinity") == 0 || strcmp(text, "-infinity") == 0;
}

/* A date never passes through a time or a zone: its digits are what is sent. */
static bool
coerce_date(Coercion *c, const char *text)
{
	const char *rest = text;
	LexicalDate date;

	if (is_infinite(text))
		return refuse(c, psprintf("%s can't be stored in a date field", quoted(text)));
	if (!lexical_read_date(&rest, &date) || (*rest != '\0' && strcmp(rest, " BC") != 0))
		return refuse(c, psprintf("%s is not a date of the form YYYY-MM-DD", quoted(text)));
	if (*rest != '\0' || date.year < FIRST_YEAR || date.year > LAST_YEAR)
		return outside_years(c);
	return accept(c, FV_STRING, pstrdup(text));
}

/* Behind the date: a time with its zone, or nothing, which is midnight UTC. */
static bool
read_time_and_zone(const char **text, int *seconds)
{
	int milliseconds;
	int offset;

	*seconds = 0;
	if (**text == '\0' || strcmp(*text, " BC") == 0)
		return true;
	if (**text != 'T' && **text != ' ')
		return false;
	(*text)++;
	if (!lexical_read_time(text, &milliseconds) || !lexical_read_zone(text, &offset))
		return false;
	*seconds = milliseconds / 1000 - offset;
	return true;
}

/* To the second, as Salesforce stores it (trap 2), and in UTC. */
static bool
coerce_datetime(Coercion *c, const char *text)
{
	static const LexicalDate first = {FIRST_YEAR, 1, 1};
	static const LexicalDate last = {LAST_YEAR, 12, 31};
	const char *rest = text;
	LexicalDate date;
	int seconds;
	int64 instant;

	if (is_infinite(text))
		return refuse(c, psprintf("%s can't be stored in a date/time field", quoted(text)));
	if (!lexical_read_date(&rest, &date) || !read_time_and_zone(&rest, &seconds) ||
		(*rest != '\0' && strcmp(rest, " BC") != 0))
		return refuse(
			c, psprintf("%s is not a time stamp of the form YYYY-MM-DDTHH:MM:SS with Z or an offset from UTC",
						quoted(text)));
	instant = lexical_date_seconds(&date) + seconds;
	if (*rest != '\0' || instant < lexical_date_seconds(&first) || instant > lexical_date_seconds(&last))
		return outside_years(c);
	return accept(c, FV_STRING, lexical_instant(instant, ".000Z"));
}

static bool
coerce_time(Coercion *c, const char *text)
{
	const char *rest = text;
	int milliseconds;

	/* 24:00:00 is a time to PostgreSQL, not to Salesforce */
	if (!lexical_read_time(&rest, &milliseconds) || (*rest != '\0' && strcmp(rest, "Z") != 0))
		return refuse(c, psprintf("%s is not a time from 00:00:00 to 23:59:59", quoted(text)));
	return accept(c, FV_STRING, psprintf("%.8s.%03dZ", text, milliseconds % 1000));
}

/* ------------------------------------------------------------------------
 * The whole
 * ------------------------------------------------------------------------
 */

static bool
coerce_base64(Coercion *c, char *text)
{
	size_t len = strlen(text);
	size_t bytes = len / 4 * 3;

	if (len % 4 != 0 || len < 4)
		return refuse(c, pstrdup("value is not base64"));
	bytes -= text[len - 2] == '=' ? 2 : text[len - 1] == '=' ? 1 : 0;
	if (c->field->length > 0 && bytes > (size_t) c->field->length)
		return refuse(
			c, psprintf("value has %zu bytes, field %s takes %d", bytes, c->field->name, c->field->length));
	return accept(c, FV_STRING, text);
}

/* NULL, and what Salesforce would store as null (traps 7 and 9). */
static bool
coerce_null(Coercion *c)
{
	const SfField *field = c->field;

	if (c->options->keep_null)
		return accept(c, FV_ABSENT, NULL);
	if (field->type == SF_BOOLEAN)
	{
		c->out->boolean = field->default_boolean;
		return accept(c, FV_BOOL, NULL);
	}
	if (describe_required(field) || !field->nillable)
		return refuse(c, psprintf("value is %s, and field %s must have a value",
								  c->value->isnull ? "NULL" : "empty", field->name));
	return accept(c, FV_NULL, NULL);
}

static bool
coerce_present(Coercion *c, char *text)
{
	switch (c->field->type)
	{
		case SF_STRING:
		case SF_TEXTAREA:
		case SF_PHONE:
		case SF_URL:
		case SF_COMBOBOX:
		case SF_ENCRYPTED:
			return coerce_text(c, text);
		case SF_EMAIL:
			return coerce_email(c, text);
		case SF_REFERENCE:
			return coerce_reference(c, text);
		case SF_PICKLIST:
			return coerce_picklist(c, text);
		case SF_MULTIPICKLIST:
			return coerce_multipicklist(c, text);
		case SF_BOOLEAN:
			return coerce_checkbox(c, text);
		case SF_INT:
		case SF_LONG:
		case SF_DOUBLE:
		case SF_CURRENCY:
		case SF_PERCENT:
			return coerce_number(c, text);
		case SF_DATE:
			return coerce_date(c, text);
		case SF_DATETIME:
			return coerce_datetime(c, text);
		case SF_TIME:
			return coerce_time(c, text);
		case SF_BASE64:
			return coerce_base64(c, text);
		case SF_ID:
		case SF_OTHER:
			break;
	}
	return refuse(c, pstrdup(type_rules[SF_OTHER].refusal));
}

/* Is the front of the value all that is needed? */
static bool
can_truncate(const Coercion *c)
{
	return type_rules[c->field->type].truncates && c->options->truncate && c->field->length > 0;
}

static bool
coerce(Coercion *c)
{
	const char *never = coerce_incompatible(c->value->kind, c->field);
	char *text;

	if (never != NULL)
		return refuse(c, pstrdup(never));
	if (c->value->isnull)
		return coerce_null(c);
	if (c->value->unusable != NULL)
		return refuse(c, pstrdup(c->value->unusable));
	if (!valid_utf8(c->value->text))
		return refuse(c, pstrdup("value is not valid UTF-8"));
	if (c->value->cut && !can_truncate(c))
		return refuse(c, psprintf("value has more than %d characters, and field %s takes less",
								  lexical_characters(c->value->text), c->field->name));
	text = lexical_trim(c->value->text, strlen(c->value->text));
	if (*text == '\0')
		return coerce_null(c);
	return coerce_present(c, text);
}

bool
coerce_value(const SourceValue *value, const SfField *field, const CoerceOptions *options, FieldValue *out,
			 char **reason)
{
	Coercion c = {value, field, options, out, NULL};
	bool ok;

	memset(out, 0, sizeof(*out));
	ok = coerce(&c);
	*reason = c.reason;
	return ok;
}

const char *
coerce_incompatible(SourceKind kind, const SfField *field)
{
	const TypeRule *rule = &type_rules[field->type];

	return (rule->kinds & KIND(kind)) != 0 ? NULL : rule->refusal;
}
