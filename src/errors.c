/*
 * errors.c
 *		Salesforce's error codes into what to do about them.  Pure.
 *
 * Codes decide, as messages come in the language of the API user; the few
 * codes that only the text tells apart are the exceptions that the reference,
 * section 12, lists.
 */
#include "compat.h"

#include "errors.h"

/*
 * What a code means when it is said of one record, and when it is said of a
 * whole request.
 */
typedef struct CodeScope
{
	const char *code;
	ErrorScope record;
	ErrorScope request;
} CodeScope;

static const CodeScope code_scopes[] = {
	/* section 12.1: passes by itself */
	{"UNABLE_TO_LOCK_ROW", SCOPE_RECORD_RETRY, SCOPE_SERVER},
	{"SERVER_UNAVAILABLE", SCOPE_SERVER, SCOPE_SERVER},
	{"UNKNOWN_EXCEPTION", SCOPE_RECORD_RETRY, SCOPE_SERVER},
	{"QUERY_TIMEOUT", SCOPE_SERVER, SCOPE_SERVER},
	{"REQUEST_RUNNING_TOO_LONG", SCOPE_SERVER, SCOPE_SERVER},
	{"TOO_MANY_APEX_REQUESTS", SCOPE_RECORD_RETRY, SCOPE_SERVER},
	{"TXN_SECURITY_METERING_ERROR", SCOPE_RECORD_RETRY, SCOPE_SERVER},
	{"INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", SCOPE_SERVER, SCOPE_SERVER},
	{"INVALID_READ_ONLY_USER_DML", SCOPE_SERVER, SCOPE_SERVER},
	{"SSO_SERVICE_DOWN", SCOPE_SERVER, SCOPE_SERVER},
	{"INTERNAL_ERROR", SCOPE_RECORD_RETRY, SCOPE_SERVER},
	{"PLATFORM_EVENT_PUBLISHING_UNAVAILABLE", SCOPE_RECORD_RETRY, SCOPE_SERVER},
	{"CONFLICT", SCOPE_RECORD_RETRY, SCOPE_SERVER},
	{"PROCESSING_HALTED", SCOPE_RECORD_COLLATERAL, SCOPE_RECORD_COLLATERAL},
	{"ALL_OR_NONE_OPERATION_ROLLED_BACK", SCOPE_RECORD_COLLATERAL, SCOPE_RECORD_COLLATERAL},
	{"BATCH_PROCESSING_HALTED", SCOPE_RECORD_COLLATERAL, SCOPE_RECORD_COLLATERAL},
	{"INVALID_QUERY_LOCATOR", SCOPE_SERVER, SCOPE_SERVER},

	/* locked for approval, governor limits: may pass, attempts are counted */
	{"ENTITY_IS_LOCKED", SCOPE_RECORD_RETRY, SCOPE_RECORD_RETRY},
	{"ALREADY_IN_PROCESS", SCOPE_RECORD_RETRY, SCOPE_RECORD_RETRY},
	{"LIMIT_EXCEEDED", SCOPE_RECORD_RETRY, SCOPE_SERVER},
	{"FILTERED_LOOKUP_LIMIT_EXCEEDED", SCOPE_RECORD_RETRY, SCOPE_SERVER},

	/*
	 * No such record.  INVALID_CROSS_REFERENCE_KEY can also mean a lookup that
	 * the record holds: the caller tells by what it had sent.
	 */
	{"ENTITY_IS_DELETED", SCOPE_RECORD_GONE, SCOPE_RECORD_GONE},
	{"INVALID_CROSS_REFERENCE_KEY", SCOPE_RECORD_GONE, SCOPE_RECORD_GONE},
	{"NOT_FOUND", SCOPE_RECORD_GONE, SCOPE_MAPPING},

	/* every record of the mapping fails alike */
	{"INVALID_FIELD", SCOPE_MAPPING, SCOPE_MAPPING},
	{"INVALID_FIELD_FOR_INSERT_UPDATE", SCOPE_MAPPING, SCOPE_MAPPING},
	{"INVALID_TYPE", SCOPE_MAPPING, SCOPE_MAPPING},
	{"INSUFFICIENT_ACCESS_OR_READONLY", SCOPE_RECORD_PERMANENT, SCOPE_MAPPING},

	/* the request can't be read or is too large: cut it */
	{"JSON_PARSER_ERROR", SCOPE_RECORD_PERMANENT, SCOPE_REQUEST},
	{"MALFORMED_QUERY", SCOPE_REQUEST, SCOPE_REQUEST},
	{"INVALID_QUERY_FILTER_OPERATOR", SCOPE_REQUEST, SCOPE_REQUEST},
	{"QUERY_TOO_COMPLICATED", SCOPE_REQUEST, SCOPE_REQUEST},
	{"OPERATION_TOO_LARGE", SCOPE_REQUEST, SCOPE_REQUEST},
	{"EXCEEDED_ID_LIMIT", SCOPE_REQUEST, SCOPE_REQUEST},
	{"EXCEEDED_MAX_SIZE_REQUEST", SCOPE_REQUEST, SCOPE_REQUEST},

	/* section 12.3 */
	{"INVALID_SESSION_ID", SCOPE_SESSION, SCOPE_SESSION},
	{"INVALID_AUTH_HEADER", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"API_DISABLED_FOR_ORG", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"PI_DISABLED_FOR_ORG", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"INSUFFICIENT_ACCESS", SCOPE_RECORD_PERMANENT, SCOPE_CONNECTION},
	{"CLIENT_NOT_ACCESSIBLE_FOR_USER", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"LOGIN_DURING_RESTRICTED_DOMAIN", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"LOGIN_DURING_RESTRICTED_TIME", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"PASSWORD_LOCKOUT", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"INVALID_OPERATION_WITH_EXPIRED_PASSWORD", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"ORG_LOCKED", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"TRIAL_EXPIRED", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"STORAGE_LIMIT_EXCEEDED", SCOPE_RECORD_NO_ROOM, SCOPE_CONNECTION},
	{"EXCEEDED_QUOTA", SCOPE_RECORD_NO_ROOM, SCOPE_CONNECTION},
	{"UNSUPPORTED_API_VERSION", SCOPE_CONNECTION, SCOPE_CONNECTION},
};

