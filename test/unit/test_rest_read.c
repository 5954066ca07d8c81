/* Reading of records, requests and replies: rest_query.c, rest_read.c, and times: rest_form.c */
#define SFSYNC_USE_JSON_C
#include "unit.h"

#include "lib/stringinfo.h"
#include "rest.h"

#define ID1 "001xx0000004GxDAAU"
#define ID2 "001xx0000004GxEAAU"
#define USER "005000000000001AAA"
#define NEXT "/services/data/v66.0/query/01gRO0000016PIAYA2-500"

#define LMD "2022-03-17T16:21:24.000+0000"
#define STAMP "2022-03-17T16:21:26.000+0000"
#define LMD_TIME INT64CONST(700849284000000)

#define SYSTEM                                                                                               \
	"\"attributes\":{\"type\":\"A\",\"url\":\"/x\"},\"LastModifiedDate\":\"" LMD                             \
	"\",\"SystemModstamp\":\"" STAMP "\",\"LastModifiedById\":\"" USER "\""
#define RECORD(id, members) "{" SYSTEM ",\"Id\":\"" id "\"" members "}"
#define PAGE(records) "{\"totalSize\":1,\"done\":true,\"records\":[" records "]}"
#define MORE(records, next)                                                                                  \
	"{\"totalSize\":9,\"done\":false,\"nextRecordsUrl\":\"" next "\",\"records\":[" records "]}"
#define PART(body, status, ref)                                                                              \
	"{\"body\":" body ",\"httpHeaders\":{},\"httpStatusCode\":" status ",\"referenceId\":\"" ref "\"}"
#define REPLY(parts) "{\"compositeResponse\":[" parts "]}"
#define QUERY(records) REPLY(PART(PAGE(records), "200", "part1of1"))

static const char *const asked[] = {"Name", "Amount__c", "On__c", "Site", "Left__c"};
#define NASKED ((int) lengthof(asked))

/* ------------------------------------------------------------------------
 * Helpers
 * ------------------------------------------------------------------------
 */

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

static int taken; /* by the request whose SOQL was last looked at */

/* The SOQL of the one query that a composite request holds. */
static char *
soql_of(const RestCall *call, const char *resource)
{
	char *prefix = psprintf("{\"allOrNone\":false,\"collateSubrequests\":false,\"compositeRequest\":["
							"{\"method\":\"GET\",\"url\":\"/services/data/v66.0/%s?q=",
							resource);
	static const char suffix[] = "\",\"referenceId\":\"part1of1\"}]}";
	size_t start = strlen(prefix);
	size_t end;

	assert_string_equal(call->method, "POST");
	assert_string_equal(call->path, "/services/data/v66.0/composite");
	assert_int_equal(call->body_len, strlen(call->body));
	assert_true(call->body_len > start + strlen(suffix));
	end = call->body_len - strlen(suffix);
	assert_memory_equal(call->body, prefix, start);
	assert_string_equal(call->body + end, suffix);
	taken = call->taken;
	return decoded(pnstrdup(call->body + start, end - start));
}

static int
count_characters(const char *text)
{
	int n = 0;

	for (; *text != '\0'; text++)
		n += ((unsigned char) *text & 0xC0) != 0x80;
	return n;
}

/* ------------------------------------------------------------------------
 * Requests
 * ------------------------------------------------------------------------
 */

static void
retrieve_request(void **state)
{
	static const char *const ids[] = {ID1, "a\"b"};
	static const char *const fields[] = {"Name", "lastmodifieddate", "ID", "Name", "NAME", "Site"};
	RestCall *call = rest_retrieve("66.0", "My Object", ids, 2, fields, 6);

	(void) state;
	assert_string_equal(call->method, "POST");
	assert_string_equal(call->path, "/services/data/v66.0/composite/sobjects/My%20Object");
	assert_string_equal(call->body,
						"{\"ids\":[\"" ID1 "\",\"a\\\"b\"],"
						"\"fields\":[\"Id\",\"LastModifiedDate\",\"LastModifiedById\",\"SystemModstamp\","
						"\"Name\",\"Site\"]}");
	assert_int_equal(call->body_len, strlen(call->body));
	call = rest_retrieve("66.0", "A", ids, 0, NULL, 0);
	assert_string_equal(call->body,
						"{\"ids\":[],\"fields\":[\"Id\",\"LastModifiedDate\",\"LastModifiedById\","
						"\"SystemModstamp\"]}");
}

#define SELECTED "SELECT Id,LastModifiedDate,LastModifiedById,SystemModstamp,"

