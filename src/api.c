/*
 * api.c
 *		Functions that make, change and end mappings.
 *
 * Arguments are checked against the catalog and, where metadata are cached,
 * against Salesforce's; nothing here asks Salesforce.
 */
#include "compat.h"

#include <ctype.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "pgtime.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "api.h"
#include "capture.h"
#include "fence.h"
#include "route.h"
#include "sfsync.h"
#include "shmem.h"
#include "source.h"
#include "sql.h"

static const char *const delete_policies[] = {"delete", "hard_delete", "archive", "deactivate", "ignore"};
static const char *const conflict_policies[] = {"newest_wins", "strict", "source_wins"};
static const char *const column_policies[] = {"auto", "create_field", "ignore"};
static const char *const truncate_policies[] = {"refuse", "apply"};

/*
 * Arguments
 */

char *
api_text(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
}

char *
api_name(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : pstrdup(NameStr(*PG_GETARG_NAME(i)));
}

void
api_require(FunctionCallInfo fcinfo, int i, const char *argument)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" must not be null", argument)));
}

static char *
list_of(const char *const *values, int n)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < n; i++)
		appendStringInfo(&list, "%s%s", i ? ", " : "", values[i]);
	return list.data;
}

void
api_choice(const char *argument, const char *value, const char *const *accepted, int n)
{
	const char *nearest;

	for (int i = 0; i < n; i++)
		if (strcmp(value, accepted[i]) == 0)
			return;
	nearest = nearest_match(value, accepted, n);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid value for argument \"%s\": \"%s\"", argument, value),
			 errdetail("Accepted values are: %s.", list_of(accepted, n)),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest) : 0));
}

void
api_unsupported(const char *argument, const char *value, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("value \"%s\" of argument \"%s\" is not supported by this version", value, argument),
			 errhint("%s", hint)));
}

static void
check_conflict_policy(const char *value)
{
	api_choice("conflict_policy", value, conflict_policies, lengthof(conflict_policies));
	if (strcmp(value, "source_wins") != 0)
		api_unsupported("conflict_policy", value, "Pass conflict_policy => 'source_wins'.");
}

static void
check_delete_policy(const char *value)
{
	api_choice("on_delete", value, delete_policies, lengthof(delete_policies));
	if (strcmp(value, "delete") != 0 && strcmp(value, "ignore") != 0)
		api_unsupported("on_delete", value, "Use 'delete' (into the recycle bin) or 'ignore'.");
}

static void
check_new_columns(const char *value)
{
	api_choice("new_columns", value, column_policies, lengthof(column_policies));
	if (strcmp(value, "create_field") == 0)
		api_unsupported("new_columns", value, "Use 'auto' and create the field in Salesforce, or 'ignore'.");
}

static void
refuse_filter(const char *filter)
{
	if (filter && filter[0] != '\0')
		api_unsupported("filter", filter, "Map all rows of the table.");
}

/*
 * Who may
 */

Mapping *
api_mapping(const char *name)
{
	Mapping    *mapping = mapping_get(mapping_require(name));

	if (!mapping)
		elog(ERROR, "mapping \"%s\" has just been dropped", name);
	if (!has_privs_of_role(GetUserId(), mapping->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of mapping \"%s\"", name),
				 errdetail("Its owner is role \"%s\".", GetUserNameFromId(mapping->owner, false))));
	return mapping;
}

static void
check_rights(Oid owner, Oid relid, ForeignServer *server)
{
	if (!DatumGetBool(DirectFunctionCall3(has_table_privilege_id_id, ObjectIdGetDatum(owner),
										  ObjectIdGetDatum(relid), CStringGetTextDatum("SELECT"))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table \"%s\"", get_rel_name(relid)),
				 errdetail("The worker reads the table as the mapping's owner, role \"%s\".",
						   GetUserNameFromId(owner, false)),
				 errhint("Grant SELECT on the table to that role.")));
	if (!DatumGetBool(DirectFunctionCall3(has_server_privilege_id_id, ObjectIdGetDatum(owner),
										  ObjectIdGetDatum(server->serverid), CStringGetTextDatum("USAGE"))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server \"%s\"", server->servername),
				 errdetail("The mapping's owner, role \"%s\", may not use the server.",
						   GetUserNameFromId(owner, false)),
				 errhint("Grant USAGE on the foreign server to that role.")));
}

