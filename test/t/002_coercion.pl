# What becomes of values: exact, the same in every session, and refused by name where Salesforce can't take them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('coercion');
my $n = 0;

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

$sim->config(keep_bodies => JSON::PP::true);
connect_salesforce($node, $sim);

# The type of each column and the field that it feeds, by name.
sql(q{CREATE TYPE mood AS ENUM ('Red', 'Green', 'Very blue');
	CREATE DOMAIN positive AS numeric(20, 5) CHECK (VALUE > 0);
	CREATE TABLE value (id integer PRIMARY KEY, text text, text_area varchar, long_text json, html jsonb, phone bigint, url text, email text,
		picklist mood, restricted text, multi text, multi_open text[], checkbox boolean, number numeric, number_2 numeric, number_5 positive,
		small smallint, int integer, currency numeric(30, 10), percent float8, date date, datetime timestamptz, time time,
		unique_ci uuid, location_latitude_s float4, encrypted char(10), archived_at timestamp, archived text)});
sql(q{SELECT sfsync.create_mapping('value', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
sql(q{SELECT sfsync.map_field('value', 'Location__Latitude__s', 'location_latitude_s')});
wait_for_sync($node, 'mapped');
poll_query($node, q{SELECT count(*) FROM sfsync.field_map WHERE status <> 'mapped' AND column_name <> 'id'}, 'metadata are there, and every column has a field', expected => '0');

# Insert one value; how it stands in the request's JSON, to the digit, and what Salesforce holds then.
sub sent
{
	my ($column, $value, $field, %options) = @_;
	my $mark = $sim->mark;
	my $set = $options{set} ? "$options{set}; " : '';

	$n++;
	sql("${set}INSERT INTO value (id, $column) VALUES ($n, $value)");
	wait_for_sync($node);
	foreach my $request ($sim->requests($mark, 'collections_upsert|composite|upsert'))
	{
		my $body = ref $request->{body} ? JSON::PP->new->canonical->encode($request->{body}) : $request->{body};

		return $1 if $body =~ /"\Q$field\E"\s*:\s*("(?:[^"\\]|\\.)*"|[^,}\s]+)/;
	}
	return 'dead letter: ' . sql("SELECT error_message FROM sfsync.dead_letter WHERE external_id = '$n'");
}

sub goes
{
	my ($column, $value, $field, $expected, $stored, %options) = @_;
	my $found = sent($column, $value, $field, %options);
	my $record = $sim->record('Everything__c', $n);

	is($found, $expected, "$column $value is sent as $expected" . ($options{set} ? " under $options{set}" : ''));
	if (defined $stored)
	{
		my $value_there = $record ? $record->{$field} : 'no record';

		$value_there = $value_there ? 'true' : 'false' if JSON::PP::is_bool($value_there);
		is($value_there, $stored eq 'NULL' ? undef : $stored, "$column $value is there as $stored");
	}
	return;
}

# A value that can't go: a dead letter before any call, naming column, value and reason.
sub refused
{
	my ($column, $value, $pattern, %options) = @_;
	my $mark = $sim->mark;
	my $set = $options{set} ? "$options{set}; " : '';

	$n++;
	sql("${set}INSERT INTO value (id, $column) VALUES ($n, $value)");
	wait_for_sync($node);
	my $letter = sql("SELECT error_code || '|' || error_message || '|' || status || '|' || attempts || '|' || coalesce(http_status::text, '') FROM sfsync.dead_letter WHERE external_id = '$n'");

	like($letter, qr/^COERCION_ERROR\|/, "$column $value is refused");
	like($letter, qr/"\Q$column\E"/, "$column $value: the column is named");
	like($letter, $pattern, "$column $value: with value and reason");
	is(scalar($sim->requests($mark)), 0, "$column $value: no call is spent");
	sql("DELETE FROM value WHERE id = $n");
	wait_for_sync($node);
	return;
}

# text
goes('text', q{'plain'}, 'Text__c', '"plain"', 'plain');
goes('text', q{'  trimmed  '}, 'Text__c', '"trimmed"', 'trimmed');
goes('text', q{E'quote " backslash \\\\ tab \\t'}, 'Text__c', '"quote \\" backslash \\\\ tab"', 'quote " backslash \\ tab');
goes('text', q{''}, 'Text__c', 'null', 'NULL');
goes('text', q{'   '}, 'Text__c', 'null', 'NULL');
goes('text', q{'true'}, 'Text__c', '"true"', 'true');
goes('text', q{'007'}, 'Text__c', '"007"', '007');
goes('text', q{repeat('x', 50)}, 'Text__c', '"' . ('x' x 50) . '"', 'x' x 50);
refused('text', q{repeat('x', 51)}, qr/51 characters.*50/);
refused('text', q{E'bell \\x07'}, qr/U\+0007/);
goes('phone', q{431234567890123}, 'Phone__c', '"431234567890123"', '431234567890123');
goes('long_text', q{'{"a":  [1, 2.50]}'}, 'Long_Text__c', '"{\\"a\\":  [1, 2.50]}"', '{"a":  [1, 2.50]}');
goes('unique_ci', q{'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'}, 'Unique_CI__c', '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11');
goes('encrypted', q{'padded'}, 'Encrypted__c', '"padded"');
goes('email', q{'ada@example.com'}, 'Email__c', '"ada@example.com"', 'ada@example.com');
refused('email', q{'nobody'}, qr/nobody.*e-mail/);

# booleans and picklists
goes('checkbox', 'true', 'Checkbox__c', 'true', 'true');
goes('checkbox', 'false', 'Checkbox__c', 'false', 'false');
goes('checkbox', 'NULL', 'Checkbox__c', 'false', 'false');
goes('picklist', q{'Very blue'}, 'Picklist__c', '"Very blue"', 'Very blue');
goes('restricted', q{'Green'}, 'Restricted__c', '"Green"', 'Green');
refused('restricted', q{'Purple'}, qr/Purple.*restricted picklist/);
goes('multi', q{'Mon;Wed'}, 'Multi__c', '"Mon;Wed"', 'Mon;Wed');
goes('multi_open', q{ARRAY['One', 'Three']}, 'Multi_Open__c', '"One;Three"');

# numbers: exact digits
goes('number', '123456789012345678', 'Number__c', '123456789012345678');
goes('number', '-0.4', 'Number__c', '0');
goes('number', '2.5', 'Number__c', '3');
goes('number', '-2.5', 'Number__c', '-3');
goes('number_2', '1.005', 'Number_2__c', '1.01');
goes('number_2', '1.004', 'Number_2__c', '1.00');
goes('number_2', '1234567890123456.78', 'Number_2__c', '1234567890123456.78');
goes('number_5', '0.00001', 'Number_5__c', '0.00001');
goes('currency', '9999999999999999.994', 'Currency__c', '9999999999999999.99');
goes('small', '9999', 'Small__c', '9999', '9999');
goes('int', '-999999999', 'Int__c', '-999999999', '-999999999');
goes('percent', '0.1::float8', 'Percent__c', '0.1', '0.1');
goes('percent', '1e13::float8 / 3', 'Percent__c', '3333333333333.33');
goes('location_latitude_s', '47.1', 'Location__Latitude__s', '47.1');
goes('percent', '0.3::float8', 'Percent__c', '0.3', '0.3', set => 'SET extra_float_digits = -10');
refused('small', '10000', qr/10000/);
refused('number', '1234567890123456789', qr/1234567890123456789/);
refused('number', q{'NaN'}, qr/NaN/);
refused('number', q{'Infinity'}, qr/Infinity/);
refused('percent', q{'-Infinity'}, qr/-Infinity/);
refused('percent', q{'NaN'}, qr/NaN/);
refused('int', '2000000000', qr/2000000000/);

# dates and times, in sessions of all kinds
foreach my $set ('', q{SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'}, q{SET timezone = 'America/Los_Angeles'; SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET bytea_output = 'escape'})
{
	my @set = $set ? (set => $set) : ();

	goes('date', q{DATE '2024-02-29'}, 'Date__c', '"2024-02-29"', '2024-02-29', @set);
	goes('datetime', q{TIMESTAMPTZ '2024-03-31 01:30:00.999+00'}, 'Datetime__c', '"2024-03-31T01:30:00.000Z"', '2024-03-31T01:30:00.000+0000', @set);
	goes('archived_at', q{TIMESTAMP '2024-07-01 12:00:00'}, 'Archived_At__c', '"2024-07-01T12:00:00.000Z"', '2024-07-01T12:00:00.000+0000', @set);
	goes('time', q{TIME '23:59:59.5'}, 'Time__c', '"23:59:59.500Z"', undef, @set);
}
goes('date', q{'1700-01-01'}, 'Date__c', '"1700-01-01"', '1700-01-01');
goes('date', q{'4000-12-31'}, 'Date__c', '"4000-12-31"', '4000-12-31');
refused('date', q{'1699-12-31'}, qr/1699-12-31/);
refused('date', q{'4001-01-01'}, qr/4001-01-01/);
refused('date', q{'0044-03-15 BC'}, qr/BC|0044/);
refused('date', q{'infinity'}, qr/infinity/);
refused('datetime', q{'-infinity'}, qr/infinity/);
refused('archived_at', q{'infinity'}, qr/infinity/);
sql(q{SELECT sfsync.alter_mapping('value', timestamp_zone => 'Europe/Vienna')});
goes('archived_at', q{TIMESTAMP '2024-07-01 12:00:00'}, 'Archived_At__c', '"2024-07-01T10:00:00.000Z"', '2024-07-01T10:00:00.000+0000', set => q{SET timezone = 'Asia/Tokyo'});
goes('archived_at', q{TIMESTAMP '2024-01-01 12:00:00'}, 'Archived_At__c', '"2024-01-01T11:00:00.000Z"', '2024-01-01T11:00:00.000+0000');

# one bad value does not hold up others, and the good ones of its row are shown
sql(q{INSERT INTO value (id, text, number) SELECT 10000 + i, 'row ' || i, CASE WHEN i = 7 THEN 'NaN' ELSE i::numeric END FROM generate_series(1, 20) i});
wait_for_sync($node, 'one bad of twenty: settled');
is(scalar(grep { $_->{PG_Key__c} > 10000 } @{ $sim->records('Everything__c') }), 19, 'one bad of twenty');
is(sql(q{SELECT source_key, operation, payload->>'Text__c', error_fields FROM sfsync.dead_letter WHERE external_id = '10007'}), '{"id": 10007}|upsert|row 7|{Number__c}', 'its dead letter shows what could be made');
sql(q{UPDATE value SET number = 7 WHERE id = 10007});
wait_for_sync($node, 'corrected: settled');
is($sim->record('Everything__c', '10007')->{Text__c}, 'row 7', 'corrected');
is(sql(q{SELECT status FROM sfsync.dead_letter WHERE external_id = '10007'}), 'resolved', 'and resolved');

# a row with several bad values names all of them, those that would make it too long by their fields alone
my @few = (text => q{repeat('x', 51)}, email => q{'nobody'}, number => q{'NaN'});
my @many = (@few, restricted => q{'Purple'}, multi => q{'Mon;Sun'}, number_2 => q{'NaN'}, small => '10000', int => '2147483647', percent => q{'NaN'},
	date => q{'infinity'}, datetime => q{'infinity'}, archived_at => q{'infinity'}, archived => q{'maybe'});
my %fields_of = (text => 'Text__c', email => 'Email__c', number => 'Number__c', restricted => 'Restricted__c', multi => 'Multi__c', number_2 => 'Number_2__c', small => 'Small__c',
	int => 'Int__c', percent => 'Percent__c', date => 'Date__c', datetime => 'Datetime__c', archived_at => 'Archived_At__c', archived => 'Archived__c');

foreach my $case ([ 20001, @few ], [ 20002, @many ])
{
	my ($id, @pairs) = @$case;
	my %values = @pairs;
	my @columns = sort keys %values;
	my $fields = join(',', sort @fields_of{@columns});

	sql("INSERT INTO value (id, phone, " . join(', ', @columns) . ") VALUES ($id, 123, " . join(', ', @values{@columns}) . ')');
	wait_for_sync($node, "$id: settled");
	is(sql(qq{SELECT error_code, payload->>'Phone__c', (SELECT string_agg(f, ',' ORDER BY f COLLATE "C") FROM unnest(error_fields) f) FROM sfsync.dead_letter WHERE external_id = '$id'}),
		"COERCION_ERROR|123|$fields", "$id: its dead letter has all fields that failed, and what could be made");
	my $message = sql("SELECT error_message FROM sfsync.dead_letter WHERE external_id = '$id'");
	is(join(',', grep { $message !~ /\b\Q$_\E\b/ } split /,/, $fields), '', "$id: its message names each");
	cmp_ok(length($message), '<', 1000, "$id: and is not too long");
	is(sql(qq{SELECT findings FROM sfsync.preview('value', '{"id": $id}')}) =~ s/\\"/"/gr =~ s/^\{"(.*)"\}$/$1/r, "COERCION_ERROR: $message", "$id: preview says the same");
}
is(sql(q{SELECT error_message FROM sfsync.dead_letter WHERE external_id = '20001'}) =~ s/field (\w+): [^;]*/$1/gr, 'column "text", Text__c; column "email", Email__c; column "number", Number__c', 'a few are told of in full');
like(sql(q{SELECT error_message FROM sfsync.dead_letter WHERE external_id = '20002'}), qr/; \d+ more: \w+(, \w+)+$/, 'of many the others by name');
sql(q{UPDATE value SET email = NULL, number = 1 WHERE id = 20001});
wait_for_sync($node, 'two of three corrected: settled');
is(sql(q{SELECT error_fields, attempts, status FROM sfsync.dead_letter WHERE external_id = '20001'}), '{Text__c}|2|open', 'what is corrected is named no more');
sql(q{DELETE FROM value WHERE id > 20000});
wait_for_sync($node, 'deleted: settled');

# what the rules of a field say
sql(q{SELECT sfsync.map_field('value', 'Text__c', 'text', overlong => 'truncate', null_rule => 'keep')});
goes('text', q{repeat('y', 60)}, 'Text__c', '"' . ('y' x 50) . '"', 'y' x 50);
sql("UPDATE value SET text = NULL, small = 5 WHERE id = $n");
wait_for_sync($node, 'null_rule keep: settled');
is($sim->record('Everything__c', $n)->{Text__c}, 'y' x 50, 'null_rule keep');

# keys of all kinds are the same text in every session
sql(q{CREATE TABLE keyed (at timestamptz, f float8, u uuid, n numeric, d date, quantity integer, PRIMARY KEY (at, f, u, n, d))});
sql(q{SELECT sfsync.create_mapping('keyed', 'Invoice__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
sql(q{SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET extra_float_digits = -5;
	INSERT INTO keyed VALUES ('2024-01-01 00:00:00+00', 0.1, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 1.50, '2024-02-03', 1)});
sql(q{SET timezone = 'America/Los_Angeles'; SET datestyle = 'SQL, DMY'; UPDATE keyed SET quantity = 2});
wait_for_sync($node, 'keys: settled');
is($sim->count('Invoice__c'), 1, 'one record in spite of session settings');
is($sim->records('Invoice__c')->[0]{Quantity__c}, 2, 'found again');
sql(q{SET timezone = 'UTC'; SET datestyle = 'ISO'; DELETE FROM keyed});
wait_for_sync($node, 'keys deleted: settled');
is($sim->count('Invoice__c'), 0, 'and deleted');

is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'no other dead letters');
unlike(log_since($node), qr/PANIC|TRAP|terminated by signal/, 'no crash');
$node->stop;
done_testing();
