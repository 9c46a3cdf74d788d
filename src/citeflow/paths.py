"""The name of a run, and where its model, report and logs lie below `data_root`."""

import re
from pathlib import Path

from citeflow.errors import ConfigError
from citeflow.utils.logging import without_secrets

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


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
    last = without_secrets(dataset).rstrip("/").rpartition("/")[2].partition(".")[0].lower()
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
