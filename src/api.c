/*
 * api.c
 *		What the SQL functions share: arguments, who may do what, triggers of
 *		mapped tables.
 */
#include "compat.h"

#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "capture.h"
#include "names.h"
#include "sfsync.h"
#include "shmem.h"
#include "source.h"
#include "sql.h"

static const char *const delete_policies[] = {"delete", "hard_delete", "archive", "deactivate", "ignore"};
static const char *const conflict_policies[] = {"newest_wins", "strict", "source_wins"};
static const char *const column_policies[] = {"auto", "create_field", "ignore"};

/*
 * Arguments
 */

char *
api_text(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
}

char *
api_json(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : DatumGetCString(DirectFunctionCall1(jsonb_out, PG_GETARG_DATUM(i)));
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
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("argument \"%s\" must not be null", argument),
						errdetail("There is nothing that NULL could mean here."),
						errhint("Pass a value; \\df sfsync.* lists the functions with their arguments.")));
}

void
api_choice(const char *argument, const char *value, const char *const *accepted, int n)
{
	const char *nearest;

	for (int i = 0; i < n; i++)
		if (strcmp(value, accepted[i]) == 0)
			return;
	nearest = nearest_match(value, accepted, n);
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for argument \"%s\": \"%s\"", argument, value),
					errdetail("Accepted values are: %s.", names_list(accepted, n)),
					nearest ? errhint("Perhaps you meant \"%s\".", nearest)
							: errhint("For example: %s => '%s'", argument, accepted[0])));
}

void
api_check_conflict_policy(const char *value)
{
	api_choice("conflict_policy", value, conflict_policies, lengthof(conflict_policies));
}

void
api_check_delete_policy(const char *value)
{
	api_choice("on_delete", value, delete_policies, lengthof(delete_policies));
}

void
api_check_new_columns(const char *value)
{
	api_choice("new_columns", value, column_policies, lengthof(column_policies));
}

/*
 * Who may
 */

static void
just_dropped(const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("mapping \"%s\" does not exist", name),
					errdetail("Another session has just dropped it."),
					errhint("sfsync.status lists the mappings.")));
}

Mapping *
api_mapping(const char *name)
{
	Mapping *mapping = mapping_get(mapping_require(name));

	if (!mapping)
		just_dropped(name);
	if (!has_privs_of_role(GetUserId(), mapping->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must be owner of mapping \"%s\"", name),
				 errdetail("Its owner is role \"%s\".", GetUserNameFromId(mapping->owner, false)),
				 errhint("Use SET ROLE, or ask a member of that role or a superuser.")));
	return mapping;
}

static void
unknown_column(Relation rel, const char *argument, const char *name)
{
	TupleDesc desc = RelationGetDescr(rel);
	const char **names = palloc(sizeof(char *) * Max(desc->natts, 1));
	const char *nearest;
	int n = 0;

	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			names[n++] = NameStr(TupleDescAttr(desc, i)->attname);
	nearest = nearest_match(name, names, n);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of table \"%s\" does not exist", name, RelationGetRelationName(rel)),
			 errdetail("Argument \"%s\" must name columns of the table: %s.", argument, names_list(names, n)),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest)
					 : errhint("Write the name as it is stored, without double quotes.")));
}

AttrNumber
api_column_number(Relation rel, const char *argument, const char *name)
{
	AttrNumber attnum = get_attnum(RelationGetRelid(rel), name);

	if (attnum <= 0)
		unknown_column(rel, argument, name);
	return attnum;
}

void
api_check_updated_at(Relation rel, const char *name)
{
	AttrNumber attnum = api_column_number(rel, "updated_at_column", name);
	Oid type = getBaseType(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid);

	if (type != TIMESTAMPOID && type != TIMESTAMPTZOID)
		ereport(
			ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("column \"%s\" holds no point in time", name),
			 errdetail("Argument \"updated_at_column\" must name a column of type timestamp or timestamptz."),
			 errhint("Name another column, or none.")));
}

/*
 * The object, as far as its metadata are cached
 */

void
api_check_name(const char *argument, const char *value)
{
	bool digit = value[0] >= '0' && value[0] <= '9';

	if (digit || value[0] == '_' || !describe_is_name(value, strlen(value)))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_NAME),
			 errmsg("invalid value for argument \"%s\": \"%s\"", argument, value),
			 errdetail(
				 "It must be an API name of Salesforce: letters, digits and underscores, beginning with a letter."),
			 errhint("For example Account, or Invoice__c.")));
}

void
api_unknown_field(const SfObject *object, const char *argument, const char *name)
{
	const char *nearest = nearest_field(object, name);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("field \"%s\" of object %s does not exist", name, object->name),
			 errdetail("Argument \"%s\" must name a field that the integration user may see.", argument),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest)
					 : errhint("After a change in Salesforce run sfsync.refresh_schema().")));
}

AttrNumber
api_column(const Mapping *mapping, const char *name)
{
	Relation rel = table_open(mapping->source, AccessShareLock);
	AttrNumber attnum = api_column_number(rel, "column_name", name);

	table_close(rel, NoLock);
	return attnum;
}

Expression *
api_expression(const Mapping *mapping, const char *argument, const char *text, bool is_filter)
{
	Relation rel = table_open(mapping->source, AccessShareLock);
	Expression *expression = expression_parse(rel, mapping->owner, argument, text, is_filter);

	table_close(rel, NoLock);
	return expression;
}

const SfField *
api_field(const Mapping *mapping, const char *name)
{
	const SfField *field;

	if (!mapping->meta)
		return NULL;
	field = describe_field(mapping->meta, name);
	if (!field)
		api_unknown_field(mapping->meta, "field", name);
	return field;
}

