# Limits of the org, an org that is slow, ailing or down, records that make it stumble, backfills: the calls are few,
# nothing is lost, nobody is blamed for an outage.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use List::Util qw(max min sum0);
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone" FROM account};
my $writes = [ 'collections_upsert', 'collections_update', 'collections_delete', 'upsert', 'update', 'delete', 'composite' ];
my $writing = join('|', @$writes);
my $sim = simulator();
my $node = new_node('limits', conf => "sfsync.max_attempts = 3\nsfsync.request_timeout = '1s'\n");

sub sql
{
	my ($statement, $database) = @_;
	return $node->safe_psql($database || 'postgres', $statement);
}

# Settings, as of a reload.
sub setting
{
	my (%settings) = @_;

	sql("ALTER SYSTEM SET sfsync.$_ = '$settings{$_}'") foreach sort keys %settings;
	sql('SELECT pg_reload_conf()');
	poll_query($node, "SELECT current_setting('sfsync.$_')", undef, expected => $settings{$_})
	  foreach sort keys %settings;
	return;
}

sub in_step
{
	my ($name) = @_;

	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Account', $accounts, "$name: records equal the table");
	is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status IN ('open', 'retrying')}), '0', "$name: no dead letters");
	return;
}

sub state_is
{
	my ($state, $name, %options) = @_;
	return poll_query($node, q{SELECT state FROM sfsync.server_status WHERE server = 'crm'}, $name, expected => $state, %options);
}

sub rows
{
	my ($first, $last, $name) = @_;
	sql("INSERT INTO account (id, name) SELECT i, '$name' FROM generate_series($first, $last) i");
	return;
}

