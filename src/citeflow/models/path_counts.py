"""Weighted counts of paths: walks from many sources, and where they meet other papers.

A walk is a list and not a row of a sparse matrix: products of adjacency matrices would visit every
paper that a hub leads to, for all sources. Nothing here takes memory or time for papers that it
does not come to, but for one array of N that the system allocates page by page.

Legend: N papers, S sources, S1 = S + 1, P pairs, E papers on walks, L papers looked up, H hits.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from citeflow.graph.csr import Csr, rows_of

PaperLists = tuple[np.ndarray, np.ndarray]
"""A list of papers for each source: offsets [S1], and papers."""

Hits = tuple[np.ndarray, np.ndarray]
"""Positions in a list of papers that was looked up, and what each of them was found to be."""

NO_PAPERS = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Walk:
    """Papers that each source reaches, once or more often where several paths lead there."""

    ptr_S1: np.ndarray
    """Offsets of the papers of each source."""

    paper_E: np.ndarray
    path_weight_E: np.ndarray
    """Weighted number of paths to the paper, float32."""


def start(
    graph: Csr, source_S: np.ndarray, excluded_edges: tuple[np.ndarray, np.ndarray] | None = None
) -> Walk:
    """Walk one hop from each source.

    Args:
        graph: adjacency of the hop.
        source_S: papers to start from.
        excluded_edges: edges that are not walked, as indices into `source_S` and neighbors.
    """
    reached = rows_of(graph, source_S)
    path_weight_E = np.ones(len(reached.col_E), dtype=np.float32)
    if excluded_edges is not None:
        source_index_P, paper_P = excluded_edges
        row_E = np.repeat(np.arange(len(source_S)), reached.degree_N)
        key_E = row_E * graph.num_rows + reached.col_E
        key_P = source_index_P * np.int64(graph.num_rows) + paper_P
        # A weight of 0 hides a path and all that extend it, and leaves the offsets as they are.
        path_weight_E[np.isin(key_E, key_P)] = 0
    return Walk(reached.rowptr_N1, reached.col_E, path_weight_E)


def extend(walk: Walk, graph: Csr, weight_N: np.ndarray, source_S: np.ndarray) -> Walk:
    """Walk one hop further, but not back to the source, and multiply by papers' weights."""
    reached = rows_of(graph, walk.paper_E)
    path_weight_E = np.repeat(walk.path_weight_E * weight_N.take(walk.paper_E), reached.degree_N)
    ptr_S1 = reached.rowptr_N1[walk.ptr_S1]
    path_weight_E[reached.col_E == np.repeat(source_S, np.diff(ptr_S1))] = 0
    return Walk(ptr_S1, reached.col_E, path_weight_E)


def intersect(
    lists: list[PaperLists], queries: list[PaperLists], num_papers: int
) -> tuple[np.ndarray, list[Hits]]:
    """Find the papers of some lists in others, source by source.

    A table of N papers is filled with the papers of one source, read, and cleared again: a hash
    join whose hash is the paper itself.

    Args:
        lists: papers to find; they are numbered through all lists.
        queries: papers that are looked up in the part of the same source.
        num_papers: N.

    Returns:
        For each listed paper its representative: the number of one entry, the same wherever a
        source lists the same paper. For each query, the positions of the papers that were found,
        with the representatives of these.
    """
    is_listed_N = np.zeros(num_papers, dtype=bool)
    number_N = np.empty(num_papers, dtype=np.int32)
    paper_E = np.concatenate([papers for _, papers in lists], dtype=np.intp)
    number_E = np.arange(len(paper_E), dtype=np.int32)
    representative_E = np.empty(len(paper_E), dtype=np.int32)
    hits: list[list[Hits]] = [[(NO_PAPERS, NO_PAPERS)] for _ in queries]
    first_of_list = np.cumsum([0] + [len(papers) for _, papers in lists[:-1]])
    list_parts = _parts(
        [first + ptr_S1 for first, (ptr_S1, _) in zip(first_of_list, lists, strict=True)]
    )
    query_parts = _parts([ptr_S1 for ptr_S1, _ in queries])
    for listed, queried in zip(list_parts, query_parts, strict=True):
        for part in listed:
            number_N[paper_E[part]] = number_E[part]
            is_listed_N[paper_E[part]] = True
        for part in listed:
            representative_E[part] = number_N.take(paper_E[part])
        for part, (_, paper_L), hit in zip(queried, queries, hits, strict=True):
            position = np.flatnonzero(is_listed_N.take(paper_L[part])) + part.start
            hit.append((position, number_N[paper_L[position]]))
        for part in listed:
            is_listed_N[paper_E[part]] = False
    return representative_E, [_concatenate(hit) for hit in hits]


