"""From arrays of a graph to the tensors that a model computes with.

Legend: N papers, B papers of a block, F features.
"""

import functools
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from citeflow.config import ModelConfig
from citeflow.learning.sampling import Block

RANDOM_WIDTH = 64
"""Random features of a paper in a graph without features."""

CHUNK = 65_536
"""Papers per piece where all of them are read."""

warnings.filterwarnings("ignore", message="Sparse (CSR tensor|invariant)")
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # maps of files, only read


def encoder_input(x_NF: np.ndarray | None, num_papers: int, config: ModelConfig) -> np.ndarray | None:
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


def to_sparse(block: Block) -> Tensor:
    """A block as a sparse CSR matrix of ones."""
    return sparse(block.ptr, block.index, block.num_columns)


def sparse(ptr: np.ndarray, index: np.ndarray, num_columns: int) -> Tensor:
    """A sparse CSR matrix of ones with int32 indices."""
    ptr_R1, index_E = torch.from_numpy(ptr.astype(np.int32, copy=False)), torch.from_numpy(index)
    size = (len(ptr) - 1, num_columns)
    return torch.sparse_csr_tensor(ptr_R1, index_E, torch.ones(len(index)), size, check_invariants=False)


def mean_and_scale(x_NF: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean of every feature and 1 / deviation (1 where a feature is constant), read in pieces, summed in float64."""
    total_F, square_F = np.zeros(x_NF.shape[1]), np.zeros(x_NF.shape[1])
    for first in range(0, len(x_NF), CHUNK):
        piece = np.asarray(x_NF[first : first + CHUNK], dtype=np.float64)
        total_F += piece.sum(axis=0)
        square_F += np.square(piece).sum(axis=0)
    mean_F = total_F / len(x_NF)
    deviation_F = np.sqrt(np.maximum(square_F / len(x_NF) - np.square(mean_F), 0))
    scale_F = np.where(deviation_F > 1e-6, 1 / np.maximum(deviation_F, 1e-6), 1)
    return torch.from_numpy(mean_F).float(), torch.from_numpy(scale_F).float()
