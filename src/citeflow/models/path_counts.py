"""Weighted counts of paths: walks from many sources, and where they meet other papers.

A walk is a list and not a row of a sparse matrix: products of adjacency matrices would visit every
paper that a hub leads to, for all sources. Nothing here takes memory or time for papers that it
does not come to, but for one array of N that the system allocates page by page.

Legend: N papers, S sources, S1 = S + 1, P pairs, E papers on walks, L papers looked up, H hits.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from citeflow.graph.csr import Csr, as_matrix, rows_of

PaperLists = tuple[np.ndarray, np.ndarray]
"""A list of papers for each source: offsets [S1], and papers."""

Hits = tuple[np.ndarray, np.ndarray]
"""Positions in a list of papers that was looked up, and what each of them was found to be."""

_tables: list[np.ndarray] = []
"""Tables of zeros, int32 [N], that nobody uses; as many as were used at a time."""

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
    paper_E = np.concatenate([papers for _, papers in lists])
    with _numbered(paper_E, num_papers) as (column_N, num_listed):
        return _intersect(lists, queries, column_N, num_listed + 1)


def _intersect(
    lists: list[PaperLists], queries: list[PaperLists], column_N: np.ndarray, num_columns: int
) -> tuple[np.ndarray, list[Hits]]:
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


@contextlib.contextmanager
def _numbered(paper_E: np.ndarray, num_papers: int) -> Iterator[tuple[np.ndarray, int]]:
    """Number papers from 1 in a table of all, int32 [N], others have 0; yield it and the count.

    The table is put back with zeros. A new one would come from the kernel page by page at each use,
    and papers are on nearly all of its pages.
    """
    try:
        number_N = _tables.pop()
    except IndexError:
        number_N = np.empty(0, dtype=np.int32)
    if len(number_N) != num_papers:
        number_N = np.zeros(num_papers, dtype=np.int32)
    number_E = np.arange(1, len(paper_E) + 1, dtype=np.int32)
    number_N[paper_E] = number_E
    paper_U = paper_E[number_N.take(paper_E) == number_E]  # each once, where it comes last
    number_N[paper_U] = number_E[: len(paper_U)]
    try:
        yield number_N, len(paper_U)
    finally:
        number_N[paper_U] = 0
        _tables.append(number_N)


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
    @contextlib.contextmanager
    def of(cls, rows: Csr, num_papers: int) -> Iterator["InvertedIndex"]:
        """Invert lists of papers; the result is valid in the context alone."""
        with _numbered(rows.col_E, num_papers) as (number_N, num):
            yield cls(number_N, _inverted(rows, number_N.take(rows.col_E) - 1, num))

    def find(self, paper_E: np.ndarray) -> Hits:
        """Find the rows of some papers; a paper that is in several is found once for each."""
        number_E = self.number_N.take(paper_E)
        hit = np.flatnonzero(number_E)
        rows = rows_of(self.rows, number_E[hit] - 1)
        return np.repeat(hit, rows.degree_N), rows.col_E


def _inverted(rows: Csr, column_E: np.ndarray, num_columns: int) -> Csr:
    """Return the rows, ascending, that each column is in."""
    ones_E = np.ones(len(column_E), dtype=np.int8)
    matrix = as_matrix(rows.rowptr_N1, column_E, ones_E, num_columns).tocsc()
    return Csr(matrix.indptr, matrix.indices)


@dataclass(frozen=True, slots=True)
class EndsOfWalk:
    """The ends of paths that differ in the weights of their papers only."""

    paper_U: np.ndarray
    """Papers that paths end at, ascending."""

    before_U: Csr
    """For each of them the entries of the walk that lead there."""

    source_E: np.ndarray
    """Index of the source of each entry."""

    weights: dict[str, np.ndarray]
    """Product of the weights of the papers up to an entry, float64 [E], by the name of the path."""

    @classmethod
    def of(
        cls, reached: Csr, source_E: np.ndarray, weights: dict[str, np.ndarray], num_papers: int
    ) -> "EndsOfWalk":
        """Take the papers that are reached from each entry."""
        before_N = _inverted(reached, reached.col_E, num_papers)
        is_end_N = before_N.degree_N > 0
        rowptr_U1 = np.append(before_N.rowptr_N1[:-1][is_end_N], len(reached.col_E))
        ends = Csr(rowptr_U1, before_N.col_E)
        return cls(np.flatnonzero(is_end_N).astype(np.int32), ends, source_E, weights)


@dataclass(frozen=True, slots=True)
class PathEnds:
    """The papers that the paths from some sources end at, each as often as paths lead there.

    For candidates that are a large part of all papers it takes less time to walk to all ends than
    to search for the candidates, and ranges of the papers can be asked for one after the other.
    """

    num_sources: int
    parts: tuple[EndsOfWalk, ...]

    def sums(self, candidate_K: np.ndarray) -> dict[str, np.ndarray]:
        """Sum over the paths to candidates that all sources share, float64 [S, K] for each path."""
        shape = (self.num_sources, len(candidate_K))
        sums: dict[str, np.ndarray] = {}
        for part in self.parts:
            end_K = np.searchsorted(part.paper_U, candidate_K)
            found = np.flatnonzero(np.searchsorted(part.paper_U, candidate_K, "right") > end_K)
            before = rows_of(part.before_U, end_K[found])
            pair_E = part.source_E.take(before.col_E) * len(candidate_K)
            pair_E += np.repeat(found, before.degree_N)
            for name, weight_E in part.weights.items():
                asked_E = weight_E.take(before.col_E)
                sums[name] = np.bincount(pair_E, asked_E, math.prod(shape)).reshape(shape)
        return sums
