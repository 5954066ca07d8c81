/*
 * expression.c
 *		SQL expressions over the row of a mapped table.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "expression.h"
#include "mapping.h"
#include "sfsync.h"
#include "sql.h"

/* What a user sees of an error is said of this. */
typedef struct Argument
{
	const char *name; /* of the function's argument */
	const char *text;
	Relation rel;
} Argument;

/*
 * Guarding
 */

/* Errors that say nothing of the expression, and those that are to end the statement. */
static bool
must_be_thrown(int sqlstate)
{
	if (sqlstate == ERRCODE_LOCK_NOT_AVAILABLE)
		return true;
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK):
		case ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES):
		case ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION):
		case ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR):
		case ERRCODE_TO_CATEGORY(ERRCODE_INTERNAL_ERROR):
			return true;
		default:
			return false;
	}
}

char *
expression_guard(SubxactStep step, void *arg)
{
	ErrorData *error = subxact_try(step, arg);

	if (!error)
		return NULL;
	if (must_be_thrown(error->sqlerrcode))
		ReThrowError(error);
	return pstrdup(error->message ? error->message : "unknown error");
}

/*
 * Parsing
 */

/* Where in the text the error is, not where in the statement that called us; and what to do. */
static void
explain_error(void *arg)
{
	const Argument *argument = arg;
	int position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(argument->text);
	}
	errcontext("argument \"%s\" of mapped table \"%s\"", argument->name,
			   RelationGetRelationName(argument->rel));
	switch (geterrcode())
	{
		case ERRCODE_SYNTAX_ERROR:
			errdetail("Argument \"%s\" must be an SQL expression over the columns of table \"%s\".",
					  argument->name, RelationGetRelationName(argument->rel));
			errhint("For example: price * 1.2");
			break;
		case ERRCODE_UNDEFINED_FUNCTION:
		case ERRCODE_UNDEFINED_OBJECT:
			errdetail(
				"In argument \"%s\" only what is in schema pg_catalog goes by its bare name, and types are not guessed.",
				argument->name);
			errhint("Write the schema of other functions, types and operators, and add type casts.");
			break;
		case ERRCODE_UNDEFINED_COLUMN:
		case ERRCODE_UNDEFINED_TABLE:
			errdetail("Argument \"%s\" must use columns of table \"%s\".", argument->name,
					  RelationGetRelationName(argument->rel));
			break;
		default:
			break;
	}
}

static void
refuse(const Argument *argument, int sqlstate, const char *what, const char *hint)
{
	ereport(
		ERROR,
		(errcode(sqlstate), errmsg("%s in argument \"%s\"", what, argument->name),
		 errdetail("It must be an expression of one row of table \"%s\", with the same result for the same "
				   "row within a statement: %s",
				   RelationGetRelationName(argument->rel), argument->text),
		 errhint("%s", hint)));
}

static void
not_an_expression(const Argument *argument)
{
	ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
					errmsg("argument \"%s\" is not a single expression", argument->name),
					errdetail("It must be an expression as it can stand after SELECT: %s", argument->text),
					errhint("For example: price * 1.2")));
}

static bool
has_subquery(Node *node, void *arg)
{
	return node && (IsA(node, SubLink) || raw_expression_tree_walker(node, has_subquery, arg));
}

