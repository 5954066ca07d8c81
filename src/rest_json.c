/*
 * rest_json.c
 *		JSON of replies: hostile bytes into values.  Pure.
 */
#define SFSYNC_USE_JSON_C
#include "compat.h"

#include "mb/pg_wchar.h"

#include "lexical.h"
#include "rest_json.h"

#define MAX_DEPTH 32     /* of a reply's JSON */
#define MAX_MESSAGE 1000 /* bytes of an error's message */

static bool
is_ascii(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char) text[i] >= 0x80)
			return false;
	return true;
}

/*
 * Strict: depth bounded, valid UTF-8, no bytes behind it (rest.h).
 */
json_object *
rest_parse_json(const char *text, size_t len)
{
	json_tokener *tokener;
	json_object *json;

	/* json-c takes white space behind a value for garbage */
	while (len > 0 && lexical_is_blank(text[len - 1]))
		len--;
	if (len == 0 || len > PG_INT32_MAX || memchr(text, '\0', len) != NULL)
		return NULL;

	/* json-c's own check lets overlong forms and surrogates through */
	if (pg_encoding_verifymbstr(PG_UTF8, text, (int) len) != (int) len)
		return NULL;
	tokener = json_tokener_new_ex(MAX_DEPTH);
	if (tokener == NULL)
		return NULL;

	/*
	 * Even strict, json-c takes NaN and Infinity for numbers; readers of numbers
	 * ask for integers or go through rest_plain_number.  Strict, json-c 0.17 and
	 * 0.18 take bytes over 127 for control characters.
	 */
	if (is_ascii(text, len))
		json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	json = json_tokener_parse_ex(tokener, text, (int) len);
	if (json_tokener_get_error(tokener) != json_tokener_success || json_tokener_get_parse_end(tokener) != len)
	{
		json_object_put(json);
		json = NULL;
	}
	json_tokener_free(tokener);
	return json;
}

json_object *
rest_member(json_object *parent, const char *key)
{
	json_object *value = NULL;

	if (json_object_is_type(parent, json_type_object))
		json_object_object_get_ex(parent, key, &value);
	return value;
}

const char *
rest_plain_string(json_object *value)
{
	const char *text;

	if (!json_object_is_type(value, json_type_string))
		return NULL;
	text = json_object_get_string(value);
	return strlen(text) == (size_t) json_object_get_string_len(value) ? text : NULL;
}

char *
rest_string_copy(json_object *value)
{
	const char *text = rest_plain_string(value);

	return text != NULL ? pstrdup(text) : NULL;
}

char *
rest_json_text(json_object *value)
{
	return pstrdup(
		json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
}

char *
rest_clean_front(const char *text, size_t len, size_t max)
{
	bool valid;
	size_t cut = Min(len, max);
	char *clean;

	/* not in the middle of a character */
	while (cut > 0 && cut < len && ((unsigned char) text[cut] & 0xC0) == 0x80)
		cut--;
	valid = memchr(text, '\0', cut) == NULL && pg_encoding_verifymbstr(PG_UTF8, text, (int) cut) == (int) cut;
	clean = palloc(cut + 1);
	for (size_t i = 0; i < cut; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (c < 0x20 || c == 0x7F)
			clean[i] = ' ';
		else
			clean[i] = c >= 0x80 && !valid ? '?' : text[i];
	}
	clean[cut] = '\0';
	return clean;
}

char *
rest_clean_text(const char *text, size_t len)
{
	return rest_clean_front(text, len, MAX_MESSAGE);
}

char *
rest_clean_string(json_object *value, size_t max)
{
	if (!json_object_is_type(value, json_type_string))
		return NULL;
	return rest_clean_front(json_object_get_string(value), (size_t) json_object_get_string_len(value), max);
}
