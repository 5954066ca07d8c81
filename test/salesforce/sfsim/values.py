"""What a field accepts and what it becomes in storage (reference 3.4, 12.2, 16)."""
import re
from datetime import date
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

from . import clock, ids
from .errors import ParseError, RecordError

EMAIL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
                   r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)+\Z")
DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)\Z")
TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?Z\Z")
NUMERIC = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?\s*\Z")
BLANKS = "".join(map(chr, range(33))) + "\u00a0\u2028\u2029\u3000"
FIRST, LAST = clock.parse_iso("1700-01-01T00:00:00Z")[0], clock.parse_iso("4000-12-31T00:00:00Z")[0]


def json_kind(value):
    """The name that the server's JSON parser has for a value (only in error texts)."""
    if value is None:
        return "VALUE_NULL"
    if isinstance(value, bool):
        return "VALUE_TRUE" if value else "VALUE_FALSE"
    if isinstance(value, int):
        return "VALUE_NUMBER_INT"
    if isinstance(value, Decimal):
        return "VALUE_NUMBER_FLOAT"
    return {str: "VALUE_STRING", dict: "START_OBJECT", list: "START_ARRAY"}[type(value)]


def cannot(field, what, raw):
    shown = None if isinstance(raw, (dict, list)) else ("true" if raw is True else "false" if raw is False else raw)
    raise ParseError(field.name, what, json_kind(raw), shown)


def text_of(field, raw):
    """A trimmed string, or None for an empty one (reference 16, 7)."""
    if not isinstance(raw, str):
        cannot(field, "string", raw)
    if "\0" in raw:
        raw = raw.replace("\0", "")
    return raw.strip(BLANKS) or None


def fits(field, value):
    # Characters, not bytes (reference 16, 13).
    if value is not None and len(value) > field.length:
        raise RecordError("STRING_TOO_LONG", f"{field.label}: data value too large: {value} "
                          f"(max length={field.length})", [field.name])
    return value


def clean_text(field, raw, _config):
    return fits(field, text_of(field, raw))


def clean_email(field, raw, _config):
    value = fits(field, text_of(field, raw))
    if value is None:
        return None
    if not EMAIL.match(value) or ".." in value or value.startswith(".") or ".@" in value:
        raise RecordError("INVALID_EMAIL_ADDRESS", f"{field.label}: invalid email address: {value}", [field.name])
    return value.lower()


def spelling(field, value, exact):
    """The list's own spelling of a value, or None if the value is not in the list."""
    for known in field.picklist:
        if known == value:
            return known
    if not exact:
        folded = value.casefold()
        for known in field.picklist + field.added:
            if known.casefold() == folded:
                return known
    return value if value in field.added else None


