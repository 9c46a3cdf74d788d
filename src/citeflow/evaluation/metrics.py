"""How good the scores of held-out citations are: OGB's ranking metrics, accuracy, ROC.

Scores are logits of any floating type, on any device, and are compared in the type that they come in.

Legend: P positives, K candidates of each, Q negatives, T thresholds.
"""

import torch
from torch import Tensor

COMPARED_AT_ONCE = 1 << 24
"""Scores compared in one piece, which bounds the memory that ranking takes beside the scores."""


def ranks(pos_P: Tensor, neg_PK: Tensor) -> Tensor:
    """Rank each positive among its own candidates, 1 at best; candidates that tie count half.

    The rule is OGB's since 2022 (ogb.linkproppred, metric mrr): the mean of the best and the worst place.

    Returns:
        float32 of shape [P], exact up to 2**23 candidates.

    Raises:
        ValueError: a score is NaN, or the shapes do not fit.
    """
    if neg_PK.ndim != 2 or pos_P.shape != neg_PK.shape[:1]:
        raise ValueError(
            f"shapes [P] and [P, K] wanted, got {list(pos_P.shape)} and {list(neg_PK.shape)}"
        )
    _refuse_nan(pos_P, neg_PK)
    rows = max(1, COMPARED_AT_ONCE // max(1, neg_PK.shape[1]))
    pieces = [
        _ranks(pos, neg)
        for pos, neg in zip(torch.split(pos_P, rows), torch.split(neg_PK, rows), strict=True)
    ]
    return torch.cat(pieces)


def mrr_and_hits(pos_P: Tensor, neg_PK: Tensor) -> dict[str, float]:
    """Mean reciprocal rank and the shares of positives among the first 1, 3 and 10.

    Equal, bit for bit, to the means of the lists that ogb.linkproppred.Evaluator("ogbl-citation2") gives.

    Raises:
        ValueError: a score is NaN, the shapes do not fit, or there is no positive.
    """
    return summarize(ranks(pos_P, neg_PK))


def summarize(rank_P: Tensor) -> dict[str, float]:
    """The metrics of `mrr_and_hits` from ranks that were computed before, such as piece by piece."""
    if not len(rank_P):
        raise ValueError("no positives to rank")
    metrics = {"mrr": (1.0 / rank_P).mean().item()}
    for k in (1, 3, 10):
        metrics[f"hits@{k}"] = (rank_P <= k).to(torch.float32).mean().item()
    return metrics


def confusion(pos_P: Tensor, neg_Q: Tensor) -> list[list[int]]:
    """Count right and wrong calls at probability 0.5, as [[TN, FP], [FN, TP]]; a logit of 0 counts as a no."""
    _refuse_nan(pos_P, neg_Q)
    tp, fp = int((pos_P > 0).sum()), int((neg_Q > 0).sum())
    return [[len(neg_Q) - fp, fp], [len(pos_P) - tp, tp]]


def accuracy(pos_P: Tensor, neg_P: Tensor) -> float:
    """Share of positives and of as many negatives on the right side of probability 0.5.

    Raises:
        ValueError: a score is NaN, or there are not as many negatives as positives.
    """
    if pos_P.shape != neg_P.shape or not len(pos_P):
        raise ValueError(
            f"one negative per positive wanted, got {list(neg_P.shape)} for {list(pos_P.shape)}"
        )
    (tn, _), (_, tp) = confusion(pos_P, neg_P)
    return (tn + tp) / (2 * len(pos_P))


def auc(pos_P: Tensor, neg_Q: Tensor) -> float:
    """Area under the ROC curve: how often a positive beats a negative, a tie counting half (Mann-Whitney U), exact."""
    _refuse_nan(pos_P, neg_Q)
    if not len(pos_P) or not len(neg_Q):
        raise ValueError("AUC takes at least one positive and one negative")
    sorted_Q = neg_Q.sort().values
    beaten = int(torch.searchsorted(sorted_Q, pos_P.contiguous()).sum())
    beaten_or_tied = int(torch.searchsorted(sorted_Q, pos_P.contiguous(), right=True).sum())
    return (beaten + beaten_or_tied) / (2 * len(pos_P) * len(neg_Q))


def roc_curve(pos_P: Tensor, neg_Q: Tensor, *, max_points: int = 200) -> dict[str, list[float]]:
    """Points of the ROC curve from (0, 0) to (1, 1), spread evenly along it.

    Returns:
        "fpr", "tpr" and "threshold", lists of one length: a pair with a logit of `threshold` or more is called a
        citation. The first threshold lies just above the highest score.
    """
    _refuse_nan(pos_P, neg_Q)
    if not len(pos_P) or not len(neg_Q):
        raise ValueError("a ROC curve takes at least one positive and one negative")
    threshold_T = _distinct(torch.cat([pos_P, neg_Q]).to(torch.float32)).flip(0)
    above = torch.nextafter(threshold_T[:1], torch.full_like(threshold_T[:1], torch.inf))
    threshold_T = torch.cat([above, threshold_T])
    tpr_T, fpr_T = _share_from(pos_P, threshold_T), _share_from(neg_Q, threshold_T)
    keep = _spread(tpr_T + fpr_T, max_points)
    return {
        "fpr": fpr_T[keep].tolist(),
        "tpr": tpr_T[keep].tolist(),
        "threshold": threshold_T[keep].tolist(),
    }


def _ranks(pos_P: Tensor, neg_PK: Tensor) -> Tensor:
    num_better = (neg_PK > pos_P[:, None]).sum(dim=1)
    num_not_worse = (neg_PK >= pos_P[:, None]).sum(dim=1)
    return (0.5 * (num_better + num_not_worse) + 1).to(torch.float32)


def _refuse_nan(*scores: Tensor) -> None:
    for score in scores:
        if score.isnan().any():
            raise ValueError(f"{int(score.isnan().sum())} of {score.numel()} scores are NaN")


def _share_from(score: Tensor, threshold_T: Tensor) -> Tensor:
    """Share of scores at or above each threshold, float64."""
    num_below_T = torch.searchsorted(score.to(torch.float32).sort().values, threshold_T)
    return (len(score) - num_below_T).to(torch.float64) / len(score)


def _spread(length_T: Tensor, max_points: int) -> Tensor:
    """Places of at most `max_points` ascending lengths, evenly spread, the first and the last among them."""
    if len(length_T) <= max_points:
        return torch.arange(len(length_T), device=length_T.device)
    wanted = torch.linspace(
        0, float(length_T[-1]), max_points, dtype=length_T.dtype, device=length_T.device
    )
    return _distinct(torch.searchsorted(length_T, wanted).clamp(max=len(length_T) - 1))


def _distinct(values: Tensor) -> Tensor:
    """The different values, ascending."""
    distinct: Tensor = torch.unique(values)
    return distinct
