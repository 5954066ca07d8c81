/*
 * lock.c
 *		Locks on mapped tables.
 */
#include "compat.h"

#include "catalog/pg_inherits.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "lock.h"

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

char *
lock_table_name(Oid table)
{
	char *name = get_rel_name(table);

	return name ? quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), name)
				: psprintf("with oid %u", table);
}
