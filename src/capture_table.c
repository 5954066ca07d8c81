/*
 * capture_table.c
 *		What happens to all rows of a table or partition at once, without a row
 *		trigger: TRUNCATE, and partitions that are attached, detached or dropped.
 */
#include "compat.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "api.h"
#include "batch.h"
#include "capture.h"
#include "sfsync.h"
#include "sql.h"
#include "targets.h"

#define FETCH_ROWS 1000

static object_access_hook_type previous_hook = NULL;

/*
 * Noting all rows of a relation
 */

typedef struct RowNoter
{
	const Target *target;
	char operation;
	const char *partition; /* that left */
} RowNoter;

static void
note_row(const RowNoter *noter, TupleTableSlot *slot)
{
	char *key = targets_key(noter->target, slot);

	if (noter->operation == EVENT_INSERT)
		notes_add(noter->target->noted.mapping, EVENT_INSERT, key, NULL, NULL, -1);
	else
		notes_add_delete(&noter->target->noted, noter->operation, key, noter->partition);
}

/* While a table is dropped its TOAST table has gone before it. */
static bool
out_of_reach(const Target *target, Relation rel, TupleTableSlot *slot)
{
	Oid toast = rel->rd_rel->reltoastrelid;

	if (!OidIsValid(toast) || SearchSysCacheExists1(RELOID, ObjectIdGetDatum(toast)))
		return false;
	for (int i = 0; i < target->nkeys; i++)
	{
		bool isnull;
		Datum value = slot_getattr(slot, target->keys[i], &isnull);

		if (!isnull && TupleDescAttr(slot->tts_tupleDescriptor, target->keys[i] - 1)->attlen == -1 &&
			VARATT_IS_EXTERNAL(DatumGetPointer(value)))
			return true;
	}
	return false;
}

/* With the latest snapshot: the relation is locked against writers. */
static void
note_rows(Relation rel, const RowNoter *noter)
{
	MemoryContext context;
	MemoryContext caller = CurrentMemoryContext;
	Snapshot snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;
	int64 unreadable = 0;

	if (rel->rd_rel->relkind != RELKIND_RELATION || noter->target->nkeys == 0)
		return;
	context = AllocSetContextCreate(caller, "sfsync rows", ALLOCSET_DEFAULT_SIZES);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = BEGIN_TABLE_SCAN(rel, snapshot);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		if (out_of_reach(noter->target, rel, slot))
			unreadable++;
		else
			note_row(noter, slot);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(context);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(context);
	if (unreadable > 0)
		ereport(
			WARNING,
			(errmsg_plural("sfsync: %lld row of \"%s\" is dropped whose key can't be read any more",
						   "sfsync: %lld rows of \"%s\" are dropped whose keys can't be read any more",
						   (unsigned long) unreadable, (long long) unreadable, RelationGetRelationName(rel)),
			 errdetail("Their records stay in Salesforce, and nothing is held for them.")));
}

/*
 * TRUNCATE
 */

/* Of a whole table: every record known, and what is on its way to be one. */
static const char known_query[] =
	"SELECT key FROM sfsync.record WHERE mapping = $1"
	" UNION SELECT key FROM sfsync.queued WHERE mapping = $1"
	" UNION SELECT key FROM sfsync.deferred WHERE mapping = $1"
	" UNION SELECT k.key FROM sfsync.intent i, pg_catalog.unnest(i.keys) AS k(key) WHERE i.mapping = $1"
	" UNION SELECT l.external_id FROM sfsync.dead_letter l JOIN sfsync.mapping m ON m.name = l.mapping"
	" WHERE m.id = $1 AND l.status IN ('open', 'retrying') AND l.external_id IS NOT NULL";

static void
note_known(const Target *target)
{
	Oid types[1] = {INT4OID};
	Datum values[1] = {Int32GetDatum(target->noted.mapping)};
	OwnerContext saved;
	Portal portal;

	sfsync_enter_owner(&saved);
	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	portal = SPI_cursor_open_with_args(NULL, known_query, 1, types, values, NULL, true, 0);
	do
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			char *key = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

			notes_add_delete(&target->noted, EVENT_DELETE, key, NULL);
			pfree(key);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
	SPI_finish();
	PopActiveSnapshot();
	sfsync_leave(&saved);
}

/* What the transaction itself noted before is gone too. */
static void
note_own(const Note *note, const char *data, void *arg)
{
	const Target *target = arg;
	char *key;

	if (note->mapping != target->noted.mapping || note->operation == EVENT_DELETE)
		return;
	key = pnstrdup(data, note->key_len);
	notes_add_delete(&target->noted, EVENT_DELETE, key, NULL);
	pfree(key);
}

/*
 * The table whose truncation was noted as a whole by this command: then its
 * partitions, whose triggers fire as well, need no look.
 */
static struct
{
	TimestampTz transaction;
	CommandId command;
	Oid table;
} noted_whole;

static bool
is_noted(Oid table)
{
	return noted_whole.table == table && noted_whole.command == GetCurrentCommandId(false) &&
		   noted_whole.transaction == GetCurrentTransactionStartTimestamp();
}

static void
note_truncate(Relation rel, const Target *target)
{
	RowNoter noter = {target, EVENT_DELETE, NULL};

	if (target->noted.source != RelationGetRelid(rel))
	{
		if (!is_noted(target->noted.source))
			note_rows(rel, &noter);
		return;
	}
	note_known(target);
	notes_each(note_own, unconstify(Target *, target));
}

