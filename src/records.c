/*
 * records.c
 *		Statements on the table of known records, and on what else names rows by
 *		key when a key changes.
 */
#include "compat.h"

#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "records.h"
#include "source.h"
#include "sql.h"

static FieldValueKind
kind_of_json(const char *type)
{
	return strcmp(type, "null") == 0      ? FV_NULL
		   : strcmp(type, "boolean") == 0 ? FV_BOOL
		   : strcmp(type, "number") == 0  ? FV_NUMBER
										  : FV_STRING;
}

static void
take_replaced(SqlScope *scope, uint64 row, RecordRow *record)
{
	int n;
	char **names = sql_texts(scope, row, 5, &record->nreplaced);
	char **types = sql_texts(scope, row, 6, &n);
	char **values = sql_texts(scope, row, 7, &n);

	record->replaced = MemoryContextAllocZero(scope->caller, sizeof(RestField) * Max(record->nreplaced, 1));
	for (int i = 0; i < record->nreplaced; i++)
	{
		FieldValue *value = &record->replaced[i].value;

		record->replaced[i].name = names[i];
		value->kind = kind_of_json(types[i]);
		value->text = values[i] ? pg_server_to_any(values[i], strlen(values[i]), PG_UTF8) : NULL;
		value->boolean = value->kind == FV_BOOL && strcmp(values[i], "true") == 0;
	}
}

#define RECORD_COLUMNS                                                                                                    \
	"r.record_key, r.key, r.salesforce_id, r.memory,"                                                                     \
	" CASE WHEN r.replaced IS NOT NULL THEN ARRAY(SELECT e.key FROM pg_catalog.jsonb_each(r.replaced) e ORDER BY 1) END," \
	" CASE WHEN r.replaced IS NOT NULL THEN ARRAY(SELECT pg_catalog.jsonb_typeof(e.value)"                                \
	" FROM pg_catalog.jsonb_each(r.replaced) e ORDER BY e.key) END,"                                                      \
	" CASE WHEN r.replaced IS NOT NULL THEN ARRAY(SELECT e.value FROM pg_catalog.jsonb_each_text(r.replaced) e"           \
	" ORDER BY e.key) END, r.at_keys, coalesce(r.displaced_by = '0', false)"

/* Key by key: a plan made while the table was small would read all of the mapping each time. */
#define RECORDS_BY_KEY                                                                                       \
	"(SELECT DISTINCT u.k FROM pg_catalog.unnest($2) AS u(k)) u CROSS JOIN LATERAL"                          \
	" (SELECT * FROM sfsync.record WHERE mapping = $1 AND record_key = u.k LIMIT 1) r"

static RecordRow *
take_records(SqlScope *scope, MemoryContext statement, int n)
{
	RecordRow *rows = MemoryContextAllocZero(scope->caller, sizeof(RecordRow) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		uint8 *memory;
		int len;

		rows[i].record_key = sql_text(scope, i, 1);
		rows[i].key = sql_text(scope, i, 2);
		rows[i].salesforce_id = sql_text(scope, i, 3);
		rows[i].expected = rows[i].salesforce_id[0] == '?';
		memory = sql_bytes(scope, i, 4, &len);
		MemoryContextSwitchTo(scope->caller);
		rows[i].memory = memory_read(memory, len);
		MemoryContextSwitchTo(statement);
		take_replaced(scope, i, &rows[i]);
		rows[i].moving = !sql_isnull(i, 8);
		rows[i].at_keys = sql_texts(scope, i, 8, &rows[i].nat);
		rows[i].shares_key = sql_bool(i, 9);
	}
	return rows;
}

RecordRow *
records_of_keys(int mapping, char *const *record_keys, int nkeys, int *n)
{
	SqlScope scope;
	RecordRow *rows;

	sql_open(&scope);
	*n = SQL_RUN(&scope,
				 "SELECT " RECORD_COLUMNS " FROM " RECORDS_BY_KEY " WHERE r.salesforce_id NOT LIKE '?%'",
				 sql_arg_int(mapping), sql_arg_texts(record_keys, nkeys));
	rows = take_records(&scope, CurrentMemoryContext, *n);
	sql_close(&scope);
	return rows;
}

static const char by_key_query[] = "SELECT " RECORD_COLUMNS " FROM " RECORDS_BY_KEY;

/*
 * The index on at_keys is asked key by key (for all at once it takes time by
 * their square), and for all mappings: no other is to be read along with it.
 */
#define AT_KEY "(SELECT * FROM sfsync.record WHERE at_keys && ARRAY[u.key] OFFSET 0)"

