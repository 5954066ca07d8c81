/*
 * ready.c
 *		What must be there before rows are read or anything is sent: a token, who we
 *		are, usage, the version of the API, metadata.  What is missing is asked for.
 */
#include "compat.h"

#include <time.h>

#include "claim.h"
#include "sfsync.h"
#include "subxact.h"

static void
prepare_login(void *arg)
{
	Claim *claim = arg;
	Connection *connection = claim->connection;
	Request *request = delivery_request(REQUEST_LOGIN, claim->connection, claim->mapping);
	Credentials *credentials = credentials_load(connection->serverid, connection->owner);
	char *error = NULL;

	request->login = auth_call(connection->options, credentials, (int64) time(NULL), &error);
	credentials_wipe(credentials);
	if (!request->login)
	{
		connection_block(connection, error, GetCurrentTimestamp());
		return;
	}
	connection->login_in_flight = true;
	delivery_send_later(claim->delivery, request);
}

/* Without knowing who we are, our own writes would be taken for those of others. */
static void
prepare_userinfo(Claim *claim)
{
	Request *request = delivery_request(REQUEST_USERINFO, claim->connection, claim->mapping);

	request->call = rest_userinfo();
	claim->connection->user_in_flight = true;
	delivery_send_later(claim->delivery, request);
}

static void
prepare_limits(Claim *claim)
{
	Request *request = delivery_request(REQUEST_LIMITS, claim->connection, claim->mapping);

	request->call = rest_limits(claim->connection->options->api_version);
	claim->connection->limits_in_flight = true;
	delivery_send_later(claim->delivery, request);
}

/* Usage is asked for before anything is sent; later, to see whether the server is well. */
static bool
limits_ready(Claim *claim)
{
	Connection *connection = claim->connection;

	if (connection->limits_in_flight)
		return connection->limits_known;
	if (connection->limits_known && !poison_wants_control(&connection->poison))
		return true;
	prepare_limits(claim);
	return false;
}

/*
 * Where the version of the API is wrong, nothing is there, neither usage nor any
 * object.  The list of versions is, and is asked before any object counts as gone.
 */
static bool
version_ready(Claim *claim)
{
	Connection *connection = claim->connection;
	Request *request;

	if (!connection->version_doubted)
		return true;
	if (connection->versions_in_flight)
		return false;
	request = delivery_request(REQUEST_VERSIONS, connection, claim->mapping);
	request->call = rest_versions();
	connection->versions_in_flight = true;
	delivery_send_later(claim->delivery, request);
	return false;
}

static void
prepare_describe(Claim *claim)
{
	Request *request = delivery_request(REQUEST_DESCRIBE, claim->connection, claim->mapping);

	if (claim->mapping->meta && claim->mapping->last_modified && !claim->state->describe_wanted)
		request->if_modified_since = psprintf("If-Modified-Since: %s", claim->mapping->last_modified);
	request->call = rest_describe(claim->connection->options->api_version, request->target.object);
	claim->state->describe_in_flight = true;
	delivery_send_later(claim->delivery, request);
}

/*
 * Credentials that can't be read block the connection, not the mapping: a
 * changed option or user mapping lifts it.
 */
static void
try_login(Claim *claim)
{
	ErrorData *error = subxact_try(prepare_login, claim);

	if (error)
		connection_block(claim->connection, delivery_fault(error), GetCurrentTimestamp());
}

static bool
stale(const Mapping *mapping)
{
	return mapping->metadata_at + MILLISECONDS(sfsync_schema_ttl) < GetCurrentTimestamp();
}

bool
claim_ready(Claim *claim)
{
	MappingDelivery *state = claim->state;
	Mapping *mapping = claim->mapping;

	if (!claim->connection->token)
	{
		if (!claim->connection->login_in_flight)
			try_login(claim);
		return false;
	}
	if (!connection_logged_in(claim->connection))
	{
		if (!claim->connection->user_in_flight)
			prepare_userinfo(claim);
		return false;
	}
	if (!limits_ready(claim) || !version_ready(claim))
		return false;
	if (!mapping->has_metadata || mapping->refresh_wanted || state->describe_wanted || state->describe_due ||
		stale(mapping))
	{
		if (!state->describe_in_flight)
		{
			prepare_describe(claim);
			return false;
		}
		if (!mapping->has_metadata || state->describe_wanted)
			return false;
	}
	if (mapping->broken)
		delivery_block(claim->delivery, state, mapping->broken, GetCurrentTimestamp());
	return !mapping->broken;
}
