"""A run in TensorBoard: its curves during training; its result, settings and layout when published.

Everything of a run lies in one directory. Only rank 0 may write there, one file per start of the
training, and one file for the result, which the next publishing replaces.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from citeflow import files
from citeflow.report import Curves, Report, RunReport
from citeflow.reporting import event_files, formatting, markdown, tables
from citeflow.reporting.tables import Table
from citeflow.utils.logging import log

LAYOUT = {
    "Loss": {"training loss": ["Multiline", ["^train/loss$"]]},
    "MRR": {
        "validation, test and baselines": [
            "Multiline",
            ["^valid/mrr$", "^test/mrr$", "^baseline/.*"],
        ],
        "among hard candidates": ["Multiline", ["^valid/hard_mrr$", "^hard/mrr$"]],
        "test, by protocol": ["Multiline", ["^(test|all|hard|cold)/mrr$"]],
    },
    "Accuracy": {"validation and test": ["Multiline", ["^valid/accuracy$", "^test/accuracy$"]]},
    "Throughput": {"citations per second": ["Multiline", ["^train/positives_per_s$"]]},
    "Resources": {
        "cores in use, by rank": ["Multiline", ["^resources/cpu_cores$"]],
        "memory in GiB, by rank": ["Multiline", ["^resources/memory_gib$"]],
    },
}
"""Chart by chart, as torch.utils.tensorboard wants it; the tags are regular expressions."""


class RunLog:
    """The live curves of a training; each record is on disk when the call returns."""

    def __init__(self, log_dir: Path, *, purge_step: int | None) -> None:
        """Open a new event file.

        Args:
            log_dir: the run's directory.
            purge_step: first step that is written again after a resume; None for a new training.
        """
        self._is_broken = False
        files.delete(log_dir, f"*.{event_files.PUBLISH}*")
        self._writer = _open_writer(log_dir, purge_step)

    def step(self, record: Mapping[str, float]) -> None:
        """Add an entry of the history."""
        values = {f"train/{name}": record[name] for name in ("loss", "lr", "positives_per_s")}
        self._write(record, values)

    def evaluation(self, record: Mapping[str, float]) -> None:
        """Add a validation: the scores of a record, whose names begin with `valid_`."""
        scores = {
            name.replace("_", "/", 1): value
            for name, value in record.items()
            if name.startswith("valid_")
        }
        self._write(record, scores)

    def close(self) -> None:
        """Close the file."""
        _close(self._writer)

    def _write(self, record: Mapping[str, float], values: dict[str, float]) -> None:
        # A full disk ends the curve, not the training. The curve must end for good: readers stop
        # at half a record, so nothing behind it would be seen.
        if self._is_broken:
            return
        step = int(record["step"])
        try:
            self._writer.write(
                event_files.scalars(values, step=step, wall_time=record["wall_time"])
            )
        except OSError as error:
            self._is_broken = True
            log("train", "writes no more for TensorBoard", step=step, why=error.strerror)


class ResourceLog:
    """The resources of one rank during training, in a folder that TensorBoard shows as a run."""

    def __init__(self, log_dir: Path, rank: int, *, purge_step: int | None) -> None:
        """Open a new event file.

        Args:
            log_dir: the run's directory.
            rank: the rank whose resources they are.
            purge_step: as in RunLog.

        Raises:
            OSError: it cannot be written.
        """
        self._writer = _open_writer(log_dir / f"rank-{rank}", purge_step)

    def add(
        self, rates: Mapping[str, float], held: Mapping[str, float], *, step: int, wall_time: float
    ) -> None:
        """Add a sample; values that are not finite are left out.

        Args:
            rates: cores in use, or bytes a second, by name.
            held: bytes of memory, by name.
            step: the training's.
            wall_time: time of the sample, in seconds since 1970.

        Raises:
            OSError: the disk is full.
        """
        values = {}
        for name, value in {**rates, **held}.items():
            if math.isfinite(value):
                tag, scaled = _in_readable_unit(name, value)
                values[f"resources/{tag}"] = scaled
        self._writer.write(event_files.scalars(values, step=step, wall_time=wall_time))

    def close(self) -> None:
        """Close the file."""
        _close(self._writer)


def _in_readable_unit(name: str, value: float) -> tuple[str, float]:
    if name.endswith("_bytes_per_s"):
        return name.replace("_bytes_per_s", "_mb_per_s"), value / 1e6
    if name.endswith("_bytes"):
        return name.replace("_bytes", "_gib"), value / 2**30
    return name, value


def _open_writer(log_dir: Path, purge_step: int | None) -> RecordWriter:
    """Open an event file that replaces what earlier ones say about `purge_step` and later steps."""
    now = time.time()
    name = event_files.next_name(log_dir, event_files.TRAIN, now=now)
    writer = RecordWriter(files.open_stream(log_dir / name))
    writer.write(event_files.header(now))
    writer.write(event_files.session_start(step=purge_step or 0, wall_time=now))
    return writer


def _close(writer: RecordWriter) -> None:
    # A network file system may report a failed write only now; the curve is lost, the run is not.
    with contextlib.suppress(OSError):
        writer.close()


def publish_run(log_dir: Path, report: Report, curves: Curves) -> None:
    """Add result, settings, layout and a text card to a run, in place of those published before.

    The same report gives the same file, so a repeated stage changes nothing.

    Args:
        log_dir: the run's directory.
        report: the report of the run.
        curves: its curves, which tell when the training ended.
    """
    summaries = _summaries(report)
    write_result(log_dir, report, curves, lambda step: _final_scalars(report, step), summaries)


def write_result(
    log_dir: Path,
    report: RunReport,
    curves: Curves,
    scalars: Callable[[int], dict[int, dict[str, float]]],
    summaries: Iterable[Summary],
) -> None:
    """Write the file of a run's result.

    Args:
        log_dir: the run's directory.
        report: its report.
        curves: its curves.
        scalars: values by tag and step, given the last step.
        summaries: what is shown besides curves.
    """
    entries = [*curves.history, *curves.evaluations]
    step = max([report.train.steps, *(int(entry["step"]) for entry in entries)])
    wall_time = max((entry["wall_time"] for entry in entries if "wall_time" in entry), default=0.0)
    records = [event_files.header(wall_time)]
    for at, values in scalars(step).items():
        records.append(event_files.scalars(values, step=at, wall_time=wall_time))
    for summary in summaries:
        records.append(event_files.summary(summary, step=step, wall_time=wall_time))
    name = event_files.next_name(log_dir, event_files.PUBLISH, now=wall_time)
    files.delete(log_dir, f"*.{event_files.PUBLISH}*", keep=name)
    files.write_bytes(log_dir / name, event_files.frame(records))


def _final_scalars(report: Report, step: int) -> dict[int, dict[str, float]]:
    """Return values by step; a baseline is at both ends, so that it is drawn as a level line."""
    scores = report.test.figures()
    test = {f"test/{name}": scores[name] for name in formatting.METRICS}
    baselines = {
        f"baseline/{name}": mrr for name, mrr in formatting.baseline_scores(report).items()
    }
    others = {
        f"{protocol}/{name}": value
        for protocol, scores in report.protocols.items()
        if protocol != "ogb"
        for name, value in scores.figures().items()
    }
    return {0: baselines, step: {**baselines, **test, **others, **_hparam_metrics(report)}}


def _summaries(report: Report) -> Iterator[Summary]:
    """Yield hyperparameters, layout and text card."""
    from torch.utils.tensorboard import summary

    untyped: Any = summary  # torch leaves its functions without types
    yield from untyped.hparams(hparams(report), _hparam_metrics(report))
    yield untyped.custom_scalars(LAYOUT)
    card = untyped.text("run", _card(report))
    # A list would be shown as a table around the card.
    card.value[0].tensor.tensor_shape.ClearField("dim")
    yield card


def hparams(report: RunReport) -> dict[str, str | float]:
    """Return settings as the plugin can hold them: numbers and text; it would show true as 1."""
    values: dict[str, str | float] = {
        "dataset": report.dataset,
        "workers": report.train.workers,
    }
    for section, settings in report.config.to_dict().items():
        for key, value in settings.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                values[f"{section}.{key}"] = float(value)
            else:
                values[f"{section}.{key}"] = str(value)
    return values


def _hparam_metrics(report: Report) -> dict[str, float]:
    scores = report.test.figures()
    values = {f"test_{name}": scores[name] for name in formatting.METRICS}
    values |= {f"{name}_mrr": each.mrr for name, each in report.protocols.items() if name != "ogb"}
    values["valid_mrr"] = report.valid.mrr
    values["train_seconds"] = report.train.seconds
    values["train_positives_per_s"] = report.train.positives_per_s
    return {f"hparam/{name}": float(value) for name, value in values.items()}


def _card(report: Report) -> str:
    settings = Table(
        title="Settings",
        header=("Setting", "Value"),
        rows=[(name, str(value)) for name, value in hparams(report).items()],
    )
    shown = [
        tables.baselines(report),
        tables.protocols(report),
        tables.methods(report),
        tables.dataset(report),
        tables.training(report),
        tables.goodput(report),
        tables.stages(report),
        settings,
        tables.versions(report),
    ]
    parts = [markdown.render(table) for table in shown if table.rows]
    return "\n".join([f"{markdown.escape(formatting.headline(report))}\n", *parts])
