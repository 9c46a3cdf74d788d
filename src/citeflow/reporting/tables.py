"""Tables of a report as rows of text, the same for the page, Markdown and the terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from citeflow.report import ProtocolScores, Report, RunReport, StageCost
from citeflow.reporting import formatting

ALL_STAGES = "all"
BASELINES = (
    "The baselines need no training. Three of them add up what the citing and the cited paper have "
    "in common in the training citations; popularity is how often a paper is cited, recency how "
    "new it is."
)
PROTOCOLS = (
    "What each test citation is ranked against. Random papers: OGB's protocol. All papers: every "
    "paper that is no newer than the source and not cited by it, as predict ranks them. Hard "
    "papers: the nearest of these by resource allocation and by features, and the most cited. No "
    "references: all papers, for sources whose own references were taken away."
)
METHODS = "Test MRR. Each column ranks the same citations against the same papers."
COSTS = (
    "Cores: mean number in use. Read and written: disk. Received: over the network, by all of the "
    "pod or machine."
)
GOODPUT = "Steps that count"
WALL_TIME = (
    "From the launch to the model, over all starts of the workers. The share of the steps that "
    "count is the goodput, or effective training time ratio; waits for other workers within a "
    "step are in it."
)
SPLITS = {
    "date": "by date, newest papers held out",
    "random": "random",
    "own": "the dataset's own",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table whose first column names the row and whose other columns are figures."""

    title: str
    header: tuple[str, ...]
    """Names of the columns."""

    rows: Sequence[tuple[str, ...]]
    """Cells, each row as long as the header."""

    remark: str = ""
    """How to read it."""

    strong: frozenset[str] = frozenset()
    """Names of the rows that stand out."""


def metrics(report: Report) -> Table:
    """Tabulate the model's figures on validation and test."""
    valid = report.valid.figures()
    test = report.test.figures()
    rows = [
        (label, formatting.score(valid[name]), formatting.score(test[name]))
        for name, label in formatting.METRICS.items()
    ]
    rows += [
        (label, formatting.count(valid[name]), formatting.count(test[name]))
        for name, label in formatting.COUNTS.items()
    ]
    return Table(title="Scores", header=("Metric", "Validation", "Test"), rows=rows)


def baselines(report: Report) -> Table:
    """Tabulate the test MRR of the model and of the baselines, best first."""
    rows = []
    for name, mrr in sorted(formatting.all_scores(report).items(), key=lambda item: -item[1]):
        is_model = name == formatting.MODEL
        gap = formatting.MISSING if is_model else formatting.difference(mrr - report.test.mrr)
        rows.append((name, formatting.score(mrr), gap))
    return Table(
        title="Against the baselines",
        header=("Method", "Test MRR", "Against model"),
        rows=rows,
        remark=BASELINES,
        strong=frozenset({formatting.MODEL}),
    )


def protocols(report: Report) -> Table:
    """Tabulate the model's figures in each protocol, with the half width of an interval."""
    rows = []
    for name, scores in _protocols(report).items():
        figures = scores.figures()
        cells = [
            _with_interval(figures[metric], (scores.ci or {}).get(metric))
            for metric in formatting.RANK_METRICS
        ]
        rows.append(
            (
                formatting.PROTOCOLS[name],
                *cells,
                formatting.amount(scores.median_rank),
                formatting.count(scores.num_candidates),
                formatting.share(scores.num_sources, scores.of_sources)
                if scores.ci
                else formatting.count(scores.num_sources),
                formatting.duration(scores.seconds),
            )
        )
    header = ("Ranked against", *formatting.RANK_METRICS.values())
    return Table(
        title="Protocols",
        header=(*header, "Median rank", "Papers, median", "Test citations", "Time"),
        rows=rows,
        remark=PROTOCOLS,
    )


def by_protocol(
    header: tuple[str, ...], rows: Sequence[tuple[tuple[str, ...], Mapping[str, str]]]
) -> Table | None:
    """Tabulate the test MRR of several trainings in each protocol; None where no report has any.

    Args:
        header: names of the columns that tell the trainings apart.
        rows: their cells, and the formatted MRR by protocol.
    """
    names = [name for name in formatting.PROTOCOLS if any(name in figures for _, figures in rows)]
    if not names:
        return None
    return Table(
        title="Test MRR by protocol",
        header=(*header, *(formatting.PROTOCOLS[name] for name in names)),
        rows=[
            (*cells, *(figures.get(name, formatting.MISSING) for name in names))
            for cells, figures in rows
        ],
        remark=PROTOCOLS,
    )


def methods(report: Report) -> Table:
    """Tabulate the test MRR of model and baselines in each protocol, best among random first."""
    columns = [
        {formatting.MODEL: scores.mrr}
        | {formatting.method(name): each.mrr for name, each in scores.baselines.items()}
        for scores in _protocols(report).values()
    ]
    names = sorted(columns[0], key=lambda name: -columns[0][name]) if columns else []
    return Table(
        title="Methods by protocol",
        header=("Method", *(formatting.PROTOCOLS[name] for name in _protocols(report))),
        rows=[
            (name, *(formatting.score(column.get(name)) for column in columns)) for name in names
        ],
        remark=METHODS,
        strong=frozenset({formatting.MODEL}),
    )


def _protocols(report: Report) -> dict[str, ProtocolScores]:
    """Return the protocols that were measured, in the order in which they are shown."""
    return {
        name: report.protocols[name] for name in formatting.PROTOCOLS if name in report.protocols
    }


def _with_interval(value: float, interval: tuple[float, float] | None) -> str:
    text = formatting.score(value)
    return text if interval is None else f"{text} ± {(interval[1] - interval[0]) / 2:.4f}"


