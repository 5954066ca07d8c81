# What newer PostgreSQL has: virtual generated columns, keys with periods (18), REPACK (19).
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my ($version) = qx($ENV{PG_CONFIG} --version) =~ /(\d+)/;

plan skip_all => "PostgreSQL $version has none of it" if $version < 18;

my $sim = simulator();
my $node = new_node('newer', conf => "wal_level = logical\n");

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

my $products = q{SELECT id::text AS "PG_Key__c", name AS "Name", annual_revenue AS "AnnualRevenue", site AS "Site" FROM product};

# Settled, and the records say what the table says.
sub in_step
{
	my ($name, $query) = @_;

	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Account', $query || $products, $name);
	return;
}

sub refused
{
	my ($name, $statement, $pattern) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $statement);

	isnt($rc, 0, "$name: refused");
	like($err, $pattern, $name);
	return;
}

# Requests that write, since a mark.
sub writes
{
	my ($mark) = @_;
	return scalar grep { $_->{kind} =~ /^(create|update|upsert|delete|composite|collections)/ } $sim->requests($mark);
}

#
# Virtual generated columns
#
connect_salesforce($node, $sim);
sql(q{
CREATE TABLE product (id integer PRIMARY KEY, name text NOT NULL, price numeric, quantity integer,
	annual_revenue numeric GENERATED ALWAYS AS (price * quantity) VIRTUAL,
	site text GENERATED ALWAYS AS (upper(name)) STORED, remark text);
INSERT INTO product (id, name, price, quantity) VALUES (1, 'a', 2, 3), (2, 'b', 5, 10), (3, 'c', NULL, 1);
SELECT sfsync.create_mapping('product', 'Account', 'PG_Key__c', 'delete')});
in_step('a backfill reads them');
is(sql(q{SELECT string_agg(concat_ws(' ', column_name, field, status), ', ' ORDER BY column_name) FROM sfsync.field_map WHERE field IN ('AnnualRevenue', 'Site')}),
	'annual_revenue AnnualRevenue mapped, site Site mapped', 'both kinds of generated columns are mapped');

sql(q{UPDATE product SET price = 4 WHERE id = 1; UPDATE product SET quantity = NULL WHERE id = 2; UPDATE product SET price = 7 WHERE id = 3});
in_step('a change of what a virtual column is made of is a change of it');

my $mark = $sim->mark;
sql(q{UPDATE product SET remark = 'x'});
in_step('a change of another column');
is(writes($mark), 0, 'is none of it');

sql(q{SELECT sfsync.exclude_column('product', 'price')});
sql(q{UPDATE product SET price = price + 1});
in_step('what it is made of is followed where it is excluded');
is(sql(q{BEGIN; UPDATE product SET price = 100 WHERE id = 1; SELECT payload ->> 'AnnualRevenue' FROM sfsync.preview(); ROLLBACK}), '300', 'preview has its value');

sql(q{SELECT sfsync.map_field('product', 'NumberOfEmployees', expression => '(annual_revenue / 2)::integer')});
my $with_expression = $products =~ s/ FROM/, (annual_revenue \/ 2)::integer AS "NumberOfEmployees" FROM/r;
in_step('an expression over a virtual column', $with_expression);
sql(q{UPDATE product SET price = price * 3});
in_step('the expression follows', $with_expression);

sql(q{SELECT sfsync.unmap_field('product', 'NumberOfEmployees'); SELECT sfsync.exclude_column('product', 'annual_revenue')});
$mark = $sim->mark;
sql(q{UPDATE product SET price = price + 1});
wait_for_sync($node, 'excluded: settled');
is(writes($mark), 0, 'a virtual column that is excluded is not sent');
sql(q{SELECT sfsync.reset_column('product', 'annual_revenue')});
in_step('one that is not excluded any more is');

# a filter of it; what it is made of stays excluded
sql(q{SELECT sfsync.alter_mapping('product', filter => 'annual_revenue > 20')});
in_step('a filter', "$products WHERE annual_revenue > 20");
sql(q{UPDATE product SET price = 1 WHERE annual_revenue > 20; UPDATE product SET price = 1000, quantity = 2 WHERE id = 2});
in_step('a filter follows what a virtual column is made of', "$products WHERE annual_revenue > 20");
sql(q{SELECT sfsync.alter_mapping('product', filter => '')});
in_step('no filter');

# no trigger sees another definition, and no value is stored that changes
sql(q{ALTER TABLE product ALTER COLUMN annual_revenue SET EXPRESSION AS (price * quantity + coalesce(length(remark), 0))});
wait_for_sync($node, 'another definition: settled');
cmp_ok(sql(q{SELECT count(*) FROM sfsync.compare('product', repair => true) WHERE field = 'AnnualRevenue'}), '>', 0, 'compare sees what another definition changed');
in_step('and repairs it');
sql(q{UPDATE product SET remark = 'longer'});
in_step('changes of what it is made of now are followed');

