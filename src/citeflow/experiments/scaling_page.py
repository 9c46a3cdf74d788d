"""The result of a scaling sweep as Markdown and as a page with plots."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from citeflow.experiments.scaling import PUBLISHED, PUBLISHED_AS, Row
from citeflow.reporting import formatting, html, markdown, plots
from citeflow.reporting.html import Section
from citeflow.reporting.plots import COLOURS, Plot
from citeflow.reporting.tables import Table

LOOKS, MARKERS = ("blue", "vermillion", "green", "purple", "orange"), "osD^"
"""As many of the one as of the other would give the sixth curve the look of the first."""
HEADER = (
    "Workers",
    "Epochs",
    "Time",
    "Speed-up",
    "Efficiency",
    "Citations / s",
    "Accuracy",
    "Test MRR",
    "Cores used",
    "Peak memory",
)
MARK = " *"
HOW = (
    "Time is that of the training, without the start of its workers. Speed-up and efficiency are against the fewest "
    "workers of as many epochs. Cores and memory are those of all workers together. Trainings have whole steps, so "
    "that a few epochs of a small graph with many workers are more than asked for: compare the citations per second."
)
PUBLISHED_REMARK = (
    f"{PUBLISHED_AS}. Other data and other machines, so only the speed-up can be compared; "
    "the accuracy can not be reproduced from the published code."
)


def summary(dataset: str, rows: Sequence[Row], *, cores: int | None) -> str:
    """Both tables, as Markdown."""
    parts = [
        f"# Scaling on {markdown.escape(dataset)}\n\n{headline(rows)}\n",
        markdown.render(_table("This sweep", rows)),
        *(f"{remark}\n" for remark in _remarks(rows, cores)),
        markdown.render(_published()),
        f"{PUBLISHED_REMARK}\n",
    ]
    return "\n".join(parts)


def draw_page(dataset: str, rows: Sequence[Row], *, cores: int | None) -> str:
    """Tables and plots as a page of its own.

    Args:
        dataset: its name.
        rows: as `scaling.rows` gives them.
        cores: of the machine that the workers shared; None where each had a pod of its own.
    """
    figures = [
        _figure("Time", "Less is better.", _time, rows),
        _figure(
            "Speed-up",
            "Against the fewest workers of each sweep. Grey: the published result.",
            _speed_up,
            rows,
        ),
        _figure("Throughput", "All workers together.", _throughput, rows),
        _figure(
            "Test MRR",
            "More workers take larger steps, and fewer of them, so it may fall.",
            _mrr,
            rows,
        ),
    ]
    sections = [
        Section(
            rows=[
                [replace(_table("This sweep", rows), remark=" ".join(_remarks(rows, cores)))],
            ]
        ),
        Section(title="Figures", rows=[figures]),
        Section(
            title="Beside the published result",
            rows=[[replace(_published(), remark=PUBLISHED_REMARK)]],
        ),
    ]
    return html.render_page(
        dataset, sections, kind="citeflow scaling sweep", headline=headline(rows)
    )


def headline(rows: Sequence[Row]) -> str:
    """What more workers bring in the longest training, in one sentence."""
    first, *others = [row for row in rows if row.epochs == rows[-1].epochs]
    if not others:
        return f"{formatting.plural(first.workers, 'worker')}: {formatting.duration(first.seconds)}; there is nothing to compare."
    best = max(others, key=lambda row: row.speed_up)
    gain = f"{best.speed_up:.2f} × as fast as {first.workers}"  # noqa: RUF001
    length = "1 epoch" if best.epochs == 1 else f"{best.epochs:g} epochs"
    return (
        f"{best.workers} workers are {gain} at {length}: {100 * best.efficiency:.0f} % efficiency."
    )


def _remarks(rows: Sequence[Row], cores: int | None) -> list[str]:
    shared_cores = (
        []
        if cores is None
        else [f"They share {formatting.plural(cores, 'core')}: one worker uses all of them."]
    )
    over = (
        [f"{MARK.strip()} More workers than cores."]
        if any(row.more_workers_than_cores for row in rows)
        else []
    )
    return [HOW, *shared_cores, *over]


def _published() -> Table:
    full = _table("Published: 2, 4 and 6 workers", PUBLISHED)
    kept = [0, 1, 2, 3, 4, 6]
    return Table(
        title=full.title,
        header=tuple(HEADER[column] for column in kept),
        rows=[tuple(row[column] for column in kept) for row in full.rows],
    )


def _table(title: str, rows: Sequence[Row]) -> Table:
    return Table(title=title, header=HEADER, rows=[_cells(row) for row in rows])


def _cells(row: Row) -> tuple[str, ...]:
    return (
        f"{row.workers}{MARK if row.more_workers_than_cores else ''}",
        f"{row.epochs:g}",
        formatting.duration(row.seconds),
        f"{row.speed_up:.2f}",
        f"{100 * row.efficiency:.0f} %",
        formatting.count(row.positives_per_s),
        formatting.score(row.accuracy),
        formatting.score(row.mrr),
        formatting.MISSING if row.cpu_cores is None else f"{row.cpu_cores:.2f}",
        formatting.memory(row.peak_memory_bytes),
    )


def _figure(
    title: str, caption: str, draw: Callable[[Axes, Sequence[Row]], None], rows: Sequence[Row]
) -> Plot:
    def fill(axes: Axes) -> None:
        draw(axes, rows)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        plots.legend_below(axes)

    return plots.draw_axes(
        title.lower().replace(" ", "-"),
        fill,
        title=title,
        caption=caption,
        summary=f"{title} by workers",
    )


def _by_epochs(rows: Sequence[Row]) -> list[tuple[str, list[Row], dict[str, Any]]]:
    """A label, the rows and the look of each curve."""
    lengths = sorted({row.epochs for row in rows})
    return [
        (
            formatting.plural(int(length), "epoch")
            if length.is_integer()
            else f"{length:g} epochs",
            [row for row in rows if row.epochs == length],
            {"color": COLOURS[LOOKS[index % len(LOOKS)]], "marker": MARKERS[index % len(MARKERS)]},
        )
        for index, length in enumerate(map(float, lengths))
    ]


def _time(axes: Axes, rows: Sequence[Row]) -> None:
    length, unit = plots.time_unit(max(row.seconds for row in rows))
    for label, found, look in _by_epochs(rows):
        axes.plot(
            [row.workers for row in found],
            [row.seconds / length for row in found],
            label=label,
            **look,
        )
    axes.set(xlabel="Workers", ylabel=f"Training time ({unit})")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])


def _speed_up(axes: Axes, rows: Sequence[Row]) -> None:
    for label, found, look in _by_epochs(rows):
        axes.plot(*_growth(found), label=label, **look)
    for label, found, look in _by_epochs(PUBLISHED):
        grey = {**look, "color": COLOURS["grey"], "dashes": (4, 3), "linewidth": 1.2}
        axes.plot(*_growth(found), label=f"published, {label}", **grey)
    most = max(3.0, *_growth(rows)[0])
    axes.plot([1, most], [1, most], color=COLOURS["faint"], linewidth=1.4, label="ideal")
    axes.set(xlabel="Times as many workers", ylabel="Times as fast")


def _growth(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """How many times as many workers as the fewest, and the speed-up."""
    fewest = min(row.workers for row in rows)
    return [row.workers / fewest for row in rows], [row.speed_up for row in rows]


def _throughput(axes: Axes, rows: Sequence[Row]) -> None:
    for label, found, look in _by_epochs(rows):
        axes.plot(
            [row.workers for row in found],
            [row.positives_per_s or 0 for row in found],
            label=label,
            **look,
        )
    axes.set(xlabel="Workers", ylabel="Citations per second")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter(FuncFormatter(plots.short))


def _mrr(axes: Axes, rows: Sequence[Row]) -> None:
    for label, found, look in _by_epochs(rows):
        axes.plot(
            [row.workers for row in found], [row.mrr or 0 for row in found], label=label, **look
        )
    axes.set(xlabel="Workers", ylabel="Test MRR")
