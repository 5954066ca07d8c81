/*
 * capture.c
 *		The row trigger: what is to be captured of a relation, and of its rows.
 *
 * A trigger call only notes key, operation, changed columns and time.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "batch.h"
#include "capture.h"
#include "columns.h"
#include "datum.h"
#include "enqueue.h"
#include "sfsync.h"
#include "targets.h"

typedef struct Captured
{
	Oid relid; /* hash key */
	bool valid;
	MemoryContext context; /* of targets */
	int ntargets;
	Target *targets;
} Captured;

static HTAB *captured_relations = NULL;

/*
 * What to capture
 */

static void
forget_targets(Captured *captured)
{
	if (captured->context)
		MemoryContextDelete(captured->context);
	captured->context = NULL;
	captured->targets = NULL;
	captured->ntargets = 0;
}

void
capture_invalidate(Oid relid)
{
	HASH_SEQ_STATUS scan;
	Captured *captured;

	enqueue_invalidate(relid);
	if (!captured_relations)
		return;
	hash_seq_init(&scan, captured_relations);
	while ((captured = hash_seq_search(&scan)) != NULL)
		if (relid == InvalidOid || captured->relid == relid)
			captured->valid = false;
}

List *
targets_with_ancestors(Oid relid)
{
	List *relids = list_make1_oid(relid);

	if (get_rel_relispartition(relid))
		relids = list_concat(relids, get_partition_ancestors(relid));
	return relids;
}

static Datum
oid_array(List *oids)
{
	Datum *values = palloc(sizeof(Datum) * list_length(oids));

	for (int i = 0; i < list_length(oids); i++)
		values[i] = ObjectIdGetDatum(list_nth_oid(oids, i));
	return PointerGetDatum(
		construct_array(values, list_length(oids), OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

/* Elements of a name[]; *n of them. */
static Datum *
name_array(Datum array, int *n)
{
	Datum *names;

	deconstruct_array(DatumGetArrayTypeP(array), NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &names, NULL, n);
	return names;
}

static void
set_keys(Target *target, Relation rel, Datum key_columns)
{
	Datum *names = name_array(key_columns, &target->nkeys);

	target->keys = palloc(sizeof(AttrNumber) * target->nkeys);
	target->key_types = palloc(sizeof(Oid) * target->nkeys);
	for (int i = 0; i < target->nkeys; i++)
	{
		const char *name = NameStr(*DatumGetName(names[i]));

		target->keys[i] = get_attnum(RelationGetRelid(rel), name);
		if (target->keys[i] <= 0)
		{
			/* the key column was dropped or renamed: the worker reports it */
			target->nkeys = 0;
			return;
		}
		target->key_types[i] = TupleDescAttr(RelationGetDescr(rel), target->keys[i] - 1)->atttypid;
		if (datum_needs_fixed_settings(target->key_types[i]))
			target->fix_settings = true;
	}
}

static void
set_watched(Target *target, Relation rel, Oid source, Datum excluded)
{
	TupleDesc desc = RelationGetDescr(rel);
	int nexcluded;
	Datum *names = name_array(excluded, &nexcluded);

	target->watched = palloc0(sizeof(bool) * Max(desc->natts, 1));
	if (source != RelationGetRelid(rel))
		target->root = palloc0(sizeof(AttrNumber) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);

		target->watched[i] = !attr->attisdropped;
		for (int x = 0; x < nexcluded; x++)
			if (namestrcmp(DatumGetName(names[x]), NameStr(attr->attname)) == 0)
				target->watched[i] = false;
		if (target->root && target->watched[i])
			target->root[i] = get_attnum(source, NameStr(attr->attname));
	}
}

typedef struct Watching
{
	Target *target;
	Relation rel;
	Relation table; /* that is mapped */
} Watching;

static void
watch_input(AttrNumber column, AttrNumber input, void *arg)
{
	const Watching *watching = arg;
	AttrNumber of = column;
	AttrNumber watched = input;

	if (watching->rel != watching->table)
	{
		TupleDesc desc = RelationGetDescr(watching->table);

		of = get_attnum(RelationGetRelid(watching->rel), NameStr(TupleDescAttr(desc, column - 1)->attname));
		watched =
			get_attnum(RelationGetRelid(watching->rel), NameStr(TupleDescAttr(desc, input - 1)->attname));
		if (of <= 0 || watched <= 0)
			return;
		watching->target->root[watched - 1] = input;
	}
	if (watching->target->watched[of - 1])
		watching->target->watched[watched - 1] = true;
}

/*
 * A virtual generated column has no value in a row at hand: what it is made of is
 * watched, excluded or not.  Of partitions the mapped table's definition counts,
 * as it does when the table is read.
 */
static void
watch_inputs(Target *target, Relation rel, Oid source)
{
	Watching watching = {target, rel, rel};

	if (source != RelationGetRelid(rel))
		watching.table = table_open(source, AccessShareLock);
	columns_each_virtual(RelationGetDescr(watching.table), watch_input, &watching);
	if (watching.table != rel)
		table_close(watching.table, AccessShareLock);
}

static void
load_target(Target *target, Relation rel, HeapTuple row, TupleDesc desc)
{
	bool isnull;

	target->noted.mapping = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));
	target->noted.source = DatumGetObjectId(SPI_getbinval(row, desc, 2, &isnull));
	target->noted.guard = DatumGetInt32(SPI_getbinval(row, desc, 6, &isnull));
	target->noted.deletes = 0;
	target->name = TextDatumGetCString(SPI_getbinval(row, desc, 5, &isnull));
	target->truncate_applies = DatumGetBool(SPI_getbinval(row, desc, 7, &isnull));
	target->replicated = DatumGetBool(SPI_getbinval(row, desc, 8, &isnull));
	set_keys(target, rel, SPI_getbinval(row, desc, 3, &isnull));
	set_watched(target, rel, target->noted.source, SPI_getbinval(row, desc, 4, &isnull));
	if (columns_have_virtual(RelationGetDescr(rel)))
		watch_inputs(target, rel, target->noted.source);
}