/*
 * The source
 */

static void
refuse_source(Relation rel, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot map \"%s\" to Salesforce", RelationGetRelationName(rel)),
			 errdetail("%s", detail),
			 errhint("The source must be an ordinary or a partitioned table whose rows are logged.")));
}

static Relation
open_source(Oid relid)
{
	Relation	rel = try_relation_open(relid, ShareRowExclusiveLock);
	char		kind;

	if (!rel)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table with OID %u does not exist", relid),
				 errdetail("Argument \"source\" must be a table.")));
	kind = rel->rd_rel->relkind;
	if (kind == RELKIND_VIEW || kind == RELKIND_MATVIEW)
		refuse_source(rel, "It is a view.");
	if (kind == RELKIND_FOREIGN_TABLE)
		refuse_source(rel, "It is a foreign table.");
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		refuse_source(rel, "It is not a table.");
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse_source(rel, "It is a temporary table.");
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		refuse_source(rel, "It is an unlogged table: after a crash its rows would be gone without a trace.");
	if (IsSystemRelation(rel) || RelationGetNamespace(rel) == get_namespace_oid(SFSYNC_SCHEMA, true))
		refuse_source(rel, "It is a system table.");
	if (kind == RELKIND_RELATION && has_subclass(relid))
		refuse_source(rel, "It has inheritance children.");
	return rel;
}

static void
no_key(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" has no primary key", RelationGetRelationName(rel)),
			 errdetail("A mapping needs columns that identify a row: their text becomes the external ID."),
			 errhint("Add a primary key, or pass key_columns of a unique constraint on NOT NULL columns.")));
}

static List *
primary_key(Relation rel)
{
	List	   *names = NIL;
	Oid			index;
	HeapTuple	tuple;
	Form_pg_index form;

	(void) RelationGetIndexList(rel);	/* sets rd_pkindex */
	index = rel->rd_pkindex;
	if (!OidIsValid(index))
		no_key(rel);
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for index %u", index);
	form = (Form_pg_index) GETSTRUCT(tuple);
	for (int i = 0; i < form->indnkeyatts; i++)
		names = lappend(names, get_attname(RelationGetRelid(rel), form->indkey.values[i], false));
	ReleaseSysCache(tuple);
	return names;
}

static bool
is_unique_on(Oid index, Bitmapset *attnums)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Form_pg_index form;
	Bitmapset  *keys = NULL;
	bool		good;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_index) GETSTRUCT(tuple);
	good = form->indisunique && form->indisvalid && form->indimmediate &&
		heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
	for (int i = 0; i < form->indnkeyatts; i++)
		keys = bms_add_member(keys, form->indkey.values[i] > 0 ? form->indkey.values[i] : 0);
	ReleaseSysCache(tuple);
	return good && bms_equal(keys, attnums);
}

static void
unknown_column(Relation rel, const char *argument, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);
	const char **names = palloc(sizeof(char *) * Max(desc->natts, 1));
	const char *nearest;
	int			n = 0;

	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			names[n++] = NameStr(TupleDescAttr(desc, i)->attname);
	nearest = nearest_match(name, names, n);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table \"%s\" does not exist", name, RelationGetRelationName(rel)),
			 errdetail("Argument \"%s\" must name columns of the table: %s.", argument, list_of(names, n)),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest) : 0));
}

static AttrNumber
column_number(Relation rel, const char *argument, const char *name)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);

	if (attnum <= 0)
		unknown_column(rel, argument, name);
	return attnum;
}

