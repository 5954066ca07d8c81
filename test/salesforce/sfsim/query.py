"""query, queryAll, their pages, and the updated and deleted resources (reference 7)."""
import re
import sqlite3
from collections import OrderedDict

from . import clock, ids
from .errors import ApiError, not_found
from .message import Reply
from .soql import Parser
from .soql_sql import Compiler

LOCATOR = re.compile(r"(01g\w{15})-(\d+)\Z")
OPTION = re.compile(r"batchSize\s*=\s*(\d+)", re.I)
KEPT = 50    # result sets kept for further pages


class Cursor:
    def __init__(self, compiled, rows, user):
        self.compiled, self.rows, self.user = compiled, rows, user


class Query:
    def __init__(self, sim):
        self.sim = sim
        self.cursors = OrderedDict()
        self.number = 0

    def resource(self, request):
        rest = request.segments[4:]
        if request.method != "GET":
            raise ApiError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed. Allowed are HEAD,GET")
        if len(rest) == 1:
            return self.more(request, rest[0])
        if rest:
            raise not_found()
        text = request.query.get("q")
        if not text:
            raise ApiError(400, "MALFORMED_QUERY", "A query string has to be specified")
        return self.run(request, text, request.segments[3] == "queryAll", self.sim.schema.get)

    def compiled(self, text, all_rows, lookup):
        """The query, and its rows as the database gives them."""
        tree = Parser(text).parse()
        compiler = Compiler(text, lookup, self.sim.schema, self.sim.now(), all_rows)
        compiled = compiler.compile(tree)
        try:
            return compiled, self.sim.store.execute(compiled.sql, compiled.params).fetchall()
        except sqlite3.OperationalError as error:
            if "too large" not in str(error) and "too many" not in str(error):
                raise
            raise ApiError(400, "QUERY_TOO_COMPLICATED", "Query is either selecting too many fields or the filter "
                           "conditions are too complicated.") from None

    def run(self, request, text, all_rows, lookup):
        compiled, rows = self.compiled(text, all_rows, lookup)
        if compiled.count_only:
            return Reply(200, {"totalSize": rows[0][0], "done": True, "records": []})
        request.call.records += len(rows)
        if compiled.aggregate:
            return Reply(200, {"totalSize": len(rows), "done": True,
                               "records": [self.aggregate(compiled, row) for row in rows]})
        return self.page(request, Cursor(compiled, rows, request.user_id), 0, None)

    def aggregate(self, compiled, row):
        out = {"attributes": {"type": "AggregateResult"}}
        for (name, field), value in zip(compiled.names, row):
            out[name] = bool(value) if field is not None and field.type == "boolean" and value is not None else value
        return out

    # ---- pages ----

    def page_size(self, request, compiled):
        """batchSize is a hint; the server may give fewer, and gives 200 with two long texts (reference 7.1)."""
        wanted = OPTION.search(request.headers.get("sforce-query-options", ""))
        size = min(2000, max(200, int(wanted.group(1)))) if wanted else 2000
        if compiled.long_texts >= 2:
            size = min(size, 200)
        return max(1, min(size, self.sim.config["page_size"]))

    def page(self, request, cursor, start, locator):
        end = start + self.page_size(request, cursor.compiled)
        body = {"totalSize": len(cursor.rows), "done": end >= len(cursor.rows)}
        if not body["done"]:
            if locator is None:
                locator = self.keep(cursor)
            body["nextRecordsUrl"] = f"/services/data/v{request.version}/query/{locator}-{end}"
        node = cursor.compiled.node
        body["records"] = [node.render(row, self, request.version) for row in cursor.rows[start:end]]
        return Reply(200, body)

    def keep(self, cursor):
        self.number += 1
        locator = ids.make("01g", self.number)
        self.cursors[locator] = cursor
        while len(self.cursors) > KEPT:
            self.cursors.popitem(last=False)
        return locator

    def more(self, request, text):
        match = LOCATOR.match(text)
        cursor = self.cursors.get(match.group(1)) if match else None
        if cursor is None or cursor.user != request.user_id or int(match.group(2)) >= len(cursor.rows):
            raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self.page(request, cursor, int(match.group(2)), match.group(1))

    def children(self, compiled, parent_id, version):
        """The records of a child subquery for one parent, or null."""
        rows = self.sim.store.execute(compiled.sql, [parent_id, *compiled.params[1:]]).fetchall()
        if not rows:
            return None
        if compiled.count_only or compiled.aggregate:
            raise ApiError(400, "MALFORMED_QUERY", "aggregates are not allowed in a child subquery")
        return {"totalSize": len(rows), "done": True, "records": [compiled.node.render(r, self, version) for r in rows]}

    # ---- updated and deleted (reference 7.3) ----

    def replication(self, request, obj, which):
        start, end = (self.moment(request, name) for name in ("start", "end"))
        if start >= end:
            raise ApiError(400, "INVALID_REPLICATION_DATE", "startDate before endDate")
        if start < self.sim.now() - (30 if which == "updated" else 15) * 86400:
            raise ApiError(400, "INVALID_REPLICATION_DATE", f"startDate cannot be more than {30 if which == 'updated' else 15} "
                           "days ago")
        # Seconds of start and end are ignored.
        low, high = clock.stamp(start // 60 * 60), clock.stamp(end // 60 * 60 + 60)
        covered = clock.stamp(min(end, self.sim.now()))
        if which == "updated":
            rows = self.sim.store.execute(f'SELECT Id FROM "{obj.name}" WHERE IsDeleted = 0 AND SystemModstamp >= ? AND '
                                          "SystemModstamp < ?", (low, high))
            return Reply(200, {"ids": [r[0] for r in rows], "latestDateCovered": covered})
        rows = self.sim.store.execute(f'SELECT Id, _deleted_at FROM "{obj.name}" WHERE IsDeleted = 1 AND _deleted_at >= ? AND '
                                      "_deleted_at < ?", (low, high))
        return Reply(200, {"deletedRecords": [{"id": r[0], "deletedDate": r[1]} for r in rows],
                           "earliestDateAvailable": clock.stamp(self.sim.now() - 15 * 86400), "latestDateCovered": covered})

    def moment(self, request, name):
        parsed = clock.parse_iso(request.query.get(name, "").replace(" ", "+"))
        if parsed is None:
            raise ApiError(400, "INVALID_REPLICATION_DATE", f"{name} date is required and must be an ISO date-time")
        return parsed[0]
