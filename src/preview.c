/*
 * preview.c
 *		preview: what would be sent, from cached metadata, without the network.
 *
 * Rows are read as the mapping's owner with the caller's snapshot, so changes of
 * the current transaction are seen, committed or not.
 */
#include "compat.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "api.h"
#include "batch.h"
#include "capture.h"
#include "datum.h"
#include "delete_policy.h"
#include "payload.h"
#include "records.h"
#include "source.h"
#include "sql.h"

/* A row to show: a whole one, or what the transaction did to it. */
typedef struct Shown
{
	const char *operation; /* NULL: none */
	RestRecord record;
	bool has_payload;
	char *findings[2];
	int nfindings;
} Shown;

/* Is there a record under the key, or one that the row had before? */
static bool
record_known(const Mapping *mapping, const char *key, char *const *old_keys, int nold)
{
	char **record_keys = palloc(sizeof(char *) * (nold + 1));
	int n;

	record_keys[0] = mapping_record_key(mapping, key);
	for (int i = 0; i < nold; i++)
		record_keys[i + 1] = mapping_record_key(mapping, old_keys[i]);
	(void) records_of_keys(mapping->id, record_keys, nold + 1, &n);
	return n > 0;
}

static void
show_row(const Mapping *mapping, const Unit *unit, const SourceRow *row, Shown *shown)
{
	bool known = record_known(mapping, unit->key, unit->old_keys, unit->nold);
	bool whole = unit->whole || unit->deleted || !known;
	RestError error = {0};

	shown->operation = known ? (unit->nold > 0 ? "key_change" : "update") : "upsert";
	shown->has_payload = true;
	if (!payload_build(mapping, row, datum_key_utf8(unit->key), whole ? NULL : unit->changed,
					   unit->changed_len, known ? PAYLOAD_UPDATE : PAYLOAD_CREATE, &shown->record, &error))
		shown->findings[shown->nfindings++] = psprintf("%s: %s", error.code, datum_from_utf8(error.message));
	else if (!whole && shown->record.nfields == 0)
	{
		shown->operation = NULL;
		shown->has_payload = false;
		shown->findings[shown->nfindings++] = pstrdup("nothing that is mapped changed");
	}
}

/* The record that archive or deactivate would send. */
static void
show_values(const Mapping *mapping, const Unit *unit, Shown *shown)
{
	RestError error = {0};

	shown->has_payload = true;
	if (!delete_values_record(mapping, datum_key_utf8(unit->key), unit->event_at, &shown->record, &error))
		shown->findings[shown->nfindings++] = psprintf("%s: %s", error.code, datum_from_utf8(error.message));
}

static void
show_absent(const Mapping *mapping, const Unit *unit, Shown *shown)
{
	if (!unit->deleted)
		shown->findings[shown->nfindings++] =
			pstrdup(unit->key_left ? "the row has another key now"
								   : "the row is not in the table, or the mapping's owner may not see it");
	else if (strcmp(mapping->on_delete, "ignore") == 0)
		shown->findings[shown->nfindings++] = pstrdup("on_delete is ignore: the record stays");
	else if (unit->inserted && !record_known(mapping, unit->key, NULL, 0))
		shown->findings[shown->nfindings++] = pstrdup("made and deleted again: nothing is sent");
	else
	{
		shown->operation = mapping->on_delete;
		if (unit->hold)
			shown->findings[shown->nfindings++] = psprintf("held: %s", unit->hold);
		if (delete_policy_sets_values(mapping->on_delete))
			show_values(mapping, unit, shown);
	}
}

/* A row that is not in scope, or of which that can't be told. */
static void
show_filtered(const Mapping *mapping, const Unit *unit, const SourceRow *row, Shown *shown)
{
	RestError error;

	if (row->failed)
	{
		payload_filter_error(row, &error);
		shown->findings[shown->nfindings++] = psprintf("%s: %s", error.code, datum_from_utf8(error.message));
		return;
	}
	shown->findings[shown->nfindings++] = psprintf("the row doesn't pass the filter %s", mapping->filter);
	if (!record_known(mapping, unit->key, unit->old_keys, unit->nold))
		return;
	if (strcmp(mapping->on_delete, "ignore") == 0)
		shown->findings[shown->nfindings++] = pstrdup("on_delete is ignore: the record stays");
	else
		shown->operation = mapping->on_delete;
}