static List *
given_key(Relation rel, ArrayType *array)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;
	List	   *names = NIL;
	Bitmapset  *attnums = NULL;
	ListCell   *lc;

	deconstruct_array(array, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char	   *name = nulls[i] ? pstrdup("") : pstrdup(NameStr(*DatumGetName(elements[i])));
		AttrNumber	attnum = column_number(rel, "key_columns", name);

		if (!TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("key column \"%s\" is nullable", name),
					 errdetail("Columns in argument \"key_columns\" must be NOT NULL: each row needs an external ID."),
					 errhint("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL", RelationGetRelationName(rel),
							 quote_identifier(name))));
		if (bms_is_member(attnum, attnums))
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("column \"%s\" appears twice in argument \"key_columns\"", name)));
		names = lappend(names, name);
		attnums = bms_add_member(attnums, attnum);
	}
	foreach(lc, RelationGetIndexList(rel))
		if (is_unique_on(lfirst_oid(lc), attnums))
			return names;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("key columns of table \"%s\" are not unique", RelationGetRelationName(rel)),
			 errdetail("Argument \"key_columns\" must be just the columns of a unique constraint or index that is neither partial nor deferrable."),
			 errhint("Add a unique constraint on them, or use the primary key.")));
}

static void
check_updated_at(Relation rel, const char *name)
{
	AttrNumber	attnum = column_number(rel, "updated_at_column", name);
	Oid			type = getBaseType(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid);

	if (type != TIMESTAMPOID && type != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" holds no point in time", name),
				 errdetail("Argument \"updated_at_column\" must name a column of type timestamp or timestamptz.")));
}

/*
 * The server
 */

static const char **
sfsync_servers(int *n)
{
	SqlScope	scope;
	const char **names;

	sql_open(&scope, true);
	*n = SQL_RUN0(&scope, "SELECT s.srvname FROM pg_catalog.pg_foreign_server s"
				  " JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw"
				  " WHERE w.fdwname = 'sfsync' ORDER BY s.srvname");
	names = MemoryContextAlloc(scope.caller, sizeof(char *) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		names[i] = sql_text(&scope, i, 1);
	sql_close(&scope);
	return names;
}

static ForeignServer *
choose_server(const char *name)
{
	int			n;
	const char **names = sfsync_servers(&n);
	const char *nearest;

	if (!name && n == 1)
		return GetForeignServerByName(names[0], false);
	if (!name)
		ereport(ERROR,
				(errcode(n == 0 ? ERRCODE_UNDEFINED_OBJECT : ERRCODE_INVALID_PARAMETER_VALUE),
				 n == 0 ? errmsg("there is no sfsync server") : errmsg("argument \"server\" is needed: there are %d sfsync servers", n),
				 n == 0 ? 0 : errdetail("Accepted values are: %s.", list_of(names, n)),
				 n == 0 ? errhint("CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://...')") : 0));
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return GetForeignServerByName(name, false);
	nearest = nearest_match(name, names, n);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("server \"%s\" is no sfsync server", name),
			 n == 0 ? errdetail("There is no sfsync server.") : errdetail("Accepted values are: %s.", list_of(names, n)),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest)
			 : errhint("CREATE SERVER %s FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://...')",
					   quote_identifier(name))));
}

/*
 * The object, as far as its metadata are cached
 */

void
api_check_name(const char *argument, const char *value)
{
	bool		good = isalpha((unsigned char) value[0]);

	for (const char *p = value; *p && good; p++)
		good = isalnum((unsigned char) *p) || *p == '_';
	if (!good || strlen(value) > 255)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid value for argument \"%s\": \"%s\"", argument, value),
				 errdetail("It must be an API name of Salesforce: letters, digits and underscores, beginning with a letter."),
				 errhint("For example Account, or Invoice__c.")));
}

