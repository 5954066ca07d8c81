"""A SOQL tree to SQL for SQLite.  Every value is bound; names come from the schema, never from the query."""
from datetime import datetime, timezone

from . import clock, ids
from .schema import NUMBER, TEXT
from .soql import query_error
from .soql_dates import span
from .store import parts_of, printed, quoted

TYPE_NAMES = {"datetime": "dateTime", "reference": "ID", "id": "ID"}


class Node:
    """The fields asked of one object of the query, in the order in which they print."""

    def __init__(self, obj, alias):
        self.obj, self.alias, self.out, self.at = obj, alias, [], {}
        self.id_column = None

    def render(self, row, query, version):
        if row[self.id_column] is None:
            return None
        out = {"attributes": {"type": self.obj.name,
                              "url": f"/services/data/v{version}/sobjects/{self.obj.name}/{row[self.id_column]}"}}
        for name, kind, what in self.out:
            if kind == "value":
                out[name] = row[what]
            elif kind == "boolean":
                out[name] = None if row[what] is None else bool(row[what])
            elif kind == "compound":
                field, columns = what
                out[name] = printed(field, {n: row[i] for n, i in columns})
            elif kind == "parent":
                out[name] = what.render(row, query, version)
            else:
                out[name] = query.children(what, row[self.id_column], version)
        return out


class Compiled:
    def __init__(self):
        self.sql = self.params = self.node = self.names = None
        self.aggregate = self.count_only = False
        self.long_texts = 0
        self.link = None    # of a child subquery: the lookup that must equal the parent's id


class Compiler:
    def __init__(self, text, lookup, schema, now, all_rows):
        self.text, self.lookup, self.schema, self.now, self.all_rows = text, lookup, schema, now, all_rows
        self.counter = 0

    def fail(self, at, message, code="INVALID_FIELD"):
        raise query_error(self.text, at, message, code)

    def compile(self, select, obj=None, link=None):
        return SelectCompiler(self, select, obj, link).build()


