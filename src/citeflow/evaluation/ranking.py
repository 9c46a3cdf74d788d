"""Ranks of the cited papers among their candidates, by several methods at once, chunk by chunk.

Nothing here holds the scores of all candidates: a rank is one more than the number of candidates
that come before, which is counted as they are scored.

Legend: P test citations of a chunk, K candidates, Q test citations that are ranked.
"""

import collections
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation import metrics
from citeflow.evaluation.chunks import PAIRS, Chunk, slices
from citeflow.graph.candidates import Candidates
from citeflow.utils.progress import log_progress
from citeflow.utils.system import num_cores

SOURCES_PER_RANGE = 8
"""Sources that a range of papers is scored for at once, in a graph of more than `PAIRS` papers."""

CONFIDENCE = 0.95
RESAMPLES = 1000

Item = TypeVar("Item")
Result = TypeVar("Result")

Methods = Callable[[np.ndarray, np.ndarray], Iterable[tuple[str, np.ndarray]]]
"""From sources [P] and their candidates [P, K] to name and scores [P, K] of each method."""

Groups = Iterable[tuple[Methods, Iterable[Chunk]]]
"""Chunks, and the methods that score them."""

SharedMethods = Callable[[np.ndarray], Callable[[np.ndarray], Iterable[tuple[str, np.ndarray]]]]
"""From sources [P] to a function from candidates [K], which they share, to name and scores [P, K]
of each method."""


_MethodScores = tuple[str, np.ndarray, np.ndarray]
"""Name of a method, its scores of the positives [P] and of their candidates [P, K]."""


