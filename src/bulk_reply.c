/*
 * bulk_reply.c
 *		Replies of Bulk API 2.0: hostile bytes into jobs and results.
 */
#define SFSYNC_USE_JSON_C
#include "compat.h"

#include <csv.h>

#include "mb/pg_wchar.h"

#include "bulk.h"
#include "lexical.h"
#include "rest_internal.h"
#include "rest_json.h"

#define MAX_FIELDS 100
#define MAX_CODE 100
#define MAX_ROW ((size_t) 8 * 1024 * 1024) /* bytes of a row of results */
#define OWN_COLUMNS 2                      /* before those that were sent */
#define MAX_RESULT_COLUMNS (BULK_MAX_COLUMNS + 10)

/*
 * Jobs
 */

static int64
count_member(json_object *json, const char *key)
{
	json_object *value = rest_member(json, key);

	return json_object_is_type(value, json_type_int) ? Max(json_object_get_int64(value), -1) : -1;
}

static bool
read_state(const char *name, BulkState *state)
{
	static const char *const names[] = {"Open",        "UploadComplete", "InProgress",
										"JobComplete", "Failed",         "Aborted"};

	for (int i = 0; name && i < lengthof(names); i++)
	{
		if (strcmp(name, names[i]) != 0)
			continue;
		*state = (BulkState) i;
		return true;
	}
	return false;
}

static bool
read_info(json_object *json, BulkInfo *info, char **error)
{
	const char *id = rest_plain_string(rest_member(json, "id"));
	const char *message = rest_plain_string(rest_member(json, "errorMessage"));

	info->id = id ? rest_id18(id) : NULL;
	if (!info->id)
	{
		*error = pstrdup("it has no job id");
		return false;
	}
	if (!read_state(rest_plain_string(rest_member(json, "state")), &info->state))
	{
		*error = pstrdup("it has no job state that is known");
		return false;
	}
	info->processed = count_member(json, "numberRecordsProcessed");
	info->failed = count_member(json, "numberRecordsFailed");
	info->error = message ? rest_clean_text(message, strlen(message)) : NULL;
	return true;
}

bool
bulk_parse_info(const char *body, size_t len, BulkInfo *info, char **error)
{
	json_object *json = rest_parse_json(body, len);
	bool good;

	memset(info, 0, sizeof(*info));
	if (!json_object_is_type(json, json_type_object))
	{
		json_object_put(json);
		*error = pstrdup("it is no JSON object");
		return false;
	}
	good = read_info(json, info, error);
	json_object_put(json);
	return good;
}

/*
 * sf__Error
 */

static bool
is_code(const char *text, size_t len)
{
	return len > 0 && len <= MAX_CODE && strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") >= len;
}

static bool
is_name(const char *text, size_t len)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:";

	return len > 0 && len <= MAX_CODE && strspn(text, allowed) >= len;
}

/* The fields behind the last colon; false, and none, if that is something else. */
static bool
read_names(char *text, RestError *error)
{
	char *next;

	error->fields = palloc(sizeof(char *) * MAX_FIELDS);
	error->nfields = 0;
	if (*text == '\0')
		return true;
	for (; text; text = next)
	{
		next = strchr(text, ',');
		if (next)
			*next++ = '\0';
		while (*text == ' ')
			text++;
		if (!is_name(text, strlen(text)) || error->nfields == MAX_FIELDS)
		{
			error->nfields = 0;
			return false;
		}
		error->fields[error->nfields++] = text;
	}
	return true;
}

/* Text up to the "--" at its end, and blanks before that. */
static char *
without_dashes(const char *text)
{
	size_t len = strlen(text);

	while (len > 0 && lexical_is_blank(text[len - 1]))
		len--;
	if (len >= 2 && text[len - 1] == '-' && text[len - 2] == '-')
		len -= 2;
	while (len > 0 && lexical_is_blank(text[len - 1]))
		len--;
	return pnstrdup(text, len);
}

RestError
bulk_parse_error(const char *text)
{
	RestError error = {0};
	char *message = without_dashes(text);
	char *colon = strchr(message, ':');
	char *last;

	if (colon && is_code(message, colon - message))
	{
		error.code = pnstrdup(message, colon - message);
		message = colon + 1;
		last = strrchr(message, ':');
		if (last && read_names(pstrdup(last + 1), &error))
			*last = '\0';
	}
	error.message = rest_clean_text(message, strlen(message));
	return error;
}

/*
 * Results
 *
 * libcsv calls back for each field and row.  The callbacks only copy, into
 * memory of malloc's, and never throw.  A piece is handed to libcsv line by
 * line, so that it ends at most one row at a time.
 */

