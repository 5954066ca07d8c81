/*
 * gather.c
 *		Both sides of a comparison into one sort, which spills to disk: what
 *		Salesforce has, what the table has, and what is on its way between.
 *
 * Orders of keys differ between Salesforce, collations and types, so neither
 * side is read in an order; the sort is by the bytes of the key in the form in
 * which Salesforce compares it.
 */
#include "compat.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "canonical.h"
#include "capture.h"
#include "compare.h"
#include "conflict.h"
#include "datum.h"
#include "payload.h"
#include "source.h"
#include "sql.h"

#define CHUNK_ROWS 1000
#define MAX_USERS 1000 /* names are for people to read */

enum
{
	COL_RECORD_KEY,
	COL_SIDE,
	COL_KEY,
	COL_ID,
	COL_MODIFIED_AT,
	COL_MODIFIED_BY,
	COL_VALUES,
	NCOLS
};

char *
compare_record_key(const Mapping *mapping, const char *key)
{
	char *number = payload_key_is_number(mapping) ? rest_number_key(key) : NULL;

	return number ? number : rest_record_key(key, mapping->key_field->case_sensitive);
}

/*
 * What is compared
 */

/* Names of the fields to ask for, each once. */
static int
ask_for(Comparison *comparison, const char *name)
{
	for (int i = 0; i < comparison->nasked; i++)
		if (pg_strcasecmp(comparison->asked[i], name) == 0)
			return i;
	comparison->asked[comparison->nasked] = name;
	return comparison->nasked++;
}

/*
 * Lookups are compared by the parent's external ID.  A relation to several
 * objects can't be followed in a query, and what is only filled in isn't meant
 * to stay equal.
 */
static bool
comparable(const MappingField *map)
{
	if (map->lookup && map->relation.parent_object)
		return false;
	if (map->policy && strcmp(map->policy, "create_only") == 0)
		return false;
	return canonical_comparable(map->field);
}

static void
choose_fields(Comparison *comparison)
{
	const Mapping *mapping = comparison->mapping;

	comparison->asked = palloc(sizeof(char *) * (2 * mapping->nfields + 1));
	for (int i = 0; i < mapping->nfields; i++)
	{
		const MappingField *map = &mapping->fields[i];
		ComparedField *field = &comparison->fields[i];

		field->parent = -1;
		if (!comparable(map))
			continue;
		field->map = map;
		field->value = ask_for(comparison, map->field->name);
		if (map->lookup)
			field->parent =
				ask_for(comparison, psprintf("%s.%s", map->relation.relationship, map->relation.external_id));
	}
}

/* The mapping, and how keys of parents compare. */
static void
read_mapping(Comparison *comparison, int id)
{
	const Mapping *mapping = mapping_get(id);

	if (!mapping)
		elog(ERROR, "the mapping has just been dropped");
	comparison->mapping = mapping;
	comparison->fields = palloc0(sizeof(ComparedField) * Max(mapping->nfields, 1));
	for (int i = 0; i < mapping->nfields; i++)
	{
		const MappingField *field = &mapping->fields[i];
		const Mapping *parent = field->lookup ? mapping_get(field->relation.parent_mapping) : NULL;

		comparison->fields[i].case_sensitive =
			parent && parent->key_field && parent->key_field->case_sensitive;
	}
}

