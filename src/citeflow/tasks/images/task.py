"""The image task: classification by small convolutional networks.

The modules that need torch or Pillow are imported where they are used, so that a launcher stays
small.
"""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from citeflow import files
from citeflow.artifacts import TRAINED_MODEL, ClassificationMetrics, write_preview
from citeflow.config import Presets, TaskConfig
from citeflow.paths import RunPaths
from citeflow.report import Curves
from citeflow.tasks.base import OpenTask, Settings
from citeflow.tasks.images.config import ImagesConfig, from_dict
from citeflow.tasks.names import Criterion, Names

if TYPE_CHECKING:
    from citeflow.serving.served import Served, Service

WORKER_BYTES = 450 << 20
"""Private memory of a worker before its first batch: torch, its threads, the process group."""

COMMAND_BYTES = 350 << 20
"""Of the command and torchrun."""

PASSES = 3
"""An activation, its gradient, and what a convolution keeps besides."""

STAGE_BYTES = 4
"""Memory of a stage per byte of the dataset's files."""


class ImagesTask:
    """Image classification; the second implementation of `Task`."""

    name = ImagesConfig.task
    names = Names(score="valid_accuracy", metric="accuracy", samples="images")
    config = ImagesConfig
    presets: Presets = MappingProxyType({"default": {}})
    datasets = ("garments", "digits", "fashion-mnist", "mnist")
    models = (
        "{plain: {model: {architecture: plain}}, dropout: {model: {architecture: dropout}}, "
        "batch-norm: {model: {architecture: batch_norm}}, resnet: {model: {architecture: resnet}}}"
    )
    search_space = """\
train.lr: {low: 0.0005, high: 0.02, log: true}
train.batch_size: [32, 64, 128]
model.architecture: [plain, dropout, batch_norm, resnet]
model.channels: [16, 32, 64]
"""
    prepared_kind = "PreparedImages"
    memory_hint = (
        "lower train.batch_size or model.channels, start fewer workers, or raise the limit"
    )

    def download(self, dataset: str, *, data_root: Path, settings: TaskConfig) -> Path:
        """Bring images below the data root."""
        from citeflow.tasks.images.datasets import download_dataset

        assert isinstance(settings, ImagesConfig)
        return download_dataset(dataset, data_root=data_root, config=settings)

    def stage_memory(self, raw: Path) -> float:
        """Return what the images take: they are read in blocks, and mapped."""
        manifest = files.read_manifest(raw, "RawDataset")
        return STAGE_BYTES * sum(entry.bytes for entry in manifest.files.values())

    def preprocess(self, raw: Path, *, data_root: Path, settings: Settings) -> Path:
        """Make the PreparedImages of a RawDataset."""
        from citeflow.tasks.images.preparation import prepare

        return prepare(raw, data_root=data_root, config=from_dict(settings).data)

    def open(self, data: Path, settings: Settings, *, data_root: Path | None = None) -> OpenTask:
        """Map PreparedImages into memory."""
        from citeflow.tasks.images.prepared import PreparedImages
        from citeflow.tasks.images.training import OpenImagesTask

        return OpenImagesTask(PreparedImages.open(data), from_dict(settings), data_root)

    def memory_needed(
        self, data: Path, settings: Settings, workers: int, *, allowed: int | None = None
    ) -> int:
        """Estimate the peak memory of the workers of one machine together, in bytes."""
        from citeflow.tasks.images.models import activation_floats
        from citeflow.tasks.images.prepared import PreparedImages
        from citeflow.tasks.images.training import ROWS_AT_A_TIME, shape_of

        config = from_dict(settings)
        images = PreparedImages.open(data)
        floats = activation_floats(shape_of(images.facts), config.model)
        step = PASSES * config.train.batch_size * floats
        # A validation needs the largest layers only, and keeps none.
        rows = max(step, ROWS_AT_A_TIME * floats)
        return int(COMMAND_BYTES + images.image_NHWC.nbytes + workers * (WORKER_BYTES + 4 * rows))

    def evaluate(self, model: Path, *, data: Path, run: RunPaths, runs_code: bool = False) -> Path:
        """Classify the held-out images of the test split."""
        from citeflow.tasks.images.evaluator import evaluate

        return evaluate(model, data=data, run=run, runs_code=runs_code)

    def publish(self, report: Path, *, model: Path, run: RunPaths, out: Path) -> None:
        """Put report, page, model and TensorBoard's logs where people look."""
        from citeflow.tasks.images.publish import publish

        publish(report, model=model, run=run, out=out)

    def log_to_mlflow(
        self, report: Path, *, model: Path, run: RunPaths, out: Path, is_required: bool
    ) -> None:
        """Log a published run to MLflow where that is set up."""
        from citeflow.reporting import mlflow
        from citeflow.tasks.images.publish import read_for_mlflow

        mlflow.log_run(
            report, model=model, run=run, out=out, read=read_for_mlflow, is_required=is_required
        )

    def results(self, folder: Path) -> "ImageResults":
        """Read a report of images."""
        return ImageResults(folder)

    def criterion(self, settings: TaskConfig) -> Criterion:
        """Return the accuracy."""
        label = f"Validation {self.names.metric}"
        return Criterion(
            name=self.names.score,
            label=label,
            test_label=f"test {self.names.metric}",
            curve="valid/accuracy",
            curve_label=label,
        )

    def validation_score(self, model: Path, *, data: Path, settings: TaskConfig) -> float:
        """Return the best accuracy of the training."""
        return files.read_manifest(model, TRAINED_MODEL).number(self.names.score)

    def write_index(self, model: Path, folder: Path, *, find_data: Callable[[], Path]) -> Path:
        """Copy what answers need of the model; none of them needs its images."""
        from citeflow.serving.images.index import write_index

        return write_index(model, folder)

    def open_index(self, folder: Path) -> "Served":
        """Read a ServingIndex of a classifier."""
        from citeflow.serving.images.index import ImageIndex

        return ImageIndex.open(folder)

    def service(self) -> "Service":
        """Return the routes about pictures."""
        from citeflow.serving.images.routes import SERVICE

        return SERVICE


class ImageResults:
    """A report of images."""

    def __init__(self, folder: Path) -> None:
        from citeflow.tasks.images.report import ImageReport

        self.folder = folder
        self.report = ImageReport.read(folder)

    def test(self) -> dict[str, float]:
        """Return accuracy, loss and F1."""
        return self.report.test.model_dump(exclude={"accuracy_ci"})

    def metrics(self) -> dict[str, float]:
        """Return the figures of the test, and the best baseline's accuracy."""
        test = {f"test_{name}": value for name, value in self.test().items()}
        best = max(self.report.baselines.values(), default=0.0)
        return {**test, "valid_accuracy": self.report.valid.accuracy, "baseline_accuracy": best}

    def log_curves(self, classification: ClassificationMetrics) -> None:
        """Show the confusion matrix."""
        categories = list(self.report.facts.classes)
        matrix = Curves.read(self.folder).confusion
        classification.log_confusion_matrix(categories, matrix)
        confusion = {"categories": categories, "matrix": matrix}
        write_preview(classification, {"confusion_matrix": confusion})

    def summary(self) -> str:
        """Return result and tables as Markdown."""
        from citeflow.tasks.images import page

        return page.summary(self.report)

    def table(self) -> str:
        """Return the figures in aligned columns."""
        from citeflow.tasks.images import page

        return page.table(self.report)
