"""A stage in a child process that dies by SIGKILL just before one of its changes to the disk.

Audit events show nearly all changes that Python makes (files opened for writing, folders made,
names changed and removed); `os.fsync` is counted besides.
"""

import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path

from citeflow import config
from citeflow.data.datasets import download_dataset
from citeflow.evaluation import protocols
from citeflow.evaluation.evaluator import evaluate
from citeflow.graph.preparation import prepare
from citeflow.paths import RunPaths
from citeflow.reporting.publish import publish
from citeflow.utils.usage import StageMeter

PRELOAD = [
    "faults.killed_stage",
    "citeflow.data.datasets",
    "citeflow.evaluation.evaluator",
    "citeflow.graph.preparation",
    "citeflow.reporting.html",
    "citeflow.reporting.report_plots",
    "citeflow.reporting.tensorboard",
    "matplotlib.backends.backend_svg",
    "torch.utils.tensorboard.summary",
]
CHANGES = {
    *("os.mkdir", "os.rename", "os.remove", "os.rmdir"),
    *("os.chmod", "os.truncate", "os.symlink", "os.link"),
}
COUNT = {"changes": 0}
SCORES = protocols.scores


def context():
    """Fork from a process that has imported everything and has no threads yet."""
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload(PRELOAD)
    return chosen


def call(stage, root):
    """Call one stage with folders below `root`; its time and memory stay out of the results."""
    StageMeter.cost = lambda _meter: {"seconds": 1.0, "peak_rss_bytes": 1.0}
    protocols.scores = lambda ranks, **options: SCORES(
        dataclasses.replace(ranks, seconds=1.0), **options
    )
    settings = config.load(overrides=(root / "settings").read_text().splitlines())
    run = RunPaths(root, "small")
    if stage == "download":
        download_dataset(str(root / "papers"), data_root=root, config=settings)
    elif stage == "preprocess":
        (raw,) = (path for path in (root / "raw").iterdir() if path.name[0] != ".")
        prepare(raw, data_root=root, config=settings.data)
    elif stage == "evaluate":
        (graph,) = (root / "prepared").glob("[!.]*")
        evaluate(run.model, graph=graph, run=run)
    else:
        publish(run.report, model=run.model, run=run, out=root / "out")


def run(stage, root, dies_at, channel):
    """Be the process: count changes from 1, and die before `dies_at` (0: live, and send the
    number)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sync = os.fsync

    def count():
        COUNT["changes"] += 1
        if COUNT["changes"] == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event, arguments):
        flags = arguments[2] if event == "open" and isinstance(arguments[2], int) else 0
        writes = flags & (os.O_WRONLY | os.O_RDWR) and arguments[0] != os.devnull
        if writes or event in CHANGES:
            count()

    def counted_sync(handle):
        count()
        sync(handle)

    os.fsync = counted_sync
    sys.addaudithook(audit)
    call(stage, Path(root))
    channel.send(COUNT["changes"])


def started(stage, root, dies_at=0, *, number=1):
    """Run a stage in so many processes at a time; returns their exit codes and the last count."""
    chosen = context()
    receiver, sender = chosen.Pipe(duplex=False)
    with contextlib.ExitStack() as stack:
        stack.enter_context(receiver)
        stack.enter_context(sender)
        processes = [
            chosen.Process(target=run, args=(stage, str(root), dies_at, sender))
            for _ in range(number)
        ]
        for process in processes:
            stack.enter_context(contextlib.closing(process))
            process.start()
        for process in processes:
            process.join(60)
        codes = [process.exitcode for process in processes]
        return codes, receiver.recv() if codes == [0] * number else 0


def contents(*folders):
    """Return the digest of each file by its path, without names that begin with a dot.

    A manifest says where a dataset came from; that it is another folder each time does not count.
    """
    return {
        str(path.relative_to(folder.parent)): hashlib.sha256(
            path.read_bytes().replace(str(folder.parent).encode(), b"")
        ).hexdigest()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
