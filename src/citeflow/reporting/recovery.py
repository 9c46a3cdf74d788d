"""The page of `citeflow demo faults`: a training that nobody disturbed, and one whose worker was killed."""

from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from citeflow.reporting import html, plots
from citeflow.reporting.html import Section
from citeflow.reporting.plots import COLOURS
from citeflow.reporting.tables import Table

LABEL = "Steps over time, and validation MRR over steps, of both trainings"
DIGITS = 16
"""Of a sha256 that are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """What one start of a training recorded."""

    seconds: list[float]
    """Since the training was started."""

    step: list[int]
    evaluated_step: list[int]
    valid_mrr: list[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """Two trainings of the same settings; seconds are counted from the start of the second."""

    workers: int
    steps: int
    checkpoint_steps: int
    undisturbed: Curve
    attempts: list[Curve]
    """Of the training whose worker was killed."""

    killed_s: float
    noticed_s: float
    """When the other workers were ended as well."""

    restarted_s: float
    """When the new workers had met, and knew what to go on from."""

    killed_step: int
    """Last step that was recorded before the kill."""

    resumed_step: int
    model_sha256: tuple[str, str]
    """Of the undisturbed model, and of the other."""

    @property
    def is_equal(self) -> bool:
        """Whether both models are the same to the bit."""
        return len(set(self.model_sha256)) == 1


def render_recovery(recovery: Recovery) -> str:
    """Both trainings in one plot, and what came of them, as a page of its own."""
    plot = plots.draw(
        "recovery",
        lambda figure: _draw(figure, recovery),
        title=LABEL,
        caption=_caption(),
        height=6.4,
    )
    verdict = "the very same model" if recovery.is_equal else "another model"
    return html.render_page(
        "A worker is killed",
        [Section(rows=[[plot], [facts(recovery)]])],
        kind="citeflow demo faults",
        headline=f"It ends with {verdict} as the training that nobody disturbed.",
    )


def facts(recovery: Recovery) -> Table:
    """What happened, line by line."""
    undisturbed, disturbed = (f"sha256 {digest[:DIGITS]}…" for digest in recovery.model_sha256)
    rows = [
        (
            "Killed",
            f"one of {recovery.workers} workers by SIGKILL, {recovery.killed_s:.1f} s after the start",
        ),
        (
            "Noticed",
            f"{recovery.noticed_s - recovery.killed_s:.2f} s later: the other workers were ended too",
        ),
        (
            "Restarted",
            f"{recovery.restarted_s - recovery.killed_s:.1f} s after the kill: new workers had met",
        ),
        (
            "Went on from",
            f"step {recovery.resumed_step} of {recovery.steps}, the newest checkpoint",
        ),
        ("Taken again", f"about {max(0, recovery.killed_step - recovery.resumed_step)} steps"),
        ("Checkpoints", f"every {recovery.checkpoint_steps} steps, and at every evaluation"),
        ("Model, undisturbed", undisturbed),
        ("Model, after the kill", disturbed),
    ]
    return Table(title="A worker is killed", header=("What", "How"), rows=rows)


def _caption() -> str:
    return (
        "Above: the worker dies, the others are ended, new ones start and load the newest checkpoint. "
        "Below: the models in between are as good as the undisturbed ones, digit for digit."
    )


def _draw(figure: Figure, recovery: Recovery) -> None:
    above, below = figure.subplots(2, 1)
    for curve, look in _looks(recovery):
        above.plot(curve.seconds, curve.step, **look)
        below.plot(curve.evaluated_step, curve.valid_mrr, **look)
    _mark(above, recovery.killed_s, "killed", "right", "vermillion")
    _mark(above, recovery.restarted_s, "restarted", "left", "green")
    above.axvspan(
        recovery.killed_s, recovery.restarted_s, color=COLOURS["faint"], alpha=0.6, linewidth=0
    )
    above.set(
        xlabel="Time since the start (s)",
        ylabel="Step",
        ylim=(0, 1.06 * recovery.steps),
        xlim=(0, None),
    )
    below.set(xlabel="Step", ylabel="Validation MRR", xlim=(0, 1.03 * recovery.steps))
    below.legend(loc="lower right")


def _mark(axes: Axes, at_s: float, name: str, side: Literal["left", "right"], colour: str) -> None:
    axes.axvline(at_s, color=COLOURS[colour], linewidth=1.2, linestyle=":")
    place = axes.get_xaxis_transform()  # seconds along, share of the height up
    axes.text(at_s, 1.01, f" {name} ", transform=place, ha=side, va="bottom", color=COLOURS[colour])


def _looks(recovery: Recovery) -> list[tuple[Curve, dict[str, Any]]]:
    undisturbed = {
        "color": COLOURS["grey"],
        "linewidth": 5,
        "alpha": 0.45,
        "marker": "o",
        "label": "undisturbed",
    }
    first = {
        "color": COLOURS["vermillion"],
        "marker": "x",
        "markersize": 5,
        "label": "until the kill",
    }
    later = {"color": COLOURS["blue"], "marker": ".", "markersize": 6, "label": "after the restart"}
    return [
        (recovery.undisturbed, undisturbed),
        *zip(recovery.attempts, (first, later), strict=False),
    ]