/*
 * Triggers
 */

bool
api_has_trigger(Oid relid, const char *name)
{
	return OidIsValid(get_trigger_oid(relid, name, true));
}

static void
make_trigger(Oid relid, const char *trigger, const char *events, const char *function)
{
	char *table =
		quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));

	if (api_has_trigger(relid, trigger))
		return;
	SPI_execute(psprintf("CREATE TRIGGER %s %s ON %s %s EXECUTE FUNCTION sfsync.%s()", trigger, events, table,
						 strcmp(function, "capture") == 0 ? "FOR EACH ROW" : "FOR EACH STATEMENT", function),
				false, 0);
	SPI_execute(psprintf("ALTER TRIGGER %s ON %s DEPENDS ON EXTENSION sfsync", trigger, table), false, 0);
}

static char
firing_of(Oid relid, const char *trigger)
{
	Relation rel = table_open(relid, AccessShareLock);
	char firing = '\0';

	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
		if (strcmp(rel->trigdesc->triggers[i].tgname, trigger) == 0)
			firing = rel->trigdesc->triggers[i].tgenabled;
	table_close(rel, NoLock);
	return firing;
}

/* One that somebody disabled stays so: it is reported. */
static void
set_firing(Oid relid, const char *trigger, bool always)
{
	char firing = firing_of(relid, trigger);

	if (firing != (always ? TRIGGER_FIRES_ON_ORIGIN : TRIGGER_FIRES_ALWAYS))
		return;
	SPI_execute(psprintf("ALTER TABLE ONLY %s ENABLE %sTRIGGER %s",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
													get_rel_name(relid)),
						 always ? "ALWAYS " : "", trigger),
				false, 0);
}

static bool
captures_replicated(SqlScope *scope, Oid relid)
{
	return SQL_RUN(scope, "SELECT FROM sfsync.mapping WHERE source::oid = $1 AND capture_replicated",
				   sql_arg_oid(relid)) > 0;
}

/*
 * Row triggers are cloned to partitions by the server; those of TRUNCATE are
 * not, and a partition can be truncated by itself.
 */
void
api_attach_triggers(Oid relid)
{
	SqlScope scope;
	ListCell *lc;
	List *relids = find_all_inheritors(relid, NoLock, NULL);
	bool always;

	sql_open(&scope);
	make_trigger(relid, CAPTURE_TRIGGER, "AFTER INSERT OR UPDATE OR DELETE", "capture");
	foreach(lc, relids)
		make_trigger(lfirst_oid(lc), TRUNCATE_TRIGGER, "BEFORE TRUNCATE", "capture_truncate");
	always = captures_replicated(&scope, relid);
	foreach(lc, relids)
	{
		set_firing(lfirst_oid(lc), CAPTURE_TRIGGER, always);
		set_firing(lfirst_oid(lc), TRUNCATE_TRIGGER, always);
	}
	sql_close(&scope);
}

static int64
start_backfill(int mapping, int64 rows, const uint8 *changed, int changed_len, const char *filter)
{
	SqlScope scope;
	int64 id;

	sql_open(&scope);
	SQL_RUN(&scope,
			"INSERT INTO sfsync.backfill_job (mapping, rows_total, changed, filter) VALUES ($1, $2, $3, $4)"
			" RETURNING id",
			sql_arg_int(mapping), sql_arg_bigint(rows), sql_arg_bytes(changed, changed ? changed_len : -1),
			sql_arg_text(filter));
	id = sql_bigint(0, 1);
	sql_close(&scope);
	shmem_wake_at_commit();
	return id;
}

int64
api_start_backfill(int mapping, int64 rows, const uint8 *changed, int changed_len)
{
	return start_backfill(mapping, rows, changed, changed_len, NULL);
}

int64
api_start_filtered_backfill(int mapping, int64 rows, const char *filter)
{
	return start_backfill(mapping, rows, NULL, 0, filter);
}

/*
 * Changes of mappings
 */

void
api_keep_mapping(const Mapping *mapping)
{
	if (!mapping_hold(mapping->id))
		just_dropped(mapping->name);
}

void
api_lock_mapping(const Mapping *mapping, LOCKMODE mode)
{
	if (mapping->source_name)
		LockRelationOid(mapping->source, ShareRowExclusiveLock);
	(void) lock_mapping(mapping->id, mode, true);
	api_keep_mapping(mapping);
}

void
api_changed(const Mapping *mapping)
{
	mapping_changed(mapping->source);
	shmem_wake_at_commit();
}

void
api_require_metadata(const Mapping *mapping)
{
	if (mapping->broken)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("mapping \"%s\" is blocked", mapping->name), errdetail("%s", mapping->broken),
						errhint("Mend that, then run sfsync.refresh_schema().")));
	if (!mapping->meta)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("metadata of object %s are not cached yet", mapping->object),
						errdetail("Its fields are not known before."),
						errhint("The worker fetches them once it can log in; sfsync.status and "
								"sfsync.check_connection tell what is in its way.")));
}

/*
 * Results
 */

void
api_put_row(ReturnSetInfo *result, int ncolumns, const char *const *texts, const Datum *values)
{
	Datum row[16];
	bool nulls[16];

	for (int i = 0; i < ncolumns; i++)
	{
		nulls[i] = texts[i] == NULL;
		row[i] = values[i] ? values[i] : (nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]));
	}
	tuplestore_putvalues(result->setResult, result->setDesc, row, nulls);
}
