"""Create, update and delete of records: the checks of Salesforce in its order, then the rows.

A write has two steps, so that collections can prepare all records of a run before any is written: a parent must
exist before the request, or come in an earlier run of another type (reference 8)."""
from . import clock, ids, values
from .errors import ParseError, RecordError, deleted, no_column, unknown_id
from .store import quoted


class Actor:
    """Who writes, when, and whether through the API (which field-level security and faults apply to)."""

    def __init__(self, user_id, now, api=True, written=None):
        self.user_id, self.api = user_id, api
        self.stamp = clock.stamp(now)
        self.written = written if written is not None else []


class Dml:
    def __init__(self, sim):
        self.sim, self.store, self.schema = sim, sim.store, sim.schema

    # ---- step 1: from JSON to stored values ----

    def prepare(self, obj, record, inserting, actor, key=None):
        """The values to store.  key: the external id field of an upsert, already known to be right."""
        out, denied, errors = {}, [], []
        if not isinstance(record, dict):
            raise ParseError("", obj.name, values.json_kind(record), None)
        if actor.api:
            self.writable(obj)
        for name, raw in record.items():
            if name == "attributes":
                continue
            field = obj.by_name.get(name)
            if field is None or not field.visible and actor.api:
                field = obj.field(name)
            try:
                if field is None:
                    field, value = self.through_relation(obj, name, raw, record)
                    if not (inserting or field.updateable):
                        denied.append(field.name)
                        continue
                elif field.name == "Id":
                    raise RecordError("INVALID_FIELD", "The Id field should not be specified in the sobject data.", [])
                elif not (field.createable if inserting else field.updateable) and field is not key and (
                        actor.api or not field.in_tables):
                    denied.append(field.name)
                    continue
                else:
                    value = values.clean(field, raw, self.sim.config)
                    if value is not None and field.refers:
                        self.check_reference(obj, field, value)
                if value is None and not field.nillable:
                    raise missing([field.name])
                out[field.name] = value
            except ParseError:
                raise
            except RecordError as error:
                if field is None or error.errors[0][0] == "INVALID_FIELD":
                    raise
                errors.extend(error.errors)
        if denied:
            raise read_only(denied)
        if inserting:
            absent = [f.name for f in required(obj) if out.get(f.name) is None]
            if absent:
                errors = [e for e in errors if e[0] != "REQUIRED_FIELD_MISSING"] + missing(absent).errors
        if errors:
            raise RecordError(errors=errors)
        return out

    def writable(self, obj):
        if not obj.writable:
            raise RecordError("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
                              f"entity type cannot be inserted: {obj.label}", [])

    def check_reference(self, obj, field, value):
        target = self.schema.by_prefix.get(value[:3])
        if target is None or target.name not in field.refers:
            raise RecordError("MALFORMED_ID", f"{field.label}: id value of incorrect type: {value}", [field.name])
        state = self.store.state(target, value)
        if state is None:
            raise RecordError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [field.name])
        if state:
            raise RecordError("ENTITY_IS_DELETED", "entity is deleted", [field.name])

    def through_relation(self, obj, name, raw, record):
        """{"Parent__r": {"Ext__c": "v"}}: exactly one idLookup field of the parent (reference 8)."""
        field = obj.relation(name)
        if field is None:
            raise no_column(name, obj.name)
        if not isinstance(raw, dict):
            values.cannot(field, field.refers[0], raw)
        if any(k.lower() == field.name.lower() for k in record):
            raise RecordError("INVALID_FIELD", f"Cannot specify both an external ID reference {field.relationship} "
                              f"and a salesforce id, {field.name}", [])
        if not field.createable:
            raise read_only([field.name])
        target = self.relation_target(field, raw)
        given = [(k, v) for k, v in raw.items() if k != "attributes"]
        if len(given) != 1:
            raise RecordError("INVALID_FIELD", f"The external foreign key reference does not reference a valid entity: "
                              f"{field.relationship}", [])
        key = target.field(given[0][0])
        if key is None:
            raise no_column(given[0][0], target.name)
        if not key.id_lookup:
            raise RecordError("INVALID_FIELD", f"Field name provided, {key.name} is not an External ID or indexed field "
                              f"for {target.name}", [])
        return field, self.parent_id(target, key, given[0][1])

    def relation_target(self, field, raw):
        named = raw.get("attributes")
        named = named.get("type") if isinstance(named, dict) else None
        if named is None and len(field.refers) > 1:
            raise RecordError("INVALID_FIELD", f"Relationship {field.relationship} is polymorphic: its type must be "
                              "given in attributes", [])
        target = self.schema.get(named or field.refers[0])
        if target is None or target.name not in field.refers:
            raise RecordError("INVALID_FIELD", f"The external foreign key reference does not reference a valid entity: "
                              f"{field.relationship}", [])
        return target

    def parent_id(self, target, key, raw):
        value = values.key_value(key, raw, self.sim.config) if key.type != "id" else ids.normal(raw)
        if value is None:
            raise RecordError("MISSING_ARGUMENT", f"{key.name} not specified", [key.name])
        found = self.store.find(target, key, value)
        if len(found) > 1:
            raise several(key, found)
        if not found:
            raise RecordError("INVALID_FIELD", f"Foreign key external ID: {raw} not found for field {key.name} in "
                              f"entity {target.name}", [])
        return found[0]

    def match(self, obj, key, value):
        """Ids of the live records that an upsert by this key would update; the bin is not searched (reference 5.4)."""
        return self.store.find(obj, key, value)

    # ---- step 2: rows ----

    def insert(self, obj, new, actor):
        self.admit(actor)
        if actor.api and self.sim.config["storage_full"]:
            raise RecordError("STORAGE_LIMIT_EXCEEDED", "storage limit exceeded", [])
        self.record_fault(obj, new, None, actor)
        self.unique(obj, new, None)
        if obj.setup:
            self.sim.tooling.before_insert(obj, new)
        record_id = self.store.new_id(obj.prefix)
        row = {f.name: f.default for f in defaults(obj)}
        row.update(new)
        self.flows(obj, row, actor)
        name = obj.name_field
        if name is not None and name.in_tables and row.get(name.name) is None and not name.auto_number:
            row[name.name] = record_id
        for field in obj.columns:
            if field.auto_number:
                row[field.name] = auto_number(field)
        row.update(Id=record_id, IsDeleted=0, CreatedDate=actor.stamp, CreatedById=actor.user_id,
                   LastModifiedDate=actor.stamp, LastModifiedById=actor.user_id, SystemModstamp=actor.stamp)
        if "OwnerId" in obj.by_name and not row.get("OwnerId"):
            row["OwnerId"] = actor.user_id
        self.store.insert(obj, row)
        actor.written.append(record_id)
        if self.tracked(obj):
            self.note_history(obj, record_id, "created", None, None, None, actor)
        self.sim.tooling.after_save(obj)
        return record_id

    def update(self, obj, record_id, new, actor):
        """Moves LastModifiedDate even if nothing changes (reference 7.3)."""
        self.admit(actor)
        tracked, unique = self.tracked(obj), unique_fields(obj)
        touched = self.touched(obj, new, actor)
        watch = ["IsDeleted"] + [f.name for f in tracked if f.name in touched] + [
            f.name for f in unique if f.name in new and f not in tracked]
        old = self.store.columns_of(obj, record_id, watch)
        if old is None:
            raise unknown_id()
        if old["IsDeleted"]:
            raise deleted()
        self.record_fault(obj, new, record_id, actor)
        self.unique(obj, new, record_id)
        self.no_circle(obj, record_id, new)
        row = dict(new)
        self.flows(obj, row, actor)
        row.update(LastModifiedDate=actor.stamp, LastModifiedById=actor.user_id, SystemModstamp=actor.stamp)
        self.store.update(obj, record_id, row)
        actor.written.append(record_id)
        for field in tracked:
            if field.name in old and old[field.name] != row[field.name]:
                self.note_history(obj, record_id, field.name, field, old[field.name], row[field.name], actor)
        self.sim.tooling.after_save(obj)

    def admit(self, actor):
        if actor.api and self.sim.config["maintenance"]:
            raise RecordError("INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", "Updates can't be made during "
                              "maintenance. Try again when the maintenance is complete.", [])

    def unique(self, obj, new, own_id):
        for field in unique_fields(obj):
            value = new.get(field.name)
            if value is None:
                continue
            for other in self.store.find(obj, field, value):
                if other != own_id:
                    raise RecordError("DUPLICATE_VALUE", f"duplicate value found: {field.name} duplicates value on "
                                      f"record with id: {other}", [])

    def no_circle(self, obj, record_id, new):
        for name in own_references(obj):
            at, steps = new.get(name), 0
            while at is not None and steps < 500:
                if at == record_id:
                    raise RecordError("CIRCULAR_DEPENDENCY", "attempt to violate hierarchy constraints", [name])
                row = self.store.columns_of(obj, at, [name])
                at, steps = row[name] if row else None, steps + 1

    def record_fault(self, obj, new, record_id, actor):
        if actor.api and self.sim.faults.record_faults:
            old = self.everything(obj, record_id) if record_id else {}
            self.sim.faults.check_record(obj, {**old, **new})

    def everything(self, obj, record_id):
        return self.store.columns_of(obj, record_id, [f.name for f in obj.columns]) or {}

    def touched(self, obj, new, actor):
        """The names of the fields that a save may change: those given, and those of flows."""
        flows = [f for f in self.sim.automation if f["object"].lower() == obj.name.lower()] if actor.api else ()
        return {*new, *(obj.by_lower[name.lower()].name for flow in flows for name in flow["set"])}

    def flows(self, obj, row, actor):
        """Automation that runs on saves by the API (reference 16, 37)."""
        if actor.api:
            for flow in self.sim.automation:
                if flow["object"].lower() == obj.name.lower():
                    for name, raw in flow["set"].items():
                        field = obj.by_lower[name.lower()]
                        row[field.name] = values.clean(field, raw, self.sim.config)

    # ---- field history (reference 7.4) ----

    def tracked(self, obj):
        found = obj.plans.get("tracked")
        if found is None:
            kept = any(o.history_of == obj.name for o in self.schema.objects.values())
            found = obj.plans["tracked"] = [f for f in obj.fields if f.track] if kept else []
        return found

    def note_history(self, obj, record_id, what, field, old, new, actor):
        history = obj.plans.get("history")
        if history is None:
            history = obj.plans["history"] = next(o for o in self.schema.objects.values() if o.history_of == obj.name)
        if field is not None and (field.long_text or field.type == "multipicklist"):
            old = new = None
        kind = {"string": "Text", "phone": "Phone", "picklist": "DynamicEnum", "currency": "Currency",
                "double": "Double", "email": "Email", "boolean": "Boolean"}
        changes = [(kind.get(field.type, "Text") if field else "Text", old, new)]
        if field is not None and field.type == "reference":
            # two rows, of names and of ids; a standard lookup goes by the name of its relation
            what = what if field.custom else field.relationship
            changes = [("Text", self.name_of(old), self.name_of(new)), ("EntityId", old, new)]
        for data_type, before, after in changes:
            self.store.insert(history, {
                "Id": self.store.new_id(history.prefix), "IsDeleted": 0, history.history_parent: record_id,
                "CreatedById": actor.user_id, "CreatedDate": actor.stamp, "Field": what, "DataType": data_type,
                "OldValue": before, "NewValue": after})

    def name_of(self, record_id):
        """What a lookup to the record shows."""
        target = self.schema.by_prefix.get(record_id[:3]) if record_id else None
        if target is None or target.name_field is None:
            return None
        fields = (["FirstName", "LastName"] if "LastName" in target.by_name else [target.name_field.name])
        row = self.store.columns_of(target, record_id, fields) or {}
        return " ".join(row[f] for f in fields if row.get(f)) or None

    # ---- delete (reference 10) ----

    def delete(self, obj, record_id, actor, cascade=False):
        self.admit(actor)
        state = self.store.state(obj, record_id)
        if state is None:
            raise unknown_id()
        if state:
            raise deleted()
        if actor.api and not obj.deletable:
            raise RecordError("INSUFFICIENT_ACCESS_OR_READONLY", "insufficient access rights on object id", [])
        if not cascade:
            self.record_fault(obj, {}, record_id, actor)
        self.children(obj, record_id, actor)
        self.store.update(obj, record_id, {
            "IsDeleted": 1, "LastModifiedDate": actor.stamp, "LastModifiedById": actor.user_id,
            "SystemModstamp": actor.stamp, "_deleted_at": actor.stamp})
        actor.written.append(record_id)
        self.sim.tooling.after_save(obj)

    def children(self, obj, record_id, actor):
        """Cascade, refuse or clear, by the lookups that point here."""
        links = [(c, f) for c, f in self.schema.children.get(obj.name, ()) if f.in_tables and not c.history_of
                 and f.name != "MasterRecordId"]
        for child, field in links:
            if field.delete == "restrict":
                self.refuse_if_used(obj, record_id, child, field)
        for child, field in links:
            if field.delete == "restrict":
                continue
            for child_id in self.store.find(child, field, record_id, limit=-1):
                if field.delete == "cascade":
                    self.delete(child, child_id, actor, cascade=True)
                else:  # not a save by a user: only SystemModstamp moves (reference 7.3)
                    self.store.update(child, child_id, {field.name: None, "SystemModstamp": actor.stamp})

    def refuse_if_used(self, obj, record_id, child, field):
        found = self.store.find(child, field, record_id, limit=5)
        if not found:
            return
        def name(of, row_id):
            label = of.name_field
            return self.store.columns_of(of, row_id, [label.name])[label.name] if label else row_id
        raise RecordError("DELETE_FAILED", f"Your attempt to delete {name(obj, record_id)} could not be completed because "
                          f"it is associated with the following {child.plural.lower()}.: "
                          f"{', '.join(name(child, i) for i in found)}\n", [])

    def merge(self, obj, winner, loser, actor):
        """The loser goes to the bin, pointing at its master; its children move (reference 10)."""
        for child, field in self.schema.children.get(obj.name, ()):
            if field.in_tables and not child.history_of and field.name != "MasterRecordId":
                self.store.execute(f"UPDATE {quoted(child.name)} SET {quoted(field.name)} = ? "
                                   f"WHERE {quoted(field.name)} = ?", (winner, loser))
        self.delete(obj, loser, actor, cascade=True)
        self.store.update(obj, loser, {"MasterRecordId": winner})
        self.update(obj, winner, {}, actor)


