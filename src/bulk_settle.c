/*
 * bulk_settle.c
 *		Results of bulk jobs, read from a file piece by piece, and settled like
 *		those of other requests.
 */
#include "compat.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

#include "bulk_job.h"
#include "mapping.h"
#include "reply.h"
#include "sfsync.h"

#define BATCH 500 /* results settled in one transaction */
#define PIECE (64 * 1024)

/* A field of the mapping, as far as it matters for what was sent to it. */
typedef struct SentField
{
	const char *name;
	FieldValueKind kind;
	const char *relationship; /* NULL unless it is a lookup */
	int parent_mapping;
} SentField;

typedef struct Settling
{
	Delivery *delivery;
	BulkJob *job;
	const HttpReply *reply;
	SentField *fields;
	const char **names; /* of the fields */
	int nfields;
	Request request; /* as if the batch were one */
	RestResult results[BATCH];
	BulkRow *rows[BATCH];
	MemoryContext context; /* of a batch */
} Settling;

static UnitKind
kind_of(BulkOperation operation)
{
	switch (operation)
	{
		case BULK_INSERT:
			return UNIT_CREATE;
		case BULK_UPSERT:
			return UNIT_UPSERT;
		case BULK_UPDATE:
			return UNIT_UPDATE;
		default:
			return UNIT_DELETE;
	}
}

static const char *
operation_of(BulkOperation operation)
{
	static const char *const names[] = {"create", "upsert", "update", "delete", "hard_delete"};

	return names[operation];
}

static FieldValueKind
kind_of_field(const SfField *field)
{
	if (field->type == SF_BOOLEAN)
		return FV_BOOL;
	return describe_is_number(field) ? FV_NUMBER : FV_STRING;
}

