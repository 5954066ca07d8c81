# Whose value stays: each row of the table of conflicts, from a statement to the record, and what users see of it.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Utils;
use POSIX qw(strftime);
use SfSync;
use Test::More;
use Time::HiRes qw(time);

my $sim = simulator();
my $node = new_node('conflicts');
my $users;

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# Epoch seconds, so many from now, as Salesforce and PostgreSQL read them.
sub in_seconds
{
	my ($seconds) = @_;
	return strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(int(time()) + $seconds));
}

# What a person (or another tool) does to a record, found by its key.
sub edit
{
	my ($key, $fields, $at, %options) = @_;

	$sim->post('edit',
		{ object => $options{object} || 'Account', match => { PG_Key__c => "$key" }, fields => $fields,
			defined $at ? (at => $at =~ /^-?\d+$/ ? in_seconds($at) : $at) : (), user => $options{user} || 'rep' });
	return;
}

sub remove
{
	my ($key, $at) = @_;
	$sim->post('delete', { object => 'Account', match => { PG_Key__c => "$key" }, at => in_seconds($at) });
	return;
}

sub holds
{
	my ($key, $field, $value, $name) = @_;
	my ($record) = grep { ($_->{PG_Key__c} // '') eq $key } @{ $sim->get("records?object=Account&fields=PG_Key__c,$field") };

	is($record->{$field}, $value, $name);
	return;
}

# The conflicts of a row: field, values and resolution.
sub conflicts
{
	my ($key, $table) = @_;
	return sql(sprintf(q{SELECT string_agg(concat_ws(' ', coalesce(field, '-'), coalesce(source_value::text, '-') || '/' ||
		coalesce(salesforce_value::text, '-'), policy, coalesce(resolution, 'open')), '; ' ORDER BY id)
		FROM sfsync.conflict WHERE mapping = '%s' AND source_key = '{"id": %d}'}, $table || 'account', $key));
}

# Rows are changed and records edited while nothing is delivered; then all of it meets.
sub meet
{
	my ($work) = @_;

	sql('SELECT sfsync.pause()');
	my $mark = $sim->mark;
	$work->();
	sql('SELECT sfsync.resume()');
	wait_for_sync($node) or fail('settled');
	return $mark;
}

# Requests since then that wrote a record with the key.
sub writes
{
	my ($mark, $key) = @_;
	my $id = ($sim->record('Account', $key) || {})->{Id} // '-';

	return grep { $_->{method} =~ /^(?:PATCH|POST|DELETE)$/ && $_->{kind} =~ /collections_(?:update|upsert|create|delete)|composite/
		  && ($_->{body} // '') =~ /\Q$id\E.*(?:PATCH|attributes)|attributes.*\Q$id\E/s } $sim->requests($mark);
}

# Event time of a row's waiting change, as epoch seconds.
sub event_second
{
	my ($key) = @_;
	return sql("SELECT floor(extract(epoch FROM max(event_at)))::bigint FROM sfsync.queued WHERE key = '$key'");
}

sub at_second
{
	my ($second) = @_;
	return strftime('%Y-%m-%dT%H:%M:%SZ', gmtime($second));
}

sub row_of
{
	my ($mapping, $n) = @_;
	return "INSERT INTO $mapping (id, name, phone, site) SELECT i, 'Name ' || i, 'phone ' || i, 'site ' || i FROM generate_series(1, $n) i";
}

# The rows are an hour old to Salesforce, so that edits can be older than now and newer than they.
$sim->config(keep_bodies => JSON::PP::true, clock_offset => -3600);
connect_salesforce($node, $sim);
sql(q{CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL, phone text, site text, fax text, number_of_employees integer,
	loyalty_tier text, parent_id integer REFERENCES account, changed_at timestamptz);
SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete');
SELECT sfsync.exclude_column('account', 'changed_at');});
is(sql('SELECT conflict_policy FROM sfsync.mapping'), 'newest_wins', 'newest_wins is the default');
sql(row_of('account', 60));
wait_for_sync($node, 'rows are there');
$sim->config(clock_offset => 0);
$users = { map { $_->{Username} => $_ } @{ $sim->records('User') } };
my ($rep) = grep { /^rep/ } keys %$users;
my ($admin) = grep { /^admin/ } keys %$users;
$rep = $users->{$rep};
$admin = $users->{$admin};

#
# The table, row by row
#
my $mark = meet(sub {
	edit(1, { Site => 'same' }, 60);
	edit(2, { Description => 'not mapped' }, 60);
	edit(3, { Site => 'older' }, -60);
	edit(4, { Site => 'newer' }, 60);
	edit(6, { Site => undef }, 60);
	edit(7, { Site => 'newer' }, 60);
	edit(8, { Site => '  site 8  ' }, 60);
	sql(q{UPDATE account SET site = 'same' WHERE id = 1;
		UPDATE account SET site = 'row' WHERE id BETWEEN 2 AND 6;
		UPDATE account SET site = 'row', name = 'Row 7' WHERE id = 7;
		UPDATE account SET site = 'row' WHERE id = 8});
	edit(5, { Site => 'tie' }, at_second(event_second(5)));
});
holds(1, 'Site', 'same', 'equal');
is(writes($mark, 1), 0, 'equal: nothing is written');
holds(2, 'Site', 'row', 'what we wrote is replaced, although a person changed the record later');
holds(3, 'Site', 'row', 'an older edit is replaced');
is(conflicts(3), '', 'and is no conflict');
holds(4, 'Site', 'newer', 'a newer edit stays');
is(conflicts(4), 'Site "row"/"newer" newest_wins open', 'it is a conflict');
is(writes($mark, 4), 0, 'nothing of it is written');
holds(5, 'Site', 'tie', 'a tie goes to Salesforce');
is(conflicts(5), 'Site "row"/"tie" newest_wins open', 'it is a conflict');
holds(6, 'Site', undef, 'clearing is an edit');
is(conflicts(6), 'Site "row"/null newest_wins open', 'it is a conflict');
holds(7, 'Site', 'newer', 'of two fields one stays');
holds(7, 'Name', 'Row 7', 'and one is written');
is(conflicts(7), 'Site "row"/"newer" newest_wins open', 'one conflict');
holds(8, 'Site', 'row', 'blanks that Salesforce trims are no edit');
is(sql(q{SELECT conflicts FROM sfsync.status WHERE mapping = 'account'}), '4', 'status counts open conflicts');

# A person's value that was seen keeps its time; our own writes in between do not.
$mark = meet(sub { edit(10, { Site => 'seen' }, 30); sql(q{UPDATE account SET fax = 'x' WHERE id = 10}) });
holds(10, 'Site', 'seen', 'a field without an event is left alone');
is(conflicts(10), '', 'without a conflict');
meet(sub { edit(10, { Description => 'x' }, 90); sql(q{UPDATE account SET fax = 'y', site = 'row' WHERE id = 10}) });
holds(10, 'Site', 'seen', 'the time at which it was first seen decides');
holds(10, 'Fax', 'y', 'our field is written');
is(sql(q{SELECT round(extract(epoch FROM salesforce_modified_at - event_at)) BETWEEN 25 AND 35 FROM sfsync.conflict WHERE source_key = '{"id": 10}'}), 't',
	'and the conflict shows that time');

# The record's time in the future says nothing of a value that is older.
meet(sub { edit(11, { Site => 'old' }, -100); sql(q{UPDATE account SET fax = 'x' WHERE id = 11}) });
meet(sub { edit(11, { Description => 'x' }, 90); sql(q{UPDATE account SET site = 'row' WHERE id = 11}) });
holds(11, 'Site', 'row', 'an old value of theirs yields although the record was changed later');

# Committed late: the event is older than the edit, our own write of another field came between.
my $late = session($node);
sql('SELECT sfsync.pause()');
sql(q{UPDATE account SET fax = 'first' WHERE id = 12});
$late->query(q{BEGIN; UPDATE account SET site = 'late' WHERE id = 12});
edit(12, { Site => 'meanwhile' }, 2);
sql('SELECT sfsync.resume()');
poll_until(sub { ($sim->record('Account', '12')->{Fax} // '') eq 'first' }, 'another field is written meanwhile');
$late->query('COMMIT');
wait_for_sync($node, 'late commit');
holds(12, 'Site', 'meanwhile', 'a late commit loses to the edit that it did not know');
is(conflicts(12), 'Site "late"/"meanwhile" newest_wins open', 'it is a conflict');
$late->quit;

#
# History of fields that the org tracks: Phone and Loyalty_Tier__c
#
meet(sub {
	edit(13, { Phone => 'old' }, -50);
	edit(13, { Site => 'newer' }, 60, user => 'admin');
	sql(q{UPDATE account SET phone = 'row' WHERE id = 13});
	sql(q{UPDATE account SET phone = 'row' WHERE id = 14});
	edit(14, { Phone => 'newer' }, 30);
	edit(14, { Site => 'newer' }, 60, user => 'admin');
	edit(15, { Phone => 'seen' }, -50);
	edit(15, { Site => 'newer' }, 60);
	sql(q{UPDATE account SET fax = 'x' WHERE id = 15});
});
holds(13, 'Phone', 'row', 'history tells that the edit was before the event');
is(conflicts(13), '', 'no conflict');
holds(14, 'Phone', 'newer', 'history tells that it was after');
is( sql(q{SELECT salesforce_modified_by, round(extract(epoch FROM salesforce_modified_at - event_at)) BETWEEN 25 AND 35 FROM sfsync.conflict WHERE source_key = '{"id": 14}'}),
	"$rep->{Id} ($rep->{Name})|t",
	'the conflict has the time and the user of the history');
meet(sub { sql(q{UPDATE account SET phone = 'row' WHERE id = 15}) });
holds(15, 'Phone', 'row', 'history is asked, too, of a value that was seen before');

# Another tool with our user: older rows of the history are not of the value that is there.
meet(sub {
	edit(16, { Phone => 'person' }, -50);
	sql(q{UPDATE account SET phone = 'row' WHERE id = 16});
	edit(16, { Phone => 'tool' }, 60, user => 'integration');
});
holds(16, 'Phone', 'tool', "another tool's edit with our user is an edit");
like(conflicts(16), qr{^Phone "row"/"tool" newest_wins open$}, 'it is a conflict');

#
# Our own echoes
#
# A flow changes what we write.
$sim->post('automation', { object => 'Account', when => 'save', set => { Site => 'flow' } });
meet(sub { sql(q{UPDATE account SET site = 'row' WHERE id = 17}) });
holds(17, 'Site', 'flow', 'a flow changes what we wrote');
$sim->post('automation', { clear => JSON::PP::true });
meet(sub { sql(q{UPDATE account SET site = 'row again' WHERE id = 17}) });
holds(17, 'Site', 'row again', 'that is no edit of anybody');
is(conflicts(17), '', 'and no conflict');

# Replies of writes are lost from now on; wait until one has been given up on, and let them come again.
sub lose
{
	my ($statement) = @_;

	$sim->fault(name => 'lost', match => { kind => 'collections_update' }, action => { close => 'after' });
	sql($statement);
	poll_query($node, q{SELECT count(*) > 0 FROM sfsync.intent WHERE state = 'unknown'}, 'a reply is lost');
	return;
}

# What was applied is ours, and not written again (libcurl itself tries connections that it had kept).
lose(q{UPDATE account SET site = 'lost reply' WHERE id = 18});
wait_for_sync($node, 'lost reply: settled');
my ($last) = reverse $sim->requests(0);
is($last->{kind}, 'collections_retrieve', 'a write whose reply is lost is looked for, and found');
holds(18, 'Site', 'lost reply', 'it is there');
is(conflicts(18), '', 'it is no conflict');
$sim->clear_faults;
sql(q{DELETE FROM sfsync.intent});

# A flow changed what the lost request wrote.
$sim->post('automation', { object => 'Account', when => 'save', set => { Site => 'flow' } });
lose(q{UPDATE account SET site = 'lost' WHERE id = 19});
holds(19, 'Site', 'flow', 'a flow changes what was written, and the reply is lost');
$sim->post('automation', { clear => JSON::PP::true });
sql(q{UPDATE account SET site = 'after' WHERE id = 19});
$sim->clear_faults;
wait_for_sync($node, 'lost and changed: settled');
holds(19, 'Site', 'after', 'that is ours');
is(conflicts(19), '', 'no conflict');
sql(q{DELETE FROM sfsync.intent});

# A person edits after the write whose reply is lost.
$sim->fault(name => 'down', match => { kind => 'collections_retrieve' }, skip => 1, action => { status => 503, body => 'down' });
lose(q{UPDATE account SET site = 'lost' WHERE id = 20});
edit(20, { Site => 'person' }, 2);
$sim->clear_faults;
wait_for_sync($node, 'lost, then edited: settled');
holds(20, 'Site', 'person', 'an edit after a lost reply stays');
is(conflicts(20), 'Site "lost"/"person" newest_wins open', 'it is a conflict');
sql(q{DELETE FROM sfsync.intent});

# Applied, then silence, then the connection is gone; a person edits meanwhile.  Nothing may send the same again unread.
$sim->fault(name => 'hang', match => { kind => 'collections_update' }, times => 1, action => { hang => 3, apply => JSON::PP::true });
sql(q{UPDATE account SET site = 'silence' WHERE id = 59});
poll_until(sub { ($sim->record('Account', '59')->{Site} // '') eq 'silence' }, 'applied, and no reply');
edit(59, { Site => 'person' }, 1);
wait_for_sync($node, 'silence: settled');
holds(59, 'Site', 'person', 'an edit while a request hangs stays');
is(conflicts(59), 'Site "silence"/"person" newest_wins open', 'it is a conflict');
$sim->clear_faults;
sql(q{DELETE FROM sfsync.intent});

#
# Records that people delete and merge
#
sub ids_of { my %ids = map { $_->{PG_Key__c} => $_->{Id} } grep { defined $_->{PG_Key__c} } @{ $sim->records('Account') }; return \%ids }
my $ids = ids_of();
meet(sub {
	remove(21, 60);
	remove(22, -30);
	remove(23, -30);
	remove(24, -30);
	$sim->post('merge', { object => 'Account', winner => $ids->{26}, loser => $ids->{25}, user => 'admin', at => in_seconds(-30) });
	sql(q{UPDATE account SET site = 'row' WHERE id IN (21, 22, 25)});
});
is($sim->record('Account', '21'), undef, 'deleted after the event: not made anew');
is(conflicts(21), '- -/- newest_wins open', 'a conflict of the record');
holds(22, 'Site', 'row', 'deleted before the event: made anew');
holds(22, 'Phone', 'phone 22', 'with all fields');
isnt($sim->record('Account', '22')->{Id}, $ids->{22}, 'it is a new record');
is(conflicts(22), '', 'no conflict');
is($sim->record('Account', '25'), undef, 'merged: not made anew');
is(conflicts(25), '- -/- newest_wins open', 'a conflict of the record');
is(sql(q{SELECT salesforce_id, salesforce_modified_by FROM sfsync.conflict WHERE source_key = '{"id": 25}'}),
	"$ids->{25}|$admin->{Id} ($admin->{Name})", 'it names the record and who did it');
sql(q{SELECT sfsync.backfill('account')});
wait_for_sync($node, 'backfill');
is($sim->record('Account', '23'), undef, 'a backfill makes nothing anew that was deleted');
is(conflicts(23), '- -/- newest_wins open', 'that is a conflict');
$sim->post('purge', { object => 'Account' });
meet(sub { sql(q{UPDATE account SET site = 'row' WHERE id = 24}) });
holds(24, 'Site', 'row', 'purged: made anew');
is(conflicts(24), '- -/- newest_wins superseded', 'the conflict of the record is over');

#
# Deletes
#
meet(sub {
	sql(q{DELETE FROM account WHERE id BETWEEN 27 AND 30});
	edit(27, { Description => 'edited after the delete' }, 60);
	edit(28, { Description => 'edited before' }, -60);
	edit(29, { Site => 'tool' }, 60, user => 'integration');
});
isnt($sim->record('Account', '27'), undef, 'a record edited after the delete stays');
is(conflicts(27), '- -/- newest_wins open', 'that is a conflict');
is($sim->record('Account', '28'), undef, 'one edited before is deleted');
isnt($sim->record('Account', '29'), undef, 'one that another tool changed stays');
is($sim->record('Account', '30'), undef, 'one that nobody touched is deleted');
$ids = ids_of();
is(sql(q{SELECT sfsync.resolve_conflict(id, 'source') FROM sfsync.conflict WHERE source_key = '{"id": 27}'}), 't', 'the row wins');
wait_for_sync($node, 'resolved');
is($sim->record('Account', '27'), undef, 'now it is deleted');
is(conflicts(27), '- -/- newest_wins source', 'resolved');
sql(q{INSERT INTO account (id, name, site) VALUES (29, 'back', 'back')});
wait_for_sync($node, 'back');
holds(29, 'Name', 'back', 'a row that returns finds its record');
is($sim->record('Account', '29')->{Id}, $ids->{29}, 'the same one');
like(conflicts(29), qr/^- -\/- newest_wins superseded; Site/, 'what another tool set later is a conflict of its own');

# Edited, then written by us, then deleted by a row's older event: the edit counts.
sql('SELECT sfsync.pause()');
sql(q{UPDATE account SET fax = 'x' WHERE id = 31});
my $deletes = session($node);
$deletes->query(q{BEGIN; DELETE FROM account WHERE id = 31});
edit(31, { Site => 'meanwhile' }, 2);
sql('SELECT sfsync.resume()');
poll_until(sub { ($sim->record('Account', '31')->{Fax} // '') eq 'x' }, 'another field is written meanwhile');
$deletes->query('COMMIT');
$deletes->quit;
wait_for_sync($node, 'late delete');
isnt($sim->record('Account', '31'), undef, 'a late delete loses to the edit');

#
# Backfills
#
$sim->post('create', { object => 'Account', fields => { Name => 'Name 71', PG_Key__c => '71', Site => 'theirs', Phone => 'phone 71' }, at => in_seconds(-3600) });
$sim->post('create', { object => 'Account', fields => { Name => 'Theirs', PG_Key__c => '72' }, at => in_seconds(-3600) });
sql(q{SET sfsync.capture = off; INSERT INTO account (id, name, phone, site) SELECT i, 'Name ' || i, 'phone ' || i, 'site ' || i FROM generate_series(71, 73) i});
edit(32, { Site => 'theirs' }, -1800);
sql(q{SET sfsync.capture = off; UPDATE account SET site = 'not captured', fax = 'not captured' WHERE id IN (32, 33)});
sql(q{SELECT sfsync.backfill('account')});
wait_for_sync($node, 'backfill meets edits');
holds(71, 'Site', 'theirs', 'a backfill overwrites no edit');
is(conflicts(71), 'Site "site 71"/"theirs" newest_wins open', 'it logs a conflict');
is(sql(q{SELECT event_at IS NULL FROM sfsync.conflict WHERE source_key = '{"id": 71}'}), 't', 'without the time of an event');
holds(72, 'Name', 'Theirs', 'nor here');
holds(72, 'Site', 'site 72', 'it fills what is empty');
holds(73, 'Site', 'site 73', 'it creates what is missing');
holds(32, 'Site', 'theirs', 'an edit in a record of ours stays');
holds(33, 'Site', 'not captured', 'what nobody else touched is corrected');
is(sql(q{SELECT count(*) FROM sfsync.conflict WHERE source_key = '{"id": 71}'}), '1', 'one conflict');
sql(q{SELECT sfsync.backfill('account')});
wait_for_sync($node, 'backfill again');
is(sql(q{SELECT count(*) FROM sfsync.conflict WHERE source_key = '{"id": 71}'}), '1', 'the same conflict is not logged again');
is(conflicts(21), '- -/- newest_wins open', 'nor that of a record');

# A column that tells when a row was changed.
sql(q{SELECT sfsync.alter_mapping('account', updated_at_column => 'changed_at');
	SET sfsync.capture = off; UPDATE account SET changed_at = now() - interval '10 minutes', site = 'dated' WHERE id IN (71, 32, 34)});
edit(34, { Site => 'newer' }, -60);
sql(q{SELECT sfsync.backfill('account')});
wait_for_sync($node, 'backfill with times');
holds(71, 'Site', 'dated', 'changed after the edit: written');
is(conflicts(71), 'Site "site 71"/"theirs" newest_wins superseded', 'its conflict is over');
holds(34, 'Site', 'newer', 'changed before it: kept');
is($sim->record('Account', '21'), undef, 'a time makes nothing anew');
sql(q{SELECT sfsync.alter_mapping('account', updated_at_column => '')});

#
# What users see, and resolve_conflict
#
is(sql(q{SELECT salesforce_id, source_value, salesforce_value, salesforce_modified_by, policy, resolution IS NULL, resolved_at IS NULL,
	detected_at > now() - interval '10 minutes', event_at < salesforce_modified_at FROM sfsync.conflict WHERE source_key = '{"id": 4}'}),
	"$ids->{4}|\"row\"|\"newer\"|$rep->{Id} ($rep->{Name})|newest_wins|t|t|t|t", 'a row of sfsync.conflict');
my $id = sql(q{SELECT id FROM sfsync.conflict WHERE source_key = '{"id": 4}'});
is(sql("SELECT sfsync.resolve_conflict($id, 'source')"), 't', 'resolved for the row');
wait_for_sync($node, 'resolved');
holds(4, 'Site', 'row', 'the row is written, even over a later edit');
is(conflicts(4), 'Site "row"/"newer" newest_wins source', 'the conflict says so');
is(sql("SELECT resolved_at IS NOT NULL FROM sfsync.conflict WHERE id = $id"), 't', 'and when');
is(sql("SELECT sfsync.resolve_conflict($id, 'salesforce')"), 'f', 'it is resolved once');
is(sql("SELECT sfsync.resolve_conflict(0, 'salesforce')"), 'f', 'an unknown conflict');
$id = sql(q{SELECT id FROM sfsync.conflict WHERE source_key = '{"id": 5}'});
my ($rc, $out, $err) = $node->psql('postgres', "SELECT sfsync.resolve_conflict($id, 'mine')");
like($err, qr/keep.*HINT.*source.*salesforce|source.*salesforce/s, 'a word that is none');
($rc, $out, $err) = $node->psql('postgres', "SELECT sfsync.resolve_conflict($id, NULL)");
isnt($err . $out, 't', 'nor is NULL');
is(sql("SELECT sfsync.resolve_conflict($id, 'salesforce')"), 't', "resolved for Salesforce's value");
wait_for_sync($node, 'resolved');
holds(5, 'Site', 'tie', 'it stays');
is(conflicts(5), 'Site "row"/"tie" newest_wins salesforce', 'the conflict says so');
meet(sub { sql(q{UPDATE account SET fax = 'x' WHERE id = 5}) });
holds(5, 'Site', 'tie', 'also when another column changes');
is(sql(q{SELECT sfsync.resolve_conflict(id, 'source') FROM sfsync.conflict WHERE source_key = '{"id": 21}' AND resolution IS NULL}), 't', 'a deleted record for the row');
wait_for_sync($node, 'made anew');
holds(21, 'Site', 'row', 'it is made anew');
meet(sub { sql(q{UPDATE account SET site = NULL WHERE id = 6}) });
is(conflicts(6), 'Site "row"/null newest_wins superseded', 'a value that became equal ends a conflict');
sql(q{BEGIN; SELECT sfsync.resolve_conflict(id, 'source') FROM sfsync.conflict WHERE source_key = '{"id": 7}'; ROLLBACK});
is(conflicts(7), 'Site "row"/"newer" newest_wins open', 'a decision can be rolled back');

# Notifications: ids and counts, never values.
my $told = '';
my $listener = IPC::Run::start([ 'psql', '-X', '-A', '-t', '-d', $node->connstr('postgres'), '-f', '-' ], '<', \(my $ask = "LISTEN sfsync_conflict;\n"), '>', \$told, '2>&1');
poll_until(sub { $listener->pump_nb; $told =~ /LISTEN/ }, 'a session listens');
meet(sub { sql(q{UPDATE account SET site = 'confidential' WHERE id IN (40, 41)}); edit($_, { Site => 'secret' }, 60) foreach 40, 41 });
poll_until(sub { $ask .= "SELECT 1;\n"; $listener->pump_nb; $told =~ /sfsync_conflict/ });
$ask .= "\\q\n";
$listener->finish;
like($told, qr/"sfsync_conflict" with payload "\{"mapping":"account","ids":\[\d+,\d+\],"count":2\}"/, 'a notification');
unlike($told, qr/secret|confidential/, 'without values');

# More conflicts at once than a notification holds.
sql(q{CREATE TABLE lead (id integer PRIMARY KEY, last_name text NOT NULL, company text NOT NULL, title text, description text);
	SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete');
	INSERT INTO lead SELECT i, 'Many', 'Many', 'title', 'first' FROM generate_series(1, 1500) i});
wait_for_sync($node, 'many rows');
my $seconds = seconds_of(sub {
	meet(sub {
		sql(q{UPDATE lead SET title = 'row'});
		$sim->post('edit', { object => 'Lead', match => { LastName => 'Many' }, fields => { Title => 'edited' }, at => in_seconds(60), user => 'rep' });
	});
});
cmp_ok($seconds, '<', 50, 'what was passed over while paused does not wait for the next nap');
is(sql(q{SELECT count(*) FROM sfsync.conflict WHERE mapping = 'lead' AND resolution IS NULL}), '1500', '1,500 conflicts at once');
poll_query($node, q{SELECT DISTINCT salesforce_modified_by FROM sfsync.conflict WHERE mapping = 'lead'},
	'and who made them', expected => "$rep->{Id} ($rep->{Name})");

#
# Calls
#
$mark = meet(sub { sql(q{UPDATE lead SET description = 'call' WHERE id <= 400}) });
my @calls = $sim->requests($mark);
is(join(',', sort map { $_->{kind} } @calls), 'collections_retrieve,composite', '400 changes: one call reads, one writes');
$mark = meet(sub { sql(q{UPDATE lead SET description = 'again' WHERE id <= 400; UPDATE lead SET description = 'call' WHERE id <= 400}) });
@calls = $sim->requests($mark);
is(join(',', map { $_->{kind} } @calls), 'collections_retrieve', 'what is as it was is not written');
sql(q{SELECT sfsync.drop_mapping('lead', true)});

# The edit that lands between read and write
sub between
{
	my ($key, $kind, $change, $fields) = @_;

	$sim->clear_faults;
	$sim->fault(name => 'slow', match => { kind => $kind }, times => 1, action => { delay => 1.5 });
	sql($change);
	poll_until(sub { $sim->hits('slow') }, "$key: the write is on its way");
	edit($key, $fields, undef);
	wait_for_sync($node, "$key: settled");
	$sim->clear_faults;
	return;
}
between(42, 'collections_update', q{UPDATE account SET site = 'row' WHERE id = 42}, { Site => 'between', Fax => 'between' });
holds(42, 'Site', 'row', 'newest_wins: an edit between read and write of the very field is lost, as documented');
holds(42, 'Fax', 'between', 'but not that of another field');
sql(q{SELECT sfsync.alter_mapping('account', conflict_policy => 'strict')});
between(43, 'composite', q{UPDATE account SET site = 'row' WHERE id = 43}, { Site => 'between', Fax => 'between' });
holds(43, 'Site', 'between', 'strict: it stays');
is(conflicts(43), 'Site "row"/"between" strict open', 'as a conflict');
between(44, 'composite', q{UPDATE account SET site = 'row' WHERE id = 44}, { Fax => 'between' });
holds(44, 'Site', 'row', 'strict: an edit of another field delays the write');
holds(44, 'Fax', 'between', 'and stays');
is(conflicts(44), '', 'without a conflict');

# Edits in the very second of the read: equality passes the condition, so that second has to end first.
foreach my $round (1 .. 3)
{
	my $stop = time() + 0.7;
	my $n = 0;

	sql(qq{UPDATE account SET site = 'row $round' WHERE id = 45});
	edit(45, { Fax => 'hammer ' . $n++ }, undef) while time() < $stop;
	edit(45, { Fax => "last $round" }, undef);
	wait_for_sync($node, "hammer $round");
	holds(45, 'Fax', "last $round", 'strict: no edit is lost');
	holds(45, 'Site', "row $round", 'and ours is written');
}
# Somebody creates the record after it was looked for.
$sim->fault(name => 'slow', match => { kind => 'collections_create' }, times => 1, action => { delay => 1 });
sql(q{INSERT INTO account (id, name, site) VALUES (80, 'Row', 'row')});
poll_until(sub { $sim->hits('slow') }, 'the creation is on its way');
$sim->post('create', { object => 'Account', fields => { Name => 'Theirs', PG_Key__c => '80' }, at => in_seconds(5) });
wait_for_sync($node, 'created by both');
holds(80, 'Name', 'Theirs', 'strict: a creation does not overwrite');
holds(80, 'Site', 'row', 'what is empty is filled');
is(conflicts(80), 'Name "Row"/"Theirs" strict open', 'and the rest is a conflict');
sql(q{SELECT sfsync.alter_mapping('account', conflict_policy => 'newest_wins')});
$sim->clear_faults;

#
# Policies of single fields
#
sql(q{SELECT sfsync.map_field('account', 'Phone', 'phone', conflict_policy => 'source_wins');
	SELECT sfsync.map_field('account', 'Fax', 'fax', conflict_policy => 'fill_if_empty');
	SELECT sfsync.map_field('account', 'Loyalty_Tier__c', 'loyalty_tier', conflict_policy => 'create_only')});
sql(q{INSERT INTO account (id, name, fax, loyalty_tier) VALUES (90, 'Row', 'first', 'gold')});
wait_for_sync($node, 'policies of fields');
holds(90, 'Fax', 'first', 'fill_if_empty at creation');
holds(90, 'Loyalty_Tier__c', 'gold', 'create_only at creation');
meet(sub {
	edit(46, { Phone => 'person' }, 60);
	edit(47, { Fax => 'person' }, -60);
	sql(q{UPDATE account SET phone = 'row' WHERE id = 46; UPDATE account SET fax = 'row' WHERE id IN (47, 48, 49, 90);
		UPDATE account SET loyalty_tier = 'row' WHERE id IN (48, 90)});
	edit(49, { Fax => 'filled' }, -60);
	edit(49, { Fax => undef }, 60);
});
holds(46, 'Phone', 'row', 'source_wins of one field');
holds(47, 'Fax', 'person', 'fill_if_empty writes over nothing');
holds(90, 'Fax', 'first', 'not even over our own value');
holds(48, 'Fax', 'row', 'it fills what is empty');
holds(48, 'Loyalty_Tier__c', undef, 'create_only never changes a record');
holds(90, 'Loyalty_Tier__c', 'gold', 'not even one of ours');
is(conflicts(46) . conflicts(47) . conflicts(48) . conflicts(90), '', 'policies are no conflicts');

#
# Lookups are compared by the parent's Id
#
sql(q{UPDATE account SET parent_id = 1 WHERE id IN (50, 51)});
wait_for_sync($node, 'parents');
$ids = ids_of();
$mark = meet(sub {
	edit(50, { ParentId => $ids->{2} }, 60);
	edit(51, { ParentId => $ids->{2} }, -60);
	edit(52, { ParentId => $ids->{2} }, 60);
	sql(q{UPDATE account SET parent_id = 3 WHERE id IN (50, 51); UPDATE account SET parent_id = 2 WHERE id = 52});
});
holds(50, 'ParentId', $ids->{2}, 'a newer parent stays');
like(conflicts(50), qr/^ParentId "3"\/"$ids->{2}" newest_wins open$/, 'as a conflict');
holds(51, 'ParentId', $ids->{3}, 'an older one is replaced');
is(writes($mark, 52), 0, 'the same parent is not written');

#
# A clock that is wrong
#
foreach my $offset (3600, -3600)
{
	$sim->config(clock_offset => $offset);
	meet(sub { sql(q{UPDATE account SET site = 'row' || fax WHERE id < 3}) });
	meet(sub {
		sql(qq{UPDATE account SET site = 'row $offset' WHERE id IN (53, 54)});
		edit(53, { Site => 'newer' }, $offset + 30);
		edit(54, { Site => 'older' }, $offset - 30);
	});
	holds(53, 'Site', 'newer', "clock shifted by $offset s: a newer edit stays");
	holds(54, 'Site', "row $offset", 'an older one is replaced');
	is(sql(q{SELECT bool_and(abs(extract(epoch FROM event_at - now())) < 120) FROM sfsync.conflict WHERE source_key = '{"id": 53}'}), 't', 'event times are shown by our clock');
	is(sql("SELECT abs(extract(epoch FROM clock_skew) - $offset) < 3 FROM sfsync.server_status"), 't', 'the shift is known');
}
$sim->config(clock_offset => 0);
meet(sub { sql(q{UPDATE account SET fax = 'clock' WHERE id = 1}) });

#
# archive: an update, put back when the row returns
#
sql(q{SELECT sfsync.set_delete_policy('account', 'archive', '{"Archived__c": true, "Description": "archived", "Rating": "Cold"}')});
meet(sub { edit($_, { Description => 'before', Rating => 'Hot' }, -300) foreach 55 .. 58; sql(q{UPDATE account SET site = 'seen' WHERE id IN (55, 56, 57, 58)}) });
meet(sub {
	sql(q{DELETE FROM account WHERE id BETWEEN 55 AND 58});
	edit(56, { Description => 'after' }, 60);
});
holds(55, 'Archived__c', JSON::PP::true, 'archived');
holds(55, 'Description', 'archived', 'its values are set');
holds(56, 'Archived__c', JSON::PP::true, 'archived, too');
holds(56, 'Description', 'after', 'but a later edit of one of its fields stays');
is(conflicts(56), 'Description "archived"/"after" newest_wins open', 'as a conflict');
meet(sub { edit(57, { Rating => 'Warm' }, 60) });
sql(q{INSERT INTO account (id, name, site) SELECT i, 'Back ' || i, 'back' FROM generate_series(55, 57) i});
wait_for_sync($node, 'rows return');
holds(55, 'Archived__c', JSON::PP::false, 'put back');
holds(55, 'Description', 'before', 'with its value');
holds(55, 'Rating', 'Hot', 'and its rating');
holds(56, 'Description', 'after', 'what someone changed is left');
holds(57, 'Description', 'before', 'the rest is put back');
holds(57, 'Rating', 'Warm', 'but not what someone changed meanwhile');
is(sql(q{SELECT count(*) FROM sfsync.record WHERE key IN ('55', '56', '57') AND replaced IS NOT NULL}), '0', 'nothing is remembered of it any more');
meet(sub { edit(55, { Archived__c => JSON::PP::true }, -100); sql(q{UPDATE account SET site = 'again' WHERE id = 55}) });
holds(55, 'Archived__c', JSON::PP::true, 'later changes of the row put nothing back');

is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', 'no dead letters');
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal|could not be settled/, 'a clean log');
is(0 + $sim->stats->{same_record_overlap}, 0, 'no record was in two requests at once');
$node->stop;
done_testing();
