/*
 * claim.c
 *		Decides what changed rows mean for Salesforce, and prepares requests.
 *
 * Rows are read here, as they are now: what is sent is never older than the
 * events it settles.  What needs no request (nothing mapped changed, a value
 * can't be coerced, ...) is decided at once.
 */
#include "compat.h"

#include <time.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "bulk_job.h"
#include "claim.h"
#include "datum.h"
#include "delete_policy.h"
#include "drift.h"
#include "judge.h"
#include "keymap.h"
#include "payload.h"
#include "sfsync.h"

/* Turns that a child waits for a parent that is at hand. */
#define MAX_WAITS 100

static bool
case_sensitive(const Mapping *mapping)
{
	return mapping->key_field->case_sensitive;
}

static const char in_flight[] = "in flight"; /* what such a key is of, in claim->keys */

static void
add_written(Claim *claim, List *requests)
{
	ListCell *lc;

	foreach(lc, requests)
	{
		const Request *request = lfirst(lc);

		if (request->nunits == 0 || strcmp(request->object, claim->mapping->object) != 0)
			continue;
		for (int i = 0; i < request->nunits; i++)
		{
			(void) keymap_add(claim->keys, request->outcomes[i].record_key, in_flight);
			if (request->outcomes[i].holder_key)
				(void) keymap_add(claim->keys, request->outcomes[i].holder_key, in_flight);
		}
	}
}

bool
claim_record_in_flight(const Claim *claim, const char *record_key)
{
	return keymap_find(claim->keys, record_key) == in_flight ||
		   bulk_jobs_write(claim->delivery, claim->mapping->object, record_key);
}

bool
claim_reads_first(const Claim *claim, const Unit *unit)
{
	return claim->mapping->checks || (unit->deleted && delete_policy_sets_values(claim->mapping->on_delete));
}

/* Is reading what the unit needs next? */
static bool
is_unread(const Claim *claim, const Unit *unit)
{
	return claim_reads_first(claim, unit) && !unit->read;
}

/* What has been read is good no more: it is read again. */
static void
drop_stale_reads(const Claim *claim, Unit **units, int n)
{
	for (int i = 0; i < n; i++)
		if (units[i]->read && !read_is_fresh(claim, units[i]))
			batch_forget_read(units[i]);
}

/*
 * Take units whose record is free; of two that share a record the first.  Where
 * records are read first, all that are taken have been read, or none has.
 */
static void
gather(Claim *claim, Unit **units, int n)
{
	claim->candidates = palloc0(sizeof(Candidate) * Max(n, 1));
	claim->keys = keymap_create(CurrentMemoryContext, n, NULL);
	add_written(claim, claim->delivery->requests);
	add_written(claim, claim->delivery->outgoing);
	drop_stale_reads(claim, units, n);
	for (int i = 0; i < n; i++)
	{
		Candidate *candidate = &claim->candidates[claim->n];
		char *record_key;

		if (is_unread(claim, units[i]) != is_unread(claim, units[0]))
			continue;
		record_key = rest_record_key(datum_key_utf8(units[i]->key), case_sensitive(claim->mapping));
		if (bulk_jobs_write(claim->delivery, claim->mapping->object, record_key) ||
			!keymap_add(claim->keys, record_key, candidate))
			continue;
		candidate->unit = units[i];
		candidate->record_key = record_key;
		claim->n++;
	}
}

static char *
record_key_of(const Claim *claim, const char *key)
{
	return rest_record_key(datum_key_utf8(key), case_sensitive(claim->mapping));
}

/*
 * Rows whose record may be known under a key that they had before: of a dump,
 * or a server that was adopted, whose key changes are in the table of deferred
 * changes.
 */
static void
move_record(Claim *claim, const Candidate *candidate)
{
	const Unit *unit = candidate->unit;

	if (record_has_moved(claim->mapping->id, candidate->record_key))
		return;
	for (int o = 0; o < unit->nold; o++)
	{
		RecordMove move = {claim->mapping->id, unit->old_keys[o], unit->key};
		char *from = record_key_of(claim, move.from);
		int n;

		(void) records_of_keys(claim->mapping->id, &from, 1, &n);
		move.from_record_key = from;
		move.to_record_key = candidate->record_key;
		move.case_sensitive = case_sensitive(claim->mapping);
		move.overlaps = true;
		if (record_move(&move) || n > 0)
			break;
	}
}

