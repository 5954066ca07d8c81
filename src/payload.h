/*
 * payload.h
 *		A row as a record to send: which fields, and their values.
 */
#ifndef SFSYNC_PAYLOAD_H
#define SFSYNC_PAYLOAD_H

#include "mapping.h"
#include "rest.h"
#include "source.h"

typedef enum PayloadUse
{
	PAYLOAD_CREATE, /* the record may not exist yet */
	PAYLOAD_UPDATE  /* it exists */
} PayloadUse;

/*
 * Make the record of a row.  changed (a bitmap by attribute number - 1) limits
 * it to fields fed by those columns; NULL: all.  False when values can't be
 * coerced: then error has the code of the first, a message (columns, reasons)
 * and all their fields, and record holds the other fields.  palloc'd.
 */
extern bool payload_build(const Mapping *mapping, const SourceRow *row, const char *external_id,
						  const uint8 *changed, int changed_len, PayloadUse use, RestRecord *record,
						  RestError *error);

/* Of a row whose filter failed. */
extern void payload_filter_error(const SourceRow *row, RestError *error);

/* Key of the parent that a lookup field refers to; NULL if the foreign key is null. */
extern char *payload_parent_key(const MappingField *field, const SourceRow *row);

/* When the row was changed, as its updated_at_column tells; otherwise if it doesn't. */
extern int64 payload_updated_at(const Mapping *mapping, const SourceRow *row, int64 otherwise);

/* The record as JSON text. */
extern char *payload_json(const Mapping *mapping, const RestRecord *record);

/* Is the external ID a number field, whose values are sent bare? */
extern bool payload_key_is_number(const Mapping *mapping);

#endif /* SFSYNC_PAYLOAD_H */
