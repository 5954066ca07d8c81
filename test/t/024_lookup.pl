# Records that are looked for by their keys: replies in pages, and keys that several records have.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('lookup');

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# Keys and names of the records that are there; all of them are an hour old, so that no edit is younger than our change.
sub records
{
	my ($object, $key) = @_;
	return join ' ', sort map { ($_->{$key} // '-') . '=' . $_->{Name} } @{ $sim->records($object) };
}

connect_salesforce($node, $sim);
sql(q{CREATE TABLE account (id int PRIMARY KEY, name text);
	INSERT INTO account SELECT i, 'Account ' || i FROM generate_series(1, 12) i});

#
# Replies in pages, whose size is the server's choice
#
sub make_records
{
	foreach my $i (1 .. 12)
	{
		$sim->post('create', { object => 'Account', fields => { PG_Key__c => "$i", Name => "Account $i" }, at => time - 3600 });
	}
	return;
}

foreach my $policy ('source_wins', 'newest_wins')
{
	make_records();
	sql(qq{SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => '$policy', backfill => false)});
	sql(q{SELECT sfsync.pause('account')});
	sql(q{DELETE FROM account WHERE id <= 11; SELECT sfsync.resume('account')});
	$sim->config(page_size => 4);
	wait_for_sync($node, "$policy: deletes of records that are found on several pages");
	is(records('Account', 'PG_Key__c'), '12=Account 12', "$policy: all of them are gone, and no other");
	$sim->config(page_size => 2000);
	sql(q{DELETE FROM account});
	wait_for_sync($node, "$policy: the last one goes too");
	sql(q{SELECT sfsync.drop_mapping('account'); INSERT INTO account SELECT i, 'Account ' || i FROM generate_series(1, 12) i});
	is($sim->count('Account'), 0, "$policy: nothing is left");
}

#
# A key that several records have, since the field is not unique
#
$sim->post('schema', { object => 'Invoice__c', field => 'Loose__c', action => 'add',
	definition => { type => 'Text', length => 40, externalId => JSON::PP::true() } });
sql(q{CREATE TABLE invoice (id text PRIMARY KEY, name text, amount__c int);
	INSERT INTO invoice VALUES ('twice', 'row', 1), ('once', 'other', 1)});
foreach my $policy ('source_wins', 'newest_wins')
{
	my $mark = $sim->mark;

	$sim->post('create', { object => 'Invoice__c', fields => { Loose__c => 'twice', Name => $_ }, at => time - 3600 }) foreach ('a', 'b');
	$sim->post('create', { object => 'Invoice__c', fields => { Loose__c => 'once', Name => 'c' }, at => time - 3600 });
	sql(qq{SELECT sfsync.create_mapping('invoice', 'Invoice__c', 'Loose__c', 'delete', conflict_policy => '$policy', backfill => false)});
	sql(q{UPDATE invoice SET id = 'new ' || id});
	wait_for_sync($node, "$policy: a key change from a key that two records have");
	is(join(' ', sort map { $_->{Loose__c} } @{ $sim->records('Invoice__c') }), 'new once new twice twice twice',
		"$policy: none of the two is taken for the row's");
	cmp_ok(scalar($sim->requests($mark)), '<', 20, "$policy: in few calls");
	is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', "$policy: no dead letter");
	sql(q{SELECT sfsync.drop_mapping('invoice', true); DELETE FROM invoice;
		INSERT INTO invoice VALUES ('twice', 'row', 1), ('once', 'other', 1)});
	$sim->post('delete', { object => 'Invoice__c', id => $_->{Id} }) foreach @{ $sim->records('Invoice__c') };
}

#
# More keys than one request has room for
#
sql(q{CREATE TABLE long_keys (id text PRIMARY KEY, name text);
	INSERT INTO long_keys SELECT repeat('k', 1500) || i, 'row' FROM generate_series(1, 1000) i;
	SELECT sfsync.create_mapping('long_keys', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', backfill => false)});
{
	my $worker = worker_pid($node);
	my $mark = $sim->mark;

	sql(q{DELETE FROM long_keys});
	wait_for_sync($node, 'deletes of rows whose keys are long');
	is(worker_pid($node), $worker, 'the worker is the same');
	cmp_ok(scalar($sim->requests($mark)), '<', 20, 'they are asked for in a few calls');
}

done_testing();
