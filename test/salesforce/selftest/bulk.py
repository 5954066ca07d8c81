"""Bulk API 2.0."""
import csv
import io
import time
from urllib.parse import quote

from .base import Base, COLLECTION, V

INGEST = V + "/jobs/ingest"
QUERY = V + "/jobs/query"


class BulkBase(Base):
    def setUp(self):
        super().setUp()
        self.config(bulk_delay=0)

    def open(self, operation="upsert", obj="Account", key="PG_Key__c", **more):
        body = {"object": obj, "operation": operation, "contentType": "CSV", **more}
        if operation == "upsert":
            body["externalIdFieldName"] = key
        answer = self.call("POST", INGEST, body)
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json["id"]

    def put(self, job, text):
        return self.call("PUT", f"{INGEST}/{job}/batches", text, Content_Type="text/csv")

    def state(self, job, state):
        return self.call("PATCH", f"{INGEST}/{job}", {"state": state})

    def info(self, job):
        return self.call("GET", f"{INGEST}/{job}").json

    def wait(self, job, *states):
        deadline = time.time() + 10
        while time.time() < deadline:
            info = self.info(job)
            if info["state"] in (states or ("JobComplete", "Failed", "Aborted")):
                return info
            time.sleep(0.01)
        self.fail(f"the job is still {info['state']}")

    def run_job(self, text, *args, **more):
        """(info, job) of a whole job."""
        job = self.open(*args, **more)
        self.assertEqual(self.put(job, text).status, 201)
        self.assertEqual(self.state(job, "UploadComplete").status, 200)
        return self.wait(job), job

    def results(self, job, which="successfulResults"):
        answer = self.call("GET", f"{INGEST}/{job}/{which}/")
        self.assertEqual(answer.status, 200, answer.text)
        return list(csv.DictReader(io.StringIO(answer.text, newline="")))

    def failed(self, text, message, *args, **more):
        info, job = self.run_job(text, *args, **more)
        self.assertEqual((info["state"], info["numberRecordsProcessed"]), ("Failed", 0))
        self.assertRegex(info["errorMessage"], message)
        self.assertEqual(self.results(job), [])

    def errors(self, job):
        return [r["sf__Error"] for r in self.results(job, "failedResults")]

    def refused(self, answer, status, code):
        self.assertEqual((answer.status, answer.code), (status, code), answer.text)


