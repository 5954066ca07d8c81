/*
 * meet.c
 *		Whose are the records that were found by external ID?
 *
 * A row's record is the one under a key that the row had before, else the one
 * under its own.  A record that is known to be another row's is not it: what is
 * read was true when Salesforce read it, and meanwhile a write of ours may have
 * given the record another key.
 */
#include "compat.h"

#include "deliver.h"
#include "reply.h"
#include "rest.h"

/* Record keys of the rows that the records are known to be of. */
static char **
rows_of(int mapping, const RestFound *found, int nfound)
{
	char **ids = palloc(sizeof(char *) * Max(nfound, 1));

	for (int f = 0; f < nfound; f++)
		ids[f] = found[f].id;
	return records_by_id(mapping, ids, nfound);
}

/* For one row: looks among what was found, by each of its keys. */
static Met
meet_row(char *const *record_keys, int nkeys, const RestFound *found, int nfound, char *const *rows,
		 bool case_sensitive)
{
	Met met = {.found = -1};

	for (int k = 1; k <= nkeys && met.found < 0; k++)
	{
		met.key = k % nkeys;
		for (int f = 0; f < nfound; f++)
		{
			if (!found[f].key || (rows[f] && strcmp(rows[f], record_keys[0]) != 0) ||
				strcmp(rest_record_key(found[f].key, case_sensitive), record_keys[met.key]) != 0)
				continue;
			met.ambiguous = met.found >= 0;
			met.found = f;
		}
	}
	return met;
}

Met *
meet_records(const Request *request, const RestFound *found, int nfound, bool case_sensitive)
{
	int nunits = request->nunits;
	Met *met = palloc(sizeof(Met) * Max(nunits, 1));
	char **record_keys = palloc(sizeof(char *) * Max(nunits, 1));
	char **keys = palloc(sizeof(char *) * Max(nunits, 1));
	char **ids = palloc(sizeof(char *) * Max(nunits, 1));
	char **at_keys = palloc(sizeof(char *) * Max(nunits, 1));
	char **rows = rows_of(request->mapping, found, nfound);
	int first = 0;
	int n = 0;

	for (int i = 0; i < nunits; i++)
	{
		const Unit *unit = request->outcomes[i].unit;
		int nkeys = Min(1 + unit->nold, request->nkeys - first);
		char **asked = request->record_keys + first;

		met[i] = (Met){.found = -1};
		if (nkeys > 0)
			met[i] = meet_row(asked, nkeys, found, nfound, rows, case_sensitive);
		if (met[i].found >= 0 && !met[i].ambiguous)
		{
			rows[met[i].found] = asked[0];
			record_keys[n] = asked[0];
			keys[n] = unit->key;
			at_keys[n] = asked[met[i].key];
			ids[n++] = found[met[i].found].id;
		}
		first += nkeys;
	}
	record_meet(request->mapping, record_keys, keys, ids, at_keys, n);
	return met;
}
