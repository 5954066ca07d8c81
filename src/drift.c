/*
 * drift.c
 *		What changes under a mapping after it was made.
 *
 * While a column feeds nothing its changes settle without a write, and a column
 * added with a default changes rows without any event.  So when it begins to
 * feed a field, its values are sent once, as far as they are not null: a null
 * says nothing of a field that was never ours.  Of a field that was, and came
 * out of quarantine, the changes made meanwhile are known, and nulls among them
 * are sent too.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "api.h"
#include "bitmap.h"
#include "drift.h"
#include "source.h"
#include "sql.h"

/*
 * Fields by attribute number, so that a renamed column is the one it was:
 * "4=Phone:phone", the type as it was when the field was last written.
 */
typedef struct Pairs /* those of another time are sorted */
{
	int n;
	char **texts;
} Pairs;

static char *
make_pair(AttrNumber attnum, const char *field, const char *type)
{
	return psprintf("%d=%s:%s", attnum, field, type);
}

static size_t
without_type(const char *pair)
{
	return strcspn(pair, ":");
}

static int
compare_pairs(const void *a, const void *b)
{
	const char *x = *(char *const *) a;
	const char *y = *(char *const *) b;
	size_t xlen = without_type(x);
	size_t ylen = without_type(y);
	int order = strncmp(x, y, Min(xlen, ylen));

	return order != 0 ? order : (xlen > ylen) - (xlen < ylen);
}

static void
read_pairs(SqlScope *scope, int col, Pairs *pairs)
{
	pairs->texts = sql_texts(scope, 0, col, &pairs->n);
	qsort(pairs->texts, pairs->n, sizeof(char *), compare_pairs);
}

/* The pair of the same column and field, whatever its type; NULL if there is none. */
static const char *
find_pair(const Pairs *pairs, const char *pair)
{
	char **found =
		pairs->n > 0 ? bsearch(&pair, pairs->texts, pairs->n, sizeof(char *), compare_pairs) : NULL;

	return found ? *found : NULL;
}

static bool
same_pairs(const Pairs *a, const Pairs *b)
{
	if (a->n != b->n)
		return false;
	for (int i = 0; i < a->n; i++)
	{
		const char *other = find_pair(b, a->texts[i]);

		if (!other || strcmp(other, a->texts[i]) != 0)
			return false;
	}
	return true;
}

static const MappingColumn *
route_column(const Mapping *mapping, const Route *route)
{
	return &mapping->columns[route->column];
}

/*
 * What was
 */

static const char recall_query[] = "SELECT coalesce(s.mapped, '{}') || coalesce(s.quarantined, '{}')"
								   " FROM sfsync.mapping_state s JOIN sfsync.mapping m ON m.id = s.mapping"
								   " WHERE s.mapping = $1 AND m.attnums_of = m.source::oid";

static const char creation_query[] =
	"SELECT attnum::integer, problem, coalesce(retry_at, '-infinity') FROM sfsync.field_creation"
	" WHERE mapping = $1";

static void
recall_pair(RouteColumn *column, const char *pair)
{
	const char *field = strchr(pair, '=');
	const char *type = strchr(pair, ':');
	RouteFormer *former = unconstify(RouteFormer *, column->former);

	if (!field)
		return;
	former =
		former ? repalloc(former, sizeof(RouteFormer) * (column->nformer + 1)) : palloc(sizeof(RouteFormer));
	former[column->nformer].field = type ? pnstrdup(field + 1, type - field - 1) : pstrdup(field + 1);
	former[column->nformer++].type_name = type && type[1] ? type + 1 : NULL;
	column->former = former;
}

static void
recall_pairs(RouteColumn *columns, int ncolumns, char **pairs, int npairs)
{
	int16 *index = palloc0(sizeof(int16) * (PG_INT16_MAX + 1)); /* from 1, by number */

	for (int i = 0; i < ncolumns; i++)
		index[columns[i].attnum] = i + 1;
	for (int i = 0; i < npairs; i++)
	{
		int attnum = atoi(pairs[i]);

		if (attnum > 0 && attnum <= PG_INT16_MAX && index[attnum] > 0)
			recall_pair(&columns[index[attnum] - 1], pairs[i]);
	}
	pfree(index);
}

