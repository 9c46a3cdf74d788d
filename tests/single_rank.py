"""This process as the only rank of a training."""

import contextlib
import signal
import socket

import pytest


@contextlib.contextmanager
def restored_signal_handlers():
    old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def single_rank_environment():
    """Set the variables of torchrun for a group of one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "LOCAL_WORLD_SIZE": 1,
        "WORLD_SIZE": 1,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, str(value))
        yield


def run_worker_here(command, environment, run, sandbox=None) -> tuple[int, bool]:
    """Do in this process what torchrun would let one worker do."""
    from citeflow.training import worker

    with restored_signal_handlers(), single_rank_environment():
        try:
            worker.main(command[command.index(worker.__name__) + 1 :])
        except SystemExit as ended:
            return ended.code, False
    return 0, False
