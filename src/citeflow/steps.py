"""What the body of a pipeline component calls: a stage, and the artifacts that Kubeflow Pipelines shows of its result.

Nothing here imports kfp; an artifact is whatever has the attributes below. Large data stays on the volume: an artifact
carries a noun's manifest, and in its metadata the digest and the folder of the noun, relative to `data_root`.
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import yaml

from citeflow import config, files, form, lastwords, runs, stages
from citeflow.cluster.spec import IMAGE, IMAGE_VARIABLE
from citeflow.data.raw import NAMED_DATASETS
from citeflow.errors import CorruptError, NotFoundError, tellable
from citeflow.reporting import markdown
from citeflow.stopping import stoppable

ROC_POINTS = 100
"""At most as many points of a ROC curve go to the run page, which keeps them in its database."""

UNCACHED = "start the run again with caching off, as a step that is taken from the cache makes nothing"
"""The hint where an artifact stands for something that is not there."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Artifact(Protocol):
    """The part of a KFP artifact that the steps use."""

    path: str
    metadata: dict[str, Any]


class Metrics(Artifact, Protocol):
    """Figures that the run page shows in a table."""

    def log_metric(self, metric: str, value: float) -> None:
        """Add one figure."""


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


def _step(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """End the process with the error's two lines and exit code, and leave the error where the caller finds it."""

    @functools.wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            with stoppable():
                return function(*args, **kwargs)
        except Exception as error:
            told = tellable(error)
            lastwords.leave(told)
            print(told, file=sys.stderr, flush=True)
            raise SystemExit(told.exit_code) from None

    return run


@_step
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
    resolved = form.resolve(
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
    name = run_name or runs.make_name(dataset, run_id[:8].lower())
    run_dir = runs.run_folder(Path(data_root), name)
    form.job_request(launcher, job, workers=workers, run_id=run_id, run_dir=run_dir)
    stages.check_places(Path(data_root), _out_folder(out_dir, data_root, name))
    place = stages.download(_source(dataset, data_root), data_root=Path(data_root), config=resolved)
    sha256 = _carry(raw, place, "RawDataset", data_root)
    data_resolved = yaml.safe_dump({"data": resolved.to_dict()["data"]})
    return Settled(sha256, name, config.to_yaml(resolved), data_resolved)


@_step
def preprocess(raw: Artifact, raw_sha256: str, settings: str, *, data_root: str, graph: Artifact) -> str:
    """Make a PreparedGraph; returns its digest."""
    source = _find(raw, "RawDataset", data_root, raw_sha256)
    place = stages.preprocess(source, data_root=Path(data_root), config=config.from_yaml(settings))
    return _carry(graph, place, "PreparedGraph", data_root)


@_step
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
    run_dir = runs.run_folder(Path(data_root), run_name)
    image = os.environ.get(IMAGE_VARIABLE, IMAGE)
    place = stages.train(
        _find(graph, "PreparedGraph", data_root),
        run_dir=run_dir,
        log_dir=runs.log_folder(Path(data_root), run_name),
        config=config.from_yaml(settings),
        workers=workers,
        request=form.job_request(launcher, job, workers=workers, run_id=run_id, image=image, run_dir=run_dir),
    )
    sha256 = _describe(model, place, "TrainedModel", data_root)
    files.copy_directory(place, Path(model.path))
    _log_figures(metrics, files.read_manifest(place, "TrainedModel")["facts"])
    return sha256


@_step
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
    trained = _find(model, "TrainedModel", data_root, model_sha256)
    place = stages.evaluate(trained, graph=_find(graph, "PreparedGraph", data_root), run_dir=trained.parent)
    sha256 = _describe(report, place, "EvalReport", data_root)
    files.copy_file(place / "report.json", Path(report.path))
    _log_scores(metrics, files.read_json(place / "report.json"))
    _log_curves(classification, files.read_json(place / "curves.json"))
    return sha256


@_step
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
    place = _find(report, "EvalReport", data_root, report_sha256)
    name = place.parent.name
    log_dir = runs.log_folder(Path(data_root), name)
    out = _out_folder(out_dir, data_root, name)
    stages.publish(place, model=_find(model, "TrainedModel", data_root), log_dir=log_dir, out_dir=out)
    files.copy_file(out / "report.html", Path(page.path))
    where = {"Run": name, "Report and model": out, "TensorBoard logs": log_dir}
    lines = [f"- {markdown.escape(what)}: {markdown.escape(str(value))}" for what, value in where.items()]
    text = markdown.summary(files.read_json(out / "report.json"))
    files.write_text(Path(summary.path), "\n".join([text, *lines, ""]))


def _out_folder(out_dir: str, data_root: str, name: str) -> Path:
    return Path(data_root) / out_dir if out_dir else runs.published_folder(Path(data_root), name)


def _source(dataset: str, data_root: str) -> str:
    """A folder or an archive on the volume may be named relative to `data_root`; all else stays as it is."""
    place = Path(data_root) / dataset
    is_path = dataset and dataset not in NAMED_DATASETS and "://" not in dataset
    return str(place) if is_path and place.exists() else dataset


def _carry(artifact: Artifact, place: Path, kind: str, data_root: str) -> str:
    """Let an artifact hold a noun's manifest; returns the noun's digest."""
    files.copy_file(place / files.MANIFEST, Path(artifact.path))
    return _describe(artifact, place, kind, data_root)


def _describe(artifact: Artifact, place: Path, kind: str, data_root: str) -> str:
    manifest = files.read_manifest(place, kind)
    sha256 = str(manifest["sha256"])
    facts = {name: value for name, value in manifest["facts"].items() if isinstance(value, (str, int, float, bool))}
    artifact.metadata.update(facts)
    artifact.metadata.update(kind=kind, sha256=sha256, location=str(place.relative_to(data_root)))
    return sha256


def _find(artifact: Artifact, kind: str, data_root: str, sha256: str = "") -> Path:
    """The folder of the noun that an artifact stands for.

    Raises:
        NotFoundError: it is no longer on the volume.
        CorruptError: something else lies there by now, or a part of it is missing.
    """
    location = Path(str(artifact.metadata.get("location", "")))
    if location == Path() or location.is_absolute() or ".." in location.parts:
        raise CorruptError(f"not an artifact of a {kind}", artifact.path, hint=UNCACHED)
    place = Path(data_root) / location
    if not (place / files.MANIFEST).is_file():
        raise NotFoundError(f"the {kind} is no longer on the volume", place, hint=UNCACHED)
    try:
        found = files.read_manifest(place, kind)["sha256"]
    except CorruptError as error:
        raise CorruptError(error.what, error.value, hint=UNCACHED) from None
    if found != (sha256 or artifact.metadata.get("sha256")):
        hint = f"{UNCACHED}; if another run has the same name, under another one"
        raise CorruptError(f"not the {kind} that this run made", place, hint=hint)
    return place


def _log_figures(metrics: Metrics, facts: dict[str, Any]) -> None:
    for name, value in facts.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            metrics.log_metric(name, float(value))


def _log_scores(metrics: Metrics, report: dict[str, Any]) -> None:
    _log_figures(metrics, {f"test {name}": value for name, value in report["test"].items()})
    _log_figures(metrics, {f"{name} mrr": scores["mrr"] for name, scores in report["baselines"].items()})


def _log_curves(classification: ClassificationMetrics, curves: dict[str, Any]) -> None:
    roc = curves["roc"]
    last = len(roc["threshold"]) - 1
    shown = sorted({round(last * point / (ROC_POINTS - 1)) for point in range(ROC_POINTS)})
    fpr, tpr, threshold = ([roc[name][index] for index in shown] for name in ("fpr", "tpr", "threshold"))
    classification.log_roc_curve(fpr, tpr, threshold)
    classification.log_confusion_matrix(["no citation", "citation"], curves["confusion"]["matrix"])
