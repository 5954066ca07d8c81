# Whatever the network and Salesforce do: nothing is lost, nothing comes twice, and what can't go is shown.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone", site AS "Site" FROM account};
my $writes = [ 'collections_upsert', 'collections_update', 'collections_delete', 'upsert', 'update', 'delete', 'composite' ];
my $sim = simulator();
my $node = new_node('failures', conf => "sfsync.max_attempts = 4\nsfsync.request_timeout = '1s'\n");
my $inserted = 0;
my $id = 0;

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# Insert, update and delete some rows.
sub change
{
	my $first = $id + 1;

	$id += 8;
	$inserted += 8;
	sql("INSERT INTO account (id, name) SELECT i, 'new ' || i FROM generate_series($first, $id) i");
	sql("UPDATE account SET phone = 'p$first', site = nullif(id % 2, 0)::text WHERE id % 3 = 0");
	sql("DELETE FROM account WHERE id = (SELECT min(id) FROM account) AND id < $first");
	return;
}

sub in_step
{
	my ($name) = @_;

	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Account', $accounts, "$name: records equal the table");
	is($sim->created('Account'), $inserted, "$name: no record was created twice");
	return;
}

# Changes meet a fault; afterwards all is in step, and no dead letter was made.
sub survives
{
	my ($name, $action, %options) = @_;

	$sim->fault(name => 'fault', match => { kind => $options{kind} || $writes, %{ $options{match} || {} } },
		times => $options{times} || 3, action => $action);
	$options{before}->() if $options{before};
	change();
	poll_until(sub { $sim->hits('fault') >= ($options{hits} || 1) }, "$name: the fault is met");
	in_step($name);
	$sim->clear_faults;
	is(sql(q{SELECT coalesce(string_agg(error_code || ': ' || error_message, '; '), '') FROM sfsync.dead_letter WHERE status IN ('open', 'retrying')}),
		'', "$name: no dead letters");
	return;
}

sub dead_letter
{
	my ($columns, $key) = @_;
	return sql("SELECT $columns FROM sfsync.dead_letter WHERE external_id = '$key' ORDER BY id DESC LIMIT 1");
}

# How often two writes of one record were under way together.
sub overlap
{
	return 0 + $sim->stats->{same_record_overlap};
}

# What is told to listeners since the last time.
sub notifications
{
	my ($listener) = @_;
	my @payloads = $listener->query('SELECT 1') =~ /notification "sfsync_dead_letter" with payload "(.*)" received/g;

	return map { JSON::PP->new->decode($_) } @payloads;
}

$sim->config(keep_bodies => JSON::PP::true);
connect_salesforce($node, $sim);
account_table($node);
change();
in_step('at the start');

#
# Replies that are none
#
survives('503 with HTML', { status => 503, body => '<html><body>Down for maintenance</body></html>' });
survives('500 with nothing', { status => 500, body => '' });
survives('502 at login', { status => 502, body => '<html/>' }, kind => 'token', before => sub { $sim->post('expire_tokens', {}) });
my $mark = $sim->mark;
survives('Retry-After', { status => 503, body => '', headers => { 'Retry-After' => '1' } }, times => 1);
my ($sent_away, $next) = do
{
	my @requests = $sim->requests($mark);
	shift @requests while @requests && !$requests[0]->{fault};
	@requests;
};
cmp_ok($next->{at} - $sent_away->{done_at}, '>=', 0.95, 'Retry-After is honoured');
survives('too many requests at once', { status => 403,
		body => '[{"message": "ConcurrentRequests (Concurrent API Requests) Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]' });
