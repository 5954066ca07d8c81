"""sObject Collections: up to 200 records in one call (reference 5)."""
from . import dml, ids, values
from .api_common import fields_of, reader
from .errors import ApiError, ParseError, RecordError, no_external_id, not_found
from .message import Reply
from .rows import record_id

MAX = 200
ROLLED_BACK = ("ALL_OR_NONE_OPERATION_ROLLED_BACK", "Record rolled back because not all records were valid and the "
               "request was using AllOrNone header")


class Item:
    """One record on its way: obj and (prepared) new values, then an id or an error."""
    __slots__ = ("obj", "new", "id", "error", "created", "shown_id")

    def __init__(self):
        self.obj = self.new = self.id = self.error = self.created = self.shown_id = None


class Collections:
    def __init__(self, sim):
        self.sim, self.store, self.dml = sim, sim.store, sim.dml

    def resource(self, request, rest):
        method = request.method
        if not rest and method in ("POST", "PATCH"):
            return self.write(request, method == "POST")
        if not rest and method == "DELETE":
            return self.delete(request)
        if len(rest) == 1 and method in ("GET", "POST"):
            return self.retrieve(request, rest[0])
        if len(rest) == 2 and method == "PATCH":
            return self.upsert(request, *rest)
        if len(rest) > 2 or rest and method not in ("GET", "POST", "PATCH"):
            raise not_found()
        raise ApiError(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{method}' not allowed. Allowed are POST,PATCH,DELETE")

    # ---- the envelope ----

    def records(self, request):
        body = request.mapping()
        records = body.get("records")
        if not isinstance(records, list):
            raise ApiError(400, "JSON_PARSER_ERROR", "records must be an array: request may be missing a required field "
                           "at [line:1, column:1]")
        for name in body:
            if name not in ("records", "allOrNone"):
                raise ApiError(400, "JSON_PARSER_ERROR", f"Unrecognized field \"{name}\" at [line:1, column:2]")
        if len(records) > MAX:
            raise ApiError(400, "EXCEEDED_ID_LIMIT",
                           "record limit reached. cannot submit more than 200 records into this call")
        if not records:
            raise ApiError(400, "REQUIRED_FIELD_MISSING", "At least 1 record is required.")
        request.call.records += len(records)
        return records, body.get("allOrNone") in (True, "true")

    def type_of(self, record):
        kind = record.get("attributes") if isinstance(record, dict) else None
        kind = kind.get("type") if isinstance(kind, dict) else None
        if not isinstance(kind, str):
            raise ApiError(400, "INVALID_FIELD", "Attributes with the type of the sObject are required for each record")
        obj = self.sim.schema.get(kind)
        if obj is None:
            raise ApiError(400, "INVALID_TYPE", f"sObject type '{kind}' is not supported. If you are attempting to use a "
                           "custom object, be sure to append the '__c' after the entity name. Please reference your WSDL "
                           "or the describe call for the appropriate names.")
        return obj

    def runs(self, objects):
        """Runs of equal type, as (start, end): the chunks of the docs, at most ten."""
        out, start = [], 0
        for i in range(1, len(objects) + 1):
            if i == len(objects) or objects[i] is not objects[start]:
                out.append((start, i))
                start = i
        if len(out) > 10:
            raise ApiError(400, "INVALID_INPUT", "The request cannot have more than 10 chunks of records of different "
                           "types. Group the records by type.")
        if len({o.setup for o in objects}) > 1:
            raise ApiError(400, "MIXED_DML_OPERATION", "Setup objects cannot be mixed with other objects")
        return out

    # ---- create and update ----

    def write(self, request, inserting):
        records, all_or_none = self.records(request)
        objects = [self.type_of(r) for r in records]
        items, actor = [Item() for _ in records], self.sim.actor(request)
        seen, runs = {}, self.runs(objects)
        self.store.begin()
        for start, end in runs:
            for i in range(start, end):
                items[i].obj = objects[i]
                self.attempt(items[i], self.prepare, request, items[i], records[i], inserting, actor, seen)
            for i in range(start, end):
                if items[i].error is None:
                    self.attempt(items[i], self.save, request, items[i], inserting, actor)
        self.note_keys(request, records, objects)
        return self.finish(request, items, all_or_none)

    def prepare(self, request, item, record, inserting, actor, seen):
        if not inserting:
            record = dict(record)
            given = [record.pop(k) for k in list(record) if k.lower() == "id"]
            if not given or given[0] is None:
                raise RecordError("MISSING_ARGUMENT", "Id not specified in an update call", ["Id"])
            item.id = item.shown_id = record_id(item.obj, given[0])
            seen[item.id] = seen.get(item.id, 0) + 1
            if seen[item.id] > 12 or seen[item.id] > 1 and self.sim.config["duplicate_update"] == "refuse":
                # Reference 5.3: the text is that of SOAP; the code is not confirmed.
                raise RecordError("DUPLICATE_VALUE", "Maximum number of duplicate updates in one batch (12 allowed).", [])
            self.alive(item.obj, item.id)
        item.new = self.dml.prepare(item.obj, record, inserting, actor)

    def alive(self, obj, found):
        state = self.store.state(obj, found)
        if state is None:
            raise dml.unknown_id()
        if state:
            raise dml.deleted()

    def save(self, request, item, inserting, actor):
        if inserting:
            item.id = self.dml.insert(item.obj, item.new, actor)
            item.created = True
        else:
            self.dml.update(item.obj, item.id, item.new, actor)

    def attempt(self, item, step, request, *args):
        try:
            step(request, *args)
        except ParseError as error:
            if self.sim.config["collection_parse_errors"] == "request":
                self.store.rollback()
                raise error.request_error(request.raw)
            item.error = error.row_error()
        except RecordError as error:
            item.error = error

    # ---- upsert ----

    def upsert(self, request, name, key_name):
        obj = self.sim.schema.get(name)
        if obj is None:
            raise not_found()
        key = obj.field(key_name)
        if key is None or not key.id_lookup:
            if self.sim.config["bad_upsert_key"] == "INVALID_FIELD":
                raise ApiError(400, "INVALID_FIELD", f"Field name provided, {key_name} is not an External ID or indexed "
                               f"field for {obj.name}")
            raise no_external_id(key_name)
        records, all_or_none = self.records(request)
        for record in records:
            if self.type_of(record) is not obj:
                raise ApiError(400, "INVALID_TYPE", f"All records of an upsert must be of type {obj.name}")
        items, actor = [Item() for _ in records], self.sim.actor(request)
        self.store.begin()
        keys = [self.key_of(request, item, record, obj, key) for item, record in zip(items, records)]
        self.refuse_repeated(items, keys, key)
        for item, record, value in zip(items, records, keys):
            if item.error is None:
                self.attempt(item, self.prepare_upsert, request, item, record, obj, key, value, actor)
        for item in items:
            if item.error is None:
                self.attempt(item, self.save, request, item, item.id is None, actor)
        self.note_keys(request, records, [obj] * len(records), key)
        return self.finish(request, items, all_or_none, upsert=True)

    def key_of(self, request, item, record, obj, key):
        """The value of the key in a record; None with the item's error set, or for a new record by Id."""
        item.obj = obj
        raw = record.get(key.name)
        if raw is None:
            raw = next((v for k, v in record.items() if k.lower() == key.name.lower()), None)
        value = []
        self.attempt(item, lambda _r: value.append(self.clean_key(obj, key, raw)), request)
        return value[0] if value else None

    def clean_key(self, obj, key, raw):
        if key.type == "id":
            # {"Id": null} creates, {"Id": "003..."} updates (reference 5.4).
            return None if raw is None else record_id(obj, raw)
        value = values.key_value(key, raw, self.sim.config) if raw is not None else None
        if value is None:
            raise RecordError("MISSING_ARGUMENT", f"{key.name} not specified", [key.name])
        return value

    def refuse_repeated(self, items, keys, key):
        """All records that share a key fail, none of them is written (reference 5.4)."""
        fold = key.folds_case
        same = {}
        for i, value in enumerate(keys):
            if value is not None:
                same.setdefault(value.casefold() if fold else value, []).append(i)
        for group in same.values():
            if len(group) > 1:
                for i in group:
                    fields = [key.name] if self.sim.config["duplicate_key_fields"] else []
                    items[i].error = RecordError("DUPLICATE_VALUE", f"Duplicate external id specified: {shown(keys[i])}", fields)

    def prepare_upsert(self, request, item, record, obj, key, value, actor):
        if key.type == "id":
            item.id = value
            if value is not None:
                self.alive(obj, value)
            record = {k: v for k, v in record.items() if k.lower() != "id"}
            item.new = self.dml.prepare(obj, record, value is None, actor)
        else:
            found = self.dml.match(obj, key, value)
            if len(found) > 1:
                raise dml.several(key, found)
            item.id = found[0] if found else None
            item.new = self.dml.prepare(obj, record, not found, actor, key)
        item.created = item.id is None

    # ---- results ----

    def note_keys(self, request, records, objects, key=None):
        """For the log: the external ids that a request names."""
        for record, obj in zip(records, objects):
            name = key.name if key is not None else "PG_Key__c"
            if isinstance(record, dict) and record.get(name) is not None:
                request.call.external_ids.append(record[name])

    def finish(self, request, items, all_or_none, upsert=False):
        failed = all_or_none and any(i.error is not None for i in items)
        if failed:
            self.store.rollback()
        else:
            self.store.commit()
        return Reply(200, [self.result(request, item, failed, upsert) for item in items])

    def result(self, request, item, rolled_back, upsert):
        if item.error is None and not rolled_back:
            out = {"id": item.id, "success": True, "errors": []}
            if upsert:
                out["created"] = bool(item.created)
            return out
        error = item.error or RecordError(*ROLLED_BACK)
        out = {}
        if item.error is None and item.shown_id:
            out["id"] = item.shown_id
        elif self.sim.config["null_id_on_failure"]:
            out["id"] = None
        out.update(success=False, errors=error.as_results())
        if upsert and self.sim.config["upsert_failure_created"]:
            out["created"] = False
        return out

    # ---- delete ----

    def delete(self, request):
        given = [i.strip() for i in request.query.get("ids", "").split(",") if i.strip()]
        if not given:
            raise ApiError(400, "REQUIRED_FIELD_MISSING", "At least 1 Id is required.")
        if len(given) > MAX:
            raise ApiError(400, "EXCEEDED_ID_LIMIT",
                           "record limit reached. cannot submit more than 200 records into this call")
        request.call.records += len(given)
        self.runs([self.sim.schema.by_prefix.get(i[:3]) or Unknown for i in given])
        items, actor = [Item() for _ in given], self.sim.actor(request)
        self.store.begin()
        for item, text in zip(items, given):
            self.attempt(item, self.delete_one, request, item, text, actor)
        return self.finish(request, items, request.flag("allOrNone"))

    def delete_one(self, request, item, text, actor):
        found = ids.normal(text)
        obj = self.sim.schema.by_prefix.get(text[:3])
        if found is None or obj is None or not obj.visible:
            raise RecordError("MALFORMED_ID", f"malformed id {text}", [])
        item.obj, item.id, item.shown_id = obj, found, found
        self.store.begin()    # a cascade may be refused half-way
        try:
            self.dml.delete(obj, found, actor)
        except RecordError:
            self.store.rollback()
            raise
        self.store.commit()

    # ---- read many ----

    def retrieve(self, request, name):
        obj = self.sim.schema.get(name)
        if obj is None:
            raise not_found()
        if request.method == "POST":
            body = request.mapping()
            wanted, fields = body.get("ids"), body.get("fields")
        else:
            wanted = [i.strip() for i in request.query.get("ids", "").split(",") if i.strip()]
            fields = request.query.get("fields", "").split(",") if request.query.get("fields") else None
        if not isinstance(wanted, list) or not wanted:
            raise ApiError(400, "REQUIRED_FIELD_MISSING", "At least 1 Id is required.")
        if not isinstance(fields, list) or not fields:
            raise ApiError(400, "REQUIRED_FIELD_MISSING", "At least 1 field is required.")
        if len(wanted) > 2000:
            raise ApiError(400, "EXCEEDED_ID_LIMIT",
                           "record limit reached. cannot submit more than 2000 records into this call")
        request.call.records += len(wanted)
        plan = reader(obj, fields_of(obj, fields))
        normal = [ids.normal(i) for i in wanted]
        known = list({i for i in normal if i})
        rows = self.store.execute(f"{plan.sql} WHERE IsDeleted = 0 AND Id IN ({','.join('?' * len(known))})", known)
        by_id = {row[0]: row for row in rows}
        return Reply(200, [plan.record(by_id[i], request.version) if i in by_id else None for i in normal])


def shown(value):
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Unknown:
    """Stands for the type of a malformed id when runs of types are counted."""
    setup = False
