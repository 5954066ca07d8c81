/*
 * test_auth.c
 *		Token requests of the three flows, replies good and hostile, URLs.
 */
#include "unit.h"

#include <string.h>

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "auth.h"

#define LOGIN "https://acme.my.salesforce.com"

static ServerOptions options = {
	.login_url = LOGIN,
	.jwt_audience = "https://login.salesforce.com",
};

/* A new private key as PEM; the key stays with the caller. */
static char *
make_key(EVP_PKEY **key, const char *type, int bits, const char *passphrase)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *data;
	long len;
	char *pem;

	*key = bits > 0 ? EVP_PKEY_Q_keygen(NULL, NULL, type, (size_t) bits)
					: EVP_PKEY_Q_keygen(NULL, NULL, type, "P-256");
	assert_non_null(*key);
	assert_int_equal(PEM_write_bio_PrivateKey(bio, *key, passphrase ? EVP_aes_128_cbc() : NULL, NULL, 0, NULL,
											  (void *) passphrase),
					 1);
	len = BIO_get_mem_data(bio, &data);
	pem = pnstrdup(data, len);
	BIO_free(bio);
	return pem;
}

static void
expect_body(const Credentials *credentials, const char *expected)
{
	char *error;
	AuthCall *call = auth_call(&options, credentials, 1000, &error);

	assert_non_null(call);
	assert_string_equal(call->url, LOGIN "/services/oauth2/token");
	assert_string_equal(call->body, expected);
	assert_int_equal(call->body_len, strlen(expected));
	auth_call_wipe(call);
}

static void
forms(void **state)
{
	Credentials client = {AUTH_CLIENT_CREDENTIALS, "3MVG9.a_b~c-d", "s+&=/ %\xc3\xbc", NULL, NULL, NULL};
	Credentials refresh = {AUTH_REFRESH_TOKEN, "id", NULL, NULL, NULL, "5Aep!x"};

	expect_body(&client, "grant_type=client_credentials&client_id=3MVG9.a_b~c-d"
						 "&client_secret=s%2B%26%3D%2F%20%25%C3%BC");
	expect_body(&refresh, "grant_type=refresh_token&client_id=id&refresh_token=5Aep%21x");
	refresh.client_secret = "s";
	expect_body(&refresh, "grant_type=refresh_token&client_id=id&client_secret=s&refresh_token=5Aep%21x");
}

/* One part of a JWT, decoded; *len bytes, zero-terminated. */
static unsigned char *
decode_part(const char *part, size_t part_len, size_t *len)
{
	char *padded = palloc0(part_len + 4);
	unsigned char *decoded = palloc0(part_len + 4);
	size_t padded_len = part_len;
	size_t i;

	for (i = 0; i < part_len; i++)
	{
		assert_true(strchr("+/=", part[i]) == NULL);
		padded[i] = part[i] == '-' ? '+' : part[i] == '_' ? '/' : part[i];
	}
	while (padded_len % 4 != 0)
		padded[padded_len++] = '=';
	assert_true(EVP_DecodeBlock(decoded, (unsigned char *) padded, (int) padded_len) >= 0);
	*len = part_len * 3 / 4;
	decoded[*len] = '\0';
	return decoded;
}

static void
jwt(void **state)
{
	static const char prefix[] =
		"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
	EVP_PKEY *key;
	Credentials credentials = {AUTH_JWT_BEARER, "id\"\\", NULL, "int@acme.example", NULL, NULL};
	char *error;
	AuthCall *call;
	const char *token;
	const char *claims;
	const char *signature;
	unsigned char *decoded;
	size_t len;
	EVP_MD_CTX *context = EVP_MD_CTX_new();

	credentials.private_key = make_key(&key, "RSA", 2048, NULL);
	call = auth_call(&options, &credentials, 1000, &error);
	assert_non_null(call);
	assert_memory_equal(call->body, prefix, strlen(prefix));
	token = call->body + strlen(prefix);
	claims = strchr(token, '.') + 1;
	signature = strchr(claims, '.') + 1;
	assert_string_equal((char *) decode_part(token, claims - 1 - token, &len), "{\"alg\":\"RS256\"}");
	assert_string_equal((char *) decode_part(claims, signature - 1 - claims, &len),
						"{\"iss\":\"id\\\"\\\\\",\"sub\":\"int@acme.example\","
						"\"aud\":\"https://login.salesforce.com\",\"exp\":1180}");
	decoded = decode_part(signature, strlen(signature), &len);
	assert_int_equal(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key), 1);
	assert_int_equal(
		EVP_DigestVerify(context, decoded, len, (const unsigned char *) token, signature - 1 - token), 1);
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(key);
	auth_call_wipe(call);
}