static void
find_request(void **state)
{
	static const char *const keys[] = {"a", "O'Neil\\", "x\ny\"", "ä"};
	static const char *const numbers[] = {"' OR Name != '", "007", "1.0", "12"};
	static const char *const fields[] = {"Name", "pg_id__c", "Site"};

	(void) state;
	assert_string_equal(
		soql_of(rest_find("66.0", &(RestTarget){"Account", "Pg_Id__c", false}, keys, 4, fields, 3), "query"),
		SELECTED "Pg_Id__c,Name,Site FROM Account WHERE Pg_Id__c IN "
				 "('a','O\\'Neil\\\\','x\\u000Ay\\\"','ä')");
	assert_int_equal(taken, 4);
	assert_string_equal(
		soql_of(rest_find("66.0", &(RestTarget){"Account", "No__c", true}, numbers, 4, NULL, 0), "query"),
		SELECTED "No__c FROM Account WHERE No__c IN (7,1,12)");
	assert_int_equal(taken, 4);
	assert_string_equal(
		soql_of(rest_find("66.0", &(RestTarget){"Account", "No__c", true}, numbers, 1, NULL, 0), "query"),
		SELECTED "No__c FROM Account WHERE Id = NULL");
	assert_int_equal(taken, 1);
}

/* All keys are asked once, in as many requests as it takes, none of them too long. */
static void
find_many(const char *const *keys, int n, int most)
{
	int next = 0;
	int requests = 0;

	while (next < n)
	{
		RestCall *call =
			rest_find("66.0", &(RestTarget){"Account", "K__c", false}, keys + next, n - next, asked, NASKED);
		char *soql = soql_of(call, "query");
		char *p = strstr(soql, "IN (") + 4;

		assert_true(count_characters(soql) <= 100000);
		assert_true(call->body_len <= 500000);
		assert_true(taken > 0);
		for (p = strtok(p, ",)"); p != NULL; p = strtok(NULL, ",)"))
		{
			assert_string_equal(p, psprintf("'%s'", keys[next++]));
			taken--;
		}
		assert_int_equal(taken, 0);
		requests++;
	}
	assert_int_equal(next, n);
	assert_in_range(requests, 1, most);
}

/* All records, and fields of parents, which come inside these. */
static void
scan_request(void **state)
{
	static const char *const fields[] = {"Name", "pg_id__c", "ParentId", "Parent.PG_Key__c"};

	(void) state;
	assert_string_equal(soql_of(rest_scan("66.0", &(RestTarget){"Account", "Pg_Id__c"}, fields, 4), "query"),
						SELECTED
						"Pg_Id__c,Name,ParentId,Parent.PG_Key__c FROM Account WHERE Pg_Id__c != null");
	assert_string_equal(soql_of(rest_scan("66.0", &(RestTarget){"Account", "Pg_Id__c"}, NULL, 0), "query"),
						SELECTED "Pg_Id__c FROM Account WHERE Pg_Id__c != null");
}

static void
parent_values(void **state)
{
	static const char *const fields[] = {"Parent.PG_Key__c", "Parent.No__c", "Parent.Owner.Name",
										 "Other__r.Name"};
	static const char *const bad[] = {"\"Parent\":\"text\"", "\"Parent\":[]", "\"Parent\":7",
									  "\"Parent\":{\"PG_Key__c\":{}}",
									  "\"Parent\":{\"PG_Key__c\":\"a\\u0000\"}"};
	const char *body = QUERY(RECORD(
		ID1,
		",\"K__c\":\"a\",\"Parent\":{\"attributes\":{\"type\":\"A\"},\"pg_key__c\":\"b\",\"No__c\":1.5,"
		"\"Owner\":{\"Name\":\"c\"}},\"Other__r\":null") "," RECORD(ID2, ",\"K__c\":\"d\",\"Parent\":null"));
	RestRead *reads;
	int n;
	RestPage page;

	(void) state;
	assert_true(rest_parse_find(body, strlen(body), "K__c", fields, 4, &reads, &n, &page));
	assert_int_equal(n, 2);
	assert_string_equal(reads[0].values[0].text, "b");
	assert_int_equal(reads[0].values[1].kind, FV_NUMBER);
	assert_string_equal(reads[0].values[1].text, "1.5");
	assert_string_equal(reads[0].values[2].text, "c");
	assert_int_equal(reads[0].values[3].kind, FV_NULL);
	assert_int_equal(reads[1].values[0].kind, FV_NULL);
	assert_int_equal(reads[1].values[3].kind, FV_ABSENT);
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		char *broken = psprintf(QUERY(RECORD(ID1, ",\"K__c\":\"a\",%s")), bad[i]);

		assert_false(rest_parse_find(broken, strlen(broken), "K__c", fields, 4, &reads, &n, &page));
		assert_non_null(page.error);
	}
}

static void
find_of_many_keys(void **state)
{
	const char *keys[5000];
	char *long_key = palloc(4097);

	(void) state;
	for (int i = 0; i < 5000; i++)
		keys[i] = psprintf("%d", i);
	find_many(keys, 5000, 1);
	for (int i = 0; i < 2000; i++)
		keys[i] = psprintf("%0255d", i);
	find_many(keys, 2000, 6);

	/* three bytes a character, nine when encoded: bytes are bounded too */
	for (int i = 0; i < 2000; i++)
		keys[i] = psprintf("€€€€€€€€€€€€€€€€€€€€€€€€€€€€€€%d", i);
	find_many(keys, 2000, 2);

	/* a value that no field can hold is passed over, and spoils no query */
	memset(long_key, 'x', 4096);
	long_key[4096] = '\0';
	keys[0] = long_key;
	keys[1] = "b";
	assert_string_equal(
		soql_of(rest_find("66.0", &(RestTarget){"A", "K__c", false}, keys, 2, NULL, 0), "query"),
		SELECTED "K__c FROM A WHERE K__c IN ('b')");
	assert_int_equal(taken, 2);
}

