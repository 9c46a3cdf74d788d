"""Losses over citations and the negatives that a batch shares.

Legend: P citations, S sources, K shared negatives.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

NEGLIGIBLE = -50.0
"""A score this far below the best adds nothing to a sum; exp of what underflows is slow."""


class _MaskedLogSumExp(torch.autograd.Function):
    """ln of the sum of e^score over what is not masked; the exponentials are computed once, for both ways."""

    @staticmethod
    def forward(ctx: Any, score_SK: Tensor, masked_SK: Tensor) -> Tensor:
        share_SK = score_SK.masked_fill(masked_SK, -torch.inf)
        highest_S1 = share_SK.amax(dim=1, keepdim=True).clamp_(min=torch.finfo(share_SK.dtype).min)
        share_SK.sub_(highest_S1).clamp_(min=NEGLIGIBLE).exp_()
        total_S1 = share_SK.sum(dim=1, keepdim=True)
        ctx.save_for_backward(share_SK, total_S1)
        return (total_S1.log() + highest_S1).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradient_S: Tensor) -> tuple[Tensor, None]:
        share_SK, total_S1 = ctx.saved_tensors
        return share_SK * (gradient_S[0][:, None] / total_S1), None


def info_nce(positive_P: Tensor, negative_SK: Tensor, masked_SK: Tensor, row_P: Tensor) -> Tensor:
    """Mean of -ln(e^p / (e^p + sum of e^n)): each citation against the negatives of its source (van den Oord 2018).

    Args:
        positive_P: logits of the citations.
        negative_SK: logits of the negatives.
        masked_SK: True where a negative does not count.
        row_P: row of `negative_SK` that each citation belongs to.
    """
    all_S: Tensor = _MaskedLogSumExp.apply(negative_SK, masked_SK)  # type: ignore[no-untyped-call]
    return _mean(torch.logaddexp(all_S.index_select(0, row_P), positive_P) - positive_P)


def bce(positive_P: Tensor, negative_SK: Tensor, masked_SK: Tensor, row_P: Tensor) -> Tensor:
    """Binary cross-entropy, the citations and the negatives weighing the same; arguments as for `info_nce`."""
    counted_SK = (~masked_SK).to(negative_SK.dtype)
    per_source_S = (softplus(negative_SK) * counted_SK).sum(dim=1) / counted_SK.sum(dim=1).clamp(
        min=1
    )
    return _mean(softplus(-positive_P)) + _mean(per_source_S.index_select(0, row_P))


def _mean(loss_P: Tensor) -> Tensor:
    """Mean of the citations' losses; 0 where a part of the graph has no citation."""
    return loss_P.sum() / max(1, len(loss_P))


LOSSES = {"info_nce": info_nce, "bce": bce}
