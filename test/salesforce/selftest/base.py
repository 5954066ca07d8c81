"""What the tests of the simulator have in common: one server for all, put back to its start before each test."""
import atexit
import gzip
import http.client
import json
import os
import subprocess
import unittest
from urllib.parse import quote

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CLIENT = {"client_id": "3MVG9sfsync.test.consumer.key", "client_secret": "sfsync-test-secret"}
V = "/services/data/v66.0"
COLLECTION = V + "/composite/sobjects"


class Answer:
    def __init__(self, response):
        self.status, self.headers, self.raw = response.status, response.headers, response.read()
        data = self.raw
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        self.text = data.decode()

    @property
    def json(self):
        return json.loads(self.text)

    @property
    def code(self):
        return self.json[0]["errorCode"]


def start():
    server = subprocess.Popen([os.path.join(HERE, "serve"), "--port", "0"], stdout=subprocess.PIPE, text=True)
    atexit.register(stop, server)
    return int(server.stdout.readline().strip().rsplit(":", 1)[1])


def stop(server):
    server.terminate()
    server.wait(10)
    server.stdout.close()


PORT = start()


class Base(unittest.TestCase):
    def setUp(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
        self.token = None
        self.control("POST", "reset")
        self.token = self.login().json["access_token"]

    def tearDown(self):
        self.connection.close()

    # ---- calls ----

    def raw(self, method, path, body=None, headers=None, connection=None):
        connection = connection or self.connection
        connection.request(method, path, body, headers or {})
        return Answer(connection.getresponse())

    def control(self, method, name, body=None):
        answer = self.raw(method, "/_control/" + name, json.dumps(body or {}))
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json

    def config(self, **changes):
        return self.control("POST", "config", changes)

    def login(self, **form):
        form = {"grant_type": "client_credentials", **CLIENT, **form}
        text = "&".join(f"{k}={quote(v, safe='')}" for k, v in form.items() if v is not None)
        return self.raw("POST", "/services/oauth2/token", text, {"Content-Type": "application/x-www-form-urlencoded"})

    def call(self, method, path, body=None, connection=None, **headers):
        if not path.startswith("/"):
            path = f"{V}/{path}"
        all_headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        all_headers.update({k.replace("_", "-"): v for k, v in headers.items()})
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        return self.raw(method, path, body, all_headers, connection)

    def create(self, obj, **fields):
        answer = self.call("POST", f"sobjects/{obj}", fields)
        self.assertEqual(answer.status, 201, answer.text)
        return answer.json["id"]

    def get(self, obj, record_id, *fields):
        return self.call("GET", f"sobjects/{obj}/{record_id}" + (f"?fields={','.join(fields)}" if fields else "")).json

    def query(self, text, **headers):
        return self.call("GET", "query?q=" + quote(text), **headers)

    def rows(self, text, *names):
        answer = self.query(text)
        self.assertEqual(answer.status, 200, answer.text)
        records = answer.json["records"]
        return [r[names[0]] for r in records] if len(names) == 1 else records

    def records(self, obj, *records):
        return {"records": [{"attributes": {"type": obj}, **r} for r in records]}

    def upsert(self, obj, key, *records, **more):
        answer = self.call("PATCH", f"{COLLECTION}/{obj}/{key}", {**self.records(obj, *records), **more})
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json

    def error(self, result):
        self.assertFalse(result["success"], result)
        return result["errors"][0]["statusCode"]
