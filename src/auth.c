/*
 * auth.c
 *		Access tokens: the request that asks for one and what comes back.
 *
 * Nothing of a secret goes into an error, and buffers that hold one are sized
 * at once, since growing would leave a copy behind.
 */
#define SFSYNC_USE_JSON_C
#include "compat.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "lib/stringinfo.h"

#include "auth.h"
#include "rest_internal.h"
#include "rest_json.h"
#include "url.h"

#define TOKEN_PATH "/services/oauth2/token"
#define JWT_GRANT "urn:ietf:params:oauth:grant-type:jwt-bearer"
#define JWT_LIFETIME 180 /* seconds; Salesforce takes about that much at most */
#define MIN_RSA_BITS 2048
#define MAX_TOKEN 12000 /* header lines are bounded at 16,384 bytes in all */
#define MAX_ERROR_TEXT 300

/* ----------------------------------------------------------------
 * The request
 * ----------------------------------------------------------------
 */

static void
wipe(char *text)
{
	if (text == NULL)
		return;
	explicit_bzero(text, strlen(text));
	pfree(text);
}

/* application/x-www-form-urlencoded: all but the unreserved is escaped. */
static void
append_field(StringInfo form, const char *name, const char *value)
{
	if (value == NULL)
		return;
	if (form->len > 0)
		appendStringInfoChar(form, '&');
	appendStringInfo(form, "%s=", name);
	rest_append_encoded(form, value);
}

static size_t
field_room(const char *value)
{
	return value == NULL ? 0 : 3 * strlen(value);
}

/* base64url without padding (RFC 7515). */
static char *
base64url(const unsigned char *data, size_t len)
{
	char *text = palloc(4 * ((len + 2) / 3) + 1);
	char *c;

	EVP_EncodeBlock((unsigned char *) text, data, (int) len);
	for (c = text; *c != '\0'; c++)
	{
		if (*c == '+')
			*c = '-';
		else if (*c == '/')
			*c = '_';
		else if (*c == '=')
			*c = '\0';
	}
	return text;
}

/* A server process has nobody to ask for a passphrase. */
static int
refuse_passphrase(char *buf, int size, int writing, void *asked)
{
	*(bool *) asked = true;
	return -1;
}

static EVP_PKEY *
read_private_key(const char *pem, char **error)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = NULL;
	bool asked = false;

	if (bio != NULL)
		key = PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, &asked);
	BIO_free(bio);
	ERR_clear_error();
	if (key == NULL)
	{
		*error = pstrdup(asked ? "the private key is protected by a passphrase"
							   : "the private key is not a private key in PEM format");
		return NULL;
	}
	if (EVP_PKEY_get_base_id(key) != EVP_PKEY_RSA)
		*error = pstrdup("the private key is not an RSA key");
	else if (EVP_PKEY_get_bits(key) < MIN_RSA_BITS)
		*error = psprintf("the private key has %d bits, fewer than the %d that Salesforce takes",
						  EVP_PKEY_get_bits(key), MIN_RSA_BITS);
	else
		return key;
	EVP_PKEY_free(key);
	return NULL;
}

/* RS256 over text; NULL when libcrypto can't. */
static char *
sign(EVP_PKEY *key, const char *text)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	unsigned char *signature = palloc(EVP_PKEY_get_size(key));
	size_t len = EVP_PKEY_get_size(key);
	char *encoded = NULL;

	if (context != NULL && EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
		EVP_DigestSign(context, signature, &len, (const unsigned char *) text, strlen(text)) == 1)
		encoded = base64url(signature, len);
	EVP_MD_CTX_free(context);
	ERR_clear_error();
	pfree(signature);
	return encoded;
}

static bool
add_string(json_object *object, const char *name, const char *value)
{
	json_object *string = json_object_new_string(value);

	if (string != NULL && json_object_object_add(object, name, string) == 0)
		return true;
	json_object_put(string);
	return false;
}

static bool
add_number(json_object *object, const char *name, int64 value)
{
	json_object *number = json_object_new_int64(value);

	if (number != NULL && json_object_object_add(object, name, number) == 0)
		return true;
	json_object_put(number);
	return false;
}

