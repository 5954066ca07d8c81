/*
 * connection.c
 *		The worker's side of a server.
 */
#include "compat.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "connection.h"
#include "fence.h"
#include "rest.h"
#include "sfsync.h"
#include "sql.h"
#include "state.h"

/* A Date header that is further off tells of no clock. */
#define MOST_SKEW ((int64) 366 * SECS_PER_DAY)

/* Of an org that doesn't answer; who refuses is asked once. */
#define USERINFO_TRIES 3

static List *connections = NIL;
static bool fence_lifted = false;

void
connections_mark_stale(void)
{
	ListCell *lc;

	foreach(lc, connections)
		((Connection *) lfirst(lc))->stale = true;
}

static void
options_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	connections_mark_stale();
}

void
connection_init(void)
{
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, options_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, options_callback, (Datum) 0);
}

double
connection_random(void)
{
	return pg_prng_double(&pg_global_prng_state);
}

static void
set_text(Connection *connection, char **field, const char *text)
{
	char *copy = text ? MemoryContextStrdup(connection->context, text) : NULL;

	if (*field)
		pfree(*field);
	*field = copy;
}

static void
changed_state(Connection *connection)
{
	connection->dirty = connection->urgent = true;
}

void
connection_drop_token(Connection *connection)
{
	AuthToken *token = connection->token;

	if (!token)
		return;
	explicit_bzero(token->access_token, strlen(token->access_token));
	pfree(token->access_token);
	pfree(token->instance_url);
	if (token->organization_id)
		pfree(token->organization_id);
	if (token->user_id)
		pfree(token->user_id);
	pfree(token);
	connection->token = NULL;
	connection->user_tries = 0;
}

void
connection_set_token(Connection *connection, const AuthToken *token)
{
	MemoryContext caller = MemoryContextSwitchTo(connection->context);

	connection_drop_token(connection);
	connection->token = palloc0(sizeof(AuthToken));
	connection->token->access_token = pstrdup(token->access_token);
	connection->token->instance_url = pstrdup(token->instance_url);
	if (token->organization_id)
		connection->token->organization_id = pstrdup(token->organization_id);
	if (token->user_id)
		connection->token->user_id = pstrdup(token->user_id);
	MemoryContextSwitchTo(caller);
	connection->user_tries = token->user_id ? 0 : USERINFO_TRIES;
	connection->token_serial++;
	connection->dirty = true;
}

bool
connection_logged_in(const Connection *connection)
{
	return connection->token && connection->user_tries == 0;
}

void
connection_set_user(Connection *connection, const AuthUser *user)
{
	AuthToken *token = connection->token;

	set_text(connection, &token->organization_id, user->organization_id);
	set_text(connection, &token->user_id, user->user_id);
	connection->dirty = true;
}

/*
 * Of the server and of the user mapping in use, to tell whether they changed.
 * Their versions count too: who sets an option anew has put a file right.
 */
static uint64
fingerprint(const Connection *connection)
{
	SqlScope scope;
	uint64 hash = 1;

	sql_open_latest(&scope);
	if (SQL_RUN(&scope,
				"SELECT pg_catalog.hashtextextended(pg_catalog.concat(s.xmin, s.srvoptions,"
				" (SELECT pg_catalog.concat(u.xmin, u.umoptions) FROM pg_catalog.pg_user_mapping u"
				" WHERE u.umserver = s.oid AND u.umuser IN (0, $2) ORDER BY u.umuser DESC LIMIT 1)), 0)"
				" FROM pg_catalog.pg_foreign_server s WHERE s.oid = $1",
				sql_arg_oid(connection->serverid), sql_arg_oid(connection->owner)) == 1)
		hash = (uint64) sql_bigint(0, 1) | 1;
	sql_close(&scope);
	return hash;
}

/* Say what stops or slows delivery for the sake of the budget. */
static void
explain_budget(Connection *connection, bool was_over)
{
	const Throttle *throttle = &connection->throttle;
	const Usage *org = &throttle->budget.org;
	const Usage *app = &throttle->budget.app;

	if (throttle->over_budget == was_over && !was_over)
		return;
	if (!throttle->over_budget)
	{
		ereport(LOG, (errmsg("sfsync: server \"%s\" is no longer throttled", connection->options->name)));
		set_text(connection, &connection->limit, NULL);
	}
	else if (!throttle->refused)
	{
		char *text = app->limit > 0 && app->used >= app->limit
						 ? psprintf(INT64_FORMAT " of the " INT64_FORMAT
												 " daily API calls of the connected app are used",
									app->used, app->limit)
						 : psprintf(INT64_FORMAT " of the org's " INT64_FORMAT
												 " daily API calls are used; api_budget is %d percent",
									org->used, org->limit, connection->options->api_budget);

		if (!was_over)
			ereport(LOG, (errmsg("sfsync: server \"%s\" is throttled: %s", connection->options->name, text)));
		set_text(connection, &connection->limit, text);
	}
	if (throttle->over_budget != was_over)
		changed_state(connection);
}