static void
find_deleted_request(void **state)
{
	static const char *const ids[] = {ID1, ID2};
	const char *many[2000];

	(void) state;
	assert_string_equal(soql_of(rest_find_deleted("66.0", "Account", true, ids, 2), "queryAll"),
						SELECTED "IsDeleted,MasterRecordId FROM Account WHERE Id IN ('" ID1 "','" ID2 "')");
	assert_int_equal(taken, 2);
	assert_string_equal(soql_of(rest_find_deleted("66.0", "B__c", false, ids, 1), "queryAll"),
						SELECTED "IsDeleted FROM B__c WHERE Id IN ('" ID1 "')");

	/* what is no Id would fail the whole query */
	many[0] = "x";
	many[1] = "001xx0000004GxE";
	many[2] = "') OR (Name != '";
	many[3] = "001xx0000004GxDAAV";
	assert_string_equal(soql_of(rest_find_deleted("66.0", "B__c", false, many, 4), "queryAll"),
						SELECTED "IsDeleted FROM B__c WHERE Id IN ('" ID2 "')");
	assert_int_equal(taken, 4);
	for (int i = 0; i < 2000; i++)
		many[i] = ID1;
	taken = rest_find_deleted("66.0", "Account", true, many, 2000)->taken;
	assert_int_equal(taken, 2000);
}

static void
history_request(void **state)
{
	static const char *const ids[] = {ID1, ID2};
	static const char *const fields[] = {"Name", "AccountId", "OwnerId", "My_Id__c", "Id"};

	(void) state;
	assert_string_equal(
		soql_of(rest_history("66.0", "AccountHistory", "AccountId", ids, 2, fields, 4, LMD_TIME + 999999),
				"query"),
		"SELECT AccountId,Field,CreatedDate,CreatedById FROM AccountHistory WHERE "
		"Field IN ('Name','AccountId','Account','OwnerId','Owner','My_Id__c') AND "
		"CreatedDate >= 2022-03-17T16:21:24Z AND AccountId IN ('" ID1 "','" ID2
		"') ORDER BY CreatedDate DESC");
	assert_int_equal(taken, 2);

	/* no bound that Salesforce could not read */
	assert_string_equal(
		soql_of(rest_history("66.0", "X__History", "ParentId", ids, 1, fields + 4, 1, PG_INT64_MIN), "query"),
		"SELECT ParentId,Field,CreatedDate,CreatedById FROM X__History WHERE Field IN ('Id') AND "
		"ParentId IN ('" ID1 "') ORDER BY CreatedDate DESC");
	assert_non_null(strstr(
		soql_of(rest_history("66.0", "X__History", "ParentId", ids, 1, fields, 1, PG_INT64_MAX), "query"),
		" AND CreatedDate >= 4000-12-31T00:00:00Z AND "));
	assert_non_null(
		strstr(soql_of(rest_history("66.0", "X__History", "ParentId", ids, 1, NULL, 0, 0), "query"),
			   " WHERE Id = NULL AND CreatedDate >= 2000-01-01T00:00:00Z AND "));
}

static void
users_request(void **state)
{
	static const char *const ids[] = {USER};

	(void) state;
	assert_string_equal(soql_of(rest_users("66.0", ids, 1), "query"),
						"SELECT Id,Name FROM User WHERE Id IN ('" USER "')");
	assert_int_equal(taken, 1);
	assert_string_equal(soql_of(rest_users("66.0", ids, 0), "query"),
						"SELECT Id,Name FROM User WHERE Id = NULL");
	assert_int_equal(taken, 0);
}

/* ------------------------------------------------------------------------
 * Replies of retrieves
 * ------------------------------------------------------------------------
 */

static const char retrieve_sample[] =
	"[" RECORD(ID1, ",\"NAME\":\"a\\u00e4\\n\",\"Amount__c\":1.50,\"On__c\":true,\"Site\":null") ",null," RECORD(
		"001xx0000004GxE", ",\"Name\":\"\",\"Amount__c\":9.12260031E8,\"On__c\":false,\"Site\":12") "]\n";

static void
check_first(const RestRead *read)
{
	assert_true(read->found);
	assert_false(read->deleted);
	assert_string_equal(read->id, ID1);
	assert_true(read->last_modified == LMD_TIME);
	assert_true(read->system_modstamp == LMD_TIME + 2000000);
	assert_string_equal(read->last_modified_by, USER);
	assert_null(read->master_record_id);
	assert_int_equal(read->values[0].kind, FV_STRING);
	assert_string_equal(read->values[0].text, "aä\n");
	assert_int_equal(read->values[1].kind, FV_NUMBER);
	assert_string_equal(read->values[1].text, "1.50");
	assert_int_equal(read->values[2].kind, FV_BOOL);
	assert_true(read->values[2].boolean);
	assert_int_equal(read->values[3].kind, FV_NULL);
	assert_int_equal(read->values[4].kind, FV_ABSENT);
}

