/* Requests and replies of the REST API: rest.c */
#define SFSYNC_USE_JSON_C
#include "unit.h"

#include "lib/stringinfo.h"
#include "rest.h"
#include "rest_json.h"

#define ID1 "001xx0000004GxDAAU"
#define ID2 "001xx0000004GxEAAU"

/* ------------------------------------------------------------------------
 * Helpers
 * ------------------------------------------------------------------------
 */

static json_object *
json_of(const char *text)
{
	json_object *json = rest_parse_json(text, strlen(text));

	if (json == NULL)
		fail_msg("not JSON: %s", text);
	return json;
}

static json_object *
at(json_object *json, const char *key)
{
	json_object *value;

	if (!json_object_object_get_ex(json, key, &value))
		fail_msg("no member %s", key);
	return value;
}

static RestField
rest_field(const char *name, FieldValueKind kind, const char *text)
{
	RestField f = {name, {kind, false, text != NULL ? pstrdup(text) : NULL}};

	return f;
}

/* The inverse of percent-encoding. */
static char *
decoded(const char *text)
{
	char *out = palloc(strlen(text) + 1);
	char *p = out;

	for (; *text != '\0'; text++)
	{
		if (*text == '%')
		{
			char hex[3] = {text[1], text[2], '\0'};

			*p++ = (char) strtol(hex, NULL, 16);
			text += 2;
		}
		else
			*p++ = *text;
	}
	*p = '\0';
	return out;
}

/* ------------------------------------------------------------------------
 * Requests
 * ------------------------------------------------------------------------
 */

static void
upsert(void **state)
{
	RestField fields[] = {
		rest_field("Name", FV_STRING, "O\"Neil\\\n\t\r\001\177é\U0001F600</script>"),
		rest_field("Left__c", FV_ABSENT, NULL),
		rest_field("Empty__c", FV_NULL, NULL),
		rest_field("Amount__c", FV_NUMBER, "123456789012345678.900"),
		rest_field("On__c", FV_BOOL, NULL),
	};
	RestRecord records[] = {
		{NULL, "k\"1", fields, 5},
		{NULL, "2", NULL, 0},
	};
	RestCall *call;

	(void) state;
	fields[4].value.boolean = true;
	call = rest_upsert("66.0", &(RestTarget){"Account", "Pg_Id__c", false}, records, 2);
	assert_string_equal(call->method, "PATCH");
	assert_string_equal(call->path, "/services/data/v66.0/composite/sobjects/Account/Pg_Id__c");
	assert_int_equal(call->body_len, strlen(call->body));
	assert_string_equal(call->body, "{\"allOrNone\":false,\"records\":["
									"{\"attributes\":{\"type\":\"Account\"},\"Pg_Id__c\":\"k\\\"1\","
									"\"Name\":\"O\\\"Neil\\\\\\n\\t\\r\\u0001\\u007fé\U0001F600</script>\","
									"\"Empty__c\":null,\"Amount__c\":123456789012345678.900,\"On__c\":true},"
									"{\"attributes\":{\"type\":\"Account\"},\"Pg_Id__c\":\"2\"}]}");
	json_object_put(json_of(call->body));
	call = rest_upsert("66.0", &(RestTarget){"A/b c", "X?y", false}, records, 0);
	assert_string_equal(call->path, "/services/data/v66.0/composite/sobjects/A%2Fb%20c/X%3Fy");
	assert_string_equal(call->body, "{\"allOrNone\":false,\"records\":[]}");
}

/* What a string of a request says is what a parser reads from it. */
static void
strings_survive(void **state)
{
	char all[256];
	int n = 0;
	RestField field;
	RestRecord record = {NULL, NULL, &field, 1};
	json_object *json;

	(void) state;
	for (int c = 1; c < 128; c++)
		all[n++] = (char) c;
	all[n] = '\0';
	field = rest_field("F", FV_STRING, all);
	json = json_of(rest_payload(&(RestTarget){"X", NULL, false}, &record));
	assert_string_equal(json_object_get_string(at(json, "F")), all);
	json_object_put(json);
}

static void
update_and_payload(void **state)
{
	RestField fields[] = {rest_field("Name", FV_STRING, "a")};
	RestRecord records[] = {{ID1, NULL, fields, 1}, {ID2, "new", fields, 1}};
	RestCall *call = rest_update("66.0", &(RestTarget){"Account", "Pg_Id__c", false}, records, 2);

	(void) state;
	assert_string_equal(call->method, "PATCH");
	assert_string_equal(call->path, "/services/data/v66.0/composite/sobjects");
	assert_string_equal(call->body,
						"{\"allOrNone\":false,\"records\":["
						"{\"attributes\":{\"type\":\"Account\"},\"id\":\"" ID1 "\",\"Name\":\"a\"},"
						"{\"attributes\":{\"type\":\"Account\"},\"id\":\"" ID2
						"\",\"Pg_Id__c\":\"new\",\"Name\":\"a\"}]}");
	assert_string_equal(rest_payload(&(RestTarget){"Account", "Pg_Id__c", false}, &records[1]),
						"{\"attributes\":{\"type\":\"Account\"},\"id\":\"" ID2
						"\",\"Pg_Id__c\":\"new\",\"Name\":\"a\"}");
}

/* POST never updates: two that create the same record can't both succeed. */
static void
create(void **state)
{
	RestField fields[] = {rest_field("Name", FV_STRING, "a"), rest_field("Left__c", FV_ABSENT, NULL)};
	RestRecord records[] = {{NULL, "1", fields, 2}, {NULL, "2", NULL, 0}};
	RestCall *call = rest_create("66.0", &(RestTarget){"Account", "Nr__c", true}, records, 2);

	(void) state;
	assert_string_equal(call->method, "POST");
	assert_string_equal(call->path, "/services/data/v66.0/composite/sobjects");
	assert_string_equal(call->body, "{\"allOrNone\":false,\"records\":["
									"{\"attributes\":{\"type\":\"Account\"},\"Nr__c\":1,\"Name\":\"a\"},"
									"{\"attributes\":{\"type\":\"Account\"},\"Nr__c\":2}]}");
	assert_int_equal(call->body_len, strlen(call->body));
}

