/*
 * launcher.c
 *		Keeps a sync worker in each database that has the extension.
 *
 * The launcher can read shared catalogs only, so it can't see whether a
 * database has the extension: it starts a worker there, which leaves at once
 * when it finds none.  That is asked once a database; after that CREATE
 * EXTENSION requests a worker itself.  Only one such probe runs at a time, so
 * that a cluster of many databases doesn't use up max_worker_processes.
 */
#include "compat.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "launcher.h"
#include "sfsync.h"
#include "shmem.h"

#define NAP_MS 60000 /* heals a lost wake-up; sees databases made otherwise */
#define RESTART_MIN_MS 1000
#define RESTART_MAX_MS 60000

/* What the launcher remembers of a database. */
typedef struct Database
{
	Oid oid;                        /* hash key */
	bool absent;                    /* it was looked into: no extension */
	bool seen;                      /* by the current scan of pg_database */
	BackgroundWorkerHandle *handle; /* NULL: none started */
	bool proved;                    /* its worker has been seen running */
	int failures;                   /* in a row */
	bool starved;                   /* there was no slot for its worker */
	TimestampTz next_start;
} Database;

extern PGDLLEXPORT void sfsync_launcher_main(Datum arg);

static bool slot_is_free = false; /* a worker of ours has ended since a look for the starved */
static ProcessUtility_hook_type previous_utility_hook = NULL;
static object_access_hook_type previous_access_hook = NULL;

