#!/usr/bin/env node
// jsforce.js URL: the steps that users of jsforce take, against the simulator at URL.
const assert = require('assert');
const jsforce = require('jsforce');

const url = process.argv[2];
const oauth2 = { loginUrl: url, clientId: '3MVG9sfsync.test.consumer.key', clientSecret: 'sfsync-test-secret' };
const open = (more) => new jsforce.Connection({ loginUrl: url, instanceUrl: url, version: '66.0', oauth2, ...more });
const code = async (promise) => { try { await promise; } catch (error) { return error.errorCode || error.name; } return 'none'; };

const steps = {
  async 'logs in by password and by client credentials'(c) {
    await c.login('integration@sfsync.example', 'passwordtoken');
    await open().authorize({ grant_type: 'client_credentials' });
    assert.equal(await code(open().login('integration@sfsync.example', 'wrong')), 'invalid_grant');
    assert.equal((await c.identity()).username, 'integration@sfsync.example');
  },
  async 'describes'(c) {
    assert.ok((await c.describeGlobal()).sobjects.some((o) => o.name === 'Invoice__c'));
    assert.ok((await c.describe('Account')).fields.some((f) => f.name === 'PG_Key__c' && f.externalId));
  },
  async 'upserts collections of 450 and pages through them'(c) {
    const rows = Array.from({ length: 450 }, (_, i) => ({ Name: `n ${i}`, PG_Key__c: `k${i}` }));
    const made = await c.sobject('Account').upsert(rows, 'PG_Key__c', { allowRecursive: true });
    assert.ok(made.every((r) => r.success && r.created));
    const found = await c.query('SELECT Id FROM Account', { autoFetch: true, maxFetch: 1000, headers: { 'Sforce-Query-Options': 'batchSize=200' } });
    assert.equal(found.records.length, 450);
  },
  async 'creates, reads, updates, deletes'(c) {
    const account = c.sobject('Account');
    const { id } = await account.create({ Name: 'one' });
    await account.update({ Id: id, Name: 'two' });
    assert.equal((await account.retrieve(id)).Name, 'two');
    await account.destroy(id);
    assert.equal(await code(account.retrieve(id)), 'NOT_FOUND');
    assert.equal((await c.query(`SELECT Id FROM Account WHERE Id = '${id}'`, { scanAll: true })).totalSize, 1);
  },
  async 'loads and queries in bulk (Bulk API 2.0)'(c) {
    const rows = Array.from({ length: 450 }, (_, i) => ({ Name: `bulk, "${i}"`, PG_Key__c: `b${i}` }));
    const done = await c.bulk2.loadAndWaitForResults({ object: 'Account', operation: 'upsert', externalIdFieldName: 'PG_Key__c',
      input: [...rows, { Name: '', PG_Key__c: 'nameless' }], pollTimeout: 20000, pollInterval: 50 });
    assert.deepEqual([done.successfulResults.length, done.failedResults.length, done.unprocessedRecords.length], [450, 1, 0]);
    assert.match(done.failedResults[0].sf__Error, /^REQUIRED_FIELD_MISSING:/);
    c.bulk2.pollInterval = 50;
    const records = await (await c.bulk2.query("SELECT Name FROM Account WHERE PG_Key__c LIKE 'b%'")).toArray();
    assert.equal(records.length, 450);
  },
  async 'sees errors by their codes'(c) {
    assert.equal(await code(c.query('SELECT Nope FROM Account')), 'INVALID_FIELD');
    assert.equal(await code(c.query('SELECT FROM')), 'MALFORMED_QUERY');
    assert.equal(await code(c.sobject('Contact').create({ FirstName: 'x' })), 'REQUIRED_FIELD_MISSING');
  },
  async 'logs in again when the session has ended'(c) {
    await fetch(`${url}/_control/expire_tokens`, { method: 'POST' });
    assert.equal((await c.query('SELECT Id FROM Account LIMIT 1')).totalSize, 1);   // by its own refresh
    const { requests } = await (await fetch(`${url}/_control/log`)).json();
    assert.deepEqual(requests.slice(-3).map((r) => [r.kind, r.status]), [['query', 401], ['token', 200], ['query', 200]]);
    assert.equal(await code(open({ accessToken: 'nonsense', oauth2: undefined }).query('SELECT Id FROM Account')), 'INVALID_SESSION_ID');
  },
};

(async () => {
  const connection = open();
  let failed = 0;
  for (const [name, step] of Object.entries(steps)) {
    try { await step(connection); console.log(`ok - jsforce ${name}`); } catch (error) { failed++; console.log(`not ok - jsforce ${name}: ${error.message}`); }
  }
  process.exit(failed ? 1 : 0);
})();
