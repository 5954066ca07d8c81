/* The table of conflicts, row by row: reconcile.c */
#include "unit.h"

#include "reconcile.h"

#define SECOND INT64CONST(1000000)
#define AT(seconds) ((int64) (seconds) *SECOND)

/* Names and values are hashes: any numbers. */
#define PHONE 11
#define SITE 12
#define EMPTY 0
#define OURS 100
#define THEIRS 200
#define WANTED 300
#define OTHER 400

static Memory
memory_of(int n, const FieldMemory *fields)
{
	Memory memory = {n, palloc(sizeof(FieldMemory) * Max(n, 1))};

	if (n > 0)
		memcpy(memory.fields, fields, sizeof(FieldMemory) * n);
	return memory;
}

#define MEMORY(...)                                                                                          \
	memory_of(lengthof(((const FieldMemory[]){__VA_ARGS__})), (const FieldMemory[]){__VA_ARGS__})
#define OURS_AT(field, value, at)                                                                            \
	{                                                                                                        \
		field, value, false, at                                                                              \
	}
#define THEIRS_AT(field, value, at)                                                                          \
	{                                                                                                        \
		field, value, true, at                                                                               \
	}

/* A changed field under newest_wins. */
static ReconcileField
changed_field(uint64 wanted, int64 event_at, uint64 remote)
{
	ReconcileField field = {.name = PHONE,
							.policy = POLICY_NEWEST_WINS,
							.changed = true,
							.event_at = event_at,
							.known = true,
							.wanted = wanted,
							.readable = true,
							.remote = remote,
							.empty = remote == EMPTY};

	return field;
}

static FieldDecision
decision(ReconcileRecord record, ReconcileField field, Memory *memory)
{
	(void) reconcile(&record, &field, 1, memory);
	return field.decision;
}

static ReconcileRecord
by_someone(int64 at)
{
	return (ReconcileRecord){.modified_at = at};
}

static ReconcileRecord
by_us(int64 at)
{
	return (ReconcileRecord){.modified_at = at, .by_us = true};
}

static void
equal_is_not_written(void **state)
{
	Memory none = {0, NULL};
	Memory ours = MEMORY(OURS_AT(PHONE, OURS, AT(10)));
	Memory theirs = MEMORY(THEIRS_AT(PHONE, WANTED, AT(10)));

	(void) state;
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, AT(40), WANTED), &none), FIELD_EQUAL);
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, AT(40), WANTED), &ours), FIELD_EQUAL);
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, AT(5), WANTED), &theirs),
					 FIELD_EQUAL);
	assert_int_equal(decision(by_someone(AT(50)), changed_field(EMPTY, AT(5), EMPTY), &theirs), FIELD_EQUAL);

	/* a value that both chose, and that we hadn't written, is theirs */
	assert_true(ours.fields[0].theirs);
	assert_int_equal(ours.fields[0].value, WANTED);
	assert_int_equal(ours.fields[0].at, AT(50));
}

/* The trap of section 12: another field's edit moves the record's time. */
static void
ours_is_written_whatever_the_records_time(void **state)
{
	Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)));

	(void) state;
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, AT(20), OURS), &memory), FIELD_WRITE);
	assert_int_equal(decision(by_us(AT(50)), changed_field(WANTED, AT(20), OURS), &memory), FIELD_WRITE);
	assert_int_equal(decision(by_us(AT(50)), changed_field(WANTED, RECONCILE_NEVER, OURS), &memory),
					 FIELD_WRITE);
	assert_false(memory.fields[0].theirs);
	assert_int_equal(memory.fields[0].at, AT(10));
}

