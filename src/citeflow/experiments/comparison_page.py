"""The result of a comparison as Markdown and as a page with plots."""

from collections.abc import Sequence
from html import escape
from statistics import mean, stdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from citeflow.experiments.comparison import WINNER, Standing, headline
from citeflow.reporting import axes as shared
from citeflow.reporting import formatting, markdown, page
from citeflow.reporting.drawing import COLOURS, HEIGHT, one, render
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
    body = [
        f'<p class="eyebrow">citeflow model comparison</p>\n<h1>{escape(dataset)}</h1>',
        f'<p class="headline">{escape(headline(ranked))}</p>',
        page.card(_table(ranked), remark=HOW),
        page.section("Figures", page.grid([_bars(ranked), *curves], "even")),
        "<footer>Made by citeflow. Everything on this page is in the file itself.</footer>",
    ]
    return page.document(f"{escape(dataset)} · models · citeflow", "\n".join(body))


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


def _bars(ranked: Sequence[Standing]) -> str:
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

    svg = render(
        "models", "Test MRR of each model", one(draw), height=max(HEIGHT, 0.9 + 0.5 * len(ranked))
    )
    return page.figure(
        "Test MRR", svg, "A point for each seed; the bar is their mean, the line their deviation."
    )


def _curves(ranked: Sequence[Standing], along: str) -> str:
    """Validation MRR of all models over epochs or over time."""
    longest = max(record["seconds"] for each in ranked for curve in each.curves for record in curve)
    length, unit = shared.time_unit(longest) if along == "seconds" else (1.0, "")
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
        shared.legend_below(axes)

    svg = render(
        f"by-{along}", f"Validation MRR of all models over {label}", one(draw), height=HEIGHT + 0.4
    )
    title = "Validation MRR over time" if along == "seconds" else "Validation MRR over epochs"
    return page.figure(title, svg, "Mean over the seeds, and one standard deviation to each side.")


def _common(each: Standing, along: str) -> tuple[np.ndarray, np.ndarray]:
    """The part that the curves of all seeds have in common, and their values there, `[seeds, POINTS]`."""
    curves = [shared.columns(curve, along, "valid_mrr") for curve in each.curves]
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
