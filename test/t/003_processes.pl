# Launcher and workers: there when they are needed, gone when they are in the way, never in a transaction while they wait.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;
use Time::HiRes qw(time);

my $sim = simulator();
my $node = new_node('processes', conf => "sfsync.request_timeout = '60s'\n");
my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone" FROM account};

sub sql
{
	my ($statement, $database) = @_;
	return $node->safe_psql($database || 'postgres', $statement);
}

sub workers
{
	return sql(q{SELECT coalesce(string_agg(datname, ',' ORDER BY datname), '') FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});
}

sub workers_are
{
	my ($expected, $name) = @_;

	poll_query($node, q{SELECT coalesce(string_agg(datname, ',' ORDER BY datname), '') FROM pg_stat_activity WHERE backend_type = 'sfsync worker'},
		$name, expected => $expected);
	return;
}

# Meanwhile a request hangs; how long the action takes then.
sub while_hanging
{
	my ($name, $action, $database) = @_;
	my $seconds;

	$sim->fault(name => 'hang', match => { kind => [ 'collections_upsert', 'collections_update' ] }, action => { hang => 4 });
	sql(q{INSERT INTO account (id, name) SELECT coalesce(max(id), 0) + 1, 'hanging' FROM account}, $database);
	poll_until(sub { $sim->hits('hang') > 0 }, "$name: a request hangs");
	$seconds = seconds_of($action);
	cmp_ok($seconds, '<', 1, "$name takes less than a second while a request hangs");
	$sim->clear_faults;
	return;
}

sub in_step
{
	my ($name, $database) = @_;

	wait_for_sync($node, "$name: settled", database => $database);
	same_records($node, $sim, 'Account', $accounts, "$name: records equal the table", database => $database);
	return;
}

#
# Workers come and go
#
workers_are('', 'no worker without the extension');
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sfsync launcher'}), '1', 'one launcher');
sql('CREATE EXTENSION sfsync');
workers_are('postgres', 'CREATE EXTENSION starts a worker');
sql('BEGIN; DROP EXTENSION sfsync; ROLLBACK');
sql('SELECT 1');
is(workers(), 'postgres', 'a DROP EXTENSION that is rolled back leaves it');
sql('DROP EXTENSION sfsync');
workers_are('', 'DROP EXTENSION stops it');
sql('BEGIN; CREATE EXTENSION sfsync; ROLLBACK');
is(workers(), '', 'a CREATE EXTENSION that is rolled back starts none');
connect_salesforce($node, $sim);
account_table($node);
sql(q{INSERT INTO account (id, name) VALUES (1, 'one')});
in_step('a first row');
$node->restart;
workers_are('postgres', 'a restart brings it back');
sql(q{INSERT INTO account (id, name) VALUES (2, 'two')});
in_step('after a restart');
my $pid = worker_pid($node);
sql("SELECT pg_terminate_backend($pid)");
poll_until(sub { my $now = worker_pid($node); $now && $now ne $pid }, 'pg_terminate_backend: another worker comes');
sql(q{INSERT INTO account (id, name) VALUES (3, 'three')});
in_step('after pg_terminate_backend');

#
# Several databases
#
sql('CREATE DATABASE second');
sql('CREATE DATABASE third');
sql('CREATE EXTENSION sfsync', $_) foreach 'second', 'third';
workers_are('postgres,second,third', 'one worker a database');
$node->restart;
workers_are('postgres,second,third', 'after a restart too');
my $other = simulator();
connect_salesforce($node, $other, database => 'second');
account_table($node, database => 'second');
sql(q{INSERT INTO account (id, name) VALUES (77, 'in the second database')}, 'second');
wait_for_sync($node, 'second database: settled', database => 'second');
is($other->record('Account', '77')->{Name}, 'in the second database', 'each database has its own');
ok(!$sim->record('Account', '77'), 'and only that');
sql('ALTER DATABASE second RENAME TO renamed');
workers_are('postgres,renamed,third', 'ALTER DATABASE RENAME');
sql(q{INSERT INTO account (id, name) VALUES (78, 'renamed')}, 'renamed');
wait_for_sync($node, 'renamed: settled', database => 'renamed');
sql('DROP DATABASE third');
workers_are('postgres,renamed', 'DROP DATABASE');

