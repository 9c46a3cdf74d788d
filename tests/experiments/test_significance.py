import statistics

import numpy as np
import pytest
from outcomes import model
from scipy import stats

from citeflow.experiments.significance import Verdict, headline, holm, rank_models, to_csv, welch


@pytest.mark.parametrize("seed", range(3))
def test_welch_agrees_with_the_formulas(seed):
    random = np.random.default_rng(seed)
    first = random.normal(0.7, 0.02, 4).tolist()
    second = random.normal(0.69, 0.05, 3).tolist()
    spread = [statistics.variance(values) / len(values) for values in (first, second)]
    error = sum(spread) ** 0.5
    freedom = sum(spread) ** 2 / (spread[0] ** 2 / 3 + spread[1] ** 2 / 2)
    difference = statistics.mean(first) - statistics.mean(second)
    reach = stats.t.ppf(0.975, freedom) * error
    interval, p = welch(first, second)
    assert interval == pytest.approx((difference - reach, difference + reach))
    assert p == pytest.approx(2 * stats.t.sf(abs(difference) / error, freedom))


def test_welch_takes_models_that_do_not_vary():
    assert welch([0.5, 0.5], [0.4, 0.4]) == (pytest.approx((0.1, 0.1)), 0.0)
    assert welch([0.5, 0.5], [0.5, 0.5]) == ((0.0, 0.0), 1.0)
    (low, high), p = welch([0.5, 0.5, 0.5], [0.4, 0.42, 0.41])
    assert low < 0.09 < high
    assert 0 < p < 0.05


def test_holm_corrects_in_order_of_size():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_rank_models_finds_chance_as_rarely_as_it_says():
    random = np.random.default_rng(0)
    found = 0
    for _ in range(150):
        scores = random.normal(0.7, 0.01, (3, 5)).tolist()
        equal = [
            each for name, test in zip("abc", scores, strict=True) for each in model(name, test)
        ]
        found += any(each.verdict is Verdict.MORE for each in rank_models(equal))
    # The winner is chosen among three, which alone makes differences larger than chance does.
    assert found / 150 < 0.15


@pytest.mark.parametrize(
    ("first", "second", "verdict", "sentence"),
    [
        ([0.70, 0.701, 0.702], [0.50, 0.501, 0.502], Verdict.MORE, "ahead of b by more than noise"),
        ([0.70, 0.75, 0.71], [0.69, 0.74, 0.72], Verdict.WITHIN, "to b is within the noise"),
        ([0.7], [0.5], Verdict.UNKNOWN, "One seed cannot tell"),
    ],
)
def test_rank_models_judges_differences(first, second, verdict, sentence):
    ranked = rank_models([*model("a", first), *model("b", second)])
    assert [each.verdict for each in ranked] == [Verdict.WINNER, verdict]
    lines = to_csv(ranked).splitlines()
    assert lines[1] == f"a,0,{first[0]},{first[0]},0.9,10.0"
    assert len(lines) == 1 + len(first) + len(second)
    assert sentence in headline(ranked)
    assert (ranked[1].interval is None) == (verdict is Verdict.UNKNOWN)


def test_rank_models_chooses_on_validation_and_compares_on_test():
    outcomes = [
        *model("a", [0.5, 0.501, 0.502], [0.61] * 3),
        *model("b", [0.55, 0.551, 0.552], [0.6] * 3),
    ]
    ranked = rank_models(outcomes)
    assert [(each.name, each.verdict) for each in ranked] == [
        ("a", "winner"),
        ("b", "better on the test"),
    ]
    assert ranked[1].behind == pytest.approx(-0.05)
    assert "On the test it is behind b, by more than noise" in headline(ranked)
    assert "ahead" not in headline(ranked)
