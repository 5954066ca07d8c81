"""The simulator: everything that one org consists of, and how it is put back to its start."""
import time

from . import config, ids, org
from .api import Api
from .bulk import Jobs
from .calls import Calls
from .clock import Clock
from .dml import Actor, Dml
from .faults import Faults
from .limits import Limits
from .oauth import OAuth
from .query import Query
from .schema import Schema
from .store import Store
from .tooling import Tooling

# role, user name, first and last name, e-mail
USERS = [("integration", "integration@sfsync.example", "Integration", "User"),
         ("rep", "rep@sfsync.example", "Sales", "Representative"),
         ("admin", "admin@sfsync.example", "System", "Administrator")]


class Simulator:
    def __init__(self, path=":memory:"):
        self.path = path
        self.url = "http://127.0.0.1"   # set when the port is known
        self.clock = Clock()
        self.store = self.schema = self.tooling = None
        self.woken = None               # an event: the bulk jobs may have more to do
        self.reset()

    def reset(self, keep_schema=False):
        self.config = dict(config.DEFAULTS)
        self.clock.offset, self.clock.frozen = 0.0, None
        self.automation = []
        if not keep_schema or self.schema is None:
            self.schema = Schema(org.objects(), time.time())
        self._new_store()
        self.faults, self.calls, self.limits = Faults(self), Calls(), Limits(self)
        hidden = self.tooling.waiting() if keep_schema and self.tooling else {}
        self.oauth, self.tooling = OAuth(self), Tooling(self)
        self.tooling.pending.update(hidden)
        self.dml, self.query, self.jobs = Dml(self), Query(self), Jobs(self)
        self.api = Api(self)
        self.users = {}
        self._first_rows()

    def _new_store(self):
        if self.store is not None:
            self.store.db.close()
        if self.path != ":memory:":
            open(self.path, "wb").close()  # an org starts empty: a file is for size and for looking into it
        self.store = Store(self.path)
        for obj in self.schema.objects.values():
            for field in obj.fields:
                field.next_number, field.added = 1, []
            obj.plans = {}
            self.store.create(obj)

    def _first_rows(self):
        user, root = self.schema.objects["User"], Actor(ids.make("005", 1), self.clock.now(), api=False)
        self.org_id = ids.make("00D", 1)
        for role, username, first, last in USERS:
            self.users[role] = self.dml.insert(user, {
                "Username": username, "FirstName": first, "LastName": last, "Email": username, "Alias": role[:8],
                "UserType": "Standard", "IsActive": 1}, root)
        self.dml.insert(self.schema.objects["Organization"], {
            "Name": "sfsync test org", "InstanceName": "SIM", "IsSandbox": 0,
            "OrganizationType": "Developer Edition"}, root)
        self.store.created.clear()

    def configure(self, changes):
        self.config = config.merged(self.config, changes)
        self.clock.offset = float(self.config["clock_offset"] or 0)
        self.clock.frozen = self.config["now"]
        if changes.get("api_used") is not None:
            self.limits.set_used(changes["api_used"])
        self.wake()

    def wake(self):
        if self.woken is not None:
            self.woken.set()

    def actor(self, request):
        """The API user, as the writer of a request's records."""
        return Actor(request.user_id, self.clock.now(), written=request.call.written)

    def now(self):
        return self.clock.now()
