/* Custom fields by the Tooling API: tooling.c */
#include "unit.h"

#include "tooling.h"

static void
test_names(void **state)
{
	static const char *const names[][3] = {
		{"loyalty_tier", "Loyalty_Tier__c", "Loyalty Tier"},
		{"x", "X__c", "X"},
		{"loyaltyTier", "LoyaltyTier__c", "LoyaltyTier"},
		{"__two__words_", "Two_Words__c", "Two Words"},
		{"a_1_2b", "A_1_2b__c", "A 1 2b"},
		{"abcdefghij_bcdefghij_bcdefghij_bcdefghij", "Abcdefghij_Bcdefghij_Bcdefghij_Bcdefghij__c",
		 "Abcdefghij Bcdefghij Bcdefghij Bcdefghij"},
	};
	static const char *const none[] = {
		"",
		"_",
		"1st",
		"_1",
		"with space",
		"gr\xC3\xB6\xC3\x9F"
		"e",
		"quo\"te",
		"do$lar",
		"line\nbreak",
		"abcdefghij_bcdefghij_bcdefghij_bcdefghijk",
	};

	(void) state;
	for (size_t i = 0; i < lengthof(names); i++)
	{
		assert_string_equal(tooling_field_name(names[i][0]), names[i][1]);
		assert_string_equal(tooling_field_label(names[i][0]), names[i][2]);
	}
	for (size_t i = 0; i < lengthof(none); i++)
		assert_null(tooling_field_name(none[i]));
}

static void
check_text(int length, NewFieldType type, int expected)
{
	NewField field = tooling_text(length);

	assert_int_equal(field.type, type);
	assert_int_equal(field.length, expected);
}

static void
test_texts(void **state)
{
	(void) state;
	check_text(0, NEW_FIELD_LONG_TEXT, 32768);
	check_text(1, NEW_FIELD_TEXT, 1);
	check_text(255, NEW_FIELD_TEXT, 255);
	check_text(256, NEW_FIELD_LONG_TEXT, 256);
	check_text(131072, NEW_FIELD_LONG_TEXT, 131072);
	check_text(10485760, NEW_FIELD_LONG_TEXT, 131072);
}

/* Salesforce takes 18 digits, and a scale between 0 and the precision. */
static void
test_numbers(void **state)
{
	for (int precision = 1; precision <= 40; precision++)
		for (int scale = -20; scale <= 40; scale++)
		{
			NewField field = tooling_number(precision, scale);

			if (field.type == NEW_FIELD_TEXT)
			{
				assert_true(precision > 18 || scale > 18 || precision - scale > 18);
				continue;
			}
			assert_int_equal(field.type, NEW_FIELD_NUMBER);
			assert_true(field.scale >= 0 && field.scale <= field.precision && field.precision <= 18);
			assert_true(field.scale >= scale);
			assert_true(field.precision - field.scale >= precision - scale);
		}
	assert_int_equal(tooling_number(0, 0).type, NEW_FIELD_TEXT);
	assert_int_equal(tooling_number(14, 2).precision, 14);
	assert_int_equal(tooling_number(14, 2).scale, 2);
}

static void
test_picklists(void **state)
{
	char *good[] = {"new", "in progress", "done"};
	char *alike[] = {"new", "New"};
	char *blank[] = {"new", " old"};
	char *empty[] = {""};
	char *two[] = {"a;b"};

	(void) state;
	assert_int_equal(tooling_picklist(good, 3).type, NEW_FIELD_PICKLIST);
	assert_int_equal(tooling_picklist(good, 3).nlabels, 3);
	assert_int_equal(tooling_picklist(good, 0).type, NEW_FIELD_TEXT);
	assert_int_equal(tooling_picklist(alike, 2).type, NEW_FIELD_TEXT);
	assert_int_equal(tooling_picklist(blank, 2).type, NEW_FIELD_TEXT);
	assert_int_equal(tooling_picklist(empty, 1).type, NEW_FIELD_TEXT);
	assert_int_equal(tooling_picklist(two, 1).type, NEW_FIELD_TEXT);
}

#define PREFIX                                                                                               \
	"{\"FullName\":\"Account.Tier__c\",\"Metadata\":{\"label\":\"Tier\","                                    \
	"\"description\":\"Made by sfsync for a column of a mapped PostgreSQL table\",\"required\":false,"

static void
check_create(NewField field, const char *type)
{
	RestCall *call = tooling_create_field("66.0", "Account", "Tier__c", "Tier", &field);

	assert_string_equal(call->method, "POST");
	assert_string_equal(call->path, "/services/data/v66.0/tooling/sobjects/CustomField");
	assert_string_equal(call->body, psprintf("%s%s}}", PREFIX, type));
	assert_int_equal(call->body_len, strlen(call->body));
}

