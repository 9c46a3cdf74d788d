"""A whole run of the compiled pipeline on a tiny graph."""

import json

import pytest
import yaml

from citeflow.cli.main import main


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder that the run was published to."""
    folder = tmp_path_factory.mktemp("run")
    small = {
        "synthetic": {"num_papers": 600},
        "train": {"epochs": 1, "num_validations": 1, "nodes_per_batch": 300},
        "model": {"hidden_channels": 8},
    }
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(small))
    paths = ["--out", str(folder / "out"), "--data-root", str(folder / "data")]
    assert (
        main(["run", "--config", str(config), "--run-name", "tiny", "--deploy", "papers", *paths])
        == 0
    )
    return folder / "out"


def test_run_leaves_report_page_model_and_logs(out):
    report = json.loads((out / "report.json").read_text())
    assert 0 < report["test"]["mrr"] <= 1
    assert report["config"]["synthetic"]["num_papers"] == 600
    assert set(report["stages"]) == {"download", "preprocess", "train", "evaluate", "publish"}
    assert "<html" in (out / "report.html").read_text()
    assert (out / "model" / "model.safetensors").is_file()
    assert list((out.parent / "data" / "logs" / "tiny").glob("events.*"))


def test_run_leaves_complete_artifacts_on_the_volume(out):
    data = out.parent / "data"
    assert {path.name for path in data.iterdir()} == {"raw", "prepared", "runs", "logs", "serving"}
    artifacts = [*data.glob("raw/*"), *data.glob("prepared/*"), data / "runs" / "tiny" / "model"]
    artifacts.append(data / "serving" / "papers" / "current")
    for artifact in artifacts:
        assert (artifact / "manifest.json").is_file(), artifact


def test_run_of_images_leaves_report_page_and_model(tmp_path, capsys):
    paths = ["--out", str(tmp_path / "out"), "--data-root", str(tmp_path / "data")]
    settings = ["--set", "train.epochs=2", "--set", "train.num_validations=1"]
    argv = ["run", "--task", "images", "--dataset", "digits", "--workers", "1", *settings, *paths]
    assert main(argv) == 0
    said = json.loads(capsys.readouterr().out)
    assert 0.5 < said["test"]["accuracy"] <= 1
    assert "data:image/png" in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
