"""The page of a search for better settings: every trial, and whether the best one beats the settings it began with."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from citeflow.reporting import formatting, html, markdown, plots
from citeflow.reporting.html import Section, Text
from citeflow.reporting.plots import COLOURS, HEIGHT, Plot
from citeflow.reporting.tables import Table

PRUNED = "pruned"
MOST_TICKS = 4
FLATTERED = (
    "The best of many trials looks better on the citations it was chosen by than it is; "
    "its test MRR, on citations that no trial has seen, is in report.html."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A trial."""

    number: int
    state: str
    """complete, pruned, fail, running or waiting."""

    valid_mrr: float | None
    values: Mapping[str, bool | int | float | str]
    """What it was trained with, by name of the setting."""

    seconds: float | None = None
    """Time that it took."""

    evaluations: Sequence[float] = ()
    """Validation MRRs during training."""

    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """A search that has ended."""

    run: str
    dataset: str
    tried: Sequence[Tried]
    log_keys: frozenset[str] = field(default_factory=frozenset)
    """Settings whose axis is logarithmic."""

    @property
    def best(self) -> Tried | None:
        """The complete trial with the highest validation MRR."""
        complete = [trial for trial in self.tried if trial.valid_mrr is not None]
        return max(
            complete, key=lambda trial: (trial.valid_mrr or 0.0, -trial.number), default=None
        )

    @property
    def default(self) -> float | None:
        """Validation MRR of the settings that it began with."""
        return next((trial.valid_mrr for trial in self.tried if trial.number == 0), None)


def verdict(search: Search) -> str:
    """Whether the best trial beats the default, in one sentence."""
    best, default = search.best, search.default
    if best is None or best.valid_mrr is None:
        return "No trial has ended with a model."
    reached = f"validation MRR {formatting.score(best.valid_mrr)}"
    if default is None:
        return f"Trial {best.number} is the best ({reached}); the default settings have not ended with a model."
    if best.number == 0:
        others = formatting.plural(len(search.tried) - 1, "other trial")
        return f"No trial beats the default settings ({reached}) in {others}."
    gain = best.valid_mrr - default
    if gain <= 0:
        return f"No trial beats the default settings (validation MRR {formatting.score(default)})."
    return f"Trial {best.number} beats the default settings by {gain:.4f} ({reached} against {formatting.score(default)})."


def table(search: Search) -> Table:
    """Every trial, best first."""
    ranked = sorted(search.tried, key=lambda trial: (-(trial.valid_mrr or -1.0), trial.number))
    keys = _keys(search)
    rows = [
        (
            _name(trial),
            _score(trial),
            *(_text(trial.values.get(key)) for key in keys),
            formatting.duration(trial.seconds),
        )
        for trial in ranked
    ]
    return Table(title="Trials", header=("Trial", "Validation MRR", *keys, "Time"), rows=rows)


def as_csv(search: Search) -> str:
    """Every trial as comma-separated values, in the order in which they were begun."""
    keys, buffer = _keys(search), io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["trial", "state", "valid_mrr", "seconds", *keys])
    for trial in search.tried:
        mrr, seconds = trial.valid_mrr, trial.seconds
        facts = [
            trial.number,
            trial.state,
            "" if mrr is None else mrr,
            "" if seconds is None else round(seconds, 1),
        ]
        writer.writerow([*facts, *(trial.values.get(key, "") for key in keys)])
    return buffer.getvalue()


def as_markdown(search: Search, options: str) -> str:
    """The result and the trials; `options` are the best trial's."""
    title = f"# {markdown.escape(search.dataset)}\n\n{verdict(search)}\n\n    {options}\n"
    return "\n".join([title, markdown.render(table(search))])


def as_html(search: Search, options: str) -> str:
    """The result, the trials and the figures as a page of its own."""
    drawn = [plot for plot in (_history(search), _curves(search)) if plot]
    by_setting = _parameters(search)
    sections = [
        Section(rows=[[Text(title="The best settings", text=options, remark=FLATTERED)]]),
        Section(title="Figures", rows=[drawn]),
        *([Section(title="By setting", rows=[[by_setting]])] if by_setting else []),
        Section(rows=[[table(search)]]),
    ]
    return html.render_page(
        f"Search on {search.dataset}",
        sections,
        kind=f"citeflow tune · {search.run}",
        headline=verdict(search),
    )


