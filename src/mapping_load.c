/*
 * mapping_load.c
 *		Reads a mapping: its configuration, the table as the catalog has it, and
 *		the object's metadata, into the fields that result.
 */
#include "compat.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_index.h"
#include "commands/trigger.h"
#include "foreign/foreign.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "capture.h"
#include "columns.h"
#include "datum.h"
#include "delete_policy.h"
#include "digest.h"
#include "drift.h"
#include "lock.h"
#include "mapping_load.h"
#include "sql.h"

/*
 * Configuration
 */

static const char load_query[] =
	"SELECT m.name, m.source::oid, m.server, m.object, m.external_id, m.owner::oid, m.on_delete,"
	" m.conflict_policy, m.timestamp_zone, m.paused, m.key_columns, m.new_columns, m.known_columns,"
	" o.describe::text, o.fetched_at, coalesce(o.refresh, false), o.last_modified, m.delete_values::text, m.updated_at_column,"
	" m.filter"
	" FROM sfsync.mapping m LEFT JOIN sfsync.object o ON o.server = m.server AND o.object = m.object"
	" WHERE m.id = $1";

static const char rules_query[] =
	"SELECT field, column_name, null_rule, overlong, conflict_policy, expression, attnum::pg_catalog.int4,"
	" expression_columns"
	" FROM sfsync.rule WHERE mapping = $1 ORDER BY id";

/* What load_query returns beside the Mapping itself. */
typedef struct Loaded
{
	bool ignore_new;
	bool create_new;
	char **known;
	int nknown;
	char *describe;
	RouteRule *rules;
	char **rule_columns; /* NULL: an expression */
	RuleExpression *rule_expressions;
	int nrules;
	char *updated_at;
} Loaded;

static void
read_rules(SqlScope *scope, int mapping, Loaded *loaded)
{
	int n = loaded->nrules = SQL_RUN(scope, rules_query, sql_arg_int(mapping));

	loaded->rules = MemoryContextAllocZero(scope->caller, sizeof(RouteRule) * Max(n, 1));
	loaded->rule_columns = MemoryContextAlloc(scope->caller, sizeof(char *) * Max(n, 1));
	loaded->rule_expressions = MemoryContextAllocZero(scope->caller, sizeof(RuleExpression) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		loaded->rules[i].field = sql_text(scope, i, 1);
		loaded->rules[i].exclude = loaded->rules[i].field == NULL;
		loaded->rule_columns[i] = sql_text(scope, i, 2);
		loaded->rules[i].keep_null = strcmp(sql_text(scope, i, 3), "keep") == 0;
		loaded->rules[i].truncate = strcmp(sql_text(scope, i, 4), "truncate") == 0;
		loaded->rules[i].policy = sql_text(scope, i, 5);
		loaded->rules[i].attnum = sql_int(i, 7);
		loaded->rule_expressions[i].text = sql_text(scope, i, 6);
		loaded->rule_expressions[i].columns = sql_texts(scope, i, 8, &loaded->rule_expressions[i].ncolumns);
	}
}

static bool
read_configuration(Mapping *mapping, Loaded *loaded)
{
	SqlScope scope;
	bool found;

	sql_open_latest(&scope);
	found = SQL_RUN(&scope, load_query, sql_arg_int(mapping->id)) == 1;
	if (found)
	{
		mapping->name = sql_text(&scope, 0, 1);
		mapping->source = sql_oid(0, 2);
		mapping->server = sql_text(&scope, 0, 3);
		mapping->object = sql_text(&scope, 0, 4);
		mapping->external_id = sql_text(&scope, 0, 5);
		mapping->owner = sql_oid(0, 6);
		mapping->on_delete = sql_text(&scope, 0, 7);
		mapping->conflict_policy = sql_text(&scope, 0, 8);
		mapping->zone = sql_text(&scope, 0, 9);
		mapping->paused = sql_bool(0, 10);
		mapping->key_columns = sql_texts(&scope, 0, 11, &mapping->nkeys);
		loaded->ignore_new = strcmp(sql_text(&scope, 0, 12), "ignore") == 0;
		loaded->create_new = strcmp(sql_text(&scope, 0, 12), "create_field") == 0;
		loaded->known = sql_texts(&scope, 0, 13, &loaded->nknown);
		loaded->describe = sql_text(&scope, 0, 14);
		mapping->has_metadata = !sql_isnull(0, 15);
		mapping->metadata_at = sql_time(0, 15);
		mapping->refresh_wanted = sql_bool(0, 16);
		mapping->last_modified = sql_text(&scope, 0, 17);
		mapping->delete_values = sql_text(&scope, 0, 18);
		loaded->updated_at = sql_text(&scope, 0, 19);
		mapping->filter = sql_text(&scope, 0, 20);
		read_rules(&scope, mapping->id, loaded);
	}
	sql_close(&scope);
	return found;
}