static const char at_keys_query[] =
	"SELECT " RECORD_COLUMNS " FROM " RECORDS_BY_KEY " UNION ALL SELECT " RECORD_COLUMNS
	" FROM (SELECT DISTINCT o.record_key FROM pg_catalog.unnest($2) AS u(key) CROSS JOIN LATERAL " AT_KEY " o"
	" WHERE o.mapping = $1) m"
	" JOIN sfsync.record r ON r.mapping = $1 AND r.record_key = m.record_key"
	" WHERE r.record_key NOT IN (SELECT pg_catalog.unnest($2))"
	" UNION ALL SELECT " RECORD_COLUMNS " FROM sfsync.record r WHERE r.mapping = $1 AND r.displaced_by = '0'"
	" AND r.key = ANY ($3) AND r.record_key <> ALL ($2) AND NOT r.at_keys && $2";

/* Has the mapping records that Salesforce may have under other keys?  Few have: then bitmaps may be scanned. */
static bool
any_moves(SqlScope *scope, SqlArg mapping)
{
	if (SQL_RUN(
			scope,
			"SELECT FROM sfsync.record WHERE mapping = $1 AND pg_catalog.cardinality(at_keys) >= 0 LIMIT 1",
			mapping) == 0)
		return false;
	sql_allow_bitmaps();
	return true;
}

RecordRow *
records_at_keys(int mapping, char *const *record_keys, char *const *keys, int nkeys, int *n)
{
	SqlScope scope;
	RecordRow *rows;
	SqlArg id = sql_arg_int(mapping);

	sql_open(&scope);
	if (any_moves(&scope, id))
		*n =
			SQL_RUN(&scope, at_keys_query, id, sql_arg_texts(record_keys, nkeys), sql_arg_texts(keys, nkeys));
	else
		*n = SQL_RUN(&scope, by_key_query, id, sql_arg_texts(record_keys, nkeys));
	rows = take_records(&scope, CurrentMemoryContext, *n);
	sql_close(&scope);
	return rows;
}

#define OWNERS_BY_ID                                                                                             \
	"SELECT u.i::pg_catalog.int4 - 1, r.record_key, true FROM pg_catalog.unnest($2) WITH ORDINALITY AS u(id, i)" \
	" CROSS JOIN LATERAL (SELECT record_key FROM sfsync.record WHERE mapping = $1 AND salesforce_id = u.id LIMIT 1) r"

static const char by_id_query[] = OWNERS_BY_ID;

static const char owner_query[] = OWNERS_BY_ID
	" UNION ALL"
	" SELECT u.i::pg_catalog.int4 - 1, r.record_key, false FROM pg_catalog.unnest($3) WITH ORDINALITY AS u(key, i)"
	" CROSS JOIN LATERAL " AT_KEY
	" r WHERE r.mapping = $1 AND NOT (r.salesforce_id LIKE '?%' AND r.record_key LIKE ' %')";

RecordOwners *
record_owners(int mapping, char *const *ids, char *const *record_keys, int n)
{
	RecordOwners *owners = palloc0(sizeof(RecordOwners) * Max(n, 1));
	SqlArg id = sql_arg_int(mapping);
	SqlScope scope;
	int found;

	sql_open(&scope);
	if (any_moves(&scope, id))
		found = SQL_RUN(&scope, owner_query, id, sql_arg_texts(ids, n), sql_arg_texts(record_keys, n));
	else
		found = SQL_RUN(&scope, by_id_query, id, sql_arg_texts(ids, n));
	for (int i = 0; i < found; i++)
	{
		RecordOwners *its = &owners[sql_int(i, 1)];
		char *row = sql_text(&scope, i, 2);
		MemoryContext statement = MemoryContextSwitchTo(scope.caller);

		if (sql_bool(i, 3))
			its->row = row;
		else
			its->waiting = lappend(its->waiting, row);
		MemoryContextSwitchTo(statement);
	}
	sql_close(&scope);
	return owners;
}

static const char record_put_query[] =
	"INSERT INTO sfsync.record AS r (mapping, record_key, key, salesforce_id, memory)"
	" SELECT $1, u.record_key, u.key, u.id, u.memory FROM unnest($2, $3, $4, $5) AS u(record_key, key, id, memory)"
	" ON CONFLICT (mapping, record_key) DO UPDATE SET key = excluded.key, salesforce_id = excluded.salesforce_id,"
	" memory = excluded.memory WHERE r.key <> excluded.key OR r.salesforce_id <> excluded.salesforce_id"
	" OR r.memory IS DISTINCT FROM excluded.memory";