static void
recall_creation(RouteColumn *column, int attnum, const char *problem, TimestampTz retry_at)
{
	if (column->attnum != attnum)
		return;
	column->create_at = retry_at;
	column->creation = problem ? problem : "one is being created";
	column->creation_failed = problem != NULL;
}

void
drift_recall(const Mapping *mapping, RouteColumn *columns)
{
	SqlScope scope;
	char **pairs = NULL;
	int npairs = 0;
	int ncreations;

	for (int i = 0; i < mapping->ncolumns; i++)
		columns[i].create_at = DT_NOBEGIN;
	sql_open_latest(&scope);
	if (SQL_RUN(&scope, recall_query, sql_arg_int(mapping->id)) == 1)
		pairs = sql_texts(&scope, 0, 1, &npairs);
	ncreations = SQL_RUN(&scope, creation_query, sql_arg_int(mapping->id));
	for (int r = 0; r < ncreations; r++)
	{
		int attnum = sql_int(r, 1);
		char *problem = sql_text(&scope, r, 2);

		for (int i = 0; i < mapping->ncolumns; i++)
			recall_creation(&columns[i], attnum, problem, sql_time(r, 3));
	}
	sql_close(&scope);
	recall_pairs(columns, mapping->ncolumns, pairs, npairs);
}

/*
 * What is
 */

static Pairs
mapped_pairs(const Mapping *mapping)
{
	Pairs pairs = {mapping->nfields, palloc(sizeof(char *) * Max(mapping->nfields, 1))};

	for (int i = 0; i < mapping->nfields; i++)
		pairs.texts[i] = make_pair(mapping->columns[mapping->fields[i].column].attnum,
								   mapping->fields[i].field->name, mapping->fields[i].field->type_name);
	return pairs;
}

bool
drift_in_quarantine(const Mapping *mapping)
{
	for (int i = 0; i < mapping->nroutes; i++)
		if (mapping->routes[i].status == ROUTE_QUARANTINED)
			return true;
	return false;
}

/* With the types that the fields had when they could be written. */
static Pairs
quarantined_pairs(const Mapping *mapping, const Pairs *mapped, const Pairs *quarantined)
{
	Pairs pairs = {0, palloc(sizeof(char *) * Max(mapping->nroutes, 1))};

	for (int i = 0; i < mapping->nroutes; i++)
	{
		const Route *route = &mapping->routes[i];
		char *pair;
		const char *before;

		if (route->status != ROUTE_QUARANTINED)
			continue;
		pair = make_pair(route_column(mapping, route)->attnum, route->field_name, "");
		before = find_pair(mapped, pair);
		if (!before)
			before = find_pair(quarantined, pair);
		pairs.texts[pairs.n++] = before ? unconstify(char *, before) : pair;
	}
	return pairs;
}

/* "2 fields quarantined: Phone (not visible), Site (read-only)"; NULL if all is well. */
static char *
make_notice(const Mapping *mapping)
{
	StringInfoData names;
	StringInfoData out;
	int n = 0;

	initStringInfo(&names);
	initStringInfo(&out);
	for (int i = 0; i < mapping->nroutes; i++)
	{
		const Route *route = &mapping->routes[i];

		if (route->status == ROUTE_QUARANTINED)
			appendStringInfo(&names, "%s%s (%s)", n++ > 0 ? ", " : "", route->field_name,
							 route->trouble ? route->trouble : "its expression can't be evaluated");
	}
	if (n > 0)
		appendStringInfo(&out, "%d field%s quarantined: %s", n, n > 1 ? "s" : "", names.data);
	for (int i = 0; i < mapping->nroutes; i++)
	{
		const Route *route = &mapping->routes[i];

		if (route->wanted && route->trouble)
			appendStringInfo(&out, "%scolumn \"%s\": %s", out.len > 0 ? "; " : "",
							 route_column(mapping, route)->name, route->trouble);
	}
	return out.len > 0 ? out.data : NULL;
}

