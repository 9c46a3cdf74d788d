"""Rows F20 and F10: two jobs on one run, of which the newer owns it; and a job without progress."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from citeflow import config, files
from citeflow.errors import TrainingError, UnavailableError
from citeflow.paths import RunPaths
from citeflow.training import launch
from citeflow.training.lease import LeaseLost, acquire
from faults import disturbed_worker
from faults.disturbed_training import TESTS, Fault, Training
from faults.small_saves import SavingTrainer, read, take_steps

PATIENCE_S = 120
FROZEN_AT = 12


def snapshot(folder):
    """Return every file in a folder with its size and the time of its last change."""
    states = {path: path.stat() for path in folder.rglob("*")}
    return {str(path): (state.st_mtime_ns, state.st_size) for path, state in states.items()}


@pytest.mark.fault("F20")
def test_older_of_two_stops_before_its_next_write(tmp_path):
    older = SavingTrainer(tmp_path, launch="older")
    take_steps(older, 2)
    newer = SavingTrainer(tmp_path, launch="newer")
    before = snapshot(tmp_path)
    for _ in range(3):
        with pytest.raises(LeaseLost, match="attempt 2 has taken over from attempt 1"):
            take_steps(older, 1)
    assert snapshot(tmp_path) == before
    newer.progress.step = 2
    take_steps(newer, 1)
    assert read(newer.run.checkpoints).step == 3


@pytest.mark.fault("F20")
def test_second_training_of_a_run_is_refused_before_it_changes_anything(prepared, tmp_path):
    run = Training(prepared, tmp_path)
    with files.exclusive(run.run_dir / "train.lock"):
        files.write_text(run.run_dir / "job.json", "of the first")
        before = snapshot(run.run_dir)
        with pytest.raises(UnavailableError, match=r"another process is at work on this: .*lock"):
            run.launch()
    assert snapshot(run.run_dir) == before


@contextlib.contextmanager
def frozen_worker(job_file, events):
    """Start a real worker, alone, that stands still at a step until SIGCONT."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    freeze = {"what": "freeze", "at": "step", "step": FROZEN_AT, "rank": 0, "attempt": 1}
    plan = {"events": str(events), "faults": [{**freeze, "seconds": 0}]}
    variables = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_WORLD_SIZE": "1",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH")))),
        disturbed_worker.VARIABLE: json.dumps(plan),
    }
    command = [sys.executable, "-m", disturbed_worker.__name__, str(job_file)]
    process = subprocess.Popen(command, env={**os.environ, **variables})
    try:
        end = time.monotonic() + PATIENCE_S
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            assert process.poll() is None, "it ended early"
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.fault("F20", nightly=True)
def test_worker_frozen_while_another_job_finished_its_run_leaves_it_alone(
    prepared, train_alone, tmp_path
):
    run = RunPaths(tmp_path, "run")
    run_dir = run.folder
    overrides = [*prepared.settings, "recovery.checkpoint_steps=5", "train.epochs=3"]
    settings = config.load(overrides=overrides)
    launch.write_job(launch.make_job(prepared.graph, run, settings))
    with frozen_worker(run_dir / "job.json", tmp_path / "events.jsonl") as older:
        newest = max(files.names_in(run_dir / "checkpoints"))
        assert 0 < int(newest.removeprefix("step-")) <= FROZEN_AT
        model = train_alone(prepared.graph, run, settings)
        before = snapshot(run_dir)
        os.kill(older.pid, signal.SIGCONT)
        assert older.wait(PATIENCE_S) == 1
    assert snapshot(run_dir) == before
    assert not (run_dir / "error.json").exists()
    files.verify(model, "TrainedModel")
    whole = train_alone(prepared.graph, RunPaths(tmp_path, "whole"), settings)
    assert (model / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    first = files.read_json(run_dir / "attempts" / "00001.json")
    with pytest.raises(LeaseLost):
        acquire(run_dir / "attempts", launch=first["launch"], step=10**6)


@pytest.mark.fault("F10", nightly=True)
def test_three_attempts_without_progress_end_the_training(run):
    with pytest.raises(TrainingError, match="3 attempts ended without progress beyond step: 5"):
        run.launch(Fault(what="fail", step=5, attempt=None))
    assert [event["step"] for event in run.events("fired")] == [5, 5, 5, 5]
    assert len(files.names_in(run.run_dir / "attempts")) == 4
    assert files.read_json(run.run_dir / "error.json")["exit_code"] == 75


@pytest.mark.fault("F10", nightly=True)
def test_failures_with_checkpoints_between_them_do_not_end_the_training(prepared, tmp_path):
    training = Training(prepared, tmp_path, "recovery.checkpoint_steps=4", "train.epochs=3")
    faults = [Fault(what="fail", step=5 * attempt, attempt=attempt) for attempt in (1, 2, 3, 4)]
    training.launch(*faults)
    assert len(training.events("fired")) == 4
    assert len(files.names_in(training.run_dir / "attempts")) == 5
