--
-- Delete policies: what is accepted, what is said when something isn't, and what
-- TRUNCATE, large deletes and partitions leave in the queue.  No Salesforce is
-- there; a little of its metadata is put into the cache by hand.
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

CREATE TABLE customer (id text PRIMARY KEY, name text);
\pset format unaligned
\pset tuples_only on

-- values and policies, before anything is known of the object
SELECT try(format($$SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', %L, conflict_policy => 'source_wins', delete_values => %L)$$, a[1], a[2]), false)
FROM (VALUES
	(ARRAY['archive', NULL]),
	(ARRAY['deactivate', NULL]),
	(ARRAY['archive', '{}']),
	(ARRAY['archive', '[]']),
	(ARRAY['archive', '[{"Archived__c": true}]']),
	(ARRAY['archive', 'null']),
	(ARRAY['archive', '"Archived__c"']),
	(ARRAY['archive', '7']),
	(ARRAY['archive', '{"": true}']),
	(ARRAY['archive', '{"Archived At": true}']),
	(ARRAY['archive', '{"Archived__c": {"a": 1}}']),
	(ARRAY['archive', '{"Archived__c": []}']),
	(ARRAY['archive', '{"Archived__c": "$nwo"}']),
	(ARRAY['archive', '{"Archived__c": "$"}']),
	(ARRAY['archive', '{"Archived__c": "$$now"}']),
	(ARRAY['archive', '{"Archived__c": "$NOW"}']),
	(ARRAY['archive', '{"Archived__c": "$now "}']),
	(ARRAY['delete', '{"Archived__c": true}']),
	(ARRAY['hard_delete', '{"Archived__c": true}']),
	(ARRAY['ignore', '{"Archived__c": true}']),
	(ARRAY['archived', '{"Archived__c": true}']),
	(ARRAY['harddelete', NULL]),
	(ARRAY['delete', NULL]),
	(ARRAY['hard_delete', NULL]),
	(ARRAY['ignore', NULL]),
	(ARRAY['deactivate', '{"Anything__c": "at $now", "Other__c": "$key", "Third__c": null, "Number__c": 1.50}'])) AS arguments (a);

SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'archive', conflict_policy => 'source_wins', delete_values => '{"Archived__c": true}', backfill => false);
SELECT sfsync.create_mapping('customer', 'Lead', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', name => 'lead', backfill => false);
SELECT name, on_delete, delete_values, on_truncate, delete_guard FROM sfsync.mapping ORDER BY id;

-- set_delete_policy: NULL keeps
SELECT try(format('SELECT sfsync.set_delete_policy(%s)', arguments)) FROM unnest(ARRAY[
	$$'custome', 'delete'$$, $$NULL, 'delete'$$,
	$$'lead', 'archive'$$, $$'lead', NULL, '{"Archived__c": true}'$$, $$'lead', 'delte'$$, $$'lead', ''$$,
	$$'customer', NULL, '{}'$$, $$'customer', 'ignore', '{"Archived__c": true}'$$,
	$$'customer', NULL, on_truncate => 'aply'$$, $$'customer', NULL, on_truncate => ''$$,
	$$'customer', NULL, delete_guard => -1$$]) AS arguments;
SELECT name, on_delete, delete_values, on_truncate, delete_guard FROM sfsync.mapping ORDER BY id;
SELECT sfsync.set_delete_policy('customer', NULL);
SELECT sfsync.set_delete_policy('customer', 'deactivate', delete_guard => 0);
SELECT name, on_delete, delete_values, on_truncate, delete_guard FROM sfsync.mapping WHERE name = 'customer';
SELECT sfsync.set_delete_policy('customer', NULL, '{"Status__c": "gone"}', on_truncate => 'apply', delete_guard => 2147483647);
SELECT name, on_delete, delete_values, on_truncate, delete_guard FROM sfsync.mapping WHERE name = 'customer';
-- a policy without values forgets them
SELECT sfsync.set_delete_policy('customer', 'ignore');
SELECT try($$SELECT sfsync.set_delete_policy('customer', 'archive')$$);
SELECT sfsync.set_delete_policy('customer', 'archive', '{"Nothing_Like_It__c": 1, "Archived__c": true}', on_truncate => 'refuse');
SELECT name, on_delete, delete_values, on_truncate, delete_guard FROM sfsync.mapping WHERE name = 'customer';

-- metadata come: the mapping is blocked, and says why
INSERT INTO sfsync.object (server, object, describe, fetched_at)
SELECT 'crm', 'Account', jsonb_build_object('name', 'Account', 'createable', true, 'updateable', true, 'deletable', true, 'queryable', true, 'fields', jsonb_agg(f || '{"nillable": true, "createable": true, "updateable": true}' || coalesce(f->'more', '{}') ORDER BY o)), clock_timestamp()
FROM jsonb_array_elements('[
	{"name": "Id", "type": "id", "length": 18, "more": {"updateable": false, "createable": false}},
	{"name": "PG_Key__c", "type": "string", "length": 255, "externalId": true, "unique": true, "caseSensitive": true, "custom": true},
	{"name": "Name", "type": "string", "length": 80, "more": {"nillable": false}},
	{"name": "Archived__c", "type": "boolean", "custom": true, "more": {"nillable": false}},
	{"name": "Archived_At__c", "type": "datetime", "custom": true},
	{"name": "Archived_On__c", "type": "date", "custom": true},
	{"name": "Former_Key__c", "type": "string", "length": 10, "custom": true},
	{"name": "Score__c", "type": "double", "precision": 18, "scale": 2, "custom": true},
	{"name": "Status__c", "type": "picklist", "restrictedPicklist": true, "custom": true, "picklistValues": [{"value": "Active", "active": true}, {"value": "Gone", "active": true}, {"value": "Old", "active": false}]},
	{"name": "Formula__c", "type": "string", "length": 100, "calculated": true, "custom": true, "more": {"updateable": false, "createable": false}}]') WITH ORDINALITY AS fields (f, o);
SELECT sfsync.refresh_schema();
SELECT try($$SELECT * FROM sfsync.check_mapping('customer')$$);

-- fields and values against the object
SELECT try(format($$SELECT sfsync.set_delete_policy('customer', NULL, %L)$$, value), false)
FROM unnest(ARRAY[
	'{"Archvied__c": true}', '{"Nothing_Like_It__c": true}', '{"PG_Key__c": null}', '{"pg_key__c": "x"}', '{"Id": "001"}', '{"Formula__c": "x"}',
	'{"Archived__c": "perhaps"}', '{"Archived__c": null}', '{"Archived__c": "$now"}', '{"Name": null}', '{"Name": ""}',
	'{"Archived_At__c": true}', '{"Archived_At__c": "yesterday"}', '{"Archived_At__c": "$key"}', '{"Score__c": "many"}', '{"Score__c": "$key"}', '{"Score__c": "$now"}', '{"Score__c": 12345678901234567890}',
	'{"Status__c": "Old"}', '{"Status__c": "gone"}', '{"Former_Key__c": "longer than ten"}', '{"Former_Key__c": "$key"}', '{"Name": "a", "name": "b"}']) AS value;
SELECT try($$SELECT sfsync.create_mapping('customer', 'account', 'pg_key__c', 'archive', name => 'other', conflict_policy => 'source_wins', delete_values => '{"Archived_Att__c": "$now"}', backfill => false)$$, false);

-- what would be sent
SELECT sfsync.set_delete_policy('customer', 'archive', '{"archived__c": true, "Archived_At__c": "$now", "Archived_On__c": "$now", "Former_Key__c": "$key", "Score__c": 12345678901234.565, "Status__c": "gone", "Name": "not now: $now"}');
SELECT sfsync.alter_mapping('customer', timestamp_zone => 'Pacific/Kiritimati');
INSERT INTO customer VALUES ('one', 'One'), ('much too long', 'Two');
BEGIN;
DELETE FROM customer;
SELECT source_key, operation, payload - 'Archived_At__c' - 'Archived_On__c', findings FROM sfsync.preview('customer') ORDER BY source_key::text COLLATE "C";
SELECT (payload->>'Archived_At__c')::timestamptz BETWEEN now() - interval '1 minute' AND clock_timestamp(),
	(payload->>'Archived_On__c')::date - ((payload->>'Archived_At__c')::timestamptz AT TIME ZONE 'Pacific/Kiritimati')::date
FROM sfsync.preview('customer', NULL);
ROLLBACK;
SELECT sfsync.set_delete_policy('customer', 'hard_delete');
BEGIN;
DELETE FROM customer WHERE id = 'one';
SELECT source_key, operation, payload, findings FROM sfsync.preview('customer');
ROLLBACK;

-- TRUNCATE: refused, then applied
SELECT sfsync.set_delete_policy('customer', 'delete', delete_guard => 3);
DELETE FROM sfsync.queue;
SELECT try('TRUNCATE customer');
SELECT sfsync.set_delete_policy('customer', NULL, on_truncate => 'apply');
SELECT try('TRUNCATE customer');
SELECT sfsync.set_delete_policy('lead', NULL, on_truncate => 'apply', delete_guard => 0);
CREATE FUNCTION queued() RETURNS TABLE (mapping text, operation "char", key text, old_key text) LANGUAGE sql AS $$
	SELECT m.name, q.operation, q.key, q.old_key FROM sfsync.queued q JOIN sfsync.mapping m ON m.id = q.mapping ORDER BY m.name COLLATE "C", q.xid, q.n
$$;

-- every record known, and what is on its way
INSERT INTO sfsync.record (mapping, record_key, key, salesforce_id) SELECT id, 'known', 'known', '001000000000001AAA' FROM sfsync.mapping WHERE name = 'customer';
INSERT INTO sfsync.deferred (mapping, key, state, reason, due_at, attempts, whole, deleted, first_event_at, event_at, xid)
SELECT id, 'deferred', 'waiting', 'test', 'infinity', 0, true, false, now(), now(), pg_current_xact_id() FROM sfsync.mapping WHERE name = 'customer';
INSERT INTO customer VALUES ('pending', 'Pending');
BEGIN;
INSERT INTO customer VALUES ('own', 'Own');
UPDATE customer SET id = 'moved' WHERE id = 'own';
TRUNCATE customer;
INSERT INTO customer VALUES ('known', 'Known again');
SAVEPOINT s;
TRUNCATE customer;
ROLLBACK TO s;
SELECT source_key, operation, findings FROM sfsync.preview('customer') ORDER BY source_key::text COLLATE "C";
COMMIT;
SELECT mapping, operation, key FROM queued() WHERE key <> 'pending' OR operation <> 'I' ORDER BY mapping COLLATE "C", operation, key COLLATE "C";
DELETE FROM sfsync.queue;
DELETE FROM sfsync.deferred;

-- the guard: more than three rows that were there and are not any more
INSERT INTO customer SELECT i, 'Name' FROM generate_series(1, 9) i;
DELETE FROM sfsync.queue;
BEGIN; DELETE FROM customer WHERE id < '4'; COMMIT;
BEGIN; DELETE FROM customer WHERE id IN ('4', '5'); SAVEPOINT s; DELETE FROM customer; ROLLBACK TO s; DELETE FROM customer WHERE id = '6'; COMMIT;
BEGIN; DELETE FROM customer WHERE id < 'A'; INSERT INTO customer VALUES ('8', 'Eight'), ('9', 'Nine'); COMMIT;
BEGIN; INSERT INTO customer SELECT i, 'Name' FROM generate_series(1, 7) i; DELETE FROM customer; COMMIT;
SELECT mapping, operation, count(*), min(key), max(key) FROM queued() GROUP BY mapping, operation ORDER BY mapping COLLATE "C", operation;
DELETE FROM sfsync.queue;
INSERT INTO customer SELECT i, 'Name' FROM generate_series(1, 9) i;
DELETE FROM sfsync.queue;
BEGIN; UPDATE customer SET name = 'with it' WHERE id = '9'; DELETE FROM customer WHERE id < '5';
SELECT source_key, operation, findings FROM sfsync.preview('customer') ORDER BY source_key::text COLLATE "C";
COMMIT;
SELECT mapping, operation, key FROM queued();
DELETE FROM sfsync.queue;
SELECT sfsync.set_delete_policy('customer', NULL, delete_guard => 0);
BEGIN; DELETE FROM customer; COMMIT;
SELECT mapping, operation, count(*) FROM queued() GROUP BY 1, 2 ORDER BY 1, 2;
DELETE FROM sfsync.queue;

-- partitions that come and go
CREATE TABLE parted (id integer PRIMARY KEY, name text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_2 (name text, id integer NOT NULL);
INSERT INTO parted VALUES (1, 'one');
INSERT INTO parted_2 VALUES ('twelve', 12);
SELECT sfsync.create_mapping('parted', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', backfill => false);
SELECT sfsync.create_mapping('parted_1', 'Lead', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', name => 'part', backfill => false);
BEGIN; SET LOCAL sfsync.capture = off; ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM (10) TO (20); ALTER TABLE parted DETACH PARTITION parted_2; COMMIT;
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM (10) TO (20);
SELECT try('TRUNCATE parted_2');
ALTER TABLE parted DETACH PARTITION parted_2;
TRUNCATE parted_2;
ALTER TABLE parted DETACH PARTITION parted_1;
INSERT INTO parted_1 VALUES (2, 'mapped by itself');
ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM (0) TO (10);
DROP TABLE parted_1;
SELECT * FROM queued();
DELETE FROM sfsync.queue;
CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM (0) TO (10);
INSERT INTO parted VALUES (3, 'three');
BEGIN; SET LOCAL sfsync.capture = off; DROP TABLE parted_3; COMMIT;
SELECT * FROM queued();
DELETE FROM sfsync.queue;
SELECT sfsync.drop_mapping('part');
SELECT sfsync.drop_mapping('parted');

-- held deletes
SELECT try(format('SELECT sfsync.%s', call)) FROM unnest(ARRAY['release_deletes(NULL)', 'release_deletes(''custome'')', 'discard_deletes(NULL)', 'discard_deletes(''custome'')',
	'release_deletes(''customer'')', 'discard_deletes(''customer'')']) AS call;
INSERT INTO sfsync.deferred (mapping, key, state, reason, due_at, attempts, whole, deleted, first_event_at, event_at, xid, missing_since)
SELECT id, key, state, 'test', 'infinity', 3, false, deleted, '2020-01-01', '2020-01-02', '77', missing FROM sfsync.mapping, (VALUES
	('guarded', 'held', true, NULL), ('missing', 'held', false, '78'::xid8), ('waiting', 'waiting', true, NULL), ('missed', 'waiting', false, '78')) AS d (key, state, deleted, missing);
SELECT mapping, held, pending FROM sfsync.status ORDER BY mapping COLLATE "C";
SELECT sfsync.discard_deletes('lead');
SELECT sfsync.release_deletes('customer');
SELECT m.name, d.key, d.state, d.deleted, d.missing_since, d.attempts, d.due_at <= clock_timestamp() AS due, d.event_at FROM sfsync.deferred d JOIN sfsync.mapping m ON m.id = d.mapping
ORDER BY m.name COLLATE "C", d.key COLLATE "C";

-- clean up
\pset format aligned
\pset tuples_only off
DROP TABLE customer, parted, parted_2 CASCADE;
DROP FUNCTION try(text, boolean), queued();
DROP EXTENSION sfsync CASCADE;
