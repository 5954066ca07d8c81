# A table that somebody else has locked keeps its own changes waiting, and no others; what only looks like a change of
# a mapping costs nothing.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;
use Time::HiRes qw(time usleep);

$ENV{PGOPTIONS} = '-c statement_timeout=100s'; # whoever waits for a lock that is not given up

my $sim = simulator();
my $node = new_node('locked');

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# Names of an object's records, by key.
sub names
{
	my ($object, $field) = @_;

	return join ' ', sort map { "$_->{PG_Key__c}=$_->{$field}" } @{ $sim->records($object) };
}

sub holds
{
	my ($object, $field, $key, $value) = @_;

	return scalar grep { $_->{PG_Key__c} eq $key && ($_->{$field} // '') eq $value } @{ $sim->records($object) };
}

sub arrives
{
	my ($object, $field, $key, $value, $name) = @_;

	return poll_until(sub { holds($object, $field, $key, $value) }, $name);
}

sub waits_for
{
	my ($mapping, $table, $name) = @_;

	poll_query($node, qq{SELECT state || ': ' || detail FROM sfsync.status WHERE mapping = '$mapping'},
		"$name: its status says what it waits for",
		expected => "backing_off: table $table is locked by another session: changes of this mapping wait until it is free");
	return;
}

# A session with a transaction that has just run the statements.
sub holder
{
	my (@statements) = @_;
	my $session = session($node);

	$session->query($_) foreach 'BEGIN', @statements;
	is($session->errors, '', "somebody runs $statements[0]");
	return $session;
}

sub commit
{
	my ($session) = @_;

	$session->query('COMMIT');
	is($session->errors, '', 'and commits');
	$session->quit;
	return;
}

sub worker_doesnt_wait
{
	my ($name) = @_;

	is(sql(q{SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.backend_type = 'sfsync worker'}), '0',
		"$name: the worker waits for no lock");
	return;
}

sub enable
{
	my ($value) = @_;

	sql("ALTER SYSTEM SET sfsync.enabled = $value");
	sql('SELECT pg_reload_conf()');
	poll_query($node, 'SHOW sfsync.enabled', undef, expected => $value);
	return;
}

# Changes that are committed, and a lock that is taken before anything of them is sent.
sub locked_with_changes
{
	my ($changes, $lock) = @_;
	my $holder;

	enable('off');
	sql($changes);
	$holder = holder($lock);
	enable('on');
	return $holder;
}

connect_salesforce($node, $sim);
sql(q{
CREATE TABLE a (id integer PRIMARY KEY, name text, phone text);
CREATE TABLE b (id integer PRIMARY KEY, last_name text, phone text);
SELECT sfsync.create_mapping('a', 'Account', 'PG_Key__c', 'delete');
SELECT sfsync.create_mapping('b', 'Contact', 'PG_Key__c', 'delete');
INSERT INTO a VALUES (1, 'one');
INSERT INTO b VALUES (1, 'one')});
wait_for_sync($node, 'two tables are in step');

#
# Locked by a statement that also has the mapping read anew; others go on, for longer than any of the worker's pauses.
#
my $holder = holder('ALTER TABLE a ALTER phone SET DEFAULT 1', 'LOCK TABLE a IN ACCESS EXCLUSIVE MODE',
	q{UPDATE a SET name = 'two' WHERE id = 1});

sql(q{SELECT sfsync.map_field('b', 'Phone', 'phone')});
foreach my $n (1 .. 3)
{
	sql("UPDATE b SET last_name = 'b$n'");
	arrives('Contact', 'LastName', '1', "b$n", "locked by ALTER TABLE: change $n of the other arrives");
}
worker_doesnt_wait('locked by ALTER TABLE');
ok(holds('Account', 'Name', '1', 'one'), 'nothing of the locked one is sent');
commit($holder);
arrives('Account', 'Name', '1', 'two', 'what was changed with the lock held arrives');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', 'and nobody failed');

#
# Locked before what was committed is sent: seen in the views and once in the log, and little is done meanwhile.
#
my $since = length(log_since($node));
$holder = locked_with_changes(q{UPDATE a SET name = 'three'; INSERT INTO a VALUES (2, 'new'); SELECT sfsync.backfill('a')},
	'LOCK TABLE a IN ACCESS EXCLUSIVE MODE');
waits_for('a', 'public.a', 'locked with changes');
is(sql(q{SELECT status || ': ' || detail FROM sfsync.health() WHERE check_name = 'mapping a'}),
	'warning: waits: table public.a is locked by another session: changes of this mapping wait until it is free', 'so does health()');
is(sql(q{SELECT pending FROM sfsync.status WHERE mapping = 'a'}), '2', 'they are pending');
sql(q{UPDATE b SET last_name = 'b4'});
arrives('Contact', 'LastName', '1', 'b4', 'locked with changes: those of the other arrive');
worker_doesnt_wait('locked with changes');
my $turns = sql(q{SELECT pg_stat_get_db_xact_commit(oid) FROM pg_database WHERE datname = 'postgres'});
sql('SELECT pg_sleep(3)');
$turns = sql(q{SELECT pg_stat_get_db_xact_commit(oid) FROM pg_database WHERE datname = 'postgres'}) - $turns;
cmp_ok($turns, '<', 100, 'the worker looks seldom, not all the time');
ok(holds('Account', 'Name', '1', 'two') && $sim->count('Account') == 1, 'nothing of the locked one is sent');
commit($holder);
my $seconds = SfSync::seconds_of(sub { arrives('Account', 'Name', '1', 'three', 'what waited arrives') });
cmp_ok($seconds, '<', 5, 'soon after the lock is given up');
wait_for_sync($node, 'the backfill, too');
poll_query($node, q{SELECT state || coalesce(detail, '') FROM sfsync.status WHERE mapping = 'a'}, 'status is as before', expected => 'active');
is(scalar(() = log_since($node, $since) =~ /LOG:.*mapping "a" waits/g), 1, 'the log says so once');
unlike(log_since($node, $since), qr/mapping "a" is blocked|ERROR/, 'and nothing failed');

#
# Locked when the worker reads the mapping for the first time: a prepared transaction keeps its locks.
#
sql(q{UPDATE a SET phone = '1'; BEGIN; UPDATE a SET name = 'four' WHERE id = 1; LOCK TABLE a IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'locked'});
$node->restart;
sql(q{UPDATE b SET last_name = 'b5'});
arrives('Contact', 'LastName', '1', 'b5', 'locked at start: changes of the other arrive');
waits_for('a', 'public.a', 'locked at start');
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});
sql(q{UPDATE b SET last_name = 'b6'});
arrives('Contact', 'LastName', '1', 'b6', 'also when the worker is another');
worker_doesnt_wait('locked at start');
sql(q{COMMIT PREPARED 'locked'});
arrives('Account', 'Name', '1', 'four', 'locked at start: what waited arrives');
poll_query($node, q{SELECT state || coalesce(detail, '') FROM sfsync.status WHERE mapping = 'a'}, 'status is as before', expected => 'active');

