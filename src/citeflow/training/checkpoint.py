"""What a run needs to go on after it was stopped: one directory that is replaced whole."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from citeflow import files
from citeflow.errors import ConfigError

KIND = "Checkpoint"


@dataclass(kw_only=True, slots=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0
    """Time spent training, over all starts."""

    positives: int = 0
    """Citations trained on, over all ranks."""

    evaluated_part: int = 0
    """How many of the equal parts of the training had passed at the last evaluation."""

    best_mrr: float = -1.0
    """Best validation MRR so far, of the model in `best`."""

    history: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)


def save(
    folder: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
    progress: Progress,
    inputs: files.Json,
) -> None:
    """Replace the checkpoint in one step."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    with files.new_directory(folder) as work:
        files.save_tensors(work / "state.safetensors", tensors)
        files.write_json(work / "progress.json", asdict(progress))
        files.write_manifest(work, KIND, inputs=inputs, facts={"step": progress.step})


def load(
    folder: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, inputs: files.Json
) -> tuple[Progress, dict[str, Tensor]]:
    """Put model and optimizer back where the checkpoint left them; a fresh start where there is none.

    Returns:
        How far the run had come, and the state of its best model.

    Raises:
        ConfigError: the checkpoint belongs to another graph, configuration or number of workers.
        CorruptError: it was damaged.
    """
    if not folder.exists():
        return Progress(), {}
    manifest = files.verify(folder, KIND)
    if manifest["inputs"] != inputs:
        hint = "choose another run name, or delete the folder to start afresh"
        raise ConfigError("the run was begun with other data, settings or workers", folder, hint=hint)
    tensors = safetensors.torch.load_file(folder / "state.safetensors")
    model.load_state_dict(_below("model.", tensors))
    _load_optimizer(optimizer, _below("optimizer.", tensors))
    return Progress(**files.read_json(folder / "progress.json")), _below("best.", tensors)


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
