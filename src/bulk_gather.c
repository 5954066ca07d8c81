/*
 * bulk_gather.c
 *		Which units go by bulk, and how a job takes them.
 *
 * By bulk goes what can't overwrite anyone: what is made anew, hard deletes,
 * and everything under source_wins (design, section 8); from bulk_threshold due
 * records on, but hard deletes always, which have no other way.  Units with
 * anything unusual about them go by ordinary requests.
 */
#include "compat.h"

#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "bulk_job.h"
#include "payload.h"
#include "sfsync.h"

#define MAX_ROWS 20000                /* of a job */
#define MAX_UNITS 40000               /* in jobs, of all mappings */
#define MAX_THRESHOLD 50000           /* more are never at hand */
#define MAX_LENGTH (90 * 1024 * 1024) /* of a CSV; Salesforce takes 100 MB */

/* Hard deletes that are fewer than bulk_threshold: one job an object in so long. */
#define HARD_DELETE_PAUSE (5 * 60 * USECS_PER_SEC)

bool
bulk_has_room(const Delivery *delivery, int more)
{
	return bulk_units(delivery, 0) + more < MAX_UNITS;
}

int
bulk_threshold(const Mapping *mapping, const Connection *connection)
{
	if (!mapping->key_field || !connection->options)
		return 0;
	return Min(connection->options->bulk_threshold, MAX_THRESHOLD);
}

/* The candidate's notes, in the job's memory. */
static void
keep_notes(Outcome *outcome, const Outcome *noted)
{
	size_t size = sizeof(uint64) * Max(noted->nwrote, 1);

	outcome->conflicts.record_settled = noted->conflicts.record_settled;
	if (!noted->memory)
		return;
	outcome->memory = palloc(sizeof(Memory));
	*outcome->memory = memory_copy(noted->memory);
	outcome->nwrote = noted->nwrote;
	outcome->wrote = palloc(size);
	outcome->wrote_values = palloc(size);
	for (int i = 0; i < noted->nwrote; i++)
	{
		outcome->wrote[i] = noted->wrote[i];
		outcome->wrote_values[i] = noted->wrote_values[i];
	}
}

/*
 * Columns: all fields of the mapping that the operation may write.  Rows leave
 * empty what they don't write.
 */
static BulkColumns *
columns_of(const Mapping *mapping, BulkOperation operation)
{
	RestRecord all = {0};

	all.fields = palloc0(sizeof(RestField) * (2 * mapping->nfields + 1));
	for (int i = 0; i < mapping->nfields; i++)
	{
		const MappingField *map = &mapping->fields[i];
		bool creates = operation != BULK_UPDATE && map->field->createable;
		bool updates = operation != BULK_INSERT && map->field->updateable;

		if (!creates && !updates)
			continue;
		all.fields[all.nfields].name = map->field->name;
		all.fields[all.nfields++].value.kind = FV_NULL;
		if (!map->lookup)
			continue;
		all.fields[all.nfields].name = map->field->name;
		all.fields[all.nfields].value.kind = FV_LOOKUP;
		all.fields[all.nfields++].value.lookup = &map->relation;
	}
	return bulk_columns(operation, mapping->external_id, &all, 1);
}

/*
 * Which units
 */

/*
 * A record that is made anew may have come to be there meanwhile, as a job takes
 * minutes: then a unique key makes the insert fail.  Jobs know no headers for
 * assignment and duplicate rules.
 */
static bool
operation_for(const Claim *claim, UnitKind kind, BulkOperation *operation)
{
	const ServerOptions *options = claim->connection->options;
	bool source_wins = !claim->mapping->checks;

	if (kind != UNIT_DELETE && (options->auto_assign || options->duplicate_allow_save))
		return false;
	switch (kind)
	{
		case UNIT_CREATE:
		case UNIT_UPSERT:
			*operation = source_wins ? BULK_UPSERT : BULK_INSERT;
			return source_wins || claim->mapping->key_field->unique;
		case UNIT_UPDATE:
			*operation = BULK_UPDATE;
			return source_wins;
		case UNIT_DELETE:
			*operation =
				strcmp(claim->mapping->on_delete, "hard_delete") == 0 ? BULK_HARD_DELETE : BULK_DELETE;
			return source_wins || *operation == BULK_HARD_DELETE;
		default:
			return false;
	}
}