static void
retrieve_reply(void **state)
{
	static const char *const ids[] = {ID1, USER, ID2};
	RestRead reads[3];
	char *error;

	(void) state;
	assert_true(
		rest_parse_retrieve(retrieve_sample, strlen(retrieve_sample), ids, 3, asked, NASKED, reads, &error));
	assert_null(error);
	check_first(&reads[0]);
	assert_null(reads[0].key);
	assert_false(reads[1].found);
	assert_null(reads[1].id);
	assert_string_equal(reads[2].id, ID2);
	assert_string_equal(reads[2].values[0].text, "");
	assert_string_equal(reads[2].values[1].text, "9.12260031E8");
	assert_false(reads[2].values[2].boolean);
	assert_string_equal(reads[2].values[3].text, "12");

	/* the Id may have been asked in its short form */
	assert_true(rest_parse_retrieve(retrieve_sample, strlen(retrieve_sample),
									(const char *const[]){"001xx0000004GxD", USER, ID2}, 3, NULL, 0, reads,
									&error));
	assert_true(rest_parse_retrieve("[]", 2, ids, 0, asked, NASKED, reads, &error));
}

/* Numbers come through digit for digit, or not at all. */
static void
numbers(void **state)
{
	static const struct
	{
		const char *json;
		bool ok;
	} cases[] = {
		{"0", true},
		{"-0.0", true},
		{"0.1000000000000000055511151231257827", true},
		{"123456789012345678.900", true},
		{"999999999999999999", true},
		{"9223372036854775807", true},
		{"-9223372036854775807", true},
		{"1.0E10", true},
		{"1E+400", true},
		{"1.0e-7", true},
		{"99999999999999999999999", false},
		{"-99999999999999999999999", false},
		{"NaN", false},
		{"Infinity", false},
		{"-Infinity", false},
		{"1e5001", false},
		{"0x1", false},
		{".5", false},
		{"+1", false},
	};
	static const char *const fields[] = {"N__c"};
	static const char *const ids[] = {ID1};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		/* a letter that is not ASCII changes how strictly json-c reads */
		for (int letter = 0; letter < 2; letter++)
		{
			char *body = psprintf("[{" SYSTEM ",\"Id\":\"" ID1 "\",\"N__c\":%s,\"%s\":1}]", cases[i].json,
								  letter ? "ä" : "a");
			RestRead read;
			char *error;
			bool ok = rest_parse_retrieve(body, strlen(body), ids, 1, fields, 1, &read, &error);

			if (ok != cases[i].ok)
				fail_msg("%s is %s", cases[i].json, ok ? read.values[0].text : error);
			if (ok)
				assert_string_equal(read.values[0].text, cases[i].json);
		}
	}
}

static void
retrieve_bad_replies(void **state)
{
	static const char *const bad[] = {
		"",
		"null",
		"{}",
		"[]",
		"<html>",
		"[{\"errorCode\":\"INVALID_FIELD\",\"message\":\"No such column\"}]",
		"[null,null]",
		"[[]]",
		"[1]",
		"[\"" ID1 "\"]",
		"[{}]",
		/* another record, or none */
		"[" RECORD(ID2, "") "]",
		"[" RECORD("001xx0000004GxDAAV", "") "]",
		"[" RECORD("", "") "]",
		"[{" SYSTEM "}]",
		"[{" SYSTEM ",\"Id\":7}]",
		"[" RECORD(ID1, "") "," RECORD(ID1, "") "]",
		/* when? */
		"[{\"Id\":\"" ID1 "\",\"SystemModstamp\":\"" STAMP "\"}]",
		"[{\"Id\":\"" ID1 "\",\"LastModifiedDate\":\"" LMD "\"}]",
		"[{\"Id\":\"" ID1 "\",\"LastModifiedDate\":null,\"SystemModstamp\":\"" STAMP "\"}]",
		"[{\"Id\":\"" ID1 "\",\"LastModifiedDate\":5,\"SystemModstamp\":\"" STAMP "\"}]",
		"[{\"Id\":\"" ID1 "\",\"LastModifiedDate\":\"yesterday\",\"SystemModstamp\":\"" STAMP "\"}]",
		/* values that no field has */
		"[" RECORD(ID1, ",\"Name\":{}") "]",
		"[" RECORD(ID1, ",\"Name\":[]") "]",
		"[" RECORD(ID1, ",\"Name\":\"a\\u0000b\"") "]",
		"[" RECORD(ID1, ",\"Name\":NaN") "]",
	};
	static const char *const ids[] = {ID1};

	(void) state;
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		RestRead read;
		char *error = NULL;

		if (rest_parse_retrieve(bad[i], strlen(bad[i]), ids, 1, asked, NASKED, &read, &error) ||
			error == NULL)
			fail_msg("accepted: %s", bad[i]);
	}
}