# A copy sends nothing until it is adopted.
sql('CREATE DATABASE copy TEMPLATE renamed');
workers_are('copy,postgres,renamed', 'CREATE DATABASE TEMPLATE, while a worker is in the template');
sql('CREATE DATABASE twin TEMPLATE renamed', 'renamed');
workers_are('copy,postgres,renamed,twin', 'CREATE DATABASE TEMPLATE, in a session of the template');
sql('DROP DATABASE twin');
is(sql(q{SELECT state FROM sfsync.status}, 'copy'), 'fenced', 'a copy is fenced');
like(sql(q{SELECT detail FROM sfsync.status}, 'copy'), qr/adopt/, 'and says what to do');
my $mark = $other->mark;
sql(q{INSERT INTO account (id, name) VALUES (79, 'in the copy')}, 'copy');
is(sql(q{SELECT sfsync.wait_for_sync('1 s')}, 'copy'), 'f', 'its changes wait');
is(scalar($other->requests($mark)), 0, 'nothing at all is sent');
sql(q{INSERT INTO account (id, name) VALUES (80, 'in the original')}, 'renamed');
wait_for_sync($node, 'the original goes on', database => 'renamed');
sql(q{SELECT sfsync.adopt('crm')}, 'copy');
wait_for_sync($node, 'adopted: settled', database => 'copy');
is($other->record('Account', '79')->{Name}, 'in the copy', 'an adopted copy delivers');
sql('DROP DATABASE copy');
sql('DROP DATABASE renamed');
workers_are('postgres', 'only one is left');

