"""The training loop: step, agree with the other ranks, and now and then measure, keep the best and save."""

import contextlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from citeflow import files
from citeflow.config import Config
from citeflow.errors import StoppedError, TrainingError
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.metrics import rank_positives
from citeflow.evaluation.scoring import sample_held_out, score_held_out
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.structural import StructuralFeatures
from citeflow.reporting.tensorboard import RunLog
from citeflow.sampling import PartitionSampler
from citeflow.training import checkpoint
from citeflow.training.checkpoint import Progress
from citeflow.training.distributed import Group
from citeflow.training.lease import Lease
from citeflow.training.objective import Inputs, Objective, make_inputs
from citeflow.training.preemption import StopRequests
from citeflow.training.schedule import learning_rate
from citeflow.utils.logging import log
from citeflow.utils.system import malloc_trim

AGAIN = "run it again"
VALIDATION_SOURCES = 2000
"""Held-out citations that a validation during training looks at."""
RECORD_EVERY_S, RECORD_SHARE = 1.0, 0.001
"""Time between two records of the history: so much, or so much of the time that has passed; it stays short in a day."""


@dataclass(kw_only=True, slots=True)
class Training:
    """Everything that the loop works on."""

    graph: PreparedGraph
    structural: StructuralFeatures
    config: Config
    group: Group
    model: LinkPredictor
    optimizer: torch.optim.Optimizer
    progress: Progress
    best: dict[str, Tensor]
    attempt: Lease
    """Whose checkpoints go to `checkpoints`, as long as it owns the run."""

    checkpoints: Path
    inputs: files.Json
    """Digests of what the run is made from; a checkpoint of anything else is refused."""
    run_log: RunLog | None
    """Of rank 0."""
    stops: StopRequests
    saved: tuple[int, int] = (-1, -1)
    """Place of the last checkpoint."""


def fit(training: Training) -> None:
    """Train to the end; `training.best` holds the model with the best validation MRR, `progress` how it came about.

    Raises:
        StoppedError: a rank was asked to stop; the checkpoint holds all steps that were taken.
        TrainingError: a loss, a gradient or a score was not finite.
        TakenOver: another attempt owns the run.
    """
    train, papers, workers = (
        training.config.train,
        training.graph.num_papers,
        training.group.world_size,
    )
    plan = PartitionSampler(
        num_papers=papers,
        nodes_per_batch=train.nodes_per_batch,
        world_size=workers,
        seed=train.seed,
    )
    with contextlib.closing(_Batches(training, plan)) as batches:
        batches.wait()
        training.group.sum(0)  # the first batch takes long where the disk is cold
        with training.stops.waiting():
            _train(training, _Clock(training, plan), batches)
            _save(training)
    with training.stops.at_once():
        if (
            not training.progress.evaluations
            or training.progress.evaluations[-1]["step"] < training.progress.step
        ):
            _evaluate(training)
    _save(training)


def _train(training: Training, clock: "_Clock", batches: "_Batches") -> None:
    ddp = _in_parallel(training)
    share = clock.share(training)
    while share < 1:
        _evaluate_if_due(training, share)
        inputs = batches.take(training.progress.step)
        loss = _forward_backward(training, ddp, inputs)
        mean_loss, positives, stops = _agree(training, loss, inputs.num_positives)
        _update(training, share)
        training.progress.step += 1
        training.progress.positives += round(positives)
        share = clock.share(training)
        _record(training, clock, mean_loss)
        if training.progress.step % training.config.recovery.checkpoint_steps == 0:
            _save(training)
        if stops:
            _save(training)
            where = "" if training.saved == training.progress.place else ", not saved"
            raise StoppedError(
                "training was asked to stop", f"step {training.progress.step}{where}", hint=AGAIN
            )


def _in_parallel(training: Training) -> DistributedDataParallel:
    """The objective, its gradients averaged over the ranks in the same order before a restart and after it.

    DDP lays its buckets out anew after the first step of a process, but not where it looks for unused parameters.
    """
    how: dict[str, Any] = {"forward_sync_buffers": False, "find_unused_parameters": True}
    objective = Objective(training.model, training.config.train.loss)
    return DistributedDataParallel(objective, process_group=training.group.in_step, **how)


class _Clock:
    """How much of the training is done, the same on every rank."""

    def __init__(self, training: Training, plan: PartitionSampler) -> None:
        self._began = time.monotonic() - training.progress.seconds
        self._steps = max(1, math.ceil(training.config.train.epochs * plan.steps_per_epoch))
        self.recorded_at, self.recorded_positives = (
            training.progress.seconds,
            training.progress.positives,
        )

    def share(self, training: Training) -> float:
        """Share of the training that is done, by rank 0's clock or by epochs; reaches 1 at the end."""
        train, progress = training.config.train, training.progress
        progress.seconds = time.monotonic() - self._began
        if not train.minutes:
            return progress.step / self._steps
        return training.group.sum_in_step(
            training.group.is_first * progress.seconds / (60 * train.minutes)
        )[0]


class _Batches:
    """Makes the batch of the next step on a thread, while this step is computed."""

    def __init__(self, training: Training, plan: PartitionSampler) -> None:
        self._training, self._plan = training, plan
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._next = self._thread.submit(self._make, training.progress.step)

    def take(self, step: int) -> Inputs:
        """The batch of a step; steps are taken one after the other."""
        inputs = self._next.result()
        self._next = self._thread.submit(self._make, step + 1)
        return inputs

    def wait(self) -> None:
        """Wait until the next batch is made."""
        self._next.exception()

    def close(self) -> None:
        """Wait for the thread to end."""
        self._thread.shutdown(cancel_futures=True)

    def _make(self, step: int) -> Inputs:
        training = self._training
        return make_inputs(
            self._plan.partition(step, training.group.rank),
            graph=training.graph,
            structural=training.structural,
            config=training.config,
            seed=_seed(training, step),
        )


