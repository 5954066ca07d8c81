# A server with sfsync, the simulator of Salesforce, and what tests ask of both.
package SfSync;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(simulator new_node connect_salesforce poll_until poll_query wait_for_sync
  log_since same_records same_state session worker_pid seconds_of account_table count_lines);

my $json = JSON::PP->new->canonical->allow_nonref;
my $root = abs_path(dirname(__FILE__) . '/../..');

# Longest wait for any state; a slow machine may set it higher.
my $deadline = ($ENV{PG_TEST_TIMEOUT_DEFAULT} || 180) / 3;

#
# Waiting
#

# Run a sub until it returns true; its last value, false after the deadline.
sub poll_until
{
	my ($condition, $name, $seconds) = @_;
	my $end = time() + ($seconds || $deadline);
	my $value;

	until ($value = $condition->())
	{
		if (time() > $end)
		{
			fail($name) if defined $name;
			return $value;
		}
		usleep(20_000);
	}
	pass($name) if defined $name;
	return $value;
}

# Wait until a query returns the expected text ('t'); the last text is shown if it never does.
sub poll_query
{
	my ($node, $query, $name, %options) = @_;
	my $expected = $options{expected} // 't';
	my $database = $options{database} || 'postgres';
	my $last;
	my $found = poll_until(
		sub {
			my ($rc, $out, $err) = $node->psql($database, $query);

			$last = $rc == 0 ? $out : "error: $err";
			return $rc == 0 && $out eq $expected;
		},
		undef,
		$options{seconds});

	is($last, $expected, $name) if defined $name;
	return $found;
}

sub wait_for_sync
{
	my ($node, $name, %options) = @_;
	my $database = $options{database} || 'postgres';
	my $seconds = $options{seconds} || int($deadline);
	my $done = $node->safe_psql($database, "SELECT sfsync.wait_for_sync('$seconds s')");

	if ($done ne 't')
	{
		diag("not settled: " . $node->safe_psql($database,
				"SELECT json_agg(s) FROM (SELECT mapping, state, detail, pending, held, in_flight, last_error FROM sfsync.status) s"));
		diag("deferred: " . $node->safe_psql($database, "SELECT json_agg(d) FROM (SELECT * FROM sfsync.deferred LIMIT 5) d"));
	}
	is($done, 't', $name) if defined $name;
	return $done eq 't';
}

sub seconds_of
{
	my ($action) = @_;
	my $start = time();

	$action->();
	return time() - $start;
}

# What the server wrote to its log since an offset.
sub log_since
{
	my ($node, $offset) = @_;

	return substr(slurp_file($node->logfile), $offset || 0);
}

#
# The simulator
#

my @simulators;
my @nodes;

# arguments: more of them for test/salesforce/serve; with --tls-cert there is no control API from here.
sub simulator
{
	my ($class, %options) = ('SfSync::Simulator', @_);
	my $self = bless { arguments => $options{arguments} || [] }, $class;

	push @simulators, $self;
	$self->start(0);
	return $self;
}

# A test that is stopped stops what it has started.
$SIG{TERM} = $SIG{INT} = sub { exit(1) };

END
{
	my $status = $?;

	# Processes that are killed, as PostgreSQL's own tests end, count no lines.
	if ($ENV{SFSYNC_COVERAGE})
	{
		$_->stop('fast', fail_ok => 1) foreach grep { defined $_->{_pid} } @nodes;
	}
	$_->stop foreach grep { defined } @simulators;
	$? = $status;
}

#
# The server
#

# A started node with sfsync loaded.  conf: more configuration; preload => 0: without the library.
sub new_node
{
	my ($name, %options) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	push @nodes, $node;
	$node->init(allows_streaming => $options{allows_streaming});
	$node->append_conf('postgresql.conf', <<"CONF");
max_prepared_transactions = 20
max_connections = 60
max_worker_processes = 20
log_line_prefix = '%m [%p] %b %q%a '
timezone = 'America/New_York'
restart_after_crash = on
sfsync.retry_base_delay = '50ms'
sfsync.retry_max_delay = '300ms'
CONF
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'sfsync'\n")
	  unless defined $options{preload} && !$options{preload};
	$node->append_conf('postgresql.conf', $options{conf}) if $options{conf};
	$node->start unless $options{dont_start};
	return $node;
}

# Before a process is killed: have all end properly, so that the lines they ran are counted.
sub count_lines
{
	my ($node) = @_;

	$node->restart if $ENV{SFSYNC_COVERAGE};
	return;
}

