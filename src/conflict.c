/*
 * conflict.c
 *		Decisions against the row, written and ended.
 */
#include "compat.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/json.h"

#include "conflict.h"
#include "source.h"
#include "sql.h"

char *
conflict_value(const FieldValue *value)
{
	StringInfoData json;

	switch (value->kind)
	{
		case FV_ABSENT:
		case FV_NULL:
			return pstrdup("null");
		case FV_BOOL:
			return pstrdup(value->boolean ? "true" : "false");
		case FV_NUMBER:
			return pstrdup(value->text);
		default:
			initStringInfo(&json);
			escape_json(&json, value->text);
			return json.data;
	}
}

/* JSON for a jsonb column: what the server can't hold becomes question marks. */
static SqlArg
json_arg(const char *json)
{
	return sql_arg_jsonb(sql_from_utf8(json));
}

static const char over_query[] =
	"UPDATE sfsync.conflict SET resolution = 'superseded', resolved_at = pg_catalog.clock_timestamp()"
	" WHERE mapping = $1 AND source_key = $2 AND resolution IS NULL"
	" AND (field = ANY ($3) OR (field IS NULL AND $4) OR $5)";

/* Key by key through the index: LATERAL with LIMIT leaves no other way. */
static const char open_query[] =
	"SELECT k.n FROM pg_catalog.unnest($2) WITH ORDINALITY AS k(source_key, n) CROSS JOIN LATERAL"
	" (SELECT FROM sfsync.conflict c WHERE c.mapping = $1 AND c.source_key = k.source_key::pg_catalog.jsonb"
	" AND c.resolution IS NULL LIMIT 1) c";

bool *
conflicts_open(const Mapping *mapping, char *const *keys, int n)
{
	SqlScope scope;
	bool *open = palloc0(sizeof(bool) * Max(n, 1));
	char **source_keys = palloc(sizeof(char *) * Max(n, 1));
	int found;

	sql_open(&scope);
	if (SQL_RUN(&scope, "SELECT FROM sfsync.conflict WHERE mapping = $1 AND resolution IS NULL LIMIT 1",
				sql_arg_text(mapping->name)) > 0)
	{
		for (int i = 0; i < n; i++)
			source_keys[i] = source_key_json(mapping, keys[i]);
		found = SQL_RUN(&scope, open_query, sql_arg_text(mapping->name), sql_arg_texts(source_keys, n));
		for (int i = 0; i < found; i++)
			open[sql_bigint(i, 1) - 1] = true;
	}
	sql_close(&scope);
	return open;
}

bool
conflict_open_of_record(const Mapping *mapping, const char *key)
{
	SqlScope scope;
	bool open;

	sql_open(&scope);
	open = SQL_RUN(&scope,
				   "SELECT FROM sfsync.conflict WHERE mapping = $1 AND source_key = $2 AND field IS NULL"
				   " AND resolution IS NULL",
				   sql_arg_text(mapping->name), sql_arg_jsonb(source_key_json(mapping, key))) > 0;
	sql_close(&scope);
	return open;
}

static void
end_settled(SqlScope *scope, const Mapping *mapping, SqlArg key, const ConflictNotes *notes)
{
	if (notes->nsettled == 0 && !notes->record_settled && !notes->all_settled)
		return;
	SQL_RUN(scope, over_query, sql_arg_text(mapping->name), key,
			sql_arg_texts((char *const *) notes->settled, notes->nsettled),
			sql_arg_bool(notes->record_settled), sql_arg_bool(notes->all_settled));
}

static const char same_query[] =
	"SELECT FROM sfsync.conflict WHERE mapping = $1 AND source_key = $2 AND resolution IS NULL"
	" AND field IS NOT DISTINCT FROM $3 AND source_value IS NOT DISTINCT FROM $4"
	" AND salesforce_value IS NOT DISTINCT FROM $5";

