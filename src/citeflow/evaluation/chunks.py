"""Chunks: held-out citations with candidates of their own, some at a time.

Legend: P citations of a chunk, K candidates, Q citations that are ranked.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from citeflow.data.citation_graph import HeldOut
from citeflow.graph.candidates import HardCandidates

PAIRS = 1 << 17
"""Pairs of a source and a candidate that are scored at once, which bounds the memory for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Some test citations with candidates that are scored at once."""

    row_P: np.ndarray
    """Positions among the citations that are ranked."""

    source_P: np.ndarray
    candidate_PK: np.ndarray
    """The cited paper in column 0, then its candidates."""

    is_counted_PK: np.ndarray | None = None
    """False for papers, without that of column 0, that are no candidates of the source."""

    def num_candidates(self) -> Tensor:
        """Count the candidates of each citation, int64 [P]."""
        if self.is_counted_PK is not None:
            return torch.from_numpy(self.is_counted_PK.sum(axis=1))
        return torch.full((len(self.row_P),), self.candidate_PK.shape[1] - 1)


def random_chunks(held_out: HeldOut, row_Q: np.ndarray) -> Iterator[Chunk]:
    """Yield some rows of a split with their own negatives."""
    for position_P in slices(len(row_Q), 1 + held_out.negative_PK.shape[1]):
        row_P = row_Q[position_P]
        negative_PK = held_out.negative_PK[row_P]
        yield Chunk(
            row_P=position_P,
            source_P=np.asarray(held_out.source_P[row_P]),
            candidate_PK=np.concatenate([held_out.target_P[row_P, None], negative_PK], axis=1),
        )


def hard_chunks(held_out: HeldOut, hard: HardCandidates, row_Q: np.ndarray) -> Iterator[Chunk]:
    """Yield some rows of a split, each of which has hard candidates, with these.

    Rows with fewer than others are filled up with papers that are not counted.
    """
    index_Q = hard.index(held_out.source_P[row_Q])
    most = int(hard.candidates.degree_N[index_Q].max(initial=0))
    for position_P in slices(len(row_Q), 1 + most):
        row_P = row_Q[position_P]
        candidate_PK = np.repeat(held_out.target_P[row_P, None], 1 + most, axis=1)
        is_counted_PK = np.zeros((len(row_P), most), dtype=bool)
        for i, index in enumerate(index_Q[position_P].tolist()):
            paper_K = hard.candidates.row(index)
            candidate_PK[i, 1 : 1 + len(paper_K)] = paper_K
            is_counted_PK[i, : len(paper_K)] = True
        yield Chunk(
            row_P=position_P,
            source_P=np.asarray(held_out.source_P[row_P]),
            candidate_PK=candidate_PK,
            is_counted_PK=is_counted_PK,
        )


def slices(num_rows: int, width: int) -> Iterator[np.ndarray]:
    """Yield consecutive rows, as many at a time as have `PAIRS` candidates, `width` each."""
    size = max(1, PAIRS // width)
    for first in range(0, num_rows, size):
        yield np.arange(first, min(first + size, num_rows))
