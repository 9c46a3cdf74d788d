"""The name of a run, and the paths of its model, report and logs below `data_root`."""

import re
from dataclasses import dataclass
from pathlib import Path

from citeflow.errors import ConfigError
from citeflow.utils.logging import redact_url

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The paths of one run. A run of an experiment is named `<experiment>/<trial>`."""

    data_root: Path
    name: str

    @classmethod
    def of_folder(cls, data_root: Path, folder: Path) -> "RunPaths":
        """Return the paths of the run whose folder is given."""
        below = data_root / "runs"
        is_below = folder.is_relative_to(below)
        return cls(data_root, folder.relative_to(below).as_posix() if is_below else folder.name)

    @property
    def folder(self) -> Path:
        """Folder of the run, with everything that follows but the logs."""
        return self.data_root / "runs" / self.name

    @property
    def model(self) -> Path:
        """The TrainedModel."""
        return self.folder / "model"

    @property
    def report(self) -> Path:
        """The EvalReport."""
        return self.folder / "report"

    @property
    def index(self) -> Path:
        """The ServingIndex."""
        return self.folder / "index"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints that a training resumes from."""
        return self.folder / "checkpoints"

    @property
    def leases(self) -> Path:
        """One file per start of the workers; the newest holds the run."""
        return self.folder / "attempts"

    @property
    def job_file(self) -> Path:
        """The job that the workers read: graph, run and settings."""
        return self.folder / "job.json"

    @property
    def error_file(self) -> Path:
        """The error that a worker ended with, for the launcher."""
        return self.folder / "error.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one launcher that trains this run on this machine."""
        return self.folder / "train.lock"

    @property
    def status_file(self) -> Path:
        """Dataset, state and times of a pipeline that ran on this machine."""
        return self.folder / "run.json"

    @property
    def pipeline_lock(self) -> Path:
        """Held by the one pipeline of this machine that runs under this name."""
        return self.folder / "run.lock"

    @property
    def output_file(self) -> Path:
        """Log of the pipelines that this machine has run under this name, one after the other."""
        return self.folder / "output.log"

    @property
    def archived_file(self) -> Path:
        """There if the run is archived."""
        return self.folder / "archived.json"

    @property
    def logs(self) -> Path:
        """Event files, where TensorBoard finds them."""
        return self.data_root / "logs" / self.name

    @property
    def published(self) -> Path:
        """Where `publish` puts report and model unless a folder is given."""
        return self.folder / "published"

    @property
    def is_trial(self) -> bool:
        """True if the run is part of an experiment."""
        return "/" in self.name


def is_name(name: str) -> bool:
    """Tell whether a text can name a folder, a pod and a TensorBoard run."""
    return bool(_NAME.fullmatch(name))


def check_name(name: str) -> str:
    """Return the name if it can name a folder, a pod and a TensorBoard run.

    Raises:
        ConfigError: it can not.
    """
    if not is_name(name):
        hint = "1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends"
        raise ConfigError("run name", name, hint=hint)
    return name


def make_name(dataset: str, suffix: str) -> str:
    """Name a run after its dataset, without secrets.

    Args:
        dataset: a name, path or URL.
        suffix: distinguishes the run from others of the same dataset.
    """
    last = redact_url(dataset).rstrip("/").rpartition("/")[2].partition(".")[0].lower()
    words = re.findall(r"[a-z0-9]+", last)
    stem = "-".join(words)[: 62 - len(suffix)].strip("-")
    return check_name(f"{stem}-{suffix}" if stem else suffix)
