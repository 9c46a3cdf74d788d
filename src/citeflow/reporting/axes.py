"""What several figures do with their data and their axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from citeflow.reporting.drawing import COLOURS

Records = Sequence[Mapping[str, Any]]
FEW_POINTS = 20
MOST_POINTS = 400
MOST_LABELLED = 8
RANK_LOOKS = [
    ("blue", ()),
    ("vermillion", (5, 1.5)),
    ("green", (3, 1.5)),
    ("purple", (1.2, 1.6)),
    ("orange", (6, 1.5, 1.2, 1.5)),
    ("grey", (2, 2)),
]
"""Colour and dashes of each rank's curve; more ranks than these are drawn alike."""


def columns(records: Records | None, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Two fields of a list of records, without those where either is missing or not finite."""
    pairs = [(record.get(x), record.get(y)) for record in records or []]
    values = np.array([pair for pair in pairs if None not in pair], dtype=np.float64).reshape(-1, 2)
    values = values[np.isfinite(values).all(axis=1)]
    return values[:, 0], values[:, 1]


def time_line(axes: Axes, seconds: np.ndarray, value: np.ndarray, **look: Any) -> None:
    """A curve over the time since training began, in the unit that suits its length."""
    length, unit = time_unit(float(seconds.max()))
    axes.plot(seconds / length, value, **{"color": COLOURS["blue"], "markersize": 4.5, **look})
    axes.set_xlabel(f"Training time ({unit})")
    axes.xaxis.set_major_locator(MaxNLocator(6))


def noisy_line(axes: Axes, seconds: np.ndarray, value: np.ndarray) -> None:
    """A pale curve of the values with a dark one of their running mean, or points where they are few."""
    if len(value) < FEW_POINTS:
        return time_line(axes, seconds, value, marker="o")
    x, y = thin(seconds), thin(value)
    window = max(5, len(y) // 20)
    time_line(axes, x, y, color=COLOURS["sky"], linewidth=1.0)
    time_line(axes, x, running_mean(y, window))
    return None


def lines_by_rank(axes: Axes, lines: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
    """A curve for each rank over the time since the workers began; where they are many, all pale under their mean."""
    length, unit = time_unit(max(float(seconds.max()) for seconds, _ in lines.values()))
    few = len(lines) <= len(RANK_LOOKS)
    for place, (rank, (seconds, value)) in enumerate(sorted(lines.items())):
        colour, dashes = RANK_LOOKS[place % len(RANK_LOOKS)]
        look: dict[str, Any] = {"color": COLOURS[colour], "dashes": dashes, "label": f"Rank {rank}"}
        look = look if few else {"color": COLOURS["sky"], "linewidth": 0.8}
        axes.plot(
            seconds / length,
            value,
            marker="o" if len(value) < FEW_POINTS else "",
            markersize=4.5,
            **look,
        )
    if not few:
        longest = max((seconds for seconds, _ in lines.values()), key=len)
        mean = np.mean(
            [np.interp(longest, seconds, value) for seconds, value in lines.values()], axis=0
        )
        axes.plot(
            longest / length, mean, color=COLOURS["blue"], label=f"Mean of {len(lines)} ranks"
        )
    axes.set_xlabel(f"Time since the workers began ({unit})")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    legend_below(axes)


def time_unit(longest_s: float) -> tuple[float, str]:
    """Seconds in the unit that suits a time, and its name."""
    if longest_s < 180:
        return 1.0, "s"
    return (60.0, "min") if longest_s < 3 * 3600 else (3600.0, "h")


def thin(value: np.ndarray) -> np.ndarray:
    """Means of neighbours, so that no more than MOST_POINTS are left."""
    if len(value) <= MOST_POINTS:
        return value
    return np.array([part.mean() for part in np.array_split(value, MOST_POINTS)])


def running_mean(value: np.ndarray, window: int) -> np.ndarray:
    """Mean over a centred window that is cut at both ends."""
    weight = np.ones(window)
    return np.convolve(value, weight, mode="same") / np.convolve(
        np.ones_like(value), weight, mode="same"
    )


def tail(counts: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """From the number of papers of each degree to the share of papers of at least that degree, degree 0 left out."""
    table = np.array(sorted(map(tuple, counts)), dtype=np.float64).reshape(-1, 2)
    total = table[:, 1].sum()
    if not total:
        return np.empty(0), np.empty(0)
    share = np.cumsum(table[::-1, 1])[::-1] / total
    shown = (table[:, 0] > 0) & (share > 0)
    return table[shown, 0], share[shown]


def log_axes(axes: Axes) -> None:
    """Logarithmic in both directions, with ticks in plain digits and room for at least one decade."""
    axes.set(xscale="log", yscale="log")
    axes.set_xlim(0.85, max(10.0, axes.get_xlim()[1]))
    axes.set_ylim(min(0.1, axes.get_ylim()[0]), 1.25)
    for axis, form in ((axes.xaxis, short), (axes.yaxis, tiny_percent)):
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_major_formatter(FuncFormatter(form))
        axis.set_minor_formatter(NullFormatter())


def count_bars(axes: Axes, year: list[int], num: list[int]) -> None:
    """Number of citations of each year, written above the bars where they are few."""
    bars = axes.bar(year, num, color=COLOURS["sky"], width=0.7)
    if len(year) <= MOST_LABELLED:
        axes.bar_label(bars, [f"{value:,}" for value in num], padding=1, fontsize=9)
    axes.set(xlabel="Year", ylabel="Citations", ylim=(0, 1.45 * max(*num, 1)))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.grid(visible=False, axis="x")


def legend_below(axes: Axes) -> None:
    """A legend under the axes, where it can hide no curve."""
    axes.figure.legend(loc="outside lower center", ncols=2, columnspacing=1.6, handlelength=2.6)


def rank_names(uppers: Sequence[float]) -> list[str]:
    """Names of bins that end with these ranks: 1, 2-3, 4-10, above 10."""
    lowers = [1.0, *(upper + 1 for upper in uppers[:-1])]
    names = [
        f"{upper:.0f}" if lower >= upper else f"{lower:.0f}–{upper:.0f}"  # noqa: RUF001
        for lower, upper in zip(lowers, uppers, strict=True)
    ]
    return names if len(names) < 2 else [*names[:-1], f">{uppers[-2]:.0f}"]


def percent(share: float) -> str:
    """A share as a label, with a digit more where it is small."""
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


def tiny_percent(share: float, _: object = None) -> str:
    """A share that is a power of ten, as a tick."""
    return f"{100 * share:g} %"


def short(value: float, _: object = None) -> str:
    """A number as a tick: 20k, 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
