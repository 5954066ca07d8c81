/*
 * auth.h
 *		Access tokens: the request that asks for one and what comes back
 *		(reference, section 1).  Builds and parses; the network is http's.
 */
#ifndef SFSYNC_AUTH_H
#define SFSYNC_AUTH_H

#include "errors.h"
#include "credentials.h"

typedef struct AuthToken
{
	char *access_token;
	char *instance_url;    /* held to the rules of login_url, no slash at the end */
	char *organization_id; /* 18 characters, from the identity URL; NULL if absent */
	char *user_id;
} AuthToken;

typedef struct AuthCall
{
	char *url;
	char *body; /* a form; holds secrets: wipe with auth_call_wipe */
	size_t body_len;
} AuthCall;

/*
 * The token request of a flow; now in seconds since the epoch (JWT's exp).
 * NULL and *error when the private key can't be used.
 */
extern AuthCall *auth_call(const ServerOptions *options, const Credentials *credentials, int64 now,
						   char **error);
extern void auth_call_wipe(AuthCall *call);

/*
 * Parse the reply.  NULL, *scope and *error (a sentence without secrets) when
 * it holds no usable token.
 */
extern AuthToken *auth_parse(int http_status, const char *body, size_t len, const char *login_url,
							 ErrorScope *scope, char **error);

typedef struct AuthUser
{
	char *organization_id; /* 18 characters; NULL if absent */
	char *user_id;
	char *username; /* ASCII; NULL if absent */
} AuthUser;

/* Parse the reply of rest_userinfo() (section 1.5); false when it names no user. */
extern bool auth_parse_user(const char *body, size_t len, AuthUser *user);

#endif /* SFSYNC_AUTH_H */