class TestBulkJobs(BulkBase):
    def test_life(self):
        made = self.call("POST", INGEST, {"object": "Account", "operation": "upsert", "externalIdFieldName": "PG_Key__c"}).json
        self.assertEqual({k: made[k] for k in ("state", "apiVersion", "contentUrl", "lineEnding", "columnDelimiter",
                                               "externalIdFieldName", "contentType", "concurrencyMode")},
                         {"state": "Open", "apiVersion": 66.0, "lineEnding": "LF", "columnDelimiter": "COMMA",
                          "contentUrl": f"services/data/v66.0/jobs/ingest/{made['id']}/batches", "contentType": "CSV",
                          "externalIdFieldName": "PG_Key__c", "concurrencyMode": "Parallel"})
        job = made["id"]
        answer = self.put(job, "PG_Key__c,Name\na,one\nb,two\n")
        self.assertEqual((answer.status, answer.text), (201, ""))
        closed = self.state(job, "UploadComplete")
        self.assertEqual((closed.status, closed.json["state"], "contentUrl" in closed.json), (200, "UploadComplete", False))
        info = self.wait(job)
        self.assertEqual((info["state"], info["jobType"], info["numberRecordsProcessed"], info["numberRecordsFailed"]),
                         ("JobComplete", "V2Ingest", 2, 0))
        self.assertEqual({(r["sf__Created"], r["PG_Key__c"], r["Name"]) for r in self.results(job)},
                         {("true", "a", "one"), ("true", "b", "two")})
        self.assertEqual(self.rows("SELECT Name FROM Account ORDER BY Name", "Name"), ["one", "two"])
        self.assertEqual([j["id"] for j in self.call("GET", INGEST + "?jobType=V2Ingest").json["records"]], [job])
        self.assertEqual(self.call("DELETE", f"{INGEST}/{job}").status, 204)
        self.refused(self.call("GET", f"{INGEST}/{job}"), 404, "NOT_FOUND")

    def test_kinds_in_the_log(self):
        _info, job = self.run_job("PG_Key__c,Name\na,one\n")
        self.results(job)
        self.call("GET", INGEST)
        self.state(job, "Aborted")
        self.call("DELETE", f"{INGEST}/{job}")
        log = [r for r in self.control("GET", "log")["requests"] if r["kind"] not in ("token", "bulk_info")]
        self.assertEqual([r["kind"] for r in log], ["bulk_create", "bulk_upload", "bulk_close", "bulk_results", "bulk_list",
                                                    "bulk_abort", "bulk_delete"])
        self.assertEqual((log[1]["records"], log[1]["external_ids"]), (1, ["a"]))

    def test_states(self):
        self.config(bulk_delay=60)
        job = self.open()
        self.refused(self.state(job, "UploadComplete"), 400, "INVALIDJOBSTATE")     # no data
        self.refused(self.call("DELETE", f"{INGEST}/{job}"), 400, "INVALIDJOBSTATE")
        self.assertEqual(self.put(job, "PG_Key__c,Name\na,one\n").status, 201)
        self.refused(self.put(job, "PG_Key__c,Name\na,one\n"), 400, "INVALIDJOBSTATE")   # one PUT a job
        self.refused(self.call("GET", f"{INGEST}/{job}/successfulResults"), 400, "INVALIDJOBSTATE")
        self.state(job, "UploadComplete")
        self.refused(self.put(job, "x\n"), 400, "INVALIDJOBSTATE")
        self.refused(self.state(job, "UploadComplete"), 400, "INVALIDJOBSTATE")
        self.assertEqual(self.info(job)["state"], "UploadComplete")
        self.assertEqual(self.state(job, "Aborted").json["state"], "Aborted")
        self.refused(self.state(job, "Aborted"), 400, "INVALIDJOBSTATE")
        self.assertEqual(len(self.results(job, "unprocessedrecords")), 1)
        self.assertEqual(self.control("GET", "count?object=Account")["count"], 0)
        self.refused(self.state(self.open(), "Nope"), 400, "INVALIDJOB")

    def test_bad_jobs(self):
        for body, code in [({"operation": "merge"}, "INVALIDJOB"), ({"object": "Nope", "operation": "insert"}, "INVALIDENTITY"),
                           ({"operation": "upsert"}, "INVALIDJOB"), ({"operation": "insert", "externalIdFieldName": "Id"}, "INVALIDJOB"),
                           ({"operation": "upsert", "externalIdFieldName": "Site"}, "INVALIDJOB"),
                           ({"operation": "insert", "lineEnding": "CR"}, "INVALIDJOB"),
                           ({"operation": "insert", "columnDelimiter": ","}, "INVALIDJOB"),
                           ({"operation": "insert", "contentType": "JSON"}, "INVALIDJOB"),
                           ({"operation": "insert", "nope": 1}, "JSON_PARSER_ERROR")]:
            self.refused(self.call("POST", INGEST, {"object": "Account", **body}), 400, code)
        self.config(bulk_batch_limit=0)
        self.refused(self.call("POST", INGEST, {"object": "Account", "operation": "insert"}), 400, "EXCEEDEDQUOTA")
        self.refused(self.call("GET", INGEST + "/7500000000000000AA"), 404, "NOT_FOUND")
        self.assertEqual(self.call("POST", INGEST + "/x/y/z", {}).status, 404)
        self.refused(self.call("DELETE", INGEST), 405, "METHOD_NOT_ALLOWED")

    def test_upload_is_csv_and_bounded(self):
        job = self.open()
        self.refused(self.call("PUT", f"{INGEST}/{job}/batches", "{}"), 400, "INVALIDCONTENTTYPE")
        self.config(bulk_max_upload=10)
        self.assertEqual(self.put(job, "PG_Key__c,Name\n").status, 413)
        self.config(bulk_max_upload=1000)
        self.assertEqual(self.put(job, "PG_Key__c,Name\n").status, 201)

    def test_multipart(self):
        parts = ('--B\r\nContent-Type: application/json\r\nContent-Disposition: form-data; name="job"\r\n\r\n'
                 '{"object":"Account","operation":"insert"}\r\n--B\r\nContent-Type: text/csv\r\n'
                 'Content-Disposition: form-data; name="content"; filename="content"\r\n\r\nName\none\n\r\n--B--\r\n')
        answer = self.call("POST", INGEST, parts, Content_Type='multipart/form-data; boundary="B"')
        self.assertEqual(answer.status, 200, answer.text)
        self.assertEqual(self.wait(answer.json["id"])["state"], "JobComplete")
        self.assertEqual(self.rows("SELECT Name FROM Account", "Name"), ["one"])

    def test_time(self):
        job, other = self.open(), self.run_job("PG_Key__c,Name\na,one\n")[1]
        self.config(clock_offset=25 * 3600, token_lifetime=10 ** 9)
        self.assertEqual((self.info(job)["state"], self.info(other)["state"]), ("Aborted", "JobComplete"))
        self.config(clock_offset=8 * 86400)
        self.assertEqual(self.call("GET", f"{INGEST}/{other}").status, 404)

    def test_it_runs_in_chunks_beside_requests(self):
        self.config(bulk_chunk_delay=30)
        job = self.open()
        self.put(job, "PG_Key__c,Name\n" + "".join(f"k{i},n\n" for i in range(500)))
        self.state(job, "UploadComplete")
        self.wait(job, "InProgress")
        self.config(bulk_chunk_delay=0)
        self.upsert("Account", "PG_Key__c", {"PG_Key__c": "other", "Name": "n"})
        self.state(job, "Aborted")
        info = self.info(job)
        self.assertEqual((info["state"], info["numberRecordsProcessed"]), ("Aborted", 0))
        self.assertEqual(len(self.results(job, "unprocessedrecords")), 500)

    def test_failure_in_the_middle(self):
        self.config(bulk_fail_after=2)
        info, job = self.run_job("PG_Key__c,Name\n" + "".join(f"k{i},n\n" for i in range(500)))
        self.assertEqual((info["state"], info["numberRecordsProcessed"]), ("Failed", 400))
        self.assertEqual((len(self.results(job)), len(self.results(job, "unprocessedrecords"))), (400, 100))
        self.assertEqual(self.control("GET", "count?object=Account")["count"], 400)

    def test_writers_are_seen(self):
        self.upsert("Account", "PG_Key__c", {"PG_Key__c": "a", "Name": "n"})
        self.config(bulk_delay=60)
        job = self.open()
        self.put(job, "PG_Key__c,Name\na,n\n")
        self.state(job, "UploadComplete")
        self.upsert("Account", "PG_Key__c", {"PG_Key__c": "b", "Name": "n"})
        self.upsert("Account", "PG_Key__c", {"PG_Key__c": "a", "Name": "n"})
        self.config(bulk_delay=0)
        self.wait(job)
        self.assertEqual(self.control("GET", "stats")["same_record_overlap"], 1)


