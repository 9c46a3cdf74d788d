"""Standbys that replace lost workers, each in a process as torchrun starts it."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("standing_by.py")
PATIENCE_S = 120


@pytest.fixture
def standbys(tmp_path):
    """Starts a standby for each rank of a scenario; returns the processes."""
    started = []

    def start(scenario, ranks=None):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for rank in ranks or range(len(scenario)):
            variables = {
                "RANK": rank,
                "LOCAL_RANK": 0,
                "WORLD_SIZE": len(scenario),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "TORCHELASTIC_RESTART_COUNT": 0,
                "TORCH_CPP_LOG_LEVEL": "ERROR",
            }
            command = [sys.executable, str(SCRIPT), str(tmp_path), json.dumps(scenario)]
            environment = {**os.environ, **{key: str(text) for key, text in variables.items()}}
            started.append(
                subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            )
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ends(processes):
    return [process.wait(PATIENCE_S) for process in processes]


def met(folder, rank):
    path = folder / f"met-{rank}"
    return [json.loads(line)["start"] for line in path.read_text().splitlines()]


def test_workers_that_meet_end_as_they_like(standbys, tmp_path):
    assert ends(standbys({"0": ["end"], "1": ["end"]})) == [0, 0]
    assert (met(tmp_path, 0), met(tmp_path, 1)) == ([0], [0])


@pytest.mark.fault("F1")
@pytest.mark.parametrize("lost", ["0", "1"])
def test_lost_worker_is_replaced_and_meets_the_others_again(standbys, tmp_path, lost):
    other = str(1 - int(lost))
    assert ends(standbys({lost: ["kill", "end"], other: ["lost", "end"]})) == [0, 0]
    assert (met(tmp_path, 0), met(tmp_path, 1)) == ([0, 1], [0, 1])


@pytest.mark.fault("F1")
def test_worker_that_computes_hears_of_a_loss_from_its_standby(standbys, tmp_path):
    assert ends(standbys({"0": ["compute", "end"], "1": ["kill", "end"]})) == [0, 0]
    assert met(tmp_path, 0) == [0, 1]


@pytest.mark.fault("F1")
def test_worker_that_is_lost_before_it_meets_is_replaced(standbys, tmp_path):
    assert ends(standbys({"0": ["end"], "1": ["kill before", "kill before", "end"]})) == [0, 0]
    assert (met(tmp_path, 0)[-1:], met(tmp_path, 1)) == ([0], [2])


@pytest.mark.fault("F10")
def test_worker_that_never_meets_is_given_up(standbys):
    processes = standbys({"0": ["end"], "1": ["kill before"]})
    assert processes[1].wait(PATIENCE_S) == 1
    assert processes[0].wait(PATIENCE_S) == 1
    assert "another worker does not come back rank=1" in processes[0].stderr.read()


def test_failure_of_a_worker_is_that_of_its_standby(standbys):
    assert ends(standbys({"0": ["fail"]})) == [64]


@pytest.mark.fault("F6")
def test_standby_that_is_asked_to_end_passes_it_on(standbys, tmp_path):
    (process,) = standbys({"0": ["compute"]})
    while not (tmp_path / "met-0").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 143
