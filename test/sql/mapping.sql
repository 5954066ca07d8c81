--
-- Mappings: what is accepted, and what is said when something isn't.  No
-- Salesforce is there; where metadata matter a little of it is put into the
-- cache by hand.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION sfsync;
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', client_secret 'hidden');

-- SQLSTATE and all that is said; nothing of a refused statement stays
CREATE FUNCTION try(statement text, keep boolean DEFAULT true) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	state text; message text; detail text; hint text; result text;
BEGIN
	BEGIN
		EXECUTE statement INTO result;
		IF NOT keep THEN RAISE EXCEPTION 'accepted: %', result; END IF;
		RETURN NEXT 'accepted: ' || coalesce(result, 'null');
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
		RETURN NEXT state || ': ' || message;
		IF detail <> '' THEN RETURN NEXT '  detail: ' || detail; END IF;
		IF hint <> '' THEN RETURN NEXT '  hint: ' || hint; END IF;
	END;
END $$;

CREATE TABLE customer (id integer PRIMARY KEY, name text NOT NULL, code text NOT NULL UNIQUE, nick text UNIQUE, part text NOT NULL,
	lazy text NOT NULL UNIQUE DEFERRABLE, created timestamptz, phone text, note text, generated text GENERATED ALWAYS AS (name || '!') STORED);
CREATE UNIQUE INDEX ON customer (part) WHERE part <> '';
CREATE TABLE keyless (id integer);
CREATE TABLE "Odd ""Name" ("Key" integer PRIMARY KEY, "Name" text);
CREATE VIEW customer_view AS SELECT * FROM customer;
CREATE MATERIALIZED VIEW customer_stored AS SELECT * FROM customer;
CREATE TEMPORARY TABLE customer_temp (id integer PRIMARY KEY);
CREATE UNLOGGED TABLE customer_unlogged (id integer PRIMARY KEY);
CREATE FOREIGN TABLE customer_foreign (id integer) SERVER crm;
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child () INHERITS (parent);
CREATE SEQUENCE counter;
CREATE TABLE parted (id integer PRIMARY KEY, name text) PARTITION BY HASH (id);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);

\pset format unaligned
\pset tuples_only on

