/*
 * options.c
 *		Options of servers and user mappings.
 *
 * The validator sees options when they are set; they are checked again when
 * they are read, since the catalogs may hold what an older version accepted.
 */
#include "compat.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "names.h"
#include "options.h"
#include "secret_file.h"
#include "sfsync.h"
#include "sql.h"
#include "url.h"

#define MIN_API_VERSION 60

typedef enum OptionKind
{
	OPTION_TEXT,
	OPTION_URL,
	OPTION_API_VERSION,
	OPTION_INTEGER,
	OPTION_BOOLEAN,
	OPTION_FLOW,
	OPTION_PATH,        /* that the server process reads: superusers only */
	OPTION_SECRET_PATH, /* the same, and nobody else may read it */
	OPTION_SECRET       /* never shown */
} OptionKind;

typedef struct Option
{
	const char *name;
	OptionKind kind;
	int min; /* integers */
	int max;
	const char *hint; /* for bad values */
} Option;

#define CLIENT_ID_HINT "It is the consumer key of the connected app or external client app."
#define CLIENT_SECRET_HINT "It is the consumer secret of the connected app or external client app."
#define USERNAME_HINT "It is the name that the integration user logs in with, such as sync@acme.com."

static const Option server_option_list[] = {
	{"login_url", OPTION_URL, 0, 0,
	 "Use the My Domain URL of the org, such as https://acme.my.salesforce.com."},
	{"api_version", OPTION_API_VERSION, 0, 0,
	 "Setup of the org, Apex Classes, shows its latest version; 66.0 is the default."},
	{"api_budget", OPTION_INTEGER, 1, 100,
	 "It is the percentage of the org's daily API calls, whoever used them, at which sfsync stops."},
	{"max_concurrent_requests", OPTION_INTEGER, 1, 100, "It is the number of requests under way at most."},
	{"max_batch_size", OPTION_INTEGER, 1, 1000, "It is the number of records in a request at most."},
	{"bulk_threshold", OPTION_INTEGER, 0, PG_INT32_MAX,
	 "It is the number of due records from which Bulk API 2.0 may be used; 0 means never."},
	{"jwt_audience", OPTION_URL, 0, 0,
	 "It is https://login.salesforce.com, https://test.salesforce.com for sandboxes, or a site's URL."},
	{"auto_assign", OPTION_BOOLEAN, 0, 0,
	 "It says whether assignment rules run for records that are written."},
	{"duplicate_allow_save", OPTION_BOOLEAN, 0, 0, "It says whether alerts of duplicate rules are passed."},
	{"ca_file", OPTION_PATH, 0, 0, "It is a file of CA certificates; without it the system's are used."},
	{"environment", OPTION_TEXT, 0, 0,
	 "It is what the setting sfsync.environment must be; drop it to ask for none."},
};

static const Option mapping_option_list[] = {
	{"auth_flow", OPTION_FLOW, 0, 0, "Without it the flow is client_credentials."},
	{"client_id", OPTION_TEXT, 0, 0, CLIENT_ID_HINT},
	{"client_secret", OPTION_SECRET, 0, 0, CLIENT_SECRET_HINT},
	{"client_secret_file", OPTION_SECRET_PATH, 0, 0, "The secret itself goes into option \"client_secret\"."},
	{"username", OPTION_TEXT, 0, 0, USERNAME_HINT},
	{"private_key", OPTION_SECRET, 0, 0, "It is the RSA key, in PEM, whose certificate the app has."},
	{"private_key_file", OPTION_SECRET_PATH, 0, 0, "The key itself goes into option \"private_key\"."},
	{"refresh_token", OPTION_SECRET, 0, 0, "It is the token of a login with scope refresh_token."},
	{"refresh_token_file", OPTION_SECRET_PATH, 0, 0, "The token itself goes into option \"refresh_token\"."},
};

static const char *const flow_names[] = {
	[AUTH_CLIENT_CREDENTIALS] = "client_credentials",
	[AUTH_JWT_BEARER] = "jwt_bearer",
	[AUTH_REFRESH_TOKEN] = "refresh_token",
};

const char *
auth_flow_name(AuthFlow flow)
{
	return flow_names[flow];
}

const char *
option_value(List *options, const char *name)
{
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, name) == 0)
			return defGetString(def);
	}
	return NULL;
}

