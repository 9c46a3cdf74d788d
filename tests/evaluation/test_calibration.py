import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from whole_graphs import graph_of, model_of

from citeflow.evaluation import calibration
from citeflow.evaluation.calibration import Calibration, calibrate, fit_platt, fitted_citations
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import PaperRows, build_structural_features, score_held_out


def labelled(slope, offset, *, seed=0, num=20_000, mean=0.0, deviation=1.0):
    """Logits of citations and others, where the probability is sigmoid(slope * logit + offset)."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(mean, deviation, num)
    is_citation = rng.random(num) < 1 / (1 + np.exp(-(slope * logit + offset)))
    positive_P = torch.from_numpy(logit[is_citation]).float()
    return positive_P, torch.from_numpy(logit[~is_citation]).float()


@pytest.mark.parametrize(
    ("slope", "offset", "mean", "deviation"),
    [(1.0, 0.0, 0.0, 2.0), (0.2, -1.0, 4.0, 8.0), (3.0, 60.0, -20.0, 0.5), (0.01, 0.3, 0.0, 300.0)],
)
def test_fit_platt_finds_known_probabilities(slope, offset, mean, deviation):
    found = fit_platt(*labelled(slope, offset, mean=mean, deviation=deviation))
    assert found.slope == pytest.approx(slope, rel=0.06)
    assert found.offset + found.slope * mean == pytest.approx(offset + slope * mean, abs=0.08)


@pytest.mark.parametrize("seed", range(3))
def test_fit_platt_equals_logistic_regression(seed):
    positive_P, negative_P = labelled(0.7, -0.4, seed=seed, num=500, mean=1, deviation=2)
    logit = torch.cat([positive_P, negative_P]).double().numpy()
    label = np.repeat([1, 0], [len(positive_P), len(negative_P)])
    expected = LogisticRegression(C=np.inf, tol=1e-8).fit(logit[:, None], label)
    found = fit_platt(positive_P, negative_P)
    assert found.slope == pytest.approx(expected.coef_.item(), rel=0.01)
    assert found.offset == pytest.approx(expected.intercept_.item(), abs=0.01)


def test_calibration_keeps_rankings():
    logit = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calibrated = fit_platt(*labelled(0.3, -2.0))(logit)
    assert torch.equal(logit.argsort(), calibrated.argsort())
    assert Calibration(slope=2.0, offset=-1.0)(torch.tensor([0.0, 3.0])).tolist() == [-1.0, 5.0]
    assert 0 < fit_platt(*labelled(-1.5, 0.0)).slope < 0.1


@pytest.mark.parametrize(
    ("positive", "negative"),
    [([5.0, 6.0], [-5.0, -4.0]), ([1.0, 1.0], [1.0, 1.0]), ([0.5], [0.25]), ([1e6], [-1e6])],
)
def test_fit_platt_is_finite_on_separable_scores(positive, negative):
    found = fit_platt(torch.tensor(positive), torch.tensor(negative))
    assert np.isfinite([found.slope, found.offset]).all()
    assert found.slope > 0
    probability = found(torch.tensor([*positive, *negative])).sigmoid()
    assert (probability[0] > 0.5) == (probability[-1] < 0.5) == (positive != negative)


def test_calibrate_fits_citations_to_their_first_negatives(monkeypatch):
    graph = graph_of(50)
    model = model_of(graph)
    rows = PaperRows(embed_all(model, graph), build_structural_features(graph, model.config))
    score_PK = torch.from_numpy(score_held_out(model, rows, graph.valid))
    found = calibrate(model, rows, fitted_citations(graph.valid), loss="info_nce")
    expected = fit_platt(score_PK[:, 0], score_PK[:, 1])
    assert (found.slope, found.offset) == pytest.approx((expected.slope, expected.offset), rel=1e-4)
    monkeypatch.setattr(calibration, "MAX_CITATIONS", 2)
    ends_PK = score_PK[[0, -1]]
    few = calibrate(model, rows, fitted_citations(graph.valid), loss="info_nce")
    expected = fit_platt(ends_PK[:, 0], ends_PK[:, 1])
    assert (few.slope, few.offset) == pytest.approx((expected.slope, expected.offset), rel=1e-3)
    citations = fitted_citations(graph.valid)
    assert citations.negative_PK.shape == (2, 1)
    assert citations.negative_PK.base is None  # it is kept, and those left out are not
    assert calibrate(model, rows, graph.valid, loss="bce") == Calibration(slope=1.0, offset=0.0)
