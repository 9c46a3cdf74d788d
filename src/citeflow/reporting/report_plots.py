"""The plots of a run's report."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from citeflow.report import Curves, Report
from citeflow.reporting import formatting
from citeflow.reporting.plots import (
    COLOURS,
    HEIGHT,
    MIN_POINTS_OF_CURVE,
    SERIES_STYLES,
    Look,
    Plot,
    columns,
    draw,
    draw_axes,
    finite,
    legend_below,
    lines_by_rank,
    noisy_line,
    short,
    time_line,
)

MAX_LABELLED_YEARS = 8
MAX_LABELLED_RANKS = 12


def draw_report(report: Report, curves: Curves) -> list[Plot]:
    """Draw all plots of a run, the most telling first; one without data says why it is missing.

    Each copes with a run of one step, one validation or none.
    """
    return [
        comparison(report),
        validation(report, curves),
        ranks(curves),
        roc(report, curves),
        loss(curves),
        accuracy(report, curves),
        hard(report, curves),
        throughput(curves),
        cores(curves),
        memory(curves),
        years(report, curves),
        degrees(curves),
    ]


def comparison(report: Report) -> Plot:
    """Draw the test MRR of the model beside the baselines'."""
    entries = sorted(formatting.all_scores(report).items(), key=lambda item: item[1])
    names = [name for name, _ in entries]
    values = [mrr for _, mrr in entries]

    def fill(axes: Axes) -> None:
        colours = [COLOURS["blue" if name == formatting.MODEL else "grey"] for name in names]
        bars = axes.barh(names, values, color=colours, height=0.62)
        axes.bar_label(bars, [formatting.score(mrr) for mrr in values], padding=4)
        axes.set(xlim=(0, 1.14 * max(*values, 0.1)), xlabel="MRR on the test citations")
        axes.tick_params("y", length=0, labelcolor=COLOURS["ink"])
        axes.grid(visible=False, axis="y")

    return draw_axes(
        "comparison",
        fill,
        title="Test MRR against the baselines",
        caption="MRR is the mean of 1 / rank of the true citation among its candidates; 1 is "
        "perfect.",
        summary=formatting.headline(report),
        height=0.9 + 0.46 * len(entries),
    )


def validation(report: Report, curves: Curves) -> Plot:
    """Draw the validation MRR over time, and the baselines as dashed lines."""
    title = "Validation MRR during training"
    seconds, mrr = columns(curves.evaluations, "seconds", "valid_mrr")
    if not len(mrr):
        return _missing(title, "the validation MRR was not measured during training")
    scores = formatting.baseline_scores(report)
    # A baseline far below would flatten the curve: it is in the legend only.
    visible = [*mrr, *(score for score in scores.values() if score > 0.6 * mrr.min())]
    margin = max(0.08 * (max(visible) - min(visible)), 0.005)

    def fill(axes: Axes) -> None:
        time_line(axes, seconds, mrr, label=f"This model {mrr[-1]:.3f}", marker="o")
        styles = [("vermillion", (5, 2)), *SERIES_STYLES[2:5]]
        for (name, score), (colour, dashes) in zip(scores.items(), styles, strict=False):
            below = "" if score in visible else " (below)"
            label = f"{formatting.method(name)} {score:.3f}{below}"
            axes.axhline(score, color=COLOURS[colour], dashes=dashes, linewidth=1.4, label=label)
        axes.set(ylabel="MRR", ylim=(min(visible) - margin, max(visible) + margin))
        legend_below(axes)

    return draw_axes(
        "validation",
        fill,
        title=title,
        caption="Dashed: the baselines' MRR on the test citations. A curve that still rises asks "
        "for longer training.",
        summary=f"Validation MRR goes from {mrr[0]:.3f} to {mrr[-1]:.3f}.",
        height=HEIGHT + 0.4,
    )


