# Large bodies of requests are compressed; a server that does not take that gets them as they are.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use JSON::PP ();
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('compression');

sub sql { return $node->safe_psql('postgres', shift) }

# What requests that write were like, the newest last.
sub encodings
{
	my ($mark) = @_;

	return join(',', map { $_->{encoding} // 'none' } grep { $_->{kind} =~ /composite|collections_/ } $sim->requests($mark));
}

connect_salesforce($node, $sim);
sql(q{CREATE TABLE account (id int PRIMARY KEY, name text NOT NULL, description text);
	SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
wait_for_sync($node, 'mapped');

my $mark = $sim->mark;
sql(q{INSERT INTO account VALUES (1, 'small', 'one')});
wait_for_sync($node, 'a small change: settled');
is(encodings($mark), 'none', 'a small body goes as it is');

$mark = $sim->mark;
sql(q{INSERT INTO account SELECT i, 'large', repeat('x', 500) FROM generate_series(100, 299) i});
wait_for_sync($node, 'many rows: settled');
is(encodings($mark), 'gzip', 'a large one is compressed');
is($sim->count('Account'), 201, 'and understood');

# Another org, that doesn't.
$sim->config(request_gzip => JSON::PP::false);
$node->restart;
$mark = $sim->mark;
sql(q{UPDATE account SET description = repeat('y', 500)});
wait_for_sync($node, 'refused: settled');
is(encodings($mark), 'gzip,none', 'refused, the body goes as it is');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', 'and no record is blamed');
$mark = $sim->mark;
sql(q{UPDATE account SET description = repeat('z', 500)});
wait_for_sync($node, 'later: settled');
is(encodings($mark), 'none', 'from then on at once');
same_records($node, $sim, 'Account', 'SELECT id::text AS "PG_Key__c", name AS "Name", description AS "Description" FROM account',
	'both sides are equal');

done_testing();