/* The grammar of a PL/pgSQL expression takes most clauses of a SELECT as well. */
static Node *
parse_text(const Argument *argument)
{
	List *raw = raw_parser(argument->text, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select;
	ResTarget *target;

	if (list_length(raw) != 1 || !IsA(linitial_node(RawStmt, raw)->stmt, SelectStmt))
		not_an_expression(argument);
	select = (SelectStmt *) linitial_node(RawStmt, raw)->stmt;
	if (list_length(select->targetList) != 1 || select->distinctClause || select->fromClause ||
		select->whereClause || select->groupClause || select->havingClause || select->windowClause ||
		select->sortClause || select->limitOffset || select->limitCount || select->lockingClause ||
		select->withClause || select->valuesLists || select->op != SETOP_NONE)
		not_an_expression(argument);
	target = linitial_node(ResTarget, select->targetList);
	if (target->name || target->indirection ||
		(IsA(target->val, ColumnRef) && IsA(llast(((ColumnRef *) target->val)->fields), A_Star)))
		not_an_expression(argument);
	if (has_subquery(target->val, NULL))
		refuse(argument, ERRCODE_FEATURE_NOT_SUPPORTED, "a subquery is used",
			   "A change of other rows would go unnoticed: keep the value in a column of the table.");
	return target->val;
}

/* Name of each column by number, for a text that was written before a rename. */
static void
use_names(ParseNamespaceItem *item, char *const *names)
{
	ListCell *lc;
	int i = 0;

	foreach(lc, item->p_names->colnames)
		lfirst(lc) = makeString(names[i++]);
}

static void
check_columns(const Argument *argument, Node *node)
{
	Bitmapset *attnums = NULL;
	int member = -1;

	pull_varattnos(node, 1, &attnums);
	while ((member = bms_next_member(attnums, member)) >= 0)
	{
		AttrNumber attnum = member + FirstLowInvalidHeapAttributeNumber;

		if (attnum == InvalidAttrNumber)
			refuse(argument, ERRCODE_FEATURE_NOT_SUPPORTED, "the whole row is used",
				   "Name the columns: a change of one of them is then a change of the expression.");
		if (attnum < 0)
			refuse(argument, ERRCODE_FEATURE_NOT_SUPPORTED, "a system column is used",
				   "Use columns of the table.");
	}
	bms_free(attnums);
}

static void
check_boolean(const Argument *argument, Oid type)
{
	Oid wanted = BOOLOID;

	if (!can_coerce_type(1, &type, &wanted, COERCION_ASSIGNMENT))
		refuse(argument, ERRCODE_DATATYPE_MISMATCH,
			   psprintf("a value of type %s, not boolean, results", format_type_be(type)),
			   "Write a condition, for example: region = 'AT'");
}

static void
check_node(const Argument *argument, const ParseState *pstate, Node *node)
{
	Oid type = exprType(node);

	if (pstate->p_hasAggs)
		refuse(argument, ERRCODE_GROUPING_ERROR, "an aggregate function is used",
			   "Use functions of single values.");
	if (pstate->p_hasWindowFuncs)
		refuse(argument, ERRCODE_WINDOWING_ERROR, "a window function is used",
			   "Use functions of single values.");
	if (expression_returns_set(node))
		refuse(argument, ERRCODE_FEATURE_NOT_SUPPORTED, "a set-returning function is used",
			   "Use functions that return one value, for example array_to_string.");
	if (contain_volatile_functions(node))
		refuse(argument, ERRCODE_INVALID_OBJECT_DEFINITION, "a volatile function is used",
			   "Use functions that are IMMUTABLE or STABLE, and change nothing.");
	if (get_typtype(type) == TYPTYPE_PSEUDO && type != RECORDOID)
		refuse(argument, ERRCODE_DATATYPE_MISMATCH,
			   psprintf("a value of pseudo-type %s results", format_type_be(type)),
			   "Cast it to the type that is meant.");
	check_columns(argument, node);
}

static Node *
transform(const Argument *argument, char *const *names, bool is_filter)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item;
	Node *node;

	pstate->p_sourcetext = argument->text;
	item = addRangeTableEntryForRelation(pstate, argument->rel, AccessShareLock, NULL, false, true);
	if (names)
		use_names(item, names);
	addNSItemToQuery(pstate, item, false, true, true);
	node = transformExpr(pstate, parse_text(argument), EXPR_KIND_OTHER);
	if (is_filter && !expression_returns_set(node))
	{
		check_boolean(argument, exprType(node));
		node = coerce_to_boolean(pstate, node, "filter");
	}
	else if (exprType(node) == UNKNOWNOID)
		node = coerce_type(pstate, node, UNKNOWNOID, TEXTOID, -1, COERCION_IMPLICIT, COERCE_IMPLICIT_CAST,
						   exprLocation(node));
	assign_expr_collations(pstate, node);
	check_node(argument, pstate, node);
	free_parsestate(pstate);
	return node;
}

