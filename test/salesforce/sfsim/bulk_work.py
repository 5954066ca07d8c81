"""What happens to a bulk job after it was closed: chunks of 200 records, each a transaction (reference 9.4)."""
import random
import time

from . import bulk_csv, jsonout
from .calls import Call
from .collections_ import Item
from .dml import Actor
from .errors import ParseError, RecordError
from .rows import record_id
from .store import quoted

CHUNK = 200
XSD = {"double": "xsd:double", "currency": "xsd:double", "percent": "xsd:double", "int": "xsd:int", "long": "xsd:int",
       "boolean": "xsd:boolean", "date": "xsd:date", "datetime": "xsd:dateTime", "time": "xsd:time"}


class Column:
    """A header of the CSV: a field, or a parent's key through a relation."""

    def __init__(self, name, field=None, relation=None, target=None, key=None):
        self.name, self.field, self.relation, self.target, self.key = name, field, relation, target, key

    def put(self, record, text):
        null = text == bulk_csv.NULL
        if self.field is not None:
            record[self.field.name] = None if null else text
            return
        inner = {} if self.target is None else {"attributes": {"type": self.target}}
        record[self.relation] = {**inner, self.key: None if null else text}


class Work:
    """One step at a time, so that requests are answered between the chunks."""

    def __init__(self, sim, jobs):
        self.sim, self.jobs = sim, jobs
        self.running = []      # jobs closed and not ended, oldest first
        self.calls = {}        # job -> its entry among the writers (who writes the same records meanwhile?)

    def begin(self, job):
        now = self.sim.now()
        job.move("UploadComplete", now)
        job.due = time.monotonic() + self.sim.config["bulk_delay"]
        self.running.append(job)
        self.calls[job] = self.sim.calls.start_job(Call("JOB", job.id, "", 0))
        self.sim.wake()

    def end(self, job, state):
        job.move(state, self.sim.now())
        if job in self.running:
            self.running.remove(job)
            self.sim.calls.end_job(self.calls.pop(job))
        random.Random(job.id).shuffle(job.successes)     # not in the order of the upload
        random.Random(job.id).shuffle(job.failures)

    def step(self):
        """One chunk of the job that is due first; seconds until there is more to do, None when there is nothing."""
        if not self.running:
            return None
        job = min(self.running, key=lambda j: j.due)
        # The delay may have been changed while the job waits.
        if job.state == "UploadComplete":
            job.due = min(job.due, time.monotonic() + self.sim.config["bulk_delay"])
        wait = job.due - time.monotonic()
        if wait > 0:
            return wait
        began = time.monotonic()
        self.advance(job)
        job.work_seconds += time.monotonic() - began
        job.due = time.monotonic() + self.sim.config["bulk_chunk_delay"]
        return 0

    def advance(self, job):
        try:
            if job.state == "UploadComplete":
                self.look(job)
                job.move("InProgress", self.sim.now())
                return
            limit = self.sim.config["bulk_fail_after"]
            if limit is not None and job.done >= limit * CHUNK:
                job.error = "InternalServerError : An unexpected error occurred"
                self.end(job, "Failed")
                return
            self.chunk(job)
        except bulk_csv.BadCsv as error:
            job.error = str(error)
            self.end(job, "Failed")
            return
        if job.done >= len(job.rows):
            self.end(job, "JobComplete")

    # ---- the header ----

    def look(self, job):
        if job.refused:
            raise bulk_csv.BadCsv(job.refused)
        obj = self.obj(job)
        if len({n.lower() for n in job.header}) < len(job.header):
            raise bulk_csv.BadCsv("InvalidBatch : Duplicate field names in the header")
        job.columns = [self.column(obj, name) for name in job.header]
        if job.operation in ("delete", "hardDelete") and [c.name.lower() for c in job.columns] != ["id"]:
            raise bulk_csv.BadCsv("InvalidBatch : The CSV of a delete has the single column Id")

    def obj(self, job):
        found = self.sim.schema.get(job.object)
        if found is None:
            raise bulk_csv.BadCsv(f"InvalidBatch : The entity type {job.object} is not supported by the Bulk API")
        return found

    def column(self, obj, name):
        if "." not in name:
            field = obj.field(name)
            if field is None:
                raise bulk_csv.BadCsv(f"InvalidBatch : Field name not found : {name}")
            return Column(name, field)
        path, _, key = name.partition(".")
        kind, colon, relation = path.rpartition(":")
        link = obj.relation(relation)
        if link is None:
            raise bulk_csv.BadCsv(f"InvalidBatch : Unable to find relationship: {relation}")
        # By the number of types that the relation has in this org (reference 8).
        if colon and len(link.refers) < 2:
            raise bulk_csv.BadCsv(f"InvalidBatch : type is not needed for non polymorphic foreign key references: {relation}")
        if not colon and len(link.refers) > 1:
            raise bulk_csv.BadCsv(f"InvalidBatch : type is needed for polymorphic foreign key references: {relation}")
        target = self.sim.schema.get(kind or link.refers[0])
        if target is None or target.name not in link.refers:
            raise bulk_csv.BadCsv(f"InvalidBatch : Unable to find object: {kind}")
        field = target.field(key)
        if field is None or not field.id_lookup:
            raise bulk_csv.BadCsv(f"InvalidBatch : Field name not found : {name}")
        return Column(name, relation=link.relationship, target=kind or None, key=field.name)

    # ---- records ----

    def chunk(self, job):
        rows = job.rows[job.done:job.done + CHUNK]
        obj, items = self.obj(job), [Item() for _ in rows]
        call = self.calls[job]
        actor = Actor(job.user_id, self.sim.now(), written=[])
        self.sim.store.begin()
        try:
            getattr(self, "do_" + job.operation)(job, obj, items, rows, actor)
        except BaseException:
            self.sim.store.rollback()
            raise
        self.sim.store.commit()
        self.sim.calls.wrote_by_job(call, actor.written)
        for item, row in zip(items, rows):
            self.result(job, item, row)
        job.done += len(rows)

    def record(self, job, row):
        record = {}
        for column, text in zip(job.columns, row):
            if text != "":      # an empty cell leaves the field
                column.put(record, text)
        return record

    def attempt(self, item, work):
        try:
            work()
        except ParseError as error:
            item.error = self.unparsable(item.obj, error)
        except RecordError as error:
            item.error = error

    def unparsable(self, obj, error):
        field = obj.field(error.field)
        kind = XSD.get(field.type, "xsd:string") if field is not None else "xsd:string"
        return RecordError("INVALID_TYPE_ON_FIELD_IN_RECORD", f"Failed to deserialize field: not a valid value for the "
                           f"type {kind}", [error.field])

    def do_insert(self, job, obj, items, rows, actor):
        for item, row in zip(items, rows):
            item.obj, item.created = obj, True
            self.attempt(item, lambda i=item, r=row: self.prepare(i, self.record(job, r), True, actor))
        for item in items:
            if item.error is None:
                self.attempt(item, lambda i=item: setattr(i, "id", self.sim.dml.insert(obj, i.new, actor)))

    def prepare(self, item, record, inserting, actor):
        item.new = self.sim.dml.prepare(item.obj, record, inserting, actor)

    def do_update(self, job, obj, items, rows, actor):
        for item, row in zip(items, rows):
            item.obj, item.created = obj, False
            self.attempt(item, lambda i=item, r=row: self.prepare_update(i, self.record(job, r), actor))
        self.save(obj, items, actor)

    def prepare_update(self, item, record, actor):
        given = record.pop("Id", None)
        if given is None:
            raise RecordError("MISSING_ARGUMENT", "Id not specified in an update call", [])
        item.id = item.shown_id = record_id(item.obj, given)
        self.sim.api.collections.alive(item.obj, item.id)
        self.prepare(item, record, False, actor)

    def do_upsert(self, job, obj, items, rows, actor):
        """One key twice in a chunk fails both; in different chunks both apply."""
        key, collections = obj.field(job.key), self.sim.api.collections
        if key is None:
            raise bulk_csv.BadCsv(f"InvalidBatch : Field name not found : {job.key}")
        records, keys = [self.record(job, r) for r in rows], [None] * len(rows)

        def clean(i):
            keys[i] = collections.clean_key(obj, key, records[i].get(key.name))
        for i, item in enumerate(items):
            item.obj = obj
            self.attempt(item, lambda i=i: clean(i))
        collections.refuse_repeated(items, keys, key)
        for item, record, value in zip(items, records, keys):
            if item.error is None:
                self.attempt(item, lambda i=item, r=record, v=value: collections.prepare_upsert(None, i, r, obj, key, v, actor))
                item.shown_id = item.id
        self.save(obj, items, actor)

    def save(self, obj, items, actor):
        for item in items:
            if item.error is None and item.created:
                self.attempt(item, lambda i=item: setattr(i, "id", self.sim.dml.insert(obj, i.new, actor)))
            elif item.error is None:
                self.attempt(item, lambda i=item: self.sim.dml.update(obj, i.id, i.new, actor))

    def do_delete(self, job, obj, items, rows, actor, purge=False):
        for item, row in zip(items, rows):
            item.obj, item.created = obj, False
            self.attempt(item, lambda i=item, r=row: self.delete_one(obj, i, r[0], actor, purge))

    def do_hardDelete(self, job, obj, items, rows, actor):  # pylint: disable=invalid-name
        self.do_delete(job, obj, items, rows, actor, True)

    def delete_one(self, obj, item, text, actor, purge):
        if text in ("", bulk_csv.NULL):
            raise RecordError("MISSING_ARGUMENT", "Id not specified in a delete call", [])
        item.id = item.shown_id = record_id(obj, text)
        before = len(actor.written)
        self.sim.store.begin()    # a cascade may be refused half-way
        try:
            self.sim.dml.delete(obj, item.id, actor)
        except RecordError:
            self.sim.store.rollback()
            raise
        self.sim.store.commit()
        if purge:                 # past the recycle bin, with its children
            for gone in actor.written[before:]:
                table = self.sim.schema.by_prefix[gone[:3]]
                self.sim.store.execute(f"DELETE FROM {quoted(table.name)} WHERE Id = ? AND IsDeleted = 1", (gone,))

    # ---- results ----

    def result(self, job, item, row):
        shown = [self.reprinted(c, text) for c, text in zip(job.columns, row)]
        if item.error is None:
            job.successes.append([item.id, "true" if item.created else "false", *shown])
        else:
            code, message, fields = item.error.errors[0]
            text = f"{code}:{message}:{','.join(fields)} --" if fields else f"{code}:{message}:--"
            job.failures.append([item.shown_id or "", text, *shown])

    def reprinted(self, column, text):
        """Numbers come back as Java prints them."""
        field = column.field
        if field is None or text in ("", bulk_csv.NULL) or XSD.get(field.type) != "xsd:double":
            return text
        try:
            return jsonout.java_double(float(text))
        except (ValueError, OverflowError):
            return text
