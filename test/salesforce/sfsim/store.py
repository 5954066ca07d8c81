"""The SQLite database behind the org: tables from the schema, transactions, rows in and out.

Values are kept in the form in which REST prints them (date-times as text in UTC, all of one shape, so that
comparing text compares time), doubles as REAL, checkboxes as 0 and 1."""
import re
import sqlite3
from collections import Counter

from . import ids

AFFINITY = {"boolean": "INTEGER", "int": "INTEGER", "long": "INTEGER", "double": "REAL", "currency": "REAL",
            "percent": "REAL", "anyType": ""}


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def fold_order(left, right):
    """The collation of fields that ignore case.  SQLite's own NOCASE knows ASCII only."""
    left, right = left.casefold(), right.casefold()
    return (left > right) - (left < right)


LIKE_CACHE = {}


def like(value, pattern, folds):
    """SOQL LIKE: % and _, a backslash before either takes it literally (reference 7.2)."""
    if value is None:
        return 0
    compiled = LIKE_CACHE.get((pattern, folds))
    if compiled is None:
        out, at = "", 0
        while at < len(pattern):
            char = pattern[at]
            if char == "\\" and at + 1 < len(pattern):
                at += 1
                out += re.escape(pattern[at])
            else:
                out += {"%": ".*", "_": "."}.get(char) or re.escape(char)
            at += 1
        if len(LIKE_CACHE) > 500:
            LIKE_CACHE.clear()
        compiled = LIKE_CACHE[pattern, folds] = re.compile(out, re.S | (re.I if folds else 0))
    return 1 if compiled.fullmatch(str(value)) else 0


def includes(value, wanted):
    """SOQL INCLUDES for one alternative: all of its values are selected in the multipicklist."""
    if value is None:
        return 0
    have = {v.casefold() for v in value.split(";")}
    return 1 if all(w.casefold() in have for w in wanted.split(";")) else 0


class Store:
    def __init__(self, path=":memory:"):
        self.path = path
        self.created = Counter()     # records ever created, by object
        self.numbers = Counter()     # the last number given to an id, by prefix
        self.depth = 0
        self.marks = []
        self.db = sqlite3.connect(path, isolation_level=None, cached_statements=1000, check_same_thread=False)
        for pragma in ("journal_mode=MEMORY", "synchronous=OFF", "temp_store=MEMORY", "cache_size=-200000"):
            self.db.execute("PRAGMA " + pragma)
        self.db.create_collation("FOLD", fold_order)
        self.db.create_function("sf_like", 3, like, deterministic=True)
        self.db.create_function("sf_includes", 2, includes, deterministic=True)
        self.execute = self.db.execute

    # ---- tables ----

    def column(self, field):
        text = f"{quoted(field.name)} {AFFINITY.get(field.type, 'TEXT')}"
        if field.sql:
            text += f" GENERATED ALWAYS AS ({field.sql}) VIRTUAL"
        return text + (" COLLATE FOLD" if field.folds_case else "")

    def create(self, obj):
        columns = [self.column(f) + (" PRIMARY KEY" if f.name == "Id" else "") for f in obj.fields if f.stored]
        self.execute(f"CREATE TABLE {quoted(obj.name)} ({', '.join(columns)}, _deleted_at TEXT)")
        for field in obj.fields:
            self.index(obj, field)

    def index(self, obj, field):
        """What requests look records up by.  Lookups to users are left out: users cannot be deleted."""
        wanted = field.id_lookup or field.unique or field.refers and "User" not in field.refers
        if field.stored and wanted and field.name != "Id" or obj.history_of and field.name == obj.history_parent:
            self.execute(f"CREATE INDEX {quoted(f'{obj.name}.{field.name}.{self.next_id()}')} "
                         f"ON {quoted(obj.name)} ({quoted(field.name)})")

    def next_id(self):
        self.numbers[""] += 1
        return self.numbers[""]

    def add_column(self, obj, field):
        if field.stored:
            self.execute(f"ALTER TABLE {quoted(obj.name)} ADD COLUMN {self.column(field)}")
            if field.type == "boolean" and not field.sql:
                self.execute(f"UPDATE {quoted(obj.name)} SET {quoted(field.name)} = ?", (int(field.default),))
            self.index(obj, field)

    def drop_column(self, obj, field):
        """Renamed, not dropped: a field of that name may come back, empty."""
        if field.stored:
            self.execute(f"ALTER TABLE {quoted(obj.name)} RENAME COLUMN {quoted(field.name)} "
                         f"TO {quoted(f'_gone_{self.next_id()}_{field.name}')}")

    def drop(self, obj):
        self.execute(f"DROP TABLE {quoted(obj.name)}")

    # ---- transactions: one for each request, savepoints within ----

    def begin(self):
        if self.depth == 0:
            self.execute("BEGIN")
        else:
            self.execute(f"SAVEPOINT s{self.depth}")
        self.marks.append(self.created.copy())
        self.depth += 1

    def commit(self):
        self.depth -= 1
        self.marks.pop()
        self.execute("COMMIT" if self.depth == 0 else f"RELEASE s{self.depth}")

    def rollback(self):
        self.depth -= 1
        self.created = self.marks.pop()
        if self.depth == 0:
            self.execute("ROLLBACK")
        else:
            self.execute(f"ROLLBACK TO s{self.depth}")
            self.execute(f"RELEASE s{self.depth}")

    # ---- rows ----

    def new_id(self, prefix):
        self.numbers[prefix] += 1
        return ids.make(prefix, self.numbers[prefix])

    def insert(self, obj, values):
        plan = obj.plans.get("insert")
        if plan is None:
            names = [f.name for f in obj.columns]
            plan = obj.plans["insert"] = (names, f"INSERT INTO {quoted(obj.name)} ({', '.join(map(quoted, names))}) "
                                                 f"VALUES ({', '.join('?' * len(names))})")
        self.execute(plan[1], [values.get(n) for n in plan[0]])
        self.created[obj.name] += 1

    def update(self, obj, record_id, values):
        sets = ", ".join([quoted(n) + " = ?" for n in values])
        self.execute(f"UPDATE {quoted(obj.name)} SET {sets} WHERE Id = ?", [*values.values(), record_id])

    def find(self, obj, field, value, limit=3):
        """Ids of the live records with a value, in the order of their creation."""
        rows = self.execute(f"SELECT Id FROM {quoted(obj.name)} WHERE {quoted(field.name)} = ? AND IsDeleted = 0 "
                            f"LIMIT {limit}", (value,))
        return [r[0] for r in rows]

    def state(self, obj, record_id):
        """None (unknown), 0 (there) or 1 (in the recycle bin)."""
        row = self.execute(f"SELECT IsDeleted FROM {quoted(obj.name)} WHERE Id = ?", (record_id,)).fetchone()
        return None if row is None else row[0]

    def columns_of(self, obj, record_id, names):
        """Some columns of one record, deleted or not, as a dict; None if there is none."""
        row = self.execute(f"SELECT {', '.join(map(quoted, names))} FROM {quoted(obj.name)} WHERE Id = ?",
                           (record_id,)).fetchone()
        return None if row is None else dict(zip(names, row))


