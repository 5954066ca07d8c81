/*
 * bitmap.h
 *		Which columns: a bitmap by attribute number - 1, as events, deferred
 *		changes and backfills have it, in memory and in tables.  Pure.
 *
 * The numbers go beyond those of columns: see MAPPING_FILTER_ATTNUM.
 */
#ifndef SFSYNC_BITMAP_H
#define SFSYNC_BITMAP_H

/* Bytes that hold columns up to this number. */
static inline int
bitmap_length(int attnum)
{
	return (attnum + 7) / 8;
}

static inline bool
bitmap_has(const uint8 *bitmap, int len, int attnum)
{
	int bit = attnum - 1;

	return bit / 8 < len && (bitmap[bit / 8] & (1 << (bit % 8))) != 0;
}

/* There must be room for it. */
static inline void
bitmap_add(uint8 *bitmap, int attnum)
{
	int bit = attnum - 1;

	bitmap[bit / 8] |= 1 << (bit % 8);
}

#endif /* SFSYNC_BITMAP_H */
