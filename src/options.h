/*
 * options.h
 *		Options of servers and user mappings: which there are and what they take,
 *		and those of a server in force (design, section 2.1).
 */
#ifndef SFSYNC_OPTIONS_H
#define SFSYNC_OPTIONS_H

typedef struct ServerOptions
{
	Oid serverid;
	char *name;
	char *login_url; /* without a slash at the end */
	char *api_version;
	int api_budget;
	int max_concurrent_requests;
	int max_batch_size;
	int bulk_threshold;
	char *jwt_audience; /* resolved default included */
	bool auto_assign;
	bool duplicate_allow_save;
	char *ca_file;     /* NULL: the system's */
	char *environment; /* NULL: none */
} ServerOptions;

typedef enum AuthFlow
{
	AUTH_CLIENT_CREDENTIALS,
	AUTH_JWT_BEARER,
	AUTH_REFRESH_TOKEN
} AuthFlow;

/* Options of a server of the wrapper sfsync, defaults filled in.  palloc'd; throws. */
extern ServerOptions *server_options(Oid serverid);

/* Names of the servers of the wrapper, sorted; palloc'd. */
extern const char **server_names(int *n);

/* One of them, or an error with what else there is. */
extern struct ForeignServer *server_by_name(const char *name);

/* A flow as the option auth_flow spells it. */
extern const char *auth_flow_name(AuthFlow flow);

/*
 * For credentials.c: lists of DefElem, as the catalogs have them
 */

struct List;

/* An option's value; NULL if it isn't set. */
extern const char *option_value(struct List *options, const char *name);

/* An error unless the options of a user mapping go together; which flow they are for. */
extern AuthFlow options_check_user_mapping(struct List *options);

/* Overwrite the secrets in a copy of a user mapping's options. */
extern void options_wipe_secrets(struct List *options);

/* SQL: sfsync.options_validator(text[], oid), the wrapper's validator. */

#endif /* SFSYNC_OPTIONS_H */
