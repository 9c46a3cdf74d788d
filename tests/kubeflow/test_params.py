from pathlib import Path

import pytest

from citeflow.errors import ConfigError
from citeflow.kubeflow.params import RunParams, job_request
from citeflow.kubernetes.job_spec import IMAGE_VARIABLE
from citeflow.kubernetes.launchers import LAUNCHERS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": 0}, "workers: 0\nhint: at least 1"),
        ({"epochs": 3, "minutes": 2}, "epochs and minutes are both set: 3 and 2"),
        ({"epochs": -1}, "train.epochs"),
        ({"run_name": "A_B"}, "run name: A_B"),
        ({"preset": "sed"}, "unknown preset: sed"),
        ({"predictor": "dott"}, "model.predictor: dott"),
        ({"launcher": "job"}, "launcher: job\nhint: one of auto, local, pytorchjob, trainjob"),
        ({"job": "{cpuu: 4}"}, "unknown setting: job.cpuu"),
        ({"settings": "train:   epochs: 3   lr: 0.1"}, "on one line: {train: {epochs: 3,"),
        (
            {"dataset": "https://user:secret@host/x.zip"},
            "a URL with a password: https://host/x.zip",
        ),
        ({"dataset": "http://[secret"}, "dataset: a malformed URL"),
    ],
)
def test_checked_refuses_a_wrong_parameter(given, message):
    with pytest.raises(ConfigError) as caught:
        RunParams.checked(**given)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_config_overrides_settings_with_parameters():
    settings = "train: {minutes: 5, lr: 0.5}"
    config = RunParams.checked(settings=settings, predictor="dot", epochs=3).config()
    assert (config.model.predictor, config.train.epochs, config.train.minutes) == ("dot", 3, 0)
    assert config.train.lr == 0.5
    assert RunParams.checked(settings=settings, minutes=2).config().train.minutes == 2


def test_of_pipeline_leaves_out_lists_and_other_parameters():
    params = RunParams.of_pipeline({"workers": [1, 2], "seeds": [0], "dataset": 7, "epochs": "2"})
    assert (params.workers, params.dataset, params.epochs) == (1, "7", 2.0)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_job_request_checks_that_the_pods_see_the_run(launcher, monkeypatch):
    monkeypatch.setenv(IMAGE_VARIABLE, "i:1")
    monkeypatch.setenv("KFP_POD_NAME", "citation-x7k2q-2104")  # elsewhere Ray needs no pods
    job = "{cpu: 2, volumes: {claim: /mnt/data}}"
    folder = Path("/mnt/data/runs/a")
    request = job_request(launcher, job, workers=3, run_id="id", run_dir=folder)
    assert (request.launcher, request.run_id) == (launcher, "id")
    assert (request.spec.workers, request.spec.image, request.spec.cpu) == (3, "i:1", "2")
    with pytest.raises(ConfigError, match="do not see the folder"):
        job_request(launcher, job, workers=3, run_id="id", run_dir=Path("/elsewhere"))
    assert job_request("local", "", workers=3, run_id="id", run_dir=Path("/elsewhere")) is None
