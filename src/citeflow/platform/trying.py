"""Try a model: the index of a version is opened when somebody asks, and a few are kept open.

One that nobody asks for some time is closed, which gives its memory back; the next question opens
it again.
"""

import asyncio
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citeflow.evaluation.answers import Answer, Prediction, Wanted
from citeflow.evaluation.queries import QueryPaper
from citeflow.platform.accounts import Account
from citeflow.platform.models import Models, Seconds
from citeflow.platform.schema import Citation, CitationsBody, CitationsRequest, PaperBody, PaperList
from citeflow.serving.problems import ProblemError
from citeflow.serving.work import WorkQueue
from citeflow.utils.logging import log

if TYPE_CHECKING:
    from citeflow.serving.citation.index import ServingIndex

MAX_OPEN = 3
"""Indices that are open at a time; of ogbl-citation2's size each takes 3 GB."""

WAIT_S = 120.0
"""Longest wait for an index that is made."""

IDLE_S = 3_600.0
"""Time without a question after which an index is closed, where nobody says otherwise."""

TEND_S = 30.0
"""Longest time between two looks for indices that nobody asks."""

LOOK_S = 0.5
MAX_FOUND = 20

NUM_EXAMPLES = 5
MOST_LOOKED_AT = 500
"""Papers that examples are chosen from."""

THREADS = 2
MAX_WAITING = 8


@dataclass(slots=True)
class _Open:
    """An index that is open."""

    index: "ServingIndex"
    asked: float
    """Monotonic time of the last question."""


class TryIt:
    """Answers from the newest indices that were asked for."""

    def __init__(self, models: Models, seconds: Seconds, *, idle_s: float = IDLE_S) -> None:
        """Open nothing yet.

        Args:
            models: where the indices are.
            seconds: gets the time of each answer.
            idle_s: time without a question after which an index is closed.
        """
        self._models = models
        self._seconds = seconds
        self._idle_s = idle_s
        self._open: OrderedDict[Path, _Open] = OrderedDict()
        self._opening = threading.Lock()
        self._work = WorkQueue(threads=THREADS, max_waiting=MAX_WAITING, timeout_s=WAIT_S)

    def close(self) -> None:
        """End the threads."""
        self._work.close()

    @property
    def num_open(self) -> int:
        """Number of indices that are in memory."""
        return len(self._open)

    async def tend(self) -> None:
        """Close the indices that nobody asks, now and then, until the task is cancelled."""
        while True:
            await asyncio.sleep(min(TEND_S, self._idle_s))
            await asyncio.to_thread(self.close_idle)

    def close_idle(self) -> None:
        """Close the indices that nobody has asked for some time; answers that are made go on."""
        with self._opening:
            since = time.monotonic() - self._idle_s
            idle = [folder for folder, each in self._open.items() if each.asked <= since]
            for folder in idle:
                del self._open[folder]
                log("platform", "closes a model that nobody asks", index=folder)

    async def papers(self, account: Account, model: str, words: str) -> PaperList:
        """Find papers by id, or by words of the title; without words, return some to begin with.

        Raises:
            NotFoundError: the user has no such model.
            ProblemError: its index is not made yet.
        """
        row = await asyncio.to_thread(self._models.chosen, account, model)
        folder = await self._index(row)

        def find(_: threading.Event) -> PaperList:
            index = self._opened(folder)
            rows = index.papers.search(words, MAX_FOUND) if words.strip() else _examples(index)
            return PaperList(papers=[_paper(index, each) for each in rows])

        return await self._work.run(find)

    async def citations(
        self, account: Account, model: str, wanted: CitationsRequest
    ) -> CitationsBody:
        """List the papers that a paper should cite, and does not.

        Raises:
            NotFoundError: the user has no such model, or the graph no such paper.
            DataError: nothing is known of the paper.
            ProblemError: its index is not made yet, or too many ask.
        """
        row = await asyncio.to_thread(self._models.chosen, account, model)
        folder = await self._index(row)
        query = QueryPaper(
            paper=wanted.paper,
            title="" if wanted.paper else wanted.title,
            abstract="" if wanted.paper else wanted.abstract,
            references=() if wanted.paper else tuple(wanted.references),
        )

        def answer(_: threading.Event) -> CitationsBody:
            index = self._opened(folder)
            began = time.perf_counter()
            found = index.engine.answer(query, Wanted(k=wanted.top, exact=False))
            self._seconds.add((account.name, model, row.version), time.perf_counter() - began)
            return _body(found, row.version)

        return await self._work.run(answer)

    async def _index(self, row: Any) -> Path:
        """Return the index of a version, and wait while it is made."""
        deadline = time.monotonic() + WAIT_S
        while (folder := await asyncio.to_thread(self._models.index, row)) is None:
            if time.monotonic() > deadline:
                raise ProblemError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "the index of the model is made",
                    hint="ask again in a minute",
                    headers={"Retry-After": "60"},
                )
            await asyncio.sleep(LOOK_S)
        return folder

    def _opened(self, folder: Path) -> "ServingIndex":
        from citeflow.serving.citation.index import ServingIndex

        with self._opening:
            now = time.monotonic()
            if folder not in self._open:
                self._open[folder] = _Open(ServingIndex.open(folder), now)
            found = self._open[folder]
            found.asked = now
            self._open.move_to_end(folder)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
            return found.index


def _examples(index: "ServingIndex") -> list[int]:
    """Return some of the newest papers: they are those that most likely lack citations."""
    num_papers = index.engine.num_papers
    some = range(0, num_papers, max(1, num_papers // MOST_LOOKED_AT))
    return sorted(some, key=lambda row: index.engine.date(row) or "", reverse=True)[:NUM_EXAMPLES]


def _body(found: Answer, version: int) -> CitationsBody:
    return CitationsBody(
        answers=[_citation(each) for each in found.predictions],
        notes=list(found.remarks),
        version=version,
    )


def _citation(prediction: Prediction) -> Citation:
    return Citation(
        id=prediction.id,
        title=prediction.title,
        year=_year(prediction.date),
        probability=prediction.probability,
        score=prediction.logit,
        reasons=[reason.text for reason in prediction.reasons],
    )


def _paper(index: "ServingIndex", row: int) -> PaperBody:
    titles = index.papers.titles
    return PaperBody(
        id=index.papers.ids[row],
        title=None if titles is None else titles[row],
        year=_year(index.engine.date(row)),
    )


def _year(date: str | None) -> int | None:
    found = re.match(r"-?\d+", date or "")
    return int(found[0]) if found else None