static bool
mentions(const char *message, const char *words)
{
	size_t len = strlen(words);

	for (; message != NULL && *message != '\0'; message++)
	{
		if (pg_strncasecmp(message, words, len) == 0)
			return true;
	}
	return false;
}

/* Apex and flows wrap the cause in a text of their own (section 12.2). */
static bool
wraps_transient_cause(const char *message)
{
	return mentions(message, "UNABLE_TO_LOCK_ROW") || mentions(message, "CPU time limit") ||
		   mentions(message, "LimitException") || mentions(message, "Too many SOQL") ||
		   mentions(message, "Too many DML");
}

static ErrorScope
classify_invalid_field(const char *message)
{
	/* section 8: the parent is not there yet */
	if (mentions(message, "Foreign key external ID") && mentions(message, "not found"))
		return SCOPE_RECORD_PARENT;
	/* section 5.1: a value of this record can't be parsed */
	if (mentions(message, "Json Deserialization failed") || mentions(message, "more than one record found"))
		return SCOPE_RECORD_PERMANENT;
	return SCOPE_MAPPING;
}

/* Of requests (section 2.6). */
static ErrorScope
classify_limit(const char *message)
{
	if (mentions(message, "Concurrent"))
		return SCOPE_CONCURRENT_LIMIT;
	if (mentions(message, "TotalRequests") || mentions(message, "daily") || mentions(message, "24 hour") ||
		mentions(message, "24-hour"))
		return SCOPE_DAILY_LIMIT;
	return SCOPE_UNKNOWN_LIMIT;
}

