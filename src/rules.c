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
						errdetail("Records are found by it."),
						errhint("The key columns feed it; no other column can.")));
	if (field && !field->createable && !field->updateable)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("field \"%s\" of object %s is read-only", field->name, mapping->object),
			 errdetail("It is a formula or system field, or the integration user may not edit it."),
			 errhint("Grant the user edit access and run sfsync.refresh_schema(), or map another field.")));
}

static const char *const null_rules[] = {"clear", "keep"};
static const char *const overlong_rules[] = {"reject", "truncate"};
static const char *const field_policies[] = {"newest_wins", "strict", "source_wins", "fill_if_empty",
											 "create_only"};

static void
check_rule(FunctionCallInfo fcinfo, const char *null_rule, const char *overlong)
{
	char *policy = api_text(fcinfo, 6);

	if (PG_ARGISNULL(2) == PG_ARGISNULL(3))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("exactly one of the arguments \"column_name\" and \"expression\" must be given"),
			 errdetail("A field is fed by a column, or by an SQL expression over the columns of the row."),
			 errhint("For example: column_name => 'price', or expression => 'price * 1.2'.")));
	api_choice("null_rule", null_rule, null_rules, lengthof(null_rules));
	api_choice("overlong", overlong, overlong_rules, lengthof(overlong_rules));
	if (policy)
		api_choice("conflict_policy", policy, field_policies, lengthof(field_policies));
}

static char *
text_or(FunctionCallInfo fcinfo, int i, const char *otherwise)
{
	char *value = api_text(fcinfo, i);

	return value ? value : pstrdup(otherwise);
}

/* exclude_column says "never sent": what is made of the column would be. */
static void
refuse_excluded(const Mapping *mapping, const Expression *expression)
{
	SqlScope scope;
	char *column = NULL;

	sql_open_latest(&scope);
	if (SQL_RUN(
			&scope,
			"SELECT column_name FROM sfsync.rule WHERE mapping = $1 AND field IS NULL AND column_name = ANY ($2)"
			" ORDER BY column_name",
			sql_arg_int(mapping->id), sql_arg_names(expression->names, expression->ncolumns)) > 0)
		column = sql_text(&scope, 0, 1);
	sql_close(&scope);
	if (column)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("column \"%s\" is excluded from mapping \"%s\"", column, mapping->name),
						errdetail("Argument \"expression\" uses it: %s", expression->text),
						errhint("Allow it with sfsync.reset_column first.")));
}

static const char number_query[] =
	"SELECT coalesce((SELECT r.attnum::pg_catalog.int4 FROM sfsync.rule r WHERE r.mapping = $1"
	" AND pg_catalog.lower(r.field) = pg_catalog.lower($2) AND r.expression = $3),"
	" (SELECT pg_catalog.min(n) FROM pg_catalog.generate_series($4, $4"
	" + (SELECT pg_catalog.count(*)::pg_catalog.int4 FROM sfsync.rule WHERE mapping = $1)"
	" + (SELECT pg_catalog.count(*)::pg_catalog.int4 FROM sfsync.mapping_state s, unnest(s.mapped || s.quarantined) p"
	" WHERE s.mapping = $1)) n"
	" WHERE NOT EXISTS (SELECT FROM sfsync.rule r WHERE r.mapping = $1 AND r.attnum = n)"
	" AND NOT EXISTS (SELECT FROM sfsync.mapping_state s, unnest(s.mapped || s.quarantined) p"
	" WHERE s.mapping = $1 AND p LIKE n || '=%')))";

/*
 * The number by which an expression is told from columns.  Another expression of
 * the same field has another number, so that it is seen to be new (drift.c).
 */
static AttrNumber
expression_number(const Mapping *mapping, const char *field, const Expression *expression)
{
	SqlScope scope;
	int number;

	sql_open(&scope);
	SQL_RUN(&scope, number_query, sql_arg_int(mapping->id), sql_arg_text(field),
			sql_arg_text(expression->text), sql_arg_int(MAPPING_EXPRESSION_ATTNUM));
	number = sql_int(0, 1);
	sql_close(&scope);
	if (number > PG_INT16_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("mapping \"%s\" has too many expressions", mapping->name),
						errdetail("Numbers of expressions are used up, those of former rules included."),
						errhint("Drop the mapping and make it anew.")));
	return number;
}

typedef struct NewRule
{
	const char *field;
	const char *column;           /* NULL: an expression */
	const Expression *expression; /* NULL: a column */
	AttrNumber attnum;
	const char *null_rule;
	const char *overlong;
	const char *policy;
} NewRule;

