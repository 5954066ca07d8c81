/* Columns to fields: route.c */
#include "unit.h"

#include <time.h>

#include "names.h"
#include "route.h"

static SfField
field(const char *name, SfType type)
{
	SfField f = {0};
	size_t len = strlen(name);

	f.name = pstrdup(name);
	f.label = f.name;
	f.type = type;
	f.createable = f.updateable = f.nillable = true;
	f.custom = len > 3 && strcmp(name + len - 3, "__c") == 0;
	return f;
}

static SfField fields[24];
static SfObject object = {"Account", "Account", "001", true, true, true, true, fields, 0};

static void
add(const char *name, SfType type)
{
	fields[object.nfields++] = field(name, type);
}

static int
set_up(void **state)
{
	(void) state;
	object.nfields = 0;
	add("Id", SF_ID);
	fields[0].createable = fields[0].updateable = false;
	add("Name", SF_STRING);
	add("AnnualRevenue", SF_CURRENCY);
	add("Loyalty_Tier__c", SF_PICKLIST);
	add("Pg_Id__c", SF_STRING);
	add("CreatedDate", SF_DATETIME);
	fields[5].createable = fields[5].updateable = false;
	add("Sum__c", SF_DOUBLE);
	fields[6].createable = fields[6].updateable = false;
	fields[6].calculated = true;
	add("Birth_Date__c", SF_DATE);
	add("acme__Score__c", SF_DOUBLE);
	add("acme__Grade__c", SF_STRING);
	add("other__Grade__c", SF_STRING);
	add("Site", SF_STRING);
	add("Site__c", SF_STRING);
	add("Foo_Bar__c", SF_STRING);
	add("FooBar__c", SF_STRING);
	add("Once__c", SF_STRING);
	fields[15].updateable = false;
	return 0;
}

static RouteColumn
column(const char *name, int attnum, SourceKind kind)
{
	RouteColumn c = {name, attnum, kind, "some type", NULL, true};

	return c;
}

static Route
resolve_one(const char *name, SourceKind kind)
{
	RouteColumn c = column(name, 1, kind);
	int n;
	Route *routes = route_resolve(&c, 1, NULL, 0, &object, "Pg_Id__c", &n);

	assert_int_equal(n, 1);
	assert_int_equal(routes[0].column, 0);
	return routes[0];
}

static void
add_reference(const char *name, const char *relation, const char *object_a, const char *object_b)
{
	SfField *f = &fields[object.nfields];

	add(name, SF_REFERENCE);
	f->relationship_name = pstrdup(relation);
	f->reference_to = palloc(sizeof(char *) * 2);
	f->reference_to[0] = pstrdup(object_a);
	f->nreference_to = object_b != NULL ? 2 : 1;
	if (object_b != NULL)
		f->reference_to[1] = pstrdup(object_b);
}

static Route
resolve_foreign_key(const char *name, const char *parent)
{
	static RouteLookup lookup;
	RouteColumn c = column(name, 1, SRC_INTEGER);
	int n;

	lookup.parent_object = parent;
	c.lookup = &lookup;
	return route_resolve(&c, 1, NULL, 0, &object, "Pg_Id__c", &n)[0];
}

/* A foreign key fills the lookup to its parent's object: the only one, or the one of its name. */
static void
foreign_keys(void **state)
{
	Route r;

	(void) state;
	add_reference("AccountId", "Account", "Account", NULL);
	add_reference("Partner__c", "Partner__r", "Account", NULL);
	add_reference("WhoId", "Who", "Contact", "Lead");

	r = resolve_foreign_key("account_id", "Account");
	assert_int_equal(r.rule, ROUTE_FOREIGN_KEY);
	assert_int_equal(r.status, ROUTE_MAPPED);
	assert_string_equal(r.field->name, "AccountId");
	assert_non_null(r.lookup);
	assert_string_equal(resolve_foreign_key("partner_id", "account").field->name, "Partner__c");
	assert_string_equal(resolve_foreign_key("anything", "Lead").field->name, "WhoId");

	r = resolve_foreign_key("customer", "Account");
	assert_int_equal(r.status, ROUTE_UNMATCHED);
	assert_null(r.lookup);
	assert_string_equal(r.detail, "the foreign key may fill the lookups AccountId, Partner__c");

	/* no lookup to that object: the name decides, and an integer is no Id */
	r = resolve_foreign_key("account_id", "Opportunity");
	assert_int_equal(r.status, ROUTE_INCOMPATIBLE);
	assert_null(r.lookup);
	assert_string_equal(resolve_foreign_key("annual_revenue", "Opportunity").field->name, "AnnualRevenue");

	/* a lookup that can't be written is none */
	fields[object.nfields - 1].createable = fields[object.nfields - 1].updateable = false;
	assert_int_equal(resolve_foreign_key("anything", "Lead").status, ROUTE_UNMATCHED);
}

