"""Time, speed-up and efficiency of trainings with different numbers of workers."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from citeflow.config import CITATION
from citeflow.experiments.trials import Outcome
from citeflow.report import ComparedReport
from citeflow.reporting import formatting

DISTURBING_SHARE = 0.1
"""Share of the cores in use by others beyond which a time is no measure of a training."""


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
    """Samples trained on in a second, all workers together."""

    test: float | None = None
    """Score on the test."""
    second: float | None = None
    """One more figure of the test."""
    mrr_by_protocol: Mapping[str, float] = field(default_factory=dict)
    """Test MRR in all protocols that were measured."""
    cpu_cores: float | None = None
    """Mean cores in use by all workers."""

    others_share: float | None = None
    """Share of the machines' cores that others used during the training."""

    peak_memory_bytes: float | None = None
    """Highest memory of all workers together."""

    more_workers_than_cores: bool = False

    @property
    def is_disturbed(self) -> bool:
        """True if others took so much that the time tells little of the training."""
        return self.others_share is not None and self.others_share > DISTURBING_SHARE


def build_rows(outcomes: Sequence[Outcome[ComparedReport]], *, cores: int | None) -> list[Row]:
    """Build a row for each training, ordered by epochs and workers.

    Args:
        outcomes: results of the trials.
        cores: cores of the machine that the workers shared; None where each had a pod of its own.
    """
    rows = []
    for outcome in outcomes:
        train, compared = outcome.report.train, outcome.report.compared()
        row = Row(
            workers=train.workers,
            epochs=compared.epochs,
            seconds=train.seconds,
            positives_per_s=train.positives_per_s,
            test=compared.test,
            second=compared.second,
            mrr_by_protocol=compared.mrr_by_protocol,
            cpu_cores=train.cpu_cores,
            others_share=train.others_share,
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


def to_csv(rows: Sequence[Row], names: tuple[str, str]) -> str:
    """Format rows as CSV with a header; units are those of `Row`.

    Args:
        rows: result of `build_rows`.
        names: of the columns with the two figures of the test.
    """
    text = io.StringIO()
    figures = [each.name for each in dataclasses.fields(Row) if each.name != "mrr_by_protocol"]
    protocols = [name for name in formatting.PROTOCOLS if name in rows[0].mrr_by_protocol]
    named = dict(zip(("test", "second"), names, strict=True))
    header = [named.get(name, name) for name in figures]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header, *(f"{protocol}_mrr" for protocol in protocols)])
    for row in rows:
        values = [getattr(row, name) for name in figures]
        writer.writerow([*values, *(row.mrr_by_protocol.get(name) for name in protocols)])
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
            Row(workers=workers, epochs=epochs, seconds=60 * minutes, second=accuracy)
            for (epochs, workers), (minutes, accuracy) in minutes_and_accuracy.items()
        ]
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A result of others, beside which the page shows an experiment."""

    source: str
    rows: Sequence[Row]


PUBLISHED = {
    CITATION: Published(
        source="github.com/0M1J/kubeflow-GNN, ogbl-citation2 on 3 nodes of 2 cores, gloo",
        rows=_published_rows(),
    )
}
"""By task. That of citations is the student result that citeflow grew out of; the published code
does not reach its accuracy."""
