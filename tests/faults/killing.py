"""Runs a verb in a process of its own that dies by SIGKILL just before one of its changes to the disk.

Audit events tell of nearly all changes that Python makes (files opened for writing, folders made, names changed and
removed); `os.fsync` is counted besides.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path

from citeflow import config, files, stages
from citeflow.utils.usage import StageMeter

PRELOAD = [
    "faults.killing",
    "citeflow.graph.prepared",
    "citeflow.evaluation.evaluator",
    "citeflow.reporting.html",
]
PRELOAD += [
    "citeflow.data.datasets",
    "citeflow.reporting.tensorboard",
    "torch.utils.tensorboard.summary",
]
PRELOAD += ["citeflow.reporting.plots", "matplotlib.figure", "matplotlib.backends.backend_svg"]
CHANGES = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.truncate",
    "os.symlink",
    "os.link",
}
COUNT = {"changes": 0}


def context():
    """Forks from a process that has imported everything and has no threads yet."""
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload(PRELOAD)
    return chosen


def verb(name, root):
    """Run one verb with folders below `root`, its clock and its memory taken out of the results."""
    stages._cost = lambda _began: {"seconds": 1.0, "peak_rss_bytes": 1}
    StageMeter.cost = lambda _self: {"seconds": 1.0, "peak_rss_bytes": 1.0}
    settings = config.load(overrides=(root / "settings").read_text().splitlines())
    run_dir = root / "runs/small"
    if name == "download":
        stages.download(str(root / "papers"), data_root=root, config=settings)
    elif name == "preprocess":
        (raw,) = (path for path in (root / "raw").iterdir() if path.name[0] != ".")
        stages.preprocess(raw, data_root=root, config=settings)
    elif name == "evaluate":
        (graph,) = (root / "prepared").glob("[!.]*")
        stages.evaluate(run_dir / "model", graph=graph, run_dir=run_dir)
    else:
        stages.publish(
            run_dir / "report",
            model=run_dir / "model",
            log_dir=root / "logs/small",
            out_dir=root / "out",
        )


def run(name, root, dies_at, channel):
    """Be the process: count changes from 1, and die before the one that is asked for (0: live, and tell how many)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sync = os.fsync

    def count():
        COUNT["changes"] += 1
        if COUNT["changes"] == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def look(event, arguments):
        flags = arguments[2] if event == "open" and isinstance(arguments[2], int) else 0
        writes = (
            event == "open" and flags & (os.O_WRONLY | os.O_RDWR) and arguments[0] != os.devnull
        )
        if writes or event in CHANGES:
            count()

    def counted_sync(handle):
        count()
        sync(handle)

    os.fsync = counted_sync
    sys.addaudithook(look)
    verb(name, Path(root))
    channel.send(COUNT["changes"])


def killed(name, root, dies_at):
    """Run a verb that dies; returns whether it did."""
    return _joined(name, root, dies_at)[0] == -signal.SIGKILL


def alive(name, root):
    """Run a verb to its end; returns how many changes it made."""
    code, changes = _joined(name, root, 0)
    assert code == 0
    return changes


def two_at_once(name, root):
    """Run a verb in two processes at a time; returns their exit codes."""
    chosen = context()
    receiver, sender = chosen.Pipe(duplex=False)
    with receiver, sender:
        processes = [
            chosen.Process(target=run, args=(name, str(root), 0, sender)) for _ in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.close()
    return codes


def _joined(name, root, dies_at):
    chosen = context()
    receiver, sender = chosen.Pipe(duplex=False)
    process = chosen.Process(target=run, args=(name, str(root), dies_at, sender))
    with contextlib.closing(process), receiver, sender:
        process.start()
        process.join(60)
        return process.exitcode, receiver.recv() if process.exitcode == 0 else None


def contents(*folders):
    """Every file that somebody would look at: its path and digest; names that begin with a dot are nobody's."""
    return {
        str(path.relative_to(folder.parent)): files.sha256_of_file(path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
