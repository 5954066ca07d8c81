/*
 * canonical.h
 *		The form of values in which ours and Salesforce's are compared
 *		(design, section 6).  Pure.
 *
 * It undoes what Salesforce does to a value that it stores, so that what was
 * sent and what reads back for it are one text, and an echo is never taken for
 * an edit.  In doubt two spellings count as one: a person's edit that changes
 * nothing but what is undone here is not seen.
 *
 * Hashes of canonical texts are kept in tables and dumps.  The form must
 * not change from release to release, nor with the architecture, the locale,
 * the server's encoding or what a describe says of picklists.
 */
#ifndef SFSYNC_CANONICAL_H
#define SFSYNC_CANONICAL_H

#include "field.h"

/*
 * The canonical text of a field's value, palloc'd; NULL for null and for what
 * Salesforce stores as null.  The value may be one that is sent (FV_ABSENT is
 * none) or one that was read: FV_NULL, FV_BOOL, FV_NUMBER and FV_STRING, as
 * its JSON has it.  What can't be read as its field's type is taken as text.
 *
 * A lookup by the parent's external ID is known only as that key, "ext:KEY":
 * resolve it to the parent's Id first.
 */
extern char *canonical_value(const FieldValue *value, const SfField *field);

/*
 * Can what is sent be found again in what is read?  Not in fields that
 * Salesforce rewrites (HTML), masks (encrypted) or answers with a link to the
 * data (base64).
 */
extern bool canonical_comparable(const SfField *field);

/* 64 bits of a canonical text; 0 for NULL, and for NULL alone. */
extern uint64 canonical_hash(const char *canonical);

#endif /* SFSYNC_CANONICAL_H */