/* Units that an ordinary request serves better, or that only it can. */
static bool
is_unusual(const Claim *claim, const Candidate *candidate)
{
	const Unit *unit = candidate->unit;
	const Outcome *noted = &candidate->noted;

	return candidate->fill || candidate->sets_key || candidate->expected ||
		   (!unit->later && !claim->state->bulk_live) || unit->by_rest || unit->limit > 0 ||
		   unit->refused_once || unit->nold > 0 || unit->key_left || noted->set_replaced ||
		   noted->conflicts.n > 0 || (unit->read && unit->read->ambiguous);
}

static BulkJob *
gathering_job(const Claim *claim, BulkOperation operation)
{
	ListCell *lc;

	foreach(lc, claim->delivery->bulk_jobs)
	{
		BulkJob *job = lfirst(lc);

		if (job->mapping == claim->mapping->id && job->phase == BULK_GATHERING && !job->full &&
			job->operation == operation)
			return job;
	}
	return NULL;
}

static bool
is_gathering(const Delivery *delivery, int mapping)
{
	ListCell *lc;

	foreach(lc, delivery->bulk_jobs)
	{
		const BulkJob *job = lfirst(lc);

		if (job->mapping == mapping && job->phase == BULK_GATHERING)
			return true;
	}
	return false;
}

/*
 * From so many due records on, until all of them are on their way; what comes
 * after is measured anew.  A few live changes beside a large backfill are not to
 * wait for its jobs.
 */
void
bulk_measure(Delivery *delivery)
{
	ListCell *lc;

	foreach(lc, delivery->mappings)
	{
		MappingDelivery *state = lfirst(lc);
		const MappingQueue *queue = batch_find_queue(delivery->work, state->id);

		if (!queue || state->bulk_threshold == 0 || state->bulk_off_until > delivery->turn_started ||
			(queue->nunits <= bulk_units(delivery, state->id) && !is_gathering(delivery, state->id)))
			state->bulk = state->bulk_live = false;
		else
		{
			state->bulk |= queue->nready >= state->bulk_threshold;
			state->bulk_live |= queue->nready - queue->nlater >= state->bulk_threshold;
		}
	}
}

static File
open_file(BulkJob *job)
{
	if (job->file < 0)
		job->file = OpenTemporaryFile(true);
	return job->file;
}

static BulkJob *
job_for(Claim *claim, BulkOperation operation)
{
	BulkJob *job = gathering_job(claim, operation);
	MemoryContext caller;

	if (job && job->serial == claim->mapping->serial && job->n < MAX_ROWS && job->length < MAX_LENGTH)
		return job;
	if (job)
		job->full = true;
	if (!bulk_has_room(claim->delivery, 0))
		return NULL;
	job = bulk_job_create(claim->delivery, claim->mapping, claim->connection, operation);
	caller = MemoryContextSwitchTo(job->context);
	job->columns = columns_of(claim->mapping, operation);
	job->added_at = claim->delivery->turn_started;
	MemoryContextSwitchTo(caller);
	return job;
}

/* Hard deletes wait for the time of the next job: when? 0 now. */
static TimestampTz
hard_delete_due(Claim *claim)
{
	MappingDelivery *state = claim->state;
	TimestampTz now = GetCurrentTimestamp();

	if (state->hard_deletes_off_until > now)
		return state->hard_deletes_off_until;
	if (gathering_job(claim, BULK_HARD_DELETE) || state->bulk)
		return 0;
	if (state->hard_deleted_at != 0 && state->hard_deleted_at + HARD_DELETE_PAUSE > now)
		return state->hard_deleted_at + HARD_DELETE_PAUSE;
	return 0;
}

static void
put_off_delete(Claim *claim, Candidate *candidate, TimestampTz due_at)
{
	Outcome *outcome = delivery_decide(claim->delivery, candidate->unit, OUTCOME_DEFERRED);

	outcome->reason = claim->state->hard_deletes_refused
						  ? psprintf("hard deletes are blocked: %s", claim->state->hard_deletes_refused)
						  : "hard deletes go together, at most every five minutes";
	outcome->due_at = due_at;
}

/*
 * A line of the CSV for the candidate, and a row for it.  False if it can't go
 * this way.
 */
