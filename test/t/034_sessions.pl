# Sessions beside a worker that is busy with what they decide about.  drop_mapping: neither makes the other fail, nothing
# of the mapping is left behind, and others go on while somebody thinks it over.  retry: where both wait for each other,
# the worker gives way.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;
use Time::HiRes qw(time usleep);

my $sim = simulator();
my $node = new_node('sessions', conf => "deadlock_timeout = '4s'\nlog_lock_waits = off\n");

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub arrives
{
	my ($object, $key, $field, $value, $name) = @_;

	return poll_until(sub { grep { $_->{PG_Key__c} eq $key && ($_->{$field} // '') eq $value } @{ $sim->records($object) } }, $name);
}

# What the extension's tables hold of mappings that are no more.
sub left_behind
{
	return sql(q{SELECT string_agg(relation || ' ' || n, ', ') FROM left_behind() WHERE n > 0});
}

connect_salesforce($node, $sim);
sql(<<'SQL');
CREATE TABLE account (id integer PRIMARY KEY, name text, phone text);
CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text DEFAULT 'C');
CREATE FUNCTION left_behind() RETURNS TABLE (relation regclass, n bigint) LANGUAGE plpgsql AS $$
BEGIN
	FOR relation IN SELECT attrelid FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
		WHERE relnamespace = 'sfsync'::regnamespace AND relkind = 'r' AND attname = 'mapping' AND atttypid = 'int4'::regtype
	LOOP
		EXECUTE format('SELECT count(*) FROM %s WHERE mapping NOT IN (SELECT id FROM sfsync.mapping)', relation) INTO n;
		RETURN NEXT;
	END LOOP;
END $$;
SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete'), sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete');
INSERT INTO account VALUES (1, 'one');
INSERT INTO lead VALUES (1, 'one');
SQL
wait_for_sync($node, 'first: settled');

#
# In a transaction that stays open
#
my $session = session($node);
is($session->query(q{BEGIN; SELECT sfsync.drop_mapping('account')}), '', 'dropped, not yet committed');
sql(q{INSERT INTO lead VALUES (2, 'meanwhile')});
arrives('Lead', '2', 'LastName', 'meanwhile', 'another mapping goes on');
$session->query('ROLLBACK');
sql(q{UPDATE account SET phone = 'after all' WHERE id = 1});
arrives('Account', '1', 'Phone', 'after all', 'rolled back, so does this one');

$session->query(q{BEGIN; SELECT sfsync.drop_mapping('account')});
sql(q{UPDATE lead SET company = 'D' WHERE id = 2});
arrives('Lead', '2', 'Company', 'D', 'dropped again: the other goes on');
$session->query('COMMIT');
is(left_behind(), '', 'committed: nothing is left behind');
sql(q{UPDATE account SET phone = 'without a mapping'; UPDATE lead SET company = 'E' WHERE id = 2});
arrives('Lead', '2', 'Company', 'E', 'committed: the other goes on');
is($sim->record('Account', '1')->{Phone}, 'after all', 'committed: its rows are not sent any more');

#
# Again and again, with all kinds of work under way
#
my $errors = 0;
my $rounds = 0;
my $end = time() + 8;
while (time() < $end)
{
	my $policy = $rounds++ % 2 ? 'newest_wins' : 'source_wins';

	sql(qq{SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => '$policy')});
	sql(q{INSERT INTO account SELECT i, 'a' || i FROM generate_series(1, 3000) i ON CONFLICT (id) DO UPDATE SET phone = random()::text});
	usleep(rand(500_000));
	sql(q{UPDATE account SET phone = random()::text WHERE id % 10 = 0; DELETE FROM account WHERE id % 7 = 0});
	my ($rc, $out, $err) = $node->psql('postgres', q{SELECT sfsync.drop_mapping('account', discard_pending => true)});
	next if $rc == 0;
	diag($err);
	$errors++;
	last;
}
cmp_ok($rounds, '>', 3, "$rounds rounds");
is($errors, 0, 'none failed');
wait_for_sync($node, 'the rest is settled');
is(left_behind(), '', 'nothing is left behind');

#
# Rows in another order
#
sql(q{TRUNCATE account; SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete')});
sql(q{INSERT INTO account SELECT i, repeat('x', 300) FROM generate_series(5011, 5012) i});
wait_for_sync($node, 'two dead letters');
my %letters = map { split /\|/ } split /\n/, sql(q{SELECT external_id, id FROM sfsync.dead_letter WHERE status = 'open' AND mapping = 'account'});
is(join(',', sort keys %letters), '5011,5012', 'one for each row');
$session->query(qq{BEGIN; SELECT sfsync.retry($letters{5012})});
sql(q{UPDATE account SET name = 'good'});
poll_query($node, q{SELECT wait_event_type FROM pg_stat_activity WHERE backend_type = 'sfsync worker'}, 'the worker has the one and waits for the other', expected => 'Lock');
is($session->query(qq{SELECT sfsync.retry($letters{5011}); COMMIT}), 't', 'the session waits for that one, and gets it');
is($session->errors, '', 'without an error');
wait_for_sync($node, 'settled by both');
is(join(',', map { $sim->record('Account', $_)->{Name} } 5011, 5012), 'good,good', 'both rows have arrived');
is(sql(q{SELECT string_agg(status, ',') FROM sfsync.dead_letter WHERE mapping = 'account' AND external_id IN ('5011', '5012')}), 'resolved,resolved', 'their dead letters are resolved');
is(sql(q{SELECT count(*) FROM sfsync.deferred}), '0', 'and nothing waits');
unlike(log_since($node), qr/deadlock|ERROR:/, 'no deadlock, no error');

done_testing();
