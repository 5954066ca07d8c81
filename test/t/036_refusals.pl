# Whatever Salesforce answers, it is not asked on and on: each error code of the reference for a record, under each policy,
# ends in a dead letter or a pause, and what goes well beside it (reads) doesn't hide that writes fail.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;
use Time::HiRes qw(time);

my $writes = [qw(collections_upsert collections_create collections_update composite)];
my $sim = simulator();
my $node = new_node('refusals', conf => "sfsync.max_attempts = 3\n");

# For a record (reference, section 12), but those that stop a mapping or connection.
my @codes = qw(
  UNABLE_TO_LOCK_ROW UNKNOWN_EXCEPTION TOO_MANY_APEX_REQUESTS TXN_SECURITY_METERING_ERROR INTERNAL_ERROR
  PLATFORM_EVENT_PUBLISHING_UNAVAILABLE CONFLICT PROCESSING_HALTED ALL_OR_NONE_OPERATION_ROLLED_BACK BATCH_PROCESSING_HALTED
  REQUIRED_FIELD_MISSING FIELD_CUSTOM_VALIDATION_EXCEPTION FIELD_FILTER_VALIDATION_EXCEPTION FIELD_INTEGRITY_EXCEPTION
  STRING_TOO_LONG INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST INVALID_EMAIL_ADDRESS NUMBER_OUTSIDE_VALID_RANGE
  INVALID_TYPE_ON_FIELD_IN_RECORD JSON_PARSER_ERROR MALFORMED_ID INVALID_ID_FIELD DUPLICATE_VALUE DUPLICATE_EXTERNAL_ID
  DUPLICATES_DETECTED INVALID_CROSS_REFERENCE_KEY INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY
  INSUFFICIENT_ACCESS_OR_READONLY CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY CANNOT_EXECUTE_FLOW_TRIGGER ENTITY_IS_DELETED
  ENTITY_IS_LOCKED ALREADY_IN_PROCESS DELETE_FAILED DEPENDENCY_EXISTS INACTIVE_OWNER_OR_USER INVALID_CURRENCY_ISO
  INVALID_RECORD_TYPE UNAVAILABLE_RECORDTYPE_EXCEPTION MISSING_ARGUMENT CIRCULAR_DEPENDENCY TRANSFER_REQUIRES_READ
  SELF_REFERENCE_FROM_TRIGGER MIXED_DML_OPERATION ERROR_IN_MAILER LIMIT_EXCEEDED FILTERED_LOOKUP_LIMIT_EXCEEDED NOT_FOUND
  TXN_SECURITY_NO_ACCESS NEVER_HEARD_OF);

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub calls
{
	my ($mark) = @_;
	return scalar($sim->requests($mark));
}

connect_salesforce($node, $sim);
sql('CREATE TABLE account (id integer PRIMARY KEY, name text, phone text)');