static void
automatic_rules(void **state)
{
	static const struct
	{
		const char *column;
		SourceKind kind;
		RouteKind rule;
		RouteStatus status;
		const char *field;
		const char *detail;
	} cases[] = {
		{"name", SRC_TEXT, ROUTE_NAME, ROUTE_MAPPED, "Name", NULL},
		{"NAME", SRC_TEXT, ROUTE_NAME, ROUTE_MAPPED, "Name", NULL},
		{"annual_revenue", SRC_NUMERIC, ROUTE_NAME, ROUTE_MAPPED, "AnnualRevenue", NULL},
		{"AnnualRevenue", SRC_NUMERIC, ROUTE_NAME, ROUTE_MAPPED, "AnnualRevenue", NULL},
		{"loyalty_tier", SRC_TEXT, ROUTE_CUSTOM_NAME, ROUTE_MAPPED, "Loyalty_Tier__c", NULL},
		{"loyaltytier", SRC_TEXT, ROUTE_CUSTOM_NAME, ROUTE_MAPPED, "Loyalty_Tier__c", NULL},
		{"loyalty_tier__c", SRC_TEXT, ROUTE_NAME, ROUTE_MAPPED, "Loyalty_Tier__c", NULL},
		{"score", SRC_NUMERIC, ROUTE_CUSTOM_NAME, ROUTE_MAPPED, "acme__Score__c", NULL},
		{"acme_score", SRC_NUMERIC, ROUTE_CUSTOM_NAME, ROUTE_MAPPED, "acme__Score__c", NULL},
		{"acme_grade", SRC_TEXT, ROUTE_CUSTOM_NAME, ROUTE_MAPPED, "acme__Grade__c", NULL},
		{"site", SRC_TEXT, ROUTE_NAME, ROUTE_MAPPED, "Site", NULL},
		{"site__c", SRC_TEXT, ROUTE_NAME, ROUTE_MAPPED, "Site__c", NULL},
		{"once", SRC_TEXT, ROUTE_CUSTOM_NAME, ROUTE_MAPPED, "Once__c", NULL},

		/* never guessed */
		{"grade", SRC_TEXT, ROUTE_NONE, ROUTE_UNMATCHED, NULL,
		 "matches fields acme__Grade__c and other__Grade__c"},
		{"foobar", SRC_TEXT, ROUTE_NONE, ROUTE_UNMATCHED, NULL, "matches fields FooBar__c and Foo_Bar__c"},
		{"foo_bar", SRC_TEXT, ROUTE_NONE, ROUTE_UNMATCHED, NULL, "matches fields FooBar__c and Foo_Bar__c"},
		{"names", SRC_TEXT, ROUTE_NONE, ROUTE_UNMATCHED, NULL, "no field has this name"},
		{"_", SRC_TEXT, ROUTE_NONE, ROUTE_UNMATCHED, NULL, "no field has this name"},
		{"größe", SRC_TEXT, ROUTE_NONE, ROUTE_UNMATCHED, NULL, "no field has this name"},

		{"pg_id", SRC_TEXT, ROUTE_NONE, ROUTE_UNMATCHED, NULL, "field Pg_Id__c carries the key"},
		{"id", SRC_INTEGER, ROUTE_NAME, ROUTE_READ_ONLY, "Id", "field Id is set by Salesforce"},
		{"created_date", SRC_TIMESTAMPTZ, ROUTE_NAME, ROUTE_READ_ONLY, "CreatedDate",
		 "field CreatedDate is read-only, or the integration user may not edit it"},
		{"sum", SRC_NUMERIC, ROUTE_CUSTOM_NAME, ROUTE_READ_ONLY, "Sum__c",
		 "field Sum__c is a formula or a roll-up"},
		{"birth_date", SRC_TIMESTAMPTZ, ROUTE_CUSTOM_NAME, ROUTE_INCOMPATIBLE, "Birth_Date__c",
		 "type some type does not fit: a date field takes date, or text YYYY-MM-DD"},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		Route r = resolve_one(cases[i].column, cases[i].kind);

		if (r.rule != cases[i].rule || r.status != cases[i].status)
			fail_msg("column %s: rule %d, status %d, %s", cases[i].column, r.rule, r.status,
					 r.detail ? r.detail : "");
		if (cases[i].field == NULL)
		{
			assert_null(r.field);
			assert_null(r.field_name);
		}
		else
		{
			assert_string_equal(r.field->name, cases[i].field);
			assert_string_equal(r.field_name, cases[i].field);
		}
		if (cases[i].detail == NULL)
			assert_null(r.detail);
		else
			assert_string_equal(r.detail, cases[i].detail);
	}
}

