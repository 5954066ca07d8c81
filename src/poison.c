/*
 * poison.c
 *		Who is to blame when a write fails as a whole.  Pure.
 */
#include "compat.h"

#include "poison.h"

/* Failures in a row up to which requests are halved. */
#define SPLIT_RUN 2

/* Beyond these the oldest are forgotten: they are found again. */
#define MAX_SUSPECTS 200

/* Records refused in a row, for a reason that concerns all, from which the mapping is to blame. */
#define ALIKE 3

int64
poison_mark(const Poison *poison)
{
	return poison->failures;
}

void
poison_passed(Poison *poison, int64 mark, bool write)
{
	poison->any_passed = Max(poison->any_passed, mark);
	if (!write)
		return;
	poison->write_passed = Max(poison->write_passed, mark);
	poison->run = 0;
}

static Suspect *
find(const Poison *poison, int mapping, const char *key)
{
	for (int i = 0; i < poison->nsuspects; i++)
		if (poison->suspects[i].mapping == mapping && strcmp(poison->suspects[i].key, key) == 0)
			return &poison->suspects[i];
	return NULL;
}

static void
drop(Poison *poison, Suspect *suspect)
{
	pfree(suspect->key);
	poison->nsuspects--;
	memmove(suspect, suspect + 1, sizeof(Suspect) * (poison->suspects + poison->nsuspects - suspect));
}

void
poison_forget(Poison *poison, int mapping, const char *key)
{
	Suspect *suspect = find(poison, mapping, key);

	if (suspect)
		drop(poison, suspect);
}

bool
poison_suspected(const Poison *poison, int mapping, const char *key)
{
	return find(poison, mapping, key) != NULL;
}

static Suspect *
add(Poison *poison, int mapping, const char *key)
{
	Suspect *suspect;

	if (!poison->suspects)
		poison->suspects = palloc(sizeof(Suspect) * MAX_SUSPECTS);
	if (poison->nsuspects == MAX_SUSPECTS)
		drop(poison, &poison->suspects[0]);
	suspect = &poison->suspects[poison->nsuspects++];
	suspect->mapping = mapping;
	suspect->key = pstrdup(key);
	suspect->failed = poison->failures;
	suspect->confirmed = false;
	return suspect;
}

static PoisonVerdict
server_failed(Poison *poison, bool split)
{
	poison->trouble = poison->failures;
	poison->run++;
	return split && poison->run <= SPLIT_RUN ? POISON_SPLIT : POISON_SERVER;
}

/* A record that failed alone for the first time, or that others have not told about yet. */
static PoisonVerdict
judge_new(Poison *poison, int mapping, const char *key, int64 since)
{
	Suspect *suspect = find(poison, mapping, key);

	/* one of many that are tried in turn during an outage is no suspect */
	if (!suspect && poison->run > SPLIT_RUN)
		return server_failed(poison, false);
	if (!suspect)
		suspect = add(poison, mapping, key);
	suspect->failed = poison->failures;
	if (since == 0 || poison->write_passed < since)
		return server_failed(poison, false);
	suspect->confirmed = true;
	return POISON_UNSURE;
}

static PoisonVerdict
judge_known(Poison *poison, Suspect *suspect)
{
	if (poison->trouble > suspect->failed)
		suspect->failed = poison->failures;
	else if (poison->any_passed >= suspect->failed)
	{
		suspect->failed = poison->failures;
		return POISON_RECORD;
	}
	return POISON_UNSURE;
}

PoisonVerdict
poison_failed(Poison *poison, int mapping, const char *key, int64 since, int records)
{
	Suspect *suspect = records == 1 ? find(poison, mapping, key) : NULL;

	poison->failures++;
	if (records > 1)
		return server_failed(poison, true);
	if (suspect && suspect->confirmed)
		return judge_known(poison, suspect);
	return judge_new(poison, mapping, key, since);
}

void
poison_other_failed(Poison *poison)
{
	poison->trouble = ++poison->failures;
}

int
poison_batch(const Poison *poison, int batch_size)
{
	return poison->run > SPLIT_RUN ? 1 : batch_size;
}

bool
poison_wants_control(const Poison *poison)
{
	for (int i = 0; i < poison->nsuspects; i++)
		if (poison->suspects[i].confirmed && poison->any_passed < poison->suspects[i].failed)
			return true;
	return false;
}

bool
poison_blames_mapping(int *in_a_row, int refused, int records)
{
	*in_a_row = refused == records ? *in_a_row + refused : 0;
	return *in_a_row >= ALIKE;
}
