"""The gate of a server: requests that it refuses, and headers that keep a browser safe."""

import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citeflow.serving.guard import Guard
from citeflow.serving.handlers import HANDLERS
from citeflow.serving.metrics import RequestMetrics
from citeflow.serving.problems import ProblemError

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'"
)
API_POLICY = "default-src 'none'; frame-ancestors 'none'"

SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'self'"
)
"""Of what a run has written: it may draw itself, and reaches neither the session nor a server."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")

URL_HINT = "`citeflow platform --url URL` names the one that people use"

PROBED = ("/health", "/metrics")
"""Routes that a cluster asks, by the address of the pod."""


class Gate:
    """Refuses requests that other sites may have made a browser send."""

    def __init__(self, url: str, *, hint: str = URL_HINT) -> None:
        """Take the URL at which people reach the server.

        Args:
            url: of the server.
            hint: for those who ask by another name.
        """
        self._hint = hint
        parts = urlsplit(url)
        self._scheme = parts.scheme
        self._hosts = {parts.netloc}
        if is_loopback(parts.hostname or ""):
            port = f":{parts.port}" if parts.port else ""
            self._hosts |= {f"{name}{port}" for name in LOOPBACK_NAMES}

    async def admit(self, scope: Scope) -> None:
        """Check the name by which the server is asked, and where a change comes from.

        Raises:
            ProblemError: it is asked by another name, as after DNS rebinding, or from elsewhere.
        """
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if scope["path"] in PROBED and scope["method"] in SAFE_METHODS:
            return  # a cluster asks by the address of the pod
        if host not in self._hosts:
            status = HTTPStatus.MISDIRECTED_REQUEST
            detail = f"not this server's name: {host[:100]}"
            raise ProblemError(status, detail, hint=self._hint)
        if scope["method"] in SAFE_METHODS:
            return
        if headers.get("origin", "") != f"{self._scheme}://{host}":
            detail = "a change has to come from this server's own page"
            hint = f"the header Origin: {self._scheme}://{host}"
            raise ProblemError(HTTPStatus.FORBIDDEN, detail, hint=hint)


class SafeHeaders:
    """An ASGI middleware that adds headers for browsers where a route has set none."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", API_POLICY)
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
            await send(message)

        await self._app(scope, receive, send_safe)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, as nobody else reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def protect(
    app: FastAPI,
    gate: Gate,
    metrics: RequestMetrics,
    *,
    name: str,
    is_streamed: Callable[[Scope], bool] = lambda scope: False,
) -> None:
    """Put the gate, safe headers and the limits of requests around an application.

    Args:
        app: has all of its routes.
        gate: what it refuses.
        metrics: where requests are counted.
        name: of the server in its log.
        is_streamed: tells the requests whose body the application reads and limits itself.
    """
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(SafeHeaders)
    app.add_middleware(Guard, metrics=metrics, admit=gate.admit, is_streamed=is_streamed, name=name)
