/*
 * claim.h
 *		What is at hand while a batch of units is decided: for claim.c and the
 *		files that it has carry out a part of that, named below.
 */
#ifndef SFSYNC_CLAIM_H
#define SFSYNC_CLAIM_H

#include "delivery.h"
#include "intents.h"
#include "records.h"
#include "source.h"

/*
 * A step: decide for a batch of ready units, and prepare its request.
 * progress: there may be more to claim.
 */
typedef struct ClaimRound
{
	MappingQueue *queue;
	bool progress;
} ClaimRound;

/* arg: a ClaimRound. */
extern void claim(Delivery *delivery, MappingDelivery *state, void *arg);

/* A unit while it is decided. */
typedef struct Candidate
{
	Unit *unit;
	char *record_key;
	SourceRow *row;              /* NULL: not read (yet) */
	const RecordRow *record;     /* that we know under its key; NULL */
	const RecordRow *old_record; /* its own, where the former is another row's; NULL */
	const RecordRow *expected;   /* that it has in name only; NULL */
	const RecordRow *holder;     /* has the row's key in Salesforce, and is to give it up; NULL */
	bool sets_key;               /* its record gets the row's key */
	RestRecord payload;
	const char *operation;
	const char *salesforce_id;
	int64 unmodified_since; /* guarded updates */
	Outcome noted;          /* conflicts, memory: for the outcome */
	bool memory_changed;
	bool given_up;  /* by a person, since it was read */
	bool *circular; /* by field of the mapping: a lookup whose parent waits for this row; NULL: none */
	uint8 *fill;    /* columns that are sent when that parent is there, as in the queue; NULL: none */
	int fill_len;
	int fill_mapping;
	char *fill_key;
	const char **parent_ids; /* by field of the mapping; NULL where there is none, or it is not known */
} Candidate;

/* The record that is the row's own; NULL. */
static inline const RecordRow *
candidate_record(const Candidate *candidate)
{
	return candidate->old_record ? candidate->old_record : candidate->record;
}

typedef struct Claim
{
	Delivery *delivery;
	MappingDelivery *state;
	Mapping *mapping;
	Connection *connection;
	int n;
	Candidate *candidates;
	struct keymap_hash *keys; /* record keys that are in flight, or of candidates */
	RecordRow *records;
	int nrecords;
	char **fields; /* that reads ask for */
	int nfields;
	IntentRow *intents; /* requests of unknown outcome that wrote some of the rows */
	int nintents;
} Claim;

/* Is a record of that key in flight, or about to be, under whatever key or mapping? */
extern bool claim_record_in_flight(const Claim *claim, const char *record_key);

/* Is the unit's record read before it is written? */
extern bool claim_reads_first(const Claim *claim, const Unit *unit);

/* How many candidates are of a kind. */
static inline int
claim_count(const UnitKind *kinds, int n, UnitKind kind)
{
	int count = 0;

	for (int i = 0; i < n; i++)
		count += kinds[i] == kind;
	return count;
}

/* ready.c: is there a token, and are there metadata?  Else they are asked for. */
extern bool claim_ready(Claim *claim);

/*
 * circle.c
 */

/* Find which lookups of new rows close a circle; take them out of a record; tell what follows. */
extern void circle_find(Claim *claim);
extern void circle_leave_out(const Claim *claim, Candidate *candidate);
extern void circle_outcome(const Candidate *candidate, Outcome *outcome);

/*
 * decide.c
 */

/* The request that a unit needs whose row was read; UNIT_UNDECIDED: none. */
extern UnitKind decide(Claim *claim, Candidate *candidate);

/* The same before anything was read: for changes of columns. */
extern UnitKind decide_unread(Claim *claim, Candidate *candidate);

/* family.c: units whose family is under way in another request wait for it. */
extern void family_keep_together(Claim *claim, UnitKind *kinds);

/*
 * reads.c
 */

struct UnitRead
{
	int serial; /* of the mapping whose fields were read */
	TimestampTz read_at;
	int64 server_at; /* the same by Salesforce's clock, at the earliest */
	RestRead record;
	bool ambiguous; /* several records have the key */
	bool gone_read;
	RestRead gone; /* what became of a record that is not there any more */
	bool history_read;
	RestChange *history;
	int nhistory;
};

/* Has the record been read, lately enough, for the mapping as it is? */
extern bool read_is_fresh(const Claim *claim, const Unit *unit);

/*
 * Prepare one request that reads for candidates whose kind is UNIT_READ; the
 * kinds of those that it doesn't take become UNIT_WAITING.
 */
extern void reads_prepare(Claim *claim, UnitKind *kinds);

/* A reply with status 200. */
extern void reads_settle(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now);

/* Ask for the names of users that conflicts show by their Ids alone. */
extern void reads_prepare_users(Claim *claim);

/*
 * writes.c
 */

/*
 * One request with as many collections as fit; guarded updates, which are
 * single parts, go by themselves.  What finds no room stays ready.  False if
 * there is nothing to send.
 */
extern bool writes_prepare(Claim *claim, UnitKind *kinds);

/* Ask for the Ids of records of units whose kind is UNIT_LOOKUP. */
extern void writes_prepare_lookup(Claim *claim, const UnitKind *kinds);

#endif /* SFSYNC_CLAIM_H */
