# Logins: each flow, what is wrong with one, and secrets that stay secret.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use Cwd qw(abs_path);
use HTTP::Tiny;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $client = '3MVG9sfsync.test.consumer.key';
my $secret = 'sfsync-test-secret';
my $refresh_token = '5Aep861.test.refresh';
my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name", phone AS "Phone" FROM account};
my $sim = simulator();
my $node = new_node('auth', conf => "log_min_messages = debug1\nlog_statement = none\nsfsync.retry_max_delay = '1min'\n");
my $directory = abs_path(PostgreSQL::Test::Utils::tempdir());
my $id = 0;
my $since = 0;

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub setting
{
	my ($name, $value) = @_;

	sql("ALTER SYSTEM SET $name = '$value'");
	sql('SELECT pg_reload_conf()');
	return;
}

sub refused
{
	my ($statement, $pattern, $name, %options) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement", %options);

	isnt($rc, 0, "$name: refused");
	like($err, $pattern, $name);
	return $err;
}

sub write_file
{
	my ($name, $content, $mode) = @_;
	my $path = "$directory/$name";

	unlink $path;
	append_to_file($path, $content);
	chmod($mode, $path) or die "chmod $path: $!";
	return $path;
}

sub user_mapping
{
	my ($options) = @_;

	$since = $sim->mark;
	sql("DROP USER MAPPING IF EXISTS FOR PUBLIC SERVER crm; CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS ($options)");
	return;
}

# What check_connection finds wrong.
sub wrong
{
	return sql(q{SELECT coalesce(string_agg(check_name, ', '), '') FROM sfsync.check_connection('crm') WHERE NOT ok});
}

# One row more is delivered, and one login was needed since the last time or change of credentials; its form is returned.
sub delivers
{
	my ($name) = @_;

	$id++;
	sql("INSERT INTO account (id, name) VALUES ($id, 'row $id')");
	wait_for_sync($node, "$name: settled");
	same_records($node, $sim, 'Account', $accounts, "$name: records equal the table");
	is(sql(q{SELECT state FROM sfsync.server_status}), 'active', "$name: active");
	my @logins = $sim->requests($since, 'token');
	is(scalar(@logins), 1, "$name: one login");
	is(wrong(), '', "$name: check_connection finds nothing wrong");
	$since = $sim->mark;
	return @logins ? $logins[0]->{body} : '';
}

# One row more stays pending, and the server is blocked for a reason.
sub blocks
{
	my ($pattern, $name) = @_;
	my $before = $sim->count('Account');
	my $detail;

	$id++;
	sql("INSERT INTO account (id, name) VALUES ($id, 'row $id')");
	poll_until(
		sub {
			$detail = sql(q{SELECT state || ': ' || coalesce(detail, '') FROM sfsync.server_status});
			return $detail =~ /^blocked: / && $detail =~ $pattern;
		},
		undef, 10);
	like($detail, qr/^blocked: /, "$name: blocked");
	like($detail, $pattern, "$name: the reason is shown");
	is(sql(q{SELECT state, pending > 0, dead_letters FROM sfsync.status}), 'blocked|t|0', "$name: the change waits");
	is($sim->count('Account'), $before, "$name: nothing arrives");
	isnt(wrong(), '', "$name: check_connection says so too");
	return $detail;
}

sub new_key
{
	my ($name) = @_;

	system_or_bail('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=sfsync',
		'-keyout', "$directory/$name.key", '-out', "$directory/$name.crt");
	chmod(0600, "$directory/$name.key");
	return (slurp_file("$directory/$name.key"), slurp_file("$directory/$name.crt"));
}

$sim->config(keep_bodies => JSON::PP::true);
connect_salesforce($node, $sim);
account_table($node);

#
# client_credentials
#
my $form = delivers('client_credentials');
like($form, qr/\bgrant_type=client_credentials\b/, 'client_credentials is the default');

