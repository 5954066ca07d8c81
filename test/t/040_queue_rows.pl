# Rows of the queue that hold several events: read in pages, settled in part, left by a crash, looked back at.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('rows', conf => "sfsync.history = 'all'\n");
my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone" FROM account WHERE name <> 'bad'};
my $writes = 'collections_.*|composite';

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# Rows of the queue, and events in them.
sub queued
{
	return sql('SELECT (SELECT count(*) FROM sfsync.queue) || \' \' || count(*) || \' \' || count(DISTINCT (xid, n)) FROM sfsync.queued');
}

sub in_step
{
	my ($name) = @_;

	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Account', $accounts, "$name: records equal the table");
	is(queued(), '0 0 0', "$name: nothing is left");
	is($sim->stats->{same_record_overlap}, 0, "$name: no two writes of a record at once");
	return;
}

connect_salesforce($node, $sim, options => "bulk_threshold '0', max_batch_size '130'");
account_table($node);

#
# Many events, in pages that end within rows
#
sql(q{SELECT sfsync.pause(); INSERT INTO account (id, name) SELECT i, 'new ' || i FROM generate_series(1, 3500) i});
like(queued(), qr/^[2-6]\d 3500 3500$/, 'many events in few rows');
is(sql(q{SELECT pending FROM sfsync.status}), '3500', 'each is pending');
is(sql(q{SELECT detail LIKE '3500 changes wait%' FROM sfsync.health() WHERE check_name = 'mapping account: lag'}), 't', 'and waits');
is(sql(q{SELECT count(*), max(event), count(DISTINCT at) FROM sfsync.history('account', '{"id": 77}')}), '1|captured|1', 'one of them on its way');
my $captured = sql(q{SELECT at FROM sfsync.history('account', '{"id": 77}')});
is(sql(qq{SELECT event_at = '$captured' FROM sfsync.queued WHERE key = '77'}), 't', 'at its own time');
sql('SELECT sfsync.resume()');
in_step('many events');
is($sim->created('Account'), 3500, 'each record was created once');
my $calls = $sim->requests(0, $writes);
cmp_ok($calls, '<', 3500 / 130 * 2, 'no more requests than batches that are full take');
is(sql(qq{SELECT string_agg(event || CASE WHEN event = 'captured' THEN (at = '$captured')::text ELSE '' END, ' ' ORDER BY at) FROM sfsync.history('account', '{"id": 77}')}),
	'capturedtrue synced', 'its history once it is settled');
is(sql(q{SELECT count(*) FROM (SELECT key FROM sfsync.history_log WHERE event = 'captured' GROUP BY key HAVING count(*) = 1) x}), '3500', 'the history of each');

#
# What shares a row, and in what order
#
sql(q{SELECT sfsync.pause();
	BEGIN; UPDATE account SET phone = 'a' WHERE id <= 300; UPDATE account SET phone = 'b', name = 'both ' || id WHERE id BETWEEN 200 AND 400;
	DELETE FROM account WHERE id BETWEEN 100 AND 250; SAVEPOINT s; INSERT INTO account (id, name) SELECT i, 'undone' FROM generate_series(5001, 5100) i; ROLLBACK TO s;
	INSERT INTO account (id, name) SELECT i, 'again' FROM generate_series(100, 220) i; UPDATE account SET id = -id WHERE id BETWEEN 10 AND 15; COMMIT});
is(sql(q{SELECT string_agg(operation::text || ' ' || events, ', ' ORDER BY first) FROM
	(SELECT operation, count(*) AS events, min(n) AS first, changed FROM sfsync.queued GROUP BY operation, changed) e}),
	'U 300, U 201, D 151, I 121, K 6', 'what was captured');
is(sql(q{SELECT count(*) FROM sfsync.queue WHERE more_keys IS NOT NULL AND operation = 'K'}), '0', 'a key change has its row for itself');
is(sql(q{SELECT bool_and(pg_column_size(q) < 2032 AND cardinality(more_keys) = cardinality(more_at)) FROM sfsync.queue q}), 't', 'rows are small');
sql('SELECT sfsync.resume()');
in_step('order');

# Some with keys that share no row with others, and mappings by turns
sql(q{SELECT sfsync.pause(); CREATE TABLE long (id text PRIMARY KEY); CREATE TABLE other (id integer PRIMARY KEY, name text);
	SELECT sfsync.create_mapping(t, 'Lead', 'PG_Key__c', 'ignore', backfill => false, conflict_policy => 'source_wins') FROM unnest('{long, other}'::regclass[]) t; SELECT sfsync.pause();
	INSERT INTO long SELECT repeat('x', 300 * i) || i FROM generate_series(1, 40) i;
	INSERT INTO long SELECT encode(string_agg(sha256(i::text::bytea), '' ORDER BY i), 'hex') FROM generate_series(1, 40) i;
	BEGIN; DO $$ BEGIN FOR i IN 1 .. 50 LOOP INSERT INTO other VALUES (i, 'by turns'); INSERT INTO long VALUES (i); END LOOP; END $$; COMMIT});
