"""Server-sent events of runs: one reader per run, however many watch it.

The id of an event counts the lines, metrics and resources that were sent up to it, so that a client
that comes back with `Last-Event-ID` gets what it lacks, also from another server.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from citeflow.errors import NotFoundError
from citeflow.platform.phases import ENDED
from citeflow.platform.records import Records
from citeflow.platform.schema import RunBody
from citeflow.utils.logging import log

EVERY_S = 1.0
"""Seconds between two looks at a run."""

ALIVE_S = 15.0
"""Seconds after which a comment keeps a silent connection open."""

READERS = 4

IsAllowed = Callable[[], bool]

AT_A_TIME = 20
PAUSE_S = 0.01
"""Streams that are woken together, and the pause behind them, in which other calls are answered."""

_CURSOR = re.compile(r"(\d{1,9})-(\d{1,9})-(\d{1,9})")


@dataclass(slots=True)
class Cursor:
    """Counts of what a client has."""

    log: int = 0
    metrics: int = 0
    resources: int = 0

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Read the id of an event; what is none is the beginning."""
        match = _CURSOR.fullmatch(text)
        return cls(*map(int, match.groups())) if match else cls()

    def __str__(self) -> str:
        return f"{self.log}-{self.metrics}-{self.resources}"


@dataclass(slots=True)
class _Feed:
    """A run that is watched: everything of it as text, and a signal when there is more."""

    run: str = ""
    version: int = 0
    """Changes of `run`."""
    has_ended: bool = False
    is_gone: bool = False
    log: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)
    watchers: set[asyncio.Event] = field(default_factory=set)
    """Of each stream, set when there may be more for it."""
    reader: asyncio.Task[None] | None = None


class Row(Protocol):
    """A run, as far as its events need it."""

    @property
    def id(self) -> str:
        """Of the run."""

    @property
    def phase(self) -> str:
        """One of `phases`."""


class Watchable(Protocol):
    """Runs that can be watched: those of a platform, or the one of `citeflow run --open`.

    An account is whatever tells them who asks.
    """

    def row(self, account: Any, run_id: str) -> Any:
        """Return the Row of a run.

        Raises:
            NotFoundError: the account has no such run.
        """

    def get(self, account: Any, run_id: str) -> RunBody:
        """Describe a run; the errors are those of `row`."""

    def records(self, row: Any) -> Records:
        """Return the records of a run, with what is new."""


