/*
 * route.c
 *		The rules that join a table's columns to an object's fields.  Pure.
 *
 * Names are normalised once and looked up in a sorted index, so that a wide
 * table against a wide object takes no time worth noting.
 */
#include "compat.h"

#include "lib/stringinfo.h"

#include "coerce.h"
#include "route.h"

#define NAMES_SHOWN 3   /* in a detail, before "and n others" */
#define NEAR_LENGTH 255 /* longer names have no nearest match */

#define NO_FIELD (-1)
#define AMBIGUOUS (-2)

/* The ways in which a name finds a field, in the order of the rules. */
typedef enum KeyKind
{
	KEY_EXACT, /* API name, ignoring case */
	KEY_NAME,  /* ignoring underscores too */
	KEY_CUSTOM /* and without namespace and __c */
} KeyKind;

typedef struct FieldKey
{
	KeyKind kind;
	char *key;
	int field;        /* index into the object's fields */
	const char *name; /* of that field, for a stable order */
} FieldKey;

/* What an automatic rule found for a column. */
typedef struct Match
{
	RouteKind rule;
	int field; /* or NO_FIELD, AMBIGUOUS */
	const FieldKey *candidates;
	int ncandidates;
	int next; /* next column with the same field, or -1 */
	const RouteLookup *lookup;
	char *detail; /* why a foreign key could not be followed */
} Match;

typedef struct Resolver
{
	const RouteColumn *columns;
	int ncolumns;
	const RouteRule **rules; /* by attnum */
	int nrules;
	const SfObject *object;
	const char *external_id;
	FieldKey *keys; /* by kind, key, name */
	int nkeys;
	bool *explicit_field; /* per field: an explicit rule fills it */
	int *first_match;     /* per field: chain of columns, or -1 */
	Match *matches;       /* per column */
	Route *routes;
	int nroutes;
	int maxroutes;
} Resolver;

/* ------------------------------------------------------------------------
 * The index of names
 * ------------------------------------------------------------------------
 */

/* Lower case of ASCII, in any locale; underscores dropped unless kept. */
static char *
fold(const char *name, size_t len, bool keep_underscores)
{
	char *folded = palloc(len + 1);
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
	{
		if (name[i] != '_' || keep_underscores)
			folded[n++] = (char) pg_ascii_tolower((unsigned char) name[i]);
	}
	folded[n] = '\0';
	return folded;
}

static int
compare_keys(const void *a, const void *b)
{
	const FieldKey *x = a;
	const FieldKey *y = b;
	int order;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	order = strcmp(x->key, y->key);
	return order != 0 ? order : strcmp(x->name, y->name);
}

static void
add_key(Resolver *r, KeyKind kind, int field, const char *name, size_t len)
{
	FieldKey *key = &r->keys[r->nkeys++];

	key->kind = kind;
	key->field = field;
	key->name = r->object->fields[field].name;
	key->key = fold(name, len, kind == KEY_EXACT);
}

static bool
ends_in_custom_suffix(const char *name, size_t len)
{
	return len > 3 && name[len - 3] == '_' && name[len - 2] == '_' &&
		   (name[len - 1] == 'c' || name[len - 1] == 'C');
}

/* Foo__c is found as foo; of a package, ns__Foo__c, as foo and as ns_foo. */
static void
add_custom_keys(Resolver *r, int field)
{
	const char *name = r->object->fields[field].name;
	size_t len = strlen(name);
	const char *separator;

	if (!r->object->fields[field].custom || !ends_in_custom_suffix(name, len))
		return;
	len -= 3;
	add_key(r, KEY_CUSTOM, field, name, len);
	separator = strstr(name, "__");
	if (separator != NULL && separator > name && separator + 2 < name + len)
		add_key(r, KEY_CUSTOM, field, separator + 2, len - (size_t) (separator + 2 - name));
}

static void
build_index(Resolver *r)
{
	r->keys = palloc(sizeof(FieldKey) * (4 * r->object->nfields + 1));
	for (int i = 0; i < r->object->nfields; i++)
	{
		const char *name = r->object->fields[i].name;

		add_key(r, KEY_EXACT, i, name, strlen(name));
		add_key(r, KEY_NAME, i, name, strlen(name));
		add_custom_keys(r, i);
	}
	qsort(r->keys, r->nkeys, sizeof(FieldKey), compare_keys);
}

