"""How the error of a pipeline's step reaches whoever started it: by a file, as Kubernetes' termination message does."""

import json
import os
from pathlib import Path

from citeflow import errors, files
from citeflow.errors import CiteflowError

VARIABLE = "CITEFLOW_TERMINATION_LOG"
"""Environment variable that names the file."""

OF_A_POD = Path("/dev/termination-log")
"""The file that Kubernetes reads a container's last words from."""


def leave(error: CiteflowError) -> None:
    """Write the error where it is looked for, if anybody looks."""
    named = os.environ.get(VARIABLE)
    path = Path(named) if named else OF_A_POD
    if named or (path.exists() and os.access(path, os.W_OK)):
        files.write_in_place(path, json.dumps(errors.to_record(error)))


def left() -> CiteflowError | None:
    """The error that another step of the same run has left, where the steps share a file."""
    named = os.environ.get(VARIABLE)
    return read(Path(named)) if named else None


def read(path: Path) -> CiteflowError | None:
    """The error that was left, or None."""
    return errors.from_record(files.read_json(path)) if path.is_file() else None