static void
columns_that_match_one_field(void **state)
{
	RouteColumn columns[] = {
		column("annual_revenue", 1, SRC_NUMERIC),
		column("name", 2, SRC_TEXT),
		column("annualrevenue", 3, SRC_NUMERIC),
	};
	RouteRule excluded = {.exclude = true, .attnum = 3};
	int n;
	Route *routes = route_resolve(columns, 3, NULL, 0, &object, "Pg_Id__c", &n);

	(void) state;
	assert_int_equal(n, 3);
	assert_int_equal(routes[0].status, ROUTE_UNMATCHED);
	assert_string_equal(routes[0].detail,
						"columns annual_revenue and annualrevenue match field AnnualRevenue alike");
	assert_int_equal(routes[1].status, ROUTE_MAPPED);
	assert_int_equal(routes[2].status, ROUTE_UNMATCHED);
	assert_string_equal(routes[2].detail, routes[0].detail);

	/* one excluded, or not routable: the other is free to go */
	routes = route_resolve(columns, 3, &excluded, 1, &object, "Pg_Id__c", &n);
	assert_int_equal(routes[0].status, ROUTE_MAPPED);
	assert_int_equal(routes[2].status, ROUTE_EXCLUDED);
	columns[2].routable = false;
	routes = route_resolve(columns, 3, NULL, 0, &object, "Pg_Id__c", &n);
	assert_int_equal(routes[0].status, ROUTE_MAPPED);
	assert_int_equal(routes[2].status, ROUTE_UNMATCHED);
	assert_non_null(strstr(routes[2].detail, "new_columns"));
}

/* Names listed in a detail: three, and the rest as a number. */
static void
long_lists_are_cut(void **state)
{
	RouteColumn columns[6];
	static const char *const names[] = {"name", "n_ame", "na_me", "nam_e", "name_", "_name"};
	int n;
	Route *routes;

	(void) state;
	for (int i = 0; i < 6; i++)
		columns[i] = column(names[i], i + 1, SRC_TEXT);
	routes = route_resolve(columns, 6, NULL, 0, &object, NULL, &n);
	assert_string_equal(routes[5].detail, "columns name, n_ame, na_me and 3 others match field Name alike");
	routes = route_resolve(columns, 4, NULL, 0, &object, NULL, &n);
	assert_string_equal(routes[0].detail, "columns name, n_ame, na_me and nam_e match field Name alike");
}

