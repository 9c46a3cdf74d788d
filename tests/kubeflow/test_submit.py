import subprocess

import pytest
import yaml

from citeflow import __version__
from citeflow.errors import CiteflowError, ConfigError
from citeflow.kubeflow import api, local_runner, pipeline_spec, submit
from citeflow.kubeflow.submit import (
    checked,
    plan,
    validate,
    version_name,
    with_images,
    without_cache,
)
from citeflow.kubernetes.job_spec import IMAGE

TEXT = local_runner.compiled().read_text()


def executors(text):
    spec = next(yaml.safe_load_all(text))
    return [each["container"]["image"] for each in spec["deploymentSpec"]["executors"].values()]


def test_no_other_image_leaves_the_compiled_file_as_it_is():
    assert with_images(TEXT) is TEXT


def test_another_step_image_is_that_of_every_step_and_kfp_can_read_the_result():
    changed = with_images(TEXT, step_image="registry.example/step@sha256:12")
    assert set(executors(changed)) == {"registry.example/step@sha256:12"}
    assert len(executors(changed)) == len(executors(TEXT))
    validate(changed)


def test_other_images_change_nothing_but_images():
    changed = with_images(TEXT, step_image="step:2", train_image="train:2")
    assert "train:2" in changed
    assert IMAGE not in changed
    step = executors(TEXT)[0]
    back = [pipeline_spec._replaced(each, "step:2", step) for each in yaml.safe_load_all(changed)]
    back = [pipeline_spec._replaced(each, "train:2", IMAGE) for each in back]
    assert back == list(yaml.safe_load_all(TEXT))
    assert len(back) == 2


def test_a_worker_image_for_a_pipeline_without_workers_is_an_error():
    with pytest.raises(ConfigError, match="no image for workers"):
        with_images(TEXT.replace(IMAGE, "other"), train_image="train:2")


def test_without_cache_no_step_is_cached_and_with_it_some_are():
    def cached(text):
        tasks = next(yaml.safe_load_all(text))["root"]["dag"]["tasks"].values()
        return [task for task in tasks if task.get("cachingOptions", {}).get("enableCache")]

    assert cached(TEXT)
    assert not cached(without_cache(TEXT))
    validate(without_cache(TEXT))


def test_what_kfp_can_not_read_is_an_error():
    with pytest.raises(CiteflowError, match="not a pipeline that kfp can read"):
        validate("components: [1, 2]\n")


def test_parameters_get_the_types_of_the_pipeline_and_the_rest_its_defaults():
    values = checked(
        TEXT, {"workers": "4", "epochs": "1e-1", "settings": "train: {lr: 0.1}", "dataset": 17}
    )
    assert values["workers"] == 4
    assert isinstance(values["workers"], int)
    assert values["epochs"] == 0.1
    assert values["settings"] == "train: {lr: 0.1}"
    assert values["dataset"] == "17"
    assert values["data_root"] == "/mnt/citeflow"


def test_every_parameter_of_the_pipeline_has_a_default_that_fits_it():
    known = next(yaml.safe_load_all(TEXT))["root"]["inputDefinitions"]["parameters"]
    assert set(checked(TEXT, {})) == set(known)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"worker": 2}, "unknown parameter of the pipeline: worker\nhint: did you mean workers"),
        ({"workers": "two"}, "workers: two\nhint: must be a whole number"),
        ({"workers": 2.5}, "must be a whole number"),
        ({"preset": "sed"}, "preset: sed\nhint: one of default, seed"),
        ({"launcher": "pytorch"}, "launcher: pytorch\nhint: one of local, pytorchjob, trainjob"),
    ],
)
def test_a_wrong_parameter_is_told_with_what_would_be_right(given, words):
    with pytest.raises(ConfigError) as caught:
        checked(TEXT, given)
    assert words in str(caught.value)


def test_lists_mappings_and_parameters_without_a_default_are_checked_too():
    kinds = {"many": "LIST", "named": "STRUCT", "flag": "BOOLEAN"}
    spec = {
        "root": {
            "inputDefinitions": {
                "parameters": {name: {"parameterType": kinds[name]} for name in kinds}
            }
        }
    }
    given = {"many": "[1, 2]", "named": {"a": 1}, "flag": "true"}
    assert checked(yaml.safe_dump(spec), given) == {"many": [1, 2], "named": {"a": 1}, "flag": True}
    with pytest.raises(ConfigError, match="must be a list"):
        checked(yaml.safe_dump(spec), {**given, "many": "{}"})
    with pytest.raises(ConfigError, match="is missing: flag"):
        checked(yaml.safe_dump(spec), {"many": [], "named": {}})


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A checkout of its own, whose commit holds the pipeline; returns the pipeline's file."""
    path = tmp_path / "pipelines" / "citation" / "pipeline.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(TEXT)
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(local_runner, "compiled", lambda *name: path)
    return path


