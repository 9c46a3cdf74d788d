"""The loop, with this process as the only rank."""

import contextlib
import dataclasses
import itertools
import math
import os
import signal
import threading

import numpy as np
import pytest
import torch

from citeflow import config
from citeflow.errors import StoppedError, TrainingError
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.metrics import mrr_and_hits
from citeflow.evaluation.scoring import build_structural_features, score_held_out
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.tensors import RANDOM_FEATURES
from citeflow.training import checkpoint, trainer, worker
from citeflow.training.lease import claim
from citeflow.training.preemption import StopRequests
from citeflow.training.schedule import WARM_UP_STEPS, learning_rate
from citeflow.training.trainer import Training, fit

QUICK = ["train.epochs=0.25", "train.num_validations=2", "model.dropout=0.3"]
"""Four steps that draw random numbers wherever there are some to draw."""


class Diary:
    """Stands in for the TensorBoard log."""

    def __init__(self):
        self.steps, self.evaluations = [], []

    def step(self, record):
        self.steps.append(record)

    def evaluation(self, record):
        self.evaluations.append(record)


class StopAfter:
    """Asks to stop after so many steps."""

    def __init__(self, steps):
        self.steps, self.taken = steps, 0

    def __call__(self):
        self.taken += 1
        return self.taken == self.steps

    waiting = at_once = staticmethod(contextlib.nullcontext)


@pytest.fixture
def begin(prepared, group, tmp_path):
    """Makes a training, or goes on with one."""
    graph, launches = PreparedGraph.open(prepared.graph), itertools.count()

    def new(*overrides, name="run", stop_after=None):
        settings = config.load(overrides=[*prepared.settings, *QUICK, *overrides])
        structural = build_structural_features(graph, settings.model)
        model = worker.new_model(graph, structural, settings)
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.train.lr)
        state = checkpoint.read(tmp_path / name, {})
        progress, best = checkpoint.restore(state, model=model, optimizer=optimizer)
        return Training(
            graph=graph,
            structural=structural,
            config=settings,
            group=group,
            model=model,
            optimizer=optimizer,
            progress=progress,
            best=best,
            attempt=claim(
                tmp_path / f"attempts of {name}", launch=str(next(launches)), step=progress.step
            ),
            checkpoints=tmp_path / name,
            inputs={},
            run_log=Diary(),
            stops=StopAfter(stop_after),
        )

    return new


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def is_same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_learning_rate_rises_along_a_line_to_its_highest():
    rates = [learning_rate(0.5, step, 0) for step in range(WARM_UP_STEPS + 5)]
    assert rates[:WARM_UP_STEPS] == pytest.approx(
        np.arange(1, WARM_UP_STEPS + 1) * 0.5 / WARM_UP_STEPS
    )
    assert rates[WARM_UP_STEPS - 1 :] == [0.5] * 6


def test_the_learning_rate_falls_along_half_a_cosine_to_a_hundredth():
    rates = [learning_rate(0.5, 1000, share) for share in np.linspace(0, 1, 101)]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], rates[50], rates[100]) == pytest.approx((0.5, 0.5 * 0.505, 0.005))


def test_a_training_takes_its_epochs_and_its_evaluations(begin):
    training = begin("train.nodes_per_batch=400", "train.epochs=5", "train.num_validations=4")
    fit(training)
    assert training.progress.positives == 5 * len(training.graph.references.index_E)
    assert [entry["step"] for entry in training.progress.evaluations] == [5, 10, 15, 20]
    assert training.progress.step == 20


def test_more_evaluations_than_steps_are_one_at_each_step(begin):
    training = begin("train.num_validations=50")
    fit(training)
    assert [entry["step"] for entry in training.progress.evaluations] == [1, 2, 3, 4]


