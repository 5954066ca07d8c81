/*
 * bulk.c
 *		Requests of Bulk API 2.0, and the CSV that is sent.
 */
#include "compat.h"

#include "bulk.h"
#include "lexical.h"
#include "rest_internal.h"

#define CLEARED "#N/A" /* empties a field; an empty cell leaves it (section 9.3) */

static const char *const operation_names[] = {"insert", "upsert", "update", "delete", "hardDelete"};

const char *
bulk_operation_name(BulkOperation operation)
{
	return operation_names[operation];
}

bool
bulk_operation_from_name(const char *name, BulkOperation *operation)
{
	for (int i = 0; i < lengthof(operation_names); i++)
	{
		if (strcmp(operation_names[i], name) != 0)
			continue;
		*operation = (BulkOperation) i;
		return true;
	}
	return false;
}

bool
bulk_by_id(BulkOperation operation)
{
	return operation != BULK_INSERT && operation != BULK_UPSERT;
}

/*
 * Columns
 */

/*
 * The relation's name and the parent's key field; with the parent's type where
 * the relation has several, and only there (section 8).
 */
static char *
lookup_header(const FieldLookup *lookup)
{
	if (lookup->parent_object)
		return psprintf("%s:%s.%s", lookup->parent_object, lookup->relationship, lookup->external_id);
	return psprintf("%s.%s", lookup->relationship, lookup->external_id);
}

static char *
field_header(const RestField *field)
{
	return field->value.kind == FV_LOOKUP ? lookup_header(field->value.lookup) : pstrdup(field->name);
}

static int
by_header(const void *a, const void *b)
{
	return strcmp(((const BulkColumn *) a)->header, ((const BulkColumn *) b)->header);
}

static void
add_column(BulkColumns *columns, BulkColumnKind kind, const char *header, const char *field)
{
	BulkColumn *column = &columns->columns[columns->ncolumns++];

	column->kind = kind;
	column->header = pstrdup(header);
	column->field = pstrdup(field);
}

BulkColumns *
bulk_columns(BulkOperation operation, const char *ext_field, const RestRecord *records, int nrecords)
{
	BulkColumns *columns = palloc0(sizeof(BulkColumns));
	int max = 1;
	int kept = 1;

	for (int i = 0; i < nrecords; i++)
		max += records[i].nfields;
	columns->operation = operation;
	columns->columns = palloc0(sizeof(BulkColumn) * max);
	if (bulk_by_id(operation))
		add_column(columns, BULK_COLUMN_ID, "Id", "Id");
	else
		add_column(columns, BULK_COLUMN_KEY, ext_field, ext_field);
	for (int i = 0; i < nrecords && operation != BULK_DELETE && operation != BULK_HARD_DELETE; i++)
		for (int f = 0; f < records[i].nfields; f++)
		{
			const RestField *field = &records[i].fields[f];
			bool lookup = field->value.kind == FV_LOOKUP;

			if (field->value.kind != FV_ABSENT)
				add_column(columns, lookup ? BULK_COLUMN_LOOKUP : BULK_COLUMN_FIELD, field_header(field),
						   lookup ? field->value.lookup->relationship : field->name);
		}
	qsort(columns->columns + 1, columns->ncolumns - 1, sizeof(BulkColumn), by_header);
	for (int i = 1; i < columns->ncolumns; i++)
		if (kept == 1 || strcmp(columns->columns[kept - 1].header, columns->columns[i].header) != 0)
			columns->columns[kept++] = columns->columns[i];
	columns->ncolumns = kept;
	return columns;
}

static const BulkColumn *
find_column(const BulkColumns *columns, const char *header)
{
	BulkColumn wanted = {.header = unconstify(char *, header)};

	return bsearch(&wanted, columns->columns + 1, columns->ncolumns - 1, sizeof(BulkColumn), by_header);
}

/*
 * Rows
 */

/* In UTF-16 units, as the server counts: never fewer than characters. */
static size_t
text_length(const char *text)
{
	size_t n = 0;

	for (; *text != '\0'; text++)
		n += (((unsigned char) *text & 0xC0) != 0x80) + ((unsigned char) *text >= 0xF0);
	return n;
}

/* Blanks only, which is no value to Salesforce. */
static bool
is_empty(const char *text)
{
	while (lexical_is_blank(*text))
		text++;
	return *text == '\0';
}

static bool
is_cleared(const char *text)
{
	while (lexical_is_blank(*text))
		text++;
	return pg_strncasecmp(text, CLEARED, 4) == 0 && is_empty(text + 4);
}

static void
append_text(StringInfo out, const char *text)
{
	size_t len = strlen(text);
	bool quote = text[strcspn(text, ",\"\r\n")] != '\0' ||
				 (len > 0 && (lexical_is_blank(text[0]) || lexical_is_blank(text[len - 1])));

	if (!quote)
	{
		appendBinaryStringInfo(out, text, len);
		return;
	}
	appendStringInfoChar(out, '"');
	for (; *text != '\0'; text++)
	{
		if (*text == '"')
			appendStringInfoChar(out, '"');
		appendStringInfoChar(out, *text);
	}
	appendStringInfoChar(out, '"');
}

static const char *
value_text(const FieldValue *value)
{
	switch (value->kind)
	{
		case FV_ABSENT:
			return "";
		case FV_NULL:
			return CLEARED;
		case FV_BOOL:
			return value->boolean ? "true" : "false";
		default:
			return is_empty(value->text) ? CLEARED : value->text;
	}
}

