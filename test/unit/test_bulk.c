/* Requests and replies of Bulk API 2.0: bulk.c, bulk_reply.c */
#define SFSYNC_USE_JSON_C
#include "unit.h"

#include "bulk.h"
#include "rest_json.h"

#define JOB "7505fEXAMPLE4C2AAM"
#define JOB18 "7505f0000000001AAA"
#define ID1 "001xx0000004GxDAAU"
#define ID2 "001xx0000004GxEAAU"

/* ------------------------------------------------------------------------
 * Helpers
 * ------------------------------------------------------------------------
 */

static const FieldLookup to_account = {"Account", "PG_Key__c", false, NULL, 1};
static const FieldLookup to_who = {"Who", "Email", false, "Contact", 1};

static RestField
field(const char *name, FieldValueKind kind, const char *text)
{
	RestField f = {name, {kind, false, text ? pstrdup(text) : NULL, NULL}};

	return f;
}

static RestField
lookup(const char *name, const FieldLookup *relation, const char *key)
{
	RestField f = {name, {FV_LOOKUP, false, pstrdup(key), relation}};

	return f;
}

static const char *
member(const char *json, const char *key)
{
	json_object *parsed = rest_parse_json(json, strlen(json));
	json_object *value;

	assert_non_null(parsed);
	return json_object_object_get_ex(parsed, key, &value) ? json_object_get_string(value) : NULL;
}

static FieldValueKind
kind_of(const char *name, void *arg)
{
	if (strcmp(name, "Amount__c") == 0)
		return FV_NUMBER;
	return strcmp(name, "On__c") == 0 ? FV_BOOL : FV_STRING;
}

/* All results of a text, fed in pieces of a size; the last answer is returned. */
static BulkRead
read_all(BulkResultSet set, const char *match, const char *text, size_t len, size_t piece,
		 BulkResult *results, int max, int *n)
{
	BulkReader *reader = bulk_reader_create(set, match);
	size_t at = 0;
	BulkRead read;

	*n = 0;
	for (;;)
	{
		BulkResult result;

		read = bulk_reader_next(reader, &result);
		if (read == BULK_ROW)
		{
			assert_true(*n < max);
			result.match = pstrdup(result.match);
			results[(*n)++] = result;
		}
		else if (read == BULK_MORE)
		{
			size_t size = Min(piece, len - at);
			char *copy;

			if (size == 0)
			{
				bulk_reader_end(reader);
				continue;
			}

			/* leaked to the process: it must stay until the reader asks again */
			copy = exact_copy(text + at, size);
			bulk_reader_feed(reader, copy, size);
			at += size;
		}
		else
			break;
	}
	bulk_reader_free(reader);
	return read;
}

static int
count(BulkResultSet set, const char *text, BulkRead expected)
{
	BulkResult results[20];
	int n;

	assert_int_equal(read_all(set, "Key__c", text, strlen(text), 7, results, 20, &n), expected);
	return n;
}

/* ------------------------------------------------------------------------
 * Requests
 * ------------------------------------------------------------------------
 */

static void
requests(void **state)
{
	RestCall *call = bulk_create("66.0", "Account", BULK_UPSERT, "PG_Key__c");

	assert_string_equal(call->method, "POST");
	assert_string_equal(call->path, "/services/data/v66.0/jobs/ingest");
	assert_int_equal(call->body_len, strlen(call->body));
	assert_string_equal(member(call->body, "object"), "Account");
	assert_string_equal(member(call->body, "operation"), "upsert");
	assert_string_equal(member(call->body, "externalIdFieldName"), "PG_Key__c");
	assert_string_equal(member(call->body, "contentType"), "CSV");
	assert_string_equal(member(call->body, "lineEnding"), "LF");
	call = bulk_create("66.0", "Account", BULK_HARD_DELETE, "PG_Key__c");
	assert_string_equal(member(call->body, "operation"), "hardDelete");
	assert_null(member(call->body, "externalIdFieldName"));

	call = bulk_upload("66.0", JOB18);
	assert_string_equal(call->method, "PUT");
	assert_string_equal(call->path, "/services/data/v66.0/jobs/ingest/" JOB18 "/batches");
	call = bulk_close("66.0", JOB18);
	assert_string_equal(call->method, "PATCH");
	assert_string_equal(call->path, "/services/data/v66.0/jobs/ingest/" JOB18);
	assert_string_equal(call->body, "{\"state\":\"UploadComplete\"}");
	assert_string_equal(bulk_abort("66.0", JOB18)->body, "{\"state\":\"Aborted\"}");
	assert_string_equal(bulk_info("66.0", JOB18)->method, "GET");
	assert_string_equal(bulk_results("66.0", JOB18, BULK_FAILED, NULL)->path,
						"/services/data/v66.0/jobs/ingest/" JOB18 "/failedResults/");
	assert_string_equal(bulk_results("66.0", JOB18, BULK_SUCCESSFUL, "a1")->path,
						"/services/data/v66.0/jobs/ingest/" JOB18 "/successfulResults/?locator=a1");
	assert_string_equal(bulk_delete("66.0", JOB18)->method, "DELETE");
}

