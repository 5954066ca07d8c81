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
	{"STORAGE_LIMIT_EXCEEDED", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"EXCEEDED_QUOTA", SCOPE_CONNECTION, SCOPE_CONNECTION},
	{"UNSUPPORTED_API_VERSION", SCOPE_CONNECTION, SCOPE_CONNECTION},
};

typedef struct CodeHint
{
	const char *code;
	const char *hint;
} CodeHint;

static const CodeHint code_hints[] = {
	/* ours */
	{"COERCION_ERROR",
	 "Correct the value in the source row, or change the rule of the column with sfsync.map_field."},
	{"DUPLICATE_KEY",
	 "Two source rows have keys that Salesforce takes for one: blanks around them and upper or lower case don't count. Change one of the keys."},
	{"EXPRESSION_ERROR", "Correct the expression with sfsync.map_field."},
	{"FILTER_ERROR", "Correct the filter with sfsync.alter_mapping."},
	{"REPLY_MISMATCH",
	 "Salesforce's reply did not match the request, so its outcome is unknown. The record is sent again; if this repeats, look for a proxy in between."},

	{"REQUEST_TIMEOUT",
	 "Salesforce did not answer in time whenever this record was sent, but answered others. Look for a trigger or flow that takes too long with it."},
	{"NO_REPLY",
	 "There was no usable reply whenever this record was sent, but there was to others. Look for a trigger or flow that fails with it, or a proxy in between."},

	/* of one record */
	{"UNABLE_TO_LOCK_ROW",
	 "Another process holds the record or its parent in Salesforce. It is tried again; a lower max_concurrent_requests makes this rarer."},
	{"REQUIRED_FIELD_MISSING", "Map a column to the fields named, or give them a default in Salesforce."},
	{"FIELD_CUSTOM_VALIDATION_EXCEPTION",
	 "A validation rule of the object refused the record. Correct the row, or exempt the integration user from the rule."},
	{"FIELD_FILTER_VALIDATION_EXCEPTION",
	 "The lookup filter of a field refused the parent. Correct the row or the filter."},
	{"FIELD_INTEGRITY_EXCEPTION",
	 "Salesforce found values that contradict each other, such as a state of another country. Correct the row."},
	{"STRING_TOO_LONG", "Shorten the value, lengthen the field, or map it with overlong => 'truncate'."},
	{"INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
	 "Add the value to the picklist in Salesforce (and to the record type), or correct the row."},
	{"INVALID_EMAIL_ADDRESS", "Correct the e-mail address in the source row."},
	{"NUMBER_OUTSIDE_VALID_RANGE",
	 "The number has more digits than the field takes. Correct the row or enlarge the field."},
	{"INVALID_TYPE_ON_FIELD_IN_RECORD",
	 "The value does not have the field's type. Correct the row, or map the field with another column or expression."},
	{"JSON_PARSER_ERROR",
	 "Salesforce could not read the request. The dead letter shows the value it stopped at."},
	{"MALFORMED_ID", "A value sent as a Salesforce Id is none, or is the Id of another object."},
	{"INVALID_ID_FIELD", "A value sent as a Salesforce Id is not the Id of a record."},
	{"DUPLICATE_VALUE",
	 "Another record has the same value in a unique field. Correct the row, or merge the records in Salesforce."},
	{"DUPLICATE_EXTERNAL_ID",
	 "Several records have this external ID. Merge them in Salesforce, and mark the field as unique."},
	{"DUPLICATES_DETECTED",
	 "A duplicate rule refused the record. Merge the records, or set the server option duplicate_allow_save."},
	{"INVALID_CROSS_REFERENCE_KEY",
	 "The record, or one that it points at, does not exist in Salesforce (any more)."},
	{"ENTITY_IS_DELETED",
	 "The record was deleted in Salesforce. Restore it from the recycle bin, or let the next change of the row create it again."},
	{"INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY",
	 "The integration user may not use a record that this one points at. Give it access."},
	{"INSUFFICIENT_ACCESS_OR_READONLY",
	 "The integration user may not change this record. Check its profile, sharing rules and record locks."},
	{"INSUFFICIENT_ACCESS",
	 "The integration user lacks a permission. Check its profile and permission sets."},
	{"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
	 "An Apex trigger of the object failed, or the integration user may not create such records."},
	{"CANNOT_EXECUTE_FLOW_TRIGGER", "A flow of the object failed. Ask who maintains it in Salesforce."},
	{"ENTITY_IS_LOCKED", "The record is locked, as during an approval. It is tried again."},
	{"ALREADY_IN_PROCESS", "The record is in an approval process. It is tried again."},
	{"DELETE_FAILED",
	 "Other records depend on this one. Delete those first, or use on_delete 'archive' or 'deactivate'."},
	{"DEPENDENCY_EXISTS",
	 "Other records depend on this one. Delete those first, or use on_delete 'archive' or 'deactivate'."},
	{"INACTIVE_OWNER_OR_USER", "The owner is an inactive user. Map another owner, or activate the user."},
	{"INVALID_CURRENCY_ISO", "The currency is not active in Salesforce. Activate it, or correct the row."},
	{"INVALID_RECORD_TYPE",
	 "The record type is not available to the integration user. Assign it in the profile."},
	{"MISSING_ARGUMENT", "The key of the record was missing from the request."},
	{"CIRCULAR_DEPENDENCY", "The record would be its own ancestor. Correct the row."},
	{"LIMIT_EXCEEDED",
	 "A governor limit was reached, mostly by a trigger or flow. It is tried again in smaller batches."},
	{"PROCESSING_HALTED", "Rolled back together with another record. It is sent again."},
	{"ALL_OR_NONE_OPERATION_ROLLED_BACK", "Rolled back together with another record. It is sent again."},
	{"UNKNOWN_EXCEPTION",
	 "Salesforce failed internally. It is tried again; Salesforce support can look up the ErrorId in the message."},

	/* of a mapping */
	{"INVALID_FIELD",
	 "A field does not exist, the integration user lacks the permission for it, or the parent record is not there yet. See sfsync.field_map."},
	{"INVALID_FIELD_FOR_INSERT_UPDATE",
	 "A field is read-only for the integration user. Grant it, or exclude the column."},
	{"INVALID_TYPE", "The object does not exist, or the integration user may not see it."},
	{"NOT_FOUND",
	 "The object, the external ID field or the record does not exist, or the integration user may not see it."},

	/* of the server */
	{"REQUEST_LIMIT_EXCEEDED",
	 "The org's limit of API requests is reached. Delivery goes on by itself when there is room."},
	{"SERVER_UNAVAILABLE",
	 "Salesforce is not available. Delivery goes on by itself; see status.salesforce.com."},
	{"INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE",
	 "The org is read-only for maintenance. Delivery goes on by itself."},
	{"QUERY_TIMEOUT",
	 "A query took too long. It is repeated for fewer records; an index on the external ID field helps."},
	{"REQUEST_RUNNING_TOO_LONG",
	 "A request took too long. It is repeated with fewer records; look for slow triggers and flows."},
	{"EXCEEDED_MAX_SIZE_REQUEST",
	 "The request was too large. It is repeated with fewer records; lower max_batch_size if this is frequent."},

	/* of the connection */
	{"INVALID_SESSION_ID",
	 "The session ended and a new one was refused as well. Check the session and login policies of the integration user."},
	{"INVALID_AUTH_HEADER",
	 "Salesforce could not read the access token. Check login_url and what is between this server and Salesforce."},
	{"API_DISABLED_FOR_ORG",
	 "The API is not enabled. The edition must include it, and the integration user needs the permission \"API Enabled\"."},
	{"API_CURRENTLY_DISABLED",
	 "The API is disabled, for this user or for the moment. The integration user needs the permission \"API Enabled\"."},
	{"CLIENT_NOT_ACCESSIBLE_FOR_USER",
	 "The app is blocked for the integration user. Allow it in the app's policies."},
	{"LOGIN_DURING_RESTRICTED_DOMAIN",
	 "The login comes from an address that the profile of the integration user does not allow."},
	{"LOGIN_DURING_RESTRICTED_TIME",
	 "The profile of the integration user does not allow logins at this hour."},
	{"PASSWORD_LOCKOUT", "The integration user is locked out. Unlock it in Salesforce."},
	{"INVALID_OPERATION_WITH_EXPIRED_PASSWORD",
	 "The password of the integration user has expired. Set a new one, or let it never expire."},
	{"ORG_LOCKED", "The org is locked. Contact Salesforce."},
	{"TRIAL_EXPIRED", "The trial of the org has ended. Contact Salesforce."},
	{"STORAGE_LIMIT_EXCEEDED",
	 "The org's data storage is full. Free or buy storage; delivery then goes on by itself."},
	{"EXCEEDED_QUOTA",
	 "The org's data storage is full. Free or buy storage; delivery then goes on by itself."},
	{"UNSUPPORTED_API_VERSION",
	 "The org does not have this API version. Change the server option api_version."},

	/* of the token endpoint, section 1.2 */
	{"invalid_grant",
	 "Salesforce refused the login. Check the app's policies (user to run as, pre-authorised users), the user, and that login_url is the My Domain URL."},
	{"invalid_client",
	 "The client secret is wrong. Check client_secret or client_secret_file of the user mapping."},
	{"invalid_client_id",
	 "The consumer key is unknown to this org. Check client_id and login_url; a new app takes some minutes to be known."},
	{"invalid_app_access",
	 "The user is not admitted to the app. Assign the app to it by a profile or permission set."},
	{"unsupported_grant_type",
	 "The flow is not enabled for the app, or login_url redirects. Check auth_flow, the app, and login_url."},
	{"inactive_org", "The org is locked, closed or suspended. Contact Salesforce."},
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

/* The codes that only the text tells apart.  False for all others. */
static bool
classify_by_text(const char *code, const char *message, ErrorScope *scope)
{
	if (strcmp(code, "REQUEST_LIMIT_EXCEEDED") == 0)
		/* without a text the longer wait, which spends the least */
		*scope = mentions(message, "Concurrent") ? SCOPE_CONCURRENT_LIMIT : SCOPE_DAILY_LIMIT;
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
		case 429:
			return SCOPE_SERVER;
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
	bool outage = http_status < 300 || http_status >= 500 || http_status == 420 || http_status == 429;
	ErrorScope scope;

	if (!classify_by_text(code, message, &scope))
		scope = known != NULL ? known->request : classify_status(http_status);

	/*
	 * Whatever an ailing server says, no record and no mapping is to blame for
	 * it; limits and an end of the session still are what they are.
	 */
	if (outage && scope < SCOPE_SERVER)
		return SCOPE_SERVER;
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
	if (http_status < 400 || http_status >= 500 || http_status == 408 || http_status == 420 ||
		http_status == 429)
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
error_is_contention(const char *code)
{
	return code != NULL &&
		   (strcmp(code, "UNABLE_TO_LOCK_ROW") == 0 || strcmp(code, "LIMIT_EXCEEDED") == 0 ||
			strcmp(code, "FILTERED_LOOKUP_LIMIT_EXCEEDED") == 0 ||
			strcmp(code, "TOO_MANY_APEX_REQUESTS") == 0 || strcmp(code, "QUERY_TIMEOUT") == 0 ||
			strcmp(code, "EXCEEDED_MAX_SIZE_REQUEST") == 0);
}

const char *
error_hint(const char *code)
{
	for (size_t i = 0; code != NULL && i < lengthof(code_hints); i++)
	{
		if (strcmp(code_hints[i].code, code) == 0)
			return code_hints[i].hint;
	}
	return "See the message; the code is listed in Salesforce's API documentation.";
}