class Feeds:
    """The runs that are watched."""

    def __init__(
        self, runs: Watchable, *, every_s: float = EVERY_S, alive_s: float = ALIVE_S
    ) -> None:
        """Read nothing before somebody watches."""
        self._runs = runs
        self._every_s = every_s
        self._alive_s = alive_s
        self._feeds: dict[str, _Feed] = {}
        self._is_leaving = False
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="events")

    def leave(self) -> None:
        """Let all streams end: the server is about to."""
        self._is_leaving = True

    def close(self) -> None:
        """End the readers."""
        for feed in self._feeds.values():
            if feed.reader is not None:
                feed.reader.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def respond(
        self, account: Any, row: Row, cursor: Cursor, *, is_again: bool, is_allowed: IsAllowed
    ) -> Response:
        """Answer a client that watches a run; `is_again` if it has been there before."""
        has_all = await asyncio.to_thread(self.is_complete, row, cursor)
        if is_again and has_all:
            return Response(status_code=HTTPStatus.NO_CONTENT)  # a browser then asks no more
        return StreamingResponse(
            self.stream(account, row, cursor, is_allowed),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def is_complete(self, row: Row, cursor: Cursor) -> bool:
        """Tell whether a client has everything of a run that has ended."""
        if row.phase != ENDED:
            return False
        records = self._runs.records(row)
        return (
            cursor.log >= len(records.log)
            and cursor.metrics >= len(records.metrics)
            and cursor.resources >= len(records.resources)
        )

    async def stream(
        self, account: Any, row: Row, cursor: Cursor, is_allowed: IsAllowed
    ) -> AsyncIterator[str]:
        """Yield the events of a run behind a cursor until it has ended.

        Args:
            account: who watches.
            row: the run.
            cursor: what the client has.
            is_allowed: asked now and then whether the session still holds.
        """
        woken = asyncio.Event()
        feed = self._watch(account, row, woken)
        version = 0
        yield "retry: 2000\n\n"
        try:
            while not (feed.is_gone or self._is_leaving):
                woken.clear()
                parts = list(_news(feed, cursor))
                if feed.version != version and feed.run:
                    version = feed.version
                    parts.insert(0, f"event: run\ndata: {feed.run}\n\n")
                if parts:
                    yield "".join(parts)
                    continue
                if feed.has_ended:
                    return
                if not await self._wait(woken):
                    if not await asyncio.to_thread(is_allowed):
                        return
                    yield ": alive\n\n"
        finally:
            self._leave(row.id, feed, woken)

    async def _wait(self, woken: asyncio.Event) -> bool:
        """Wait to be woken; return False where nothing came for some time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._alive_s):
                return await woken.wait()
        return False

    def _watch(self, account: Any, row: Row, woken: asyncio.Event) -> _Feed:
        feed = self._feeds.get(row.id)
        if feed is None or feed.has_ended or feed.is_gone:  # such as before it was resumed
            feed = self._feeds[row.id] = _Feed()
            feed.reader = asyncio.create_task(self._read(account, row.id, feed))
        feed.watchers.add(woken)
        return feed

    def _leave(self, run_id: str, feed: _Feed, woken: asyncio.Event) -> None:
        feed.watchers.discard(woken)
        if feed.watchers:
            return
        if feed.reader is not None:
            feed.reader.cancel()
        if self._feeds.get(run_id) is feed:
            del self._feeds[run_id]

    async def _read(self, account: Any, run_id: str, feed: _Feed) -> None:
        loop = asyncio.get_running_loop()
        while not (feed.has_ended or feed.is_gone):
            is_new = False
            try:
                is_new = await loop.run_in_executor(self._pool, self._look, account, run_id, feed)
            except NotFoundError:  # the run was deleted
                feed.is_gone = True
            except Exception as error:  # such as a cluster that is away: the next look may do
                log("platform", "could not read a run", run=run_id, because=repr(error))
            if is_new or feed.is_gone or self._is_leaving:
                await _wake(feed)
            await asyncio.sleep(self._every_s)

    def _look(self, account: Any, run_id: str, feed: _Feed) -> bool:
        """Read what is new of a run; return whether anything is."""
        before = _standing(feed)
        row = self._runs.row(account, run_id)
        body = self._runs.get(account, run_id)
        records = self._runs.records(row)  # after the state: then an ended run is complete
        text = body.model_dump_json()
        if text != feed.run:
            feed.run = text
            feed.version += 1
        _extend(feed.log, records.log)
        _extend(feed.metrics, records.metrics)
        _extend(feed.resources, records.resources)
        feed.has_ended = row.phase == ENDED
        return _standing(feed) != before


async def _wake(feed: _Feed) -> None:
    """Wake all streams of a run, some at a time, as threads wait while the loop is at work."""
    watchers = list(feed.watchers)
    for first in range(0, len(watchers), AT_A_TIME):
        for woken in watchers[first : first + AT_A_TIME]:
            woken.set()
        await asyncio.sleep(PAUSE_S)


def _standing(feed: _Feed) -> tuple[int | bool, ...]:
    sizes = (len(feed.log), len(feed.metrics), len(feed.resources))
    return (feed.version, feed.has_ended, *sizes)


def _extend(texts: list[str], items: Sequence[BaseModel]) -> None:
    texts += [item.model_dump_json() for item in items[len(texts) :]]


def _news(feed: _Feed, cursor: Cursor) -> list[str]:
    """Return the events behind a cursor, and move it."""
    parts = []
    for name in ("log", "metrics", "resources"):
        texts: list[str] = getattr(feed, name)
        for text in texts[getattr(cursor, name) :]:
            setattr(cursor, name, getattr(cursor, name) + 1)
            parts.append(f"id: {cursor}\nevent: {name}\ndata: {text}\n\n")
    return parts