static const char rule_query[] =
	"INSERT INTO sfsync.rule (mapping, field, column_name, attnum, null_rule, overlong, conflict_policy,"
	" expression, expression_columns, expression_attnums)"
	" VALUES ($1, $2, $3, $4::smallint, $5, $6, $7, $8, coalesce($9, '{}'), coalesce($10, '{}'))";

static void
put_rule(const Mapping *mapping, const NewRule *rule)
{
	const Expression *expression = rule->expression;
	SqlArg names =
		sql_arg_names(expression ? expression->names : NULL, expression ? expression->ncolumns : 0);
	SqlArg attnums =
		sql_arg_smallints(expression ? expression->attnums : NULL, expression ? expression->ncolumns : 0);
	SqlScope scope;

	sql_open(&scope);
	if (rule->column)
		SQL_RUN(&scope, "DELETE FROM sfsync.rule WHERE mapping = $1 AND field IS NULL AND column_name = $2",
				sql_arg_int(mapping->id), sql_arg_name(rule->column));
	SQL_RUN(&scope,
			"DELETE FROM sfsync.rule WHERE mapping = $1 AND pg_catalog.lower(field) = pg_catalog.lower($2)",
			sql_arg_int(mapping->id), sql_arg_text(rule->field));
	SQL_RUN(&scope, rule_query, sql_arg_int(mapping->id), sql_arg_text(rule->field),
			sql_arg_name(rule->column), sql_arg_int(rule->attnum), sql_arg_text(rule->null_rule),
			sql_arg_text(rule->overlong), sql_arg_text(rule->policy),
			sql_arg_text(expression ? expression->text : NULL), names, attnums);
	sql_close(&scope);
}

PG_FUNCTION_INFO_V1(sfsync_map_field);

Datum
sfsync_map_field(PG_FUNCTION_ARGS)
{
	Mapping *mapping;
	const SfField *field;
	char *name = api_text(fcinfo, 1);
	NewRule rule = {.column = api_name(fcinfo, 2), .policy = api_text(fcinfo, 6)};

	rule.null_rule = text_or(fcinfo, 4, "clear");
	rule.overlong = text_or(fcinfo, 5, "reject");
	api_require(fcinfo, 0, "mapping");
	api_require(fcinfo, 1, "field");
	mapping = api_mapping(api_text(fcinfo, 0));
	check_rule(fcinfo, rule.null_rule, rule.overlong);
	api_check_name("field", name);
	field = api_field(mapping, name);
	check_field(mapping, field, name);
	rule.field = field ? field->name : name;
	api_lock_mapping(mapping, AccessShareLock);
	if (rule.column)
		rule.attnum = api_column(mapping, rule.column);
	else
	{
		rule.expression = api_expression(mapping, "expression", api_text(fcinfo, 3), false);
		refuse_excluded(mapping, rule.expression);
		rule.attnum = expression_number(mapping, rule.field, rule.expression);
	}
	put_rule(mapping, &rule);
	if (field)
		drift_begin(mapping, rule.attnum, field);
	api_changed(mapping);
	PG_RETURN_VOID();
}

static void
no_rule(const Mapping *mapping, const char *what, const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
					errmsg("mapping \"%s\" has no explicit rule for %s \"%s\"", mapping->name, what, name),
					errdetail("Only what sfsync.map_field or sfsync.exclude_column has made can be removed."),
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
	api_lock_mapping(mapping, AccessShareLock);
	sql_open(&scope);
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

static void
refuse_used(const Mapping *mapping, const char *column)
{
	SqlScope scope;
	char *field = NULL;
	char *text = NULL;

	sql_open_latest(&scope);
	if (SQL_RUN(
			&scope,
			"SELECT field, expression FROM sfsync.rule WHERE mapping = $1 AND $2 = ANY (expression_columns)"
			" ORDER BY id",
			sql_arg_int(mapping->id), sql_arg_name(column)) > 0)
	{
		field = sql_text(&scope, 0, 1);
		text = sql_text(&scope, 0, 2);
	}
	sql_close(&scope);
	if (field)
		ereport(ERROR, (errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
						errmsg("an expression of mapping \"%s\" uses column \"%s\"", mapping->name, column),
						errdetail("Field %s is fed by %s.", field, text),
						errhint("Remove that rule with sfsync.unmap_field first.")));
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
	refuse_used(mapping, column);
	api_lock_mapping(mapping, AccessShareLock);
	sql_open(&scope);
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
	api_lock_mapping(mapping, AccessShareLock);
	sql_open(&scope);
	SQL_RUN(&scope, "DELETE FROM sfsync.rule WHERE mapping = $1 AND column_name = $2",
			sql_arg_int(mapping->id), sql_arg_name(column));
	sql_close(&scope);
	api_changed(mapping);
	PG_RETURN_VOID();
}
