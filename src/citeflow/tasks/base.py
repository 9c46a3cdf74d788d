"""The seam between the stages and what is trained: everything that a task has to provide.

The stages, the trainer, the process group, checkpoints, leases and launchers know these protocols
and no task.
A new task is a module that implements `Task`, and one line in `citeflow.tasks.TASKS`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import JsonValue

from citeflow.artifacts import ClassificationMetrics
from citeflow.config import Precision, Presets, TaskConfig
from citeflow.paths import RunPaths
from citeflow.report import ComparedReport, TrainSummary
from citeflow.tasks.names import Criterion, Names

if TYPE_CHECKING:  # a launcher reads this module, and has no use for torch
    import torch
    from torch import nn

    from citeflow.serving.served import Served, Service
    from citeflow.training.checkpoint import Progress
    from citeflow.training.distributed import Group
    from citeflow.training.resources import ResourceSummary

Settings = Mapping[str, JsonValue]
"""All settings of a run as plain values; each task has a record of its own for them."""


class TrainSettings(Protocol):
    """The settings that the trainer itself needs."""

    @property
    def epochs(self) -> float:
        """Passes over the samples; not used where `minutes` is set."""

    @property
    def minutes(self) -> float:
        """Time to train; 0 trains for `epochs`."""

    @property
    def lr(self) -> float:
        """Highest learning rate of Adam."""

    @property
    def max_grad_norm(self) -> float:
        """Gradients are clipped to this norm; 0 does not clip."""

    @property
    def precision(self) -> Precision:
        """Type in which a step multiplies matrices."""

    @property
    def seed(self) -> int:
        """Seed of everything random."""

    @property
    def num_validations(self) -> int:
        """Number of validations during training."""


class Batch(Protocol):
    """The input of one step."""

    @property
    def num_samples(self) -> int:
        """Samples in it."""

    def to(self, device: "torch.device") -> "Batch":
        """Return the same batch on a device."""


class Trainable(Protocol):
    """A model in training on one rank."""

    @property
    def model(self) -> "nn.Module":
        """The weights, which checkpoints hold."""

    @property
    def objective(self) -> "nn.Module":
        """The model with its loss: takes a batch, returns the loss; DDP wraps it."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which all ranks together see every sample about once."""

    @property
    def samples_per_epoch(self) -> int:
        """Samples of the data."""

    def make_batch(self, step: int) -> Batch:
        """Make the batch of a step; called on a background thread.

        It must follow from the seed, the step and the rank alone, so that a resumed training sees
        the batches that it would have seen.
        """

    def validate(self) -> tuple[dict[str, float], int]:
        """Measure the score and other figures on this rank's share of the validation samples.

        Returns:
            The sums over its samples by the name of the figure, NaN if one is not finite, and the
            number of samples. Every rank names the same figures, `names.score` among them.
        """

    def finish(self) -> None:
        """Do what follows the training, such as a calibration; every rank calls it."""

    def save(self, folder: Path, result: "TrainResult") -> None:
        """Write the TrainedModel; rank 0 calls it."""


class TrainResult(Protocol):
    """The trainer's report of a training."""

    @property
    def progress(self) -> "Progress":
        """History, validations and best score."""

    @property
    def summary(self) -> TrainSummary:
        """Facts for the report."""

    @property
    def resources(self) -> "ResourceSummary":
        """Resources that the ranks used."""

    @property
    def inputs(self) -> dict[str, JsonValue]:
        """Digests of what the model was made from."""


class OpenTask(Protocol):
    """A task with its data and settings."""

    @property
    def names(self) -> Names:
        """Words of the task."""

    @property
    def train(self) -> TrainSettings:
        """Settings of the trainer."""

    def inputs(self, world_size: int) -> dict[str, JsonValue]:
        """Return what the model depends on, by digest: a checkpoint of anything else is refused."""

    def begin(self, group: "Group") -> Trainable:
        """Build the untrained model, the same on every rank."""


