# Logical replication into a mapped table, out of one, and standbys: what is captured, and by whom it is sent.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $publisher = new_node('publisher', preload => 0, allows_streaming => 'logical', conf => "autovacuum = off\n");
my $node = new_node('subscriber', allows_streaming => 1, conf => "wal_level = logical\n");
my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone" FROM account};
my $contacts = q{SELECT id || ':' || region AS "PG_Key__c", last_name AS "LastName" FROM contact};
my $firing = q{SELECT string_agg(DISTINCT tgenabled::text, ',') FROM pg_trigger WHERE tgname LIKE 'sfsync%' AND tgrelid IN (SELECT relid FROM pg_partition_tree('contact') UNION SELECT 'account'::regclass)};
my $n = 0;

sub sql
{
	my ($statement, $database) = @_;
	return $node->safe_psql($database || 'postgres', $statement);
}

# What is written at the publisher is here.
sub caught_up
{
	$publisher->wait_for_catchup('subscription');
	return;
}

sub queued
{
	return sql('SELECT count(*) FROM sfsync.queued') + sql('SELECT count(*) FROM sfsync.deferred');
}

sub in_step
{
	my ($name) = @_;

	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Account', $accounts, "$name: accounts equal the table");
	same_records($node, $sim, 'Contact', $contacts, "$name: contacts equal the table");
	return;
}

sub fails
{
	my ($name, $pattern, $statement) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");

	isnt($rc, 0, "$name: refused");
	like($err, $pattern, $name);
	return;
}

