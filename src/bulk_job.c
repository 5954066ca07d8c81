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

#include "utils/memutils.h"

#include "bulk_job.h"
#include "mapping.h"
#include "sfsync.h"

/* A job that gathers is sent when nothing was added for so long. */
#define GATHER_PAUSE (2 * USECS_PER_SEC)

/* A job of fewer rows costs more calls than it saves. */
#define WORTHWHILE 1000

#define BUSY_PAUSE (USECS_PER_SEC / 5) /* other requests go first */

#define MAX_RESULTS ((size_t) 400 * 1024 * 1024)
#define BYTES_PER_MS 256 /* the slowest transfer that is waited for */

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
			return bulk_create(version, job->target.object, job->operation, job->target.key_field);
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
	request->target = job->target;
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

void
bulk_give_up(BulkJob *job, bool by_rest)
{
	job->dropped = true;
	job->by_rest = by_rest;
}

static void
seal(Delivery *delivery, BulkJob *job)
{
	if (!is_worthwhile(job))
	{
		bulk_give_up(job, true);
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
		!delivery_may_send(delivery, job->connection, Max(job->n, 1), 0, &again))
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
		bulk_give_up(job, false);
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
		bulk_give_up(job, false); /* the database is another one now, and was adopted */
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
