# Random faults from a printed seed, on both sides and in between, while rows
# and records are changed; afterwards table, Salesforce, dead letters and
# conflicts have to agree as design section 1 promises.
#
# SFSYNC_TEST_SECONDS: how long faults are made (default 12); SFSYNC_TEST_SEED: to repeat a run.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;
use Time::HiRes qw(time usleep);

my $seconds = $ENV{SFSYNC_TEST_SECONDS} || 12;
my $seed = $ENV{SFSYNC_TEST_SEED} || int(time()) % 1_000_000;
my $margin = 3;    # seconds within which it is open which of two changes is the newer one
my $settle = 90;   # seconds in which all has to be settled once faults are over
my $json = JSON::PP->new->canonical->allow_nonref;

srand($seed);
diag("seed $seed, $seconds s: repeat with SFSYNC_TEST_SEED=$seed SFSYNC_TEST_SECONDS=$seconds");

my $sim = simulator();
my $node = new_node('faults', conf => <<'CONF');
fsync = off
sfsync.request_timeout = '2s'
sfsync.max_attempts = 6
sfsync.schema_ttl = '3s'
sfsync.history = 'all'
CONF
my $load;      # the session that changes rows; undef: to be opened
my %made;      # faults by kind
my @edits;     # of people: object, key, field, value, at
my @removed;   # by people: object, key, at
my $unavoidable = 0;    # writes of one record that were in flight together since a worker was killed
my %after;     # what is to be undone, by name: [ time, sub ]
my $serial = 0;

sub sql
{
	my ($statement) = @_;
	return $node->safe_psql('postgres', $statement);
}

sub chance { return rand() < $_[0] }
sub any { return $_[ int rand @_ ] }
sub rows_of { my ($query) = @_; return @{ $json->decode(sql("SELECT coalesce(json_agg(t), '[]') FROM ($query) t")) } }

#
# The mappings: policies, a parent with children, filter, expression, partitions
#

my %mappings = (
	accounts => { object => 'Account', policy => 'source_wins', edited => [qw(Phone Site Description)] },
	contacts => { object => 'Contact', policy => 'newest_wins', edited => [qw(Phone Title Department Description)], filter => 'active' },
	things => { object => 'Everything__c', policy => 'strict', edited => [qw(Text__c Phone__c Long_Text__c)], archived => 'Archived__c' },
	invoices => { object => 'Invoice__c', policy => 'newest_wins', edited => [qw(Status__c Notes__c)] });
my %parent_of = ('contacts.AccountId' => 'Account', 'invoices.Account__c' => 'Account');

