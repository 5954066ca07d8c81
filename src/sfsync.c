/*
 * sfsync.c
 *		What all modules of the server side share: values of settings, and
 *		working as the extension's owner.
 */
#include "compat.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "datum.h"
#include "sfsync.h"

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
						errmsg("extension \"%s\" is not installed in this database", SFSYNC_EXTENSION),
						errdetail("Its tables are not there."),
						errhint("Use: CREATE EXTENSION %s", SFSYNC_EXTENSION)));
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
