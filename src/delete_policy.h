/*
 * delete_policy.h
 *		What a deleted row means for its record: the policies, and the values
 *		that archive and deactivate set.
 *
 * delete_values is a JSON object of fields and single values.  Two strings stand
 * for something else, as whole values: "$now", the time of the delete, and
 * "$key", the row's external ID.
 */
#ifndef SFSYNC_DELETE_POLICY_H
#define SFSYNC_DELETE_POLICY_H

#include "batch.h"
#include "mapping.h"
#include "rest.h"
#include "utils/timestamp.h"

/* archive and deactivate: the record is updated with delete_values, not deleted. */
extern bool delete_policy_sets_values(const char *on_delete);

/* An error unless the values (JSON text; NULL: none) are there where the policy takes them, and of the right form. */
extern void delete_values_check(const char *on_delete, const char *values);

/* An error unless the object has the fields, they can be written, and take the values. */
extern void delete_values_check_fields(const char *values, const SfObject *meta, const char *external_id,
									   const char *zone);

/* The same as a reason for a mapping to be blocked; NULL if all is well.  palloc'd. */
extern char *delete_values_fault(const char *values, const SfObject *meta, const char *external_id,
								 const char *zone);

/*
 * The fields to set for a row that was deleted at "now" and whose external ID
 * (UTF-8) is key, coerced like column values.  False when one can't be: then
 * error has code, message and field, and record holds the other fields.  The
 * record has neither Id nor external ID yet.  palloc'd; names of fields belong to
 * the mapping.
 */
extern bool delete_values_record(const Mapping *mapping, const char *key, TimestampTz now, RestRecord *record,
								 RestError *error);

/* Does a row's delete wait for a person? */
typedef enum DeleteHold
{
	DELETE_GOES,
	DELETE_HELD,   /* for unit->hold */
	DELETE_NOTHING /* it would be held, but no record is known that it could concern */
} DeleteHold;

/*
 * record_known: under its key, or one that it had before.  in_doubt: requests of
 * unknown outcome may have made one.
 */
extern DeleteHold delete_hold(const Mapping *mapping, const Unit *unit, bool record_known, bool in_doubt);

#endif /* SFSYNC_DELETE_POLICY_H */