def _history(search: Search) -> Plot | None:
    done = [trial for trial in search.tried if trial.valid_mrr is not None]
    if not done:
        return None
    numbers, scores = [trial.number for trial in done], [trial.valid_mrr or 0.0 for trial in done]
    best = [max(scores[: index + 1]) for index in range(len(scores))]

    def draw(axes: Axes) -> None:
        axes.step(numbers, best, where="post", color=COLOURS["blue"], label="best so far")
        axes.plot(numbers, scores, "o", color=COLOURS["grey"], markersize=5, label="trial")
        pruned = [
            (trial.number, max(trial.evaluations)) for trial in search.tried if _is_pruned(trial)
        ]
        if pruned:
            axes.plot(
                *zip(*pruned, strict=True),
                "x",
                color=COLOURS["vermillion"],
                markersize=5,
                label="pruned",
            )
        if search.default is not None:
            look: dict[str, Any] = {"color": COLOURS["green"], "dashes": (5, 2), "linewidth": 1.4}
            axes.axhline(search.default, label=f"default {search.default:.3f}", **look)
        axes.set(xlabel="Trial", ylabel="Validation MRR")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            ncols=4,
            columnspacing=1.2,
            handlelength=1.4,
        )

    caption = "A cross is a trial that was ended early, at the best it had reached."
    return plots.draw_axes(
        "history",
        draw,
        title="Validation MRR by trial",
        caption=caption,
        summary=verdict(search),
        height=HEIGHT + 0.4,
    )


def _curves(search: Search) -> Plot | None:
    if not any(trial.evaluations for trial in search.tried):
        return None
    best = search.best

    def draw(axes: Axes) -> None:
        for trial in search.tried:
            if trial.evaluations:
                place = range(1, len(trial.evaluations) + 1)
                axes.plot(place, trial.evaluations, **_look(trial, best))
        axes.set(xlabel="Evaluation during training", ylabel="Validation MRR")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.2),
            ncols=4,
            columnspacing=1.2,
            handlelength=1.4,
        )

    caption = "Those that end early were worse than the median of the others at that point."
    return plots.draw_axes(
        "curves", draw, title="Training curves", caption=caption, height=HEIGHT + 0.4
    )


def _look(trial: Tried, best: Tried | None) -> dict[str, Any]:
    if best is not None and trial.number == best.number:
        return {
            "color": COLOURS["blue"],
            "linewidth": 2.4,
            "zorder": 3,
            "label": f"best (trial {best.number})",
        }
    if trial.number == 0:
        return {"color": COLOURS["green"], "linewidth": 2.0, "zorder": 2, "label": "default"}
    colour = COLOURS["vermillion" if _is_pruned(trial) else "grey"]
    return {"color": colour, "linewidth": 1.0, "alpha": 0.7, "marker": ".", "markersize": 3}


def _parameters(search: Search) -> Plot | None:
    keys, done = _keys(search), [trial for trial in search.tried if trial.valid_mrr is not None]
    if not keys or len(done) < 2:
        return None
    rows = -(-len(keys) // 2)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(
            rows, 2, sharey=True, squeeze=False, gridspec_kw={"wspace": 0.08}
        ).ravel()
        for axes, key in zip(grid, keys, strict=False):
            _scatter(axes, key, done, search)
        for axes in grid[len(keys) :]:
            axes.set_visible(False)
        figure.supylabel("Validation MRR", fontsize=10.5, color=COLOURS["muted"])

    caption = "Blue is the best, green the default. Trials that were ended early are left out."
    return plots.draw(
        "parameters", draw, title="Complete trials", caption=caption, height=0.3 + 1.75 * rows
    )


def _scatter(axes: Axes, key: str, done: Sequence[Tried], search: Search) -> None:
    values: list[Any] = [trial.values[key] for trial in done]
    is_number = all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )
    different = sorted(set(values))
    is_whole = is_number and all(isinstance(value, int) for value in values)
    if not is_number or (is_whole and len(different) <= MOST_TICKS and key not in search.log_keys):
        axes.set_xticks(range(len(different)), [_text(value) for value in different])
        axes.set_xlim(-0.5, len(different) - 0.5)
        values = [different.index(value) for value in values]
    elif key in search.log_keys:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=MOST_TICKS))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
    colours = [COLOURS[_colour(trial, search.best)] for trial in done]
    axes.scatter(values, [trial.valid_mrr or 0.0 for trial in done], c=colours, s=26, zorder=3)
    axes.set_xlabel(key)


def _colour(trial: Tried, best: Tried | None) -> str:
    if best is not None and trial.number == best.number:
        return "blue"
    return "green" if trial.number == 0 else "grey"


def _is_pruned(trial: Tried) -> bool:
    return trial.state == PRUNED and bool(trial.evaluations)


def _keys(search: Search) -> list[str]:
    """The settings that were searched."""
    return list(next((trial.values for trial in search.tried if trial.values), {}))


def _name(trial: Tried) -> str:
    return f"{trial.number} (default)" if trial.number == 0 else str(trial.number)


def _score(trial: Tried) -> str:
    return trial.state if trial.valid_mrr is None else formatting.score(trial.valid_mrr)


def _text(value: Any) -> str:
    if value is None:
        return formatting.MISSING
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