static const char load_query[] =
	"SELECT m.id, m.source::oid, m.key_columns,"
	" ARRAY(SELECT r.column_name FROM sfsync.rule r WHERE r.mapping = m.id AND r.field IS NULL"
	" AND r.column_name <> ALL (m.filter_columns)),"
	" m.name, m.delete_guard, m.on_truncate = 'apply', m.capture_replicated"
	" FROM sfsync.mapping m WHERE m.source::oid = ANY($1) ORDER BY m.id";

/*
 * Read the mappings of tables, for a relation's rows, into a context.  With the
 * latest snapshot: a mapping may have been made after the snapshot of a
 * serializable transaction.
 */
static Target *
load_targets(Relation rel, List *tables, MemoryContext context, int *n)
{
	Oid types[1] = {OIDARRAYOID};
	Datum values[1];
	OwnerContext saved;
	MemoryContext caller = CurrentMemoryContext;
	Target *targets;

	sfsync_enter_owner(&saved);
	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	values[0] = oid_array(tables);
	if (SPI_execute_with_args(load_query, 1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read sfsync.mapping");

	MemoryContextSwitchTo(context);
	targets = palloc0(sizeof(Target) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
		load_target(&targets[i], rel, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	*n = SPI_processed;
	MemoryContextSwitchTo(caller);

	SPI_finish();
	PopActiveSnapshot();
	sfsync_leave(&saved);
	return targets;
}

const Target *
targets_of_tables(Relation rel, List *tables, int *n)
{
	return load_targets(rel, tables, CurrentMemoryContext, n);
}

static void
load_captured(Captured *captured, Relation rel)
{
	captured->context =
		AllocSetContextCreate(CacheMemoryContext, "sfsync captured relation", ALLOCSET_SMALL_SIZES);
	captured->targets = load_targets(rel, targets_with_ancestors(RelationGetRelid(rel)), captured->context,
									 &captured->ntargets);
}

static Captured *
captured_relation(Relation rel)
{
	Oid relid = RelationGetRelid(rel);
	Captured *captured;
	bool found;

	if (!captured_relations)
	{
		HASHCTL ctl = {.keysize = sizeof(Oid), .entrysize = sizeof(Captured)};

		captured_relations = hash_create("sfsync captured relations", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	captured = hash_search(captured_relations, &relid, HASH_ENTER, &found);
	if (!found)
	{
		captured->context = NULL;
		captured->valid = false;
	}
	if (!captured->valid)
	{
		forget_targets(captured);
		captured->valid = true; /* an invalidation while loading clears it again */
		PG_TRY();
		{
			load_captured(captured, rel);
		}
		PG_CATCH();
		{
			captured->valid = false;
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	return captured;
}

const Target *
targets_of_relation(Relation rel, int *n)
{
	Captured *captured = captured_relation(rel);

	*n = captured->ntargets;
	return captured->targets;
}

/*
 * Triggers
 */

char *
targets_key(const Target *target, TupleTableSlot *slot)
{
	char **parts = palloc(sizeof(char *) * target->nkeys);
	OwnerContext saved;

	if (target->fix_settings)
		sfsync_enter_user(GetUserId(), &saved);
	for (int i = 0; i < target->nkeys; i++)
	{
		bool isnull;
		Datum value = slot_getattr(slot, target->keys[i], &isnull);

		if (isnull)
			ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
							errmsg("null value in a key column of a table that is mapped to Salesforce"),
							errhint("Key columns of a mapping must be NOT NULL.")));
		parts[i] = datum_key_text(value, target->key_types[i]);
	}
	if (target->fix_settings)
		sfsync_leave(&saved);
	return key_join(parts, target->nkeys);
}

/* The triggers fire always when one of the table's mappings wants them to. */
bool
targets_wants(const Target *target)
{
	return target->replicated || SessionReplicationRole != SESSION_REPLICATION_ROLE_REPLICA;
}

static bool
attribute_differs(TupleTableSlot *old, TupleTableSlot *new, int i)
{
	Form_pg_attribute attr = TupleDescAttr(new->tts_tupleDescriptor, i);

	if (old->tts_isnull[i] != new->tts_isnull[i])
		return true;
	if (old->tts_isnull[i])
		return false;
	return !datum_image_eq(old->tts_values[i], new->tts_values[i], attr->attbyval, attr->attlen);
}

/* Bitmap of what changed, by number in the mapped table; length 0 if nothing did. */
static int
changed_columns(const Target *target, TupleTableSlot *old, TupleTableSlot *new, uint8 *bitmap)
{
	int natts = new->tts_tupleDescriptor->natts;
	int len = 0;

	slot_getallattrs(old);
	slot_getallattrs(new);
	for (int i = 0; i < natts; i++)
	{
		int attnum;

		if (!target->watched[i] || !attribute_differs(old, new, i))
			continue;
		attnum = target->root ? target->root[i] : i + 1;
		if (attnum <= 0)
			continue;
		bitmap[(attnum - 1) / 8] |= 1 << ((attnum - 1) % 8);
		len = Max(len, (attnum - 1) / 8 + 1);
	}
	return len;
}

static void
capture_update(const Target *target, TupleTableSlot *old, TupleTableSlot *new)
{
	uint8 bitmap[(MaxHeapAttributeNumber + 7) / 8] = {0};
	int len = changed_columns(target, old, new, bitmap);
	bool key_touched = false;
	char *key;
	char *old_key = NULL;

	for (int i = 0; i < target->nkeys; i++)
		if (attribute_differs(old, new, target->keys[i] - 1))
			key_touched = true;
	if (len == 0 && !key_touched)
		return;
	key = targets_key(target, new);
	if (key_touched)
	{
		old_key = targets_key(target, old);
		if (strcmp(key, old_key) == 0)
			old_key = NULL;
	}
	notes_add(target->noted.mapping, old_key ? EVENT_KEY_CHANGE : EVENT_UPDATE, key, old_key, bitmap, len);
}

static void
capture_row(const Target *target, TriggerData *data)
{
	if (target->nkeys == 0 || !targets_wants(target))
		return;
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		notes_add(target->noted.mapping, EVENT_INSERT, targets_key(target, data->tg_trigslot), NULL, NULL,
				  -1);
	else if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		notes_add_delete(&target->noted, EVENT_DELETE, targets_key(target, data->tg_trigslot), NULL);
	else
		capture_update(target, data->tg_trigslot, data->tg_newslot);
}

PG_FUNCTION_INFO_V1(sfsync_capture);

Datum
sfsync_capture(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	Captured *captured;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function \"sfsync.capture\" must be fired AFTER ROW"),
						errdetail("It is the function of the triggers of mapped tables."),
						errhint("sfsync.create_mapping attaches it.")));
	if (!sfsync_capture_enabled)
		return PointerGetDatum(NULL);
	captured = captured_relation(data->tg_relation);
	for (int i = 0; i < captured->ntargets; i++)
		capture_row(&captured->targets[i], data);
	return PointerGetDatum(NULL);
}
