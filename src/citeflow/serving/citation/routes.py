"""Routes about papers and the citations that they lack.

Legend: B papers of a request, k predictions of each.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import JsonValue
from starlette.responses import Response

from citeflow import __version__
from citeflow.config import CITATION
from citeflow.evaluation.answers import Answer, Wanted
from citeflow.evaluation.engine import answer_all
from citeflow.evaluation.queries import QueryPaper
from citeflow.reporting.predictions import to_json
from citeflow.serving import inference_protocol as protocol
from citeflow.serving.app import BatchRoute, QueuedRoute, asked
from citeflow.serving.citation import schema, tensors
from citeflow.serving.citation.index import ServingIndex
from citeflow.serving.guard import MAX_BODY_BYTES, REQUEST_ID
from citeflow.serving.problems import ProblemError, json_response
from citeflow.serving.schema import InferBody
from citeflow.serving.served import Service

MAX_REFERENCES = 50
"""References of a paper that are shown."""

MAX_FOUND = 100

papers = APIRouter(prefix="/v1")
citations = APIRouter(prefix="/v1", route_class=QueuedRoute)
batches = APIRouter(prefix="/v1", route_class=BatchRoute)
inference = APIRouter(prefix="/v2", route_class=QueuedRoute)

SERVICE = Service(
    summary="The citations that papers most likely lack, with reasons.",
    routers=(papers, citations, batches, inference),
    page=Path(__file__).parent / "page",
    max_body_bytes=MAX_BODY_BYTES,
)


def _index(request: Request) -> ServingIndex:
    index = asked(request).index
    assert isinstance(index, ServingIndex)
    return index


async def _answers(request: Request, queries: Sequence[QueryPaper], wanted: Wanted) -> list[Answer]:
    """Answer queries in one thread.

    Raises:
        ProblemError: too many requests are waiting, or it took too long.
    """
    shared = asked(request)
    engine = _index(request).engine

    def call(stop: threading.Event) -> list[Answer]:
        done = []
        for answer in answer_all(engine, queries, wanted):
            done.append(answer)
            if stop.is_set():
                break
        return done

    queue = shared.queues.of(takes_long=len(queries) > 1 or wanted.exact)
    answers = await queue.run(call)
    for answer in answers:
        method = answer.method if answer.error is None else "error"
        shared.metrics.answers.labels(method).inc()
    return answers


async def _answer(request: Request, query: QueryPaper, wanted: Wanted) -> Response:
    """Answer one query.

    Raises:
        CiteflowError: it cannot be answered.
    """
    [answer] = await _answers(request, [query], wanted)
    if answer.error is not None:
        raise answer.error
    return json_response(_to_json(answer))


@papers.get("/about", response_model=schema.About)
async def about(request: Request) -> Response:
    """Say what answers."""
    index = _index(request)
    facts = index.graph.facts
    return json_response(
        {
            "name": protocol.MODEL,
            "task": CITATION,
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
    index = _index(request)
    rows = await shared.queues.short.run(lambda _: index.papers.search(q, limit))
    return json_response({"papers": [_summary(index, row) for row in rows]})


@papers.get("/papers/{paper:path}", response_model=schema.PaperBody)
async def show_paper(request: Request, paper: str) -> Response:
    """Show a paper and what it cites."""
    index = _index(request)
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
    return await _answer(request, QueryPaper(paper=paper), wanted)


@citations.post("/citations", response_model=schema.AnswerBody)
async def cite_for_new(request: Request, body: schema.NewPaperRequest) -> Response:
    """List what a new paper should cite, or one that cites all of some seeds."""
    return await _answer(request, body.query(), body.wanted())


@batches.post("/citations:batch", response_model=schema.BatchBody)
async def cite_for_many(request: Request, body: schema.BatchRequest) -> Response:
    """Answer several queries, each with citations or an error."""
    queries = [each.query() for each in body.queries]
    answers = await _answers(request, queries, body.wanted())
    request_id = request.scope[REQUEST_ID]
    return json_response({"answers": [_to_json(each, request_id) for each in answers]})


@inference.post("/models/{model}/infer", response_model=InferBody)
async def infer(request: Request, model: str, body: schema.InferRequest) -> Response:
    """Answer queries in tensors."""
    protocol.check_model(model)
    queries, options = tensors.read_request(body)
    answers = await _answers(request, queries, options.wanted())
    columns = tensors.columns(answers, options.k)
    shape = [len(answers), options.k]
    return json_response(protocol.response(_index(request), columns, shape, id=body.id))


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
