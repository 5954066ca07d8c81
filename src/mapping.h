/*
 * mapping.h
 *		Mappings as they are in force: configuration, the table's columns, the
 *		object's metadata, and the fields that result.
 */
#ifndef SFSYNC_MAPPING_H
#define SFSYNC_MAPPING_H

#include "access/attnum.h"
#include "access/htup_details.h"
#include "describe.h"
#include "field.h"
#include "route.h"
#include "utils/timestamp.h"

/*
 * Numbers beside those that columns can have, so that whatever is told of columns
 * (what changed, what is new) can be told of these, too: the filter, and above it
 * the expressions of rules, each with its own (rule.attnum).
 */
#define MAPPING_FILTER_ATTNUM (MaxHeapAttributeNumber + 1)
#define MAPPING_EXPRESSION_ATTNUM (MaxHeapAttributeNumber + 2)

/*
 * What a row gives: a column of the table or, after those, the expression of a
 * rule.  inputs are the columns whose change is a change of it, itself apart.
 */
typedef struct MappingColumn
{
	char *name; /* empty: an expression */
	AttrNumber attnum;
	Oid type;
	int32 typmod;
	char *type_name;
	bool not_null;
	const char *expression; /* as SQL, with bare names of columns; NULL: a column */
	const char *field_name; /* that the expression's rule names */
	char *broken;           /* why the expression can't be evaluated */
	int ninputs;
	int *inputs; /* indexes */
} MappingColumn;

/* A field that is fed, by which column. */
typedef struct MappingField
{
	int column; /* index into columns */
	int ninputs;
	int *inputs; /* indexes of the columns whose change is a change of the field */
	const SfField *field;
	bool keep_null;
	bool truncate;
	const char *policy;        /* its own conflict policy; NULL: the mapping's */
	const RouteLookup *lookup; /* NULL unless it is a lookup by external ID */
	FieldLookup relation;      /* of the lookup */
} MappingField;

typedef struct Mapping
{
	int id;
	char *name;
	Oid source;
	char *source_name; /* qualified and quoted; NULL when the table is gone */
	char *server;
	Oid serverid; /* InvalidOid when the server is gone */
	char *object;
	char *external_id;
	Oid owner;
	char *on_delete;
	char *delete_values; /* JSON of fields to set by archive and deactivate; NULL */
	char *conflict_policy;
	bool checks;    /* records are read before they are written: some field isn't source_wins */
	int updated_at; /* index of the column that tells when a row was changed; -1 none */
	char *zone;
	bool paused;
	int nkeys;
	char **key_columns;
	Oid *key_types;    /* base types */
	bool key_overlaps; /* a transaction may give a key to a row before it takes it from another */
	int ncolumns;      /* expressions included */
	MappingColumn *columns;
	int nnames;
	int *by_name;              /* indexes of the table's columns in the order of names */
	char *filter;              /* as SQL; NULL: none */
	MappingColumn filter_uses; /* inputs of the filter */
	bool evaluates;            /* a filter or an expression: reading a row may fail */
	bool has_metadata;
	TimestampTz metadata_at; /* when the describe was fetched */
	bool refresh_wanted;
	char *last_modified;      /* of the describe, as Salesforce said it; may be NULL */
	RouteLookup **lookups;    /* by column, as in RouteColumn */
	SfObject *meta;           /* NULL: not described yet, or unknown to Salesforce */
	const SfField *key_field; /* the external ID; NULL without meta */
	Route *routes;
	int nroutes;
	MappingField *fields;
	int nfields;
	bool
		locked; /* where it isn't waited for: somebody else has the table, so this is as it was when last read; or,
					  where it never was, what is known without the table: no columns, no fields */
	uint64 digest; /* of all that decides what is read and sent */
	int serial;    /* another when that is another */
	char *broken;  /* why nothing can be sent; NULL if it can */
	MemoryContext context;
} Mapping;

/* Once, in _PG_init. */
extern void mapping_init(void);

/*
 * A mapping from this backend's cache, read again when anything it depends on
 * has changed.  NULL if there is none (any more).  Valid until the end of the
 * transaction, also when it has been read again meanwhile.  Only sessions wait
 * for its table (lock.h): see locked.
 */
extern Mapping *mapping_get(int id);

/* The same, to show it: a session doesn't wait for its table either. */
extern Mapping *mapping_look(int id);

/* The column with that name; -1 if there is none. */
extern int mapping_column(const Mapping *mapping, const char *name);

/* The form in which Salesforce compares the key of a row; palloc'd. */
extern char *mapping_record_key(const Mapping *mapping, const char *key);

/* How messages call a column or expression: column "price", expression price * 1.2. */
extern char *mapping_column_label(const MappingColumn *column);

/* Is the column (by index) one of those that feed the field? */
extern bool mapping_field_uses(const MappingField *field, int column);

/* Id by name; 0 if there is none, or an error with the nearest match. */
extern int mapping_find(const char *name);
extern int mapping_require(const char *name);

/*
 * Keep a mapping from being dropped until the transaction ends (lock.h); false
 * if it is gone, or, where we don't wait, somebody else is about to drop it.
 */
extern bool mapping_hold(int id);

/* All ids, by name; palloc'd. */
extern int *mapping_ids(int *n);

/* Have this backend read a mapping again. */
extern void mapping_forget(int id);

/* Tell every backend that configuration or metadata of a table's mappings changed. */
extern void mapping_changed(Oid source);

/* True once after anything was invalidated in this backend. */
extern bool mapping_was_invalidated(void);

#endif /* SFSYNC_MAPPING_H */
