"""Lets the torchrun of a pod end well before the pod does: the preStop hook of a worker of Ray.

KubeRay starts Ray below a shell, which passes no signal on, so that the workers would be killed
with what they have not saved.
"""

import contextlib

import psutil

from citeflow.training.launch import TORCHRUN

WAIT_S = 45
"""Of the pod's grace period; torchrun gives its workers 30 s to save."""


def main() -> None:
    """Ask each torchrun of this pod to end, and wait until it has."""
    found = [process for process in psutil.process_iter() if _is_torchrun(process)]
    pids = {process.pid for process in found}
    # Those that it has forked have the same command line, and hear of it from their parents.
    for process in (process for process in found if process.ppid() not in pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(found, timeout=WAIT_S)


def _is_torchrun(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return TORCHRUN in process.cmdline()
    return False


if __name__ == "__main__":
    main()