/* The record isn't known: it is looked for where it may be, or made. */
static void
expect(const Claim *claim, Candidate *candidate, const RecordRow *record)
{
	MemoryContext caller = MemoryContextSwitchTo(claim->delivery->context);

	candidate->expected = record;
	for (int i = 0; i < record->nat; i++)
		if (record->at_keys[i][0] != '\0' && strcmp(record->at_keys[i], candidate->record_key) != 0)
			batch_look_under(candidate->unit, record->at_keys[i]);
	MemoryContextSwitchTo(caller);
}

/* A record that is stored under the candidate's key, or, where other rows share that, is its own. */
static void
take_record(const Claim *claim, Candidate *candidate, const RecordRow *record, bool at_key)
{
	if (record->expected)
		expect(claim, candidate, record);
	else if (at_key)
		candidate->record = record;
	else
		candidate->old_record = record;
}

static void
read_records(Claim *claim)
{
	char **record_keys = palloc(sizeof(char *) * Max(claim->n, 1));
	char **keys = palloc(sizeof(char *) * Max(claim->n, 1));

	for (int i = 0; i < claim->n; i++)
	{
		record_keys[i] = claim->candidates[i].record_key;
		keys[i] = claim->candidates[i].unit->key;
	}
	claim->records = records_at_keys(claim->mapping->id, record_keys, keys, claim->n, &claim->nrecords);
	for (int r = 0; r < claim->nrecords; r++)
	{
		const RecordRow *record = &claim->records[r];
		const void *found = keymap_find(claim->keys, record->record_key);
		const Candidate *at_key = found != in_flight ? found : NULL;

		if (at_key)
			take_record(claim, &claim->candidates[at_key - claim->candidates], record, true);
		for (int i = 0; record->shares_key && i < claim->n; i++)
			if (&claim->candidates[i] != at_key && strcmp(record->key, keys[i]) == 0)
				take_record(claim, &claim->candidates[i], record, false);
	}
}

static void
read_rows(Claim *claim)
{
	char **keys = palloc(sizeof(char *) * Max(claim->n, 1));
	SourceRow *rows;

	for (int i = 0; i < claim->n; i++)
		keys[i] = claim->candidates[i].unit->key;
	rows = source_read(claim->mapping, keys, claim->n);
	for (int i = 0; i < claim->n; i++)
		claim->candidates[i].row = &rows[i];
}

/* Requests of ours that Salesforce may have carried out, or not. */
static void
read_intents(Claim *claim)
{
	char **keys = palloc(sizeof(char *) * Max(claim->n, 1));

	if (claim->delivery->next_verify == 0)
		return;
	for (int i = 0; i < claim->n; i++)
		keys[i] = claim->candidates[i].unit->key;
	claim->intents = intents_of_keys(claim->mapping->id, keys, claim->n, &claim->nintents);
}

static void
read_parents_of(Claim *claim, int f)
{
	const MappingField *field = &claim->mapping->fields[f];
	const Mapping *parent = mapping_get(field->lookup->parent_mapping);
	char **record_keys = palloc0(sizeof(char *) * Max(claim->n, 1));
	char **asked = palloc(sizeof(char *) * Max(claim->n, 1));
	keymap_hash *ids;
	RecordRow *records;
	int nrecords;
	int n = 0;

	if (!parent || !parent->key_field)
		return;
	for (int i = 0; i < claim->n; i++)
	{
		const SourceRow *row = claim->candidates[i].row;
		char *key = row->found ? payload_parent_key(field, row) : NULL;

		if (key)
			asked[n++] = record_keys[i] = rest_record_key(key, case_sensitive(parent));
	}
	records = records_of_keys(parent->id, asked, n, &nrecords);
	ids = keymap_create(CurrentMemoryContext, nrecords, NULL);
	for (int r = 0; r < nrecords; r++)
		(void) keymap_add(ids, records[r].record_key, records[r].salesforce_id);
	for (int i = 0; i < claim->n; i++)
		if (record_keys[i])
			claim->candidates[i].parent_ids[f] = keymap_find(ids, record_keys[i]);
	keymap_destroy(ids);
}

