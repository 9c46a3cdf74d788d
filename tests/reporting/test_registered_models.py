"""The registry, on a real MLflow server: versions, promotion, downloads, a server that follows."""

import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import requests

from citeflow import files
from citeflow.cli.main import main
from citeflow.errors import CorruptError
from citeflow.evaluation import trained_model
from citeflow.paths import RunPaths
from citeflow.report import Report
from citeflow.reporting import mlflow, registered_models
from citeflow.tasks import get_task

pytestmark = pytest.mark.usefixtures("no_variables")


@pytest.fixture
def registry(server, monkeypatch, request, tmp_path, trained, out):
    """A registered model of the test's own, and models of another digest and score."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.originalname)
    monkeypatch.setenv("CITEFLOW_MODEL_NAME", request.node.originalname)

    def publish(name, mrr, graph=None):
        """Publish the trained model as if it were another one, with another score."""
        run = RunPaths(tmp_path, name)
        if not run.published.exists():
            with files.new_directory(run.model) as work:
                for file in trained.model.iterdir():
                    if file.name != files.MANIFEST:
                        files.copy_file(file, work / file.name)
                files.write_text(work / "history.jsonl", f'{{"name": {len(name)}}}\n')
                manifest = files.read_manifest(trained.model, "TrainedModel")
                inputs = manifest.inputs | ({"PreparedGraph": graph} if graph else {})
                files.write_manifest(work, "TrainedModel", inputs=inputs, facts={})
            files.copy_directory(run.model, run.published / "model")
            content = files.read_json(out / "report.json")
            content["protocols"]["all"]["mrr"] = mrr
            files.write_json(run.published / "report.json", content)
            files.write_text(run.published / "report.html", "<p>")
            Report.read(run.published)
        mlflow.log_run(trained.report, model=run.model, run=run, out=run.published)

    return SimpleNamespace(name=request.node.originalname, publish=publish, root=tmp_path)


def call(capsys, *arguments):
    code = main(["models", *arguments])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_each_model_is_one_version_however_often_it_is_published(registry, capsys):
    """Twenty times in all, in turns."""
    from mlflow import MlflowClient

    names = ["a", "bb", "ccc", "dddd", "eeeee"]
    for step in range(4):
        for name in names[step:] + names[:step]:
            registry.publish(name, 0.5)
    _, versions, _ = call(capsys, "list")
    found = [(each["number"], each["run"]) for each in versions]
    assert found == [(5, "eeeee"), (4, "dddd"), (3, "ccc"), (2, "bb"), (1, "a")]
    assert [each["aliases"] for each in versions] == [["candidate"], [], [], [], []]
    assert versions[0]["scores"]["all"] == 0.5
    # Somebody else's version under the same name hides none of ours.
    client = MlflowClient()
    model_id = client.search_model_versions(f"name = '{registry.name}'")[0].source.rpartition("/")[
        2
    ]
    client.create_model_version(registry.name, source=f"models:/{model_id}", model_id=model_id)
    assert call(capsys, "list")[1] == versions


def test_champion_moves_to_a_better_model_only(registry, capsys):
    registry.publish("a", 0.5)
    assert call(capsys, "promote", "--data-root", str(registry.root))[1][0]["number"] == 1
    registry.publish("bb", 0.4)
    code, _, err = call(capsys, "promote", "--data-root", str(registry.root))
    assert code == 65
    assert "no better than the champion, version 1: all MRR 0.4000, 0.5000" in err
    registry.publish("ccc", 0.6)
    _, compared, _ = call(capsys, "compare")
    (by_all,) = [each for each in compared if each["protocol"] == "all"]
    assert by_all == {
        "protocol": "all", "version 3": 0.6, "version 1": 0.5, "difference": pytest.approx(0.1)
    }  # fmt: skip
    assert call(capsys, "promote", "--data-root", str(registry.root))[1][0]["number"] == 3
    assert call(capsys, "rollback")[1][0]["number"] == 1
    assert call(capsys, "rollback")[0] == 66
    forced = call(capsys, "promote", "2", "--force", "--data-root", str(registry.root))
    assert forced[1][0]["aliases"] == ["champion"]


def test_models_of_two_graphs_are_not_compared(registry, capsys):
    registry.publish("a", 0.5)
    call(capsys, "promote", "--data-root", str(registry.root))
    registry.publish("bb", 0.9, graph="0" * 64)
    code, _, err = call(capsys, "promote", "--data-root", str(registry.root))
    assert (code, "on other data" in err) == (65, True)


def test_resolve_downloads_the_model_once_and_verifies_it(registry, capsys):
    registry.publish("a", 0.5)
    call(capsys, "promote", "--data-root", str(registry.root))
    folder = registered_models.resolve(f"models:/{registry.name}@champion", registry.root)
    assert folder == registered_models.resolve(f"models:/{registry.name}/1", registry.root)
    assert trained_model.load(folder).model is not None
    (folder / "model.json").write_text("{}")
    with pytest.raises(CorruptError):
        registered_models.resolve(f"models:/{registry.name}/1", registry.root)


def test_server_follows_the_alias(registry, trained, capsys, tmp_path):
    data_root = ["--data-root", str(trained.data_root)]
    registry.publish("a", 0.5)
    call(capsys, "promote", *data_root)
    model = f"models:/{registry.name}@champion"
    command = [sys.executable, "-m", "citeflow", "serve", model, "--watch", "--port", "0"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*command, *data_root], stdout=log, stderr=log)
    try:
        served, seconds = [served_model(tmp_path / "log", process, "", 120)], []
        for name, mrr in (("bb", 0.6), ("ccc", 0.7), ("dddd", 0.8)):
            registry.publish(name, mrr)
            call(capsys, "promote", *data_root)
            promoted = time.monotonic()
            served.append(served_model(tmp_path / "log", process, served[-1], 120))
            seconds.append(round(time.monotonic() - promoted, 1))
        assert len(set(served)) == 4
        print("followed within seconds:", *seconds)
    finally:
        process.terminate()
        assert process.wait(60) == 0


def served_model(log, process, before, within_s):
    """Wait until a server answers from another index than before; return its digest."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        if found := re.search(r"listening url=(\S+)", log.read_text()):
            answer = requests.get(f"{found[1]}/v1/about", timeout=60)
            if answer.ok and answer.json()["version"] != before:
                return answer.json()["version"]
        time.sleep(0.1)
    pytest.fail(log.read_text())