static void
operations(void **state)
{
	for (int i = BULK_INSERT; i <= BULK_HARD_DELETE; i++)
	{
		BulkOperation operation;

		assert_true(bulk_operation_from_name(bulk_operation_name((BulkOperation) i), &operation));
		assert_int_equal(operation, i);
	}
	assert_true(bulk_by_id(BULK_UPDATE));
	assert_false(bulk_by_id(BULK_UPSERT));
	assert_false(bulk_operation_from_name("merge", &(BulkOperation){0}));
}

static void
locators(void **state)
{
	char longest[600];

	assert_true(bulk_locator_valid("MTAwMDA"));
	assert_false(bulk_locator_valid("null"));
	assert_false(bulk_locator_valid(""));
	assert_false(bulk_locator_valid("a&b"));
	assert_false(bulk_locator_valid("a b"));
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_false(bulk_locator_valid(longest));
}

/* ------------------------------------------------------------------------
 * CSV that is sent
 * ------------------------------------------------------------------------
 */

static void
rows(void **state)
{
	RestField one[] = {field("Name", FV_STRING, "O\"Neil, \nInc"), field("Amount__c", FV_NUMBER, "12.50"),
					   field("Gone__c", FV_NULL, NULL), field("AccountId", FV_NULL, NULL)};
	RestField two[] = {field("On__c", FV_BOOL, NULL), field("Left__c", FV_ABSENT, NULL),
					   lookup("AccountId", &to_account, "p1"), lookup("WhoId", &to_who, "a@b.c"),
					   field("Name", FV_STRING, " \t ")};
	RestRecord records[] = {{NULL, "k1", one, lengthof(one)}, {NULL, " k,2", two, lengthof(two)}};
	BulkColumns *columns = bulk_columns(BULK_UPSERT, "PG_Key__c", records, 2);
	StringInfoData csv;

	two[0].value.boolean = true;
	initStringInfo(&csv);
	assert_true(bulk_header(&csv, columns));
	assert_string_equal(csv.data, "PG_Key__c,Account.PG_Key__c,AccountId,Amount__c,Contact:Who.Email,Gone__c,"
								  "Name,On__c\n");
	resetStringInfo(&csv);
	assert_true(bulk_row(&csv, columns, &records[0]));
	assert_string_equal(csv.data, "k1,,#N/A,12.50,,#N/A,\"O\"\"Neil, \nInc\",\n");
	resetStringInfo(&csv);
	assert_true(bulk_row(&csv, columns, &records[1]));
	assert_string_equal(csv.data, "\" k,2\",p1,,,a@b.c,,#N/A,true\n");
}

static void
a_field_without_a_column(void **state)
{
	RestField one[] = {field("Name", FV_STRING, "a")};
	RestField two[] = {field("Name", FV_STRING, "a"), field("Site", FV_STRING, "b")};
	RestRecord first = {NULL, "k1", one, 1};
	RestRecord second = {NULL, "k2", two, 2};
	BulkColumns *columns = bulk_columns(BULK_INSERT, "PG_Key__c", &first, 1);
	StringInfoData csv;

	initStringInfo(&csv);
	assert_true(bulk_row(&csv, columns, &first));
	assert_false(bulk_row(&csv, columns, &second));
	assert_string_equal(csv.data, "k1,a\n");
}

