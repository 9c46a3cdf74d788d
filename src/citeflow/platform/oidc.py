"""An OpenID Connect provider: the authorization code flow with PKCE, and tokens that it has signed.

OpenID Connect Core 1.0, section 3.1; RFC 7636. Signatures and claims are checked by joserfc. The
provider is asked when somebody logs in, and not when the server starts.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal, NoReturn
from urllib.parse import quote, urlencode, urlsplit

import requests
from joserfc import jwe, jwt
from joserfc.errors import (
    BadSignatureError,
    ClaimError,
    ExpiredTokenError,
    InvalidKeyIdError,
    JoseError,
    MissingClaimError,
    UnsupportedAlgorithmError,
)
from joserfc.jwk import KeySet, OctKey
from joserfc.jws import JWSRegistry
from urllib3.exceptions import HTTPError

from citeflow.errors import ConfigError, NotFoundError, UnavailableError
from citeflow.platform.gate import is_loopback
from citeflow.platform.identities import Identity
from citeflow.serving.problems import ProblemError
from citeflow.utils import records
from citeflow.utils.logging import log
from citeflow.utils.records import Bool, OptionalStr, Record, Str

SECRET = "CITEFLOW_PLATFORM_OIDC_SECRET"
"""Environment variable with the client's secret."""

PAGE = "/oidc"
"""Page to which the provider sends people back."""

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Of signatures by a private key alone: a key that everybody knows signs nothing."""

SIGNED = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
"""A token may have headers that nobody knows; none of them is looked at."""

LEEWAY_S = 60
"""Difference between the clocks of provider and server."""

LOG_IN_S = 600
"""Time in which somebody has to log in at the provider."""

MAX_USED = 10_000
"""Log-ins of the last minutes that are kept in mind, so that none is repeated."""

ANSWER_S = 5.0
"""Longest wait for a part of an answer of the provider."""

MAX_ANSWER = 1 << 20
"""Bytes of an answer."""

CALLS_AT_A_TIME = 4
"""So that a slow provider takes few of the server's threads."""

FRESH_S = 3_600.0
"""Time for which the provider's description and keys are taken for known."""

KEYS_EVERY_S = 60.0
"""Shortest time between two looks for a key that is not known."""

REASONS: Mapping[type[Exception], str] = {
    BadSignatureError: "its signature is wrong",
    ExpiredTokenError: "it has expired",
    InvalidKeyIdError: "its key is not one of the provider's",
    UnsupportedAlgorithmError: "its algorithm is not one of a private key",
}

METADATA = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
SEALED = {"alg": "dir", "enc": "A256GCM"}


class OidcSettings(Record):
    """The file with the settings of an OpenID Connect provider."""

    issuer: Str
    """URL of the provider, letter for letter as it names itself."""

    client_id: OptionalStr = ""
    """Name by which the provider knows this server; empty where people come by a gateway alone."""

    secret_file: OptionalStr = ""
    """File with the secret of the client; the environment may have it instead. A public client has
    none."""

    name: Str = "single sign-on"
    """Name of the provider on the page."""

    name_claim: Literal["preferred_username", "email"] = "preferred_username"
    """Claim that names the account of somebody who logs in for the first time."""

    email_domain: OptionalStr = ""
    """Domain of the addresses, where the claim is `email`: what is before it is the name."""

    create_users: Bool = False
    """Whether an account is made for somebody who has none; else an admin has to make it first."""

    allow_http: Bool = False
    """Whether the provider may be asked without TLS, as Kubeflow's Dex in a mesh that encrypts."""

    gateway_client_id: OptionalStr = ""
    """Client for which Kubeflow's gateway gets its tokens; empty takes nobody's word but a log-in
    here."""


class _Pending(Record):
    """A log-in that goes on at the provider."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    after: str
    """Path of the page that is opened afterwards."""

    ends: float


@dataclass(frozen=True, slots=True)
class _Known:
    """Facts that the provider has published."""

    metadata: Mapping[str, str]
    methods: tuple[str, ...]
    keys: KeySet


@dataclass(frozen=True, slots=True)
class Started:
    """The way on for a browser that begins a log-in."""

    url: str
    """Of the provider's page."""

    sealed: str
    """What the browser keeps meanwhile, which it can neither read nor change."""


