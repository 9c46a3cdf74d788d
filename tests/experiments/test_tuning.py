import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from citeflow import config, files, paths
from citeflow.config import Config
from citeflow.errors import (
    ConfigError,
    NotFoundError,
    StoppedError,
    TrainingError,
    UnavailableError,
)
from citeflow.experiments import search_space as spaces
from citeflow.experiments import tuning, tuning_pruning, tuning_steps
from citeflow.experiments.tuning import STORAGE_VARIABLE, Definition, Work

SPACE = "{train.lr: {low: 0.001, high: 0.1, log: true}, model.hidden_channels: [64, 128, 256]}"


@pytest.fixture(autouse=True)
def _no_database(monkeypatch):
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)


def define(base=Config(), space=SPACE, workers=1, graph="a"):  # noqa: B008
    return Definition(
        base=base, space=spaces.from_yaml(space, base), workers=workers, graph_sha256=graph
    )


def score(settings):
    """Best at a learning rate of 0.1."""
    return settings.train.lr


class Trained:
    """Trains nothing, and remembers what it was asked for."""

    def __init__(self, stop_at=None, fail_at=()):
        self.settings, self.stop_at, self.fail_at = {}, stop_at, fail_at

    def __call__(self, name, settings):
        number = int(name[-3:])
        if number == self.stop_at:
            raise StoppedError("training was asked to stop")
        if number in self.fail_at:
            raise TrainingError("the loss is not finite", "nan")
        self.settings[number] = settings
        return score(settings)


def search(root, numbers, train, evaluations=lambda name: [], definition=None, **options):
    work = Work(train=train, evaluations=evaluations, **options)
    tuning.search(root, "s", numbers, definition or define(), work)


def states(root, trials):
    return [trial.state for trial in tuning.tried(root, "s", trials)]


def test_the_first_trial_has_the_settings_that_the_search_starts_from(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 3)
    train = Trained()
    search(tmp_path, range(3), train)
    assert train.settings[0] == Config()
    assert len({settings.train.lr for settings in train.settings.values()}) == 3
    found = tuning.tried(tmp_path, "s", 3)
    assert [trial.valid_mrr for trial in found] == [
        train.settings[number].train.lr for number in range(3)
    ]
    assert found[1].values == {
        key: found[1].values[key] for key in ("train.lr", "model.hidden_channels")
    }


def test_it_has_them_even_where_they_are_not_in_the_space(tmp_path):
    definition = define(space="{train.lr: {low: 0.02, high: 0.1}}")
    tuning.prepare(tmp_path, "s", definition, 6)
    train = Trained()
    search(tmp_path, range(6), train, definition=definition)
    assert train.settings[0] == Config()
    assert all(0.02 <= train.settings[number].train.lr <= 0.1 for number in range(1, 6))
    assert tuning.tried(tmp_path, "s", 6)[0].values == {"train.lr": 0.01}


def test_the_search_learns_from_what_it_has_seen(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 20)
    train = Trained()
    search(tmp_path, range(20), train)
    late = [train.settings[number].train.lr for number in range(10, 20)]
    blind = (0.1 - 0.001) / math.log(0.1 / 0.001)
    assert sum(late) / len(late) > 1.5 * blind


def test_a_search_that_was_stopped_goes_on_with_the_same_settings_and_repeats_nothing(tmp_path):
    whole, first, second = Trained(), Trained(stop_at=3), Trained()
    tuning.prepare(tmp_path / "whole", "s", define(), 6)
    search(tmp_path / "whole", range(6), whole)
    tuning.prepare(tmp_path, "s", define(), 6)
    with pytest.raises(StoppedError):
        search(tmp_path, range(6), first)
    assert states(tmp_path, 6) == ["complete"] * 3 + ["running"] + ["waiting"] * 2
    tuning.prepare(tmp_path, "s", define(), 6)
    search(tmp_path, range(6), second)
    assert (sorted(first.settings), sorted(second.settings)) == ([0, 1, 2], [3, 4, 5])
    assert first.settings | second.settings == whole.settings


