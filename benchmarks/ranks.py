"""The workers of a training that a benchmark has started."""

import contextlib
import re

import psutil


def workers_of(launcher: int) -> list[psutil.Process]:
    """Return the ranks below a process, by their names."""
    found = []
    for process in psutil.Process(launcher).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if re.fullmatch(r"rank \d+", process.name()):
                found.append(process)
    return found
