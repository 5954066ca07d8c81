/*
 * follow.c
 *		What DDL means for mappings: renamed columns and servers, new partitions,
 *		servers and roles that go, or that give their things to another.
 *
 * A mapping names its server, table and owner in a table of the extension,
 * which the server's own dependencies don't know.
 */
#include "compat.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_inherits.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/lsyscache.h"

#include "api.h"
#include "capture.h"
#include "expression.h"
#include "follow.h"
#include "sfsync.h"
#include "shmem.h"
#include "sql.h"
#include "targets.h"

static object_access_hook_type previous_access_hook = NULL;
static ProcessUtility_hook_type previous_utility_hook = NULL;

/*
 * Renames
 */

/* Stored attribute numbers keep a renamed column's rule and key working. */
static void
follow_renames(void)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN0(
		&scope,
		"UPDATE sfsync.mapping m SET key_columns = k.names FROM (SELECT o.id,"
		" pg_catalog.array_agg(a.attname ORDER BY u.o) AS names FROM sfsync.mapping o"
		" CROSS JOIN LATERAL pg_catalog.unnest(o.key_attnums) WITH ORDINALITY AS u(n, o)"
		" JOIN pg_catalog.pg_attribute a ON a.attrelid = o.attnums_of AND a.attnum = u.n AND NOT a.attisdropped"
		" WHERE o.attnums_of = o.source::oid GROUP BY o.id) k"
		" WHERE k.id = m.id AND k.names <> m.key_columns"
		" AND pg_catalog.cardinality(k.names) = pg_catalog.cardinality(m.key_columns)");
	SQL_RUN0(
		&scope,
		"UPDATE sfsync.rule r SET column_name = a.attname FROM sfsync.mapping m, pg_catalog.pg_attribute a"
		" WHERE m.id = r.mapping AND m.attnums_of = m.source::oid AND a.attrelid = m.attnums_of"
		" AND a.attnum = r.attnum AND NOT a.attisdropped AND a.attname <> r.column_name");
	sql_close(&scope);
}

/* A renamed column is no new one. */
static void
follow_known(const RenameStmt *statement)
{
	Oid relid;
	SqlScope scope;

	if (statement->renameType != OBJECT_COLUMN || !statement->relation)
		return;
	relid = RangeVarGetRelid(statement->relation, NoLock, true);
	sql_open(&scope);
	SQL_RUN(
		&scope,
		"UPDATE sfsync.mapping SET known_columns = pg_catalog.array_replace(known_columns, $2::name, $3::name)"
		" WHERE source::oid = $1",
		sql_arg_oid(relid), sql_arg_name(statement->subname), sql_arg_name(statement->newname));
	sql_close(&scope);
}

/* What attribute numbers mean, in case a dump is restored. */
static void
follow_columns(void)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN0(
		&scope,
		"UPDATE sfsync.mapping m SET table_columns = c.names FROM sfsync.mapping o CROSS JOIN LATERAL"
		" (SELECT ARRAY(SELECT CASE WHEN NOT a.attisdropped THEN a.attname END FROM pg_catalog.pg_attribute a"
		" WHERE a.attrelid = o.source AND a.attnum > 0 ORDER BY a.attnum) AS names) c"
		" WHERE o.id = m.id AND m.attnums_of = m.source::oid AND c.names <> m.table_columns"
		" AND c.names <> '{}'");
	sql_close(&scope);
}

/* Everything that names the server does so by its new name from now on. */
static void
follow_server(const RenameStmt *statement)
{
	SqlArg old = sql_arg_name(strVal(statement->object));
	SqlArg new = sql_arg_name(statement->newname);
	SqlScope scope;

	sql_open(&scope);

	/* left by a server of that name that was dropped */
	SQL_RUN(&scope, "DELETE FROM sfsync.object o WHERE o.server = $2 AND o.server <> $1", old, new);
	SQL_RUN(&scope, "UPDATE sfsync.object SET server = $2 WHERE server = $1", old, new);
	SQL_RUN(&scope, "DELETE FROM sfsync.server_state s WHERE s.server = $2 AND s.server <> $1", old, new);
	SQL_RUN(&scope, "UPDATE sfsync.server_state SET server = $2 WHERE server = $1", old, new);
	SQL_RUN(&scope, "UPDATE sfsync.mapping SET server = $2 WHERE server = $1", old, new);
	sql_close(&scope);
}

static void
follow_rename(const RenameStmt *statement)
{
	if (statement->renameType == OBJECT_FOREIGN_SERVER)
		follow_server(statement);
	else
	{
		follow_known(statement);
		follow_renames();
		expression_follow_renames();
		follow_columns();
	}
	mapping_changed(InvalidOid);
}

/*
 * Partitions
 */

