"""What the body of a component calls: a stage each, and the artifacts that the run page shows of its result."""

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml

from citeflow import config, files, paths, stages
from citeflow.artifacts import Artifact, Metrics, carry, describe, find, log_figures, step
from citeflow.data.datasets import NAMED_DATASETS
from citeflow.kubeflow import params
from citeflow.kubernetes.job_spec import IMAGE, IMAGE_VARIABLE
from citeflow.report import Report
from citeflow.reporting import markdown, mlflow
from citeflow.reporting.publish import check_output_folders

ROC_POINTS = 100
"""At most as many points of a ROC curve go to the run page, which keeps them in its database."""


class ClassificationMetrics(Artifact, Protocol):
    """Curves that the run page draws."""

    def log_roc_curve(self, fpr: list[float], tpr: list[float], threshold: list[float]) -> None:
        """Set the ROC curve."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Set the confusion matrix, one row per true category."""


class Settled(NamedTuple):
    """What the first step settles for all others."""

    sha256: str
    run: str
    resolved: str
    data_resolved: str


@step
def download(
    dataset: str,
    preset: str,
    settings: str,
    predictor: str,
    epochs: float,
    minutes: float,
    workers: int,
    run_name: str,
    out_dir: str,
    run_id: str,
    launcher: str,
    job: str,
    *,
    data_root: str,
    raw: Artifact,
) -> Settled:
    """Settle name, settings and folders of the run, then bring the dataset onto the volume."""
    resolved = params.resolve(
        {
            "dataset": dataset,
            "preset": preset,
            "settings": settings,
            "predictor": predictor,
            "epochs": epochs,
            "minutes": minutes,
            "workers": workers,
            "run_name": run_name,
            "launcher": launcher,
            "job": job,
        }
    )
    name = run_name or paths.make_name(dataset, run_id[:8].lower())
    run_dir = paths.run_folder(Path(data_root), name)
    params.job_request(launcher, job, workers=workers, run_id=run_id, run_dir=run_dir)
    check_output_folders(Path(data_root), _out_folder(out_dir, data_root, name))
    place = stages.download(_source(dataset, data_root), data_root=Path(data_root), config=resolved)
    sha256 = carry(raw, place, "RawDataset", data_root)
    data_resolved = yaml.safe_dump({"data": resolved.to_dict()["data"]})
    return Settled(sha256, name, config.to_yaml(resolved), data_resolved)


@step
def preprocess(
    raw: Artifact, raw_sha256: str, settings: str, *, data_root: str, graph: Artifact
) -> str:
    """Make a PreparedGraph; returns its digest."""
    source = find(raw, "RawDataset", data_root, raw_sha256)
    place = stages.preprocess(source, data_root=Path(data_root), config=config.from_yaml(settings))
    return carry(graph, place, "PreparedGraph", data_root)


@step
def train(
    graph: Artifact,
    settings: str,
    workers: int,
    run_name: str,
    run_id: str,
    launcher: str,
    job: str,
    *,
    data_root: str,
    model: Artifact,
    metrics: Metrics,
) -> str:
    """Make a TrainedModel; returns its digest."""
    run_dir = paths.run_folder(Path(data_root), run_name)
    image = os.environ.get(IMAGE_VARIABLE, IMAGE)
    place = stages.train(
        find(graph, "PreparedGraph", data_root),
        run_dir=run_dir,
        log_dir=paths.log_folder(Path(data_root), run_name),
        config=config.from_yaml(settings),
        workers=workers,
        request=params.job_request(
            launcher, job, workers=workers, run_id=run_id, image=image, run_dir=run_dir
        ),
    )
    sha256 = describe(model, place, "TrainedModel", data_root)
    files.copy_directory(place, Path(model.path))
    log_figures(metrics, files.read_manifest(place, "TrainedModel").facts)
    return sha256


@step
def evaluate(
    model: Artifact,
    model_sha256: str,
    graph: Artifact,
    *,
    data_root: str,
    report: Artifact,
    metrics: Metrics,
    classification: ClassificationMetrics,
) -> str:
    """Make an EvalReport; returns its digest."""
    trained = find(model, "TrainedModel", data_root, model_sha256)
    place = stages.evaluate(
        trained, graph=find(graph, "PreparedGraph", data_root), run_dir=trained.parent
    )
    sha256 = describe(report, place, "EvalReport", data_root)
    files.copy_file(place / "report.json", Path(report.path))
    _log_scores(metrics, files.read_json(place / "report.json"))
    _log_curves(classification, files.read_json(place / "curves.json"))
    return sha256


@step
def publish(
    report: Artifact,
    report_sha256: str,
    model: Artifact,
    out_dir: str,
    *,
    data_root: str,
    summary: Artifact,
    page: Artifact,
) -> None:
    """Put the results where people look, and on the run page."""
    place = find(report, "EvalReport", data_root, report_sha256)
    name = paths.name_of(Path(data_root), place.parent)
    log_dir = paths.log_folder(Path(data_root), name)
    out = _out_folder(out_dir, data_root, name)
    trained = find(model, "TrainedModel", data_root)
    stages.publish(place, model=trained, log_dir=log_dir, out_dir=out)
    files.copy_file(out / "report.html", Path(page.path))
    where = {"Run": name, "Report and model": out, "TensorBoard logs": log_dir}
    lines = [
        f"- {markdown.escape(what)}: {markdown.escape(str(value))}" for what, value in where.items()
    ]
    text = markdown.summary(Report.read(out))
    files.write_text(Path(summary.path), "\n".join([text, *lines, ""]))
    run = paths.RunPaths(Path(data_root), name)
    mlflow.log_run(place, model=trained, run=run, out=out, is_required=not run.is_trial)


def _out_folder(out_dir: str, data_root: str, name: str) -> Path:
    return Path(data_root) / out_dir if out_dir else paths.published_folder(Path(data_root), name)


def _source(dataset: str, data_root: str) -> str:
    """A folder or an archive on the volume may be named relative to `data_root`; all else stays as it is."""
    place = Path(data_root) / dataset
    is_path = dataset and dataset not in NAMED_DATASETS and "://" not in dataset
    return str(place) if is_path and place.exists() else dataset


def _log_scores(metrics: Metrics, report: dict[str, Any]) -> None:
    log_figures(metrics, {f"test {name}": value for name, value in report["test"].items()})
    log_figures(
        metrics, {f"{name} mrr": scores["mrr"] for name, scores in report["baselines"].items()}
    )


def _log_curves(classification: ClassificationMetrics, curves: dict[str, Any]) -> None:
    roc = curves["roc"]
    last = len(roc["threshold"]) - 1
    shown = sorted({round(last * point / (ROC_POINTS - 1)) for point in range(ROC_POINTS)})
    fpr, tpr, threshold = (
        [roc[name][index] for index in shown] for name in ("fpr", "tpr", "threshold")
    )
    classification.log_roc_curve(fpr, tpr, threshold)
    classification.log_confusion_matrix(["no citation", "citation"], curves["confusion"])
