"""Pages as one HTML file with everything in it, which needs no network and no script.

A page is described by plain records (`Section`, `Plot`, `Table`, `Text`); how it looks is in
`templates/`. The report of a run and the pages of the experiments are made of the same blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from citeflow import config
from citeflow.report import Curves, Report, RunReport
from citeflow.reporting import formatting, report_plots, tables
from citeflow.reporting.plots import Plot
from citeflow.reporting.tables import Table

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy of a page, and of the server that shows it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """Preformatted text, such as settings or a command to copy."""

    title: str
    text: str
    remark: str = ""


Block = Plot | Table | Text


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a page."""

    title: str = ""
    rows: Sequence[Sequence[Block]]
    """Blocks that stand side by side where there is room, row by row."""

    notes: Sequence[str] = ()
    """Lines of a list below the blocks."""

    is_folded: bool = False
    """Whether a reader has to open it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """A figure in large letters."""

    label: str
    value: str
    note: str = ""


def render_page(
    title: str,
    sections: Sequence[Section],
    *,
    kind: str,
    headline: str = "",
    tiles: Sequence[Tile] = (),
) -> str:
    """Render a page.

    Args:
        title: first heading, such as the name of a dataset.
        sections: content, from top to bottom.
        kind: line above the title, such as `citeflow run report`.
        headline: the result in one sentence.
        tiles: the most important figures.
    """
    template = _environment().get_template("page.html.j2")
    return template.render(
        title=" ".join(title.split()),
        sections=sections,
        kind=kind,
        headline=headline,
        tiles=tiles,
        policy=POLICY,
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("citeflow.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    kinds = {"plot": Plot, "table": Table, "text": Text}
    for name, kind in kinds.items():
        environment.tests[name] = lambda block, kind=kind: isinstance(block, kind)
    return environment


def run_sections(
    report: RunReport, dataset: Table, training: Table, remarks: Sequence[str]
) -> list[Section]:
    """Return the sections that end the page of a run of any task.

    Args:
        report: content of report.json.
        dataset: what was read.
        training: how the model was trained.
        remarks: on the dataset.
    """
    costs = [tables.goodput(report), tables.stages(report)]
    return [
        Section(
            title="The run",
            rows=[[dataset, training], *([table] for table in costs if table.rows)],
            notes=remarks,
        ),
        Section(
            title="Settings",
            rows=[[Text(title="", text=config.to_yaml(report.config))]],
            is_folded=True,
        ),
        Section(title="Versions", rows=[[tables.versions(report)]], is_folded=True),
    ]


def render_report(report: Report, curves: Curves) -> str:
    """Render the report of a run."""
    drawn = report_plots.draw_report(report, curves)
    sections = [
        Section(title="Results", rows=_results(report)),
        Section(
            title="Figures",
            rows=[[plot for plot in drawn if plot.svg]],
            notes=[f"{plot.title}: {plot.caption}" for plot in drawn if not plot.svg],
        ),
        *run_sections(report, tables.dataset(report), tables.training(report), report.remarks),
    ]
    return render_page(
        report.dataset,
        sections,
        kind="citeflow run report",
        headline=formatting.headline(report),
        tiles=_tiles(report),
    )


def _results(report: Report) -> list[list[Block]]:
    rows: list[list[Block]] = [[tables.metrics(report), tables.baselines(report)]]
    if report.protocols:
        rows += [[tables.protocols(report)], [tables.methods(report)]]
    return rows


def _tiles(report: Report) -> list[Tile]:
    test = report.test
    train = report.train
    best, best_mrr = next(iter(formatting.baseline_scores(report).items()), ("", None))
    labels = formatting.METRICS
    return [
        Tile(
            label=f"Test {labels['mrr']}",
            value=formatting.score(test.mrr),
            note=f"of {formatting.plural(test.num_positives, 'citation')} only: says nothing"
            if report.is_tiny
            else "mean of 1 / rank",
        ),
        Tile(label="Best baseline", value=formatting.score(best_mrr), note=formatting.method(best)),
        Tile(
            label=labels["hits@10"],
            value=formatting.score(test.hits_at_10),
            note="share ranked in the first ten",
        ),
        Tile(label=labels["auc"], value=formatting.score(test.auc), note="0.5 is chance"),
        Tile(
            label="Training time",
            value=formatting.duration(train.seconds),
            note=formatting.plural(train.workers, "worker"),
        ),
        Tile(
            label="Throughput",
            value=formatting.rate(train.positives_per_s),
            note="citations trained on",
        ),
    ]
