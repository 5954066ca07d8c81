/* Replies of describe: describe.c */
#include "unit.h"

#include "describe.h"

/* As Salesforce sends it (reference, section 3), with keys that nobody reads. */
static const char sample[] =
	"{\"actionOverrides\":[],\"name\":\"Account\",\"label\":\"Account \\u00e4\",\"labelPlural\":\"Accounts\","
	"\"custom\":false,\"keyPrefix\":\"001\",\"createable\":true,\"updateable\":true,\"deletable\":true,"
	"\"queryable\":true,\"childRelationships\":[{\"cascadeDelete\":false,\"field\":\"ParentId\",\"relationshipName\":null}],"
	"\"fields\":["
	"{\"name\":\"Id\",\"label\":\"Account ID\",\"type\":\"id\",\"length\":18,\"byteLength\":18,\"createable\":false,"
	"\"updateable\":false,\"nillable\":false,\"defaultedOnCreate\":true,\"idLookup\":true,\"picklistValues\":[],"
	"\"referenceTo\":[],\"relationshipName\":null,\"defaultValue\":null,\"custom\":false,\"calculated\":false},"
	"{\"name\":\"Name\",\"label\":\"Name\",\"type\":\"string\",\"length\":255,\"createable\":true,\"updateable\":true,"
	"\"nillable\":false,\"defaultedOnCreate\":false},"
	"{\"name\":\"Tier__c\",\"label\":\"Tier\",\"type\":\"picklist\",\"length\":255,\"createable\":true,\"updateable\":true,"
	"\"nillable\":true,\"custom\":true,\"restrictedPicklist\":true,\"picklistValues\":["
	"{\"active\":true,\"defaultValue\":false,\"label\":\"Or\",\"validFor\":null,\"value\":\"Gold\"},"
	"{\"active\":false,\"defaultValue\":false,\"label\":\"Tin\",\"validFor\":null,\"value\":\"Tin\"},"
	"{\"active\":true,\"defaultValue\":false,\"label\":\"Argent\",\"validFor\":null,\"value\":\"Silver\"}]},"
	"{\"name\":\"Active__c\",\"label\":\"Active\",\"type\":\"boolean\",\"createable\":true,\"updateable\":true,"
	"\"nillable\":false,\"defaultedOnCreate\":true,\"defaultValue\":true,\"custom\":true},"
	"{\"name\":\"Revenue__c\",\"label\":\"Revenue\",\"type\":\"currency\",\"precision\":18,\"scale\":2,\"digits\":0,"
	"\"createable\":true,\"updateable\":true,\"nillable\":true,\"custom\":true},"
	"{\"name\":\"NumberOfEmployees\",\"label\":\"Employees\",\"type\":\"int\",\"digits\":8,\"createable\":true,"
	"\"updateable\":true,\"nillable\":true},"
	"{\"name\":\"Pg_Id__c\",\"label\":\"PG\",\"type\":\"string\",\"length\":40,\"externalId\":true,\"idLookup\":true,"
	"\"unique\":true,\"caseSensitive\":true,\"createable\":true,\"updateable\":true,\"nillable\":true,\"custom\":true},"
	"{\"name\":\"OwnerId\",\"label\":\"Owner\",\"type\":\"reference\",\"length\":18,\"relationshipName\":\"Owner\","
	"\"referenceTo\":[\"User\",\"Group\"],\"createable\":true,\"updateable\":true,\"nillable\":false,\"defaultedOnCreate\":true},"
	"{\"name\":\"BillingAddress\",\"label\":\"Address\",\"type\":\"address\",\"createable\":false,\"updateable\":false,\"nillable\":true},"
	"{\"name\":\"Sum__c\",\"label\":\"Sum\",\"type\":\"double\",\"calculated\":true,\"calculatedFormula\":\"1+1\","
	"\"createable\":false,\"updateable\":false,\"nillable\":true,\"htmlFormatted\":false,\"custom\":true}"
	"],\"urls\":{\"sobject\":\"/services/data/v66.0/sobjects/Account\"}}";

static SfObject *
parse(const char *text)
{
	char *error;
	SfObject *object = describe_parse(text, strlen(text), &error);

	assert_true((object == NULL) == (error != NULL));
	return object;
}

