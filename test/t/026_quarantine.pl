# A field that goes and comes back: edits made meanwhile are weighed by when the row's column itself changed.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;
use Time::HiRes qw(time);

my $sim = simulator();
my $node = new_node('quarantine', conf => "fsync = off\nsfsync.schema_ttl = '3s'\nsfsync.history = 'all'\nsfsync.retry_base_delay = '300ms'\n");

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub title
{
	my ($action, $status) = @_;

	$sim->post('schema', { object => 'Contact', field => 'Title', action => $action });
	sql(q{SELECT sfsync.refresh_schema()});
	poll_query($node, "SELECT count(*) = 1 FROM sfsync.field_map WHERE column_name = 'title' AND status = '$status'", "$action: $status");
	return;
}

# A person's edit, and then a moment in which the clocks go on.
sub edit
{
	my ($id, $value) = @_;
	my $at = time() + 2;

	$sim->post('edit', { object => 'Contact', match => { PG_Key__c => "$id" }, fields => { Title => $value }, at => $at });
	poll_until(sub { time() > $at + 2 }, "$value is over");
	return;
}

connect_salesforce($node, $sim);
sql(q{CREATE TABLE contacts (id integer PRIMARY KEY, last_name text NOT NULL, phone text, title text);
	INSERT INTO contacts SELECT i, 'Contact ' || i, 'p' || i, 'title ' || i FROM generate_series(1, 9) i;
	SELECT sfsync.create_mapping('contacts', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'newest_wins')});
wait_for_sync($node, 'all is there');

# Its column changed before the edit, another column after it; and the other way round.
title('hide', 'quarantined');
sql(q{SELECT sfsync.pause(); UPDATE contacts SET title = 'from the table' WHERE id IN (1, 2)});
edit(1, 'by a rep');
edit(2, 'by a rep');
edit(3, 'by a rep');
sql(q{UPDATE contacts SET phone = 'later' WHERE id = 1; UPDATE contacts SET title = 'later' WHERE id = 2; SELECT sfsync.resume()});
wait_for_sync($node, 'without the field');
is($sim->record('Contact', '1')->{Phone}, 'later', 'other fields go on');

# Its return is cut short: what the backfill had begun with is no change of the rows.
$sim->fault(name => 'slow', match => { kind => 'collections_retrieve' }, times => 1, action => { hang => 2 });
title('show', 'mapped');
poll_until(sub { $sim->hits('slow') }, 'its backfill begins');
title('hide', 'quarantined');
wait_for_sync($node, 'without the field again');
title('show', 'mapped');
wait_for_sync($node, 'with it');
is($sim->record('Contact', '1')->{Title}, 'by a rep', 'an edit that is newer than the change of the column stays');
is($sim->record('Contact', '2')->{Title}, 'later', 'one that is older gives way');
is($sim->record('Contact', '3')->{Title}, 'by a rep', 'where the row did not change, the edit stays');
is($sim->record('Contact', '4')->{Title}, 'title 4', 'others are as they were');

# A row is deleted, but its record stays since someone edited it: what the field missed is over with the row.
title('hide', 'quarantined');
sql(q{SELECT sfsync.pause(); UPDATE contacts SET title = 'never sent' WHERE id IN (5, 6)});
edit(5, 'edited before the delete');
sql(q{SELECT sfsync.resume()});
wait_for_sync($node, 'the field missed two rows');
sql(q{SELECT sfsync.pause(); DELETE FROM contacts WHERE id = 5});
my $at = time() + 2;
$sim->post('edit', { object => 'Contact', match => { PG_Key__c => '5' }, fields => { Phone => 'by a rep' }, at => $at });
sql(q{SELECT sfsync.resume()});
wait_for_sync($node, 'a row goes');
is(sql(q{SELECT count(*) FROM sfsync.conflict WHERE field IS NULL AND resolution IS NULL}), '1', 'its record stays');
title('show', 'mapped');
wait_for_sync($node, 'the field is back');
is(sql(q{SELECT count(*) FROM sfsync.deferred}), '0', 'nothing is held of the row that is gone');
is($sim->record('Contact', '5')->{Title}, 'edited before the delete', 'nor is anything sent');
is(sql(q{SELECT count(*) FROM sfsync.conflict WHERE field IS NULL AND resolution IS NULL}), '1', 'the conflict stays open');
is($sim->record('Contact', '6')->{Title}, 'never sent', 'of one that is there it is');

# A field comes back while a change of the row that had to wait is under way: neither is lost.
foreach my $case ([ 7, 'goes through' ], [ 8, 'fails once more' ], [ 9, 'was a dead letter' ])
{
	my ($id, $what) = @$case;

	title('hide', 'quarantined');
	sql("UPDATE contacts SET title = NULL WHERE id = $id");
	wait_for_sync($node, "the field missed row $id");
	my $locked = { statusCode => 'UNABLE_TO_LOCK_ROW', message => 'unable to obtain exclusive access to this record' };
	$locked->{statusCode} = 'FIELD_CUSTOM_VALIDATION_EXCEPTION' if $what =~ /dead/;
	$sim->fault(name => 'locked', record => { object => 'Contact', error => $locked, times => $what =~ /fails/ ? 2 : 1 });
	$sim->fault(name => 'slow', match => { kind => 'collections_update' }, skip => 1, times => 1, action => { delay => 4 });
	sql("UPDATE contacts SET phone = 'late $id' WHERE id = $id");
	if ($what =~ /dead/)
	{
		poll_query($node, q{SELECT count(*) = 1 FROM sfsync.dead_letter WHERE status = 'open'}, 'there is a dead letter');
		sql("UPDATE contacts SET phone = 'later $id' WHERE id = $id");
	}
	poll_until(sub { $sim->hits('slow') }, "a change of row $id that had to wait is under way");
	title('show', 'mapped');
	wait_for_sync($node, "row $id: $what");
	is($sim->record('Contact', "$id")->{Phone}, ($what =~ /dead/ ? 'later' : 'late') . " $id", "a change that $what arrives");
	is($sim->record('Contact', "$id")->{Title}, undef, 'and so does what the field missed');
	$sim->clear_faults;
}
same_state($node, 'nothing is left on the way');
$node->stop;
done_testing();
