# Bulk API 2.0: what goes by it, and that neither crashes nor losses of it lose or double anything.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('bulk', conf => "sfsync.request_timeout = '60s'\n");
my $accounts =
  q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone", site AS "Site", annual_revenue AS "AnnualRevenue" FROM account};
my $invoices =
  q{SELECT id::text AS "PG_Key__c", name AS "Name", notes AS "Notes__c", quantity AS "Quantity__c" FROM invoice};
my $ordinary = 'collections_.*|composite';

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# How many requests of the kinds there were since a mark, one after the other.
sub requests_since
{
	my ($mark, @kinds) = @_;
	return join(' ', map { scalar(my @found = $sim->requests($mark, $_)) } @kinds);
}

# Records in ordinary requests.
sub records_since
{
	my ($mark) = @_;
	my $records = 0;

	$records += $_->{records} foreach $sim->requests($mark, $ordinary);
	return $records;
}

sub job_is
{
	my ($state, $name) = @_;

	poll_query($node, 'SELECT state FROM sfsync.bulk_job ORDER BY id DESC LIMIT 1', $name, expected => $state);
	return;
}

sub in_step
{
	my ($name, $object, $query) = @_;

	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, $object, $query, "$name: records equal the table");
	poll_query($node, 'SELECT count(*) || \' \' || (SELECT count(*) FROM sfsync.bulk_row) FROM sfsync.bulk_job',
		"$name: no job is left", expected => '0 0');
	is($sim->stats->{same_record_overlap}, 0, "$name: no two writes of a record at once");
	return;
}

#
# A backfill of 6,000 rows
#
connect_salesforce($node, $sim);
sql(q{
	CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL, phone text, site text, annual_revenue numeric);
	INSERT INTO account SELECT i, 'Name ' || i, CASE WHEN i % 3 > 0 THEN '+1 ' || i END, NULL, i * 1000000.0
	  FROM generate_series(1, 6000) i;
	UPDATE account SET name = E'with, a comma\nand "quotes"' WHERE id = 10;
	UPDATE account SET site = '#N/A' WHERE id = 11;
	UPDATE account SET name = 'refused' WHERE id = 12;
	UPDATE account SET name = 'locked' WHERE id = 13;
	UPDATE account SET site = E'two\r\nlines' WHERE id = 14;
});
$sim->fault(name => 'rule', record => { object => 'Account', match => { Name => 'refused' },
		error => { statusCode => 'FIELD_CUSTOM_VALIDATION_EXCEPTION', message => 'Not: so', fields => ['Name'] } });
$sim->fault(name => 'lock', record => { object => 'Account', match => { Name => 'locked' }, times => 1,
		error => { statusCode => 'UNABLE_TO_LOCK_ROW', message => 'unable to obtain exclusive access to this record' } });
