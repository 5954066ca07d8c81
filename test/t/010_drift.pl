# What changes on both sides under running writes: columns and fields that come, go and change.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('drift');
my $log_start = -s $node->logfile;

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub field_map
{
	my ($mapping, $column) = @_;
	return "SELECT status || ' ' || coalesce(field, '-') FROM sfsync.field_map WHERE mapping = '$mapping' AND column_name = '$column'";
}

sub schema
{
	my ($object, $field, $action, %definition) = @_;
	$sim->post('schema', { object => $object, ($field ? (field => $field) : ()), action => $action, definition => \%definition });
	return;
}

sub log_count
{
	my ($pattern) = @_;
	my $log = log_since($node, $log_start);
	my $n = () = $log =~ /$pattern/g;

	return $n;
}

connect_salesforce($node, $sim);
sql(q{
CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL, phone text, site text, annual_revenue numeric(14,2),
	loyalty_tier varchar(20), rating text, priority text, segment text, fax text, number_of_employees integer);
INSERT INTO account SELECT g, 'Account ' || g, '+43 ' || g, 'site ' || g, g, 'tier ' || g, NULL, 'High', 'segment ' || g
	FROM generate_series(1, 40) g;
CREATE TABLE control (go boolean);
INSERT INTO control VALUES (false);
CREATE SEQUENCE writes});
$sim->config(keep_bodies => JSON::PP::true);
sql(q{SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
wait_for_sync($node, 'the first rows: settled');

#
# A writer in the background: updates to values and to null, inserts, deletes.  What a row can't be
# written with just now (a column that is gone) is left out.
#
sql(q{
CREATE PROCEDURE churn(relation oid, columns text[]) LANGUAGE plpgsql AS $$
DECLARE
	i bigint;
BEGIN
	WHILE (SELECT go FROM control) LOOP
		i := nextval('writes');
		BEGIN
			EXECUTE format('UPDATE %s SET name = %L, %I = %L WHERE id = %s', relation::regclass, 'Name ' || i,
				columns[1 + i % cardinality(columns)], CASE WHEN i % 5 > 0 THEN (i % 1000)::text END, 1 + i * 7 % 40);
			IF i % 10 = 0 THEN
				EXECUTE format('INSERT INTO %s (id, name) VALUES (%s, %L)', relation::regclass, 1000 + i, 'New ' || i);
			ELSIF i % 10 = 5 THEN
				EXECUTE format('DELETE FROM %s WHERE id = %s', relation::regclass, 1000 + i - 5);
			END IF;
		EXCEPTION WHEN undefined_column OR undefined_table OR invalid_text_representation THEN
			NULL;
		END;
		COMMIT;
		PERFORM pg_sleep(0.003);
	END LOOP;
END $$});

my $writer = session($node);
my $watch = session($node);

sub start_writing
{
	my ($table, @columns) = @_;

	sql(q{UPDATE control SET go = true});
	$writer->send(sprintf(q{CALL churn('%s'::regclass::oid, '{%s}')}, $table, join(',', @columns)));
	return;
}

sub stop_writing
{
	sql(q{UPDATE control SET go = false});
	$writer->finish;
	is($writer->errors, '', 'the writer met no error');
	return;
}

# Something happens in the middle of writes.
sub amid
{
	my ($action) = @_;

	for my $when (0, 1)
	{
		my $from = $watch->query(q{SELECT last_value FROM writes});
		poll_until(sub { $watch->query(q{SELECT last_value FROM writes}) >= $from + 10 });
		$action->() unless $when;
	}
	return;
}

sub retry_all
{
	sql(q{SELECT sfsync.retry(id) FROM sfsync.dead_letter WHERE status = 'open'});
	return;
}

my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone", site AS "Site", annual_revenue AS "AnnualRevenue",
	loyalty_tier AS "Loyalty_Tier__c", priority AS "Priority__c" FROM account};

#
# Fields of Salesforce: changed amid writes, found out without being told, repaired, equal again.
#
sub field_case
{
	my (%case) = @_;
	my $before = log_count(qr/in quarantine/);

	start_writing('account', 'phone', 'site', 'annual_revenue', 'loyalty_tier');
	amid($case{break});
	poll_query($node, field_map('account', $case{column}), "$case{name}: in quarantine", expected => "quarantined $case{field}");
	poll_query($node, q{SELECT state || ': ' || detail FROM sfsync.status WHERE mapping = 'account'}, "$case{name}: told in the status",
		expected => "active: 1 field quarantined: $case{field} ($case{trouble})");
	amid(sub { sql(q{SELECT sfsync.refresh_schema()}) });
	is(log_count(qr/in quarantine/) - $before, 1, "$case{name}: told once in the log");
	amid($case{mend});
	sql(q{SELECT sfsync.refresh_schema()});
	poll_query($node, field_map('account', $case{column}), "$case{name}: mapped again", expected => "mapped $case{field}");
	stop_writing();
	retry_all();
	wait_for_sync($node, "$case{name}: settled");
	same_records($node, $sim, 'Account', $accounts, "$case{name}: equal after the repair");
	is(sql(q{SELECT detail FROM sfsync.status WHERE mapping = 'account'}), '', "$case{name}: nothing left to tell");
	return;
}

field_case(name => 'hidden', column => 'phone', field => 'Phone', trouble => 'not visible',
	break => sub { schema('Account', 'Phone', 'hide') }, mend => sub { schema('Account', 'Phone', 'show') });
field_case(name => 'deleted', column => 'loyalty_tier', field => 'Loyalty_Tier__c', trouble => 'not visible',
	break => sub { schema('Account', 'Loyalty_Tier__c', 'remove') },
	mend => sub { schema('Account', 'Loyalty_Tier__c', 'add', type => 'Text', length => 20) });
field_case(name => 'read-only', column => 'site', field => 'Site', trouble => 'read-only',
	break => sub { schema('Account', 'Site', 'modify', createable => JSON::PP::false, updateable => JSON::PP::false) },
	mend => sub { schema('Account', 'Site', 'modify', createable => JSON::PP::true, updateable => JSON::PP::true) });
field_case(name => 'retyped', column => 'annual_revenue', field => 'AnnualRevenue', trouble => 'of another type',
	break => sub { schema('Account', 'AnnualRevenue', 'modify', type => 'date') },
	mend => sub { schema('Account', 'AnnualRevenue', 'modify', type => 'currency') });

# null is sent of a row that was set to null meanwhile, and clears nothing else
schema('Account', 'Phone', 'hide');
sql(q{UPDATE account SET phone = NULL WHERE id = 2; UPDATE account SET phone = 'x' WHERE id = 1; SELECT sfsync.refresh_schema()});
wait_for_sync($node, 'nulls: settled');
poll_query($node, field_map('account', 'phone'), undef, expected => 'quarantined Phone');
sql(q{UPDATE account SET phone = NULL WHERE id IN (1, 3)});
sql(q{UPDATE account SET phone = 'y' WHERE id = 4});
wait_for_sync($node, 'nulls in quarantine: settled');
my $edited = sql(q{SELECT id FROM account WHERE phone IS NULL AND id NOT IN (1, 2, 3, 4) AND id <= 40 LIMIT 1}) || do {
	sql(q{UPDATE account SET phone = NULL WHERE id = 5});
	5;
};
schema('Account', 'Phone', 'show');
$sim->post('edit', { object => 'Account', match => { PG_Key__c => "$edited" }, fields => { Phone => 'by hand' } }) if $edited != 5;
sql(q{SELECT sfsync.refresh_schema()});
poll_query($node, field_map('account', 'phone'), undef, expected => 'mapped Phone');
wait_for_sync($node, 'nulls after it: settled');
is(join('|', map { $_ // '' } map { $sim->record('Account', $_)->{Phone} } 1, 3, 4), '||y', 'a null of that time arrives');
is($sim->record('Account', $edited)->{Phone}, 'by hand', 'other nulls clear nothing') if $edited != 5;
sql("UPDATE account SET phone = 'z' WHERE id = $edited");

# under newest_wins: what was changed meanwhile arrives, what people changed stays
sql(q{
CREATE TABLE contact (id integer PRIMARY KEY, last_name text NOT NULL, title text, department text);
INSERT INTO contact SELECT g, 'Contact ' || g, 'title ' || g, 'department' FROM generate_series(1, 20) g;
SELECT sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete')});
wait_for_sync($node, 'newest_wins: settled');
schema('Contact', 'Title', 'hide');
sql(q{SELECT sfsync.refresh_schema()});
poll_query($node, field_map('contact', 'title'), 'newest_wins: in quarantine', expected => 'quarantined Title');
sql(q{UPDATE contact SET title = CASE WHEN id <= 10 THEN 'new ' || id END WHERE id <= 15; UPDATE contact SET department = 'other'});
sql(q{DELETE FROM contact WHERE id = 15});
wait_for_sync($node, 'newest_wins, in quarantine: settled');
schema('Contact', 'Title', 'show');
$sim->post('edit', { object => 'Contact', match => { PG_Key__c => '16' }, fields => { Title => 'by hand' } });
sql(q{SELECT sfsync.refresh_schema()});
poll_query($node, field_map('contact', 'title'), 'newest_wins: mapped again', expected => 'mapped Title');
wait_for_sync($node, 'newest_wins, mapped again: settled');
same_records($node, $sim, 'Contact', q{SELECT id::text AS "PG_Key__c", last_name AS "LastName", CASE WHEN id = 16 THEN 'by hand' ELSE title END AS "Title",
	department AS "Department" FROM contact}, 'newest_wins: equal but for an edit');
same_state($node, 'newest_wins: nothing is left');

#
# Values that a field takes no longer
#
start_writing('account', 'phone', 'site', 'loyalty_tier');
amid(sub { schema('Account', 'Site', 'modify', length => 2) });
poll_query($node, q{SELECT count(*) > 0 FROM sfsync.dead_letter WHERE status = 'open' AND error_code = 'COERCION_ERROR'}, 'too long for the shortened field');
amid(sub { schema('Account', 'Site', 'modify', length => 80) });
stop_writing();
sql(q{SELECT sfsync.refresh_schema()});
poll_query($node, q{SELECT NOT bool_or(refresh) FROM sfsync.object});
retry_all();
wait_for_sync($node, 'shortened: settled');
same_records($node, $sim, 'Account', $accounts, 'shortened: equal after the repair');

schema('Account', 'Priority__c', 'modify', picklistValues => [ 'High', 'Medium' ]);
sql(q{UPDATE account SET priority = 'Low' WHERE id = 7; UPDATE account SET priority = 'Medium' WHERE id = 8});
poll_query($node, q{SELECT error_code IN ('COERCION_ERROR', 'INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST') FROM sfsync.dead_letter WHERE status = 'open'},
	'a value that is not active any more');
poll_until(sub { $sim->record('Account', 8)->{Priority__c} eq 'Medium' }, 'others go');
schema('Account', 'Priority__c', 'modify', picklistValues => [ 'High', 'Medium', 'Low' ]);
sql(q{SELECT sfsync.refresh_schema()});
poll_query($node, q{SELECT NOT bool_or(refresh) FROM sfsync.object});
retry_all();
wait_for_sync($node, 'picklist: settled');
same_records($node, $sim, 'Account', $accounts, 'picklist: equal after the repair');

#
# The object, and its key
#
for my $case ([ 'object hidden', undef, 'hide', {}, 'show', {}, 'object Account does not exist in Salesforce, or the integration user may not see it' ],
	[ 'no External ID', 'PG_Key__c', 'modify', { externalId => JSON::PP::false, idLookup => JSON::PP::false }, 'modify',
		{ externalId => JSON::PP::true, idLookup => JSON::PP::true }, 'field PG_Key__c of Account is not an External ID' ])
{
	my ($name, $field, $break, $broken, $mend, $mended, $reason) = @$case;

	start_writing('account', 'phone', 'site');
	amid(sub { schema('Account', $field, $break, %$broken); sql(q{SELECT sfsync.refresh_schema()}) });
	poll_query($node, q{SELECT state || ': ' || detail FROM sfsync.status WHERE mapping = 'account'}, "$name: blocked with the reason", expected => "blocked: $reason");
	amid(sub { schema('Account', $field, $mend, %$mended); sql(q{SELECT sfsync.refresh_schema()}) });
	stop_writing();
	retry_all();
	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Account', $accounts, "$name: equal after the repair");
}

# A worker was killed while the mapping was blocked, and what blocked it is mended when the next one comes.
sql(q{UPDATE sfsync.mapping_state SET blocked = 'for a reason of yesterday', blocked_until = now()});
is(sql(q{SELECT state || ': ' || detail FROM sfsync.status WHERE mapping = 'account'}), 'blocked: for a reason of yesterday', 'it was blocked');
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});
poll_query($node, q{SELECT state FROM sfsync.status WHERE mapping = 'account'}, 'the next worker says that it goes', expected => 'active');

# metadata that did not change are not sent again
my $mark = $sim->mark;
sql(q{SELECT sfsync.refresh_schema()});
poll_until(sub { grep { $_->{status} == 304 } $sim->requests($mark, 'describe') }, 'metadata are asked for with If-Modified-Since');

#
# A field that is added, for a column that waits for it
#
is(sql(field_map('account', 'segment')), 'unmatched -', 'no field yet');
start_writing('account', 'phone', 'segment');
amid(sub { schema('Account', 'Segment__c', 'add', type => 'Text', length => 40); sql(q{SELECT sfsync.refresh_schema()}) });
poll_query($node, field_map('account', 'segment'), 'the new field is found', expected => 'mapped Segment__c');
stop_writing();
poll_query($node, q{SELECT count(*) FROM sfsync.backfill_job WHERE state = 'running'}, undef, expected => '0');
wait_for_sync($node, 'a new field: settled');
same_records($node, $sim, 'Account', q{SELECT id::text AS "PG_Key__c", name AS "Name", segment AS "Segment__c" FROM account}, 'a new field has the values of all rows');

#
# Fields for new columns
#
sub created_fields
{
	my ($since) = @_;
	return grep { $_->{path} =~ m{/tooling/sobjects/CustomField} } $sim->requests($since);
}

sql(q{
CREATE TYPE shirt AS ENUM ('small', 'large');
SELECT sfsync.alter_mapping('account', new_columns => 'create_field')});
$mark = $sim->mark;
sql(q{ALTER TABLE account ADD COLUMN support_level varchar(10) DEFAULT 'gold'});
poll_query($node, field_map('account', 'support_level'), 'a field is created', expected => 'mapped Support_Level__c');
poll_query($node, q{SELECT count(*) FROM sfsync.backfill_job WHERE state = 'running'}, undef, expected => '0');
same_records($node, $sim, 'Account', q{SELECT id::text AS "PG_Key__c", name AS "Name", support_level AS "Support_Level__c" FROM account}, 'and filled');
sql(q{
ALTER TABLE account ADD COLUMN long_story text, ADD COLUMN score numeric(8,3), ADD COLUMN any_number numeric, ADD COLUMN visits bigint,
	ADD COLUMN ratio double precision, ADD COLUMN is_partner boolean, ADD COLUMN founded date, ADD COLUMN seen_at timestamptz,
	ADD COLUMN opens_at time, ADD COLUMN size shirt, ADD COLUMN token uuid, ADD COLUMN tags text[], ADD COLUMN extra jsonb,
	ADD COLUMN picture bytea, ADD COLUMN wide varchar(300), ADD COLUMN "größe" text;
UPDATE account SET long_story = 'long', score = 1.5, any_number = 12345678901234567890.5, visits = 7, ratio = 0.25, is_partner = true,
	founded = '2001-02-03', seen_at = '2020-01-01 12:00:00+00', opens_at = '08:30', size = 'large',
	token = '00000000-0000-0000-0000-000000000001', tags = '{a,b}', extra = '{"a": 1}', wide = 'wide' WHERE id = 1});
poll_query($node, q{SELECT string_agg(column_name, ' ' ORDER BY column_name::text COLLATE "C") FROM sfsync.field_map WHERE mapping = 'account' AND status <> 'mapped'},
	'all but those that can have none', expected => "gr\x{c3}\x{b6}\x{c3}\x{9f}e picture", seconds => 30);
poll_query($node, q{SELECT string_agg(field_type, ' ' ORDER BY a.attnum) FROM sfsync.field_map f JOIN pg_attribute a ON a.attrelid = 'account'::regclass AND a.attname = f.column_name
	WHERE f.mapping = 'account' AND a.attnum > 11 AND field IS NOT NULL}, 'with the fitting types',
	expected => 'string textarea double string double double boolean date datetime time picklist string textarea textarea textarea');
is(scalar(created_fields($mark)), 15, 'one request a field');
poll_query($node, q{SELECT detail LIKE '%Salesforce has none for type bytea%' AND detail LIKE '%column "gr%its name can''t be made of the column''s%' FROM sfsync.status WHERE mapping = 'account'},
	'the status tells what could not be made');
poll_query($node, q{SELECT count(*) FROM sfsync.backfill_job WHERE state = 'running'}, undef, expected => '0');
wait_for_sync($node, 'new columns: settled');
my $made = $sim->record('Account', 1);
is(join('|', map { $made->{"${_}__c"} // '-' } qw(Long_Story Score Any_Number Visits Ratio Is_Partner Founded Size Token Tags Extra Wide)),
	'long|1.5|12345678901234567890.5|7|0.25|1|2001-02-03|large|00000000-0000-0000-0000-000000000001|["a","b"]|{"a": 1}|wide', 'and their values');

# an existing field counts as created, and is granted
$sim->post('schema', { object => 'Account', field => 'Old_Friend__c', action => 'add', definition => { type => 'Text', length => 30 } });
schema('Account', 'Old_Friend__c', 'hide');
my $permissions = $sim->count('FieldPermissions');
sql(q{ALTER TABLE account ADD COLUMN old_friend text});
poll_query($node, q{SELECT detail FROM sfsync.field_map WHERE mapping = 'account' AND column_name = 'old_friend'}, 'a field that exists is granted',
	expected => 'no field has this name; field Old_Friend__c was created and granted, but is not visible yet');
is($sim->count('FieldPermissions'), $permissions + 1, 'by the permission set');
is($sim->count('PermissionSet'), 1, 'of which there is one');
is($sim->count('PermissionSetAssignment'), 1, 'assigned once');
schema('Account', 'Old_Friend__c', 'show');
sql(q{SELECT sfsync.refresh_schema()});
poll_query($node, field_map('account', 'old_friend'), 'and mapped when it is visible', expected => 'mapped Old_Friend__c');

# not permitted: told, not tried again and again; records go on
$sim->fault(name => 'forbidden', match => { path => '/tooling/' },
	action => { status => 403, body => '[{"errorCode":"INSUFFICIENT_ACCESS","message":"insufficient access rights on object id"}]' });
sql(q{ALTER TABLE account ADD COLUMN forbidden text});
poll_query($node, q{SELECT detail LIKE '%field Forbidden__c could not be created: INSUFFICIENT_ACCESS: insufficient access%Customize Application%'
	FROM sfsync.field_map WHERE mapping = 'account' AND column_name = 'forbidden'}, 'not permitted is told');
sql(q{UPDATE account SET name = 'on', forbidden = 'x' WHERE id = 2});
wait_for_sync($node, 'not permitted: settled');
is($sim->record('Account', 2)->{Name}, 'on', 'records go on');
is($sim->hits('forbidden'), 1, 'and it is not tried again at once');
is(sql(q{SELECT state FROM sfsync.server_status}), 'active', 'the server is not blocked');
sql(q{SELECT sfsync.refresh_schema()});
poll_until(sub { $sim->hits('forbidden') == 2 }, 'but when asked to');
poll_query($node, q{SELECT retry_at IS NOT NULL AND problem LIKE 'field Forbidden__c %' FROM sfsync.field_creation WHERE problem LIKE '%Forbidden%'}, 'and put off again');
is(log_count(qr/worker .*field Forbidden__c could not be created/), 1, 'told once in the log');
$sim->clear_faults;
# a worker that is killed amid the steps begins anew
count_lines($node);
$sim->fault(name => 'slow', match => { path => '/sobjects/FieldPermissions' }, times => 1, action => { hang => 60 });
sql(q{SELECT sfsync.refresh_schema()});
poll_until(sub { $sim->hits('slow') == 1 }, 'permitted: it is tried again when asked to');
kill 'KILL', worker_pid($node);
$sim->clear_faults;
poll_query($node, q{SELECT 1}, undef, expected => '1');
poll_query($node, field_map('account', 'forbidden'), 'after a kill -9 amid it', expected => 'mapped Forbidden__c', seconds => 60);
poll_until(sub { ($sim->record('Account', 2)->{Forbidden__c} // '') eq 'x' }, 'and the value of the meantime arrives');
is(scalar(grep { $_->{DeveloperName} && $_->{DeveloperName} eq 'Forbidden' } @{ $sim->records('CustomField') }), 1, 'the field was made once');
$_->quit foreach $writer, $watch;
$writer = session($node);
$watch = session($node);

#
# DDL on the mapped table, before changes are delivered and while they are in flight
#
sql(q{SELECT sfsync.drop_mapping('account', discard_pending => true)});
sql(q{
CREATE SCHEMA elsewhere;
CREATE TABLE thing (id integer PRIMARY KEY, name text NOT NULL, text text, long_text text, number integer, spare text);
INSERT INTO thing SELECT g, 'Thing ' || g, 'text ' || g, 'long ' || g, g FROM generate_series(1, 40) g;
SELECT sfsync.create_mapping('thing', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
wait_for_sync($node, 'things: settled');

sub ddl_case
{
	my ($name, $do, $undo, $query, $mapping) = @_;
	my $in_flight = "in flight $name";

	$mapping //= 'thing';
	start_writing($mapping, 'text', 'long_text', 'number', 'spare');
	sql("SELECT sfsync.pause('$mapping')");
	amid(sub { sql($do) });
	sql("SELECT sfsync.resume('$mapping')");
	$sim->fault(name => $in_flight, match => { kind => [ 'collections_upsert', 'collections_update', 'composite' ] }, times => 1, action => { delay => 0.3 });
	poll_until(sub { $sim->hits($in_flight) > 0 }) or fail("$name: nothing in flight");
	amid(sub { sql($undo) });
	stop_writing();
	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Everything__c', $query, "$name: table and records are equal");
	same_state($node, "$name: nothing is left");
	return;
}

my $things = q{SELECT id::text AS "PG_Key__c", name AS "Name", text AS "Text__c", long_text AS "Long_Text__c", number AS "Number__c" FROM thing};

sub backfills_done
{
	poll_query($node, q{SELECT count(*) FROM sfsync.backfill_job WHERE state = 'running'}, undef, expected => '0');
	return;
}

# by an explicit rule a renamed column stays what it is
sql(q{SELECT sfsync.map_field('thing', 'Text__c', 'text')});
ddl_case('a renamed column', q{ALTER TABLE thing RENAME COLUMN text TO words}, q{ALTER TABLE thing RENAME COLUMN words TO text}, $things);
sql(q{SELECT sfsync.unmap_field('thing', 'Text__c')});
ddl_case('a column of another type', q{ALTER TABLE thing ALTER COLUMN number TYPE bigint}, q{ALTER TABLE thing ALTER COLUMN number TYPE integer}, $things);
ddl_case('a renamed table', q{ALTER TABLE thing RENAME TO thing_2}, q{ALTER TABLE thing_2 RENAME TO thing}, $things);
ddl_case('a table in another schema', q{ALTER TABLE thing SET SCHEMA elsewhere}, q{ALTER TABLE elsewhere.thing SET SCHEMA public}, $things);
ddl_case('a new column and a dropped one', q{ALTER TABLE thing ADD COLUMN url text DEFAULT 'http://x.example'}, q{ALTER TABLE thing DROP COLUMN spare}, $things);
backfills_done();
same_records($node, $sim, 'Everything__c', q{SELECT id::text AS "PG_Key__c", url AS "Url__c" FROM thing}, 'a new column with a default');
ddl_case('another primary key', q{ALTER TABLE thing DROP CONSTRAINT thing_pkey, ADD COLUMN uid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY},
	q{ALTER TABLE thing DROP CONSTRAINT thing_pkey, ADD PRIMARY KEY (id)}, $things);

sql(q{ALTER TABLE thing DROP COLUMN long_text});
ddl_case('a dropped column', q{SELECT 1}, q{SELECT 1}, q{SELECT id::text AS "PG_Key__c", name AS "Name", text AS "Text__c" FROM thing});

# a table that is another
sql(q{DROP TABLE thing});
sql(q{CREATE TABLE thing (id integer PRIMARY KEY, name text NOT NULL)});
poll_query($node, q{SELECT state || ': ' || regexp_replace(detail, '[0-9]+', 'N') FROM sfsync.status WHERE mapping = 'thing'}, 'a table that was made anew',
	expected => 'blocked: the source table (oid N) was dropped, and one of the same name is another; end the mapping with sfsync.drop_mapping, then create it anew');
sql(q{SELECT sfsync.drop_mapping('thing', discard_pending => true)});
sql(q{INSERT INTO thing SELECT g, 'Again ' || g FROM generate_series(1, 40) g;
	SELECT sfsync.create_mapping('thing', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
wait_for_sync($node, 'the new table: settled');
is($sim->record('Everything__c', 5)->{Name}, 'Again 5', 'the new table has the records');
sql(q{ALTER TABLE thing ADD COLUMN ident integer; ALTER TABLE thing DROP COLUMN id});
poll_query($node, q{SELECT state || ': ' || detail FROM sfsync.status WHERE mapping = 'thing'}, 'a key column that is gone',
	expected => 'blocked: key column "id" is not in table public.thing any more; end the mapping with sfsync.drop_mapping, then create it anew');
sql(q{SELECT sfsync.drop_mapping('thing', discard_pending => true)});

# partitions
$sim->post('delete', { object => 'Everything__c', id => $_->{Id} }) for @{ $sim->records('Everything__c') };
sql(q{
CREATE TABLE part (id integer PRIMARY KEY, name text NOT NULL, text text, long_text text) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (1) TO (100);
CREATE TABLE part_rest PARTITION OF part FOR VALUES FROM (1000) TO (100000);
CREATE TABLE later (long_text text, id integer PRIMARY KEY, text text, name text NOT NULL);
INSERT INTO part SELECT g, 'Part ' || g FROM generate_series(1, 40) g;
INSERT INTO later SELECT 'l' || g, g, 't' || g, 'Later ' || g FROM generate_series(200, 220) g;
SELECT sfsync.create_mapping('part', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
wait_for_sync($node, 'partitions: settled');
my $parts = q{SELECT id::text AS "PG_Key__c", name AS "Name", text AS "Text__c", long_text AS "Long_Text__c" FROM part};
ddl_case('new partitions', q{ALTER TABLE part ATTACH PARTITION later FOR VALUES FROM (200) TO (300)},
	q{CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (300) TO (400); INSERT INTO part VALUES (301, 'of the new one')}, $parts, 'part');

#
# Circles of lookups
#
sub circle_lookup
{
	my ($object, $key, $field, $parent_object, $parent_key, $name) = @_;
	my $record = $sim->record($object, $key) || {};
	my $parent = $sim->record($parent_object, $parent_key) || {};

	is($record->{$field} // 'none', $parent->{Id} // 'no parent', $name);
	return;
}

schema('Account', 'Main_Invoice__c', 'add', type => 'Lookup', referenceTo => 'Invoice__c', relationshipName => 'Mains');
sql(q{
CREATE TABLE firm (id integer PRIMARY KEY, name text NOT NULL, parent_id integer, main_invoice integer);
CREATE TABLE invoice (id integer PRIMARY KEY, account integer REFERENCES firm DEFERRABLE INITIALLY DEFERRED, notes text);
ALTER TABLE firm ADD FOREIGN KEY (parent_id) REFERENCES firm DEFERRABLE INITIALLY DEFERRED,
	ADD FOREIGN KEY (main_invoice) REFERENCES invoice DEFERRABLE INITIALLY DEFERRED;
SELECT sfsync.create_mapping('firm', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
SELECT sfsync.create_mapping('invoice', 'Invoice__c', 'PG_Key__c', 'delete', conflict_policy => 'newest_wins');
SELECT sfsync.refresh_schema()});
poll_query($node, q{SELECT string_agg(field || ' ' || rule || ' ' || status, ', ' ORDER BY field) FROM sfsync.field_map WHERE column_name IN ('parent_id', 'main_invoice', 'account')},
	'lookups both ways', expected => 'Account__c foreign_key mapped, Main_Invoice__c foreign_key mapped, ParentId foreign_key mapped');

# of one object Salesforce takes none: the records are made, and what closes the circle is told
sql(q{INSERT INTO firm VALUES (5001, 'Itself', 5001)});
wait_for_sync($node, 'a row that refers to itself: settled');
is($sim->record('Account', 5001)->{Name}, 'Itself', 'a row that refers to itself is created');
is(sql(q{SELECT error_code FROM sfsync.dead_letter WHERE external_id = '5001'}), 'CIRCULAR_DEPENDENCY', 'and Salesforce says what it thinks of it');
sql(q{INSERT INTO firm VALUES (5011, 'A', 5012), (5012, 'B', 5013), (5013, 'C', 5011)});
wait_for_sync($node, 'three in a circle: settled');
is(join(' ', map { $sim->record('Account', $_)->{Name} } 5011 .. 5013), 'A B C', 'three in a circle are created');
is(scalar(grep { defined $sim->record('Account', $_)->{ParentId} } 5011 .. 5013), 2, 'two of them with their parents');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open' AND error_code = 'CIRCULAR_DEPENDENCY'}), '2', 'the third is told');
sql(q{UPDATE firm SET parent_id = NULL WHERE id IN (5001, 5012)});
wait_for_sync($node);
retry_all();
wait_for_sync($node, 'a circle that is opened: settled');
circle_lookup('Account', 5013, 'ParentId', 'Account', 5011, 'a circle that is opened');
$mark = $sim->mark;
sql(q{BEGIN; INSERT INTO firm VALUES (5021, 'D', NULL, 5022); INSERT INTO invoice VALUES (5022, 5021, 'n'); COMMIT});
wait_for_sync($node, 'two mappings in a circle: settled');
circle_lookup('Account', 5021, 'Main_Invoice__c', 'Invoice__c', 5022, 'two mappings in a circle: one way');
circle_lookup('Invoice__c', 5022, 'Account__c', 'Account', 5021, 'and the other');

# a circle that closes late, and changes meanwhile
sql(q{ALTER TABLE firm ALTER CONSTRAINT firm_parent_id_fkey DEFERRABLE INITIALLY DEFERRED; SELECT sfsync.pause('invoice')});
sql(q{BEGIN; INSERT INTO firm VALUES (5031, 'E', NULL, 5032); INSERT INTO invoice VALUES (5032, 5031, 'n'); COMMIT});
poll_query($node, q{SELECT count(*) FROM sfsync.deferred d JOIN sfsync.mapping m ON m.id = d.mapping WHERE m.name = 'firm' AND d.parent_key = '5032'}, 'it waits for a mapping that is paused', expected => '1');
sql(q{UPDATE firm SET name = 'E2' WHERE id = 5031});
sql(q{SELECT sfsync.resume('invoice')});
wait_for_sync($node, 'a circle that closes late: settled');
circle_lookup('Account', 5031, 'Main_Invoice__c', 'Invoice__c', 5032, 'a circle that closes late');
circle_lookup('Invoice__c', 5032, 'Account__c', 'Account', 5031, 'both ways');
is($sim->record('Account', 5031)->{Name}, 'E2', 'with the change of the meantime');

# a parent that failed is named
sql(q{BEGIN; INSERT INTO firm VALUES (5041, repeat('x', 300)); INSERT INTO invoice VALUES (5042, 5041, 'n'); COMMIT});
poll_query($node, q{SELECT d.reason ~ ('; the parent is dead letter ' || l.id || ': COERCION_ERROR$') FROM sfsync.deferred d, sfsync.dead_letter l
	WHERE d.key = '5042' AND l.status = 'open' AND l.external_id = '5041'}, 'a parent that is a dead letter is named');
sql(q{UPDATE firm SET name = 'short' WHERE id = 5041});
wait_for_sync($node, 'a parent that is mended: settled');
circle_lookup('Invoice__c', 5042, 'Account__c', 'Account', 5041, 'and the child goes when it is mended');
same_state($node, 'nothing is left');

# what a rule names before there are metadata, and what then proves unknown
sql(q{CREATE TABLE slip (id integer PRIMARY KEY, last_name text, company text DEFAULT 'C', phone text);
	INSERT INTO slip (id, last_name, phone) VALUES (1, 'one', '1');
	BEGIN; SELECT sfsync.create_mapping('slip', 'Lead', 'PG_Key__c', 'delete'); SELECT sfsync.map_field('slip', 'Fone', 'phone'); COMMIT});
poll_query($node, q{SELECT state || ': ' || detail FROM sfsync.status WHERE mapping = 'slip'}, 'a rule for a field that was never there blocks the mapping',
	expected => 'blocked: field Fone of Lead, which map_field names, does not exist, or the integration user may not see it');
is($sim->count('Lead'), 0, 'nothing is sent');
sql(q{SELECT sfsync.unmap_field('slip', 'Fone')});
wait_for_sync($node, 'without the rule');
is($sim->record('Lead', 1)->{Phone}, '1', 'it goes on');
$_->quit foreach $writer, $watch;

done_testing();
