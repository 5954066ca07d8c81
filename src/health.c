/*
 * health.c
 *		sfsync.health: everything that could be in the way, looked at without
 *		the network.
 *
 * A probe calls it every minute, so each check is a statement that reads small
 * tables, or the queue once.  How long is too long is fixed here and told in
 * README.md; who wants other limits asks the views.
 */
#include "compat.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "api.h"
#include "errors.h"
#include "sfsync.h"
#include "shmem.h"
#include "sql.h"

static void
put(ReturnSetInfo *result, const char *name, const char *status, const char *detail, const char *hint)
{
	const char *texts[4] = {name, status, detail, hint};
	Datum values[4] = {0};

	api_put_row(result, 4, texts, values);
}

/*
 * Processes
 */

static void
check_library(ReturnSetInfo *result)
{
	if (shmem_available())
		put(result, "library", "ok", "preloaded", NULL);
	else
		put(result, "library", "critical", "sfsync is not preloaded: changes are captured, but not delivered",
			"Add sfsync to shared_preload_libraries and restart the server.");
}

static void
check_worker(ReturnSetInfo *result)
{
	static const char hint[] = "Look into the server's log; max_worker_processes must leave room for one "
							   "worker of each database with sfsync, and for the launcher.";

	if (shmem_worker_state() == SLOT_RUNNING)
		put(result, "worker", "ok", "running", NULL);
	else if (shmem_worker_state() == SLOT_STARTING)
		put(result, "worker", "warning", "starting", NULL);
	else
		put(result, "worker", "critical", "no worker runs in this database: nothing is delivered", hint);
}

static void
check_processes(ReturnSetInfo *result)
{
	if (!shmem_available())
		return;
	if (RecoveryInProgress())
	{
		put(result, "worker", "ok", "none on a standby; delivery begins when it is promoted", NULL);
		return;
	}
	if (shmem_launcher_present())
		put(result, "launcher", "ok", "running", NULL);
	else
		put(result, "launcher", "critical", "the launcher does not run: workers are not started",
			"It comes back five seconds after a crash; look into the server's log.");
	check_worker(result);
}

static void
check_settings(ReturnSetInfo *result)
{
	if (sfsync_enabled)
		put(result, "enabled", "ok", "on", NULL);
	else
		put(result, "enabled", "warning", "sfsync.enabled is off: changes are captured, but not delivered",
			"Set it on in postgresql.conf and reload.");
}

/*
 * Statements: name, status, detail, hint.  They run in this order.
 */

/* A physical copy is told apart by this alone. */
static const char environment_query[] =
	"SELECT 'environment', CASE WHEN e.name = '' OR e.unset IS NOT NULL THEN 'warning' ELSE 'ok' END,"
	" CASE WHEN e.name = '' THEN 'sfsync.environment is not set: a physical copy of this cluster would send, too'"
	" WHEN e.unset IS NOT NULL THEN 'no option environment: ' || e.unset ELSE e.name END,"
	" CASE WHEN e.name = '' OR e.unset IS NOT NULL THEN 'Set sfsync.environment in the configuration file, outside"
	" the data directory, and the option environment of the servers to the same name.' END"
	" FROM (SELECT pg_catalog.current_setting('sfsync.environment') AS name,"
	" pg_catalog.string_agg(server::text, ', ' ORDER BY server) FILTER (WHERE coalesce(environment, '') = '') AS unset"
	" FROM sfsync.server_settings()) e";

