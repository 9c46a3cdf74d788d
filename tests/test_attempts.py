"""A step's two processes, as KFP's executor starts them."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from citeflow import attempts
from citeflow.errors import ConfigError

STEP = """
import os, signal, sys, time
from citeflow.attempts import begin_attempt, current_attempt
begin_attempt()
signals = []
signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
print(os.getpid(), flush=True)
end = time.monotonic() + 60
while not signals and time.monotonic() < end: time.sleep(0.01)
time.sleep(0.3)
print(len(signals), flush=True)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def start():
    """Starts a step that ends with an exit code when it is asked to stop; returns its child too."""
    started = []

    def start(exit_code):
        environment = {**os.environ, attempts.EXECUTOR_VARIABLE: "true"}
        command = [sys.executable, "-c", STEP, str(exit_code)]
        step = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(step)
        return step, psutil.Process(int(step.stdout.readline()))

    yield start
    for step in started:
        step.kill()
        step.wait()
        step.stdout.close()


@pytest.mark.parametrize("exit_code", [143, 69, 0])
def test_parent_passes_a_signal_to_its_group_on_once(start, exit_code):
    step, child = start(exit_code)
    assert child.ppid() == step.pid
    os.killpg(step.pid, signal.SIGTERM)
    # Asked to stop, it starts nothing again, whatever the child made of the signal.
    assert step.wait(30) == exit_code
    assert step.stdout.read() == "1\n"


def test_parent_asked_to_stop_before_it_forks_starts_no_child():
    signalled = """
import os, signal, sys
class Stderr:
    write = sys.stderr.write
    signals = [signal.SIGTERM]
    def flush(self):
        if self.signals: os.kill(os.getpid(), self.signals.pop())
sys.stderr = Stderr()
"""
    environment = {**os.environ, attempts.EXECUTOR_VARIABLE: "true"}
    command = [sys.executable, "-c", signalled + STEP, "0"]
    step = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (step.returncode, step.stdout) == (143, "")


@pytest.mark.parametrize(("code", "starts"), [(69, 3), (137, 3), (72, 1), (65, 1), (75, 1)])
def test_parent_starts_again_where_another_attempt_may_help_alone(code, starts):
    step = f"from citeflow.attempts import begin_attempt; begin_attempt(); print(1); exit({code})"
    environment = {attempts.EXECUTOR_VARIABLE: "true", attempts.PAUSE_VARIABLE: "0"}
    done = subprocess.run(
        [sys.executable, "-c", step], env={**os.environ, **environment}, capture_output=True
    )
    assert (done.returncode, done.stdout.split()) == (code, [b"1"] * starts)


@pytest.mark.parametrize("pause", ["half", "-1", "nan", "inf"])
def test_pause_that_is_no_number_is_named(monkeypatch, capfd, pause):
    monkeypatch.setenv(attempts.EXECUTOR_VARIABLE, "true")
    monkeypatch.setenv(attempts.PAUSE_VARIABLE, pause)
    with pytest.raises(SystemExit) as ended:
        attempts.begin_attempt()
    assert ended.value.code == ConfigError.exit_code
    assert f"error: CITEFLOW_RETRY_PAUSE_S: {pause}\nhint: " in capfd.readouterr().err


def test_child_ends_with_its_parent(start):
    step, _child = start(0)
    step.kill()
    assert step.stdout.read() == "1\n"  # the kernel sends the signal once, and nobody writes on


def test_parent_stays_small(start):
    step, _child = start(0)
    assert psutil.Process(step.pid).memory_info().rss < 40 * 2**20
    step.terminate()
    assert step.stdout.read() == "1\n"
