/*
 * secret.h
 *		Options of servers and user mappings: the validator, reading them, and
 *		the files that hold secrets (design, section 2.1).
 */
#ifndef SFSYNC_SECRET_H
#define SFSYNC_SECRET_H

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

typedef struct Credentials
{
	AuthFlow flow;
	char *client_id;
	char *client_secret; /* NULL where the flow needs none */
	char *username;
	char *private_key; /* PEM */
	char *refresh_token;
} Credentials;

/* Options of a server of the wrapper sfsync, defaults filled in.  palloc'd; throws. */
extern ServerOptions *server_options(Oid serverid);

/*
 * Credentials of a role on a server: its own user mapping, else PUBLIC's.
 * Reads the files.  palloc'd; throws with SQLSTATE, DETAIL and HINT when there
 * is no user mapping, an option is missing or a file can't be used.
 */
extern Credentials *credentials_load(Oid serverid, Oid userid);

/* Overwrites the secrets; the struct is of no use afterwards. */
extern void credentials_wipe(Credentials *credentials);

/*
 * May this URL be asked?  https with a host; http only for loopback addresses
 * (127.0.0.0/8, ::1, localhost); no user, query or fragment.  NULL if so, else
 * the reason (a constant).  Pure.
 */
extern const char *url_refused(const char *url);

/* SQL: sfsync.options_validator(text[], oid), the wrapper's validator. */

#endif /* SFSYNC_SECRET_H */
