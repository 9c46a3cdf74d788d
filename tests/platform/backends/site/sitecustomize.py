"""Stands in for `citeflow run` in processes that a test starts: it records, prints, and waits.

What it waits for is the file `control` in the folder of the run: `succeed`, or the error to end
with. A signal stops it, as it stops the command.
"""

import sys
import time
from pathlib import Path

LINES = ("train starts", "train[rank 0] step step=1", "train[rank 1] step step=1")


def run(options):
    from citeflow import local_runs
    from citeflow.errors import DataError
    from citeflow.paths import RunPaths
    from citeflow.utils.signals import handle_signals

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


if sys.orig_argv[2:5] == ["-m", "citeflow", "run"]:
    try:
        run(dict(zip(sys.orig_argv[5::2], sys.orig_argv[6::2], strict=True)))
    except Exception as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(65)
    sys.exit()