# what a worker that is gone said
sql(q{BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'locked'});
sql(q{SELECT sfsync.map_field('b', 'Email', 'phone'); SELECT sfsync.unmap_field('b', 'Email')});
waits_for('a', 'public.a', 'locked and idle');
$node->stop('immediate');
$node->start;
sql(q{COMMIT PREPARED 'locked'});
poll_query($node, q{SELECT state || coalesce(detail, '') FROM sfsync.status WHERE mapping = 'a'}, 'the next worker takes back what the last one said', expected => 'active');

#
# Locked while a request is under way: the reply is settled.
#
$sim->config(latency => 1);
sql(q{UPDATE a SET name = 'five' WHERE id = 1});
poll_until(sub { holds('Account', 'Name', '1', 'five') || sql(q{SELECT in_flight FROM sfsync.status WHERE mapping = 'a'}) eq '1' }, 'a write is under way');
$holder = holder('LOCK TABLE a IN ACCESS EXCLUSIVE MODE');
sql(q{SELECT sfsync.map_field('b', 'Email', 'phone'); SELECT sfsync.unmap_field('b', 'Email')});
poll_query($node, q{SELECT pending FROM sfsync.status WHERE mapping = 'a'}, 'its reply is settled', expected => '0');
ok(holds('Account', 'Name', '1', 'five'), 'it has arrived');
$sim->config(latency => 0);
waits_for('a', 'public.a', 'locked when under way');
commit($holder);

