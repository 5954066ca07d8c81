/*
 * rest_form.c
 *		The forms in which the REST API has numbers, Ids, keys and times.  Pure.
 */
#include "compat.h"

#include "lexical.h"
#include "rest_internal.h"

#define MAX_EXPONENT 5000

#define SECONDS_PER_DAY INT64CONST(86400)
#define MICROSECONDS INT64CONST(1000000)

/* ------------------------------------------------------------------------
 * Numbers, Ids and keys
 * ------------------------------------------------------------------------
 */

/* Sign and digits of "[+-]digits", bounded; false if it is anything else. */
static bool
parse_exponent(const char *text, int *exponent)
{
	bool negative = *text == '-';
	int value = 0;

	if (*text == '-' || *text == '+')
		text++;
	if (*text == '\0')
		return false;
	for (; *text != '\0'; text++)
	{
		if (*text < '0' || *text > '9')
			return false;
		if (value <= MAX_EXPONENT)
			value = value * 10 + (*text - '0');
	}
	if (value > MAX_EXPONENT)
		return false;
	*exponent = negative ? -value : value;
	return true;
}

/* Digits with the decimal point after the first `point` of them. */
static char *
place_point(bool negative, const char *digits, int ndigits, int point)
{
	StringInfoData out;
	int first = 0;

	initStringInfo(&out);
	if (negative)
		appendStringInfoChar(&out, '-');
	while (first < point && (first >= ndigits || digits[first] == '0'))
		first++;
	if (first >= point)
		appendStringInfoChar(&out, '0');
	for (int i = first; i < point; i++)
		appendStringInfoChar(&out, i < ndigits ? digits[i] : '0');
	if (point < ndigits)
	{
		appendStringInfoChar(&out, '.');
		for (int i = point; i < 0; i++)
			appendStringInfoChar(&out, '0');
		for (int i = Max(point, 0); i < ndigits; i++)
			appendStringInfoChar(&out, digits[i]);
	}
	return out.data;
}

char *
rest_plain_number(const char *text)
{
	bool negative = *text == '-';
	char *digits;
	char *result;
	int ndigits = 0;
	int point = -1;
	int exponent = 0;

	if (*text == '-' || *text == '+')
		text++;
	digits = palloc(strlen(text) + 1);
	for (; (*text >= '0' && *text <= '9') || (*text == '.' && point < 0); text++)
	{
		if (*text == '.')
			point = ndigits;
		else
			digits[ndigits++] = *text;
	}
	if (ndigits == 0 || (*text != '\0' && *text != 'e' && *text != 'E') ||
		(*text != '\0' && !parse_exponent(text + 1, &exponent)))
	{
		pfree(digits);
		return NULL;
	}
	if (point < 0)
		point = ndigits;
	result = place_point(negative, digits, ndigits, point + exponent);
	pfree(digits);
	return result;
}

/*
 * The key of a number field, so that equal numbers are equal texts: 00123,
 * 123.0 and 1.23E2 are one key (trap 20).  NULL if it is no number.
 */
char *
rest_number_key(const char *text)
{
	char *plain = rest_plain_number(text);
	char *end;

	if (plain == NULL)
		return NULL;
	end = plain + strlen(plain);
	if (strchr(plain, '.') != NULL)
	{
		while (end[-1] == '0')
			end--;
		if (end[-1] == '.')
			end--;
		*end = '\0';
	}
	return strcmp(plain, "-0") == 0 ? pstrdup("0") : plain;
}

/* The checksum character of five characters of an Id (section 3.5). */
static char
id_checksum(const char *five)
{
	int bits = 0;

	for (int i = 0; i < 5; i++)
	{
		if (five[i] >= 'A' && five[i] <= 'Z')
			bits |= 1 << i;
	}
	return "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[bits];
}

char *
rest_id18(const char *id)
{
	char full[19];
	size_t len = strlen(id);

	if (len != 15 && len != 18)
		return NULL;
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) id[i];

		if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')))
			return NULL;
	}
	memcpy(full, id, 15);
	for (int group = 0; group < 3; group++)
		full[15 + group] = id_checksum(id + 5 * group);
	full[18] = '\0';

	/* an Id whose case was altered is not repaired, as Salesforce refuses it */
	return len == 15 || strcmp(id, full) == 0 ? pstrdup(full) : NULL;
}

char *
rest_record_key(const char *key, bool case_sensitive)
{
	char *trimmed = lexical_trim(key, strlen(key));

	return case_sensitive ? trimmed : lexical_fold(trimmed);
}

/* ------------------------------------------------------------------------
 * Times
 *
 * On our own, as the server's functions don't exist outside it and those of
 * the C library follow the locale.
 * ------------------------------------------------------------------------
 */

typedef struct Civil
{
	int year;
	int month;
	int day;
	int hour;
	int minute;
	int second;
	int weekday; /* 0: Saturday, as 2000-01-01 was */
} Civil;

