# Lookups by foreign key, columns that begin to feed a field, and rows that change places.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('relations');

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# Record of an object by its key.
sub record
{
	my ($object, $key) = @_;
	my ($found) = grep { defined $_->{PG_Key__c} && $_->{PG_Key__c} eq $key } @{ $sim->records($object) };

	return $found || {};
}

# Each child refers to the record of its row's parent, and to none where it has none.
sub lookups_are_right
{
	my ($object, $field, $parent, $query, $name) = @_;
	my %parents = map { ($_->{Id} => $_->{PG_Key__c}) } @{ $sim->records($parent) };
	my %holds = map { ("$_->{PG_Key__c}|" . ($_->{$field} ? $parents{ $_->{$field} } : '') => 1) } @{ $sim->records($object) };
	my %rows = map { ($_ => 1) } split(/\n/, sql($query));
	my @wrong = ((map { "row $_" } grep { !$holds{$_} } sort keys %rows), (map { "record $_" } grep { !$rows{$_} } sort keys %holds));

	is("@wrong", '', $name);
	return;
}

my $contacts = q{SELECT id || '|' || coalesce(account_id::text, '') FROM contact};
my $accounts = q{SELECT id || '|' || coalesce(parent_id::text, '') FROM account};

sub in_step
{
	my ($name) = @_;

	wait_for_sync($node, "$name: settled");
	lookups_are_right('Contact', 'AccountId', 'Account', $contacts, "$name: contacts refer to their accounts");
	lookups_are_right('Account', 'ParentId', 'Account', $accounts, "$name: accounts refer to their parents");
	return;
}

sub map_table
{
	my ($table, $object) = @_;

	sql("SELECT sfsync.create_mapping('$table', '$object', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')");
	return;
}

connect_salesforce($node, $sim);

#
# The child is mapped first: the lookup is filled once its parent's table is mapped.
#
sql(q{
CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL, parent_id integer REFERENCES account);
CREATE TABLE contact (id integer PRIMARY KEY, last_name text NOT NULL, account_id integer REFERENCES account, email text);
INSERT INTO account SELECT g, 'Account ' || g, nullif(g - 1, 0) FROM generate_series(1, 30) g;
INSERT INTO contact SELECT g, 'Contact ' || g, 1 + g % 30 FROM generate_series(1, 300) g});
map_table('contact', 'Contact');
wait_for_sync($node, 'children alone: settled');
is($sim->count('Contact'), 300, 'children are there without a parent');
is(sql(q{SELECT status FROM sfsync.field_map WHERE mapping = 'contact' AND column_name = 'account_id'}), 'incompatible',
	'an integer is no Id');
map_table('account', 'Account');
poll_query($node, q{SELECT rule || ' ' || field || ' ' || status FROM sfsync.field_map WHERE column_name = 'account_id'},
	'a foreign key fills the lookup', expected => 'foreign_key AccountId mapped');
poll_query($node, q{SELECT count(*) FROM sfsync.backfill_progress WHERE mapping = 'contact'},
	'and the rows that exist are sent again', expected => '2');
in_step('mapped in any order');
is($sim->created('Contact'), 300, 'nothing was created twice');

#
# Parent and child in one transaction, the child noted first; chains; null; another parent.
#
my $mark = $sim->mark;
sql(q{
BEGIN;
ALTER TABLE contact ALTER CONSTRAINT contact_account_id_fkey DEFERRABLE;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO contact VALUES (1001, 'Early', 1001);
INSERT INTO account VALUES (1001, 'Late', NULL);
COMMIT});
in_step('parent and child at once');
is(scalar(grep { $_->{kind} eq 'collections_upsert' } $sim->requests($mark)), 2, 'the child waited: no request was refused');
sql(q{UPDATE contact SET account_id = NULL WHERE id = 5; UPDATE contact SET account_id = 7 WHERE id = 6});
in_step('null and another parent');
sql(q{INSERT INTO account SELECT g, 'Chain ' || g, g + 1 FROM generate_series(2001, 2020) g
	UNION ALL SELECT 2021, 'Top', NULL}) if sql('ALTER TABLE account ALTER CONSTRAINT account_parent_id_fkey DEFERRABLE INITIALLY DEFERRED') || 1;
