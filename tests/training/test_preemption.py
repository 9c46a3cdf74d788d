"""Signals wait while steps are taken, and end everything else at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from citeflow.errors import StoppedError
from citeflow.training.preemption import PreemptionHandler, is_torchrun


@pytest.fixture
def handler(signal_handlers):
    return PreemptionHandler()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_handler_defers_a_signal(handler, number):
    with handler.deferred():
        assert not handler.requested
        os.kill(os.getpid(), number)
        assert handler.requested


def test_handler_exits_once_and_ignores_a_second_signal(handler):
    with pytest.raises(SystemExit) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == StoppedError.exit_code == 143
    os.kill(os.getpid(), signal.SIGTERM)


def test_handler_exits_at_the_next_block_that_may_end(handler):
    with handler.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit), handler.immediate():
            pytest.fail("not reached")


def test_handler_exits_in_an_immediate_block_and_defers_after(handler):
    with handler.deferred():
        with pytest.raises(SystemExit), handler.immediate():
            os.kill(os.getpid(), signal.SIGTERM)
        assert handler.requested


def test_stop_with_parent_exits_where_the_parent_is_gone():
    code = (
        "from citeflow.training.preemption import stop_with_parent\n"
        "stop_with_parent(lambda _: False); print('trains')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (143, b"")


@pytest.mark.parametrize(
    ("module", "expected"), [("citeflow.training.torchrun", True), ("venv", False)]
)
def test_is_torchrun_reads_the_command_line(module, expected):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)", "-m", module]
    with subprocess.Popen(sleep) as process:
        try:
            # A process has no command line for a moment when it begins.
            while b"time.sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                assert process.poll() is None
            assert is_torchrun(process.pid) == expected
        finally:
            process.kill()