static void
theirs_seen_before_keeps_its_time(void **state)
{
	static const struct
	{
		int64 event_at;
		FieldDecision expected;
	} cases[] = {
		{AT(29), FIELD_KEEP},          {AT(30), FIELD_KEEP},
		{AT(31) - 1, FIELD_KEEP},                             /* in the same second: a tie */
		{AT(31), FIELD_WRITE},         {AT(40), FIELD_WRITE}, /* although the record was changed at 50 */
		{RECONCILE_NEVER, FIELD_KEEP},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		Memory memory = MEMORY(THEIRS_AT(PHONE, THEIRS, AT(30)));

		assert_int_equal(
			decision(by_someone(AT(50)), changed_field(WANTED, cases[i].event_at, THEIRS), &memory),
			cases[i].expected);
		assert_int_equal(memory.fields[0].at, AT(30));
	}
}

static void
new_difference_is_theirs_at_the_records_time(void **state)
{
	static const struct
	{
		int64 modified_at;
		int64 event_at;
		FieldDecision expected;
	} cases[] = {
		{AT(50), AT(49), FIELD_KEEP},
		{AT(50), AT(50) + 999999, FIELD_KEEP},
		{AT(50), AT(51), FIELD_WRITE},
		{AT(-50), AT(-50) + 999999, FIELD_KEEP}, /* before 2000 */
		{AT(-50), AT(-49), FIELD_WRITE},
		{AT(-50), AT(-49) - 1, FIELD_KEEP},
		{AT(0), -1, FIELD_KEEP},
		{-1, AT(0), FIELD_WRITE},
		{AT(50), RECONCILE_NEVER, FIELD_KEEP},
		{PG_INT64_MIN, PG_INT64_MIN + 1, FIELD_KEEP},
		{PG_INT64_MAX, PG_INT64_MAX, FIELD_KEEP},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)), OURS_AT(SITE, OURS, AT(20)));
		ReconcileRecord record = by_someone(cases[i].modified_at);
		ReconcileField field = changed_field(WANTED, cases[i].event_at, THEIRS);

		assert_true(reconcile(&record, &field, 1, &memory));
		assert_int_equal(field.decision, cases[i].expected);
		assert_true(memory.fields[0].theirs);
		assert_int_equal(memory.fields[0].value, THEIRS);
		assert_int_equal(memory.fields[0].at, cases[i].modified_at);
	}
}

/* Cleared by a person: that is an edit, too. */
static void
clearing_is_an_edit(void **state)
{
	Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)));

	(void) state;
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, AT(40), EMPTY), &memory), FIELD_KEEP);
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, AT(51), EMPTY), &memory),
					 FIELD_WRITE);
}

/* Changed before, committed after the edit; our own write of another field came between. */
static void
late_commit_loses(void **state)
{
	Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)), OURS_AT(SITE, OURS, AT(10)));
	ReconcileRecord record = by_someone(AT(50));
	ReconcileField fields[2];

	(void) state;
	fields[0] = changed_field(WANTED, 0, THEIRS);
	fields[0].changed = false;
	fields[1] = changed_field(WANTED, AT(60), OURS);
	fields[1].name = SITE;
	assert_true(reconcile(&record, fields, 2, &memory));
	assert_int_equal(fields[0].decision, FIELD_LEAVE);
	assert_int_equal(fields[1].decision, FIELD_WRITE);
	memory_wrote(&memory, SITE, WANTED, AT(60));

	assert_int_equal(decision(by_us(AT(60)), changed_field(WANTED, AT(45), THEIRS), &memory), FIELD_KEEP);
	assert_int_equal(decision(by_us(AT(60)), changed_field(WANTED, AT(55), THEIRS), &memory), FIELD_WRITE);
}

