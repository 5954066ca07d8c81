/*
 * hints.c
 *		A sentence for each error code: what happened, and what to do about it.
 *		Pure.
 *
 * The codes are those of the reference, section 12, those of the token
 * endpoint, and our own.  errors.c says what sfsync itself does about them.
 */
#include "compat.h"

#include "errors.h"

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

	{"UNKNOWN",
	 "Salesforce refused the record without a reason. Retry it; if it fails again, look at the object's automation and debug logs."},

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
	{"UNAVAILABLE_RECORDTYPE_EXCEPTION",
	 "No record type of the object is available to the integration user. Assign one in its profile or permission set."},
	{"INVALID_CURRENCY_ISO", "The currency is not active in Salesforce. Activate it, or correct the row."},
	{"INVALID_RECORD_TYPE",
	 "The record type is not available to the integration user. Assign it in the profile."},
	{"MISSING_ARGUMENT", "The key of the record was missing from the request."},
	{"CIRCULAR_DEPENDENCY", "The record would be its own ancestor. Correct the row."},
	{"TRANSFER_REQUIRES_READ",
	 "The new owner may not read such records. Grant the owner read access to the object, or map another owner."},
	{"SELF_REFERENCE_FROM_TRIGGER",
	 "An Apex trigger of the object saves the record that it is called for. Ask who maintains it in Salesforce."},
	{"MIXED_DML_OPERATION",
	 "An Apex trigger or flow of the object changes users or permissions along with records. Ask who maintains it in Salesforce."},
	{"ERROR_IN_MAILER",
	 "An e-mail that the change sets off could not be sent. Correct the address, or the alert in Salesforce."},
	{"TXN_SECURITY_NO_ACCESS",
	 "A transaction security policy of the org refused the change. Exempt the integration user from it."},
	{"FILTERED_LOOKUP_LIMIT_EXCEEDED",
	 "The lookup filters of the object read too many records. It is tried again; simplify the filters if it fails."},
	{"LIMIT_EXCEEDED",
	 "A governor limit was reached, mostly by a trigger or flow. It is tried again in smaller batches."},
	{"BATCH_PROCESSING_HALTED",
	 "Not carried out because an earlier part of the request failed. It is sent again."},
	{"TOO_MANY_APEX_REQUESTS",
	 "Too much Apex code runs in the org at once. It is tried again; look for slow triggers."},
	{"TXN_SECURITY_METERING_ERROR",
	 "A transaction security policy took too long. It is tried again; simplify the policy if this repeats."},
	{"PLATFORM_EVENT_PUBLISHING_UNAVAILABLE",
	 "Automation of the object publishes a platform event, and that is not available for the moment. It is tried again."},
	{"CONFLICT", "Another request changed the record at the same moment. It is tried again."},
	{"INTERNAL_ERROR",
	 "Salesforce failed internally. It is tried again; contact Salesforce if this repeats."},
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
	{"INVALID_READ_ONLY_USER_DML", "The org is read-only for maintenance. Delivery goes on by itself."},
	{"SSO_SERVICE_DOWN", "Salesforce's login service is not available. Delivery goes on by itself."},
	{"QUERY_TIMEOUT",
	 "A query took too long. It is repeated for fewer records; an index on the external ID field helps."},
	{"REQUEST_RUNNING_TOO_LONG",
	 "A request took too long. It is repeated with fewer records; look for slow triggers and flows."},
	{"EXCEEDED_MAX_SIZE_REQUEST",
	 "The request was too large. It is repeated with fewer records; lower max_batch_size if this is frequent."},

	{"OPERATION_TOO_LARGE", "A query touched too many records. It is repeated for fewer of them."},
	{"QUERY_TOO_COMPLICATED", "A query was too complicated. It is repeated for fewer records."},
	{"MALFORMED_QUERY",
	 "Salesforce could not read a query. It is repeated for fewer records; report it if it comes again."},
	{"INVALID_QUERY_FILTER_OPERATOR",
	 "A query asked for a key that the field can't have. Correct the key of the row."},
	{"INVALID_QUERY_LOCATOR", "A query took so long that Salesforce forgot its position. It is begun anew."},
	{"EXCEEDED_ID_LIMIT", "A request named too many records. It is repeated for fewer of them."},

	/* of the connection */
	{"INVALID_SESSION_ID",
	 "The session ended and a new one was refused as well. Check the session and login policies of the integration user."},
	{"INVALID_AUTH_HEADER",
	 "Salesforce could not read the access token. Check login_url and what is between this server and Salesforce."},
	{"API_DISABLED_FOR_ORG",
	 "The API is not enabled. The edition must include it, and the integration user needs the permission \"API Enabled\"."},
	{"PI_DISABLED_FOR_ORG",
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
	{"invalid_request",
	 "The token request lacks something. Check auth_flow and the options that go with it."},
	{"inactive_user", "The integration user is inactive. Activate it in Salesforce."},
	{"server_error", "Salesforce's login service failed. The login is tried again by itself."},
	{"unknown_error", "Salesforce's login service failed. The login is tried again by itself."},
	{"inactive_org", "The org is locked, closed or suspended. Contact Salesforce."},
};

const char *
error_hint(const char *code)
{
	for (size_t i = 0; code != NULL && i < lengthof(code_hints); i++)
	{
		if (strcmp(code_hints[i].code, code) == 0)
			return code_hints[i].hint;
	}
	if (code != NULL && strncmp(code, "IDEMPOTENCY_", strlen("IDEMPOTENCY_")) == 0)
		return "Salesforce took the request for a repeated one. Something between here and Salesforce adds Idempotency-Key headers: look for a proxy.";
	return "See the message; the code is listed in Salesforce's API documentation.";
}
