/*
 * compare.h
 *		Both sides of a comparison, as they are gathered and sorted by key.
 */
#ifndef SFSYNC_COMPARE_H
#define SFSYNC_COMPARE_H

#include "foreground.h"
#include "mapping.h"
#include "utils/tuplesort.h"

/* A mapped field, and where the query has it. */
typedef struct ComparedField
{
	const MappingField *map; /* NULL: can't be compared */
	int value;               /* index of what is asked for it */
	int parent;              /* the same of the parent's external ID; -1: no lookup by it */
	bool case_sensitive;     /* the parent's */
} ComparedField;

typedef struct ComparedUser
{
	char id[19];
	char *name; /* NULL: not known */
} ComparedUser;

typedef struct Comparison
{
	const Mapping *mapping;
	ComparedField *fields; /* one a field of the mapping */
	const char **asked;    /* names for the query */
	int nasked;
	Tuplesortstate *sort;
	TupleDesc desc;
	TupleTableSlot *input;
	TupleTableSlot *slot;
	MemoryContext context;
	MemoryContext page; /* of one page or chunk */
	int64 nrecords;
	ComparedUser *users;
	int nusers;
} Comparison;

/* What is known of a key, in the order in which it comes out of the sort. */
typedef enum ComparedSide
{
	SIDE_PENDING, /* a change of the row is on its way */
	SIDE_SOURCE,
	SIDE_SALESFORCE
} ComparedSide;

/* A field's value on one side. */
typedef struct ComparedValue
{
	bool known;
	uint64 hash; /* of its canonical form */
	char *json;  /* Salesforce's: to be shown, UTF-8 */
} ComparedValue;

/* A line of the sort. */
typedef struct ComparedItem
{
	char *record_key;
	ComparedSide side;
	char *key; /* as the side has it, UTF-8 */
	char *id;
	TimestampTz modified_at;
	char *modified_by;
	ComparedValue *values; /* one a field */
} ComparedItem;

/* No mapping is to be read from here on: the comparison holds on to its own. */
extern void compare_begin(Comparison *comparison, int mapping);

/* Gather.  Pending changes are those that the given snapshot, or the active one, sees. */
extern void compare_take_salesforce(Comparison *comparison, Foreground *session);
extern void compare_take_source(Comparison *comparison);
extern void compare_take_pending(Comparison *comparison, bool latest);

/* Names of the users who changed records last. */
extern void compare_take_users(Comparison *comparison, Foreground *session);
extern char *compare_user(const Comparison *comparison, const char *id);

/* All is gathered; give the memory and the files back. */
extern void compare_sort(Comparison *comparison);
extern void compare_end(Comparison *comparison);

/* In order of key; false at the end.  palloc'd. */
extern bool compare_next(Comparison *comparison, ComparedItem *item);

/* Values of a row, for comparing; record is what would be sent. */
extern ComparedValue *compare_row_values(const Comparison *comparison, const RestRecord *record);

/* The form in which Salesforce compares keys of the mapping. */
extern char *compare_record_key(const Mapping *mapping, const char *key);

#endif /* SFSYNC_COMPARE_H */
