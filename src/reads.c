/*
 * reads.c
 *		Has records looked for, and read before they are written: what Salesforce
 *		holds, what became of records that are gone, when fields were changed,
 *		and by whom.
 *
 * What is read is kept with the unit, in a memory context of its own, and is
 * good for a moment only.
 */
#include "compat.h"

#include "utils/memutils.h"

#include "claim.h"
#include "datum.h"
#include "judge.h"
#include "payload.h"
#include "reply.h"

/* A read that is older is repeated: the record may be another by now. */
#define FRESH_MS 5000

/* As the turn began: however slow the turns are, what was read just before one is used in it. */
bool
read_is_fresh(const Claim *claim, const Unit *unit)
{
	return unit->read && unit->read->serial == claim->mapping->serial &&
		   !TimestampDifferenceExceeds(unit->read->read_at, claim->delivery->turn_started, FRESH_MS);
}

/*
 * Requests
 */

static RequestKind
kind_of_read(const Claim *claim, const Candidate *candidate)
{
	const Unit *unit = candidate->unit;

	if (!read_is_fresh(claim, unit))
		return candidate_record(candidate) ? REQUEST_RETRIEVE : REQUEST_FIND;
	return unit->read->record.found ? REQUEST_HISTORY : REQUEST_GONE;
}

static int
most_of(RequestKind kind)
{
	return kind == REQUEST_HISTORY ? REST_COLLECTION_LIMIT : REST_RETRIEVE_LIMIT;
}

static void
add_keys(Request *request, const Claim *claim, const Unit *unit)
{
	for (int k = -1; k < unit->nold; k++)
	{
		const char *key = k < 0 ? unit->key : unit->old_keys[k];

		request->keys[request->nkeys] = pstrdup(key);
		request->record_keys[request->nkeys++] = mapping_record_key(claim->mapping, key);
	}
}

static void
add_candidate(Request *request, const Claim *claim, const Candidate *candidate)
{
	Outcome *outcome = &request->outcomes[request->nunits++];
	const RecordRow *record = candidate_record(candidate);

	outcome->unit = candidate->unit;
	outcome->record_key = candidate->record_key;
	outcome->salesforce_id = record ? pstrdup(record->salesforce_id) : NULL;
	if (request->kind == REQUEST_FIND)
		add_keys(request, claim, candidate->unit);
}

static const char *const *
ids_of(const Request *request)
{
	const char **ids = palloc(sizeof(char *) * Max(request->nunits, 1));

	for (int i = 0; i < request->nunits; i++)
		ids[i] = request->outcomes[i].salesforce_id;
	return ids;
}

static bool
has_master_record(const Mapping *mapping)
{
	for (int i = 0; i < mapping->meta->nfields; i++)
		if (strcmp(mapping->meta->fields[i].name, "MasterRecordId") == 0)
			return true;
	return false;
}

/* Units beyond what fits are let go of. */
static void
keep_first(Request *request, int taken)
{
	int nkeys = 0;

	if (request->kind != REQUEST_FIND)
	{
		request->nunits = Min(request->nunits, taken);
		return;
	}
	for (int i = 0; i < request->nunits; i++)
	{
		nkeys += 1 + request->outcomes[i].unit->nold;
		if (nkeys > taken)
			request->nunits = i;
	}
	request->nkeys = Min(request->nkeys, taken);
}

static void
build_read(const Claim *claim, Request *request)
{
	const char *version = claim->connection->options->api_version;
	const char *const *fields = (const char *const *) request->fields;
	const char **asked;

	switch (request->kind)
	{
		case REQUEST_RETRIEVE:
			request->call = rest_retrieve(version, request->target.object, ids_of(request), request->nunits,
										  fields, request->nfields);
			break;
		case REQUEST_FIND:
			asked = palloc(sizeof(char *) * request->nkeys);
			for (int i = 0; i < request->nkeys; i++)
				asked[i] = datum_key_utf8(request->keys[i]);
			request->call =
				rest_find(version, &request->target, asked, request->nkeys, fields, request->nfields);
			break;
		case REQUEST_HISTORY:
			request->history_parent = pstrdup(claim->mapping->meta->history_parent);
			request->call =
				rest_history(version, claim->mapping->meta->history_object, request->history_parent,
							 ids_of(request), request->nunits, fields, request->nfields, 0);
			break;
		default:
			request->call =
				rest_find_deleted(version, request->target.object, has_master_record(claim->mapping),
								  ids_of(request), request->nunits);
	}
	keep_first(request, request->call->taken);
}

