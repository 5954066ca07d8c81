/*
 * source.h
 *		Reading rows of mapped tables, as the mapping's owner: privileges and
 *		row security decide what may leave.
 *
 * Rows are read with the active snapshot.  Everything is palloc'd in the
 * caller's context.
 */
#ifndef SFSYNC_SOURCE_H
#define SFSYNC_SOURCE_H

#include "mapping.h"

typedef struct SourceRow
{
	bool found;          /* the row is there, and passes the filter */
	bool filtered;       /* it is there and doesn't */
	char *failed;        /* why the filter can't be evaluated; NULL; found is set */
	char **errors;       /* why expressions can't be, by index like values; NULL: all can */
	SourceValue *values; /* by index into mapping->columns; only columns that feed
								 * a field are filled in */
} SourceRow;

/*
 * The rows of the keys, in their order.  What fails with one row's values (a
 * filter, an expression) is told of that row; other rows don't suffer.
 */
extern SourceRow *source_read(const Mapping *mapping, char *const *keys, int nkeys);

/*
 * Which rows: those where one of the columns in changed is not null (NULL: all;
 * so where it tells of the filter or an expression), and that pass filter, an
 * expression as it is kept (NULL: all).
 */
typedef struct SourceChoice
{
	const uint8 *changed;
	int changed_len;
	const char *filter;
} SourceChoice;

/*
 * The next keys after last_key (NULL: from the first), at most limit, in key
 * order.  An error if the choice's filter fails with a row's values.
 */
extern char **source_keys_after(const Mapping *mapping, const char *last_key, const SourceChoice *choice,
								int limit, int *nkeys);

/*
 * Rows of the table: estimated where counting would take long; else those that
 * pass filter (NULL: all).
 */
extern int64 source_row_count(const Mapping *mapping, const char *filter);

/* Does the filter leave out more than limit rows that pass the mapping's own now? */
extern bool source_loses_more(const Mapping *mapping, const char *filter, int limit);

/* A key as the JSON object that users see, and back (a number and its text are alike). */
extern char *source_key_json(const Mapping *mapping, const char *key);
extern char *source_key_from_json(const Mapping *mapping, Datum jsonb);

#endif /* SFSYNC_SOURCE_H */
