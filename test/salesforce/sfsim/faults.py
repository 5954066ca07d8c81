"""Faults that tests plant: of whole requests, and of single records at write."""
import random
import re

from .errors import RecordError


class Fault:
    def __init__(self, given):
        self.given = given
        self.name = given["name"]
        self.match, self.action, self.record = given.get("match") or {}, given.get("action") or {}, given.get("record")
        rules = self.record if self.record else given
        self.left, self.skip = rules.get("times"), int(rules.get("skip", 0))
        self.probability = rules.get("probability", 1.0)
        self.path = re.compile(self.match["path"]) if self.match.get("path") else None
        self.hits = 0
        self.patterns = {k: re.compile(v) for k, v in (self.record or {}).get("regex", {}).items()}
        if self.record and not isinstance(self.record.get("error"), dict):
            raise ValueError("a record fault needs an error")
        if not self.record and not self.action:
            raise ValueError("a fault needs an action or a record")

    def fires(self):
        """Takes one of its times, if it is its turn."""
        if self.left is not None and self.left <= 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.probability < 1 and random.random() >= self.probability:
            return False
        if self.left is not None:
            self.left -= 1
        self.hits += 1
        return True

    def fits(self, call, raw):
        match = self.match
        if "kind" in match and call.kind not in ([match["kind"]] if isinstance(match["kind"], str) else match["kind"]):
            return False
        if "method" in match and call.method != match["method"]:
            return False
        target = call.path + ("?" + call.query if call.query else "")
        if self.path and not self.path.search(target):
            return False
        return "object" not in match or names_object(match["object"], target, raw)

    def hits_record(self, obj, values):
        rule = self.record
        if rule.get("object", obj.name).lower() != obj.name.lower():
            return False
        for name, wanted in rule.get("match", {}).items():
            if not same(values.get(name), wanted):
                return False
        return all(values.get(k) is not None and p.search(str(values[k])) for k, p in self.patterns.items())

    def shown(self):
        return {**self.given, "hits": self.hits, "left": self.left}


def same(stored, wanted):
    if isinstance(wanted, bool) or stored is None or wanted is None:
        return stored == wanted
    if isinstance(stored, (int, float)):
        try:
            return stored == float(wanted)
        except (TypeError, ValueError):
            return False
    return str(stored) == str(wanted)


def names_object(name, target, raw):
    """Is an object named in the path or, for composite requests, in the body?"""
    if re.search(rf"/{re.escape(name)}(?:[/?]|$)|(?i:from(?:\+|%20|\s)+{re.escape(name)}\b)", target):
        return True
    quoted = name.encode()
    return bool(raw) and (b'"' + quoted + b'"' in raw or b"/" + quoted + b"/" in raw or b"/" + quoted + b'"' in raw)


class Faults:
    def __init__(self, sim):
        self.sim = sim
        self.list = []
        self.record_faults = []

    def add(self, given):
        fault = Fault(given)
        self.remove(fault.name)
        self.list.append(fault)
        self._split()
        return fault

    def remove(self, name=None):
        self.list = [f for f in self.list if name is not None and f.name != name]
        self._split()

    def _split(self):
        self.record_faults = [f for f in self.list if f.record]

    def for_request(self, call, raw):
        """The first fault for this request, or None."""
        for fault in self.list:
            if not fault.record and fault.fits(call, raw) and fault.fires():
                call.fault = fault.name
                return fault
        return None

    def check_record(self, obj, values):
        for fault in self.record_faults:
            if fault.hits_record(obj, values) and fault.fires():
                error = fault.record["error"]
                raise RecordError(error["statusCode"], error.get("message", ""), error.get("fields", []))


def bent(fault, body):
    """Replies with the wrong number of results, or with keys left out, for tests of a client's suspicion."""
    how = fault.action["results"]

    def bend(results):
        if how == "short":
            return results[:-1]
        if how == "long":
            return results + [dict(results[-1])]
        return [{k: v for k, v in r.items() if k == "success"} for r in results]

    def is_results(value):
        return isinstance(value, list) and value and all(isinstance(r, dict) and "success" in r for r in value)

    if is_results(body):
        return bend(body)
    if isinstance(body, dict) and isinstance(body.get("compositeResponse"), list):
        return {"compositeResponse": [{**p, "body": bend(p["body"])} if is_results(p["body"]) else p
                                      for p in body["compositeResponse"]]}
    return body
