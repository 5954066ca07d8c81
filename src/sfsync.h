/*
 * sfsync.h
 *		Settings and names that all modules of the server side share.
 */
#ifndef SFSYNC_H
#define SFSYNC_H

#define SFSYNC_LIBRARY "sfsync"
#define SFSYNC_SCHEMA "sfsync"
#define SFSYNC_EXTENSION "sfsync"

/* Of the extension's objects that this library works with; as default_version in the control file. */
#define SFSYNC_VERSION "1.0"

/* As an interval of timestamps. */
#define MILLISECONDS(n) (INT64CONST(1000) * (n))

/* Settings (design, section 2.5); times in milliseconds. */
extern bool sfsync_enabled;
extern bool sfsync_capture_enabled;
extern int sfsync_request_timeout;
extern int sfsync_connect_timeout;
extern int sfsync_max_attempts;
extern int sfsync_retry_base_delay;
extern int sfsync_retry_max_delay;
extern int sfsync_schema_ttl;
extern char *sfsync_environment;

/* What history keeps of changes that are settled; times in seconds, 0 for ever. */
typedef enum HistoryLevel
{
	HISTORY_OFF,
	HISTORY_FAILURES,
	HISTORY_ALL
} HistoryLevel;

extern int sfsync_history_level;
extern int sfsync_history_retention;
extern int sfsync_dead_letter_retention;

/* The extension's own relation of that name; InvalidOid where the extension is absent. */
extern Oid sfsync_relation(const char *name);

/*
 * Work on the extension's own tables is done as the extension's owner, so
 * that neither writers of mapped tables nor users of functions need rights on
 * them.  Undone by sfsync_leave, and by an abort of the (sub)transaction.
 */
typedef struct OwnerContext
{
	Oid userid;
	int sec_context;
	int nest_level;
	bool read_only;
} OwnerContext;

/* An error where the extension is not installed. */
extern void sfsync_enter_owner(OwnerContext *saved);

/*
 * The same for code of the user's making (output functions of his types, row
 * security, expressions): as that user, in a security-restricted operation, and
 * unable to write whatever its functions are declared to do.
 */
extern void sfsync_enter_user(Oid userid, OwnerContext *saved);
extern void sfsync_leave(const OwnerContext *saved);

#endif /* SFSYNC_H */
