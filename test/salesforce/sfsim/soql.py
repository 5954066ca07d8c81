"""SOQL text to a tree (reference 7).  What it means is the business of soql_sql."""
import re

from .errors import ApiError

TOKEN = re.compile(r"""
    (?P<space>\s+)
  | (?P<string>'(?:[^'\\]|\\.)*')
  | (?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))
  | (?P<date>\d{4}-\d\d-\d\d)
  | (?P<time>\d\d:\d\d:\d\d(?:\.\d+)?Z)
  | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_.]*(?::\d+)?)
  | (?P<op><=|>=|!=|<>|=|<|>|\(|\)|,)
""", re.X | re.S)
ESCAPES = {"n": "\n", "N": "\n", "r": "\r", "R": "\r", "t": "\t", "T": "\t", "b": "\b", "B": "\b", "f": "\f", "F": "\f",
           '"': '"', "'": "'", "\\": "\\"}
AGGREGATES = {"count", "count_distinct", "sum", "avg", "min", "max"}
COMPARISONS = {"=", "!=", "<>", "<", ">", "<=", ">="}
MAX_TEXT, MAX_LITERAL = 100000, 4000


def query_error(text, position, message, code="MALFORMED_QUERY"):
    """The server's form: the text around the place, a caret under it, row and column (reference 7.1)."""
    row = text.count("\n", 0, position) + 1
    start = text.rfind("\n", 0, position) + 1
    column = position - start
    line = text[start:].split("\n", 1)[0]
    begin = max(0, column - 60)
    shown = line[begin:column + 60]
    return ApiError(400, code, f"\n{shown}\n{' ' * (column - begin)}^\nERROR at Row:{row}:Column:{column + 1}\n{message}")


class Token:
    __slots__ = ("kind", "text", "at")

    def __init__(self, kind, text, at):
        self.kind, self.text, self.at = kind, text, at


class Literal:
    """A value as written: kind is string, number, date, datetime, time, name (null, true, TODAY, ...)."""

    def __init__(self, kind, value, at):
        self.kind, self.value, self.at = kind, value, at


class Select:
    def __init__(self, at):
        self.at = at
        self.items, self.object, self.object_at, self.alias = [], None, 0, None
        self.where, self.group, self.order, self.limit, self.offset = None, [], [], None, None
        self.count_only = False


class Item:
    """kind: field, aggregate, sub, fields."""

    def __init__(self, kind, at, path=None, function=None, alias=None, select=None):
        self.kind, self.at, self.path, self.function, self.alias, self.select = kind, at, path, function, alias, select


def tokens_of(text):
    out, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            if text[at] == "'":
                raise query_error(text, at, "unterminated string literal")
            raise query_error(text, at, f"line {text.count(chr(10), 0, at) + 1}:{at} no viable alternative at character "
                              f"'{text[at]}'")
        if match.lastgroup != "space":
            out.append(Token(match.lastgroup, match.group(), at))
        at = match.end()
    out.append(Token("end", "<EOF>", len(text)))
    return out


def unescape(text, token, for_like):
    """The value of a string literal; in LIKE the escapes of % and _ are left for the matcher."""
    body, out, i = token.text[1:-1], [], 0
    while i < len(body):
        char = body[i]
        if char != "\\":
            out.append(char)
            i += 1
            continue
        nxt = body[i + 1:i + 2]
        if nxt in ("u", "U") and re.match(r"[0-9A-Fa-f]{4}\Z", body[i + 2:i + 6]):
            out.append(chr(int(body[i + 2:i + 6], 16)))
            i += 6
            continue
        if for_like and nxt in ("_", "%", "\\"):
            out.append("\\" + nxt)
        elif nxt in ESCAPES:
            out.append(ESCAPES[nxt])
        else:
            raise query_error(text, token.at, f"Invalid string literal {token.text}. Illegal character sequence "
                              f"'\\{nxt}' in string literal.")
        i += 2
    return "".join(out)


