"""Single records, and what their fields take."""

from .base import Base, V


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
        self.call("PATCH", f"sobjects/Invoice__c/{two}", {"PG_Key__c": "two"})
        self.assertEqual(self.call("PATCH", f"sobjects/Invoice_Line__c/{line}", {"Invoice__r": {"PG_Key__c": "two"}}).code,
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
