"""Checkpoints of a run: one folder per step, which appears whole or not at all.

Every random number of a step is drawn from the seed, the step and the rank, and the batches of an
epoch follow from the seed and the step. So the step is the state of every generator and sampler.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import safetensors.numpy
import safetensors.torch
import torch
from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from safetensors import SafetensorError
from torch import Tensor, nn

from citeflow import files
from citeflow.errors import CiteflowError, ConfigError, CorruptError, NotFoundError, to_user_error
from citeflow.utils.logging import log
from citeflow.utils.records import Record

KIND = "Checkpoint"

MAX_KEPT = 2
"""Whole checkpoints that are kept: the newest, and one in case that it gets damaged."""

PROGRESS = "progress.json"
TENSORS = "state.safetensors"
START_AGAIN = "delete the folder of the checkpoints to start afresh, or bring one of them back"
_NAME = re.compile(r"step-\d{8}")


def _check_only(value: float, check: ValidatorFunctionWrapHandler) -> float:
    """Validate a number without converting it: a step stays a whole number in the records."""
    check(value)
    return value


Number = Annotated[float, WrapValidator(_check_only)]


class Progress(Record):
    """Progress of a training; the trainer updates it after every step."""

    model_config = ConfigDict(frozen=False, strict=True, populate_by_name=True)

    step: int = 0
    """Optimizer steps taken."""

    seconds: float = 0.0
    """Time spent in training, over all starts of the workers."""

    samples: int = Field(0, alias="positives")
    """Samples trained on, over all ranks."""

    validations_due: int = Field(0, alias="evaluated_part")
    """Validations that were due so far, by the share of the training that is done."""

    best_score: float = Field(-1.0, alias="best_mrr")
    """Best validation score so far: that of the model in `best`."""

    history: list[dict[str, Number]] = Field(default_factory=list)
    """Records of steps."""

    evaluations: list[dict[str, Number]] = Field(default_factory=list)
    """Records of validations."""

    spent: dict[str, float] = Field(default_factory=dict)
    """Seconds of wall time by the causes of `training.goodput`."""

    spent_at: float = 0.0
    """End of the time that `spent` accounts for, in seconds since 1970; 0 before there is any."""

    @property
    def key(self) -> tuple[int, int]:
        """Step and number of validations: checkpoints with the same key are the same."""
        return self.step, len(self.evaluations)


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedState:
    """The state of a training as bytes: what a checkpoint holds, and one rank sends to others."""

    step: int = 0
    """Step to resume from."""

    validations: int = 0
    """Validations that were made."""

    progress: bytes = b""
    """JSON of a Progress; empty for a fresh start."""

    tensors: bytes = b""
    """Model, optimizer and best model, as safetensors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A copy of the state of a training, which may go on meanwhile."""

    step: int
    validations: int
    progress: bytes
    tensors: dict[str, Tensor]

    def to_bytes(self) -> SavedState:
        """Write it as bytes, for which a step should not have to wait."""
        return SavedState(
            step=self.step,
            validations=self.validations,
            progress=self.progress,
            tensors=_serialize(self.tensors),
        )


def _serialize(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of `safetensors.torch.save`, in a third of the time that steps wait for."""
    try:
        return safetensors.numpy.save({name: each.numpy() for name, each in tensors.items()})
    except TypeError:  # NumPy has no bfloat16
        return safetensors.torch.save(dict(tensors))


def capture(
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    best: dict[str, Tensor],
    progress: Progress,
) -> Snapshot:
    """Copy the state of a training."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    return Snapshot(
        step=progress.step,
        validations=len(progress.evaluations),
        progress=progress.model_dump_json(by_alias=True).encode(),
        tensors={
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in tensors.items()
        },
    )


def write(folder: Path, state: SavedState, inputs: Mapping[str, JsonValue]) -> None:
    """Write the checkpoint of a step, then delete those that are no longer needed.

    Raises:
        OSError: it could not be written; those before are untouched.
    """
    with files.new_directory(folder / f"step-{state.step:08d}") as work:
        files.write_bytes(work / TENSORS, state.tensors)
        files.write_bytes(work / PROGRESS, state.progress)
        files.write_manifest(work, KIND, inputs=inputs, facts={"step": state.step})
    _delete_old(folder)


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint, whole or not; 0 if there is none."""
    return max((_step(path) for path in _newest_first(folder)), default=0)