static void
explicit_rules(void **state)
{
	RouteColumn columns[] = {
		column("name", 1, SRC_TEXT),         column("title", 2, SRC_TEXT),  column("site", 5, SRC_TEXT),
		column("loyalty_tier", 7, SRC_TEXT), column("secret", 8, SRC_TEXT), column("key", 9, SRC_TEXT),
		column("photo", 10, SRC_BYTEA),
	};
	RouteRule rules[] = {
		{.attnum = 2,
		 .field = "NAME",
		 .keep_null = true,
		 .truncate = true,
		 .policy = "create_only"},         /* wins over column name */
		{.attnum = 5, .field = "Site__c"}, /* replaces the rule of column site */
		{.attnum = 2, .field = "gone__c"}, /* title feeds two fields */
		{.exclude = true, .attnum = 8},
		{.exclude = true, .attnum = 2}, /* explicit comes first */
		{.attnum = 9, .field = "pg_id__c"},
		{.attnum = 10, .field = "AnnualRevenue"},
		{.attnum = 0, .field = "Loyalty_Tier__c"}, /* its column is gone */
	};
	int n;
	Route *r = route_resolve(columns, 7, rules, 8, &object, "Pg_Id__c", &n);

	(void) state;
	assert_int_equal(n, 8);
	assert_int_equal(r[0].status, ROUTE_UNMATCHED);
	assert_string_equal(r[0].detail, "an explicit rule fills field Name");

	assert_int_equal(r[1].column, 1);
	assert_int_equal(r[1].rule, ROUTE_EXPLICIT);
	assert_int_equal(r[1].status, ROUTE_MAPPED);
	assert_string_equal(r[1].field_name, "Name");
	assert_true(r[1].keep_null && r[1].truncate);
	assert_string_equal(r[1].policy, "create_only");
	assert_int_equal(r[2].column, 1);
	assert_int_equal(r[2].status, ROUTE_QUARANTINED);
	assert_null(r[2].field);
	assert_string_equal(r[2].field_name, "gone__c");
	assert_string_equal(
		r[2].detail,
		"field gone__c is not visible on Account: it does not exist or the integration user lacks the permission");
	assert_false(r[2].keep_null || r[2].truncate);
	assert_null(r[2].policy);

	assert_int_equal(r[3].column, 2);
	assert_string_equal(r[3].field_name, "Site__c");
	assert_int_equal(r[4].column, 3);
	assert_int_equal(r[4].status, ROUTE_UNMATCHED);
	assert_int_equal(r[5].status, ROUTE_EXCLUDED);
	assert_null(r[5].field);
	assert_int_equal(r[6].rule, ROUTE_EXPLICIT);
	assert_int_equal(r[6].status, ROUTE_UNMATCHED);
	assert_string_equal(r[6].detail, "field Pg_Id__c carries the key");
	assert_int_equal(r[7].status, ROUTE_INCOMPATIBLE);
	assert_string_equal(r[7].field_name, "AnnualRevenue");
}

/* Expressions come after the columns, each with the rule that it is of. */
static void
expressions(void **state)
{
	RouteColumn columns[] = {column("name", 1, SRC_TEXT),   column("site", 2, SRC_TEXT),
							 column("", 1602, SRC_NUMERIC), column("", 1603, SRC_BYTEA),
							 column("", 1604, SRC_TEXT),    column("", 1605, SRC_TEXT)};
	RouteRule rules[] = {
		{.attnum = 1602, .field = "site__c", .keep_null = true, .policy = "strict"},
		{.attnum = 1603, .field = "AnnualRevenue"},
		{.attnum = 1604, .field = "NAME"},
		{.attnum = 1605, .field = "gone__c"},
	};
	int n;
	Route *r;

	(void) state;
	for (int i = 2; i < 6; i++)
		columns[i].expression = true;
	columns[4].broken = "the expression can't be evaluated: no such column";
	r = route_resolve(columns, 6, rules, 4, &object, "Pg_Id__c", &n);
	assert_int_equal(n, 6);
	assert_string_equal(r[0].detail, "an explicit rule fills field Name");
	assert_int_equal(r[2].rule, ROUTE_EXPRESSION);
	assert_int_equal(r[2].status, ROUTE_MAPPED);
	assert_int_equal(r[2].column, 2);
	assert_string_equal(r[2].field_name, "Site__c");
	assert_true(r[2].keep_null);
	assert_string_equal(r[2].policy, "strict");
	assert_int_equal(r[3].status, ROUTE_INCOMPATIBLE);
	assert_int_equal(r[4].rule, ROUTE_EXPRESSION);
	assert_int_equal(r[4].status, ROUTE_QUARANTINED);
	assert_string_equal(r[4].field_name, "Name");
	assert_string_equal(r[4].detail, "the expression can't be evaluated: no such column");
	assert_int_equal(r[5].status, ROUTE_QUARANTINED);
	assert_string_equal(r[5].field_name, "gone__c");
}

