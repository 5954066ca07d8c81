"""The simulator's clock, which tests may shift or freeze, and Salesforce's forms of time."""
import calendar
import re
import time
from datetime import datetime, timedelta, timezone
from email.utils import formatdate

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)\Z")
HTTP_DATE = re.compile(r"\w{3}, (\d{1,2}) (\w{3}) (\d{4}) (\d\d):(\d\d):(\d\d) (?:GMT|UTC)\Z")
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


class Clock:
    def __init__(self):
        self.offset, self.frozen = 0.0, None

    def now(self):
        return self.frozen if self.frozen is not None else time.time() + self.offset


def stamp(seconds):
    """Epoch seconds as REST prints them: UTC, whole seconds, always .000 (reference 3.4)."""
    moment = EPOCH + timedelta(seconds=int(seconds // 1))
    return moment.strftime("%04d-%%m-%%dT%%H:%%M:%%S.000+0000" % moment.year)


def seconds_of(printed):
    """Back from the printed form to epoch seconds."""
    return calendar.timegm((int(printed[0:4]), int(printed[5:7]), int(printed[8:10]),
                            int(printed[11:13]), int(printed[14:16]), int(printed[17:19])))


def parse_iso(text):
    """Epoch seconds (with fraction) of an ISO date-time, or None.

    "ss+0000" without a fraction was refused by a real org, with one it was taken; a blank instead of T is
    refused (reference 3.4)."""
    match = ISO.match(text)
    if not match:
        return None
    year, month, day, hour, minute, second = (int(match.group(i)) for i in range(1, 7))
    fraction, zone = match.group(7), match.group(8)
    if fraction is None and zone != "Z" and ":" not in zone:
        return None
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
    except ValueError:
        return None
    shift = 0
    if zone != "Z":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        if hours > 23 or minutes > 59:
            return None
        shift = (hours * 60 + minutes) * (-60 if zone[0] == "+" else 60)
    # Integer arithmetic: .999999 of a far year must not round up to the next second on its way through a float.
    whole = int((moment - EPOCH) / timedelta(seconds=1)) + shift
    return whole, float(fraction or 0)


def http_date(seconds):
    return formatdate(seconds, usegmt=True)


def parse_http_date(text):
    """Epoch seconds of an HTTP date, or None.  English names only, GMT only (reference 4.5)."""
    match = HTTP_DATE.match(text.strip())
    if not match or match.group(2) not in MONTHS:
        return None
    day, month, year, hour, minute, second = match.groups()
    try:
        moment = datetime(int(year), MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second),
                          tzinfo=timezone.utc)
    except ValueError:
        return None
    return int((moment - EPOCH).total_seconds())
