# What is said of a backfill while it is under way: rows that it has still to settle are pending.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('backfill');
my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone" FROM account};
my $pending = q{SELECT pending, oldest_pending > interval '0' FROM sfsync.status WHERE mapping = 'account'};

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

connect_salesforce($node, $sim, options => "max_concurrent_requests '1', max_batch_size '200', bulk_threshold '0'");
sql(q{CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL, phone text);
	INSERT INTO account SELECT i, 'a' || i FROM generate_series(1, 500) i});
sql(q{BEGIN; SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
	SELECT sfsync.pause('account'); COMMIT});
is(sql($pending), '500|t', 'rows of a backfill that waits are pending');
is(sql(q{BEGIN; SELECT sfsync.drop_mapping('account'); ROLLBACK}), '', 'a mapping without changes can be dropped all the same');
sql(q{UPDATE account SET phone = '1' WHERE id <= 10});
is(sql($pending), '500|t', 'those that change are the same rows');
sql(q{INSERT INTO account SELECT i, 'a' || i FROM generate_series(501, 503) i});
is(sql($pending), '503|t', 'new ones are more');
my $second = sql(q{SELECT sfsync.backfill('account')});
is(sql($pending), '503|t', 'a second backfill of all rows means no others');
my @some = map { sql("SELECT sfsync.backfill('account', 'id <= $_')") } 100, 100;
is(sql($pending), '503|t', 'nor do backfills of some');
sql("UPDATE sfsync.backfill_job SET state = 'cancelled' WHERE filter IS NULL; DELETE FROM sfsync.queue");
is(sql($pending), '100|t', 'two of the same filter have the same rows');
sql(q{SELECT sfsync.backfill('account', 'id > 480')});
is(sql($pending), '123|t', 'of another filter others');
sql(q{SELECT sfsync.backfill('account')});

# Under way.
$sim->fault(name => 'slow', match => { kind => 'collections_upsert' }, action => { delay => 0.5 });
sql(q{SELECT sfsync.resume('account')});
poll_query($node, q{SELECT in_flight > 0 FROM sfsync.status}, 'it is under way');
is(sql(q{SELECT pending >= in_flight, pending BETWEEN 1 AND 503 FROM sfsync.status}), 't|t', 'what is in flight is pending');
$sim->clear_faults;
wait_for_sync($node, 'settled');
same_records($node, $sim, 'Account', $accounts, 'records equal the table');
is(sql(q{SELECT pending, oldest_pending IS NULL, in_flight FROM sfsync.status}), '0|t|0', 'nothing is pending when it is done');

# Not only when a part of it is done.
sql(q{INSERT INTO account SELECT i, 'a' || i FROM generate_series(504, 1000) i});
wait_for_sync($node, 'more rows');
my $id = sql(q{SELECT sfsync.pause('account'); SELECT sfsync.backfill('account')});
$id =~ s/\s//g;
$sim->fault(name => 'slow', match => { kind => 'collections_upsert' }, action => { delay => 0.7 });
sql(q{SELECT sfsync.resume('account')});
my $progress = "SELECT rows_done, percent, sfsync.cancel_backfill($id) FROM sfsync.backfill_progress WHERE id = $id AND rows_done BETWEEN 1 AND 999";
my $seen;
poll_until(sub { $seen = sql($progress) }, 'progress shows before a part is done');
like($seen, qr/^(\d+)\|(\d+\.\d)\|t$/, 'rows and percent');
$sim->clear_faults;
wait_for_sync($node, 'cancelled: settled');
my ($rows) = split /\|/, $seen;
is(sql("SELECT state, rows_done >= $rows, rows_done < 1000, percent > 0 FROM sfsync.backfill_progress WHERE id = $id"), 'cancelled|t|t|t', 'it stays when the backfill is cancelled');
poll_query($node, q{SELECT pending FROM sfsync.status}, 'nothing is pending once what was under way has come back', expected => '0');
$id = sql(q{SELECT sfsync.backfill('account')});
wait_for_sync($node, 'another one: settled');
is(sql("SELECT state, rows_done, percent FROM sfsync.backfill_progress WHERE id = $id"), 'done|1000|100.0', 'one that is done counts each row once');

same_state($node, 'nothing is left on the way');
unlike(log_since($node), qr/PANIC|TRAP|terminated by signal/, 'no crash');
$node->stop;
done_testing();