static void
nothing_to_resolve(void **state)
{
	SfObject empty = {"X", "X", NULL, true, true, true, true, NULL, 0};
	RouteColumn c = column("name", 1, SRC_TEXT);
	RouteRule rule = {.attnum = 1, .field = "Name"};
	int n;
	Route *r;

	(void) state;
	(void) route_resolve(NULL, 0, NULL, 0, &object, "Pg_Id__c", &n);
	assert_int_equal(n, 0);
	r = route_resolve(&c, 1, NULL, 0, &empty, NULL, &n);
	assert_int_equal(n, 1);
	assert_int_equal(r[0].status, ROUTE_UNMATCHED);
	r = route_resolve(&c, 1, &rule, 1, &empty, NULL, &n);
	assert_int_equal(r[0].status, ROUTE_QUARANTINED);
}

/* The order of columns, rules and fields changes nothing. */
static void
order_does_not_matter(void **state)
{
	RouteColumn columns[] = {column("site", 5, SRC_TEXT), column("name", 1, SRC_TEXT),
							 column("grade", 3, SRC_TEXT)};
	RouteRule rules[] = {{.attnum = 5, .field = "Site__c"}, {.exclude = true, .attnum = 1}};
	int n;
	Route *r;
	SfField swapped = fields[9];

	(void) state;
	fields[9] = fields[10];
	fields[10] = swapped;
	r = route_resolve(columns, 3, rules, 2, &object, "Pg_Id__c", &n);
	assert_int_equal(n, 3);
	assert_string_equal(r[0].field_name, "Site__c");
	assert_int_equal(r[1].status, ROUTE_EXCLUDED);
	assert_string_equal(r[2].detail, "matches fields acme__Grade__c and other__Grade__c");
}

static double
milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000.0 + now.tv_nsec / 1e6;
}

/* The widest table against an object that is wider still. */
static void
wide_table(void **state)
{
	enum
	{
		NFIELDS = 2000,
		NCOLUMNS = 1600
	};
	SfField *many = palloc(sizeof(SfField) * NFIELDS);
	SfObject wide = {"Wide__c", "Wide", NULL, true, true, true, true, many, NFIELDS};
	RouteColumn *columns = palloc(sizeof(RouteColumn) * NCOLUMNS);
	RouteRule *rules = palloc0(sizeof(RouteRule) * 400);
	Route *routes;
	int n;
	double start;

	(void) state;
	for (int i = 0; i < NFIELDS; i++)
		many[i] = field(psprintf("A_Rather_Long_Common_Prefix_%d__c", i), SF_STRING);
	for (int i = 0; i < NCOLUMNS; i++)
		columns[i] = column(psprintf("a_rather_long_common_prefix_%d", i), i + 1, SRC_TEXT);
	for (int i = 0; i < 400; i++)
	{
		rules[i].attnum = i + 1;
		rules[i].field = many[1600 + i].name;
	}
	start = milliseconds();
	routes = route_resolve(columns, NCOLUMNS, rules, 400, &wide, NULL, &n);
	diag("2,000 fields, 1,600 columns, 400 rules: %.1f ms", milliseconds() - start);
	assert_int_equal(n, NCOLUMNS);
	for (int i = 0; i < n; i++)
	{
		assert_int_equal(routes[i].column, i);
		assert_int_equal(routes[i].status, ROUTE_MAPPED);
		assert_ptr_equal(routes[i].field, &many[i < 400 ? 1600 + i : i]);
	}

	/* and the worst: all columns for one field */
	for (int i = 0; i < NCOLUMNS; i++)
		columns[i].name = "a_rather_long_common_prefix_7";
	start = milliseconds();
	routes = route_resolve(columns, NCOLUMNS, NULL, 0, &wide, NULL, &n);
	diag("all of them alike: %.1f ms", milliseconds() - start);
	assert_int_equal(routes[1599].status, ROUTE_UNMATCHED);
	assert_non_null(strstr(routes[1599].detail, "and 1597 others"));
}

