/*
 * queue_row.h
 *		Rows of the queue that hold several events.
 *
 * Events of one transaction that follow each other and differ in key and time
 * only, as those of a statement on many rows do, share a row: key and event_at
 * are the first one's, more_keys and more_at those of the others, whose n
 * follow on the row's.  No two rows of a transaction overlap.  One with an old
 * key is alone in its row.  The view sfsync.queued shows one event a line.
 *
 * The row is deleted as soon as one of its events is settled; those that are
 * not are put back in rows of their own, with their xid and n.
 */
#ifndef SFSYNC_QUEUE_ROW_H
#define SFSYNC_QUEUE_ROW_H

#define QUEUE_ROW_EVENTS 128 /* at most */

/* The row q that event r, of columns xid and n, is in if it has r: one lookup, of the index. */
#define QUEUE_ROW                                                                                            \
	"(SELECT *, ctid AS at FROM sfsync.queue WHERE xid = r.xid AND n <= r.n"                                 \
	" AND n > r.n - " CppAsString2(QUEUE_ROW_EVENTS) " ORDER BY n DESC LIMIT 1) q"
#define QUEUE_ROW_HAS "r.n <= q.n + coalesce(pg_catalog.cardinality(q.more_keys), 0)"

/* Insert the events e of rows g that are deleted by the same statement, each in a row of its own. */
#define QUEUE_PUT_BACK                                                                                                \
	"INSERT INTO sfsync.queue (xid, event_at, n, mapping, operation, key, old_key, changed, actor)"                   \
	" SELECT g.xid, e.at, e.n, g.mapping, g.operation, e.key, g.old_key, g.changed, g.actor FROM gone g"              \
	" CROSS JOIN LATERAL (SELECT g.n AS n, g.key AS key, g.event_at AS at UNION ALL SELECT g.n + i::integer, key, at" \
	" FROM unnest(g.more_keys, g.more_at) WITH ORDINALITY AS u(key, at, i)) e"

#endif /* SFSYNC_QUEUE_ROW_H */
