/*
 * delivery.h
 *		What the parts of the worker's turn (turn.h) share: the work at hand, what
 *		is known of mappings, outcomes, requests.
 */
#ifndef SFSYNC_DELIVERY_H
#define SFSYNC_DELIVERY_H

#include "nodes/pg_list.h"

#include "batch.h"
#include "connection.h"
#include "outcome.h"
#include "queue.h"
#include "rest.h"
#include "state.h"

/* Headers of requests (reference, section 13). */
#define HEADER_NO_ASSIGNMENT "Sforce-Auto-Assign: FALSE"
#define HEADER_ALLOW_SAVE "Sforce-Duplicate-Rule-Header: allowSave=true"

/* What delivery knows of a mapping beside its configuration. */

struct FieldCreation;

typedef struct MappingDelivery
{
	int id;
	char *blocked;   /* why nothing is sent; NULL */
	bool block_told; /* the views may say so */
	TimestampTz blocked_until;
	TimestampTz refused_until; /* Salesforce refused it with new metadata, too */
	int failures;              /* errors in a row */
	int refusals;              /* records refused in a row for what concerns all */
	TimestampTz accepted_at;   /* when one was accepted last; 0 never */
	TimestampTz held_until;    /* near the budget: its changes wait for more; 0 no */
	TimestampTz locked_since;  /* somebody else has its table; 0 no */
	TimestampTz lock_tried;
	bool lock_told;   /* the views may say so */
	int seen_changes; /* of the connection's options; 0 not looked at yet */
	bool describe_in_flight;
	bool describe_wanted;           /* before anything else is sent */
	bool describe_due;              /* beside, and only if they changed */
	int seen_attnum;                /* the highest of the table's columns; 0 not looked at yet */
	TimestampTz suspected_at;       /* metadata, of being old, for what a record's error says */
	bool behind;                    /* events were passed over while it couldn't be delivered */
	bool has_lookups;               /* to other mappings: they go first */
	bool has_family;                /* its rows are parents or children of mapped ones */
	int seen_serial;                /* of the mapping as it was last compared with what was mapped */
	bool deliverable;               /* as of this turn */
	bool needs_metadata;            /* even if nothing is to be sent */
	bool creation_due;              /* of a field for a new column */
	struct FieldCreation *creation; /* under way; NULL */
	bool creation_in_flight;
	bool users_wanted;           /* conflicts were added that show a user by the Id alone */
	bool bulk;                   /* bulk jobs take what they can of backfills */
	bool bulk_live;              /* and of live changes, as there are so many */
	int bulk_threshold;          /* as of this turn; 0: none may be used */
	TimestampTz bulk_off_until;  /* they were refused */
	TimestampTz hard_deleted_at; /* when the last job of hard deletes began */
	TimestampTz hard_deletes_off_until;
	char *hard_deletes_refused; /* why; NULL */
	MappingCounters counters;
	bool dirty;
} MappingDelivery;

typedef enum RequestKind
{
	REQUEST_LOGIN,
	REQUEST_USERINFO,
	REQUEST_LIMITS,
	REQUEST_VERSIONS,
	REQUEST_DESCRIBE,
	REQUEST_WRITE,
	REQUEST_GUARDED_UPDATE,
	REQUEST_LOOKUP,
	REQUEST_RETRIEVE,
	REQUEST_FIND,
	REQUEST_GONE,
	REQUEST_HISTORY,
	REQUEST_USERS,
	REQUEST_BULK,
	REQUEST_CREATE_FIELD
} RequestKind;

/* Units of one kind, which are one collection of the request. */
typedef struct RequestPart
{
	UnitKind kind;
	int first;
	int n;
} RequestPart;

typedef struct Request
{
	MemoryContext context; /* holds it and all it refers to */
	RequestKind kind;
	Connection *connection;
	int mapping;
	RestTarget target;
	const char *server;
	RestCall *call;
	AuthCall *login;
	const char *if_modified_since;
	struct BulkJob *bulk; /* that it is of */
	int nunits;
	Outcome *outcomes;   /* one a unit, to be completed by the reply */
	RestRecord *records; /* one a unit, of writes; NULL */
	int nparts;
	RequestPart parts[REST_PACK_LIMIT];
	int nkeys; /* lookup: record keys asked for, and the keys they are of */
	char **keys;
	char **record_keys;
	char **fields; /* that are read */
	int nfields;
	int serial; /* of the mapping that they are of */
	bool case_sensitive;
	const char *history_parent;
	int64 *unmodified_since; /* guarded updates: one a unit */
	int64 intent;
	TimestampTz started;
	int token_serial; /* of the token it was sent with */
	int64 mark;       /* of connection->poison when it was sent */
	double jitter;    /* records of one reply are tried again together */
	bool compressed;  /* its body was */
	bool finished;    /* its units are let go of */
} Request;

