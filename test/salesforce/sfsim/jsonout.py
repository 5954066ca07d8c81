"""JSON in and out the way Salesforce reads and prints it.

The output differs from the standard library's in the numbers: a double always has a decimal part, and from
ten million on an exponent ("1.0E10"), the form of Java (reference 3.4)."""
import json
from decimal import Decimal
from json.encoder import encode_basestring as quote

from .errors import ApiError


def java_double(value):
    """Java's Double.toString."""
    size = abs(value)
    if value == 0 or 1e-3 <= size < 1e7:
        text = repr(value)
        return text if "e" not in text else format(Decimal(text), "f")
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, digits))
    return f"{'-' if sign else ''}{digits[0]}.{digits[1:] or '0'}E{exponent + len(digits) - 1}"


def dumps(value):
    kind = type(value)
    if kind is str:
        return quote(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is float:
        return java_double(value)
    if kind is dict:
        return "{" + ",".join([quote(k) + ":" + dumps(v) for k, v in value.items()]) + "}"
    if kind is list or kind is tuple:
        return "[" + ",".join([dumps(v) for v in value]) + "]"
    if kind is int:
        return str(value)
    if kind is Decimal:
        return str(value)
    raise TypeError(kind)


def pretty(value):
    """The spaced form asked for by X-PrettyPrint: 1."""
    return json.dumps(json.loads(dumps(value)), indent=2, separators=(",", " : "), ensure_ascii=False)


def _no_constant(name):
    raise ValueError(name)


DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant)


def loads(raw):
    """The body of a request.  Numbers with a point stay decimal, so that no digit is lost before the check."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ApiError(400, "JSON_PARSER_ERROR", "Invalid UTF-8 in request body at [line:1, column:1]") from None
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _syntax(text, error.pos, error.lineno, error.colno) from None
    except ValueError:
        raise ApiError(400, "JSON_PARSER_ERROR", "Unrecognized token: was expecting ('true', 'false' or 'null')"
                       " at [line:1, column:1]") from None


def _syntax(text, position, line, column):
    if position >= len(text):
        what = "Unexpected end-of-input: was expecting closing of a value"
    else:
        char = text[position]
        what = (f"Unexpected character ('{char}' (code {ord(char)})): was expecting a valid value or "
                "double-quote to start field name")
    return ApiError(400, "JSON_PARSER_ERROR", f"{what} at [line:{line}, column:{column + 1}]")