static bool
add_line(BulkJob *job, Candidate *candidate, UnitKind kind, StringInfo lines)
{
	RestRecord record = candidate->payload;

	record.salesforce_id = candidate->salesforce_id;
	if (bulk_by_id(job->operation))
	{
		if (!record.salesforce_id || bulk_job_match(job, record.salesforce_id))
			return false;
		record.external_id = NULL;
		if (kind == UNIT_DELETE)
			record.nfields = 0;
	}
	else if (bulk_job_match(job, candidate->record_key))
		return false;
	return !bulk_job_record(job, candidate->record_key) && !bulk_refuses(&record) &&
		   bulk_row(lines, job->columns, &record);
}

static void
add_row(BulkJob *job, Candidate *candidate)
{
	BulkRow *row = bulk_job_add(job, candidate->record_key, candidate->salesforce_id);
	MemoryContext caller = MemoryContextSwitchTo(job->context);

	row->outcome.unit = candidate->unit;
	row->outcome.row_remains = candidate->row->found;
	keep_notes(&row->outcome, &candidate->noted);
	MemoryContextSwitchTo(caller);
	batch_forget_read(candidate->unit);
	batch_start(candidate->unit);
}

/* Lines go to the file before anything is taken: what isn't taken is written over. */
static bool
write_lines(BulkJob *job, const StringInfoData *lines)
{
	return open_file(job) >= 0 &&
		   FileWrite(job->file, lines->data, lines->len, job->length, WAIT_EVENT_BUFFILE_WRITE) == lines->len;
}

static void
write_failed(Claim *claim)
{
	ereport(LOG, (errcode_for_file_access(),
				  errmsg("sfsync: a temporary file for a bulk job could not be written: %m")));
	claim->state->bulk_off_until = GetCurrentTimestamp() + MILLISECONDS(sfsync_retry_max_delay);
}

/* How many were taken, of the candidates of one kind. */
static int
take_kind(Claim *claim, UnitKind *kinds, UnitKind kind, BulkOperation operation)
{
	BulkJob *job = job_for(claim, operation);
	StringInfoData lines;
	bool *taken = palloc0(sizeof(bool) * claim->n);
	int n = 0;

	if (!job)
		return 0;
	initStringInfo(&lines);
	if (job->length == 0 && !bulk_header(&lines, job->columns))
		return 0;
	for (int i = 0; i < claim->n && job->n + n < MAX_ROWS; i++)
	{
		Candidate *candidate = &claim->candidates[i];

		if (kinds[i] != kind || (operation != BULK_HARD_DELETE && is_unusual(claim, candidate)) ||
			lines.len + job->length > MAX_LENGTH)
			continue;
		taken[i] = add_line(job, candidate, kind, &lines);
		n += taken[i];
	}
	if (n > 0 && !write_lines(job, &lines))
	{
		write_failed(claim);
		return 0;
	}
	job->length += n > 0 ? lines.len : 0;
	for (int i = 0; i < claim->n; i++)
	{
		if (!taken[i])
			continue;
		add_row(job, &claim->candidates[i]);
		kinds[i] = UNIT_UNDECIDED;
	}
	if (n > 0)
		job->added_at = claim->delivery->turn_started;
	return n;
}

/* They have no other way: what isn't taken waits. */
static int
take_hard_deletes(Claim *claim, UnitKind *kinds)
{
	TimestampTz due_at = hard_delete_due(claim);
	int n = due_at == 0 ? take_kind(claim, kinds, UNIT_DELETE, BULK_HARD_DELETE) : 0;

	for (int i = 0; i < claim->n; i++)
	{
		if (kinds[i] != UNIT_DELETE)
			continue;
		put_off_delete(claim, &claim->candidates[i],
					   due_at ? due_at : GetCurrentTimestamp() + MILLISECONDS(sfsync_retry_base_delay));
		kinds[i] = UNIT_UNDECIDED;
		n++;
	}
	return n;
}

bool
bulk_take(Claim *claim, UnitKind *kinds)
{
	static const UnitKind taken[] = {UNIT_CREATE, UNIT_UPSERT, UNIT_UPDATE, UNIT_DELETE};
	int n = 0;

	for (int k = 0; k < lengthof(taken); k++)
	{
		BulkOperation operation;
		bool any = false;

		for (int i = 0; i < claim->n && !any; i++)
			any = kinds[i] == taken[k];
		if (!any || !operation_for(claim, taken[k], &operation))
			continue;
		if (operation == BULK_HARD_DELETE)
			n += take_hard_deletes(claim, kinds);
		else if (claim->state->bulk)
			n += take_kind(claim, kinds, taken[k], operation);
	}
	return n > 0;
}
