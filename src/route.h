/*
 * route.h
 *		The rules that join a table's columns to an object's fields
 *		(design, section 5).  Pure.
 */
#ifndef SFSYNC_ROUTE_H
#define SFSYNC_ROUTE_H

#include "field.h"

/*
 * A foreign key to a table that is mapped too: it fills a lookup by the parent's
 * external ID.
 */
typedef struct RouteLookup
{
	int parent_mapping;
	const char *parent_object;
	const char *parent_external_id;
	bool key_is_number;
	int ncolumns;
	const int *columns; /* indexes, in the order of the parent's key columns */
} RouteLookup;

/* A field that a column fed once, by whatever rule. */
typedef struct RouteFormer
{
	const char *field;
	const char *type_name; /* of the field then, as in SfField; NULL: not known */
} RouteFormer;

typedef struct RouteColumn
{
	const char *name;
	int attnum;
	SourceKind kind;
	const char *type_name;     /* as shown to users */
	const RouteLookup *lookup; /* of the foreign key that ends with this column; NULL */
	bool routable;             /* false: new_columns 'ignore' and added later */
	bool expression;           /* no column, but the expression of a rule, which has its number */
	const char *broken;        /* why the expression can't be evaluated; NULL */
	bool key;                  /* it is, or is part of, the key */
	bool creatable;            /* new_columns 'create_field' and added later */
	const char *creation;      /* how far that is, as a sentence's end; NULL: not begun */
	bool creation_failed;
	int64 create_at; /* not before */
	int nformer;
	const RouteFormer *former;
} RouteColumn;

/* What users said: map_field, exclude_column. */
typedef struct RouteRule
{
	bool exclude;      /* column is never sent; field is NULL */
	int attnum;        /* 0 when the column is gone */
	const char *field; /* as the user wrote it */
	bool keep_null;
	bool truncate;
	char *policy; /* conflict policy of the field; NULL: the mapping's */
} RouteRule;

typedef enum RouteKind
{
	ROUTE_NONE, /* no rule matched */
	ROUTE_EXPLICIT,
	ROUTE_FOREIGN_KEY,
	ROUTE_NAME,
	ROUTE_CUSTOM_NAME,
	ROUTE_EXPRESSION
} RouteKind;

typedef enum RouteStatus
{
	ROUTE_MAPPED,
	ROUTE_UNMATCHED,
	ROUTE_EXCLUDED,
	ROUTE_READ_ONLY,
	ROUTE_INCOMPATIBLE,
	ROUTE_QUARANTINED /* the field or expression of an explicit rule is no good (any more), or what was mapped can't be written */
} RouteStatus;

/*
 * One line of field_map.  A column that feeds several fields has several; an
 * explicit rule replaces the automatic ones of its column and of its field.
 */
typedef struct Route
{
	int column; /* index into the columns given */
	RouteKind rule;
	RouteStatus status;
	const SfField *field;   /* NULL when there is none */
	const char *field_name; /* as known, also where field is NULL; may be NULL */
	char *detail;           /* sentence for users; may be NULL */
	const char *trouble;    /* of a quarantine, in a word or two; of a field that could not be created */
	bool key;               /* the key's own line: nothing else is sent by it */
	bool unknown;           /* a rule names a field that was never there */
	bool wanted;            /* a field is to be created, */
	int64 wanted_at;        /* not before */
	bool keep_null;
	bool truncate;
	char *policy;
	const RouteLookup *lookup; /* ROUTE_FOREIGN_KEY */
} Route;

/*
 * Resolve.  external_id names the field that carries the key: no column is
 * routed to it (a column that would be is unmatched, with that detail).
 * Returns palloc'd routes in column order, *nroutes of them; every column has
 * at least one.
 */
extern Route *route_resolve(const RouteColumn *columns, int ncolumns, const RouteRule *rules, int nrules,
							const SfObject *object, const char *external_id, int *nroutes);

/* Names as field_map shows them. */
extern const char *route_kind_name(RouteKind kind); /* NULL for ROUTE_NONE */
extern const char *route_status_name(RouteStatus status);

#endif /* SFSYNC_ROUTE_H */