/* The entries with this key: the first, and how many there are. */
static const FieldKey *
find_keys(const Resolver *r, KeyKind kind, const char *key, int *n)
{
	FieldKey wanted = {kind, unconstify(char *, key), 0, ""};
	int low = 0;
	int high = r->nkeys;
	int end;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (compare_keys(&r->keys[middle], &wanted) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (end = low; end < r->nkeys; end++)
	{
		if (r->keys[end].kind != kind || strcmp(r->keys[end].key, key) != 0)
			break;
	}
	*n = end - low;
	return &r->keys[low];
}

static int
find_field(const Resolver *r, const char *name)
{
	int n;
	char *key = fold(name, strlen(name), true);
	const FieldKey *found = find_keys(r, KEY_EXACT, key, &n);

	pfree(key);
	return n > 0 ? found->field : NO_FIELD;
}

static bool
is_external_id(const Resolver *r, int field)
{
	return r->external_id != NULL && pg_strcasecmp(r->object->fields[field].name, r->external_id) == 0;
}

/* ------------------------------------------------------------------------
 * Matching
 * ------------------------------------------------------------------------
 */

static int
compare_rules(const void *a, const void *b)
{
	const RouteRule *x = *(const RouteRule *const *) a;
	const RouteRule *y = *(const RouteRule *const *) b;

	if (x->attnum != y->attnum)
		return x->attnum < y->attnum ? -1 : 1;
	return strcmp(x->field ? x->field : "", y->field ? y->field : "");
}

static void
sort_rules(Resolver *r, const RouteRule *rules, int nrules)
{
	r->rules = palloc(sizeof(RouteRule *) * (nrules + 1));
	r->nrules = nrules;
	for (int i = 0; i < nrules; i++)
		r->rules[i] = &rules[i];
	qsort(r->rules, nrules, sizeof(RouteRule *), compare_rules);

	/* also of rules whose column is gone: what was said of the field stays said */
	r->explicit_field = palloc0(sizeof(bool) * (r->object->nfields + 1));
	for (int i = 0; i < nrules; i++)
	{
		int field = rules[i].exclude ? NO_FIELD : find_field(r, rules[i].field);

		if (field != NO_FIELD)
			r->explicit_field[field] = true;
	}
}

/* The rules of a column: the first, and how many there are. */
static const RouteRule **
rules_of(const Resolver *r, int attnum, int *n)
{
	int low = 0;
	int high = r->nrules;
	int end;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (r->rules[middle]->attnum < attnum)
			low = middle + 1;
		else
			high = middle;
	}
	for (end = low; end < r->nrules && r->rules[end]->attnum == attnum; end++)
		;
	*n = attnum == 0 ? 0 : end - low;
	return &r->rules[low];
}

/* By name, else by custom name.  More than one candidate: none is taken. */
static void
match_name(const Resolver *r, const char *name, Match *match)
{
	char *key = fold(name, strlen(name), false);

	for (KeyKind kind = KEY_NAME; kind <= KEY_CUSTOM && *key != '\0'; kind++)
	{
		match->candidates = find_keys(r, kind, key, &match->ncandidates);
		if (match->ncandidates == 0)
			continue;
		match->rule = kind == KEY_NAME ? ROUTE_NAME : ROUTE_CUSTOM_NAME;
		match->field = match->ncandidates == 1 ? match->candidates[0].field : AMBIGUOUS;
		break;
	}
	pfree(key);
}

static bool
refers_to(const SfField *field, const char *object)
{
	if (field->type != SF_REFERENCE || field->relationship_name == NULL ||
		!(field->createable || field->updateable))
		return false;
	for (int i = 0; i < field->nreference_to; i++)
		if (pg_strcasecmp(field->reference_to[i], object) == 0)
			return true;
	return false;
}

/* A name without what says that it refers: account_id, AccountId and Account__c are alike. */
static char *
fold_reference(const char *name)
{
	size_t len = strlen(name);
	char *key;

	if (ends_in_custom_suffix(name, len))
		len -= 3;
	key = fold(name, len, false);
	len = strlen(key);
	if (len > 2 && strcmp(key + len - 2, "id") == 0)
		key[len - 2] = '\0';
	return key;
}

