import math
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from optuna.exceptions import ExperimentalWarning  # noqa: F401 - found before warnings are errors

from citeflow import config, files
from citeflow.config import Config
from citeflow.errors import (
    ConfigError,
    NotFoundError,
    StoppedError,
    TrainingError,
    UnavailableError,
)
from citeflow.experiments import study
from citeflow.experiments.study import STORAGE_VARIABLE
from citeflow.paths import RunPaths


class Trained:
    """Trains nothing, and remembers the settings that it was called with."""

    def __init__(self, stop_at=None, fail_at=()):
        self.settings = {}
        self.stop_at = stop_at
        self.fail_at = fail_at

    def __call__(self, trial, settings):
        number = int(trial.name[-3:])
        if number == self.stop_at:
            raise StoppedError("training was asked to stop")
        if number in self.fail_at:
            raise TrainingError("the loss is not finite", "nan")
        self.settings[number] = settings
        return settings.train.lr


@pytest.fixture
def search(run, define):
    """Searches with a function that trains; without a definition, in a study of six trials."""

    def search(train, numbers=range(6), definition=None, trials=6, paths=run, **options):
        definition = definition or define()
        study.create_or_resume(paths, definition, trials)
        study.search(
            paths, numbers, definition, train=train, read_validations=lambda trial: [], **options
        )

    return search


@pytest.mark.parametrize("low", [0.001, 0.02])
def test_trial_0_has_the_base_settings_even_outside_of_space(run, search, define, low):
    train = Trained()
    search(train, definition=define(space=f"{{train.lr: {{low: {low}, high: 0.1}}}}"))
    assert train.settings[0] == Config()
    assert len({settings.train.lr for settings in train.settings.values()}) == 6
    trials = study.read_trials(run, 6)
    assert [trial.value for trial in trials] == [train.settings[n].train.lr for n in range(6)]
    assert all(low <= train.settings[number].train.lr <= 0.1 for number in range(1, 6))
    assert trials[0].user_attrs["values"] == {"train.lr": 0.01}


def test_search_learns_from_earlier_trials(search):
    train = Trained()
    search(train, range(20), trials=20)
    late = [train.settings[number].train.lr for number in range(10, 20)]
    blind = (0.1 - 0.001) / math.log(0.1 / 0.001)
    assert sum(late) / len(late) > 1.5 * blind


def test_search_resumes_with_the_same_settings(tmp_path, search, states):
    whole = Trained()
    first = Trained(stop_at=3)
    second = Trained()
    search(whole, paths=RunPaths(tmp_path / "whole", "s"))
    with pytest.raises(StoppedError):
        search(first)
    assert states(6) == ["complete"] * 3 + ["running"] + ["waiting"] * 2
    search(second, is_stopped=lambda: len(second.settings) == 2)
    assert sorted(second.settings) == [3, 4]
    search(second)
    assert (sorted(first.settings), sorted(second.settings)) == ([0, 1, 2], [3, 4, 5])
    assert first.settings | second.settings == whole.settings


def test_search_records_a_training_that_fails(run, search, states):
    search(Trained(fail_at=(1,)), range(3))
    assert states(3) == ["complete", "fail", "complete"]
    assert study.read_trials(run, 3)[1].user_attrs["error"] == "the loss is not finite: nan"
    longer = Trained()
    search(longer, range(4), trials=4)
    assert sorted(longer.settings) == [3]


@pytest.mark.parametrize(
    "other",
    [
        {"base": config.load(overrides=["train.epochs=3"])},
        {"space": "{train.lr: [0.1, 0.2]}"},
        {"workers": 2},
        {"graph": "b"},
    ],
)
def test_create_or_resume_refuses_another_search_of_the_name(run, define, other):
    study.create_or_resume(run, define(), 2)
    with pytest.raises(ConfigError, match="another search has this name: s"):
        study.create_or_resume(run, define(**other), 2)
    base = config.load(overrides=["recovery.checkpoint_steps=7"])
    study.create_or_resume(run, define(base=base), 2)
    assert study.read_definition(run).base.recovery.checkpoint_steps == 7