/*
 * Single values
 */

static void
bad_value(const Option *option, const char *value, const char *detail)
{
	/* What was given in place of a path may be the secret itself. */
	if (option->kind == OPTION_SECRET || option->kind == OPTION_SECRET_PATH)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for option \"%s\"", option->name),
						errdetail_internal("%s", detail), errhint("%s", option->hint)));
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("invalid value for option \"%s\": \"%s\"", option->name, value),
					errdetail_internal("%s", detail), errhint("%s", option->hint)));
}

static int
parse_integer(const Option *option, const char *value)
{
	char *end;
	long parsed;

	errno = 0;
	parsed = strtol(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0 || parsed < option->min ||
		parsed > option->max)
		bad_value(option, value,
				  psprintf("Accepted are whole numbers from %d to %d.", option->min, option->max));
	return (int) parsed;
}

static bool
parse_boolean(const Option *option, const char *value)
{
	bool parsed;

	if (!parse_bool(value, &parsed))
		bad_value(option, value, "Accepted values: true, false.");
	return parsed;
}

static AuthFlow
parse_flow(const Option *option, const char *value)
{
	int i;

	for (i = 0; i < lengthof(flow_names); i++)
	{
		if (strcmp(value, flow_names[i]) == 0)
			return (AuthFlow) i;
	}
	bad_value(option, value, "Accepted values: client_credentials, jwt_bearer, refresh_token.");
	return AUTH_CLIENT_CREDENTIALS;
}

static void
check_api_version(const Option *option, const char *value)
{
	size_t digits = strspn(value, "0123456789");

	if (digits < 2 || digits > 3 || strcmp(value + digits, ".0") != 0 || atoi(value) < MIN_API_VERSION)
		bad_value(option, value, "Accepted are versions from 60.0, written like 66.0.");
}

/* The file may come later; if it is there, it must be fit. */
static void
check_path(const Option *option, const char *value)
{
	if (!superuser())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied to set option \"%s\"", option->name),
						errdetail("Only superusers may name files that the server reads."),
						errhint("Ask a superuser to set it.")));
	if (!is_absolute_path(value))
		bad_value(option, value, "Accepted are absolute paths.");
	if (option->kind == OPTION_SECRET_PATH)
		secret_file_check(value);
}

static void
check_value(const Option *option, const char *value)
{
	const char *reason;

	if (value[0] == '\0')
		bad_value(option, value, "The value must not be empty.");
	switch (option->kind)
	{
		case OPTION_URL:
			reason = url_refused(value);
			if (reason != NULL)
				bad_value(
					option, value,
					psprintf(
						"Accepted are https URLs, and http ones of loopback addresses; this is refused because %s.",
						reason));
			break;
		case OPTION_API_VERSION:
			check_api_version(option, value);
			break;
		case OPTION_INTEGER:
			(void) parse_integer(option, value);
			break;
		case OPTION_BOOLEAN:
			(void) parse_boolean(option, value);
			break;
		case OPTION_FLOW:
			(void) parse_flow(option, value);
			break;
		case OPTION_PATH:
		case OPTION_SECRET_PATH:
			check_path(option, value);
			break;
		case OPTION_SECRET:
		case OPTION_TEXT:
			break;
	}
}

/*
 * The validator
 */

static const Option *
find_option(const Option *list, int n, const char *name)
{
	int i;

	for (i = 0; i < n; i++)
	{
		if (strcmp(list[i].name, name) == 0)
			return &list[i];
	}
	return NULL;
}

static void
unknown_option(const Option *list, int n, const char *name, const char *where)
{
	const char **names = palloc(sizeof(char *) * Max(n, 1));
	const char *nearest;

	for (int i = 0; i < n; i++)
		names[i] = list[i].name;
	nearest = n > 0 ? nearest_match(name, names, n) : NULL;
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", name),
					n > 0 ? errdetail("Accepted options of %s: %s.", where, names_list(names, n))
						  : errdetail("%s has no options.", where),
					nearest ? errhint("Perhaps you meant the option \"%s\".", nearest)
							: errhint("Servers say where an org is, user mappings how to log in.")));
}