/* ------------------------------------------------------------------------
 * Replies of queries
 * ------------------------------------------------------------------------
 */

typedef struct Found
{
	bool ok;
	RestRead *reads;
	int n;
	RestPage page;
} Found;

static Found
parse_find(const char *body, size_t len)
{
	Found f;

	f.ok = rest_parse_find(body, len, "Pg_Id__c", asked, NASKED, &f.reads, &f.n, &f.page);
	return f;
}

static const char find_sample[] = REPLY(PART(
	MORE(
		RECORD(ID1, ",\"PG_ID__C\":\" K1\",\"Name\":\"a\xc3\xa4\\n\",\"Amount__c\":1.50,\"On__c\":true,\"Site\":null") "," RECORD(
			ID2, ",\"Pg_Id__c\":1.2E3"),
		NEXT),
	"200", "part1of1"));

static void
find_reply(void **state)
{
	Found f = parse_find(find_sample, strlen(find_sample));
	const char *page = PAGE(RECORD("001xx0000004GxD", ",\"Pg_Id__c\":42.0"));
	const char *empty = REPLY(PART("{\"totalSize\":0,\"done\":true,\"records\":[]}", "200", "part1of1"));

	(void) state;
	assert_true(f.ok);
	assert_null(f.page.error);
	assert_int_equal(f.n, 2);
	check_first(&f.reads[0]);
	assert_string_equal(f.reads[0].key, " K1");
	assert_string_equal(f.reads[1].key, "1200");
	assert_int_equal(f.reads[1].values[0].kind, FV_ABSENT);
	assert_string_equal(f.page.next, NEXT);

	/* the next page is a plain query's */
	f = parse_find(page, strlen(page));
	assert_true(f.ok);
	assert_int_equal(f.n, 1);
	assert_string_equal(f.reads[0].key, "42");
	assert_string_equal(f.reads[0].id, ID1);
	assert_null(f.page.next);

	f = parse_find(empty, strlen(empty));
	assert_true(f.ok);
	assert_int_equal(f.n, 0);
}

static void
find_failure(void **state)
{
	const char *failed = REPLY(
		PART("[{\"errorCode\":\"INVALID_FIELD\",\"message\":\"\\nNo such column\"}]", "400", "part1of1"));
	const char *bare = REPLY(PART("{\"errorCode\":\"QUERY_TIMEOUT\",\"message\":\"m\"}", "400", "part1of1"));
	const char *silent = REPLY(PART("null", "503", "part1of1"));
	Found f = parse_find(failed, strlen(failed));

	(void) state;
	assert_false(f.ok);
	assert_null(f.page.error);
	assert_int_equal(f.page.http_status, 400);
	assert_string_equal(f.page.failure.code, "INVALID_FIELD");
	assert_string_equal(f.page.failure.message, " No such column");
	assert_null(f.reads);
	f = parse_find(bare, strlen(bare));
	assert_false(f.ok);
	assert_string_equal(f.page.failure.code, "QUERY_TIMEOUT");
	f = parse_find(silent, strlen(silent));
	assert_false(f.ok);
	assert_null(f.page.error);
	assert_int_equal(f.page.http_status, 503);
	assert_null(f.page.failure.code);
	assert_string_equal(f.page.failure.message, "HTTP 503 without a reason");
}

/* What no query answers, whatever was asked. */
static const char *const bad_pages[] = {
	"",
	"null",
	"[]",
	"{}",
	"7",
	"<html>",
	REPLY(""),
	REPLY("null"),
	REPLY(PART(PAGE(""), "200", "part1of2")),
	REPLY(PART(PAGE(""), "200", "q")),
	REPLY(PART(PAGE(""), "\"200\"", "part1of1")),
	REPLY(PART("null", "200", "part1of1")),
	REPLY(PART("[]", "200", "part1of1")),
	QUERY("null"),
	QUERY("[]"),
	QUERY("7"),
	QUERY("{}"),
	"{\"totalSize\":1,\"records\":[]}",
	"{\"totalSize\":1,\"done\":false,\"records\":[]}",
	"{\"totalSize\":1,\"done\":true,\"nextRecordsUrl\":\"" NEXT "\",\"records\":[]}",
	"{\"totalSize\":1,\"done\":\"true\",\"records\":[]}",
	"{\"totalSize\":1,\"done\":true,\"records\":{}}",
	MORE("", "https://evil.example/services/data/"),
	MORE("", "//evil.example/services/data/"),
	MORE("", "/services/data/../../x"),
	MORE("", "/services/data/v66.0/query/a\\r\\nHost: b"),
	MORE("", ""),
	REPLY(PART(MORE("", NEXT), "200", "part1of2") "," PART(MORE("", NEXT), "200", "part2of2")),
};

