/*
 * api.h
 *		What the SQL functions share: arguments, and who may do what.
 */
#ifndef SFSYNC_API_H
#define SFSYNC_API_H

#include "expression.h"
#include "fmgr.h"
#include "utils/rel.h"
#include "lock.h"
#include "mapping.h"
#include "nodes/execnodes.h"

/* Argument i as text (type text, jsonb or name); NULL if it is null. */
extern char *api_text(FunctionCallInfo fcinfo, int i);
extern char *api_json(FunctionCallInfo fcinfo, int i);
extern char *api_name(FunctionCallInfo fcinfo, int i);

/* An error unless the argument is not null. */
extern void api_require(FunctionCallInfo fcinfo, int i, const char *argument);

/* An error with the accepted values and the nearest match unless value is one of them. */
extern void api_choice(const char *argument, const char *value, const char *const *accepted, int n);

/* Errors unless the value is one that the contract has, and this version supports. */
extern void api_check_conflict_policy(const char *value);
extern void api_check_delete_policy(const char *value);
extern void api_check_new_columns(const char *value);

/*
 * A mapping by its name, for a change of it: the caller must be its owner, a
 * member of that role, or a superuser.
 */
extern Mapping *api_mapping(const char *name);

/* The columns of a table and the fields of an object, for "does not exist" errors with a hint. */
extern AttrNumber api_column(const Mapping *mapping, const char *name);
extern const SfField *api_field(const Mapping *mapping, const char *name);

/* An expression over the mapped table's row, as map_field and filters take it, or an error. */
extern Expression *api_expression(const Mapping *mapping, const char *argument, const char *text,
								  bool is_filter);

/* The same of an open table, and of an object's metadata. */
extern AttrNumber api_column_number(Relation rel, const char *argument, const char *name);
extern void api_unknown_field(const SfObject *object, const char *argument, const char *name);

/* An error unless the column holds a point in time. */
extern void api_check_updated_at(Relation rel, const char *name);

/* An error unless value has the form of an API name of Salesforce. */
extern void api_check_name(const char *argument, const char *value);

/* Keep the mapping from being dropped until the transaction ends; an error if it just was. */
extern void api_keep_mapping(const Mapping *mapping);

/* The same in a mode of lock.h, and keep writers off the mapped table. */
extern void api_lock_mapping(const Mapping *mapping, LOCKMODE mode);

/* Tell everybody that the mapping is another, and wake the worker, at commit. */
extern void api_changed(const Mapping *mapping);

/*
 * Queue a backfill, of the columns in changed (a bitmap by attribute number - 1;
 * NULL: all).  Returns its id.
 */
extern int64 api_start_backfill(int mapping, int64 rows, const uint8 *changed, int changed_len);

/* The same of rows that pass filter, an expression as it is kept; whole. */
extern int64 api_start_filtered_backfill(int mapping, int64 rows, const char *filter);

/* An error unless metadata are cached and the mapping can be used. */
extern void api_require_metadata(const Mapping *mapping);

/* A row of a set-returning function: texts where values has nothing; NULL is null. */
extern void api_put_row(ReturnSetInfo *result, int ncolumns, const char *const *texts, const Datum *values);

/* Does the relation have a trigger of that name? */
extern bool api_has_trigger(Oid relid, const char *name);

/*
 * Attach the triggers of a mapped table and of its partitions that lack them;
 * they fire always if a mapping captures what is replicated.
 */
extern void api_attach_triggers(Oid relid);

/* End a mapping.  Returns how many changes were given up; an error if there are any, unless discard. */
extern int64 api_drop_mapping(const Mapping *mapping, bool discard);

#endif /* SFSYNC_API_H */
