# What is deleted in one go: TRUNCATE, the delete guard, partitions that come and go.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone" FROM account};
my $invoices = q{SELECT region || ':' || n AS "PG_Key__c", notes AS "Notes__c" FROM invoice};
my $sim = simulator();
my $node = new_node('deletes');

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

sub in_step
{
	my ($name) = @_;

	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Account', $accounts, "$name: records equal the table");
	same_state($node, "$name: nothing is left");
	return;
}

sub invoices_in_step
{
	my ($name) = @_;

	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Invoice__c', $invoices, "$name: records equal the table");
	same_state($node, "$name: nothing is left");
	return;
}

# So many changes of a mapping are held, all for one reason.
sub held
{
	my ($mapping, $n, $reason, $name) = @_;

	wait_for_sync($node, "$name: settled");
	is(sql(qq{SELECT held, pending FROM sfsync.status WHERE mapping = '$mapping'}), "$n|0", "$name: held");
	like(
		sql(qq{SELECT string_agg(DISTINCT d.reason, '; ') FROM sfsync.deferred d JOIN sfsync.mapping m ON m.id = d.mapping
			WHERE m.name = '$mapping' AND d.state = 'held'}),
		$reason, "$name: the reason")
	  if $n > 0;
	return;
}

# Ids of live records by key: whether a record is the one that it was.
sub ids
{
	my ($object) = @_;
	return { map { $_->{PG_Key__c} => $_->{Id} } @{ $sim->records($object) } };
}

sub key_list
{
	my ($object) = @_;
	return join(',', sort map { $_->{PG_Key__c} } @{ $sim->records($object) });
}

sub guard
{
	my ($n) = @_;
	sql("SELECT sfsync.set_delete_policy('account', NULL, delete_guard => $n)");
	return;
}

connect_salesforce($node, $sim);
account_table($node);
sql(q{INSERT INTO account (id, name) SELECT i, 'Account ' || i FROM generate_series(1, 60) i});
in_step('start');

#
# The guard
#
is(sql(q{SELECT delete_guard, on_truncate FROM sfsync.mapping}), '1000|refuse', 'defaults');
guard(10);
my $mark = $sim->mark;
my $log = -s $node->logfile;
sql(q{DELETE FROM account WHERE id BETWEEN 1 AND 10});
in_step('as many deletes as the guard allows');
sql(q{BEGIN; DELETE FROM account WHERE id BETWEEN 11 AND 21; UPDATE account SET phone = 'with it' WHERE id > 50;
	INSERT INTO account (id, name) VALUES (100, 'with it'); COMMIT});
held('account', 11, qr/^its transaction deletes more rows than delete_guard allows; .*sfsync\.release_deletes.*sfsync\.discard_deletes/, 'one more');
is($sim->count('Account'), 51, 'nothing was deleted, and the insert of the same transaction came');
is($sim->record('Account', '60')->{Phone}, 'with it', 'so did its updates');
is(scalar(grep { $_->{method} eq 'DELETE' } $sim->requests($mark)), 1, 'one request deleted, the first');
like(log_since($node, $log), qr/LOG:  sfsync: a transaction deletes 11 rows of table "account", more than delete_guard \(10\)/, 'the log says so');

# An insert cancels the hold of its key alone, and keeps the record.
my $ids = ids('Account');
sql(q{INSERT INTO account (id, name) VALUES (11, 'back again')});
held('account', 10, qr/delete_guard/, 'a key that returns');
is($sim->record('Account', '11')->{Name}, 'back again', 'is written');
is($sim->record('Account', '11')->{Id}, $ids->{11}, 'to its record');
sql(q{DELETE FROM account WHERE id = 11});
held('account', 10, qr/delete_guard/, 'its next delete');
is($sim->record('Account', '11'), undef, 'goes');

