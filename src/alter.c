/*
 * alter.c
 *		Functions that change and end mappings, and start and end backfills.
 */
#include "compat.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "api.h"
#include "bitmap.h"
#include "capture.h"
#include "delete_policy.h"
#include "sfsync.h"
#include "shmem.h"
#include "source.h"
#include "sql.h"

static const char *const truncate_policies[] = {"refuse", "apply"};

static void
detach_triggers(Oid relid)
{
	SqlScope scope;
	ListCell *lc;
	List *relids = find_all_inheritors(relid, NoLock, NULL);

	sql_open(&scope);
	foreach(lc, relids)
	{
		Oid child = lfirst_oid(lc);
		char *table =
			quote_qualified_identifier(get_namespace_name(get_rel_namespace(child)), get_rel_name(child));

		if (child == relid && api_has_trigger(child, CAPTURE_TRIGGER))
			SPI_execute(psprintf("DROP TRIGGER %s ON %s", CAPTURE_TRIGGER, table), false, 0);
		if (api_has_trigger(child, TRUNCATE_TRIGGER))
			SPI_execute(psprintf("DROP TRIGGER %s ON %s", TRUNCATE_TRIGGER, table), false, 0);
	}
	sql_close(&scope);
}

static void
check_zone(const char *zone)
{
	if (!pg_tzset(zone))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for argument \"timestamp_zone\": \"%s\"", zone),
						errdetail("It must be a time zone, as pg_timezone_names lists them."),
						errhint("For example UTC, or Europe/Vienna.")));
}

/* More deletes than delete_guard allows wait for a person. */
static void
guard_filter(const Mapping *mapping, const char *filter, int guard, int64 backfill)
{
	SqlScope scope;

	if (guard == 0 || !filter || strcmp(mapping->on_delete, "ignore") == 0 ||
		!source_loses_more(mapping, filter, guard))
		return;
	sql_open(&scope);
	SQL_RUN(&scope, "UPDATE sfsync.backfill_job SET hold = true WHERE id = $1", sql_arg_bigint(backfill));
	sql_close(&scope);
	ereport(WARNING,
			(errmsg("the filter of mapping \"%s\" leaves out more rows than delete_guard (%d) allows: "
					"their deletes are held",
					mapping->name, guard),
			 errhint("sfsync.release_deletes('%s') sends them, sfsync.discard_deletes gives them up.",
					 mapping->name)));
}

/*
 * A backfill applies the filter to the rows that exist: it looks at all of them,
 * and sends those that newly pass, and the deletes of those that no longer do.
 */
static void
alter_filter(const Mapping *mapping, const char *text)
{
	Expression none = {0};
	Expression *filter = text[0] == '\0' ? &none : api_expression(mapping, "filter", text, true);
	uint8 changed[(MAPPING_FILTER_ATTNUM + 7) / 8] = {0};
	int guard = 0;
	int64 backfill;
	SqlScope scope;
	bool is_new;

	sql_open(&scope);
	is_new = SQL_RUN(&scope,
					 "UPDATE sfsync.mapping SET filter = $2, filter_columns = $3, filter_attnums = $4"
					 " WHERE id = $1 AND filter IS DISTINCT FROM $2 RETURNING delete_guard",
					 sql_arg_int(mapping->id), sql_arg_text(filter->text),
					 sql_arg_names(filter->names, filter->ncolumns),
					 sql_arg_smallints(filter->attnums, filter->ncolumns)) > 0;
	if (is_new)
		guard = sql_int(0, 1);
	sql_close(&scope);
	bitmap_add(changed, MAPPING_FILTER_ATTNUM);
	if (!is_new)
		return;
	backfill = api_start_backfill(mapping->id, source_row_count(mapping, NULL), changed, sizeof(changed));
	guard_filter(mapping, filter->text, guard, backfill);
}

static const char alter_query[] =
	"UPDATE sfsync.mapping SET conflict_policy = coalesce($2, conflict_policy), new_columns = coalesce($3, new_columns),"
	" updated_at_column = CASE WHEN $4 IS NULL THEN updated_at_column ELSE NULLIF($4, '')::name END,"
	" timestamp_zone = coalesce($5, timestamp_zone), capture_replicated = coalesce($6, capture_replicated)"
	" WHERE id = $1";

PG_FUNCTION_INFO_V1(sfsync_alter_mapping);

