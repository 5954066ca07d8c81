#!/usr/bin/python3
"""simple.py URL: the steps that users of simple-salesforce take, against the simulator at URL."""
import sys
import urllib.parse

import requests
import simple_salesforce

URL = urllib.parse.urlsplit(sys.argv[1])


class Here(requests.adapters.HTTPAdapter):
    """The client knows https://*.salesforce.com only: sends whatever it asks for to the simulator."""

    def send(self, request, **more):  # pylint: disable=arguments-differ
        asked = urllib.parse.urlsplit(request.url)
        request.url = urllib.parse.urlunsplit((URL.scheme, URL.netloc, asked.path, asked.query, ""))
        return super().send(request, **more)


def main():
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", Here())
    client = simple_salesforce.Salesforce(
        username="integration@sfsync.example", password="passwordtoken", session=session, version="66.0",
        consumer_key="3MVG9sfsync.test.consumer.key", consumer_secret="sfsync-test-secret")
    account = client.Account
    made = account.create({"Name": "one", "PG_Key__c": "k"})["id"]
    account.update(made, {"Name": "two"})
    assert account.get(made)["Name"] == "two"
    assert account.upsert("PG_Key__c/k", {"Name": "three"}) == 200
    assert account.get_by_custom_id("PG_Key__c", "k")["Id"] == made
    assert client.query("SELECT Name FROM Account WHERE PG_Key__c = 'k'")["records"][0]["Name"] == "three"
    account.delete(made)
    assert client.query_all("SELECT Id FROM Account WHERE PG_Key__c = 'k'", include_deleted=True)["totalSize"] == 1
    try:
        client.query("SELECT Nope FROM Account")
    except simple_salesforce.SalesforceMalformedRequest as error:
        assert error.content[0]["errorCode"] == "INVALID_FIELD"
    rows = [{"Name": f"bulk, {i}", "PG_Key__c": f"b{i}"} for i in range(450)]
    done = client.bulk2.Account.upsert(records=[*rows, {"Name": "", "PG_Key__c": "nameless"}], external_id_field="PG_Key__c")
    assert [(d["numberRecordsProcessed"], d["numberRecordsFailed"]) for d in done] == [(451, 1)], done
    assert client.bulk2.Account.get_failed_records(done[0]["job_id"]).count("REQUIRED_FIELD_MISSING") == 1
    pages = client.bulk2.Account.query("SELECT Name FROM Account WHERE PG_Key__c LIKE 'b%'", max_records=200)
    assert sum(page.count("bulk, ") for page in pages) == 450
    print("ok - simple-salesforce loads and queries in bulk")
    print("ok - simple-salesforce creates, reads, updates, upserts, queries, deletes")


main()
