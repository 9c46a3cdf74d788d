"""One attempt of the train step, in a process of its own that may be killed at any moment."""

import sys
from pathlib import Path

from clusters import connect, watcher_of

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
