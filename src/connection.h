/*
 * connection.h
 *		The worker's side of a server: options, token, throttle, and what is
 *		known of its state.
 */
#ifndef SFSYNC_CONNECTION_H
#define SFSYNC_CONNECTION_H

#include "auth.h"
#include "errors.h"
#include "http.h"
#include "poison.h"
#include "credentials.h"
#include "throttle.h"
#include "utils/timestamp.h"

typedef struct Connection
{
	Oid serverid;
	Oid owner; /* whose user mapping is used */
	MemoryContext context;
	ServerOptions *options;
	const char *fenced; /* why nothing may be sent; NULL */
	bool stale;         /* options or user mapping may have changed */
	uint64 fingerprint; /* of both, as the catalog has them; 0 not read yet */
	int changes;        /* of it so far */
	MemoryContext options_context;
	AuthToken *token;
	int token_serial; /* counts tokens */
	bool login_in_flight;
	int user_tries; /* the login didn't say who we are: userinfo is asked so often at most */
	bool user_in_flight;
	bool gzip_taken;      /* a compressed request came through */
	bool gzip_refused;    /* one didn't: bodies go as they are */
	int session_failures; /* in a row */
	bool writes_fail;     /* the last write did: what else goes well says nothing of that */
	Throttle throttle;
	Poison poison;
	int in_flight;
	bool limits_known; /* /limits was asked */
	bool limits_in_flight;
	bool version_known;   /* the org has the version of the API, as far as it tells */
	bool version_doubted; /* it was answered as if the org hadn't: the list of versions decides */
	bool versions_in_flight;
	char *blocked;             /* an operator has to act; NULL */
	TimestampTz blocked_until; /* of the next probe */
	char *trouble;             /* last failure of the server, while it backs off */
	char *limit;               /* which limit was met, while throttled */
	TimestampTz held_until;    /* near the budget: no call before; 0 none */
	int64 calls;               /* since the state was last written */
	int64 clock_skew;          /* Salesforce's clock less ours, microseconds */
	bool dirty;                /* state to be written */
	bool urgent;               /* at once: it is another state */
} Connection;

/* Once, in the worker. */
extern void connection_init(void);

/* Have options and fences read again: configuration may have changed. */
extern void connections_mark_stale(void);

/*
 * The connection of a server for a mapping's owner, its options read again when
 * they may have changed.  In a transaction; throws when options are unusable.
 */
extern Connection *connection_get(Oid serverid, Oid owner);

/* May its options have changed, since they had changed so often? */
extern bool connection_changed(Oid serverid, Oid owner, int changes);

/* May it be asked now?  If not, *again is when to look (0: when something changes). */
extern bool connection_usable(Connection *connection, TimestampTz now, TimestampTz *again);

/* Time from which it may be asked again; 0 at once. */
extern TimestampTz connection_retry_at(const Connection *connection);

/* An operator has to act; it is probed when sfsync.retry_max_delay is over. */
extern void connection_block(Connection *connection, const char *reason, TimestampTz now);

/*
 * The org doesn't have the version of the API that the options name; newest: the
 * last of those that it has, problem: what was said, each NULL if not told.
 */
extern void connection_block_version(Connection *connection, const char *newest, const char *problem,
									 TimestampTz now);

/* The server or the network failed: it backs off.  retry_after in seconds, -1 if not told. */
extern void connection_failed(Connection *connection, const char *trouble, int retry_after, TimestampTz now);

/*
 * A limit of the org (error_is_limit).  An unknown one is that of the day if the
 * calls are known to be used up.
 */
extern void connection_limited(Connection *connection, const char *trouble, ErrorScope limit, int retry_after,
							   TimestampTz now);

/* A request that wrote so many records came back well. */
extern void connection_well(Connection *connection, int64 elapsed, int records, bool backlog);

/* One that wrote none did: that ends a failure of its like, not one of writes. */
extern void connection_answered(Connection *connection, int64 elapsed);

/* A write failed, and not for what it wrote. */
extern void connection_note_failed_write(Connection *connection);

/* Nothing is pending: nobody waits for what failed any more. */
extern void connections_rest(TimestampTz now);

/*
 * May a request start, with so many in flight or about to be?  If not, *again is
 * when to ask (0: when a reply is there).  ready: how many records could go;
 * oldest_at: the time of their oldest change, 0 if it has none.
 */
extern bool connection_may_send(Connection *connection, int in_flight, int ready, TimestampTz oldest_at,
								TimestampTz *again);
extern void connection_sent(Connection *connection, TimestampTz now);

/* A write failed as a whole: poison_failed(). */
extern PoisonVerdict connection_write_failed(Connection *connection, int mapping, const char *key,
											 int64 since, int records);

/* Has the record made requests fail? */
extern bool connection_suspects(Oid serverid, Oid owner, int mapping, const char *key);

/* How many records may go into a request? */
extern int connection_batch(const Connection *connection);
extern int connection_read(const Connection *connection);
extern void connection_drop_token(Connection *connection);
extern void connection_set_token(Connection *connection, const AuthToken *token);

/* Logged in, and it is known who we are, as far as Salesforce tells. */
extern bool connection_logged_in(const Connection *connection);

/* What userinfo tells. */
extern void connection_set_user(Connection *connection, const AuthUser *user);

/* Usage as a reply tells it. */
extern void connection_note_usage(Connection *connection, int64 used, int64 limit, TimestampTz now);

/* Salesforce's clock as a reply tells it, in whole seconds; 0 if it doesn't. */
extern TimestampTz connection_clock(const HttpReply *reply);

/* What every reply tells, of a request that was started then: usage, clock. */
extern void connection_note_reply(Connection *connection, const HttpReply *reply, TimestampTz started,
								  TimestampTz now);

/* Has a server been adopted since this worker started?  Then it leaves. */
extern bool connections_fence_lifted(void);

/* Write the states that changed; all says whether those that can wait are written too. */
extern void connections_write_state(bool all);
extern bool connections_dirty(bool urgent_only);

/* A random number in [0, 1). */
extern double connection_random(void);

#endif /* SFSYNC_CONNECTION_H */
