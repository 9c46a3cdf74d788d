"""Metrics of link prediction: MRR and Hits@k as OGB computes them, accuracy, AUC and ROC curve.

Scores are logits of any floating type, on any device, and are compared in the type that they come
in.

AUC and ROC are not scikit-learn's: it sums the area in floating point, where this counts pairs,
exact; and importing it takes longer than an evaluation on a small graph.

Legend: P positives, K candidates of each, Q negatives, T thresholds.
"""

import torch
from torch import Tensor

MAX_SCORES_PER_CHUNK = 1 << 24
"""Scores compared in one chunk, which bounds the memory that ranking takes beside the scores."""


def rank_positives(positive_P: Tensor, negative_PK: Tensor) -> Tensor:
    """Rank each positive among its own candidates, 1 at best; candidates that tie count half.

    The rule is OGB's since 2022 (ogb.linkproppred, metric mrr): the mean of the best and worst
    rank.

    Returns:
        float32 of shape [P], exact up to 2**23 candidates.

    Raises:
        ValueError: a score is NaN, or the shapes do not fit.
    """
    if negative_PK.ndim != 2 or positive_P.shape != negative_PK.shape[:1]:
        raise ValueError(
            "shapes [P] and [P, K] wanted, "
            f"got {list(positive_P.shape)} and {list(negative_PK.shape)}"
        )
    rows = max(1, MAX_SCORES_PER_CHUNK // max(1, negative_PK.shape[1]))
    chunks = zip(torch.split(positive_P, rows), torch.split(negative_PK, rows), strict=True)
    return torch.cat([_rank(positive, negative) for positive, negative in chunks])


def mrr_and_hits(rank_P: Tensor) -> dict[str, float]:
    """Mean reciprocal rank and Hits@1, 3 and 10, from the ranks of the positives.

    Equal, bit for bit, to the means of the lists that ogb.linkproppred.Evaluator("ogbl-citation2")
    gives.

    Raises:
        ValueError: there is none.
    """
    if not len(rank_P):
        raise ValueError("no positives to rank")
    metrics = {"mrr": (1.0 / rank_P).mean().item()}
    for k in (1, 3, 10):
        metrics[f"hits@{k}"] = (rank_P <= k).to(torch.float32).mean().item()
    return metrics


def ranking(rank_P: Tensor) -> dict[str, float]:
    """MRR, recall@20, recall@100 and the median, from the ranks of the positives.

    Each positive is a query of its own, with one relevant paper; so recall@k is the share of
    queries that find it among the first k, as Hits@k is. With distinct scores, the first three
    equal PyG's LinkPredMRR and LinkPredRecall.

    Raises:
        ValueError: there is none.
    """
    if not len(rank_P):
        raise ValueError("no positives to rank")
    recall = {f"recall@{k}": (rank_P <= k).to(torch.float32).mean().item() for k in (20, 100)}
    median = rank_P.to(torch.float64).quantile(0.5).item()
    return {"mrr": (1.0 / rank_P).mean().item(), **recall, "median_rank": median}


def count_better(
    positive_P: Tensor, negative_PK: Tensor, is_counted_PK: Tensor | None = None
) -> Tensor:
    """Count the candidates that come before each positive; those that tie count half.

    Args:
        positive_P: scores of the positives.
        negative_PK: scores of the candidates of each.
        is_counted_PK: False for scores that do not count; None counts all.

    Returns:
        float64 [P]; one more is the rank.

    Raises:
        ValueError: a score is NaN.
    """
    _refuse_nan(positive_P, negative_PK)
    is_better_PK = negative_PK > positive_P[:, None]
    is_not_worse_PK = negative_PK >= positive_P[:, None]
    if is_counted_PK is not None:
        is_better_PK &= is_counted_PK
        is_not_worse_PK &= is_counted_PK
    return 0.5 * (is_better_PK.sum(dim=1) + is_not_worse_PK.sum(dim=1)).to(torch.float64)


def confusion(positive_P: Tensor, negative_Q: Tensor) -> list[list[int]]:
    """Count predictions at probability 0.5, as [[TN, FP], [FN, TP]]; a logit of 0 counts as a no.

    Raises:
        ValueError: a score is NaN.
    """
    _refuse_nan(positive_P, negative_Q)
    tp = int((positive_P > 0).sum())
    fp = int((negative_Q > 0).sum())
    return [[len(negative_Q) - fp, fp], [len(positive_P) - tp, tp]]


def accuracy(positive_P: Tensor, negative_P: Tensor) -> float:
    """Share of positives and of as many negatives on the right side of probability 0.5.

    Raises:
        ValueError: a score is NaN, or there are not as many negatives as positives.
    """
    if positive_P.shape != negative_P.shape or not len(positive_P):
        raise ValueError(
            "one negative per positive wanted, "
            f"got {list(negative_P.shape)} for {list(positive_P.shape)}"
        )
    (tn, _), (_, tp) = confusion(positive_P, negative_P)
    return (tn + tp) / (2 * len(positive_P))


def auc(positive_P: Tensor, negative_Q: Tensor) -> float:
    """Area under the ROC curve, exact: how often a positive beats a negative, ties counting half.

    This is the Mann-Whitney U statistic over the number of pairs.

    Raises:
        ValueError: a score is NaN, or there is no positive or no negative.
    """
    _refuse_nan(positive_P, negative_Q)
    if not len(positive_P) or not len(negative_Q):
        raise ValueError("AUC takes at least one positive and one negative")
    sorted_Q = negative_Q.sort().values
    beaten = int(torch.searchsorted(sorted_Q, positive_P.contiguous()).sum())
    not_above = int(torch.searchsorted(sorted_Q, positive_P.contiguous(), right=True).sum())
    return (beaten + not_above) / (2 * len(positive_P) * len(negative_Q))


def roc_curve(
    positive_P: Tensor, negative_Q: Tensor, *, max_points: int = 200
) -> dict[str, list[float]]:
    """Points of the ROC curve from (0, 0) to (1, 1), spread evenly along it.

    Returns:
        "fpr", "tpr" and "threshold", lists of one length: a pair with a logit of `threshold` or
        more is predicted to be a citation. The first threshold lies just above the highest score.

    Raises:
        ValueError: a score is NaN, or there is no positive or no negative.
    """
    _refuse_nan(positive_P, negative_Q)
    if not len(positive_P) or not len(negative_Q):
        raise ValueError("a ROC curve takes at least one positive and one negative")
    score_T = torch.cat([positive_P, negative_Q]).to(torch.float32)
    threshold_T = _unique(score_T).flip(0)
    above = torch.nextafter(threshold_T[:1], torch.full_like(threshold_T[:1], torch.inf))
    threshold_T = torch.cat([above, threshold_T])
    tpr_T = _share_at_least(positive_P, threshold_T)
    fpr_T = _share_at_least(negative_Q, threshold_T)
    shown = _thin(tpr_T + fpr_T, max_points)
    return {
        "fpr": fpr_T[shown].tolist(),
        "tpr": tpr_T[shown].tolist(),
        "threshold": threshold_T[shown].tolist(),
    }


def _rank(positive_P: Tensor, negative_PK: Tensor) -> Tensor:
    return (count_better(positive_P, negative_PK) + 1).to(torch.float32)


def _refuse_nan(*scores: Tensor) -> None:
    for score in scores:
        if score.isnan().any():
            raise ValueError(f"{int(score.isnan().sum())} of {score.numel()} scores are NaN")


def _share_at_least(score: Tensor, threshold_T: Tensor) -> Tensor:
    """Share of scores at or above each threshold, float64."""
    num_below_T = torch.searchsorted(score.to(torch.float32).sort().values, threshold_T)
    return (len(score) - num_below_T).to(torch.float64) / len(score)


def _thin(length_T: Tensor, max_points: int) -> Tensor:
    """Indices of at most `max_points` ascending lengths, evenly spread, first and last included."""
    if len(length_T) <= max_points:
        return torch.arange(len(length_T), device=length_T.device)
    wanted = torch.linspace(
        0, float(length_T[-1]), max_points, dtype=length_T.dtype, device=length_T.device
    )
    return _unique(torch.searchsorted(length_T, wanted).clamp(max=len(length_T) - 1))


def _unique(values: Tensor) -> Tensor:
    # torch.unique has no type annotations.
    unique: Tensor = torch.unique(values)
    return unique
