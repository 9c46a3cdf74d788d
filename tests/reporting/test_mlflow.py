"""MLflow: a real server on loopback, with SQLite and a folder for artifacts, and failing ones."""

import base64
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from mlflow_server import free_port

from citeflow import files
from citeflow.cli.main import main
from citeflow.errors import UnavailableError
from citeflow.evaluation import trained_model
from citeflow.paths import RunPaths
from citeflow.report import Curves
from citeflow.reporting import links, mlflow, mlflow_client

PASSWORD = "hunter2-planted"


def run_python(code, *arguments, **variables):
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    variables = inherited | variables
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)


def publish_arguments(trained, out):
    arguments = ["publish", trained.report, "--model", trained.model, "--out", out]
    return [*arguments, "--data-root", trained.data_root]


pytestmark = pytest.mark.usefixtures("no_variables")


@pytest.fixture(scope="module")
def log_run(trained, out):
    def call(report=trained.report, run=trained.run, out=out, **options):
        mlflow.log_run(report, model=trained.model, run=run, out=out, **options)

    return call


@pytest.fixture
def mlflow_at(server, monkeypatch, request):
    """The server as a user sets it, with an experiment of the test's own."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    client = MlflowClient(server)

    def runs():
        found = client.get_experiment_by_name(request.node.name)
        return list(client.search_runs([found.experiment_id])) if found else []

    return SimpleNamespace(uri=server, client=client, runs=runs)


@pytest.fixture(scope="module")
def logged(server, log_run):
    """The run as MLflow has it after a pod of Kubeflow Pipelines logged it once."""
    from mlflow import MlflowClient

    variables = {
        "MLFLOW_TRACKING_URI": server,
        "MLFLOW_EXPERIMENT_NAME": "logged once",
        "CITEFLOW_KFP_RUN_ID": "3fe1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        log_run()
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("logged once").experiment_id
    (only,) = client.search_runs([experiment])
    return SimpleNamespace(client=client, run=only, id=only.info.run_id)


def manifest(folder):
    return files.read_json(folder / files.MANIFEST)


def models_of(run, client):
    experiment, run_id = run.info.experiment_id, run.info.run_id
    return list(client.search_logged_models([experiment], f"source_run_id = '{run_id}'"))


def test_log_run_has_the_settings_and_length_of_training(logged, trained):
    run = logged.run
    assert (run.info.run_name, run.info.status) == ("small", "FINISHED")
    settings = {
        f"{section}.{key}": str(value)
        for section, values in trained.config.to_dict().items()
        if section != "recovery"
        for key, value in values.items()
    }
    assert {**settings, "workers": "1", "dataset": "papers"}.items() <= run.data.params.items()
    records = Curves.read(trained.report).history
    length_ms = 1000 * (records[-1]["wall_time"] - records[0]["wall_time"])
    assert run.info.end_time - run.info.start_time >= length_ms - 1


def test_log_run_curves_have_steps_and_times(logged, trained, out):
    curves = Curves.read(trained.report)
    sources = {
        "loss": curves.history,
        "lr": curves.history,
        "positives_per_s": curves.history,
        "valid_mrr": curves.evaluations,
        "valid_accuracy": curves.evaluations,
        "valid_hard_mrr": curves.evaluations,
    }
    for name, entries in sources.items():
        history = logged.client.get_metric_history(logged.id, f"train/{name}")
        points = sorted((point.step, point.value, point.timestamp) for point in history)
        assert points == [
            (entry["step"], entry[name], round(1000 * entry["wall_time"])) for entry in entries
        ]
    report = files.read_json(out / "report.json")
    metrics = logged.run.data.metrics
    for split in ("test", "valid"):
        for name, value in report[split].items():
            assert metrics[f"{split}/{name.replace('@', '_at_')}"] == value
    assert metrics["all/recall_at_20"] == report["protocols"]["all"]["recall@20"]
    for name, scores in report["baselines"].items():
        assert metrics[f"baseline/{name}"] == scores["mrr"]
    assert metrics["stage/train_seconds"] == report["stages"]["train"]["seconds"]
    names = {artifact.path for artifact in logged.client.list_artifacts(logged.id)}
    assert names == {"report.json", "report.html"}


def test_log_run_model_comes_back_whole(logged, trained, server, tmp_path, monkeypatch):
    from mlflow.artifacts import download_artifacts

    (found,) = models_of(logged.run, logged.client)
    model = logged.client.get_logged_model(found.model_id)
    assert str(model.status) == "READY"
    outputs = logged.client.get_run(logged.id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [found.model_id]
    assert model.params == logged.run.data.params
    measured = {metric.key: (metric.value, metric.dataset_digest) for metric in model.metrics}
    digest = manifest(trained.graph)["sha256"][:36]
    assert measured["test/mrr"] == (logged.run.data.metrics["test/mrr"], digest)
    assert {name.partition("/")[0] for name in measured} == {
        "test", "valid", "all", "hard", "cold"
    }  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    folder = Path(download_artifacts(artifact_uri=model.model_uri, dst_path=str(tmp_path)))
    assert trained_model.load(folder).manifest.sha256 == manifest(trained.model)["sha256"]
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pt", ".pth")]


def test_log_run_names_every_artifact_of_the_lineage(logged, trained):
    graph = manifest(trained.graph)
    digests = {
        "RawDataset": graph["inputs"]["RawDataset"],
        "PreparedGraph": graph["sha256"],
        "TrainedModel": manifest(trained.model)["sha256"],
        "EvalReport": manifest(trained.report)["sha256"],
    }
    assert {**digests, "kfp_run_id": "3fe1"}.items() <= logged.run.data.tags.items()
    inputs = {entry.dataset.name: entry.dataset for entry in logged.run.inputs.dataset_inputs}
    assert set(inputs) == {"papers (RawDataset)", "papers (PreparedGraph)"}
    for kind in ("RawDataset", "PreparedGraph"):
        dataset = inputs[f"papers ({kind})"]
        assert dataset.digest == digests[kind][:36]
        assert json.loads(dataset.profile)["sha256"] == digests[kind]
    assert json.loads(inputs["papers (PreparedGraph)"].profile)["num_papers"] == 400


def test_log_run_twice_adds_nothing(mlflow_at, log_run, trained, out, tmp_path):
    log_run()
    (before,) = mlflow_at.runs()
    log_run()
    (after,) = mlflow_at.runs()
    assert after.to_dictionary() == before.to_dictionary()

    newer = tmp_path / "small" / "report"
    content = files.read_json(trained.report / "report.json")
    content["test"]["mrr"] = 0.125
    with files.new_directory(newer) as work:
        files.write_json(work / "report.json", content)
        files.copy_file(trained.report / "curves.json", work / "curves.json")
        inputs = manifest(trained.report)["inputs"]
        files.write_manifest(work, "EvalReport", inputs=inputs, facts={})
    shutil.copytree(out, tmp_path / "out")
    files.write_json(tmp_path / "out" / "report.json", content)
    log_run(newer, out=tmp_path / "out")
    (run,) = mlflow_at.runs()
    assert run.data.tags["EvalReport"] == manifest(newer)["sha256"]
    assert mlflow_at.client.get_metric_history(run.info.run_id, "test/mrr")[-1].value == 0.125
    assert len(models_of(run, mlflow_at.client)) == 1


@pytest.mark.parametrize("broken", ["log_inputs", "finalize_logged_model"])
def test_log_run_completes_a_run_that_was_cut_off(mlflow_at, log_run, monkeypatch, broken):
    from mlflow import MlflowClient

    def fail(*args, **kwargs):
        raise ConnectionResetError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, broken, fail)
        with pytest.raises(UnavailableError, match="to log it to MLflow later"):
            log_run()
        (begun,) = mlflow_at.runs()
        assert begun.info.status == "RUNNING"
    log_run()
    (run,) = mlflow_at.runs()
    assert (run.info.run_id, run.info.status) == (begun.info.run_id, "FINISHED")
    (model,) = models_of(run, mlflow_at.client)
    assert str(model.status) == "READY"
    assert len(run.inputs.dataset_inputs) == 2
    assert len(run.outputs.model_outputs) == 1


def test_log_run_deletes_the_twin_of_a_lost_answer(mlflow_at, log_run, monkeypatch):
    from mlflow import MlflowClient

    create = MlflowClient.create_run

    def create_twice(*args, **kwargs):
        create(*args, **kwargs)
        return create(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", create_twice)
    log_run()
    assert [run.info.status for run in mlflow_at.runs()] == ["FINISHED"]


def test_log_run_below_another_run(mlflow_at, log_run, trained, monkeypatch):
    elsewhere = mlflow_at.client.create_experiment("pipelines")
    parent = mlflow_at.client.create_run(elsewhere, run_name="kfp").info
    monkeypatch.setenv("MLFLOW_RUN_ID", parent.run_id)
    trial = RunPaths(trained.data_root, "sweep/m-1-w-1-e-6")
    log_run(run=trial)
    log_run(run=trial)
    assert mlflow_at.runs() == []
    children = f"tags.mlflow.parentRunId = '{parent.run_id}'"
    (child,) = mlflow_at.client.search_runs([elsewhere], children)
    assert (child.info.run_name, child.info.status) == ("sweep/m-1-w-1-e-6", "FINISHED")
    assert [model.name for model in models_of(child, mlflow_at.client)] == ["sweep-m-1-w-1-e-6"]
    assert mlflow_at.client.get_run(parent.run_id).info.status == "RUNNING"
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    with pytest.raises(UnavailableError, match="not found"):
        log_run()


def test_publish_command_asks_no_other_host(mlflow_at, trained, tmp_path):
    code = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event == 'socket.getaddrinfo': print('asks for', arguments[0], file=sys.stderr)\n"
        "sys.addaudithook(watch)\n"
        "from citeflow.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = publish_arguments(trained, tmp_path / "out")
    done = run_python(code, *command, HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == json.dumps({"path": str(tmp_path / "out")}) + "\n"
    lines = done.stderr.splitlines()
    asked = {line for line in lines if line.startswith("asks for")}
    assert asked == {"asks for 127.0.0.1"}
    logged = [line.split(" ", 1)[1].split("=")[0] for line in lines if line not in asked]
    assert logged == ["publish done report", "publish logged to MLflow server"]
    assert not list((tmp_path / "home").rglob("*mlflow*"))


@pytest.fixture
def strict():
    """A server that refuses everybody, and repeats in its answer what it was asked with."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            given = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
            self.send_response(401)
            self.end_headers()
            self.wfile.write(f"nobody is {given}".encode())

        def log_message(self, *args):
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join(timeout=20)
    server.server_close()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@pytest.mark.usefixtures("impatient")