-- create_mapping: sources
SELECT try($$SELECT sfsync.create_mapping('nowhere', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')$$);
SELECT try(format($$SELECT sfsync.create_mapping(%L, 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')$$, source), false)
FROM unnest(ARRAY['keyless', 'customer_view', 'customer_stored', 'customer_temp', 'customer_unlogged', 'customer_foreign', 'parent',
	'counter', 'customer_pkey', 'pg_class', 'sfsync.queue']) AS source;
SELECT try($$SELECT sfsync.create_mapping(NULL, 'Account', 'PG_Key__c', 'delete')$$);
SELECT try($$SELECT sfsync.create_mapping(999999999, 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')$$);

-- create_mapping: keys
SELECT try(format($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', key_columns => %L)$$, keys), false)
FROM unnest(ARRAY['{nick}', '{name}', '{part}', '{lazy}', '{cod}', '{nothing_like_it}', '{}', '{NULL}', '{code,code}', '{id,code}', '{ctid}']) AS keys;

-- create_mapping: the other arguments
SELECT try(format($$SELECT sfsync.create_mapping('customer', %L, %L, %L, conflict_policy => %L, new_columns => %L)$$, a[1], a[2], a[3], a[4], a[5]), false)
FROM (VALUES
	(ARRAY['', 'PG_Key__c', 'delete', 'source_wins', 'auto']),
	(ARRAY['Account; DROP', 'PG_Key__c', 'delete', 'source_wins', 'auto']),
	(ARRAY['Account', 'PG Key', 'delete', 'source_wins', 'auto']),
	(ARRAY[NULL, 'PG_Key__c', 'delete', 'source_wins', 'auto']),
	(ARRAY['Account', NULL, 'delete', 'source_wins', 'auto']),
	(ARRAY['Account', 'PG_Key__c', NULL, 'source_wins', 'auto']),
	(ARRAY['Account', 'PG_Key__c', 'remove', 'source_wins', 'auto']),
	(ARRAY['Account', 'PG_Key__c', 'delet', 'source_wins', 'auto']),
	(ARRAY['Account', 'PG_Key__c', 'Delete', 'source_wins', 'auto']),
	(ARRAY['Account', 'PG_Key__c', 'delete', 'source_win', 'auto']),
	(ARRAY['Account', 'PG_Key__c', 'delete', 'source_wins', 'automatic'])) AS arguments (a);
SELECT try($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', name => '')$$);
SELECT try($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', server => 'crn')$$);
SELECT try($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', updated_at_column => 'creatd')$$);
SELECT try($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', updated_at_column => 'name')$$);
SELECT try($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', delete_values => '{"Archived__c": true}')$$);

-- nothing of all that stays
SELECT count(*) FROM sfsync.mapping;
SELECT count(*) FROM sfsync.backfill_job;
SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%sfsync%';

-- servers to choose from
CREATE SERVER other FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1');
SELECT try($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')$$);
DROP SERVER other;

-- accepted
SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', updated_at_column => 'created');
SELECT sfsync.create_mapping('customer', 'Contact', 'PG_Key__c', 'ignore', conflict_policy => 'source_wins', server => 'crm', name => 'people', key_columns => '{code}', new_columns => 'ignore', backfill => false);
SELECT sfsync.create_mapping('"Odd ""Name"', 'Lead', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
SELECT sfsync.create_mapping('parted', 'Invoice__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
SELECT name, source, server, object, external_id, key_columns, on_delete, conflict_policy, new_columns, updated_at_column FROM sfsync.mapping ORDER BY id;
SELECT mapping, rows_total FROM sfsync.backfill_progress ORDER BY id;
SELECT tgrelid::regclass, tgname, tgenabled, tgtype FROM pg_trigger WHERE tgname LIKE '%sfsync%' ORDER BY tgrelid::regclass::text COLLATE "C", tgname;
SELECT mapping, source, object, server, pending, in_flight, held, synced, unchanged, ignored, conflicts, dead_letters, last_synced_at FROM sfsync.status ORDER BY mapping COLLATE "C";

-- twice
SELECT try($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')$$);
SELECT try($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', name => 'again')$$);
SELECT try($$SELECT sfsync.create_mapping('parted_0', 'Invoice__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', name => 'parted')$$);

-- mappings by name
SELECT try(format('SELECT sfsync.%s', call)) FROM unnest(ARRAY['alter_mapping(''custumer'')', 'drop_mapping(''nothing like it'')', 'drop_mapping(NULL)',
	'set_delete_policy(''custumer'', ''ignore'')', 'map_field(''custumer'', ''Phone'', ''phone'')', 'unmap_field(''custumer'', ''Phone'')',
	'exclude_column(''custumer'', ''note'')', 'reset_column(''custumer'', ''note'')', 'pause(''custumer'')', 'resume(''custumer'')', 'backfill(''custumer'')',
	'preview(''custumer'', ''{"id": 1}'')', 'check_mapping(''custumer'')', 'wait_for_sync(''0 s'', ''custumer'')', 'cancel_backfill(999999)', 'retry(999999)', 'discard(999999, ''why'')',
	'discard(999999, '' '')', 'discard(NULL, ''why'')', 'refresh_schema(''crn'')', 'refresh_schema(''crm'', ''Nothing'')', 'refresh_schema()', 'adopt(''crn'')', 'adopt(''crm'')', 'fence(''crm'')']) AS call;

-- alter_mapping, set_delete_policy
SELECT try(format('SELECT sfsync.alter_mapping(''customer'', %s)', arguments)) FROM unnest(ARRAY['conflict_policy => ''newest_win''',
	'new_columns => ''none''', 'filter => ''id''', 'filter => ''''', 'updated_at_column => ''phone''', 'updated_at_column => ''creatd''',
	'timestamp_zone => ''Mars/Olympus''', 'timestamp_zone => ''''', 'capture_replicated => true', 'capture_replicated => false',
	'timestamp_zone => ''Europe/Vienna'', new_columns => ''ignore''', 'updated_at_column => ''''']) AS arguments;
SELECT conflict_policy, new_columns, updated_at_column, timestamp_zone FROM sfsync.mapping WHERE name = 'customer';
SELECT sfsync.alter_mapping('customer', updated_at_column => 'created', new_columns => 'auto');
SELECT conflict_policy, new_columns, updated_at_column, timestamp_zone FROM sfsync.mapping WHERE name = 'customer';
SELECT try(format('SELECT sfsync.set_delete_policy(''customer'', %s)', arguments)) FROM unnest(ARRAY['''ignored''', '''archive''', '''hard_delete''', 'NULL, on_truncate => ''apply''',
	'NULL, on_truncate => ''allow''', 'NULL, on_truncate => ''refuse''', 'NULL, delete_guard => 5', '''ignore'', delete_values => ''{}''', 'NULL', '''ignore''']) AS arguments;
SELECT on_delete FROM sfsync.mapping WHERE name = 'customer';

-- rules, before metadata are cached
SELECT try(format('SELECT sfsync.map_field(''customer'', %s)', arguments)) FROM unnest(ARRAY['''Phone''', '''Phone'', ''phone'', ''upper(phone)''', '''Phone'', expression => ''upper(phone)''',
	'''Phone'', ''phonee''', '''Phone'', ''nothing like it''', 'NULL, ''phone''', '''Pho ne'', ''phone''', '''PG_Key__c'', ''phone''', '''Phone'', ''phone'', null_rule => ''clean''',
	'''Phone'', ''phone'', overlong => ''cut''', '''Phone'', ''phone'', conflict_policy => ''create_only''', '''Phone'', ''phone'', conflict_policy => ''never''', '''Phone'', ''phone''', '''Fax'', ''phone''',
	'''Phone'', ''note'', null_rule => ''keep'', overlong => ''truncate'', conflict_policy => ''fill_if_empty''']) AS arguments;
SELECT field, column_name, null_rule, overlong, conflict_policy FROM sfsync.rule ORDER BY field;
SELECT try(format('SELECT sfsync.unmap_field(''customer'', %L)', field)) FROM unnest(ARRAY['Site', 'fax']) AS field;
SELECT try(format('SELECT sfsync.exclude_column(''customer'', %L)', name)) FROM unnest(ARRAY['nonote', 'note', NULL]) AS name;
SELECT field, column_name FROM sfsync.rule ORDER BY field;
SELECT try(format('SELECT sfsync.reset_column(''customer'', %L)', name)) FROM unnest(ARRAY['nonote', 'note', NULL]) AS name;
SELECT count(*) FROM sfsync.rule;
SELECT try($$SELECT sfsync.preview('customer', '{"id": 1}')$$);
SELECT try($$SELECT sfsync.preview(NULL, '{"id": 1}')$$);
SELECT try($$SELECT sfsync.check_mapping('customer')$$);
SELECT DISTINCT status, detail FROM sfsync.field_map;

-- with metadata
INSERT INTO sfsync.object (server, object, describe, fetched_at)
SELECT 'crm', 'Account', jsonb_build_object('name', 'Account', 'label', 'Account', 'createable', true, 'updateable', true, 'deletable', true, 'queryable', true,
	'fields', jsonb_agg(jsonb_build_object('name', name, 'label', name, 'type', type, 'length', length, 'digits', 0, 'precision', 0, 'scale', 0,
		'createable', writable, 'updateable', writable, 'nillable', name <> 'Name', 'defaultedOnCreate', false, 'calculated', name = 'Generated', 'custom', name LIKE '%\_\_c',
		'externalId', name = 'PG_Key__c', 'idLookup', name IN ('Id', 'PG_Key__c'), 'unique', name = 'PG_Key__c', 'caseSensitive', name = 'PG_Key__c',
		'restrictedPicklist', false, 'htmlFormatted', false, 'relationshipName', NULL, 'referenceTo', '[]'::jsonb, 'picklistValues', '[]'::jsonb))),
	clock_timestamp()
FROM (VALUES ('Id', 'id', 18, false), ('Name', 'string', 20, true), ('PG_Key__c', 'string', 255, true), ('Phone', 'phone', 40, true),
	('Nick__c', 'string', 10, true), ('Generated', 'string', 80, false), ('CreatedDate', 'datetime', 0, false), ('Code', 'string', 10, true), ('Code__c', 'string', 10, true),
	('Part', 'string', 10, true), ('P_art', 'string', 10, true), ('Created__c', 'date', 0, true)) AS f (name, type, length, writable)
ON CONFLICT (server, object) DO UPDATE SET describe = excluded.describe, fetched_at = excluded.fetched_at;
INSERT INTO sfsync.object (server, object, describe, fetched_at) VALUES ('crm', 'Unknown__c', NULL, clock_timestamp());
SELECT sfsync.map_field('customer', 'phone', 'note');
SELECT column_name, column_type, field, field_type, rule, status, detail FROM sfsync.field_map WHERE mapping = 'customer' ORDER BY column_name COLLATE "C", field COLLATE "C";
SELECT try(format('SELECT sfsync.map_field(''customer'', %s)', arguments)) FROM unnest(ARRAY['''Phon'', ''phone''', '''Nothing_Like_It__c'', ''phone''', '''Generated'', ''note''', '''pg_key__c'', ''note''', '''Phone'', ''phone''']) AS arguments;
SELECT try($$SELECT sfsync.create_mapping('parted', 'account', 'PG_Ky__c', 'delete', conflict_policy => 'source_wins', name => 'p2')$$);
SELECT try($$SELECT sfsync.create_mapping('parted', 'account', 'name', 'delete', conflict_policy => 'source_wins', name => 'p2')$$);
SELECT try($$SELECT sfsync.create_mapping('parted', 'UNKNOWN__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', name => 'p2')$$);
SELECT try($$SELECT sfsync.create_mapping('parted', 'ACCOUNT', 'pg_key__C', 'delete', conflict_policy => 'source_wins', name => 'p2')$$);
SELECT object, external_id FROM sfsync.mapping WHERE name = 'p2';

-- preview
INSERT INTO customer (id, name, code, part, lazy, phone, created) VALUES (1, 'Ada', 'a', 'x', 'x', '+1', '2020-02-29 23:30:00+00'), (2, 'A name of more than twenty', 'b', 'y', 'y', NULL, NULL);
SELECT sfsync.reset_column('customer', 'note');
SELECT * FROM sfsync.preview('customer', '{"id": 1}');
SELECT * FROM sfsync.preview('customer', '{"id": "2"}');
SELECT * FROM sfsync.preview('customer', '{"id": 3}');
SELECT try(format('SELECT sfsync.preview(''customer'', %L)', key)) FROM unnest(ARRAY['1', '[1]', '{}', '{"ID": 1}', '{"id": null}', '{"id": "one"}', '{"id": {}}']) AS key;

BEGIN;
UPDATE customer SET phone = '+2' WHERE id = 1;
DELETE FROM customer WHERE id = 2;
SAVEPOINT s;
INSERT INTO customer (id, name, code, part, lazy) VALUES (4, 'Undone', 'd', 'd', 'd');
ROLLBACK TO s;
SELECT mapping, source_key, operation, payload FROM sfsync.preview('customer') ORDER BY mapping COLLATE "C", source_key::text COLLATE "C";
ROLLBACK;
SELECT severity, column_name, field, finding FROM sfsync.check_mapping('customer') ORDER BY severity, column_name, field, finding COLLATE "C";

-- triggers and mappings go together
SELECT try('TRUNCATE customer');
SELECT try('TRUNCATE parted_1');
SELECT try($$SELECT sfsync.drop_mapping('customer')$$);
SELECT pending FROM sfsync.status WHERE mapping = 'customer';
-- whatever holds rows of a mapping is emptied of them
CREATE FUNCTION tables_with(id integer) RETURNS TABLE (relation regclass, used boolean) LANGUAGE plpgsql AS $$
BEGIN
	FOR relation IN SELECT attrelid FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
		WHERE relnamespace = 'sfsync'::regnamespace AND relkind = 'r' AND attname = 'mapping' AND atttypid = 'int4'::regtype ORDER BY relname
	LOOP
		EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE mapping = $1)', relation) INTO used USING id;
		RETURN NEXT;
	END LOOP;
END $$;
BEGIN;
SELECT id AS customer FROM sfsync.mapping WHERE name = 'customer' \gset
SELECT sfsync.backfill('customer') > 0 AS backfill;
INSERT INTO sfsync.missed VALUES (:customer, 1, 'k', now());
INSERT INTO sfsync.field_creation VALUES (:customer, 1);
INSERT INTO sfsync.intent (mapping, operation, keys, sent_at) VALUES (:customer, 'upsert', '{k}', now());
INSERT INTO sfsync.record (mapping, record_key, key, salesforce_id) VALUES (:customer, 'k', 'k', '001000000000001AAA');
INSERT INTO sfsync.deferred (mapping, key, state, reason, due_at, attempts, whole, deleted, first_event_at, event_at, xid)
VALUES (:customer, 'k', 'held', 'test', now(), 0, true, false, now(), now(), pg_current_xact_id());
INSERT INTO sfsync.bulk_job (mapping, server, object, operation, rows) VALUES (:customer, 'crm', 'Account', 'upsert', 1);
INSERT INTO sfsync.bulk_row (job, mapping, key, events, attempts, flags, xid) VALUES (1, :customer, 'k', '', 0, 0, pg_current_xact_id());
SELECT * FROM tables_with(:customer);
SELECT sfsync.drop_mapping('customer', true);
SELECT * FROM tables_with(:customer) WHERE used;
ROLLBACK;
SELECT sfsync.drop_mapping('customer', true);
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'customer'::regclass AND tgname LIKE '%sfsync%';
SELECT sfsync.drop_mapping('people', true);
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'customer'::regclass AND tgname LIKE '%sfsync%';
SELECT sfsync.drop_mapping('p2', true);
SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%sfsync%' AND tgrelid::regclass::text LIKE 'parted%';
SELECT sfsync.drop_mapping('parted', true);
SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%sfsync%' AND tgrelid::regclass::text LIKE 'parted%';
SELECT count(*) FROM sfsync.queued;
DROP TABLE "Odd ""Name";
SELECT mapping, source::oid::regclass::text ~ '^\d+$' AS table_is_gone FROM sfsync.status;
SELECT sfsync.drop_mapping('Odd "Name');
SELECT count(*) FROM sfsync.mapping;

-- a rolled back mapping leaves nothing
BEGIN;
SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
INSERT INTO customer (id, name, code, part, lazy) VALUES (3, 'Eve', 'c', 'z', 'z');
ROLLBACK;
INSERT INTO customer (id, name, code, part, lazy) VALUES (3, 'Eve', 'c', 'z', 'z');
SELECT count(*) FROM sfsync.queued;

-- who may
CREATE ROLE regress_sfsync_owner;
CREATE ROLE regress_sfsync_other;
GRANT USAGE ON SCHEMA sfsync TO regress_sfsync_owner, regress_sfsync_other;
GRANT CREATE ON SCHEMA public TO regress_sfsync_owner;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sfsync TO regress_sfsync_owner, regress_sfsync_other;
SET ROLE regress_sfsync_owner;
CREATE TABLE mine (id integer PRIMARY KEY, name text);
SELECT try($$SELECT sfsync.create_mapping('mine', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')$$);
SELECT try($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')$$);
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER crm TO regress_sfsync_owner, regress_sfsync_other;
SET ROLE regress_sfsync_other;
SELECT try($$SELECT sfsync.create_mapping('mine', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')$$);
RESET ROLE;
GRANT SELECT ON mine TO regress_sfsync_other;
SET ROLE regress_sfsync_other;
SELECT try($$SELECT sfsync.create_mapping('mine', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')$$, false);
RESET ROLE;
SET ROLE regress_sfsync_owner;
SELECT try($$SELECT sfsync.create_mapping('mine', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')$$);
INSERT INTO mine VALUES (1, 'one');
RESET ROLE;
SET ROLE regress_sfsync_other;
SELECT try(format('SELECT sfsync.%s', call)) FROM unnest(ARRAY['alter_mapping(''mine'', new_columns => ''ignore'')', 'drop_mapping(''mine'', true)', 'set_delete_policy(''mine'', ''ignore'')',
	'map_field(''mine'', ''Phone'', ''name'')', 'unmap_field(''mine'', ''Phone'')', 'exclude_column(''mine'', ''name'')', 'reset_column(''mine'', ''name'')', 'pause(''mine'')',
	'backfill(''mine'')', 'preview(''mine'', ''{"id": 1}'')']) AS call;
RESET ROLE;
SELECT max(id) AS backfill FROM sfsync.backfill_job \gset
SET ROLE regress_sfsync_other;
SELECT try(format('SELECT sfsync.cancel_backfill(%s)', :backfill));
SELECT try('SELECT count(*) FROM sfsync.dead_letter');
RESET ROLE;
SELECT source, owner, pending FROM sfsync.status;
SET ROLE regress_sfsync_owner;
SELECT sfsync.drop_mapping('mine', true);
RESET ROLE;
SELECT count(*) FROM sfsync.queued;

-- every object is commented
SELECT pg_describe_object(classid, objid, objsubid) AS object
FROM pg_depend d
WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'sfsync') AND deptype = 'e'
	AND classid IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_foreign_data_wrapper'::regclass, 'pg_event_trigger'::regclass)
	AND NOT EXISTS (SELECT FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind IN ('S', 'i'))
	AND coalesce(obj_description(objid, classid::regclass::name), '') = ''
ORDER BY pg_describe_object(classid, objid, objsubid) COLLATE "C";

-- clean up
\pset format aligned
\pset tuples_only off
DROP TABLE customer, keyless, customer_temp, customer_unlogged, parent, parted, mine CASCADE;
DROP SEQUENCE counter;
DROP FUNCTION try(text, boolean);
DROP EXTENSION sfsync CASCADE;
REVOKE CREATE ON SCHEMA public FROM regress_sfsync_owner;
DROP ROLE regress_sfsync_owner, regress_sfsync_other;
