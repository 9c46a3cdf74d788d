"""What a run shows in TensorBoard: its curves while it trains, its result, settings and layout once it is published.

Everything of a run lies in one directory. Only rank 0 may write there, one file per start of the training, and one file
for what is published, which the next publishing replaces.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from tensorboard.summary.writer.record_writer import RecordWriter

from citeflow import files
from citeflow.reporting import event_files, formatting, markdown, tables
from citeflow.utils.logging import log

Json = dict[str, Any]
Layout = dict[str, dict[str, list[Any]]]

LAYOUT: Layout = {
    "Loss": {"training loss": ["Multiline", ["^train/loss$"]]},
    "MRR": {
        "validation, test and baselines": [
            "Multiline",
            ["^valid/mrr$", "^test/mrr$", "^baseline/.*"],
        ]
    },
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
        """Begin a new event file.

        Args:
            log_dir: the run's directory.
            purge_step: first step that will be written again after a resume; None for a training that starts afresh.
        """
        self._is_broken = False
        files.delete(log_dir, f"*.{event_files.PUBLISH}*")
        self._writer = _begun(log_dir, purge_step)

    def step(self, record: Mapping[str, Any]) -> None:
        """Add an entry of the history."""
        self._write(
            record, {f"train/{key}": record[key] for key in ("loss", "lr", "positives_per_s")}
        )

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Add an evaluation."""
        self._write(record, {"valid/mrr": record["valid_mrr"]})

    def close(self) -> None:
        """End the file; on a network's disk a write that failed may be told only now."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _write(self, record: Mapping[str, Any], values: dict[str, float]) -> None:
        """Add a record; a full disk ends the curve and not the training: nothing can be read behind half a record."""
        if self._is_broken:
            return
        try:
            self._writer.write(
                event_files.scalars(
                    values, step=int(record["step"]), wall_time=float(record["wall_time"])
                )
            )
        except OSError as error:
            self._is_broken = True
            log("train", "writes no more for TensorBoard", step=record["step"], why=error.strerror)


class ResourceLog:
    """What a rank uses while it trains, in a folder below the run's: TensorBoard shows it as a run of its own."""

    def __init__(self, log_dir: Path, rank: int, *, purge_step: int | None) -> None:
        """Begin a new event file.

        Args:
            log_dir: the run's directory.
            rank: which rank it is of.
            purge_step: as in RunLog.

        Raises:
            OSError: it can not be written.
        """
        self._writer = _begun(log_dir / f"rank-{rank}", purge_step)

    def add(
        self, rates: Mapping[str, float], held: Mapping[str, float], *, step: int, wall_time: float
    ) -> None:
        """Add a sample; what is not known is left out.

        Args:
            rates: cores in use, or bytes a second, by name.
            held: bytes of memory, by name.
            step: the training's.
            wall_time: when it was taken.

        Raises:
            OSError: the disk is full.
        """
        scaled = {
            f"resources/{_unit(name)}": _scaled(name, value)
            for name, value in {**rates, **held}.items()
        }
        known = {tag: value for tag, value in scaled.items() if math.isfinite(value)}
        self._writer.write(event_files.scalars(known, step=step, wall_time=wall_time))

    def close(self) -> None:
        """End the file, as RunLog does."""
        with contextlib.suppress(OSError):
            self._writer.close()


def _unit(name: str) -> str:
    return name.replace("_bytes_per_s", "_mb_per_s").replace("_bytes", "_gib")


def _scaled(name: str, value: float) -> float:
    return value / (
        1e6 if name.endswith("_bytes_per_s") else 2**30 if name.endswith("_bytes") else 1
    )


def _begun(log_dir: Path, purge_step: int | None) -> RecordWriter:
    """A new event file, at whose beginning readers forget what earlier ones say of this step and later ones."""
    now = time.time()
    writer = RecordWriter(
        files.open_stream(log_dir / event_files.next_name(log_dir, event_files.TRAIN, now=now))
    )
    writer.write(event_files.opening(now))
    writer.write(event_files.restart(step=purge_step or 0, wall_time=now))
    return writer