# The extension, a server for the simulator, and a user mapping.
sub connect_salesforce
{
	my ($node, $simulator, %options) = @_;
	my $database = $options{database} || 'postgres';
	my $server = $options{server} || 'crm';
	my $more = $options{options} ? ", $options{options}" : '';
	my $login = $options{user_mapping}
	  || "client_id '3MVG9sfsync.test.consumer.key', client_secret 'sfsync-test-secret'";
	my $url = $simulator->url;

	$node->safe_psql($database, <<"SQL");
CREATE EXTENSION IF NOT EXISTS sfsync;
CREATE SERVER $server FOREIGN DATA WRAPPER sfsync OPTIONS (login_url '$url'$more);
CREATE USER MAPPING FOR PUBLIC SERVER $server OPTIONS ($login);
SQL
	return;
}

# The table that most tests map to Account.
sub account_table
{
	my ($node, %options) = @_;
	my $database = $options{database} || 'postgres';
	my $table = $options{table} || 'account';
	my $arguments = $options{arguments} ? ", $options{arguments}" : '';

	$node->safe_psql($database, <<"SQL");
CREATE TABLE $table (id integer PRIMARY KEY, name text NOT NULL, phone text, site text, annual_revenue numeric,
	number_of_employees integer, loyalty_tier text, secret text);
SELECT sfsync.create_mapping('$table', 'Account', 'PG_Key__c', 'delete', conflict_policy => 'source_wins'$arguments);
SQL
	return;
}

sub worker_pid
{
	my ($node, $database) = @_;

	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'sfsync worker' AND datname = '"
		  . ($database || 'postgres') . "'");
}

#
# Comparing
#

sub normalized
{
	my ($value) = @_;

	return undef unless defined $value;
	if (ref($value) && JSON::PP::is_bool($value))
	{
		return $value ? 'true' : 'false';
	}
	$value = "$value";
	if ($value =~ /^-?\d+\.\d+$/)
	{
		$value =~ s/0+$//;
		$value =~ s/\.$//;
	}
	return $value;
}

# Live records of an object by PG_Key__c; a key twice, or a record without one, is a failure of its own.
sub records_by_key
{
	my ($simulator, $object, $fields) = @_;
	my %found;
	my @problems;

	foreach my $record (@{ $simulator->get("records?object=$object&fields=" . join(',', 'Id', 'PG_Key__c', grep { $_ ne 'PG_Key__c' } @$fields)) })
	{
		my $key = $record->{PG_Key__c};

		if (!defined $key)
		{
			push @problems, "record $record->{Id} has no key";
			next;
		}
		push @problems, "two records have the key $key" if exists $found{$key};
		$found{$key} = { map { $_ => normalized($record->{$_}) } @$fields };
	}
	return (\%found, \@problems);
}

