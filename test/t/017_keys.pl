# Keys that change: a row's record keeps its Salesforce Id through everything.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('keys', conf => "fsync = off\nsfsync.max_attempts = 100\n");
my %id;         # Id of each row's record, by the row's name for life
my $created;    # records made so far, by object

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# Statements while nothing is sent; then they go.
sub unsent
{
	my ($statements) = @_;

	sql(q{SELECT sfsync.pause()});
	sql($statements);
	sql(q{SELECT sfsync.resume()});
	return;
}

# A table whose rows have a name for life, which is the field Site of Account.
sub make_table
{
	my ($table, $on_delete, $policy, %options) = @_;
	my $constraint = $options{constraint} // 'PRIMARY KEY DEFERRABLE';
	my $more = $options{arguments} ? ", $options{arguments}" : '';

	sql("CREATE TABLE $table (id text $constraint, site text NOT NULL, name text NOT NULL, phone text);
		SELECT sfsync.create_mapping('$table', 'Account', 'PG_Key__c', '$on_delete', conflict_policy => '$policy'$more)");
	return;
}

# Rows of a table: names for life, which are their first keys too.
sub add_rows
{
	my ($table, @names) = @_;

	sql("INSERT INTO $table SELECT n, n, 'row ' || n FROM unnest('{" . join(',', @names) . "}'::text[]) n");
	wait_for_sync($node, "$table: rows are there");
	foreach my $record (@{ $sim->records('Account') })
	{
		$id{ $record->{Site} } //= $record->{Id} if grep { $_ eq $record->{Site} } @names;
	}
	return;
}

# Each row of the table has its own record, with its own values, and there is no other.
sub kept
{
	my ($table, $name, %options) = @_;
	my @problems;
	my %record;
	my $n = 0;

	wait_for_sync($node, "$table: $name: settled", seconds => 20);
	foreach my $record (@{ $sim->records('Account') })
	{
		next unless ($record->{Site} // '') =~ /^$table/ && !grep { $_ eq $record->{Site} } @{ $options{besides} || [] };
		push @problems, "two records are of row $record->{Site}" if $record{ $record->{Site} };
		$record{ $record->{Site} } = $record;
		$n++;
	}
	foreach my $row (split /\n/, sql("SELECT id, site, name, phone FROM $table ORDER BY site"))
	{
		my ($key, $site, $value, $phone) = split /\|/, $row, -1;
		my $record = $record{$site};

		$n--;
		if (!$record)
		{
			push @problems, "row $site ($key) has no record";
			next;
		}
		$id{$site} //= $record->{Id};
		push @problems, "row $site has record $record->{Id}, not $id{$site}" if $record->{Id} ne $id{$site};
		push @problems, "record of row $site has key " . ($record->{PG_Key__c} // 'null') . ", not $key"
		  if ($record->{PG_Key__c} // '') ne $key;
		push @problems, "record of row $site is '$record->{Name}', not '$value'" if $record->{Name} ne $value;
		push @problems, "record of row $site has phone " . ($record->{Phone} // 'null') . ", not '$phone'"
		  if ($record->{Phone} // '') ne $phone;
	}
	push @problems, "$n records too many" if $n;
	is(join("\n", @problems), '', "$table: $name");
	return;
}

connect_salesforce($node, $sim);

#
# Every way to change keys, under every policy
#

foreach my $policy (qw(source_wins newest_wins strict))
{
	my $t = "t_$policy";

	make_table($t, 'delete', $policy);
	add_rows($t, map { "$t-$_" } 1 .. 9);
	$created = $sim->created('Account');

	sql("UPDATE $t SET id = '$t-10', phone = 'moved' WHERE id = '$t-9'");
	kept($t, 'a key change');
	sql("UPDATE $t SET id = CASE id WHEN '$t-1' THEN '$t-2' ELSE '$t-1' END WHERE id IN ('$t-1', '$t-2')");
	kept($t, 'a swap in one statement');
	sql("BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE $t SET id = '$t-2', phone = 'one' WHERE site = '$t-1';
		UPDATE $t SET id = '$t-1', name = 'two' WHERE site = '$t-2'; UPDATE $t SET phone = 'later' WHERE site = '$t-2'; COMMIT");
	kept($t, 'and back, in several statements of a transaction');
	unsent("UPDATE $t SET id = '$t-t' WHERE id = '$t-1'; UPDATE $t SET id = '$t-1' WHERE id = '$t-2'; UPDATE $t SET id = '$t-2' WHERE id = '$t-t'");
	kept($t, 'a swap through another key, in several transactions');
	sql("UPDATE $t SET id = '$t-' || CASE id WHEN '$t-3' THEN 4 WHEN '$t-4' THEN 5 ELSE 3 END WHERE id IN ('$t-3', '$t-4', '$t-5')");
	kept($t, 'a circle of three');
	sql("UPDATE $t SET id = '$t-' || (substr(id, length('$t-') + 1)::int + 1), name = name || '+'");
	kept($t, 'a chain of all rows');
	unsent("UPDATE $t SET id = '$t-a' WHERE site = '$t-6'; UPDATE $t SET id = '$t-b', phone = 'b' WHERE id = '$t-a'; UPDATE $t SET id = '$t-c' WHERE id = '$t-b'");
	kept($t, 'a key that changes several times');
	my $mark = $sim->mark;
	unsent("UPDATE $t SET id = '$t-d' WHERE id = '$t-c'; UPDATE $t SET id = '$t-c' WHERE id = '$t-d'");
	kept($t, 'a key that returns');
	is($sim->created('Account'), $created, "$t: no record was made");

	unsent("UPDATE $t SET id = '$t-x' WHERE site = '$t-7'; INSERT INTO $t VALUES ((SELECT '$t-8'), '$t-20', 'takes the old key')");
	kept($t, 'an old key for another row');
	unsent("DELETE FROM $t WHERE site = '$t-8'; UPDATE $t SET id = '$t-9' WHERE site = '$t-7'");
	kept($t, 'the key of a deleted row');
	unsent("UPDATE $t SET id = '$t-y' WHERE site = '$t-3'; DELETE FROM $t WHERE id = '$t-y'");
	kept($t, 'a key change, then a delete');
	unsent("INSERT INTO $t VALUES ('$t-30', '$t-30', 'new'); UPDATE $t SET id = '$t-31' WHERE id = '$t-30'; INSERT INTO $t VALUES ('$t-30', '$t-32', 'newer')");
	kept($t, 'a key change of a row that was never sent');
	is($sim->created('Account'), $created + 3, "$t: records were made for new rows alone");
	unsent("INSERT INTO $t VALUES ('$t-40', '$t-40', 'short'); UPDATE $t SET id = '$t-41' WHERE id = '$t-40'; DELETE FROM $t WHERE id = '$t-41'");
	kept($t, 'and of one that is gone again');
	is($sim->created('Account'), $created + 3, "$t: which made no record");
}

#
# Delete policies
#

sql(q{SELECT sfsync.set_delete_policy('t_source_wins', 'archive', delete_values => '{"Phone": "gone"}')});
unsent(q{UPDATE t_source_wins SET id = 't_source_wins-z' WHERE site = 't_source_wins-1'; DELETE FROM t_source_wins WHERE id = 't_source_wins-z'});
wait_for_sync($node, 'archive: settled');
my $archived = $sim->record('Account', 't_source_wins-z');
is("$archived->{Id} $archived->{Phone}", "$id{'t_source_wins-1'} gone", 'archive: the record has the new key, and the values');
unsent(q{UPDATE t_source_wins SET id = 't_source_wins-z' WHERE site = 't_source_wins-2'});
kept('t_source_wins', 'the key of an archived record', besides => ['t_source_wins-1']);
my ($freed) = grep { $_->{Id} eq $id{'t_source_wins-1'} } @{ $sim->records('Account') };
is($freed->{PG_Key__c} // 'null', 'null', 'the archived record gave it up');
is($freed->{Phone}, 'gone', 'and nothing else');

sql(q{SELECT sfsync.set_delete_policy('t_newest_wins', 'ignore')});
unsent(q{DELETE FROM t_newest_wins WHERE site = 't_newest_wins-1'; UPDATE t_newest_wins SET id = 't_newest_wins-3' WHERE site = 't_newest_wins-2'});
kept('t_newest_wins', 'a key under ignore', besides => ['t_newest_wins-1']);
is(sql(q{SELECT ignored FROM sfsync.status WHERE mapping = 't_newest_wins'}), '1', 'the delete was ignored');

# A pending delete follows the policy in force when it is sent.
sql(q{SELECT sfsync.pause('t_source_wins')});
sql(q{DELETE FROM t_source_wins WHERE site = 't_source_wins-20'});
sql(q{SELECT sfsync.set_delete_policy('t_source_wins', 'ignore')});
sql(q{SELECT sfsync.resume('t_source_wins')});
kept('t_source_wins', 'a policy that changes', besides => [ 't_source_wins-1', 't_source_wins-20' ]);
ok((grep { $_->{Id} eq $id{'t_source_wins-20'} } @{ $sim->records('Account') }), 'leaves the record of a pending delete there');

# A changed conflict policy is that of what is pending, too.
my ($edited) = map { $_->{Id} } grep { ($_->{Site} // '') eq 't_newest_wins-4' } @{ $sim->records('Account') };
sql(q{SELECT sfsync.pause('t_newest_wins')});
sql(q{UPDATE t_newest_wins SET phone = 'older' WHERE site = 't_newest_wins-4'});
$sim->post('edit', { object => 'Account', id => $edited, fields => { Phone => 'by a rep' }, at => time() + 5 });
sql(q{SELECT sfsync.alter_mapping('t_newest_wins', conflict_policy => 'source_wins')});
sql(q{SELECT sfsync.resume('t_newest_wins')});
kept('t_newest_wins', 'a conflict policy that changes', besides => ['t_newest_wins-1']);
sql(q{SELECT sfsync.pause('t_newest_wins')});
sql(q{UPDATE t_newest_wins SET phone = 'older', id = 't_newest_wins-k' WHERE site = 't_newest_wins-4'});
$sim->post('edit', { object => 'Account', id => $edited, fields => { Phone => 'by a rep' }, at => time() + 5 });
sql(q{SELECT sfsync.alter_mapping('t_newest_wins', conflict_policy => 'newest_wins')});
sql(q{SELECT sfsync.resume('t_newest_wins')});
wait_for_sync($node, 'newest_wins: settled');
my $record = $sim->record('Account', 't_newest_wins-k');
is("$record->{Id} $record->{Phone}", "$edited by a rep", "a key change under newest_wins leaves a person's edit");

#
# What goes wrong meanwhile
#

make_table('w', 'delete', 'source_wins', constraint => 'PRIMARY KEY DEFERRABLE INITIALLY DEFERRED');
add_rows('w', map { "w-$_" } 1 .. 12);
$created = $sim->created('Account');
my $write = [ 'collections_update', 'collections_upsert', 'composite' ];

# A dead letter under the old key goes with the row.
$sim->fault(name => 'bad', record => { object => 'Account', match => { Name => 'Bad' },
		error => { statusCode => 'FIELD_CUSTOM_VALIDATION_EXCEPTION', message => 'No', fields => [] } });
sql(q{UPDATE w SET name = 'Bad', phone = 'kept' WHERE site = 'w-1'});
wait_for_sync($node, 'a dead letter');
sql(q{UPDATE w SET id = 'w-1b' WHERE site = 'w-1'});
wait_for_sync($node, 'its key changes');
is(sql(q{SELECT external_id, operation, error_code FROM sfsync.dead_letter WHERE status = 'open'}),
	'w-1b|key_change|FIELD_CUSTOM_VALIDATION_EXCEPTION', 'the dead letter is of the new key');
is(sql(q{SELECT status, note FROM sfsync.dead_letter WHERE external_id = 'w-1'}),
	'resolved|the row got another key, and is sent anew under that', 'and the old one says so');
sql(q{UPDATE w SET name = 'good' WHERE site = 'w-1'});
kept('w', 'a dead letter whose key changed is healed');
$sim->clear_faults;

# A row that waits under the old key.
$sim->fault(name => 'lock', record => { object => 'Account', match => { Name => 'locked' },
		error => { statusCode => 'UNABLE_TO_LOCK_ROW', message => 'unable to obtain exclusive access to this record', fields => [] } });
sql(q{UPDATE w SET name = 'locked', phone = 'waits' WHERE site = 'w-2'});
poll_query($node, q{SELECT count(*) FROM sfsync.deferred WHERE key = 'w-2'}, 'a row waits', expected => '1');
sql(q{UPDATE w SET id = 'w-2b' WHERE site = 'w-2'; UPDATE w SET id = 'w-2c' WHERE site = 'w-2'});
poll_query($node, q{SELECT string_agg(key, ',') FROM sfsync.deferred WHERE attempts > 0}, 'and goes on waiting under its new key', expected => 'w-2c');
$sim->clear_faults;
kept('w', 'a row that waited');

# A record of someone else has the key.
my $theirs = $sim->post('create', { object => 'Account', fields => { Name => 'theirs', PG_Key__c => 'w-x' } })->{id};
sql(q{UPDATE w SET id = 'w-x' WHERE site = 'w-3'});
wait_for_sync($node, 'a key that is taken');
is(sql(q{SELECT external_id, operation, error_code FROM sfsync.dead_letter WHERE status = 'open'}), 'w-x|key_change|DUPLICATE_VALUE', 'is a dead letter');
$sim->post('edit', { object => 'Account', id => $theirs, fields => { PG_Key__c => undef }, user => 'admin' });
sql(q{SELECT sfsync.retry(id) FROM sfsync.dead_letter WHERE status = 'open'});
kept('w', 'a key that was taken');

# While the old key's write is in flight.
foreach my $step (1, 2)
{
	$sim->fault(name => 'slow', match => { kind => $write }, times => 1, action => { delay => 0.7 });
	sql(q{UPDATE w SET phone = phone || 'in flight' WHERE site = 'w-4'; UPDATE w SET phone = 'in flight' WHERE site = 'w-4'});
	poll_until(sub { $sim->hits('slow') }, 'a write is in flight');
	sql(q{UPDATE w SET id = 'w-4b' WHERE site = 'w-4'; INSERT INTO w VALUES ('w-4', 'w-new', 'new')}) if $step == 1;
	sql(q{UPDATE w SET id = 'w-4c' WHERE site = 'w-4'; UPDATE w SET id = 'w-4d', phone = 'after' WHERE site = 'w-4'}) if $step == 2;
	kept('w', 'a key change while a write is in flight');
	$sim->clear_faults;
}
$created += 2;
is($sim->created('Account'), $created, 'no record was made but for the new row, and theirs');

# Lost replies: of a key change, of a swap's steps.
foreach my $skip (0, 1)
{
	$sim->fault(name => 'lost', match => { kind => $write }, skip => $skip, times => 1, action => { close => 'after' });
	sql(q{UPDATE w SET id = CASE site WHEN 'w-5' THEN (SELECT id FROM w WHERE site = 'w-6') ELSE (SELECT id FROM w WHERE site = 'w-5') END,
		phone = 'swapped' WHERE site IN ('w-5', 'w-6')});
	poll_until(sub { $sim->hits('lost') }, "reply $skip of a swap is lost");
	kept('w', "a swap whose reply $skip is lost");
	$sim->clear_faults;
	$sim->fault(name => 'lost', match => { kind => $write }, times => 1, action => { close => $skip ? 'before' : 'after' });
	sql(qq{UPDATE w SET id = 'w-7-$skip' WHERE site = 'w-7'});
	poll_until(sub { $sim->hits('lost') }, 'the reply of a key change is lost');
	sql(qq{UPDATE w SET id = 'w-7' WHERE site = 'w-7'});
	kept('w', 'the key returns after a lost reply');
	$sim->clear_faults;
}

# The worker is killed between the steps of a swap, or with one in flight.
foreach my $skip (0, 1)
{
	my $pid = worker_pid($node);

	$sim->fault(name => 'hang', match => { kind => $write }, skip => $skip, times => 1, action => { hang => 2, apply => JSON::PP::true() });
	sql(q{UPDATE w SET id = CASE site WHEN 'w-8' THEN (SELECT id FROM w WHERE site = 'w-9') WHEN 'w-9' THEN (SELECT id FROM w WHERE site = 'w-10')
		ELSE (SELECT id FROM w WHERE site = 'w-8') END WHERE site IN ('w-8', 'w-9', 'w-10')});
	poll_until(sub { $sim->hits('hang') }, "step $skip of a circle hangs");
	kill('KILL', $pid);
	poll_until(sub { my ($rc, $out) = $node->psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sfsync worker'}); $rc == 0 && $out =~ /^\d+$/ && $out ne $pid },
		'the worker was killed, and is back');
	kept('w', "a circle whose step $skip was cut off");
	$sim->clear_faults;
}
is($sim->created('Account'), $created, 'no record was made');

# Records that sfsync has not met.
sql(q{CREATE TABLE u (id text PRIMARY KEY DEFERRABLE, site text, name text, phone text);
	INSERT INTO u SELECT 'u-' || i, 'u-' || i, 'unmet ' || i FROM generate_series(1, 4) i});
foreach my $i (1 .. 4)
{
	$id{"u-$i"} = $sim->post('create', { object => 'Account', fields => { Name => "unmet $i", Site => "u-$i", PG_Key__c => "u-$i" } })->{id};
}
sql(q{SELECT sfsync.create_mapping('u', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', backfill => false)});
wait_for_sync($node, 'no backfill');
$created = $sim->created('Account');
sql(q{UPDATE u SET id = CASE id WHEN 'u-1' THEN 'u-2' WHEN 'u-2' THEN 'u-3' ELSE 'u-1' END WHERE id <> 'u-4'; UPDATE u SET id = 'u-5', phone = 'met' WHERE id = 'u-4'; INSERT INTO u VALUES ('u-4', 'u-9', 'new')});
kept('u', 'a circle of rows whose records are met for the first time');
sql(q{SELECT sfsync.alter_mapping('u', conflict_policy => 'newest_wins')});
sql(q{UPDATE u SET id = CASE id WHEN 'u-1' THEN 'u-2' ELSE 'u-1' END WHERE id IN ('u-1', 'u-2')});
kept('u', 'a swap after the policy changed');
is($sim->created('Account'), $created + 1, 'no record was made but for the new row');

#
# Keys of several columns, and keys whose case alone changes
#

sql(q{CREATE TABLE c (a text, b integer, everything_name text, PRIMARY KEY (a, b) DEFERRABLE);
	INSERT INTO c VALUES ('x', 1, 'one'), ('x:', 2, 'two'), ('y', 3, 'three');
	CREATE TABLE ci (key text PRIMARY KEY, everything_name text);
	INSERT INTO ci VALUES ('abc', 'one'), ('def', 'two');
	SELECT sfsync.create_mapping('c', 'Everything__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
	SELECT sfsync.map_field('c', 'Name', 'everything_name');
	SELECT sfsync.create_mapping('ci', 'Account', 'Ext_CI__c', 'delete', conflict_policy => 'source_wins');
	SELECT sfsync.map_field('ci', 'Name', 'everything_name')});
wait_for_sync($node, 'keys of several columns');

sub ids
{
	my ($object, $field) = @_;
	return { map { $_->{$field} => $_->{Id} } grep { defined $_->{$field} } @{ $sim->records($object) } };
}
my $before = ids('Everything__c', 'PG_Key__c');
sql(q{UPDATE c SET (a, b) = (SELECT a, b FROM c o WHERE o.everything_name = CASE c.everything_name WHEN 'one' THEN 'two' ELSE 'one' END) WHERE everything_name <> 'three'; UPDATE c SET b = 4 WHERE b = 3});
wait_for_sync($node, 'a swap of keys of several columns');
is_deeply(ids('Everything__c', 'PG_Key__c'), { 'x:1' => $before->{'x\\::2'}, 'x\\::2' => $before->{'x:1'}, 'y:4' => $before->{'y:3'} }, 'keys of several columns');
$before = ids('Account', 'Ext_CI__c');
sql(q{UPDATE ci SET key = 'ABC' WHERE key = 'abc'});
wait_for_sync($node, 'a key whose case changes');
is_deeply(ids('Account', 'Ext_CI__c'), { ABC => $before->{abc}, def => $before->{def} }, 'a key whose case changes');
sql(q{UPDATE ci SET key = 'Abc' WHERE key = 'def'});
wait_for_sync($node, 'a key that differs in case alone');
is(sql(q{SELECT external_id, error_code FROM sfsync.dead_letter WHERE status = 'open'}), 'Abc|DUPLICATE_KEY', 'is a dead letter');
sql(q{UPDATE ci SET key = 'ghi' WHERE key = 'ABC'; SELECT sfsync.retry(id) FROM sfsync.dead_letter WHERE status = 'open'});
wait_for_sync($node, 'until the other row has another key');
is_deeply(ids('Account', 'Ext_CI__c'), { ghi => $before->{abc}, Abc => $before->{def} }, 'then it goes');

# A mapping made anew with another key leaves what it does not find.
sql(q{CREATE TABLE k (id text PRIMARY KEY, other text NOT NULL UNIQUE, site text, name text, phone text); INSERT INTO k VALUES ('k-1', 'k-one', 'k-1', 'k', NULL);
	SELECT sfsync.create_mapping('k', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
kept('k', 'the first key');
sql(q{SELECT sfsync.pause('k'); UPDATE k SET phone = 'pending'});
my ($rc, $out, $err) = $node->psql('postgres', q{SELECT sfsync.drop_mapping('k')});
like($err, qr/pending/, 'a mapping with pending changes is not dropped unasked');
sql(q{SELECT sfsync.drop_mapping('k', true); SELECT sfsync.create_mapping('k', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins', key_columns => '{other}')});
wait_for_sync($node, 'another key');
is(join(',', map { ($_->{PG_Key__c} // 'null') . '=' . ($_->{Phone} // 'null') } sort { $a->{PG_Key__c} cmp $b->{PG_Key__c} } grep { ($_->{Site} // '') eq 'k-1' } @{ $sim->records('Account') }),
	'k-1=null,k-one=pending', 'the old record stays as it was, and another is made under the new key');

#
# A storm: swaps, circles, moves, deletes, inserts of several sessions, and workers that are killed
#

make_table('s', 'delete', 'source_wins', constraint => 'PRIMARY KEY DEFERRABLE INITIALLY DEFERRED');
add_rows('s', map { "s-$_" } 1 .. 45);
sql(q{CREATE SEQUENCE names START 1000;
CREATE PROCEDURE storm(seed float8, n int, part int) LANGUAGE plpgsql AS $$
DECLARE
	sites text[];
BEGIN
	PERFORM setseed(seed);
	FOR i IN 1 .. n LOOP
		SELECT array_agg(site) INTO sites FROM (SELECT site FROM s WHERE substr(site, 3)::int % 3 = part ORDER BY random() LIMIT 3) x;
		CASE (random() * 7)::int
		WHEN 0 THEN
			DELETE FROM s WHERE site = sites[1];
			UPDATE s SET id = 's-' || nextval('names') WHERE site = sites[2];
		WHEN 1 THEN
			INSERT INTO s SELECT 's-' || k, 's-' || k, 'new' FROM (SELECT nextval('names') * 3 + part + 100000 AS k) x;
		WHEN 2 THEN
			UPDATE s SET id = 's-' || nextval('names'), phone = i::text WHERE site = sites[1];
		WHEN 3 THEN
			UPDATE s SET id = 's-t' || part, name = 'by way' || i WHERE site = sites[1];
			COMMIT;
			UPDATE s SET id = 's-' || nextval('names') WHERE site = sites[1];
		WHEN 4 THEN
			UPDATE s SET name = 'changed ' || i WHERE site = ANY (sites);
		ELSE
			UPDATE s SET id = o.id, phone = i::text FROM s o
			WHERE s.site = ANY (sites) AND o.site = sites[array_position(sites, s.site) % cardinality(sites) + 1];
		END CASE;
		COMMIT;
		PERFORM pg_sleep(0.002);
	END LOOP;
END$$});
$sim->remove('log');
$created = $sim->created('Account');
my @sessions = map { session($node) } 0 .. 2;
$sessions[$_]->send("CALL storm(0.$_ + 0.05, 150, $_)") foreach 0 .. 2;
foreach my $round (1 .. 2)
{
	my $pid = worker_pid($node);
	my $n = $sim->stats->{calls};

	poll_until(sub { $sim->stats->{calls} > $n + 5 }, undef, 5);
	kill('KILL', $pid);
	poll_until(sub { my ($rc, $out) = $node->psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sfsync worker'}); $rc == 0 && $out =~ /^\d+$/ && $out ne $pid },
		"the worker was killed, and is back ($round)");
	foreach my $i (0 .. 2)
	{
		$sessions[$i] = session($node);
		$sessions[$i]->send("CALL storm(0.$i + 0.05 * $round, 150, $i)");
	}
}
$_->finish foreach @sessions;
kept('s', 'a storm');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'no dead letters');
my %keys;
$keys{ $_->{Site} }++ foreach grep { ($_->{Site} // '') =~ /^s-/ } @{ $sim->get('records?object=Account&deleted=1') };
is(join(',', grep { $keys{$_} > 1 } sort keys %keys), '', 'no row ever had two records, not even deleted ones');
is(0 + $sim->stats->{same_record_overlap}, 0, 'two writes of one record were never in flight together');
same_state($node, 'nothing is left on the way');
is(sql(q{SELECT count(*) FROM sfsync.record WHERE at_keys IS NOT NULL AND mapping = (SELECT id FROM sfsync.mapping WHERE name = 's') AND displaced_by IS NULL}), '0', 'and no record is known under another key than its own');
$node->stop;
done_testing();
