/* Replies to what reads: rest_read.c */
#include "fuzz.h"

#include "rest.h"

#define ID1 "001xx0000004GxDAAU"
#define ID2 "001xx0000004GxEAAU"

static const char *const asked[] = {"Name", "Amount__c", "On__c", "Site", "Parent.PG_Key__c"};
static const char *const ids[] = {ID1, ID2, "a\"b"};

static void
check_value(const FieldValue *value)
{
	switch (value->kind)
	{
		case FV_NUMBER:
			must(value->text != NULL);
			(void) rest_plain_number(value->text);
			break;
		case FV_STRING:
			must(value->text != NULL);
			must_be_text(value->text);
			break;
		default:
			must(value->kind == FV_ABSENT || value->kind == FV_NULL || value->kind == FV_BOOL);
	}
}

static void
check_read(const RestRead *read, int nfields)
{
	if (!read->found)
		return;
	must(read->id != NULL);
	must_be_id(read->id);
	must_be_id(read->last_modified_by);
	must_be_id(read->master_record_id);
	must_be_text(read->key);
	for (int i = 0; i < nfields; i++)
		check_value(&read->values[i]);
}

/* A page's parser was wrong, or the page tells why. */
static void
check_page(bool good, const RestPage *page)
{
	must_be_line(page->error);
	if (good)
	{
		must(page->error == NULL);
		must_be_line(page->next);
		must(page->next == NULL || page->next[0] == '/');
	}
	else if (page->error == NULL)
	{
		must(page->failure.message != NULL);
		must_be_line(page->failure.message);
		must_be_line(page->failure.code);
	}
}

static void
retrieve(const uint8_t *data, size_t size)
{
	RestRead reads[lengthof(ids)];
	char *error = NULL;

	if (rest_parse_retrieve((const char *) data, size, ids, lengthof(ids), asked, lengthof(asked), reads,
							&error))
		for (size_t i = 0; i < lengthof(ids); i++)
			check_read(&reads[i], lengthof(asked));
	else
		must(error != NULL);
	must_be_line(error);
}

static void
find(const uint8_t *data, size_t size)
{
	RestRead *reads = NULL;
	int n = 0;
	RestPage page = {0};
	bool good = rest_parse_find((const char *) data, size, "K__c", asked, lengthof(asked), &reads, &n, &page);

	check_page(good, &page);
	for (int i = 0; good && i < n; i++)
		check_read(&reads[i], lengthof(asked));
}

static void
find_deleted(const uint8_t *data, size_t size)
{
	RestRead *reads = NULL;
	int n = 0;
	RestPage page = {0};
	bool good = rest_parse_find_deleted((const char *) data, size, &reads, &n, &page);

	check_page(good, &page);
	for (int i = 0; good && i < n; i++)
		check_read(&reads[i], 0);
}

static void
history(const uint8_t *data, size_t size)
{
	RestChange *changes = NULL;
	int n = 0;
	RestPage page = {0};
	bool good = rest_parse_history((const char *) data, size, "AccountId", asked, lengthof(asked), &changes,
								   &n, &page);

	check_page(good, &page);
	for (int i = 0; good && i < n; i++)
	{
		must(changes[i].id != NULL);
		must_be_id(changes[i].id);
		must_be_id(changes[i].by);
		must(changes[i].field >= 0 && changes[i].field < (int) lengthof(asked));
	}
}

static void
users(const uint8_t *data, size_t size)
{
	RestUser *found = NULL;
	int n = 0;
	RestPage page = {0};
	bool good = rest_parse_users((const char *) data, size, &found, &n, &page);

	check_page(good, &page);
	for (int i = 0; good && i < n; i++)
	{
		must_be_id(found[i].id);
		must_be_line(found[i].name);
	}
}

static void
lookup(const uint8_t *data, size_t size)
{
	RestRead *found = NULL;
	int n = 0;
	RestPage page = {0};
	bool good = rest_parse_lookup((const char *) data, size, "K__c", &found, &n, &page);

	check_page(good, &page);
	for (int i = 0; good && i < n; i++)
	{
		must_be_text(found[i].key);
		must(found[i].id != NULL);
		must_be_id(found[i].id);
	}
}

const Target read_targets[] = {{"retrieve", retrieve},
							   {"find", find},
							   {"find_deleted", find_deleted},
							   {"history", history},
							   {"users", users},
							   {"lookup", lookup},
							   {NULL, NULL}};
