"""torchrun, which ends with a line where it would end with a traceback of its own.

`python -m citeflow.training.torchrun` takes the arguments of torchrun. Nothing is wrong in a run
that was terminated, and a worker that failed has said itself what was wrong.
"""

import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from citeflow.utils.logging import log


def main() -> None:
    """Run torchrun with the arguments of the command line."""
    try:
        run.main()
    except SignalException as stopped:
        log("train", "torchrun was stopped", signal=signal.Signals(stopped.sigval).name)
        sys.exit(128 + stopped.sigval)
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        log("train", "a worker has failed", rank=rank, exit_code=failure.exitcode)
        sys.exit(1)


if __name__ == "__main__":
    main()