/* The relation's name in place of the field's; its type only where it has several. */
static void
lookup_values(void **state)
{
	FieldLookup account = {"Account", "Pg_Id__c", false, NULL};
	FieldLookup who = {"Who", "Nr__c", true, "Contact"};
	RestField fields[] = {rest_field("AccountId", FV_LOOKUP, "a\"1"), rest_field("WhoId", FV_LOOKUP, "007"),
						  rest_field("OwnerId", FV_NULL, NULL)};
	RestRecord record = {NULL, NULL, fields, 3};

	(void) state;
	fields[0].value.lookup = &account;
	fields[1].value.lookup = &who;
	assert_string_equal(rest_payload(&(RestTarget){"Task", NULL, false}, &record),
						"{\"attributes\":{\"type\":\"Task\"},\"Account\":{\"Pg_Id__c\":\"a\\\"1\"},"
						"\"Who\":{\"attributes\":{\"type\":\"Contact\"},\"Nr__c\":7},\"OwnerId\":null}");
}

/* Keys of number fields go bare where they are numbers; nothing else does. */
static void
number_keys(void **state)
{
	static const char *const cases[][2] = {
		{"42", "42"},
		{"00123", "123"},
		{"-7", "-7"},
		{"1.50", "1.5"},
		{"123.0", "123"},
		{"1e3", "1000"},
		{"123456789012345678", "123456789012345678"},
		{"-0.0", "0"},
		{"12abc", "\"12abc\""},
		{"", "\"\""},
		{"NaN", "\"NaN\""},
		{"1,\"x\":2", "\"1,\\\"x\\\":2\""},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		RestRecord record = {NULL, cases[i][0], NULL, 0};

		assert_string_equal(rest_payload(&(RestTarget){"X", "K", true}, &record),
							psprintf("{\"attributes\":{\"type\":\"X\"},\"K\":%s}", cases[i][1]));
	}
}

/* A value that is no JSON number is never sent bare. */
static void
number_values(void **state)
{
	static const char *const cases[][2] = {
		{"0.1", "0.1"},
		{"-12", "-12"},
		{"1.10", "1.10"},
		{"NaN", "\"NaN\""},
		{"01", "\"01\""},
		{"1e5", "\"1e5\""},
		{"1,\"Id\":2", "\"1,\\\"Id\\\":2\""},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		RestField field = rest_field("F", FV_NUMBER, cases[i][0]);
		RestRecord record = {NULL, NULL, &field, 1};

		assert_string_equal(rest_payload(&(RestTarget){"X", NULL, false}, &record),
							psprintf("{\"attributes\":{\"type\":\"X\"},\"F\":%s}", cases[i][1]));
	}
}

static void
simple_calls(void **state)
{
	const char *const ids[] = {ID1, ID2, "a&b"};
	RestCall *call = rest_delete("66.0", ids, 3);

	(void) state;
	assert_string_equal(call->method, "DELETE");
	assert_string_equal(call->path,
						"/services/data/v66.0/composite/sobjects?ids=" ID1 "," ID2 ",a%26b&allOrNone=false");
	assert_null(call->body);
	assert_int_equal(call->body_len, 0);
	call = rest_describe("66.0", "My_Object__c");
	assert_string_equal(call->method, "GET");
	assert_string_equal(call->path, "/services/data/v66.0/sobjects/My_Object__c/describe");
	assert_string_equal(rest_limits("66.0")->path, "/services/data/v66.0/limits/");
	assert_string_equal(rest_versions()->path, "/services/data/");
	assert_string_equal(rest_userinfo()->path, "/services/oauth2/userinfo");
}

/* ------------------------------------------------------------------------
 * Composite requests
 * ------------------------------------------------------------------------
 */

static void
pack(void **state)
{
	static const char *const headers[] = {"Sforce-Auto-Assign: FALSE",
										  "Sforce-Duplicate-Rule-Header:allowSave=true; a=\"b\"", NULL};
	const char *const ids[] = {ID1, ID2};
	RestField fields[] = {rest_field("Name", FV_STRING, "a\"b")};
	RestRecord records[] = {{ID1, "k", fields, 1}};
	RestRecord news[] = {{NULL, "n", fields, 1}};
	RestCall *calls[5] = {rest_upsert("66.0", &(RestTarget){"Account", "Pg_Id__c", false}, news, 1),
						  rest_update("66.0", &(RestTarget){"Account", NULL, false}, records, 1),
						  rest_create("66.0", &(RestTarget){"Account", "Pg_Id__c", false}, news, 1),
						  rest_delete("66.0", ids, 2),
						  rest_upsert("66.0", &(RestTarget){"B__c", "K__c", false}, news, 1)};
	RestCall *call = rest_pack("66.0", NULL, calls, 2);

	(void) state;
	assert_string_equal(call->method, "POST");
	assert_string_equal(call->path, "/services/data/v66.0/composite");
	assert_int_equal(call->body_len, strlen(call->body));
	assert_string_equal(
		call->body,
		psprintf("{\"allOrNone\":false,\"collateSubrequests\":false,\"compositeRequest\":["
				 "{\"method\":\"PATCH\",\"url\":\"/services/data/v66.0/composite/sobjects/Account/Pg_Id__c\","
				 "\"referenceId\":\"part1of2\",\"body\":%s},"
				 "{\"method\":\"PATCH\",\"url\":\"/services/data/v66.0/composite/sobjects\","
				 "\"referenceId\":\"part2of2\",\"body\":%s}]}",
				 calls[0]->body, calls[1]->body));
	json_object_put(json_of(call->body));

	call = rest_pack("66.0", headers, calls, 5);
	json_object_put(json_of(call->body));
	assert_non_null(strstr(call->body,
						   "{\"method\":\"DELETE\",\"url\":\"/services/data/v66.0/composite/sobjects?ids=" ID1
						   "," ID2 "&allOrNone=false\",\"referenceId\":\"part4of5\",\"httpHeaders\":"
						   "{\"Sforce-Auto-Assign\":\"FALSE\","
						   "\"Sforce-Duplicate-Rule-Header\":\"allowSave=true; a=\\\"b\\\"\"}},"));

	/* one goes as it is */
	assert_ptr_equal(rest_pack("66.0", headers, calls + 3, 1), calls[3]);
}

#define EPOCH(days, seconds) (((days) *INT64CONST(86400) + (seconds)) * INT64CONST(1000000))

