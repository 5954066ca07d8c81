# health, dead_letter_summary, history and compare: what went wrong, where, when and by whom.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;
use Time::HiRes qw(time);

my $sim = simulator();
my $node = new_node('audit', conf => "sfsync.max_attempts = 3\n");

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# What a statement is refused with.
sub refusal
{
	my ($statement) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $statement, on_error_stop => 1);

	return $rc == 0 ? "accepted: $out" : $err;
}

sub health
{
	my ($check, $columns) = @_;
	return sql("SELECT " . ($columns || 'status') . " FROM sfsync.health() WHERE check_name = '$check'");
}

sub setting
{
	my ($name, $value) = @_;

	sql("ALTER SYSTEM SET $name = '$value'");
	sql('SELECT pg_reload_conf()');
	poll_query($node, "SHOW $name", undef, expected => $value);
	return;
}

connect_salesforce($node, $sim);
account_table($node);
sql(q{INSERT INTO account (id, name) SELECT i, 'Account ' || i FROM generate_series(1, 20) i});
wait_for_sync($node, 'in step at the start');

#
# health
#
poll_query($node, q{SELECT string_agg(check_name || '=' || status, ' ' ORDER BY check_name COLLATE "C") FROM sfsync.health() WHERE status <> 'ok'},
	'all is well, but for the environment', expected => 'environment=warning');
is(sql(q{SELECT count(*) FILTER (WHERE status NOT IN ('ok', 'warning', 'critical') OR detail IS NULL), count(*) FILTER (WHERE status <> 'ok' AND hint IS NULL),
	count(*) = count(DISTINCT check_name), count(*) > 15 FROM sfsync.health()}),
	'0|0|t|t', 'each check has a status and a detail, and a hint where it is not ok');
sql(q{CREATE ROLE probe LOGIN; GRANT pg_monitor TO probe; CREATE ROLE nobody LOGIN});
is($node->safe_psql('postgres', q{SELECT status FROM sfsync.health() WHERE check_name = 'worker'}, extra_params => [ '-U', 'probe' ]),
	'ok', 'pg_monitor may call it');
like(($node->psql('postgres', 'SELECT * FROM sfsync.health()', extra_params => [ '-U', 'nobody' ]))[2],
	qr/permission denied/, 'others may not');

my $mark = $sim->mark;
sql(q{SELECT * FROM sfsync.health()}) for 1 .. 3;
is(scalar($sim->requests($mark)), 0, 'it asks Salesforce nothing');

setting('sfsync.environment', 'test');
is(health('environment', 'status, detail'), 'warning|no option environment: crm', 'a server without the option environment');
sql(q{ALTER SERVER crm OPTIONS (ADD environment 'test')});
is(health('environment', 'status, detail'), 'ok|test', 'the environment is set on both sides');
sql(q{ALTER SERVER crm OPTIONS (SET environment 'elsewhere')});
like(health('server crm', 'status, detail'), qr/^critical\|fenced: /, 'a fenced server');
sql(q{ALTER SERVER crm OPTIONS (SET environment 'test')});
is(health('server crm'), 'ok', 'and no longer');

sql(q{SELECT sfsync.pause('account')});
is(health('mapping account', 'status, detail'), 'warning|paused', 'a paused mapping');
sql(q{SELECT sfsync.resume('account')});
sql(q{ALTER TABLE account DISABLE TRIGGER sfsync_capture});
is(health('mapping account: triggers', 'status, detail'), 'critical|public.account: sfsync_capture is disabled', 'a disabled trigger');
sql(q{ALTER TABLE account ENABLE REPLICA TRIGGER sfsync_capture});
is(health('mapping account: triggers', 'status, detail'), 'critical|public.account: sfsync_capture fires on replicas only', 'a trigger that fires on replicas only');
sql(q{ALTER TABLE account ENABLE ALWAYS TRIGGER sfsync_capture});
is(health('mapping account: triggers'), 'ok', 'one that always fires');
sql(q{DROP TRIGGER sfsync_truncate ON account});
is(health('mapping account: triggers', 'status, detail'), 'critical|public.account: sfsync_truncate is missing', 'a missing trigger');
sql(q{CREATE TRIGGER sfsync_truncate BEFORE TRUNCATE ON account FOR EACH STATEMENT EXECUTE FUNCTION sfsync.capture_truncate()});