static void
by_id(void **state)
{
	RestField one[] = {field("Name", FV_STRING, "a")};
	RestRecord record = {ID1, NULL, one, 1};
	StringInfoData csv;
	BulkColumns *columns = bulk_columns(BULK_UPDATE, "PG_Key__c", &record, 1);

	initStringInfo(&csv);
	assert_true(bulk_header(&csv, columns));
	assert_true(bulk_row(&csv, columns, &record));
	assert_string_equal(csv.data, "Id,Name\n" ID1 ",a\n");
	resetStringInfo(&csv);
	record.nfields = 0;
	columns = bulk_columns(BULK_HARD_DELETE, "PG_Key__c", &record, 1);
	assert_true(bulk_header(&csv, columns));
	assert_true(bulk_row(&csv, columns, &record));
	assert_string_equal(csv.data, "Id\n" ID1 "\n");
}

static void
refusals(void **state)
{
	char *wide = palloc(BULK_MAX_FIELD * 3 + 2);
	RestField f = field("Name", FV_STRING, "fine #N/A not alone");
	RestField many[4];
	RestRecord record = {NULL, "k", &f, 1};
	size_t len = 0;

	assert_null(bulk_refuses(&record));
	f = field("Name", FV_STRING, "#N/A");
	assert_non_null(bulk_refuses(&record));
	f = field("Name", FV_STRING, " #n/a ");
	assert_non_null(bulk_refuses(&record));
	f = field("Name", FV_STRING, "a\r\nb");
	assert_non_null(bulk_refuses(&record));
	f = lookup("AccountId", &to_account, " ");
	assert_non_null(bulk_refuses(&record));
	f = field("Name", FV_STRING, "a");
	record.external_id = "#N/A";
	assert_non_null(bulk_refuses(&record));
	record.external_id = " ";
	assert_non_null(bulk_refuses(&record));
	record.external_id = NULL;
	assert_null(bulk_refuses(&record));

	/* characters, not bytes */
	for (int i = 0; i < BULK_MAX_FIELD; i++, len += 3)
		memcpy(wide + len, "\xe2\x82\xac", 3);
	wide[len] = '\0';
	f.value.text = wide;
	assert_null(bulk_refuses(&record));
	wide[len] = 'x';
	wide[len + 1] = '\0';
	assert_non_null(bulk_refuses(&record));
	wide[len] = '\0';
	for (int i = 0; i < lengthof(many); i++)
	{
		many[i] = f;
		many[i].value.text = wide;
	}
	record.fields = many;
	record.nfields = 3;
	assert_null(bulk_refuses(&record));
	record.nfields = 4;
	assert_non_null(bulk_refuses(&record));
}

static void
too_many_columns(void **state)
{
	int n = 400;
	RestField *fields = palloc0(sizeof(RestField) * n);
	RestRecord record = {NULL, "k", fields, n};
	StringInfoData csv;

	for (int i = 0; i < n; i++)
		fields[i] = field(psprintf("A_field_with_a_long_name_%060d__c", i), FV_NULL, NULL);
	initStringInfo(&csv);
	assert_false(bulk_header(&csv, bulk_columns(BULK_UPSERT, "PG_Key__c", &record, 1)));
	assert_int_equal(csv.len, 0);
}

/* ------------------------------------------------------------------------
 * Jobs
 * ------------------------------------------------------------------------
 */

static void
infos(void **state)
{
	BulkInfo info;
	char *error = NULL;
	const char *full =
		"{\"id\":\"" JOB18 "\",\"operation\":\"insert\",\"state\":\"Failed\",\"apiVersion\":66.0,"
		"\"numberRecordsProcessed\":700,\"numberRecordsFailed\":84,\"errorMessage\":\"InvalidBatch : \\nx\"}";
	const char *plain = "{\"state\":\"Open\",\"id\":\"7505f0000000001\"}";
	static const char *const bad[] = {
		"",
		"[]",
		"null",
		"{}",
		"{\"id\":\"" JOB18 "\"}",
		"{\"id\":\"" JOB18 "\",\"state\":\"Dancing\"}",
		"{\"id\":\"../../evil\",\"state\":\"Open\"}",
		"{\"id\":7505,\"state\":\"Open\"}",
		"{\"id\":\"" JOB18 "\",\"state\":\"Open\"} x",
		"<html>down</html>",
	};

	assert_true(bulk_parse_info(full, strlen(full), &info, &error));
	assert_string_equal(info.id, JOB18);
	assert_int_equal(info.state, BULK_STATE_FAILED);
	assert_int_equal(info.processed, 700);
	assert_int_equal(info.failed, 84);
	assert_string_equal(info.error, "InvalidBatch :  x");
	assert_true(bulk_parse_info(plain, strlen(plain), &info, &error));
	assert_string_equal(info.id, JOB18);
	assert_int_equal(info.state, BULK_STATE_OPEN);
	assert_int_equal(info.processed, -1);
	assert_null(info.error);
	for (int i = 0; i < lengthof(bad); i++)
	{
		char *copy = exact_copy(bad[i], strlen(bad[i]));

		error = NULL;
		assert_false(bulk_parse_info(copy, strlen(bad[i]), &info, &error));
		assert_non_null(error);
		free(copy);
	}
}

