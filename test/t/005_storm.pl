# Many sessions write while workers are killed and the server goes down at once:
# afterwards Salesforce holds exactly what the table holds.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;
use Time::HiRes qw(time);

my $sessions = 4;
my $rounds = 400;    # a round is a transaction or two of about ten changes
my $sim = simulator();
my $node = new_node('storm', conf => "fsync = off\nmax_prepared_transactions = 200\nsfsync.max_attempts = 100\n");

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

connect_salesforce($node, $sim);
account_table($node);
sql(q{CREATE TABLE done (session integer, round integer, changes integer);
	CREATE SEQUENCE keys;
	INSERT INTO account (id, name) SELECT i, 'start ' || i FROM generate_series(1, 500) i;
	SELECT setval('keys', 1000)});

# One round: its changes, in one transaction.  Some savepoints are rolled back,
# some transactions are prepared and then committed or rolled back.
sub round_of
{
	my ($session, $round) = @_;
	my $name = "s${session}r$round";
	my $slice = "id % $sessions = $session";
	my $insert = "INSERT INTO account (id, name) SELECT nextval('keys') * $sessions + $session, '$name' FROM generate_series(1, 4);\n";
	my $update = "UPDATE account SET phone = '$name', site = nullif($round % 3, 0)::text WHERE $slice AND id % 37 = $round % 37 AND id < 40000;\n";
	my $delete = "DELETE FROM account WHERE ctid = ANY (ARRAY(SELECT ctid FROM account WHERE $slice ORDER BY hashtext(id::text || '$name') LIMIT 3));\n";
	my $done = "INSERT INTO done VALUES ($session, $round, 7 + :ROW_COUNT);\n";
	my $kind = $round % 5;
	my $pace = "SELECT FROM pg_sleep(0.015);\n";

	return "$pace BEGIN;\n$insert SAVEPOINT a;\n$update $delete ROLLBACK TO a;\n SAVEPOINT b;\n$delete RELEASE b;\n$update $done COMMIT;\n" if $kind == 0;
	return "$pace BEGIN;\n$insert$delete$update$done PREPARE TRANSACTION '$name';\nCOMMIT PREPARED '$name';\n" if $kind == 1;
	return "$pace BEGIN;\n$insert$update$delete PREPARE TRANSACTION '$name';\nROLLBACK PREPARED '$name';\n$insert$delete" if $kind == 2;
	return "$pace BEGIN;\n$insert$update$done COMMIT;\nBEGIN;\n$delete ROLLBACK;\n$delete" if $kind == 3;
	return "$pace$insert$delete$update$done";
}

# A session that goes on with the next round when its server is gone and back.
sub start_session
{
	my ($session) = @_;
	my $script = "$PostgreSQL::Test::Utils::tmp_check/storm_$session.sql";
	my $connstr = $node->connstr('postgres');

	foreach my $part (0 .. 9)
	{
		my $from = $part * $rounds / 10;

		append_to_file("$script.$part", "SET client_min_messages = error;\n"
			  . "SELECT 'COMMIT PREPARED ' || quote_literal(gid) FROM pg_prepared_xacts WHERE gid LIKE 's${session}r%' \\gexec\n"
			  . join('', map { round_of($session, $_) } $from .. $from + $rounds / 10 - 1));
	}
	# Each part tries until it can connect, and commits what the one before left prepared (it would wait for its
	# rows); what a crash cuts short is lost like any transaction.
	my $shell = "for part in 0 1 2 3 4 5 6 7 8 9; do n=0; until psql -X -q -d '$connstr' -c 'SELECT 1' >/dev/null 2>&1 || [ \$((n = n + 1)) -gt 600 ]; do sleep 0.1; done;"
	  . " psql -X -q -d '$connstr' -f '$script.'\$part >/dev/null 2>>'$script.err'; done";
	my $harness = IPC::Run::start([ 'sh', '-c', $shell ], IPC::Run::timeout(180));

	return $harness;
}

my $start = time();
my @running = map { start_session($_) } 0 .. $sessions - 1;

# Kill the worker: the server restarts after the crash, and the sessions go on.
sub arrived
{
	my ($n) = @_;
	return poll_until(sub { $sim->created('Account') >= $n }, "$n records have arrived");
}

foreach my $step (1 .. 2)
{
	my $pid;

	arrived(300 + 500 * $step);
	poll_until(sub { my ($rc, $out) = $node->psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sfsync worker'}); $pid = $rc == 0 ? $out : ''; $pid =~ /^\d+$/ },
		"there is a worker to kill");
	is(kill('KILL', $pid), 1, "worker killed ($step)");
	poll_until(sub { my ($rc, $out) = $node->psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sfsync worker' AND pid <> } . $pid); $rc == 0 && $out eq '1' },
		"another worker is there ($step)");
}
arrived(1900);
$node->stop('immediate');
$node->start;
$_->finish foreach @running;

# What was prepared when the server went down is decided now.
my @prepared = split /\n/, sql('SELECT gid FROM pg_prepared_xacts ORDER BY gid');
my $n = 0;
sql(($n++ % 2 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$_'") foreach @prepared;

wait_for_sync($node, 'all is settled', seconds => 60);
my $took = time() - $start;
same_records($node, $sim, 'Account',
	q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone", site AS "Site", annual_revenue AS "AnnualRevenue", loyalty_tier AS "Loyalty_Tier__c" FROM account},
	'the records equal the table');
same_state($node, 'nothing is left on the way');
my $stats = $sim->stats;
my $inserted = sql(q{SELECT last_value FROM keys}) - 1000 + 500;
my %times;
$times{ $_->{PG_Key__c} }++ foreach @{ $sim->get('records?object=Account&deleted=1&fields=PG_Key__c') };
is(join(',', grep { $times{$_} > 1 } sort keys %times), '', 'no key was created twice, not even one that is deleted');
is($sim->created('Account'), scalar(keys %times), 'and no record without a key was made');
is(0 + $stats->{same_record_overlap}, 0, 'two writes of one record were never in flight together');
my $changes = sql(q{SELECT coalesce(sum(changes), 0) FROM done});
cmp_ok($changes, '>=', 10000, 'it was a storm');
note(sprintf('%d keys, %d changes in complete rounds, %d records, %d calls, %.1f s; prepared left: %d',
		$inserted, $changes, $sim->count('Account'), $stats->{calls}, $took, scalar(@prepared)));
unlike(log_since($node), qr/PANIC|TRAP|terminated by signal (?!9)/, 'no other crash than ours');
$node->stop;
done_testing();
