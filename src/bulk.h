/*
 * bulk.h
 *		Requests and replies of Bulk API 2.0: jobs that take records as CSV, run
 *		by themselves, and give a result for each (reference, section 9).  Pure.
 *
 * The CSV of a job has fixed columns, and is written row by row; results are
 * read row by row from pieces of whatever size.  libcsv does the reading.
 */
#ifndef SFSYNC_BULK_H
#define SFSYNC_BULK_H

#include "lib/stringinfo.h"

#include "rest.h"

#define BULK_MAX_FIELD 131072  /* characters of a value (section 9.3) */
#define BULK_MAX_RECORD 400000 /* characters of a record */
#define BULK_MAX_HEADER 32000  /* characters of the header */
#define BULK_MAX_COLUMNS 5000

typedef enum BulkOperation
{
	BULK_INSERT,
	BULK_UPSERT, /* by external ID */
	BULK_UPDATE, /* by Id, as are the deletes */
	BULK_DELETE,
	BULK_HARD_DELETE
} BulkOperation;

/* The operation as the API and our table spell it, and back; false if it is none. */
extern const char *bulk_operation_name(BulkOperation operation);
extern bool bulk_operation_from_name(const char *name, BulkOperation *operation);

/* Are results told apart by the record's Id, or by its external ID? */
extern bool bulk_by_id(BulkOperation operation);

/*
 * Columns
 */

typedef enum BulkColumnKind
{
	BULK_COLUMN_ID,
	BULK_COLUMN_KEY, /* the external ID */
	BULK_COLUMN_FIELD,
	BULK_COLUMN_LOOKUP /* a parent's key through the relation */
} BulkColumnKind;

typedef struct BulkColumn
{
	BulkColumnKind kind;
	char *header; /* as the CSV has it */
	char *field;  /* API name, or the relation's */
} BulkColumn;

typedef struct BulkColumns
{
	BulkOperation operation;
	int ncolumns;
	BulkColumn *columns;
} BulkColumns;

/*
 * Columns for the fields of some records, sorted by header, behind the key or
 * Id.  A lookup has a column of its own for each kind of its values: the
 * parent's key, and the Id, which can be cleared.
 */
extern BulkColumns *bulk_columns(BulkOperation operation, const char *ext_field, const RestRecord *records,
								 int nrecords);

/* The header, with its line end.  False when it is too long for a job. */
extern bool bulk_header(StringInfo out, const BulkColumns *columns);

/*
 * Why a record can't go by bulk at all, so that it must go by REST: a sentence;
 * NULL if it can.
 */
extern const char *bulk_refuses(const RestRecord *record);

/*
 * The row of a record, with its line end.  False, and nothing is added, when
 * it has a field that has no column.
 */
extern bool bulk_row(StringInfo out, const BulkColumns *columns, const RestRecord *record);

/*
 * Requests
 */

/* What neither has was not looked at. */
typedef enum BulkResultSet
{
	BULK_SUCCESSFUL,
	BULK_FAILED
} BulkResultSet;

/* A job; ext_field is for upserts (section 9.2). */
extern RestCall *bulk_create(const char *api_version, const char *object, BulkOperation operation,
							 const char *ext_field);

/* The body, CSV, is the caller's. */
extern RestCall *bulk_upload(const char *api_version, const char *job);
extern RestCall *bulk_close(const char *api_version, const char *job);
extern RestCall *bulk_abort(const char *api_version, const char *job);
extern RestCall *bulk_info(const char *api_version, const char *job);

/* locator: of a further page, as the reply to the one before told it; NULL: the first. */
extern RestCall *bulk_results(const char *api_version, const char *job, BulkResultSet set,
							  const char *locator);
extern RestCall *bulk_delete(const char *api_version, const char *job);

/* Does Sforce-Locator tell of a further page, in a form that can be sent back? */
extern bool bulk_locator_valid(const char *locator);

/*
 * Replies
 */

typedef enum BulkState
{
	BULK_STATE_OPEN,
	BULK_STATE_CLOSED, /* UploadComplete: waits for its turn */
	BULK_STATE_RUNNING,
	BULK_STATE_COMPLETE,
	BULK_STATE_FAILED,
	BULK_STATE_ABORTED
} BulkState;

typedef struct BulkInfo
{
	char *id; /* 18 characters */
	BulkState state;
	int64 processed; /* failed ones included; -1 if not told */
	int64 failed;
	char *error; /* errorMessage; NULL if none */
} BulkInfo;

/* Parse a job as creation, close, abort and info give it; false with *error if it is none. */
extern bool bulk_parse_info(const char *body, size_t len, BulkInfo *info, char **error);

/* "CODE:message:FIELD1,FIELD2 --" (section 9.2). */
extern RestError bulk_parse_error(const char *text);

/*
 * Results
 */

typedef struct BulkReader BulkReader;

typedef enum BulkRead
{
	BULK_ROW,  /* a result */
	BULK_MORE, /* feed more, or end */
	BULK_END,  /* all is read */
	BULK_BAD   /* this is no such CSV; nothing more can be read */
} BulkRead;

typedef struct BulkResult
{
	bool success;
	char *id;        /* 18 characters; NULL if not told */
	char *match;     /* the key or Id that was sent */
	RestError error; /* not success */
	int nvalues;
	char **headers; /* of the values sent, which follow */
	char **values;  /* in libcsv's memory: valid until the next call */
} BulkResult;

/* Free it with bulk_reader_free, also after an error: its memory is malloc's.  NULL: none left. */
extern BulkReader *bulk_reader_create(BulkResultSet set, const char *match_column);
extern void bulk_reader_free(BulkReader *reader);

/*
 * Feed a piece, then call next until it asks for more.  The piece must stay
 * until then.  bulk_reader_end instead when there is no more.
 */
extern void bulk_reader_feed(BulkReader *reader, const char *data, size_t len);
extern void bulk_reader_end(BulkReader *reader);

/* The next result; other palloc'd memory than values is the caller's. */
extern BulkRead bulk_reader_next(BulkReader *reader, BulkResult *result);

/*
 * What was sent, as a result repeats it, as a record: for dead letters.  kind_of
 * tells whether a field's value is a number or a checkbox.
 */
typedef FieldValueKind (*BulkKindFunction)(const char *field, void *arg);
extern RestRecord *bulk_sent(const BulkResult *result, const char *ext_field, BulkKindFunction kind_of,
							 void *arg);

#endif /* SFSYNC_BULK_H */
