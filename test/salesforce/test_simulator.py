#!/usr/bin/python3
"""Tests of the simulator itself: one server, put back to its start before each test."""
import base64
import gzip
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from urllib.parse import quote

HERE = os.path.dirname(os.path.abspath(__file__))
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


def setUpModule():
    global SERVER, PORT
    SERVER = subprocess.Popen([os.path.join(HERE, "serve"), "--port", "0"], stdout=subprocess.PIPE, text=True)
    PORT = int(SERVER.stdout.readline().strip().rsplit(":", 1)[1])


def tearDownModule():
    SERVER.terminate()
    SERVER.wait(10)
    SERVER.stdout.close()


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


class TestOAuth(Base):
    def bad(self, error, description, **form):
        answer = self.login(**form)
        self.assertEqual((answer.status, answer.json), (400, {"error": error, "error_description": description}))

    def test_client_credentials(self):
        body = self.login().json
        self.assertEqual(body["instance_url"], f"http://127.0.0.1:{PORT}")
        self.assertIsInstance(body["issued_at"], str)
        self.assertNotIn("expires_in", body)
        self.assertRegex(body["id"], r"/id/00D\w{15}/005\w{15}$")

    def test_errors(self):
        self.bad("invalid_client_id", "client identifier invalid", client_id="x")
        self.bad("invalid_client", "invalid client credentials", client_secret="x")
        self.bad("unsupported_grant_type", "grant type not supported", grant_type="x")
        self.bad("invalid_request", "missing required parameter: client_id", client_id=None)
        self.config(no_client_credentials_user=True)
        self.bad("invalid_grant", "no client credentials user enabled")
        self.config(no_client_credentials_user=False, login_host_is_generic=True)
        self.bad("invalid_grant", "request not supported on this domain")

    def test_basic_form(self):
        coded = base64.b64encode(":".join(CLIENT.values()).encode()).decode()
        answer = self.raw("POST", "/services/oauth2/token", "grant_type=client_credentials", {"Authorization": "Basic " + coded})
        self.assertEqual(answer.status, 200)

    def test_password_and_refresh(self):
        user = {"grant_type": "password", "username": "integration@sfsync.example"}
        self.assertEqual(self.login(**user, password="passwordtoken").status, 200)
        self.bad("invalid_grant", "authentication failure", **user, password="password")
        self.assertEqual(self.login(grant_type="refresh_token", refresh_token="5Aep861.test.refresh").status, 200)
        self.bad("invalid_grant", "expired access/refresh token", grant_type="refresh_token", refresh_token="x")

    def jwt(self, key, **claims):
        def part(data):
            return base64.urlsafe_b64encode(data).decode().rstrip("=")
        claims = {"iss": CLIENT["client_id"], "sub": "integration@sfsync.example", "aud": "https://login.salesforce.com",
                  "exp": int(time.time()) + 120, **claims}
        text = part(b'{"alg":"RS256"}') + "." + part(json.dumps(claims).encode())
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=text.encode(), capture_output=True,
                                   check=True).stdout
        return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "client_id": None, "client_secret": None,
                "assertion": f"{text}.{part(signature)}"}

    def test_jwt(self):
        with tempfile.TemporaryDirectory() as folder:
            key, cert = folder + "/key", folder + "/cert"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-subj",
                            "/CN=test", "-days", "2"], capture_output=True, check=True)
            self.bad("invalid_grant", "invalid assertion", **self.jwt(key))
            with open(cert, encoding="ascii") as file:
                self.control("POST", "app", {"client_id": CLIENT["client_id"], "certificate": file.read()})
            self.assertEqual(self.login(**self.jwt(key)).status, 200)
            self.bad("invalid_grant", "audience is invalid", **self.jwt(key, aud="https://example.com"))
            self.bad("invalid_grant", "invalid assertion", **self.jwt(key, exp=int(time.time()) - 10))
            self.bad("invalid_grant", "invalid assertion", **self.jwt(key, exp=int(time.time()) + 3600))
            self.bad("invalid_grant", "user hasn't approved this consumer", **self.jwt(key, sub="rep@sfsync.example"))
            self.bad("invalid_client_id", "client identifier invalid", **self.jwt(key, iss="nobody"))

    def test_openssl_verifies_too(self):
        sys.path.insert(0, HERE)
        from sfsim.oauth import verified_by_openssl
        with tempfile.TemporaryDirectory() as folder:
            key = folder + "/key"
            subprocess.run(["openssl", "genrsa", "-out", key, "2048"], capture_output=True, check=True)
            public = subprocess.run(["openssl", "rsa", "-in", key, "-pubout"], capture_output=True, check=True).stdout.decode()
            signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=b"x", capture_output=True,
                                       check=True).stdout
            self.assertTrue(verified_by_openssl(public, b"x", signature))
            self.assertFalse(verified_by_openssl(public, b"y", signature))

    def test_sessions_end(self):
        self.assertEqual(self.call("GET", "limits").status, 200)
        self.control("POST", "expire_tokens")
        answer = self.call("GET", "limits")
        self.assertEqual((answer.status, answer.json), (401, [{"message": "Session expired or invalid",
                                                               "errorCode": "INVALID_SESSION_ID"}]))
        self.token = self.login().json["access_token"]
        self.config(clock_offset=7300)
        self.assertEqual(self.call("GET", "limits").status, 401)
        self.token = self.login().json["access_token"]
        self.assertEqual(self.call("GET", "limits", Authorization=f"OAuth {self.token}").status, 200)
        self.assertEqual(self.call("GET", "limits", Authorization="Nonsense x").code, "INVALID_AUTH_HEADER")

    def test_revoke(self):
        self.assertEqual(self.raw("POST", "/services/oauth2/revoke", f"token={quote(self.token)}").status, 200)
        self.assertEqual(self.call("GET", "limits").status, 401)
        self.assertEqual(self.raw("POST", "/services/oauth2/revoke", "token=x").status, 400)

    def test_who_am_i(self):
        url = self.login().json["id"]
        info = self.call("GET", "/services/oauth2/userinfo").json
        self.assertEqual(info["sub"], url)
        identity = self.call("GET", url[url.index("/id/"):]).json
        self.assertEqual((identity["user_id"], identity["username"]), (info["user_id"], "integration@sfsync.example"))


class TestLimits(Base):
    def test_versions(self):
        answer = self.raw("GET", "/services/data/")
        self.assertEqual((answer.json[0]["version"], answer.json[-2]["version"]), ("31.0", "68.0"))
        self.assertEqual(answer.json[0]["label"], "Summer '14")
        self.assertEqual(answer.json[30]["label"], "Summer '24")
        self.assertEqual(answer.json[-2]["label"], "Winter '27")
        self.assertEqual(answer.json[-1]["url"], "/services/data/latest")
        self.assertNotIn("Sforce-Limit-Info", answer.headers)
        self.assertEqual(self.control("GET", "stats")["calls"], 0)

    def test_unknown_versions(self):
        self.assertEqual(self.call("GET", "/services/data/v99.0/limits").status, 404)
        self.assertEqual(self.call("GET", "/services/data/v25.0/limits").status, 410)
        self.assertIn("sobjects", self.call("GET", V + "/").json)

    def test_use_is_counted(self):
        self.assertEqual(self.call("GET", "limits").headers["Sforce-Limit-Info"], "api-usage=1/100000")
        self.config(per_app_usage=250)
        self.assertEqual(self.call("GET", "limits").headers["Sforce-Limit-Info"],
                         "api-usage=2/100000; per-app-api-usage=2/250(appName=sfsync)")
        self.assertEqual(self.call("GET", "limits").json["DailyApiRequests"], {"Max": 100000, "Remaining": 99997})
        self.config(clock_offset=86400 + 120)
        self.token = self.login().json["access_token"]
        self.assertEqual(self.call("GET", "limits").headers["Sforce-Limit-Info"][:12], "api-usage=1/")

    def test_daily_limit(self):
        self.config(api_limit=100, api_used=99)
        self.assertEqual(self.call("GET", "limits").status, 200)
        answer = self.call("GET", "limits")
        self.assertEqual((answer.status, answer.json), (403, [{"message": "TotalRequests Limit exceeded.",
                                                               "errorCode": "REQUEST_LIMIT_EXCEEDED"}]))
        self.assertEqual(answer.headers["Sforce-Limit-Info"], "api-usage=100/100; per-app-api-usage".split(";")[0])

    def test_concurrent_limit(self):
        self.config(concurrent_limit=0)
        self.assertIn("ConcurrentRequests", self.call("GET", "limits").json[0]["message"])

    def test_api_disabled(self):
        self.config(api_disabled=True)
        self.assertEqual((self.call("GET", "limits").status, self.call("GET", "limits").code), (403, "API_DISABLED_FOR_ORG"))

    def test_record_count(self):
        self.create("Account", Name="a")
        self.assertEqual(self.call("GET", "limits/recordCount?sObjects=Account,Contact").json,
                         {"sObjects": [{"count": 1, "name": "Account"}]})


