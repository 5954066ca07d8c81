/*
 * compat.h
 *		The only place that asks for versions of PostgreSQL and of libraries,
 *		and the only way to include json-c.
 *
 * Every source file of sfsync starts with this header instead of postgres.h.
 * The pure modules (see the map of the source in README.md) are also compiled
 * outside the server, by test/unit, with FRONTEND defined.
 */
#ifndef SFSYNC_COMPAT_H
#define SFSYNC_COMPAT_H

#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

/*
 * Symbols are hidden unless marked.  Up to PostgreSQL 15 the macro for
 * SQL-callable functions doesn't mark the function itself.
 */
#if !defined(FRONTEND) && PG_VERSION_NUM < 160000
#include "fmgr.h"
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(funcname)                                                                        \
	extern PGDLLEXPORT Datum funcname(PG_FUNCTION_ARGS);                                                     \
	extern PGDLLEXPORT const Pg_finfo_record *CppConcat(pg_finfo_, funcname)(void);                          \
	const Pg_finfo_record *CppConcat(pg_finfo_, funcname)(void)                                              \
	{                                                                                                        \
		static const Pg_finfo_record my_finfo = {1};                                                         \
		return &my_finfo;                                                                                    \
	}                                                                                                        \
	extern int no_such_variable
#endif

/* pg_b64_encode takes unsigned bytes from PostgreSQL 18 on */
#if PG_VERSION_NUM >= 180000
#define BASE64_INPUT(p) ((const uint8 *) (p))
#else
#define BASE64_INPUT(p) ((const char *) (p))
#endif

/* generated columns that are not stored: from PostgreSQL 18 on */
#if PG_VERSION_NUM < 180000
#define ATTRIBUTE_GENERATED_VIRTUAL 'v'
#endif

#if PG_VERSION_NUM >= 170000
#define MY_PROC_NUMBER MyProcNumber
#else
#define MY_PROC_NUMBER (MyProc->pgprocno)
#endif

/* table_beginscan takes flags from PostgreSQL 19 on */
#if PG_VERSION_NUM >= 190000
#define BEGIN_TABLE_SCAN(rel, snapshot) table_beginscan(rel, snapshot, 0, NULL, 0)
#else
#define BEGIN_TABLE_SCAN(rel, snapshot) table_beginscan(rel, snapshot, 0, NULL)
#endif

/* a descriptor that is made by hand is to be finished from PostgreSQL 19 on */
#if PG_VERSION_NUM >= 190000
#define FINISH_TUPLE_DESC(desc) TupleDescFinalize(desc)
#else
#define FINISH_TUPLE_DESC(desc) ((void) 0)
#endif

/*
 * What a process waits for, as pg_stat_activity shows it: extensions name their
 * waits from PostgreSQL 17 on.  The number of a name is asked for once.
 */
#if PG_VERSION_NUM >= 170000
#define NAMED_WAIT_EVENT(name) WaitEventExtensionNew(name)
#else
#define NAMED_WAIT_EVENT(name) PG_WAIT_EXTENSION
#endif

/*
 * Of utils/pg_locale.h this is all that is needed; since PostgreSQL 17 that
 * header wants ICU's, which come with no package of the server.
 */
#ifndef FRONTEND
struct lconv;
extern struct lconv *PGLC_localeconv(void);
#endif

/*
 * json-c has a type json_object, the server a function of that name: hide the
 * server's declaration behind another name while both headers are read.
 */
#ifdef SFSYNC_USE_JSON_C
#ifndef FRONTEND
#define json_object pg_json_object
#include "utils/fmgrprotos.h"
#undef json_object
#endif
#include <json-c/json.h>
#endif

#endif /* SFSYNC_COMPAT_H */