bool
bulk_header(StringInfo out, const BulkColumns *columns)
{
	size_t len = columns->ncolumns;

	for (int i = 0; i < columns->ncolumns; i++)
		len += strlen(columns->columns[i].header);
	if (columns->ncolumns > BULK_MAX_COLUMNS || len > BULK_MAX_HEADER)
		return false;
	for (int i = 0; i < columns->ncolumns; i++)
		appendStringInfo(out, "%s%s", i > 0 ? "," : "", columns->columns[i].header);
	appendStringInfoChar(out, '\n');
	return true;
}

/*
 * A carriage return would be taken for a line end that is not the job's, in
 * quotes too; and "#N/A" has no other meaning than to clear.
 */
static const char *
text_refused(const char *text, size_t *total)
{
	size_t len = text_length(text);

	*total += len;
	if (is_cleared(text))
		return "the text " CLEARED " means null in a bulk job";
	if (strchr(text, '\r'))
		return "a carriage return can't be sent in a bulk job";
	if (len > BULK_MAX_FIELD)
		return "a value is too long for a bulk job";
	return NULL;
}

const char *
bulk_refuses(const RestRecord *record)
{
	size_t total = 0;
	const char *reason = record->external_id ? text_refused(record->external_id, &total) : NULL;

	for (int i = 0; i < record->nfields && !reason; i++)
	{
		const FieldValue *value = &record->fields[i].value;

		if (value->kind == FV_STRING || value->kind == FV_LOOKUP || value->kind == FV_NUMBER)
			reason = text_refused(value->text, &total);
		if (value->kind == FV_LOOKUP && is_empty(value->text))
			reason = "a parent's key is empty";
	}
	if (!reason && record->external_id && is_empty(record->external_id))
		reason = "the key is empty";
	if (!reason && total + 5 * record->nfields > BULK_MAX_RECORD)
		reason = "the record is too long for a bulk job";
	return reason;
}

bool
bulk_row(StringInfo out, const BulkColumns *columns, const RestRecord *record)
{
	const FieldValue **cells = palloc0(sizeof(FieldValue *) * columns->ncolumns);
	bool fits = true;

	for (int i = 0; i < record->nfields && fits; i++)
	{
		char *header = field_header(&record->fields[i]);
		const BulkColumn *column = find_column(columns, header);

		if (column)
			cells[column - columns->columns] = &record->fields[i].value;
		else
			fits = record->fields[i].value.kind == FV_ABSENT;
		pfree(header);
	}
	if (fits)
	{
		append_text(out,
					columns->columns[0].kind == BULK_COLUMN_ID ? record->salesforce_id : record->external_id);
		for (int i = 1; i < columns->ncolumns; i++)
		{
			appendStringInfoChar(out, ',');
			if (cells[i])
				append_text(out, value_text(cells[i]));
		}
		appendStringInfoChar(out, '\n');
	}
	pfree(cells);
	return fits;
}

/*
 * Requests
 */

static void
append_member(StringInfo body, const char *name, const char *value)
{
	appendStringInfoChar(body, body->len == 0 ? '{' : ',');
	rest_append_json_string(body, name);
	appendStringInfoChar(body, ':');
	rest_append_json_string(body, value);
}

/* A request about a job, or, without one, about jobs. */
static RestCall *
job_call(const char *method, const char *api_version, const char *job, const char *rest, StringInfo body)
{
	StringInfoData path;

	rest_start_path(&path, api_version, "/jobs/ingest");
	if (job)
	{
		appendStringInfoChar(&path, '/');
		rest_append_encoded(&path, job);
		appendStringInfoString(&path, rest);
	}
	if (body)
		appendStringInfoChar(body, '}');
	return rest_make_call(method, &path, body);
}

RestCall *
bulk_create(const char *api_version, const char *object, BulkOperation operation, const char *ext_field)
{
	StringInfoData body;

	initStringInfo(&body);
	append_member(&body, "object", object);
	append_member(&body, "operation", bulk_operation_name(operation));
	if (operation == BULK_UPSERT)
		append_member(&body, "externalIdFieldName", ext_field);
	append_member(&body, "contentType", "CSV");
	append_member(&body, "lineEnding", "LF");
	append_member(&body, "columnDelimiter", "COMMA");
	return job_call("POST", api_version, NULL, "", &body);
}

RestCall *
bulk_upload(const char *api_version, const char *job)
{
	return job_call("PUT", api_version, job, "/batches", NULL);
}

static RestCall *
set_state(const char *api_version, const char *job, const char *state)
{
	StringInfoData body;

	initStringInfo(&body);
	append_member(&body, "state", state);
	return job_call("PATCH", api_version, job, "", &body);
}

RestCall *
bulk_close(const char *api_version, const char *job)
{
	return set_state(api_version, job, "UploadComplete");
}

RestCall *
bulk_abort(const char *api_version, const char *job)
{
	return set_state(api_version, job, "Aborted");
}

RestCall *
bulk_info(const char *api_version, const char *job)
{
	return job_call("GET", api_version, job, "", NULL);
}

RestCall *
bulk_results(const char *api_version, const char *job, BulkResultSet set, const char *locator)
{
	static const char *const paths[] = {"/successfulResults/", "/failedResults/"};

	return job_call("GET", api_version, job,
					locator ? psprintf("%s?locator=%s", paths[set], locator) : paths[set], NULL);
}

RestCall *
bulk_delete(const char *api_version, const char *job)
{
	return job_call("DELETE", api_version, job, "", NULL);
}

bool
bulk_locator_valid(const char *locator)
{
	size_t len = strlen(locator);

	return len > 0 && len <= 500 && pg_strcasecmp(locator, "null") != 0 &&
		   strspn(locator, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~") == len;
}
