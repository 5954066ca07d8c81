# A filter that is taken away lets rows in, under each policy.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('no_filter');
my $rows = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone" FROM customer};

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

connect_salesforce($node, $sim);
foreach my $policy ('newest_wins', 'strict', 'source_wins')
{
	sql(qq{
CREATE TABLE customer (id integer PRIMARY KEY, name text NOT NULL, phone text, active boolean NOT NULL);
INSERT INTO customer SELECT g, 'name ' || g, g, g % 2 = 0 FROM generate_series(1, 6) g;
SELECT sfsync.create_mapping('customer', 'Account', 'PG_Key__c', 'delete', conflict_policy => '$policy', filter => 'active')});
	wait_for_sync($node, "$policy: settled");
	same_records($node, $sim, 'Account', "$rows WHERE active", "$policy: rows that pass");
	sql(q{UPDATE customer SET active = false, phone = 'left' WHERE id = 2});
	wait_for_sync($node, "$policy: one left");
	sql(q{SELECT sfsync.alter_mapping('customer', filter => '')});
	wait_for_sync($node, "$policy: without a filter");
	same_records($node, $sim, 'Account', $rows, "$policy: all rows");
	sql(q{DELETE FROM customer});
	wait_for_sync($node, "$policy: deleted");
	sql(q{SELECT sfsync.drop_mapping('customer'); DROP TABLE customer});
	$sim->post('reset', {});
}

done_testing();
