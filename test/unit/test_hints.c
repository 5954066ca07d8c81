/* Every code that can stand in a dead letter or a status has a hint of its own: hints.c */
#include "unit.h"

#include "errors.h"

/* The catalogue of the reference, sections 1.2 and 12, and our own. */
static const char *const codes[] = {
	/* 12.1 */
	"UNABLE_TO_LOCK_ROW", "REQUEST_LIMIT_EXCEEDED", "SERVER_UNAVAILABLE", "API_CURRENTLY_DISABLED",
	"UNKNOWN_EXCEPTION", "QUERY_TIMEOUT", "REQUEST_RUNNING_TOO_LONG", "TOO_MANY_APEX_REQUESTS",
	"TXN_SECURITY_METERING_ERROR", "TXN_SECURITY_NO_ACCESS",
	"INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "INVALID_READ_ONLY_USER_DML", "SSO_SERVICE_DOWN",
	"INTERNAL_ERROR", "PLATFORM_EVENT_PUBLISHING_UNAVAILABLE", "CONFLICT", "PROCESSING_HALTED",
	"ALL_OR_NONE_OPERATION_ROLLED_BACK", "BATCH_PROCESSING_HALTED", "INVALID_FIELD",
	/* 12.2 */
	"REQUIRED_FIELD_MISSING", "FIELD_CUSTOM_VALIDATION_EXCEPTION", "FIELD_FILTER_VALIDATION_EXCEPTION",
	"FIELD_INTEGRITY_EXCEPTION", "STRING_TOO_LONG", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
	"INVALID_EMAIL_ADDRESS", "NUMBER_OUTSIDE_VALID_RANGE", "INVALID_TYPE_ON_FIELD_IN_RECORD",
	"JSON_PARSER_ERROR", "MALFORMED_ID", "INVALID_ID_FIELD", "DUPLICATE_VALUE", "DUPLICATE_EXTERNAL_ID",
	"DUPLICATES_DETECTED", "INVALID_CROSS_REFERENCE_KEY", "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY",
	"INSUFFICIENT_ACCESS_OR_READONLY", "INVALID_FIELD_FOR_INSERT_UPDATE",
	"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "CANNOT_EXECUTE_FLOW_TRIGGER", "ENTITY_IS_DELETED",
	"ENTITY_IS_LOCKED", "ALREADY_IN_PROCESS", "DELETE_FAILED", "DEPENDENCY_EXISTS", "INACTIVE_OWNER_OR_USER",
	"INVALID_CURRENCY_ISO", "INVALID_RECORD_TYPE", "UNAVAILABLE_RECORDTYPE_EXCEPTION", "MISSING_ARGUMENT",
	"CIRCULAR_DEPENDENCY", "TRANSFER_REQUIRES_READ", "SELF_REFERENCE_FROM_TRIGGER", "MIXED_DML_OPERATION",
	"ERROR_IN_MAILER", "LIMIT_EXCEEDED", "FILTERED_LOOKUP_LIMIT_EXCEEDED", "INVALID_TYPE", "NOT_FOUND",
	/* 12.3 */
	"INVALID_SESSION_ID", "INVALID_AUTH_HEADER", "API_DISABLED_FOR_ORG", "PI_DISABLED_FOR_ORG",
	"INSUFFICIENT_ACCESS", "CLIENT_NOT_ACCESSIBLE_FOR_USER", "LOGIN_DURING_RESTRICTED_DOMAIN",
	"LOGIN_DURING_RESTRICTED_TIME", "PASSWORD_LOCKOUT", "INVALID_OPERATION_WITH_EXPIRED_PASSWORD",
	"ORG_LOCKED", "TRIAL_EXPIRED", "STORAGE_LIMIT_EXCEEDED", "EXCEEDED_QUOTA", "UNSUPPORTED_API_VERSION",
	"EXCEEDED_MAX_SIZE_REQUEST", "IDEMPOTENCY_KEY_REUSED",
	/* of queries */
	"INVALID_QUERY_LOCATOR", "MALFORMED_QUERY", "INVALID_QUERY_FILTER_OPERATOR", "QUERY_TOO_COMPLICATED",
	"OPERATION_TOO_LARGE", "EXCEEDED_ID_LIMIT",
	/* 1.2 */
	"invalid_grant", "invalid_client", "invalid_client_id", "invalid_app_access", "unsupported_grant_type",
	"invalid_request", "inactive_org", "inactive_user", "server_error", "unknown_error",
	/* ours */
	"COERCION_ERROR", "DUPLICATE_KEY", "EXPRESSION_ERROR", "FILTER_ERROR", "REPLY_MISMATCH", "UNKNOWN"};

static void
every_code(void **state)
{
	const char *general = error_hint("A_CODE_OF_NEXT_YEAR");

	(void) state;
	for (size_t i = 0; i < lengthof(codes); i++)
	{
		const char *hint = error_hint(codes[i]);
		size_t len = strlen(hint);

		if (strcmp(hint, general) == 0)
			fail_msg("%s has no hint", codes[i]);
		if (hint[0] < 'A' || hint[0] > 'Z' || hint[len - 1] != '.' || strchr(hint, '\n') != NULL || len > 250)
			fail_msg("the hint of %s is not a short sentence", codes[i]);
	}
}

static void
others(void **state)
{
	(void) state;
	assert_string_equal(error_hint(NULL), error_hint("A_CODE_OF_NEXT_YEAR"));
	assert_string_equal(error_hint("string_too_long"), error_hint("A_CODE_OF_NEXT_YEAR"));
	assert_string_equal(error_hint("STRING_TOO_LONG "), error_hint("A_CODE_OF_NEXT_YEAR"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code),
		cmocka_unit_test(others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