/* In a transaction of its own, as results are settled outside of one. */
static void
read_fields(Settling *settling)
{
	MemoryContext caller = CurrentMemoryContext;
	Mapping *mapping;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	mapping = mapping_get(settling->job->mapping);
	MemoryContextSwitchTo(caller);
	settling->nfields = mapping ? mapping->nfields : 0;
	settling->fields = palloc0(sizeof(SentField) * Max(settling->nfields, 1));
	settling->names = palloc0(sizeof(char *) * Max(settling->nfields, 1));
	for (int i = 0; i < settling->nfields; i++)
	{
		const MappingField *map = &mapping->fields[i];
		SentField *field = &settling->fields[i];

		field->name = settling->names[i] = pstrdup(map->field->name);
		field->kind = kind_of_field(map->field);
		if (!map->lookup)
			continue;
		field->relationship = pstrdup(map->relation.relationship);
		field->parent_mapping = map->relation.parent_mapping;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
}

static FieldValueKind
field_kind(const char *name, void *arg)
{
	const Settling *settling = arg;

	for (int i = 0; i < settling->nfields; i++)
		if (strcmp(settling->fields[i].name, name) == 0)
			return settling->fields[i].kind;
	return FV_STRING;
}

/*
 * What was sent, as the result repeats it, for a dead letter.  Which mapping a
 * lookup's parent belongs to is not in the CSV.
 */
static RestRecord *
sent_record(Settling *settling, const BulkResult *result)
{
	RestRecord *record = bulk_sent(result, settling->job->target.key_field, field_kind, settling);

	for (int f = 0; f < record->nfields; f++)
	{
		FieldLookup *lookup = unconstify(FieldLookup *, record->fields[f].value.lookup);

		if (record->fields[f].value.kind != FV_LOOKUP)
			continue;
		for (int i = 0; i < settling->nfields; i++)
			if (settling->fields[i].relationship &&
				strcmp(settling->fields[i].relationship, lookup->relationship) == 0)
				lookup->parent_mapping = settling->fields[i].parent_mapping;
	}
	return record;
}

static void
start_request(Settling *settling, Request *like)
{
	Request *request = &settling->request;
	BulkJob *job = settling->job;

	memset(request, 0, sizeof(Request));
	request->kind = REQUEST_WRITE;
	request->context = settling->context;
	request->connection = like->connection;
	request->mapping = job->mapping;
	request->target = job->target;
	request->server = job->server;
	request->token_serial = like->token_serial;
	request->mark = like->mark;
	request->jitter = connection_random();
	request->nparts = 1;
	request->parts[0].kind = kind_of(job->operation);
}

static void
start_batch(Settling *settling)
{
	Request *request = &settling->request;

	MemoryContextReset(settling->context);
	MemoryContextSwitchTo(settling->context);
	request->nunits = request->parts[0].n = 0;
	request->finished = false;
	request->outcomes = palloc0(sizeof(Outcome) * BATCH);
	request->records = palloc0(sizeof(RestRecord) * BATCH);
	memset(settling->results, 0, sizeof(settling->results));
}

static void
finish_batch(Settling *settling)
{
	Request *request = &settling->request;
	int n = request->nunits;

	request->parts[0].n = n;
	if (n == 0)
		return;
	reply_set_results(settling->delivery, request, &request->parts[0], settling->results, settling->reply);
	for (int i = 0; i < n; i++)
		settling->rows[i]->settled = true;
	settling->job->open -= n;
	reply_finish(settling->delivery, settling->job->mapping, request->outcomes, n, request);
	start_batch(settling);
	CHECK_FOR_INTERRUPTS();
}

/* A batch that could not be settled: its results are read again. */
static void
take_back(Settling *settling)
{
	Request *request = &settling->request;

	if (request->finished)
		return;
	for (int i = 0; i < request->nunits; i++)
	{
		if (settling->rows[i]->settled)
			settling->job->open++;
		settling->rows[i]->settled = false;
	}
}

static void
add_result(Settling *settling, const BulkResult *result)
{
	Request *request = &settling->request;
	BulkRow *row = bulk_job_match(settling->job, result->match);
	int i = request->nunits;
	RestResult *out = &settling->results[i];

	if (!row || row->settled)
		return;
	for (int k = 0; k < i; k++)
		if (settling->rows[k] == row)
			return;
	settling->rows[i] = row;
	request->outcomes[i] = row->outcome;
	request->outcomes[i].operation = operation_of(settling->job->operation);
	if (result->success && row->outcome.memory && !bulk_by_id(settling->job->operation))
	{
		/* the whole record was made: no conflict of its fields is left */
		request->outcomes[i].conflicts.settled = settling->names;
		request->outcomes[i].conflicts.nsettled = settling->nfields;
	}
	out->success = result->success;
	out->id = result->id;
	out->http_status = 200;
	out->error = result->error;
	if (!result->success)
		request->records[i] = *sent_record(settling, result);
	request->nunits++;
	if (request->nunits == BATCH)
		finish_batch(settling);
}

/* False when the results can't be understood; what came before is settled. */
static bool
read_results(Settling *settling, BulkReader *reader, off_t length)
{
	char *piece = MemoryContextAlloc(settling->delivery->turn_context, PIECE);
	off_t at = 0;
	BulkResult result;
	BulkRead read;

	start_batch(settling);
	while ((read = bulk_reader_next(reader, &result)) == BULK_ROW || read == BULK_MORE)
	{
		int n;

		if (read == BULK_ROW)
		{
			add_result(settling, &result);
			continue;
		}
		n = at < length ? FileRead(settling->job->results, piece, (int) Min(PIECE, length - at), at,
								   WAIT_EVENT_BUFFILE_READ)
						: 0;
		if (n < 0)
			ereport(ERROR, (errcode_for_file_access(), errmsg("could not read a temporary file: %m")));
		at += n;
		if (n > 0)
			bulk_reader_feed(reader, piece, n);
		else
			bulk_reader_end(reader);
	}
	finish_batch(settling);
	return read == BULK_END && at == length;
}

bool
bulk_settle(Delivery *delivery, Request *request, const HttpReply *reply)
{
	BulkJob *job = request->bulk;
	MemoryContext caller = CurrentMemoryContext;
	Settling *settling = MemoryContextAllocZero(delivery->turn_context, sizeof(Settling));
	BulkReader *reader;
	bool good = false;

	settling->delivery = delivery;
	settling->job = job;
	settling->reply = reply;
	settling->context =
		AllocSetContextCreate(delivery->turn_context, "sfsync bulk results", ALLOCSET_DEFAULT_SIZES);
	start_request(settling, request);
	read_fields(settling);
	reader = bulk_reader_create(job->set, bulk_by_id(job->operation) ? "Id" : job->target.key_field);
	if (!reader)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	PG_TRY();
	{
		good = read_results(settling, reader, (off_t) reply->body_len);
	}
	PG_CATCH();
	{
		take_back(settling);
		bulk_reader_free(reader);
		PG_RE_THROW();
	}
	PG_END_TRY();
	bulk_reader_free(reader);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(settling->context);
	return good;
}

/* Once a job was closed, what it has may have been written. */
void
bulk_send_again(Delivery *delivery, BulkJob *job)
{
	bool written = job->phase == BULK_RUNNING || job->phase == BULK_READING;
	Outcome *outcomes = palloc0(sizeof(Outcome) * Max(job->open, 1));
	int n = 0;

	for (int i = 0; i < job->n; i++)
	{
		BulkRow *row = &job->rows[i];

		if (row->settled)
			continue;
		row->settled = true;
		outcomes[n] = row->outcome;
		outcomes[n].kind = OUTCOME_AGAIN;
		outcomes[n].unit->by_rest |= job->by_rest;
		if (written)
			outcomes[n].unit->inserted = false;
		n++;
	}
	job->open = 0;
	if (n == 0)
		return;
	reply_finish(delivery, job->mapping, outcomes, n, NULL);
	pfree(outcomes);
}
