"""Curves of a training that was killed and went on, three times, on pods whose clocks were each further behind.

They are read by both of TensorBoard's readers: the one in Python, and the data server that `--load_fast` starts.
"""

import contextlib
import functools
import itertools
import json
import signal
import subprocess
import sys
import time
import warnings

import grpc
import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.data.grpc_provider import GrpcDataProvider, make_stub
from tensorboard.data.server_ingester import NoDataServerError, get_server_binary

from citeflow import files
from citeflow.reporting.tensorboard import publish_run

LAST = 260
STARTS = [(1, 100), (71, 150), (150, 220), (201, LAST)]
"""First step of each start, which is the one after that of its checkpoint, and the last step that it came to."""

HOUR_S = 3600.0
CITEFLOW = [sys.executable, "-m", "citeflow"]

KILLED = """
import json, os, signal, sys, time
log_dir, first, last, now, is_killed = json.loads(sys.argv[1])
time.time = lambda: now
from pathlib import Path
from citeflow.reporting.tensorboard import RunLog
log = RunLog(Path(log_dir), purge_step=first if first > 1 else None)
for step in range(first, last + 1):
    log.step({"step": step, "loss": now, "lr": 0.1, "positives_per_s": 2.0, "wall_time": now + step})
    if step % 10 == 0:
        log.evaluation({"step": step, "valid_mrr": now, "wall_time": now + step})
if is_killed:
    os.kill(os.getpid(), signal.SIGKILL)
log.close()
"""