/*
 * Days from 2000-01-01 to a day of the Gregorian calendar.  Years begin in
 * March here, so that a leap day comes last; 146,097 days are 400 years.
 */
static int64
days_of(int year, int month, int day)
{
	int64 y = month > 2 ? year : year - 1;
	int64 era = (y >= 0 ? y : y - 399) / 400;
	int64 year_of_era = y - era * 400;
	int64 day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 730425;
}

/* The inverse. */
static void
civil_day(int64 days, Civil *civil)
{
	int64 z = days + 730425;
	int64 era = (z >= 0 ? z : z - 146096) / 146097;
	int64 day_of_era = z - era * 146097;
	int64 year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	int64 day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int64 month = (5 * day_of_year + 2) / 153;

	civil->day = (int) (day_of_year - (153 * month + 2) / 5 + 1);
	civil->month = (int) (month < 10 ? month + 3 : month - 9);
	civil->year = (int) (year_of_era + era * 400 + (civil->month <= 2 ? 1 : 0));
}

static int64
floor_divide(int64 number, int64 divisor)
{
	return number / divisor - (number % divisor < 0 ? 1 : 0);
}

static Civil
civil_time(int64 time)
{
	int64 seconds = floor_divide(time, MICROSECONDS);
	int64 days = floor_divide(seconds, SECONDS_PER_DAY);
	int rest = (int) (seconds - days * SECONDS_PER_DAY);
	Civil civil;

	civil_day(days, &civil);
	civil.hour = rest / 3600;
	civil.minute = rest / 60 % 60;
	civil.second = rest % 60;
	civil.weekday = (int) (days - floor_divide(days, 7) * 7);
	return civil;
}

char *
rest_soql_time(int64 time)
{
	Civil c = civil_time(time);

	return psprintf("%04d-%02d-%02dT%02d:%02d:%02dZ", c.year, c.month, c.day, c.hour, c.minute, c.second);
}

char *
rest_http_date(int64 time)
{
	static const char *const weekdays[] = {"Sat", "Sun", "Mon", "Tue", "Wed", "Thu", "Fri"};
	static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
										 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	Civil c = civil_time(time);

	return psprintf("%s, %02d %s %04d %02d:%02d:%02d GMT", weekdays[c.weekday], c.day, months[c.month - 1],
					c.year, c.hour, c.minute, c.second);
}

/* Exactly so many digits, of a number not over max; moves on. */
static bool
take_number(const char **text, int digits, int max, int *number)
{
	*number = 0;
	for (int i = 0; i < digits; i++, (*text)++)
	{
		if (**text < '0' || **text > '9')
			return false;
		*number = *number * 10 + (**text - '0');
	}
	return *number <= max;
}

static bool
take_char(const char **text, char c)
{
	if (**text != c)
		return false;
	(*text)++;
	return true;
}

static bool
take_date(const char **text, int64 *days)
{
	static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int year;
	int month;
	int day;
	int length;

	if (!take_number(text, 4, 9999, &year) || !take_char(text, '-') || !take_number(text, 2, 12, &month) ||
		!take_char(text, '-') || !take_number(text, 2, 31, &day) || month == 0 || day == 0)
		return false;
	length = lengths[month - 1];
	if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
		length = 29;
	*days = days_of(year, month, day);
	return day <= length;
}

/* ".123", cut after the microseconds; none is 0. */
static bool
take_fraction(const char **text, int *microseconds)
{
	int unit = (int) MICROSECONDS / 10;

	*microseconds = 0;
	if (!take_char(text, '.'))
		return true;
	if (**text < '0' || **text > '9')
		return false;
	for (; **text >= '0' && **text <= '9'; (*text)++)
	{
		*microseconds += (**text - '0') * unit;
		unit /= 10;
	}
	return true;
}

/* Z, +hhmm or +hh:mm, as the seconds to take away. */
static bool
take_zone(const char **text, int *seconds)
{
	bool west = **text == '-';
	int hours;
	int minutes;

	*seconds = 0;
	if (take_char(text, 'Z'))
		return true;
	if (!take_char(text, '+') && !take_char(text, '-'))
		return false;
	if (!take_number(text, 2, 23, &hours))
		return false;
	(void) take_char(text, ':');
	if (!take_number(text, 2, 59, &minutes))
		return false;
	*seconds = (hours * 3600 + minutes * 60) * (west ? -1 : 1);
	return true;
}

bool
rest_parse_time(const char *text, int64 *time)
{
	int64 days;
	int hour;
	int minute;
	int second;
	int fraction;
	int zone;

	if (!take_date(&text, &days) || !take_char(&text, 'T') || !take_number(&text, 2, 23, &hour) ||
		!take_char(&text, ':') || !take_number(&text, 2, 59, &minute) || !take_char(&text, ':') ||
		!take_number(&text, 2, 59, &second) || !take_fraction(&text, &fraction) || !take_zone(&text, &zone) ||
		*text != '\0')
		return false;
	*time = (days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - zone) * MICROSECONDS + fraction;
	return true;
}
