"""Draw plots as SVG, for the pages of runs and of experiments.

A drawing is the same each time for the same data, whatever the user's matplotlibrc says. Its
colours are CSS variables, so that it turns dark with the page.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from citeflow.reporting import formatting

COLOURS = {
    "ink": "#1f2933",
    "muted": "#52606d",
    "faint": "#d9dfe5",
    "card": "#ffffff",
    "blue": "#0072b2",
    "sky": "#9cc9e6",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "purple": "#b0508a",
    "orange": "#b97a00",
    "grey": "#8a97a3",
}
"""The light theme of `templates/report.css`, which has a variable of each name: Okabe and Ito's
palette, told apart with any colour vision, the light ones darkened for a white ground."""

STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10.5,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "citeflow",
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["grey"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": COLOURS["faint"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOURS["grey"],
    "ytick.color": COLOURS["grey"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "legend.frameon": False,
    "legend.fontsize": 9.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
}

WIDTH, HEIGHT = 5.0, 3.3
"""Inches; at this width a letter can still be read where the page is as narrow as a telephone."""

SERIES_STYLES: list[tuple[str, tuple[float, ...]]] = [
    ("blue", ()),
    ("vermillion", (5, 1.5)),
    ("green", (3, 1.5)),
    ("purple", (1.2, 1.6)),
    ("orange", (6, 1.5, 1.2, 1.5)),
    ("grey", (2, 2)),
]
"""Colour and dashes of each of a few curves, which differ in grey too."""

Look = dict[str, Any]
"""Properties of a line, as matplotlib's `plot` takes them."""

MIN_POINTS_OF_CURVE = 20
"""Fewer points are marked one by one."""
MAX_POINTS_OF_CURVE = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A drawing with its title and caption, or the reason why there is none."""

    title: str
    caption: str
    """How to read it, or why it is not drawn."""

    svg: str = ""
    """An `<svg>` element; empty where the run has no data for it."""


def draw(
    name: str,
    fill: Callable[[Figure], None],
    *,
    title: str,
    caption: str,
    summary: str = "",
    height: float = HEIGHT,
) -> Plot:
    """Draw into a new figure.

    Args:
        name: prefix of every id, so that many drawings can share a page.
        fill: puts the content into the figure.
        title: heading of the plot.
        caption: how to read it.
        summary: what it shows, for readers who cannot see it.
        height: inches.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        fill(figure)
        return embed(figure, name, title=title, caption=caption, summary=summary)


def embed(figure: Figure, name: str, *, title: str, caption: str, summary: str = "") -> Plot:
    """Make a drawn figure a plot that can stand beside others in a themed page.

    The arguments are those of `draw`; the style of a page is in `STYLE`.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=no_metadata)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") :].strip()
    for reference in (' id="', "url(#", 'href="#'):
        svg = svg.replace(reference, f"{reference}{name}-")
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    label = escape(f"{title}. {summary}" if summary else title)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return Plot(title=title, caption=caption, svg=svg)


def draw_axes(
    name: str,
    fill: Callable[[Axes], None],
    *,
    title: str,
    caption: str,
    summary: str = "",
    height: float = HEIGHT,
) -> Plot:
    """Draw into the only axes of a new figure; the arguments are those of `draw`."""
    return draw(
        name,
        lambda figure: fill(figure.subplots()),
        title=title,
        caption=caption,
        summary=summary,
        height=height,
    )


def columns(
    records: Sequence[Mapping[str, float]], x: str, y: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return two fields of records as arrays, without those where either is missing or infinite."""
    return finite([(record.get(x), record.get(y)) for record in records])


def finite(
    pairs: Sequence[tuple[float | None, float | None]],
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs as two arrays, without those where either is missing or infinite."""
    known = [pair for pair in pairs if None not in pair]
    values = np.array(known, dtype=np.float64).reshape(-1, 2)
    values = values[np.isfinite(values).all(axis=1)]
    return values[:, 0], values[:, 1]


def time_line(
    axes: Axes,
    seconds: np.ndarray,
    value: np.ndarray,
    *,
    colour: str = "blue",
    linewidth: float = 1.8,
    marker: str = "",
    label: str | None = None,
) -> None:
    """Plot a curve over the training time, in the unit that suits its length."""
    scale, unit = time_unit(float(seconds.max()))
    (line,) = axes.plot(seconds / scale, value, label=label, color=COLOURS[colour])
    line.set(linewidth=linewidth, marker=marker, markersize=4.5)
    axes.set_xlabel(f"Training time ({unit})")
    axes.xaxis.set_major_locator(MaxNLocator(6))


def noisy_line(axes: Axes, seconds: np.ndarray, value: np.ndarray) -> None:
    """Plot a pale curve with its dark running mean, or points where they are few."""
    if len(value) < MIN_POINTS_OF_CURVE:
        time_line(axes, seconds, value, marker="o")
        return
    x = thin(seconds)
    y = thin(value)
    time_line(axes, x, y, colour="sky", linewidth=1.0)
    time_line(axes, x, running_mean(y, max(5, len(y) // 20)))


def lines_by_rank(axes: Axes, lines: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
    """Plot a curve for each rank over the time since the workers started.

    Where there are more ranks than `SERIES_STYLES`, all are pale, under their mean.
    """
    longest = max((seconds for seconds, _ in lines.values()), key=lambda each: float(each.max()))
    scale, unit = time_unit(float(longest.max()))
    are_few = len(lines) <= len(SERIES_STYLES)
    for index, (rank, (seconds, value)) in enumerate(sorted(lines.items())):
        colour, dashes = SERIES_STYLES[index % len(SERIES_STYLES)]
        marker = "o" if len(value) < MIN_POINTS_OF_CURVE else ""
        (line,) = axes.plot(seconds / scale, value, marker=marker, markersize=4.5)
        if are_few:
            line.set(color=COLOURS[colour], dashes=dashes, label=f"Rank {rank}")
        else:
            line.set(color=COLOURS["sky"], linewidth=0.8)
    if not are_few:
        values = [np.interp(longest, seconds, value) for seconds, value in lines.values()]
        label = f"Mean of {len(lines)} ranks"
        axes.plot(longest / scale, np.mean(values, axis=0), color=COLOURS["blue"], label=label)
    axes.set_xlabel(f"Time since the workers began ({unit})")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    legend_below(axes)


def legend_below(axes: Axes) -> None:
    """Put the legend under the axes, where it can hide no curve."""
    axes.figure.legend(loc="outside lower center", ncols=2, columnspacing=1.6, handlelength=2.6)


def time_unit(longest_s: float) -> tuple[float, str]:
    """Return the unit that suits a time axis: its length in seconds, and its name."""
    if longest_s < 180:
        return 1.0, "s"
    return (60.0, "min") if longest_s < 3 * 3600 else (3600.0, "h")


def thin(value: np.ndarray) -> np.ndarray:
    """Average neighbouring values, so that at most MAX_POINTS_OF_CURVE are left."""
    if len(value) <= MAX_POINTS_OF_CURVE:
        return value
    return np.array([part.mean() for part in np.array_split(value, MAX_POINTS_OF_CURVE)])


def running_mean(value: np.ndarray, window: int) -> np.ndarray:
    """Average over a centred window that is cut at both ends."""
    weight = np.ones(window)
    num = np.convolve(np.ones_like(value), weight, mode="same")
    return np.convolve(value, weight, mode="same") / num


def short(value: float, _: object = None) -> str:
    """Format a number as a tick: 20k, 1.5M."""
    return formatting.scaled(value)