static void
unknown_field(const SfObject *object, const char *argument, const char *name)
{
	const char **names = palloc(sizeof(char *) * Max(object->nfields, 1));
	const char *nearest;

	for (int i = 0; i < object->nfields; i++)
		names[i] = object->fields[i].name;
	nearest = nearest_match(name, names, object->nfields);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("field \"%s\" of object %s does not exist", name, object->name),
			 errdetail("Argument \"%s\" must name a field that the integration user may see.", argument),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest)
			 : errhint("After a change in Salesforce run sfsync.refresh_schema().")));
}

/* Canonical names of object and key field where they are known. */
static void
check_object(const char *server, char **object, char **external_id)
{
	SqlScope	scope;
	char	   *describe = NULL;
	bool		known;
	char	   *error;
	SfObject   *meta;
	const SfField *field;

	sql_open(&scope, true);
	known = SQL_RUN(&scope, "SELECT describe::text, object FROM sfsync.object"
					" WHERE server = $1 AND pg_catalog.lower(object) = pg_catalog.lower($2) AND fetched_at IS NOT NULL",
					sql_arg_name(server), sql_arg_text(*object)) > 0;
	if (known)
		describe = sql_text(&scope, 0, 1);
	sql_close(&scope);
	if (!known)
		return;
	meta = describe ? describe_parse(describe, strlen(describe), &error) : NULL;
	if (!meta)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("object \"%s\" does not exist in Salesforce, or the integration user may not see it", *object),
				 errhint("After a change in Salesforce run sfsync.refresh_schema().")));
	*object = meta->name;
	field = describe_field(meta, *external_id);
	if (!field)
		unknown_field(meta, "external_id", *external_id);
	if (!field->external_id && !field->id_lookup)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("field \"%s\" of object %s is not an External ID", field->name, meta->name),
				 errhint("Mark it as External ID and Unique in Salesforce, then run sfsync.refresh_schema().")));
	*external_id = field->name;
}

AttrNumber
api_column(const Mapping *mapping, const char *name)
{
	Relation	rel = table_open(mapping->source, AccessShareLock);
	AttrNumber	attnum = column_number(rel, "column_name", name);

	table_close(rel, NoLock);
	return attnum;
}

const SfField *
api_field(const Mapping *mapping, const char *name)
{
	const SfField *field;

	if (!mapping->meta)
		return NULL;
	field = describe_field(mapping->meta, name);
	if (!field)
		unknown_field(mapping->meta, "field", name);
	return field;
}

/*
 * Triggers
 */

static bool
has_trigger(Oid relid, const char *name)
{
	return OidIsValid(get_trigger_oid(relid, name, true));
}

static void
make_trigger(Oid relid, const char *trigger, const char *events, const char *function)
{
	char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));

	if (has_trigger(relid, trigger))
		return;
	SPI_execute(psprintf("CREATE TRIGGER %s %s ON %s %s EXECUTE FUNCTION sfsync.%s()", trigger, events, table,
						 strcmp(function, "capture") == 0 ? "FOR EACH ROW" : "FOR EACH STATEMENT", function),
				false, 0);
	SPI_execute(psprintf("ALTER TRIGGER %s ON %s DEPENDS ON EXTENSION sfsync", trigger, table), false, 0);
}

/*
 * Row triggers are cloned to partitions by the server; those of TRUNCATE are
 * not, and a partition can be truncated by itself.
 */
void
api_attach_triggers(Oid relid)
{
	SqlScope	scope;
	ListCell   *lc;
	List	   *relids = find_all_inheritors(relid, NoLock, NULL);

	sql_open(&scope, false);
	make_trigger(relid, CAPTURE_TRIGGER, "AFTER INSERT OR UPDATE OR DELETE", "capture");
	foreach(lc, relids)
		make_trigger(lfirst_oid(lc), TRUNCATE_TRIGGER, "BEFORE TRUNCATE", "capture_truncate");
	sql_close(&scope);
}

