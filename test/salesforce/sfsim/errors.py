"""The three shapes of Salesforce errors (reference 0.3), as exceptions."""


class ApiError(Exception):
    """A request-level error: an HTTP status and a JSON array."""

    def __init__(self, status, code, message, fields=None, headers=None):
        super().__init__(code, message)
        self.status, self.code, self.message = status, code, message
        self.fields, self.headers = fields, headers

    def body(self):
        one = {"message": self.message, "errorCode": self.code}
        if self.fields is not None:
            one["fields"] = self.fields
        return [one]


class RecordError(Exception):
    """What is wrong with one record; one or more (code, message, fields)."""

    def __init__(self, code=None, message=None, fields=(), errors=None, status=400):
        self.errors = errors or [(code, message, list(fields))]
        self.status = status
        super().__init__(self.errors)

    def as_results(self):
        """The elements of errors[] in collections and tree: statusCode."""
        return [{"statusCode": c, "message": m, "fields": f} for c, m, f in self.errors]

    def as_request(self):
        """The array of a single-record call: errorCode."""
        return [{"message": m, "errorCode": c, "fields": f} for c, m, f in self.errors]


class ParseError(RecordError):
    """A JSON value of a kind that the field cannot hold.

    On a single record it fails the request with JSON_PARSER_ERROR; in collections it is
    reported for the row (reference 5.1) - or for the request, by the switch collection_parse_errors."""

    def __init__(self, field, what, kind, value, bare=None):
        self.field = field
        text = f"Cannot deserialize instance of {what} from {kind}"
        if value is not None:
            text += f" value {value}"
        self.text = bare or text + " or request may be missing a required field"
        super().__init__("JSON_PARSER_ERROR", self.text, [])

    def row_error(self):
        return RecordError("INVALID_FIELD", f"Json Deserialization failed on token '{self.field}' and has left off in "
                           "the middle of parsing a row. Will go to end of row to begin parsing the next row", [])

    def request_error(self, raw):
        line, column = locate(raw, self.field)
        return ApiError(400, "JSON_PARSER_ERROR", f"{self.text} at [line:{line}, column:{column}]")


class OAuthError(Exception):
    """The third shape: {"error", "error_description"}, HTTP 400 (reference 1.2)."""

    def __init__(self, error, description, status=400):
        super().__init__(error, description)
        self.error, self.description, self.status = error, description, status


def locate(raw, token):
    """Line and column just after the first use of a key in the request's text."""
    at = raw.find(b'"' + token.encode() + b'"') if raw else -1
    at = at + len(token) + 3 if at >= 0 else 0
    before = raw[:at] if raw else b""
    return before.count(b"\n") + 1, at - (before.rfind(b"\n") + 1) + 1


def not_found(message="The requested resource does not exist"):
    return ApiError(404, "NOT_FOUND", message)


def no_external_id(name):
    """Reference 4.2 and 4.3."""
    return not_found(f"Provided external ID field does not exist or is not accessible: {name}")


def no_column(name, obj):
    return RecordError("INVALID_FIELD", f"No such column '{name}' on sobject of type {obj}", [])


def deleted():
    return RecordError("ENTITY_IS_DELETED", "entity is deleted", [], status=404)


def unknown_id():
    return RecordError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [], status=404)