/* A part of a backfill that is at hand. */
typedef struct BackfillChunk
{
	Chunk chunk;
	int64 job;
	int mapping;
	char *last_key;
	int rows;
	int noted; /* how many of them are shown as settled */
	bool last; /* nothing comes after it */
} BackfillChunk;

typedef struct Delivery
{
	MemoryContext context;      /* long-lived: work, window, states */
	MemoryContext turn_context; /* of one turn or reply */
	HttpClient *http;
	Work *work;
	QueueWindow window;
	bool look;                 /* the queue may hold something new */
	bool again;                /* units were settled that others may have waited for */
	bool prepared;             /* there are prepared transactions: look again soon */
	TimestampTz deferred_from; /* deferred rows due up to here are at hand */
	TimestampTz next_due;      /* of the next one; 0 none */
	TimestampTz next_verify;   /* of intents of unknown outcome; 0 none */
	TimestampTz next_retry;    /* of a server or mapping that can't be used now; 0 none */
	TimestampTz state_written;
	bool backfills_running;
	List *chunks; /* BackfillChunk, in order of key */
	TimestampTz chunks_noted;
	List *mappings;  /* MappingDelivery */
	List *requests;  /* in flight */
	List *outgoing;  /* to be sent after commit */
	List *bulk_jobs; /* BulkJob */
	TimestampTz turn_started;
	List *decided; /* Outcome * that need no request, to be settled */
	List *users;   /* RestUser *: names of Salesforce's users, as far as they were asked for */
} Delivery;

/* Once, in the worker; in a long-lived context of its own. */
extern Delivery *delivery_create(HttpClient *http);

/* What is known of a mapping; made anew where there is nothing yet. */
extern MappingDelivery *delivery_of(Delivery *delivery, int mapping);

/* What its transaction noted is undone: it is noted again. */
extern void delivery_begin_anew(MappingDelivery *state);

/* Could anything be delivered, as of the last turn? */
extern bool delivery_possible(const Delivery *delivery);

/* Nothing is sent of the mapping for a while, which grows while it fails; or it goes again. */
extern void delivery_block(Delivery *delivery, MappingDelivery *state, const char *reason, TimestampTz now);
extern void delivery_unblock(MappingDelivery *state);

/* A request of a mapping; the current memory context becomes its own.  Without its call yet. */
extern Request *delivery_request(RequestKind kind, Connection *connection, const Mapping *mapping);

/* It goes out when the turn's transaction has committed. */
extern void delivery_send_later(Delivery *delivery, Request *request);

/* connection_may_send(), beside the requests that are to go out. */
extern bool delivery_may_send(const Delivery *delivery, Connection *connection, int nready,
							  TimestampTz oldest_at, TimestampTz *again);

/* An outcome without a request; its unit counts as in flight until the end of the turn. */
extern Outcome *delivery_decide(Delivery *delivery, Unit *unit, OutcomeKind kind);

/* When there is state to be written for the views; 0: none. */
extern TimestampTz delivery_state_due(const Delivery *delivery);

/* Do so, in a transaction: when the work is done, or it's been a while, or a state is another. */
extern void delivery_write_state(Delivery *delivery, bool idle);

/*
 * Run a step of one mapping's in a subtransaction: an error of it (a dropped
 * table, a type's broken function) blocks that mapping, no other.
 */
typedef void (*MappingStep)(Delivery *delivery, MappingDelivery *state, void *arg);
extern bool delivery_guard(Delivery *delivery, MappingDelivery *state, MappingStep step, void *arg);

/*
 * The text of an error for which a mapping or connection is blocked.  Where
 * someone configures at this moment, or wants us gone, it is nobody's fault:
 * the error is thrown on, and the turn begins anew.
 */
extern const char *delivery_fault(ErrorData *error);

/* The earlier of two times, of which 0 is never. */
static inline void
delivery_soonest(TimestampTz *next, TimestampTz candidate)
{
	if (candidate != 0 && (*next == 0 || candidate < *next))
		*next = candidate;
}

#endif /* SFSYNC_DELIVERY_H */
