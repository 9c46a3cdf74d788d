"""Checkpoints of a few hundred bytes, and a disk on which every call of a save can be counted, ended or refused."""

import contextlib
import ctypes
import io
import itertools
import os
import shutil
import subprocess
import threading
import types
from pathlib import Path

import pytest
import torch

from citeflow import files
from citeflow.files import replacing
from citeflow.training import checkpoint, trainer
from citeflow.training.checkpoint import Progress
from citeflow.training.lease import claim

INPUTS = {"PreparedGraph": "a" * 64, "config": "b" * 64, "workers": 2}
FORKS = pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # Python 3.12 fears for the other threads' locks
NAMES = ("open", "fsync", "replace", "link", "unlink", "mkdir", "rmdir", "chmod")
CLONE_NEWNS = 0x20000  # of Linux' <linux/sched.h>


def save(folder, step, seed=None):
    """A checkpoint whose tensors follow from its step, or from a seed."""
    torch.manual_seed(step if seed is None else seed)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    progress = Progress(step=step, seconds=float(step), history=[{"step": step, "loss": 0.5}])
    best = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint.save(
        folder, model=model, optimizer=optimizer, best=best, progress=progress, inputs=INPUTS
    )


def read(folder):
    return checkpoint.read(folder, INPUTS)


def left_behind(folder):
    """Whatever lies in a folder besides whole checkpoints."""
    return sorted(name for name in files.names_in(folder) if not name.startswith("step-"))


class Torn:
    """A file that is told of each write when half of it is done."""

    def __init__(self, file, tell):
        self._file, self._tell = file, tell

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, content):
        half = len(content) // 2
        self._file.write(content[:half])
        self._file.flush()
        self._tell("write")
        return half + self._file.write(content[half:])


@contextlib.contextmanager
def told(tell):
    """Tell of every call that the product makes of the disk, by its name, before it is made; nothing waits for it."""

    def wrapped(name, real):
        def call(*args, **kwargs):
            tell(name)
            return real(*args, **kwargs)

        return call

    def opened(path, mode="r", *args, _real=io.open, **kwargs):
        tell("open")
        file = _real(path, mode, *args, **kwargs)
        return Torn(file, tell) if "w" in mode and "b" in mode else file

    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setattr(
                os, name, wrapped(name, getattr(os, name) if name != "fsync" else lambda _: None)
            )
        patch.setattr(io, "open", opened)
        patch.setattr(replacing, "_exchange", wrapped("exchange", replacing._exchange))
        yield


def calls_of(work):
    """Names of the calls that some work makes."""
    names = []
    with told(names.append):
        work()
    return names


class Turn:
    """Does something at the so-many-th call, counted from 1."""

    def __init__(self, turn, act):
        self._numbers, self._turn, self._act = itertools.count(1), turn, act
        self.fired = 0

    def __call__(self, name):
        if next(self._numbers) == self._turn:
            self.fired += 1
            self._act(name)


def in_a_child(work):
    """Do some work in a process of its own; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            work()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class DeadError(BaseException):
    """Stands for the end of a process: nothing that it would have cleaned up is."""


def dies_at(turn, work):
    """Do some work whose process ends at its so-many-th call, and makes none after that; whether it did."""
    numbers = itertools.count(1)

    def die(_):
        if next(numbers) >= turn:
            raise DeadError

    try:
        with told(die):
            work()
    except DeadError:
        return True
    return False


def refusing(number, turn):
    """Fails the so-many-th call with an error number, as a disk does."""

    def refuse(name):
        raise OSError(number, os.strerror(number), name)

    return Turn(turn, refuse)


def traced(work, *options, out):
    """Do some work in a process that strace watches; returns its exit code, negative for a signal.

    Args:
        work: what to do.
        options: of strace.
        out: where the trace goes.
    """
    if shutil.which("strace") is None:
        pytest.skip("it needs strace")
    begin, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(begin, 1)
        code = 1
        with contextlib.suppress(BaseException):
            work()
            code = 0
        os._exit(code)
    os.close(begin)
    command = ["strace", "-f", "-y", "-s", "512", *options, "-o", str(out), "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        attached = "attached" in strace.stderr.readline()
        os.close(go)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not attached:
        pytest.skip("strace may not attach to a process here")
    return code


def on_a_small_disk(folder, size, work):
    """Do some work in a process for which a folder is a disk of so many bytes; returns its exit code."""
    if os.geteuid() != 0:
        pytest.skip("it needs root, to mount a small disk")

    def confined():
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNS) != 0:
            os._exit(77)
        private = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        )
        if private.returncode or mounted.returncode:
            os._exit(77)
        work()

    code = in_a_child(confined)
    if code == 77:
        pytest.skip("no small disk can be mounted here")
    return code


class Barrier:
    """Two ranks that are threads of this process, joined for sums and for what rank 0 sends."""

    def __init__(self, world_size=2):
        self._barrier, self._given = threading.Barrier(world_size, timeout=30), {}

    def exchange(self, rank, value):
        """What each rank gave, in the order of the ranks."""
        self._given[rank] = value
        self._barrier.wait()
        given = [self._given[each] for each in sorted(self._given)]
        self._barrier.wait()
        return given


class Ranks:
    """One rank, which agrees with itself."""

    is_first = True

    def sum(self, *values):
        return list(values)


def training_on(folder, launch="one"):
    """As much of a training as saving needs."""
    model = torch.nn.Linear(30, 20)
    return types.SimpleNamespace(
        progress=Progress(),
        saved=(-1, -1),
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        best={},
        group=Ranks(),
        attempt=claim(folder / "attempts", launch=launch, step=0),
        checkpoints=folder / "checkpoints",
        inputs=INPUTS,
    )


def go_on(training, steps):
    """Take steps, and save after each."""
    for _ in range(steps):
        training.progress.step += 1
        trainer._save(training)


def copied(source: Path, target: Path) -> Path:
    """A folder as it was, in the place of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
