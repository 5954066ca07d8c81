"""A local Salesforce: REST API, OAuth, SOQL, on SQLite.  Start it with ../serve."""
