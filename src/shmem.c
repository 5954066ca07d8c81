/*
 * shmem.c
 *		Shared memory: one slot a database with a worker, and waking it.
 *
 * A slot lives while a database has a worker, waits for one, or must not get
 * one.  That a database has no extension is remembered by its slot only until
 * the launcher has read it.
 */
#include "compat.h"

#include <signal.h>

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"

#include "sfsync.h"
#include "shmem.h"

#define SPARE_SLOTS 64

typedef struct Slot
{
	Oid database;
	SlotState state;
	int keep_away; /* statements that want no worker here */
	bool leave;    /* the worker is to make room for another */
	bool found_absent;
	int procno; /* of the worker; -1 none */
	pg_atomic_uint32 woken;
} Slot;

typedef struct Shared
{
	LWLock *lock;
	pg_atomic_uint32 launcher; /* its process number + 1; 0 none */
	int nslots;
	Slot slots[FLEXIBLE_ARRAY_MEMBER];
} Shared;

static Shared *shared = NULL;
static Slot *my_slot = NULL; /* the worker's own */
static bool wake_pending = false;
static bool start_pending = false;
static bool launcher_pending = false;
static bool restart_pending = false;
static List *kept_away = NIL; /* databases, by this transaction */

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static int
slot_count(void)
{
	return max_worker_processes + SPARE_SLOTS;
}

static Size
shared_size(void)
{
	return add_size(offsetof(Shared, slots), mul_size(slot_count(), sizeof(Slot)));
}

static void
request_shmem(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("sfsync", 1);
}

