"""The figures of a report. Each copes with a run of one step, one evaluation or none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from citeflow.reporting import axes as shared
from citeflow.reporting import formatting
from citeflow.reporting.drawing import COLOURS, HEIGHT, one, render

Json = dict[str, Any]

TITLES = {
    "comparison": "Test MRR against the baselines",
    "validation": "Validation MRR during training",
    "ranks": "Rank of the true citation",
    "roc": "ROC curve on the test citations",
    "loss": "Training loss",
    "throughput": "Throughput",
    "cores": "CPU cores in use",
    "memory": "Memory",
    "years": "Test MRR by year of the citing paper",
    "degrees": "Degree distribution",
}
BASELINE_LOOKS = [
    ("vermillion", (5, 2)),
    ("green", (3, 1.5)),
    ("purple", (1.2, 1.6)),
    ("orange", (6, 1.5, 1.2, 1.5)),
]
MOST_LABELLED = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A figure and what a reader must know to read it."""

    name: str
    """Identifier within the page, one of TITLES."""

    caption: str
    """How to read it, or why there is nothing to see."""

    svg: str = ""
    """The drawing; empty where the run has no data for it."""

    @property
    def title(self) -> str:
        """What it shows."""
        return TITLES[self.name]


def draw_all(report: Json, curves: Json) -> list[Chart]:
    """Every figure, the most telling first."""
    return [
        comparison(report),
        validation(report, curves),
        ranks(curves),
        roc(report, curves),
        loss(curves),
        throughput(curves),
        cores(curves),
        memory(curves),
        years(report, curves),
        degrees(curves),
    ]


def comparison(report: Json) -> Chart:
    """Test MRR of the model beside the baselines'."""
    entries = sorted(formatting.all_scores(report).items(), key=lambda item: item[1])
    if not entries:
        return _missing("comparison", "as the run has no test result")
    names, values = [name for name, _ in entries], [mrr for _, mrr in entries]

    def draw(axes: Axes) -> None:
        colours = [COLOURS["blue" if name == formatting.MODEL else "grey"] for name in names]
        bars = axes.barh(names, values, color=colours, height=0.62)
        axes.bar_label(bars, [formatting.score(mrr) for mrr in values], padding=4)
        axes.set(xlim=(0, 1.14 * max(*values, 0.1)), xlabel="MRR on the test citations")
        axes.tick_params("y", length=0, labelcolor=COLOURS["ink"])
        axes.grid(visible=False, axis="y")

    caption = "MRR is the mean of 1 / rank of the true citation among its candidates; 1 is perfect."
    return _chart(
        "comparison",
        caption,
        formatting.headline(report),
        one(draw),
        height=0.9 + 0.46 * len(entries),
    )


def validation(report: Json, curves: Json) -> Chart:
    """Validation MRR over time, the baselines as dashed lines; one far below the curve is in the legend only."""
    seconds, mrr = shared.columns(curves.get("evaluations"), "seconds", "valid_mrr")
    if not len(mrr):
        return _missing("validation", "as the validation MRR was not measured during training")
    scores = formatting.baseline_scores(report)
    seen = [*mrr, *(reached for reached in scores.values() if reached > 0.6 * mrr.min())]
    room = max(0.08 * (max(seen) - min(seen)), 0.005)

    def draw(axes: Axes) -> None:
        shared.time_line(axes, seconds, mrr, label=f"This model {mrr[-1]:.3f}", marker="o")
        for (name, reached), (colour, dashes) in zip(scores.items(), BASELINE_LOOKS, strict=False):
            label = f"{formatting.method(name)} {reached:.3f}" + (
                "" if reached in seen else " (below)"
            )
            axes.axhline(reached, color=COLOURS[colour], dashes=dashes, linewidth=1.4, label=label)
        axes.set(ylabel="MRR", ylim=(min(seen) - room, max(seen) + room))
        shared.legend_below(axes)

    caption = "Dashed: the baselines' MRR on the test citations. A curve that still rises asks for longer training."
    label = f"Validation MRR goes from {mrr[0]:.3f} to {mrr[-1]:.3f}."
    return _chart("validation", caption, label, one(draw), height=HEIGHT + 0.4)


