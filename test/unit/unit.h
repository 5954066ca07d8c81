/*
 * unit.h
 *		What all unit tests include, and the few helpers that they share.
 */
#ifndef UNIT_H
#define UNIT_H

#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <setjmp.h>
#include <cmocka.h>

/* cmocka 2 has one for each signedness, and deprecates the old name */
#ifdef assert_uint_in_range
#undef assert_in_range
#define assert_in_range(value, minimum, maximum) assert_uint_in_range(value, minimum, maximum)
#endif

#include "compat.h"

/* A line that TAP shows but does not judge. */
static inline void
diag(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("# ", stdout);
	vfprintf(stdout, format, args);
	fputs("\n", stdout);
	va_end(args);
}

/*
 * The bytes in memory of their own, without a zero behind them, so that
 * sanitizers see a parser that reads too far.  Free with free().
 */
static inline char *
exact_copy(const char *text, size_t len)
{
	char *copy = malloc(len > 0 ? len : 1);

	assert_non_null(copy);
	memcpy(copy, text, len);
	return copy;
}

/* A seeded generator: the same numbers on each run. */
static inline uint32_t
next_random(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t) (*seed >> 32);
}

static inline double
next_fraction(uint64_t *seed)
{
	return (double) next_random(seed) / 4294967296.0;
}

/* Values that tests of properties try: SFSYNC_TEST_VALUES. */
static inline int
trials(void)
{
	const char *n = getenv("SFSYNC_TEST_VALUES");

	return n != NULL ? atoi(n) : 20000;
}

/* Where their random values start: SFSYNC_TEST_SEED; shown, so that a failure can be seen again. */
static inline uint64_t
seed_of(const char *property)
{
	const char *given = getenv("SFSYNC_TEST_SEED");
	uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 20261124;

	diag("%s: SFSYNC_TEST_SEED=%llu SFSYNC_TEST_VALUES=%d", property, (unsigned long long) seed, trials());
	return seed;
}

static inline const char *
one_of(uint64_t *seed, const char *const *pieces, int n)
{
	return pieces[next_random(seed) % n];
}

#endif /* UNIT_H */
