# Dump and restore, copies and upgrades: everything travels, and nothing is sent from the copy until it is adopted.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('dump');
my $directory = PostgreSQL::Test::Utils::tempdir();
my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone" FROM account};
my $contacts = q{SELECT id || ':' || region AS "PG_Key__c", last_name AS "LastName" FROM contact};
my $tables = q{SELECT relname FROM pg_class WHERE relnamespace = 'sfsync'::regnamespace AND relkind = 'r' ORDER BY 1};
my $sequences = q{SELECT string_agg(c.relname || '=' || pg_sequence_last_value(c.oid), ',' ORDER BY c.relname) FROM pg_class c WHERE c.relnamespace = 'sfsync'::regnamespace AND c.relkind = 'S'};
my $triggers = q{SELECT string_agg(tgrelid::regclass || '.' || tgname || ' ' || tgenabled::text || ' '
	|| (SELECT count(*) FROM pg_depend WHERE classid = 'pg_trigger'::regclass AND objid = t.oid AND deptype = 'x'), ', ' ORDER BY tgrelid::regclass::text, tgname)
	FROM pg_trigger t WHERE tgname LIKE 'sfsync%'};

sub sql
{
	my ($statement, $database) = @_;
	return $node->safe_psql($database || 'postgres', $statement);
}

# Rows of every table of the extension.
sub contents
{
	my ($on, $database) = @_;

	return map { $_ => $on->safe_psql($database, "SELECT t::text FROM sfsync.$_ t ORDER BY 1") } split /\n/, $on->safe_psql($database, $tables);
}

# Everything is as it was, but for what the worker of the copy may write: that it is there.
sub same_contents
{
	my ($name, $before, $on, $database) = @_;
	my %after = contents($on, $database);

	is(join(',', sort keys %after), join(',', sort keys %$before), "$name: the same tables");
	is($after{$_}, $before->{$_}, "$name: $_") foreach sort keys %$before;
	return;
}

sub silent
{
	my ($name, $on, $database, $mark) = @_;

	is($on->safe_psql($database, q{SELECT string_agg(DISTINCT state, ',') FROM sfsync.status}), 'fenced', "$name: fenced");
	is($on->safe_psql($database, q{SELECT string_agg(DISTINCT state, ',') FROM sfsync.server_status}), 'fenced', "$name: the server too");
	$on->safe_psql($database, q{UPDATE account SET phone = 'from the copy' WHERE id = 1});
	is($on->safe_psql($database, q{SELECT sfsync.wait_for_sync('300 ms')}), 'f', "$name: its changes wait");
	is(scalar($sim->requests($mark)), 0, "$name: nothing is sent");
	return;
}

