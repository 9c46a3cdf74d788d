"""Mini-batches: the partition of the graph that a step trains on, with its positives.

Everything follows from seed, step and rank, so any rank can make any batch again after a restart.

Papers are stored in an order where those that cite each other are near (`graph.reorder`). A sweep
over the graph cuts this order into segments of consecutive papers, at other points each time, and
deals them into partitions at random; a step of one rank trains on one partition, with all edges
inside it, as ClusterGCN does (Chiang et al., arXiv 1905.07953, section 3.2). So each paper is
embedded once per step for all the citations that it takes part in. Segments of consecutive papers
stand in for the METIS clusters of ClusterGCN: they hold most of their own edges as well, they cost
nothing, and cutting elsewhere in each sweep lets every edge lie inside a partition now and then.

Supervision folds: a citation is a target (a positive of the loss, PyG's supervision edge) in one
sweep of every `FOLDS`, and in that sweep it carries no message, in either direction. If it did, the
encoder would learn to find edges that it is shown; at test time the citation that is asked for is
never in the graph. In the other sweeps it is a message like any other.

Hidden references: some sources of a batch lose all of their references, so that the model learns
what it can know of a paper that has none yet.

Legend: N papers, B papers of a batch, R ranges of papers, E edges, P citations of a batch, S
sources, K shared negatives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from citeflow.graph.csr import Csr

FOLDS = 4
"""Supervision folds, and sweeps over the papers in an epoch; a power of two."""

SEGMENTS = 4
"""Segments in a partition: more of them make batches more alike, and cut more edges."""

LARGE = 10_000_000
"""Papers from which on a partition has half as many segments. Those of a larger graph that cite
each other lie further apart: 5,000 consecutive papers hold 84 % of their citations in a synthetic
graph of 2.9 M papers, and 58 % in one of 29 M, where 10,000 hold 72 %."""

MIN_PARTITIONS = 6
"""Partitions of a sweep at least, as long as they are not too small: small graphs learn more from
more steps."""

MIN_PARTITION_PAPERS = 2000
"""Papers of a partition below which a graph is not cut any further."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """The papers of a step, and the fold of citations that are its targets."""

    bounds_R2: np.ndarray
    """First paper and end of each range of papers, ascending, int64."""

    epoch: int
    fold: int

    @property
    def paper_B(self) -> np.ndarray:
        """All papers, ascending, int32."""
        return np.concatenate(
            [np.arange(first, end, dtype=np.int32) for first, end in self.bounds_R2]
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Subgraph:
    """A subgraph, with positives and shared negatives; papers are indices into `paper_B`."""

    paper_B: np.ndarray
    """Rows of the whole graph, ascending."""

    adj: Csr
    """Edges that carry messages, in both directions; no target is among them."""

    source_S: np.ndarray
    """Distinct citing papers."""

    source_index_P: np.ndarray
    """Index into `source_S` of each citation, ascending."""

    is_hidden_S: np.ndarray
    """True for sources whose references are all hidden: none of them carries a message."""

    target_P: np.ndarray
    """Cited papers."""

    negative_K: np.ndarray
    """Random papers, which all sources share."""

    false_negative_mask_SK: np.ndarray
    """True where a negative is none for this source: linked to it, itself, or not older where dates
    are known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionSampler:
    """Deals the papers to steps and ranks."""

    num_papers: int
    nodes_per_batch: int
    """About how many papers one rank takes in a step; fewer on small graphs."""

    world_size: int
    seed: int

    @property
    def num_partitions(self) -> int:
        """Partitions of a sweep, each of which one rank trains on in one step."""
        wanted = max(
            round(self.num_papers / self.nodes_per_batch),
            min(MIN_PARTITIONS, self.num_papers // MIN_PARTITION_PAPERS),
        )
        return min(max(1, wanted), self.num_papers)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which the ranks together take every partition of `FOLDS` sweeps, rounded up."""
        return -(-FOLDS * self.num_partitions // self.world_size)

    def partition(self, step: int, rank: int) -> Partition:
        """Return the partition that a rank trains on in a step."""
        sweep, index = divmod(step * self.world_size + rank, self.num_partitions)
        epoch, fold = divmod(sweep, FOLDS)
        return Partition(bounds_R2=self._ranges(sweep, index), epoch=epoch, fold=fold)

    def _ranges(self, sweep: int, index: int) -> np.ndarray:
        """Segments of one partition; papers form a ring, cut from a random angle in each sweep."""
        if self.num_partitions == 1:
            return np.array([[0, self.num_papers]])
        rng = np.random.default_rng((self.seed, sweep))
        segments = SEGMENTS if self.num_papers < LARGE else SEGMENTS // 2
        count = min(segments * self.num_partitions, self.num_papers)
        cut_C = np.sort(
            (np.arange(count) * self.num_papers // count + rng.integers(self.num_papers))
            % self.num_papers
        )
        bounds_C2 = np.stack([cut_C, np.append(cut_C[1:], cut_C[0] + self.num_papers)], axis=1)
        first = index * count // self.num_partitions
        end = (index + 1) * count // self.num_partitions
        chosen = np.sort(rng.permutation(count)[first:end])
        return _unroll(bounds_C2[chosen], self.num_papers)


def sample_subgraph(
    partition: Partition,
    *,
    references: Csr,
    neighbors: Csr,
    day_N: np.ndarray | None,
    num_negatives: int,
    seed: Sequence[int],
    hidden_share: float = 0.0,
) -> Subgraph:
    """Cut a partition out of the graph, with targets, and random papers of it as negatives.

    Negatives come from the partition, because its papers are embedded anyway; they are shared by
    all sources, so that scoring them is one matrix product.

    Args:
        partition: the papers, and the supervision fold.
        references: training citations of the whole graph.
        neighbors: the same in both directions, each once.
        day_N: date of each paper in days, where known.
        num_negatives: papers that all sources are compared with.
        seed: of the negatives and of the hidden sources; the targets follow from the partition.
        hidden_share: share of the sources whose references are hidden.
    """
    paper_B = partition.paper_B
    row_E, column_E = _induced_edges(neighbors, partition)
    pairs = paper_B.take(row_E), paper_B.take(column_E)
    fold_E = _supervision_fold(*pairs, partition, neighbors.num_rows)
    is_message_E = fold_E != partition.fold
    citing_E, cited_E = _induced_edges(references, partition)
    pairs = paper_B.take(citing_E), paper_B.take(cited_E)
    fold_E = _supervision_fold(*pairs, partition, neighbors.num_rows)
    target = np.flatnonzero(fold_E == partition.fold)
    source_S, source_index_P = _unique_ascending(citing_E.take(target))
    negative_K = _draw_negatives(len(paper_B), num_negatives, seed)
    is_hidden_S = np.zeros(len(source_S), dtype=bool)
    if hidden_share:
        is_hidden_S = np.random.default_rng((*seed, 1)).random(len(source_S)) < hidden_share
        is_hidden_B = np.zeros(len(paper_B), dtype=bool)
        is_hidden_B[source_S[is_hidden_S]] = True
        is_message_E &= ~_join_reference((row_E, column_E), (citing_E, cited_E), is_hidden_B)
    message = np.flatnonzero(is_message_E)
    return Subgraph(
        paper_B=paper_B,
        adj=_csr(row_E.take(message), column_E.take(message), len(paper_B)),
        source_S=source_S,
        source_index_P=source_index_P,
        is_hidden_S=is_hidden_S,
        target_P=cited_E.take(target),
        negative_K=negative_K,
        false_negative_mask_SK=_false_negatives(
            source_S,
            negative_K,
            # All edges, those that carry no message too: none of them is a negative.
            edges=(row_E, column_E),
            num_papers=len(paper_B),
            day_B=None if day_N is None else day_N[paper_B],
        ),
    )


def _unroll(bounds_R2: np.ndarray, num_papers: int) -> np.ndarray:
    """Cut the range in two that passes the end of the ring."""
    last_first, last_end = bounds_R2[-1]
    if last_end <= num_papers:
        return bounds_R2
    return np.array(
        [[0, last_end - num_papers], *bounds_R2[:-1].tolist(), [last_first, num_papers]]
    )


def _induced_edges(graph: Csr, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Edges between papers of a partition, row by row, as indices into its papers, int32."""
    # The rows of a range are consecutive in memory: each range is one slice, not a gather of rows.
    degree_B = np.concatenate(
        [np.diff(graph.rowptr_N1[first : end + 1]) for first, end in partition.bounds_R2]
    )
    paper_E = np.concatenate(
        [
            graph.col_E[graph.rowptr_N1[first] : graph.rowptr_N1[end]]
            for first, end in partition.bounds_R2
        ]
    )
    index_E = np.full(len(paper_E), -1, dtype=np.int32)
    num_before = 0
    for first, end in partition.bounds_R2.tolist():  # few; to search for each paper takes longer
        position_E = paper_E - np.int32(first)
        is_here_E = position_E.view(np.uint32) < end - first  # what is negative is large
        np.add(position_E, np.int32(num_before), out=index_E, where=is_here_E)
        num_before += end - first
    inside = np.flatnonzero(index_E >= 0)
    row_E = np.repeat(np.arange(len(degree_B), dtype=np.int32), degree_B)
    return row_E.take(inside), index_E.take(inside)


def _supervision_fold(
    a_E: np.ndarray, b_E: np.ndarray, partition: Partition, num_papers: int
) -> np.ndarray:
    """Return the fold in which each pair of papers is a target.

    It is a hash of the pair, so no fold is stored for an edge, and every rank finds the same one.
    Both directions of a pair have one key, or the edge back would give the target away. The epoch
    is part of it, so that other pairs are targets together in every epoch.
    """
    key_E = np.minimum(a_E, b_E).astype(np.uint64)
    key_E *= np.uint64(num_papers)
    key_E += np.maximum(a_E, b_E).view(np.uint32)
    key_E += np.uint64(partition.epoch * 0x9E3779B97F4A7C15 % 2**64)
    fold_E = _hash(key_E)
    fold_E &= np.uint64(FOLDS - 1)  # the remainder takes many times as long
    return fold_E


def _hash(key_E: np.ndarray) -> np.ndarray:
    """Scatter keys over all 64 bits (splitmix64: Steele, Lea & Flood 2014, figure 15)."""
    hash_E: np.ndarray = key_E ^ (key_E >> np.uint64(30))
    hash_E *= np.uint64(0xBF58476D1CE4E5B9)
    hash_E ^= hash_E >> np.uint64(27)
    hash_E *= np.uint64(0x94D049BB133111EB)
    hash_E ^= hash_E >> np.uint64(31)
    return hash_E


def _unique_ascending(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values of an ascending array, and the index of each value among them."""
    is_new = np.diff(values, prepend=-1) > 0
    return values[is_new], np.cumsum(is_new) - 1


def _join_reference(
    edges: tuple[np.ndarray, np.ndarray],
    citations: tuple[np.ndarray, np.ndarray],
    is_citing_B: np.ndarray,
) -> np.ndarray:
    """Mark the edges, in either direction, that join one of some papers with a reference of it.

    Args:
        edges: all edges, row by row, each in both directions.
        citations: all citations, each of which is an edge.
        is_citing_B: True for the papers in question.
    """
    row_E, column_E = edges
    is_chosen_C = is_citing_B.take(citations[0])
    citing_C, cited_C = (paper_C[is_chosen_C].astype(np.int64) for paper_C in citations)
    num_papers = len(is_citing_B)
    key_C = np.concatenate([citing_C * num_papers + cited_C, cited_C * num_papers + citing_C])
    is_reference_E = np.zeros(len(row_E), dtype=bool)
    is_reference_E[np.searchsorted(row_E * np.int64(num_papers) + column_E, key_C)] = True
    return is_reference_E


def _draw_negatives(num_papers: int, num_negatives: int, seed: Sequence[int]) -> np.ndarray:
    negative_K = np.random.default_rng(seed).choice(
        num_papers, min(num_negatives, num_papers), replace=False, shuffle=False
    )
    return np.sort(negative_K).astype(np.int32)


def _csr(row_E: np.ndarray, column_E: np.ndarray, num_rows: int) -> Csr:
    """Build sparse rows from edges that are in their order already."""
    rowptr_B1 = np.zeros(num_rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(row_E, minlength=num_rows), out=rowptr_B1[1:])
    return Csr(rowptr_B1, column_E)


def _false_negatives(
    source_S: np.ndarray,
    negative_K: np.ndarray,
    *,
    edges: tuple[np.ndarray, np.ndarray],
    num_papers: int,
    day_B: np.ndarray | None,
) -> np.ndarray:
    """Mark the shared negatives that a source may not be compared with, bool [S, K].

    Held-out citations go to older papers, and so do their negatives; a paper that is not older
    would be a negative that its date gives away.
    """
    mask_SK = np.zeros((len(source_S), len(negative_K)), dtype=bool)
    if day_B is not None:
        np.greater_equal(day_B[negative_K][None, :], day_B[source_S][:, None], out=mask_SK)
    negative_index_B = _index_of(negative_K, num_papers)
    own_S = negative_index_B[source_S]
    itself = np.flatnonzero(own_S >= 0)
    mask_SK[itself, own_S[itself]] = True
    row_E, column_E = edges
    negative_index_E = negative_index_B.take(column_E)
    compared = np.flatnonzero(negative_index_E >= 0)
    source_index_E = _index_of(source_S, num_papers).take(row_E[compared])
    is_source_E = source_index_E >= 0
    mask_SK[source_index_E[is_source_E], negative_index_E[compared[is_source_E]]] = True
    return mask_SK


def _index_of(papers: np.ndarray, num_papers: int) -> np.ndarray:
    """Index of each paper in an array of distinct ones, or -1; int32 [B]."""
    index_B = np.full(num_papers, -1, dtype=np.int32)
    index_B[papers] = np.arange(len(papers), dtype=np.int32)
    return index_B