/* Ids of the records that lookups refer to: in that form Salesforce tells them. */
static void
read_parents(Claim *claim)
{
	bool any = false;

	for (int f = 0; f < claim->mapping->nfields; f++)
		any |= claim->mapping->fields[f].lookup != NULL;
	if (!any || !claim->mapping->checks)
		return;
	for (int i = 0; i < claim->n; i++)
		claim->candidates[i].parent_ids = palloc0(sizeof(char *) * claim->mapping->nfields);
	for (int f = 0; f < claim->mapping->nfields; f++)
		if (claim->mapping->fields[f].lookup)
			read_parents_of(claim, f);
}

static void
read_ids(Claim *claim)
{
	for (int i = 0; i < claim->n; i++)
		if (claim->candidates[i].unit->nold > 0 && !claim->candidates[i].unit->expected)
			move_record(claim, &claim->candidates[i]);
	read_records(claim);
}

static void
read_all(Claim *claim)
{
	read_rows(claim);
	read_ids(claim);
	claim->fields = judge_fields(claim->mapping, &claim->nfields);
	read_intents(claim);
	read_parents(claim);
}

/*
 * Requests
 */

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

Request *
claim_request(Claim *claim, RequestKind kind)
{
	Request *request = palloc0(sizeof(Request));

	request->context = claim->context;
	request->kind = kind;
	request->connection = claim->connection;
	request->mapping = claim->mapping->id;
	request->object = pstrdup(claim->mapping->object);
	request->external_id = pstrdup(claim->mapping->external_id);
	request->server = pstrdup(claim->mapping->server);
	request->key_is_number = claim->mapping->key_field && payload_key_is_number(claim->mapping);
	return request;
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
		fields[nfields++] = unconstify(char *, request->external_id);
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
			return rest_create(version, request->object, request->external_id, request->key_is_number,
							   records, part->n);
		case UNIT_UPSERT:
			return rest_upsert(version, request->object, request->external_id, request->key_is_number,
							   records, part->n);
		case UNIT_UPDATE:
		case UNIT_FREE_KEY:
			return rest_update(version, request->object, request->external_id, request->key_is_number,
							   records, part->n);
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
		request->call = rest_update_if(version, part_headers(claim), request->object, request->external_id,
									   request->key_is_number, request->records, request->unmodified_since,
									   request->nunits);
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
	Request *request = claim_request(claim, kind);

	request->outcomes = palloc0(sizeof(Outcome) * claim->n);
	request->records = palloc0(sizeof(RestRecord) * claim->n);
	request->unmodified_since = palloc0(sizeof(int64) * claim->n);
	return request;
}

/* Deletes and updates before what is made anew: they free keys. */
static const UnitKind packed_kinds[] = {UNIT_FREE_KEY, UNIT_DELETE, UNIT_UPDATE, UNIT_CREATE, UNIT_UPSERT};

static int
count_kind(const UnitKind *kinds, int n, UnitKind kind)
{
	int count = 0;

	for (int i = 0; i < n; i++)
		count += kinds[i] == kind;
	return count;
}

/*
 * One request with as many collections as fit; guarded updates, which are
 * single parts, go by themselves.  What finds no room stays ready.
 */
static bool
prepare_writes(Claim *claim, UnitKind *kinds)
{
	Request *request;
	bool guarded = count_kind(kinds, claim->n, UNIT_GUARDED_UPDATE) > 0;

	request = start_write(claim, guarded ? REQUEST_GUARDED_UPDATE : REQUEST_WRITE);
	if (guarded)
		add_part(claim, request, UNIT_GUARDED_UPDATE, REST_COMPOSITE_LIMIT, kinds);
	for (int k = 0; !guarded && k < lengthof(packed_kinds); k++)
		while (request->nparts < REST_PACK_LIMIT && count_kind(kinds, claim->n, packed_kinds[k]) > 0)
			add_part(claim, request, packed_kinds[k], REST_COLLECTION_LIMIT, kinds);
	if (request->nunits == 0)
		return false;
	build_call(claim, request);
	note_keys(request);
	note_intent(request);
	delivery_send_later(claim->delivery, request);
	return true;
}

