# Expressions as fields, filters, rows that move in and out of them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;
use Time::HiRes qw(time);

my $sim = simulator();
my $node = new_node('expressions');

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# Record of an object by its key.
sub record
{
	my ($key, $object) = @_;
	my ($found) = grep { defined $_->{PG_Key__c} && $_->{PG_Key__c} eq $key } @{ $sim->records($object || 'Account') };

	return $found || {};
}

sub keys_of
{
	my ($object) = @_;
	return join ' ', sort { $a <=> $b } map { $_->{PG_Key__c} } @{ $sim->records($object || 'Account') };
}

# Requests since a mark, logins and looks at metadata apart.
sub calls
{
	my ($mark) = @_;
	return join ' ', grep { !/^(token|versions|limits|describe|describe_global)$/ } map { $_->{kind} } $sim->requests($mark);
}

sub dead_letters
{
	my ($mapping) = @_;
	return sql("SELECT external_id, error_code, error_message, error_fields FROM sfsync.dead_letter WHERE mapping = '$mapping' AND status = 'open' ORDER BY external_id::int");
}

sub settled
{
	my ($name) = @_;
	return wait_for_sync($node, "$name: settled");
}

sub counter
{
	my ($mapping, $column) = @_;
	poll_query($node, "SELECT count(*) FROM sfsync.queue");
	return sql("SELECT $column FROM sfsync.status WHERE mapping = '$mapping'");
}

connect_salesforce($node, $sim);