def dataset(report: Report) -> Table:
    """Tabulate what was read, what was dropped, and what was held out."""
    labels = {
        "num_features": "Features per paper",
        "self_citations": "Self-citations dropped",
        "duplicates": "Repeated citations dropped",
        "unknown": "Citations of unknown papers dropped",
        "without_date": "Citations of papers without a date dropped",
        "later_citations": "Citations of later papers, kept",
        "num_training_citations": "Citations trained on",
        "num_valid": "Held out for validation",
        "num_test": "Held out for the test",
        "num_negatives": "Papers each is ranked against",
    }
    parts = ("later_citations", "num_training_citations", "num_valid", "num_test")
    rows = [
        ("Papers", formatting.count(report.num_papers)),
        ("Citations", formatting.count(report.num_citations)),
    ]
    for name, label in labels.items():
        value = report.facts.get(name)
        if isinstance(value, (int, float)) and (value or name != "without_date"):
            whole = report.num_citations if name in parts else None
            rows.append((label, formatting.share(value, whole)))
    rows += _candidates(report)
    split = report.facts.get("split")
    if isinstance(split, str):
        rows.append(("Split", SPLITS.get(split, split)))
    return Table(title="Dataset", header=("Fact", "Value"), rows=rows)


def _candidates(report: Report) -> list[tuple[str, str]]:
    """Rows of the spread of what the sources could be ranked against, if it is known."""
    names = ("fewest_candidates", "median_candidates", "most_candidates")
    numbers = [value for name in names if isinstance(value := report.facts.get(name), int)]
    if len(numbers) < len(names):
        return []
    fewest, median, most = map(formatting.count, numbers)
    rows = [("Papers they could be ranked against", f"{fewest} to {most}, median {median}")]
    if num_short := report.facts.get("short_sources"):
        rows.append(("Not held out, with far fewer", str(num_short)))
    return rows


def training(report: RunReport, samples: str = "citations") -> Table:
    """Tabulate how the model was trained, on samples with this name."""
    train = report.train
    rows = [
        ("Workers", formatting.count(train.workers)),
        ("Epochs", formatting.amount(train.epochs)),
        ("Steps", formatting.count(train.steps)),
        (f"{samples.capitalize()} seen", formatting.count(train.positives)),
        ("Time", formatting.duration(train.seconds)),
        (f"{samples.capitalize()} per second", formatting.count(train.positives_per_s)),
        ("Parameters", formatting.count(train.parameters)),
    ]
    if train.cpu_cores is not None:
        rows.append(("Cores in use, mean", formatting.amount(train.cpu_cores)))
    if train.others_share is not None:
        rows.append(("Cores that others used", f"{100 * train.others_share:.0f} %"))
    if train.peak_memory_bytes is not None:
        rows.append(("Peak memory of all workers", formatting.memory(train.peak_memory_bytes)))
    return Table(title="Training", header=("Fact", "Value"), rows=rows)


def goodput(report: RunReport) -> Table:
    """Tabulate what the wall time of the training went into; without rows in an older report."""
    train = report.train
    wall_s = train.wall_seconds or 0.0
    counted = {GOODPUT: wall_s - sum(train.losses.values())}
    lost = {formatting.LOSSES.get(cause, cause): s for cause, s in train.losses.items()}
    rows = [
        (label, formatting.duration(seconds), f"{100 * seconds / wall_s:.1f} %")
        for label, seconds in (counted | lost).items()
        if wall_s and (seconds or label in counted)
    ]
    return Table(
        title="Wall time of the training",
        header=("Went into", "Time", "Share"),
        rows=rows,
        remark=WALL_TIME,
        strong=frozenset({GOODPUT}),
    )


COST_COLUMNS: dict[str, Callable[[StageCost], str]] = {
    "Time": lambda cost: formatting.duration(cost.seconds),
    "Peak memory": lambda cost: formatting.memory(cost.peak_rss_bytes),
    "Cores": lambda cost: formatting.cores(cost.cpu_seconds, cost.seconds),
    "Read": lambda cost: formatting.memory(cost.read_bytes),
    "Written": lambda cost: formatting.memory(cost.written_bytes),
    "Received": lambda cost: formatting.memory(cost.received_bytes),
}


def stages(report: RunReport) -> Table:
    """Tabulate what each stage cost, and their total; columns without a figure are left out."""
    known = [name for name in formatting.STAGES if name in report.stages]
    others = [name for name in report.stages if name not in formatting.STAGES]
    costs = {name: report.stages[name] for name in (*known, *others)}
    if len(costs) > 1:
        costs[ALL_STAGES] = _total(costs.values())
    columns = {
        name: [format_cost(cost) for cost in costs.values()]
        for name, format_cost in COST_COLUMNS.items()
    }
    shown = {
        name: cells
        for name, cells in columns.items()
        if name in ("Time", "Peak memory") or set(cells) != {formatting.MISSING}
    }
    return Table(
        title="Stages",
        header=("Stage", *shown),
        rows=list(zip(costs, *shown.values(), strict=True)),
        remark=COSTS if len(shown) > 2 else "",
        strong=frozenset({ALL_STAGES}),
    )


def _total(costs: Iterable[StageCost]) -> StageCost:
    """Add up the costs, and take the highest of the peaks; what no stage knows is left out."""
    total: dict[str, float] = {}
    for cost in costs:
        for name, value in cost.model_dump(exclude_none=True).items():
            before = total.get(name, 0)
            total[name] = max(before, value) if name.startswith("peak") else before + value
    return StageCost(**total)


def versions(report: RunReport) -> Table:
    """Tabulate the packages that the run was made with."""
    return Table(
        title="Versions", header=("Package", "Version"), rows=list(report.versions.items())
    )