def publish_run(log_dir: Path, report: Json, curves: Json) -> None:
    """Add the result, the settings, the layout and a text card to a run, in place of what was published before.

    The same report gives the same file, so a repeated step changes nothing.

    Args:
        log_dir: the run's directory.
        report: content of report.json.
        curves: content of curves.json.
    """
    step, wall_time = _end(report, curves)
    records = [event_files.opening(wall_time)]
    for at, values in _final_scalars(report, step).items():
        records.append(event_files.scalars(values, step=at, wall_time=wall_time))
    records += [
        event_files.summary(content, step=step, wall_time=wall_time) for content in _cards(report)
    ]
    name = event_files.next_name(log_dir, event_files.PUBLISH, now=wall_time)
    files.delete(log_dir, f"*.{event_files.PUBLISH}*", keep=name)
    files.write_bytes(log_dir / name, event_files.frame(records))


def _end(report: Json, curves: Json) -> tuple[int, float]:
    """Last step of the training and the time of its last record."""
    records = [*(curves.get("history") or []), *(curves.get("evaluations") or [])]
    steps = [
        int((report.get("train") or {}).get("steps") or 0),
        *(int(record["step"]) for record in records),
    ]
    times = [
        float(record["wall_time"]) for record in records if record.get("wall_time") is not None
    ]
    return max(steps), max(times, default=0.0)


def _final_scalars(report: Json, step: int) -> dict[int, dict[str, float]]:
    """Values by step; a baseline is there at both ends, so that a chart draws it as a level line."""
    found = report.get("test") or {}
    test = {f"test/{key}": found[key] for key in formatting.METRICS if _is_number(found.get(key))}
    lines = {f"baseline/{name}": mrr for name, mrr in formatting.baseline_scores(report).items()}
    return {0: lines, step: {**lines, **test, **_hparam_metrics(report)}}


def _cards(report: Json) -> Iterator[Any]:
    from torch.utils.tensorboard import summary

    make: Any = summary  # torch leaves these functions without types
    yield from make.hparams(_hparams(report), _hparam_metrics(report))
    yield make.custom_scalars(LAYOUT)
    card = make.text("run", _card(report))
    card.value[0].tensor.tensor_shape.ClearField(
        "dim"
    )  # a list would be shown as a table around the card
    yield card


def _hparams(report: Json) -> dict[str, str | float]:
    flat = {
        f"{section}.{key}": _plain(value)
        for section, entries in (report.get("config") or {}).items()
        for key, value in entries.items()
    }
    workers = (report.get("train") or {}).get("workers")
    return {"dataset": str(report.get("dataset", "")), "workers": workers or 0, **flat}


def _plain(value: object) -> str | float:
    """What the plugin can hold: numbers and text; it would show true as 1."""
    return (
        float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        else str(value)
    )


def _hparam_metrics(report: Json) -> dict[str, float]:
    found = {
        f"{part}_{key}": (report.get(part) or {}).get(key)
        for part, keys in (
            ("test", formatting.METRICS),
            ("valid", ("mrr",)),
            ("train", ("seconds", "positives_per_s")),
        )
        for key in keys
    }
    return {f"hparam/{name}": float(value) for name, value in found.items() if _is_number(value)}


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _card(report: Json) -> str:
    shown = [
        tables.baselines(report),
        tables.dataset(report),
        tables.training(report),
        tables.stages(report),
    ]
    settings = tables.Table(
        title="Settings",
        header=("Setting", "Value"),
        rows=[(key, str(value)) for key, value in _hparams(report).items()],
    )
    parts = [
        markdown.render(table)
        for table in (*shown, settings, tables.versions(report))
        if table.rows
    ]
    return "\n".join([f"{markdown.escape(formatting.headline(report))}\n", *parts])
