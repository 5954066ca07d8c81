# Ways to log in, and secrets that stay secret.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
# Statements are not logged here: a password or secret in a statement is for who logs statements to keep.
my $node = new_node('auth', conf => "log_min_messages = debug1\nlog_statement = none\nlog_min_error_statement = panic\nsfsync.schema_ttl = '1s'\n");
my $accounts = q{SELECT id::text AS "PG_Key__c", name AS "Name" FROM account};
my $dir = PostgreSQL::Test::Utils::tempdir();
my $n = 0;

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub refused
{
	my ($statement, $pattern, $name) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $statement);

	isnt($rc, 0, "$name: refused");
	like($err, $pattern, "$name: with the reason");
	return;
}

sub secret_file
{
	my ($name, $content, $mode) = @_;
	my $file = "$dir/$name";

	unlink $file;
	append_to_file($file, $content);
	chmod(defined $mode ? $mode : 0600, $file);
	return $file;
}

sub user_mapping
{
	my ($options) = @_;

	sql(qq{DROP USER MAPPING IF EXISTS FOR PUBLIC SERVER crm; CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS ($options)});
	return;
}

# The next change is delivered after a login of that kind.
sub delivers
{
	my ($name, $grant) = @_;
	my $mark = $sim->mark;

	$n++;
	sql("INSERT INTO account (id, name) VALUES ($n, '$name')");
	wait_for_sync($node, "$name: settled", seconds => 15);
	same_records($node, $sim, 'Account', $accounts, "$name: records equal the table");
	my @logins = $sim->requests($mark, 'token');
	ok(@logins > 0, "$name: a login was made");
	like($logins[-1]->{body} // '', $grant, "$name: of the right kind") if defined $grant && $logins[-1]->{body};
	is(sql(q{SELECT count(*) FILTER (WHERE NOT ok) FROM sfsync.check_connection('crm') WHERE check_name <> 'environment'}), '0', "$name: check_connection finds nothing wrong");
	return;
}

# Nothing is delivered, and the state says why.
sub blocks
{
	my ($name, $pattern) = @_;

	$n++;
	sql("INSERT INTO account (id, name) VALUES ($n, 'blocked')");
	poll_query($node, q{SELECT state FROM sfsync.status}, "$name: blocked", expected => 'blocked');
	like(sql(q{SELECT detail FROM sfsync.status}), $pattern, "$name: with the reason");
	is(sql(q{SELECT bool_and(ok) FROM sfsync.check_connection('crm')}), 'f', "$name: check_connection says so too");
	return;
}

$sim->config(keep_bodies => JSON::PP::true);
connect_salesforce($node, $sim);
account_table($node);

#
# client_credentials
#
delivers('client_credentials', qr/grant_type=client_credentials/);
my $file = secret_file('secret', "sfsync-test-secret\n");
user_mapping("client_id '3MVG9sfsync.test.consumer.key', client_secret_file '$file'");
delivers('a secret in a file', qr/grant_type=client_credentials/);
refused(qq{ALTER USER MAPPING FOR PUBLIC SERVER crm OPTIONS (SET client_secret_file '} . secret_file('world', 'sfsync-test-secret', 0644) . q{')},
	qr/DETAIL|permission|others|readable/i, 'a file that the world may read');
refused(qq{ALTER USER MAPPING FOR PUBLIC SERVER crm OPTIONS (SET client_secret_file '} . secret_file('group', 'sfsync-test-secret', 0660) . q{')},
	qr/DETAIL|permission|group|others/i, 'a file that the group may write');
chmod(0644, $file);
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});
blocks('a file that the world may read later on', qr/\Q$file\E/);
chmod(0600, $file);
sql(q{ALTER USER MAPPING FOR PUBLIC SERVER crm OPTIONS (SET client_id '3MVG9sfsync.test.consumer.key')});
delivers('the file put right');
unlink $file;
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});
blocks('a file that is gone', qr/\Q$file\E/);
user_mapping("client_id '3MVG9sfsync.test.consumer.key', client_secret 'sfsync-test-secret'");
delivers('back again');

#
# refresh_token
#
user_mapping("auth_flow 'refresh_token', client_id '3MVG9sfsync.test.consumer.key', client_secret 'sfsync-test-secret', refresh_token '5Aep861.test.refresh'");
delivers('refresh_token', qr/grant_type=refresh_token/);
$file = secret_file('refresh', '5Aep861.test.refresh');
user_mapping("auth_flow 'refresh_token', client_id '3MVG9sfsync.test.consumer.key', client_secret 'sfsync-test-secret', refresh_token_file '$file'");
delivers('a refresh token in a file', qr/grant_type=refresh_token/);
user_mapping("auth_flow 'refresh_token', client_id '3MVG9sfsync.test.consumer.key', client_secret 'sfsync-test-secret', refresh_token 'revoked.secret'");
blocks('a revoked refresh token', qr/invalid_grant/);

