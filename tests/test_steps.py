import json
import math
import re
from pathlib import Path

import pytest
from kfp import dsl
from sample_run import sample_report

from citeflow import config, files, stages, steps
from citeflow.errors import ConfigError, DataError
from citeflow.utils import termination_message

REPORT = sample_report().to_json()
CURVES = {
    "roc": {name: [index / 500 for index in range(501)] for name in ("fpr", "tpr", "threshold")},
    "confusion": [[3, 1], [2, 2]],
}


def make(place, kind, contents, **facts):
    """Write a noun, as a stage does."""
    with files.new_directory(place) as work:
        for name, content in contents.items():
            files.write_json(work / name, content)
        files.write_manifest(work, kind, inputs={}, facts=facts)
    return place


@pytest.fixture
def asked(monkeypatch):
    """What the stages, replaced by quick ones, were called with."""
    calls = {}

    def download(dataset, *, data_root, config):
        calls["download"] = {"dataset": dataset, "config": config}
        return make(data_root / "raw" / "a1", "RawDataset", {"x.json": 1}, dataset="cora")

    def preprocess(raw, *, data_root, config):
        calls["preprocess"] = {"raw": raw, "config": config}
        return make(
            data_root / "prepared" / "b2",
            "PreparedGraph",
            {"x.json": 2},
            num_papers=7,
            stages={"x": 1},
        )

    def train(graph, *, run_dir, log_dir, config, workers, request):
        calls["train"] = {
            "graph": graph,
            "log_dir": log_dir,
            "config": config,
            "workers": workers,
            "request": request,
        }
        return make(run_dir / "model", "TrainedModel", {"model.json": 3}, valid_mrr=0.5, seconds=2)

    def evaluate(model, *, graph, run_dir):
        calls["evaluate"] = {"model": model, "graph": graph}
        return make(
            run_dir / "report", "EvalReport", {"report.json": REPORT, "curves.json": CURVES}
        )

    def publish(report, *, model, log_dir, out_dir):
        calls["publish"] = {"report": report, "model": model, "log_dir": log_dir}
        files.write_json(out_dir / "report.json", REPORT)
        files.write_text(out_dir / "report.html", "<html></html>")
        return out_dir

    for stage in (download, preprocess, train, evaluate, publish):
        monkeypatch.setattr(stages, stage.__name__, stage)
    return calls


@pytest.fixture
def artifact(tmp_path):
    """Makes an artifact as kfp hands it to a component."""

    def new(kind, name):
        return kind(name=name, uri=str(tmp_path / "artifacts" / name), metadata={})

    return new


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "data")


def settle(root, raw, **given):
    form = {
        "dataset": "synthetic",
        "preset": "default",
        "settings": "",
        "predictor": "settings",
        "epochs": 0.0,
        "minutes": 0.0,
        "workers": 2,
        "run_name": "",
        "out_dir": "",
        "run_id": "1234567890",
        "launcher": "local",
        "job": "",
    }
    return steps.download(*{**form, **given}.values(), data_root=root, raw=raw)


@pytest.fixture
def ran(asked, artifact, root):
    """All five steps, one after the other, as the pipeline joins them."""
    raw, graph = artifact(dsl.Dataset, "raw"), artifact(dsl.Dataset, "graph")
    model, fitted = artifact(dsl.Model, "model"), artifact(dsl.Metrics, "fitted")
    report, scores = artifact(dsl.Artifact, "report"), artifact(dsl.Metrics, "scores")
    curves = artifact(dsl.ClassificationMetrics, "curves")
    summary, page = artifact(dsl.Markdown, "summary"), artifact(dsl.HTML, "page")
    settled = settle(root, raw, settings="train: {lr: 0.5}")
    steps.preprocess(raw, settled.sha256, settled.data_resolved, data_root=root, graph=graph)
    trained = steps.train(
        graph, settled.resolved, 3, settled.run, "1234567890", "local", "",
        data_root=root, model=model, metrics=fitted,
    )  # fmt: skip
    scored = steps.evaluate(
        model, trained, graph, data_root=root, report=report, metrics=scores, classification=curves
    )
    steps.publish(report, scored, model, "", data_root=root, summary=summary, page=page)
    return {
        artifact.name: artifact
        for artifact in (raw, graph, model, fitted, report, scores, curves, summary, page)
    }


def test_an_artifact_carries_the_manifest_and_where_the_data_lies(ran, root):
    graph = ran["graph"]
    assert json.loads(Path(graph.path).read_text())["kind"] == "PreparedGraph"
    assert graph.metadata["location"] == "prepared/b2"
    assert graph.metadata["num_papers"] == 7
    assert (
        graph.metadata["sha256"]
        == files.read_manifest(Path(root) / "prepared" / "b2", "PreparedGraph").sha256
    )


