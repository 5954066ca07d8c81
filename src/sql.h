/*
 * sql.h
 *		Statements on the extension's own tables: one way to run them, with
 *		parameters, kept plans, and the rights of the extension's owner.
 */
#ifndef SFSYNC_SQL_H
#define SFSYNC_SQL_H

#include "executor/spi.h"
#include "sfsync.h"
#include "utils/timestamp.h"

typedef struct SqlScope
{
	OwnerContext saved;
	MemoryContext caller; /* results are copied here */
	bool latest;          /* reads with the latest snapshot, whatever the isolation */
} SqlScope;

typedef struct SqlArg
{
	Oid type;
	Datum value;
	bool isnull;
} SqlArg;

/*
 * Everything between runs as the extension's owner, inside SPI.  The latter only
 * reads, but as of now: for configuration, in a transaction with an older snapshot.
 */
extern void sql_open(SqlScope *scope);
extern void sql_open_latest(SqlScope *scope);
extern void sql_close(SqlScope *scope);

/*
 * Run a statement; its text must be a constant, for its plan is kept under its
 * address.  limit 0: all rows.  Returns the number of rows, as SPI_processed.
 */
extern uint64 sql_run(SqlScope *scope, const char *query, const SqlArg *args, int nargs, long limit);

/*
 * The worker's plans scan no bitmaps, but an index on an array's elements can't
 * be used otherwise.  Until the scope is closed.
 */
extern void sql_allow_bitmaps(void);

#define SQL_RUN(scope, query, ...)                                                                           \
	sql_run(scope, query, (const SqlArg[]){__VA_ARGS__}, lengthof(((const SqlArg[]){__VA_ARGS__})), 0)
#define SQL_RUN0(scope, query) sql_run(scope, query, NULL, 0, 0)

/* Arguments. */
extern SqlArg sql_arg_int(int32 value);
extern SqlArg sql_arg_bigint(int64 value);
extern SqlArg sql_arg_bool(bool value);
extern SqlArg sql_arg_oid(Oid value);
extern SqlArg sql_arg_text(const char *value); /* NULL: null */
extern SqlArg sql_arg_name(const char *value);
extern SqlArg sql_arg_jsonb(const char *value); /* JSON text in the server's encoding; NULL: null */
extern SqlArg sql_arg_time(TimestampTz value);  /* 0: null */
extern SqlArg sql_arg_xid(uint64 value);
extern SqlArg sql_arg_bytes(const uint8 *value, int len); /* len < 0: null */
extern SqlArg sql_arg_texts(char *const *values, int n);  /* elements may be NULL */
extern SqlArg sql_arg_names(char *const *values, int n);
extern SqlArg sql_arg_ints(const int32 *values, int n);
extern SqlArg sql_arg_smallints(const int16 *values, int n);
extern SqlArg sql_arg_xids(const uint64 *values, int n);
extern SqlArg sql_arg_times(const TimestampTz *values, int n);
extern SqlArg sql_arg_byteas(uint8 *const *values, const int *lengths, int n); /* elements may be NULL */

/* Text from the network in the server's encoding, what it can't hold as question marks; NULL for NULL. */
extern char *sql_from_utf8(const char *text);

/* Results: column col (from 1) of row row (from 0), copied to the caller's context. */
extern bool sql_isnull(uint64 row, int col);
extern int32 sql_int(uint64 row, int col);
extern int64 sql_bigint(uint64 row, int col);
extern bool sql_bool(uint64 row, int col);
extern Oid sql_oid(uint64 row, int col);
extern char sql_char(uint64 row, int col);
extern TimestampTz sql_time(uint64 row, int col); /* 0 where null */
extern uint64 sql_xid(uint64 row, int col);
extern char *sql_text(SqlScope *scope, uint64 row, int col);             /* any type by its output; NULL */
extern uint8 *sql_bytes(SqlScope *scope, uint64 row, int col, int *len); /* -1 where null */
extern char **sql_texts(SqlScope *scope, uint64 row, int col, int *n);   /* text[] or name[] */
extern TimestampTz *sql_times(SqlScope *scope, uint64 row, int col, int *n); /* timestamptz[]; NULL */

/* A column of all rows, of the statement that ran last, copied to the caller's context. */
extern char **sql_column(SqlScope *scope, int col); /* as sql_text */
extern int *sql_column_ints(SqlScope *scope, int col);
extern Oid *sql_column_oids(SqlScope *scope, int col);

#endif /* SFSYNC_SQL_H */