def test_the_best_model_is_kept_and_not_the_last(begin, monkeypatch):
    training = begin("train.num_validations=4")
    states, found = [], iter([0.2, 0.4, 0.4, 0.3])

    def rank_positives(positive_P, negative_PK):
        states.append(copied(training.model))
        return torch.full((len(positive_P),), 1 / next(found))

    monkeypatch.setattr(trainer, "rank_positives", rank_positives)
    fit(training)
    assert training.progress.best_mrr == pytest.approx(0.4)
    assert is_same(training.best, states[1])
    assert not is_same(training.best, states[3])


def test_the_validation_is_that_of_ogb_on_all_that_was_held_out(begin):
    training = begin("train.num_validations=1")
    fit(training)
    embedding_NH = embed_all(training.model, training.graph)
    score = torch.from_numpy(
        score_held_out(training.model, embedding_NH, training.structural, training.graph.valid)
    )
    expected = mrr_and_hits(score[:, 0], score[:, 1:])["mrr"]
    assert training.progress.evaluations[-1]["valid_mrr"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("part", ["encoder", "head"])
def test_a_loss_that_is_not_finite_ends_the_training_before_weights_change(begin, part):
    training = begin()
    with torch.no_grad():
        next(getattr(training.model, part).parameters()).fill_(math.inf)
    before = copied(training.model)
    with pytest.raises(TrainingError, match="not finite: nan at step 0") as caught:
        fit(training)
    assert "train.lr" in caught.value.hint
    assert is_same(copied(training.model), before)
    assert not training.optimizer.state
    assert checkpoint.read(training.checkpoints, {}).step == 0


def test_weights_that_burst_are_told_by_the_next_validation_however_often_one_tries(begin):
    for _ in range(2):
        with pytest.raises(TrainingError, match="scores are not finite: nan at step 1") as caught:
            fit(begin("train.lr=1e18", "train.max_grad_norm=0", "train.num_validations=4"))
        assert "train.lr" in caught.value.hint


@pytest.mark.fault("F12")
def test_weights_that_are_not_finite_are_not_saved(begin, monkeypatch, figure):
    real, spoilt = trainer._update, []

    def spoil(training, share):
        real(training, share)
        if training.progress.step == 2:
            next(training.model.parameters()).data.fill_(math.inf)
            spoilt.append(training.progress.step)

    monkeypatch.setattr(trainer, "_update", spoil)
    with pytest.raises(TrainingError, match="weights are not finite"):
        fit(begin("recovery.checkpoint_steps=1"))
    assert spoilt == [2]
    resumed = begin()
    assert resumed.progress.step == 2
    assert all(value.isfinite().all() for value in resumed.model.state_dict().values())
    figure(checkpoints_not_finite=0)


@pytest.mark.fault("F12")
@pytest.mark.parametrize("clip", ["1", "0"])
def test_a_gradient_that_is_not_finite_ends_the_training_before_weights_change(
    begin, monkeypatch, figure, clip
):
    real, before = trainer._forward_backward, []

    def spoil(training, ddp, inputs):
        loss = real(training, ddp, inputs)
        if training.progress.step == 2:
            next(training.model.parameters()).grad[0] = math.nan
            before.append(copied(training.model))
        return loss

    monkeypatch.setattr(trainer, "_forward_backward", spoil)
    training = begin(f"train.max_grad_norm={clip}")
    with pytest.raises(TrainingError, match="gradient is not finite: nan at step 2"):
        fit(training)
    assert is_same(copied(training.model), *before)
    figure(weights_changed_after=0)


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_a_stopped_training_goes_on_as_if_nothing_had_been(begin, stop_after):
    """Stopped before the first evaluation, when one is due, between two, and after the last step."""
    whole = begin(name="whole")
    fit(whole)
    with pytest.raises(StoppedError, match=f"step {stop_after}"):
        fit(begin(stop_after=stop_after))
    resumed = begin()
    assert resumed.progress.step == stop_after
    fit(resumed)
    assert is_same(copied(resumed.model), copied(whole.model))
    assert is_same(resumed.best, whole.best)
    for key in ("step", "positives", "best_mrr"):
        assert getattr(resumed.progress, key) == getattr(whole.progress, key)
    for key in ("step", "epoch", "valid_mrr"):
        found, expected = (
            [entry[key] for entry in run.progress.evaluations] for run in (resumed, whole)
        )
        assert found == expected


class BrokenError(Exception):
    """What goes wrong while a batch is made."""


def fail_at(monkeypatch, failing):
    """Let no batch be made for a step; returns the steps and the threads of the batches that are asked for."""
    asked, real = [], trainer.make_inputs

    def make_inputs(part, **how):
        step = how["seed"][1]
        asked.append((step, threading.current_thread().name))
        if step == failing:
            raise BrokenError
        return real(part, **how)

    monkeypatch.setattr(trainer, "make_inputs", make_inputs)
    return asked


def batch_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("failing", [0, 2])
def test_a_batch_that_can_not_be_made_ends_the_training_and_its_thread(begin, monkeypatch, failing):
    asked = fail_at(monkeypatch, failing)
    training = begin()
    with pytest.raises(BrokenError):
        fit(training)
    assert training.progress.step == failing
    assert [step for step, _ in asked] == list(range(failing + 1))
    assert batch_threads() == []


def test_batches_are_made_one_after_the_other_on_one_other_thread_that_ends_with_the_training(
    begin, monkeypatch
):
    asked = fail_at(monkeypatch, None)
    fit(begin())
    assert [step for step, _ in asked][:4] == [0, 1, 2, 3]
    assert len({name for _, name in asked}) == 1
    assert asked[0][1].startswith("batches")
    assert batch_threads() == []


@pytest.fixture
def real_stops():
    old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield StopRequests()
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.fault("F6")
@pytest.mark.parametrize("moment", ["close", "take"])
def test_a_request_to_stop_at_the_end_of_the_last_step_loses_none(
    begin, monkeypatch, real_stops, figure, moment
):
    """Before the thread of the batches has ended, or while the last batch was taken."""
    real, asked = getattr(trainer._Batches, moment), []

    def ask(batches, *step):
        if step in ((), (3,)):
            asked.append(step)
            os.kill(os.getpid(), signal.SIGTERM)
        return real(batches, *step)

    monkeypatch.setattr(trainer._Batches, moment, ask)
    training = begin("train.num_validations=1")
    training.stops = real_stops
    with pytest.raises((SystemExit, StoppedError)):
        fit(training)
    assert asked
    assert begin("train.num_validations=1").progress.step == 4
    figure(stops=1, steps_redone=0)


def test_a_stopped_training_leaves_no_thread(begin):
    with pytest.raises(StoppedError):
        fit(begin(stop_after=2))
    assert batch_threads() == []


def test_the_same_seed_makes_the_same_model_and_another_seed_another(begin):
    first, same, other = (
        begin(*overrides, name=name)
        for name, overrides in (("a", []), ("b", []), ("c", ["train.seed=1"]))
    )
    for training in (first, same, other):
        fit(training)
    assert is_same(copied(first.model), copied(same.model))
    assert not is_same(copied(first.model), copied(other.model))


def test_a_training_that_died_before_its_model_was_written_is_not_evaluated_again(begin):
    training = begin()
    fit(training)
    again = begin()
    fit(again)
    assert again.progress.evaluations == training.progress.evaluations
    assert again.run_log.evaluations == []


def test_a_finished_training_that_is_begun_again_takes_no_step(begin):
    training = begin()
    fit(training)
    again = begin()
    before = copied(again.model)
    fit(again)
    assert again.progress.step == training.progress.step
    assert is_same(copied(again.model), before)


def test_a_resumed_training_counts_the_seconds_of_all_starts(begin):
    with pytest.raises(StoppedError):
        fit(begin("train.minutes=60", stop_after=2))
    resumed = begin("train.minutes=60")
    before = resumed.progress.seconds
    resumed.progress.seconds = 60 * 60 - 0.2
    fit(resumed)
    assert 0 < before < 60
    assert 3600 <= resumed.progress.seconds < 3660


def test_time_ends_a_training_and_not_the_epochs(begin):
    training = begin("train.minutes=0.04", "train.epochs=1000")
    fit(training)
    assert 2.4 <= training.progress.seconds < 7.8
    assert training.optimizer.param_groups[0]["lr"] < 0.01 * training.config.train.lr * 20


def test_the_history_goes_forward_and_reaches_the_log_as_it_is_written(begin, monkeypatch):
    monkeypatch.setattr(trainer, "RECORD_EVERY_S", 0)
    training = begin()
    fit(training)
    history = training.progress.history
    assert [entry["step"] for entry in history] == [1, 2, 3, 4]
    for key in ("seconds", "epoch", "wall_time"):
        values = [entry[key] for entry in history]
        assert values == sorted(set(values)), key
    assert all(entry["positives_per_s"] > 0 and math.isfinite(entry["loss"]) for entry in history)
    assert training.run_log.steps == history
    assert training.run_log.evaluations == training.progress.evaluations


def test_the_speed_of_a_resumed_training_is_that_since_it_was_resumed(begin, monkeypatch):
    monkeypatch.setattr(trainer, "RECORD_EVERY_S", 0)
    monkeypatch.setattr(trainer, "RECORD_SHARE", 0)
    with pytest.raises(StoppedError):
        fit(begin(stop_after=2))
    resumed = begin()
    resumed.progress.seconds = 1e6
    fit(resumed)
    assert resumed.progress.history[2]["positives_per_s"] > 10


def test_history_is_kept_no_denser_than_it_is_read(begin, monkeypatch):
    monkeypatch.setattr(trainer, "RECORD_EVERY_S", 1e9)
    training = begin()
    fit(training)
    assert len(training.progress.history) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.predictor=dot", "train.loss=bce"],
        ["model.predictor=mlp"],
        ["model.structural_hops=0"],
        ["model.structural_hops=2", "train.loss=bce"],
        ["model.num_layers=0"],
        ["model.features=ones", "model.num_layers=1", "model.aggr=max"],
        ["model.aggr=add", "model.normalize=yes"],
        ["train.max_grad_norm=0", "train.nodes_per_batch=1000000", "train.epochs=1"],
    ],
)
def test_every_kind_of_model_learns_something(begin, overrides):
    training = begin(*overrides)
    before = copied(training.model)
    fit(training)
    assert 0 < training.progress.best_mrr <= 1
    assert not is_same(copied(training.model), before)


