/*
 * lexical.c
 *		How values are spelled: blanks, letter case, numbers, dates and times.
 *		Pure.
 */
#include "compat.h"

#include "lexical.h"

#define DAY_SECONDS 86400

/* ------------------------------------------------------------------------
 * Text
 * ------------------------------------------------------------------------
 */

bool
lexical_is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

int
lexical_characters(const char *text)
{
	int n = 0;

	for (; *text != '\0'; text++)
		n += ((unsigned char) *text & 0xC0) != 0x80;
	return n;
}

char *
lexical_trim(const char *text, size_t len)
{
	while (len > 0 && lexical_is_blank(*text))
	{
		text++;
		len--;
	}
	while (len > 0 && lexical_is_blank(text[len - 1]))
		len--;
	return pnstrdup(text, len);
}

/*
 * Lower case of a character that has two bytes in UTF-8: Latin, Greek,
 * Cyrillic.  All lower-case partners have two bytes as well, but for U+0130
 * and others that are left alone.  Not towlower(), which knows the locale's
 * characters.
 */
static unsigned int
fold_code(unsigned int c)
{
	if ((c >= 0xC0 && c <= 0xDE && c != 0xD7) || /* Latin-1 */
		(c >= 0x391 && c <= 0x3A9) ||            /* Greek */
		(c >= 0x410 && c <= 0x42F))              /* Cyrillic */
		return c + 0x20;
	if (c >= 0x400 && c <= 0x40F) /* Cyrillic */
		return c + 0x50;
	if (((c >= 0x100 && c <= 0x137 && c != 0x130) || /* Latin Extended-A */
		 (c >= 0x14A && c <= 0x177)) &&
		c % 2 == 0)
		return c + 1;
	if (((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17E)) && c % 2 == 1)
		return c + 1;
	return c;
}

static bool
has_two_bytes(const char *s)
{
	return ((unsigned char) s[0] & 0xE0) == 0xC0 && ((unsigned char) s[1] & 0xC0) == 0x80;
}

static unsigned int
code_of_two_bytes(const char *s)
{
	return ((unsigned char) s[0] & 0x1F) << 6 | ((unsigned char) s[1] & 0x3F);
}

char *
lexical_fold(const char *text)
{
	char *result = pstrdup(text);

	for (char *p = result; *p != '\0'; p++)
	{
		if (*p >= 'A' && *p <= 'Z')
			*p += 'a' - 'A';
		else if (has_two_bytes(p))
		{
			unsigned int c = fold_code(code_of_two_bytes(p));

			*p++ = (char) (0xC0 | c >> 6);
			*p = (char) (0x80 | (c & 0x3F));
		}
	}
	return result;
}

/* The next byte, or character of two bytes, in lower case; *text moves on. */
static unsigned int
next_folded(const char **text)
{
	const char *s = *text;

	*text += has_two_bytes(s) ? 2 : 1;
	if (has_two_bytes(s))
		return 0x100 + fold_code(code_of_two_bytes(s));
	return *s >= 'A' && *s <= 'Z' ? *s + ('a' - 'A') : (unsigned char) *s;
}

bool
lexical_same_letters(const char *a, const char *b)
{
	while (*a != '\0' && *b != '\0')
	{
		if (next_folded(&a) != next_folded(&b))
			return false;
	}
	return *a == *b;
}

/* ------------------------------------------------------------------------
 * Numbers
 * ------------------------------------------------------------------------
 */

/* Add one in the last place of digits, the point left where it is. */
static char *
increment(const char *digits)
{
	size_t len = strlen(digits);
	char *sum = palloc(len + 2);

	sum[0] = '0';
	memcpy(sum + 1, digits, len + 1);
	for (char *p = sum + len; p >= sum; p--)
	{
		if (*p == '.')
			continue;
		if (*p != '9')
		{
			(*p)++;
			break;
		}
		*p = '0';
	}
	return sum[0] == '0' ? sum + 1 : sum;
}

/* Digits without a sign, rounded. */
static char *
round_digits(const char *digits, int scale)
{
	const char *point = strchr(digits, '.');
	char *kept;

	if (point == NULL || strlen(point + 1) <= (size_t) scale)
		return pstrdup(digits);
	kept = pnstrdup(digits, (size_t) (point - digits) + (scale > 0 ? scale + 1 : 0));
	return point[scale + 1] >= '5' ? increment(kept) : kept;
}

