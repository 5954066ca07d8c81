/*
 * columns.c
 *		What the rows of a mapped table give: its columns, the expressions of
 *		rules, and the filter.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "nodes/bitmapset.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "columns.h"
#include "expression.h"

static int
compare_names(const void *a, const void *b, void *arg)
{
	const Mapping *mapping = arg;

	return strcmp(mapping->columns[*(const int *) a].name, mapping->columns[*(const int *) b].name);
}

static void
index_names(Mapping *mapping)
{
	mapping->nnames = mapping->ncolumns;
	mapping->by_name = palloc(sizeof(int) * Max(mapping->ncolumns, 1));
	for (int i = 0; i < mapping->ncolumns; i++)
		mapping->by_name[i] = i;
	qsort_arg(mapping->by_name, mapping->ncolumns, sizeof(int), compare_names, mapping);
}

int
mapping_column(const Mapping *mapping, const char *name)
{
	int low = 0;
	int high = mapping->nnames;

	while (low < high)
	{
		int middle = low + (high - low) / 2;
		int order = strcmp(mapping->columns[mapping->by_name[middle]].name, name);

		if (order == 0)
			return mapping->by_name[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

char *
mapping_column_label(const MappingColumn *column)
{
	return column->expression ? psprintf("expression %s", column->expression)
							  : psprintf("column \"%s\"", column->name);
}

/* Index of a column of the table; they are in the order of their numbers. */
static int
index_of(const Mapping *mapping, AttrNumber attnum)
{
	int low = 0;
	int high = mapping->ncolumns;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (mapping->columns[middle].attnum == attnum)
			return middle;
		if (mapping->columns[middle].attnum < attnum)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

static void
add_input(MappingColumn *column, int input)
{
	for (int i = 0; i < column->ninputs; i++)
		if (column->inputs[i] == input)
			return;
	column->inputs =
		column->inputs ? repalloc(column->inputs, sizeof(int) * (column->ninputs + 1)) : palloc(sizeof(int));
	column->inputs[column->ninputs++] = input;
}

/* The column itself, and what it is made of in its turn. */
static void
add_inputs(const Mapping *mapping, MappingColumn *column, AttrNumber attnum)
{
	int input = index_of(mapping, attnum);

	if (input < 0)
		return;
	add_input(column, input);
	for (int i = 0; i < mapping->columns[input].ninputs; i++)
		add_input(column, mapping->columns[input].inputs[i]);
}

static void
read_columns(Mapping *mapping, TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		MappingColumn *column = &mapping->columns[mapping->ncolumns];

		if (attr->attisdropped)
			continue;
		column->name = pstrdup(NameStr(attr->attname));
		column->attnum = attr->attnum;
		column->type = attr->atttypid;
		column->typmod = attr->atttypmod;
		column->not_null = attr->attnotnull;
		column->type_name = format_type_with_typemod(attr->atttypid, attr->atttypmod);
		mapping->ncolumns++;
	}
}

bool
columns_have_virtual(TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
			return true;
	return false;
}

void
columns_each_virtual(TupleDesc desc, VirtualColumnFunction function, void *arg)
{
	for (int i = 0; desc->constr && i < desc->constr->num_defval; i++)
	{
		const AttrDefault *definition = &desc->constr->defval[i];
		Bitmapset *attnums = NULL;
		int member = -1;

		if (TupleDescAttr(desc, definition->adnum - 1)->attgenerated != ATTRIBUTE_GENERATED_VIRTUAL)
			continue;
		pull_varattnos(stringToNode(definition->adbin), 1, &attnums);
		while ((member = bms_next_member(attnums, member)) >= 0)
			if (member + FirstLowInvalidHeapAttributeNumber > 0)
				function(definition->adnum, member + FirstLowInvalidHeapAttributeNumber, arg);
	}
}

static void
add_virtual_input(AttrNumber column, AttrNumber input, void *arg)
{
	Mapping *mapping = arg;

	add_inputs(mapping, &mapping->columns[index_of(mapping, column)], input);
}