static void
check_sample(const SfObject *object)
{
	const SfField *field;

	assert_string_equal(object->name, "Account");
	assert_string_equal(object->label, "Account ä");
	assert_string_equal(object->key_prefix, "001");
	assert_true(object->createable && object->updateable && object->deletable && object->queryable);
	assert_int_equal(object->nfields, 10);

	field = describe_field(object, "TIER__C");
	assert_ptr_equal(field, &object->fields[2]);
	assert_int_equal(field->type, SF_PICKLIST);
	assert_true(field->restricted_picklist && field->custom && field->nillable);
	assert_int_equal(field->npicklist, 2);
	assert_string_equal(field->picklist[0], "Gold");
	assert_string_equal(field->picklist[1], "Silver");

	field = describe_field(object, "Active__c");
	assert_true(field->default_boolean && field->defaulted_on_create && !field->nillable);
	field = describe_field(object, "Revenue__c");
	assert_int_equal(field->type, SF_CURRENCY);
	assert_int_equal(field->precision, 18);
	assert_int_equal(field->scale, 2);
	field = describe_field(object, "NumberOfEmployees");
	assert_int_equal(field->digits, 8);
	assert_false(field->custom);
	field = describe_field(object, "Pg_Id__c");
	assert_true(field->external_id && field->id_lookup && field->unique && field->case_sensitive);
	assert_int_equal(field->length, 40);
	field = describe_field(object, "OwnerId");
	assert_string_equal(field->relationship_name, "Owner");
	assert_int_equal(field->nreference_to, 2);
	assert_string_equal(field->reference_to[1], "Group");
	field = describe_field(object, "BillingAddress");
	assert_int_equal(field->type, SF_OTHER);
	assert_string_equal(field->type_name, "address");
	assert_true(describe_field(object, "Sum__c")->calculated);
	assert_null(describe_field(object, "Nothing__c"));
	assert_null(describe_field(object, ""));
}

static void
parses_a_reply(void **state)
{
	(void) state;
	check_sample(parse(sample));
}

static void
required_fields(void **state)
{
	SfObject *object = parse(sample);

	(void) state;
	assert_true(describe_required(describe_field(object, "Name")));
	assert_false(describe_required(describe_field(object, "Id")));
	assert_false(describe_required(describe_field(object, "Active__c")));
	assert_false(describe_required(describe_field(object, "OwnerId")));
	assert_false(describe_required(describe_field(object, "Tier__c")));
}

/* The reduced form says the same, is smaller, and reduces to itself. */
static void
reduces(void **state)
{
	char *error;
	char *reduced = describe_reduce(sample, strlen(sample), &error);
	char *again;

	(void) state;
	assert_null(error);
	assert_true(strlen(reduced) < strlen(sample));
	check_sample(parse(reduced));
	assert_null(strstr(reduced, "childRelationships"));
	assert_null(strstr(reduced, "calculatedFormula"));
	assert_null(strstr(reduced, "Tin"));
	assert_null(strstr(reduced, "Argent"));
	again = describe_reduce(reduced, strlen(reduced), &error);
	assert_string_equal(again, reduced);
}