static const char supersede_query[] =
	"UPDATE sfsync.conflict SET resolution = 'superseded', resolved_at = pg_catalog.clock_timestamp()"
	" WHERE mapping = $1 AND source_key = $2 AND resolution IS NULL AND field IS NOT DISTINCT FROM $3";

static const char add_query[] =
	"INSERT INTO sfsync.conflict (mapping, source_key, field, source_value, salesforce_value, salesforce_id,"
	" event_at, salesforce_modified_at, salesforce_modified_by, policy)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id";

/* Its id; 0 if the same is open already. */
static int64
add(SqlScope *scope, const Mapping *mapping, SqlArg key, const char *salesforce_id, const ConflictNote *note)
{
	SqlArg name = sql_arg_text(mapping->name);
	SqlArg field = sql_arg_text(note->field);
	SqlArg ours = json_arg(note->source_value);
	SqlArg theirs = json_arg(note->salesforce_value);

	if (SQL_RUN(scope, same_query, name, key, field, ours, theirs) > 0)
		return 0;
	SQL_RUN(scope, supersede_query, name, key, field);
	SQL_RUN(scope, add_query, name, key, field, ours, theirs, sql_arg_text(salesforce_id),
			sql_arg_time(note->event_at), sql_arg_time(note->modified_at), sql_arg_text(note->modified_by),
			sql_arg_text(note->policy));
	return sql_bigint(0, 1);
}

int
conflicts_settle(const Mapping *mapping, const char *key, const char *salesforce_id,
				 const ConflictNotes *notes, bool open, int told, StringInfo ids)
{
	SqlScope scope;
	int added = 0;
	SqlArg source_key = sql_arg_jsonb(source_key_json(mapping, key));

	sql_open(&scope);
	if (open)
		end_settled(&scope, mapping, source_key, notes);
	for (int i = 0; i < notes->n; i++)
	{
		int64 id = add(&scope, mapping, source_key, salesforce_id, &notes->notes[i]);

		if (id != 0 && told + added < CONFLICTS_TOLD)
			appendStringInfo(ids, "%s" INT64_FORMAT, ids->len > 0 ? "," : "", id);
		added += id != 0;
	}
	sql_close(&scope);
	return added;
}

void
conflicts_notify(const Mapping *mapping, const char *ids, int n)
{
	SqlScope scope;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"mapping\":");
	escape_json(&json, mapping->name);
	appendStringInfo(&json, ",\"ids\":[%s],\"count\":%d}", ids, n);
	sql_open(&scope);
	SQL_RUN(&scope, "SELECT pg_catalog.pg_notify('sfsync_conflict', $1)", sql_arg_text(json.data));
	sql_close(&scope);
}

static const char unnamed_query[] =
	"SELECT DISTINCT c.salesforce_modified_by FROM sfsync.conflict c JOIN sfsync.mapping m ON m.name = c.mapping"
	" WHERE m.server = $1 AND c.resolution IS NULL AND pg_catalog.length(c.salesforce_modified_by) = 18 LIMIT 200";

char **
conflicts_unnamed(const char *server, int *n)
{
	SqlScope scope;
	char **ids;

	sql_open(&scope);
	*n = SQL_RUN(&scope, unnamed_query, sql_arg_name(server));
	ids = sql_column(&scope, 1);
	sql_close(&scope);
	return ids;
}

/* Those that somebody is just deciding about do without. */
static const char name_query[] =
	"UPDATE sfsync.conflict SET salesforce_modified_by = $2 || ' (' || $3 || ')' WHERE id = ANY (ARRAY("
	"SELECT c.id FROM sfsync.conflict c JOIN sfsync.mapping m ON m.name = c.mapping"
	" WHERE m.server = $1 AND c.salesforce_modified_by = $2 FOR UPDATE OF c SKIP LOCKED))";

void
conflicts_name(const char *server, const char *id, const char *name)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, name_query, sql_arg_name(server), sql_arg_text(id), sql_arg_text(sql_from_utf8(name)));
	sql_close(&scope);
}
