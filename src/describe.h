/*
 * describe.h
 *		Salesforce's metadata of one object: parsing of a describe reply
 *		(reference, section 3) and the reduced form that is cached.  Pure.
 */
#ifndef SFSYNC_DESCRIBE_H
#define SFSYNC_DESCRIBE_H

#include "field.h"

/*
 * Parse a describe reply, or the reduced form of one.  The result is one
 * palloc'd tree.  NULL and a reason in *error (palloc'd) when the text is not
 * a describe.
 */
extern SfObject *describe_parse(const char *json, size_t len, char **error);

/*
 * The reduced form that is cached: the keys that describe_parse reads and no
 * others.  palloc'd JSON text; NULL and *error as above.
 */
extern char *describe_reduce(const char *json, size_t len, char **error);

/* Field by API name, ignoring case; NULL if the object has none such. */
extern const SfField *describe_field(const SfObject *object, const char *name);

/* Does the field hold numbers, which are sent bare? */
extern bool describe_is_number(const SfField *field);

/* Has a text the form of an API name: letters, digits and underscores? */
extern bool describe_is_name(const char *name, size_t len);

/* Required when a record is created (reference, section 3.3). */
extern bool describe_required(const SfField *field);

#endif /* SFSYNC_DESCRIBE_H */