class Parser:
    def __init__(self, text):
        if len(text) > MAX_TEXT:
            raise ApiError(400, "MALFORMED_QUERY", f"SOQL statements cannot be longer than {MAX_TEXT} characters.")
        self.text, self.tokens, self.at = text, tokens_of(text), 0

    # ---- tools ----

    @property
    def token(self):
        return self.tokens[self.at]

    def next(self):
        self.at += 1
        return self.tokens[self.at - 1]

    def unexpected(self, token=None):
        token = token or self.token
        if token.kind == "end":
            raise query_error(self.text, max(0, token.at - 1), "unexpected token: '<EOF>'")
        raise query_error(self.text, token.at, f"unexpected token: '{token.text}'")

    def word(self, *words):
        """Takes the next tokens if they are these words."""
        for i, word in enumerate(words):
            token = self.tokens[min(self.at + i, len(self.tokens) - 1)]
            if token.kind != "name" or token.text.lower() != word:
                return False
        self.at += len(words)
        return True

    def op(self, text):
        if self.token.kind == "op" and self.token.text == text:
            return self.next()
        return None

    def need(self, text):
        found = self.op(text)
        if not found:
            self.unexpected()
        return found

    def need_name(self):
        keyword = self.token.text.lower() in ("from", "where", "and", "or", "order", "group", "limit", "select")
        if self.token.kind != "name" or keyword:
            self.unexpected()
        return self.next()

    def need_number(self):
        if self.token.kind != "number" or not self.token.text.isdigit():
            self.unexpected()
        return int(self.next().text)

    # ---- grammar ----

    def parse(self):
        select = self.select(0)
        if self.token.kind != "end":
            self.unexpected()
        return select

    def select(self, depth):
        out = Select(self.token.at)
        if not self.word("select"):
            self.unexpected()
        while True:
            out.items.append(self.item(depth))
            if not self.op(","):
                break
        if not self.word("from"):
            self.unexpected()
        name = self.need_name()
        out.object, out.object_at = name.text, name.at
        if self.token.kind == "name" and self.token.text.lower() not in ("where", "group", "order", "limit", "offset",
                                                                         "having", "with", "for", "using", "all"):
            out.alias = self.next().text
        self.clauses(out)
        first = out.items[0]
        out.count_only = len(out.items) == 1 and first.kind == "aggregate" and first.function == "count" and not first.path
        return out

    def clauses(self, out):
        if self.word("where"):
            out.where = self.condition()
        if self.word("group", "by"):
            out.group = self.names()
        if self.word("order", "by"):
            while True:
                out.order.append(self.ordering())
                if not self.op(","):
                    break
        if self.word("limit"):
            out.limit = self.need_number()
        if self.word("offset"):
            at = self.token.at
            out.offset = self.need_number()
            if out.offset > 2000:
                raise query_error(self.text, at, "Maximum SOQL offset allowed is 2000", "NUMBER_OUTSIDE_VALID_RANGE")
        if self.word("all", "rows"):
            raise query_error(self.text, self.tokens[self.at - 2].at, "ALL ROWS not allowed in this context")

    def item(self, depth):
        if self.token.kind == "op" and self.token.text == "(":
            if depth:
                self.unexpected()
            at = self.next().at
            inner = self.select(depth + 1)
            self.need(")")
            return Item("sub", at, select=inner)
        name = self.need_name()
        if not self.op("("):
            item = Item("field", name.at, path=name.text)
            if self.token.kind == "name" and self.token.text.lower() not in ("from",):
                item.alias = self.next().text
            return item
        function = name.text.lower()
        if function == "fields":
            item = Item("fields", name.at, path=self.need_name().text.lower())
        elif function in AGGREGATES:
            path = None if self.token.text == ")" else self.need_name().text
            item = Item("aggregate", name.at, path=path, function=function)
        else:
            raise query_error(self.text, name.at, f"unknown function {name.text}")
        self.need(")")
        if item.kind == "aggregate" and self.token.kind == "name" and self.token.text.lower() != "from":
            item.alias = self.next().text
        return item

    def names(self):
        out = [self.need_name()]
        while self.op(","):
            out.append(self.need_name())
        return [(t.text, t.at) for t in out]

    def ordering(self):
        """(path or aggregate item, position, descending, nulls last)"""
        name = self.need_name()
        item = Item("field", name.at, path=name.text)
        if self.op("("):
            path = None if self.token.text == ")" else self.need_name().text
            item = Item("aggregate", name.at, path=path, function=name.text.lower())
            self.need(")")
        down = self.word("desc")
        if not down:
            self.word("asc")
        last = self.word("nulls", "last")
        if not last:
            self.word("nulls", "first")
        return item, down, last

    # ---- WHERE: AND and OR cannot be mixed without parentheses ----

    def condition(self):
        parts = [self.term()]
        word = None
        while True:
            at = self.token
            if self.word("and"):
                found = "and"
            elif self.word("or"):
                found = "or"
            else:
                break
            if word and found != word:
                self.unexpected(at)
            word = found
            parts.append(self.term())
        return parts[0] if word is None else (word, parts)

    def term(self):
        if self.word("not"):
            return "not", self.term()
        if self.op("("):
            inner = self.condition()
            self.need(")")
            return inner
        name = self.need_name()
        return self.comparison(name)

    def comparison(self, name):
        token = self.token
        if token.kind == "op" and token.text in COMPARISONS:
            self.next()
            operator = "!=" if token.text == "<>" else token.text
            return "compare", name.text, name.at, operator, self.literal(False)
        if self.word("like"):
            return "compare", name.text, name.at, "like", self.literal(True)
        for words in (("not", "in"), ("in",), ("includes",), ("excludes",)):
            if self.word(*words):
                return "compare", name.text, name.at, " ".join(words), self.list()
        self.unexpected()

    def list(self):
        self.need("(")
        if self.token.kind == "name" and self.token.text.lower() == "select":
            inner = self.select(1)
            self.need(")")
            return inner
        out = [self.literal(False)]
        while self.op(","):
            out.append(self.literal(False))
        self.need(")")
        return out

    def literal(self, for_like):
        token = self.token
        if token.kind == "string":
            self.next()
            value = unescape(self.text, token, for_like)
            if len(value) > MAX_LITERAL:
                raise query_error(self.text, token.at, f"string literal exceeds {MAX_LITERAL} characters")
            return Literal("string", value, token.at)
        if token.kind in ("number", "date", "datetime", "time", "name"):
            self.next()
            return Literal(token.kind, token.text, token.at)
        self.unexpected()
