"""Custom fields by the Tooling API, and the permissions that make them visible (reference 11)."""
import re

from .errors import ApiError, RecordError, not_found
from .message import Reply
from .schema import Field

NAME = re.compile(r"([A-Za-z]\w*)\.([A-Za-z](?:_?[A-Za-z0-9])*__c)\Z")
LENGTHS = {"Text": (1, 255), "LongTextArea": (256, 131072), "Html": (256, 131072), "EncryptedText": (1, 175)}
TYPES = {"Text": "string", "TextArea": "textarea", "LongTextArea": "textarea", "Html": "textarea", "Number": "double",
         "Currency": "currency", "Percent": "percent", "Checkbox": "boolean", "Date": "date", "DateTime": "datetime",
         "Time": "time", "Url": "url", "Phone": "phone", "Email": "email", "Picklist": "picklist",
         "MultiselectPicklist": "multipicklist", "Lookup": "reference", "MasterDetail": "reference",
         "AutoNumber": "string", "EncryptedText": "encryptedstring"}
EXTERNAL = {"Text", "Number", "Email", "AutoNumber"}


def bad(message):
    return ApiError(400, "FIELD_INTEGRITY_EXCEPTION", message, [])


def need(meta, key, kind):
    if meta.get(key) is None:
        raise bad(f"{key}: You must specify {key} for a field of type {kind}")
    return meta[key]


def whole(meta, key, kind, low, high):
    value = need(meta, key, kind)
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise bad(f"{key}: {key} for a field of type {kind} must be between {low} and {high}")
    return value


def field_of(name, meta, schema):
    """A field from the Metadata of the Tooling API."""
    kind = meta.get("type")
    if kind not in TYPES:
        raise bad(f"Must specify a valid type: {kind}")
    given = {"inline_help": meta.get("inlineHelpText"), "track": bool(meta.get("trackHistory"))}
    if kind in LENGTHS:
        given["length"] = whole(meta, "length", kind, *LENGTHS[kind])
    if kind in ("Number", "Currency", "Percent"):
        given["precision"] = whole(meta, "precision", kind, 1, 18)
        given["scale"] = whole(meta, "scale", kind, 0, given["precision"])
    if kind in ("LongTextArea", "Html"):
        whole(meta, "visibleLines", kind, 2 if kind == "LongTextArea" else 10, 50)
    if kind in ("TextArea", "LongTextArea"):
        given["extra"] = "plaintextarea"
    if kind == "Html":
        given.update(extra="richtextarea", html=True)
    if kind == "Checkbox":
        given["default"] = str(need(meta, "defaultValue", kind)).lower() == "true"
    if kind in ("Picklist", "MultiselectPicklist"):
        values = need(meta, "valueSet", kind)
        given["restricted"] = bool(values.get("restricted"))
        entries = (values.get("valueSetDefinition") or {}).get("value") or []
        given["picklist"] = [v.get("fullName") or v.get("valueName") for v in entries]
    if kind in ("Lookup", "MasterDetail"):
        given.update(lookup_of(name, meta, kind, schema))
    if kind == "AutoNumber":
        given.update(auto_number=True, auto_format=meta.get("displayFormat") or "{0}", length=30)
    if meta.get("externalId") or meta.get("unique"):
        if meta.get("externalId") and kind not in EXTERNAL:
            raise bad(f"externalId: Can not specify 'externalId' for a CustomField of type {kind}")
        given.update(external_id=bool(meta.get("externalId")), unique=bool(meta.get("unique")),
                     case_sensitive=bool(meta.get("caseSensitive")))
    if meta.get("required"):
        given["nillable"] = False
    return Field(name, TYPES[kind], need(meta, "label", kind), **given)


def lookup_of(name, meta, kind, schema):
    target = schema.get(need(meta, "referenceTo", kind))
    if target is None:
        raise bad(f"referenceTo: value {meta['referenceTo']} does not resolve to a valid sObject type")
    out = {"refers": [target.name], "relationship": name[:-3] + "__r",
           "child_relationship": (meta["relationshipName"] + "__r") if meta.get("relationshipName") else None,
           "delete": {"Restrict": "restrict", "Cascade": "cascade"}.get(meta.get("deleteConstraint"), "setnull")}
    if kind == "MasterDetail":
        out.update(master_detail=True, delete="cascade", nillable=False,
                   updateable=bool(meta.get("reparentableMasterDetail")))
    return out