survives('dropped before it was applied', { close => 'before' });
survives('dropped after it was applied', { close => 'after' });
is(overlap(), 0, 'so far two writes of one record were never in flight together');
# Given up and sent again while the simulator still holds the first request: its count of such pairs starts from there.
survives('hanging', { hang => 4 }, times => 1);
survives('hanging after it was applied', { hang => 4, apply => JSON::PP::true }, times => 1);
poll_until(sub { $sim->stats->{in_flight} == 0 }, 'nothing hangs any more');
my $hanging = overlap();
survives('garbage', { garbage => 'this is no JSON', apply => JSON::PP::true });
survives('JSON of the wrong kind', { garbage => '{"a": [1, 2, {}]}', apply => JSON::PP::true });
survives('a list of the wrong things', { garbage => '[null, 7, "x", []]', apply => JSON::PP::true });
survives('an empty list', { garbage => '[]', apply => JSON::PP::true });
survives('null', { garbage => 'null', apply => JSON::PP::true });
survives('nesting without end', { garbage => '[' x 100_000, apply => JSON::PP::true });
survives('truncated', { truncate => 25 });
survives('huge', { huge => 100 * 1024 * 1024 }, times => 1);
survives('one result too few', { results => 'short' });
survives('one result too many', { results => 'long' });
survives('results without ids', { results => 'missing_keys' });
survives('garbage at login', { garbage => '{"access_token": 5}' }, kind => 'token', before => sub { $sim->post('expire_tokens', {}) });

#
# Sessions
#
$mark = $sim->mark;
$sim->post('expire_tokens', {});
change();
in_step('the token expired');
is(scalar($sim->requests($mark, 'token')), 1, 'the token expired: one login');
$mark = $sim->mark;
sql(q{SELECT sfsync.pause()});
sql(q{UPDATE account SET name = name || '.'});
$sim->config(latency => 0.05);
sql(q{SELECT sfsync.resume()});
poll_until(sub { grep { $_->{kind} =~ /collections/ } $sim->requests($mark) }, 'a request is under way');
$sim->post('expire_tokens', {});
change();
in_step('the token expires midway');
$sim->config(latency => 0);
is(scalar($sim->requests($mark, 'token')), 1, 'the token expires midway: one login');
foreach my $time ('first', 'second')
{
	$mark = $sim->mark;
	$sim->post('expire_tokens', {});
	change();
	in_step("the token expires again, the $time time");
	is(scalar($sim->requests($mark, 'token')), 1, "the token expires again, the $time time: one login");
}
survives('401 twice', { status => 401, body => '[{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]' }, times => 2, hits => 2);

#
# The server is down for a while
#
$sim->fault(name => 'down', action => { status => 503, body => '<html>down</html>' });
change();
poll_query($node, q{SELECT state, detail IS NOT NULL FROM sfsync.status}, 'an outage shows as backing_off', expected => 'backing_off|t');
change();
poll_until(sub { $sim->hits('down') >= 12 }, 'it is tried more often than max_attempts');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', 'an outage fills no dead letters');
is(sql(q{SELECT coalesce(max(attempts), 0) FROM sfsync.deferred}), '0', 'and counts no attempts');
ok(sql(q{SELECT pending FROM sfsync.status}) > 0, 'changes wait');
is(sql(q{SELECT sfsync.wait_for_sync('100 ms')}), 'f', 'wait_for_sync says so');
$sim->clear_faults;
in_step('after the outage');
poll_query($node, q{SELECT state, detail FROM sfsync.status}, 'active again', expected => 'active|');