@dataclass(frozen=True, slots=True)
class _Counts:
    """Counts of the candidates that come before some citations."""

    row_P: np.ndarray
    num_better: dict[str, Tensor]
    """Candidates before each, float64 [P], by method."""

    num_candidates_P: Tensor

    def add(self, num_better: dict[str, Tensor], is_counted_PK: np.ndarray) -> None:
        """Add the counts among further candidates."""
        for method, num_P in num_better.items():
            self.num_better[method] = self.num_better.get(method, 0) + num_P
        self.num_candidates_P.add_(torch.from_numpy(is_counted_PK.sum(axis=1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """Ranks of some test citations."""

    by_method: dict[str, Tensor]
    """float32 [Q] by the name of the method; ties count half."""

    num_candidates_Q: Tensor
    """Papers that each was ranked against."""

    seconds: float
    """Time that it took."""


def rank(
    groups: Groups,
    *,
    name: str,
    of: int,
    keep: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> Ranks:
    """Rank the cited papers among their candidates by each method.

    Args:
        groups: candidates, and what computes their scores.
        name: of the protocol, for the log.
        of: Q.
        keep: called, on several threads, with the rows of a chunk and the scores of the first
            method.

    Raises:
        ValueError: a score is NaN.
    """

    def scores(methods: Methods, chunk: Chunk) -> Iterator[_MethodScores]:
        each = enumerate(methods(chunk.source_P, chunk.candidate_PK))
        for i, (method, score_PK) in each:
            if keep is not None and not i:
                keep(chunk.row_P, score_PK)
            yield method, score_PK[:, 0], score_PK[:, 1:]

    def count(methods: Methods, chunk: Chunk) -> _Counts:
        num_better = _count_better(scores(methods, chunk), chunk.is_counted_PK)
        return _Counts(chunk.row_P, num_better, chunk.num_candidates())

    def counts() -> Iterator[_Counts]:
        for methods, chunks in groups:
            for _, each in map_in_threads(functools.partial(count, methods), chunks):
                yield each
            del methods  # the rows that it holds have to go before others are read

    return _collect(counts(), name=name, of=of)


def rank_among_all(
    methods: SharedMethods, held_out: HeldOut, rule: Candidates, row_Q: np.ndarray, *, name: str
) -> Ranks:
    """Rank some rows of a split among all papers by each method.

    Some sources share a range of papers, so that what depends on the papers alone is read once.

    Raises:
        ValueError: a score is NaN.
    """
    num_papers = rule.num_papers
    width = num_papers if num_papers <= PAIRS else max(1, PAIRS // SOURCES_PER_RANGE)

    def count(position_P: np.ndarray) -> _Counts:
        source_P = np.asarray(held_out.source_P[row_Q[position_P]])
        target_P = np.asarray(held_out.target_P[row_Q[position_P]])
        score = methods(source_P)
        own_P = np.arange(len(target_P))
        counts = _Counts(position_P, {}, torch.zeros(len(position_P), dtype=torch.int64))
        for first in range(0, num_papers, width):
            paper_K = np.arange(first, min(first + width, num_papers), dtype=np.int32)
            is_counted_PK = np.stack([rule.mask(source, paper_K) for source in source_P])
            # The cited paper of source i in column i, scored in one go with those that it is
            # compared with: so equal papers get equal scores.
            scores = score(np.concatenate([target_P, paper_K]))
            positives = (
                (method, score_PK[own_P, own_P], score_PK[:, len(target_P) :])
                for method, score_PK in scores
            )
            counts.add(_count_better(positives, is_counted_PK), is_counted_PK)
        return counts

    groups = slices(len(row_Q), width)
    counts = (each for _, each in map_in_threads(count, groups))
    return _collect(counts, name=name, of=len(row_Q))


def _count_better(
    scores: Iterable[_MethodScores], is_counted_PK: np.ndarray | None
) -> dict[str, Tensor]:
    """Count the candidates before each positive, by method."""
    counted = None if is_counted_PK is None else torch.from_numpy(is_counted_PK)
    return {
        method: metrics.count_better(
            torch.from_numpy(positive_P), torch.from_numpy(score_PK), counted
        )
        for method, positive_P, score_PK in scores
    }


def _collect(counts: Iterable[_Counts], *, name: str, of: int) -> Ranks:
    """Turn counts into ranks, as they come."""
    began = time.monotonic()
    num_better: dict[str, Tensor] = {}
    num_candidates_Q = torch.zeros(of, dtype=torch.int64)
    with log_progress("evaluate", f"ranking, {name}", of=of) as progress:
        for part in counts:
            row_P = torch.from_numpy(part.row_P)
            num_candidates_Q[row_P] = part.num_candidates_P
            for method, num_P in part.num_better.items():
                num_better.setdefault(method, torch.zeros(of, dtype=torch.float64))[row_P] = num_P
            progress.done = int(row_P[-1]) + 1
    return Ranks(
        by_method={name: (1 + num_Q).to(torch.float32) for name, num_Q in num_better.items()},
        num_candidates_Q=num_candidates_Q,
        seconds=time.monotonic() - began,
    )


def join(parts: Sequence[Ranks]) -> Ranks:
    """Put the ranks of several parts of a split together, one part after the other."""
    return Ranks(
        by_method={
            method: torch.cat([part.by_method[method] for part in parts])
            for method in parts[0].by_method
        },
        num_candidates_Q=torch.cat([part.num_candidates_Q for part in parts]),
        seconds=sum(part.seconds for part in parts),
    )


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
    """Call a function with each item, and yield items and results in order.

    As many calls run at a time as torch may use cores, each of them on one. Few are waiting or done
    at a time, so that memory does not grow with their number; `ThreadPoolExecutor.map` would submit
    all.
    """
    threads = min(torch.get_num_threads(), num_cores())
    waiting: collections.deque[tuple[Item, Future[Result]]] = collections.deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        remaining = iter(items)
        while True:
            for item in remaining:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > threads:
                    break
            if not waiting:
                return
            item, future = waiting.popleft()
            yield item, future.result()


def confidence_intervals(rank_Q: Tensor, *, seed: int) -> dict[str, tuple[float, float]]:
    """Estimate the 95 % confidence intervals of a sample's figures by the bootstrap's percentiles.

    Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    # Imported here: it takes half as long as torch, and an exact evaluation has no use for it.
    from scipy.stats import bootstrap

    rank = rank_Q.double().numpy()
    statistics: dict[str, Callable[..., np.ndarray]] = {
        "mrr": lambda rank, axis: (1 / rank).mean(axis),
        "recall@20": lambda rank, axis: (rank <= 20).mean(axis),
        "recall@100": lambda rank, axis: (rank <= 100).mean(axis),
    }
    intervals = {}
    for name, statistic in statistics.items():
        found = bootstrap(
            (rank,),
            statistic,
            n_resamples=RESAMPLES,
            batch=100,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        low, high = found.confidence_interval
        intervals[name] = (float(low), float(high))
    return intervals