void
compare_begin(Comparison *comparison, int mapping)
{
	AttrNumber columns[] = {COL_RECORD_KEY + 1, COL_SIDE + 1};
	Oid operators[] = {TextLessOperator, Int4LessOperator};
	Oid collations[] = {C_COLLATION_OID, InvalidOid};
	bool nulls_first[] = {false, false};
	static const Oid types[NCOLS] = {TEXTOID, INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, BYTEAOID};

	memset(comparison, 0, sizeof(*comparison));
	read_mapping(comparison, mapping);
	choose_fields(comparison);
	comparison->desc = CreateTemplateTupleDesc(NCOLS);
	for (int i = 0; i < NCOLS; i++)
		TupleDescInitEntry(comparison->desc, i + 1, NULL, types[i], -1, 0);
	FINISH_TUPLE_DESC(comparison->desc);
	comparison->input = MakeSingleTupleTableSlot(comparison->desc, &TTSOpsVirtual);
	comparison->slot = MakeSingleTupleTableSlot(comparison->desc, &TTSOpsMinimalTuple);
	comparison->context = CurrentMemoryContext;
	comparison->sort = tuplesort_begin_heap(comparison->desc, lengthof(columns), columns, operators,
											collations, nulls_first, work_mem, NULL, TUPLESORT_NONE);
	comparison->page =
		AllocSetContextCreate(CurrentMemoryContext, "sfsync comparison", ALLOCSET_DEFAULT_SIZES);
}

/*
 * Into the sort, and out of it
 */

static void
append_values(StringInfo bytes, const ComparedValue *values, int n)
{
	for (int i = 0; i < n; i++)
	{
		int32 len = values[i].json ? (int32) strlen(values[i].json) : -1;

		appendBinaryStringInfo(bytes, (const char *) &values[i].known, sizeof(bool));
		appendBinaryStringInfo(bytes, (const char *) &values[i].hash, sizeof(uint64));
		appendBinaryStringInfo(bytes, (const char *) &len, sizeof(len));
		if (len > 0)
			appendBinaryStringInfo(bytes, values[i].json, len);
	}
}

static ComparedValue *
read_values(bytea *stored, int n)
{
	ComparedValue *values = palloc0(sizeof(ComparedValue) * Max(n, 1));
	const char *p = VARDATA_ANY(stored);

	for (int i = 0; i < n; i++)
	{
		int32 len;

		memcpy(&values[i].known, p, sizeof(bool));
		memcpy(&values[i].hash, p + sizeof(bool), sizeof(uint64));
		memcpy(&len, p + sizeof(bool) + sizeof(uint64), sizeof(len));
		p += sizeof(bool) + sizeof(uint64) + sizeof(len);
		if (len >= 0)
			values[i].json = pnstrdup(p, len);
		p += Max(len, 0);
	}
	return values;
}

static void
put_text(TupleTableSlot *slot, int column, const char *text)
{
	slot->tts_isnull[column] = text == NULL;
	slot->tts_values[column] = text ? CStringGetTextDatum(text) : (Datum) 0;
}

static void
put_item(Comparison *comparison, const ComparedItem *item)
{
	TupleTableSlot *virtual = comparison->input;
	StringInfoData bytes;

	ExecClearTuple(virtual);
	initStringInfo(&bytes);
	put_text(virtual, COL_RECORD_KEY, item->record_key);
	virtual->tts_values[COL_SIDE] = Int32GetDatum(item->side);
	virtual->tts_isnull[COL_SIDE] = false;
	put_text(virtual, COL_KEY, item->key);
	put_text(virtual, COL_ID, item->id);
	virtual->tts_values[COL_MODIFIED_AT] = TimestampTzGetDatum(item->modified_at);
	virtual->tts_isnull[COL_MODIFIED_AT] = false;
	put_text(virtual, COL_MODIFIED_BY, item->modified_by);
	if (item->values)
		append_values(&bytes, item->values, comparison->mapping->nfields);
	virtual->tts_values[COL_VALUES] = sql_arg_bytes((const uint8 *) bytes.data, bytes.len).value;
	virtual->tts_isnull[COL_VALUES] = item->values == NULL;
	ExecStoreVirtualTuple(virtual);
	tuplesort_puttupleslot(comparison->sort, virtual);
	ExecClearTuple(virtual);
}