connect_salesforce($node, $sim, options => 'bulk_threshold ' . any(q('0'), q('30'), q('5000')));
$sim->config(api_limit => 100_000_000, keep_bodies => JSON::PP::true);
sql(q{
CREATE TABLE accounts (id integer PRIMARY KEY, name text NOT NULL, phone text, site text, annual_revenue numeric);
CREATE TABLE contacts (id integer PRIMARY KEY, last_name text NOT NULL, phone text, title text, one text, two text,
	active boolean NOT NULL, account_id integer REFERENCES accounts ON DELETE CASCADE);
CREATE TABLE things (id integer PRIMARY KEY, text text, phone text, number_2 numeric) PARTITION BY RANGE (id);
CREATE TABLE things_0 PARTITION OF things FOR VALUES FROM (0) TO (100000);
CREATE TABLE invoices (id integer PRIMARY KEY, amount numeric, status text, notes text, account_id integer REFERENCES accounts ON DELETE SET NULL);

-- who wrote which column when
CREATE TABLE touched (source text, id integer, columns text[], at timestamptz);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE before jsonb = CASE WHEN TG_OP = 'UPDATE' THEN to_jsonb(OLD) ELSE '{}' END;
	after jsonb = CASE WHEN TG_OP = 'DELETE' THEN '{}' ELSE to_jsonb(NEW) END;
	columns text[];
BEGIN
	IF TG_OP = 'UPDATE' THEN
		columns = ARRAY(SELECT key FROM jsonb_each(after) WHERE value IS DISTINCT FROM before -> key);
	ELSE
		columns = ARRAY['*'];
	END IF;
	INSERT INTO touched VALUES (TG_ARGV[0], CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END, columns, clock_timestamp());
	IF TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
		INSERT INTO touched SELECT source, NEW.id, t.columns, t.at FROM touched t WHERE source = TG_ARGV[0] AND id = OLD.id;
	END IF;
	RETURN NULL;
END $$;
SELECT sfsync.create_mapping('accounts', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins');
SELECT sfsync.create_mapping('contacts', 'Contact', 'PG_Key__c', 'delete', conflict_policy => 'newest_wins', filter => 'active');
SELECT sfsync.create_mapping('things', 'Everything__c', 'PG_Key__c', 'archive', conflict_policy => 'strict',
	delete_values => '{"Archived__c": true, "Archived_At__c": "$now"}');
SELECT sfsync.create_mapping('invoices', 'Invoice__c', 'PG_Key__c', 'delete', conflict_policy => 'newest_wins');
SELECT sfsync.map_field('contacts', 'Department', expression => $$coalesce(one, '-') || ' / ' || coalesce(two, '-')$$)});
sql("CREATE TRIGGER touch AFTER INSERT OR UPDATE OR DELETE ON $_ FOR EACH ROW EXECUTE FUNCTION touch('$_')") foreach sort keys %mappings;
sql(q{
INSERT INTO accounts SELECT g, 'Account ' || g, 'p' || g FROM generate_series(1, 40) g;
INSERT INTO contacts SELECT g, 'Contact ' || g, 'p' || g, 't', 'a', 'b', g % 3 > 0, 1 + g % 40 FROM generate_series(1, 80) g;
INSERT INTO things SELECT g, 'Thing ' || g FROM generate_series(1, 60) g;
INSERT INTO invoices SELECT g, g, 'Draft', 'n', 1 + g % 40 FROM generate_series(1, 60) g});
wait_for_sync($node, 'all is there before it begins');

#
# What such runs have found before
#

# A backfill of one column, of a row that has a dead letter because of another.
$sim->fault(name => 'refuse', record => { object => 'Account', match => { Phone => 'refused' }, error => { statusCode => 'FIELD_CUSTOM_VALIDATION_EXCEPTION', message => 'No' } });
sql(q{UPDATE accounts SET phone = 'refused' WHERE id = 7});
wait_for_sync($node, 'a dead letter: settled');
is(sql(q{SELECT status, error_code FROM sfsync.dead_letter}), 'open|FIELD_CUSTOM_VALIDATION_EXCEPTION', 'there is a dead letter');
$sim->clear_faults;
sql(q{ALTER TABLE accounts ADD COLUMN number_of_employees integer DEFAULT 3});
poll_until(sub { ($sim->record('Account', 7)->{NumberOfEmployees} || 0) == 3 }, 'the new column arrives');
wait_for_sync($node, 'the new column: settled');
is($sim->record('Account', 7)->{Phone}, 'refused', 'what the dead letter was about went with it');
is(sql(q{SELECT status FROM sfsync.dead_letter}), 'resolved', 'and it is resolved');
sql(q{ALTER TABLE accounts DROP COLUMN number_of_employees});

# A row that leaves the filter, whose record is kept since someone had edited it: other changes don't undo that, and
# are sent when the row returns.
my $edited = time() + 2;
sql(q{SELECT sfsync.pause('contacts'); UPDATE contacts SET active = false WHERE id = 1});
$sim->post('edit', { object => 'Contact', match => { PG_Key__c => '1' }, fields => { Phone => 'by a rep' }, at => $edited });
sql(q{SELECT sfsync.resume('contacts')});
wait_for_sync($node, 'a row leaves: settled');
is(sql(q{SELECT coalesce(field, 'the record') FROM sfsync.conflict WHERE resolution IS NULL}), 'the record', 'its record stays');
poll_until(sub { time() > $edited + 2 }, 'the edit is over');
sql(q{UPDATE contacts SET title = 'changed meanwhile' WHERE id = 1});
wait_for_sync($node, 'it changes: settled');
is(($sim->record('Contact', 1) || {})->{Phone}, 'by a rep', 'its record still stays');
sql(q{UPDATE contacts SET active = true WHERE id = 1});
wait_for_sync($node, 'it returns: settled');
is($sim->record('Contact', 1)->{Title}, 'changed meanwhile', 'it comes whole');
is(sql(q{SELECT count(*) FROM sfsync.conflict WHERE resolution IS NULL}), '0', 'and the conflict is over');

# A request that was carried out, lost its reply, and was refused when libcurl sent it once more.
my @upsert = (match => { kind => 'collections_upsert', object => 'Contact' });
my $limit = JSON::PP::encode_json([ { errorCode => 'REQUEST_LIMIT_EXCEEDED', message => 'ConcurrentRequests (Concurrent API Requests) Limit exceeded.' } ]);
$sim->fault(name => 'lost', @upsert, times => 1, action => { close => 'after' });
$sim->fault(name => 'limit', @upsert, action => { status => 403, body => $limit });
sql(q{INSERT INTO contacts (id, last_name, active) VALUES (900, 'sent twice', true)});
poll_until(sub { $sim->hits('limit') > 0 }, 'it was refused the second time');
ok($sim->record('Contact', 900), 'and carried out the first time');
sql(q{DELETE FROM contacts WHERE id = 900});
$sim->clear_faults;
wait_for_sync($node, 'sent twice: settled');
ok(!$sim->record('Contact', 900), 'its record goes with the row');

#
# Rows are changed
#

$sim->config(clock_offset => any(0, 0, 40, -40));

my %next = map { $_ => 1000 } keys %mappings;
my $partitions = 0;

sub quote { return "'$_[0]'" }

sub some_account { return chance(0.1) ? 'NULL' : '(SELECT id FROM accounts ORDER BY hashtext(id::text || ' . quote($serial) . ') LIMIT 1)' }

# A row by chance; the statements are the same for the same seed, the rows that are there need not be.
sub some_row
{
	my ($table) = @_;
	return "id = (SELECT id FROM $table ORDER BY hashtext(id::text || " . quote($serial . rand()) . ') LIMIT 1)';
}

my %values = (
	accounts => { name => sub { quote("Account $serial") }, phone => sub { chance(0.1) ? 'NULL' : quote("+43 $serial") },
		site => sub { quote("site $serial") }, annual_revenue => sub { $serial } },
	contacts => { last_name => sub { quote("Contact $serial") }, phone => sub { chance(0.2) ? 'NULL' : quote("+43 $serial") },
		title => sub { quote("title $serial") }, one => sub { quote("one $serial") }, two => sub { chance(0.3) ? 'NULL' : quote("two $serial") },
		active => sub { chance(0.6) ? 'true' : 'false' }, account_id => \&some_account },
	things => { text => sub { chance(0.1) ? 'NULL' : quote("text $serial") }, phone => sub { quote("+1 $serial") }, number_2 => sub { "$serial.25" } },
	invoices => { amount => sub { "$serial.5" }, status => sub { quote(any(qw(Draft Sent Paid))) }, notes => sub { quote("notes $serial") },
		account_id => \&some_account });

sub change
{
	my $table = any(qw(accounts contacts contacts things things invoices invoices));
	my $columns = $values{$table};
	my @names = sort keys %$columns;

	$serial++;
	if (chance(0.2))
	{
		my $id = chance(0.2) ? 1 + int rand 60 : $next{$table}++;
		return "INSERT INTO $table (id, " . join(', ', @names) . ") VALUES ($id, " . join(', ', map { $columns->{$_}->() } @names)
		  . ') ON CONFLICT DO NOTHING';
	}
	return "UPDATE invoices SET id = " . $next{invoices}++ . ' WHERE ' . some_row('invoices') if $table eq 'invoices' && chance(0.06);
	return "DELETE FROM $table WHERE " . some_row($table) if chance($table eq 'accounts' ? 0.06 : 0.15);
	@names = grep { chance(0.3) } @names;
	@names = (any(sort keys %$columns)) unless @names;
	return "UPDATE $table SET " . join(', ', map { "$_ = " . $columns->{$_}->() } @names) . ' WHERE ' . some_row($table);
}

sub transaction
{
	my $changes = join(";\n", map { change() } 1 .. 1 + int rand 6);

	return $changes if chance(0.3);
	return "BEGIN;\n$changes;\nROLLBACK" if chance(0.1);
	return "BEGIN;\n$changes;\nSAVEPOINT a;\n" . change() . ";\nROLLBACK TO a;\n" . change() . ";\nCOMMIT" if chance(0.2);
	return "BEGIN;\n$changes;\nSELECT FROM pg_sleep(0.03);\nCOMMIT";
}

# What a session loses when its server goes is lost like any transaction.
sub execute
{
	my ($statement) = @_;

	eval {
		$load ||= session($node);
		$load->query($statement);
		my $errors = join("\n", grep { !/^psql:.*(?:NOTICE|WARNING|HINT|DETAIL)/ } split /\n/, $load->errors);
		fail("a statement of a user: $errors") if $errors =~ /ERROR/ && $errors !~ /deadlock|statement timeout/;
		1;
	} or do {
		eval { $load->quit if $load };
		$load = undef;
		usleep(50_000);
	};
	return;
}

#
# What goes wrong
#

my @writes = qw(bulk_create bulk_upload bulk_close bulk_results bulk_info collections_create collections_update collections_upsert collections_delete composite create update upsert delete);
my $n_faults = 0;

# Few faults are planted at a time, else nothing gets through; those that have struck are counted.
sub harvest
{
	my ($all) = @_;
	my $waiting = 0;

	foreach my $fault (@{ $sim->get('faults') })
	{
		next unless $fault->{name} =~ /^(.*)-\d+$/;
		$waiting++, next if $fault->{left} && !$all;
		$made{$1} += $fault->{hits} if $fault->{hits};
		$sim->remove("faults?name=$fault->{name}");
	}
	return $waiting;
}

sub plant
{
	my ($kind, %fault) = @_;

	return if harvest() >= 2;
	$n_faults++;
	$sim->fault(name => "$kind-$n_faults", times => 1 + int rand 2, %fault);
	return;
}

sub plant_request { my ($kind, $action, %match) = @_; return plant($kind, action => $action, match => \%match) }

sub plant_record
{
	my ($kind, $code, $probability) = @_;
	my $object = any(map { $_->{object} } @mappings{ sort keys %mappings });

	return plant($kind, record => { times => 3, probability => $probability, object => $object, error => { statusCode => $code, message => 'No' } });
}

sub on_something { return chance(0.6) ? (kind => \@writes) : chance(0.3) ? (kind => 'token') : () }

sub undo
{
	my ($all) = @_;

	foreach my $name (sort keys %after)
	{
		next unless $all || $after{$name}->[0] < time();
		my $entry = delete $after{$name};
		$entry->[1]->();
	}
	return;
}

sub during
{
	my ($kind, $delay, $do, $undo) = @_;

	return if $after{$kind};
	$do->();
	$after{$kind} = [ time() + $delay, $undo ];
	$made{$kind}++;
	return;
}

# A person changes a record, also in fields that we write.
sub edit
{
	my $table = any(sort keys %mappings);
	my $mapping = $mappings{$table};
	my $key = eval { $load ||= session($node); $load->query("SELECT id FROM $table WHERE " . some_row($table)) };
	my $field = any(@{ $mapping->{edited} });
	my $value = 'rep ' . scalar(@edits);    # a value once: what a person sets to what we wrote is no edit

	if (!defined $key)
	{
		$load = undef;
		return;
	}
	return unless $key =~ /^\d+$/;
	my $edit = { table => $table, object => $mapping->{object}, key => $key, field => $field, value => $value, from => time() };

	eval { $edit->{id} = $sim->post('edit', { object => $mapping->{object}, match => { PG_Key__c => $key }, fields => { $field => $value } })->{ids}[0] } or return;
	$edit->{at} = time();
	push @edits, $edit;
	$made{edit}++;
	return;
}

sub deleted_contacts { return grep { $_->{IsDeleted} } @{ $sim->get('records?object=Contact&deleted=1&fields=Id,PG_Key__c,AccountId,IsDeleted') } }

sub remove
{
	my $table = any(qw(accounts contacts contacts things invoices invoices));
	my $object = $mappings{$table}->{object};
	my ($record) = grep { $_->{PG_Key__c} && chance(0.1) } @{ $sim->records($object) };

	return unless $record;
	my @gone = ([ $table, $record ]);
	my %before = map { $_->{Id} => 1 } deleted_contacts();
	my ($winner) = $table eq 'contacts' && chance(0.3) ? grep { $_->{Id} ne $record->{Id} && chance(0.2) } @{ $sim->records('Contact') } : ();
	if ($winner)
	{
		eval { $sim->post('merge', { object => $object, winner => $winner->{Id}, loser => $record->{Id} }) } or return;
		$made{merge}++;
	}
	else
	{
		eval { $sim->post('delete', { object => $object, id => $record->{Id} }) } or return;
	}
	# those of an account go with it
	push @gone, map { [ 'contacts', $_ ] } grep { !$before{ $_->{Id} } && ($_->{AccountId} || '') eq $record->{Id} } deleted_contacts();
	push @removed, map { { table => $_->[0], key => $_->[1]->{PG_Key__c} // '', id => $_->[1]->{Id}, at => time() } } @gone;
	$made{removal}++;
	return;
}

sub wait_for_worker
{
	my ($other) = @_;
	my $pid;

	poll_until(
		sub {
			my ($rc, $out) = $node->psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});
			$pid = $rc == 0 ? $out : '';
			return $pid =~ /^\d+$/ && (!$other || $pid ne $other);
		}) or fail('there is no worker');
	return $pid;
}

sub overlaps { return 0 + $sim->stats->{same_record_overlap} }

# What was under way when its worker ended may still be carried out while the next one sends it again: nobody can know.
sub ends_worker
{
	my ($kind, $end) = @_;
	my $before = overlaps();
	my $over;

	$made{$kind}++;
	$end->();
	$over = time() + 0.6;    # more than any delay that is made
	poll_until(sub { time() > $over });
	$unavoidable += overlaps() - $before;
	return;
}

sub kill_worker
{
	my ($signal) = @_;
	my $pid = wait_for_worker();

	ends_worker("worker_$signal", sub { kill($signal, $pid); wait_for_worker($pid) });
	return;
}

sub crash
{
	ends_worker('immediate', sub { $node->stop('immediate'); $node->start });
	return;
}

my $employees = '';    # name of the column for now
my $quantity = '';

sub ddl
{
	my $what = any(qw(accounts accounts invoices partition extra));

	$made{ddl}++;
	if ($what eq 'accounts')
	{
		my $new = any('', 'number_of_employees', 'staff');

		return if $new eq $employees;
		execute($employees eq '' ? "ALTER TABLE accounts ADD COLUMN $new integer DEFAULT " . (1 + int rand 9)
			: $new eq '' ? "ALTER TABLE accounts DROP COLUMN $employees" : "ALTER TABLE accounts RENAME COLUMN $employees TO $new");
		$employees = sql(q{SELECT coalesce((SELECT attname FROM pg_attribute WHERE attrelid = 'accounts'::regclass AND attname IN ('number_of_employees', 'staff') AND NOT attisdropped), '')});
		delete $values{accounts}->{$_} foreach qw(number_of_employees staff);
		$values{accounts}->{$employees} = sub { $serial % 1000 }
		  if $employees ne '';
	}
	elsif ($what eq 'invoices')
	{
		execute($quantity eq '' ? 'ALTER TABLE invoices ADD COLUMN quantity integer' : 'ALTER TABLE invoices DROP COLUMN quantity');
		$quantity = sql(q{SELECT coalesce((SELECT attname FROM pg_attribute WHERE attrelid = 'invoices'::regclass AND attname = 'quantity' AND NOT attisdropped), '')});
		delete $values{invoices}->{quantity};
		$values{invoices}->{quantity} = sub { $serial % 500 }
		  if $quantity ne '';
	}
	elsif ($what eq 'partition')
	{
		my $low = ++$partitions * 100000;

		execute("CREATE TABLE things_$partitions (LIKE things INCLUDING INDEXES);\n"
			  . "INSERT INTO things_$partitions SELECT $low + g, 'attached ' || g FROM generate_series(1, 5) g;\n"
			  . "INSERT INTO touched SELECT 'things', id, '{*}', clock_timestamp() FROM things_$partitions;\n"
			  . "ALTER TABLE things ATTACH PARTITION things_$partitions FOR VALUES FROM ($low) TO ($low + 100000)");
	}
	else
	{
		$serial++;
		execute("ALTER TABLE contacts ADD COLUMN extra$serial text DEFAULT 'x';\nALTER TABLE contacts DROP COLUMN extra$serial");
	}
	return;
}

sub schema { my ($object, $field, $action) = @_; return $sim->post('schema', { object => $object, field => $field, action => $action }) }

my @wrongs = (
	[ 6, sub { plant_request('close_before', { close => 'before' }, on_something()) } ],
	[ 8, sub { plant_request('close_after', { close => 'after' }, kind => \@writes) } ],
	[ 3, sub { plant_request('hang', { hang => 0.3 }, on_something()) } ],
	[ 3, sub { plant_request('hang_applied', { hang => 0.3, apply => JSON::PP::true }, kind => \@writes) } ],
	[ 1, sub { plant_request('hang_long', { hang => 3 }, on_something()) } ],
	[ 6, sub { plant_request('delay', { delay => 0.05 + rand(0.2) }, on_something()) } ],
	[ 5, sub { plant_request('garbage', { garbage => any('{"a":', 'null', '[]', '{}', '[{"success":true}]', '"\u0000"', '<html>'), apply => JSON::PP::true }, kind => \@writes) } ],
	[ 2, sub { plant_request('garbage_read', { garbage => any('{"a":', 'null', '[]', '{}', '{"records":[]}', '<html>') }, kind => [qw(query collections_retrieve token limits)]) } ],
	[ 5, sub { plant_request('truncate', { truncate => 5 + int rand 60 }, on_something()) } ],
	[ 1, sub { plant_request('huge', { huge => 1_000_000 }, kind => \@writes) } ],
	[ 6, sub { plant_request('results_' . $_, { results => $_ }, kind => \@writes) foreach any(qw(short long missing_keys)) } ],
	[ 5, sub { plant_request('status', { status => any(500, 502, 503, 504), body => any('', '<html>down</html>'), apply => chance(0.5) ? JSON::PP::true : JSON::PP::false }, on_something()) } ],
	[ 3, sub { $sim->post('expire_tokens', {}); $made{expire_tokens}++ } ],
	[ 1, sub { $sim->post('expire_cursors', {}); $made{expire_cursors}++ } ],
	[ 1, sub { during('api_limit', 0.5 + rand, sub { $sim->config(api_limit => 100) }, sub { $sim->config(api_limit => 100_000_000) }) } ],
	[ 1, sub { during('concurrent_limit', 0.7, sub { $sim->config(concurrent_limit => 1, long_request_seconds => 0) }, sub { $sim->config(concurrent_limit => 25, long_request_seconds => 20) }) } ],
	[ 0.5, sub { during('maintenance', 0.5, sub { $sim->config(maintenance => JSON::PP::true) }, sub { $sim->config(maintenance => JSON::PP::false) }) } ],
	[ 0.5, sub { during('api_disabled', 0.5, sub { $sim->config(api_disabled => JSON::PP::true) }, sub { $sim->config(api_disabled => JSON::PP::false) }) } ],
	[ 0.5, sub { during('network_gone', 0.7, sub { $sim->fault(name => 'gone', action => { close => 'before' }) }, sub { $sim->remove('faults?name=gone') }) } ],
	[ 4, sub { plant_record('record_locked', 'UNABLE_TO_LOCK_ROW', 0.5) } ],
	[ 2, sub { plant_record('record_refused', 'FIELD_CUSTOM_VALIDATION_EXCEPTION', 1) } ],
	[ 1, sub { my ($object, $field) = @{ any([ 'Account', 'Site' ], [ 'Invoice__c', 'Notes__c' ], [ 'Contact', 'Title' ]) };
			during("hidden_field", 1 + rand 2, sub { schema($object, $field, 'hide') }, sub { schema($object, $field, 'show') }) } ],
	[ 1, sub { during('pause', 0.5, sub { execute('SELECT sfsync.pause()') }, sub { sql('SELECT sfsync.resume()') }) } ],
	[ 1, sub { my $table = any(sort keys %mappings); execute("SELECT sfsync.backfill('$table')"); $made{backfill}++ } ],
	[ 2, sub { execute(q{SELECT sfsync.retry(id) FROM sfsync.dead_letter WHERE status = 'open'}); $made{retry}++ } ],
	[ 2, \&ddl ]);
my $weight = 0;
$weight += $_->[0] foreach @wrongs;

sub wrong
{
	my $at = rand($weight);

	foreach my $case (@wrongs)
	{
		return $case->[1]->() if ($at -= $case->[0]) < 0;
	}
	return;
}

my $start = time();
my $next_kill = $start + $seconds * 0.25;
my $next_crash = $start + $seconds * 0.6;
my $transactions = 0;

while (time() < $start + $seconds)
{
	undo(0);
	execute(transaction());
	$transactions++;
	wrong() if chance(0.2);
	edit() if chance(0.25);
	remove() if chance(0.03);
	if (time() > $next_kill)
	{
		kill_worker(chance(0.7) ? 'KILL' : 'TERM');
		$next_kill = time() + ($seconds < 30 ? $seconds * 0.5 : 5 + rand 15);
	}
	if (time() > $next_crash)
	{
		crash();
		$next_crash = time() + 20 + rand 30;
	}
}

#
# Faults are over: all is settled, dead letters are sent once more.
#
undo(1);
harvest(1);
$sim->clear_faults;
sql('SELECT sfsync.refresh_schema()');
# where people deleted a parent, its children wait until it is made anew
sql("UPDATE accounts SET name = name || '.' WHERE id IN (" . join(', ', 0, grep { /^\d+$/ } map { $_->{key} } grep { $_->{table} eq 'accounts' } @removed) . ')');
poll_query($node, q{SELECT (SELECT count(*) FROM sfsync.queue) + (SELECT count(*) FROM sfsync.deferred WHERE state = 'waiting'
	AND reason NOT LIKE '%; the parent is dead letter %') + (SELECT sum(in_flight) FROM sfsync.status) = 0}, 'all is settled but the children of dead letters', seconds => $settle)
  or diag_waiting();
sql(q{SELECT sfsync.retry(id) FROM sfsync.dead_letter WHERE status = 'open'});
wait_for_sync($node, 'dead letters are settled', seconds => $settle);

sub diag_waiting
{
	diag(sql(q{SELECT json_agg(d) FROM (SELECT mapping, key, state, reason, due_at - now() AS due, attempts FROM sfsync.deferred LIMIT 20) d}));
	return;
}

#
# Comparing
#

sub plain
{
	my ($value) = @_;

	return undef unless defined $value;
	return $value ? 'true' : 'false' if ref($value) && JSON::PP::is_bool($value);
	$value = "$value";
	$value =~ s/\.?0+$// if $value =~ /^-?\d+\.\d+$/;
	return $value;
}

sub same { my ($one, $other) = @_; return defined $one ? defined $other && $one eq $other : !defined $other }
sub shown { my ($value) = @_; return defined $value ? "\"$value\"" : 'null' }

# When one of the columns of a row was last written; without any, the row.
sub written
{
	my ($touched, $id, @columns) = @_;
	my $last = 0;

	foreach my $name (grep { !@columns || $_ eq '*' || { map { $_ => 1 } @columns }->{$_} } keys %{ $touched->{$id} || {} })
	{
		$last = $touched->{$id}->{$name} if $touched->{$id}->{$name} > $last;
	}
	return $last;
}

sub state_of
{
	my ($table) = @_;
	my $mapping = $mappings{$table};
	my %state = (table => $table, mapping => $mapping);
	my @map = rows_of("SELECT column_name, field FROM sfsync.field_map WHERE mapping = '$table' AND status = 'mapped' AND column_name <> 'id' AND rule <> 'expression'");

	$state{fields} = { map { $_->{field} => [ $_->{column_name} ] } @map };
	my $select = join(', ', map { "$_->{column_name}::text AS \"$_->{field}\"" } @map);
	if ($table eq 'contacts')
	{
		$state{fields}->{Department} = [ 'one', 'two' ];
		$select .= q{, coalesce(one, '-') || ' / ' || coalesce(two, '-') AS "Department"};
	}
	my $where = $mapping->{filter} ? "WHERE $mapping->{filter}" : '';
	$state{rows} = { map { $_->{id} => $_ } rows_of("SELECT id, $select FROM $table $where") };
	$state{ever} = {};
	foreach my $row (rows_of("SELECT id, c AS name, extract(epoch FROM max(at)) AS at FROM touched, unnest(columns) c WHERE source = '$table' GROUP BY 1, 2"))
	{
		$state{ever}->{ $row->{id} }->{ $row->{name} } = 0 + $row->{at};
	}
	my %keys = map { $_->{Id} => $_->{PG_Key__c} } @{ $sim->records('Account') };
	foreach my $record (@{ $sim->records($mapping->{object}) })
	{
		my $key = $record->{PG_Key__c};

		push(@{ $state{problems} }, "$table: record $record->{Id} has no key"), next unless defined $key;
		push(@{ $state{problems} }, "$table: two records have the key $key") if $state{records}->{$key};
		foreach my $field (keys %$record)
		{
			$record->{$field} = $keys{ $record->{$field} } if $parent_of{"$table.$field"} && defined $record->{$field};
		}
		$state{records}->{$key} = $record;
	}
	$state{ids} = { map { $_->{key} => $_->{salesforce_id} } rows_of("SELECT r.key, r.salesforce_id FROM sfsync.record r JOIN sfsync.mapping m ON m.id = r.mapping WHERE m.name = '$table'") };
	$state{dead} = { map { $_->{id} => 1 } rows_of("SELECT source_key ->> 'id' AS id FROM sfsync.dead_letter WHERE mapping = '$table' AND status IN ('open', 'retrying')") };
	foreach my $conflict (rows_of("SELECT source_key ->> 'id' AS id, field, salesforce_value FROM sfsync.conflict WHERE mapping = '$table' AND resolution IS NULL"))
	{
		$state{conflicts}->{ $conflict->{id} }->{ $conflict->{field} // '' } = $conflict->{salesforce_value} // '';
	}
	return \%state;
}

# Last edit of a field by a person.
sub last_edit
{
	my ($id, $field) = @_;
	my ($edit) = grep { $_->{id} eq $id && $_->{field} eq $field } reverse @edits;

	return $edit;
}

sub removed_at
{
	my ($state, $key) = @_;
	my $id = $state->{ids}->{$key} || '';
	my ($gone) = grep { $_->{table} eq $state->{table} && ($_->{key} eq $key || $_->{id} eq $id) } reverse @removed;

	return $gone ? $gone->{at} : 0;
}

sub missing_is_explained
{
	my ($state, $key, $looked) = @_;

	return 1 if exists $state->{conflicts}->{$key}->{''} || $state->{dead}->{$key};
	return !$looked && removed_at($state, $key) > written($state->{ever}, $key) - $margin;
}

sub difference_is_explained
{
	my ($state, $key, $field, $looked) = @_;
	my $has = plain($state->{records}->{$key}->{$field});
	my $conflict = $state->{conflicts}->{$key};
	my $parent = $parent_of{"$state->{table}.$field"};

	return 1 if $state->{dead}->{$key};
	return 1 if $conflict && exists $conflict->{$field} && ($parent || same(plain(ref $conflict->{$field} ? $conflict->{$field} : $conflict->{$field} eq '' ? undef : $conflict->{$field}), $has));
	# only values that are there are sent when a column begins to feed a field
	return 1 if !defined $state->{rows}->{$key}->{$field} && $field =~ /^(?:NumberOfEmployees|Quantity__c)$/;
	return 0 if $looked;
	my $edit = last_edit($state->{records}->{$key}->{Id}, $field);
	return 1 if $edit && same($edit->{value}, $has) && $edit->{at} > written($state->{ever}, $key, @{ $state->{fields}->{$field} }, 'active') - $margin;
	# a lookup is emptied when somebody deletes the parent
	return 1 if $parent && !defined $has && grep { $_->{table} eq 'accounts' && $_->{key} eq $state->{rows}->{$key}->{$field} } @removed;
	return 0;
}

# Other keys that the row of a record has got since Salesforce got the record's.
sub keys_of
{
	my ($state, $key) = @_;
	my $id = $state->{records}->{$key}->{Id};

	return grep { $state->{ids}->{$_} eq $id } keys %{ $state->{ids} };
}

sub compare_rows
{
	my ($state, $looked) = @_;
	my $table = $state->{table};
	my @problems = @{ $state->{problems} || [] };

	foreach my $key (sort { $a <=> $b } keys %{ $state->{rows} })
	{
		my $record = $state->{records}->{$key};

		if (!$record)
		{
			push @problems, "$table $key: no record" unless missing_is_explained($state, $key, $looked);
			next;
		}
		foreach my $field (sort keys %{ $state->{fields} })
		{
			my ($wants, $has) = (plain($state->{rows}->{$key}->{$field}), plain($record->{$field}));

			push @problems, "$table $key ($record->{Id}): $field is " . shown($has) . ', the row\'s ' . shown($wants)
			  unless same($wants, $has) || difference_is_explained($state, $key, $field, $looked);
		}
	}
	foreach my $key (sort keys %{ $state->{records} })
	{
		my $archived = $state->{mapping}->{archived};

		push @problems, "$table $key: a record that never had a row" unless $state->{ever}->{$key};
		next if $state->{rows}->{$key} || $state->{dead}->{$key} || $state->{conflicts}->{$key};
		# its row went on to another key before it was deleted, and the record stays as it is
		next if grep { $state->{dead}->{$_} || $state->{conflicts}->{$_} } keys_of($state, $key);
		push @problems, "$table $key: a record without a row" unless $archived && $state->{records}->{$key}->{$archived};
	}
	return @problems;
}

# Requests about a record, for people who look into it.
sub requests_of
{
	my ($state, $key) = @_;
	my $record = $state->{records}->{$key} || {};
	my $id = $record->{Id} || $state->{ids}->{$key} || 'none';
	my @found;

	foreach my $request (@{ $sim->get('log?bodies=1')->{requests} })
	{
		my $text = join(' ', map { ref $_ ? $json->encode($_) : $_ // '' } @{$request}{qw(path query body)});

		next unless $text =~ /$id|\\?"PG_Key__c\\?":\s*\\?"$key\\?"|(?:'|%27)$key(?:'|%27)|PG_Key__c\/$key\b/;
		push @found, sprintf('%.3f to %.3f %s %s %s: %s', $request->{at}, $request->{done_at} || 0, $request->{kind}, $request->{status} // '-', $request->{fault} // '',
			join(' ... ', $text =~ /(.{0,100}(?:$id|"$key\\?"|%27$key%27|'$key').{0,250})/g));
	}
	return ($json->encode($record), @found > 12 ? @found[ -12 .. -1 ] : @found);
}

# Under newest_wins an edit between the read and the write is overwritten: did a write
# of the record that was under way after the edit follow a read from before it?
my $log;

sub in_window
{
	my ($edit) = @_;
	my ($read, $found) = (0, 0);

	$log ||= [ sort { $a->{at} <=> $b->{at} } @{ $sim->get('log?bodies=1')->{requests} } ];
	foreach my $request (@$log)
	{
		my $text = join(' ', map { ref $_ ? $json->encode($_) : $_ // '' } @{$request}{qw(path query body)});

		next unless $text =~ /\Q$edit->{id}\E/ || $text =~ /(?:'|\\?")$edit->{key}(?:'|\\?")/ || $text =~ /%27$edit->{key}%27/;
		if ($request->{kind} =~ /query|retrieve|get/ || $text =~ m{/query|"method":"GET"}i)
		{
			$read = $request->{at};
		}
		elsif (($request->{done_at} || time()) >= $edit->{from})
		{
			$found = 1 if $read <= $edit->{at} + 0.1;
			last;
		}
	}
	return $found;
}

my $windows = 0;
my $survived = 0;

sub edits_survive
{
	my ($state) = @_;
	my $table = $state->{table};
	my (%seen, @problems);

	return () if $state->{mapping}->{policy} eq 'source_wins';
	my %keys = map { $state->{records}->{$_}->{Id} => $_ } keys %{ $state->{records} };
	foreach my $edit (reverse grep { $_->{table} eq $table } @edits)
	{
		my $field = $edit->{field};
		my $key = $keys{ $edit->{id} };
		my $record = defined $key ? $state->{records}->{$key} : undef;

		next if $seen{"$edit->{id}.$field"}++ || !$record || !$state->{rows}->{$key};
		next if written($state->{ever}, $key, @{ $state->{fields}->{$field} || ['*'] }, 'active') > $edit->{at} - $margin;
		if (same(plain($record->{$field}), $edit->{value}))
		{
			$survived++;
			next;
		}
		if ($state->{mapping}->{policy} eq 'newest_wins' && in_window($edit))
		{
			$windows++;
			next;
		}
		push @problems, sprintf('%s %s (%s): the edit of %s to %s, %.1f s after the row\'s change, is lost: %s', $table, $key, $edit->{id}, $field, shown($edit->{value}),
			$edit->{at} - written($state->{ever}, $key, @{ $state->{fields}->{$field} || ['*'] }, 'active'), shown(plain($record->{$field})));
	}
	return @problems;
}

sub agree
{
	my ($name, $looked) = @_;

	foreach my $table (sort keys %mappings)
	{
		my $state = state_of($table);
		my @problems = (compare_rows($state, $looked), edits_survive($state));

		ok(!@problems, "$name: $table");
		diag(join("\n", @problems > 12 ? (@problems[ 0 .. 11 ], '...') : @problems)) if @problems;
		foreach my $key (map { /^\w+ (\d+)/ ? $1 : () } @problems[ 0 .. ($#problems > 2 ? 2 : $#problems) ])
		{
			diag("what happened to $table $_:\n" . sql("SELECT * FROM sfsync.history('$table', '{\"id\": $_}')")) foreach $key, $state->{records}->{$key} ? keys_of($state, $key) : ();
			diag(join("\n", requests_of($state, $key)));
			diag(join("\n", map { "an edit: $_->{field} = $_->{value}, $_->{at}" } grep { $_->{table} eq $table && $_->{key} eq $key } @edits));
		}
	}
	return;
}

sub nothing_is_held
{
	my ($name) = @_;
	my @held = rows_of(q{SELECT m.name AS table, d.* FROM sfsync.deferred d JOIN sfsync.mapping m ON m.id = d.mapping WHERE d.state = 'held' LIMIT 5});

	is(scalar(@held), 0, $name) or diag(join("\n", map {
		my $key = $_->{key};
		my $state = state_of($_->{table});
		($json->encode($_), sql("SELECT * FROM sfsync.history('$_->{table}', '{\"id\": $key}')"), requests_of($state, $key)) } @held));
	return;
}

agree('both sides agree', 0);
nothing_is_held('nothing is held');
is(sql(q{SELECT sum(pending), sum(in_flight) FROM sfsync.status}), '0|0', 'nothing is pending');

# Ten minutes later, what was in doubt is looked at once more, and there is nothing to mend: all requests have ended.
my $doubtful = sql(q{SELECT count(*) FROM sfsync.intent WHERE state = 'unknown'});
sql(q{UPDATE sfsync.intent SET sent_at = sent_at - interval '11 minutes' WHERE state = 'unknown'});
sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sfsync worker'});
poll_query($node, q{SELECT count(*) = 0 FROM sfsync.intent}, "ten minutes later nothing is in doubt ($doubtful requests were)", seconds => $settle);
wait_for_sync($node, 'what was in doubt was looked at', seconds => $settle) or diag_waiting();
agree('after ten minutes', 0);
nothing_is_held('nothing is held then');

# After a look at each record nothing is explained but by what users are shown.
sql("SELECT sfsync.backfill('$_')") foreach sort keys %mappings;
wait_for_sync($node, 'each record was looked at', seconds => $settle) or diag_waiting();
agree('after a look', 1);

is(overlaps(), $unavoidable, 'two writes of one record were never in flight together, but where a worker was killed');
my $log_text = log_since($node);
unlike($log_text, qr/PANIC|TRAP|terminated by signal (?!9)/, 'no other crash than ours');
my @errors = grep { /sfsync worker.* (?:ERROR|FATAL):/ && !/terminating|shutting down|starting up|recovery/ } split /\n/, $log_text;
is(scalar(@errors), 0, 'no errors of the worker');
diag(join("\n", @errors > 5 ? @errors[ 0 .. 4 ] : @errors)) if @errors;

my $total = 0;
$total += $_ foreach values %made;
note("$transactions transactions, $total faults: " . join(', ', map { "$_ $made{$_}" } sort keys %made));
note(sprintf('%d edits survived, %d in the moment between look and write, %s dead letters, %s conflicts open, %d calls',
		$survived, $windows, sql(q{SELECT count(*) FROM sfsync.dead_letter WHERE status = 'open'}), sql('SELECT count(*) FROM sfsync.conflict WHERE resolution IS NULL'), $sim->stats->{calls}));
cmp_ok($total, '>=', $seconds * 2, 'there were faults');
$load->quit if $load;
$node->stop;
done_testing();
