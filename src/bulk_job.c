/*
 * bulk_job.c
 *		The life of a bulk job, one request at a time.
 *
 * Whatever a request's fate, the job's state in Salesforce tells how to go on:
 * a reply that was lost only means to look again.  The one exception is the
 * upload, of which the state tells nothing: then the job is aborted, and
 * another one made.  A job runs once it is closed, so until then nothing was
 * written.
 */
#include "compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "bulk_job.h"
#include "connection.h"
#include "errors.h"
#include "mapping.h"
#include "rest.h"
#include "sfsync.h"

/* A job that gathers is sent when nothing was added for so long. */
#define GATHER_PAUSE (2 * USECS_PER_SEC)

/* A job of fewer rows costs more calls than it saves. */
#define WORTHWHILE 1000

#define FIRST_LOOK USECS_PER_SEC
#define LONGEST_PAUSE (30 * USECS_PER_SEC)
#define BUSY_PAUSE (USECS_PER_SEC / 5) /* other requests go first */
#define MAX_FAILURES 5                 /* of reading results, in a row */

#define MAX_RESULTS ((size_t) 400 * 1024 * 1024)
#define BYTES_PER_MS 256 /* the slowest transfer that is waited for */

/*
 * Tables, out of the turn's transaction
 */

static void
store_state(const BulkJob *job, const char *state)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	bulk_store_state(job->id, state, job->job);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

