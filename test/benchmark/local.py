"""What capture costs the user's transactions; delivery is paused."""
import os
import statistics
import subprocess

from .lab import COLUMNS, fail, fill

TRIGGER = ("CREATE TABLE log (at timestamptz, operation text, row jsonb); CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS "
           "$$ BEGIN INSERT INTO log VALUES (clock_timestamp(), TG_OP, to_jsonb(NEW)); RETURN NULL; END $$")

SHORT = 2       # seconds of a run of pgbench


def one_insert(server, kind, rows):
    server.sql(f"CREATE TABLE t ({COLUMNS})")
    if kind == "sfsync":
        server.map_table("t", "source_wins", paused=True)
    if kind == "plpgsql":
        server.sql("CREATE TRIGGER log AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION log()")
    server.sql("CHECKPOINT")
    seconds = server.seconds(fill("t", rows))
    if kind == "sfsync" and int(server.sql("SELECT count(*) FROM sfsync.queued")) != rows:
        fail("not all rows were captured")
    server.drop_table("t", mapped=kind == "sfsync")
    server.sql("TRUNCATE log")
    return seconds


def capture(server, _simulator, figures, options):
    """INSERT of many rows in one statement, beside no trigger and a plpgsql trigger"""
    server.sql(TRIGGER)
    taken = {"plain": [], "sfsync": [], "plpgsql": []}
    for _ in range(options.rounds):
        for kind, seconds in taken.items():
            seconds.append(one_insert(server, kind, options.rows))
    server.sql("DROP TABLE log CASCADE; DROP FUNCTION log()")
    plain, ours, theirs = (statistics.median(taken[k]) for k in taken)
    figures.add("capture", f"INSERT of {options.rows} rows, without", plain, "s")
    figures.add("capture", "with sfsync", ours, "s")
    figures.add("capture", "with a plpgsql trigger, to_jsonb(NEW)", theirs, "s")
    figures.add("capture", "with sfsync / without", ours / plain, most=2.0)
    figures.add("capture", "with sfsync / with the plpgsql trigger", ours / theirs, most=0.35)


def updates_per_second(server, table, clients, seconds):
    script = os.path.join(server.directory, "script")
    with open(script, "w", encoding="ascii") as file:
        file.write(f"\\set id random(1, 100000)\nUPDATE {table} SET phone = 'p' || random() WHERE id = :id;\n")
    out = subprocess.check_output([os.path.join(server.bin, "pgbench"), "-n", "-M", "prepared", "-f", script, "-c", str(clients),
                                   "-j", str(min(clients, os.cpu_count() or 1)), "-T", str(seconds), "-h", server.directory,
                                   "-p", "6000", "-U", "postgres", "postgres"], text=True, stderr=subprocess.DEVNULL)
    return float(out.split("tps = ")[1].split()[0])


def paired(server, clients, options):
    """Rates of both tables: short runs in pairs, whose order alternates, so that a slow moment of the machine meets both.

    A pair that isn't counted goes ahead: the first changes of a page after a checkpoint write it to the log as a whole."""
    pairs = max(options.rounds * options.seconds // SHORT, 4)
    rates = {"plain": [], "mapped": []}
    server.sql("CHECKPOINT")
    for i in range(pairs):
        for table in sorted(rates, reverse=i % 2 == 0):
            rates[table].append(updates_per_second(server, table, clients, SHORT))
    return rates["plain"][1:], rates["mapped"][1:]


def pgbench(server, _simulator, figures, options):
    """single-row UPDATEs per second, synchronous_commit on"""
    server.sql(f"CREATE TABLE plain ({COLUMNS}); {fill('plain', 100000)}; CREATE TABLE mapped ({COLUMNS}); {fill('mapped', 100000)}")
    server.map_table("mapped", "source_wins", paused=True)
    server.sql("VACUUM ANALYZE plain, mapped")
    for clients in (1, 32):
        plain, mapped = paired(server, clients, options)
        ratios = [m / p for m, p in zip(mapped, plain)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        figures.add("pgbench", f"UPDATEs with {clients} clients, without", statistics.median(plain), "/s")
        figures.add("pgbench", f"{clients} clients, with capture", statistics.median(mapped), "/s")
        figures.add("pgbench", f"{clients} clients, with / without", middle, least=0.93)
        figures.add("pgbench", f"{clients} clients, half of the pairs lie within", high - low)
    server.drop_table("mapped")
    server.drop_table("plain", mapped=False)
