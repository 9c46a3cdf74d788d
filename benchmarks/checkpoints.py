"""Measure what a checkpoint costs the step at which it is due, on one thread.

    python benchmarks/checkpoints.py PREPARED_GRAPH [--rounds 15] [--set SECTION.KEY=VALUE]

Takes steps by turns without a checkpoint, with one that is written on a thread from a copy, as a
training does, and with one that the step waits for. Prints one JSON object: medians of the seconds
of a step, and their ratios to a step without.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from step import Steps

from citeflow import config as settings
from citeflow.graph.prepared import PreparedGraph
from citeflow.training import checkpoint, lease
from citeflow.training.checkpoint import Progress
from citeflow.training.checkpoint_writer import CheckpointWriter
from citeflow.utils.system import worker_environment

KINDS = ("none", "on a thread", "waited for")


def measure(steps: Steps, rounds: int, folder: Path) -> dict[str, float]:
    """Return the medians of each kind, and the ratios.

    The thread of a checkpoint works on beside the steps; it is left alone before another kind.
    """
    held = lease.acquire(folder / "attempts", launch="one", step=0)
    writer = CheckpointWriter(folder / "checkpoints", {}, held)
    records = [{"step": step, "loss": 5.0, "seconds": step / 3} for step in range(1_000)]
    progress = Progress(history=records)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    batch = steps.batch(0)
    for number in range(-2, rounds * len(KINDS)):
        kind = KINDS[number % len(KINDS)]
        progress.step = number + 3
        best = {name: value.clone() for name, value in steps.model.state_dict().items()}
        began = time.perf_counter()
        if kind != "none":
            state = checkpoint.capture(
                model=steps.model, optimizer=steps.optimizer, best=best, progress=progress
            )
            writer.submit(state)
        if kind == "waited for":
            writer.wait()
        steps.compute(batch)
        if number >= 0:
            seconds[kind].append(time.perf_counter() - began)
        writer.wait()
    writer.close()
    medians = {kind: statistics.median(each) for kind, each in seconds.items()}
    return {
        **{f"{kind}_s": round(median, 4) for kind, median in medians.items()},
        **{f"{kind}_ratio": round(medians[kind] / medians["none"], 4) for kind in KINDS[1:]},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("--rounds", type=int, default=15, help="steps of each kind")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="a setting")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.here:
        environment = {**worker_environment(os.environ, 1), "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONSAFEPATH")  # this folder has a module to import
        subprocess.run([sys.executable, *sys.argv, "--here"], env=environment, check=True)
        return
    torch.set_num_threads(1)
    config = settings.load(overrides=options.overrides)
    with tempfile.TemporaryDirectory() as folder:
        steps = Steps(PreparedGraph.open(options.graph), config)
        print(json.dumps(measure(steps, options.rounds, Path(folder))))


if __name__ == "__main__":
    main()