#
# While a request hangs
#
in_step('before');
sql('CREATE DATABASE victim');
while_hanging('DROP DATABASE of another database', sub { sql('DROP DATABASE victim') });
in_step('DROP DATABASE of another database');
while_hanging('a commit', sub { sql(q{UPDATE account SET phone = '1' WHERE id = 1}) });
in_step('a commit');
while_hanging('SIGHUP', sub {
	sql(q{ALTER SYSTEM SET sfsync.max_attempts = 7});
	$node->reload;
	poll_query($node, q{SELECT setting FROM pg_settings WHERE name = 'sfsync.max_attempts'}, undef, expected => '7');
});
in_step('SIGHUP');
while_hanging('pg_terminate_backend', sub {
	my $hanging = worker_pid($node);
	sql("SELECT pg_terminate_backend($hanging)");
	poll_until(sub { worker_pid($node) ne $hanging });
});
in_step('pg_terminate_backend');
while_hanging('DROP EXTENSION CASCADE', sub {
	sql(q{BEGIN; DROP EXTENSION sfsync CASCADE; ROLLBACK});
});
in_step('DROP EXTENSION, rolled back');
while_hanging('drop_mapping', sub { sql(q{SELECT sfsync.drop_mapping('account', discard_pending => true)}) });
sql(q{SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
in_step('drop_mapping');
while_hanging('fast shutdown', sub { $node->stop('fast') });
$node->start;
in_step('fast shutdown');
while_hanging('SIGTERM of the postmaster', sub { $node->stop('smart') });
$node->start;
in_step('smart shutdown');

# Its own database, from another one.
sql('CREATE DATABASE own');
connect_salesforce($node, $sim, database => 'own');
sql(q{DELETE FROM account});
in_step('emptied');
account_table($node, database => 'own');
sql(q{INSERT INTO account (id, name) VALUES (1, 'one')}, 'own');
in_step('own', 'own');
while_hanging(q{DROP DATABASE of the worker's own}, sub { sql('DROP DATABASE own') }, 'own');
workers_are('postgres', 'its worker is gone');
$sim->post('reset', {});

#
# No transaction while it waits
#
$sim->fault(name => 'hang', match => { kind => 'collections_upsert' }, action => { hang => 8 });
sql(q{INSERT INTO account (id, name) VALUES (501, 'in flight')});
poll_until(sub { $sim->hits('hang') > 0 }, 'a request is in flight');
poll_query($node, q{SELECT xact_start IS NULL, backend_xmin IS NULL, backend_xid IS NULL, state FROM pg_stat_activity WHERE backend_type = 'sfsync worker'},
	'no transaction and no snapshot while a request is in flight', expected => 't|t|t|idle');
is(sql(q{SELECT count(*) FROM pg_locks WHERE pid = (SELECT pid FROM pg_stat_activity WHERE backend_type = 'sfsync worker') AND locktype = 'relation'}), '0', 'and no lock');
is(sql(q{SELECT in_flight, pending FROM sfsync.status}), '1|1', 'status shows it');
sql(q{ALTER TABLE account ADD COLUMN added integer; ALTER TABLE account DROP COLUMN added; VACUUM FULL account});
pass('DDL and VACUUM FULL of the table go on');
$sim->clear_faults;
$pid = worker_pid($node);
sql("SELECT pg_terminate_backend($pid)");
in_step('in flight');

#
# Idle
#
sql(q{CREATE TABLE unmapped (id integer)});
in_step('DDL of another table');
poll_query($node, q{SELECT state FROM pg_stat_activity WHERE backend_type = 'sfsync worker'}, 'idle', expected => 'idle');
$mark = $sim->mark;
my $activity = q{SELECT state_change FROM pg_stat_activity WHERE backend_type = 'sfsync worker'};
my $since = sql($activity);
my $end = time() + 3;
poll_until(sub { time() > $end });
is(sql($activity), $since, 'an idle worker does nothing');
is(scalar($sim->requests($mark)), 0, 'and makes no API call');
sql(q{INSERT INTO unmapped SELECT generate_series(1, 1000)});
is(sql($activity), $since, q{commits that concern no mapping don't wake it});

# Awake within milliseconds: the best of some, as other processes run too.
my $best = 10;
foreach my $i (1 .. 10)
{
	my $from = $sim->mark;
	my $session = session($node);

	$session->query("UPDATE account SET phone = 'wake $i' WHERE id = 501");
	my $committed = time();
	my $request;
	poll_until(sub { ($request) = grep { $_->{kind} =~ /^collections/ } $sim->requests($from); $request });
	my $took = $request->{at} - $committed;

	$best = $took if $took < $best;
	$session->quit;
	wait_for_sync($node);
}
cmp_ok($best, '<', 0.05, sprintf('from commit to the request: %.1f ms', $best * 1000));
in_step('awake');

# sfsync.enabled
sql(q{ALTER SYSTEM SET sfsync.enabled = off});
$node->reload;
poll_query($node, q{SELECT state FROM sfsync.status}, 'sfsync.enabled off shows as paused', expected => 'paused');
sql(q{INSERT INTO account (id, name) VALUES (502, 'waits')});
is(sql(q{SELECT sfsync.wait_for_sync('300 ms')}), 'f', 'and delivers nothing');
sql(q{ALTER SYSTEM SET sfsync.enabled = on});
$node->reload;
in_step('sfsync.enabled on');

# The environment
sql(q{ALTER SERVER crm OPTIONS (ADD environment 'production')});
poll_query($node, q{SELECT state FROM sfsync.status}, 'another environment is fenced', expected => 'fenced');
sql(q{INSERT INTO account (id, name) VALUES (503, 'fenced')});
is(sql(q{SELECT sfsync.wait_for_sync('300 ms')}), 'f', 'and sends nothing');
sql(q{ALTER SYSTEM SET sfsync.environment = 'production'});
$node->reload;
in_step('the right environment');

# An end of the extension with all that it has.
sql('SET client_min_messages = warning; DROP EXTENSION sfsync CASCADE');
workers_are('', 'DROP EXTENSION CASCADE stops the worker');
sql(q{INSERT INTO account (id, name) VALUES (600, 'free'); UPDATE account SET name = 'x'; TRUNCATE account});
pass('and the table is free');
unlike(log_since($node), qr/PANIC|TRAP|terminated by signal/, 'no crash');
$node->stop;

#
# Without preload
#
my $bare = new_node('bare', preload => 0);
my ($rc, $out, $err) = $bare->psql('postgres', 'CREATE EXTENSION sfsync');
is($rc, 0, 'CREATE EXTENSION works without preload');
like($err, qr/WARNING.*preload.*HINT.*shared_preload_libraries/s, 'and warns');
connect_salesforce($bare, $sim);
account_table($bare);
is($bare->safe_psql('postgres', q{INSERT INTO account (id, name) VALUES (1, 'one'); UPDATE account SET name = 'two'; SELECT count(*) FROM sfsync.queued}), '2', 'writing to a mapped table works, and is captured');
is($bare->safe_psql('postgres', q{SELECT sfsync.wait_for_sync('100 ms')}), 'f', 'nothing is delivered');
$sim->post('reset', {});
$bare->append_conf('postgresql.conf', "shared_preload_libraries = 'sfsync'");
$bare->restart;
wait_for_sync($bare, 'delivered once it is preloaded');
same_records($bare, $sim, 'Account', $accounts, 'delivered once it is preloaded: equal');
$bare->stop;
done_testing();
