/*
 * outcome.h
 *		What became of a unit, as replies tell and settling writes it.
 */
#ifndef SFSYNC_OUTCOME_H
#define SFSYNC_OUTCOME_H

#include "batch.h"
#include "conflict.h"
#include "reconcile.h"
#include "rest.h"
#include "utils/timestamp.h"

typedef enum OutcomeKind
{
	OUTCOME_SYNCED,
	OUTCOME_DELETED,
	OUTCOME_UNCHANGED,
	OUTCOME_CONFLICT, /* Salesforce's stays, nothing is written */
	OUTCOME_IGNORED,
	OUTCOME_DISCARDED, /* the mapping is gone, or a person has given the change up */
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

#endif /* SFSYNC_OUTCOME_H */