static void
test_create(void **state)
{
	char *labels[] = {"a", "say \"b\""};

	(void) state;
	check_create(tooling_text(36), "\"type\":\"Text\",\"length\":36");
	check_create(tooling_text(0), "\"type\":\"LongTextArea\",\"length\":32768,\"visibleLines\":3");
	check_create(tooling_number(14, 2), "\"type\":\"Number\",\"precision\":14,\"scale\":2");
	check_create((NewField){NEW_FIELD_CHECKBOX}, "\"type\":\"Checkbox\",\"defaultValue\":\"false\"");
	check_create((NewField){NEW_FIELD_DATE}, "\"type\":\"Date\"");
	check_create((NewField){NEW_FIELD_DATETIME}, "\"type\":\"DateTime\"");
	check_create((NewField){NEW_FIELD_TIME}, "\"type\":\"Time\"");
	check_create(tooling_picklist(labels, 2),
				 "\"type\":\"Picklist\",\"valueSet\":{\"restricted\":false,\"valueSetDefinition\":"
				 "{\"sorted\":false,\"value\":[{\"fullName\":\"a\",\"label\":\"a\",\"default\":false},"
				 "{\"fullName\":\"say \\\"b\\\"\",\"label\":\"say \\\"b\\\"\",\"default\":false}]}}");
}

static void
check_call(const RestCall *call, const char *method, const char *path, const char *body)
{
	assert_string_equal(call->method, method);
	assert_string_equal(call->path, psprintf("/services/data/v66.0%s", path));
	if (body)
		assert_string_equal(call->body, body);
	else
		assert_null(call->body);
}

static void
test_permissions(void **state)
{
	(void) state;
	check_call(tooling_find_permission_set("66.0"), "GET",
			   "/query?q=SELECT%20Id%20FROM%20PermissionSet%20WHERE%20Name%20%3D%20%27sfsync%27", NULL);
	check_call(tooling_create_permission_set("66.0"), "POST", "/sobjects/PermissionSet",
			   "{\"Name\":\"sfsync\",\"Label\":\"sfsync\"}");
	check_call(tooling_grant_field("66.0", "0PS1", "Account", "Tier__c"), "POST",
			   "/sobjects/FieldPermissions",
			   "{\"ParentId\":\"0PS1\",\"SobjectType\":\"Account\",\"Field\":\"Account.Tier__c\","
			   "\"PermissionsRead\":true,\"PermissionsEdit\":true}");
	check_call(tooling_assign("66.0", "0PS1", "0051"), "POST", "/sobjects/PermissionSetAssignment",
			   "{\"AssigneeId\":\"0051\",\"PermissionSetId\":\"0PS1\"}");
}

static bool
parse(bool (*parser)(const char *, size_t, char **, char **), const char *text, char **id)
{
	char *error = NULL;
	char *copy = exact_copy(text, strlen(text));
	bool good = parser(copy, strlen(text), id, &error);

	free(copy);
	assert_true(good || error);
	return good;
}

static void
test_replies(void **state)
{
	static const char *const hostile[] = {
		"",
		"[]",
		"{}",
		"null",
		"<html>",
		"{\"records\":1}",
		"{\"records\":[1]}",
		"{\"records\":[{}]}",
		"{\"records\":[{\"Id\":\"0PS\"}]}",
		"{\"records\":[{\"Id\":\"000000000000000AAA\\u0000\"}]}",
		"{\"success\":false,\"id\":\"000000000000000AAA\"}",
		"{\"success\":true}",
		"{\"success\":true,\"id\":7}",
	};
	char *id;

	(void) state;
	assert_true(parse(tooling_parse_found, "{\"totalSize\":0,\"done\":true,\"records\":[]}", &id));
	assert_null(id);
	assert_true(parse(tooling_parse_found, "{\"records\":[{\"Id\":\"000000000000000\"}]}", &id));
	assert_string_equal(id, "000000000000000AAA");
	assert_true(parse(tooling_parse_created,
					  "{\"id\":\"000000000000000AAA\",\"success\":true,\"errors\":[],\"infos\":[]}", &id));
	assert_string_equal(id, "000000000000000AAA");
	for (size_t i = 0; i < lengthof(hostile); i++)
	{
		assert_false(parse(tooling_parse_created, hostile[i], &id));
		assert_false(parse(tooling_parse_found, hostile[i], &id));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),     cmocka_unit_test(test_texts),  cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_picklists), cmocka_unit_test(test_create), cmocka_unit_test(test_permissions),
		cmocka_unit_test(test_replies),
	};

	return cmocka_run_group_tests_name("custom fields", tests, NULL, NULL);
}
