/*
 * resolve.c
 *		resolve_conflict: a person decides.
 */
#include "compat.h"

#include "utils/builtins.h"

#include "api.h"
#include "batch.h"
#include "bitmap.h"
#include "datum.h"
#include "records.h"
#include "shmem.h"
#include "source.h"
#include "sql.h"

/* Events that no row trigger has noted have numbers from here on. */
#define FIRST_NUMBER 1000000000

typedef struct OpenConflict
{
	char *mapping;
	char *source_key; /* JSON */
	char *field;      /* NULL: the whole record */
} OpenConflict;

static bool
read_open(int64 id, OpenConflict *conflict)
{
	SqlScope scope;
	bool found;

	sql_open_latest(&scope);
	found = SQL_RUN(&scope,
					"SELECT mapping, source_key::text, field FROM sfsync.conflict"
					" WHERE id = $1 AND resolution IS NULL",
					sql_arg_bigint(id)) == 1;
	if (found)
	{
		conflict->mapping = sql_text(&scope, 0, 1);
		conflict->source_key = sql_text(&scope, 0, 2);
		conflict->field = sql_text(&scope, 0, 3);
	}
	sql_close(&scope);
	return found;
}

static bool
close_conflict(int64 id, const char *keep)
{
	SqlScope scope;
	bool closed;

	sql_open(&scope);
	closed = SQL_RUN(&scope,
					 "UPDATE sfsync.conflict SET resolution = $2, resolved_at = pg_catalog.clock_timestamp()"
					 " WHERE id = $1 AND resolution IS NULL",
					 sql_arg_bigint(id), sql_arg_text(keep)) > 0;
	sql_close(&scope);
	return closed;
}

/*
 * An event of now, as if the row had just been changed so: in any case later
 * than the edit in question, but not than others that may follow.
 */
static const char event_query[] =
	"INSERT INTO sfsync.queue (xid, event_at, n, mapping, operation, key, changed)"
	" SELECT pg_catalog.pg_current_xact_id(), greatest(pg_catalog.clock_timestamp(),"
	" c.salesforce_modified_at + interval '1 second' - coalesce(s.clock_skew, interval '0')),"
	" $1, m.id, $3::\"char\", $4, $5 FROM sfsync.mapping m"
	" JOIN sfsync.conflict c ON c.mapping = m.name LEFT JOIN sfsync.server_state s ON s.server = m.server"
	" WHERE m.id = $2 AND c.id = $6";

static void
queue_event(const Mapping *mapping, int64 id, char operation, const char *key, const uint8 *changed, int len)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, event_query, sql_arg_int(FIRST_NUMBER + (int) (id % FIRST_NUMBER)),
			sql_arg_int(mapping->id), sql_arg_text(psprintf("%c", operation)), sql_arg_text(key),
			sql_arg_bytes(changed, len), sql_arg_bigint(id));
	sql_close(&scope);
}

/* Columns that feed the field, as a bitmap; an error if none does any more. */
static uint8 *
columns_of(const Mapping *mapping, const char *field, int *len)
{
	uint8 *changed;
	bool any = false;

	*len = 0;
	for (int c = 0; c < mapping->ncolumns; c++)
		*len = Max(*len, bitmap_length(mapping->columns[c].attnum));
	changed = palloc0(Max(*len, 1));
	for (int f = 0; f < mapping->nfields; f++)
		for (int c = 0; c < mapping->ncolumns; c++)
			if (strcmp(mapping->fields[f].field->name, field) == 0 &&
				mapping_field_uses(&mapping->fields[f], c))
			{
				bitmap_add(changed, mapping->columns[c].attnum);
				any = true;
			}
	if (!any)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("field %s of mapping \"%s\" is not fed by a column now", field, mapping->name),
				 errdetail("There is no value that could be sent."),
				 errhint("sfsync.field_map shows what feeds which field; accept Salesforce's value with keep"
						 " => 'salesforce'.")));
	return changed;
}

/*
 * The row's state of today goes to Salesforce once more, with the time of now.
 * A record that is gone is forgotten, so that it is made anew.
 */
static void
push_source(int64 id, const OpenConflict *conflict)
{
	Mapping *mapping = api_mapping(conflict->mapping);
	char *key = source_key_from_json(mapping, sql_arg_jsonb(conflict->source_key).value);
	uint8 *changed;
	int len;

	if (!source_read(mapping, &key, 1)->found)
	{
		queue_event(mapping, id, EVENT_DELETE, key, NULL, -1);
		return;
	}
	if (conflict->field)
	{
		changed = columns_of(mapping, conflict->field, &len);
		queue_event(mapping, id, EVENT_UPDATE, key, changed, len);
		return;
	}
	record_forget(mapping->id, mapping_record_key(mapping, key));
	queue_event(mapping, id, EVENT_INSERT, key, NULL, -1);
}

/* The record of a row that left is not the row's any more: one that returns is a new one. */
static void
let_go(const OpenConflict *conflict)
{
	Mapping *mapping = api_mapping(conflict->mapping);
	char *key = source_key_from_json(mapping, sql_arg_jsonb(conflict->source_key).value);

	if (!source_read(mapping, &key, 1)->found)
		record_forget(mapping->id, mapping_record_key(mapping, key));
}

PG_FUNCTION_INFO_V1(sfsync_resolve_conflict);

Datum
sfsync_resolve_conflict(PG_FUNCTION_ARGS)
{
	static const char *const choices[] = {"source", "salesforce"};
	int64 id = PG_GETARG_INT64(0);
	char *keep = api_text(fcinfo, 1);
	OpenConflict conflict;
	const Mapping *mapping;

	api_choice("keep", keep, choices, lengthof(choices));
	if (!read_open(id, &conflict))
		PG_RETURN_BOOL(false);
	mapping = api_mapping(conflict.mapping);
	api_require_metadata(mapping);
	api_keep_mapping(mapping);
	if (!close_conflict(id, keep))
		PG_RETURN_BOOL(false);
	if (strcmp(keep, "source") == 0)
		push_source(id, &conflict);
	else if (!conflict.field)
		let_go(&conflict);
	shmem_wake_at_commit();
	PG_RETURN_BOOL(true);
}