sql(q{SELECT sfsync.pause('account'); UPDATE account SET phone = '1' WHERE id = 1});
sql(q{UPDATE sfsync.queue SET event_at = event_at - interval '10 minutes'});
like(health('mapping account: lag', 'status, detail'), qr/^warning\|1 changes wait, the oldest for 00:1/, 'ten minutes behind');
sql(q{UPDATE sfsync.queue SET event_at = event_at - interval '2 hours'});
is(health('mapping account: lag'), 'critical', 'two hours behind');
sql(q{SELECT sfsync.resume('account')});
wait_for_sync($node, 'no longer behind');
is(health('mapping account: lag', 'status, detail'), 'ok|nothing waits', 'no lag');

sql(q{BEGIN; INSERT INTO account (id, name) VALUES (900, 'Prepared'); PREPARE TRANSACTION 'old'});
is(health('vacuum'), 'ok', 'a young prepared transaction');
sql(q{ROLLBACK PREPARED 'old'});
setting('sfsync.enabled', 'off');
is(health('enabled'), 'warning', 'delivery is switched off');
setting('sfsync.enabled', 'on');

$sim->fault(name => 'down', action => { status => 503, body => '<html>down</html>' });
sql(q{UPDATE account SET phone = '2' WHERE id = 20});
poll_query($node, q{SELECT status || ' ' || (detail LIKE 'backing_off since %') FROM sfsync.health() WHERE check_name = 'server crm'},
	'an outage', expected => 'warning true');
sql(q{UPDATE sfsync.server_state SET state_since = state_since - interval '20 minutes'});
is(health('server crm'), 'critical', 'an outage that lasts');
$sim->clear_faults;
wait_for_sync($node, 'the outage is over');
poll_until(sub { health('server crm') eq 'ok' }, 'active again');

my $pid = worker_pid($node);
sql(q{ALTER SYSTEM SET max_worker_processes = 20});
sql("SELECT pg_terminate_backend($pid)");
poll_until(sub { my $new = worker_pid($node); $new ne '' && $new ne $pid }, 'a worker that was terminated comes back');
poll_until(sub { health('worker') eq 'ok' }, 'and shows as running');

#
# dead letters by code
#
$sim->fault(name => 'rule', record => { object => 'Account', regex => { Name => '^Bad' },
		error => { statusCode => 'FIELD_CUSTOM_VALIDATION_EXCEPTION', message => 'No bad names', fields => ['Name'] } });
sql(q{UPDATE account SET name = 'Bad ' || id WHERE id <= 5});
sql(q{UPDATE account SET site = repeat('x', 200) WHERE id = 6});
wait_for_sync($node, 'some rows fail');
is(sql(q{SELECT mapping, error_code, count, first_failed_at <= last_failed_at, example_message, hint LIKE '%validation rule%'
	FROM sfsync.dead_letter_summary WHERE error_code = 'FIELD_CUSTOM_VALIDATION_EXCEPTION'}),
	'account|FIELD_CUSTOM_VALIDATION_EXCEPTION|5|t|No bad names|t', 'dead letters of one code are one line, with a hint');
is(sql(q{SELECT error_code, count, hint = sfsync.error_hint('COERCION_ERROR') FROM sfsync.dead_letter_summary WHERE error_code <> 'FIELD_CUSTOM_VALIDATION_EXCEPTION'}),
	'COERCION_ERROR|1|t', 'our own codes, too');
is(health('mapping account: dead letters', 'status, detail'), 'warning|6 unresolved: COERCION_ERROR, FIELD_CUSTOM_VALIDATION_EXCEPTION', 'health counts them');

#
# history
#
sub history
{
	my ($key, $columns, $where) = @_;
	return sql("SELECT " . ($columns || 'event') . " FROM sfsync.history('account', '{\"id\": $key}')" . ($where ? " WHERE $where" : ''));
}

is(history(1), "captured\ndead_letter", 'a row that failed: captured and refused');
is(history(1, 'detail, actor, transaction_id IS NOT NULL', "event = 'captured'"), 'update: name|' . sql('SELECT session_user') . '|t',
	'captured: which columns, by whom, in which transaction');
