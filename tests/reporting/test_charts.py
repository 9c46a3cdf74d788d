import re
from xml.etree import ElementTree

import numpy as np
import pytest

from citeflow.reporting import charts
from citeflow.reporting.axes import (
    columns,
    percent,
    rank_names,
    running_mean,
    tail,
    thin,
    time_unit,
)

ONE_STEP = {
    "history": [{"step": 1, "seconds": 0.5, "loss": 1.0, "positives_per_s": 10.0}],
    "evaluations": [{"step": 1, "seconds": 0.5, "valid_mrr": 0.4}],
    "roc": {"fpr": [0, 1], "tpr": [0, 1]},
    "degrees": {"references": [[1, 4]], "citations": [[4, 1]]},
    "mrr_by_year": [{"year": 2001, "mrr": 0.5, "num": 1}],
    "ranks": [[1, 0], [3, 2]],
}


def by_name(report, curves):
    return {chart.name: chart for chart in charts.draw_all(report, curves)}


def texts(chart):
    return [
        " ".join(node.itertext()).strip()
        for node in ElementTree.fromstring(chart.svg).iter()
        if "text" in node.tag
    ]


def test_every_figure_is_drawn_from_a_full_run(report, curves):
    drawn = by_name(report, curves)
    assert list(drawn) == list(charts.TITLES)
    for chart in drawn.values():
        root = ElementTree.fromstring(chart.svg)
        assert root.tag.endswith("svg"), chart.name
        assert root.get("aria-label"), chart.name


def test_the_same_run_gives_the_same_drawings(report, curves):
    assert charts.draw_all(report, curves) == charts.draw_all(report, curves)


def test_a_users_matplotlib_settings_do_not_change_the_drawings(report, curves, monkeypatch):
    import matplotlib

    plain = charts.loss(curves)
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "black")
    monkeypatch.setitem(matplotlib.rcParams, "figure.dpi", 300)
    assert charts.loss(curves) == plain


def test_drawings_carry_no_date_and_no_id_of_each_other(report, curves):
    seen: set[str] = set()
    for chart in charts.draw_all(report, curves):
        ids = re.findall(r'\bid="([^"]+)"', chart.svg)
        assert len(ids) == len(set(ids)), chart.name
        assert not seen & set(ids), chart.name
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', chart.svg)) <= set(ids), chart.name
        assert "dc:date" not in chart.svg
        seen |= set(ids)


def test_axes_name_their_units_and_the_legend_the_figures(report, curves):
    drawn = by_name(report, curves)
    assert "Training time (min)" in texts(drawn["loss"])
    assert "Citations per second" in texts(drawn["throughput"])
    assert "This model (AUC 0.9779)" in texts(drawn["roc"])
    assert "Adamic-Adar 0.669" in texts(drawn["validation"])
    assert "Popularity 0.095 (below)" in texts(drawn["validation"])
    assert "0.7518" in texts(drawn["comparison"])
    assert "64 %" in texts(drawn["ranks"])


def test_a_run_of_one_step_is_drawn():
    drawn = by_name({"test": {"mrr": 0.5}}, ONE_STEP)
    assert [name for name, chart in drawn.items() if not chart.svg] == ["cores", "memory", "years"]
    assert "every test citation is made in 2001" in drawn["years"].caption


@pytest.mark.parametrize(
    "curves", [{}, {"history": [], "evaluations": [], "roc": {}, "degrees": {}, "ranks": []}]
)
def test_a_figure_without_data_says_why(curves):
    for chart in charts.draw_all({}, curves):
        assert chart.svg == ""
        assert chart.caption.startswith("not drawn, as ")


def test_a_graph_without_dates_has_no_figure_by_year(report, curves):
    curves["mrr_by_year"] = []
    assert "no dates" in by_name(report, curves)["years"].caption


def test_a_run_without_baselines_is_drawn(report, curves):
    report["baselines"] = {}
    assert by_name(report, curves)["validation"].svg


def test_resources_are_drawn_rank_by_rank_in_cores_and_gib(report, curves):
    drawn = by_name(report, curves)
    assert {"Rank 0", "Rank 1", "Cores", "Time since the workers began (min)"} <= set(
        texts(drawn["cores"])
    )
    assert {"Rank 0", "Rank 1", "GiB"} <= set(texts(drawn["memory"]))


def test_of_many_ranks_the_mean_alone_is_named(curves):
    rank, _ = curves["resources"]["ranks"]
    curves["resources"]["ranks"] = [{**rank, "rank": number} for number in range(12)]
    named = texts(charts.cores(curves))
    assert "Mean of 12 ranks" in named
    assert "Rank 0" not in named


def test_a_rank_whose_sampling_failed_is_left_out_of_the_drawing(curves):
    curves["resources"]["ranks"][1]["cpu_cores"] = [None] * 150
    assert "Rank 1" not in texts(charts.cores(curves))
    curves["resources"]["ranks"][0]["cpu_cores"] = [0.0] * 150
    assert charts.cores(curves).svg


def test_zero_throughput_and_constant_loss_are_drawn():
    history = [{"step": i, "seconds": 0.0, "loss": 2.0, "positives_per_s": 0.0} for i in range(40)]
    drawn = by_name({}, {"history": history})
    assert drawn["loss"].svg
    assert drawn["throughput"].svg


def test_a_long_history_makes_a_drawing_of_bounded_size(curves):
    history = [{"seconds": float(i), "loss": float(np.sin(i))} for i in range(30_000)]
    assert len(charts.loss({"history": history}).svg) < 60_000


def test_many_rank_bins_are_labelled_sparsely():
    chart = charts.ranks({"ranks": [[upper, 1] for upper in range(1, 61)]})
    assert len([text for text in texts(chart) if text.isdigit()]) <= 13


def test_values_that_are_missing_or_not_finite_are_left_out():
    records = [
        {"x": 0, "y": 1.0},
        {"x": 1, "y": None},
        {"x": 2, "y": float("nan")},
        {"x": 3},
        {"x": 4, "y": 5.0},
    ]
    x, y = columns(records, "x", "y")
    assert x.tolist() == [0, 4]
    assert y.tolist() == [1, 5]


def test_the_tail_of_a_distribution_counts_papers_of_at_least_a_degree():
    degree, share = tail([[0, 5], [3, 1], [1, 4]])
    assert degree.tolist() == [1, 3]
    assert share.tolist() == [0.5, 0.1]


def test_the_running_mean_of_a_constant_is_that_constant():
    assert np.allclose(running_mean(np.full(30, 2.5), 7), 2.5)


def test_thinning_keeps_the_mean():
    value = np.arange(4_000, dtype=np.float64)
    assert len(thin(value)) == 400
    assert thin(value).mean() == value.mean()


@pytest.mark.parametrize(("longest", "unit"), [(20, "s"), (600, "min"), (90_000, "h")])
def test_a_time_axis_has_the_unit_that_suits_it(longest, unit):
    assert time_unit(longest)[1] == unit


def test_rank_bins_are_named_by_their_ends():
    assert rank_names([1, 3, 10, 1_001]) == ["1", "2\u20133", "4\u201310", ">10"]
    assert rank_names([5]) == ["1\u20135"]


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.0034, "0.3 %"), (0.0999, "10 %"), (1.0, "100 %")]
)
def test_shares_get_a_digit_more_where_they_are_small(share, text):
    assert percent(share) == text
