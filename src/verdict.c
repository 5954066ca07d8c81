/*
 * verdict.c
 *		What Salesforce's results mean for single records.
 */
#include "compat.h"

#include "delivery.h"
#include "errors.h"
#include "mapping.h"
#include "payload.h"
#include "reply.h"
#include "sfsync.h"
#include "throttle.h"
#include "trouble.h"

/*
 * Results of single records
 */

void
reply_set_dead(const Request *request, int i, const RestError *error, const HttpReply *reply)
{
	Outcome *outcome = &request->outcomes[i];

	outcome->kind = OUTCOME_DEAD;
	outcome->error = *error;
	if (!outcome->error.code)
		outcome->error.code = pstrdup("UNKNOWN");
	outcome->http_status = reply->status;
	outcome->request_id = reply->request_id ? pstrdup(reply->request_id) : NULL;
	outcome->payload = rest_payload(&request->target, &request->records[i]);
}

static TimestampTz
after_attempts(int attempts, double random)
{
	return GetCurrentTimestamp() + backoff_delay(MILLISECONDS(sfsync_retry_base_delay),
												 MILLISECONDS(sfsync_retry_max_delay), attempts, random);
}

/* The longer it has waited, the longer: for what is tried again without an end to attempts. */
static TimestampTz
after_age(const Unit *unit, double random)
{
	TimestampTz now = GetCurrentTimestamp();
	int64 age = unit->first_event_at != 0 ? now - unit->first_event_at : 0;

	return now + (int64) (random * Max(Min(age, MILLISECONDS(sfsync_retry_max_delay)), 0));
}

/* Records of one reply that failed as often are tried again together. */
void
reply_set_later(const Request *request, int i, const RestError *error, bool count_attempt)
{
	Outcome *outcome = &request->outcomes[i];

	outcome->kind = OUTCOME_DEFERRED;
	outcome->count_attempt = count_attempt;
	outcome->reason = rest_error_text(error);
	outcome->due_at = after_attempts(outcome->unit->attempts, request->jitter);
}

void
reply_set_retry(const Request *request, int i, const RestError *error, const HttpReply *reply)
{
	if (request->outcomes[i].unit->attempts + 1 >= sfsync_max_attempts)
		reply_set_dead(request, i, error, reply);
	else
		reply_set_later(request, i, error, true);
}

/*
 * The parent is not there: wait for it, however long.  Which one it is tells the
 * message alone (reference, section 8); it is one that the record names.
 */
static void
set_orphan(const Request *request, int i, const RestError *error)
{
	static const char prefix[] = "Foreign key external ID: ";
	Outcome *outcome = &request->outcomes[i];
	const RestRecord *record = &request->records[i];
	const char *key = strstr(error->message, prefix);
	const char *end = key ? strstr(key, " not found for field ") : NULL;
	int attempts = Min(outcome->unit->attempts + 1, sfsync_max_attempts - 2);

	outcome->kind = OUTCOME_DEFERRED;
	outcome->count_attempt = attempts > outcome->unit->attempts;
	outcome->reason = rest_error_text(error);
	outcome->due_at =
		Max(after_attempts(Max(attempts, 1), request->jitter), after_age(outcome->unit, request->jitter));
	key = end ? pnstrdup(key + strlen(prefix), end - key - strlen(prefix)) : NULL;
	for (int f = 0; f < record->nfields; f++)
	{
		const FieldValue *value = &record->fields[f].value;

		if (value->kind != FV_LOOKUP || (key && strcmp(value->text, key) != 0))
			continue;
		outcome->parent_mapping = value->lookup->parent_mapping;
		outcome->parent_key = value->text;
	}
}

/*
 * A field or the object is not as the metadata say: have them fetched, and try
 * once more.  Refused again, with new metadata, it is the record's own fault.
 */
static void
set_refused(Delivery *delivery, const Request *request, int i, const RestError *error, const HttpReply *reply)
{
	Unit *unit = request->outcomes[i].unit;

	if (unit->refused_once)
	{
		reply_set_dead(request, i, error, reply);
		return;
	}
	unit->refused_once = true;
	delivery_of(delivery, request->mapping)->describe_wanted = true;
	request->outcomes[i].kind = OUTCOME_AGAIN;
}

/*
 * Coercion keeps values from errors like these, by metadata: they are old, then.
 * Seldom enough, for the error may have other reasons.
 */
static bool
metadata_suspected(Delivery *delivery, const Request *request, const RestError *error)
{
	static const char *const codes[] = {"INVALID_TYPE_ON_FIELD_IN_RECORD", "INVALID_FIELD", "STRING_TOO_LONG",
										"NUMBER_OUTSIDE_VALID_RANGE",
										"INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"};
	MappingDelivery *state = delivery_of(delivery, request->mapping);
	TimestampTz now = GetCurrentTimestamp();
	bool suspicious = false;

	for (int i = 0; i < lengthof(codes) && error->code; i++)
		suspicious |= strcmp(error->code, codes[i]) == 0;
	if (!suspicious || (!state->describe_wanted &&
						!TimestampDifferenceExceeds(state->suspected_at, now, 10 * sfsync_retry_base_delay)))
		return false;
	state->suspected_at = now;
	return true;
}

