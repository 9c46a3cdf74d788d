"""The parameters of a training run: the fields of the run form, their defaults and their checks.

They are checked twice by the same code: before a run is submitted, and by its first stage. A
parameter that every pipeline shares is one field here, one argument of each pipeline and of the
component `download`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import field_validator

from citeflow import paths
from citeflow.config import TaskConfig
from citeflow.errors import ConfigError
from citeflow.kubernetes.choice import trains_here
from citeflow.kubernetes.job_spec import IMAGE, IMAGE_VARIABLE, JobRequest, check_mounted, from_yaml
from citeflow.kubernetes.launchers import AUTO, LAUNCHER_NAMES
from citeflow.tasks import load_settings
from citeflow.utils import records
from citeflow.utils.logging import redact_url
from citeflow.utils.records import Float, Int, Record, Str

FROM_SETTINGS = "from-settings"
"""The predictor that leaves the choice to the settings."""


class RunParams(Record):
    """Parameters of a run. A pipeline that does not offer one of them takes its default."""

    dataset: Str = "synthetic"
    """Name, path on the volume, or URL of the dataset."""

    preset: Str = "default"
    """Settings to start from."""

    settings: Str = ""
    """YAML text, merged over the preset."""

    predictor: Str = FROM_SETTINGS
    """Predictor of the model, over the settings."""

    epochs: Float = 0.0
    """Passes over the training citations, over the settings; 0 leaves it to them."""

    minutes: Float = 0.0
    """Time to train, over the settings; 0 leaves it to them."""

    workers: Int = 1
    """Training processes; pods, where a job trains."""

    launcher: Str = AUTO
    """What starts the training: one of `LAUNCHER_NAMES`."""

    job: Str = ""
    """YAML text with the settings of such a job."""

    run_name: Str = ""
    """Name in TensorBoard and on the volume; empty makes one."""

    task: Str = ""
    """One of `TASKS`; empty leaves it to the settings."""

    @field_validator("dataset")
    @classmethod
    def _has_no_password(cls, dataset: str) -> str:
        try:
            is_secret = "://" in dataset and "@" in urlsplit(dataset).netloc
        except ValueError:
            raise ConfigError("dataset", redact_url(dataset)) from None
        if is_secret:
            hint = "everybody who may see the run sees its parameters; download it first"
            raise ConfigError("a URL with a password", redact_url(dataset), hint=hint)
        return dataset

    @field_validator("workers")
    @classmethod
    def _is_positive(cls, workers: int) -> int:
        if workers < 1:
            raise ConfigError("workers", workers, hint="at least 1")
        return workers

    @field_validator("run_name")
    @classmethod
    def _is_name(cls, run_name: str) -> str:
        return paths.check_name(run_name) if run_name else run_name

    @classmethod
    def checked(cls, **values: object) -> "RunParams":
        """Read parameters, with their settings and those of the job.

        Raises:
            ConfigError: one of them is wrong, or two of them contradict each other.
        """
        params = records.load(cls, values)
        job_request(params.launcher, params.job, workers=params.workers, run_id="unknown")
        params.config()
        return params

    @classmethod
    def of_pipeline(cls, values: Mapping[str, object]) -> "RunParams":
        """Read and check those parameters of a pipeline that every run has.

        A list holds the values of several runs, such as the workers of a scaling experiment. It is
        left out: the experiment checks it.
        """
        shared = {
            name: value
            for name, value in values.items()
            if name in cls.model_fields and not isinstance(value, list)
        }
        return cls.checked(**shared)

    def config(self) -> TaskConfig:
        """Return all settings, with the parameters that override some of them.

        Raises:
            ConfigError: a setting is wrong, or the training is limited in two ways.
        """
        if self.epochs and self.minutes:
            both = f"{self.epochs:g} and {self.minutes:g}"
            raise ConfigError("epochs and minutes are both set", both, hint="leave one at 0")
        overrides = []
        if self.predictor != FROM_SETTINGS:
            overrides.append(f"model.predictor={self.predictor}")
        if self.epochs:
            overrides += [f"train.epochs={self.epochs}", "train.minutes=0"]
        if self.minutes:
            overrides.append(f"train.minutes={self.minutes}")
        return load_settings(self.task, preset=self.preset, text=self.settings, overrides=overrides)


def job_request(
    launcher: str, job: str, *, workers: int, run_id: str, run_dir: Path | None = None
) -> JobRequest | None:
    """Read what a cluster is asked for; None where the stage trains by itself, or may do so.

    The image of the pods is $CITEFLOW_TRAIN_IMAGE, where the text does not say.

    Args:
        launcher: one of LAUNCHER_NAMES; a stage asks `choose_launcher` before.
        job: YAML text with the settings of the job; it is checked in either case.
        workers: number of pods, where the text does not say.
        run_id: id of the pipeline run.
        run_dir: folder of the run, which the pods have to see at the same path.

    Raises:
        ConfigError: there is no such launcher, a setting is wrong, or `run_dir` is not mounted.
    """
    if launcher not in LAUNCHER_NAMES:
        hint = f"one of {', '.join(LAUNCHER_NAMES)}"
        raise ConfigError("launcher", launcher, hint=hint)
    spec = from_yaml(job, workers=workers, image=os.environ.get(IMAGE_VARIABLE, IMAGE))
    if launcher == AUTO or trains_here(launcher):
        return None
    if run_dir is not None:
        check_mounted(spec, run_dir)
    return JobRequest(launcher=launcher, spec=spec, run_id=run_id)
