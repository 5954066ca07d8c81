/*
 * history.h
 *		What happened to single rows: the log that settling appends to, and
 *		removing what is old.
 */
#ifndef SFSYNC_HISTORY_H
#define SFSYNC_HISTORY_H

#include "mapping.h"
#include "outcome.h"

/* Within settling, before the queue's rows are deleted: the events that the level asks for. */
extern void history_captured(const Mapping *mapping, const Outcome *outcomes, int n);

/* Within settling, when all else is written: what became of them. */
extern void history_settled(const Mapping *mapping, const Outcome *outcomes, int n);

/* A person did something about a dead letter. */
extern void history_repair(int64 dead_letter, const char *event);

/* Worker: remove what is older than the settings say, now and then, in transactions of its own. */
extern void history_upkeep(void);

#endif /* SFSYNC_HISTORY_H */
