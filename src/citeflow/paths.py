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
    def checkpoints(self) -> Path:
        """Checkpoints that a training resumes from."""
        return self.folder / "checkpoints"

    @property
    def leases(self) -> Path:
        """One file per start of the workers; the newest holds the run."""
        return self.folder / "attempts"

    @property
    def job_file(self) -> Path:
        """What the workers read: graph, run and settings."""
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
    def logs(self) -> Path:
        """Event files, where TensorBoard finds them."""
        return self.data_root / "logs" / self.name

    @property
    def published(self) -> Path:
        """Where `publish` puts report and model unless a folder is given."""
        return self.folder / "published"

    @property
    def is_trial(self) -> bool:
        """Whether the run is part of an experiment."""
        return "/" in self.name


def check_name(name: str) -> str:
    """Give the name back if it can name a folder, a pod and a TensorBoard run.

    Raises:
        ConfigError: it can not.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "run name", name, hint="1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends"
        )
    return name


def make_name(dataset: str, suffix: str) -> str:
    """Name a run after its dataset (a name, path or URL) without secrets, and what tells it from others of the same."""
    last = redact_url(dataset).rstrip("/").rpartition("/")[2].partition(".")[0].lower()
    words = re.findall(r"[a-z0-9]+", last)
    stem = "-".join(words)[: 62 - len(suffix)].strip("-")
    return check_name(f"{stem}-{suffix}" if stem else suffix)


def name_of(data_root: Path, folder: Path) -> str:
    """Name of the run that has this folder: the part below `runs`, with a slash in the name of an experiment's run."""
    below = data_root / "runs"
    return folder.relative_to(below).as_posix() if folder.is_relative_to(below) else folder.name


def place_of(run_dir: Path, log_dir: Path) -> tuple[Path, str]:
    """The data root and the name of a run, from its two folders."""
    for root in log_dir.parents:
        name = name_of(root, run_dir)
        if log_folder(root, name) == log_dir:
            return root, name
    return log_dir.parent, log_dir.name


def is_trial(name: str) -> bool:
    """Whether a run is part of an experiment."""
    return "/" in name


def run_folder(data_root: Path, name: str) -> Path:
    """Where the model and the report of a run lie."""
    return data_root / "runs" / name


def log_folder(data_root: Path, name: str) -> Path:
    """Where TensorBoard finds a run."""
    return data_root / "logs" / name


def published_folder(data_root: Path, name: str) -> Path:
    """Where `publish` puts its result unless it is told otherwise."""
    return run_folder(data_root, name) / "published"