def _seed(training: Training, step: int) -> tuple[int, int, int]:
    return training.config.train.seed, step, training.group.rank


def _forward_backward(training: Training, ddp: DistributedDataParallel, inputs: Inputs) -> Tensor:
    torch.manual_seed(
        int(np.random.SeedSequence(_seed(training, training.progress.step)).generate_state(1)[0])
    )
    training.optimizer.zero_grad(set_to_none=True)
    loss: Tensor = ddp(inputs.to(training.group.device))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _agree(training: Training, loss: Tensor, num_positives: int) -> tuple[float, float, float]:
    """Mean loss, citations trained on and requests to stop, over all ranks, before anything is changed."""
    group = training.group
    total_loss, positives, stops = group.sum_in_step(loss.item(), num_positives, training.stops())
    _require_finite("loss is", total_loss, training.progress.step)
    return total_loss / group.world_size, positives, stops


def _require_finite(what: str, total: float, step: int) -> None:
    if not math.isfinite(total):
        raise TrainingError(
            f"the {what} not finite",
            f"{total} at step {step}",
            hint="lower train.lr, or set train.max_grad_norm",
        )


def _update(training: Training, share: float) -> None:
    train = training.config.train
    norm = torch.nn.utils.clip_grad_norm_(
        training.model.parameters(), train.max_grad_norm or math.inf
    )
    _require_finite(
        "gradient is", norm.item(), training.progress.step
    )  # the mean of all ranks, and so the same on all
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate(train.lr, training.progress.step, share)
    training.optimizer.step()


def _record(training: Training, clock: _Clock, loss: float) -> None:
    progress = training.progress
    passed = progress.seconds - clock.recorded_at
    if not training.group.is_first or (
        progress.history and passed < max(RECORD_EVERY_S, RECORD_SHARE * progress.seconds)
    ):
        return
    speed = (progress.positives - clock.recorded_positives) / passed
    clock.recorded_at, clock.recorded_positives = progress.seconds, progress.positives
    entry = {**_position(training), "loss": loss, "lr": training.optimizer.param_groups[0]["lr"]}
    progress.history.append({**entry, "positives_per_s": speed})
    if training.run_log:
        training.run_log.step(progress.history[-1])


def _position(training: Training) -> dict[str, float]:
    progress = training.progress
    epoch = progress.positives / max(1, len(training.graph.references.index_E))
    return {
        "step": progress.step,
        "epoch": epoch,
        "seconds": progress.seconds,
        "wall_time": time.time(),
    }


def _evaluate_if_due(training: Training, share: float) -> None:
    part = int(share * training.config.train.num_validations)
    if part > training.progress.evaluated_part:
        _save(training)
        training.progress.evaluated_part = part
        with training.stops.at_once():
            _evaluate(training)
        _save(training)


def _evaluate(training: Training) -> None:
    """Measure the validation MRR, the ranks sharing the work, and keep the model if it is the best so far."""
    group, progress = training.group, training.progress
    part = sample_held_out(
        training.graph.valid, most=VALIDATION_SOURCES, rank=group.rank, world_size=group.world_size
    )
    malloc_trim()
    embedding_NH = embed_all(training.model, training.graph, group)
    reciprocal = 0.0
    if len(part.source_P):
        score = torch.from_numpy(
            score_held_out(training.model, embedding_NH, training.structural, part)
        )
        is_finite = bool(score.isfinite().all())
        reciprocal = (
            float((1 / rank_positives(score[:, 0], score[:, 1:]).double()).sum())
            if is_finite
            else math.nan
        )
    del embedding_NH
    malloc_trim()
    total, count = group.sum(reciprocal, len(part.source_P))
    _require_finite("scores are", total, progress.step)
    mrr = total / count
    progress.evaluations.append({**_position(training), "valid_mrr": mrr})
    if mrr > progress.best_mrr:
        progress.best_mrr = mrr
        training.best = {name: value.clone() for name, value in training.model.state_dict().items()}
    if group.is_first:
        _tell(training)


def _tell(training: Training) -> None:
    progress = training.progress
    facts = {"loss": progress.history[-1]["loss"]} if progress.history else {}
    facts |= {name: progress.evaluations[-1][name] for name in ("epoch", "valid_mrr")}
    log("train", "evaluated", seconds=round(progress.seconds), step=progress.step, **facts)
    if training.run_log:
        training.run_log.evaluation(progress.evaluations[-1])


def _save(training: Training) -> None:
    """Write a checkpoint, if there is anything new to save; no rank goes on before it is written."""
    if training.saved == training.progress.place:
        return
    progress, failed = training.progress, False
    total = sum(float(value.abs().max()) for value in training.model.state_dict().values())
    _require_finite("weights are", total, progress.step)
    if training.group.is_first:
        training.attempt.assert_held()
        failed = _write(training)
    if not training.group.sum(failed)[0]:
        training.saved = progress.place


def _write(training: Training) -> bool:
    """Write a checkpoint; returns whether that failed: those before are whole, and the next one may find room."""
    state: dict[str, Any] = {
        name: getattr(training, name) for name in ("model", "optimizer", "best", "progress")
    }
    try:
        checkpoint.save(training.checkpoints, inputs=training.inputs, **state)
    except OSError as error:
        step = training.progress.step
        log(
            "train",
            "could not save a checkpoint",
            step=step,
            why=error.strerror,
            path=error.filename,
        )
        return True
    return False
