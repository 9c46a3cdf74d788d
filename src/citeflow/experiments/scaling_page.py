"""The result of a scaling experiment as Markdown and as a page with plots."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from citeflow.experiments.speedup import DISTURBING_SHARE, PUBLISHED, Published, Row
from citeflow.report import Compared
from citeflow.reporting import formatting, markdown, plots, tables
from citeflow.reporting.html import Section, render_page
from citeflow.reporting.plots import COLOURS, Plot
from citeflow.reporting.tables import Table
from citeflow.tasks.base import Task

# Five colours and four markers: the same number of both would repeat a look after five curves.
LOOKS = ("blue", "vermillion", "green", "purple", "orange")
MARKERS = "osD^"
Columns = dict[str, Callable[[Row], str]]
TIMES: Columns = {
    "Workers": lambda row: f"{row.workers}{MARK if row.more_workers_than_cores else ''}",
    "Epochs": lambda row: f"{row.epochs:g}",
    "Time": lambda row: f"{formatting.duration(row.seconds)}{DAGGER if row.is_disturbed else ''}",
    "Speed-up": lambda row: f"{row.speed_up:.2f}",
    "Efficiency": lambda row: _percent(row.efficiency),
}
PUBLISHED_COLUMNS: Columns = {**TIMES, "Accuracy": lambda row: formatting.score(row.second)}
MARK = " *"
DAGGER = " †"
REMARK = (
    "Time is that of the training, without the start of its workers. Speed-up and efficiency are "
    "against the fewest workers for as many epochs. Cores and memory are those of all workers "
    "together. Trainings have whole steps, so a few epochs of little data with many workers are "
    "more than asked for: compare the {samples} per second."
)
DISTURBED_REMARK = (
    f"{DAGGER.strip()} Others took more than {100 * DISTURBING_SHARE:.0f} % of the cores "
    "meanwhile, so neither this time nor a speed-up or an efficiency made of it can be relied on: "
    "repeat the experiment on a machine with nothing else at work."
)
PUBLISHED_REMARK = (
    "{source}. Other data and other machines, so only the speed-up can be compared; "
    "the accuracy cannot be reproduced from the published code."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """Words of a task for table and plots."""

    test: str
    """Of the score on the test."""

    second: str
    """Of its other figure."""

    samples: str
    published: Published | None
    """A result of others."""

    @classmethod
    def of(cls, task: Task, compared: Compared) -> "Labels":
        """Take them from a task, and the figures that its models are compared by."""
        return cls(
            test=formatting.in_protocol(f"Test {compared.metric}", compared.protocol),
            second=compared.second_label,
            samples=task.names.samples,
            published=PUBLISHED.get(task.name),
        )

    @property
    def columns(self) -> Columns:
        """Columns of the table."""
        return {
            **TIMES,
            f"{self.samples.capitalize()} / s": lambda row: formatting.count(row.positives_per_s),
            self.second: lambda row: formatting.score(row.second),
            self.test: lambda row: formatting.score(row.test),
            "Cores used": lambda row: (
                formatting.MISSING if row.cpu_cores is None else f"{row.cpu_cores:.2f}"
            ),
            "Used by others": lambda row: (
                formatting.MISSING if row.others_share is None else _percent(row.others_share)
            ),
            "Peak memory": lambda row: formatting.memory(row.peak_memory_bytes),
        }


def render_markdown(dataset: str, rows: Sequence[Row], labels: Labels, *, cores: int | None) -> str:
    """Render the tables as Markdown."""
    parts = [
        f"# Scaling on {markdown.escape(dataset)}\n\n{headline(rows)}\n",
        markdown.render(_table("This experiment", rows, labels.columns)),
        *(f"{remark}\n" for remark in _remarks(rows, labels, cores)),
        *(markdown.render(table) for table in _by_protocol(rows)),
    ]
    if labels.published is not None:
        table = _published(labels.published)
        parts += [markdown.render(replace(table, remark="")), f"{table.remark}\n"]
    return "\n".join(parts)


def render_html(dataset: str, rows: Sequence[Row], labels: Labels, *, cores: int | None) -> str:
    """Render tables and plots as a page.

    Args:
        dataset: name of the dataset.
        rows: result of `speedup.build_rows`.
        labels: words of the task.
        cores: cores of the machine that the workers shared; None where each had a pod of its own.
    """
    published = labels.published
    grey = "" if published is None else " Grey: the published result."
    speed_up = f"Against the fewest workers of each experiment.{grey}"
    score = "More workers take larger and fewer steps, so it may fall."
    figures = [
        _figure("Time", "Less is better.", _draw_time, rows),
        _figure("Speed-up", speed_up, partial(_draw_speed_up, published), rows),
        _figure("Throughput", "All workers together.", partial(_draw_rate, labels.samples), rows),
        _figure(labels.test, score, partial(_draw_score, labels.test), rows),
    ]
    remark = " ".join(_remarks(rows, labels, cores))
    own = replace(_table("This experiment", rows, labels.columns), remark=remark)
    sections = [Section(rows=[[own]]), Section(title="Figures", rows=[figures])]
    sections += [Section(title="Protocols", rows=[[table]]) for table in _by_protocol(rows)]
    if published is not None:
        title = "Beside the published result"
        sections.append(Section(title=title, rows=[[_published(published)]]))
    return render_page(dataset, sections, kind="citeflow scaling", headline=headline(rows))


def headline(rows: Sequence[Row]) -> str:
    """Say in one sentence how much more workers speed up the longest training."""
    first, *others = [row for row in rows if row.epochs == rows[-1].epochs]
    if not others:
        workers = formatting.plural(first.workers, "worker")
        return f"{workers}: {formatting.duration(first.seconds)}; there is nothing to compare."
    best = max(others, key=lambda row: row.speed_up)
    gain = f"{best.speed_up:.2f} × as fast as {first.workers}"  # noqa: RUF001
    length = "1 epoch" if best.epochs == 1 else f"{best.epochs:g} epochs"
    sentence = (
        f"{best.workers} workers are {gain} at {length}: {_percent(best.efficiency)} efficiency."
    )
    most = max((row.others_share or 0.0 for row in rows if row.is_disturbed), default=0.0)
    warning = f" Do not rely on it: others took up to {_percent(most)} of the cores meanwhile."
    return f"{sentence}{warning if most else ''}"


def _remarks(rows: Sequence[Row], labels: Labels, cores: int | None) -> list[str]:
    remarks = [REMARK.format(samples=labels.samples)]
    if cores is not None:
        shared_cores = formatting.plural(cores, "core")
        remarks.append(f"They share {shared_cores}: one worker uses all of them.")
    if any(row.more_workers_than_cores for row in rows):
        remarks.append(f"{MARK.strip()} More workers than cores.")
    if any(row.is_disturbed for row in rows):
        remarks.append(DISTURBED_REMARK)
    return remarks


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _by_protocol(rows: Sequence[Row]) -> list[Table]:
    names = ("Workers", "Epochs")
    cells = [
        (
            tuple(TIMES[name](row) for name in names),
            {name: formatting.score(mrr) for name, mrr in row.mrr_by_protocol.items()},
        )
        for row in rows
    ]
    table = tables.by_protocol(names, cells)
    return [] if table is None else [table]


def _published(published: Published) -> Table:
    table = _table("Published: 2, 4 and 6 workers", published.rows, PUBLISHED_COLUMNS)
    return replace(table, remark=PUBLISHED_REMARK.format(source=published.source))


def _table(title: str, rows: Sequence[Row], columns: Columns) -> Table:
    cells = [tuple(cell(row) for cell in columns.values()) for row in rows]
    return Table(title=title, header=tuple(columns), rows=cells)


def _figure(
    title: str, caption: str, draw: Callable[[Axes, Sequence[Row]], None], rows: Sequence[Row]
) -> Plot:
    def fill(axes: Axes) -> None:
        draw(axes, rows)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        plots.legend_below(axes)

    name = re.sub(r"\W+", "-", title.lower())
    return plots.draw_axes(name, fill, title=title, caption=caption, summary="By workers")


def _curves(rows: Sequence[Row]) -> list[tuple[str, list[Row], dict[str, Any]]]:
    """Group the rows by epochs: label, rows and look of each curve."""
    curves = []
    for index, length in enumerate(sorted({row.epochs for row in rows})):
        label = "1 epoch" if length == 1 else f"{length:g} epochs"
        look = {
            "color": COLOURS[LOOKS[index % len(LOOKS)]],
            "marker": MARKERS[index % len(MARKERS)],
        }
        curves.append((label, [row for row in rows if row.epochs == length], look))
    return curves


def _draw_time(axes: Axes, rows: Sequence[Row]) -> None:
    length, unit = plots.time_unit(max(row.seconds for row in rows))
    for label, part, look in _curves(rows):
        seconds = [row.seconds / length for row in part]
        axes.plot([row.workers for row in part], seconds, label=label, **look)
    axes.set(xlabel="Workers", ylabel=f"Training time ({unit})")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])


def _draw_speed_up(published: Published | None, axes: Axes, rows: Sequence[Row]) -> None:
    for label, part, look in _curves(rows):
        axes.plot(*_growth(part), label=label, **look)
    for label, part, look in _curves([] if published is None else published.rows):
        grey = {**look, "color": COLOURS["grey"], "dashes": (4, 3), "linewidth": 1.2}
        axes.plot(*_growth(part), label=f"published, {label}", **grey)
    most = max(3.0, *_growth(rows)[0])
    axes.plot([1, most], [1, most], color=COLOURS["faint"], linewidth=1.4, label="ideal")
    axes.set(xlabel="Times as many workers", ylabel="Times as fast")


def _growth(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Return the workers as multiples of the fewest, and the speed-ups."""
    fewest = min(row.workers for row in rows)
    return [row.workers / fewest for row in rows], [row.speed_up for row in rows]


def _draw_rate(samples: str, axes: Axes, rows: Sequence[Row]) -> None:
    for label, part, look in _curves(rows):
        rates = [row.positives_per_s or 0 for row in part]
        axes.plot([row.workers for row in part], rates, label=label, **look)
    axes.set(xlabel="Workers", ylabel=f"{samples.capitalize()} per second")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter(FuncFormatter(plots.short))


def _draw_score(label: str, axes: Axes, rows: Sequence[Row]) -> None:
    for length, part, look in _curves(rows):
        scores = [row.test or 0 for row in part]
        axes.plot([row.workers for row in part], scores, label=length, **look)
    axes.set(xlabel="Workers", ylabel=label)
