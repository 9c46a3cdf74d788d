"""The result of a comparison as Markdown and as a page with plots."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from citeflow.experiments.significance import Standing, Verdict, headline
from citeflow.reporting import formatting, markdown, plots
from citeflow.reporting.html import Section, render_page
from citeflow.reporting.plots import COLOURS, HEIGHT, Plot
from citeflow.reporting.tables import Table

LOOKS = ("blue", "vermillion", "green", "purple", "orange", "grey")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5))
"""Tell curves of the same colour apart."""

POINTS = 200
"""Of the axis that the curves of all seeds are interpolated at."""

MAX_LABEL = 22
"""Characters of a name in a figure; the table has all of them."""

NO_BREAK = "\u00a0"
MINUS = "\u2212"
HEADER = (
    "Model",
    "Seeds",
    "Validation {metric}",
    "{test}",
    "{second}",
    "Time",
    "Behind",
    "95 % interval",
    "Difference",
)
REMARK = (
    "Mean ± standard deviation over the seeds. The winner has the highest mean validation "
    "{metric}; behind it are the others, by their test {metric}. The interval of the difference "
    "is Welch's. A difference is more than noise where Welch's test, corrected by Holm for the "
    "number of models, says so at 5 %. Seeds vary weights and batches, not the split of the data."
)


def render_markdown(dataset: str, ranked: Sequence[Standing]) -> str:
    """Render the table as Markdown."""
    title = f"# Models on {markdown.escape(dataset)}\n\n{markdown.escape(headline(ranked))}\n"
    return "\n".join([title, markdown.render(_table(ranked)), f"{_remark(ranked)}\n"])


def render_html(dataset: str, ranked: Sequence[Standing]) -> str:
    """Render the table and the plots as a page.

    Args:
        dataset: name of the dataset.
        ranked: result of `significance.rank_models`.
    """
    figures = [_draw_bars(ranked)]
    if all(curve for each in ranked for curve in each.curves):
        figures += [_draw_curves(ranked, "epoch"), _draw_curves(ranked, "seconds")]
    sections = [Section(rows=[[_table(ranked)]]), Section(title="Figures", rows=[figures])]
    return render_page(
        dataset, sections, kind="citeflow model comparison", headline=headline(ranked)
    )


def _table(ranked: Sequence[Standing]) -> Table:
    rows = [_row(standing) for standing in ranked]
    metric, second = ranked[0].metric, ranked[0].second_label
    labels = {"metric": metric, "test": _test_label(ranked), "second": second}
    header = tuple(name.format(**labels) for name in HEADER)
    return Table(title="Models, best first", header=header, rows=rows, remark=_remark(ranked))


def _test_label(ranked: Sequence[Standing]) -> str:
    return formatting.test_label(ranked[0].metric, ranked[0].protocol)


def _remark(ranked: Sequence[Standing]) -> str:
    return REMARK.format(metric=ranked[0].metric)


def _row(standing: Standing) -> tuple[str, ...]:
    behind = interval = formatting.MISSING
    if standing.verdict is not Verdict.WINNER:
        behind = f"{standing.behind:+.3f}"
    if standing.interval is not None:
        interval = " … ".join(f"{end:+.3f}" for end in standing.interval)
    figures = (
        str(len(standing.seeds)),
        _mean_and_deviation(standing.valid),
        _mean_and_deviation(standing.test),
        _mean_and_deviation(standing.second),
        formatting.duration(mean(standing.seconds)),
        behind,
        interval,
    )
    # A figure that is broken into two lines reads as two figures.
    cells = [figure.replace(" ", NO_BREAK).replace("-", MINUS) for figure in figures]
    return (standing.name, *cells, standing.verdict)


def _mean_and_deviation(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _draw_bars(ranked: Sequence[Standing]) -> Plot:
    def draw(axes: Axes) -> None:
        for row, standing in enumerate(ranked):
            colour = COLOURS[LOOKS[row % len(LOOKS)]]
            scores = standing.test
            deviation = stdev(scores) if len(scores) > 1 else 0.0
            look: dict[str, Any] = {"color": colour, "alpha": 0.35, "height": 0.6}
            axes.barh(row, mean(scores), xerr=deviation, ecolor=COLOURS["ink"], capsize=4, **look)
            axes.plot(scores, [row] * len(scores), "o", color=colour, markersize=4.5)
        axes.set_yticks(range(len(ranked)), [_label(standing) for standing in ranked])
        axes.invert_yaxis()
        axes.set(xlabel=_test_label(ranked), xlim=(0, None))
        axes.tick_params("y", length=0, labelcolor=COLOURS["ink"])
        axes.grid(visible=False, axis="y")

    return plots.draw_axes(
        "models",
        draw,
        title=_test_label(ranked),
        caption="A point for each seed; the bar is their mean, the line their standard deviation.",
        summary="Of each model",
        height=max(HEIGHT, 0.9 + 0.5 * len(ranked)),
    )


def _draw_curves(ranked: Sequence[Standing], along: str) -> Plot:
    """Draw the validation score of all models over epochs or seconds."""
    length, label, over = 1.0, "Epoch", "epochs"
    if along == "seconds":
        longest = max(
            each["seconds"] for model in ranked for curve in model.curves for each in curve
        )
        length, unit = plots.time_unit(longest)
        label, over = f"Training time ({unit})", "time"

    def draw(axes: Axes) -> None:
        for index, standing in enumerate(ranked):
            x, mrr_SX = _interpolate(standing, along)
            center = mrr_SX.mean(0)
            deviation = mrr_SX.std(0, ddof=1) if len(mrr_SX) > 1 else np.zeros_like(center)
            colour = COLOURS[LOOKS[index % len(LOOKS)]]
            look: dict[str, Any] = {"dashes": DASHES[index // len(LOOKS) % len(DASHES)]}
            if x[0] == x[-1]:  # one validation: a line would be invisible
                look = {"marker": "o"}
            low, high = center - deviation, center + deviation
            axes.fill_between(x / length, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(x / length, center, color=colour, label=_label(standing), **look)
        axes.set(xlabel=label, ylabel=f"Validation {ranked[0].metric}", xlim=(0, None))
        plots.legend_below(axes)

    return plots.draw_axes(
        f"by-{along}",
        draw,
        title=f"Validation {ranked[0].metric} over {over}",
        caption="Mean over the seeds, and one standard deviation to each side.",
        summary="Of all models",
        height=HEIGHT + 0.4,
    )


def _interpolate(standing: Standing, along: str) -> tuple[np.ndarray, np.ndarray]:
    """Return an axis that the curves of all seeds cover, and their values `[seeds, POINTS]`."""
    curves = [
        np.array([(record[along], record[standing.names[0]]) for record in curve]).T
        for curve in standing.curves
    ]
    first = max(at[0] for at, _ in curves)
    last = min(at[-1] for at, _ in curves)
    x = np.linspace(first, max(first, last), POINTS)
    return x, np.array([np.interp(x, at, mrr) for at, mrr in curves])


def _label(standing: Standing) -> str:
    name = standing.name
    return name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…"
