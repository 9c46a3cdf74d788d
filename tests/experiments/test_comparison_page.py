import math

import pytest
from outcomes import curve, model, outcome

from citeflow.experiments.comparison_page import render_html, render_markdown
from citeflow.experiments.significance import rank_models, to_csv


def test_html_has_bars_and_curves_on_common_axes():
    better, worse = curve(0.2, 0.5, 0.7), curve(0.1, 0.2)
    outcomes = [
        *model("s<age", [0.7] * 3, validations=better),
        *model("d", [0.5], validations=worse),
    ]
    page = render_html("hepth", rank_models(outcomes))
    assert page.count("<svg") == 3
    assert "s&lt;age" in page
    assert "Validation MRR over epochs" in page
    assert "nan" not in page.lower()
    bare = [*model("a", [0.7]), *model("b", [0.5])]
    assert render_html("hepth", rank_models(bare)).count("<svg") == 1


def test_html_draws_single_validations_as_points():
    late = [{"epoch": 1.0, "seconds": 3.0, "valid_mrr": 0.6}]
    outcomes = [
        outcome(f"{name}-seed-{seed}", seed=seed, validations=validations)
        for name in "ab"
        for seed, validations in enumerate((curve(0.5), late))
    ]
    assert render_html("hepth", rank_models(outcomes)).count("<svg") == 3


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_markdown_names_the_winner_and_every_figure(num_seeds):
    outcomes = [*model("a", [0.7, 0.72][:num_seeds]), *model("b", [0.5, 0.51][:num_seeds])]
    text = render_markdown("hepth", rank_models(outcomes)).replace("\u00a0", " ")
    assert "a has the highest validation MRR" in text
    assert (f"0.505 ± {math.sqrt(0.00005):.3f}" in text) == (num_seeds == 2)


def test_page_and_csv_have_the_mrr_in_every_protocol_and_name_the_chosen_one():
    outcomes = [
        outcome(f"{name}-seed-{seed}", seed=seed, chosen="all", mrr=mrr, all=mrr / 2, cold=0.1)
        for name, mrr in (("a", 0.6), ("b", 0.4))
        for seed in (0, 1)
    ]
    ranked = rank_models(outcomes)
    text = render_markdown("hepth", ranked).replace("\u00a0", " ")
    assert "a has the highest validation MRR; its test MRR among all papers is 0.3000." in text
    assert "| Model | All papers | No references |" in text
    assert "| b | 0.200 ± 0.000 | 0.100 ± 0.000 |" in text
    page = render_html("hepth", ranked)
    assert page.count("Test MRR by protocol") == 1
    assert "Test MRR among all papers" in page
    header, first, *_ = to_csv(ranked).splitlines()
    assert header == "model,seed,valid_mrr,test_mrr,accuracy,seconds,all_mrr,cold_mrr"
    assert first == "a,0,0.6,0.3,0.9,10.0,0.3,0.1"