static void
echo_of_our_last_write(void **state)
{
	static const struct
	{
		bool by_us;
		int64 modified_at;
		int64 field_at; /* of our write of the field */
		int64 last_at;  /* of our last write */
		bool ours;
	} cases[] = {
		{true, AT(50), AT(50), AT(50), true},          /* a flow changed what we set */
		{true, AT(50) + 999999, AT(50), AT(50), true}, /* the same second */
		{true, AT(49), AT(50), AT(50), true},          /* before its response */
		{true, AT(51), AT(50), AT(50), false},         /* another tool with our user */
		{false, AT(50), AT(50), AT(50), false},        /* a person, in that second */
		{false, AT(49), AT(50), AT(50), false},
		{true, AT(50), AT(40), AT(50), false}, /* our last write didn't set this field */
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		Memory memory =
			MEMORY(OURS_AT(PHONE, OURS, cases[i].field_at), OURS_AT(SITE, OURS, cases[i].last_at));
		ReconcileRecord record = {cases[i].modified_at, cases[i].by_us, 0};
		ReconcileField field = changed_field(WANTED, AT(30), OTHER);

		assert_true(reconcile(&record, &field, 1, &memory));
		assert_int_equal(field.decision, cases[i].ours ? FIELD_WRITE : FIELD_KEEP);
		assert_int_equal(memory.fields[0].value, OTHER);
		assert_int_equal(memory.fields[0].theirs, !cases[i].ours);
		if (cases[i].ours)
			assert_int_equal(memory.fields[0].at, cases[i].field_at);
	}
}

/* A reply that never came: what our user changed since then, in those fields, is ours. */
static void
open_intent(void **state)
{
	static const struct
	{
		bool by_us;
		bool in_intent;
		int64 intent_at;
		int64 modified_at;
		bool ours;
	} cases[] = {
		{true, true, AT(50), AT(50), true},
		{true, true, AT(50) + 999999, AT(50), true}, /* Salesforce keeps seconds */
		{true, true, AT(50), AT(600), true},         /* applied late */
		{true, true, AT(50), AT(49), false},
		{true, false, AT(50), AT(55), false},
		{false, true, AT(50), AT(55), false},
		{true, true, 0, AT(55), false},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
		for (int known = 0; known < 2; known++)
		{
			FieldMemory ours = OURS_AT(PHONE, OURS, AT(10));
			Memory memory = memory_of(known, &ours);
			ReconcileRecord record = {cases[i].modified_at, cases[i].by_us, cases[i].intent_at};
			ReconcileField field = changed_field(WANTED, AT(45), OTHER);

			field.in_intent = cases[i].in_intent;
			assert_true(reconcile(&record, &field, 1, &memory));
			assert_int_equal(field.decision, cases[i].ours ? FIELD_WRITE : FIELD_KEEP);
			assert_int_equal(memory.n, 1);
			assert_int_equal(memory.fields[0].theirs, !cases[i].ours);
			assert_int_equal(memory.fields[0].at, cases[i].modified_at);
		}
}

/* The record's last change is a later write of other fields: what differs was not set by the intent. */
static void
written_since_intent(void **state)
{
	static const struct
	{
		int64 written_at;
		int64 modified_at;
		bool ours;
	} cases[] = {
		{AT(70), AT(70), false}, {AT(70), AT(69), false}, {AT(70), AT(75), true}, /* applied late */
		{AT(50), AT(55), true},  {AT(40), AT(55), true},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		FieldMemory remembered[2] = {OURS_AT(PHONE, OURS, AT(10)),
									 OURS_AT(PHONE + 1, OURS, cases[i].written_at)};
		Memory memory = memory_of(2, remembered);
		ReconcileRecord record = {cases[i].modified_at, true, AT(50)};
		ReconcileField field = changed_field(WANTED, AT(45), OTHER);

		field.in_intent = true;
		assert_true(reconcile(&record, &field, 1, &memory));
		assert_int_equal(field.decision, cases[i].ours ? FIELD_WRITE : FIELD_KEEP);
		assert_int_equal(memory.fields[0].theirs, !cases[i].ours);
	}
}

static void
first_contact(void **state)
{
	Memory none = {0, NULL};
	Memory again = {0, NULL};
	Memory backfill = {0, NULL};
	ReconcileField box = changed_field(WANTED, AT(5), OTHER);

	(void) state;

	/* empty: nobody has touched it, whatever the time; nothing is remembered of it */
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, AT(5), EMPTY), &none), FIELD_WRITE);
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, RECONCILE_NEVER, EMPTY), &none),
					 FIELD_WRITE);
	assert_int_equal(none.n, 0);

	/* a value is theirs, at the record's time at the latest */
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, AT(50), THEIRS), &none), FIELD_KEEP);
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, AT(51), THEIRS), &again),
					 FIELD_WRITE);
	assert_int_equal(decision(by_someone(AT(50)), changed_field(WANTED, RECONCILE_NEVER, THEIRS), &backfill),
					 FIELD_KEEP);

	/* a checkbox at its default is as good as empty */
	none = (Memory){0, NULL};
	box.empty = true;
	assert_int_equal(decision(by_someone(AT(50)), box, &none), FIELD_WRITE);
	assert_int_equal(none.n, 0);

	/* also one that our user set before anything was remembered */
	again.n = 0;
	assert_int_equal(decision(by_us(AT(50)), changed_field(WANTED, AT(50), THEIRS), &again), FIELD_KEEP);
}

