/*
 * queue.h
 *		Statements on the tables where changes wait: queue and deferred.
 *
 * All functions run inside the caller's transaction.
 */
#ifndef SFSYNC_QUEUE_H
#define SFSYNC_QUEUE_H

#include "batch.h"
#include "utils/timestamp.h"

/*
 * Where reading the queue stands (design, section 3).  Rows that became
 * visible between two snapshots form a window; it is read in pages, in order
 * of xid and n, and never walks what older windows left behind dead.
 */
typedef struct QueueWindow
{
	char *seen; /* snapshot: all visible to it has been read; NULL nothing */
	char *upto; /* snapshot: end of the window being read; NULL none */
	int nlate;  /* xids in progress in seen that upto sees committed */
	uint64 *late;
	int next_late; /* == nlate: reading the main range */
	uint64 xid;    /* position: the event taken last */
	int32 n;
	int32 row;      /* rows whose n is greater are looked at: n itself, or less if its row has more events */
	int row_events; /* in each row of the last page, about */
	uint64 seen_xmin; /* of seen: every older xid's rows have been read */
} QueueWindow;

typedef void (*QueueEventFunction)(const WorkEvent *event, void *arg);

/*
 * Read up to limit events; true when the window is read to its end.  Memory of
 * the window is kept in context.
 */
extern bool queue_read(QueueWindow *window, int limit, MemoryContext context, QueueEventFunction take,
					   void *arg, int *nread);

/* Start over from the oldest row. */
extern void queue_rewind(QueueWindow *window);

/* Are there prepared transactions of this database? */
extern bool queue_prepared_transactions(void);

/*
 * Deferred changes
 */

typedef struct DeferredRow
{
	int mapping;
	char *key;
	bool held;
	bool dead; /* there is a dead letter */
	char *reason;
	TimestampTz due_at;
	int attempts;
	bool whole;
	bool deleted;
	bool key_left;
	bool captured;  /* an event stands behind it */
	uint64 renewed; /* transaction that added to it, other than by settling; 0 none */
	char **old_keys;
	int nold;
	TimestampTz whole_at;
	uint8 *changed;
	int changed_len;
	TimestampTz changed_at;
	TimestampTz *times; /* by bit; NULL */
	int ntimes;
	TimestampTz first_event_at;
	TimestampTz event_at;
	uint64 xid;
	uint64 missing_since;
} DeferredRow;

/* Rows due in (after, now] of the mappings given, by time. */
extern DeferredRow *deferred_due(const int *mappings, int nmappings, TimestampTz after, TimestampTz now,
								 int limit, int *n);

/* Time of the first after now; 0 if none. */
extern TimestampTz deferred_next_due(const int *mappings, int nmappings, TimestampTz now);

/*
 * Does the parent of each row, by what it waits for itself, wait for the row?
 * One a row; all rows are of one mapping.
 */
extern bool *deferred_circles(int mapping, char *const *keys, const int32 *parent_mappings,
							  char *const *parent_keys, int n);

/* The rows of these keys. */
extern DeferredRow *deferred_of_keys(const int32 *mappings, char *const *keys, int nkeys, int *n);

/*
 * Of these keys, each with a row when it was read: which has none any more, since
 * somebody discarded its dead letter?
 */
extern bool *deferred_given_up(int mapping, char *const *keys, int n);

/* Forget what is deferred of the row: it is at hand. */
extern void deferred_remove(int mapping, const char *key);

#endif /* SFSYNC_QUEUE_H */
