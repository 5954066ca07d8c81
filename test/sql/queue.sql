-- Writing into the queue: what is kept from one transaction to the next, and what changes in between.
\pset format unaligned
\pset tuples_only on
SET client_min_messages = warning;
CREATE EXTENSION sfsync;
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1');
CREATE TABLE item (id bigint PRIMARY KEY, name text);
CREATE FUNCTION map(item text) RETURNS text LANGUAGE sql AS
$$SELECT sfsync.create_mapping(item::regclass, 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', backfill => false)$$;
SELECT map('item');

-- What the table holds, what its index finds row by row, and whether the events of each transaction are numbered from 0
CREATE VIEW queued AS
	SELECT count(*) AS events, (SELECT count(*) FROM sfsync.queue) AS rows,
		(SELECT count(*) FROM sfsync.queue q CROSS JOIN LATERAL (SELECT FROM sfsync.queue i WHERE i.xid = q.xid AND i.n = q.n OFFSET 0) f) AS found,
		(SELECT coalesce(bool_and(t.n = t.max + 1 AND t.min = 0 AND t.n = t.different), true)
			FROM (SELECT count(*) AS n, count(DISTINCT n) AS different, min(n), max(n) FROM sfsync.queued GROUP BY xid) t) AS numbered
	FROM sfsync.queued;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS off) SELECT FROM sfsync.queue WHERE xid = '5' AND n = 6;

-- one row, again and again
INSERT INTO item VALUES (1, 'one');
UPDATE item SET name = 'two';
DELETE FROM item;
SELECT operation, key, changed FROM sfsync.queued ORDER BY xid, n;

-- several batches, some rows of which are taken back; and few rows after many
BEGIN;
INSERT INTO item SELECT i, 'many' FROM generate_series(1, 700) i;
SAVEPOINT s;
INSERT INTO item SELECT i, 'back' FROM generate_series(1001, 2700) i;
ROLLBACK TO s;
INSERT INTO item SELECT i, 'more' FROM generate_series(701, 1600) i;
COMMIT;
SELECT * FROM queued;
UPDATE item SET name = 'few' WHERE id < 4;
SELECT * FROM queued;
SELECT count(DISTINCT key), min(key::integer), max(key::integer) FROM sfsync.queued WHERE operation = 'I';

-- it was written, and then the transaction fails
CREATE TEMPORARY TABLE temporary ();
BEGIN;
INSERT INTO item SELECT i, 'fails' FROM generate_series(5001, 6200) i;
INSERT INTO temporary DEFAULT VALUES;
PREPARE TRANSACTION 'fails';
SELECT * FROM queued;
INSERT INTO item VALUES (5001, 'does not');
SELECT * FROM queued;

-- the table changes
ALTER TABLE sfsync.queue ADD COLUMN later integer;
INSERT INTO item VALUES (7001, 'with a column of a later version');
SELECT key, later, actor = current_user::regrole FROM sfsync.queue WHERE key = '7001';
ALTER TABLE sfsync.queue DROP COLUMN later;
INSERT INTO item VALUES (7002, 'and without');
VACUUM (FULL) sfsync.queue;
INSERT INTO item VALUES (7003, 'rewritten');
REINDEX INDEX sfsync.queue_order;
INSERT INTO item VALUES (7004, 'with another index file');
BEGIN;
INSERT INTO item VALUES (7005, 'and at the end of a transaction that rewrote it');
CREATE INDEX other ON sfsync.queue (mapping);
DROP INDEX sfsync.other;
TRUNCATE sfsync.queue;
COMMIT;
SELECT * FROM queued;
SELECT key FROM sfsync.queued;

-- numbers as keys
CREATE TABLE small (id smallint PRIMARY KEY);
CREATE TABLE medium (id integer PRIMARY KEY);
CREATE DOMAIN positive AS bigint CHECK (VALUE > 0);
CREATE TABLE large (id positive PRIMARY KEY);
SELECT map(t) FROM unnest('{small, medium, large}'::text[]) t;
INSERT INTO small VALUES (0), (-32768), (32767);
INSERT INTO medium VALUES (-2147483648), (2147483647), (-1);
INSERT INTO large VALUES (9223372036854775807), (1);
INSERT INTO item VALUES (-9223372036854775808);
SELECT m.name, q.key FROM sfsync.queued q JOIN sfsync.mapping m ON m.id = q.mapping WHERE q.key <> '7005' ORDER BY m.name COLLATE "C", q.xid, q.n;
DROP TABLE small, medium, large;

-- the extension goes, and another comes
BEGIN;
INSERT INTO item VALUES (8001, 'last');
DROP VIEW queued;
DROP SERVER crm CASCADE;
DROP EXTENSION sfsync CASCADE;
COMMIT;
INSERT INTO item VALUES (8002, 'nobody captures it');
CREATE EXTENSION sfsync;
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1');
SELECT map('item');
INSERT INTO item VALUES (8003, 'in the new queue');
SELECT key FROM sfsync.queued;
BEGIN;
INSERT INTO item VALUES (8004, 'in neither');
DROP SERVER crm CASCADE;
DROP EXTENSION sfsync CASCADE;
CREATE EXTENSION sfsync;
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1');
SELECT map('item');
ROLLBACK;
INSERT INTO item VALUES (8005, 'after all');
SELECT key FROM sfsync.queued ORDER BY xid, n;

DROP TABLE item;
DROP FUNCTION map;
DROP DOMAIN positive;
DROP SERVER crm CASCADE;
DROP EXTENSION sfsync CASCADE;
