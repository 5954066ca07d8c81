/*
 * fuzz.h
 *		What the drivers share.  A driver gives the bytes of one input to one
 *		parser, and holds what comes back to what its header promises.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "compat.h"

typedef void (*Driver)(const uint8_t *data, size_t size);

typedef struct Target
{
	const char *name;
	Driver driver;
} Target;

/* Of each file, ended by one without a name. */
extern const Target reply_targets[];
extern const Target read_targets[];
extern const Target bulk_targets[];
extern const Target value_targets[];
extern const Target header_targets[];

#define must(condition)                                                                                      \
	do                                                                                                       \
	{                                                                                                        \
		if (!(condition))                                                                                    \
			fuzz_failed(#condition, __FILE__, __LINE__);                                                     \
	} while (0)

extern void fuzz_failed(const char *condition, const char *file, int line) __attribute__((noreturn));

/* Everything palloc'd since the last call. */
extern void arena_reset(void);

/* The first byte of the input, which chooses a variant; 0 when there is none. */
extern uint8_t take_byte(const uint8_t **data, size_t *size);

/* The rest as text, in memory of its own. */
extern char *take_text(const uint8_t *data, size_t size);

extern bool is_utf8(const char *text);

/* Each of these may be NULL. */
extern void must_be_text(const char *text); /* UTF-8 */
extern void must_be_line(const char *text); /* that may stand in a log */
extern void must_be_id(const char *id);

#endif /* FUZZ_H */
