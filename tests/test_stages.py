"""The five stages as the pipeline joins them, with artifacts as kfp hands them to a component."""

import itertools
import json
import math
import re
from pathlib import Path

import pytest
from kfp import dsl

from citeflow import config, files, stages
from citeflow.artifacts import LocalArtifact
from citeflow.data import datasets
from citeflow.errors import ConfigError, DataError
from citeflow.evaluation import evaluator
from citeflow.files import termination_message
from citeflow.graph import preparation
from citeflow.kubernetes import launch as kubernetes_launch
from citeflow.kubernetes.job_spec import quantity
from citeflow.paths import RunPaths
from citeflow.reporting import publish as publishing
from citeflow.reporting import run_page
from citeflow.serving.citation import index as serving_index
from citeflow.training import launch

STAGES = ["download", "preprocess", "train", "evaluate", "publish"]
RUN = "synthetic-12345678"
RUN_ID = "1234567890"
FORM = {
    "dataset": "synthetic",
    "preset": "default",
    "settings": "",
    "predictor": "from-settings",
    "epochs": 0.0,
    "minutes": 0.0,
    "workers": 2,
    "run_name": "",
    "out_dir": "",
    "run_id": RUN_ID,
    "title": "Synthetic",
    "launcher": "local",
    "job": "",
}
"""The parameters of the citation pipeline that reach its first stage."""


def write_artifact(folder, kind, contents, **facts):
    with files.new_directory(folder) as work:
        for name, content in contents.items():
            files.write_json(work / name, content)
        files.write_manifest(work, kind, inputs={}, facts=facts)
    return folder


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "data")


@pytest.fixture
def artifact(tmp_path):
    """Makes an artifact as kfp hands it to a component."""

    def new(kind, name):
        return kind(name=name, uri=str(tmp_path / "artifacts" / name), metadata={})

    return new


@pytest.fixture
def calls(trained, monkeypatch):
    """Quick stand-ins for the library's functions; what each was called with, by stage."""
    calls = {}
    results = {name: json.loads((trained.report / name).read_text()) for name in REPORT_FILES}

    def download(dataset, *, data_root, config):
        calls["download"] = {"dataset": dataset, "config": config}
        return write_artifact(data_root / "raw" / "a1", "RawDataset", {"x.json": 1}, dataset="cora")

    def prepare(raw, *, data_root, config):
        calls["preprocess"] = {"raw": raw, "config": config}
        facts = {"num_papers": 7, "stages": {"download": {}}}
        return write_artifact(
            data_root / "prepared" / "b2", "PreparedGraph", {"x.json": 2}, **facts
        )

    def train(graph, run, **options):
        calls["train"] = {"graph": graph, "run": run, **options}
        facts = {"valid_mrr": 0.51239, "seconds": 2, "positives_per_s": 8121.7}
        facts |= {"peak_memory_bytes": 893417843.611948, "cpu_cores": 1.9, "stages": {}}
        return write_artifact(run.model, "TrainedModel", {"model.json": 3}, **facts)

    def evaluate(model, *, graph, run, runs_code):
        calls["evaluate"] = {"model": model, "graph": graph}
        assert not runs_code
        return write_artifact(run.report, "EvalReport", results)

    def publish(report, *, model, run, out):
        calls["publish"] = {"report": report, "model": model, "run": run}
        files.write_json(out / "report.json", results["report.json"])
        files.write_text(out / "report.html", "<html></html>")

    monkeypatch.setattr(datasets, "download_dataset", download)
    monkeypatch.setattr(preparation, "prepare", prepare)
    monkeypatch.setattr(launch, "train_locally", train)
    monkeypatch.setattr(kubernetes_launch, "train_on_cluster", train)
    monkeypatch.setattr(evaluator, "evaluate", evaluate)
    monkeypatch.setattr(publishing, "publish", publish)
    return calls


ROWS_OF_THE_PAGE = 10
"""Metrics that the UI of Kubeflow Pipelines 2.17 shows at a time, by name."""

