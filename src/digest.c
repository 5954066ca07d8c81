/*
 * digest.c
 *		Is a mapping that was read again another?
 *
 * Told from what results, not from what it was made of: that takes in what its
 * expressions resolve to and what its foreign keys refer to.  The fields follow
 * from the routes and columns.  Whether it is paused, and when its metadata were
 * fetched, makes no other mapping of it.
 */
#include "compat.h"

#include "common/hashfn.h"
#include "lib/stringinfo.h"

#include "digest.h"

/* Each with its length, so that nothing can be taken for a part of its neighbour. */
static void
add_text(StringInfo all, const char *text)
{
	if (text)
		appendStringInfo(all, "%zu:%s;", strlen(text), text);
	else
		appendStringInfoString(all, "-;");
}

static void
add_int(StringInfo all, int64 value)
{
	appendStringInfo(all, INT64_FORMAT ";", value);
}

static void
add_ints(StringInfo all, const int *values, int n)
{
	add_int(all, n);
	for (int i = 0; i < n; i++)
		add_int(all, values[i]);
}

static void
add_configuration(StringInfo all, const Mapping *mapping)
{
	add_int(all, mapping->source);
	add_text(all, mapping->source_name);
	add_text(all, mapping->server);
	add_int(all, mapping->serverid);
	add_text(all, mapping->object);
	add_text(all, mapping->external_id);
	add_int(all, mapping->owner);
	add_text(all, mapping->on_delete);
	add_text(all, mapping->delete_values);
	add_text(all, mapping->conflict_policy);
	add_int(all, mapping->updated_at);
	add_text(all, mapping->zone);
	add_text(all, mapping->filter);
	add_text(all, mapping->broken);
}

static void
add_key(StringInfo all, const Mapping *mapping)
{
	add_int(all, mapping->nkeys);
	for (int i = 0; i < mapping->nkeys; i++)
	{
		add_text(all, mapping->key_columns[i]);
		add_int(all, mapping->key_types ? mapping->key_types[i] : InvalidOid);
	}
	add_int(all, mapping->key_overlaps);
}

static void
add_column(StringInfo all, const MappingColumn *column)
{
	add_text(all, column->name);
	add_int(all, column->attnum);
	add_int(all, column->type);
	add_int(all, column->typmod);
	add_text(all, column->type_name);
	add_int(all, column->not_null);
	add_text(all, column->expression);
	add_text(all, column->field_name);
	add_text(all, column->broken);
	add_ints(all, column->inputs, column->ninputs);
}

static void
add_lookup(StringInfo all, const RouteLookup *lookup)
{
	add_int(all, lookup->parent_mapping);
	add_text(all, lookup->parent_object);
	add_text(all, lookup->parent_external_id);
	add_int(all, lookup->key_is_number);
	add_ints(all, lookup->columns, lookup->ncolumns);
}

static void
add_route(StringInfo all, const Route *route)
{
	add_int(all, route->column);
	add_int(all, route->rule);
	add_int(all, route->status);
	add_text(all, route->field_name);
	add_text(all, route->detail);
	add_text(all, route->trouble);
	add_int(all, route->key);
	add_int(all, route->wanted);
	add_int(all, route->wanted_at);
	add_int(all, route->keep_null);
	add_int(all, route->truncate);
	add_text(all, route->policy);
	add_int(all, route->lookup != NULL);
	if (route->lookup)
		add_lookup(all, route->lookup);
}

uint64
digest_of(const Mapping *mapping, const char *describe)
{
	StringInfoData all;
	uint64 digest;

	initStringInfo(&all);
	add_configuration(&all, mapping);
	add_key(&all, mapping);
	add_int(&all, mapping->ncolumns);
	for (int i = 0; i < mapping->ncolumns; i++)
		add_column(&all, &mapping->columns[i]);
	add_column(&all, &mapping->filter_uses);
	add_int(&all, mapping->nroutes);
	for (int i = 0; i < mapping->nroutes; i++)
		add_route(&all, &mapping->routes[i]);
	digest = hash_bytes_extended((const unsigned char *) all.data, all.len, 0);
	pfree(all.data);
	if (describe)
		digest = hash_bytes_extended((const unsigned char *) describe, (int) strlen(describe), digest);
	return digest;
}