char *
lexical_round(const char *plain, int scale)
{
	bool negative = plain[0] == '-';
	char *digits = round_digits(plain + negative, scale);
	bool zero = strspn(digits, "0.") == strlen(digits);

	return negative && !zero ? psprintf("-%s", digits) : digits;
}

/* ------------------------------------------------------------------------
 * Dates and times
 * ------------------------------------------------------------------------
 */

/* So many digits as a number; false if one is none. */
static bool
read_digits(const char **text, int n, int *value)
{
	*value = 0;
	for (; n > 0; n--, (*text)++)
	{
		if (**text < '0' || **text > '9')
			return false;
		*value = *value * 10 + (**text - '0');
	}
	return true;
}

static bool
read_char(const char **text, char wanted)
{
	if (**text != wanted)
		return false;
	(*text)++;
	return true;
}

static int
days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
		return 29;
	return days[month - 1];
}

bool
lexical_read_date(const char **text, LexicalDate *date)
{
	int year_digits = (int) strspn(*text, "0123456789");

	/* no zeros in front of four digits, and no more than fit an int */
	return year_digits >= 4 && year_digits <= 7 && (year_digits == 4 || **text != '0') &&
		   read_digits(text, year_digits, &date->year) && read_char(text, '-') &&
		   read_digits(text, 2, &date->month) && read_char(text, '-') && read_digits(text, 2, &date->day) &&
		   date->month >= 1 && date->month <= 12 && date->day >= 1 &&
		   date->day <= days_in_month(date->year, date->month);
}

bool
lexical_read_time(const char **text, int *milliseconds)
{
	int hour;
	int minute;
	int second;
	int weight = 100;

	if (!(read_digits(text, 2, &hour) && read_char(text, ':') && read_digits(text, 2, &minute) &&
		  read_char(text, ':') && read_digits(text, 2, &second) && hour <= 23 && minute <= 59 &&
		  second <= 59))
		return false;
	*milliseconds = ((hour * 60 + minute) * 60 + second) * 1000;
	if (!read_char(text, '.'))
		return true;
	if (**text < '0' || **text > '9')
		return false;
	for (; **text >= '0' && **text <= '9'; (*text)++)
	{
		*milliseconds += (**text - '0') * weight;
		weight /= 10;
	}
	return true;
}

bool
lexical_read_zone(const char **text, int *offset)
{
	bool negative = **text == '-';
	int hour;
	int minute = 0;

	*offset = 0;
	if (read_char(text, 'Z'))
		return true;
	if (!negative && **text != '+')
		return false;
	(*text)++;
	if (!read_digits(text, 2, &hour) || hour > 15)
		return false;
	if (read_char(text, ':') || (**text >= '0' && **text <= '9'))
	{
		if (!read_digits(text, 2, &minute) || minute > 59)
			return false;
	}
	*offset = (negative ? -1 : 1) * (hour * 60 + minute) * 60;
	return true;
}

/*
 * Days are counted from the first of March, so that the leap day comes last in
 * its year; 719468 lie between the first of March of the year 0 and 1970.
 */
int64
lexical_date_seconds(const LexicalDate *date)
{
	int64 year = 400 + date->year - (date->month <= 2); /* an era on, where no year is below 0 */
	int month = (date->month + 9) % 12;
	int64 days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + date->day - 1;

	return (days - 146097 - 719468) * DAY_SECONDS;
}

/* The day with these seconds. */
static LexicalDate
date_at(int64 seconds)
{
	int64 days = seconds / DAY_SECONDS - (seconds % DAY_SECONDS < 0) + 719468;
	int64 era = days / 146097 - (days % 146097 < 0);
	int64 day = days - era * 146097;
	int64 year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	int month;
	LexicalDate date;

	day -= 365 * year + year / 4 - year / 100;
	month = (int) ((5 * day + 2) / 153);
	date.day = (int) (day - (153 * month + 2) / 5 + 1);
	date.month = month < 10 ? month + 3 : month - 9;
	date.year = (int) (year + era * 400 + (date.month <= 2));
	return date;
}

char *
lexical_instant(int64 seconds, const char *rest)
{
	LexicalDate date = date_at(seconds);
	int second = (int) (seconds % DAY_SECONDS);

	if (second < 0)
		second += DAY_SECONDS;
	return psprintf("%04d-%02d-%02dT%02d:%02d:%02d%s", date.year, date.month, date.day, second / 3600,
					second / 60 % 60, second % 60, rest);
}
