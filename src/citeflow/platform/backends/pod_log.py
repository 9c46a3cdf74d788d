"""The log of a run on a cluster, collected on the user's volume: pods go, and their logs with them.

Lines are appended pod by pod as they come. How far each pod was read is written down after them;
what lies behind that was written by a server that was killed, and is read again.
"""

import contextlib
import errno
import os
import re
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from kubernetes import client as k8s
from pydantic import Field

from citeflow import files
from citeflow.errors import CorruptError, NotFoundError
from citeflow.kubeflow.run_logs import Shown, launcher_of, new_lines
from citeflow.kubernetes.client import CONNECTION_ERRORS, KubeClient
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_status import PodStatus
from citeflow.kubernetes.reaper import STEP_CONTAINER
from citeflow.utils import records
from citeflow.utils.logging import LOG_LINE
from citeflow.utils.records import Int, Record

LOG = "pods.log"
POSITIONS = "pods.json"
LOCK = "pods.lock"
LOCK_WAIT_S = 5.0
MAX_POSITIONS = 1 << 20
"""Bytes of the positions."""

_OF_REPLICA = re.compile(r"([a-z0-9-]+) \| ")
"""Begin of a line of a worker that the step which launched it has printed too."""


class Positions(Record):
    """The end of what was read of each pod of a run."""

    num_bytes: Int = 0
    """Length of the log."""

    shown: dict[str, tuple[int, int, int]] = Field(default_factory=dict)
    """Second, nanosecond and number of the last line, by the uid of the pod."""

    replicas: tuple[str, ...] = ()
    """Names of the workers whose own logs were read."""

    complete: tuple[int, ...] = ()
    """Attempts that have ended, and were read to their end."""


@dataclass(frozen=True, slots=True)
class PodLog:
    """The log of one run, in its folder."""

    folder: Path

    def is_complete(self, attempt: int) -> bool:
        """Tell whether an attempt has ended, and was read to its end."""
        return attempt in self._positions().complete

    def collect(self, client: KubeClient, run_id: str, attempt: int, *, has_ended: bool) -> None:
        """Append what the pods of an attempt have written since the last time.

        Args:
            client: in the namespace of the pods.
            run_id: value of their label.
            attempt: number of the attempt.
            has_ended: nothing will follow.

        Raises:
            UnavailableError: the cluster does not answer, or another process collects.
            CorruptError: the log is no plain file.
        """
        pods = client.pods(f"{RUN_ID}={run_id},app.kubernetes.io/part-of=citeflow")
        _open(self.folder / LOCK).close()
        with files.exclusive(self.folder / LOCK, wait_s=LOCK_WAIT_S):
            before = self._positions()
            collected = _Collected(client=client, before=before)
            for pod in sorted(pods, key=lambda pod: (_is_step(pod), pod.created, pod.name)):
                if pod.has_started:
                    with contextlib.suppress(k8s.ApiException, *CONNECTION_ERRORS):
                        collected.read(pod)
            after = collected.positions((attempt,) if has_ended else ())
            if after == before:
                return
            self._append(before.num_bytes, collected.text())
            files.write_json(self.folder / POSITIONS, after.model_dump(mode="json"))

    def lines(self, after: int, known: tuple[int, int] = (0, 0)) -> tuple[list[str], int]:
        """Return the lines behind the first `after`, and the offset of the end.

        Args:
            after: number of lines that are left out.
            known: a number of lines, and the offset where they end; those are not read again.

        Raises:
            CorruptError: the log is no plain file.
        """
        count, offset = known if known[0] <= after else (0, 0)
        end = self._positions().num_bytes
        if end <= offset:
            return [], offset
        with _open(self.folder / LOG) as file:
            file.seek(offset)
            text = file.read(end - offset).decode(errors="replace")
        return text.removesuffix("\n").split("\n")[after - count :], end

    def _positions(self) -> Positions:
        try:
            found = files.read_plain_json(self.folder / POSITIONS, MAX_POSITIONS)
            return records.load(Positions, found)
        except (NotFoundError, CorruptError):
            return Positions()

    def _append(self, num_bytes: int, text: bytes) -> None:
        """Write text behind some bytes of the log; what was appended and not written down goes.

        Raises:
            CorruptError: the log is no plain file.
        """
        with _open(self.folder / LOG) as file:
            file.truncate(num_bytes)
            file.seek(num_bytes)
            file.write(text)


@dataclass(kw_only=True, slots=True)
class _Collected:
    """New lines of several pods."""

    client: KubeClient
    before: Positions
    _shown: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    _replicas: set[str] = field(default_factory=set)
    _lines: list[str] = field(default_factory=list)

    def read(self, pod: PodStatus) -> None:
        launcher = launcher_of(pod)
        replica = launcher.replica(pod) if launcher else ""
        if launcher and not replica:
            return
        container = launcher.container if launcher else STEP_CONTAINER
        if container not in pod.container_names:
            container = pod.container_names[0]
        second, nanosecond, count = self.before.shown.get(pod.uid, (0, 0, 0))
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)) if second else None
        found = self.client.read_log(pod.name, container, since=since)
        texts, shown = new_lines(found, Shown((second, nanosecond), count))
        self._shown[pod.uid] = (*shown.time, shown.num_lines)
        if replica and texts:
            self._replicas.add(replica)
        self._lines += [each for text in texts if (each := self._line(text, replica)) is not None]

    def _line(self, text: str, replica: str) -> str | None:
        """Return a line as the platform reads it; None for one that a worker's own log has too."""
        if replica:
            return text if LOG_LINE.match(text) else f"{replica} | {text}"
        match = _OF_REPLICA.match(text)
        is_known = match is not None and match[1] in {*self.before.replicas, *self._replicas}
        return None if is_known else text

    def text(self) -> bytes:
        return "".join(f"{line}\n" for line in self._lines).encode()

    def positions(self, complete: tuple[int, ...]) -> Positions:
        known = self.before
        return Positions(
            num_bytes=known.num_bytes + len(self.text()),
            shown={**known.shown, **self._shown},
            replicas=tuple(sorted({*known.replicas, *self._replicas})),
            complete=(*known.complete, *complete),
        )


def _open(path: Path) -> BinaryIO:
    """Open a file to read and write, which is made where it is missing.

    Raises:
        CorruptError: pods of the user have put a link, a pipe or a folder in its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise
        raise CorruptError("no plain file", path.name) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CorruptError("no plain file", path.name)
    return os.fdopen(handle, "r+b")


def _is_step(pod: PodStatus) -> bool:
    """Tell a step from a worker: which lines of a step its workers have too is known after them."""
    return launcher_of(pod) is None