static void
missing_option(const char *name, const char *detail, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND), errmsg("option \"%s\" is required", name),
					errdetail_internal("%s", detail), errhint("%s", hint)));
}

/* One of an inline secret and its file; whether one is there. */
static bool
has_secret(List *options, const char *name)
{
	char *file = psprintf("%s_file", name);
	bool inline_given = option_value(options, name) != NULL;
	bool file_given = option_value(options, file) != NULL;

	if (inline_given && file_given)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("options \"%s\" and \"%s\" exclude each other", name, file),
						errdetail("The secret is either in the option or in the file."),
						errhint("Drop one of them; files are the safer place.")));
	return inline_given || file_given;
}

static void
require_secret(List *options, const char *name, AuthFlow flow)
{
	if (!has_secret(options, name))
		missing_option(
			name, psprintf("The auth_flow \"%s\" needs %s or %s_file.", flow_names[flow], name, name),
			flow == AUTH_CLIENT_CREDENTIALS &&
					(has_secret(options, "private_key") || has_secret(options, "refresh_token"))
				? "Set auth_flow to jwt_bearer for a private key, to refresh_token for a refresh token."
				: "Put the secret into a file that only the server's user may read, and name that.");
}

static AuthFlow
flow_of(List *options)
{
	const char *value = option_value(options, "auth_flow");

	return value == NULL ? AUTH_CLIENT_CREDENTIALS : parse_flow(&mapping_option_list[0], value);
}

AuthFlow
options_check_user_mapping(List *options)
{
	AuthFlow flow = flow_of(options);

	if (option_value(options, "client_id") == NULL)
		missing_option("client_id", "Every auth_flow needs it.", CLIENT_ID_HINT);
	(void) has_secret(options, "client_secret");
	(void) has_secret(options, "private_key");
	(void) has_secret(options, "refresh_token");
	switch (flow)
	{
		case AUTH_CLIENT_CREDENTIALS:
			require_secret(options, "client_secret", flow);
			break;
		case AUTH_JWT_BEARER:
			if (option_value(options, "username") == NULL)
				missing_option("username", "The auth_flow \"jwt_bearer\" needs the integration user's name.",
							   USERNAME_HINT);
			require_secret(options, "private_key", flow);
			break;
		case AUTH_REFRESH_TOKEN:
			require_secret(options, "refresh_token", flow);
			break;
	}
	return flow;
}

static void
check_list(List *options, const Option *list, int n, const char *where)
{
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem *def = lfirst_node(DefElem, cell);
		const Option *option = find_option(list, n, def->defname);

		if (option == NULL)
			unknown_option(list, n, def->defname, where);
		check_value(option, defGetString(def));
	}
}

PG_FUNCTION_INFO_V1(sfsync_options_validator);

Datum
sfsync_options_validator(PG_FUNCTION_ARGS)
{
	List *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid catalog = PG_GETARG_OID(1);

	if (catalog == ForeignServerRelationId)
	{
		check_list(options, server_option_list, lengthof(server_option_list), "an sfsync server");
		if (option_value(options, "login_url") == NULL)
			missing_option("login_url", "It says where the org is.", server_option_list[0].hint);
	}
	else if (catalog == UserMappingRelationId)
	{
		check_list(options, mapping_option_list, lengthof(mapping_option_list), "an sfsync user mapping");
		(void) options_check_user_mapping(options);
	}
	else
		check_list(options, NULL, 0,
				   catalog == ForeignDataWrapperRelationId ? "The wrapper" : "A foreign table of sfsync");
	PG_RETURN_VOID();
}

/*
 * Reading
 */

/* Ours by its validator: the wrapper may have been renamed. */
static const char names_query[] =
	"SELECT s.srvname FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw"
	" JOIN pg_catalog.pg_proc p ON p.oid = w.fdwvalidator JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace"
	" WHERE p.proname = 'options_validator' AND n.nspname = '" SFSYNC_SCHEMA "' ORDER BY s.srvname";

const char **
server_names(int *n)
{
	SqlScope scope;
	char **names;

	sql_open_latest(&scope);
	*n = SQL_RUN0(&scope, names_query);
	names = sql_column(&scope, 1);
	sql_close(&scope);
	return (const char **) names;
}

