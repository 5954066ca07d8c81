/*
 * rules.c
 *		Functions that route columns to fields by hand: map_field, unmap_field,
 *		exclude_column, reset_column.
 *
 * A change of rules takes SHARE ROW EXCLUSIVE on the source for its moment: no
 * writer falls between the old rule and the new one.
 */
#include "compat.h"

#include "utils/builtins.h"

#include "api.h"
#include "drift.h"
#include "sql.h"

static void
check_field(const Mapping *mapping, const SfField *field, const char *name)
{
	if (pg_strcasecmp(name, mapping->external_id) == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("field \"%s\" carries the key of mapping \"%s\"", mapping->external_id,
							   mapping->name),
						errhint("The key columns feed it; no other column can.")));
	if (field && !field->createable && !field->updateable)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("field \"%s\" of object %s is read-only", field->name, mapping->object),
				 errdetail("It is a formula or system field, or the integration user may not edit it.")));
}

static const char *const null_rules[] = {"clear", "keep"};
static const char *const overlong_rules[] = {"reject", "truncate"};
static const char *const field_policies[] = {"newest_wins", "strict", "source_wins", "fill_if_empty",
											 "create_only"};

static const char rule_query[] =
	"INSERT INTO sfsync.rule (mapping, field, column_name, attnum, null_rule, overlong, conflict_policy)"
	" VALUES ($1, $2, $3, $4::smallint, $5, $6, $7)"
	" ON CONFLICT (mapping, field) DO UPDATE SET column_name = excluded.column_name, attnum = excluded.attnum,"
	" null_rule = excluded.null_rule, overlong = excluded.overlong, conflict_policy = excluded.conflict_policy";

static void
check_rule(FunctionCallInfo fcinfo, const char *null_rule, const char *overlong)
{
	char *policy = api_text(fcinfo, 6);

	if (PG_ARGISNULL(2) == PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("exactly one of the arguments \"column_name\" and \"expression\" must be given")));
	api_choice("null_rule", null_rule, null_rules, lengthof(null_rules));
	api_choice("overlong", overlong, overlong_rules, lengthof(overlong_rules));
	if (policy)
		api_choice("conflict_policy", policy, field_policies, lengthof(field_policies));
	if (!PG_ARGISNULL(3))
		api_unsupported("expression", api_text(fcinfo, 3),
						"Add a generated column to the table and map that.");
}

static char *
text_or(FunctionCallInfo fcinfo, int i, const char *otherwise)
{
	char *value = api_text(fcinfo, i);

	return value ? value : pstrdup(otherwise);
}

PG_FUNCTION_INFO_V1(sfsync_map_field);

Datum
sfsync_map_field(PG_FUNCTION_ARGS)
{
	Mapping *mapping;
	const SfField *field;
	char *name = api_text(fcinfo, 1);
	char *column = api_name(fcinfo, 2);
	char *null_rule = text_or(fcinfo, 4, "clear");
	char *overlong = text_or(fcinfo, 5, "reject");
	AttrNumber attnum;
	SqlScope scope;

	api_require(fcinfo, 0, "mapping");
	api_require(fcinfo, 1, "field");
	mapping = api_mapping(api_text(fcinfo, 0));
	check_rule(fcinfo, null_rule, overlong);
	api_check_name("field", name);
	field = api_field(mapping, name);
	check_field(mapping, field, name);
	attnum = api_column(mapping, column);
	api_lock_source(mapping);
	sql_open(&scope, false);
	SQL_RUN(&scope, "DELETE FROM sfsync.rule WHERE mapping = $1 AND field IS NULL AND column_name = $2",
			sql_arg_int(mapping->id), sql_arg_name(column));
	SQL_RUN(&scope, rule_query, sql_arg_int(mapping->id), sql_arg_text(field ? field->name : name),
			sql_arg_name(column), sql_arg_int(attnum), sql_arg_text(null_rule), sql_arg_text(overlong),
			sql_arg_text(api_text(fcinfo, 6)));
	sql_close(&scope);
	if (field)
		drift_begin(mapping, attnum, field);
	api_changed(mapping);
	PG_RETURN_VOID();
}

static void
no_rule(const Mapping *mapping, const char *what, const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("mapping \"%s\" has no explicit rule for %s \"%s\"", mapping->name, what, name),
					errhint("sfsync.field_map shows the rule of every column.")));
}

PG_FUNCTION_INFO_V1(sfsync_unmap_field);

Datum
sfsync_unmap_field(PG_FUNCTION_ARGS)
{
	Mapping *mapping;
	SqlScope scope;
	char *field = api_text(fcinfo, 1);
	uint64 n;

	api_require(fcinfo, 0, "mapping");
	api_require(fcinfo, 1, "field");
	mapping = api_mapping(api_text(fcinfo, 0));
	api_lock_source(mapping);
	sql_open(&scope, false);
	n = SQL_RUN(
		&scope,
		"DELETE FROM sfsync.rule WHERE mapping = $1 AND pg_catalog.lower(field) = pg_catalog.lower($2)",
		sql_arg_int(mapping->id), sql_arg_text(field));
	sql_close(&scope);
	if (n == 0)
		no_rule(mapping, "field", field);
	api_changed(mapping);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(sfsync_exclude_column);

Datum
sfsync_exclude_column(PG_FUNCTION_ARGS)
{
	Mapping *mapping;
	SqlScope scope;
	char *column = api_name(fcinfo, 1);
	AttrNumber attnum;

	api_require(fcinfo, 0, "mapping");
	api_require(fcinfo, 1, "column_name");
	mapping = api_mapping(api_text(fcinfo, 0));
	attnum = api_column(mapping, column);
	api_lock_source(mapping);
	sql_open(&scope, false);
	SQL_RUN(&scope, "DELETE FROM sfsync.rule WHERE mapping = $1 AND column_name = $2",
			sql_arg_int(mapping->id), sql_arg_name(column));
	SQL_RUN(&scope, "INSERT INTO sfsync.rule (mapping, column_name, attnum) VALUES ($1, $2, $3::smallint)",
			sql_arg_int(mapping->id), sql_arg_name(column), sql_arg_int(attnum));
	sql_close(&scope);
	api_changed(mapping);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(sfsync_reset_column);

Datum
sfsync_reset_column(PG_FUNCTION_ARGS)
{
	Mapping *mapping;
	SqlScope scope;
	char *column = api_name(fcinfo, 1);

	api_require(fcinfo, 0, "mapping");
	api_require(fcinfo, 1, "column_name");
	mapping = api_mapping(api_text(fcinfo, 0));
	(void) api_column(mapping, column);
	api_lock_source(mapping);
	sql_open(&scope, false);
	SQL_RUN(&scope, "DELETE FROM sfsync.rule WHERE mapping = $1 AND column_name = $2",
			sql_arg_int(mapping->id), sql_arg_name(column));
	sql_close(&scope);
	api_changed(mapping);
	PG_RETURN_VOID();
}