static void
expect_key_refused(const char *pem, const char *expected)
{
	Credentials credentials = {AUTH_JWT_BEARER,         "id", NULL, "int@acme.example",
							   unconstify(char *, pem), NULL};
	char *error = NULL;

	assert_null(auth_call(&options, &credentials, 1000, &error));
	assert_string_equal(error, expected);
}

static void
keys_refused(void **state)
{
	EVP_PKEY *key;
	Credentials nobody = {AUTH_JWT_BEARER, "id", NULL, NULL, "key", NULL};
	char *error = NULL;

	assert_null(auth_call(&options, &nobody, 1000, &error));
	assert_string_equal(error, "auth_flow jwt_bearer needs a username and a private key");
	expect_key_refused(make_key(&key, "RSA", 1024, NULL),
					   "the private key has 1024 bits, fewer than the 2048 that Salesforce takes");
	EVP_PKEY_free(key);
	expect_key_refused(make_key(&key, "RSA", 2048, "x"), "the private key is protected by a passphrase");
	EVP_PKEY_free(key);
	expect_key_refused(make_key(&key, "EC", 0, NULL), "the private key is not an RSA key");
	EVP_PKEY_free(key);
	expect_key_refused("hunter2", "the private key is not a private key in PEM format");
	expect_key_refused("", "the private key is not a private key in PEM format");
	expect_key_refused("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
					   "the private key is not a private key in PEM format");
}

static AuthToken *
parse(const char *body, const char *login_url, char **error)
{
	ErrorScope scope;

	return auth_parse(200, body, strlen(body), login_url, &scope, error);
}

static void
tokens(void **state)
{
	char *error;
	AuthToken *token;

	token = parse(
		"{\"access_token\":\"00D!AQ.x_y\",\"instance_url\":\"https://x.my.salesforce.com/\","
		"\"id\":\"https://login.salesforce.com/id/00D000000000001EAA/005000000000001AAA\",\"issued_at\":\"1\"}",
		LOGIN, &error);
	assert_non_null(token);
	assert_null(error);
	assert_string_equal(token->access_token, "00D!AQ.x_y");
	assert_string_equal(token->instance_url, "https://x.my.salesforce.com");
	assert_string_equal(token->organization_id, "00D000000000001EAA");
	assert_string_equal(token->user_id, "005000000000001AAA");

	token = parse("{\"access_token\":\"t\",\"instance_url\":\"https://x\"}", LOGIN, &error);
	assert_non_null(token);
	assert_null(token->organization_id);
	assert_null(token->user_id);

	token = parse("{\"access_token\":\"t\",\"instance_url\":\"https://x\",\"id\":\"https://x/id/../../y\"}",
				  LOGIN, &error);
	assert_non_null(token);
	assert_null(token->user_id);

	token = parse("{\"access_token\":\"t\",\"instance_url\":\"http://127.0.0.1:80\"}", "http://localhost:80",
				  &error);
	assert_non_null(token);
}

