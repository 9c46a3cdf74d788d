"""Sparse adjacency in compressed rows: int64 offsets, int32 neighbors, ascending within each row.

What is made for every citation of a large graph, beside the result, is made block by block.

Legend: N papers, E citations, B citations of a block, S papers that are chosen, N1 = N + 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import DTypeLike

from citeflow.utils.large_arrays import count_values, large_array, read_ahead

BLOCK_ENTRIES = 1 << 22
"""Entries of the rows of a block; more only where one row has more."""

ENTRIES_SHARE = 1 / 16
"""Share of the memory that the entries of a graph fill at most in memory: preprocess has up to five
such lists at a time."""


class Block(NamedTuple):
    """All entries of some rows that follow each other."""

    entries: slice
    """Where they lie in `col_E`."""

    source_B: np.ndarray
    """Row of each entry, int32."""

    target_B: np.ndarray
    """What it points to, int32."""


@dataclass(frozen=True, slots=True)
class Csr:
    """Papers that each paper points to; no pair occurs twice."""

    rowptr_N1: np.ndarray
    """Offset of each row in `col_E`, int64; the last entry is E."""

    col_E: np.ndarray
    """Papers that the rows point to, int32."""

    @property
    def num_rows(self) -> int:
        """Number of papers, N."""
        return len(self.rowptr_N1) - 1

    @property
    def degree_N(self) -> np.ndarray:
        """Length of each row, int64."""
        return np.diff(self.rowptr_N1)

    @property
    def in_degree_N(self) -> np.ndarray:
        """Number of rows that point to each paper, int64."""
        return count_values(self.col_E, self.num_rows)

    def row(self, i: int) -> np.ndarray:
        """Papers that paper `i` points to, a view."""
        return self.col_E[self.rowptr_N1[i] : self.rowptr_N1[i + 1]]

    def edges(self) -> np.ndarray:
        """All pairs, int32 of shape [2, E], ordered by source, then target."""
        return np.stack([self.sources(), self.col_E])

    def sources(self) -> np.ndarray:
        """Return the row of each entry of `col_E`, int32."""
        return np.repeat(np.arange(self.num_rows, dtype=np.int32), self.degree_N)

    def sources_of(self, entry_S: np.ndarray) -> np.ndarray:
        """Return the row of some entries of `col_E`, int32."""
        return (np.searchsorted(self.rowptr_N1, entry_S, side="right") - 1).astype(np.int32)

    def blocks(self) -> Iterator[Block]:
        """Yield all entries, block by block."""
        for rows in _row_blocks(self.rowptr_N1):
            entries = slice(self.rowptr_N1[rows.start], self.rowptr_N1[rows.stop])
            row_B = np.arange(rows.start, rows.stop, dtype=np.int32)
            source_B = np.repeat(row_B, np.diff(self.rowptr_N1[rows.start : rows.stop + 1]))
            yield Block(entries, source_B, self.col_E[entries])

    def find(self, source_S: np.ndarray, target_S: np.ndarray) -> np.ndarray:
        """Return the entry of each pair, int64 [S]; -1 for one that is not there."""
        if not len(self.col_E):
            return np.full(len(source_S), -1)
        low_S, end_S = self.rowptr_N1[source_S], self.rowptr_N1[np.asarray(source_S) + 1]
        high_S = end_S.copy()
        while (is_open_S := low_S < high_S).any():  # a binary search in all rows at once
            middle_S = (low_S + high_S) // 2
            is_before_S = self.col_E[np.minimum(middle_S, len(self.col_E) - 1)] < target_S
            np.copyto(low_S, middle_S + 1, where=is_open_S & is_before_S)
            np.copyto(high_S, middle_S, where=is_open_S & ~is_before_S)
        is_found_S = low_S < end_S
        is_found_S &= self.col_E[np.minimum(low_S, len(self.col_E) - 1)] == target_S
        return np.where(is_found_S, low_S, -1)

    def to_scipy(
        self, dtype: DTypeLike = np.float32, num_columns: int | None = None
    ) -> scipy.sparse.csr_matrix:
        """Return the matrix of ones as scipy.sparse.csr_matrix; it shares `col_E`.

        Args:
            dtype: of the ones.
            num_columns: N, unless the rows are some of a graph's.
        """
        values_E = np.ones(len(self.col_E), dtype=dtype)
        width = self.num_rows if num_columns is None else num_columns
        matrix = as_matrix(self.rowptr_N1, self.col_E, values_E, width)
        # Else scipy would check both, and sort the shared array in place.
        matrix.has_sorted_indices = True
        matrix.has_canonical_format = True
        return matrix


def as_matrix(
    rowptr_N1: np.ndarray, col_E: np.ndarray, value_E: np.ndarray, num_columns: int
) -> scipy.sparse.csr_matrix:
    """Make a matrix of these very arrays; scipy's constructor copies a part of a larger one."""
    matrix = scipy.sparse.csr_matrix((len(rowptr_N1) - 1, num_columns), dtype=value_E.dtype)
    largest = max(len(col_E), num_columns)
    index_type = np.int32 if largest <= np.iinfo(np.int32).max else np.int64
    matrix.indptr = np.asarray(rowptr_N1, index_type)
    matrix.indices = np.asarray(col_E, index_type)
    matrix.data = value_E
    return matrix