static void
store_removal(const BulkJob *job)
{
	if (job->id == 0)
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	bulk_store_remove(job->id);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * Requests
 */

static RestCall *
next_call(const BulkJob *job)
{
	const char *version = job->connection->options->api_version;

	switch (job->phase)
	{
		case BULK_CREATING:
			return bulk_create(version, job->object, job->operation, job->external_id);
		case BULK_UPLOADING:
			return bulk_upload(version, job->job);
		case BULK_CLOSING:
			return bulk_close(version, job->job);
		case BULK_RUNNING:
			return bulk_info(version, job->job);
		case BULK_READING:
			return bulk_results(version, job->job, job->set, job->locator);
		case BULK_ABORTING:
			return bulk_abort(version, job->job);
		default:
			return bulk_delete(version, job->job);
	}
}

static void
prepare_request(Delivery *delivery, BulkJob *job)
{
	MemoryContext context =
		AllocSetContextCreate(delivery->context, "sfsync bulk request", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Request *request = palloc0(sizeof(Request));

	request->context = context;
	request->kind = REQUEST_BULK;
	request->bulk = job;
	request->connection = job->connection;
	request->mapping = job->mapping;
	request->object = job->object;
	request->external_id = job->external_id;
	request->server = job->server;
	request->call = next_call(job);
	job->in_flight = true;
	delivery_send_later(delivery, request);
	MemoryContextSwitchTo(caller);
}

static int
raw_file(File file)
{
	/* it may have been closed for the sake of others: this opens it again */
	return FileSize(file) >= 0 ? FileGetRawDesc(file) : -1;
}

const char *
bulk_accept(const Request *request)
{
	return request->bulk->phase == BULK_READING ? "Accept: text/csv" : "Accept: application/json";
}

void
bulk_fill(const Request *request, HttpRequest *http)
{
	BulkJob *job = request->bulk;

	if (job->phase == BULK_UPLOADING)
	{
		http->content_type = "text/csv";
		http->body_fd = raw_file(job->file);
		http->body_len = job->length;
		http->timeout += (int) (job->length / BYTES_PER_MS);
	}
	if (job->phase == BULK_READING)
	{
		http->reply_fd = raw_file(job->results);
		http->max_reply = MAX_RESULTS;
		http->timeout += (int) (Min(job->length, (off_t) MAX_RESULTS) / BYTES_PER_MS);
	}
}

/*
 * Gathering
 */

static bool
is_worthwhile(const BulkJob *job)
{
	int threshold = job->connection->options->bulk_threshold;

	return job->operation == BULK_HARD_DELETE || job->n >= Min(threshold / 2 + 1, WORTHWHILE);
}

/* Has the mapping anything left that might still come into the job? */
static bool
is_complete(Delivery *delivery, const BulkJob *job, TimestampTz now)
{
	const MappingQueue *queue = batch_find_queue(delivery->work, job->mapping);
	bool more = queue && queue->nunits > bulk_units(delivery, job->mapping);

	if (job->full)
		return true;
	if (job->added_at == delivery->turn_started)
		return false; /* another turn brings what comes next */
	return !more || job->added_at + GATHER_PAUSE <= now;
}

static void
give_up(BulkJob *job, bool by_rest)
{
	job->dropped = true;
	job->by_rest = by_rest;
}

static void
seal(Delivery *delivery, BulkJob *job)
{
	if (!is_worthwhile(job))
	{
		give_up(job, true);
		return;
	}
	job->id = bulk_store(job);
	job->unsure = true;
	for (int i = 0; i < job->n; i++)
		job->rows[i].outcome.bulk_job = job->id;
	job->phase = BULK_CREATING;
	job->due = 0;
}

/*
 * The turn
 */

/* If not, it is due when it may. */
static bool
may_send(Delivery *delivery, BulkJob *job, TimestampTz now)
{
	TimestampTz again = 0;

	if (!job->connection->token || !connection_usable(job->connection, now, &again) ||
		!claim_may_send(delivery, job->connection, Max(job->n, 1), 0, &again))
	{
		job->due = Max(again, now + BUSY_PAUSE);
		return false;
	}
	return true;
}

/* The mapping was dropped, with all that was pending: the job is ended, if that is possible now. */
static void
orphan(BulkJob *job)
{
	bool ending = job->phase == BULK_ABORTING || job->phase == BULK_DELETING;

	if (!job->job || !job->connection)
		give_up(job, false);
	else if (!ending)
		job->phase = BULK_ABORTING;
	job->again = false;
	job->orphaned = true;
}

/* Is the job ready for its next request? */
static bool
is_ready(Delivery *delivery, BulkJob *job, const Mapping *mapping, TimestampTz now)
{
	if (!mapping || !OidIsValid(mapping->serverid))
	{
		orphan(job);
		return job->due <= now;
	}
	job->connection = connection_get(mapping->serverid, mapping->owner);
	if (job->phase == BULK_GATHERING)
	{
		if (!is_complete(delivery, job, now))
			return false;
		seal(delivery, job);
		return true;
	}
	if (job->due > now)
		return false;
	if (!bulk_store_has(job->id))
		give_up(job, false); /* the database is another one now, and was adopted */
	return true;
}

static void
step(Delivery *delivery, MappingDelivery *state, void *arg)
{
	BulkJob *job = arg;
	TimestampTz now = GetCurrentTimestamp();

	if (state->deliverable && is_ready(delivery, job, mapping_get(job->mapping), now) && !job->dropped &&
		may_send(delivery, job, now))
		prepare_request(delivery, job);
}

void
bulk_jobs_turn(Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->bulk_jobs)
	{
		BulkJob *job = lfirst(lc);

		job->unsure = false;
		if (!job->in_flight && !job->dropped)
			delivery_guard(delivery, delivery_of(delivery, job->mapping), step, job);
	}
}

void
bulk_jobs_release(Delivery *delivery)
{
	List *jobs = list_copy(delivery->bulk_jobs);
	ListCell *lc;

	foreach(lc, jobs)
	{
		BulkJob *job = lfirst(lc);

		if (job->in_flight || !(job->dropped || job->orphaned))
			continue;
		bulk_send_again(delivery, job);
		if (job->dropped)
			bulk_job_free(delivery, job);
	}
	list_free(jobs);
}

/* The turn's transaction failed: the row of a job that it stored isn't there. */
void
bulk_jobs_recover(Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->bulk_jobs)
	{
		BulkJob *job = lfirst(lc);

		if (!job->unsure)
			continue;
		job->unsure = false;
		job->id = 0;
		for (int i = 0; i < job->n; i++)
			job->rows[i].outcome.bulk_job = 0;
		job->phase = BULK_GATHERING;
	}
}

TimestampTz
bulk_jobs_next(Delivery *delivery)
{
	TimestampTz next = 0;
	ListCell *lc;

	foreach(lc, delivery->bulk_jobs)
	{
		const BulkJob *job = lfirst(lc);
		TimestampTz due = job->due;

		if (job->in_flight || !delivery_of(delivery, job->mapping)->deliverable)
			continue;
		if (job->phase == BULK_GATHERING && due == 0)
			due = job->added_at == delivery->turn_started ? job->added_at : job->added_at + GATHER_PAUSE;
		if (job->connection)
			due = Max(due, connection_retry_at(job->connection));
		if (next == 0 || due < next)
			next = Max(due, 1);
	}
	return next;
}

