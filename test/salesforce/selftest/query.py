"""SOQL."""
from urllib.parse import quote

from .base import Base, V


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

    def test_too_complicated(self):
        text = "SELECT Id FROM Account WHERE " + " OR ".join(["Site = 'x'"] * 1200)
        part = {"method": "GET", "url": f"{V}/query?q={quote(text)}", "referenceId": "q"}
        answer = self.call("POST", "composite", {"compositeRequest": [part]}).json["compositeResponse"][0]
        self.assertEqual(answer["body"][0]["errorCode"], "QUERY_TOO_COMPLICATED")

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