struct BulkReader
{
	BulkResultSet set;
	char *match_column;
	struct csv_parser parser;
	const char *data;
	size_t left;
	bool ended;    /* no more data */
	bool finished; /* libcsv was told so */
	bool bad;
	bool complete; /* a row is there */
	char *row;     /* its fields, each with a zero behind it */
	size_t row_len;
	size_t row_size;
	size_t *starts; /* of the fields in row */
	int nfields;
	int max_fields;
	int nheaders; /* 0: the header is not read yet */
	char **headers;
	char **values;
	int id; /* columns; -1 none */
	int error;
	int match;
};

static bool
grow(void **memory, size_t needed, size_t *size, size_t element)
{
	size_t larger = Max(*size, 64);
	void *grown;

	if (needed <= *size)
		return true;
	while (larger < needed)
		larger *= 2;
	grown = realloc(*memory, larger * element);
	if (!grown)
		return false;
	*memory = grown;
	*size = larger;
	return true;
}

static void
on_field(void *data, size_t len, void *arg)
{
	BulkReader *reader = arg;
	size_t max_fields = reader->max_fields;
	void *row = reader->row;
	void *starts = reader->starts;
	bool good = !reader->bad && len < MAX_ROW && reader->row_len + len < MAX_ROW &&
				reader->nfields < MAX_RESULT_COLUMNS;

	good = good && grow(&row, reader->row_len + len + 1, &reader->row_size, 1);
	reader->row = row;
	good = good && grow(&starts, reader->nfields + 1, &max_fields, sizeof(size_t));
	reader->starts = starts;
	reader->max_fields = (int) max_fields;
	if (!good)
	{
		reader->bad = true;
		return;
	}
	reader->starts[reader->nfields++] = reader->row_len;
	if (len > 0)
		memcpy(reader->row + reader->row_len, data, len);
	reader->row_len += len;
	reader->row[reader->row_len++] = '\0';
}

static void
on_row(int separator, void *arg)
{
	((BulkReader *) arg)->complete = true;
}

/* A field that doesn't end: libcsv is told that there is no memory for it. */
static void *
bounded_realloc(void *memory, size_t size)
{
	return size > MAX_ROW ? NULL : realloc(memory, size);
}

BulkReader *
bulk_reader_create(BulkResultSet set, const char *match_column)
{
	BulkReader *reader = calloc(1, sizeof(BulkReader));

	if (!reader)
		return NULL;
	reader->set = set;
	reader->match_column = strdup(match_column);
	if (!reader->match_column || csv_init(&reader->parser, CSV_STRICT | CSV_STRICT_FINI) != 0)
	{
		free(reader->match_column);
		free(reader);
		return NULL;
	}
	csv_set_realloc_func(&reader->parser, bounded_realloc);
	csv_set_blk_size(&reader->parser, 4096);
	return reader;
}

static void
free_headers(BulkReader *reader)
{
	for (int i = 0; i < reader->nheaders; i++)
		free(reader->headers[i]);
	free(reader->headers);
	free(reader->values);
}

void
bulk_reader_free(BulkReader *reader)
{
	if (!reader)
		return;
	csv_free(&reader->parser);
	free_headers(reader);
	free(reader->row);
	free(reader->starts);
	free(reader->match_column);
	free(reader);
}

void
bulk_reader_feed(BulkReader *reader, const char *data, size_t len)
{
	reader->data = data;
	reader->left = len;
}

void
bulk_reader_end(BulkReader *reader)
{
	reader->left = 0;
	reader->ended = true;
}

static int
find_header(const BulkReader *reader, const char *name)
{
	for (int i = 0; i < reader->nheaders; i++)
		if (pg_strcasecmp(reader->headers[i], name) == 0)
			return i;
	return -1;
}

/* Is the text of a field just as long as it claims, and UTF-8? */
static bool
is_plain(const BulkReader *reader, int field)
{
	size_t start = reader->starts[field];
	size_t end = field + 1 < reader->nfields ? reader->starts[field + 1] : reader->row_len;
	int len = (int) (end - 1 - start);

	return strlen(reader->row + start) == (size_t) len &&
		   pg_encoding_verifymbstr(PG_UTF8, reader->row + start, len) == len;
}

static bool
take_header(BulkReader *reader)
{
	reader->headers = calloc(reader->nfields, sizeof(char *));
	reader->values = calloc(reader->nfields, sizeof(char *));
	if (!reader->headers || !reader->values)
		return false;
	for (int i = 0; i < reader->nfields; i++)
	{
		char *name = is_plain(reader, i) ? strdup(reader->row + reader->starts[i]) : NULL;

		if (!name)
			return false;
		reader->headers[reader->nheaders++] = name;
	}
	reader->id = find_header(reader, "sf__Id");
	reader->error = find_header(reader, "sf__Error");
	reader->match = find_header(reader, reader->match_column);

	/* what isn't there was no reply to what was asked */
	return reader->id == 0 && reader->match >= OWN_COLUMNS &&
		   (reader->set == BULK_SUCCESSFUL || reader->error == 1);
}

