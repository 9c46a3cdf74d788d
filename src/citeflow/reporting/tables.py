"""The tables of a report as rows of text, the same for the page, the run page's Markdown and the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from citeflow.reporting import formatting

Json = dict[str, Any]
ALL_STAGES = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table whose first column names the row and whose other columns are figures."""

    title: str
    """What it shows."""

    header: tuple[str, ...]
    """Names of the columns."""

    rows: Sequence[tuple[str, ...]]
    """Cells, each row as long as the header."""


def metrics(report: Json) -> Table:
    """The model's figures on validation and test."""
    valid, test = report.get("valid") or {}, report.get("test") or {}
    rows = [
        (label, formatting.score(valid.get(key)), formatting.score(test.get(key)))
        for key, label in formatting.METRICS.items()
    ]
    counts = {"num_positives": "Citations", "num_negatives": "Negatives"}
    rows += [
        (label, formatting.count(valid.get(key)), formatting.count(test.get(key)))
        for key, label in counts.items()
    ]
    return Table(title="Scores", header=("Metric", "Validation", "Test"), rows=rows)


def baselines(report: Json) -> Table:
    """Test MRR of the model and of what needs no training, best first."""
    mrr = formatting.test_mrr(report)
    ranked = sorted(formatting.all_scores(report).items(), key=lambda item: -item[1])
    rows = [
        (name, formatting.score(reached), _against(reached, mrr, name)) for name, reached in ranked
    ]
    return Table(
        title="Against the baselines", header=("Method", "Test MRR", "Against model"), rows=rows
    )


def _against(reached: float, mrr: float | None, name: str) -> str:
    return (
        formatting.MISSING
        if mrr is None or name == formatting.MODEL
        else formatting.difference(reached - mrr)
    )


def dataset(report: Json) -> Table:
    """What was read, what was dropped, and what was held out."""
    facts = report.get("facts") or {}
    citations = report.get("num_citations")
    rows = [
        ("Papers", formatting.count(report.get("num_papers"))),
        ("Citations", formatting.count(citations)),
    ]
    known: list[tuple[str, str, bool]] = [
        ("num_features", "Features per paper", False),
        ("self_citations", "Self-citations dropped", False),
        ("duplicates", "Repeated citations dropped", False),
        ("unknown", "Citations of unknown papers dropped", False),
        ("later_citations", "Citations of later papers, kept", True),
        ("num_training_citations", "Citations trained on", True),
        ("num_valid", "Held out for validation", True),
        ("num_test", "Held out for the test", True),
        ("num_negatives", "Papers each is ranked against", False),
    ]
    for key, label, of_all in known:
        if facts.get(key) is not None:
            rows.append(
                (
                    label,
                    formatting.share(facts[key], citations)
                    if of_all
                    else formatting.count(facts[key]),
                )
            )
    if facts.get("split"):
        splits = {
            "date": "by date, newest papers held out",
            "random": "random",
            "own": "the dataset's own",
        }
        rows.append(("Split", splits.get(facts["split"], str(facts["split"]))))
    return Table(title="Dataset", header=("Fact", "Value"), rows=rows)


def training(report: Json) -> Table:
    """How the model was fitted."""
    train = report.get("train") or {}
    rows = [
        ("Workers", formatting.count(train.get("workers"))),
        ("Epochs", formatting.amount(train.get("epochs"))),
        ("Steps", formatting.count(train.get("steps"))),
        ("Citations seen", formatting.count(train.get("positives"))),
        ("Time", formatting.duration(train.get("seconds"))),
        ("Citations per second", formatting.count(train.get("positives_per_s"))),
        ("Parameters", formatting.count(train.get("parameters"))),
    ]
    if train.get("cpu_cores") is not None:
        rows.append(("Cores in use, mean", formatting.amount(train["cpu_cores"])))
    if train.get("peak_memory_bytes") is not None:
        rows.append(("Peak memory of all workers", formatting.memory(train["peak_memory_bytes"])))
    return Table(title="Training", header=("Fact", "Value"), rows=rows)


def stages(report: Json) -> Table:
    """What each step of the pipeline cost, and what all did; a column that no step has a figure for is left out."""
    found = report.get("stages") or {}
    order = sorted(
        found,
        key=lambda verb: (
            formatting.STAGES.index(verb) if verb in formatting.STAGES else len(formatting.STAGES)
        ),
    )
    costs = [(verb, found[verb]) for verb in order]
    if len(costs) > 1:
        costs.append((ALL_STAGES, _all(list(found.values()))))
    shown = {
        name: column
        for name, column in COSTS.items()
        if name in ("Time", "Peak memory")
        or any(column(cost) != formatting.MISSING for _, cost in costs)
    }
    rows = [(verb, *(column(cost) for column in shown.values())) for verb, cost in costs]
    return Table(title="Stages", header=("Stage", *shown), rows=rows)


COSTS: dict[str, Callable[[Json], str]] = {
    "Time": lambda cost: formatting.duration(cost.get("seconds")),
    "Peak memory": lambda cost: formatting.memory(cost.get("peak_rss_bytes")),
    "Cores": lambda cost: formatting.cores(cost.get("cpu_seconds"), cost.get("seconds")),
    "Read": lambda cost: formatting.memory(cost.get("read_bytes")),
    "Written": lambda cost: formatting.memory(cost.get("written_bytes")),
    "Received": lambda cost: formatting.memory(cost.get("received_bytes")),
}
"""Columns of the stages: cores are the mean in use, read and written is the disk, received the network."""


def _all(costs: Sequence[Json]) -> Json:
    """Sums of what was counted, and the highest of the peaks; what no stage knows is left out."""
    names = {name for cost in costs for name, value in cost.items() if value is not None}
    together = {name: (max if name.startswith("peak") else sum) for name in names}
    return {name: join(cost.get(name) or 0 for cost in costs) for name, join in together.items()}


def versions(report: Json) -> Table:
    """What the run was made with."""
    rows = [(str(name), str(version)) for name, version in (report.get("versions") or {}).items()]
    return Table(title="Versions", header=("Package", "Version"), rows=rows)
