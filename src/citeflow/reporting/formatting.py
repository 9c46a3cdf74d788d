"""Names and numbers of a report as text for people."""

import textwrap

from citeflow.report import Report
from citeflow.utils import progress

MODEL = "This model"
MISSING = "–"  # noqa: RUF001 - a dash as typographers use it

METRICS = {
    "mrr": "MRR",
    "hits@1": "Hits@1",
    "hits@3": "Hits@3",
    "hits@10": "Hits@10",
    "accuracy": "Accuracy",
    "auc": "AUC",
}
"""Labels of the metrics of `report.Scores`, by their names in `report.json`. No other place has
them."""

COUNTS = {"num_positives": "Citations", "num_negatives": "Negatives"}
"""Labels of the counts in `report.Scores`."""

BASELINES = {
    "common_neighbors": "Common neighbours",
    "adamic_adar": "Adamic-Adar",
    "resource_allocation": "Resource allocation",
    "popularity": "Popularity",
    "recency": "Recency",
    "cosine": "Feature cosine",
    "bm25": "BM25 of the text",
}

PROTOCOLS = {
    "ogb": "Random papers",
    "all": "All papers",
    "hard": "Hard papers",
    "cold": "No references",
}
"""Labels of the protocols of `report.Report`, by what a test citation is ranked against; `cold`
ranks among all papers."""

AMONG = {
    "ogb": "",
    "all": "among all papers",
    "hard": "among hard papers",
    "cold": "without references",
}
"""What is said behind the name of a figure of a protocol; OGB's is the usual one."""

RANK_METRICS = {
    "mrr": METRICS["mrr"],
    "recall@20": "Recall@20",
    "recall@100": "Recall@100",
}
"""Labels of the shares in `report.RankScores`."""

LOSSES = {
    "start": "Start",
    "restart": "Restarts",
    "redone": "Steps done again",
    "checkpoint": "Checkpoints",
    "validation": "Validation",
    "waiting": "Waiting for batches",
}
"""Labels of what a training's wall time is lost to, by the names in `report.TrainSummary`."""

STAGES = ("download", "preprocess", "train", "evaluate", "publish")


def score(value: float | None) -> str:
    """Format a figure between 0 and 1 with the four digits that leaderboards print."""
    return MISSING if value is None else f"{value:.4f}"


def difference(value: float) -> str:
    """Format a signed figure, with a true minus sign."""
    return f"{value:+.4f}".replace("-", "−")  # noqa: RUF001


def count(value: float | None) -> str:
    """Format a whole number with thousands separators."""
    return MISSING if value is None else f"{round(value):,}"


def amount(value: float | None) -> str:
    """Format a number that may have a fraction, such as epochs, without trailing zeros."""
    return MISSING if value is None else f"{value:,.2f}".rstrip("0").rstrip(".")


def share(part: float | None, whole: float | None) -> str:
    """Format a count with its percentage of a whole in brackets."""
    if part is None or not whole:
        return count(part)
    return f"{count(part)} ({100 * part / whole:.1f} %)"


def in_protocol(label: str, protocol: str) -> str:
    """Label a figure with its protocol, where that is not OGB's."""
    return f"{label} {AMONG[protocol]}".rstrip()


def duration(seconds: float | None) -> str:
    """Format a time in the two largest units that it fills."""
    return MISSING if seconds is None else progress.duration(seconds)


def memory(size_bytes: float | None) -> str:
    """Format a number of bytes in the binary unit that fits."""
    if size_bytes is None:
        return MISSING
    size = float(size_bytes)
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1000:
            break
        size /= 1024
        unit = larger
    return f"{size:.3g} {unit}"


def cores(cpu_s: float | None, seconds: float | None) -> str:
    """Format the mean number of cores in use."""
    return MISSING if cpu_s is None or not seconds else f"{cpu_s / seconds:.2f}"


def rate(per_s: float | None) -> str:
    """Format a number per second in few digits."""
    return MISSING if per_s is None else f"{scaled(per_s, '.3g')} / s"


def scaled(value: float, digits: str = "g") -> str:
    """Format a large number with its decimal prefix: 20k, 1.5M, 2G."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:{digits}}{prefix}"
    return f"{value:{digits}}"


def plural(num: float | None, noun: str) -> str:
    """Format a count with its noun."""
    return "" if num is None else f"{count(num)} {noun}{'' if num == 1 else 's'}"


def method(name: str) -> str:
    """Label a baseline, in a text short enough for the axis of a plot."""
    words = name.replace("_", " ").strip()
    label = BASELINES.get(name, words[:1].upper() + words[1:])
    return textwrap.shorten(label, 24, placeholder="…")


def baseline_scores(report: Report) -> dict[str, float]:
    """Return the test MRR of each baseline, best first."""
    scores = {name: baseline.mrr for name, baseline in report.baselines.items()}
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def all_scores(report: Report) -> dict[str, float]:
    """Return the test MRR by label of the method, the model's own first."""
    return {
        MODEL: report.test.mrr,
        **{method(name): mrr for name, mrr in baseline_scores(report).items()},
    }


def headline(report: Report) -> str:
    """Summarize the result in one sentence, and in a second one if it says next to nothing."""
    num = plural(report.test.num_positives, "citation")
    if report.is_tiny:
        return f"{_result(report)} It is of {num} only, too few to say anything."
    return " ".join([_result(report), *_other_protocols(report)])


def _other_protocols(report: Report) -> list[str]:
    """Say what the model reaches among all papers, and where a baseline ranks better."""
    sentences = []
    among_all = report.protocols.get("all")
    if among_all is not None:
        found = f"{100 * among_all.recall_at_20:.0f} %"
        sentences.append(
            f"Ranked among all papers it is {score(among_all.mrr)}, with {found} in the first 20."
        )
    cold = report.protocols.get("cold")
    if cold is not None and cold.baselines:
        name, best = max(cold.baselines.items(), key=lambda item: item[1].mrr)
        if best.mrr > cold.mrr:
            sentences.append(
                f"Do not use it for papers without references: {method(name)} has "
                f"{score(best.mrr)} there, the model {score(cold.mrr)}."
            )
    return sentences


def _result(report: Report) -> str:
    mrr = report.test.mrr
    scores = baseline_scores(report)
    if not scores:
        return f"Test MRR {score(mrr)}."
    best, best_mrr = next(iter(scores.items()))
    gap = mrr - best_mrr
    side = "above" if gap >= 0 else "below"
    against = f"{method(best)}, {score(best_mrr)}"
    return f"Test MRR {score(mrr)}, {abs(gap):.4f} {side} the best baseline ({against})."