void
record_put(int mapping, char *const *record_keys, char *const *keys, char *const *salesforce_ids,
		   Memory *const *memories, int n)
{
	SqlScope scope;
	uint8 **bytes = palloc0(sizeof(uint8 *) * Max(n, 1));
	int *lengths = palloc0(sizeof(int) * Max(n, 1));

	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
		if (memories[i])
			bytes[i] = memory_write(memories[i], &lengths[i]);
	sql_open(&scope);
	SQL_RUN(&scope, record_put_query, sql_arg_int(mapping), sql_arg_texts(record_keys, n),
			sql_arg_texts(keys, n), sql_arg_texts(salesforce_ids, n), sql_arg_byteas(bytes, lengths, n));
	sql_close(&scope);
}

static const char record_meet_query[] =
	"INSERT INTO sfsync.record AS r (mapping, record_key, key, salesforce_id, at_keys)"
	" SELECT $1, u.record_key, u.key, u.id, CASE WHEN u.at_key <> u.record_key THEN ARRAY[u.at_key] END"
	" FROM unnest($2, $3, $4, $5) AS u(record_key, key, id, at_key)"
	" ON CONFLICT (mapping, record_key) DO UPDATE SET key = excluded.key, salesforce_id = excluded.salesforce_id,"
	" memory = NULL, replaced = NULL, at_keys = excluded.at_keys WHERE r.salesforce_id <> excluded.salesforce_id";

void
record_meet(int mapping, char *const *record_keys, char *const *keys, char *const *salesforce_ids,
			char *const *at_keys, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope);
	SQL_RUN(&scope, record_meet_query, sql_arg_int(mapping), sql_arg_texts(record_keys, n),
			sql_arg_texts(keys, n), sql_arg_texts(salesforce_ids, n), sql_arg_texts(at_keys, n));
	sql_close(&scope);
}

void
record_forget(int mapping, const char *record_key)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, "DELETE FROM sfsync.record WHERE mapping = $1 AND record_key = $2", sql_arg_int(mapping),
			sql_arg_text(record_key));
	sql_close(&scope);
}

void
record_replaced(int mapping, const char *record_key, const char *replaced)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, "UPDATE sfsync.record SET replaced = $3 WHERE mapping = $1 AND record_key = $2",
			sql_arg_int(mapping), sql_arg_text(record_key), sql_arg_jsonb(replaced));
	sql_close(&scope);
}

/*
 * Key changes.  What is known of a record goes with its row at once; at_keys
 * remembers under which keys Salesforce may still have it.  A record whose
 * place is taken is kept out of place: a blank leads its record key, as in no
 * other.  It may be there for good (its row is gone, and the record is not), or
 * until its own row's key change comes (displaced_by), or because Salesforce
 * takes the two rows' keys for one (displaced_by is 0).
 */

static const char overlapped_query[] =
	"SELECT record_key FROM sfsync.record WHERE mapping = $1 AND key = $2 AND displaced_by IS NOT NULL"
	" AND displaced_by <> '0' AND displaced_by = coalesce($3, displaced_by) LIMIT 1";

static const char mover_query[] =
	"SELECT record_key FROM sfsync.record WHERE mapping = $1 AND record_key = $3 AND key = $2"
	" UNION ALL SELECT record_key FROM sfsync.record WHERE mapping = $1 AND key = $2 AND displaced_by = '0'";

/* Record key under which the record is stored; NULL if it isn't known. */
static char *
find_mover(SqlScope *scope, const RecordMove *move, bool *overlapped)
{
	SqlArg mapping = sql_arg_int(move->mapping);
	SqlArg from = sql_arg_text(move->from);

	*overlapped =
		move->overlaps && SQL_RUN(scope, overlapped_query, mapping, from, sql_arg_xid(move->xid)) > 0;
	if (*overlapped || SQL_RUN(scope, mover_query, mapping, from, sql_arg_text(move->from_record_key)) > 0)
		return sql_text(scope, 0, 1);
	return NULL;
}

static const char displace_query[] =
	"UPDATE sfsync.record SET record_key = ' ' || salesforce_id, displaced_by = $4,"
	" at_keys = coalesce(at_keys, ARRAY[record_key])"
	" WHERE mapping = $1 AND record_key = $2 AND key = $3 AND record_key IS DISTINCT FROM $5";

static const char taken_query[] = "SELECT FROM sfsync.record WHERE mapping = $1 AND record_key = $2"
								  " AND record_key <> $3";