/*
 * A new partition of a mapped table can be truncated by itself, too.  Only the
 * statements that make one are followed: others come while a dump is restored,
 * whose own triggers must not be there before it makes them.
 */
static void
follow_partition(const RangeVar *parent)
{
	Oid relid = RangeVarGetRelid(parent, NoLock, true);
	ListCell *lc;

	if (!OidIsValid(relid))
		return;
	foreach(lc, targets_with_ancestors(relid))
	{
		SqlScope scope;
		bool mapped;

		sql_open_latest(&scope);
		mapped = SQL_RUN(&scope, "SELECT FROM sfsync.mapping WHERE source::oid = $1",
						 sql_arg_oid(lfirst_oid(lc))) > 0;
		sql_close(&scope);
		if (mapped)
			api_attach_triggers(lfirst_oid(lc));
	}
}

static void
follow_alter_table(const AlterTableStmt *statement)
{
	bool columns = false;
	ListCell *lc;

	foreach(lc, statement->cmds)
	{
		AlterTableType type = ((AlterTableCmd *) lfirst(lc))->subtype;

		columns |= type == AT_AddColumn || type == AT_DropColumn;
		if (type == AT_AttachPartition)
			follow_partition(statement->relation);
	}
	if (columns)
		follow_columns();
	capture_altered_table(statement);
}

/*
 * Servers and roles
 */

static bool
is_installed(void)
{
	return OidIsValid(get_extension_oid(SFSYNC_EXTENSION, true)) && OidIsValid(sfsync_relation("mapping"));
}

static void
follow_reassign(const ReassignOwnedStmt *statement)
{
	Oid new = get_rolespec_oid(statement->newrole, false);
	ListCell *lc;
	SqlScope scope;

	sql_open(&scope);
	foreach(lc, statement->roles)
		SQL_RUN(&scope, "UPDATE sfsync.mapping SET owner = $2::oid::regrole WHERE owner::oid = $1",
				sql_arg_oid(get_rolespec_oid(lfirst(lc), false)), sql_arg_oid(new));
	sql_close(&scope);
	mapping_changed(InvalidOid);
}

static const char orphans_query[] =
	"SELECT m.id, m.name, m.server FROM pg_catalog.pg_event_trigger_dropped_objects() d"
	" JOIN sfsync.mapping m ON m.server = d.address_names[1] WHERE d.object_type = 'server' ORDER BY m.name";

typedef struct Orphan
{
	int id;
	char *name;
	char *server;
} Orphan;

static void
drop_orphan(const Orphan *orphan, bool cascade)
{
	const Mapping *mapping = mapping_get(orphan->id);
	int64 given_up;

	if (!mapping) /* somebody else has just ended it */
		return;
	if (!cascade)
		ereport(
			ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot drop server %s because other objects depend on it", orphan->server),
			 errdetail("sfsync mapping %s depends on server %s", orphan->name, orphan->server),
			 errhint("End the mapping with sfsync.drop_mapping, or use DROP ... CASCADE to end it too.")));
	given_up = api_drop_mapping(mapping, true);
	ereport(NOTICE,
			(errmsg("drop cascades to sfsync mapping %s", orphan->name),
			 given_up == 0 ? 0
						   : errdetail_plural("%lld change that has not reached Salesforce is given up.",
											  "%lld changes that have not reached Salesforce are given up.",
											  (unsigned long) given_up, (long long) given_up)));
}

/* Servers were dropped: by RESTRICT unless the statement says CASCADE. */
static void
follow_dropped(Node *statement)
{
	bool cascade = (IsA(statement, DropStmt) && ((DropStmt *) statement)->behavior == DROP_CASCADE) ||
				   (IsA(statement, DropOwnedStmt) && ((DropOwnedStmt *) statement)->behavior == DROP_CASCADE);
	SqlScope scope;
	Orphan *orphans;
	int n;

	sql_open_latest(&scope);
	n = SQL_RUN0(&scope, orphans_query);
	orphans = MemoryContextAlloc(scope.caller, sizeof(Orphan) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		orphans[i].id = sql_int(i, 1);
		orphans[i].name = sql_text(&scope, i, 2);
		orphans[i].server = sql_text(&scope, i, 3);
	}
	sql_close(&scope);
	for (int i = 0; i < n; i++)
		drop_orphan(&orphans[i], cascade);
}

/* Of mappings in this database: others can't be seen from here. */
static void
refuse_role(Oid role)
{
	SqlScope scope;
	char *mappings;

	if (!is_installed())
		return;
	sql_open_latest(&scope);
	SQL_RUN(
		&scope,
		"SELECT pg_catalog.string_agg(name, ', ' ORDER BY name) FROM sfsync.mapping WHERE owner::oid = $1",
		sql_arg_oid(role));
	mappings = sql_text(&scope, 0, 1);
	sql_close(&scope);
	if (mappings)
		ereport(ERROR, (errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
						errmsg("role \"%s\" cannot be dropped because some objects depend on it",
							   GetUserNameFromId(role, false)),
						errdetail("owner of sfsync mapping %s", mappings),
						errhint("End it with sfsync.drop_mapping, or give it to another role with REASSIGN "
								"OWNED.")));
}