in_step('a chain, the lowest first');

#
# A parent that Salesforce refuses: the child waits, and goes when the parent is mended.
#
sql(q{INSERT INTO account VALUES (3001, repeat('x', 300), NULL); INSERT INTO contact VALUES (3001, 'Waiting', 3001)});
poll_query($node, q{SELECT count(*) FROM sfsync.dead_letter WHERE mapping = 'account' AND status = 'open'}, 'the parent is a dead letter', expected => '1');
poll_query($node, q{SELECT count(*) FROM sfsync.deferred d JOIN sfsync.mapping m ON m.id = d.mapping
	WHERE m.name = 'contact' AND d.reason LIKE 'INVALID_FIELD: Foreign key external ID: %3001%'}, 'the child says what it waits for', expected => '1');
sql(q{UPDATE account SET name = 'short' WHERE id = 3001});
in_step('a parent that is mended');

#
# A foreign key of several columns, with a key that has to be escaped.
#
sql(q{
CREATE TABLE lead_source (region text, code text, company text, last_name text, PRIMARY KEY (region, code));
INSERT INTO lead_source VALUES ('a:b', 'c\d', 'One', 'First'), ('a', 'b:c\d', 'Two', 'Second')});
map_table('lead_source', 'Lead');
wait_for_sync($node, 'several key columns: settled');
is(join(' ', sort map { $_->{PG_Key__c} } @{ $sim->records('Lead') }), 'a:b\:c\\\\d a\:b:c\\\\d', 'two keys that would be one without escapes');

