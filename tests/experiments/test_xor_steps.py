import subprocess
import sys
from types import SimpleNamespace

import pyarrow.parquet
import pytest

from citeflow import files
from citeflow.experiments import xor_steps

ABSENT = ("torch", "torch_geometric", "tensorboard", "safetensors", "networkx", "optuna", "mlflow")
WHOLE_RUN = """
import sys
from pathlib import Path
from types import SimpleNamespace
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from citeflow import cli
from citeflow.experiments import xor_steps
def artifact(name):
    figures = {{}}
    return SimpleNamespace(path=str(Path({folder!r}) / name), metadata={{}}, log_metric=figures.__setitem__)
points, flat, deep = (artifact(name) for name in ("points", "flat", "deep"))
xor_steps.points(2, 100, 50, 2, 4, 0.02, 0, made=points)
xor_steps.plot(points, {folder!r}, page=artifact("plot"))
xor_steps.train(points, 0, history=flat, metrics=artifact("m"))
xor_steps.train(points, 4, history=deep, metrics=artifact("m"))
xor_steps.compare(points, flat, deep, {folder!r}, metrics=artifact("m"), summary=artifact("s"), page=artifact("p"))
"""


def artifact(path):
    figures = {}
    return SimpleNamespace(
        path=str(path), metadata={}, log_metric=figures.__setitem__, figures=figures
    )


@pytest.fixture
def points(tmp_path):
    made = artifact(tmp_path / "points")
    xor_steps.points(3, 60, 20, 2, 4, 0.02, 5, made=made)
    return made


def test_the_steps_need_neither_torch_nor_anything_else_that_the_small_image_lacks(tmp_path):
    code = WHOLE_RUN.format(absent=ABSENT, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {"points.html", "xor.html", "xor.json"} < {path.name for path in tmp_path.iterdir()}


def test_points_travel_as_parquet_with_the_settings_beside_them(points):
    table = pyarrow.parquet.read_table(points.path)
    assert table.column_names == ["x1", "x2", "x3", "label", "is_test"]
    assert table["is_test"].to_pylist() == [False] * 60 + [True] * 20
    assert (points.metadata["dims"], points.metadata["epochs"], points.metadata["seed"]) == (
        3,
        2,
        5,
    )


def test_a_wrong_parameter_ends_the_first_step_with_two_lines_before_anything_is_made(
    tmp_path, capsys
):
    made = artifact(tmp_path / "points")
    with pytest.raises(SystemExit) as caught:
        xor_steps.points(2, 60, 20, 2, 0, 0.02, 0, made=made)
    assert caught.value.code == 64
    assert capsys.readouterr().err == "error: hidden: 0\nhint: must be between 1 and 10000\n"
    assert list(tmp_path.iterdir()) == []


def test_the_run_page_gets_figures_a_table_and_a_page_even_where_no_folder_is_named(
    points, tmp_path
):
    histories = [artifact(tmp_path / name) for name in ("flat", "deep")]
    for hidden, history in zip((0, 4), histories, strict=True):
        xor_steps.train(points, hidden, history=history, metrics=artifact(tmp_path / "unused"))
    metrics, summary, page = (artifact(tmp_path / name) for name in ("metrics", "summary", "page"))
    xor_steps.compare(points, *histories, "", metrics=metrics, summary=summary, page=page)
    accuracy = files.read_json(tmp_path / "deep")["test"]["accuracy"][-1]
    assert metrics.figures["one hidden layer: test accuracy"] == accuracy
    assert len(metrics.figures) == 8
    assert "| one hidden layer | 21 |" in (tmp_path / "summary").read_text()
    assert (tmp_path / "page").read_text().startswith("<!DOCTYPE html>")
    assert not (tmp_path / "xor.json").exists()
