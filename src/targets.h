/*
 * targets.h
 *		What mappings want to know of a relation's rows.
 *
 * For capture's own files; others use capture.h.
 */
#ifndef SFSYNC_TARGETS_H
#define SFSYNC_TARGETS_H

#include "access/attnum.h"
#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "notes.h"
#include "utils/relcache.h"

typedef struct Target
{
	NotedMapping noted; /* the mapping, its table and its guard */
	char *name;
	bool truncate_applies;
	bool replicated;  /* captures what arrives by replication */
	int nkeys;        /* 0: a key column is gone, nothing is captured */
	AttrNumber *keys; /* attribute numbers of the relation at hand */
	Oid *key_types;
	bool fix_settings; /* a key's text depends on them */
	bool *watched;     /* by attribute of the relation at hand */
	AttrNumber *root;  /* its number in the mapped table; NULL: the same */
} Target;

/* Of a relation, as a mapped table or a partition of one.  Valid until the next call for the relation. */
extern const Target *targets_of_relation(Relation rel, int *n);

/* Those of the tables given, as if the relation were a partition of theirs; palloc'd. */
extern const Target *targets_of_tables(Relation rel, List *tables, int *n);

/* A table, and the partitioned tables that it is a partition of. */
extern List *targets_with_ancestors(Oid relid);

/* Does the mapping want what the session does, which may be replication's? */
extern bool targets_wants(const Target *target);

/* A row's key. */
extern char *targets_key(const Target *target, TupleTableSlot *slot);

#endif /* SFSYNC_TARGETS_H */
