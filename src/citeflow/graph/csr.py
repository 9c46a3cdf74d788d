"""Sparse adjacency in compressed rows: int64 offsets, int32 neighbors, ascending within each row.

Legend: N papers, E citations, S papers that are chosen, N1 = N + 1.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import DTypeLike


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

    def row(self, i: int) -> np.ndarray:
        """Papers that paper `i` points to, a view."""
        return self.col_E[self.rowptr_N1[i] : self.rowptr_N1[i + 1]]

    def edges(self) -> np.ndarray:
        """All pairs, int32 of shape [2, E], ordered by source, then target."""
        return np.stack([self.sources(), self.col_E])

    def sources(self) -> np.ndarray:
        """Return the row of each entry of `col_E`, int32."""
        return np.repeat(np.arange(self.num_rows, dtype=np.int32), self.degree_N)

    def to_scipy(self, dtype: DTypeLike = np.float32) -> scipy.sparse.csr_matrix:
        """Return the N x N matrix of ones as scipy.sparse.csr_matrix; it shares `col_E`."""
        values_E = np.ones(len(self.col_E), dtype=dtype)
        matrix = scipy.sparse.csr_matrix(
            (values_E, self.col_E, self.rowptr_N1), shape=(self.num_rows, self.num_rows)
        )
        # Else scipy would check both, and sort the shared array in place.
        matrix.has_sorted_indices = True
        matrix.has_canonical_format = True
        return matrix


def build_csr(source_E: np.ndarray, target_E: np.ndarray, num_papers: int) -> Csr:
    """Sort pairs into rows; a pair that is given twice is kept once."""
    shape = (num_papers, num_papers)
    values_E = np.ones(len(source_E), dtype=np.int8)
    matrix = scipy.sparse.coo_matrix((values_E, (source_E, target_E)), shape=shape)
    return _from_scipy(matrix.tocsr())


def transpose(csr: Csr) -> Csr:
    """Reverse every pair."""
    return _from_scipy(csr.to_scipy(np.int8).tocsc())


def permute(csr: Csr, order_N: np.ndarray) -> Csr:
    """Renumber the papers: row i of the result is paper `order_N[i]`, a permutation."""
    matrix = csr.to_scipy(np.int8)[order_N]
    matrix.indices = inverse_permutation(order_N)[matrix.indices]
    matrix.has_sorted_indices = False
    return _from_scipy(matrix)


def inverse_permutation(order_N: np.ndarray) -> np.ndarray:
    """Position of each paper in a permutation, int32 [N]."""
    position_N = np.empty(len(order_N), dtype=np.int32)
    position_N[order_N] = np.arange(len(order_N), dtype=np.int32)
    return position_N


def to_undirected(references: Csr) -> Csr:
    """Neighbors in either direction, each once, without self-loops."""
    forward = references.to_scipy(np.int8)
    if forward.diagonal().any():
        source_E, target_E = references.edges()
        is_other_E = source_E != target_E
        references = build_csr(source_E[is_other_E], target_E[is_other_E], references.num_rows)
        forward = references.to_scipy(np.int8)
    return _from_scipy(forward + transpose(references).to_scipy(np.int8))


def count_marked(csr: Csr, is_marked_E: np.ndarray) -> np.ndarray:
    """Count the entries of each row that are marked, int64 [N]."""
    count_N = np.zeros(csr.num_rows, dtype=np.int64)
    filled = np.flatnonzero(csr.degree_N)
    if len(filled):  # reduceat takes no empty list
        count_N[filled] = np.add.reduceat(is_marked_E, csr.rowptr_N1[filled], dtype=np.int64)
    return count_N


def rows_of(csr: Csr, paper_S: np.ndarray) -> Csr:
    """Gather the rows of some papers, in their order; a paper may be given twice."""
    first_S = csr.rowptr_N1[paper_S]
    degree_S = csr.rowptr_N1[paper_S + 1] - first_S
    rowptr_S1 = np.zeros(len(paper_S) + 1, dtype=np.int64)
    np.cumsum(degree_S, out=rowptr_S1[1:])
    position_E = np.repeat(first_S - rowptr_S1[:-1], degree_S)
    position_E += np.arange(rowptr_S1[-1])
    return Csr(rowptr_S1, csr.col_E.take(position_E))


def drop_rows(csr: Csr, row_S: np.ndarray) -> Csr:
    """Empty some rows."""
    is_kept_N = np.ones(csr.num_rows, dtype=bool)
    is_kept_N[row_S] = False
    rowptr_N1 = np.zeros(csr.num_rows + 1, dtype=np.int64)
    np.cumsum(csr.degree_N * is_kept_N, out=rowptr_N1[1:])
    return Csr(rowptr_N1, csr.col_E[np.repeat(is_kept_N, csr.degree_N)])


def drop_self_and_duplicates(edge_2E: np.ndarray, num_papers: int) -> tuple[np.ndarray, int, int]:
    """Clean a list of citations.

    Returns:
        The citations that are left, int32, ordered by source, then target; the number of papers
        that cited themselves; the number of repetitions among the others.
    """
    num_given = edge_2E.shape[1]
    is_self_E = edge_2E[0] == edge_2E[1]
    if is_self_E.any():  # else a copy of all of them would be the largest array of preprocess
        edge_2E = edge_2E[:, ~is_self_E]
    num_others = edge_2E.shape[1]
    cleaned_2E = build_csr(edge_2E[0], edge_2E[1], num_papers).edges()
    return cleaned_2E, num_given - num_others, num_others - cleaned_2E.shape[1]


def _from_scipy(matrix: scipy.sparse.csr_matrix) -> Csr:
    """Take over the arrays of a compressed matrix; its values do not matter."""
    matrix.sum_duplicates()
    return Csr(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False))