static const char servers_query[] =
	"SELECT 'server ' || s.server, CASE WHEN s.state IN ('fenced', 'blocked') THEN 'critical'"
	" WHEN s.state = 'active' THEN 'ok'"
	" WHEN s.state = 'backing_off' AND t.state_since < pg_catalog.clock_timestamp() - interval '15 minutes' THEN 'critical'"
	" ELSE 'warning' END,"
	" s.state || CASE WHEN s.state IN ('backing_off', 'throttled', 'blocked')"
	" THEN ' since ' || pg_catalog.date_trunc('second', t.state_since) ELSE '' END || coalesce(': ' || s.detail, ''),"
	" CASE s.state WHEN 'active' THEN NULL WHEN 'fenced' THEN 'See the detail: adopt the server, or correct its"
	" environment.' WHEN 'throttled' THEN 'It goes on by itself; raise api_budget, or find who spends the calls.'"
	" ELSE 'Run sfsync.check_connection(' || pg_catalog.quote_literal(s.server) || ') and follow its hints.' END"
	" FROM sfsync.server_status s LEFT JOIN sfsync.server_state t ON t.server = s.server ORDER BY s.server";

static const char calls_query[] =
	"SELECT 'server ' || server || ': API calls', CASE WHEN api_used >= share THEN 'critical'"
	" WHEN api_used >= 0.9 * share THEN 'warning' ELSE 'ok' END,"
	" api_used || ' of ' || api_limit || ' used in 24 hours; sfsync stops at ' || share,"
	" CASE WHEN api_used >= 0.9 * share THEN 'Find who spends the calls, raise api_budget, or buy more.' END"
	" FROM (SELECT server, api_used, api_limit, api_limit * api_budget / 100 AS share FROM sfsync.server_status"
	" WHERE api_used IS NOT NULL AND api_limit > 0) s ORDER BY server";

static const char clock_query[] =
	"SELECT 'server ' || server || ': clock', CASE WHEN pg_catalog.abs(skew) > 30 THEN 'warning' ELSE 'ok' END,"
	" CASE WHEN pg_catalog.abs(skew) <= 1 THEN 'in step' ELSE 'Salesforce''s clock is '"
	" || pg_catalog.round(pg_catalog.abs(skew)) || ' s ' || CASE WHEN skew > 0 THEN 'ahead' ELSE 'behind' END END,"
	" CASE WHEN pg_catalog.abs(skew) > 30 THEN 'Synchronize this server''s clock: logins by JWT depend on it.' END"
	" FROM (SELECT server, extract(epoch FROM clock_skew) AS skew FROM sfsync.server_status"
	" WHERE clock_skew IS NOT NULL) s ORDER BY server";

static const char mappings_query[] =
	"SELECT 'mapping ' || m.name, CASE WHEN w.blocked IS NOT NULL THEN 'critical' WHEN m.paused"
	" OR w.waits IS NOT NULL THEN 'warning' ELSE 'ok' END, CASE WHEN w.blocked IS NOT NULL THEN 'blocked: ' || w.blocked WHEN m.paused THEN 'paused'"
	" ELSE coalesce('waits: ' || w.waits, 'in force') END, CASE WHEN w.blocked IS NOT NULL THEN 'Mend what the detail says, then call"
	" sfsync.refresh_schema().' WHEN m.paused THEN 'sfsync.resume takes it up again.'"
	" WHEN w.waits IS NOT NULL THEN 'It goes on by itself; pg_locks shows who holds or wants the table in mode"
	" AccessExclusiveLock.' END"
	" FROM sfsync.mapping m LEFT JOIN sfsync.mapping_state w ON w.mapping = m.id ORDER BY m.name";

static const char lag_query[] =
	"SELECT 'mapping ' || m.name || ': lag', CASE WHEN p.age > interval '1 hour' THEN 'critical'"
	" WHEN p.age > interval '5 minutes' THEN 'warning' ELSE 'ok' END, CASE WHEN p.n IS NULL THEN 'nothing waits'"
	" ELSE p.n || ' changes wait, the oldest for ' || pg_catalog.date_trunc('second', p.age) END,"
	" CASE WHEN p.age > interval '5 minutes' THEN 'See sfsync.status, and the reasons in sfsync.deferred.' END"
	" FROM sfsync.mapping m LEFT JOIN (SELECT mapping, pg_catalog.count(*) AS n,"
	" pg_catalog.clock_timestamp() - pg_catalog.min(at) AS age FROM (SELECT mapping, event_at AS at FROM sfsync.queued"
	" UNION ALL SELECT mapping, first_event_at FROM sfsync.deferred WHERE state = 'waiting') w GROUP BY mapping) p"
	" ON p.mapping = m.id ORDER BY m.name";

