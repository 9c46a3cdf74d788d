"""The loop, with a task that trains in milliseconds and this process as the only rank."""

import contextlib
import itertools
import math
import os
import signal
import threading

import numpy as np
import pytest
import torch
from toy_task import SAMPLES_PER_STEP, OpenToyTask

from citeflow.config import TrainConfig
from citeflow.errors import StoppedError, TrainingError
from citeflow.paths import RunPaths
from citeflow.report import Resources, StageCost
from citeflow.reporting import event_files
from citeflow.reporting.tensorboard import RunLog
from citeflow.training import checkpoint, lease, trainer
from citeflow.training.checkpoint_writer import CheckpointWriter
from citeflow.training.preemption import PreemptionHandler
from citeflow.training.resources import ResourceSummary
from citeflow.training.schedule import WARM_UP_STEPS, learning_rate
from citeflow.training.trainer import ResumePoint, Trainer

SCORE = OpenToyTask.names.score
QUICK = {"epochs": 0.25, "num_validations": 2}
"""Four steps, validations after the second and the last."""


class StopAfter:
    """Requests to stop after so many steps."""

    def __init__(self, steps=None):
        self.steps = steps
        self.polled = 0

    @property
    def requested(self):
        self.polled += 1
        return self.polled == self.steps

    deferred = immediate = staticmethod(contextlib.nullcontext)


@pytest.fixture
def begin(group, tmp_path):
    """Makes a trainer, or resumes one of the same name."""
    launches = itertools.count()

    def make(*, name="run", preemption=None, checkpoint_steps=100, task=None, **settings):
        run = RunPaths(tmp_path, name)
        task = task or OpenToyTask(TrainConfig(**{**QUICK, **settings}))
        state = checkpoint.read(run.checkpoints, task.inputs(1))
        start = ResumePoint(
            lease=lease.acquire(run.leases, launch=str(next(launches)), step=state.step),
            inputs=task.inputs(1),
            state=state,
        )
        return Trainer(
            task,
            run,
            start,
            group=group,
            preemption=preemption or StopAfter(),
            checkpoint_steps=checkpoint_steps,
        )

    return make


@pytest.fixture
def every_step(monkeypatch):
    """Let every step have a record in the history."""
    monkeypatch.setattr(trainer, "RECORD_EVERY_S", 0)
    monkeypatch.setattr(trainer, "RECORD_SHARE", 0)


def task_of(on_batch=None, on_validate=None, scores=None, **settings):
    task = OpenToyTask(TrainConfig(**{**QUICK, **settings}), scores=scores)
    task.on_batch = on_batch or task.on_batch
    task.on_validate = on_validate or task.on_validate
    return task


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def is_same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def steps_of(records):
    return [record["step"] for record in records]


def batch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_learning_rate_warms_up_and_decays():
    rates = [learning_rate(0.5, step, 0) for step in range(WARM_UP_STEPS + 5)]
    line = np.arange(1, WARM_UP_STEPS + 1) * 0.5 / WARM_UP_STEPS
    assert rates[:WARM_UP_STEPS] == pytest.approx(line)
    assert rates[WARM_UP_STEPS - 1 :] == [0.5] * 6
    rates = [learning_rate(0.5, 1000, share) for share in np.linspace(0, 1, 101)]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], rates[50], rates[100]) == pytest.approx((0.5, 0.5 * 0.505, 0.005))


@pytest.mark.parametrize(
    ("epochs", "num_validations", "steps", "validated"),
    [(1.25, 4, 20, [5, 10, 15, 20]), (0.25, 50, 4, [1, 2, 3, 4]), (0.01, 1, 1, [1])],
)
def test_fit_takes_its_epochs_and_validations(
    begin, monkeypatch, epochs, num_validations, steps, validated
):
    monkeypatch.setattr(trainer, "RECORD_EVERY_S", 1e9)
    run = begin(epochs=epochs, num_validations=num_validations)
    run.fit()
    assert (run.progress.step, run.progress.samples) == (steps, steps * SAMPLES_PER_STEP)
    assert steps_of(run.progress.evaluations) == validated
    assert len(run.progress.history) == 1


def test_fit_keeps_the_best_model_and_not_the_last(begin):
    states = []
    task = task_of(
        on_validate=lambda model: states.append(weights(model)),
        scores=iter([0.2, 0.4, 0.4, 0.3]),
        num_validations=4,
    )
    run = begin(task=task)
    run.fit()
    assert run.progress.best_score == pytest.approx(0.4)
    assert is_same(run.best, states[1])
    run.load_best()
    assert is_same(weights(run.model), states[1])
    assert not is_same(states[1], states[3])


