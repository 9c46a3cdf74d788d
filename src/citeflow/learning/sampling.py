"""Which citations a step trains on, and which part of the graph it sees: all of it follows from seed, step and rank.

A batch takes citations in groups, a few of one source each, so that one sparse row serves all of a source's candidates.
The batch's own citations are left out of its message passing, in both directions; a group has at most half of its
source's references (unless there is only one), and a rank's batch about a tenth of all citations at most, so that
papers keep something to be known by.

Legend: N papers, E training citations, P citations of a batch, S sources, K shared negatives, B papers of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from citeflow.graph.csr import Csr

PER_SOURCE = 4
"""Most references in one group."""

MOST_OF_GRAPH = 0.1
"""Largest share of all training citations in the batch of one rank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Citations to tell from shared negatives."""

    source_S: np.ndarray
    """Distinct citing papers."""

    row_P: np.ndarray
    """Which of `source_S` each citation belongs to."""

    target_P: np.ndarray
    """Cited papers."""

    negative_K: np.ndarray
    """Random papers."""

    masked_SK: np.ndarray
    """True where a negative is none for this source: linked to it, itself, or not older where dates are known."""

    @property
    def source_P(self) -> np.ndarray:
        """Citing paper of each citation."""
        source_P: np.ndarray = self.source_S[self.row_P]
        return source_P


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One hop of message passing: rows are papers to compute, columns the papers they listen to, rows first."""

    ptr: np.ndarray
    """Row offsets, int32."""

    index: np.ndarray
    """Columns, int32."""

    num_rows: int
    num_columns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbourhood:
    """The part of the graph that the embeddings of some papers depend on."""

    paper_B: np.ndarray
    """Papers whose features are read, the wanted ones first."""

    blocks: tuple[Block, ...]
    """In the order of the layers: the last one ends at the wanted papers."""