/*
 * The difference
 */

static void
queue_column(const Mapping *mapping, AttrNumber attnum)
{
	int len = bitmap_length(attnum);
	uint8 *bitmap = palloc0(len);

	bitmap_add(bitmap, attnum);
	(void) api_start_backfill(mapping->id, source_row_count(mapping, NULL), bitmap, len);
}

/*
 * A row without a record is sent whole when it gets one, or is gone.  Where
 * changes of the row wait already, each column keeps its own time.
 */
static const char missed_query[] =
	"INSERT INTO sfsync.deferred AS d (mapping, key, state, reason, due_at, attempts, whole, deleted, changed,"
	" changed_at, first_event_at, event_at, xid, captured, renewed)"
	" SELECT $1, key, 'waiting', 'changed while the field was in quarantine', pg_catalog.clock_timestamp(), 0,"
	" false, false, $3, event_at, event_at, event_at, pg_catalog.pg_current_xact_id(), false, pg_catalog.pg_current_xact_id()"
	" FROM sfsync.missed g"
	" WHERE mapping = $1 AND attnum = $2"
	" AND EXISTS (SELECT FROM sfsync.record r WHERE r.mapping = $1 AND r.key = g.key)"
	" ON CONFLICT (mapping, key) DO UPDATE SET changed = CASE"
	" WHEN d.changed IS NULL THEN excluded.changed"
	" WHEN pg_catalog.length(d.changed) < pg_catalog.length(excluded.changed)"
	" THEN d.changed || pg_catalog.substr(excluded.changed, pg_catalog.length(d.changed) + 1)"
	" ELSE pg_catalog.set_bit(d.changed, $4 - 1, 1) END,"
	" times = ARRAY(SELECT CASE WHEN b.i = $4 THEN greatest(o.at, excluded.event_at) ELSE o.at END"
	" FROM pg_catalog.generate_series(1, 8 * greatest(pg_catalog.length(d.changed), pg_catalog.length(excluded.changed)))"
	" AS b(i) CROSS JOIN LATERAL (SELECT coalesce(d.times[b.i], CASE WHEN b.i <= 8 * pg_catalog.length(d.changed)"
	" AND pg_catalog.get_bit(d.changed, b.i - 1) = 1 THEN d.changed_at END, '-infinity') AS at) o ORDER BY b.i),"
	" changed_at = greatest(d.changed_at, excluded.changed_at), event_at = greatest(d.event_at, excluded.event_at),"
	" renewed = excluded.renewed";

/* As changes of the column number "changed" again. */
static void
queue_missed_as(SqlScope *scope, const Mapping *mapping, AttrNumber attnum, AttrNumber changed)
{
	int len = bitmap_length(changed);
	uint8 *bitmap = palloc0(len);

	bitmap_add(bitmap, changed);
	SQL_RUN(scope, missed_query, sql_arg_int(mapping->id), sql_arg_int(attnum), sql_arg_bytes(bitmap, len),
			sql_arg_int(changed));
}

/* Of an expression it was its columns that changed. */
static void
queue_missed(const Mapping *mapping, AttrNumber attnum)
{
	const MappingColumn *column = NULL;
	SqlScope scope;

	for (int i = 0; i < mapping->ncolumns && !column; i++)
		if (mapping->columns[i].attnum == attnum)
			column = &mapping->columns[i];
	sql_open(&scope);
	if (!column || !column->expression)
		queue_missed_as(&scope, mapping, attnum, attnum);
	for (int i = 0; column && column->expression && i < column->ninputs; i++)
		queue_missed_as(&scope, mapping, attnum, mapping->columns[column->inputs[i]].attnum);
	SQL_RUN(&scope, "DELETE FROM sfsync.missed WHERE mapping = $1 AND attnum = $2", sql_arg_int(mapping->id),
			sql_arg_int(attnum));
	sql_close(&scope);
}

