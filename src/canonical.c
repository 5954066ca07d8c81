/*
 * canonical.c
 *		The form of values in which ours and Salesforce's are compared.  Pure.
 *
 * Each rule undoes one thing of reference, section 3.4 or 16 that Salesforce
 * does, or may do: where no source tells which, both outcomes are one text
 * here.
 */
#include "compat.h"

#include "common/shortest_dec.h"
#include "lib/stringinfo.h"

#include "canonical.h"
#include "lexical.h"
#include "rest.h"

#define EXACT_DIGITS 15 /* what a double keeps of any decimal number */

/* ------------------------------------------------------------------------
 * Text
 * ------------------------------------------------------------------------
 */

/*
 * Bytes of the blank that the text starts with, 0 if with none: Unicode's
 * White_Space.  Which of them Salesforce trims no source tells (trap 7).
 */
static int
blank_length(const unsigned char *s)
{
	if (lexical_is_blank((char) *s))
		return 1;
	if (s[0] == 0xC2 && s[1] == 0xA0) /* no-break space */
		return 2;
	if (s[0] == 0xE1 && s[1] == 0x9A && s[2] == 0x80) /* ogham */
		return 3;
	if (s[0] == 0xE2 && s[1] == 0x80 &&
		((s[2] >= 0x80 && s[2] <= 0x8A) || s[2] == 0xA8 || s[2] == 0xA9 || s[2] == 0xAF))
		return 3;                                     /* U+2000 to U+200A, U+2028, U+2029, U+202F */
	if (s[0] == 0xE2 && s[1] == 0x81 && s[2] == 0x9F) /* mathematical */
		return 3;
	if (s[0] == 0xE3 && s[1] == 0x80 && s[2] == 0x80) /* ideographic */
		return 3;
	return 0;
}

/* Bytes of the control character that the text starts with; lines and tabs are none. */
static int
control_length(const unsigned char *s)
{
	if ((*s < 0x20 && *s != '\0' && *s != '\t' && *s != '\n' && *s != '\r') || *s == 0x7F)
		return 1;
	return s[0] == 0xC2 && s[1] >= 0x80 && s[1] <= 0x9F ? 2 : 0;
}

/* Without control characters, which may get lost (trap 13), and with lines that end in \n. */
static char *
plain_lines(const char *text)
{
	const unsigned char *s = (const unsigned char *) text;
	char *result = palloc(strlen(text) + 1);
	char *p = result;

	while (*s != '\0')
	{
		int control = control_length(s);

		if (control > 0)
			s += control;
		else if (*s == '\r')
		{
			*p++ = '\n';
			s += s[1] == '\n' ? 2 : 1;
		}
		else
			*p++ = (char) *s++;
	}
	*p = '\0';
	return result;
}

/* Without blanks at both ends; NULL if nothing is left.  Works in place. */
static char *
trimmed(char *text)
{
	char *end = NULL;
	int len;

	while ((len = blank_length((unsigned char *) text)) > 0)
		text += len;
	for (char *p = text; *p != '\0'; p += len)
	{
		len = blank_length((unsigned char *) p);
		if (len == 0)
		{
			len = 1;
			end = p + 1;
		}
	}
	if (end == NULL)
		return NULL;
	*end = '\0';
	return text;
}

