# What becomes of mappings and workers when what they depend on changes, goes, or is in short supply.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use File::Basename qw(basename dirname);
use File::Path qw(make_path);
use IPC::Run ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('lifecycle', conf => "allow_in_place_tablespaces = on\nautovacuum = off\n");
my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone" FROM account};
my $states = q{SELECT coalesce(string_agg(mapping || ' ' || state, ', ' ORDER BY mapping), '') FROM sfsync.status};
my $running = q{SELECT coalesce(string_agg(datname, ',' ORDER BY datname), '') FROM pg_stat_activity WHERE backend_type = 'sfsync worker'};

sub sql
{
	my ($statement, $database) = @_;
	return $node->safe_psql($database || 'postgres', $statement);
}

sub refused
{
	my ($name, $statement, $pattern, $database) = @_;
	my ($rc, $out, $err) = $node->psql($database || 'postgres', "\\set VERBOSITY verbose\n$statement");

	isnt($rc, 0, "$name: refused");
	like($err, $pattern, $name);
	return;
}

sub in_step
{
	my ($name, $database) = @_;

	wait_for_sync($node, "$name: settled", database => $database);
	same_records($node, $sim, 'Account', $accounts, "$name: records equal the table", database => $database);
	return;
}

#
# Servers
#
connect_salesforce($node, $sim);
account_table($node);
sql(q{INSERT INTO account (id, name) VALUES (1, 'one')});
in_step('first');
refused('DROP SERVER', 'DROP SERVER crm', qr/2BP01.*depend/s);
sql('CREATE SERVER unused FOREIGN DATA WRAPPER sfsync OPTIONS (login_url \'http://127.0.0.1:1\'); DROP SERVER unused');
sql('DROP USER MAPPING FOR PUBLIC SERVER crm');
refused('DROP SERVER that only a mapping uses', 'DROP SERVER crm', qr/2BP01.*cannot drop server crm.*DETAIL:.*sfsync mapping account depends.*HINT:.*drop_mapping/s);
sql(q{CREATE ROLE server_owner; ALTER SERVER crm OWNER TO server_owner});
refused('DROP OWNED', 'DROP OWNED BY server_owner', qr/2BP01.*sfsync mapping account/s);
sql(q{CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id '3MVG9sfsync.test.consumer.key', client_secret 'sfsync-test-secret')});
sql(q{INSERT INTO account (id, name) VALUES (2, 'two')});
in_step('still there');
sql('ALTER SERVER crm RENAME TO renamed');
is(sql(q{SELECT mapping, server, state FROM sfsync.status}), 'account|renamed|active', 'ALTER SERVER RENAME: the mapping follows');
is(sql(q{SELECT server, organization_id IS NOT NULL FROM sfsync.server_status}), 'renamed|t', 'and so does what is known of it');
my $mark = $sim->mark;
sql(q{INSERT INTO account (id, name) VALUES (3, 'three')});
in_step('renamed');
is(scalar($sim->requests($mark, 'describe')), 0, 'renamed: nothing is asked anew');
sql('ALTER SERVER renamed RENAME TO crm');
$node->psql('postgres', q{BEGIN; SELECT sfsync.pause(); DELETE FROM account WHERE id = 3; COMMIT});
my ($rc, $out, $err) = $node->psql('postgres', 'DROP SERVER crm CASCADE');
is($rc, 0, 'DROP SERVER CASCADE');
like($err, qr/NOTICE:.*drop cascades to sfsync mapping account.*1 change that has not reached Salesforce is given up/s, 'ends its mappings, and tells of changes that are given up');
is(sql('SELECT count(*) FROM sfsync.mapping'), '0', 'no mapping is left');
is(sql(q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'sfsync%'}), '0', 'and no trigger');
is(sql(q{SELECT count(*) FROM sfsync.queued}), '0', 'and no change');
sql('INSERT INTO account (id, name) VALUES (4, \'four\'); TRUNCATE account; DROP TABLE account');

