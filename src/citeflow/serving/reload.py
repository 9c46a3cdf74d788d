"""The index that answers: opened in a thread, replaced by a newer one, kept where that is faulty.

A request holds the index that it began with, so none is lost when another takes its place; the old
one is freed with the last of them.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from citeflow import files
from citeflow.artifacts import SERVING_INDEX
from citeflow.errors import CiteflowError, CorruptError, NotFoundError, to_user_error
from citeflow.serving.metrics import ServerMetrics
from citeflow.serving.served import Served
from citeflow.tasks import task_of
from citeflow.tasks.base import Task
from citeflow.utils.logging import log

MAX_PAUSE_S = 60.0
"""Longest pause before another look at a faulty index, all of which may be read each time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the index comes from."""

    find: Callable[[], Path]
    """Returns the folder of the index, or a link to it; called at each look, may build it."""

    watch_s: float | None = None
    """Seconds between two looks; None looks once."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An index that was opened, and the task that it is of."""

    task: Task
    index: Served

    @property
    def sha256(self) -> str:
        """Digest of the index."""
        return self.index.manifest.sha256


class IndexHolder:
    """Opens an index, and the one that replaces it."""

    def __init__(
        self,
        source: Source,
        metrics: ServerMetrics,
        on_error: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        """Take the source; nothing is read before `start`.

        Args:
            source: of the index.
            metrics: where loads are counted.
            on_error: called where there is no index, and will be none.
        """
        self._source = source
        self._metrics = metrics
        self._on_error = on_error
        self.loaded: Loaded | None = None
        """The index that answers; None before one is open."""
        self._is_leaving = threading.Event()
        # A daemon: the process must be able to end while a large index is opened.
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)

    @property
    def is_ready(self) -> bool:
        """True while there is an index, and the server is not about to end."""
        return self.loaded is not None and not self._is_leaving.is_set()

    def start(self) -> None:
        """Open the index in a thread."""
        self._thread.start()

    def leave(self) -> None:
        """Say that the server is about to end, so that no new requests are sent to it."""
        self._is_leaving.set()

    def _run(self) -> None:
        try:
            if self._source.watch_s is None:
                self._open(self._source.find())
            else:
                self._watch(self._source.watch_s)
        except Exception as error:
            self._on_error(error)

    def _watch(self, every_s: float) -> None:
        """Look for an index until the server ends; after faults less and less often."""
        pause_s = every_s
        said = ""
        is_waiting = False
        while True:
            try:
                folder = self._source.find()
                if self._is_another(folder):
                    self._open(folder)
                elif self.loaded is None and not is_waiting:
                    log("serve", "waiting for an index", path=folder)
                    is_waiting = True
                pause_s, said = every_s, ""
            except Exception as error:
                fault = _first_line(error)
                if fault != said:  # once, and not at every look
                    kept = "none" if self.loaded is None else self.loaded.sha256[:12]
                    log("serve", "index not taken", because=fault, kept=kept)
                    self._metrics.loads.labels("failed").inc()
                pause_s = min(2 * pause_s, MAX_PAUSE_S) if fault == said else every_s
                said = fault
            if self._is_leaving.wait(pause_s):
                return

    def _is_another(self, folder: Path) -> bool:
        try:
            manifest = files.read_manifest(folder, SERVING_INDEX)
        except NotFoundError:  # not yet, or not any more
            return False
        return self.loaded is None or manifest.sha256 != self.loaded.sha256

    def _open(self, folder: Path) -> None:
        """Open the index that a folder, or the link, leads to now.

        Raises:
            CiteflowError: it is faulty.
        """
        actual = folder.resolve()
        task = task_of(actual, SERVING_INDEX)
        index = task.open_index(actual)
        index.warm_up()
        # A folder that was replaced meanwhile might have given a part of either.
        if files.read_manifest(actual, SERVING_INDEX).sha256 != index.manifest.sha256:
            raise CorruptError("the index was replaced while it was opened", actual)
        self.loaded = Loaded(task, index)
        version = self.loaded.sha256[:12]
        self._metrics.loaded(version, index.size)
        log("serve", "ready", **index.size, version=version)


def _first_line(error: Exception) -> str:
    try:
        known: CiteflowError = to_user_error(error)
    except Exception:
        return f"{type(error).__name__}: {error}"
    return f"{known.what}: {known.value}"
