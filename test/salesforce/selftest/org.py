"""Deletes, history, tooling, transport, faults, the control API."""
import gzip
import http.client
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from urllib.parse import quote

from .base import Base, HERE, PORT, V


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


    def test_history_of_lookups(self):
        """Two rows, of name and id; a standard lookup goes by the name of its relation."""
        for obj, field in (("Contact", "AccountId"), ("Contact", "OwnerId"), ("Invoice__c", "Account__c")):
            self.control("POST", "schema", {"object": obj, "field": field, "action": "modify", "definition": {"trackHistory": True}})
        one, two = (self.create("Account", Name=n) for n in "ab")
        owner = self.rows("SELECT Id FROM User WHERE Name = 'Sales Representative'", "Id")[0]
        contact = self.create("Contact", LastName="c", AccountId=one)
        self.call("PATCH", f"sobjects/Contact/{contact}", {"AccountId": two, "OwnerId": owner})
        self.call("PATCH", f"sobjects/Contact/{contact}", {"AccountId": None})
        rows = self.rows(f"SELECT Field, DataType, OldValue, NewValue FROM ContactHistory WHERE ContactId = '{contact}' AND "
                         "Field = 'Account' ORDER BY Id", "a", "b")
        self.assertEqual([(r["DataType"], r["OldValue"], r["NewValue"]) for r in rows],
                         [("Text", "a", "b"), ("EntityId", one, two), ("Text", "b", None), ("EntityId", two, None)])
        self.assertEqual(self.rows(f"SELECT NewValue FROM ContactHistory WHERE ContactId = '{contact}' AND Field = 'Owner' "
                                   "ORDER BY Id", "NewValue"), ["Sales Representative", owner])
        invoice = self.create("Invoice__c", Account__c=one)
        self.call("PATCH", f"sobjects/Invoice__c/{invoice}", {"Account__c": two})
        self.assertEqual(self.rows(f"SELECT NewValue FROM Invoice__History WHERE ParentId = '{invoice}' AND Field = 'Account__c' "
                                   "ORDER BY Id", "NewValue"), ["b", two])

    def test_history_of_automation(self):
        """What a flow changes in the same save is history too."""
        account = self.create("Account", Name="a", Phone="1")
        self.control("POST", "automation", {"object": "Account", "when": "save", "set": {"Phone": "9"}})
        for _ in range(2):
            self.call("PATCH", f"sobjects/Account/{account}", {"Site": "x"})
        rows = self.rows(f"SELECT OldValue, NewValue FROM AccountHistory WHERE AccountId = '{account}' AND Field = 'Phone'", "a", "b")
        self.assertEqual([(r["OldValue"], r["NewValue"]) for r in rows], [("1", "9")])


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