# ---- how a row prints ----

def parts_of(obj, field):
    """The stored columns that a field needs: itself, or the components of a compound one."""
    if field.stored:
        return [field.name]
    return [f.name for f in obj.fields if f.compound == field.name]


def address_value(prefix, row):
    value = {key: row.get(prefix + key[0].upper() + key[1:])
             for key in ("city", "country", "geocodeAccuracy", "latitude", "longitude", "postalCode", "state", "street")}
    return value if any(v is not None for v in value.values()) else None


def location_value(name, row):
    latitude = row.get(name[:-1] + "Latitude__s" if name.endswith("__c") else name + "Latitude")
    longitude = row.get(name[:-1] + "Longitude__s" if name.endswith("__c") else name + "Longitude")
    return None if latitude is None and longitude is None else {"latitude": latitude, "longitude": longitude}


def printed(field, row):
    """The JSON value of a field, from a dict of stored columns."""
    if field.type == "address":
        return address_value(field.name[:-len("Address")], row)
    if field.type == "location":
        return location_value(field.name, row)
    value = row[field.name]
    if field.type == "boolean" and value is not None:
        return bool(value)
    return value


class Reader:
    """Reads chosen fields of records of one object and prints them."""

    def __init__(self, obj, fields):
        self.obj, self.fields = obj, fields
        self.names = list(dict.fromkeys(["Id"] + [n for f in fields for n in parts_of(obj, f)]))
        self.sql = f"SELECT {', '.join(map(quoted, self.names))} FROM {quoted(obj.name)}"

    def record(self, values, version=None):
        """A row as an object; with a version, with attributes."""
        row = dict(zip(self.names, values))
        out = {}
        if version:
            out["attributes"] = {"type": self.obj.name,
                                 "url": f"/services/data/v{version}/sobjects/{self.obj.name}/{row['Id']}"}
        for field in self.fields:
            out[field.name] = printed(field, row)
        return out
