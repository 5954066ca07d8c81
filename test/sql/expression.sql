--
-- Expressions and filters: what is accepted, what is said when something isn't,
-- and what they see.  No Salesforce is there; its metadata are put into the
-- cache by hand.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION sfsync;
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', client_secret 'hidden');
CREATE ROLE regress_sfsync_owner;
GRANT USAGE ON FOREIGN SERVER crm TO regress_sfsync_owner;
GRANT CREATE ON SCHEMA public TO regress_sfsync_owner;

CREATE FUNCTION try(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	state text; message text; detail text; hint text; result text;
BEGIN
	BEGIN
		EXECUTE statement INTO result;
		RETURN NEXT 'accepted: ' || coalesce(result, 'null');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RETURN NEXT state || ': ' || message;
		IF detail <> '' THEN RETURN NEXT '  detail: ' || detail; END IF;
		-- PostgreSQL 18 spells it differently
		IF hint <> '' THEN RETURN NEXT '  hint: ' || replace(hint, '"DateStyle"', '"datestyle"'); END IF;
	END;
END $$;
-- the statement on which the position that is told counts
CREATE FUNCTION try_map(expression text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	RETURN NEXT expression;
	RETURN QUERY SELECT '  ' || t FROM try(format('SELECT sfsync.map_field(''item'', ''Phone'', expression => %L)', expression)) t;
END $$;

SET ROLE regress_sfsync_owner;
CREATE SEQUENCE counter;
CREATE TYPE address AS (street text, city text);
CREATE TABLE item (id integer PRIMARY KEY, name text NOT NULL, price numeric, gone text, secret text, home address, "Odd ""Name" integer,
	created timestamptz DEFAULT '2026-01-01 12:00+00', twice numeric GENERATED ALWAYS AS (price * 2) STORED);
ALTER TABLE item DROP COLUMN gone;
CREATE FUNCTION doubled(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION volatile_one() RETURNS integer LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION with_default(numeric, double precision DEFAULT random()) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2::numeric';
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql STABLE AS '';
INSERT INTO item (id, name, price, secret, home, "Odd ""Name") VALUES (1, 'One', 10, 's', ROW('Street', 'City'), 7), (2, 'Two', 0, NULL, NULL, NULL), (3, 'Three', NULL, NULL, NULL, NULL);
RESET ROLE;
CREATE FUNCTION forbidden(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1';
REVOKE ALL ON FUNCTION forbidden(numeric) FROM PUBLIC;

\pset format unaligned
\pset tuples_only on

SELECT sfsync.create_mapping('item', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
SELECT owner FROM sfsync.mapping;

-- one of the two
SELECT try(format('SELECT sfsync.map_field(''item'', %s)', arguments)) FROM unnest(ARRAY['''Phone''', '''Phone'', ''name'', ''upper(name)''',
	'''Phone'', expression => ''upper(name)'', null_rule => ''clean''', '''Phone'', expression => ''upper(name)'', overlong => ''cut''',
	'''Phone'', expression => ''upper(name)'', conflict_policy => ''never''', '''PG_Key__c'', expression => ''upper(name)''']) AS arguments;

-- what is no expression of the row
SELECT try_map(e) FROM unnest(ARRAY['', ' ', 'price *', 'price)', 'price), (price', 'price, name', 'price; DROP TABLE item', 'price AS p', 'price FROM item', 'DISTINCT price', '*', 'item.*', 'item', 'item::text',
	'row_to_json(item)', 'ctid', 'tableoid', 'price ORDER BY 1', 'price LIMIT 1', 'price WHERE true', 'price FOR UPDATE', 'prise * 2', 'other.price', 'gone', '$1', 'price -- a comment', 'price /* open',
	'DEFAULT', 'price UNION SELECT 1']) e;
-- what must not be used
SELECT try_map(e) FROM unnest(ARRAY['sum(price)', 'count(*)', 'row_number() OVER ()', '(SELECT max(price) FROM item)', 'EXISTS (SELECT FROM item)', 'ARRAY(SELECT 1)', 'price IN (SELECT 1)',
	'generate_series(1, 3)', 'unnest(ARRAY[1, 2])', 'random()', 'nextval(''public.counter'')', 'clock_timestamp()', 'set_config(''role'', ''postgres'', false)', 'pg_notify(''a'', ''b'')', 'GROUPING(price)',
	'public.volatile_one()', 'public.with_default(price)', 'public.nothing()', 'public.forbidden(price)', 'doubled(price)', 'name::adress', 'name + 1', 'nosuch(name)', 'CURRENT_CATALOG || 1 / 0', '1 / 0', 'length(''a'', 1)',
	'name OPERATOR(public.**) name']) e;
SELECT count(*) FROM sfsync.rule;

-- what may be
SELECT try_map(e) FROM unnest(ARRAY['price * 1.2', ' upper ( name ) ', 'item.price', 'public.item.price', '"Odd ""Name" + 1', 'twice', '(home).city', 'now()', '''text''', 'NULL', 'CASE WHEN price > 0 THEN 1 / price END',
	'public.doubled(price)', 'public.with_default(price, 1)', 'name LIKE ''O%''', 'created AT TIME ZONE ''Europe/Vienna''', 'ARRAY[name, secret]', 'E''a\\b''', 'name = NULL', 'current_user', 'item.home', 'ROW(id, name)', 'date ''2026-01-02''']) e;
SELECT field, column_name, expression, expression_columns FROM sfsync.rule;
SELECT mapping, column_name, column_type, field, rule, status, detail FROM sfsync.field_map WHERE rule = 'expression';

-- settings of the session change nothing
SET DateStyle = 'SQL, DMY';
-- of which PostgreSQL 19 has no more
SELECT current_setting('server_version_num')::integer < 190000 AS old \gset
\if :old
SET standard_conforming_strings = off;
SET escape_string_warning = off;
\endif
SET transform_null_equals = on;
SET quote_all_identifiers = on;
SELECT try_map(e) FROM unnest(ARRAY[E'name || ''a\\\\b''', '''1/2/2026''::date', 'name = NULL']) e;
SELECT expression FROM sfsync.rule;
RESET ALL;
SET client_min_messages = warning;

-- names that are not the server's own are not found by the search_path, whatever it is
CREATE FUNCTION public.upper(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'hijacked'$$;
CREATE FUNCTION public.hijack(numeric, integer) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT -1.0';
CREATE OPERATOR public.* (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = public.hijack);
SET search_path = public, pg_catalog;
SELECT 2.0 * 3, upper('a');

-- with metadata
INSERT INTO sfsync.object (server, object, describe, fetched_at)
SELECT 'crm', 'Account', jsonb_build_object('name', 'Account', 'label', 'Account', 'createable', true, 'updateable', true, 'deletable', true, 'queryable', true,
	'fields', jsonb_agg(jsonb_build_object('name', name, 'label', name, 'type', type, 'length', length, 'digits', 0, 'precision', CASE type WHEN 'currency' THEN 18 ELSE 0 END, 'scale', CASE type WHEN 'currency' THEN 2 ELSE 0 END,
		'createable', writable, 'updateable', writable, 'nillable', name <> 'Name', 'defaultedOnCreate', false, 'calculated', name = 'Formula__c', 'custom', name LIKE '%\_\_c',
		'externalId', name = 'PG_Key__c', 'idLookup', name IN ('Id', 'PG_Key__c'), 'unique', name = 'PG_Key__c', 'caseSensitive', name = 'PG_Key__c',
		'restrictedPicklist', false, 'htmlFormatted', false, 'relationshipName', NULL, 'referenceTo', '[]'::jsonb, 'picklistValues', '[]'::jsonb))),
	clock_timestamp()
FROM (VALUES ('Id', 'id', 18, false), ('Name', 'string', 60, true), ('PG_Key__c', 'string', 255, true), ('Phone', 'phone', 10, true),
	('Price', 'currency', 0, true), ('Ratio__c', 'currency', 0, true), ('ns__Label__c', 'string', 5, true), ('Formula__c', 'string', 80, false), ('When__c', 'datetime', 0, true)) AS f (name, type, length, writable)
ON CONFLICT (server, object) DO UPDATE SET describe = excluded.describe, fetched_at = excluded.fetched_at;
SELECT sfsync.refresh_schema();
SELECT try(format('SELECT sfsync.map_field(''item'', %s)', arguments)) FROM unnest(ARRAY['''Pone'', expression => ''name''', '''formula__c'', expression => ''name''',
	'''phone'', expression => ''upper(name)''', '''Ratio__c'', expression => ''100 / price''', '''NS__label__C'', expression => ''name || ''''!!!''''''', '''When__c'', expression => ''name''',
	'''Name'', expression => ''name || ''''.''''''']) AS arguments;
SELECT column_name, column_type, field, field_type, rule, status, detail FROM sfsync.field_map ORDER BY column_name, field;
SELECT source_key, operation, payload, findings FROM (VALUES ('{"id": 1}'::jsonb), ('{"id": 2}'), ('{"id": 3}')) k (key), sfsync.preview('item', k.key);
SELECT severity, column_name, field, finding, hint FROM sfsync.check_mapping('item') WHERE severity <> 'info' OR finding LIKE '%expression%';

-- a rule replaces the other of the same field, whichever way it is fed
SELECT sfsync.map_field('item', 'RATIO__C', 'price');
SELECT field, column_name, expression FROM sfsync.rule WHERE lower(field) = 'ratio__c';
SELECT sfsync.map_field('item', 'ratio__c', expression => 'CASE WHEN price <> 0 THEN 100 / price END', overlong => 'truncate', null_rule => 'keep');
SELECT field, column_name, expression, null_rule, overlong FROM sfsync.rule WHERE lower(field) = 'ratio__c';
SELECT sfsync.map_field('item', 'ns__Label__c', expression => 'name || ''!!!''', overlong => 'truncate');
SELECT source_key, operation, payload, findings FROM (VALUES ('{"id": 1}'::jsonb), ('{"id": 2}'), ('{"id": 3}')) k (key), sfsync.preview('item', k.key);

SELECT sfsync.unmap_field('item', 'When__c');

-- a change of what an expression uses is a change of the field, and of nothing else
CREATE VIEW changes AS SELECT source_key, operation, payload - 'attributes' AS payload, findings FROM sfsync.preview();
INSERT INTO sfsync.record (mapping, record_key, key, salesforce_id) SELECT m.id, i.id::text, i.id::text, '001000000000' || lpad(i.id::text, 3, '0') || 'AAA' FROM sfsync.mapping m, item i WHERE m.name = 'item';
BEGIN; UPDATE item SET price = 20 WHERE id = 1; SELECT * FROM changes; ROLLBACK;
BEGIN; UPDATE item SET name = 'Uno' WHERE id = 1; SELECT * FROM changes; ROLLBACK;
BEGIN; UPDATE item SET secret = 'x' WHERE id = 1; SELECT * FROM changes; ROLLBACK;

-- columns that are excluded, and expressions
SELECT try($$SELECT sfsync.exclude_column('item', 'price')$$);
SELECT sfsync.exclude_column('item', 'secret');
SELECT try($$SELECT sfsync.map_field('item', 'Phone', expression => 'upper(secret)')$$);
SELECT sfsync.reset_column('item', 'secret');
SELECT sfsync.map_field('item', 'Phone', expression => 'left(secret || name, 3)');

-- renames are followed, also where names change places; the table's own, too
ALTER TABLE item RENAME COLUMN secret TO "New ""Name";
SELECT field, expression, expression_columns FROM sfsync.rule WHERE field = 'Phone';
ALTER TABLE item RENAME COLUMN "New ""Name" TO tmp;
ALTER TABLE item RENAME COLUMN name TO secret;
ALTER TABLE item RENAME COLUMN tmp TO name;
SELECT field, expression, expression_columns FROM sfsync.rule WHERE field = 'Phone';
SELECT payload -> 'Phone' AS phone FROM sfsync.preview('item', '{"id": 1}');
ALTER TABLE item RENAME COLUMN name TO tmp;
ALTER TABLE item RENAME COLUMN secret TO name;
ALTER TABLE item RENAME COLUMN tmp TO secret;
ALTER TABLE item RENAME TO article;
SELECT payload -> 'Phone' AS phone FROM sfsync.preview('item', '{"id": 1}');
ALTER TABLE article RENAME TO item;

-- types that change, columns and functions that go and come back: the field is quarantined, others are not
SELECT sfsync.map_field('item', 'Phone', expression => 'id + 1');
ALTER TABLE item DROP COLUMN twice;
ALTER TABLE item ALTER COLUMN id TYPE bigint;
SELECT field, column_type, status FROM sfsync.field_map WHERE rule = 'expression' ORDER BY field;
SELECT sfsync.map_field('item', 'Phone', expression => 'public.doubled(price)');
DROP FUNCTION doubled(numeric);
SELECT field, column_type, status, detail FROM sfsync.field_map WHERE field = 'Phone';
SELECT payload FROM sfsync.preview('item', '{"id": 1}');
SELECT severity, column_name, field, finding FROM sfsync.check_mapping('item') WHERE field = 'Phone';
CREATE FUNCTION doubled(numeric) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'again'$$;
SELECT field, column_type, status, detail FROM sfsync.field_map WHERE field = 'Phone';
ALTER FUNCTION doubled(numeric) VOLATILE;
SELECT field, status, detail FROM sfsync.field_map WHERE field = 'Phone';
ALTER FUNCTION doubled(numeric) STABLE;
SELECT field, status, detail FROM sfsync.field_map WHERE field = 'Phone';
SELECT sfsync.map_field('item', 'Phone', expression => 'secret');
ALTER TABLE item DROP COLUMN secret;
SELECT field, status, detail FROM sfsync.field_map WHERE field = 'Phone';
SELECT payload FROM sfsync.preview('item', '{"id": 1}');
SELECT sfsync.unmap_field('item', 'Phone');

-- filters
SELECT try(format('SELECT sfsync.alter_mapping(''item'', filter => %L)', f)) FROM unnest(ARRAY['price', 'price >', 'prise > 1', 'random() > 0.5', 'price > (SELECT 1)', 'generate_series(1, 2) = 1', 'sum(price) > 1', 'item IS NOT NULL', '1 / 0 = 1']) f;
SELECT try(format('SELECT sfsync.backfill(''item'', %L)', f)) FROM unnest(ARRAY['price', 'random() > 0.5', '100 / price > 1', 'nobody']) f;
SELECT filter IS NULL FROM sfsync.mapping;
SELECT count(*) FROM sfsync.backfill_job WHERE filter IS NOT NULL;
SELECT sfsync.alter_mapping('item', filter => 'price > 5 AND NOT name LIKE ''x%''');
SELECT filter, filter_columns FROM sfsync.mapping;
SELECT count(*), max(rows_total) FROM sfsync.backfill_job WHERE octet_length(changed) = 201;
SELECT sfsync.alter_mapping('item', filter => '((price > 5) AND NOT (name LIKE ''x%''))');
SELECT count(*) FROM sfsync.backfill_job WHERE octet_length(changed) = 201;
SELECT sfsync.backfill('item', 'price > 5') > 0;
SELECT rows_total, filter FROM sfsync.backfill_job WHERE filter IS NOT NULL;
SELECT source_key, operation, payload IS NULL AS nothing, findings FROM (VALUES ('{"id": 1}'::jsonb), ('{"id": 2}'), ('{"id": 3}')) k (key), sfsync.preview('item', k.key);
BEGIN; UPDATE item SET price = 1 WHERE id = 1; UPDATE item SET price = 8 WHERE id = 3; SELECT * FROM changes; ROLLBACK;
ALTER TABLE item RENAME COLUMN name TO title;
SELECT filter, filter_columns FROM sfsync.mapping;
ALTER TABLE item RENAME COLUMN title TO name;

-- a column that is never sent is captured where the filter uses it
ALTER TABLE item ADD COLUMN hidden integer DEFAULT 1;
SELECT sfsync.exclude_column('item', 'hidden');
BEGIN; UPDATE item SET hidden = 2 WHERE id = 1; SELECT count(*) FROM sfsync.preview(); ROLLBACK;
SELECT sfsync.alter_mapping('item', filter => 'hidden = 1 AND 10 / price > 0');
BEGIN; UPDATE item SET hidden = 2 WHERE id = 1; SELECT * FROM changes; ROLLBACK;
SELECT source_key, operation, findings FROM (VALUES ('{"id": 1}'::jsonb), ('{"id": 2}'), ('{"id": 3}')) k (key), sfsync.preview('item', k.key);
SELECT severity, column_name, field, finding FROM sfsync.check_mapping('item') WHERE finding LIKE 'filter%';
ALTER TABLE item DROP COLUMN hidden;
SELECT try($$SELECT sfsync.preview('item', '{"id": 1}')$$);
SELECT sfsync.alter_mapping('item', filter => '');
SELECT filter IS NULL, filter_columns FROM sfsync.mapping;
SELECT try($$SELECT sfsync.create_mapping('item', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', name => 'other', filter => 'price')$$);
SELECT sfsync.create_mapping('item', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', name => 'other', filter => 'price > 1', backfill => false);
SELECT filter, filter_columns FROM sfsync.mapping WHERE name = 'other';

-- escalation: everything runs as the owner, and can't become anybody else, nor write
CREATE TABLE loot (what text);
GRANT ALL ON loot TO regress_sfsync_owner;
SET ROLE regress_sfsync_owner;
CREATE FUNCTION who() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN current_user || ' ' || current_setting('search_path') || ' ' || current_setting('TimeZone'); END$$;
CREATE FUNCTION climb() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM set_config('role', session_user, false); RETURN current_user; END$$;
CREATE FUNCTION climb_inner() RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$BEGIN EXECUTE 'SET ROLE ' || quote_ident(session_user); RETURN current_user; END$$;
CREATE FUNCTION climb_definer() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$BEGIN RETURN public.climb_inner(); END$$;
CREATE FUNCTION reset_inner() RETURNS text LANGUAGE plpgsql VOLATILE AS $$BEGIN RESET SESSION AUTHORIZATION; RETURN current_user; END$$;
CREATE FUNCTION reset_session() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN public.reset_inner(); END$$;
CREATE FUNCTION steal() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN (SELECT rolname FROM pg_authid LIMIT 1); END$$;
CREATE FUNCTION write_inner() RETURNS void LANGUAGE sql VOLATILE AS $$INSERT INTO public.loot VALUES ('written')$$;
CREATE FUNCTION write_loot() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM public.write_inner(); RETURN 'written'; END$$;
CREATE FUNCTION make_temp_inner() RETURNS void LANGUAGE plpgsql VOLATILE AS $$BEGIN CREATE TEMP TABLE trap (x int); END$$;
CREATE FUNCTION make_temp() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM public.make_temp_inner(); RETURN 'made'; END$$;
CREATE FUNCTION listen_inner() RETURNS void LANGUAGE plpgsql VOLATILE AS $$BEGIN LISTEN sfsync_dead_letter; END$$;
CREATE FUNCTION listening() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM public.listen_inner(); RETURN 'listening'; END$$;
CREATE FUNCTION fine() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN current_user; END$$;
CREATE DOMAIN checked AS text CHECK (length(public.climb()) > 0);
RESET ROLE;
SELECT sfsync.map_field('item', 'Name', expression => 'public.who()');
SELECT payload -> 'Name' AS name FROM sfsync.preview('item', '{"id": 1}');
CREATE FUNCTION try_escape(expression text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM sfsync.map_field('item', 'Name', expression => expression);
	RETURN expression || ': ' || (SELECT coalesce(payload ->> 'Name', 'no value') || ' ' || findings::text FROM sfsync.preview('item', '{"id": 1}'));
END $$;
SELECT try_escape(e) FROM unnest(ARRAY['public.climb()', 'public.climb_definer()', 'public.reset_session()', 'public.steal()', 'public.write_loot()', 'public.make_temp()', 'public.listening()',
	'name::public.checked', '''x''::public.checked', 'public.fine()']) e;
SELECT count(*) FROM loot;
SELECT current_user = session_user AS still_me;

-- what users may see and what travels
SELECT column_name, is_nullable FROM information_schema.columns WHERE table_schema = 'sfsync' AND table_name = 'rule' AND column_name LIKE 'expression%' ORDER BY column_name;
DROP EXTENSION sfsync CASCADE;
DROP OWNED BY regress_sfsync_owner;
DROP ROLE regress_sfsync_owner;
DROP TABLE loot;
DROP FUNCTION try, try_map, try_escape, forbidden, public.upper(text);
DROP FUNCTION hijack CASCADE;
