/*
 * credentials.c
 *		Credentials from user mappings and the files that these name.
 *
 * What is read is checked again: the catalogs may hold what an older version
 * accepted.
 */
#include "compat.h"

#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "credentials.h"
#include "secret_file.h"

static bool
has_user_mapping(Oid userid, Oid serverid)
{
	return SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid), ObjectIdGetDatum(serverid));
}

static UserMapping *
find_user_mapping(Oid serverid, Oid userid)
{
	if (!has_user_mapping(userid, serverid) && !has_user_mapping(InvalidOid, serverid))
	{
		ForeignServer *server = GetForeignServer(serverid);
		char *role = GetUserNameFromId(userid, true);

		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("there is no user mapping for role \"%s\" on server \"%s\"", role ? role : "?",
					server->servername),
			 errdetail(
				 "The credentials for Salesforce come from the user mapping of the role, else from that of PUBLIC."),
			 errhint(
				 "Use: CREATE USER MAPPING FOR %s SERVER %s OPTIONS (client_id '...', client_secret_file '...')",
				 role ? quote_identifier(role) : "PUBLIC", quote_identifier(server->servername))));
	}
	return GetUserMapping(userid, serverid);
}

/* The secret, inline or from its file; NULL if neither is set. */
static char *
load_secret(List *options, const char *name)
{
	const char *path = option_value(options, psprintf("%s_file", name));
	const char *value;

	if (path != NULL)
		return secret_file_read(path);
	value = option_value(options, name);
	return value == NULL ? NULL : pstrdup(value);
}

Credentials *
credentials_load(Oid serverid, Oid userid)
{
	UserMapping *mapping = find_user_mapping(serverid, userid);
	Credentials *result = palloc0(sizeof(Credentials));
	List *options = mapping->options;

	/* Without the validator's check of paths: those were set by a superuser. */
	result->flow = options_check_user_mapping(options);
	result->client_id = pstrdup(option_value(options, "client_id"));
	if (result->flow == AUTH_JWT_BEARER)
	{
		result->username = pstrdup(option_value(options, "username"));
		result->private_key = load_secret(options, "private_key");
	}
	else
		result->client_secret = load_secret(options, "client_secret");
	if (result->flow == AUTH_REFRESH_TOKEN)
		result->refresh_token = load_secret(options, "refresh_token");
	options_wipe_secrets(options);
	return result;
}

static void
wipe(char **text)
{
	if (*text == NULL)
		return;
	explicit_bzero(*text, strlen(*text));
	pfree(*text);
	*text = NULL;
}

void
credentials_wipe(Credentials *credentials)
{
	if (credentials == NULL)
		return;
	wipe(&credentials->client_secret);
	wipe(&credentials->private_key);
	wipe(&credentials->refresh_token);
	wipe(&credentials->username);
	wipe(&credentials->client_id);
}