class TestBulkCsv(BulkBase):
    def test_values(self):
        text = ("PG_Key__c,Name,AnnualRevenue,NumberOfEmployees,Archived__c,Archived_At__c,Site,Description\n"
                'a,"one, ""two""",912260031,100,true,2026-01-02T03:04:05.000Z, kept ,"line\nbreak"\n')
        info, job = self.run_job(text)
        self.assertEqual((info["state"], info["numberRecordsFailed"]), ("JobComplete", 0))
        raw = self.call("GET", f"{INGEST}/{job}/successfulResults").text
        self.assertTrue(raw.startswith('"sf__Id","sf__Created",PG_Key__c,Name,'))
        row = self.results(job)[0]
        self.assertEqual((row["AnnualRevenue"], row["NumberOfEmployees"], row["Name"]), ("9.12260031E8", "100", 'one, "two"'))
        stored = self.control("GET", "records?object=Account")[0]
        self.assertEqual((stored["Name"], stored["Site"], stored["Description"], stored["Archived__c"], stored["AnnualRevenue"]),
                         ('one, "two"', "kept", "line\nbreak", True, 912260031))

    def test_empty_leaves_and_na_clears(self):
        self.upsert("Account", "PG_Key__c", {"PG_Key__c": "a", "Name": "n", "Site": "s", "Phone": "1"})
        self.run_job("PG_Key__c,Site,Phone\na,,#N/A\n")
        stored = self.control("GET", "records?object=Account")[0]
        self.assertEqual((stored["Site"], stored["Phone"]), ("s", None))

    def test_header(self):
        self.failed("PG_Key__c,Foo__c\na,b\n", r"^InvalidBatch : Field name not found : Foo__c$")
        self.control("POST", "schema", {"object": "Account", "field": "Site", "action": "hide"})
        self.failed("PG_Key__c,Site\na,b\n", r"^InvalidBatch : Field name not found : Site$")
        self.failed("Name,name\na,b\n", "Duplicate", "insert")
        self.failed("", "no header")
        self.failed("Name," + ",".join(["x" * 100] * 330) + "\na\n", "32000 characters", "insert")

    def test_line_endings(self):
        message = "^ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is "
        self.failed("PG_Key__c,Name\r\na,b\r\n", message + "LF$")
        self.failed('PG_Key__c,Name\na,"b\r\nc"\n', message + "LF$")
        self.failed("PG_Key__c,Name\na,b\n", message + "CRLF$", lineEnding="CRLF")
        info, job = self.run_job('PG_Key__c,Name\r\na,"b\r\nc"\r\n', lineEnding="CRLF")
        self.assertEqual(info["numberRecordsProcessed"], 1)
        self.assertTrue(self.call("GET", f"{INGEST}/{job}/successfulResults").text.endswith('"b\r\nc"\r\n'))

    def test_form(self):
        self.failed('PG_Key__c,Name\na, "b"\n', "unexpected quote")
        self.failed('PG_Key__c,Name\na,"b" \n', "unexpected quote")
        self.failed('PG_Key__c,Name\na,"b\n', "unexpected quote")
        self.failed("PG_Key__c,Name\na\n", "has 1 fields")
        self.failed(b"PG_Key__c,Name\na,\xff\n", "UTF-8")
        self.failed("PG_Key__c,Name\na," + "x" * 131073 + "\n", "131072")
        self.failed("Name,Site,Phone,Fax\n" + ",".join(["x" * 110000] * 4) + "\n", "400000", "insert")

    def test_delimiters(self):
        for name, char in [("SEMICOLON", ";"), ("TAB", "\t"), ("PIPE", "|"), ("CARET", "^"), ("BACKQUOTE", "`")]:
            info, job = self.run_job(f"PG_Key__c{char}Name\n{name}{char}a,b\n", columnDelimiter=name)
            self.assertEqual(info["state"], "JobComplete")
            self.assertIn(f'"sf__Id"{char}', self.call("GET", f"{INGEST}/{job}/successfulResults").text)

    def test_relations(self):
        self.upsert("Account", "PG_Key__c", {"PG_Key__c": "p", "Name": "n"})
        _info, job = self.run_job("PG_Key__c,Name,Parent.PG_Key__c\na,n,p\nb,n,nope\nc,n,\nd,n,#N/A\n")
        self.assertEqual({r["PG_Key__c"] for r in self.results(job)}, {"a", "c"})
        self.assertEqual(set(self.errors(job)), {
            "INVALID_FIELD:Foreign key external ID: nope not found for field PG_Key__c in entity Account:--",
            "MISSING_ARGUMENT:PG_Key__c not specified:PG_Key__c --"})
        self.failed("PG_Key__c,Account:Parent.PG_Key__c\na,p\n", "type is not needed for non polymorphic foreign key references: Parent")
        self.failed("PG_Key__c,Nope.PG_Key__c\na,p\n", "Unable to find relationship: Nope")
        self.failed("PG_Key__c,Parent.Site\na,p\n", "Field name not found : Parent.Site")
        self.control("POST", "schema", {"object": "Invoice__c", "field": "Account__c", "action": "modify",
                                        "definition": {"referenceTo": ["Account", "Contact"]}})
        self.failed("PG_Key__c,Account__r.PG_Key__c\na,p\n", "type is needed", "upsert", "Invoice__c")
        info, _job = self.run_job("PG_Key__c,Account:Account__r.PG_Key__c\na,p\n", "upsert", "Invoice__c")
        self.assertEqual((info["state"], info["numberRecordsFailed"]), ("JobComplete", 0))


