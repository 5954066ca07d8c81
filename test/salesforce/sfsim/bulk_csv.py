"""CSV as Bulk API 2.0 takes and gives it (reference 9.3)."""
import csv
import io
import re

DELIMITERS = {"BACKQUOTE": "`", "CARET": "^", "COMMA": ",", "PIPE": "|", "SEMICOLON": ";", "TAB": "\t"}
LINE_ENDINGS = {"LF": "\n", "CRLF": "\r\n"}
MAX_HEADER, MAX_FIELD, MAX_RECORD, MAX_FIELDS = 32000, 131072, 400000, 5000
BARE_LF = re.compile(r"(?<!\r)\n")
NULL = "#N/A"

csv.field_size_limit(2 ** 31 - 1)    # our own limits follow


class BadCsv(Exception):
    """Why a job as a whole fails, as its errorMessage says it."""


def line_endings(text, name):
    """Every line break must be the job's, also within quotes."""
    wrong = "\r" in text if name == "LF" else BARE_LF.search(text) or "\r" in text.replace("\r\n", "")
    if wrong:
        raise BadCsv(f"ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is {name}")


def stray_quotes(text, delimiter):
    """A quote stands at the start of a field or not at all: a blank before it, or text behind it, is an error."""
    d = re.escape(delimiter)
    field = re.compile(rf'(?:"(?:[^"]|"")*"|[^"{d}\r\n]*)(?:{d}|\r\n|\n|\Z)')
    at = 0
    while at < len(text):
        found = field.match(text, at)
        if found is None:
            raise BadCsv("InvalidBatch : Failed to parse CSV: unexpected quote in field")
        at = found.end()


def parse(raw, delimiter_name, ending_name):
    """(header, rows) of an upload.  Rows are lists of text; blank lines are none."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadCsv("ClientInputError : Failed to read request. Exception: invalid UTF-8") from None
    line_endings(text, ending_name)
    delimiter = DELIMITERS[delimiter_name]
    stray_quotes(text, delimiter)
    try:
        rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if r]
    except csv.Error as error:
        raise BadCsv(f"InvalidBatch : Failed to parse CSV: {error}") from None
    if not rows:
        raise BadCsv("InvalidBatch : The CSV has no header")
    header = rows.pop(0)
    check_sizes(header, rows)
    return header, rows


def check_sizes(header, rows):
    if sum(map(len, header)) + len(header) > MAX_HEADER:
        raise BadCsv(f"InvalidBatch : The header has more than {MAX_HEADER} characters")
    if len(header) > MAX_FIELDS:
        raise BadCsv(f"InvalidBatch : Records have more than {MAX_FIELDS} fields")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise BadCsv(f"InvalidBatch : Record {number} has {len(row)} fields, the header has {len(header)}")
        lengths = list(map(len, row))
        if max(lengths) > MAX_FIELD:
            raise BadCsv(f"InvalidBatch : A field of record {number} has more than {MAX_FIELD} characters")
        if sum(lengths) > MAX_RECORD:
            raise BadCsv(f"InvalidBatch : Record {number} has more than {MAX_RECORD} characters")


def quote(value):
    return '"' + value.replace('"', '""') + '"'


def written(own, header, rows, delimiter_name, ending_name):
    """Results: the columns of the API are quoted in the header, those of the upload are not; values always are."""
    delimiter, ending = DELIMITERS[delimiter_name], LINE_ENDINGS[ending_name]
    names = [quote(n) for n in own] + [quote(n) if re.search(r'["\r\n]|' + re.escape(delimiter), n) else n for n in header]
    lines = [delimiter.join(names)] + [delimiter.join(map(quote, row)) for row in rows]
    return "".join(line + ending for line in lines)