my $port = $sim->port;
is(overlap(), $hanging, 'but for what hung, two writes of one record were never in flight together');
$sim->stop;
change();
poll_query($node, q{SELECT state FROM sfsync.server_status}, 'nobody listens: backing_off', expected => 'backing_off');
sql(q{DELETE FROM account});
sql(q{SELECT sfsync.drop_mapping('account', discard_pending => true)});
$sim->start($port);
poll_until(sub { eval { $sim->get('ping') } }, 'the new org answers');
$sim->config(keep_bodies => JSON::PP::true);
$inserted = 0;
sql(q{SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
change();
in_step('a new org at the old address');

my $elsewhere = simulator();
survives('a redirect', { status => 302, body => '', headers => { Location => $elsewhere->url . '/services/data' } });
is(scalar($elsewhere->requests(0)), 0, 'a redirect is not followed');
$elsewhere->stop;

#
# Credentials
#
sql(q{ALTER USER MAPPING FOR PUBLIC SERVER crm OPTIONS (SET client_secret 'wrong')});
$sim->post('expire_tokens', {});
$mark = $sim->mark;
change();
poll_query($node, q{SELECT state FROM sfsync.status}, 'wrong credentials block', expected => 'blocked');
poll_until(sub { $sim->requests($mark, 'token') >= 3 }, 'they are tried again now and then');
is(scalar(grep { ($_->{status} // 0) == 200 } $sim->requests($mark)), 0, 'and nothing goes through');
like(sql(q{SELECT detail FROM sfsync.server_status}), qr/invalid_client/, 'with the reason');
unlike(sql(q{SELECT detail FROM sfsync.server_status}), qr/wrong/, 'without the secret');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'wrong credentials fill no dead letters');
sql(q{ALTER USER MAPPING FOR PUBLIC SERVER crm OPTIONS (SET client_secret 'sfsync-test-secret')});
in_step('after ALTER USER MAPPING');
$sim->config(api_disabled => JSON::PP::true);
my $records = $sim->count('Account');
change();
poll_query($node, q{SELECT state, detail ~ 'API_DISABLED_FOR_ORG' FROM sfsync.status}, 'a disabled API blocks', expected => 'blocked|t');
is($sim->count('Account'), $records, 'and nothing arrives');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'a disabled API fills no dead letters');
$sim->config(api_disabled => JSON::PP::false);
in_step('after the API is enabled again');

#
# The daily limit
#
$sim->config(api_limit => 1000, api_used => 900);
change();
poll_until(sub { change(); sql(q{SELECT state FROM sfsync.status}) eq 'throttled' }, 'at its share of the limit delivery is throttled');
poll_query($node, q{SELECT detail ~ '1000', retry_at > now(), api_limit FROM sfsync.server_status}, 'with the reason and the time of the next look', expected => 't|t|1000');
sql(q{ALTER SYSTEM SET sfsync.retry_max_delay = '10min'; SELECT pg_reload_conf()});

# changes, as a look that was still due by the old setting may have let all go that waited
poll_until(sub { change(); sql(q{SELECT retry_at > now() + interval '2 min' FROM sfsync.server_status}) eq 't' }, 'by default the next look is in minutes');
$mark = $sim->mark;
change();
is(sql(q{SELECT sfsync.wait_for_sync('500 ms')}), 'f', 'a throttled change waits');
is(scalar($sim->requests($mark)), 0, 'no call is made meanwhile');
sql(q{ALTER SYSTEM RESET sfsync.retry_max_delay; SELECT pg_reload_conf()});
sql(q{ALTER SERVER crm OPTIONS (ADD api_budget '100')});
in_step('a larger budget');
$sim->config(api_limit => 1000, api_used => 1000);
change();
poll_query($node, q{SELECT state FROM sfsync.status}, 'the limit itself throttles', expected => 'throttled');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'a limit fills no dead letters');
$sim->config(api_limit => 100000, api_used => 0);
my $pid = worker_pid($node);
sql("SELECT pg_terminate_backend($pid)");
in_step('room again, and a new worker');

#
# Records
#
my $lock = { statusCode => 'UNABLE_TO_LOCK_ROW', message => 'unable to obtain exclusive access to this record', fields => [] };
$sim->fault(name => 'lock', record => { object => 'Account', match => { Name => 'locked' }, error => $lock, times => 2 });
sql(q{INSERT INTO account (id, name) VALUES (900001, 'locked'), (900002, 'free')});
$inserted += 2;
in_step('UNABLE_TO_LOCK_ROW');
is($sim->hits('lock'), 2, 'is tried again');
$sim->fault(name => 'lock', record => { object => 'Account', match => { Name => 'locked for good' }, error => $lock });
sql(q{UPDATE account SET name = 'locked for good' WHERE id = 900001; UPDATE account SET name = 'free still' WHERE id = 900002});
wait_for_sync($node, 'locked for good: settled');
is(dead_letter(q{error_code, attempts, status}, '900001'), 'UNABLE_TO_LOCK_ROW|4|open', 'after max_attempts it is a dead letter');
is($sim->hits('lock'), 4, 'and was tried no more often');
is($sim->record('Account', '900002')->{Name}, 'free still', 'others go on');
$sim->clear_faults;
is(sql(q{SELECT count(*) FILTER (WHERE sfsync.retry(id)) FROM sfsync.dead_letter WHERE status = 'open' AND error_code = 'UNABLE_TO_LOCK_ROW'}), '1', 'retry of all that failed so');
in_step('retry');
is(dead_letter(q{status, resolved_at IS NOT NULL}, '900001'), 'resolved|t', 'a retried dead letter is resolved');

my %rule = (name => 'rule', record => { object => 'Account', match => { Name => 'Bad' },
		error => { statusCode => 'FIELD_CUSTOM_VALIDATION_EXCEPTION', message => 'Names must be good', fields => ['Name'] } });
$sim->fault(%rule);
my $before = sql('SELECT now()');
my $listener = session($node);
$listener->query('LISTEN sfsync_dead_letter');
sql(q{INSERT INTO account (id, name, phone) VALUES (900003, 'Bad', '1'), (900004, 'Bad', '1'), (900005, 'Good', '1')});
$inserted++;
sql(q{UPDATE account SET name = 'Bad' WHERE id = 900002});
wait_for_sync($node, 'a permanent error: settled');
is(dead_letter(q{mapping, source, source_key, operation, object, external_id, salesforce_id, error_code, error_message, error_fields, http_status, attempts, status, resolved_at, note}, '900003'),
	'account|account|{"id": 900003}|upsert|Account|900003||FIELD_CUSTOM_VALIDATION_EXCEPTION|Names must be good|{Name}|200|1|open||',
	'a permanent error is a dead letter at once');
is(dead_letter(qq{payload->>'Name', payload->>'Phone', payload->>'PG_Key__c', length(request_id) > 5, event_at > '$before', first_failed_at >= event_at, failed_at - first_failed_at < interval '1 s'}, '900003'),
	'Bad|1|900003|t|t|t|t', 'with all that is to be known of it');
is(dead_letter(q{operation, salesforce_id}, '900002'), 'update|' . $sim->record('Account', '900002')->{Id}, 'of an update too');
is(sql(q{SELECT dead_letters, pending FROM sfsync.status}), '3|0', 'status counts dead letters');
my @told;
poll_until(sub { push @told, notifications($listener); my %ids = map { $_ => 1 } map { @{ $_->{ids} } } @told; keys %ids == 3 }, 'listeners are told of all three');
is_deeply([ sort map { @{ $_->{ids} } } @told ], [ sort split /\n/, sql(q{SELECT id FROM sfsync.dead_letter WHERE status = 'open'}) ], 'by id');
foreach my $payload (@told)
{
	is_deeply([ sort keys %$payload ], [ 'count', 'error_code', 'ids', 'mapping' ], 'with these and no values');
	is("$payload->{mapping} $payload->{error_code} $payload->{count}", 'account FIELD_CUSTOM_VALIDATION_EXCEPTION ' . @{ $payload->{ids} }, 'mapping, code and count');
}
$listener->quit;
is($sim->record('Account', '900005')->{Name}, 'Good', 'its neighbours in the request go through');
my ($third, $fourth) = map { dead_letter('id', $_) } '900003', '900004';
my $failed = dead_letter('failed_at', '900003');
is(sql("SELECT sfsync.retry($third)"), 't', 'retry');
wait_for_sync($node, 'failing again: settled');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE external_id = '900003'}), '1', 'failing again makes no second dead letter');
is(dead_letter(qq{id, status, failed_at > '$failed'}, '900003'), "$third|open|t", 'but updates the first');
is(sql("SELECT sfsync.discard($fourth, 'a duplicate')"), 't', 'discard');
is(dead_letter(q{status, note, resolved_at IS NOT NULL}, '900004'), 'discarded|a duplicate|t', 'keeps the reason');
is(sql("SELECT sfsync.retry($fourth), sfsync.discard($fourth, 'again')"), 'f|f', 'what is discarded stays so');
is(sql("SELECT sfsync.retry(0), sfsync.discard(0, 'no such')"), 'f|f', 'a dead letter that does not exist');
foreach my $reason ('NULL', q{''}, q{'  '})
{
	my ($rc, $out, $err) = $node->psql('postgres', "SELECT sfsync.discard($third, $reason)");

	like($err, qr/reason/, "discard for $reason: a reason is asked for");
}
is(dead_letter('status, note', '900003'), 'open|', 'and nothing is discarded');

