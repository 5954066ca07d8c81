/*
 * credentials.h
 *		What proves to Salesforce who is asking: the options of a user mapping,
 *		and the secrets in files that they name (design, section 2.1).
 */
#ifndef SFSYNC_CREDENTIALS_H
#define SFSYNC_CREDENTIALS_H

#include "options.h"

typedef struct Credentials
{
	AuthFlow flow;
	char *client_id;
	char *client_secret; /* NULL where the flow needs none */
	char *username;
	char *private_key; /* PEM */
	char *refresh_token;
} Credentials;

/*
 * Credentials of a role on a server: its own user mapping, else PUBLIC's.
 * Reads the files.  palloc'd; throws with SQLSTATE, DETAIL and HINT when there
 * is no user mapping, an option is missing or a file can't be used.
 */
extern Credentials *credentials_load(Oid serverid, Oid userid);

/* Overwrites the secrets; the struct is of no use afterwards. */
extern void credentials_wipe(Credentials *credentials);

#endif /* SFSYNC_CREDENTIALS_H */
