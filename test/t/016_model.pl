# Random histories of rows, people, flows and lost replies, against a model of the rules of conflicts.
#
# The model below is written from the rules alone.  Each row is a history of its own.  A round changes rows and
# records while nothing is delivered, then lets all of it meet; the clock of Salesforce jumps ahead between rounds,
# so that people can have edited at any time since the round before.  After each round every field of every record,
# and every row of sfsync.conflict, must be as the model says.
#
#   SFSYNC_TEST_SEED        another random sequence
#   SFSYNC_TEST_HISTORIES   how many histories (default 550)
#   SFSYNC_TEST_ROUNDS      how many rounds each (default 6)
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";

use JSON::PP ();
use POSIX qw(strftime);
use PostgreSQL::Test::Utils;
use SfSync;
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{SFSYNC_TEST_SEED} // int(time());
my $histories = $ENV{SFSYNC_TEST_HISTORIES} // 550;
my $rounds = $ENV{SFSYNC_TEST_ROUNDS} // 6;
my $json = JSON::PP->new->canonical->allow_nonref;
my @values = ('a', 'b', 'c', undef);

srand($seed);
note("SFSYNC_TEST_SEED=$seed SFSYNC_TEST_HISTORIES=$histories SFSYNC_TEST_ROUNDS=$rounds");
diag("SFSYNC_TEST_SEED=$seed");

# Columns c1 to c4 feed these.  c3 is fill_if_empty; the org tracks the history of c4; a flow sets c1.
my @columns = qw(c1 c2 c3 c4);
my @groups = (
	{ name => 'newest', object => 'Account', policy => 'newest_wins', required => 'Name', other => 'Description',
		fields => { c1 => 'Site', c2 => 'Fax', c3 => 'AccountNumber', c4 => 'Phone' }, n => $histories - int($histories / 10) },
	{ name => 'careful', object => 'Contact', policy => 'strict', required => 'LastName', other => 'Description',
		fields => { c1 => 'Department', c2 => 'Fax', c3 => 'Title', c4 => 'Phone' }, n => int($histories / 10) });

my $sim = simulator();
my $node = new_node('model');

sub sql { return $node->safe_psql('postgres', $_[0]) }
sub chance { return rand() < $_[0] }
sub any { return $_[ int(rand(@_)) ] }
sub some_columns { my ($p) = @_; return grep { chance($p) } @columns }
sub same { my ($x, $y) = @_; return (defined $x ? "=$x" : '') eq (defined $y ? "=$y" : '') }
sub literal { my ($value) = @_; return defined $value ? "'$value'" : 'NULL' }
sub stamp { my ($second) = @_; return strftime('%Y-%m-%dT%H:%M:%SZ', gmtime($second)) }

#
# The model.  A history has: row (values by column; undef: not there), record (undef: none) with values, deleted,
# modified (second) and by_write (the last change is our last write), edited (second of the last edit, by column),
# memory by column: value, ours or time, written (columns of our last write), known (it is remembered), open and all
# (conflicts).
#

sub note_conflict
{
	my ($h, $column, $source, $salesforce) = @_;
	my $open = $h->{open}{$column};

	return if $open && same($open->{source}, $source) && same($open->{salesforce}, $salesforce);
	end_conflict($h, $column);
	$h->{open}{$column} = { column => $column, source => $source, salesforce => $salesforce, resolution => 'open' };
	push @{ $h->{all} }, $h->{open}{$column};
	return;
}

sub end_conflict
{
	my ($h, $column) = @_;
	my $open = delete $h->{open}{$column};

	$open->{resolution} = 'superseded' if $open;
	return;
}

# What others did is noted before anything is decided.
sub look
{
	my ($h) = @_;
	my $record = $h->{record};

	foreach my $column (@columns)
	{
		my $memory = $h->{memory}{$column};
		my $value = $record->{values}{$column};

		next if $memory ? same($memory->{value}, $value) : !defined $value;
		if ($memory && $memory->{ours} && $record->{by_write} && $h->{written}{$column})
		{
			$memory->{value} = $value;    # a flow, with our own write
			next;
		}
		$h->{memory}{$column} = { value => $value, at => $column eq 'c4' && $record->{edited}{c4} || $record->{modified} };
	}
	return;
}