/* Does any field's policy depend on what Salesforce holds? */
static bool
checks_records(const Mapping *mapping)
{
	if (strcmp(mapping->conflict_policy, "source_wins") != 0)
		return true;
	for (int i = 0; i < mapping->nfields; i++)
		if (mapping->fields[i].policy && strcmp(mapping->fields[i].policy, "source_wins") != 0)
			return true;
	return false;
}

/*
 * The table
 */

static void
read_keys(Mapping *mapping)
{
	mapping->key_types = palloc0(sizeof(Oid) * Max(mapping->nkeys, 1));
	for (int i = 0; i < mapping->nkeys && !mapping->broken; i++)
	{
		int column = mapping_column(mapping, mapping->key_columns[i]);

		if (column < 0)
			mapping->broken = psprintf("key column \"%s\" is not in table %s any more; end the mapping with "
									   "sfsync.drop_mapping, then create it anew",
									   mapping->key_columns[i], mapping->source_name);
		else
			mapping->key_types[i] = getBaseType(mapping->columns[column].type);
	}
}

static const char parents_query[] =
	"SELECT m.id, m.object, m.external_id, m.key_columns, o.describe::text FROM sfsync.mapping m"
	" LEFT JOIN sfsync.object o ON o.server = m.server AND o.object = m.object"
	" WHERE m.source::oid = $1 AND m.server = $2 ORDER BY m.id LIMIT 1";

/* Columns of the foreign key in the order of the parent's key; NULL if it isn't the key. */
static int *
match_key(const Mapping *mapping, const ForeignKeyCacheInfo *fk, char **key_columns, int nkeys)
{
	int *columns = palloc(sizeof(int) * Max(nkeys, 1));

	if (nkeys != fk->nkeys)
		return NULL;
	for (int k = 0; k < nkeys; k++)
	{
		AttrNumber parent = get_attnum(fk->confrelid, key_columns[k]);
		char *name = NULL;

		for (int i = 0; i < fk->nkeys; i++)
			if (fk->confkey[i] == parent)
				name = get_attname(mapping->source, fk->conkey[i], true);
		columns[k] = name ? mapping_column(mapping, name) : -1;
		if (columns[k] < 0)
			return NULL;
	}
	return columns;
}

static bool
is_number_field(const char *describe, const char *external_id)
{
	char *error;
	SfObject *meta = describe ? describe_parse(describe, strlen(describe), &error) : NULL;
	const SfField *field = meta ? describe_field(meta, external_id) : NULL;

	return field && describe_is_number(field);
}

/* A foreign key to the key of a table that is mapped to the same org. */
static void
read_foreign_key(Mapping *mapping, const ForeignKeyCacheInfo *fk)
{
	RouteLookup *lookup = palloc0(sizeof(RouteLookup));
	char **key_columns = NULL;
	char *describe = NULL;
	int last = -1;
	SqlScope scope;

	sql_open_latest(&scope);
	if (SQL_RUN(&scope, parents_query, sql_arg_oid(fk->confrelid), sql_arg_name(mapping->server)) == 1)
	{
		lookup->parent_mapping = sql_int(0, 1);
		lookup->parent_object = sql_text(&scope, 0, 2);
		lookup->parent_external_id = sql_text(&scope, 0, 3);
		key_columns = sql_texts(&scope, 0, 4, &lookup->ncolumns);
		describe = sql_text(&scope, 0, 5);
	}
	sql_close(&scope);
	if (key_columns)
		lookup->columns = match_key(mapping, fk, key_columns, lookup->ncolumns);
	if (!lookup->columns)
		return;
	lookup->key_is_number = is_number_field(describe, lookup->parent_external_id);
	for (int i = 0; i < lookup->ncolumns; i++)
		last = Max(last, lookup->columns[i]);
	mapping->lookups[last] = lookup;
}

static void
read_foreign_keys(Mapping *mapping, Relation rel)
{
	ListCell *lc;

	mapping->lookups = palloc0(sizeof(RouteLookup *) * Max(mapping->ncolumns, 1));
	foreach(lc, RelationGetFKeyList(rel))
		read_foreign_key(mapping, lfirst(lc));
}

