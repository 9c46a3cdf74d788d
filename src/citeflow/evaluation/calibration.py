"""From logits that rank to logits that mean a probability.

A contrastive loss does not see what all candidates of a source have in common, so its logits rank well and say nothing
of probability. Platt scaling (1999), fitted on the validation citations and as many of their negatives, mends that and
leaves every ranking as it is.

Legend: P positives, K candidates.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation.scoring import part_of, score_held_out
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.structural import StructuralFeatures

MOST = 10_000
"""Citations that two numbers are fitted to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """probability = sigmoid(slope * logit + offset), for as many negatives as citations."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, logit: Tensor) -> Tensor:
        """Calibrated logits."""
        return self.slope * logit + self.offset


def calibrate(
    model: LinkPredictor,
    embedding_NH: Tensor,
    structural: StructuralFeatures,
    valid: HeldOut,
    *,
    loss: str,
) -> Calibration:
    """Fit the calibration of a model; one trained by binary cross-entropy keeps its own logits."""
    if loss == "bce":
        return Calibration()
    part = part_of(valid, most=MOST)
    part = dataclasses.replace(part, negative_PK=part.negative_PK[:, :1])
    score = torch.from_numpy(score_held_out(model, embedding_NH, structural, part))
    return fit_platt(score[:, 0], score[:, 1])


def fit_platt(pos_P: Tensor, neg_P: Tensor) -> Calibration:
    """Fit slope and offset by maximum likelihood; the slope stays positive."""
    logit = torch.cat([pos_P, neg_P]).double()
    centre, spread = logit.mean(), logit.std(correction=0).clamp(min=1e-6)
    z, label = (
        (logit - centre) / spread,
        torch.cat([torch.ones_like(pos_P), torch.zeros_like(neg_P)]).double(),
    )
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        fitted = weights[0].exp() * z + weights[1]
        loss = binary_cross_entropy_with_logits(fitted, label) + 1e-4 * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slope = (weights[0].exp() / spread).item()
    return Calibration(slope=slope, offset=(weights[1] - slope * centre).item())