class Provider:
    """The provider of the settings, for one server."""

    def __init__(self, settings: OidcSettings, secret: str = "") -> None:
        """Ask nothing yet.

        Args:
            settings: of the provider.
            secret: of the client; empty where it has none.
        """
        self.settings = settings
        self._secret = secret
        self._seal = OctKey.generate_key(256)
        self._used: OrderedDict[str, float] = OrderedDict()
        self._known: _Known | None = None
        self._tried = float("-inf")
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(CALLS_AT_A_TIME)

    def start(self, server: str, after: str) -> Started:
        """Begin a log-in.

        Args:
            server: URL at which people reach this server.
            after: path of the page that is opened afterwards.

        Raises:
            UnavailableError: the provider does not answer.
        """
        known = self._look()
        pending = _Pending(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            redirect_uri=f"{server}{PAGE}",
            after=after,
            ends=time.time() + LOG_IN_S,
        )
        challenge = hashlib.sha256(pending.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": pending.redirect_uri,
            "scope": "openid profile email",
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = known.metadata["authorization_endpoint"]
        url = f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"
        return Started(url, jwe.encrypt_compact(SEALED, pending.model_dump_json(), self._seal))

    def finish(self, sealed: str, state: str, code: str) -> tuple[Identity, str]:
        """Return who has logged in, and the path of the page that is opened now.

        Args:
            sealed: what the browser has kept since the log-in began.
            state: as the provider has sent it back.
            code: of the provider, which is worth a token once.

        Raises:
            ProblemError: it is not the log-in that this browser began, or not a proof of it.
            UnavailableError: the provider does not answer.
        """
        pending = self._unseal(sealed)
        if not secrets.compare_digest(pending.state.encode(), state.encode()):
            _refuse("the answer belongs to another log-in")
        self._use(pending.state)
        token = self._redeem(code, pending)
        claims = self._verify(token, self.settings.client_id, pending.nonce)
        return self._identity(claims), pending.after

    def of_gateway(self, token: str, named: str) -> Identity:
        """Return whom a token belongs to that a gateway has got for its own client.

        Args:
            token: of the header `Authorization`.
            named: name in the header `kubeflow-userid`; empty where there is none.

        Raises:
            ProblemError: it proves nothing, or belongs to somebody else.
            UnavailableError: the provider does not answer.
        """
        claims = self._verify(token, self.settings.gateway_client_id, "")
        names = [claims.get(claim) for claim in ("email", "preferred_username", "sub")]
        if named and named not in names:
            _refuse("kubeflow-userid and the token name different people")
        return self._identity(claims)

    def _unseal(self, sealed: str) -> _Pending:
        try:
            text = jwe.decrypt_compact(sealed, self._seal, list(SEALED.values())).plaintext or b""
        except (JoseError, ValueError):
            _refuse("no log-in was started in this browser")
        pending = _Pending.model_validate_json(text)
        if pending.ends < time.time():
            _refuse("the log-in took too long")
        return pending

    def _use(self, state: str) -> None:
        """Note that a log-in has had its answer."""
        now = time.monotonic()
        with self._lock:
            while self._used and next(iter(self._used.values())) < now - LOG_IN_S:
                self._used.popitem(last=False)
            is_used = state in self._used
            self._used.setdefault(state, now)
            if len(self._used) > MAX_USED:
                self._used.popitem(last=False)
        if is_used:
            _refuse("the log-in has had its answer already")

    def _redeem(self, code: str, pending: _Pending) -> str:
        """Return the ID token that a code is worth."""
        known = self._look()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": pending.redirect_uri,
            "code_verifier": pending.verifier,
            "client_id": self.settings.client_id,
        }
        auth = None
        if self._secret and "client_secret_basic" in known.methods:
            auth = (quote(self.settings.client_id, safe=""), quote(self._secret, safe=""))
        elif self._secret:
            form["client_secret"] = self._secret
        status, answer = self._ask(known.metadata["token_endpoint"], form, auth)
        if answer.get("error") == "invalid_grant":
            _refuse("the provider does not know the code")
        token = answer.get("id_token")
        if status != HTTPStatus.OK or not isinstance(token, str):
            reason = re.sub(r"[^\w ]", "", str(answer.get("error", status)))[:60]
            raise UnavailableError("the identity provider refuses this server", reason)
        return token

    def _verify(self, token: str, audience: str, nonce: str) -> dict[str, object]:
        """Return the claims of a token that the provider has signed for an audience."""
        wanted = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self.settings.issuer},
            sub={"essential": True},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce} if nonce else {},
        )
        try:
            try:
                decoded = jwt.decode(token, self._look().keys, registry=SIGNED)
            except InvalidKeyIdError:  # a key that is newer than what is known
                decoded = jwt.decode(token, self._look(KEYS_EVERY_S).keys, registry=SIGNED)
            wanted.validate(decoded.claims)
        except (JoseError, ValueError, TypeError) as error:
            _refuse(f"the token proves nothing: {_why(error)}")
        claims: dict[str, object] = decoded.claims
        if isinstance(claims["aud"], list) and claims.get("azp", audience) != audience:
            _refuse("the token proves nothing: it was made for another client")
        return claims

    def _identity(self, claims: Mapping[str, object]) -> Identity:
        subject = f"{self.settings.issuer}\n{claims['sub']}"
        name = claims.get(self.settings.name_claim)
        name = name if isinstance(name, str) else ""
        if self.settings.name_claim == "email":
            name, _, domain = name.rpartition("@")
            is_right = domain.lower() == self.settings.email_domain.lower()
            if not is_right or claims.get("email_verified") is not True:
                name = ""
        return Identity(
            subject=hashlib.sha256(subject.encode()).hexdigest(),
            name=re.sub(r"[._]", "-", name.lower()),
        )

    def _look(self, fresh_s: float = FRESH_S) -> _Known:
        """Return what the provider has published, which is read again after some time.

        Where it is away, what was read before has to do.
        """
        known = self._known
        if known is not None and time.monotonic() - self._tried < fresh_s:
            return known
        if not self._lock.acquire(timeout=ANSWER_S if known is None else 0):
            if known is not None:
                return known
            raise UnavailableError("the identity provider does not answer", self._host())
        try:
            if self._known is not known and self._known is not None:
                return self._known
            self._tried = time.monotonic()
            self._known = self._read()
            return self._known
        except UnavailableError as error:
            if known is None:
                raise
            log("platform", "goes on with the keys that it knows", because=error.what)
            return known
        finally:
            self._lock.release()

    def _read(self) -> _Known:
        issuer = self.settings.issuer
        _, found = self._ask(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        metadata = {name: found.get(name) for name in METADATA}
        texts = {name: value for name, value in metadata.items() if isinstance(value, str)}
        if texts.get("issuer") != issuer or len(texts) < len(METADATA):
            raise UnavailableError("the identity provider names another issuer, or lacks a part")
        for name in METADATA[1:]:
            if not self._is_safe(texts[name]):
                raise UnavailableError(f"the identity provider is not safe: its {name}")
        methods = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        _, jwks = self._ask(texts["jwks_uri"])
        try:
            keys = KeySet.import_key_set(jwks)  # type: ignore[arg-type]
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise UnavailableError("the identity provider has no keys", repr(error)) from None
        return _Known(texts, tuple(methods) if isinstance(methods, list) else (), keys)

    def _ask(
        self,
        url: str,
        form: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> tuple[int, dict[str, object]]:
        """Return status and JSON of an answer; a form is sent, and anything else only read."""
        if not self._turns.acquire(timeout=ANSWER_S):
            raise UnavailableError("too many log-ins wait for the identity provider", self._host())
        try:
            with requests.request(
                "GET" if form is None else "POST",
                url,
                data=form,
                auth=auth,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                timeout=ANSWER_S,
                allow_redirects=False,
                stream=True,
            ) as answer:
                text = answer.raw.read(MAX_ANSWER)
                status = answer.status_code
            values = json.loads(text)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            reason = f"{self._host()}: {type(error).__name__}"
            raise UnavailableError("the identity provider does not answer", reason) from None
        finally:
            self._turns.release()
        if not isinstance(values, dict) or (form is None and status != HTTPStatus.OK):
            raise UnavailableError("the identity provider does not answer as one", self._host())
        return status, values

    def _is_safe(self, url: str) -> bool:
        return _is_safe(url) or (self.settings.allow_http and url.startswith("http://"))

    def _host(self) -> str:
        return urlsplit(self.settings.issuer).netloc


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Provider:
    """Read the settings of a provider.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: a setting is wrong.
    """
    if not path.is_file():
        raise NotFoundError("no such file", path)
    values = records.parse_yaml(path.read_text(), str(path))
    if values.get("gateway_client_id") and not values.get("issuer"):
        hint = "oidc.issuer names the provider whose tokens prove it"
        raise ConfigError("any pod of the mesh can send kubeflow-userid", path, hint=hint)
    settings = records.load(OidcSettings, values, name="oidc")
    if not _is_safe(settings.issuer) and not settings.allow_http:
        hint = "https://..., http:// of this machine, or oidc.allow_http in a mesh that encrypts"
        raise ConfigError("oidc.issuer", settings.issuer, hint=hint)
    if not settings.client_id and not settings.gateway_client_id:
        raise ConfigError("a setting is missing", "oidc.client_id")
    if settings.name_claim == "email" and not settings.email_domain:
        hint = "an account is named after the address without it"
        raise ConfigError("a setting is missing", "oidc.email_domain", hint=hint)
    return Provider(settings, _secret(settings, environment))


def _secret(settings: OidcSettings, environment: Mapping[str, str]) -> str:
    if not settings.secret_file:
        return environment.get(SECRET, "")
    try:
        return Path(settings.secret_file).read_text().strip()
    except OSError as error:
        raise ConfigError("oidc.secret_file", settings.secret_file, hint=str(error)) from None


def _is_safe(url: str) -> bool:
    """Tell whether nobody on the way can read or change what a URL leads to."""
    parts = urlsplit(url)
    is_own = parts.scheme == "http" and is_loopback(parts.hostname or "")
    return bool(parts.hostname) and (parts.scheme == "https" or is_own)


def _why(error: Exception) -> str:
    """Say what is wrong with a token, in words of which none is the token's own."""
    if isinstance(error, MissingClaimError):
        return f"it lacks {error.claim}"
    if isinstance(error, ClaimError) and not isinstance(error, ExpiredTokenError):
        return f"its {error.claim} is wrong"
    return REASONS.get(type(error), "it is none of the provider's")


def _refuse(reason: str) -> NoReturn:
    hint = "log in again"
    raise ProblemError(HTTPStatus.UNAUTHORIZED, reason, hint=hint)
