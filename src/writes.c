/*
 * writes.c
 *		Requests that write what was decided, and lookups of Ids that they need.
 */
#include "compat.h"

#include "claim.h"
#include "datum.h"
#include "records.h"

static const char *
request_name(UnitKind kind)
{
	switch (kind)
	{
		case UNIT_CREATE:
			return "create";
		case UNIT_UPSERT:
			return "upsert";
		case UNIT_DELETE:
			return "delete";
		default:
			return "update";
	}
}

/* Field names belong to the mapping, which may be read again while the request is under way. */
static void
own_names(RestRecord *record)
{
	for (int i = 0; i < record->nfields; i++)
		record->fields[i].name = pstrdup(record->fields[i].name);
}

static char **
distinct_fields(const Request *request, int *n)
{
	char **names;
	int max = 0;

	for (int i = 0; i < request->nunits; i++)
		max = Max(max, request->records[i].nfields);
	names = palloc(sizeof(char *) * Max(max * 4, 1));
	*n = 0;
	for (int i = 0; i < request->nunits; i++)
		for (int f = 0; f < request->records[i].nfields; f++)
		{
			bool known = false;

			for (int k = 0; k < *n && !known; k++)
				known = strcmp(names[k], request->records[i].fields[f].name) == 0;
			if (!known && *n < max * 4)
				names[(*n)++] = unconstify(char *, request->records[i].fields[f].name);
		}
	return names;
}

/* Also the rows whose records give up their keys; and the key counts as a field where it is set. */
static void
note_intent(Request *request)
{
	const char *operation = request_name(request->parts[0].kind);
	char **keys = palloc(sizeof(char *) * request->nunits * 2);
	int nkeys = 0;
	int nfields = 0;
	char **fields = distinct_fields(request, &nfields);
	bool sets_key = false;

	for (int i = 0; i < request->nunits; i++)
	{
		keys[nkeys++] = request->outcomes[i].unit->key;
		if (request->outcomes[i].holder_row)
			keys[nkeys++] = unconstify(char *, request->outcomes[i].holder_row);
		sets_key |= request->outcomes[i].sets_key;
	}
	if (sets_key)
	{
		fields = repalloc(fields, sizeof(char *) * (nfields + 1));
		fields[nfields++] = unconstify(char *, request->target.key_field);
	}
	for (int p = 0; p < request->nparts; p++)
		if (request->parts[p].kind == UNIT_DELETE)
			operation = request_name(UNIT_DELETE);
	request->intent = intent_add(request->mapping, operation, keys, nkeys, fields, nfields);
}

/* Keys that records may have once this is sent. */
static void
note_keys(const Request *request)
{
	char **record_keys = palloc(sizeof(char *) * request->nunits);
	char **ids = palloc(sizeof(char *) * request->nunits);
	char **keys = palloc(sizeof(char *) * request->nunits);
	int n = 0;

	for (int i = 0; i < request->nunits; i++)
	{
		const Outcome *outcome = &request->outcomes[i];

		if (!outcome->holder_key && !outcome->sets_key)
			continue;
		record_keys[n] = unconstify(char *, outcome->holder_key   ? outcome->holder_key
											: outcome->stored_key ? outcome->stored_key
																  : outcome->record_key);
		ids[n] = unconstify(char *, outcome->holder_key    ? outcome->holder_id
									: outcome->expected_id ? outcome->expected_id
														   : outcome->salesforce_id);
		keys[n++] = outcome->holder_key ? pstrdup("") : unconstify(char *, outcome->record_key);
	}
	records_may_have(request->mapping, record_keys, ids, keys, n);
}

static RestCall *
part_call(const Claim *claim, const Request *request, const RequestPart *part)
{
	const char *version = claim->connection->options->api_version;
	const RestRecord *records = request->records + part->first;
	const char **ids;

	switch (part->kind)
	{
		case UNIT_CREATE:
			return rest_create(version, &request->target, records, part->n);
		case UNIT_UPSERT:
			return rest_upsert(version, &request->target, records, part->n);
		case UNIT_UPDATE:
		case UNIT_FREE_KEY:
			return rest_update(version, &request->target, records, part->n);
		default:
			ids = palloc(sizeof(char *) * part->n);
			for (int i = 0; i < part->n; i++)
				ids[i] = request->outcomes[part->first + i].salesforce_id;
			return rest_delete(version, ids, part->n);
	}
}

/* Parts of a composite request don't inherit these. */
static const char *const *
part_headers(const Claim *claim)
{
	static const char *const none[] = {NULL};
	static const char *const no_assignment[] = {HEADER_NO_ASSIGNMENT, NULL};
	static const char *const allow_save[] = {HEADER_ALLOW_SAVE, NULL};
	static const char *const both[] = {HEADER_NO_ASSIGNMENT, HEADER_ALLOW_SAVE, NULL};
	const ServerOptions *options = claim->connection->options;

	if (options->duplicate_allow_save)
		return options->auto_assign ? allow_save : both;
	return options->auto_assign ? none : no_assignment;
}

static void
build_call(Claim *claim, Request *request)
{
	const char *version = claim->connection->options->api_version;
	RestCall *calls[REST_PACK_LIMIT];

	if (request->kind == REQUEST_GUARDED_UPDATE)
	{
		request->call = rest_update_if(version, part_headers(claim), &request->target, request->records,
									   request->unmodified_since, request->nunits);
		return;
	}
	for (int p = 0; p < request->nparts; p++)
		calls[p] = part_call(claim, request, &request->parts[p]);
	request->call = rest_pack(version, part_headers(claim), calls, request->nparts);
}