static void
prepare_lookup(Claim *claim, const UnitKind *kinds)
{
	Request *request = claim_request(claim, REQUEST_LOOKUP);
	int max = 0;
	const char **asked;

	for (int i = 0; i < claim->n; i++)
		max += kinds[i] == UNIT_LOOKUP ? 1 + claim->candidates[i].unit->nold : 0;
	request->outcomes = palloc0(sizeof(Outcome) * claim->n);
	request->keys = palloc(sizeof(char *) * max);
	request->record_keys = palloc(sizeof(char *) * max);
	request->case_sensitive = case_sensitive(claim->mapping);
	asked = palloc(sizeof(char *) * max);
	for (int i = 0; i < claim->n; i++)
	{
		Unit *unit = claim->candidates[i].unit;

		if (kinds[i] != UNIT_LOOKUP)
			continue;
		batch_start(unit);
		request->outcomes[request->nunits].unit = unit;
		request->outcomes[request->nunits++].record_key = claim->candidates[i].record_key;
		for (int k = -1; k < unit->nold && request->nkeys < 2000; k++)
		{
			const char *key = k < 0 ? unit->key : unit->old_keys[k];

			request->keys[request->nkeys] = pstrdup(key);
			request->record_keys[request->nkeys] =
				rest_record_key(datum_key_utf8(key), case_sensitive(claim->mapping));
			asked[request->nkeys++] = datum_key_utf8(key);
		}
	}
	request->call = rest_lookup(claim->connection->options->api_version, request->object,
								request->external_id, request->key_is_number, asked, request->nkeys);
	delivery_send_later(claim->delivery, request);
}

/*
 * What may be asked at all
 */

static void
prepare_login(Claim *claim)
{
	Connection *connection = claim->connection;
	Request *request = claim_request(claim, REQUEST_LOGIN);
	Credentials *credentials = credentials_load(connection->serverid, connection->owner);
	char *error = NULL;

	request->login = auth_call(connection->options, credentials, (int64) time(NULL), &error);
	credentials_wipe(credentials);
	if (!request->login)
	{
		connection_block(connection, error, GetCurrentTimestamp());
		return;
	}
	connection->login_in_flight = true;
	delivery_send_later(claim->delivery, request);
}

static void
prepare_limits(Claim *claim)
{
	Request *request = claim_request(claim, REQUEST_LIMITS);

	request->call = rest_limits(claim->connection->options->api_version);
	claim->connection->limits_in_flight = true;
	delivery_send_later(claim->delivery, request);
}

/* Usage is asked for before anything is sent; later, to see whether the server is well. */
static bool
limits_ready(Claim *claim)
{
	Connection *connection = claim->connection;

	if (connection->limits_in_flight)
		return connection->limits_known;
	if (connection->limits_known && !poison_wants_control(&connection->poison))
		return true;
	prepare_limits(claim);
	return false;
}

static void
prepare_describe(Claim *claim)
{
	Request *request = claim_request(claim, REQUEST_DESCRIBE);

	if (claim->mapping->meta && claim->mapping->last_modified && !claim->state->describe_wanted)
		request->if_modified_since = psprintf("If-Modified-Since: %s", claim->mapping->last_modified);
	request->call = rest_describe(claim->connection->options->api_version, request->object);
	claim->state->describe_in_flight = true;
	delivery_send_later(claim->delivery, request);
}

/*
 * Credentials that can't be read block the connection, not the mapping: a
 * changed option or user mapping lifts it.
 */
static void
try_login(Claim *claim)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		MemoryContextSwitchTo(caller);
		prepare_login(claim);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		connection_block(claim->connection,
						 error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message,
						 GetCurrentTimestamp());
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
}

static bool
stale(const Mapping *mapping)
{
	return mapping->metadata_at + (int64) sfsync_schema_ttl * 1000 < GetCurrentTimestamp();
}

/* Is there a token and are there metadata?  Else have them fetched. */
static bool
ready(Claim *claim)
{
	MappingDelivery *state = claim->state;
	Mapping *mapping = claim->mapping;

	if (!claim->connection->token)
	{
		if (!claim->connection->login_in_flight)
			try_login(claim);
		return false;
	}
	if (!limits_ready(claim))
		return false;
	if (!mapping->has_metadata || mapping->refresh_wanted || state->describe_wanted || state->describe_due ||
		stale(mapping))
	{
		if (!state->describe_in_flight)
		{
			prepare_describe(claim);
			return false;
		}
		if (!mapping->has_metadata || state->describe_wanted)
			return false;
	}
	if (mapping->broken)
		delivery_block(claim->delivery, state, mapping->broken, GetCurrentTimestamp());
	return !mapping->broken;
}

