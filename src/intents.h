/*
 * intents.h
 *		Statements on sfsync.intent: what requests under way, or of unknown
 *		outcome, may have written.
 *
 * All functions run inside the caller's transaction.
 */
#ifndef SFSYNC_INTENTS_H
#define SFSYNC_INTENTS_H

#include "utils/timestamp.h"

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

/* Queue records of these mappings' intents unknown since before then again.  Time of the next, 0 if none. */
extern TimestampTz intents_verify(TimestampTz before, const int32 *mappings, int n);

#endif /* SFSYNC_INTENTS_H */
