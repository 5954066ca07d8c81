/*
 * check_connection.c
 *		sfsync.check_connection: asks Salesforce at once, step by step, and says
 *		what works, what doesn't, and what to do about it.
 *
 * Whatever is wrong with the connection becomes a row.  Errors are raised only
 * for a server that isn't there, isn't ours or may not be used.
 */
#include "compat.h"

#include <math.h>
#include <sys/time.h>
#include <time.h>

#include "commands/defrem.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "describe.h"
#include "errors.h"
#include "foreground.h"
#include "names.h"
#include "sql.h"
#include "subxact.h"

/* Conflicts compare times to the second; a bigger skew deserves a look. */
#define SKEW_TOLERATED 30.0 /* seconds */

typedef struct CheckedMapping
{
	char *name;
	char *object;
	char *external_id;
	char *on_delete;
} CheckedMapping;

typedef struct Check
{
	ReturnSetInfo *result;
	Foreground session;
	CheckedMapping *mappings;
	int nmappings;
	const char *failed; /* the check that the login path ended at; NULL */
	bool version_failed;
	bool dated;  /* skew is known */
	double skew; /* seconds that Salesforce's clock is ahead */
} Check;

/* ----------------------------------------------------------------
 * Rows
 * ----------------------------------------------------------------
 */

/* What came from outside may be any bytes: make it text of this database. */
static Datum
safe_text(const char *text)
{
	char *copy = pstrdup(text);
	char *c;

	if (GetDatabaseEncoding() != PG_UTF8 || !pg_verify_mbstr(PG_UTF8, copy, (int) strlen(copy), true))
	{
		for (c = copy; *c != '\0'; c++)
		{
			if (*c < 0x20 || *c >= 0x7f)
				*c = '?';
		}
	}
	return CStringGetTextDatum(copy);
}

static void
add_row(Check *check, const char *name, bool ok, const char *detail, const char *hint)
{
	Datum values[4];
	bool nulls[4] = {false};

	values[0] = safe_text(name);
	values[1] = BoolGetDatum(ok);
	values[2] = detail ? safe_text(detail) : (Datum) 0;
	values[3] = hint ? safe_text(hint) : (Datum) 0;
	nulls[2] = detail == NULL;
	nulls[3] = hint == NULL;
	tuplestore_putvalues(check->result->setResult, check->result->setDesc, values, nulls);
}

static void
add_unchecked(Check *check, const char *name, const char *failed)
{
	add_row(check, name, false, psprintf("not checked: %s failed", failed), NULL);
}

/* ----------------------------------------------------------------
 * Requests
 * ----------------------------------------------------------------
 */

/* Date has whole seconds and was written about halfway through the request. */
static void
measure_skew(Check *check)
{
	const HttpReply *reply = check->session.reply;
	struct timeval now;

	if (reply->outcome != HTTP_REPLIED || reply->server_date == 0)
		return;
	gettimeofday(&now, NULL);
	check->skew =
		(double) reply->server_date + 0.5 - ((double) now.tv_sec + now.tv_usec / 1e6 - reply->elapsed / 2e6);
	check->dated = true;
}

static HttpReply *
get(Check *check, const char *base, const char *path, const char *bearer)
{
	HttpRequest request = {0};

	request.method = "GET";
	request.url = psprintf("%s%s", base, path);
	request.bearer = bearer;
	(void) foreground_perform(&check->session, &request);
	measure_skew(check);
	return check->session.reply;
}

static HttpReply *
get_rest(Check *check, const RestCall *call)
{
	return get(check, check->session.token->instance_url, call->path, check->session.token->access_token);
}