static void
names(void **state)
{
	(void) state;
	assert_null(route_kind_name(ROUTE_NONE));
	assert_string_equal(route_kind_name(ROUTE_EXPLICIT), "explicit");
	assert_string_equal(route_kind_name(ROUTE_NAME), "name");
	assert_string_equal(route_kind_name(ROUTE_CUSTOM_NAME), "custom_name");
	assert_string_equal(route_kind_name(ROUTE_EXPRESSION), "expression");
	assert_string_equal(route_status_name(ROUTE_MAPPED), "mapped");
	assert_string_equal(route_status_name(ROUTE_UNMATCHED), "unmatched");
	assert_string_equal(route_status_name(ROUTE_EXCLUDED), "excluded");
	assert_string_equal(route_status_name(ROUTE_READ_ONLY), "read_only");
	assert_string_equal(route_status_name(ROUTE_INCOMPATIBLE), "incompatible");
	assert_string_equal(route_status_name(ROUTE_QUARANTINED), "quarantined");
}

static void
nearest(void **state)
{
	static const char *const policies[] = {"delete", "hard_delete", "archive", "deactivate", "ignore"};
	static const char *const others[] = {"Account", "Contact", "Loyalty_Tier__c"};
	char longest[400];

	(void) state;
	assert_string_equal(nearest_match("delte", policies, 5), "delete");
	assert_string_equal(nearest_match("DELETE", policies, 5), "delete");
	assert_string_equal(nearest_match("harddelete", policies, 5), "hard_delete");
	assert_string_equal(nearest_match("archived", policies, 5), "archive");
	assert_string_equal(nearest_match("loyalty_teir", others, 3), "Loyalty_Tier__c");
	assert_string_equal(nearest_match("Acount", others, 3), "Account");
	assert_null(nearest_match("purge", policies, 5));
	assert_null(nearest_match("", policies, 5));
	assert_null(nearest_match("x", policies, 5));
	assert_null(nearest_match("delete", NULL, 0));
	memset(longest, 'a', sizeof(longest));
	longest[399] = '\0';
	assert_null(nearest_match(longest, policies, 5));
	{
		const char *const one[] = {longest};

		assert_null(nearest_match("aaaa", one, 1));
		longest[255] = '\0';
		assert_string_equal(nearest_match(longest, one, 1), longest);
	}
}

/* One column that fed these fields before. */
static Route
resolve_former(const char *name, SourceKind kind, const RouteFormer *former, int nformer)
{
	RouteColumn c = column(name, 1, kind);
	int n;
	Route *routes;

	c.former = former;
	c.nformer = nformer;
	routes = route_resolve(&c, 1, NULL, 0, &object, "Pg_Id__c", &n);
	assert_int_equal(n, 1);
	return routes[0];
}

static void
check_quarantine(Route route, const char *field, RouteKind rule, const char *trouble)
{
	assert_int_equal(route.status, ROUTE_QUARANTINED);
	assert_int_equal(route.rule, rule);
	assert_string_equal(route.field_name, field);
	assert_string_equal(route.trouble, trouble);
	assert_non_null(strstr(route.detail, field));
}

static void
fields_that_were_mapped(void **state)
{
	static const RouteFormer phone[] = {{"Phone", "phone"}};
	static const RouteFormer tier[] = {{"Tier__c", NULL}};
	static const RouteFormer packaged[] = {{"acme__Tier__c", "string"}};
	static const RouteFormer read_only[] = {{"CreatedDate", "datetime"}};
	static const RouteFormer retyped[] = {{"Birth_Date__c", "string"}};
	static const RouteFormer unchanged[] = {{"Birth_Date__c", "date"}};
	static const RouteFormer several[] = {{"Name", "string"}, {"Phone", "phone"}};
	static const RouteFormer there[] = {{"Site", "string"}};

	(void) state;
	fields[7].type_name = pstrdup("date");
	check_quarantine(resolve_former("phone", SRC_TEXT, phone, 1), "Phone", ROUTE_NAME, "not visible");
	check_quarantine(resolve_former("tier", SRC_TEXT, tier, 1), "Tier__c", ROUTE_CUSTOM_NAME, "not visible");
	check_quarantine(resolve_former("tier", SRC_TEXT, packaged, 1), "acme__Tier__c", ROUTE_CUSTOM_NAME,
					 "not visible");
	check_quarantine(resolve_former("phone", SRC_TEXT, several, 2), "Phone", ROUTE_NAME, "not visible");
	check_quarantine(resolve_former("created_date", SRC_TIMESTAMPTZ, read_only, 1), "CreatedDate", ROUTE_NAME,
					 "read-only");
	check_quarantine(resolve_former("birth_date", SRC_BOOL, retyped, 1), "Birth_Date__c", ROUTE_CUSTOM_NAME,
					 "of another type");

	/* by the table's own doing: no quarantine */
	assert_int_equal(resolve_former("birth_date", SRC_BOOL, unchanged, 1).status, ROUTE_INCOMPATIBLE);
	assert_int_equal(resolve_former("telephone", SRC_TEXT, phone, 1).status, ROUTE_UNMATCHED);
	assert_int_equal(resolve_former("place", SRC_TEXT, there, 1).status, ROUTE_UNMATCHED);
	assert_int_equal(resolve_former("created_date", SRC_TIMESTAMPTZ, phone, 1).status, ROUTE_READ_ONLY);
	assert_int_equal(resolve_former("name", SRC_TEXT, phone, 1).status, ROUTE_MAPPED);
}

