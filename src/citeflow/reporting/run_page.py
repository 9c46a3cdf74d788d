"""Metrics and curves of a run for the run page of Kubeflow Pipelines.

The page sorts metrics by name and shows ten at a time, so no stage has more. Times are in seconds,
memory is in MiB; `test_` and `valid_` name the split of a score.
"""

from collections.abc import Mapping

from citeflow.artifacts import ClassificationMetrics, write_preview
from citeflow.report import Curves, Report
from citeflow.reporting import formatting

MIB = 2**20

TRAIN_METRICS = {
    "workers": "workers",
    "epochs": "epochs",
    "steps": "steps",
    "seconds": "train_seconds",
    "parameters": "parameters",
    "cpu_cores": "cpu_cores",
    "goodput": "goodput",
}
"""Facts of a TrainedModel, and their names on the page, besides the two that a task names."""

PROTOCOL_METRICS = (("all", "mrr"), ("all", "recall@20"), ("hard", "mrr"), ("cold", "mrr"))
"""Protocols and their metrics that are on the page."""

ROC_POINTS = 20
"""Points of the ROC curve on the page; Kubeflow keeps them in its database, and logs each in three
lines. The report has all."""


def training_metrics(facts: Mapping[str, object], *, score: str, samples: str) -> dict[str, object]:
    """Select the metrics of a training from the facts of its TrainedModel.

    Args:
        facts: those of the manifest.
        score: name of the task's validation score.
        samples: its samples, in the plural.
    """
    names = {score: score, **TRAIN_METRICS, "positives_per_s": f"{samples}_per_s"}
    metrics = {name: facts[fact] for fact, name in names.items() if fact in facts}
    peak_bytes = facts.get("peak_memory_bytes")
    if isinstance(peak_bytes, (int, float)):
        metrics["peak_memory_mib"] = round(peak_bytes / MIB)
    return metrics


def evaluation_metrics(report: Report) -> dict[str, float]:
    """Select the metrics of an evaluation: the model's in each protocol, and the best baseline."""
    figures = report.test.figures()
    metrics = {f"test_{name}": figures[name] for name in formatting.METRICS if name != "hits@3"}
    for protocol, name in PROTOCOL_METRICS:
        if protocol in report.protocols:
            metrics[f"{protocol}_{name}"] = report.protocols[protocol].figures()[name]
    best = max((scores.mrr for scores in report.baselines.values()), default=None)
    return metrics if best is None else {**metrics, "baseline_mrr": best}


def log_curves(classification: ClassificationMetrics, curves: Curves) -> None:
    """Show ROC curve and confusion matrix, as charts and in the preview of the artifact."""
    roc = curves.roc
    if roc is None:
        return
    last = len(roc.threshold) - 1
    shown = sorted({round(last * point / (ROC_POINTS - 1)) for point in range(ROC_POINTS)})
    columns = {
        "fpr": [roc.fpr[index] for index in shown],
        "tpr": [roc.tpr[index] for index in shown],
        "threshold": [roc.threshold[index] for index in shown],
    }
    categories = ["no citation", "citation"]
    classification.log_roc_curve(**columns)
    classification.log_confusion_matrix(categories, curves.confusion)
    confusion = {"categories": categories, "matrix": curves.confusion}
    write_preview(classification, {"roc_curve": columns, "confusion_matrix": confusion})
