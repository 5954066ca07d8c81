/*
 * create.c
 *		create_mapping.
 *
 * Arguments are checked against the catalog and, where metadata are cached,
 * against Salesforce's; nothing here asks Salesforce.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "api.h"
#include "delete_policy.h"
#include "fence.h"
#include "names.h"
#include "options.h"
#include "sfsync.h"
#include "shmem.h"
#include "source.h"
#include "sql.h"

static void
check_rights(Oid owner, Oid relid, ForeignServer *server)
{
	if (!DatumGetBool(DirectFunctionCall3(has_table_privilege_id_id, ObjectIdGetDatum(owner),
										  ObjectIdGetDatum(relid), CStringGetTextDatum("SELECT"))))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for table \"%s\"", get_rel_name(relid)),
						errdetail("The worker reads the table as the mapping's owner, role \"%s\".",
								  GetUserNameFromId(owner, false)),
						errhint("Grant SELECT on the table to that role.")));
	if (!DatumGetBool(DirectFunctionCall3(has_server_privilege_id_id, ObjectIdGetDatum(owner),
										  ObjectIdGetDatum(server->serverid), CStringGetTextDatum("USAGE"))))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for foreign server \"%s\"", server->servername),
						errdetail("The mapping's owner, role \"%s\", may not use the server.",
								  GetUserNameFromId(owner, false)),
						errhint("Grant USAGE on the foreign server to that role.")));
}

static void
refuse_source(Relation rel, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE),
			 errmsg("cannot map \"%s\" to Salesforce", RelationGetRelationName(rel)), errdetail("%s", detail),
			 errhint("The source must be an ordinary or a partitioned table whose rows are logged.")));
}

static Relation
open_source(Oid relid)
{
	Relation rel = try_relation_open(relid, ShareRowExclusiveLock);
	char kind;

	if (!rel)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("table with OID %u does not exist", relid),
						errdetail("Argument \"source\" must be a table."),
						errhint("For example: 'public.account'")));
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
	List *names = NIL;
	ListCell *lc;

	/* rd_pkindex leaves deferrable ones out, before PostgreSQL 18 */
	foreach(lc, RelationGetIndexList(rel))
	{
		HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index form;

		if (!HeapTupleIsValid(tuple))
			continue;
		form = (Form_pg_index) GETSTRUCT(tuple);
		for (int i = 0; i < form->indnkeyatts && form->indisprimary; i++)
			names = lappend(names, get_attname(RelationGetRelid(rel), form->indkey.values[i], false));
		ReleaseSysCache(tuple);
	}
	if (names == NIL)
		no_key(rel);
	return names;
}

static bool
is_unique_on(Oid index, Bitmapset *attnums)
{
	HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Form_pg_index form;
	Bitmapset *keys = NULL;
	bool good;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_index) GETSTRUCT(tuple);
	good = form->indisunique && form->indisvalid && heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
	for (int i = 0; i < form->indnkeyatts; i++)
		keys = bms_add_member(keys, form->indkey.values[i] > 0 ? form->indkey.values[i] : 0);
	ReleaseSysCache(tuple);
	return good && bms_equal(keys, attnums);
}

static List *
given_key(Relation rel, ArrayType *array)
{
	Datum *elements;
	bool *nulls;
	int n;
	List *names = NIL;
	Bitmapset *attnums = NULL;
	ListCell *lc;

	deconstruct_array(array, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char *name = nulls[i] ? pstrdup("") : pstrdup(NameStr(*DatumGetName(elements[i])));
		AttrNumber attnum = api_column_number(rel, "key_columns", name);

		if (!TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attnotnull)
			ereport(
				ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("key column \"%s\" is nullable", name),
				 errdetail(
					 "Columns in argument \"key_columns\" must be NOT NULL: each row needs an external ID."),
				 errhint("Use: ALTER TABLE %s ALTER COLUMN %s SET NOT NULL", RelationGetRelationName(rel),
						 quote_identifier(name))));
		if (bms_is_member(attnum, attnums))
			ereport(ERROR, (errcode(ERRCODE_DUPLICATE_COLUMN),
							errmsg("column \"%s\" appears twice in argument \"key_columns\"", name),
							errdetail("The external ID holds each key column once."),
							errhint("Name each column once.")));
		names = lappend(names, name);
		attnums = bms_add_member(attnums, attnum);
	}
	foreach(lc, RelationGetIndexList(rel))
		if (is_unique_on(lfirst_oid(lc), attnums))
			return names;
	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		 errmsg("key columns of table \"%s\" are not unique", RelationGetRelationName(rel)),
		 errdetail(
			 "Argument \"key_columns\" must be just the columns of a unique constraint or index that is not partial."),
		 errhint("Add a unique constraint on them, or use the primary key.")));
}