def in_python(log_dir):
    """Curves by tag, as (step, value), read by the accumulator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = EventAccumulator(str(log_dir), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in log.Scalars(tag)]
        for tag in log.Tags()["scalars"]
    }


def by_the_data_server(log_dir):
    """The same, read by the data server."""
    try:
        program = get_server_binary().path
    except NoDataServerError:
        pytest.skip("tensorboard-data-server has no program for this machine")
    port = log_dir.parent / "port"
    arguments = [
        f"--logdir={log_dir.parent}",
        "--port=0",
        f"--port-file={port}",
        "--reload=once",
        "--die-after-stdin",
    ]
    server = subprocess.Popen(
        [program, *arguments, "--samples-per-plugin=scalars=all"], stdin=subprocess.PIPE
    )
    with server, contextlib.ExitStack() as stack:
        stack.callback(server.kill)
        eventually(lambda: port.exists() and port.read_text().endswith("\n"))
        address = f"127.0.0.1:{port.read_text().strip()}"
        provider = GrpcDataProvider(
            address, make_stub(stack.enter_context(grpc.insecure_channel(address)))
        )
        port.unlink()
        found = {}

        def is_read():
            before = dict(found)
            found.update(scalars(provider).get(log_dir.name, {}))
            return found and found == before

        eventually(is_read)
        return {
            tag: [(point.step, point.value) for point in points] for tag, points in found.items()
        }


def scalars(provider):
    return provider.read_scalars(None, experiment_id="", plugin_name="scalars", downsample=10**6)


def eventually(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


READERS = [in_python, by_the_data_server]


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    """The logs of a training that was killed three times."""
    log_dir = tmp_path_factory.mktemp("logs") / "run"
    kills = 0
    for start, (first, last) in enumerate(STARTS):
        is_killed = last < LAST
        asked = [str(log_dir), first, last, clock(start), is_killed]
        done = subprocess.run([sys.executable, "-c", KILLED, json.dumps(asked)], timeout=60)
        assert done.returncode == (-signal.SIGKILL if is_killed else 0)
        kills += done.returncode == -signal.SIGKILL
    assert kills == len(STARTS) - 1
    return log_dir


def clock(start):
    """Seconds since 1970, on the pod of each start an hour less."""
    return 1_780_000_000.0 - HOUR_S * start


def faults_of(steps, expected):
    """Steps that are there twice or out of turn, and those that are not there."""
    duplicates = sum(step <= before for before, step in itertools.pairwise(steps))
    return {"duplicates": duplicates, "missing": len(set(expected) - set(steps))}


@pytest.mark.fault("F21")
@pytest.mark.parametrize("read", READERS)
def test_a_curve_rises_by_one_step_after_the_other(log_dir, read):
    curves = read(log_dir)
    assert {"train/loss", "train/lr", "valid/mrr"} <= set(curves)
    for tag, expected in {
        "train/loss": range(1, LAST + 1),
        "valid/mrr": range(10, LAST + 1, 10),
    }.items():
        steps = [step for step, _ in curves[tag]]
        assert steps == list(expected), tag


@pytest.mark.fault("F21")
@pytest.mark.parametrize("read", READERS)
def test_a_step_that_was_taken_twice_has_the_value_of_the_last_start(log_dir, read):
    taken_by = {
        step: start for start, (first, last) in enumerate(STARTS) for step in range(first, last + 1)
    }
    repeated = sum(last - first + 1 for first, last in STARTS) - LAST
    values = dict(read(log_dir)["train/loss"])
    wrong = [
        step for step, start in taken_by.items() if abs(values[step] - clock(start)) > HOUR_S / 4
    ]
    assert repeated > 0
    assert wrong == []


@pytest.mark.fault("F21")
@pytest.mark.parametrize("read", READERS)
def test_a_record_that_a_kill_cut_hides_nothing(log_dir, tmp_path, read):
    files.copy_directory(log_dir, tmp_path / "logs" / "run")
    first, *_ = sorted((tmp_path / "logs" / "run").iterdir())
    first.write_bytes(first.read_bytes()[:-7])
    steps = [step for step, _ in read(tmp_path / "logs" / "run")["train/loss"]]
    assert steps == list(range(1, LAST + 1))


@pytest.mark.fault("F21")
@pytest.mark.parametrize("read", READERS)
def test_what_is_published_is_read_after_all_starts(log_dir, tmp_path, read):
    files.copy_directory(log_dir, tmp_path / "logs" / "run")
    report = {"dataset": "x", "test": {"mrr": 0.5}, "train": {"steps": LAST}}
    publish_run(tmp_path / "logs" / "run", report, {})
    curves = read(tmp_path / "logs" / "run")
    assert [step for step, _ in curves["test/mrr"]] == [LAST]
    steps = [step for step, _ in curves["train/loss"]]
    assert steps == list(range(1, LAST + 1))


@pytest.mark.fault("F22")
def test_every_start_writes_one_file_and_none_writes_to_another_s(log_dir, tmp_path):
    names = sorted(path.name for path in log_dir.iterdir())
    assert len(names) == len(STARTS)
    first = (log_dir / names[0]).read_bytes()
    files.copy_directory(log_dir, tmp_path / "run")
    asked = [str(tmp_path / "run"), LAST + 1, LAST + 2, clock(9), False]
    subprocess.run([sys.executable, "-c", KILLED, json.dumps(asked)], timeout=60, check=True)
    assert (tmp_path / "run" / names[0]).read_bytes() == first
    assert sorted(path.name for path in (tmp_path / "run").iterdir())[:-1] == names


@pytest.mark.fault("F22", nightly=True)
def test_of_two_ranks_that_are_killed_and_start_again_only_one_writes(prepared, tmp_path):
    logs, starts, kills = tmp_path / "logs" / "r", 0, 0
    told = [
        "train",
        str(prepared.graph),
        "--run-name",
        "r",
        "--workers",
        "2",
        "--data-root",
        str(tmp_path),
    ]
    told += [
        word for setting in [*prepared.settings, "train.epochs=24"] for word in ("--set", setting)
    ]
    for evaluations in (1, 3, 99):
        process = subprocess.Popen([*CITEFLOW, *told], stdout=subprocess.DEVNULL)
        starts += 1
        eventually(functools.partial(has_come_to, process, logs, evaluations), seconds=120)
        family = (
            psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        )
        for each in family:
            each.kill()
        kills += len(family) >= 3
        assert (process.wait(60) == 0) == (evaluations == 99)
    written = [path for path in logs.iterdir() if path.is_file()]
    assert kills == 2
    assert len(written) == starts


def has_come_to(process, logs, evaluations):
    """Whether a training shows so many evaluations, or has ended."""
    with contextlib.suppress(KeyError):
        return process.poll() is not None or (
            logs.exists() and len(in_python(logs)["valid/mrr"]) >= evaluations
        )
    return False
