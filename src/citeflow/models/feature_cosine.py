"""Cosine of the features of two papers.

Legend: N papers, F features, S sources, P pairs, K candidates.
"""

import numpy as np

from citeflow.graph.similar import unit_features
from citeflow.utils.large_arrays import read_ahead

MAX_KEPT_FEATURES = 1 << 24
"""Features of all papers, 64 MB, that are kept as they are scaled for the cosine."""


class FeatureCosine:
    """Computes cosines, as the similarity graph has them."""

    def __init__(self, x_NF: np.ndarray) -> None:
        self._x_NF = x_NF
        self._unit_NF: np.ndarray | None = None

    def cosine(self, source_F: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Cosine of the features of sources and candidates, of the shape that both broadcast to."""
        if target.ndim == 1:
            cosine_P: np.ndarray = np.einsum("pf,pf->p", source_F, self.unit_rows(target))
            return cosine_P
        if len(target) == 1:
            cosine_SK: np.ndarray = source_F @ self.unit_rows(target[0]).T
            return cosine_SK
        cosine_PK = np.empty(target.shape, dtype=np.float32)
        # Source by source, so that the features of one source's candidates stay in the cache.
        for cosine_K, paper_K, one_F in zip(cosine_PK, target, source_F, strict=True):
            cosine_K[:] = self.unit_rows(paper_K) @ one_F
        return cosine_PK

    def unit_rows(self, paper: np.ndarray) -> np.ndarray:
        """Return the features of some papers, scaled; those of a small graph are kept."""
        if self._x_NF.size > MAX_KEPT_FEATURES:
            read_ahead(self._x_NF, paper, paper + 1)
            if (paper[1:] > paper[:-1]).all():  # as candidates are: each once
                return unit_features(self._x_NF[paper])
            paper_U, index = np.unique(paper, return_inverse=True)
            return unit_features(self._x_NF[paper_U]).take(index, axis=0)
        if self._unit_NF is None:
            self._unit_NF = unit_features(self._x_NF)
        return self._unit_NF.take(paper, axis=0)
