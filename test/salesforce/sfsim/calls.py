"""The log of requests and its counters, and who wrote what while another request was under way."""
import time
from collections import Counter


class Call:
    """One request as the log shows it."""

    def __init__(self, method, path, query, size):
        self.seq = 0
        self.started, self.done = time.time(), None
        self.begun = time.monotonic()
        self.method, self.path, self.query, self.bytes = method, path, query, size
        self.kind, self.status, self.records, self.external_ids = "other", None, 0, []
        self.user = self.fault = self.body = self.encoding = None
        self.written = []      # ids of the records that it wrote
        self.owner = None      # the Calls that it was counted in; another one after a reset
        self.counted = False
        self.chunks = []       # of a bulk job: ids of the records that it wrote so far

    def shown(self, bodies):
        out = {"seq": self.seq, "at": self.started, "done_at": self.done, "method": self.method, "path": self.path,
               "query": self.query, "kind": self.kind, "status": self.status, "records": self.records,
               "external_ids": self.external_ids, "bytes": self.bytes, "encoding": self.encoding, "user": self.user, "fault": self.fault}
        if bodies:
            out["body"] = self.body
        return out


class Calls:
    def __init__(self):
        self.log, self.seq = [], 0
        self.clear()
        self.active = {}       # seq -> Call
        self.jobs = {}         # seq -> Call that stands for a bulk job from its close to its end
        self.writers = {}      # record id -> {seq} of requests under way that wrote it
        self.ended = {}        # record id -> when the last finished request that wrote it began to be over

    def clear(self):
        self.log = []
        self.by_kind, self.records_by_kind = Counter(), Counter()
        self.api_calls = self.max_in_flight = self.overlaps = 0

    def start(self, call, keep):
        self.seq += 1
        call.seq, call.owner = self.seq, self
        self.active[call.seq] = call
        self.max_in_flight = max(self.max_in_flight, len(self.active))
        if keep:
            self.log.append(call)

    def wrote(self, call):
        """Called when the work is done: does another request that overlaps in time touch the same records?"""
        hit = False
        for record_id in call.written:
            others = self.writers.setdefault(record_id, set())
            if any(seq != call.seq for seq in others) or self.ended.get(record_id, -1) > call.begun:
                hit = True
                self.overlaps += 1
            others.add(call.seq)
        return hit

    # ---- a bulk job is a writer too, from its close to its end ----

    def start_job(self, call):
        self.seq += 1
        call.seq, call.owner = self.seq, self
        self.jobs[call.seq] = call
        return call

    def wrote_by_job(self, call, written):
        call.written = written
        self.wrote(call)
        call.chunks.extend(written)

    def end_job(self, call):
        self.jobs.pop(call.seq, None)
        call.written = call.chunks
        self.let_go(call)

    def finish(self, call, status):
        call.status, call.done = status, time.time()
        self.active.pop(call.seq, None)
        self.let_go(call)
        self.by_kind[call.kind] += 1
        self.records_by_kind[call.kind] += call.records

    def let_go(self, call):
        """What it wrote is free again; when, is kept while others are under way."""
        now = time.monotonic()
        for record_id in call.written:
            others = self.writers.get(record_id)
            if others is not None:
                others.discard(call.seq)
                if not others:
                    del self.writers[record_id]
            if self.active or self.jobs:
                self.ended[record_id] = now
        if not self.active and not self.jobs:
            self.ended.clear()
        elif len(self.ended) > 20000:
            oldest = min(c.begun for c in [*self.active.values(), *self.jobs.values()])
            self.ended = {k: t for k, t in self.ended.items() if t > oldest}

    def long_running(self, seconds):
        limit = time.monotonic() - seconds
        return sum(1 for c in self.active.values() if c.begun <= limit)

    def stats(self):
        return {"calls": self.api_calls, "by_kind": dict(self.by_kind), "records_by_kind": dict(self.records_by_kind),
                "in_flight": len(self.active), "max_in_flight": self.max_in_flight,
                "same_record_overlap": self.overlaps}