def loss(curves: Json) -> Chart:
    """Training loss over time."""
    seconds, value = shared.columns(curves.get("history"), "seconds", "loss")
    if not len(value):
        return _missing("loss", "as no step was recorded")

    def draw(axes: Axes) -> None:
        shared.noisy_line(axes, seconds, value)
        axes.set(ylabel="Loss")

    caption = f"{_lines(value)}It should fall quickly, then level off."
    return _chart(
        "loss", caption, f"Training loss goes from {value[0]:.3g} to {value[-1]:.3g}.", one(draw)
    )


def throughput(curves: Json) -> Chart:
    """Training citations per second over time."""
    seconds, rate = shared.columns(curves.get("history"), "seconds", "positives_per_s")
    if not len(rate):
        return _missing("throughput", "as no step was recorded")

    def draw(axes: Axes) -> None:
        shared.noisy_line(axes, seconds, rate)
        axes.set(ylabel="Citations per second", ylim=(0, 1.15 * max(rate.max(), 1e-9)))
        axes.yaxis.set_major_formatter(FuncFormatter(shared.short))

    caption = f"{_lines(rate)}All workers together. A dip is another load on the machine, or a wait for data."
    return _chart(
        "throughput", caption, f"On average {rate.mean():,.0f} citations per second.", one(draw)
    )


def cores(curves: Json) -> Chart:
    """Cores that each rank kept busy over time."""
    caption = "A core that is busy all the time counts 1. Ranks that wait for each other use less."
    return _resource("cores", curves, "cpu_cores", "Cores", 1.0, caption)


def memory(curves: Json) -> Chart:
    """Resident memory of each rank over time."""
    caption = "Resident memory. Pages that ranks of one machine share count for each of them here."
    return _resource("memory", curves, "memory_bytes", "GiB", 2**30, caption)


def _resource(name: str, curves: Json, key: str, label: str, unit: float, caption: str) -> Chart:
    """What each rank used over time, from the start of the workers."""
    found = curves.get("resources") or {}
    lines = {
        int(rank["rank"]): shared.columns(
            [
                {"x": x, "y": y}
                for x, y in zip(found.get("seconds") or [], rank.get(key) or [], strict=False)
            ],
            "x",
            "y",
        )
        for rank in found.get("ranks") or []
    }
    lines = {
        rank: (seconds, value / unit) for rank, (seconds, value) in lines.items() if len(value)
    }
    if not lines:
        return _missing(name, "as the run has no samples of it")

    def draw(axes: Axes) -> None:
        shared.lines_by_rank(axes, lines)
        axes.set(
            ylabel=label, ylim=(0, 1.15 * max(value.max() for _, value in lines.values()) or 1)
        )

    mean = sum(value.mean() for _, value in lines.values()) / len(lines)
    return _chart(
        name,
        caption,
        f"{len(lines)} ranks, on average {mean:.3g} {label}.",
        one(draw),
        height=HEIGHT + 0.2,
    )


def roc(report: Json, curves: Json) -> Chart:
    """True against false positive rate."""
    found = curves.get("roc") or {}
    false_rate, true_rate = found.get("fpr") or [], found.get("tpr") or []
    if len(false_rate) < 2:
        return _missing("roc", "as the run has no ROC curve")
    auc = (report.get("test") or {}).get("auc")
    label = formatting.MODEL if auc is None else f"{formatting.MODEL} (AUC {auc:.4f})"

    def draw(axes: Axes) -> None:
        axes.plot(false_rate, true_rate, color=COLOURS["blue"], label=label, clip_on=False)
        axes.plot(
            [0, 1],
            [0, 1],
            color=COLOURS["grey"],
            dashes=(4, 3),
            linewidth=1.2,
            label="Chance (AUC 0.5)",
        )
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1),
            xlabel="False positive rate",
            ylabel="True positive rate",
            aspect="equal",
        )
        axes.legend(loc="lower right")

    caption = (
        "As the threshold falls: the share of citations found, against the share of random pairs taken for one. "
        "The closer to the upper left corner, the better."
    )
    return _chart("roc", caption, f"{label}.", one(draw), height=HEIGHT + 0.4)


