"""TensorBoard's event files: their records, and names that sort in the order of creation.

A reader goes through the files of a run by name and never back. TensorBoard's usual names begin
with the clock, so that a pod whose clock is behind would write a file that is read too early; here
a name is always above its predecessors'.
"""

import contextlib
import io
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

FILE_VERSION = "brain.Event:2"
TRAIN, PUBLISH = "train", "publish"
RECORD_HEAD = 12
"""Bytes of a record before its content: the length and its check sum."""
RECORD_FOOT = 4
"""Bytes behind it: the check sum of the content."""
MAX_READ = 16 << 20
"""Bytes of a file that are read at a time; no record is longer."""
_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.citeflow\.(\w+)")


def scalars(values: Mapping[str, float], *, step: int, wall_time: float) -> bytes:
    """Encode several scalars of a step as one record."""
    entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return summary(Summary(value=entries), step=step, wall_time=wall_time)


def summary(content: Summary, *, step: int, wall_time: float) -> bytes:
    """Encode a summary as one record."""
    return _encode(Event(step=step, wall_time=wall_time, summary=content))


def header(wall_time: float) -> bytes:
    """Encode the record that every file begins with."""
    return _encode(Event(wall_time=wall_time, file_version=FILE_VERSION))


def session_start(*, step: int, wall_time: float) -> bytes:
    """Encode the record that makes readers drop this step and later ones of earlier files."""
    start = SessionLog(status=SessionLog.START)
    return _encode(Event(step=step, wall_time=wall_time, session_log=start))


def _encode(event: Event) -> bytes:
    content: bytes = event.SerializeToString()
    return content


def frame(records: Iterable[bytes]) -> bytes:
    """Return the content of a file: records with their lengths and check sums."""
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for record in records:
        writer.write(record)
    return buffer.getvalue()


def next_name(log_dir: Path, kind: str, *, now: float) -> str:
    """Return the name of a file that is read after all training files of this run."""
    stamps = [int(now)]
    for path in log_dir.glob("events.out.tfevents.*"):
        match = _NAME.fullmatch(path.name)
        if match and match[2] == TRAIN:
            stamps.append(int(match[1]) + 1)
    return f"events.out.tfevents.{max(stamps):010d}.citeflow.{kind}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scalar:
    """One value of a curve."""

    step: int
    wall_time: float
    value: float


def read_scalars(path: Path, tag: str) -> list[Scalar]:
    """Read the values of a tag in one file, in the order of writing."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    return [
        Scalar(step=event.step, wall_time=event.wall_time, value=value.simple_value)
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == tag
    ]


def read_new(file: BinaryIO, offset: int) -> tuple[list[Event], int]:
    """Read events behind an offset of a file that may still grow, some megabytes at a time.

    What is no event is passed over.

    Returns:
        The events that are whole, and the offset behind them.
    """
    events = []
    file.seek(offset)
    content = file.read(MAX_READ)
    at = 0
    while len(content) - at >= RECORD_HEAD:
        (length,) = struct.unpack_from("<Q", content, at)
        end = at + RECORD_HEAD + length + RECORD_FOOT
        if end - at > MAX_READ:
            at = len(content)
            break
        if end > len(content):
            break
        with contextlib.suppress(DecodeError):
            events.append(Event.FromString(content[at + RECORD_HEAD : end - RECORD_FOOT]))
        at = end
    return events, offset + at


def training_files(log_dir: Path) -> list[Path]:
    """Return the files that a training has written, one for each of its starts, in their order."""
    found = [path for path in log_dir.glob("events.out.tfevents.*") if _is_of_training(path)]
    return sorted(found)


def _is_of_training(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    return match is not None and match[2] == TRAIN


def first_step(path: Path) -> int | None:
    """Return the step from which a file replaces earlier ones, None where it replaces nothing."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    events = LegacyEventFileLoader(str(path)).Load()
    return next((event.step for event in events if event.HasField("session_log")), None)
