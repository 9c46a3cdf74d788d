"""The process that serves the page of a run: `python -m ...live.viewer LISTENER ALIVE`.

It is none of the run's own, so that nothing of it can slow down or end a training: it reads what
the run writes, and gives way to all others at the cores. It is no child of the command either,
which upon Ctrl-C would end it before it could show how the run ended. It lives as long as its stdin
is open, whose other end the command alone has, and a little longer: until the pages have the end.
"""

import os
import sys
from collections.abc import Sequence

NICE = 10
"""Added to the niceness of the command."""


def main(argv: Sequence[str]) -> None:
    """Serve a page through a socket that listens already.

    Args:
        argv: descriptors of the socket, and of a pipe that gets the process id and is closed at
            the end.
    """
    listener, alive = map(int, argv)
    if os.fork():
        os._exit(0)  # the parent of its child is now that of all orphans
    os.write(alive, f"{os.getpid()}\n".encode())
    os.nice(NICE)
    # After the fork, which nobody has to wait for then.
    from citeflow.platform.live import server

    server.serve(listener)


if __name__ == "__main__":
    main(sys.argv[1:])
