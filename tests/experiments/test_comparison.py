import math

import numpy as np
import pytest
from outcomes import curve, outcome
from scipy import stats

from citeflow.experiments.comparison import (
    BETTER,
    MORE,
    UNKNOWN,
    WINNER,
    WITHIN,
    as_csv,
    headline,
    holm,
    standings,
    welch,
)
from citeflow.experiments.comparison_page import draw_page, summary


def model(name, test, valid=None, evaluations=()):
    """The outcomes of a model, one for each seed."""
    return [
        outcome(
            f"{name}-seed-{seed}",
            mrr=mrr,
            valid_mrr=(valid or test)[seed],
            seed=seed,
            evaluations=evaluations,
        )
        for seed, mrr in enumerate(test)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_and_the_test_of_a_difference_are_scipy_s(seed):
    random = np.random.default_rng(seed)
    first, second = random.normal(0.7, 0.02, 4).tolist(), random.normal(0.69, 0.05, 3).tolist()
    interval, p = welch(first, second)
    reference = stats.ttest_ind(first, second, equal_var=False)
    assert interval == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert p == pytest.approx(reference.pvalue)


def test_models_that_never_vary_differ_by_more_than_noise_or_not_at_all():
    assert welch([0.5, 0.5], [0.4, 0.4]) == (pytest.approx((0.1, 0.1)), 0.0)
    assert welch([0.5, 0.5], [0.5, 0.5]) == ((0.0, 0.0), 1.0)


def test_holm_multiplies_the_smallest_by_all_and_never_lets_a_larger_one_overtake():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_chance_finds_a_difference_among_equal_models_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        equal = [
            outcome(f"{name}-seed-{seed}", mrr=random.normal(0.7, 0.01))
            for name in "abc"
            for seed in range(5)
        ]
        ranked = standings(equal)
        found += any(each.verdict == MORE for each in ranked)
    assert found / 400 < 0.15, (
        "the winner is chosen among three, which alone makes differences larger than by chance"
    )


def test_the_winner_is_chosen_on_validation_and_the_others_are_compared_with_it_on_the_test():
    ranked = standings(
        [*model("a", [0.70, 0.72], valid=[0.6, 0.6]), *model("b", [0.50, 0.52], valid=[0.9, 0.9])]
    )
    assert [each.name for each in ranked] == ["b", "a"]
    assert ranked[0].verdict == WINNER
    assert ranked[1].behind == pytest.approx(-0.2)


def test_a_clear_difference_is_more_than_noise_and_a_small_one_is_not():
    clear = standings([*model("a", [0.70, 0.701, 0.702]), *model("b", [0.50, 0.501, 0.502])])
    assert clear[1].verdict == MORE
    assert "more than noise" in headline(clear)
    close = standings([*model("a", [0.70, 0.75, 0.71]), *model("b", [0.69, 0.74, 0.72])])
    assert close[1].verdict == WITHIN
    assert "difference to b is within the noise" in headline(close)


def test_one_seed_says_nothing_about_noise():
    ranked = standings([*model("a", [0.7]), *model("b", [0.5])])
    assert ranked[1].verdict == UNKNOWN
    assert ranked[1].interval is None
    assert "nobody knows" in headline(ranked)


def test_a_name_may_hold_the_word_that_separates_it_from_its_seed():
    ranked = standings([*model("a-seed-1", [0.7, 0.7]), *model("a", [0.5, 0.5])])
    assert [each.name for each in ranked] == ["a-seed-1", "a"]


def test_the_table_as_csv_has_a_line_for_each_training():
    lines = as_csv(standings([*model("a", [0.7, 0.72]), *model("b", [0.5, 0.51])])).splitlines()
    assert lines[0] == "model,seed,valid_mrr,test_mrr,accuracy,seconds"
    assert lines[2] == "a,1,0.72,0.72,0.9,10.0"
    assert len(lines) == 5


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_page_has_a_table_and_curves_on_common_axes(num_seeds):
    better, worse = curve(0.2, 0.5, 0.7), curve(0.1, 0.2)
    trials = [
        *model("s<age", [0.7] * num_seeds, evaluations=better),
        *model("dot", [0.5] * num_seeds, evaluations=worse),
    ]
    page = draw_page("hepth", standings(trials))
    assert page.count("<svg") == 3
    assert "s&lt;age" in page
    assert "Validation MRR over epochs" in page
    assert "nan" not in page.lower().replace("navigation", "")


def test_a_model_of_one_evaluation_has_a_point_in_the_page():
    trials = [
        *model("a", [0.7, 0.7], evaluations=curve(0.7)),
        *model("b", [0.5, 0.5], evaluations=curve(0.5)),
    ]
    assert "<svg" in draw_page("hepth", standings(trials))


def test_the_markdown_names_the_winner_and_every_figure():
    text = summary("hepth", standings([*model("a", [0.7, 0.72]), *model("b", [0.5, 0.51])]))
    assert "a has the highest validation MRR; its test MRR is 0.7100" in text
    assert f"0.505 ± {math.sqrt(0.00005):.3f}" in text.replace("\u00a0", " ")


def test_a_model_that_is_better_on_the_test_by_more_than_noise_is_said_to_be():
    ranked = standings(
        [
            *model("a", [0.5, 0.501, 0.502], valid=[0.61] * 3),
            *model("b", [0.55, 0.551, 0.552], [0.6] * 3),
        ]
    )
    assert ranked[1].verdict == BETTER
    assert "On the test it is behind b, by more than noise" in headline(ranked)
    assert "ahead" not in headline(ranked)


def test_models_of_one_evaluation_at_different_times_have_points_and_no_line():
    early, late = curve(0.5), [{"epoch": 1.0, "seconds": 3.0, "valid_mrr": 0.6}]
    trials = [
        outcome("a-seed-0", evaluations=early), outcome("a-seed-1", seed=1, evaluations=late),
        outcome("b-seed-0", evaluations=early), outcome("b-seed-1", seed=1, evaluations=late),
    ]  # fmt: skip
    assert draw_page("hepth", standings(trials)).count("<svg") == 3


def test_trainings_without_evaluations_have_no_curves():
    assert (
        draw_page("hepth", standings([*model("a", [0.7]), *model("b", [0.5])])).count("<svg") == 1
    )
