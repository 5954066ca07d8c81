/*
 * foreground.h
 *		Asking Salesforce from a session of a user: a login of its own, one
 *		request at a time, cancellable.  What goes wrong is raised.
 */
#ifndef SFSYNC_FOREGROUND_H
#define SFSYNC_FOREGROUND_H

#include "auth.h"
#include "http.h"
#include "rest.h"
#include "credentials.h"

typedef struct Foreground
{
	ServerOptions *options;
	Oid owner; /* whose user mapping is used */
	HttpClient *client;
	MemoryContext context; /* of the token */
	AuthToken *token;
	HttpReply *reply; /* the last one; not palloc'd */
} Foreground;

/* Logs in.  session is zeroed before; the caller closes it in a PG_FINALLY, whatever happens. */
extern void foreground_open(Foreground *session, Oid serverid, Oid owner);
extern void foreground_close(Foreground *session);

/*
 * Ask, and ask again where that may help: after a new login when the session
 * ended, and a few times while the server is away.  Raises what is left, and
 * when the org's calls are used up to the server's api_budget.  The reply is
 * good until the next one.
 */
extern const HttpReply *foreground_ask(Foreground *session, const RestCall *call);

/* Whose login it is; NULL if Salesforce doesn't tell. */
extern const char *foreground_user(Foreground *session);

/*
 * The same step by step, for who tells what goes wrong otherwise: open without
 * a login; ask once, whatever comes back, with the server's CA and the timeouts
 * filled in; ask for a token (the call is wiped), or false and a sentence.
 */
extern void foreground_start(Foreground *session, Oid serverid, Oid owner);
extern HttpReply *foreground_perform(Foreground *session, HttpRequest *request);
extern bool foreground_take_token(Foreground *session, AuthCall *call, char **error);

/* What to do about a private key of which auth_call can't make use. */
#define FOREGROUND_KEY_HINT "Use an RSA key of 2048 bits or more in PEM format, without a passphrase."

#endif /* SFSYNC_FOREGROUND_H */