/* What the request does to external IDs of records that are known. */
static void
note_key(const Candidate *candidate, UnitKind kind, Outcome *outcome)
{
	const RecordRow *own = candidate_record(candidate);

	if (kind == UNIT_FREE_KEY)
	{
		memset(&outcome->conflicts, 0, sizeof(ConflictNotes));
		outcome->memory = NULL;
		outcome->nwrote = 0;
		outcome->set_replaced = false;
		outcome->holder_key = pstrdup(candidate->holder->record_key);
		outcome->holder_id = pstrdup(candidate->holder->salesforce_id);
		outcome->holder_row = pstrdup(candidate->holder->key);
		return;
	}
	outcome->sets_key = kind != UNIT_DELETE && (candidate->sets_key || candidate->expected);
	if (own && own->shares_key)
		outcome->stored_key = pstrdup(own->record_key);
}

static void
add_unit(Request *request, const Candidate *candidate, UnitKind kind)
{
	Outcome *outcome = &request->outcomes[request->nunits];
	RestRecord *record = &request->records[request->nunits];

	*outcome = candidate->noted;
	outcome->unit = candidate->unit;
	outcome->operation = candidate->operation;
	outcome->record_key = candidate->record_key;
	outcome->salesforce_id = candidate->salesforce_id ? pstrdup(candidate->salesforce_id) : NULL;
	outcome->row_remains = candidate->row && candidate->row->found && !candidate->unit->replaced;
	outcome->expected_id = candidate->expected ? pstrdup(candidate->expected->salesforce_id) : NULL;
	note_key(candidate, kind, outcome);
	circle_outcome(candidate, outcome);
	*record = candidate->payload;
	if (kind == UNIT_UPDATE || kind == UNIT_GUARDED_UPDATE)
	{
		record->salesforce_id = outcome->salesforce_id;
		if (!outcome->row_remains && !outcome->sets_key)
			record->external_id = NULL;
	}
	if (kind == UNIT_FREE_KEY)
		record->salesforce_id = outcome->holder_id;
	own_names(record);
	request->unmodified_since[request->nunits++] = candidate->unmodified_since;
}

/* Up to max units of a kind as the next part; those taken get the kind UNIT_UNDECIDED in kinds, and started. */
static void
add_part(Claim *claim, Request *request, UnitKind kind, int max, UnitKind *kinds)
{
	RequestPart *part = &request->parts[request->nparts];

	part->kind = kind;
	part->first = request->nunits;
	for (int i = 0; i < claim->n && request->nunits - part->first < max; i++)
	{
		if (kinds[i] != kind)
			continue;
		add_unit(request, &claim->candidates[i], kind);
		batch_start(claim->candidates[i].unit);
		kinds[i] = UNIT_UNDECIDED;
	}
	part->n = request->nunits - part->first;
	request->nparts += part->n > 0;
}

static Request *
start_write(Claim *claim, RequestKind kind)
{
	Request *request = delivery_request(kind, claim->connection, claim->mapping);

	request->outcomes = palloc0(sizeof(Outcome) * claim->n);
	request->records = palloc0(sizeof(RestRecord) * claim->n);
	request->unmodified_since = palloc0(sizeof(int64) * claim->n);
	return request;
}

/* Deletes and updates before what is made anew: they free keys. */
static const UnitKind packed_kinds[] = {UNIT_FREE_KEY, UNIT_DELETE, UNIT_UPDATE, UNIT_CREATE, UNIT_UPSERT};

bool
writes_prepare(Claim *claim, UnitKind *kinds)
{
	Request *request;
	bool guarded = claim_count(kinds, claim->n, UNIT_GUARDED_UPDATE) > 0;

	request = start_write(claim, guarded ? REQUEST_GUARDED_UPDATE : REQUEST_WRITE);
	if (guarded)
		add_part(claim, request, UNIT_GUARDED_UPDATE, REST_COMPOSITE_LIMIT, kinds);
	for (int k = 0; !guarded && k < lengthof(packed_kinds); k++)
		while (request->nparts < REST_PACK_LIMIT && claim_count(kinds, claim->n, packed_kinds[k]) > 0)
			add_part(claim, request, packed_kinds[k], REST_COLLECTION_LIMIT, kinds);
	if (request->nunits == 0)
		return false;
	build_call(claim, request);
	note_keys(request);
	note_intent(request);
	delivery_send_later(claim->delivery, request);
	return true;
}

void
writes_prepare_lookup(Claim *claim, const UnitKind *kinds)
{
	Request *request = delivery_request(REQUEST_LOOKUP, claim->connection, claim->mapping);
	int max = 0;
	const char **asked;

	for (int i = 0; i < claim->n; i++)
		max += kinds[i] == UNIT_LOOKUP ? 1 + claim->candidates[i].unit->nold : 0;
	request->outcomes = palloc0(sizeof(Outcome) * claim->n);
	request->keys = palloc(sizeof(char *) * max);
	request->record_keys = palloc(sizeof(char *) * max);
	request->case_sensitive = claim->mapping->key_field->case_sensitive;
	asked = palloc(sizeof(char *) * max);
	for (int i = 0; i < claim->n; i++)
	{
		Unit *unit = claim->candidates[i].unit;

		if (kinds[i] != UNIT_LOOKUP)
			continue;
		batch_start(unit);
		request->outcomes[request->nunits].unit = unit;
		request->outcomes[request->nunits++].record_key = claim->candidates[i].record_key;
		for (int k = -1; k < unit->nold; k++)
		{
			const char *key = k < 0 ? unit->key : unit->old_keys[k];

			request->keys[request->nkeys] = pstrdup(key);
			request->record_keys[request->nkeys] = mapping_record_key(claim->mapping, key);
			asked[request->nkeys++] = datum_key_utf8(key);
		}
	}
	request->call =
		rest_lookup(claim->connection->options->api_version, &request->target, asked, request->nkeys);
	delivery_send_later(claim->delivery, request);
}
