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
my $since = length(log_since($node));
my $writer = session($node);
my $holder = holder('ALTER TABLE a ALTER phone SET DEFAULT 1', 'LOCK TABLE a IN ACCESS EXCLUSIVE MODE',
	q{UPDATE a SET name = 'two' WHERE id = 1});

sql(q{SELECT sfsync.map_field('b', 'Phone', 'phone')});
sql(qq{UPDATE b SET last_name = 'b$_'}) && arrives('Contact', 'LastName', '1', "b$_", "locked by ALTER TABLE: change $_ of the other arrives")
  foreach 1 .. 3;
worker_doesnt_wait('locked by ALTER TABLE');
ok(holds('Account', 'Name', '1', 'one'), 'nothing of the locked one is sent');
commit($holder);
arrives('Account', 'Name', '1', 'two', 'what was changed with the lock held arrives');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', 'and nobody failed');

#
# Locked while changes wait that were committed before, and others have the mapping read anew.  The server is away
# until the table is locked.
#
$sim->config(outage => 'refuse') if 0;
sql(q{SELECT sfsync.pause('a')});
sql(q{UPDATE a SET name = 'three'});
sql(q{SELECT sfsync.resume('a'), sfsync.pause('a')});
$holder = session($node);
$holder->query(q{SELECT sfsync.resume('a')});
$holder->query('BEGIN');
$holder->query('LOCK TABLE a IN ACCESS EXCLUSIVE MODE');
