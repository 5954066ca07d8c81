/*
 * reconcile.h
 *		Whose value stays: the table of the design's section 6, field by field.
 *		Pure: no database, no network, no clock.
 *
 * What sfsync remembers of a record's fields is compared with what Salesforce
 * holds now.  Values are hashes of their canonical form (canonical.h), 0 for
 * empty.  Times are microseconds of Salesforce's clock; they are compared by
 * the second, as Salesforce keeps them, and ties go to Salesforce.
 */
#ifndef SFSYNC_RECONCILE_H
#define SFSYNC_RECONCILE_H

/* Event time of a backfilled row that has no time of its own. */
#define RECONCILE_NEVER PG_INT64_MIN

typedef enum FieldPolicy
{
	POLICY_NEWEST_WINS,
	POLICY_STRICT,
	POLICY_SOURCE_WINS,
	POLICY_FILL_IF_EMPTY,
	POLICY_CREATE_ONLY
} FieldPolicy;

/* What is remembered of one field: ours, as we last wrote it, or theirs. */
typedef struct FieldMemory
{
	uint64 field; /* hash of its API name */
	uint64 value;
	bool theirs;
	int64 at; /* ours: of the response to that write; theirs: the latest at which they can have set it */
} FieldMemory;

typedef struct Memory
{
	int n;
	FieldMemory *fields;
} Memory;

/*
 * Memory as it is stored: portable bytes.  Bytes that are no memory read as
 * none: then the record is met as if for the first time.
 */
extern Memory memory_read(const uint8 *bytes, int len);
extern uint8 *memory_write(const Memory *memory, int *len);

/* With entries of its own. */
extern Memory memory_copy(const Memory *memory);

/* The entry of a field; NULL if there is none. */
extern FieldMemory *memory_find(const Memory *memory, uint64 field);

typedef enum FieldDecision
{
	FIELD_LEAVE, /* nothing of ours to write */
	FIELD_EQUAL, /* Salesforce holds it already */
	FIELD_WRITE,
	FIELD_KEEP /* Salesforce's stays although ours differs: a conflict */
} FieldDecision;

/* One mapped field of a record that is in Salesforce. */
typedef struct ReconcileField
{
	uint64 name;
	FieldPolicy policy;
	bool changed;   /* an unsettled event changed it */
	int64 event_at; /* when; RECONCILE_NEVER */
	bool known;     /* the value to write can be compared */
	uint64 wanted;
	bool readable; /* so can Salesforce's */
	uint64 remote;
	bool empty;       /* which is none, or a checkbox's default */
	int64 history_at; /* when it was last set, and not by us, as its history tells; 0 unknown */
	bool in_intent;   /* set by a request of ours whose outcome is unknown */
	FieldDecision decision;
} ReconcileField;

typedef struct ReconcileRecord
{
	int64 modified_at; /* LastModifiedDate */
	bool by_us;
	int64 intent_at; /* when the oldest request of unknown outcome was sent; 0 none */
} ReconcileRecord;

/*
 * Decide for each field, and bring the memory up to date with what was read.
 * True if the memory changed: then it is to be stored before anything is sent.
 */
extern bool reconcile(const ReconcileRecord *record, ReconcileField *fields, int n, Memory *memory);

/* Time of our last write that is remembered; 0 none. */
extern int64 memory_last_write(const Memory *memory);

/* Did someone else change the record after an event?  For deletes. */
extern bool reconcile_edited_since(const ReconcileRecord *record, const Memory *memory, int64 event_at);

/* Note that fields were written with these values at this time. */
extern void memory_wrote(Memory *memory, uint64 field, uint64 value, int64 at);

#endif /* SFSYNC_RECONCILE_H */