static void
history_tells_the_time(void **state)
{
	static const struct
	{
		int64 history_at;
		int64 remembered_at; /* our write */
		int64 expected;      /* time that is remembered of theirs */
	} cases[] = {
		{AT(40), AT(10), AT(40)},
		{AT(50), AT(10), AT(50)},
		{0, AT(10), AT(50)},      /* no row decides nothing */
		{AT(10), AT(10), AT(50)}, /* a row of before: this change isn't there */
		{AT(10) + 999999, AT(10), AT(50)},
		{AT(5), AT(10), AT(50)},
		{AT(60), AT(10), AT(50)}, /* after the record's own time: none of it */
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		Memory memory = MEMORY(OURS_AT(PHONE, OURS, cases[i].remembered_at));
		ReconcileField field = changed_field(WANTED, AT(45), THEIRS);

		field.history_at = cases[i].history_at;
		assert_int_equal(decision(by_someone(AT(50)), field, &memory),
						 cases[i].expected < AT(45) ? FIELD_WRITE : FIELD_KEEP);
		assert_true(memory.fields[0].theirs);
		assert_int_equal(memory.fields[0].at, cases[i].expected);
	}
}

/* History may also be asked later, when it matters. */
static void
history_corrects_what_is_remembered(void **state)
{
	Memory memory = MEMORY(THEIRS_AT(PHONE, THEIRS, AT(50)));
	Memory ours = MEMORY(OURS_AT(PHONE, OURS, AT(50)));
	ReconcileField field = changed_field(WANTED, AT(45), THEIRS);

	(void) state;
	field.history_at = AT(60);
	assert_int_equal(decision(by_us(AT(70)), field, &memory), FIELD_KEEP);
	assert_int_equal(memory.fields[0].at, AT(50));
	field.history_at = AT(40);
	assert_int_equal(decision(by_us(AT(70)), field, &memory), FIELD_WRITE);
	assert_int_equal(memory.fields[0].at, AT(40));
	field.remote = OURS;
	assert_int_equal(decision(by_us(AT(70)), field, &ours), FIELD_WRITE);
	assert_int_equal(ours.fields[0].at, AT(50));
}

