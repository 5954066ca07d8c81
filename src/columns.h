/*
 * columns.h
 *		What the rows of a mapped table give: its columns, the expressions of
 *		rules, and the filter.
 */
#ifndef SFSYNC_COLUMNS_H
#define SFSYNC_COLUMNS_H

#include "mapping.h"
#include "utils/rel.h"

/* What a rule has instead of a column. */
typedef struct RuleExpression
{
	char *text; /* NULL: a column feeds the field */
	int ncolumns;
	char **columns; /* that it used when it was last good */
} RuleExpression;

/*
 * Virtual generated columns are not stored: no trigger sees them change, only
 * what they are made of.  The function is called with each of them and each
 * column that it is made of, by their numbers.
 */
typedef void (*VirtualColumnFunction)(AttrNumber column, AttrNumber input, void *arg);

extern bool columns_have_virtual(TupleDesc desc);
extern void columns_each_virtual(TupleDesc desc, VirtualColumnFunction function, void *arg);

/* Fill in columns and filter of a mapping, in the current context; one expression a rule. */
extern void columns_read(Mapping *mapping, Relation rel, const RouteRule *rules,
						 const RuleExpression *expressions, int nrules);

/* Set a field's inputs, once its column is known. */
extern void columns_set_inputs(const Mapping *mapping, MappingField *field);

#endif /* SFSYNC_COLUMNS_H */