def test_read_definition_of_no_study_is_not_found(run, tmp_path, define):
    with pytest.raises(NotFoundError, match="no such search"):
        study.read_definition(run)
    study.create_or_resume(run, define(), 1)
    (tmp_path / "runs" / "t").symlink_to(run.folder)
    with pytest.raises(NotFoundError, match="no such search"):
        study.read_definition(RunPaths(tmp_path, "t"))


RUNNER = """
    import sys, time
    from pathlib import Path
    from citeflow.experiments import study
    from citeflow.paths import RunPaths

    run, numbers, log = RunPaths(Path(sys.argv[1]), "s"), sys.argv[2].split(), Path(sys.argv[3])

    def train(trial, settings):
        with log.open("a") as file:
            file.write(trial.name[-3:] + "\\n")
        time.sleep(0.1)
        return settings.train.lr

    study.search(run, map(int, numbers), study.read_definition(run), train=train,
                 read_validations=lambda trial: [0.1])
"""


def start_runner(root, numbers):
    command = [sys.executable, "-c", textwrap.dedent(RUNNER), root, " ".join(map(str, numbers))]
    return subprocess.Popen([*command, root / "log"], stderr=subprocess.PIPE, text=True)


def train_in_two_processes(run):
    running = [start_runner(run.data_root, share) for share in study.split_trials(8, 2)]
    messages = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], messages
    trained = (run.data_root / "log").read_text().split()
    assert sorted(trained) == [f"{number:03d}" for number in range(8)]
    trials = study.read_trials(run, 20)
    assert [trial.number for trial in trials] == list(range(8))
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_two_processes_share_a_study(run, define, database, request):
    if database == "postgres":
        request.getfixturevalue("postgres")
    assert study.is_shared() == (database == "postgres")
    study.create_or_resume(run, define(), 8)
    study.create_or_resume(run, define(), 8)
    train_in_two_processes(run)
    assert not study.is_shared() or files.names_in(run.folder) == ["study.lock"]


def test_search_that_was_killed_ends_each_trial_once(run, define, states):
    study.create_or_resume(run, define(), 4)
    with start_runner(run.data_root, range(4)) as process:
        log = run.data_root / "log"
        while not log.exists() or len(log.read_text().split()) < 2:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    under_way = log.read_text().split()[-1]
    before = study.read_trials(run, 4)[int(under_way)].user_attrs["values"]
    with start_runner(run.data_root, range(4)) as process:
        assert process.wait(120) == 0, process.stderr.read()
    assert states(4) == ["complete"] * 4
    trained = log.read_text().split()
    assert sorted(set(trained)) == ["000", "001", "002", "003"]
    assert {name for name in trained if trained.count(name) > 1} <= {under_way}
    assert study.read_trials(run, 4)[int(under_way)].user_attrs["values"] == before


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "postgresql+psycopg"])
def test_open_storage_hides_passwords(run, define, monkeypatch, scheme):
    for url in ("nonsense", "oracle://u:hunter2@db/x", "mysql://u:hunter2@db/x", "://"):
        monkeypatch.setenv(STORAGE_VARIABLE, url)
        with pytest.raises(ConfigError, match=STORAGE_VARIABLE) as caught:
            study.create_or_resume(run, define(), 1)
        assert "hunter2" not in str(caught.value)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv(STORAGE_VARIABLE, f"{scheme}://user:hunter2@127.0.0.1:{port}/study")
    with pytest.raises(UnavailableError, match="database does not answer") as caught:
        study.create_or_resume(run, define(), 1)
    assert "hunter2" not in str(caught.value)


def test_suggested_values_stay_within_bounds_when_rounded(search, define):
    train = Trained()
    space = "{train.lr: {low: 0.01234567, high: 0.01234568}}"
    search(train, range(4), definition=define(space=space))
    rates = [train.settings[number].train.lr for number in range(1, 4)]
    assert all(0.01234567 <= rate <= 0.01234568 for rate in rates)
