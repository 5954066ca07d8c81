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
	bool found;
	SourceValue *values; /* by index into mapping->columns; only columns that feed
								 * a field are filled in */
} SourceRow;

/* The rows of the keys, in their order. */
extern SourceRow *source_read(const Mapping *mapping, char *const *keys, int nkeys);

/*
 * The next keys after last_key (NULL: from the first), at most limit, in key
 * order; only of rows where one of the columns in changed is not null, unless it
 * is NULL.
 */
extern char **source_keys_after(const Mapping *mapping, const char *last_key, const uint8 *changed,
								int changed_len, int limit, int *nkeys);

/* Rows of the table: estimated where counting would take long. */
extern int64 source_row_count(const Mapping *mapping);

/* A key as the JSON object that users see, and back (a number and its text are alike). */
extern char *source_key_json(const Mapping *mapping, const char *key);
extern char *source_key_from_json(const Mapping *mapping, Datum jsonb);

#endif /* SFSYNC_SOURCE_H */