void
reads_prepare(Claim *claim, UnitKind *kinds)
{
	Request *request = delivery_request(REQUEST_RETRIEVE, claim->connection, claim->mapping);
	int nkeys = 0;
	int n = 0;

	for (int i = 0; i < claim->n; i++)
		nkeys += 1 + claim->candidates[i].unit->nold;
	request->outcomes = palloc0(sizeof(Outcome) * claim->n);
	request->keys = palloc(sizeof(char *) * nkeys);
	request->record_keys = palloc(sizeof(char *) * nkeys);
	request->fields = judge_fields(claim->mapping, &request->nfields);
	request->serial = claim->mapping->serial;
	request->case_sensitive = claim->mapping->key_field->case_sensitive;
	for (int i = 0; i < claim->n; i++)
	{
		RequestKind kind;

		if (kinds[i] != UNIT_READ)
			continue;
		kind = kind_of_read(claim, &claim->candidates[i]);
		if (request->nunits == 0)
			request->kind = kind;
		if (kind == request->kind && request->nunits < most_of(kind))
			add_candidate(request, claim, &claim->candidates[i]);
		else
			kinds[i] = UNIT_WAITING;
	}
	build_read(claim, request);
	for (int i = 0; i < claim->n; i++)
		if (kinds[i] == UNIT_READ && n++ >= request->nunits)
			kinds[i] = UNIT_WAITING;
	delivery_send_later(claim->delivery, request);
}

void
reads_prepare_users(Claim *claim)
{
	Request *request;
	int n;
	char **ids = conflicts_unnamed(claim->mapping->server, &n);

	claim->state->users_wanted = false;
	if (n == 0)
		return;
	request = delivery_request(REQUEST_USERS, claim->connection, claim->mapping);
	request->call = rest_users(claim->connection->options->api_version, (const char *const *) ids, n);
	delivery_send_later(claim->delivery, request);
}

/*
 * Replies
 */

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

static RestRead
copy_read(const RestRead *read, int nfields)
{
	RestRead copy = *read;

	copy.id = copy_text(read->id);
	copy.key = copy_text(read->key);
	copy.last_modified_by = copy_text(read->last_modified_by);
	copy.master_record_id = copy_text(read->master_record_id);
	copy.values = NULL;
	if (!read->values)
		return copy;
	copy.values = palloc(sizeof(FieldValue) * Max(nfields, 1));
	for (int i = 0; i < nfields; i++)
	{
		copy.values[i] = read->values[i];
		copy.values[i].text = copy_text(read->values[i].text);
	}
	return copy;
}

/*
 * When a record was read, by Salesforce's clock, at the earliest: it may have
 * been as soon as the request was sent.
 */
static int64
asked_at(const Request *request, const HttpReply *reply)
{
	TimestampTz answered = connection_clock(reply);

	if (answered != 0)
		return answered - (GetCurrentTimestamp() - request->started);
	return request->started + request->connection->clock_skew - USECS_PER_SEC;
}

