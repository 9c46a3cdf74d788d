import math
from pathlib import Path

import pytest

from citeflow import paths
from citeflow.reporting.mlflow import run_record


def test_a_long_curve_is_told_in_few_points_with_both_ends():
    records = [
        {"step": step, "wall_time": 100.0 + step, "loss": 1 / step} for step in range(1, 10_001)
    ]
    points = list(run_record._curve(records, "loss", "train/loss"))
    assert len(points) == run_record.POINTS
    assert (points[0].step, points[-1].step) == (1, 10_000)
    steps = [point.step for point in points]
    assert steps == sorted(set(steps))
    assert all(
        point.value == 1 / point.step and point.wall_time == 100.0 + point.step for point in points
    )


def test_a_short_curve_is_told_whole_without_what_is_no_number():
    records = [
        {"step": step, "wall_time": 1.0, "loss": value}
        for step, value in enumerate([0.5, math.nan, 0.25])
    ]
    assert [(point.step, point.value) for point in run_record._curve(records, "loss", "x")] == [
        (0, 0.5),
        (2, 0.25),
    ]


def test_names_of_metrics_have_no_at_sign():
    assert run_record.metric_name("test/hits@10") == "test/hits_at_10"


def test_settings_are_told_without_passwords_in_urls():
    content = {
        "dataset": "https://someone:secret@host/papers.zip?sig=secret",
        "train": {"workers": 2},
        "config": {"data": {"mirror": "https://someone:secret@host/x", "holdout": 0.1}},
    }
    assert run_record._params(content) == {
        "dataset": "https://host/papers.zip",
        "workers": "2",
        "data.mirror": "https://host/x",
        "data.holdout": "0.1",
    }


def test_a_graph_that_is_gone_leaves_the_rest_of_the_lineage(tmp_path):
    assert run_record._inputs_of_graph(tmp_path, "0" * 64) == {}
    (tmp_path / "prepared" / "x").mkdir(parents=True)
    (tmp_path / "prepared" / "x" / "manifest.json").write_text('{"half')
    assert run_record._inputs_of_graph(tmp_path, "0" * 64) == {}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("root/runs/small", "small"),
        ("root/runs/sweep/logs", "sweep/logs"),
        ("else/where/mine", "mine"),
    ],
)
def test_root_and_name_of_a_run_are_those_that_its_logs_were_named_by(folder, name):
    root = Path("/data/root")
    report = Path("/data") / folder / "report"
    assert paths.name_of(root, report.parent) == name
    assert paths.place_of(report.parent, paths.log_folder(root, name)) == (root, name)


def test_a_run_whose_logs_lie_anywhere_is_named_after_their_folder():
    assert paths.place_of(Path("/a/b"), Path("/c/d")) == (Path("/c"), "d")