sql(q{SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
in_step('backfill', 'Account', "$accounts WHERE id <> 12");
is(requests_since(0, qw(bulk_create bulk_upload bulk_close bulk_delete)), '1 1 1 1', 'one job');
is(records_since(0), 3, 'what can\'t be said in a CSV, and what was locked, goes by ordinary requests');
cmp_ok($sim->stats->{calls}, '<=', 20, 'few calls');
is(sql(q{SELECT error_code || ' ' || error_message || ' ' || error_fields::text || ' ' || operation || ' ' || (payload->>'Name')
		 || ' ' || (payload->>'AnnualRevenue') || ' ' || (source_key->>'id') FROM sfsync.dead_letter WHERE status = 'open'}),
	'FIELD_CUSTOM_VALIDATION_EXCEPTION Not: so {Name} upsert refused 12000000 12', 'a row that fails is a dead letter');
is(sql(q{SELECT synced || ' ' || dead_letters || ' ' || in_flight FROM sfsync.status}), '5999 1 0', 'all others are counted');
$sim->clear_faults;
sql(q{UPDATE account SET name = 'Name 12' WHERE id = 12});

#
# Changes while a job runs
#
wait_for_sync($node, 'healed');
my $mark = $sim->mark;
$sim->config(bulk_delay => 600);
sql(q{UPDATE account SET phone = 'p' || id});
job_is('closed', 'an update of all rows makes a job');
sql(q{INSERT INTO account (id, name) VALUES (9001, 'while a job runs')});
poll_until(sub { $sim->count('Account') == 6001 }, 'another row goes on by itself');
sql(q{UPDATE account SET name = 'later' WHERE id = 20; DELETE FROM account WHERE id = 21});
sql(q{INSERT INTO account (id, name) VALUES (9002, 'after them')});
poll_until(sub { $sim->count('Account') == 6002 }, 'and one more');
is(records_since($mark), 2, 'rows of the job wait for it');
is(sql('SELECT in_flight FROM sfsync.status'), '6000', 'rows in a job are in flight');
is(sql(q{SELECT sfsync.wait_for_sync('100 ms')}), 'f', 'and not settled');
$sim->config(bulk_delay => 0);
in_step('after the job', 'Account', $accounts);
is(requests_since($mark, 'bulk_create'), 1, 'it was one job');
cmp_ok(requests_since($mark, 'bulk_info'), '<', 15, 'looked at now and then');
sql(q{SELECT sfsync.set_delete_policy('account', 'delete', delete_guard => 0)});
$mark = $sim->mark;
sql(q{DELETE FROM account WHERE id > 10});
wait_for_sync($node, 'deletes');
is($sim->count('Account'), 10, 'deletes: the records are gone');
is(requests_since($mark, 'bulk_create', $ordinary), '1 0', 'by one job');

#
# Few rows go by ordinary requests
#
sql(q{
	ALTER SERVER crm OPTIONS (ADD bulk_threshold '500');
	CREATE TABLE invoice (id integer PRIMARY KEY, name text NOT NULL, notes text, quantity integer);
	SELECT sfsync.create_mapping('invoice', 'Invoice__c', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
	INSERT INTO invoice SELECT i, 'Invoice ' || i, 'a note', i FROM generate_series(1, 400) i;
});
in_step('few rows', 'Invoice__c', $invoices);
is(requests_since(0, 'bulk_create'), 3, 'no job for few rows');
sql(q{INSERT INTO invoice SELECT i, 'Invoice ' || i, 'a note', i FROM generate_series(401, 700) i});

#
# Lookups by the parent's key, and keys that are numbers, which results print in another form
#
wait_for_sync($node, 'more rows');
$mark = $sim->mark;
sql(q{
	CREATE TABLE contact (id integer PRIMARY KEY, last_name text NOT NULL, account_id integer REFERENCES account);
	SELECT sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
	CREATE TABLE numbered (id numeric PRIMARY KEY, name text NOT NULL);
	SELECT sfsync.create_mapping('numbered', 'Account', 'Ext_Num__c', 'ignore', conflict_policy => 'source_wins');
	INSERT INTO contact SELECT i, 'Contact ' || i, nullif(i % 11, 0) FROM generate_series(1, 600) i;
	INSERT INTO numbered SELECT 10000000 + i, 'Numbered ' || i FROM generate_series(1, 600) i;
});
my $parents = sub {
	my %account = map { $_->{Id} => $_->{PG_Key__c} } @{ $sim->records('Account') };
	return join(',', map { "$_->{PG_Key__c}:" . (defined $_->{AccountId} ? $account{ $_->{AccountId} } : '') }
		sort { $a->{PG_Key__c} <=> $b->{PG_Key__c} } @{ $sim->records('Contact') });
};
my $expected = q{SELECT string_agg(id || ':' || coalesce(account_id::text, ''), ',' ORDER BY id) FROM contact};

wait_for_sync($node, 'lookups and numbers');
is($parents->(), sql($expected), 'lookups are filled by the parent\'s key');
is(sql(q{SELECT synced || ' ' || dead_letters FROM sfsync.status WHERE mapping = 'numbered'}), '600 0', 'results are told apart by numbers, too');
sql(q{UPDATE contact SET account_id = CASE WHEN id % 2 = 0 THEN 1 + id % 10 END});
wait_for_sync($node, 'other parents, and none');
is($parents->(), sql($expected), 'lookups change, and are cleared');
is(requests_since($mark, 'bulk_create') . ' ' . records_since($mark), '3 0', 'all by bulk jobs');

#
# Crashes.  A request hangs, carried out or not; the worker is killed; then it has to come to the same end.
#
sub crash
{
	my ($name, $kind, $apply) = @_;
	my $before = $sim->mark;

	count_lines($node);
	my $pid = worker_pid($node);
	$sim->clear_faults;
	$sim->fault(name => 'hang', match => { kind => $kind }, times => 1, action => { hang => 20, apply => $apply ? \1 : \0 });
	sql(qq{UPDATE invoice SET notes = '$name' WHERE id <= 600});
	poll_until(sub { $sim->hits('hang') > 0 }, "$name: a request hangs");
	kill 'KILL', $pid;
	poll_until(sub { my $now = eval { worker_pid($node) }; $now && $now ne $pid }, "$name: another worker comes");
	in_step($name, 'Invoice__c', $invoices);
	return $before;
}

wait_for_sync($node, 'before crashes');
$mark = crash('at creation', 'bulk_create', 1);
is(requests_since($mark, qw(bulk_create bulk_close)), '2 1', 'at creation: another job is made');
foreach my $applied (0, 1)
{
	my $name = 'at an upload that ' . ($applied ? 'came' : 'is lost');

	$mark = crash($name, 'bulk_upload', $applied);
	is(requests_since($mark, qw(bulk_create bulk_abort bulk_delete bulk_close)), '2 1 2 1',
		"$name: the job is aborted and deleted, another one made");
	is(records_since($mark), 0, "$name: by no other way");
}
$mark = crash('at a close that is lost', 'bulk_close', 0);
is(requests_since($mark, qw(bulk_create bulk_upload bulk_close)), '1 1 2', 'at a close that is lost: closed again');
is(records_since($mark), 0, 'at a close that is lost: no row is sent twice');
$mark = crash('at a close that came', 'bulk_close', 1);
is(requests_since($mark, qw(bulk_create bulk_upload bulk_close)), '1 1 1', 'at a close that came: the job is found again');
is(records_since($mark), 0, 'at a close that came: no row is sent twice');
$mark = crash('at results', 'bulk_results', 1);
is(requests_since($mark, qw(bulk_create bulk_results)), '1 2', 'at results: they are read again');
is(records_since($mark), 0, 'at results: no row is sent twice');
$mark = crash('at the end', 'bulk_delete', 0);
is(requests_since($mark, qw(bulk_create bulk_delete)), '1 2', 'at the end: deleted again');

$sim->config(bulk_delay => 600);
$mark = $sim->mark;
sql(q{UPDATE invoice SET notes = 'running' WHERE id <= 600});
job_is('closed', 'a job runs');
$node->stop('immediate');
$node->start;
poll_until(sub { requests_since($mark, 'bulk_info') > 0 }, 'after a restart it is looked at again');
is(sql(q{SELECT in_flight FROM sfsync.status WHERE mapping = 'invoice'}), '600', 'its rows are in flight');
sql(q{UPDATE invoice SET notes = 'newer' WHERE id = 30});
$sim->config(bulk_delay => 0);
in_step('a restart while it runs', 'Invoice__c', $invoices);
is(requests_since($mark, 'bulk_create'), 1, 'there was one job');
is(records_since($mark), 1, 'and one newer change');

# A backfill, too, goes on where it was.
$sim->config(bulk_delay => 600);
$mark = $sim->mark;
sql(q{SELECT sfsync.backfill('invoice')});
job_is('closed', 'a backfill makes a job');
$node->stop('immediate');
$node->start;
poll_until(sub { requests_since($mark, 'bulk_info') > 0 }, 'after a restart it is looked at again');
$sim->config(bulk_delay => 0);
in_step('a restart during a backfill', 'Invoice__c', $invoices);
is(requests_since($mark, 'bulk_create') . ' ' . records_since($mark), '1 0', 'a restart during a backfill: nothing is sent twice');
poll_query($node, q{SELECT state || ' ' || rows_done FROM sfsync.backfill_progress ORDER BY id DESC LIMIT 1},
	'a restart during a backfill: it is done', expected => 'done 700');

# A live change is not taken into the jobs of a backfill.
$mark = $sim->mark;
sql(q{SELECT sfsync.pause('invoice'); SELECT sfsync.backfill('invoice'); UPDATE invoice SET notes = 'live' WHERE id = 40});
sql(q{SELECT sfsync.resume('invoice')});
in_step('a live change beside a backfill', 'Invoice__c', $invoices);
is(requests_since($mark, 'bulk_create') . ' ' . records_since($mark), '1 1', 'goes by itself');

#
# Requests without a reply, and servers in trouble: look again
#
$sim->fault(name => 'upload', match => { kind => 'bulk_upload' }, times => 1, action => { close => 'after' });
$sim->fault(name => 'info', match => { kind => 'bulk_info' }, times => 2, action => { status => 503 });
$sim->fault(name => 'close', match => { kind => 'bulk_close' }, times => 1, action => { close => 'after' });
$sim->fault(name => 'results', match => { kind => 'bulk_results' }, times => 1, action => { garbage => "sf__Id\nx,y\n" });
$mark = $sim->mark;
sql(q{UPDATE invoice SET notes = 'troubled' WHERE id <= 600});
in_step('trouble', 'Invoice__c', $invoices);
is(join(' ', map { $sim->hits($_) } qw(upload info close results)), '1 2 1 1', 'there was trouble');
is(requests_since($mark, qw(bulk_create bulk_abort bulk_delete)), '2 1 2',
	'an upload without a reply makes another job, the rest does not');
is(records_since($mark), 0, 'and nothing goes another way');
$sim->clear_faults;
$sim->post('expire_tokens');
sql(q{UPDATE invoice SET notes = 'logged in again' WHERE id <= 600});
in_step('a new session', 'Invoice__c', $invoices);

#
# Jobs that end early
#
$sim->config(bulk_fail_after => 2);
$mark = $sim->mark;
sql(q{UPDATE invoice SET notes = 'half'});
poll_until(sub { requests_since($mark, 'bulk_results') > 0 }, 'a job fails half-way');
$sim->config(bulk_fail_after => undef);
in_step('half a job', 'Invoice__c', $invoices);
is(records_since($mark), 300, 'half a job: the rest is sent again');
$mark = $sim->mark;
$sim->fault(name => 'quota', match => { kind => 'bulk_create' }, times => 1,
	action => { status => 400, body => [ { errorCode => 'EXCEEDEDQUOTA', message => 'ApiBatchItems Limit exceeded.' } ] });
sql(q{UPDATE invoice SET notes = 'quota' WHERE id <= 600});
in_step('a refused job', 'Invoice__c', $invoices);
is(requests_since($mark, 'bulk_create') . ' ' . records_since($mark), '1 600', 'a refused job: its rows go by ordinary requests');
$sim->clear_faults;
$sim->post('schema', { object => 'Invoice__c', field => 'Notes__c', action => 'hide' });
sql(q{UPDATE invoice SET notes = 'hidden', quantity = 7 WHERE id <= 600});
wait_for_sync($node, 'a field that is hidden: settled');
is(sql(q{SELECT status FROM sfsync.field_map WHERE mapping = 'invoice' AND column_name = 'notes'}),
	'quarantined', 'a field that is hidden is known to be, after a job failed for it');
is(0 + $sim->record('Invoice__c', '600')->{Quantity__c}, 7, 'the others go on');

#
# Hard deletes go by no other way
#
$sim->post('schema', { object => 'Invoice__c', field => 'Notes__c', action => 'show' });
sql(q{SELECT sfsync.refresh_schema('crm')});
poll_until(sub { $sim->record('Invoice__c', '1')->{Notes__c} eq 'hidden' }, 'until it is back');
in_step('a field that is back', 'Invoice__c', $invoices);
sql(q{SELECT sfsync.set_delete_policy('invoice', 'hard_delete', delete_guard => 0)});
$mark = $sim->mark;
sql(q{DELETE FROM invoice WHERE id <= 3});
poll_query($node, q{SELECT bool_and(reason LIKE 'hard deletes are blocked: FEATURENOTENABLED: %') FROM sfsync.deferred}, 'without the permission they wait, with the reason');
poll_until(sub { requests_since($mark, 'bulk_create') > 1 }, 'and are tried again');
is($sim->count('Invoice__c') . ' ' . records_since($mark), '700 0', 'the records are still there, and no softer delete was tried');
$sim->config(bulk_hard_delete => \1);
wait_for_sync($node, 'with the permission');
my $count = $sim->get('count?object=Invoice__c');
is("$count->{count} $count->{deleted}", '697 0', 'with the permission they go, past the recycle bin');
sql(q{DELETE FROM invoice WHERE id IN (4, 5)});
poll_query($node, q{SELECT count(*) || ' ' || bool_and(reason LIKE 'hard deletes go together%' AND due_at > now() + '4 min') FROM sfsync.deferred},
	'the next few wait for company', expected => '2 true');
sql(q{DELETE FROM invoice WHERE id BETWEEN 10 AND 620});
poll_until(sub { $sim->count('Invoice__c') == 697 - 611 }, 'many do not wait');
is(records_since($mark), 0, 'all by bulk jobs');

#
# Under newest_wins what is made anew goes by bulk, and can't overwrite anyone
#
sql(q{
	CREATE TABLE lead (id integer PRIMARY KEY, last_name text NOT NULL, company text NOT NULL, title text);
	SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete', conflict_policy => 'newest_wins');
});
my @fields = (LastName => 'Rep', Company => 'Acme', Title => 'by the rep');
$sim->post('create', { object => 'Lead', fields => { @fields, PG_Key__c => "$_" }, at => time() - 3600 }) foreach 1 .. 5;
$sim->config(bulk_delay => 600);
$mark = $sim->mark;
sql(q{INSERT INTO lead SELECT i, 'Lead ' || i, 'Acme', 'from the table' FROM generate_series(1, 700) i});
poll_query($node, q{SELECT operation || ' ' || rows || ' ' || state FROM sfsync.bulk_job WHERE object = 'Lead'}, 'those that are not there make a job',
	expected => 'insert 695 closed');
poll_until(sub { $sim->record('Lead', '3')->{Title} eq 'from the table' }, 'those that are there go on by themselves');
$sim->post('create', { object => 'Lead', fields => { @fields, PG_Key__c => '77' }, at => time() + 5 });
$sim->config(bulk_delay => 0);
poll_query($node, q{SELECT sfsync.wait_for_sync('20 s', 'lead')}, 'newest_wins: settled');
is($sim->record('Lead', '77')->{Title}, 'by the rep', 'a record that a person made meanwhile stays as it is');
is(sql(q{SELECT string_agg(field, ',' ORDER BY field) FROM sfsync.conflict WHERE mapping = 'lead' AND source_key->>'id' = '77'}),
	'LastName,Title', 'and is a conflict');
is($sim->count('Lead') . ' ' . sql(q{SELECT count(*) FROM sfsync.record WHERE mapping = (SELECT id FROM sfsync.mapping WHERE name = 'lead') AND memory IS NOT NULL}),
	'700 700', 'all are there, and what was written is remembered');
$sim->post('edit', { object => 'Lead', match => { PG_Key__c => '500' }, fields => { Title => 'edited' }, at => time() - 3600 });
sql(q{UPDATE lead SET company = 'Other' WHERE id = 500});
poll_query($node, q{SELECT sfsync.wait_for_sync('20 s', 'lead')}, 'an edit after it: settled');
is(join(' ', @{ $sim->record('Lead', '500') }{qw(Title Company)}), 'edited Other', 'field by field, as after any other write');

# What is dropped with its mapping is ended.
$mark = $sim->mark;
$sim->config(bulk_delay => 600);
sql(q{UPDATE account SET phone = 'dropped'; INSERT INTO account SELECT i, 'dropped' FROM generate_series(20001, 20600) i});
poll_query($node, q{SELECT count(*) FROM sfsync.bulk_job WHERE state = 'closed'}, 'a job of a mapping', expected => '1');
sql(q{DROP TABLE contact; SELECT sfsync.drop_mapping('contact', true), sfsync.drop_mapping('account', true)});
poll_until(sub { requests_since($mark, qw(bulk_abort bulk_delete)) eq '1 1' }, 'that is dropped: it is aborted and deleted');
is($sim->count('Account'), 610, 'before it ran');

# A job from before a crash remembers, too.
count_lines($node);
$sim->config(bulk_delay => 600);
sql(q{INSERT INTO lead SELECT i, 'Lead ' || i, 'Acme', 'before a crash' FROM generate_series(1001, 1600) i});
poll_query($node, q{SELECT count(*) FROM sfsync.bulk_job WHERE state = 'closed'}, 'another job', expected => '1');
$node->stop('immediate');
$node->start;
sql(q{UPDATE lead SET title = 'changed while it ran' WHERE id = 1001});
$sim->config(bulk_delay => 0);
poll_query($node, q{SELECT sfsync.wait_for_sync('20 s', 'lead')}, 'a crash under newest_wins: settled');
is($sim->record('Lead', '1001')->{Title}, 'changed while it ran', 'what the job wrote is known to be ours');
is(sql(q{SELECT count(*) FROM sfsync.conflict WHERE resolution IS NULL AND source_key->>'id' <> '77'}), '0', 'and no conflict');
is($sim->stats->{same_record_overlap}, 0, 'no two writes of a record at once');

done_testing();
