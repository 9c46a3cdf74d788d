import os
import signal
import subprocess

import psutil
import pytest

from citeflow.errors import StoppedError
from citeflow.utils.signals import handle_signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_becomes_an_error_with_the_exit_code_that_shells_use(number, code):
    with pytest.raises(StoppedError, match=number.name) as caught, handle_signals():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code


def test_a_signal_ends_the_processes_below_a_shell_too():
    shell = subprocess.Popen(["sh", "-c", "sleep 60; true"])
    while not (below := psutil.Process(shell.pid).children()):
        assert shell.poll() is None
    with pytest.raises(StoppedError), handle_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    shell.wait(timeout=10)
    assert not below[0].is_running() or below[0].status() == psutil.STATUS_ZOMBIE


def test_the_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with handle_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_listener_that_fails_does_not_keep_the_process_from_ending():
    def tell(error):
        raise OSError("no space left")

    with pytest.raises(StoppedError), handle_signals(tell):
        signal.raise_signal(signal.SIGTERM)