# The records of an object are exactly the rows of a query, whose columns are named like fields.
sub same_records
{
	my ($node, $simulator, $object, $query, $name, %options) = @_;
	my $database = $options{database} || 'postgres';
	my $rows = $json->decode(
		$node->safe_psql($database, "SELECT coalesce(json_agg(t), '[]') FROM ($query) t"));
	my @fields = sort map { s/^\s+|\s+$//gr } $query =~ /"(\w+)"/g;
	my ($found, $problems) = records_by_key($simulator, $object, \@fields);
	my %expected;
	my @differences;

	foreach my $row (@$rows)
	{
		$expected{ $row->{PG_Key__c} } = { map { $_ => normalized($row->{$_}) } @fields };
	}
	@differences = @$problems;
	foreach my $key (sort keys %expected)
	{
		my $want = $json->encode($expected{$key});
		my $have = exists $found->{$key} ? $json->encode($found->{$key}) : 'missing';

		push @differences, "$key: the row is $want, the record $have" if $want ne $have;
	}
	foreach my $key (sort keys %$found)
	{
		push @differences, "$key: a record without a row" unless exists $expected{$key};
	}
	ok(!@differences, $name);
	diag(join("\n", @differences > 10 ? (@differences[ 0 .. 9 ], '...') : @differences)) if @differences;
	return !@differences;
}

# Nothing is left on the way.
sub same_state
{
	my ($node, $name, %options) = @_;

	is( $node->safe_psql(
			$options{database} || 'postgres',
			"SELECT (SELECT count(*) FROM sfsync.queue), (SELECT count(*) FROM sfsync.deferred),"
			  . " (SELECT count(*) FROM sfsync.intent WHERE state = 'in_flight'), (SELECT count(*) FROM sfsync.dead_letter WHERE status IN ('open', 'retrying'))"),
		'0|0|0|0',
		$name);
	return;
}

#
# A psql that stays open
#

sub session
{
	my ($node, %options) = @_;

	return SfSync::Session->new($node, %options);
}

package SfSync::Session;

sub new
{
	my ($class, $node, %options) = @_;
	my $self = bless { in => '', out => '', err => '', n => 0 }, $class;
	my @user = $options{user} ? ('-U', $options{user}) : ();

	$self->{harness} = IPC::Run::start(
		[ 'psql', '-X', '-A', '-t', '-q', @user, '-d', $node->connstr($options{database} || 'postgres'), '-f', '-' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err},
		IPC::Run::timeout(300));
	$self->query('SELECT 1');
	return $self;
}

# Send a statement; what it printed, once it is done.
sub query
{
	my ($self, $sql) = @_;

	$self->send($sql);
	return $self->finish;
}

# Send it without waiting.
sub send
{
	my ($self, $sql) = @_;

	$self->{n}++;
	$self->{in} .= "$sql;\n\\echo done-$self->{n}\n";
	$self->{harness}->pump_nb;
	return;
}

sub finish
{
	my ($self) = @_;
	my $marker = "done-$self->{n}\n";

	$self->{harness}->pump until $self->{out} =~ /\Q$marker\E/;
	my $out = $self->{out};
	$self->{out} = '';
	$out =~ s/^done-\d+\n//mg;
	chomp $out;
	return $out;
}

sub errors
{
	my ($self) = @_;
	my $err = $self->{err};

	$self->{err} = '';
	return $err;
}

sub quit
{
	my ($self) = @_;

	$self->{in} .= "\\q\n";
	eval { $self->{harness}->finish };
	return;
}

package SfSync::Simulator;

# Start it on a port, any free one for 0.
sub start
{
	my ($self, $port) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/simulator_$$" . '_' . scalar(@simulators) . '.log';
	my $pid = fork();

	die "cannot fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open(STDOUT, '>', $file) or POSIX::_exit(1);
		open(STDERR, '>&', \*STDOUT) or POSIX::_exit(1);
		exec("$root/test/salesforce/serve", '--port', $port, @{ $self->{arguments} }) or POSIX::_exit(1);
	}
	$self->{pid} = $pid;
	$self->{http} = HTTP::Tiny->new(timeout => 60, keep_alive => 0);
	my $started = SfSync::poll_until(
		sub {
			return unless -s $file;
			return PostgreSQL::Test::Utils::slurp_file($file) =~ m{listening on https?://[^:]+:(\d+)} ? $1 : undef;
		});
	die "the simulator did not start: see $file" unless $started;
	$self->{port} = $started;
	return;
}

sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid};

	return unless $pid;
	kill 'TERM', $pid;
	waitpid($pid, 0);
	return;
}

sub port { return $_[0]->{port} }
sub url { return "http://127.0.0.1:$_[0]->{port}" }

sub call
{
	my ($self, $method, $path, $body) = @_;
	my $reply = $self->{http}->request(
		$method,
		$self->url . "/_control/$path",
		defined $body
		? { content => $json->encode($body), headers => { 'content-type' => 'application/json' } }
		: {});

	die "$method $path: $reply->{status} $reply->{content}" unless $reply->{success};
	return $json->decode($reply->{content});
}

sub get { my ($self, $path) = @_; return $self->call('GET', $path) }
sub post { my ($self, $path, $body) = @_; return $self->call('POST', $path, $body) }
sub remove { my ($self, $path) = @_; return $self->call('DELETE', $path) }

sub records { my ($self, $object) = @_; return $self->get("records?object=$object") }
sub created { my ($self, $object) = @_; return 0 + $self->get("count?object=$object")->{created_total} }
sub count { my ($self, $object) = @_; return 0 + $self->get("count?object=$object")->{count} }
sub stats { my ($self) = @_; return $self->get('stats') }
sub config { my ($self, %config) = @_; return $self->post('config', \%config) }
sub fault { my ($self, %fault) = @_; return $self->post('fault', \%fault) }
sub clear_faults { my ($self) = @_; return $self->remove('faults') }
sub hits
{
	my ($self, $name) = @_;
	my $faults = $self->get('faults');
	my ($fault) = grep { $_->{name} eq $name } @{ ref $faults eq 'HASH' ? $faults->{faults} : $faults };

	return $fault ? 0 + $fault->{hits} : 0;
}

# The live record with a key; undef if there is none.
sub record
{
	my ($self, $object, $key) = @_;
	my ($record) = grep { defined $_->{PG_Key__c} && $_->{PG_Key__c} eq $key } @{ $self->records($object) };

	return $record;
}

# Sequence number of the newest request.
sub mark
{
	my ($self) = @_;
	my $requests = $self->get('log')->{requests};

	return @$requests ? 0 + $requests->[-1]->{seq} : 0;
}

sub requests
{
	my ($self, $since, $kind) = @_;
	my $requests = $self->get('log?bodies=1&since=' . ($since || 0))->{requests};

	return grep { !$kind || $_->{kind} =~ /^(?:$kind)$/ } @$requests;
}

1;
