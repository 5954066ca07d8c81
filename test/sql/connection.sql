--
-- Servers, user mappings, check_connection: what is accepted, and what is said
-- when something isn't.  No network but a closed port of this machine.
--
CREATE EXTENSION sfsync;

CREATE FUNCTION pg_temp.state_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;

-- servers: the URL
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync;
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_ur 'https://acme.my.salesforce.com');
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (colour 'blue');
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://acme.my.salesforce.com');
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url '');

SELECT url, pg_temp.state_of(format('CREATE SERVER refused FOREIGN DATA WRAPPER sfsync OPTIONS (login_url %L)', url))
FROM unnest(ARRAY['acme.my.salesforce.com', 'ftp://acme.my.salesforce.com', 'https://', 'https:///path',
	'https://user@acme.my.salesforce.com', 'https://acme.my.salesforce.com/?a=b', 'https://acme.my.salesforce.com/#a',
	'https://acme.my.salesforce.com:0', 'https://acme.my.salesforce.com:65536', 'https://acme.my.salesforce.com:x',
	'https://acme .my.salesforce.com', 'https://acme.my.salesforce.com\@elsewhere', 'https://[::1',
	'http://127.0.0.1.elsewhere', 'http://127.0.0.1@elsewhere', 'http://127.1', 'http://127.0.0.256',
	'http://localhost.elsewhere', 'http://[::2]', 'http://10.0.0.1', 'https://acme.my.salesforce.com' || E'\n']) AS url;
SELECT url, pg_temp.state_of(format('CREATE SERVER s%s FOREIGN DATA WRAPPER sfsync OPTIONS (login_url %L)', n, url))
FROM unnest(ARRAY['https://acme.my.salesforce.com', 'HTTPS://Acme.my.salesforce.com:443/', 'https://acme.my.site.com/customers',
	'https://10.0.0.1', 'http://localhost:8080', 'http://127.0.0.1:8080', 'http://127.255.0.9/', 'http://[::1]:8080']) WITH ORDINALITY AS u (url, n);

-- servers: the other options
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://acme.my.salesforce.com', api_version '66');
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://acme.my.salesforce.com', api_budget '0');
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://acme.my.salesforce.com', max_batch_size '1001');
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://acme.my.salesforce.com', auto_assign 'maybe');
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://acme.my.salesforce.com', jwt_audience 'login');
CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://acme.my.salesforce.com', ca_file 'ca.pem');
SELECT name, value, pg_temp.state_of(format('CREATE SERVER refused FOREIGN DATA WRAPPER sfsync OPTIONS (login_url ''https://acme.my.salesforce.com'', %I %L)', name, value))
FROM (VALUES ('api_version', '59.0'), ('api_version', '66.1'), ('api_version', 'v66.0'), ('api_version', 'latest'),
	('api_budget', '101'), ('api_budget', '80%'), ('api_budget', '-1'), ('api_budget', ' 80'), ('api_budget', '8e1'),
	('api_budget', '99999999999999999999'), ('max_concurrent_requests', '0'), ('max_batch_size', '0'),
	('bulk_threshold', '-1'), ('duplicate_allow_save', ''), ('environment', ''), ('Login_url', 'https://x')) AS o (name, value);
CREATE SERVER crm TYPE 'production' VERSION '1' FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'http://127.0.0.1:1/', api_version '66.0',
	api_budget '100', max_concurrent_requests '8', max_batch_size '1', bulk_threshold '0', jwt_audience 'https://test.salesforce.com',
	auto_assign 'on', duplicate_allow_save 'true', ca_file '/nonexistent/ca.pem', environment 'production');
ALTER SERVER crm OPTIONS (DROP login_url);
ALTER SERVER crm OPTIONS (SET api_budget 'all');
ALTER SERVER crm OPTIONS (DROP jwt_audience, DROP ca_file, DROP environment, SET api_budget '60');

-- user mappings: what each flow needs
CREATE USER MAPPING FOR PUBLIC SERVER crm;
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', client_secrets 'hidden');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', client_secret '');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', client_secret 'hidden', client_secret_file '/nonexistent/secret');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', private_key 'hidden', username 'integration@acme.example');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (auth_flow 'password', client_id 'key');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (auth_flow 'jwt_bearer', client_id 'key', private_key 'hidden');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (auth_flow 'jwt_bearer', client_id 'key', username 'integration@acme.example');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (auth_flow 'refresh_token', client_id 'key', client_secret 'hidden');