# An older delete is not moved by a newer one, nor by a restart.
sql(q{BEGIN; SET LOCAL sfsync.capture = off; INSERT INTO account (id, name) VALUES (12, 'unseen'); COMMIT; DELETE FROM account WHERE id = 12});
held('account', 10, qr/delete_guard/, 'a delete of what is held');
$node->restart;
sql(q{INSERT INTO account (id, name) VALUES (101, 'after the restart')});
held('account', 10, qr/delete_guard/, 'a restart');

is(sql(q{SELECT sfsync.release_deletes('account')}), '10', 'release_deletes returns the number');
in_step('released');
is(sql(q{SELECT sfsync.release_deletes('account')}), '0', 'nothing is left to release');
is(sql(q{SELECT sfsync.discard_deletes('account')}), '0', 'nor to discard');

# Discarded ones leave record and memory of it.
sql(q{DELETE FROM account WHERE id BETWEEN 22 AND 40});
held('account', 19, qr/delete_guard/, 'to be discarded');
sql(q{BEGIN; SELECT sfsync.discard_deletes('account'); ROLLBACK});
is(sql(q{SELECT held FROM sfsync.status}), '19', 'a rolled back discard_deletes does nothing');
$ids = ids('Account');
is(sql(q{SELECT sfsync.discard_deletes('account')}), '19', 'discard_deletes returns the number');
held('account', 0, qr/./, 'discarded');
ok($sim->record('Account', '22'), 'the record stays');
is(sql(q{SELECT count(*) FROM sfsync.record WHERE key = '22'}), '1', 'and is known');
sql(q{INSERT INTO account (id, name) SELECT i, 'Account ' || i FROM generate_series(22, 40) i});
in_step('rows that return');
is_deeply(ids('Account'), $ids, 'take up their records');

# Net deletes: what is inserted again is none, nor what the transaction itself made.
sql(q{BEGIN; DELETE FROM account; INSERT INTO account (id, name) SELECT i, 'reloaded ' || i FROM generate_series(22, 60) i; COMMIT});
in_step('a reload');
is_deeply([ sort keys %{ ids('Account') } ], [ sort 22 .. 60 ], 'the two that did not come back are deleted');
is(ids('Account')->{30}, $ids->{30}, 'the others are the same records');
sql(q{BEGIN; INSERT INTO account (id, name) SELECT i, 'brief' FROM generate_series(200, 260) i; DELETE FROM account WHERE id >= 200; COMMIT});
in_step('rows that came and went');
sql(q{BEGIN; SAVEPOINT s; DELETE FROM account WHERE id <= 50; ROLLBACK TO s; DELETE FROM account WHERE id = 22; COMMIT});
in_step('deletes that were rolled back don\'t count');
sql(q{BEGIN; UPDATE account SET id = id + 1000 WHERE id BETWEEN 30 AND 50; COMMIT});
in_step('nor do key changes');
sql(q{BEGIN; UPDATE account SET id = id + 1000 WHERE id BETWEEN 1030 AND 1050; DELETE FROM account WHERE id > 2000; COMMIT});
held('account', 21, qr/delete_guard/, 'rows that were deleted under another key');
is(sql(q{SELECT sfsync.release_deletes('account')}), '21', 'released');
in_step('rows that were deleted under another key');

# Two-phase commit, and more notes than fit in memory.
sql(q{INSERT INTO account (id, name) SELECT i, 'Account ' || i FROM generate_series(1, 4000) i ON CONFLICT DO NOTHING});
in_step('more rows');
sql(q{SET work_mem = '64kB'; BEGIN; DELETE FROM account WHERE id <= 3000; INSERT INTO account (id, name) SELECT i, 'second' FROM generate_series(12, 3000) i;
	PREPARE TRANSACTION 'guarded'});
sql(q{COMMIT PREPARED 'guarded'});
poll_query($node, q{SELECT held FROM sfsync.status}, 'prepared, spilled: eleven net deletes are held', expected => '11');
held('account', 11, qr/delete_guard/, 'prepared, spilled');
is(sql(q{SELECT sfsync.release_deletes('account')}), '11', 'released');
in_step('prepared, spilled');