static void
bad_pages_of_all(void **state)
{
	(void) state;
	for (size_t i = 0; i < lengthof(bad_pages); i++)
	{
		size_t len = strlen(bad_pages[i]);
		Found f = parse_find(bad_pages[i], len);
		RestChange *changes;
		RestUser *users;
		RestPage page;
		int n;

		if (f.ok || f.page.error == NULL)
			fail_msg("found: %s", bad_pages[i]);
		assert_null(f.reads);
		assert_null(f.page.next);
		assert_int_equal(f.n, 0);
		if (rest_parse_find_deleted(bad_pages[i], len, &f.reads, &f.n, &f.page) || f.page.error == NULL)
			fail_msg("found deleted: %s", bad_pages[i]);
		if (rest_parse_history(bad_pages[i], len, "AccountId", asked, NASKED, &changes, &n, &page) ||
			page.error == NULL)
			fail_msg("taken for history: %s", bad_pages[i]);
		assert_null(changes);
		if (rest_parse_users(bad_pages[i], len, &users, &n, &page) || page.error == NULL)
			fail_msg("taken for users: %s", bad_pages[i]);
		assert_null(users);
	}
}

static void
find_bad_records(void **state)
{
	static const char *const bad[] = {
		QUERY(RECORD(ID1, "")),
		QUERY(RECORD(ID1, ",\"Pg_Id__c\":null")),
		QUERY(RECORD(ID1, ",\"Pg_Id__c\":true")),
		QUERY(RECORD(ID1, ",\"Pg_Id__c\":{}")),
		QUERY(RECORD(ID1, ",\"Pg_Id__c\":NaN")),
		QUERY(RECORD(ID1, ",\"Pg_Id__c\":\"a\\u0000\"")),
		QUERY(RECORD("short", ",\"Pg_Id__c\":\"a\"")),
		QUERY(RECORD(ID1, ",\"Pg_Id__c\":\"a\",\"Name\":{}")),
		QUERY("{\"Id\":\"" ID1 "\",\"Pg_Id__c\":\"a\"}"),
		/* the second is bad, and there is a page that could be followed */
		REPLY(PART(MORE(RECORD(ID1, ",\"Pg_Id__c\":\"a\"") ",null", NEXT), "200", "part1of1")),
	};

	(void) state;
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		Found f = parse_find(bad[i], strlen(bad[i]));

		if (f.ok || f.page.error == NULL)
			fail_msg("accepted: %s", bad[i]);
		assert_null(f.reads);
		assert_null(f.page.next);
		assert_int_equal(f.n, 0);
	}
}

static void
find_deleted_reply(void **state)
{
	static const char reply[] =
		QUERY(RECORD(ID1, ",\"IsDeleted\":true,\"MasterRecordId\":\"001xx0000004GxE\"") "," RECORD(
			ID2, ",\"IsDeleted\":false"));
	static const char *const bad[] = {
		QUERY(RECORD(ID1, "")),
		QUERY(RECORD(ID1, ",\"IsDeleted\":null")),
		QUERY(RECORD(ID1, ",\"IsDeleted\":\"true\"")),
		QUERY("{\"Id\":\"" ID1 "\",\"IsDeleted\":true}"),
	};
	RestRead *reads;
	RestPage page;
	int n;

	(void) state;
	assert_true(rest_parse_find_deleted(reply, strlen(reply), &reads, &n, &page));
	assert_int_equal(n, 2);
	assert_true(reads[0].found && reads[0].deleted);
	assert_string_equal(reads[0].id, ID1);
	assert_string_equal(reads[0].master_record_id, ID2);
	assert_true(reads[0].last_modified == LMD_TIME);
	assert_string_equal(reads[0].last_modified_by, USER);
	assert_true(reads[1].found && !reads[1].deleted);
	assert_null(reads[1].master_record_id);
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		if (rest_parse_find_deleted(bad[i], strlen(bad[i]), &reads, &n, &page) || page.error == NULL)
			fail_msg("accepted: %s", bad[i]);
	}
}

#define CHANGE(id, field, at, by)                                                                            \
	"{\"AccountId\":\"" id "\",\"Field\":\"" field "\",\"CreatedDate\":\"" at "\",\"CreatedById\":" by "}"

static const char history_sample[] =
	QUERY(CHANGE(ID1, "Name", STAMP, "\"" USER "\"") "," CHANGE(ID1, "Owner", LMD, "null") "," CHANGE(
		ID1, "created", LMD, "\"" USER "\"") "," CHANGE("001xx0000004GxE", "ownerid", LMD, "\"" USER "\""));

