/*
 * changes.c
 *		What changed of a unit's row, and when: the whole of it, or single columns.
 */
#include "compat.h"

#include "batch.h"
#include "bitmap.h"

/* Room for bits up to len * 8, and, once there is one time a bit, for their times. */
static void
widen(Unit *unit, int len)
{
	uint8 *changed;

	if (len <= unit->changed_len)
		return;
	changed = palloc0(len);
	if (unit->changed)
	{
		memcpy(changed, unit->changed, unit->changed_len);
		pfree(unit->changed);
	}
	if (unit->times)
	{
		int64 *times = palloc0(sizeof(int64) * len * 8);

		memcpy(times, unit->times, sizeof(int64) * unit->changed_len * 8);
		pfree(unit->times);
		unit->times = times;
	}
	unit->changed = changed;
	unit->changed_len = len;
}

/* From one time for all to a time for each. */
static void
spread_times(Unit *unit)
{
	if (unit->times)
		return;
	unit->times = palloc0(sizeof(int64) * Max(unit->changed_len, 1) * 8);
	for (int bit = 0; bit < unit->changed_len * 8; bit++)
		if (bitmap_has(unit->changed, unit->changed_len, bit + 1))
			unit->times[bit] = unit->changed_at;
}

static void
add_bit(Unit *unit, int bit, int64 at)
{
	bool was = bitmap_has(unit->changed, unit->changed_len, bit + 1);

	unit->times[bit] = was ? Max(unit->times[bit], at) : at;
	bitmap_add(unit->changed, bit + 1);
}

void
batch_add_changed(Unit *unit, const uint8 *changed, int len, int64 at)
{
	bool first = !unit->changed;

	if (len <= 0)
		return;
	widen(unit, len);
	if (first)
		unit->changed_at = at;
	if (unit->times || at != unit->changed_at)
	{
		spread_times(unit);
		for (int bit = 0; bit < len * 8; bit++)
			if (bitmap_has(changed, len, bit + 1))
				add_bit(unit, bit, at);
	}
	else
		for (int i = 0; i < len; i++)
			unit->changed[i] |= changed[i];
}

void
batch_add_times(Unit *unit, const uint8 *changed, int len, const int64 *times)
{
	widen(unit, len);
	spread_times(unit);
	for (int bit = 0; bit < len * 8; bit++)
		if (bitmap_has(changed, len, bit + 1))
			add_bit(unit, bit, times[bit]);
}

void
batch_add_whole(Unit *unit, int64 at)
{
	unit->whole_at = unit->whole && unit->whole_at != 0 ? Max(unit->whole_at, at) : at;
	unit->whole = true;
}

void
batch_add_changes_of(Unit *unit, const Unit *other)
{
	if (other->whole && other->whole_at != 0)
		batch_add_whole(unit, other->whole_at);
	unit->whole |= other->whole;
	if (other->times)
		batch_add_times(unit, other->changed, other->changed_len, other->times);
	else
		batch_add_changed(unit, other->changed, other->changed_len, other->changed_at);
}

bool
batch_column_changed(const Unit *unit, int bit, int64 *at)
{
	bool whole = unit->whole && unit->whole_at != 0;
	bool changed = bitmap_has(unit->changed, unit->changed_len, bit + 1);

	*at = whole ? unit->whole_at : BATCH_NEVER;
	if (changed)
		*at = Max(*at, unit->times ? unit->times[bit] : unit->changed_at);
	return whole || changed;
}