static const char held_query[] =
	"SELECT 'mapping ' || m.name || ': held', CASE WHEN h.n > 0 THEN 'warning' ELSE 'ok' END,"
	" CASE WHEN h.n IS NULL THEN 'nothing is held' ELSE h.n || ' rows, of which ' || h.deletes || ' are deletes' END,"
	" CASE WHEN h.deletes > 0 THEN 'Look at them in sfsync.deferred, then call sfsync.release_deletes or"
	" sfsync.discard_deletes.' WHEN h.n > 0 THEN 'sfsync.deferred has the reasons; a later change of a row releases it.' END"
	" FROM sfsync.mapping m LEFT JOIN (SELECT mapping, pg_catalog.count(*) AS n,"
	" pg_catalog.count(*) FILTER (WHERE deleted) AS deletes FROM sfsync.deferred WHERE state = 'held' GROUP BY mapping) h"
	" ON h.mapping = m.id ORDER BY m.name";

static const char dead_letters_query[] =
	"SELECT 'mapping ' || m.name || ': dead letters', CASE WHEN l.n > 0 THEN 'warning' ELSE 'ok' END,"
	" CASE WHEN l.n IS NULL THEN 'none' ELSE l.n || ' unresolved: ' || l.codes END,"
	" CASE WHEN l.n > 0 THEN 'sfsync.dead_letter_summary says what to do about each code.' END"
	" FROM sfsync.mapping m LEFT JOIN (SELECT mapping, pg_catalog.count(*) AS n,"
	" pg_catalog.string_agg(DISTINCT error_code, ', ') AS codes FROM sfsync.dead_letter"
	" WHERE status IN ('open', 'retrying') GROUP BY mapping) l ON l.mapping = m.name ORDER BY m.name";

static const char conflicts_query[] =
	"SELECT 'mapping ' || m.name || ': conflicts', CASE WHEN c.n > 0 THEN 'warning' ELSE 'ok' END,"
	" coalesce(c.n || ' open', 'none'), CASE WHEN c.n > 0 THEN 'Read sfsync.conflict and decide with"
	" sfsync.resolve_conflict.' END FROM sfsync.mapping m LEFT JOIN (SELECT mapping, pg_catalog.count(*) AS n"
	" FROM sfsync.conflict WHERE resolution IS NULL GROUP BY mapping) c ON c.mapping = m.name ORDER BY m.name";

/*
 * Partitions too: row triggers of the root are cloned to them.  Functions that
 * list them would wait for those that are locked.
 */
static const char triggers_query[] =
	"SELECT 'mapping ' || m.name || ': triggers', CASE WHEN t.bad IS NOT NULL THEN 'critical' ELSE 'ok' END,"
	" coalesce(t.bad, 'in place'), CASE WHEN t.bad IS NOT NULL THEN 'Enable them with ALTER TABLE ... ENABLE TRIGGER;"
	" changes made meanwhile were not captured: call sfsync.compare or sfsync.backfill.' END"
	" FROM sfsync.mapping m CROSS JOIN LATERAL (SELECT pg_catalog.string_agg(r.relid::regclass || ': '"
	" || CASE WHEN g.tgname IS NULL THEN n.name || ' is missing' WHEN g.tgenabled = 'D' THEN n.name || ' is disabled'"
	" ELSE n.name || ' fires on replicas only' END, '; ' ORDER BY r.relid::regclass::text, n.name) AS bad"
	" FROM (WITH RECURSIVE tree AS (SELECT m.source::oid AS relid UNION SELECT i.inhrelid FROM tree t"
	" JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relid) SELECT relid FROM tree) r"
	" JOIN pg_catalog.pg_class k ON k.oid = r.relid"
	" CROSS JOIN (VALUES ('sfsync_capture'), ('sfsync_truncate')) AS n(name)"
	" LEFT JOIN pg_catalog.pg_trigger g ON g.tgrelid = r.relid AND g.tgname = n.name"
	" WHERE g.tgname IS NULL OR g.tgenabled IN ('D', 'R')) t"
	" WHERE EXISTS (SELECT FROM pg_catalog.pg_class k WHERE k.oid = m.source::oid) ORDER BY m.name";

