"""The train step, or one attempt of it, in a process that may be killed at any moment."""

import os
import sys
from pathlib import Path

from clusters import connect, watcher_of

from citeflow import attempts
from citeflow.errors import CiteflowError
from citeflow.kubernetes.identity import Owner
from citeflow.utils.signals import handle_signals


def attempt(url, root, name, uid):
    """Create or adopt the job, and wait for its model; the exit code is that of a step."""
    sys.stderr = open("/dev/null", "w")  # noqa: SIM115
    watcher = watcher_of(connect(url), Path(root), owner=Owner(name=name, uid=uid))
    try:
        with handle_signals():
            watcher.train(lambda: watcher.run.job_file.write_text("{}"))
    except CiteflowError as error:
        sys.exit(error.exit_code)


def step(url, root, name, uid):
    """Be a step as KFP's executor starts it: its child makes the attempts."""
    os.environ |= {attempts.EXECUTOR_VARIABLE: "true", attempts.PAUSE_VARIABLE: "0.1"}
    attempts.begin_attempt()
    attempt(url, root, name, uid)
