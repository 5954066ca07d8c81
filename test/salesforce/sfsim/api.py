"""Which resource answers a request under /services/data, and its transaction."""
import re

from . import collections_, composite, describe, rows
from .clock import http_date, parse_http_date
from .errors import ApiError, ParseError, RecordError, not_found
from .message import Reply

RELEASES = ["Spring", "Summer", "Winter"]
FIRST, LAST = 31, 68
VERSION = re.compile(r"v(\d\d)\.0\Z")


def release(number):
    """31 is Summer '14; three releases a year."""
    steps = number - FIRST + 1
    season = RELEASES[steps % 3]
    return f"{season} '{14 + (steps + (season == 'Winter')) // 3}"


VERSIONS = [{"label": release(n), "url": f"/services/data/v{n}.0", "version": f"{n}.0"} for n in range(FIRST, LAST + 1)]
# The trap of reference 2.1: the last entry's url holds no number.
VERSIONS.append({"label": "Latest Release", "url": "/services/data/latest", "version": f"{LAST}.0"})


class Api:
    def __init__(self, sim):
        self.sim = sim
        self.resources = {"limits": sim.limits.resource, "sobjects": self.sobjects, "composite": self.composite,
                          "query": sim.query.resource, "queryAll": sim.query.resource, "tooling": sim.tooling.resource,
                          "jobs": sim.jobs.resource}
        self.rows = rows.Rows(sim)
        self.collections = collections_.Collections(sim)
        self.composites = composite.Composites(sim)

    def run(self, request):
        """The reply to a request, whatever goes wrong; one transaction."""
        try:
            if request.method == "GET":
                return self.version(request)
            return self.in_transaction(request)
        except ParseError as error:
            error = error.request_error(request.raw)
            return Reply(error.status, error.body())
        except RecordError as error:
            return Reply(error.status, error.as_request())
        except ApiError as error:
            return Reply(error.status, error.body(), error.headers)

    def in_transaction(self, request):
        depth = self.sim.store.depth
        self.sim.store.begin()
        try:
            reply = self.version(request)
        except BaseException:
            while self.sim.store.depth > depth:
                self.sim.store.rollback()
            raise
        self.sim.store.commit()
        return reply

    def version(self, request):
        segments = request.segments
        found = VERSION.match(segments[2]) if len(segments) > 2 else None
        if segments[2:3] == ["latest"]:
            request.version = f"{LAST}.0"
        elif found is None or not 21 <= int(found.group(1)) <= LAST:
            raise not_found()
        elif int(found.group(1)) < FIRST:
            # Retired versions answer 410 (reference 2.1).
            raise ApiError(410, "UNSUPPORTED_API_VERSION", "The requested API version is retired and no longer available")
        else:
            request.version = found.group(1) + ".0"
        if len(segments) == 3:
            return self.index(request)
        handler = self.resources.get(segments[3])
        if handler is None:
            raise not_found()
        return handler(request)

    def index(self, request):
        base = f"/services/data/v{request.version}"
        names = ["composite", "limits", "query", "queryAll", "sobjects", "tooling", "search", "recent", "jobs"]
        body = {name: f"{base}/{name}" for name in names}
        body["identity"] = f"{self.sim.url}/id/{self.sim.org_id}/{request.user_id}"
        return Reply(200, body)

    # ---- /sobjects ----

    def sobjects(self, request):
        rest = request.segments[4:]
        if not rest:
            allow(request, "GET")
            return self.conditional(request, self.sim.schema.changed_at,
                                    lambda: describe.describe_global(self.sim.schema, request.version))
        obj = self.sim.schema.get(rest[0])
        if obj is None:
            raise not_found()
        if len(rest) == 1 and request.method == "GET":
            return Reply(200, {"objectDescribe": describe.base(obj, request.version), "recentItems": []})
        if len(rest) == 2 and rest[1] == "describe":
            allow(request, "GET")
            return self.conditional(request, obj.changed_at,
                                    lambda: describe.describe(self.sim.schema, obj, request.version))
        if len(rest) == 2 and rest[1] in ("updated", "deleted"):
            allow(request, "GET")
            return self.sim.query.replication(request, obj, rest[1])
        return self.rows.resource(request, obj, rest[1:])

    def conditional(self, request, changed_at, make):
        """describe answers 304 with no body while the metadata is unchanged (reference 3.1)."""
        headers = {"Last-Modified": http_date(changed_at), "ETag": f'"{changed_at:x}"'}
        since = request.headers.get("if-modified-since")
        since = parse_http_date(since) if since else None
        if since is not None and changed_at <= since:
            return Reply(304, None, headers)
        return Reply(200, make(), headers)

    # ---- /composite ----

    def composite(self, request):
        rest = request.segments[4:]
        if not rest:
            allow(request, "POST", "GET")
            if request.method == "GET":
                base = f"/services/data/v{request.version}/composite"
                return Reply(200, {n: f"{base}/{n}" for n in ("sobjects", "batch", "tree", "graph")})
            return self.composites.composite(request)
        if rest[0] == "sobjects":
            return self.collections.resource(request, rest[1:])
        if rest[0] == "tree" and len(rest) == 2:
            allow(request, "POST")
            return self.composites.tree(request, rest[1])
        if rest in (["batch"], ["graph"]):
            allow(request, "POST")
            return getattr(self.composites, rest[0])(request)
        raise not_found()


def allow(request, *methods):
    if request.method not in methods:
        raise ApiError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed. Allowed are "
                       f"{','.join(methods)}")