foreach my $policy (qw(source_wins newest_wins strict))
{
	sql(qq{TRUNCATE account; SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => '$policy')});
	sql(q{INSERT INTO account SELECT i, 'there' FROM generate_series(1, 100) i});
	wait_for_sync($node, "$policy: records to be updated");

	foreach my $n (0 .. $#codes)
	{
		$sim->fault(name => $codes[$n], record => { object => 'Account', match => { Name => $codes[$n] },
				error => { statusCode => $codes[$n], message => "says $codes[$n]", fields => [] } });
	}
	my $mark = $sim->mark;
	my $values = join(', ', map { "($_, '$codes[$_]')" } 0 .. $#codes);
	sql(qq{INSERT INTO account SELECT 1001 + n, code FROM (VALUES $values) v(n, code);
		INSERT INTO account VALUES (2000, 'good');
		UPDATE account a SET name = code FROM (VALUES $values) v(n, code) WHERE a.id = 1 + n});
	wait_for_sync($node, "$policy: settled");
	my $calls = calls($mark);
	cmp_ok($calls, '<', 150, "$policy: in $calls calls");
	is($sim->record('Account', '2000')->{Name}, 'good', "$policy: what is good goes through");
	my $refused = sql(qq{SELECT count(DISTINCT external_id) FROM sfsync.dead_letter WHERE mapping = 'account' AND status = 'open' AND error_message = 'says ' || error_code});
	is($refused, 2 * @codes, "$policy: all others are dead letters, with their codes");
	is(sql(q{SELECT state || ' ' || pending FROM sfsync.status}), 'active 0', "$policy: and nothing else stops for them");
	$sim->clear_faults;
	sql(q{SELECT sfsync.drop_mapping('account', true)});
	$sim->post('reset', { keep_schema => JSON::PP::true() });
	sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'}); # its token died with the reset
}

#
# What may speak of the mapping or the server, but is one record's or one job's
#
sql(q{TRUNCATE account; CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text DEFAULT 'C');
	SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete'), sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'hard_delete');
	INSERT INTO account SELECT i, 'there' FROM generate_series(1, 20) i; INSERT INTO lead VALUES (1, 'one'), (2, 'two')});
