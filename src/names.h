/*
 * names.h
 *		Which names of columns and fields mean the same, and which are near
 *		enough for a hint.  Pure.
 *
 * Case is never told apart, by ASCII's rules in any locale.
 */
#ifndef SFSYNC_NAMES_H
#define SFSYNC_NAMES_H

#include "field.h"

/* The ways in which a name finds a field, the closest first. */
typedef enum NameKind
{
	NAME_EXACT, /* the API name */
	NAME_LOOSE, /* underscores don't count either */
	NAME_CUSTOM /* nor do __c and a package's namespace */
} NameKind;

typedef struct FieldName
{
	NameKind kind;
	char *key;        /* the form that is compared */
	int field;        /* index into the object's fields */
	const char *name; /* of that field, for a stable order */
} FieldName;

typedef struct NameIndex
{
	const SfObject *object;
	int n;
	FieldName *entries; /* by kind, key, name */
} NameIndex;

/* Of all fields of an object, which must stay.  palloc'd. */
extern NameIndex names_index(const SfObject *object);

/* The fields that a name finds in this way: the first, and in *n how many there are. */
extern const FieldName *names_find(const NameIndex *index, NameKind kind, const char *name, int *n);

/* Index of the field with that API name; -1 if there is none. */
extern int names_find_field(const NameIndex *index, const char *name);

/*
 * Would a column of this name find a custom or standard field of that one?  The
 * field needn't exist (any more).  *kind is NAME_LOOSE or NAME_CUSTOM.
 */
extern bool names_alike(const char *column, const char *field, NameKind *kind);

/* A name without what says that it refers: account_id, AccountId and Account__c are alike.  palloc'd. */
extern char *names_fold_reference(const char *name);

/* "a, b, c" for messages; palloc'd. */
extern char *names_list(const char *const *names, int n);

/* Nearest of the candidates to name by edit distance, NULL if none is near. */
extern const char *nearest_match(const char *name, const char *const *candidates, int n);

/* Name of the object's field that is nearest; NULL. */
extern const char *nearest_field(const SfObject *object, const char *name);

#endif /* SFSYNC_NAMES_H */
