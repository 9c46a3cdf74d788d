"""The page of a run, as a command opens and closes it."""

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from types import TracebackType

from citeflow.errors import CiteflowError
from citeflow.platform.live.shown import Order, Shown
from citeflow.serving.listening import Address
from citeflow.utils.logging import log

HOST = "127.0.0.1"
VIEWER = "citeflow.platform.live.viewer"

GRACE_S = 10.0
"""Time for the pages to get the end of a run."""

END_S = 5.0
"""Time for the process to end after that."""

MAX_BYTES = 100

DISPLAYS = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
"""Variables of an environment in which a browser can be started."""


class View:
    """The page of a run, in a process of its own, from `start` to the end of a block.

    Nothing about it ends the command: a page that cannot be served is a line of the log.
    """

    def __init__(self, shown: Shown, *, grace_s: float = GRACE_S) -> None:
        """Open nothing yet.

        Args:
            shown: the run.
            grace_s: time for the pages to get its end.
        """
        self._shown = shown
        self._grace_s = grace_s
        self._process: subprocess.Popen[str] | None = None
        self._alive: int | None = None
        self._pid = b""

    def start(self) -> None:
        """Serve the page, print its address, and start a browser where there can be one."""
        try:
            url = self._start()
        except (OSError, CiteflowError) as error:
            log("run", "no page", because=error)
        else:
            log("run", "page", url=url)

    def wait(self) -> None:
        """Wait until Ctrl-C, or the end of the process."""
        with contextlib.suppress(KeyboardInterrupt):
            self._has_ended_within(None)

    def close(self) -> None:
        """Let the pages get the end of the run, and the process end; Ctrl-C skips that."""
        if self._process is None or self._alive is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        has_ended = False
        with contextlib.suppress(KeyboardInterrupt):
            has_ended = self._has_ended_within(self._grace_s + END_S)
        if not has_ended:
            self._kill()
        os.close(self._alive)
        self._process.wait()
        self._process = None

    def __enter__(self) -> "View":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _start(self) -> str:
        token = secrets.token_urlsafe()
        is_opened = any(os.environ.get(name) for name in DISPLAYS)
        order = Order(
            shown=self._shown,
            token=token,
            ticket=secrets.token_urlsafe() if is_opened else "",
            grace_s=self._grace_s,
        )
        with Address(host=HOST, port=0).bind() as listener:
            host, port = listener.getsockname()
            alive, other_end = os.pipe()
            descriptors = (listener.fileno(), other_end)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", VIEWER, *map(str, descriptors)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    start_new_session=True,  # Ctrl-C is not for it
                    text=True,
                )
            finally:
                os.close(other_end)
        self._alive = alive
        assert self._process.stdin is not None
        # Not on its command line, which all users of the machine can read.
        self._process.stdin.write(f"{order.model_dump_json()}\n")
        self._process.stdin.flush()
        return f"http://{host}:{port}/?token={token}"

    def _has_ended_within(self, limit_s: float | None) -> bool:
        """Wait for the process to end; what it writes before that is its id."""
        assert self._alive is not None
        deadline_s = None if limit_s is None else time.monotonic() + limit_s
        while True:
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            if not select.select([self._alive], [], [], left_s)[0]:
                return False
            text = os.read(self._alive, MAX_BYTES)
            if not text:
                return True
            self._pid += text

    def _kill(self) -> None:
        """Kill the process, which has its id as long as its end of the pipe is open."""
        assert self._process is not None
        self._process.kill()
        if not self._has_ended_within(0) and self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self._pid), signal.SIGKILL)
