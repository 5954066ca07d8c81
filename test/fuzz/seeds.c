/*
 * seeds.c
 *		Makes the drivers' first inputs from the unit tests: linked with these
 *		(the linker's --wrap), it writes what they give to the parsers to files in
 *		$SEEDS/DRIVER, in the form in which the driver takes it.
 */
#include "compat.h"

#include <sys/stat.h>

#include "auth.h"
#include "bulk.h"
#include "canonical.h"
#include "coerce.h"
#include "describe.h"
#include "reconcile.h"
#include "tooling.h"
#include "url.h"

#define MOST_BYTES 20000 /* longer ones are of no use to a fuzzer */
#define MOST_SEEDS 200   /* of a driver and a test program: some tests make thousands */

/* As main.c's statuses. */
static const int statuses[] = {200, 201, 204, 400, 401, 403, 404, 412, 414, 429, 500, 503};

static bool
room_for(const char *driver)
{
	static struct
	{
		const char *driver;
		int n;
	} counts[40];
	size_t i = 0;

	while (counts[i].driver && strcmp(counts[i].driver, driver) != 0)
		i++;
	counts[i].driver = driver;
	return ++counts[i].n <= MOST_SEEDS;
}

static void
seed(const char *driver, const void *prefix, size_t prefix_len, const void *data, size_t len)
{
	const char *top = getenv("SEEDS");
	uint64 hash = UINT64CONST(0xCBF29CE484222325);
	char path[1024];
	FILE *file;

	if (!top || len > MOST_BYTES || !room_for(driver))
		return;
	for (size_t i = 0; i < prefix_len; i++)
		hash = (hash ^ ((const uint8 *) prefix)[i]) * UINT64CONST(0x100000001B3);
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ ((const uint8 *) data)[i]) * UINT64CONST(0x100000001B3);
	snprintf(path, sizeof(path), "%s/%s", top, driver);
	mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/%s/%016llx", top, driver, (unsigned long long) hash);
	file = fopen(path, "w");
	if (!file)
		return;
	fwrite(prefix, 1, prefix_len, file);
	fwrite(data, 1, len, file);
	fclose(file);
}

static uint8
status_byte(int status)
{
	for (size_t i = 0; i < lengthof(statuses); i++)
		if (statuses[i] == status)
			return i;
	return 3;
}

/* name: the parser; before: statements that fill prefix, of so many bytes. */
#define WRAP(driver, result, name, parameters, arguments, data, len, prefix_len, before)                     \
	extern result __real_##name parameters;                                                                  \
	extern result __wrap_##name parameters;                                                                  \
	result __wrap_##name parameters                                                                          \
	{                                                                                                        \
		uint8 prefix[4] = {0};                                                                               \
		before;                                                                                              \
		seed(driver, prefix, prefix_len, data, len);                                                         \
		return __real_##name arguments;                                                                      \
	}

WRAP("results", bool, rest_parse_results,
	 (const char *body, size_t len, int n, RestResult *results, char **error), (body, len, n, results, error),
	 body, len, 1, prefix[0] = n)
WRAP("unpack", bool, rest_unpack, (const char *body, size_t len, int n, RestPart *parts, char **error),
	 (body, len, n, parts, error), body, len, 1, prefix[0] = n - 2)
WRAP("update_if", bool, rest_parse_update_if,
	 (const char *body, size_t len, const RestRecord *records, int n, RestResult *results, bool *failed,
	  char **error),
	 (body, len, records, n, results, failed, error), body, len, 1, prefix[0] = n)
WRAP("error", RestError, rest_parse_error, (int status, const char *body, size_t len), (status, body, len),
	 body, len, 1, prefix[0] = status_byte(status))
WRAP("limits", bool, rest_parse_limits, (const char *body, size_t len, int64 *used, int64 *most),
	 (body, len, used, most), body, len, 0, (void) prefix)
WRAP("versions", bool, rest_parse_versions,
	 (const char *body, size_t len, const char *version, char **newest), (body, len, version, newest), body,
	 len, 0, (void) prefix)
WRAP("tooling", bool, tooling_parse_found, (const char *body, size_t len, char **id, char **error),
	 (body, len, id, error), body, len, 0, (void) prefix)
WRAP("tooling", bool, tooling_parse_created, (const char *body, size_t len, char **id, char **error),
	 (body, len, id, error), body, len, 0, (void) prefix)
WRAP("auth", AuthToken *, auth_parse,
	 (int status, const char *body, size_t len, const char *url, ErrorScope *scope, char **error),
	 (status, body, len, url, scope, error), body, len, 1, prefix[0] = status_byte(status))