def test_a_version_is_named_after_the_commit_that_holds_its_text(committed):
    sha = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=committed.parent, capture_output=True, text=True
    ).stdout
    assert version_name(TEXT) == f"citeflow-{__version__}+{sha[:7]}"


def test_a_text_that_is_not_committed_adds_its_digest_so_that_no_name_means_two_contents(committed):
    base, changed = version_name(TEXT), version_name(with_images(TEXT, step_image="step:2"))
    assert changed.startswith(f"{base}-")
    assert version_name(with_images(TEXT, step_image="step:3")) != changed


def test_outside_of_a_checkout_the_digest_names_the_version(tmp_path, monkeypatch):
    monkeypatch.setattr(local_runner, "compiled", lambda *name: tmp_path / "pipeline.yaml")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    name = version_name(TEXT)
    assert name.startswith(f"citeflow-{__version__}+")
    assert version_name(TEXT + "\n") != name


def test_a_schedule_as_of_crontab_is_refused_since_the_server_would_read_it_as_another():
    with pytest.raises(ConfigError, match="six fields"):
        plan(cron="0 3 * * 1")
    assert plan(cron="0 0  3 * * 1").cron == "0 0 3 * * 1"


def test_the_experiment_is_the_one_that_kfp_would_take(monkeypatch):
    assert plan().experiment == "citeflow"
    monkeypatch.setenv("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME", "team")
    assert plan().experiment == "team"
    assert plan(experiment="mine").experiment == "mine"
    monkeypatch.setenv("KF_PIPELINES_OVERRIDE_EXPERIMENT_NAME", "always")
    assert plan(experiment="mine").experiment == "always"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"workers": 0}, "workers: 0"),
        ({"epochs": 3, "minutes": 2}, "epochs and minutes are both set"),
        ({"run_name": "A_B"}, "run name: A_B"),
        ({"settings": "nosuch: {a: 1}"}, "unknown section: nosuch"),
        ({"job": "{cpuu: 4}"}, "unknown setting: job.cpuu"),
        (
            {"dataset": "https://user:secret@host/x.zip"},
            "a URL with a password: https://host/x.zip",
        ),
        ({"dataset": "http://[secret"}, "dataset: a malformed URL"),
    ],
)
def test_what_the_first_step_would_refuse_is_refused_before_anything_is_sent(given, told):
    with pytest.raises(ConfigError) as caught:
        submit.plan(given)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost:8080", "ftp://host"])
def test_a_host_without_a_scheme_is_refused(host):
    with pytest.raises(ConfigError, match="--host"):
        api.connect(host=host)


@pytest.mark.parametrize(
    ("compiled", "given", "told"),
    [
        ("scaling", {"dataset": "https://me:s3cret@host/x.zip"}, "password"),
        ("compare", {"dataset": "https://me:s3cret@host/x.zip"}, "password"),
        ("tune", {"dataset": "https://me:s3cret@host/x.zip"}, "password"),
        ("scaling", {"workers": [0]}, "workers: 0"),
        ("scaling", {"workers": "[1.5]"}, "workers: 1.5"),
        ("scaling", {"job": "{cpuu: 4}"}, "cpuu"),
        ("compare", {"models": "{a: {}, b: {model: {predictr: dot}}}"}, "predictr"),
        ("compare", {"epochs": 2, "minutes": 1}, "both set"),
        ("tune", {"trials": 0}, "trials: 0"),
        ("tune", {"space": "{train.lrr: [1]}"}, "train.lrr"),
    ],
)
def test_what_the_first_steps_of_an_experiment_would_refuse_is_refused_before_it_is_sent(
    compiled, given, told
):
    with pytest.raises(ConfigError, match=told):
        plan(given, compiled=compiled)


@pytest.mark.parametrize("given", ["1,3", "[1, 3]", [1, 3]])
def test_a_list_may_be_written_with_commas_alone(given):
    assert plan({"workers": given}, compiled="scaling").parameters["workers"] == [1, 3]
