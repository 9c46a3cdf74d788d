"""Tensors that a model computes with, from the arrays of a graph.

Legend: N papers, B papers of a subgraph, F features.
"""

import functools
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from citeflow.config import ModelConfig
from citeflow.graph.csr import Csr

RANDOM_FEATURES = 64
"""Random features of each paper in a graph that has none."""

STATISTICS_SAMPLE = 65_536
"""Papers, or up to twice as many, that mean and deviation of the features are taken from."""

BLOCK = 1 << 17
"""Values, 512 KB, that are computed with at a time where they shall stay in a core's cache."""

SMALLEST_DEVIATION = 1e-30
"""Below it, one over the deviation comes near the largest float32."""

warnings.filterwarnings("ignore", message="Sparse (CSR tensor|invariant)")
# Maps of files are only read.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


def at_least_float32(x: Tensor) -> Tensor:
    """Convert what autocast has computed in less than float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def encoder_input(
    x_NF: np.ndarray | None, num_papers: int, config: ModelConfig
) -> np.ndarray | None:
    """Return the input of the encoder for all papers [N, F]; None stands for a constant.

    In a graph without features it is random: then papers can be told apart, and those with common
    neighbors are embedded alike (Sato, Yamada & Kashima, arXiv 2002.03155).
    """
    if config.features == "ones":
        return None
    return _random_features(num_papers) if x_NF is None else x_NF


@functools.lru_cache(maxsize=1)
def _random_features(num_papers: int) -> np.ndarray:
    shape = (num_papers, RANDOM_FEATURES)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def gather_features(x_NF: np.ndarray | None, paper_B: np.ndarray) -> Tensor:
    """Return the rows of some papers, float32 [B, F]; a constant 1 where `x_NF` is None."""
    if x_NF is None:
        return torch.ones(len(paper_B), 1)
    return torch.from_numpy(np.ascontiguousarray(x_NF[paper_B], dtype=np.float32))


def blocks_of_rows(num_rows: int, like: Tensor) -> Iterator[slice]:
    """Yield slices of some rows, as wide as those of an array, that fit into a core's cache.

    A GPU, which has no such cache, computes them all at once.
    """
    size = num_rows if like.is_cuda else BLOCK // max(1, like.size(-1))
    for first in range(0, num_rows, max(1, size)):
        yield slice(first, first + max(1, size))


def to_sparse_tensor(adj: Csr, num_columns: int) -> Tensor:
    """Return the matrix of ones as a sparse CSR tensor with int32 indices."""
    rowptr_B1 = torch.from_numpy(adj.rowptr_N1.astype(np.int32, copy=False))
    col_E = torch.from_numpy(adj.col_E.astype(np.int32, copy=False))
    size = (adj.num_rows, num_columns)
    return torch.sparse_csr_tensor(
        rowptr_B1, col_E, torch.ones(len(col_E)), size, check_invariants=False
    )


def mean_and_scale(x_NF: np.ndarray) -> tuple[Tensor, Tensor]:
    """Measure every feature on an even sample of the papers.

    Returns:
        Mean [F], and 1 / standard deviation [F], which is 1 for a feature that is constant.
    """
    sample_SF = np.asarray(x_NF[:: max(1, len(x_NF) // STATISTICS_SAMPLE)], dtype=np.float64)
    mean_F = sample_SF.mean(axis=0)
    deviation_F = sample_SF.std(axis=0)
    # Beside a small mean a small deviation is no noise of rounding, but a small unit of measure.
    is_small_F = (deviation_F > 1e-6 * np.abs(mean_F)) & (deviation_F > SMALLEST_DEVIATION)
    is_varied_F = (deviation_F > 1e-6) | is_small_F
    scale_F = np.divide(1, deviation_F, out=np.ones_like(deviation_F), where=is_varied_F)
    return torch.from_numpy(mean_F).float(), torch.from_numpy(scale_F).float()