static void
refuse_truncate(Relation rel, const Target *target)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("cannot truncate table \"%s\": it is mapped to Salesforce", RelationGetRelationName(rel)),
		 errdetail("TRUNCATE would leave the records of its rows in Salesforce without a trace."),
		 errhint(
			 "Use DELETE, or allow it with sfsync.set_delete_policy(%s, NULL, on_truncate => 'apply'), or a "
			 "superuser may set sfsync.capture to off for the transaction.",
			 quote_literal_cstr(target->name))));
}

PG_FUNCTION_INFO_V1(sfsync_capture_truncate);

Datum
sfsync_capture_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	const Target *targets;
	int n;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"sfsync.capture_truncate\" must be fired by TRUNCATE"),
						errdetail("It is the function of the triggers of mapped tables."),
						errhint("sfsync.create_mapping attaches it.")));
	if (!sfsync_capture_enabled)
		return PointerGetDatum(NULL);
	targets = targets_of_relation(data->tg_relation, &n);
	for (int i = 0; i < n; i++)
		if (!targets[i].truncate_applies && targets_wants(&targets[i]))
			refuse_truncate(data->tg_relation, &targets[i]);
	for (int i = 0; i < n; i++)
		if (targets_wants(&targets[i]))
			note_truncate(data->tg_relation, &targets[i]);
	for (int i = 0; i < n; i++)
	{
		if (targets[i].noted.source != RelationGetRelid(data->tg_relation))
			continue;
		noted_whole.table = targets[i].noted.source;
		noted_whole.command = GetCurrentCommandId(false);
		noted_whole.transaction = GetCurrentTransactionStartTimestamp();
	}
	return PointerGetDatum(NULL);
}

/*
 * Partitions
 */

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

/* The rows of a partition came to, or left, mappings of a partitioned table. */
static void
note_partition(Oid partition, Oid parent, char operation)
{
	List *tables = targets_with_ancestors(parent);
	ListCell *lc;

	foreach(lc, find_all_inheritors(partition, AccessShareLock, NULL))
	{
		Relation rel = table_open(lfirst_oid(lc), NoLock);
		int n;
		const Target *targets = targets_of_tables(rel, tables, &n);

		for (int i = 0; i < n; i++)
		{
			RowNoter noter = {&targets[i], operation,
							  operation == EVENT_PARTITION_LEFT ? qualified_name(partition) : NULL};

			note_rows(rel, &noter);
		}
		table_close(rel, NoLock);
	}
}

/* TRUNCATE of a table that left is no concern any more. */
static void
drop_truncate_triggers(Oid partition)
{
	ListCell *lc;

	foreach(lc, find_all_inheritors(partition, AccessShareLock, NULL))
	{
		Relation rel = table_open(lfirst_oid(lc), NoLock);
		bool has_trigger = api_has_trigger(lfirst_oid(lc), TRUNCATE_TRIGGER);
		int ntargets;
		SqlScope scope;

		(void) targets_of_relation(rel, &ntargets);
		table_close(rel, NoLock);
		if (!has_trigger || ntargets > 0)
			continue;
		sql_open(&scope);
		SPI_execute(psprintf("DROP TRIGGER %s ON %s", TRUNCATE_TRIGGER, qualified_name(lfirst_oid(lc))),
					false, 0);
		sql_close(&scope);
	}
}

static void
follow_partition(Oid partition, Oid parent, bool attached)
{
	if (sfsync_capture_enabled)
		note_partition(partition, parent, attached ? EVENT_INSERT : EVENT_PARTITION_LEFT);
	if (!attached)
		drop_truncate_triggers(partition);
}

void
capture_altered_table(const AlterTableStmt *statement)
{
	Oid parent = RangeVarGetRelid(statement->relation, NoLock, true);
	ListCell *lc;

	if (!OidIsValid(parent) || get_rel_relkind(parent) != RELKIND_PARTITIONED_TABLE)
		return;
	foreach(lc, statement->cmds)
	{
		const AlterTableCmd *command = lfirst(lc);
		bool attached = command->subtype == AT_AttachPartition;
		Oid partition;

		if (!attached && command->subtype != AT_DetachPartition &&
			command->subtype != AT_DetachPartitionFinalize)
			continue;
		partition = RangeVarGetRelid(((PartitionCmd *) command->def)->name, NoLock, true);
		if (OidIsValid(partition))
			follow_partition(partition, parent, attached);
	}
}

/*
 * Whatever drops a partition, this is the last look at its rows.  (An event
 * trigger comes too late, and one before the command doesn't see what CASCADE
 * takes along.)  Parts of the extension may be gone already.
 */
static void
note_drop(Oid relid)
{
	Relation rel;
	const Target *targets;
	int n;

	if (!sfsync_capture_enabled || !get_rel_relispartition(relid) ||
		get_rel_relkind(relid) != RELKIND_RELATION ||
		!OidIsValid(get_extension_oid(SFSYNC_EXTENSION, true)) || !OidIsValid(sfsync_relation("mapping")) ||
		!OidIsValid(sfsync_relation("rule")))
		return;
	rel = table_open(relid, NoLock);
	targets = targets_of_relation(rel, &n);
	for (int i = 0; i < n; i++)
	{
		RowNoter noter = {&targets[i], EVENT_PARTITION_LEFT, qualified_name(relid)};

		note_rows(rel, &noter);
	}
	table_close(rel, NoLock);
}

static void
object_access(ObjectAccessType access, Oid class, Oid object, int sub, void *arg)
{
	if (previous_hook)
		previous_hook(access, class, object, sub, arg);
	if (access == OAT_DROP && class == RelationRelationId && sub == 0)
		note_drop(object);
}

void
capture_init(void)
{
	previous_hook = object_access_hook;
	object_access_hook = object_access;
}