static const char move_query[] =
	"UPDATE sfsync.record SET record_key = CASE WHEN $5 THEN ' ' || salesforce_id ELSE $3 END, key = $4,"
	" displaced_by = CASE WHEN $5 THEN '0'::pg_catalog.xid8 END,"
	" at_keys = CASE WHEN coalesce(at_keys, ARRAY[record_key]) <> ARRAY[$3] THEN coalesce(at_keys, ARRAY[record_key])"
	" WHEN NOT $6 THEN ARRAY[$3, ''] END"
	" WHERE mapping = $1 AND record_key = $2";

bool
record_move(const RecordMove *move)
{
	SqlScope scope;
	SqlArg mapping = sql_arg_int(move->mapping);
	SqlArg to_record_key = sql_arg_text(move->to_record_key);
	bool overlapped = false;
	bool taken;
	char *mover;

	sql_open(&scope);
	mover = find_mover(&scope, move, &overlapped);
	SQL_RUN(&scope, displace_query, mapping, to_record_key, sql_arg_text(move->to),
			sql_arg_xid(Max(move->xid, 1)), sql_arg_text(mover));
	if (mover)
	{
		taken = SQL_RUN(&scope, taken_query, mapping, to_record_key, sql_arg_text(mover)) > 0;
		SQL_RUN(&scope, move_query, mapping, sql_arg_text(mover), to_record_key, sql_arg_text(move->to),
				sql_arg_bool(taken), sql_arg_bool(move->case_sensitive));
	}
	sql_close(&scope);
	return overlapped;
}

bool
record_is_overlapped(const RecordMove *move)
{
	SqlScope scope;
	bool overlapped;

	if (!move->overlaps)
		return false;
	sql_open(&scope);
	overlapped = SQL_RUN(&scope, overlapped_query, sql_arg_int(move->mapping), sql_arg_text(move->from),
						 sql_arg_xid(move->xid)) > 0;
	sql_close(&scope);
	return overlapped;
}

static const char expect_query[] =
	"INSERT INTO sfsync.record (mapping, record_key, key, salesforce_id, at_keys)"
	" VALUES ($1, $2, $3, '?' || pg_catalog.gen_random_uuid(), $4) ON CONFLICT (mapping, record_key) DO NOTHING";

void
record_expect(int mapping, const char *record_key, const char *key, char *const *at_keys, int n)
{
	SqlScope scope;

	sql_open(&scope);
	SQL_RUN(&scope, expect_query, sql_arg_int(mapping), sql_arg_text(record_key), sql_arg_text(key),
			sql_arg_texts(at_keys, n));
	sql_close(&scope);
}

static const char split_query[] =
	"INSERT INTO sfsync.record (mapping, record_key, key, salesforce_id, at_keys)"
	" SELECT mapping, $3, $4, '?' || pg_catalog.gen_random_uuid(), ARRAY[record_key] || at_keys"
	" FROM sfsync.record WHERE mapping = $1 AND record_key = $2 AND salesforce_id LIKE '?%'"
	" ON CONFLICT (mapping, record_key) DO NOTHING";

bool
record_split(const RecordMove *move)
{
	SqlScope scope;
	SqlArg mapping = sql_arg_int(move->mapping);
	bool split = false;

	if (record_is_overlapped(move))
		return false;
	sql_open(&scope);
	if (SQL_RUN(&scope,
				"SELECT FROM sfsync.record WHERE mapping = $1 AND record_key = $2 AND key = $3"
				" AND salesforce_id LIKE '?%'",
				mapping, sql_arg_text(move->from_record_key), sql_arg_text(move->from)) > 0)
	{
		SQL_RUN(&scope, displace_query, mapping, sql_arg_text(move->to_record_key), sql_arg_text(move->to),
				sql_arg_xid(move->xid), sql_arg_text(NULL));
		split = SQL_RUN(&scope, split_query, mapping, sql_arg_text(move->from_record_key),
						sql_arg_text(move->to_record_key), sql_arg_text(move->to)) > 0;
	}
	sql_close(&scope);
	return split;
}

void
records_nowhere(int mapping, char *const *record_keys, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope);
	SQL_RUN(&scope,
			"UPDATE sfsync.record SET at_keys = '{}' WHERE mapping = $1 AND record_key = ANY ($2)"
			" AND salesforce_id LIKE '?%' AND at_keys <> '{}'",
			sql_arg_int(mapping), sql_arg_texts(record_keys, n));
	sql_close(&scope);
}