def read(folder: Path, inputs: Mapping[str, JsonValue]) -> SavedState:
    """Read the newest checkpoint that is whole; a fresh start where there is none at all.

    Damaged ones are reported in the log.

    Raises:
        ConfigError: it belongs to other data, another configuration or number of workers.
        CorruptError: there are checkpoints, and none of them is whole.
        OSError: one of them cannot be read at the moment, and no other is whole.
    """
    paths = _newest_first(folder)
    unreadable: OSError | None = None
    for path in paths:
        try:
            found, state = _read(path)
        except (CiteflowError, OSError) as error:
            if isinstance(error, OSError):
                unreadable = error
            message = to_user_error(error)
            log("train", "a checkpoint is damaged", what=message.what, path=message.value)
            continue
        _check_inputs(folder, found, inputs)
        return state
    # Neither case may become a fresh start: hours of training would be lost without a word.
    if unreadable:
        raise unreadable
    if paths:
        raise CorruptError("every checkpoint is damaged", folder, hint=START_AGAIN)
    return SavedState()


def restore(
    state: SavedState, *, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor]]:
    """Load a checkpoint into model and optimizer; a fresh start changes nothing.

    Returns:
        The progress, and the state of the best model.

    Raises:
        CorruptError: the content is not that of a checkpoint; nothing in it is ever executed.
    """
    if not state.progress:
        return Progress(), {}
    try:
        progress = _parse_progress(state)
        tensors = safetensors.torch.load(state.tensors)
        model.load_state_dict(_with_prefix("model.", tensors))
        _load_optimizer(optimizer, _with_prefix("optimizer.", tensors))
    except (ValueError, TypeError, LookupError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise CorruptError("not a checkpoint of citeflow", reason, hint=START_AGAIN) from None
    return progress, _with_prefix("best.", tensors)


@files.again_if_stale
def _read(path: Path) -> tuple[dict[str, JsonValue], SavedState]:
    """Return the inputs that a checkpoint was made from, and its content."""
    manifest = files.verify(path, KIND)
    step = _step(path)
    if manifest.files.keys() != {PROGRESS, TENSORS} or manifest.facts != {"step": step}:
        raise CorruptError("not a checkpoint of citeflow", path)
    progress = (path / PROGRESS).read_bytes()
    tensors = (path / TENSORS).read_bytes()
    return manifest.inputs, SavedState(step=step, progress=progress, tensors=tensors)


def _parse_progress(state: SavedState) -> Progress:
    try:
        progress = Progress.model_validate_json(state.progress)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{field}: {first['msg']}") from None
    if progress.step != state.step:
        raise ValueError(f"step {progress.step} in the checkpoint of step {state.step}")
    return progress


def _check_inputs(
    folder: Path, found: Mapping[str, JsonValue], inputs: Mapping[str, JsonValue]
) -> None:
    differing = [
        f"{key} {found.get(key)}, now {value}"
        for key, value in inputs.items()
        if found.get(key) != value
    ]
    if differing:
        hint = f"choose another run name, or delete {folder} to start afresh"
        what = "the run was started with other data, settings or workers"
        raise ConfigError(what, ", ".join(differing), hint=hint)


def _delete_old(folder: Path) -> None:
    """Keep the newest whole checkpoints; a deletion that fails is logged, and retried next time."""
    kept = 0
    for path in _newest_first(folder):
        try:
            if kept < MAX_KEPT and _is_whole(path):
                kept += 1
            else:
                files.delete_directory(path)
        except OSError as error:
            log("train", "a checkpoint could not be read or deleted", why=error.strerror, path=path)


def _is_whole(path: Path) -> bool:
    try:
        files.verify(path, KIND)
    except (CorruptError, NotFoundError):
        return False
    return True


def _newest_first(folder: Path) -> list[Path]:
    """List the checkpoints of a run; anything else in the folder belongs to somebody else."""
    names = sorted(files.names_in(folder), reverse=True)
    paths = [folder / name for name in names if _NAME.fullmatch(name)]
    return [path for path in paths if not path.is_file()]


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