wait_for_sync($node, 'records for the next');
foreach my $code (qw(INVALID_FIELD_FOR_INSERT_UPDATE INVALID_FIELD INVALID_TYPE))
{
	$sim->fault(name => $code, record => { object => 'Account', match => { Phone => "bad $code" },
			error => { statusCode => $code, message => 'one record alone', fields => ['Phone'] } });
	sql(qq{UPDATE account SET phone = CASE id WHEN 7 THEN 'bad ' ELSE 'good ' END || '$code'});
	wait_for_sync($node, "$code of one record: settled");
	is(sql(q{SELECT external_id || ' ' || error_code FROM sfsync.dead_letter WHERE status = 'open'}), "7 $code", "$code of one record: it is a dead letter");
	is(scalar(grep { ($_->{Phone} // '') eq "good $code" } @{ $sim->records('Account') }), 19, "$code of one record: the others arrive");
	is(sql(q{SELECT state FROM sfsync.status WHERE mapping = 'account'}), 'active', "$code of one record: the mapping goes on");
	sql(q{UPDATE account SET phone = 'mended' WHERE id = 7});
	wait_for_sync($node, "$code of one record: mended");
}
$sim->fault(name => 'all', record => { object => 'Account',
		error => { statusCode => 'INVALID_FIELD_FOR_INSERT_UPDATE', message => 'Unable to create/update fields: Phone', fields => ['Phone'] } });
sql(q{UPDATE account SET phone = 'of two' WHERE id <= 2});
poll_query($node, q{SELECT state FROM sfsync.status WHERE mapping = 'account'}, 'what all records share blocks the mapping, though they are few', expected => 'blocked');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), '0', 'and makes no dead letters');
$sim->clear_faults;
wait_for_sync($node, 'few records: settled');
foreach my $code (qw(STORAGE_LIMIT_EXCEEDED EXCEEDED_QUOTA))
{
	$sim->fault(name => 'full', record => { object => 'Account', match => { Name => $code }, error => { statusCode => $code, message => 'storage limit exceeded', fields => [] } });
	sql(qq{INSERT INTO account VALUES (3000 + length('$code'), '$code'); UPDATE account SET phone = '$code' WHERE id <= 20});
	poll_until(sub { 20 == grep { ($_->{Phone} // '') eq $code } @{ $sim->records('Account') } }, "$code: records that are there are changed");
	poll_query($node, qq{SELECT state, pending, dead_letters, last_error ~ '$code' FROM sfsync.status WHERE mapping = 'account'}, "$code: a new one waits", expected => 'active|1|0|t');
	my $mark = $sim->mark;
	poll_until(sub { $sim->hits('full') >= 3 }, "$code: it is tried again");
	cmp_ok(calls($mark), '<', 20, "$code: now and then");
	$sim->clear_faults;
	wait_for_sync($node, "$code: room again");
	is($sim->record('Account', 3000 + length $code)->{Name}, $code, "$code: and it arrives");
}
sql(q{DELETE FROM account WHERE id > 20});
wait_for_sync($node, 'room again: deleted');
$sim->fault(name => 'jobs', match => { kind => 'bulk_create' }, action => { status => 403, body => '[{"errorCode":"INSUFFICIENT_ACCESS","message":"no jobs for you"}]' });
sql(q{DELETE FROM lead WHERE id = 1; UPDATE account SET phone = 'meanwhile'; UPDATE lead SET company = 'meanwhile' WHERE id = 2});
poll_until(sub { 20 == grep { ($_->{Phone} // '') eq 'meanwhile' } @{ $sim->records('Account') } }, 'no jobs of hard deletes: other mappings go on');
poll_until(sub { 1 == grep { $_->{Company} eq 'meanwhile' } @{ $sim->records('Lead') } }, 'no jobs of hard deletes: so do changes of this one');
is(sql(q{SELECT state FROM sfsync.server_status}), 'active', 'no jobs of hard deletes: the server is not to blame');
poll_query($node, q{SELECT reason ~ 'no jobs for you' FROM sfsync.deferred}, 'no jobs of hard deletes: the delete waits, and says why');
is($sim->count('Lead'), 2, 'no jobs of hard deletes: nothing is deleted in another way');
$sim->clear_faults;
sql(q{SELECT sfsync.drop_mapping('account', true), sfsync.drop_mapping('lead', true)});
$sim->post('reset', { keep_schema => JSON::PP::true() });
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});

#
# Reads go well, writes don't
#
foreach my $policy (qw(source_wins newest_wins strict))
{
	sql(qq{TRUNCATE account; SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete', conflict_policy => '$policy')});
	sql(q{INSERT INTO account VALUES (1, 'there')});
	wait_for_sync($node, "$policy: a record");

	$node->append_conf('postgresql.conf', "sfsync.retry_max_delay = '3s'\n");
	$node->reload;
	$sim->fault(name => 'down', match => { kind => $writes }, action => { status => 503, body => '<html>down</html>' });
	sql(q{UPDATE account SET phone = '1'});
	my $end = time() + 4;
	poll_until(sub { time() >= $end });
	cmp_ok($sim->hits('down'), '<=', 25, "$policy: writes that fail are tried the less often the longer it lasts: " . $sim->hits('down'));
	cmp_ok($sim->hits('down'), '>=', 3, "$policy: but again");
	is(sql(q{SELECT state FROM sfsync.status}), 'backing_off', "$policy: status says so all the time");
	$sim->clear_faults;
	$node->append_conf('postgresql.conf', "sfsync.retry_max_delay = '300ms'\n");
	$node->reload;
	wait_for_sync($node, "$policy: when they go well again");
	is($sim->record('Account', '1')->{Phone}, '1', "$policy: it arrives");
	poll_query($node, q{SELECT state FROM sfsync.status}, "$policy: active", expected => 'active');

	$sim->fault(name => 'expired', match => { kind => $writes },
		action => { status => 401, body => '[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]' });
	my $mark = $sim->mark;
	sql(q{UPDATE account SET phone = '2'});
	poll_query($node, q{SELECT state FROM sfsync.status}, "$policy: a fresh session is refused, too: blocked", expected => 'blocked');
	cmp_ok(scalar(grep { $_->{path} =~ m{/oauth2/token} } $sim->requests($mark)), '<=', 3, "$policy: without a storm of logins");
	$sim->clear_faults;
	wait_for_sync($node, "$policy: when it is taken again");
	sql(q{SELECT sfsync.drop_mapping('account', true)});
	$sim->post('reset', { keep_schema => JSON::PP::true() });
	sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});
}

done_testing();
