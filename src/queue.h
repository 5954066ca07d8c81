/*
 * queue.h
 *		Every statement on the tables a change passes through: queue, deferred,
 *		intent, record, dead_letter, backfill_job, and the worker's own state.
 *
 * All functions run inside the caller's transaction.
 */
#ifndef SFSYNC_QUEUE_H
#define SFSYNC_QUEUE_H

#include "batch.h"
#include "conflict.h"
#include "mapping.h"
#include "reconcile.h"
#include "rest.h"
#include "throttle.h"
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

/* Forget what is deferred of the row: it is at hand. */
extern void deferred_remove(int mapping, const char *key);

/*
 * Records
 */

typedef struct RecordRow
{
	char *record_key;
	char *key;
	char *salesforce_id;
	Memory memory;       /* empty if none is kept */
	RestField *replaced; /* of an archived record: fields that the delete policy set, as they were before */
	int nreplaced;
	bool moving;    /* Salesforce may have it under other keys than its own: */
	char **at_keys; /* these, as record keys; empty text: or none */
	int nat;
	bool expected;   /* in name only: it is to be looked for, or made */
	bool shares_key; /* not stored under its key: Salesforce takes that for another row's */
} RecordRow;

/* The records known under these record keys, without those in name only; in no order. */
extern RecordRow *records_of_keys(int mapping, char *const *record_keys, int nkeys, int *n);

/* The same, and those that may have one of these keys in Salesforce. */
extern RecordRow *records_at_keys(int mapping, char *const *record_keys, char *const *keys, int nkeys,
								  int *n);

/* Whose a record that was found may be; rows are told by their record keys. */
typedef struct RecordOwners
{
	char *row;     /* the one whose record it is known to be; NULL */
	List *waiting; /* char *: those that may have a record with its key, yet to be found or to get another */
} RecordOwners;

/* By Id, and by record key; NULL keys have no row that waits. */
extern RecordOwners *record_owners(int mapping, char *const *ids, char *const *record_keys, int n);

/* A row's key changed: what is known of its record goes with it. */
typedef struct RecordMove
{
	int mapping;
	const char *from;
	const char *to;
	const char *from_record_key;
	const char *to_record_key;
	bool case_sensitive;
	bool
		overlaps; /* two rows may have had the key at once, within a transaction: of these the first one moves on */
	uint64 xid; /* of that transaction; 0 unknown */
} RecordMove;

/* Is the one that moves on one whose place another row has taken already? */
extern bool record_is_overlapped(const RecordMove *move);

/* True if it is the one whose place another row had taken already. */
extern bool record_move(const RecordMove *move);

/*
 * A row without a known record gets one in name, so that it can be followed; at_keys:
 * record keys under which it may be found in Salesforce.  Nothing is done where
 * a record is known.
 */
extern void record_expect(int mapping, const char *record_key, const char *key, char *const *at_keys, int n);

/*
 * Within a transaction the row of a record in name only may have gone on from a
 * key, or another that had the key before: both have one from then on, which is
 * looked for under that key first.  False: there is no such record.
 */
extern bool record_split(const RecordMove *move);

/* Records in name only, which were looked for under all their keys: there are none. */
extern void records_nowhere(int mapping, char *const *record_keys, int n);

/* Records in name only, of rows that are settled. */
extern void records_not_expected(int mapping, char *const *record_keys, int n);

/* Has that been done already, to this record key? */
extern bool record_has_moved(int mapping, const char *record_key);

/* What else names rows by key: dead letters, conflicts, requests of unknown outcome. */
extern void keys_moved(const Mapping *mapping, char *const *from, char *const *to, int n);

/* Before it is sent: records may have these keys from now on ("": none). */
extern void records_may_have(int mapping, char *const *record_keys, char *const *ids, char *const *keys,
							 int n);

/* After: they have their own key, and are stored under it; or none any more. */
extern void records_have_own(int mapping, char *const *record_keys, char *const *ids, int n);
extern void records_have_none(int mapping, char *const *record_keys, char *const *ids, int n);

/* memories[i] NULL: nothing is remembered of its fields. */
extern void record_put(int mapping, char *const *record_keys, char *const *keys, char *const *salesforce_ids,
					   Memory *const *memories, int n);

/*
 * The same, but never over a record that is known already.  at_keys[i]: the
 * record key under which Salesforce has it.
 */
extern void record_meet(int mapping, char *const *record_keys, char *const *keys, char *const *salesforce_ids,
						char *const *at_keys, int n);
extern void record_forget(int mapping, const char *record_key);
extern void record_replaced(int mapping, const char *record_key, const char *replaced);

/*
 * Intents
 */

/* A request that is about to be sent: the rows and fields that it writes.  Its id. */
extern int64 intent_add(int mapping, const char *operation, char *const *keys, int nkeys, char *const *fields,
						int nfields);