def build_csr(source_E: np.ndarray, target_E: np.ndarray, num_papers: int) -> Csr:
    """Sort pairs into rows; a pair that is given twice is kept once."""
    shape = (num_papers, num_papers)
    values_E = np.ones(len(source_E), dtype=np.int8)
    matrix = scipy.sparse.coo_matrix((values_E, (source_E, target_E)), shape=shape)
    return _from_scipy(matrix.tocsr())


def transpose(csr: Csr) -> Csr:
    """Reverse every pair."""
    rowptr_N1 = _rowptr(csr.in_degree_N)
    col_E = new_entries(len(csr.col_E))
    end_N = rowptr_N1[:-1].copy()  # of what is filled of each row
    for block in csr.blocks():
        num_bits = len(block.target_B).bit_length()
        # numpy sorts numbers several times as fast as it sorts their places.
        key_B = block.target_B.astype(np.int64) << num_bits
        key_B |= np.arange(len(key_B))
        key_B.sort()
        target_B = key_B >> num_bits
        first_U = np.flatnonzero(np.diff(target_B, prepend=-1))
        target_U = target_B[first_U]
        num_U = np.diff(first_U, append=len(target_B))
        place_B = np.repeat(end_N[target_U] - first_U, num_U) + np.arange(len(target_B))
        col_E[place_B] = block.source_B[key_B & ((1 << num_bits) - 1)]
        end_N[target_U] += num_U
    return Csr(rowptr_N1, col_E)


def permute(csr: Csr, order_N: np.ndarray) -> Csr:
    """Renumber the papers: row i of the result is paper `order_N[i]`, a permutation."""
    new_row_N = inverse_permutation(order_N)
    rowptr_N1 = _rowptr(csr.degree_N[order_N])
    col_E = new_entries(len(csr.col_E))
    for rows in _row_blocks(rowptr_N1):
        block = rows_of(csr, order_N[rows])
        matrix = Csr(block.rowptr_N1, new_row_N[block.col_E]).to_scipy(np.int8, csr.num_rows)
        matrix.has_sorted_indices = False
        matrix.sort_indices()
        col_E[rowptr_N1[rows.start] : rowptr_N1[rows.stop]] = matrix.indices
    return Csr(rowptr_N1, col_E)


def inverse_permutation(order_N: np.ndarray) -> np.ndarray:
    """Position of each paper in a permutation, int32 [N]."""
    position_N = np.empty(len(order_N), dtype=np.int32)
    position_N[order_N] = np.arange(len(order_N), dtype=np.int32)
    return position_N


def to_undirected(references: Csr) -> Csr:
    """Neighbors in either direction, each once, without self-loops."""
    references = _without_loops(references)
    citations = transpose(references)
    degree_N = np.empty(references.num_rows, dtype=np.int64)
    col_E = new_entries(2 * len(references.col_E))
    num_filled = 0
    for rows in _row_blocks(references.rowptr_N1 + citations.rowptr_N1):
        row_B = np.arange(rows.start, rows.stop)
        out, into = (
            rows_of(csr, row_B).to_scipy(np.int8, references.num_rows)
            for csr in (references, citations)
        )
        both = out + into
        degree_N[rows] = np.diff(both.indptr)
        col_E[num_filled : num_filled + both.nnz] = both.indices
        num_filled += both.nnz
    return Csr(_rowptr(degree_N), col_E[:num_filled])


