# The way of a change: what is committed in tables is what Salesforce holds.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone", site AS "Site",
	annual_revenue AS "AnnualRevenue", number_of_employees AS "NumberOfEmployees", loyalty_tier AS "Loyalty_Tier__c" FROM account};
my $sim = simulator();
my $node = new_node('main');

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub refused
{
	my ($statement, $pattern, $name) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $statement);

	like($err, $pattern, $name);
	return;
}

# Delivered and equal.
sub in_step
{
	my ($name) = @_;

	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Account', $accounts, "$name: records equal the table");
	return;
}

# How many rows a statement leaves in the queue.
sub queued
{
	my ($statement) = @_;
	my $before = sql('SELECT count(*) FROM sfsync.queued');

	sql($statement);
	return sql('SELECT count(*) FROM sfsync.queued') - $before;
}

sub writes_since
{
	my ($mark) = @_;
	return $sim->requests($mark, 'create|update|upsert|delete|collections_.*|composite');
}

sub fields_sent
{
	my ($mark) = @_;
	my @records;

	foreach my $request (writes_since($mark))
	{
		my $body = $request->{body} // $request->{request_body} // '';

		$body = JSON::PP->new->decode($body) unless ref $body;
		push @records, @{ $body->{records} || [] };
	}
	return @records;
}

$sim->config(keep_bodies => JSON::PP::true);
connect_salesforce($node, $sim);

#
# Existing rows
#
sql(q{CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL, phone text, site text, annual_revenue numeric,
	number_of_employees integer, loyalty_tier text, secret text)});