#
# Expressions
#
sql(q{
CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL, price numeric, quantity integer, "Odd ""Name" text, note text);
INSERT INTO account SELECT g, 'Account ' || g, g, 10, 'odd ' || g, 'note' FROM generate_series(1, 20) g;
SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
settled('the table');
is($sim->count('Account'), 20, 'all rows are there');
sql(q{SELECT sfsync.map_field('account', 'AnnualRevenue', expression => 'price * quantity')});
settled('a first expression');
is(record(7)->{AnnualRevenue} + 0, 70, 'what begins to be fed by an expression is sent');
sql(q{SELECT sfsync.map_field('account', 'Phone', expression => '"Odd ""Name" || ''!''')});
settled('a name that needs quotes');
is(record(7)->{Phone}, 'odd 7!', 'its value');

my $mark = $sim->mark;
sql(q{UPDATE account SET quantity = 20 WHERE id = 7});
settled('a column that two expressions use');
is(record(7)->{AnnualRevenue} + 0, 140, 'a change of a column is a change of the expression');
is(calls($mark), 'collections_update', 'by one call');
$sim->post('edit', { object => 'Account', match => { PG_Key__c => '7' }, fields => { AnnualRevenue => 1 } });
sql(q{UPDATE account SET name = 'Seven' WHERE id = 7});
settled('a column that no expression uses');
is(record(7)->{AnnualRevenue} + 0, 1, 'a change of another column is none of the expression');
is(record(7)->{Name}, 'Seven', 'and goes by itself');
$mark = $sim->mark;
sql(q{UPDATE account SET note = 'other' WHERE id = 7});
settled('a column that feeds nothing');
is(calls($mark), '', 'costs no call');

# An expression of no column; null_rule; a rule that is replaced by another kind.
sql(q{SELECT sfsync.map_field('account', 'Site', expression => '''constant''')});
settled('a constant');
is(scalar(grep { ($_->{Site} // '') eq 'constant' } @{ $sim->records('Account') }), 20, 'is sent to all');
$sim->post('edit', { object => 'Account', match => { PG_Key__c => '3' }, fields => { Fax => 'edited' } });
sql(q{SELECT sfsync.map_field('account', 'Fax', expression => 'nullif(note, ''note'')')});
settled('an expression that is null');
is(record(3)->{Fax}, 'edited', 'a null that begins clears nothing');
is(record(7)->{Fax}, 'other', 'a value is sent');
sql(q{UPDATE account SET note = 'x' WHERE id = 3; UPDATE account SET note = 'note' WHERE id = 7});
settled('an expression that becomes null');
is(record(7)->{Fax}, undef, 'a null that came by a change clears');
sql(q{SELECT sfsync.map_field('account', 'Fax', expression => 'nullif(note, ''note'')', null_rule => 'keep')});
sql(q{UPDATE account SET note = 'note' WHERE id = 3});
settled('null_rule keep');
is(record(3)->{Fax}, 'x', 'keeps what is there');
sql(q{SELECT sfsync.map_field('account', 'Fax', 'note')});
settled('a column in place of an expression');
is(record(7)->{Fax}, 'note', 'its value');
sql(q{SELECT sfsync.map_field('account', 'fax', expression => 'upper(note)')});
settled('and an expression again');
is(record(7)->{Fax}, 'NOTE', 'its value');
is(sql(q{SELECT count(*) FROM sfsync.rule WHERE lower(field) = 'fax'}), '1', 'one rule a field');

#
# Errors of some rows only
#
sql(q{SELECT sfsync.map_field('account', 'NumberOfEmployees', expression => '1000 / (quantity - 10)', conflict_policy => NULL)});
sql(q{UPDATE account SET quantity = 11 WHERE id % 2 = 0});
settled('an expression that fails for some rows');
is(record(8)->{NumberOfEmployees}, 1000, 'other rows flow');
is(dead_letters('account'),
	join("\n", map { "$_|EXPRESSION_ERROR|expression (1000 / (quantity - 10)), field NumberOfEmployees: division by zero|{NumberOfEmployees}" } grep { $_ != 7 } map { 2 * $_ - 1 } 1 .. 10),
	'each failing row is a dead letter that names field and error');
sql(q{UPDATE account SET name = 'Nine' WHERE id = 9});
settled('a failing row that changes');
is(sql(q{SELECT attempts FROM sfsync.dead_letter WHERE external_id = '9' AND status = 'open'}) > 1 ? 1 : record(9)->{Name}, 1, 'is tried again with it');
sql(q{UPDATE account SET quantity = 12 WHERE id % 2 = 1});
settled('mended');
is(dead_letters('account'), '', 'no dead letter is left');
is(record(9)->{NumberOfEmployees}, 500, 'the row is sent');
is(record(9)->{Name}, 'Nine', 'with what waited');

#
# What an expression needs goes away, and comes back
#
sql(q{
CREATE FUNCTION label(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT '<' || $1 || '>'$$;
SELECT sfsync.map_field('account', 'Fax', expression => 'public.label(note)')});
settled('a function of the user');
is(record(7)->{Fax}, '<note>', 'is called');
sql(q{DROP FUNCTION label(text)});
sql(q{UPDATE account SET note = 'dropped', name = 'Seven again' WHERE id = 7; UPDATE account SET note = NULL WHERE id = 9});
settled('a function that was dropped');
is(record(7)->{Name}, 'Seven again', 'other fields flow');
is(record(7)->{Fax}, '<note>', 'the field stays');
is(sql(q{SELECT status FROM sfsync.field_map WHERE field = 'Fax'}), 'quarantined', 'it is quarantined');
is(sql(q{SELECT state FROM sfsync.status}), 'active', 'the mapping is not blocked');
sql(q{CREATE FUNCTION label(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT '[' || $1 || ']'$$});
poll_until(sub { (record(7)->{Fax} // '') eq '[dropped]' }, 'a change made meanwhile is not missed');
settled('a function that is back');
is(record(9)->{Fax}, undef, 'nor one to null');
is(record(8)->{Fax}, '[note]', 'and the others have what the function says now');
sql(q{ALTER TABLE account RENAME COLUMN note TO remark; UPDATE account SET remark = 'renamed' WHERE id = 7});
settled('a column that was renamed');
is(record(7)->{Fax}, '[renamed]', 'the expression follows');
sql(q{ALTER TABLE account ALTER COLUMN quantity TYPE bigint; UPDATE account SET quantity = 15 WHERE id = 7});
settled('another type');
is(record(7)->{NumberOfEmployees}, 200, 'the expression follows');
sql(q{ALTER TABLE account DROP COLUMN remark; UPDATE account SET quantity = 14, name = 'still' WHERE id = 7});
settled('a column that was dropped');
is(record(7)->{NumberOfEmployees}, 250, 'other expressions flow');
is(sql(q{SELECT status || ' ' || detail FROM sfsync.field_map WHERE field = 'Fax'}), q{quarantined the expression can't be evaluated: column "remark" does not exist}, 'its own says why it does not');
same_state($node, 'nothing is left of it');

#
# Filters: rows that move in and out
#
sql(q{
CREATE TABLE contact (id integer PRIMARY KEY, last_name text NOT NULL, title text, active boolean, level integer, secret text);
INSERT INTO contact SELECT g, 'Contact ' || g, 'Dr', g <= 5, 1, 's' FROM generate_series(1, 400) g});
$mark = $sim->mark;
sql(q{SELECT sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', filter => 'active')});
settled('a filter');
is(keys_of('Contact'), '1 2 3 4 5', 'rows that pass are there, and no others');
is(calls($mark), 'collections_upsert', 'the others cost no call');
$mark = $sim->mark;
sql(q{UPDATE contact SET title = 'Prof' WHERE id > 100; DELETE FROM contact WHERE id > 390; INSERT INTO contact VALUES (500, 'New', 'x', false, 1, 's'), (501, 'New', 'x', NULL, 1, 's')});
settled('changes of rows out of it');
is(keys_of('Contact'), '1 2 3 4 5', 'they stay out');
is(calls($mark), '', 'and cost no call, deleted ones neither');

$mark = $sim->mark;
sql(q{UPDATE contact SET active = false WHERE id IN (2, 3)});
settled('rows that leave');
is(keys_of('Contact'), '1 4 5', 'their records are deleted');
is(calls($mark), 'collections_delete', 'by one call');
sql(q{UPDATE contact SET title = 'Out' WHERE id = 2});
settled('a change out of it');
sql(q{UPDATE contact SET active = true WHERE id = 2});
settled('a row that returns');
is(record(2, 'Contact')->{Title}, 'Out', 'is sent whole');
sql(q{BEGIN; UPDATE contact SET active = false WHERE id = 1; UPDATE contact SET active = true, title = 'Back' WHERE id = 1; COMMIT});
my $id = record(1, 'Contact')->{Id};
settled('out and in at once');
is(record(1, 'Contact')->{Title}, 'Back', 'is a change');
is(record(1, 'Contact')->{Id}, $id, 'of the same record');
sql(q{BEGIN; UPDATE contact SET id = 600 WHERE id = 4; UPDATE contact SET active = false WHERE id = 600; COMMIT});
settled('another key, and out');
is(keys_of('Contact'), '1 2 5', 'the record of the old key is deleted');
sql(q{UPDATE contact SET active = NULL WHERE id = 5});
settled('null is not true');
is(keys_of('Contact'), '1 2', 'so the row has left');

# The filter itself changes.
$mark = $sim->mark;
sql(q{SELECT sfsync.alter_mapping('contact', filter => 'active OR (id BETWEEN 10 AND 12)')});
settled('a wider filter');
is(keys_of('Contact'), '1 2 10 11 12', 'rows that newly pass are there');
is(calls($mark), 'collections_upsert', 'the others are not sent again');
$sim->post('edit', { object => 'Contact', match => { PG_Key__c => '11' }, fields => { Title => 'edited' } });
sql(q{SELECT sfsync.alter_mapping('contact', filter => 'id BETWEEN 11 AND 12')});
settled('a narrower filter');
is(keys_of('Contact'), '11 12', 'rows that no longer pass are gone');
is(record(11, 'Contact')->{Title}, 'edited', 'those that pass as before are left alone');
sql(q{SELECT sfsync.exclude_column('contact', 'secret'); SELECT sfsync.alter_mapping('contact', filter => 'secret = ''s'' AND id < 20')});
settled('a column that is never sent');
is($sim->count('Contact'), 19 - 1, 'filters all the same');    # 4 has become 600
sql(q{UPDATE contact SET secret = 'other' WHERE id = 7});
settled('and is captured');
is(record(7, 'Contact')->{Id}, undef, 'a change of it moves the row out');
sql(q{SELECT sfsync.alter_mapping('contact', filter => '')});
settled('without a filter');
is($sim->count('Contact'), sql('SELECT count(*) FROM contact'), 'all rows are there');

# It leaves out more rows than the guard allows.
sql(q{SELECT sfsync.set_delete_policy('contact', NULL, delete_guard => 3)});
my (undef, undef, $warning) = $node->psql('postgres', q{SELECT sfsync.alter_mapping('contact', filter => 'id NOT BETWEEN 31 AND 35')});
like($warning, qr/leaves out more rows than delete_guard \(3\) allows/, 'too many rows leave: a warning says so');
settled('too many rows leave');
is($sim->count('Contact'), sql('SELECT count(*) FROM contact'), 'their deletes are held');
is(sql(q{SELECT held FROM sfsync.status WHERE mapping = 'contact'}), '5', 'all of them');
sql(q{UPDATE contact SET title = 'held' WHERE id = 31; UPDATE contact SET id = 1032 WHERE id = 32});
settled('a held row that changes');
is(sql(q{SELECT held FROM sfsync.status WHERE mapping = 'contact'}), '4', 'is held as before; one with a new key passes');
is(record(31, 'Contact')->{Title}, 'Dr', 'its record is as it was');
is(sql(q{SELECT sfsync.discard_deletes('contact')}), '4', 'given up');
sql(q{UPDATE contact SET title = 'still there' WHERE id = 31});
settled('a row whose delete was given up');
is(record(31, 'Contact')->{Title}, 'Dr', 'its record is left alone');
sql(q{SELECT sfsync.alter_mapping('contact', filter => '')});
settled('it passes again');
is(record(31, 'Contact')->{Title}, 'still there', 'and is in step');
sql(q{SELECT sfsync.alter_mapping('contact', filter => 'id NOT BETWEEN 31 AND 36')});
settled('too many again');
is(sql(q{SELECT sfsync.release_deletes('contact')}), '5', 'released');
settled('released');
is($sim->count('Contact'), sql('SELECT count(*) FROM contact WHERE id NOT BETWEEN 31 AND 36'), 'they are deleted');
sql(q{SELECT sfsync.set_delete_policy('contact', NULL, delete_guard => 1000); SELECT sfsync.alter_mapping('contact', filter => '')});
settled('the guard as it was');

# One that fails for some rows.
sql(q{UPDATE contact SET level = 0 WHERE id = 300; SELECT sfsync.alter_mapping('contact', filter => '10 / level > 0')});
settled('a filter that fails for a row');
is(dead_letters('contact'), '300|EXPRESSION_ERROR|filter: division by zero|{}', 'the row is a dead letter');
is($sim->count('Contact'), sql('SELECT count(*) FROM contact'), 'the others are as they were');
sql(q{UPDATE contact SET level = 100 WHERE id = 300});
settled('mended to leave');
is(dead_letters('contact'), '', 'no dead letter is left');
is(record(300, 'Contact')->{Id}, undef, 'and no record');

# A column of the filter goes away: the mapping says so, and waits.
sql(q{ALTER TABLE contact DROP COLUMN level; UPDATE contact SET title = 'waits' WHERE id = 10});
poll_query($node, q{SELECT state || ' ' || detail FROM sfsync.status WHERE mapping = 'contact'}, 'without its column the filter blocks the mapping',
	expected => q{blocked filter can't be evaluated: column "level" does not exist});
is(sql(q{SELECT state FROM sfsync.status WHERE mapping = 'account'}), 'active', 'no other mapping');
sql(q{SELECT sfsync.alter_mapping('contact', filter => 'id <> 11')});
settled('another filter');
is(record(10, 'Contact')->{Title}, 'waits', 'what waited has gone');

#
# Backfills of some rows
#
foreach my $key (21, 22)
{
	$sim->post('edit', { object => 'Contact', match => { PG_Key__c => "$key" }, fields => { Title => 'edited' } });
}
my $job = sql(q{SELECT sfsync.backfill('contact', 'id = 22 OR id = 11')});
settled('a backfill with a filter');
is(record(22, 'Contact')->{Title}, 'Dr', 'the row is sent');
is(record(21, 'Contact')->{Title}, 'edited', 'others are not');
is(record(11, 'Contact')->{Id}, undef, "nor one that the mapping's filter keeps out");
is(sql("SELECT state, rows_done, rows_total FROM sfsync.backfill_progress WHERE id = $job"), 'done|2|2', 'its progress is of those rows');
sql(q{SELECT sfsync.pause('contact')});
$job = sql(q{SELECT sfsync.backfill('contact', '1 / (id - 25) < 5')}) if sql(q{DELETE FROM contact WHERE id = 25}) || 1;
sql(q{INSERT INTO contact VALUES (25, 'Twenty-five', 'x', true, 's'); SELECT sfsync.resume('contact')});
poll_query($node, "SELECT state FROM sfsync.backfill_progress WHERE id = $job", 'a backfill whose filter fails has failed', expected => 'failed');
settled('nothing else');
poll_query($node, q{SELECT state, last_error FROM sfsync.status WHERE mapping = 'contact'}, 'the mapping goes on and says why', expected => 'active|a backfill failed: division by zero');

#
# The record stays: ignore
#
sql(q{
CREATE TABLE lead (id integer PRIMARY KEY, last_name text NOT NULL, company text NOT NULL, title text, active boolean);
INSERT INTO lead SELECT g, 'Lead ' || g, 'Company', 'Dr', true FROM generate_series(1, 3) g;
SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'ignore', conflict_policy => 'source_wins', filter => 'active')});
settled('on_delete ignore');
$id = record(1, 'Lead')->{Id};
sql(q{UPDATE lead SET active = false WHERE id = 1});
settled('a row that leaves');
is(record(1, 'Lead')->{Id}, $id, 'its record stays');
sql(q{UPDATE lead SET title = 'Out' WHERE id = 1});
settled('a change out of the filter');
is(record(1, 'Lead')->{Title}, 'Dr', 'is none of the record');
poll_query($node, q{SELECT ignored FROM sfsync.status WHERE mapping = 'lead'}, 'one row was ignored', expected => '1');
sql(q{UPDATE lead SET active = true WHERE id = 1});
settled('a row that returns to its record');
is(record(1, 'Lead')->{Title}, 'Out', 'brings what it missed');
is(record(1, 'Lead')->{Id}, $id, 'to the record that it had');

#
# newest_wins, and archive
#
sql(q{
CREATE TABLE opportunity (id integer PRIMARY KEY, name text NOT NULL, stage_name text, close_date date, price numeric, active boolean, description text);
INSERT INTO opportunity SELECT g, 'Deal ' || g, 'Prospecting', '2026-12-31', g, g <= 3, 'd' FROM generate_series(1, 200) g});
$mark = $sim->mark;
sql(q{SELECT sfsync.create_mapping('opportunity', 'Opportunity', 'PG_Key__c', 'archive', delete_values => '{"NextStep": "archived"}', filter => 'active', backfill => false);
SELECT sfsync.map_field('opportunity', 'Amount', expression => 'price * 2');
SELECT sfsync.backfill('opportunity')});
settled('newest_wins');
is(keys_of('Opportunity'), '1 2 3', 'rows that pass are there');
cmp_ok(scalar(split / /, calls($mark)), '<=', 4, 'the others cost no call');
$mark = $sim->mark;
sql(q{UPDATE opportunity SET name = 'Out of it' WHERE id > 50});
settled('changes of rows out of the filter');
is(calls($mark), '', 'cost no call either');
is(record(2, 'Opportunity')->{Amount} + 0, 4, 'an expression is weighed like a column');
$sim->post('edit', { object => 'Opportunity', match => { PG_Key__c => '2' }, fields => { Amount => 99 } });
sql(q{UPDATE opportunity SET name = 'Deal two' WHERE id = 2});
settled('an edit of the field');
is(record(2, 'Opportunity')->{Amount} + 0, 99, 'is kept while the row says nothing of it');
is(record(2, 'Opportunity')->{Name}, 'Deal two', 'beside what the row says');
poll_until(sub { $sim->post('edit', { object => 'Opportunity', match => { PG_Key__c => '3' }, fields => { Description => 'theirs' } }) }, 'an edit of another');
sql(q{UPDATE opportunity SET active = false WHERE id = 3});
settled('a row that leaves');
is(record(3, 'Opportunity')->{NextStep}, 'archived', 'its record is archived, not deleted');
sql(q{UPDATE opportunity SET name = 'Changed outside', price = 50 WHERE id = 3});
settled('a change out of the filter');
is(record(3, 'Opportunity')->{Name}, 'Deal 3', 'is none of the record');
sql(q{UPDATE opportunity SET active = true WHERE id = 3});
settled('a row that returns');
is(record(3, 'Opportunity')->{NextStep}, undef, 'the record is no longer archived');
is(record(3, 'Opportunity')->{Name}, 'Changed outside', 'and has what it missed');
is(record(3, 'Opportunity')->{Amount} + 0, 100, 'by the expression, too');
sql(q{SELECT sfsync.set_delete_policy('opportunity', 'delete'); SELECT sfsync.alter_mapping('opportunity', filter => 'active AND id <> 1')});
settled('a filter that leaves a row out');
is(keys_of('Opportunity'), '2 3', 'its record is deleted');

# A person's edit after the row left is not deleted with it.
sql(q{SELECT sfsync.pause('opportunity'); UPDATE opportunity SET active = false WHERE id = 2});
$sim->post('edit', { object => 'Opportunity', match => { PG_Key__c => '2' }, fields => { Description => 'a deal after all' }, at => time() + 60 });
sql(q{SELECT sfsync.resume('opportunity')});
settled('a row that leaves before an edit');
is(keys_of('Opportunity'), '2 3', 'keeps its record');
is(sql(q{SELECT source_key, field IS NULL FROM sfsync.conflict WHERE mapping = 'opportunity' AND resolution IS NULL ORDER BY id DESC LIMIT 1}), '{"id": 2}|t', 'as a conflict of the record');

#
# A partitioned table, whose partitions number their columns otherwise
#
sql(q{
CREATE TABLE invoice (id integer, region text, name text, total numeric, note text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE invoice_a PARTITION OF invoice FOR VALUES IN ('a');
CREATE TABLE invoice_b (junk text, note text, total numeric, name text, region text NOT NULL, id integer NOT NULL, PRIMARY KEY (id, region));
ALTER TABLE invoice_b DROP COLUMN junk;
ALTER TABLE invoice ATTACH PARTITION invoice_b FOR VALUES IN ('b');
INSERT INTO invoice SELECT g, CASE WHEN g % 2 = 0 THEN 'a' ELSE 'b' END, 'Invoice ' || g, g, 'n' FROM generate_series(1, 10) g;
SELECT sfsync.create_mapping('invoice', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', name => 'invoice', filter => 'total > 4', backfill => false);
SELECT sfsync.map_field('invoice', 'Text__c', expression => 'note || ''/'' || total');
SELECT sfsync.backfill('invoice')});
settled('partitions');
is(join(' ', sort map { "$_->{PG_Key__c}=$_->{Text__c}" } @{ $sim->records('Everything__c') }), '10:a=n/10 5:b=n/5 6:a=n/6 7:b=n/7 8:a=n/8 9:b=n/9', 'filter and expression see their rows');
sql(q{UPDATE invoice SET total = 1 WHERE id IN (5, 6); UPDATE invoice SET total = 40 WHERE id IN (3, 4); UPDATE invoice_b SET note = 'changed' WHERE id = 7});
settled('changes in partitions');
is(join(' ', sort map { "$_->{PG_Key__c}=$_->{Text__c}" } @{ $sim->records('Everything__c') }), '10:a=n/10 3:b=n/40 4:a=n/40 7:b=changed/7 8:a=n/8 9:b=n/9', 'move rows in and out, and change fields');
sql(q{ALTER TABLE invoice RENAME COLUMN total TO amount; UPDATE invoice SET amount = 2 WHERE id = 9; SELECT sfsync.alter_mapping('invoice', filter => 'amount > 100')});
settled('a renamed column of partitions');
is(keys_of('Everything__c'), '', 'the filter follows');
sql(q{DROP TABLE invoice; SELECT sfsync.drop_mapping('invoice', true)});

#
# The worker evaluates as the owner, who can't climb
#
sql(q{
CREATE ROLE owner;
GRANT CREATE, USAGE ON SCHEMA public TO owner;
GRANT USAGE ON FOREIGN SERVER crm TO owner;
CREATE TABLE loot (what text);
GRANT INSERT ON loot TO owner;
SET ROLE owner;
CREATE TABLE everything (id integer PRIMARY KEY, how text);
CREATE FUNCTION climb_inner() RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('role', session_user, false); RETURN current_user; END$$;
CREATE FUNCTION write_inner() RETURNS text LANGUAGE sql AS $$INSERT INTO public.loot VALUES ('written') RETURNING what$$;
CREATE FUNCTION try(how text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
	IF how = 'climb' THEN RETURN public.climb_inner(); END IF;
	IF how = 'write' THEN RETURN public.write_inner(); END IF;
	IF how = 'steal' THEN RETURN (SELECT rolpassword FROM pg_authid LIMIT 1); END IF;
	RETURN current_user || ' in ' || current_setting('search_path');
END$$;
CREATE FUNCTION public.upper(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'hijacked'$$;
INSERT INTO everything VALUES (1, 'climb'), (2, 'write'), (3, 'steal'), (4, 'who')});
sql(q{ALTER ROLE owner SET search_path = public, pg_catalog;
SELECT sfsync.create_mapping('everything', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', name => 'climbing', backfill => false);
SELECT sfsync.map_field('climbing', 'Text__c', expression => 'upper(public.try(how))');
SELECT sfsync.backfill('climbing')});
settled('an owner who tries to climb');
is(record(4, 'Everything__c')->{Text__c}, 'OWNER IN PG_CATALOG, PG_TEMP', 'expressions run as the owner, with a safe search_path');
is(dead_letters('climbing'), join("\n",
	'1|EXPRESSION_ERROR|expression upper(public.try(how)), field Text__c: cannot set parameter "role" within security-definer function|{Text__c}',
	'2|EXPRESSION_ERROR|expression upper(public.try(how)), field Text__c: cannot execute INSERT in a read-only transaction|{Text__c}',
	'3|EXPRESSION_ERROR|expression upper(public.try(how)), field Text__c: permission denied for table pg_authid|{Text__c}'), 'becoming someone else, writing and reading what is not theirs fail');
is(sql('SELECT count(*) FROM loot'), '0', 'nothing was written');
sql(q{REVOKE ALL ON FUNCTION try(text) FROM PUBLIC, owner});
sql(q{UPDATE everything SET how = 'no' WHERE id = 4});
settled('a function that may no longer be called');
like(dead_letters('climbing'), qr/^4\|EXPRESSION_ERROR\|.*permission denied for function try/m, 'is an error of the rows');

#
# Dump and restore: text travels
#
my $dump = "$PostgreSQL::Test::Utils::tmp_check/expressions.dump";
sql(q{DROP TABLE everything CASCADE; SELECT sfsync.drop_mapping('climbing', true); DROP OWNED BY owner; DROP ROLE owner});
settled('before the dump');
my $rules = q{SELECT m.name, r.field, r.expression, r.expression_columns, m.filter, m.filter_columns FROM sfsync.rule r JOIN sfsync.mapping m ON m.id = r.mapping ORDER BY 1, 2};
my $fields = q{SELECT mapping, field, rule, status, detail FROM sfsync.field_map WHERE rule = 'expression' ORDER BY 1, 2};
my @before = (sql($rules), sql($fields));
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, $node->connstr('postgres') ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'restore');
is($node->safe_psql('restored', $rules), $before[0], 'rules and filters are the same');
is($node->safe_psql('restored', $fields), $before[1], 'and resolve');
$node->safe_psql('postgres', q{SELECT sfsync.pause()});
$node->safe_psql('restored', q{SELECT sfsync.adopt('crm'); UPDATE account SET price = 1000 WHERE id = 5; UPDATE contact SET id = 1012 WHERE id = 12});
wait_for_sync($node, 'restored: settled', database => 'restored');
is(record(5)->{AnnualRevenue} + 0, 12000, 'expressions work there');
is(record(1012, 'Contact')->{Title}, 'Dr', 'another key is a change of the same record');
$node->safe_psql('restored', q{ALTER TABLE account RENAME COLUMN price TO cost});
is($node->safe_psql('restored', q{SELECT expression FROM sfsync.rule WHERE field = 'AnnualRevenue'}), '(cost * (quantity)::numeric)', 'and renames are followed');


#
# The widest table, with expressions on top, and columns named like what sfsync needs itself
#
my $columns = join ', ', map { "a_rather_long_common_prefix_$_ text" } 1 .. 1594;
sql(qq{
CREATE SERVER nowhere FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1');
CREATE TABLE wide (k0 integer PRIMARY KEY, o numeric, k_0 text, s text, k text, "k_o" text, $columns);
INSERT INTO wide (k0, o, k_0, s, k, k_o, a_rather_long_common_prefix_1594) VALUES (1, 2, 'k_0', 's', 'k', 'k_o', 'last');
SELECT sfsync.create_mapping('wide', 'Wide__c', 'PG_Key__c', 'delete', server => 'nowhere', conflict_policy => 'source_wins', backfill => false, filter => 'o > 1 AND k0 > 0');
INSERT INTO sfsync.object (server, object, describe, fetched_at)
SELECT 'nowhere', 'Wide__c', jsonb_build_object('name', 'Wide__c', 'label', 'Wide', 'createable', true, 'updateable', true, 'deletable', true, 'queryable', true,
	'fields', jsonb_agg(jsonb_build_object('name', name, 'label', name, 'type', 'string', 'length', 255, 'digits', 0, 'precision', 0, 'scale', 0,
		'createable', true, 'updateable', true, 'nillable', true, 'defaultedOnCreate', false, 'calculated', false, 'custom', true,
		'externalId', name = 'PG_Key__c', 'idLookup', name = 'PG_Key__c', 'unique', name = 'PG_Key__c', 'caseSensitive', name = 'PG_Key__c',
		'restrictedPicklist', false, 'htmlFormatted', false, 'relationshipName', NULL, 'referenceTo', '[]'::jsonb, 'picklistValues', '[]'::jsonb))),
	clock_timestamp()
FROM (SELECT 'PG_Key__c' AS name UNION ALL SELECT 'A_Rather_Long_Common_Prefix_' || g || '__c' FROM generate_series(1, 2000) g) f
ON CONFLICT (server, object) DO UPDATE SET describe = excluded.describe, fetched_at = excluded.fetched_at;
SELECT sfsync.map_field('wide', 'A_Rather_Long_Common_Prefix_1999__c', expression => 'k || s || k_0 || o || k_o || k0');
INSERT INTO sfsync.rule (mapping, field, attnum, expression, expression_columns, expression_attnums)
SELECT m.id, 'A_Rather_Long_Common_Prefix_' || 1594 + g || '__c', 2000 + g, '(o * ' || g || '::numeric)', '{o}', '{2}' FROM sfsync.mapping m, generate_series(1, 400) g WHERE m.name = 'wide';
SELECT sfsync.refresh_schema('nowhere')});
is(sql(q{SELECT count(*), count(*) FILTER (WHERE rule = 'expression') FROM sfsync.field_map WHERE mapping = 'wide' AND status = 'mapped' AND field <> 'PG_Key__c'}), '1995|401', '2,000 fields, 1,600 columns and 400 expressions resolve');
is(sql(q{SELECT payload ->> 'A_Rather_Long_Common_Prefix_1594__c', payload ->> 'A_Rather_Long_Common_Prefix_1994__c', payload ->> 'A_Rather_Long_Common_Prefix_1999__c' FROM sfsync.preview('wide', '{"k0": 1}')}),
	'last|800|ksk_02k_o1', 'and are read, whatever the columns are called');
my $times = sql(q{
DO $$
DECLARE
	start timestamptz; first interval; again interval; n bigint;
BEGIN
	start := clock_timestamp(); SELECT count(*) INTO n FROM sfsync.field_map; first := clock_timestamp() - start;
	start := clock_timestamp(); SELECT count(*) INTO n FROM sfsync.field_map; again := clock_timestamp() - start;
	CREATE TABLE times AS SELECT extract(epoch FROM first) AS first, extract(epoch FROM again) AS again;
END $$;
SELECT first || ' ' || again FROM times});
my ($first, $again) = split / /, $times;
diag("resolving all mappings takes $first s, then $again s");
cmp_ok($again * 4, '<', $first, 'what is resolved is not resolved again');
cmp_ok($first, '<', 2, 'and takes no time worth noting');

done_testing();
