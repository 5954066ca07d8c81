"""The control API for tests, under /_control (no part of Salesforce; see README.md)."""
import json

from . import clock, describe, ids
from .config import BadConfig
from .dml import Actor
from .errors import ApiError, ParseError, RecordError
from .store import Reader, quoted
from .tooling import TYPES, field_of
from .values import clean

# the names that describe has for the attributes of a field
DESCRIBED = {"externalId": "external_id", "caseSensitive": "case_sensitive", "restrictedPicklist": "restricted",
             "picklistValues": "picklist", "trackHistory": "track", "relationshipName": "relationship",
             "referenceTo": "refers", "idLookup": "id_lookup", "defaultedOnCreate": "defaulted",
             "defaultValue": "default", "htmlFormatted": "html"}


class Refused(Exception):
    """A wrong call of the control API: 400 with a text."""


class Control:
    def __init__(self, sim):
        self.sim = sim

    def handle(self, method, name, query, raw):
        """(status, body) of a call."""
        handler = getattr(self, f"{method.lower()}_{name.replace('/', '_')}", None)
        if handler is None:
            return 404, {"error": f"no such control call: {method} {name}"}
        try:
            body = json.loads(raw) if raw.strip() else {}
            return 200, handler(query, body)
        except ParseError as error:
            return 400, {"error": error.text}
        except RecordError as error:
            return 400, {"error": str(error.errors[0][1]), "errors": error.as_results()}
        except ApiError as error:
            return 400, {"error": error.message}
        except (Refused, BadConfig, ValueError, KeyError, TypeError) as error:
            return 400, {"error": f"{type(error).__name__}: {error}"}

    def get_ping(self, _query, _body):
        return {"ok": True}

    def post_reset(self, _query, body):
        self.sim.reset(bool(body.get("keep_schema")))
        return {"ok": True}

    # ---- records ----

    def obj(self, name):
        found = self.sim.schema.objects.get(name) or self.sim.schema.by_lower.get(str(name).lower())
        if found is None:
            raise Refused(f"no object {name}")
        return found

    def get_records(self, query, _body):
        obj = self.obj(query.get("object"))
        fields = [f for f in obj.fields]
        if query.get("fields"):
            fields = [obj.by_lower[n.strip().lower()] for n in query["fields"].split(",")]
        plan = Reader(obj, fields)
        where = "" if query.get("deleted") == "1" else " WHERE IsDeleted = 0"
        return [plan.record(row) for row in self.sim.store.execute(f"{plan.sql}{where} ORDER BY Id")]

    def get_count(self, query, _body):
        obj = self.obj(query.get("object"))
        live, gone = self.sim.store.execute(f"SELECT count(*) FILTER (WHERE IsDeleted = 0), count(*) FILTER "
                                            f"(WHERE IsDeleted = 1) FROM {quoted(obj.name)}").fetchone()
        return {"count": live, "deleted": gone, "created_total": self.sim.store.created[obj.name]}

    def actor(self, body):
        user = body.get("user", "rep")
        user_id = self.sim.users.get(user) or ids.normal(user)
        if user_id is None:
            raise Refused(f"no user {user}")
        return Actor(user_id, self.moment(body.get("at")), api=False)

    def moment(self, given):
        if given is None:
            return self.sim.now()
        if isinstance(given, (int, float)):
            return given
        parsed = clock.parse_iso(given)
        if parsed is None:
            raise Refused(f"not a time: {given}")
        return parsed[0]

    def targets(self, obj, body):
        if "id" in body:
            found = ids.normal(body["id"])
            if found is None or self.sim.store.state(obj, found) is None:
                raise Refused(f"no record {body['id']}")
            return [found]
        where, params = ["IsDeleted = 0"], []
        for name, raw in (body.get("match") or {}).items():
            field = obj.by_lower[name.lower()]
            where.append(f"{quoted(field.name)} IS ?")
            params.append(raw if field.type in ("id", "reference", "datetime") else clean(field, raw, self.sim.config))
        if not params:
            raise Refused("id or match is needed")
        found = [r[0] for r in self.sim.store.execute(f"SELECT Id FROM {quoted(obj.name)} WHERE {' AND '.join(where)}",
                                                      params)]
        if not found:
            raise Refused(f"no record matches {body['match']}")
        return found

    def in_transaction(self, work):
        depth = self.sim.store.depth
        self.sim.store.begin()
        try:
            result = work()
        except BaseException:
            while self.sim.store.depth > depth:
                self.sim.store.rollback()
            raise
        self.sim.store.commit()
        return result

    def post_create(self, _query, body):
        obj, actor = self.obj(body["object"]), self.actor(body)
        made = self.in_transaction(lambda: self.sim.dml.insert(
            obj, self.sim.dml.prepare(obj, body.get("fields", {}), True, actor), actor))
        return {"id": made}

    def post_edit(self, _query, body):
        obj, actor = self.obj(body["object"]), self.actor(body)
        found = self.targets(obj, body)

        def work():
            for record_id in found:
                self.sim.dml.update(obj, record_id, self.sim.dml.prepare(obj, body.get("fields", {}), False, actor), actor)
        self.in_transaction(work)
        return {"ids": found}

    def post_delete(self, _query, body):
        obj, actor = self.obj(body["object"]), self.actor(body)
        found = self.targets(obj, body)
        self.in_transaction(lambda: [self.sim.dml.delete(obj, i, actor) for i in found])
        return {"ids": found}

    def post_merge(self, _query, body):
        obj, actor = self.obj(body["object"]), self.actor(body)
        winner, loser = ids.normal(body["winner"]), ids.normal(body["loser"])
        if "MasterRecordId" not in obj.by_name or winner is None or loser is None:
            raise Refused("merge needs an object that merges, and two ids")
        self.in_transaction(lambda: self.sim.dml.merge(obj, winner, loser, actor))
        return {"ok": True}

    def post_purge(self, _query, body):
        """Empties the recycle bin: of one object, or of all."""
        objects = [self.obj(body["object"])] if body.get("object") else list(self.sim.schema.objects.values())
        gone = sum(self.sim.store.execute(f"DELETE FROM {quoted(o.name)} WHERE IsDeleted = 1").rowcount for o in objects)
        return {"purged": gone}

    # ---- log, faults, configuration ----

    def get_log(self, query, _body):
        since, bodies = int(query.get("since", 0)), query.get("bodies") == "1"
        return {"requests": [c.shown(bodies) for c in self.sim.calls.log if c.seq > since]}

    def delete_log(self, _query, _body):
        self.sim.calls.clear()
        return {"ok": True}

    def get_stats(self, _query, _body):
        return {**self.sim.calls.stats(), "api_used": self.sim.limits.used(), "api_limit": self.sim.config["api_limit"]}

    def post_fault(self, _query, body):
        return self.sim.faults.add(body).shown()

    def get_faults(self, _query, _body):
        return [f.shown() for f in self.sim.faults.list]

    def delete_faults(self, query, _body):
        self.sim.faults.remove(query.get("name"))
        return {"ok": True}

    def post_config(self, _query, body):
        self.sim.configure(body)
        return self.sim.config

    def get_config(self, _query, _body):
        return self.sim.config

    def post_expire_tokens(self, _query, _body):
        self.sim.oauth.expire()
        return {"ok": True}

    def post_expire_cursors(self, _query, _body):
        self.sim.query.cursors.clear()
        return {"ok": True}

    def post_app(self, _query, body):
        return self.sim.oauth.add_app(body)

    def post_automation(self, _query, body):
        if body.get("clear"):
            self.sim.automation.clear()
            return {"ok": True}
        obj = self.obj(body["object"])
        for name in body["set"]:
            if name.lower() not in obj.by_lower:
                raise Refused(f"no field {name}")
        if body.get("when", "save") != "save":
            raise Refused("when must be save")
        self.sim.automation.append({"object": obj.name, "set": body["set"]})
        return {"ok": True}

    # ---- schema ----

    def post_schema(self, _query, body):
        obj = self.obj(body["object"])
        action = body["action"]
        if not body.get("field"):
            self.change_object(obj, action)
            return {"ok": True}
        if action == "add":
            field = self.new_field(obj, body["field"], body.get("definition") or {})
            self.sim.tooling.add(obj, field)
            return describe.describe_field(field)
        field = obj.by_lower.get(body["field"].lower())
        if field is None:
            raise Refused(f"no field {body['field']}")
        if action == "remove":
            self.sim.tooling.remove(obj, field)
        elif action in ("hide", "show"):
            field.visible = action == "show"
            self.sim.tooling.pending.pop((obj.name, field.name), None)
        elif action == "modify":
            self.modify(field, body.get("definition") or {})
        else:
            raise Refused(f"no action {action}")
        self.sim.schema.touch(obj, self.sim.now())
        return describe.describe_field(field)

    def change_object(self, obj, action):
        if action == "remove":
            self.sim.store.drop(obj)
            self.sim.schema.remove_object(obj, self.sim.now())
        elif action in ("hide", "show"):
            obj.visible = action == "show"
            self.sim.schema.touch(obj, self.sim.now())
        else:
            raise Refused(f"no action {action} for an object")

    def new_field(self, obj, name, definition):
        """From the Metadata of the Tooling API ({"type":"Text","length":20}), with other attributes on top."""
        if name.lower() in obj.by_lower:
            raise Refused(f"{obj.name} has a field {name} already")
        meta = {"label": name.removesuffix("__c").replace("_", " "), "type": "Text", "defaultValue": "false",
                "visibleLines": 10, **definition}
        if meta["type"] == "Text":
            meta.setdefault("length", 255)
        if meta["type"] not in TYPES:
            raise Refused(f"type must be one of {', '.join(sorted(TYPES))}")
        field = field_of(name, meta, self.sim.schema)
        for key in ("createable", "updateable", "nillable", "visible"):
            if key in definition:
                setattr(field, key, definition[key])
        return field

    def modify(self, field, definition):
        for key, value in definition.items():
            key = DESCRIBED.get(key, key)
            if key in ("name",) or not hasattr(field, key) or callable(getattr(type(field), key, None)) or isinstance(
                    getattr(type(field), key, None), property):
                raise Refused(f"no attribute {key}")
            if key == "picklist":
                value = [v["value"] if isinstance(v, dict) else v for v in value]
            setattr(field, key, value)