/* Condition of each record, in English and whole seconds, whatever the locale. */
static void
update_if(void **state)
{
	static const struct
	{
		int64 time;
		const char *date;
	} cases[] = {
		{0, "Sat, 01 Jan 2000 00:00:00 GMT"},
		{-1, "Fri, 31 Dec 1999 23:59:59 GMT"},
		{EPOCH(59, 0) + 999999, "Tue, 29 Feb 2000 00:00:00 GMT"},
		{EPOCH(60, 86399), "Wed, 01 Mar 2000 23:59:59 GMT"},
		{EPOCH(9815, 36610), "Sun, 15 Nov 2026 10:10:10 GMT"},
		{EPOCH(36524, 0), "Thu, 31 Dec 2099 00:00:00 GMT"},
		{EPOCH(36584, 0), "Mon, 01 Mar 2100 00:00:00 GMT"},
		{EPOCH(-36524, 0), "Mon, 01 Jan 1900 00:00:00 GMT"},
		{EPOCH(-109572, 0), "Fri, 01 Jan 1700 00:00:00 GMT"},
	};
	static const char *const headers[] = {"Sforce-Auto-Assign: FALSE", NULL};
	FieldLookup account = {"Account", "Pg_Id__c", false, NULL};
	RestField fields[] = {rest_field("Name", FV_STRING, "a"), rest_field("AccountId", FV_LOOKUP, "p"),
						  rest_field("Left__c", FV_ABSENT, NULL), rest_field("N__c", FV_NUMBER, "1.50")};
	RestRecord records[] = {{ID1, NULL, fields, 4}, {ID2, "k", NULL, 0}};
	int64 times[] = {0, 1000000};
	RestCall *call;

	(void) state;
	fields[1].value.lookup = &account;
	call = rest_update_if("66.0", headers, &(RestTarget){"Contact", "Key__c", false}, records, times, 2);
	assert_string_equal(call->method, "POST");
	assert_string_equal(call->path, "/services/data/v66.0/composite");
	assert_int_equal(call->body_len, strlen(call->body));
	assert_string_equal(
		call->body,
		"{\"allOrNone\":false,\"collateSubrequests\":false,\"compositeRequest\":["
		"{\"method\":\"PATCH\",\"url\":\"/services/data/v66.0/sobjects/Contact/" ID1
		"\",\"referenceId\":\"part1of2\",\"httpHeaders\":{"
		"\"If-Unmodified-Since\":\"Sat, 01 Jan 2000 00:00:00 GMT\",\"Sforce-Auto-Assign\":\"FALSE\"},"
		"\"body\":{\"Name\":\"a\",\"Account\":{\"Pg_Id__c\":\"p\"},\"N__c\":1.50}},"
		"{\"method\":\"PATCH\",\"url\":\"/services/data/v66.0/sobjects/Contact/" ID2
		"\",\"referenceId\":\"part2of2\",\"httpHeaders\":{"
		"\"If-Unmodified-Since\":\"Sat, 01 Jan 2000 00:00:01 GMT\",\"Sforce-Auto-Assign\":\"FALSE\"},"
		"\"body\":{\"Key__c\":\"k\"}}]}");
	json_object_put(json_of(call->body));

	for (size_t i = 0; i < lengthof(cases); i++)
	{
		call =
			rest_update_if("66.0", NULL, &(RestTarget){"Contact", NULL, false}, records, &cases[i].time, 1);
		if (strstr(call->body, psprintf("{\"If-Unmodified-Since\":\"%s\"}", cases[i].date)) == NULL)
			fail_msg("no %s in %s", cases[i].date, call->body);
	}
}

#define PART(body, status, ref)                                                                              \
	"{\"body\":" body ",\"httpHeaders\":{},\"httpStatusCode\":" status ",\"referenceId\":\"" ref "\"}"
#define REPLY(parts) "{\"compositeResponse\":[" parts "]}"

/* clang-format off */
static const char pack_sample[] = REPLY(
	PART("[{\"id\":\"" ID1 "\",\"success\":true,\"errors\":[],\"created\":true,\"n\":1.50,"
		 "\"u\":\"a/b\\u0000\"}]", "200", "part1of3") ","
	PART("[{\"errorCode\":\"X\",\"message\":\"\\u00e4\"}]", "400", "part2of3") ","
	PART("null", "503", "part3of3"));
/* clang-format on */

static void
unpack(void **state)
{
	RestPart parts[3];
	RestResult r;
	RestError e;
	char *error;

	(void) state;
	assert_true(rest_unpack(pack_sample, strlen(pack_sample), 3, parts, &error));
	assert_null(error);
	assert_int_equal(parts[0].http_status, 200);
	assert_int_equal(parts[0].body_len, strlen(parts[0].body));
	assert_non_null(strstr(parts[0].body, "\"n\":1.50,\"u\":\"a/b\\u0000\""));
	assert_true(rest_parse_results(parts[0].body, parts[0].body_len, 1, &r, &error));
	assert_true(r.success && r.created);
	assert_int_equal(r.http_status, 200);
	assert_string_equal(r.id, ID1);
	assert_int_equal(parts[1].http_status, 400);
	e = rest_parse_error(parts[1].http_status, parts[1].body, parts[1].body_len);
	assert_string_equal(e.code, "X");
	assert_string_equal(e.message, "ä");
	assert_int_equal(parts[2].http_status, 503);
	assert_int_equal(parts[2].body_len, 0);
	e = rest_parse_error(parts[2].http_status, parts[2].body, parts[2].body_len);
	assert_string_equal(e.message, "HTTP 503 without a body");
}

/* clang-format off */
static const char update_sample[] = REPLY(
	PART("null", "204", "part1of6") ","
	PART("[{\"errorCode\":\"PRECONDITION_FAILED\",\"message\":\"m\"}]", "412", "part2of6") ","
	PART("null", "412", "part3of6") ","
	PART("{\"errorCode\":\"C\",\"message\":\"m\",\"fields\":[\"F\"]}", "400", "part4of6") ","
	PART("[{\"errorCode\":\"ENTITY_IS_DELETED\",\"message\":\"m\"}]", "404", "part5of6") ","
	PART("\"<html>\"", "503", "part6of6"));
/* clang-format on */

static void
update_if_reply(void **state)
{
	static const RestRecord records[6] = {{"001xx0000004GxD"}, {ID2}, {ID1}, {ID1}, {ID1}, {ID1}};
	RestResult r[6];
	bool failed[6];
	char *error;

	(void) state;
	assert_true(rest_parse_update_if(update_sample, strlen(update_sample), records, 6, r, failed, &error));
	assert_null(error);
	assert_true(r[0].success && !r[0].created && !failed[0]);
	assert_string_equal(r[0].id, ID1);
	assert_int_equal(r[0].http_status, 204);

	/* modified meanwhile: the status says so, whatever the body */
	assert_true(!r[1].success && failed[1]);
	assert_string_equal(r[1].error.code, "PRECONDITION_FAILED");
	assert_true(!r[2].success && failed[2]);
	assert_null(r[2].error.code);
	assert_string_equal(r[2].error.message, "HTTP 412 without a reason");

	assert_true(!r[3].success && !failed[3]);
	assert_null(r[3].id);
	assert_string_equal(r[3].error.code, "C");
	assert_string_equal(r[3].error.fields[0], "F");
	assert_true(!r[4].success && !failed[4]);
	assert_string_equal(r[4].error.code, "ENTITY_IS_DELETED");
	assert_int_equal(r[4].http_status, 404);
	assert_true(!r[5].success && !failed[5]);
	assert_null(r[5].error.code);
	assert_int_equal(r[5].http_status, 503);
}

