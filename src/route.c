/*
 * route.c
 *		The rules that join a table's columns to an object's fields.  Pure.
 */
#include "compat.h"

#include "lib/stringinfo.h"

#include "coerce.h"
#include "names.h"
#include "route.h"

#define NAMES_SHOWN 3 /* in a detail, before "and n others" */

#define NO_FIELD (-1)
#define AMBIGUOUS (-2)

/* What an automatic rule found for a column. */
typedef struct Match
{
	RouteKind rule;
	int field; /* or NO_FIELD, AMBIGUOUS */
	const FieldName *candidates;
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
	NameIndex names;
	bool *explicit_field; /* per field: an explicit rule fills it */
	int *first_match;     /* per field: chain of columns, or -1 */
	Match *matches;       /* per column */
	Route *routes;
	int nroutes;
	int maxroutes;
} Resolver;

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
		int field = rules[i].exclude ? NO_FIELD : names_find_field(&r->names, rules[i].field);

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

static RouteKind
rule_of(NameKind kind)
{
	return kind == NAME_CUSTOM ? ROUTE_CUSTOM_NAME : ROUTE_NAME;
}

/* By name, else by custom name.  More than one candidate: none is taken. */
static void
match_name(const Resolver *r, const char *name, Match *match)
{
	for (NameKind kind = NAME_LOOSE; kind <= NAME_CUSTOM; kind++)
	{
		match->candidates = names_find(&r->names, kind, name, &match->ncandidates);
		if (match->ncandidates == 0)
			continue;
		match->rule = rule_of(kind);
		match->field = match->ncandidates == 1 ? match->candidates[0].field : AMBIGUOUS;
		break;
	}
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

/*
 * The lookup that a foreign key fills: the one that refers to the parent's
 * object, among several the one of the column's name.  False if the object has
 * none, so that the other rules may match.
 */
static bool
match_lookup(const Resolver *r, const RouteColumn *column, Match *match)
{
	const char *object = column->lookup->parent_object;
	char *key = names_fold_reference(column->name);
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
		if (strcmp(names_fold_reference(field->name), key) == 0)
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
	int field = names_find_field(&r->names, rule->field);
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
		route->unknown = find_former(&r->columns[column], rule->field) == NULL;
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
	int field = names_find_field(&r->names, r->external_id);
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

/* No field matches, but one did: is it gone? */
static bool
add_missing(Resolver *r, int index)
{
	const RouteColumn *column = &r->columns[index];

	for (int i = 0; i < column->nformer; i++)
	{
		const char *field = column->former[i].field;
		NameKind kind = NAME_LOOSE;
		Route *route;

		if ((!column->lookup && !names_alike(column->name, field, &kind)) ||
			names_find_field(&r->names, field) != NO_FIELD)
			continue;
		route =
			add_route(r, index, column->lookup ? ROUTE_FOREIGN_KEY : rule_of(kind), ROUTE_QUARANTINED, NULL);
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

	r.names = names_index(object);
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