/* Requests of unknown outcome that wrote any of these rows. */
typedef struct IntentRow
{
	char **keys;
	int nkeys;
	char **fields;
	int nfields;
	TimestampTz sent_at;
	bool verifying; /* too old to be carried out any more: its records are looked at */
} IntentRow;

/* Of these rows; the reply tells (remove), or nobody will (unknown). */
extern IntentRow *intents_of_keys(int mapping, char *const *keys, int nkeys, int *n);
extern void intent_remove(int64 id);

/*
 * Rows that are deleted in Salesforce by now: a request of unknown outcome may
 * yet make their records anew, and what is to be looked at then is the delete.
 */
extern void intents_deleted(int mapping, char *const *keys, int n);
extern void intent_unknown(int64 id);

/* At start: what was in flight is unknown. */
extern void intents_of_dead_worker(void);

/* Queue records of intents unknown since before then again.  Time of the next, 0 if none. */
extern TimestampTz intents_verify(TimestampTz before);

/*
 * Settling
 */

typedef enum OutcomeKind
{
	OUTCOME_SYNCED,
	OUTCOME_DELETED,
	OUTCOME_UNCHANGED,
	OUTCOME_CONFLICT, /* Salesforce's stays, nothing is written */
	OUTCOME_IGNORED,
	OUTCOME_DISCARDED, /* the mapping is gone */
	OUTCOME_DEAD,
	OUTCOME_DEFERRED,
	OUTCOME_HELD,
	OUTCOME_AGAIN,       /* stays at hand, nothing is written */
	OUTCOME_CREATE_AGAIN /* the record is gone: forget it, send the whole row */
} OutcomeKind;

typedef struct Outcome
{
	Unit *unit;
	OutcomeKind kind;
	const char *operation; /* as dead letters show it */
	const char *record_key;
	const char *salesforce_id;
	const char *payload; /* JSON, UTF-8 */
	RestError error;
	int http_status; /* 0: none */
	const char *request_id;
	const char *reason; /* deferred, held */
	TimestampTz due_at;
	int parent_mapping; /* deferred: waits for this row's record; key NULL: for none */
	const char *parent_key;
	uint8 *fill; /* synced but for these columns, which wait for the parent; as in the queue */
	int fill_len;
	bool has_record; /* already before */
	bool count_attempt;
	bool last_in_turn;      /* OUTCOME_AGAIN: after all others of its mapping */
	bool row_remains;       /* a delete makes way for the row, which is sent next */
	const char *holder_key; /* record key of the record that gives up the key; NULL: none does */
	const char *holder_id;
	const char *holder_row;  /* its key */
	bool key_freed;          /* it has */
	bool sets_key;           /* the record gets its own key, which it may not have had */
	const char *expected_id; /* of a record in name only, which it had; NULL */
	const char *stored_key;  /* record key under which it is known, if it isn't its own */
	int64 bulk_job;          /* that it comes from, and leaves; 0: none */
	bool forget;             /* ignored: its record is no longer known */

	/* where conflicts are looked for */
	ConflictNotes conflicts;
	Memory *memory; /* of the record, as it was read; NULL: none is kept */
	int nwrote;     /* fields that are written, and hashes of their values */
	uint64 *wrote;
	uint64 *wrote_values;
	TimestampTz written_at; /* by Salesforce's clock */
	bool set_replaced;
	const char *replaced; /* JSON; NULL: nothing is replaced any more */
} Outcome;

/*
 * Write what became of units, and remove the request's intent (0: none).
 * mapping may be NULL where all are OUTCOME_DISCARDED.  True if deferred changes
 * that waited for one of the records became due.
 */
extern bool queue_settle(const Mapping *mapping, Outcome *outcomes, int n, int64 intent);

/*
 * Backfills
 */

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
extern void backfill_fail(int64 id);

/*
 * State
 */

typedef struct MappingCounters
{
	int64 synced;
	int64 unchanged;
	int64 ignored;
	TimestampTz last_synced_at;
	char *last_error;
} MappingCounters;

/* Add to what the views count; last_error replaces what was, unless it is NULL. */
extern void mapping_state_add(int mapping, const MappingCounters *counters);

/* NULL: not blocked. */
extern void mapping_state_blocked(int mapping, const char *reason, TimestampTz until);

typedef struct ServerState
{
	const char *server;
	const char *organization_id;
	const char *user_id;
	const char *state;
	const char *detail;
	TimestampTz retry_at;
	const Throttle *throttle;
	int64 calls;      /* since the last time */
	int64 clock_skew; /* microseconds */
} ServerState;

/* What is NULL or unknown in it stays as it was; calls are added. */
extern void server_state_put(const ServerState *state);

/* Cached metadata: describe NULL means that Salesforce doesn't know the object. */
extern void object_put(const char *server, const char *object, const char *describe,
					   const char *last_modified);
extern void object_touch(const char *server, const char *object);

#endif /* SFSYNC_QUEUE_H */