static void
check_error(const char *text, const char *code, const char *message, const char *fields)
{
	RestError error = bulk_parse_error(text);
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < error.nfields; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? "," : "", error.fields[i]);
	if (code)
		assert_string_equal(error.code, code);
	else
		assert_null(error.code);
	assert_string_equal(error.message, message);
	assert_string_equal(names.data, fields);
}

static void
record_errors(void **state)
{
	check_error("REQUIRED_FIELD_MISSING:Required fields are missing: [LastName]:LastName --",
				"REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]", "LastName");
	check_error(
		"UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record or 200 records: 001xxx,001yyy,...:--",
		"UNABLE_TO_LOCK_ROW",
		"unable to obtain exclusive access to this record or 200 records: 001xxx,001yyy,...", "");
	check_error("INVALID_CROSS_REFERENCE_KEY:invalid cross reference id:--", "INVALID_CROSS_REFERENCE_KEY",
				"invalid cross reference id", "");
	check_error(
		"INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY: insufficient access rights on cross-reference id:--",
		"INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY", " insufficient access rights on cross-reference id",
		"");
	check_error("FIELD_CUSTOM_VALIDATION_EXCEPTION:a: b:Name,Site__c --", "FIELD_CUSTOM_VALIDATION_EXCEPTION",
				"a: b", "Name,Site__c");

	/* the same prefix tells of a parent that is missing, whatever stands behind it */
	check_error(
		"INVALID_FIELD:Foreign key external ID: p 1 not found for field PG_Key__c in entity Account:--",
		"INVALID_FIELD", "Foreign key external ID: p 1 not found for field PG_Key__c in entity Account", "");
	check_error("something else: entirely", NULL, "something else: entirely", "");
	check_error("", NULL, "", "");
	check_error("--", NULL, "", "");
	check_error("CODE:", "CODE", "", "");
	check_error("CODE:no end: of it", "CODE", "no end: of it", "");
	check_error("CODE:two\nlines\001:--", "CODE", "two lines ", "");
}

/* ------------------------------------------------------------------------
 * Results
 * ------------------------------------------------------------------------
 */

static void
successes(void **state)
{
	const char *text =
		"\"sf__Id\",\"sf__Created\",Key__c,Name\n\"" ID1 "\",\"true\",\"k1\",\"a, \"\"b\"\"\nc\"\n\"" ID2
		"\",\"false\",\"9.12260031E8\",\"\"\n";

	for (size_t piece = 1; piece < 60; piece++)
	{
		BulkResult results[3];
		int n;

		assert_int_equal(read_all(BULK_SUCCESSFUL, "key__C", text, strlen(text), piece, results, 3, &n),
						 BULK_END);
		assert_int_equal(n, 2);
		assert_true(results[0].success);
		assert_string_equal(results[0].id, ID1);
		assert_string_equal(results[0].match, "k1");
		assert_true(results[1].success);
		assert_string_equal(results[1].match, "9.12260031E8");
		assert_string_equal(rest_number_key(results[1].match), "912260031");
		assert_int_equal(results[1].nvalues, 2);
	}
}

