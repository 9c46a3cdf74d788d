"""How a worker begins, goes on with its curves, and leaves what ended it."""

import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from citeflow import files
from citeflow.errors import ConfigError
from citeflow.reporting import event_files
from citeflow.reporting.tensorboard import RunLog
from citeflow.training import worker
from citeflow.training.checkpoint import Progress
from citeflow.training.preemption import is_torchrun

RECORD = {"wall_time": 1e9, "loss": 1.0, "lr": 0.1, "positives_per_s": 9.0, "valid_mrr": 0.5}


def steps_seen(log_dir, tag):
    """What a reader keeps of a curve: a file takes back what others say of the step that it begins with, and later."""
    kept = []
    for path in sorted(log_dir.iterdir()):
        first = event_files.first_step(path)
        kept = [step for step in kept if first is None or step < first]
        kept += [entry.step for entry in event_files.read_scalars(path, tag)]
    return kept


@pytest.mark.fault("F21")
@pytest.mark.parametrize("is_saved", [False, True])
def test_an_evaluation_is_told_once_whether_or_not_its_checkpoint_was_written(
    tmp_path, figure, is_saved
):
    before = RunLog(tmp_path, purge_step=None)
    for step in (10, 20):
        before.step({**RECORD, "step": step})
        before.evaluation({**RECORD, "step": step})
    before.close()
    evaluations = [{**RECORD, "step": step} for step in (10, 20)][: 1 + is_saved]
    history = [{**RECORD, "step": step} for step in (10, 20)]
    again = worker._run_log(tmp_path, Progress(step=20, history=history, evaluations=evaluations))
    if not is_saved:
        again.evaluation({**RECORD, "step": 20})
    again.step({**RECORD, "step": 21})
    again.close()
    assert steps_seen(tmp_path, "valid/mrr") == [10, 20]
    assert steps_seen(tmp_path, "train/loss") == [10, 20, 21]
    figure(duplicates=0, missing=0)


def test_a_worker_whose_parent_is_gone_already_ends_at_once():
    code = "from citeflow.training.preemption import stop_with_parent; stop_with_parent(lambda _: False); print('trains')"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (143, b"")


def test_torchrun_is_known_by_its_command():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "-m", "torch.distributed.run"]
    )
    try:
        for process in (sleeper, other):
            while b"time.sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                assert (
                    process.poll() is None
                )  # a process has no command line for a moment when it begins
        assert is_torchrun(sleeper.pid)
        assert not is_torchrun(other.pid)
    finally:
        for process in (sleeper, other):
            process.kill()
            process.wait()


@pytest.fixture
def main(tmp_path, monkeypatch):
    """The worker's main function, whose work fails as it is told."""
    old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    files.write_json(tmp_path / "job.json", {"config": {}})
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path / "job.json")])
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    for name in ("stop_with_parent", "bind"):
        monkeypatch.setattr(worker, name, lambda *_: None)
    monkeypatch.setattr(worker, "joined", lambda timeout_s: nullcontext())

    def run(error):
        def work(*_):
            raise error

        monkeypatch.setattr(worker, "work", work)
        worker.main()

    yield run
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.fault("F17")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_stays_full_ends_the_training_with_its_reason(main, tmp_path, figure, number):
    with pytest.raises(SystemExit) as caught:
        main(OSError(number, os.strerror(number), "model.safetensors"))
    told = json.loads((tmp_path / "error.json").read_text())
    assert (caught.value.code, told["what"]) == (70, os.strerror(number))
    figure(failures=1)


def test_a_disk_failure_that_may_pass_lets_torchrun_start_again(main, tmp_path):
    with pytest.raises(OSError, match="Input/output"):
        main(OSError(errno.EIO, os.strerror(errno.EIO), "x"))
    assert not (tmp_path / "error.json").exists()


def test_an_error_that_can_not_be_written_down_ends_the_worker_all_the_same(
    main, monkeypatch, capsys
):
    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(worker.files, "write_json", full)
    with pytest.raises(SystemExit) as caught:
        main(ConfigError("wrong", "lr"))
    assert caught.value.code == 64
    assert "error=wrong value=lr" in capsys.readouterr().err


def test_a_lost_worker_is_told_in_one_line_and_nothing_is_left(main, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(RuntimeError("[gloo/pair.cc:1] Connection closed by peer\nmore"))
    assert caught.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "error.json").exists()


def test_any_other_failure_is_a_bug_and_keeps_its_traceback(main):
    with pytest.raises(RuntimeError, match="a bug"):
        main(RuntimeError("a bug"))
