"""The TrainedModel of images: weights as safetensors, all the rest as JSON."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
from pydantic import JsonValue
from safetensors import SafetensorError

from citeflow import __version__, files
from citeflow.errors import CorruptError
from citeflow.report import Resources, TrainSummary, stage_costs
from citeflow.tasks.base import TrainResult
from citeflow.tasks.images.config import ImagesConfig
from citeflow.tasks.images.models import ImageClassifier, ImageShape
from citeflow.tasks.images.prepared import PreparedImages
from citeflow.utils import records
from citeflow.utils.records import Record

KIND = "TrainedModel"
WEIGHTS = "model.safetensors"
DETAILS = "model.json"
HISTORY = "history.jsonl"
EVALUATIONS = "evaluations.jsonl"
RESOURCES = "resources.json"
REPAIR = "train it again, or copy it again"


class ImageModelDetails(Record):
    """Content of `model.json`."""

    task: str = ImagesConfig.task
    config: ImagesConfig
    dataset: str = ""
    """Name of the dataset; empty in models of older versions."""
    shape: ImageShape
    classes: tuple[str, ...]
    train: TrainSummary
    valid_accuracy: float
    """Validation accuracy of these weights, the best that was measured."""
    versions: dict[str, str]
    """Versions of the packages that made it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Classifier:
    """A model that was read back."""

    model: ImageClassifier
    details: ImageModelDetails


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedClassifier(Classifier):
    """A model that was read back, with how it came about."""

    manifest: files.Manifest
    history: list[dict[str, float]]
    evaluations: list[dict[str, float]]
    resources: Resources


def save(
    folder: Path,
    model: ImageClassifier,
    images: PreparedImages,
    *,
    config: ImagesConfig,
    result: TrainResult,
) -> None:
    """Write a TrainedModel: all that is needed to classify with it again, and how it came about."""
    facts = images.facts
    details = ImageModelDetails(
        config=config,
        dataset=facts.dataset,
        shape=ImageShape(
            height=facts.height,
            width=facts.width,
            channels=facts.channels,
            num_classes=len(facts.classes),
        ),
        classes=facts.classes,
        train=result.summary,
        valid_accuracy=max(each["valid_accuracy"] for each in result.progress.evaluations),
        versions=versions(),
    )
    stages = {**stage_costs(images.manifest), "train": result.resources.cost}
    costs: JsonValue = {name: cost.model_dump(exclude_none=True) for name, cost in stages.items()}
    with files.new_directory(folder) as work:
        files.save_tensors(work / WEIGHTS, model.state_dict())
        files.write_json(work / DETAILS, details.model_dump(mode="json", exclude_none=True))
        files.write_text(work / HISTORY, _to_lines(result.progress.history))
        files.write_text(work / EVALUATIONS, _to_lines(result.progress.evaluations))
        files.write_json(work / RESOURCES, result.resources.series.model_dump(mode="json"))
        files.write_manifest(
            work,
            KIND,
            inputs=result.inputs,
            facts={
                "task": ImagesConfig.task,
                "valid_accuracy": details.valid_accuracy,
                **result.summary.model_dump(exclude_none=True),
                "stages": costs,
            },
        )


def load(folder: Path) -> TrainedClassifier:
    """Read a TrainedModel back.

    Raises:
        NotFoundError: there is none.
        CorruptError: a file does not match its digest, or is not what a training writes.
    """
    manifest = files.verify(folder, KIND)
    classifier = load_classifier(folder)
    try:
        history, evaluations = _read_lines(folder / HISTORY), _read_lines(folder / EVALUATIONS)
    except (LookupError, TypeError, ValueError):
        raise CorruptError("not a model of citeflow", folder, hint=REPAIR) from None
    return TrainedClassifier(
        model=classifier.model,
        details=classifier.details,
        manifest=manifest,
        history=history,
        evaluations=evaluations,
        resources=_load(Resources, folder / RESOURCES),
    )


def load_classifier(folder: Path) -> Classifier:
    """Read weights and details from a folder whose digests are right.

    Raises:
        CorruptError: a file is not what a training writes.
    """
    details = _load(ImageModelDetails, folder / DETAILS)
    model = ImageClassifier(details.shape, details.config.model)
    try:
        model.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    except (SafetensorError, LookupError, RuntimeError, TypeError, ValueError):
        raise CorruptError("not a model of citeflow", folder, hint=REPAIR) from None
    return Classifier(model=model.eval(), details=details)


def _load(record: type[records.R], path: Path) -> records.R:
    return records.load(
        record, files.read_json(path), name=str(path), error=CorruptError, hint=REPAIR
    )


def versions() -> dict[str, str]:
    """Return the versions of the packages that the figures depend on."""
    return {"citeflow": __version__, **{name: version(name) for name in ("torch", "numpy")}}


def _to_lines(entries: list[dict[str, float]]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def _read_lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
