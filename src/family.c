/*
 * family.c
 *		Keeps apart what Salesforce would lock against each other.
 *
 * Saving a child locks its parent: two requests at once with children of one
 * parent, or with a parent and its child, fail with UNABLE_TO_LOCK_ROW
 * (reference, section 9.4).  So a record whose family is under way waits for it.
 */
#include "compat.h"

#include "utils/hsearch.h"

#include "canonical.h"
#include "claim.h"

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

void
family_keep_together(Claim *claim, UnitKind *kinds)
{
	HTAB *families;

	if (!claim->state->has_family || (claim->connection->in_flight == 0 && claim->delivery->outgoing == NIL))
		return;
	families = families_under_way(claim->delivery);
	for (int i = 0; i < claim->n; i++)
		if (kinds[i] != UNIT_UNDECIDED && kinds[i] != UNIT_WAITING &&
			is_under_way(families, claim->mapping, &claim->candidates[i]))
			kinds[i] = UNIT_WAITING;
	hash_destroy(families);
}
