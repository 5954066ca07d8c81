"""HTTP: from a connection to a request, through the faults, and back (reference 13)."""
import asyncio
import json
import logging
import secrets
import sys
import traceback
import zlib
from urllib.parse import parse_qsl

from aiohttp import web

from . import jsonout
from .api import VERSIONS
from .calls import Call
from .clock import http_date
from .control import Control
from .errors import ApiError, OAuthError, not_found
from .faults import bent
from .message import Reply, Request

HTML = "text/html;charset=UTF-8"
ROW_KINDS = {"GET": "get", "PATCH": "update", "DELETE": "delete", "POST": "create"}
COLLECTION_KINDS = {"POST": "collections_create", "PATCH": "collections_update", "DELETE": "collections_delete"}


class Dropped(Exception):
    """The connection is to be closed without a reply."""


BULK_KINDS = {"POST": "create", "GET": "info", "PATCH": "close", "DELETE": "delete", "PUT": "upload"}


def bulk_kind(method, rest, raw):
    """bulk_create, bulk_upload, ... for ingest; bulk_query_create, ... for queries."""
    if rest[:1] not in (["ingest"], ["query"]):
        return "other"
    what = BULK_KINDS.get(method, "other")
    if method == "GET":
        what = "results" if len(rest) > 2 else "list" if len(rest) == 1 else "info"
    elif method == "PATCH" and b"Aborted" in raw:
        what = "abort"
    return ("bulk_query_" if rest[0] == "query" else "bulk_") + what


def kind_of(method, segments, raw):
    """The kind of a request, as the log names it."""
    if segments[:3] == ["services", "oauth2", "token"]:
        return "token"
    if segments[:2] != ["services", "data"]:
        return "other"
    if len(segments) < 4:
        return "versions" if len(segments) == 2 else "other"
    what, rest = segments[3], segments[4:]
    if what == "composite" and rest[:1] == ["sobjects"]:
        if len(rest) == 2:
            return "collections_retrieve"
        return "collections_upsert" if len(rest) == 3 else COLLECTION_KINDS.get(method, "other")
    if what == "sobjects":
        if not rest:
            return "describe_global"
        if len(rest) == 3:
            return "upsert" if method == "PATCH" else ROW_KINDS.get(method, "other")
        if rest[1:] == ["describe"]:
            return "describe"
        return "other" if len(rest) == 2 and rest[1] in ("updated", "deleted") else ROW_KINDS.get(method, "other")
    if what == "jobs":
        return bulk_kind(method, rest, raw)
    return {"limits": "limits", "query": "query", "queryAll": "query", "composite": "composite",
            "tooling": "tooling"}.get(what, "other")


