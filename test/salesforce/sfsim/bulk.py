"""Bulk API 2.0: jobs of CSV that run by themselves (reference 9)."""
import email.parser
import email.policy
import json

from . import bulk_csv, clock, ids
from .bulk_query import QueryJobs
from .bulk_work import Work
from .errors import ApiError, not_found
from .message import Reply

OPERATIONS = ("insert", "update", "upsert", "delete", "hardDelete")
DAY = 86400
TEXT = "text/csv;charset=UTF-8"
GIVEN = {"object", "operation", "externalIdFieldName", "contentType", "lineEnding", "columnDelimiter", "assignmentRuleId"}
MAX_MULTIPART = 100000
RESULTS = {"successfulResults": "successes", "failedResults": "failures", "unprocessedrecords": "unprocessed"}


def bad(code, message, status=400):
    return ApiError(status, code, message)


class Job:
    """An ingest job."""

    def __init__(self, job_id, given, user_id, version, now):
        self.id, self.user_id, self.version = job_id, user_id, version
        self.object, self.operation = given["object"], given["operation"]
        self.key, self.delimiter, self.ending = (given.get("externalIdFieldName"), given.get("columnDelimiter", "COMMA"),
                                                 given.get("lineEnding", "LF"))
        self.rule = given.get("assignmentRuleId")
        self.state, self.created, self.changed = "Open", now, now
        self.raw = self.header = self.rows = self.refused = None
        self.error, self.due = None, None
        self.done = 0                    # rows looked at so far
        self.successes, self.failures = [], []
        self.work_seconds = 0.0

    @property
    def unprocessed(self):
        return (self.rows or [])[self.done:]

    def move(self, state, now):
        self.state, self.changed = state, now


