/*
 * conflict.h
 *		Decisions against the row, as users see them: one per field and decision.
 */
#ifndef SFSYNC_CONFLICT_H
#define SFSYNC_CONFLICT_H

#include "lib/stringinfo.h"
#include "mapping.h"
#include "utils/timestamp.h"

typedef struct ConflictNote
{
	const char *field;            /* NULL: the record as a whole */
	const char *source_value;     /* JSON, UTF-8; NULL */
	const char *salesforce_value; /* the same */
	TimestampTz event_at;         /* 0: a backfill */
	TimestampTz modified_at;
	const char *modified_by; /* Id of the user; NULL unknown */
	const char *policy;
} ConflictNote;

/* What a settled change means for the conflicts of its row. */
typedef struct ConflictNotes
{
	int n;
	ConflictNote *notes;
	bool record_settled; /* the record as a whole isn't at stake any more */
	bool all_settled;    /* nothing of it is: it was deleted with its row */
	int nsettled;
	const char **settled; /* fields that were written, or are equal: their open conflicts are over */
} ConflictNotes;

/* A value as JSON text. */
extern char *conflict_value(const FieldValue *value);

/* Within settling: which of these rows have conflicts that are open? */
extern bool *conflicts_open(const Mapping *mapping, char *const *keys, int n);

/* Is one open about the record of a row as a whole? */
extern bool conflict_open_of_record(const Mapping *mapping, const char *key);

/*
 * Within settling: end what is over (if any is open), add what is new.  An open
 * conflict that says the same already stays as it is.  Returns how many were
 * added, and appends the ids of the first CONFLICTS_TOLD, with commas between.
 */
#define CONFLICTS_TOLD 100
extern int conflicts_settle(const Mapping *mapping, const char *key, const char *salesforce_id,
							const ConflictNotes *notes, bool open, int told, StringInfo ids);

/* Tell listeners: ids as conflicts_settle has collected them, never values. */
extern void conflicts_notify(const Mapping *mapping, const char *ids, int n);

/* Users whose names are not in conflicts yet; palloc'd Ids of 18 characters. */
extern char **conflicts_unnamed(const char *server, int *n);
extern void conflicts_name(const char *server, const char *id, const char *name);

#endif /* SFSYNC_CONFLICT_H */