/* NULL if the reply is good, else what is wrong with it, and a hint. */
static const char *
reply_problem(const HttpReply *reply, const char **hint)
{
	RestError error;

	*hint = NULL;
	if (reply->outcome != HTTP_REPLIED)
	{
		*hint = "Look at the network and at the settings sfsync.connect_timeout and sfsync.request_timeout.";
		return reply->error;
	}
	if (reply->status >= 200 && reply->status < 300)
		return NULL;
	error = rest_parse_error(reply->status, reply->body, reply->body_len);
	*hint = error_hint(error.code);
	if (error.code == NULL)
		return psprintf("HTTP status %d: %s", reply->status, error.message);
	return psprintf("HTTP status %d, %s: %s", reply->status, error.code, error.message);
}

/* ----------------------------------------------------------------
 * The way to a token
 * ----------------------------------------------------------------
 */

/* One request without a token shows both the address and TLS. */
static void
check_address_and_tls(Check *check)
{
	const char *url = check->session.options->login_url;
	bool https = pg_strncasecmp(url, "https:", 6) == 0;
	HttpReply *reply = get(check, url, rest_versions()->path, NULL);

	/* The address of the peer is known once TCP is connected. */
	if (reply->outcome == HTTP_NOT_SENT && reply->resolved_ip == NULL)
	{
		check->failed = "address";
		add_row(check, "address", false, reply->error,
				"Look at login_url, at name resolution and at the firewall.");
		add_unchecked(check, "tls", check->failed);
		return;
	}
	add_row(check, "address", true,
			psprintf("%s at %s", url, reply->resolved_ip ? reply->resolved_ip : "an unknown address"), NULL);
	if (reply->outcome == HTTP_NOT_SENT)
	{
		check->failed = "tls";
		add_row(
			check, "tls", false, reply->error,
			check->session.options->ca_file != NULL
				? "The option ca_file must name a file that the server process can read, with the CA that issued the certificate."
				: "If a proxy or a test server has a certificate of its own CA, name that in the option ca_file.");
	}
	else if (!https)
		add_row(check, "tls", true, "not used: http to a loopback address", NULL);
	else
		add_row(check, "tls", true, "certificate verified", NULL);
}

typedef struct Loading
{
	Oid serverid;
	Credentials *credentials;
} Loading;

static void
load_step(void *arg)
{
	Loading *loading = arg;

	loading->credentials = credentials_load(loading->serverid, GetUserId());
}

/*
 * The credentials, or NULL and a row: a missing user mapping or a file that
 * can't be read is a finding here.
 */
static Credentials *
load_credentials(Check *check)
{
	Loading loading = {check->session.options->serverid, NULL};
	ErrorData *error = subxact_try(load_step, &loading);

	if (!error)
		return loading.credentials;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	add_row(check, "login", false, error->message,
			error->hint     ? error->hint
			: error->detail ? error->detail
							: "Look at the options of the user mapping.");
	return NULL;
}

/* Ask for a token; false and what is wrong. */
static bool
request_token(Check *check, AuthCall *call, const char **problem, const char **hint)
{
	const HttpReply *reply;
	char *error;
	bool good = foreground_take_token(&check->session, call, &error);
	RestError refusal;

	measure_skew(check);
	if (good)
		return true;
	reply = check->session.reply;
	if (reply->outcome != HTTP_REPLIED)
	{
		*problem = reply_problem(reply, hint);
		return false;
	}
	refusal = rest_parse_error(reply->status, reply->body, reply->body_len);
	*problem = error;
	*hint = reply->status == 200 || refusal.code == NULL
				? "Look at login_url: it must be the My Domain URL of the org."
				: error_hint(refusal.code);
	return false;
}

