"""The composite family: composite, batch, graph, tree (reference 6)."""
import re

from . import jsonout
from .errors import ApiError, ParseError, RecordError, not_found
from .message import Reply, Request

MAX_PARTS, MAX_QUERIES, MAX_TREE = 25, 5, 200
REFERENCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*\Z")
REFERENCE = re.compile(r"@\{([A-Za-z0-9_]+)((?:\.[A-Za-z0-9_]+|\[\d+\])+)\}")
COUNTED = re.compile(r"/services/data/[^/]+/(?:query|queryAll|composite/sobjects)(?:[/?]|$)")
ALLOWED = re.compile(r"/services/data/(?:v\d\d\.0|latest)/")
GRAPH_URL = re.compile(r"/services/data/v\d\d\.0/sobjects/[^/?]+(?:/[^/?]+){0,2}\Z")
FORBIDDEN_HEADERS = {"accept", "authorization", "content-type"}
ROLLED_BACK = [{"errorCode": "PROCESSING_HALTED", "message": "The transaction was rolled back since another operation in "
                "the same transaction failed."}]
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


def bad(message):
    return ApiError(400, "INVALID_INPUT", message)


class Unresolved(Exception):
    """A reference to a part that failed or has no such value."""


class Composites:
    def __init__(self, sim):
        self.sim = sim

    # ---- composite ----

    def composite(self, request):
        body = request.mapping()
        parts = body.get("compositeRequest")
        self.check(request, parts, MAX_PARTS)
        if sum(1 for p in parts if COUNTED.match(p["url"])) > MAX_QUERIES:
            raise bad(f"The request can't contain more than {MAX_QUERIES} query, queryAll or sObject collections subrequests")
        all_or_none = body.get("allOrNone") is True
        return Reply(200, {"compositeResponse": self.parts(request, parts, all_or_none)[0]})

    def check(self, request, parts, most):
        if not isinstance(parts, list) or not parts:
            raise bad("compositeRequest must be an array of at least one subrequest")
        if len(parts) > most:
            raise bad(f"The request can't contain more than {most} subrequests")
        seen = set()
        for part in parts:
            if not isinstance(part, dict) or not all(isinstance(part.get(k), str) for k in ("method", "url", "referenceId")):
                raise bad("Each subrequest needs method, url and referenceId")
            if part["method"] not in METHODS:
                raise bad(f"Invalid HTTP method: {part['method']}")
            if not ALLOWED.match(part["url"]):
                raise bad(f"Invalid subrequest url: {part['url']}")
            name = part["referenceId"]
            if request.number >= 52 and not REFERENCE_ID.match(name):
                raise bad(f"Provided referenceId ('{name}') must start with a letter or a number, and it can contain only "
                          "letters, numbers and underscores ('_').")
            if name in seen:
                raise bad(f"Provided referenceId ('{name}') was used more than once")
            seen.add(name)
            for header in part.get("httpHeaders") or {}:
                if header.lower() in FORBIDDEN_HEADERS:
                    raise bad(f"Header {header} is not allowed in a subrequest")

    def parts(self, request, parts, all_or_none):
        """The responses, and whether all went well.  They run in order: that is one of the orders that
        collateSubrequests allows."""
        results, replies, failed = {}, [], False
        self.sim.store.begin()
        for part in parts:
            reply = self.part(request, part, results)
            failed = failed or reply.status >= 400
            if reply.status < 400:
                results[part["referenceId"]] = reply.body
            replies.append(reply)
        if failed and all_or_none:
            self.sim.store.rollback()
            replies = [r if r.status >= 400 else Reply(400, ROLLED_BACK) for r in replies]
        else:
            self.sim.store.commit()
        return [{"body": r.body, "httpHeaders": {k: v for k, v in r.headers.items() if k in ("Location", "ETag",
                                                                                            "Last-Modified")},
                 "httpStatusCode": r.status, "referenceId": p["referenceId"]} for p, r in zip(parts, replies)], not failed

    def part(self, request, part, results):
        try:
            url, body = resolve(part["url"], results), resolve(part.get("body"), results)
        except Unresolved as error:
            return Reply(400, [{"errorCode": "PROCESSING_HALTED", "message": str(error)}])
        headers = {k.lower(): str(v) for k, v in (part.get("httpHeaders") or {}).items()}
        return self.run(request, part["method"], url, headers, body)

    def run(self, request, method, url, headers, body):
        for name in ("sforce-call-options", "sforce-query-options"):
            if name in request.headers:
                headers.setdefault(name, request.headers[name])
        inner = Request(method, url, headers, None, body, parent=request)
        if body is None and method in ("POST", "PATCH"):
            inner.raw = b""
        if inner.segments[3:4] == ["composite"] and inner.segments[4:5] != ["sobjects"]:
            return Reply(400, [{"errorCode": "INVALID_INPUT", "message": "Composite requests cannot be nested"}])
        return self.sim.api.run(inner)

    # ---- batch: no transaction around it, and every part counts as a call ----

    def batch(self, request):
        body = request.mapping()
        parts = body.get("batchRequests")
        if not isinstance(parts, list) or not parts:
            raise bad("batchRequests must be an array of at least one subrequest")
        if len(parts) > MAX_PARTS:
            raise bad(f"The request can't contain more than {MAX_PARTS} subrequests")
        out, halted = [], False
        for part in parts:
            if not isinstance(part, dict) or not isinstance(part.get("url"), str) or part.get("method") not in METHODS:
                raise bad("Each subrequest needs method and url")
            if "httpHeaders" in part or "headers" in part:
                raise bad("Headers are not allowed in a subrequest of batch")
        self.sim.limits.count(len(parts) - 1)
        for part in parts:
            if halted:
                reply = Reply(412, [{"errorCode": "BATCH_PROCESSING_HALTED", "message": "Batch processing halted since an "
                                                                                       "earlier subrequest failed"}])
            else:
                url = "/services/data/" + part["url"].lstrip("/").removeprefix("services/data/")
                reply = self.run(request, part["method"], url, {}, part.get("richInput"))
            out.append(reply)
            halted = halted or reply.status >= 400 and body.get("haltOnError") is True
        return Reply(200, {"hasErrors": any(r.status >= 400 for r in out),
                           "results": [{"statusCode": r.status, "result": r.body} for r in out]})

    # ---- graph ----

    def graph(self, request):
        if request.number < 50:
            raise not_found()
        graphs = request.mapping().get("graphs")
        if not isinstance(graphs, list) or not 1 <= len(graphs) <= 75:
            raise bad("graphs must be an array of 1 to 75 graphs")
        names, nodes = set(), 0
        for graph in graphs:
            name = graph.get("graphId") if isinstance(graph, dict) else None
            if not isinstance(name, str) or not re.match(r"[A-Za-z0-9][^.]{0,38}\Z", name) or name in names:
                raise bad("graphId must be unique, start with a letter or number, and have fewer than 40 characters")
            names.add(name)
            self.check(request, graph.get("compositeRequest"), 500)
            nodes += len(graph["compositeRequest"])
            for part in graph["compositeRequest"]:
                if "httpHeaders" in part or not GRAPH_URL.match(part["url"]):
                    raise bad(f"Not allowed in a graph: {part['url']}")
        if nodes > 500:
            raise bad("A payload can have at most 500 nodes")
        return Reply(200, {"graphs": [self.one_graph(request, g) for g in graphs]})

    def one_graph(self, request, graph):
        responses, good = self.parts(request, graph["compositeRequest"], True)
        return {"graphId": graph["graphId"], "graphResponse": {"compositeResponse": responses}, "isSuccessful": good}

    # ---- tree ----

    def tree(self, request, name):
        obj = self.sim.schema.get(name)
        if obj is None:
            raise not_found()
        records = request.mapping().get("records")
        if not isinstance(records, list) or not records:
            raise bad("records must be an array of at least one record")
        actor, results, errors, count = self.sim.actor(request), [], [], [0]
        self.sim.store.begin()
        for record in records:
            self.branch(request, obj, record, None, None, actor, results, errors, count, 1)
        if count[0] > MAX_TREE:
            self.sim.store.rollback()
            raise ApiError(400, "EXCEEDED_ID_LIMIT", f"The request can't contain more than {MAX_TREE} records")
        if errors:
            self.sim.store.rollback()
            return Reply(400, {"hasErrors": True, "results": errors})
        self.sim.store.commit()
        request.call.records += count[0]
        return Reply(201, {"hasErrors": False, "results": results})

    def branch(self, request, obj, record, link, parent, actor, results, errors, count, level):
        attributes = record.get("attributes") if isinstance(record, dict) else None
        reference = attributes.get("referenceId") if isinstance(attributes, dict) else None
        if not reference or self.sim.schema.get(attributes.get("type", "")) is not obj or level > 5:
            raise bad("Each record needs attributes with type and referenceId, at most 5 levels deep")
        count[0] += 1
        children = {k: v for k, v in record.items() if isinstance(v, dict) and isinstance(v.get("records"), list)}
        own = {k: v for k, v in record.items() if k not in children}
        made = None
        try:
            new = self.sim.dml.prepare(obj, own if link is None else {**own, link.name: parent}, True, actor)
            made = self.sim.dml.insert(obj, new, actor)
            results.append({"referenceId": reference, "id": made})
        except ParseError as error:
            raise error.request_error(request.raw) from None
        except RecordError as error:
            errors.append({"referenceId": reference, "errors": error.as_results()})
        for name, inner in children.items():
            found = [(c, f) for c, f in self.sim.schema.children.get(obj.name, ())
                     if (f.child_relationship or "").lower() == name.lower() and c.visible]
            if not found:
                raise ApiError(400, "INVALID_FIELD", f"No such relationship '{name}' on sobject of type {obj.name}")
            if made is not None:
                for child in inner["records"]:
                    self.branch(request, found[0][0], child, found[0][1], made, actor, results, errors, count, level + 1)


# ---- @{ref.field} ----

def resolve(value, results):
    if isinstance(value, str):
        return substitute(value, results) if "@{" in value else value
    if isinstance(value, dict):
        return {k: resolve(v, results) for k, v in value.items()}
    if isinstance(value, list):
        return [resolve(v, results) for v in value]
    return value


def substitute(text, results):
    whole = REFERENCE.fullmatch(text)
    if whole:
        return follow(whole, results)
    return REFERENCE.sub(lambda m: as_text(follow(m, results)), text)


def as_text(value):
    return value if isinstance(value, str) else jsonout.dumps(value)


def follow(match, results):
    name, path = match.group(1), match.group(2)
    missing = Unresolved(f"Invalid reference specified. No value for {match.group(0)[2:-1]} found in {name}")
    if name not in results:
        raise missing
    value = results[name]
    for step in re.findall(r"[A-Za-z0-9_]+", path):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]   # case matters
        except (KeyError, IndexError, TypeError, ValueError):
            raise missing from None
    return value
