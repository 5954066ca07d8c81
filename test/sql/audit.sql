--
-- health, dead_letter_summary, history and compare, as far as no Salesforce is
-- needed.  What they say of real records is in test/t/014_audit.pl.
--
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION sfsync;
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', client_secret 'hidden');
CREATE TABLE customer (id integer PRIMARY KEY, name text, "Phone No" text);
CREATE TABLE parted (region text, no bigint, name text, PRIMARY KEY (region, no)) PARTITION BY LIST (region);
CREATE TABLE parted_a PARTITION OF parted FOR VALUES IN ('a');
CREATE TABLE unmapped (id integer PRIMARY KEY);

\pset format unaligned
\pset tuples_only on

-- without a mapping there is nothing to say about mappings
SELECT check_name FROM sfsync.health() WHERE check_name LIKE 'mapping%';

BEGIN;
SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', backfill => false);
SELECT sfsync.create_mapping('parted', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', backfill => false);
SELECT sfsync.pause();
COMMIT;

-- checks of a mapping that was never delivered
SELECT check_name, status, detail, hint FROM sfsync.health() WHERE check_name LIKE 'mapping %' ORDER BY check_name COLLATE "C";
SELECT check_name, status FROM sfsync.health() WHERE check_name IN ('environment', 'enabled', 'library', 'launcher', 'max_worker_processes', 'vacuum', 'queue table')
ORDER BY check_name COLLATE "C";

-- a partition's trigger, and a table that is gone
ALTER TABLE parted_a DISABLE TRIGGER sfsync_capture;
SELECT status, detail FROM sfsync.health() WHERE check_name = 'mapping parted: triggers';
ALTER TABLE parted_a ENABLE TRIGGER sfsync_capture;
DROP TRIGGER sfsync_truncate ON parted_a;
SELECT status, detail FROM sfsync.health() WHERE check_name = 'mapping parted: triggers';

-- dead letters by code
INSERT INTO sfsync.dead_letter (mapping, source_key, operation, object, external_id, error_code, error_message, attempts, first_failed_at, failed_at, status)
SELECT 'customer', jsonb_build_object('id', i), 'upsert', 'Account', i::text, CASE WHEN i < 4 THEN 'STRING_TOO_LONG' ELSE 'A_CODE_OF_NEXT_YEAR' END,
	'message ' || i, 1, '2026-01-01 00:00:00Z'::timestamptz + i * interval '1 hour', '2026-01-02 00:00:00Z'::timestamptz + i * interval '1 hour',
	CASE WHEN i = 5 THEN 'resolved' WHEN i = 2 THEN 'retrying' ELSE 'open' END
FROM generate_series(1, 5) i;
SET TimeZone = 'UTC';
SELECT * FROM sfsync.dead_letter_summary ORDER BY error_code COLLATE "C";
SELECT status, detail FROM sfsync.health() WHERE check_name = 'mapping customer: dead letters';
SELECT sfsync.error_hint(code) FROM unnest(ARRAY['COERCION_ERROR', 'invalid_grant', 'unheard of', NULL]) AS code;

-- history: of a row on its way, of one with a dead letter, in both forms of the key
INSERT INTO customer VALUES (1, 'One', '1');
UPDATE customer SET "Phone No" = '2', name = 'Eins';
UPDATE customer SET id = 2;
SELECT event, detail, actor = session_user AS actor, transaction_id IS NOT NULL AS transaction FROM sfsync.history('customer', '{"id": 1}');
SELECT event, detail FROM sfsync.history('customer', '{"id": "2"}');
SELECT at, event, detail FROM sfsync.history('customer', '{"id": 4}');
SELECT * FROM sfsync.history('customer', '{"id": 17}');
INSERT INTO parted VALUES ('a', 1, 'One');
SELECT event, detail FROM sfsync.history('parted', '{"no": 1, "region": "a"}');

-- a second mapping of the same table
SELECT sfsync.create_mapping('customer', 'Lead', 'PG_Key__c', 'ignore', name => 'leads', conflict_policy => 'source_wins', backfill => false);
SELECT sfsync.pause('leads');
INSERT INTO customer VALUES (3, 'Three');
SELECT event, detail FROM sfsync.history('customer', '{"id": 3}') WHERE event = 'captured';

-- who gives up a dead letter, and why
SELECT sfsync.discard(1, 'of no use');
SELECT event, detail, actor = session_user AS actor FROM sfsync.history('customer', '{"id": 1}') WHERE event = 'discarded';

-- bad arguments
SELECT sfsync.history('unmapped', '{"id": 1}');
SELECT sfsync.history('parted_a', '{"region": "a", "no": 1}');
SELECT sfsync.history('customer', '{}');
SELECT sfsync.history('customer', '[1]');
SELECT sfsync.history('customer', '{"id": "one"}');
SELECT sfsync.history(NULL, '{"id": 1}');
SELECT sfsync.compare('custommer');
SELECT sfsync.compare(NULL);
SELECT sfsync.compare('customer', NULL);
SELECT sfsync.compare('customer'); -- no metadata yet
ALTER SYSTEM SET sfsync.history = 'everything';
\set VERBOSITY sqlstate
ALTER SYSTEM SET sfsync.history_retention = '-1s'; -- told differently by each version
\set VERBOSITY default
SET sfsync.history = 'all';

-- who may what
CREATE ROLE regress_audit_probe;
CREATE ROLE regress_audit_other;
GRANT pg_monitor TO regress_audit_probe;
GRANT USAGE ON SCHEMA sfsync TO regress_audit_other;
SET ROLE regress_audit_probe;
SELECT count(*) > 10 FROM sfsync.health();
SELECT count(*) FROM sfsync.dead_letter_summary;
SELECT sfsync.history('customer', '{"id": 1}');
SET ROLE regress_audit_other;
SELECT count(*) FROM sfsync.health();
RESET ROLE;
GRANT EXECUTE ON FUNCTION sfsync.history, sfsync.compare TO regress_audit_other;
SET ROLE regress_audit_other;
SELECT sfsync.history('customer', '{"id": 1}');
SELECT sfsync.compare('customer');
RESET ROLE;

DROP TABLE parted;
SELECT status, detail LIKE 'blocked: the source table %' OR detail = 'paused' AS said FROM sfsync.health() WHERE check_name = 'mapping parted';
DROP OWNED BY regress_audit_probe, regress_audit_other;
DROP ROLE regress_audit_probe, regress_audit_other;
DROP EXTENSION sfsync CASCADE;
DROP TABLE customer;
