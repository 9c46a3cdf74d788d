"""The threads that answer, and the queue before them: bounded in length and in time."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TypeVar

from citeflow.serving.problems import ProblemError

RETRY_AFTER_S = 1

PAUSE_S = 0.5
"""Time before a refusal is sent: clients that ask again at once would take the processor from those
that are answered."""

T = TypeVar("T")


class WorkQueue:
    """Runs calls in a few threads, and refuses those that would wait behind too many."""

    def __init__(self, *, threads: int, max_waiting: int, timeout_s: float) -> None:
        """Start no thread before it is needed.

        Args:
            threads: calls that run at a time.
            max_waiting: calls that wait for a thread, at most.
            timeout_s: time that a call may wait and run.
        """
        self._threads = threads
        self._max_waiting = max_waiting
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="answer")
        self.pending = 0

    async def refuse_if_full(self) -> None:
        """Do nothing where there is room for a call.

        Raises:
            ProblemError: too many are waiting; it comes after a pause.
        """
        if self.pending < self._threads + self._max_waiting:
            return
        await asyncio.sleep(PAUSE_S)
        raise ProblemError(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"{self._max_waiting} requests are waiting",
            hint="ask again a second later, or ask another server",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )

    async def run(self, call: Callable[[threading.Event], T]) -> T:
        """Run a call in a thread.

        Args:
            call: gets an event that tells it to stop, as nobody waits for it any more.

        Raises:
            ProblemError: too many are waiting, or it took too long.
        """
        await self.refuse_if_full()
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        future = self._pool.submit(call, stop)
        self.pending += 1

        def done() -> None:
            self.pending -= 1

        # It counts until its thread is free, also where nobody waits for it any more.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(done))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._timeout_s)
        except TimeoutError:
            detail = f"no answer within {self._timeout_s:g} s"
            hint = "ask for less at a time"
            raise ProblemError(HTTPStatus.GATEWAY_TIMEOUT, detail, hint=hint) from None
        finally:
            stop.set()

    def close(self) -> None:
        """End the threads when they have done what is under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)