static OutcomeKind
deleted_kind(const Outcome *outcome)
{
	return outcome->row_remains ? OUTCOME_CREATE_AGAIN : OUTCOME_DELETED;
}

/*
 * No such record any more.  If it is there when it is read again, what is not
 * there is another that it refers to.
 */
static void
set_gone(const Request *request, UnitKind kind, int i, const RestError *error, const HttpReply *reply)
{
	Outcome *outcome = &request->outcomes[i];
	Unit *unit = outcome->unit;

	if (kind == UNIT_DELETE)
		outcome->kind = deleted_kind(outcome);
	else if (kind == UNIT_FREE_KEY)
	{
		outcome->kind = OUTCOME_AGAIN;
		outcome->key_freed = true;
	}
	else if (outcome->memory && kind != UNIT_CREATE && !unit->gone_once)
	{
		unit->gone_once = true;
		outcome->kind = OUTCOME_AGAIN;
	}
	else if (!outcome->memory && kind == UNIT_UPDATE &&
			 (!unit->whole || strcmp(outcome->operation, "key_change") == 0))
		outcome->kind = OUTCOME_CREATE_AGAIN;
	else
		reply_set_dead(request, i, error, reply);
}

/* New records wait, as long as the server would if it were blocked; others don't. */
static void
set_no_room(Delivery *delivery, const Request *request, int i, const RestError *error)
{
	Outcome *outcome = &request->outcomes[i];
	MappingDelivery *state = delivery_of(delivery, request->mapping);
	int64 pause = MILLISECONDS(sfsync_retry_max_delay) / 2;

	outcome->kind = OUTCOME_DEFERRED;
	outcome->reason = rest_error_text(error);
	outcome->due_at = GetCurrentTimestamp() + pause + (int64) (request->jitter * pause);
	if (!state->counters.last_error)
		state->counters.last_error = MemoryContextStrdup(delivery->context, outcome->reason);
	state->dirty = true;
}

/* Somebody made the record after it was looked for: it is read again, once. */
static bool
came_before_us(const Request *request, UnitKind kind, int i, const RestError *error)
{
	Unit *unit = request->outcomes[i].unit;

	if (kind != UNIT_CREATE || unit->refused_once || !error->code ||
		strcmp(error->code, "DUPLICATE_VALUE") != 0 ||
		strstr(error->message, request->target.key_field) == NULL)
		return false;
	unit->refused_once = true;
	return true;
}

/* New metadata made no difference. */
static bool
refused_before(const Unit *unit)
{
	return unit->refused_once || unit->attempts > 0;
}

static ErrorScope
scope_of(const RestResult *result)
{
	const RestError *error = &result->error;

	return error_classify(error->code ? 200 : result->http_status, error->code, error->message);
}

/* What else happened in the part that a record was in. */
typedef struct Company
{
	bool succeeded; /* one went well */
	bool failed;    /* one failed for a reason of its own */
} Company;

static Company
company_of(const RestResult *results, int n)
{
	Company company = {false, false};

	for (int i = 0; i < n; i++)
	{
		company.succeeded |= results[i].success;
		company.failed |= !results[i].success && scope_of(&results[i]) != SCOPE_RECORD_COLLATERAL;
	}
	return company;
}

/* Other records refer to it, and may be among those that were deleted with it. */
static bool
has_children(Delivery *delivery, const Request *request, const RestError *error)
{
	return delivery_of(delivery, request->mapping)->has_family && error->code &&
		   (strcmp(error->code, "DELETE_FAILED") == 0 || strcmp(error->code, "DEPENDENCY_EXISTS") == 0);
}

static void
set_failed(Delivery *delivery, const Request *request, UnitKind kind, int i, const RestResult *result,
		   const Company *company, const HttpReply *reply)
{
	Outcome *outcome = &request->outcomes[i];
	const RestError *error = &result->error;

	if (came_before_us(request, kind, i, error))
	{
		outcome->kind = OUTCOME_AGAIN;
		return;
	}
	switch (scope_of(result))
	{
		case SCOPE_RECORD_GONE:
			set_gone(request, kind, i, error, reply);
			break;
		case SCOPE_RECORD_COLLATERAL:
			if (company->failed)
				outcome->kind = OUTCOME_AGAIN;
			else
				reply_set_retry(request, i, error, reply);
			break;
		case SCOPE_RECORD_RETRY:
			if (error_is_contention(error->code))
				throttle_contention(&request->connection->throttle, request->nunits);
			reply_set_retry(request, i, error, reply);
			break;
		case SCOPE_RECORD_NO_ROOM:
			set_no_room(delivery, request, i, error);
			break;
		case SCOPE_RECORD_PARENT:
			set_orphan(request, i, error);
			break;
		case SCOPE_SERVER:
		case SCOPE_CONCURRENT_LIMIT:
		case SCOPE_UNKNOWN_LIMIT:
		case SCOPE_DAILY_LIMIT:
		case SCOPE_SESSION:
			outcome->kind = OUTCOME_AGAIN; /* judge_server has made the server wait */
			break;
		case SCOPE_MAPPING:
			/* if it is not the mapping's fault, either (poison_blames_mapping) */
			if (refused_before(outcome->unit))
				reply_set_retry(request, i, error, reply);
			else
				set_refused(delivery, request, i, error, reply);
			break;
		case SCOPE_CONNECTION:
			connection_note_failed_write(request->connection);
			trouble_of_connection(request->connection, result->http_status, error->code,
								  rest_error_text(error), GetCurrentTimestamp());
			outcome->kind = OUTCOME_AGAIN;
			break;
		default:
			if (kind == UNIT_DELETE && company->succeeded && has_children(delivery, request, error))
				outcome->kind = OUTCOME_AGAIN; /* each time there are fewer */
			else if (metadata_suspected(delivery, request, error))
				set_refused(delivery, request, i, error, reply);
			else
				reply_set_dead(request, i, error, reply);
	}
}

