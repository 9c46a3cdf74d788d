"""The TrainedModel of images: weights as safetensors, all the rest as JSON."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
import torch
from pydantic import JsonValue
from safetensors import SafetensorError

from citeflow import __version__, files, own_model
from citeflow.errors import CorruptError
from citeflow.models import own
from citeflow.own_model import OwnFiles
from citeflow.report import Resources, TrainSummary, stage_costs
from citeflow.tasks.base import TrainResult
from citeflow.tasks.images.config import ImagesConfig
from citeflow.tasks.images.models import ClassifierSettings, ImageClassifier, ImageShape, OwnNetwork
from citeflow.tasks.images.prepared import PreparedImages
from citeflow.utils import records
from citeflow.utils.records import Record

KIND = "TrainedModel"
WEIGHTS = "model.safetensors"
DETAILS = "model.json"
HISTORY = "history.jsonl"
EVALUATIONS = "evaluations.jsonl"
RESOURCES = "resources.json"
EXAMPLE_IMAGES = 3
"""Images that a network of one's own is checked on."""
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
    own_files: OwnFiles = own_model.NO_FILES,
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
                **own_model.copy_code(own_files, work),
            },
        )


def build_network(source: str, shape: ImageShape, config: ImagesConfig) -> OwnNetwork:
    """Build the network that code of one's own makes; only a worker of a training may.

    Raises:
        ConfigError: as `models.own.build`.
    """
    settings = ClassifierSettings(
        **shape.model_dump(),
        width_of_layers=config.model.channels,
        hidden=config.model.hidden,
        dropout=config.model.dropout,
        seed=config.train.seed,
    )
    generator = torch.Generator().manual_seed(0)
    size = (EXAMPLE_IMAGES, shape.channels, shape.height, shape.width)
    example = own.Example(
        (torch.randn(size, generator=generator),), (EXAMPLE_IMAGES, shape.num_classes)
    )
    return OwnNetwork(own.build(source, settings, example, seconds=config.sandbox.build_s))


def load(folder: Path, *, runs_code: bool = False) -> TrainedClassifier:
    """Read a TrainedModel back.

    Args:
        folder: its path.
        runs_code: run the code that the model may have, which only a worker may.

    Raises:
        ConfigError: it has code of its own, which may not run here.
        NotFoundError: there is none.
        CorruptError: a file does not match its digest, or is not what a training writes.
    """
    manifest = files.verify(folder, KIND)
    classifier = load_classifier(folder, runs_code=runs_code)
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


def load_classifier(folder: Path, *, runs_code: bool = False) -> Classifier:
    """Read weights and details from a folder whose digests are right.

    Args:
        folder: its path.
        runs_code: as `load`.

    Raises:
        ConfigError: the model has code of its own, which may not run here.
        CorruptError: a file is not what a training writes.
    """
    details = _load(ImageModelDetails, folder / DETAILS)
    network = None
    if not runs_code:
        own_model.refuse_code(details.config.model, folder)
    elif details.config.model.code:
        source = (folder / own_model.CODE).read_text(encoding="utf-8")
        network = build_network(source, details.shape, details.config)
    model = ImageClassifier(details.shape, details.config.model, network)
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