is(sql(q{SELECT count(*) FROM sfsync.queued q JOIN sfsync.mapping m ON m.id = q.mapping AND m.name = 'long' JOIN long l ON l.id = q.key}), '91', 'long keys are kept');
is(sql(q{SELECT max(cardinality(more_keys)) FROM sfsync.queue WHERE key IN (SELECT id::text FROM other)}), '', 'a row is of one mapping');
is(sql(q{SELECT sfsync.drop_mapping('long', discard_pending => true); SELECT count(*) || ' ' || min(mapping) FROM sfsync.queued}), "\n50 " . sql(q{SELECT id FROM sfsync.mapping WHERE name = 'other'}), 'a dropped mapping takes its own along');
sql(q{SELECT sfsync.drop_mapping('other', discard_pending => true)});

#
# Settled in part
#
$sim->fault(name => 'down', match => { kind => [ 'collections_upsert', 'collections_update', 'composite' ] }, action => { status => 503, body => '' });
sql(q{INSERT INTO account (id, name, annual_revenue) SELECT i, CASE WHEN i % 3 = 0 THEN 'bad' ELSE 'good' END, CASE WHEN i % 3 = 0 THEN 'NaN'::numeric ELSE 1 END
	FROM generate_series(10001, 10600) i; SELECT sfsync.resume('account')});
poll_query($node, q{SELECT count(*) > 100 FROM sfsync.dead_letter WHERE status = 'open'}, 'some are dead letters at once');
is(sql(q{SELECT count(DISTINCT key) + (SELECT count(*) FROM sfsync.dead_letter) FROM sfsync.queued}), '600', 'the others are as they were');
is(sql(q{SELECT count(*) FROM sfsync.queued q JOIN sfsync.dead_letter d ON d.external_id = q.key}), '0', 'and only they');
is(sql(q{SELECT pending + dead_letters FROM sfsync.status}), '600', 'they are pending');
is(sql(q{SELECT count(*) > 0 AND bool_and(n = key::integer - 10001) FROM sfsync.queued}), 't', 'in their places');
is(sql(q{SELECT count(*) > 0 FROM sfsync.queue WHERE more_keys IS NULL}), 't', 'some in a row of their own');

# They are left to the next worker
count_lines($node);
$node->stop('immediate');
$node->start;
$sim->clear_faults;
in_step('in part');
is($sim->created('Account'), 3500 + 400, 'each record was created once');
is(sql(q{DELETE FROM account WHERE name = 'bad'; SELECT sfsync.wait_for_sync('60 s')}), 't', 'the bad ones go');

#
# A transaction that commits later than others that began after it
#
my $late = session($node);
$late->query('BEGIN; SELECT pg_current_xact_id()');
sql(q{UPDATE account SET phone = 'early' WHERE id BETWEEN 1000 AND 1009});
wait_for_sync($node, 'others are settled');
$late->query(q{UPDATE account SET phone = 'late ' || id WHERE id >= 500; COMMIT});
$late->quit;
in_step('late');

# A prepared one, and one over work_mem
$node->safe_psql('postgres', q{SET work_mem = '64kB'; BEGIN; UPDATE account SET phone = 'spilled ' || id WHERE id >= 400; PREPARE TRANSACTION 'p'});
is(queued(), '0 0 0', 'nothing is seen of what is prepared');
sql(q{COMMIT PREPARED 'p'});
in_step('prepared');

#
# A copy is adopted by a transaction that captures as well
#
sql(q{SELECT sfsync.pause(); INSERT INTO account (id, name) SELECT i, 'copied' FROM generate_series(20001, 20200) i; UPDATE account SET phone = 'copied' WHERE id = 20001});
$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
$node->safe_psql('copy', q{BEGIN; UPDATE account SET phone = 'before' WHERE id > 20000; SELECT sfsync.adopt('crm'); INSERT INTO account (id, name) SELECT i, 'adopting' FROM generate_series(20201, 20300) i; COMMIT});
is($node->safe_psql('copy', q{SELECT count(*), count(DISTINCT (xid, n)), count(DISTINCT xid), max(n) FILTER (WHERE event_at < (SELECT max(event_at) FROM sfsync.queued WHERE operation = 'I' AND key = '20200')) < 0 FROM sfsync.queued}),
	'501|501|1|t', 'each event has a number of its own, those of the copy before those of the transaction');
$node->safe_psql('copy', 'SELECT sfsync.resume()');
wait_for_sync($node, 'adopted: settled', database => 'copy');
same_records($node, $sim, 'Account', $accounts, 'adopted: records equal the table', database => 'copy');
is($node->safe_psql('copy', 'SELECT count(*) FROM sfsync.queue'), '0', 'adopted: nothing is left');

done_testing();