#
# Tables and triggers
#
$sim->post('reset', {});
connect_salesforce($node, $sim);
account_table($node);
sql(q{INSERT INTO account (id, name) VALUES (1, 'one')});
in_step('again');
sql('BEGIN; DROP TABLE account; ROLLBACK');
is(sql($states), 'account active', 'DROP TABLE, rolled back');
sql('DROP TABLE account');
poll_query($node, q{SELECT state, detail ~ 'dropped' FROM sfsync.status}, 'DROP TABLE blocks the mapping', expected => 'blocked|t');
is($sim->count('Account'), 1, 'and deletes no record');
sql(q{SELECT sfsync.drop_mapping('account')});
account_table($node);
sql(q{INSERT INTO account (id, name) VALUES (1, 'once more')});
in_step('made again');
sql('DROP TRIGGER sfsync_capture ON account');
poll_query($node, q{SELECT state, detail ~ 'missing.*alter_mapping' FROM sfsync.status}, 'DROP TRIGGER blocks the mapping, and says what to do', expected => 'blocked|t');
sql(q{UPDATE account SET phone = 'missed'});
sql(q{SELECT sfsync.alter_mapping('account'); SELECT sfsync.backfill('account')});
in_step('attached again');
sql('ALTER TABLE account DISABLE TRIGGER USER');
poll_query($node, q{SELECT state, detail ~ 'disabled' FROM sfsync.status}, 'DISABLE TRIGGER blocks the mapping', expected => 'blocked|t');
sql('ALTER TABLE account ENABLE TRIGGER USER');
poll_query($node, $states, 'ENABLE TRIGGER', expected => 'account active');
sql(q{CREATE SCHEMA elsewhere; ALTER TABLE account SET SCHEMA elsewhere; ALTER TABLE elsewhere.account RENAME TO moved; INSERT INTO elsewhere.moved (id, name) VALUES (2, 'moved')});
wait_for_sync($node, 'moved: settled');
is($sim->record('Account', '2')->{Name}, 'moved', 'a table may move');
sql('ALTER TABLE elsewhere.moved RENAME TO account; ALTER TABLE elsewhere.account SET SCHEMA public');