REPORT_FILES = ("report.json", "curves.json")


def download(root, raw, **given):
    return stages.download(**{**FORM, **given}, data_root=root, raw=raw)


@pytest.fixture
def ran(calls, artifact, root):
    """The artifacts of all five stages, one after the other."""
    raw, graph = artifact(dsl.Dataset, "raw"), artifact(dsl.Dataset, "graph")
    model, fitted = artifact(dsl.Model, "model"), artifact(dsl.Metrics, "fitted")
    report, scores = artifact(dsl.Artifact, "report"), artifact(dsl.Metrics, "scores")
    curves = artifact(dsl.ClassificationMetrics, "curves")
    summary, page = artifact(dsl.Markdown, "summary"), artifact(dsl.HTML, "page")
    settled = download(root, raw, settings="train: {lr: 0.5}")
    stages.preprocess(raw, settled.sha256, settled.data_resolved, data_root=root, graph=graph)
    trained = stages.train(
        graph, settled.resolved, 3, settled.run, RUN_ID, "local", "",
        data_root=root, model=model, metrics=fitted,
    )  # fmt: skip
    scored = stages.evaluate(
        model, trained, graph, data_root=root, report=report, metrics=scores, classification=curves
    )
    stages.publish(report, scored, model, "", data_root=root, summary=summary, page=page)
    made = (raw, graph, model, fitted, report, scores, curves, summary, page)
    return {artifact.name: artifact for artifact in made}


def test_stages_find_what_the_stage_before_made(ran, calls, root):
    run = RunPaths(Path(root), RUN)
    graph = Path(root) / "prepared" / "b2"
    assert calls["preprocess"]["raw"] == Path(root) / "raw" / "a1"
    assert calls["train"]["graph"] == calls["evaluate"]["graph"] == graph
    assert calls["evaluate"]["model"] == calls["publish"]["model"] == run.model
    assert calls["publish"]["report"] == run.report
    assert calls["publish"]["run"] == calls["train"]["run"] == run
    assert (run.published / "report.html").is_file()


def test_stages_hand_on_the_settings(ran, calls):
    assert calls["train"]["config"].train.lr == 0.5
    assert calls["train"]["workers"] == 3
    # The graph depends on the section `data` alone, so that KFP's cache can serve it.
    assert calls["preprocess"]["config"] == config.Config().data


@pytest.mark.parametrize(("citations", "least", "most"), [(2e5, 1e9, 2e9), (30e6, 5e9, 8e9)])
def test_download_asks_for_memory_as_large_as_the_dataset(
    calls, artifact, root, monkeypatch, citations, least, most
):
    """A demo fits anywhere; two workers in one step took 4.9 GB at the shape of ogbl-citation2."""
    monkeypatch.setattr(datasets, "approximate_citations", lambda raw: citations)
    settled = download(root, artifact(dsl.Dataset, "raw"))
    assert least < quantity(settled.memory) < most < quantity(settled.memory_limit)


def test_stages_note_path_digest_and_facts_in_the_artifact(ran, root):
    graph = ran["graph"]
    manifest = files.read_manifest(Path(root) / "prepared" / "b2", "PreparedGraph")
    assert json.loads(Path(graph.path).read_text())["kind"] == "PreparedGraph"
    assert graph.metadata["location"] == "prepared/b2"
    assert graph.metadata["num_papers"] == 7
    assert graph.metadata["sha256"] == manifest.sha256
    assert "stages" not in graph.metadata


def test_train_hands_the_whole_model_to_kfp(ran):
    assert files.verify(Path(ran["model"].path), "TrainedModel").facts["seconds"] == 2
    assert ran["model"].metadata["launcher"] == "local"
    assert ran["fitted"].metadata == {
        "valid_mrr": 0.5124,
        "train_seconds": 2.0,
        "citations_per_s": 8122.0,
        "peak_memory_mib": 852.0,
        "cpu_cores": 1.9,
    }
    assert json.loads(Path(ran["fitted"].path).read_text()) == ran["fitted"].metadata


