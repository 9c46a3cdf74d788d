"""The TrainedModel: a folder with the weights as safetensors and all the rest as JSON."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
from pydantic import JsonValue
from safetensors import SafetensorError

from citeflow import __version__, files, own_model
from citeflow.config import Config
from citeflow.errors import ConfigError, CorruptError
from citeflow.evaluation.calibration import Calibration
from citeflow.evaluation.scoring import build_structural_features
from citeflow.graph.prepared import PreparedGraph
from citeflow.models import own
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.losses import LOSSES
from citeflow.models.own import EncoderSettings, OwnEncoder
from citeflow.models.structural import StructuralFeatures
from citeflow.report import Resources, StageCost, TrainSummary
from citeflow.utils import records
from citeflow.utils.records import Record

KIND = "TrainedModel"
WEIGHTS = "model.safetensors"
DETAILS = "model.json"
RESOURCES = "resources.json"
REPAIR = "train it again, or copy it again"


class ModelShape(Record):
    """Dimensions that the weights were made for."""

    num_features: int
    """Width of the encoder's input."""
    structural_features: tuple[str, ...]
    """Structural features of a pair, by name, in the order of the weights."""
    scaled: bool
    """Dot products have a learned scale."""


class ModelDetails(Record):
    """Content of `model.json`."""

    config: Config
    shape: ModelShape
    calibration: Calibration
    train: TrainSummary
    valid_mrr: float
    """Validation MRR of these weights, the best that was measured."""
    versions: dict[str, str]
    """Versions of the packages that made it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingFacts:
    """Facts of a training."""

    summary: TrainSummary
    stages: dict[str, StageCost]
    """Costs of the training and of the stages before it."""
    history: list[dict[str, float]]
    """Records of training steps."""
    evaluations: list[dict[str, float]]
    """Records of validations."""
    resources: Resources
    """What the ranks used over time."""
    own_files: own_model.OwnFiles = own_model.NO_FILES
    """Files of one's own that the model was made from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """A model that is ready to score."""

    model: LinkPredictor
    details: ModelDetails

    @property
    def config(self) -> Config:
        """Settings that it was trained with."""
        return self.details.config

    @property
    def calibration(self) -> Calibration:
        """Map from its logits to calibrated ones."""
        return self.details.calibration

    def structural_features(self, graph: PreparedGraph) -> StructuralFeatures:
        """Return the structural features of pairs in a graph that it scores.

        Raises:
            ConfigError: another version trained the model, on other features.
        """
        features = build_structural_features(graph, self.config.model)
        if self.model.uses_structural_features:
            changed = {*features.names} ^ {*self.details.shape.structural_features}
            if changed:
                raise ConfigError(
                    "the model was trained on other structural features",
                    ", ".join(sorted(changed)),
                    hint="run it again: this version trains it anew",
                )
        return features


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel(Scorer):
    """A model that was read back, with how it came about."""

    path: Path
    manifest: files.Manifest
    history: list[dict[str, float]]
    evaluations: list[dict[str, float]]
    resources: Resources


def inputs_of(graph: PreparedGraph, config: Config, world_size: int) -> dict[str, JsonValue]:
    """Return the inputs that decide what model comes out, by digest."""
    return {
        "PreparedGraph": graph.manifest.sha256,
        "config": own_model.decisive(config),
        "workers": world_size,
        **own_model.names(config),
    }