static void
tokens_refused(void **state)
{
	static const char *const bodies[] = {
		"",
		"null",
		"[]",
		"\"x\"",
		"<html></html>",
		"{",
		"{\"access_token\":\"t\"}",
		"{\"instance_url\":\"https://x\"}",
		"{\"access_token\":1,\"instance_url\":\"https://x\"}",
		"{\"access_token\":\"\",\"instance_url\":\"https://x\"}",
		"{\"access_token\":\"a b\",\"instance_url\":\"https://x\"}",
		"{\"access_token\":\"a\\r\\nX: y\",\"instance_url\":\"https://x\"}",
		"{\"access_token\":\"a\\u0000b\",\"instance_url\":\"https://x\"}",
		"{\"access_token\":\"\\u00fc\",\"instance_url\":\"https://x\"}",
		"{\"access_token\":\"t\",\"instance_url\":\"http://127.0.0.1\"}",
		"{\"access_token\":\"t\",\"instance_url\":\"http://evil\"}",
		"{\"access_token\":\"t\",\"instance_url\":\"https://x@evil\"}",
		"{\"access_token\":\"t\",\"instance_url\":\"https://x/?\"}",
		"{\"access_token\":\"t\",\"instance_url\":\"file:///etc/passwd\"}",
		"{\"a\":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}",
	};
	char *error;
	char *big = palloc(20100);
	int i;

	for (i = 0; i < lengthof(bodies); i++)
	{
		assert_null(parse(bodies[i], LOGIN, &error));
		assert_non_null(error);
	}
	memset(big, 'a', 20000);
	memcpy(big, "{\"access_token\":\"", 17);
	strcpy(big + 20000, "\",\"instance_url\":\"https://x\"}");
	assert_null(parse(big, LOGIN, &error));
}

static void
expect_refusal(int status, const char *body, ErrorScope expected_scope, const char *expected)
{
	char *error;
	ErrorScope scope;

	assert_null(auth_parse(status, body, body ? strlen(body) : 0, LOGIN, &scope, &error));
	assert_string_equal(error, expected);
	assert_int_equal(scope, expected_scope);
}

static void
refusals(void **state)
{
	expect_refusal(400, "{\"error\":\"invalid_grant\",\"error_description\":\"authentication failure\"}",
				   SCOPE_CONNECTION, "login refused: invalid_grant: authentication failure");
	expect_refusal(401, "{\"error\":\"invalid_client\"}", SCOPE_CONNECTION, "login refused: invalid_client");
	expect_refusal(400, "{\"error\":\"invalid_grant\",\"error_description\":\"a\\nb\\u0007\\u00fc\"}",
				   SCOPE_CONNECTION, "login refused: invalid_grant: a b???");
	expect_refusal(400, "{\"error\":\"unknown_error\",\"error_description\":\"retry your request\"}",
				   SCOPE_SERVER, "login refused: unknown_error: retry your request");
	expect_refusal(302, NULL, SCOPE_CONNECTION,
				   "login refused: login_url answers with a redirect (HTTP status 302)");
	expect_refusal(503, "<html>maintenance</html>", SCOPE_SERVER, "login refused: HTTP status 503");
	expect_refusal(200, NULL, SCOPE_SERVER, "login failed: the reply is not a JSON object");
}

static void
users(void **state)
{
	static const char good[] =
		"{\"user_id\":\"005000000000001AAA\",\"organization_id\":\"00D000000000001EAA\","
		"\"preferred_username\":\"int@acme.example\"}";
	static const char subject[] =
		"{\"sub\":\"https://login.salesforce.com/id/00D000000000001EAA/005000000000001AAA\"}";
	AuthUser user;

	(void) state;
	assert_true(auth_parse_user(good, strlen(good), &user));
	assert_string_equal(user.user_id, "005000000000001AAA");
	assert_string_equal(user.organization_id, "00D000000000001EAA");
	assert_string_equal(user.username, "int@acme.example");
	assert_true(auth_parse_user(subject, strlen(subject), &user));
	assert_string_equal(user.user_id, "005000000000001AAA");
	assert_string_equal(user.organization_id, "00D000000000001EAA");
	assert_false(auth_parse_user("{}", 2, &user));
	assert_null(user.username);
	assert_false(auth_parse_user(NULL, 0, &user));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forms),          cmocka_unit_test(jwt),
		cmocka_unit_test(keys_refused),   cmocka_unit_test(tokens),
		cmocka_unit_test(tokens_refused), cmocka_unit_test(refusals),
		cmocka_unit_test(users),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