void
drift_begin(const Mapping *mapping, AttrNumber attnum, const SfField *field)
{
	char *pair = make_pair(attnum, field->name, field->type_name);
	SqlScope scope;
	bool is_new;

	sql_open(&scope);
	is_new =
		SQL_RUN(
			&scope,
			"UPDATE sfsync.mapping_state SET mapped = mapped || $2"
			" WHERE mapping = $1 AND mapped IS NOT NULL AND NOT EXISTS (SELECT FROM"
			" pg_catalog.unnest(mapped) AS p WHERE pg_catalog.split_part(p, ':', 1) = pg_catalog.split_part($2, ':', 1))",
			sql_arg_int(mapping->id), sql_arg_text(pair)) > 0;
	sql_close(&scope);
	if (is_new)
	{
		queue_column(mapping, attnum);
		queue_missed(mapping, attnum);
	}
}

static bool
queue_new(const Mapping *mapping, const Pairs *now, const Pairs *before)
{
	bool queued = false;

	for (int i = 0; i < now->n; i++)
	{
		const MappingColumn *column = &mapping->columns[mapping->fields[i].column];

		if (find_pair(before, now->texts[i]))
			continue;
		queue_column(mapping, column->attnum);
		queue_missed(mapping, column->attnum);
		ereport(LOG, (errmsg("sfsync: mapping \"%s\": %s feeds field %s from now on", mapping->name,
							 mapping_column_label(column), mapping->fields[i].field->name)));
		queued = true;
	}
	return queued;
}

/* Once, not each time that it is looked at. */
static void
tell_quarantines(const Mapping *mapping, const Pairs *now, const Pairs *before)
{
	int n = 0;

	for (int i = 0; i < mapping->nroutes; i++)
	{
		const Route *route = &mapping->routes[i];

		if (route->status != ROUTE_QUARANTINED)
			continue;
		if (!find_pair(before, now->texts[n++]))
			ereport(LOG, (errmsg("sfsync: mapping \"%s\": %s, field %s is in quarantine: %s", mapping->name,
								 mapping_column_label(route_column(mapping, route)), route->field_name,
								 route->detail)));
	}
}

static const char store_query[] =
	"INSERT INTO sfsync.mapping_state (mapping, mapped, quarantined, notice)"
	" VALUES ($1, $2, $3, $4)"
	" ON CONFLICT (mapping) DO UPDATE SET mapped = excluded.mapped, quarantined = excluded.quarantined,"
	" notice = excluded.notice";

/* Of columns that are out of quarantine for another reason nothing is to be sent later. */
static const char forget_missed_query[] =
	"DELETE FROM sfsync.missed WHERE mapping = $1 AND attnum <> ALL (ARRAY(SELECT pg_catalog.split_part(p, '=', 1)::smallint"
	" FROM pg_catalog.unnest($2) AS p))";

static const char forget_creation_query[] =
	"DELETE FROM sfsync.field_creation WHERE mapping = $1 AND attnum = ANY (ARRAY(SELECT"
	" pg_catalog.split_part(p, '=', 1)::smallint FROM pg_catalog.unnest($2) AS p))";

static void
store(const Mapping *mapping, const Pairs *mapped, const Pairs *quarantined, const char *notice)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, store_query, sql_arg_int(mapping->id), sql_arg_texts(mapped->texts, mapped->n),
			sql_arg_texts(quarantined->texts, quarantined->n), sql_arg_text(notice));
	SQL_RUN(&scope, forget_missed_query, sql_arg_int(mapping->id),
			sql_arg_texts(quarantined->texts, quarantined->n));
	SQL_RUN(&scope, forget_creation_query, sql_arg_int(mapping->id), sql_arg_texts(mapped->texts, mapped->n));
	sql_close(&scope);
}

