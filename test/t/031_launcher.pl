# Databases without the extension cost one look each, and do not delay the worker of one that gets it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $databases = 20;
my $node = new_node('launcher', conf => "log_min_messages = debug1\n");

# How often a worker was started for each database, by its name.
sub starts
{
	my %names = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT oid, datname FROM pg_database');
	my %starts = map { ($_ => 0) } values %names;

	$starts{ $names{$_} }++ foreach log_since($node) =~ /starting background worker process "sfsync worker for database (\d+)"/g;
	return %starts;
}

$node->safe_psql('postgres', "CREATE DATABASE probed_$_") foreach 1 .. $databases;
$node->safe_psql('postgres', 'CREATE DATABASE last');
poll_until(sub { my %starts = starts(); $starts{last} > 0 }, 'the last database is looked into');
poll_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'}, 'nobody stays where there is no extension', expected => '0');

# one after the other, so the first ones had their time to be looked into again
my %starts = starts();
is(join(', ', map { "$_ $starts{$_}" } grep { !/^template/ && $starts{$_} != 1 } sort keys %starts), '', 'each was looked into once');

my $since = length(log_since($node));
my $seconds = SfSync::seconds_of(
	sub {
		$node->safe_psql('probed_1', 'CREATE EXTENSION sfsync');
		poll_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sfsync worker' AND datname = 'probed_1'}, 'a worker comes with the extension', expected => '1');
	});
diag(sprintf 'after %.3f s', $seconds);
is(scalar(() = log_since($node, $since) =~ /starting background worker process "sfsync worker/g), 1, 'and only there');

#
# DROP EXTENSION in a transaction that has a table which the worker wants
#
$node->safe_psql('last', q{
CREATE EXTENSION sfsync;
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', client_secret 'secret')});
account_table($node, database => 'last');
$node->safe_psql('last', q{INSERT INTO account (id, name) VALUES (1, 'one')});
poll_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sfsync worker' AND datname = 'last'}, 'a worker is there', expected => '1');

my $session = session($node, database => 'last');
$session->query('BEGIN');
$session->query('LOCK TABLE account');
$session->query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker' AND datname = 'last'});
poll_query($node, q{SELECT waits FROM sfsync.mapping_state}, 'the next one comes back for the table', database => 'last',
	expected => 'table public.account is locked by another session: changes of this mapping wait until it is free');
$session->query('DROP TABLE account');
$session->query('SET LOCAL client_min_messages = error; DROP EXTENSION sfsync CASCADE');
$session->query('COMMIT');
is($session->errors, '', 'both are dropped');
$session->quit;
is($node->safe_psql('last', q{SELECT count(*) FROM pg_extension WHERE extname = 'sfsync'}), '0', 'and gone');
poll_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sfsync worker' AND datname = 'last'}, 'the worker too', expected => '0');

done_testing();
