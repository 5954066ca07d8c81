/*
 * records.h
 *		Statements on sfsync.record: which records are known, under which keys
 *		Salesforce may have them, and what key changes mean for them.
 *
 * All functions run inside the caller's transaction.
 */
#ifndef SFSYNC_RECORDS_H
#define SFSYNC_RECORDS_H

#include "mapping.h"
#include "nodes/pg_list.h"
#include "reconcile.h"
#include "rest.h"

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

#endif /* SFSYNC_RECORDS_H */