static const char fields_query[] =
	"SELECT 'mapping ' || mapping || ': fields', CASE WHEN pg_catalog.count(*) FILTER"
	" (WHERE status IN ('quarantined', 'incompatible', 'read_only') AND rule = 'explicit' OR status = 'quarantined') > 0"
	" THEN 'warning' ELSE 'ok' END,"
	" pg_catalog.string_agg(n || ' ' || status || CASE WHEN status IN ('mapped', 'unmatched') THEN ''"
	" ELSE ' (' || columns || ')' END, ', ' ORDER BY status),"
	" CASE WHEN pg_catalog.count(*) FILTER"
	" (WHERE status IN ('quarantined', 'incompatible', 'read_only') AND rule = 'explicit' OR status = 'quarantined') > 0"
	" THEN 'sfsync.field_map has the reasons.' END"
	" FROM (SELECT mapping, status, pg_catalog.max(rule) AS rule, pg_catalog.count(*) AS n,"
	" pg_catalog.string_agg(column_name, ', ') AS columns FROM sfsync.resolved_fields() GROUP BY mapping, status) f"
	" GROUP BY mapping ORDER BY mapping";

/* Metadata are asked for when there is something to do, so old ones alone say nothing. */
static const char metadata_query[] =
	"SELECT 'mapping ' || m.name || ': metadata', CASE WHEN o.fetched_at IS NULL OR s.late THEN 'warning' ELSE 'ok' END,"
	" CASE WHEN o.fetched_at IS NULL THEN 'of object ' || m.object || ' not fetched yet'"
	" ELSE 'fetched at ' || pg_catalog.date_trunc('second', o.fetched_at) END,"
	" CASE WHEN o.fetched_at IS NULL THEN 'The worker fetches them once it can log in and the mapping is not paused.'"
	" WHEN s.late THEN 'There is work to do, and newer metadata did not come: see the server''s state.' END"
	" FROM sfsync.mapping m LEFT JOIN sfsync.object o ON o.server = m.server AND o.object = m.object"
	" CROSS JOIN LATERAL (SELECT coalesce(o.fetched_at < pg_catalog.clock_timestamp()"
	" - 4 * pg_catalog.current_setting('sfsync.schema_ttl')::interval, false)"
	" AND EXISTS (SELECT FROM sfsync.queue q WHERE q.mapping = m.id"
	" AND q.event_at < pg_catalog.clock_timestamp() - interval '5 minutes') AS late) s ORDER BY m.name";

static const char intents_query[] =
	"SELECT 'requests of unknown outcome', CASE WHEN pg_catalog.min(sent_at) < pg_catalog.clock_timestamp()"
	" - interval '30 minutes' THEN 'warning' ELSE 'ok' END, pg_catalog.count(*)::text,"
	" CASE WHEN pg_catalog.min(sent_at) < pg_catalog.clock_timestamp() - interval '30 minutes'"
	" THEN 'Their records are sent again ten minutes after the request; that did not happen: see the server''s state.' END"
	" FROM sfsync.intent WHERE state <> 'in_flight'";

