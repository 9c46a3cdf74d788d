"""Stands in for `citeflow run` in processes that a test starts: it records, prints, and waits.

What it waits for is the file `control` in the folder of the run: `succeed`, or the error to end
with. A signal stops it, as it stops the command.
"""

import sys
import time
from pathlib import Path

from citeflow import local_runs
from citeflow.errors import DataError
from citeflow.paths import RunPaths
from citeflow.utils.signals import handle_signals

LINES = ("train starts", "train[rank 0] step step=1", "train[rank 1] step step=1")


def run(options):
    paths = RunPaths(Path(options["--data-root"]), options["--run-name"])
    control = paths.folder / "control"
    with handle_signals(), local_runs.recorded(paths, options["--dataset"]):
        for line in LINES:
            print(f"12:00:00 {line}", file=sys.stderr, flush=True)
        while not control.exists():
            time.sleep(0.01)
        said = control.read_text()
        control.unlink()
        if said != "succeed":
            raise DataError(said)


if __name__ == "__main__":
    assert sys.argv[1] == "run"
    try:
        run(dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True)))
    except Exception as error:
        sys.exit(str(error))