# A retry is given up as long as it isn't under way.
sub retries
{
	my ($name) = @_;

	is(sql("SELECT sfsync.retry($third)"), 't', "$name: tried again");
	is(sql("SELECT sfsync.retry($third)"), 'f', "$name: once");
	return;
}

sub given_up
{
	my ($name) = @_;

	is(sql("SELECT sfsync.discard($third, '$name')"), 't', "$name: discarded");
	is(sql("SELECT status, note FROM sfsync.dead_letter WHERE id = $third"), "discarded|$name", "$name: its dead letter");
	is(sql(q{SELECT count(*) FROM sfsync.deferred WHERE key = '900003'}), '0', "$name: nothing waits");
	return;
}

sub refused_anew
{
	my ($name) = @_;

	sql(q{UPDATE account SET site = coalesce(site, '') || 's' WHERE id = 900003});
	wait_for_sync($node, "$name: settled");
	$third = sql(q{SELECT id FROM sfsync.dead_letter WHERE external_id = '900003' AND status = 'open'});
	return;
}
sql(q{SELECT sfsync.pause('account')});
retries('paused');
given_up('paused');
sql(q{SELECT sfsync.resume('account')});
refused_anew('refused anew');
$sim->fault(name => 'down', match => { kind => 'collections_upsert' }, action => { status => 503, body => '' });
retries('at hand');
poll_until(sub { $sim->hits('down') > 0 }, 'at hand: the server is down');
poll_until(sub { sql("SELECT sfsync.discard($third, 'at hand')") eq 't' }, 'at hand: it can be discarded between two requests');
$sim->clear_faults;
$mark = $sim->mark;
sql(q{UPDATE account SET phone = '7' WHERE id = 900005});
wait_for_sync($node, 'at hand: the server is up again');
poll_query($node, q{SELECT state FROM sfsync.status}, 'at hand: it goes on', expected => 'active');
is(scalar(grep { ($_->{body} // '') =~ /900003/ } $sim->requests($mark)), 0, 'at hand: nothing of it is sent any more');
is($sim->record('Account', '900003'), undef, 'at hand: no record is made');
is(dead_letter('status, note', '900003'), 'discarded|at hand', 'at hand: it stays discarded');
$sim->fault(%rule);
refused_anew('refused once more');
$sim->fault(name => 'slow', match => { kind => 'collections_upsert' }, times => 1, action => { delay => 0.7 });
retries('in flight');
poll_query($node, q{SELECT in_flight FROM sfsync.status}, 'in flight: its request is', expected => '1');
is(sql("SELECT sfsync.discard($third, 'too late')"), 'f', 'in flight: the outcome decides');
wait_for_sync($node, 'in flight: settled');
is(sql("SELECT status, note FROM sfsync.dead_letter WHERE id = $third"), 'open|', 'in flight: it was refused again');
sql(q{UPDATE account SET name = 'Better' WHERE id IN (900003, 900004)});
sql(q{UPDATE account SET phone = '2' WHERE id = 900002});
$inserted += 2;
wait_for_sync($node, 'a later change: settled');
is(dead_letter('status', '900003'), 'resolved', 'a later change of the row heals its dead letter');
is(sql("SELECT sfsync.retry($third), sfsync.discard($third, 'late')"), 'f|f', 'what is resolved stays so');
is($sim->record('Account', '900003')->{Phone}, '1', 'with all that had failed');
is(dead_letter('status', '900002'), 'open', 'a later change that fails again does not');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE external_id = '900002' AND status = 'open'}), '1', 'and makes no second one');
sql(q{DELETE FROM account WHERE id = 900002});
in_step('a delete');
is(dead_letter('status', '900002'), 'resolved', 'a delete heals as well');
$sim->clear_faults;

# A request that Salesforce can't read, for the sake of one record.
$sim->fault(name => 'poison', match => { kind => $writes, object => 'Poison' },
	action => { status => 400, body => '[{"message": "Unexpected character", "errorCode": "JSON_PARSER_ERROR"}]' });
sql(q{SELECT sfsync.pause()});
sql(q{INSERT INTO account (id, name) SELECT i, CASE i WHEN 910033 THEN 'Poison' ELSE 'harmless' END FROM generate_series(910001, 910100) i});
sql(q{SELECT sfsync.resume()});
wait_for_sync($node, 'poison: settled');
$inserted += 99;
is(dead_letter('error_code, http_status, status', '910033'), 'JSON_PARSER_ERROR|400|open', 'a poisoned record is found');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '1', 'and only that');
is($sim->created('Account'), $inserted, 'all others went through');
cmp_ok($sim->hits('poison'), '<=', 10, 'by halving');
$sim->clear_faults;
sql(q{UPDATE account SET name = 'cured' WHERE id = 910033});
$inserted++;
in_step('cured');

