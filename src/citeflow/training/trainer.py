"""The training loop: step, agree with the other ranks, and now and then validate and save."""

import contextlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from citeflow.errors import StoppedError, TrainingError
from citeflow.paths import RunPaths
from citeflow.report import TrainSummary
from citeflow.reporting.tensorboard import RunLog
from citeflow.tasks.base import Batch, OpenTask, Trainable
from citeflow.training import checkpoint, goodput
from citeflow.training.checkpoint import Progress, SavedState, Snapshot
from citeflow.training.checkpoint_writer import CheckpointWriter
from citeflow.training.distributed import Group
from citeflow.training.handover import Handover
from citeflow.training.lease import Lease
from citeflow.training.preemption import PreemptionHandler
from citeflow.training.resources import ResourceSummary
from citeflow.training.schedule import learning_rate
from citeflow.training.standing import Standing
from citeflow.utils.logging import log

RECORD_EVERY_S = 1.0
"""Time between two records of the history; a longer one in a long training."""

RECORD_SHARE = 0.001
"""The same as a share of the time that has passed, so that the history of a day stays short."""

LOWER_LR = "lower train.lr, or set train.max_grad_norm"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumePoint:
    """The state from which every rank continues: that of a checkpoint, or one handed over."""

    lease: Lease
    inputs: dict[str, JsonValue]
    """Digests of what the run is made from; a checkpoint of anything else is refused."""

    state: SavedState

    is_handed_over: bool = False
    """True if the state is newer than all checkpoints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedTraining:
    """A training as its task saves it."""

    progress: Progress
    summary: TrainSummary
    resources: ResourceSummary
    inputs: dict[str, JsonValue]


class Trainer:
    """Trains a model by DistributedDataParallel, and resumes where an earlier process stopped."""

    def __init__(
        self,
        task: OpenTask,
        run: RunPaths,
        start: ResumePoint,
        *,
        group: Group,
        preemption: PreemptionHandler,
        checkpoint_steps: int,
    ) -> None:
        """Build the model, and load the checkpoint into it.

        Args:
            task: the task, with its data and settings.
            run: paths of the run.
            start: what to resume from.
            group: the process group.
            preemption: requests to stop.
            checkpoint_steps: steps between two checkpoints.
        """
        self.settings = task.train
        self.names = task.names
        self.run = run
        self.group = group
        self.preemption = preemption
        self.trainable: Trainable = task.begin(group)
        self.model = self.trainable.model
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self.settings.lr)
        self.lease = start.lease
        self.inputs = start.inputs
        self.writer = CheckpointWriter(run.checkpoints, start.inputs, start.lease)
        self.checkpoint_steps = checkpoint_steps
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self.resume(start.state)
        self.goodput = goodput.resume(self.progress, run, group)
        # No loss depends on a buffer that changes in training, such as the running mean of batch
        # norm: a task that validates by them takes those of rank 0.
        self.ddp = DistributedDataParallel(
            self.trainable.objective,
            process_group=group.step_group,
            forward_sync_buffers=False,
        )
        self.run_log: RunLog | None = None
        self._activity = "training"
        self._share = 0.0
        self._saved = self.progress.key if self.progress.step and not start.is_handed_over else None
        self._is_settled = True
        self._changes_buffers = False
        self._buffers_before: list[Tensor] = []
        self._started_at = 0.0
        self._recorded_at = 0.0
        self._recorded_samples = 0

    def resume(self, state: SavedState) -> None:
        """Load a checkpoint: model, optimizer, best model and progress."""
        self.progress, self.best = checkpoint.restore(
            state, model=self.model, optimizer=self.optimizer
        )
        if self.group.is_main:
            log(
                "train",
                "resuming" if self.progress.step else "starting",
                step=self.progress.step,
                attempt=self.lease.number,
                workers=self.group.world_size,
                parameters=self.num_parameters,
                threads=torch.get_num_threads(),
                device=str(self.group.device),
            )
            if self.settings.precision == "bfloat16" and not _multiplies_bfloat16():
                log("train", "this processor has no instructions for bfloat16; float32 is faster")

    def fit(self) -> None:
        """Train to the end; `best` then holds the model with the best validation score.

        Raises:
            StoppedError: a rank was asked to stop; the checkpoint holds every step that was taken.
            TrainingError: a loss, a gradient, a score or a weight was not finite.
            LeaseLost: another start of the workers holds the run.
        """
        with contextlib.ExitStack() as stack:
            if self.group.is_main:
                self.run_log = _open_run_log(self.run, self.progress)
                stack.callback(self.run_log.close)
            stack.callback(self.writer.close)
            batches = Prefetcher(self.trainable, self.progress.step)
            stack.callback(batches.close)
            batches.wait()
            self.group.barrier()  # the first batch takes long where the disk is cold
            self._start_clock()
            share = self._share_done()
            if share < 1:
                self._rebuild_buckets(batches.peek())
                self._start_clock()
            self.goodput.switch("steps")
            with self.preemption.deferred():
                while share < 1:
                    self._validate_if_due(share)
                    with self.goodput.measure("waiting"):
                        batch = batches.take(self.progress.step)
                    loss, stop = self.train_step(batch, share)
                    share = self._share_done()
                    self._record(loss)
                    if self._changes_buffers:
                        self.group.broadcast_buffers_in_step(self.model)
                        self._is_settled = True
                    if self.progress.step % self.checkpoint_steps == 0:
                        self.save()
                    if stop:
                        self._stop()
                self.save()
            self.goodput.switch("validation")
            batches.close()
            with self.preemption.immediate():
                if not self._is_validated:
                    self.validate(self.settings.num_validations)
            self.save()
            self._wait_until_saved()

    def train_step(self, batch: Batch, share: float) -> tuple[float, bool]:
        """Take one optimizer step.

        Args:
            batch: the input of this rank.
            share: share of the training that is done, which the learning rate follows.

        Returns:
            The mean loss of all ranks, and whether one of them was asked to stop.
        """
        progress = self.progress
        if self._changes_buffers:
            self._buffers_before = [buffer.clone() for buffer in self.model.buffers()]
        local_loss = self._forward_backward(batch)
        total_loss, samples, stop = self.group.all_reduce_in_step(
            local_loss.item(), batch.num_samples, self.preemption.requested
        )
        self._check_finite("loss is", total_loss)
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), self.settings.max_grad_norm or math.inf
        )
        # The gradient is the mean over all ranks, so all of them come to the same verdict.
        self._check_finite("gradient is", norm.item())
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings.lr, progress.step, share)
        self._is_settled = False
        self.optimizer.step()
        progress.step += 1
        progress.samples += round(samples)
        self._buffers_before = []
        # Of buffers, those of rank 0 count; the others have yet to get them.
        self._is_settled = self.group.is_main or not self._changes_buffers
        return total_loss / self.group.world_size, stop > 0

    def validate(self, due: int) -> None:
        """Measure the score, the ranks sharing the work, and keep the model if it is the best.

        Args:
            due: validations that are due so far.
        """
        progress = self.progress
        name = self.names.score
        self._activity = "validating"
        sums, count = self.trainable.validate()
        *totals, count_of_all = self.group.all_reduce(*sums.values(), count)
        self._activity = "training"
        self._check_finite("scores are", sum(totals))
        figures = {each: total / count_of_all for each, total in zip(sums, totals, strict=True)}
        score = figures[name]
        self._is_settled = False
        progress.evaluations.append({**self._position(), **figures})
        if score > progress.best_score:
            progress.best_score = score
            self.best = {name: value.clone() for name, value in self.model.state_dict().items()}
        progress.validations_due = due
        self._is_settled = True
        if self.group.is_main:
            latest = progress.evaluations[-1]
            loss = {"loss": progress.history[-1]["loss"]} if progress.history else {}
            facts = {**loss, "epoch": latest["epoch"], **figures}
            log("train", "evaluated", seconds=round(progress.seconds), step=progress.step, **facts)
        if self.run_log:
            self.run_log.evaluation(progress.evaluations[-1])

    def save(self) -> None:
        """Have a checkpoint written if there is anything new, while the training goes on."""
        if self._saved == self.progress.key:
            return
        with self.goodput.measure("checkpoint"):
            weights = self.model.state_dict().values()
            self._check_finite("weights are", sum(float(value.abs().max()) for value in weights))
            if self.group.is_main:
                self.writer.submit(self._capture())
        self._saved = self.progress.key

    def leave(self, handover: Handover) -> None:
        """Hand over the state after the last step, if it is whole, to those that come next."""
        if not self._is_settled:
            return
        if self._buffers_before:
            self._restore_buffers()
        if self.progress.step:
            handover.leave(self._capture().to_bytes())

    def load_best(self) -> None:
        """Load the model with the best validation score."""
        self._is_settled = False  # the state of the last step is in the checkpoint, and gone here
        self.model.load_state_dict(self.best)
        self._activity = "finishing"

    def standing(self) -> Standing:
        """Say how far the training is; may be called on another thread than that of the steps."""
        progress = self.progress
        history, evaluations = progress.history, progress.evaluations
        return Standing(
            activity=self._activity,
            step=progress.step,
            num_steps=None if self.settings.minutes else self._num_steps,
            share=self._share,
            seconds=progress.seconds,
            samples=progress.samples,
            loss=history[-1]["loss"] if history else None,
            score=evaluations[-1][self.names.score] if evaluations else None,
        )

    def finished(self, resources: ResourceSummary) -> FinishedTraining:
        """Return what the model's files say of the training."""
        progress = self.progress
        self.goodput.switch("validation")
        names = ("cpu_cores", "others_share", "peak_memory_bytes")
        used = {name: resources.train.get(name) for name in names}
        summary = TrainSummary(
            workers=self.group.world_size,
            epochs=progress.samples / self.trainable.samples_per_epoch,
            steps=progress.step,
            positives=progress.samples,
            seconds=progress.seconds,
            positives_per_s=progress.samples / max(progress.seconds, 1e-9),
            parameters=self.num_parameters,
            goodput=goodput.ratio(progress.spent),
            wall_seconds=sum(progress.spent.values()),
            losses=goodput.losses(progress.spent),
            **used,
        )
        return FinishedTraining(
            progress=progress, summary=summary, resources=resources, inputs=self.inputs
        )

    @property
    def num_parameters(self) -> int:
        """Weights that are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _forward_backward(self, batch: Batch) -> Tensor:
        # Seeded by step and rank, so that the dropout of a resumed training is what it would have
        # been.
        seed = (self.settings.seed, self.progress.step, self.group.rank)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(
            self.group.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"
        ):
            loss: Tensor = self.ddp(batch.to(self.group.device))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _rebuild_buckets(self, batch: Batch) -> None:
        """Run one backward pass whose gradients are dropped.

        In the first forward pass after the first backward pass of a process, DDP rebuilds its
        buckets in the order in which the gradients were ready. With three workers and more, gloo
        adds up in an order that depends on where in its bucket a gradient is. So the first step of
        a resumed process would have other bits than the same step of a process that ran through,
        unless no step is taken with the layout that a process starts with.

        Buffers that the forward pass has changed, as batch norm does, are put back.
        """
        self._buffers_before = [buffer.clone() for buffer in self.model.buffers()]
        self._forward_backward(batch)
        self.optimizer.zero_grad(set_to_none=True)
        pairs = zip(self.model.buffers(), self._buffers_before, strict=True)
        is_changed = not all(torch.equal(buffer, value) for buffer, value in pairs)
        (self._changes_buffers,) = (bool(total) for total in self.group.all_reduce(is_changed))
        self._restore_buffers()

    def _restore_buffers(self) -> None:
        """Undo what a forward pass has done whose step is not taken."""
        for buffer, value in zip(self.model.buffers(), self._buffers_before, strict=True):
            buffer.copy_(value)
        self._buffers_before = []

    def _validate_if_due(self, share: float) -> None:
        due = int(share * self.settings.num_validations)
        if due > self.progress.validations_due:
            self.save()
            with self.preemption.immediate(), self.goodput.measure("validation"):
                self.validate(due)
            self.save()

    @property
    def _is_validated(self) -> bool:
        evaluations = self.progress.evaluations
        return bool(evaluations) and evaluations[-1]["step"] >= self.progress.step

    def _stop(self) -> None:
        self.save()
        suffix = "" if self._wait_until_saved() else ", not saved"
        step = f"step {self.progress.step}{suffix}"
        raise StoppedError("training was asked to stop", step, hint="run it again")

    def _start_clock(self) -> None:
        self._started_at = time.monotonic() - self.progress.seconds
        self._recorded_at = self.progress.seconds
        self._recorded_samples = self.progress.samples

    def _share_done(self) -> float:
        """Return the share of the training that is done, the same on every rank; 1 at the end."""
        self.progress.seconds = time.monotonic() - self._started_at
        if self.settings.minutes:
            share = self.progress.seconds / (60 * self.settings.minutes)
            self._share = self.group.broadcast_in_step(share)
        else:
            self._share = self.progress.step / self._num_steps
        return self._share

    @property
    def _num_steps(self) -> int:
        return max(1, math.ceil(self.settings.epochs * self.trainable.steps_per_epoch))

    def _record(self, loss: float) -> None:
        progress = self.progress
        passed = progress.seconds - self._recorded_at
        interval = max(RECORD_EVERY_S, RECORD_SHARE * progress.seconds)
        if progress.history and passed < interval:
            return
        record = {
            **self._position(),
            "loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "positives_per_s": (progress.samples - self._recorded_samples) / passed,
        }
        self._recorded_at = progress.seconds
        self._recorded_samples = progress.samples
        progress.history.append(record)
        if self.run_log:
            self.run_log.step(record)

    def _position(self) -> dict[str, float]:
        return {
            "step": self.progress.step,
            "epoch": self.progress.samples / self.trainable.samples_per_epoch,
            "seconds": self.progress.seconds,
            "wall_time": time.time(),
        }

    def _capture(self) -> Snapshot:
        return checkpoint.capture(
            model=self.model, optimizer=self.optimizer, best=self.best, progress=self.progress
        )

    def _wait_until_saved(self) -> bool:
        """Wait until the last checkpoint is on the disk; return whether it could be written."""
        with self.goodput.measure("checkpoint"):
            return self.group.broadcast_object(self.writer.wait)

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            step = f"{value} at step {self.progress.step}"
            raise TrainingError(f"the {what} not finite", step, hint=LOWER_LR)


class Prefetcher:
    """Makes the batch of the next step on a thread, while this step is computed."""

    def __init__(self, trainable: Trainable, step: int) -> None:
        self._trainable = trainable
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._next = self._thread.submit(trainable.make_batch, step)

    def wait(self) -> None:
        """Wait until the next batch is made."""
        self._next.exception()

    def peek(self) -> Batch:
        """Return the next batch without taking it."""
        return self._next.result()

    def take(self, step: int) -> Batch:
        """Return the batch of a step, and start to make the one of the step after it."""
        batch = self._next.result()
        self._next = self._thread.submit(self._trainable.make_batch, step + 1)
        return batch

    def close(self) -> None:
        """Wait for the thread to end."""
        self._thread.shutdown(cancel_futures=True)


def _multiplies_bfloat16() -> bool:
    """True for a GPU, and for a processor with AVX512-BF16, AMX or Arm's BF16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return any(value for name, value in capabilities.items() if name.endswith("bf16"))


def _open_run_log(run: RunPaths, progress: Progress) -> RunLog:
    """Open the curves of a run, purged behind the step that is resumed from.

    Records of that very step may have been shown after its checkpoint was written, and so be purged
    as well: they are written again.
    """
    run_log = RunLog(run.logs, purge_step=progress.step or None)
    for add, records in (
        (run_log.step, progress.history),
        (run_log.evaluation, progress.evaluations),
    ):
        if records and records[-1]["step"] == progress.step:
            add(records[-1])
    return run_log
