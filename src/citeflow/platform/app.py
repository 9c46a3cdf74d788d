"""The application: the API below /api/v1, and the page at every other path."""

import asyncio
import contextlib
import gzip
import ipaddress
import mimetypes
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citeflow import __version__
from citeflow.platform.routes import admin, environment, models, oidc, runs, session, uploads
from citeflow.platform.services import Services
from citeflow.serving.guard import Guard
from citeflow.serving.handlers import ERRORS, HANDLERS
from citeflow.serving.metrics import RequestMetrics
from citeflow.serving.problems import ProblemError

PREFIX = "/api/v1"
STATIC = Path(__file__).parent / "static"
INDEX = "index.html"
ASSETS = "assets/"
"""Folder of files whose names change with their content."""

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'"
)
API_POLICY = "default-src 'none'; frame-ancestors 'none'"

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def create_app(services: Services, *, static: Path = STATIC) -> FastAPI:
    """Make the application.

    Args:
        services: what the routes share; the queue is served while the application is.
        static: folder of the page.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        services.queue.start()
        tending = asyncio.create_task(services.trying.tend())
        yield
        tending.cancel()
        services.feeds.close()
        services.trying.close()
        services.queue.close()

    app = FastAPI(
        title="citeflow platform",
        version=__version__,
        summary="Environments, runs, models and users of a citeflow platform.",
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        lifespan=lifespan,
        responses=ERRORS,
    )
    app.state.services = services
    metrics = RequestMetrics("citeflow_platform")
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    for module in (session, oidc, environment, runs, uploads, models, admin):
        app.include_router(module.router, prefix=PREFIX)
    _add_health(app, metrics)
    _add_page(app, static)
    app.add_middleware(SafeHeaders)
    app.add_middleware(
        Guard,
        metrics=metrics,
        admit=Gate(services.url).admit,
        is_streamed=_is_upload,
        name="platform",
    )
    return app


class Gate:
    """Refuses requests that other sites may have made a browser send."""

    def __init__(self, url: str) -> None:
        """Take the URL at which people reach the server."""
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
            hint = "`citeflow platform --url URL` names the one that people use"
            status = HTTPStatus.MISDIRECTED_REQUEST
            raise ProblemError(status, f"not this server's name: {host[:100]}", hint=hint)
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


def _is_upload(scope: Scope) -> bool:
    is_post: bool = scope["method"] == "POST" and scope["path"] == f"{PREFIX}/uploads"
    return is_post


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, as nobody else reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


PROBED = ("/health", "/metrics")
"""Routes that a cluster asks, by the address of the pod."""


def _add_health(app: FastAPI, metrics: RequestMetrics) -> None:
    @app.get("/health", include_in_schema=False)
    async def health() -> dict[str, bool]:
        return {"live": True}

    @app.get("/metrics", include_in_schema=False)
    async def metrics_page() -> Response:
        content_type = "text/plain; version=0.0.4; charset=utf-8"
        return Response(metrics.page(), media_type=content_type)


def _add_page(app: FastAPI, static: Path) -> None:
    """Serve the files of the page by their names, and the page itself at every other path.

    They are kept in memory, as they are and compressed: all of them are a few hundred kilobytes.
    """
    contents = {
        file.relative_to(static).as_posix(): file.read_bytes()
        for file in static.rglob("*")
        if file.is_file()
    }

    compressed = {name: gzip.compress(content, mtime=0) for name, content in contents.items()}

    @app.get("/{path:path}", include_in_schema=False)
    async def page(path: str, request: Request) -> Response:
        if path.startswith("api/") or (path.startswith(ASSETS) and path not in contents):
            raise ProblemError(HTTPStatus.NOT_FOUND, "no such page")
        name = path if path in contents else INDEX
        if name not in contents:
            detail = "the page is not built"
            raise ProblemError(HTTPStatus.NOT_FOUND, detail, hint="`npm run build` in web/")
        is_fixed = name.startswith(ASSETS)
        headers = {
            "Content-Security-Policy": PAGE_POLICY,
            "Cache-Control": "public, max-age=31536000, immutable" if is_fixed else "no-cache",
        }
        content = contents[name]
        if "gzip" in request.headers.get("accept-encoding", ""):
            content = compressed[name]
            headers |= {"Content-Encoding": "gzip"}
        headers |= {"Vary": "Accept-Encoding"}
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(content, media_type=media_type, headers=headers)