static void
policies(void **state)
{
	static const struct
	{
		FieldPolicy policy;
		int64 event_at;
		uint64 remote;
		FieldDecision expected;
	} cases[] = {
		{POLICY_STRICT, AT(40), THEIRS, FIELD_KEEP},
		{POLICY_STRICT, AT(60), THEIRS, FIELD_WRITE},
		{POLICY_SOURCE_WINS, AT(40), THEIRS, FIELD_WRITE},
		{POLICY_SOURCE_WINS, RECONCILE_NEVER, THEIRS, FIELD_WRITE},
		{POLICY_SOURCE_WINS, AT(40), WANTED, FIELD_EQUAL},
		{POLICY_FILL_IF_EMPTY, AT(60), THEIRS, FIELD_LEAVE},
		{POLICY_FILL_IF_EMPTY, AT(60), OURS, FIELD_LEAVE},
		{POLICY_FILL_IF_EMPTY, AT(60), EMPTY, FIELD_WRITE},
		{POLICY_FILL_IF_EMPTY, AT(40), EMPTY, FIELD_KEEP}, /* cleared after the event */
		{POLICY_FILL_IF_EMPTY, AT(40), WANTED, FIELD_EQUAL},
		{POLICY_CREATE_ONLY, AT(60), OURS, FIELD_LEAVE},
		{POLICY_CREATE_ONLY, AT(60), EMPTY, FIELD_LEAVE},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)));
		ReconcileField field = changed_field(WANTED, cases[i].event_at, cases[i].remote);

		field.policy = cases[i].policy;
		assert_int_equal(decision(by_someone(AT(50)), field, &memory), cases[i].expected);
	}
}

/* Without an event of its own a field is never written, and differences are noted all the same. */
static void
unchanged_fields_are_left(void **state)
{
	for (int policy = POLICY_NEWEST_WINS; policy <= POLICY_CREATE_ONLY; policy++)
	{
		Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)));
		ReconcileField field = changed_field(WANTED, AT(60), THEIRS);
		ReconcileRecord record = by_someone(AT(50));

		field.policy = policy;
		field.changed = false;
		assert_true(reconcile(&record, &field, 1, &memory));
		assert_int_equal(field.decision, FIELD_LEAVE);
		assert_true(memory.fields[0].theirs);
		assert_false(reconcile(&record, &field, 1, &memory));
	}
	(void) state;
}

/* Values that can't be read, or whose form can't be compared. */
static void
what_cant_be_compared(void **state)
{
	Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)));
	ReconcileField field = changed_field(WANTED, AT(40), OTHER);

	(void) state;
	field.readable = false;
	assert_int_equal(decision(by_someone(AT(50)), field, &memory), FIELD_WRITE);
	field.policy = POLICY_FILL_IF_EMPTY;
	assert_int_equal(decision(by_someone(AT(50)), field, &memory), FIELD_LEAVE);
	assert_int_equal(memory.fields[0].value, OURS);

	field = changed_field(EMPTY, AT(40), EMPTY);
	field.known = false; /* not taken for equal */
	memory.fields[0].value = EMPTY;
	assert_int_equal(decision(by_someone(AT(50)), field, &memory), FIELD_WRITE);
}

static void
edited_since_a_delete(void **state)
{
	static const struct
	{
		bool by_us;
		int64 modified_at;
		int64 intent_at;
		int64 ours_at;
		int64 theirs_at;
		int64 event_at;
		bool expected;
	} cases[] = {
		{false, AT(50), 0, AT(10), AT(5), AT(51), false},
		{false, AT(50), 0, AT(10), AT(5), AT(50) + 1, true}, /* a tie */
		{false, AT(50), 0, AT(10), AT(5), AT(40), true},
		{true, AT(50), 0, AT(50), AT(5), AT(40), false},      /* our own write */
		{true, AT(51), 0, AT(50), AT(5), AT(40), true},       /* a tool with our user */
		{true, AT(51), AT(50), AT(45), AT(5), AT(40), false}, /* an open request of ours */
		{true, AT(60), 0, AT(60), AT(50), AT(40), true},      /* edited, then written by us */
		{true, AT(60), 0, AT(60), AT(50), AT(51), false},
	};

	(void) state;
	for (size_t i = 0; i < lengthof(cases); i++)
	{
		Memory memory =
			MEMORY(OURS_AT(PHONE, OURS, cases[i].ours_at), THEIRS_AT(SITE, THEIRS, cases[i].theirs_at));
		ReconcileRecord record = {cases[i].modified_at, cases[i].by_us, cases[i].intent_at};

		assert_int_equal(reconcile_edited_since(&record, &memory, cases[i].event_at), cases[i].expected);
		assert_true(reconcile_edited_since(&record, &memory, RECONCILE_NEVER) == (cases[i].theirs_at != 0));
	}
}