static void
history_reply(void **state)
{
	static const char *const fields[] = {"Name", "OwnerId"};
	static const char *const bad[] = {
		QUERY(CHANGE("x", "Name", LMD, "null")),
		QUERY(CHANGE(ID1, "Name", "x", "null")),
		QUERY("{\"AccountId\":\"" ID1 "\",\"Field\":\"Name\"}"),
		QUERY("{\"Field\":\"Name\",\"CreatedDate\":\"" LMD "\"}"),
	};
	RestChange *changes;
	RestPage page;
	int n;

	(void) state;
	assert_true(rest_parse_history(history_sample, strlen(history_sample), "accountid", fields, 2, &changes,
								   &n, &page));
	assert_int_equal(n, 3);
	assert_string_equal(changes[0].id, ID1);
	assert_int_equal(changes[0].field, 0);
	assert_true(changes[0].at == LMD_TIME + 2000000);
	assert_string_equal(changes[0].by, USER);
	assert_int_equal(changes[1].field, 1);
	assert_null(changes[1].by);
	assert_string_equal(changes[2].id, ID2);
	assert_int_equal(changes[2].field, 1);

	/* rows of what was not asked are passed over; those that make no sense are not */
	assert_true(rest_parse_history(history_sample, strlen(history_sample), "AccountId", fields, 0, &changes,
								   &n, &page));
	assert_int_equal(n, 0);
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		if (rest_parse_history(bad[i], strlen(bad[i]), "AccountId", fields, 2, &changes, &n, &page) ||
			page.error == NULL)
			fail_msg("accepted: %s", bad[i]);
	}
}

static const char users_sample[] = QUERY(
	"{\"Id\":\"" USER "\",\"Name\":\"Ann\\u0000\\nO'Neil\"},{\"Id\":\"005000000000002\",\"Name\":\"\"}");

static void
users_reply(void **state)
{
	static const char *const bad[] = {
		QUERY("{\"Id\":\"" USER "\"}"),
		QUERY("{\"Id\":\"" USER "\",\"Name\":null}"),
		QUERY("{\"Id\":\"" USER "\",\"Name\":7}"),
		QUERY("{\"Name\":\"Ann\"}"),
		QUERY("{\"Id\":\"x\",\"Name\":\"Ann\"}"),
	};
	StringInfoData large;
	RestUser *users;
	RestPage page;
	int n;

	(void) state;
	assert_true(rest_parse_users(users_sample, strlen(users_sample), &users, &n, &page));
	assert_int_equal(n, 2);
	assert_string_equal(users[0].id, USER);
	assert_string_equal(users[0].name, "Ann  O'Neil");
	assert_string_equal(users[1].name, "");
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		if (rest_parse_users(bad[i], strlen(bad[i]), &users, &n, &page) || page.error == NULL)
			fail_msg("accepted: %s", bad[i]);
	}

	/* names fit a log line */
	initStringInfo(&large);
	appendStringInfoString(&large,
						   "{\"totalSize\":1,\"done\":true,\"records\":[{\"Id\":\"" USER "\",\"Name\":\"");
	for (int i = 0; i < 5000; i++)
		appendStringInfoString(&large, "ä");
	appendStringInfoString(&large, "\"}]}");
	assert_true(rest_parse_users(large.data, (size_t) large.len, &users, &n, &page));
	assert_int_equal(strlen(users[0].name), 254);
}

/* Cut off at each byte, and mangled: refused or parsed, never worse. */
static void
survives_any_bytes(void **state)
{
	static const char *const samples[] = {retrieve_sample, find_sample, history_sample, users_sample};
	static const char *const ids[] = {ID1, USER, ID2};
	uint64_t seed = 4711;

	(void) state;
	for (size_t s = 0; s < lengthof(samples); s++)
	{
		/* what ends in blanks is whole without them */
		size_t len = strcspn(samples[s], "\n");

		for (size_t i = 0; i < len + 3000; i++)
		{
			bool cut = i < len;
			size_t n = cut ? i : len;
			char *copy = exact_copy(samples[s], n);
			RestRead reads[3];
			RestChange *changes;
			RestUser *users;
			RestPage page;
			Found f;
			char *error;
			int count;
			bool ok;

			for (int j = 0; j < 3 && !cut; j++)
				copy[next_random(&seed) % n] = (char) next_random(&seed);
			ok = rest_parse_retrieve(copy, n, ids, 3, asked, NASKED, reads, &error);
			assert_true(ok == (error == NULL));
			assert_false(ok && cut);
			f = parse_find(copy, n);
			assert_true(f.ok == (f.page.error == NULL && f.page.http_status == 0));
			assert_false(f.ok && cut);
			assert_false(rest_parse_find_deleted(copy, n, &f.reads, &f.n, &f.page) && cut);
			assert_false(rest_parse_history(copy, n, "AccountId", asked, NASKED, &changes, &count, &page) &&
						 cut);
			assert_false(rest_parse_users(copy, n, &users, &count, &page) && cut);
			free(copy);
		}
	}
}

/* ------------------------------------------------------------------------
 * Times
 * ------------------------------------------------------------------------
 */