/* Where the history of an object's fields is, and by which field. */
static void
history(void **state)
{
	static const struct
	{
		const char *object;
		const char *children;
		const char *history;
		const char *parent;
	} cases[] = {
		{"Account",
		 "[{\"childSObject\":\"AccountContactRole\",\"field\":\"AccountId\"},"
		 "{\"childSObject\":\"AccountHistory\",\"field\":\"AccountId\",\"relationshipName\":\"Histories\"}]",
		 "AccountHistory", "AccountId"},
		{"Opportunity",
		 "[{\"childSObject\":\"OpportunityHistory\",\"field\":\"OpportunityId\"},"
		 "{\"childSObject\":\"OpportunityFieldHistory\",\"field\":\"OpportunityId\"}]",
		 "OpportunityFieldHistory", "OpportunityId"},
		{"My_Thing__c", "[{\"childSObject\":\"my_thing__History\",\"field\":\"ParentId\"}]",
		 "my_thing__History", "ParentId"},
		{"Account", "[{\"childSObject\":\"ContactHistory\",\"field\":\"AccountId\"}]", NULL, NULL},
		{"Account", "[{\"childSObject\":\"AccountHistoryX\",\"field\":\"AccountId\"}]", NULL, NULL},
		{"A__c", "[{\"childSObject\":\"A__cHistory\",\"field\":\"ParentId\"}]", NULL, NULL},
		{"A__c", "[{\"childSObject\":\"A\",\"field\":\"ParentId\"}]", NULL, NULL},
		{"Opportunity", "[{\"childSObject\":\"OpportunityHistory\",\"field\":\"OpportunityId\"}]", NULL,
		 NULL},
		/* what is odd here must not stop a mapping, nor get into a query */
		{"Account", "[]", NULL, NULL},
		{"Account", "null", NULL, NULL},
		{"Account", "{}", NULL, NULL},
		{"Account", "[null,7,[],{},{\"childSObject\":\"AccountHistory\"}]", NULL, NULL},
		{"Account", "[{\"childSObject\":\"AccountHistory\",\"field\":null}]", NULL, NULL},
		{"Account", "[{\"childSObject\":\"AccountHistory\",\"field\":\"\"}]", NULL, NULL},
		{"Account", "[{\"childSObject\":\"AccountHistory\",\"field\":\"Id,Name FROM User--\"}]", NULL, NULL},
		{"Account", "[{\"childSObject\":\"AccountHistory\\u0000\",\"field\":\"AccountId\"}]", NULL, NULL},
		{"Account", "[{\"childSObject\":7,\"field\":\"AccountId\"}]", NULL, NULL},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		char *text = psprintf("{\"name\":\"%s\",\"childRelationships\":%s,"
							  "\"fields\":[{\"name\":\"F\",\"type\":\"string\"}]}",
							  cases[i].object, cases[i].children);
		char *error;

		for (int reduced = 0; reduced < 2; reduced++)
		{
			SfObject *object = parse(text);

			assert_true((object->history_object == NULL) == (cases[i].history == NULL));
			assert_true((object->history_parent == NULL) == (cases[i].history == NULL));
			if (cases[i].history != NULL)
			{
				assert_string_equal(object->history_object, cases[i].history);
				assert_string_equal(object->history_parent, cases[i].parent);
			}
			text = describe_reduce(text, strlen(text), &error);
			assert_null(strstr(text, "Role"));
		}
		assert_string_equal(describe_reduce(text, strlen(text), &error), text);
	}
}

static void
knows_all_types(void **state)
{
	static const struct
	{
		const char *name;
		SfType type;
	} types[] = {
		{"id", SF_ID},
		{"reference", SF_REFERENCE},
		{"string", SF_STRING},
		{"textarea", SF_TEXTAREA},
		{"phone", SF_PHONE},
		{"url", SF_URL},
		{"email", SF_EMAIL},
		{"combobox", SF_COMBOBOX},
		{"encryptedstring", SF_ENCRYPTED},
		{"picklist", SF_PICKLIST},
		{"multipicklist", SF_MULTIPICKLIST},
		{"boolean", SF_BOOLEAN},
		{"int", SF_INT},
		{"long", SF_LONG},
		{"double", SF_DOUBLE},
		{"currency", SF_CURRENCY},
		{"percent", SF_PERCENT},
		{"date", SF_DATE},
		{"datetime", SF_DATETIME},
		{"time", SF_TIME},
		{"base64", SF_BASE64},
		{"location", SF_OTHER},
		{"anyType", SF_OTHER},
		{"complexvalue", SF_OTHER},
		{"STRING", SF_OTHER},
		{"", SF_OTHER},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(types); i++)
	{
		SfObject *object =
			parse(psprintf("{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"%s\"}]}", types[i].name));

		assert_int_equal(object->fields[0].type, types[i].type);
		assert_string_equal(object->fields[0].label, "F");
	}
}

