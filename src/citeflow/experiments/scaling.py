"""How the time of a training depends on its workers."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass

from citeflow.experiments.trials import Outcome

PUBLISHED_AS = "github.com/0M1J/kubeflow-GNN, ogbl-citation2 on 3 nodes of 2 cores, gloo"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One training; None where a figure is not known."""

    workers: int
    epochs: float
    seconds: float
    """Time of the training, without the start of the workers."""

    speed_up: float = 1.0
    """Time with the fewest workers of as many epochs, over this time."""

    efficiency: float = 1.0
    """Speed-up over the workers' own growth: 1 is as many times faster as there are more workers."""

    positives_per_s: float | None = None
    """Citations trained on in a second, all workers together."""

    accuracy: float | None = None
    mrr: float | None = None
    cpu_cores: float | None = None
    """Cores that all workers together kept busy, on average."""

    peak_memory_bytes: float | None = None
    """Highest memory of all workers together."""

    more_workers_than_cores: bool = False


def _published() -> list[Row]:
    figures = {
        10: {2: (12.18, 73.82), 4: (12.04, 73.74), 6: (11.17, 74.28)},
        30: {2: (35.45, 83.20), 4: (33.93, 85.04), 6: (30.76, 85.11)},
    }
    found = [
        Row(workers=workers, epochs=epochs, seconds=60 * minutes, accuracy=round(percent / 100, 4))
        for epochs, by_workers in figures.items()
        for workers, (minutes, percent) in by_workers.items()
    ]
    return compared(found)


def rows(outcomes: Sequence[Outcome], *, cores: int | None) -> list[Row]:
    """A row for each training, by epochs and workers.

    Args:
        outcomes: of the trials.
        cores: of the machine that they shared; None where each worker had a pod of its own.
    """
    return compared([_row(outcome, cores) for outcome in outcomes])


def compared(found: Sequence[Row]) -> list[Row]:
    """The rows in order, each compared with the one of as many epochs and the fewest workers."""
    first: dict[float, Row] = {}
    for row in sorted(found, key=lambda row: row.workers):
        first.setdefault(row.epochs, row)
    return [
        _against(row, first[row.epochs])
        for row in sorted(found, key=lambda row: (row.epochs, row.workers))
    ]


def as_csv(table: Sequence[Row]) -> str:
    """The rows with a header, units as in `Row`."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [field.name for field in dataclasses.fields(Row)], lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in table)
    return text.getvalue()


def _row(outcome: Outcome, cores: int | None) -> Row:
    train, test = outcome.report["train"], outcome.report["test"]
    return Row(
        workers=int(train["workers"]),
        epochs=float(outcome.report["config"]["train"]["epochs"]),
        seconds=float(train["seconds"]),
        positives_per_s=train["positives_per_s"],
        accuracy=test["accuracy"],
        mrr=test["mrr"],
        cpu_cores=train.get("cpu_cores"),
        peak_memory_bytes=train.get("peak_memory_bytes"),
        more_workers_than_cores=cores is not None and train["workers"] > cores,
    )


def _against(row: Row, first: Row) -> Row:
    speed_up = first.seconds / row.seconds
    return dataclasses.replace(
        row, speed_up=speed_up, efficiency=speed_up * first.workers / row.workers
    )


PUBLISHED = _published()
"""The student result that citeflow grew out of; its accuracy can not be had from the published code."""
