/*
 * expression.h
 *		SQL expressions over the row of a mapped table: of map_field, and filters.
 *
 * They are parsed, like everything that is run for a mapping, as its owner, in a
 * security-restricted operation, with pg_catalog alone in the search_path.  What
 * is kept is the text as the server prints it: columns by their bare names,
 * everything outside pg_catalog by its schema.  A text travels with dumps, which
 * a parse tree doesn't.
 */
#ifndef SFSYNC_EXPRESSION_H
#define SFSYNC_EXPRESSION_H

#include "access/attnum.h"
#include "subxact.h"
#include "utils/rel.h"

typedef struct Expression
{
	char *text; /* as it is kept */
	Oid type;
	int32 typmod;
	char *type_name;
	int ncolumns; /* that it uses */
	AttrNumber *attnums;
	char **names;
} Expression;

/*
 * An expression from the user's text; errors name the argument.  is_filter: it
 * must be boolean.  palloc'd.
 */
extern Expression *expression_parse(Relation rel, Oid owner, const char *argument, const char *text,
									bool is_filter);

/* One that is kept; NULL with the reason if it can't be used any more.  palloc'd. */
extern Expression *expression_resolve(Relation rel, Oid owner, const char *text, bool is_filter,
									  char **reason);

/* Renamed columns: mappings' expressions and filters get their new names. */
extern void expression_follow_renames(void);

/*
 * Run a step in a subtransaction; NULL if all is well, else what is wrong,
 * palloc'd.  Cancellation, lack of resources, and errors that are not of the
 * user's code are thrown on.
 */
extern char *expression_guard(SubxactStep step, void *arg);

#endif /* SFSYNC_EXPRESSION_H */
