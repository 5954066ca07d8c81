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
    assert client.query("SELECT Name FROM Account")["records"][0]["Name"] == "three"
    account.delete(made)
    assert client.query_all("SELECT Id FROM Account", include_deleted=True)["totalSize"] == 1
    try:
        client.query("SELECT Nope FROM Account")
    except simple_salesforce.SalesforceMalformedRequest as error:
        assert error.content[0]["errorCode"] == "INVALID_FIELD"
    print("ok - simple-salesforce creates, reads, updates, upserts, queries, deletes")


main()
