/*
 * family.c
 *		Keeps apart what Salesforce would lock against each other, and deletes
 *		children before their parents.
 *
 * Saving a child locks its parent: two requests at once with children of one
 * parent, or with a parent and its child, fail with UNABLE_TO_LOCK_ROW
 * (reference, section 9.4).  So a record whose family is under way waits for it.
 */
#include "compat.h"

#include "utils/hsearch.h"

#include "bulk_job.h"
#include "canonical.h"
#include "claim.h"

/* How far up a circle of mappings that look each other up is seen. */
#define MAX_GENERATIONS 5

typedef struct Member
{
	uint64 family;
} Member;

/* A row, as itself and as the parent of others. */
static uint64
family_of(int mapping, const char *key)
{
	char *name = psprintf("%d:%s", mapping, key);
	uint64 hash = canonical_hash(name);

	pfree(name);
	return hash;
}

static void
add_request(HTAB *families, const Request *request)
{
	for (int i = 0; request->records && i < request->nunits; i++)
	{
		const RestRecord *record = &request->records[i];
		uint64 family = family_of(request->mapping, request->outcomes[i].unit->key);

		(void) hash_search(families, &family, HASH_ENTER, NULL);
		for (int f = 0; f < record->nfields; f++)
		{
			const FieldValue *value = &record->fields[f].value;

			if (value->kind != FV_LOOKUP)
				continue;
			family = family_of(value->lookup->parent_mapping, value->text);
			(void) hash_search(families, &family, HASH_ENTER, NULL);
		}
	}
}

static HTAB *
families_under_way(const Delivery *delivery)
{
	HASHCTL ctl = {.keysize = sizeof(uint64), .entrysize = sizeof(Member), .hcxt = CurrentMemoryContext};
	HTAB *families = hash_create("sfsync families", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ListCell *lc;

	foreach(lc, delivery->requests)
		add_request(families, lfirst(lc));
	foreach(lc, delivery->outgoing)
		add_request(families, lfirst(lc));
	return families;
}

static bool
is_under_way(HTAB *families, const Mapping *mapping, const Candidate *candidate)
{
	uint64 family = family_of(mapping->id, candidate->unit->key);

	if (hash_search(families, &family, HASH_FIND, NULL))
		return true;
	for (int f = 0; f < candidate->payload.nfields; f++)
	{
		const FieldValue *value = &candidate->payload.fields[f].value;

		if (value->kind != FV_LOOKUP)
			continue;
		family = family_of(value->lookup->parent_mapping, value->text);
		if (hash_search(families, &family, HASH_FIND, NULL))
			return true;
	}
	return false;
}

/*
 * Deletes
 */

static bool
looks_up(const Mapping *mapping, int parent)
{
	for (int i = 0; i < mapping->nfields; i++)
		if (mapping->fields[i].lookup && mapping->fields[i].lookup->parent_mapping == parent)
			return true;
	return false;
}

/* By way of others, too: then neither can be the one that always goes first. */
static bool
descends_from(const Mapping *mapping, int ancestor, int depth)
{
	if (looks_up(mapping, ancestor))
		return true;
	for (int i = 0; depth > 0 && i < mapping->nfields; i++)
	{
		const RouteLookup *lookup = mapping->fields[i].lookup;
		const Mapping *parent =
			lookup && lookup->parent_mapping != mapping->id ? mapping_get(lookup->parent_mapping) : NULL;

		if (parent && descends_from(parent, ancestor, depth - 1))
			return true;
	}
	return false;
}

/* In requests that read their records, too. */
static bool
has_deletes(const List *requests, int mapping)
{
	ListCell *lc;

	foreach(lc, requests)
	{
		const Request *request = lfirst(lc);

		for (int i = 0; request->mapping == mapping && i < request->nunits; i++)
			if (request->outcomes[i].unit->deleted)
				return true;
	}
	return false;
}

static bool
has_bulk_deletes(const List *jobs, int mapping)
{
	ListCell *lc;

	foreach(lc, jobs)
	{
		const BulkJob *job = lfirst(lc);

		if (job->mapping == mapping && !job->dropped &&
			(job->operation == BULK_DELETE || job->operation == BULK_HARD_DELETE))
			return true;
	}
	return false;
}

/* Mappings of children whose deletes can go now, and would go first. */
static List *
child_mappings(const Claim *claim)
{
	List *children = NIL;
	ListCell *lc;

	foreach(lc, claim->delivery->mappings)
	{
		const MappingDelivery *state = lfirst(lc);
		const Mapping *child;

		if (state->id == claim->mapping->id || !state->deliverable || state->blocked || !state->has_lookups)
			continue;
		child = mapping_get(state->id);
		if (child && looks_up(child, claim->mapping->id) &&
			!descends_from(claim->mapping, child->id, MAX_GENERATIONS))
			children = lappend_int(children, state->id);
	}
	return children;
}

/* Which of its rows referred to this one nobody knows any more: all that were deleted before it are waited for. */
static bool
has_children_to_delete(const Claim *claim, const List *children, const Unit *unit)
{
	const Delivery *delivery = claim->delivery;
	ListCell *lc;

	foreach(lc, children)
	{
		int child = lfirst_int(lc);
		const MappingQueue *queue = batch_find_queue(delivery->work, child);

		if ((queue && batch_has_delete(queue, unit)) || has_deletes(delivery->requests, child) ||
			has_deletes(delivery->outgoing, child) || has_bulk_deletes(delivery->bulk_jobs, child))
			return true;
	}
	return false;
}

static void
delete_children_first(Claim *claim, UnitKind *kinds)
{
	List *children = claim_count(kinds, claim->n, UNIT_DELETE) > 0 ? child_mappings(claim) : NIL;

	for (int i = 0; children != NIL && i < claim->n; i++)
		if (kinds[i] == UNIT_DELETE && has_children_to_delete(claim, children, claim->candidates[i].unit))
		{
			kinds[i] = UNIT_WAITING;
			batch_postpone(claim->candidates[i].unit);
		}
}

void
family_keep_together(Claim *claim, UnitKind *kinds)
{
	HTAB *families;

	if (claim->state->has_family)
		delete_children_first(claim, kinds);
	if (!claim->state->has_family || (claim->connection->in_flight == 0 && claim->delivery->outgoing == NIL))
		return;
	families = families_under_way(claim->delivery);
	for (int i = 0; i < claim->n; i++)
		if (kinds[i] != UNIT_UNDECIDED && kinds[i] != UNIT_WAITING &&
			is_under_way(families, claim->mapping, &claim->candidates[i]))
			kinds[i] = UNIT_WAITING;
	hash_destroy(families);
}
