"""How the error of a pipeline's step reaches whoever started it: by a file, as Kubernetes' termination message does."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from citeflow import errors, files
from citeflow.errors import CiteflowError, TrainingError

VARIABLE = "CITEFLOW_TERMINATION_LOG"
"""Environment variable that names the file."""

OF_A_POD = Path("/dev/termination-log")
"""The file that Kubernetes reads a container's last words from."""


def write(error: CiteflowError) -> None:
    """Write the error where it is looked for, if anybody looks."""
    named = os.environ.get(VARIABLE)
    path = Path(named) if named else OF_A_POD
    if named or (path.exists() and os.access(path, os.W_OK)):
        files.write_in_place(path, json.dumps(errors.error_to_dict(error)))


def read(path: Path | None = None) -> CiteflowError | None:
    """The error that a step has left in a file, or that one was killed; by default in the file that the steps share."""
    named = path or os.environ.get(VARIABLE)
    return _read(Path(named)) or _killed(Path(named)) if named else None


@contextlib.contextmanager
def alive_marker() -> Iterator[None]:
    """Note, where the steps share a file, that this process is at work, for as long as it is."""
    named = os.environ.get(VARIABLE)
    mark = Path(f"{named}.{os.getpid()}") if named else None
    if mark:
        files.write_in_place(mark, "")
    try:
        yield
    finally:
        if mark:
            files.delete(mark.parent, mark.name)


def _killed(path: Path) -> CiteflowError | None:
    """An error where a step has ended without a word."""
    for mark in path.parent.glob(f"{path.name}.*"):
        if (
            not psutil.pid_exists(int(mark.suffix[1:])) and mark.exists()
        ):  # it might just have ended well
            hint = (
                "it may have needed more memory than there is; run the same command again to go on"
            )
            return TrainingError(
                "a step of the pipeline was killed", "before it could say why", hint=hint
            )
    return None


def _read(path: Path) -> CiteflowError | None:
    return errors.error_from_dict(files.read_json(path)) if path.is_file() else None