def accuracy(report: Report, curves: Curves) -> Plot:
    """Draw the validation accuracy over time, and the test accuracy as a dashed line."""
    title = "Validation accuracy during training"
    seconds, value = columns(curves.evaluations, "seconds", "valid_accuracy")
    if not len(value):
        return _missing(title, "the validation accuracy was not measured during training")

    def fill(axes: Axes) -> None:
        time_line(axes, seconds, value, label=f"Validation {value[-1]:.3f}", marker="o")
        label = f"Test {report.test.accuracy:.3f}"
        axes.axhline(report.test.accuracy, color=COLOURS["vermillion"], dashes=(5, 2), label=label)
        axes.set(ylabel="Accuracy")
        legend_below(axes)

    return draw_axes(
        "accuracy",
        fill,
        title=title,
        caption="Share of citations, and of as many random pairs, on the right side of "
        "probability 0.5.",
        summary=f"Validation accuracy goes from {value[0]:.3f} to {value[-1]:.3f}.",
        height=HEIGHT + 0.2,
    )


def hard(report: Report, curves: Curves) -> Plot:
    """Draw the validation MRR among hard candidates over time, and the test's as a dashed line."""
    title = "Validation MRR among hard candidates"
    seconds, value = columns(curves.evaluations, "seconds", "valid_hard_mrr")
    if not len(value):
        return _missing(title, "no hard candidates were ranked during training")
    test = report.protocols.get("hard")

    def fill(axes: Axes) -> None:
        time_line(axes, seconds, value, label=f"Validation {value[-1]:.3f}", marker="o")
        if test is not None:
            label = f"Test {test.mrr:.3f}"
            axes.axhline(test.mrr, color=COLOURS["vermillion"], dashes=(5, 2), label=label)
        axes.set(ylabel="MRR")
        legend_below(axes)

    return draw_axes(
        "hard",
        fill,
        title=title,
        caption="Of 100 citations at most, so that it costs little: a difference of 0.04 is noise.",
        summary=f"Validation MRR goes from {value[0]:.3f} to {value[-1]:.3f}.",
        height=HEIGHT + 0.2,
    )


def loss(curves: Curves) -> Plot:
    """Draw the training loss over time."""
    title = "Training loss"
    seconds, value = columns(curves.history, "seconds", "loss")
    if not len(value):
        return _missing(title, "no step was recorded")

    def fill(axes: Axes) -> None:
        noisy_line(axes, seconds, value)
        axes.set(ylabel="Loss")

    return draw_axes(
        "loss",
        fill,
        title=title,
        caption=f"{_explain_noisy_line(value)}It should fall quickly, then level off.",
        summary=f"Training loss goes from {value[0]:.3g} to {value[-1]:.3g}.",
    )


def throughput(curves: Curves, samples: str = "citations") -> Plot:
    """Draw the training samples, by this name, per second over time."""
    title = "Throughput"
    seconds, rate = columns(curves.history, "seconds", "positives_per_s")
    if not len(rate):
        return _missing(title, "no step was recorded")

    def fill(axes: Axes) -> None:
        noisy_line(axes, seconds, rate)
        axes.set(
            ylabel=f"{samples.capitalize()} per second", ylim=(0, 1.15 * max(rate.max(), 1e-9))
        )
        axes.yaxis.set_major_formatter(FuncFormatter(short))

    return draw_axes(
        "throughput",
        fill,
        title=title,
        caption=f"{_explain_noisy_line(rate)}All workers together. A dip is another load on the "
        "machine, or a wait for data.",
        summary=f"On average {rate.mean():,.0f} {samples} per second.",
    )


def cores(curves: Curves) -> Plot:
    """Draw the cores that each rank kept busy over time."""
    series = {rank.rank: rank.cpu_cores for rank in curves.resources.ranks}
    caption = "A core that is busy all the time counts 1. Ranks that wait for each other use less."
    return _by_rank(
        "cores", curves, series, unit="Cores", title="CPU cores in use", caption=caption
    )


def memory(curves: Curves) -> Plot:
    """Draw the resident memory of each rank over time."""
    series = {
        rank.rank: [None if size is None else size / 2**30 for size in rank.memory_bytes]
        for rank in curves.resources.ranks
    }
    caption = "Resident memory. Pages that ranks of one machine share count for each of them here."
    return _by_rank("memory", curves, series, unit="GiB", title="Memory", caption=caption)


