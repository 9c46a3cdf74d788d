"""The fields of the run form, checked alike where a run is submitted and at the first step of the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from citeflow import config, paths
from citeflow.config import Config
from citeflow.errors import ConfigError
from citeflow.kubernetes.job_spec import IMAGE, JobRequest, check_mounted, from_yaml
from citeflow.kubernetes.launchers import LAUNCHER_NAMES, LAUNCHERS
from citeflow.utils.logging import redact_url

DEFAULTS = {
    "dataset": "synthetic",
    "preset": "default",
    "settings": "",
    "predictor": "settings",
    "epochs": 0.0,
    "minutes": 0.0,
    "workers": 1,
    "launcher": "local",
    "job": "",
    "run_name": "",
}
"""The fields, and what a pipeline that does not offer one takes for it."""


def resolve(values: Mapping[str, Any]) -> Config:
    """The settings that a form asks for, once all of its fields have been checked; a list is not looked at.

    Raises:
        ConfigError: one of them is wrong, or two of them contradict each other.
    """
    fields = {
        name: value
        for name, value in values.items()
        if name in DEFAULTS and not isinstance(value, list)
    }
    values = {**DEFAULTS, **fields}
    if values["workers"] < 1:
        raise ConfigError("workers", values["workers"], hint="at least 1")
    if values["run_name"]:
        paths.check_name(values["run_name"])
    _check_public(values["dataset"])
    job_request(values["launcher"], values["job"], workers=values["workers"], run_id="a-run")
    overrides = _overrides(values["predictor"], values["epochs"], values["minutes"])
    return config.load(preset=values["preset"], text=values["settings"], overrides=overrides)


def job_request(
    launcher: str,
    job: str,
    *,
    workers: int,
    run_id: str,
    image: str = IMAGE,
    run_dir: Path | None = None,
) -> JobRequest | None:
    """What a cluster is asked for, or None where the step trains itself; the text is checked in both cases."""
    if launcher not in LAUNCHER_NAMES:
        raise ConfigError("launcher", launcher, hint=f"one of {', '.join(LAUNCHER_NAMES)}")
    spec = from_yaml(job, workers=workers, image=image)
    if launcher not in LAUNCHERS:
        return None
    if run_dir:
        check_mounted(spec, run_dir)
    return JobRequest(launcher=launcher, spec=spec, run_id=run_id)


def _overrides(predictor: str, epochs: float, minutes: float) -> list[str]:
    """The form's own fields as overrides; whichever way of bounding the training was chosen rules the other out."""
    if epochs and minutes:
        raise ConfigError(
            "epochs and minutes are both set", f"{epochs:g} and {minutes:g}", hint="leave one at 0"
        )
    fields = [f"model.predictor={predictor}"] if predictor != "settings" else []
    if epochs:
        fields += [f"train.epochs={epochs}", "train.minutes=0"]
    if minutes:
        fields += [f"train.minutes={minutes}"]
    return fields


def _check_public(dataset: str) -> None:
    """Whoever may see a run sees its parameters."""
    try:
        is_secret = "://" in dataset and "@" in urlsplit(dataset).netloc
    except ValueError:
        raise ConfigError("dataset", redact_url(dataset)) from None
    if is_secret:
        hint = "everybody who may see the run sees its parameters; bring the dataset onto the volume first"
        raise ConfigError("a URL with a password", redact_url(dataset), hint=hint)
