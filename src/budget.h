/*
 * budget.h
 *		The share of the org's daily API calls (design, section 8): how much of
 *		it is left, and how what is left is spread.  Pure; the clock is passed
 *		in, as microseconds of any one clock.
 *
 * Salesforce counts calls in a rolling 24 hours, whoever makes them, and tells
 * the count late and roughly (reference, section 2.3).  So our own calls are
 * counted here too: those of the last minutes, which the number told may lack,
 * and those of a day, which come back to us as they leave the window.
 *
 * While more than half of the share is left nothing is held.  Then calls are
 * paid from a credit that grows at the highest rate that can be kept up for the
 * next 24 hours: what is left, and what leaves the window until then.  The
 * first half of the credit is free to be spent at once; below it a change waits
 * the longer for a fuller batch, the less there is.
 */
#ifndef SFSYNC_BUDGET_H
#define SFSYNC_BUDGET_H

#define BUDGET_DAY_SLOTS 97    /* of 15 minutes: a day, and the one under way */
#define BUDGET_RECENT_SLOTS 11 /* of 30 seconds: how far the number told may lag */

/* Calls used of a limit, as told and as it must be assumed; limit 0: unknown. */
typedef struct Usage
{
	int64 limit;
	int64 told;
	int64 used;
} Usage;

typedef struct Budget
{
	int percent; /* of the org's calls */
	Usage org;
	Usage app;      /* an allowance of the connected app's own */
	int64 day_slot; /* number of the slot that is being filled */
	int32 day[BUDGET_DAY_SLOTS];
	int64 recent_slot;
	int32 recent[BUDGET_RECENT_SLOTS];
	double credit;
	int64 credit_at; /* time of the last call, when credit was so much; 0: it is full */
} Budget;

/* Usage as Sforce-Limit-Info or /limits tell it; app_limit 0: no such allowance. */
extern void budget_told(Budget *budget, int64 used, int64 limit, int64 now);
extern void budget_told_app(Budget *budget, int64 used, int64 limit, int64 now);

/* There is room again that nobody has counted on: spend from a full credit. */
extern void budget_refill(Budget *budget);

/* A call was made. */
extern void budget_spend(Budget *budget, int64 now);

/* Calls up to the share; INT64_MAX while usage is unknown.  Negative: overrun. */
extern int64 budget_left(const Budget *budget);

/* Has the org, or the app, made all of its calls? */
extern bool budget_used_up(const Budget *budget);

/* Is so little left that calls are spread? */
extern bool budget_is_near(const Budget *budget);

/*
 * When the next call should go, to make what is left last: not after now for at once.  full: no more records
 * would fit; oldest_at is the time of the oldest change (0: as old as can be).
 */
extern int64 budget_when(const Budget *budget, int64 now, bool full, int64 oldest_at);

/* Microseconds between calls at the rate that can be kept up. */
extern int64 budget_interval(const Budget *budget, int64 now);

#endif /* SFSYNC_BUDGET_H */
