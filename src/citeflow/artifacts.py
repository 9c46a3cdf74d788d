"""The artifacts of a stage: what Kubeflow Pipelines shows of one, and how the next stage finds it.

Large data stays on the shared volume. An artifact carries the manifest of a directory there, and in
its metadata the digest and the path of that directory, relative to the data root. Nothing here
imports kfp: an artifact is whatever has the attributes below, kfp's own or a `LocalArtifact`.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from citeflow import files
from citeflow.attempts import current_attempt, fail
from citeflow.errors import CorruptError, NotFoundError, may_pass, to_user_error
from citeflow.files import termination_message
from citeflow.utils.signals import handle_signals

RAW_DATASET = "RawDataset"
PREPARED_GRAPH = "PreparedGraph"
TRAINED_MODEL = "TrainedModel"
EVAL_REPORT = "EvalReport"
SERVING_INDEX = "ServingIndex"

UNCACHED = "start the run again with caching off, as a step taken from the cache makes nothing"
"""The hint where an artifact stands for something that is no longer there."""


class Artifact(Protocol):
    """The part of a KFP artifact that the stages use."""

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


@dataclass
class LocalArtifact:
    """An artifact of a command of this machine, in place of one that KFP hands over.

    As an output it has no path: there is no run page to copy anything to.
    """

    path: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, kind: str, data_root: Path) -> "LocalArtifact":
        """Return the artifact that stands for a directory.

        Raises:
            NotFoundError: there is no manifest.
            CorruptError: it is of another kind.
        """
        artifact = cls()
        set_metadata(artifact, folder, kind, str(data_root))
        return artifact

    def log_metric(self, metric: str, value: float) -> None:
        """Ignore a figure: a command prints the facts of its manifest."""

    def log_roc_curve(self, fpr: list[float], tpr: list[float], threshold: list[float]) -> None:
        """Ignore a curve: it is in the report."""

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        """Ignore a matrix: it is in the report."""


@contextlib.contextmanager
def component_entrypoint() -> Iterator[None]:
    """Run the body of a component as Kubernetes and `citeflow run` want it to end.

    An error ends the process with its two lines on stderr and its exit code, and is left as the
    container's termination message, where the caller looks for it. In a loop, kfp.local continues
    with other steps after one has failed or was stopped; these end at once. An error that
    may pass is left only by the last attempt (`citeflow.attempts`).

    Raises:
        SystemExit: the body ended with an error that a user can do something about.
    """
    if earlier := termination_message.read():
        raise SystemExit(earlier.exit_code)
    attempt = current_attempt()
    try:
        with termination_message.alive_marker(attempt.parent), handle_signals():
            yield
    except Exception as raised:
        error = to_user_error(raised)
        fail(error, is_final=attempt.is_last or not may_pass(error.exit_code))


def write_manifest(artifact: Artifact, folder: Path, kind: str, data_root: str) -> str:
    """Let an artifact hold the manifest of a directory; return the directory's digest."""
    if artifact.path:
        files.copy_file(folder / files.MANIFEST, Path(artifact.path))
    return set_metadata(artifact, folder, kind, data_root)


def set_metadata(artifact: Artifact, folder: Path, kind: str, data_root: str) -> str:
    """Note which directory an artifact stands for; return the directory's digest."""
    manifest = files.read_manifest(folder, kind)
    facts = {
        name: value
        for name, value in manifest.facts.items()
        if isinstance(value, (str, int, float, bool))
    }
    is_below = folder.is_relative_to(data_root)
    location = folder.relative_to(data_root) if is_below else folder
    artifact.metadata.update(facts)
    artifact.metadata.update(kind=kind, sha256=manifest.sha256, location=str(location))
    return manifest.sha256


def resolve_artifact(artifact: Artifact, kind: str, data_root: str, sha256: str = "") -> Path:
    """Return the directory that an artifact stands for.

    Args:
        artifact: an input of a stage.
        kind: what it has to be.
        data_root: the folder that its location is relative to.
        sha256: the digest that it has to have; empty takes that of its metadata.

    Raises:
        NotFoundError: it is no longer on the volume.
        CorruptError: something else is there by now, or a part of it is missing.
    """
    location = Path(str(artifact.metadata.get("location", "")))
    # What comes over KFP's database must not lead out of the volume; a command may name any folder.
    leads_out = location.is_absolute() or ".." in location.parts
    if location == Path() or (leads_out and not isinstance(artifact, LocalArtifact)):
        raise CorruptError(f"not an artifact of a {kind}", artifact.path, hint=UNCACHED)
    folder = Path(data_root) / location
    if not (folder / files.MANIFEST).is_file():
        raise NotFoundError(f"the {kind} is no longer on the volume", folder, hint=UNCACHED)
    try:
        manifest = files.read_manifest(folder, kind)
    except CorruptError as error:
        raise CorruptError(error.what, error.value, hint=UNCACHED) from None
    if manifest.sha256 != (sha256 or artifact.metadata.get("sha256")):
        hint = f"{UNCACHED}; if another run has the same name, under another one"
        raise CorruptError(f"not the {kind} that this run made", folder, hint=hint)
    return folder


def log_metrics(metrics: Metrics, facts: Mapping[str, object]) -> None:
    """Put the numbers among some facts on the run page, as a table and as a preview."""
    shown = {
        name: _rounded(value)
        for name, value in facts.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    for name, value in shown.items():
        metrics.log_metric(name, value)
    write_preview(metrics, shown)


def write_preview(artifact: Artifact, content: Mapping[str, object]) -> None:
    """Write the file of an artifact, which the run page shows in a preview."""
    if artifact.path:
        files.write_json(Path(artifact.path), content)


def _rounded(value: float) -> float:
    """Keep four digits behind the point of a small number, and none of a large one."""
    return float(round(value, 4) if abs(value) < 1000 else round(value))
