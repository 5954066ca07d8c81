"""Date literals of SOQL: each names a span of days (reference 7.2)."""
from datetime import date, timedelta


def month_start(day, months=0):
    index = day.year * 12 + day.month - 1 + months
    return date(index // 12, index % 12 + 1, 1)


def span(name, today):
    """First day and the day after the last one, or None if the name is no date literal."""
    word, _, count = name.upper().partition(":")
    day = timedelta(days=1)
    n = int(count) if count else None
    week = today - timedelta(days=(today.weekday() + 1) % 7)   # weeks start on Sunday
    month, year = month_start(today), date(today.year, 1, 1)
    quarter = month_start(today, -((today.month - 1) % 3))
    if n is None:
        fixed = {
            "TODAY": (today, today + day), "YESTERDAY": (today - day, today), "TOMORROW": (today + day, today + 2 * day),
            "THIS_WEEK": (week, week + 7 * day), "LAST_WEEK": (week - 7 * day, week),
            "NEXT_WEEK": (week + 7 * day, week + 14 * day),
            "THIS_MONTH": (month, month_start(today, 1)), "LAST_MONTH": (month_start(today, -1), month),
            "NEXT_MONTH": (month_start(today, 1), month_start(today, 2)),
            "THIS_QUARTER": (quarter, month_start(quarter, 3)), "LAST_QUARTER": (month_start(quarter, -3), quarter),
            "NEXT_QUARTER": (month_start(quarter, 3), month_start(quarter, 6)),
            "THIS_YEAR": (year, date(today.year + 1, 1, 1)), "LAST_YEAR": (date(today.year - 1, 1, 1), year),
            "NEXT_YEAR": (date(today.year + 1, 1, 1), date(today.year + 2, 1, 1)),
            "LAST_90_DAYS": (today - 90 * day, today + day), "NEXT_90_DAYS": (today + day, today + 91 * day)}
        return fixed.get(word)
    counted = {
        "LAST_N_DAYS": lambda: (today - n * day, today + day), "NEXT_N_DAYS": lambda: (today + day, today + (n + 1) * day),
        "N_DAYS_AGO": lambda: (today - n * day, today - (n - 1) * day),
        "LAST_N_WEEKS": lambda: (week - 7 * n * day, week), "NEXT_N_WEEKS": lambda: (week + 7 * day, week + 7 * (n + 1) * day),
        "LAST_N_MONTHS": lambda: (month_start(today, -n), month),
        "NEXT_N_MONTHS": lambda: (month_start(today, 1), month_start(today, n + 1)),
        "LAST_N_YEARS": lambda: (date(today.year - n, 1, 1), year),
        "NEXT_N_YEARS": lambda: (date(today.year + 1, 1, 1), date(today.year + n + 1, 1, 1))}
    made = counted.get(word)
    return made() if made else None
