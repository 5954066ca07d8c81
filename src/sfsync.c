/*
 * sfsync.c
 *		Entry point of the library: settings, hooks, the launcher, and the one
 *		pair of transaction callbacks.
 */
#include "compat.h"

#include <limits.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "capture.h"
#include "datum.h"
#include "follow.h"
#include "launcher.h"
#include "mapping.h"
#include "sfsync.h"
#include "shmem.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

bool sfsync_enabled = true;
bool sfsync_capture_enabled = true;
int sfsync_request_timeout = 120 * 1000;
int sfsync_connect_timeout = 10 * 1000;
int sfsync_max_attempts = 10;
int sfsync_retry_base_delay = 1000;
int sfsync_retry_max_delay = 10 * 60 * 1000;
int sfsync_schema_ttl = 15 * 60 * 1000;
char *sfsync_environment = NULL;
int sfsync_history_level = HISTORY_FAILURES;
int sfsync_history_retention = 7 * 24 * 60 * 60;
int sfsync_dead_letter_retention = 0;

static const struct config_enum_entry history_levels[] = {{"off", HISTORY_OFF, false},
														  {"failures", HISTORY_FAILURES, false},
														  {"all", HISTORY_ALL, false},
														  {NULL, 0, false}};

static void
define_settings(void)
{
	DefineCustomBoolVariable("sfsync.enabled",
							 "Whether changes are delivered; capture goes on when they are not.", NULL,
							 &sfsync_enabled, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("sfsync.capture", "Whether changes of mapped tables are captured.",
							 "Off, also with SET LOCAL, for loads that must not reach Salesforce.",
							 &sfsync_capture_enabled, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("sfsync.request_timeout", "Time that one request to Salesforce may take.", NULL,
							&sfsync_request_timeout, 120 * 1000, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL,
							NULL, NULL);
	DefineCustomIntVariable("sfsync.connect_timeout", "Time that connecting to Salesforce may take.", NULL,
							&sfsync_connect_timeout, 10 * 1000, 100, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL,
							NULL, NULL);
	DefineCustomIntVariable("sfsync.max_attempts", "Attempts at a record before it becomes a dead letter.",
							"Failures of a request or of the server as a whole are not counted.",
							&sfsync_max_attempts, 10, 1, 1000, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"sfsync.retry_base_delay", "Longest wait before the first retry; it doubles from there.", NULL,
		&sfsync_retry_base_delay, 1000, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("sfsync.retry_max_delay", "Longest wait before any retry.", NULL,
							&sfsync_retry_max_delay, 10 * 60 * 1000, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable(
		"sfsync.schema_ttl", "Age from which cached metadata of Salesforce is asked for again.", NULL,
		&sfsync_schema_ttl, 15 * 60 * 1000, 1000, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable(
		"sfsync.environment",
		"Name of this environment; a server with another name in its option environment is fenced.", NULL,
		&sfsync_environment, "", PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable(
		"sfsync.history", "Which changes of rows are kept for sfsync.history once they are settled.",
		"Changes on their way, dead letters and conflicts are shown in any case.", &sfsync_history_level,
		HISTORY_FAILURES, history_levels, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("sfsync.history_retention",
							"Age from which the log behind sfsync.history is removed.",
							"0 keeps it for ever.", &sfsync_history_retention, 7 * 24 * 60 * 60, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("sfsync.dead_letter_retention",
							"Age from which resolved and discarded dead letters are removed.",
							"0 keeps them for ever.", &sfsync_dead_letter_retention, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	MarkGUCPrefixReserved("sfsync");
}

static void
xact_callback(XactEvent event, void *arg)
{
	capture_at_xact(event);
	shmem_at_xact(event);
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid, SubTransactionId parentSubid, void *arg)
{
	capture_at_subxact(event);
}

void
_PG_init(void)
{
	/* pg_upgrade loads the library into a server that must change nothing */
	if (IsBinaryUpgrade)
		return;

	define_settings();
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
	mapping_init();
	capture_init();
	follow_init();

	if (process_shared_preload_libraries_in_progress)
	{
		shmem_install();
		launcher_install();
	}
}

Oid
sfsync_relation(const char *name)
{
	Oid schema = get_namespace_oid(SFSYNC_SCHEMA, true);

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

/* Owner of the extension; there is no lookup function for it in the server. */
static Oid
extension_owner(void)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	Oid owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(SFSYNC_EXTENSION));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!OidIsValid(owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("extension \"%s\" is not installed in this database", SFSYNC_EXTENSION)));
	return owner;
}

static void
enter(Oid userid, int flags, OwnerContext *saved)
{
	GetUserIdAndSecContext(&saved->userid, &saved->sec_context);
	SetUserIdAndSecContext(userid, saved->sec_context | flags);
	saved->read_only = XactReadOnly;
	saved->nest_level = NewGUCNestLevel();
	datum_fix_settings();
}

void
sfsync_enter_owner(OwnerContext *saved)
{
	enter(extension_owner(), SECURITY_LOCAL_USERID_CHANGE, saved);
}

void
sfsync_enter_user(Oid userid, OwnerContext *saved)
{
	enter(userid, SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION, saved);
	XactReadOnly = true; /* an abort of the (sub)transaction undoes it, too */
}

void
sfsync_leave(const OwnerContext *saved)
{
	XactReadOnly = saved->read_only;
	AtEOXact_GUC(false, saved->nest_level);
	SetUserIdAndSecContext(saved->userid, saved->sec_context);
}