is(history(1, 'detail', "event = 'dead_letter'"), 'FIELD_CUSTOM_VALIDATION_EXCEPTION: No bad names', 'refused: why');
is(history(10), '', 'a row that went through has none at this level');
sql(q{SELECT sfsync.retry(id) FROM sfsync.dead_letter WHERE external_id = '1' AND status = 'open'});
wait_for_sync($node, 'retried in vain');
is(history(1), "captured\ndead_letter\nretried\ndead_letter", 'a retry in vain');
sql(q{UPDATE account SET name = 'Good' WHERE id = 1});
wait_for_sync($node, 'healed');
like(history(1), qr/dead_letter\nresolved$/, 'healed by newer data');
sql(q{SELECT sfsync.discard(id, 'not needed') FROM sfsync.dead_letter WHERE external_id = '2' AND status = 'open'});
is(history(2, 'event, detail, actor', "event = 'discarded'"), 'discarded|not needed|' . sql('SELECT session_user'), 'given up: by whom and why, once');
$sim->fault(name => 'lock', record => { object => 'Account', regex => { PG_Key__c => '^7$' }, times => 1,
		error => { statusCode => 'UNABLE_TO_LOCK_ROW', message => 'locked', fields => [] } });
sql(q{UPDATE account SET phone = '7' WHERE id = 7});
wait_for_sync($node, 'locked once');
is(history(7, 'event, detail'), "captured|update: phone\nfailed|UNABLE_TO_LOCK_ROW: locked\nsynced|update, record " . $sim->record('Account', '7')->{Id},
	'an attempt that failed, and the one that went through');
is(sql(q{SELECT count(*) FROM sfsync.history('account', '{"id": "7"}')}), '3', 'the key as text');

sql(q{BEGIN; SELECT sfsync.pause('account'); COMMIT});
sql(q{CREATE ROLE writer LOGIN; GRANT ALL ON account TO writer});
$node->safe_psql('postgres', q{INSERT INTO account (id, name) VALUES (50, 'Fifty')}, extra_params => [ '-U', 'writer' ]);
is(history(50, 'event, detail, actor'), 'captured|insert|writer', 'on its way: by another role');
sql(q{UPDATE account SET id = 51 WHERE id = 50});
is(history(51, 'detail', "detail LIKE 'key%'"), 'key change from 50: id', 'a key change');
setting('sfsync.history', 'all');
sql(q{SELECT sfsync.resume('account')});
wait_for_sync($node, 'delivered at the level all');
like(history(51), qr/^captured\n(?:waiting\n)?synced$/m, 'at the level all what went through is kept');
sql(q{DELETE FROM account WHERE id = 51});
wait_for_sync($node, 'deleted');
like(history(51), qr/captured\ndeleted$/, 'and its end');
setting('sfsync.history', 'off');
my $logged = sql('SELECT count(*) FROM sfsync.history_log');
sql(q{UPDATE account SET name = 'Bad again' WHERE id = 8});
wait_for_sync($node, 'failed with history off');
is(sql('SELECT count(*) FROM sfsync.history_log'), $logged, 'at the level off nothing is logged');
is(history(8), 'dead_letter', 'but dead letters show');
setting('sfsync.history', 'failures');

like(refusal(q{SELECT * FROM sfsync.history('account', '{"no": 1}')}), qr/source_key is not a key.*HINT:  Pass a JSON object with the key columns: "id"/s, 'a wrong key');
like(refusal(q{SELECT * FROM sfsync.history('account', NULL)}), qr/"source_key" must not be null/, 'no key');
like(refusal(q{SELECT * FROM sfsync.history('pg_class', '{"id": 1}')}), qr/table "pg_class" is not mapped/, 'a table that is not mapped');
sql(q{GRANT USAGE ON SCHEMA sfsync TO writer; GRANT EXECUTE ON FUNCTION sfsync.history TO writer});
like(($node->psql('postgres', q{SELECT * FROM sfsync.history('account', '{"id": 1}')}, extra_params => [ '-U', 'writer' ]))[2],
	qr/must be owner of mapping "account"/, 'history is for the mapping\'s owner');

