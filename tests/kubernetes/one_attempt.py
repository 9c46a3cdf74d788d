"""One attempt of the train step, in a process of its own that may be killed at any moment."""

import sys
from pathlib import Path

from clusters import connect, launch_of

from citeflow.errors import CiteflowError
from citeflow.kubernetes.identity import Owner
from citeflow.kubernetes.watcher import run
from citeflow.utils.signals import handle_signals


def attempt(url: str, run_dir: str, name: str, uid: str) -> None:
    """Create or take over the job, and stay until its model is there; ends with 0 if it is, as a step does."""
    sys.stderr = open("/dev/null", "w")  # noqa: SIM115
    launch = launch_of(connect(url), Path(run_dir), owner=Owner(name=name, uid=uid))
    try:
        with handle_signals():
            run(launch, lambda: (Path(run_dir) / "job.json").write_text("{}"))
    except CiteflowError as error:
        sys.exit(error.exit_code)