/* The codes that only the text tells apart.  False for all others. */
static bool
classify_by_text(const char *code, const char *message, ErrorScope *scope)
{
	if (strcmp(code, "REQUEST_LIMIT_EXCEEDED") == 0)
		*scope = classify_limit(message);
	else if (strcmp(code, "API_CURRENTLY_DISABLED") == 0)
		*scope = mentions(message, "User") ? SCOPE_CONNECTION : SCOPE_SERVER;
	else if (strcmp(code, "INVALID_FIELD") == 0)
		*scope = classify_invalid_field(message);
	else if (strcmp(code, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY") == 0 ||
			 strcmp(code, "CANNOT_EXECUTE_FLOW_TRIGGER") == 0)
	{
		*scope = mentions(message, "entity type cannot be") ? SCOPE_MAPPING : SCOPE_RECORD_PERMANENT;
		if (wraps_transient_cause(message))
			*scope = SCOPE_RECORD_RETRY;
	}
	else
		return false;
	return true;
}

static const CodeScope *
find_code(const char *code)
{
	for (size_t i = 0; i < lengthof(code_scopes); i++)
	{
		if (strcmp(code_scopes[i].code, code) == 0)
			return &code_scopes[i];
	}
	return NULL;
}

/* A request that failed as a whole, and its code says nothing. */
static ErrorScope
classify_status(int http_status)
{
	switch (http_status)
	{
		case 300: /* several records have the value (section 4.3) */
			return SCOPE_RECORD_PERMANENT;
		case 401:
			return SCOPE_SESSION;
		case 403:
		case 410: /* this version of the API is retired */
			return SCOPE_CONNECTION;
		case 404:
		case 405:
			return SCOPE_MAPPING;
		case 408:
		case 409:
		case 420:
			return SCOPE_SERVER;
		case 429: /* too many requests */
			return SCOPE_CONCURRENT_LIMIT;
		case 412: /* the record moved on: read and decide again */
			return SCOPE_RECORD_RETRY;
		default:
			break;
	}
	/* no status at all: the network failed; 3xx are not followed */
	return http_status >= 400 && http_status < 500 ? SCOPE_REQUEST : SCOPE_SERVER;
}

static ErrorScope
classify_request(int http_status, const char *code, const char *message)
{
	const CodeScope *known = find_code(code);
	bool outage = http_status < 300 || http_status >= 500 || http_status == 420;
	ErrorScope scope;

	if (!classify_by_text(code, message, &scope))
		scope = known != NULL ? known->request : classify_status(http_status);

	/*
	 * Whatever an ailing server says, no record and no mapping is to blame for
	 * it; limits and an end of the session still are what they are.
	 */
	if (outage && scope < SCOPE_SERVER)
		return SCOPE_SERVER;
	if (http_status == 429 && scope != SCOPE_DAILY_LIMIT && scope != SCOPE_SESSION)
		return SCOPE_CONCURRENT_LIMIT;
	return scope;
}

static ErrorScope
classify_record(const char *code, const char *message)
{
	const CodeScope *known;
	ErrorScope scope;

	/* no reason given: a few attempts, then a dead letter */
	if (code == NULL)
		return SCOPE_RECORD_RETRY;
	if (classify_by_text(code, message, &scope))
		return scope;
	known = find_code(code);
	return known != NULL ? known->record : SCOPE_RECORD_PERMANENT;
}

ErrorScope
error_classify(int http_status, const char *code, const char *message)
{
	if (http_status == 200)
		return classify_record(code, message);
	if (code == NULL)
		return classify_status(http_status);
	return classify_request(http_status, code, message);
}

ErrorScope
error_classify_oauth(int http_status, const char *error, const char *description)
{
	if (http_status == 429)
		return SCOPE_CONCURRENT_LIMIT;
	if (http_status < 400 || http_status >= 500 || http_status == 408 || http_status == 420)
		return SCOPE_SERVER;
	if (error == NULL)
		return SCOPE_CONNECTION;
	if (strcmp(error, "server_error") == 0 || strcmp(error, "unknown_error") == 0 ||
		strcmp(error, "temporarily_unavailable") == 0 || mentions(error, "rate_limit"))
		return SCOPE_SERVER;
	/* logins are rate-limited too (section 1.2) */
	if (mentions(description, "rate exceeded") || mentions(description, "rate_limit") ||
		mentions(description, "retry your request"))
		return SCOPE_SERVER;
	return SCOPE_CONNECTION;
}

bool
error_is_version(int http_status, const char *code)
{
	return http_status == 410 || (code != NULL && strcmp(code, "UNSUPPORTED_API_VERSION") == 0);
}

bool
error_is_contention(const char *code)
{
	static const char *const codes[] = {
		"UNABLE_TO_LOCK_ROW", "LIMIT_EXCEEDED", "FILTERED_LOOKUP_LIMIT_EXCEEDED", "TOO_MANY_APEX_REQUESTS",
		"EXCEEDED_MAX_SIZE_REQUEST",
		/* of triggers and flows: if they pass, as a lock or the CPU limit do */
		"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "CANNOT_EXECUTE_FLOW_TRIGGER"};

	for (size_t i = 0; code != NULL && i < lengthof(codes); i++)
		if (strcmp(codes[i], code) == 0)
			return true;
	return false;
}
