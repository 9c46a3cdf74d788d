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
    Score,
)
from citeflow.tasks import get_task

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

_LINE = re.compile(r"(\d\d):(\d\d):(\d\d) ([a-z]+)(?:\[rank (\d+)\])? (.*)")
_WORDS = re.compile(r"[^=]*?(?= \w+=|$)")
_STEP = re.compile(r"\bstep=([\d,]+)")
_OF = re.compile(r"\bof=([\d,]+)")
_DONE = re.compile(r"\bdone=([\d,]+)(%?)")
_LEFT = re.compile(r"\bleft=(.+)$")
_TIME = re.compile(r"([\d.]+) (s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}

AT_WORK = "at work"
"""Words of a line that says no more than that."""

DAY_S = 86_400

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
        self._stage_began = 0

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
        name = self.score_name()
        found = (event.values.get(name, math.nan) for event in self.current())
        values = [value for value in found if math.isfinite(value)]
        stride = max(1, -(-len(values) // MAX_SPARK))
        return values[::-1][::stride][::-1]

    def newest_score(self) -> Score | None:
        """Return the last of these scores."""
        spark = self.spark()
        return Score(name=self.score_name(), value=spark[-1]) if spark else None

    def score_name(self) -> str:
        """Return the name of these scores; empty before the first."""
        names = (name for event in self.metrics for name in event.values if _is_score(name))
        return next(names, "")

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
        rank = int(match[5]) if match and match[5] else None
        self.log.append(LogLine(rank=rank, n=len(self.log) + 1, line=text))
        if match and match[4] == "run":  # an attempt begins
            self.progress = None
        elif match and match[4] in STAGES:
            self._add_progress(match[4], _second_of_day(*match.groups()[:3]), match[6])

    def _add_progress(self, stage: str, now: int, text: str) -> None:
        if self.progress is None or self.progress.stage != stage:
            self.progress = ProgressBody(stage=stage)
            self._stage_began = now
        changes = {"seconds": float((now - self._stage_began) % DAY_S)}
        self.progress = _progress(text, self.progress.model_copy(update=changes))


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


def _progress(text: str, before: ProgressBody) -> ProgressBody:
    """Read how far a stage is from a line of it.

    What the line does not say stays in a training, and elsewhere while the same is counted.
    """
    words = _WORDS.match(text)
    doing = words[0].strip() if words else ""
    if doing in ("", AT_WORK):
        return before
    changes: dict[str, object] = {"doing": doing}
    if doing != before.doing and before.stage != "train":
        changes |= dict.fromkeys(("step", "steps", "fraction", "seconds_left"))
    if match := _STEP.search(text):
        changes["step"] = _int(match[1])
    if match := _OF.search(text):
        changes["steps"] = _int(match[1])
    if match := _DONE.search(text):
        changes |= _share(_int(match[1]), changes.get("steps"), is_percent=bool(match[2]))
    if match := _LEFT.search(text):
        times = _TIME.findall(match[1])
        changes["seconds_left"] = (
            sum(float(amount) * _SECONDS[unit] for amount, unit in times) if times else None
        )
    return before.model_copy(update=changes)


def _share(done: int, steps: object, *, is_percent: bool) -> dict[str, object]:
    if is_percent:
        return {"fraction": done / 100}
    return {"step": done, "fraction": done / int(str(steps))} if steps else {}


def result_of(task: str, report: Path) -> Score | None:
    """Return the test score of a report; None where there was nothing to measure.

    Raises:
        CiteflowError: there is no report, or it cannot be read.
    """
    compared = get_task(task).results(report).report.compared()
    if not math.isfinite(compared.test):
        return None
    return Score(name=compared.names[1], value=compared.test)


def _second_of_day(hours: str, minutes: str, seconds: str) -> int:
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds)


def _int(text: str) -> int:
    return int(text.replace(",", ""))
