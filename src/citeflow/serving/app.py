"""The HTTP application: routes over the index that answers.

Handlers only read requests and write answers; what takes time runs in the threads of a `WorkQueue`.
"""

import contextlib
import functools
import mimetypes
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from pydantic import JsonValue
from starlette.responses import Response

from citeflow import __version__
from citeflow.evaluation.answers import Answer, Wanted
from citeflow.evaluation.engine import answer_all
from citeflow.evaluation.queries import QueryPaper
from citeflow.reporting.predictions import to_json
from citeflow.serving import inference_protocol as protocol
from citeflow.serving import schema
from citeflow.serving.guard import REQUEST_ID, Guard
from citeflow.serving.handlers import ERRORS, HANDLERS, LimitedRoute
from citeflow.serving.index import ServingIndex
from citeflow.serving.metrics import ServerMetrics
from citeflow.serving.problems import ProblemError, json_response
from citeflow.serving.reload import IndexHolder
from citeflow.serving.work import WorkQueue

PAGE = Path(__file__).parent / "page"

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

MAX_REFERENCES = 50
"""References of a paper that are shown."""

MAX_FOUND = 100

NOT_READY: dict[int | str, dict[str, object]] = {
    503: {"description": "Not ready", "model": schema.Ready}
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of the work that one server takes on."""

    threads: int = 1
    """Papers that are answered at a time. One thread more answers what takes long, scans of all
    papers and batches. Python lets about one thread compute at a time."""

    max_waiting: int = 2
    """Requests that wait for a thread of either kind; those beyond get 429. As one thread computes
    at a time, each adds the time of one answer to the time of those that are accepted."""

    timeout_s: float = 30.0
    """Time that a request may wait and be answered."""

    body_timeout_s: float = 10.0
    """Time for the body of a request to arrive."""


def create_app(holder: IndexHolder, metrics: ServerMetrics, limits: Limits) -> FastAPI:
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
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        holder.start()
        yield
        holder.leave()
        queues.short.close()
        queues.long.close()

    app = FastAPI(
        title="citeflow",
        version=__version__,
        summary="The citations that papers most likely lack, with reasons.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=ERRORS,
    )
    app.state.asked = Asked(holder, metrics, queues)
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
    for router in (health, papers, citations, batches, inference, tensors):
        app.include_router(router)
    if PAGE.is_dir():
        _add_page(app)
    app.add_middleware(Guard, metrics=metrics, body_timeout_s=limits.body_timeout_s)
    return app


@dataclass(frozen=True, kw_only=True, slots=True)
class Queues:
    """The queues of a server: a paper is answered beside a scan or a batch, not behind it."""

    short: WorkQueue
    """Of single papers, answered in milliseconds by walks."""

    long: WorkQueue
    """Of scans of all papers, and of batches."""

    def of(self, num_queries: int, wanted: Wanted) -> WorkQueue:
        """Return the queue of a request."""
        return self.long if num_queries > 1 or wanted.exact else self.short


@dataclass(frozen=True, slots=True)
class Asked:
    """Everything that the handlers of an application share."""

    holder: IndexHolder
    metrics: ServerMetrics
    queues: Queues

    async def answers(
        self, queries: Sequence[QueryPaper], wanted: Wanted
    ) -> tuple[ServingIndex, list[Answer]]:
        """Answer queries in one thread, by one index.

        Raises:
            ProblemError: too many requests are waiting, or it took too long.
        """
        index = self.holder.get()

        def call(stop: threading.Event) -> list[Answer]:
            done = []
            for answer in answer_all(index.engine, queries, wanted):
                done.append(answer)
                if stop.is_set():
                    break
            return done

        answers = await self.queues.of(len(queries), wanted).run(call)
        for answer in answers:
            method = answer.method if answer.error is None else "error"
            self.metrics.answers.labels(method).inc()
        return index, answers

    async def answer(self, query: QueryPaper, wanted: Wanted) -> Response:
        """Answer one query.

        Raises:
            CiteflowError: it cannot be answered.
        """
        _, [answer] = await self.answers([query], wanted)
        if answer.error is not None:
            raise answer.error
        return json_response(_to_json(answer))


def asked(request: Request) -> Asked:
    """Return what the handlers share."""
    shared: Asked = request.app.state.asked
    return shared


class QueuedRoute(LimitedRoute):
    """A route whose requests wait for a thread, and are refused where too many wait."""

    takes_long = False

    async def admit(self, request: Request) -> None:
        """Refuse a request where too many wait already."""
        queues = asked(request).queues
        await (queues.long if self.takes_long else queues.short).refuse_if_full()


class BatchRoute(QueuedRoute):
    """A route whose requests wait for the thread of what takes long."""

    takes_long = True


health = APIRouter()
papers = APIRouter(prefix="/v1")
citations = APIRouter(prefix="/v1", route_class=QueuedRoute)
batches = APIRouter(prefix="/v1", route_class=BatchRoute)
inference = APIRouter(prefix="/v2")
tensors = APIRouter(prefix="/v2", route_class=QueuedRoute)


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


@health.get("/metrics", include_in_schema=False)
async def metrics_page(request: Request) -> Response:
    """Return what Prometheus reads."""
    content_type = "text/plain; version=0.0.4; charset=utf-8"
    return Response(asked(request).metrics.page(), media_type=content_type)


@papers.get("/about", response_model=schema.About)
async def about(request: Request) -> Response:
    """Say what answers."""
    index = asked(request).holder.get()
    facts = index.graph.facts
    return json_response(
        {
            "name": protocol.MODEL,
            "version": index.manifest.sha256,
            "dataset": facts.dataset,
            "num_papers": facts.num_papers,
            "num_citations": facts.num_citations,
            "has_dates": facts.dates,
            "has_titles": index.papers.titles is not None,
            "has_text": index.engine.has_text,
            "num_features": facts.num_features,
            "citeflow": __version__,
        }
    )


@papers.get("/papers", response_model=schema.PaperList)
async def find_papers(
    request: Request,
    q: Annotated[str, Query(max_length=1_000)],
    limit: Annotated[int, Query(ge=1, le=MAX_FOUND)] = 10,
) -> Response:
    """Find papers by an id, or by words of the title; the last may be the beginning of one."""
    shared = asked(request)
    index = shared.holder.get()
    rows = await shared.queues.short.run(lambda _: index.papers.search(q, limit))
    return json_response({"papers": [_summary(index, row) for row in rows]})


@papers.get("/papers/{paper:path}", response_model=schema.PaperBody)
async def show_paper(request: Request, paper: str) -> Response:
    """Show a paper and what it cites."""
    index = asked(request).holder.get()
    row = index.papers.get(paper)
    references = index.graph.references.row(row).tolist()
    return json_response(
        {
            **_summary(index, row),
            "num_references": len(references),
            "references": [_name(index, each) for each in references[:MAX_REFERENCES]],
        }
    )


@citations.post("/papers/{paper:path}/citations", response_model=schema.AnswerBody)
async def cite_for_paper(
    request: Request, paper: str, options: schema.Options | None = None
) -> Response:
    """List what a paper of the graph should cite and does not."""
    wanted = (options or schema.Options()).wanted()
    return await asked(request).answer(QueryPaper(paper=paper), wanted)


@citations.post("/citations", response_model=schema.AnswerBody)
async def cite_for_new(request: Request, body: schema.NewPaperRequest) -> Response:
    """List what a new paper should cite, or one that cites all of some seeds."""
    return await asked(request).answer(body.query(), body.wanted())


@batches.post("/citations:batch", response_model=schema.BatchBody)
async def cite_for_many(request: Request, body: schema.BatchRequest) -> Response:
    """Answer several queries, each with citations or an error."""
    queries = [each.query() for each in body.queries]
    _, answers = await asked(request).answers(queries, body.wanted())
    request_id = request.scope[REQUEST_ID]
    return json_response({"answers": [_to_json(each, request_id) for each in answers]})


@inference.get("")
async def server_metadata() -> dict[str, JsonValue]:
    """Describe the server."""
    return {"name": "citeflow", "version": __version__, "extensions": []}


@inference.get("/models/{model}")
async def model_metadata(request: Request, model: str) -> Response:
    """Describe the model."""
    _check_model(model)
    return json_response(protocol.metadata(asked(request).holder.get().manifest.sha256[:12]))


@inference.get("/models/{model}/ready", response_model=schema.Ready, responses=NOT_READY)
async def model_ready(request: Request, model: str) -> Response:
    """Say whether queries are answered."""
    _check_model(model)
    is_ready = asked(request).holder.is_ready
    status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return json_response({"name": model, "ready": is_ready}, status=status)


@tensors.post("/models/{model}/infer", response_model=schema.InferBody)
async def infer(request: Request, model: str, body: schema.InferRequest) -> Response:
    """Answer queries in tensors."""
    _check_model(model)
    queries, options = protocol.read_request(body)
    index, answers = await asked(request).answers(queries, options.wanted())
    version = index.manifest.sha256[:12]
    return json_response(protocol.response(body, answers, options.k, version))


def _check_model(model: str) -> None:
    if model != protocol.MODEL:
        raise ProblemError(HTTPStatus.NOT_FOUND, "no such model", hint=protocol.MODEL)


def _to_json(answer: Answer, request_id: str = "") -> dict[str, JsonValue]:
    values = to_json(answer)
    if answer.error is not None:
        return {**values, "error": ProblemError.of(answer.error).to_json(request_id)}
    return {**values, "method": answer.method, "num_candidates": answer.num_candidates}


def _name(index: ServingIndex, row: int) -> dict[str, JsonValue]:
    titles = index.papers.titles
    return {"id": index.papers.ids[row], "title": None if titles is None else titles[row]}


def _summary(index: ServingIndex, row: int) -> dict[str, JsonValue]:
    engine = index.engine
    return {**_name(index, row), "date": engine.date(row), "cited_by": engine.cited_by(row)}


def _add_page(app: FastAPI) -> None:
    """Serve each file of the page by its name, and the page itself at /."""
    contents = {file.name: file.read_bytes() for file in PAGE.iterdir() if file.is_file()}
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