static void
memory_survives_its_bytes(void **state)
{
	Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)), THEIRS_AT(SITE, UINT64_MAX, AT(-20)),
						   THEIRS_AT(UINT64_MAX, EMPTY, AT(30)));
	int len;
	uint8 *bytes = memory_write(&memory, &len);
	Memory read = memory_read(bytes, len);

	(void) state;
	assert_int_equal(read.n, 3);
	for (int i = 0; i < 3; i++)
	{
		assert_true(read.fields[i].field == memory.fields[i].field);
		assert_true(read.fields[i].value == memory.fields[i].value);
		assert_int_equal(read.fields[i].theirs, memory.fields[i].theirs);
		assert_int_equal(read.fields[i].at, memory.fields[i].at);
	}
	memory.n = 0;
	bytes = memory_write(&memory, &len);
	assert_int_equal(memory_read(bytes, len).n, 0);
}

static void
a_copy_is_its_own(void **state)
{
	Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)));
	Memory none = {0, NULL};
	Memory copy = memory_copy(&memory);

	(void) state;
	memory.fields[0].at = AT(20);
	assert_int_equal(copy.n, 1);
	assert_true(copy.fields[0].field == PHONE);
	assert_int_equal(copy.fields[0].at, AT(10));
	copy = memory_copy(&none);
	memory_wrote(&copy, SITE, WANTED, AT(30));
	assert_int_equal(copy.n, 1);
	assert_int_equal(none.n, 0);
}

/* Whose it is takes no more than a microsecond. */
static void
odd_times_keep_the_owner(void **state)
{
	Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10) + 1), THEIRS_AT(SITE, THEIRS, AT(-20) - 1));
	int len;
	uint8 *bytes = memory_write(&memory, &len);
	Memory read = memory_read(bytes, len);

	(void) state;
	assert_false(read.fields[0].theirs);
	assert_int_equal(read.fields[0].at, AT(10));
	assert_true(read.fields[1].theirs);
	assert_int_equal(read.fields[1].at, AT(-20) - 2);
}

/* Bytes that are no memory are none, and crash nothing. */
static void
hostile_bytes(void **state)
{
	Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)), THEIRS_AT(SITE, THEIRS, AT(20)));
	int len;
	uint8 *bytes = memory_write(&memory, &len);
	uint64_t seed = seed_of("hostile bytes of memory");

	(void) state;
	assert_int_equal(memory_read(NULL, 0).n, 0);
	assert_int_equal(memory_read(NULL, -1).n, 0);
	for (int cut = 0; cut < len; cut++)
	{
		uint8 *copy = (uint8 *) exact_copy((char *) bytes, cut);

		assert_int_equal(memory_read(copy, cut).n, cut >= 25 && (cut - 1) % 24 == 0 ? (cut - 1) / 24 : 0);
		free(copy);
	}
	for (int version = 0; version < 256; version++)
	{
		uint8 *copy = (uint8 *) exact_copy((char *) bytes, len);

		copy[0] = (uint8) version;
		assert_int_equal(memory_read(copy, len).n, version == 1 ? 2 : 0);
		free(copy);
	}
	for (int i = 0; i < trials() / 10; i++)
	{
		int n = next_random(&seed) % 80;
		uint8 *noise = malloc(n + 1);
		Memory read;
		ReconcileRecord record = {(int64) next_random(&seed) << 31, next_random(&seed) & 1, 0};
		ReconcileField field = changed_field(WANTED, (int64) next_random(&seed) << 31, OTHER);

		for (int b = 0; b < n; b++)
			noise[b] = (uint8) next_random(&seed);
		if (n > 0)
			noise[0] = 1;
		read = memory_read(noise, n);
		if (read.n > 0)
			field.name = read.fields[0].field;
		(void) reconcile(&record, &field, 1, &read);
		(void) reconcile_edited_since(&record, &read, field.event_at);
		free(noise);
	}
}