static void
times(void **state)
{
	static const struct
	{
		const char *text;
		int64 time;
	} good[] = {
		{LMD, LMD_TIME},
		{"2022-03-17T16:21:24Z", LMD_TIME},
		{"2022-03-17T16:21:24.000Z", LMD_TIME},
		{"2022-03-17T16:21:24+00:00", LMD_TIME},
		{"2022-03-17T21:51:24.000+05:30", LMD_TIME},
		{"2022-03-17T06:21:24-1000", LMD_TIME},
		{"2022-03-18T00:06:24+07:45", LMD_TIME},
		{"2022-03-17T16:21:24.1Z", LMD_TIME + 100000},
		{"2022-03-17T16:21:24.123456Z", LMD_TIME + 123456},
		{"2022-03-17T16:21:24.123456999Z", LMD_TIME + 123456},
		{"2000-01-01T00:00:00Z", 0},
		{"1999-12-31T23:59:59.999999Z", -1},
		{"2000-02-29T00:00:00Z", INT64CONST(59) * 86400 * 1000000},
		{"2024-02-29T00:00:00Z", INT64CONST(762480000000000)},
		{"1970-01-01T00:00:00Z", INT64CONST(-946684800000000)},
		{"1700-01-01T00:00:00Z", INT64CONST(-9467020800000000)},
		{"4000-12-31T00:00:00Z", INT64CONST(63145440000000000)},
		{"9999-12-31T23:59:59Z", INT64CONST(252455615999000000)},
		{"0001-01-01T00:00:00Z", INT64CONST(-63082281600000000)},
	};
	static const char *const bad[] = {
		"",
		"2022",
		"2022-03-17",
		"2022-03-17T16:21:24",
		"2022-03-17 16:21:24Z",
		"2022-03-17t16:21:24Z",
		"2022-03-17T16:21:24z",
		"2022-03-17T16:21:24.Z",
		"2022-03-17T16:21:24,0Z",
		"2022-03-17T16:21Z",
		"2022-3-17T16:21:24Z",
		"22-03-17T16:21:24Z",
		"+2022-03-17T16:21:24Z",
		"-022-03-17T16:21:24Z",
		"12022-03-17T16:21:24Z",
		"2022-00-17T16:21:24Z",
		"2022-13-17T16:21:24Z",
		"2022-03-00T16:21:24Z",
		"2022-03-32T16:21:24Z",
		"2022-04-31T16:21:24Z",
		"2022-02-29T16:21:24Z",
		"1900-02-29T16:21:24Z",
		"2022-03-17T24:00:00Z",
		"2022-03-17T16:60:24Z",
		"2022-03-17T16:21:60Z",
		"2022-03-17T16:21:24+00",
		"2022-03-17T16:21:24+0",
		"2022-03-17T16:21:24+000",
		"2022-03-17T16:21:24+00:",
		"2022-03-17T16:21:24+00000",
		"2022-03-17T16:21:24+24:00",
		"2022-03-17T16:21:24+00:60",
		"2022-03-17T16:21:24ZZ",
		"2022-03-17T16:21:24Z ",
		" 2022-03-17T16:21:24Z",
		"infinity",
		"٢٠٢٢-03-17T16:21:24Z",
	};

	(void) state;
	for (size_t i = 0; i < lengthof(good); i++)
	{
		int64 time;

		if (!rest_parse_time(good[i].text, &time) || time != good[i].time)
			fail_msg("%s is %lld", good[i].text, (long long) time);
	}
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		int64 time;

		if (rest_parse_time(bad[i], &time))
			fail_msg("%s is %lld", bad[i], (long long) time);
	}
}

/* Each day of 800 years, there and back, through a query's bound. */
static void
all_days(void **state)
{
	static const char *const ids[] = {ID1};
	int64 day = INT64CONST(86400) * 1000000;
	int64 time = INT64CONST(-9467020800000000) + day;

	(void) state;
	for (int i = 0; i < 800 * 365; i++)
	{
		RestCall *call = rest_history("66.0", "H", "P", ids, 1, asked, 0, time);
		char *bound = strstr(call->body, "CreatedDate%20%3E%3D%20") + strlen("CreatedDate%20%3E%3D%20");
		char *text = decoded(pnstrdup(bound, strcspn(bound, "Z") + 1));
		int64 again;

		assert_true(rest_parse_time(text, &again));
		assert_true(again == time);
		time += day;
		pfree(call->body);
		pfree(call->path);
		pfree(call);
		pfree(text);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(retrieve_request),
		cmocka_unit_test(find_request),
		cmocka_unit_test(scan_request),
		cmocka_unit_test(parent_values),
		cmocka_unit_test(find_of_many_keys),
		cmocka_unit_test(find_deleted_request),
		cmocka_unit_test(history_request),
		cmocka_unit_test(users_request),
		cmocka_unit_test(retrieve_reply),
		cmocka_unit_test(numbers),
		cmocka_unit_test(retrieve_bad_replies),
		cmocka_unit_test(find_reply),
		cmocka_unit_test(find_failure),
		cmocka_unit_test(bad_pages_of_all),
		cmocka_unit_test(find_bad_records),
		cmocka_unit_test(find_deleted_reply),
		cmocka_unit_test(history_reply),
		cmocka_unit_test(users_reply),
		cmocka_unit_test(survives_any_bytes),
		cmocka_unit_test(times),
		cmocka_unit_test(all_days),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