static void
check_login(Check *check)
{
	Credentials *credentials;
	AuthCall *call;
	AuthFlow flow;
	char *error;
	const char *problem = NULL;
	const char *hint = NULL;

	if (check->failed != NULL)
	{
		add_unchecked(check, "login", check->failed);
		return;
	}
	credentials = load_credentials(check);
	if (credentials == NULL)
	{
		check->failed = "login";
		return;
	}
	flow = credentials->flow;
	call = auth_call(check->session.options, credentials, (int64) time(NULL), &error);
	credentials_wipe(credentials);
	if (call == NULL)
	{
		problem = error;
		hint = FOREGROUND_KEY_HINT;
	}
	if (call != NULL && request_token(check, call, &problem, &hint))
		add_row(
			check, "login", true,
			psprintf("auth_flow %s, instance %s", auth_flow_name(flow), check->session.token->instance_url),
			NULL);
	else
	{
		check->failed = "login";
		add_row(check, "login", false, problem, hint);
	}
}

/* ----------------------------------------------------------------
 * What the token shows
 * ----------------------------------------------------------------
 */

static void
check_api_version(Check *check)
{
	const char *version = check->session.options->api_version;
	const char *problem;
	const char *hint;
	HttpReply *reply;
	char *newest = NULL;
	bool listed;

	reply = get(check, check->session.token->instance_url, rest_versions()->path, NULL);
	problem = reply_problem(reply, &hint);
	check->version_failed = true;
	if (problem != NULL)
	{
		add_row(check, "api_version", false, problem, hint);
		return;
	}
	listed = rest_parse_versions(reply->body, reply->body_len, version, &newest);
	if (newest == NULL)
		add_row(check, "api_version", false, "the reply lists no versions",
				"Look at login_url: it must be the My Domain URL of the org.");
	else if (!listed)
		add_row(check, "api_version", false, rest_version_missing(version, newest),
				psprintf("Set the server's option api_version to a version that the org has, such as %s.",
						 newest));
	else
	{
		check->version_failed = false;
		add_row(check, "api_version", true, psprintf("%s; newest: %s", version, newest), NULL);
	}
}

static void
check_identity(Check *check)
{
	AuthToken *token = check->session.token;
	AuthUser user = {0};
	const char *problem;
	const char *hint;
	HttpReply *reply;

	reply = get_rest(check, rest_userinfo());
	problem = reply_problem(reply, &hint);
	if (problem == NULL && !auth_parse_user(reply->body, reply->body_len, &user))
		problem = "userinfo names no user";

	/* userinfo needs a scope of its own; the token's identity URL doesn't. */
	if (user.organization_id == NULL)
		user.organization_id = token->organization_id;
	if (user.user_id == NULL)
		user.user_id = token->user_id;
	if (user.organization_id != NULL)
		add_row(check, "organization", true, user.organization_id, NULL);
	else
		add_row(check, "organization", false, problem ? problem : "userinfo names no organization", hint);
	if (user.user_id == NULL)
		add_row(check, "integration_user", false, problem, hint);
	else if (user.username != NULL)
		add_row(check, "integration_user", true, psprintf("%s (%s)", user.username, user.user_id), NULL);
	else
		add_row(
			check, "integration_user", true,
			psprintf("%s (user name not known: %s)", user.user_id, problem ? problem : "userinfo has none"),
			NULL);
}

static void
check_allowance(Check *check)
{
	HttpReply *reply = get_rest(check, rest_limits(check->session.options->api_version));
	int budget = check->session.options->api_budget;
	int64 used;
	int64 limit;
	const char *problem;
	const char *hint;
	bool ok;

	/* /limits needs a permission of its own; the header of any reply doesn't. */
	problem = reply_problem(reply, &hint);
	if (problem != NULL || !rest_parse_limits(reply->body, reply->body_len, &used, &limit))
	{
		if (reply->limit_info == NULL || !rest_parse_limit_info(reply->limit_info, &used, &limit))
		{
			add_row(check, "api_allowance", false, problem ? problem : "the reply has no DailyApiRequests",
					hint);
			return;
		}
	}
	ok = limit > 0 && (double) used < (double) limit * budget / 100;
	add_row(check, "api_allowance", ok,
			psprintf("%lld of %lld API calls used in 24 hours; sfsync stops at %d %%", (long long) used,
					 (long long) limit, budget),
			ok ? NULL : "Nothing is sent until usage falls below the server's option api_budget.");
}