#
# Columns that begin to feed a field
#
sql(q{ALTER TABLE contact ADD COLUMN phone text DEFAULT '+43 1'});
poll_query($node, q{SELECT count(*) FROM sfsync.backfill_progress WHERE mapping = 'contact' AND state = 'done'}, 'a column with a default is sent', expected => '3');
is(scalar(grep { ($_->{Phone} // '') eq '+43 1' } @{ $sim->records('Contact') }), sql('SELECT count(*) FROM contact'), 'to all rows that exist');
$sim->post('edit', { object => 'Contact', match => { PG_Key__c => '9' }, fields => { Title => 'edited' } });
sql(q{ALTER TABLE contact ADD COLUMN title text});
sql(q{UPDATE contact SET title = 'Dr' WHERE id = 8});
wait_for_sync($node, 'a new column: settled');
is(record('Contact', 9)->{Title}, 'edited', 'a new column that is null clears nothing');
is(record('Contact', 8)->{Title}, 'Dr', 'and flows at once');
$sim->post('schema', { object => 'Contact', field => 'Department', action => 'hide' });
sql(q{ALTER TABLE contact ADD COLUMN department text; SELECT sfsync.refresh_schema()});
poll_query($node, q{SELECT status FROM sfsync.field_map WHERE mapping = 'contact' AND column_name = 'department'}, 'a hidden field is none', expected => 'unmatched');
sql(q{UPDATE contact SET department = 'sales' WHERE id <= 3});
wait_for_sync($node, 'while it is hidden: settled');
$sim->post('schema', { object => 'Contact', field => 'Department', action => 'show' });
sql(q{SELECT sfsync.refresh_schema()});
poll_until(sub { (record('Contact', 2)->{Department} // '') eq 'sales' }, 'a change made while the field was hidden is not missed');

#
# Rows that take over keys keep their records
#
my %ids = map { ($_ => record('Contact', $_)->{Id}) } 41 .. 44;
sql(q{BEGIN; DELETE FROM contact WHERE id = 42; UPDATE contact SET id = 42 WHERE id = 41; COMMIT});
in_step('the key of a deleted row');
is(record('Contact', 42)->{Id}, $ids{41}, 'the record keeps its Id under the new key');
is(record('Contact', 42)->{LastName}, 'Contact 41', 'and its values');
sql(q{BEGIN; UPDATE contact SET id = 143 + 9000 WHERE id = 43; UPDATE contact SET id = 43 WHERE id = 44; COMMIT});
in_step('the key of a row that left it');
is(record('Contact', 9143)->{Id}, $ids{43}, 'the row that left has its record');
is(record('Contact', 43)->{Id}, $ids{44}, 'the row that came has its own');
sql(q{BEGIN; UPDATE contact SET id = 9200 WHERE id = 50; INSERT INTO contact VALUES (50, 'New 50', 3); COMMIT});
in_step('a key that is used again');
sql(q{BEGIN; UPDATE contact SET id = 9300 WHERE id = 51; DELETE FROM contact WHERE id = 9300; INSERT INTO contact VALUES (51, 'New 51', 4); COMMIT});
in_step('changed, deleted and used again');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'no dead letter is left');

#
# Deletes go the other way round: in one transaction, which deletes the parent first, and one by one
#
# Ids in the order in which they were deleted.
sub deleted
{
	my ($mark) = @_;
	my @ids;

	foreach my $request ($sim->requests($mark))
	{
		my $text = join ' ', map { defined $_ ? $_ : '' } @$request{qw(path query body)};
		push @ids, $text =~ /\b(00[13][0-9A-Za-z]{15})\b/g if $request->{method} eq 'DELETE' || $text =~ /"method"\s*:\s*"DELETE"/;
	}
	return @ids;
}

sql(q{ALTER TABLE contact DROP CONSTRAINT contact_account_id_fkey, ADD FOREIGN KEY (account_id) REFERENCES account ON DELETE CASCADE});
foreach my $policy (qw(source_wins newest_wins))
{
	sql(qq{SELECT sfsync.alter_mapping('account', conflict_policy => '$policy'), sfsync.alter_mapping('contact', conflict_policy => '$policy')});
	sql(q{INSERT INTO account SELECT g, 'Parent', NULL FROM generate_series(5001, 5003) g;
		INSERT INTO contact SELECT g, 'Child', 5001 + g % 3 FROM generate_series(5001, 5300) g});
	in_step("$policy: families");
	$mark = $sim->mark;
	sql(q{DELETE FROM account WHERE id = 5001});
	in_step("$policy: a parent, and its children with it");
	my $order = join '', map { substr($_, 2, 1) } deleted($mark);
	like($order, qr/^3{100}1$/, "$policy: children are deleted before their parent");
	$mark = $sim->mark;
	sql(q{BEGIN; DELETE FROM contact WHERE account_id IN (5002, 5003); COMMIT; DELETE FROM account WHERE id = 5002; DELETE FROM account WHERE id = 5003});
	in_step("$policy: children, then their parents");
	$order = join '', map { substr($_, 2, 1) } deleted($mark);
	like($order, qr/^3{200}11$/, "$policy: in this order");
	$sim->post('schema', { object => 'Account', field => 'ParentId', action => 'modify', definition => { delete => 'restrict' } });
	sql(q{INSERT INTO account SELECT g, 'Tree', nullif(g - 1, 5100) FROM generate_series(5101, 5105) g});
	in_step("$policy: a tree");
	sql(q{DELETE FROM account WHERE id BETWEEN 5101 AND 5105});
	in_step("$policy: a tree that is deleted from its root");
	is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', "$policy: the root goes last");
	is(scalar(grep { $_->{Name} eq 'Tree' } @{ $sim->records('Account') }), 0, "$policy: but goes");
	$sim->post('schema', { object => 'Account', field => 'ParentId', action => 'modify', definition => { delete => 'setnull' } });
}

#
# Rows that are read first are written in the order in which they came, too
#
$mark = $sim->mark;
sql(q{INSERT INTO account SELECT g, 'In order', NULL FROM generate_series(6001, 6050) g});
in_step('rows that are read first');
my ($create) = grep { $_->{kind} eq 'collections_upsert' } $sim->requests($mark);
is("@{$create->{external_ids}}", join(' ', 6001 .. 6050), 'in this order');

done_testing();