/* The user's own settings change nothing in what a text means. */
static void
enter(Oid owner, OwnerContext *saved)
{
	sfsync_enter_user(owner, saved);
	(void) set_config_option("standard_conforming_strings", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	(void) set_config_option("transform_null_equals", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

/*
 * text is the expression's, if it is known: printing takes its time where a table
 * has many columns.
 */
static Expression *
make_expression(Relation rel, Node *node, const char *text)
{
	Expression *expression = palloc0(sizeof(Expression));
	Bitmapset *attnums = NULL;
	int member = -1;

	expression->text =
		text ? pstrdup(text)
			 : deparse_expression(node,
								  deparse_context_for(RelationGetRelationName(rel), RelationGetRelid(rel)),
								  false, false);
	expression->type = exprType(node);
	expression->typmod = exprTypmod(node);
	expression->type_name = format_type_with_typemod(expression->type, expression->typmod);
	pull_varattnos(node, 1, &attnums);
	expression->attnums = palloc(sizeof(AttrNumber) * Max(bms_num_members(attnums), 1));
	expression->names = palloc(sizeof(char *) * Max(bms_num_members(attnums), 1));
	while ((member = bms_next_member(attnums, member)) >= 0)
	{
		AttrNumber attnum = member + FirstLowInvalidHeapAttributeNumber;

		expression->attnums[expression->ncolumns] = attnum;
		expression->names[expression->ncolumns++] = get_attname(RelationGetRelid(rel), attnum, false);
	}
	return expression;
}

static Expression *
parse(Relation rel, Oid owner, const char *argument_name, const char *text, bool is_filter, bool is_kept)
{
	Argument argument = {argument_name, text, rel};
	ErrorContextCallback callback = {error_context_stack, explain_error, &argument};
	OwnerContext saved;
	Expression *expression;

	enter(owner, &saved);
	error_context_stack = &callback;
	expression = make_expression(rel, transform(&argument, NULL, is_filter), is_kept ? text : NULL);
	error_context_stack = callback.previous;
	sfsync_leave(&saved);
	return expression;
}

/*
 * What parsing doesn't find: functions that the owner may not call, defaults of
 * arguments that are volatile, constants whose evaluation fails.
 */
static void
try_to_plan(Relation rel, Oid owner, const Expression *expression)
{
	OwnerContext saved;

	enter(owner, &saved);
	SPI_connect();
	if (SPI_execute(psprintf("SELECT (%s) FROM ONLY %s LIMIT 0", expression->text,
							 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
														RelationGetRelationName(rel))),
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not try an expression");
	SPI_finish();
	sfsync_leave(&saved);
}

static void
check_defaults(const Argument *argument, Oid owner)
{
	OwnerContext saved;
	Node *node;

	enter(owner, &saved);
	node = transform(argument, NULL, false);
	if (contain_volatile_functions((Node *) expression_planner((Expr *) node)))
		refuse(argument, ERRCODE_INVALID_OBJECT_DEFINITION,
			   "a volatile function is used as an argument's default", "Pass the argument.");
	sfsync_leave(&saved);
}

Expression *
expression_parse(Relation rel, Oid owner, const char *argument_name, const char *text, bool is_filter)
{
	Expression *expression = parse(rel, owner, argument_name, text, is_filter, false);
	Argument argument = {argument_name, expression->text, rel};
	ErrorContextCallback callback = {error_context_stack, explain_error, &argument};

	error_context_stack = &callback;
	check_defaults(&argument, owner);
	try_to_plan(rel, owner, expression);
	error_context_stack = callback.previous;
	return expression;
}

typedef struct Resolving
{
	Relation rel;
	Oid owner;
	const char *text;
	bool is_filter;
	Expression *result;
} Resolving;

static void
resolve_step(void *arg)
{
	Resolving *resolving = arg;

	resolving->result =
		parse(resolving->rel, resolving->owner, "expression", resolving->text, resolving->is_filter, true);
}

Expression *
expression_resolve(Relation rel, Oid owner, const char *text, bool is_filter, char **reason)
{
	Resolving resolving = {rel, owner, text, is_filter, NULL};

	*reason = expression_guard(resolve_step, &resolving);
	return *reason ? NULL : resolving.result;
}

/*
 * Renames
 */

/* An expression that is kept, with the columns that it had when it was. */
typedef struct Kept
{
	int mapping;
	int rule; /* 0: the filter */
	Oid relid;
	Oid owner;
	char *text;
	char **names;
	int nnames;
	AttrNumber *attnums;
	Expression *result;
} Kept;

static const char kept_query[] =
	"SELECT m.id, 0, m.source::oid, m.owner::oid, m.filter, m.filter_columns, m.filter_attnums::text[]"
	" FROM sfsync.mapping m WHERE m.attnums_of = m.source::oid AND m.filter IS NOT NULL"
	" UNION ALL"
	" SELECT m.id, r.id, m.source::oid, m.owner::oid, r.expression, r.expression_columns,"
	" r.expression_attnums::text[] FROM sfsync.rule r JOIN sfsync.mapping m ON m.id = r.mapping"
	" WHERE m.attnums_of = m.source::oid AND r.expression IS NOT NULL";

static Kept *
read_kept(int *n)
{
	SqlScope scope;
	Kept *kept;

	sql_open_latest(&scope);
	*n = SQL_RUN0(&scope, kept_query);
	kept = MemoryContextAllocZero(scope.caller, sizeof(Kept) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		int nattnums;
		char **attnums;

		kept[i].mapping = sql_int(i, 1);
		kept[i].rule = sql_int(i, 2);
		kept[i].relid = sql_oid(i, 3);
		kept[i].owner = sql_oid(i, 4);
		kept[i].text = sql_text(&scope, i, 5);
		kept[i].names = sql_texts(&scope, i, 6, &kept[i].nnames);
		attnums = sql_texts(&scope, i, 7, &nattnums);
		kept[i].nnames = Min(kept[i].nnames, nattnums);
		kept[i].attnums = MemoryContextAlloc(scope.caller, sizeof(AttrNumber) * Max(nattnums, 1));
		for (int a = 0; a < nattnums; a++)
			kept[i].attnums[a] = atoi(attnums[a]);
	}
	sql_close(&scope);
	return kept;
}

static bool
is_renamed(const Kept *kept)
{
	for (int i = 0; i < kept->nnames; i++)
	{
		char *name = get_attname(kept->relid, kept->attnums[i], true);

		if (name && strcmp(name, kept->names[i]) != 0)
			return true;
	}
	return false;
}

/* Read it with the names that it knows; print it with those that the table has. */
static void
follow_step(void *arg)
{
	Kept *kept = arg;
	Relation rel = relation_open(kept->relid, AccessShareLock);
	int natts = RelationGetNumberOfAttributes(rel);
	char **names = palloc(sizeof(char *) * Max(natts, 1));
	Argument argument = {kept->rule ? "expression" : "filter", kept->text, rel};
	OwnerContext saved;

	for (int i = 0; i < natts; i++)
		names[i] = ""; /* as dropped columns are called: nothing finds it */
	for (int i = 0; i < kept->nnames; i++)
		if (kept->attnums[i] > 0 && kept->attnums[i] <= natts)
			names[kept->attnums[i] - 1] = kept->names[i];
	enter(kept->owner, &saved);
	kept->result = make_expression(rel, transform(&argument, names, kept->rule == 0), NULL);
	sfsync_leave(&saved);
	relation_close(rel, NoLock);
}

static void
keep(const Kept *kept)
{
	const Expression *expression = kept->result;
	SqlScope scope;

	sql_open(&scope);
	if (kept->rule == 0)
		SQL_RUN(
			&scope,
			"UPDATE sfsync.mapping SET filter = $2, filter_columns = $3, filter_attnums = $4 WHERE id = $1",
			sql_arg_int(kept->mapping), sql_arg_text(expression->text),
			sql_arg_names(expression->names, expression->ncolumns),
			sql_arg_smallints(expression->attnums, expression->ncolumns));
	else
		SQL_RUN(&scope,
				"UPDATE sfsync.rule SET expression = $2, expression_columns = $3, expression_attnums = $4"
				" WHERE id = $1",
				sql_arg_int(kept->rule), sql_arg_text(expression->text),
				sql_arg_names(expression->names, expression->ncolumns),
				sql_arg_smallints(expression->attnums, expression->ncolumns));
	sql_close(&scope);
}

/* One that can't be read any more stays as it is: it is quarantined, with that reason. */
void
expression_follow_renames(void)
{
	int n;
	Kept *kept = read_kept(&n);

	for (int i = 0; i < n; i++)
		if (is_renamed(&kept[i]) && !expression_guard(follow_step, &kept[i]))
			keep(&kept[i]);
}
