"""Which part of the graph a step trains on: all of it follows from seed, step and rank.

Papers are stored in an order where those that cite each other are near. A pass over the graph cuts it into segments of
consecutive papers, at other places each time, and deals them into parts at random; a step of one rank trains on one
part, with all links inside it, as ClusterGCN does (Chiang et al. 2019, section 3.2). So each paper is embedded once for
all the citations that it takes part in.

A citation is a target in one pass of every `FOLDS`, and carries no message in that pass, in either direction.

Legend: N papers, B papers of a batch, E links, P citations of a batch, S sources, K shared negatives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from citeflow.graph.csr import Csr

FOLDS = 4
"""Passes over the papers in an epoch."""

SEGMENTS = 4
"""Segments in one part: more of them make a batch more alike to the whole graph, and cut more links."""

FEWEST_PARTS = 6
"""Parts that a pass has at least, where they are not too small: small graphs learn more from more steps."""

SMALLEST_PART = 2000
"""Papers below which a graph is not cut any further."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """The papers of a step, and which of their citations are targets."""

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
class Batch:
    """A subgraph, and citations in it to tell from shared negatives. Papers are named by their place in `paper_B`."""

    paper_B: np.ndarray
    """Rows of the whole graph, ascending."""

    links: Csr
    """Messages between the papers, in both directions; no target is among them."""

    source_S: np.ndarray
    """Distinct citing papers."""

    row_P: np.ndarray
    """Which of `source_S` each citation belongs to, ascending."""

    target_P: np.ndarray
    """Cited papers."""

    negative_K: np.ndarray
    """Random papers."""

    masked_SK: np.ndarray
    """True where a negative is none for this source: linked to it, itself, or not older where dates are known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionSampler:
    """Deals the papers to steps and ranks."""

    num_papers: int
    papers: int
    """About how many papers one rank takes in a step; fewer on small graphs."""

    world_size: int
    seed: int

    @property
    def num_partitions(self) -> int:
        """Parts of a pass, each of which one rank trains on in one step."""
        wanted = max(
            round(self.num_papers / self.papers),
            min(FEWEST_PARTS, self.num_papers // SMALLEST_PART),
        )
        return min(max(1, wanted), self.num_papers)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which the ranks together take every part of `FOLDS` passes, rounded up."""
        return -(-FOLDS * self.num_partitions // self.world_size)

    def part(self, step: int, rank: int) -> Partition:
        """The part that a rank trains on in a step."""
        passed, place = divmod(step * self.world_size + rank, self.num_partitions)
        epoch, fold = divmod(passed, FOLDS)
        return Partition(bounds_R2=self._ranges(passed, place), epoch=epoch, fold=fold)

    def _ranges(self, passed: int, place: int) -> np.ndarray:
        """Segments of a ring, turned by a random angle, so that they begin elsewhere in each pass."""
        if self.num_partitions == 1:
            return np.array([[0, self.num_papers]])
        rng = np.random.default_rng((self.seed, passed))
        count = min(SEGMENTS * self.num_partitions, self.num_papers)
        cut_C = np.sort(
            (np.arange(count) * self.num_papers // count + rng.integers(self.num_papers))
            % self.num_papers
        )
        bounds_C2 = np.stack([cut_C, np.append(cut_C[1:], cut_C[0] + self.num_papers)], axis=1)
        mine = rng.permutation(count)[
            place * count // self.num_partitions : (place + 1) * count // self.num_partitions
        ]
        return _unrolled(bounds_C2[np.sort(mine)], self.num_papers)


def make_batch(
    part: Partition,
    *,
    references: Csr,
    neighbors: Csr,
    day_N: np.ndarray | None,
    negatives: int,
    seed: Sequence[int],
) -> Batch:
    """Cut a part out of the graph, and put its targets together with random papers of the part to tell them from.

    Args:
        part: the papers.
        references: training citations of the whole graph.
        neighbours: the same in both directions, each once.
        day_N: date of each paper in days, where known.
        negatives: papers that all sources are compared with.
        seed: of the negatives; the targets follow from the part.
    """
    paper_B = part.paper_B
    row_E, column_E = _inside(neighbors, part)
    is_message_E = _fold_of(paper_B, row_E, column_E, part, neighbors.num_rows) != part.fold
    citing_E, cited_E = _inside(references, part)
    is_target_E = _fold_of(paper_B, citing_E, cited_E, part, neighbors.num_rows) == part.fold
    source_S, row_P = _distinct(citing_E[is_target_E])
    negative_K = _draw_negatives(len(paper_B), negatives, seed)
    return Batch(
        paper_B=paper_B,
        links=_csr(row_E[is_message_E], column_E[is_message_E], len(paper_B)),
        source_S=source_S,
        row_P=row_P,
        target_P=cited_E[is_target_E],
        negative_K=negative_K,
        masked_SK=_not_negative(
            source_S,
            negative_K,
            num_papers=len(paper_B),
            link_2E=(row_E, column_E),
            day_B=None if day_N is None else day_N[paper_B],
        ),
    )


def _unrolled(bounds_R2: np.ndarray, num_papers: int) -> np.ndarray:
    """Cut a range that passes the end of the ring in two."""
    last_first, last_end = bounds_R2[-1]
    if last_end <= num_papers:
        return bounds_R2
    return np.array(
        [[0, last_end - num_papers], *bounds_R2[:-1].tolist(), [last_first, num_papers]]
    )


def _inside(graph: Csr, part: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Links between papers of a part, row by row, as places among its papers, int32."""
    first_R, end_R = part.bounds_R2.T
    place_R = np.cumsum(end_R - first_R) - (end_R - first_R)
    degree_B = np.concatenate(
        [np.diff(graph.ptr_N1[first : end + 1]) for first, end in part.bounds_R2]
    )
    paper_E = np.concatenate(
        [graph.index_E[graph.ptr_N1[first] : graph.ptr_N1[end]] for first, end in part.bounds_R2]
    )
    range_E = np.searchsorted(first_R, paper_E, side="right") - 1
    is_inside_E = (paper_E < end_R[range_E]) & (range_E >= 0)
    row_E = np.repeat(np.arange(len(degree_B), dtype=np.int32), degree_B)[is_inside_E]
    shift_R = (place_R - first_R).astype(np.int32)
    return row_E, paper_E[is_inside_E] + shift_R[range_E[is_inside_E]]


def _fold_of(
    paper_B: np.ndarray, a_E: np.ndarray, b_E: np.ndarray, part: Partition, num_papers: int
) -> np.ndarray:
    """The fold in which each pair is a target, the same for both directions, other pairs together in every epoch."""
    low_E, high_E = paper_B[np.minimum(a_E, b_E)], paper_B[np.maximum(a_E, b_E)]
    key_E = low_E.astype(np.uint64) * np.uint64(num_papers) + high_E.astype(np.uint64)
    key_E += np.uint64(part.epoch * 0x9E3779B97F4A7C15 % 2**64)
    return _mixed(key_E) % np.uint64(FOLDS)


def _mixed(key_E: np.ndarray) -> np.ndarray:
    """Scatter keys over all 64 bits (splitmix64: Steele, Lea & Flood 2014, figure 15)."""
    key_E = (key_E ^ (key_E >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key_E = (key_E ^ (key_E >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_E: np.ndarray = key_E ^ (key_E >> np.uint64(31))
    return mixed_E


def _distinct(citing_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values of an ascending array, and the place of each value among them."""
    is_new_P = np.diff(citing_P, prepend=-1) > 0
    return citing_P[is_new_P], np.cumsum(is_new_P) - 1


def _draw_negatives(num_papers: int, negatives: int, seed: Sequence[int]) -> np.ndarray:
    drawn_K = np.random.default_rng(seed).choice(
        num_papers, min(negatives, num_papers), replace=False, shuffle=False
    )
    return np.sort(drawn_K).astype(np.int32)


def _csr(row_E: np.ndarray, column_E: np.ndarray, num_rows: int) -> Csr:
    ptr_B1 = np.zeros(num_rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(row_E, minlength=num_rows), out=ptr_B1[1:])
    return Csr(ptr_B1, column_E)


def _not_negative(
    source_S: np.ndarray,
    negative_K: np.ndarray,
    *,
    num_papers: int,
    link_2E: tuple[np.ndarray, np.ndarray],
    day_B: np.ndarray | None,
) -> np.ndarray:
    masked_SK: np.ndarray = source_S[:, None] == negative_K[None, :]
    if day_B is not None:
        masked_SK |= day_B[negative_K][None, :] >= day_B[source_S][:, None]
    source_place_B, negative_place_B = (
        _places(papers, num_papers) for papers in (source_S, negative_K)
    )
    row_E, column_E = (
        place_B[e] for place_B, e in zip((source_place_B, negative_place_B), link_2E, strict=True)
    )
    both_E = (row_E >= 0) & (column_E >= 0)
    masked_SK[row_E[both_E], column_E[both_E]] = True
    return masked_SK


def _places(papers: np.ndarray, num_papers: int) -> np.ndarray:
    """Place of each paper in an array of distinct ones, -1 where it is not among them."""
    place_B = np.full(num_papers, -1, dtype=np.int32)
    place_B[papers] = np.arange(len(papers), dtype=np.int32)
    return place_B