def count_marked(csr: Csr, is_marked_E: np.ndarray) -> np.ndarray:
    """Count the entries of each row that are marked, int64 [N]."""
    count_N = np.zeros(csr.num_rows, dtype=np.int64)
    for rows in _row_blocks(csr.rowptr_N1):
        rowptr_B1 = csr.rowptr_N1[rows.start : rows.stop + 1]
        filled = np.flatnonzero(np.diff(rowptr_B1))
        if len(filled):  # reduceat takes no empty list
            is_marked_B = is_marked_E[rowptr_B1[0] : rowptr_B1[-1]]
            start_B = rowptr_B1[filled] - rowptr_B1[0]
            count_N[rows.start + filled] = np.add.reduceat(is_marked_B, start_B, dtype=np.int64)
    return count_N


def rows_of(csr: Csr, paper_S: np.ndarray) -> Csr:
    """Gather the rows of some papers, in their order; a paper may be given twice."""
    first_S = csr.rowptr_N1[paper_S]
    degree_S = csr.rowptr_N1[paper_S + 1] - first_S
    read_ahead(csr.col_E, first_S, first_S + degree_S)
    rowptr_S1 = _rowptr(degree_S)
    position_E = np.repeat(first_S - rowptr_S1[:-1], degree_S)
    position_E += np.arange(rowptr_S1[-1])
    return Csr(rowptr_S1, csr.col_E.take(position_E))


def drop_rows(csr: Csr, row_S: np.ndarray) -> Csr:
    """Empty some rows."""
    is_kept_N = np.ones(csr.num_rows, dtype=bool)
    is_kept_N[row_S] = False
    return keep_entries(csr, np.repeat(is_kept_N, csr.degree_N))


def keep_entries(csr: Csr, is_kept_E: np.ndarray) -> Csr:
    """Keep those entries of `col_E` that are marked."""
    if is_kept_E.all():
        return csr
    rowptr_N1 = _rowptr(count_marked(csr, is_kept_E))
    col_E = new_entries(rowptr_N1[-1])
    for rows in _row_blocks(csr.rowptr_N1):
        entries = slice(csr.rowptr_N1[rows.start], csr.rowptr_N1[rows.stop])
        kept_B = csr.col_E[entries][is_kept_E[entries]]
        col_E[rowptr_N1[rows.start] : rowptr_N1[rows.stop]] = kept_B
    return Csr(rowptr_N1, col_E)


def new_entries(num_entries: int, dtype: DTypeLike = np.int32) -> np.ndarray:
    """Create an array with a value for each entry of a graph; on the disk where it is large."""
    return large_array((int(num_entries),), dtype, share=ENTRIES_SHARE)


def drop_self_and_duplicates(edge_2E: np.ndarray, num_papers: int) -> tuple[Csr, int, int]:
    """Clean a list of citations.

    Returns:
        The citations that are left; the number of papers that cited themselves; the number of
        repetitions among the others.
    """
    num_self = int(np.count_nonzero(edge_2E[0] == edge_2E[1]))
    citations = _without_loops(build_csr(edge_2E[0], edge_2E[1], num_papers))
    return citations, num_self, edge_2E.shape[1] - num_self - len(citations.col_E)


def _without_loops(csr: Csr) -> Csr:
    is_kept_E = np.empty(len(csr.col_E), dtype=bool)
    for block in csr.blocks():
        np.not_equal(block.source_B, block.target_B, out=is_kept_E[block.entries])
    return keep_entries(csr, is_kept_E)


def _rowptr(degree_N: np.ndarray) -> np.ndarray:
    rowptr_N1 = np.zeros(len(degree_N) + 1, dtype=np.int64)
    np.cumsum(degree_N, out=rowptr_N1[1:])
    return rowptr_N1


def _row_blocks(rowptr_N1: np.ndarray) -> Iterator[slice]:
    """Yield ranges of rows that have about `BLOCK_ENTRIES` entries in all."""
    first, num_rows = 0, len(rowptr_N1) - 1
    while first < num_rows:
        wanted = rowptr_N1[first] + BLOCK_ENTRIES
        last = max(first + 1, int(np.searchsorted(rowptr_N1, wanted, side="right")) - 1)
        yield slice(first, last)
        first = last


def _from_scipy(matrix: scipy.sparse.csr_matrix) -> Csr:
    """Take over the arrays of a compressed matrix; its values do not matter."""
    matrix.sum_duplicates()
    return Csr(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False))