sql(q{INSERT INTO account SELECT i, 'Account ' || i, '555-' || i, NULL, i * 1000, i, 'gold', 'hidden ' || i FROM generate_series(1, 700) i});
is(sql(q{SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')}),
	'account', 'create_mapping returns the name');
sql(q{SELECT sfsync.set_delete_policy('account', NULL, delete_guard => 0)});
in_step('backfill');
is($sim->created('Account'), 700, 'each row was created once');
is(sql(q{SELECT state, rows_done, rows_total, percent FROM sfsync.backfill_progress}), 'done|700|700|100.0', 'progress of the backfill');
unlike(JSON::PP->new->encode([ $sim->requests(0) ]), qr/hidden 1/, 'a column without a field is not sent');

#
# Plain statements
#
sql(q{INSERT INTO account VALUES (1001, 'Inserted', '1', 'here', 12, 3, 'silver', 'x')});
in_step('INSERT');
sql(q{UPDATE account SET phone = '2', site = NULL WHERE id = 1001});
in_step('UPDATE');
is($sim->record('Account', '1001')->{Site}, undef, 'NULL clears a field');
sql(q{DELETE FROM account WHERE id BETWEEN 101 AND 700});
in_step('DELETE');
is($sim->count('Account'), 101, 'deleted records are gone');
sql(qq{COPY account (id, name, phone) FROM stdin;
2001\tCopied\t1
2002\tCopied too\t\\N
\\.
});
in_step('COPY');
sql(q{INSERT INTO account (id, name) VALUES (2001, 'x'), (2003, 'new')
	ON CONFLICT (id) DO UPDATE SET name = 'on conflict ' || account.id});
sql(q{INSERT INTO account (id, name) VALUES (2001, 'x') ON CONFLICT DO NOTHING});
in_step('ON CONFLICT');
sql(q{MERGE INTO account a USING (VALUES (2001, 'merged'), (2002, NULL), (2004, 'merged in')) v (id, name) ON a.id = v.id
	WHEN MATCHED AND v.name IS NULL THEN DELETE
	WHEN MATCHED THEN UPDATE SET name = v.name
	WHEN NOT MATCHED THEN INSERT (id, name) VALUES (v.id, v.name)});
in_step('MERGE');
sql(q{UPDATE account SET name = upper(name) WHERE id < 50; DELETE FROM account WHERE id % 9 = 0; UPDATE account SET phone = NULL WHERE id % 5 = 0});
in_step('several statements at once');

#
# Transactions
#
sql(q{BEGIN; INSERT INTO account (id, name) VALUES (3001, 'never'); UPDATE account SET name = 'never'; ROLLBACK});
sql(q{BEGIN;
	INSERT INTO account (id, name) VALUES (3002, 'kept');
	SAVEPOINT a;
	INSERT INTO account (id, name) VALUES (3003, 'undone');
	SAVEPOINT b;
	UPDATE account SET name = 'undone' WHERE id IN (3002, 1001);
	RELEASE b;
	ROLLBACK TO a;
	INSERT INTO account (id, name) VALUES (3004, 'after');
	SAVEPOINT c;
	UPDATE account SET site = 'released' WHERE id = 3004;
	RELEASE c;
	COMMIT});
in_step('savepoints');
is($sim->record('Account', '3004')->{Site}, 'released', 'a released savepoint is kept');

sql(q{DO $$ BEGIN
	INSERT INTO account (id, name) VALUES (3005, 'from plpgsql');
	BEGIN
		INSERT INTO account (id, name) VALUES (3006, 'caught');
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
		INSERT INTO account (id, name) VALUES (3007, 'handled');
	END;
END $$});
in_step('an exception caught in plpgsql');

my $mark = $sim->mark;
sql(q{BEGIN; INSERT INTO account (id, name) VALUES (3101, 'prepared'); SAVEPOINT a; INSERT INTO account (id, name) VALUES (3102, 'undone');
	ROLLBACK TO a; UPDATE account SET name = 'prepared' WHERE id = 1001; PREPARE TRANSACTION 'one'});
sql(q{BEGIN; INSERT INTO account (id, name) VALUES (3103, 'given up'); PREPARE TRANSACTION 'two'});
sql(q{INSERT INTO account (id, name) VALUES (3104, 'meanwhile')});
wait_for_sync($node, 'a prepared transaction does not hold others up');
is(scalar(grep { $_->{PG_Key__c} =~ /^310[13]$/ } @{ $sim->records('Account') }), 0, 'prepared is not committed');
sql(q{ROLLBACK PREPARED 'two'});
sql(q{COMMIT PREPARED 'one'});
poll_until(sub { $sim->record('Account', '3101') }, 'COMMIT PREPARED is delivered without another commit');
in_step('PREPARE TRANSACTION');

# More events than fit in memory, with a savepoint rolled back among them.
sql(q{SET work_mem = '64kB'; BEGIN;
	INSERT INTO account (id, name) SELECT i, 'spilled ' || i FROM generate_series(10001, 13000) i;
	SAVEPOINT a;
	INSERT INTO account (id, name) SELECT i, 'undone ' || i FROM generate_series(13001, 16000) i;
	UPDATE account SET name = 'undone' WHERE id BETWEEN 10001 AND 12000;
	ROLLBACK TO a;
	INSERT INTO account (id, name) SELECT i, 'spilled ' || i FROM generate_series(15001, 16000) i;
	UPDATE account SET site = 'changed' WHERE id BETWEEN 12001 AND 13000;
	COMMIT});
in_step('a transaction larger than memory');
sql(q{SET work_mem = '64kB'; BEGIN; DELETE FROM account WHERE id BETWEEN 10001 AND 16000; PREPARE TRANSACTION 'large'});
sql(q{COMMIT PREPARED 'large'});
poll_until(sub { $sim->count('Account') < 1000 }, 'a large prepared transaction is delivered');
in_step('a large prepared transaction');

#
# What is not captured
#
sql(q{SELECT sfsync.pause()});
is(sql(q{SELECT state FROM sfsync.status}), 'paused', 'paused');
is(queued(q{BEGIN; SET LOCAL sfsync.capture = off; INSERT INTO account (id, name) VALUES (4001, 'not captured'); COMMIT}), 0, 'sfsync.capture off');
is(queued(q{INSERT INTO account (id, name) VALUES (4002, 'captured')}), 1, 'SET LOCAL ends with the transaction');
is(queued(q{UPDATE account SET name = name, phone = phone}), 0, 'an UPDATE of nothing');
is(queued(q{UPDATE account SET phone = '7' WHERE id = 4002; UPDATE account SET phone = '8' WHERE id = 4002}), 2, 'two changes');
sql(q{SELECT sfsync.exclude_column('account', 'secret')});
is(queued(q{UPDATE account SET secret = 'other'}), 0, 'an UPDATE of an excluded column');
is(sql(q{SELECT pending FROM sfsync.status}), '1', 'changes of one row are one pending row');
sql(q{DELETE FROM account WHERE id = 4001});
sql(q{SELECT sfsync.resume()});
wait_for_sync($node, 'resumed');
same_records($node, $sim, 'Account', $accounts, 'a record that is not there needs no delete');

# Nothing at all is sent for a row that came and went while nobody looked.
sql(q{SELECT sfsync.pause('account')});
sql(q{INSERT INTO account (id, name) VALUES (4100, 'came')});
sql(q{UPDATE account SET name = 'went' WHERE id = 4100});
sql(q{DELETE FROM account WHERE id = 4100});
$mark = $sim->mark;
sql(q{SELECT sfsync.resume('account')});
in_step('insert and delete before delivery');
is(scalar(writes_since($mark)), 0, 'insert and delete before delivery: nothing is sent');

# Ten updates are one write.
sql(q{SELECT sfsync.pause('account')});
sql(qq{UPDATE account SET phone = '$_' WHERE id = 1001}) foreach 1 .. 10;
$mark = $sim->mark;
sql(q{SELECT sfsync.resume('account')});
in_step('folding');
is(scalar(writes_since($mark)), 1, 'changes of one row are folded into one write');

#
# Who writes needs nothing
#
sql(q{CREATE ROLE writer LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON account TO writer});
sql(q{SET ROLE writer; INSERT INTO account (id, name) VALUES (5001, 'by a writer'); UPDATE account SET site = 'w' WHERE id = 5001;
	UPDATE account SET id = 5002 WHERE id = 5001; DELETE FROM account WHERE id = 5002; INSERT INTO account (id, name) VALUES (5003, 'by a writer')});
refused(q{SET ROLE writer; SELECT * FROM sfsync.queue}, qr/permission denied/, 'a writer sees nothing of the queue');
refused(q{SET ROLE writer; SELECT sfsync.pause()}, qr/permission denied/, 'nor may it pause');
refused(q{SET ROLE writer; SET sfsync.capture = off}, qr/permission denied/, 'nor turn capture off');
refused(q{SET ROLE writer; CREATE TEMP TABLE t (a int); CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION sfsync.capture()},
	qr/permission denied/, 'nor use the trigger function');
in_step('writers without privileges');

#
# TRUNCATE
#
refused(q{TRUNCATE account}, qr/TRUNCATE|truncate.*HINT/s, 'TRUNCATE is refused');
in_step('TRUNCATE');

#
# A column that is added later
#
my $pid = worker_pid($node);
sql(q{ALTER TABLE account ADD COLUMN rating text});
sql(q{UPDATE account SET rating = 'Hot' WHERE id = 1001});
wait_for_sync($node, 'ADD COLUMN: settled');
is($sim->record('Account', '1001')->{Rating}, 'Hot', 'a new column is routed');
is(sql(q{SELECT field, rule, status FROM sfsync.field_map WHERE column_name = 'rating'}), 'Rating|name|mapped', 'and explained');
is(worker_pid($node), $pid, 'without a restart of the worker');
sql(q{BEGIN; ALTER TABLE account ADD COLUMN fax text; UPDATE account SET fax = '9' WHERE id = 1001; COMMIT});
wait_for_sync($node, 'ADD COLUMN and UPDATE in one transaction: settled');
is($sim->record('Account', '1001')->{Fax}, '9', 'a new column is routed in the same transaction');
sql(q{ALTER TABLE account DROP COLUMN rating});
sql(q{UPDATE account SET phone = 'dropped' WHERE id = 1001});
in_step('DROP COLUMN');
sql(q{ALTER TABLE account RENAME COLUMN site TO place});
sql(q{SELECT sfsync.map_field('account', 'Site', 'place')});
sql(q{UPDATE account SET place = 'renamed' WHERE id = 1001});
wait_for_sync($node, 'map_field: settled');
is($sim->record('Account', '1001')->{Site}, 'renamed', 'map_field');
sql(q{ALTER TABLE account RENAME COLUMN place TO site});
sql(q{UPDATE account SET site = 'renamed back' WHERE id = 1001});
in_step('RENAME COLUMN keeps an explicit rule');

#
# Only what changed is sent
#
$sim->post('edit', { object => 'Account', match => { PG_Key__c => '1001' }, fields => { Site => 'by the rep', Description => 'note' } });
$mark = $sim->mark;
sql(q{UPDATE account SET phone = 'ours' WHERE id = 1001});
wait_for_sync($node, 'one field changed: settled');
is($sim->record('Account', '1001')->{Phone}, 'ours', 'the changed field is sent');
is($sim->record('Account', '1001')->{Site}, 'by the rep', 'an edit of another field survives');
is_deeply([ map { join ',', sort grep { !/^(?:attributes|id|PG_Key__c)$/i } keys %$_ } fields_sent($mark) ], ['Phone'], 'and nothing else is sent');
sql(q{UPDATE account SET site = 'ours again' WHERE id = 1001});
in_step('the field itself');

#
# Deleted in Salesforce
#
$sim->post('delete', { object => 'Account', match => { PG_Key__c => '1001' } });
sql(q{UPDATE account SET phone = 'back' WHERE id = 1001});
in_step('a record deleted in Salesforce is created whole when its row changes');
$sim->post('delete', { object => 'Account', match => { PG_Key__c => '1001' } });
sql(q{DELETE FROM account WHERE id = 1001});
in_step('deleted on both sides');
sql(q{INSERT INTO account (id, name) VALUES (1001, 'again')});
in_step('a key that returns');
sql(q{DELETE FROM account WHERE id = 1001; INSERT INTO account (id, name, phone) VALUES (1001, 'reborn', 'x')});
in_step('delete and insert at once');

#
# Key changes
#
my $id = $sim->record('Account', '1001')->{Id};
my $created = $sim->created('Account');
sql(q{UPDATE account SET id = 1002, phone = 'moved' WHERE id = 1001});
in_step('key change');
is($sim->record('Account', '1002')->{Id}, $id, 'a key change keeps the record');
sql(q{SELECT sfsync.pause()});
sql(qq{UPDATE account SET id = id + 1 WHERE id = $_}) foreach 1002, 1003, 1004;
sql(q{UPDATE account SET name = 'chained' WHERE id = 1005});
sql(q{SELECT sfsync.resume()});
in_step('chain of key changes');
is($sim->record('Account', '1005')->{Id}, $id, 'a chain of key changes keeps the record');
sql(q{UPDATE account SET id = 1006 WHERE id = 1005; INSERT INTO account (id, name) VALUES (1005, 'takes the old key')});
in_step('an old key taken by another row');
is($sim->created('Account'), $created + 1, 'which is the only new record');
is($sim->record('Account', '1006')->{Id}, $id, 'and the old record stays with its row');
sql(q{INSERT INTO account (id, name) VALUES (1007, 'moved before it was sent'); UPDATE account SET id = 1008 WHERE id = 1007});
in_step('a key change of a row that was never sent');
sql(q{UPDATE account SET id = 1009 WHERE id = 1008; DELETE FROM account WHERE id = 1009});
in_step('key change, then delete');
$created = $sim->created('Account');
sql(q{BEGIN; UPDATE account SET id = 1 + 1000000 WHERE id = 1006; UPDATE account SET id = 1006 WHERE id = 1005;
	UPDATE account SET id = 1005 WHERE id = 1000001; COMMIT});
in_step('a swap of keys');
is($sim->created('Account'), $created, 'a swap of keys creates no record');

#
# Delete policy
#
sql(q{SELECT sfsync.set_delete_policy('account', 'ignore')});
my $ignored = sql(q{SELECT ignored FROM sfsync.status});
sql(q{DELETE FROM account WHERE id = 1006});
wait_for_sync($node, 'on_delete ignore: settled');
ok($sim->record('Account', '1006'), 'on_delete ignore leaves the record');
poll_query($node, q{SELECT ignored FROM sfsync.status}, 'and counts it', expected => $ignored + 1);
sql(q{INSERT INTO account (id, name) VALUES (1006, 'returned')});
sql(q{SELECT sfsync.set_delete_policy('account', 'delete')});
in_step('the ignored record is taken up when its key returns');
sql(q{SELECT sfsync.pause()});
sql(q{DELETE FROM account WHERE id = 1006});
sql(q{SELECT sfsync.set_delete_policy('account', 'ignore')});
sql(q{SELECT sfsync.resume()});
wait_for_sync($node, 'the policy in force when it is sent: settled');
ok($sim->record('Account', '1006'), 'a pending delete follows the policy in force when it is sent');
$sim->post('delete', { object => 'Account', match => { PG_Key__c => '1006' } });
sql(q{SELECT sfsync.set_delete_policy('account', 'delete')});

#
# Looking ahead
#
is(sql(q{SELECT operation, payload->>'Name', payload->>'PG_Key__c' FROM sfsync.preview('account', '{"id": 1005}')}),
	sql(q{SELECT 'update', name, id::text FROM account WHERE id = 1005}) =~ s/update/OPERATION/r =~ s/OPERATION/sql(q{SELECT operation FROM sfsync.preview('account', '{"id": "1005"}')})/er,
	'preview of one row, by number and by text');

#
# Foreign keys
#
sql(q{CREATE TABLE contact (id text PRIMARY KEY, owner_account integer REFERENCES account ON DELETE CASCADE ON UPDATE SET NULL,
	last_name text NOT NULL, title text)});
sql(q{SELECT sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
sql(q{INSERT INTO account (id, name) VALUES (6001, 'parent'), (6002, 'parent'), (6003, 'parent');
	INSERT INTO contact SELECT 'c' || i, 6001 + i % 3, 'Contact ' || i FROM generate_series(1, 30) i});
my $contacts = q{SELECT id AS "PG_Key__c", last_name AS "LastName", title AS "Title" FROM contact};
in_step('parents');
same_records($node, $sim, 'Contact', $contacts, 'children');
sql(q{DELETE FROM account WHERE id = 6001});
in_step('cascade: parents');
same_records($node, $sim, 'Contact', $contacts, 'cascade: children');
is($sim->count('Contact'), 20, 'a cascade deletes records');

#
# Several key columns
#
sql(q{CREATE TABLE everything (a text, b text, c integer, text_area text, number_2 numeric, PRIMARY KEY (a, b, c))});
sql(q{SELECT sfsync.create_mapping('everything', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
my $everything = q{SELECT concat_ws(':', regexp_replace(a, '([:\\\\])', '\\\\\1', 'g'), regexp_replace(b, '([:\\\\])', '\\\\\1', 'g'), c) AS "PG_Key__c",
	text_area AS "Text_Area__c", number_2 AS "Number_2__c" FROM everything};
sql(q{INSERT INTO everything VALUES ('a', 'b', 1, 'plain', 1.5), ('a:b', '', 2, 'colon', 2), ('a', ':b', 2, 'other colon', 3),
	('a\\', 'b', 3, 'backslash', 4), ('a\\:', 'b', 3, 'both', 5), ('', '', 4, 'empty', 6), ('ä', '日本', -5, 'unicode', 7)});
wait_for_sync($node, 'several key columns: settled');
same_records($node, $sim, 'Everything__c', $everything, 'several key columns');
ok($sim->record('Everything__c', 'a\\:b::2'), 'a colon is escaped');
ok($sim->record('Everything__c', 'a\\\\:b:3'), 'a backslash is escaped');
sql(q{UPDATE everything SET number_2 = number_2 + 0.25; DELETE FROM everything WHERE c = 2});
sql(q{UPDATE everything SET c = c + 100 WHERE a = 'a'});
wait_for_sync($node, 'several key columns: changes settled');
same_records($node, $sim, 'Everything__c', $everything, 'several key columns: changes');

#
# Partitions
#
sql(q{CREATE TABLE invoice (region text, n integer, notes text, quantity integer, PRIMARY KEY (region, n)) PARTITION BY LIST (region);
	CREATE TABLE invoice_east PARTITION OF invoice FOR VALUES IN ('east');
	CREATE TABLE invoice_west PARTITION OF invoice FOR VALUES IN ('west') PARTITION BY RANGE (n);
	CREATE TABLE invoice_west_1 PARTITION OF invoice_west FOR VALUES FROM (0) TO (100);
	CREATE TABLE invoice_rest (notes text, extra text, quantity integer, n integer NOT NULL, region text NOT NULL);
	ALTER TABLE invoice_rest DROP COLUMN extra;
	INSERT INTO invoice VALUES ('east', 1, 'existing', 1), ('west', 1, 'existing', 1)});
sql(q{SELECT sfsync.create_mapping('invoice', 'Invoice__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
my $invoices = q{SELECT region || ':' || n AS "PG_Key__c", notes AS "Notes__c", quantity AS "Quantity__c" FROM invoice};

sub invoices_in_step
{
	my ($name) = @_;

	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Invoice__c', $invoices, "$name: records equal the table");
	return;
}
invoices_in_step('partitions: backfill');
sql(q{INSERT INTO invoice VALUES ('east', 2, 'by the parent', 2), ('west', 2, 'by the parent', 2); INSERT INTO invoice_east VALUES ('east', 3, 'by the partition', 3);
	UPDATE invoice SET quantity = 9 WHERE n = 1; DELETE FROM invoice_west_1 WHERE n = 1});
invoices_in_step('partitions');
sql(q{UPDATE invoice SET region = 'west', notes = 'moved' WHERE region = 'east' AND n = 3});
invoices_in_step('a row moves to another partition');
sql(q{ALTER TABLE invoice ATTACH PARTITION invoice_rest DEFAULT; INSERT INTO invoice VALUES ('north', 1, 'columns in other order', 5)});
sql(q{UPDATE invoice_rest SET quantity = 6});
invoices_in_step('a partition whose columns stand in another order');
sql(q{UPDATE invoice SET region = 'north', notes = 'moved there' WHERE region = 'west' AND n = 2});
invoices_in_step('a row moves to it');
refused(q{TRUNCATE invoice}, qr/truncate/i, 'TRUNCATE of a partitioned table is refused');
refused(q{TRUNCATE invoice_east}, qr/truncate/i, 'TRUNCATE of a partition is refused');
refused(q{TRUNCATE invoice_west_1}, qr/truncate/i, 'TRUNCATE of a partition of a partition is refused');
refused(q{TRUNCATE invoice_rest}, qr/truncate/i, 'TRUNCATE of an attached partition is refused');
sql(q{CREATE TABLE invoice_south PARTITION OF invoice FOR VALUES IN ('south'); INSERT INTO invoice VALUES ('south', 1, 'new partition', 1)});
invoices_in_step('a new partition');
refused(q{TRUNCATE invoice_south}, qr/truncate/i, 'TRUNCATE of a new partition is refused');

#
# End
#
same_state($node, 'nothing is left on the way');
is(0 + $sim->stats->{same_record_overlap}, 0, 'two writes of one record were never in flight together');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', 'no dead letters');
sql(q{SELECT sfsync.pause(); INSERT INTO account (id, name) VALUES (9001, 'pending')});
refused(q{SELECT sfsync.drop_mapping('account')}, qr/pending/, 'drop_mapping refuses while changes are pending');
sql(q{SELECT sfsync.drop_mapping('account', discard_pending => true)});
is(sql(q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'account'::regclass AND tgname LIKE '%sfsync%'}), '0', 'drop_mapping takes the triggers off');
is(sql(q{SELECT count(*) FROM sfsync.queued}), '0', 'and the pending changes');
sql(q{SELECT sfsync.drop_mapping('invoice')});
sql(q{TRUNCATE invoice});
unlike(log_since($node), qr/PANIC|TRAP|terminated by signal/, 'no crash');
$node->stop;
done_testing();