static ForeignServer *
choose_server(const char *name)
{
	int n;
	const char **names = server_names(&n);

	if (!name && n == 1)
		return GetForeignServerByName(names[0], false);
	if (!name)
		ereport(
			ERROR,
			(errcode(n == 0 ? ERRCODE_UNDEFINED_OBJECT : ERRCODE_INVALID_PARAMETER_VALUE),
			 n == 0 ? errmsg("there is no sfsync server")
					: errmsg("argument \"server\" is needed: there are %d sfsync servers", n),
			 n == 0 ? errdetail("A mapping delivers to a server, which is a Salesforce org.")
					: errdetail("Accepted values are: %s.", names_list(names, n)),
			 n == 0
				 ? errhint(
					   "Use: CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://...')")
				 : errhint("For example: server => '%s'", names[0])));
	return server_by_name(name);
}

/* Canonical names of object and key field where they are known; and values for its fields. */
static void
check_object(const char *server, char **object, char **external_id, const char *delete_values)
{
	SqlScope scope;
	char *describe = NULL;
	bool known;
	char *error;
	SfObject *meta;
	const SfField *field;

	sql_open_latest(&scope);
	known =
		SQL_RUN(
			&scope,
			"SELECT describe::text, object FROM sfsync.object"
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
				 errmsg("object \"%s\" does not exist in Salesforce, or the integration user may not see it",
						*object),
				 errdetail("Argument \"object\" must name an object that the integration user may see."),
				 errhint("After a change in Salesforce run sfsync.refresh_schema().")));
	*object = meta->name;
	field = describe_field(meta, *external_id);
	if (!field)
		api_unknown_field(meta, "external_id", *external_id);
	if (!field->external_id && !field->id_lookup)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("field \"%s\" of object %s is not an External ID", field->name, meta->name),
			 errdetail("Argument \"external_id\" must name a field by which Salesforce finds records."),
			 errhint("Mark it as External ID and Unique in Salesforce, then run sfsync.refresh_schema().")));
	*external_id = field->name;
	if (delete_values)
		delete_values_check_fields(delete_values, meta, *external_id, "UTC");
}

typedef struct NewMapping
{
	char *name;
	Oid source;
	char *server;
	char *object;
	char *external_id;
	Oid owner;
	List *keys;
	char *on_delete;
	char *delete_values;
	char *conflict_policy;
	char *new_columns;
	char *updated_at_column;
	Expression *filter; /* NULL: none */
} NewMapping;

static void
check_duplicate(const NewMapping *new)
{
	SqlScope scope;
	char *other = NULL;

	if (mapping_find(new->name) != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("mapping \"%s\" exists already", new->name),
			 errdetail("Names of mappings are unique; the name of the table is the default."),
			 errhint(
				 "Pass another name, change it with sfsync.alter_mapping, or end it with sfsync.drop_mapping.")));
	sql_open_latest(&scope);
	if (SQL_RUN(&scope,
				"SELECT name FROM sfsync.mapping WHERE source::oid = $1 AND server = $2 AND object = $3",
				sql_arg_oid(new->source), sql_arg_name(new->server), sql_arg_text(new->object)) > 0)
		other = sql_text(&scope, 0, 1);
	sql_close(&scope);
	if (other)
		ereport(
			ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("table \"%s\" is mapped to object %s already", get_rel_name(new->source), new->object),
			 errdetail("Mapping \"%s\" does so.", other),
			 errhint("Change that with sfsync.alter_mapping, or end it with sfsync.drop_mapping.")));
}

