import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from citeflow import files
from citeflow.cli import main
from citeflow.errors import UnavailableError
from citeflow.evaluation import trained_model
from citeflow.reporting import mlflow

CHILDREN = "tags.mlflow.parentRunId = '{}'"


def manifest(folder):
    return files.read_json(folder / files.MANIFEST)


def models_of(run, client):
    return list(
        client.search_logged_models(
            [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
        )
    )


def history(client, run, name):
    return sorted(client.get_metric_history(run.info.run_id, name), key=lambda metric: metric.step)


@pytest.fixture(scope="module")
def told(server, trained, out):
    """The run as MLflow knows it after it was told once, by a pod of Kubeflow Pipelines."""
    variables = {
        "MLFLOW_TRACKING_URI": server,
        "MLFLOW_EXPERIMENT_NAME": "told once",
        "CITEFLOW_KFP_RUN_ID": "3fe1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        mlflow.publish_run(
            trained.report, model=trained.model, log_dir=trained.log_dir, out_dir=out
        )
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("told once").experiment_id

    def runs():
        return list(client.search_runs([experiment]))

    return SimpleNamespace(uri=server, client=client, runs=runs, run=runs()[0])


def test_a_published_run_is_one_finished_run_with_its_name_settings_and_times(told, trained):
    run = told.run
    (only,) = told.runs()
    assert only.info.run_id == run.info.run_id
    assert (run.info.run_name, run.info.status) == ("small", "FINISHED")
    settings = {
        f"{part}.{key}": str(value)
        for part, keys in trained.config.to_dict().items()
        if part != "recovery"
        for key, value in keys.items()
    }
    assert settings.items() <= run.data.params.items()
    assert run.data.params["workers"] == "1"
    assert run.data.params["dataset"] == "papers"
    records = files.read_json(trained.report / "curves.json")["history"]
    assert (
        run.info.end_time - run.info.start_time
        >= 1000 * (records[-1]["wall_time"] - records[0]["wall_time"]) - 1
    )


def test_its_curves_have_the_steps_and_times_of_the_training(told, trained):
    run = told.run
    curves = files.read_json(trained.report / "curves.json")
    names = {
        "train/loss": ("history", "loss"),
        "train/lr": ("history", "lr"),
        "train/positives_per_s": ("history", "positives_per_s"),
        "train/valid_mrr": ("evaluations", "valid_mrr"),
    }
    for name, (part, key) in names.items():
        expected = [
            (each["step"], each[key], round(1000 * each["wall_time"])) for each in curves[part]
        ]
        assert [
            (each.step, each.value, each.timestamp) for each in history(told.client, run, name)
        ] == expected


def test_its_figures_are_those_of_the_report(told, out):
    report = json.loads((out / "report.json").read_text())
    run = told.run
    metrics = run.data.metrics
    for part in ("test", "valid"):
        assert {
            key: metrics[f"{part}/{key.replace('@', '_at_')}"] for key in report[part]
        } == report[part]
    assert {name: metrics[f"baseline/{name}"] for name in report["baselines"]} == {
        name: scores["mrr"] for name, scores in report["baselines"].items()
    }
    assert metrics["stage/train_seconds"] == report["stages"]["train"]["seconds"]
    assert metrics["total/positives"] == report["train"]["positives"]


def test_its_model_comes_back_whole_and_linked_to_run_figures_and_data(
    told, trained, tmp_path, monkeypatch
):
    from mlflow.artifacts import download_artifacts

    run = told.run
    (found,) = models_of(run, told.client)
    model = told.client.get_logged_model(found.model_id)
    assert str(model.status) == "READY"
    assert [
        each.model_id for each in told.client.get_run(run.info.run_id).outputs.model_outputs
    ] == [found.model_id]
    assert model.params == run.data.params
    measured = {metric.key: (metric.value, metric.dataset_digest) for metric in model.metrics}
    graph = manifest(trained.graph)["sha256"]
    assert measured["test/mrr"] == (run.data.metrics["test/mrr"], graph[:36])
    assert {name.partition("/")[0] for name in measured} == {"test", "valid"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", told.uri)
    folder = download_artifacts(artifact_uri=model.model_uri, dst_path=str(tmp_path))
    again = trained_model.load(Path(folder))
    assert again.manifest.sha256 == manifest(trained.model)["sha256"]
    assert not [path for path in Path(folder).rglob("*") if path.suffix in (".pkl", ".pt", ".pth")]


def test_the_report_is_there_to_read_and_its_result_is_the_description(told, out, tmp_path):
    run = told.run
    assert {each.path for each in told.client.list_artifacts(run.info.run_id)} == {
        "report.json",
        "report.html",
    }
    page = told.client.download_artifacts(run.info.run_id, "report.html", str(tmp_path))
    assert Path(page).read_bytes() == (out / "report.html").read_bytes()
    assert run.data.tags["mlflow.note.content"].startswith("Test MRR 0.")


def test_every_noun_from_the_raw_data_to_the_report_is_told_by_its_digest(told, trained):
    run = told.run
    graph = manifest(trained.graph)
    digests = {
        "RawDataset": graph["inputs"]["RawDataset"],
        "PreparedGraph": graph["sha256"],
        "TrainedModel": manifest(trained.model)["sha256"],
        "EvalReport": manifest(trained.report)["sha256"],
    }
    assert digests.items() <= run.data.tags.items()
    assert run.data.tags["kfp_run_id"] == "3fe1"
    inputs = {each.dataset.name: each.dataset for each in run.inputs.dataset_inputs}
    assert set(inputs) == {"papers (RawDataset)", "papers (PreparedGraph)"}
    for kind in ("RawDataset", "PreparedGraph"):
        dataset = inputs[f"papers ({kind})"]
        assert dataset.digest == digests[kind][:36]
        assert json.loads(dataset.profile)["sha256"] == digests[kind]
    assert json.loads(inputs["papers (PreparedGraph)"].profile)["num_papers"] == 400


def test_publishing_twice_adds_nothing(mlflow_at, publish):
    publish()
    (before,) = mlflow_at.runs()
    publish()
    (after,) = mlflow_at.runs()
    assert after.to_dictionary() == before.to_dictionary()
    assert len(models_of(after, mlflow_at.client)) == 1


def test_another_evaluation_of_the_same_model_goes_to_the_same_run(
    mlflow_at, publish, trained, out, tmp_path
):
    publish()
    newer = tmp_path / "small" / "report"
    content = files.read_json(trained.report / "report.json")
    content["test"]["mrr"] = 0.125
    with files.new_directory(newer) as work:
        files.write_json(work / "report.json", content)
        files.copy_file(trained.report / "curves.json", work / "curves.json")
        files.write_manifest(
            work, "EvalReport", inputs=manifest(trained.report)["inputs"], facts={}
        )
    again = tmp_path / "out"
    shutil.copytree(out, again)
    files.write_json(again / "report.json", content)
    mlflow.publish_run(newer, model=trained.model, log_dir=trained.log_dir, out_dir=again)
    (run,) = mlflow_at.runs()
    assert run.data.tags["EvalReport"] == manifest(newer)["sha256"]
    assert [
        metric.value for metric in mlflow_at.client.get_metric_history(run.info.run_id, "test/mrr")
    ][-1] == 0.125
    assert len(models_of(run, mlflow_at.client)) == 1


@pytest.mark.parametrize(
    "broken", ["log_inputs", "log_model_artifacts", "finalize_logged_model", "log_artifact"]
)
def test_a_publishing_that_broke_off_is_completed_by_the_next(
    mlflow_at, publish, monkeypatch, broken
):
    def fail(*args, **kwargs):
        raise ConnectionResetError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, broken, fail)
        with pytest.raises(UnavailableError, match="to tell MLflow later"):
            publish()
        (begun,) = mlflow_at.runs()
        assert begun.info.status == "RUNNING"
    publish()
    (run,) = mlflow_at.runs()
    assert (run.info.run_id, run.info.status) == (begun.info.run_id, "FINISHED")
    (model,) = models_of(run, mlflow_at.client)
    assert str(model.status) == "READY"
    assert len(run.inputs.dataset_inputs) == 2
    assert len(run.outputs.model_outputs) == 1


def test_a_run_that_was_made_twice_because_an_answer_was_lost_is_left_once(
    mlflow_at, publish, monkeypatch
):
    make = MlflowClient.create_run

    def make_twice(*args, **kwargs):
        make(*args, **kwargs)
        return make(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_run", make_twice)
    publish()
    assert [run.info.status for run in mlflow_at.runs()] == ["FINISHED"]


def test_within_another_run_it_is_a_child_of_that_run(mlflow_at, publish, monkeypatch):
    elsewhere = mlflow_at.client.create_experiment("pipelines")
    parent = mlflow_at.client.create_run(elsewhere, run_name="kfp").info
    monkeypatch.setenv("MLFLOW_RUN_ID", parent.run_id)
    publish()
    publish()
    assert mlflow_at.runs() == []
    (child,) = mlflow_at.client.search_runs([elsewhere], CHILDREN.format(parent.run_id))
    assert (child.info.run_name, child.info.status) == ("small", "FINISHED")
    assert mlflow_at.client.get_run(parent.run_id).info.status == "RUNNING"


def test_a_parent_that_is_not_there_is_told(mlflow_at, publish, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    with pytest.raises(UnavailableError, match="not found"):
        publish()


def test_a_run_of_an_experiment_keeps_its_whole_name(mlflow_at, trained, out):
    for part in ("runs", "logs"):
        shutil.copytree(
            trained.data_root / part / "small", trained.data_root / part / "sweep" / "m-1-w-1-e-6"
        )
    run_dir, log_dir = (
        trained.data_root / part / "sweep" / "m-1-w-1-e-6" for part in ("runs", "logs")
    )
    mlflow.publish_run(run_dir / "report", model=run_dir / "model", log_dir=log_dir, out_dir=out)
    (run,) = mlflow_at.runs()
    assert run.info.run_name == "sweep/m-1-w-1-e-6"
    assert [model.name for model in models_of(run, mlflow_at.client)] == ["sweep-m-1-w-1-e-6"]


def test_one_command_from_the_dataset_to_a_finished_run(mlflow_at, tmp_path, capfd):
    small = [
        "synthetic.num_papers=400",
        "train.epochs=1",
        "train.num_validations=1",
        "train.nodes_per_batch=200",
        "model.hidden_channels=8",
    ]
    argv = ["run", "--workers", "1", "--run-name", "tiny", "--data-root", str(tmp_path / "data")]
    assert main([*argv, *(part for each in small for part in ("--set", each))]) == 0
    (run,) = mlflow_at.runs()
    assert (run.info.run_name, run.info.status) == ("tiny", "FINISHED")
    told = capfd.readouterr()
    assert list(json.loads(told.out)) == ["report", "page", "model", "logs", "test"]
    assert f"publish told MLflow server={mlflow_at.uri} run={run.info.run_id}" in told.err


def test_no_other_host_is_asked_and_nothing_but_the_log_is_printed(mlflow_at, trained, tmp_path):
    code = (
        "import sys\n"
        "def watch(event, arguments):\n"
        "    if event == 'socket.getaddrinfo': print('asks for', arguments[0], file=sys.stderr)\n"
        "sys.addaudithook(watch)\n"
        "from citeflow.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    verb = ["publish", trained.report, "--model", trained.model, "--out", tmp_path / "out"]
    command = [sys.executable, "-c", code, *verb, "--data-root", trained.data_root]
    environment = {**mlflow_at.environment, "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        list(map(str, command)),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == json.dumps({"path": str(tmp_path / "out")}) + "\n"
    asked = {line for line in done.stderr.splitlines() if line.startswith("asks for")}
    others = [line for line in done.stderr.splitlines() if line not in asked]
    assert asked == {"asks for 127.0.0.1"}
    assert [line.split(" ", 1)[1].split("=")[0] for line in others] == [
        "publish done report",
        "publish told MLflow server",
    ]
    assert not list((tmp_path / "home").rglob("*mlflow*"))
