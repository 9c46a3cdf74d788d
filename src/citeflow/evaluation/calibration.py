"""Calibration: turn logits that rank into logits that mean a probability.

InfoNCE does not see what all candidates of a source have in common, so its logits rank well and say
nothing of probability. Platt scaling, fitted on the validation citations and as many of their
negatives, mends that and leaves every ranking as it is (Platt 1999, Probabilistic Outputs for
Support Vector Machines).

Legend: P positives.
"""

import dataclasses

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation.scoring import PaperRows, sample_held_out, score_held_out
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.losses import LOSSES
from citeflow.utils.records import Record

MAX_CITATIONS = 10_000
"""Citations that the two numbers are fitted to, at most."""


class Calibration(Record):
    """probability = sigmoid(slope * logit + offset), for as many negatives as citations."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, logit: Tensor) -> Tensor:
        """Return calibrated logits."""
        return self.slope * logit + self.offset


def fitted_citations(valid: HeldOut) -> HeldOut:
    """Return the citations that a calibration is fitted to, each with one negative."""
    sample = sample_held_out(valid, most=MAX_CITATIONS)
    return dataclasses.replace(sample, negative_PK=sample.negative_PK[:, :1].copy())


def calibrate(
    model: LinkPredictor, rows: PaperRows, citations: HeldOut, *, loss: str
) -> Calibration:
    """Fit the calibration of a model; one trained by binary cross-entropy keeps its own logits.

    Args:
        model: the weights.
        rows: of the papers of `citations` at least.
        citations: those of `fitted_citations`.
        loss: that the model was trained by.
    """
    if not LOSSES[loss].is_softmax:
        return Calibration()
    score_P2 = torch.from_numpy(score_held_out(model, rows, citations))
    return fit_platt(score_P2[:, 0], score_P2[:, 1])


def fit(positive_P: Tensor, negative_P: Tensor, *, loss: str) -> Calibration:
    """Fit the calibration to logits; those of binary cross-entropy are calibrated as they are."""
    return fit_platt(positive_P, negative_P) if LOSSES[loss].is_softmax else Calibration()


def fit_platt(positive_P: Tensor, negative_P: Tensor) -> Calibration:
    """Fit slope and offset by maximum likelihood; the slope stays positive.

    This is not LogisticRegression of scikit-learn: the slope is e^w, since a negative one would
    turn the ranking round; and both are fitted to standardized logits, with a penalty so small that
    it matters only where the classes can be told apart without an error and the slope would be
    infinite.
    """
    logit = torch.cat([positive_P, negative_P]).double()
    label = torch.cat([torch.ones_like(positive_P), torch.zeros_like(negative_P)]).double()
    mean = logit.mean()
    deviation = logit.std(correction=0).clamp(min=1e-6)
    z = (logit - mean) / deviation
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        fitted = weights[0].exp() * z + weights[1]
        loss = binary_cross_entropy_with_logits(fitted, label) + 1e-4 * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slope = (weights[0].exp() / deviation).item()
    return Calibration(slope=slope, offset=(weights[1] - slope * mean).item())
