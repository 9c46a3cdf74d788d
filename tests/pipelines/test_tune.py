import pytest
import yaml

from citeflow import config, files
from citeflow.experiments import tuning
from citeflow.experiments.tuning import STORAGE_VARIABLE
from citeflow.kubeflow import local_runner
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubernetes.job_spec import IMAGE, IMAGE_VARIABLE


@pytest.fixture(scope="module")
def documents():
    return list(yaml.safe_load_all(PIPELINES["tune"].compiled().read_text()))


@pytest.fixture(scope="module")
def executors(documents):
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def test_the_steps_that_use_the_study_get_its_database_from_a_secret_that_may_be_missing(executors):
    with_study = {name for name, executor in executors.items() if "secretAsEnv" in executor}
    names = {"exec-tuning-trials", "exec-tune-trials", "exec-tuning-report"}
    assert names <= with_study
    for name in names:
        (secret,) = executors[name]["secretAsEnv"]
        assert secret["secretName"] == "citeflow-study"
        assert secret["keyToEnv"] == [{"secretKey": "url", "envVar": STORAGE_VARIABLE}]
        assert secret["optional"] is True


def test_no_parameter_holds_the_database(documents):
    names = documents[0]["root"]["inputDefinitions"]["parameters"]
    assert not [
        name
        for name in names
        if any(word in name for word in ("storage", "url", "password", "secret"))
    ]


def test_a_trial_s_job_gets_the_workers_image(documents, executors):
    container = documents[0]["deploymentSpec"]["executors"]["exec-tune-trials"]["container"]
    assert container["env"] == [{"name": IMAGE_VARIABLE, "value": IMAGE}]
    fields = {each["name"] for each in executors["exec-tune-trials"]["fieldPathAsEnv"]}
    assert fields == {"CITEFLOW_POD_NAME", "CITEFLOW_POD_UID"}


def test_a_search_with_two_trials_at_a_time_runs_here(prepared, tmp_path):
    settings = config.load(
        overrides=[*prepared.settings, "train.epochs=1", "train.num_validations=1"]
    )
    arguments = {
        "dataset": str(prepared.data_root / "papers"),
        "trials": 2,
        "parallel": 2,
        "space": "{train.lr: {low: 0.01, high: 0.02}}",
        "settings": config.to_yaml(settings),
        "run_name": "s",
        "data_root": str(tmp_path),
    }
    local_runner.run_pipeline(PIPELINES["tune"].compiled(), arguments, scratch=tmp_path)
    out = tmp_path / "runs" / "s" / "published"
    wanted = {
        "best.yaml",
        "model",
        "report.html",
        "report.json",
        "trials.csv",
        "tuning.html",
        "tuning.json",
    }
    assert wanted <= set(files.names_in(out))
    assert [trial.state for trial in tuning.tried(tmp_path, "s", 2)] == ["complete"] * 2
    best = config.load(file=out / "best.yaml")
    told = files.read_json(out / "tuning.json")
    assert (
        config.load(overrides=told["options"].replace("--set ", "").split()).train.lr
        == best.train.lr
    )
    assert "default settings" in told["verdict"]