foreach my $side ($publisher, $node)
{
	$side->safe_psql('postgres', <<'SQL');
CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL, phone text);
CREATE TABLE contact (id integer, region text, last_name text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE contact_at PARTITION OF contact FOR VALUES IN ('at');
SQL
}
$publisher->safe_psql('postgres', 'CREATE PUBLICATION publication FOR TABLE account, contact WITH (publish_via_partition_root = true)');
connect_salesforce($node, $sim);
sql(q{SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete');
	SELECT sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete')});
wait_for_sync($node, 'backfills of empty tables');
$publisher->safe_psql('postgres', q{INSERT INTO account VALUES (1, 'copied'); INSERT INTO contact VALUES (1, 'at', 'copied')});
my $connection = $publisher->connstr . ' dbname=postgres';
sql("CREATE SUBSCRIPTION subscription CONNECTION '$connection' PUBLICATION publication");
$node->wait_for_subscription_sync($publisher, 'subscription');

#
# By default what is replicated is not captured
#
is(sql($firing), 'O', 'the triggers fire for origins');
$publisher->safe_psql('postgres', q{INSERT INTO account VALUES (2, 'replicated'); UPDATE account SET name = 'changed' WHERE id = 1; INSERT INTO contact VALUES (2, 'at', 'replicated')});
caught_up();
is(sql('SELECT count(*) FROM account'), '2', 'rows arrive');
sql(q{INSERT INTO account VALUES (100, 'local')});
wait_for_sync($node, 'a local row: settled');
is($sim->count('Account'), 1, 'only the local row is captured');
is($sim->count('Contact'), 0, 'nothing of the partitioned table');

#
# With capture_replicated it is
#
is(sql(q{SELECT sfsync.alter_mapping('account', capture_replicated => true), sfsync.alter_mapping('contact', capture_replicated => true)}), 'account|contact', 'capture_replicated');
is(sql($firing), 'A', 'the triggers fire always, those of partitions too');
sql(q{SELECT sfsync.backfill('account'), sfsync.backfill('contact')});
in_step('what came before, by a backfill');
$publisher->safe_psql('postgres', q{INSERT INTO account SELECT i, 'row ' || i FROM generate_series(3, 20) i; UPDATE account SET phone = '7' WHERE id < 10;
	DELETE FROM account WHERE id = 5; UPDATE contact SET last_name = 'changed' WHERE id = 1; INSERT INTO contact VALUES (3, 'at', 'third'); DELETE FROM contact WHERE id = 2});
caught_up();
in_step('insert, update, delete');
is($sim->count('Contact'), 2, 'a delete that is replicated is applied');
my $created = $sim->created('Account');
$publisher->safe_psql('postgres', q{UPDATE account SET id = 50 WHERE id = 6});
caught_up();
in_step('a changed key');
is($sim->created('Account'), $created, 'is the same record');
$publisher->safe_psql('postgres', q{BEGIN; INSERT INTO account VALUES (60, 'undone'); ROLLBACK; BEGIN; INSERT INTO account VALUES (61, 'kept'); SAVEPOINT s; INSERT INTO account VALUES (62, 'undone'); ROLLBACK TO s; COMMIT});
caught_up();
in_step('what is rolled back at the publisher');

# The table with a mapping that doesn't want it keeps it so.
sql(q{SELECT sfsync.create_mapping('account', 'Lead', 'PG_Key__c', 'delete', name => 'second', backfill => false)});
$publisher->safe_psql('postgres', q{INSERT INTO account VALUES (70, 'for one mapping')});
caught_up();
in_step('a second mapping of the table');
is(sql(q{SELECT synced + unchanged + pending + dead_letters FROM sfsync.status WHERE mapping = 'second'}), '0', 'a second mapping without capture_replicated captures nothing');
sql(q{SELECT sfsync.drop_mapping('second')});
is(sql($firing), 'A', 'when it ends the triggers stay');

# Partitions that come later
$_->safe_psql('postgres', q{CREATE TABLE contact_de PARTITION OF contact FOR VALUES IN ('de'); CREATE TABLE contact_ch (LIKE contact); ALTER TABLE contact ATTACH PARTITION contact_ch FOR VALUES IN ('ch')}) foreach ($node, $publisher);
is(sql($firing), 'A', 'triggers of new partitions fire always, too');
sql('ALTER SUBSCRIPTION subscription REFRESH PUBLICATION');
$publisher->safe_psql('postgres', q{INSERT INTO contact VALUES (10, 'de', 'new'), (11, 'ch', 'attached'); UPDATE contact SET region = 'de' WHERE id = 11});
caught_up();
in_step('new partitions');

# TRUNCATE
sql(q{SELECT sfsync.set_delete_policy('contact', NULL, on_truncate => 'apply')});
$publisher->safe_psql('postgres', 'TRUNCATE contact');
caught_up();
in_step('TRUNCATE that is applied');
is($sim->count('Contact'), 0, 'no contact is left');
my $offset = -s $node->logfile;
$publisher->safe_psql('postgres', 'TRUNCATE account');
poll_until(sub { log_since($node, $offset) =~ /cannot truncate table "account": it is mapped/ }, 'TRUNCATE that is refused stops the subscription, with the reason in the log');
is(sql('SELECT count(*) > 0 FROM account'), 't', 'and the rows stay');
sql(q{SELECT sfsync.set_delete_policy('account', NULL, on_truncate => 'apply')});
caught_up();
in_step('allowed, it goes on');
is($sim->count('Account'), 0, 'and the records are deleted');

# session_replication_role
sql(q{SET session_replication_role = replica; INSERT INTO account VALUES (200, 'as replica')});
in_step('session_replication_role');

# Off again
sql(q{SELECT sfsync.alter_mapping('account', capture_replicated => false)});
is(sql(q{SELECT string_agg(DISTINCT tgenabled::text, ',') FROM pg_trigger WHERE tgname LIKE 'sfsync%' AND tgrelid = 'account'::regclass}), 'O', 'off: the triggers fire for origins again');
$publisher->safe_psql('postgres', q{INSERT INTO account VALUES (201, 'not captured')});
caught_up();
wait_for_sync($node, 'off: settled');
ok(!$sim->record('Account', '201'), 'off: what is replicated is not captured');
sql(q{SELECT sfsync.alter_mapping('account', capture_replicated => true); SELECT sfsync.backfill('account')});
in_step('on again');

# A disabled trigger is not made to fire; it blocks the mapping.
sql(q{ALTER TABLE account DISABLE TRIGGER sfsync_capture});
poll_query($node, q{SELECT state, detail ~ 'disabled' FROM sfsync.status WHERE mapping = 'account'}, 'a disabled trigger blocks the mapping', expected => 'blocked|t');
sql(q{SELECT sfsync.alter_mapping('account', capture_replicated => true)});
is(sql(q{SELECT tgenabled FROM pg_trigger WHERE tgname = 'sfsync_capture' AND tgrelid = 'account'::regclass}), 'D', 'alter_mapping leaves it disabled');
sql(q{ALTER TABLE account ENABLE ALWAYS TRIGGER sfsync_capture});
poll_query($node, q{SELECT state FROM sfsync.status WHERE mapping = 'account'}, 'enabled, it goes on', expected => 'active');

#
# A publication of everything
#
sql('CREATE PUBLICATION everything FOR ALL TABLES');
sql(q{INSERT INTO account VALUES (300, 'published'); UPDATE account SET phone = '1' WHERE id = 300; INSERT INTO contact VALUES (20, 'at', 'published')});
in_step('a publication FOR ALL TABLES');
sql(q{DELETE FROM account WHERE id = 300});
in_step('a publication FOR ALL TABLES, delete');
is(sql(q{SELECT string_agg(relname, ', ') FROM pg_class WHERE relnamespace = 'sfsync'::regnamespace AND relkind = 'r' AND relreplident = 'd'
	AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)}), '', 'no table of the extension lacks a replica identity');
sql('DROP PUBLICATION everything');

#
# A physical standby is silent, and speaks once it is promoted
#
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay');
my $processes = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'sfsync%'};
is($standby->safe_psql('postgres', $processes), '0', 'no launcher and no worker on a standby');
is($standby->safe_psql('postgres', q{SELECT string_agg(state, ',') FROM sfsync.status}), 'active,active', 'status can be read there');
is($standby->safe_psql('postgres', q{SELECT count(*) > 0 FROM sfsync.field_map}), 't', 'field_map too');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM sfsync.health() WHERE status = 'critical'}), '0', 'health finds nothing critical');
my ($rc, $out, $err) = $standby->psql('postgres', q{SELECT sfsync.pause()});
like($err, qr/read-only transaction/, 'what would write is refused');
$sim->fault(name => 'down', match => { kind => [ 'collections_upsert', 'collections_update', 'collections_retrieve', 'composite' ] }, action => { status => 503 });
sql(q{INSERT INTO account VALUES (400, 'on the way')});
poll_query($node, q{SELECT pending FROM sfsync.status WHERE mapping = 'account'}, 'a change waits', expected => '1');
$node->wait_for_catchup($standby, 'replay');
is($standby->safe_psql('postgres', q{SELECT pending FROM sfsync.status WHERE mapping = 'account'}), '1', 'the standby has it too');
is($standby->safe_psql('postgres', $processes), '0', 'and sends nothing');
$node->stop('immediate');
$sim->clear_faults;
$standby->promote;
poll_query($standby, $processes, 'promoted: launcher and worker come', expected => '2');
wait_for_sync($standby, 'promoted: settled');
same_records($standby, $sim, 'Account', $accounts, 'promoted: accounts equal the table');
$standby->safe_psql('postgres', q{UPDATE account SET phone = '9' WHERE id = 400});
wait_for_sync($standby, 'promoted: a change is settled');
same_records($standby, $sim, 'Account', $accounts, 'promoted: a change arrives');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'nothing became a dead letter');
is(0 + $sim->stats->{same_record_overlap}, 0, 'two writes of one record were never in flight together');
unlike(log_since($node) . log_since($standby), qr/PANIC|TRAP|terminated by signal/, 'no crash');
$standby->stop;
$publisher->stop;
done_testing();