def ranks(curves: Json) -> Chart:
    """How many test citations got which rank."""
    bins = [(float(upper), float(num)) for upper, num in curves.get("ranks") or []]
    total = sum(num for _, num in bins)
    if not total:
        return _missing("ranks", "as the run has no ranks")
    names, shares = (
        shared.rank_names([upper for upper, _ in bins]),
        [num / total for _, num in bins],
    )
    few = len(names) <= MOST_LABELLED

    def draw(axes: Axes) -> None:
        bars = axes.bar(range(len(names)), shares, color=COLOURS["blue"], width=0.72)
        if few:
            axes.bar_label(
                bars, [shared.percent(share) for share in shares], padding=2, fontsize=9.8
            )
        shown = range(0, len(names), 1 if few else -(-len(names) // MOST_LABELLED))
        upright = sum(map(len, names)) <= 40 and few
        axes.set_xticks(
            list(shown), [names[i] for i in shown], fontsize=9, rotation=0 if upright else 45
        )
        axes.set(
            xlabel="Rank among the candidates",
            ylabel="Share of test citations",
            ylim=(0, 1.12 * max(shares)),
        )
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.grid(visible=False, axis="x")

    caption = "Rank 1: no candidate came before the true citation. More on the left is better."
    label = f"{shared.percent(shares[0])} of the test citations have rank {names[0]}."
    return _chart("ranks", caption, label, one(draw), height=HEIGHT + 0.1)


def years(report: Json, curves: Json) -> Chart:
    """Test MRR by the year of the citing paper, over the number of citations that it is a mean of."""
    found = sorted(curves.get("mrr_by_year") or [], key=lambda entry: int(entry["year"]))
    if len(found) < 2:
        why = (
            f"as every test citation is made in {found[0]['year']}"
            if found
            else "as the graph has no dates"
        )
        return _missing("years", why)
    year, mrr = [int(entry["year"]) for entry in found], formatting.test_mrr(report)

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        above.plot(
            year,
            [entry["mrr"] for entry in found],
            color=COLOURS["blue"],
            marker="o",
            markersize=4.5,
        )
        if mrr is not None:
            above.axhline(
                mrr,
                color=COLOURS["grey"],
                dashes=(4, 3),
                linewidth=1.2,
                label=f"All years {mrr:.3f}",
            )
            figure.legend(loc="outside upper right")
        above.margins(y=0.15)
        above.set_ylabel("MRR")
        shared.count_bars(below, year, [int(entry["num"]) for entry in found])

    caption = "Below: how many test citations each point is the mean of. With few of them it moves by chance."
    return _chart(
        "years", caption, f"{len(year)} years, {year[0]} to {year[-1]}.", draw, height=HEIGHT + 0.3
    )


def degrees(curves: Json) -> Chart:
    """Share of papers with at least so many references and citations."""
    found = curves.get("degrees") or {}
    tails = {kind: shared.tail(found.get(kind) or []) for kind in ("citations", "references")}
    if not any(len(degree) for degree, _ in tails.values()):
        return _missing("degrees", "as the graph has no citations")

    def draw(axes: Axes) -> None:
        mark = "o" if max(len(degree) for degree, _ in tails.values()) < 3 else ""
        axes.plot(
            *tails["citations"], color=COLOURS["blue"], marker=mark, label="Citations received"
        )
        look: Json = {"color": COLOURS["vermillion"], "dashes": (5, 1.5), "marker": mark}
        axes.plot(*tails["references"], **look, label="References made")
        axes.set(xlabel="Degree", ylabel="Papers with at least this degree")
        shared.log_axes(axes)
        axes.legend(loc="lower left")

    caption = (
        "Training citations; both axes are logarithmic. A straight fall is the heavy tail of a citation network: "
        "a few papers receive most citations."
    )
    return _chart(
        "degrees", caption, "Cumulative distribution of references and citations.", one(draw)
    )


def _missing(name: str, why: str) -> Chart:
    return Chart(name=name, caption=f"not drawn, {why}.")


def _chart(
    name: str, caption: str, label: str, draw: Callable[[Figure], None], *, height: float = HEIGHT
) -> Chart:
    svg = render(name, f"{TITLES[name]}. {label}", draw, height=height)
    return Chart(name=name, caption=caption, svg=svg)


def _lines(value: np.ndarray) -> str:
    return "Pale: as recorded; dark: the running mean. " if len(value) >= shared.FEW_POINTS else ""
