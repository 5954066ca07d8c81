/* Error codes into what to do about them: errors.c */
#include "unit.h"

#include "errors.h"

typedef struct Case
{
	int status;
	const char *code;
	const char *message;
	ErrorScope expected;
} Case;

static const Case cases[] = {
	/* of one record, in a collection */
	{200, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record", SCOPE_RECORD_RETRY},
	{200, "REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]", SCOPE_RECORD_PERMANENT},
	{200, "STRING_TOO_LONG", "Name: data value too large", SCOPE_RECORD_PERMANENT},
	{200, "DUPLICATE_VALUE", "duplicate value found", SCOPE_RECORD_PERMANENT},
	{200, "DUPLICATE_EXTERNAL_ID", "more than one record found", SCOPE_RECORD_PERMANENT},
	{200, "A_CODE_OF_NEXT_YEAR", "who knows", SCOPE_RECORD_PERMANENT},
	{200, "unable_to_lock_row", "codes have one spelling", SCOPE_RECORD_PERMANENT},
	{200, "", "", SCOPE_RECORD_PERMANENT},
	{200, NULL, NULL, SCOPE_RECORD_RETRY},
	{200, "ENTITY_IS_DELETED", "entity is deleted", SCOPE_RECORD_GONE},
	{200, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", SCOPE_RECORD_GONE},
	{200, "NOT_FOUND", "The requested resource does not exist", SCOPE_RECORD_GONE},
	{200, "PROCESSING_HALTED", "The transaction was rolled back", SCOPE_RECORD_COLLATERAL},
	{200, "ALL_OR_NONE_OPERATION_ROLLED_BACK", NULL, SCOPE_RECORD_COLLATERAL},
	{412, "BATCH_PROCESSING_HALTED", NULL, SCOPE_RECORD_COLLATERAL},
	{200, "ENTITY_IS_LOCKED", NULL, SCOPE_RECORD_RETRY},
	{200, "LIMIT_EXCEEDED", NULL, SCOPE_RECORD_RETRY},
	{200, "STORAGE_LIMIT_EXCEEDED", "storage limit exceeded", SCOPE_RECORD_NO_ROOM},
	{200, "INVALID_SESSION_ID", "Session expired or invalid", SCOPE_SESSION},
	{200, "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", NULL, SCOPE_SERVER},
	{200, "JSON_PARSER_ERROR", "Cannot deserialize instance of date", SCOPE_RECORD_PERMANENT},

	/* told apart by the text alone (trap 28) */
	{200, "INVALID_FIELD", "Foreign key external ID: 0116 not found for field A__c in entity B__c",
	 SCOPE_RECORD_PARENT},
	{400, "INVALID_FIELD", "Foreign key external ID: 0116 not found for field A__c in entity B__c",
	 SCOPE_RECORD_PARENT},
	{200, "INVALID_FIELD", "No such column 'foo' on sobject of type Bar", SCOPE_MAPPING},
	{400, "INVALID_FIELD", "No such column 'foo' on sobject of type Bar", SCOPE_MAPPING},
	{200, "INVALID_FIELD", NULL, SCOPE_MAPPING},
	{200, "INVALID_FIELD", "Json Deserialization failed on token 'A__c' and has left off",
	 SCOPE_RECORD_PERMANENT},
	{200, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "T: execution of BeforeInsert\n\ncaused by: x",
	 SCOPE_RECORD_PERMANENT},
	{200, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "entity type cannot be inserted: Campaign", SCOPE_MAPPING},
	{200, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "T: caused by: UNABLE_TO_LOCK_ROW, unable",
	 SCOPE_RECORD_RETRY},
	{200, "CANNOT_EXECUTE_FLOW_TRIGGER", "Apex CPU time limit exceeded", SCOPE_RECORD_RETRY},
	{403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", SCOPE_DAILY_LIMIT},
	{403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded.",
	 SCOPE_CONCURRENT_LIMIT},
	{403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.", SCOPE_CONCURRENT_LIMIT},
	{403, "REQUEST_LIMIT_EXCEEDED", "Daily API request limit reached", SCOPE_DAILY_LIMIT},
	{403, "REQUEST_LIMIT_EXCEEDED", "API calls of the last 24 hours are used up", SCOPE_DAILY_LIMIT},
	{403, "REQUEST_LIMIT_EXCEEDED", "too many requests", SCOPE_UNKNOWN_LIMIT},
	{403, "REQUEST_LIMIT_EXCEEDED", "Limite erreicht", SCOPE_UNKNOWN_LIMIT},
	{403, "REQUEST_LIMIT_EXCEEDED", NULL, SCOPE_UNKNOWN_LIMIT},
	{200, "REQUEST_LIMIT_EXCEEDED", NULL, SCOPE_UNKNOWN_LIMIT},
	{429, "REQUEST_LIMIT_EXCEEDED", "too many requests", SCOPE_CONCURRENT_LIMIT},
	{429, "REQUEST_LIMIT_EXCEEDED", NULL, SCOPE_CONCURRENT_LIMIT},
	{429, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", SCOPE_DAILY_LIMIT},
	{503, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", SCOPE_DAILY_LIMIT},
	{403, "API_CURRENTLY_DISABLED", "API is disabled for this User", SCOPE_CONNECTION},
	{503, "API_CURRENTLY_DISABLED", "API is currently disabled", SCOPE_SERVER},

	/* of a whole request */
	{400, "JSON_PARSER_ERROR", "Unexpected character", SCOPE_REQUEST},
	{400, "MALFORMED_QUERY", NULL, SCOPE_REQUEST},
	{400, "EXCEEDED_ID_LIMIT", NULL, SCOPE_REQUEST},
	{400, "EXCEEDED_MAX_SIZE_REQUEST", NULL, SCOPE_REQUEST},
	{400, "A_CODE_OF_NEXT_YEAR", NULL, SCOPE_REQUEST},
	{400, NULL, NULL, SCOPE_REQUEST},
	{413, NULL, NULL, SCOPE_REQUEST},
	{414, NULL, NULL, SCOPE_REQUEST},
	{431, NULL, NULL, SCOPE_REQUEST},
	{401, "INVALID_SESSION_ID", "Session expired or invalid", SCOPE_SESSION},
	{401, NULL, NULL, SCOPE_SESSION},
	{401, "INVALID_AUTH_HEADER", NULL, SCOPE_CONNECTION},
	{403, "API_DISABLED_FOR_ORG", "The REST API is not enabled for this Organization.", SCOPE_CONNECTION},
	{403, "INSUFFICIENT_ACCESS", NULL, SCOPE_CONNECTION},
	{403, NULL, NULL, SCOPE_CONNECTION},
	{403, "INSUFFICIENT_ACCESS_OR_READONLY", NULL, SCOPE_MAPPING},
	{404, "NOT_FOUND", "The requested resource does not exist", SCOPE_MAPPING},
	{404, "NOT_FOUND", "Provided external ID field does not exist or is not accessible: Namez",
	 SCOPE_MAPPING},
	{404, NULL, NULL, SCOPE_MAPPING},
	{404, "ENTITY_IS_DELETED", "entity is deleted", SCOPE_RECORD_GONE},
	{400, "INVALID_TYPE", "sObject type 'XYZZY' is not supported.", SCOPE_MAPPING},
	{410, NULL, NULL, SCOPE_CONNECTION},
	{412, NULL, NULL, SCOPE_RECORD_RETRY},

	/* an ailing server blames nobody */
	{500, "UNKNOWN_EXCEPTION", "An unexpected error occurred.", SCOPE_SERVER},
	{500, "INVALID_FIELD", "No such column", SCOPE_SERVER},
	{503, "SERVER_UNAVAILABLE", NULL, SCOPE_SERVER},
	{503, NULL, NULL, SCOPE_SERVER},
	{502, NULL, NULL, SCOPE_SERVER},
	{504, "STRING_TOO_LONG", NULL, SCOPE_SERVER},
	{420, NULL, NULL, SCOPE_SERVER},
	{429, "A_CODE", NULL, SCOPE_CONCURRENT_LIMIT},
	{429, "UNKNOWN_EXCEPTION", NULL, SCOPE_CONCURRENT_LIMIT},
	{429, "INVALID_FIELD", NULL, SCOPE_CONCURRENT_LIMIT},
	{429, NULL, NULL, SCOPE_CONCURRENT_LIMIT},
	{429, "INVALID_SESSION_ID", NULL, SCOPE_SESSION},
	{409, "CONFLICT", NULL, SCOPE_SERVER},
	{301, NULL, NULL, SCOPE_SERVER},
	{0, NULL, NULL, SCOPE_SERVER},
	{-1, "INVALID_FIELD", NULL, SCOPE_SERVER},
	{999, NULL, NULL, SCOPE_SERVER},
	{503, "INVALID_SESSION_ID", NULL, SCOPE_SESSION},
};

static void
classifies(void **state)
{
	int wrong = 0;

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		const Case *c = &cases[i];
		ErrorScope scope = error_classify(c->status, c->code, c->message);

		if (scope != c->expected)
		{
			diag("%d %s \"%s\": scope %d, expected %d", c->status, c->code ? c->code : "-",
				 c->message ? c->message : "", scope, c->expected);
			wrong++;
		}
	}
	assert_int_equal(wrong, 0);
}

/* Section 12.2: whatever is listed there goes to the dead letters at once. */
static void
permanent_codes(void **state)
{
	static const char *const codes[] = {
		"REQUIRED_FIELD_MISSING",
		"FIELD_CUSTOM_VALIDATION_EXCEPTION",
		"FIELD_FILTER_VALIDATION_EXCEPTION",
		"FIELD_INTEGRITY_EXCEPTION",
		"STRING_TOO_LONG",
		"INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
		"INVALID_EMAIL_ADDRESS",
		"NUMBER_OUTSIDE_VALID_RANGE",
		"INVALID_TYPE_ON_FIELD_IN_RECORD",
		"MALFORMED_ID",
		"INVALID_ID_FIELD",
		"DUPLICATE_VALUE",
		"DUPLICATE_EXTERNAL_ID",
		"DUPLICATES_DETECTED",
		"INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY",
		"INSUFFICIENT_ACCESS_OR_READONLY",
		"DELETE_FAILED",
		"DEPENDENCY_EXISTS",
		"INACTIVE_OWNER_OR_USER",
		"INVALID_CURRENCY_ISO",
		"INVALID_RECORD_TYPE",
		"MISSING_ARGUMENT",
		"CIRCULAR_DEPENDENCY",
	};

	(void) state;
	for (size_t i = 0; i < lengthof(codes); i++)
		assert_int_equal(error_classify(200, codes[i], "text"), SCOPE_RECORD_PERMANENT);
}

static void
classifies_oauth(void **state)
{
	static const Case oauth[] = {
		{400, "invalid_grant", "authentication failure", SCOPE_CONNECTION},
		{400, "invalid_grant", "request not supported on this domain", SCOPE_CONNECTION},
		{400, "invalid_grant", "expired access/refresh token", SCOPE_CONNECTION},
		{400, "invalid_grant", "login rate exceeded", SCOPE_SERVER},
		{400, "invalid_grant", "rate_limit_exceeded", SCOPE_SERVER},
		{400, "invalid_client_id", "client identifier invalid", SCOPE_CONNECTION},
		{400, "invalid_client", "invalid client credentials", SCOPE_CONNECTION},
		{401, "invalid_client", "invalid client credentials", SCOPE_CONNECTION},
		{400, "invalid_app_access", NULL, SCOPE_CONNECTION},
		{400, "unsupported_grant_type", NULL, SCOPE_CONNECTION},
		{400, "inactive_org", NULL, SCOPE_CONNECTION},
		{400, "server_error", NULL, SCOPE_SERVER},
		{400, "unknown_error", "retry your request", SCOPE_SERVER},
		{400, "something_new", NULL, SCOPE_CONNECTION},
		{404, NULL, NULL, SCOPE_CONNECTION},
		{500, "invalid_grant", NULL, SCOPE_SERVER},
		{503, NULL, NULL, SCOPE_SERVER},
		{429, NULL, NULL, SCOPE_CONCURRENT_LIMIT},
		{302, NULL, NULL, SCOPE_SERVER},
		{0, NULL, NULL, SCOPE_SERVER},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(oauth); i++)
		assert_int_equal(error_classify_oauth(oauth[i].status, oauth[i].code, oauth[i].message),
						 oauth[i].expected);
}

static void
versions(void **state)
{
	(void) state;
	assert_true(error_is_version(410, NULL));
	assert_true(error_is_version(404, "UNSUPPORTED_API_VERSION"));
	assert_false(error_is_version(404, "NOT_FOUND"));
	assert_false(error_is_version(404, NULL));
}

static void
contention(void **state)
{
	(void) state;
	assert_true(error_is_contention("UNABLE_TO_LOCK_ROW"));
	assert_true(error_is_contention("LIMIT_EXCEEDED"));
	assert_false(error_is_contention("REQUEST_LIMIT_EXCEEDED"));
	assert_false(error_is_contention("SERVER_UNAVAILABLE"));
	assert_false(error_is_contention("ENTITY_IS_LOCKED")); /* for an approval, of days */
	assert_true(error_is_contention("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY"));
	assert_false(error_is_contention(NULL));
}

/* A hint is a sentence, for each code that the tests know and for any other. */
static void
hints(void **state)
{
	static const char *const ours[] = {"COERCION_ERROR", "DUPLICATE_KEY",   "EXPRESSION_ERROR",
									   "REPLY_MISMATCH", "REQUEST_TIMEOUT", "NO_REPLY"};
	const char *general = error_hint("A_CODE_OF_NEXT_YEAR");

	(void) state;
	assert_string_equal(error_hint(NULL), general);
	assert_string_equal(error_hint(""), general);
	for (size_t i = 0; i < lengthof(ours); i++)
		assert_string_not_equal(error_hint(ours[i]), general);
	assert_non_null(strstr(error_hint("STRING_TOO_LONG"), "overlong"));
	assert_non_null(strstr(error_hint("invalid_client"), "client_secret"));
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		const char *hint = error_hint(cases[i].code);

		assert_true(hint[0] >= 'A' && hint[0] <= 'Z');
		assert_int_equal(hint[strlen(hint) - 1], '.');
		assert_null(strchr(hint, '\n'));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(classifies), cmocka_unit_test(permanent_codes), cmocka_unit_test(classifies_oauth),
		cmocka_unit_test(versions),   cmocka_unit_test(contention),      cmocka_unit_test(hints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
