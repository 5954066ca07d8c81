/*
 * lock.c
 *		Locks on mapped tables, and on mappings.
 */
#include "compat.h"

#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "lock.h"
#include "sfsync.h"

static bool may_wait = true;

bool
lock_set_waiting(bool wait)
{
	bool was = may_wait;

	may_wait = wait;
	return was;
}

bool
lock_may_wait(void)
{
	return may_wait;
}

bool
lock_table(Oid table)
{
	if (!may_wait)
		return ConditionalLockRelationOid(table, AccessShareLock);
	LockRelationOid(table, AccessShareLock);
	return true;
}

/* A statement that reads the table locks all partitions that the planner doesn't know to be of no use. */
Oid
lock_all(Oid source)
{
	ListCell *lc;

	if (!ConditionalLockRelationOid(source, AccessShareLock))
		return source;
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(source)))
		return InvalidOid; /* dropped: whoever reads the mapping again is told so */
	foreach(lc, find_all_inheritors(source, NoLock, NULL))
		if (lfirst_oid(lc) != source && !ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock))
			return lfirst_oid(lc);
	return InvalidOid;
}

/* As an object of the database: pg_locks shows the table of mappings as classid, the id as objid. */
bool
lock_mapping(int id, LOCKMODE mode, bool wait)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, sfsync_relation("mapping"), (Oid) id, 0);
	if (LockAcquire(&tag, mode, false, !wait) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	AcceptInvalidationMessages();
	return true;
}

char *
lock_table_name(Oid table)
{
	char *name = get_rel_name(table);

	return name ? quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), name)
				: psprintf("with oid %u", table);
}
