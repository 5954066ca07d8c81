/*
 * bulk_job.h
 *		Bulk jobs of the worker: rows that go to Salesforce by Bulk API 2.0, from
 *		the moment that they are taken until each of them is settled.
 *
 * A job takes units as claims decide them, each as a line of a temporary file;
 * what is kept of it in memory is small.  When it has all that is due, its
 * rows are noted in the tables bulk_job and bulk_row, and the job is made,
 * filled and closed in Salesforce, one request at a time.  From then on a
 * worker that starts finds it there, and goes on with it.  Its units are in
 * flight until their results are settled.
 *
 * bulk_gather.c takes units, bulk_job.c makes the requests, bulk_answer.c
 * judges the replies, bulk_settle.c reads results, bulk_rows.c has jobs in
 * memory, bulk_store.c has them in tables.
 */
#ifndef SFSYNC_BULK_JOB_H
#define SFSYNC_BULK_JOB_H

#include "storage/fd.h"

#include "bulk.h"
#include "claim.h"
#include "delivery.h"

/* What is next for a job. */
typedef enum BulkPhase
{
	BULK_GATHERING, /* takes rows */
	BULK_CREATING,
	BULK_UPLOADING,
	BULK_CLOSING,
	BULK_RUNNING, /* asked how it is, now and then */
	BULK_READING, /* results */
	BULK_ABORTING,
	BULK_DELETING
} BulkPhase;

typedef struct BulkRow
{
	Outcome outcome;
	bool settled;
} BulkRow;

struct bulkkeys_hash;

typedef struct BulkJob
{
	MemoryContext context;
	int64 id;    /* of its row; 0: none yet */
	bool unsure; /* the row isn't committed yet */
	int mapping;
	RestTarget target;
	char *server;
	bool case_sensitive;
	Connection *connection; /* NULL: not known yet */
	BulkOperation operation;
	BulkPhase phase;
	char *job;  /* Salesforce's Id */
	int serial; /* of the mapping that the columns are of */
	BulkColumns *columns;
	File file; /* the CSV; -1 none */
	off_t length;
	File results; /* -1 none */
	int n;
	int max;
	BulkRow *rows;
	struct bulkkeys_hash *keys; /* record keys, and what results are told apart by */
	int open;                   /* rows not settled */
	bool full;                  /* takes no more */
	bool dropped;               /* given up: its rows go another way */
	bool by_rest;               /* namely in ordinary requests */
	bool orphaned;              /* its mapping was dropped: all that is left is to end it */
	bool again;                 /* once it is aborted, the same rows make another job */
	bool in_flight;             /* a request of it is */
	TimestampTz due;            /* when the next request may be sent */
	TimestampTz added_at;       /* when it last took a row */
	TimestampTz closed_at;
	int failures;
	bool wanted[2]; /* sets of results still to be read */
	BulkResultSet set;
	char *locator;
} BulkJob;

/*
 * For the turn
 */

/* At start, in a transaction: jobs of a worker before this one. */
extern void bulk_jobs_restore(Delivery *delivery);

/* In the turn's transaction, after the claims: prepare the requests that are due. */
extern void bulk_jobs_turn(Delivery *delivery);

/* After its commit: let go of what has to go another way. */
extern void bulk_jobs_release(Delivery *delivery);

/* After an error in the turn, its transaction aborted. */
extern void bulk_jobs_recover(Delivery *delivery);

/* When a request is due; 0 none. */
extern TimestampTz bulk_jobs_next(Delivery *delivery);

/*
 * For claims and fetch
 */

/* Is a record of that key in a job? */
extern bool bulk_jobs_write(const Delivery *delivery, const char *object, const char *record_key);

/*
 * Take what may go by bulk: of candidates of these kinds, those taken get the
 * kind UNIT_UNDECIDED.  True if any was.
 */
extern bool bulk_take(Claim *claim, UnitKind *kinds);

/* Before the claims of a turn: which mappings have so much due that bulk jobs take what they can? */
extern void bulk_measure(Delivery *delivery);

/* Due records from which a mapping may use bulk jobs; 0 never. */
extern int bulk_threshold(const Mapping *mapping, const Connection *connection);

/* Units of a mapping that are in jobs. */
extern int bulk_units(const Delivery *delivery, int mapping);

/* Do jobs take so many more?  Memory for their rows is bounded. */
extern bool bulk_has_room(const Delivery *delivery, int more);

/* Does a mapping have a job that needs its connection? */
extern bool bulk_has_job(const Delivery *delivery, int mapping);

/*
 * For requests
 */

/* The header that says what a reply may be. */
extern const char *bulk_accept(const Request *request);

/* Bodies that come from files, or go there. */
extern void bulk_fill(const Request *request, HttpRequest *http);
extern void bulk_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now);

/*
 * Among the files of bulk jobs
 */

/* A job without rows, gathering, among those of delivery; and its end: files are closed, units are not touched. */
extern BulkJob *bulk_job_create(Delivery *delivery, const Mapping *mapping, Connection *connection,
								BulkOperation operation);
extern void bulk_job_free(Delivery *delivery, BulkJob *job);

/* Room for another row; its record key and what it is told apart by are noted. */
extern BulkRow *bulk_job_add(BulkJob *job, const char *record_key, const char *salesforce_id);

/* The row of a record key, or, as results repeat it, of a key or Id; NULL. */
extern BulkRow *bulk_job_record(const BulkJob *job, const char *record_key);
extern BulkRow *bulk_job_match(const BulkJob *job, const char *match);

/* Values of fields that a job writes, as the record's memory; and back into an outcome. */
extern uint8 *bulk_memory_write(const Outcome *outcome, int *len);
extern void bulk_memory_read(Outcome *outcome, const uint8 *bytes, int len);

/* Nothing more is asked of it; its rows go another way, by_rest: not by a bulk job. */
extern void bulk_give_up(BulkJob *job, bool by_rest);

/* Results, in a file. */
extern bool bulk_settle(Delivery *delivery, Request *request, const HttpReply *reply);

/* Rows that are not settled go back to be sent again.  Not in a transaction. */
extern void bulk_send_again(Delivery *delivery, BulkJob *job);

/* bulk_store.c: statements; all in the caller's transaction but where told. */
extern int64 bulk_store(BulkJob *job);
extern void bulk_store_state(int64 id, const char *state, const char *job);
extern bool bulk_store_has(int64 id);
extern void bulk_store_forget_rows(int64 id);
extern void bulk_store_remove(int64 id);

typedef struct BulkStored
{
	int64 id;
	int mapping;
	char *server;
	char *operation;
	char *job;
	char *state;
	TimestampTz closed_at;
} BulkStored;

/* All jobs, by id; and the rows of one, as units in flight. */
extern BulkStored *bulk_stored_jobs(int *n);
extern void bulk_stored_rows(Delivery *delivery, BulkJob *job);

#endif /* SFSYNC_BULK_JOB_H */