/*
 * A text that is kept, resolved with the table as it is, into column.  Parsing
 * leaves much behind: in a context of its own.
 */
static void
resolve(const Mapping *mapping, Relation rel, bool is_filter, MappingColumn *column)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(context, "sfsync expression", ALLOCSET_SMALL_SIZES);
	Expression *expression;
	char *reason;

	MemoryContextSwitchTo(scratch);
	expression = expression_resolve(rel, mapping->owner, column->expression, is_filter, &reason);
	MemoryContextSwitchTo(context);
	if (expression)
	{
		column->type = expression->type;
		column->typmod = expression->typmod;
		column->type_name = pstrdup(expression->type_name);
		for (int i = 0; i < expression->ncolumns; i++)
			add_inputs(mapping, column, expression->attnums[i]);
	}
	else
		column->broken =
			psprintf("%s can't be evaluated: %s", is_filter ? "filter" : "the expression", reason);
	MemoryContextDelete(scratch);
}

/* Of a broken expression the inputs are told by the rule: their changes are kept until it is mended. */
static void
keep_inputs(const Mapping *mapping, const RuleExpression *expression, MappingColumn *column)
{
	for (int i = 0; i < expression->ncolumns; i++)
	{
		int input = mapping_column(mapping, expression->columns[i]);

		if (input >= 0)
			add_inputs(mapping, column, mapping->columns[input].attnum);
	}
}

static void
read_expressions(Mapping *mapping, Relation rel, const RouteRule *rules, const RuleExpression *expressions,
				 int nrules)
{
	int ncolumns = mapping->ncolumns;

	for (int i = 0; i < nrules; i++)
	{
		MappingColumn *column = &mapping->columns[ncolumns];

		if (!expressions[i].text)
			continue;
		column->name = pstrdup("");
		column->attnum = rules[i].attnum;
		column->type = TEXTOID;
		column->expression = expressions[i].text;
		column->field_name = rules[i].field;
		resolve(mapping, rel, false, column);
		if (column->broken)
			keep_inputs(mapping, &expressions[i], column);
		mapping->evaluates = true;
		ncolumns++;
	}
	mapping->ncolumns = ncolumns;
}

/* Without its filter a mapping can't be used: nobody knows which rows are meant. */
static void
read_filter(Mapping *mapping, Relation rel)
{
	if (!mapping->filter)
		return;
	mapping->filter_uses.attnum = MAPPING_FILTER_ATTNUM;
	mapping->filter_uses.expression = mapping->filter;
	resolve(mapping, rel, true, &mapping->filter_uses);
	mapping->evaluates = true;
	if (mapping->filter_uses.broken && !mapping->broken)
		mapping->broken = mapping->filter_uses.broken;
}

void
columns_read(Mapping *mapping, Relation rel, const RouteRule *rules, const RuleExpression *expressions,
			 int nrules)
{
	TupleDesc desc = RelationGetDescr(rel);

	mapping->columns = palloc0(sizeof(MappingColumn) * Max(desc->natts + nrules, 1));
	read_columns(mapping, desc);
	columns_each_virtual(desc, add_virtual_input, mapping);
	index_names(mapping);
	read_filter(mapping, rel);
	read_expressions(mapping, rel, rules, expressions, nrules);
}

void
columns_set_inputs(const Mapping *mapping, MappingField *field)
{
	MappingColumn all = {0};
	int ncolumns = field->lookup ? field->lookup->ncolumns : 1;
	const int *columns = field->lookup ? field->lookup->columns : &field->column;

	for (int c = 0; c < ncolumns; c++)
	{
		const MappingColumn *column = &mapping->columns[columns[c]];

		add_input(&all, columns[c]);
		for (int i = 0; i < column->ninputs; i++)
			add_input(&all, column->inputs[i]);
	}
	field->inputs = all.inputs;
	field->ninputs = all.ninputs;
}
