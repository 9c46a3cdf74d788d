"""Checkpoints of a few hundred bytes, and a disk whose calls can be counted, cut or refused."""

import contextlib
import ctypes
import io
import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from citeflow import files
from citeflow.files import replacing
from citeflow.paths import RunPaths
from citeflow.training import checkpoint
from citeflow.training.checkpoint import Progress
from citeflow.training.checkpoint_writer import CheckpointWriter
from citeflow.training.goodput import CAUSES, Goodput
from citeflow.training.lease import acquire
from citeflow.training.trainer import Trainer

INPUTS = {"PreparedGraph": "a" * 64, "config": "b" * 64, "workers": 2}
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
"""Python 3.12 warns of the locks of other threads."""

NAMES = ("open", "fsync", "replace", "link", "unlink", "mkdir", "rmdir", "chmod")
CLONE_NEWNS = 0x20000  # of Linux' <linux/sched.h>


def save(folder, step, seed=None):
    """Save a checkpoint whose tensors follow from its step, or from a seed."""
    torch.manual_seed(step if seed is None else seed)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    progress = Progress(step=step, seconds=float(step), history=[{"step": step, "loss": 0.5}])
    best = {name: value.clone() for name, value in model.state_dict().items()}
    state = checkpoint.capture(model=model, optimizer=optimizer, best=best, progress=progress)
    checkpoint.write(folder, state.to_bytes(), INPUTS)


def read(folder):
    return checkpoint.read(folder, INPUTS)


def left_behind(folder):
    """Return the names in a folder besides whole checkpoints."""
    return sorted(name for name in files.names_in(folder) if not name.startswith("step-"))


class Torn:
    """A file that calls a function in the middle of each write."""

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
def watched(tell):
    """Call a function with the name of each disk operation before it; fsync does nothing."""

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
            real = (lambda _: None) if name == "fsync" else getattr(os, name)
            patch.setattr(os, name, wrapped(name, real))
        patch.setattr(io, "open", opened)
        patch.setattr(replacing, "_exchange", wrapped("exchange", replacing._exchange))
        yield


def calls_of(work):
    """Return the names of the calls that some work makes."""
    names = []
    with watched(names.append):
        work()
    return names


def in_a_child(work):
    """Do some work in a child process; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            work()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class DeadError(BaseException):
    """The end of a process: its clean-up does not run."""


def dies_at(turn, work):
    """Do some work that is cut at one call and makes none after it; returns whether it was."""
    numbers = itertools.count(1)

    def die(_):
        if next(numbers) >= turn:
            raise DeadError

    try:
        with watched(die):
            work()
    except DeadError:
        return True
    return False


class Refusing:
    """Fails one call, counted from 1, with an error number, as a disk does."""

    def __init__(self, number, turn):
        self._number = number
        self._left = turn
        self.fired = 0

    def __call__(self, name):
        self._left -= 1
        if self._left == 0:
            self.fired += 1
            raise OSError(self._number, os.strerror(self._number), name)


def traced(work, *options, out):
    """Do some work in a child under strace; returns its exit code, negative for a signal."""
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
    """Do some work in a child whose folder is a disk of so many bytes; returns its exit code."""
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


class SingleRank:
    """The only rank."""

    is_main = True

    def broadcast_object(self, make):
        return make()


class SavingTrainer(Trainer):
    """As much of a training as saving needs."""

    def __init__(self, data_root, launch="one"):
        self.run = RunPaths(data_root, "r")
        self.model = torch.nn.Linear(30, 20)
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.best = {}
        self.progress = Progress(spent=dict.fromkeys(CAUSES, 0.0))
        self.goodput = Goodput(self.progress, "steps")
        self.inputs = INPUTS
        self.group = SingleRank()
        self.lease = acquire(self.run.leases, launch=launch, step=0)
        self._saved = None


def take_steps(training, steps):
    """Count steps, and save after each."""
    # With a thread of its own: the one of before may be that of a parent process.
    training.writer = CheckpointWriter(training.run.checkpoints, INPUTS, training.lease)
    for _ in range(steps):
        training.progress.step += 1
        training.save()
        training.writer.wait()
    training.writer.close()


def copied(source: Path, target: Path) -> Path:
    """Replace a folder by a copy of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target
