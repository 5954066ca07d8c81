"""Tokens, limits, describe."""
import base64
import json
import subprocess
import sys
import tempfile
import time
from urllib.parse import quote

from .base import Base, CLIENT, HERE, PORT, V


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
        self.config(token_id=False)
        self.assertNotIn("id", self.login().json)


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