static void
object_access(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	if (previous_access_hook)
		previous_access_hook(access, class, object, sub, arg);
	if (access == OAT_DROP && class == AuthIdRelationId && sub == 0 && OidIsValid(MyDatabaseId))
		refuse_role(object);
}

/*
 * DROP EXTENSION takes the queue first and the triggers of mapped tables later,
 * writers the other way round: lest they wait for each other, it waits for them
 * before it begins.
 */
static void
lock_sources(void)
{
	SqlScope scope;
	Oid *tables;
	int n;

	sql_open_latest(&scope);
	n = SQL_RUN0(
		&scope,
		"SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid IN (SELECT source::oid FROM sfsync.mapping)"
		" ORDER BY 1");
	tables = sql_column_oids(&scope, 1);
	sql_close(&scope);
	for (int i = 0; i < n; i++)
	{
		LockRelationOid(tables[i], AccessExclusiveLock);
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(tables[i])))
			continue; /* dropped just before */
		(void) find_all_inheritors(tables[i], AccessExclusiveLock, NULL);
	}
}

static bool
drops_extension(const DropStmt *statement)
{
	ListCell *lc;

	if (statement->removeType == OBJECT_EXTENSION)
		foreach(lc, statement->objects)
			if (strcmp(strVal(lfirst(lc)), SFSYNC_EXTENSION) == 0)
				return true;
	return false;
}

/* In this time a worker leaves that is asked to. */
#define WORKER_LEAVES_MS 2000

/* There are no event triggers for REASSIGN OWNED. */
static void
utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node *statement = pstmt->utilityStmt;

	if (IsA(statement, DropStmt) && drops_extension((DropStmt *) statement) && is_installed() && superuser())
	{
		/* so does the worker: it leaves, unless it waits for this very transaction */
		shmem_keep_away(MyDatabaseId, WORKER_LEAVES_MS);
		lock_sources();
	}
	if (previous_utility_hook)
		previous_utility_hook(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	if (IsA(statement, ReassignOwnedStmt) && is_installed())
		follow_reassign((ReassignOwnedStmt *) statement);
}

void
follow_init(void)
{
	previous_access_hook = object_access_hook;
	object_access_hook = object_access;
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}

/*
 * The event triggers
 */

/* Did a command that drops tables take a mapped one along? */
static bool
source_is_gone(CommandTag tag)
{
	SqlScope scope;
	bool gone;

	if (tag != CMDTAG_DROP_TABLE && tag != CMDTAG_DROP_SCHEMA && tag != CMDTAG_DROP_OWNED)
		return true;
	sql_open(&scope);
	gone = SQL_RUN0(&scope, "SELECT FROM sfsync.mapping m WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c"
							" WHERE c.oid = m.source::oid)") > 0;
	sql_close(&scope);
	return gone;
}

static void
follow(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_RenameStmt:
			follow_rename((RenameStmt *) statement);
			break;
		case T_CreateStmt:
			follow_partition(linitial(((CreateStmt *) statement)->inhRelations));
			break;
		case T_AlterTableStmt:
			follow_alter_table((AlterTableStmt *) statement);
			break;
		case T_AlterExtensionStmt:
			mapping_changed(InvalidOid);
			break;
		default:
			break;
	}
}

PG_FUNCTION_INFO_V1(sfsync_follow_ddl);

Datum
sfsync_follow_ddl(PG_FUNCTION_ARGS)
{
	EventTriggerData *data = (EventTriggerData *) fcinfo->context;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"sfsync.follow_ddl\" must be called as an event trigger"),
						errdetail("CREATE EXTENSION makes the triggers that call it."),
						errhint("It is not to be called.")));
	/* a new table is of interest as a partition only */
	if (IsA(data->parsetree, CreateStmt) && !((CreateStmt *) data->parsetree)->partbound)
		PG_RETURN_NULL();
	if (!OidIsValid(sfsync_relation("mapping")))
		PG_RETURN_NULL();
	if (strcmp(data->event, "sql_drop") == 0)
		follow_dropped(data->parsetree);
	else if ((IsA(data->parsetree, DropStmt) || IsA(data->parsetree, DropOwnedStmt)) &&
			 !source_is_gone(data->tag))
		PG_RETURN_NULL();
	else
		follow(data->parsetree);
	shmem_wake_at_commit();
	PG_RETURN_NULL();
}
