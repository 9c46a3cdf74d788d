"""Rows F21 and F22: curves of a training that was killed three times, on pods whose clocks were
each further behind.

They are read by both of TensorBoard's readers: the one in Python, and the data server that
`--load_fast` starts.
"""

import contextlib
import functools
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

LAST = 260
STARTS = [(1, 100), (71, 150), (150, 220), (201, LAST)]
"""First step of each start, the one after that of its checkpoint, and the last step that it came
to."""

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
    at = {"step": step, "wall_time": now + step}
    log.step({**at, "loss": now, "lr": 0.1, "positives_per_s": 2.0})
    if step % 10 == 0:
        log.evaluation({**at, "valid_mrr": now})
if is_killed:
    os.kill(os.getpid(), signal.SIGKILL)
log.close()
"""


def in_python(log_dir):
    """Read curves by tag, as (step, value), with the accumulator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log = EventAccumulator(str(log_dir), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in log.Scalars(tag)]
        for tag in log.Tags()["scalars"]
    }


def by_the_data_server(log_dir):
    """Read the same with the data server."""
    try:
        program = get_server_binary().path
    except NoDataServerError:
        pytest.skip("tensorboard-data-server has no program for this machine")
    port = log_dir.parent / "port"
    options = ["--port=0", "--reload=once", "--die-after-stdin", "--samples-per-plugin=scalars=all"]
    command = [program, f"--logdir={log_dir.parent}", f"--port-file={port}", *options]
    server = subprocess.Popen(command, stdin=subprocess.PIPE)
    with server, contextlib.ExitStack() as stack:
        stack.callback(server.kill)
        eventually(lambda: port.exists() and port.read_text().endswith("\n"))
        address = f"127.0.0.1:{port.read_text().strip()}"
        channel = stack.enter_context(grpc.insecure_channel(address))
        provider = GrpcDataProvider(address, make_stub(channel))
        port.unlink()
        curves = {}

        def is_read():
            before = dict(curves)
            options = {"experiment_id": "", "plugin_name": "scalars", "downsample": 10**6}
            curves.update(provider.read_scalars(None, **options).get(log_dir.name, {}))
            return curves and curves == before

        eventually(is_read)
        return {
            tag: [(point.step, point.value) for point in points] for tag, points in curves.items()
        }


def eventually(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def clock(start):
    """Return the seconds since 1970 on the pod of a start, an hour less for each."""
    return 1_780_000_000.0 - HOUR_S * start


def write_log(log_dir, first, last, now, is_killed):
    arguments = json.dumps([str(log_dir), first, last, now, is_killed])
    done = subprocess.run([sys.executable, "-c", KILLED, arguments], timeout=60)
    assert done.returncode == (-signal.SIGKILL if is_killed else 0)


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    """The logs of a training that was killed three times."""
    log_dir = tmp_path_factory.mktemp("logs") / "run"
    for start, (first, last) in enumerate(STARTS):
        write_log(log_dir, first, last, clock(start), is_killed=last < LAST)
    return log_dir


@pytest.mark.fault("F21")
@pytest.mark.parametrize("read", [in_python, by_the_data_server])
def test_curve_has_each_step_once_with_the_value_of_the_last_start(log_dir, tmp_path, read):
    curves = read(log_dir)
    assert {"train/loss", "train/lr", "valid/mrr"} <= set(curves)
    assert [step for step, _ in curves["train/loss"]] == list(range(1, LAST + 1))
    assert [step for step, _ in curves["valid/mrr"]] == list(range(10, LAST + 1, 10))
    taken_by = {
        step: start for start, (first, last) in enumerate(STARTS) for step in range(first, last + 1)
    }
    for step, value in curves["train/loss"]:
        assert abs(value - clock(taken_by[step])) < HOUR_S / 4

    cut = tmp_path / "logs" / "run"
    files.copy_directory(log_dir, cut)
    first, *_ = sorted(cut.iterdir())
    first.write_bytes(first.read_bytes()[:-7])  # the last record, as a kill leaves it
    assert [step for step, _ in read(cut)["train/loss"]] == list(range(1, LAST + 1))


@pytest.mark.fault("F22")
def test_every_start_writes_one_file_of_its_own(log_dir, tmp_path):
    names = sorted(path.name for path in log_dir.iterdir())
    assert len(names) == len(STARTS)
    files.copy_directory(log_dir, tmp_path / "run")
    write_log(tmp_path / "run", LAST + 1, LAST + 2, clock(9), is_killed=False)
    assert (tmp_path / "run" / names[0]).read_bytes() == (log_dir / names[0]).read_bytes()
    assert sorted(path.name for path in (tmp_path / "run").iterdir())[:-1] == names


@pytest.mark.fault("F22", nightly=True)
def test_of_two_ranks_that_are_killed_and_restarted_only_one_writes(prepared, tmp_path):
    logs, kills = tmp_path / "logs" / "r", 0
    command = [*CITEFLOW, "train", str(prepared.graph), "--run-name", "r", "--workers", "2"]
    command += ["--data-root", str(tmp_path)]
    for setting in [*prepared.settings, "train.epochs=24"]:
        command += ["--set", setting]
    starts = (1, 3, 99)
    for evaluations in starts:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(functools.partial(has_come_to, process, logs, evaluations), seconds=120)
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            kills += len(family) >= 3
            for each in family:
                each.kill()
        assert (process.wait(60) == 0) == (evaluations == 99)
    assert kills == 2
    assert len([path for path in logs.iterdir() if path.is_file()]) == len(starts)


def has_come_to(process, logs, evaluations):
    """Return whether a training shows so many evaluations, or has ended."""
    with contextlib.suppress(KeyError):
        return process.poll() is not None or (
            logs.exists() and len(in_python(logs)["valid/mrr"]) >= evaluations
        )
    return False