def _by_rank(
    name: str,
    curves: Curves,
    series: Mapping[int, Sequence[float | None]],
    *,
    unit: str,
    title: str,
    caption: str,
) -> Plot:
    lines = {}
    for rank, values in series.items():
        seconds, value = finite(list(zip(curves.resources.seconds, values, strict=False)))
        if len(value):
            lines[rank] = (seconds, value)
    if not lines:
        return _missing(title, "the run has no samples of it")
    highest = max(value.max() for _, value in lines.values())
    mean = sum(value.mean() for _, value in lines.values()) / len(lines)

    def fill(axes: Axes) -> None:
        lines_by_rank(axes, lines)
        axes.set(ylabel=unit, ylim=(0, 1.15 * highest or 1))

    return draw_axes(
        name,
        fill,
        title=title,
        caption=caption,
        summary=f"{len(lines)} ranks, on average {mean:.3g} {unit}.",
        height=HEIGHT + 0.2,
    )


def roc(report: Report, curves: Curves) -> Plot:
    """Draw the true against the false positive rate."""
    title = "ROC curve on the test citations"
    curve = curves.roc
    if curve is None or len(curve.fpr) < 2:
        return _missing(title, "the run has no ROC curve")
    label = f"{formatting.MODEL} (AUC {report.test.auc:.4f})"

    def fill(axes: Axes) -> None:
        axes.plot(curve.fpr, curve.tpr, color=COLOURS["blue"], label=label, clip_on=False)
        chance: Look = {"color": COLOURS["grey"], "dashes": (4, 3), "linewidth": 1.2}
        axes.plot([0, 1], [0, 1], label="Chance (AUC 0.5)", **chance)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set(xlabel="False positive rate", ylabel="True positive rate")
        axes.legend(loc="lower right")

    return draw_axes(
        "roc",
        fill,
        title=title,
        caption="As the threshold falls: the share of citations found, against the share of random "
        "pairs taken for one. The closer to the upper left corner, the better.",
        summary=f"{label}.",
        height=HEIGHT + 0.4,
    )


