/*
 * enqueue.h
 *		The transaction's buffer of captured changes goes into the queue.
 */
#ifndef SFSYNC_ENQUEUE_H
#define SFSYNC_ENQUEUE_H

#include "notes.h"

/* Before commit or prepare: all notes, of this many bytes; mappings: those that there are deletes of. */
extern void enqueue_notes(int64 bytes, const NotedMapping *mappings, int nmappings);

/* A relation, or all when InvalidOid, may have changed. */
extern void enqueue_invalidate(Oid relid);

#endif /* SFSYNC_ENQUEUE_H */
