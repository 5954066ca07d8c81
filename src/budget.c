/*
 * budget.c
 *		The share of the org's daily API calls.  Pure.
 */
#include "compat.h"

#include "budget.h"

#define SECOND INT64CONST(1000000)
#define DAY (24 * 60 * 60 * SECOND)
#define DAY_SLOT (15 * 60 * SECOND)
#define RECENT_SLOT (30 * SECOND)

/* The credit: a tenth of what is left, but enough for the requests of a transaction. */
#define CREDIT_PORTION 10
#define CREDIT_MIN 20

/* Others are not so even: a hundredth of the share is held back, lest they make us stop. */
#define MARGIN_PORTION 100

/*
 * Counting
 */

/* Make the slot of now the current one, and forget those that the ring can't hold. */
static void
advance(int64 *current, int32 *ring, int size, int64 slot)
{
	if (slot <= *current)
		return; /* a clock that was set back counts on where it was */
	if (slot - *current >= size)
		memset(ring, 0, sizeof(int32) * size);
	else
		for (int64 s = *current + 1; s <= slot; s++)
			ring[s % size] = 0;
	*current = slot;
}

static void
advance_to(Budget *budget, int64 now)
{
	advance(&budget->day_slot, budget->day, BUDGET_DAY_SLOTS, now / DAY_SLOT);
	advance(&budget->recent_slot, budget->recent, BUDGET_RECENT_SLOTS, now / RECENT_SLOT);
}

/* Our calls of the last minutes. */
static int64
recent_calls(const Budget *budget)
{
	int64 sum = 0;

	for (int i = 0; i < BUDGET_RECENT_SLOTS; i++)
		sum += budget->recent[i];
	return sum;
}

/*
 * The number told is never too high, and may lack our calls of the last minutes:
 * what we count ourselves is held between the two.
 */
static void
told(Budget *budget, Usage *usage, int64 used, int64 limit, int64 now)
{
	int64 recent;

	advance_to(budget, now);
	recent = recent_calls(budget);
	if (usage->limit <= 0)
		usage->used = used;
	usage->limit = limit;
	usage->told = used;
	usage->used = Max(usage->used, used);
	if (usage->used - used > recent)
		usage->used = used + recent;
}

void
budget_told(Budget *budget, int64 used, int64 limit, int64 now)
{
	if (used >= 0 && limit > 0)
		told(budget, &budget->org, used, limit, now);
}

void
budget_told_app(Budget *budget, int64 used, int64 limit, int64 now)
{
	if (used >= 0 && limit > 0)
		told(budget, &budget->app, used, limit, now);
	else
		budget->app.limit = 0;
}

/*
 * What is left
 */

static int64
org_share(const Budget *budget)
{
	/* in two parts, so that no limit can overflow */
	return budget->org.limit / 100 * budget->percent + budget->org.limit % 100 * budget->percent / 100;
}

int64
budget_left(const Budget *budget)
{
	int64 left = PG_INT64_MAX;

	if (budget->org.limit > 0)
		left = org_share(budget) - budget->org.used;
	if (budget->app.limit > 0)
		left = Min(left, budget->app.limit - budget->app.used);
	return left;
}

bool
budget_used_up(const Budget *budget)
{
	return (budget->org.limit > 0 && budget->org.used >= budget->org.limit) ||
		   (budget->app.limit > 0 && budget->app.used >= budget->app.limit);
}

bool
budget_is_near(const Budget *budget)
{
	if (budget->org.limit > 0 && budget->org.used > org_share(budget) / 2)
		return true;
	return budget->app.limit > 0 && budget->app.used > budget->app.limit / 2;
}

/*
 * Spreading
 */

/*
 * Calls a microsecond that can be kept up: at no time within a day may more have
 * been spent than is left and has come back until then.  Others are expected to
 * go on as they did a day ago, so only our own calls come back to us.
 */
static double
pace(const Budget *budget, int64 now)
{
	int64 left = Max(budget_left(budget), 0);
	double available = (double) Max(left - org_share(budget) / MARGIN_PORTION, left / 4);
	double best = (double) PG_INT64_MAX;

	for (int64 s = Max(budget->day_slot - BUDGET_DAY_SLOTS + 1, 0); s <= budget->day_slot; s++)
	{
		int64 leaves = (s + 1) * DAY_SLOT + DAY - now;
		int32 calls = budget->day[s % BUDGET_DAY_SLOTS];

		if (leaves >= DAY)
			break;
		if (leaves > 0 && calls > 0)
			best = Min(best, available / (double) leaves);
		available += calls;
	}
	return Min(best, available / (double) DAY);
}

static double
credit_max(const Budget *budget)
{
	int64 left = Max(budget_left(budget), 0);

	return (double) Min(Max(left / CREDIT_PORTION, CREDIT_MIN), left);
}

static double
credit_at(const Budget *budget, int64 now, double rate)
{
	double most = credit_max(budget);

	if (budget->credit_at == 0)
		return most;
	return Min(most, budget->credit + rate * (double) Max(now - budget->credit_at, 0));
}

void
budget_refill(Budget *budget)
{
	budget->credit_at = 0;
}

void
budget_spend(Budget *budget, int64 now)
{
	advance_to(budget, now);
	if (budget_is_near(budget))
	{
		budget->credit = Max(credit_at(budget, now, pace(budget, now)) - 1, 0);
		budget->credit_at = now;
	}
	else
		budget->credit_at = 0;
	budget->day[budget->day_slot % BUDGET_DAY_SLOTS]++;
	budget->recent[budget->recent_slot % BUDGET_RECENT_SLOTS]++;
	budget->org.used++;
	budget->app.used++;
}

/* The sum, or as late as can be. */
static int64
later(int64 time, double delay)
{
	return delay >= (double) (PG_INT64_MAX - time) ? PG_INT64_MAX : time + (int64) delay;
}

int64
budget_interval(const Budget *budget, int64 now)
{
	double rate = pace(budget, now);

	return rate > 0 ? later(0, 1 / rate) : PG_INT64_MAX;
}

int64
budget_when(const Budget *budget, int64 now, bool full, int64 oldest_at)
{
	double rate;
	double credit;
	double most;
	int64 when = now;

	if (!budget_is_near(budget))
		return now;
	rate = pace(budget, now);
	most = credit_max(budget);
	if (rate <= 0 || most < 1)
		return PG_INT64_MAX;
	credit = credit_at(budget, now, rate);
	if (credit < 1)
		when = later(now, (1 - credit) / rate);
	if (!full && oldest_at > 0 && credit < most / 2)
		when = Max(when, later(Min(oldest_at, now), (1 - 2 * Max(credit, 0) / most) / rate));
	return when;
}
