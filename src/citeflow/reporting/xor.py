"""The pages of the XOR pipeline: the points of the plane, and a model without a hidden layer beside one with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from citeflow.reporting import html, plots
from citeflow.reporting.html import Section
from citeflow.reporting.plots import COLOURS
from citeflow.reporting.tables import Table

Json = dict[str, Any]

LOOKS = {0: ("vermillion", "s"), 1: ("blue", "o")}
"""Colour and marker of a label; together they can be told apart in grey too."""

MODEL_COLOURS = ("vermillion", "blue")
LOSS = (
    "Cross-entropy in bits per point: 1 is a guess, or worse, and 0 is certainty. Lower is better."
)
ACCURACY = "Share of the points that get their label: 0.5 is a guess. Higher is better."


def render_points(x_N2: np.ndarray, label_N: np.ndarray, *, total: int) -> str:
    """Points of the plane, coloured by their label, as a page of its own.

    Args:
        x_N2: points to draw.
        label_N: their labels, 0 or 1.
        total: how many points there are.
    """
    label = "Points of the unit square, coloured by the XOR of their rounded coordinates"
    shown = (
        f"The first {len(x_N2):,} of {total:,} training points."
        if len(x_N2) < total
        else "All training points."
    )
    caption = f"{shown} A point's label is the XOR of its rounded coordinates, so opposite quarters share one."
    plot = plots.draw_axes(
        "points",
        lambda axes: _points(axes, x_N2, label_N),
        title="Training points",
        caption=caption,
        summary=label,
        height=5.2,
    )
    headline = "No straight line has all 0 on one side and all 1 on the other."
    return _document("The points", headline, [Section(rows=[[plot]])])


def render_comparison(found: Json) -> str:
    """Loss and accuracy of both models on common axes, and their last figures, as a page of its own.

    Args:
        found: content of xor.json.
    """
    accuracy = plots.draw_axes(
        "accuracy",
        lambda axes: _curves(axes, found, "accuracy", "share"),
        title="Accuracy",
        caption=ACCURACY,
    )
    loss = plots.draw_axes(
        "loss", lambda axes: _curves(axes, found, "loss", "bits"), title="Loss", caption=LOSS
    )
    sections = [
        Section(rows=[[accuracy, loss]]),
        Section(title="Results", rows=[[table(found)]]),
        Section(title="Settings", rows=[[settings(found)]]),
    ]
    return _document("XOR", found["verdict"], sections)


def table(found: Json) -> Table:
    """The figures of both models after the last epoch."""
    header = (
        "Model",
        "Parameters",
        "Train accuracy",
        "Test accuracy",
        "Train loss (bits)",
        "Test loss (bits)",
    )
    return Table(
        title="After the last epoch",
        header=header,
        rows=[_row(*each) for each in found["models"].items()],
    )


def settings(found: Json) -> Table:
    """What both models share."""
    labels = {
        "dims": "Dimensions",
        "train_points": "Training points",
        "test_points": "Test points",
        "epochs": "Epochs",
        "hidden": "Units of the hidden layer",
        "lr": "Learning rate of Adam",
        "seed": "Seed",
    }
    rows = [(label, f"{found['settings'][name]:,}") for name, label in labels.items()]
    return Table(title="The same for both", header=("Setting", "Value"), rows=rows)


def _row(name: str, model: Json) -> tuple[str, ...]:
    figures = [
        f"{model[part][what][-1]:.3f}"
        for what in ("accuracy", "loss")
        for part in ("train", "test")
    ]
    return (name, f"{model['parameters']:,}", *figures)


def _document(title: str, headline: str, sections: Sequence[Section]) -> str:
    return html.render_page(title, sections, kind="citeflow xor", headline=headline)


def _points(axes: Axes, x_N2: np.ndarray, label_N: np.ndarray) -> None:
    for label, (colour, marker) in LOOKS.items():
        chosen = x_N2[label_N == label]
        look: Json = {
            "s": 8,
            "color": COLOURS[colour],
            "marker": marker,
            "linewidths": 0,
            "alpha": 0.8,
        }
        axes.scatter(chosen[:, 0], chosen[:, 1], label=f"label {label}", **look)
    axes.set(
        xlabel="first coordinate",
        ylabel="second coordinate",
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
    )
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, markerscale=2)


def _curves(axes: Axes, found: Json, what: str, unit: str) -> None:
    for (name, model), colour in zip(found["models"].items(), MODEL_COLOURS, strict=True):
        for part, style, marker in (("train", "-", "_"), ("test", (0, (1.5, 1.5)), ".")):
            values = model[part][what]
            look: Json = {"color": COLOURS[colour], "linestyle": style, "label": f"{name}, {part}"}
            marks: Json = {
                "marker": marker,
                "markersize": 5,
                "markevery": max(1, len(values) // 20),
            }
            axes.plot(range(1, len(values) + 1), values, **look, **marks)
    axes.set(
        xlabel="Epoch",
        ylabel=f"{what.capitalize()} ({unit})",
        xlim=(0, 1.03 * len(values)),
        ylim=(0, 1.03),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