def ranks(curves: Curves) -> Plot:
    """Draw how many test citations got which rank."""
    title = "Rank of the true citation"
    total = sum(num for _, num in curves.ranks)
    if not total:
        return _missing(title, "the run has no ranks")
    names = rank_names([upper for upper, _ in curves.ranks])
    shares = [num / total for _, num in curves.ranks]
    are_few = len(names) <= MAX_LABELLED_RANKS

    def fill(axes: Axes) -> None:
        bars = axes.bar(range(len(names)), shares, color=COLOURS["blue"], width=0.72)
        if are_few:
            axes.bar_label(bars, [percent(share) for share in shares], padding=2, fontsize=9.8)
        every = 1 if are_few else -(-len(names) // MAX_LABELLED_RANKS)
        is_upright = are_few and sum(map(len, names)) <= 40
        axes.set_xticks(
            range(0, len(names), every),
            names[::every],
            fontsize=9,
            rotation=0 if is_upright else 45,
        )
        axes.set(xlabel="Rank among the candidates", ylabel="Share of test citations")
        axes.set_ylim(0, 1.12 * max(shares))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.grid(visible=False, axis="x")

    return draw_axes(
        "ranks",
        fill,
        title=title,
        caption="Rank 1: no candidate came before the true citation. More on the left is better.",
        summary=f"{percent(shares[0])} of the test citations have rank {names[0]}.",
        height=HEIGHT + 0.1,
    )


def years(report: Report, curves: Curves) -> Plot:
    """Draw the test MRR by the year of the citing paper, over the number of citations behind it."""
    title = "Test MRR by year of the citing paper"
    scores = sorted(curves.mrr_by_year, key=lambda score: score.year)
    if not scores:
        return _missing(title, "the graph has no dates")
    if len(scores) == 1:
        return _missing(title, f"every test citation is made in {scores[0].year}")
    year = [score.year for score in scores]
    mrr = report.test.mrr

    def fill(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        points: Look = {"color": COLOURS["blue"], "marker": "o", "markersize": 4.5}
        above.plot(year, [score.mrr for score in scores], **points)
        mean: Look = {"color": COLOURS["grey"], "dashes": (4, 3), "linewidth": 1.2}
        above.axhline(mrr, label=f"All years {mrr:.3f}", **mean)
        figure.legend(loc="outside upper right")
        above.margins(y=0.15)
        above.set_ylabel("MRR")
        _count_bars(below, year, [score.num for score in scores])

    return draw(
        "years",
        fill,
        title=title,
        caption="Below: how many test citations each point is the mean of. With few of them it "
        "moves by chance.",
        summary=f"{len(year)} years, {year[0]} to {year[-1]}.",
        height=HEIGHT + 0.3,
    )


def _count_bars(axes: Axes, year: list[int], num: list[int]) -> None:
    bars = axes.bar(year, num, color=COLOURS["sky"], width=0.7)
    if len(year) <= MAX_LABELLED_YEARS:
        axes.bar_label(bars, [f"{value:,}" for value in num], padding=1, fontsize=9)
    axes.set(xlabel="Year", ylabel="Citations", ylim=(0, 1.45 * max(*num, 1)))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.grid(visible=False, axis="x")


def degrees(curves: Curves) -> Plot:
    """Draw the share of papers with at least so many references and citations."""
    title = "Degree distribution"
    citations = tail(curves.degrees.get("citations", []))
    references = tail(curves.degrees.get("references", []))
    longest = max(len(citations[0]), len(references[0]))
    if not longest:
        return _missing(title, "the graph has no citations")

    def fill(axes: Axes) -> None:
        mark = "o" if longest < 3 else ""
        axes.plot(*citations, color=COLOURS["blue"], marker=mark, label="Citations received")
        colour, dashes = SERIES_STYLES[1]
        look: Look = {"color": COLOURS[colour], "dashes": dashes, "marker": mark}
        axes.plot(*references, label="References made", **look)
        axes.set(xlabel="Degree", ylabel="Papers with at least this degree")
        _set_log_axes(axes)
        axes.legend(loc="lower left")

    return draw_axes(
        "degrees",
        fill,
        title=title,
        caption="Training citations; both axes are logarithmic. A straight fall is the heavy tail "
        "of a citation network: a few papers receive most citations.",
        summary="Cumulative distribution of references and citations.",
    )


def _set_log_axes(axes: Axes) -> None:
    """Make both axes logarithmic, with ticks in plain digits and room for at least one decade."""
    axes.set(xscale="log", yscale="log")
    axes.set_xlim(0.85, max(10.0, axes.get_xlim()[1]))
    axes.set_ylim(min(0.1, axes.get_ylim()[0]), 1.25)
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_minor_formatter(NullFormatter())


def _missing(title: str, why: str) -> Plot:
    return Plot(title=title, caption=f"not drawn, as {why}.")


def _explain_noisy_line(value: np.ndarray) -> str:
    is_curve = len(value) >= MIN_POINTS_OF_CURVE
    return "Pale: as recorded; dark: the running mean. " if is_curve else ""


def tail(counts: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Turn a histogram of degrees into the share of papers of at least each degree, 0 left out."""
    table = np.array(sorted(counts), dtype=np.float64).reshape(-1, 2)
    total = table[:, 1].sum()
    if not total:
        return np.empty(0), np.empty(0)
    share = np.cumsum(table[::-1, 1])[::-1] / total
    shown = (table[:, 0] > 0) & (share > 0)
    return table[shown, 0], share[shown]


def rank_names(uppers: Sequence[int]) -> list[str]:
    """Name bins by their ends: 1, 2-3, 4-10, above 10."""
    names = []
    lower = 1
    for upper in uppers:
        names.append(f"{upper}" if lower >= upper else f"{lower}–{upper}")  # noqa: RUF001
        lower = upper + 1
    if len(names) > 1:
        names[-1] = f">{uppers[-2]}"
    return names


def percent(share: float) -> str:
    """Format a share as a label, with a digit more where it is small."""
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"
