/*
 * source_internal.h
 *		Statements on mapped tables in their owner's name: for source.c, which
 *		reads rows by their keys, and source_keys.c.  Others include source.h.
 */
#ifndef SFSYNC_SOURCE_INTERNAL_H
#define SFSYNC_SOURCE_INTERNAL_H

#include "executor/spi.h"

#include "sfsync.h"
#include "source.h"

typedef struct SourceScope
{
	OwnerContext saved;
	MemoryContext caller;
} SourceScope;

/* Everything between runs as the mapping's owner, inside SPI. */
extern void source_open(SourceScope *scope, const Mapping *mapping);
extern void source_close(SourceScope *scope);

/* Run a statement; its result is in SPI_tuptable. */
extern void source_run(const char *query, int nargs, Oid *types, Datum *values);

/* A type's name, qualified and quoted. */
extern char *source_type(Oid type);

/* The operator by which values of a key column (by index) are compared, for a statement. */
typedef enum SourceOrder
{
	SOURCE_EQUAL,
	SOURCE_GREATER
} SourceOrder;

/* Qualified: OPERATOR(schema.=).  palloc'd. */
extern char *source_key_operator(const Mapping *mapping, int i, SourceOrder order);

#endif /* SFSYNC_SOURCE_INTERNAL_H */