/* The worker before this one may have learnt what the org can take. */
static void
resume(Connection *connection)
{
	SqlScope scope;

	sql_open_latest(&scope);
	if (SQL_RUN(&scope,
				"SELECT coalesce(batch_size, 0), coalesce(concurrency, 0) FROM sfsync.server_state"
				" WHERE server = $1 AND calls > 0",
				sql_arg_name(connection->options->name)) == 1)
		throttle_resume(&connection->throttle, sql_int(0, 1), sql_int(0, 2));
	sql_close(&scope);
}

static void
configure(Connection *connection, const ServerOptions *options)
{
	ThrottleSettings settings = {.budget_percent = options->api_budget,
								 .max_concurrent = options->max_concurrent_requests,
								 .max_batch_size = options->max_batch_size,
								 .base_delay = MILLISECONDS(sfsync_retry_base_delay),
								 .max_delay = MILLISECONDS(sfsync_retry_max_delay),
								 .timeout = MILLISECONDS(sfsync_request_timeout)};

	if (connection->throttle.batch_size > 0)
	{
		bool was_over = connection->throttle.over_budget;

		throttle_configure(&connection->throttle, &settings);
		explain_budget(connection, was_over);
		return;
	}
	throttle_init(&connection->throttle, &settings);
	resume(connection);
}

/*
 * What is at hand of a server that was fenced has numbers from before it was
 * adopted: that is for another worker, with nothing at hand.
 */
static void
lift_fence(Connection *connection, const char *reason)
{
	if (connection->fenced && !reason)
	{
		fence_lifted = true;
		reason = "another worker takes over";
	}
	connection->fenced = reason;
}

bool
connections_fence_lifted(void)
{
	return fence_lifted;
}