static void
failures(void **state)
{
	const char *text =
		"\"sf__Id\",\"sf__Error\",Key__c,Amount__c,On__c,Gone__c,Left__c,Contact:Who.Email,Name\r\n"
		"\"\",\"DUPLICATE_VALUE:Duplicate external id specified: k1:Key__c --\",\"k1\",\"1.25E7\",\"true\","
		"\"#N/A\",\"\",\"a@b.c\",\"n\"\r\n";
	BulkReader *reader = bulk_reader_create(BULK_FAILED, "Key__c");
	BulkResult result;
	RestRecord *record;

	bulk_reader_feed(reader, text, strlen(text));
	assert_int_equal(bulk_reader_next(reader, &result), BULK_ROW);
	assert_false(result.success);
	assert_null(result.id);
	assert_string_equal(result.error.code, "DUPLICATE_VALUE");
	assert_int_equal(result.nvalues, 7);
	record = bulk_sent(&result, "Key__c", kind_of, NULL);
	assert_string_equal(
		rest_payload(&(RestTarget){"Task", "Key__c", false}, record),
		"{\"attributes\":{\"type\":\"Task\"},\"Key__c\":\"k1\",\"Amount__c\":12500000,\"On__c\":true,"
		"\"Gone__c\":null,\"Who\":{\"attributes\":{\"type\":\"Contact\"},\"Email\":\"a@b.c\"},\"Name\":\"n\"}");
	assert_int_equal(bulk_reader_next(reader, &result), BULK_MORE);
	bulk_reader_end(reader);
	assert_int_equal(bulk_reader_next(reader, &result), BULK_END);
	bulk_reader_free(reader);
}

static void
empty_results(void **state)
{
	assert_int_equal(count(BULK_SUCCESSFUL, "", BULK_END), 0);
	assert_int_equal(count(BULK_SUCCESSFUL, "\"sf__Id\",\"sf__Created\",Key__c\n", BULK_END), 0);
	assert_int_equal(count(BULK_SUCCESSFUL, "\"sf__Id\",\"sf__Created\",Key__c", BULK_END), 0);
	assert_int_equal(count(BULK_FAILED, "sf__Id,sf__Error,Key__c\n\n", BULK_END), 0);
}

static void
bad_results(void **state)
{
	static const char *const successful[] = {
		"<html>down</html>\n",
		"{\"x\":1}\n",
		"[{\"errorCode\":\"NOT_FOUND\"}]\n",
		"\"sf__Id\",\"sf__Created\",Other\n",                               /* our column is missing */
		"\"sf__Created\",\"sf__Id\",Key__c\n",                              /* not as documented */
		"\"sf__Id\",\"sf__Created\",Key__c\n\"" ID1 "\",\"true\"\n",        /* too few */
		"\"sf__Id\",\"sf__Created\",Key__c\n\"" ID1 "\",\"true\",a,b\n",    /* too many */
		"\"sf__Id\",\"sf__Created\",Key__c\n\"nonsense\",\"true\",\"a\"\n", /* a success needs its Id */
		"\"sf__Id\",\"sf__Created\",Key__c\n\"" ID1 "\",\"true\",\"a\"b\n",
		"\"sf__Id\",\"sf__Created\",Key__c\n\"" ID1 "\",\"true\",\"never ends\n",
		"\"sf__Id\",\"sf__Created\",Key__c\n\"" ID1 "\",\"true\",\"\xff\xfe\"\n",
	};

	for (int i = 0; i < lengthof(successful); i++)
		assert_int_equal(count(BULK_SUCCESSFUL, successful[i], BULK_BAD), 0);
	assert_int_equal(count(BULK_FAILED, "\"sf__Id\",\"sf__Created\",Key__c\n", BULK_BAD), 0);

	/* what came before is good */
	assert_int_equal(count(BULK_SUCCESSFUL,
						   "\"sf__Id\",\"sf__Created\",Key__c\n\"" ID1 "\",\"true\",\"a\"\n\"x\"\n",
						   BULK_BAD),
					 1);
}

static void
zero_bytes(void **state)
{
	const char text[] = "\"sf__Id\",\"sf__Created\",Key__c\n\"" ID1 "\",\"true\",\"a\0b\"\n";
	BulkResult results[2];
	int n;

	assert_int_equal(read_all(BULK_SUCCESSFUL, "Key__c", text, sizeof(text) - 1, 9, results, 2, &n),
					 BULK_BAD);
	assert_int_equal(n, 0);
}

/* A value that doesn't end takes no more memory than its bound. */
static void
endless_value(void **state)
{
	BulkReader *reader = bulk_reader_create(BULK_SUCCESSFUL, "Key__c");
	char *piece = palloc(1024 * 1024);
	BulkResult result;
	int fed = 0;
	BulkRead read = BULK_MORE;

	memset(piece, 'x', 1024 * 1024);
	bulk_reader_feed(reader, "sf__Id,x,Key__c\n\"", 17);
	while ((read = bulk_reader_next(reader, &result)) == BULK_MORE && fed++ < 100)
		bulk_reader_feed(reader, piece, 1024 * 1024);
	assert_int_equal(read, BULK_BAD);
	assert_true(fed <= 9);
	bulk_reader_free(reader);
}