# Seconds from the end of each request to the start of the next.
sub pauses
{
	my @requests = @_;
	return map { $requests[$_]->{at} - ($requests[ $_ - 1 ]->{done_at} // $requests[ $_ - 1 ]->{at}) } 1 .. $#requests;
}

sub rounded { return join(' ', map { sprintf('%.2f', $_) } @_) }

#
# At the start
#
$sim->config(keep_bodies => JSON::PP::true, api_limit => 1000, api_used => 100, per_app_usage => 900);
connect_salesforce($node, $sim);
account_table($node);
rows(1, 10, 'start');
in_step('at the start');
is(join(' ', map { $_->{kind} } ($sim->requests(0))[ 0 .. 2 ]), 'token limits describe', 'usage is asked for before anything else');
is(sql(q{SELECT state, detail, retry_at, api_limit, api_budget, api_used BETWEEN 100 AND 110, calls > 2, batch_size, concurrency FROM sfsync.server_status}),
	'active|||1000|80|t|t|1000|4', 'server_status');
$sim->fault(name => 'limits', match => { kind => 'limits' },
	action => { status => 403, body => '[{"message": "no", "errorCode": "INSUFFICIENT_ACCESS"}]' });
sql(q{ALTER SERVER crm OPTIONS (ADD max_concurrent_requests '3')});
rows(11, 20, 'start');
in_step('where limits may not be asked for');
is($sim->hits('limits'), 1, 'it was tried once');
$sim->clear_faults;
sql(q{ALTER SERVER crm OPTIONS (SET max_concurrent_requests '4')});

#
# Near the budget, and at it
#
setting(retry_max_delay => '1s');
$sim->config(api_used => 700);
my $mark = $sim->mark;
foreach my $i (1 .. 60)
{
	sql("UPDATE account SET phone = '$i' WHERE id = " . (1 + $i % 20));
}
poll_query($node, q{SELECT state || ': ' || (detail ~ 'spread over a day')::text FROM sfsync.server_status}, 'near the budget calls are spread', expected => 'active: true');
in_step('near the budget');
my @calls = $sim->requests($mark, $writing);
my @pauses = pauses(@calls);
note('calls: ' . @calls . ', pauses: ' . rounded(@pauses));
cmp_ok(scalar(@calls), '<=', 20, 'so that 60 changes need few of them');
cmp_ok(max(@pauses), '>=', 0.9, 'with pauses');

setting(retry_max_delay => '300ms');
$sim->config(api_used => 800);
$mark = $sim->mark;
sql(q{UPDATE account SET phone = 'over'});
state_is('throttled', 'at the budget delivery stops');
like(sql(q{SELECT detail FROM sfsync.server_status}), qr/80\d of the org's 1000 daily API calls are used; api_budget is 80 percent/, 'with the reason');
is(sql(q{SELECT state FROM sfsync.status}), 'throttled', 'status says so, too');
poll_until(sub { sql(q{UPDATE account SET phone = random()::text}); scalar($sim->requests($mark)) >= 11 }, 'usage is looked at again and again');
@calls = $sim->requests($mark);
@pauses = pauses(@calls[ 1 .. $#calls ]);
note('pauses: ' . rounded(@pauses));
cmp_ok(min(@pauses), '>=', 0.14, 'not too often');
cmp_ok(max(@pauses) - min(@pauses), '>', 0.05, 'and with jitter');
is(scalar(grep { $_->{status} != 200 } @calls), 0, 'the limit itself was not met');

# A day later the calls have left the window.
$sim->config(clock_offset => 86400 + 120);
sql(q{UPDATE account SET phone = 'a day later'});
in_step('a day later');
state_is('active', 'active again');
cmp_ok(sql(q{SELECT api_used FROM sfsync.server_status}), '<', 30, 'usage has fallen');

# Others use up everything: Salesforce refuses.
sql(q{ALTER SERVER crm OPTIONS (ADD api_budget '100')});
rows(21, 30, 'all');
in_step('a budget of all calls');
$sim->config(api_used => 1000);
$mark = $sim->mark;
rows(31, 40, 'refused');
state_is('throttled', 'the daily limit');
poll_until(sub { scalar(grep { $_->{status} == 403 } $sim->requests($mark)) >= 4 }, 'is tried again');
@calls = $sim->requests($mark);
cmp_ok(min(pauses(@calls)), '>=', 0.14, 'not too often');
$sim->config(api_used => 100);
in_step('room again');
sql(q{ALTER SERVER crm OPTIONS (DROP api_budget)});

# The app has an allowance of its own.
$sim->config(per_app_usage => 1);
rows(41, 42, 'app');
poll_query($node, q{SELECT state || ': ' || (detail ~ 'of the 1 daily API calls of the connected app')::text FROM sfsync.server_status},
	'the allowance of the app counts', expected => 'throttled: true');
rows(43, 44, 'app');
$sim->config(per_app_usage => undef, api_limit => 100000, api_used => 0);
in_step('without such an allowance');

# Two databases share the org, with different budgets.
$node->safe_psql('postgres', 'CREATE DATABASE second');
connect_salesforce($node, $sim, database => 'second', options => "api_budget '40'");
$node->safe_psql('second', q{CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text);
	SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
	INSERT INTO lead VALUES (1, 'One', 'x')});
wait_for_sync($node, 'the second database', database => 'second');
$sim->config(api_limit => 1000, api_used => 450);
rows(45, 45, 'first');
sql(q{INSERT INTO lead VALUES (2, 'Two', 'x')}, 'second');
poll_query($node, q{SELECT state FROM sfsync.server_status}, 'the smaller budget stops the second database', database => 'second', expected => 'throttled');
in_step('the larger one lets the first go on');
is(sql(q{SELECT api_budget || ' ' || (api_used >= 450)::text FROM sfsync.server_status}, 'second'), '40 true', 'both see what all use');
$sim->config(api_limit => 100000, api_used => 0);
wait_for_sync($node, 'the second goes on when usage has fallen', database => 'second');
is($sim->count('Lead'), 2, 'with what was waiting');
$node->safe_psql('second', 'DROP EXTENSION sfsync CASCADE');

#
# Requests at once
#
$sim->fault(name => 'concurrent', match => { kind => $writes }, times => 1, action => { status => 403, headers => { 'Retry-After' => '1' },
		body => '[{"message": "ConcurrentRequests (Concurrent API Requests) Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]' });
$mark = $sim->mark;
rows(46, 50, 'concurrent');
state_is('throttled', 'the limit of concurrent requests');
in_step('after it');
@calls = $sim->requests($mark, $writing);
cmp_ok($calls[1]->{at} - $calls[0]->{done_at}, '>=', 0.95, 'Retry-After is honoured');
cmp_ok(sql(q{SELECT concurrency FROM sfsync.server_status}), '<=', 2, 'fewer at once');
state_is('active', 'active again');
$sim->clear_faults;

# Where it is told how long to wait, that is how long: of any limit, whatever our own wait would be.  Else a limit of
# the day is looked at again in minutes, any other in seconds, as the text says or, if it doesn't, the usage.
sub limit_reply
{
	my ($status, $text, %headers) = @_;
	return { status => $status, headers => \%headers,
		body => defined $text ? qq([{"message": "$text", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]) : '' };
}

setting(retry_max_delay => '10min');
my $next_id = 51;
foreach my $case (
	[ 'the daily limit with Retry-After', limit_reply(403, 'TotalRequests Limit exceeded.', 'Retry-After' => '1') ],
	[ 'an unknown limit with Retry-After', limit_reply(403, 'too many requests', 'Retry-After' => '1') ],
	[ 'status 429 with Retry-After', limit_reply(429, 'too many requests', 'Retry-After' => '1') ],
	[ 'status 429 with another code', { status => 429, headers => { 'Retry-After' => '1' }, body => '[{"message": "no", "errorCode": "TOO_MANY"}]' } ],
	[ 'status 429 with nothing', { status => 429, headers => { 'Retry-After' => '1' }, body => '' } ],
	[ 'status 429', limit_reply(429, undef) ],
	[ 'an unknown limit', limit_reply(403, 'Limite erreicht') ])
{
	my ($name, $action) = @$case;

	$sim->fault(name => 'limit', match => { kind => $writes }, times => 1, action => $action);
	$mark = $sim->mark;
	rows($next_id, $next_id, 'limit');
	$next_id++;
	state_is('throttled', $name) if $action->{headers}->{'Retry-After'};
	in_step($name);
	@calls = $sim->requests($mark);
	my ($refused) = grep { $calls[$_]->{fault} } 0 .. $#calls;
	my $pause = $calls[ $refused + 1 ]->{at} - $calls[$refused]->{done_at};
	note(sprintf('%s: waited for %.2f s', $name, $pause));
	cmp_ok($pause, '>=', $action->{headers}->{'Retry-After'} ? 0.95 : 0.04, "$name: no sooner");
	cmp_ok($pause, '<=', 10, "$name: nor much later");
	state_is('active', "$name: active again");
	$sim->clear_faults;
}
$sim->config(api_used => 100000);
$sim->fault(name => 'limit', action => limit_reply(403, 'TotalRequests Limit exceeded.', 'Retry-After' => '1'));
rows($next_id, $next_id, 'limit');
$next_id++;
poll_until(sub { $sim->hits('limit') >= 2 }, 'all used up, with Retry-After: it is looked at again by then', 10);
$sim->clear_faults;
$sim->config(api_used => 0);
in_step('room again after Retry-After');
my $long_wait = q{SELECT state || ' ' || (retry_at > now() + interval '2 min')::text FROM sfsync.server_status};
foreach my $case ([ 'the daily limit', 0, 'TotalRequests Limit exceeded.' ], [ 'an unknown limit, all used up', 100000, 'Limite erreicht' ])
{
	my ($name, $used, $text) = @$case;

	$sim->config(api_used => $used);
	$sim->fault(name => 'limit', action => limit_reply(403, $text));
	rows($next_id, $next_id, 'limit');
	$next_id++;
	poll_query($node, $long_wait, "$name: minutes", expected => 'throttled true');
	is($sim->hits('limit'), 1, "$name: one request");
	$sim->clear_faults;
	$sim->config(api_used => 0);
	sql('SELECT pg_terminate_backend(' . worker_pid($node) . ')');
	in_step("$name: a new worker");
}

setting(retry_max_delay => '300ms');

#
# A version of the API that the org doesn't have
#
setting(retry_max_delay => '10min');
my $blocked_version = q{SELECT state || ': ' || detail FROM sfsync.server_status};
my $row = 5000;
foreach my $case (
	[ 'an unknown version', '99.0', undef, qr/^blocked: the org has no API version 99\.0; its newest is 68\.0: set the server's option api_version to/ ],
	[ 'a retired version',
		'66.0',
		{ match => { path => '/services/data/v66.0/' }, action => { status => 410, body => '[{"errorCode": "UNSUPPORTED_API_VERSION", "message": "retired"}]' } },
		qr/^blocked: the org has no API version 66\.0 \(HTTP status 410: UNSUPPORTED_API_VERSION: retired\): set the server's option api_version to/ ],
	[ 'a retired version, without a body',
		'66.0',
		{ match => { path => '/services/data/v66.0/' }, action => { status => 410, body => '' } },
		qr/^blocked: the org has no API version 66\.0 \(HTTP status 410/ ])
{
	my ($name, $version, $fault, $detail) = @$case;

	# with metadata at hand, and without
	foreach my $table ('account', 'lead')
	{
		sql(qq{ALTER SERVER crm OPTIONS (ADD api_version '$version')});
		$sim->fault(name => 'version', %$fault) if $fault;
		$mark = $sim->mark;
		rows($row, $row, $name);
		sql(qq{CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text);
			INSERT INTO lead VALUES ($row, '$name', 'x');
			SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete')}) if $table eq 'lead';
		$row++;
		state_is('blocked', "$name, $table: the server is blocked");
		like(sql($blocked_version), $detail, "$name, $table: with the reason and what to do");
		is(sql(q{SELECT count(*) FROM sfsync.status WHERE state <> 'blocked' OR detail !~ 'no API version'}), '0', "$name, $table: status says so, too");
		is(scalar(grep { ($_->{status} // 0) == 200 && $_->{kind} !~ /^(?:token|versions)$/ } $sim->requests($mark)), 0, "$name, $table: nothing goes through");
		like(sql(q{SELECT detail FROM sfsync.check_connection('crm') WHERE check_name = 'api_version' AND NOT ok}), qr/the org has no API version 99\.0; its newest is 68\.0/,
			"$name, $table: check_connection says the same") unless $fault;
		$mark = $sim->mark;
		rows($row, $row, $name);
		$row++;
		is(sql(q{SELECT sfsync.wait_for_sync('300 ms')}), 'f', "$name, $table: changes wait");
		is(scalar($sim->requests($mark)), 0, "$name, $table: without a call");
		sql(q{ALTER SERVER crm OPTIONS (SET api_version '67.0')});
		in_step("$name, $table: another version goes on at once");
		is(sql(q{SELECT count(*) FROM sfsync.status WHERE state <> 'active'}), '0', "$name, $table: active");
		$sim->clear_faults;
		sql(q{ALTER SERVER crm OPTIONS (DROP api_version)});
		in_step("$name, $table: back");
		sql(q{SELECT sfsync.drop_mapping('lead'); DROP TABLE lead}) if $table eq 'lead';
	}
}

# What only looks like it: no limits for us, or none at all, and an org that doesn't list versions.
setting(retry_max_delay => '300ms');
foreach my $case (
	[ 'no limits', [ 'limits', 404 ] ],
	[ 'limits are gone', [ 'limits', 410 ] ],
	[ 'no limits, no versions', [ 'limits', 404 ], [ 'versions', 404 ] ],
	[ 'no limits, no versions for us', [ 'limits', 404 ], [ 'versions', 403 ] ],
	[ 'no limits, versions after a while', [ 'limits', 404 ], [ 'versions', 503, 2 ] ])
{
	my ($name, @faults) = @$case;

	$sim->fault(name => $_->[0], match => { kind => $_->[0] }, times => $_->[2] // 100, action => { status => $_->[1], body => '' }) foreach @faults;
	sql(q{ALTER SERVER crm OPTIONS (ADD auto_assign 'false')});
	$mark = $sim->mark;
	rows($row, $row, $name);
	$row++;
	in_step($name);
	is(scalar($sim->requests($mark, 'limits')), 1, "$name: limits are asked for once");
	is(scalar($sim->requests($mark, 'versions')), 1 + (@faults > 1 ? $faults[1]->[2] // 0 : 0), "$name: and versions until there is an answer");
	state_is('active', "$name: active");
	$sim->clear_faults;
	sql(q{ALTER SERVER crm OPTIONS (DROP auto_assign)});
}

# Nothing tells that it is the version: then objects count as gone, but other options have them looked at again.
setting(retry_max_delay => '10min');
$sim->fault(name => 'version', match => { path => '/services/data/v66.0/' }, action => { status => 404, body => '' });
$sim->fault(name => 'list', match => { kind => 'versions' }, action => { status => 404, body => '' });
sql(qq{CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text); INSERT INTO lead VALUES ($row, 'x', 'x');
	CREATE TABLE contact (id integer PRIMARY KEY, last_name text); INSERT INTO contact VALUES (1, 'x');
	ALTER SERVER crm OPTIONS (ADD auto_assign 'false');
	SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete'), sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete')});
poll_query($node, q{SELECT string_agg(mapping || ' ' || state || ' ' || detail, ', ' ORDER BY mapping) FROM sfsync.status WHERE mapping <> 'account'},
	'an org that lists no versions', expected => join(', ',
		map { lc($_) . " blocked object $_ does not exist in Salesforce, or the integration user may not see it" } 'Contact', 'Lead'));
sql(q{ALTER SERVER crm OPTIONS (ADD api_version '67.0')});
in_step('the right version');
is(sql(q{SELECT count(*) FROM sfsync.status WHERE state <> 'active'}), '0', 'active');
$sim->clear_faults;
sql(q{SELECT sfsync.drop_mapping('lead'), sfsync.drop_mapping('contact'); DROP TABLE lead, contact});
sql(q{ALTER SERVER crm OPTIONS (DROP api_version, DROP auto_assign)});
in_step('the usual version');
setting(retry_max_delay => '300ms');

# An object that isn't there still is the mapping's matter; the probe of a blocked server asks for the versions alone.
$sim->fault(name => 'limits', match => { kind => 'limits' }, action => { status => 403, body => '' });
sql(q{CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text); INSERT INTO lead VALUES (1, 'x', 'x');
	SELECT sfsync.create_mapping('lead', 'Leed', 'PG_Key__c', 'delete')});
poll_query($node, q{SELECT state || ' ' || detail FROM sfsync.status WHERE mapping = 'lead'}, 'an unknown object blocks its mapping',
	expected => 'blocked object Leed does not exist in Salesforce, or the integration user may not see it');
is(sql(q{SELECT state FROM sfsync.server_status}), 'active', 'and not the server');
sql(q{SELECT sfsync.drop_mapping('lead', discard_pending => true); DROP TABLE lead});
$sim->clear_faults;
$sim->fault(name => 'version', match => { path => '/services/data/v66.0/' }, action => { status => 404, body => '' });
$sim->fault(name => 'list', match => { kind => 'versions' }, action => { status => 200, body => '[{"version": "65.0"}]' });
sql(q{ALTER SERVER crm OPTIONS (ADD auto_assign 'false')});
rows($row, $row, 'probe');
state_is('blocked', 'an org that is behind');
$mark = $sim->mark;
poll_until(sub { $sim->requests($mark) >= 3 }, 'is looked at again');
is(join(' ', sort { $a cmp $b } keys %{ { map { $_->{kind} => 1 } $sim->requests($mark) } }), 'versions', 'by calls that do not count');
$sim->clear_faults;
in_step('an org that has caught up');
state_is('active', 'active again');
sql(q{ALTER SERVER crm OPTIONS (DROP auto_assign)});

#
# Locks
#
my $lock = { statusCode => 'UNABLE_TO_LOCK_ROW', message => 'unable to obtain exclusive access to this record', fields => [] };
setting(max_attempts => '100');
$sim->fault(name => 'locks', record => { object => 'Account', regex => { Name => '^storm' }, error => $lock, probability => 0.6, times => 350 });
rows(1001, 1300, 'storm');
sql(q{UPDATE account SET phone = 'later' WHERE id BETWEEN 1001 AND 1050});
poll_query($node, q{SELECT batch_size < 100 FROM sfsync.server_status}, 'locks make batches smaller');
in_step('a storm of locks');
is(0 + $sim->stats->{same_record_overlap}, 0, 'no two writes of a record overlapped');
$sim->clear_faults;
$sim->fault(name => 'locks', record => { object => 'Account', match => { Name => 'storm', Phone => 'v1' }, error => $lock, times => 3 });
$mark = $sim->mark;
sql(q{UPDATE account SET phone = 'v1' WHERE id = 1001});
poll_until(sub { $sim->hits('locks') >= 1 }, 'a record is locked');
sql(q{UPDATE account SET phone = 'v2' WHERE id = 1001});
in_step('a change of a locked record');
my @order = map { $_->{body} =~ /"v([12])"/ ? $1 : () } $sim->requests($mark, $writing);
is(join('', @order), join('', sort @order), 'its changes keep their order');
sql(q{UPDATE account SET phone = 'grow ' || id WHERE id > 1000});
sql(q{UPDATE account SET phone = 'grow again' WHERE id > 1000});
wait_for_sync($node, 'after the storm');
my $grown = sub { sql(q{UPDATE account SET phone = random()::text WHERE id > 1000}); sql(q{SELECT batch_size >= 200 FROM sfsync.server_status}) eq 't' };
poll_until($grown, 'batches grow again under a backlog');
setting(max_attempts => '3');

#
# A slow org
#
wait_for_sync($node, 'before it is slow');
$sim->config(latency_per_record => 0.01);
$mark = $sim->mark;
sql(q{UPDATE account SET phone = 'slow' WHERE id BETWEEN 1001 AND 1150});
in_step('an org that is slow');
@calls = $sim->requests($mark, $writing);
my @late = grep { $_->{done_at} - $_->{at} > 1.1 } @calls;
note('records: ' . join(' ', map { $_->{records} } @calls));
cmp_ok(scalar(@late), '<=', 8, 'few requests were too large for it');
cmp_ok(scalar(grep { $_->{records} >= 15 } @calls), '>=', 3, 'nor do they become tiny');
cmp_ok(sql(q{SELECT batch_size FROM sfsync.server_status}), '<=', 110, 'their size is what it can take');
$sim->config(latency_per_record => 0);
poll_until($grown, 'batches grow when it is fast again');
wait_for_sync($node, 'it is fast again');

#
# An outage
#
$sim->fault(name => 'down', action => { status => 503, body => '<html>down</html>' });
$mark = $sim->mark;
rows(2001, 2200, 'outage');
poll_until(sub { sql(q{UPDATE account SET phone = random()::text WHERE id % 100 = 1}); $sim->hits('down') >= 13 }, 'an outage');
is(sql(q{SELECT coalesce(max(attempts), 0) FROM sfsync.deferred}), '0', 'counts no attempts');
@calls = $sim->requests($mark);
my @gaps = pauses(@calls[ -8 .. -1 ]);
note('pauses: ' . rounded(@gaps));
cmp_ok(max(@gaps) - min(@gaps), '>', 0.05, 'probes have jitter');
$sim->clear_faults;
$mark = $sim->mark;
in_step('after the outage');
@calls = $sim->requests($mark, $writing);
note('records: ' . join(' ', map { $_->{records} } @calls));
cmp_ok(scalar(@calls), '<=', 20, 'its backlog goes in few calls');

# Writes alone fail, what is read doesn't, for longer than max_attempts; then one row is all that is left.
$sim->fault(name => 'read-only', match => { kind => $writes }, action => { status => 500, body => '' });
sql(q{UPDATE account SET phone = 'read-only' WHERE id IN (1, 2)});
poll_until(sub { $sim->hits('read-only') >= 9 }, 'writes fail');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'no row is blamed');
$sim->clear_faults;
wait_for_sync($node, 'after writes failed');

$sim->config(maintenance => JSON::PP::true);
sql(q{UPDATE account SET phone = 'maintenance' WHERE id < 100});
state_is('backing_off', 'maintenance');
$mark = $sim->mark;
poll_until(sub { scalar($sim->requests($mark, $writing)) >= 5 }, 'is waited for');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'and fills no dead letters');
sql(q{SELECT sfsync.pause('account')});
poll_query($node, q{SELECT state FROM sfsync.status}, 'paused meanwhile', expected => 'paused');
poll_until(sub { $sim->stats->{in_flight} == 0 }, undef);
$mark = $sim->mark;
sql(q{UPDATE account SET phone = 'paused' WHERE id < 100});
is(sql(q{SELECT sfsync.wait_for_sync('500 ms')}), 'f', 'waits');
is(scalar($sim->requests($mark)), 0, 'and makes no calls');
setting(enabled => 'off');
sql(q{SELECT sfsync.resume('account')});
is(sql(q{SELECT sfsync.wait_for_sync('400 ms')}), 'f', 'nor while sfsync.enabled is off');
is(scalar($sim->requests($mark)), 0, 'no calls');
$sim->config(maintenance => JSON::PP::false);
setting(enabled => 'on');
in_step('after maintenance');

#
# Records that make the server stumble
#
sub poison
{
	my ($name, $n, $first, $action, @bad) = @_;
	my %bad = map { $_ => 1 } @bad;
	my $last = $first + $n - 1;

	$sim->fault(name => 'poison', match => { kind => $writes, object => 'Poison' }, action => $action);
	sql(q{SELECT sfsync.pause()});
	sql("INSERT INTO account (id, name) SELECT i, CASE WHEN i IN (" . join(',', @bad) . ") THEN 'Poison' ELSE 'harmless' END FROM generate_series($first, $last) i");
	$mark = $sim->mark;
	sql(q{SELECT sfsync.resume()});
	wait_for_sync($node, "$name: settled");
	is(sql(q{SELECT string_agg(external_id, ',' ORDER BY external_id) FROM sfsync.dead_letter WHERE status = 'open'}), join(',', @bad), "$name: found");
	@calls = $sim->requests($mark, $writing);
	note("$name: " . @calls . ' requests, ' . $sim->hits('poison') . ' of them failed: ' . join(' ', map { $_->{records} } @calls));
	$sim->clear_faults;
	is(sql("SELECT count(*) FROM sfsync.record WHERE key::integer BETWEEN $first AND $last"), $n - @bad, "$name: all others went through");
	return scalar(@calls);
}

# Bring it to an end: repaired, all is well again.
sub cured
{
	my ($name) = @_;

	sql(q{UPDATE account SET name = 'cured' WHERE name = 'Poison'});
	wait_for_sync($node, "$name, repaired");
	return;
}

cmp_ok(poison('500 for one record', 100, 3001, { status => 500, body => '<html>oops</html>' }, 3077), '<=', 35, '500 for one record: by halving');
is(sql(q{SELECT error_code, http_status, attempts, payload->>'Name' FROM sfsync.dead_letter WHERE status = 'open'}), 'UNKNOWN|500|3|Poison', '500 for one record: what is known of it');
cured('500 for one record');
cmp_ok(poison('500 for two', 60, 3201, { status => 500, body => '' }, 3201, 3260), '<=', 60, '500 for two records');
cured('500 for two');
setting(request_timeout => '400ms');
poison('no reply in time', 4, 3301, { hang => 3 }, 3302);
is(sql(q{SELECT error_code, http_status FROM sfsync.dead_letter WHERE status = 'open'}), 'REQUEST_TIMEOUT|', 'no reply in time: the code says so');
setting(request_timeout => '1s');
sql(q{UPDATE account SET name = 'cured' WHERE name = 'Poison'});
in_step('all are repaired');

# What all records share is said of the mapping.
$sim->fault(name => 'shared', record => { object => 'Account', error => { statusCode => 'INVALID_FIELD_FOR_INSERT_UPDATE', message => 'Unable to create/update fields: Phone', fields => ['Phone'] } });
sql(q{UPDATE account SET phone = 'shared' WHERE id < 20});
poll_query($node, q{SELECT state, detail ~ 'INVALID_FIELD_FOR_INSERT_UPDATE' FROM sfsync.status}, 'a field that may not be written blocks the mapping', expected => 'blocked|t');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'and makes no dead letter of each row');
$sim->clear_faults;
in_step('the field may be written again');

#
# Backfills
#
sql(q{ALTER SERVER crm OPTIONS (SET max_concurrent_requests '1', ADD max_batch_size '400', ADD bulk_threshold '0')});
sql(q{CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text);
	INSERT INTO lead SELECT i, 'l' || i, 'c' FROM generate_series(1, 8000) i});
$sim->config(latency => 0.07);
$mark = $sim->mark;
sql(q{SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
poll_query($node, q{SELECT state, rows_total, percent BETWEEN 1 AND 99, rows_per_second > 0, remaining > interval '0', bar ~ '^#+[.]+$', length(bar), finished_at FROM sfsync.backfill_progress WHERE mapping = 'lead'},
	'a backfill: its progress', expected => 'running|8000|t|t|t|t|20|');
sql(q{UPDATE account SET phone = 'live' WHERE id = 5; UPDATE lead SET last_name = 'live' WHERE id = 7990});
my $before = scalar($sim->requests($mark, $writing));
is(sql(q{SELECT sfsync.wait_for_sync('20 s', 'account')}), 't', 'a live change of another mapping');
poll_until(sub { grep { $_->{body} =~ /"live"/ && $_->{body} =~ /7990/ } $sim->requests($mark, $writing) }, 'and one of its own');
@calls = $sim->requests($mark, $writing);
my ($position) = grep { $calls[$_]->{body} =~ /7990/ } 0 .. $#calls;
cmp_ok($position - $before, '<=', 4, 'overtake it');
sql('SELECT pg_terminate_backend(' . worker_pid($node) . ')');
poll_query($node, q{SELECT state FROM sfsync.backfill_progress WHERE mapping = 'lead'}, 'it goes on after a restart', expected => 'done');
wait_for_sync($node, 'the backfill is settled');
is($sim->count('Lead'), 8000, 'and reaches all rows');
my $sent = sum0(map { $_->{records} } $sim->requests($mark, 'collections_upsert'));
cmp_ok($sent, '<=', 8000 + 4500, 'without starting over');
is(join(' ', log_since($node) =~ /mapping "lead": (\d+) percent, \d+ of 8000 rows/g), '25 50 75 99 100', 'a line in the log for each ten percent');

my $job = sql(q{SELECT sfsync.backfill('lead')});
poll_query($node, "SELECT rows_done > 0 FROM sfsync.backfill_progress WHERE id = $job", 'another one');
is(sql("SELECT sfsync.cancel_backfill($job)"), 't', 'is cancelled');
$mark = $sim->mark;
is(sql(q{SELECT sfsync.wait_for_sync('5 s')}), 't', 'at once');
cmp_ok(scalar($sim->requests($mark, $writing)), '<=', 2, 'nothing but what was under way is sent');
is(sql("SELECT state, rows_done < rows_total, rows_per_second > 0, remaining IS NULL, finished_at IS NOT NULL, sfsync.cancel_backfill($job) FROM sfsync.backfill_progress WHERE id = $job"),
	'cancelled|t|t|t|t|f', 'it is shown as cancelled');
$sim->config(latency => 0);

#
# Counters
#
poll_query($node, q{SELECT calls > 100 FROM sfsync.server_status}, 'calls are counted');
my $calls = sql(q{SELECT calls FROM sfsync.server_status});
my $learnt = sql(q{SELECT batch_size, concurrency, api_limit FROM sfsync.server_status});
$node->restart;
poll_query($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'}, 'after a restart', expected => '1');
rows(4001, 4001, 'restarted');
in_step('after the restart');
cmp_ok(sql(q{SELECT calls FROM sfsync.server_status}), '>', $calls, 'the counters go on');
is(sql(q{SELECT batch_size, concurrency, api_limit FROM sfsync.server_status}), $learnt, 'with what was learnt');

same_state($node, 'nothing is left on the way');
unlike(log_since($node), qr/PANIC|TRAP|terminated by signal/, 'no crash');
$node->stop;
done_testing();
