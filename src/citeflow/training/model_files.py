"""The TrainedModel: a directory with the weights as safetensors and all the rest as JSON."""

import dataclasses
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch

from citeflow import __version__, files
from citeflow import config as settings
from citeflow.config import Config
from citeflow.evaluation.calibration import Calibration
from citeflow.graph.prepared import PreparedGraph
from citeflow.learning.model import LinkPredictor

if TYPE_CHECKING:
    from citeflow.training.loop import Training

KIND = "TrainedModel"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """A model that was read back, ready to score."""

    path: Path
    manifest: files.Json
    predictor: LinkPredictor
    calibration: Calibration
    config: Config
    details: files.Json
    """Content of model.json."""
    history: list[dict[str, float]]
    evaluations: list[dict[str, float]]


def inputs_of(graph: PreparedGraph, config: Config, world_size: int) -> files.Json:
    """What a model depends on, by digest."""
    decisive = {name: section for name, section in config.to_dict().items() if name in ("model", "train")}
    return {
        "PreparedGraph": graph.manifest["sha256"],
        "config": files.sha256_of_json(decisive),
        "workers": world_size,
    }


def save(folder: Path, training: "Training", calibration: Calibration) -> None:
    """Write the best model of a training, with its history."""
    progress, config = training.progress, training.config
    model = training.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    details: files.Json = {
        "config": config.to_dict(),
        "shape": {
            "features": len(model.encoder.mean_F),
            "evidence": list(training.evidence.names),
            "scaled": config.train.loss == "contrastive",
        },
        "calibration": dataclasses.asdict(calibration),
        "train": {
            "workers": training.group.world_size,
            "epochs": progress.positives / max(1, len(training.graph.references.index_E)),
            "steps": progress.step,
            "positives": progress.positives,
            "seconds": progress.seconds,
            "positives_per_s": progress.positives / max(progress.seconds, 1e-9),
            "parameters": parameters,
        },
        "valid_mrr": progress.best_mrr,
        "versions": versions(),
    }
    with files.new_directory(folder) as work:
        files.save_tensors(work / "model.safetensors", model.state_dict())
        files.write_json(work / "model.json", details)
        files.write_text(work / "history.jsonl", _lines(progress.history))
        files.write_text(work / "evaluations.jsonl", _lines(progress.evaluations))
        facts = {"valid_mrr": progress.best_mrr, **details["train"]}
        files.write_manifest(work, KIND, inputs=training.inputs, facts=facts)


def load(folder: Path) -> TrainedModel:
    """Read a TrainedModel back.

    Raises:
        NotFoundError: there is none.
        CorruptError: a file does not match its digest.
    """
    manifest = files.verify(folder, KIND)
    details = files.read_json(folder / "model.json")
    config, shape = settings.from_dict(details["config"]), details["shape"]
    predictor = LinkPredictor(shape["features"], len(shape["evidence"]), config.model, scaled=shape["scaled"])
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
    )


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    packages = ("torch", "torch-geometric", "numpy", "scipy")
    return {"citeflow": __version__, **{name: version(name) for name in packages}}


def _lines(records: list[dict[str, float]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _read_lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