sub write_record
{
	my ($h, $values, $now, $flow) = @_;
	my $record = $h->{record};

	$h->{written} = {};
	foreach my $column (keys %$values)
	{
		$record->{values}{$column} = $values->{$column};
		$h->{memory}{$column} = { value => $values->{$column}, ours => 1 };
		$h->{written}{$column} = 1;
		delete $record->{edited}{$column};
	}
	$record->{values}{c1} = $flow if defined $flow;
	$record->{modified} = $now;
	$record->{by_write} = 1;
	return;
}

sub make_record
{
	my ($h, $now, $flow) = @_;

	$h->{record} = { values => {}, edited => {} };
	$h->{memory} = {};
	$h->{known} = 1;
	write_record($h, { map { $_ => $h->{row}{$_} } @columns }, $now, $flow);
	end_conflict($h, $_) foreach @columns, '';
	return;
}

# Is an event later than a time, by the second?  What is too near to tell is not generated.
sub later { my ($event, $at) = @_; return defined $event && int($event) > $at }

# The row's changes: time of the event by column; undef where a backfill brought it.
sub deliver
{
	my ($h, $events, $now, $flow) = @_;
	my $record = $h->{record};
	my %write;
	my ($newest) = sort { $b <=> $a } grep { defined } values %$events;

	return unless %$events && $h->{row};
	return make_record($h, $now, $flow) if !$record;
	if ($record->{deleted})
	{
		return make_record($h, $now, $flow) if !$h->{known} || later($newest, $record->{deleted});
		note_conflict($h, '', undef, undef);
		return;
	}
	$h->{known} = 1;
	end_conflict($h, '');
	look($h);
	foreach my $column (keys %$events)
	{
		my $memory = $h->{memory}{$column};
		my ($wanted, $value) = ($h->{row}{$column}, $record->{values}{$column});

		if (same($wanted, $value))
		{
			end_conflict($h, $column);
		}
		elsif ($column eq 'c3' && defined $value)
		{
			next;
		}
		elsif (!$memory || $memory->{ours} || later($events->{$column}, $memory->{at}))
		{
			$write{$column} = $wanted;
			end_conflict($h, $column);
		}
		else
		{
			note_conflict($h, $column, $wanted, $value);
		}
	}
	write_record($h, \%write, $now, $flow) if %write;
	return;
}

sub deliver_delete
{
	my ($h, $event) = @_;
	my $record = $h->{record};
	my $edited = !$record->{deleted} && !$record->{by_write} && !later($event, $record->{modified});

	return if $record->{deleted} && do { forget($h); 1 };
	foreach my $memory (values %{ $h->{memory} })
	{
		$edited = 1 if !$memory->{ours} && !later($event, $memory->{at});
	}
	return note_conflict($h, '', undef, undef) if $edited;
	$record->{deleted} = int($event);
	forget($h);
	return;
}

sub forget
{
	my ($h) = @_;

	$h->{known} = 0;
	$h->{memory} = {};
	end_conflict($h, $_) foreach @columns, '';
	return;
}

#
# What happens
#

# One transaction that changes a column of rows; returns the times of the events by key.
sub change
{
	my ($group, $column, $rows, $session) = @_;
	my $values = join(', ', map { "($_->{id}, " . literal($_->{row}{$column}) . '::text)' } @$rows);
	my $update = "UPDATE $group->{name} t SET $column = v.x FROM (VALUES $values) v(id, x) WHERE t.id = v.id AND t.$column IS DISTINCT FROM v.x";

	return unless @$rows;
	if ($session)
	{
		$session->query($update);
		return;
	}
	sql($update);
	return;
}