static void
put_unit(ReturnSetInfo *result, const Mapping *mapping, const Unit *unit)
{
	char *key = unit->key;
	SourceRow *row = source_read(mapping, &key, 1);
	Shown shown = {0};
	const char *texts[5] = {mapping->name, "", NULL, NULL, ""};
	Datum values[5] = {0};

	if (row->filtered || row->failed)
		show_filtered(mapping, unit, row, &shown);
	else if (row->found)
		show_row(mapping, unit, row, &shown);
	else
		show_absent(mapping, unit, &shown);
	texts[2] = shown.operation;
	if (shown.has_payload)
	{
		texts[3] = datum_from_utf8(payload_json(mapping, &shown.record));
		values[3] = sql_arg_jsonb(texts[3]).value;
	}
	values[1] = sql_arg_jsonb(source_key_json(mapping, key)).value;
	values[4] = sql_arg_texts(shown.findings, shown.nfindings).value;
	api_put_row(result, 5, texts, values);
}

/*
 * The changes of the current transaction, folded as the worker would
 */

typedef struct Folding
{
	Work *work;
	int mapping; /* 0: all */
	List *rows;  /* PreviewedRow, in the order of their first event */
	int n;
} Folding;

typedef struct PreviewedRow
{
	int mapping;
	const char *key;
} PreviewedRow;

static void
add_row(Folding *folding, int mapping, const char *key)
{
	PreviewedRow *row;
	ListCell *lc;

	foreach(lc, folding->rows)
	{
		row = lfirst(lc);
		if (row->mapping == mapping && strcmp(row->key, key) == 0)
			return;
	}
	row = palloc(sizeof(PreviewedRow));
	row->mapping = mapping;
	row->key = pstrdup(key);
	folding->rows = lappend(folding->rows, row);
}

static void
fold(const WorkEvent *event, void *arg)
{
	Folding *folding = arg;
	WorkEvent numbered = *event;
	const Mapping *mapping = mapping_get(event->mapping);
	const Unit *left;

	if (folding->mapping != 0 && folding->mapping != event->mapping)
		return;
	numbered.ref.n = folding->n++;
	add_row(folding, event->mapping, event->key);
	left = event->operation == EVENT_KEY_CHANGE ? batch_find(folding->work, event->mapping, event->old_key)
												: NULL;
	if (event->operation == EVENT_KEY_CHANGE)
	{
		bool sent = !left || !left->inserted;
		Unit *unit = batch_move(folding->work, &numbered, mapping && mapping->key_overlaps);

		if (sent)
			batch_add_old_key(folding->work, unit, event->old_key);
	}
	else
		(void) batch_fold(folding->work, &numbered);
}

static void
put_transaction(ReturnSetInfo *result, int only)
{
	Folding folding = {batch_create(), only, NIL, 0};
	ListCell *lc;

	capture_each(fold, &folding);
	foreach(lc, folding.rows)
	{
		PreviewedRow *row = lfirst(lc);
		Mapping *mapping = mapping_get(row->mapping);
		Unit *unit = batch_find(folding.work, row->mapping, row->key);

		if (!mapping || !unit || !has_privs_of_role(GetUserId(), mapping->owner))
			continue;
		api_require_metadata(mapping);
		put_unit(result, mapping, unit);
	}
}

PG_FUNCTION_INFO_V1(sfsync_preview);

Datum
sfsync_preview(PG_FUNCTION_ARGS)
{
	Mapping *mapping = PG_ARGISNULL(0) ? NULL : api_mapping(api_text(fcinfo, 0));
	Unit unit = {0};

	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(1))
	{
		put_transaction((ReturnSetInfo *) fcinfo->resultinfo, mapping ? mapping->id : 0);
		return (Datum) 0;
	}
	if (!mapping)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("argument \"mapping\" is needed with \"source_key\""),
						errdetail("Each mapping has a key of its own."),
						errhint("For example: SELECT * FROM sfsync.preview('account', '{\"id\": 1}')")));
	api_require_metadata(mapping);
	unit.key = source_key_from_json(mapping, PG_GETARG_DATUM(1));
	unit.whole = true;
	put_unit((ReturnSetInfo *) fcinfo->resultinfo, mapping, &unit);
	return (Datum) 0;
}