def test_log_run_without_a_server_names_the_later_command(log_run, trained, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(UnavailableError) as raised:
        log_run()
    assert (raised.value.what, raised.value.exit_code) == ("MLflow does not answer", 69)
    later = shlex.split(raised.value.hint.partition("later: ")[2])
    assert later[0] == "citeflow"
    log_run(is_required=False)
    assert "continues without MLflow" in capsys.readouterr().err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(later[1:]) == 0
    assert f"logs={trained.run.logs}" in capsys.readouterr().err


@pytest.mark.usefixtures("impatient")
def test_log_run_waits_for_a_silent_server_only_so_long(log_run, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="MLflow does not answer"):
            log_run()
    assert 1 <= time.monotonic() - began < 60
    assert "DO_NOT_TRACK" not in os.environ


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("is_down", [True, False])
def test_log_run_never_prints_a_password(log_run, monkeypatch, strict, is_down, capfd):
    port = free_port() if is_down else strict
    uri = f"http://someone:{PASSWORD}@127.0.0.1:{port}?key={PASSWORD}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UnavailableError, match=f"http://127.0.0.1:{port}") as raised:
        log_run()
    assert PASSWORD not in str(raised.value)
    assert is_down or ("401" in str(raised.value) and "nobody is someone:***" in str(raised.value))
    assert raised.value.__cause__ is None
    log_run(is_required=False)
    assert PASSWORD not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        (f"API request to http://me:{PASSWORD}@host:5000/api failed", None),
        (f"Failed: postgresql://me:{PASSWORD}@host/db", None),
        (f"token {PASSWORD} has expired", None),
        (None, f"me:{PASSWORD}@host:5000"),
        (None, f"http://host/?token={PASSWORD}/"),
        (None, f"host?key={PASSWORD}"),
    ],
)
def test_hide_secrets_of_uri_and_environment(text, uri, monkeypatch):
    if text:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", PASSWORD)
    uri = uri or f"http://me:{PASSWORD}@host:5000"
    hidden = mlflow_client.hide_secrets(text or f"bad: {uri.removesuffix('/')}", uri)
    assert PASSWORD not in hidden
    assert len(hidden) > 4


