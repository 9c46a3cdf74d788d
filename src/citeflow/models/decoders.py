"""Decoders: score pairs of papers from their embeddings.

Each takes the hidden channels, and whether the loss is a softmax over logits. `predictors.py` names
them.

Legend: H hidden channels, S sources, K candidates, D structural features.
"""

import torch
from torch import Tensor, nn

from citeflow.models.sage import mlp

HEAD_CHANNELS = 32
"""Hidden channels of the head for structural features."""


class InnerProductDecoder(nn.Module):
    """The dot product of two embeddings, times a learned scale where the loss is a softmax.

    The scale is the inverse temperature of the softmax. Binary cross-entropy has none: there the
    norms of the embeddings do its work.
    """

    def __init__(self, hidden_channels: int, *, scaled: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(())) if scaled else None

    def forward(self, source_SH: Tensor, target_SKH: Tensor) -> Tensor:
        """Score [S, K] for candidates [S, K, H] of each source, or [K, H] shared by all."""
        scale = 1.0 if self.log_scale is None else self.log_scale.exp()
        if target_SKH.dim() == 2:
            return (source_SH * scale) @ target_SKH.T
        if target_SKH.size(1) == 1:  # bmm takes three times as long for single pairs
            return (source_SH[:, None, :] * target_SKH).sum(dim=-1) * scale
        return (target_SKH @ source_SH[:, :, None]).squeeze(-1) * scale


class MLPDecoder(nn.Module):
    """An MLP on the Hadamard product of two embeddings, as in the examples of OGB."""

    def __init__(self, hidden_channels: int, *, scaled: bool) -> None:
        super().__init__()
        self.perceptron = mlp(hidden_channels, hidden_channels, 1)

    def forward(self, source_SH: Tensor, target_SKH: Tensor) -> Tensor:
        """Score [S, K] for candidates [S, K, H] of each source, or [K, H] shared by all."""
        score_SK: Tensor = self.perceptron(source_SH[:, None, :] * target_SKH).squeeze(-1)
        return score_SK


class StructuralHead(nn.Module):
    """Joins the score of the embeddings with structural features: an MLP plus a linear layer."""

    def __init__(self, num_structural: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_structural + 1, 1)
        self.perceptron = nn.Sequential(
            nn.Linear(num_structural + 1, HEAD_CHANNELS),
            nn.ReLU(),
            nn.Linear(HEAD_CHANNELS, HEAD_CHANNELS),
            nn.ReLU(),
            nn.Linear(HEAD_CHANNELS, 1),
        )

    def forward(self, score: Tensor, structural_D: Tensor) -> Tensor:
        """Score pairs from the scores of their embeddings, of any shape, and features [..., D]."""
        z = torch.cat([score[..., None], structural_D], dim=-1)
        joint_score: Tensor = (self.perceptron(z) + self.linear(z)).squeeze(-1)
        return joint_score
