/*
 * capture.h
 *		What others need of capture: triggers, and the transaction's buffer of
 *		events.
 */
#ifndef SFSYNC_CAPTURE_H
#define SFSYNC_CAPTURE_H

#include "access/xact.h"
#include "batch.h"
#include "nodes/parsenodes.h"

/* In the transaction callbacks: what was captured goes into the queue, or is cut off. */
extern void capture_at_xact(XactEvent event);
extern void capture_at_subxact(SubXactEvent event);

/* Once, in _PG_init: partitions that are dropped are seen by a hook. */
extern void capture_init(void);

/* In the event trigger: a partition may have come or gone. */
extern void capture_altered_table(const AlterTableStmt *statement);

/* A relation, or all when InvalidOid, may have changed. */
extern void capture_invalidate(Oid relid);

/* The current transaction's events so far, in their order. */
typedef void (*CaptureFunction)(const WorkEvent *event, void *arg);
extern void capture_each(CaptureFunction show, void *arg);

/* Names of the triggers that create_mapping attaches. */
#define CAPTURE_TRIGGER "sfsync_capture"
#define TRUNCATE_TRIGGER "sfsync_truncate"

#endif /* SFSYNC_CAPTURE_H */
