import subprocess

import pytest
import yaml

from citeflow import __version__
from citeflow.errors import ConfigError
from citeflow.kubeflow.pipeline_spec import with_images
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubeflow.submit import (
    Package,
    RunOptions,
    plan,
    typed_parameters,
    version_name,
)

TEXT = PIPELINES["citation"].compiled().read_text()


def test_typed_parameters_have_the_types_and_defaults_of_the_pipeline():
    given = {"workers": "4", "epochs": "1e-1", "settings": "train: {lr: 0.1}", "dataset": 17}
    values = typed_parameters(TEXT, given)
    known = next(yaml.safe_load_all(TEXT))["root"]["inputDefinitions"]["parameters"]
    assert set(values) == set(known)
    assert type(values["workers"]) is int
    expected = {"workers": 4, "epochs": 0.1, "settings": given["settings"], "dataset": "17"}
    assert {name: values[name] for name in expected} == expected
    assert values["data_root"] == "/mnt/citeflow"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"worker": 2}, "unknown parameter of the pipeline: worker\nhint: did you mean workers"),
        ({"workers": "two"}, "workers: two\nhint: must be a number"),
        ({"workers": 2.5}, "must be a whole number"),
        ({"preset": "sed"}, "preset: sed\nhint: one of default, seed, board"),
        (
            {"launcher": "pytorch"},
            "launcher: pytorch\nhint: one of auto, local, pytorchjob, trainjob",
        ),
    ],
)
def test_typed_parameters_name_what_would_be_right(given, message):
    with pytest.raises(ConfigError) as caught:
        typed_parameters(TEXT, given)
    assert message in str(caught.value)


def test_typed_parameters_check_lists_mappings_and_required_ones():
    kinds = {"many": "LIST", "named": "STRUCT", "flag": "BOOLEAN"}
    parameters = {name: {"parameterType": kind} for name, kind in kinds.items()}
    text = yaml.safe_dump({"root": {"inputDefinitions": {"parameters": parameters}}})
    given = {"many": "[1, 2]", "named": {"a": 1}, "flag": "true"}
    typed = {"many": [1, 2], "named": {"a": 1}, "flag": True}
    assert typed_parameters(text, given) == typed
    with pytest.raises(ConfigError, match="must be a list"):
        typed_parameters(text, {**given, "many": "{}"})
    with pytest.raises(ConfigError, match="is missing: flag"):
        typed_parameters(text, {"many": [], "named": {}})


@pytest.fixture
def committed(tmp_path):
    """A compiled pipeline in a checkout of its own, whose commit holds it."""
    path = tmp_path / "pipelines" / "citation" / "pipeline.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(TEXT)
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return path


def test_version_name_is_the_commit_that_holds_the_text(committed):
    command = ["git", "rev-parse", "HEAD"]
    head = subprocess.run(command, cwd=committed.parent, capture_output=True, text=True)
    name = version_name(TEXT, committed)
    assert name == f"citeflow-{__version__}+{head.stdout[:7]}"
    changed = [with_images(TEXT, step_image=f"step:{number}") for number in (2, 3)]
    names = {version_name(text, committed) for text in changed}
    assert len(names) == 2
    assert all(each.startswith(f"{name}-") for each in names)


def test_plan_takes_the_experiment_that_kfp_would_take(monkeypatch):
    mine = RunOptions(experiment="mine")
    assert plan().experiment == "citeflow"
    monkeypatch.setenv("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME", "team")
    assert plan().experiment == "team"
    assert plan(options=mine).experiment == "mine"
    monkeypatch.setenv("KF_PIPELINES_OVERRIDE_EXPERIMENT_NAME", "always")
    assert plan(options=mine).experiment == "always"


@pytest.mark.parametrize(
    ("given", "options", "names"),
    [
        ({}, {"run_name": "one"}, ("one", "one")),
        ({"run_name": "two"}, {}, ("two", "two")),
        ({"run_name": "two"}, {"run_name": "One of mine"}, ("One of mine", "two")),
        ({}, {"run_name": "One of mine"}, ("One of mine", "")),
        ({}, {"run_name": "weekly", "cron": "0 0 3 * * 1"}, ("weekly", "")),
    ],
)
def test_plan_gives_a_run_one_name(given, options, names):
    planned = plan(given, options=RunOptions(**options))
    assert (planned.run_name, planned.parameters["run_name"]) == names


@pytest.mark.parametrize(
    ("pipeline", "given", "message"),
    [
        ("citation", {"workers": 0}, "workers: 0"),
        ("citation", {"settings": "nosuch: {a: 1}"}, "nosuch"),
        ("scaling", {"dataset": "https://me:s3cret@host/x.zip"}, "a URL with a password: https"),
        ("scaling", {"workers": "[1.5]"}, "workers: 1.5"),
        ("scaling", {"job": "{cpuu: 4}"}, "cpuu"),
        ("compare", {"models": "{a: {}, b: {model: {predictr: dot}}}"}, "predictr"),
        ("compare", {"epochs": 2, "minutes": 1}, "both set"),
        ("tune", {"trials": 0}, "trials: 0"),
        ("scaling", {"workers": "1,0"}, "workers: 0"),
        ("scalin", {}, "no such pipeline: scalin\nhint: did you mean scaling"),
        ("tune", {"space": "{train.lrr: [1]}"}, "train.lrr"),
    ],
)
def test_plan_refuses_what_the_first_stages_would(pipeline, given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        plan(given, Package(pipeline=pipeline))
    assert "s3cret" not in str(caught.value)