class SelectCompiler:
    """One SELECT with its joins."""

    def __init__(self, top, select, obj=None, link=None):
        self.top, self.select, self.link, self.fail = top, select, link, top.fail
        self.obj = obj or self.find_object()
        top.counter += 1
        self.root = f"t{top.counter}"
        self.aliases = {(): (self.root, self.obj)}
        self.joins, self.columns = [], []
        self.params = []

    def find_object(self):
        found = self.top.lookup(self.select.object)
        if found is None:
            self.fail(self.select.object_at, f"sObject type '{self.select.object}' is not supported. If you are attempting "
                      "to use a custom object, be sure to append the '__c' after the entity name. Please reference your "
                      "WSDL or the describe call for the appropriate names.", "INVALID_TYPE")
        return found

    # ---- names ----

    def resolve(self, path, at):
        """(alias, field, relation fields on the way) of a dotted path; joins are added as needed."""
        parts = path.split(".")
        own = (self.obj.name.lower(), (self.select.alias or "").lower())
        if len(parts) > 1 and parts[0].lower() in own and not self.obj.relation(parts[0]):
            parts = parts[1:]
        if len(parts) > 6:
            self.fail(at, "SOQL relationship queries may not traverse more than 5 levels", "MALFORMED_QUERY")
        obj, way = self.obj, []
        for name in parts[:-1]:
            relation = obj.relation(name)
            target = self.top.schema.objects.get(relation.refers[0]) if relation is not None else None
            if target is None or not target.visible:
                self.fail(at, f"Didn't understand relationship '{name}' in field path. If you are attempting to use a custom "
                          "relationship, be sure to append the '__r' after the custom relationship name. Please reference "
                          "your WSDL or the describe call for the appropriate names.")
            way.append(relation)
            obj = self.join(tuple(f.relationship for f in way), relation, target)
        field = obj.field(parts[-1])
        if field is None:
            self.fail(at, f"No such column '{parts[-1]}' on entity '{obj.name}'. If you are attempting to use a custom field, "
                      "be sure to append the '__c' after the custom field name. Please reference your WSDL or the describe "
                      "call for the appropriate names.")
        return self.aliases[tuple(f.relationship for f in way)][0], field, way

    def join(self, key, relation, target):
        if key not in self.aliases:
            self.top.counter += 1
            alias = f"t{self.top.counter}"
            parent = self.aliases[key[:-1]][0]
            self.joins.append(f" LEFT JOIN {quoted(target.name)} {alias} ON {alias}.Id = {parent}.{quoted(relation.name)}")
            self.aliases[key] = alias, target
        return self.aliases[key][1]

    def column(self, alias, name):
        text = f"{alias}.{quoted(name)}"
        if text not in self.columns:
            self.columns.append(text)
        return self.columns.index(text)

    # ---- the whole ----

    def build(self):
        out, select = Compiled(), self.select
        out.link = self.link
        grouped = bool(select.group) or any(i.kind == "aggregate" for i in select.items)
        out.count_only = select.count_only and not select.group
        out.aggregate = grouped and not out.count_only
        if out.count_only:
            what = "count(*)"
        elif out.aggregate:
            what, out.names = self.aggregates()
        else:
            out.node = self.plain(out)
            what = ", ".join(self.columns)
        where = self.where()
        order = self.order()
        sql = f"SELECT {what} FROM {quoted(self.obj.name)} {self.root}{''.join(self.joins)} WHERE {where}"
        if select.group:
            sql += " GROUP BY " + ", ".join(self.group_columns())
        sql += order
        out.sql, out.params = sql + self.limits(), self.params
        return out

    def limits(self):
        if self.select.limit is None and self.select.offset is None:
            return ""
        self.params.extend([-1 if self.select.limit is None else self.select.limit, self.select.offset or 0])
        return " LIMIT ? OFFSET ?"

    # ---- what is selected ----

    def plain(self, out):
        nodes = {(): Node(self.obj, self.root)}
        nodes[()].id_column = self.column(self.root, "Id")
        seen = set()
        for item in self.expanded():
            if item.kind == "sub":
                self.add_child(nodes[()], item)
                continue
            if item.alias:
                self.fail(item.at, "only aggregate expressions use field aliasing", "MALFORMED_QUERY")
            alias, field, way = self.resolve(item.path, item.at)
            key = (tuple(f.relationship for f in way), field.name)
            if key in seen:
                self.fail(item.at, f"duplicate field selected: {field.name}", "INVALID_FIELD")
            seen.add(key)
            out.long_texts += field.long_text
            self.add_field(self.node_for(nodes, way), alias, field)
        return nodes[()]

    def expanded(self):
        for item in self.select.items:
            if item.kind != "fields":
                yield item
                continue
            if item.path not in ("all", "custom", "standard"):
                self.fail(item.at, f"unexpected token: '{item.path}'", "MALFORMED_QUERY")
            if item.path != "standard" and (self.select.limit is None or self.select.limit > 200):
                self.fail(item.at, "The SOQL FIELDS function must have a LIMIT of at most 200", "MALFORMED_QUERY")
            for field in self.obj.fields:
                if field.visible and (item.path == "all" or field.custom == (item.path == "custom")):
                    yield type(item)("field", item.at, path=field.name)

    def node_for(self, nodes, way):
        key = ()
        for relation in way:
            parent, key = nodes[key], key + (relation.relationship,)
            if key not in nodes:
                alias, obj = self.aliases[key]
                nodes[key] = Node(obj, alias)
                nodes[key].id_column = self.column(alias, "Id")
                parent.out.append((relation.relationship, "parent", nodes[key]))
        return nodes[key]

    def add_field(self, node, alias, field):
        if field.stored:
            kind = "boolean" if field.type == "boolean" else "value"
            node.out.append((field.name, kind, self.column(alias, field.name)))
        else:
            columns = [(n, self.column(alias, n)) for n in parts_of(node.obj, field)]
            node.out.append((field.name, "compound", (field, columns)))

    def add_child(self, node, item):
        name = item.select.object
        for child, field in self.top.schema.children.get(self.obj.name, ()):
            if (field.child_relationship or "").lower() == name.lower() and child.visible and field.visible:
                inner = self.top.compile(item.select, child, field)
                node.out.append((field.child_relationship, "child", inner))
                return
        self.fail(item.select.object_at, f"Didn't understand relationship '{name}' in FROM part of query call. If you are "
                  "attempting to use a custom relationship, be sure to append the '__r' after the custom relationship name. "
                  "Please reference your WSDL or the describe call for the appropriate names.", "INVALID_TYPE")

    # ---- aggregates ----

    def aggregates(self):
        columns, names = [], []
        grouped = {self.resolve(p, a)[1].name for p, a in self.select.group}
        for item in self.select.items:
            if item.kind == "aggregate":
                columns.append(self.aggregate(item))
                number = sum(1 for n, _ in names if n.startswith("expr"))
                names.append((item.alias or f"expr{number}", None))
            elif item.kind == "field":
                alias, field, _ = self.resolve(item.path, item.at)
                if field.name not in grouped:
                    self.fail(item.at, f"Field must be grouped or aggregated: {field.name}", "MALFORMED_QUERY")
                columns.append(f"{alias}.{quoted(field.name)}")
                names.append((item.alias or field.name, field))
            else:
                self.fail(item.at, "Grouped query cannot use child relationships in the SELECT list", "MALFORMED_QUERY")
        return ", ".join(columns), names

    def aggregate(self, item):
        if item.path is None:
            if item.function != "count":
                self.fail(item.at, f"unexpected token: '{item.function}'", "MALFORMED_QUERY")
            return "count(*)"
        alias, field, _ = self.resolve(item.path, item.at)
        name = f"{alias}.{quoted(field.name)}"
        if item.function in ("sum", "avg") and field.type not in NUMBER or field.long_text or not field.stored:
            self.fail(item.at, f"field {field.name} does not support aggregate operator {item.function.upper()}",
                      "MALFORMED_QUERY")
        return f"count(DISTINCT {name})" if item.function == "count_distinct" else f"{item.function}({name})"

    def group_columns(self):
        out = []
        for path, at in self.select.group:
            alias, field, _ = self.resolve(path, at)
            if field.long_text or not field.stored:
                self.fail(at, f"field '{field.name}' can not be grouped in a query call", "MALFORMED_QUERY")
            out.append(f"{alias}.{quoted(field.name)}")
        return out

    def order(self):
        parts = []
        for item, down, last in self.select.order:
            if item.kind == "aggregate":
                name = self.aggregate(item)
            else:
                alias, field, _ = self.resolve(item.path, item.at)
                if field.long_text or not field.stored or field.encrypted or field.type == "multipicklist":
                    self.fail(item.at, f"field '{field.name}' can not be sorted in a query call", "MALFORMED_QUERY")
                name = f"{alias}.{quoted(field.name)}"
            parts.append(f"{name} {'DESC' if down else 'ASC'} NULLS {'LAST' if last else 'FIRST'}")
        return " ORDER BY " + ", ".join(parts) if parts else ""

    # ---- WHERE ----

    def where(self):
        parts = []
        if self.link is not None:
            parts.append(f"{self.root}.{quoted(self.link.name)} = ?")
            self.params.append(None)   # filled in for each parent
        if self.select.where is not None:
            parts.append(self.condition(self.select.where))
        if not self.top.all_rows and "IsDeleted" in self.obj.by_name:
            parts.append(f"{self.root}.IsDeleted = 0")
        return " AND ".join(f"({p})" for p in parts) or "1"

    def condition(self, tree, negated=False):
        if tree[0] in ("and", "or"):
            return f" {tree[0].upper()} ".join(f"({self.condition(t, negated)})" for t in tree[1])
        if tree[0] == "not":
            return f"NOT ({self.condition(tree[1], True)})"
        sql = self.comparison(*tree[1:])
        # SOQL knows no "unknown": under NOT a comparison with null must count as false.
        return f"coalesce({sql}, 0)" if negated else sql

    def comparison(self, path, at, operator, value):
        alias, field, _ = self.resolve(path, at)
        if field.long_text or field.encrypted or not field.stored:
            self.fail(at, f"field '{field.name}' can not be filtered in a query call", "INVALID_FIELD")
        name = f"{alias}.{quoted(field.name)}"
        if operator == "like":
            return self.like(name, field, at, value)
        if operator in ("includes", "excludes"):
            return self.includes(name, field, at, operator, value)
        if operator in ("in", "not in"):
            return self.within(name, field, at, operator, value)
        if value.kind == "name" and value.value.lower() not in ("null", "true", "false"):
            return self.date_literal(name, field, at, operator, value)
        return self.compare(name, field, at, operator, self.value(field, value))

    def compare(self, name, field, at, operator, value):
        if value is None:
            if operator not in ("=", "!="):
                self.fail(at, f"invalid operator for null on field '{field.name}'", "INVALID_QUERY_FILTER_OPERATOR")
            return f"{name} IS {'NOT ' if operator == '!=' else ''}NULL"
        if field.type in ("boolean", "multipicklist") and operator not in ("=", "!="):
            self.fail(at, f"invalid operator on {field.type} field", "INVALID_QUERY_FILTER_OPERATOR")
        self.params.append(value)
        # != is true for null too
        return f"({name} != ? OR {name} IS NULL)" if operator == "!=" else f"{name} {operator} ?"

    def like(self, name, field, at, value):
        if field.type not in TEXT or field.type == "multipicklist":
            self.fail(at, f"invalid operator on {field.type} field", "INVALID_QUERY_FILTER_OPERATOR")
        if value.kind != "string":
            self.wrong_type(field, value)
        self.params.extend([value.value, int(field.folds_case)])
        return f"sf_like({name}, ?, ?)"

    def includes(self, name, field, at, operator, values):
        if field.type != "multipicklist":
            self.fail(at, "includes and excludes can only be used on multi-select picklist fields",
                      "INVALID_QUERY_FILTER_OPERATOR")
        parts = []
        for value in values:
            self.params.append(self.value(field, value))
            parts.append(f"sf_includes({name}, ?)")
        return f"{'NOT ' if operator == 'excludes' else ''}({' OR '.join(parts)})"

    def within(self, name, field, at, operator, values):
        if not isinstance(values, list):
            return self.subselect(name, field, at, operator, values)
        bound = [self.value(field, v) for v in values]
        real = [b for b in bound if b is not None]
        self.params.extend(real)
        sql = f"{name} IN ({','.join('?' * len(real))})"
        if operator == "in":
            return f"({sql} OR {name} IS NULL)" if len(real) < len(bound) else sql
        return f"NOT coalesce({sql}, 0)" + (f" AND {name} IS NOT NULL" if len(real) < len(bound) else "")

    def subselect(self, name, field, at, operator, select):
        if field.type not in ("id", "reference") or len(select.items) != 1 or select.items[0].kind != "field":
            self.fail(at, "semi join sub-selects are only allowed on id and reference fields", "MALFORMED_QUERY")
        inner = SelectCompiler(self.top, select)
        alias, picked, _ = inner.resolve(select.items[0].path, select.items[0].at)
        where = inner.where()
        self.params.extend(inner.params)
        return (f"{name} {operator.upper()} (SELECT {alias}.{quoted(picked.name)} FROM {quoted(inner.obj.name)} {inner.root}"
                f"{''.join(inner.joins)} WHERE {where} AND {alias}.{quoted(picked.name)} IS NOT NULL)")

    # ---- values ----

    def wrong_type(self, field, value):
        kind = TYPE_NAMES.get(field.type, field.type)
        text = field.type in TEXT or field.type in ("textarea", "id", "reference", "anyType")
        kind, enclosed = ("string", "should be") if text else (kind, "should not be")
        self.fail(value.at, f"value of filter criterion for field '{field.name}' must be of type {kind} and {enclosed} "
                  "enclosed in quotes", "INVALID_FIELD")

    def value(self, field, literal):
        """The bound form of a literal, which must fit the field's type."""
        word = literal.value.lower() if literal.kind == "name" else None
        if word == "null":
            return None
        kind = field.type
        if kind == "boolean":
            if word not in ("true", "false"):
                self.wrong_type(field, literal)
            return int(word == "true")
        if kind in ("id", "reference"):
            return self.id_value(field, literal)
        if kind in TEXT or kind == "anyType":
            if literal.kind != "string":
                self.wrong_type(field, literal)
            return literal.value or None    # '' is null
        if kind in NUMBER:
            if literal.kind != "number":
                self.wrong_type(field, literal)
            return float(literal.value)
        if literal.kind != kind:
            self.wrong_type(field, literal)
        if kind != "datetime":
            return literal.value
        parsed = clock.parse_iso(literal.value)
        if parsed is None:
            self.wrong_type(field, literal)
        return clock.stamp(parsed[0])

    def id_value(self, field, literal):
        if literal.kind != "string":
            self.wrong_type(field, literal)
        if not literal.value:
            return None
        found = ids.normal(literal.value)
        if found is None:
            self.fail(literal.at, f"invalid ID field: {literal.value}", "INVALID_QUERY_FILTER_OPERATOR")
        return found

    def date_literal(self, name, field, at, operator, literal):
        now = datetime.fromtimestamp(self.top.now, timezone.utc).date()
        found = span(literal.value, now)
        if found is None:
            self.fail(literal.at, f"unexpected token: '{literal.value}'", "MALFORMED_QUERY")
        if field.type not in ("date", "datetime"):
            self.wrong_type(field, literal)
        form = "%s" if field.type == "date" else "%sT00:00:00.000+0000"
        first, after = (form % d.isoformat() for d in found)
        if operator in ("=", "!="):
            self.params.extend([first, after])
            sql = f"({name} >= ? AND {name} < ?)"
            return sql if operator == "=" else f"NOT coalesce({sql}, 0)"
        self.params.append(first if operator in (">=", "<") else after)
        return f"{name} {'>=' if operator[0] == '>' else '<'} ?"
