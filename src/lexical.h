/*
 * lexical.h
 *		How values are spelled: blanks, letter case, numbers, dates and times.
 *		What coercion writes and comparison reads, in one place.  Pure.
 *
 * All is by bytes of UTF-8 and by rules of its own, never by the locale.
 */
#ifndef SFSYNC_LEXICAL_H
#define SFSYNC_LEXICAL_H

/* A blank of ASCII, which Salesforce trims off both ends of a text (trap 7). */
extern bool lexical_is_blank(char c);

/* Characters of UTF-8 text: bytes that don't continue one. */
extern int lexical_characters(const char *text);

/* A copy without blanks of ASCII at both ends. */
extern char *lexical_trim(const char *text, size_t len);

/*
 * A copy in lower case: ASCII, Latin, Greek and Cyrillic letters.  The text
 * keeps its length in bytes.
 */
extern char *lexical_fold(const char *text);

/* Are they the same but for the case of letters? */
extern bool lexical_same_letters(const char *a, const char *b);

/*
 * A number in plain digits, as rest_plain_number gives them, rounded to so
 * many places behind the point, half away from zero as PostgreSQL's round()
 * does (trap 11).  Zero has no sign.
 */
extern char *lexical_round(const char *plain, int scale);

typedef struct LexicalDate
{
	int year;
	int month;
	int day;
} LexicalDate;

/*
 * YYYY-MM-DD at the front of *text, of a year of four digits or more; *text
 * is moved behind it.
 */
extern bool lexical_read_date(const char **text, LexicalDate *date);

/* HH:MM:SS[.f...] at the front of *text, likewise; milliseconds of the day, cut. */
extern bool lexical_read_time(const char **text, int *milliseconds);

/* Z, +hh, +hhmm or +hh:mm at the front of *text; seconds east of Greenwich. */
extern bool lexical_read_zone(const char **text, int *offset);

/* Seconds from 1970 to midnight UTC of the day. */
extern int64 lexical_date_seconds(const LexicalDate *date);

/* YYYY-MM-DDTHH:MM:SS of the instant in UTC, then the rest as given. */
extern char *lexical_instant(int64 seconds, const char *rest);

#endif /* SFSYNC_LEXICAL_H */
