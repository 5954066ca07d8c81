/*
 * datum.h
 *		Values of PostgreSQL into text that no session setting changes: the
 *		key as it becomes the external ID, and column values for coercion.
 */
#ifndef SFSYNC_DATUM_H
#define SFSYNC_DATUM_H

#include "field.h"

struct pg_tz;

/*
 * Fix the settings on which output functions of types depend, for the current
 * GUC nest level; and a search_path that no user can write to.
 */
extern void datum_fix_settings(void);

/* Does the text of values of this type depend on settings? */
extern bool datum_needs_fixed_settings(Oid type);

/* Which kind values of the type are; domains are looked through. */
extern SourceKind datum_kind(Oid type);

/*
 * A value for coercion, in UTF-8, palloc'd.  zone is the time zone in which
 * timestamp without time zone is read.
 */
extern void datum_read(Datum value, bool isnull, Oid type, const char *zone, SourceValue *out);

/* Text of a key column's value, in the server's encoding, that its type's input reads back. */
extern char *datum_key_text(Datum value, Oid type);

/*
 * A key of the server's encoding in UTF-8.  Where it has no such form, what no
 * field takes, as it is not UTF-8: one value must not keep the others from going.
 */
extern char *datum_key_utf8(const char *key);

/* The way back; characters that the server's encoding lacks become question marks. */
extern char *datum_from_utf8(const char *text);

/*
 * The key: one column's text, or several joined with ':', where ':' and '\'
 * inside are escaped with '\' (design, section 2.2).
 */
extern char *key_join(char *const *parts, int nparts);

/* The parts of a key again; palloc'd.  NULL if there aren't just nparts. */
extern char **key_split(const char *key, int nparts);

#endif /* SFSYNC_DATUM_H */