class Tooling:
    def __init__(self, sim):
        self.sim = sim
        self.pending = {}      # (object, field) made here: the field is seen only with FieldPermissions
        self.index = sim.schema.objects["CustomField"]
        for obj in sim.schema.objects.values():
            for field in obj.fields:
                if field.custom:
                    self.note(obj, field)

    def note(self, obj, field):
        """A row of CustomField, for tooling queries."""
        record_id = self.sim.store.new_id("00N")
        self.sim.store.insert(self.index, {"Id": record_id, "IsDeleted": 0, "DeveloperName": field.name[:-3],
                                           "TableEnumOrId": obj.name, "FullName": f"{obj.name}.{field.name}"})
        return record_id

    def lookup(self, name):
        return self.index if name.lower() == "customfield" else None

    def resource(self, request):
        rest = request.segments[4:]
        if rest == ["query"] and request.method == "GET":
            return self.sim.query.run(request, request.query.get("q", ""), False, self.lookup)
        if rest == ["sobjects", "CustomField"] and request.method == "POST":
            return self.create(request)
        if rest[:2] == ["sobjects", "CustomField"] and len(rest) == 3 and request.method == "DELETE":
            return self.delete(rest[2])
        raise not_found()

    def create(self, request):
        body = request.mapping()
        name, meta = body.get("FullName"), body.get("Metadata")
        match = NAME.match(name) if isinstance(name, str) else None
        if not match or not isinstance(meta, dict):
            raise bad("FullName must be <Object>.<Field>__c and Metadata must be given")
        obj = self.sim.schema.get(match.group(1))
        if obj is None:
            raise ApiError(400, "INVALID_FIELD", f"Entity: {match.group(1)} not found", [])
        if match.group(2).lower() in obj.by_lower:
            raise ApiError(400, "DUPLICATE_DEVELOPER_NAME",
                           f"There is already a field named {match.group(2)[:-3]} on {obj.label}.", ["DeveloperName"])
        field = field_of(match.group(2), meta, self.sim.schema)
        # Required fields and master-details are seen by all; others by nobody, administrators included.
        field.visible = not field.permissionable
        if not field.visible:
            self.pending[obj.name, field.name] = field.updateable
        record_id = self.add(obj, field)
        return Reply(201, {"id": record_id, "success": True, "errors": [], "warnings": [], "infos": []})

    def add(self, obj, field):
        self.sim.store.add_column(obj, field)
        obj.fields.append(field)
        self.sim.schema.touch(obj, self.sim.now())
        return self.note(obj, field)

    def remove(self, obj, field):
        self.sim.store.drop_column(obj, field)
        obj.fields.remove(field)
        self.pending.pop((obj.name, field.name), None)
        self.sim.store.execute('DELETE FROM "CustomField" WHERE "FullName" = ?', (f"{obj.name}.{field.name}",))
        self.sim.schema.touch(obj, self.sim.now())

    def delete(self, record_id):
        row = self.sim.store.execute('SELECT "FullName" FROM "CustomField" WHERE Id = ?', (record_id,)).fetchone()
        if row is None:
            raise not_found()
        obj, _, name = row[0].partition(".")
        self.remove(self.sim.schema.objects[obj], self.sim.schema.objects[obj].by_name[name])
        return Reply(204)

    def waiting(self):
        """The fields made here that nobody was granted yet."""
        objects = self.sim.schema.objects
        return {k: v for k, v in self.pending.items() if k[0] in objects and not objects[k[0]].by_name[k[1]].visible}

    # ---- permissions ----

    def before_insert(self, obj, row):
        store = self.sim.store
        if obj.name == "FieldPermissions":
            target = self.sim.schema.get(row.get("SobjectType") or "")
            owner, _, name = (row.get("Field") or "").partition(".")
            field = target.by_lower.get(name.lower()) if target is not None and owner == target.name else None
            if field is None:
                raise RecordError("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "Field Name: bad value for restricted picklist "
                                  f"field: {row.get('Field')}", ["Field"])
            if not field.permissionable:
                raise RecordError("FIELD_INTEGRITY_EXCEPTION", f"You cannot deploy to a required field: {row['Field']}", [])
            if row.get("PermissionsEdit") and (field.sql or field.auto_number):
                raise RecordError("FIELD_INTEGRITY_EXCEPTION", f"Field {row['Field']} is not editable", [])
            same = store.execute('SELECT Id FROM "FieldPermissions" WHERE "ParentId" = ? AND "Field" = ? AND IsDeleted = 0',
                                 (row["ParentId"], row["Field"])).fetchone()
        elif obj.name == "PermissionSetAssignment":
            same = store.execute('SELECT Id FROM "PermissionSetAssignment" WHERE "PermissionSetId" = ? AND "AssigneeId" = ? '
                                 "AND IsDeleted = 0", (row["PermissionSetId"], row["AssigneeId"])).fetchone()
        else:
            return
        if same:
            raise RecordError("DUPLICATE_VALUE", f"duplicate value found: <unknown> duplicates value on record with id: "
                              f"{same[0]}", [])

    def after_save(self, obj):
        if obj.setup:
            self.grant()

    def grant(self):
        """What the integration user's permission sets say of the fields made here."""
        for (object_name, name), updateable in self.pending.items():
            obj = self.sim.schema.objects.get(object_name)
            field = obj.by_name.get(name) if obj is not None else None
            if field is None:
                continue
            row = self.sim.store.execute(
                'SELECT max(f."PermissionsRead"), max(f."PermissionsEdit") FROM "FieldPermissions" f '
                'JOIN "PermissionSetAssignment" a ON a."PermissionSetId" = f."ParentId" AND a.IsDeleted = 0 '
                'WHERE f.IsDeleted = 0 AND f."Field" = ? AND a."AssigneeId" = ?',
                (f"{object_name}.{name}", self.sim.users["integration"])).fetchone()
            wanted = bool(row[0]), bool(row[0] and row[1]) and updateable
            if (field.visible, field.updateable) != wanted:
                field.visible, field.updateable = wanted
                field.createable = wanted[1]
                self.sim.schema.touch(obj, self.sim.now())