def _concatenate(parts: list[Hits]) -> Hits:
    first, second = zip(*parts, strict=True)
    return np.concatenate(first), np.concatenate(second)


def _parts(ptrs: list[np.ndarray]) -> Iterator[tuple[slice, ...]]:
    """The part of a source in each list, source by source."""
    slices = [map(slice, ptr_S1[:-1].tolist(), ptr_S1[1:].tolist()) for ptr_S1 in ptrs]
    return zip(*slices, strict=True)


@dataclass(frozen=True, slots=True)
class InvertedIndex:
    """The rows that hold a paper."""

    number_N: np.ndarray
    """Number of each paper among those that are in a row, from 1; 0 where it is in none."""

    rows: Csr
    """Rows that each numbered paper is in."""

    @classmethod
    def of(cls, rows: Csr, num_papers: int) -> "InvertedIndex":
        """Invert lists of papers."""
        order_E = np.argsort(rows.col_E, kind="stable")
        paper_U, count_U = np.unique(rows.col_E, return_counts=True)
        number_N = np.zeros(num_papers, dtype=np.int32)
        number_N[paper_U] = np.arange(1, len(paper_U) + 1)
        row_E = np.repeat(np.arange(rows.num_rows), rows.degree_N)[order_E]
        return cls(number_N, Csr(np.cumsum([0, *count_U]), row_E))

    def find(self, paper_E: np.ndarray) -> Hits:
        """Find the rows of some papers; a paper that is in several is found once for each."""
        number_E = self.number_N.take(paper_E)
        hit = np.flatnonzero(number_E)
        rows = rows_of(self.rows, number_E[hit] - 1)
        return np.repeat(hit, rows.degree_N), rows.col_E


@dataclass(frozen=True, slots=True)
class EndsOfWalk:
    """The ends of paths that differ in the weights of their papers only."""

    row_E: np.ndarray
    """Index of the source of each path."""

    paper_E: np.ndarray
    """Paper that it ends at."""

    weights: dict[str, np.ndarray]
    """Product of the weights of the papers between, float64 [E], by the name of the path."""


@dataclass(frozen=True, slots=True)
class PathEnds:
    """The papers that the paths from some sources end at, each as often as paths lead there.

    For candidates that are a large part of all papers it takes less time to walk to all ends than
    to search for the candidates, and ranges of the papers can be asked for one after the other.
    """

    num_sources: int
    num_papers: int
    parts: tuple[EndsOfWalk, ...]

    def sums(self, candidate_K: np.ndarray) -> dict[str, np.ndarray]:
        """Sum over the paths to candidates that all sources share, float64 [S, K] for each path."""
        shape = (self.num_sources, len(candidate_K))
        column_K = np.arange(len(candidate_K), dtype=np.int32)
        column_N = np.full(self.num_papers, -1, dtype=np.int32)
        column_N[candidate_K] = column_K
        # A paper that is given twice is summed where it is given last.
        summed_K = column_N[candidate_K]
        twice = np.flatnonzero(summed_K != column_K)
        sums: dict[str, np.ndarray] = {}
        for part in self.parts:
            column_E = column_N.take(part.paper_E)
            pair_E = part.row_E * len(candidate_K) + column_E
            is_asked_E = column_E >= 0
            all_asked = bool(is_asked_E.all())
            if not all_asked:
                pair_E = pair_E[is_asked_E]
            for name, weight_E in part.weights.items():
                asked_E = weight_E if all_asked else weight_E[is_asked_E]
                sums[name] = np.bincount(pair_E, asked_E, math.prod(shape)).reshape(shape)
                sums[name][:, twice] = sums[name][:, summed_K[twice]]
        return sums