static int
compare_choices(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The values as a sorted set: they come back in the list's order (trap 12). */
static char *
choices(char *text)
{
	char **parts = palloc(sizeof(char *) * (strlen(text) + 1));
	int nparts = 0;
	StringInfoData joined;

	for (char *next = text; text != NULL; text = next)
	{
		next = strchr(text, ';');
		if (next != NULL)
			*next++ = '\0';
		parts[nparts] = trimmed(text);
		if (parts[nparts] != NULL)
			nparts++;
	}
	qsort(parts, nparts, sizeof(char *), compare_choices);
	initStringInfo(&joined);
	for (int i = 0; i < nparts; i++)
	{
		if (i > 0 && strcmp(parts[i], parts[i - 1]) == 0)
			continue;
		if (joined.len > 0)
			appendStringInfoChar(&joined, ';');
		appendStringInfoString(&joined, parts[i]);
	}
	return joined.len > 0 ? joined.data : NULL;
}

/* ------------------------------------------------------------------------
 * The other types.  NULL: the text is not of this type.
 * ------------------------------------------------------------------------
 */

static char *
checkbox(const char *text)
{
	char *word = lexical_fold(text);

	return strcmp(word, "true") == 0 || strcmp(word, "false") == 0 ? word : NULL;
}

static int
significant_digits(const char *plain)
{
	int n = 0;

	for (plain += strspn(plain, "-0."); *plain != '\0'; plain++)
		n += *plain != '.';
	return n;
}

/*
 * The shortest digits of the double next to the number.  Salesforce prints
 * what it stores as a double (trap 10): 1234567890123456.78 reads back as
 * 1.2345678901234568E15, the same double.  NULL beyond its range.
 */
static char *
through_double(const char *plain)
{
	char shortest[DOUBLE_SHORTEST_DECIMAL_LEN];

	double_to_shortest_decimal_buf(strtod(plain, NULL), shortest);
	return rest_plain_number(shortest);
}

static char *
number(const char *text, const SfField *field)
{
	bool whole = field->type == SF_INT || field->type == SF_LONG;
	char *plain = rest_plain_number(text);
	char *nearest;

	if (plain == NULL)
		return NULL;
	plain = lexical_round(plain, whole ? 0 : Max(field->scale, 0));
	if (!whole && significant_digits(plain) > EXACT_DIGITS)
	{
		nearest = through_double(plain);
		plain = nearest != NULL ? nearest : plain;
	}
	return rest_number_key(plain);
}

static char *
date(const char *text)
{
	const char *rest = text;
	LexicalDate day;

	return lexical_read_date(&rest, &day) && *rest == '\0' ? pstrdup(text) : NULL;
}

/* To the second (trap 2), in UTC, whatever the offset (trap 3). */
static char *
instant(const char *text)
{
	LexicalDate day;
	int milliseconds = 0;
	int offset = 0;

	if (!lexical_read_date(&text, &day))
		return NULL;
	if (*text == 'T' || *text == ' ')
	{
		text++;
		if (!lexical_read_time(&text, &milliseconds) || (*text != '\0' && !lexical_read_zone(&text, &offset)))
			return NULL;
	}
	if (*text != '\0')
		return NULL;
	return lexical_instant(lexical_date_seconds(&day) + milliseconds / 1000 - offset, "Z");
}

static char *
time_of_day(const char *text)
{
	int ms;

	if (!lexical_read_time(&text, &ms) || (*text != '\0' && strcmp(text, "Z") != 0))
		return NULL;
	return psprintf("%02d:%02d:%02d.%03d", ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, ms % 1000);
}

/* ------------------------------------------------------------------------
 * The whole
 * ------------------------------------------------------------------------
 */

/* Text that is neither empty nor has blanks at its ends, in the form of the field's type. */
static char *
typed(char *text, const SfField *field)
{
	switch (field->type)
	{
		case SF_EMAIL:
		case SF_PICKLIST:

			/*
			 * The list's spelling, or that of another inactive value, may come
			 * back (trap 12); without case the list isn't needed.
			 */
			return lexical_fold(text);
		case SF_ID:
		case SF_REFERENCE:
			return rest_id18(text);
		case SF_BOOLEAN:
			return checkbox(text);
		case SF_INT:
		case SF_LONG:
		case SF_DOUBLE:
		case SF_CURRENCY:
		case SF_PERCENT:
			return number(text, field);
		case SF_DATE:
			return date(text);
		case SF_DATETIME:
			return instant(text);
		case SF_TIME:
			return time_of_day(text);
		default:
			return NULL;
	}
}

static char *
canonical_text(const char *value, const SfField *field)
{
	char *text = trimmed(plain_lines(value));
	char *form;

	if (text == NULL)
		return NULL;
	if (field->type == SF_MULTIPICKLIST)
		return choices(lexical_fold(text));
	form = typed(text, field);
	return form != NULL ? form : text;
}

char *
canonical_value(const FieldValue *value, const SfField *field)
{
	char *text = NULL;

	switch (value->kind)
	{
		case FV_ABSENT:
			Assert(false);
			break;
		case FV_NULL:
			break;
		case FV_BOOL:
			return pstrdup(value->boolean ? "true" : "false");
		case FV_LOOKUP:
			return psprintf("ext:%s", value->text);
		case FV_NUMBER:
		case FV_STRING:
			text = canonical_text(value->text, field);
			break;
	}
	/* a checkbox is never null: its default is there (trap 9) */
	if (text == NULL && field->type == SF_BOOLEAN)
		text = pstrdup(field->default_boolean ? "true" : "false");
	return text;
}

bool
canonical_comparable(const SfField *field)
{
	return field->type != SF_BASE64 && field->type != SF_ENCRYPTED && field->type != SF_OTHER &&
		   !field->html_formatted;
}

/*
 * FNV-1a, with the last step of MurmurHash3 behind it to spread what the last
 * bytes change.
 */
uint64
canonical_hash(const char *canonical)
{
	uint64 hash = UINT64CONST(0xCBF29CE484222325);

	if (canonical == NULL)
		return 0;
	for (const char *p = canonical; *p != '\0'; p++)
		hash = (hash ^ (unsigned char) *p) * UINT64CONST(0x100000001B3);
	hash = (hash ^ hash >> 33) * UINT64CONST(0xFF51AFD7ED558CCD);
	hash = (hash ^ hash >> 33) * UINT64CONST(0xC4CEB9FE1A85EC53);
	hash ^= hash >> 33;
	return hash != 0 ? hash : 1;
}
