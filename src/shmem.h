/*
 * shmem.h
 *		Shared memory: one slot a database with a worker, and waking it.
 *
 * Only integers and atomics live there (never pointers into a process): a
 * stale process number costs one spurious wake-up.
 */
#ifndef SFSYNC_SHMEM_H
#define SFSYNC_SHMEM_H

#include "access/xact.h"

typedef enum SlotState
{
	SLOT_FREE,
	SLOT_KEPT,      /* no worker was wanted; one must not come now */
	SLOT_REQUESTED, /* a worker should look into the database */
	SLOT_STARTING,  /* registered by the launcher */
	SLOT_RUNNING
} SlotState;

/* In _PG_init under shared_preload_libraries: reserve and attach. */
extern void shmem_install(void);

/* Is the library preloaded, so that there can be workers? */
extern bool shmem_available(void);

/* For health: is the launcher there, and what of this database's worker? */
extern bool shmem_launcher_present(void);
extern SlotState shmem_worker_state(void);

/* Wake this database's worker when the current transaction has committed. */
extern void shmem_wake_at_commit(void);

/* Have the launcher start a worker for this database, at commit. */
extern void shmem_start_at_commit(void);

/* Have this database's worker make room for another, which has nothing at hand, at commit. */
extern void shmem_restart_worker_at_commit(void);

/* Have the launcher look for new databases, at commit. */
extern void shmem_wake_launcher_at_commit(void);

/* In the transaction callback. */
extern void shmem_at_xact(XactEvent event);

/* Worker: take and leave the database's slot.  False if another worker has it. */
extern bool shmem_worker_attach(void);

/* Worker: has it been woken, or told to leave?  Resets the former. */
extern bool shmem_worker_woken(void);
extern bool shmem_worker_must_leave(void);

/* Launcher. */
extern void shmem_launcher_attach(void);

/* What the launcher needs to know of a database. */
typedef struct SlotReport
{
	SlotState state;
	bool kept_away;
	bool found_absent;
} SlotReport;

/*
 * ended: no worker is left there.  What the last one found is told then for the
 * last time, so it must not be asked for before.
 */
extern SlotReport shmem_report(Oid database, bool ended);
extern bool shmem_mark_starting(Oid database);
extern void shmem_mark_ended(Oid database);

/* The database is gone. */
extern void shmem_forget(Oid database);

/*
 * Worker: the database doesn't have the extension.  False if it may have got it
 * since shmem_worker_woken was asked: look again.
 */
extern bool shmem_worker_absent(void);

/*
 * Keep workers out of a database for a statement that can't bear one, until
 * the transaction ends.  Returns when none is left there, or patience (in
 * milliseconds; -1 without end) is over.
 */
extern void shmem_keep_away(Oid database, int patience);

#endif /* SFSYNC_SHMEM_H */
