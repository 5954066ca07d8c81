"""A request to the API and its reply, apart from any transport: composite requests make them too."""
from urllib.parse import parse_qsl, unquote

from . import jsonout
from .errors import ApiError


class Reply:
    def __init__(self, status, body=None, headers=None, content_type="application/json;charset=UTF-8"):
        self.status, self.body, self.headers = status, body, headers or {}
        self.content_type = content_type


class Request:
    """path is split at "/" before it is decoded, so that an encoded slash stays within its segment."""

    def __init__(self, method, target, headers, raw=b"", body=None, parent=None):
        path, _, query = target.partition("?")
        self.method, self.target, self.raw_path = method, target, path
        self.segments = [unquote(s) for s in path.strip("/").split("/")] if path.strip("/") else []
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.headers, self.raw, self._body = headers, raw, body
        self.parent = parent
        self.call = parent.call if parent else None
        self.user_id = parent.user_id if parent else None
        self.version = None

    @property
    def number(self):
        return float(self.version)

    def body(self):
        if self._body is None and self.raw is not None:
            if not self.raw.strip():
                raise ApiError(400, "JSON_PARSER_ERROR", "The HTTP entity body is required, but this request has no "
                               "entity body.")
            self._body = jsonout.loads(self.raw)
        return self._body

    def mapping(self):
        """The body, which must be an object."""
        body = self.body()
        if not isinstance(body, dict):
            raise ApiError(400, "JSON_PARSER_ERROR", "Unexpected token: the request body must be a JSON object at "
                           "[line:1, column:1]")
        return body

    def flag(self, name):
        return self.query.get(name, "").lower() == "true"
