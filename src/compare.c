/*
 * compare.c
 *		sfsync.compare: where a table and Salesforce's records differ, and the
 *		repair of what is ours to mend.
 *
 * Changes on their way are no difference yet.  They are looked at in the
 * caller's snapshot and again when both sides have been read; a row that
 * changed in between, and may have been delivered, is told by its values.
 */
#include "compat.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "bitmap.h"
#include "compare.h"
#include "conflict.h"
#include "datum.h"
#include "fence.h"
#include "payload.h"
#include "shmem.h"
#include "source.h"
#include "sql.h"
#include "subxact.h"

#define BATCH 200 /* differences looked at and shown at a time */

typedef enum DifferenceKind
{
	MISSING_IN_SALESFORCE,
	MISSING_IN_SOURCE,
	DIFFERENT
} DifferenceKind;

typedef struct Difference
{
	DifferenceKind kind;
	ComparedItem source;     /* not of MISSING_IN_SOURCE */
	ComparedItem salesforce; /* not of MISSING_IN_SALESFORCE */
	bool dropped;            /* it is none after all */
} Difference;

typedef struct Report
{
	Comparison comparison;
	ReturnSetInfo *result;
	MemoryContext context; /* of the differences at hand */
	MemoryContext setup;   /* of what lasts */
	Difference differences[BATCH];
	int n;
	bool repair;
	char *user_id; /* ours; NULL unknown */
	int64 nqueued;
	int64 ndeletes;
} Report;

/*
 * Showing
 */

static Datum
jsonb_datum(const char *json)
{
	return json ? sql_arg_jsonb(sql_from_utf8(json)).value : (Datum) 0;
}

/*
 * The key of a record that has no row, in the key columns' form as far as it
 * has it: it was never read by the types' input functions, and may be anything.
 */
