"""The HTTP application: health, metrics, and the routes of the task whose index answers.

Handlers only read requests and write answers; what takes time runs in the threads of a `WorkQueue`.
Which task is served follows from the index, that is from what is there when the server looks: each
task has an application of its own, and a request goes to that of the index that it begins with.
"""

import contextlib
import functools
import mimetypes
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from pydantic import JsonValue
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from citeflow import __version__
from citeflow.serving import inference_protocol as protocol
from citeflow.serving import schema
from citeflow.serving.guard import MAX_BODY_BYTES, Guard
from citeflow.serving.handlers import ERRORS, HANDLERS, LimitedRoute
from citeflow.serving.metrics import ServerMetrics
from citeflow.serving.problems import ProblemError, json_response
from citeflow.serving.reload import IndexHolder
from citeflow.serving.served import Served, Service
from citeflow.serving.work import WorkQueue
from citeflow.tasks import get_task

PAGE = Path(__file__).parent / "page"
"""Files that the pages of all tasks share."""

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

ASKED = "asked"
"""Key of `Asked` in the scope of a request."""

NOT_READY: dict[int | str, dict[str, object]] = {
    503: {"description": "Not ready", "model": schema.Ready}
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of the work that one server takes on."""

    threads: int = 1
    """Papers or pictures that are answered at a time. One thread more answers what takes long,
    scans of all papers and batches. Python lets about one thread compute at a time."""

    max_waiting: int = 2
    """Requests that wait for a thread of either kind; those beyond get 429. As one thread computes
    at a time, each adds the time of one answer to the time of those that are accepted."""

    timeout_s: float = 30.0
    """Time that a request may wait and be answered."""

    body_timeout_s: float = 10.0
    """Time for the body of a request to arrive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Queues:
    """The queues of a server: what is short is answered beside what takes long, not behind it."""

    short: WorkQueue
    """Of single papers, answered in milliseconds by walks, and of single pictures."""

    long: WorkQueue
    """Of scans of all papers, and of batches."""

    def of(self, *, takes_long: bool) -> WorkQueue:
        """Return the queue of a request."""
        return self.long if takes_long else self.short


@dataclass(frozen=True, slots=True)
class Asked:
    """The index that a request began with, and what all requests share."""

    current: Served | None
    holder: IndexHolder
    metrics: ServerMetrics
    queues: Queues

    @property
    def index(self) -> Served:
        """The index that answers.

        Raises:
            ProblemError: none is open yet.
        """
        if self.current is None:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the index is not open yet",
                hint="ask again when /v2/health/ready says so",
                headers={"Retry-After": "1"},
            )
        return self.current


def asked(request: Request) -> Asked:
    """Return what a request finds."""
    found: Asked = request.scope[ASKED]
    return found


class QueuedRoute(LimitedRoute):
    """A route whose requests wait for a thread, and are refused where too many wait."""

    takes_long = False

    async def admit(self, request: Request) -> None:
        """Refuse a request where too many wait already."""
        await asked(request).queues.of(takes_long=self.takes_long).refuse_if_full()


class BatchRoute(QueuedRoute):
    """A route whose requests wait for the thread of what takes long."""

    takes_long = True


def create_app(holder: IndexHolder, metrics: ServerMetrics, limits: Limits) -> ASGIApp:
    """Make the application.

    Args:
        holder: of the index; it is started and ended with the application.
        metrics: where requests are counted.
        limits: of the server.
    """
    queue = functools.partial(WorkQueue, max_waiting=limits.max_waiting, timeout_s=limits.timeout_s)
    queues = Queues(short=queue(threads=limits.threads), long=queue(threads=1))
    metrics.pending.set_function(lambda: queues.short.pending + queues.long.pending)

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        holder.start()
        yield
        holder.leave()
        queues.short.close()
        queues.long.close()

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        loaded = holder.loaded
        scope[ASKED] = Asked(None if loaded is None else loaded.index, holder, metrics, queues)
        app = waiting_app() if loaded is None else task_app(loaded.task.name)
        await app(scope, receive, send)

    def max_body_bytes() -> int:
        loaded = holder.loaded
        return MAX_BODY_BYTES if loaded is None else loaded.task.service().max_body_bytes

    return Guard(
        Router(default=dispatch, lifespan=lifespan),
        metrics=metrics,
        max_body_bytes=max_body_bytes,
        body_timeout_s=limits.body_timeout_s,
    )


@functools.cache
def task_app(task: str) -> FastAPI:
    """Make the application of a task, by its name."""
    service = get_task(task).service()
    app = _make_app(service.summary)
    for router in (health, inference, *service.routers):
        app.include_router(router)
    _add_page(app, service)
    return app


@functools.cache
def waiting_app() -> FastAPI:
    """Make the application of a server that has no index yet: it only says so."""
    app = _make_app("An index is not open yet.", openapi_url=None)
    app.include_router(health)

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST"], include_in_schema=False)
    async def wait(request: Request) -> None:
        _ = asked(request).index  # raises

    return app


def _make_app(summary: str, openapi_url: str | None = "/openapi.json") -> FastAPI:
    app = FastAPI(
        title="citeflow",
        version=__version__,
        summary=summary,
        openapi_url=openapi_url,
        docs_url=None,
        redoc_url=None,
        responses=ERRORS,
    )
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return app


health = APIRouter()
inference = APIRouter(prefix="/v2")


@health.get("/v2/health/live")
async def live() -> dict[str, bool]:
    """Say that the process answers."""
    return {"live": True}


@health.get("/v2/health/ready", response_model=schema.Ready, responses=NOT_READY)
async def ready(request: Request) -> Response:
    """Say whether queries are answered."""
    is_ready = asked(request).holder.is_ready
    status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return json_response({"ready": is_ready}, status=status)


@health.get("/v2/models/{model}/ready", response_model=schema.Ready, responses=NOT_READY)
async def model_ready(request: Request, model: str) -> Response:
    """Say whether queries are answered."""
    protocol.check_model(model)
    is_ready = asked(request).holder.is_ready
    status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return json_response({"name": model, "ready": is_ready}, status=status)


@health.get("/metrics", include_in_schema=False)
async def metrics_page(request: Request) -> Response:
    """Return what Prometheus reads."""
    content_type = "text/plain; version=0.0.4; charset=utf-8"
    return Response(asked(request).metrics.page(), media_type=content_type)


@inference.get("")
async def server_metadata() -> dict[str, JsonValue]:
    """Describe the server."""
    return {"name": "citeflow", "version": __version__, "extensions": []}


@inference.get("/models/{model}")
async def model_metadata(request: Request, model: str) -> Response:
    """Describe the model."""
    protocol.check_model(model)
    return json_response(protocol.metadata(asked(request).index))


def _add_page(app: FastAPI, service: Service) -> None:
    """Serve each file of the page by its name, and the page itself at /."""
    contents = {
        file.name: file.read_bytes()
        for folder in (PAGE, service.page)
        for file in folder.iterdir()
        if file.is_file()
    }
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    @app.get("/", include_in_schema=False)
    @app.get("/{name}", include_in_schema=False)
    async def page(name: str = "index.html") -> Response:
        if name not in contents:
            raise ProblemError(HTTPStatus.NOT_FOUND, "no such page")
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(contents[name], media_type=media_type, headers=headers)