WRAP("auth", bool, auth_parse_user, (const char *body, size_t len, AuthUser *user), (body, len, user), body,
	 len, 1, (void) prefix)
WRAP("describe", SfObject *, describe_parse, (const char *body, size_t len, char **error), (body, len, error),
	 body, len, 0, (void) prefix)
WRAP("retrieve", bool, rest_parse_retrieve,
	 (const char *body, size_t len, const char *const *ids, int nids, const char *const *fields, int n,
	  RestRead *reads, char **error),
	 (body, len, ids, nids, fields, n, reads, error), body, len, 0, (void) prefix)
WRAP("find", bool, rest_parse_find,
	 (const char *body, size_t len, const char *ext, const char *const *fields, int n, RestRead **reads,
	  int *nreads, RestPage *page),
	 (body, len, ext, fields, n, reads, nreads, page), body, len, 0, (void) prefix)
WRAP("find_deleted", bool, rest_parse_find_deleted,
	 (const char *body, size_t len, RestRead **reads, int *nreads, RestPage *page),
	 (body, len, reads, nreads, page), body, len, 0, (void) prefix)
WRAP("history", bool, rest_parse_history,
	 (const char *body, size_t len, const char *parent, const char *const *fields, int n,
	  RestChange **changes, int *nchanges, RestPage *page),
	 (body, len, parent, fields, n, changes, nchanges, page), body, len, 0, (void) prefix)
WRAP("users", bool, rest_parse_users,
	 (const char *body, size_t len, RestUser **users, int *nusers, RestPage *page),
	 (body, len, users, nusers, page), body, len, 0, (void) prefix)
WRAP("lookup", bool, rest_parse_lookup,
	 (const char *body, size_t len, const char *ext, RestRead **reads, int *nreads, RestPage *page),
	 (body, len, ext, reads, nreads, page), body, len, 0, (void) prefix)
WRAP("bulk_info", bool, bulk_parse_info, (const char *body, size_t len, BulkInfo *info, char **error),
	 (body, len, info, error), body, len, 0, (void) prefix)
WRAP("bulk_error", RestError, bulk_parse_error, (const char *text), (text), text, strlen(text), 0,
	 (void) prefix)
WRAP("bulk_locator", bool, bulk_locator_valid, (const char *locator), (locator), locator ? locator : "",
	 locator ? strlen(locator) : 0, 0, (void) prefix)
WRAP("bulk_results", void, bulk_reader_feed, (BulkReader * reader, const char *data, size_t len),
	 (reader, data, len), data, len, 1,
	 (prefix[0] = 7, seed("bulk_results", prefix, 1, data, len), prefix[0] = 20))
WRAP("headers", bool, rest_parse_limit_info, (const char *header, int64 *used, int64 *most),
	 (header, used, most), header, header ? strlen(header) : 0, 0, (void) prefix)
WRAP("forms", char *, rest_id18, (const char *text), (text), text, strlen(text), 0, (void) prefix)
WRAP("forms", char *, rest_number_key, (const char *text), (text), text, strlen(text), 0, (void) prefix)
WRAP("forms", char *, rest_plain_number, (const char *text), (text), text, strlen(text), 0, (void) prefix)
WRAP("forms", char *, rest_record_key, (const char *text, bool exact), (text, exact), text, strlen(text), 0,
	 (void) prefix)
WRAP("forms", bool, rest_parse_time, (const char *text, int64 *time), (text, time), text, strlen(text), 0,
	 (void) prefix)
WRAP("url", const char *, url_refused, (const char *url), (url), url, strlen(url), 0, (void) prefix)
WRAP("memory", Memory, memory_read, (const uint8 *bytes, int len), (bytes, len), bytes, len, 0, (void) prefix)
WRAP("coerce", bool, coerce_value,
	 (const SourceValue *value, const SfField *field, const CoerceOptions *options, FieldValue *out,
	  char **reason),
	 (value, field, options, out, reason), value->text ? value->text : "",
	 value->text ? strlen(value->text) : 0, 4,
	 (prefix[0] = value->kind, prefix[1] = options->keep_null + 2 * options->truncate + 4 * value->isnull,
	  prefix[2] = 0xD1, prefix[3] = field->type))
WRAP("canonical", char *, canonical_value, (const FieldValue *value, const SfField *field), (value, field),
	 value->text ? value->text : "", value->text ? strlen(value->text) : 0, 3,
	 (prefix[0] = value->kind == FV_NUMBER, prefix[1] = 0xD1, prefix[2] = field->type))
