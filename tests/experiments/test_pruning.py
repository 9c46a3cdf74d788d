import os
import signal
import time
from pathlib import Path

import pytest

from citeflow import config
from citeflow.experiments import pruning, study, tuning
from citeflow.paths import RunPaths

GOOD = [0.1 * step for step in range(1, 11)]
BAD = [0.01] * 6


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(pruning, "POLL_S", 0.02)


class Slow:
    """A training whose last trial takes long, and whose validations are known from its start."""

    def __init__(self, curves, seconds=30.0):
        self.curves = curves
        self.seconds = seconds
        self.started = set()
        self.spent = {}

    def __call__(self, trial, settings):
        number = int(trial.name[-3:])
        self.started.add(trial.name)
        began = time.monotonic()
        try:
            is_last = number == len(self.curves) - 1
            while is_last and time.monotonic() - began < self.seconds:
                time.sleep(0.02)
        finally:
            self.spent[number] = time.monotonic() - began
        return self.curves[number][-1]

    def validations(self, trial):
        return self.curves[int(trial.name[-3:])] if trial.name in self.started else []


@pytest.fixture
def search(run, define):
    def search(train, numbers, read_validations):
        study.create_or_resume(run, define(), max(numbers) + 1)
        study.search(run, numbers, define(), train=train, read_validations=read_validations)

    return search


def test_worse_training_is_ended(run, search, states):
    signals = (signal.SIGTERM, pruning.SIGNAL)
    handlers = [signal.getsignal(number) for number in signals]
    slow = Slow([GOOD] * 5 + [BAD])
    search(slow, range(6), slow.validations)
    assert slow.spent[5] < 20
    assert states(6) == ["complete"] * 5 + ["pruned"]
    assert list(study.read_trials(run, 6)[5].intermediate_values.values()) == BAD
    assert [signal.getsignal(number) for number in signals] == handlers


def test_resumed_trial_that_was_worse_does_not_start(search, states):
    slow = Slow([BAD] + [GOOD] * 5 + [BAD], seconds=0)
    search(slow, range(1, 6), slow.validations)
    search(slow, [6, 0], lambda trial: BAD)
    assert states(7) == ["complete"] * 6 + ["pruned"]
    assert sorted(slow.spent) == [0, 1, 2, 3, 4, 5]


def test_training_continues_where_validations_cannot_be_read(search, states, capfd):
    training = []

    def read_validations(trial):
        if training:
            raise OSError("no such device")
        return []

    def train(trial, settings):
        training.append(trial)
        time.sleep(0.2)
        training.clear()
        return 0.5

    search(train, [0], read_validations)
    assert states(1) == ["complete"]
    assert "stops watching a training" in capfd.readouterr().err


def test_real_training_is_ended_and_leaves_no_process(run, define, states, prepared, monkeypatch):
    from citeflow.training.launch import train_locally

    monkeypatch.setattr(study, "WARM_UP", 0)
    overrides = [*prepared.settings, "train.epochs=400", "train.num_validations=400"]
    space = "{train.lr: {low: 0.0001, high: 0.1}}"
    definition = define(base=config.load(overrides=overrides), space=space)
    study.create_or_resume(run, definition, 6)
    known = Slow([[0.99] * 2] * 6, seconds=0)
    study.search(run, range(5), definition, train=known, read_validations=known.validations)

    def train(trial: RunPaths, settings):
        return train_locally(prepared.graph, trial, config=settings, workers=1)

    study.search(
        run,
        [5],
        definition,
        train=train,
        read_validations=lambda trial: tuning.read_validations(trial.logs, "valid/mrr"),
    )
    assert states(6)[5] == "pruned"
    assert 0 < len(study.read_trials(run, 6)[5].intermediate_values) < 400
    assert not study.trial_run(run, 5).model.exists()
    commands = [
        path.read_bytes()
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if os.access(path, os.R_OK)
    ]
    assert not [command for command in commands if str(run.data_root).encode() in command]