def test_train_asks_the_cluster_for_the_job_of_the_form(calls, artifact, root, monkeypatch):
    monkeypatch.setenv("CITEFLOW_TRAIN_IMAGE", "citeflow-train:1")
    raw, graph = artifact(dsl.Dataset, "raw"), artifact(dsl.Dataset, "graph")
    job = f"{{cpu: 3, volumes: {{mine: {root}}}}}"
    settled = download(root, raw, launcher="pytorchjob", job=job, workers=5)
    stages.preprocess(raw, settled.sha256, settled.data_resolved, data_root=root, graph=graph)
    stages.train(
        graph, settled.resolved, 5, settled.run, RUN_ID, "pytorchjob", job,
        data_root=root, model=artifact(dsl.Model, "m"), metrics=artifact(dsl.Metrics, "f"),
    )  # fmt: skip
    request = calls["train"]["request"]
    assert (request.launcher, request.run_id) == ("pytorchjob", RUN_ID)
    spec = request.spec
    assert (spec.workers, spec.cpu, spec.image) == (5, "3", "citeflow-train:1")


def test_train_takes_the_launcher_that_download_has_settled(calls, artifact, root, monkeypatch):
    """Another attempt of train may find an API that is away, or other rights."""
    raw, graph = artifact(dsl.Dataset, "raw"), artifact(dsl.Dataset, "graph")
    job = f"{{volumes: {{mine: {root}}}}}"
    answers = {"auto": "trainjob", "trainjob": "trainjob"}
    monkeypatch.setattr(stages, "choose_launcher", answers.pop)
    settled = download(root, raw, launcher="auto", job=job)
    assert settled.launcher == settled.share["launcher"] == "trainjob"
    stages.preprocess(raw, settled.sha256, settled.data_resolved, data_root=root, graph=graph)
    stages.train(
        graph, settled.resolved, 2, settled.run, RUN_ID, settled.launcher, job,
        data_root=root, model=artifact(dsl.Model, "m"), metrics=artifact(dsl.Metrics, "f"),
    )  # fmt: skip
    assert calls["train"]["request"].launcher == "trainjob"


def test_evaluate_shows_scores_baselines_and_a_short_curve(ran, trained):
    report = json.loads((trained.report / "report.json").read_text())
    scores = ran["scores"].metadata
    assert scores["test_mrr"] == round(report["test"]["mrr"], 4)
    assert scores["test_hits@10"] == round(report["test"]["hits@10"], 4)
    assert scores["all_recall@20"] == round(report["protocols"]["all"]["recall@20"], 4)
    assert scores["cold_mrr"] == round(report["protocols"]["cold"]["mrr"], 4)
    best = max(each["mrr"] for each in report["baselines"].values())
    assert scores["baseline_mrr"] == round(best, 4)
    assert len(scores) <= ROWS_OF_THE_PAGE
    points = ran["curves"].metadata["confidenceMetrics"]
    assert len(points) <= 20
    assert [points[0]["recall"], points[-1]["recall"]] == [0.0, 1.0]
    assert all(math.isfinite(point["confidenceThreshold"]) for point in points)
    assert json.loads(Path(ran["scores"].path).read_text()) == scores
    preview = json.loads(Path(ran["curves"].path).read_text())
    assert len(preview["roc_curve"]["tpr"]) == len(points)
    assert sum(map(sum, preview["confusion_matrix"]["matrix"])) > 0


def test_train_metrics_fit_a_page_of_the_ui(trained):
    facts = files.read_manifest(trained.model, "TrainedModel").facts
    metrics = run_page.training_metrics(facts, score="valid_mrr", samples="citations")
    assert "valid_mrr" in metrics
    assert len(metrics) <= ROWS_OF_THE_PAGE


def test_publish_shows_page_and_paths(ran):
    text = Path(ran["summary"].path).read_text()
    assert "published" in text
    assert "logs" in text
    assert "<html>" in Path(ran["page"].path).read_text()