/*
 * The lookup that a foreign key fills: the one that refers to the parent's
 * object, among several the one of the column's name.  False if the object has
 * none, so that the other rules may match.
 */
static bool
match_lookup(const Resolver *r, const RouteColumn *column, Match *match)
{
	const char *object = column->lookup->parent_object;
	char *key = fold_reference(column->name);
	StringInfoData names;
	int nfound = 0;
	int nnamed = 0;
	int named = NO_FIELD;

	initStringInfo(&names);
	for (int i = 0; i < r->object->nfields; i++)
	{
		const SfField *field = &r->object->fields[i];

		if (!refers_to(field, object))
			continue;
		appendStringInfo(&names, "%s%s", nfound > 0 ? ", " : "", field->name);
		if (nfound++ == 0)
			match->field = i;
		if (strcmp(fold_reference(field->name), key) == 0)
		{
			named = i;
			nnamed++;
		}
	}
	if (nfound == 0)
		return false;
	match->rule = ROUTE_FOREIGN_KEY;
	match->lookup = column->lookup;
	if (nnamed == 1)
		match->field = named;
	else if (nfound > 1)
	{
		match->field = AMBIGUOUS;
		match->detail = psprintf("the foreign key may fill the lookups %s", names.data);
	}
	return true;
}

/* Match the columns that are left to the automatic rules. */
static void
match_columns(Resolver *r)
{
	r->matches = palloc0(sizeof(Match) * (r->ncolumns + 1));
	r->first_match = palloc(sizeof(int) * (r->object->nfields + 1));
	for (int i = 0; i < r->object->nfields; i++)
		r->first_match[i] = -1;

	/* backwards, so that the chains are in column order */
	for (int i = r->ncolumns - 1; i >= 0; i--)
	{
		Match *match = &r->matches[i];
		int nrules;

		match->field = NO_FIELD;
		match->next = -1;
		(void) rules_of(r, r->columns[i].attnum, &nrules);
		if (nrules > 0 || !r->columns[i].routable)
			continue;
		if (r->columns[i].lookup == NULL || !match_lookup(r, &r->columns[i], match))
			match_name(r, r->columns[i].name, match);
		if (match->field < 0)
			continue;
		match->next = r->first_match[match->field];
		r->first_match[match->field] = i;
	}
}

/* ------------------------------------------------------------------------
 * Details
 * ------------------------------------------------------------------------
 */

/* The i-th of n names into the list "a, b and c", "a, b, c and 4 others". */
static void
append_name(StringInfo out, const char *name, int i, int n)
{
	if (i > NAMES_SHOWN)
		return;
	if (i == NAMES_SHOWN && n > NAMES_SHOWN + 1)
	{
		appendStringInfo(out, " and %d others", n - i);
		return;
	}
	if (i > 0)
		appendStringInfoString(out, i == n - 1 ? " and " : ", ");
	appendStringInfoString(out, name);
}

static char *
ambiguous_detail(const Match *match)
{
	StringInfoData out;

	initStringInfo(&out);
	appendStringInfoString(&out, "matches fields ");
	for (int i = 0; i < match->ncandidates; i++)
		append_name(&out, match->candidates[i].name, i, match->ncandidates);
	return out.data;
}

static char *
clash_detail(const Resolver *r, int field)
{
	StringInfoData out;
	int n = 0;
	int i = 0;

	for (int column = r->first_match[field]; column >= 0; column = r->matches[column].next)
		n++;
	initStringInfo(&out);
	appendStringInfoString(&out, "columns ");
	for (int column = r->first_match[field]; column >= 0 && i <= NAMES_SHOWN;
		 column = r->matches[column].next)
		append_name(&out, r->columns[column].name, i++, n);
	appendStringInfo(&out, " match field %s alike", r->object->fields[field].name);
	return out.data;
}

static char *
read_only_detail(const SfField *field)
{
	if (field->calculated)
		return psprintf("field %s is a formula or a roll-up", field->name);
	if (field->type == SF_ID)
		return psprintf("field %s is set by Salesforce", field->name);
	return psprintf("field %s is read-only, or the integration user may not edit it", field->name);
}