def test_parts_that_hold_no_citation_are_steps_all_the_same(begin):
    training = begin("train.nodes_per_batch=2", "train.epochs=0.01")
    fit(training)
    assert training.progress.step == 8
    assert training.progress.positives < 8
    assert all(math.isfinite(entry["loss"]) for entry in training.progress.history)


def test_a_model_starts_the_same_from_the_same_seed(begin):
    first, same, other = begin(), begin(), begin("train.seed=1")
    assert is_same(copied(first.model), copied(same.model))
    assert not is_same(copied(first.model), copied(other.model))


def test_features_are_scaled_as_the_graph_measures_them(begin):
    training = begin()
    scaled = training.model.encoder.transform_features(
        torch.from_numpy(np.array(training.graph.x_NF))
    )
    assert torch.allclose(scaled.mean(0), torch.zeros(128), atol=1e-5)
    assert torch.allclose(scaled.std(0, correction=0), torch.ones(128), atol=1e-4)


def test_a_graph_without_features_gets_random_ones_unless_a_constant_is_asked_for(begin):
    training = begin()
    bare = dataclasses.replace(training.graph, x_NF=None)
    assert (
        len(worker.new_model(bare, training.structural, training.config).encoder.mean_F)
        == RANDOM_FEATURES
    )
    training = begin("model.features=ones")
    training.graph = dataclasses.replace(training.graph, x_NF=None)
    model = worker.new_model(training.graph, training.structural, training.config)
    assert model.encoder.mean_F.tolist() == [0]
