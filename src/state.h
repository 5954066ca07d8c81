/*
 * state.h
 *		What the worker writes for views and later sessions: the state of mappings
 *		and servers, and Salesforce's metadata.
 *
 * All functions run inside the caller's transaction.
 */
#ifndef SFSYNC_STATE_H
#define SFSYNC_STATE_H

#include "throttle.h"
#include "utils/timestamp.h"

typedef struct MappingCounters
{
	int64 synced;
	int64 unchanged;
	int64 ignored;
	TimestampTz last_synced_at;
	char *last_error;
} MappingCounters;

/* Add to what the views count; last_error replaces what was, unless it is NULL. */
extern void mapping_state_add(int mapping, const MappingCounters *counters);

/* What it waits for, NULL: nothing; false if the same is noted. */
extern bool mapping_state_waits(int mapping, const char *reason);

/* It is blocked for that reason; or goes again. */
extern void mapping_state_blocked(int mapping, const char *reason, TimestampTz until);
extern void mapping_state_goes(int mapping);

typedef struct ServerState
{
	const char *server;
	const char *organization_id;
	const char *user_id;
	const char *state;
	const char *detail;
	TimestampTz retry_at;
	const Throttle *throttle;
	int64 calls;      /* since the last time */
	int64 clock_skew; /* microseconds */
} ServerState;

/* What is NULL or unknown in it stays as it was; calls are added. */
extern void server_state_put(const ServerState *state);

/* Cached metadata: describe NULL means that Salesforce doesn't know the object. */
extern void object_put(const char *server, const char *object, const char *describe,
					   const char *last_modified);
extern void object_touch(const char *server, const char *object);

#endif /* SFSYNC_STATE_H */
