import json

import pytest
import yaml

from citeflow import __version__
from citeflow.cli import main
from citeflow.errors import ConfigError
from citeflow.experiments.xor import XorSettings, asdict
from citeflow.kubeflow import local_runner
from citeflow.utils import termination_message

QUICK = {"train_points": 300, "test_points": 100, "epochs": 2, "hidden": 4}


@pytest.fixture(scope="module")
def documents(checkout):
    return list(yaml.safe_load_all((checkout / "pipelines" / "xor" / "pipeline.yaml").read_text()))


def test_its_parameters_are_those_of_the_settings_with_the_same_defaults(documents):
    parameters = documents[0]["root"]["inputDefinitions"]["parameters"]
    defaults = {name: parameter["defaultValue"] for name, parameter in parameters.items()}
    assert defaults == {**asdict(XorSettings()), "out_dir": ""}


def test_only_the_plot_depends_on_there_being_two_dimensions(documents):
    tasks = documents[0]["root"]["dag"]["tasks"]
    conditions = {
        name: task["triggerPolicy"]["condition"]
        for name, task in tasks.items()
        if "triggerPolicy" in task
    }
    assert len(conditions) == 1
    (name, condition) = conditions.popitem()
    assert "pipelinechannel--dims'] == 2" in condition.replace("int(", "").replace(")", "")
    inner = documents[0]["components"][tasks[name]["componentRef"]["name"]]["dag"]["tasks"]
    assert list(inner) == ["xor-plot"]
    assert set(tasks) == {"xor-points", "xor-train", "xor-train-2", "xor-compare", name}


def test_neither_training_waits_for_the_other(documents):
    tasks = documents[0]["root"]["dag"]["tasks"]
    assert (
        tasks["xor-train"]["dependentTasks"]
        == tasks["xor-train-2"]["dependentTasks"]
        == ["xor-points"]
    )


def test_it_mounts_no_volume_and_runs_in_the_small_image(documents):
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(executors) == 5
    assert not [name for name, executor in executors.items() if "pvcMount" in executor]
    containers = [
        executor["container"] for executor in documents[0]["deploymentSpec"]["executors"].values()
    ]
    assert {container["image"] for container in containers} == {
        f"citeflow-small:{__version__}-python3.11"
    }


def test_it_runs_here_and_plots_the_points_of_the_plane(tmp_path):
    out = tmp_path / "out"
    local_runner.run(
        {**QUICK, "dims": 2, "out_dir": str(out)}, scratch=tmp_path / "scratch", name="xor"
    )
    assert {path.name for path in out.iterdir()} == {"points.html", "xor.html", "xor.json"}
    found = json.loads((out / "xor.json").read_text())
    assert found["settings"] == {**asdict(XorSettings()), **QUICK}
    assert all(
        len(model["test"]["accuracy"]) == QUICK["epochs"] for model in found["models"].values()
    )


def test_a_wrong_parameter_ends_the_run_at_its_first_step(tmp_path):
    with pytest.raises(ConfigError) as caught:
        local_runner.run(
            {**QUICK, "hidden": 0, "out_dir": str(tmp_path / "out")}, scratch=tmp_path, name="xor"
        )
    assert str(caught.value).startswith("error: hidden: 0\n")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_a_table_and_json_and_plots_no_points_of_three_dimensions(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv(termination_message.VARIABLE, raising=False)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    out = tmp_path / "out"
    assert (
        main(["xor", *options, "--dims=3", f"--out={out}", f"--data-root={tmp_path / 'data'}"]) == 0
    )
    told, table = capsys.readouterr()
    answer = json.loads(told)
    assert (answer["page"], answer["figures"]) == (str(out / "xor.html"), str(out / "xor.json"))
    assert "points" not in answer
    assert {path.name for path in out.iterdir()} == {"xor.html", "xor.json"}
    assert answer["one hidden layer"]["test"]["accuracy"] <= 1
    assert "Test loss (bits)" in table
    assert "The known result did not come out" in table


def test_the_command_refuses_a_wrong_option_before_anything_is_made(tmp_path, capsys):
    assert main(["xor", "--dims=0", f"--data-root={tmp_path / 'data'}"]) == 64
    assert "error: dims: 0\n" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
