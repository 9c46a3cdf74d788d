import os
import signal
import subprocess

import psutil
import pytest

from citeflow.errors import StoppedError
from citeflow.utils.signals import handle_signals


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
