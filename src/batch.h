/*
 * batch.h
 *		The work at hand: captured changes folded to one unit a row, in memory
 *		until they are settled, and the choice of what goes into the next
 *		request.  Pure: no database, no network, no clock.
 *
 * A unit is dropped only by batch_done.  A change that arrives while its row is
 * in flight makes a successor, which becomes ready when the first is done: two
 * writes of one record are never in flight together.
 */
#ifndef SFSYNC_BATCH_H
#define SFSYNC_BATCH_H

#include "lib/ilist.h"
#ifdef FRONTEND
typedef void *MemoryContext; /* outside of the server nothing is read */
#endif

/* Operations of captured events, as the queue has them. */
#define EVENT_INSERT 'I'
#define EVENT_UPDATE 'U'
#define EVENT_WHOLE 'W' /* the whole row, changed at no known time: as a backfill brings it */
#define EVENT_DELETE 'D'
#define EVENT_KEY_CHANGE 'K'
#define EVENT_HELD_DELETE 'H'    /* one of more than the mapping's guard allows */
#define EVENT_PARTITION_LEFT 'P' /* the row left with its partition, whose name is in old_key */

/* Time of what a backfill brings: no event, so older than everything. */
#define BATCH_NEVER PG_INT64_MIN

/* What must be done for a unit, as far as it is known. */
typedef enum UnitKind
{
	UNIT_UNDECIDED,
	UNIT_CREATE,         /* the whole row, which must not be there yet */
	UNIT_UPSERT,         /* the whole row, by external ID */
	UNIT_UPDATE,         /* some fields, by Id */
	UNIT_GUARDED_UPDATE, /* the same, unless someone else was faster */
	UNIT_DELETE,         /* by Id */
	UNIT_FREE_KEY,       /* another record gives up the key that the unit's record is to have */
	UNIT_LOOKUP,         /* its Id must be found first */
	UNIT_READ,           /* its record must be read first */
	UNIT_WAITING         /* its parent goes first */
} UnitKind;

/* What was read of a unit's record; batch.c only frees it. */
typedef struct UnitRead UnitRead;

typedef struct QueueRef
{
	uint64 xid;
	int32 n;
} QueueRef;

typedef struct MappingQueue MappingQueue;

/* Rows of a backfill that are at hand; it is freed by its owner. */
typedef struct Chunk
{
	int pending; /* units not done */
} Chunk;

typedef struct Unit
{
	dlist_node node; /* in a list of its mapping, if listed */
	MappingQueue *queue;
	char *key;
	bool in_flight;
	bool listed; /* ready; not in flight, nor the successor of one that is */
	bool later;  /* among those that only a backfill wants */
	UnitKind kind;
	bool whole;      /* all fields, not only the changed ones */
	bool captured;   /* an event stands behind it, not only what we want to know */
	bool inserted;   /* its first captured event was an insert */
	bool deleted;    /* a delete was captured */
	char *hold;      /* why its delete waits for a person; NULL: it doesn't */
	bool left;       /* it left with its partition */
	bool replaced;   /* deleted, and another row has come to the key since */
	bool expected;   /* what is known of that is kept with the records */
	uint64 moved_by; /* transaction whose key change brought its row; 0 none */
	bool key_left;   /* its row may have left the key: its absence is no delete */
	char **old_keys; /* keys under which its record may be, newest first: it is to be looked for */
	int nold;
	int64 whole_at; /* when an event last touched the whole row: 0 none did, BATCH_NEVER a backfill */
	uint8 *changed; /* bitmap by attribute number - 1 */
	int changed_len;
	int64 changed_at; /* when they changed, unless each has its own time: */
	int64 *times;     /* by bit; NULL */
	int64 first_event_at;
	int64 event_at;
	QueueRef *refs;
	int nrefs;
	int max_refs;
	/* from and for the table of deferred changes */
	bool deferred;  /* has a row there */
	uint64 renewed; /* as it was when the row was read */
	int attempts;
	uint64 min_xid;
	uint64 missing_since;
	/* during delivery */
	int waits;         /* times that it waited for a parent */
	int waits_mapping; /* that parent; key NULL: it doesn't wait */
	char *waits_key;
	bool looked_up; /* Salesforce was asked for its Id: there is none */
	UnitRead *read; /* NULL: not read */
	MemoryContext read_context;
	bool refused_once;  /* for a reason that new metadata may have cured */
	bool gone_once;     /* Salesforce said that there is no such record; it was read again since */
	bool by_rest;       /* not by a bulk job (again) */
	bool restored;      /* in a bulk job from before the worker started */
	int limit;          /* size of the next request with it; 0 any */
	int64 failed_since; /* mark of poison.h at the first failure of a request with it; 0 none */
	Chunk *chunk;
	struct Unit *next; /* successor */
} Unit;

struct MappingQueue
{
	int mapping;
	int nready; /* in both lists */
	int nlater;
	int nunits;
	dlist_head ready;
	dlist_head later; /* rows of backfills: live changes go first */
};

typedef struct Work Work;

typedef struct WorkEvent
{
	int mapping;
	char operation; /* EVENT_... */
	const char *key;
	const char *old_key; /* key change */
	const uint8 *changed;
	int changed_len; /* < 0: none */
	int64 event_at;
	QueueRef ref;
} WorkEvent;

/* No work yet, palloc'd; all that it holds later is allocated in the context current then. */
extern Work *batch_create(void);

/* Units at hand, in flight included. */
extern int batch_size(const Work *work);

/* The queue of a mapping; made when missing. */
extern MappingQueue *batch_queue(Work *work, int mapping);

/* The same if there is one, else NULL. */
extern MappingQueue *batch_find_queue(const Work *work, int mapping);