#
# jwt_bearer
#
SKIP:
{
	my $key = "$dir/jwt.key";
	my $certificate = "$dir/jwt.crt";

	skip 'no openssl command', 1
	  if system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=sfsync -keyout $key -out $certificate >/dev/null 2>&1") != 0;
	chmod(0600, $key);
	$sim->post('app', { client_id => 'jwt.app', certificate => slurp_file($certificate), approved => JSON::PP::true, users => ['integration@sfsync.example'] });
	user_mapping("auth_flow 'jwt_bearer', client_id 'jwt.app', username 'integration\@sfsync.example', private_key_file '$key'");
	delivers('jwt_bearer', qr/jwt-bearer/);
	my $pem = slurp_file($key);
	user_mapping("auth_flow 'jwt_bearer', client_id 'jwt.app', username 'integration\@sfsync.example', private_key '$pem'");
	delivers('jwt_bearer with the key inline', qr/jwt-bearer/);
	user_mapping("auth_flow 'jwt_bearer', client_id 'jwt.app', username 'nobody\@sfsync.example', private_key '$pem'");
	blocks('jwt_bearer of another user', qr/invalid_grant|invalid_app_access|user/);
	refused("ALTER USER MAPPING FOR PUBLIC SERVER crm OPTIONS (DROP private_key, ADD private_key_file '"
		  . secret_file('loose.key', $pem, 0644) . "')", qr/permission|others|readable|DETAIL/i, 'a private key that the world may read');
	$pem =~ s/-----[A-Z ]+-----|\s//g;
	unlike(log_since($node), qr/\Q@{[ substr($pem, 100, 40) ]}\E/, 'the private key is not in the log');
}

#
# Where the token reply sends us
#
foreach my $url ('https://elsewhere.example.com', 'http://elsewhere.example.com', 'http://127.0.0.1.elsewhere.example.com', 'ftp://127.0.0.1', 'not a URL')
{
	user_mapping("client_id '3MVG9sfsync.test.consumer.key', client_secret 'sfsync-test-secret'");
	$sim->config(instance_url => $url);
	$sim->post('expire_tokens', {});
	sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});
	$n++;
	sql("INSERT INTO account (id, name) VALUES ($n, 'elsewhere')");
	poll_query($node, q{SELECT state IN ('blocked', 'backing_off') AND detail ~ 'instance_url|elsewhere|URL' FROM sfsync.status}, "instance_url $url is refused");
	$sim->config(instance_url => undef);
}
sql(q{ALTER USER MAPPING FOR PUBLIC SERVER crm OPTIONS (SET client_secret 'sfsync-test-secret')});
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});
delivers('the right instance_url');

#
# Whose user mapping
#
sql(q{CREATE ROLE owner LOGIN; GRANT USAGE ON FOREIGN SERVER crm TO owner; GRANT USAGE ON SCHEMA sfsync TO owner;
	GRANT EXECUTE ON FUNCTION sfsync.create_mapping TO owner; GRANT CREATE ON SCHEMA public TO owner});
sql(q{CREATE USER MAPPING FOR owner SERVER crm OPTIONS (client_id '3MVG9sfsync.test.consumer.key', client_secret 'not-the-secret')});
sql(q{SET ROLE owner; CREATE TABLE lead (id integer PRIMARY KEY, last_name text, company text); INSERT INTO lead VALUES (1, 'Lead', 'Co');
	SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete', conflict_policy => 'source_wins')});
poll_query($node, q{SELECT state FROM sfsync.server_status}, 'the user mapping of the owner is used', expected => 'blocked');
is($sim->count('Lead'), 0, 'and not that of PUBLIC');
sql(q{ALTER USER MAPPING FOR owner SERVER crm OPTIONS (SET client_secret 'sfsync-test-secret')});
wait_for_sync($node, 'put right: settled');
is($sim->count('Lead'), 1, 'put right');

#
# Secrets
#
my $log = log_since($node);
foreach my $secret ('sfsync-test-secret', '5Aep861.test.refresh', 'revoked.secret', 'not-the-secret')
{
	unlike($log, qr/\Q$secret\E/, "'$secret' is not in the log");
	is(sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%$secret%' AND pid <> pg_backend_pid()"), '0', 'nor in pg_stat_activity');
	my $views = join ' || ', map { "coalesce((SELECT string_agg(v::text, ',') FROM sfsync.$_ v), '')" }
	  qw(status server_status field_map dead_letter conflict backfill_progress queue deferred intent object mapping mapping_state server_state);
	is(sql("SELECT position('$secret' IN $views)"), '0', 'nor in views and tables');
}
unlike($log, qr/Bearer\s+\S|00D\w{12,15}!/, 'no access token in the log');
unlike($log, qr/PANIC|TRAP|terminated by signal/, 'no crash');
$node->stop;
done_testing();