Datum
sfsync_alter_mapping(PG_FUNCTION_ARGS)
{
	Mapping *mapping;
	SqlScope scope;
	char *policy = api_text(fcinfo, 1);
	char *columns = api_text(fcinfo, 2);
	char *filter = api_text(fcinfo, 3);
	char *updated_at = api_name(fcinfo, 4);
	char *zone = api_text(fcinfo, 5);
	SqlArg replicated = sql_arg_bool(!PG_ARGISNULL(6) && PG_GETARG_BOOL(6));

	api_require(fcinfo, 0, "mapping");
	mapping = api_mapping(api_text(fcinfo, 0));
	if (policy)
		api_check_conflict_policy(policy);
	if (columns)
		api_check_new_columns(columns);
	replicated.isnull = PG_ARGISNULL(6);
	if (zone)
		check_zone(zone);
	api_lock_mapping(mapping, AccessShareLock);
	if (updated_at && updated_at[0] != '\0')
	{
		Relation rel = table_open(mapping->source, NoLock);

		api_check_updated_at(rel, updated_at);
		table_close(rel, NoLock);
	}
	sql_open(&scope);
	SQL_RUN(&scope, alter_query, sql_arg_int(mapping->id), sql_arg_text(policy), sql_arg_text(columns),
			sql_arg_text(updated_at), sql_arg_text(zone), replicated);

	/* what is written without a look isn't remembered either */
	if (policy && strcmp(policy, "source_wins") == 0)
		SQL_RUN(&scope, "UPDATE sfsync.record SET memory = NULL WHERE mapping = $1 AND memory IS NOT NULL",
				sql_arg_int(mapping->id));
	sql_close(&scope);
	if (filter)
		alter_filter(mapping, filter);
	if (mapping->source_name)
		api_attach_triggers(mapping->source);
	api_changed(mapping);
	PG_RETURN_TEXT_P(cstring_to_text(mapping->name));
}

/* Values belong to the policies that set them: another policy forgets them. */
static const char delete_policy_query[] =
	"UPDATE sfsync.mapping SET on_delete = $2,"
	" delete_values = CASE WHEN $2 IN ('archive', 'deactivate') THEN coalesce($3, delete_values) END,"
	" on_truncate = coalesce($4, on_truncate), delete_guard = coalesce($5, delete_guard) WHERE id = $1";

static void
check_values(const Mapping *mapping, const char *on_delete, const char *values)
{
	const char *in_force = values;

	if (!values && delete_policy_sets_values(on_delete))
		in_force = mapping->delete_values;
	delete_values_check(on_delete, in_force);
	if (values && mapping->meta)
		delete_values_check_fields(values, mapping->meta, mapping->external_id, mapping->zone);
}

static void
check_guard(int guard)
{
	if (guard < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for argument \"delete_guard\": %d", guard),
				 errdetail("It is the number of deletes that one transaction may mean without being held."),
				 errhint("Pass 0 to turn the guard off.")));
}

PG_FUNCTION_INFO_V1(sfsync_set_delete_policy);

Datum
sfsync_set_delete_policy(PG_FUNCTION_ARGS)
{
	Mapping *mapping;
	SqlScope scope;
	char *on_delete = api_text(fcinfo, 1);
	char *values = api_json(fcinfo, 2);
	char *on_truncate = api_text(fcinfo, 3);
	SqlArg guard = sql_arg_int(PG_ARGISNULL(4) ? 0 : PG_GETARG_INT32(4));

	api_require(fcinfo, 0, "mapping");
	mapping = api_mapping(api_text(fcinfo, 0));
	if (!on_delete)
		on_delete = mapping->on_delete;
	api_check_delete_policy(on_delete);
	check_values(mapping, on_delete, values);
	if (on_truncate)
		api_choice("on_truncate", on_truncate, truncate_policies, lengthof(truncate_policies));
	guard.isnull = PG_ARGISNULL(4);
	if (!guard.isnull)
		check_guard(PG_GETARG_INT32(4));
	sql_open(&scope);
	SQL_RUN(&scope, delete_policy_query, sql_arg_int(mapping->id), sql_arg_text(on_delete),
			sql_arg_jsonb(values), sql_arg_text(on_truncate), guard);
	sql_close(&scope);
	api_changed(mapping);
	PG_RETURN_TEXT_P(cstring_to_text(mapping->name));
}

static int64
count_pending(SqlScope *scope, const Mapping *mapping)
{
	SQL_RUN(scope,
			"SELECT (SELECT pg_catalog.count(*) FROM sfsync.queued WHERE mapping = $1)"
			" + (SELECT pg_catalog.count(*) FROM sfsync.deferred WHERE mapping = $1 AND state <> 'dead')",
			sql_arg_int(mapping->id));
	return sql_bigint(0, 1);
}

static void
refuse_pending(const Mapping *mapping, int64 pending)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE), errmsg("mapping \"%s\" has pending changes", mapping->name),
			 errdetail_plural("%lld change has not reached Salesforce.",
							  "%lld changes have not reached Salesforce.", (unsigned long) pending,
							  (long long) pending),
			 errhint("Wait with sfsync.wait_for_sync, or pass discard_pending => true to give them up.")));
}