static void
last_write_is_the_newest_of_ours(void **state)
{
	Memory none = {0, NULL};
	Memory memory =
		MEMORY(OURS_AT(PHONE, OURS, AT(10)), THEIRS_AT(SITE, THEIRS, AT(90)), OURS_AT(OTHER, OURS, AT(30)));

	(void) state;
	assert_int_equal(memory_last_write(&none), 0);
	assert_int_equal(memory_last_write(&memory), AT(30));
	memory_wrote(&none, PHONE, WANTED, AT(7));
	assert_int_equal(none.n, 1);
	memory_wrote(&none, SITE, WANTED, AT(8));
	memory_wrote(&none, PHONE, OTHER, AT(9));
	assert_int_equal(none.n, 2);
	assert_int_equal(memory_find(&none, PHONE)->value, OTHER);
	assert_int_equal(memory_last_write(&none), AT(9));
	assert_null(memory_find(&none, OTHER));
}

/* Ours, read back, is written over at any time; theirs, read again, keeps its time: in random orders. */
static void
property_a_persons_edit_beats_older_events(void **state)
{
	uint64_t seed = seed_of("a person's edit beats older events");

	(void) state;
	for (int i = 0; i < trials(); i++)
	{
		Memory memory = MEMORY(OURS_AT(PHONE, OURS, AT(10)), OURS_AT(SITE, OURS, AT(10)));
		int64 edit = AT(20 + next_random(&seed) % 10);
		int64 modified = edit;
		int64 event = AT(15) + (int64) (next_random(&seed) % 20000000);
		ReconcileField fields[2];

		/* between the edit and the event's commit, some reads and writes of the other field */
		for (int reads = next_random(&seed) % 4; reads > 0; reads--)
		{
			ReconcileRecord record = {modified, modified != edit, 0};

			fields[0] = changed_field(WANTED, 0, THEIRS);
			fields[0].changed = false;
			fields[1] = changed_field(next_random(&seed), modified, memory_find(&memory, SITE)->value);
			fields[1].name = SITE;
			(void) reconcile(&record, fields, 2, &memory);
			assert_int_equal(fields[0].decision, FIELD_LEAVE);
			if (fields[1].decision != FIELD_WRITE)
				continue;
			modified += AT(next_random(&seed) % 5);
			memory_wrote(&memory, SITE, fields[1].wanted, modified);
		}
		assert_int_equal(decision((ReconcileRecord){modified, modified != edit, 0},
								  changed_field(WANTED, event, THEIRS), &memory),
						 event / SECOND > edit / SECOND ? FIELD_WRITE : FIELD_KEEP);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_is_not_written),
		cmocka_unit_test(ours_is_written_whatever_the_records_time),
		cmocka_unit_test(theirs_seen_before_keeps_its_time),
		cmocka_unit_test(new_difference_is_theirs_at_the_records_time),
		cmocka_unit_test(clearing_is_an_edit),
		cmocka_unit_test(late_commit_loses),
		cmocka_unit_test(echo_of_our_last_write),
		cmocka_unit_test(open_intent),
		cmocka_unit_test(written_since_intent),
		cmocka_unit_test(first_contact),
		cmocka_unit_test(history_tells_the_time),
		cmocka_unit_test(history_corrects_what_is_remembered),
		cmocka_unit_test(policies),
		cmocka_unit_test(unchanged_fields_are_left),
		cmocka_unit_test(what_cant_be_compared),
		cmocka_unit_test(edited_since_a_delete),
		cmocka_unit_test(memory_survives_its_bytes),
		cmocka_unit_test(a_copy_is_its_own),
		cmocka_unit_test(odd_times_keep_the_owner),
		cmocka_unit_test(hostile_bytes),
		cmocka_unit_test(last_write_is_the_newest_of_ours),
		cmocka_unit_test(property_a_persons_edit_beats_older_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