static void
detach_triggers(Oid relid)
{
	SqlScope	scope;
	ListCell   *lc;
	List	   *relids = find_all_inheritors(relid, NoLock, NULL);

	sql_open(&scope, false);
	foreach(lc, relids)
	{
		Oid			child = lfirst_oid(lc);
		char	   *table = quote_qualified_identifier(get_namespace_name(get_rel_namespace(child)), get_rel_name(child));

		if (child == relid && has_trigger(child, CAPTURE_TRIGGER))
			SPI_execute(psprintf("DROP TRIGGER %s ON %s", CAPTURE_TRIGGER, table), false, 0);
		if (has_trigger(child, TRUNCATE_TRIGGER))
			SPI_execute(psprintf("DROP TRIGGER %s ON %s", TRUNCATE_TRIGGER, table), false, 0);
	}
	sql_close(&scope);
}

/*
 * create_mapping
 */

typedef struct NewMapping
{
	char	   *name;
	Oid			source;
	char	   *server;
	char	   *object;
	char	   *external_id;
	Oid			owner;
	List	   *keys;
	char	   *on_delete;
	char	   *conflict_policy;
	char	   *new_columns;
	char	   *updated_at_column;
} NewMapping;

static void
check_duplicate(const NewMapping *new)
{
	SqlScope	scope;
	char	   *other = NULL;

	if (mapping_find(new->name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("mapping \"%s\" exists already", new->name),
				 errhint("Pass another name, change it with sfsync.alter_mapping, or end it with sfsync.drop_mapping.")));
	sql_open(&scope, true);
	if (SQL_RUN(&scope, "SELECT name FROM sfsync.mapping WHERE source::oid = $1 AND server = $2 AND object = $3",
				sql_arg_oid(new->source), sql_arg_name(new->server), sql_arg_text(new->object)) > 0)
		other = sql_text(&scope, 0, 1);
	sql_close(&scope);
	if (other)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("table \"%s\" is mapped to object %s already", get_rel_name(new->source), new->object),
				 errdetail("Mapping \"%s\" does so.", other)));
}

static const char insert_query[] =
"INSERT INTO sfsync.mapping (name, source, server, object, external_id, owner, key_columns, key_attnums,"
" attnums_of, on_delete, conflict_policy, new_columns, updated_at_column, known_columns)"
" VALUES ($1, $2::oid::regclass, $3, $4, $5, $6::oid::regrole, $7, $8, $2, $9, $10, $11, $12,"
" ARRAY(SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = $2 AND attnum > 0 AND NOT attisdropped))"
" RETURNING id";

static int
insert_mapping(const NewMapping *new)
{
	SqlScope	scope;
	int			n = list_length(new->keys);
	char	  **keys = palloc(sizeof(char *) * n);
	int16	   *attnums = palloc(sizeof(int16) * n);
	int			id;

	for (int i = 0; i < n; i++)
	{
		keys[i] = list_nth(new->keys, i);
		attnums[i] = get_attnum(new->source, keys[i]);
	}
	sql_open(&scope, false);
	SQL_RUN(&scope, insert_query, sql_arg_text(new->name), sql_arg_oid(new->source), sql_arg_name(new->server),
			sql_arg_text(new->object), sql_arg_text(new->external_id), sql_arg_oid(new->owner),
			sql_arg_names(keys, n), sql_arg_smallints(attnums, n), sql_arg_text(new->on_delete),
			sql_arg_text(new->conflict_policy), sql_arg_text(new->new_columns),
			sql_arg_name(new->updated_at_column));
	id = sql_int(0, 1);
	SQL_RUN(&scope, "INSERT INTO sfsync.mapping_state (mapping) VALUES ($1)", sql_arg_int(id));
	sql_close(&scope);
	return id;
}

/* Queue a backfill; changed NULL: whole rows. */
int64
api_start_backfill(int mapping, int64 rows, const uint8 *changed, int changed_len)
{
	SqlScope	scope;
	int64		id;

	sql_open(&scope, false);
	SQL_RUN(&scope, "INSERT INTO sfsync.backfill_job (mapping, rows_total, changed) VALUES ($1, $2, $3) RETURNING id",
			sql_arg_int(mapping), sql_arg_bigint(rows), sql_arg_bytes(changed, changed ? changed_len : -1));
	id = sql_bigint(0, 1);
	sql_close(&scope);
	shmem_wake_at_commit();
	return id;
}

