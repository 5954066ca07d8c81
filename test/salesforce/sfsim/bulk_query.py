"""Query jobs of Bulk API 2.0."""
import re

from . import bulk_csv, clock, jsonout
from .errors import ApiError, not_found
from .message import Reply

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000\+0000\Z")
GIVEN = {"operation", "query", "contentType", "columnDelimiter", "lineEnding"}
FORBIDDEN = re.compile(r"\bGROUP\s+BY\b|\bOFFSET\b|\bTYPEOF\b|\bcount\s*\(|\b(?:sum|avg|min|max)\s*\(|\(\s*SELECT\b", re.I)


class QueryJob:
    def __init__(self, job_id, given, user_id, version, now):
        self.id, self.user_id, self.version = job_id, user_id, version
        self.operation, self.query = given["operation"], given["query"]
        self.delimiter, self.ending = given.get("columnDelimiter", "COMMA"), given.get("lineEnding", "LF")
        self.state, self.created, self.changed = "UploadComplete", now, now
        self.object, self.columns, self.rows, self.error = None, [], [], None


class QueryJobs:
    def __init__(self, sim, jobs):
        self.sim, self.owner = sim, jobs
        self.jobs = {}

    def resource(self, request, rest):
        pick = self.owner.pick
        if not rest:
            return pick(request, {"POST": self.create, "GET": self.list})
        job = self.jobs.get(rest[0])
        if job is None or len(rest) > 2:
            raise not_found()
        self.run_if_due(job)
        if len(rest) == 1:
            return pick(request, {"GET": self.info, "PATCH": self.abort, "DELETE": self.delete}, job)
        if rest[1] == "results":
            return pick(request, {"GET": self.results}, job)
        raise not_found()

    def create(self, request):
        given = request.mapping()
        unknown = sorted(set(given) - GIVEN)
        if unknown:
            raise ApiError(400, "JSON_PARSER_ERROR", f"Unrecognized field \"{unknown[0]}\" at [line:1, column:2]")
        if given.get("operation") not in ("query", "queryAll") or not isinstance(given.get("query"), str):
            raise ApiError(400, "INVALIDJOB", "operation must be query or queryAll, and query be given")
        if given.get("contentType", "CSV") != "CSV" or given.get("columnDelimiter", "COMMA") not in bulk_csv.DELIMITERS or (
                given.get("lineEnding", "LF") not in bulk_csv.LINE_ENDINGS):
            raise ApiError(400, "INVALIDJOB", "contentType, columnDelimiter or lineEnding is not supported")
        if FORBIDDEN.search(given["query"]):
            raise ApiError(400, "API_ERROR", "Aggregates, GROUP BY, OFFSET, TYPEOF and child queries are not supported in a "
                           "bulk query")
        # What is wrong with the SOQL is said at once.
        compiled, _rows = self.sim.query.compiled(given["query"], given["operation"] == "queryAll", self.sim.schema.get)
        job = QueryJob(self.owner.new_id(), given, request.user_id, request.version, self.sim.now())
        job.object = compiled.node.obj.name
        self.jobs[job.id] = job
        return Reply(200, self.shown(job))

    def run_if_due(self, job):
        now = self.sim.now()
        if job.state != "UploadComplete" or now < job.created + self.sim.config["bulk_delay"]:
            return
        compiled, rows = self.sim.query.compiled(job.query, job.operation == "queryAll", self.sim.schema.get)
        records = [compiled.node.render(row, self.sim.query, job.version) for row in rows]
        job.columns = column_names(compiled.node)
        job.rows = [[self.printed(follow(record, name)) for name in job.columns] for record in records]
        job.state, job.changed = "JobComplete", now

    def printed(self, value):
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            return jsonout.java_double(value)
        text = value if isinstance(value, str) else jsonout.dumps(value)
        return text.replace("+0000", "Z") if STAMP.match(text) else text

    def shown(self, job, full=False):
        out = {"id": job.id, "operation": job.operation, "object": job.object, "createdById": job.user_id,
               "createdDate": clock.stamp(job.created), "systemModstamp": clock.stamp(job.changed), "state": job.state,
               "concurrencyMode": "Parallel", "contentType": "CSV", "apiVersion": float(job.version),
               "lineEnding": job.ending, "columnDelimiter": job.delimiter}
        if full:
            out.update(jobType="V2Query", numberRecordsProcessed=len(job.rows), retries=0, totalProcessingTime=1,
                       isPkChunkingSupported=True)
        return out

    def list(self, _request):
        return Reply(200, {"done": True, "records": [{**self.shown(j), "jobType": "V2Query"} for j in self.jobs.values()],
                           "nextRecordsUrl": None})

    def info(self, _request, job):
        return Reply(200, self.shown(job, True))

    def abort(self, request, job):
        if request.mapping().get("state") != "Aborted":
            raise ApiError(400, "INVALIDJOB", "The only state that a query job can be given is Aborted")
        if job.state in ("JobComplete", "Failed", "Aborted"):
            raise ApiError(400, "INVALIDJOBSTATE", "Aborting already Completed Job not allowed")
        job.state, job.changed = "Aborted", self.sim.now()
        return Reply(200, self.shown(job))

    def delete(self, _request, job):
        if job.state not in ("JobComplete", "Failed", "Aborted"):
            raise ApiError(400, "INVALIDJOBSTATE", f"Deleting a job that is {job.state} is not allowed")
        del self.jobs[job.id]
        return Reply(204)

    def results(self, request, job):
        if job.state != "JobComplete":
            raise ApiError(400, "INVALIDJOBSTATE", f"The results of a job that is {job.state} are not available")
        return self.owner.page(request, job.rows, self.sim.config["bulk_page"], lambda part: bulk_csv.written(
            job.columns, [], part, job.delimiter, job.ending))


def column_names(node, prefix=""):
    names = []
    for name, kind, what in node.out:
        names.extend(column_names(what, f"{prefix}{name}.") if kind == "parent" else [prefix + name])
    return names


def follow(record, path):
    for name in path.split("."):
        record = None if record is None else record[name]
    return record
