"""Single records: create, read, update, upsert by external id, delete (reference 4)."""
import re

from . import clock, dml, ids, values
from .api_common import fields_of, reader
from .errors import ApiError, RecordError, no_external_id, not_found
from .message import Reply

LOOKS_LIKE_ID = re.compile(r"[0-9A-Za-z]{15}(?:[0-9A-Za-z]{3})?\Z")


def record_id(obj, text):
    """The id of a path or body, in its 18 characters and of the right kind."""
    found = ids.normal(text)
    if found is None or found[:3] != obj.prefix:
        raise RecordError("MALFORMED_ID", f"{obj.label} ID: id value of incorrect type: {text}", ["Id"])
    return found


class Rows:
    def __init__(self, sim):
        self.sim, self.store, self.dml = sim, sim.store, sim.dml

    def resource(self, request, obj, rest):
        method = request.method
        if not rest:
            if method == "POST":
                return self.create(request, obj, False)
        elif len(rest) == 1:
            return self.by_id(request, obj, rest[0])
        elif len(rest) == 2:
            return self.by_key(request, obj, *rest)
        if method not in ("GET", "POST", "PATCH", "DELETE") or not rest:
            raise ApiError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{method}' not allowed. Allowed are GET,POST")
        raise not_found()

    # ---- create ----

    def create(self, request, obj, upsert, extra=None, key=None):
        record = {**request.mapping(), **(extra or {})}
        actor = self.sim.actor(request)
        request.call.records += 1
        self.note(request, record, extra)
        new = self.dml.prepare(obj, record, True, actor, key)
        new_id = self.dml.insert(obj, new, actor)
        body = {"id": new_id, "success": True, "errors": []}
        if upsert and request.number >= 46:
            body["created"] = True
        return Reply(201, body, {"Location": f"/services/data/v{request.version}/sobjects/{obj.name}/{new_id}"})

    def note(self, request, record, known=None):
        """For the log: the external id that a record names."""
        if not known and record.get("PG_Key__c") is not None:
            request.call.external_ids.append(record["PG_Key__c"])

    # ---- by id ----

    def by_id(self, request, obj, text):
        if text == "Id" and request.method == "POST":
            return self.create(request, obj, True)
        if not LOOKS_LIKE_ID.match(text):
            raise no_external_id(text)
        found = record_id(obj, text)
        request.call.records += 1
        if request.method == "GET":
            return self.get(request, obj, found)
        if request.method == "PATCH":
            return self.update(request, obj, found)
        if request.method == "DELETE":
            # Conditional headers have no effect here (reference 4.5).
            self.dml.delete(obj, found, self.sim.actor(request))
            return Reply(204)
        raise ApiError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed. Allowed are "
                       "GET,PATCH,DELETE")

    def get(self, request, obj, found):
        fields = fields_of(obj, request.query.get("fields"), status=400)
        state = self.store.columns_of(obj, found, ["IsDeleted"] + stamps(obj))
        if state is None or state["IsDeleted"]:
            raise not_found()
        headers = {}
        if "LastModifiedDate" in state:
            modified = clock.seconds_of(state["LastModifiedDate"])
            headers = self.validators(obj, found, modified)
            since = self.header_time(request, "if-modified-since")
            if since is not None and modified <= since or self.tag_matches(request, "if-none-match", headers):
                return Reply(304, None, headers)
        plan = reader(obj, fields)
        row = self.store.execute(plan.sql + " WHERE Id = ?", (found,)).fetchone()
        return Reply(200, plan.record(row, request.version), headers)

    def update(self, request, obj, found):
        record = request.mapping()
        if any(k.lower() == "id" for k in record):
            raise RecordError("INVALID_FIELD", "The Id field should not be specified in the sobject data.", [])
        self.note(request, record)
        self.precondition(request, obj, found)
        actor = self.sim.actor(request)
        state = self.store.state(obj, found)
        if state is None:
            raise dml.unknown_id()
        if state:
            raise dml.deleted()
        self.dml.update(obj, found, self.dml.prepare(obj, record, False, actor), actor)
        return Reply(204)

    # ---- conditions (reference 4.5) ----

    def precondition(self, request, obj, found):
        """If-Unmodified-Since passes at equality: LastModifiedDate, in seconds, <= the header."""
        state = self.store.columns_of(obj, found, ["IsDeleted", "LastModifiedDate"])
        if state is None or state["IsDeleted"]:
            return
        modified = clock.seconds_of(state["LastModifiedDate"])
        unmodified = self.header_time(request, "if-unmodified-since", strict=True)
        since = self.header_time(request, "if-modified-since", strict=True)
        tags = self.validators(obj, found, modified)
        failed = (unmodified is not None and modified > unmodified or since is not None and modified <= since
                  or self.tag_matches(request, "if-none-match", tags)
                  or "if-match" in request.headers and "ETag" in tags and not self.tag_matches(request, "if-match", tags))
        if failed:
            raise PreconditionFailed(self.sim.config["precondition_body"])

    def header_time(self, request, name, strict=False):
        text = request.headers.get(name)
        if text is None:
            return None
        seconds = clock.parse_http_date(text)
        if seconds is None and strict:
            raise ApiError(400, "INVALID_REQUEST_HEADER", f"Unable to parse header {name}: {text}")
        return seconds

    def validators(self, obj, found, modified):
        headers = {"Last-Modified": clock.http_date(modified)}
        if obj.name == "Account":   # the only rows with an ETag
            headers["ETag"] = f'"{found[3:15]}{modified:x}--gzip"'
        return headers

    def tag_matches(self, request, name, headers):
        given = request.headers.get(name)
        if given is None or "ETag" not in headers:
            return False
        return given.strip() == "*" or headers["ETag"] in [t.strip() for t in given.split(",")]

    # ---- by external id ----

    def by_key(self, request, obj, name, text):
        key = obj.field(name)
        if key is None or not (key.id_lookup):
            raise no_external_id(name)
        if text.endswith(".inc"):
            raise not_found()   # the edge takes it for a file name (reference 4.3)
        if request.method == "POST" and key.name == "Id" and not text:
            return self.create(request, obj, True)
        if key.type == "id":
            return self.by_id(request, obj, text)
        value = values.key_value(key, text, self.sim.config)
        if value is None:
            raise not_found()
        request.call.external_ids.append(text)
        found = self.dml.match(obj, key, value)
        if len(found) > 1:
            return Reply(300, [f"/services/data/v{request.version}/sobjects/{obj.name}/{i}" for i in found])
        if request.method == "PATCH":
            return self.upsert(request, obj, key, text, found)
        if not found:
            raise not_found()
        return self.by_id(request, obj, found[0])

    def upsert(self, request, obj, key, text, found):
        record = request.mapping()
        if any(k.lower() in (key.name.lower(), "id") for k in record):
            raise RecordError("INVALID_FIELD", f"The {key.name} field should not be specified in the sobject data.", [])
        if not found:
            if request.flag("updateOnly"):
                raise not_found()
            return self.create(request, obj, True, {key.name: text}, key)
        if self.sim.config["conditional_upsert"]:
            self.precondition(request, obj, found[0])
        request.call.records += 1
        actor = self.sim.actor(request)
        self.dml.update(obj, found[0], self.dml.prepare(obj, record, False, actor), actor)
        if request.number < 46:
            return Reply(204)
        return Reply(200, {"id": found[0], "success": True, "errors": [], "created": False})


class PreconditionFailed(ApiError):
    """412.  No source shows its body (reference 17)."""

    def __init__(self, form):
        super().__init__(412, "PRECONDITION_FAILED", "The record was modified since the time given in the request header")
        self.form = form

    def body(self):
        return super().body() if self.form == "json" else None


def stamps(obj):
    return ["LastModifiedDate"] if "LastModifiedDate" in obj.by_name else []