refused('a virtual column as key', q{SELECT sfsync.create_mapping('product', 'Account', 'PG_Key__c', 'delete', name => 'other', key_columns => '{annual_revenue}')},
	qr/key column "annual_revenue" is nullable/);
sql(q{SELECT sfsync.drop_mapping('product'); DROP TABLE product});
$sim->post('reset', {});

# a partition may say otherwise what a column is made of: who reads the mapped table doesn't see that
sql(q{
CREATE TABLE product (id integer PRIMARY KEY, name text NOT NULL, price numeric, quantity integer, discount numeric,
	annual_revenue numeric GENERATED ALWAYS AS (price * quantity) VIRTUAL, site text) PARTITION BY RANGE (id);
CREATE TABLE product_1 PARTITION OF product FOR VALUES FROM (0) TO (10);
CREATE TABLE product_2 (dropped integer, discount numeric, quantity integer, site text, id integer NOT NULL, name text NOT NULL,
	annual_revenue numeric GENERATED ALWAYS AS (discount) VIRTUAL, price numeric);
ALTER TABLE product_2 DROP COLUMN dropped;
ALTER TABLE product ATTACH PARTITION product_2 FOR VALUES FROM (10) TO (20);
INSERT INTO product (id, name, price, quantity, discount) VALUES (1, 'a', 2, 3, 1), (11, 'b', 5, 10, 1);
SELECT sfsync.create_mapping('product', 'Account', 'PG_Key__c', 'delete');
SELECT sfsync.exclude_column('product', 'price')});
in_step('partitions');
sql(q{UPDATE product SET price = price + 1});
in_step('partitions follow');
sql(q{UPDATE product_2 SET quantity = 4, price = 4});
in_step('a partition by its own name follows');
sql(q{SELECT sfsync.drop_mapping('product'); DROP TABLE product});
$sim->post('reset', {});

#
# Keys with periods
#
my $stays = q{SELECT guest || ':' || replace(period::text, ':', '\:') AS "PG_Key__c", name AS "Name" FROM stay};
sql(q{
CREATE EXTENSION btree_gist;
CREATE TABLE stay (guest integer, period daterange, name text NOT NULL, PRIMARY KEY (guest, period WITHOUT OVERLAPS));
INSERT INTO stay VALUES (1, '[2026-01-01,2026-02-01)', 'a'), (1, '[2026-02-01,2026-03-01)', 'b'), (2, '[2026-01-01,)', 'c');
SELECT sfsync.create_mapping('stay', 'Account', 'PG_Key__c', 'delete')});
in_step('a key with a period', $stays);
sql(q{
UPDATE stay SET name = 'changed' WHERE guest = 1;
UPDATE stay SET period = '[2026-01-01,2027-01-01)' WHERE guest = 2;
DELETE FROM stay WHERE guest = 1 AND period @> date '2026-02-10'});
in_step('changes of rows and periods', $stays);
is($sim->created('Account'), 3, 'another period is the same record');
sql(q{SELECT sfsync.drop_mapping('stay')});

#
# Constraints that are not enforced
#
sql(q{
CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE contact (id integer PRIMARY KEY, last_name text NOT NULL, account_id integer REFERENCES account NOT ENFORCED);
SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete');
SELECT sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete');
INSERT INTO contact VALUES (1, 'early', 500)});
poll_query($node, q{SELECT count(*) = 1 FROM sfsync.deferred WHERE reason LIKE '%500%'}, 'a child of a parent that need not exist waits for it');
sql(q{INSERT INTO account VALUES (500, 'late')});
wait_for_sync($node, 'the parent came: settled');
my ($parent) = grep { ($_->{PG_Key__c} || '') eq '500' } @{ $sim->records('Account') };
is($sim->records('Contact')->[0]{AccountId}, $parent->{Id}, 'and refers to it then');

#
# REPACK
#
SKIP:
{
	skip 'no REPACK', 1 if $version < 19;
	my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name" FROM account};

	sql(q{SELECT sfsync.pause('account'); UPDATE account SET name = 'pending'});
	sql(q{INSERT INTO account SELECT g, 'row ' || g FROM generate_series(1000, 1100) g});
	my $pending = sql(q{SELECT pending FROM sfsync.status WHERE mapping = 'account'});
	sql($_) foreach ('REPACK account', 'REPACK (CONCURRENTLY) account', 'REPACK (CONCURRENTLY) sfsync.queue', 'REPACK sfsync.record');
	is(sql(q{SELECT pending FROM sfsync.status WHERE mapping = 'account'}), $pending, 'REPACK changes nothing that is pending');
	sql(q{SELECT sfsync.resume('account')});
	wait_for_sync($node, 'REPACK: settled');
	sql(q{UPDATE account SET name = name || ' again'});
	wait_for_sync($node, 'after REPACK: settled');
	is(scalar(grep { ($_->{Name} || '') =~ / again$/ } @{ $sim->records('Account') }), 102, 'and nothing of what comes after');
}

done_testing();