def pick(field, value, config):
    exact = field.restricted and not config["restricted_picklist_ignore_case"]
    known = spelling(field, value, exact)
    if known is not None:
        return known
    if field.restricted:
        raise RecordError("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                          f"{field.label}: bad value for restricted picklist field: {value}", [field.name])
    # An unrestricted list swallows the value as a new, inactive one (reference 3.4); the next writer that
    # differs only by case gets this spelling.
    if len(field.added) < 1000:
        field.added.append(value)
    return value


def clean_picklist(field, raw, config):
    value = fits(field, text_of(field, raw))
    return None if value is None else pick(field, value, config)


def clean_multi(field, raw, config):
    value = text_of(field, raw)
    if value is None:
        return None
    chosen = dict.fromkeys(pick(field, part.strip(BLANKS), config) for part in value.split(";") if part.strip(BLANKS))
    order = {v: i for i, v in enumerate(field.picklist)}
    # Read back in the order of the list, not of the input (reference 16, 12).
    return fits(field, ";".join(sorted(chosen, key=lambda v: order.get(v, len(order)))) or None)


def clean_boolean(field, raw, _config):
    if raw is True or raw is False:
        return int(raw)
    if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
        return int(raw.strip().lower() == "true")
    cannot(field, "boolean", raw)


def decimal_of(field, raw, what):
    if isinstance(raw, bool) or not isinstance(raw, (int, str, Decimal)):
        cannot(field, what, raw)
    if isinstance(raw, str):
        if not raw.strip():
            return None
        if not NUMERIC.match(raw):
            cannot(field, what, raw)
        raw = raw.strip()
    return Decimal(raw)


def out_of_range(field, raw):
    raise RecordError("NUMBER_OUTSIDE_VALID_RANGE", f"{field.label}: value outside of valid range on numeric field: "
                      f"{raw}", [field.name])


def clean_int(field, raw, _config):
    value = decimal_of(field, raw, "int")
    if value is None:
        return None
    if value.is_finite() and value != value.to_integral_value():
        cannot(field, "int", raw)
    if abs(value) >= 10 ** (field.digits or 9):
        out_of_range(field, raw)
    return int(value)


def clean_double(field, raw, config):
    value = decimal_of(field, raw, "double")
    if value is None:
        return None
    # The size first: rounding 1e400 would need hundreds of digits.
    left = field.precision - field.scale
    if value and value.adjusted() > left:
        out_of_range(field, raw)
    rounding = ROUND_DOWN if config["extra_decimals"] == "truncate" else ROUND_HALF_UP
    if -value.as_tuple().exponent > field.scale:
        value = value.quantize(Decimal(1).scaleb(-field.scale), rounding=rounding)
    if abs(value) >= Decimal(10) ** left:
        out_of_range(field, raw)
    value = float(value) + 0.0
    limit = 90 if "Latitude" in field.name else 180 if "Longitude" in field.name else None
    if limit and field.compound and abs(value) > limit:
        out_of_range(field, raw)
    return value


def clean_date(field, raw, _config):
    if not isinstance(raw, str):
        cannot(field, "date", raw)
    if not raw.strip():
        return None
    match = DATE.match(raw)
    try:
        value = date(*map(int, match.groups())) if match else None
    except ValueError:
        value = None
    if value is None:
        cannot(field, "date", raw)
    if not 1700 <= value.year <= 4000:
        wrong_type(field, raw)
    return raw


def wrong_type(field, raw):
    raise RecordError("INVALID_TYPE_ON_FIELD_IN_RECORD", f"{field.label}: value not of required type: "
                      f"{'' if raw is None else raw}", [field.name])


def clean_datetime(field, raw, config):
    if not isinstance(raw, str):
        cannot(field, "datetime", raw)
    if not raw.strip():
        return None
    parsed = clock.parse_iso(raw)
    if parsed is None:
        cannot(field, "datetime", raw)
    seconds, fraction = parsed
    # Stored to the second; whether it is cut or rounded no source says (reference 17).
    if config["datetime_fraction"] == "round" and fraction >= 0.5:
        seconds += 1
    if not FIRST <= seconds <= LAST:
        wrong_type(field, raw)
    return clock.stamp(seconds)


def clean_time(field, raw, _config):
    match = TIME.match(raw) if isinstance(raw, str) else None
    if isinstance(raw, str) and not raw.strip():
        return None
    if not match or int(match.group(1)) > 23 or int(match.group(2)) > 59 or int(match.group(3)) > 59:
        cannot(field, "time", raw)
    return f"{match.group(1)}:{match.group(2)}:{match.group(3)}.{(match.group(4) or '0').ljust(3, '0')[:3]}Z"


def clean_reference(field, raw, _config):
    """The form of the id only; whether the record exists is asked of the store."""
    if not isinstance(raw, str):
        cannot(field, "reference", raw)
    if not raw.strip():
        return None
    value = ids.normal(raw.strip())
    if value is None:
        raise RecordError("MALFORMED_ID", f"{field.label}: id value of incorrect type: {raw}", [field.name])
    return value


CLEANERS = {"string": clean_text, "textarea": clean_text, "phone": clean_text, "url": clean_text,
            "combobox": clean_text, "encryptedstring": clean_text, "email": clean_email, "picklist": clean_picklist,
            "multipicklist": clean_multi, "boolean": clean_boolean, "int": clean_int, "long": clean_int,
            "double": clean_double, "currency": clean_double, "percent": clean_double, "date": clean_date,
            "datetime": clean_datetime, "time": clean_time, "reference": clean_reference}


def clean(field, raw, config):
    """The stored form of a value for a writable field, or an error."""
    if raw is None:
        if field.type == "boolean":
            # A checkbox is never null; the code of the refusal is not confirmed (reference 17).
            if config["null_checkbox"] == "false":
                return 0
            wrong_type(field, raw)
        return None
    return CLEANERS[field.type](field, raw, config)


def key_value(field, raw, config):
    """An external id as it is compared: in the form in which it would be stored (reference 16, 17 and 20)."""
    if isinstance(raw, (int, Decimal)) and not isinstance(raw, bool) and field.type in ("string", "email"):
        cannot(field, "string", raw)
    return clean(field, raw, config)