bool
bulk_has_job(const Delivery *delivery, int mapping)
{
	ListCell *lc;

	foreach(lc, delivery->bulk_jobs)
		if (((BulkJob *) lfirst(lc))->mapping == mapping)
			return true;
	return false;
}

/*
 * Replies
 */

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
		ereport(LOG, (errmsg("sfsync: bulk job %s of %s ended early: %s", job->job, job->object,
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
	give_up(job, false);
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

	if (!bulk_parse_info(reply->body ? reply->body : "", reply->body_len, &info, &error))
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

	connection_well(job->connection, 0, 0, false);
	switch (job->phase)
	{
		case BULK_UPLOADING:
			store_state(job, "uploaded");
			go_on(job, BULK_CLOSING, 0);
			break;
		case BULK_CLOSING:
			store_state(job, "closed");
			close_file(&job->file);
			job->closed_at = now;
			go_on(job, BULK_RUNNING, now + FIRST_LOOK);
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
	char *trouble = psprintf("%s: %s", error->code ? error->code : "UNKNOWN", error->message);

	TimestampTz until = now + sfsync_retry_max_delay * INT64CONST(1000);

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
		go_on(job, BULK_RUNNING, now + FIRST_LOOK);
}

/* The request as such was refused, not for a reason of the server or connection. */
static void
refused(Delivery *delivery, BulkJob *job, int status, const RestError *error, TimestampTz now)
{
	ereport(LOG, (errmsg("sfsync: a request of a bulk job of %s was refused: %s%s%s", job->object,
						 error->code ? error->code : "", error->code ? ": " : "", error->message)));
	switch (job->phase)
	{
		case BULK_CREATING:
			do_without(delivery, job, error, now);
			store_removal(job);
			give_up(job, true);
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
			go_on(job, BULK_RUNNING, now + FIRST_LOOK);
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

static bool
is_refusal(ErrorScope scope)
{
	switch (scope)
	{
		case SCOPE_SESSION:
		case SCOPE_CONNECTION:
		case SCOPE_CONCURRENT_LIMIT:
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
		give_up(job, false);
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
	if (is_refusal(error_classify(reply->status, error.code, error.message)))
	{
		connection_well(job->connection, 0, 0, false);
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
	job->due = now + sfsync_retry_base_delay * INT64CONST(1000); /* unless it goes on otherwise */
	if (reply->outcome == HTTP_REPLIED && reply->status >= 200 && reply->status < 300)
		went_well(delivery, request, reply, now);
	else
		went_badly(delivery, request, reply, now);
}

/*
 * At start
 */

static BulkJob *
restore_job(Delivery *delivery, const BulkStored *stored, const Mapping *mapping)
{
	BulkOperation operation;
	BulkJob *job;

	if (!bulk_operation_from_name(stored->operation, &operation))
		return NULL;
	job = bulk_job_create(delivery, mapping, NULL, operation);
	job->id = stored->id;
	job->job = MemoryContextStrdup(job->context, stored->job);
	job->closed_at = stored->closed_at ? stored->closed_at : GetCurrentTimestamp();
	return job;
}

/*
 * What wasn't uploaded can't have been closed: it is aborted, and its rows are
 * taken up like all others.
 */
static void
restore(Delivery *delivery, const BulkStored *stored)
{
	Mapping *mapping = mapping_get(stored->mapping);
	bool lives = mapping && stored->job && strcmp(stored->state, "creating") != 0;
	BulkJob *job = lives ? restore_job(delivery, stored, mapping) : NULL;

	if (!job)
		bulk_store_remove(stored->id);
	else if (strcmp(stored->state, "done") == 0)
		job->phase = BULK_DELETING;
	else if (strcmp(stored->state, "open") == 0)
	{
		bulk_store_forget_rows(stored->id);
		job->phase = BULK_ABORTING;
	}
	else
	{
		bulk_stored_rows(delivery, job);
		job->phase = BULK_RUNNING;
	}
}

void
bulk_jobs_restore(Delivery *delivery)
{
	int n;
	BulkStored *jobs = bulk_stored_jobs(&n);

	for (int i = 0; i < n; i++)
		restore(delivery, &jobs[i]);
}
