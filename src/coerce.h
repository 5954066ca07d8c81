/*
 * coerce.h
 *		A column's value into a field's value (design, section 5).  Pure.
 */
#ifndef SFSYNC_COERCE_H
#define SFSYNC_COERCE_H

#include "field.h"

typedef struct CoerceOptions
{
	bool keep_null; /* null_rule 'keep': NULL leaves the field alone */
	bool truncate;  /* overlong 'truncate' */
} CoerceOptions;

/*
 * Coerce one value.  False, and a reason (palloc'd, one line, without the
 * column's name) in *reason when the field can't take it.  *out is palloc'd.
 */
extern bool coerce_value(const SourceValue *value, const SfField *field, const CoerceOptions *options,
						 FieldValue *out, char **reason);

/*
 * Can values of this kind ever reach a field of this type?  NULL if so, else
 * the reason (a constant) why the column is shown as incompatible.
 */
extern const char *coerce_incompatible(SourceKind kind, const SfField *field);

#endif /* SFSYNC_COERCE_H */