static void
check_new_mapping(FunctionCallInfo fcinfo, NewMapping *new, Relation rel)
{
	ForeignServer *server;

	new->object = api_text(fcinfo, 1);
	new->external_id = api_text(fcinfo, 2);
	new->on_delete = api_text(fcinfo, 3);
	new->name = PG_ARGISNULL(5) ? pstrdup(RelationGetRelationName(rel)) : api_text(fcinfo, 5);
	new->conflict_policy = PG_ARGISNULL(8) ? pstrdup("newest_wins") : api_text(fcinfo, 8);
	new->new_columns = PG_ARGISNULL(9) ? pstrdup("auto") : api_text(fcinfo, 9);
	new->updated_at_column = api_name(fcinfo, 11);
	if (new->name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("argument \"name\" must not be empty")));
	api_check_name("object", new->object);
	api_check_name("external_id", new->external_id);
	check_delete_policy(new->on_delete);
	if (!PG_ARGISNULL(7))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"delete_values\" goes with on_delete 'archive' or 'deactivate' only")));
	check_conflict_policy(new->conflict_policy);
	check_new_columns(new->new_columns);
	refuse_filter(api_text(fcinfo, 10));
	server = choose_server(api_name(fcinfo, 4));
	new->server = server->servername;
	new->owner = superuser() ? rel->rd_rel->relowner : GetUserId();
	check_rights(new->owner, new->source, server);
	new->keys = PG_ARGISNULL(6) ? primary_key(rel) : given_key(rel, PG_GETARG_ARRAYTYPE_P(6));
	if (new->updated_at_column)
		check_updated_at(rel, new->updated_at_column);
	check_object(new->server, &new->object, &new->external_id);
	check_duplicate(new);
}

PG_FUNCTION_INFO_V1(sfsync_create_mapping);

Datum
sfsync_create_mapping(PG_FUNCTION_ARGS)
{
	NewMapping	new = {0};
	Relation	rel;
	int			id;

	api_require(fcinfo, 0, "source");
	api_require(fcinfo, 1, "object");
	api_require(fcinfo, 2, "external_id");
	api_require(fcinfo, 3, "on_delete");
	new.source = PG_GETARG_OID(0);
	rel = open_source(new.source);
	check_new_mapping(fcinfo, &new, rel);
	id = insert_mapping(&new);
	relation_close(rel, NoLock);
	api_attach_triggers(new.source);
	fence_bind(new.server);
	mapping_changed(new.source);
	CommandCounterIncrement();
	if (PG_ARGISNULL(12) || PG_GETARG_BOOL(12))
		(void) api_start_backfill(id, source_row_count(mapping_get(id)), NULL, 0);
	shmem_wake_at_commit();
	PG_RETURN_TEXT_P(cstring_to_text(new.name));
}

/*
 * alter_mapping, set_delete_policy
 */

void
api_lock_source(const Mapping *mapping)
{
	if (mapping->source_name)
		LockRelationOid(mapping->source, ShareRowExclusiveLock);
}

void
api_changed(const Mapping *mapping)
{
	mapping_changed(mapping->source);
	shmem_wake_at_commit();
}

static void
check_zone(const char *zone)
{
	if (!pg_tzset(zone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"timestamp_zone\": \"%s\"", zone),
				 errdetail("It must be a time zone, as pg_timezone_names lists them."),
				 errhint("For example UTC, or Europe/Vienna.")));
}

static const char alter_query[] =
"UPDATE sfsync.mapping SET conflict_policy = coalesce($2, conflict_policy), new_columns = coalesce($3, new_columns),"
" updated_at_column = CASE WHEN $4 IS NULL THEN updated_at_column ELSE NULLIF($4, '')::name END,"
" timestamp_zone = coalesce($5, timestamp_zone) WHERE id = $1";

