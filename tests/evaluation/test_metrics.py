"""The metrics equal those of OGB's evaluator bit for bit, and scikit-learn's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from citeflow.evaluation import metrics


def scores(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


KINDS = {
    "continuous": lambda pos, neg: (pos + 2, neg),
    "heavy ties": lambda pos, neg: (pos.round(), neg.round()),
    "constant": lambda pos, neg: (pos * 0, neg * 0),
    "half": lambda pos, neg: ((pos * 1e3).half(), (neg * 1e3).half()),
    "bfloat16": lambda pos, neg: (pos.bfloat16(), neg.bfloat16()),
    "double": lambda pos, neg: (pos.double() + 1e-12, neg.double()),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_positives", [1, 777])
def test_mrr_and_hits_equal_those_of_ogb_bit_for_bit(ogb_means, kind, num_positives):
    positive_P, negative_PK = KINDS[kind](
        scores(num_positives, seed=1), scores(num_positives, 50, seed=2)
    )
    found = metrics.mrr_and_hits(metrics.rank_positives(positive_P, negative_PK))
    assert found == ogb_means(positive_P, negative_PK)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.integers(2, 7).flatmap(
        lambda width: st.lists(
            st.lists(st.integers(-2, 2), min_size=width, max_size=width), min_size=1, max_size=30
        )
    )
)
def test_small_tables_are_ranked_as_by_ogb(ogb_means, table):
    score = torch.tensor(table, dtype=torch.float32)
    found = metrics.mrr_and_hits(metrics.rank_positives(score[:, 0], score[:, 1:]))
    assert found == ogb_means(score[:, 0], score[:, 1:])


def test_ranks_do_not_depend_on_the_chunks(monkeypatch):
    positive_P = scores(101, seed=3).round()
    negative_PK = scores(101, 7, seed=4).round()
    whole_P = metrics.rank_positives(positive_P, negative_PK)
    monkeypatch.setattr(metrics, "MAX_SCORES_PER_CHUNK", 20)
    assert torch.equal(metrics.rank_positives(positive_P, negative_PK), whole_P)
    assert whole_P.dtype == torch.float32


def test_ranks_are_mid_ranks():
    assert metrics.rank_positives(torch.zeros(2), torch.zeros(2, 1000)).tolist() == [501.0, 501.0]
    negative_PK = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    assert metrics.rank_positives(torch.tensor([4.0, 0.0]), negative_PK).tolist() == [1.0, 4.0]


GOOD = torch.zeros(2)
NAN = torch.tensor([0.0, float("nan")])


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (metrics.rank_positives, (NAN, torch.zeros(2, 3)), "NaN"),
        (metrics.rank_positives, (GOOD, torch.full((2, 3), float("nan"))), "NaN"),
        (metrics.accuracy, (GOOD, NAN), "NaN"),
        (metrics.auc, (NAN, GOOD), "NaN"),
        (metrics.roc_curve, (GOOD, NAN), "NaN"),
        (metrics.rank_positives, (torch.zeros(3), torch.zeros(2, 5)), "shapes"),
        (metrics.accuracy, (torch.zeros(3), GOOD), "one negative per positive"),
        (metrics.mrr_and_hits, (torch.zeros(0),), "no positives"),
        (metrics.auc, (torch.zeros(0), GOOD), "at least one positive"),
        (metrics.roc_curve, (GOOD, torch.zeros(0)), "at least one positive"),
    ],
)
def test_bad_scores_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_auc_equals_that_of_sklearn_with_ties(digits):
    positive_P = (scores(300, seed=5) + 0.7).round(decimals=digits)
    negative_Q = scores(500, seed=6).round(decimals=digits)
    label = np.r_[np.ones(300), np.zeros(500)]
    expected = sklearn_metrics.roc_auc_score(label, torch.cat([positive_P, negative_Q]).numpy())
    assert metrics.auc(positive_P, negative_Q) == pytest.approx(expected, abs=1e-12)
    assert metrics.auc(torch.ones(7), torch.ones(9)) == 0.5


def test_confusion_and_accuracy_equal_those_of_sklearn():
    positive_P = torch.tensor([2.0, -1.0, 0.0, 0.1])
    negative_P = torch.tensor([-2.0, 1.0, 0.0, -0.1])
    predicted = (torch.sigmoid(torch.cat([positive_P, negative_P])) > 0.5).int()
    expected = sklearn_metrics.confusion_matrix([1] * 4 + [0] * 4, predicted).tolist()
    assert metrics.confusion(positive_P, negative_P) == expected == [[3, 1], [2, 2]]
    assert metrics.accuracy(positive_P, negative_P) == 5 / 8


def test_roc_curve_equals_that_of_sklearn():
    positive_P = scores(60, seed=9).round(decimals=1)
    negative_Q = scores(80, seed=10).round(decimals=1)
    found = metrics.roc_curve(positive_P, negative_Q)
    label = np.r_[np.ones(60), np.zeros(80)]
    score = torch.cat([positive_P, negative_Q]).numpy()
    fpr, tpr, threshold = sklearn_metrics.roc_curve(label, score, drop_intermediate=False)
    assert (found["fpr"], found["tpr"]) == (fpr.tolist(), tpr.tolist())
    assert found["threshold"][1:] == threshold[1:].tolist()
    assert score.max() < found["threshold"][0] < score.max() + 1e-6


def test_roc_curve_is_thinned_evenly():
    positive_P = scores(4000, seed=7) + 1
    negative_Q = scores(5000, seed=8)
    curve = metrics.roc_curve(positive_P, negative_Q, max_points=200)
    fpr = np.array(curve["fpr"])
    tpr = np.array(curve["tpr"])
    assert 150 <= len(fpr) <= 200
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tpr, fpr) == pytest.approx(metrics.auc(positive_P, negative_Q), abs=1e-3)