def test_each_step_finds_what_the_step_before_it_made(ran, asked, root):
    run = Path(root) / "runs" / "synthetic-12345678"
    assert asked["preprocess"]["raw"] == Path(root) / "raw" / "a1"
    assert asked["train"]["graph"] == asked["evaluate"]["graph"] == Path(root) / "prepared" / "b2"
    assert asked["evaluate"]["model"] == asked["publish"]["model"] == run / "model"
    assert asked["publish"]["report"] == run / "report"
    assert (
        asked["publish"]["log_dir"]
        == asked["train"]["log_dir"]
        == Path(root) / "logs" / "synthetic-12345678"
    )
    assert (run / "published" / "report.html").is_file()


def test_the_settings_of_the_form_reach_the_training(ran, asked):
    assert asked["train"]["config"].train.lr == 0.5
    assert asked["train"]["workers"] == 3
    assert asked["preprocess"]["config"].train == config.Config().train


def test_a_training_here_asks_no_cluster(ran, asked):
    assert asked["train"]["request"] is None


def test_what_the_form_says_of_the_job_reaches_the_cluster(asked, artifact, root, monkeypatch):
    monkeypatch.setenv("CITEFLOW_TRAIN_IMAGE", "citeflow-train:1")
    raw, graph, model, fitted = (
        artifact(dsl.Dataset, name) for name in ("raw", "graph", "model", "metrics")
    )
    job = f"{{cpu: 3, volumes: {{mine: {root}}}}}"
    settled = settle(root, raw, launcher="pytorchjob", job=job, workers=5)
    steps.preprocess(raw, settled.sha256, settled.data_resolved, data_root=root, graph=graph)
    steps.train(
        graph, settled.resolved, 5, settled.run, "1234567890", "pytorchjob", job,
        data_root=root, model=model, metrics=artifact(dsl.Metrics, "fitted"),
    )  # fmt: skip
    request = asked["train"]["request"]
    assert (request.kind, request.run_id) == ("PyTorchJob", "1234567890")
    assert (request.spec.workers, request.spec.cpu, request.spec.image) == (
        5,
        "3",
        "citeflow-train:1",
    )
    assert fitted.metadata == {}


def test_the_model_artifact_is_the_whole_model(ran):
    assert files.verify(Path(ran["model"].path), "TrainedModel").facts["seconds"] == 2


def test_the_run_page_gets_figures_and_baselines(ran):
    assert ran["fitted"].metadata == {"valid_mrr": 0.5, "seconds": 2.0}
    assert ran["scores"].metadata["test mrr"] == 0.7518
    assert ran["scores"].metadata["adamic_adar mrr"] == 0.6694


def test_the_curve_on_the_run_page_is_short_and_keeps_its_ends(ran):
    points = ran["curves"].metadata["confidenceMetrics"]
    assert len(points) <= steps.ROC_POINTS
    assert [points[0]["recall"], points[-1]["recall"]] == [0.0, 1.0]
    assert all(math.isfinite(point["confidenceThreshold"]) for point in points)


def test_the_summary_tells_where_everything_lies(ran, root):
    text = Path(ran["summary"].path).read_text()
    assert "published" in text
    assert "logs" in text
    assert "<html>" in Path(ran["page"].path).read_text()


@pytest.mark.parametrize(
    ("given", "epochs", "minutes", "predictor"),
    [
        ({}, 4.0, 5.0, "mlp"),
        ({"epochs": 2.0}, 2.0, 0.0, "mlp"),
        ({"minutes": 9.0}, 4.0, 9.0, "mlp"),
        ({"predictor": "dot"}, 4.0, 5.0, "dot"),
    ],
)
def test_a_field_of_the_form_that_is_filled_in_overrides_the_settings(
    asked, artifact, root, given, epochs, minutes, predictor
):
    settings = "{train: {epochs: 4, minutes: 5}, model: {predictor: mlp}}"
    settled = settle(root, artifact(dsl.Dataset, "raw"), settings=settings, **given)
    resolved = config.from_yaml(settled.resolved)
    assert (resolved.train.epochs, resolved.train.minutes, resolved.model.predictor) == (
        epochs,
        minutes,
        predictor,
    )


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 1.0, "minutes": 1.0},
        {"epochs": -1.0},
        {"workers": 0},
        {"preset": "best"},
        {"settings": "train: {epoch: 1}"},
        {"settings": "[1"},
        {"predictor": "cosine"},
        {"run_name": "../x"},
        {"launcher": "mpijob"},
        {"job": "[1"},
        {"job": "{cpus: 2}"},
        {"job": "{memory: lots}"},
        {"launcher": "pytorchjob"},
    ],
)
def test_a_wrong_form_ends_before_anything_is_fetched(asked, artifact, root, given, capsys):
    with pytest.raises(SystemExit) as ended:
        settle(root, artifact(dsl.Dataset, "raw"), **given)
    assert ended.value.code == ConfigError.exit_code
    assert capsys.readouterr().err.startswith("error: ")
    assert asked == {}


