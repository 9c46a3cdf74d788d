"""Run a command that reads a file of a stranger: with little memory, time and disk.

`python -m citeflow.platform.confined MEMORY SECONDS FILE_BYTES COMMAND...` becomes the command.
"""

import os
import resource
import sys
from collections.abc import Sequence

MODULE = "citeflow.platform.confined"


def main(argv: Sequence[str]) -> None:
    """Lower the limits of this process, and become the command."""
    memory, seconds, file_bytes = map(int, argv[:3])
    for kind, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    os.execv(argv[3], list(argv[3:]))


if __name__ == "__main__":
    main(sys.argv[1:])