#
# Retention
#
is(sql(q{SELECT count(*) > 0 FROM sfsync.history_log}), 't', 'there is history');
is(sql(q{SELECT count(*) > 0 FROM sfsync.dead_letter WHERE status IN ('resolved', 'discarded')}), 't', 'there are dead letters that are over');
my $open = sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status IN ('open', 'retrying')});
sql(q{UPDATE sfsync.history_log SET at = at - interval '8 days' WHERE key = '1'});
sql(q{UPDATE sfsync.dead_letter SET resolved_at = resolved_at - interval '2 hours' WHERE status = 'resolved'});
setting('sfsync.dead_letter_retention', '1h');
setting('sfsync.history_retention', '8d');
setting('sfsync.history_retention', '7d');
poll_query($node, q{SELECT count(*) FROM sfsync.history_log WHERE key = '1'}, 'history older than the retention goes', expected => '0');
is(sql(q{SELECT count(*) > 0 FROM sfsync.history_log}), 't', 'younger one stays');
poll_query($node, q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'resolved'}, 'so do resolved dead letters, if told', expected => '0');
is(sql(q{SELECT count(*) > 0 FROM sfsync.dead_letter WHERE status = 'discarded'}), 't', 'younger ones stay, too');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status IN ('open', 'retrying')}), $open, 'those that are open stay');

#
# compare
#
sql(q{SELECT sfsync.discard(id, 'of no interest here') FROM sfsync.dead_letter WHERE status = 'open'});
$sim->clear_faults;
sql(q{DELETE FROM account WHERE id <= 8});
wait_for_sync($node, 'without the rows that failed');

my $columns = q{source_key->>'id', kind, field, source_value, salesforce_value, last_modified_by LIKE '%(%)'};

sub compare
{
	my ($repair, $what) = @_;
	return sql("SELECT " . ($what || $columns) . " FROM sfsync.compare('account', $repair) ORDER BY (source_key->>'id')::integer, kind, field");
}

sub edit
{
	my ($key, $user, %fields) = @_;
	return $sim->post('edit', { object => 'Account', match => { PG_Key__c => $key }, user => $user, fields => \%fields });
}

is(compare('false'), '', 'both sides are alike');
$mark = $sim->mark;
compare('false');
is(join(' ', map { $_->{kind} } $sim->requests($mark)), 'token composite composite', 'one login, one query, and the names of users');

sql(q{BEGIN; SET LOCAL sfsync.capture = off; UPDATE account SET phone = 'unseen', annual_revenue = 12 WHERE id = 9;
	DELETE FROM account WHERE id = 10; INSERT INTO account (id, name) VALUES (60, 'Sixty'); COMMIT});
edit('11', 'rep', Phone => 'by hand', Site => 'x');
$sim->post('create', { object => 'Account', user => 'rep', fields => { Name => 'Stranger', PG_Key__c => '70' } });
$sim->post('create', { object => 'Account', user => 'rep', fields => { Name => 'Not ours' } });
is(compare('false'), join("\n",
		'9|different|AnnualRevenue|12|null|t', '9|different|Phone|"unseen"|null|t',
		'10|missing_in_source|||{"Id": "' . $sim->record('Account', '10')->{Id} . '"}|t',
		'11|different|Phone|null|"by hand"|t', '11|different|Site|null|"x"|t',
		'60|missing_in_salesforce||||',
		'70|missing_in_source|||{"Id": "' . $sim->record('Account', '70')->{Id} . '"}|t'),
	'what differs: updates, deletes and inserts that were not captured, edits, records of others');
like(sql(q{SELECT last_modified_by FROM sfsync.compare('account') WHERE field = 'Site'}), qr/^005\w{15} \(.+\)$/, 'by whom');
is(sql(q{SELECT count(*) FROM sfsync.queue}) + sql(q{SELECT count(*) FROM sfsync.deferred}), 0, 'nothing is queued without repair');
is(sql(q{BEGIN; UPDATE account SET phone = 'captured' WHERE id = 11; SELECT count(*) FROM sfsync.compare('account') WHERE source_key->>'id' = '11'; ROLLBACK}), '0',
	'changes of the transaction itself are on their way');
