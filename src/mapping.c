/*
 * mapping.c
 *		The mapping cache.
 *
 * What is mapped is a function of the table's catalog entries, the object's
 * metadata and the user's rules.  It is computed when first needed and again
 * after an invalidation; configuration and metadata are plain tables, so
 * whoever changes them invalidates sfsync.mapping as if it were altered.
 */
#include "compat.h"

#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "capture.h"
#include "datum.h"
#include "lock.h"
#include "mapping_load.h"
#include "names.h"
#include "rest.h"
#include "sql.h"

typedef struct Cached
{
	int id; /* hash key */
	bool valid;
	Mapping *mapping;
} Cached;

static HTAB *cache = NULL;
static Oid config_relid = InvalidOid; /* sfsync.mapping, as of the last load */
static bool invalidated = true;

static void
invalidate(Oid relid)
{
	bool config = relid == InvalidOid || relid == config_relid || config_relid == InvalidOid;
	HASH_SEQ_STATUS scan;
	Cached *cached;

	if (config)
		invalidated = true;
	if (!cache)
		return;
	hash_seq_init(&scan, cache);
	while ((cached = hash_seq_search(&scan)) != NULL)
	{
		if (config || !cached->mapping || cached->mapping->source == relid)
		{
			cached->valid = false;
			invalidated = true;
		}
	}
}

static void
relcache_callback(Datum arg, Oid relid)
{
	capture_invalidate(relid);
	invalidate(relid);
}

static void
server_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	invalidate(InvalidOid);
}

/* A function that is made, changed or dropped may mend or break an expression. */
static void
function_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS scan;
	Cached *cached;

	if (!cache)
		return;
	hash_seq_init(&scan, cache);
	while ((cached = hash_seq_search(&scan)) != NULL)
		if (!cached->mapping || cached->mapping->evaluates)
		{
			cached->valid = false;
			invalidated = true;
		}
}

void
mapping_init(void)
{
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, server_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, function_callback, (Datum) 0);
}

bool
mapping_was_invalidated(void)
{
	bool was = invalidated;

	invalidated = false;
	return was;
}

void
mapping_changed(Oid source)
{
	Oid relid = sfsync_relation("mapping");

	if (OidIsValid(relid))
		CacheInvalidateRelcacheByRelid(relid);
	if (OidIsValid(source) && SearchSysCacheExists1(RELOID, ObjectIdGetDatum(source)))
		CacheInvalidateRelcacheByRelid(source);
}

/*
 * Who got it before goes on with it: a row may refer to a row of the same table.
 * Catalogs are invalidated for much that is none of a mapping's business, like
 * ANALYZE: what was read with it before is as good as it was.
 */
static void
replace(Cached *cached, Mapping *mapping)
{
	static int serial = 0; /* given last */
	Mapping *before = cached->mapping;

	if (mapping)
		mapping->serial = before && before->digest == mapping->digest ? before->serial : ++serial;
	if (before)
		MemoryContextSetParent(before->context, TopTransactionContext);
	cached->mapping = mapping;
}

/* One whose table is locked stays as it was, and is tried again each time. */
static void
load(Cached *cached)
{
	Mapping *mapping;

	cached->valid = true; /* an invalidation while loading clears it again */
	PG_TRY();
	{
		mapping = mapping_load(cached->id);
	}
	PG_CATCH();
	{
		cached->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (mapping && mapping->locked)
		cached->valid = false;
	if (mapping && mapping->locked && cached->mapping)
	{
		MemoryContextDelete(mapping->context);
		cached->mapping->locked = true;
	}
	else
		replace(cached, mapping);
}

Mapping *
mapping_get(int id)
{
	Cached *cached;
	bool found;

	if (!cache)
	{
		HASHCTL ctl = {.keysize = sizeof(int), .entrysize = sizeof(Cached)};

		cache = hash_create("sfsync mappings", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	config_relid = sfsync_relation("mapping");
	if (!OidIsValid(config_relid))
		return NULL;
	cached = hash_search(cache, &id, HASH_ENTER, &found);
	if (!found)
		memset((char *) cached + sizeof(int), 0, sizeof(Cached) - sizeof(int));
	if (!cached->valid)
		load(cached);
	if (cached->mapping)
		return cached->mapping;
	(void) hash_search(cache, &id, HASH_REMOVE, NULL);
	return NULL;
}

Mapping *
mapping_look(int id)
{
	bool waiting = lock_set_waiting(false);
	Mapping *mapping = NULL;

	PG_TRY();
	{
		mapping = mapping_get(id);
	}
	PG_FINALLY();
	{
		(void) lock_set_waiting(waiting);
	}
	PG_END_TRY();
	return mapping;
}

bool
mapping_field_uses(const MappingField *field, int column)
{
	for (int i = 0; i < field->ninputs; i++)
		if (field->inputs[i] == column)
			return true;
	return false;
}

char *
mapping_record_key(const Mapping *mapping, const char *key)
{
	return rest_record_key(datum_key_utf8(key), mapping->key_field->case_sensitive);
}

void
mapping_forget(int id)
{
	Cached *cached = cache ? hash_search(cache, &id, HASH_FIND, NULL) : NULL;

	if (cached)
		cached->valid = false;
	invalidated = true;
}

int
mapping_find(const char *name)
{
	SqlScope scope;
	int id = 0;

	sql_open_latest(&scope);
	if (SQL_RUN(&scope, "SELECT id FROM sfsync.mapping WHERE name = $1", sql_arg_text(name)) == 1)
		id = sql_int(0, 1);
	sql_close(&scope);
	return id;
}

int
mapping_require(const char *name)
{
	int id = mapping_find(name);
	SqlScope scope;
	const char **names;
	const char *nearest;
	int n;

	if (id != 0)
		return id;
	sql_open_latest(&scope);
	n = SQL_RUN0(&scope, "SELECT name FROM sfsync.mapping ORDER BY name");
	names = (const char **) sql_column(&scope, 1);
	sql_close(&scope);
	nearest = nearest_match(name, names, n);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("mapping \"%s\" does not exist", name),
			 errdetail("Argument \"mapping\" must be the name of a mapping, as sfsync.status lists them."),
			 nearest ? errhint("Perhaps you meant \"%s\".", nearest)
					 : errhint("Create it with sfsync.create_mapping.")));
}

bool
mapping_hold(int id)
{
	return lock_mapping(id, AccessShareLock, lock_may_wait()) && mapping_get(id) != NULL;
}

int *
mapping_ids(int *n)
{
	SqlScope scope;
	int *ids;

	sql_open_latest(&scope);
	*n = SQL_RUN0(&scope, "SELECT id FROM sfsync.mapping ORDER BY name");
	ids = sql_column_ints(&scope, 1);
	sql_close(&scope);
	return ids;
}
