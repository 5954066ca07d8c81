# Paths that nothing else takes: what changes while the worker is in the middle of something, and errors of all kinds.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('paths');
my $log_start = -s $node->logfile;

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub refused
{
	my ($statement, $pattern, $name) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $statement);

	like($err, $pattern, $name);
	return;
}

connect_salesforce($node, $sim);

#
# The worker has begun with a batch, and waits in an expression; meanwhile its mapping becomes another.
#
sql(q{
CREATE FUNCTION hold(text) RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN $1; END$$;
CREATE TABLE tree (id integer PRIMARY KEY, name text NOT NULL, phone text, parent_id integer REFERENCES tree);
SELECT sfsync.create_mapping('tree', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
SELECT sfsync.map_field('tree', 'Site', expression => 'public.hold(phone)')});
wait_for_sync($node, 'an expression that can be held up');
my $pid = worker_pid($node);
my $holder = session($node);

sub while_held
{
	my ($change, $meanwhile, $name) = @_;

	$holder->query('SELECT pg_advisory_lock(1)');
	sql($change);
	poll_query($node, q{SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'sfsync worker'}, "$name: the worker is held up",
		expected => 'advisory');
	sql($meanwhile);
	$holder->query('SELECT pg_advisory_unlock(1)');
	wait_for_sync($node, "$name: settled");
	is(worker_pid($node), $pid, "$name: the worker is the same");
	return;
}

while_held(q{INSERT INTO tree VALUES (1, 'root', '1', NULL), (2, 'branch', '2', 1)},
	q{SELECT sfsync.map_field('tree', 'Fax', 'phone')}, 'another field');
is($sim->record('Account', '2')->{ParentId}, $sim->record('Account', '1')->{Id}, 'a row refers to a row of its table');
is($sim->record('Account', '2')->{Fax}, '2', 'the field is filled');

#
# check_connection: what each check says when its reply is none, or not what it should be.
#
sub check
{
	my ($check, $name, $pattern, %fault) = @_;

	$sim->fault(name => 'check', %fault) if %fault;
	like(sql("SELECT ok, detail, hint FROM sfsync.check_connection('crm') WHERE check_name = '$check'"), $pattern, "$check: $name");
	$sim->clear_faults;
	return;
}

# A reply to describe in place of the true one.
sub described
{
	my (%object) = @_;
	my $key = { name => 'PG_Key__c', type => 'string', length => 255, externalId => 1, unique => 1, caseSensitive => 1, createable => 1,
		updateable => 1, nillable => 1, label => 'Key', %{ $object{key} || {} } };
	my %rest = (name => 'Account', createable => 1, updateable => 1, deletable => 1, queryable => 1, %object, fields => [$key]);

	delete $rest{key};
	foreach my $part (\%rest, $key)
	{
		/able$|Id$|^unique$|Sensitive$/ and $part->{$_} = $part->{$_} ? JSON::PP::true : JSON::PP::false foreach keys %$part;
	}
	return (match => { kind => 'describe' }, action => { status => 200, body => JSON::PP->new->encode(\%rest) });
}

my %versions = (match => { kind => 'versions' });
my %userinfo = (match => { path => 'userinfo' });
my %limits = (match => { kind => 'limits' });
my $forbidden = { status => 403, body => '[{"errorCode": "FORBIDDEN", "message": "not for you"}]' };

check('api_version', 'no connection', qr/^f\|.*\|Look at the network/, %versions, action => { close => 'before' });
check('api_version', 'an error', qr/^f\|HTTP status 500/, %versions, action => { status => 500, body => '' });
check('api_version', 'no list', qr/^f\|the reply lists no versions\|/, %versions, action => { status => 200, body => '{}' });
check('api_version', 'another', qr/^f\|the org has no API version 66.0; its newest is 50.0\|/, %versions,
	action => { status => 200, body => '[{"version": "50.0", "label": "old", "url": "/services/data/v50.0"}]' });
check('integration_user', 'refused', qr/^t\|005\w+ \(user name not known: HTTP status 403, FORBIDDEN: not for you\)/, %userinfo, action => $forbidden);
check('organization', 'refused', qr/^t\|00D/, %userinfo, action => $forbidden);
check('integration_user', 'not JSON', qr/^t\|.*userinfo names no user/, %userinfo, action => { status => 200, body => 'x' });
check('api_allowance', 'refused', qr/^t\|\d+ of 100000 API calls used/, %limits, action => $forbidden);
check('api_allowance', 'not there', qr/^f\|the reply has no DailyApiRequests/, %limits, action => { status => 200, body => '{}' });
check('login', 'no reply', qr/^f\|.*\|Look at the network/, match => { kind => 'token' }, action => { close => 'before' });
$sim->config(clock_offset => -3600);
check('clock_skew', 'an hour', qr/^f\|Salesforce's clock is 3\d+ s behind this server's\|Synchronize/);
$sim->config(clock_offset => 0);
check('mapping tree: external ID field', 'away', qr/^f\|Account has no field PG_Key__c that the integration user can see\|Perhaps it is Pg_Key2__c/,
	described(key => { name => 'Pg_Key2__c' }));
check('mapping tree: external ID field', 'no External ID', qr/^f\|Account.PG_Key__c is not an External ID field\|/, described(key => { externalId => 0 }));
check('mapping tree: external ID field', 'not unique', qr/^f\|Account.PG_Key__c is not unique\|/, described(key => { unique => 0 }));
check('mapping tree: external ID field', 'read only', qr/^f\|the integration user may not set Account.PG_Key__c\|/, described(key => { createable => 0 }));
check('mapping tree: permissions', 'none', qr/^f\|the integration user may not read, create, edit, delete records of Account\|/,
	described(createable => 0, updateable => 0, deletable => 0, queryable => 0));
check('mapping tree: object', 'refused', qr/^f\|HTTP status 403/, match => { kind => 'describe' }, action => $forbidden);
check('mapping tree: object', 'not JSON', qr/^f\|/, match => { kind => 'describe' }, action => { status => 200, body => '[' });

#
# check_mapping: what the metadata say against a mapping
#
sql(q{SELECT sfsync.pause();
UPDATE sfsync.object SET describe = (describe::jsonb || '{"createable": false, "updateable": false, "deletable": false}' || jsonb_build_object('fields',
	(SELECT jsonb_agg(CASE f ->> 'name' WHEN 'PG_Key__c' THEN f || '{"unique": false}'
		WHEN 'Fax' THEN f || '{"nillable": false, "defaultedOnCreate": false, "createable": true}' ELSE f END) FROM jsonb_array_elements(describe::jsonb -> 'fields') f)))::json
	WHERE object = 'Account';
SELECT sfsync.unmap_field('tree', 'Fax')});
is(sql(q{SELECT string_agg(severity || ' ' || coalesce(field, '-') || ' ' || left(finding, 44), '; ' ORDER BY severity COLLATE "C", field COLLATE "C", finding COLLATE "C")
	FROM sfsync.check_mapping('tree') WHERE severity <> 'info'}),
	'error Fax Salesforce requires the field when a record ; error - the integration user may not create records ; '
	  . 'error - the integration user may not delete records ; error - the integration user may not edit records of; '
	  . 'warning PG_Key__c the external ID is not unique in Salesforce:', 'check_mapping: rights, a key that is not unique, a required field');
sql(q{SELECT sfsync.refresh_schema(); SELECT sfsync.resume()});

#
# Asking Salesforce from a session
#
my $compare = q{SELECT count(*) FROM sfsync.compare('tree')};
$sim->fault(name => 'login', match => { kind => 'token' }, action => { status => 400, body => '{"error": "invalid_client", "error_description": "no"}' });
refused($compare, qr/could not ask Salesforce, server "crm".*invalid_client.*check_connection/s, 'compare: the login is refused');
$sim->fault(name => 'login', match => { kind => 'token' }, action => { close => 'before' });
refused($compare, qr/could not ask Salesforce, server "crm"/, 'compare: there is no login');
$sim->clear_faults;

#
# Without metadata
#
sql(q{CREATE SERVER nowhere FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1');
CREATE TABLE undescribed (id integer PRIMARY KEY, name text);
SELECT sfsync.create_mapping('undescribed', 'Account', 'PG_Key__c', 'delete', server => 'nowhere', backfill => false)});
refused(qq{\\set VERBOSITY verbose\n$_}, qr/ERROR:  55000/, "not described yet: $_")
  foreach q{SELECT * FROM sfsync.compare('undescribed')}, q{SELECT * FROM sfsync.check_mapping('undescribed')},
  q{SELECT * FROM sfsync.preview('undescribed', '{"id": 1}')};
sql(q{SELECT sfsync.drop_mapping('undescribed', true)});

#
# Capture
#
refused(q{CREATE TRIGGER wrong BEFORE INSERT ON undescribed FOR EACH ROW EXECUTE FUNCTION sfsync.capture(); INSERT INTO undescribed VALUES (1)},
	qr/must be fired AFTER ROW/, 'the row trigger, fired otherwise');
sql(q{DROP TRIGGER wrong ON undescribed});
refused(q{CREATE TRIGGER wrong BEFORE INSERT ON undescribed FOR EACH STATEMENT EXECUTE FUNCTION sfsync.capture_truncate(); INSERT INTO undescribed VALUES (1)},
	qr/must be fired by TRUNCATE/, 'the trigger of TRUNCATE, fired otherwise');
sql(q{DROP TABLE undescribed;
CREATE TABLE keyed (id integer PRIMARY KEY, code text NOT NULL UNIQUE, name text);
SELECT sfsync.create_mapping('keyed', 'Account', 'PG_Key__c', 'delete', server => 'crm', key_columns => '{code}', conflict_policy => 'source_wins');
ALTER TABLE keyed ALTER code DROP NOT NULL});
refused(q{INSERT INTO keyed VALUES (1, NULL, 'x')}, qr/null value in a key column of a table that is mapped to Salesforce.*NOT NULL/s, 'a key that has become null');
sql(q{INSERT INTO keyed VALUES (2, 'two', 'x')});
wait_for_sync($node, 'a key that is there: settled');
sql(q{ALTER TABLE keyed DROP COLUMN code; INSERT INTO keyed VALUES (3, 'x')});
poll_query($node, q{SELECT state FROM sfsync.status WHERE mapping = 'keyed'}, 'without its key column a mapping is blocked', expected => 'blocked');
sql(q{SELECT sfsync.drop_mapping('keyed', true)});

unlike(log_since($node, $log_start), qr/TRAP|terminated by signal|PANIC/, 'no crash');
done_testing();
