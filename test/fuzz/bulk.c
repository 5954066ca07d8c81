/* Replies of Bulk API 2.0: bulk_reply.c */
#include "fuzz.h"

#include "bulk.h"

static void
info(const uint8_t *data, size_t size)
{
	BulkInfo parsed = {0};
	char *error = NULL;

	if (!bulk_parse_info((const char *) data, size, &parsed, &error))
	{
		must(error != NULL);
		must_be_line(error);
		return;
	}
	must(parsed.id != NULL);
	must_be_id(parsed.id);
	must_be_line(parsed.error);
	must(parsed.processed >= -1 && parsed.failed >= -1);
}

static void
failure(const uint8_t *data, size_t size)
{
	RestError error = bulk_parse_error(take_text(data, size));

	must(error.message != NULL);
	must_be_line(error.message);
	must_be_line(error.code);
	for (int i = 0; i < error.nfields; i++)
		must_be_line(error.fields[i]);
}

static FieldValueKind
kind_of(const char *field, void *arg)
{
	static const FieldValueKind kinds[] = {FV_STRING, FV_NUMBER, FV_BOOL};

	return kinds[strlen(field) % lengthof(kinds)];
}

static void
note(StringInfo out, const BulkResult *result)
{
	RestRecord *record = bulk_sent(result, "K__c", kind_of, NULL);

	must(result->success ? result->id != NULL : result->error.message != NULL);
	must_be_id(result->id);
	must_be_text(result->match);
	for (int i = 0; i < result->nvalues; i++)
	{
		must_be_text(result->headers[i]);
		must_be_text(result->values[i]);
	}
	for (int i = 0; i < record->nfields; i++)
		must_be_text(record->fields[i].value.text);
	appendStringInfo(out, "%d %s %s;", result->success, result->match, result->id ? result->id : "");
}

/* All results, as text, of a CSV that comes in pieces of this size. */
static char *
read_in_pieces(const char *data, size_t size, size_t piece, BulkResultSet set)
{
	BulkReader *reader = bulk_reader_create(set, "K__c");
	StringInfoData out;
	BulkResult result;
	BulkRead got;
	size_t at = 0;

	initStringInfo(&out);
	must(reader != NULL);
	while ((got = bulk_reader_next(reader, &result)) == BULK_MORE || got == BULK_ROW)
	{
		if (got == BULK_ROW)
			note(&out, &result);
		else if (at < size)
		{
			bulk_reader_feed(reader, data + at, Min(piece, size - at));
			at += Min(piece, size - at);
		}
		else
			bulk_reader_end(reader);
	}
	appendStringInfoString(&out, got == BULK_BAD ? "bad" : "end");
	bulk_reader_free(reader);
	return out.data;
}

/* The pieces make no difference. */
static void
results(const uint8_t *data, size_t size)
{
	uint8_t choice = take_byte(&data, &size);
	BulkResultSet set = choice & 1 ? BULK_FAILED : BULK_SUCCESSFUL;
	char *whole = read_in_pieces((const char *) data, size, Max(size, 1), set);
	char *pieces = read_in_pieces((const char *) data, size, 1 + choice / 2, set);

	must(strcmp(whole, pieces) == 0);
}

static void
locator(const uint8_t *data, size_t size)
{
	char *text = take_text(data, size);

	if (bulk_locator_valid(text))
		must(strpbrk(bulk_results("66.0", "7503000000000001AA", BULK_FAILED, text)->path, " \r\n") == NULL);
}

const Target bulk_targets[] = {{"bulk_info", info},
							   {"bulk_error", failure},
							   {"bulk_results", results},
							   {"bulk_locator", locator},
							   {NULL, NULL}};
