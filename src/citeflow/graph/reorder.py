"""An order of papers in which those that cite each other are near each other.

Legend: N papers (on higher levels: clusters of papers), B papers of one block, V votes of a block, C clusters.
"""

from typing import Any

import numpy as np
import scipy.sparse

from citeflow.graph.csr import Csr

PASSES = 2
"""How often each level is gone through before its clusters become the papers of the next."""

BLOCKS = 64
"""Papers of one block choose at the same time, so they do not see each other's choices."""


def order_by_locality(neighbors: Csr, *, seed: int) -> np.ndarray:
    """Order papers so that most neighbours are within a few thousand places, at every scale.

    Papers join the cluster that holds most of their neighbours, for its size (label propagation: Raghavan, Albert and
    Kumara, arXiv 0709.2938). Clusters then count as papers of a smaller graph and join in turn, as in the multilevel
    clustering of Meyerhenke, Sanders and Schulz (arXiv 1402.3281), until nothing joins. The order is that of the
    leaves of this tree, as in Rabbit order (Arai et al., IPDPS 2016). Where size did not weigh, one cluster would soon
    swallow all; divided by the square root of the size, votes make clusters of any size that the graph has.

    Args:
        neighbours: citations in both directions.

    Returns:
        Row of the paper at each place, int32 [N], a permutation.
    """
    rng = np.random.default_rng(seed)
    graph, size_N = neighbors.to_scipy(np.int8), np.ones(neighbors.num_rows, dtype=np.int64)
    levels = []
    while graph.nnz:
        cluster_N = _cluster(graph, size_N, rng)
        if cluster_N.max() + 1 == len(cluster_N):
            break
        levels.append(cluster_N)
        graph = _contract(graph, cluster_N)
        size_N = np.bincount(cluster_N, weights=size_N).astype(np.int64)
    return _leaves(levels, neighbors.num_rows)


def _cluster(graph: Any, size_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Number of the cluster that each paper joins, int32, without gaps."""
    num_papers = graph.shape[0]
    label_N = rng.permutation(num_papers).astype(np.int32)
    total_N = np.empty_like(size_N)
    total_N[label_N] = size_N
    for _ in range(PASSES):
        for row_B in np.array_split(rng.permutation(num_papers), min(BLOCKS, num_papers)):
            row_B, choice_B = _vote(graph, row_B, label_N, total_N)
            np.subtract.at(total_N, label_N[row_B], size_N[row_B])
            np.add.at(total_N, choice_B, size_N[row_B])
            label_N[row_B] = choice_B
    return _number(label_N)


def _vote(
    graph: Any, row_B: np.ndarray, label_N: np.ndarray, total_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The papers of a block that have neighbours, and the label that most of these have for its size."""
    rows = graph[row_B]
    votes = _summed(rows.data, label_N[rows.indices], rows.indptr, len(label_N))
    num_votes_B = np.diff(votes.indptr)
    has_votes_B = num_votes_B > 0
    start_B = votes.indptr[:-1][has_votes_B]
    vote_V = votes.data / np.sqrt(total_N[votes.indices], dtype=np.float32)
    best_V = (
        np.repeat(np.maximum.reduceat(vote_V, start_B), num_votes_B[has_votes_B])
        if len(start_B)
        else vote_V
    )
    winner_V = np.flatnonzero(vote_V == best_V)
    first_B = winner_V[np.searchsorted(winner_V, start_B)]
    return row_B[has_votes_B], votes.indices[first_B]


def _summed(data_E: np.ndarray, label_E: np.ndarray, ptr_B1: np.ndarray, num_labels: int) -> Any:
    """Rows of labels in which no label occurs twice, since the values of its repetitions are added up."""
    shape = (len(ptr_B1) - 1, num_labels)
    rows = scipy.sparse.csr_matrix((data_E.astype(np.float32), label_E, ptr_B1), shape=shape)
    rows.sum_duplicates()
    return rows


def _number(label_N: np.ndarray) -> np.ndarray:
    is_used_N = np.bincount(label_N, minlength=len(label_N)) > 0
    number_N = np.cumsum(is_used_N, dtype=np.int32) - 1
    renumbered_N: np.ndarray = number_N[label_N].astype(np.int32)
    return renumbered_N


def _contract(graph: Any, cluster_N: np.ndarray) -> Any:
    """The graph of the clusters, each link as heavy as those that it stands for, none from a cluster to itself."""
    member_N, size_C = np.argsort(cluster_N, kind="stable"), np.bincount(cluster_N)
    start_C1 = np.concatenate([[0], np.cumsum(size_C)])
    links = []
    for cluster_B in np.array_split(
        np.arange(len(size_C), dtype=np.int32), min(BLOCKS, len(size_C))
    ):
        first, last = cluster_B[0], cluster_B[-1] + 1
        rows = graph[member_N[start_C1[first] : start_C1[last]]]
        ptr_B1 = rows.indptr[start_C1[first : last + 1] - start_C1[first]]
        links.append(_links(rows.data, rows.indices, ptr_B1, cluster_N, cluster_B))
    return scipy.sparse.vstack(links, format="csr")


def _links(
    data_E: np.ndarray,
    index_E: np.ndarray,
    ptr_B1: np.ndarray,
    cluster_N: np.ndarray,
    own_B: np.ndarray,
) -> Any:
    """Rows of the graph of the clusters, from their papers' links."""
    rows = _summed(data_E, cluster_N[index_E], ptr_B1, int(cluster_N.max()) + 1)
    rows.data[rows.indices == np.repeat(own_B, np.diff(rows.indptr))] = 0
    rows.eliminate_zeros()
    return rows


def _leaves(levels: list[np.ndarray], num_papers: int) -> np.ndarray:
    """Papers in the order of their clusters on the highest level, then of those on the next lower one, and so on."""
    order = np.arange(levels[-1].max() + 1 if levels else num_papers)
    for cluster_N in reversed(levels):
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        order = np.argsort(place[cluster_N], kind="stable")
    return order.astype(np.int32)