static bool
take_row(BulkReader *reader, BulkResult *result)
{
	memset(result, 0, sizeof(*result));
	if (reader->nfields != reader->nheaders)
		return false;
	for (int i = 0; i < reader->nfields; i++)
	{
		if (!is_plain(reader, i))
			return false;
		reader->values[i] = reader->row + reader->starts[i];
	}
	result->success = reader->set == BULK_SUCCESSFUL;
	result->id = rest_id18(reader->values[reader->id]);
	if (result->success && !result->id)
		return false;
	if (!result->success)
		result->error = bulk_parse_error(reader->values[reader->error]);
	result->match = reader->values[reader->match];
	result->headers = reader->headers + OWN_COLUMNS;
	result->values = reader->values + OWN_COLUMNS;
	result->nvalues = reader->nheaders - OWN_COLUMNS;
	return true;
}

/* Up to and including the next line end: where the row may be over. */
static size_t
next_line(const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (data[i] == '\n' || data[i] == '\r')
			return i + 1;
	return len;
}

static bool
step(BulkReader *reader)
{
	size_t len = next_line(reader->data, reader->left);

	if (reader->left > 0)
	{
		if (csv_parse(&reader->parser, reader->data, len, on_field, on_row, reader) != len)
			return false;
		reader->data += len;
		reader->left -= len;
	}
	else if (csv_fini(&reader->parser, on_field, on_row, reader) != 0)
		return false;
	else
		reader->finished = true;
	return !reader->bad;
}

BulkRead
bulk_reader_next(BulkReader *reader, BulkResult *result)
{
	while (!reader->bad)
	{
		bool good = true;
		bool header = reader->nheaders == 0;

		if (reader->finished)
			return BULK_END;
		if (reader->left == 0 && !reader->ended)
			return BULK_MORE;
		if (!step(reader))
			break;
		if (!reader->complete)
			continue;
		reader->complete = false;
		good = header ? take_header(reader) : take_row(reader, result);
		reader->nfields = 0;
		reader->row_len = 0;
		if (!good)
			break;
		if (!header)
			return BULK_ROW;
	}
	reader->bad = true;
	return BULK_BAD;
}

/*
 * What was sent
 */

/* Relation:Type and key field of a lookup's header; false if it is no such header. */
static bool
read_lookup(const char *header, FieldLookup *lookup)
{
	const char *colon = strchr(header, ':');
	const char *dot = strchr(header, '.');

	if (!dot || (colon && colon > dot))
		return false;
	if (colon)
		lookup->parent_object = pnstrdup(header, colon - header);
	lookup->relationship = pnstrdup(colon ? colon + 1 : header, dot - (colon ? colon + 1 : header));
	lookup->external_id = pstrdup(dot + 1);
	return true;
}

static void
read_value(const char *header, const char *text, BulkKindFunction kind_of, void *arg, FieldValue *value)
{
	FieldLookup lookup = {0};

	value->text = pstrdup(text);
	if (read_lookup(header, &lookup))
	{
		FieldLookup *copy = palloc(sizeof(FieldLookup));

		*copy = lookup;
		value->kind = FV_LOOKUP;
		value->lookup = copy;
		return;
	}
	value->kind = strcmp(text, "#N/A") == 0 ? FV_NULL : kind_of(header, arg);
	value->boolean = value->kind == FV_BOOL && pg_strcasecmp(text, "true") == 0;
	if (value->kind == FV_NUMBER)
	{
		char *plain = rest_plain_number(text);

		value->kind = plain ? FV_NUMBER : FV_STRING;
		value->text = plain ? plain : value->text;
	}
}

RestRecord *
bulk_sent(const BulkResult *result, const char *ext_field, BulkKindFunction kind_of, void *arg)
{
	RestRecord *record = palloc0(sizeof(RestRecord));

	record->fields = palloc0(sizeof(RestField) * Max(result->nvalues, 1));
	for (int i = 0; i < result->nvalues; i++)
	{
		const char *header = result->headers[i];

		if (pg_strcasecmp(header, "Id") == 0)
			record->salesforce_id = pstrdup(result->values[i]);
		else if (pg_strcasecmp(header, ext_field) == 0)
			record->external_id = pstrdup(result->values[i]);
		else if (result->values[i][0] != '\0')
		{
			record->fields[record->nfields].name = pstrdup(header);
			read_value(header, result->values[i], kind_of, arg, &record->fields[record->nfields++].value);
		}
	}
	return record;
}