/* ------------------------------------------------------------------------
 * Routes
 * ------------------------------------------------------------------------
 */

static Route *
add_route(Resolver *r, int column, RouteKind rule, RouteStatus status, char *detail)
{
	Route *route;

	if (r->nroutes == r->maxroutes)
	{
		r->maxroutes *= 2;
		r->routes = repalloc(r->routes, sizeof(Route) * r->maxroutes);
	}
	route = &r->routes[r->nroutes++];
	memset(route, 0, sizeof(*route));
	route->column = column;
	route->rule = rule;
	route->status = status;
	route->detail = detail;
	return route;
}

/*
 * What was mapped and has changed in Salesforce is in quarantine, until it is
 * as it was or a person decides otherwise.
 */
static void
quarantine(Route *route, const char *trouble, char *detail)
{
	route->status = ROUTE_QUARANTINED;
	route->trouble = trouble;
	route->detail = psprintf("%s; when that is mended its values are sent by themselves", detail);
}

static const RouteFormer *
find_former(const RouteColumn *column, const char *field)
{
	for (int i = 0; i < column->nformer; i++)
		if (pg_strcasecmp(column->former[i].field, field) == 0)
			return &column->former[i];
	return NULL;
}

/* The field is there, but can't be written any more; a changed column's type is no quarantine. */
static void
check_former(Route *route, const RouteColumn *column)
{
	const RouteFormer *former = find_former(column, route->field->name);

	if (!former)
		return;
	if (route->status == ROUTE_READ_ONLY)
		quarantine(route, "read-only", psprintf("%s, which it was not before", route->detail));
	else if (route->status == ROUTE_INCOMPATIBLE &&
			 (!former->type_name || strcmp(former->type_name, route->field->type_name) != 0))
		quarantine(route, "of another type",
				   psprintf("field %s has become another type, %s: %s", route->field->name,
							route->field->type_name, route->detail));
}

/* A route to a field that is there: can it be written from this column? */
static Route *
add_field_route(Resolver *r, int column, RouteKind rule, int index)
{
	const SfField *field = &r->object->fields[index];
	const char *incompatible =
		rule == ROUTE_FOREIGN_KEY ? NULL : coerce_incompatible(r->columns[column].kind, field);
	Route *route = add_route(r, column, rule, ROUTE_MAPPED, NULL);

	route->field = field;
	route->field_name = field->name;
	if (!field->createable && !field->updateable)
	{
		route->status = ROUTE_READ_ONLY;
		route->detail = read_only_detail(field);
	}
	else if (incompatible != NULL)
	{
		route->status = ROUTE_INCOMPATIBLE;
		route->detail = psprintf("type %s does not fit: %s", r->columns[column].type_name, incompatible);
	}
	check_former(route, &r->columns[column]);
	return route;
}

static char *
key_detail(const Resolver *r, int field)
{
	return psprintf("field %s carries the key", r->object->fields[field].name);
}

static void
add_explicit(Resolver *r, int column, const RouteRule *rule)
{
	RouteKind kind = r->columns[column].expression ? ROUTE_EXPRESSION : ROUTE_EXPLICIT;
	int field = find_field(r, rule->field);
	Route *route;

	if (field == NO_FIELD)
	{
		route = add_route(
			r, column, kind, ROUTE_QUARANTINED,
			psprintf(
				"field %s is not visible on %s: it does not exist or the integration user lacks the permission",
				rule->field, r->object->name));
		route->field_name = pstrdup(rule->field);
		route->trouble = "not visible";
	}
	else if (is_external_id(r, field))
		route = add_route(r, column, kind, ROUTE_UNMATCHED, key_detail(r, field));
	else if (r->columns[column].broken != NULL)
	{
		route = add_route(r, column, kind, ROUTE_QUARANTINED, pstrdup(r->columns[column].broken));
		route->field = &r->object->fields[field];
		route->field_name = route->field->name;
		route->trouble = "not to be evaluated";
	}
	else
		route = add_field_route(r, column, kind, field);
	route->keep_null = rule->keep_null;
	route->truncate = rule->truncate;
	route->policy = rule->policy;
}