static const char insert_query[] =
	"INSERT INTO sfsync.mapping (name, source, server, object, external_id, owner, key_columns, key_attnums,"
	" attnums_of, on_delete, delete_values, conflict_policy, new_columns, updated_at_column,"
	" filter, filter_columns, filter_attnums, known_columns, table_columns)"
	" VALUES ($1, $2::oid::regclass, $3, $4, $5, $6::oid::regrole, $7, $8, $2, $9, $10, $11, $12, $13,"
	" $14, $15, $16,"
	" ARRAY(SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = $2 AND attnum > 0 AND NOT attisdropped),"
	" ARRAY(SELECT CASE WHEN NOT attisdropped THEN attname END FROM pg_catalog.pg_attribute"
	" WHERE attrelid = $2 AND attnum > 0 ORDER BY attnum))"
	" RETURNING id";

static int
insert_mapping(const NewMapping *new)
{
	SqlScope scope;
	int n = list_length(new->keys);
	char **keys = palloc(sizeof(char *) * n);
	int16 *attnums = palloc(sizeof(int16) * n);
	Expression none = {0};
	const Expression *filter = new->filter ? new->filter : &none;
	int id;

	for (int i = 0; i < n; i++)
	{
		keys[i] = list_nth(new->keys, i);
		attnums[i] = get_attnum(new->source, keys[i]);
	}
	sql_open(&scope);
	SQL_RUN(
		&scope, insert_query, sql_arg_text(new->name), sql_arg_oid(new->source), sql_arg_name(new->server),
		sql_arg_text(new->object), sql_arg_text(new->external_id), sql_arg_oid(new->owner),
		sql_arg_names(keys, n), sql_arg_smallints(attnums, n), sql_arg_text(new->on_delete),
		sql_arg_jsonb(new->delete_values), sql_arg_text(new->conflict_policy), sql_arg_text(new->new_columns),
		sql_arg_name(new->updated_at_column), sql_arg_text(filter->text),
		sql_arg_names(filter->names, filter->ncolumns), sql_arg_smallints(filter->attnums, filter->ncolumns));
	id = sql_int(0, 1);
	SQL_RUN(&scope, "INSERT INTO sfsync.mapping_state (mapping) VALUES ($1)", sql_arg_int(id));
	sql_close(&scope);
	return id;
}

static void
check_new_mapping(FunctionCallInfo fcinfo, NewMapping *new, Relation rel)
{
	ForeignServer *server;
	char *filter = api_text(fcinfo, 10);

	new->object = api_text(fcinfo, 1);
	new->external_id = api_text(fcinfo, 2);
	new->on_delete = api_text(fcinfo, 3);
	new->name = PG_ARGISNULL(5) ? pstrdup(RelationGetRelationName(rel)) : api_text(fcinfo, 5);
	new->conflict_policy = PG_ARGISNULL(8) ? pstrdup("newest_wins") : api_text(fcinfo, 8);
	new->new_columns = PG_ARGISNULL(9) ? pstrdup("auto") : api_text(fcinfo, 9);
	new->updated_at_column = api_name(fcinfo, 11);
	if (new->name[0] == '\0')
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("argument \"name\" must not be empty"),
						errdetail("Mappings are addressed by their names."),
						errhint("Leave it out to use the name of the table.")));
	api_check_name("object", new->object);
	api_check_name("external_id", new->external_id);
	api_check_delete_policy(new->on_delete);
	new->delete_values = api_json(fcinfo, 7);
	delete_values_check(new->on_delete, new->delete_values);
	api_check_conflict_policy(new->conflict_policy);
	api_check_new_columns(new->new_columns);
	server = choose_server(api_name(fcinfo, 4));
	new->server = server->servername;
	new->owner = superuser() ? rel->rd_rel->relowner : GetUserId();
	check_rights(new->owner, new->source, server);
	new->keys = PG_ARGISNULL(6) ? primary_key(rel) : given_key(rel, PG_GETARG_ARRAYTYPE_P(6));
	if (new->updated_at_column)
		api_check_updated_at(rel, new->updated_at_column);
	if (filter && filter[0] != '\0')
		new->filter = expression_parse(rel, new->owner, "filter", filter, true);
	check_object(new->server, &new->object, &new->external_id, new->delete_values);
	check_duplicate(new);
}

PG_FUNCTION_INFO_V1(sfsync_create_mapping);

Datum
sfsync_create_mapping(PG_FUNCTION_ARGS)
{
	NewMapping new = {0};
	Relation rel;
	int id;

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
		(void) api_start_backfill(id, source_row_count(mapping_get(id), NULL), NULL, 0);
	shmem_wake_at_commit();
	PG_RETURN_TEXT_P(cstring_to_text(new.name));
}