bool
drift_follow(const Mapping *mapping)
{
	Pairs mapped = mapped_pairs(mapping);
	Pairs mapped_before = {0};
	Pairs quarantined;
	Pairs quarantined_before = {0};
	char *notice = make_notice(mapping);
	char *notice_before = NULL;
	bool known = false;
	bool queued = false;
	SqlScope scope;

	sql_open(&scope);
	if (SQL_RUN(&scope, "SELECT mapped, quarantined, notice FROM sfsync.mapping_state WHERE mapping = $1",
				sql_arg_int(mapping->id)) == 1)
	{
		known = !sql_isnull(0, 1);
		if (known)
			read_pairs(&scope, 1, &mapped_before);
		if (!sql_isnull(0, 2))
			read_pairs(&scope, 2, &quarantined_before);
		notice_before = sql_text(&scope, 0, 3);
	}
	sql_close(&scope);
	quarantined = quarantined_pairs(mapping, &mapped_before, &quarantined_before);
	if (known && same_pairs(&mapped, &mapped_before) && same_pairs(&quarantined, &quarantined_before) &&
		strcmp(notice ? notice : "", notice_before ? notice_before : "") == 0)
		return false;
	if (known)
		queued = queue_new(mapping, &mapped, &mapped_before);
	tell_quarantines(mapping, &quarantined, &quarantined_before);
	store(mapping, &mapped, &quarantined, notice);
	return queued;
}

/*
 * Changes while in quarantine
 */

/*
 * When an event last changed the column, or what it is made of; BATCH_NEVER if
 * none did.  What a backfill brings is no change: the field's return has another.
 */
static int64
changed_at(const Mapping *mapping, const Unit *unit, const MappingColumn *column)
{
	int64 last = BATCH_NEVER;

	for (int i = -1; i < column->ninputs; i++)
	{
		int attnum = i < 0 ? column->attnum : mapping->columns[column->inputs[i]].attnum;
		int64 at;

		if (bitmap_has(unit->changed, unit->changed_len, attnum) &&
			batch_column_changed(unit, attnum - 1, &at))
			last = Max(last, at);
	}
	return last;
}

static const char note_query[] =
	"INSERT INTO sfsync.missed AS m (mapping, attnum, key, event_at)"
	" SELECT $1, u.attnum, u.key, timestamptz '2000-01-01 00:00:00+00' + u.at::int8 * interval '1 microsecond'"
	" FROM unnest($2, $3, $4) AS u(attnum, key, at)"
	" ON CONFLICT (mapping, attnum, key) DO UPDATE SET event_at = greatest(m.event_at, excluded.event_at)";

void
drift_note(const Mapping *mapping, const Unit *const *units, int n)
{
	int max = n * mapping->nroutes;
	int32 *attnums = palloc(sizeof(int32) * Max(max, 1));
	char **keys = palloc(sizeof(char *) * Max(max, 1));
	char **times = palloc(sizeof(char *) * Max(max, 1));
	int nnoted = 0;
	SqlScope scope;

	for (int r = 0; r < mapping->nroutes; r++)
	{
		const Route *route = &mapping->routes[r];
		const MappingColumn *column = route_column(mapping, route);

		for (int i = 0; route->status == ROUTE_QUARANTINED && i < n; i++)
		{
			int64 at = changed_at(mapping, units[i], column);

			if (at == BATCH_NEVER)
				continue;
			attnums[nnoted] = column->attnum;
			keys[nnoted] = units[i]->key;
			times[nnoted++] = psprintf(INT64_FORMAT, at);
		}
	}
	if (nnoted == 0)
		return;
	sql_open(&scope);
	SQL_RUN(&scope, note_query, sql_arg_int(mapping->id), sql_arg_ints(attnums, nnoted),
			sql_arg_texts(keys, nnoted), sql_arg_texts(times, nnoted));
	sql_close(&scope);
}
