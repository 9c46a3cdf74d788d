"""The page of `citeflow demo faults`: a training that nobody disturbed, and one whose worker was killed."""

from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

from citeflow.reporting import page
from citeflow.reporting.drawing import COLOURS, render
from citeflow.reporting.tables import Table

LABEL = "Steps over time, and loss over steps, of both trainings"


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """What one start of a training recorded."""

    seconds: list[float]
    """Since the training was started."""

    step: list[int]
    loss: list[float]


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
    svg = render("recovery", LABEL, lambda figure: _draw(figure, recovery), height=6.4)
    verdict = "the very same model" if recovery.is_equal else "another model"
    body = [
        '<p class="eyebrow">citeflow demo faults</p>\n<h1>A worker is killed</h1>',
        f'<p class="headline">{escape(f"It ends with {verdict} as the training that nobody disturbed.")}</p>',
        f"<section>\n<figure>\n{svg}\n<figcaption>{escape(_caption(recovery))}</figcaption>\n</figure>\n</section>",
        page.rows(facts(recovery)),
        "<footer>Made by citeflow. Everything on this page is in the file itself.</footer>",
    ]
    return page.document("A worker is killed · citeflow", "\n".join(body))


def facts(recovery: Recovery) -> Table:
    """What happened, line by line."""
    undisturbed, disturbed = recovery.model_sha256
    rows = [
        ("Killed", f"one of {recovery.workers} workers by SIGKILL, {recovery.killed_s:.1f} s after the start"),
        ("Noticed after", f"{recovery.noticed_s - recovery.killed_s:.2f} s: the other workers were ended too"),
        ("Restarted after", f"{recovery.restarted_s - recovery.killed_s:.1f} s: new workers have met"),
        (
            "Went on from",
            f"step {recovery.resumed_step}, the newest checkpoint (one every {recovery.checkpoint_steps})",
        ),
        ("Taken again", f"about {max(0, recovery.killed_step - recovery.resumed_step)} of {recovery.steps} steps"),
        ("Model, undisturbed", f"sha256 {undisturbed}"),
        ("Model, after the kill", f"sha256 {disturbed}"),
    ]
    return Table(title="A worker is killed", header=("What", "Figure"), rows=rows)


def _caption(recovery: Recovery) -> str:
    return (
        "Above: the worker dies, the others are ended, new ones start and load the newest checkpoint. "
        "Below: steps that were taken again have the loss that they had before."
    )


def _draw(figure: Figure, recovery: Recovery) -> None:
    above, below = figure.subplots(2, 1)
    for curve, look in _looks(recovery):
        above.plot(curve.seconds, curve.step, **look)
        below.plot(curve.step, curve.loss, **{**look, "label": None})
    for at_s, name, colour in (
        (recovery.killed_s, "killed", "vermillion"),
        (recovery.restarted_s, "restarted", "green"),
    ):
        above.axvline(at_s, color=COLOURS[colour], linewidth=1.2, linestyle=":")
        place = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
        above.annotate(name, (at_s, 1.0), color=COLOURS[colour], **place)
    above.axvspan(recovery.killed_s, recovery.restarted_s, color=COLOURS["faint"], alpha=0.6, linewidth=0)
    above.set(xlabel="Time since the start (s)", ylabel="Step", ylim=(0, 1.06 * recovery.steps), xlim=(0, None))
    above.legend(loc="lower right")
    below.set(xlabel="Step", ylabel="Training loss", xlim=(0, recovery.steps))


def _looks(recovery: Recovery) -> list[tuple[Curve, dict[str, object]]]:
    undisturbed = {"color": COLOURS["grey"], "linewidth": 4.5, "alpha": 0.45, "label": "undisturbed"}
    first = {"color": COLOURS["vermillion"], "marker": "x", "markersize": 5, "label": "until the kill"}
    later = {"color": COLOURS["blue"], "marker": ".", "markersize": 6, "label": "after the restart"}
    return [(recovery.undisturbed, undisturbed), *zip(recovery.attempts, (first, later), strict=False)]
