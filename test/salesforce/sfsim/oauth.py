"""OAuth 2.0: tokens, revocation, and who the user is (reference 1)."""
import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import tempfile

from .errors import ApiError, OAuthError
from .message import Reply

DEFAULT_APP = {"client_id": "3MVG9sfsync.test.consumer.key", "client_secret": "sfsync-test-secret", "certificate": None,
               "run_as": "integration@sfsync.example", "require_secret": True, "approved": None,
               "users": {"integration@sfsync.example": {"password": "password", "token": "token"}},
               "refresh_tokens": {"5Aep861.test.refresh": "integration@sfsync.example"}}
AUDIENCES = ("https://login.salesforce.com", "https://test.salesforce.com")
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JWT_AHEAD = 300     # seconds that exp may lie ahead: three minutes and some clock skew


class Session:
    def __init__(self, token, user_id, username, app, issued):
        self.token, self.user_id, self.username, self.app, self.issued = token, user_id, username, app, issued
        self.dead = False


class OAuth:
    def __init__(self, sim):
        self.sim = sim
        self.apps = {}
        self.sessions = {}
        self.add_app(json.loads(json.dumps(DEFAULT_APP)))

    def add_app(self, given):
        app = {**self.apps.get(given["client_id"], json.loads(json.dumps(DEFAULT_APP))), **given}
        self.apps[app["client_id"]] = app
        return app

    def expire(self):
        for session in self.sessions.values():
            session.dead = True

    # ---- sessions ----

    def user_of(self, headers):
        """The session of a request's Authorization header, or a 401."""
        given = headers.get("authorization")
        kind, _, token = (given or "").partition(" ")
        if given and kind not in ("Bearer", "OAuth"):
            raise ApiError(401, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE", headers={"WWW-Authenticate": "Token"})
        session = self.sessions.get(token.strip())
        now = self.sim.now()
        if session is None or session.dead or now >= session.issued + self.sim.config["token_lifetime"]:
            raise ApiError(401, "INVALID_SESSION_ID", "Session expired or invalid", headers={"WWW-Authenticate": "Token"})
        if self.sim.config["api_disabled"]:
            raise ApiError(403, "API_DISABLED_FOR_ORG", "The REST API is not enabled for this Organization.")
        return session

    def open(self, username, app):
        user_id = self.user_id(username)
        if user_id is None:
            raise OAuthError("invalid_grant", "authentication failure")
        if self.sim.config["inactive_user"]:
            raise OAuthError("invalid_grant", "inactive user")
        token = f"{self.sim.org_id[:15]}!AQ{secrets.token_urlsafe(64).replace('-', '_')}"
        session = self.sessions[token] = Session(token, user_id, username, app, self.sim.now())
        if len(self.sessions) > 10000:
            del self.sessions[next(iter(self.sessions))]
        return session

    def user_id(self, username):
        row = self.sim.store.execute('SELECT Id FROM "User" WHERE "Username" = ?', (username,)).fetchone()
        return row[0] if row else None

    def id_url(self, user_id):
        return f"{self.sim.url}/id/{self.sim.org_id}/{user_id}"

    # ---- the token endpoint ----

    def token(self, form, headers):
        """The reply to a POST of form fields; errors are HTTP 400 (reference 1.2)."""
        grant = form.get("grant_type")
        flows = {"client_credentials": self.client_credentials, JWT_GRANT: self.jwt, "refresh_token": self.refresh,
                 "password": self.password}
        if not grant:
            raise OAuthError("unsupported_grant_type", "grant type not supported")
        if grant not in flows:
            raise OAuthError("unsupported_grant_type", "grant type not supported")
        self.basic(form, headers)
        return flows[grant](form)

    def basic(self, form, headers):
        kind, _, coded = headers.get("authorization", "").partition(" ")
        if kind == "Basic":
            try:
                name, _, secret = base64.b64decode(coded).decode().partition(":")
            except ValueError:
                raise OAuthError("invalid_client", "invalid client credentials") from None
            form.setdefault("client_id", name)
            form.setdefault("client_secret", secret)

    def need(self, form, name):
        if not form.get(name):
            raise OAuthError("invalid_request", f"missing required parameter: {name}")
        return form[name]

    def app_of(self, form, secret=True):
        app = self.apps.get(self.need(form, "client_id"))
        if app is None:
            raise OAuthError("invalid_client_id", "client identifier invalid")
        if secret or form.get("client_secret"):
            given = self.need(form, "client_secret")
            if not hmac.compare_digest(given.encode(), app["client_secret"].encode()):
                raise OAuthError("invalid_client", "invalid client credentials", self.sim.config["invalid_client_status"])
        return app

    def client_credentials(self, form):
        if self.sim.config["login_host_is_generic"]:
            raise OAuthError("invalid_grant", "request not supported on this domain")
        app = self.app_of(form)
        if self.sim.config["no_client_credentials_user"] or not app["run_as"]:
            raise OAuthError("invalid_grant", "no client credentials user enabled")
        return self.reply(self.open(app["run_as"], app), app, scope=True)

    def password(self, form):
        app = self.app_of(form)
        user = app["users"].get(self.need(form, "username"))
        if user is None or self.need(form, "password") != user["password"] + user.get("token", ""):
            raise OAuthError("invalid_grant", "authentication failure")
        return self.reply(self.open(form["username"], app), app)

    def refresh(self, form):
        app = self.app_of(form, secret=self.apps.get(form.get("client_id"), {}).get("require_secret", True))
        username = app["refresh_tokens"].get(self.need(form, "refresh_token"))
        if username is None:
            raise OAuthError("invalid_grant", "expired access/refresh token")
        return self.reply(self.open(username, app), app, scope=True)

    def jwt(self, form):
        assertion = self.need(form, "assertion")
        try:
            head, claims, signature = assertion.split(".")
            header, claim = json.loads(unpad(head)), json.loads(unpad(claims))
            signature = unpad(signature)
        except (ValueError, TypeError):
            raise OAuthError("invalid_grant", "invalid assertion") from None
        app = self.apps.get(claim.get("iss"))
        if app is None:
            raise OAuthError("invalid_client_id", "client identifier invalid")
        if header.get("alg") != "RS256" or not app["certificate"] or not verified(
                app["certificate"], f"{head}.{claims}".encode(), signature):
            raise OAuthError("invalid_grant", "invalid assertion")
        if claim.get("aud") not in (*AUDIENCES, self.sim.url):
            raise OAuthError("invalid_grant", "audience is invalid")
        expires, now = claim.get("exp"), self.sim.now()
        if not isinstance(expires, (int, float)) or not now <= expires <= now + JWT_AHEAD:
            raise OAuthError("invalid_grant", "invalid assertion")
        approved = app["approved"] if app["approved"] is not None else list(app["users"])
        if claim.get("sub") not in approved or self.user_id(claim["sub"]) is None:
            raise OAuthError("invalid_grant", "user hasn't approved this consumer")
        return self.reply(self.open(claim["sub"], app), app, scope=True)

    def reply(self, session, app, scope=False):
        url, issued = self.id_url(session.user_id), str(int(self.sim.now() * 1000))
        signature = base64.b64encode(hmac.new(app["client_secret"].encode(), (url + issued).encode(), hashlib.sha256).digest())
        # No expires_in; issued_at is text (reference 1.1).
        body = {"access_token": session.token, "instance_url": self.sim.config["instance_url"] or self.sim.url, "id": url,
                "token_type": "Bearer", "issued_at": issued, "signature": signature.decode()}
        if not self.sim.config["token_id"]:
            del body["id"]
        if scope:
            body["scope"] = "api"
        return Reply(200, body, {"X-ReadOnlyMode": "false"})

    def revoke(self, form):
        token = form.get("token", "")
        if token in self.sessions:
            del self.sessions[token]
            return Reply(200, None)
        for app in self.apps.values():
            if token in app["refresh_tokens"]:
                del app["refresh_tokens"][token]
                return Reply(200, None)
        raise OAuthError("invalid_token", "invalid token")

    # ---- who am I (reference 1.5) ----

    def user(self, user_id):
        row = self.sim.store.execute('SELECT "Username", "Name", "FirstName", "LastName", "Email", "LastModifiedDate" '
                                     'FROM "User" WHERE Id = ?', (user_id,)).fetchone()
        return dict(zip(("username", "name", "first_name", "last_name", "email", "modified"), row))

    def urls(self):
        base = self.sim.url + "/services/data/v{version}/"
        return {"rest": base, "sobjects": base + "sobjects/", "query": base + "query/", "custom_domain": self.sim.url}

    def userinfo(self, session):
        user = self.user(session.user_id)
        return Reply(200, {
            "sub": self.id_url(session.user_id), "user_id": session.user_id, "organization_id": self.sim.org_id,
            "preferred_username": user["username"], "nickname": user["username"], "name": user["name"],
            "email": user["email"], "email_verified": True, "given_name": user["first_name"],
            "family_name": user["last_name"], "zoneinfo": "Etc/UTC", "photos": {}, "profile": self.sim.url,
            "picture": None, "address": {}, "urls": self.urls(), "active": True, "user_type": "STANDARD",
            "language": "en_US", "locale": "en_US", "utcOffset": 0, "updated_at": user["modified"],
            "is_app_installed": True})

    def identity(self, session, org_id, user_id):
        if org_id[:15] != self.sim.org_id[:15] or user_id[:15] != session.user_id[:15]:
            raise ApiError(403, "Bad_Id", "Bad_Id")
        user = self.user(session.user_id)
        return Reply(200, {
            "id": self.id_url(session.user_id), "asserted_user": True, "user_id": session.user_id,
            "organization_id": self.sim.org_id, "username": user["username"], "nick_name": user["username"],
            "display_name": user["name"], "email": user["email"], "email_verified": True,
            "first_name": user["first_name"], "last_name": user["last_name"], "timezone": "Etc/UTC", "photos": {},
            "addr_street": None, "addr_city": None, "addr_state": None, "addr_country": None, "addr_zip": None,
            "mobile_phone": None, "status": {"created_date": None, "body": None}, "urls": self.urls(), "active": True,
            "user_type": "STANDARD", "language": "en_US", "locale": "en_US", "utcOffset": 0,
            "last_modified_date": user["modified"].replace(".000+0000", "Z"), "is_app_installed": True})


def unpad(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verified(certificate, data, signature):
    """RS256, with python3-cryptography or else with the openssl command."""
    try:
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding
    except ImportError:
        return verified_by_openssl(certificate, data, signature)
    try:
        pem = certificate.encode()
        key = (serialization.load_pem_public_key(pem) if b"PUBLIC KEY" in pem
               else x509.load_pem_x509_certificate(pem).public_key())
        key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        return True
    except (InvalidSignature, ValueError):
        return False


def verified_by_openssl(certificate, data, signature):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("cert", certificate.encode()), ("data", data), ("sig", signature)):
            with open(f"{folder}/{name}", "wb") as file:
                file.write(content)
        key = certificate.encode()
        if "PUBLIC KEY" not in certificate:
            key = subprocess.run(["openssl", "x509", "-in", f"{folder}/cert", "-noout", "-pubkey"], capture_output=True,
                                 check=False).stdout
        with open(f"{folder}/key", "wb") as file:
            file.write(key)
        done = subprocess.run(["openssl", "dgst", "-sha256", "-verify", f"{folder}/key", "-signature", f"{folder}/sig",
                               f"{folder}/data"], capture_output=True, check=False)
        return done.returncode == 0