# Times of the waiting events of a mapping: by key, then by column; keys whose delete waits have ''.
sub waiting
{
	my ($group) = @_;
	my %found;
	my $list = sql(qq{SELECT q.key, q.operation, extract(epoch FROM q.event_at), encode(q.changed, 'hex') FROM sfsync.queued q
		JOIN sfsync.mapping m ON m.id = q.mapping WHERE m.name = '$group->{name}' ORDER BY q.event_at});

	foreach my $line (split /\n/, $list)
	{
		my ($key, $operation, $at, $changed) = split /\|/, $line;
		my $bits = unpack('b*', pack('H*', $changed // ''));

		foreach my $i (0 .. $#columns)
		{
			# id and name come first
			$found{$key}{ $columns[$i] } = $at if $operation eq 'I' || $operation eq 'U' && substr($bits . '0' x 16, $i + 2, 1);
		}
		$found{$key}{''} = $at if $operation eq 'D';
	}
	return \%found;
}

# Edits of all histories, in the order of their times.
sub play
{
	my ($group, $edits) = @_;

	foreach my $edit (sort { $a->{at} <=> $b->{at} } @$edits)
	{
		my $h = $edit->{history};
		my $record = $h->{record};
		my %target = (object => $group->{object}, id => $record->{id}, at => stamp($edit->{at}), user => $edit->{user});

		next if !$record || $record->{deleted};
		if ($edit->{delete})
		{
			$sim->post('delete', \%target);
			$record->{deleted} = $edit->{at};
			next;
		}
		my %fields = map { $group->{fields}{$_} => $edit->{values}{$_} } keys %{ $edit->{values} };
		$fields{ $group->{other} } = "edit $edit->{at}" unless %fields;
		$sim->post('edit', { %target, fields => \%fields });
		foreach my $column (keys %{ $edit->{values} })
		{
			# history has a row for what is another value; our user's rows tell nothing
			next if same($record->{values}{$column}, $edit->{values}{$column});
			$record->{values}{$column} = $edit->{values}{$column};
			$record->{edited}{$column} = $edit->{user} eq 'integration' ? undef : $edit->{at};
		}
		$record->{modified} = $edit->{at};
		$record->{by_write} = 0;
	}
	return;
}

# A person, or a tool with our user, does something to the record, so many seconds from the round's time.
sub random_edits
{
	my ($h, $now, $tools) = @_;
	my @edits;

	for (my $n = chance(0.45) ? 1 + int(rand(2)) : 0; $n > 0; $n--)
	{
		my $distance = chance(0.5) ? -15 - int(rand(300)) : 30 + int(rand(60));
		my %edit = (history => $h, at => int($now) + $distance, user => any('rep', 'admin'));

		$edit{user} = 'integration' if $tools && chance(0.15);
		$edit{delete} = 1 if chance(0.06);
		$edit{values} = { map { $_ => any(@values) } some_columns(0.4) };
		push @edits, \%edit;
	}
	return @edits;
}

#
# Comparing
#

sub shown
{
	my ($value) = @_;
	return defined $value ? $value : 'null';
}

sub compare_group
{
	my ($group, $name) = @_;
	my $fields = join(',', 'PG_Key__c', values %{ $group->{fields} });
	my %records = map { $_->{PG_Key__c} => $_ } @{ $sim->get("records?object=$group->{object}&fields=Id,$fields") };
	my %conflicts;
	my %column_of = reverse %{ $group->{fields} };
	my @wrong;

	foreach my $line (split /\n/, sql(qq{SELECT source_key->>'id', coalesce(field, ''), source_value #>> '{}' IS NULL, source_value #>> '{}',
		salesforce_value #>> '{}' IS NULL, salesforce_value #>> '{}', coalesce(resolution, 'open') FROM sfsync.conflict WHERE mapping = '$group->{name}' ORDER BY id}))
	{
		my ($key, $field, $no_source, $source, $no_theirs, $theirs, $resolution) = split /\|/, $line, -1;

		push @{ $conflicts{$key} }, join(' ', $field eq '' ? '-' : $column_of{$field},
			$no_source eq 't' ? 'null' : $source, $no_theirs eq 't' ? 'null' : $theirs, $resolution);
	}
	foreach my $h (@{ $group->{histories} })
	{
		my $record = $records{ $h->{id} };
		my $there = $h->{record} && !$h->{record}{deleted};
		my $have = $record ? join(' ', map { shown($record->{ $group->{fields}{$_} }) } @columns) : 'none';
		my $want = $there ? join(' ', map { shown($h->{record}{values}{$_}) } @columns) : 'none';
		my $noted = join('; ', sort @{ $conflicts{ $h->{id} } || [] });
		my $expected = join('; ', sort map { join(' ', $_->{column} || '-', shown($_->{source}), shown($_->{salesforce}), $_->{resolution}) } @{ $h->{all} });

		$h->{record}{id} = $record->{Id} if $record && $there;
		push @wrong, "$group->{name} $h->{id}: record $have, model $want" if $have ne $want;
		push @wrong, "$group->{name} $h->{id}: conflicts ($noted), model ($expected)" if $noted ne $expected;
		if ($have ne $want || $noted ne $expected)
		{
			push @wrong, map { "    $_" } @{ $h->{log} };
			last if @wrong > 30;
		}
	}
	ok(!@wrong, "$name: $group->{name}: records and conflicts are as the model says");
	diag(join("\n", @wrong)) if @wrong;
	return !@wrong;
}

sub log_of
{
	my ($h, $text) = @_;
	push @{ $h->{log} }, $text;
	return;
}

sub log_edits
{
	my ($edits, $now) = @_;

	log_of($_->{history}, 'edit ' . $json->encode({ at => $_->{at} - int($now), user => $_->{user}, values => $_->{values}, delete => $_->{delete} }))
	  foreach sort { $a->{at} <=> $b->{at} } @$edits;
	return;
}

#
# The start: rows and records that met before, or never
#
my $offset = -3000;
$sim->config(clock_offset => $offset);
connect_salesforce($node, $sim);
foreach my $group (@groups)
{
	my @existing;

	sql("CREATE TABLE $group->{name} (id integer PRIMARY KEY, name text, c1 text, c2 text, c3 text, c4 text)");
	foreach my $id (1 .. $group->{n})
	{
		my $h = { id => $id, row => { map { $_ => any(@values) } @columns }, memory => {}, written => {}, open => {}, all => [], log => [] };

		push @{ $group->{histories} }, $h;
		log_of($h, 'row ' . $json->encode($h->{row}));
		next unless chance(0.3);
		my $at = int(time()) + $offset - 500;
		my %values = map { $_ => any(@values) } @columns;
		my $made = $sim->post('create', { object => $group->{object}, user => 'rep', at => stamp($at),
				fields => { $group->{required} => 'Row', PG_Key__c => "$id", map { $group->{fields}{$_} => $values{$_} } @columns } });

		$h->{record} = { id => $made->{id}, values => \%values, edited => {}, modified => $at, by_write => 0 };
		log_of($h, 'existing record ' . $json->encode(\%values));
	}
	my @rows = map { my $h = $_; "($h->{id}, 'Row', " . join(', ', map { literal($h->{row}{$_}) } @columns) . ')' } @{ $group->{histories} };
	my $half = int(@rows / 2);
	sql("INSERT INTO $group->{name} VALUES " . join(', ', @rows[ 0 .. $half - 1 ])) if $half;
	sql(join(';', 'BEGIN',
			"SELECT sfsync.create_mapping('$group->{name}', '$group->{object}', 'PG_Key__c', 'delete', conflict_policy => '$group->{policy}')",
			"SELECT sfsync.map_field('$group->{name}', '$group->{required}', 'name')",
			(map { "SELECT sfsync.map_field('$group->{name}', '$group->{fields}{$_}', '$_', conflict_policy => " . ($_ eq 'c3' ? "'fill_if_empty'" : 'NULL') . ')' } @columns),
			'COMMIT'));
	my $now = time() + $offset;
	sql("INSERT INTO $group->{name} VALUES " . join(', ', @rows[ $half .. $#rows ]));
	foreach my $h (@{ $group->{histories} })
	{
		my $backfilled = $h->{id} <= $half;
		my %events = map { $_ => $backfilled ? undef : $now } @columns;

		log_of($h, $backfilled ? 'backfill' : 'insert');
		deliver($h, \%events, int($now), undef);
	}
}
wait_for_sync($node, 'start: settled');
my $good = 1;
$good &= compare_group($_, 'start') foreach @groups;

#
# Rounds
#
foreach my $round (1 .. $rounds)
{
	my $flow = chance(0.4) ? 'flow' : undef;

	# not both: what a flow changes counts as ours in all fields of a lost request, whichever record they were of
	my $lost = !$flow && chance(0.6);
	my (%late, %edits, %early, %after, %sessions);

	last unless $good;
	$offset += 1000;
	$sim->config(clock_offset => $offset);
	sql('SELECT sfsync.pause()');
	$sim->post('automation', { object => $_->{object}, when => 'save', set => { $_->{fields}{c1} => 'flow' } }) foreach $flow ? @groups : ();
	my $now = time() + $offset;
	foreach my $group (@groups)
	{
		my $name = $group->{name};
		my (%changed, @deleted, @inserted);

		foreach my $h (@{ $group->{histories} })
		{
			log_of($h, "round $round" . ($flow ? ', flow' : '') . ($lost ? ', lost replies' : ''));
			if (!$h->{row})
			{
				next unless chance(0.5);
				$h->{row} = { map { $_ => any(@values) } @columns };
				push @inserted, $h;
				log_of($h, 'insert ' . $json->encode($h->{row}));
				next;
			}
			if (chance(0.04) && $h->{record})
			{
				push @deleted, $h;
				log_of($h, 'row deleted');
				next;
			}
			foreach my $column (chance(0.7) ? some_columns(0.4) : ())
			{
				$h->{row}{$column} = any(@values);
				push @{ $changed{$column} }, $h;
				log_of($h, "row $column = " . shown($h->{row}{$column}));
			}
		}
		change($group, $_, $changed{$_} || []) foreach @columns;
		sql("DELETE FROM $name WHERE id IN (" . join(', ', map { $_->{id} } @deleted) . ')') if @deleted;
		sql("INSERT INTO $name VALUES " . join(', ', map { my $h = $_; "($h->{id}, 'Row', " . join(', ', map { literal($h->{row}{$_}) } @columns) . ')' } @inserted))
		  if @inserted;
		$early{$name} = waiting($group);
		$_->{row_deleted} = 1 foreach @deleted;

		# changes that are made now and committed when all others have been delivered
		$sessions{$name} = session($node);
		$sessions{$name}->query('BEGIN');
		my %taken = map { $_->{id} => 1 } @deleted;
		foreach my $h (grep { $_->{row} && !$taken{ $_->{id} } && chance(0.2) } @{ $group->{histories} })
		{
			my $column = any(@columns);
			my $old = $h->{row}{$column};

			$h->{late} = { column => $column, value => any(@values), old => $old };
			push @{ $late{$name} }, $h;
		}
		foreach my $column (@columns)
		{
			my @rows = grep { $_->{late}{column} eq $column } @{ $late{$name} || [] };

			$_->{row}{$column} = $_->{late}{value} foreach @rows;
			change($group, $column, \@rows, $sessions{$name});
			$_->{row}{$column} = $_->{late}{old} foreach @rows;
		}
		my @edits = map { random_edits($_, $now, !$lost) } grep { $_->{record} && !$_->{record}{deleted} } @{ $group->{histories} };
		log_edits(\@edits, $now);
		play($group, \@edits);
	}
	$sim->fault(name => 'lost', match => { kind => [ 'collections_update', 'collections_upsert', 'composite' ] }, times => 6, probability => 0.5,
		action => { close => 'after' }) if $lost;
	my $sent = int(time() + $offset);
	sql('SELECT sfsync.resume()');
	wait_for_sync($node) or fail("round $round: settled");
	foreach my $group (@groups)
	{
		my $events = $early{ $group->{name} };

		foreach my $h (@{ $group->{histories} })
		{
			my $mine = $events->{ $h->{id} } or next;
			my %times = map { $_ => $mine->{$_} + $offset } keys %$mine;
			my $deleted = delete $times{''};

			if (delete $h->{row_deleted})
			{
				$h->{row} = undef;
				deliver_delete($h, $deleted);
			}
			else
			{
				deliver($h, \%times, $sent, $flow);
			}
		}
		$good &= compare_group($group, "round $round");
	}
	sql('SELECT sfsync.pause()');
	foreach my $group (@groups)
	{
		$sessions{ $group->{name} }->query('COMMIT');
		$sessions{ $group->{name} }->quit;
		$after{ $group->{name} } = waiting($group);
		foreach my $h (@{ $late{ $group->{name} } || [] })
		{
			my $late = delete $h->{late};

			$h->{row}{ $late->{column} } = $late->{value};
			log_of($h, "late: $late->{column} = " . shown($late->{value}));
		}
	}
	$sent = int(time() + $offset);
	sql('SELECT sfsync.resume()');
	wait_for_sync($node) or fail("round $round: late commits settled");
	foreach my $group (@groups)
	{
		foreach my $h (@{ $group->{histories} })
		{
			my $mine = $after{ $group->{name} }{ $h->{id} } or next;

			deliver($h, { map { $_ => $mine->{$_} + $offset } keys %$mine }, $sent, $flow);
		}
		$good &= compare_group($group, "round $round, late commits");
	}
	$sim->clear_faults;
	$sim->post('automation', { clear => JSON::PP::true });
	sql('DELETE FROM sfsync.intent');
}

my ($kept) = map { scalar @$_ } [ map { @{ $_->{all} } } map { @{ $_->{histories} } } @groups ];
note("conflicts: $kept");
cmp_ok($kept, '>', $histories / 10, 'there were conflicts');
is(sql(q{SELECT count(*) FROM sfsync.dead_letter}), '0', 'no dead letters');
is(0 + $sim->stats->{same_record_overlap}, 0, 'no record was in two requests at once');
unlike(log_since($node, 0), qr/PANIC|TRAP|terminated by signal|could not be settled/, 'a clean log');
$node->stop;
done_testing();