static void
discard_units(Delivery *delivery, MappingQueue *queue)
{
	while (batch_first(queue))
		(void) delivery_decide(delivery, batch_first(queue), OUTCOME_DISCARDED);
}

/* Memory that reading has changed is stored before anything is sent. */
static void
store_memories(Claim *claim)
{
	char **record_keys = palloc(sizeof(char *) * Max(claim->n, 1));
	char **keys = palloc(sizeof(char *) * Max(claim->n, 1));
	char **ids = palloc(sizeof(char *) * Max(claim->n, 1));
	Memory **memories = palloc(sizeof(Memory *) * Max(claim->n, 1));
	int n = 0;

	for (int i = 0; i < claim->n; i++)
	{
		const Candidate *candidate = &claim->candidates[i];
		const RecordRow *record = candidate_record(candidate);

		if (!candidate->memory_changed || !record)
			continue;
		record_keys[n] = record->record_key;
		keys[n] = record->key;
		ids[n] = record->salesforce_id;
		memories[n++] = candidate->noted.memory;
	}
	record_put(claim->mapping->id, record_keys, keys, ids, memories, n);
}

/* Units whose record is to be read: their rows matter only where it may not be needed, since the row is gone. */
static bool
rows_matter(const Claim *claim)
{
	if (claim->mapping->filter)
		return true; /* those out of it cost no call */
	for (int i = 0; i < claim->n; i++)
	{
		const Unit *unit = claim->candidates[i].unit;

		if (unit->deleted || unit->key_left || unit->missing_since != 0)
			return true;
	}
	return false;
}

static bool
send_reads(Claim *claim, UnitKind *kinds)
{
	if (count_kind(kinds, claim->n, UNIT_READ) == 0)
		return false;
	reads_prepare(claim, kinds);
	for (int i = 0; i < claim->n; i++)
		if (kinds[i] == UNIT_READ)
			batch_start(claim->candidates[i].unit);
	return true;
}

static bool
send_writes(Claim *claim, UnitKind *kinds)
{
	bool taken;
	bool sent;

	family_keep_together(claim, kinds);
	taken = bulk_take(claim, kinds);
	sent = prepare_writes(claim, kinds) || taken;

	if (!sent && count_kind(kinds, claim->n, UNIT_LOOKUP) > 0)
	{
		prepare_lookup(claim, kinds);
		return true;
	}
	for (int i = 0; i < claim->n; i++)
		if (kinds[i] == UNIT_LOOKUP)
			claim->candidates[i].unit->kind = UNIT_LOOKUP;
	return sent;
}

/* What changed of columns whose field is in quarantine is settled without them, and sent later. */
static void
keep_quarantined(const Claim *claim)
{
	const Unit **units;
	int n = 0;

	if (!drift_in_quarantine(claim->mapping))
		return;
	units = palloc(sizeof(Unit *) * Max(claim->n, 1));
	for (int i = 0; i < claim->n; i++)
		if (claim->candidates[i].unit->changed && !claim->candidates[i].unit->deleted)
			units[n++] = claim->candidates[i].unit;
	drift_note(claim->mapping, units, n);
}

/*
 * Keys that other records have: those of which a row goes on by itself, in this
 * round, are waited for; the others are given up first.  One record is asked for
 * one key at a time.
 */
static void
order_keys(Claim *claim, UnitKind *kinds)
{
	int *holders = palloc(sizeof(int) * claim->n);
	KeyStep *steps = palloc(sizeof(KeyStep) * claim->n);

	if (count_kind(kinds, claim->n, UNIT_FREE_KEY) == 0)
		return;
	for (int i = 0; i < claim->n; i++)
	{
		const RecordRow *holder = claim->candidates[i].holder;

		holders[i] = kinds[i] == UNIT_FREE_KEY  ? KEY_HELD_ELSEWHERE
					 : kinds[i] == UNIT_WAITING ? KEY_HELD_ELSEWHERE
												: KEY_IS_FREE;
		for (int j = 0; kinds[i] == UNIT_FREE_KEY && j < claim->n; j++)
			if (candidate_record(&claim->candidates[j]) == holder && kinds[j] != UNIT_UNDECIDED)
				holders[i] = j;
	}
	batch_key_steps(holders, claim->n, steps);
	for (int i = 0; i < claim->n; i++)
	{
		bool asked = false;

		if (kinds[i] != UNIT_FREE_KEY)
			continue;
		for (int j = 0; j < i; j++)
			asked |= kinds[j] == UNIT_FREE_KEY && claim->candidates[j].holder == claim->candidates[i].holder;
		if (steps[i] == KEY_WAIT || asked)
			kinds[i] = UNIT_WAITING;
	}
}

