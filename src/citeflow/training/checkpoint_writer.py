"""Writes checkpoints on a thread, so that no step waits for the disk."""

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pydantic import JsonValue

from citeflow.training import checkpoint
from citeflow.training.checkpoint import Snapshot
from citeflow.training.lease import Lease
from citeflow.utils.logging import log


class CheckpointWriter:
    """Writes the newest state that it was given; rank 0 uses it."""

    def __init__(self, folder: Path, inputs: Mapping[str, JsonValue], lease: Lease) -> None:
        """Start the thread.

        Args:
            folder: of the checkpoints of the run.
            inputs: digests of what the run is made from.
            lease: the right to write there.
        """
        self._folder = folder
        self._inputs = inputs
        self._lease = lease
        self._lock = threading.Lock()
        self._pending: Snapshot | None = None
        self._written = True
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._last: Future[None] | None = None

    def submit(self, state: Snapshot) -> None:
        """Write a state soon; one that still waits for a slow disk is not written any more.

        Raises:
            LeaseLost: another start of the workers holds the run.
        """
        self._raise_failure()
        with self._lock:
            self._pending = state
        self._last = self._thread.submit(self._write_pending)

    def wait(self) -> bool:
        """Wait for the last write; return whether the state that was submitted is on the disk.

        A write that fails is logged, and ends nothing: earlier checkpoints are whole, and the next
        write may find room.

        Raises:
            LeaseLost: another start of the workers holds the run.
        """
        if self._last is not None:
            self._last.result()
        return self._written

    def close(self) -> None:
        """Wait for the thread to end."""
        self._thread.shutdown()

    def _raise_failure(self) -> None:
        if self._last is not None and self._last.done():
            self._last.result()

    def _write_pending(self) -> None:
        with self._lock:
            state, self._pending = self._pending, None
        if state is None:
            return
        self._lease.assert_held()
        try:
            checkpoint.write(self._folder, state.to_bytes(), self._inputs)
        except OSError as error:
            self._written = False
            log(
                "train",
                "could not save a checkpoint",
                step=state.step,
                why=error.strerror,
                path=error.filename,
            )
        else:
            self._written = True
