/*
 * bulk_rows.c
 *		Bulk jobs in memory: their rows, how these are found again, and what
 *		will be remembered of their records.
 */
#include "compat.h"

#include "common/hashfn.h"
#include "utils/memutils.h"

#include "bulk_job.h"
#include "payload.h"

typedef struct BulkKey
{
	char *name;
	int row;
	char status;
} BulkKey;

#define SH_PREFIX bulkkeys
#define SH_ELEMENT_TYPE BulkKey
#define SH_KEY_TYPE char *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) (key), strlen(key))
#define SH_EQUAL(tb, a, b) (strcmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/*
 * Jobs in memory
 */

BulkJob *
bulk_job_create(Delivery *delivery, const Mapping *mapping, Connection *connection, BulkOperation operation)
{
	MemoryContext context =
		AllocSetContextCreate(delivery->context, "sfsync bulk job", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	BulkJob *job = palloc0(sizeof(BulkJob));

	job->context = context;
	job->mapping = mapping->id;
	job->target.object = pstrdup(mapping->object);
	job->target.key_field = pstrdup(mapping->external_id);
	job->server = pstrdup(mapping->server);
	job->target.key_is_number = mapping->key_field && payload_key_is_number(mapping);
	job->case_sensitive = mapping->key_field && mapping->key_field->case_sensitive;
	job->serial = mapping->serial;
	job->connection = connection;
	job->operation = operation;
	job->file = job->results = -1;
	job->keys = bulkkeys_create(context, 1024, NULL);
	MemoryContextSwitchTo(delivery->context);
	delivery->bulk_jobs = lappend(delivery->bulk_jobs, job);
	MemoryContextSwitchTo(caller);
	return job;
}

void
bulk_job_free(Delivery *delivery, BulkJob *job)
{
	delivery->bulk_jobs = list_delete_ptr(delivery->bulk_jobs, job);
	if (job->file >= 0)
		FileClose(job->file);
	if (job->results >= 0)
		FileClose(job->results);
	MemoryContextDelete(job->context);
}

/*
 * Rows are found by their record key, and by what results repeat where that is
 * something else: the Id, or a key that is a number, which comes back in another
 * form.
 */
static char *
key_name(char kind, const char *text)
{
	size_t len = strlen(text);
	char *name = palloc(len + 2);

	name[0] = kind;
	memcpy(name + 1, text, len + 1);
	return name;
}

/* NULL if the text can't be what results repeat. */
static char *
match_name(const BulkJob *job, const char *text)
{
	char *form;

	if (bulk_by_id(job->operation))
		form = rest_id18(text);
	else if (job->target.key_is_number)
		form = rest_number_key(text);
	else
		return key_name('r', rest_record_key(text, job->case_sensitive));
	return form ? key_name('m', form) : NULL;
}

static void
note_key(BulkJob *job, char *name, int row)
{
	bool found;

	if (name)
		bulkkeys_insert(job->keys, name, &found)->row = row;
}

static BulkRow *
find_key(const BulkJob *job, char *name)
{
	BulkKey *entry = name ? bulkkeys_lookup(job->keys, name) : NULL;

	if (name)
		pfree(name);
	return entry ? &job->rows[entry->row] : NULL;
}

BulkRow *
bulk_job_record(const BulkJob *job, const char *record_key)
{
	return find_key(job, key_name('r', record_key));
}

BulkRow *
bulk_job_match(const BulkJob *job, const char *match)
{
	return find_key(job, match_name(job, match));
}

BulkRow *
bulk_job_add(BulkJob *job, const char *record_key, const char *salesforce_id)
{
	MemoryContext caller = MemoryContextSwitchTo(job->context);
	BulkRow *row;

	if (job->n == job->max)
	{
		job->max = Max(job->max * 2, 256);
		job->rows = job->rows ? repalloc_huge(job->rows, sizeof(BulkRow) * job->max)
							  : palloc(sizeof(BulkRow) * job->max);
	}
	row = &job->rows[job->n];
	memset(row, 0, sizeof(BulkRow));
	row->outcome.record_key = pstrdup(record_key);
	row->outcome.salesforce_id = salesforce_id ? pstrdup(salesforce_id) : NULL;
	row->outcome.has_record = salesforce_id != NULL;
	row->outcome.bulk_job = job->id;
	note_key(job, key_name('r', record_key), job->n);
	if (bulk_by_id(job->operation) || job->target.key_is_number)
		note_key(job, match_name(job, bulk_by_id(job->operation) ? salesforce_id : record_key), job->n);
	job->n++;
	job->open++;
	MemoryContextSwitchTo(caller);
	return row;
}

bool
bulk_jobs_write(const Delivery *delivery, const char *object, const char *record_key)
{
	ListCell *lc;

	foreach(lc, delivery->bulk_jobs)
	{
		BulkJob *job = lfirst(lc);
		BulkRow *row;

		if (job->open == 0 || strcmp(job->target.object, object) != 0)
			continue;
		row = bulk_job_record(job, record_key);
		if (row && !row->settled)
			return true;
	}
	return false;
}

int
bulk_units(const Delivery *delivery, int mapping)
{
	int n = 0;
	ListCell *lc;

	foreach(lc, delivery->bulk_jobs)
	{
		BulkJob *job = lfirst(lc);

		if (mapping == 0 || job->mapping == mapping)
			n += job->open;
	}
	return n;
}

/*
 * Memory of a record that is yet to be written: what will be ours has no time.
 */

uint8 *
bulk_memory_write(const Outcome *outcome, int *len)
{
	Memory memory = memory_copy(outcome->memory);

	for (int i = 0; i < outcome->nwrote; i++)
		memory_wrote(&memory, outcome->wrote[i], outcome->wrote_values[i], 0);
	return memory_write(&memory, len);
}

void
bulk_memory_read(Outcome *outcome, const uint8 *bytes, int len)
{
	Memory *memory;

	if (len < 0)
		return;
	memory = palloc(sizeof(Memory));
	*memory = memory_read(bytes, len);
	outcome->memory = memory;
	outcome->wrote = palloc(sizeof(uint64) * Max(memory->n, 1));
	outcome->wrote_values = palloc(sizeof(uint64) * Max(memory->n, 1));
	for (int i = 0; i < memory->n; i++)
	{
		if (memory->fields[i].theirs || memory->fields[i].at != 0)
			continue;
		outcome->wrote[outcome->nwrote] = memory->fields[i].field;
		outcome->wrote_values[outcome->nwrote++] = memory->fields[i].value;
	}
}