/*
 * One round: decide for a batch, and prepare one request.  What it doesn't
 * take stays ready.
 */
static bool
claim_batch(Claim *claim, MappingQueue *queue)
{
	int most = Max(connection_batch(claim->connection), REST_RETRIEVE_LIMIT);
	Unit **units = palloc(sizeof(Unit *) * most);
	UnitKind *kinds;
	bool reading;
	bool progress = false;
	int n = batch_pick(claim->delivery->work, queue, most, units);

	if (n == 0)
		return false;
	reading = is_unread(claim, units[0]);
	gather(claim, units,
		   Min(n, reading ? connection_read(claim->connection) : connection_batch(claim->connection)));
	if (claim->n == 0)
		return false;
	kinds = palloc(sizeof(UnitKind) * claim->n);
	if (!reading || rows_matter(claim))
		read_all(claim);
	else
		read_ids(claim);
	keep_quarantined(claim);
	circle_find(claim);
	for (int i = 0; i < claim->n; i++)
	{
		Candidate *candidate = &claim->candidates[i];

		kinds[i] = candidate->row ? decide(claim, candidate) : decide_unread(claim, candidate);
		if (kinds[i] == UNIT_WAITING)
			batch_postpone(candidate->unit);
		progress |= kinds[i] == UNIT_UNDECIDED;
	}
	order_keys(claim, kinds);
	store_memories(claim);
	if (send_reads(claim, kinds))
		return true;
	return send_writes(claim, kinds) || progress;
}

bool
claim_may_send(const Delivery *delivery, Connection *connection, int nready, TimestampTz oldest_at,
			   TimestampTz *again)
{
	int waiting = 0;
	ListCell *lc;

	foreach(lc, delivery->outgoing)
		if (((Request *) lfirst(lc))->connection == connection)
			waiting++;
	return connection_may_send(connection, connection->in_flight + waiting, nready, oldest_at, again);
}

static bool
may_send(Claim *claim, MappingQueue *queue)
{
	const Unit *first = batch_first(queue);

	return claim_may_send(claim->delivery, claim->connection, queue->nready,
						  first ? first->first_event_at : 0, &claim->state->held_until);
}

/*
 * The context becomes the request's.  Without a request it goes with the turn,
 * within which everything decided here is settled.
 */
static bool
claim_once(Delivery *delivery, MappingDelivery *state, const Mapping *mapping, MappingQueue *queue)
{
	Claim claim = {.delivery = delivery, .state = state};
	MemoryContext caller = CurrentMemoryContext;
	int outgoing = list_length(delivery->outgoing);
	bool progress = false;

	claim.context = AllocSetContextCreate(delivery->turn_context, "sfsync request", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(claim.context);
	if (delivery_lock_source(delivery, state, mapping))
		claim.mapping = mapping_get(state->id);
	if (!claim.mapping) /* locked by others, or dropped by them just now */
	{
		MemoryContextSwitchTo(caller);
		return false;
	}
	claim.connection = connection_get(claim.mapping->serverid, claim.mapping->owner);
	if (may_send(&claim, queue) && ready(&claim))
	{
		if (state->users_wanted)
		{
			reads_prepare_users(&claim);
			progress = true;
		}
		else
			progress = claim_batch(&claim, queue);
	}
	if (claim.keys)
		keymap_destroy(claim.keys);
	MemoryContextSwitchTo(caller);
	if (list_length(delivery->outgoing) > outgoing)
		MemoryContextSetParent(claim.context, delivery->context);
	return progress;
}

void
claim(Delivery *delivery, MappingDelivery *state, void *arg)
{
	ClaimRound *round = arg;
	const Mapping *mapping = mapping_get(state->id);

	round->progress = false;
	if (mapping)
		round->progress = claim_once(delivery, state, mapping, round->queue);
	else
		discard_units(delivery, round->queue);
}
