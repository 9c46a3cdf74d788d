"""Predictors that need no training, which every protocol ranks beside the model.

Legend: N papers, F features, V words, E words of a source, P sources, K candidates.
"""

from collections.abc import Iterator

import numpy as np

from citeflow.graph.prepared import PreparedGraph
from citeflow.models.path_sums import Sums
from citeflow.models.structural import BASELINES, StructuralFeatures

NAMES = (*BASELINES, "recency", "cosine", "bm25")
"""All of them; those that a graph has no data for are left out."""

BLOCK_ROWS = 1 << 16


class Baselines:
    """Scores pairs by what the two papers have in common, or by the candidate alone."""

    def __init__(self, graph: PreparedGraph, structural: StructuralFeatures) -> None:
        """Take a graph, and its path counts."""
        self._structural = structural
        self._day_N = None if graph.day_N is None else np.asarray(graph.day_N)
        self._x_NF = None if graph.x_NF is None else np.asarray(graph.x_NF)
        self._bm25_NV = graph.bm25()
        self._papers_VN = None if self._bm25_NV is None else self._bm25_NV.T.tocsr()
        self._scale_N = None if self._x_NF is None else _inverse_lengths(self._x_NF)

    def __call__(
        self, sums: Sums, source_P: np.ndarray, candidates: np.ndarray
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield name and scores of each predictor; float32 [P, K].

        Args:
            sums: over `meta_paths.BASELINE_PATHS` of each pair.
            source_P: sources.
            candidates: of each source [P, K], or [K] where all sources share them.
        """
        yield from self._structural.baselines(sums, source_P, candidates)
        if self._day_N is not None:
            day = self._day_N[candidates].astype(np.float32)
            yield "recency", np.array(np.broadcast_to(day, (len(source_P), day.shape[-1])))
        if self._x_NF is not None:
            yield "cosine", self._cosine(source_P, candidates)
        if self._bm25_NV is not None:
            yield "bm25", self._bm25(source_P, candidates)

    def _cosine(self, source_P: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Compute the cosine of the features, up to a factor that is the source's own."""
        assert self._x_NF is not None
        assert self._scale_N is not None
        score_PK = np.empty((len(source_P), candidates.shape[-1]), dtype=np.float32)
        # Source by source, so that the features of one source's candidates stay in the cache.
        for i, source in enumerate(source_P.tolist()):
            if not i or candidates.ndim == 2:
                candidate_K = candidates if candidates.ndim == 1 else candidates[i]
                x_KF = self._x_NF.take(candidate_K, axis=0).astype(np.float32, copy=False)
                scale_K = self._scale_N.take(candidate_K)
            score_PK[i] = scale_K * (x_KF @ self._x_NF[source].astype(np.float32))
        return score_PK

    def _bm25(self, source_P: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Sum the weights that candidates have of the words of the source, each counted once."""
        assert self._bm25_NV is not None
        assert self._papers_VN is not None
        score_PK = np.empty((len(source_P), candidates.shape[-1]), dtype=np.float32)
        for i, source in enumerate(source_P.tolist()):
            word_E = self._bm25_NV.indices[slice(*self._bm25_NV.indptr[source : source + 2])]
            papers_EN = self._papers_VN[word_E]
            score_N = np.bincount(papers_EN.indices, papers_EN.data, papers_EN.shape[1])
            score_PK[i] = score_N[candidates if candidates.ndim == 1 else candidates[i]]
        return score_PK


def _inverse_lengths(x_NF: np.ndarray) -> np.ndarray:
    """Return 1 / length of each row, 0 for a row of zeros, float32 [N]."""
    scale_N = np.zeros(len(x_NF), dtype=np.float32)
    for first in range(0, len(x_NF), BLOCK_ROWS):
        x_BF = np.asarray(x_NF[first : first + BLOCK_ROWS], dtype=np.float32)
        length_B = np.sqrt(np.einsum("bf,bf->b", x_BF, x_BF))
        block = scale_N[first : first + BLOCK_ROWS]
        np.divide(1, length_B, out=block, where=length_B > 0)
    return scale_N
