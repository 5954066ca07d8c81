/* Replies to what writes, logs in and describes: rest_reply.c, tooling.c, auth.c, describe.c, errors.c */
#include "fuzz.h"

#include "auth.h"
#include "describe.h"
#include "rest.h"
#include "tooling.h"
#include "url.h"

#define MOST_RECORDS 8

static const int statuses[] = {200, 201, 204, 400, 401, 403, 404, 412, 414, 429, 500, 503};

static int
take_status(const uint8_t **data, size_t *size)
{
	return statuses[take_byte(data, size) % lengthof(statuses)];
}

static void
check_error(const RestError *error)
{
	must(error->message != NULL);
	must_be_line(error->message);
	must_be_line(error->code);
	for (int i = 0; i < error->nfields; i++)
		must_be_line(error->fields[i]);
	(void) error_hint(error->code);
}

static void
check_result(const RestResult *result)
{
	must_be_id(result->id);
	if (result->success)
		return;
	check_error(&result->error);
	(void) error_classify(result->http_status, result->error.code, result->error.message);
}

static void
results(const uint8_t *data, size_t size)
{
	int n = take_byte(&data, &size) % (MOST_RECORDS + 1);
	RestResult parsed[MOST_RECORDS];
	char *error = NULL;

	if (rest_parse_results((const char *) data, size, n, parsed, &error))
		for (int i = 0; i < n; i++)
			check_result(&parsed[i]);
	else
		must(error != NULL);
	must_be_line(error);
}

static void
unpack(const uint8_t *data, size_t size)
{
	int n = 2 + take_byte(&data, &size) % (REST_PACK_LIMIT - 1);
	RestPart parts[REST_PACK_LIMIT];
	char *error = NULL;

	if (!rest_unpack((const char *) data, size, n, parts, &error))
	{
		must(error != NULL);
		must_be_line(error);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		RestResult parsed[MOST_RECORDS];
		RestError failure = rest_parse_error(parts[i].http_status, parts[i].body, parts[i].body_len);

		must(strlen(parts[i].body) == parts[i].body_len);
		check_error(&failure);
		if (rest_parse_results(parts[i].body, parts[i].body_len, 1, parsed, &error))
			check_result(&parsed[0]);
	}
}

static void
update_if(const uint8_t *data, size_t size)
{
	int n = take_byte(&data, &size) % (MOST_RECORDS + 1);
	RestRecord records[MOST_RECORDS] = {0};
	RestResult parsed[MOST_RECORDS];
	bool failed[MOST_RECORDS];
	char *error = NULL;

	for (int i = 0; i < n; i++)
		records[i].salesforce_id = "001xx0000004GxDAAU";
	if (rest_parse_update_if((const char *) data, size, records, n, parsed, failed, &error))
	{
		for (int i = 0; i < n; i++)
		{
			check_result(&parsed[i]);
			must(!failed[i] || !parsed[i].success);
		}
	}
	else
		must(error != NULL);
	must_be_line(error);
}

static void
failure(const uint8_t *data, size_t size)
{
	int status = take_status(&data, &size);
	RestError error = rest_parse_error(status, (const char *) data, size);

	check_error(&error);
	(void) error_classify(status, error.code, error.message);
	(void) error_classify_oauth(status, error.code, error.message);
}

static void
limits(const uint8_t *data, size_t size)
{
	int64 used;
	int64 most;

	if (rest_parse_limits((const char *) data, size, &used, &most))
		must(used >= 0 && most >= 0);
}

static void
versions(const uint8_t *data, size_t size)
{
	char *newest = NULL;

	(void) rest_parse_versions((const char *) data, size, "66.0", &newest);
	must_be_line(newest);
}

static void
tooling(const uint8_t *data, size_t size)
{
	char *id = NULL;
	char *error = NULL;

	if (tooling_parse_found((const char *) data, size, &id, &error))
		must_be_id(id);
	else
		must(error != NULL);
	must_be_line(error);
	error = NULL;
	if (tooling_parse_created((const char *) data, size, &id, &error))
	{
		must(id != NULL);
		must_be_id(id);
	}
	else
		must(error != NULL);
	must_be_line(error);
}

static void
auth(const uint8_t *data, size_t size)
{
	int status = take_status(&data, &size);
	ErrorScope scope;
	char *error = NULL;
	AuthToken *token =
		auth_parse(status, (const char *) data, size, "https://a.my.salesforce.com", &scope, &error);
	AuthUser user;

	if (token)
	{
		must(url_refused(token->instance_url) == NULL);
		must(strpbrk(token->access_token, " \r\n") == NULL);
		must_be_id(token->organization_id);
		must_be_id(token->user_id);
	}
	else
		must(error != NULL);
	must_be_line(error);
	if (auth_parse_user((const char *) data, size, &user))
	{
		must_be_id(user.organization_id);
		must_be_id(user.user_id);
		must_be_line(user.username);
	}
}

static void
check_field(const SfObject *object, const SfField *field)
{
	must_be_text(field->name);
	must_be_text(field->label);
	must_be_text(field->type_name);
	must(describe_field(object, field->name) != NULL);
	for (int i = 0; i < field->npicklist; i++)
		must_be_text(field->picklist[i]);
	for (int i = 0; i < field->nreference_to; i++)
		must_be_text(field->reference_to[i]);
	must_be_text(field->relationship_name);
	(void) describe_required(field);
}

static void
must_be_same(const char *a, const char *b)
{
	must((a == NULL) == (b == NULL));
	must(a == NULL || strcmp(a, b) == 0);
}

static void
compare_fields(const SfField *a, const SfField *b)
{
	must_be_same(a->name, b->name);
	must_be_same(a->label, b->label);
	must_be_same(a->relationship_name, b->relationship_name);
	must(a->type == b->type && a->length == b->length && a->digits == b->digits);
	must(a->precision == b->precision && a->scale == b->scale);
	must(a->createable == b->createable && a->updateable == b->updateable && a->nillable == b->nillable);
	must(a->external_id == b->external_id && a->unique == b->unique);
	must(a->npicklist == b->npicklist && a->nreference_to == b->nreference_to);
	for (int i = 0; i < a->npicklist; i++)
		must_be_same(a->picklist[i], b->picklist[i]);
	for (int i = 0; i < a->nreference_to; i++)
		must_be_same(a->reference_to[i], b->reference_to[i]);
}

/* What is reduced says the same. */
static void
describe(const uint8_t *data, size_t size)
{
	char *error = NULL;
	SfObject *object = describe_parse((const char *) data, size, &error);
	char *reduced;
	SfObject *same;

	must(object || error);
	must_be_line(error);
	for (int i = 0; object && i < object->nfields; i++)
		check_field(object, &object->fields[i]);
	error = NULL;
	reduced = describe_reduce((const char *) data, size, &error);
	must((reduced != NULL) == (object != NULL));
	if (!reduced)
		return;
	same = describe_parse(reduced, strlen(reduced), &error);
	must(same && same->nfields == object->nfields);
	must_be_same(same->name, object->name);
	must_be_same(same->history_object, object->history_object);
	must_be_same(same->history_parent, object->history_parent);
	for (int i = 0; i < object->nfields; i++)
		compare_fields(&object->fields[i], &same->fields[i]);
}

const Target reply_targets[] = {{"results", results}, {"unpack", unpack}, {"update_if", update_if},
								{"error", failure},   {"limits", limits}, {"versions", versions},
								{"tooling", tooling}, {"auth", auth},     {"describe", describe},
								{NULL, NULL}};
