# Random values of every type, in databases and sessions of all kinds, arrive as an independent computation says.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use Encode ();
use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $rows = $ENV{SFSYNC_TEST_VALUES} || 1500;
my $seed = $ENV{SFSYNC_TEST_SEED} || 20261124;
my $files = PostgreSQL::Test::Utils::tempdir();
my $sim = simulator();
my $node = new_node('values', conf => "log_min_messages = warning\n");
my $started = time();

note("SFSYNC_TEST_VALUES=$rows SFSYNC_TEST_SEED=$seed");
srand($seed);

# What a database and a session may have set; '' is the default.
my @settings = (
	q{},
	q{SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kathmandu'; SET IntervalStyle = 'iso_8601'; SET extra_float_digits = -15;},
	q{SET DateStyle = 'German'; SET TimeZone = 'America/St_Johns'; SET bytea_output = 'escape'; SET xmloption = 'document'; SET extra_float_digits = 3;},
	q{SET DateStyle = 'Postgres, MDY'; SET TimeZone = 'Pacific/Apia'; SET IntervalStyle = 'sql_standard'; SET xmlbinary = 'hex'; SET quote_all_identifiers = on;},
	q{SET TimeZone = '<+12:34>-12:34'; SET lc_monetary = 'POSIX'; SET lc_numeric = 'C.UTF-8'; SET array_nulls = off; SET client_encoding = 'LATIN1';},
);

# The worker's sessions have settings too: those of the database.
sub set_database
{
	my ($database) = @_;
	my @set = (
		q{DateStyle = 'SQL, DMY'}, q{TimeZone = 'Asia/Kathmandu'}, q{IntervalStyle = 'iso_8601'},
		q{extra_float_digits = -15}, q{bytea_output = 'escape'}, q{xmloption = 'document'},
		q{xmlbinary = 'hex'}, q{quote_all_identifiers = on});

	$node->safe_psql('postgres', join('; ', map { "ALTER DATABASE $database SET $_" } @set));
	return;
}

sub sql
{
	my ($statement, $database) = @_;

	return $node->safe_psql($database || 'postgres', $statement);
}

# A statement in a session of the test's own, without those settings.
sub plain
{
	my ($statement, $database) = @_;

	return sql("SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex';"
			. " SET extra_float_digits = 1; SET xmlbinary = 'base64'; SET quote_all_identifiers = off; $statement", $database);
}

# The control API with characters, not bytes.
sub control
{
	my ($method, $path, $body) = @_;
	my $utf8 = JSON::PP->new->utf8;
	my $reply = $sim->{http}->request($method, $sim->url . "/_control/$path", $body ? { content => $utf8->encode($body) } : {});

	die "$path: $reply->{status} $reply->{content}" unless $reply->{success};
	return $utf8->decode($reply->{content});
}

sub set_values
{
	my ($field, @values) = @_;

	control('POST', 'schema', { object => 'Everything__c', field => $field, action => 'modify',
			definition => { picklistValues => [ map { { value => $_, label => $_, active => JSON::PP::true } } @values ] } });
	return;
}

sub records
{
	my ($pattern, @fields) = @_;

	return grep { ($_->{PG_Key__c} // '') =~ /$pattern/ } @{ control('GET', 'records?object=Everything__c&fields=' . join(',', 'PG_Key__c', @fields)) };
}

sub add_field
{
	my ($name, $definition) = @_;

	$sim->post('schema', { object => 'Everything__c', field => $name, action => 'add', definition => { label => $name, %$definition } });
	return;
}

# A reply of the control API as a file that the server can read.
sub save
{
	my ($path, $name) = @_;
	my $reply = $sim->{http}->get($sim->url . "/_control/$path");

	die "$path: $reply->{status}" unless $reply->{success};
	open(my $file, '>', "$files/$name") or die "$files/$name: $!";
	binmode($file);
	print $file $reply->{content};
	close($file) or die "$files/$name: $!";
	return "$files/$name";
}

#
# The README's table, cell by cell
#

# Types by row, headings, and the cells as they are written.
sub readme_table
{
	my $text = slurp_file("$FindBin::RealBin/../../README.md");
	my ($table) = $text =~ /^(\| column type \|.*?)\n\n/ms or die 'README.md has no table of column types';
	my ($head, undef, @lines) = split /\n/, $table;
	my @cells = map { [ grep { length } split /\s*\|\s*/, $_ ] } ($head, @lines);
	my (undef, @headings) = @{ shift @cells };

	return (\@headings, map { my ($types, @marks) = @$_; [ [ $types =~ /`([^`]+)`/g ], \@marks ] } @cells);
}

my %fields_of = (
	'Text' => [qw(Text__c Encrypted__c)], 'Phone, URL' => [qw(Phone__c Url__c)], 'Email' => ['Email__c'],
	'Picklist' => [qw(Picklist__c Restricted__c)], 'Multi-select' => ['Multi__c'], 'Checkbox' => ['Checkbox__c'],
	'Number' => [qw(Number__c Int__c)], 'Date' => ['Date__c'], 'Date/Time' => ['Datetime__c'],
	'Time' => ['Time__c'], 'Lookup' => ['Lookup__c'], 'Base64' => ['Data__c']);

add_field('Data__c', { type => 'Text', length => 255 });
$sim->post('schema', { object => 'Everything__c', field => 'Data__c', action => 'modify', definition => { type => 'base64' } });
$sim->config(keep_bodies => JSON::PP::true);
set_database('postgres');
connect_salesforce($node, $sim);

my ($headings, @table) = readme_table();
my @types = map { @{ $_->[0] } } @table;

cmp_ok(scalar(@types), '>', 45, 'the table names the types of PostgreSQL');
sql('CREATE TABLE every_type (id integer PRIMARY KEY, ' . join(', ', map { "c$_ $types[$_]" } 0 .. $#types) . ')');
sql(q{SELECT sfsync.create_mapping('every_type', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
wait_for_sync($node);
poll_query($node, q{SELECT count(*) FROM sfsync.object WHERE object = 'Everything__c' AND describe IS NOT NULL}, 'metadata are there', expected => '1');
{
	my $script = '';
	my $expected = '';
	my $n = 0;

	foreach my $row (@table)
	{
		my ($row_types, $marks) = @$row;

		foreach my $type (@$row_types)
		{
			my %status;

			foreach my $i (0 .. $#$headings)
			{
				$status{$_} = $marks->[$i] eq "\xe2\x9c\x93" ? 'mapped' : 'incompatible' foreach @{ $fields_of{ $headings->[$i] } };
			}
			$script .= "BEGIN;\n" . join('', map { "SELECT FROM sfsync.map_field('every_type', '$_', 'c$n');\n" } sort keys %status)
			  . "SELECT '$type', string_agg(field || ' ' || status, ', ' ORDER BY field COLLATE \"C\") FROM sfsync.field_map WHERE column_name = 'c$n' AND mapping = 'every_type';\nROLLBACK;\n";
			$expected .= "$type|" . join(', ', map { "$_ $status{$_}" } sort keys %status) . "\n";
			$n++;
		}
	}
	chomp $expected;
	is(sql($script) =~ s/^\n//mgr, $expected, 'field_map says of every type and field what the README says');
}
sql(q{SELECT sfsync.drop_mapping('every_type')});

#
# Databases that are not UTF-8
#

sub other_database
{
	my ($name, $encoding) = @_;

	sql("CREATE DATABASE $name ENCODING '$encoding' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
	connect_salesforce($node, $sim, database => $name);
	$node->safe_psql($name, q{CREATE TABLE value (id text PRIMARY KEY, text text, restricted text, multi_open text[], long_text json);
		SELECT sfsync.create_mapping('value', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
	return;
}

sub settled
{
	my ($name, $database) = @_;

	return wait_for_sync($node, $name, database => $database);
}

# The fields of the record with a key, in UTF-8; of none, "missing".
sub record_fields
{
	my ($key, @fields) = @_;
	my ($record) = records(qr/^\Q$key\E$/, @fields);

	return 'missing' unless $record;
	return join('|', map { $record->{$_} // 'NULL' } @fields);
}

set_values('Restricted__c', 'Red', 'Green', "Gr\x{f6}\x{df}e", "Zw\x{f6}lf \x{20ac}");

other_database('latin', 'LATIN1');
my $latin = join('', map { chr } 0xa1 .. 0xff);
my $pieces = join(' || ', map { "chr($_)" } 0xa1 .. 0xff);
sql(qq{INSERT INTO value VALUES ('latin-1', left($pieces, 48), 'gr' || chr(214) || chr(223) || 'E', ARRAY['One', chr(220) || 'ber'], to_json('na' || chr(239) || 'f'::text)),
	('latin-' || chr(252), substr($pieces, 49), 'RED', NULL, NULL),
	('latin-2', repeat(chr(252), 50), NULL, NULL, NULL),
	('latin-3', repeat(chr(252), 51), NULL, NULL, NULL),
	('latin-4', chr(228), 'Gr' || chr(252) || 'n', NULL, NULL)}, 'latin');
settled('LATIN1: settled', 'latin');
is(record_fields('latin-1', qw(Text__c Restricted__c Multi_Open__c Long_Text__c)),
	substr($latin, 0, 48) . "|Gr\x{f6}\x{df}e|One;\x{dc}ber|\"na\x{ef}f\"", 'LATIN1: characters are the same in UTF-8');
is(record_fields("latin-\x{fc}", qw(Text__c Restricted__c)), substr($latin, 48) . '|Red', 'LATIN1: in keys too');
is(record_fields('latin-2', 'Text__c'), "\x{fc}" x 50, 'LATIN1: length is in characters');
is(record_fields($_, 'Text__c'), 'missing', "LATIN1: $_ does not go") foreach ('latin-3', 'latin-4');
is(sql(q{SET client_encoding = 'UTF8'; SELECT external_id, error_code, error_message, payload->>'Text__c' FROM sfsync.dead_letter ORDER BY external_id}, 'latin'),
	"latin-3|COERCION_ERROR|column \"text\", field Text__c: value has 51 characters, field Text__c takes 50|\n"
	  . "latin-4|COERCION_ERROR|column \"restricted\", field Restricted__c: \"Gr\xc3\xbcn\" is not an active value of the restricted picklist Restricted__c|\xc3\xa4",
	'LATIN1: dead letters show their text as it is');
control('POST', 'fault', { name => 'rule', record => { object => 'Everything__c', match => { Text__c => "M\x{fc}ll" }, error => { statusCode => 'FIELD_CUSTOM_VALIDATION_EXCEPTION', message => "5 \x{20ac} f\x{fc}r M\x{fc}ll \x{4e2d}\x{6587}", fields => [] } } });
sql(q{INSERT INTO value VALUES ('latin-5', 'M' || chr(252) || 'll')}, 'latin');
settled('LATIN1: refused, settled', 'latin');
is(sql(q{SET client_encoding = 'UTF8'; SELECT error_message, payload->>'Text__c' FROM sfsync.dead_letter WHERE external_id = 'latin-5'}, 'latin'),
	"5 ? f\xc3\xbcr M\xc3\xbcll ??|M\xc3\xbcll", 'LATIN1: of a message what the encoding has');
is(sql(q{SET client_encoding = 'UTF8'; SELECT payload->>'Text__c' FROM sfsync.preview('value', jsonb_build_object('id', 'latin-' || chr(252)))}, 'latin'),
	Encode::encode('UTF-8', substr($latin, 48)), 'LATIN1: preview');

is(sql(q{SET client_encoding = 'UTF8'; SELECT findings FROM sfsync.preview('value', '{"id": "latin-4"}')}, 'latin'),
	"{\"COERCION_ERROR: column \\\"restricted\\\", field Restricted__c: \\\"Gr\xc3\xbcn\\\" is not an active value of the restricted picklist Restricted__c\"}", 'LATIN1: findings');
like(sql(q{SET client_encoding = 'UTF8'; SELECT finding FROM sfsync.check_mapping('value') WHERE field = 'Restricted__c'}, 'latin'), qr/"Gr\xc3\xbcn" is not/, 'LATIN1: check_mapping');

other_database('ascii', 'SQL_ASCII');
sql(q{INSERT INTO value VALUES ('ascii-1', E'Gr\\xc3\\xbc\\xc3\\x9fe', E'gr\\xc3\\x96\\xc3\\x9fe', E'{One,\\xc3\\x9cber}', E'"na\\xc3\\xafv"'),
	('ascii-2', E'Gr\\xfc\\xdfe', NULL, NULL, NULL),
	('ascii-3', 'good', E'Gr\\xf6\\xdfe', NULL, NULL),
	('ascii-4', 'good', NULL, E'{One,\\xdcber}', NULL),
	('ascii-5', 'good', NULL, NULL, E'"na\\xefv"'),
	('ascii-6', E'\\xed\\xa0\\x80', NULL, NULL, NULL),
	('ascii-7', E'\\xc0\\x80', NULL, NULL, NULL),
	('ascii-8', E'cut \\xe2\\x82', NULL, NULL, NULL),
	('ascii-9', E'\\xf4\\x90\\x80\\x80', NULL, NULL, NULL),
	(E'ascii-\\xfc', 'bad key', NULL, NULL, NULL),
	(E'ascii-\\xc3\\xbc', 'good key', NULL, NULL, NULL)}, 'ascii');
settled('SQL_ASCII: settled', 'ascii');
is(record_fields('ascii-1', qw(Text__c Restricted__c Multi_Open__c Long_Text__c)),
	"Gr\x{fc}\x{df}e|Gr\x{f6}\x{df}e|One;\x{dc}ber|\"na\x{ef}v\"", 'SQL_ASCII: what is UTF-8 goes');
is(record_fields("ascii-\x{fc}", 'Text__c'), 'good key', 'SQL_ASCII: in keys too');
is(scalar(records(qr/^ascii/)), 2, 'SQL_ASCII: nothing else goes');
is(sql(q{SELECT count(*), count(*) FILTER (WHERE error_code = 'COERCION_ERROR' AND error_message ~ 'UTF-8' AND status = 'open') FROM sfsync.dead_letter}, 'ascii'),
	'9|9', 'SQL_ASCII: all else is a COERCION_ERROR');
is(sql(q{SELECT state FROM sfsync.status}, 'ascii'), 'active', 'SQL_ASCII: the mapping goes on');
sql(q{UPDATE value SET text = 'now good', restricted = NULL, multi_open = NULL, long_text = NULL WHERE id <> 'ascii-1'}, 'ascii');
settled('SQL_ASCII: corrected, settled', 'ascii');
is(scalar(records(qr/^ascii/)), 10, 'SQL_ASCII: corrected rows go, the bad key does not');
$sim->clear_faults;

#
# Keys of all kinds: one record a row, whatever the session
#

sql(q{CREATE TABLE keyed (n integer, at timestamptz, local timestamp, d date, t time, tz timetz, i interval, f float8, r real, x numeric, b bytea, ip inet, span tstzrange, flag boolean,
	quantity integer, PRIMARY KEY (n, at, local, d, t, tz, i, f, r, x, b, ip, span, flag))});
sql(q{SELECT sfsync.create_mapping('keyed', 'Invoice__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
sub in_sessions
{
	my ($statement) = @_;

	sql(join("\n", map { "$settings[$_] " . ($statement =~ s/:session\b/$_/gr =~ s/:sessions\b/scalar(@settings)/egr) . '; RESET ALL;' } 0 .. $#settings));
	return;
}
sub key_sessions
{
	my ($statement, $records, $name) = @_;

	in_sessions($statement);
	settled("keys $name: settled");
	is($sim->count('Invoice__c'), $records, "keys $name: a record a row");
	return;
}
sql(qq{SELECT setseed(0.@{[ $seed % 1000 ]})});
key_sessions(q{INSERT INTO keyed SELECT n, at, at AT TIME ZONE 'Europe/Paris', at::date, at::time, timetz '08:15+05:45', (n || ' days 01:02:03')::interval, 1 / (n + 0.7), n / 3.0::real, n / 8.0,
	decode(left(md5(n::text), 8), 'hex'), '10.0.0.0'::inet + n, tstzrange(at, at + interval '1 month'), n % 2 = 0, 0
	FROM (SELECT n, timestamptz '2024-03-30 00:00:00.25+00' + n * interval '31 minutes' AS at FROM generate_series(1, 50) n WHERE n % :sessions = :session) s}, 50, 'inserted');
key_sessions(q{UPDATE keyed SET quantity = n WHERE (n + 1) % :sessions = :session}, 50, 'updated');
is($sim->created('Invoice__c'), 50, 'keys: none was created twice');
is(scalar(grep { ($_->{Quantity__c} // 0) > 0 } @{ $sim->records('Invoice__c') }), 50, 'keys: every update found its record');
key_sessions(q{DELETE FROM keyed WHERE n <= 40 AND (n + 2) % :sessions = :session}, 10, 'deleted');

# A foreign key is the parent's key, whatever its columns would be as values.
sql(q{SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET bytea_output = 'escape';
	CREATE TABLE account (code char(8), at timestamp, b bytea, cash money, name text, PRIMARY KEY (code, at, b, cash));
	CREATE TABLE contact (id integer PRIMARY KEY, last_name text, code char(8), at timestamp, b bytea, cash money, FOREIGN KEY (code, at, b, cash) REFERENCES account);
	SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
	SELECT sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
	SELECT sfsync.alter_mapping('contact', timestamp_zone => 'Europe/Vienna');
	INSERT INTO account VALUES ('a  b', '2024-07-01 12:00:00.5', '\\x00ff', 1234.5::money, 'Parent');
	INSERT INTO contact VALUES (1, 'Child', 'a  b', '2024-07-01 12:00:00.5', '\\x00ff', 1234.5::money)});
settled('foreign keys: settled');
is(($sim->records('Contact')->[0] || {})->{AccountId}, ($sim->records('Account')->[0] || {})->{Id}, 'foreign keys: the child has its parent');
isnt(($sim->records('Contact')->[0] || {})->{AccountId}, undef, 'foreign keys: and both are there');

#
# Random values
#

sql(q{
CREATE FUNCTION pick(VARIADIC a text[]) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT a[1 + floor(random() * cardinality(a))::integer]';
CREATE FUNCTION digits(n double precision) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT coalesce(string_agg(floor(random() * 10)::integer::text, ''), '') FROM generate_series(1, n::integer) $$;
CREATE FUNCTION number(l double precision, r double precision) RETURNS numeric LANGUAGE sql VOLATILE AS $$
	SELECT (pick('', '-') || '0' || digits(floor(random() * (l + 1))) || '.' || pick('', digits(floor(random() * (r + 1))), digits(2) || '5') || '0')::numeric $$;
CREATE FUNCTION words(n integer) RETURNS text LANGUAGE sql VOLATILE AS $$
	SELECT coalesce(string_agg(pick('a', 'Z', ' ', '  ', E'\t', E'\n', E'\r\n', '"', '\', '/', '''', '<b>', '&', '#N/A', 'null', '\u00e4', U&'\00e4', U&'\00c4', U&'\20ac', U&'\+01F600',
		U&'\00a0', U&'\3000', U&'\200b', U&'\2028', U&'\0301', '%', '{', '}', ';', ',', '0', '-'), ''), '') FROM generate_series(1, floor(random() * n)::integer) $$;
CREATE FUNCTION instant() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
	SELECT timestamptz 'epoch' + (floor(random() * 72612201600) - 8520249600) * interval '1 second' + floor(random() * 1000000) * interval '1 microsecond' $$;
CREATE TYPE mood AS ENUM ('Red', 'Green', 'Blue');
CREATE TYPE pair AS (a integer, at timestamptz, t text, f float8);
CREATE DOMAIN positive AS numeric(20, 6) CHECK (VALUE > -1e14);
CREATE DOMAIN positive_list AS positive[];
});

my $citext = sql(q{SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'}) ? 'citext' : 'text';
my $xml = ($node->psql('postgres', q{SELECT '<a/>'::xml}))[0] == 0 ? 'xml' : 'text';
my $long = { type => 'LongTextArea', length => 32768, visibleLines => 3 };
my $short = { type => 'Text', length => 255 };
my $blanks = q{E' \t\n\r' || U&'\00a0\2028\2029\3000'};

sql('CREATE EXTENSION citext') if $citext eq 'citext';

sub number_field { my ($precision, $scale) = @_; return { type => 'Number', precision => $precision, scale => $scale } }
sub trimmed { my ($value) = @_; return "nullif(btrim($value, $blanks), '')" }
sub rounded { my ($scale) = @_; return "round((:v)::numeric, $scale)" }

# Column type, a random value, the field or the new field's definition, what is stored for a value :v, and how it is
# compared: as text, number or checkbox.
my @columns = (
	[ 'boolean', q{random() < 0.5}, 'Checkbox__c', 'coalesce(:v, false)', 'checkbox' ],
	[ 'boolean', q{random() < 0.5}, $short, ':v::text' ],
	[ 'text', q{pick('t', 'F', ' yes', 'No', 'on', 'OFF', '1', '0', '')}, 'Archived__c', q{coalesce(nullif(btrim(:v), '')::boolean, false)}, 'checkbox' ],
	[ 'numeric', q{floor(random() * 2)::numeric(5, 2)}, 'Active__c', 'coalesce(:v = 1, true)', 'checkbox' ],
	[ 'smallint', q{(random() * 19998 - 9999)::smallint}, 'Small__c', ':v', 'number' ],
	[ 'integer', q{(random() * 1999999998 - 999999999)::integer}, 'Int__c', ':v', 'number' ],
	[ 'bigint', q{(random() * 1999999999999999998 - 999999999999999999)::bigint % 1000000000000000000}, 'Number__c', ':v', 'number' ],
	[ 'oid', q{(random() * 4294967295)::bigint::oid}, number_field(18, 0), ':v::bigint', 'number' ],
	[ 'xid8', q{('1' || digits(14))::xid8}, number_field(18, 0), ':v::text', 'number' ],
	[ 'numeric', q{number(15, 40)}, 'Number_2__c', rounded(2), 'number' ],
	[ 'numeric', q{number(12, 40)}, 'Number_5__c', rounded(5), 'number' ],
	[ 'numeric', q{number(15, 3)}, 'Currency__c', rounded(2), 'number' ],
	[ 'positive', q{number(12, 8)}, number_field(18, 4), rounded(4), 'number' ],
	[ 'numeric', q{number(60, 60)}, $short, ':v::text' ],
	[ 'numeric(30, -3)', q{number(15, 3)}, number_field(18, 0), ':v', 'number' ],
	[ 'money', q{number(12, 2)::money}, number_field(18, 2), ':v::numeric', 'number' ],
	[ 'money', q{number(12, 2)::money}, $short, ':v::numeric::text' ],
	[ 'double precision', q{(random() - 0.5) * 10 ^ floor(random() * 16 - 3)}, 'Percent__c', 'round(:v::text::numeric, 2)', 'number' ],
	[ 'double precision', q{(random() - 0.5) * 10 ^ floor(random() * 600 - 300)}, $short, ':v::text' ],
	[ 'real', q{((random() - 0.5) * 10 ^ floor(random() * 14 - 3))::real}, number_field(18, 6), 'round(:v::text::numeric, 6)', 'number' ],
	[ 'text', q{pick('', ' ', '+') || pick('', '00', '1') || digits(9) || pick('', '.', '.5', '.125') || pick('', E'\n')}, number_field(16, 2), 'round(btrim(:v, ' . $blanks . ')::numeric, 2)', 'number' ],
	[ 'text', q{words(20)}, 'Text__c', trimmed(':v') ],
	[ 'varchar', q{words(60)}, 'Text_Area__c', trimmed(':v') ],
	[ 'text', q{words(900)}, 'Long_Text__c', trimmed(':v') ],
	[ 'char(40)', q{words(12)}, $short, trimmed(':v::text') ],
	[ 'name', q{words(12)::name}, $short, trimmed(':v::text') ],
	[ '"char"', q{pick('a', 'Z', '"', '7')::"char"}, $short, ':v::text' ],
	[ $citext, q{words(20)}, $short, trimmed(':v::text') ],
	[ 'text', q{words(12)}, 'Encrypted__c' ],
	[ 'bigint', q{(random() * 1e12)::bigint}, 'Phone__c', ':v::text' ],
	[ 'text', q{'https://example.com/' || words(20)}, 'Url__c', trimmed(':v') ],
	[ 'text', q{pick('', ' ') || pick('Ann', 'bob.X', 'C+d') || digits(5) || '@' || pick('Example', 'a-B') || '.' || pick('com', 'CO.UK')}, 'Email__c', 'lower(btrim(:v))' ],
	[ 'uuid', q{gen_random_uuid()}, 'Unique_CI__c', ':v::text' ],
	[ 'mood', q{pick('Red', 'Green', 'Blue')::mood}, 'Picklist__c', ':v::text' ],
	[ 'text', q{pick(' ', '') || pick('red', 'GREEN', 'bLuE')}, 'Restricted__c', 'initcap(btrim(:v))' ],
	[ 'text', q{pick('mon', 'TUE', '') || '; ' || pick('Fri', 'Tue', ';') || ';' || pick('Wed', 'thu ', 'Mon')}, 'Multi__c',
		q{(SELECT string_agg(d, ';' ORDER BY array_position('{Mon,Tue,Wed,Thu,Fri}', d)) FROM (SELECT DISTINCT initcap(btrim(p)) AS d FROM string_to_table(:v, ';') p WHERE btrim(p) <> '') d)} ],
	[ 'text[]', q{ARRAY[pick('One', 'Two', NULL), pick('Two', 'Three'), pick('One', '')]}, 'Multi_Open__c',
		q{(SELECT string_agg(d, ';' ORDER BY array_position('{One,Two,Three}', d)) FROM (SELECT DISTINCT p AS d FROM unnest(:v) p WHERE p <> '') d)} ],
	[ 'date', q{least(date '1700-01-01' + floor(random() * 840057)::integer, '4000-12-31')}, 'Date__c', q{to_char(:v, 'YYYY-MM-DD')} ],
	[ 'date', q{least(date '1700-01-01' + floor(random() * 840057)::integer, '4000-12-31')}, { type => 'DateTime' }, q{to_char(:v, 'YYYY-MM-DD"T00:00:00.000+0000"')} ],
	[ 'timestamptz', q{instant()}, 'Datetime__c', q{to_char(date_trunc('second', :v) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS".000+0000"')} ],
	[ 'timestamptz', q{instant()}, $short, q{(to_json(:v AT TIME ZONE 'UTC') #>> '{}') || 'Z'} ],
	[ 'timestamp', q{instant() AT TIME ZONE 'UTC' + interval '1 day'}, 'Archived_At__c',
		q{to_char(date_trunc('second', :v AT TIME ZONE 'Europe/Vienna') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS".000+0000"')} ],
	[ 'text', q{to_char(instant() AT TIME ZONE 'UTC', 'YYYY-MM-DD') || pick('T', ' ') || pick('08:15:30', '23:59:59.9999') || pick('Z', '+05:45', '-0830', '+01')}, { type => 'DateTime' },
		q{to_char(date_trunc('second', :v::timestamptz) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS".000+0000"')} ],
	[ 'time', q{time '00:00' + random() * interval '86399 seconds'}, 'Time__c', q{to_char(date_trunc('milliseconds', :v), 'HH24:MI:SS.MS"Z"')} ],
	[ 'timetz', q{(time '00:00' + random() * interval '86399 seconds') AT TIME ZONE interval '05:45'}, $short, ':v::text' ],
	[ 'interval', q{(random() - 0.5) * 1e6 * interval '1 day 01:02:03.004'}, $short, ':v::text' ],
	[ 'bytea', q{decode(md5(random()::text), 'hex')}, $short, q{replace(encode(:v, 'base64'), E'\n', '')} ],
	[ 'json', q{json_build_object('k', words(9), 'n', number(20, 20))}, $long, ':v::text' ],
	[ 'jsonb', q{jsonb_build_array(words(9), number(20, 20), NULL)}, $long, ':v::text' ],
	[ $xml, qq{('<a b="' || digits(9) || '">' || U&'\\00e4' || '</a>')::$xml}, $short, ':v::text' ],
	[ 'integer[]', q{CASE WHEN random() < 0.5 THEN ARRAY[[1, NULL], [3, (random() * 99)::integer]] ELSE ARRAY[(random() * 99)::integer] END}, $short, 'array_to_json(:v)::text' ],
	[ 'numeric[]', q{ARRAY[number(9, 9), 'NaN', number(20, 20)]}, $short, 'array_to_json(:v)::text' ],
	[ 'float8[]', q{ARRAY[random(), 'Infinity', -1e30 * random(), '-Infinity']}, $short, 'array_to_json(:v)::text' ],
	[ 'boolean[]', q{ARRAY[random() < 0.5, NULL]}, $short, 'array_to_json(:v)::text' ],
	[ 'text[]', q{ARRAY[words(9), NULL, words(9)]}, $long, 'array_to_json(:v)::text' ],
	[ 'positive_list', q{ARRAY[number(9, 9)]::positive_list}, $short, 'array_to_json(:v)::text' ],
	[ 'pair', q{ROW((random() * 99)::integer, instant(), words(5), random())::pair}, $short, ':v::text' ],
	[ 'int4range', q{int4range(0, (random() * 99)::integer)}, $short, ':v::text' ],
	[ 'tstzrange', q{tstzrange(date_trunc('second', instant()), NULL)}, $short, ':v::text' ],
	[ 'datemultirange', q{datemultirange(daterange('2024-01-01', date '2024-01-02' + (random() * 99)::integer))}, $short, ':v::text' ],
	[ 'inet', q{('10.' || (random() * 255)::integer || '.0.' || (random() * 255)::integer || pick('', '/24'))::inet}, $short, q{to_json(:v) #>> '{}'} ],
	[ 'cidr', q{('10.' || (random() * 255)::integer || '.0.0/16')::cidr}, $short, ':v::text' ],
	[ 'macaddr', q{('08:00:2b:01:02:' || substr(md5(random()::text), 1, 2))::macaddr}, $short, ':v::text' ],
	[ 'bit(8)', q{(random() * 255)::integer::bit(8)}, $short, ':v::text' ],
	[ 'varbit', q{(random() * 9999)::integer::bit(14)::varbit}, $short, ':v::text' ],
	[ 'point', q{point(random(), -random() * 1e20)}, $short, ':v::text' ],
	[ 'lseg', q{lseg(point(random(), 1), point(2, random()))}, $short, ':v::text' ],
	[ 'box', q{box(point(random(), 1), point(2, random()))}, $short, ':v::text' ],
	[ 'path', q{path(polygon(box(point(random(), 1), point(2, random()))))}, $short, ':v::text' ],
	[ 'polygon', q{polygon(box(point(random(), 1), point(2, random())))}, $short, ':v::text' ],
	[ 'circle', q{circle(point(random(), 1), random())}, $short, ':v::text' ],
	[ 'line', q{line(point(random(), 1), point(2, 2))}, $short, ':v::text' ],
	[ 'tsvector', q{to_tsvector('simple', 'some words ' || digits(3))}, $short, ':v::text' ],
	[ 'tsquery', q{to_tsquery('simple', 'a & !b' || digits(3))}, $short, ':v::text' ],
	[ 'jsonpath', q{('$.a ? (@.b > ' || digits(1) || ')')::jsonpath}, $short, ':v::text' ],
	[ 'pg_lsn', q{pg_lsn('0/0') + (random() * 1e12)::bigint}, $short, ':v::text' ],
	[ 'regclass', q{pick('pg_class', 'wide')::regclass}, $short,
		q{(SELECT CASE WHEN n.nspname = 'pg_catalog' THEN c.relname ELSE n.nspname || '.' || c.relname END FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = :v)} ],
);

my @names = map { "v$_" } 0 .. $#columns;
my @fields;

foreach my $i (0 .. $#columns)
{
	my $field = $columns[$i]->[2];

	if (ref $field)
	{
		add_field("V${i}__c", $field);
		$field = "V${i}__c";
	}
	push @fields, $field;
}
set_values('Restricted__c', qw(Red Green Blue));

sql('CREATE TABLE wide (id integer PRIMARY KEY, ' . join(', ', map { "$names[$_] $columns[$_]->[0]" } 0 .. $#columns) . ')');
sql(q{SELECT sfsync.create_mapping('wide', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins'); SELECT sfsync.alter_mapping('wide', timestamp_zone => 'Europe/Vienna'); SELECT sfsync.refresh_schema()});
poll_query($node, "SELECT describe::text ~ '$fields[-1]' AND describe::text !~ 'Zw' -- of the list before\n FROM sfsync.object WHERE object = 'Everything__c'", 'new fields are known');
sql(join("\n", map { "SELECT sfsync.map_field('wide', '$fields[$_]', '$names[$_]');" } 0 .. $#columns));
wait_for_sync($node);
poll_query($node, q{SELECT string_agg(column_name || ' ' || column_type || ': ' || status, ', ') FROM sfsync.field_map WHERE mapping = 'wide' AND status <> 'mapped' AND column_name <> 'id'}, 'every column feeds its field', expected => '');

my $mark = $sim->mark;
in_sessions(qq{SELECT setseed(0.@{[ $seed % 100000 ]} + :session / 100.0);
	INSERT INTO wide SELECT n, } . join(', ', map { "CASE WHEN random() < 0.9 THEN $_->[1] END" } @columns) . qq{ FROM generate_series(1, $rows) n WHERE n % :sessions = :session});
settled('random values: settled');
is(sql(q{SELECT string_agg(DISTINCT error_message, E'\n') FROM (SELECT error_message FROM sfsync.dead_letter WHERE mapping = 'wide' LIMIT 5) d}), '', 'random values: none is refused');

# Records as Salesforce has them, and as they were sent, as tables with a column of text a field.
my $stored = save('records?object=Everything__c', 'records.json');
my $sent = save("log?bodies=1&since=$mark", 'log.json');
my $expand = 'jsonb_to_record(r) AS e("PG_Key__c" text, ' . join(', ', map { qq{"$_" text} } @fields) . ')';

sql(qq{
CREATE TABLE stored AS SELECT e.* FROM jsonb_array_elements(pg_read_file('$stored')::jsonb) r, $expand WHERE e."PG_Key__c" ~ '^[0-9]+\$';
CREATE TABLE sent AS SELECT e.* FROM jsonb_array_elements(pg_read_file('$sent')::jsonb -> 'requests') q, LATERAL (SELECT (q ->> 'body')::jsonb AS body) b,
	LATERAL (SELECT jsonb_path_query(body, '\$.records[*]') AS r UNION ALL SELECT jsonb_path_query(body, '\$.compositeRequest[*].body.records[*]')) s, $expand
	WHERE q ->> 'kind' IN ('collections_upsert', 'composite');
ANALYZE});
is(sql('SELECT count(*), count(DISTINCT "PG_Key__c") FROM stored'), "$rows|$rows", 'random values: a record a row');
is(sql('SELECT count(DISTINCT "PG_Key__c") FROM sent'), $rows, 'random values: each was sent');

# Rows whose value differs, of one column.
sub differences
{
	my ($i, $table, $compared) = @_;
	my ($type, undef, undef, $expected) = @{ $columns[$i] };
	my $value = $expected =~ s/:v\b/w.$names[$i]/gr;

	return qq{SELECT $i AS i, '$type' AS type, w.id, w.$names[$i]::text AS value, ($value)::text AS expected, s."$fields[$i]" AS found FROM wide w JOIN $table s ON s."PG_Key__c" = w.id::text}
	  . ' WHERE ' . $compared->("s.\"$fields[$i]\"", "($value)");
}

my %compared = (
	text => sub { return "$_[0] IS DISTINCT FROM $_[1]" },
	checkbox => sub { return "$_[0]::boolean IS DISTINCT FROM $_[1]" },
	number => sub { return "$_[0]::float8 IS DISTINCT FROM $_[1]::float8" },
	digits => sub { return "$_[0]::numeric IS DISTINCT FROM $_[1]::numeric" });
my @queries;

foreach my $i (grep { defined $columns[$_]->[3] } 0 .. $#columns)
{
	my $how = $columns[$i]->[4] || 'text';

	push @queries, differences($i, 'stored', $compared{$how});
	push @queries, differences($i, 'sent', $compared{digits}) if $how eq 'number';
}
is(plain('SELECT i, type, count(*), (array_agg(row_to_json(d)))[1] FROM (' . join(' UNION ALL ', @queries) . ') d GROUP BY 1, 2 ORDER BY 1'),
	'', "random values: $rows of each of " . scalar(@columns) . ' columns are what SQL says, and numbers are sent to the digit');
is(sql('SELECT count(*) FROM sfsync.dead_letter'), '0', 'random values: no dead letters');

sub column_of { my ($field) = @_; my ($i) = grep { $fields[$_] eq $field } 0 .. $#fields; return $names[$i] }

# Read back and compared, each value is the one that was sent: a backfill finds nothing to write.
sql(q{SELECT sfsync.exclude_column('wide', '} . column_of('Encrypted__c') . q{'); SELECT sfsync.alter_mapping('wide', conflict_policy => 'newest_wins')});
settled('echoes: settled before');
{
	my $unchanged = sql(q{SELECT unchanged FROM sfsync.status WHERE mapping = 'wide'});

	$mark = $sim->mark;
	sql(q{SELECT sfsync.backfill('wide')});
	settled('echoes: settled');
	is(sql(q{SELECT unchanged, conflicts FROM sfsync.status WHERE mapping = 'wide'}), ($unchanged + $rows) . '|0', 'echoes: every row is unchanged');
	is(join(' ', grep { $_ ne 'collections_retrieve' } map { $_->{kind} } $sim->requests($mark)), '', 'echoes: and read only');
}
sql(q{SELECT sfsync.alter_mapping('wide', conflict_policy => 'source_wins')});

#
# Values that can't go: each a dead letter, before any call
#

my @bad = (
	[ 'Number_2__c', q{'NaN'}, q{'Infinity'}, q{'-Infinity'}, '1e16', '-99999999999999999999', '9999999999999999.995' ],
	[ 'Number_5__c', '10000000000000', '9999999999999.999995' ],
	[ 'Number__c', '1000000000000000000', '-9223372036854775808' ],
	[ 'Small__c', '10000', '-32768' ],
	[ 'Int__c', '2147483647', '1000000000' ],
	[ 'Percent__c', q{'NaN'}, '1e15', '-1e300', q{'-Infinity'} ],
	[ 'Currency__c', '1e40' ],
	[ 'Text__c', q{repeat('x', 51)}, q{repeat(U&'\00e4', 51)}, q{E'a\x01b'}, q{E'a\x1fb'}, q{E'a\x0bb'} ],
	[ 'Long_Text__c', q{repeat('x', 32769)}, q{E'\x02'}, q{repeat('long ', 500000)} ],
	[ 'Email__c', map { "'$_'" } ('x', '@b.c', 'a@b', 'a b@c.de', 'a@b..c', 'a@@b.c', '.a@b.c', 'a@b.c;d@e.f') ],
	[ 'Restricted__c', q{'Purple'}, q{'Re d'}, q{'Red;Green'} ],
	[ 'Multi__c', q{'Mon;Sun'}, q{'Monday'} ],
	[ 'Archived__c', q{'maybe'}, q{'2'} ],
	[ 'Date__c', q{'1699-12-31'}, q{'4001-01-01'}, q{'infinity'}, q{'-infinity'}, q{'0044-03-15 BC'}, q{'5874897-12-31'} ],
	[ 'Datetime__c', q{'1699-12-31 23:59:59+00'}, q{'4000-12-31 00:00:01+00'}, q{'infinity'}, q{'-infinity'}, q{'4713-01-01 BC'}, q{'294276-12-31 23:59:59+00'} ],
	[ 'Archived_At__c', q{'infinity'}, q{'294276-12-31 23:59:59.999999'}, q{'4713-01-01 00:00:00 BC'} ],
	[ 'Time__c', q{'24:00'} ],
	[ 'Unique_CI__c' ],
	[ column_of('Url__c') && 'Url__c', q{'https://example.com/' || repeat('x', 250)} ],
);
my $n = 1_000_000;
my @inserts;

foreach my $case (@bad)
{
	my ($field, @values) = @$case;

	push @inserts, map { $n++; "INSERT INTO wide (id, " . column_of($field) . ") VALUES ($n, $_)" } @values;
}
$mark = $sim->mark;
plain(join('; ', @inserts));
settled('bad values: settled');
is(scalar($sim->requests($mark)), 0, 'bad values: no call is spent');
is( sql(q{SELECT string_agg(i.id || ': ' || coalesce(l.error_code || ' ' || l.error_message, 'no dead letter'), E'\n') FROM (SELECT id FROM wide WHERE id > 1000000) i LEFT JOIN sfsync.dead_letter l ON l.external_id = i.id::text
		WHERE l.error_code IS DISTINCT FROM 'COERCION_ERROR' OR l.error_message !~ '^column "v\d+", field \w+: ' OR length(l.error_message) > 300}),
	'', 'bad values: ' . scalar(@inserts) . ' dead letters, each with column, field and reason');
cmp_ok(scalar(@inserts), '>', 50, 'bad values: they were tried');
is(sql('SELECT count(*) FROM sfsync.dead_letter'), scalar(@inserts), 'bad values: none else');
sql('DELETE FROM wide WHERE id > 1000000');

# What is far too large neither stops the worker nor fills its memory, and is cut where that is wished.
sql(q{INSERT INTO wide (id, } . column_of('Long_Text__c') . q{) VALUES (2000001, repeat(U&'\00e4', 5000000));
	INSERT INTO wide (id, v47) VALUES (2000002, decode(repeat('00', 38000000), 'hex'))} =~ s/v47/$names[(grep { $columns[$_]->[0] eq 'bytea' } 0 .. $#columns)[0]]/r);
settled('large values: settled');
is(sql(q{SELECT external_id, error_code, error_message ~ 'more than \d+ characters|has \d+ bytes' FROM sfsync.dead_letter WHERE external_id ~ '^200000' ORDER BY 1}),
	"2000001|COERCION_ERROR|t\n2000002|COERCION_ERROR|t", 'large values: dead letters');
sql(q{SELECT sfsync.map_field('wide', 'Long_Text__c', '} . column_of('Long_Text__c') . q{', overlong => 'truncate'); DELETE FROM wide WHERE id = 2000002; UPDATE wide SET } . column_of('Text__c') . q{ = 'cut' WHERE id = 2000001});
settled('large values: cut, settled');
is(record_fields('2000001', 'Long_Text__c'), "\x{e4}" x 32768, 'large values: cut to the field');

is(sql(q{SELECT count(*) FROM sfsync.status WHERE state <> 'active'}), '0', 'all mappings are active');
unlike(log_since($node), qr/PANIC|TRAP|terminated by signal/, 'no crash');
note('seconds: ' . (time() - $started));
$node->stop;
done_testing();
