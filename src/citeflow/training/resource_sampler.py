"""A thread that looks every few seconds at what is used, beside the work and never in its way."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable
from types import TracebackType

from citeflow.utils.logging import log
from citeflow.utils.usage import Source, Usage

INTERVAL_S = 1.0
END_S = 5.0
"""How long the end waits for a sample that hangs, as on a disk that does not answer."""

MOST_SAMPLES = 400
"""More are thinned to half, and the interval doubled: a day has no more than seven minutes have."""

TOGETHER = ("rss_bytes", "shared_bytes", "container_bytes")
"""Of two samples that become one, the higher; of all else the later."""

Tell = Callable[[Usage, Usage], None]


class Sampler:
    """Samples from beginning to end of a block; a failure ends the sampling, is told once, and nothing else ends."""

    def __init__(
        self, source: Source, *, interval_s: float = INTERVAL_S, tell: Tell | None = None
    ) -> None:
        """Prepare it.

        Args:
            source: where samples come from.
            interval_s: seconds between two of them, at first.
            tell: called on the thread with each sample and the one before.
        """
        self._source, self._interval_s, self._tell = source, interval_s, tell
        self._ended, self._samples = threading.Event(), list[Usage]()
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)

    def __enter__(self) -> "Sampler":
        """Take the first sample, and begin."""
        self._take()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the thread; after a block that went well with a last sample."""
        is_well = kind is None and not self._ended.is_set()
        self._ended.set()
        self._thread.join(END_S)
        if is_well and not self._thread.is_alive():
            self._take()

    @property
    def samples(self) -> list[Usage]:
        """What was seen, in the order of time."""
        return list(self._samples)

    def until_now(self) -> list[Usage]:
        """The same, and a last sample that is taken now, if it can be."""
        samples, last = self.samples, self.now()
        return [*samples, last] if last else samples

    def now(self) -> Usage | None:
        """A sample that is taken now; None where that fails."""
        with contextlib.suppress(Exception):
            return self._source.read()
        return None

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._take()

    def _take(self) -> None:
        try:
            self._samples.append(self._source.read())
            if self._tell and len(self._samples) > 1:
                self._tell(*self._samples[-2:])
        except Exception as error:
            self._ended.set()
            log("train", "samples resources no more", why=error)
        if len(self._samples) > MOST_SAMPLES:
            self._samples = thinned(self._samples)
            self._interval_s *= 2


def thinned(samples: list[Usage]) -> list[Usage]:
    """One of every two samples, the first as it is: the later, with the higher memory of both."""
    first, *rest = samples
    pairs = zip(rest[::2], rest[1::2], strict=False)
    return [first, *(_both(*pair) for pair in pairs), *rest[len(rest) // 2 * 2 :]]


def _both(before: Usage, after: Usage) -> Usage:
    return dataclasses.replace(
        after, **{name: max(getattr(before, name), getattr(after, name)) for name in TOGETHER}
    )
