"""The application of a page of one run: its routes need the key that the command has printed."""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from citeflow.errors import NotFoundError
from citeflow.platform.events import Cursor, Feeds
from citeflow.platform.gate import SANDBOX, Gate, protect
from citeflow.platform.live.run import LiveRun
from citeflow.platform.page import STATIC, add_page
from citeflow.platform.schema import RunBody
from citeflow.serving.handlers import LimitedRoute
from citeflow.serving.metrics import RequestMetrics
from citeflow.serving.problems import ProblemError

PREFIX = "/api/v1"

HINT = "open the address that the command has printed"


@dataclass(kw_only=True, slots=True)
class Keys:
    """The keys of a page.

    Cookies of all ports of a machine are one set, so that the name of this one has the port.
    """

    port: int
    token: str
    """Of the address that is printed."""

    ticket: str
    """Of the address that a browser is started with, which all users of the machine can see in the
    list of processes: it is good for once."""

    @property
    def cookie(self) -> str:
        """Name of the cookie."""
        return f"citeflow_live_{self.port}"

    def take(self, given: str) -> bool:
        """Tell whether a token opens the page; a ticket is used up."""
        if self.ticket and secrets.compare_digest(given.encode(), self.ticket.encode()):
            self.ticket = ""
            return True
        return secrets.compare_digest(given.encode(), self.token.encode())

    def check(self, request: Request) -> None:
        """Check the cookie of a request.

        Raises:
            ProblemError: it has none, or another one.
        """
        given = request.cookies.get(self.cookie, "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            raise ProblemError(HTTPStatus.UNAUTHORIZED, "this page needs a key", hint=HINT)


@dataclass(slots=True)
class Visits:
    """Requests under way, by which the page knows when nobody needs it any more."""

    open: int = 0
    last: float | None = None
    """End of the last one, on the monotonic clock; None before the first."""

    def are_over(self, quiet_s: float) -> bool:
        """Tell whether somebody came, and all that came have been answered for some time."""
        is_quiet = self.last is not None and time.monotonic() - self.last >= quiet_s
        return is_quiet and not self.open


@dataclass(kw_only=True, slots=True)
class Live:
    """Everything that the routes share."""

    run: LiveRun
    keys: Keys
    feeds: Feeds
    visits: Visits = field(default_factory=Visits)


def shared(request: Request) -> Live:
    """Return what the routes share, to who has the key.

    Raises:
        ProblemError: who asks does not.
    """
    live: Live = request.app.state.live
    live.keys.check(request)
    return live


Shared = Annotated[Live, Depends(shared)]

router = APIRouter(prefix=f"{PREFIX}/runs", route_class=LimitedRoute)


@router.get("/{run_id}")
def show_run(run_id: str, live: Shared) -> RunBody:
    """Describe the run."""
    return live.run.get(None, run_id)


@router.get("/{run_id}/events")
async def watch_run(
    run_id: str,
    live: Shared,
    last: Annotated[str, Header(alias="Last-Event-ID", max_length=60)] = "",
    after: Annotated[str, Query(max_length=60)] = "",
) -> Response:
    """Stream the run, as the platform streams one of its own."""
    row = live.run.row(None, run_id)
    cursor = Cursor.parse(last or after)
    return await live.feeds.respond(None, row, cursor, is_again=bool(last), is_allowed=lambda: True)


@router.get("/{run_id}/report.html")
def show_report(run_id: str, live: Shared) -> Response:
    """Return the report, for a frame of the page."""
    live.run.row(None, run_id)
    path = live.run.shown.published / "report.html"
    if not path.is_file():
        raise NotFoundError("no report yet", run_id)
    headers = {"Content-Security-Policy": SANDBOX, "Cache-Control": "no-store"}
    return FileResponse(path, headers=headers, media_type="text/html")


def create_app(live: Live, url: str, *, static: Path = STATIC) -> FastAPI:
    """Make the application.

    Args:
        live: what the routes share.
        url: at which the browser of this machine reaches it.
        static: folder of the page.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        live.feeds.close()

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.live = live
    app.include_router(router)
    _add_entrance(app, live)
    add_page(app, static)
    hint = f"from another machine: ssh -L {live.keys.port}:127.0.0.1:{live.keys.port}"
    protect(app, Gate(url, hint=hint), RequestMetrics("citeflow_live"), name="live")
    app.add_middleware(_Counted, visits=live.visits)
    return app


def _add_entrance(app: FastAPI, live: Live) -> None:
    @app.get("/")
    async def enter(token: Annotated[str | None, Query(max_length=200)] = None) -> Response:
        """Take a token out of the address, into a cookie."""
        answer = RedirectResponse(f"/live?run={live.run.id}", HTTPStatus.SEE_OTHER)
        if token is None:
            return answer
        if not live.keys.take(token):
            raise ProblemError(HTTPStatus.FORBIDDEN, "not the key of this page", hint=HINT)
        answer.set_cookie(
            live.keys.cookie, live.keys.token, path=PREFIX, httponly=True, samesite="strict"
        )
        return answer


class _Counted:
    """An ASGI middleware that notes which requests are under way."""

    def __init__(self, app: ASGIApp, *, visits: Visits) -> None:
        """Wrap an application."""
        self._app = app
        self._visits = visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._visits.open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._visits.open -= 1
            self._visits.last = time.monotonic()