static void
check_clock(Check *check)
{
	double skew = fabs(check->skew);

	if (!check->dated)
		add_row(check, "clock_skew", false, "not checked: no reply has a Date header", NULL);
	else if (skew <= 1.0)
		add_row(check, "clock_skew", true, "less than a second or so", NULL);
	else
		add_row(
			check, "clock_skew", skew <= SKEW_TOLERATED,
			psprintf("Salesforce's clock is %.0f s %s this server's", skew,
					 check->skew > 0 ? "ahead of" : "behind"),
			skew <= SKEW_TOLERATED
				? NULL
				: "Synchronize this server's clock: logins by JWT and the judgment of conflicts depend on it.");
}

/* ----------------------------------------------------------------
 * Mappings
 * ----------------------------------------------------------------
 */

static void
check_external_id(Check *check, const CheckedMapping *mapping, const SfObject *object, const char *name)
{
	const SfField *field = describe_field(object, mapping->external_id);
	const char *nearest;

	if (field == NULL)
	{
		nearest = nearest_field(object, mapping->external_id);
		add_row(check, name, false,
				psprintf("%s has no field %s that the integration user can see", object->name,
						 mapping->external_id),
				nearest
					? psprintf("Perhaps it is %s; else create it, or grant the integration user the field.",
							   nearest)
					: "Create the field, or grant the integration user the field.");
	}
	else if (!field->external_id)
		add_row(check, name, false, psprintf("%s.%s is not an External ID field", object->name, field->name),
				"Tick External ID and Unique in the field's definition.");
	else if (!field->unique)
		add_row(check, name, false, psprintf("%s.%s is not unique", object->name, field->name),
				"Tick Unique in the field's definition: without it one key may name several records.");
	else if (!field->createable)
		add_row(check, name, false,
				psprintf("the integration user may not set %s.%s", object->name, field->name),
				"Grant the integration user edit access to the field.");
	else
		add_row(check, name, true, psprintf("%s.%s", object->name, field->name), NULL);
}

static void
check_permissions(Check *check, const CheckedMapping *mapping, const SfObject *object, const char *name)
{
	bool hard = strcmp(mapping->on_delete, "hard_delete") == 0;
	bool deletes = hard || strcmp(mapping->on_delete, "delete") == 0;
	StringInfoData missing;

	initStringInfo(&missing);
	if (!object->queryable)
		appendStringInfoString(&missing, ", read");
	if (!object->createable)
		appendStringInfoString(&missing, ", create");
	if (!object->updateable)
		appendStringInfoString(&missing, ", edit");
	if (deletes && !object->deletable)
		appendStringInfoString(&missing, ", delete");
	if (missing.len > 0)
		add_row(check, name, false,
				psprintf("the integration user may not %s records of %s", missing.data + 2, object->name),
				"Grant the object permissions by a permission set.");
	else if (hard)
		add_row(
			check, name, true, psprintf("create, edit, delete records of %s", object->name),
			"on_delete hard_delete needs the permission Bulk API Hard Delete too, which can't be seen from here.");
	else
		add_row(check, name, true,
				psprintf("create, edit%s records of %s", deletes ? ", delete" : "", object->name), NULL);
}