PG_FUNCTION_INFO_V1(sfsync_alter_mapping);

Datum
sfsync_alter_mapping(PG_FUNCTION_ARGS)
{
	Mapping    *mapping;
	SqlScope	scope;
	char	   *policy = api_text(fcinfo, 1);
	char	   *columns = api_text(fcinfo, 2);
	char	   *updated_at = api_name(fcinfo, 4);
	char	   *zone = api_text(fcinfo, 5);

	api_require(fcinfo, 0, "mapping");
	mapping = api_mapping(api_text(fcinfo, 0));
	if (policy)
		check_conflict_policy(policy);
	if (columns)
		check_new_columns(columns);
	refuse_filter(api_text(fcinfo, 3));
	if (!PG_ARGISNULL(6) && PG_GETARG_BOOL(6))
		api_unsupported("capture_replicated", "true", "Rows that arrive by logical replication are not captured.");
	if (zone)
		check_zone(zone);
	api_lock_source(mapping);
	if (updated_at && updated_at[0] != '\0')
	{
		Relation	rel = table_open(mapping->source, NoLock);

		check_updated_at(rel, updated_at);
		table_close(rel, NoLock);
	}
	sql_open(&scope, false);
	SQL_RUN(&scope, alter_query, sql_arg_int(mapping->id), sql_arg_text(policy), sql_arg_text(columns),
			sql_arg_text(updated_at), sql_arg_text(zone));
	sql_close(&scope);
	api_changed(mapping);
	PG_RETURN_TEXT_P(cstring_to_text(mapping->name));
}

PG_FUNCTION_INFO_V1(sfsync_set_delete_policy);

Datum
sfsync_set_delete_policy(PG_FUNCTION_ARGS)
{
	Mapping    *mapping;
	SqlScope	scope;
	char	   *on_delete = api_text(fcinfo, 1);
	char	   *on_truncate = api_text(fcinfo, 3);

	api_require(fcinfo, 0, "mapping");
	mapping = api_mapping(api_text(fcinfo, 0));
	if (on_delete)
		check_delete_policy(on_delete);
	if (!PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument \"delete_values\" goes with on_delete 'archive' or 'deactivate' only")));
	if (on_truncate)
		api_choice("on_truncate", on_truncate, truncate_policies, lengthof(truncate_policies));
	if (on_truncate && strcmp(on_truncate, "apply") == 0)
		api_unsupported("on_truncate", on_truncate, "Use DELETE instead of TRUNCATE.");
	if (!PG_ARGISNULL(4))
		api_unsupported("delete_guard", psprintf("%d", PG_GETARG_INT32(4)), "Leave the argument out.");
	sql_open(&scope, false);
	SQL_RUN(&scope, "UPDATE sfsync.mapping SET on_delete = coalesce($2, on_delete) WHERE id = $1",
			sql_arg_int(mapping->id), sql_arg_text(on_delete));
	sql_close(&scope);
	api_changed(mapping);
	PG_RETURN_TEXT_P(cstring_to_text(mapping->name));
}

/*
 * drop_mapping
 */

static void
refuse_pending(SqlScope *scope, const Mapping *mapping)
{
	int64		pending;

	SQL_RUN(scope, "SELECT (SELECT pg_catalog.count(*) FROM sfsync.queue WHERE mapping = $1)"
			" + (SELECT pg_catalog.count(*) FROM sfsync.deferred WHERE mapping = $1)", sql_arg_int(mapping->id));
	pending = sql_bigint(0, 1);
	if (pending > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("mapping \"%s\" has pending changes", mapping->name),
				 errdetail_plural("%lld change has not reached Salesforce.", "%lld changes have not reached Salesforce.",
								  (unsigned long) pending, (long long) pending),
				 errhint("Wait with sfsync.wait_for_sync, or pass discard_pending => true to give them up.")));
}

