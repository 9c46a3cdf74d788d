"""Losses over citations and the negatives that a batch shares.

Legend: P citations, S sources, K shared negatives.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

IMPOSSIBLE = -1e9


def contrastive(positive_P: Tensor, negative_SK: Tensor, masked_SK: Tensor, row_P: Tensor) -> Tensor:
    """Mean of -ln(e^p / (e^p + sum of e^n)): each citation against the negatives of its source (van den Oord 2018).

    Args:
        positive_P: logits of the citations.
        negative_SK: logits of the negatives.
        masked_SK: True where a negative does not count.
        row_P: row of `negative_SK` that each citation belongs to.
    """
    all_S = negative_SK.masked_fill(masked_SK, IMPOSSIBLE).logsumexp(dim=1)
    return (torch.logaddexp(all_S.index_select(0, row_P), positive_P) - positive_P).mean()


def bce(positive_P: Tensor, negative_SK: Tensor, masked_SK: Tensor, row_P: Tensor) -> Tensor:
    """Binary cross-entropy, the citations and the negatives weighing the same; arguments as for `contrastive`."""
    counted_SK = (~masked_SK).to(negative_SK.dtype)
    per_source_S = (softplus(negative_SK) * counted_SK).sum(dim=1) / counted_SK.sum(dim=1).clamp(min=1)
    return softplus(-positive_P).mean() + per_source_S.index_select(0, row_P).mean()


LOSSES = {"contrastive": contrastive, "bce": bce}