class TestDescribe(Base):
    KEYS = set("""aggregatable aiPredictionField autoNumber byteLength calculated calculatedFormula cascadeDelete caseSensitive
        compoundFieldName controllerName createable custom defaultValue defaultValueFormula defaultedOnCreate dependentPicklist
        deprecatedAndHidden digits displayLocationInDecimal encrypted externalId extraTypeInfo filterable filteredLookupInfo
        formulaTreatNullNumberAsZero groupable highScaleNumber htmlFormatted idLookup inlineHelpText label length mask maskType
        name nameField namePointing nillable permissionable picklistValues polymorphicForeignKey precision queryByDistance
        referenceTargetField referenceTo relationshipName relationshipOrder restrictedDelete restrictedPicklist scale
        searchPrefilterable soapType sortable type unique updateable writeRequiresMasterRead""".split())

    def fields(self, obj="Account"):
        return {f["name"]: f for f in self.call("GET", f"sobjects/{obj}/describe").json["fields"]}

    def test_global(self):
        body = self.call("GET", "sobjects").json
        self.assertEqual((body["encoding"], body["maxBatchSize"]), ("UTF-8", 200))
        names = {o["name"]: o["keyPrefix"] for o in body["sobjects"]}
        self.assertEqual(names["Account"], "001")
        self.assertIn("Everything__c", names)
        self.assertNotIn("CustomField", names)

    def test_fields(self):
        fields = self.fields()
        for field in fields.values():
            self.assertEqual(set(field), self.KEYS, field["name"])
        self.assertEqual((fields["Name"]["nillable"], fields["Name"]["createable"], fields["Name"]["label"]),
                         (False, True, "Account Name"))
        key = fields["PG_Key__c"]
        self.assertTrue(key["externalId"] and key["unique"] and key["caseSensitive"] and key["idLookup"])
        self.assertEqual((key["length"], key["byteLength"]), (255, 765))
        active = fields["Active__c"]
        self.assertEqual((active["nillable"], active["defaultedOnCreate"], active["defaultValue"]), (False, True, True))
        self.assertEqual(fields["BillingCity"]["compoundFieldName"], "BillingAddress")
        self.assertEqual(fields["OwnerId"]["referenceTo"], ["User"])
        self.assertEqual([p["value"] for p in fields["Priority__c"]["picklistValues"]], ["High", "Medium", "Low"])

    def test_unknown_and_hidden(self):
        answer = self.call("GET", "sobjects/Nope/describe")
        self.assertEqual((answer.status, answer.json), (404, [{"errorCode": "NOT_FOUND",
                                                               "message": "The requested resource does not exist"}]))
        self.control("POST", "schema", {"object": "Account", "field": "Balance__c", "action": "hide"})
        self.assertNotIn("Balance__c", self.fields())
        self.assertEqual(self.call("POST", "sobjects/Account", {"Name": "a", "Balance__c": 1}).code, "INVALID_FIELD")
        self.assertEqual(self.query("SELECT Balance__c FROM Account").code, "INVALID_FIELD")
        self.control("POST", "schema", {"object": "Contact", "action": "hide"})
        self.assertEqual(self.call("GET", "sobjects/Contact/describe").status, 404)

    def test_not_modified(self):
        answer = self.call("GET", "sobjects/Account/describe")
        since = answer.headers["Last-Modified"]
        again = self.call("GET", "sobjects/Account/describe", If_Modified_Since=since)
        self.assertEqual((again.status, again.raw), (304, b""))
        self.control("POST", "schema", {"object": "Account", "field": "New__c", "action": "add",
                                        "definition": {"type": "Text", "length": 10}})
        self.assertEqual(self.call("GET", "sobjects/Account/describe", If_Modified_Since=since).status, 200)
        self.assertEqual(self.call("GET", "sobjects/Contact/describe", If_Modified_Since=since).status, 304)
        self.create("Account", Name="a", New__c="x")
        self.control("POST", "schema", {"object": "Account", "field": "New__c", "action": "remove"})
        self.assertNotIn("New__c", self.fields())

    def test_modified_field(self):
        self.control("POST", "schema", {"object": "Account", "field": "Site", "action": "modify",
                                        "definition": {"length": 3, "label": "Place"}})
        answer = self.call("POST", "sobjects/Account", {"Name": "a", "Site": "long"})
        self.assertEqual(answer.json, [{"errorCode": "STRING_TOO_LONG", "fields": ["Site"],
                                        "message": "Place: data value too large: long (max length=3)"}])