/* Read the options again; where they changed, whatever blocked it may be mended. */
static void
refresh(Connection *connection)
{
	MemoryContext fresh = AllocSetContextCreate(connection->context, "sfsync options", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(fresh);
	uint64 seen;

	connection->options = server_options(connection->serverid);
	lift_fence(connection, fence_reason(connection->options->name));
	if (connection->options_context)
		MemoryContextDelete(connection->options_context);
	connection->options_context = fresh;
	MemoryContextSwitchTo(caller);
	configure(connection, connection->options);
	connection->stale = false;
	changed_state(connection);
	seen = fingerprint(connection);
	if (connection->fingerprint == seen)
		return;
	connection->fingerprint = seen;
	connection->changes++;
	connection_drop_token(connection);
	connection->session_failures = 0;
	/* it may be another org now */
	connection->limits_known = connection->version_known = connection->version_doubted = false;
	set_text(connection, &connection->blocked, NULL);
}

static Connection *
find(Oid serverid, Oid owner)
{
	ListCell *lc;

	foreach(lc, connections)
	{
		Connection *candidate = lfirst(lc);

		if (candidate->serverid == serverid && candidate->owner == owner)
			return candidate;
	}
	return NULL;
}

PoisonVerdict
connection_write_failed(Connection *connection, int mapping, const char *key, int64 since, int records)
{
	MemoryContext caller = MemoryContextSwitchTo(connection->context);
	PoisonVerdict verdict = poison_failed(&connection->poison, mapping, key, since, records);

	MemoryContextSwitchTo(caller);
	return verdict;
}

bool
connection_suspects(Oid serverid, Oid owner, int mapping, const char *key)
{
	Connection *connection = find(serverid, owner);

	return connection && poison_suspected(&connection->poison, mapping, key);
}

bool
connection_changed(Oid serverid, Oid owner, int changes)
{
	Connection *connection = find(serverid, owner);

	return connection && (connection->stale || connection->changes != changes);
}

Connection *
connection_get(Oid serverid, Oid owner)
{
	Connection *connection = find(serverid, owner);

	if (!connection)
	{
		MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

		connection = palloc0(sizeof(Connection));
		connection->serverid = serverid;
		connection->owner = owner;
		connection->context =
			AllocSetContextCreate(TopMemoryContext, "sfsync connection", ALLOCSET_SMALL_SIZES);
		connection->stale = true;
		connections = lappend(connections, connection);
		MemoryContextSwitchTo(caller);
	}
	if (connection->stale)
		refresh(connection);
	return connection;
}

TimestampTz
connection_retry_at(const Connection *connection)
{
	if (connection->blocked)
		return connection->blocked_until;
	return connection->throttle.retry_at;
}

bool
connection_usable(Connection *connection, TimestampTz now, TimestampTz *again)
{
	*again = 0;
	if (connection->fenced)
		return false;
	*again = connection_retry_at(connection);
	return *again <= now;
}

void
connection_block(Connection *connection, const char *reason, TimestampTz now)
{
	if (!connection->blocked || strcmp(connection->blocked, reason) != 0)
		ereport(LOG, (errmsg("sfsync: server \"%s\" is blocked: %s", connection->options->name, reason)));
	set_text(connection, &connection->blocked, reason);
	connection->blocked_until = now + MILLISECONDS(sfsync_retry_max_delay);
	changed_state(connection);
}

void
connection_block_version(Connection *connection, const char *newest, const char *problem, TimestampTz now)
{
	char *missing = rest_version_missing(connection->options->api_version, newest);

	if (problem)
		missing = psprintf("%s (%s)", missing, problem);
	connection_block(
		connection,
		psprintf("%s: set the server's option api_version to a version that the org has", missing), now);
	connection->version_known = false;
	connection->version_doubted = true;
}

void
connection_failed(Connection *connection, const char *trouble, int retry_after, TimestampTz now)
{
	if (!connection->trouble)
		ereport(LOG,
				(errmsg("sfsync: server \"%s\" fails, backing off: %s", connection->options->name, trouble)));
	set_text(connection, &connection->trouble, trouble);
	throttle_failure(&connection->throttle, now, retry_after, connection_random());
	changed_state(connection);
}

void
connection_limited(Connection *connection, const char *trouble, ErrorScope limit, int retry_after,
				   TimestampTz now)
{
	if (!connection->limit)
		ereport(LOG, (errmsg("sfsync: server \"%s\" is throttled: %s", connection->options->name, trouble)));
	set_text(connection, &connection->limit, trouble);
	if (limit == SCOPE_UNKNOWN_LIMIT && budget_used_up(&connection->throttle.budget))
		limit = SCOPE_DAILY_LIMIT;
	if (limit == SCOPE_DAILY_LIMIT)
		throttle_daily_limit(&connection->throttle, now, retry_after, connection_random());
	else
		throttle_concurrent_limit(&connection->throttle, now, retry_after, connection_random());
	changed_state(connection);
}

void
connection_well(Connection *connection, int64 elapsed, int records, bool backlog)
{
	bool was_over = connection->throttle.over_budget;

	throttle_success(&connection->throttle, elapsed, records, backlog);
	explain_budget(connection, was_over);
	connection->session_failures = 0;
	connection->writes_fail = false;
	connection->dirty = true;
	if (connection->throttle.asked_until > GetCurrentTimestamp() && !connection->blocked)
		return; /* that was under way: the wait which the server asked for goes on */
	if (connection->trouble || connection->blocked || connection->limit)
	{
		if (connection->trouble || connection->blocked)
			ereport(LOG, (errmsg("sfsync: server \"%s\" answers again", connection->options->name)));
		set_text(connection, &connection->trouble, NULL);
		set_text(connection, &connection->blocked, NULL);
		if (!connection->throttle.over_budget)
			set_text(connection, &connection->limit, NULL);
		changed_state(connection);
	}
}

void
connection_answered(Connection *connection, int64 elapsed)
{
	if (!connection->writes_fail)
		connection_well(connection, elapsed, 0, true);
}

void
connection_note_failed_write(Connection *connection)
{
	connection->writes_fail = true;
}

void
connections_rest(TimestampTz now)
{
	ListCell *lc;

	foreach(lc, connections)
	{
		Connection *connection = lfirst(lc);

		if (connection->writes_fail && !connection->blocked && connection->throttle.retry_at <= now)
			connection_well(connection, 0, 0, false);
	}
}

bool
connection_may_send(Connection *connection, int in_flight, int ready, TimestampTz oldest_at,
					TimestampTz *again)
{
	TimestampTz now = GetCurrentTimestamp();
	int64 when = throttle_may_send(&connection->throttle, now, in_flight, ready, oldest_at);

	*again = when > now && when != THROTTLE_AFTER_REPLY ? when : 0;
	if (*again > connection->held_until + USECS_PER_SEC || *again < connection->held_until - USECS_PER_SEC)
	{
		connection->held_until = *again;
		connection->dirty = true;
	}
	return when <= now;
}

void
connection_sent(Connection *connection, TimestampTz now)
{
	bool was_over = connection->throttle.over_budget;

	throttle_sent(&connection->throttle, now, connection_random());
	explain_budget(connection, was_over);
}

int
connection_read(const Connection *connection)
{
	return connection->throttle.read_size;
}

int
connection_batch(const Connection *connection)
{
	return poison_batch(&connection->poison, connection->throttle.batch_size);
}

void
connection_note_usage(Connection *connection, int64 used, int64 limit, TimestampTz now)
{
	bool was_over = connection->throttle.over_budget;

	throttle_usage(&connection->throttle, used, limit, now, connection_random());
	explain_budget(connection, was_over);
}

static void
note_limit_info(Connection *connection, const char *header, TimestampTz now)
{
	bool was_over = connection->throttle.over_budget;
	int64 used;
	int64 limit;

	if (!rest_parse_app_limit_info(header, &used, &limit))
		used = limit = 0;
	throttle_app_usage(&connection->throttle, used, limit, now, connection_random());
	if (rest_parse_limit_info(header, &used, &limit))
		throttle_usage(&connection->throttle, used, limit, now, connection_random());
	explain_budget(connection, was_over);
}

TimestampTz
connection_clock(const HttpReply *reply)
{
	int64 epoch = (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64) SECS_PER_DAY;
	int64 seconds = reply->server_date - epoch;
	int64 skew = seconds - GetCurrentTimestamp() / USECS_PER_SEC;

	if (reply->server_date == 0 || skew > MOST_SKEW || skew < -MOST_SKEW)
		return 0;
	return seconds * USECS_PER_SEC;
}

void
connection_note_reply(Connection *connection, const HttpReply *reply, TimestampTz started, TimestampTz now)
{
	connection->calls++;
	connection->dirty = true;
	if (reply->limit_info)
		note_limit_info(connection, reply->limit_info, now);

	/* the header has whole seconds, and was written between sending and now: what fits with it stays */
	if (connection_clock(reply) != 0)
	{
		int64 theirs = connection_clock(reply);

		/* what is certain at least: never is an event taken for later than it was */
		if (connection->clock_skew < theirs - now ||
			connection->clock_skew > theirs + USECS_PER_SEC - started)
			connection->clock_skew = theirs - now;
	}
}

bool
connections_dirty(bool urgent_only)
{
	ListCell *lc;

	foreach(lc, connections)
	{
		Connection *connection = lfirst(lc);

		if (connection->urgent || (connection->dirty && !urgent_only))
			return true;
	}
	return false;
}

/* What holds changes back while delivery goes on: NULL if nothing does. */
static char *
spreading(const Connection *connection)
{
	const Budget *budget = &connection->throttle.budget;

	if (!budget_is_near(budget))
		return NULL;
	return psprintf(INT64_FORMAT
					" API calls are left to api_budget: they are spread over a day, one in %d seconds,"
					" and changes wait for fuller requests",
					Max(budget_left(budget), 0),
					(int) Min(budget_interval(budget, GetCurrentTimestamp()) / USECS_PER_SEC, SECS_PER_DAY));
}

static void
write_state(Connection *connection)
{
	ServerState state = {0};

	state.server = connection->options->name;
	if (connection->token)
	{
		state.organization_id = connection->token->organization_id;
		state.user_id = connection->token->user_id;
	}
	state.state = "active";
	if (connection->blocked)
	{
		state.state = "blocked";
		state.detail = connection->blocked;
	}
	else if (connection->limit)
	{
		state.state = "throttled";
		state.detail = connection->limit;
	}
	else if (connection->trouble)
	{
		state.state = "backing_off";
		state.detail = connection->trouble;
	}
	if (strcmp(state.state, "active") != 0)
		state.retry_at = connection_retry_at(connection);
	else
	{
		state.detail = spreading(connection);
		state.retry_at = connection->held_until;
	}
	state.throttle = &connection->throttle;
	state.calls = connection->calls;
	state.clock_skew = connection->clock_skew;
	server_state_put(&state);
	connection->calls = 0;
	connection->dirty = connection->urgent = false;
}

void
connections_write_state(bool all)
{
	ListCell *lc;

	foreach(lc, connections)
	{
		Connection *connection = lfirst(lc);

		if (connection->options && (connection->urgent || (connection->dirty && all)))
			write_state(connection);
	}
}
