"""The daily allocation, counted in a rolling 24 hours, and the limit of long requests (reference 2)."""
from collections import deque

from .errors import ApiError, not_found
from .message import Reply

DAY = 86400
# name: maximum, of those limits that stay untouched here (reference 2.2)
FIXED = {"DailyBulkV2QueryJobs": 10000, "DailyBulkV2QueryFileStorageMB": 976562,
         "DataStorageMB": 1024, "FileStorageMB": 1024, "DailyAsyncApexExecutions": 250000,
         "HourlyPublishedPlatformEvents": 50000, "DailyDeliveredPlatformEvents": 10000, "SingleEmail": 5000,
         "ConcurrentAsyncGetReportInstances": 200, "HourlySyncReportRuns": 500, "MassEmail": 5000}


class Limits:
    def __init__(self, sim):
        self.sim = sim
        self.buckets = deque()   # [minute, calls]; the window rolls by the minute
        self.total = 0
        self.app_total = 0

    def set_used(self, calls):
        self.buckets.clear()
        self.total = 0
        self._add(int(calls))

    def _add(self, calls):
        minute = int(self.sim.now() // 60)
        if not self.buckets or self.buckets[-1][0] != minute:
            self.buckets.append([minute, 0])
        self.buckets[-1][1] += calls
        self.total += calls

    def used(self):
        oldest = int((self.sim.now() - DAY) // 60)
        while self.buckets and self.buckets[0][0] <= oldest:
            self.total -= self.buckets.popleft()[1]
        return self.total

    def admit(self, call):
        """Counts a call, or refuses it.  Both refusals share status and code: only the text differs (reference 2.6)."""
        config = self.sim.config
        if self.used() >= config["api_limit"]:
            raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        if self.sim.calls.long_running(config["long_request_seconds"]) >= config["concurrent_limit"]:
            raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded.")
        self.count(1)
        call.counted = True

    def count(self, calls):
        self._add(calls)
        self.app_total += calls
        self.sim.calls.api_calls += calls

    def header(self):
        text = f"api-usage={self.used()}/{self.sim.config['api_limit']}"
        if self.sim.config["per_app_usage"]:
            text += f"; per-app-api-usage={self.app_total}/{self.sim.config['per_app_usage']}(appName=sfsync)"
        return text

    # ---- resources ----

    def resource(self, request):
        rest = request.segments[4:]
        if not rest:
            limit = self.sim.config["api_limit"]
            body = {"DailyApiRequests": {"Max": limit, "Remaining": limit - self.used()}}
            body.update({name: {"Max": n, "Remaining": n} for name, n in FIXED.items()})
            batches = self.sim.config["bulk_batch_limit"]
            body["DailyBulkApiBatches"] = {"Max": batches, "Remaining": batches - self.sim.jobs.batches}
            body["PermissionSets"] = {"Max": 1500, "Remaining": 1499, "CreateCustom": {"Max": 1000, "Remaining": 999}}
            return Reply(200, body)
        if rest == ["recordCount"]:
            return self.record_count(request)
        raise not_found()

    def record_count(self, request):
        names = [n.strip() for n in request.query.get("sObjects", "").split(",") if n.strip()]
        objects = [self.sim.schema.get(n) for n in names] if names else [
            o for o in self.sim.schema.objects.values() if o.visible and not o.internal]
        out = []
        for obj in objects:
            if obj is not None:
                count = self.sim.store.execute(f'SELECT count(*) FROM "{obj.name}" WHERE IsDeleted = 0').fetchone()[0]
                if count:   # objects without a count are left out
                    out.append({"count": count, "name": obj.name})
        return Reply(200, {"sObjects": out})