def save(
    folder: Path,
    model: LinkPredictor,
    *,
    config: Config,
    structural_features: tuple[str, ...],
    calibration: Calibration,
    result: TrainingFacts,
    inputs: dict[str, JsonValue],
) -> None:
    """Write a TrainedModel: all that is needed to score with it again, and how it came about.

    Args:
        folder: its path.
        model: the weights.
        config: all settings.
        structural_features: names of the features of a pair, `StructuralFeatures.names`.
        calibration: from logits to probabilities.
        result: how it was trained.
        inputs: what it was made from, by digest.
    """
    shape = ModelShape(
        num_features=len(model.encoder.mean_F),
        structural_features=structural_features,
        scaled=LOSSES[config.train.loss].is_softmax,
    )
    details = ModelDetails(
        config=config,
        shape=shape,
        calibration=calibration,
        train=result.summary,
        valid_mrr=max(each["valid_mrr"] for each in result.evaluations),
        versions=versions(),
    )
    facts = {
        "valid_mrr": details.valid_mrr,
        **result.summary.model_dump(exclude_none=True),
        "stages": {
            name: cost.model_dump(exclude_none=True) for name, cost in result.stages.items()
        },
    }
    with files.new_directory(folder) as work:
        files.save_tensors(work / WEIGHTS, model.state_dict())
        files.write_json(work / DETAILS, details.model_dump(mode="json", exclude_none=True))
        files.write_text(work / "history.jsonl", _to_lines(result.history))
        files.write_text(work / "evaluations.jsonl", _to_lines(result.evaluations))
        files.write_json(work / RESOURCES, result.resources.model_dump(mode="json"))
        facts |= own_model.copy_code(result.own_files, work)
        files.write_manifest(work, KIND, inputs=inputs, facts=facts)


def load(folder: Path, *, runs_code: bool = False) -> TrainedModel:
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
    scorer = load_scorer(folder, runs_code=runs_code)
    with _reading(folder):
        return TrainedModel(
            path=folder,
            manifest=manifest,
            model=scorer.model,
            details=scorer.details,
            history=_read_lines(folder / "history.jsonl"),
            evaluations=_read_lines(folder / "evaluations.jsonl"),
            resources=_read_resources(folder / RESOURCES),
        )


def load_scorer(folder: Path, *, runs_code: bool = False) -> Scorer:
    """Read weights and details from a folder whose digests are right.

    Raises:
        ConfigError: as `load`.
        CorruptError: a file is not what a training writes.
    """
    details = records.load(
        ModelDetails,
        files.read_json(folder / DETAILS),
        name=str(folder / DETAILS),
        error=CorruptError,
        hint=REPAIR,
    )
    encoder = None
    if not runs_code:
        own_model.refuse_code(details.config.model, folder)
    elif details.config.model.code:
        source = (folder / own_model.CODE).read_text(encoding="utf-8")
        encoder = build_encoder(source, details.shape.num_features, details.config)
    with _reading(folder):
        return Scorer(model=_load_weights(folder / WEIGHTS, details, encoder), details=details)


def build_encoder(source: str, num_features: int, config: Config) -> OwnEncoder:
    """Build the encoder that code of one's own makes; only a worker of a training may.

    Raises:
        ConfigError: as `models.own.build`.
    """
    model = config.model
    settings = EncoderSettings(
        num_features=num_features,
        hidden_channels=model.hidden_channels,
        num_layers=model.num_layers,
        aggr=model.aggr,
        normalize=model.normalize,
        dropout=model.dropout,
        seed=config.train.seed,
    )
    example = own.example_of_papers(settings)
    network = own.build(source, settings, example, seconds=config.sandbox.build_s)
    return OwnEncoder(network, num_features)


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        raise CorruptError("not a model of citeflow", folder, hint=REPAIR) from None


def _load_weights(file: Path, details: ModelDetails, encoder: OwnEncoder | None) -> LinkPredictor:
    shape = details.shape
    model = LinkPredictor(
        shape.num_features,
        len(shape.structural_features),
        details.config.model,
        scaled=shape.scaled,
        encoder=encoder,
    )
    model.load_state_dict(safetensors.torch.load_file(file))
    return model.eval()


def versions() -> dict[str, str]:
    """Return the versions of the packages that the figures depend on."""
    packages = ("torch", "torch-geometric", "numpy", "scipy")
    return {"citeflow": __version__, **{name: version(name) for name in packages}}


def _to_lines(entries: list[dict[str, float]]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def _read_lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _read_resources(path: Path) -> Resources:
    # A model that was made before resources were sampled has no such file.
    values = files.read_json(path) if path.exists() else {}
    return records.load(Resources, values, name=str(path), error=CorruptError, hint=REPAIR)
