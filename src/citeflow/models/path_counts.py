"""Weighted counts of paths: walks from many sources, and where they meet other papers.

A walk is a list and not a row of a sparse matrix: products of adjacency matrices would visit every
paper that a hub leads to, for all sources. Nothing here takes memory or time for papers that it
does not come to, but for one array of N that the system allocates page by page.

Legend: N papers, S sources, S1 = S + 1, P pairs, E papers on walks, L papers looked up, H hits.
"""

import math
from dataclasses import dataclass

import numpy as np

from citeflow.graph.csr import Csr, rows_of

PaperLists = tuple[np.ndarray, np.ndarray]
"""A list of papers for each source: offsets [S1], and papers."""

Hits = tuple[np.ndarray, np.ndarray]
"""Positions in a list of papers that was looked up, and what each of them was found to be."""

TABLE = 1 << 20
"""Entries, 4 MB, of the table that papers of several sources are found in at once, at most."""


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

    A table is filled with the papers of some sources, read, and cleared again: a hash join whose
    hash is the paper itself. It has a row for each of these sources, and a column for each paper
    that is in any list.

    Args:
        lists: papers to find; they are numbered through all lists.
        queries: papers that are looked up in the part of the same source.
        num_papers: N.

    Returns:
        For each listed paper its representative: the number of one entry, the same wherever a
        source lists the same paper. For each query, the positions of the papers that were found,
        with the representatives of these.
    """
    column_N, num_columns = _columns(lists, num_papers)
    num_sources = len(lists[0][0]) - 1
    num_rows = min(max(1, TABLE // num_columns), num_sources)
    number_T = np.full(num_rows * num_columns, -1, dtype=np.int32)
    first_of_list = np.cumsum([0] + [len(papers) for _, papers in lists])
    representative_E = np.empty(first_of_list[-1], dtype=np.int32)
    hits: list[list[Hits]] = [[] for _ in queries]
    for first in range(0, num_sources, num_rows or 1):
        rows = slice(first, min(first + num_rows, num_sources))
        filled = []
        for each, number in zip(lists, first_of_list.tolist(), strict=False):
            begin, column_L, row_L = _part(each, rows, column_N)
            entry_L = row_L * num_columns + column_L
            part = slice(number + begin, number + begin + len(entry_L))
            number_T[entry_L] = np.arange(part.start, part.stop, dtype=np.int32)
            filled.append((part, entry_L))
        for part, entry_L in filled:
            representative_E[part] = number_T.take(entry_L)
        for each, hit in zip(queries, hits, strict=True):
            begin, column_L, row_L = _part(each, rows, column_N)
            known = np.flatnonzero(column_L)
            number_L = number_T.take(row_L[known] * num_columns + column_L[known])
            found = np.flatnonzero(number_L >= 0)
            hit.append((known[found] + begin, number_L[found]))
        for _, entry_L in filled:
            number_T[entry_L] = -1
    return representative_E, [_concatenate(hit) for hit in hits]


def _columns(lists: list[PaperLists], num_papers: int) -> tuple[np.ndarray, int]:
    """Number the papers that are in any list from 1, int32 [N], 0 for others; return one more, too.

    Zeros come from the kernel where they are looked at; of a large graph that is a small part.
    """
    is_listed_N = np.zeros(num_papers, dtype=bool)
    for _, paper_E in lists:
        is_listed_N[paper_E] = True
    listed = np.flatnonzero(is_listed_N)
    column_N = np.zeros(num_papers, dtype=np.int32)
    column_N[listed] = np.arange(1, len(listed) + 1, dtype=np.int32)
    return column_N, len(listed) + 1


def _part(
    papers: PaperLists, rows: slice, column_N: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray]:
    """Offset of the papers of some sources in a list, their columns, and their rows."""
    ptr_S1, paper_E = papers
    ptr = ptr_S1[rows.start : rows.stop + 1]
    row_L = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    return int(ptr[0]), column_N.take(paper_E[ptr[0] : ptr[-1]]), row_L


def _concatenate(parts: list[Hits]) -> Hits:
    if not parts:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
    first, second = zip(*parts, strict=True)
    return np.concatenate(first), np.concatenate(second)


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
