/*
 * drift.c
 *		Columns that begin to feed a field after the mapping was made.
 *
 * While a column feeds nothing its changes settle without a write, and a column
 * added with a default changes rows without any event.  So when it begins to
 * feed a field, its values are sent once, as far as they are not null: a null
 * says nothing of a field that was never ours.
 */
#include "compat.h"

#include "access/htup_details.h"

#include "api.h"
#include "drift.h"
#include "source.h"
#include "sql.h"

/* "attnum=field": by number, so that a renamed column is the one it was. */
static char **
mapped_pairs(const Mapping *mapping)
{
	char **pairs = palloc(sizeof(char *) * Max(mapping->nfields, 1));

	for (int i = 0; i < mapping->nfields; i++)
		pairs[i] = psprintf("%d=%s", mapping->columns[mapping->fields[i].column].attnum,
							mapping->fields[i].field->name);
	return pairs;
}

static int
compare_pairs(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The pairs are sorted. */
static bool
is_among(const char *pair, char **pairs, int n)
{
	return bsearch(&pair, pairs, n, sizeof(char *), compare_pairs) != NULL;
}

/* Of pairs of which each is there once. */
static bool
same(char **a, int na, char **b, int nb)
{
	if (na != nb)
		return false;
	for (int i = 0; i < na; i++)
		if (!is_among(a[i], b, nb))
			return false;
	return true;
}

static void
store(const Mapping *mapping, char **pairs)
{
	SqlScope scope;

	sql_open(&scope, false);
	SQL_RUN(
		&scope,
		"INSERT INTO sfsync.mapping_state (mapping, mapped) SELECT id, $2 FROM sfsync.mapping WHERE id = $1"
		" ON CONFLICT (mapping) DO UPDATE SET mapped = excluded.mapped",
		sql_arg_int(mapping->id), sql_arg_texts(pairs, mapping->nfields));
	sql_close(&scope);
}

static void
queue_column(const Mapping *mapping, AttrNumber attnum)
{
	int bit = attnum - 1;
	uint8 *bitmap = palloc0(bit / 8 + 1);

	bitmap[bit / 8] = 1 << (bit % 8);
	(void) api_start_backfill(mapping->id, source_row_count(mapping, NULL), bitmap, bit / 8 + 1);
}

void
drift_begin(const Mapping *mapping, AttrNumber attnum, const SfField *field)
{
	char *pair = psprintf("%d=%s", attnum, field->name);
	SqlScope scope;
	bool is_new;

	sql_open(&scope, false);
	is_new = SQL_RUN(&scope,
					 "UPDATE sfsync.mapping_state SET mapped = mapped || $2"
					 " WHERE mapping = $1 AND mapped IS NOT NULL AND NOT $2 = ANY (mapped)",
					 sql_arg_int(mapping->id), sql_arg_text(pair)) > 0;
	sql_close(&scope);
	if (is_new)
		queue_column(mapping, attnum);
}

bool
drift_follow(const Mapping *mapping)
{
	char **pairs = mapped_pairs(mapping);
	char **before = NULL;
	int nbefore = 0;
	bool known;
	bool queued = false;
	const MappingColumn *column;
	SqlScope scope;

	sql_open(&scope, false);
	known =
		SQL_RUN(&scope, "SELECT mapped FROM sfsync.mapping_state WHERE mapping = $1 AND mapped IS NOT NULL",
				sql_arg_int(mapping->id)) == 1;
	if (known)
		before = sql_texts(&scope, 0, 1, &nbefore);
	sql_close(&scope);
	qsort(before, nbefore, sizeof(char *), compare_pairs);
	if (known && same(pairs, mapping->nfields, before, nbefore))
		return false;
	for (int i = 0; known && i < mapping->nfields; i++)
	{
		if (is_among(pairs[i], before, nbefore))
			continue;
		column = &mapping->columns[mapping->fields[i].column];
		queue_column(mapping, column->attnum);
		ereport(LOG, (errmsg("sfsync: mapping \"%s\": %s feeds field %s from now on", mapping->name,
							 mapping_column_label(column), mapping->fields[i].field->name)));
		queued = true;
	}
	store(mapping, pairs);
	return queued;
}