/*
 * Fold an event in.  NULL if it is at hand already, or is put aside: key
 * changes are, and what comes after them of the keys that they concern.
 */
extern Unit *batch_event(Work *work, const WorkEvent *event);

/*
 * Offer what was put aside, in order of time.  take returns false for what can't
 * go yet: that stays, and so does all behind it that concerns its keys.
 */
typedef bool (*BatchTakeFunction)(const WorkEvent *event, void *arg);
extern void batch_take(Work *work, BatchTakeFunction take, void *arg);

/* Is anything put aside? */
extern bool batch_has_aside(const Work *work);

/* Fold an event in that was put aside, and is no key change. */
extern Unit *batch_fold(Work *work, const WorkEvent *event);

/*
 * Carry out a key change: what is at hand of the old key becomes the new key's,
 * whose unit is returned.  None of both may be in flight.  shared: another row
 * may still be meant by what is at hand of the old key.
 */
extern Unit *batch_move(Work *work, const WorkEvent *event, bool shared);

/* Its events are safe elsewhere. */
extern void batch_forget_refs(Unit *unit);

/*
 * Records that are to get another key: holders[i] is the index of the one that
 * has the key that i is to get, KEY_IS_FREE, or KEY_HELD_ELSEWHERE.  What each
 * does now: take its key; wait for one that goes on by itself; or have the
 * holder give it up first, which breaks circles.
 */
#define KEY_IS_FREE -1
#define KEY_HELD_ELSEWHERE -2

typedef enum KeyStep
{
	KEY_TAKE,
	KEY_WAIT,
	KEY_FREE
} KeyStep;

/* steps has room for n. */
extern void batch_key_steps(const int *holders, int n, KeyStep *steps);

/*
 * The unit of a key that can still be changed (not in flight), made when
 * missing: for rows of deferred changes and backfills, filled in by the caller.
 */
extern Unit *batch_unit(Work *work, int mapping, const char *key);

/*
 * A backfill wants the unit: it goes after live changes, unless it is one.
 * False if another part of a backfill wants it already.
 */
extern bool batch_backfill(Unit *unit, Chunk *chunk);

/* The unit has a change that waited in the table of deferred ones. */
extern void batch_deferred(Unit *unit);

/* Drop the units that are ready and that only this part of a backfill wants. */
extern void batch_drop_backfill(Work *work, MappingQueue *queue, const Chunk *chunk);

/* The ready unit whose turn is next; NULL if there is none. */
extern Unit *batch_first(MappingQueue *queue);

/* Is there a unit, in flight or not?  The first of them. */
extern Unit *batch_find(Work *work, int mapping, const char *key);

/* An event that the unit settles. */
extern void batch_add_ref(Unit *unit, QueueRef ref);

/* The same, and is there anything put aside that concerns it? */
extern bool batch_is_at_hand(Work *work, int mapping, const char *key);

/* Its record is to be looked for under a key; nothing else of that key goes before it. */
extern void batch_add_old_key(Work *work, Unit *unit, const char *old_key);

/* The same, without the latter. */
extern void batch_look_under(Unit *unit, const char *old_key);

/* Columns changed at a time; or, by bit, at times of their own. */
extern void batch_add_changed(Unit *unit, const uint8 *changed, int len, int64 at);
extern void batch_add_times(Unit *unit, const uint8 *changed, int len, const int64 *times);

/* An event touched the whole row. */
extern void batch_add_whole(Unit *unit, int64 at);

/* Take over what changed of the row from another unit. */
extern void batch_add_changes_of(Unit *unit, const Unit *other);

/* When a column (bit: attribute number - 1) was last changed by an event; false if it wasn't. */
extern bool batch_column_changed(const Unit *unit, int bit, int64 *at);

/* What was read of its record is not valid (any more). */
extern void batch_forget_read(Unit *unit);

/* A changed filter leaves too many rows out.  Those are there: events of theirs don't lift it. */
#define BATCH_FILTER_HOLD                                                                                    \
	"the changed filter leaves out more rows than delete_guard allows; "                                     \
	"sfsync.release_deletes sends the deletes, sfsync.discard_deletes gives them up"

/* Why the unit's delete is held; NULL: it isn't. */
extern void batch_hold(Unit *unit, const char *reason);

/* The same, of an older change of the row: unless there is more than deletes since. */
extern void batch_join_hold(Unit *unit, const char *reason);

/* Is there a ready unit whose row was deleted, not after this one changed, or by the same transaction? */
extern bool batch_has_delete(const MappingQueue *queue, const Unit *unit);

/*
 * Up to max ready units of one mapping that can go into one request: all of
 * the kind of the first, or undecided; none whose turn has to wait for another.
 * Rows of backfills fill up what live changes leave.
 */
extern int batch_pick(Work *work, MappingQueue *queue, int max, Unit **picked);

/* The unit is in flight: it leaves the list of those that are ready. */
extern void batch_start(Unit *unit);

/* Still ready, but after all others of its mapping. */
extern void batch_postpone(Unit *unit);

/* The row that it waits for, while it is ready. */
extern void batch_set_parent(Unit *unit, int parent_mapping, const char *parent_key);

/* Does the row of this mapping and key, by what it waits for, wait for the unit? */
extern bool batch_waits_for(const Work *work, int mapping, const char *key, const Unit *unit);

/* Ready again, before others; of several the last first, so that they keep their order. */
extern void batch_again(Unit *unit);

/*
 * Take the changes of the successor, if there is one, into a unit that was not
 * delivered: they are newer, and the row is read again anyway.
 */
extern void batch_fold_next(Work *work, Unit *unit);

/* Settled: frees it; its successor becomes ready. */
extern void batch_done(Work *work, Unit *unit);

#endif /* SFSYNC_BATCH_H */