class App:
    def __init__(self, sim):
        self.sim, self.control = sim, Control(sim)
        self.served = 0

    # ---- one request ----

    async def handle(self, http):
        if http.headers.get("Expect", "").lower() == "100-continue":
            http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        path, _, query = http.raw_path.partition("?")
        try:
            raw = await http.read()
        except web.HTTPRequestEntityTooLarge:
            raw = None
        if path.startswith("/_control/"):
            status, body = self.control.handle(http.method, path[len("/_control/"):].rstrip("/"),
                                               dict(parse_qsl(query)), raw or b"")
            # Records print as REST prints them; the rest is plain JSON.
            text = jsonout.dumps(body) if isinstance(body, list) else json.dumps(body)
            return web.Response(status=status, body=text.encode(), content_type="application/json")
        request = Request(http.method, http.raw_path, {k.lower(): v for k, v in http.headers.items()}, raw or b"")
        self.override(request)
        call = Call(request.method, path, query, len(raw or b""))
        call.kind = kind_of(request.method, request.segments, request.raw)
        request.call = call
        if self.sim.config["keep_bodies"] and raw is not None:
            call.body = raw.decode("utf-8", "replace")
        return await self.answer(http, request, call, raw is None)

    def override(self, request):
        """For clients that cannot send PATCH (reference 4.2)."""
        if request.method == "POST" and "_HttpMethod" in request.query:
            request.method = request.query.pop("_HttpMethod").upper()

    async def answer(self, http, request, call, too_large):
        sim = self.sim      # a reset while this request is under way must not mix its state
        calls = sim.calls
        calls.start(call, sim.config["keep_log"])
        status = None
        try:
            fault = sim.faults.for_request(call, request.raw) if sim.faults.list else None
            config = sim.config
            if fault or config["latency"] or config["latency_per_record"]:
                # Shielded: what the server has begun goes on when the client hangs up.
                reply = await asyncio.shield(asyncio.ensure_future(self.slowly(request, call, fault, too_large)))
            else:
                reply = self.work(request, call, too_large)
            status = reply.status
            response = self.response(http, request, call, reply)
            if fault and "truncate" in fault.action:
                self.truncated(http, response, int(fault.action["truncate"]))
            if fault and "huge" in fault.action:
                return await self.huge(http, int(fault.action["huge"]))
            return response
        except Sent:
            return web.Response(status=500)
        except Dropped:
            self.drop(http)
            return web.Response(status=500)
        finally:
            calls.finish(call, status)

    async def slowly(self, request, call, fault, too_large):
        config, action = self.sim.config, fault.action if fault else {}
        await asyncio.sleep(config["latency"] / 2 + float(action.get("delay", 0)))
        reply = await self.act(request, call, action, too_large)
        if fault and "results" in action:
            reply.body = bent(fault, reply.body)
        pause = config["latency"] / 2 + config["latency_per_record"] * call.records
        if pause:
            await asyncio.sleep(pause)
        return reply

    async def act(self, request, call, action, too_large):
        """The work, or what a fault makes of it."""
        def work():
            return self.work(request, call, too_large)
        if action.get("close") == "before":
            raise Dropped
        if "hang" in action:
            if action.get("apply") is True:
                work()
            await asyncio.sleep(float(action["hang"]))
            if action.get("apply") == "late":
                work()
            raise Dropped
        if "status" in action:
            if action.get("apply"):
                work()
            return planted(action)
        if "garbage" in action:
            if action.get("apply", True):
                work()
            return Reply(200, action["garbage"], content_type="application/json;charset=UTF-8 ")
        reply = work()
        if action.get("close") == "after":
            raise Dropped
        return reply

    # ---- the work ----

    def work(self, request, call, too_large):
        if call.owner is not self.sim.calls:
            raise Dropped      # begun before a reset: it must not write into the new org
        try:
            reply = self.route(request, call, too_large)
        except OAuthError as error:
            reply = Reply(error.status, {"error": error.error, "error_description": error.description})
        except ApiError as error:
            reply = Reply(error.status, error.body(), error.headers)
        except Exception:
            # A fault of the simulator must show in a test run, not pass for Salesforce's.
            traceback.print_exc(file=sys.stderr)
            reply = Reply(500, [{"message": "An unexpected error occurred. Please include this ErrorId if you contact "
                                            "support: 1234567890-12345 (-1234567890)", "errorCode": "UNKNOWN_EXCEPTION"}])
        if call.written:
            self.sim.calls.wrote(call)
        return reply

    def route(self, request, call, too_large):
        most = self.sim.config["bulk_max_upload" if call.kind == "bulk_upload" else "max_body"]
        if too_large or call.bytes > most:
            raise ApiError(413, "EXCEEDED_MAX_SIZE_REQUEST", f"The request exceeds the maximum size of {most} bytes")
        self.check_sizes(request)
        call.encoding = request.headers.get("content-encoding")
        segments = request.segments
        if segments[:2] == ["services", "oauth2"]:
            return self.oauth(request, call, segments[2:])
        if segments == ["services", "data"]:
            return Reply(200, VERSIONS)      # no authorization, not counted
        session = self.sim.oauth.user_of(request.headers) if segments[:1] in (["services"], ["id"]) else None
        if session is None:
            raise not_found()
        request.user_id, call.user = session.user_id, session.username
        if segments[0] == "id" and len(segments) == 3:
            return self.sim.oauth.identity(session, segments[1], segments[2])
        if segments[:2] != ["services", "data"]:
            raise not_found()
        self.sim.limits.admit(call)
        self.check_type(request)
        return self.sim.api.run(request)

    def oauth(self, request, call, rest):
        if rest == ["userinfo"]:
            session = self.sim.oauth.user_of(request.headers)
            call.user = session.username
            return self.sim.oauth.userinfo(session)
        form = dict(parse_qsl(request.raw.decode("utf-8", "replace"), keep_blank_values=True))
        if rest == ["revoke"] and request.method in ("POST", "GET"):
            return self.sim.oauth.revoke({**request.query, **form})
        if rest == ["token"] and request.method == "POST":
            return self.sim.oauth.token(form, request.headers)
        raise not_found()

    def check_sizes(self, request):
        """URI and headers together, 16,384 bytes (reference 13)."""
        limit = self.sim.config["max_uri"]
        headers = sum(len(k) + len(v) + 4 for k, v in request.headers.items())
        if len(request.target) + headers > limit:
            status = 414 if len(request.target) > limit // 2 else 431
            raise ApiError(status, "URI_TOO_LONG" if status == 414 else "REQUEST_HEADER_FIELDS_TOO_LARGE",
                           "The length of the URI and the headers exceeds the limit of 16,384 bytes")

    def check_type(self, request):
        """Without the JSON type the body is taken for something else (reference 0.3)."""
        if request.call.encoding and not self.sim.config["request_gzip"]:
            raise ApiError(400, "JSON_PARSER_ERROR", "Illegal character ((CTRL-CHAR, code 31)) at [line:1, column:2]")
        if request.method in ("POST", "PATCH", "PUT") and request.raw and request.call.kind != "bulk_upload":
            given = request.headers.get("content-type", "application/x-www-form-urlencoded")
            multipart = request.call.kind == "bulk_create" and "multipart/form-data" in given
            if "json" not in given and not multipart:
                raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", f"The media type '{given}' is not supported")

    # ---- the reply on the wire ----

    def response(self, http, request, call, reply):
        self.served += 1
        config = self.sim.config
        body = self.encoded(request, reply)
        headers = {"Date": http_date(self.sim.now()), "Server": "sfdcedge", "X-Sfdc-Request-Id": secrets.token_hex(16),
                   "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
                   "Cache-Control": "no-cache,must-revalidate,max-age=0,no-store,private", "Vary": "Accept-Encoding",
                   **reply.headers}
        if call.counted or reply.status in (401, 403) and request.segments[:2] == ["services", "data"]:
            headers["Sforce-Limit-Info"] = self.sim.limits.header()
        if body:
            headers["Content-Type"] = reply.content_type.strip()
            if config["gzip"] and len(body) > config["gzip_over"] and "gzip" in request.headers.get("accept-encoding", ""):
                packer = zlib.compressobj(1, zlib.DEFLATED, 31)
                body = packer.compress(body) + packer.flush()
                headers["Content-Encoding"] = "gzip"
        # Header names come in either case from real servers: every other reply has them in lower case.
        if config["header_case"] == "lower" or config["header_case"] == "mixed" and self.served % 2 == 0:
            headers = {k.lower(): v for k, v in headers.items()}
        response = web.Response(status=reply.status, body=body, headers=headers)
        if config["cookies"]:
            response.headers.add("Set-Cookie", "BrowserId=simulated; domain=.salesforce.com; path=/; Max-Age=31536000")
            response.headers.add("Set-Cookie", "CookieConsentPolicy=0:1; path=/; Max-Age=31536000")
        if body and config["chunked"] and http.version >= (1, 1):
            response.enable_chunked_encoding()
        return response

    def encoded(self, request, reply):
        if reply.body is None:
            return b""
        if isinstance(reply.body, str):
            return reply.body.encode()
        if request.headers.get("x-prettyprint") == "1":
            return jsonout.pretty(reply.body).encode()
        return jsonout.dumps(reply.body).encode("utf-8", "replace")

    def drop(self, http):
        if http.transport is not None:
            http.transport.abort()

    def truncated(self, http, response, keep):
        """Promises the whole body and sends a part."""
        body = response.body or b""
        lines = [f"HTTP/1.1 {response.status} OK"] + [f"{k}: {v}" for k, v in response.headers.items()
                                                      if k.lower() not in ("transfer-encoding", "content-length")]
        lines.append(f"Content-Length: {max(len(body), keep + 1)}")
        if http.transport is not None:
            http.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body[:keep])
            http.transport.close()
        raise Sent

    async def huge(self, http, size):
        """A reply far larger than any client should keep."""
        response = web.StreamResponse(status=200, headers={"Content-Type": "application/json;charset=UTF-8"})
        response.enable_chunked_encoding()
        await response.prepare(http)
        try:
            await response.write(b'[{"x":"')
            for _ in range(size // 65536 + 1):
                await response.write(b"x" * 65536)
            await response.write(b'"}]')
            await response.write_eof()
        except (ConnectionError, asyncio.CancelledError):
            pass
        return response


class Sent(Dropped):
    """The reply is on the wire already."""


def planted(action):
    body = action.get("body")
    is_json = isinstance(body, (dict, list))
    headers = dict(action.get("headers") or {})
    kind = next((headers.pop(k) for k in list(headers) if k.lower() == "content-type"), None)
    looks_json = is_json or isinstance(body, str) and body.lstrip()[:1] in ("{", "[")
    return Reply(int(action["status"]), body, headers, kind or ("application/json;charset=UTF-8" if looks_json else HTML))


async def work_on_jobs(sim):
    """Bulk jobs run beside the requests; a reset puts others in their place."""
    while True:
        sim.woken.clear()
        try:
            wait = sim.jobs.worker.step()
        except Exception:
            traceback.print_exc(file=sys.stderr)
            wait = 1
        if wait == 0:
            await asyncio.sleep(0)
            continue
        try:
            await asyncio.wait_for(sim.woken.wait(), wait)
        except asyncio.TimeoutError:
            pass


async def start(sim, host, port, ssl_context, idle):
    """Serves until cancelled; returns the port."""
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)   # dropped connections are meant
    loop, app = asyncio.get_running_loop(), App(sim)

    def make(message, payload, protocol, writer, task):
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=160 * 1024 * 1024)

    server = web.Server(app.handle, request_factory=make, max_line_size=262144, max_field_size=65536,
                        keepalive_timeout=idle, access_log=None)
    runner = web.ServerRunner(server, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=ssl_context, backlog=512)
    await site.start()
    sim.woken = asyncio.Event()
    sim.jobs_task = asyncio.create_task(work_on_jobs(sim))
    return runner.addresses[0][1]