void
records_not_expected(int mapping, char *const *record_keys, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope);
	SQL_RUN(
		&scope,
		"DELETE FROM sfsync.record WHERE mapping = $1 AND record_key = ANY ($2) AND salesforce_id LIKE '?%'",
		sql_arg_int(mapping), sql_arg_texts(record_keys, n));
	sql_close(&scope);
}

bool
record_has_moved(int mapping, const char *record_key)
{
	SqlScope scope;
	bool has;

	sql_open(&scope);
	has = SQL_RUN(&scope,
				  "SELECT FROM sfsync.record WHERE mapping = $1 AND record_key = $2 AND at_keys IS NOT NULL",
				  sql_arg_int(mapping), sql_arg_text(record_key)) > 0;
	sql_close(&scope);
	return has;
}

static const char moved_dead_letters_query[] =
	"UPDATE sfsync.dead_letter SET status = 'resolved', resolved_at = pg_catalog.clock_timestamp(),"
	" note = 'the row got another key, and is sent anew under that'"
	" WHERE mapping = $1 AND external_id = ANY ($2) AND status IN ('open', 'retrying')";

static const char moved_conflicts_query[] =
	"UPDATE sfsync.conflict c SET source_key = u.new::jsonb FROM unnest($2, $3) AS u(old, new)"
	" WHERE c.mapping = $1 AND c.source_key = u.old::jsonb AND c.resolution IS NULL";

static const char moved_intents_query[] =
	"UPDATE sfsync.intent i SET keys = i.keys || ARRAY(SELECT u.new FROM unnest($2, $3) AS u(old, new)"
	" WHERE u.old = ANY (i.keys)) WHERE i.mapping = $1 AND i.state <> 'in_flight' AND i.keys && $2";

void
keys_moved(const Mapping *mapping, char *const *from, char *const *to, int n)
{
	char **old_keys = palloc(sizeof(char *) * Max(n, 1));
	char **new_keys = palloc(sizeof(char *) * Max(n, 1));
	SqlScope scope;

	for (int i = 0; i < n; i++)
	{
		old_keys[i] = source_key_json(mapping, from[i]);
		new_keys[i] = source_key_json(mapping, to[i]);
	}
	sql_open(&scope);
	SQL_RUN(&scope, moved_dead_letters_query, sql_arg_text(mapping->name), sql_arg_texts(from, n));
	SQL_RUN(&scope, moved_conflicts_query, sql_arg_text(mapping->name), sql_arg_texts(old_keys, n),
			sql_arg_texts(new_keys, n));
	SQL_RUN(&scope, moved_intents_query, sql_arg_int(mapping->id), sql_arg_texts(from, n),
			sql_arg_texts(to, n));
	sql_close(&scope);
}

static const char may_have_query[] =
	"UPDATE sfsync.record r SET at_keys = coalesce(r.at_keys, ARRAY[r.record_key]) || u.key"
	" FROM unnest($2, $3, $4) AS u(record_key, id, key) WHERE r.mapping = $1 AND r.record_key = u.record_key"
	" AND r.salesforce_id = u.id AND (r.at_keys IS NULL OR u.key <> ALL (r.at_keys))";

void
records_may_have(int mapping, char *const *record_keys, char *const *ids, char *const *keys, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope);
	SQL_RUN(&scope, may_have_query, sql_arg_int(mapping), sql_arg_texts(record_keys, n),
			sql_arg_texts(ids, n), sql_arg_texts(keys, n));
	sql_close(&scope);
}

static const char have_own_query[] =
	"UPDATE sfsync.record r SET at_keys = NULL, displaced_by = NULL FROM unnest($2, $3) AS u(record_key, id)"
	" WHERE r.mapping = $1 AND r.record_key = u.record_key AND r.salesforce_id = u.id";

void
records_have_own(int mapping, char *const *record_keys, char *const *ids, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope);
	SQL_RUN(&scope, have_own_query, sql_arg_int(mapping), sql_arg_texts(record_keys, n),
			sql_arg_texts(ids, n));
	sql_close(&scope);
}

static const char have_none_query[] =
	"UPDATE sfsync.record r SET at_keys = '{}' FROM unnest($2, $3) AS u(record_key, id)"
	" WHERE r.mapping = $1 AND r.record_key = u.record_key AND r.salesforce_id = u.id";

void
records_have_none(int mapping, char *const *record_keys, char *const *ids, int n)
{
	SqlScope scope;

	if (n == 0)
		return;
	sql_open(&scope);
	SQL_RUN(&scope, have_none_query, sql_arg_int(mapping), sql_arg_texts(record_keys, n),
			sql_arg_texts(ids, n));
	sql_close(&scope);
}