def test_publish_takes_a_folder_below_the_data_root(ran, root, artifact):
    summary, page = artifact(dsl.Markdown, "summary2"), artifact(dsl.HTML, "page2")
    stages.publish(
        ran["report"], "", ran["model"], "mine", data_root=root, summary=summary, page=page
    )
    assert (Path(root) / "mine" / "report.html").is_file()


@pytest.mark.parametrize("service", ["", "papers"])
def test_index_is_deployed_to_a_named_service_only(ran, root, artifact, monkeypatch, service):
    def write_index(model, graph, folder):
        assert (model, graph) == (RunPaths(Path(root), RUN).model, Path(root) / "prepared" / "b2")
        return write_artifact(folder, "ServingIndex", {"ids.json": [1]})

    monkeypatch.setattr(serving_index, "write_index", write_index)
    made = artifact(dsl.Artifact, "index")
    digest = stages.index(
        ran["model"], "", ran["graph"], data_root=root, index=made, deploy=service
    )
    assert made.metadata["location"] == f"runs/{RUN}/index"
    link = Path(root) / "serving" / "papers" / "current"
    assert link.is_symlink() == bool(service)
    assert not service or files.read_manifest(link, "ServingIndex").sha256 == digest


def test_stages_take_the_artifacts_of_a_command(ran, root):
    data_root = Path(root)
    model = LocalArtifact.open(data_root / "runs" / RUN / "model", "TrainedModel", data_root)
    graph = LocalArtifact.open(data_root / "prepared" / "b2", "PreparedGraph", data_root)
    report = LocalArtifact()
    digest = stages.evaluate(
        model, "", graph, data_root=root, report=report, metrics=report, classification=report
    )
    assert report.metadata["sha256"] == digest
    assert report.metadata["location"] == f"runs/{RUN}/report"


@pytest.mark.parametrize(
    ("given", "epochs", "minutes", "predictor"),
    [
        ({}, 4.0, 5.0, "mlp"),
        ({"epochs": 2.0}, 2.0, 0.0, "mlp"),
        ({"minutes": 9.0}, 4.0, 9.0, "mlp"),
        ({"predictor": "dot"}, 4.0, 5.0, "dot"),
    ],
)
def test_download_lets_form_fields_override_settings(
    calls, artifact, root, given, epochs, minutes, predictor
):
    settings = "{train: {epochs: 4, minutes: 5}, model: {predictor: mlp}}"
    settled = download(root, artifact(dsl.Dataset, "raw"), settings=settings, **given)
    resolved = config.from_yaml(settled.resolved)
    assert (resolved.train.epochs, resolved.train.minutes) == (epochs, minutes)
    assert resolved.model.predictor == predictor


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 1.0, "minutes": 1.0},
        {"epochs": -1.0},
        {"workers": 0},
        {"preset": "best"},
        {"settings": "train: {epoch: 1}"},
        {"settings": "train: {papers: 1}"},
        {"settings": "[1"},
        {"predictor": "cosine"},
        {"run_name": "../x"},
        {"launcher": "mpijob"},
        {"job": "[1"},
        {"job": "{cpus: 2}"},
        {"job": "{memory: lots}"},
        {"launcher": "pytorchjob"},
        {"out_dir": "taken"},
        {"deploy": "../models"},
    ],
)
def test_download_checks_the_form_before_it_fetches(calls, artifact, root, given, capsys):
    (Path(root) / "taken" / "model").mkdir(parents=True)
    with pytest.raises(SystemExit) as ended:
        download(root, artifact(dsl.Dataset, "raw"), **given)
    assert ended.value.code == ConfigError.exit_code
    assert capsys.readouterr().err.startswith("error: ")
    assert calls == {}


def test_download_finds_a_dataset_below_the_data_root(calls, artifact, root):
    (Path(root) / "sub" / "papers").mkdir(parents=True)
    (Path(root) / "synthetic").mkdir()
    raw = artifact(dsl.Dataset, "raw")
    given = {"sub/papers": f"{root}/sub/papers", f"{root}/sub/papers": f"{root}/sub/papers"}
    given |= {name: name for name in ("synthetic", "https://example.org/a.zip", "syntetic")}
    for dataset, expected in given.items():
        download(root, raw, dataset=dataset)
        assert calls["download"]["dataset"] == expected