def test_thin_keeps_both_ends_and_the_order():
    entries = [{"step": step} for step in range(1, 10_001)]
    steps = [entry["step"] for entry in mlflow.thin(entries)]
    assert (len(steps), steps[0], steps[-1]) == (mlflow.MAX_POINTS, 1, 10_000)
    assert steps == sorted(set(steps))


def test_log_run_leaves_out_secrets_and_lost_artifacts(mlflow_at, log_run, trained, out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    content = files.read_json(out / "report.json")
    content["dataset"] = f"https://me:{PASSWORD}@host/papers.zip?sig={PASSWORD}"
    files.write_json(tmp_path / "out" / "report.json", content)
    broken = tmp_path / "data" / "prepared" / "x"
    broken.mkdir(parents=True)
    (broken / "manifest.json").write_text('{"half')
    log_run(run=RunPaths(tmp_path / "data", "small"), out=tmp_path / "out")
    (run,) = mlflow_at.runs()
    assert run.data.params["dataset"] == "https://host/papers.zip"
    assert "RawDataset" not in run.data.tags
    assert PASSWORD not in json.dumps(run.to_dictionary())


def test_run_without_the_package_ends_before_it_begins(tmp_path):
    code = (
        "import sys; sys.modules['mlflow'] = None; from citeflow.cli.main import main; "
        "sys.exit(main(['run', '--data-root', sys.argv[1]]))"
    )
    done = run_python(code, tmp_path / "data", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert done.returncode == 72
    error = "error: package is not installed: mlflow\nhint: pip install '.[mlflow]'"
    assert done.stderr.startswith(error)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["citation", "scaling", "compare"])
def test_pipelines_give_publish_the_variables_of_mlflow(checkout, name):
    text = (checkout / "pipelines" / name / "pipeline.yaml").read_text()
    platform = list(yaml.safe_load_all(text))[1]["platforms"]["kubernetes"]
    executors = platform["deploymentSpec"]["executors"]
    stage = executors["exec-publish" if name == "citation" else "exec-run-trials"]
    sources = [*stage["configMapAsEnv"], *stage["secretAsEnv"]]
    assert all(source["optional"] for source in sources)
    names = {key["envVar"] for source in sources for key in source["keyToEnv"]} - set(
        links.VARIABLES
    )
    suffixes = ("URI", "USERNAME", "PASSWORD", "TOKEN")
    others = {"MLFLOW_EXPERIMENT_NAME", "CITEFLOW_MODEL_NAME"}
    assert names == {*others, *(f"MLFLOW_TRACKING_{name}" for name in suffixes)}
    assert mlflow.KFP_RUN_ID in [field["name"] for field in stage["fieldPathAsEnv"]]
