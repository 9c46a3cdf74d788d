"""From arrays of a graph to the tensors that a model computes with.

Legend: N papers, B papers of a block, F features.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from citeflow.learning.sampling import Block

CHUNK = 65_536
"""Papers per piece where all of them are read."""

warnings.filterwarnings("ignore", message="Sparse (CSR tensor|invariant)")
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # maps of files, only read


def features_of(x_NF: np.ndarray | None, papers: Any) -> Tensor:
    """Features of some papers; a constant 1 for each where there are none."""
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