class TestBulkOperations(BulkBase):
    def test_insert(self):
        _info, job = self.run_job("PG_Key__c,Name\na,n\n,\n", "insert")
        self.assertEqual(self.errors(job), ["REQUIRED_FIELD_MISSING:Required fields are missing: [Name]:Name --"])
        _info, job = self.run_job("PG_Key__c,Name\na,n\n", "insert")
        self.assertRegex(self.errors(job)[0], "^DUPLICATE_VALUE:duplicate value found: PG_Key__c")
        self.assertEqual(self.results(job, "failedResults")[0]["sf__Id"], "")

    def test_update(self):
        one = self.create("Account", Name="a")
        _info, job = self.run_job(f"Id,Name\n{one},x\n,y\n001fs0000099999,z\n", "update")
        self.assertEqual([(r["sf__Id"], r["sf__Created"]) for r in self.results(job)], [(one, "false")])
        self.assertEqual({e.split(":")[0] for e in self.errors(job)}, {"MISSING_ARGUMENT", "INVALID_CROSS_REFERENCE_KEY"})
        bad = self.run_job(f"Id,Archived_At__c\n{one},yesterday\n", "update")[1]
        self.assertRegex(self.errors(bad)[0], "^INVALID_TYPE_ON_FIELD_IN_RECORD:.*:Archived_At__c --$")
        self.assertEqual(self.results(bad, "failedResults")[0]["sf__Id"], one)

    def test_upsert(self):
        self.upsert("Account", "PG_Key__c", {"PG_Key__c": "a", "Name": "old"})
        _info, job = self.run_job("PG_Key__c,Name\na,new\nb,n\n,n\n")
        self.assertEqual({(r["PG_Key__c"], r["sf__Created"]) for r in self.results(job)}, {("a", "false"), ("b", "true")})
        self.assertEqual(self.errors(job), ["MISSING_ARGUMENT:PG_Key__c not specified:PG_Key__c --"])
        numbers = self.run_job("Ext_Num__c,Name\n00123,n\n", key="Ext_Num__c")[1]
        self.assertEqual(self.results(numbers)[0]["Ext_Num__c"], "123.0")

    def test_duplicates_in_a_chunk_and_across(self):
        text = "PG_Key__c,Name\nx,first\nx,second\ny,first\n" + "".join(f"k{i},n\n" for i in range(300)) + "y,second\n"
        info, job = self.run_job(text)
        self.assertEqual((info["numberRecordsProcessed"], info["numberRecordsFailed"]), (304, 2))
        self.assertEqual(set(self.errors(job)), {"DUPLICATE_VALUE:Duplicate external id specified: x:PG_Key__c --"})
        self.assertEqual(self.rows("SELECT Name FROM Account WHERE PG_Key__c = 'y'", "Name"), ["second"])
        order = [r["PG_Key__c"] for r in self.results(job)]
        self.assertNotEqual(order, [line.split(",")[0] for line in text.split("\n")[1:] if line and line[0] != "x"])

    def test_delete(self):
        one, two = self.create("Account", Name="a"), self.create("Account", Name="b")
        info, job = self.run_job(f"Id\n{one}\n{two}\n{one}\nnope\n", "delete")
        self.assertEqual(info["numberRecordsFailed"], 2)
        self.assertEqual({e.split(":")[0] for e in self.errors(job)}, {"ENTITY_IS_DELETED", "MALFORMED_ID"})
        self.assertEqual(self.control("GET", "count?object=Account"), {"count": 0, "deleted": 2, "created_total": 2})
        self.failed(f"Id,Name\n{one},a\n", "single column Id", "delete")

    def test_hard_delete(self):
        one = self.create("Account", Name="a")
        self.create("Contact", LastName="c", AccountId=one)
        body = {"object": "Account", "operation": "hardDelete"}
        self.refused(self.call("POST", INGEST, body), 400, "FEATURENOTENABLED")
        self.config(bulk_hard_delete=True)
        info, job = self.run_job(f"Id\n{one}\n", "hardDelete")
        self.assertEqual((info["numberRecordsFailed"], self.results(job)[0]["sf__Id"]), (0, one))
        self.assertEqual(self.control("GET", "count?object=Account"), {"count": 0, "deleted": 0, "created_total": 1})
        self.assertEqual(self.control("GET", "count?object=Contact")["deleted"], 0)
        again = self.run_job(f"Id\n{one}\n", "hardDelete")[1]
        self.assertRegex(self.errors(again)[0], "^INVALID_CROSS_REFERENCE_KEY:")

    def test_record_faults(self):
        self.control("POST", "fault", {"name": "lock", "record": {"object": "Account", "match": {"Name": "bad"}, "error": {
            "statusCode": "UNABLE_TO_LOCK_ROW", "message": "unable to obtain exclusive access to this record or 1 records: 001"}}})
        _info, job = self.run_job("PG_Key__c,Name\na,bad\nb,n\n")
        self.assertEqual(self.errors(job), ["UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record or 1 records: 001:--"])

    def test_pages_of_results(self):
        self.config(bulk_page=3)
        _info, job = self.run_job("PG_Key__c,Name\n" + "".join(f"k{i},n\n" for i in range(8)))
        seen, locator, pages = [], "0", 0
        while locator != "null":
            answer = self.call("GET", f"{INGEST}/{job}/successfulResults?locator={locator}")
            seen += [r["PG_Key__c"] for r in csv.DictReader(io.StringIO(answer.text))]
            self.assertLessEqual(int(answer.headers["Sforce-NumberOfRecords"]), 3)
            locator, pages = answer.headers["Sforce-Locator"], pages + 1
        self.assertEqual((sorted(seen), pages), ([f"k{i}" for i in range(8)], 3))
        self.assertEqual(self.call("GET", f"{INGEST}/{job}/successfulResults?locator=zz!").status, 400)


