"""What reading single records and reading many have in common."""
from .errors import ApiError
from .store import Reader


def fields_of(obj, text, status=400):
    """The fields of a list in the query string, or all that are visible."""
    names = text.split(",") if isinstance(text, str) else text
    if not names:
        return [f for f in obj.fields if f.visible]
    out = []
    for name in names:
        field = obj.field(str(name).strip())
        if field is None:
            raise ApiError(status, "INVALID_FIELD", f"No such column '{name}' on sobject of type {obj.name}")
        if field not in out:
            out.append(field)
    if not any(f.name == "Id" for f in out):
        out.append(obj.by_name["Id"])
    return out


def reader(obj, fields):
    """The plan for a list of fields, kept until the object's metadata changes."""
    key = ("reader", tuple(f.name for f in fields))
    found = obj.plans.get(key)
    if found is None:
        if len(obj.plans) > 300:
            obj.plans.clear()
        found = obj.plans[key] = Reader(obj, fields)
    return found