guard(0);
sql(q{DELETE FROM account WHERE id > 100});
in_step('no guard');
guard(10);

# Under ignore there is nothing to hold.
sql(q{SELECT sfsync.set_delete_policy('account', 'ignore')});
my $ignored = sql(q{SELECT ignored FROM sfsync.status});
sql(q{DELETE FROM account WHERE id BETWEEN 81 AND 100});
wait_for_sync($node, 'ignore: settled');
poll_query($node, q{SELECT held, ignored FROM sfsync.status}, 'ignore: ignored, not held', expected => '0|' . ($ignored + 20));
sql(q{INSERT INTO account (id, name) SELECT i, 'Account ' || i FROM generate_series(81, 100) i; SELECT sfsync.set_delete_policy('account', 'delete')});
in_step('ignore: rows that return');

# Held deletes follow the policy in force when they are sent.
my $count = $sim->count('Account');
sql(q{DELETE FROM account WHERE id BETWEEN 81 AND 100});
held('account', 20, qr/delete_guard/, 'a change of policy');
sql(q{SELECT sfsync.set_delete_policy('account', 'ignore')});
held('account', 20, qr/delete_guard/, 'leaves held what is held');
sql(q{SELECT sfsync.release_deletes('account')});
wait_for_sync($node, 'released under ignore: settled');
is($sim->count('Account'), $count, 'released under ignore: the records stay');
sql(q{INSERT INTO account (id, name) SELECT i, 'Account ' || i FROM generate_series(81, 100) i; SELECT sfsync.set_delete_policy('account', 'delete')});
in_step('released under ignore: rows that return');

# What is paused is held when it is come to.
sql(q{SELECT sfsync.pause('account')});
sql(q{UPDATE account SET phone = 'before' WHERE id <= 40});
sql(q{DELETE FROM account WHERE id BETWEEN 21 AND 40});
sql(q{INSERT INTO account (id, name) VALUES (21, 'after')});
sql(q{SELECT sfsync.resume('account')});
held('account', 19, qr/delete_guard/, 'changes before and after');
is($sim->record('Account', '21')->{Name}, 'after', 'the row that returned is written');
is($sim->record('Account', '22')->{Phone}, undef, 'the others are left as they were');
is(sql(q{SELECT sfsync.release_deletes('account')}), '19', 'released');
in_step('changes before and after');

# A missing row that nobody deleted can be sent as a delete, or given up.
sub missing_row
{
	sql(q{SELECT sfsync.pause('account')});
	sql(q{UPDATE account SET phone = 'gone' WHERE id = 50});
	sql(q{BEGIN; SET LOCAL sfsync.capture = off; DELETE FROM account WHERE id = 50; COMMIT});
	sql(q{SELECT sfsync.resume('account')});
	held('account', 1, qr/no delete of it was captured/, 'a missing row');
	return;
}
missing_row();
is(sql(q{SELECT sfsync.discard_deletes('account')}), '1', 'a missing row can be discarded');
held('account', 0, qr/./, 'a missing row that was discarded');
ok($sim->record('Account', '50'), 'its record stays');
sql(q{INSERT INTO account (id, name) VALUES (50, 'again')});
in_step('a missing row returns');
missing_row();
is(sql(q{SELECT sfsync.release_deletes('account')}), '1', 'a missing row can be released');
in_step('a missing row that was released');