/* Nothing is settled unless all parts are answered, each in its place. */
static void
composite_bad_replies(void **state)
{
	static const char *const bad[] = {
		"",
		"null",
		"[]",
		"{}",
		"<html>",
		"[{\"errorCode\":\"X\",\"message\":\"m\"}]",
		"{\"compositeResponse\":{}}",
		"{\"compositeResponse\":null}",
		REPLY(""),
		REPLY("null"),
		REPLY("null,null"),
		REPLY(PART("null", "204", "part1of2")),
		REPLY(PART("null", "204", "part1of1")),
		REPLY(PART("null", "204", "part2of2") "," PART("null", "204", "part1of2")),
		REPLY(PART("null", "204", "part1of2") "," PART("null", "204", "part1of2")),
		REPLY(PART("null", "204", "part1of2") "," PART("null", "204", "Part2of2")),
		REPLY(PART("null", "204", "part1of2") "," PART("null", "\"204\"", "part2of2")),
		REPLY(PART("null", "204", "part1of2") "," PART("null", "204.0", "part2of2")),
		REPLY(PART("null", "204", "part1of2") "," PART("null", "null", "part2of2")),
		REPLY(PART("null", "204", "part1of2") ",{\"body\":null,\"referenceId\":\"part2of2\"}"),
		REPLY(PART("null", "204", "part1of2") ",{\"body\":null,\"httpStatusCode\":204}"),
		REPLY(PART("null", "204", "part1of3") "," PART("null", "204", "part2of3") "," PART("null", "204",
																						   "part3of3")),
	};
	static const RestRecord records[2] = {{ID1}, {ID2}};

	(void) state;
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		RestPart parts[2];
		RestResult r[2];
		bool failed[2];
		char *error = NULL;

		if (rest_unpack(bad[i], strlen(bad[i]), 2, parts, &error) || error == NULL)
			fail_msg("unpacked: %s", bad[i]);
		error = NULL;
		if (rest_parse_update_if(bad[i], strlen(bad[i]), records, 2, r, failed, &error) || error == NULL)
			fail_msg("accepted: %s", bad[i]);
	}
}

/* ------------------------------------------------------------------------
 * Lookups
 * ------------------------------------------------------------------------
 */

/* The SOQL of the parts of a lookup. */
static int
lookup_parts(const RestCall *call, char **soql)
{
	json_object *json = json_of(call->body);
	json_object *parts = at(json, "compositeRequest");
	int n = (int) json_object_array_length(parts);

	assert_string_equal(call->method, "POST");
	assert_string_equal(call->path, "/services/data/v66.0/composite");
	assert_false(json_object_get_boolean(at(json, "allOrNone")));
	assert_false(json_object_get_boolean(at(json, "collateSubrequests")));
	for (int i = 0; i < n; i++)
	{
		json_object *part = json_object_array_get_idx(parts, i);
		const char *url = json_object_get_string(at(part, "url"));
		static const char prefix[] = "/services/data/v66.0/query?q=";

		assert_string_equal(json_object_get_string(at(part, "method")), "GET");
		assert_string_equal(json_object_get_string(at(part, "referenceId")),
							psprintf("part%dof%d", i + 1, n));
		assert_memory_equal(url, prefix, strlen(prefix));
		soql[i] = decoded(url + strlen(prefix));
	}
	json_object_put(json);
	return n;
}

static void
lookup_request(void **state)
{
	const char *const keys[] = {"a", "O'Neil\\", "x\ny\"", "ä"};
	const char *const numbers[] = {"007", "1.0", "' OR Name != '", "12"};
	const char *const none[] = {"x", "y"};
	char *soql[25];

	(void) state;
	assert_int_equal(
		lookup_parts(rest_lookup("66.0", &(RestTarget){"Account", "Pg_Id__c", false}, keys, 4), soql), 1);
	assert_string_equal(
		soql[0],
		"SELECT Id,Pg_Id__c FROM Account WHERE Pg_Id__c IN ('a','O\\'Neil\\\\','x\\u000Ay\\\"','ä')");
	assert_int_equal(
		lookup_parts(rest_lookup("66.0", &(RestTarget){"Account", "No__c", true}, numbers, 4), soql), 1);
	assert_string_equal(soql[0], "SELECT Id,No__c FROM Account WHERE No__c IN (7,1,12)");
	assert_int_equal(
		lookup_parts(rest_lookup("66.0", &(RestTarget){"Account", "No__c", true}, none, 2), soql), 1);
	assert_string_equal(soql[0], "SELECT Id,No__c FROM Account WHERE Id = NULL");
}

/* 2,000 keys: all of them asked, once, in queries that Salesforce takes. */
static void
lookup_of_many_keys(void **state)
{
	const char *keys[2000];
	char *soql[25];
	int parts;
	int next = 0;
	int taken;

	(void) state;
	for (int i = 0; i < 2000; i++)
		keys[i] = psprintf("%0100d-ä-%d", i, i);
	parts = lookup_parts(rest_lookup("66.0", &(RestTarget){"Account", "Pg_Id__c", false}, keys, 2000), soql);
	assert_in_range(parts, 2, 5);
	for (int i = 0; i < parts; i++)
	{
		char *p = strstr(soql[i], "IN (") + 4;

		assert_in_range(strlen(soql[i]), 1, 100000);
		assert_string_equal(soql[i] + strlen(soql[i]) - 2, "')");
		for (p = strtok(p, ",)"); p != NULL; p = strtok(NULL, ",)"))
			assert_string_equal(p, psprintf("'%s'", keys[next++]));
	}
	assert_int_equal(next, 2000);

	/* too much for one request: how many it asks for, and the others by another */
	for (int i = 0; i < 2000; i++)
		keys[i] = psprintf("%0255d", i);
	taken = rest_lookup("66.0", &(RestTarget){"Account", "Pg_Id__c", false}, keys, 2000)->taken;
	assert_in_range(taken, 1000, 1999);
	assert_int_equal(rest_lookup("66.0", &(RestTarget){"Account", "Pg_Id__c", false}, keys, taken)->taken,
					 taken);
	assert_int_equal(
		rest_lookup("66.0", &(RestTarget){"Account", "Pg_Id__c", false}, keys + taken, 2000 - taken)->taken,
		2000 - taken);
}