class TestRows(Base):
    def test_create(self):
        answer = self.call("POST", "sobjects/Account", {"Name": "a"})
        record_id = answer.json["id"]
        self.assertEqual((answer.status, answer.json), (201, {"id": record_id, "success": True, "errors": []}))
        self.assertEqual(answer.headers["Location"], f"{V}/sobjects/Account/{record_id}")
        self.assertEqual(len(record_id), 18)
        row = self.get("Account", record_id[:15], "Name", "LastModifiedDate")
        self.assertEqual(row["attributes"], {"type": "Account", "url": f"{V}/sobjects/Account/{record_id}"})
        self.assertRegex(row["LastModifiedDate"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000\+0000$")
        self.assertEqual(row["Id"], record_id)

    def test_create_errors(self):
        for obj, body, code, fields in [
                ("Contact", {}, "REQUIRED_FIELD_MISSING", ["LastName"]),
                ("Account", {"Name": "a", "foo": 1}, "INVALID_FIELD", []),
                ("Account", {"Name": "a", "Id": "001fs0000000001AAA"}, "INVALID_FIELD", []),
                ("Contact", {"LastName": "a", "Name": "x"}, "INVALID_FIELD_FOR_INSERT_UPDATE", ["Name"]),
                ("Account", {"Name": "a", "CreatedDate": "2020-01-01T00:00:00Z"}, "INVALID_FIELD_FOR_INSERT_UPDATE",
                 ["CreatedDate"])]:
            answer = self.call("POST", f"sobjects/{obj}", body)
            self.assertEqual((answer.status, answer.code, answer.json[0]["fields"]), (400, code, fields), answer.text)
        lead = self.call("POST", "sobjects/Lead", {}).json[0]
        self.assertEqual(lead["message"], "Required fields are missing: [LastName, Company]")
        self.assertEqual(self.call("POST", "sobjects/AccountHistory", {}).code, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY")

    def test_syntax(self):
        answer = self.call("POST", "sobjects/Account", '{"Name":}')
        self.assertEqual((answer.status, answer.code), (400, "JSON_PARSER_ERROR"))
        self.assertIn("Unexpected character ('}' (code 125))", answer.json[0]["message"])
        self.assertEqual(self.call("POST", "sobjects/Account", '{"Name":"a","AnnualRevenue":NaN}').code, "JSON_PARSER_ERROR")
        self.assertEqual(self.call("POST", "sobjects/Account", "[]").code, "JSON_PARSER_ERROR")
        self.assertEqual(self.call("POST", "sobjects/Account", "{}", Content_Type="text/plain").status, 415)

    def test_update(self):
        record_id = self.create("Account", Name="a", Site="x", Phone="1")
        answer = self.call("PATCH", f"sobjects/Account/{record_id}", {"Site": None})
        self.assertEqual((answer.status, answer.raw), (204, b""))
        row = self.get("Account", record_id)
        self.assertEqual((row["Site"], row["Phone"]), (None, "1"))
        self.assertEqual(self.call("POST", f"sobjects/Account/{record_id}?_HttpMethod=PATCH", {"Site": "y"}).status, 204)
        self.assertEqual(self.get("Account", record_id)["Site"], "y")
        self.assertEqual(self.call("PATCH", f"sobjects/Account/{record_id}", {"Name": None}).code, "REQUIRED_FIELD_MISSING")

    def test_moves_stamps_always(self):
        self.config(now=1800000000)
        self.token = self.login().json["access_token"]
        record_id = self.create("Account", Name="a")
        self.config(now=1800000005)
        self.call("PATCH", f"sobjects/Account/{record_id}", {"Name": "a"})
        row = self.get("Account", record_id)
        self.assertEqual(row["LastModifiedDate"][14:19], "00:05")
        self.assertEqual((row["CreatedDate"][14:19], row["SystemModstamp"]), ("00:00", row["LastModifiedDate"]))

    def test_unknown_ids(self):
        unknown = "001fs0000009999AAA"[:15]
        answer = self.call("PATCH", f"sobjects/Account/{unknown}", {"Name": "a"})
        self.assertEqual((answer.status, answer.code), (404, "INVALID_CROSS_REFERENCE_KEY"))
        answer = self.call("PATCH", "sobjects/Account/abc", {"Name": "a"})
        self.assertEqual((answer.status, answer.json[0]["message"]),
                         (404, "Provided external ID field does not exist or is not accessible: abc"))
        contact = self.create("Contact", LastName="x")
        answer = self.call("PATCH", f"sobjects/Account/{contact}", {"Name": "a"})
        self.assertEqual((answer.code, answer.json[0]["message"]),
                         ("MALFORMED_ID", f"Account ID: id value of incorrect type: {contact}"))
        self.assertEqual(self.call("GET", f"sobjects/Account/{unknown}").code, "NOT_FOUND")

    def test_delete(self):
        record_id = self.create("Account", Name="a")
        self.assertEqual(self.call("DELETE", f"sobjects/Account/{record_id}").status, 204)
        again = self.call("DELETE", f"sobjects/Account/{record_id}")
        self.assertEqual((again.status, again.code), (404, "ENTITY_IS_DELETED"))
        self.assertEqual(self.call("PATCH", f"sobjects/Account/{record_id}", {"Name": "b"}).code, "ENTITY_IS_DELETED")
        self.assertEqual(self.call("GET", f"sobjects/Account/{record_id}").code, "NOT_FOUND")
        self.assertEqual(self.control("GET", "count?object=Account"), {"count": 0, "deleted": 1, "created_total": 1})
        self.control("POST", "purge")
        self.assertEqual(self.call("DELETE", f"sobjects/Account/{record_id}").code, "INVALID_CROSS_REFERENCE_KEY")

    def test_upsert(self):
        path = "sobjects/Account/PG_Key__c/a%2Fb"
        first = self.call("PATCH", path, {"Name": "a"})
        self.assertEqual((first.status, first.json["created"]), (201, True))
        second = self.call("PATCH", path, {"Name": "b"})
        self.assertEqual((second.status, second.json["created"], second.json["id"]), (200, False, first.json["id"]))
        self.assertEqual(self.call("GET", path).json["PG_Key__c"], "a/b")
        old = self.call("PATCH", "/services/data/v45.0/" + path, {"Name": "c"})
        self.assertEqual((old.status, old.raw), (204, b""))
        self.assertNotIn("created", self.call("PATCH", "/services/data/v45.0/sobjects/Account/PG_Key__c/z", {"Name": "c"}).json)
        self.assertEqual(self.call("PATCH", path, {"Name": "a", "PG_Key__c": "x"}).code, "INVALID_FIELD")
        missing = self.call("PATCH", "sobjects/Account/PG_Key__c/new?updateOnly=true", {"Name": "a"})
        self.assertEqual(missing.status, 404)
        self.assertEqual(self.call("PATCH", "sobjects/Account/Namez/x", {}).json[0]["message"],
                         "Provided external ID field does not exist or is not accessible: Namez")
        self.assertEqual(self.call("DELETE", path).status, 204)
        self.assertNotEqual(self.call("PATCH", path, {"Name": "a"}).json["id"], first.json["id"])

    def test_several_match(self):
        for name in "ab":
            self.create("Account", Name=name, Ext_NU__c="same")
        answer = self.call("PATCH", "sobjects/Account/Ext_NU__c/same", {"Name": "c"})
        self.assertEqual((answer.status, len(answer.json)), (300, 2))
        self.assertTrue(answer.json[0].startswith(f"{V}/sobjects/Account/001"))
        result = self.upsert("Account", "Ext_NU__c", {"Ext_NU__c": "same"})[0]
        self.assertEqual(self.error(result), "DUPLICATE_EXTERNAL_ID")
        self.assertIn("Ext NU: more than one record found for external id field: [001", result["errors"][0]["message"])

    def test_conditions(self):
        self.config(now=1800000000)
        self.token = self.login().json["access_token"]
        path = "sobjects/Account/" + self.create("Account", Name="a")
        stamp = "Fri, 15 Jan 2027 08:00:00 GMT"
        self.config(now=1800000010)
        self.assertEqual(self.call("GET", path).headers["Last-Modified"], stamp)
        self.assertEqual(self.call("GET", path, If_Modified_Since=stamp).status, 304)
        self.assertEqual(self.call("PATCH", path, {"Name": "b"}, If_Unmodified_Since=stamp).status, 204)
        self.assertEqual(self.call("PATCH", path, {"Name": "c"}, If_Unmodified_Since=stamp).status, 412)
        self.assertEqual(self.call("GET", path).json["Name"], "b")
        self.assertEqual(self.call("PATCH", path, {"Name": "c"}, If_Unmodified_Since="yesterday").status, 400)
        self.assertEqual(self.call("DELETE", path, If_Unmodified_Since=stamp).status, 204)

    def test_bad_fields(self):
        record_id = self.create("Account", Name="a")
        answer = self.call("GET", f"sobjects/Account/{record_id}?fields=Nope")
        self.assertEqual((answer.status, answer.code), (400, "INVALID_FIELD"))


class TestValues(Base):
    def store(self, **fields):
        record_id = self.create("Everything__c", **fields)
        return self.get("Everything__c", record_id)

    def refused(self, code, obj="Everything__c", **fields):
        answer = self.call("POST", f"sobjects/{obj}", fields)
        self.assertEqual((answer.status, answer.code), (400, code), answer.text)
        return answer.json[0]

    def test_text(self):
        row = self.store(Text__c="  a b \n", Text_Area__c="", Long_Text__c="   ", Email__c="Chloe@Example.COM")
        self.assertEqual((row["Text__c"], row["Text_Area__c"], row["Long_Text__c"], row["Email__c"]),
                         ("a b", None, None, "chloe@example.com"))
        self.assertEqual(self.store(Text__c="\U0001f600" * 50)["Text__c"], "\U0001f600" * 50)
        self.assertIn("Text: data value too large: ", self.refused("STRING_TOO_LONG", Text__c="ä" * 51)["message"])
        self.assertEqual(self.refused("INVALID_EMAIL_ADDRESS", Email__c="123")["message"], "Email: invalid email address: 123")
        self.refused("JSON_PARSER_ERROR", Text__c=5)

    def test_numbers(self):
        row = self.store(Number__c=7, Number_2__c="1.005", Number_5__c=-0.000005, Percent__c=50, Currency__c=12345678.9,
                         Int__c="12")
        self.assertEqual((row["Number_2__c"], row["Number_5__c"], row["Percent__c"], row["Int__c"]), (1.01, -0.00001, 50, 12))
        text = self.call("GET", f"sobjects/Everything__c/{row['Id']}").text
        for part in ('"Number__c":7.0', '"Int__c":12,', '"Currency__c":1.23456789E7', '"Percent__c":50.0', '"Number_5__c":-1.0E-5'):
            self.assertIn(part, text)
        message = self.refused("NUMBER_OUTSIDE_VALID_RANGE", Small__c=12345)["message"]
        self.assertEqual(message, "Small: value outside of valid range on numeric field: 12345")
        self.refused("NUMBER_OUTSIDE_VALID_RANGE", Small__c="9999.5")
        self.refused("NUMBER_OUTSIDE_VALID_RANGE", Number__c="1e400")
        self.refused("NUMBER_OUTSIDE_VALID_RANGE", Int__c=1431655766)
        self.refused("JSON_PARSER_ERROR", Number__c="abc")
        self.refused("JSON_PARSER_ERROR", Number__c=True)
        self.config(extra_decimals="truncate")
        self.assertEqual(self.store(Number_2__c=1.999)["Number_2__c"], 1.99)

    def test_checkbox(self):
        row = self.store(Checkbox__c="true")
        self.assertEqual((row["Checkbox__c"], row["Archived__c"], row["Active__c"]), (True, False, True))
        self.refused("INVALID_TYPE_ON_FIELD_IN_RECORD", Checkbox__c=None)
        self.config(null_checkbox="false")
        self.assertEqual(self.store(Checkbox__c=None)["Checkbox__c"], False)

    def test_dates(self):
        row = self.store(Date__c="2021-10-03", Datetime__c="2026-11-03T10:15:30.999+02:00", Time__c="11:59:59.5Z")
        self.assertEqual((row["Date__c"], row["Datetime__c"], row["Time__c"]),
                         ("2021-10-03", "2026-11-03T08:15:30.000+0000", "11:59:59.500Z"))
        self.assertEqual(self.store(Datetime__c="2026-11-03T08:15:30.000+0000")["Datetime__c"], "2026-11-03T08:15:30.000+0000")
        for bad in ("2026-11-03 08:15:30Z", "2026-11-03T08:15:30+0000", "2026-11-03T08:15:30", "2026-13-03T08:15:30Z", "infinity"):
            self.assertIn(f"Cannot deserialize instance of datetime from VALUE_STRING value {bad}",
                          self.refused("JSON_PARSER_ERROR", Datetime__c=bad)["message"])
        for bad in ("2021-02-30", "2021-10-03T00:00:00Z", "03.10.2021"):
            self.refused("JSON_PARSER_ERROR", Date__c=bad)
        self.refused("INVALID_TYPE_ON_FIELD_IN_RECORD", Date__c="1699-12-31")
        self.refused("INVALID_TYPE_ON_FIELD_IN_RECORD", Datetime__c="4001-01-01T00:00:00Z")
        self.config(datetime_fraction="round")
        self.assertEqual(self.store(Datetime__c="2026-12-31T23:59:59.500Z")["Datetime__c"], "2027-01-01T00:00:00.000+0000")

    def test_picklists(self):
        row = self.store(Picklist__c="Purple", Restricted__c="red", Multi__c="fri;Mon;Fri", Multi_Open__c="x;Two")
        self.assertEqual((row["Picklist__c"], row["Restricted__c"], row["Multi__c"], row["Multi_Open__c"]),
                         ("Purple", "Red", "Mon;Fri", "Two;x"))
        self.assertEqual(self.store(Picklist__c="PURPLE")["Picklist__c"], "Purple")
        self.assertEqual(self.refused("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", Restricted__c="Pink")["message"],
                         "Restricted: bad value for restricted picklist field: Pink")
        self.refused("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", Multi__c="Mon;Nope")
        self.config(restricted_picklist_ignore_case=False)
        self.refused("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", Restricted__c="red")

    def test_compound_and_read_only(self):
        row = self.store(Name="n", Text__c="t", Location__Latitude__s=1.5, Location__Longitude__s=2, Number_2__c=2.25)
        self.assertEqual(row["Location__c"], {"latitude": 1.5, "longitude": 2.0})
        self.assertEqual((row["Formula__c"], row["Formula_Number__c"], row["Auto__c"]), ("n / t", 4.5, "A-0001"))
        self.refused("INVALID_FIELD_FOR_INSERT_UPDATE", Formula__c="x")
        self.refused("INVALID_FIELD_FOR_INSERT_UPDATE", Location__c={})
        self.refused("NUMBER_OUTSIDE_VALID_RANGE", Location__Latitude__s=91)
        account = self.create("Account", Name="a", BillingCity="Paris")
        self.assertEqual(self.get("Account", account)["BillingAddress"]["city"], "Paris")
        contact = self.create("Contact", FirstName="A", LastName="B")
        self.assertEqual(self.get("Contact", contact)["Name"], "A B")

    def test_references(self):
        parent = self.create("Account", Name="a")
        self.assertEqual(self.store(Lookup__c=parent[:15])["Lookup__c"], parent)
        self.refused("MALFORMED_ID", Lookup__c="xyz")
        self.refused("MALFORMED_ID", Lookup__c=parent[:15] + "AAB")
        self.refused("MALFORMED_ID", Lookup__c=self.create("Contact", LastName="x"))
        self.refused("INVALID_CROSS_REFERENCE_KEY", Lookup__c="001fs0000099999")
        self.call("DELETE", f"sobjects/Account/{parent}")
        self.refused("ENTITY_IS_DELETED", Lookup__c=parent)
        one = self.create("Account", Name="one")
        two = self.create("Account", Name="two", ParentId=one)
        self.assertEqual(self.call("PATCH", f"sobjects/Account/{one}", {"ParentId": two}).code, "CIRCULAR_DEPENDENCY")

    def test_relations_by_external_id(self):
        parent = self.create("Account", Name="a", PG_Key__c="P1")
        made = self.create("Invoice__c", Account__r={"PG_Key__c": "P1"})
        self.assertEqual(self.get("Invoice__c", made)["Account__c"], parent)
        error = self.refused("INVALID_FIELD", "Invoice__c", Account__r={"PG_Key__c": "0116"})
        self.assertEqual(error["message"], "Foreign key external ID: 0116 not found for field PG_Key__c in entity Account")
        self.refused("INVALID_FIELD", "Invoice__c", Account__c=parent, Account__r={"PG_Key__c": "P1"})
        self.refused("INVALID_FIELD", "Invoice__c", Account__r={"Phone": "1"})
        self.refused("MISSING_ARGUMENT", "Invoice__c", Account__r={"PG_Key__c": None})
        self.refused("JSON_PARSER_ERROR", "Invoice__c", Account__r=None)
        self.assertEqual(self.create("Account", Name="b", Owner={"Username": "rep@sfsync.example"})[:3], "001")

    def test_master_detail(self):
        one, two = (self.create("Invoice__c") for _ in range(2))
        line = self.create("Invoice_Line__c", Invoice__c=one)
        self.assertEqual(self.call("PATCH", f"sobjects/Invoice_Line__c/{line}", {"Invoice__c": two}).code,
                         "INVALID_FIELD_FOR_INSERT_UPDATE")
        self.refused("REQUIRED_FIELD_MISSING", "Invoice_Line__c", Product__c="x")

    def test_unique(self):
        other = self.create("Account", Name="a", Ext_CI__c="Abc", PG_Key__c="k")
        error = self.refused("DUPLICATE_VALUE", "Account", Name="b", Ext_CI__c=" aBC ")
        self.assertEqual(error["message"], f"duplicate value found: Ext_CI__c duplicates value on record with id: {other}")
        self.assertEqual(error["fields"], [])
        self.create("Account", Name="b", PG_Key__c="K")
        self.refused("DUPLICATE_VALUE", "Account", Name="b", PG_Key__c="k")
        self.call("DELETE", f"sobjects/Account/{other}")
        self.create("Account", Name="b", PG_Key__c="k")

    def test_number_key(self):
        self.create("Account", Name="a", Ext_Num__c=123)
        self.assertEqual(self.call("PATCH", "sobjects/Account/Ext_Num__c/00123", {"Name": "b"}).status, 200)

    def test_names_in_any_case(self):
        self.assertEqual(self.get("Account", self.create("account", name="a", SITE="b"))["Site"], "b")


class TestCollections(Base):
    def test_create(self):
        body = self.records("Account", {"Name": "a"}, {"Site": "x"}, {"Name": "c", "foo": 1}, {"Name": "d"})
        results = self.call("POST", COLLECTION, body).json
        self.assertEqual([r["success"] for r in results], [True, False, False, True])
        self.assertEqual(set(results[0]), {"id", "success", "errors"})
        self.assertNotIn("id", results[1])
        self.assertEqual((self.error(results[1]), self.error(results[2])), ("REQUIRED_FIELD_MISSING", "INVALID_FIELD"))

    def test_all_or_none(self):
        body = {**self.records("Account", {"Name": "a"}, {"Site": "x"}), "allOrNone": True}
        results = self.call("POST", COLLECTION, body).json
        self.assertEqual(results[0], {"success": False, "errors": [{
            "statusCode": "ALL_OR_NONE_OPERATION_ROLLED_BACK", "fields": [],
            "message": "Record rolled back because not all records were valid and the request was using AllOrNone header"}]})
        self.assertEqual(self.error(results[1]), "REQUIRED_FIELD_MISSING")
        self.assertEqual(self.control("GET", "count?object=Account")["created_total"], 0)

    def test_envelope(self):
        many = self.records("Account", *[{"Name": "a"}] * 201)
        answer = self.call("POST", COLLECTION, many)
        self.assertEqual((answer.status, answer.code), (400, "EXCEEDED_ID_LIMIT"))
        self.assertEqual(self.call("POST", COLLECTION, {"records": [{"Name": "a"}]}).status, 400)
        mixed = {"records": [{"attributes": {"type": t}, "Name": "a"} for t in ["Account", "Invoice__c"] * 6]}
        self.assertEqual(self.call("POST", COLLECTION, mixed).status, 400)
        mixed["records"] = mixed["records"][:10]
        self.assertTrue(all(r["success"] for r in self.call("POST", COLLECTION, mixed).json))

    def test_parent_in_the_same_request(self):
        body = {"records": [{"attributes": {"type": "Account"}, "Name": "a", "PG_Key__c": "p"},
                            {"attributes": {"type": "Account"}, "Name": "b", "Parent": {"PG_Key__c": "p"}},
                            {"attributes": {"type": "Contact"}, "LastName": "c", "Account": {"PG_Key__c": "p"}}]}
        results = self.call("POST", COLLECTION, body).json
        self.assertEqual([r["success"] for r in results], [True, False, True])   # not of the same type

    def test_update(self):
        one, two = (self.create("Account", Name=n) for n in "ab")
        contact = self.create("Contact", LastName="c")
        body = self.records("Account", {"id": one, "Name": "x"}, {"Id": two, "Name": "y"}, {"Name": "z"}, {"id": contact},
                            {"id": "001fs0000099999"})
        results = self.call("PATCH", COLLECTION, body).json
        self.assertEqual(results[0], {"id": one, "success": True, "errors": []})
        self.assertEqual([self.error(r) for r in results[2:]], ["MISSING_ARGUMENT", "MALFORMED_ID", "INVALID_CROSS_REFERENCE_KEY"])
        self.assertEqual(results[2]["errors"][0]["message"], "Id not specified in an update call")
        self.assertEqual(self.rows("SELECT Name FROM Account ORDER BY Name", "Name"), ["x", "y"])

    def test_the_same_id_twice(self):
        one = self.create("Account", Name="a")
        body = self.records("Account", *[{"id": one, "Name": str(i)} for i in range(14)])
        results = self.call("PATCH", COLLECTION, body).json
        self.assertEqual([r["success"] for r in results], [True] * 12 + [False] * 2)
        self.config(duplicate_update="refuse")
        self.assertEqual([r["success"] for r in self.call("PATCH", COLLECTION, body).json], [True] + [False] * 13)

    def test_upsert(self):
        results = self.upsert("Account", "PG_Key__c", {"PG_Key__c": "a", "Name": "a"}, {"PG_Key__c": "b", "Name": "b"})
        self.assertEqual([r["created"] for r in results], [True, True])
        again = self.upsert("Account", "PG_Key__c", {"PG_Key__c": " b ", "Site": "s"}, {"PG_Key__c": "B", "Name": "c"},
                            {"Name": "n"}, {"PG_Key__c": "", "Name": "n"})
        self.assertEqual((again[0]["id"], again[0]["created"], again[1]["created"]), (results[1]["id"], False, True))
        self.assertEqual(again[2]["errors"], [{"statusCode": "MISSING_ARGUMENT", "message": "PG_Key__c not specified",
                                               "fields": ["PG_Key__c"]}])
        self.assertEqual(self.error(again[3]), "MISSING_ARGUMENT")

    def test_upsert_duplicates(self):
        results = self.upsert("Account", "Ext_CI__c", {"Ext_CI__c": "A1", "Name": "x"}, {"Ext_CI__c": "a1 ", "Name": "y"},
                              {"Ext_CI__c": "b", "Name": "z"})
        self.assertEqual([r["success"] for r in results], [False, False, True])
        self.assertEqual(results[0]["errors"][0]["message"], "Duplicate external id specified: A1")
        self.assertEqual(self.error(results[1]), "DUPLICATE_VALUE")
        self.assertEqual(len(self.control("GET", "records?object=Account")), 1)
        both = self.upsert("Account", "PG_Key__c", {"PG_Key__c": "A1", "Name": "x"}, {"PG_Key__c": "a1", "Name": "y"})
        self.assertTrue(all(r["success"] for r in both))

    def test_upsert_by_id_and_email(self):
        one = self.create("Contact", LastName="x", Email="a@b.example")
        by_id = self.upsert("Contact", "Id", {"Id": None, "LastName": "new"}, {"Id": one, "LastName": "old"})
        self.assertEqual([r["created"] for r in by_id], [True, False])
        self.assertEqual(self.upsert("Contact", "Email", {"Email": "A@B.example", "LastName": "y"})[0]["id"], one)
        answer = self.call("PATCH", f"{COLLECTION}/Contact/LastName", self.records("Contact", {"LastName": "x"}))
        self.assertEqual((answer.status, answer.code), (404, "NOT_FOUND"))
        self.assertEqual(self.upsert("Contact", "PG_Key__c", {"PG_Key__c": "1", "LastName": "x", "Id": one})[0]["success"], False)

    def test_parse_errors(self):
        bad = {"PG_Key__c": "b", "Name": "b", "Archived_At__c": "2026-01-01 00:00:00"}
        good = {"PG_Key__c": "a", "Name": "a"}
        results = self.upsert("Account", "PG_Key__c", bad, good)
        self.assertIn("Json Deserialization failed on token 'Archived_At__c'", results[0]["errors"][0]["message"])
        self.assertEqual((self.error(results[0]), results[1]["success"]), ("INVALID_FIELD", True))
        self.config(collection_parse_errors="request")
        answer = self.call("PATCH", f"{COLLECTION}/Account/PG_Key__c", self.records("Account", {"PG_Key__c": "c", "Name": "c"}, bad))
        self.assertEqual((answer.status, answer.code), (400, "JSON_PARSER_ERROR"))
        self.assertRegex(answer.json[0]["message"], r"at \[line:1, column:\d+\]$")
        self.assertEqual(self.control("GET", "count?object=Account")["count"], 1)

    def test_delete(self):
        one, two = self.create("Account", Name="a"), self.create("Contact", LastName="b")
        ids = [one, two, one, "001fs0000099999", "001xyz"]
        results = self.call("DELETE", f"{COLLECTION}?ids={','.join(ids)}").json
        self.assertEqual([r["success"] for r in results], [True, True, False, False, False])
        self.assertEqual([self.error(r) for r in results[2:]], ["ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY", "MALFORMED_ID"])
        empty = self.call("DELETE", f"{COLLECTION}?ids=")
        self.assertEqual(empty.json, [{"message": "At least 1 Id is required.", "errorCode": "REQUIRED_FIELD_MISSING"}])

    def test_retrieve(self):
        one, two = (self.create("Account", Name=n) for n in "ab")
        self.call("DELETE", f"sobjects/Account/{one}")
        body = {"ids": [two[:15], one, "junk", two], "fields": ["Id", "Name"]}
        rows = self.call("POST", f"{COLLECTION}/Account", body).json
        self.assertEqual([r and r["Name"] for r in rows], ["b", None, None, "b"])
        self.assertEqual(self.call("GET", f"{COLLECTION}/Account?ids={two}&fields=Name").json[0]["Name"], "b")
        self.assertEqual(self.call("POST", f"{COLLECTION}/Account", {**body, "fields": ["Nope"]}).code, "INVALID_FIELD")
        self.assertEqual(self.call("POST", f"{COLLECTION}/Account", {**body, "ids": [two] * 2001}).status, 400)


class TestComposite(Base):
    def parts(self, *parts, **more):
        body = {**more, "compositeRequest": [{"referenceId": f"r{i}", **p} for i, p in enumerate(parts)]}
        for part in body["compositeRequest"]:
            if not part["url"].startswith("/"):
                part["url"] = f"{V}/{part['url']}"
        return self.call("POST", "composite", body)

    def test_references(self):
        answer = self.parts({"method": "POST", "url": "sobjects/Account", "body": {"Name": "a"}},
                            {"method": "POST", "url": "sobjects/Contact", "body": {"LastName": "c", "AccountId": "@{r0.id}"}},
                            {"method": "GET", "url": "sobjects/Account/@{r0.id}?fields=Name"},
                            {"method": "PATCH", "url": "sobjects/Account/@{r0.id}", "body": {"Name": "@{r2.Name}!"}},
                            {"method": "GET", "url": "sobjects/Account/@{r9.id}"},
                            {"method": "GET", "url": "sobjects/Nope/describe"}).json["compositeResponse"]
        self.assertEqual([p["httpStatusCode"] for p in answer], [201, 201, 200, 204, 400, 404])
        self.assertIn("Location", answer[0]["httpHeaders"])
        self.assertIsNone(answer[3]["body"])
        self.assertEqual(answer[4]["body"][0]["errorCode"], "PROCESSING_HALTED")
        self.assertEqual(answer[5]["body"], [{"message": "The requested resource does not exist", "errorCode": "NOT_FOUND"}])
        self.assertEqual(self.rows("SELECT Name FROM Account", "Name"), ["a!"])

    def test_all_or_none(self):
        answer = self.parts({"method": "POST", "url": "sobjects/Account", "body": {"Name": "a"}},
                            {"method": "POST", "url": "sobjects/Account", "body": {}}, allOrNone=True).json["compositeResponse"]
        self.assertEqual((answer[0]["httpStatusCode"], answer[0]["body"][0]["errorCode"]), (400, "PROCESSING_HALTED"))
        self.assertEqual(answer[1]["body"][0]["errorCode"], "REQUIRED_FIELD_MISSING")
        self.assertEqual(self.control("GET", "count?object=Account")["count"], 0)

    def test_conditions_inside(self):
        self.config(now=1800000000)
        self.token = self.login().json["access_token"]
        record_id = self.create("Account", Name="a")
        part = {"method": "PATCH", "url": f"sobjects/Account/{record_id}", "body": {"Name": "b"},
                "httpHeaders": {"If-Unmodified-Since": "Fri, 15 Jan 2027 08:00:00 GMT"}}
        self.config(now=1800000009)
        answer = self.parts(part, part).json["compositeResponse"]
        self.assertEqual([p["httpStatusCode"] for p in answer], [204, 412])
        describe = {"method": "GET", "url": "sobjects/Account/describe",
                    "httpHeaders": {"If-Modified-Since": "Fri, 15 Jan 2100 08:00:00 GMT"}}
        answer = self.parts(describe).json["compositeResponse"][0]
        self.assertEqual((answer["httpStatusCode"], answer["body"]), (304, None))
        self.assertIn("Last-Modified", answer["httpHeaders"])

    def test_envelope(self):
        get = {"method": "GET", "url": "limits"}
        self.assertEqual(self.parts(*[get] * 26).status, 400)
        self.assertEqual(self.parts(*[{"method": "GET", "url": "query?q=x"}] * 6).status, 400)
        self.assertEqual(self.parts({**get, "httpHeaders": {"Authorization": "x"}}).status, 400)
        self.assertEqual(self.parts({**get, "referenceId": "a b"}).status, 400)
        self.assertEqual(self.parts({**get, "url": "/services/oauth2/token"}).status, 400)
        self.assertEqual(self.parts({**get, "method": "get"}).status, 400)

    def test_collections_inside(self):
        part = {"method": "PATCH", "url": "composite/sobjects/Account/PG_Key__c",
                "body": self.records("Account", {"PG_Key__c": "a", "Name": "a"}, {"PG_Key__c": "b"})}
        answer = self.parts(part, {**part, "body": self.records("Account", {"PG_Key__c": "c", "Name": "c"})}).json
        self.assertEqual([r["success"] for r in answer["compositeResponse"][0]["body"]], [True, False])
        call = self.control("GET", "log")["requests"][-1]
        self.assertEqual((call["kind"], call["records"], call["external_ids"]), ("composite", 3, ["a", "b", "c"]))
        self.assertEqual(self.control("GET", "stats")["calls"], 1)

    def test_long_query(self):
        keys = ",".join(f"'{i:030d}'" for i in range(2900))
        soql = f"SELECT Id FROM Account WHERE PG_Key__c IN ({keys})"
        self.assertGreater(len(soql), 90000)
        answer = self.parts({"method": "GET", "url": "query/?q=" + quote(soql)}).json["compositeResponse"][0]
        self.assertEqual((answer["httpStatusCode"], answer["body"]["totalSize"]), (200, 0))
        self.assertIn(self.query(soql).status, (414, 431))

    def test_batch(self):
        account = self.create("Account", Name="a")
        before = self.control("GET", "stats")["calls"]
        body = {"batchRequests": [{"method": "PATCH", "url": f"v66.0/sobjects/account/{account}", "richInput": {"Name": "N"}},
                                  {"method": "GET", "url": "v66.0/sobjects/Account/nope"},
                                  {"method": "GET", "url": f"v66.0/sobjects/Account/{account}?fields=Name"}]}
        answer = self.call("POST", "composite/batch", body).json
        self.assertEqual([r["statusCode"] for r in answer["results"]], [204, 404, 200])
        self.assertTrue(answer["hasErrors"])
        self.assertEqual(self.control("GET", "stats")["calls"] - before, 3)
        halted = self.call("POST", "composite/batch", {**body, "haltOnError": True}).json
        self.assertEqual(halted["results"][2]["statusCode"], 412)

    def test_graph(self):
        def graph(name, second):
            return {"graphId": name, "compositeRequest": [
                {"method": "POST", "url": f"{V}/sobjects/Account", "referenceId": "a", "body": {"Name": name}},
                {"method": "POST", "url": f"{V}/sobjects/Contact", "referenceId": "b", "body": second}]}
        answer = self.call("POST", "composite/graph", {"graphs": [graph("g1", {"LastName": "x", "AccountId": "@{a.id}"}),
                                                                 graph("g2", {})]}).json["graphs"]
        self.assertEqual([g["isSuccessful"] for g in answer], [True, False])
        self.assertEqual(self.rows("SELECT Name FROM Account", "Name"), ["g1"])

    def test_tree(self):
        record = {"attributes": {"type": "Account", "referenceId": "ref1"}, "name": "S1", "Contacts": {"records": [
            {"attributes": {"type": "Contact", "referenceId": "ref2"}, "LastName": "c", "Email": "a@b.example"}]}}
        answer = self.call("POST", "composite/tree/Account", {"records": [record]})
        self.assertEqual((answer.status, [r["referenceId"] for r in answer.json["results"]]), (201, ["ref1", "ref2"]))
        record["Contacts"]["records"][0]["Email"] = "123"
        answer = self.call("POST", "composite/tree/Account", {"records": [record]})
        self.assertEqual((answer.status, answer.json), (400, {"hasErrors": True, "results": [{"referenceId": "ref2", "errors": [
            {"statusCode": "INVALID_EMAIL_ADDRESS", "message": "Email: invalid email address: 123", "fields": ["Email"]}]}]}))
        self.assertEqual(self.control("GET", "count?object=Account")["count"], 1)


class TestQuery(Base):
    def setUp(self):
        super().setUp()
        self.config(now=1800000000)      # 2027-01-15T08:00:00Z
        self.token = self.login().json["access_token"]
        self.upsert("Account", "PG_Key__c",
                    {"PG_Key__c": "a", "Name": "Alpha", "Industry": "Banking", "AnnualRevenue": 5, "Active__c": True},
                    {"PG_Key__c": "A", "Name": "beta", "Industry": "Energy", "AnnualRevenue": 50, "Active__c": False},
                    {"PG_Key__c": "c", "Name": "GAMMA_1", "Industry": "Energy", "Site": "it's", "Notes__c": "long"},
                    {"PG_Key__c": "d", "Name": "Éclair", "AnnualRevenue": 7})
        self.upsert("Contact", "PG_Key__c", {"PG_Key__c": "1", "LastName": "One", "Account": {"PG_Key__c": "a"}},
                    {"PG_Key__c": "2", "LastName": "Two", "Account": {"PG_Key__c": "a"}}, {"PG_Key__c": "3", "LastName": "Three"})

    def names(self, where):
        return [n[0] for n in self.rows(f"SELECT Name FROM Account {where}", "Name")]

    def refused(self, text, code):
        answer = self.query(text)
        self.assertEqual((answer.status, answer.code), (400, code), answer.text)
        return answer.json[0]["message"]

    def test_where(self):
        for where, wanted in [
                ("WHERE Name = 'ALPHA'", "A"), ("WHERE Name != 'alpha'", "bGÉ"), ("WHERE Name = 'éCLAIR'", "É"),
                ("WHERE PG_Key__c = 'a'", "A"), ("WHERE PG_Key__c IN ('A', 'c')", "bG"), ("WHERE Industry = null", "É"),
                ("WHERE Industry != 'Energy'", "AÉ"), ("WHERE NOT Industry = 'Energy'", "AÉ"),
                ("WHERE Industry NOT IN ('Banking')", "bGÉ"), ("WHERE AnnualRevenue > 5", "bÉ"), ("WHERE AnnualRevenue >= 5.0", "AbÉ"),
                ("WHERE NOT (AnnualRevenue > 5)", "AG"), ("WHERE Name LIKE 'a%'", "A"), ("WHERE Name LIKE '%\\_%'", "G"),
                ("WHERE PG_Key__c LIKE 'A%'", "b"), ("WHERE Active__c = false", "b"), ("WHERE Site = 'it\\'s'", "G"),
                ("WHERE Industry = 'Energy' AND (AnnualRevenue = null OR Name = 'x')", "G"), ("WHERE Owner.Name LIKE 'integ%'", "AbGÉ"),
                ("WHERE CreatedDate = TODAY", "AbGÉ"), ("WHERE CreatedDate < TODAY", ""), ("WHERE CreatedDate = LAST_N_DAYS:3", "AbGÉ"),
                ("WHERE CreatedDate >= 2027-01-15T08:00:00Z", "AbGÉ"), ("WHERE CreatedDate > 2027-01-15T10:00:00+02:00", ""),
                ("WHERE Id IN (SELECT AccountId FROM Contact WHERE LastName = 'One')", "A"),
                ("WHERE Id NOT IN (SELECT AccountId FROM Contact)", "bGÉ"), ("WHERE Name = ''", "")]:
            self.assertEqual("".join(self.names(where + " ORDER BY Id")), wanted, where)

    def test_order_and_limits(self):
        self.assertEqual("".join(self.names("ORDER BY Name DESC")), "ÉGbA")
        self.assertEqual("".join(self.names("ORDER BY AnnualRevenue")), "GAÉb")
        self.assertEqual("".join(self.names("ORDER BY AnnualRevenue DESC NULLS LAST LIMIT 2 OFFSET 1")), "ÉA")
        self.refused("SELECT Id FROM Account LIMIT 1 OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE")

    def test_shape(self):
        row = self.rows("select id, NAME, account.name, Account.Owner.name from contact where lastname = 'One'", "Id", "Name")[0]
        self.assertEqual(list(row), ["attributes", "Id", "Name", "Account"])
        self.assertEqual((row["Account"]["Name"], row["Account"]["attributes"]["type"]), ("Alpha", "Account"))
        self.assertEqual(row["Account"]["Owner"]["Name"], "Integration User")
        self.assertIsNone(self.rows("SELECT Account.Name FROM Contact WHERE LastName = 'Three'", "Account")[0])

    def test_children(self):
        rows = self.rows("SELECT Name, (SELECT LastName FROM Contacts WHERE LastName != 'Two') FROM Account ORDER BY Id", "Contacts")
        self.assertEqual((rows[0]["totalSize"], rows[0]["records"][0]["LastName"], rows[1]), (1, "One", None))

    def test_aggregates(self):
        count = self.query("SELECT COUNT() FROM Account WHERE Industry = 'Energy'").json
        self.assertEqual((count["totalSize"], count["records"]), (2, []))
        self.assertEqual(self.query("SELECT count(Id) FROM Account").json["records"],
                         [{"attributes": {"type": "AggregateResult"}, "expr0": 4}])
        rows = self.rows("SELECT Industry, COUNT(Id) n, max(AnnualRevenue) FROM Account GROUP BY Industry ORDER BY Industry", "a", "b")
        self.assertEqual([(r["Industry"], r["n"], r["expr0"]) for r in rows], [(None, 1, 7), ("Banking", 1, 5), ("Energy", 2, 50)])
        self.refused("SELECT Name, COUNT(Id) FROM Account GROUP BY Industry", "MALFORMED_QUERY")

    def test_fields_function(self):
        self.assertIn("BillingAddress", self.rows("SELECT FIELDS(ALL) FROM Account LIMIT 1", "a", "b")[0])
        self.refused("SELECT FIELDS(ALL) FROM Account", "MALFORMED_QUERY")

    def test_errors(self):
        message = self.refused("select count() from XYZZY", "INVALID_TYPE")
        self.assertEqual(message, "\nselect count() from XYZZY\n                    ^\nERROR at Row:1:Column:21\nsObject type 'XYZZY' "
                         "is not supported. If you are attempting to use a custom object, be sure to append the '__c' after the entity "
                         "name. Please reference your WSDL or the describe call for the appropriate names.")
        message = self.refused("SELECT Nope__c FROM Account", "INVALID_FIELD")
        self.assertTrue(message.startswith("\nSELECT Nope__c FROM Account\n       ^\nERROR at Row:1:Column:8\nNo such column 'Nope__c' "
                                           "on entity 'Account'."), message)
        for text, code in [("SELECT FROM WHERE", "MALFORMED_QUERY"), ("SELECT Id FROM Account WHERE", "MALFORMED_QUERY"),
                           ("SELECT Id FROM Account WHERE Name = 'a' AND Name = 'b' OR Name = 'c'", "MALFORMED_QUERY"),
                           ("SELECT Id FROM Account WHERE Name = 'a\\x'", "MALFORMED_QUERY"), ("SELECT Id FROM Account WHERE Name = 'a", "MALFORMED_QUERY"),
                           ("SELECT Id FROM Account WHERE Name = 5", "INVALID_FIELD"), ("SELECT Id FROM Account WHERE AnnualRevenue = '5'", "INVALID_FIELD"),
                           ("SELECT Id FROM Account WHERE CreatedDate > '2020-01-01'", "INVALID_FIELD"), ("SELECT Id FROM Account WHERE CreatedDate > 2020-01-01", "INVALID_FIELD"),
                           ("SELECT Id FROM Account WHERE Notes__c = 'long'", "INVALID_FIELD"), ("SELECT Id FROM Account WHERE Id = 'junk'", "INVALID_QUERY_FILTER_OPERATOR"),
                           ("SELECT Nope.Name FROM Account", "INVALID_FIELD"), ("SELECT Id, Id FROM Account", "INVALID_FIELD"),
                           (f"SELECT Id FROM Account WHERE Name = '{'x' * 4001}'", "MALFORMED_QUERY")]:
            self.refused(text, code)
        self.assertEqual(self.call("POST", "query", {"q": "x"}).status, 405)

    def test_injection(self):
        self.assertEqual(self.names("WHERE Name = 'x\\' OR 1=1 --'"), [])
        self.assertEqual(self.names("WHERE Name = '\"); DROP TABLE Account; --'"), [])

    def test_pages(self):
        for start in range(0, 600, 200):
            self.upsert("Invoice__c", "PG_Key__c", *[{"PG_Key__c": str(i)} for i in range(start, start + 200)])
        page = self.query("SELECT PG_Key__c FROM Invoice__c ORDER BY Id", Sforce_Query_Options="batchSize=200").json
        self.assertEqual((page["totalSize"], page["done"], len(page["records"])), (600, False, 200))
        self.assertTrue(page["nextRecordsUrl"].endswith("-200"), page["nextRecordsUrl"])
        seen = [r["PG_Key__c"] for r in page["records"]]
        while not page["done"]:
            page = self.call("GET", page["nextRecordsUrl"], Sforce_Query_Options="batchSize=200").json
            seen += [r["PG_Key__c"] for r in page["records"]]
        self.assertEqual(seen, [str(i) for i in range(600)])
        self.assertNotIn("nextRecordsUrl", page)
        self.assertEqual(self.call("GET", "query/01gfs0000000009AAA-200").code, "INVALID_QUERY_LOCATOR")
        self.config(page_size=50)
        self.assertEqual(len(self.query("SELECT Id FROM Invoice__c").json["records"]), 50)

    def test_query_all(self):
        self.control("POST", "delete", {"object": "Account", "match": {"PG_Key__c": "c"}})
        self.assertEqual("".join(self.names("ORDER BY Id")), "AbÉ")
        found = self.call("GET", "queryAll?q=" + quote("SELECT Name, IsDeleted FROM Account WHERE IsDeleted = true")).json
        self.assertEqual([(r["Name"], r["IsDeleted"]) for r in found["records"]], [("GAMMA_1", True)])

    def test_multipicklist(self):
        self.create("Everything__c", Name="e", Multi__c="Mon;Tue")
        for where, count in [("INCLUDES ('Mon')", 1), ("INCLUDES ('Mon;Wed')", 0), ("INCLUDES ('Wed', 'Tue;Mon')", 1), ("EXCLUDES ('Mon')", 0)]:
            self.assertEqual(self.query(f"SELECT COUNT() FROM Everything__c WHERE Multi__c {where}").json["totalSize"], count, where)

    def test_updated_and_deleted(self):
        self.control("POST", "delete", {"object": "Account", "match": {"PG_Key__c": "c"}})
        span = "start=2027-01-15T07:59:00%2B00:00&end=2027-01-15T08:01:00%2B00:00"
        self.assertEqual(len(self.call("GET", f"sobjects/Account/updated/?{span}").json["ids"]), 3)
        deleted = self.call("GET", f"sobjects/Account/deleted/?{span}").json
        self.assertEqual((len(deleted["deletedRecords"]), deleted["deletedRecords"][0]["deletedDate"][:19]), (1, "2027-01-15T08:00:00"))
        self.assertEqual(self.call("GET", "sobjects/Account/updated/?start=2027-01-15T08:00:00Z&end=2027-01-15T07:00:00Z").code,
                         "INVALID_REPLICATION_DATE")


class TestDeletesAndHistory(Base):
    def test_children(self):
        account = self.create("Account", Name="a")
        contact = self.create("Contact", LastName="c", AccountId=account)
        other = self.create("Contact", LastName="d")
        invoice = self.create("Invoice__c", Account__c=account, Contact__c=other, Name="I1")
        refused = self.call("DELETE", f"sobjects/Contact/{other}")
        self.assertEqual((refused.status, refused.code), (400, "DELETE_FAILED"))
        self.assertIn("associated with the following invoices.: I1", refused.json[0]["message"])
        self.assertEqual(self.call("DELETE", f"sobjects/Account/{account}").status, 204)
        self.assertEqual(self.call("DELETE", f"sobjects/Contact/{contact}").code, "ENTITY_IS_DELETED")
        self.assertIsNone(self.get("Invoice__c", invoice)["Account__c"])

    def test_merge(self):
        one, two = (self.create("Account", Name=n) for n in "ab")
        contact = self.create("Contact", LastName="c", AccountId=two)
        self.control("POST", "merge", {"object": "Account", "winner": one, "loser": two})
        self.assertEqual(self.get("Contact", contact)["AccountId"], one)
        gone = [r for r in self.control("GET", "records?object=Account&deleted=1") if r["IsDeleted"]]
        self.assertEqual((gone[0]["Id"], gone[0]["MasterRecordId"]), (two, one))

    def test_history(self):
        account = self.create("Account", Name="a", Phone="1")
        self.call("PATCH", f"sobjects/Account/{account}", {"Phone": "2", "Site": "x"})
        self.control("POST", "edit", {"object": "Account", "id": account, "fields": {"Phone": None}, "at": "2028-01-01T00:00:00Z"})
        rows = self.rows(f"SELECT Field, OldValue, NewValue, CreatedBy.Name, CreatedDate FROM AccountHistory WHERE AccountId = '{account}' "
                         "ORDER BY Id", "a", "b")
        self.assertEqual([(r["Field"], r["OldValue"], r["NewValue"], r["CreatedBy"]["Name"]) for r in rows],
                         [("created", None, None, "Integration User"), ("Phone", "1", "2", "Integration User"),
                          ("Phone", "2", None, "Sales Representative")])
        self.assertEqual(rows[2]["CreatedDate"], "2028-01-01T00:00:00.000+0000")
        made = self.create("Invoice__c", Amount__c=1)
        self.call("PATCH", f"sobjects/Invoice__c/{made}", {"Amount__c": 2})
        self.assertEqual(self.rows(f"SELECT NewValue FROM Invoice__History WHERE ParentId = '{made}' AND Field = 'Amount__c'", "NewValue"), [2])


class TestTooling(Base):
    META = {"label": "Foo", "type": "Text", "length": 20}

    def make(self, name="Account.Foo__c", **more):
        return self.call("POST", "tooling/sobjects/CustomField", {"FullName": name, "Metadata": {**self.META, **more}})

    def described(self):
        return {f["name"]: f for f in self.call("GET", "sobjects/Account/describe").json["fields"]}

    def test_field_needs_permission(self):
        made = self.make()
        self.assertEqual((made.status, made.json["success"], made.json["id"][:3]), (201, True, "00N"))
        self.assertNotIn("Foo__c", self.described())
        self.assertEqual(self.call("POST", "sobjects/Account", {"Name": "a", "Foo__c": "x"}).code, "INVALID_FIELD")
        user = self.call("GET", "/services/oauth2/userinfo").json["user_id"]
        group = self.create("PermissionSet", Name="PG_Sync", Label="PG Sync")
        self.create("FieldPermissions", ParentId=group, SobjectType="Account", Field="Account.Foo__c", PermissionsRead=True, PermissionsEdit=True)
        self.assertNotIn("Foo__c", self.described())
        assignment = {"AssigneeId": user, "PermissionSetId": group}
        self.create("PermissionSetAssignment", **assignment)
        self.assertTrue(self.described()["Foo__c"]["updateable"])
        self.create("Account", Name="a", Foo__c="x")
        self.assertEqual(self.call("POST", "sobjects/PermissionSetAssignment", assignment).code, "DUPLICATE_VALUE")
        self.assertEqual(self.call("POST", "sobjects/FieldPermissions", {
            "ParentId": group, "SobjectType": "Account", "Field": "Account.Nope__c", "PermissionsRead": True}).status, 400)

    def test_errors(self):
        self.make()
        answer = self.make()
        self.assertEqual((answer.status, answer.code), (400, "DUPLICATE_DEVELOPER_NAME"))
        self.assertEqual(self.make("Account.A__c", length=300).code, "FIELD_INTEGRITY_EXCEPTION")
        self.assertEqual(self.make("Account.A__c", type="Nope").status, 400)
        self.assertEqual(self.make("Account.A").status, 400)

    def test_types_and_query(self):
        for i, more in enumerate([{"type": "LongTextArea", "length": 32768, "visibleLines": 3}, {"type": "Number", "precision": 18, "scale": 2},
                                  {"type": "Checkbox", "defaultValue": "false"}, {"type": "DateTime"}, {"type": "TextArea"}, {"type": "Date"},
                                  {"type": "Picklist", "valueSet": {"restricted": True, "valueSetDefinition": {"value": [{"fullName": "A", "label": "A"}]}}},
                                  {"type": "Lookup", "referenceTo": "Contact", "relationshipName": "Xs"}, {"type": "Email"}, {"type": "Time"}]):
            self.assertEqual(self.make(f"Account.T{i}__c", **more).status, 201, more)
        found = self.call("GET", "tooling/query?q=" + quote("SELECT Id, DeveloperName FROM CustomField WHERE TableEnumOrId = 'Account' "
                                                            "AND DeveloperName = 'T3'")).json
        self.assertEqual(found["totalSize"], 1)


class TestTransport(Base):
    def test_headers(self):
        answer = self.call("GET", "limits")
        self.assertEqual(answer.headers["Content-Type"], "application/json;charset=UTF-8")
        self.assertEqual(answer.headers["Transfer-Encoding"], "chunked")
        self.assertNotIn("Content-Length", answer.headers)
        self.assertEqual(len(answer.headers.get_all("Set-Cookie")), 2)
        self.assertRegex(answer.headers["X-Sfdc-Request-Id"], "^[0-9a-f]{32}$")
        names = {next(n for n in self.call("GET", "limits").headers if n.lower() == "server") for _ in range(2)}
        self.assertEqual(names, {"Server", "server"})
        self.config(chunked=False)
        self.assertIn("Content-Length", self.call("GET", "limits").headers)

    def test_date_follows_the_clock(self):
        self.config(now=1800000000)
        self.assertEqual(self.call("GET", "limits", Authorization="Bearer x").headers["Date"], "Fri, 15 Jan 2027 08:00:00 GMT")

    def test_gzip(self):
        answer = self.call("GET", "sobjects/Account/describe", Accept_Encoding="gzip, deflate")
        self.assertEqual(answer.headers["Content-Encoding"], "gzip")
        self.assertEqual(answer.json["name"], "Account")
        packed = gzip.compress(json.dumps({"Name": "zipped"}).encode())
        self.assertEqual(self.call("POST", "sobjects/Account", packed, Content_Encoding="gzip").status, 201)
        self.assertEqual(self.rows("SELECT Name FROM Account", "Name"), ["zipped"])

    def test_pretty(self):
        self.assertIn('"Max" : ', self.call("GET", "limits", X_PrettyPrint="1").text)

    def test_sizes(self):
        self.assertIn(self.query("SELECT Id FROM Account WHERE Name = '" + "x" * 17000).status, (414, 431))
        self.config(max_body=1000)
        answer = self.call("POST", "sobjects/Account", {"Name": "a", "Notes__c": "x" * 2000})
        self.assertEqual((answer.status, answer.code), (413, "EXCEEDED_MAX_SIZE_REQUEST"))

    def test_expect(self):
        with socket.create_connection(("127.0.0.1", PORT), timeout=10) as link:
            link.sendall(f"POST {V}/sobjects/Account HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.token}\r\nContent-Type: "
                         "application/json\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n".encode())
            self.assertTrue(link.recv(100).startswith(b"HTTP/1.1 100 "))
            link.sendall(b'{"Name":"a"}')
            self.assertTrue(link.recv(1000).startswith(b"HTTP/1.1 201 "))

    def test_tls_and_file(self):
        with tempfile.TemporaryDirectory() as folder:
            cert, key = folder + "/cert", folder + "/key"
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=localhost",
                            "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"], capture_output=True, check=True)
            with subprocess.Popen([os.path.join(HERE, "serve"), "--port", "0", "--db", folder + "/db", "--tls-cert", cert, "--tls-key", key],
                                  stdout=subprocess.PIPE, text=True) as server:
                try:
                    line = server.stdout.readline().strip()
                    self.assertIn("https://127.0.0.1:", line)
                    import ssl
                    link = http.client.HTTPSConnection("127.0.0.1", int(line.rsplit(":", 1)[1]), context=ssl.create_default_context(cafile=cert))
                    self.assertEqual(self.raw("GET", "/services/data", connection=link).status, 200)
                    link.close()
                finally:
                    server.terminate()


class TestFaults(Base):
    def fault(self, action, **more):
        return self.control("POST", "fault", {"name": "f", "match": {"kind": "create"}, "times": 1, "action": action, **more})

    def attempt(self):
        link = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
        try:
            return self.call("POST", "sobjects/Account", {"Name": "a"}, connection=link)
        finally:
            link.close()

    def count(self):
        return self.control("GET", "count?object=Account")["count"]

    def test_status(self):
        self.fault({"status": 503, "body": "<html>down</html>", "headers": {"Retry-After": "3"}}, skip=1)
        self.assertEqual(self.attempt().status, 201)
        answer = self.attempt()
        self.assertEqual((answer.status, answer.text, answer.headers["Retry-After"]), (503, "<html>down</html>", "3"))
        self.assertIn("text/html", answer.headers["Content-Type"])
        self.assertEqual(self.attempt().status, 201)
        self.assertEqual(self.control("GET", "faults")[0]["hits"], 1)
        self.assertEqual([c["fault"] for c in self.control("GET", "log")["requests"][-3:]], [None, "f", None])

    def test_close(self):
        self.fault({"close": "before"})
        self.assertRaises((http.client.HTTPException, ConnectionError), self.attempt)
        self.assertEqual(self.count(), 0)
        self.fault({"close": "after"})
        self.assertRaises((http.client.HTTPException, ConnectionError), self.attempt)
        self.assertEqual(self.count(), 1)

    def test_hang(self):
        for apply, wanted in ((False, 0), (True, 1), ("late", 2)):
            self.fault({"hang": 0.05, "apply": apply})
            self.assertRaises((http.client.HTTPException, ConnectionError), self.attempt)
            self.assertEqual(self.count(), wanted)

    def test_late_apply_outlives_the_client(self):
        self.fault({"hang": 0.3, "apply": "late"})
        link = http.client.HTTPConnection("127.0.0.1", PORT, timeout=0.05)
        self.assertRaises(TimeoutError, self.call, "POST", "sobjects/Account", {"Name": "a"}, connection=link)
        link.close()
        self.poll(lambda: self.count() == 1)

    def poll(self, good):
        end = time.monotonic() + 10
        while not good():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_bodies(self):
        self.fault({"garbage": "{not json"})
        self.assertEqual(self.attempt().text, "{not json")
        self.fault({"truncate": 10})
        self.assertRaises(http.client.IncompleteRead, self.attempt)
        self.fault({"huge": 3000000})
        self.assertGreater(len(self.attempt().raw), 3000000)
        self.assertEqual(self.count(), 3)

    def test_results(self):
        body = [{"PG_Key__c": k, "Name": k} for k in "abc"]
        for how, size in (("short", 2), ("long", 4), ("missing_keys", 3)):
            self.fault({"results": how}, match={"kind": "collections_upsert", "object": "Account"})
            results = self.upsert("Account", "PG_Key__c", *body)
            self.assertEqual(len(results), size)
        self.assertEqual(results[0], {"success": True})

    def test_records(self):
        error = {"statusCode": "UNABLE_TO_LOCK_ROW", "message": "unable to obtain exclusive access to this record", "fields": []}
        self.control("POST", "fault", {"name": "lock", "record": {"object": "Account", "regex": {"PG_Key__c": "^b"}, "error": error, "times": 1}})
        body = [{"PG_Key__c": k, "Name": k} for k in ("a", "b1", "b2")]
        self.assertEqual([r["success"] for r in self.upsert("Account", "PG_Key__c", *body)], [True, False, True])
        self.assertEqual(self.upsert("Account", "PG_Key__c", *body)[1]["created"], True)
        self.control("DELETE", "faults?name=lock")
        self.assertEqual(self.control("GET", "faults"), [])

    def test_token_fault(self):
        self.control("POST", "fault", {"name": "t", "match": {"kind": "token"}, "action": {"status": 500, "body": {"error": "server_error"}}})
        self.assertEqual(self.login().status, 500)


class TestControl(Base):
    def test_edit(self):
        record_id = self.create("Account", Name="a")
        self.control("POST", "edit", {"object": "Account", "match": {"Name": "a"}, "fields": {"Name": "b"}, "at": "2026-01-01T00:00:00Z"})
        row = self.get("Account", record_id)
        self.assertEqual((row["Name"], row["LastModifiedDate"]), ("b", "2026-01-01T00:00:00.000+0000"))
        self.assertNotEqual(row["LastModifiedById"], row["CreatedById"])
        made = self.control("POST", "create", {"object": "Contact", "fields": {"LastName": "x"}, "user": "admin"})["id"]
        self.assertEqual(self.get("Contact", made)["LastName"], "x")
        self.control("POST", "delete", {"object": "Contact", "id": made})
        self.assertEqual(self.call("GET", f"sobjects/Contact/{made}").status, 404)
        self.assertEqual(self.raw("POST", "/_control/edit", '{"object":"Account","id":"x"}').status, 400)
        self.assertEqual(self.raw("POST", "/_control/config", '{"nonsense":1}').status, 400)
        self.assertEqual(self.raw("GET", "/_control/nonsense").status, 404)

    def test_log(self):
        self.config(keep_bodies=True)
        self.call("POST", "sobjects/Account", {"Name": "a", "PG_Key__c": "k"})
        call = self.control("GET", "log?bodies=1")["requests"][-1]
        self.assertEqual((call["kind"], call["status"], call["external_ids"], call["user"]), ("create", 201, ["k"], "integration@sfsync.example"))
        self.assertIn('"PG_Key__c"', call["body"])
        self.assertLessEqual(call["at"], call["done_at"])
        self.assertEqual(self.control("GET", f"log?since={call['seq']}"), {"requests": []})
        self.control("DELETE", "log")
        self.assertEqual(self.control("GET", "stats")["by_kind"], {})

    def test_overlap(self):
        self.config(latency=0.2)
        def write(key):
            link = http.client.HTTPConnection("127.0.0.1", PORT, timeout=20)
            self.call("PATCH", f"sobjects/Account/PG_Key__c/{key}", {"Name": "a"}, connection=link)
            link.close()
        def together(*keys):
            threads = [threading.Thread(target=write, args=(k,)) for k in keys]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return self.control("GET", "stats")
        self.assertEqual(together("a", "b")["same_record_overlap"], 0)
        stats = together("a", "a")
        self.assertEqual((stats["same_record_overlap"], stats["max_in_flight"], stats["in_flight"]), (1, 2, 0))

    def test_automation(self):
        self.control("POST", "automation", {"object": "Account", "when": "save", "set": {"Site": "robot"}})
        record_id = self.create("Account", Name="a", Site="mine")
        self.assertEqual(self.get("Account", record_id)["Site"], "robot")
        self.control("POST", "edit", {"object": "Account", "id": record_id, "fields": {"Site": "hand"}})
        self.assertEqual(self.get("Account", record_id)["Site"], "hand")

    def test_states(self):
        self.config(maintenance=True)
        result = self.upsert("Account", "PG_Key__c", {"PG_Key__c": "a", "Name": "a"})[0]
        self.assertEqual(self.error(result), "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE")
        self.config(maintenance=False, storage_full=True)
        self.assertEqual(self.error(self.upsert("Account", "PG_Key__c", {"PG_Key__c": "a", "Name": "a"})[0]), "STORAGE_LIMIT_EXCEEDED")

    def test_reset_keeps_schema(self):
        self.control("POST", "schema", {"object": "Account", "field": "Kept__c", "action": "add", "definition": {"type": "Text", "length": 9}})
        self.create("Account", Name="a", Kept__c="x")
        self.control("POST", "reset", {"keep_schema": True})
        self.token = self.login().json["access_token"]
        self.assertEqual(self.control("GET", "count?object=Account")["count"], 0)
        self.create("Account", Name="a", Kept__c="x")


if __name__ == "__main__":
    unittest.main()