/*
 * A key column feeds the external ID, whatever it feeds beside.  Its rule is
 * what create_mapping was told.
 */
static void
add_key_line(Resolver *r, int column)
{
	int field = find_field(r, r->external_id);
	Route *route;

	if (field == NO_FIELD)
		return; /* the mapping is blocked for it */
	route = add_route(r, column, ROUTE_EXPLICIT, ROUTE_MAPPED,
					  psprintf("the key: feeds %s", r->object->fields[field].name));
	route->field = &r->object->fields[field];
	route->field_name = route->field->name;
	route->key = true;
}

static bool
has_key_line(const Resolver *r, int column)
{
	const Route *last = r->nroutes > 0 ? &r->routes[r->nroutes - 1] : NULL;

	return last && last->key && last->column == column;
}

/* Would the rules by name lead from the column to a field of this name?  Else ROUTE_NONE. */
static RouteKind
rule_by_name(const char *column, const char *field)
{
	char *wanted = fold(column, strlen(column), false);
	size_t len = strlen(field);
	const char *separator = strstr(field, "__");

	if (strcmp(fold(field, len, false), wanted) == 0)
		return ROUTE_NAME;
	if (!ends_in_custom_suffix(field, len))
		return ROUTE_NONE;
	len -= 3;
	if (strcmp(fold(field, len, false), wanted) == 0)
		return ROUTE_CUSTOM_NAME;
	if (separator > field && separator + 2 < field + len &&
		strcmp(fold(separator + 2, field + len - separator - 2, false), wanted) == 0)
		return ROUTE_CUSTOM_NAME;
	return ROUTE_NONE;
}

/* No field matches, but one did: is it gone? */
static bool
add_missing(Resolver *r, int index)
{
	const RouteColumn *column = &r->columns[index];

	for (int i = 0; i < column->nformer; i++)
	{
		const char *field = column->former[i].field;
		RouteKind rule = column->lookup ? ROUTE_FOREIGN_KEY : rule_by_name(column->name, field);
		Route *route;

		if (rule == ROUTE_NONE || find_field(r, field) != NO_FIELD)
			continue;
		route = add_route(r, index, rule, ROUTE_QUARANTINED, NULL);
		route->field_name = pstrdup(field);
		quarantine(route, "not visible",
				   psprintf("field %s is not visible on %s any more: it was deleted, or hidden from the "
							"integration user",
							field, r->object->name));
		return true;
	}
	return false;
}

static char *
no_field_detail(const RouteColumn *column)
{
	if (!column->creatable || !column->creation)
		return pstrdup("no field has this name");
	return psprintf("no field has this name; %s", column->creation);
}

static void
add_unmatched(Resolver *r, int column, char *detail, bool wanted)
{
	Route *route = add_route(r, column, ROUTE_NONE, ROUTE_UNMATCHED, detail);

	route->wanted = wanted;
	route->wanted_at = r->columns[column].create_at;
	if (wanted && r->columns[column].creation_failed)
		route->trouble = r->columns[column].creation;
}

static void
add_automatic(Resolver *r, int column)
{
	const Match *match = &r->matches[column];
	char *detail = NULL;
	bool wanted = false;

	if (r->columns[column].routable && match->field == NO_FIELD && add_missing(r, column))
		return;
	if (has_key_line(r, column) && (match->field < 0 || is_external_id(r, match->field) ||
									r->object->fields[match->field].type == SF_ID))
		return; /* that a key feeds nothing else is not worth a line */

	if (!r->columns[column].routable)
		detail = pstrdup("the column was added later, and new_columns is 'ignore'");
	else if (match->field == AMBIGUOUS)
		detail = match->detail != NULL ? match->detail : ambiguous_detail(match);
	else if (match->field == NO_FIELD)
	{
		detail = no_field_detail(&r->columns[column]);
		wanted = r->columns[column].creatable;
	}
	else if (is_external_id(r, match->field))
		detail = key_detail(r, match->field);
	else if (r->explicit_field[match->field])
		detail = psprintf("an explicit rule fills field %s", r->object->fields[match->field].name);
	else if (match->next >= 0 || r->first_match[match->field] != column)
		detail = clash_detail(r, match->field);

	if (detail != NULL)
		add_unmatched(r, column, detail, wanted);
	else
		add_field_route(r, column, match->rule, match->field)->lookup = match->lookup;
}

