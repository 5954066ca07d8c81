# Paths that nothing else takes: what changes while the worker is in the middle of something, and errors of all kinds.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('paths');
my $log_start = -s $node->logfile;

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

connect_salesforce($node, $sim);

#
# The worker has begun with a batch, and waits in an expression; meanwhile its mapping becomes another.
#
sql(q{
CREATE FUNCTION hold(text) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN $1; END$$;
CREATE TABLE tree (id integer PRIMARY KEY, name text NOT NULL, phone text, parent_id integer REFERENCES tree);
SELECT sfsync.create_mapping('tree', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
SELECT sfsync.map_field('tree', 'Site', expression => 'public.hold(phone)')});
wait_for_sync($node, 'an expression that can be held up');
my $pid = worker_pid($node);
my $holder = session($node);

sub while_held
{
	my ($change, $meanwhile, $name) = @_;

	$holder->query('SELECT pg_advisory_lock(1)');
	sql($change);
	poll_query($node, q{SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'sfsync worker'}, "$name: the worker is held up",
		expected => 'advisory');
	sql($meanwhile);
	$holder->query('SELECT pg_advisory_unlock(1)');
	wait_for_sync($node, "$name: settled");
	is(worker_pid($node), $pid, "$name: the worker is the same");
	return;
}

while_held(q{INSERT INTO tree VALUES (1, 'root', '1', NULL), (2, 'branch', '2', 1)},
	q{SELECT sfsync.map_field('tree', 'Fax', 'phone')}, 'another field');
is($sim->record('Account', '2')->{ParentId}, $sim->record('Account', '1')->{Id}, 'a row refers to a row of its table');
is($sim->record('Account', '2')->{Fax}, '2', 'the field is filled');

unlike(log_since($node, $log_start), qr/TRAP|terminated by signal|PANIC/, 'no crash');
done_testing();