-- user mappings: files
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', client_secret_file 'hidden');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', client_secret_file '/etc');
CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS (client_id 'key', client_secret_file '/etc/passwd');

SELECT options, pg_temp.state_of(format('CREATE USER MAPPING FOR PUBLIC SERVER s1 OPTIONS (%s)', options)),
	pg_temp.state_of('DROP USER MAPPING FOR PUBLIC SERVER s1')
FROM unnest(ARRAY[
	$$client_id 'key', client_secret 'hidden'$$,
	$$client_id 'key', client_secret_file '/nonexistent/secret'$$,
	$$client_id 'key', auth_flow 'client_credentials', client_secret 'hidden'$$,
	$$client_id 'key', auth_flow 'jwt_bearer', username 'integration@acme.example', private_key_file '/nonexistent/key'$$,
	$$client_id 'key', auth_flow 'jwt_bearer', username 'integration@acme.example', private_key 'hidden'$$,
	$$client_id 'key', auth_flow 'refresh_token', refresh_token 'hidden'$$,
	$$client_id 'key', auth_flow 'refresh_token', refresh_token_file '/nonexistent/token', client_secret 'hidden'$$]) AS options;

-- only superusers name files
CREATE ROLE regress_sfsync_connection;
GRANT USAGE ON FOREIGN DATA WRAPPER sfsync TO regress_sfsync_connection;
GRANT USAGE ON FOREIGN SERVER s1 TO regress_sfsync_connection;
SET ROLE regress_sfsync_connection;
CREATE SERVER mine FOREIGN DATA WRAPPER sfsync OPTIONS (login_url 'https://acme.my.salesforce.com', ca_file '/etc/ssl/cert.pem');
CREATE USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (client_id 'key', client_secret_file '/etc/passwd');
CREATE USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (client_id 'key', client_secret 'hidden');
SELECT srvname, usename, umoptions FROM pg_user_mappings WHERE umuser <> 0;
RESET ROLE;

-- the wrapper and foreign tables have no options
ALTER FOREIGN DATA WRAPPER sfsync OPTIONS (ADD login_url 'https://acme.my.salesforce.com');
CREATE FOREIGN TABLE account (id text) SERVER s1 OPTIONS (object 'Account');

-- check_connection
SELECT * FROM sfsync.check_connection('crn');
SELECT pg_temp.state_of($$SELECT sfsync.check_connection('crn')$$);
CREATE FOREIGN DATA WRAPPER regress_sfsync_other;
CREATE SERVER other FOREIGN DATA WRAPPER regress_sfsync_other;
SELECT * FROM sfsync.check_connection('other');
SELECT pg_temp.state_of($$SELECT sfsync.check_connection('other')$$);
SELECT * FROM sfsync.check_connection(NULL);
SELECT check_name, ok, detail FROM sfsync.check_connection('crm');

GRANT USAGE ON SCHEMA sfsync TO regress_sfsync_connection;
GRANT EXECUTE ON FUNCTION sfsync.check_connection(name) TO regress_sfsync_connection;
SET ROLE regress_sfsync_connection;
SELECT * FROM sfsync.check_connection('crm');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER crm TO regress_sfsync_connection;
SET ROLE regress_sfsync_connection;
SELECT count(*) FROM sfsync.check_connection('crm');
RESET ROLE;

-- a renamed wrapper is ours still
ALTER FOREIGN DATA WRAPPER sfsync RENAME TO regress_sfsync_renamed;
SELECT check_name, ok FROM sfsync.check_connection('crm') LIMIT 1;
SELECT * FROM sfsync.check_connection('crn');
SELECT count(*) > 0 AS listed FROM sfsync.server_settings() WHERE server = 'crm';
ALTER FOREIGN DATA WRAPPER regress_sfsync_renamed RENAME TO sfsync;

-- clean up
SET client_min_messages = warning;
DROP SERVER other, crm, s1, s2, s3, s4, s5, s6, s7, s8 CASCADE;
DROP FOREIGN DATA WRAPPER regress_sfsync_other;
DROP EXTENSION sfsync CASCADE;
DROP ROLE regress_sfsync_connection;
