"""The result of a search as Markdown, CSV and a page with plots."""

import csv
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import matplotlib.style
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from citeflow.experiments.search_space import as_text
from citeflow.reporting import formatting, markdown, plots
from citeflow.reporting.html import Section, Text, render_page
from citeflow.reporting.plots import COLOURS, STYLE, Plot
from citeflow.reporting.tables import Table
from citeflow.tasks.names import Criterion, Names

OVERFITTED = (
    "The best of many trials looks better on the {samples} it was chosen by than it is; "
    "its {test}, on {samples} that no trial has seen, is in report.html."
)
OPTUNA_COLOURS = {"#1f77b4": "blue", "#d62728": "vermillion"}
"""Colours of Optuna's plots, and the page's in their place, which turn dark with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """The trials of a search; the attribute `values` of each has the settings of its training."""

    run: str
    dataset: str
    trials: Sequence[FrozenTrial]
    names: Names
    """Words of the task."""
    criterion: Criterion
    """The validation score that trials are compared by."""

    @property
    def best(self) -> FrozenTrial | None:
        """The complete trial with the highest validation score."""
        complete = [trial for trial in self.trials if valid_score(trial) is not None]
        return max(complete, key=lambda trial: (valid_score(trial), -trial.number), default=None)

    @property
    def default_score(self) -> float | None:
        """Validation score of the settings that the search started from."""
        return next((valid_score(trial) for trial in self.trials if trial.number == 0), None)

    @property
    def keys(self) -> list[str]:
        """Names of the settings that were searched."""
        values = (trial.user_attrs.get("values") for trial in self.trials)
        return list(next((each for each in values if each), {}))


def valid_score(trial: FrozenTrial) -> float | None:
    """Return the validation score of a complete trial; a pruned one has none."""
    return trial.value if trial.state == TrialState.COMPLETE else None


def verdict(result: SearchResult) -> str:
    """Say in a sentence whether the best trial beats the settings that the search started from."""
    best = result.best
    default = result.default_score
    if best is None or best.value is None:
        return "No trial has ended with a model."
    name = result.criterion.label.replace("V", "v", 1)
    reached = f"{name} {formatting.score(best.value)}"
    if default is None:
        failed = "the default settings have not ended with a model"
        return f"Trial {best.number} is the best ({reached}); {failed}."
    if best.number == 0:
        others = formatting.plural(len(result.trials) - 1, "other trial")
        return f"No trial beats the default settings ({reached}) in {others}."
    gain = best.value - default
    compared = f"{reached} against {formatting.score(default)}"
    return f"Trial {best.number} beats the default settings by {gain:.4f} ({compared})."


def build_table(result: SearchResult) -> Table:
    """Build a table of all trials, best first."""
    rows = []
    ranked = sorted(result.trials, key=lambda trial: (-(valid_score(trial) or -1.0), trial.number))
    for trial in ranked:
        score = valid_score(trial)
        values = trial.user_attrs.get("values", {})
        cells = [
            "0 (default)" if trial.number == 0 else str(trial.number),
            trial.state.name.lower() if score is None else formatting.score(score),
            *(_cell(values.get(key)) for key in result.keys),
            formatting.duration(trial.user_attrs.get("seconds")),
        ]
        rows.append(tuple(cells))
    return Table(
        title="Trials", header=("Trial", result.criterion.label, *result.keys, "Time"), rows=rows
    )


def to_csv(result: SearchResult) -> str:
    """Format all trials as CSV, by number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", result.names.score, "seconds", *result.keys])
    for trial in result.trials:
        values = trial.user_attrs.get("values", {})
        seconds = trial.user_attrs.get("seconds")
        row = [
            trial.number,
            trial.state.name.lower(),
            valid_score(trial),
            None if seconds is None else round(seconds, 1),
            *(values.get(key) for key in result.keys),
        ]
        writer.writerow(row)
    return text.getvalue()


def render_markdown(result: SearchResult, options: str) -> str:
    """Render the verdict, the options of the best trial, and the table as Markdown."""
    title = f"# {markdown.escape(result.dataset)}\n\n{verdict(result)}\n\n    {options}\n"
    return "\n".join([title, markdown.render(build_table(result))])


def render_html(result: SearchResult, options: str) -> str:
    """Render the verdict, the options of the best trial, plots and table as a page."""
    remark = OVERFITTED.format(samples=result.names.samples, test=result.criterion.test_label)
    best = Text(title="The best settings", text=options, remark=remark)
    sections = [
        Section(rows=[[best]]),
        Section(title="Figures", rows=[_figures(result)]),
        Section(title="Trials", rows=[[build_table(result)]]),
    ]
    return render_page(
        result.dataset,
        sections,
        kind=f"citeflow search {result.run}",
        headline=verdict(result),
    )


def _figures(result: SearchResult) -> list[Plot]:
    """Draw Optuna's own plots of the trials, as far as there is something to plot."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    study.add_trials(result.trials)
    figures = []
    if any(trial.intermediate_values for trial in result.trials):
        title = "Training curves"
        caption = f"{result.criterion.curve_label}. Those that end early were pruned."
        plot = optuna.visualization.matplotlib.plot_intermediate_values
        figures.append(_figure(title, caption, partial(plot, study)))
    if result.best is None:
        return figures
    name = result.criterion.label
    caption = "Complete trials, and the best so far. Dashed: the settings it started from."
    history = partial(_history, study, name, result.default_score)
    figures.insert(0, _figure(f"{name} by trial", caption, history))
    complete = study.get_trials(states=[TrialState.COMPLETE])
    caption = "Complete trials; the darker, the later."
    for key in result.keys:
        # Optuna cannot scale the axis of a single value.
        if len({trial.params[key] for trial in complete if key in trial.params}) > 1:
            figures.append(_figure(f"{name} by {key}", caption, partial(_slice, study, name, key)))
    return figures


def _history(study: optuna.Study, name: str, default_score: float | None) -> Axes:
    axes: Axes = optuna.visualization.matplotlib.plot_optimization_history(study, target_name=name)
    if default_score is not None:
        axes.axhline(default_score, color=COLOURS["green"], linestyle="--", linewidth=1.4)
    return axes


def _slice(study: optuna.Study, name: str, key: str) -> Axes:
    axes = optuna.visualization.matplotlib.plot_slice(study, [key], target_name=name)
    assert isinstance(axes, Axes)  # an array of them for several keys
    if axes.get_xscale() == "log":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return axes


def _figure(title: str, caption: str, plot: Callable[[], Axes]) -> Plot:
    """Draw with pyplot, as Optuna does, in the look of the other figures."""
    pyplot.switch_backend("agg")
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        axes = plot()  # which sets another style for all of pyplot, undone by the context
        figure = axes.get_figure(root=True)
        assert figure is not None
        axes.set_title("")
        axes.set_facecolor("none")
        axes.grid(color=COLOURS["faint"])
        axes.tick_params(color=COLOURS["grey"], labelcolor=COLOURS["muted"])
        if legend := axes.get_legend():
            legend.remove()  # it has a line for each trial; so has the table
        figure.set_facecolor("none")
        name = re.sub(r"\W+", "-", title.lower())
        drawn = plots.embed(figure, name, title=title, caption=caption)
        pyplot.close(figure)
    svg = drawn.svg
    for theirs, ours in OPTUNA_COLOURS.items():
        svg = svg.replace(theirs, f"var(--{ours})")
    return replace(drawn, svg=svg)


def _cell(value: bool | int | float | str | None) -> str:
    if value is None:
        return formatting.MISSING
    return f"{value:.4g}" if isinstance(value, float) else as_text(value)