/* Is the key, or a part of it, unique at every moment? */
static bool
is_immediate(const Mapping *mapping, Oid index)
{
	HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Form_pg_index form;
	bool good;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_index) GETSTRUCT(tuple);
	good = form->indisunique && form->indisvalid && form->indimmediate &&
		   heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
	for (int i = 0; i < form->indnkeyatts && good; i++)
	{
		bool in_key = false;

		for (int k = 0; k < mapping->nkeys; k++)
		{
			int column = mapping_column(mapping, mapping->key_columns[k]);

			in_key |= column >= 0 && mapping->columns[column].attnum == form->indkey.values[i];
		}
		good = in_key;
	}
	ReleaseSysCache(tuple);
	return good;
}

static void
read_overlaps(Mapping *mapping, Relation rel)
{
	ListCell *lc;

	mapping->key_overlaps = true;
	foreach(lc, RelationGetIndexList(rel))
		if (is_immediate(mapping, lfirst_oid(lc)))
			mapping->key_overlaps = false;
}

/* Without its row trigger a table changes and nobody knows: better to stop, and say so. */
static void
read_trigger(Mapping *mapping, Relation rel)
{
	const Trigger *capture = NULL;

	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
		if (strcmp(rel->trigdesc->triggers[i].tgname, CAPTURE_TRIGGER) == 0)
			capture = &rel->trigdesc->triggers[i];
	if (!capture)
		mapping->broken = psprintf(
			"trigger %s of table %s is missing, so changes are not captured: sfsync.alter_mapping(%s)"
			" attaches it again, and sfsync.backfill or sfsync.compare finds what was missed",
			CAPTURE_TRIGGER, mapping->source_name, quote_literal_cstr(mapping->name));
	else if (capture->tgenabled == TRIGGER_DISABLED || capture->tgenabled == TRIGGER_FIRES_ON_REPLICA)
		mapping->broken =
			psprintf("trigger %s of table %s is disabled, so changes are not captured: enable it with"
					 " ALTER TABLE, and sfsync.backfill or sfsync.compare finds what was missed",
					 CAPTURE_TRIGGER, mapping->source_name);
}

static void
read_table(Mapping *mapping, const Loaded *loaded)
{
	Relation rel;

	mapping->locked = !lock_table(mapping->source);
	if (mapping->locked)
		return;
	rel = try_relation_open(mapping->source, NoLock);
	if (!rel)
	{
		UnlockRelationOid(mapping->source, AccessShareLock);
		mapping->broken =
			psprintf("the source table (oid %u) was dropped, and one of the same name is another; "
					 "end the mapping with sfsync.drop_mapping, then create it anew",
					 mapping->source);
		return;
	}
	mapping->source_name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													  RelationGetRelationName(rel));
	columns_read(mapping, rel, loaded->rules, loaded->rule_expressions, loaded->nrules);
	read_foreign_keys(mapping, rel);
	read_overlaps(mapping, rel);
	read_trigger(mapping, rel);
	relation_close(rel, AccessShareLock);
	read_keys(mapping);
}

/*
 * Fields
 */

static int
compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Columns that the table had when the mapping was made; the names are sorted. */
static bool
is_known(const Loaded *loaded, const char *name)
{
	return bsearch(&name, loaded->known, loaded->nknown, sizeof(char *), compare_texts) != NULL;
}

static bool
is_key(const Mapping *mapping, const char *name)
{
	for (int k = 0; k < mapping->nkeys; k++)
		if (strcmp(mapping->key_columns[k], name) == 0)
			return true;
	return false;
}

/* The type is named where the relation has several (reference, section 8). */
static void
set_relation(MappingField *field, const RouteLookup *lookup)
{
	field->lookup = lookup;
	field->relation.relationship = field->field->relationship_name;
	field->relation.external_id = unconstify(char *, lookup->parent_external_id);
	field->relation.key_is_number = lookup->key_is_number;
	field->relation.parent_mapping = lookup->parent_mapping;
	if (field->field->nreference_to > 1)
		field->relation.parent_object = unconstify(char *, lookup->parent_object);
}

