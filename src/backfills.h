/*
 * backfills.h
 *		Statements on sfsync.backfill_job.
 *
 * All functions run inside the caller's transaction.
 */
#ifndef SFSYNC_BACKFILLS_H
#define SFSYNC_BACKFILLS_H

#include "utils/timestamp.h"

typedef struct BackfillJob
{
	int64 id;
	int mapping;
	char *last_key;
	uint8 *changed; /* columns to send, as in the queue; NULL: all */
	int changed_len;
	uint64 xid;
	char *filter;                  /* rows to send, as an expression that is kept; NULL: all */
	bool hold;                     /* rows that leave by the mapping's filter are held */
	TimestampTz filter_changed_at; /* it applies the mapping's filter since then; else 0 */
} BackfillJob;

/* By id. */
extern BackfillJob *backfills_running(int *n);

/* Has a backfill of all rows been done? */
extern bool backfill_was_done(int mapping);

typedef struct BackfillStep
{
	int percent; /* 100 when it is done, and not before */
	int percent_before;
	int64 rows_done;
	int64 rows_total;
} BackfillStep;

/* False if it isn't running any more. */
extern bool backfill_advance(int64 id, const char *last_key, int64 rows, bool done, BackfillStep *step);

/* So many rows beyond its last key are settled. */
extern void backfill_note_ahead(int64 id, int64 rows);
extern void backfill_fail(int64 id);

#endif /* SFSYNC_BACKFILLS_H */