# One that was refused before, and is gone when it is tried again: its dead letter ends with the held change.
sub missing_refused
{
	my ($id) = @_;

	sql("INSERT INTO account (id, name) VALUES ($id, repeat('x', 300))");
	wait_for_sync($node, "row $id is refused");
	sql("BEGIN; SET LOCAL sfsync.capture = off; DELETE FROM account WHERE id = $id; COMMIT");
	is(sql("SELECT count(*) FROM sfsync.dead_letter WHERE external_id = '$id' AND sfsync.retry(id)"), '1', "row $id is tried again");
	held('account', 1, qr/no delete of it was captured/, "row $id, refused and missing");
	return;
}
my $letter = q{SELECT status, note, resolved_at IS NOT NULL FROM sfsync.dead_letter WHERE external_id =};
missing_refused(151);
is(sql(q{SELECT sfsync.discard_deletes('account')}), '1', 'refused and missing, it can be discarded');
is(sql("$letter '151'"), 'discarded|given up with the held delete of the row|t', 'and its dead letter is');
missing_refused(152);
is(sql(q{SELECT sfsync.release_deletes('account')}), '1', 'or released');
wait_for_sync($node, 'refused, missing and released: settled');
is(sql("$letter '152'"), 'resolved|retried|t', 'and its dead letter is resolved');
missing_refused(153);
is(sql(q{SELECT sfsync.discard(id, 'gone') FROM sfsync.dead_letter WHERE external_id = '153'}), 't', 'or its dead letter can be discarded');
is(sql("$letter '153'"), 'discarded|gone|t', 'with the reason');
is(sql(q{SELECT held, pending, dead_letters FROM sfsync.status}), '0|0|0', 'and nothing is left of any');
sql(q{SELECT sfsync.set_delete_policy('account', NULL, delete_guard => 1)});
sql(q{INSERT INTO account (id, name) VALUES (154, 'good'), (155, 'good')});
wait_for_sync($node, 'two more rows');
sql(q{UPDATE account SET name = repeat('x', 300) WHERE id > 153});
wait_for_sync($node, 'they are refused');
sql(q{UPDATE sfsync.deferred SET due_at = due_at + interval '1 hour'});
sql(q{DELETE FROM account WHERE id > 153});
held('account', 2, qr/delete_guard/, 'their deletes, though they wait for another attempt');
is(sql(q{SELECT sfsync.discard_deletes('account')}), '2', 'are discarded');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status IN ('open', 'retrying')}), '0', 'and the dead letters of the rows, too');
is($sim->record('Account', '154')->{Name}, 'good', 'their records stay');
sql(q{INSERT INTO account (id, name) VALUES (154, 'again'), (155, 'again')});
in_step('they return');
sql(q{DELETE FROM account WHERE id = 154});
sql(q{DELETE FROM account WHERE id = 155});
in_step('they go');
sql(q{SELECT sfsync.set_delete_policy('account', NULL, delete_guard => 10)});

#
# TRUNCATE
#
refused(q{TRUNCATE account}, qr/cannot truncate.*set_delete_policy\('account', NULL, on_truncate => 'apply'\)/s, 'refuse says how to allow it');
in_step('a refused TRUNCATE');
sql(q{SELECT sfsync.set_delete_policy('account', NULL, on_truncate => 'apply')});
sql(q{BEGIN; TRUNCATE account; ROLLBACK});
sql(q{BEGIN; SAVEPOINT s; TRUNCATE account; ROLLBACK TO s; COMMIT});
in_step('a rolled back TRUNCATE');
sql(q{TRUNCATE account});
held('account', $sim->count('Account'), qr/delete_guard/, 'TRUNCATE over the guard');
sql(q{INSERT INTO account (id, name) SELECT i, 'reloaded ' || i FROM generate_series(40, 60) i});
held('account', scalar(grep { $_ < 40 || $_ > 60 } keys %{ ids('Account') }), qr/delete_guard/, 'the load after it');
sql(q{SELECT sfsync.release_deletes('account')});
in_step('TRUNCATE over the guard, released');
guard(0);
$ids = ids('Account');
sql(q{BEGIN; INSERT INTO account (id, name) VALUES (61, 'before'), (62, 'before'); UPDATE account SET id = 63 WHERE id = 40; TRUNCATE account RESTART IDENTITY;
	INSERT INTO account (id, name) VALUES (41, 'after'), (62, 'after'); COMMIT});