def test_train_step_is_that_of_plain_pytorch(begin):
    """Forward, backward, clip and Adam, with dropout seeded by step and rank."""
    run, plain = begin(lr=0.1, max_grad_norm=0.5), begin(name="plain")
    optimizer = torch.optim.Adam(plain.model.parameters())
    for step, share in ((0, 0.0), (1, 0.25)):
        batch = run.trainable.make_batch(step)
        loss, stop = run.train_step(batch, share)
        seed = np.random.SeedSequence((0, step, 0)).generate_state(1)[0]
        torch.manual_seed(int(seed))
        optimizer.zero_grad()
        expected = plain.trainable.objective(batch)
        expected.backward()
        torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 0.5)
        optimizer.param_groups[0]["lr"] = learning_rate(0.1, step, share)
        optimizer.step()
        assert (loss, stop) == (expected.item(), False)
    assert is_same(weights(run.model), weights(plain.model))


def test_train_step_multiplies_in_the_precision_of_the_settings(begin):
    run, plain = begin(precision="bfloat16"), begin(name="plain")
    found, expected = (
        each.train_step(each.trainable.make_batch(0), 0.0)[0] for each in (run, plain)
    )
    assert found == pytest.approx(expected, rel=0.02)
    assert found != expected
    assert {value.dtype for value in run.model.state_dict().values()} == {torch.float32}


def test_train_step_changes_no_weights_on_a_bad_loss(begin):
    run = begin()
    with torch.no_grad():
        next(run.model.parameters()).fill_(math.inf)
    before = weights(run.model)
    with pytest.raises(TrainingError, match=r"loss is not finite: .* at step 0") as caught:
        run.fit()
    assert "train.lr" in caught.value.hint
    assert is_same(weights(run.model), before)
    assert not run.optimizer.state
    assert checkpoint.read(run.run.checkpoints, run.inputs).step == 0


class InfiniteGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


@pytest.mark.fault("F12")
@pytest.mark.parametrize("max_grad_norm", [1, 0])
def test_train_step_changes_no_weights_on_a_bad_gradient(begin, max_grad_norm):
    run = begin(max_grad_norm=max_grad_norm)
    run.train_step(run.trainable.make_batch(0), 0.0)
    run.model.register_forward_hook(lambda *args: InfiniteGradient.apply(args[-1]))
    before = weights(run.model)
    with pytest.raises(TrainingError, match=r"gradient is not finite: .* at step 1"):
        run.train_step(run.trainable.make_batch(1), 0.0)
    assert is_same(weights(run.model), before)


def test_validate_reports_scores_that_are_not_finite(begin):
    with pytest.raises(TrainingError, match="scores are not finite: nan at step 2"):
        begin(task=task_of(scores=iter([math.nan]))).fit()


@pytest.mark.fault("F12")
def test_save_writes_no_weights_that_are_not_finite(begin):
    run = begin(checkpoint_steps=1)
    run.train_step(run.trainable.make_batch(0), 0.0)
    run.save()
    assert run.writer.wait()
    run.train_step(run.trainable.make_batch(1), 0.0)
    next(run.model.parameters()).data.fill_(math.inf)
    with pytest.raises(TrainingError, match="weights are not finite"):
        run.save()
    assert begin().progress.step == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_resume_continues_as_if_nothing_had_been(begin, steps, precision):
    """Stopped before a validation, when one is due, between two, and after the last step."""
    whole = begin(name="whole", precision=precision)
    whole.fit()
    with pytest.raises(StoppedError, match=f"step {steps}"):
        begin(preemption=StopAfter(steps), precision=precision).fit()
    resumed = begin(precision=precision)
    assert resumed.progress.step == steps
    resumed.fit()
    assert is_same(weights(resumed.model), weights(whole.model))
    assert is_same(resumed.best, whole.best)
    for key in ("step", "samples", "best_score"):
        assert getattr(resumed.progress, key) == getattr(whole.progress, key)
    for key in ("step", "epoch", SCORE):
        found, expected = (
            [record[key] for record in run.progress.evaluations] for run in (resumed, whole)
        )
        assert found == expected


def test_resume_counts_the_seconds_of_all_starts(begin):
    with pytest.raises(StoppedError):
        begin(minutes=60, preemption=StopAfter(2)).fit()
    resumed = begin(minutes=60)
    before = resumed.progress.seconds
    resumed.progress.seconds = 60 * 60 - 0.2
    resumed.fit()
    assert 0 < before < 60
    assert 3600 <= resumed.progress.seconds < 3660