static void
startup_shmem(void)
{
	bool found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("sfsync", shared_size(), &found);
	if (!found)
	{
		memset(shared, 0, shared_size());
		shared->lock = &GetNamedLWLockTranche("sfsync")->lock;
		shared->nslots = slot_count();
		pg_atomic_init_u32(&shared->launcher, 0);
		for (int i = 0; i < shared->nslots; i++)
		{
			shared->slots[i].procno = -1;
			pg_atomic_init_u32(&shared->slots[i].woken, 0);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

bool
shmem_available(void)
{
	return shared != NULL;
}

bool
shmem_launcher_present(void)
{
	return shared && pg_atomic_read_u32(&shared->launcher) > 0;
}

static void
set_latch_of(int procno)
{
	SetLatch(&GetPGProcByNumber(procno)->procLatch);
}

/* Caller holds the lock. */
static Slot *
find_slot(Oid database)
{
	for (int i = 0; i < shared->nslots; i++)
		if (shared->slots[i].state != SLOT_FREE && shared->slots[i].database == database)
			return &shared->slots[i];
	return NULL;
}

SlotState
shmem_worker_state(void)
{
	SlotState state = SLOT_FREE;
	Slot *slot;

	if (!shared)
		return state;
	LWLockAcquire(shared->lock, LW_SHARED);
	slot = find_slot(MyDatabaseId);
	if (slot)
		state = slot->state;
	LWLockRelease(shared->lock);
	return state;
}

/* Caller holds the lock exclusively.  NULL when all are taken. */
static Slot *
find_or_make_slot(Oid database)
{
	Slot *slot = find_slot(database);

	if (slot)
		return slot;
	for (int i = 0; i < shared->nslots; i++)
	{
		slot = &shared->slots[i];
		if (slot->state != SLOT_FREE)
			continue;
		slot->database = database;
		slot->state = SLOT_REQUESTED;
		slot->keep_away = 0;
		slot->leave = false;
		slot->found_absent = false;
		slot->procno = -1;
		pg_atomic_write_u32(&slot->woken, 1);
		return slot;
	}
	return NULL;
}

/*
 * The flag makes one signal of a burst: who finds it set knows that the worker
 * has yet to look, and it clears the flag before it looks.
 */
static void
wake_worker(void)
{
	static int hint = 0; /* slots seldom move */

	LWLockAcquire(shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nslots; i++)
	{
		int at = (hint + i) % shared->nslots;
		Slot *slot = &shared->slots[at];

		if (slot->database != MyDatabaseId || slot->state != SLOT_RUNNING)
			continue;
		hint = at;
		if (pg_atomic_read_u32(&slot->woken) == 0 && pg_atomic_exchange_u32(&slot->woken, 1) == 0 &&
			slot->procno >= 0)
			set_latch_of(slot->procno);
		break;
	}
	LWLockRelease(shared->lock);
}

static void
wake_launcher(void)
{
	uint32 launcher;

	if (!shared)
		return;
	launcher = pg_atomic_read_u32(&shared->launcher);
	if (launcher > 0)
		set_latch_of(launcher - 1);
}

static void
request_worker(void)
{
	Slot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_or_make_slot(MyDatabaseId);
	if (slot)
	{
		if (slot->state == SLOT_KEPT)
			slot->state = SLOT_REQUESTED;
		slot->found_absent = false;
		pg_atomic_write_u32(&slot->woken, 1);
	}
	LWLockRelease(shared->lock);
	wake_launcher();
}

static void
dismiss_worker(void)
{
	Slot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(MyDatabaseId);
	if (slot && slot->state == SLOT_RUNNING && slot->procno >= 0)
	{
		slot->leave = true;
		set_latch_of(slot->procno);
	}
	LWLockRelease(shared->lock);
}

void
shmem_wake_at_commit(void)
{
	wake_pending = true;
}

void
shmem_start_at_commit(void)
{
	start_pending = true;
}

void
shmem_restart_worker_at_commit(void)
{
	restart_pending = true;
}

void
shmem_wake_launcher_at_commit(void)
{
	launcher_pending = true;
}

static void
let_in(Oid database)
{
	Slot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(database);
	if (slot && slot->keep_away > 0)
		slot->keep_away--;
	if (slot && slot->keep_away == 0 && slot->state == SLOT_KEPT)
		slot->state = SLOT_FREE;
	LWLockRelease(shared->lock);
	wake_launcher();
}

void
shmem_at_xact(XactEvent event)
{
	if (event == XACT_EVENT_ABORT)
		wake_pending = start_pending = launcher_pending = restart_pending = false;
}

/*
 * The last thing at the end of a transaction, when its invalidations are sent
 * and its locks are gone: whoever is woken here sees all that it did.  A
 * PREPARE wakes the worker too: from then on it looks for its end.
 */
static void
after_locks(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	ListCell *lc;

	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || !isTopLevel || !shared)
		return;
	if (isCommit && restart_pending)
		dismiss_worker();
	if (isCommit && wake_pending)
		wake_worker();
	if (isCommit && start_pending)
		request_worker();
	if (isCommit && launcher_pending)
		wake_launcher();
	wake_pending = start_pending = launcher_pending = restart_pending = false;
	foreach(lc, kept_away)
		let_in(lfirst_oid(lc));
	kept_away = NIL;
}

void
shmem_install(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	RegisterResourceReleaseCallback(after_locks, NULL);
}

static void
worker_detach(int code, Datum arg)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	my_slot->procno = -1;

	/* what must be known of the slot stays, for the launcher to read */
	my_slot->state = SLOT_REQUESTED;
	my_slot = NULL;
	LWLockRelease(shared->lock);
	wake_launcher();
}

bool
shmem_worker_attach(void)
{
	Slot *slot;
	bool attached = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_or_make_slot(MyDatabaseId);
	if (slot && slot->state != SLOT_RUNNING && slot->keep_away == 0)
	{
		slot->state = SLOT_RUNNING;
		slot->leave = false;
		slot->procno = MY_PROC_NUMBER;
		pg_atomic_write_u32(&slot->woken, 1);
		my_slot = slot;
		attached = true;
	}
	LWLockRelease(shared->lock);
	if (attached)
		before_shmem_exit(worker_detach, 0);
	return attached;
}

bool
shmem_worker_woken(void)
{
	return pg_atomic_exchange_u32(&my_slot->woken, 0) != 0;
}

bool
shmem_worker_must_leave(void)
{
	/* an int is read whole, and its writer sets our latch afterwards */
	return ((volatile Slot *) my_slot)->keep_away > 0 || ((volatile Slot *) my_slot)->leave;
}

/*
 * A CREATE EXTENSION that committed after the worker looked has set the flag
 * again: then the answer is out of date.
 */
bool
shmem_worker_absent(void)
{
	bool absent;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	absent = pg_atomic_read_u32(&my_slot->woken) == 0;
	my_slot->found_absent = absent;
	LWLockRelease(shared->lock);
	return absent;
}

static void
launcher_detach(int code, Datum arg)
{
	pg_atomic_write_u32(&shared->launcher, 0);
}

void
shmem_launcher_attach(void)
{
	pg_atomic_write_u32(&shared->launcher, MY_PROC_NUMBER + 1);
	before_shmem_exit(launcher_detach, 0);
}

SlotReport
shmem_report(Oid database, bool ended)
{
	SlotReport report = {SLOT_FREE, false, false};
	Slot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(database);
	if (slot)
	{
		report.state = slot->state;
		report.kept_away = slot->keep_away > 0;
		report.found_absent = slot->found_absent;
		if (ended && slot->found_absent && slot->state == SLOT_REQUESTED && slot->keep_away == 0)
			slot->state = SLOT_FREE;
	}
	LWLockRelease(shared->lock);
	return report;
}

bool
shmem_mark_starting(Oid database)
{
	Slot *slot;
	bool marked = false;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_or_make_slot(database);
	if (slot && slot->state == SLOT_REQUESTED && slot->keep_away == 0)
	{
		slot->state = SLOT_STARTING;
		marked = true;
	}
	LWLockRelease(shared->lock);
	return marked;
}

void
shmem_mark_ended(Oid database)
{
	Slot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(database);
	if (slot && slot->state == SLOT_STARTING)
		slot->state = SLOT_REQUESTED;
	LWLockRelease(shared->lock);
}

void
shmem_forget(Oid database)
{
	Slot *slot;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(database);
	if (slot && slot->state == SLOT_REQUESTED && slot->keep_away == 0)
		slot->state = SLOT_FREE;
	LWLockRelease(shared->lock);
}

void
shmem_keep_away(Oid database, int patience)
{
	TimestampTz start = GetCurrentTimestamp();
	Slot *slot;
	MemoryContext caller;
	bool canceled = false;

	if (!shared)
		return;
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	slot = find_slot(database);
	if (!slot && (slot = find_or_make_slot(database)) != NULL)
		slot->state = SLOT_KEPT;
	if (slot)
		slot->keep_away++;
	LWLockRelease(shared->lock);
	if (!slot)
		return;
	caller = MemoryContextSwitchTo(TopTransactionContext);
	kept_away = lappend_oid(kept_away, database);
	MemoryContextSwitchTo(caller);

	/*
	 * The worker leaves within a moment of its latch.  A worker that is just
	 * starting looks for keep_away when it attaches; the server itself waits
	 * five seconds for a process to leave a database.  One that waits for a lock
	 * of this very transaction is told to give up, lest they wait for each other.
	 */
	for (;;)
	{
		bool late = patience >= 0 && TimestampDifferenceExceeds(start, GetCurrentTimestamp(), patience);
		int procno;

		LWLockAcquire(shared->lock, LW_SHARED);
		procno = slot->state == SLOT_RUNNING ? slot->procno : -1;
		if (procno >= 0 && late && !canceled)
			kill(GetPGProcByNumber(procno)->pid, SIGINT);
		LWLockRelease(shared->lock);
		if (procno < 0 || (late && canceled))
			break;
		if (late)
		{
			canceled = true;
			start = GetCurrentTimestamp();
		}
		set_latch_of(procno);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}
