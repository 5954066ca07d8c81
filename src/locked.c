/*
 * locked.c
 *		Mappings whose table somebody else has locked, or that somebody drops:
 *		their changes wait, and no others.
 *
 * That a lock is given up tells nobody.  So it is tried again, the later the
 * longer it lasts; and whenever there is a turn for something else, such as a
 * commit of who had the table.
 */
#include "compat.h"

#include "lock.h"
#include "locked.h"
#include "mapping.h"
#include "state.h"

/* Between two tries. */
#define TRY_MIN_MS 20
#define TRY_MAX_MS 1000
#define TRY_SHARE 10 /* of the time that it has lasted */

/* Locks that are held for less are nobody's concern. */
#define TELL_AFTER_MS 1000

#define USECS(ms) ((int64) (ms) *1000)

static void
note(MappingDelivery *state, TimestampTz now)
{
	if (state->locked_since == 0)
		state->locked_since = now;
	state->lock_tried = now;
}

/* Whoever was woken by a commit may have been too fast: locks are given up after it. */
static TimestampTz
next_try(const MappingDelivery *state, bool soon)
{
	int64 pause = (state->lock_tried - state->locked_since) / TRY_SHARE;

	return state->lock_tried +
		   (soon ? USECS(TRY_MIN_MS) : Min(Max(pause, USECS(TRY_MIN_MS)), USECS(TRY_MAX_MS)));
}

static void
tell(MappingDelivery *state, const Mapping *mapping, Oid table)
{
	char *reason =
		psprintf("table %s is locked by another session: changes of this mapping wait until it is free",
				 lock_table_name(table));

	state->lock_told = true;
	if (mapping_state_waits(state->id, reason))
		ereport(LOG, (errmsg("sfsync: mapping \"%s\" waits: %s", mapping->name, reason)));
}

bool
delivery_lock_source(Delivery *delivery, MappingDelivery *state, const Mapping *mapping)
{
	if (!OidIsValid(lock_all(mapping->source)))
		return true;
	note(state, GetCurrentTimestamp());
	state->deliverable = false;
	delivery_soonest(&delivery->next_retry, next_try(state, true));
	return false;
}

bool
locked_rests(const MappingDelivery *state, TimestampTz now, TimestampTz *next)
{
	*next = next_try(state, true);
	return state->locked_since != 0 && *next > now;
}

bool
locked_by_drop(MappingDelivery *state, bool woken, TimestampTz now, TimestampTz *next)
{
	if (lock_mapping(state->id, AccessShareLock, false))
		return false;
	note(state, now);
	*next = next_try(state, woken);
	return true;
}

bool
locked_still(MappingDelivery *state, const Mapping *mapping, bool woken, TimestampTz now, TimestampTz *next)
{
	Oid table = InvalidOid;

	if (mapping->locked)
		table = mapping->source;
	else if (state->locked_since != 0)
		table = lock_all(mapping->source);
	if (!OidIsValid(table))
	{
		state->locked_since = 0;
		if (state->lock_told)
			(void) mapping_state_waits(state->id, NULL);
		state->lock_told = false;
		return false;
	}
	note(state, now);
	if (now - state->locked_since >= USECS(TELL_AFTER_MS))
		tell(state, mapping, table);
	*next = next_try(state, woken);
	return true;
}