ForeignServer *
server_by_name(const char *name)
{
	int n;
	const char **names = server_names(&n);
	const char *nearest = nearest_match(name, names, n);

	for (int i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return GetForeignServerByName(name, false);
	ereport(
		ERROR,
		(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("server \"%s\" is no sfsync server", name),
		 n == 0 ? errdetail("There is no sfsync server.")
				: errdetail("Accepted values are: %s.", names_list(names, n)),
		 nearest
			 ? errhint("Perhaps you meant \"%s\".", nearest)
			 : errhint("Use: CREATE SERVER %s FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://...')",
					   quote_identifier(name))));
}

static bool
is_our_wrapper(Oid fdwid)
{
	Oid validator = GetForeignDataWrapper(fdwid)->fdwvalidator;
	char *name;
	char *schema;

	if (!OidIsValid(validator))
		return false;
	name = get_func_name(validator);
	schema = get_namespace_name(get_func_namespace(validator));
	return name != NULL && schema != NULL && strcmp(name, "options_validator") == 0 &&
		   strcmp(schema, SFSYNC_SCHEMA) == 0;
}

static const char *
server_value(List *options, const char *name, const char *default_value)
{
	const char *value = option_value(options, name);

	return value == NULL ? default_value : value;
}

static int
server_integer(List *options, const char *name, const char *default_value)
{
	const Option *option = find_option(server_option_list, lengthof(server_option_list), name);

	return parse_integer(option, server_value(options, name, default_value));
}

static bool
server_boolean(List *options, const char *name)
{
	const Option *option = find_option(server_option_list, lengthof(server_option_list), name);

	return parse_boolean(option, server_value(options, name, "false"));
}

/* Sandboxes have their own audience; their hosts tell. */
static const char *
default_audience(const char *login_url)
{
	static const char sandbox[] = ".sandbox.my.salesforce.com";
	const char *host = strstr(login_url, "://") + 3;
	size_t len = strcspn(host, ":/");
	size_t suffix = strlen(sandbox);

	if (len > suffix && pg_strncasecmp(host + len - suffix, sandbox, suffix) == 0)
		return "https://test.salesforce.com";
	return "https://login.salesforce.com";
}

static char *
copy_or_null(const char *text)
{
	return text == NULL ? NULL : pstrdup(text);
}

ServerOptions *
server_options(Oid serverid)
{
	ForeignServer *server = GetForeignServer(serverid);
	ServerOptions *result = palloc0(sizeof(ServerOptions));
	List *options = server->options;
	const char *login_url;

	if (!is_our_wrapper(server->fdwid))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("server \"%s\" is not an sfsync server", server->servername),
						errdetail("It belongs to another foreign data wrapper."),
						errhint("Create it with FOREIGN DATA WRAPPER sfsync.")));
	login_url = option_value(options, "login_url");
	if (login_url == NULL)
		missing_option("login_url", psprintf("Server \"%s\" has none.", server->servername),
					   server_option_list[0].hint);
	check_value(&server_option_list[0], login_url);

	result->serverid = serverid;
	result->name = pstrdup(server->servername);
	result->login_url = url_without_slashes(login_url);
	result->api_version = pstrdup(server_value(options, "api_version", "66.0"));
	check_api_version(&server_option_list[1], result->api_version);
	result->api_budget = server_integer(options, "api_budget", "80");
	result->max_concurrent_requests = server_integer(options, "max_concurrent_requests", "4");
	result->max_batch_size = server_integer(options, "max_batch_size", "1000");
	result->bulk_threshold = server_integer(options, "bulk_threshold", "5000");
	result->jwt_audience =
		pstrdup(server_value(options, "jwt_audience", default_audience(result->login_url)));
	result->auto_assign = server_boolean(options, "auto_assign");
	result->duplicate_allow_save = server_boolean(options, "duplicate_allow_save");
	result->ca_file = copy_or_null(option_value(options, "ca_file"));
	result->environment = copy_or_null(option_value(options, "environment"));
	return result;
}

void
options_wipe_secrets(List *options)
{
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem *def = lfirst_node(DefElem, cell);
		const Option *option = find_option(mapping_option_list, lengthof(mapping_option_list), def->defname);
		char *value = defGetString(def);

		if (option != NULL && option->kind == OPTION_SECRET)
			explicit_bzero(value, strlen(value));
	}
}
