"""TensorBoard's event files: their records, and names that sort in the order in which they were begun.

A reader goes through the files of a run by name and never back. TensorBoard's usual names begin with the clock, so that
a pod whose clock is behind would write a file that is read too early; here a name is always above its predecessors'.
"""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

FILE_VERSION = "brain.Event:2"
TRAIN, PUBLISH = "train", "publish"
_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.citeflow\.(\w+)")


def scalars(values: Mapping[str, float], *, step: int, wall_time: float) -> bytes:
    """One record that holds several scalars of a step."""
    entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return summary(Summary(value=entries), step=step, wall_time=wall_time)


def summary(content: Any, *, step: int, wall_time: float) -> bytes:
    """One record around a Summary."""
    return _encode(Event(step=step, wall_time=wall_time, summary=content))


def opening(wall_time: float) -> bytes:
    """The record that every file begins with."""
    return _encode(Event(wall_time=wall_time, file_version=FILE_VERSION))


def restart(*, step: int, wall_time: float) -> bytes:
    """The record that makes a reader forget what earlier files say about this step and those after it."""
    return _encode(
        Event(step=step, wall_time=wall_time, session_log=SessionLog(status=SessionLog.START))
    )


def frame(records: Iterable[bytes]) -> bytes:
    """Records with their lengths and check sums, as they lie in a file."""
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for record in records:
        writer.write(record)
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scalar:
    """One value of a curve."""

    step: int
    wall_time: float
    value: float


def read_scalars(path: Path, tag: str) -> list[Scalar]:
    """The values of a tag in one file, in the order in which they were written."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    return [
        Scalar(step=event.step, wall_time=event.wall_time, value=value.simple_value)
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == tag
    ]


def first_step(path: Path) -> int | None:
    """The step from which on a file takes the place of those before it; None where it takes no place."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    events = LegacyEventFileLoader(str(path)).Load()
    starts = [event.step for event in events if event.HasField("session_log")]
    return starts[0] if starts else None


def next_name(log_dir: Path, kind: str, *, now: float) -> str:
    """Name of a file that is read after all training files of this run."""
    stamps = [
        int(match[1])
        for match in map(_NAME.fullmatch, _names(log_dir))
        if match and match[2] == TRAIN
    ]
    return f"events.out.tfevents.{max([int(now), *(stamp + 1 for stamp in stamps)]):010d}.citeflow.{kind}"


def _names(log_dir: Path) -> list[str]:
    return [file.name for file in log_dir.glob("events.out.tfevents.*")]


def _encode(event: Any) -> bytes:
    content: bytes = event.SerializeToString()
    return content
