/*
 * circle.c
 *		Circles of lookups: new rows that refer to each other, or to themselves.
 *
 * Of rows that wait for each other, one is created without the lookups that
 * can't be resolved; they follow when the parent is there.
 */
#include "compat.h"

#include "access/htup_details.h"

#include "bitmap.h"
#include "claim.h"
#include "payload.h"
#include "sfsync.h"

/* A lookup that a record can be created without. */
static char *
circle_parent(const MappingField *field, const Candidate *candidate)
{
	if (!field->lookup || !field->field->nillable || !field->field->updateable)
		return NULL;
	return payload_parent_key(field, candidate->row);
}

static void
set_circular(const Claim *claim, Candidate *candidate, int field)
{
	if (!candidate->circular)
		candidate->circular = palloc0(sizeof(bool) * claim->mapping->nfields);
	candidate->circular[field] = true;
}

static int
count_lookups(const Mapping *mapping)
{
	int n = 0;

	for (int i = 0; i < mapping->nfields; i++)
		n += mapping->fields[i].lookup != NULL;
	return n;
}

/* By what is at hand at once; what was refused for its parent, by what is deferred. */
void
circle_find(Claim *claim)
{
	const Mapping *mapping = claim->mapping;
	int max = claim->n * count_lookups(mapping);
	char **keys = palloc(sizeof(char *) * Max(max, 1));
	char **parents = palloc(sizeof(char *) * Max(max, 1));
	int32 *parent_mappings = palloc(sizeof(int32) * Max(max, 1));
	int *where = palloc(sizeof(int) * Max(max, 1));
	bool *circles;
	int n = 0;

	for (int w = 0; max > 0 && w < claim->n * mapping->nfields; w++)
	{
		Candidate *candidate = &claim->candidates[w / mapping->nfields];
		const MappingField *field = &mapping->fields[w % mapping->nfields];
		char *parent = candidate->row && candidate->row->found && !candidate->record
						   ? circle_parent(field, candidate)
						   : NULL;

		if (!parent)
			continue;
		if (batch_waits_for(claim->delivery->work, field->lookup->parent_mapping, parent, candidate->unit))
			set_circular(claim, candidate, w % mapping->nfields);
		else if (candidate->unit->deferred)
		{
			keys[n] = candidate->unit->key;
			parents[n] = parent;
			parent_mappings[n] = field->lookup->parent_mapping;
			where[n++] = w;
		}
	}
	if (n == 0)
		return;
	circles = deferred_circles(mapping->id, keys, parent_mappings, parents, n);
	for (int i = 0; i < n; i++)
		if (circles[i])
			set_circular(claim, &claim->candidates[where[i] / mapping->nfields], where[i] % mapping->nfields);
}

static bool
remove_field(RestRecord *record, const char *name)
{
	for (int i = 0; i < record->nfields; i++)
	{
		if (record->fields[i].value.kind != FV_LOOKUP || strcmp(record->fields[i].name, name) != 0)
			continue;
		memmove(&record->fields[i], &record->fields[i + 1], sizeof(RestField) * (record->nfields - i - 1));
		record->nfields--;
		return true;
	}
	return false;
}

static void
fill_later(const Mapping *mapping, const MappingField *field, Candidate *candidate)
{
	for (int i = 0; i < field->lookup->ncolumns; i++)
	{
		AttrNumber attnum = mapping->columns[field->lookup->columns[i]].attnum;

		bitmap_add(candidate->fill, attnum);
		candidate->fill_len = Max(candidate->fill_len, bitmap_length(attnum));
	}
	candidate->fill_mapping = field->lookup->parent_mapping;
	candidate->fill_key = payload_parent_key(field, candidate->row);
}

void
circle_leave_out(const Claim *claim, Candidate *candidate)
{
	const Mapping *mapping = claim->mapping;

	if (!candidate->circular)
		return;
	for (int i = 0; i < mapping->nfields; i++)
	{
		if (!candidate->circular[i] || !remove_field(&candidate->payload, mapping->fields[i].field->name))
			continue;
		if (!candidate->fill)
			candidate->fill = palloc0(bitmap_length(MaxHeapAttributeNumber));
		fill_later(mapping, &mapping->fields[i], candidate);
	}
}

void
circle_outcome(const Candidate *candidate, Outcome *outcome)
{
	outcome->has_record = candidate->record != NULL;
	if (!candidate->fill)
		return;
	outcome->fill = candidate->fill;
	outcome->fill_len = candidate->fill_len;
	outcome->parent_mapping = candidate->fill_mapping;
	outcome->parent_key = candidate->fill_key;
	outcome->due_at = GetCurrentTimestamp() + MILLISECONDS(sfsync_retry_base_delay);
}
