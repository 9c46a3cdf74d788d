"""Runs a command with the limits of a sandbox on each of its processes.

`python -m citeflow.training.limits MEMORY_GIB FILE_GIB PROCESSES -- COMMAND` sets them within the
sandbox, so that the number of processes is counted there, and not over all that the user runs.
"""

import os
import resource
import sys

GIB = 2**30

ADDRESS_SPACE_GIB = 24
"""Over the memory: mapped files, and what libraries reserve and never touch."""

THREADS = 32
"""Threads for each process, as the kernel counts both alike."""


def main(argv: list[str]) -> None:
    """Set the limits, and become the command."""
    memory_gib, file_gib, processes = float(argv[0]), float(argv[1]), int(argv[2])
    for kind, limit in (
        (resource.RLIMIT_AS, (memory_gib + ADDRESS_SPACE_GIB) * GIB),
        (resource.RLIMIT_FSIZE, file_gib * GIB),
        (resource.RLIMIT_NPROC, processes * THREADS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
        resource.setrlimit(kind, (allowed, allowed))
    command = argv[argv.index("--") + 1 :]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
