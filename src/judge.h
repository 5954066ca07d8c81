/*
 * judge.h
 *		Joins what is known of a row's record (the row, its events, what
 *		Salesforce holds, what is remembered) into what is written of it.
 */
#ifndef SFSYNC_JUDGE_H
#define SFSYNC_JUDGE_H

#include "batch.h"
#include "intents.h"
#include "mapping.h"
#include "outcome.h"
#include "reconcile.h"
#include "rest.h"
#include "source.h"

/* Fields to be read of a mapping's records; own copies. */
extern char **judge_fields(const Mapping *mapping, int *n);

typedef struct JudgeCase
{
	const Mapping *mapping;
	const Unit *unit;
	const SourceRow *row;
	const RestRead *read;
	char *const *fields; /* that were read, in the order of read->values */
	int nfields;
	const char *our_user; /* Id of the integration user; NULL unknown */
	int64 clock_skew;     /* Salesforce's clock less ours */
	const IntentRow *intents;
	int nintents;
	const char **parent_ids; /* by field of the mapping: Id of the parent's record; NULL unknown */
	const RestChange *history;
	int nhistory;
	char *const *history_fields;
	const RestField *replaced; /* what the delete policy replaced */
	int nreplaced;
} JudgeCase;

typedef struct Judgement
{
	bool good; /* else a value can't be coerced: error */
	RestError error;
	RestRecord record; /* what is written; fields alone */
	bool guarded;      /* only if nobody was faster */
	bool memory_changed;
	bool kept_by_time; /* something was kept though it may be older than the event: history would tell */
} Judgement;

/*
 * Of a record that is there: fields to write, conflicts, memory.  outcome gets
 * the latter two; its memory must be set.
 */
extern Judgement judge_update(const JudgeCase *judged, Outcome *outcome);

/* Of one that is made: all of it is ours then. */
extern void judge_create(const JudgeCase *judged, const RestRecord *record, Outcome *outcome);

/* The delete policy's fields, of a record that is there; values that they replace go to outcome->replaced. */
extern Judgement judge_archive(const JudgeCase *judged, const RestRecord *values, Outcome *outcome);

/* May a delete not be sent, since someone else changed the record after it?  Then the outcome says so. */
extern bool judge_edited(const JudgeCase *judged, Outcome *outcome);

/* May a record that is gone not be made anew?  Then the outcome says so.  gone: what became of it. */
extern bool judge_gone(const JudgeCase *judged, const RestRead *gone, Outcome *outcome);

#endif /* SFSYNC_JUDGE_H */
