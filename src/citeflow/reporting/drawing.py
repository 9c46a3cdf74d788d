"""Turns a matplotlib figure into an SVG that is the same each time and that a page can colour."""

import io
import re
from collections.abc import Callable
from html import escape

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
"""Okabe and Ito's palette, told apart by people with any colour vision, the light ones darkened for a white ground.
Each value occurs once, so that a page can put a variable in its place."""

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


def render(name: str, label: str, draw: Callable[[Figure], None], *, height: float = HEIGHT) -> str:
    """Draw into a fresh figure and give it back as an `<svg>` element.

    Args:
        name: goes before every id, so that many drawings can share a page.
        label: what a reader hears who cannot see it.
        draw: puts the content into the figure.
        height: inches.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return _tidy(buffer.getvalue(), name, label)


def one(draw: Callable[[Axes], None]) -> Callable[[Figure], None]:
    """Make a drawing with a single pair of axes out of what fills them."""
    return lambda figure: draw(figure.subplots())


def _tidy(svg: str, name: str, label: str) -> str:
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    svg = re.sub(r"font(?:-family)?: [^;\"]*'DejaVu Sans'[^;\"]*", _plain_font, svg)
    title = f' role="img" aria-label="{escape(label)}">'
    return svg.replace(">", title, 1)


def _plain_font(match: re.Match[str]) -> str:
    size = re.search(r"[\d.]+px", match.group())
    family = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
    return f"font: {size.group()} {family}" if size else f"font-family: {family}"