static void
resolve(Mapping *mapping, Loaded *loaded)
{
	RouteColumn *columns = palloc0(sizeof(RouteColumn) * Max(mapping->ncolumns, 1));

	qsort(loaded->known, loaded->nknown, sizeof(char *), compare_texts);
	for (int i = 0; i < mapping->ncolumns; i++)
	{
		columns[i].name = mapping->columns[i].name;
		columns[i].attnum = mapping->columns[i].attnum;
		columns[i].lookup = mapping->lookups[i];
		columns[i].kind = datum_kind(mapping->columns[i].type);
		columns[i].type_name = mapping->columns[i].type_name;
		columns[i].routable = !loaded->ignore_new || is_known(loaded, mapping->columns[i].name);
		columns[i].expression = mapping->columns[i].expression != NULL;
		columns[i].broken = mapping->columns[i].broken;
		columns[i].creatable = loaded->create_new && !is_known(loaded, mapping->columns[i].name);
		columns[i].key = is_key(mapping, mapping->columns[i].name);
	}
	drift_recall(mapping, columns);
	for (int i = 0; i < loaded->nrules; i++)
	{
		int column = loaded->rule_columns[i] ? mapping_column(mapping, loaded->rule_columns[i]) : -1;

		if (loaded->rule_columns[i])
			loaded->rules[i].attnum = column < 0 ? 0 : mapping->columns[column].attnum;
	}
	mapping->routes = route_resolve(columns, mapping->ncolumns, loaded->rules, loaded->nrules, mapping->meta,
									mapping->external_id, &mapping->nroutes);
	mapping->fields = palloc0(sizeof(MappingField) * Max(mapping->nroutes, 1));
	for (int i = 0; i < mapping->nroutes; i++)
	{
		MappingField *field = &mapping->fields[mapping->nfields];

		if (mapping->routes[i].status != ROUTE_MAPPED || mapping->routes[i].key)
			continue;
		field->column = mapping->routes[i].column;
		field->field = mapping->routes[i].field;
		field->keep_null = mapping->routes[i].keep_null;
		field->truncate = mapping->routes[i].truncate;
		field->policy = mapping->routes[i].policy;
		if (mapping->routes[i].lookup)
			set_relation(field, mapping->routes[i].lookup);
		columns_set_inputs(mapping, field);
		mapping->nfields++;
	}
}

/* Rules may be made before there are metadata: a field that then proves unknown is probably a slip. */
static void
refuse_unknown(Mapping *mapping)
{
	for (int i = 0; i < mapping->nroutes && !mapping->broken; i++)
		if (mapping->routes[i].unknown)
			mapping->broken =
				psprintf("field %s of %s, which map_field names, does not exist, or the integration"
						 " user may not see it",
						 mapping->routes[i].field_name, mapping->object);
}

static void
use_metadata(Mapping *mapping, Loaded *loaded)
{
	char *error = NULL;

	if (!loaded->describe)
	{
		if (mapping->has_metadata && !mapping->broken)
			mapping->broken =
				psprintf("object %s does not exist in Salesforce, or the integration user may not see it",
						 mapping->object);
		return;
	}
	mapping->meta = describe_parse(loaded->describe, strlen(loaded->describe), &error);
	if (!mapping->meta)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("cached metadata of object %s can't be read: %s", mapping->object, error),
						errhint("Run sfsync.refresh_schema().")));
	mapping->key_field = describe_field(mapping->meta, mapping->external_id);
	if (!mapping->broken &&
		(!mapping->key_field || !(mapping->key_field->external_id || mapping->key_field->id_lookup)))
		mapping->broken = psprintf(
			mapping->key_field ? "field %s of %s is not an External ID"
							   : "field %s of %s does not exist, or the integration user may not see it",
			mapping->external_id, mapping->object);
	if (!mapping->broken && mapping->delete_values)
		mapping->broken =
			delete_values_fault(mapping->delete_values, mapping->meta, mapping->external_id, mapping->zone);
	if (!mapping->columns)
		return;
	resolve(mapping, loaded);
	refuse_unknown(mapping);
}

/*
 * The whole
 */

Mapping *
mapping_load(int id)
{
	MemoryContext context =
		AllocSetContextCreate(CacheMemoryContext, "sfsync mapping", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	Mapping *mapping = palloc0(sizeof(Mapping));
	Loaded loaded = {0};

	mapping->id = id;
	mapping->context = context;
	PG_TRY();
	{
		if (!read_configuration(mapping, &loaded))
			mapping = NULL;
		else
		{
			ForeignServer *server = GetForeignServerByName(mapping->server, true);

			mapping->serverid = server ? server->serverid : InvalidOid;
			if (!server)
				mapping->broken = psprintf("server \"%s\" does not exist", mapping->server);
			if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(mapping->owner)))
				mapping->broken =
					psprintf("the mapping's owner (role with oid %u) was dropped", mapping->owner);
			read_table(mapping, &loaded);
			mapping->updated_at = loaded.updated_at ? mapping_column(mapping, loaded.updated_at) : -1;
			use_metadata(mapping, &loaded);
			mapping->checks = checks_records(mapping);
			mapping->digest = digest_of(mapping, loaded.describe);
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(context);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	if (!mapping)
		MemoryContextDelete(context);
	return mapping;
}
