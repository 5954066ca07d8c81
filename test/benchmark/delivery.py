"""How fast, with how many calls, and how soon changes arrive; beside them a replay and a polling script."""
import http.client
import json
import statistics
import threading
import time

from .lab import COLUMNS, CONCURRENCY, Session, fail, fill


class Replay:
    """A client that does nothing but send requests that were recorded, in their order."""

    def __init__(self, simulator):
        self.address = simulator.address
        self.requests = [(r["method"], r["path"] + ("?" + r["query"] if r["query"] else ""), (r["body"] or "").encode())
                         for r in simulator.requests(bodies=True) if "/composite" in r["path"]]

    def run(self, headers):
        """Seconds until all were answered."""
        todo = list(reversed(self.requests))
        lock, failures = threading.Lock(), []

        def send():
            connection = http.client.HTTPConnection(self.address)
            while not failures:
                with lock:
                    if not todo:
                        return
                    request = todo.pop()
                connection.request(*request, headers)
                reply = connection.getresponse()
                text = reply.read()
                json.loads(text)
                if reply.status != 200 or b'"success":false' in text or b'"errorCode"' in text:
                    failures.append(text[:300])

        threads = [threading.Thread(target=send) for _ in range(CONCURRENCY)]
        start = time.time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            fail(f"replay: {failures[0]}")
        return time.time() - start


def drained(server, simulator, bodies=False):
    """Seconds from resume until all is settled."""
    simulator.control("POST", "config", {"keep_bodies": bodies})
    simulator.control("DELETE", "log")
    start = time.time()
    server.sql("SELECT sfsync.resume('t')")
    server.wait()
    return time.time() - start


def new_rows(server, simulator, policy, rows, bodies=False):
    simulator.reset()
    server.sql(f"CREATE TABLE t ({COLUMNS})")
    server.map_table("t", policy, paused=True)
    server.sql(fill("t", rows))
    seconds = drained(server, simulator, bodies)
    if simulator.count() != rows:
        fail("not all new rows arrived")
    return seconds


def changed_rows(server, simulator, rows, mark, bodies=False):
    server.sql(f"SELECT sfsync.pause('t'); UPDATE t SET phone = '{mark}' || id")
    seconds = drained(server, simulator, bodies)
    written = sum(r["records"] for r in simulator.requests())
    if written < rows:
        fail(f"only {written} of {rows} changes were sent")
    return seconds


def drain_policy(server, simulator, figures, policy, options):
    """New rows and changed rows under newest_wins or source_wins; each round beside a replay of what was sent."""
    rows = options.drain_rows
    taken = {"new": [], "new replay": [], "changed": [], "changed replay": []}
    calls = {}

    new_rows(server, simulator, policy, rows, bodies=True)
    replay_new = Replay(simulator)
    calls["new"] = len(simulator.requests())
    server.drop_table("t")
    for turn in range(options.rounds):
        if turn > 0:
            server.drop_table("t")
        simulator.reset()
        taken["new replay"].append(replay_new.run(simulator.login()))
        if simulator.count() != rows:
            fail("the replay did not arrive")
        taken["new"].append(new_rows(server, simulator, policy, rows))
    changed_rows(server, simulator, rows, "a", bodies=True)
    replay_changed = Replay(simulator)
    calls["changed"] = len(simulator.requests())
    headers = simulator.login()
    for turn in range(options.rounds):
        taken["changed"].append(changed_rows(server, simulator, rows, f"b{turn}"))
        taken["changed replay"].append(replay_changed.run(headers))
        # it wrote as somebody else would: a change in the same second would lose to it
        time.sleep(2)
    server.drop_table("t")

    most = {"newest_wins": 2.2, "source_wins": 1.1}[policy]
    for kind in ("new", "changed"):
        ours, theirs = (rows / statistics.median(taken[k]) for k in (kind, kind + " replay"))
        figures.add("drain", f"{policy}, {rows} {kind} rows", ours, "rows/s")
        figures.add("drain", f"{policy}, {kind} rows: the same requests replayed", theirs, "rows/s")
        figures.add("drain", f"{policy}, {kind} rows: sfsync / replay", ours / theirs, least=0.5 if policy == "newest_wins" else None)
        figures.add("drain", f"{policy}, calls per 1,000 {kind} rows", calls[kind] * 1000 / rows, most=most)


def drain_strict(server, simulator, figures, options):
    """A write that is conditional can't be replayed, and the calls are what counts: one round."""
    rows = options.drain_rows // 5
    new_rows(server, simulator, "strict", rows)
    figures.add("drain", "strict, calls per 1,000 new rows", len(simulator.requests()) * 1000 / rows)
    seconds = changed_rows(server, simulator, rows, "a")
    figures.add("drain", f"strict, {rows} changed rows", rows / seconds, "rows/s")
    figures.add("drain", "strict, calls per 1,000 changed rows", len(simulator.requests()) * 1000 / rows, most=41)
    server.drop_table("t")


def drain_bulk(server, simulator, figures, options):
    """All else here goes by REST, which is what a replay can repeat."""
    server.sql("ALTER SERVER crm OPTIONS (SET bulk_threshold '1000')")
    seconds = new_rows(server, simulator, "newest_wins", options.drain_rows)
    figures.add("drain", f"by Bulk API, newest_wins, {options.drain_rows} new rows", options.drain_rows / seconds, "rows/s")
    figures.add("drain", "by Bulk API, calls per 1,000 new rows", len(simulator.requests()) * 1000 / options.drain_rows)
    server.drop_table("t")
    server.sql("ALTER SERVER crm OPTIONS (SET bulk_threshold '0')")


