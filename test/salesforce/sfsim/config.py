"""The switches of the simulator, with their values at the start (POST /_control/config merges into them)."""

DEFAULTS = {
    # speed
    "latency": 0.0,                  # seconds a request takes, half of it before and half after the work
    "latency_per_record": 0.0,
    # limits (reference 2)
    "api_limit": 100000, "api_used": None,   # api_used: None counts calls; a number sets the use at that moment
    "per_app_usage": None,                   # a number: limit of the app's own quota, shown in Sforce-Limit-Info
    "concurrent_limit": 25, "long_request_seconds": 20,
    "max_body": 50 * 1024 * 1024, "max_uri": 16384,
    # sessions (reference 1)
    "token_lifetime": 7200, "token_id": True,    # token_id False: token replies lack the identity URL
    "instance_url": None, "login_host_is_generic": False,
    "no_client_credentials_user": False, "inactive_user": False, "invalid_client_status": 400,
    # clock
    "clock_offset": 0.0, "now": None,
    # recording
    "keep_bodies": False, "keep_log": True,
    # state of the org
    "maintenance": False, "api_disabled": False, "storage_full": False,
    # transport (reference 13)
    "chunked": True, "gzip": True, "request_gzip": True, "header_case": "mixed", "cookies": True, "gzip_over": 256,
    "page_size": 2000,
    # Bulk API 2.0 (reference 9)
    "bulk_delay": 0.05,              # seconds that a closed job stays UploadComplete
    "bulk_chunk_delay": 0.0,         # seconds between its chunks of 200, InProgress
    "bulk_fail_after": None,         # a number: the job becomes Failed after so many chunks
    "bulk_hard_delete": False,       # the permission "Bulk API Hard Delete"
    "bulk_max_upload": 100 * 1024 * 1024,
    "bulk_batch_limit": 15000,       # batches of 10,000 records in 24 hours
    "bulk_page": None,               # a number: most rows in a page of results, whatever maxRecords asks for
    # variants of what the reference marks as unconfirmed
    "collection_parse_errors": "row",        # or "request"
    "null_checkbox": "refuse",               # or "false"
    "datetime_fraction": "truncate",         # or "round"
    "extra_decimals": "round",               # or "truncate"
    "restricted_picklist_ignore_case": True,
    "precondition_body": "json",             # or "empty": the body of a 412
    "conditional_upsert": False,             # True: If-Unmodified-Since works on upsert by external id too
    "bad_upsert_key": "NOT_FOUND",           # or "INVALID_FIELD": collections upsert by a field that is no key
    "upsert_failure_created": False,         # True: failed upserts carry "created": false too
    "duplicate_update": "apply",             # or "refuse": the same id twice in one collections update
    "duplicate_key_fields": True,            # False: "Duplicate external id specified" comes with empty fields
    "bulk_create_status": 200,               # or 201
    "null_id_on_failure": False,             # True: failed records carry "id": null
}


class BadConfig(ValueError):
    pass


def merged(config, changes):
    unknown = [k for k in changes if k not in DEFAULTS]
    if unknown:
        raise BadConfig(f"unknown configuration: {', '.join(sorted(unknown))}")
    return {**config, **changes}