# ---- what is derived from an object once and kept until its metadata changes ----

def _kept(obj, name, make):
    found = obj.plans.get(name)
    if found is None:
        found = obj.plans[name] = make()
    return found


def required(obj):
    return _kept(obj, "required", lambda: [f for f in obj.fields if f.required])


def unique_fields(obj):
    return _kept(obj, "unique", lambda: [f for f in obj.columns if f.unique])


def defaults(obj):
    return _kept(obj, "defaults", lambda: [f for f in obj.columns if f.default is not None])


def own_references(obj):
    return _kept(obj, "own", lambda: [f.name for f in obj.columns
                                      if f.refers == [obj.name] and f.name != "MasterRecordId"])


def auto_number(field):
    number, field.next_number = field.next_number, field.next_number + 1
    head, _, rest = field.auto_format.partition("{")
    zeros, _, tail = rest.partition("}")
    return f"{head}{number:0{len(zeros)}d}{tail}"


# ---- errors with a text of their own ----

def missing(names):
    return RecordError("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(names)}]", names)


def read_only(names):
    return RecordError("INVALID_FIELD_FOR_INSERT_UPDATE",
                       f"Unable to create/update fields: {', '.join(names)}. Please check the security settings of this "
                       "field and verify that it is read/write for your profile or permission set.", names)


def several(key, found):
    """Reference 5.4; the text lists the records."""
    return RecordError("DUPLICATE_EXTERNAL_ID", f"{key.label}: more than one record found for external id field: "
                       f"[{', '.join(found)}]", [key.name])
