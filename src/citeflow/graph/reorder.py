"""Reorder papers by locality: those that cite each other get rows near each other.

Batches are ranges of consecutive papers (`sampling`), so the order decides how many edges a batch
keeps.

Legend: N papers (on higher levels: clusters of papers), B papers of one block, V votes of a block,
C clusters.
"""

from typing import Any

import numpy as np
import scipy.sparse

from citeflow.graph.csr import Csr, as_matrix, new_entries

PASSES = 2
"""Sweeps of label propagation on each level."""

BLOCKS = 64
"""Blocks of papers in a sweep. Those of one block choose at the same time, as one matrix operation,
and do not see each other's choices."""


def order_by_locality(neighbors: Csr, *, seed: int) -> np.ndarray:
    """Order papers so that most neighbors are within a few thousand rows, at every scale.

    Papers join the cluster that holds most of their neighbors, for its size (label propagation:
    Raghavan, Albert & Kumara, arXiv 0709.2938). Clusters are the papers of a smaller graph and join
    in turn, as in the multilevel clustering of Meyerhenke, Sanders & Schulz (arXiv 1402.3281),
    until nothing joins. The order is that of the leaves of this tree, as in Rabbit Order (Arai et
    al., IPDPS 2016).

    Votes are divided by the square root of the size of the cluster. Without that one cluster would
    soon swallow all; with it, clusters have any size that the graph has.

    Args:
        neighbors: citations in both directions.
        seed: of labels and sweeps.

    Returns:
        Paper of each row, int32 [N], a permutation.
    """
    rng = np.random.default_rng(seed)
    graph = neighbors.to_scipy(np.int8)
    size_N = np.ones(neighbors.num_rows, dtype=np.int32)
    levels = []
    while graph.nnz:
        cluster_N = _cluster(graph, size_N, rng)
        if cluster_N.max() + 1 == len(cluster_N):
            break
        levels.append(cluster_N)
        graph = _contract(graph, cluster_N)
        size_N = np.bincount(cluster_N, weights=size_N).astype(np.int32)
    return _leaves(levels, neighbors.num_rows)


def _cluster(graph: Any, size_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Number of the cluster that each paper joins, int32, without gaps."""
    num_papers = graph.shape[0]
    label_N = rng.permutation(num_papers).astype(np.int32)
    total_N = np.empty_like(size_N)
    total_N[label_N] = size_N
    for _ in range(PASSES):
        order_N = rng.permutation(num_papers).astype(np.int32)
        for row_B in np.array_split(order_N, min(BLOCKS, num_papers)):
            row_B, choice_B = _vote(graph, row_B, label_N, total_N)
            np.subtract.at(total_N, label_N[row_B], size_N[row_B])
            np.add.at(total_N, choice_B, size_N[row_B])
            label_N[row_B] = choice_B
    return _number(label_N)


def _vote(
    graph: Any, row_B: np.ndarray, label_N: np.ndarray, total_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Let papers of a block vote: those that have neighbors, and the label of each."""
    rows = graph[row_B]
    votes = _summed(rows.data, label_N[rows.indices], rows.indptr, len(label_N))
    num_votes_B = np.diff(votes.indptr)
    has_votes_B = num_votes_B > 0
    start_B = votes.indptr[:-1][has_votes_B]
    vote_V = votes.data / np.sqrt(total_N[votes.indices], dtype=np.float32)
    best_V = vote_V
    if len(start_B):  # reduceat takes no empty list
        best_V = np.repeat(np.maximum.reduceat(vote_V, start_B), num_votes_B[has_votes_B])
    winner_V = np.flatnonzero(vote_V == best_V)
    first_B = winner_V[np.searchsorted(winner_V, start_B)]
    return row_B[has_votes_B], votes.indices[first_B]


def _summed(data_E: np.ndarray, label_E: np.ndarray, rowptr_B1: np.ndarray, num_labels: int) -> Any:
    """Rows of labels, where the values of a label that occurs twice are added up."""
    shape = (len(rowptr_B1) - 1, num_labels)
    rows = scipy.sparse.csr_matrix((data_E.astype(np.float32), label_E, rowptr_B1), shape=shape)
    rows.sum_duplicates()
    return rows


def _number(label_N: np.ndarray) -> np.ndarray:
    is_used_N = np.bincount(label_N, minlength=len(label_N)) > 0
    number_N = np.cumsum(is_used_N, dtype=np.int32) - 1
    renumbered_N: np.ndarray = number_N[label_N].astype(np.int32)
    return renumbered_N


def _contract(graph: Any, cluster_N: np.ndarray) -> Any:
    """Build the graph of the clusters: edges add up those between two, without self-loops.

    Clusters are contracted block by block, since the edges of all at once would be a second graph.
    """
    member_N = np.argsort(cluster_N, kind="stable").astype(np.int32)
    size_C = np.bincount(cluster_N)
    start_C1 = np.concatenate([[0], np.cumsum(size_C)])
    # The space for as many edges as before is taken as it is filled, and need not be copied.
    col_E, value_E = new_entries(graph.nnz), new_entries(graph.nnz, np.float32)
    rowptr_C1 = np.zeros(len(size_C) + 1, np.int64)
    for cluster_B in np.array_split(
        np.arange(len(size_C), dtype=np.int32), min(BLOCKS, len(size_C))
    ):
        first, last = cluster_B[0], cluster_B[-1] + 1
        rows = graph[member_N[start_C1[first] : start_C1[last]]]
        rowptr_B1 = rows.indptr[start_C1[first : last + 1] - start_C1[first]]
        block = _contract_block(rows.data, rows.indices, rowptr_B1, cluster_N, cluster_B)
        rowptr_C1[first + 1 : last + 1] = rowptr_C1[first] + block.indptr[1:]
        col_E[rowptr_C1[first] : rowptr_C1[last]] = block.indices
        value_E[rowptr_C1[first] : rowptr_C1[last]] = block.data
    filled = slice(rowptr_C1[-1])
    return as_matrix(rowptr_C1, col_E[filled], value_E[filled], len(size_C))


def _contract_block(
    data_E: np.ndarray,
    col_E: np.ndarray,
    rowptr_B1: np.ndarray,
    cluster_N: np.ndarray,
    own_B: np.ndarray,
) -> Any:
    """Rows of the graph of the clusters, from the edges of their papers."""
    rows = _summed(data_E, cluster_N[col_E], rowptr_B1, int(cluster_N.max()) + 1)
    rows.data[rows.indices == np.repeat(own_B, np.diff(rows.indptr))] = 0
    rows.eliminate_zeros()
    return rows


def _leaves(levels: list[np.ndarray], num_papers: int) -> np.ndarray:
    """Order papers by their clusters on the highest level, then on the next lower one."""
    order = np.arange(levels[-1].max() + 1 if levels else num_papers)
    for cluster_N in reversed(levels):
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        order = np.argsort(position[cluster_N], kind="stable")
    return order.astype(np.int32)
