"""Collections and the composite family."""
from urllib.parse import quote

from .base import Base, COLLECTION, V


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