class EpochPlan:
    """Deals every training citation once, in an order of its own for each epoch."""

    def __init__(self, references: Csr, *, seed: int, epoch: int, batch: int, world_size: int) -> None:
        """Cut each source's shuffled references into groups, shuffle the groups, and deal them to the ranks."""
        rng = np.random.default_rng((seed, epoch))
        self._references = references
        source_E = np.repeat(np.arange(references.num_rows, dtype=np.int32), references.degree_N)
        self._order_E = np.lexsort((rng.random(len(source_E), dtype=np.float32), source_E))
        starts = _group_starts(references)
        order = rng.permutation(len(starts))
        self._start_G, self._end_G = starts[order], np.append(starts, len(source_E))[order + 1]
        mean_group = len(source_E) / max(len(starts), 1)
        per_rank = min(batch / world_size, MOST_OF_GRAPH * len(source_E))
        groups_per_step = max(1, round(per_rank / mean_group)) * world_size
        self.num_steps = max(1, min(-(-len(starts) // groups_per_step), len(starts) // world_size))
        self._world_size = world_size

    def citations(self, step: int, rank: int) -> np.ndarray:
        """Positions in `references.index_E` of the citations that a rank trains on in a step.

        Never empty: where there are fewer groups than ranks, some ranks share a group.
        """
        parts = self.num_steps * self._world_size
        part = step * self._world_size + rank
        size = len(self._start_G)
        first, last = part * size // parts, (part + 1) * size // parts
        groups = slice(first, max(last, first + 1))
        position_P: np.ndarray = self._order_E[_ranges(self._start_G[groups], self._end_G[groups])]
        return position_P


def make_batch(
    position_P: np.ndarray,
    *,
    references: Csr,
    neighbours: Csr,
    day_N: np.ndarray | None,
    negatives: int,
    seed: Sequence[int],
) -> Batch:
    """Put the citations at some positions of `references` together with random papers to tell them from."""
    rng = np.random.default_rng(seed)
    source_P = (np.searchsorted(references.ptr_N1, position_P, side="right") - 1).astype(np.int32)
    source_S, row_P = np.unique(source_P, return_inverse=True)
    negative_K = np.sort(rng.integers(0, references.num_rows, negatives, dtype=np.int32))
    return Batch(
        source_S=source_S,
        row_P=row_P,
        target_P=references.index_E[position_P],
        negative_K=negative_K,
        masked_SK=_not_negative(source_S, negative_K, neighbours, day_N),
    )


def neighbourhood(
    wanted: np.ndarray,
    *,
    neighbours: Csr,
    layers: int,
    fanout: Sequence[int] = (),
    without: tuple[np.ndarray, np.ndarray] | None = None,
    seed: Sequence[int] = (0,),
) -> Neighbourhood:
    """Walk outwards from distinct papers, one hop per layer.

    Args:
        wanted: papers whose embeddings are asked for.
        neighbours: the undirected graph.
        layers: number of hops.
        fanout: neighbours drawn per paper and hop, with replacement, from papers that have more; empty takes all
            (Hamilton, Ying & Leskovec 2017, section 3.1).
        without: pairs that no message may pass between, in either direction.
        seed: of the drawing.
    """
    rng = np.random.default_rng(seed)
    hidden = _hidden_positions(neighbours, without)
    local_N = np.full(neighbours.num_rows, -1, dtype=np.int32)
    papers, blocks = np.asarray(wanted), []
    for layer in range(layers):
        row_E, position_E = _draw(papers, neighbours, fanout[layer] if fanout else 0, rng)
        keep = ~np.isin(position_E, hidden) if len(hidden) else slice(None)
        row_E, paper_E = row_E[keep], neighbours.index_E[position_E[keep]]
        columns = _append_new(papers, paper_E, local_N)
        blocks.append(_block(row_E, local_N[paper_E], len(papers), len(columns)))
        papers = columns
    return Neighbourhood(paper_B=papers, blocks=tuple(reversed(blocks)))


def positions(csr: Csr, row_P: np.ndarray, column_P: np.ndarray) -> np.ndarray:
    """Where pairs stand in `csr.index_E`, by bisection within their rows; -1 where a pair is not there."""
    low, high = csr.ptr_N1[row_P], csr.ptr_N1[row_P.astype(np.int64) + 1]
    end = high.copy()
    while np.any(low < high):
        middle = (low + high) // 2
        is_left = (csr.index_E[np.minimum(middle, len(csr.index_E) - 1)] < column_P) & (low < high)
        low, high = np.where(is_left, middle + 1, low), np.where(is_left, high, np.minimum(middle, high))
    found = (low < end) & (csr.index_E[np.minimum(low, len(csr.index_E) - 1)] == column_P)
    return np.where(found, low, -1)


def _group_starts(references: Csr) -> np.ndarray:
    """Cut each row of d references into pieces of min(4, d / 2), at least 1."""
    degree_N = references.degree_N
    size_N = np.clip(degree_N // 2, 1, PER_SOURCE)
    source_E = np.repeat(np.arange(references.num_rows), degree_N)
    within_E = np.arange(len(source_E)) - references.ptr_N1[source_E]
    return np.flatnonzero(within_E % size_N[source_E] == 0)


def _ranges(start_G: np.ndarray, end_G: np.ndarray) -> np.ndarray:
    """All whole numbers from each start up to, but without, its end, one range after the other."""
    length_G = end_G - start_G
    offset_G = np.cumsum(length_G) - length_G
    numbers: np.ndarray = np.arange(length_G.sum()) + np.repeat(start_G - offset_G, length_G)
    return numbers


def _not_negative(
    source_S: np.ndarray, negative_K: np.ndarray, neighbours: Csr, day_N: np.ndarray | None
) -> np.ndarray:
    masked_SK: np.ndarray = source_S[:, None] == negative_K[None, :]
    if day_N is not None:
        masked_SK |= day_N[negative_K][None, :] >= day_N[source_S][:, None]
    start_S, end_S = neighbours.ptr_N1[source_S], neighbours.ptr_N1[source_S + 1]
    row_E = np.repeat(np.arange(len(source_S)), end_S - start_S)
    linked_E = neighbours.index_E[_ranges(start_S, end_S)]
    first_E, last_E = np.searchsorted(negative_K, linked_E), np.searchsorted(negative_K, linked_E, side="right")
    masked_SK[np.repeat(row_E, last_E - first_E), _ranges(first_E, last_E)] = True
    return masked_SK


def _hidden_positions(neighbours: Csr, without: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    if without is None:
        return np.empty(0, dtype=np.int64)
    source_P, target_P = without
    there = positions(neighbours, np.concatenate([source_P, target_P]), np.concatenate([target_P, source_P]))
    return np.unique(there[there >= 0])


def _draw(papers: np.ndarray, graph: Csr, fanout: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `papers` and positions in `graph.index_E` of the neighbours that they listen to."""
    start = graph.ptr_N1[papers]
    degree = graph.ptr_N1[papers.astype(np.int64) + 1] - start
    length = np.minimum(degree, fanout) if fanout else degree
    row_E = np.repeat(np.arange(len(papers), dtype=np.int32), length)
    position_E = _ranges(start, start + length)
    if fanout:
        is_drawn_E = (degree > fanout)[row_E]
        drawn = row_E[is_drawn_E]
        position_E[is_drawn_E] = start[drawn] + (rng.random(len(drawn)) * degree[drawn]).astype(np.int64)
    return row_E, position_E


def _append_new(papers: np.ndarray, paper_E: np.ndarray, local_N: np.ndarray) -> np.ndarray:
    """Number the papers of a hop: the rows first, then the others in ascending order."""
    local_N[paper_E] = 0
    local_N[papers] = -1
    new = np.flatnonzero(local_N == 0).astype(papers.dtype)
    columns = np.concatenate([papers, new])
    local_N[columns] = np.arange(len(columns), dtype=np.int32)
    return columns


def _block(row_E: np.ndarray, column_E: np.ndarray, num_rows: int, num_columns: int) -> Block:
    ptr = np.zeros(num_rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(row_E, minlength=num_rows), out=ptr[1:])
    return Block(ptr=ptr, index=column_E, num_rows=num_rows, num_columns=num_columns)