static char *
take_text(TupleTableSlot *slot, int column)
{
	bool isnull;
	Datum value = slot_getattr(slot, column + 1, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

bool
compare_next(Comparison *comparison, ComparedItem *item)
{
	TupleTableSlot *slot = comparison->slot;
	bool isnull;
	Datum values;

	if (!tuplesort_gettupleslot(comparison->sort, true, false, slot, NULL))
		return false;
	memset(item, 0, sizeof(*item));
	item->record_key = take_text(slot, COL_RECORD_KEY);
	item->side = DatumGetInt32(slot_getattr(slot, COL_SIDE + 1, &isnull));
	item->key = take_text(slot, COL_KEY);
	item->id = take_text(slot, COL_ID);
	item->modified_at = DatumGetTimestampTz(slot_getattr(slot, COL_MODIFIED_AT + 1, &isnull));
	item->modified_by = take_text(slot, COL_MODIFIED_BY);
	values = slot_getattr(slot, COL_VALUES + 1, &isnull);
	if (!isnull)
		item->values = read_values(DatumGetByteaPP(values), comparison->mapping->nfields);
	return true;
}

/*
 * Salesforce's side
 */

static void
note_user(Comparison *comparison, const char *id)
{
	if (!id || comparison->nusers == MAX_USERS)
		return;
	for (int i = 0; i < comparison->nusers; i++)
		if (strcmp(comparison->users[i].id, id) == 0)
			return;
	if (!comparison->users)
		comparison->users = MemoryContextAllocZero(comparison->context, sizeof(ComparedUser) * MAX_USERS);
	strlcpy(comparison->users[comparison->nusers++].id, id, sizeof(comparison->users[0].id));
}

/* "k:" and the parent's key, or "i:" and its Id where it has no key; NULL: no parent. */
static char *
parent_text(const ComparedField *field, const char *key, const char *id)
{
	char *number = key && field->map->relation.key_is_number ? rest_number_key(key) : NULL;

	if (key)
		return psprintf("k:%s", number ? number : rest_record_key(key, field->case_sensitive));
	return id ? psprintf("i:%s", id) : NULL;
}

static const char *
text_of(const FieldValue *value)
{
	return value->kind == FV_STRING || value->kind == FV_NUMBER || value->kind == FV_LOOKUP ? value->text
																							: NULL;
}

static ComparedValue *
record_values(const Comparison *comparison, const RestRead *read)
{
	int n = comparison->mapping->nfields;
	ComparedValue *values = palloc0(sizeof(ComparedValue) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		const ComparedField *field = &comparison->fields[i];
		const FieldValue *value = field->map ? &read->values[field->value] : NULL;

		if (!value || value->kind == FV_ABSENT)
			continue;
		values[i].known = true;
		if (field->parent < 0)
			values[i].hash = canonical_hash(canonical_value(value, field->map->field));
		else
		{
			const FieldValue *key = &read->values[field->parent];

			values[i].hash = canonical_hash(parent_text(field, text_of(key), text_of(value)));
			if (text_of(key))
				value = key;
		}
		values[i].json = conflict_value(value);
	}
	return values;
}

static void
take_page(Comparison *comparison, const RestRead *reads, int n)
{
	for (int i = 0; i < n; i++)
	{
		ComparedItem item = {.side = SIDE_SALESFORCE};

		item.record_key = compare_record_key(comparison->mapping, reads[i].key);
		item.key = reads[i].key;
		item.id = reads[i].id;
		item.modified_at = reads[i].last_modified;
		item.modified_by = reads[i].last_modified_by;
		item.values = record_values(comparison, &reads[i]);
		note_user(comparison, item.modified_by);
		put_item(comparison, &item);
	}
	comparison->nrecords += n;
}

static void
unreadable(const RestPage *page)
{
	const char *problem = page->error ? page->error : rest_error_text(&page->failure);

	ereport(ERROR, (errcode(ERRCODE_CONNECTION_EXCEPTION), errmsg("could not read records from Salesforce"),
					errdetail("%s", sql_from_utf8(problem)),
					errhint("%s", page->error ? "Try again; look for a proxy in between."
											  : error_hint(page->failure.code))));
}

static RestCall *
next_page(char *path)
{
	RestCall *call = palloc0(sizeof(RestCall));

	call->method = "GET";
	call->path = pstrdup(path);
	pfree(path);
	return call;
}

void
compare_take_salesforce(Comparison *comparison, Foreground *session)
{
	const Mapping *mapping = comparison->mapping;
	MemoryContext caller = MemoryContextSwitchTo(comparison->page);
	RestTarget target = {mapping->object, mapping->external_id};
	RestCall *call = rest_scan(session->options->api_version, &target, comparison->asked, comparison->nasked);

	while (call)
	{
		const HttpReply *reply = foreground_ask(session, call);
		RestRead *reads;
		int n;
		RestPage page = {0};
		char *next;

		if (!rest_parse_find(reply->body ? reply->body : "", reply->body_len, mapping->external_id,
							 comparison->asked, comparison->nasked, &reads, &n, &page))
			unreadable(&page);
		if (n == 0 && page.next)
		{
			/* it would be followed for ever */
			page.error = pstrdup("a page of a query is empty, and there is another");
			unreadable(&page);
		}
		take_page(comparison, reads, n);
		next = page.next ? MemoryContextStrdup(caller, page.next) : NULL;
		MemoryContextReset(comparison->page);
		call = next ? next_page(next) : NULL;
	}
	MemoryContextSwitchTo(caller);
}

void
compare_take_users(Comparison *comparison, Foreground *session)
{
	const char **ids = palloc(sizeof(char *) * Max(comparison->nusers, 1));
	RestUser *users;
	int nusers;
	RestPage page;
	const HttpReply *reply;

	if (comparison->nusers == 0)
		return;
	for (int i = 0; i < comparison->nusers; i++)
		ids[i] = comparison->users[i].id;
	reply = foreground_ask(session, rest_users(session->options->api_version, ids, comparison->nusers));

	/* without the right to read users, Ids have to do */
	if (!rest_parse_users(reply->body ? reply->body : "", reply->body_len, &users, &nusers, &page))
		return;
	for (int i = 0; i < nusers; i++)
		for (int u = 0; u < comparison->nusers; u++)
			if (strcmp(comparison->users[u].id, users[i].id) == 0)
				comparison->users[u].name = users[i].name;
}

char *
compare_user(const Comparison *comparison, const char *id)
{
	for (int i = 0; id && i < comparison->nusers; i++)
		if (strcmp(comparison->users[i].id, id) == 0 && comparison->users[i].name)
			return psprintf("%s (%s)", id, sql_from_utf8(comparison->users[i].name));
	return unconstify(char *, id);
}

/*
 * The table's side
 */

ComparedValue *
compare_row_values(const Comparison *comparison, const RestRecord *record)
{
	const Mapping *mapping = comparison->mapping;
	ComparedValue *values = palloc0(sizeof(ComparedValue) * Max(mapping->nfields, 1));
	int next = 0;

	/* the record's fields are in the mapping's order, some left out */
	for (int i = 0; i < mapping->nfields && next < record->nfields; i++)
	{
		const ComparedField *field = &comparison->fields[i];
		const FieldValue *value = &record->fields[next].value;

		if (record->fields[next].name != mapping->fields[i].field->name)
			continue;
		next++;
		if (!field->map || value->kind == FV_ABSENT)
			continue;
		values[i].known = true;
		values[i].hash = canonical_hash(field->parent < 0 ? canonical_value(value, field->map->field)
														  : parent_text(field, text_of(value), NULL));
		values[i].json = conflict_value(value);
	}
	return values;
}

static void
take_row(Comparison *comparison, char *key, const SourceRow *row)
{
	ComparedItem item = {.side = SIDE_SOURCE};
	RestRecord record;
	RestError error = {0};

	if (!row->found)
		return;
	item.key = datum_key_utf8(key);
	item.record_key = compare_record_key(comparison->mapping, item.key);
	if (row->failed)
	{
		/* whether it is to have a record can't be told; a dead letter says so */
		item.side = SIDE_PENDING;
		put_item(comparison, &item);
		return;
	}

	/* a value that can't be sent is left out: there is a dead letter for it */
	(void) payload_build(comparison->mapping, row, item.key, NULL, 0, PAYLOAD_UPDATE, &record, &error);
	item.values = compare_row_values(comparison, &record);

	/* what is shown of the row is read again */
	for (int i = 0; i < comparison->mapping->nfields; i++)
		item.values[i].json = NULL;
	put_item(comparison, &item);
}

void
compare_take_source(Comparison *comparison)
{
	const Mapping *mapping = comparison->mapping;
	MemoryContext caller = MemoryContextSwitchTo(comparison->page);
	SourceChoice all = {0};
	char *last = NULL;
	int n;

	do
	{
		char **keys = source_keys_after(mapping, last, &all, CHUNK_ROWS, &n);
		SourceRow *rows = source_read(mapping, keys, n);

		for (int i = 0; i < n; i++)
			take_row(comparison, keys[i], &rows[i]);
		if (last)
			pfree(last);
		last = n > 0 ? MemoryContextStrdup(caller, keys[n - 1]) : NULL;
		MemoryContextReset(comparison->page);
		CHECK_FOR_INTERRUPTS();
	} while (n == CHUNK_ROWS);
	MemoryContextSwitchTo(caller);
}

/*
 * What is on its way
 */

static void
take_pending_key(Comparison *comparison, const char *key)
{
	ComparedItem item = {.side = SIDE_PENDING};

	item.key = datum_key_utf8(key);
	item.record_key = compare_record_key(comparison->mapping, item.key);
	put_item(comparison, &item);
}

/* Changes of the current transaction are not in the queue before it ends. */
static void
take_captured(const WorkEvent *event, void *arg)
{
	Comparison *comparison = arg;

	if (event->mapping != comparison->mapping->id)
		return;
	take_pending_key(comparison, event->key);
	if (event->old_key)
		take_pending_key(comparison, event->old_key);
}

/* In pages of a cursor, as there may be millions. */
static const char pending_query[] =
	"SELECT key FROM sfsync.queued WHERE mapping = $1"
	" UNION ALL SELECT old_key FROM sfsync.queue WHERE mapping = $1 AND operation = 'K'"
	" UNION ALL SELECT key FROM sfsync.deferred WHERE mapping = $1 AND state <> 'dead'"
	" UNION ALL SELECT k.key FROM sfsync.deferred d, pg_catalog.unnest(d.old_keys) AS k(key)"
	" WHERE d.mapping = $1 AND d.state <> 'dead'"
	" UNION ALL SELECT k.key FROM sfsync.intent i, pg_catalog.unnest(i.keys) AS k(key) WHERE i.mapping = $1";

void
compare_take_pending(Comparison *comparison, bool latest)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid types[1] = {INT4OID};
	Datum values[1] = {Int32GetDatum(comparison->mapping->id)};
	SqlScope scope;
	Portal portal;

	if (latest)
		sql_open_latest(&scope);
	else
		sql_open(&scope);
	portal = SPI_cursor_open_with_args(NULL, pending_query, 1, types, values, NULL, true, 0);
	do
	{
		SPI_cursor_fetch(portal, true, CHUNK_ROWS);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			char *key = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

			MemoryContextSwitchTo(comparison->page);
			take_pending_key(comparison, key);
			MemoryContextReset(comparison->page);
		}
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	} while (SPI_processed == CHUNK_ROWS);
	SPI_cursor_close(portal);
	sql_close(&scope);
	MemoryContextSwitchTo(comparison->page);
	capture_each(take_captured, comparison);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(comparison->page);
}

void
compare_sort(Comparison *comparison)
{
	tuplesort_performsort(comparison->sort);
}

void
compare_end(Comparison *comparison)
{
	ExecDropSingleTupleTableSlot(comparison->input);
	ExecDropSingleTupleTableSlot(comparison->slot);
	tuplesort_end(comparison->sort);
}
