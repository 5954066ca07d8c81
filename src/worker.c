/*
 * worker.c
 *		The sync worker: one process a database that has the extension.
 *
 * It waits in one place, on its latch and on the one descriptor that stands
 * for all of libcurl's sockets and timers, and looks for interrupts after each
 * wait, also while requests hang: shutdown, reload and the barriers that DROP
 * DATABASE of any database waits for are served at once.
 */
#include "compat.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "bulk_job.h"
#include "connection.h"
#include "datum.h"
#include "history.h"
#include "http.h"
#include "intents.h"
#include "lock.h"
#include "sfsync.h"
#include "shmem.h"
#include "turn.h"

#define NAP_MS 60000 /* heals a lost wake-up */
#define ERROR_PAUSE_MS 1000
#define IDLE_LOOK_MS 100

extern PGDLLEXPORT void sfsync_worker_main(Datum arg);

static Oid
extension_oid(void)
{
	Oid oid;

	StartTransactionCommand();
	oid = get_extension_oid(SFSYNC_EXTENSION, true);
	CommitTransactionCommand();
	return oid;
}

/*
 * Is the extension that the worker was started for still there?  One that was
 * dropped and made again has other mappings under the same numbers: that is
 * for another worker, with nothing at hand.
 */
static bool
must_leave(Oid extension)
{
	Oid now = extension_oid();

	if (!OidIsValid(now))
		return shmem_worker_absent();
	return now != extension;
}

static void
set(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

/*
 * Settings that the database or role may have otherwise.  The plans are fixed:
 * queue tables are analysed when empty as often as when full, and each
 * statement has the one index it is meant to use.
 */
static void
fix_session(void)
{
	set("search_path", "pg_catalog, pg_temp");
	set("default_transaction_isolation", "read committed");
	set("default_transaction_read_only", "off");
	set("default_transaction_deferrable", "off");
	set("statement_timeout", "0");
	set("lock_timeout", "0");
	set("idle_in_transaction_session_timeout", "0");
	set("session_replication_role", "origin");
	set("row_security", "on");
	set("enable_seqscan", "off");
	set("enable_bitmapscan", "off");
	set("enable_mergejoin", "off");
	set("enable_hashjoin", "off");
	set("jit", "off");

	/* who waits for it waits longer, so it is the worker, who tries again, that a deadlock strikes */
	set("deadlock_timeout", psprintf("%dms", Max(DeadlockTimeout / 2, 1)));
}

static void
leave(int code, Datum arg)
{
	http_destroy((HttpClient *) DatumGetPointer(arg));
}

static HttpClient *
start_http(void)
{
	HttpClient *http = http_create();

	if (!http)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not start the HTTP client")));
	before_shmem_exit(leave, PointerGetDatum(http));
	return http;
}

/*
 * Requests of a worker before this one: nobody knows whether they were applied.
 * Of its bulk jobs Salesforce knows.
 */
static void
take_up_work(Delivery *delivery)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	intents_of_dead_worker();
	bulk_jobs_restore(delivery);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static long
turn(Delivery *delivery, bool woken)
{
	volatile long wait = ERROR_PAUSE_MS;

	PG_TRY();
	{
		wait = turn_take(delivery, woken);
		history_upkeep();
	}
	PG_CATCH();
	{
		/* that someone configured at the same moment is no error: it is done again */
		if (geterrcode() != ERRCODE_T_R_SERIALIZATION_FAILURE)
			EmitErrorReport();
		FlushErrorState();
		if (IsTransactionState())
			AbortCurrentTransaction();
		turn_recover(delivery);
	}
	PG_END_TRY();
	return wait;
}

static uint32 wait_work;       /* for something to do, or for the time to do it */
static uint32 wait_salesforce; /* for replies */

/* True when settings were read again, or a nap is over: look, whatever was told. */
static bool
wait_for_work(HttpClient *http, long wait)
{
	bool nap = wait < 0 || wait > NAP_MS;
	int events;

	pgstat_report_activity(STATE_IDLE, NULL);
	events = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							   http_wait_fd(http), nap ? NAP_MS : wait,
							   http_in_flight(http) > 0 ? wait_salesforce : wait_work);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		connections_mark_stale();
		return true;
	}
	return nap && (events & WL_TIMEOUT) != 0;
}

/*
 * Commits of mapped tables wake the worker also while nothing can be delivered
 * (all paused, or the server away): then it looks at most every so often, lest
 * busy writers pay for a worker that finds nothing to do.
 */
static TimestampTz
earliest_turn(const Delivery *delivery, TimestampTz last)
{
	return delivery_possible(delivery) ? 0 : TimestampTzPlusMilliseconds(last, IDLE_LOOK_MS);
}

static void
loop(HttpClient *http, Oid extension)
{
	Delivery *delivery = delivery_create(http);
	TimestampTz next = 0; /* of the next turn; 0: when something happens */
	TimestampTz last = 0;
	bool look = true;

	take_up_work(delivery);
	while (!shmem_worker_must_leave())
	{
		bool replied = turn_replies(delivery);
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz hold = replied || look ? 0 : earliest_turn(delivery, last);
		bool woken;
		long wait = -1;

		if (now < hold)
		{
			look = wait_for_work(http, TimestampDifferenceMilliseconds(now, hold));
			continue;
		}
		woken = shmem_worker_woken() || look;
		if (woken && must_leave(extension))
			break;
		if (woken || replied || (next != 0 && next <= now))
		{
			pgstat_report_activity(STATE_RUNNING, "sfsync: delivering changes");
			wait = turn(delivery, woken);
			if (connections_fence_lifted())
				break;
			last = GetCurrentTimestamp();
			next = wait < 0 ? 0 : TimestampTzPlusMilliseconds(last, wait);
			pgstat_report_stat(true);
		}
		else if (next != 0)
			wait = TimestampDifferenceMilliseconds(now, next);
		look = wait_for_work(http, wait);
	}
}

void
sfsync_worker_main(Datum arg)
{
	Oid extension;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	fix_session();
	(void) lock_set_waiting(false);
	wait_work = NAMED_WAIT_EVENT("SfsyncWork");
	wait_salesforce = NAMED_WAIT_EVENT("SfsyncSalesforce");
	if (!shmem_worker_attach())
		proc_exit(0);
	(void) shmem_worker_woken();
	extension = extension_oid();
	if (OidIsValid(extension))
		loop(start_http(), extension);
	else
		(void) shmem_worker_absent();
	proc_exit(0);
}