static char *
foreign_key_json(const Mapping *mapping, const char *key)
{
	char **parts = key_split(key, mapping->nkeys);
	StringInfoData json;

	initStringInfo(&json);
	for (int k = 0; k < mapping->nkeys; k++)
	{
		const char *part = parts ? parts[k] : key;
		char *number = rest_plain_number(part);
		Oid type = mapping->key_types[k];
		bool bare = number && strcmp(number, part) == 0 &&
					(type == INT2OID || type == INT4OID || type == INT8OID || type == NUMERICOID);

		appendStringInfoString(&json, k ? ", " : "{");
		escape_json(&json, mapping->key_columns[k]);
		appendStringInfoString(&json, ": ");
		if (bare)
			appendStringInfoString(&json, number);
		else
			escape_json(&json, part);
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

static void
put_difference(Report *report, const char *key, const char *kind, const char *field, const char *source_value,
			   const char *salesforce_value, const ComparedItem *record)
{
	const char *modified_by = compare_user(&report->comparison, record->modified_by);
	const char *texts[7] = {"",
							kind,
							field,
							source_value ? "" : NULL,
							salesforce_value ? "" : NULL,
							record->modified_at ? "" : NULL,
							modified_by};
	Datum values[7] = {0};

	values[0] = jsonb_datum(key);
	values[3] = jsonb_datum(source_value);
	values[4] = jsonb_datum(salesforce_value);
	values[5] = TimestampTzGetDatum(record->modified_at);
	api_put_row(report->result, 7, texts, values);
}

static bool
field_differs(const Report *report, const Difference *difference, int i)
{
	const MappingField *map = report->comparison.fields[i].map;
	const ComparedValue *ours = &difference->source.values[i];
	const ComparedValue *theirs = &difference->salesforce.values[i];

	if (!map || !ours->known || !theirs->known || ours->hash == theirs->hash)
		return false;

	/* what has a value is meant to keep it */
	return !map->policy || strcmp(map->policy, "fill_if_empty") != 0 || theirs->hash == 0;
}

static bool
differs(const Report *report, const Difference *difference)
{
	for (int i = 0; i < report->comparison.mapping->nfields; i++)
		if (field_differs(report, difference, i))
			return true;
	return false;
}

static char *
server_key(const char *key)
{
	return datum_from_utf8(key);
}

static void
show(Report *report, const Difference *difference)
{
	const Mapping *mapping = report->comparison.mapping;
	char *key;

	if (difference->kind == MISSING_IN_SOURCE)
	{
		put_difference(report, foreign_key_json(mapping, difference->salesforce.key), "missing_in_source",
					   NULL, NULL, psprintf("{\"Id\": \"%s\"}", difference->salesforce.id),
					   &difference->salesforce);
		return;
	}
	key = source_key_json(mapping, server_key(difference->source.key));
	if (difference->kind == MISSING_IN_SALESFORCE)
	{
		put_difference(report, key, "missing_in_salesforce", NULL, NULL, NULL, &difference->salesforce);
		return;
	}
	for (int i = 0; i < mapping->nfields; i++)
		if (field_differs(report, difference, i))
			put_difference(report, key, "different", mapping->fields[i].field->name,
						   difference->source.values[i].json, difference->salesforce.values[i].json,
						   &difference->salesforce);
}

/*
 * Looking again
 */

static bool
same_values(const ComparedValue *a, const ComparedValue *b, int n)
{
	for (int i = 0; i < n; i++)
		if (a[i].known != b[i].known || a[i].hash != b[i].hash)
			return false;
	return true;
}

/* The row as it is now: was it another when the comparison began? */
static void
look_again(Report *report, Difference *difference, const SourceRow *row)
{
	const Mapping *mapping = report->comparison.mapping;
	RestRecord record;
	RestError error = {0};
	ComparedValue *values;

	if (row->failed || row->found == (difference->kind == MISSING_IN_SOURCE))
		difference->dropped = true;
	if (difference->dropped || !row->found)
		return;
	(void) payload_build(mapping, row, difference->source.key, NULL, 0, PAYLOAD_UPDATE, &record, &error);
	values = compare_row_values(&report->comparison, &record);
	if (!same_values(values, difference->source.values, mapping->nfields))
		difference->dropped = true;
	difference->source.values = values;
}

/* A key of Salesforce, to be read as one of the table. */
typedef struct ReadKey
{
	const Mapping *mapping;
	const char *key;
	char *result;
} ReadKey;

static void
read_key(void *arg)
{
	ReadKey *read = arg;

	read->result =
		source_key_from_json(read->mapping, jsonb_datum(foreign_key_json(read->mapping, read->key)));
}

/*
 * The key of Salesforce as the table would have it; NULL if no row can have it:
 * its types' input functions refuse it, or read another key.
 */
static char *
row_key(const Mapping *mapping, const ComparedItem *record)
{
	ReadKey read = {mapping, record->key, NULL};
	ErrorData *error = subxact_try(read_key, &read);

	if (error && ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
		ReThrowError(error);
	if (error || strcmp(compare_record_key(mapping, datum_key_utf8(read.result)), record->record_key) != 0)
		return NULL;
	return read.result;
}

static void
look_at_rows(Report *report)
{
	const Mapping *mapping = report->comparison.mapping;
	char *keys[BATCH];
	int at[BATCH];
	SourceRow *rows;
	int n = 0;

	for (int i = 0; i < report->n; i++)
	{
		const Difference *difference = &report->differences[i];
		char *key = difference->kind == MISSING_IN_SOURCE ? row_key(mapping, &difference->salesforce)
														  : server_key(difference->source.key);

		if (!key)
			continue;
		keys[n] = key;
		at[n++] = i;
	}
	PushActiveSnapshot(GetLatestSnapshot());
	rows = source_read(mapping, keys, n);
	for (int i = 0; i < n; i++)
		look_again(report, &report->differences[at[i]], &rows[i]);
	PopActiveSnapshot();
}

/* Records that the delete policy archived are there on purpose. */
static const char archived_query[] =
	"SELECT record_key FROM sfsync.record WHERE mapping = $1 AND record_key = ANY ($2) AND replaced IS NOT NULL";

static void
drop_archived(Report *report)
{
	char *keys[BATCH];
	SqlScope scope;
	uint64 n;
	int nkeys = 0;

	for (int i = 0; i < report->n; i++)
		if (report->differences[i].kind == MISSING_IN_SOURCE)
			keys[nkeys++] = report->differences[i].salesforce.record_key;
	if (nkeys == 0)
		return;
	sql_open_latest(&scope);
	n = SQL_RUN(&scope, archived_query, sql_arg_int(report->comparison.mapping->id),
				sql_arg_texts(keys, nkeys));
	for (uint64 r = 0; r < n; r++)
		for (int i = 0; i < report->n; i++)
			if (report->differences[i].kind == MISSING_IN_SOURCE &&
				strcmp(report->differences[i].salesforce.record_key, sql_text(&scope, r, 1)) == 0)
				report->differences[i].dropped = true;
	sql_close(&scope);
}

/*
 * Repair
 */

/* The event is now: what is queued here is wanted, whatever was before. */
#define REPAIR_COLUMNS                                                                                           \
	"INSERT INTO sfsync.deferred AS d (mapping, key, state, reason, due_at, attempts, whole, whole_at, deleted," \
	" changed, changed_at, first_event_at, event_at, xid, captured, renewed)"

#define REPAIR_UPDATE                                                                                        \
	" ON CONFLICT (mapping, key) DO UPDATE SET state = excluded.state, reason = excluded.reason,"            \
	" due_at = excluded.due_at, attempts = 0, whole = true, whole_at = excluded.event_at,"                   \
	" deleted = excluded.deleted, event_at = excluded.event_at, renewed = excluded.renewed"

#define NOW "pg_catalog.clock_timestamp()"
#define XACT "pg_catalog.pg_current_xact_id()"

static const char repair_rows_query[] =
	REPAIR_COLUMNS " SELECT $1, u.key, 'waiting', 'repair by sfsync.compare', " NOW ", 0, u.changed IS NULL,"
				   " CASE WHEN u.changed IS NULL THEN " NOW " END, false, u.changed,"
				   " CASE WHEN u.changed IS NOT NULL THEN " NOW " END, " NOW ", " NOW ", " XACT
				   ", false, " XACT " FROM unnest($2, $3, $4) AS u(key, changed, source_key)"
				   " WHERE u.changed IS NULL OR NOT EXISTS (SELECT FROM sfsync.conflict c, sfsync.mapping m"
				   " WHERE m.id = $1 AND c.mapping = m.name AND c.source_key = u.source_key::jsonb"
				   " AND c.resolution IS NULL)" REPAIR_UPDATE;

/* Held at first: how many there are is known at the end. */
static const char repair_deletes_query[] =
	REPAIR_COLUMNS " SELECT r.mapping, r.key, 'held', 'delete by sfsync.compare: the record has no row', " NOW
				   ", 0, true, " NOW ", true, NULL, NULL, " NOW ", " NOW ", " XACT ", true, " XACT
				   " FROM sfsync.record r WHERE r.mapping = $1 AND r.record_key = ANY ($2)" REPAIR_UPDATE;

static const char release_query[] =
	"UPDATE sfsync.deferred d SET state = 'waiting' FROM sfsync.mapping m WHERE m.id = $1 AND d.mapping = m.id"
	" AND d.state = 'held' AND d.deleted AND d.xid = pg_catalog.pg_current_xact_id()"
	" AND (m.delete_guard = 0 OR m.delete_guard >= $2)";

/* The columns of the fields that differ. */
static uint8 *
differing_columns(const Report *report, const Difference *difference, int *len)
{
	const Mapping *mapping = report->comparison.mapping;
	uint8 *changed;
	int max = 0;

	*len = 0;
	for (int c = 0; c < mapping->ncolumns; c++)
		max = Max(max, mapping->columns[c].attnum);
	changed = palloc0(Max(bitmap_length(max), 1));
	for (int i = 0; i < mapping->nfields; i++)
		for (int c = 0; field_differs(report, difference, i) && c < mapping->ncolumns; c++)
		{
			AttrNumber attnum = mapping->columns[c].attnum;

			if (!mapping_field_uses(&mapping->fields[i], c))
				continue;
			bitmap_add(changed, attnum);
			*len = Max(*len, bitmap_length(attnum));
		}
	return changed;
}

/* What sfsync itself wrote last, or failed to write, is its to mend. */
static bool
is_ours(const Report *report, const Difference *difference)
{
	if (difference->kind == MISSING_IN_SALESFORCE)
		return true;
	return difference->kind == DIFFERENT && report->user_id && difference->salesforce.modified_by &&
		   strcmp(report->user_id, difference->salesforce.modified_by) == 0;
}

static void
repair_rows(Report *report)
{
	const Mapping *mapping = report->comparison.mapping;
	char *keys[BATCH];
	uint8 *changed[BATCH];
	int lengths[BATCH];
	char *source_keys[BATCH];
	SqlScope scope;
	int n = 0;

	for (int i = 0; i < report->n; i++)
	{
		const Difference *difference = &report->differences[i];

		if (difference->dropped || !is_ours(report, difference))
			continue;
		keys[n] = server_key(difference->source.key);
		source_keys[n] = source_key_json(mapping, keys[n]);
		changed[n] =
			difference->kind == DIFFERENT ? differing_columns(report, difference, &lengths[n]) : NULL;
		n++;
	}
	if (n == 0)
		return;
	sql_open(&scope);
	report->nqueued += SQL_RUN(&scope, repair_rows_query, sql_arg_int(mapping->id), sql_arg_texts(keys, n),
							   sql_arg_byteas(changed, lengths, n), sql_arg_texts(source_keys, n));
	sql_close(&scope);
}

/* Only of records that sfsync remembers: others were never its own. */
static void
repair_deletes(Report *report)
{
	const Mapping *mapping = report->comparison.mapping;
	char *keys[BATCH];
	SqlScope scope;
	int n = 0;

	for (int i = 0; i < report->n; i++)
		if (!report->differences[i].dropped && report->differences[i].kind == MISSING_IN_SOURCE)
			keys[n++] = report->differences[i].salesforce.record_key;
	if (n == 0 || strcmp(mapping->on_delete, "ignore") == 0)
		return;
	sql_open(&scope);
	report->ndeletes +=
		SQL_RUN(&scope, repair_deletes_query, sql_arg_int(mapping->id), sql_arg_texts(keys, n));
	sql_close(&scope);
}

/*
 * Deletes go at once unless there are more than delete_guard lets through, or
 * rows may be there that row security hides from the mapping's owner.
 */
static void
finish_repair(Report *report)
{
	const Mapping *mapping = report->comparison.mapping;
	bool hidden = check_enable_rls(mapping->source, mapping->owner, true) == RLS_ENABLED;
	uint64 released = 0;
	SqlScope scope;

	if (report->ndeletes > 0 && !hidden)
	{
		sql_open(&scope);
		released = SQL_RUN(&scope, release_query, sql_arg_int(mapping->id), sql_arg_bigint(report->ndeletes));
		sql_close(&scope);
	}
	shmem_wake_at_commit();
	ereport(
		NOTICE,
		(errmsg("repair: %lld rows are queued, %lld deletes", (long long) report->nqueued,
				(long long) report->ndeletes),
		 report->ndeletes > 0 && released == 0
			 ? errdetail("The deletes are held: sfsync.release_deletes lets them go, sfsync.discard_deletes "
						 "drops them.")
			 : 0));
}

/*
 * Walking
 */

static void
flush(Report *report)
{
	MemoryContext caller = MemoryContextSwitchTo(report->context);

	if (report->n > 0)
	{
		look_at_rows(report);
		drop_archived(report);
		for (int i = 0; i < report->n; i++)
			if (!report->differences[i].dropped)
				show(report, &report->differences[i]);
		if (report->repair)
		{
			repair_rows(report);
			repair_deletes(report);
		}
	}
	report->n = 0;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(report->context);
	CHECK_FOR_INTERRUPTS();
}

static ComparedItem
kept(const ComparedItem *item, int nfields)
{
	ComparedItem copy = *item;

	copy.record_key = pstrdup(item->record_key);
	copy.key = pstrdup(item->key);
	copy.id = item->id ? pstrdup(item->id) : NULL;
	copy.modified_by = item->modified_by ? pstrdup(item->modified_by) : NULL;
	copy.values = palloc0(sizeof(ComparedValue) * Max(nfields, 1));
	for (int i = 0; i < nfields; i++)
	{
		copy.values[i] = item->values[i];
		if (item->values[i].json)
			copy.values[i].json = pstrdup(item->values[i].json);
	}
	return copy;
}

static void
add(Report *report, DifferenceKind kind, const ComparedItem *source, const ComparedItem *salesforce)
{
	int nfields = report->comparison.mapping->nfields;
	MemoryContext caller = MemoryContextSwitchTo(report->context);
	Difference *difference = &report->differences[report->n++];

	memset(difference, 0, sizeof(*difference));
	difference->kind = kind;
	if (source)
		difference->source = kept(source, nfields);
	if (salesforce)
		difference->salesforce = kept(salesforce, nfields);
	MemoryContextSwitchTo(caller);
	if (report->n == BATCH)
		flush(report);
}

/* What came out of the sort under one key so far. */
typedef struct KeyGroup
{
	char *record_key; /* NULL at the start */
	bool pending;
	bool has_source;
	bool has_salesforce;
	ComparedItem source;
	MemoryContext context;
} KeyGroup;

static void
end_group(Report *report, const KeyGroup *group)
{
	if (group->record_key && group->has_source && !group->has_salesforce && !group->pending)
		add(report, MISSING_IN_SALESFORCE, &group->source, NULL);
}

static void
begin_group(KeyGroup *group, const char *record_key)
{
	MemoryContext context = group->context;

	MemoryContextReset(context);
	memset(group, 0, sizeof(*group));
	group->context = context;
	group->record_key = MemoryContextStrdup(context, record_key);
}

/* Of several rows with keys that are one to Salesforce the others are dead letters. */
static void
take(Report *report, KeyGroup *group, const ComparedItem *item)
{
	int nfields = report->comparison.mapping->nfields;
	Difference both = {.kind = DIFFERENT};
	MemoryContext caller;

	if (item->side == SIDE_PENDING)
		group->pending = true;
	else if (item->side == SIDE_SOURCE && !group->has_source)
	{
		caller = MemoryContextSwitchTo(group->context);
		group->source = kept(item, nfields);
		MemoryContextSwitchTo(caller);
		group->has_source = true;
	}
	if (item->side != SIDE_SALESFORCE)
		return;
	group->has_salesforce = true;
	if (group->pending)
		return;
	both.source = group->source;
	both.salesforce = *item;
	if (!group->has_source)
		add(report, MISSING_IN_SOURCE, NULL, item);
	else if (differs(report, &both))
		add(report, DIFFERENT, &group->source, item);
}

static void
walk(Report *report)
{
	MemoryContext one = AllocSetContextCreate(report->setup, "sfsync compared item", ALLOCSET_DEFAULT_SIZES);
	KeyGroup group = {0};
	ComparedItem item;
	MemoryContext caller = MemoryContextSwitchTo(one);

	group.context = AllocSetContextCreate(report->setup, "sfsync compared key", ALLOCSET_DEFAULT_SIZES);
	while (compare_next(&report->comparison, &item))
	{
		if (!group.record_key || strcmp(group.record_key, item.record_key) != 0)
		{
			end_group(report, &group);
			begin_group(&group, item.record_key);
		}
		take(report, &group, &item);
		MemoryContextReset(one);
	}
	end_group(report, &group);
	MemoryContextSwitchTo(caller);
	flush(report);
}

/*
 * The function
 */

static void
check_backfills(const Mapping *mapping)
{
	SqlScope scope;
	bool running;

	sql_open_latest(&scope);
	running = SQL_RUN(&scope, "SELECT FROM sfsync.backfill_job WHERE mapping = $1 AND state = 'running'",
					  sql_arg_int(mapping->id)) > 0;
	sql_close(&scope);
	if (running)
		ereport(NOTICE, (errmsg("a backfill of mapping \"%s\" is running", mapping->name),
						 errdetail("Rows that it has not sent yet are shown as differences."),
						 errhint("See sfsync.backfill_progress.")));
}

static Mapping *
comparable_mapping(FunctionCallInfo fcinfo)
{
	Mapping *mapping;
	char *fence;

	api_require(fcinfo, 0, "mapping");
	api_require(fcinfo, 1, "repair");
	mapping = api_mapping(api_text(fcinfo, 0));
	api_require_metadata(mapping);
	fence = fence_reason(mapping->server);
	if (fence)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("server \"%s\" is fenced", mapping->server), errdetail("%s", fence),
						errhint("Adopt the server with sfsync.adopt, or correct its environment.")));
	if (PG_GETARG_BOOL(1))
		api_keep_mapping(mapping);
	return mapping;
}

static void
ask_salesforce(Report *report, Foreground *session)
{
	const Mapping *mapping = report->comparison.mapping;

	foreground_open(session, mapping->serverid, mapping->owner);
	if (foreground_user(session))
		report->user_id = pstrdup(session->token->user_id);
	compare_take_salesforce(&report->comparison, session);
	compare_take_users(&report->comparison, session);
}

static void
gather(Report *report)
{
	Foreground *session = palloc0(sizeof(Foreground));

	compare_take_pending(&report->comparison, false);
	PG_TRY();
	{
		ask_salesforce(report, session);
	}
	PG_FINALLY();
	{
		foreground_close(session);
	}
	PG_END_TRY();
	compare_take_source(&report->comparison);
	compare_take_pending(&report->comparison, true);
}

PG_FUNCTION_INFO_V1(sfsync_compare);

Datum
sfsync_compare(PG_FUNCTION_ARGS)
{
	Report *report = palloc0(sizeof(Report));
	const Mapping *mapping = comparable_mapping(fcinfo);

	InitMaterializedSRF(fcinfo, 0);
	check_backfills(mapping);
	report->result = (ReturnSetInfo *) fcinfo->resultinfo;
	report->repair = PG_GETARG_BOOL(1);
	report->setup = CurrentMemoryContext;
	report->context =
		AllocSetContextCreate(CurrentMemoryContext, "sfsync differences", ALLOCSET_DEFAULT_SIZES);
	compare_begin(&report->comparison, mapping->id);
	gather(report);
	compare_sort(&report->comparison);
	walk(report);
	compare_end(&report->comparison);
	if (report->repair)
		finish_repair(report);
	return (Datum) 0;
}
