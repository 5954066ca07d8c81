/*
 * lock.h
 *		Locks on mapped tables, and on mappings.
 *
 * A session waits for a table as for any other.  The worker serves all mappings
 * and waits for none: it takes what is free, and comes back for the rest.
 */
#ifndef SFSYNC_LOCK_H
#define SFSYNC_LOCK_H

#include "storage/lockdefs.h"

/* Are mapped tables waited for in this process?  Returns what it was. */
extern bool lock_set_waiting(bool wait);
extern bool lock_may_wait(void);

/* Lock a table, not its partitions, for reading; false if that would mean to wait where we don't. */
extern bool lock_table(Oid table);

/*
 * Without waiting lock a mapped table and its partitions for reading, until the
 * end of the transaction.  InvalidOid; or the table that somebody else holds.
 */
extern Oid lock_all(Oid source);

/*
 * Lock a mapping until the end of the transaction: in AccessShareLock by whoever
 * writes rows of it, which else would be left behind, and in AccessExclusiveLock
 * to drop it.  False if that would mean to wait, and wait isn't set.  Who locks
 * the table, too, as a session's change does, locks that first; rows come last.
 */
extern bool lock_mapping(int id, LOCKMODE mode, bool wait);

/* The name of a table for messages, qualified and quoted; palloc'd. */
extern char *lock_table_name(Oid table);

#endif /* SFSYNC_LOCK_H */