class Jobs:
    """The jobs of the org, and what is done about them between requests."""

    def __init__(self, sim):
        self.sim = sim
        self.jobs, self.number, self.batches = {}, 0, 0
        self.queries = QueryJobs(sim, self)
        self.worker = Work(sim, self)

    def new_id(self):
        self.number += 1
        return ids.make("750", self.number)

    # ---- resources ----

    def resource(self, request):
        rest = request.segments[4:]
        if rest[:1] == ["query"]:
            return self.queries.resource(request, rest[1:])
        if rest[:1] != ["ingest"] or len(rest) > 3:
            raise not_found()
        rest = rest[1:]
        if not rest:
            return self.pick(request, {"POST": self.create, "GET": self.list})
        job = self.find(rest[0])
        if len(rest) == 1:
            return self.pick(request, {"GET": self.info, "PATCH": self.patch, "DELETE": self.delete}, job)
        if rest[1] == "batches":
            return self.pick(request, {"PUT": self.upload}, job)
        if rest[1] in RESULTS:
            return self.pick(request, {"GET": self.results}, job, rest[1])
        raise not_found()

    def pick(self, request, handlers, *args):
        handler = handlers.get(request.method)
        if handler is None:
            raise bad("METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed. Allowed are "
                      f"{','.join(sorted(handlers))}", 405)
        return handler(request, *args)

    def find(self, text):
        job = self.jobs.get(ids.normal(text))
        if job is not None and self.sim.now() - job.created > 7 * DAY:
            del self.jobs[job.id]        # kept for seven days
            job = None
        if job is None:
            raise not_found()
        if job.state == "Open" and self.sim.now() - job.created > DAY:
            job.move("Aborted", self.sim.now())
        return job

    # ---- create ----

    def create(self, request):
        content = None
        if "multipart/form-data" in request.headers.get("content-type", ""):
            given, content = self.multipart(request)
        else:
            given = request.mapping()
        self.check(given)
        if self.batches >= self.sim.config["bulk_batch_limit"]:
            raise bad("EXCEEDEDQUOTA", "ApiBatchItems Limit exceeded.")
        job = Job(self.new_id(), given, request.user_id, request.version, self.sim.now())
        self.jobs[job.id] = job
        if content is not None:
            self.take(request, job, content)
            self.close(job)
        return Reply(self.sim.config["bulk_create_status"], self.shown(job, content is None))

    def multipart(self, request):
        """Small data together with the job, at most 100,000 characters."""
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
            b"Content-Type: " + request.headers["content-type"].encode() + b"\r\n\r\n" + request.raw)
        parts = {p.get_param("name", header="content-disposition"): p.get_payload(decode=True)
                 for p in message.iter_parts()} if message.is_multipart() else {}
        if set(parts) != {"job", "content"}:
            raise bad("INVALIDJOB", "A multipart request needs the parts job and content")
        if len(parts["content"]) > MAX_MULTIPART:
            raise bad("INVALIDJOB", f"A multipart request takes up to {MAX_MULTIPART} characters")
        try:
            given = json.loads(parts["job"])
        except ValueError:
            raise bad("JSON_PARSER_ERROR", "The part job is not JSON at [line:1, column:1]") from None
        # The boundary's line break belongs to the boundary; the parser has taken it off.
        return given if isinstance(given, dict) else {}, parts["content"]

    def check(self, given):
        unknown = sorted(set(given) - GIVEN)
        if unknown:
            raise bad("JSON_PARSER_ERROR", f"Unrecognized field \"{unknown[0]}\" at [line:1, column:2]")
        if given.get("operation") not in OPERATIONS:
            raise bad("INVALIDJOB", f"InvalidOperation : {given.get('operation')}")
        if given["operation"] == "hardDelete" and not self.sim.config["bulk_hard_delete"]:
            raise bad("FEATURENOTENABLED", "hardDelete operation requires special user profile permission, please contact "
                      "your system administrator")
        if given.get("contentType", "CSV") != "CSV":
            raise bad("INVALIDJOB", "contentType must be CSV")
        if given.get("lineEnding", "LF") not in bulk_csv.LINE_ENDINGS:
            raise bad("INVALIDJOB", f"Unsupported lineEnding: {given['lineEnding']}")
        if given.get("columnDelimiter", "COMMA") not in bulk_csv.DELIMITERS:
            raise bad("INVALIDJOB", f"Unsupported columnDelimiter: {given['columnDelimiter']}")
        self.check_object(given)

    def check_object(self, given):
        obj = self.sim.schema.get(given.get("object") or "")
        if obj is None:
            raise bad("INVALIDENTITY", f"The entity type {given.get('object')} is not supported by the Bulk API")
        key = given.get("externalIdFieldName")
        if given["operation"] != "upsert":
            if key is not None:
                raise bad("INVALIDJOB", "externalIdFieldName is only valid for upsert")
            return
        if not key:
            raise bad("INVALIDJOB", "External ID was blank for " + obj.name + ". An external ID must be specified for upsert.")
        field = obj.field(key)
        if field is None or not field.id_lookup:
            raise bad("INVALIDJOB", f"InvalidJob : Field name provided, {key} is not an External ID or indexed field for "
                      f"{obj.name}")

    # ---- what a job looks like ----

    def shown(self, job, with_url=True, full=False):
        out = {"id": job.id, "operation": job.operation, "object": job.object, "createdById": job.user_id,
               "createdDate": clock.stamp(job.created), "systemModstamp": clock.stamp(job.changed), "state": job.state,
               "concurrencyMode": "Parallel", "contentType": "CSV", "apiVersion": float(job.version)}
        if job.key:
            out["externalIdFieldName"] = job.key
        if job.rule:
            out["assignmentRuleId"] = job.rule
        if with_url:     # no slash at its start
            out["contentUrl"] = f"services/data/v{job.version}/jobs/ingest/{job.id}/batches"
        out.update(lineEnding=job.ending, columnDelimiter=job.delimiter)
        if full:
            spent = int(job.work_seconds * 1000)
            out.update(jobType="V2Ingest", numberRecordsProcessed=len(job.successes) + len(job.failures),
                       numberRecordsFailed=len(job.failures), retries=0, totalProcessingTime=spent,
                       apiActiveProcessingTime=spent, apexProcessingTime=0)
            if job.error:
                out["errorMessage"] = job.error
        return out

    def list(self, request):
        wanted = request.query.get("jobType")
        jobs = self.jobs.values() if wanted in (None, "V2Ingest") else []
        return Reply(200, {"done": True, "records": [{**self.shown(j), "jobType": "V2Ingest"} for j in jobs],
                           "nextRecordsUrl": None})

    def info(self, _request, job):
        return Reply(200, self.shown(job, job.state == "Open", True))

    # ---- upload, close, abort, delete ----

    def upload(self, request, job):
        """Nothing but the form of the request is looked at here: what is wrong with the CSV fails the job."""
        if job.state != "Open" or job.raw is not None:
            raise bad("INVALIDJOBSTATE", f"Uploading data is not allowed: the job is {job.state} and has "
                      f"{'data' if job.raw is not None else 'no data'}")
        kind = request.headers.get("content-type", "")
        if kind.split(";")[0].strip().lower() != "text/csv":
            raise bad("INVALIDCONTENTTYPE", f"Content-Type must be text/csv, not '{kind}'")
        self.take(request, job, request.raw)
        return Reply(201)

    def take(self, request, job, raw):
        job.raw = True
        try:
            job.header, job.rows = bulk_csv.parse(raw, job.delimiter, job.ending)
        except bulk_csv.BadCsv as error:
            job.refused = str(error)
            return
        request.call.records += len(job.rows)
        name = job.key if job.operation == "upsert" else "PG_Key__c"
        if name in job.header:
            at = job.header.index(name)
            request.call.external_ids.extend(r[at] for r in job.rows)

    def patch(self, request, job):
        wanted = request.mapping().get("state")
        if wanted == "UploadComplete":
            if job.state != "Open":
                raise bad("INVALIDJOBSTATE", f"Closing a job that is {job.state} is not allowed")
            if job.raw is None:
                raise bad("INVALIDJOBSTATE", "Closing a job without data is not allowed")
            self.close(job)
        elif wanted == "Aborted":
            if job.state in ("JobComplete", "Failed", "Aborted"):
                raise bad("INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
            self.worker.end(job, "Aborted")
        else:
            raise bad("INVALIDJOB", f"Invalid state: {wanted}")
        return Reply(200, self.shown(job, False))

    def close(self, job):
        self.batches += 1 + (len(job.rows or []) + 9999) // 10000
        self.worker.begin(job)

    def delete(self, _request, job):
        if job.state not in ("UploadComplete", "JobComplete", "Aborted", "Failed"):
            raise bad("INVALIDJOBSTATE", f"Deleting a job that is {job.state} is not allowed")
        self.worker.end(job, job.state)
        del self.jobs[job.id]
        return Reply(204)

    # ---- results ----

    def results(self, request, job, which):
        if job.state not in ("JobComplete", "Failed", "Aborted"):
            raise bad("INVALIDJOBSTATE", f"The results of a job that is {job.state} are not available")
        rows = getattr(job, RESULTS[which])
        own = {"successfulResults": ["sf__Id", "sf__Created"], "failedResults": ["sf__Id", "sf__Error"]}.get(which, [])
        return self.page(request, rows, self.sim.config["bulk_page"], lambda part: bulk_csv.written(
            own, job.header or [], part, job.delimiter, job.ending))

    def page(self, request, rows, most, write):
        """Pages by Sforce-Locator, which is the text null at the end."""
        try:
            start = int(request.query.get("locator", "0"), 36)
            size = int(request.query.get("maxRecords", most or len(rows) or 1))
        except ValueError:
            start = size = -1
        if start < 0 or size < 1 or start > len(rows):
            raise bad("INVALIDQUERYLOCATOR", "Invalid locator or maxRecords")
        if most:
            size = min(size, most)
        part = rows[start:start + size]
        request.call.records += len(part)
        end = start + len(part)
        headers = {"Sforce-Locator": base36(end) if end < len(rows) else "null",
                   "Sforce-NumberOfRecords": str(len(part))}
        return Reply(200, write(part), headers, TEXT)


def base36(number):
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[rest] + digits
    return digits or "0"
