"""The error of a component, passed in a file to the process that started it.

In a pod it is Kubernetes' termination message; the local runner names the file in an environment
variable.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from citeflow import errors, files
from citeflow.errors import CiteflowError, TrainingError

VARIABLE = "CITEFLOW_TERMINATION_LOG"
"""Environment variable with the path of the file."""

POD_PATH = Path("/dev/termination-log")
"""File that Kubernetes reads the termination message of a container from."""


def write(error: CiteflowError) -> None:
    """Write an error to the shared file or the termination log, where there is one."""
    shared = os.environ.get(VARIABLE)
    path = Path(shared) if shared else POD_PATH
    if shared or (path.exists() and os.access(path, os.W_OK)):
        # Kubernetes mounts this one file: it cannot be replaced, only overwritten.
        files.write_in_place(path, json.dumps(errors.error_to_dict(error)))


def read(path: Path | None = None) -> CiteflowError | None:
    """Return the error that a component has written, or one that says that it was killed.

    Args:
        path: the file; by default the one that the environment variable names.
    """
    shared = path or os.environ.get(VARIABLE)
    if not shared:
        return None
    file = Path(shared)
    if file.is_file():
        return errors.error_from_dict(files.read_json(file))
    return _find_killed(file)


@contextlib.contextmanager
def alive_marker(process: int = 0) -> Iterator[None]:
    """Keep a marker file with a process id beside the shared file during the block.

    A process that is killed (SIGKILL, out of memory) leaves it, which is all that it can say.

    Args:
        process: the one above that starts this one again when it is killed; 0 for this one.
    """
    shared = os.environ.get(VARIABLE)
    if not shared:
        yield
        return
    marker = Path(f"{shared}.{process or os.getpid()}")
    files.write_in_place(marker, "")
    try:
        yield
    finally:
        files.delete(marker.parent, marker.name)


def _find_killed(path: Path) -> CiteflowError | None:
    for marker in path.parent.glob(f"{path.name}.*"):
        is_alive = psutil.pid_exists(int(marker.suffix[1:]))
        # Looked for again, since the process may have removed it and ended well in between.
        if not is_alive and marker.exists():
            hint = "it may have run out of memory; run the same command again to continue"
            what = "a step of the pipeline was killed"
            return TrainingError(what, "before it could say why", hint=hint)
    return None