# A field that is taken away concerns all records: the mapping is told, not each record.
$sim->post('schema', { object => 'Account', field => 'Site', action => 'hide' });
sql(q{UPDATE account SET site = 'hidden', phone = 'shown' WHERE id BETWEEN 910001 AND 910020});
poll_until(sub { my $record = $sim->record('Account', '910001'); ($record->{Phone} // '') eq 'shown' or sql(q{SELECT state FROM sfsync.status}) eq 'blocked' },
	'a hidden field: the others go on, or the mapping is blocked');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'a hidden field fills no dead letters');
$sim->post('schema', { object => 'Account', field => 'Site', action => 'show' });
sql(q{SELECT sfsync.refresh_schema()});
sql(q{UPDATE account SET site = 'shown' WHERE id BETWEEN 910001 AND 910020});
in_step('a field that is back');

#
# Ten minutes later: what was given up for lost may have been carried out meanwhile
#
sql(q{DELETE FROM sfsync.intent});
$sim->fault(name => 'lost', match => { kind => $writes }, times => 1, action => { hang => 3 });
sql(q{INSERT INTO account (id, name, site) SELECT 920000 + i, 'late ' || i, 'ours' FROM generate_series(1, 6) i});
$inserted += 6;
in_step('a reply that is lost');
is($sim->hits('lost'), 1, 'it was lost');
poll_query($node, q{SELECT count(*) = 1 FROM sfsync.intent WHERE state = 'unknown'}, 'what became of it is not known');
sql(q{DELETE FROM account WHERE id IN (920001, 920002); UPDATE account SET id = 920009 WHERE id = 920003});
in_step('rows that are gone by then, and one that has another key');
$sim->post('create', { object => 'Account', fields => { PG_Key__c => '920001', Name => 'late 1', Site => 'ours' }, user => 'integration' });
$inserted++;
$sim->post('edit', { object => 'Account', match => { PG_Key__c => '920004' }, fields => { Site => 'an older state' }, user => 'integration' });
my $worker = worker_pid($node);
sql(q{UPDATE sfsync.intent SET sent_at = sent_at - interval '11 minutes'});
sql("SELECT pg_terminate_backend($worker)");
poll_until(sub { my $new = worker_pid($node); $new && $new ne $worker }, 'the worker is back');
poll_query($node, q{SELECT count(*) = 0 FROM sfsync.intent}, 'its records were looked at, and nothing is in doubt any more');
in_step('a late write is made good');

#
# End
#
same_state($node, 'nothing is left on the way');
is(overlap(), 0, 'two writes of one record were never in flight together');
unlike(log_since($node), qr/PANIC|TRAP|terminated by signal/, 'no crash');
$node->stop;
done_testing();
