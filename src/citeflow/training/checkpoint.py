"""Checkpoints of a run: a folder for each, named by its step, which appears whole or not at all.

All random numbers of a step are drawn from the seed, the step and the rank, and the parts of an epoch are dealt in an
order that the seed and the step decide: so the step is also the state of every generator and of the sampler.
"""

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from citeflow import files
from citeflow.errors import CiteflowError, ConfigError, CorruptError, NotFoundError, to_user_error
from citeflow.utils.logging import log

KIND = "Checkpoint"

KEPT = 2
"""Whole checkpoints that are kept: the newest, and one for the case that it is damaged."""

PROGRESS, TENSORS = "progress.json", "state.safetensors"
AFRESH = "delete the folder of the checkpoints to start afresh, or bring one of them back"
_NAME = re.compile(r"step-\d{8}")


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

    @property
    def place(self) -> tuple[int, int]:
        """Step and number of evaluations: two checkpoints of one place are the same."""
        return self.step, len(self.evaluations)


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """A checkpoint as bytes: what rank 0 reads, and sends to the others."""

    step: int = 0
    """Where it goes on from."""

    progress: bytes = b""
    """JSON of a Progress; empty for a fresh start."""

    tensors: bytes = b""
    """Of model, optimizer and best model, as safetensors."""


def save(
    folder: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
    progress: Progress,
    inputs: files.Json,
) -> None:
    """Add the checkpoint of a step, then delete those that are no longer needed.

    Raises:
        OSError: it could not be written; those before are as they were.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    with files.new_directory(folder / f"step-{progress.step:08d}") as work:
        files.save_tensors(work / TENSORS, tensors)
        files.write_text(work / PROGRESS, _as_json(progress))
        files.write_manifest(work, KIND, inputs=inputs, facts={"step": progress.step})
    _delete_old(folder)


def read(folder: Path, inputs: files.Json) -> State:
    """The newest checkpoint that is whole, or a fresh start where there is none; one that is damaged is told.

    Raises:
        ConfigError: it belongs to another graph, configuration or number of workers.
        CorruptError: there are checkpoints, and none of them is whole.
        OSError: nor can one of them be read just now.
    """
    places, unreadable = _newest_first(folder), None
    for place in places:
        try:
            found, state = _read(place)
        except (CiteflowError, OSError) as error:
            told, unreadable = (
                to_user_error(error),
                error if isinstance(error, OSError) else unreadable,
            )
            log("train", "a checkpoint is damaged", what=told.what, path=told.value)
            continue
        _require_same(folder, found, inputs)
        return state
    if unreadable:
        raise unreadable
    if places:
        raise CorruptError("every checkpoint is damaged", folder, hint=AFRESH)
    return State()


def restore(
    state: State, *, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor]]:
    """Put model and optimizer where a checkpoint left them; a fresh start changes nothing.

    Returns:
        How far the run had come, and the state of its best model.

    Raises:
        CorruptError: it does not hold what it should; nothing in it is ever executed.
    """
    if not state.progress:
        return Progress(), {}
    try:
        progress, tensors = _progress(state), safetensors.torch.load(state.tensors)
        model.load_state_dict(_below("model.", tensors))
        _load_optimizer(optimizer, _below("optimizer.", tensors))
    except (
        ValueError,
        TypeError,
        LookupError,
        RecursionError,
        RuntimeError,
        SafetensorError,
    ) as error:
        raise CorruptError(
            "not a checkpoint of citeflow", str(error).splitlines()[0], hint=AFRESH
        ) from None
    return progress, _below("best.", tensors)


@files.again_if_stale
def _read(place: Path) -> tuple[files.Json, State]:
    """What a checkpoint was made from, and its bytes."""
    manifest, step = files.verify(place, KIND), int(place.name.removeprefix("step-"))
    if manifest.files.keys() != {PROGRESS, TENSORS} or manifest.facts != {"step": step}:
        raise CorruptError("not a checkpoint of citeflow", place)
    progress, tensors = ((place / name).read_bytes() for name in (PROGRESS, TENSORS))
    return manifest.inputs, State(step=step, progress=progress, tensors=tensors)


def _progress(state: State) -> Progress:
    progress = Progress(**json.loads(state.progress))
    for name, usual in asdict(Progress()).items():
        if not isinstance(
            getattr(progress, name), (int, float) if isinstance(usual, float) else type(usual)
        ):
            raise TypeError(f"{name} is none")
    if progress.step != state.step:
        raise ValueError(f"step {progress.step} in the checkpoint of step {state.step}")
    return progress


def _as_json(progress: Progress) -> str:
    """Without indentation and copies, which take ten times as long where the history is."""
    return json.dumps(
        {each.name: getattr(progress, each.name) for each in fields(progress)}, allow_nan=False
    )


def _require_same(folder: Path, found: files.Json, inputs: files.Json) -> None:
    differing = [
        f"{key} {found.get(key)}, now {value}"
        for key, value in inputs.items()
        if found.get(key) != value
    ]
    if differing:
        hint = f"choose another run name, or delete {folder} to start afresh"
        raise ConfigError(
            "the run was begun with other data, settings or workers",
            ", ".join(differing),
            hint=hint,
        )


def _delete_old(folder: Path) -> None:
    """Keep the newest checkpoints that are whole; a deletion that fails is told, and tried again the next time."""
    kept = 0
    for place in _newest_first(folder):
        try:
            if kept < KEPT and _is_whole(place):
                kept += 1
            else:
                files.delete_directory(place)
        except OSError as error:
            log(
                "train", "a checkpoint could not be read or deleted", why=error.strerror, path=place
            )


def _is_whole(place: Path) -> bool:
    try:
        files.verify(place, KIND)
    except (CorruptError, NotFoundError):
        return False
    return True


def _newest_first(folder: Path) -> list[Path]:
    """The checkpoints of a run; anything else in the folder is somebody's own."""
    places = [
        folder / name
        for name in sorted(files.names_in(folder), reverse=True)
        if _NAME.fullmatch(name)
    ]
    return [place for place in places if not place.is_file()]


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