typedef struct Looked
{
	bool ok;
	RestRead *found;
	int nfound;
	RestPage page;
} Looked;

static Looked
parse_lookup(const char *body, size_t len)
{
	Looked l;

	l.ok = rest_parse_lookup(body, len, "pg_id__c", &l.found, &l.nfound, &l.page);
	return l;
}

#define RECORD(key, id)                                                                                      \
	"{\"attributes\":{\"type\":\"A\",\"url\":\"/x\"},\"Id\":\"" id "\",\"Pg_Id__c\":" key "}"
#define PAGE(records) "{\"totalSize\":1,\"done\":true,\"records\":[" records "]}"
#define MORE(records, next)                                                                                  \
	"{\"totalSize\":9,\"done\":false,\"nextRecordsUrl\":\"" next "\",\"records\":[" records "]}"
#define NEXT "/services/data/v66.0/query/01gRO0000016PIAYA2-500"

static const char lookup_sample[] = REPLY(PART(PAGE(RECORD("\"k1\"", ID1)), "200", "part1of2") "," PART(
	MORE(RECORD("42.0", ID2) "," RECORD("1.2E3", ID2), NEXT), "200", "part2of2"));

static void
lookup_reply(void **state)
{
	Looked l = parse_lookup(lookup_sample, strlen(lookup_sample));
	const char *page = PAGE(RECORD("\"K 2\"", "001xx0000004GxD")) "\n";
	const char *empty = REPLY(PART("{\"totalSize\":0,\"done\":true,\"records\":[]}", "200", "part1of1"));

	(void) state;
	assert_true(l.ok);
	assert_null(l.page.error);
	assert_int_equal(l.nfound, 3);
	assert_string_equal(l.found[0].key, "k1");
	assert_string_equal(l.found[0].id, ID1);
	assert_string_equal(l.found[1].key, "42");
	assert_string_equal(l.found[2].key, "1200");
	assert_string_equal(l.page.next, NEXT);

	/* the next page is a plain query's; Ids become 18 characters long */
	l = parse_lookup(page, strlen(page));
	assert_true(l.ok);
	assert_int_equal(l.nfound, 1);
	assert_string_equal(l.found[0].key, "K 2");
	assert_string_equal(l.found[0].id, ID1);
	assert_null(l.page.next);

	l = parse_lookup(empty, strlen(empty));
	assert_true(l.ok);
	assert_int_equal(l.nfound, 0);
}

static void
lookup_failure(void **state)
{
	const char *failed = REPLY(PART(PAGE(""), "200", "part1of2") "," PART(
		"[{\"errorCode\":\"INVALID_FIELD\",\"message\":\"\\nSELECT x\\nNo such column\"}]", "400",
		"part2of2"));
	const char *silent = REPLY(PART("null", "503", "part1of1"));
	Looked l = parse_lookup(failed, strlen(failed));

	(void) state;
	assert_false(l.ok);
	assert_null(l.page.error);
	assert_int_equal(l.page.http_status, 400);
	assert_string_equal(l.page.failure.code, "INVALID_FIELD");
	assert_string_equal(l.page.failure.message, " SELECT x No such column");
	assert_int_equal(l.nfound, 0);
	l = parse_lookup(silent, strlen(silent));
	assert_false(l.ok);
	assert_int_equal(l.page.http_status, 503);
	assert_null(l.page.failure.code);
	assert_string_equal(l.page.failure.message, "HTTP 503 without a reason");
}

static void
lookup_bad_replies(void **state)
{
	static const char *const bad[] = {
		"",
		"null",
		"[]",
		"{}",
		"<html>",
		REPLY(""),
		/* a part is missing, out of order, or someone else's */
		REPLY(PART(PAGE(""), "200", "part1of2")),
		REPLY(PART(PAGE(""), "200", "part2of2") "," PART(PAGE(""), "200", "part1of2")),
		REPLY(PART(PAGE(""), "200", "q")),
		REPLY("null"),
		REPLY(PART(PAGE(""), "\"200\"", "part1of1")),
		REPLY(PART("null", "200", "part1of1")),
		REPLY(PART("[]", "200", "part1of1")),
		/* records that are none */
		REPLY(PART(PAGE("null"), "200", "part1of1")),
		REPLY(PART(PAGE("[]"), "200", "part1of1")),
		REPLY(PART(PAGE("{\"Id\":\"" ID1 "\"}"), "200", "part1of1")),
		REPLY(PART(PAGE("{\"Pg_Id__c\":\"a\"}"), "200", "part1of1")),
		PAGE(RECORD("\"a\"", "001xx0000004GxDAAZ")),
		PAGE(RECORD("\"a\"", "short")),
		PAGE(RECORD("\"a\\u0000b\"", ID1)),
		PAGE(RECORD("true", ID1)),
		PAGE(RECORD("null", ID1)),
		PAGE(RECORD("NaN", ID1)),
		PAGE(RECORD("-Infinity", ID1)),
		/* done, or not */
		"{\"totalSize\":1,\"records\":[]}",
		"{\"totalSize\":1,\"done\":false,\"records\":[]}",
		"{\"totalSize\":1,\"done\":true,\"nextRecordsUrl\":\"" NEXT "\",\"records\":[]}",
		"{\"totalSize\":1,\"done\":\"true\",\"records\":[]}",
		"{\"totalSize\":1,\"done\":true,\"records\":{}}",
		/* a next page that leads elsewhere */
		MORE("", "https://evil.example/services/data/"),
		MORE("", "//evil.example/services/data/"),
		MORE("", "/services/data/../../x"),
		MORE("", "/services/data/v66.0/query/a\\r\\nHost: b"),
		MORE("", "/services/data/v66.0/query/a b"),
		MORE("", "/services/apexrest/x"),
		MORE("", ""),
		/* two parts that go on can't be followed both */
		REPLY(PART(MORE("", NEXT), "200", "part1of2") "," PART(MORE("", NEXT), "200", "part2of2")),
	};

	(void) state;
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		Looked l = parse_lookup(bad[i], strlen(bad[i]));

		if (l.ok || l.page.error == NULL)
			fail_msg("accepted: %s", bad[i]);
		assert_null(l.found);
		assert_null(l.page.next);
		assert_int_equal(l.nfound, 0);
	}
}

/* ------------------------------------------------------------------------
 * Results
 * ------------------------------------------------------------------------
 */