sql(q{SELECT sfsync.pause('account'); UPDATE account SET site = 'on its way' WHERE id = 12});
is(sql(q{SELECT count(*) FROM sfsync.compare('account') WHERE source_key->>'id' = '12'}), '0', 'pending changes are no difference');
sql(q{SELECT sfsync.resume('account')});
wait_for_sync($node, 'no longer on its way');

like(($node->psql('postgres', q{SELECT count(*) FROM sfsync.compare('account', true)}))[2], qr/NOTICE:  repair: 2 rows are queued, 1 deletes/, 'repair says what it queues');
wait_for_sync($node, 'repaired');
is(compare('false', q{source_key->>'id', kind, field}), "11|different|Phone\n11|different|Site\n70|missing_in_source|",
	'what others edited, and what was never ours, is left alone');
is(join(' ', map { $_ // 'null' } @{ $sim->record('Account', '9') }{qw(Phone AnnualRevenue)}), 'unseen 12', 'the update arrived');
is($sim->record('Account', '10'), undef, 'the delete, too');
is($sim->record('Account', '60')->{Name}, 'Sixty', 'the insert, too');

sql(q{SELECT sfsync.set_delete_policy('account', 'delete', delete_guard => 2)});
sql(q{BEGIN; SET LOCAL sfsync.capture = off; DELETE FROM account WHERE id BETWEEN 12 AND 14; COMMIT});
like(($node->psql('postgres', q{SELECT count(*) FROM sfsync.compare('account', true)}))[2], qr/3 deletes\nDETAIL:  The deletes are held/, 'more deletes than delete_guard allows are held');
is(health('mapping account: held', 'status, detail'), 'warning|3 rows, of which 3 are deletes', 'and health says so');
is(sql(q{SELECT sfsync.release_deletes('account')}), '3', 'they can be released');
wait_for_sync($node, 'released');
is($sim->record('Account', '13'), undef, 'and go');

# A change between the reading of one side and the other is no difference.
$sim->fault(name => 'slow', match => { kind => 'composite' }, times => 1, action => { delay => 2 });
my $comparing = session($node);
$comparing->send(q{SELECT count(*) FROM sfsync.compare('account') WHERE source_key->>'id' IN ('15', '16', '17', '61')});
poll_until(sub { $sim->hits('slow') == 1 }, 'a comparison is under way');
sql(q{UPDATE account SET phone = 'meanwhile' WHERE id = 15; DELETE FROM account WHERE id = 16; INSERT INTO account (id, name) VALUES (61, 'Meanwhile')});
wait_for_sync($node, 'changes go out while it waits');
is($comparing->finish, '0', 'rows that change meanwhile are not shown');
$sim->fault(name => 'hang', match => { kind => 'composite' }, times => 1, action => { hang => 30 });
$comparing->send(q{SELECT count(*) FROM sfsync.compare('account')});
poll_until(sub { $sim->hits('hang') == 1 }, 'a comparison hangs');
sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%sfsync.compare(%' AND pid <> pg_backend_pid()});
$comparing->finish;
like($comparing->errors, qr/canceling statement due to user request/, 'it can be cancelled');
$comparing->quit;
$sim->clear_faults;

$sim->fault(name => 'busy', match => { kind => 'composite' }, times => 2, action => { status => 503, body => '' });
is(sql(q{SELECT count(*) FROM sfsync.compare('account')}), '3', 'a short outage is waited for');
$sim->fault(name => 'refuse', match => { kind => 'composite' }, action => { status => 400, body => '[{"message": "too slow", "errorCode": "MALFORMED_QUERY"}]' });
like(refusal(q{SELECT * FROM sfsync.compare('account')}), qr/could not ask Salesforce.*MALFORMED_QUERY: too slow.*HINT/s, 'a refusal is an error with a hint');
$sim->fault(name => 'refuse', match => { kind => 'composite' }, action => { garbage => '{"compositeResponse": [{}]}' });
like(refusal(q{SELECT * FROM sfsync.compare('account')}), qr/could not read records from Salesforce/, 'so is garbage');
$sim->fault(name => 'refuse', match => { kind => 'composite' },
	action => { garbage => '{"totalSize": 5, "done": false, "nextRecordsUrl": "/services/data/v66.0/query/01g000000000001AAA-1", "records": []}' });
like(refusal(q{SELECT * FROM sfsync.compare('account')}), qr/a page of a query is empty, and there is another/, 'and pages that lead on without end');
$sim->clear_faults;
$sim->post('expire_tokens', {});
$sim->config(api_limit => 100, api_used => 85);
like(refusal(q{SELECT * FROM sfsync.compare('account')}), qr/API calls of server "crm" are used up.*api_budget/s, 'it keeps to the budget');
$sim->config(api_limit => 100000, api_used => undef);
like(refusal(q{SELECT * FROM sfsync.compare('acount')}), qr/HINT:  Perhaps you meant "account"/, 'an unknown mapping');
like(refusal(q{SELECT * FROM sfsync.compare('account', NULL)}), qr/"repair" must not be null/, 'repair must be known');
sql(q{GRANT EXECUTE ON FUNCTION sfsync.compare TO writer});
like(($node->psql('postgres', q{SELECT * FROM sfsync.compare('account')}, extra_params => [ '-U', 'writer' ]))[2],
	qr/must be owner of mapping "account"/, 'comparing is for the mapping\'s owner');

# Several pages, and a session that ends between them.
$sim->config(page_size => 2);
is(sql(q{SELECT count(*) FROM sfsync.compare('account')}), '3', 'in several pages');
$sim->fault(name => 'ended', match => { kind => 'query' }, skip => 1, times => 1,
	action => { status => 401, body => '[{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]' });
$mark = $sim->mark;
is(sql(q{SELECT count(*) FROM sfsync.compare('account')}), '3', 'the session ends in between');
is($sim->hits('ended') . ' ' . scalar($sim->requests($mark, 'token')), '1 2', 'it logs in again');
$sim->clear_faults;
$sim->config(page_size => 2000);

# Conflicts: on record for the row, and not repaired away by what we wrote afterwards.
sql(q{SELECT sfsync.alter_mapping('account', conflict_policy => 'newest_wins')});
sql(q{SELECT sfsync.pause('account'); UPDATE account SET phone = 'older' WHERE id = 18});
edit('18', 'rep', Phone => 'newer');
sql(q{SELECT sfsync.resume('account')});
wait_for_sync($node, 'a conflict');
is(health('mapping account: conflicts', 'status, detail'), 'warning|1 open', 'health counts conflicts');
is(history(18, 'event, detail'), qq(captured|update: phone\nconflict|Phone: Salesforce's "newer" stays, against "older" (newest_wins)), 'history has the decision');
like(history(18, 'actor', "event = 'conflict'"), qr/^005/, 'and who set the value');
sql(q{UPDATE account SET site = 'ours' WHERE id = 18});
wait_for_sync($node, 'we are the last to change the record');
is(sql(q{SELECT field, salesforce_value FROM sfsync.compare('account') WHERE source_key->>'id' = '18'}), 'Phone|"newer"', 'the value differs');
like(($node->psql('postgres', q{SELECT count(*) FROM sfsync.compare('account', true)}))[2], qr/repair: 0 rows are queued, 0 deletes/, 'a conflict is not for repair to decide');
sql(q{SELECT sfsync.resolve_conflict(id, 'source') FROM sfsync.conflict WHERE resolution IS NULL});
wait_for_sync($node, 'decided');
like(history(18), qr/conflict\n.*conflict_resolved/s, 'how it ended');

# Lookups are compared by the parent's external ID, keys of several columns and of text as they are.
sql(q{CREATE TABLE contact (region text, no integer, last_name text NOT NULL, account_id integer REFERENCES account, PRIMARY KEY (region, no));
	INSERT INTO contact VALUES ('a:b', 1, 'One', 15), ('a:b', 2, 'Two', 15), ('c', 3, 'Three', NULL), ('c', 4, 'Four', 17);
	SELECT sfsync.create_mapping('contact', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
wait_for_sync($node, 'contacts are there');
is(sql(q{SELECT count(*) FROM sfsync.compare('contact')}), '0', 'lookups are alike');
my ($one, $stranger) = map { $sim->record('Account', $_)->{Id} } '15', '17';
my $orphan = $sim->post('create', { object => 'Account', user => 'rep', fields => { Name => 'Without a key' } })->{id};
$sim->post('edit', { object => 'Contact', match => { PG_Key__c => 'a\\:b:1' }, fields => { AccountId => $stranger } });
$sim->post('edit', { object => 'Contact', match => { PG_Key__c => 'a\\:b:2' }, fields => { AccountId => undef } });
$sim->post('edit', { object => 'Contact', match => { PG_Key__c => 'c:3' }, fields => { AccountId => $orphan } });
$sim->post('create', { object => 'Contact', user => 'rep', fields => { LastName => 'Odd', PG_Key__c => 'no such key' } });
$sim->post('create', { object => 'Contact', user => 'rep', fields => { LastName => 'Odd', PG_Key__c => 'c:04' } });
is(sql(q{SELECT source_key, kind, field, source_value, salesforce_value FROM sfsync.compare('contact') ORDER BY source_key->>'region', source_key->>'no'}), join("\n",
		'{"no": 1, "region": "a:b"}|different|AccountId|"15"|"17"',
		'{"no": 2, "region": "a:b"}|different|AccountId|"15"|null',
		'{"no": "04", "region": "c"}|missing_in_source|||{"Id": "' . $sim->record('Contact', 'c:04')->{Id} . '"}',
		'{"no": 3, "region": "c"}|different|AccountId|null|"' . $orphan . '"',
		'{"no": "no such key", "region": "no such key"}|missing_in_source|||{"Id": "' . $sim->record('Contact', 'no such key')->{Id} . '"}'),
	'another parent, none, one without a key; keys that no row can have');

# A row that doesn't pass the filter is to have no record; one for which that can't be told is left out.
sql(q{SELECT sfsync.set_delete_policy('contact', 'ignore'); SELECT sfsync.alter_mapping('contact', filter => '10 / (no - 6) >= -5')});
wait_for_sync($node, 'a filter');
sql(q{BEGIN; SET LOCAL sfsync.capture = off; INSERT INTO contact VALUES ('d', 5, 'Five', NULL), ('d', 6, 'Six', NULL), ('d', 7, 'Seven', NULL); COMMIT});
my $filtered = q{SELECT source_key, kind FROM sfsync.compare('contact') WHERE source_key->>'region' = 'd' ORDER BY source_key->>'no'};
is(sql($filtered), '{"no": 7, "region": "d"}|missing_in_salesforce', 'rows that are filtered out need no record');
$sim->post('create', { object => 'Contact', user => 'rep', fields => { LastName => 'x', PG_Key__c => "d:$_" } }) foreach 5 .. 7;
is(sql($filtered), qq({"no": 5, "region": "d"}|missing_in_source\n{"no": 7, "region": "d"}|different), 'and are not to have one');

#
# The queries for postgres_exporter run as a member of pg_monitor, and the dashboard uses nothing else.
#
my $doc = "$FindBin::RealBin/../../doc";
my %metrics;
foreach my $part (split /^(?=sfsync_)/m, slurp_file("$doc/postgres_exporter.yaml"))
{
	my ($name, $query) = $part =~ /^(sfsync_\w+):\n  query: \|\n((?:    .*\n)+)/ or next;
	my @columns = $part =~ /^    - (\w+): \{usage: "(?:LABEL|GAUGE|COUNTER)", description: "[^"]+"\}$/mg;
	my $names = $node->safe_psql('postgres', "SELECT string_agg(key, ' ' ORDER BY key) FROM (SELECT DISTINCT key FROM ($query) q, json_each(row_to_json(q))) k",
		extra_params => [ '-U', 'probe' ]);

	is($names, $name eq 'sfsync_backfill' ? '' : join(' ', sort @columns), "$name: the columns of its query are those told");
	$metrics{"${name}_$_"} = 1 foreach @columns;
}
is(scalar(keys %metrics) > 25, 1, 'there are queries');
my $dashboard = JSON::PP->new->decode(slurp_file("$doc/grafana-dashboard.json"));
my %used = map { $_ => 1 } map { $_->{expr} =~ /\b(sfsync_\w+)/g } map { @{ $_->{targets} } } @{ $dashboard->{panels} };
is(join(' ', grep { !$metrics{$_} } sort keys %used), '', 'the dashboard uses what they yield');
cmp_ok(scalar(keys %used), '>=', 15, 'and most of it');

done_testing();