static void
check_mapping(Check *check, const CheckedMapping *mapping)
{
	char *object_row = psprintf("mapping %s: object", mapping->name);
	char *external_id_row = psprintf("mapping %s: external ID field", mapping->name);
	char *permissions_row = psprintf("mapping %s: permissions", mapping->name);
	const char *failed = check->failed ? check->failed : check->version_failed ? "api_version" : NULL;
	const char *problem = NULL;
	const char *hint = NULL;
	SfObject *object = NULL;

	if (failed == NULL)
	{
		HttpReply *reply =
			get_rest(check, rest_describe(check->session.options->api_version, mapping->object));
		char *error;

		problem = reply_problem(reply, &hint);
		if (problem == NULL)
			object = describe_parse(reply->body, reply->body_len, &error);
		if (problem == NULL && object == NULL)
			problem = error;
		failed = "object";
	}
	if (object != NULL)
	{
		add_row(check, object_row, true, object->name, NULL);
		check_external_id(check, mapping, object, external_id_row);
		check_permissions(check, mapping, object, permissions_row);
		return;
	}
	if (problem != NULL)
		add_row(check, object_row, false, problem, hint);
	else
		add_unchecked(check, object_row, failed);
	add_unchecked(check, external_id_row, failed);
	add_unchecked(check, permissions_row, failed);
}

/* ----------------------------------------------------------------
 * The function
 * ----------------------------------------------------------------
 */

static void
run_checks(Check *check)
{
	int i;

	check_address_and_tls(check);
	check_login(check);
	if (check->failed == NULL)
	{
		check_api_version(check);
		check_identity(check);
	}
	else
	{
		add_unchecked(check, "api_version", check->failed);
		add_unchecked(check, "organization", check->failed);
		add_unchecked(check, "integration_user", check->failed);
	}
	if (check->failed != NULL || check->version_failed)
		add_unchecked(check, "api_allowance", check->failed ? check->failed : "api_version");
	else
		check_allowance(check);
	check_clock(check);
	for (i = 0; i < check->nmappings; i++)
		check_mapping(check, &check->mappings[i]);
}

static void
unknown_server(const char *name)
{
	int n;
	const char **names = server_names(&n);
	const char *nearest = nearest_match(name, names, n);

	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("server \"%s\" does not exist", name),
			 errdetail("sfsync.server_status lists the servers of sfsync."),
			 nearest ? errhint("Perhaps you meant the server \"%s\".", nearest)
					 : errhint("Use: CREATE SERVER %s FOREIGN DATA WRAPPER sfsync OPTIONS (login_url '...')",
							   quote_identifier(name))));
}

/* The mappings of the server, by name. */
static void
load_mappings(Check *check)
{
	SqlScope scope;

	sql_open_latest(&scope);
	check->nmappings = SQL_RUN(&scope,
							   "SELECT name, object, external_id, on_delete FROM sfsync.mapping"
							   " WHERE server = $1 ORDER BY name",
							   sql_arg_name(check->session.options->name));
	check->mappings = MemoryContextAlloc(scope.caller, sizeof(CheckedMapping) * Max(check->nmappings, 1));
	for (int i = 0; i < check->nmappings; i++)
	{
		check->mappings[i].name = sql_text(&scope, i, 1);
		check->mappings[i].object = sql_text(&scope, i, 2);
		check->mappings[i].external_id = sql_text(&scope, i, 3);
		check->mappings[i].on_delete = sql_text(&scope, i, 4);
	}
	sql_close(&scope);
}

static Oid
usable_server(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, true);

	if (server == NULL)
		unknown_server(name);
	if (!DatumGetBool(DirectFunctionCall2(has_server_privilege_id, ObjectIdGetDatum(server->serverid),
										  CStringGetTextDatum("USAGE"))))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_SERVER, name);
	return server->serverid;
}

PG_FUNCTION_INFO_V1(sfsync_check_connection);

Datum
sfsync_check_connection(PG_FUNCTION_ARGS)
{
	Check check = {0};
	Oid serverid = usable_server(NameStr(*PG_GETARG_NAME(0)));

	InitMaterializedSRF(fcinfo, 0);
	check.result = (ReturnSetInfo *) fcinfo->resultinfo;
	PG_TRY();
	{
		foreground_start(&check.session, serverid, GetUserId());
		load_mappings(&check);
		run_checks(&check);
	}
	PG_FINALLY();
	{
		foreground_close(&check.session);
	}
	PG_END_TRY();
	return (Datum) 0;
}
