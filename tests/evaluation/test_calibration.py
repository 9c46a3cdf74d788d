from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from citeflow.config import ModelConfig
from citeflow.data.citation_graph import HeldOut
from citeflow.evaluation import calibration
from citeflow.evaluation.calibration import Calibration, calibrate, fit_platt
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import build_structural_features, score_held_out
from citeflow.graph.csr import build_csr, to_undirected, transpose
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor


def labelled(slope, offset, *, seed=0, num=20_000, centre=0.0, spread=1.0):
    """Logits of citations and of others, drawn so that the probability is sigmoid(slope * logit + offset)."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(centre, spread, num)
    is_citation = rng.random(num) < 1 / (1 + np.exp(-(slope * logit + offset)))
    return torch.from_numpy(logit[is_citation]).float(), torch.from_numpy(
        logit[~is_citation]
    ).float()


@pytest.mark.parametrize(
    ("slope", "offset", "centre", "spread"),
    [(1.0, 0.0, 0.0, 2.0), (0.2, -1.0, 4.0, 8.0), (3.0, 60.0, -20.0, 0.5), (0.01, 0.3, 0.0, 300.0)],
)
def test_slope_and_offset_of_known_probabilities_are_found(slope, offset, centre, spread):
    found = fit_platt(*labelled(slope, offset, centre=centre, spread=spread))
    assert found.slope == pytest.approx(slope, rel=0.06)
    assert found.offset + found.slope * centre == pytest.approx(offset + slope * centre, abs=0.08)


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_scikit_learns(seed):
    pos_P, neg_P = labelled(0.7, -0.4, seed=seed, num=500, centre=1, spread=2)
    logit = torch.cat([pos_P, neg_P]).double().numpy()
    label = np.repeat([1, 0], [len(pos_P), len(neg_P)])
    expected = LogisticRegression(C=np.inf, tol=1e-8).fit(logit[:, None], label)
    found = fit_platt(pos_P, neg_P)
    assert found.slope == pytest.approx(expected.coef_.item(), rel=0.01)
    assert found.offset == pytest.approx(expected.intercept_.item(), abs=0.01)


def test_calibrated_logits_are_a_line_that_keeps_every_ranking():
    logit = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calibrated = fit_platt(*labelled(0.3, -2.0))(logit)
    assert torch.equal(logit.argsort(), calibrated.argsort())
    assert torch.equal(
        Calibration(slope=2.0, offset=-1.0)(torch.tensor([0.0, 3.0])), torch.tensor([-1.0, 5.0])
    )


def test_the_slope_stays_positive_where_citations_score_lower():
    pos_P, neg_P = labelled(-1.5, 0.0)
    assert 0 < fit_platt(pos_P, neg_P).slope < 0.1


@pytest.mark.parametrize(
    ("positive", "negative"),
    [([5.0, 6.0], [-5.0, -4.0]), ([1.0, 1.0], [1.0, 1.0]), ([0.5], [0.25]), ([1e6], [-1e6])],
)
def test_scores_that_part_cleanly_or_not_at_all_have_a_finite_fit(positive, negative):
    found = fit_platt(torch.tensor(positive), torch.tensor(negative))
    assert np.isfinite([found.slope, found.offset]).all()
    assert found.slope > 0
    probability = found(torch.tensor([*positive, *negative])).sigmoid()
    assert (probability[0] > 0.5) == (probability[-1] < 0.5) == (positive != negative)


@pytest.fixture(scope="module")
def trained():
    """A model, its embeddings, its evidence and held-out citations of a random graph."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    references = build_csr(*np.nonzero(np.triu(rng.random((50, 50)) < 0.1, 1)), 50)
    source_P, target_P, negative_PK = (
        rng.integers(0, 50, n).astype(np.int32) for n in (80, 80, (80, 4))
    )
    valid = HeldOut(source_P=source_P, target_P=target_P, negative_PK=negative_PK)
    graph = PreparedGraph(
        path=Path(),
        manifest={},
        x_NF=rng.normal(size=(50, 4)).astype(np.float32),
        day_N=None,
        references=references,
        citations=transpose(references),
        neighbors=to_undirected(references),
        valid=valid,
        test=valid,
    )
    structural = build_structural_features(graph, ModelConfig())
    model = LinkPredictor(
        4, len(structural.names), ModelConfig(hidden_channels=8), scaled=True
    ).eval()
    return model, embed_all(model, graph), structural, valid


def test_a_contrastive_model_is_fitted_to_citations_and_their_first_negatives(trained, monkeypatch):
    score_PK = torch.from_numpy(score_held_out(*trained))
    found, expected = (
        calibrate(*trained, loss="info_nce"),
        fit_platt(score_PK[:, 0], score_PK[:, 1]),
    )
    assert (found.slope, found.offset) == pytest.approx((expected.slope, expected.offset), rel=1e-5)
    monkeypatch.setattr(calibration, "MOST", 2)
    ends_PK = score_PK[[0, -1]]
    few, expected = calibrate(*trained, loss="info_nce"), fit_platt(ends_PK[:, 0], ends_PK[:, 1])
    assert few.slope == pytest.approx(expected.slope, rel=1e-3)
    assert few.offset == pytest.approx(expected.offset, rel=1e-3)


def test_a_model_of_binary_cross_entropy_keeps_its_own_logits(trained):
    found = calibrate(*trained, loss="bce")
    assert found == Calibration(slope=1.0, offset=0.0)
    logit = torch.tensor([-3.0, 0.0, 0.1])
    assert torch.equal(found(logit), logit)
