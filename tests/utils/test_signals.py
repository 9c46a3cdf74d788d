import contextlib
import os
import signal
import subprocess
import sys

import psutil
import pytest

from citeflow.errors import StoppedError
from citeflow.utils.signals import handle_signals, open_fifo


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_handle_signals_raises_with_the_exit_code_of_shells(number, code):
    before = signal.getsignal(number)
    with pytest.raises(StoppedError, match=number.name) as caught, handle_signals():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


def test_handle_signals_ends_the_children_of_a_shell():
    shell = subprocess.Popen(["sh", "-c", "sleep 60; true"])
    while not (children := psutil.Process(shell.pid).children()):
        assert shell.poll() is None
    with pytest.raises(StoppedError), handle_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    shell.wait(timeout=10)
    assert not children[0].is_running() or children[0].status() == psutil.STATUS_ZOMBIE


def test_handle_signals_survives_a_callback_that_fails():
    def fail(error):
        raise OSError("no space left")

    with pytest.raises(StoppedError), handle_signals(fail):
        signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def follow():
    """Starts a process that ends by a signal when nobody writes to a FIFO, or with its stdin."""
    code = (
        "import sys; from pathlib import Path; from citeflow.utils import signals\n"
        "signals.stop_when_closed(Path(sys.argv[1])); print('works', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with contextlib.ExitStack() as stack:

        def start(fifo):
            command = [sys.executable, "-c", code, str(fifo)]
            process = stack.enter_context(subprocess.Popen(command, **pipes))
            return process, process.stdout.readline()

        yield start


def test_stop_when_closed_does_so_when_the_last_writer_is_gone(follow, tmp_path):
    with open_fifo(tmp_path / "fifo"):
        first, said = follow(tmp_path / "fifo")
        assert said == b"works\n"
        first.stdin.close()
        assert first.wait(60) == 0
        second, said = follow(tmp_path / "fifo")
        assert said == b"works\n"
    assert second.wait(60) == -signal.SIGTERM
    for fifo in (tmp_path / "fifo", tmp_path / "removed"):
        late, said = follow(fifo)
        assert (late.wait(60), said) == (-signal.SIGTERM, b"")
