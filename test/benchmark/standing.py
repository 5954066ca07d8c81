"""A large backlog, transactions that stay open, and doing nothing."""
import threading
import time
from statistics import median

from .delivery import drained
from .lab import COLUMNS, Session, anonymous_memory, cpu_seconds, fail, fill

PIECES = 20     # transactions that make a backlog


class Memory(threading.Thread):
    """Watches the worker's memory."""

    def __init__(self, pid):
        super().__init__()
        self.pid, self.samples, self.ending = pid, [], threading.Event()
        self.start()

    def run(self):
        while not self.ending.wait(0.1):
            self.samples.append((time.time(), anonymous_memory(self.pid)))

    def stop(self):
        self.ending.set()
        self.join()

    def most(self, start, end):
        return max((mb for at, mb in self.samples if start <= at <= end), default=0.0)


def in_pieces(server, statement, rows):
    for piece in range(PIECES):
        server.sql(statement.format(first=piece * rows // PIECES + 1, last=(piece + 1) * rows // PIECES))


def moments(simulator, rows):
    """When the first write came, and when a tenth, nine tenths and all of the rows were written."""
    writes = sorted((r for r in simulator.requests() if r["kind"] != "collections_retrieve" and r["records"]),
                    key=lambda r: r["done_at"])
    done, marks = 0, []
    for request in writes:
        done += request["records"]
        for share in (0.1, 0.9, 1.0):
            if done >= rows * share > done - request["records"]:
                marks.append((request["done_at"], done))
    if len(marks) != 3:
        fail(f"only {done} of {rows} rows were seen to be written")
    return min(r["at"] for r in writes), marks


def backlog(server, simulator, figures, options):
    """a large backlog of new rows under newest_wins: worker memory, last tenth against first tenth"""
    rows = options.backlog
    simulator.reset()
    server.sql(f"CREATE TABLE t ({COLUMNS})")
    server.map_table("t", "newest_wins", paused=True)
    in_pieces(server, "INSERT INTO t SELECT i, 'Account ' || i, '+43 1 ' || i, 'Site ' || i % 100, i * 1.0, i % 5000, 'gold' "
              "FROM generate_series({first}, {last}) i", rows)
    worker = server.worker()
    before = anonymous_memory(worker)
    memory = Memory(worker)
    seconds = drained(server, simulator)
    memory.stop()
    if server.worker() != worker:
        fail("the worker was restarted")
    begin, [(tenth, n1), (nine, n9), (end, n10)] = moments(simulator, rows)
    first, last = n1 / (tenth - begin), (n10 - n9) / (end - nine)
    figures.add("backlog", f"{rows} new rows, newest_wins", rows / seconds, "rows/s")
    figures.add("backlog", "rate of the last tenth / of the first tenth", last / first, least=0.8)
    figures.add("backlog", "worker memory before", before, "MB")
    figures.add("backlog", f"worker memory with {rows} pending, most", memory.most(0, end), "MB", most=150)
    figures.add("backlog", "most in the second half / in the first half", memory.most((begin + end) / 2, end) / memory.most(0, (begin + end) / 2))
    server.drop_table("t")


def changed(server, simulator, rows, mark):
    server.sql("SELECT sfsync.pause('t')")
    in_pieces(server, f"UPDATE t SET phone = '{mark}' || id WHERE id BETWEEN {{first}} AND {{last}}", rows)
    return rows / drained(server, simulator)


def transactions(server, simulator, figures, options):
    """drain under source_wins while a transaction is open elsewhere, from before the changes on"""
    rows = options.backlog // 2
    simulator.reset()
    server.sql(f"CREATE TABLE t ({COLUMNS}); {fill('t', rows)}")
    server.map_table("t", "source_wins")
    server.sql("SELECT sfsync.backfill('t')")
    server.wait()
    session = Session(server)
    opened = {"without": ([], []),
              "a snapshot": (["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM pg_class"], ["ROLLBACK"]),
              "an xid": (["BEGIN", "SELECT pg_current_xact_id()"], ["ROLLBACK"]),
              "a prepared transaction": (["BEGIN", "CREATE TABLE other ()", "PREPARE TRANSACTION 'other'"], ["ROLLBACK PREPARED 'other'"])}
    rates = {kind: [] for kind in opened}
    for turn in range(options.rounds):
        for kind, (start, end) in opened.items():
            server.sql("VACUUM sfsync.queue, t")
            for statement in start:
                session.send(statement)
            rates[kind].append(changed(server, simulator, rows, f"{turn}{kind[:3]}"))
            for statement in end:
                session.send(statement)
    session.close()
    figures.add("transactions", f"{rows} changed rows, source_wins, none open elsewhere", median(rates["without"]), "rows/s")
    for kind in list(opened)[1:]:
        figures.add("transactions", f"with {kind} open elsewhere / without", median(rates[kind]) / median(rates["without"]), least=0.8)
    server.drop_table("t")


def idle(server, simulator, figures, options):
    """nothing to do: calls, and the processor time of worker and launcher"""
    simulator.reset()
    server.sql(f"CREATE TABLE t ({COLUMNS}); {fill('t', 10)}")
    server.map_table("t", "newest_wins")
    server.sql("SELECT sfsync.backfill('t')")
    server.wait()
    time.sleep(1)
    simulator.control("DELETE", "log")
    pids = server.sql("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'sfsync %'").split()
    before, start = sum(map(cpu_seconds, pids)), time.time()
    time.sleep(options.idle)
    used, seconds = sum(map(cpu_seconds, pids)) - before, time.time() - start
    figures.add("idle", f"API calls in {options.idle} s", len(simulator.control("GET", "log")["requests"]), most=0)
    figures.add("idle", "processor time of worker and launcher", used / seconds * 100, "%", most=0.1)
    server.drop_table("t")
