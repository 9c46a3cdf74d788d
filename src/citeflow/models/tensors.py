"""From arrays of a graph to the tensors that a model computes with.

Legend: N papers, B papers of a subgraph, F features.
"""

import functools
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from citeflow.config import ModelConfig
from citeflow.graph.csr import Csr

RANDOM_WIDTH = 64
"""Random features of a paper in a graph without features."""

MEASURED = 65_536
"""Papers that mean and deviation of the features are measured on, or up to twice as many."""

warnings.filterwarnings("ignore", message="Sparse (CSR tensor|invariant)")
warnings.filterwarnings(
    "ignore", message="The given NumPy array is not writable"
)  # maps of files, only read


def encoder_input(
    x_NF: np.ndarray | None, num_papers: int, config: ModelConfig
) -> np.ndarray | None:
    """What an encoder reads of every paper: its features, random ones where there are none; None for a constant.

    By random features a paper can be told apart, and papers with common neighbours are alike (Sato, Yamada & Kashima
    2021).
    """
    if config.features == "ones":
        return None
    return _random_features(num_papers) if x_NF is None else x_NF


@functools.lru_cache(maxsize=1)
def _random_features(num_papers: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num_papers, RANDOM_WIDTH), dtype=np.float32)


def features_of(x_NF: np.ndarray | None, papers: Any) -> Tensor:
    """Rows of the encoder's input for some papers; a constant 1 for each where it is None."""
    if x_NF is None:
        return torch.ones(len(papers), 1)
    return torch.from_numpy(np.ascontiguousarray(x_NF[papers]))


def sparse(csr: Csr, num_columns: int) -> Tensor:
    """A sparse CSR matrix of ones with int32 indices."""
    ptr_B1, index_E = (
        torch.from_numpy(array.astype(np.int32, copy=False)) for array in (csr.ptr_N1, csr.index_E)
    )
    size = (csr.num_rows, num_columns)
    return torch.sparse_csr_tensor(
        ptr_B1, index_E, torch.ones(len(index_E)), size, check_invariants=False
    )


def mean_and_scale(x_NF: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean of every feature and 1 / deviation (1 where a feature is constant), of an even sample of the papers."""
    sample_SF = np.asarray(x_NF[:: max(1, len(x_NF) // MEASURED)], dtype=np.float64)
    mean_F, deviation_F = sample_SF.mean(axis=0), sample_SF.std(axis=0)
    scale_F = np.where(deviation_F > 1e-6, 1 / np.maximum(deviation_F, 1e-6), 1)
    return torch.from_numpy(mean_F).float(), torch.from_numpy(scale_F).float()