def test_a_folder_that_is_somebody_s_own_ends_the_run_before_anything_is_fetched(
    asked, artifact, root, tmp_path
):
    (tmp_path / "out" / "model").mkdir(parents=True)
    with pytest.raises(SystemExit) as ended:
        settle(root, artifact(dsl.Dataset, "raw"), out_dir=str(tmp_path / "out"))
    assert ended.value.code == ConfigError.exit_code
    assert asked == {}


@pytest.mark.parametrize("name", ["my-papers", "sub/my-papers.zip"])
def test_a_dataset_on_the_volume_may_be_named_relative_to_the_data_root(
    asked, artifact, root, name
):
    place = Path(root) / name
    place.mkdir(parents=True)
    for dataset in (name, str(place)):
        settle(root, artifact(dsl.Dataset, "raw"), dataset=dataset)
        assert asked["download"]["dataset"] == str(place)


@pytest.mark.parametrize(
    "dataset", ["synthetic", "ogbl-citation2", "https://example.org/a.zip", "syntetic", ""]
)
def test_any_other_dataset_reaches_the_download_as_it_is(asked, artifact, root, dataset):
    (Path(root) / "synthetic").mkdir(parents=True)
    settle(root, artifact(dsl.Dataset, "raw"), dataset=dataset)
    assert asked["download"]["dataset"] == dataset


def test_a_relative_out_dir_lies_below_the_data_root(ran, root, artifact):
    summary, page = artifact(dsl.Markdown, "summary2"), artifact(dsl.HTML, "page2")
    digest = ran["report"].metadata["sha256"]
    steps.publish(
        ran["report"], digest, ran["model"], "mine", data_root=root, summary=summary, page=page
    )
    assert (Path(root) / "mine" / "report.html").is_file()


def test_a_failed_step_leaves_its_error_and_ends_with_its_exit_code(
    asked, artifact, root, tmp_path, monkeypatch
):
    def refuse(*args, **kwargs):
        raise DataError("bad row", "papers.csv:3", hint="mend it")

    monkeypatch.setattr(stages, "download", refuse)
    monkeypatch.setenv(termination_message.VARIABLE, str(tmp_path / "words"))
    with pytest.raises(SystemExit) as ended:
        settle(root, artifact(dsl.Dataset, "raw"))
    assert ended.value.code == 65
    assert (
        str(termination_message.read(tmp_path / "words"))
        == "error: bad row: papers.csv:3\nhint: mend it"
    )


def test_a_full_volume_ends_a_step_with_one_line_and_a_bug_with_its_traceback(
    asked, artifact, root, monkeypatch, capsys
):
    def refuse(*args, **kwargs):
        raise raised

    monkeypatch.setattr(stages, "download", refuse)
    raised = OSError(28, "No space left on device", "/mnt/x")
    with pytest.raises(SystemExit) as ended:
        settle(root, artifact(dsl.Dataset, "raw"))
    assert ended.value.code == 70
    assert capsys.readouterr().err == "error: No space left on device: /mnt/x\n"
    raised = KeyError("x")
    with pytest.raises(KeyError):
        settle(root, artifact(dsl.Dataset, "raw"))


def test_a_noun_that_is_gone_from_the_volume_is_made_again_with_caching_off(
    asked, artifact, root, capsys
):
    raw = artifact(dsl.Dataset, "raw")
    settled = settle(root, raw)
    (Path(root) / "raw" / "a1" / "manifest.json").unlink()
    with pytest.raises(SystemExit) as ended:
        steps.preprocess(
            raw,
            settled.sha256,
            settled.data_resolved,
            data_root=root,
            graph=artifact(dsl.Dataset, "g"),
        )
    assert ended.value.code == 66
    assert re.fullmatch(
        r"error: the RawDataset .+\nhint: .+ caching off.*\n", capsys.readouterr().err
    )


def test_a_noun_that_was_replaced_on_the_volume_is_not_taken_for_the_old_one(
    asked, artifact, root, capsys
):
    raw = artifact(dsl.Dataset, "raw")
    settled = settle(root, raw)
    make(Path(root) / "raw" / "a1", "RawDataset", {"x.json": "another"})
    with pytest.raises(SystemExit) as ended:
        steps.preprocess(
            raw,
            settled.sha256,
            settled.data_resolved,
            data_root=root,
            graph=artifact(dsl.Dataset, "g"),
        )
    assert ended.value.code == 74
    assert "RawDataset" in capsys.readouterr().err
