--
-- All objects of the extension, and who may use them: nothing is public by
-- accident.
--
SET client_min_messages = warning;
CREATE EXTENSION sfsync;
SELECT pg_describe_object(classid, objid, objsubid) AS object
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'sfsync') AND deptype = 'e'
	AND classid <> 'pg_type'::regclass -- row types are members from PostgreSQL 17 on
ORDER BY pg_describe_object(classid, objid, objsubid) COLLATE "C";

-- columns of what users read
SELECT c.relname AS relation, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'sfsync'::regnamespace AND c.relname IN ('status', 'server_status', 'field_map', 'dead_letter', 'conflict', 'backfill_progress')
GROUP BY c.relname ORDER BY c.relname COLLATE "C";

-- functions: signature, result, language, security
SELECT p.proname || '(' || pg_get_function_arguments(p.oid) || ')' AS function, pg_get_function_result(p.oid) AS result,
	l.lanname AS language, p.prosecdef AS definer, p.provolatile AS volatility, p.proparallel AS parallel
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'sfsync'::regnamespace
ORDER BY p.proname, p.oid::regprocedure::text COLLATE "C";

-- grants to others than the owner; functions without an ACL would be public
SELECT object, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee, a.privilege_type AS privilege
FROM (SELECT 'schema ' || nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace WHERE nspname = 'sfsync'
	UNION ALL
	SELECT CASE relkind WHEN 'v' THEN 'view ' WHEN 'S' THEN 'sequence ' ELSE 'table ' END || relname, relowner,
		coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner))
	FROM pg_class WHERE relnamespace = 'sfsync'::regnamespace AND relkind IN ('r', 'v', 'S')
	UNION ALL
	SELECT 'function ' || proname, proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc WHERE pronamespace = 'sfsync'::regnamespace
	UNION ALL
	SELECT 'wrapper ' || fdwname, fdwowner, coalesce(fdwacl, acldefault('F', fdwowner)) FROM pg_foreign_data_wrapper WHERE fdwname = 'sfsync'
	) AS o (object, owner, acl), aclexplode(acl) AS a
WHERE a.grantee <> o.owner
ORDER BY o.object COLLATE "C", a.grantee, a.privilege_type;

-- tables whose rows a dump keeps, sequences too
SELECT c.relname FROM pg_extension e, unnest(e.extconfig) WITH ORDINALITY AS t (oid, n) JOIN pg_class c ON c.oid = t.oid
WHERE e.extname = 'sfsync' ORDER BY c.relname COLLATE "C";
SELECT c.relname AS not_dumped FROM pg_class c
WHERE c.relnamespace = 'sfsync'::regnamespace AND c.relkind IN ('r', 'S')
	AND c.oid <> ALL (SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'sfsync')
ORDER BY c.relname COLLATE "C";

-- settings
SELECT name, setting, unit, context FROM pg_settings WHERE name LIKE 'sfsync.%' AND name NOT IN ('sfsync.retry_base_delay', 'sfsync.retry_max_delay') ORDER BY name COLLATE "C";
SET sfsync.nonsense = 1;

-- nothing is left behind
DROP EXTENSION sfsync;
SELECT count(*) FROM pg_namespace WHERE nspname = 'sfsync';
SELECT count(*) FROM pg_event_trigger;