static const char results_sample[] =
	"[{\"id\":\"001xx0000004GxD\",\"success\":true,\"errors\":[],\"created\":true},"
	"{\"id\":\"" ID2 "\",\"success\":true,\"errors\":[],\"created\":false},"
	"{\"success\":false,\"errors\":[{\"statusCode\":\"STRING_TOO_LONG\",\"message\":\"Name:\\ndata\\tvalue \\u00e4\","
	"\"fields\":[\"Name\",7,\"Site\"],\"duplicateResut\":{\"a\":[1]}},{\"statusCode\":\"OTHER\"}]},"
	"{\"success\":false,\"id\":null,\"errors\":[]},"
	"{\"success\":false},"
	"{\"success\":true,\"id\":\"" ID2 "\"},"
	"{\"success\":false,\"errors\":[{\"errorCode\":\"INVALID_FIELD\",\"message\":\"x\"}]}]";

static void
results(void **state)
{
	RestResult r[7];
	char *error;

	(void) state;
	assert_true(rest_parse_results(results_sample, strlen(results_sample), 7, r, &error));
	assert_null(error);
	assert_true(r[0].success && r[0].created);
	assert_string_equal(r[0].id, ID1);
	assert_true(r[1].success && !r[1].created);
	assert_false(r[2].success);
	assert_null(r[2].id);
	assert_string_equal(r[2].error.code, "STRING_TOO_LONG");
	assert_string_equal(r[2].error.message, "Name: data value ä");
	assert_int_equal(r[2].error.nfields, 2);
	assert_string_equal(r[2].error.fields[0], "Name");
	assert_string_equal(r[2].error.fields[1], "Site");
	for (int i = 3; i <= 4; i++)
	{
		assert_false(r[i].success);
		assert_null(r[i].error.code);
		assert_string_equal(r[i].error.message, "Salesforce gave no reason");
	}
	assert_true(r[5].success && !r[5].created);
	assert_string_equal(r[6].error.code, "INVALID_FIELD");
	assert_int_equal(r[6].error.nfields, 0);
	assert_true(rest_parse_results("[]", 2, 0, r, &error));
}

/* Nothing is settled by a reply that is not exactly what was asked for. */
static void
results_that_are_none(void **state)
{
	static const char *const bad[] = {
		"",
		"null",
		"{}",
		"[]",
		"[null]",
		"[[]]",
		"[1]",
		"[\"x\"]",
		"<html><body>Down</body></html>",
		"{\"success\":true,\"id\":\"" ID1 "\"}",
		"[{\"success\":true,\"id\":\"" ID1 "\"},{\"success\":true,\"id\":\"" ID1 "\"}]",
		"[{\"success\":\"true\",\"id\":\"" ID1 "\"}]",
		"[{\"success\":1,\"id\":\"" ID1 "\"}]",
		"[{\"success\":null,\"id\":\"" ID1 "\"}]",
		"[{\"id\":\"" ID1 "\"}]",
		"[{\"success\":true}]",
		"[{\"success\":true,\"id\":null}]",
		"[{\"success\":true,\"id\":\"\"}]",
		"[{\"success\":true,\"id\":\"001xx0000004GxDAAA\"}]",
		"[{\"success\":true,\"id\":\"001xx0000004Gx'AAU\"}]",
		"[{\"success\":true,\"id\":\"001xx0000004GxD\\u0000\"}]",
		"[{\"success\":true,\"id\":[\"" ID1 "\"]}]",
		"[{\"success\":true,\"id\":\"" ID1 "\",\"created\":\"yes\"}]",
		"[{\"success\":true,\"id\":\"" ID1 "\"}]]",
		"[{\"success\":true,\"id\":\"" ID1 "\"}] x",
		"[{\"success\":true,\"id\":\"" ID1 "\"},]",
		"[{\"success\":true,\"id\":\"" ID1 "\"}]\xff",
	};

	(void) state;
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		RestResult r;
		char *error;

		if (rest_parse_results(bad[i], strlen(bad[i]), 1, &r, &error) || error == NULL)
			fail_msg("accepted: %s", bad[i]);
	}
}

/* Messages of any length and content fit a log line. */
static void
messages_are_bounded(void **state)
{
	StringInfoData body;
	RestResult r;
	char *error;

	(void) state;
	initStringInfo(&body);
	appendStringInfoString(&body, "[{\"success\":false,\"errors\":[{\"statusCode\":\"X\",\"message\":\"a");
	for (int i = 0; i < 5000; i++)
		appendStringInfoString(&body, "ä");
	appendStringInfoString(&body, "\",\"fields\":[");
	for (int i = 0; i < 500; i++)
		appendStringInfo(&body, "%s\"F%d\"", i > 0 ? "," : "", i);
	appendStringInfoString(&body, "]}]}]");
	assert_true(rest_parse_results(body.data, (size_t) body.len, 1, &r, &error));
	assert_int_equal(strlen(r.error.message), 999); /* 1,000 would halve a character */
	assert_string_equal(r.error.message + 997, "ä");
	assert_int_equal(r.error.nfields, 100);
}

static void
request_errors(void **state)
{
	static const struct
	{
		const char *body;
		const char *code;
		const char *message;
	} cases[] = {
		{"[{\"message\":\"Session expired or invalid\",\"errorCode\":\"INVALID_SESSION_ID\"}]",
		 "INVALID_SESSION_ID", "Session expired or invalid"},
		{"{\"message\":\"m\",\"errorCode\":\"C\",\"fields\":[]}", "C", "m"},
		{"{\"error\":\"invalid_grant\",\"error_description\":\"authentication failure\"}", "invalid_grant",
		 "authentication failure"},
		{"{\"error\":\"invalid_grant\"}", "invalid_grant", "invalid_grant"},
		{"[{\"message\":\"only text\"}]", NULL, "only text"},
		{"[{\"errorCode\":\"C\",\"message\":\"a\\u0000b\\u0007c\\u001fd\"}]\r\n", "C", "a b c d"},
		{"", NULL, "HTTP 503 without a body"},
		{"<html>\n<title>Down\x80</title>", NULL,
		 "HTTP 503 with a body that is not Salesforce's: <html> <title>Down?</title>"},
		{"[]", NULL, "HTTP 503 with a body that is not Salesforce's: []"},
		{"[null]", NULL, "HTTP 503 with a body that is not Salesforce's: [null]"},
		{"[{\"errorCode\":7,\"message\":[]}]", NULL,
		 "HTTP 503 with a body that is not Salesforce's: [{\"errorCode\":7,\"message\":[]}]"},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		RestError e = rest_parse_error(503, cases[i].body, strlen(cases[i].body));

		if (cases[i].code == NULL)
			assert_null(e.code);
		else
			assert_string_equal(e.code, cases[i].code);
		assert_string_equal(e.message, cases[i].message);
	}
	assert_non_null(rest_parse_error(500, NULL, 0).message);
	assert_non_null(rest_parse_error(500, "\0\0\0", 3).message);
}

