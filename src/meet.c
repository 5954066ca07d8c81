/*
 * meet.c
 *		Whose are the records that were found by external ID?
 *
 * A row's record is the one under a key that the row had before, else the one
 * under its own.  It is not a record that is known to be another row's: what is
 * read was true when Salesforce read it, and meanwhile a write of ours may have
 * given the record another key.  And under a key that it got from another row,
 * before any write of its own set it, is that row's record, as long as that may
 * have one there.
 */
#include "compat.h"

#include "deliver.h"
#include "reply.h"
#include "rest.h"

/* What was found, and of whom it may be. */
typedef struct Found
{
	const RestFound *records;
	char **record_keys;
	RecordOwners *owners;
	int n;
} Found;

static Found
find_owners(int mapping, const RestFound *records, int n, bool case_sensitive)
{
	Found found = {records, palloc(sizeof(char *) * Max(n, 1)), NULL, n};
	char **ids = palloc(sizeof(char *) * Max(n, 1));

	for (int f = 0; f < n; f++)
	{
		ids[f] = records[f].id;
		found.record_keys[f] = records[f].key ? rest_record_key(records[f].key, case_sensitive) : NULL;
	}
	found.owners = record_owners(mapping, ids, found.record_keys, n);
	return found;
}

/* May a row have this record, which has its own key? */
static bool
may_have(const RecordOwners *owners, const char *row)
{
	ListCell *lc;

	foreach(lc, owners->waiting)
		if (strcmp(lfirst(lc), row) == 0)
			return true;
	return owners->waiting == NIL;
}

/* For one row: looks by each of its keys. */
static Met
meet_row(const Found *found, char *const *record_keys, int nkeys)
{
	Met met = {.found = -1};

	for (int k = 1; k <= nkeys && met.found < 0; k++)
	{
		met.key = k % nkeys;
		for (int f = 0; f < found->n; f++)
		{
			const RecordOwners *owners = &found->owners[f];

			if (!found->record_keys[f] || strcmp(found->record_keys[f], record_keys[met.key]) != 0 ||
				(owners->row && strcmp(owners->row, record_keys[0]) != 0) ||
				(!owners->row && met.key == 0 && !may_have(owners, record_keys[0])))
				continue;
			met.ambiguous = met.found >= 0;
			met.found = f;
		}
	}
	return met;
}

Met *
meet_records(const Request *request, const RestFound *records, int nrecords, bool all, bool case_sensitive)
{
	int nunits = request->nunits;
	Found found = find_owners(request->mapping, records, nrecords, case_sensitive);
	Met *met = palloc(sizeof(Met) * Max(nunits, 1));
	char **record_keys = palloc(sizeof(char *) * Max(nunits, 1));
	char **keys = palloc(sizeof(char *) * Max(nunits, 1));
	char **ids = palloc(sizeof(char *) * Max(nunits, 1));
	char **at_keys = palloc(sizeof(char *) * Max(nunits, 1));
	char **nowhere = palloc(sizeof(char *) * Max(nunits, 1));
	int nnowhere = 0;
	int first = 0;
	int n = 0;

	for (int i = 0; i < nunits; i++)
	{
		const Unit *unit = request->outcomes[i].unit;
		int nkeys = Min(1 + unit->nold, request->nkeys - first);
		char **asked = request->record_keys + first;

		met[i] = (Met){.found = -1};
		if (nkeys > 0)
			met[i] = meet_row(&found, asked, nkeys);
		if (met[i].found >= 0 && !met[i].ambiguous)
		{
			found.owners[met[i].found].row = asked[0];
			record_keys[n] = asked[0];
			keys[n] = unit->key;
			at_keys[n] = asked[met[i].key];
			ids[n++] = records[met[i].found].id;
		}
		else if (all && nkeys > unit->nold && met[i].found < 0)
			nowhere[nnowhere++] = asked[0];
		first += nkeys;
	}
	record_meet(request->mapping, record_keys, keys, ids, at_keys, n);
	records_nowhere(request->mapping, nowhere, nnowhere);
	return met;
}
