"""Time, speed-up and efficiency of trainings with different numbers of workers."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from citeflow.experiments.trials import Outcome
from citeflow.report import Report
from citeflow.reporting import formatting

PUBLISHED_AS = "github.com/0M1J/kubeflow-GNN, ogbl-citation2 on 3 nodes of 2 cores, gloo"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One training; None where a figure is unknown."""

    workers: int
    epochs: float
    seconds: float
    """Time of the training, without the start of the workers."""

    speed_up: float = 1.0
    """Time with the fewest workers for as many epochs, over this time."""

    efficiency: float = 1.0
    """Speed-up over the growth of the workers; 1 is linear scaling."""

    positives_per_s: float | None = None
    """Citations trained on in a second, all workers together."""

    accuracy: float | None = None
    mrr: float | None = None
    """Of the test, among random papers."""
    mrr_by_protocol: Mapping[str, float] = field(default_factory=dict)
    cpu_cores: float | None = None
    """Mean cores in use by all workers."""

    peak_memory_bytes: float | None = None
    """Highest memory of all workers together."""

    more_workers_than_cores: bool = False


def build_rows(outcomes: Sequence[Outcome[Report]], *, cores: int | None) -> list[Row]:
    """Build a row for each training, ordered by epochs and workers.

    Args:
        outcomes: results of the trials.
        cores: cores of the machine that the workers shared; None where each had a pod of its own.
    """
    rows = []
    for outcome in outcomes:
        train = outcome.report.train
        row = Row(
            workers=train.workers,
            epochs=outcome.report.config.train.epochs,
            seconds=train.seconds,
            positives_per_s=train.positives_per_s,
            accuracy=outcome.report.test.accuracy,
            mrr=outcome.report.test.mrr,
            mrr_by_protocol=outcome.report.mrr_by_protocol,
            cpu_cores=train.cpu_cores,
            peak_memory_bytes=train.peak_memory_bytes,
            more_workers_than_cores=cores is not None and train.workers > cores,
        )
        rows.append(row)
    return compute_speed_ups(rows)


def compute_speed_ups(rows: Sequence[Row]) -> list[Row]:
    """Compare each row with the one that has as many epochs and the fewest workers."""
    baseline: dict[float, Row] = {}
    compared = []
    for row in sorted(rows, key=lambda row: (row.epochs, row.workers)):
        first = baseline.setdefault(row.epochs, row)
        speed_up = first.seconds / row.seconds
        efficiency = speed_up * first.workers / row.workers
        compared.append(dataclasses.replace(row, speed_up=speed_up, efficiency=efficiency))
    return compared


def to_csv(rows: Sequence[Row]) -> str:
    """Format rows as CSV with a header; units are those of `Row`."""
    text = io.StringIO()
    names = [each.name for each in dataclasses.fields(Row) if each.name != "mrr_by_protocol"]
    protocols = [name for name in formatting.PROTOCOLS if name in rows[0].mrr_by_protocol]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *(f"{protocol}_mrr" for protocol in protocols)])
    for row in rows:
        figures = [getattr(row, name) for name in names]
        writer.writerow([*figures, *(row.mrr_by_protocol.get(name) for name in protocols)])
    return text.getvalue()


def _published_rows() -> list[Row]:
    minutes_and_accuracy = {
        (10, 2): (12.18, 0.7382),
        (10, 4): (12.04, 0.7374),
        (10, 6): (11.17, 0.7428),
        (30, 2): (35.45, 0.8320),
        (30, 4): (33.93, 0.8504),
        (30, 6): (30.76, 0.8511),
    }
    return compute_speed_ups(
        [
            Row(workers=workers, epochs=epochs, seconds=60 * minutes, accuracy=accuracy)
            for (epochs, workers), (minutes, accuracy) in minutes_and_accuracy.items()
        ]
    )


PUBLISHED = _published_rows()
"""The student result that citeflow grew out of; the published code does not reach its accuracy."""
