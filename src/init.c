/*
 * init.c
 *		Entry point of the library: settings, hooks, the launcher, and the one
 *		pair of transaction callbacks.
 */
#include "compat.h"

#include <limits.h>

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "capture.h"
#include "follow.h"
#include "launcher.h"
#include "mapping.h"
#include "sfsync.h"
#include "shmem.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

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