sub adopted
{
	my ($name, $on, $database) = @_;

	$on->safe_psql($database, q{SELECT sfsync.adopt('crm'); SELECT sfsync.resume()});
	wait_for_sync($on, "$name: adopted, settled", database => $database);
	same_records($on, $sim, 'Account', "$accounts UNION ALL SELECT '20', 'account 20', 'gone'", "$name: accounts equal the table", database => $database);
	same_records($on, $sim, 'Contact', $contacts, "$name: contacts equal the table", database => $database);
	is($on->safe_psql($database, q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '1', "$name: the dead letter is still there");
	is($on->safe_psql($database, q{SELECT count(*) FROM sfsync.conflict WHERE resolution IS NULL}), '1', "$name: the conflict too");
	is($on->safe_psql($database, q{SELECT held FROM sfsync.status WHERE mapping = 'lead'}), '3', "$name: what was held is held");
	return;
}

sub run_ok
{
	my ($name, @command) = @_;
	my ($out, $err);
	my $ok = IPC::Run::run(\@command, '>', \$out, '2>', \$err);

	ok($ok, $name);
	diag($err) unless $ok;
	return $err;
}

#
# A database with some of everything
#
$node->safe_psql('postgres', 'CREATE ROLE crm_owner; CREATE ROLE reader LOGIN; CREATE ROLE dumper LOGIN; GRANT pg_read_all_data TO dumper; CREATE DATABASE source');
connect_salesforce($node, $sim, database => 'source');
sql(<<'SQL', 'source');
CREATE TABLE account (dropped integer, id integer PRIMARY KEY, name text NOT NULL, phone text, remarks text);
ALTER TABLE account DROP COLUMN dropped; -- so other numbers in the restored table
CREATE TABLE contact (id integer, region text, last_name text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE contact_at PARTITION OF contact FOR VALUES IN ('at');
CREATE TABLE contact_de PARTITION OF contact FOR VALUES IN ('de');
CREATE INDEX ON contact (last_name);
CREATE TABLE referring (id integer PRIMARY KEY REFERENCES account ON DELETE CASCADE);
CREATE TABLE "Odd ""name" (id text PRIMARY KEY, last_name text, company text DEFAULT 'C', phone text);
ALTER TABLE "Odd ""name" OWNER TO crm_owner;
GRANT USAGE ON FOREIGN SERVER crm TO crm_owner;
INSERT INTO account SELECT i, 'account ' || i FROM generate_series(1, 20) i;
INSERT INTO contact SELECT i, CASE i % 2 WHEN 0 THEN 'at' ELSE 'de' END, 'contact ' || i FROM generate_series(1, 8) i;
INSERT INTO "Odd ""name" SELECT 'k' || i, 'lead ' || i FROM generate_series(1, 6) i;
SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'archive', delete_values => '{"Phone": "gone"}', filter => 'id < 1000');
SELECT sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete');
SELECT sfsync.create_mapping('"Odd ""name"', 'Lead', 'PG_Key__c', 'delete', name => 'lead');
SELECT sfsync.set_delete_policy('lead', NULL, delete_guard => 2);
SELECT sfsync.map_field('account', 'Description', 'remarks', overlong => 'truncate');
SELECT sfsync.map_field('account', 'Site', expression => 'upper(name)');
SELECT sfsync.exclude_column('contact', 'region');
SELECT sfsync.alter_mapping('contact', capture_replicated => true);
SQL
wait_for_sync($node, 'first: settled', database => 'source');
same_records($node, $sim, 'Account', $accounts, 'first: accounts equal the table', database => 'source');
sql(q{INSERT INTO "Odd ""name" VALUES ('bad', 'lead', repeat('x', 300)); DELETE FROM "Odd ""name" WHERE id IN ('k1', 'k2', 'k3')}, 'source');
wait_for_sync($node, 'a dead letter and held deletes', database => 'source');
sql(q{SELECT sfsync.pause(); UPDATE "Odd ""name" SET phone = 'by the row' WHERE id = 'k4'}, 'source');
my $end = time() + 2;
poll_until(sub { time() >= $end });
$sim->post('edit', { object => 'Lead', match => { PG_Key__c => 'k4' }, user => 'rep', fields => { Phone => 'by a rep' } });
sql(q{SELECT sfsync.resume('lead')}, 'source');
wait_for_sync($node, 'a conflict', database => 'source', mapping => 'lead');
poll_query($node, q{SELECT count(*) FROM sfsync.conflict}, 'a conflict is open', database => 'source', expected => '1');
sql(q{SELECT sfsync.pause();
	UPDATE account SET phone = 'pending'; INSERT INTO account VALUES (30, 'pending'); DELETE FROM account WHERE id = 20; UPDATE account SET id = 40 WHERE id = 19;
	INSERT INTO contact VALUES (10, 'at', 'pending'); DELETE FROM contact WHERE id = 1}, 'source');
is(sql(q{SELECT string_agg(mapping || ' ' || pending || ' ' || held || ' ' || conflicts || ' ' || dead_letters, ', ' ORDER BY mapping) FROM sfsync.status}, 'source'),
	'account 22 0 0 0, contact 2 0 0 0, lead 0 3 1 1', 'some of everything');
poll_query($node, q{SELECT state FROM pg_stat_activity WHERE backend_type = 'sfsync worker' AND datname = 'source'}, 'the worker is idle', expected => 'idle');
my %before = contents($node, 'source');
my $numbers = sql($sequences, 'source');
my $attached = sql($triggers, 'source');
like($numbers, qr/dead_letter_id_seq=1.*mapping_id_seq=3/, 'sequences are in use');
ok(length $before{$_}, "$_ is not empty") foreach qw(mapping rule mapping_state server_state object queue deferred record backfill_job dead_letter conflict);

#
# pg_dump, pg_restore
#
my $dump = "$directory/source.dump";
run_ok('pg_dump', 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('source'));
my $mark = $sim->mark;
foreach my $jobs (1, 3)
{
	my $name = "restored by $jobs";
	my $database = "restored$jobs";

	sql("CREATE DATABASE $database");
	local $ENV{PGOPTIONS} = $jobs > 1 ? '-c sfsync.capture=off' : ''; # else partitions may be loaded when their triggers are there
	is(run_ok("$name: pg_restore", 'pg_restore', '--exit-on-error', '-j', $jobs, '-d', $node->connstr($database), $dump), '', "$name: no complaint");
	same_contents($name, \%before, $node, $database);
	is(sql($sequences, $database), $numbers, "$name: sequences");
	is(sql($triggers, $database), $attached, "$name: each trigger once");
	silent($name, $node, $database, $mark);
}
sql('DROP DATABASE restored3');

# pg_restore -j loads the tables of an extension in any order: so in the opposite one, too.
run_ok('pg_restore -l', 'pg_restore', '-l', '-f', "$directory/list", $dump);
my @list = split /^/m, slurp_file("$directory/list");
my @loads = grep { $list[$_] =~ / TABLE DATA sfsync / } 0 .. $#list;
my %opposite;
@opposite{@loads} = @list[reverse @loads];
append_to_file("$directory/opposite", join('', map { $opposite{$_} // $list[$_] } 0 .. $#list));
cmp_ok(scalar(@loads), '>', 10, 'tables in the list');
sql('CREATE DATABASE restored_opposite');
is(run_ok('opposite order: pg_restore', 'pg_restore', '--exit-on-error', '-L', "$directory/opposite", '-d', $node->connstr('restored_opposite'), $dump), '', 'opposite order: no complaint');
same_contents('opposite order', \%before, $node, 'restored_opposite');
sql('DROP DATABASE restored_opposite');

# As SQL, by a role that owns nothing of it.
run_ok('pg_dump as SQL', 'pg_dump', '-f', "$directory/source.sql", '-d', $node->connstr('source'));
sql('CREATE DATABASE restored_sql');
run_ok('psql', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', "$directory/source.sql", '-d', $node->connstr('restored_sql'));
same_contents('restored by psql', \%before, $node, 'restored_sql');
sql('DROP DATABASE restored_sql');

# A dump by others
is(run_ok('pg_dump by pg_read_all_data', 'pg_dump', '-U', 'dumper', '-Fc', '-f', "$directory/dumper.dump", '-d', $node->connstr('source')), '', 'pg_dump by pg_read_all_data is complete');
my ($out, $err);
ok(!IPC::Run::run([ 'pg_dump', '-U', 'reader', '-f', "$directory/reader.sql", '-d', $node->connstr('source') ], '>', \$out, '2>', \$err), 'pg_dump by one who may not read the tables fails');
like($err, qr/permission denied for (?:table|schema)/, 'and says what it lacks');

#
# Adopted
#
sql(q{UPDATE sfsync.queue SET xid = (xid::text::bigint + 1000000000)::text::xid8 WHERE xid < pg_current_xact_id()}, 'restored1');
is(sql(q{SELECT sfsync.wait_for_sync('100 ms')}, 'restored1'), 'f', 'changes of another cluster are waited for');
adopted('restored', $node, 'restored1');
is($sim->created('Account'), 21, 'restored: no record was made twice');
is($sim->record('Account', '20')->{Phone}, 'gone', 'restored: the delete policy is in force');
is($sim->record('Account', '1')->{Site}, 'ACCOUNT 1', 'restored: rules are in force');
sql(q{ALTER TABLE account RENAME COLUMN remarks TO notes; UPDATE account SET notes = 'after' WHERE id = 1; CREATE TABLE contact_ch PARTITION OF contact FOR VALUES IN ('ch'); INSERT INTO contact VALUES (50, 'ch', 'new partition')}, 'restored1');
wait_for_sync($node, 'restored: settled', database => 'restored1');
is($sim->record('Account', '1')->{Description}, 'after', 'restored: a renamed column keeps its rule');
is($sim->record('Contact', '50:ch')->{LastName}, 'new partition', 'restored: a new partition');
is(sql(q{SELECT count(*) FROM pg_trigger WHERE tgrelid = 'contact_ch'::regclass AND tgenabled = 'A'}, 'restored1'), '2', 'restored: with its triggers');
is(sql(q{SELECT sfsync.create_mapping('referring', 'Invoice__c', 'PG_Key__c', 'ignore', backfill => false)}, 'restored1'), 'referring', 'restored: ids go on');
like(sql(q{SELECT sfsync.release_deletes('lead')}, 'restored1'), qr/^3$/, 'restored: held deletes are released');
wait_for_sync($node, 'restored: released', database => 'restored1');
is($sim->count('Lead'), 3, 'restored: and applied');

#
# pg_upgrade
#
my $new = new_node('upgraded', dont_start => 1);
my $bin = $node->config_data('--bindir');

$node->stop;
chdir($directory);
run_ok('pg_upgrade', 'pg_upgrade', '--no-sync', '-b', $bin, '-B', $bin, '-d', $node->data_dir, '-D', $new->data_dir, '-s', $node->host, '-p', $node->port, '-P', $new->port);
$new->start;
$mark = $sim->mark;
$before{server_state} = $new->safe_psql('source', 'SELECT s::text FROM sfsync.server_state s');
same_contents('upgraded', \%before, $new, 'source');
is($new->safe_psql('source', $sequences), $numbers, 'upgraded: sequences');
is($new->safe_psql('source', $triggers), $attached, 'upgraded: each trigger once');
silent('upgraded', $new, 'source', $mark);
$new->safe_psql('source', q{SELECT sfsync.adopt('crm'); SELECT sfsync.resume(); UPDATE account SET phone = 'upgraded' WHERE id = 2});
wait_for_sync($new, 'upgraded: adopted, settled', database => 'source');
is($sim->record('Account', '2')->{Phone}, 'upgraded', 'upgraded: changes arrive');
$new->stop;

unlike(log_since($node) . log_since($new), qr/PANIC|TRAP|terminated by signal/, 'no crash');
done_testing();
