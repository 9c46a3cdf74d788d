"""The metrics agree with OGB's evaluator bit for bit, and with scikit-learn's area."""

import sys
import types
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, roc_auc_score

from citeflow.evaluation import metrics


@pytest.fixture(scope="module")
def evaluator():
    """OGB's evaluator; `import ogb` asks PyPI for a newer release in a thread, hence the stand-in for `outdated`."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ogb's own imports
        offline = types.ModuleType("outdated")
        offline.check_outdated = lambda package, version: (False, version)
        patch.setitem(sys.modules, "outdated", offline)
        from ogb.linkproppred import Evaluator

        return Evaluator(name="ogbl-citation2")


def ogb_means(evaluator, pos_P, neg_PK):
    lists = evaluator.eval({"y_pred_pos": pos_P, "y_pred_neg": neg_PK})
    return {name.removesuffix("_list"): values.mean().item() for name, values in lists.items()}


def scores(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


MAKERS = {
    "continuous": lambda pos, neg: (pos + 2, neg),
    "heavy ties": lambda pos, neg: (pos.round(), neg.round()),
    "constant": lambda pos, neg: (pos * 0, neg * 0),
    "rounded to half precision": lambda pos, neg: ((pos * 1e3).half(), (neg * 1e3).half()),
    "rounded to brain floats": lambda pos, neg: (pos.bfloat16(), neg.bfloat16()),
    "double": lambda pos, neg: (pos.double() + 1e-12, neg.double()),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("num_positives", [1, 777])
def test_mrr_and_hits_equal_those_of_ogb_bit_for_bit(evaluator, maker, num_positives):
    pos_P, neg_PK = MAKERS[maker](scores(num_positives, seed=1), scores(num_positives, 50, seed=2))
    assert metrics.mrr_and_hits(pos_P, neg_PK) == ogb_means(evaluator, pos_P, neg_PK)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.integers(1, 6).flatmap(
        lambda k: st.lists(
            st.lists(st.integers(-2, 2), min_size=k + 1, max_size=k + 1), min_size=1, max_size=30
        )
    )
)
def test_any_small_table_of_scores_is_ranked_as_ogb_ranks_it(evaluator, table):
    score = torch.tensor(table, dtype=torch.float32)
    pos_P, neg_PK = score[:, 0], score[:, 1:]
    assert metrics.mrr_and_hits(pos_P, neg_PK) == ogb_means(evaluator, pos_P, neg_PK)


def test_ranks_do_not_depend_on_the_size_of_the_pieces(monkeypatch):
    pos_P, neg_PK = scores(101, seed=3).round(), scores(101, 7, seed=4).round()
    whole = metrics.rank_positives(pos_P, neg_PK)
    monkeypatch.setattr(metrics, "COMPARED_AT_ONCE", 20)
    assert torch.equal(metrics.rank_positives(pos_P, neg_PK), whole)
    assert whole.dtype == torch.float32


def test_a_constant_score_gets_the_middle_rank():
    assert metrics.rank_positives(torch.zeros(2), torch.zeros(2, 1000)).tolist() == [501.0, 501.0]


def test_the_best_score_ranks_first_and_the_worst_last():
    neg_PK = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    assert metrics.rank_positives(torch.tensor([4.0, 0.0]), neg_PK).tolist() == [1.0, 4.0]


def test_a_score_that_is_not_a_number_is_refused():
    good, bad = torch.zeros(2), torch.tensor([0.0, float("nan")])
    for call in (
        lambda: metrics.mrr_and_hits(bad, torch.zeros(2, 3)),
        lambda: metrics.mrr_and_hits(good, torch.full((2, 3), float("nan"))),
        lambda: metrics.accuracy(good, bad),
        lambda: metrics.auc(bad, good),
        lambda: metrics.roc_curve(good, bad),
    ):
        with pytest.raises(ValueError, match="NaN"):
            call()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        metrics.rank_positives(torch.zeros(3), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="one negative per positive"):
        metrics.accuracy(torch.zeros(3), torch.zeros(2))


def test_no_positives_are_refused_rather_than_averaged():
    with pytest.raises(ValueError, match="no positives"):
        metrics.mrr_and_hits(torch.zeros(0), torch.zeros(0, 5))


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_the_area_is_that_of_scikit_learn_with_ties(digits):
    pos_P, neg_Q = (
        (scores(300, seed=5) + 0.7).round(decimals=digits),
        scores(500, seed=6).round(decimals=digits),
    )
    expected = roc_auc_score(np.r_[np.ones(300), np.zeros(500)], torch.cat([pos_P, neg_Q]).numpy())
    assert metrics.auc(pos_P, neg_Q) == pytest.approx(expected, abs=1e-12)


def test_the_area_of_constant_scores_is_one_half_exactly():
    assert metrics.auc(torch.ones(7), torch.ones(9)) == 0.5


def test_the_confusion_matrix_and_the_accuracy_are_those_of_probability_one_half():
    pos_P, neg_P = torch.tensor([2.0, -1.0, 0.0, 0.1]), torch.tensor([-2.0, 1.0, 0.0, -0.1])
    called = (torch.sigmoid(torch.cat([pos_P, neg_P])) > 0.5).int()
    expected = confusion_matrix([1] * 4 + [0] * 4, called)
    assert metrics.confusion(pos_P, neg_P) == expected.tolist() == [[3, 1], [2, 2]]
    assert metrics.accuracy(pos_P, neg_P) == 5 / 8


def test_the_roc_curve_runs_from_corner_to_corner_within_its_number_of_points():
    pos_P, neg_Q = scores(4000, seed=7) + 1, scores(5000, seed=8)
    curve = metrics.roc_curve(pos_P, neg_Q, max_points=200)
    fpr, tpr = np.array(curve["fpr"]), np.array(curve["tpr"])
    assert 150 <= len(fpr) <= 200
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(metrics.auc(pos_P, neg_Q), abs=1e-3)


def test_every_point_of_the_roc_curve_is_what_its_threshold_gives():
    pos_P, neg_Q = scores(60, seed=9).round(decimals=1), scores(80, seed=10).round(decimals=1)
    curve = metrics.roc_curve(pos_P, neg_Q)
    for fpr, tpr, threshold in zip(curve["fpr"], curve["tpr"], curve["threshold"], strict=True):
        assert tpr == pytest.approx((pos_P >= threshold).double().mean().item())
        assert fpr == pytest.approx((neg_Q >= threshold).double().mean().item())