static void
add_routes(Resolver *r, int column)
{
	int nrules;
	const RouteRule **rules = rules_of(r, r->columns[column].attnum, &nrules);
	bool explicit = false;

	if (r->columns[column].key)
		add_key_line(r, column);
	for (int i = 0; i < nrules; i++)
	{
		if (rules[i]->exclude)
			continue;
		add_explicit(r, column, rules[i]);
		explicit = true;
	}
	if (explicit)
		return;
	if (nrules > 0)
		add_route(r, column, ROUTE_NONE, ROUTE_EXCLUDED, NULL);
	else
		add_automatic(r, column);
}

Route *
route_resolve(const RouteColumn *columns, int ncolumns, const RouteRule *rules, int nrules,
			  const SfObject *object, const char *external_id, int *nroutes)
{
	Resolver r = {0};

	r.columns = columns;
	r.ncolumns = ncolumns;
	r.object = object;
	r.external_id = external_id;
	r.maxroutes = 2 * ncolumns + nrules + 1;
	r.routes = palloc(sizeof(Route) * r.maxroutes);

	build_index(&r);
	sort_rules(&r, rules, nrules);
	match_columns(&r);
	for (int i = 0; i < ncolumns; i++)
		add_routes(&r, i);

	*nroutes = r.nroutes;
	return r.routes;
}

const char *
route_kind_name(RouteKind kind)
{
	switch (kind)
	{
		case ROUTE_NONE:
			break;
		case ROUTE_EXPLICIT:
			return "explicit";
		case ROUTE_FOREIGN_KEY:
			return "foreign_key";
		case ROUTE_NAME:
			return "name";
		case ROUTE_CUSTOM_NAME:
			return "custom_name";
		case ROUTE_EXPRESSION:
			return "expression";
	}
	return NULL;
}

const char *
route_status_name(RouteStatus status)
{
	switch (status)
	{
		case ROUTE_MAPPED:
			return "mapped";
		case ROUTE_UNMATCHED:
			return "unmatched";
		case ROUTE_EXCLUDED:
			return "excluded";
		case ROUTE_READ_ONLY:
			return "read_only";
		case ROUTE_INCOMPATIBLE:
			return "incompatible";
		case ROUTE_QUARANTINED:
			return "quarantined";
	}
	return NULL;
}

/* ------------------------------------------------------------------------
 * Nearest match
 * ------------------------------------------------------------------------
 */

/* Edit distance (insert, delete, replace) of two short texts. */
static int
distance(const char *a, const char *b)
{
	int row[NEAR_LENGTH + 1];
	int blen = (int) strlen(b);

	for (int j = 0; j <= blen; j++)
		row[j] = j;
	for (int i = 1; a[i - 1] != '\0'; i++)
	{
		int diagonal = row[0];

		row[0] = i;
		for (int j = 1; j <= blen; j++)
		{
			int replace = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			row[j] = Min(replace, Min(row[j], row[j - 1]) + 1);
		}
	}
	return row[blen];
}

/* Case, underscores and __c are what people leave out: they don't count. */
static char *
fold_for_nearest(const char *name)
{
	size_t len = strlen(name);

	if (ends_in_custom_suffix(name, len))
		len -= 3;
	return fold(name, len, false);
}

const char *
nearest_match(const char *name, const char *const *candidates, int n)
{
	char *wanted = fold_for_nearest(name);
	int len = (int) strlen(wanted);
	int best = Min((len + 2) / 4, 3) + 1;
	const char *nearest = NULL;

	for (int i = 0; i < n && len <= NEAR_LENGTH; i++)
	{
		char *candidate = fold_for_nearest(candidates[i]);
		int length_difference = abs((int) strlen(candidate) - len);

		if (strlen(candidate) <= NEAR_LENGTH && length_difference < best)
		{
			int d = distance(wanted, candidate);

			if (d < best)
			{
				best = d;
				nearest = candidates[i];
			}
		}
		pfree(candidate);
	}
	pfree(wanted);
	return nearest;
}
