"""Cosine of the features of two papers.

Legend: N papers, F features, S sources, P pairs, K candidates, U papers whose features are held.
"""

import numpy as np

from citeflow.graph.similar import unit_features
from citeflow.utils.large_arrays import is_on_disk, read_ahead, rows_in_order

MAX_KEPT_FEATURES = 1 << 24
"""Features of all papers, 64 MB, that are kept as they are scaled for the cosine."""


class FeatureCosine:
    """Computes cosines, as the similarity graph has them."""

    def __init__(self, x_NF: np.ndarray) -> None:
        self.x_NF = x_NF
        self._paper_U: np.ndarray | None = None
        self._unit_NF: np.ndarray | None = None

    def holding(self, paper_U: np.ndarray) -> "FeatureCosine":
        """Return one for some papers, ascending, whose features are in memory."""
        if not is_on_disk(self.x_NF):
            return self
        held = FeatureCosine(rows_in_order(self.x_NF, paper_U))
        held._paper_U = paper_U
        return held

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
        row = paper if self._paper_U is None else np.searchsorted(self._paper_U, paper)
        if self.x_NF.size > MAX_KEPT_FEATURES:
            read_ahead(self.x_NF, row, row + 1)
            if (row[1:] > row[:-1]).all():  # as candidates are: each once
                return unit_features(self.x_NF[row])
            row_B, index = np.unique(row, return_inverse=True)
            return unit_features(self.x_NF[row_B]).take(index, axis=0)
        if self._unit_NF is None:
            self._unit_NF = unit_features(self.x_NF)
        return self._unit_NF.take(row, axis=0)