static HTAB *
make_table(void)
{
	HASHCTL ctl = {0};

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(Database);
	ctl.hcxt = TopMemoryContext;
	return hash_create("sfsync databases", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static void
forget_missing(HTAB *databases)
{
	HASH_SEQ_STATUS scan;
	Database *database;

	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
	{
		if (database->seen || database->handle)
			continue;
		shmem_forget(database->oid);
		(void) hash_search(databases, &database->oid, HASH_REMOVE, NULL);
	}
}

/* Bring the table up to date with pg_database; templates stay out. */
static void
scan_databases(HTAB *databases)
{
	HASH_SEQ_STATUS all;
	Database *database;
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;

	hash_seq_init(&all, databases);
	while ((database = hash_seq_search(&all)) != NULL)
		database->seen = false;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		bool found;

		if (!form->datallowconn || form->datistemplate)
			continue;
		database = hash_search(databases, &form->oid, HASH_ENTER, &found);
		if (!found)
			memset((char *) database + sizeof(Oid), 0, sizeof(Database) - sizeof(Oid));
		database->seen = true;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	forget_missing(databases);
}

/* Has a worker that was started ended?  Then decide when the next may come. */
static void
reap(Database *database, TimestampTz now)
{
	pid_t pid;
	BgwHandleStatus status;
	SlotReport report;

	if (!database->handle)
		return;
	status = GetBackgroundWorkerPid(database->handle, &pid);
	report = shmem_report(database->oid, status == BGWH_STOPPED);
	if (report.state == SLOT_RUNNING)
	{
		database->proved = true;
		database->absent = false;
	}
	if (status != BGWH_STOPPED)
		return;
	pfree(database->handle);
	database->handle = NULL;
	slot_is_free = true;
	if (report.found_absent)
	{
		database->absent = true;
		database->failures = 0;
		return;
	}
	shmem_mark_ended(database->oid);
	if (database->proved && !report.kept_away)
		database->failures = 0;
	database->proved = false;
	if (!report.kept_away)
		database->next_start = TimestampTzPlusMilliseconds(
			now, Min(RESTART_MIN_MS << Min(database->failures, 6), RESTART_MAX_MS));
	database->failures++;
}

static bool
wants_worker(Database *database, TimestampTz now)
{
	SlotReport report;

	if (database->handle || !database->seen || now < database->next_start)
		return false;
	report = shmem_report(database->oid, true);
	if (report.kept_away || report.state == SLOT_RUNNING || report.state == SLOT_STARTING)
		return false;
	if (report.state == SLOT_REQUESTED)
		return !report.found_absent;
	return !database->absent;
}

static void
start_worker(Database *database, TimestampTz now)
{
	static bool complained = false;
	BackgroundWorker worker = {0};

	if (!shmem_mark_starting(database->oid))
		return;
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART; /* the launcher starts it again */
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = ObjectIdGetDatum(database->oid);
	strlcpy(worker.bgw_library_name, SFSYNC_LIBRARY, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "sfsync_worker_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "sfsync worker for database %u", database->oid);
	strlcpy(worker.bgw_type, "sfsync worker", BGW_MAXLEN);

	database->starved = !RegisterDynamicBackgroundWorker(&worker, &database->handle);
	if (!database->starved)
	{
		complained = false;
		return;
	}
	database->handle = NULL;
	shmem_mark_ended(database->oid);
	database->next_start = TimestampTzPlusMilliseconds(now, RESTART_MAX_MS);
	if (!complained)
		ereport(
			WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("could not start an sfsync worker: no background worker slot is free"),
			 errdetail("Changes are captured and wait in the queue; another attempt follows in a minute."),
			 errhint("Consider increasing the configuration parameter \"max_worker_processes\".")));
	complained = true;
}

/* Start what is to be started; returns milliseconds until there is more to do. */
static long
turn(HTAB *databases)
{
	HASH_SEQ_STATUS scan;
	Database *database;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = TimestampTzPlusMilliseconds(now, NAP_MS);
	bool probing = false;

	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
	{
		reap(database, now);
		if (database->handle && !database->proved)
			probing = true;
	}
	hash_seq_init(&scan, databases);
	while ((database = hash_seq_search(&scan)) != NULL)
	{
		if (database->starved && slot_is_free)
			database->next_start = now;
		if (!database->handle && database->next_start > now)
			next = Min(next, database->next_start);
		if (probing || !wants_worker(database, now))
			continue;
		start_worker(database, now);
		probing = database->handle != NULL;
	}
	if (!probing)
		slot_is_free = false;

	/* the postmaster tells of starts and ends; a worker's attaching is looked for */
	return probing ? 100 : Max(TimestampDifferenceMilliseconds(now, next), 10);
}

void
sfsync_launcher_main(Datum arg)
{
	HTAB *databases;
	uint32 wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	shmem_launcher_attach();
	databases = make_table();
	wait_event = NAMED_WAIT_EVENT("SfsyncLauncher");
	for (;;)
	{
		long wait;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		scan_databases(databases);
		wait = turn(databases);
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait, wait_event);
		ResetLatch(MyLatch);
	}
}

/*
 * The database whose last process a statement needs gone; InvalidOid if the
 * statement is none of those.
 */
static Oid
database_to_clear(Node *statement)
{
	ListCell *lc;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return get_database_oid(((DropdbStmt *) statement)->dbname, true);
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				return get_database_oid(((RenameStmt *) statement)->subname, true);
			break;
		case T_AlterDatabaseStmt:
			foreach(lc, ((AlterDatabaseStmt *) statement)->options)
				if (strcmp(((DefElem *) lfirst(lc))->defname, "tablespace") == 0)
					return get_database_oid(((AlterDatabaseStmt *) statement)->dbname, true);
			break;
		case T_CreatedbStmt:
			foreach(lc, ((CreatedbStmt *) statement)->options)
				if (strcmp(((DefElem *) lfirst(lc))->defname, "template") == 0 &&
					((DefElem *) lfirst(lc))->arg != NULL)
					return get_database_oid(defGetString(lfirst(lc)), true);
			break;
		default:
			break;
	}
	return InvalidOid;
}

static void
run_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree, ProcessUtilityContext context,
			ParamListInfo params, QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	if (previous_utility_hook)
		previous_utility_hook(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
}

static void
utility_hook(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree, ProcessUtilityContext context,
			 ParamListInfo params, QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Oid database = database_to_clear(pstmt->utilityStmt);

	/* the session's own database can be copied, all else is refused */
	if (!OidIsValid(database) || (database == MyDatabaseId && !IsA(pstmt->utilityStmt, CreatedbStmt)))
	{
		run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);

		/* a new database may have the extension from its template, or a template may be none any more */
		if (IsA(pstmt->utilityStmt, CreatedbStmt) || IsA(pstmt->utilityStmt, AlterDatabaseStmt))
			shmem_wake_launcher_at_commit();
		return;
	}
	shmem_keep_away(database, -1);
	run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
}

/* However the extension is dropped, its worker looks when that has committed. */
static void
access_hook(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (previous_access_hook)
		previous_access_hook(access, classId, objectId, subId, arg);
	if (access == OAT_DROP && classId == ExtensionRelationId)
		shmem_wake_at_commit();
}

void
launcher_install(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, SFSYNC_LIBRARY, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "sfsync_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "sfsync launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "sfsync launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);

	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = utility_hook;
	previous_access_hook = object_access_hook;
	object_access_hook = access_hook;
}
