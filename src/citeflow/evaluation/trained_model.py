"""The TrainedModel: a directory with the weights as safetensors and all the rest as JSON."""

import dataclasses
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from citeflow import __version__, files
from citeflow import config as settings
from citeflow.config import Config
from citeflow.errors import CorruptError
from citeflow.evaluation.calibration import Calibration
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.structural import StructuralFeatures

KIND, RESOURCES = "TrainedModel", "resources.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """A model that was read back, ready to score."""

    path: Path
    manifest: files.Manifest
    predictor: LinkPredictor
    calibration: Calibration
    config: Config
    details: files.Json
    """Content of model.json."""
    history: list[dict[str, float]]
    evaluations: list[dict[str, float]]
    resources: files.Json
    """What the ranks used over time; empty where a model was made before that was sampled."""


def inputs_of(graph: PreparedGraph, config: Config, world_size: int) -> files.Json:
    """What a model depends on, by digest."""
    decisive = {
        name: section for name, section in config.to_dict().items() if name in ("model", "train")
    }
    return {
        "PreparedGraph": graph.manifest.sha256,
        "config": files.sha256_of_json(decisive),
        "workers": world_size,
    }


def save(
    folder: Path,
    model: LinkPredictor,
    *,
    config: Config,
    structural: StructuralFeatures,
    calibration: Calibration,
    train: files.Json,
    used: files.Json | None = None,
    resources: files.Json | None = None,
    history: list[dict[str, float]],
    evaluations: list[dict[str, float]],
    inputs: files.Json,
) -> None:
    """Write a model with all that is needed to score with it again, and how it came about.

    Args:
        folder: where it is to be.
        model: the weights.
        config: all settings.
        evidence: names of what the weights are of.
        calibration: from scores to probabilities.
        train: what the report says of the training.
        used: what the manifest says of its cost, by the names of a stage's cost.
        resources: what was used over time.
        history: records of the steps.
        evaluations: records of the validations.
        inputs: what it was made from, by digest.
    """
    shape = {
        "features": len(model.encoder.mean_F),
        "evidence": list(structural.names),
        "scaled": config.train.loss == "info_nce",
    }
    details: files.Json = {
        "config": config.to_dict(),
        "shape": shape,
        "calibration": dataclasses.asdict(calibration),
        "train": train,
        "valid_mrr": max(each["valid_mrr"] for each in evaluations),
        "versions": versions(),
    }
    with files.new_directory(folder) as work:
        files.save_tensors(work / "model.safetensors", model.state_dict())
        files.write_json(work / "model.json", details)
        files.write_text(work / "history.jsonl", _lines(history))
        files.write_text(work / "evaluations.jsonl", _lines(evaluations))
        files.write_json(work / RESOURCES, resources or {})
        facts = {"valid_mrr": details["valid_mrr"], **train, **(used or {})}
        files.write_manifest(work, KIND, inputs=inputs, facts=facts)


def load(folder: Path) -> TrainedModel:
    """Read a TrainedModel back.

    Raises:
        NotFoundError: there is none.
        CorruptError: a file does not match its digest, or is not what a training writes.
    """
    manifest = files.verify(folder, KIND)
    try:
        return _read(folder, manifest)
    except (SafetensorError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        raise CorruptError(
            "not a model of citeflow", folder, hint="train it again, or copy it again"
        ) from None


def _read(folder: Path, manifest: files.Manifest) -> TrainedModel:
    details = files.read_json(folder / "model.json")
    config, shape = settings.from_dict(details["config"]), details["shape"]
    predictor = LinkPredictor(
        shape["features"], len(shape["evidence"]), config.model, scaled=shape["scaled"]
    )
    predictor.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    return TrainedModel(
        path=folder,
        manifest=manifest,
        predictor=predictor.eval(),
        calibration=Calibration(**details["calibration"]),
        config=config,
        details=details,
        history=_read_lines(folder / "history.jsonl"),
        evaluations=_read_lines(folder / "evaluations.jsonl"),
        resources=files.read_json(folder / RESOURCES) if (folder / RESOURCES).exists() else {},
    )


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    packages = ("torch", "torch-geometric", "numpy", "scipy")
    return {"citeflow": __version__, **{name: version(name) for name in packages}}


def _lines(records: list[dict[str, float]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _read_lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
