"""An OpenID Connect provider on loopback: it signs real tokens, and lies where a test says so."""

import base64
import contextlib
import functools
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT, SECRET = "citeflow", "secret of the client"


class IdentityProvider:
    """What the provider knows, and how it lies."""

    def __init__(self):
        self.keys = [new_key("first")]
        self.person = {"sub": "1234", "preferred_username": "ann"}
        self.codes = {}
        self.lies = {}
        """Claims of the next tokens; None leaves one out."""
        self.make_token = self.sign
        self.metadata = {}
        self.answer = None
        """Bytes of every answer instead."""
        self.wait = threading.Event()
        self.wait.set()
        self.asked = []
        self.url = ""

    def log_in(self, url):
        """Log in on the page of the provider; returns the words with which it sends people back."""
        query = dict(parse_qsl(urlsplit(url).query))
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return {"code": code, "state": query["state"]}

    def claims(self, audience=CLIENT, nonce=None):
        now = int(time.time())
        claims = {"iss": self.url, "aud": audience, "iat": now, "exp": now + 300, **self.person}
        if nonce:
            claims["nonce"] = nonce
        claims |= self.lies
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims):
        key = self.keys[-1]
        return jwt.encode({"alg": "RS256", "kid": key.kid}, claims, key)

    def redeem(self, form, headers):
        """Return status and JSON for a code."""
        word = base64.b64decode(headers.get("Authorization", "").removeprefix("Basic ")).decode()
        if [unquote(each) for each in word.split(":")] != [CLIENT, SECRET]:
            return 401, {"error": "invalid_client"}
        query = self.codes.pop(form.get("code"), None)
        if query is None or form["redirect_uri"] != query["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != query["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        token = self.make_token(self.claims(query["client_id"], query["nonce"]))
        return 200, {"id_token": token, "token_type": "Bearer", "access_token": "x"}

    def reply(self, path, form, headers):
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                **self.metadata,
            }
        if path == "/keys":
            return 200, KeySet(self.keys).as_dict(private=False)
        if path == "/token" and form is not None:
            return self.redeem(form, headers)
        return 404, {}


@functools.cache
def new_key(name, number=0):
    """Make a key; each number gives another one of the name."""
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig", "alg": "RS256"})


@contextlib.contextmanager
def serving():
    """Serve a provider on loopback."""
    provider = IdentityProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if not self.path.startswith("/authorize?"):
                self._reply(None)
                return
            words = provider.log_in(self.path)
            redirect_uri = provider.codes[words["code"]]["redirect_uri"]
            self.send_response(302)
            self.send_header("Location", f"{redirect_uri}?{urlencode(words)}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self):
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._reply({name: values[0] for name, values in parse_qs(text).items()})

        def _reply(self, form):
            provider.asked.append(self.path)
            provider.wait.wait(60)
            status, values = provider.reply(self.path, form, self.headers)
            content = provider.answer or json.dumps(values).encode()
            with contextlib.suppress(OSError):  # nobody waits any more
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield provider
    finally:
        provider.wait.set()
        server.shutdown()
        server.server_close()
        thread.join()