static const char *const delete_queries[] = {
	"DELETE FROM sfsync.queue WHERE mapping = $1",
	/* the first may have waited for somebody who took rows apart, and put them back as others */
	"DELETE FROM sfsync.queue WHERE mapping = $1",
	"DELETE FROM sfsync.deferred WHERE mapping = $1",
	"DELETE FROM sfsync.record WHERE mapping = $1",
	"DELETE FROM sfsync.intent WHERE mapping = $1",
	"DELETE FROM sfsync.bulk_row WHERE mapping = $1",
	"DELETE FROM sfsync.mapping WHERE id = $1",
	"DELETE FROM sfsync.mapping_state WHERE mapping = $1",
	"DELETE FROM sfsync.rule WHERE mapping = $1",
	"DELETE FROM sfsync.missed WHERE mapping = $1",
	"DELETE FROM sfsync.field_creation WHERE mapping = $1",
	"DELETE FROM sfsync.backfill_job WHERE mapping = $1",
	"DELETE FROM sfsync.bulk_job WHERE mapping = $1",
};

/* Returns how many changes are given up. */
static int64
delete_mapping(const Mapping *mapping, bool discard)
{
	SqlScope scope;
	int64 pending;

	sql_open(&scope);
	pending = count_pending(&scope, mapping);
	if (pending > 0 && !discard)
		refuse_pending(mapping, pending);

	for (int i = 0; i < lengthof(delete_queries); i++)
		SQL_RUN(&scope, delete_queries[i], sql_arg_int(mapping->id));
	SQL_RUN(&scope,
			"UPDATE sfsync.dead_letter SET status = 'discarded', resolved_at = pg_catalog.clock_timestamp(),"
			" note = 'the mapping was dropped' WHERE mapping = $1 AND status IN ('open', 'retrying')",
			sql_arg_text(mapping->name));
	SQL_RUN(&scope,
			"UPDATE sfsync.conflict SET resolution = 'superseded', resolved_at = pg_catalog.clock_timestamp()"
			" WHERE mapping = $1 AND resolution IS NULL",
			sql_arg_text(mapping->name));
	sql_close(&scope);
	return pending;
}

static bool
is_mapped(Oid relid)
{
	SqlScope scope;
	bool mapped;

	sql_open_latest(&scope);
	mapped = SQL_RUN(&scope, "SELECT FROM sfsync.mapping WHERE source::oid = $1", sql_arg_oid(relid)) > 0;
	sql_close(&scope);
	return mapped;
}

int64
api_drop_mapping(const Mapping *mapping, bool discard)
{
	Oid source = mapping->source;
	bool exists = mapping->source_name != NULL;
	int64 given_up;

	api_lock_mapping(mapping, AccessExclusiveLock);
	given_up = delete_mapping(mapping, discard);
	CommandCounterIncrement();
	if (exists && is_mapped(source))
		api_attach_triggers(source);
	else if (exists)
		detach_triggers(source);
	mapping_changed(source);
	shmem_wake_at_commit();
	return given_up;
}

PG_FUNCTION_INFO_V1(sfsync_drop_mapping);

Datum
sfsync_drop_mapping(PG_FUNCTION_ARGS)
{
	api_require(fcinfo, 0, "mapping");
	(void) api_drop_mapping(api_mapping(api_text(fcinfo, 0)), !PG_ARGISNULL(1) && PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(sfsync_backfill);

Datum
sfsync_backfill(PG_FUNCTION_ARGS)
{
	Mapping *mapping;
	char *text = api_text(fcinfo, 1);
	Expression *filter;

	api_require(fcinfo, 0, "mapping");
	mapping = api_mapping(api_text(fcinfo, 0));
	api_keep_mapping(mapping);
	if (!mapping->source_name)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("mapping \"%s\" can't be backfilled", mapping->name),
						errdetail("%s", mapping->broken), errhint("Mend that first; then call it again.")));
	if (!text || text[0] == '\0')
		PG_RETURN_INT64(api_start_backfill(mapping->id, source_row_count(mapping, NULL), NULL, 0));
	filter = api_expression(mapping, "filter", text, true);
	PG_RETURN_INT64(
		api_start_filtered_backfill(mapping->id, source_row_count(mapping, filter->text), filter->text));
}

PG_FUNCTION_INFO_V1(sfsync_cancel_backfill);

Datum
sfsync_cancel_backfill(PG_FUNCTION_ARGS)
{
	SqlScope scope;
	char *name = NULL;
	bool cancelled;

	sql_open_latest(&scope);
	if (SQL_RUN(
			&scope,
			"SELECT m.name FROM sfsync.backfill_job b JOIN sfsync.mapping m ON m.id = b.mapping WHERE b.id = $1",
			sql_arg_bigint(PG_GETARG_INT64(0))) == 1)
		name = sql_text(&scope, 0, 1);
	sql_close(&scope);
	if (!name)
		PG_RETURN_BOOL(false);
	(void) api_mapping(name);
	sql_open(&scope);
	cancelled =
		SQL_RUN(
			&scope,
			"UPDATE sfsync.backfill_job SET state = 'cancelled', finished_at = pg_catalog.clock_timestamp()"
			" WHERE id = $1 AND state = 'running'",
			sql_arg_bigint(PG_GETARG_INT64(0))) > 0;
	sql_close(&scope);
	shmem_wake_at_commit();
	PG_RETURN_BOOL(cancelled);
}
