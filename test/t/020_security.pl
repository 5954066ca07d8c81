# Who may do what (the table in README.md, section Security, line by line), and an org that is not what it should be.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use Cwd qw(abs_path);
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;

my $sim = simulator();
my $node = new_node('security', conf => "log_min_messages = notice\nlog_statement = none\n");
my $denied = qr/42501.*permission denied/s;

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

# As a role: what it prints, or the error.
sub as
{
	my ($role, $statement) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement", extra_params => [ '-U', $role ]);

	return $rc == 0 ? $out : "error: $err";
}

sub refused
{
	my ($role, $statement, $pattern, $name) = @_;

	like(as($role, $statement), qr/^error: .*$pattern/s, "$role: $name");
	return;
}

# What was made in public to be called instead of the server's own; each call is logged.
sub traps
{
	return <<'SQL';
CREATE FUNCTION public.trapped(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'TRAPPED % as %', $1, current_user; END $$;
CREATE FUNCTION public.round(double precision, integer) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN PERFORM public.trapped('round'); RETURN 0; END $$;
CREATE FUNCTION public.repeat(text, bigint) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.trapped('repeat'); RETURN ''; END $$;
CREATE FUNCTION public.cardinality(text[]) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN PERFORM public.trapped('cardinality'); RETURN 0; END $$;
CREATE FUNCTION public.counted(bigint, text) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM public.trapped('count'); RETURN $1; END $$;
CREATE AGGREGATE public.count(text) (SFUNC = public.counted, STYPE = bigint, INITCOND = '0');
CREATE FUNCTION public.equal(text, name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.trapped('='); RETURN true; END $$;
CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = name, FUNCTION = public.equal);
SQL
}

#
# The install script, in a database where others may make things
#
sql(q{CREATE ROLE mallory LOGIN; CREATE ROLE writer LOGIN; CREATE ROLE owner LOGIN; CREATE ROLE owner2 LOGIN; CREATE ROLE nobody LOGIN;
	CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor; CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader; GRANT CREATE ON SCHEMA public TO mallory, owner});
as('mallory', traps());
is(sql(q{SELECT count(*) FROM pg_proc WHERE proowner = 'mallory'::regrole}), '7', 'traps are laid');
sql(q{GRANT CREATE ON DATABASE postgres TO mallory});
like(as('mallory', q{CREATE SCHEMA sfsync; CREATE TABLE sfsync.queue (x integer)}), qr/^$/, 'mallory: a schema of the extension\'s name');
my ($rc, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION sfsync');
like($err, qr/schema "sfsync" already exists/, 'makes CREATE EXTENSION fail');
sql('DROP SCHEMA sfsync CASCADE; SET search_path = public, pg_catalog; CREATE EXTENSION sfsync');
refused('mallory', 'CREATE EXTENSION postgres_fdw SCHEMA sfsync', 'permission denied|Must have|not available', 'nothing is made in its schema');
connect_salesforce($node, $sim);
sql(q{CREATE TABLE account (id integer PRIMARY KEY, name text NOT NULL, phone text, secret text, tenant name DEFAULT current_user);
	GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON account TO writer;
	SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete');
	INSERT INTO account VALUES (1, 'one', '1', 'hidden value')});
wait_for_sync($node, 'first: settled');
sql('SET search_path = public, pg_catalog; SELECT sfsync.pause(); INSERT INTO account VALUES (3, \'pending\'); SELECT * FROM sfsync.status; SELECT * FROM sfsync.server_status; SELECT * FROM sfsync.field_map; SELECT * FROM sfsync.backfill_progress; SELECT * FROM sfsync.health(); SELECT sfsync.resume(); SELECT * FROM sfsync.check_mapping(\'account\')');
unlike(log_since($node), qr/TRAPPED/, 'search_path: nothing of mallory\'s is called by the install script, views and functions');

#
# PUBLIC: nothing at all
#
my @tables = split /\n/, sql(q{SELECT relname FROM pg_class WHERE relnamespace = 'sfsync'::regnamespace AND relkind IN ('r', 'v', 'S') ORDER BY 1});
sql('GRANT USAGE ON SCHEMA sfsync TO nobody');
is(join(',', grep { as('nobody', "SELECT * FROM sfsync.$_") !~ $denied } @tables), '', 'nobody: reads no table and no view');
is(join(',', grep { as('nobody', "DELETE FROM sfsync.$_") !~ /permission denied|cannot delete from view/ } grep { !/_seq$/ } @tables), '', 'nobody: writes none');
is(sql(q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'sfsync'::regnamespace AND has_function_privilege('nobody', oid, 'EXECUTE')}), '0', 'nobody: may call no function');
refused('nobody', q{SELECT sfsync.adopt('crm')}, $denied, 'calls none');
refused('nobody', q{CREATE TEMP TABLE t (id integer); CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION sfsync.capture()}, $denied, 'attaches no trigger of the extension');
refused('nobody', q{CREATE USER MAPPING FOR nobody SERVER crm OPTIONS (client_id 'x', client_secret 'y')}, $denied, 'makes no user mapping');
sql('REVOKE USAGE ON SCHEMA sfsync FROM nobody');

#
# Who writes to a mapped table
#
like(as('writer', q{INSERT INTO account VALUES (2, 'by the writer'); UPDATE account SET phone = '2' WHERE id = 2}), qr/^$/, 'writer: writes without a right on sfsync');
wait_for_sync($node, 'writer: settled');
is($sim->record('Account', '2')->{Phone}, '2', 'writer: what it writes arrives');
refused('writer', 'SELECT * FROM sfsync.queue', $denied, 'does not see the queue');
refused('writer', 'SET sfsync.capture = off', $denied, 'can not stop capture');
refused('writer', 'SET session_replication_role = replica', $denied, 'nor as a replica');
refused('writer', 'ALTER TABLE account DISABLE TRIGGER sfsync_capture', 'must be owner', 'nor disable the trigger');
refused('writer', 'DROP TRIGGER sfsync_capture ON account', 'must be owner', 'nor drop it');
refused('writer', 'TRUNCATE account', $denied, 'nor truncate');
refused('writer', 'ALTER SYSTEM SET sfsync.enabled = off', $denied, 'nor stop delivery');
refused('writer', 'SET sfsync.enabled = off', '55P02', 'nor in its session');
refused('writer', q{SELECT sfsync.create_mapping('account', 'Account', 'PG_Key__c', 'delete')}, $denied, 'nor map a table');

# A trigger that it may add runs as the one who writes, the worker writes nothing there.
as('writer', q{CREATE FUNCTION pg_temp.x() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'});
is(sql(q{SELECT count(*) FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'sfsync'::regnamespace) AND NOT tgisinternal}), '0', 'nobody has triggers on the extension\'s tables');
refused('writer', q{CREATE TRIGGER t AFTER INSERT ON sfsync.queue FOR EACH ROW EXECUTE FUNCTION public.trapped()}, 'permission denied|does not exist', 'adds none');

#
# The owner of a mapping
#
sql(q{GRANT USAGE ON SCHEMA sfsync TO owner, owner2; GRANT USAGE ON FOREIGN SERVER crm TO owner, owner2; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA sfsync TO owner, owner2;
	REVOKE EXECUTE ON FUNCTION sfsync.adopt(name) FROM owner, owner2});
as('owner', <<'SQL');
CREATE TABLE note (id integer);
CREATE FUNCTION evil(text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	attempt text;
BEGIN
	RAISE LOG 'EVIL % runs as %, session %', $1, current_user, session_user;
	FOREACH attempt IN ARRAY ARRAY['ALTER ROLE owner SUPERUSER', 'SET ROLE postgres', 'SET SESSION AUTHORIZATION postgres', 'RESET ROLE', 'INSERT INTO public.note VALUES (1)',
		'CREATE FUNCTION public.left_behind() RETURNS integer LANGUAGE sql AS ''SELECT 1''', 'CREATE TEMP TABLE t (i integer)', 'DELETE FROM sfsync.queue', 'COPY public.note FROM PROGRAM ''true''',
		'SELECT pg_catalog.set_config(''session_replication_role'', ''replica'', false)', 'SELECT pg_catalog.set_config(''transaction_read_only'', ''off'', true)',
		'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'LISTEN x', 'PREPARE p AS SELECT 1']
	LOOP
		BEGIN
			EXECUTE attempt;
			RAISE LOG 'EVIL DONE %', attempt;
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END LOOP;
	RETURN true;
END $$;
CREATE FUNCTION evil_stable(text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN public.evil($1); END $$;
CREATE DOMAIN evil_key AS integer CHECK (public.evil('domain'));
CREATE TABLE lead (id evil_key PRIMARY KEY, last_name text, company text DEFAULT 'c', phone text);
ALTER TABLE lead ENABLE ROW LEVEL SECURITY;
ALTER TABLE lead FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON lead USING (public.evil('policy') AND id <> 3) WITH CHECK (true);
INSERT INTO lead SELECT i, 'lead ' || i FROM generate_series(1, 3) i;
SQL
sql('DELETE FROM note; DROP FUNCTION IF EXISTS left_behind()');
my $offset = -s $node->logfile;
is(as('owner', q{SELECT sfsync.create_mapping('lead', 'Lead', 'PG_Key__c', 'delete', filter => $$public.evil_stable('filter')$$)}), 'lead', 'owner: maps a table');
is(as('owner', q{SELECT sfsync.map_field('lead', 'Email', expression => $$CASE WHEN public.evil_stable('expression') THEN 'a@b.example' END$$)}), '', 'owner: with an expression');
wait_for_sync($node, 'owner: settled');
is($sim->count('Lead'), 2, 'owner: rows hidden by row security stay here');
is($sim->record('Lead', '1')->{Email}, 'a@b.example', 'owner: its expression is used');
my $log = log_since($node, $offset);
like($log, qr/sfsync worker LOG:  EVIL $_ runs as owner/, "owner: $_ runs in the worker, as the owner") foreach 'policy', 'filter', 'expression';
unlike($log, qr/EVIL \w+ runs as (?!owner)/, 'owner: and never as anybody else');
unlike($log, qr/EVIL DONE/, 'owner: nothing that it tries works');
is(sql(q{SELECT rolsuper FROM pg_roles WHERE rolname = 'owner'}), 'f', 'owner: is no superuser');
is(sql(q{SELECT count(*) FROM note}), '0', 'owner: nothing was written');
is(sql(q{SELECT count(*) FROM pg_proc WHERE proname = 'left_behind'}), '0', 'owner: nothing was left behind');
refused('owner', q{SELECT sfsync.drop_mapping('account')}, '42501.*must be owner of mapping', q{does not end others' mappings});
refused('owner', q{SELECT sfsync.pause()}, '42501.*must be owner of mapping', 'nor pause them');
refused('owner', q{SELECT sfsync.preview('account', '{"id": 1}')}, '42501', 'nor look through them at rows');
refused('owner', q{SELECT sfsync.compare('account')}, '42501', 'nor compare them');
refused('owner', q{SELECT sfsync.create_mapping('account', 'Contact', 'PG_Key__c', 'delete', name => 'x')}, $denied, 'maps no table that it may not read');
refused('owner', q{SELECT sfsync.adopt('crm')}, $denied, 'adopts nothing');
refused('owner', q{CREATE USER MAPPING FOR owner SERVER crm OPTIONS (client_id 'x', client_secret_file '/etc/passwd')}, '42501.*client_secret_file', 'makes the server read no file');
refused('owner', q{ALTER SERVER crm OPTIONS (SET login_url 'http://127.0.0.1:1')}, 'must be owner', 'changes no server');
refused('owner2', q{SELECT sfsync.backfill('lead')}, '42501.*must be owner of mapping', 'does nothing with it either');
refused('owner2', q{SELECT sfsync.preview('lead', '{"id": 1}')}, '42501', 'sees no row of it');

# A right that is taken away
sql('GRANT SELECT ON account TO owner2');
is(as('owner2', q{SELECT sfsync.create_mapping('account', 'Contact', 'PG_Key__c', 'delete', name => 'second', backfill => false)}), 'second', 'owner2: maps what it may read');
sql('REVOKE SELECT ON account FROM owner2; GRANT SELECT (id, name) ON account TO owner2');
sql(q{UPDATE account SET phone = 'changed' WHERE id = 1});
poll_query($node, q{SELECT state, detail ~ 'permission denied' FROM sfsync.status WHERE mapping = 'second'}, 'owner2: without the right the mapping is blocked', expected => 'blocked|t');
is($sim->count('Contact'), 0, 'owner2: and nothing is sent');
is(as('owner2', q{SELECT sfsync.drop_mapping('second', discard_pending => true)}), '', 'owner2: ends it');

# The owner of a server
sql(q{CREATE SERVER theirs FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://acme.my.salesforce.com'); ALTER SERVER theirs OWNER TO owner2});
is(as('owner2', q{ALTER SERVER theirs OPTIONS (SET login_url 'https://other.my.salesforce.com')}), '', 'owner2: changes the address of a server of its own');
refused('owner2', q{ALTER SERVER theirs OPTIONS (ADD ca_file '/etc/passwd')}, '42501.*ca_file', 'names no file there');
refused('owner2', q{ALTER SERVER theirs OPTIONS (SET login_url 'http://10.0.0.1')}, 'login_url', 'and no address without TLS');
sql('DROP SERVER theirs');

#
# pg_monitor, pg_read_all_data
#
sql(q{INSERT INTO account VALUES (5, repeat('confidential ', 50))});
wait_for_sync($node, 'a dead letter: settled');
is(sql('SELECT count(*) FROM sfsync.dead_letter'), '1', 'there is a dead letter');
foreach my $view ('status', 'server_status', 'field_map', 'backfill_progress')
{
	my $seen = as('monitor', "SELECT * FROM sfsync.$view");

	unlike($seen, qr/^error|^$/, "monitor: reads $view");
	unlike($seen, qr/confidential|hidden value|sfsync-test-secret/, "monitor: $view has no data and no secret");
}
my $allowed = qr/^(?:status|server_status|field_map|backfill_progress)$/;
is(join(',', grep { !/$allowed/ && as('monitor', "SELECT * FROM sfsync.$_") !~ /permission denied/ && !/^(?:dead_letter_summary)$/ } @tables), '', 'monitor: reads nothing else');
is(as('monitor', q{SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL}), '0', 'monitor: sees no options of user mappings');
refused('monitor', q{SELECT sfsync.pause()}, $denied, 'changes nothing');
unlike(as('monitor', 'SELECT json_agg(a) FROM pg_stat_activity a'), qr/sfsync-test-secret|Bearer|confidential/, 'monitor: pg_stat_activity has no secret');
is(as('reader', 'SELECT count(*) FROM sfsync.dead_letter'), '1', 'reader: pg_read_all_data reads the tables');
like(as('reader', q{SELECT umoptions::text FROM pg_user_mapping}), qr/sfsync-test-secret/, 'reader: inline secrets too, which is why the README recommends files');
refused('reader', 'DELETE FROM sfsync.dead_letter', $denied, 'writes none');
refused('reader', q{SELECT sfsync.retry(1)}, $denied, 'calls nothing');

#
# TLS
#
my $directory = abs_path(PostgreSQL::Test::Utils::tempdir());

sub certificate
{
	my ($name, $names, $ca, @validity) = @_;

	system_or_bail('openssl', 'req', '-newkey', 'rsa:2048', '-nodes', '-subj', "/CN=$name", '-keyout', "$directory/$name.key", '-out', "$directory/$name.csr");
	unlink "$directory/$name.ext";
	append_to_file("$directory/$name.ext", "subjectAltName=$names\n" . ($ca ? '' : "basicConstraints=critical,CA:TRUE\n"));
	system_or_bail('openssl', 'x509', '-req', '-in', "$directory/$name.csr", @validity ? @validity : ('-days', 2), '-extfile', "$directory/$name.ext", '-out', "$directory/$name.crt",
		$ca ? ('-CA', "$directory/$ca.crt", '-CAkey', "$directory/$ca.key", '-CAcreateserial') : ('-signkey', "$directory/$name.key"));
	return;
}

# OpenSSL takes dates since 3.4, and no negative number of days since 3.5
my @expired = qx(openssl x509 -help 2>&1) =~ /-not_after/ ? ('-not_before', '20200101000000Z', '-not_after', '20200102000000Z') : ('-days', -1);

certificate('authority', 'DNS:authority.example');
certificate('good', 'IP:127.0.0.1', 'authority');
certificate('elsewhere', 'DNS:acme.my.salesforce.com', 'authority');
certificate('expired', 'IP:127.0.0.1', 'authority', @expired);
certificate('selfsigned', 'IP:127.0.0.1');
foreach my $case ([ 'good', 1, '' ], [ 'elsewhere', 0, qr/name|match/ ], [ 'expired', 0, qr/expired/ ], [ 'selfsigned', 0, qr/certificate/ ], [ 'untrusted', 0, qr/certificate/ ])
{
	my ($name, $good, $pattern) = @$case;
	my $file = $name eq 'untrusted' ? 'good' : $name;
	my $trust = $name eq 'untrusted' ? '' : ", ca_file '$directory/authority.crt'";
	my $https = simulator(arguments => [ '--tls-cert', "$directory/$file.crt", '--tls-key', "$directory/$file.key" ]);
	my $url = 'https://127.0.0.1:' . $https->port;

	sql(qq{CREATE SERVER $name FOREIGN DATA WRAPPER sfsync OPTIONS (login_url '$url'$trust);
		CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (client_id '3MVG9sfsync.test.consumer.key', client_secret 'sfsync-test-secret')});
	my $checks = sql(qq{SELECT string_agg(check_name || ' ' || ok || ' ' || coalesce(detail, ''), '; ') FROM sfsync.check_connection('$name')});
	if ($good)
	{
		like($checks, qr/login true/i, 'TLS with a certificate of an authority that is trusted: login');
	}
	else
	{
		unlike($checks, qr/login true/i, "TLS, $name: no login");
		like($checks, $pattern, "TLS, $name: the reason is shown");
	}
	$https->stop;
	sql("DROP SERVER $name CASCADE");
}

#
# Replies that want to harm
#
my @hostile = (
	[ 'deep nesting', '[' x 100_000 ], [ 'deep objects', '{"a":' x 50_000 ], [ 'a NUL', qq{[{"id":"001\\u0000","success":true,"errors":[]}]} ],
	[ 'a lone surrogate', q{[{"success":false,"errors":[{"statusCode":"X","message":"\ud800","fields":[]}]}]} ], [ 'huge numbers', '[' . '9' x 5000 . ']' ], [ 'another type', '"text"' ],
	[ 'too few results', '[]' ], [ 'too many results', '[' . join(',', ('{"id":"001000000000001AAA","success":true,"errors":[],"created":true}') x 50) . ']' ],
	[ 'an endless message', '[{"success":false,"errors":[{"statusCode":"FIELD_CUSTOM_VALIDATION_EXCEPTION","message":"' . 'x' x 1_000_000 . '","fields":["Name"]}]}]' ]);
my $pid = worker_pid($node);
my $id = 100;

sql(q{SELECT sfsync.alter_mapping('account', conflict_policy => 'source_wins')});
foreach my $case (@hostile)
{
	my ($name, $body) = @$case;

	$id++;
	$sim->fault(name => 'hostile', times => 1, match => { kind => [ 'collections_upsert', 'collections_update' ] }, action => { status => 200, body => $body, headers => { 'Content-Type' => 'application/json' } });
	sql("INSERT INTO account VALUES ($id, 'row $id')");
	poll_until(sub { $sim->hits('hostile') > 0 }, "hostile reply, $name: sent");
	$sim->clear_faults;
	poll_query($node, q{SELECT count(*) FROM sfsync.queue}, "hostile reply, $name: settled or put by", expected => '0');
}
sql(q{SELECT sfsync.retry(id) FROM sfsync.dead_letter WHERE status = 'open' AND external_id <> '5'});
wait_for_sync($node, 'hostile replies: settled');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open' AND external_id <> '5'}), '0', 'hostile replies: all rows arrive in the end');
is(scalar(grep { ($_->{PG_Key__c} // 0) > 100 } @{ $sim->records('Account') }), scalar(@hostile), 'hostile replies: each once');
is(sql('SELECT max(length(error_message)) < 20000 FROM sfsync.dead_letter'), 't', 'hostile replies: messages are cut');
is(worker_pid($node), $pid, 'hostile replies: the worker is the same');

unlike(log_since($node), qr/sfsync-test-secret|Bearer|hidden value|confidential/, 'the log has no secret and no value');
unlike(log_since($node), qr/TRAPPED/, 'nothing of mallory\'s was called in all that');
unlike(log_since($node), qr/PANIC|TRAP:|terminated by signal/, 'no crash');
$node->stop;
done_testing();
