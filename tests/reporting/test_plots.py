import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from citeflow.report import Curves
from citeflow.reporting import plots, report_plots

ONE_STEP = Curves.model_validate(
    {
        "history": [{"step": 1, "seconds": 0.5, "loss": 1.0, "positives_per_s": 10.0}],
        "evaluations": [
            {
                "step": 1,
                "seconds": 0.5,
                "valid_mrr": 0.4,
                "valid_accuracy": 0.8,
                "valid_hard_mrr": 0.2,
            }
        ],
        "roc": {"fpr": [0, 1], "tpr": [0, 1], "threshold": [1, 0]},
        "degrees": {"references": [[1, 4]], "citations": [[4, 1]]},
        "mrr_by_year": [{"year": 2001, "mrr": 0.5, "num": 1}],
        "ranks": [[1, 0], [3, 2]],
    }
)


def texts(plot):
    nodes = ElementTree.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}text")
    return [" ".join(node.itertext()).strip() for node in nodes]


def with_resources(curves, ranks):
    resources = curves.resources.model_copy(update={"ranks": ranks})
    return curves.model_copy(update={"resources": resources})


def test_draw_report_draws_every_plot_for_all_readers(drawn):
    assert len(drawn) == 12
    seen: set[str] = set()
    for title, plot in drawn.items():
        root = ElementTree.fromstring(plot.svg)
        assert root.get("role") == "img"
        assert root.get("aria-label").startswith(title)
        assert not re.search(r"#[0-9a-f]{6}\b(?!-)", re.sub(r"#\w+-\w+", "", plot.svg))
        ids = re.findall(r'\bid="([^"]+)"', plot.svg)
        assert len(ids) == len(set(ids)), title
        assert not seen & set(ids), title
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', plot.svg)) <= set(ids), title
        assert "dc:date" not in plot.svg
        seen |= set(ids)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Training loss", {"Training time (min)"}),
        ("Throughput", {"Citations per second"}),
        ("Validation accuracy during training", {"Validation 0.927", "Test 0.931"}),
        ("Validation MRR among hard candidates", {"Validation 0.352", "Test 0.353"}),
        ("ROC curve on the test citations", {"This model (AUC 0.9779)"}),
        (
            "Validation MRR during training",
            {"Adamic-Adar 0.669", "Feature cosine 0.141 (below)"},
        ),
        ("Test MRR against the baselines", {"0.7518"}),
        ("Rank of the true citation", {"64 %"}),
        ("CPU cores in use", {"Rank 0", "Rank 1", "Cores", "Time since the workers began (min)"}),
        ("Memory", {"Rank 0", "Rank 1", "GiB"}),
    ],
)
def test_draw_report_names_units_and_figures(drawn, title, expected):
    assert expected <= set(texts(drawn[title]))


def test_plots_of_large_runs_have_bounded_size(curves):
    history = [{"seconds": float(i), "loss": float(np.sin(i))} for i in range(30_000)]
    assert len(report_plots.loss(Curves(history=history)).svg) < 60_000
    ranks = report_plots.ranks(Curves(ranks=[(upper, 1) for upper in range(1, 61)]))
    assert len([text for text in texts(ranks) if text.isdigit()]) <= 13
    rank = curves.resources.ranks[0]
    many = [rank.model_copy(update={"rank": number}) for number in range(12)]
    names = texts(report_plots.cores(with_resources(curves, many)))
    assert "Mean of 12 ranks" in names
    assert "Rank 0" not in names


def test_draw_is_deterministic_whatever_the_users_settings(curves, drawn, monkeypatch):
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "black")
    monkeypatch.setitem(matplotlib.rcParams, "figure.dpi", 300)
    assert report_plots.loss(curves) == drawn["Training loss"]


def test_draw_report_of_one_step(report):
    drawn = report_plots.draw_report(report.model_copy(update={"baselines": {}}), ONE_STEP)
    missing = {plot.title: plot.caption for plot in drawn if not plot.svg}
    assert list(missing) == ["CPU cores in use", "Memory", "Test MRR by year of the citing paper"]
    assert "every test citation is made in 2001" in missing.popitem()[1]


def test_draw_report_without_curves_says_why(report):
    _, *missing = report_plots.draw_report(report, Curves())
    for plot in missing:
        assert plot.svg == ""
        assert plot.caption.startswith("not drawn, as ")
    assert "no dates" in missing[-2].caption


def test_cores_leaves_out_a_rank_without_samples(curves):
    idle, broken = (
        rank.model_copy(update={"cpu_cores": [value] * 150})
        for rank, value in zip(curves.resources.ranks, (0.0, None), strict=True)
    )
    names = texts(report_plots.cores(with_resources(curves, [idle, broken])))
    assert "Rank 0" in names
    assert "Rank 1" not in names


def test_columns_drops_missing_and_infinite_values():
    values = enumerate([1.0, None, float("nan"), 5.0])
    x, y = plots.columns([{"x": 9}, *({"x": x, "y": y} for x, y in values)], "x", "y")
    assert x.tolist() == [0, 3]
    assert y.tolist() == [1, 5]


def test_tail_counts_papers_of_at_least_a_degree():
    degree, share = report_plots.tail([(0, 5), (3, 1), (1, 4)])
    assert degree.tolist() == [1, 3]
    assert share.tolist() == [0.5, 0.1]


def test_running_mean_and_thin_keep_the_mean():
    assert np.allclose(plots.running_mean(np.full(30, 2.5), 7), 2.5)
    value = np.arange(4_000, dtype=np.float64)
    assert len(plots.thin(value)) == 400
    assert plots.thin(value).mean() == value.mean()


def test_labels_of_axes():
    assert [plots.time_unit(longest)[1] for longest in (20, 600, 90_000)] == ["s", "min", "h"]
    assert report_plots.rank_names([1, 3, 10, 1_001]) == ["1", "2\u20133", "4\u201310", ">10"]
    assert report_plots.rank_names([5]) == ["1\u20135"]
    shares = {0.0: "0 %", 0.0034: "0.3 %", 0.0999: "10 %", 1.0: "100 %"}
    assert {share: report_plots.percent(share) for share in shares} == shares
    numbers = {20_000: "20k", 1.5e6: "1.5M", -2e9: "-2G"}
    assert {value: plots.short(value) for value in numbers} == numbers
