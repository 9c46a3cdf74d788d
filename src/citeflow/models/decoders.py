"""Decoders: score pairs of papers from their embeddings.

Each takes the hidden channels, and whether the loss is a softmax over logits. `predictors.py` names
them.

Legend: H hidden channels, S sources, K candidates, P pairs, D structural features.
"""

from typing import Any

import torch
from torch import Tensor, nn

from citeflow.models.sage import mlp
from citeflow.models.tensors import at_least_float32, blocks_of_rows

HEAD_CHANNELS = 32
"""Hidden channels of the head for structural features."""


class _PairDots(torch.autograd.Function):
    """Dot products of some pairs of rows, [P].

    The rows of all pairs would be several times as much as both arrays that they are from: they are
    looked up some at a time, and again in the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, a_SH: Tensor, row_P: Tensor, b_TH: Tensor, column_P: Tensor) -> Tensor:
        ctx.save_for_backward(a_SH, row_P, b_TH, column_P)
        dot_P = a_SH.new_empty(len(row_P))
        for part in blocks_of_rows(len(row_P), a_SH):
            product = a_SH.index_select(0, row_P[part])
            product *= b_TH.index_select(0, column_P[part])
            torch.sum(product, dim=1, out=dot_P[part])
        return dot_P

    @staticmethod
    def backward(ctx: Any, *gradient_P: Tensor) -> tuple[Tensor, None, Tensor, None]:
        a_SH, row_P, b_TH, column_P = ctx.saved_tensors
        gradient_P1 = gradient_P[0][:, None]
        gradient_SH, gradient_TH = torch.zeros_like(a_SH), torch.zeros_like(b_TH)
        for part in blocks_of_rows(len(row_P), a_SH):
            row, column, gradient = row_P[part], column_P[part], gradient_P1[part]
            gradient_SH.index_add_(0, row, b_TH.index_select(0, column).mul_(gradient))
            gradient_TH.index_add_(0, column, a_SH.index_select(0, row).mul_(gradient))
        return gradient_SH, None, gradient_TH, None


class Decoder(nn.Module):
    """Scores candidates of sources (`forward`), or single pairs."""

    def pairs(
        self, source_SH: Tensor, source_index_P: Tensor, h_BH: Tensor, target_P: Tensor
    ) -> Tensor:
        """Score some pairs, [P]; the arguments are those of `LinkPredictor.score_pairs`."""
        source_PH = source_SH.index_select(0, source_index_P)
        score_P1: Tensor = self(source_PH, h_BH.index_select(0, target_P)[:, None, :])
        return score_P1.squeeze(1)


class InnerProductDecoder(Decoder):
    """The dot product of two embeddings, times a learned scale where the loss is a softmax.

    The scale is the inverse temperature of the softmax. Binary cross-entropy has none: there the
    norms of the embeddings do its work.
    """

    def __init__(self, hidden_channels: int, *, scaled: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(())) if scaled else None

    def forward(self, source_SH: Tensor, target_SKH: Tensor) -> Tensor:
        """Score [S, K] for candidates [S, K, H] of each source, or [K, H] shared by all."""
        if target_SKH.dim() == 2:
            return (source_SH * self._scale) @ target_SKH.T
        return (target_SKH @ source_SH[:, :, None]).squeeze(-1) * self._scale

    def pairs(
        self, source_SH: Tensor, source_index_P: Tensor, h_BH: Tensor, target_P: Tensor
    ) -> Tensor:
        """Score some pairs, [P]."""
        dot_P: Tensor = _PairDots.apply(  # type: ignore[no-untyped-call]
            at_least_float32(source_SH), source_index_P, at_least_float32(h_BH), target_P
        )
        return dot_P * self._scale

    @property
    def _scale(self) -> Tensor | float:
        return 1.0 if self.log_scale is None else self.log_scale.exp()


class MLPDecoder(Decoder):
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