class Results(Protocol):
    """An EvalReport, or a folder that `publish` made, as the stages show it."""

    @property
    def report(self) -> ComparedReport:
        """Content of report.json."""

    def test(self) -> dict[str, float]:
        """Return the figures on the test split, by name."""

    def metrics(self) -> dict[str, float]:
        """Return ten figures at most for the run page of Kubeflow Pipelines."""

    def log_curves(self, classification: ClassificationMetrics) -> None:
        """Show curves and confusion matrix there; only an EvalReport has them."""

    def summary(self) -> str:
        """Return the result and the tables as Markdown."""

    def table(self) -> str:
        """Return the figures in aligned columns, for the end of a command."""


class Task(Protocol):
    """Something that can be trained, evaluated and reported."""

    @property
    def name(self) -> str:
        """Key in TASKS, in job.json, and name of its pipeline."""

    @property
    def names(self) -> Names:
        """Words of the task."""

    @property
    def config(self) -> type[TaskConfig]:
        """Record of its settings."""

    @property
    def presets(self) -> Presets:
        """Settings to start from, by name; `default` is one."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that have a name."""

    @property
    def models(self) -> str:
        """Models that are compared unless others are named: YAML of the settings of each."""

    @property
    def search_space(self) -> str:
        """Settings that `tune` searches unless others are named: YAML text."""

    @property
    def prepared_kind(self) -> str:
        """Kind of the artifact that `preprocess` makes."""

    @property
    def memory_hint(self) -> str:
        """Settings that lower the need for memory."""

    def download(self, dataset: str, *, data_root: Path, settings: TaskConfig) -> Path:
        """Bring a dataset by name, path or URL below the data root; return the RawDataset."""

    def stage_memory(self, raw: Path) -> float:
        """Guess the bytes that a stage needs for a RawDataset, besides those of torch.

        They depend on the data alone, as KFP's cache looks at all parameters of a step: with other
        settings of the model, preprocess is still to be skipped.
        """

    def preprocess(self, raw: Path, *, data_root: Path, settings: Settings) -> Path:
        """Read, check and split a RawDataset; return the folder that the workers read."""

    def open(self, data: Path, settings: Settings, *, data_root: Path | None = None) -> OpenTask:
        """Open prepared data for training.

        Args:
            data: what `preprocess` has made.
            settings: all settings.
            data_root: where the files of a model of one's own lie; only `begin` needs them.
        """

    def memory_needed(
        self, data: Path, settings: Settings, workers: int, *, allowed: int | None = None
    ) -> int:
        """Estimate the peak memory of the workers of one machine together, in bytes.

        Args:
            data: what `preprocess` has made.
            settings: all settings.
            workers: processes on the machine.
            allowed: bytes that they may use, where a task does with less of it; None for what it
                takes where there is enough.
        """

    def evaluate(self, model: Path, *, data: Path, run: RunPaths, runs_code: bool = False) -> Path:
        """Measure a TrainedModel on the test split; return the EvalReport.

        Args:
            model: its folder.
            data: what `preprocess` has made.
            run: the run that the report belongs to.
            runs_code: run the code that the model may have, which only a worker may; else such a
                model is refused.
        """

    def publish(self, report: Path, *, model: Path, run: RunPaths, out: Path) -> None:
        """Put report, page, model and TensorBoard's logs where people look."""

    def log_to_mlflow(
        self, report: Path, *, model: Path, run: RunPaths, out: Path, is_required: bool
    ) -> None:
        """Log a published run to MLflow where that is set up."""

    def results(self, folder: Path) -> Results:
        """Read an EvalReport, or a folder that `publish` made."""

    def criterion(self, settings: TaskConfig) -> Criterion:
        """Describe the validation score by which `tune` chooses settings."""

    def validation_score(self, model: Path, *, data: Path, settings: TaskConfig) -> float:
        """Return that score of a TrainedModel."""

    def write_index(self, model: Path, folder: Path, *, find_data: Callable[[], Path]) -> Path:
        """Make the ServingIndex of a TrainedModel, unless it is there already in one piece.

        Args:
            model: the TrainedModel.
            folder: of the index, which is returned.
            find_data: finds the prepared data of the model, where the index has a part of it.
        """

    def open_index(self, folder: Path) -> "Served":
        """Verify a ServingIndex, and map it into memory."""

    def service(self) -> "Service":
        """Return routes and page of a server, the same at each call."""