def drain(server, simulator, figures, options):
    """a backlog is sent, beside a client that replays the same requests; calls per 1,000 rows"""
    drain_policy(server, simulator, figures, "newest_wins", options)
    drain_policy(server, simulator, figures, "source_wins", options)
    drain_strict(server, simulator, figures, options)
    drain_bulk(server, simulator, figures, options)


def arrival(simulator, start, wanted=1, patience=30):
    """The first write since the log was cleared."""
    while time.time() < start + patience:
        time.sleep(0.005)
        requests = [r for r in simulator.requests() if r["records"] >= wanted and r["done_at"]]
        if requests:
            return requests[0]
    return fail("a change did not arrive")


def latency(server, simulator, figures, options):
    """from sending COMMIT to the arrival of the request, idle system, source_wins"""
    simulator.reset()
    server.sql(f"CREATE TABLE t ({COLUMNS})")
    server.map_table("t", "source_wins")
    server.sql(fill("t", 10))
    server.wait()
    session = Session(server)
    session.send("SET synchronous_commit = on")
    taken, settled = [], []
    for i in range(options.commits):
        simulator.control("DELETE", "log")
        session.send(f"BEGIN; UPDATE t SET phone = 'p{i}' WHERE id = {i % 10 + 1}")
        time.sleep(0.02)
        start = time.time()
        session.send("COMMIT")
        request = arrival(simulator, start)
        taken.append((request["at"] - start) * 1000)
        settled.append((request["done_at"] - start) * 1000)
    session.close()
    server.drop_table("t")
    taken.sort()
    figures.add("latency", f"commit to arrival, p50 of {options.commits}", taken[len(taken) // 2], "ms", most=10)
    figures.add("latency", "p99", taken[int(len(taken) * 0.99)], "ms", most=50)
    figures.add("latency", "worst", taken[-1], "ms")
    figures.add("latency", "p50 until Salesforce has answered", statistics.median(settled), "ms")


class Poller:
    """
    What people write today: every so often, the rows with updated_at later than
    the last one seen, upserted 200 at a time, one request after the other.  It
    looks at nothing in Salesforce, and misses deletes and late commits.
    """
    INTERVAL = 1.0
    SELECT = ("SELECT updated_at, json_build_object('attributes', json_build_object('type', 'Account'), 'PG_Key__c', id::text, 'Name', name, "
              "'Phone', phone, 'Site', site, 'AnnualRevenue', annual_revenue, 'NumberOfEmployees', number_of_employees, "
              "'Loyalty_Tier__c', loyalty_tier) FROM polled WHERE updated_at > '{}' ORDER BY updated_at")

    def __init__(self, server, simulator):
        self.session, self.headers = Session(server), simulator.login()
        self.connection = http.client.HTTPConnection(simulator.address)
        self.last, self.ending = "-infinity", threading.Event()

    def once(self):
        lines = [line.split("|", 1) for line in self.session.send(self.SELECT.format(self.last))]
        for i in range(0, len(lines), 200):
            body = {"allOrNone": False, "records": [json.loads(line[1]) for line in lines[i:i + 200]]}
            self.connection.request("PATCH", "/services/data/v66.0/composite/sobjects/Account/PG_Key__c", json.dumps(body), self.headers)
            reply = self.connection.getresponse()
            if not all(r["success"] for r in json.loads(reply.read())):
                fail("the polling script was refused")
            self.last = lines[min(i + 200, len(lines)) - 1][0]
        return len(lines)

    def run(self):
        while not self.ending.wait(self.INTERVAL):
            self.once()


def polling(server, simulator, figures, options):
    """the peer: a script that polls updated_at and upserts 200 records at a time"""
    rows = options.drain_rows
    simulator.reset()
    server.sql(f"CREATE TABLE polled ({COLUMNS}, updated_at timestamptz NOT NULL DEFAULT now()); CREATE INDEX ON polled (updated_at); "
               f"{fill('polled', rows)}; ANALYZE polled")
    poller = Poller(server, simulator)
    poller.once()
    server.sql("UPDATE polled SET phone = 'a' || id, updated_at = clock_timestamp()")
    simulator.control("DELETE", "log")
    start = time.time()
    if poller.once() != rows:
        fail("the polling script missed rows")
    figures.add("polling", f"script, {rows} changed rows", rows / (time.time() - start), "rows/s")
    figures.add("polling", "script, calls per 1,000 changed rows", len(simulator.requests()) * 1000 / rows)

    thread = threading.Thread(target=poller.run)
    thread.start()
    taken = []
    for i in range(max(options.commits // 15, 5)):
        simulator.control("DELETE", "log")
        time.sleep(0.137 * (i % 7))
        start = time.time()
        server.sql(f"UPDATE polled SET phone = 'p{i}', updated_at = clock_timestamp() WHERE id = {i + 1}")
        taken.append((arrival(simulator, start)["at"] - start) * 1000)
    poller.ending.set()
    thread.join()
    poller.session.close()
    figures.add("polling", f"script that polls every {Poller.INTERVAL:.0f} s, commit to arrival, p50", statistics.median(taken), "ms")
    server.drop_table("polled", mapped=False)