/* When Salesforce answered, by its clock. */
static TimestampTz
answered_at(const Request *request, const HttpReply *reply)
{
	TimestampTz at = connection_clock(reply);

	return at != 0 ? at : GetCurrentTimestamp() + request->connection->clock_skew;
}

/*
 * Is the mapping to blame?  Records count that are refused with the newest
 * metadata.  One that is tried again and again proves nothing once others were
 * accepted since its change.
 */
static bool
blames_mapping(MappingDelivery *state, const Request *request, const RequestPart *part,
			   const RestResult *results)
{
	int records = part->n;
	int refused = 0;

	for (int i = 0; i < part->n; i++)
	{
		const Unit *unit = request->outcomes[part->first + i].unit;

		if (results[i].success || scope_of(&results[i]) != SCOPE_MAPPING)
			continue;
		if (!refused_before(unit) ||
			(unit->attempts > 0 && state->accepted_at != 0 && state->accepted_at >= unit->event_at))
			records--;
		else
			refused++;
	}
	return poison_blames_mapping(&state->refusals, refused, records);
}

/*
 * Is the server well, whatever it says of single records?  During maintenance,
 * say, it refuses each of them for a reason of its own: then it has to wait, and
 * they keep their attempts.
 */
void
reply_judge_server(Delivery *delivery, Request *request, const RestResult *ailing, ErrorScope scope,
				   const HttpReply *reply)
{
	Connection *connection = request->connection;

	if (ailing)
	{
		connection_note_failed_write(connection);
		trouble_of_server(connection, scope, rest_error_text(&ailing->error), reply->retry_after,
						  GetCurrentTimestamp());
		return;
	}
	poison_passed(&connection->poison, request->mark, true);
	connection_well(connection, reply->elapsed, request->nunits,
					batch_size(delivery->work) > request->nunits);
}

const RestResult *
reply_find_ailing(const RestResult *results, int n, ErrorScope *scope)
{
	for (int i = 0; i < n; i++)
		if (trouble_is_server(&results[i], scope))
			return &results[i];
	return NULL;
}

void
reply_judge_results(Delivery *delivery, Request *request, const RequestPart *part, const RestResult *results,
					const HttpReply *reply)
{
	MappingDelivery *state = delivery_of(delivery, request->mapping);
	Company company = company_of(results, part->n);

	if (company.succeeded)
		state->accepted_at = GetCurrentTimestamp();
	if (blames_mapping(state, request, part, results))
	{
		reply_set_again(request, part);
		reply_block_refused(delivery, request, part, rest_error_text(&results[0].error),
							GetCurrentTimestamp());
		return;
	}
	for (int i = 0; i < part->n; i++)
	{
		Outcome *outcome = &request->outcomes[part->first + i];

		poison_forget(&request->connection->poison, request->mapping, outcome->unit->key);
		if (!results[i].success)
		{
			set_failed(delivery, request, part->kind, part->first + i, &results[i], &company, reply);
			continue;
		}
		if (part->kind == UNIT_FREE_KEY)
		{
			outcome->kind = OUTCOME_AGAIN;
			outcome->key_freed = true;
			outcome->written_at = answered_at(request, reply);
			continue;
		}
		outcome->kind = part->kind == UNIT_DELETE ? deleted_kind(outcome) : OUTCOME_SYNCED;
		outcome->written_at = answered_at(request, reply);
		if (results[i].id)
			outcome->salesforce_id = results[i].id;
	}
}

void
reply_set_results(Delivery *delivery, Request *request, const RequestPart *part, const RestResult *results,
				  const HttpReply *reply)
{
	ErrorScope scope;
	const RestResult *ailing = reply_find_ailing(results, part->n, &scope);

	if (ailing)
	{
		connection_note_failed_write(request->connection);
		trouble_of_server(request->connection, scope, rest_error_text(&ailing->error), reply->retry_after,
						  GetCurrentTimestamp());
	}
	reply_judge_results(delivery, request, part, results, reply);
}
