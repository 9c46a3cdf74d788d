"""torchrun, which starts its workers by a fork, and is started again itself when it is lost.

`python -m citeflow.training.torchrun` takes the arguments of torchrun, with `-m MODULE` and what
that module takes. This process imports the module and keeps it ready: torchrun is forked from it,
from torchrun a standby for each worker, and from the standby the worker. So what is lost is back
without an import, and each makes up for the loss of the next one: `citeflow`, as ps and top name
this process, starts torchrun again, `torchrun` the standbys, and a `standby` its worker, `rank`.
"""

import argparse
import contextlib
import importlib
import logging
import signal
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from torch.distributed import DistError, run
from torch.distributed.elastic.multiprocessing import api
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from citeflow import files
from citeflow.training.forks import Child, adopt_orphans, await_orphans, set_process_name
from citeflow.training.handover import Handover
from citeflow.training.standby import stand_by
from citeflow.utils.logging import log

MAX_LOST_IN_VAIN = 3
"""How often torchrun may be lost in a row without a start of the workers in between."""

GRACE_S = 30
"""Time for what a lost torchrun has left to end; torchrun gives its workers as long."""

LOST = 2
"""Exit code of a torchrun whose workers have not failed: it has lost the others."""

LEASES = "attempts"
"""Folder beside the job's file in which every start of the workers leaves a file."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run torchrun with the arguments of the command line, until the training has ended."""
    adopt_orphans()
    set_process_name("citeflow")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    arguments = _parse(argv)
    module = importlib.import_module(arguments.training_script)
    sys.argv = [str(module.__file__), *arguments.training_script_args]
    if hasattr(module, "preload"):
        module.preload()
    config, _, _ = run.config_from_args(arguments)
    handovers = [Handover() for _ in range(config.nproc_per_node)]

    def torchrun() -> None:
        run_torchrun(config, module.main, handovers)

    # Until here, a signal ends this process as any other.
    sys.exit(keep_running(Child(), torchrun, leases=Path(sys.argv[1]).with_name(LEASES)))


def keep_running(child: Child, torchrun: Callable[[], None], *, leases: Path) -> int:
    """Run torchrun, and again when it is lost, until it ends by itself; return its exit code.

    Args:
        child: the process that it runs in.
        torchrun: what it does.
        leases: folder with a file for every start of the workers.
    """
    in_vain = 0
    while True:
        before = _count(leases)
        child.start(torchrun, name="torchrun")
        exit_code = child.wait()
        await_orphans(GRACE_S)  # whose state is handed over, or saved
        has_met = _count(leases) > before
        in_vain = 0 if has_met else in_vain + 1
        is_lost = exit_code < 0 or exit_code == LOST or (exit_code == 1 and has_met)
        if child.is_asked_to_end or not is_lost or in_vain == MAX_LOST_IN_VAIN:
            return exit_code if exit_code >= 0 else 128 - exit_code
        log("train", "torchrun is lost and starts again", exit_code=exit_code)


def _count(leases: Path) -> int:
    """Count the starts of the workers; 0 where the volume does not answer."""
    with contextlib.suppress(OSError):
        return len(files.names_in(leases))
    return 0


def run_torchrun(
    config: LaunchConfig, work: Callable[[], object], handovers: list[Handover]
) -> None:
    """Run torchrun once.

    Raises:
        SystemExit: it was stopped, has lost the others, or one of its workers has failed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; it comes from above as SIGTERM
    logging.getLogger(api.__name__).addFilter(_without_traceback)
    try:
        elastic_launch(config, stand_by)(work, handovers)
    except SignalException as stopped:
        log("train", "torchrun was stopped", signal=signal.Signals(stopped.sigval).name)
        sys.exit(128 + stopped.sigval)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        log("train", "a worker has failed", rank=rank, exit_code=failure.exitcode)
        sys.exit(1)
    except (RendezvousError, DistError) as error:
        log("train", "torchrun has lost the others", why=str(error).partition("\n")[0])
        sys.exit(LOST)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    arguments: argparse.Namespace = run.parse_args(argv)  # type: ignore[no-untyped-call]
    arguments.start_method = "fork"
    arguments.signals_to_handle = "SIGTERM,SIGHUP,SIGQUIT"
    if arguments.standalone:  # as torchrun itself does
        arguments.rdzv_backend = "c10d"
        arguments.rdzv_endpoint = "localhost:0"
        arguments.rdzv_id = uuid.uuid4().hex
    return arguments


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leave the traceback of torchrun's own lines out: it tells nothing of the worker."""
    record.exc_info = None
    return True


if __name__ == "__main__":
    main()