def test_stages_leave_the_error_and_end_with_its_exit_code(
    calls, artifact, root, tmp_path, monkeypatch, capsys
):
    def refuse(*args, **kwargs):
        raise raised

    monkeypatch.setattr(datasets, "download_dataset", refuse)
    monkeypatch.setenv(termination_message.VARIABLE, str(tmp_path / "message"))
    raised = DataError("bad row", "papers.csv:3", hint="mend it")
    with pytest.raises(SystemExit) as ended:
        download(root, artifact(dsl.Dataset, "raw"))
    assert ended.value.code == 65
    message = termination_message.read(tmp_path / "message")
    assert str(message) == "error: bad row: papers.csv:3\nhint: mend it"
    # The next stage of a loop, which kfp.local starts all the same, ends at once.
    with pytest.raises(SystemExit) as ended:
        stages.preprocess(None, "", "", data_root=root, graph=None)
    assert ended.value.code == 65
    (tmp_path / "message").unlink()
    raised = OSError(28, "No space left on device", "/mnt/x")
    with pytest.raises(SystemExit) as ended:
        download(root, artifact(dsl.Dataset, "raw"))
    assert ended.value.code == 70
    assert capsys.readouterr().err.endswith("error: No space left on device: /mnt/x\n")


def test_stages_let_a_bug_pass_with_its_traceback(calls, artifact, root, monkeypatch):
    monkeypatch.setattr(datasets, "download_dataset", lambda *args, **kwargs: {}["x"])
    with pytest.raises(KeyError):
        download(root, artifact(dsl.Dataset, "raw"))


@pytest.mark.parametrize("replaced", [False, True])
def test_stages_refuse_an_artifact_that_is_gone(calls, artifact, root, capsys, replaced):
    raw = artifact(dsl.Dataset, "raw")
    settled = download(root, raw)
    if replaced:
        write_artifact(Path(root) / "raw" / "a1", "RawDataset", {"x.json": "another"})
    else:
        (Path(root) / "raw" / "a1" / "manifest.json").unlink()
    graph = artifact(dsl.Dataset, "graph")
    with pytest.raises(SystemExit) as ended:
        stages.preprocess(raw, settled.sha256, settled.data_resolved, data_root=root, graph=graph)
    assert ended.value.code == (74 if replaced else 66)
    error = capsys.readouterr().err
    assert re.search(r"^error: .*the RawDataset .+\nhint: .+ caching off", error, re.MULTILINE)


@pytest.mark.parametrize("location", ["", "/etc", "../up"])
def test_stages_do_not_leave_the_volume(artifact, root, location, capsys):
    raw = artifact(dsl.Dataset, "raw")
    raw.metadata["location"] = location
    with pytest.raises(SystemExit) as ended:
        stages.preprocess(raw, "", "", data_root=root, graph=None)
    assert ended.value.code == 74
    assert "not an artifact of a RawDataset" in capsys.readouterr().err


def test_artifacts_carry_costs_and_name_their_inputs(trained):
    """Of a real run: each stage's cost is with all that came before it."""
    raw = next((trained.data_root / "raw").iterdir())
    folders = [raw, trained.graph, trained.model, trained.report]
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    for number, manifest in enumerate(manifests[:3]):
        assert list(manifest["facts"]["stages"]) == STAGES[: number + 1]
    report = json.loads((trained.report / "report.json").read_text())
    assert list(report["stages"]) == STAGES[:4]
    for cost in report["stages"].values():
        assert 0 <= cost["seconds"] < 600
        assert 0 < cost["cpu_seconds"] < 600
        assert 10**7 < cost["peak_rss_bytes"] < 10**11
    for source, made in itertools.pairwise(manifests):
        assert made["inputs"][source["kind"]] == source["sha256"]
