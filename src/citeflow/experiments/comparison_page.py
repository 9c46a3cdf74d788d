"""The result of a comparison as Markdown and as a page with plots."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from citeflow.experiments.comparison import WINNER, Standing, headline
from citeflow.reporting import formatting, html, markdown, plots
from citeflow.reporting.html import Section
from citeflow.reporting.plots import COLOURS, HEIGHT, Plot
from citeflow.reporting.tables import Table

LOOKS = ("blue", "vermillion", "green", "purple", "orange", "grey")
POINTS = 200
LONGEST = 22
"""Characters of a name in a figure; the table has all of them."""

UNBROKEN, MINUS = "\u00a0", "\u2212"
"""A space that no line is broken at, and a true minus sign."""

HEADER = (
    "Model",
    "Seeds",
    "Validation MRR",
    "Test MRR",
    "Accuracy",
    "Time",
    "Behind",
    "95 % interval",
    "Difference",
)
HOW = (
    "Mean ± standard deviation over the seeds. The winner has the highest mean validation MRR; behind it are the "
    "others, by their test MRR. The interval of the difference is Welch's. A difference is more than noise where "
    "Welch's test, corrected by Holm for the number of models, says so at 5 %. Seeds vary weights and batches, not "
    "the split of the data."
)


def summary(dataset: str, ranked: Sequence[Standing]) -> str:
    """The table as Markdown."""
    title = f"# Models on {markdown.escape(dataset)}\n\n{markdown.escape(headline(ranked))}\n"
    return "\n".join([title, markdown.render(_table(ranked)), f"{HOW}\n"])


def draw_page(dataset: str, ranked: Sequence[Standing]) -> str:
    """Table and plots as a page of its own.

    Args:
        dataset: its name.
        ranked: as `comparison.standings` gives them.
    """
    is_known = all(curve for each in ranked for curve in each.curves)
    curves = [_curves(ranked, "epoch"), _curves(ranked, "seconds")] if is_known else []
    sections = [
        Section(rows=[[replace(_table(ranked), remark=HOW)]]),
        Section(title="Figures", rows=[[_bars(ranked), *curves]]),
    ]
    return html.render_page(
        dataset, sections, kind="citeflow model comparison", headline=headline(ranked)
    )


def _table(ranked: Sequence[Standing]) -> Table:
    return Table(title="Models, best first", header=HEADER, rows=[_cells(each) for each in ranked])


def _cells(each: Standing) -> tuple[str, ...]:
    """A row of the table; what belongs together stays on one line."""
    interval = (
        formatting.MISSING
        if each.interval is None
        else " … ".join(f"{end:+.3f}" for end in each.interval)
    )
    figures = (
        str(len(each.seeds)),
        _spread(each.valid_mrr),
        _spread(each.test_mrr),
        _spread(each.accuracy),
        formatting.duration(mean(each.seconds)),
        formatting.MISSING if each.verdict == WINNER else f"{each.behind:+.3f}",
        interval,
    )
    return (
        each.name,
        *(figure.replace(" ", UNBROKEN).replace("-", MINUS) for figure in figures),
        each.verdict,
    )


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _bars(ranked: Sequence[Standing]) -> Plot:
    def draw(axes: Axes) -> None:
        for row, (each, colour) in enumerate(
            zip(reversed(ranked), reversed(_colours(ranked)), strict=True)
        ):
            deviation = stdev(each.test_mrr) if len(each.test_mrr) > 1 else 0.0
            look: dict[str, Any] = {"color": colour, "alpha": 0.35, "height": 0.6}
            axes.barh(
                row, mean(each.test_mrr), xerr=deviation, ecolor=COLOURS["ink"], capsize=4, **look
            )
            axes.plot(each.test_mrr, [row] * len(each.test_mrr), "o", color=colour, markersize=4.5)
        axes.set_yticks(range(len(ranked)), [_short(each.name) for each in reversed(ranked)])
        axes.set(xlabel="MRR on the test citations", xlim=(0, None))
        axes.tick_params("y", length=0, labelcolor=COLOURS["ink"])
        axes.grid(visible=False, axis="y")

    return plots.draw_axes(
        "models",
        draw,
        title="Test MRR",
        caption="A point for each seed; the bar is their mean, the line their deviation.",
        summary="Test MRR of each model",
        height=max(HEIGHT, 0.9 + 0.5 * len(ranked)),
    )


def _curves(ranked: Sequence[Standing], along: str) -> Plot:
    """Validation MRR of all models over epochs or over time."""
    longest = max(record["seconds"] for each in ranked for curve in each.curves for record in curve)
    length, unit = plots.time_unit(longest) if along == "seconds" else (1.0, "")
    label = f"Training time ({unit})" if along == "seconds" else "Epoch"

    def draw(axes: Axes) -> None:
        for each, colour in zip(ranked, _colours(ranked), strict=True):
            x, mrr_SX = _common(each, along)
            middle, spread = (
                mrr_SX.mean(0),
                mrr_SX.std(0, ddof=1) if len(mrr_SX) > 1 else 0 * mrr_SX[0],
            )
            axes.fill_between(
                x / length, middle - spread, middle + spread, color=colour, alpha=0.18, linewidth=0
            )
            look: dict[str, Any] = (
                {"marker": "o"} if x[0] == x[-1] else {"dashes": _dashes(ranked.index(each))}
            )
            axes.plot(x / length, middle, color=colour, label=_short(each.name), **look)
        axes.set(xlabel=label, ylabel="Validation MRR", xlim=(0, None))
        plots.legend_below(axes)

    return plots.draw_axes(
        f"by-{along}",
        draw,
        title="Validation MRR over time" if along == "seconds" else "Validation MRR over epochs",
        caption="Mean over the seeds, and one standard deviation to each side.",
        summary=f"Validation MRR of all models over {label}",
        height=HEIGHT + 0.4,
    )


def _common(each: Standing, along: str) -> tuple[np.ndarray, np.ndarray]:
    """The part that the curves of all seeds have in common, and their values there, `[seeds, POINTS]`."""
    curves = [plots.columns(curve, along, "valid_mrr") for curve in each.curves]
    first, last = max(at[0] for at, _ in curves), min(at[-1] for at, _ in curves)
    x = np.linspace(first, max(first, last), POINTS)
    return x, np.array([np.interp(x, at, mrr) for at, mrr in curves])


def _short(name: str) -> str:
    """A name that leaves room for what it names."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _dashes(index: int) -> tuple[float, ...]:
    """Lines that have the same colour differ in them."""
    return ((), (5, 2), (1.5, 1.5))[index // len(LOOKS) % 3]


def _colours(ranked: Sequence[Standing]) -> list[str]:
    return [COLOURS[LOOKS[index % len(LOOKS)]] for index in range(len(ranked))]