static void
endless_columns(void **state)
{
	BulkReader *reader = bulk_reader_create(BULK_SUCCESSFUL, "Key__c");
	char *piece = palloc(10000);
	BulkResult result;

	memset(piece, ',', 10000);
	bulk_reader_feed(reader, piece, 10000);
	assert_int_equal(bulk_reader_next(reader, &result), BULK_BAD);
	assert_int_equal(bulk_reader_next(reader, &result), BULK_BAD);
	bulk_reader_free(reader);
}

/* Good text with bytes changed: whatever comes, nothing breaks. */
static void
mutations(void **state)
{
	const char *text =
		"\"sf__Id\",\"sf__Error\",Key__c,Parent.Key__c,Amount__c\n\"" ID1
		"\",\"CODE:message: a:Name --\",\"k1\",\"p\",\"1.0E10\"\n\"\",\"X:y:--\",\"k2\",\"\",\"#N/A\"\n";
	uint64_t seed = 20261124;

	for (int i = 0; i < 20000; i++)
	{
		char *copy = pstrdup(text);
		BulkResult results[20];
		int n;

		for (int m = next_random(&seed) % 4; m >= 0; m--)
			copy[next_random(&seed) % strlen(text)] = "\"\",\n\r:-. \0\xe2x"[next_random(&seed) % 12];
		(void) read_all(BULK_FAILED, "Key__c", copy, strlen(text), 1 + next_random(&seed) % 50, results, 20,
						&n);
		pfree(copy);
	}
}

/* What libcsv reads is what we wrote. */
static void
round_trip(void **state)
{
	static const char *const texts[] = {"plain", "a,b",    "\"",          "\"\"", "a\nb",  " x ",
										"'",     "#N/A x", "é\U0001F600", ";",    "a\tb\n"};
	RestRecord record = {NULL, "k", NULL, 0};
	RestField f[2];
	StringInfoData csv;
	int header;

	record.fields = f;
	record.nfields = 1;
	for (int i = 0; i < lengthof(texts); i++)
	{
		BulkColumns *columns;
		BulkReader *reader = bulk_reader_create(BULK_SUCCESSFUL, "Key__c");
		BulkResult result;
		const char *own = "sf__Id,sf__Created,";
		const char *id = ID1 ",true,";

		f[0] = field("Name", FV_STRING, texts[i]);
		columns = bulk_columns(BULK_UPSERT, "Key__c", &record, 1);
		initStringInfo(&csv);
		assert_true(bulk_header(&csv, columns));
		header = csv.len;
		assert_true(bulk_row(&csv, columns, &record));
		bulk_reader_feed(reader, own, strlen(own));
		assert_int_equal(bulk_reader_next(reader, &result), BULK_MORE);
		bulk_reader_feed(reader, csv.data, header);
		assert_int_equal(bulk_reader_next(reader, &result), BULK_MORE);
		bulk_reader_feed(reader, id, strlen(id));
		assert_int_equal(bulk_reader_next(reader, &result), BULK_MORE);
		bulk_reader_feed(reader, csv.data + header, csv.len - header);
		assert_int_equal(bulk_reader_next(reader, &result), BULK_ROW);
		assert_string_equal(result.values[1], texts[i]);
		bulk_reader_free(reader);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests),
		cmocka_unit_test(operations),
		cmocka_unit_test(locators),
		cmocka_unit_test(rows),
		cmocka_unit_test(a_field_without_a_column),
		cmocka_unit_test(by_id),
		cmocka_unit_test(refusals),
		cmocka_unit_test(too_many_columns),
		cmocka_unit_test(infos),
		cmocka_unit_test(record_errors),
		cmocka_unit_test(successes),
		cmocka_unit_test(failures),
		cmocka_unit_test(empty_results),
		cmocka_unit_test(bad_results),
		cmocka_unit_test(zero_bytes),
		cmocka_unit_test(endless_value),
		cmocka_unit_test(endless_columns),
		cmocka_unit_test(mutations),
		cmocka_unit_test(round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