#
# The table is dropped by who has locked it, or the mapping.
#
sql(q{
CREATE TABLE c (id integer PRIMARY KEY, name text);
CREATE TABLE d (id integer PRIMARY KEY, name text);
SELECT sfsync.create_mapping('c', 'Account', 'PG_Key__c', 'ignore', name => 'gone');
SELECT sfsync.create_mapping('d', 'Account', 'PG_Key__c', 'ignore', name => 'ended')});
wait_for_sync($node, 'two more mappings');
$holder = locked_with_changes(q{INSERT INTO c VALUES (101, 'never'); INSERT INTO d VALUES (102, 'never')}, 'LOCK TABLE c, d IN ACCESS EXCLUSIVE MODE');
waits_for('gone', 'public.c', 'to be dropped');
$holder->query('DROP TABLE c');
$holder->query(q{SELECT sfsync.drop_mapping('ended', discard_pending => true)});
commit($holder);
poll_query($node, q{SELECT state FROM sfsync.status WHERE mapping = 'gone'}, 'a mapping whose table is gone is blocked', expected => 'blocked');
sql(q{SELECT sfsync.drop_mapping('gone', discard_pending => true)});
wait_for_sync($node, 'nothing is left of both');
is($sim->count('Account'), 2, 'nothing of them was sent');

#
# A partition, of one that has sub-partitions.
#
sql(q{
CREATE TABLE p (id integer PRIMARY KEY, company text, last_name text) PARTITION BY RANGE (id);
CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (1) TO (100);
CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
CREATE TABLE p_2a PARTITION OF p_2 FOR VALUES FROM (100) TO (150);
SELECT sfsync.create_mapping('p', 'Lead', 'PG_Key__c', 'delete');
INSERT INTO p VALUES (1, 'c', 'one'), (101, 'c', 'one')});
wait_for_sync($node, 'a partitioned table');
$holder = locked_with_changes(q{UPDATE p SET last_name = 'two'}, 'LOCK TABLE p_2a IN ACCESS EXCLUSIVE MODE');
sql(q{UPDATE b SET last_name = 'b7'});
arrives('Contact', 'LastName', '1', 'b7', 'a partition is locked: changes of another table arrive');
waits_for('p', 'public.p_2a', 'a partition is locked');
worker_doesnt_wait('a partition is locked');
commit($holder);
arrives('Lead', 'LastName', $_, 'two', "what waited arrives: $_") foreach 1, 101;

#
# The parent's table is locked: children go, unless it's their parent that waits.
#
sql(q{
DELETE FROM b;
ALTER TABLE b ADD account_id integer REFERENCES a;
INSERT INTO b VALUES (10, 'child', NULL, 1)});
wait_for_sync($node, 'a child');
sub parent_of
{
	my ($key) = @_;
	my ($child) = grep { $_->{PG_Key__c} eq $key } @{ $sim->records('Contact') };
	my ($parent) = grep { $child && $child->{AccountId} && $_->{Id} eq $child->{AccountId} } @{ $sim->records('Account') };

	return $parent ? $parent->{PG_Key__c} : '';
}
is(parent_of('10'), '1', 'it has its parent');
$holder = locked_with_changes(q{INSERT INTO a VALUES (11, 'new parent'); INSERT INTO b VALUES (11, 'early', NULL, 11), (12, 'late', NULL, 2)},
	'LOCK TABLE a IN ACCESS EXCLUSIVE MODE');
sql(q{SELECT sfsync.map_field('p', 'Title', 'company')});
sql(q{UPDATE b SET last_name = 'kept' WHERE id = 10});
arrives('Contact', 'LastName', '10', 'kept', 'the parent is locked: a child is changed');
arrives('Contact', 'LastName', '12', 'late', 'and one is made');
waits_for('a', 'public.a', 'the parent is locked');
poll_query($node, q{SELECT count(*) FROM sfsync.deferred d JOIN sfsync.mapping m ON m.id = d.mapping WHERE m.name = 'b' AND d.key = '11' AND d.state = 'waiting'},
	'a child whose parent waits does so, too', expected => '1');