/* The claims, encoded; NULL when out of memory. */
static char *
jwt_claims(const ServerOptions *options, const Credentials *credentials, int64 now)
{
	json_object *claims = json_object_new_object();
	const char *text = NULL;
	char *encoded = NULL;

	if (claims != NULL && add_string(claims, "iss", credentials->client_id) &&
		add_string(claims, "sub", credentials->username) &&
		add_string(claims, "aud", options->jwt_audience) && add_number(claims, "exp", now + JWT_LIFETIME))
		text =
			json_object_to_json_string_ext(claims, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	if (text != NULL)
		encoded = base64url((const unsigned char *) text, strlen(text));
	json_object_put(claims);
	return encoded;
}

/* header.claims.signature; NULL and *error when the key can't be used. */
static char *
jwt(const ServerOptions *options, const Credentials *credentials, int64 now, char **error)
{
	static const char header[] = "{\"alg\":\"RS256\"}";
	EVP_PKEY *key;
	char *claims;
	char *signature = NULL;
	char *unsigned_part;

	if (credentials->private_key == NULL || credentials->username == NULL)
	{
		*error = pstrdup("auth_flow jwt_bearer needs a username and a private key");
		return NULL;
	}
	claims = jwt_claims(options, credentials, now);
	if (claims == NULL)
	{
		*error = pstrdup("out of memory");
		return NULL;
	}
	key = read_private_key(credentials->private_key, error);
	if (key == NULL)
		return NULL;
	unsigned_part = psprintf("%s.%s", base64url((const unsigned char *) header, strlen(header)), claims);
	signature = sign(key, unsigned_part);
	EVP_PKEY_free(key);
	if (signature == NULL)
	{
		*error = pstrdup("signing with the private key failed");
		return NULL;
	}
	return psprintf("%s.%s", unsigned_part, signature);
}

AuthCall *
auth_call(const ServerOptions *options, const Credentials *credentials, int64 now, char **error)
{
	AuthCall *call;
	StringInfoData form;
	char *assertion = NULL;

	*error = NULL;
	if (credentials->flow == AUTH_JWT_BEARER)
	{
		assertion = jwt(options, credentials, now, error);
		if (assertion == NULL)
			return NULL;
	}

	initStringInfo(&form);
	enlargeStringInfo(&form, (int) (256 + field_room(credentials->client_id) +
									field_room(credentials->client_secret) +
									field_room(credentials->refresh_token) + field_room(assertion)));
	switch (credentials->flow)
	{
		case AUTH_CLIENT_CREDENTIALS:
			append_field(&form, "grant_type", "client_credentials");
			append_field(&form, "client_id", credentials->client_id);
			append_field(&form, "client_secret", credentials->client_secret);
			break;
		case AUTH_JWT_BEARER:
			append_field(&form, "grant_type", JWT_GRANT);
			append_field(&form, "assertion", assertion);
			break;
		case AUTH_REFRESH_TOKEN:
			append_field(&form, "grant_type", "refresh_token");
			append_field(&form, "client_id", credentials->client_id);
			append_field(&form, "client_secret", credentials->client_secret);
			append_field(&form, "refresh_token", credentials->refresh_token);
			break;
	}
	wipe(assertion);

	call = palloc(sizeof(AuthCall));
	call->url = psprintf("%s%s", options->login_url, TOKEN_PATH);
	call->body = form.data;
	call->body_len = form.len;
	return call;
}

void
auth_call_wipe(AuthCall *call)
{
	if (call == NULL)
		return;
	explicit_bzero(call->body, call->body_len);
	pfree(call->body);
	pfree(call->url);
	pfree(call);
}

/* ----------------------------------------------------------------
 * The reply
 * ----------------------------------------------------------------
 */

/* One bounded line of ASCII, whatever the peer and the database speak. */
static char *
printable(const char *text)
{
	char *copy = pnstrdup(text, MAX_ERROR_TEXT);
	char *c;

	for (c = copy; *c != '\0'; c++)
	{
		if (*c < 0x20 || *c >= 0x7f)
			*c = (*c == '\n' || *c == '\t' || *c == '\r') ? ' ' : '?';
	}
	return copy;
}

static AuthToken *
parse_refusal(int http_status, json_object *object, ErrorScope *scope, char **error)
{
	const char *code = rest_plain_string(rest_member(object, "error"));
	const char *description = rest_plain_string(rest_member(object, "error_description"));

	*scope = error_classify_oauth(http_status, code, description);
	if (code != NULL && description != NULL)
		*error = psprintf("login refused: %s: %s", printable(code), printable(description));
	else if (code != NULL)
		*error = psprintf("login refused: %s", printable(code));
	else if (http_status >= 300 && http_status < 400)
	{
		/* Salesforce redirects from names that are no longer the org's. */
		*scope = SCOPE_CONNECTION;
		*error = psprintf("login refused: login_url answers with a redirect (HTTP status %d)", http_status);
	}
	else
		*error = psprintf("login refused: HTTP status %d", http_status);
	return NULL;
}

/* It becomes part of a header line. */
static bool
is_token(const char *token)
{
	size_t len = strlen(token);
	const char *c;

	if (len == 0 || len > MAX_TOKEN)
		return false;
	for (c = token; *c != '\0'; c++)
	{
		if (*c <= 0x20 || *c >= 0x7f)
			return false;
	}
	return true;
}

static const char *
instance_url_refused(const char *instance_url, const char *login_url)
{
	if (pg_strncasecmp(login_url, "https:", 6) == 0 && pg_strncasecmp(instance_url, "https:", 6) != 0)
		return "login_url is https";
	return url_refused(instance_url);
}

/* The identity URL ends in /id/<organization>/<user>. */
static void
parse_identity(const char *identity, char **organization_id, char **user_id)
{
	const char *organization = identity == NULL ? NULL : strstr(identity, "/id/");
	const char *user;
	char *copy;

	if (organization == NULL)
		return;
	organization += strlen("/id/");
	user = strchr(organization, '/');
	if (user == NULL || user - organization > 18)
		return;
	copy = pnstrdup(organization, user - organization);
	*organization_id = rest_id18(copy);
	*user_id = rest_id18(user + 1);
	pfree(copy);
}

static AuthToken *
parse_token(json_object *object, const char *login_url, ErrorScope *scope, char **error)
{
	const char *access_token = rest_plain_string(rest_member(object, "access_token"));
	const char *instance_url = rest_plain_string(rest_member(object, "instance_url"));
	const char *reason;
	AuthToken *token;

	*scope = SCOPE_SERVER;
	if (access_token == NULL || instance_url == NULL)
	{
		*error = psprintf("login failed: the reply has no %s",
						  access_token == NULL ? "access_token" : "instance_url");
		return NULL;
	}
	if (!is_token(access_token))
	{
		*error = pstrdup("login failed: the access_token in the reply is not one");
		return NULL;
	}
	reason = instance_url_refused(instance_url, login_url);
	if (reason != NULL)
	{
		*scope = SCOPE_CONNECTION;
		*error = psprintf("login failed: the reply's instance_url \"%s\" is refused: %s",
						  printable(instance_url), reason);
		return NULL;
	}

	token = palloc0(sizeof(AuthToken));
	token->access_token = pstrdup(access_token);
	token->instance_url = url_without_slashes(instance_url);
	parse_identity(rest_plain_string(rest_member(object, "id")), &token->organization_id, &token->user_id);
	return token;
}

/* json-c frees its strings as they are; don't leave the token in the heap. */
static void
wipe_member(json_object *object, const char *name)
{
	const char *text = rest_plain_string(rest_member(object, name));

	if (text != NULL)
		explicit_bzero(unconstify(char *, text), strlen(text));
}

AuthToken *
auth_parse(int http_status, const char *body, size_t len, const char *login_url, ErrorScope *scope,
		   char **error)
{
	json_object *object = rest_parse_json(body, len);
	AuthToken *token;

	*error = NULL;
	*scope = SCOPE_SERVER;
	if (http_status != 200)
		token = parse_refusal(http_status, object, scope, error);
	else if (!json_object_is_type(object, json_type_object))
	{
		*error = pstrdup("login failed: the reply is not a JSON object");
		token = NULL;
	}
	else
		token = parse_token(object, login_url, scope, error);
	wipe_member(object, "access_token");
	wipe_member(object, "refresh_token");
	json_object_put(object);
	return token;
}

bool
auth_parse_user(const char *body, size_t len, AuthUser *user)
{
	json_object *object = rest_parse_json(body, len);
	const char *organization_id = rest_plain_string(rest_member(object, "organization_id"));
	const char *user_id = rest_plain_string(rest_member(object, "user_id"));
	const char *username = rest_plain_string(rest_member(object, "preferred_username"));

	memset(user, 0, sizeof(AuthUser));
	parse_identity(rest_plain_string(rest_member(object, "sub")), &user->organization_id, &user->user_id);
	if (organization_id != NULL)
		user->organization_id = rest_id18(organization_id);
	if (user_id != NULL)
		user->user_id = rest_id18(user_id);
	if (username != NULL)
		user->username = printable(username);
	json_object_put(object);
	return user->user_id != NULL;
}