static void
delete_mapping(const Mapping *mapping, bool discard)
{
	SqlScope	scope;

	sql_open(&scope, false);
	if (!discard)
		refuse_pending(&scope, mapping);
	SQL_RUN(&scope, "DELETE FROM sfsync.queue WHERE mapping = $1", sql_arg_int(mapping->id));
	SQL_RUN(&scope, "DELETE FROM sfsync.deferred WHERE mapping = $1", sql_arg_int(mapping->id));
	SQL_RUN(&scope, "DELETE FROM sfsync.record WHERE mapping = $1", sql_arg_int(mapping->id));
	SQL_RUN(&scope, "DELETE FROM sfsync.intent WHERE mapping = $1", sql_arg_int(mapping->id));
	SQL_RUN(&scope, "UPDATE sfsync.dead_letter SET status = 'discarded', resolved_at = pg_catalog.clock_timestamp(),"
			" note = 'the mapping was dropped' WHERE mapping = $1 AND status IN ('open', 'retrying')",
			sql_arg_text(mapping->name));
	SQL_RUN(&scope, "DELETE FROM sfsync.mapping WHERE id = $1", sql_arg_int(mapping->id));
	sql_close(&scope);
}

static bool
is_mapped(Oid relid)
{
	SqlScope	scope;
	bool		mapped;

	sql_open(&scope, true);
	mapped = SQL_RUN(&scope, "SELECT FROM sfsync.mapping WHERE source::oid = $1", sql_arg_oid(relid)) > 0;
	sql_close(&scope);
	return mapped;
}

PG_FUNCTION_INFO_V1(sfsync_drop_mapping);

Datum
sfsync_drop_mapping(PG_FUNCTION_ARGS)
{
	Mapping    *mapping;
	Oid			source;
	bool		exists;

	api_require(fcinfo, 0, "mapping");
	mapping = api_mapping(api_text(fcinfo, 0));
	source = mapping->source;
	exists = mapping->source_name != NULL;
	api_lock_source(mapping);
	delete_mapping(mapping, !PG_ARGISNULL(1) && PG_GETARG_BOOL(1));
	CommandCounterIncrement();
	if (exists && !is_mapped(source))
		detach_triggers(source);
	mapping_changed(source);
	shmem_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * Backfills
 */

PG_FUNCTION_INFO_V1(sfsync_backfill);

Datum
sfsync_backfill(PG_FUNCTION_ARGS)
{
	Mapping    *mapping;

	api_require(fcinfo, 0, "mapping");
	mapping = api_mapping(api_text(fcinfo, 0));
	refuse_filter(api_text(fcinfo, 1));
	if (!mapping->source_name)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mapping \"%s\" can't be backfilled", mapping->name),
				 errdetail("%s", mapping->broken)));
	PG_RETURN_INT64(api_start_backfill(mapping->id, source_row_count(mapping), NULL, 0));
}

PG_FUNCTION_INFO_V1(sfsync_cancel_backfill);

Datum
sfsync_cancel_backfill(PG_FUNCTION_ARGS)
{
	SqlScope	scope;
	char	   *name = NULL;
	bool		cancelled;

	sql_open(&scope, true);
	if (SQL_RUN(&scope, "SELECT m.name FROM sfsync.backfill_job b JOIN sfsync.mapping m ON m.id = b.mapping WHERE b.id = $1",
				sql_arg_bigint(PG_GETARG_INT64(0))) == 1)
		name = sql_text(&scope, 0, 1);
	sql_close(&scope);
	if (!name)
		PG_RETURN_BOOL(false);
	(void) api_mapping(name);
	sql_open(&scope, false);
	cancelled = SQL_RUN(&scope, "UPDATE sfsync.backfill_job SET state = 'cancelled', finished_at = pg_catalog.clock_timestamp()"
						" WHERE id = $1 AND state = 'running'", sql_arg_bigint(PG_GETARG_INT64(0))) > 0;
	sql_close(&scope);
	shmem_wake_at_commit();
	PG_RETURN_BOOL(cancelled);
}