static UnitRead *
attach(Delivery *delivery, const Request *request, Unit *unit, const HttpReply *reply, const RestRead *read)
{
	MemoryContext caller = CurrentMemoryContext;
	UnitRead *made;

	batch_forget_read(unit);
	unit->read_context = AllocSetContextCreate(delivery->context, "sfsync read", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(unit->read_context);
	made = palloc0(sizeof(UnitRead));
	made->serial = request->serial;
	made->read_at = GetCurrentTimestamp();
	made->server_at = asked_at(request, reply);
	if (read)
		made->record = copy_read(read, request->nfields);
	MemoryContextSwitchTo(caller);
	unit->read = made;
	return made;
}

static void
settle_retrieve(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	RestRead *reads = palloc0(sizeof(RestRead) * request->nunits);
	char *error = NULL;

	if (!rest_parse_retrieve(reply->body, reply->body_len, ids_of(request), request->nunits,
							 (const char *const *) request->fields, request->nfields, reads, &error))
	{
		reply_failed(delivery, request, psprintf("the reply can't be understood: %s", error), now);
		return;
	}
	for (int i = 0; i < request->nunits; i++)
		attach(delivery, request, request->outcomes[i].unit, reply, &reads[i]);
	reply_go_on(delivery, request);
}

/* A query that failed, or whose reply is none. */
static void
page_failed(Delivery *delivery, Request *request, const RestPage *page, TimestampTz now)
{
	if (page->error)
		reply_failed(delivery, request, psprintf("the reply can't be understood: %s", page->error), now);
	else
		reply_mapping_refused(
			delivery, request,
			psprintf("a query of %s failed: %s", request->target.object, page->failure.message), now);
}

/* Which record is which unit's; what is certain is known from now on. */
static Met *
meet_found(const Request *request, const RestRead *reads, int nreads, bool all)
{
	MemoryContext caller = CurrentMemoryContext;
	Met *met;

	reply_begin(request->mapping);
	MemoryContextSwitchTo(caller);
	met = meet_records(request, reads, nreads, all);
	reply_commit();
	MemoryContextSwitchTo(caller);
	return met;
}

/*
 * A unit whose record has its own key has it read by now.  One that is known
 * by an old key has that record read next, by Id.  Where the answer goes on
 * with another page, those not found yet are asked for again.
 */
static void
attach_found(Delivery *delivery, Request *request, const HttpReply *reply, const RestRead *reads, int nreads,
			 bool all)
{
	Met *met = meet_found(request, reads, nreads, all);

	for (int i = 0; i < request->nunits; i++)
	{
		Unit *unit = request->outcomes[i].unit;
		const Met *its = &met[i];

		if (its->read >= 0 && its->key == 0)
			attach(delivery, request, unit, reply, its->ambiguous ? NULL : &reads[its->read])->ambiguous =
				its->ambiguous;
		else if (all && its->all && its->read < 0)
			attach(delivery, request, unit, reply, NULL);
		unit->looked_up = all && its->all;
	}
}

/* A page that brings nothing, and tells of another, would be asked for ever. */
static bool
is_stuck(Delivery *delivery, Request *request, const RestPage *page, int nreads, TimestampTz now)
{
	if (!page->next || nreads > 0)
		return false;
	reply_failed(delivery, request, "a page of a query is empty, and there is another", now);
	return true;
}

static void
settle_find(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	RestRead *reads;
	int nreads;
	RestPage page = {0};

	if (!rest_parse_find(reply->body, reply->body_len, request->target.key_field,
						 (const char *const *) request->fields, request->nfields, &reads, &nreads, &page))
	{
		page_failed(delivery, request, &page, now);
		return;
	}
	if (is_stuck(delivery, request, &page, nreads, now))
		return;
	attach_found(delivery, request, reply, reads, nreads, page.next == NULL);
	reply_go_on(delivery, request);
}

/*
 * Ids alone, for rows that are written without a look.  Where the answer goes
 * on with another page, those not found yet are asked for again; so are those
 * for whose keys there was no room.
 */
static void
settle_lookup(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	RestRead *reads;
	int nreads;
	RestPage page = {0};
	Met *met;

	request->nkeys = Min(request->nkeys, request->call->taken);
	if (!rest_parse_lookup(reply->body, reply->body_len, request->target.key_field, &reads, &nreads, &page))
	{
		page_failed(delivery, request, &page, now);
		return;
	}
	if (is_stuck(delivery, request, &page, nreads, now))
		return;
	met = meet_found(request, reads, nreads, page.next == NULL);
	for (int i = 0; i < request->nunits; i++)
		request->outcomes[i].unit->looked_up = met[i].all && page.next == NULL;
	reply_go_on(delivery, request);
}

static void
settle_gone(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	RestRead *reads;
	int nreads;
	RestPage page = {0};

	if (!rest_parse_find_deleted(reply->body, reply->body_len, &reads, &nreads, &page))
	{
		page_failed(delivery, request, &page, now);
		return;
	}
	for (int i = 0; i < request->nunits; i++)
	{
		Unit *unit = request->outcomes[i].unit;
		MemoryContext caller;

		if (!unit->read)
			continue;
		caller = MemoryContextSwitchTo(unit->read_context);
		for (int r = 0; r < nreads; r++)
			if (strcmp(reads[r].id, request->outcomes[i].salesforce_id) == 0)
				unit->read->gone = copy_read(&reads[r], 0);
		unit->read->gone_read = unit->read->gone.found || page.next == NULL;
		MemoryContextSwitchTo(caller);
	}
	reply_go_on(delivery, request);
}

static void
settle_history(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	RestChange *changes;
	int nchanges;
	RestPage page = {0};

	/* without it the record's own time decides */
	if (!rest_parse_history(reply->body, reply->body_len, request->history_parent,
							(const char *const *) request->fields, request->nfields, &changes, &nchanges,
							&page))
		nchanges = 0;
	for (int i = 0; i < request->nunits; i++)
	{
		UnitRead *read = request->outcomes[i].unit->read;
		MemoryContext caller;

		if (!read)
			continue;
		caller = MemoryContextSwitchTo(request->outcomes[i].unit->read_context);
		read->history = palloc(sizeof(RestChange) * Max(nchanges, 1));
		for (int c = 0; c < nchanges; c++)
		{
			if (strcmp(changes[c].id, read->record.id) != 0)
				continue;
			read->history[read->nhistory] = changes[c];
			read->history[read->nhistory].id = copy_text(changes[c].id);
			read->history[read->nhistory++].by = copy_text(changes[c].by);
		}
		read->history_read = true;
		MemoryContextSwitchTo(caller);
	}
	reply_go_on(delivery, request);
}

static void
settle_users(Delivery *delivery, Request *request, const HttpReply *reply)
{
	RestUser *users;
	int nusers;
	RestPage page = {0};
	MemoryContext caller;

	if (!rest_parse_users(reply->body, reply->body_len, &users, &nusers, &page))
		return; /* Ids alone have to do */
	reply_begin(0);
	for (int i = 0; i < nusers; i++)
		conflicts_name(request->server, users[i].id, users[i].name);
	reply_commit();
	caller = MemoryContextSwitchTo(delivery->context);
	for (int i = 0; i < nusers; i++)
	{
		RestUser *user = palloc(sizeof(RestUser));

		user->id = pstrdup(users[i].id);
		user->name = pstrdup(users[i].name);
		delivery->users = lappend(delivery->users, user);
	}
	MemoryContextSwitchTo(caller);
}

void
reads_settle(Delivery *delivery, Request *request, const HttpReply *reply, TimestampTz now)
{
	MemoryContext caller = MemoryContextSwitchTo(request->context);

	switch (request->kind)
	{
		case REQUEST_LOOKUP:
			settle_lookup(delivery, request, reply, now);
			break;
		case REQUEST_RETRIEVE:
			settle_retrieve(delivery, request, reply, now);
			break;
		case REQUEST_FIND:
			settle_find(delivery, request, reply, now);
			break;
		case REQUEST_GONE:
			settle_gone(delivery, request, reply, now);
			break;
		case REQUEST_HISTORY:
			settle_history(delivery, request, reply, now);
			break;
		default:
			settle_users(delivery, request, reply);
	}
	MemoryContextSwitchTo(caller);
}
