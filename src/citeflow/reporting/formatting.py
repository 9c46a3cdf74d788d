"""How a report writes names and numbers for people."""

import textwrap
from typing import Any

MODEL = "This model"
MISSING = "–"  # noqa: RUF001 - a dash as typographers use it

BASELINES = {
    "common_neighbors": "Common neighbours",
    "adamic_adar": "Adamic-Adar",
    "resource_allocation": "Resource allocation",
    "popularity": "Popularity",
}

METRICS = {
    "mrr": "MRR",
    "hits@1": "Hits@1",
    "hits@3": "Hits@3",
    "hits@10": "Hits@10",
    "accuracy": "Accuracy",
    "auc": "AUC",
}

STAGES = ("download", "preprocess", "train", "evaluate", "publish")


def score(value: float | None) -> str:
    """A figure between 0 and 1, in the four digits that leaderboards print."""
    return MISSING if value is None else f"{value:.4f}"


def difference(value: float) -> str:
    """A signed figure, with a true minus sign."""
    return f"{value:+.4f}".replace("-", "−")  # noqa: RUF001


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return MISSING if value is None else f"{round(value):,}"


def amount(value: float | None) -> str:
    """A number that may have a fraction, such as epochs, without digits that say nothing."""
    return MISSING if value is None else f"{value:,.2f}".rstrip("0").rstrip(".")


def share(part: float | None, whole: float | None) -> str:
    """A count with its share of a whole in brackets."""
    if part is None or not whole:
        return count(part)
    return f"{count(part)} ({100 * part / whole:.1f} %)"


def duration(seconds: float | None) -> str:
    """A time in the two largest units that it fills."""
    if seconds is None:
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(size_bytes: float | None) -> str:
    """A number of bytes in the binary unit that fits."""
    if size_bytes is None:
        return MISSING
    size, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1000:
            break
        size, unit = size / 1024, larger
    return f"{size:.3g} {unit}"


def cores(cpu_s: float | None, seconds: float | None) -> str:
    """Mean number of cores that were in use."""
    return MISSING if cpu_s is None or not seconds else f"{cpu_s / seconds:.2f}"


def rate(per_s: float | None) -> str:
    """A number per second, in few digits."""
    if per_s is None:
        return MISSING
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if per_s >= size:
            return f"{per_s / size:.3g}{unit} / s"
    return f"{per_s:.3g} / s"


def plural(num: float | None, noun: str) -> str:
    """A count with its noun."""
    return "" if num is None else f"{count(num)} {noun}{'' if num == 1 else 's'}"


def humanise(name: str) -> str:
    """A key of a report as words."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def method(name: str) -> str:
    """Name of a baseline, short enough for the axis of a chart."""
    return textwrap.shorten(BASELINES.get(name, humanise(name)), 24, placeholder="…")


def baseline_scores(report: dict[str, Any]) -> dict[str, float]:
    """Test MRR of each baseline that has one, best first."""
    entries = report.get("baselines") or {}
    found = {
        name: float(entry["mrr"]) for name, entry in entries.items() if entry.get("mrr") is not None
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def test_mrr(report: dict[str, Any]) -> float | None:
    """Test MRR of the model."""
    value = (report.get("test") or {}).get("mrr")
    return None if value is None else float(value)


def all_scores(report: dict[str, Any]) -> dict[str, float]:
    """Test MRR by name of the method, the model among them."""
    scores = {method(name): mrr for name, mrr in baseline_scores(report).items()}
    mrr = test_mrr(report)
    return scores if mrr is None else {MODEL: mrr, **scores}


def headline(report: dict[str, Any]) -> str:
    """The result in one sentence."""
    mrr = test_mrr(report)
    if mrr is None:
        return "This run has no test result."
    scores = baseline_scores(report)
    if not scores:
        return f"Test MRR {score(mrr)}."
    best, reached = next(iter(scores.items()))
    gap = mrr - reached
    side = "above" if gap >= 0 else "below"
    return f"Test MRR {score(mrr)}, {abs(gap):.4f} {side} the best baseline ({method(best)}, {score(reached)})."