def test_a_trial_that_was_begun_keeps_its_settings(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 2)
    with pytest.raises(StoppedError):
        search(tmp_path, [1], Trained(stop_at=1))
    before, train = tuning.tried(tmp_path, "s", 2)[1].values, Trained()
    search(tmp_path, [1], train)
    assert train.settings[1] == spaces.configured(Config(), before)


def test_a_search_can_be_made_longer(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 2)
    search(tmp_path, range(2), Trained())
    tuning.prepare(tmp_path, "s", define(), 4)
    train = Trained()
    search(tmp_path, range(4), train)
    assert sorted(train.settings) == [2, 3]


def test_a_training_that_fails_is_a_trial_that_failed(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 3)
    search(tmp_path, range(3), Trained(fail_at=(1,)))
    assert states(tmp_path, 3) == ["complete", "fail", "complete"]
    assert tuning.tried(tmp_path, "s", 3)[1].error == "the loss is not finite: nan"


def test_no_trial_begins_once_the_search_shall_stop(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 3)
    train = Trained()
    search(tmp_path, range(3), train, is_stopped=lambda: len(train.settings) == 1)
    assert sorted(train.settings) == [0]


@pytest.mark.parametrize(
    "other",
    [
        define(base=config.load(overrides=["train.epochs=3"])),
        define(space="{train.lr: [0.1, 0.2]}"),
        define(workers=2),
        define(graph="b"),
    ],
)
def test_another_search_of_the_same_name_is_refused(tmp_path, other):
    tuning.prepare(tmp_path, "s", define(), 2)
    with pytest.raises(ConfigError, match="another search has this name: s"):
        tuning.prepare(tmp_path, "s", other, 2)


def test_a_search_goes_on_with_other_settings_of_recovery(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 2)
    tuning.prepare(
        tmp_path, "s", define(base=config.load(overrides=["recovery.checkpoint_steps=7"])), 2
    )
    assert tuning.definition_of(tmp_path, "s").base.recovery.checkpoint_steps == 7


def test_what_is_searched_is_read_from_the_study(tmp_path):
    tuning.prepare(tmp_path, "s", define(workers=3), 2)
    assert tuning.definition_of(tmp_path, "s") == define(workers=3)
    with pytest.raises(NotFoundError, match="no such search"):
        tuning.definition_of(tmp_path, "t")


@pytest.mark.parametrize(("trials", "parallel"), [(12, 1), (12, 5), (2, 5)])
def test_every_trial_is_dealt_to_one(trials, parallel):
    shares = tuning.shares(trials, parallel)
    assert len(shares) == min(trials, parallel)
    assert sorted(number for share in shares for number in share) == list(range(trials))


RUNNER = """
    import sys, time
    from pathlib import Path
    from citeflow.experiments import tuning
    from citeflow.experiments.tuning import Work

    root, numbers, log = Path(sys.argv[1]), sys.argv[2].split(), Path(sys.argv[3])

    def train(name, settings):
        with log.open("a") as file:
            file.write(name[-3:] + "\\n")
        time.sleep(0.02)
        return settings.train.lr

    work = Work(train=train, evaluations=lambda name: [0.1])
    tuning.search(root, "s", map(int, numbers), tuning.definition_of(root, "s"), work)
"""


def train_in_two_processes(root):
    log = root / "log"
    command = [sys.executable, "-c", textwrap.dedent(RUNNER), str(root)]
    shares = [" ".join(map(str, share)) for share in tuning.shares(10, 2)]
    running = [
        subprocess.Popen([*command, share, str(log)], stderr=subprocess.PIPE, text=True)
        for share in shares
    ]
    assert [
        (process.wait(90), process.communicate()[1].count("trial begins")) for process in running
    ] == [(0, 5)] * 2
    assert sorted(log.read_text().split()) == [f"{number:03d}" for number in range(10)]


def test_two_processes_share_a_study_without_losing_or_doubling_a_trial(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 10)
    train_in_two_processes(tmp_path)
    found = tuning.tried(tmp_path, "s", 20)
    assert [trial.number for trial in found] == list(range(10))
    assert {trial.state for trial in found} <= {"complete", "pruned"}