in_step('rows before and after TRUNCATE');
is(ids('Account')->{41}, $ids->{41}, 'a row that is inserted again keeps its record');
sql(q{SELECT sfsync.pause('account')});
sql(q{INSERT INTO account (id, name) VALUES (70, 'never sent'); UPDATE account SET phone = 'never sent' WHERE id = 41});
$mark = $sim->mark;
sql(q{TRUNCATE account; SELECT sfsync.resume('account')});
in_step('TRUNCATE cancels what is pending');
is(scalar(grep { ($_->{body} // '') =~ /never sent/ } $sim->requests($mark)), 0, 'and nothing of it is sent');

# While rows are on their way.
$sim->fault(name => 'slow', match => { kind => [ 'collections_upsert', 'composite' ] }, action => { delay => 1 }, times => 4);
sql(q{INSERT INTO account (id, name) SELECT i, 'Account ' || i FROM generate_series(1, 600) i});
poll_query($node, q{SELECT in_flight > 0 FROM sfsync.status}, 'rows are in flight');
sql(q{TRUNCATE account});
is($sim->count('Account'), 0, 'before they came');
in_step('TRUNCATE while rows are in flight');
is($sim->count('Account'), 0, 'TRUNCATE while rows are in flight: none stays');
$sim->clear_faults;

# A backfill, too: rows that no trigger has seen.
$sim->fault(name => 'slow', match => { kind => [ 'collections_upsert', 'composite' ] }, action => { delay => 1 }, times => 4);
sql(q{BEGIN; SET LOCAL sfsync.capture = off; INSERT INTO account (id, name) SELECT i, 'Account ' || i FROM generate_series(1, 3000) i; COMMIT});
sql(q{SELECT sfsync.backfill('account')});
poll_query($node, q{SELECT in_flight > 0 FROM sfsync.status}, 'a backfill is under way');
sql(q{TRUNCATE account});
in_step('TRUNCATE during a backfill');
is($sim->count('Account'), 0, 'TRUNCATE during a backfill: no record stays');
is(sql(q{SELECT state FROM sfsync.backfill_progress ORDER BY id DESC LIMIT 1}), 'done', 'TRUNCATE during a backfill: it ends');
$sim->clear_faults;

# Dead letters of rows that are gone are over.
sql(q{INSERT INTO account (id, name) VALUES (1, repeat('x', 300))});
wait_for_sync($node, 'a dead letter: settled');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '1', 'a dead letter');
sql(q{TRUNCATE account});
in_step('TRUNCATE resolves dead letters');

# CASCADE reaches a mapped table, whose own policy counts.
sql(q{CREATE TABLE contact (id integer PRIMARY KEY, account_id integer REFERENCES account, last_name text NOT NULL);
	SELECT sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
sql(q{INSERT INTO account (id, name) VALUES (1, 'parent'); INSERT INTO contact VALUES (1, 1, 'child'), (2, NULL, 'child')});
in_step('a child');
refused(q{TRUNCATE account CASCADE}, qr/cannot truncate table "contact"/, 'CASCADE into a table that refuses');
sql(q{SELECT sfsync.set_delete_policy('contact', NULL, on_truncate => 'apply')});
sql(q{TRUNCATE account CASCADE});
in_step('CASCADE');
is($sim->count('Contact'), 0, 'CASCADE: the children are gone, too');

# Writers need no rights; capture can be off.
sql(q{CREATE ROLE writer LOGIN; GRANT ALL ON account TO writer; GRANT ALL ON contact TO writer});
sql(q{INSERT INTO account (id, name) VALUES (1, 'one'), (2, 'two')});
in_step('before a writer\'s TRUNCATE');
sql(q{SET ROLE writer; TRUNCATE account, contact});
in_step('a writer\'s TRUNCATE');
sql(q{INSERT INTO account (id, name) VALUES (1, 'one')});
in_step('before a TRUNCATE that is not captured');
sql(q{BEGIN; SET LOCAL sfsync.capture = off; TRUNCATE account, contact; COMMIT});
wait_for_sync($node, 'a TRUNCATE that is not captured: settled');
ok($sim->record('Account', '1'), 'a TRUNCATE that is not captured leaves the records');
sql(q{TRUNCATE account, contact});
in_step('the next one deletes every record that is known');

# Two-phase commit: the table is locked meanwhile, and what is in flight comes in between.
sql(q{INSERT INTO account (id, name) SELECT i, 'Account ' || i FROM generate_series(1, 50) i; INSERT INTO contact VALUES (1, 1, 'child')});
in_step('before a prepared TRUNCATE');
$sim->fault(name => 'slow', match => { kind => [ 'collections_update', 'composite' ] }, action => { delay => 1 }, times => 4);
sql(q{UPDATE account SET phone = 'in flight'});
poll_query($node, q{SELECT in_flight > 0 FROM sfsync.status WHERE mapping = 'account'}, 'updates are in flight');
$ids = ids('Account');
sql(q{BEGIN; TRUNCATE account, contact; INSERT INTO account (id, name) VALUES (1, 'after'); PREPARE TRANSACTION 'emptied'});
poll_query($node, q{SELECT in_flight FROM sfsync.status WHERE mapping = 'account'}, 'they end', expected => '0');
is($sim->count('Account'), 50, 'a prepared TRUNCATE deletes nothing');
sql(q{COMMIT PREPARED 'emptied'});
poll_until(sub { $sim->count('Account') == 1 }, 'its commit does');
in_step('a prepared TRUNCATE');
is_deeply(ids('Account'), { 1 => $ids->{1} }, 'but for the row that was inserted again');
$sim->clear_faults;
sql(q{TRUNCATE account, contact});
in_step('empty');

# ignore counts them.
sql(q{INSERT INTO account (id, name) VALUES (1, 'one'), (2, 'two'); SELECT sfsync.set_delete_policy('account', 'ignore')});
wait_for_sync($node, 'ignore: settled');
$ignored = sql(q{SELECT ignored FROM sfsync.status WHERE mapping = 'account'});
sql(q{TRUNCATE account, contact});
wait_for_sync($node, 'TRUNCATE under ignore: settled');
poll_query($node, q{SELECT ignored FROM sfsync.status WHERE mapping = 'account'}, 'TRUNCATE under ignore counts', expected => $ignored + 2);
is($sim->count('Account'), 2, 'and leaves the records');
sql(q{SELECT sfsync.set_delete_policy('account', 'delete'); INSERT INTO account (id, name) VALUES (1, 'one'), (2, 'two')});
in_step('ignore: rows that return');

#
# Partitions
#
sql(q{CREATE TABLE invoice (region text, n integer, notes text, PRIMARY KEY (region, n)) PARTITION BY LIST (region);
	CREATE TABLE invoice_east PARTITION OF invoice FOR VALUES IN ('east');
	CREATE TABLE invoice_west PARTITION OF invoice FOR VALUES IN ('west') PARTITION BY RANGE (n);
	CREATE TABLE invoice_west_1 PARTITION OF invoice_west FOR VALUES FROM (0) TO (10);
	CREATE TABLE invoice_west_2 PARTITION OF invoice_west FOR VALUES FROM (10) TO (20);
	CREATE TABLE "In""voice" (notes text, gone text, n integer NOT NULL, region text NOT NULL CHECK (region = 'north'));
	ALTER TABLE "In""voice" DROP COLUMN gone;
	INSERT INTO "In""voice" VALUES ('loaded before', 1, 'north'), ('loaded before', 2, 'north');
	INSERT INTO invoice SELECT r, i, 'existing' FROM unnest('{east,west}'::text[]) r, generate_series(1, 14) i WHERE r = 'west' OR i < 6});
sql(q{SELECT sfsync.create_mapping('invoice', 'Invoice__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
invoices_in_step('partitions');

# ATTACH
sql(q{ALTER TABLE invoice ATTACH PARTITION "In""voice" FOR VALUES IN ('north')});
invoices_in_step('ATTACH PARTITION');
is(key_list('Invoice__c') =~ /north:1,north:2/ ? 1 : 0, 1, 'sends its rows');

# DETACH
sql(q{UPDATE invoice SET notes = 'changed' WHERE region = 'north'; INSERT INTO invoice VALUES ('north', 3, 'new')});
invoices_in_step('before DETACH');
sql(q{SELECT sfsync.pause('invoice'); UPDATE invoice SET notes = 'not sent yet' WHERE n = 3; INSERT INTO invoice VALUES ('north', 4, 'never sent')});
sql(q{BEGIN; ALTER TABLE invoice DETACH PARTITION "In""voice"; ROLLBACK});
sql(q{ALTER TABLE invoice DETACH PARTITION "In""voice"; SELECT sfsync.resume('invoice')});
held('invoice', 3, qr/^partition public\."In""voice" left the table; .*sfsync\.release_deletes.*sfsync\.discard_deletes/, 'DETACH PARTITION');
is(sql(q{SELECT count(*) FROM pg_trigger WHERE tgrelid = '"In""voice"'::regclass AND tgname LIKE 'sfsync%'}), '0', 'takes the triggers off');
is(key_list('Invoice__c') =~ /north:1,north:2,north:3(?!,north:4)/ ? 1 : 0, 1, 'leaves the records, and makes none');
sql(q{DELETE FROM "In""voice" WHERE n = 1; UPDATE "In""voice" SET notes = 'on its own'; TRUNCATE "In""voice"; INSERT INTO "In""voice" VALUES ('returned', 2, 'north')});
held('invoice', 3, qr/left the table/, 'what happens to the detached table');
sql(q{ALTER TABLE invoice ATTACH PARTITION "In""voice" FOR VALUES IN ('north')});
held('invoice', 2, qr/left the table/, 'attached again');
is($sim->record('Invoice__c', 'north:2')->{Notes__c}, 'returned', 'rows that return are written');
is(sql(q{SELECT sfsync.release_deletes('invoice')}), '2', 'released');
invoices_in_step('DETACH, released');

# DETACH CONCURRENTLY
sql(q{ALTER TABLE invoice DETACH PARTITION "In""voice" CONCURRENTLY});
held('invoice', 1, qr/"In""voice" left the table/, 'DETACH CONCURRENTLY');
is(sql(q{SELECT sfsync.discard_deletes('invoice')}), '1', 'discarded');
held('invoice', 0, qr/./, 'DETACH, discarded');
ok($sim->record('Invoice__c', 'north:2'), 'the record stays');
sql(q{ALTER TABLE invoice ATTACH PARTITION "In""voice" FOR VALUES IN ('north')});
invoices_in_step('attached once more');

# DROP
sql(q{BEGIN; DROP TABLE invoice_east; ROLLBACK});
invoices_in_step('a rolled back DROP');
sql(q{DROP TABLE invoice_east});
held('invoice', 5, qr/partition public\.invoice_east left the table/, 'DROP of a partition');
sql(q{SELECT sfsync.release_deletes('invoice')});
invoices_in_step('DROP, released');
sql(q{CREATE SCHEMA old; ALTER TABLE "In""voice" SET SCHEMA old; DROP SCHEMA old CASCADE});
held('invoice', 1, qr/old\."In""voice" left/, 'DROP SCHEMA CASCADE');
sql(q{SELECT sfsync.release_deletes('invoice')});
invoices_in_step('DROP SCHEMA CASCADE, released');

# Rows of which no record is known are no concern.
sql(q{CREATE TABLE invoice_south PARTITION OF invoice FOR VALUES IN ('south');
	BEGIN; SET LOCAL sfsync.capture = off; INSERT INTO invoice SELECT 'south', i, 'unknown' FROM generate_series(1, 5) i; COMMIT});
sql(q{DROP TABLE invoice_south});
held('invoice', 0, qr/./, 'DROP of a partition that nothing is known of');

# A row that moves to another partition is a delete and an insert, not a lost record.
$ids = ids('Invoice__c');
sql(q{CREATE TABLE invoice_down PARTITION OF invoice FOR VALUES IN ('down')});
sql(q{UPDATE invoice SET region = 'down' WHERE region = 'west' AND n = 1});
invoices_in_step('a row moves to another partition');
isnt($sim->record('Invoice__c', 'down:1')->{Id}, $ids->{'west:1'}, 'with its key changed it has another record');

# TRUNCATE of a partition, of one with partitions, of all.
refused(q{TRUNCATE invoice_west_1}, qr/cannot truncate table "invoice_west_1"/, 'TRUNCATE of a partition is refused');
sql(q{SELECT sfsync.set_delete_policy('invoice', NULL, on_truncate => 'apply', delete_guard => 7)});
sql(q{INSERT INTO invoice VALUES ('west', 2, 'x') ON CONFLICT DO NOTHING});
sql(q{TRUNCATE invoice_west_2});
invoices_in_step('TRUNCATE of a partition');
is(key_list('Invoice__c'), 'down:1,west:2,west:3,west:4,west:5,west:6,west:7,west:8,west:9', 'deletes its rows\' records alone');
sql(q{TRUNCATE invoice_west});
held('invoice', 8, qr/delete_guard/, 'TRUNCATE of a partition with partitions');
sql(q{INSERT INTO invoice VALUES ('west', 2, 'x')});
sql(q{SELECT sfsync.release_deletes('invoice')});
invoices_in_step('TRUNCATE of a partition with partitions, released');
sql(q{BEGIN; INSERT INTO invoice VALUES ('west', 15, 'before'); TRUNCATE invoice_west_2, invoice_down; INSERT INTO invoice VALUES ('west', 16, 'after'); COMMIT});
invoices_in_step('TRUNCATE of partitions, rows before and after');
sql(q{TRUNCATE invoice});
invoices_in_step('TRUNCATE of all');
is($sim->count('Invoice__c'), 0, 'TRUNCATE of all: no record is left');

# With the table itself partitions don't leave, they are gone.
sql(q{INSERT INTO invoice VALUES ('west', 1, 'x'), ('down', 1, 'x')});
invoices_in_step('before DROP');
sql(q{DROP TABLE invoice});
is(sql(q{SELECT count(*) FROM sfsync.queue}), '0', 'DROP of the table queues nothing');
poll_query($node, q{SELECT state FROM sfsync.status WHERE mapping = 'invoice'}, 'its mapping is blocked', expected => 'blocked');
sql(q{SELECT sfsync.drop_mapping('invoice')});

#
# Who may
#
sql(q{CREATE ROLE other LOGIN; GRANT USAGE ON SCHEMA sfsync TO other});
refused("SET ROLE other; SELECT sfsync.${_}_deletes('account')", qr/permission denied for function ${_}_deletes/, "${_}_deletes is not everybody's")
  foreach qw(release discard);
sql(q{GRANT EXECUTE ON FUNCTION sfsync.release_deletes, sfsync.discard_deletes TO other});
refused("SET ROLE other; SELECT sfsync.${_}_deletes('account')", qr/must be owner of mapping "account"/, "${_}_deletes wants the owner")
  foreach qw(release discard);
sql(q{DROP EXTENSION sfsync CASCADE});
sql(q{CREATE TABLE p (id integer PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); DROP TABLE p1; DROP TABLE p});
pass('partitions are dropped without the extension, too');

is($sim->stats->{same_record_overlap}, 0, 'two writes of one record were never in flight together');
unlike(log_since($node), qr/PANIC|TRAP|terminated by signal/, 'no crash');
$node->stop;
done_testing();