commit($holder);
wait_for_sync($node, 'parents and children are settled');
is(join(' ', map { parent_of($_) } 10, 11, 12), '1 11 2', 'each has its parent');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', 'and nothing failed');

#
# Another table, that a policy of the mapped one reads: nobody knows of it beforehand.
#
sql(q{
CREATE ROLE shop;
CREATE TABLE secrets (id integer);
CREATE TABLE s (id integer PRIMARY KEY, name text);
ALTER TABLE s OWNER TO shop;
ALTER TABLE s ENABLE ROW LEVEL SECURITY;
ALTER TABLE s FORCE ROW LEVEL SECURITY;
GRANT SELECT ON secrets TO shop;
GRANT USAGE ON FOREIGN SERVER crm TO shop;
CREATE POLICY open ON s USING (id NOT IN (SELECT id FROM secrets));
SELECT sfsync.create_mapping('s', 'Account', 'PG_Key__c', 'delete');
INSERT INTO s VALUES (201, 'one'); INSERT INTO b VALUES (20, 'one')});
wait_for_sync($node, 'a table with a policy');
ok(holds('Account', 'Name', '201', 'one'), 'its row is sent');
$holder = locked_with_changes(q{UPDATE s SET name = 'two'}, 'LOCK TABLE secrets IN ACCESS EXCLUSIVE MODE');
poll_query($node, q{SELECT state || ': ' || split_part(detail, ':', 1) FROM sfsync.status WHERE mapping = 's'}, 'what a policy reads is locked: status says so',
	expected => 'blocked: reading the table needs a lock that another session holds');
sql(q{UPDATE b SET last_name = 'two' WHERE id = 20});
arrives('Contact', 'LastName', '20', 'two', 'what a policy reads is locked: changes of another table arrive');
commit($holder);
arrives('Account', 'Name', '201', 'two', 'what waited arrives');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', 'and nothing failed');

#
# What invalidates catalogs, and changes nothing of the mapping, costs no call and no time.
#
sub calls_and_seconds
{
	my ($round) = @_;
	my $mark = $sim->mark;
	my $start = time();

	foreach my $n (1 .. 20)
	{
		sql("UPDATE a SET name = '$round $n' WHERE id = 1");
		last unless arrives('Account', 'Name', '1', "$round $n", "$round: change $n arrives");
	}
	wait_for_sync($node, "$round: settled");
	return (scalar(() = $sim->requests($mark)), time() - $start);
}

# until there is a row in the table over
my $noise = q{
DO $$
BEGIN
	FOR i IN 1 .. 1000000 LOOP
		ANALYZE a;
		EXECUTE format('ALTER TABLE a ALTER name SET STATISTICS %s', i % 100);
		ANALYZE sfsync.mapping;
		EXECUTE format('ALTER TABLE sfsync.mapping ALTER name SET STATISTICS %s', i % 100);
		COMMIT;
		EXIT WHEN EXISTS (SELECT FROM over);
	END LOOP;
END$$};

sql('CREATE TABLE over (i integer)');
$sim->config(latency => 0.01);
my ($calls, $quiet) = calls_and_seconds('quiet');
my $session = session($node);
$session->send($noise);
my ($calls_then, $noisy) = calls_and_seconds('noisy');
sql('INSERT INTO over VALUES (1)');
$session->finish;
is($session->errors, '', 'catalogs were invalidated all the time');
$session->quit;
diag(sprintf '%d calls in %.2f s, with noise %d in %.2f s', $calls, $quiet, $calls_then, $noisy);
cmp_ok($calls_then, '<=', $calls + 10, 'not many more calls are made when catalogs are invalidated all the time');
cmp_ok($noisy, '<', 4 * $quiet + 5, 'and changes arrive about as fast');

#
# What does change the mapping takes effect at once.
#
sql(q{ALTER TABLE a ADD site text DEFAULT 'here'});
poll_until(sub { holds('Account', 'Site', '1', 'here') }, 'a new column flows');
same_state($node, 'nothing is left');

done_testing();