static void
refuses_what_is_no_describe(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"null",
		"[]",
		"42",
		"\"text\"",
		"{}",
		"<html>",
		"{\"name\":\"X\"}",
		"[{\"errorCode\":\"NOT_FOUND\",\"message\":\"The requested resource does not exist\"}]",
		"{\"name\":\"X\",\"fields\":[]}",
		"{\"name\":\"X\",\"fields\":{}}",
		"{\"name\":\"X\",\"fields\":[null]}",
		"{\"name\":\"X\",\"fields\":[[]]}",
		"{\"name\":\"X\",\"fields\":[{\"type\":\"string\"}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\"}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":7,\"type\":\"string\"}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"\",\"type\":\"string\"}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\\u0000x\",\"type\":\"string\"}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F'--\",\"type\":\"string\"}]}",
		"{\"name\":\"X/../Y\",\"fields\":[{\"name\":\"F\",\"type\":\"string\"}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":[]}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"string\",\"length\":\"18\"}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"string\",\"length\":-1}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"string\",\"length\":1.5}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"string\",\"length\":99999999999999999999}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"string\",\"createable\":\"yes\"}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"picklist\",\"picklistValues\":{}}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"picklist\",\"picklistValues\":[1]}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"picklist\",\"picklistValues\":[{\"active\":true}]}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"reference\",\"referenceTo\":[null]}]}",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"string\"}]} trailing",
		"{\"name\":\"X\",\"fields\":[{\"name\":\"F\",\"type\":\"string\"},]}",
		"{'name':'X','fields':[{'name':'F','type':'string'}]}",
		"{\"name\":\"X\",\"label\":\"\xff\",\"fields\":[{\"name\":\"F\",\"type\":\"string\"}]}",
	};

	(void) state;
	for (size_t i = 0; i < lengthof(bad); i++)
	{
		char *error;

		if (describe_parse(bad[i], strlen(bad[i]), &error) != NULL)
			fail_msg("taken for a describe: %s", bad[i]);
		assert_non_null(error);
		assert_null(describe_reduce(bad[i], strlen(bad[i]), &error));
		assert_non_null(error);
	}
}

/* A reply that was cut off, or mangled, is refused or parsed, never worse. */
static void
survives_any_bytes(void **state)
{
	size_t len = strlen(sample);
	uint64_t seed = 7;
	char *error;

	(void) state;
	for (size_t cut = 0; cut < len; cut++)
	{
		char *copy = exact_copy(sample, cut);

		assert_null(describe_parse(copy, cut, &error));
		assert_non_null(error);
		free(copy);
	}
	for (int i = 0; i < 3000; i++)
	{
		char *copy = exact_copy(sample, len);

		for (int j = 0; j < 3; j++)
			copy[next_random(&seed) % len] = (char) next_random(&seed);
		(void) describe_parse(copy, len, &error);
		(void) describe_reduce(copy, len, &error);
		free(copy);
	}
}

static void
bounds_depth(void **state)
{
	char *deep = palloc(200001);
	char *error;

	(void) state;
	memset(deep, '[', 200000);
	deep[200000] = '\0';
	assert_null(describe_parse(deep, 200000, &error));
	assert_non_null(error);
	assert_null(describe_parse("{\"name\":\"X\0\"}", 13, &error));
}

/* Names that are given, and those of a describe, go into URLs and queries: nothing but ASCII. */
static void
names(void **state)
{
	static const char *const good[] = {"Account", "a", "PG_Key__c", "ns__Foo2__c"};
	static const char *const bad[] = {"",
									  "a b",
									  "a-b",
									  "a.b",
									  "Stra\xdf"
									  "e",
									  "Stra\xc3\x9f"
									  "e",
									  "a'",
									  "a\n"};
	char longest[257];

	for (int i = 0; i < lengthof(good); i++)
		assert_true(describe_is_name(good[i], strlen(good[i])));
	for (int i = 0; i < lengthof(bad); i++)
		assert_false(describe_is_name(bad[i], strlen(bad[i])));
	memset(longest, 'a', 256);
	longest[256] = '\0';
	assert_false(describe_is_name(longest, 256));
	longest[255] = '\0';
	assert_true(describe_is_name(longest, 255));
}

static void
numbers(void **state)
{
	for (SfType type = SF_ID; type <= SF_OTHER; type++)
	{
		SfField field = {.type = type};

		assert_int_equal(describe_is_number(&field), type == SF_INT || type == SF_LONG || type == SF_DOUBLE ||
														 type == SF_CURRENCY || type == SF_PERCENT);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(numbers),
		cmocka_unit_test(parses_a_reply),
		cmocka_unit_test(required_fields),
		cmocka_unit_test(reduces),
		cmocka_unit_test(history),
		cmocka_unit_test(knows_all_types),
		cmocka_unit_test(refuses_what_is_no_describe),
		cmocka_unit_test(survives_any_bytes),
		cmocka_unit_test(bounds_depth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