#
# Roles
#
sql(q{CREATE ROLE crm_owner; GRANT pg_read_all_data TO crm_owner; GRANT USAGE ON FOREIGN SERVER crm TO crm_owner; GRANT USAGE ON SCHEMA sfsync TO crm_owner;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sfsync TO crm_owner; CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text DEFAULT 'c'); GRANT SELECT ON lead TO crm_owner});
sql(q{SET ROLE crm_owner; SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete')});
sql(q{DROP OWNED BY crm_owner});
refused('DROP ROLE', 'DROP ROLE crm_owner', qr/2BP01.*role "crm_owner" cannot be dropped.*DETAIL:.*owner of sfsync mapping lead.*HINT:.*REASSIGN OWNED/s);
sql(q{REASSIGN OWNED BY crm_owner TO postgres});
is(sql(q{SELECT owner FROM sfsync.status WHERE mapping = 'lead'}), 'postgres', 'REASSIGN OWNED gives the mapping to another');
sql(q{DROP ROLE crm_owner; INSERT INTO lead VALUES (1, 'lead')});
wait_for_sync($node, 'reassigned: settled');
is($sim->count('Lead'), 1, 'reassigned: it delivers');

# From another database nobody sees the mapping.
sql(q{CREATE ROLE gone SUPERUSER; UPDATE sfsync.mapping SET owner = 'gone' WHERE name = 'lead'; CREATE DATABASE other});
sql('DROP ROLE gone', 'other');
sql(q{SELECT sfsync.refresh_schema(); INSERT INTO lead VALUES (2, 'of nobody')});
poll_query($node, q{SELECT state, detail ~ 'owner.*was dropped' FROM sfsync.status WHERE mapping = 'lead'}, 'a role dropped from another database blocks its mapping', expected => 'blocked|t');
is(sql(q{SELECT state FROM sfsync.status WHERE mapping = 'account'}), 'active', 'and no other');
sql(q{SELECT sfsync.drop_mapping('lead', discard_pending => true); DROP TABLE lead});

#
# Databases
#
sql('CREATE EXTENSION sfsync', 'other');
poll_query($node, $running, 'two workers', expected => 'other,postgres');
sql(q{CREATE TABLESPACE place LOCATION ''});
sql('ALTER DATABASE other SET TABLESPACE place');
poll_query($node, $running, 'ALTER DATABASE SET TABLESPACE: the worker comes back', expected => 'other,postgres');
my $session = session($node, database => 'other');
refused('DROP DATABASE with a session in it', 'DROP DATABASE other', qr/55006/);
poll_query($node, $running, 'DROP DATABASE that fails: the worker comes back', expected => 'other,postgres');
refused('RENAME with a session in it', 'ALTER DATABASE other RENAME TO another', qr/55006/);
poll_query($node, $running, 'RENAME that fails: the worker comes back', expected => 'other,postgres');
sql('DROP DATABASE other WITH (FORCE)');
poll_query($node, $running, 'DROP DATABASE WITH (FORCE)', expected => 'postgres');
$session->quit;
sql('CREATE EXTENSION sfsync', 'template1');
poll_query($node, $running, 'no worker in a template', expected => 'postgres');
sql('CREATE DATABASE of_template');
poll_query($node, $running, 'a database with the extension from its template', expected => 'of_template,postgres');
sql('DROP DATABASE of_template');
sql('DROP EXTENSION sfsync', 'template1');

#
# DROP EXTENSION while rows are written
#
my $script = $node->basedir . '/load.sql';
append_to_file($script, <<'SQL');
\set id random(1, 200)
INSERT INTO account (id, name) VALUES (:id, 'load') ON CONFLICT (id) DO UPDATE SET phone = random()::text;
SQL
my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 4, '-T', 4, '-f', $script, $node->connstr('postgres') ], '>', \my $bench_out, '2>', \my $bench_err);
poll_query($node, 'SELECT count(*) > 20 FROM account', 'rows are written');
foreach my $i (1 .. 3)
{
	sql('SET client_min_messages = warning; DROP EXTENSION sfsync CASCADE');
	connect_salesforce($node, $sim);
	sql(q{SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
}
$load->finish;
is($load->result(0), 0, 'DROP EXTENSION while rows are written: no writer fails');
unlike($bench_err, qr/error/i, 'and none has an error');
unlike(log_since($node), qr/deadlock/, 'nobody waited for each other');
in_step('made again under load');

#
# Crash, single-user mode
#
$sim->fault(name => 'hang', match => { kind => [ 'collections_upsert', 'collections_update', 'composite' ] }, action => { hang => 3 });
sql(q{UPDATE account SET phone = 'in flight' WHERE id = 1; INSERT INTO account (id, name) VALUES (1000, 'crash')});
poll_until(sub { $sim->hits('hang') > 0 }, 'a request is in flight');
$node->stop('immediate');
$sim->clear_faults;
my $input = "UPDATE account SET phone = 'single' WHERE id = 2\nINSERT INTO account (id, name) VALUES (1001, 'single')\nDELETE FROM account WHERE id = 3\nALTER TABLE account ADD COLUMN added integer\nSELECT count(*) FROM sfsync.queued\n";
ok(IPC::Run::run([ 'postgres', '--single', '-F', '-D', $node->data_dir, 'postgres' ], '<', \$input, '>', \$out, '2>', \$err), 'single-user mode after a crash');
unlike($err, qr/ERROR|FATAL|PANIC/, 'without complaint');
like($out, qr/count = "[1-9]/, 'changes are captured there');
$node->start;
in_step('after a crash, and single-user mode');
ok(!$sim->record('Account', '3'), 'its delete too');
is(0 + $sim->stats->{same_record_overlap}, 0, 'two writes of one record were never in flight together');

#
# Many databases, few slots
#
sql("CREATE DATABASE d$_") foreach 1 .. 4;
sql('CREATE EXTENSION sfsync', "d$_") foreach 1 .. 4;
poll_query($node, $running, 'a worker in each of many databases', expected => 'd1,d2,d3,d4,postgres');
$node->append_conf('postgresql.conf', 'max_worker_processes = 4');
my $offset = -s $node->logfile;
$node->restart;
poll_query($node, 'SELECT count(*) FROM pg_stat_activity WHERE backend_type = \'sfsync worker\'', 'max_worker_processes exhausted: as many workers as there is room for', expected => '2');
poll_until(sub { log_since($node, $offset) =~ /WARNING:.*could not start an sfsync worker.*HINT:.*max_worker_processes/s }, 'and the log says so');
my ($starved) = grep { sql($running) !~ /\b$_\b/ } 'd1', 'd2', 'd3', 'd4', 'postgres';
ok($starved, 'one has none');
is(sql(q{SELECT count(*) FROM sfsync.health() WHERE check_name = 'worker' AND status = 'critical'}, $starved), '1', 'health says so there');
my ($running_in) = grep { $_ ne 'postgres' } split /,/, sql($running);
sql("SET client_min_messages = warning; DROP EXTENSION sfsync CASCADE", $running_in) if $running_in;
poll_query($node, 'SELECT count(*) FROM pg_stat_activity WHERE backend_type = \'sfsync worker\'', 'a slot that becomes free is used', expected => '2', seconds => 20);
my $said = () = log_since($node, $offset) =~ /could not start an sfsync worker/g;
cmp_ok($said, '<=', 2, 'the log says it once each time that there is no room');
$node->append_conf('postgresql.conf', 'max_worker_processes = 20');
$node->restart;
sql("DROP DATABASE d$_") foreach 1 .. 4;
in_step('with room again');
unlike(log_since($node), qr/PANIC|TRAP|terminated by signal (?!9)/, 'no crash');

#
# ALTER EXTENSION UPDATE while the old library is loaded, in a copy of the installation
#
$node->stop;
my $config = sub { my $value = `pg_config --$_[0]`; chomp $value; return $value };
my ($bin, $share, $library) = map { $config->($_) } 'bindir', 'sharedir', 'pkglibdir';
my $copy = PostgreSQL::Test::Utils::tempdir();
my $common = dirname($bin);
$common = dirname($common) until index($share, "$common/") == 0 && index($library, "$common/") == 0;
my ($copy_bin, $copy_share, $copy_library) = map { $copy . substr($_, length $common) } $bin, $share, $library;
make_path($copy_bin, "$copy_share/extension", dirname($copy_library));
system_or_bail('cp', "$bin/$_", $copy_bin) foreach grep { -e "$bin/$_" } qw(postgres initdb pg_ctl psql pg_config);
symlink($library, $copy_library);
symlink($_, "$copy_share/" . basename($_)) foreach grep { basename($_) ne 'extension' } glob("$share/*");
symlink($_, "$copy_share/extension/" . basename($_)) foreach glob("$share/extension/*");

my $control = slurp_file("$share/extension/sfsync.control");
my $later = PostgreSQL::Test::Cluster->new('later', install_path => dirname($copy_bin));
$later->init;
$later->append_conf('postgresql.conf', "shared_preload_libraries = 'sfsync'\nsfsync.retry_max_delay = '300ms'\n");
$later->start;
connect_salesforce($later, $sim);
account_table($later);
$sim->post('reset', {});
$later->safe_psql('postgres', q{INSERT INTO account (id, name) VALUES (1, 'one')});
wait_for_sync($later, 'before the update: settled');
unlink "$copy_share/extension/sfsync.control";
append_to_file("$copy_share/extension/sfsync.control", $control =~ s/default_version = '1.0'/default_version = '1.1'/r);
append_to_file("$copy_share/extension/sfsync--1.0--1.1.sql", "ALTER TABLE sfsync.queue ADD COLUMN later integer;\n");
$mark = $sim->mark;
$later->safe_psql('postgres', 'ALTER EXTENSION sfsync UPDATE');
poll_query($later, q{SELECT state, detail ~ 'version 1.1.*version 1.0.*restart' FROM sfsync.status}, 'a newer extension than the library: nothing is sent, and it says why', expected => 'fenced|t');
$later->safe_psql('postgres', q{INSERT INTO account (id, name) VALUES (2, 'two')});
is($later->safe_psql('postgres', q{SELECT sfsync.wait_for_sync('300 ms')}), 'f', 'changes are captured and wait');
ok(!$sim->record('Account', '2'), 'and are not sent');
append_to_file("$copy_share/extension/sfsync--1.1--1.0.sql", "ALTER TABLE sfsync.queue DROP COLUMN later;\n");
$later->safe_psql('postgres', q{ALTER EXTENSION sfsync UPDATE TO '1.0'});
wait_for_sync($later, 'back at the version of the library: settled');
is($sim->record('Account', '2')->{Name}, 'two', 'it goes on');
$later->safe_psql('postgres', q{DROP EXTENSION sfsync CASCADE; CREATE EXTENSION sfsync VERSION '1.0'});
is($later->safe_psql('postgres', q{SELECT extversion FROM pg_extension WHERE extname = 'sfsync'}), '1.0', 'a version can be chosen');
unlike(log_since($later), qr/PANIC|TRAP|terminated by signal/, 'no crash');
$later->stop;
done_testing();
