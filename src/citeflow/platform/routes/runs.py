"""Runs: their form, submission, state, live view, results and comparison."""

import asyncio
import contextlib
import mimetypes
import os
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from citeflow.errors import NotFoundError, UnavailableError
from citeflow.platform import forms
from citeflow.platform.beneath import open_beneath
from citeflow.platform.events import Cursor
from citeflow.platform.gate import SANDBOX
from citeflow.platform.schema import (
    Comparison,
    FormBody,
    LogBody,
    PreviewBody,
    RunBody,
    RunList,
    State,
    Submission,
    TaskName,
)
from citeflow.platform.services import Key, Shared, User
from citeflow.serving.handlers import LimitedRoute
from citeflow.serving.problems import ProblemError

router = APIRouter(route_class=LimitedRoute, tags=["runs"])

EVENTS: dict[int | str, dict[str, object]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
    204: {"description": "The run has ended, and the client has all of it"},
}
FILE: dict[int | str, dict[str, object]] = {
    200: {"content": {"text/html": {"schema": {"type": "string"}}}}
}
ANY_FILE: dict[int | str, dict[str, object]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}
}

MAX_LINES = 5_000
CHUNK = 1 << 20


@router.get("/form/{task}")
def show_form(task: TaskName, account: User, shared: Shared) -> FormBody:
    """Return everything that can be chosen for a run."""
    sizes = shared.backend.sizes()
    workers = sizes[account.size].cores if account.size is not None else 1
    return forms.form(task, workers, shared.backend.code_problem())


@router.post("/runs/preview")
def preview_run(body: Submission, account: User, shared: Shared) -> PreviewBody:
    """Say what a submission would start, and start nothing."""
    return shared.runs.preview(account, body)


@router.post("/runs", status_code=HTTPStatus.CREATED)
def submit_run(body: Submission, account: User, shared: Shared, key: Key = "") -> RunBody:
    """Put a run into the queue."""
    run = shared.runs.submit(account, body, key)
    shared.accounts.note(account.name, "submit", run.name, run.state)
    return run


@router.get("/runs")
def list_runs(
    account: User,
    shared: Shared,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: float | None = None,
) -> RunList:
    """List runs, the newest first; `before` is a time in seconds since 1970."""
    return RunList(runs=shared.runs.list(account, state=state or "", limit=limit, before=before))


@router.get("/runs/compare")
def compare_runs(
    ids: Annotated[str, Query(max_length=1_000)], account: User, shared: Shared
) -> Comparison:
    """Put runs side by side; `ids` has commas between them."""
    return shared.runs.compare(account, [each for each in ids.split(",") if each])


@router.get("/runs/{run_id}")
def show_run(run_id: str, account: User, shared: Shared) -> RunBody:
    """Describe a run."""
    return shared.runs.get(account, run_id)


@router.delete("/runs/{run_id}", status_code=HTTPStatus.NO_CONTENT)
def delete_run(run_id: str, account: User, shared: Shared) -> None:
    """Delete a run that has ended, with its files."""
    shared.runs.delete(account, run_id)
    shared.accounts.note(account.name, "delete run", run_id, "done")


@router.post("/runs/{run_id}/cancel")
def cancel_run(run_id: str, account: User, shared: Shared) -> RunBody:
    """Stop a run; it saves a checkpoint, from which it can be resumed."""
    run = shared.runs.cancel(account, run_id)
    shared.accounts.note(account.name, "cancel", run.name, run.state)
    return run


@router.post("/runs/{run_id}/resume")
def resume_run(run_id: str, account: User, shared: Shared) -> RunBody:
    """Let a run go on that was stopped or has failed."""
    run = shared.runs.resume(account, run_id)
    shared.accounts.note(account.name, "resume", run.name, run.state)
    return run


@router.get("/runs/{run_id}/events", response_class=Response, responses=EVENTS)
async def watch_run(
    run_id: str,
    request: Request,
    account: User,
    shared: Shared,
    last: Annotated[str, Header(alias="Last-Event-ID", max_length=60)] = "",
    after: Annotated[str, Query(max_length=60)] = "",
) -> Response:
    """Stream a run: events `run`, `log`, `metrics` and `resources`, until it has ended."""
    row = await asyncio.to_thread(shared.runs.row, account, run_id)
    cursor = Cursor.parse(last or after)

    def is_allowed() -> bool:
        with contextlib.suppress(ProblemError, UnavailableError):
            return shared.who_asks(request) is not None
        return False

    return await shared.feeds.respond(
        account, row, cursor, is_again=bool(last), is_allowed=is_allowed
    )


@router.get("/runs/{run_id}/logs")
def show_log(
    run_id: str,
    account: User,
    shared: Shared,
    rank: Annotated[int | None, Query(ge=0)] = None,
    after: Annotated[int, Query(ge=0)] = 0,
) -> LogBody:
    """Return lines of the log behind line `after`, of one rank or of all."""
    records = shared.runs.records(shared.runs.row(account, run_id))
    ranks = sorted({line.rank for line in records.log if line.rank is not None})
    lines = [line for line in records.log[after:] if rank is None or line.rank == rank]
    return LogBody(lines=lines[:MAX_LINES], ranks=ranks)


@router.get("/runs/{run_id}/report.html", response_class=Response, responses=FILE)
def show_report(run_id: str, account: User, shared: Shared) -> Response:
    """Return the report of a run that has ended, for a frame of the page."""
    return _file(shared, account, run_id, "report.html", as_page=True)


@router.get("/runs/{run_id}/files/{name:path}", response_class=Response, responses=ANY_FILE)
def show_file(run_id: str, name: str, account: User, shared: Shared) -> Response:
    """Return a file that the run has published."""
    return _file(shared, account, run_id, name, as_page=False)


def _file(shared: Shared, account: User, run_id: str, name: str, *, as_page: bool) -> Response:
    paths = shared.runs.paths(shared.runs.row(account, run_id))
    root = shared.backend.folder(account.name)
    # Where it has to be once all links are followed: code of a user may have made some.
    own = root.resolve() / paths.folder.relative_to(root)
    try:
        folder = paths.published.resolve()
        path = (folder / name).resolve()
        if not (folder.is_relative_to(own) and path.is_relative_to(folder)):
            raise FileNotFoundError(name)
        file = open_beneath(root.resolve(), path)  # and code may make another one now
    except (OSError, RuntimeError, ValueError):  # such as a long name, a ring of links, a null
        raise NotFoundError("no such file of the run", name[:100]) from None
    headers = {
        "Content-Security-Policy": SANDBOX,
        "Cache-Control": "no-store",
        "Content-Length": str(os.fstat(file.fileno()).st_size),
    }
    if as_page:
        return StreamingResponse(_chunks(file), headers=headers, media_type="text/html")
    headers["Content-Disposition"] = f"attachment; filename*=utf-8''{quote(path.name)}"
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return StreamingResponse(_chunks(file), headers=headers, media_type=media_type)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