def test_goodput_accounts_for_all_starts(begin):
    with pytest.raises(StoppedError):
        begin(preemption=StopAfter(3)).fit()
    resumed = begin()
    first = dict(resumed.progress.spent)
    assert first["steps"] > 0
    resumed.fit()
    train = resumed.finished(
        ResourceSummary(train={}, cost=StageCost(), series=Resources())
    ).summary
    spent = resumed.progress.spent
    assert all(spent[cause] >= first[cause] for cause in first)
    assert train.wall_seconds == pytest.approx(sum(spent.values()))
    assert train.goodput == pytest.approx(spent["steps"] / train.wall_seconds)
    assert spent.keys() == {"steps", *train.losses}
    assert spent["steps"] > first["steps"]
    assert spent["validation"] > first["validation"]
    assert spent["checkpoint"] > first["checkpoint"]


def test_fit_by_minutes_ignores_the_epochs(begin):
    run = begin(minutes=0.01, epochs=1000)
    run.fit()
    assert 0.6 <= run.progress.seconds < 5
    assert run.optimizer.param_groups[0]["lr"] < 0.2 * run.settings.lr


@pytest.mark.parametrize("failing", [0, 2])
def test_fit_ends_with_its_thread_when_a_batch_cannot_be_made(begin, failing):
    made = []

    def on_batch(step):
        made.append((step, threading.current_thread().name))
        if step == failing:
            raise ZeroDivisionError

    run = begin(task=task_of(on_batch))
    with pytest.raises(ZeroDivisionError):
        run.fit()
    assert run.progress.step == failing
    assert [step for step, _ in made] == list(range(failing + 1))
    assert len({name for _, name in made}) == 1
    assert made[0][1].startswith("batches")
    assert batch_threads() == []


@pytest.mark.fault("F6")
@pytest.mark.parametrize("at_step", [3, 4])
def test_fit_loses_no_step_to_a_signal_in_the_last_one(begin, signal_handlers, at_step):
    """The batch of step 4 is made, and never used, while the last step is computed."""

    def on_batch(step):
        if step == at_step:
            os.kill(os.getpid(), signal.SIGTERM)

    task = task_of(on_batch, num_validations=1)
    with pytest.raises((SystemExit, StoppedError)):
        begin(task=task, preemption=PreemptionHandler()).fit()
    assert begin(num_validations=1).progress.step >= at_step


def test_history_moves_forward_and_is_shown_as_it_is_written(begin, every_step):
    run = begin()
    run.fit()
    history = run.progress.history
    assert steps_of(history) == [1, 2, 3, 4]
    for key in ("seconds", "epoch", "wall_time"):
        values = [record[key] for record in history]
        assert values == sorted(set(values)), key
    assert all(record["positives_per_s"] > 0 for record in history)
    assert steps_shown(run.run.logs, "train/loss") == [1, 2, 3, 4]
    assert steps_shown(run.run.logs, "valid/r2") == [2, 4]


def test_history_of_a_resumed_training_has_its_own_speed(begin, every_step):
    with pytest.raises(StoppedError):
        begin(preemption=StopAfter(2)).fit()
    resumed = begin()
    resumed.progress.seconds = 1e6
    resumed.fit()
    assert resumed.progress.history[2]["positives_per_s"] > 1


def steps_shown(log_dir, tag):
    """Steps that a reader keeps: a file purges what earlier ones say of its first step on."""
    kept = []
    for path in sorted(log_dir.glob("events*")):
        first = event_files.first_step(path)
        kept = [step for step in kept if first is None or step < first]
        kept += [entry.step for entry in event_files.read_scalars(path, tag)]
    return kept


@pytest.mark.fault("F21")
@pytest.mark.parametrize("is_saved", [False, True])
def test_resume_shows_every_validation_once(begin, is_saved):
    """Whether or not a checkpoint was written after the last validation that was shown."""
    run = begin(num_validations=4, preemption=StopAfter(2))
    with pytest.raises(StoppedError):
        run.fit()
    if is_saved:
        run.run_log = None
        run.writer = CheckpointWriter(run.run.checkpoints, run.inputs, run.lease)
        run.validate(due=2)
        run.save()
        assert run.writer.wait()
    else:
        log = RunLog(run.run.logs, purge_step=3)
        log.evaluation({"step": 2, "wall_time": 1e9, SCORE: 0.5})
        log.close()
    begin(num_validations=4).fit()
    assert steps_shown(run.run.logs, "valid/r2") == [1, 2, 3, 4]