@pytest.fixture
def publish_images(server, monkeypatch, request, tmp_path, classified):
    """Publishes the classifier of digits as if it were another one, with another accuracy."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    monkeypatch.setenv("CITEFLOW_MODEL_NAME", request.node.name)
    monkeypatch.setenv("CITEFLOW_DATA_ROOT", str(tmp_path))

    def publish(name, accuracy, images=None):
        run = RunPaths(tmp_path, name)
        manifest = files.read_manifest(classified.model, "TrainedModel")
        with files.new_directory(run.model) as work:
            for file in classified.model.iterdir():
                if file.name != files.MANIFEST:
                    files.copy_file(file, work / file.name)
            files.write_text(work / "history.jsonl", f'{{"name": {len(name)}}}\n')
            inputs = manifest.inputs | ({"PreparedImages": images} if images else {})
            files.write_manifest(work, "TrainedModel", inputs=inputs, facts=manifest.facts)
        files.copy_directory(run.model, run.published / "model")
        content = files.read_json(classified.published / "report.json")
        content["test"]["accuracy"] = accuracy
        files.write_json(run.published / "report.json", content)
        files.write_text(run.published / "report.html", "<p>")
        get_task("images").log_to_mlflow(
            classified.report, model=run.model, run=run, out=run.published, is_required=True
        )

    return publish


def test_a_classifier_becomes_champion_by_its_accuracy_and_is_served(
    publish_images, capsys, tmp_path, request
):
    publish_images("a", 0.9)
    publish_images("a", 0.9)
    assert call(capsys, "promote")[1][0]["scores"] == {"test": 0.9}
    publish_images("bb", 0.8)
    code, _, err = call(capsys, "promote")
    assert code == 65
    assert "no better than the champion, version 1: test accuracy 0.8000, 0.9000" in err
    assert call(capsys, "promote", "--protocol", "all")[0] == 65
    publish_images("ccc", 0.99, images="0" * 64)
    code, _, err = call(capsys, "promote")
    assert (code, "on other data" in err) == (65, True)
    publish_images("dddd", 0.95)
    assert [each["number"] for each in call(capsys, "list")[1]] == [4, 3, 2, 1]
    (compared,) = call(capsys, "compare")[1]
    expected = {"protocol": "test", "version 4": 0.95, "version 1": 0.9}
    assert compared == {**expected, "difference": pytest.approx(0.05)}
    assert call(capsys, "promote")[1][0]["number"] == 4
    assert call(capsys, "rollback")[1][0]["number"] == 1
    model = f"models:/{request.node.name}@champion"
    command = [sys.executable, "-m", "citeflow", "serve", model, "--port", "0"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        version = served_model(tmp_path / "log", process, "", 120)
    finally:
        process.terminate()
        assert process.wait(60) == 0
    trained = files.read_manifest(tmp_path / "runs/a/model", "TrainedModel")
    index = tmp_path / "models" / trained.sha256[:16] / "index"
    assert files.read_manifest(index, "ServingIndex").sha256 == version


def test_mlflow_has_curves_figures_and_images_of_a_classifier(publish_images, classified, request):
    from mlflow import MlflowClient

    publish_images("a", 0.9)
    client = MlflowClient()
    experiment = client.get_experiment_by_name(request.node.name)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    metrics = run.data.metrics
    assert metrics["test/accuracy"] == 0.9
    names = {"test/macro_f1", "valid/loss", "baseline/nearest_class_mean", "train/valid_accuracy"}
    assert names <= {*metrics}
    assert run.data.params["model.architecture"] == "batch_norm"
    images = files.read_manifest(classified.model, "TrainedModel").inputs["PreparedImages"]
    assert run.data.tags["PreparedImages"] == images
    assert {each.dataset.name for each in run.inputs.dataset_inputs} >= {"digits (PreparedImages)"}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["models", "list", "--name", "nobody"], 66, "no such registered model: nobody"),
        (["models", "promote", "7"], 66, "no such version: 7"),
        (["models", "promote", "staging"], 66, "it has candidate, a number"),
        (["predict", "models:/x", "--paper", "1"], 64, "not a registered model: models:/x"),
    ],
)
def test_unknown_model_is_named(registry, capsys, monkeypatch, arguments, code, said):
    registry.publish("a", 0.5)
    monkeypatch.setenv("CITEFLOW_DATA_ROOT", str(registry.root))
    assert main(arguments) == code
    assert said in capsys.readouterr().err
