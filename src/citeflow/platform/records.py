"""The records of a run so far: its curves, resources and log, read as they grow.

The curves are read from the event files of TensorBoard, which a training writes each second, and
the progress from the lines of its log.
"""

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from citeflow.paths import RunPaths
from citeflow.platform.beneath import open_beneath
from citeflow.platform.schema import (
    LogLine,
    MetricsEvent,
    ProgressBody,
    RankResources,
    ResourcesEvent,
)

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

MAX_OPEN = 200
"""Runs whose records are kept in memory."""

MAX_SPARK = 40

MAX_KEPT = 200_000
"""Lines of a log, and events, beyond which no more are read: code may write without an end."""

MAX_VALUES = 100
MAX_LETTERS = 100
"""Of an event, and of the name of a value."""

TRAIN = "train/"
VALID = "valid/"
RESOURCES = "resources/"
GIB = 2**30

_LINE = re.compile(r"\d\d:\d\d:\d\d ([a-z]+)(?:\[rank (\d+)\])? (.*)")
_STEP = re.compile(r"\bstep=([\d,]+)")
_OF = re.compile(r"\bof=([\d,]+)")
_DONE = re.compile(r"\bdone=([\d,]+)(%?)")
_LEFT = re.compile(r"\bleft=(.+)$")
_TIME = re.compile(r"([\d.]+) (s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}

STAGES = ("download", "preprocess", "train", "evaluate", "publish", "index")


class Records:
    """The records of one run. Lists only grow, so that a place in them is a number."""

    def __init__(self, paths: RunPaths, lines: Callable[[int], Sequence[str]]) -> None:
        """Read nothing yet.

        Args:
            paths: of the run.
            lines: returns the lines of its log behind a number of them.
        """
        self._paths = paths
        self._lines = lines
        self._lock = threading.Lock()
        self._files: dict[Path, int] = {}
        self._began: float | None = None
        self._ranks: dict[int, RankResources] = {}
        self.metrics: list[MetricsEvent] = []
        self.resources: list[ResourcesEvent] = []
        self.log: list[LogLine] = []
        self.progress: ProgressBody | None = None

    def update(self) -> None:
        """Read what is new."""
        with self._lock:
            if len(self.log) < MAX_KEPT:
                for text in self._lines(len(self.log)):
                    self._add_line(text)
            from citeflow.reporting import event_files

            for path in event_files.training_files(self._paths.logs):
                for event in self._new(path):
                    self._add_metrics(event)
            # Rank 0 comes last: with each sample of it, the newest of the others are reported.
            ranks = sorted(_ranks(self._paths.logs).items(), reverse=True)
            for rank, folder in ranks:
                for path in event_files.training_files(folder):
                    for event in self._new(path):
                        self._add_resources(rank, event)

    def spark(self) -> list[float]:
        """Return the scores of the validations; where there are many, some of them."""
        names = [name for event in self.metrics for name in event.values if _is_score(name)]
        if not names:
            return []
        found = (event.values.get(names[0], math.nan) for event in self.current())
        values = [value for value in found if math.isfinite(value)]
        stride = max(1, -(-len(values) // MAX_SPARK))
        return values[::-1][::stride][::-1]

    def current(self) -> list[MetricsEvent]:
        """Return the metrics without those that a resumed training has replaced."""
        kept: list[MetricsEvent] = []
        for event in self.metrics:
            while kept and kept[-1].step > event.step:
                kept.pop()
            kept.append(event)
        return kept

    def _new(self, path: Path) -> "list[Event]":
        from citeflow.reporting import event_files

        if len(self.metrics) + len(self.resources) > MAX_KEPT:
            return []
        try:
            with open_beneath(self._paths.data_root, path) as file:
                events, self._files[path] = event_files.read_new(file, self._files.get(path, 0))
        except FileNotFoundError:  # of a run that has been started afresh, or no plain file
            return []
        if self._began is None and events:
            self._began = events[0].wall_time
        return events

    def _seconds(self, event: "Event") -> float:
        wall_time: float = event.wall_time
        return round(max(0.0, wall_time - (self._began or wall_time)), 3)

    def _add_metrics(self, event: "Event") -> None:
        found = event.summary.value[:MAX_VALUES]
        values = {_name(each.tag)[:MAX_LETTERS]: each.simple_value for each in found}
        if values:
            seconds = self._seconds(event)
            self.metrics.append(MetricsEvent(step=event.step, seconds=seconds, values=values))

    def _add_resources(self, rank: int, event: "Event") -> None:
        values = {
            each.tag.removeprefix(RESOURCES): each.simple_value
            for each in event.summary.value[:MAX_VALUES]
        }
        if not values:
            return
        cores, gib = values.get("cpu_cores", 0.0), values.get("memory_gib", 0.0)
        memory = int(gib * GIB)
        self._ranks[rank] = RankResources(rank=rank, cores=round(cores, 3), memory=memory)
        if rank:
            return
        ranks = [self._ranks[each] for each in sorted(self._ranks)]
        self.resources.append(
            ResourcesEvent(
                seconds=self._seconds(event),
                cores=round(sum(each.cores for each in ranks), 3),
                memory=sum(each.memory for each in ranks),
                ranks=ranks,
            )
        )

    def _add_line(self, text: str) -> None:
        match = _LINE.match(text)
        rank = int(match[2]) if match and match[2] else None
        self.log.append(LogLine(rank=rank, n=len(self.log) + 1, line=text))
        if match and match[1] in STAGES:
            self.progress = _progress(match[1], match[3], self.progress)


@dataclass(slots=True)
class OpenRecords:
    """Records by run, those of the runs that were asked for last."""

    _records: OrderedDict[str, Records] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: str, make: Callable[[], Records]) -> Records:
        """Return the records of a run, which are made where they are not open."""
        with self._lock:
            if key not in self._records:
                self._records[key] = make()
            self._records.move_to_end(key)
            while len(self._records) > MAX_OPEN:
                self._records.popitem(last=False)
            return self._records[key]

    def forget(self, key: str) -> None:
        """Close the records of a run that is deleted, or begins anew."""
        with self._lock:
            self._records.pop(key, None)


def _ranks(logs: Path) -> dict[int, Path]:
    return {
        int(folder.name.removeprefix("rank-")): folder
        for folder in logs.glob("rank-*")
        if folder.name.removeprefix("rank-").isdecimal()
    }


def _name(tag: str) -> str:
    if tag.startswith(VALID):
        return f"validation {tag.removeprefix(VALID)}"
    return tag.removeprefix(TRAIN)


def _is_score(name: str) -> bool:
    return name in ("validation mrr", "validation accuracy")


def _progress(stage: str, text: str, before: ProgressBody | None) -> ProgressBody:
    """Read how far a stage is from a line of it; what the line does not say stays."""
    known = before if before is not None and before.stage == stage else ProgressBody(stage=stage)
    changes: dict[str, object] = {}
    if match := _STEP.search(text):
        changes["step"] = _int(match[1])
    if match := _OF.search(text):
        changes["steps"] = _int(match[1])
    if match := _DONE.search(text):
        if match[2]:
            changes["fraction"] = _int(match[1]) / 100
        elif steps := changes.get("steps"):
            changes |= {"step": _int(match[1]), "fraction": _int(match[1]) / int(str(steps))}
    if match := _LEFT.search(text):
        times = _TIME.findall(match[1])
        changes["seconds_left"] = (
            sum(float(amount) * _SECONDS[unit] for amount, unit in times) if times else None
        )
    return known.model_copy(update=changes)


def _int(text: str) -> int:
    return int(text.replace(",", ""))