#
# Addresses
#
refused(q{CREATE SERVER bad FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://acme.my.salesforce.com')},
	qr/login_url.*http/s, 'http to a foreign host');
foreach my $url ('http://127.0.0.1.example.com', 'http://127.0.0.1@example.com/', 'http://localhost.example.com', 'ftp://127.0.0.1',
	'https://', 'https://user:pass@acme.my.salesforce.com', "https://acme.my.salesforce.com\r\nX: y", '')
{
	my $shown = $url =~ s/[\r\n]+/ /gr;
	my $quoted = $url =~ s/\r/\\r/gr =~ s/\n/\\n/gr;

	refused("CREATE SERVER bad FOREIGN DATA WRAPPER sfsync OPTIONS (login_url E'$quoted')", qr/login_url/, "login_url \"$shown\"");
}
is(sql(q{SELECT count(*) FROM pg_foreign_server}), '1', 'none of them was made');
sql(q{CREATE SERVER good FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://acme.my.salesforce.com')});
refused(q{ALTER SERVER good OPTIONS (SET login_url 'http://acme.my.salesforce.com')}, qr/login_url/, 'ALTER SERVER to http');
sql(q{DROP SERVER good});

# A token reply that sends us elsewhere.
my $elsewhere = simulator();
foreach my $case (
	[ 'http://localhost.example.com:' . $elsewhere->port, 'a foreign host over http' ],
	[ 'ftp://127.0.0.1:' . $elsewhere->port, 'another scheme' ],
	[ 'http://127.0.0.1:' . $sim->port . '@example.com', 'a host behind a user name' ],
	[ 'no address', 'no address' ])
{
	my ($url, $name) = @$case;
	my $mark = $sim->mark;

	$sim->config(instance_url => $url);
	$sim->post('expire_tokens', {});
	blocks(qr/instance_url/, "instance_url of $name");
	is(scalar(grep { $_->{kind} !~ /^(?:token|versions)$/ && ($_->{status} // 0) != 401 } $sim->requests($mark)), 0, "instance_url of $name: nothing is sent with the new token");
	$sim->config(instance_url => undef);
	sql(q{ALTER SERVER crm OPTIONS (ADD auto_assign 'false')});
	wait_for_sync($node, "instance_url of $name: settled after a repair");
	sql(q{ALTER SERVER crm OPTIONS (DROP auto_assign)});
	wait_for_sync($node, "instance_url of $name: settled");
}
is(scalar($elsewhere->requests(0)), 0, 'the other host heard nothing');
$sim->config(instance_url => $elsewhere->url);
$sim->post('expire_tokens', {});
$id++;
sql("INSERT INTO account (id, name) VALUES ($id, 'row $id')");
poll_until(sub { $elsewhere->requests(0) }, 'another port of this host is taken: requests go where instance_url says');
$sim->config(instance_url => undef);
sql(q{ALTER SERVER crm OPTIONS (ADD auto_assign 'false')});
wait_for_sync($node, 'back: settled');

# https elsewhere is as good as in login_url, but what is not there can't take a token.
$sim->config(instance_url => 'https://elsewhere.invalid');
$sim->post('expire_tokens', {});
$id++;
sql("INSERT INTO account (id, name) VALUES ($id, 'row $id')");
poll_query($node, q{SELECT state IN ('blocked', 'backing_off') AND detail ~ 'elsewhere' FROM sfsync.server_status}, 'instance_url of a host that is not there: the host is named');
$sim->config(instance_url => undef);
sql(q{ALTER SERVER crm OPTIONS (DROP auto_assign)});
wait_for_sync($node, 'back from there: settled');
$since = $sim->mark;
$sim->post('expire_tokens', {});
delivers('the right instance_url');

#
# jwt_bearer
#
my ($key, $certificate) = new_key('right');
my ($other_key, $other_certificate) = new_key('other');
my $jwt = "client_id '$client', auth_flow 'jwt_bearer', username 'integration\@sfsync.example'";

$sim->post('app', { client_id => $client, certificate => $certificate });
user_mapping("$jwt, private_key '$key'");
$form = delivers('jwt_bearer');
like($form, qr/grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer/i, 'jwt_bearer asks by assertion');
unlike($form, qr/client_secret|PRIVATE/, 'and sends no secret');
user_mapping("$jwt, private_key '$other_key'");
blocks(qr/invalid_grant|invalid assertion/, 'jwt_bearer with a wrong key');
user_mapping("$jwt, private_key '$key'");
delivers('jwt_bearer with the right key again');
user_mapping("$jwt, private_key 'no key at all'");
unlike(blocks(qr/private key/, 'a private key that is none'), qr/no key at all/, 'the text of the key is not shown');
user_mapping("client_id '$client', auth_flow 'jwt_bearer', username 'nobody\@sfsync.example', private_key '$key'");
blocks(qr/invalid_grant|invalid_app_access/, 'jwt_bearer of an unknown user');
my $loose = write_file('loose.key', $key, 0644);
refused("ALTER USER MAPPING FOR PUBLIC SERVER crm OPTIONS (DROP private_key, ADD private_key_file '$loose')",
	qr/42501.*\Q$loose\E.*others/s, 'a private key that all may read');
my $key_file = write_file('jwt.key', $key, 0600);
user_mapping("$jwt, private_key_file '$key_file'");
delivers('jwt_bearer by file');

# A key that is replaced at both ends is taken up by the next look, without any change of options.
$sim->post('app', { client_id => $client, certificate => $other_certificate });
setting('sfsync.retry_max_delay', '300ms');
$sim->post('expire_tokens', {});
blocks(qr/invalid_grant|invalid assertion/, 'jwt_bearer with a certificate that was replaced');
write_file('jwt.key', $other_key, 0600);
wait_for_sync($node, 'a key replaced in its file: settled');
same_records($node, $sim, 'Account', $accounts, 'a key replaced in its file is taken up');
setting('sfsync.retry_max_delay', '1min');

#
# refresh_token
#
my $refresh = "client_id '$client', client_secret '$secret', auth_flow 'refresh_token'";

user_mapping("$refresh, refresh_token '$refresh_token'");
like(delivers('refresh_token'), qr/grant_type=refresh_token/, 'refresh_token asks by it');
user_mapping("$refresh, refresh_token '5Aep861.revoked'");
unlike(blocks(qr/invalid_grant/, 'refresh_token that was revoked'), qr/5Aep861/, 'the token is not shown');
my $refresh_file = write_file('refresh', "$refresh_token\n", 0600);
user_mapping("$refresh, refresh_token_file '$refresh_file'");
delivers('refresh_token by file');

#
# Files
#
my $secret_file = write_file('secret', "$secret\n", 0600);
my $by_file = "CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id '$client', client_secret_file";

user_mapping("client_id '$client', client_secret_file '$secret_file'");
like(delivers('client_secret by file'), qr/client_secret=\Q$secret\E(?:&|$)/, 'the end of the line is no part of it');
sql(q{DROP USER MAPPING FOR PUBLIC SERVER crm});
chmod(0644, $secret_file);
refused("$by_file '$secret_file')", qr/42501.*\Q$secret_file\E.*others/s, 'a file that all may read');
chmod(0640, $secret_file);
refused("$by_file '$secret_file')", qr/\Q$secret_file\E.*others/s, 'a file that a group may read');
chmod(0602, $secret_file);
refused("$by_file '$secret_file')", qr/\Q$secret_file\E.*others/s, 'a file that all may write');
refused("$by_file '$directory')", qr/\Q$directory\E.*not a regular file/s, 'a directory');
refused("$by_file 'secret')", qr/client_secret_file.*absolute/s, 'a relative path');
chmod(0600, $secret_file);
refused("$by_file '$secret_file', client_secret 'x')", qr/client_secret.*exclude/s, 'a secret and a file');
sql(qq{CREATE ROLE owner LOGIN; GRANT USAGE ON FOREIGN SERVER crm TO owner; ALTER SERVER crm OWNER TO owner});
refused("CREATE USER MAPPING FOR owner SERVER crm OPTIONS (client_id 'x', client_secret_file '$secret_file')",
	qr/42501.*client_secret_file/s, 'a file named by one who is no superuser', extra_params => [ '-U', 'owner' ]);
is(sql(q{SELECT count(*) FROM pg_user_mapping}), '0', 'none of them was made');
user_mapping("client_id '$client', client_secret_file '$secret_file'");
delivers('the file again');

# The file spoils later.
chmod(0644, $secret_file);
$sim->post('expire_tokens', {});
blocks(qr/\Q$secret_file\E.*others/s, 'a file that was opened to all later');
chmod(0600, $secret_file);
user_mapping("client_id '$client', client_secret_file '$secret_file', username 'touched'");
delivers('a file that was closed again');
unlink $secret_file;
$sim->post('expire_tokens', {});
blocks(qr/\Q$secret_file\E.*No such file/s, 'a file that went away');
user_mapping("client_id '$client', client_secret '$secret'");
delivers('inline');

#
# Nothing to log in with
#
sql(q{DROP USER MAPPING FOR PUBLIC SERVER crm});
blocks(qr/no user mapping/, 'no user mapping');
user_mapping("client_id 'unknown', client_secret '$secret'");
blocks(qr/invalid_client/, 'an unknown consumer key');
user_mapping("client_id '$client', client_secret '$secret'");
delivers('a user mapping');

#
# Whose user mapping
#
sql(q{GRANT USAGE ON SCHEMA sfsync TO owner; GRANT EXECUTE ON FUNCTION sfsync.create_mapping TO owner; GRANT CREATE ON SCHEMA public TO owner});
sql("CREATE USER MAPPING FOR owner SERVER crm OPTIONS (client_id '$client', client_secret 'not-the-secret')");
sql(q{SET ROLE owner; CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text); INSERT INTO lead VALUES (1, 'Lead', 'Co');
	SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
poll_query($node, q{SELECT state, detail ~ 'invalid_client' FROM sfsync.status WHERE mapping = 'lead'}, 'the user mapping of the owner is used', expected => 'blocked|t');
is($sim->count('Lead'), 0, 'and not that of PUBLIC');
sql(qq{ALTER USER MAPPING FOR owner SERVER crm OPTIONS (SET client_secret '$secret')});
wait_for_sync($node, 'the owner\'s user mapping put right: settled');
is($sim->count('Lead'), 1, 'the owner\'s user mapping put right');
sql(q{SELECT sfsync.drop_mapping('lead')});
sql(q{DROP TABLE lead; DROP USER MAPPING FOR owner SERVER crm});
$since = $sim->mark;
$sim->post('expire_tokens', {});
delivers('the user mapping of PUBLIC');

#
# A login that doesn't tell who we are
#
$sim->config(token_id => JSON::PP::false);
$sim->post('delete', { object => 'Lead', match => { PG_Key__c => '1' } });
sql('CREATE DATABASE nameless');
my $nameless = sub { return $node->safe_psql('nameless', $_[0]) };
my $who_asked = sub { return scalar(grep { $_->{path} =~ m{/oauth2/userinfo$} } $sim->requests($_[0])) };
my $mark = $sim->mark;

connect_salesforce($node, $sim, database => 'nameless');
$nameless->(q{CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text);
	SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete');
	INSERT INTO lead SELECT i, 'Lead ' || i, 'Co' FROM generate_series(1, 5) i});
wait_for_sync($node, 'a login without id: settled', database => 'nameless');
is(join(' ', map { $_->{kind} eq 'other' ? 'userinfo' : $_->{kind} } ($sim->requests($mark))[ 0 .. 3 ]),
	'token userinfo limits describe', 'a login without id: it is asked who we are, before anything else');
is($who_asked->($mark), 1, 'once');
my $me = JSON::PP->new->decode(HTTP::Tiny->new(default_headers => {
		Authorization => 'Bearer '
		  . JSON::PP->new->decode(HTTP::Tiny->new->post_form($sim->url . '/services/oauth2/token',
			{ grant_type => 'client_credentials', client_id => $client, client_secret => $secret })->{content})->{access_token} })
	->get($sim->url . '/services/oauth2/userinfo')->{content});
is($nameless->(q{SELECT user_id, organization_id FROM sfsync.server_status}), "$me->{user_id}|$me->{organization_id}", 'server_status shows it');

# Our own writes are known for ours: no conflict, whatever comes within a second or is altered by automation.
foreach my $i (11 .. 15)
{
	$nameless->("INSERT INTO lead VALUES ($i, 'Short', 'lived')");
	wait_for_sync($node, undef, database => 'nameless');
	$nameless->("DELETE FROM lead WHERE id = $i");
}
wait_for_sync($node, 'rows that are deleted at once: settled', database => 'nameless');
is($sim->count('Lead'), 5, 'so are their records');
$sim->post('automation', { object => 'Lead', when => 'save', set => { Company => 'ALTERED' } });
foreach my $company ('one', 'two', 'three')
{
	$nameless->("UPDATE lead SET company = '$company' WHERE id <= 3");
	wait_for_sync($node, "a value that automation alters, $company: settled", database => 'nameless');
}
$sim->post('automation', { clear => JSON::PP::true });
$nameless->(q{UPDATE lead SET company = 'last'});
wait_for_sync($node, 'a value that automation altered: settled', database => 'nameless');
is(join(' ', map { $_->{Company} } @{ $sim->get('records?object=Lead&fields=Company') }), 'last last last last last', 'the value arrives');
is($nameless->(q{SELECT count(*) FROM sfsync.conflict}), '0', 'none of that is a conflict');

# The permission set of fields that are created goes to us.
$nameless->(q{SELECT sfsync.alter_mapping('lead', new_columns => 'create_field')});
$nameless->(q{ALTER TABLE lead ADD COLUMN shoe_size text});
poll_query($node, q{SELECT status, field FROM sfsync.field_map WHERE column_name = 'shoe_size'}, 'a field is created', database => 'nameless', expected => 'mapped|Shoe_Size__c');
is(join(' ', map { $_->{AssigneeId} } @{ $sim->get('records?object=PermissionSetAssignment&fields=AssigneeId') }), $me->{user_id}, 'and assigned to us');

# The session of a user, which logs in by itself, learns it too: what our user left different is repaired.
$sim->post('edit', { object => 'Lead', match => { PG_Key__c => '1' }, fields => { Company => 'tool' }, user => 'integration' });
my $edited = int(time());
poll_until(sub { int(time()) > $edited }); # within one second Salesforce's value would stay
my ($compared, $differences, $notice) = $node->psql('nameless', q{SELECT kind, field, salesforce_value FROM sfsync.compare('lead', repair => true)});
is($differences, 'different|Company|"tool"', 'compare');
like($notice, qr/repair: 1 rows are queued/, 'repairs what our user changed');
wait_for_sync($node, 'compare: settled', database => 'nameless');

# Refused, or not named: it goes on without.  One that fails is asked again, but not for ever.
foreach my $case (
	[ 'refused', { status => 403, body => 'Bad_OAuth_Token' }, 1 ],
	[ 'unauthorized', { status => 401, body => '' }, 1 ],
	[ 'not there', { status => 404, body => '' }, 1 ],
	[ 'no user named', { status => 200, body => '{"sub": "x", "user_id": 7}' }, 1 ],
	[ 'unavailable', { status => 503, body => '' }, 3 ])
{
	my ($name, $action, $hits) = @$case;

	$sim->fault(name => 'userinfo', match => { path => '/oauth2/userinfo' }, action => $action);
	$sim->post('expire_tokens', {});
	$nameless->("UPDATE lead SET last_name = '$name'");
	wait_for_sync($node, "userinfo $name: settled", database => 'nameless');
	is(join(' ', map { $_->{LastName} } @{ $sim->get('records?object=Lead&fields=LastName') }), join(' ', ($name) x 5), "userinfo $name: changes go");
	is($sim->hits('userinfo'), $hits, "userinfo $name: how often it is asked");
	is($nameless->(q{SELECT user_id FROM sfsync.server_status}), $me->{user_id}, "userinfo $name: what was known stays");
	$sim->clear_faults;
}
$sim->fault(name => 'userinfo', match => { path => '/oauth2/userinfo' }, times => 1, action => { close => 'before' });
$sim->post('expire_tokens', {});
$mark = $sim->mark;
$nameless->(q{INSERT INTO lead VALUES (21, 'After', 'a drop')});
wait_for_sync($node, 'userinfo dropped: settled', database => 'nameless');
cmp_ok($who_asked->($mark), '>=', 2, 'userinfo dropped: it is asked again');
$nameless->(q{DELETE FROM lead WHERE id = 21});
wait_for_sync($node, 'userinfo dropped: settled again', database => 'nameless');
is($nameless->(q{SELECT count(*) FROM sfsync.conflict}), '0', 'userinfo dropped: no conflict');
$sim->clear_faults;
$sim->config(token_id => JSON::PP::true);
$sim->post('expire_tokens', {});
$mark = $sim->mark;
$nameless->(q{INSERT INTO lead VALUES (22, 'With', 'id')});
wait_for_sync($node, 'a login with id: settled', database => 'nameless');
is($who_asked->($mark), 0, 'a login with id: userinfo is not asked');
$nameless->('DROP EXTENSION sfsync CASCADE');
$since = $sim->mark;
$sim->post('expire_tokens', {});
delivers('the first database again');

#
# Secrets stay secret
#
my @watched;
my $watch = session($node);

$sim->config(latency => 0.02);
foreach (1 .. 5)
{
	$sim->post('expire_tokens', {});
	delivers("with a slow login, $_");
	push @watched, $watch->query(q{SELECT json_agg(a) FROM pg_stat_activity a WHERE pid <> pg_backend_pid()});
}
$sim->config(latency => 0);

# Every text a server may show: failures of all kinds, told at debug1.
foreach my $body ('<html>down</html>', '[{"message": "No", "errorCode": "SERVER_UNAVAILABLE"}]')
{
	$sim->fault(name => 'fault', times => 2, match => { kind => [ 'token', 'collections_upsert' ] }, action => { status => 503, body => $body });
	$sim->post('expire_tokens', {});
	$id++;
	sql("INSERT INTO account (id, name) VALUES ($id, 'row $id')");
	poll_until(sub { $sim->hits('fault') == 2 }, 'a failing login is tried again');
	wait_for_sync($node, 'failing logins: settled');
	$sim->clear_faults;
}
sql(q{SELECT * FROM sfsync.check_connection('crm')});

# The tokens that were given out: those of replies are known to the simulator alone, so ask it for one as a client and learn the form.
my $reply = HTTP::Tiny->new->post_form($sim->url . '/services/oauth2/token',
	{ grant_type => 'client_credentials', client_id => $client, client_secret => $secret });
my $token = JSON::PP->new->decode($reply->{content})->{access_token};
my ($organization) = $token =~ /^([^!]+)!/;
ok($organization, 'access tokens have a form that can be told');

my $key_body = (split /\n/, $key)[5];
my %secrets = (
	'the client secret' => qr/\Q$secret\E/,
	'an access token' => qr/\Q$organization\E!/,
	'a wrong secret' => qr/not-the-secret/,
	'a refresh token' => qr/5Aep861/,
	'a private key' => qr/\Q$key_body\E|BEGIN [A-Z ]*PRIVATE KEY/,
	'a bearer header' => qr/Bearer/i,
	'an assertion' => qr/eyJ[A-Za-z0-9_-]{10}|assertion=/);
my $log = log_since($node);
my $tables = sql(q{SELECT string_agg(format('SELECT %L, to_jsonb(t)::text FROM sfsync.%I t', relname, relname), ' UNION ALL ')
	FROM pg_class WHERE relnamespace = 'sfsync'::regnamespace AND relkind IN ('r', 'v', 'm', 'p')});
my $contents = sql($tables);

like($log, qr/DEBUG: /, 'the log is of debug1');
like($contents, qr/server_state/, 'the tables are not empty');
like(join('', @watched), qr/sfsync worker/, 'the worker was watched');
foreach my $name (sort keys %secrets)
{
	unlike($log, $secrets{$name}, "$name is not in the server's log");
	unlike($contents, $secrets{$name}, "$name is not in sfsync's tables and views");
	unlike(join("\n", @watched), $secrets{$name}, "$name is not in pg_stat_activity");
}

# Nor may others see them.
sql(q{CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor});
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_user_mappings WHERE umoptions::text LIKE '%client_secret%'}, extra_params => [ '-U', 'monitor' ]),
	'0', 'pg_monitor does not see the options of user mappings');
unlike($node->safe_psql('postgres', q{SELECT json_agg(s) FROM sfsync.server_status s}, extra_params => [ '-U', 'monitor' ]),
	qr/\Q$secret\E/, 'nor secrets in server_status');
$watch->quit;

same_state($node, 'nothing is left on the way');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', 'no login made a dead letter');
is($sim->created('Account'), $id, 'each row was created once');
is(0 + $sim->stats->{same_record_overlap}, 0, 'two writes of one record were never in flight together');
unlike($log, qr/PANIC|TRAP|terminated by signal/, 'no crash');
$node->stop;
done_testing();
