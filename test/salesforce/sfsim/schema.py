"""Objects and fields: one definition from which the tables, the checks of values and describe all follow."""
import time

TEXT = {"string", "textarea", "phone", "url", "email", "picklist", "multipicklist", "combobox", "encryptedstring"}
NUMBER = {"int", "long", "double", "currency", "percent"}
COMPOUND = {"address", "location"}
DEFAULT_LENGTH = {"phone": 40, "url": 255, "email": 80, "picklist": 255, "multipicklist": 4099, "textarea": 255,
                  "string": 255, "encryptedstring": 175, "reference": 18, "id": 18}


class Field:
    """One field.  The attributes are those of describe (reference 3.3), in snake case, plus what only the
    simulator needs: sql (the expression of a formula), track (field history), delete (what becomes of a lookup
    when its target goes), visible (field-level security)."""

    def __init__(self, name, type, label=None, **given):
        self.name, self.type, self.label = name, type, label or name
        self.custom = name.endswith("__c") or name.endswith("__s")
        self.length = given.pop("length", DEFAULT_LENGTH.get(type, 0))
        self.createable = self.updateable = self.nillable = self.visible = True
        self.precision = self.scale = self.digits = 0
        self.defaulted = self.external_id = self.unique = self.id_lookup = self.name_field = False
        self.case_sensitive = self.calculated = self.auto_number = self.encrypted = False
        self.restricted = self.html = self.polymorphic = self.track = self.master_detail = False
        self.display_decimal = False
        self.default = self.compound = self.extra = self.sql = self.formula = None
        self.relationship = self.child_relationship = self.auto_format = self.inline_help = self.mask_type = None
        self.picklist, self.refers, self.delete, self.added = [], [], "setnull", []
        self.next_number = 1
        for key, value in given.items():
            if not hasattr(self, key):
                raise KeyError(f"unknown attribute {key} of field {name}")
            setattr(self, key, value)
        self._complete()

    def _complete(self):
        if self.type == "boolean":
            # Reference 3.3: checkboxes are never null and the server fills them in.
            self.nillable, self.defaulted = False, True
            self.default = bool(self.default)
        if self.external_id:
            self.id_lookup = True
        if self.sql or self.auto_number or self.type in COMPOUND:
            self.createable = self.updateable = False
            self.calculated = bool(self.sql and self.custom)
        if self.type == "encryptedstring":
            self.encrypted = True

    @property
    def stored(self):
        return self.type not in COMPOUND

    @property
    def long_text(self):
        return self.type == "textarea" and self.length > 255 or self.html

    @property
    def folds_case(self):
        """String comparison ignores case except on case-sensitive fields (reference 7.2)."""
        return self.type in TEXT and not self.case_sensitive

    @property
    def required(self):
        return self.createable and not self.nillable and not self.defaulted

    @property
    def permissionable(self):
        if self.required or self.master_detail or self.name in ("Id", "OwnerId"):
            return False
        return self.custom or self.createable or bool(self.sql) or self.auto_number

    @property
    def in_tables(self):
        """Has a column of its own that is written (not a formula)."""
        return self.stored and not self.sql


class SObject:
    def __init__(self, name, label, plural, prefix, fields, **given):
        self.name, self.label, self.plural, self.prefix = name, label, plural, prefix
        self.custom = name.endswith("__c")
        self.visible, self.writable, self.deletable, self.queryable, self.internal = True, True, True, True, False
        self.history_of = self.history_parent = None
        self.setup = False
        for key, value in given.items():
            setattr(self, key, value)
        self.fields = list(fields)
        self.changed_at = 0
        self.reindex()

    def reindex(self):
        self.by_name = {f.name: f for f in self.fields}
        self.by_lower = {f.name.lower(): f for f in self.fields}
        self.relations = {f.relationship.lower(): f for f in self.fields if f.relationship}
        self.columns = [f for f in self.fields if f.in_tables]
        self.plans = {}  # whatever modules derive from the fields and keep: dropped at each change

    def field(self, name):
        """A field that the API user may see, by name in any case."""
        found = self.by_name.get(name) or self.by_lower.get(name.lower())
        return found if found is not None and found.visible else None

    def relation(self, name):
        found = self.relations.get(name.lower())
        return found if found is not None and found.visible else None

    @property
    def name_field(self):
        for field in self.fields:
            if field.name_field:
                return field
        return None


class Schema:
    """All objects of the org.  changed_at of the whole and of each object is what describe calls Last-Modified."""

    def __init__(self, objects, now=None):
        self.objects = {o.name: o for o in objects}
        self._index()
        self.changed_at = int(now or time.time())
        for obj in objects:
            obj.changed_at = self.changed_at

    def _index(self):
        self.by_lower = {name.lower(): o for name, o in self.objects.items()}
        self.by_prefix = {o.prefix: o for o in self.objects.values() if o.prefix}
        self.children = {}
        for obj in self.objects.values():
            for field in obj.fields:
                for target in field.refers:
                    self.children.setdefault(target, []).append((obj, field))

    def get(self, name):
        """A visible object by name in any case, or None."""
        found = self.objects.get(name) or self.by_lower.get(str(name).lower())
        return found if found is not None and found.visible and not found.internal else None

    def add_object(self, obj, now):
        self.objects[obj.name] = obj
        self.touch(obj, now)

    def remove_object(self, obj, now):
        del self.objects[obj.name]
        self.touch(obj, now)

    def touch(self, obj, now):
        """Metadata changed.  Last-Modified has seconds, so two changes within one must still differ."""
        obj.changed_at = max(int(now), obj.changed_at + 1)
        self.changed_at = max(self.changed_at, obj.changed_at)
        obj.reindex()
        self._index()
