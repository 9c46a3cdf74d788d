import json

import pytest
import yaml

from citeflow.cli.main import main


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What a whole run of the compiled pipeline on a tiny graph leaves."""
    folder = tmp_path_factory.mktemp("run")
    small = {
        "synthetic": {"papers": 600},
        "train": {"epochs": 1, "evaluations": 1, "papers": 300},
        "model": {"width": 8},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    argv = [
        "--config",
        str(folder / "small.yaml"),
        "--out",
        str(folder / "out"),
        "--run-name",
        "tiny",
    ]
    assert main(["run", *argv, "--data-root", str(folder / "data")]) == 0
    return folder / "out"


def test_a_run_leaves_report_page_model_and_logs(out):
    report = json.loads((out / "report.json").read_text())
    assert 0 < report["test"]["mrr"] <= 1
    assert report["config"]["synthetic"]["papers"] == 600
    assert set(report["stages"]) == {"download", "preprocess", "train", "evaluate", "publish"}
    assert "<html" in (out / "report.html").read_text()
    assert (out / "model" / "model.safetensors").is_file()
    assert list((out.parent / "data" / "logs" / "tiny").glob("events.*"))


def test_the_volume_holds_the_nouns_and_nothing_half_made(out):
    data = out.parent / "data"
    assert {path.name for path in data.iterdir()} == {"raw", "prepared", "runs", "logs"}
    for noun in [*data.glob("raw/*"), *data.glob("prepared/*"), data / "runs" / "tiny" / "model"]:
        assert (noun / "manifest.json").is_file(), noun