class Slow:
    """A training that takes long, whose evaluations are known from the start."""

    def __init__(self, curves, seconds=20.0):
        self.curves, self.seconds, self.begun, self.ended = curves, seconds, set(), []

    def __call__(self, name, settings):
        number = int(name[-3:])
        self.begun.add(name)
        began = time.monotonic()
        try:
            while (
                number
                and number == len(self.curves) - 1
                and time.monotonic() - began < self.seconds
            ):
                time.sleep(0.02)
        finally:
            self.ended.append((number, time.monotonic() - began))
        return self.curves[number][-1]

    def evaluations(self, name):
        return self.curves[int(name[-3:])] if name in self.begun else []


GOOD, BAD = [0.1 * step for step in range(1, 11)], [0.01] * 6


@pytest.fixture
def quickly(monkeypatch):
    """Evaluations are looked at often."""
    monkeypatch.setattr(tuning_pruning, "LOOK_EVERY_S", 0.02)


@pytest.mark.usefixtures("quickly")
def test_a_training_that_is_worse_than_the_others_is_ended(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 6)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, tuning_pruning.SIGNAL)]
    slow = Slow([GOOD] * 5 + [BAD])
    search(tmp_path, range(6), slow, slow.evaluations)
    assert slow.ended[-1][1] < 10
    assert states(tmp_path, 6) == ["complete"] * 5 + ["pruned"]
    last = tuning.tried(tmp_path, "s", 6)[-1]
    assert (last.valid_mrr, last.evaluations[-1]) == (None, 0.01)
    assert [
        signal.getsignal(number) for number in (signal.SIGTERM, tuning_pruning.SIGNAL)
    ] == handlers


@pytest.mark.usefixtures("quickly")
def test_the_first_trial_is_never_ended(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 7)
    slow = Slow([BAD] + [GOOD] * 6, seconds=0)
    search(tmp_path, range(1, 7), slow, slow.evaluations)
    search(tmp_path, [0], slow, lambda name: BAD)
    assert states(tmp_path, 7)[0] == "complete"


@pytest.mark.usefixtures("quickly")
def test_a_trial_that_would_be_ended_at_once_does_not_begin_again(tmp_path):
    tuning.prepare(tmp_path, "s", define(), 6)
    slow = Slow([GOOD] * 5 + [BAD], seconds=0)
    search(tmp_path, range(5), slow, slow.evaluations)
    search(tmp_path, [5], slow, lambda name: BAD)
    assert states(tmp_path, 6)[5] == "pruned"
    assert [number for number, _ in slow.ended] == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("quickly")
def test_a_search_goes_on_where_evaluations_can_not_be_read(tmp_path, capfd):
    def evaluations(name):
        if begun:
            raise OSError("no such device")
        return []

    begun = []

    def train(name, settings):
        begun.append(name)
        time.sleep(0.2)
        begun.clear()
        return 0.5

    tuning.prepare(tmp_path, "s", define(), 1)
    search(tmp_path, [0], train, evaluations)
    assert states(tmp_path, 1) == ["complete"]
    assert "looks no more at a training" in capfd.readouterr().err


@pytest.mark.usefixtures("quickly")
def test_a_real_training_is_ended_and_leaves_no_process(tmp_path, prepared, monkeypatch):
    monkeypatch.setattr(tuning, "WARM_UP", 0)
    base = config.load(
        overrides=[*prepared.settings, "train.epochs=4000", "train.num_validations=400"]
    )
    definition = define(base=base, space="{train.lr: {low: 0.0001, high: 0.1}}")
    tuning.prepare(tmp_path, "s", definition, 6)
    train = Slow([[0.99] * 400] * 6, seconds=0)
    search(tmp_path, range(5), train, train.num_validations, definition=definition)
    from citeflow import stages

    def really(name, settings):
        folders = {
            "run_dir": paths.run_folder(tmp_path, name),
            "log_dir": paths.log_folder(tmp_path, name),
        }
        return stages.train(prepared.graph, **folders, config=settings, workers=1)

    log_dir = paths.log_folder(tmp_path, "s/trial-005")
    search(
        tmp_path, [5], really, lambda name: tuning_steps.evaluations(log_dir), definition=definition
    )
    assert states(tmp_path, 6)[5] == "pruned"
    seen = tuning.tried(tmp_path, "s", 6)[5].evaluations
    assert 0 < len(seen) < 400
    assert not (tmp_path / "runs" / "s" / "trial-005" / "model").exists()
    commands = [
        path.read_bytes()
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if os.access(path, os.R_OK)
    ]
    assert not [command for command in commands if str(tmp_path).encode() in command]


