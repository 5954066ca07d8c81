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

#include "delivery.h"
#include "mapping.h"
#include "records.h"
#include "reply.h"
#include "rest.h"

/* What was found, and of whom it may be. */
typedef struct Found
{
	char **record_keys;
	RecordOwners *owners;
	int n;
} Found;

static Found
find_owners(const Request *request, const RestRead *reads, int n)
{
	Found found = {palloc(sizeof(char *) * Max(n, 1)), NULL, n};
	char **ids = palloc(sizeof(char *) * Max(n, 1));

	for (int r = 0; r < n; r++)
	{
		ids[r] = reads[r].id;
		found.record_keys[r] = reads[r].key ? rest_record_key(reads[r].key, request->case_sensitive) : NULL;
	}
	found.owners = record_owners(request->mapping, ids, found.record_keys, n);
	return found;
}

/* May it be the row's, which has its key now, if nobody is known to have it? */
static bool
may_have(const RecordOwners *owners, const char *row)
{
	ListCell *lc;

	foreach(lc, owners->waiting)
		if (strcmp(lfirst(lc), row) == 0)
			return true;
	return owners->waiting == NIL;
}

/* The row's record under one of its keys; -1 if there is none.  *count: how many there may be. */
static int
find_key(const Found *found, const char *row, const char *record_key, int *count)
{
	int first = -1;

	*count = 0;
	for (int r = 0; r < found->n; r++)
	{
		const RecordOwners *owners = &found->owners[r];

		if (!found->record_keys[r] || strcmp(found->record_keys[r], record_key) != 0)
			continue;
		if (owners->row ? strcmp(owners->row, row) != 0
						: strcmp(record_key, row) == 0 && !may_have(owners, row))
			continue;
		if ((*count)++ == 0)
			first = r;
	}
	return first;
}

/*
 * By all keys of a row: its own, and behind it those that it had before.  Where
 * several have an old key, nobody knows which of them is the row's: none.
 */
static void
meet_row(const Found *found, char *const *record_keys, int nkeys, Met *met)
{
	for (int k = 1; k <= nkeys; k++)
	{
		int count;

		met->key = k % nkeys;
		met->read = find_key(found, record_keys[0], record_keys[met->key], &count);
		met->ambiguous = count > 1;
		if (count == 1 || (count > 1 && met->key == 0))
			return;
	}
	met->read = -1;
	met->ambiguous = false;
}

Met *
meet_records(const Request *request, const RestRead *reads, int nreads, bool all)
{
	int nunits = request->nunits;
	Found found = find_owners(request, reads, nreads);
	Met *met = palloc0(sizeof(Met) * Max(nunits, 1));
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

		/* one unit may have more keys than fit */
		met[i].all = nkeys == 1 + unit->nold || first == 0;
		meet_row(&found, asked, nkeys, &met[i]);
		first += nkeys;
		if (!met[i].all || met[i].ambiguous)
			continue;
		if (met[i].read >= 0)
		{
			found.owners[met[i].read].row = asked[0];
			record_keys[n] = asked[0];
			keys[n] = unit->key;
			at_keys[n] = asked[met[i].key];
			ids[n++] = reads[met[i].read].id;
		}
		else if (all)
			nowhere[nnowhere++] = asked[0];
	}
	if (mapping_get(request->mapping)) /* it may have been dropped meanwhile */
	{
		record_meet(request->mapping, record_keys, keys, ids, at_keys, n);
		records_nowhere(request->mapping, nowhere, nnowhere);
	}
	return met;
}
