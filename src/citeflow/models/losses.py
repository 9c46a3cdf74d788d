"""Losses over citations and the negatives that a batch shares.

Legend: P citations, S sources, K shared negatives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from citeflow.models.tensors import blocks_of_rows

NEGLIGIBLE = -50.0
"""Scores this far below the best add nothing to a float32 sum, and exp is slow where it
underflows."""


class _MaskedLogSumExp(torch.autograd.Function):
    """Log of the sum of e^score over what is not masked.

    torch.logsumexp keeps the scores for its backward pass and computes the exponentials again; here
    they are computed once, for both, and all that is done to some rows is done while they are in
    the cache.
    """

    @staticmethod
    def forward(ctx: Any, score_SK: Tensor, mask_SK: Tensor) -> Tensor:
        lowest = torch.finfo(score_SK.dtype).min
        exp_SK = torch.empty_like(score_SK)
        max_S1 = score_SK.new_empty(len(score_SK), 1)
        sum_S1 = torch.empty_like(max_S1)
        for rows in blocks_of_rows(len(score_SK), score_SK):
            exp, most = exp_SK[rows], max_S1[rows]
            # masked_fill takes many times as long: it branches at each value of the mask.
            torch.add(score_SK[rows], mask_SK[rows].to(exp.dtype), alpha=lowest, out=exp)
            torch.amax(exp, dim=1, keepdim=True, out=most)
            most.clamp_(min=lowest)
            exp.sub_(most).clamp_(min=NEGLIGIBLE).exp_()
            torch.sum(exp, dim=1, keepdim=True, out=sum_S1[rows])
        ctx.save_for_backward(exp_SK, sum_S1)
        return (sum_S1.log() + max_S1).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradient_S: Tensor) -> tuple[Tensor, None]:
        exp_SK, sum_S1 = ctx.saved_tensors
        return exp_SK * (gradient_S[0][:, None] / sum_S1), None


def info_nce(
    positive_P: Tensor,
    negative_SK: Tensor,
    false_negative_mask_SK: Tensor,
    source_index_P: Tensor,
) -> Tensor:
    """InfoNCE (van den Oord, Li & Vinyals, arXiv 1807.03748, equation 4), a sampled softmax.

    Mean of -ln(e^p / (e^p + sum of e^n)) over the citations: each against the negatives of its
    source, not against its source's other citations.

    Args:
        positive_P: logits of the citations.
        negative_SK: logits of the negatives.
        false_negative_mask_SK: True where a negative does not count.
        source_index_P: row of `negative_SK` that each citation belongs to.
    """
    negatives_S: Tensor = _MaskedLogSumExp.apply(  # type: ignore[no-untyped-call]
        negative_SK, false_negative_mask_SK
    )
    total_P = torch.logaddexp(negatives_S.index_select(0, source_index_P), positive_P)
    return _mean(total_P - positive_P)


def bce(
    positive_P: Tensor,
    negative_SK: Tensor,
    false_negative_mask_SK: Tensor,
    source_index_P: Tensor,
) -> Tensor:
    """Binary cross-entropy, citations and negatives weighing the same; see `info_nce`."""
    counts_SK = (~false_negative_mask_SK).to(negative_SK.dtype)
    num_negatives_S = counts_SK.sum(dim=1).clamp(min=1)
    per_source_S = (softplus(negative_SK) * counts_SK).sum(dim=1) / num_negatives_S
    return _mean(softplus(-positive_P)) + _mean(per_source_S.index_select(0, source_index_P))


def _mean(loss_P: Tensor) -> Tensor:
    """Mean over the citations; 0 rather than NaN for a partition that has none."""
    return loss_P.sum() / max(1, len(loss_P))


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """A loss, and what models trained by it are like."""

    function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

    is_softmax: bool
    """Only differences of logits matter: dot products take a learned scale, and probabilities a
    calibration."""


LOSSES = {
    "info_nce": Loss(function=info_nce, is_softmax=True),
    "bce": Loss(function=bce, is_softmax=False),
}
"""Losses by the name of `train.loss`."""