/* What keeps dead rows of the queue from being vacuumed. */
static const char horizon_query[] =
	"SELECT 'vacuum', CASE WHEN pg_catalog.count(*) > 0 THEN 'warning' ELSE 'ok' END,"
	" coalesce(pg_catalog.string_agg(what, '; ' ORDER BY since), 'nothing holds it back for long'),"
	" CASE WHEN pg_catalog.count(*) > 0 THEN 'Dead rows of sfsync.queue can''t be removed meanwhile, and the disk"
	" fills: end what the detail names.' END FROM (SELECT 'process ' || pid || ' has a transaction open since '"
	" || pg_catalog.date_trunc('second', xact_start) AS what, xact_start AS since FROM pg_catalog.pg_stat_activity"
	" WHERE datname = pg_catalog.current_database() AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)"
	" AND xact_start < pg_catalog.clock_timestamp() - interval '1 hour'"
	" UNION ALL SELECT 'prepared transaction ' || pg_catalog.quote_literal(gid) || ' waits since '"
	" || pg_catalog.date_trunc('second', prepared), prepared FROM pg_catalog.pg_prepared_xacts"
	" WHERE database = pg_catalog.current_database() AND prepared < pg_catalog.clock_timestamp() - interval '15 minutes'"
	" UNION ALL SELECT 'replication slot ' || slot_name || ' is not in use and holds xmin back', NULL"
	" FROM pg_catalog.pg_replication_slots WHERE NOT active AND xmin IS NOT NULL) h";

static const char bloat_query[] =
	"SELECT 'queue table', CASE WHEN b.bloated THEN 'warning' ELSE 'ok' END,"
	" pg_catalog.pg_size_pretty(b.size) || ', ' || b.live || ' live and ' || b.dead || ' dead rows',"
	" CASE WHEN b.bloated THEN 'Vacuum does not keep up: see the check vacuum, and whether autovacuum is on.' END"
	" FROM (SELECT c.*, c.dead > 200000 AND c.dead > 4 * c.live AS bloated FROM (SELECT"
	" pg_catalog.pg_total_relation_size('sfsync.queue') AS size,"
	" coalesce(pg_catalog.pg_stat_get_live_tuples('sfsync.queue'::regclass), 0) AS live,"
	" coalesce(pg_catalog.pg_stat_get_dead_tuples('sfsync.queue'::regclass), 0) AS dead) c) b";

/* Processes of the server itself don't count against the limit. */
static const char slots_query[] =
	"SELECT 'max_worker_processes', CASE WHEN w.used >= w.allowed THEN 'warning' ELSE 'ok' END,"
	" w.used || ' of ' || w.allowed || ' in use', CASE WHEN w.used >= w.allowed THEN 'A worker that ends could not be"
	" started again: raise max_worker_processes and restart the server.' END"
	" FROM (SELECT pg_catalog.current_setting('max_worker_processes')::integer AS allowed, pg_catalog.count(*) AS used"
	" FROM pg_catalog.pg_stat_activity WHERE backend_type NOT IN ('client backend', 'autovacuum launcher',"
	" 'autovacuum worker', 'background writer', 'checkpointer', 'walwriter', 'walsender', 'walreceiver', 'walsummarizer',"
	" 'startup', 'archiver', 'io worker', 'slotsync worker', 'logger', 'standalone backend')) w";

static const char *const checks[] = {
	environment_query, servers_query,      calls_query,     clock_query,    mappings_query, lag_query,
	held_query,        dead_letters_query, conflicts_query, triggers_query, fields_query,   metadata_query,
	intents_query,     horizon_query,      bloat_query,     slots_query,
};

PG_FUNCTION_INFO_V1(sfsync_health);

Datum
sfsync_health(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	SqlScope scope;

	InitMaterializedSRF(fcinfo, 0);
	check_library(result);
	check_processes(result);
	check_settings(result);
	sql_open_latest(&scope);
	for (int c = 0; c < lengthof(checks); c++)
	{
		uint64 n = SQL_RUN0(&scope, checks[c]);

		for (uint64 i = 0; i < n; i++)
			put(result, sql_text(&scope, i, 1), sql_text(&scope, i, 2), sql_text(&scope, i, 3),
				sql_text(&scope, i, 4));
	}
	sql_close(&scope);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(sfsync_error_hint);

Datum
sfsync_error_hint(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(error_hint(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}
