/*
 * bulk_answer.c
 *		What a reply means for a bulk job: how it goes on.
 */
#include "compat.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "bulk_job.h"
#include "errors.h"
#include "lock.h"
#include "reply.h"
#include "sfsync.h"

/* So long until a job is looked at first, and at least between looks. */
#define FIRST_LOOK MILLISECONDS(sfsync_retry_base_delay)
#define LONGEST_PAUSE (30 * USECS_PER_SEC)
#define MAX_FAILURES 5 /* of reading results, in a row */

/*
 * Tables, out of the turn's transaction
 */

static void
begin_store(const BulkJob *job)
{
	StartTransactionCommand();
	(void) lock_mapping(job->mapping, AccessShareLock, true);
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
store_state(const BulkJob *job, const char *state)
{
	begin_store(job);
	bulk_store_state(job->id, state, job->job);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static void
store_removal(const BulkJob *job)
{
	if (job->id == 0)
		return;
	begin_store(job);
	bulk_store_remove(job->id);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static void
close_file(File *file)
{
	if (*file >= 0)
		FileClose(*file);
	*file = -1;
}

static void
go_on(BulkJob *job, BulkPhase phase, TimestampTz due)
{
	job->phase = phase;
	job->due = due;
}

/* The longer it takes, the longer until the next look. */
static TimestampTz
next_look(const BulkJob *job, TimestampTz now)
{
	TimestampTz pause = (now - job->closed_at) / 2;

	return now + Min(Max(pause, FIRST_LOOK), LONGEST_PAUSE);
}

/* It is closed, or may be. */
static void
run(BulkJob *job, TimestampTz now)
{
	job->closed_at = now;
	go_on(job, BULK_RUNNING, now + FIRST_LOOK);
}

/* On with the results, or, when all are read, with the end of the job. */
static void
next_set(Delivery *delivery, BulkJob *job)
{
	job->locator = NULL;
	job->failures = 0;
	for (int set = BULK_SUCCESSFUL; set <= BULK_FAILED; set++)
	{
		if (!job->wanted[set])
			continue;
		job->set = (BulkResultSet) set;
		go_on(job, BULK_READING, 0);
		return;
	}

	/* what no result told of was not looked at, or nobody knows */
	bulk_send_again(delivery, job);
	close_file(&job->results);
	store_state(job, "done");
	go_on(job, BULK_DELETING, 0);
}

/*
 * It is over.  Where nothing at all was looked at, the job as a whole was
 * refused, for its columns probably: the metadata are fetched again, and the
 * rows go by ordinary requests, which tell what is wrong with which.
 */
static void
ended(Delivery *delivery, BulkJob *job, const BulkInfo *info)
{
	if (info->state != BULK_STATE_COMPLETE)
		ereport(LOG, (errmsg("sfsync: bulk job %s of %s ended early: %s", job->job, job->target.object,
							 info->error ? info->error : "it was aborted")));
	if (info->state == BULK_STATE_FAILED && info->processed == 0)
	{
		job->by_rest = true;
		delivery_of(delivery, job->mapping)->describe_wanted = true;
	}
	job->wanted[BULK_SUCCESSFUL] = info->processed < 0 || info->processed > info->failed;
	job->wanted[BULK_FAILED] = info->failed != 0;
	job->results = OpenTemporaryFile(true);
	next_set(delivery, job);
}

static void
looked(Delivery *delivery, BulkJob *job, const BulkInfo *info, TimestampTz now)
{
	switch (info->state)
	{
		case BULK_STATE_OPEN:
			go_on(job, BULK_CLOSING, 0);
			break;
		case BULK_STATE_CLOSED:
		case BULK_STATE_RUNNING:
			job->due = next_look(job, now);
			break;
		default:
			ended(delivery, job, info);
	}
}

static void
read_set(Delivery *delivery, Request *request, const HttpReply *reply)
{
	BulkJob *job = request->bulk;

	if (!bulk_settle(delivery, request, reply))
	{
		ereport(LOG, (errmsg("sfsync: results of bulk job %s can't be understood", job->job)));
		if (++job->failures < MAX_FAILURES)
			return;
	}
	else if (reply->locator && bulk_locator_valid(reply->locator))
	{
		job->failures = 0;
		job->locator = MemoryContextStrdup(job->context, reply->locator);
		job->due = 0;
		return;
	}
	job->wanted[job->set] = false;
	next_set(delivery, job);
}

static void
over(BulkJob *job)
{
	if (job->again)
	{
		job->again = false;
		store_state(job, "creating");
		go_on(job, BULK_CREATING, 0);
		return;
	}
	store_removal(job);
	bulk_give_up(job, false);
}

static void
hard_deletes_taken(MappingDelivery *state, TimestampTz now)
{
	state->hard_deleted_at = now;
	if (state->hard_deletes_refused)
		pfree(state->hard_deletes_refused);
	state->hard_deletes_refused = NULL;
}

/* Replies that tell of the job. */
static void
told(Delivery *delivery, BulkJob *job, const HttpReply *reply, TimestampTz now)
{
	BulkInfo info;
	char *error;

	if (!bulk_parse_info(reply->body, reply->body_len, &info, &error))
		connection_failed(job->connection,
						  psprintf("a reply about a bulk job can't be understood: %s", error), -1, now);
	else if (job->phase == BULK_CREATING)
	{
		if (job->operation == BULK_HARD_DELETE)
			hard_deletes_taken(delivery_of(delivery, job->mapping), now);
		job->job = MemoryContextStrdup(job->context, info.id);
		store_state(job, "open");
		go_on(job, BULK_UPLOADING, 0);
	}
	else
		looked(delivery, job, &info, now);
}

static void
went_well(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	BulkJob *job = request->bulk;

	connection_answered(job->connection, 0);
	switch (job->phase)
	{
		case BULK_UPLOADING:
			store_state(job, "uploaded");
			go_on(job, BULK_CLOSING, 0);
			break;
		case BULK_CLOSING:
			store_state(job, "closed");
			close_file(&job->file);
			run(job, now);
			break;
		case BULK_READING:
			read_set(delivery, request, reply);
			break;
		case BULK_ABORTING:
			go_on(job, BULK_DELETING, 0);
			break;
		case BULK_DELETING:
			over(job);
			break;
		default:
			told(delivery, job, reply, now);
	}
}

/* Salesforce takes no such job: for a while the mapping does without. */
static void
do_without(Delivery *delivery, const BulkJob *job, const RestError *error, TimestampTz now)
{
	MappingDelivery *state = delivery_of(delivery, job->mapping);
	char *trouble = rest_error_text(error);
	TimestampTz until = now + MILLISECONDS(sfsync_retry_max_delay);

	if (job->operation != BULK_HARD_DELETE)
	{
		state->bulk_off_until = until;
		return;
	}
	state->hard_deletes_off_until = until;
	if (state->hard_deletes_refused)
		pfree(state->hard_deletes_refused);
	state->hard_deletes_refused = MemoryContextStrdup(delivery->context, trouble);
	if (state->counters.last_error)
		pfree(state->counters.last_error);
	state->counters.last_error = MemoryContextStrdup(delivery->context, trouble);
	state->dirty = true;
}

/* Nobody knows what became of the request. */
static void
lost(BulkJob *job, TimestampTz now)
{
	if (job->phase == BULK_UPLOADING)
	{
		job->again = true;
		go_on(job, BULK_ABORTING, now + FIRST_LOOK);
	}
	else if (job->phase == BULK_CLOSING)
		run(job, now);
}

/* The request as such was refused, not for a reason of the server or connection. */
static void
refused(Delivery *delivery, BulkJob *job, int status, const RestError *error, TimestampTz now)
{
	ereport(LOG, (errmsg("sfsync: a request of a bulk job of %s was refused: %s%s%s", job->target.object,
						 error->code ? error->code : "", error->code ? ": " : "", error->message)));
	switch (job->phase)
	{
		case BULK_CREATING:
			do_without(delivery, job, error, now);
			store_removal(job);
			bulk_give_up(job, true);
			break;
		case BULK_UPLOADING:
			if (error->code && strcmp(error->code, "INVALIDJOBSTATE") == 0)
			{
				lost(job, now); /* a second try: libcurl made one when the connection broke */
				return;
			}
			do_without(delivery, job, error, now);
			job->by_rest = true;
			bulk_send_again(delivery, job);
			go_on(job, BULK_ABORTING, 0);
			break;
		case BULK_CLOSING:
			run(job, now);
			break;
		case BULK_RUNNING:
		case BULK_READING:
			if (status != 404 && ++job->failures < MAX_FAILURES)
				return;

			/* it is gone, and its results with it */
			memset(job->wanted, 0, sizeof(job->wanted));
			next_set(delivery, job);
			break;
		case BULK_ABORTING:
			go_on(job, BULK_DELETING, 0);
			break;
		default:
			over(job);
	}
}

/* Who may not use Bulk API, or hard delete, may use the others. */
static bool
is_refusal(const BulkJob *job, ErrorScope scope)
{
	switch (scope)
	{
		case SCOPE_CONNECTION:
			return job->phase == BULK_CREATING;
		case SCOPE_SESSION:
		case SCOPE_CONCURRENT_LIMIT:
		case SCOPE_UNKNOWN_LIMIT:
		case SCOPE_DAILY_LIMIT:
		case SCOPE_SERVER:
		case SCOPE_RECORD_COLLATERAL:
			return false;
		default:
			return true;
	}
}

static void
went_badly(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	BulkJob *job = request->bulk;
	RestError error;

	if (job->orphaned)
	{
		bulk_give_up(job, false);
		return;
	}
	if (reply->outcome != HTTP_REPLIED)
	{
		connection_failed(job->connection, reply->error, -1, now);
		if (reply->outcome != HTTP_NOT_SENT)
			lost(job, now);
		return;
	}
	error = rest_parse_error(reply->status, reply->body, reply->body_len);
	if (is_refusal(job, error_classify(reply->status, error.code, error.message)))
	{
		connection_answered(job->connection, 0);
		refused(delivery, job, reply->status, &error, now);
		return;
	}
	if (reply->status >= 500)
		lost(job, now);
	reply_refused(delivery, request, reply, now);
}

void
bulk_reply(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	BulkJob *job = request->bulk;

	job->in_flight = false;
	job->due = now + FIRST_LOOK; /* unless it goes on otherwise */
	if (reply->outcome == HTTP_REPLIED && reply->status >= 200 && reply->status < 300)
		went_well(delivery, request, reply, now);
	else
		went_badly(delivery, request, reply, now);
}