/* Cut off at each byte, and mangled: refused or parsed, never worse. */
static void
survives_any_bytes(void **state)
{
	static const char limits[] = "{\"DailyApiRequests\":{\"Max\":5000,\"Remaining\":4937}}";
	static const char versions[] =
		"[{\"label\":\"Winter\",\"url\":\"/services/data/v66.0\",\"version\":\"66.0\"}]";
	static const char *const samples[] = {results_sample, lookup_sample, limits,
										  versions,       pack_sample,   update_sample};
	static const RestRecord records[6] = {{ID1}, {ID1}, {ID1}, {ID1}, {ID1}, {ID1}};
	uint64_t seed = 99;

	(void) state;
	for (size_t s = 0; s < lengthof(samples); s++)
	{
		size_t len = strlen(samples[s]);

		for (size_t i = 0; i < len + 2000; i++)
		{
			bool cut = i < len;
			size_t n = cut ? i : len;
			char *copy = exact_copy(samples[s], n);
			RestResult r[7];
			RestPart parts[3];
			bool failed[6];
			char *error;
			int64 used;
			int64 limit;
			bool ok;

			for (int j = 0; j < 3 && !cut; j++)
				copy[next_random(&seed) % n] = (char) next_random(&seed);
			ok = rest_parse_results(copy, n, 7, r, &error);
			assert_true(ok == (error == NULL));
			assert_false(ok && cut);
			ok = parse_lookup(copy, n).ok;
			assert_false(ok && cut);
			assert_non_null(rest_parse_error(400, copy, n).message);
			ok = rest_parse_limits(copy, n, &used, &limit);
			assert_false(ok && cut);
			ok = rest_parse_versions(copy, n, "66.0", &error);
			assert_false(ok && cut);
			ok = rest_unpack(copy, n, 3, parts, &error);
			assert_true(ok == (error == NULL));
			assert_false(ok && cut);
			ok = rest_parse_update_if(copy, n, records, 6, r, failed, &error);
			assert_true(ok == (error == NULL));
			assert_false(ok && cut);
			free(copy);
		}
	}
}

static void
strict_json(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"{",
		"nul",
		"{} {}",
		"{}x",
		"{,}",
		"[1,]",
		"/* c */ {}",
		"{} // c",
		"['a']",
		"[\"\xff\"]",
		"[\"\xc0\x80\"]",
		"[\"\xed\xa0\x80\"]",
		"[\"\xf5\x80\x80\x80\"]",
		"[01]",
		"[tRuE]",
	};
	char *deep = palloc(1001);

	(void) state;
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		if (rest_parse_json(bad[i], strlen(bad[i])) != NULL)
			fail_msg("accepted: %s", bad[i]);
	}
	assert_null(rest_parse_json("{}\0", 3));
	assert_null(rest_parse_json("[\"a\0\"]", 6));
	memset(deep, '[', 500);
	memset(deep + 500, ']', 500);
	deep[1000] = '\0';
	assert_null(rest_parse_json(deep, 1000));
	json_object_put(json_of("[[[[[[[[]]]]]]]]\r\n\t "));
}

/* ------------------------------------------------------------------------
 * Limits, versions, Ids, keys, numbers
 * ------------------------------------------------------------------------
 */

static void
limit_info(void **state)
{
	static const struct
	{
		const char *header;
		int64 used;
		int64 limit; /* 0: refused */
	} cases[] = {
		{"api-usage=6360/5000000", 6360, 5000000},
		{"api-usage=18/5000; per-app-api-usage=17/250(appName=sample-app)", 18, 5000},
		{"per-app-api-usage=17/250(appName=sample-app), api-usage=18/5000", 18, 5000},
		{"per-app-api-usage=17/250(appName=x)", 0, 0},
		{" api-usage=0/1", 0, 1},
		{"", 0, 0},
		{"api-usage=", 0, 0},
		{"api-usage=5", 0, 0},
		{"api-usage=5/", 0, 0},
		{"api-usage=/5", 0, 0},
		{"api-usage=-5/5", 0, 0},
		{"api-usage=5/0", 0, 0},
		{"api-usage=99999999999999999999/5", 0, 0},
		{"api-usage=5/99999999999999999999", 0, 0},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		int64 used = -7;
		int64 limit = -7;

		assert_int_equal(rest_parse_limit_info(cases[i].header, &used, &limit), cases[i].limit != 0);
		assert_int_equal(used, cases[i].limit != 0 ? cases[i].used : -7);
		assert_int_equal(limit, cases[i].limit != 0 ? cases[i].limit : -7);
	}
}

static void
app_limit_info(void **state)
{
	int64 used = -7;
	int64 limit = -7;

	(void) state;
	assert_false(rest_parse_app_limit_info("api-usage=18/5000", &used, &limit));
	assert_false(rest_parse_app_limit_info("api-usage=18/5000; per-app-api-usage=17/0", &used, &limit));
	assert_false(rest_parse_app_limit_info("per-app-api-usage=", &used, &limit));
	assert_int_equal(used, -7);
	assert_true(rest_parse_app_limit_info("api-usage=18/5000; per-app-api-usage=17/250(appName=sample-app)",
										  &used, &limit));
	assert_int_equal(used, 17);
	assert_int_equal(limit, 250);
}

static void
limits(void **state)
{
	static const struct
	{
		const char *body;
		int64 used;
		int64 limit;
	} cases[] = {
		{"{\"DailyApiRequests\":{\"Max\":5000,\"Remaining\":4937,\"My App\":{\"Max\":1,\"Remaining\":1}},\"X\":{}}",
		 63, 5000},
		{"{\"DailyApiRequests\":{\"Max\":5000,\"Remaining\":-20}}", 5020, 5000},
		{"{\"DailyApiRequests\":{\"Max\":5000,\"Remaining\":5001}}", 0, 0},
		{"{\"DailyApiRequests\":{\"Max\":0,\"Remaining\":0}}", 0, 0},
		{"{\"DailyApiRequests\":{\"Max\":9223372036854775807,\"Remaining\":-9223372036854775807}}", 0, 0},
		{"{\"DailyApiRequests\":{\"Max\":\"5000\",\"Remaining\":1}}", 0, 0},
		{"{\"DailyApiRequests\":[]}", 0, 0},
		{"{}", 0, 0},
		{"[]", 0, 0},
		{"", 0, 0},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		int64 used = -7;
		int64 limit = -7;

		assert_int_equal(rest_parse_limits(cases[i].body, strlen(cases[i].body), &used, &limit),
						 cases[i].limit != 0);
		assert_int_equal(used, cases[i].limit != 0 ? cases[i].used : -7);
		assert_int_equal(limit, cases[i].limit != 0 ? cases[i].limit : -7);
	}
}