class TestBulkQuery(BulkBase):
    def query_job(self, text, operation="query", **more):
        answer = self.call("POST", QUERY, {"operation": operation, "query": text, **more})
        self.assertEqual(answer.status, 200, answer.text)
        return answer.json["id"]

    def test_life(self):
        self.upsert("Account", "PG_Key__c", *[{"PG_Key__c": f"k{i}", "Name": f"n{i}", "Annual_Score__c": i} for i in range(5)])
        job = self.query_job("SELECT PG_Key__c, Annual_Score__c, Active__c, Owner.Email, Site FROM Account ORDER BY PG_Key__c")
        info = self.call("GET", f"{QUERY}/{job}").json
        self.assertEqual((info["state"], info["numberRecordsProcessed"], info["jobType"], info["object"]),
                         ("JobComplete", 5, "V2Query", "Account"))
        answer = self.call("GET", f"{QUERY}/{job}/results?maxRecords=2")
        self.assertEqual((answer.headers["Sforce-Locator"], answer.headers["Sforce-NumberOfRecords"]), ("2", "2"))
        self.assertEqual(answer.text, '"PG_Key__c","Annual_Score__c","Active__c","Owner.Email","Site"\n'
                         '"k0","0.0","true","integration@sfsync.example",""\n"k1","1.0","true","integration@sfsync.example",""\n')
        last = self.call("GET", f"{QUERY}/{job}/results?locator=4&maxRecords=2")
        self.assertEqual((last.headers["Sforce-Locator"], last.text.count("\n")), ("null", 2))
        self.assertEqual(self.call("DELETE", f"{QUERY}/{job}").status, 204)
        self.assertEqual(self.call("GET", f"{QUERY}/{job}").status, 404)

    def test_all_rows_and_refusals(self):
        one = self.create("Account", Name="a")
        self.call("DELETE", f"{COLLECTION}?ids={quote(one)}")
        counts = [self.call("GET", f"{QUERY}/{self.query_job('SELECT Id FROM Account', o)}").json["numberRecordsProcessed"]
                  for o in ("query", "queryAll")]
        self.assertEqual(counts, [0, 1])
        for text in ("SELECT count(Id) FROM Account", "SELECT Name FROM Account GROUP BY Name", "SELECT Nope FROM Account"):
            self.assertEqual(self.call("POST", QUERY, {"operation": "query", "query": text}).status, 400)
        self.config(bulk_delay=60)
        job = self.query_job("SELECT Id FROM Account")
        self.refused(self.call("GET", f"{QUERY}/{job}/results"), 400, "INVALIDJOBSTATE")
        self.assertEqual(self.call("PATCH", f"{QUERY}/{job}", {"state": "Aborted"}).json["state"], "Aborted")
