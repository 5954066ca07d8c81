"""A throw-away server with the installed sfsync, the simulator of Salesforce, and the table that all parts use."""
import atexit
import http.client
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT_ID, CLIENT_SECRET = "3MVG9sfsync.test.consumer.key", "sfsync-test-secret"
CONCURRENCY = 4     # max_concurrent_requests, and the threads of a replay

COLUMNS = ("id integer PRIMARY KEY, name text NOT NULL, phone text, site text, annual_revenue numeric, "
           "number_of_employees integer, loyalty_tier text")


def fail(text):
    sys.exit(f"bench: {text}")


def fill(table, rows, first=1):
    return (f"INSERT INTO {table} SELECT i, 'Account ' || i, '+43 1 ' || i, 'Site ' || i % 100, i * 1.0, i % 5000, 'gold' "
            f"FROM generate_series({first}, {first + rows - 1}) i")


class Simulator:
    def __init__(self):
        self.process = subprocess.Popen([os.path.join(HERE, "..", "salesforce", "serve"), "--port", "0"],
                                        stdout=subprocess.PIPE, text=True)
        atexit.register(self.stop)
        for line in self.process.stdout:
            if line.startswith("listening on "):
                self.url = line.split()[-1]
                break
        else:
            fail("the simulator did not start")
        self.address = self.url.split("//")[1]
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.reset()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def control(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.address)
        connection.request(method, "/_control/" + path, None if body is None else json.dumps(body))
        reply = connection.getresponse()
        data = json.loads(reply.read())
        connection.close()
        if reply.status != 200:
            fail(f"{path}: {data}")
        return data

    def reset(self):
        """No data, an allowance that is not at stake here, and an empty log."""
        self.control("POST", "reset", {})
        self.control("POST", "config", {"api_limit": 10**9})

    def count(self):
        return self.control("GET", "count?object=Account")["count"]

    def requests(self, bodies=False):
        """The API calls since the log was cleared, logins left out."""
        log = self.control("GET", "log" + ("?bodies=1" if bodies else ""))["requests"]
        return [r for r in log if r["kind"] != "token"]

    def login(self):
        connection = http.client.HTTPConnection(self.address)
        connection.request("POST", "/services/oauth2/token", "grant_type=client_credentials"
                           f"&client_id={CLIENT_ID}&client_secret={CLIENT_SECRET}",
                           {"Content-Type": "application/x-www-form-urlencoded"})
        token = json.loads(connection.getresponse().read())["access_token"]
        connection.close()
        return {"Authorization": "Bearer " + token, "Content-Type": "application/json; charset=UTF-8", "Accept": "application/json"}


class Server:
    """Run by postgres where we are root, which initdb refuses."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="sfsync-bench-")
        atexit.register(self.stop)
        self.bin = subprocess.check_output([os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], text=True).strip()
        self.prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self.prefix:
            shutil.chown(self.directory, "postgres")
        data = os.path.join(self.directory, "data")
        self.run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync")
        with open(os.path.join(data, "postgresql.conf"), "a", encoding="ascii") as conf:
            conf.write(f"shared_preload_libraries = 'sfsync'\nlisten_addresses = ''\nport = 6000\n"
                       f"unix_socket_directories = '{self.directory}'\nshared_buffers = '256MB'\nmax_wal_size = '4GB'\n"
                       "autovacuum_naptime = '10s'\nmax_prepared_transactions = 2\n")
        self.run("pg_ctl", "-D", data, "-l", os.path.join(self.directory, "log"), "-w", "start")
        self.data = data

    def run(self, program, *arguments):
        done = subprocess.run([*self.prefix, os.path.join(self.bin, program), *arguments], text=True, cwd="/",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode != 0:
            fail(f"{program}: {done.stdout}")
        return done.stdout

    def stop(self):
        if hasattr(self, "data"):
            self.run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")
        shutil.rmtree(self.directory, ignore_errors=True)

    def psql_command(self):
        return [os.path.join(self.bin, "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
                "-h", self.directory, "-p", "6000", "-U", "postgres", "-d", "postgres"]

    def sql(self, text):
        done = subprocess.run([*self.psql_command(), "-f", "-"], input=text, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        if done.returncode != 0:
            fail(f"{text}: {done.stderr}")
        return done.stdout.strip()

    def seconds(self, statement):
        """How long a statement takes, as its session sees it."""
        out = self.sql(f"SELECT clock_timestamp() AS start \\gset\n{statement};\n"
                       "SELECT extract(epoch FROM clock_timestamp() - :'start');")
        return float(out.splitlines()[-1])

    def setup(self, simulator):
        self.sql(f"CREATE EXTENSION sfsync; CREATE SERVER crm FOREIGN DATA WRAPPER sfsync OPTIONS (login_url '{simulator.url}', "
                 f"max_concurrent_requests '{CONCURRENCY}', bulk_threshold '0'); CREATE USER MAPPING FOR PUBLIC SERVER crm OPTIONS "
                 f"(client_id '{CLIENT_ID}', client_secret '{CLIENT_SECRET}')")

    def map_table(self, table, policy, paused=False):
        pause = f"SELECT sfsync.pause('{table}');" if paused else ""
        self.sql(f"BEGIN; SELECT sfsync.create_mapping('{table}', 'Account', 'PG_Key__c', 'delete', "
                 f"conflict_policy => '{policy}', backfill => false); {pause} COMMIT")

    def drop_table(self, table, mapped=True):
        if mapped:
            self.sql(f"SELECT sfsync.drop_mapping('{table}', discard_pending => true)")
        self.sql(f"DROP TABLE {table}")

    def wait(self):
        if self.sql("SELECT sfsync.wait_for_sync('10 min')") != "t":
            fail("not everything was settled: " + self.sql("SELECT json_agg(s) FROM sfsync.status s"))
        bad = self.sql("SELECT json_agg(s) FROM sfsync.status s WHERE dead_letters > 0 OR conflicts > 0 OR held > 0")
        if bad:
            fail("something was refused: " + bad)

    def worker(self):
        return int(self.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'sfsync worker' AND datname = 'postgres'"))


class Session:
    """A psql that stays connected."""

    def __init__(self, server):
        self.process = subprocess.Popen(server.psql_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def send(self, statement):
        """The lines of the result."""
        self.process.stdin.write(statement + ";\n\\echo <done>\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.strip() == "<done>":
                return lines
            lines.append(line.rstrip("\n"))
        return fail(f"the session ended at: {statement}")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def anonymous_memory(pid):
    """MB of the process that are not shared with others."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


def cpu_seconds(pid):
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as stat:
        return int(stat.read().split()[0]) / 1e9


def machine(server):
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            cpu = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "linux": platform.release(), "postgresql": server.sql("SHOW server_version"),
            "sfsync": server.sql("SELECT extversion FROM pg_extension WHERE extname = 'sfsync'"),
            "python": platform.python_version(), "load": round(os.getloadavg()[0], 1),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