def test_evaluations_are_read_once_however_often_a_training_was_started(tmp_path):
    from citeflow.reporting.tensorboard import RunLog

    def log(purge_step, *records):
        run_log = RunLog(tmp_path, purge_step=purge_step)
        for step, mrr in records:
            run_log.evaluation({"step": step, "valid_mrr": mrr, "wall_time": 1.0})
        run_log.close()

    assert list(tuning_steps.evaluations(tmp_path)) == []
    log(None, (4, 0.25), (8, 0.5), (12, 0.125))
    log(8, (8, 0.5), (12, 0.75))
    assert list(tuning_steps.evaluations(tmp_path)) == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    "url", ["nonsense", "oracle://u:hunter2@db/x", "mysql://u:hunter2@db/x", "://"]
)
def test_a_wrong_url_of_a_database_is_told_without_its_password(tmp_path, monkeypatch, url):
    monkeypatch.setenv(STORAGE_VARIABLE, url)
    with pytest.raises(ConfigError, match=STORAGE_VARIABLE) as caught:
        tuning.prepare(tmp_path, "s", define(), 1)
    assert "hunter2" not in str(caught.value)
    assert "postgresql+psycopg" in str(caught.value)


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "postgresql+psycopg"])
def test_a_database_that_does_not_answer_is_told_without_its_password(
    tmp_path, monkeypatch, scheme
):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv(STORAGE_VARIABLE, f"{scheme}://user:hunter2@127.0.0.1:{port}/study")
    with pytest.raises(UnavailableError, match="the study's database does not answer") as caught:
        tuning.prepare(tmp_path, "s", define(), 1)
    assert "hunter2" not in str(caught.value)


def test_several_pods_need_a_database(tmp_path, monkeypatch):
    monkeypatch.setenv("CITEFLOW_POD_NAME", "tune-1")
    with pytest.raises(SystemExit) as caught:
        tuning_steps.tuning_trials(None, "", "", 4, 2, 1, "s", data_root=str(tmp_path))
    assert caught.value.code == ConfigError.exit_code


POSTGRES = (
    next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)
    if shutil.which("setpriv")
    else None
)


@pytest.fixture
def postgres(tmp_path_factory, monkeypatch):
    """A PostgreSQL server of this test, on loopback."""
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("postgres")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    as_other = (
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        if os.geteuid() == 0
        else []
    )
    if as_other:
        for place in (folder, *folder.parents[:2]):
            os.chmod(place, 0o755)
        os.chown(folder, 65534, 65534)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    begin = [
        *as_other,
        POSTGRES / "initdb",
        "-D",
        folder / "data",
        "-U",
        "u",
        "--auth",
        "trust",
        "--no-sync",
    ]
    subprocess.run(begin, check=True, timeout=60, **quiet)
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
    with subprocess.Popen(
        [*as_other, POSTGRES / "postgres", "-D", folder / "data", *options], **quiet
    ) as process:
        while subprocess.run(
            [POSTGRES / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], timeout=5
        ).returncode:
            assert process.poll() is None
            time.sleep(0.1)
        monkeypatch.setenv(STORAGE_VARIABLE, f"postgresql+psycopg://u@127.0.0.1:{port}/postgres")
        yield
        process.send_signal(signal.SIGINT)


@pytest.mark.usefixtures("postgres")
def test_two_processes_share_a_study_in_postgresql(tmp_path):
    assert tuning.is_shared()
    tuning.prepare(tmp_path, "s", define(), 10)
    tuning.prepare(tmp_path, "s", define(), 10)
    train_in_two_processes(tmp_path)
    assert {trial.state for trial in tuning.tried(tmp_path, "s", 10)} <= {"complete", "pruned"}
    assert not (paths.run_folder(tmp_path, "s") / "study.db").exists()
    assert files.names_in(paths.run_folder(tmp_path, "s")) == ["study.lock"]