static void
versions(void **state)
{
	const char *body =
		"[{\"label\":\"a\",\"version\":\"9.0\"},{\"version\":\"66.0\"},{\"version\":\"68.0\"},"
		"{\"version\":\"66.1\"},{\"version\":66},{\"version\":\"x\"},null,{\"version\":\"9999999999999999999.0\"}]";
	char *newest;

	(void) state;
	assert_true(rest_parse_versions(body, strlen(body), "66.0", &newest));
	assert_string_equal(newest, "68.0");
	assert_false(rest_parse_versions(body, strlen(body), "67.0", &newest));
	assert_false(rest_parse_versions(body, strlen(body), "66", &newest));
	assert_false(rest_parse_versions(body, strlen(body), "nonsense", &newest));
	assert_string_equal(newest, "68.0");
	assert_false(rest_parse_versions("{}", 2, "66.0", &newest));
	assert_string_equal(rest_version_missing("99.0", "68.0"),
						"the org has no API version 99.0; its newest is 68.0");
	assert_string_equal(rest_version_missing("99.0", NULL), "the org has no API version 99.0");
	assert_null(newest);
}

static void
ids(void **state)
{
	static const char *const cases[][2] = {
		{"000000000000000", "000000000000000AAA"},
		{"A00000000000000", "A00000000000000BAA"},
		{"0000A0000000000", "0000A0000000000QAA"},
		{"00000000000000Z", "00000000000000ZAAQ"},
		{"ABCDEFGHIJKLMNO", "ABCDEFGHIJKLMNO555"},
		{"001xx0000004GxD", ID1},
		{"001RM000003oLnn", "001RM000003oLnnYAE"}, /* recorded */
		{"001M000001FgVKl", "001M000001FgVKlIAN"},
		{ID1, ID1},
		{"001xx0000004GxDAAV", NULL},
		{"001XX0000004GxDAAU", NULL},
		{"001xx0000004gxDAAU", NULL},
		{"001xx0000004GxDaau", NULL},
		{"001xx0000004GxDAA", NULL},
		{"001xx0000004Gx", NULL},
		{"", NULL},
		{"001xx0000004Gx ", NULL},
		{"001xx0000004Gx-", NULL},
		{"001xx0000004Gxä", NULL},
		{"0000000000000000000", NULL},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		char *id = rest_id18(cases[i][0]);

		if (cases[i][1] == NULL)
			assert_null(id);
		else
			assert_string_equal(id, cases[i][1]);
	}
}

static void
record_keys(void **state)
{
	static const char *const cases[][2] = {
		{"A1", "a1"},       {"  A1\t\n", "a1"},
		{"a b", "a b"},     {"", ""},
		{"   ", ""},        {"ÄÖÜÉÈÇÑß×", "äöüéèçñß×"},
		{"ΑΩ", "αω"},       {"ЖЁАЯ", "жёая"},
		{"ŁŃŽĀŸ", "łńžāŸ"}, {"日本€\U0001F600", "日本€\U0001F600"},
		{"\xc3", "\xc3"},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		assert_string_equal(rest_record_key(cases[i][0], false), cases[i][1]);
		/* folding what is folded changes nothing */
		assert_string_equal(rest_record_key(cases[i][1], false), cases[i][1]);
	}
	assert_string_equal(rest_record_key(" A1 Ä ", true), "A1 Ä");
}

static void
plain_numbers(void **state)
{
	static const char *const cases[][2] = {
		{"0", "0"},
		{"-0", "-0"},
		{"+5", "5"},
		{"005", "5"},
		{"5.", "5"},
		{".5", "0.5"},
		{"5.50", "5.50"},
		{"1e3", "1000"},
		{"1E+3", "1000"},
		{"1e-3", "0.001"},
		{"12.34e1", "123.4"},
		{"12.34e2", "1234"},
		{"12.34e5", "1234000"},
		{"12.34e-3", "0.01234"},
		{"0e9", "0"},
		{"0.00e1", "0.0"},
		{"-1.5e-1", "-0.15"},
		{"0.001e3", "1"},
		{"9.12260031E8", "912260031"},
		{"", NULL},
		{"-", NULL},
		{".", NULL},
		{"e5", NULL},
		{"1e", NULL},
		{"1e+", NULL},
		{"1e5.0", NULL},
		{"1.2.3", NULL},
		{"1 ", NULL},
		{" 1", NULL},
		{"0x1", NULL},
		{"NaN", NULL},
		{"Infinity", NULL},
		{"1e5001", NULL},
		{"1e-5001", NULL},
		{"1e99999999999999999999999", NULL},
		{"--1", NULL},
		{"+-1", NULL},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		char *plain = rest_plain_number(cases[i][0]);

		if (cases[i][1] == NULL)
		{
			if (plain != NULL)
				fail_msg("%s is %s", cases[i][0], plain);
		}
		else
			assert_string_equal(plain, cases[i][1]);
	}
	assert_int_equal(strlen(rest_plain_number("1e5000")), 5001);
	assert_int_equal(strlen(rest_plain_number("1e-5000")), 5002);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(upsert),
		cmocka_unit_test(strings_survive),
		cmocka_unit_test(update_and_payload),
		cmocka_unit_test(create),
		cmocka_unit_test(pack),
		cmocka_unit_test(update_if),
		cmocka_unit_test(unpack),
		cmocka_unit_test(update_if_reply),
		cmocka_unit_test(composite_bad_replies),
		cmocka_unit_test(lookup_values),
		cmocka_unit_test(number_keys),
		cmocka_unit_test(number_values),
		cmocka_unit_test(simple_calls),
		cmocka_unit_test(lookup_request),
		cmocka_unit_test(lookup_of_many_keys),
		cmocka_unit_test(lookup_reply),
		cmocka_unit_test(lookup_failure),
		cmocka_unit_test(lookup_bad_replies),
		cmocka_unit_test(results),
		cmocka_unit_test(results_that_are_none),
		cmocka_unit_test(messages_are_bounded),
		cmocka_unit_test(request_errors),
		cmocka_unit_test(survives_any_bytes),
		cmocka_unit_test(strict_json),
		cmocka_unit_test(limit_info),
		cmocka_unit_test(app_limit_info),
		cmocka_unit_test(limits),
		cmocka_unit_test(versions),
		cmocka_unit_test(ids),
		cmocka_unit_test(record_keys),
		cmocka_unit_test(plain_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