static void
keys_have_a_line(void **state)
{
	static const char *const alone[] = {"id", "pg_id", "no_field", "foo_bar"};
	RouteColumn c = column("name", 1, SRC_TEXT);
	int n;
	Route *routes;

	(void) state;
	c.key = true;
	routes = route_resolve(&c, 1, NULL, 0, &object, "Pg_Id__c", &n);
	assert_int_equal(n, 2);
	assert_true(routes[0].key);
	assert_int_equal(routes[0].status, ROUTE_MAPPED);
	assert_string_equal(routes[0].field_name, "Pg_Id__c");
	assert_false(routes[1].key);
	assert_string_equal(routes[1].field_name, "Name");
	for (size_t i = 0; i < lengthof(alone); i++)
	{
		c.name = alone[i];
		routes = route_resolve(&c, 1, NULL, 0, &object, "Pg_Id__c", &n);
		assert_int_equal(n, 1);
		assert_true(routes[0].key);
	}

	/* a key field that is not there: each column still has a line */
	routes = route_resolve(&c, 1, NULL, 0, &object, "Gone__c", &n);
	assert_int_equal(n, 1);
	assert_false(routes[0].key);
}

static void
fields_to_create(void **state)
{
	RouteColumn c = column("no_field", 1, SRC_TEXT);
	RouteRule exclude = {.exclude = true, .attnum = 1};
	int n;
	Route *routes;

	(void) state;
	assert_false(route_resolve(&c, 1, NULL, 0, &object, "Pg_Id__c", &n)->wanted);
	c.creatable = true;
	c.create_at = 5;
	routes = route_resolve(&c, 1, NULL, 0, &object, "Pg_Id__c", &n);
	assert_true(routes->wanted);
	assert_int_equal(routes->wanted_at, 5);
	assert_null(routes->trouble);
	c.creation = "not permitted";
	c.creation_failed = true;
	routes = route_resolve(&c, 1, NULL, 0, &object, "Pg_Id__c", &n);
	assert_string_equal(routes->trouble, "not permitted");
	assert_non_null(strstr(routes->detail, "not permitted"));
	assert_false(route_resolve(&c, 1, &exclude, 1, &object, "Pg_Id__c", &n)->wanted);
	c.name = "foo_bar"; /* two fields match */
	assert_false(route_resolve(&c, 1, NULL, 0, &object, "Pg_Id__c", &n)->wanted);
	c.name = "name";
	assert_false(route_resolve(&c, 1, NULL, 0, &object, "Pg_Id__c", &n)->wanted);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(automatic_rules, set_up),
		cmocka_unit_test_setup(foreign_keys, set_up),
		cmocka_unit_test_setup(columns_that_match_one_field, set_up),
		cmocka_unit_test_setup(long_lists_are_cut, set_up),
		cmocka_unit_test_setup(explicit_rules, set_up),
		cmocka_unit_test_setup(expressions, set_up),
		cmocka_unit_test_setup(nothing_to_resolve, set_up),
		cmocka_unit_test_setup(order_does_not_matter, set_up),
		cmocka_unit_test_setup(fields_that_were_mapped, set_up),
		cmocka_unit_test_setup(keys_have_a_line, set_up),
		cmocka_unit_test_setup(fields_to_create, set_up),
		cmocka_unit_test(wide_table),
		cmocka_unit_test(names),
		cmocka_unit_test(nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
