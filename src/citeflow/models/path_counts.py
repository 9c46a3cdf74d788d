"""Walks along citations from many sources at once, and where they meet what stands behind the sources' candidates.

A walk is a list, not a row of a matrix: nothing here takes memory or time for papers that it does not come to, but for
one array of N that is allocated lazily.

Legend: N papers, S sources, S1 = S + 1, P pairs, K candidates, E papers on walks, L papers looked up, H papers found.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from citeflow.graph.csr import Csr

NONE = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Walk:
    """Papers that each source reaches; one that is reached in several ways may be listed several times."""

    ptr_S1: np.ndarray
    """Where the papers of each source begin."""

    paper_E: np.ndarray
    ways_E: np.ndarray
    """Weighted number of ways to the paper, float32."""


def rows_of(graph: Csr, paper_E: np.ndarray) -> Csr:
    """Rows of some papers, one below the other."""
    first_E = graph.ptr_N1[paper_E]
    degree_E = graph.ptr_N1[paper_E + 1] - first_E
    ptr = np.zeros(len(paper_E) + 1, dtype=np.int64)
    np.cumsum(degree_E, out=ptr[1:])
    place = np.repeat(first_E - ptr[:-1], degree_E)
    place += np.arange(ptr[-1])
    return Csr(ptr, graph.index_E.take(place))


def begin(
    graph: Csr, source_S: np.ndarray, hidden: tuple[np.ndarray, np.ndarray] | None = None
) -> Walk:
    """Go one hop from each source, but not from the rows in `hidden` to the papers beside them."""
    reached = rows_of(graph, source_S)
    ways_E = np.ones(len(reached.index_E), dtype=np.float32)
    if hidden is not None:
        source_index_P, paper_P = hidden
        row_E = np.repeat(np.arange(len(source_S)), reached.degree_N)
        ways_E[
            np.isin(
                row_E * graph.num_rows + reached.index_E,
                source_index_P * np.int64(graph.num_rows) + paper_P,
            )
        ] = 0
    return Walk(reached.ptr_N1, reached.index_E, ways_E)


def go_on(walk: Walk, graph: Csr, weight_N: np.ndarray, source_S: np.ndarray) -> Walk:
    """Go one hop further, but not back to the source; each paper passed multiplies its weight into the ways."""
    reached = rows_of(graph, walk.paper_E)
    ways_E = np.repeat(walk.ways_E * weight_N.take(walk.paper_E), reached.degree_N)
    ptr_S1 = reached.ptr_N1[walk.ptr_S1]
    ways_E[reached.index_E == np.repeat(source_S, np.diff(ptr_S1))] = 0
    return Walk(ptr_S1, reached.index_E, ways_E)


def meet(
    placed: list[tuple[np.ndarray, np.ndarray]],
    looked: list[tuple[np.ndarray, np.ndarray]],
    num_papers: int,
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Find the papers of some lists in others, source by source.

    Args:
        placed: lists, each with the ends of its sources' parts, [S1], and its papers; numbered through all lists.
        looked: lists of papers to find in the part of the same source, in the same form.
        num_papers: N.

    Returns:
        For each placed paper the number of the one that stands for it, the same wherever a source has the same paper;
        for each list in `looked`, which of its papers were found, and the number that stands for each of them.
    """
    is_placed_N, number_N = np.zeros(num_papers, dtype=bool), np.empty(num_papers, dtype=np.int32)
    paper_E = np.concatenate([papers for _, papers in placed], dtype=np.intp)
    number_E, same_E = (
        np.arange(len(paper_E), dtype=np.int32),
        np.empty(len(paper_E), dtype=np.int32),
    )
    hits: list[list[tuple[np.ndarray, np.ndarray]]] = [[(NONE, NONE)] for _ in looked]
    begins = np.cumsum([0] + [len(papers) for _, papers in placed[:-1]])
    placed_parts = _parts(
        [begin + ptr_S1 for begin, (ptr_S1, _) in zip(begins, placed, strict=True)]
    )
    looked_parts = _parts([ptr_S1 for ptr_S1, _ in looked])
    for mine, theirs in zip(placed_parts, looked_parts, strict=True):
        for part in mine:
            number_N[paper_E[part]] = number_E[part]
            is_placed_N[paper_E[part]] = True
        for part in mine:
            same_E[part] = number_N.take(paper_E[part])
        for part, (_, paper_L), hit in zip(theirs, looked, hits, strict=True):
            place = np.flatnonzero(is_placed_N.take(paper_L[part])) + part.start
            hit.append((place, number_N[paper_L[place]]))
        for part in mine:
            is_placed_N[paper_E[part]] = False
    return same_E, [_joined(hit) for hit in hits]


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    first, second = zip(*parts, strict=True)
    return np.concatenate(first), np.concatenate(second)


def _parts(ptrs: list[np.ndarray]) -> Iterator[tuple[slice, ...]]:
    """The parts of one source in each list, source by source."""
    sliced = [map(slice, ptr_S1[:-1].tolist(), ptr_S1[1:].tolist()) for ptr_S1 in ptrs]
    return zip(*sliced, strict=True)


@dataclass(frozen=True, slots=True)
class Lookup:
    """Which rows hold a paper."""

    number_N: np.ndarray
    """Of each paper among those that are in a row, from 1; 0 where it is in none."""

    rows: Csr
    """Rows that each numbered paper is in."""

    @classmethod
    def of(cls, rows: Csr, num_papers: int) -> "Lookup":
        """Turn the rows round."""
        order_E = np.argsort(rows.index_E, kind="stable")
        paper_U, count_U = np.unique(rows.index_E, return_counts=True)
        number_N = np.zeros(num_papers, dtype=np.int32)
        number_N[paper_U] = np.arange(1, len(paper_U) + 1)
        row_E = np.repeat(np.arange(rows.num_rows), rows.degree_N)[order_E]
        return cls(number_N, Csr(np.cumsum([0, *count_U]), row_E))

    def find(self, paper_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of some papers are in rows, and in which row: a paper is told once for each."""
        number_E = self.number_N.take(paper_E)
        hit = np.flatnonzero(number_E)
        rows = rows_of(self.rows, number_E[hit] - 1)
        return np.repeat(hit, rows.degree_N), rows.index_E
