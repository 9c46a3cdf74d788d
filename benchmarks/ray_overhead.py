"""Measure what the launcher `ray` costs beside `local`: seconds and memory of the same training.

    python benchmarks/ray_overhead.py [--rounds 3]

Trains 400 synthetic papers with two workers, by either launcher in turn, and prints one JSON
object: for each the medians of the seconds and of the largest memory of all processes together
(each page counted once), how many different models there were, and the load of the machine.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from citeflow import config, files
from citeflow.data.datasets import download_dataset
from citeflow.graph.preparation import prepare
from citeflow.paths import RunPaths
from citeflow.training.launch import train_locally
from citeflow.training.ray_launch import train_on_ray

SETTINGS = [
    "synthetic.num_papers=400",
    "data.holdout=0.2",
    "data.eval_negatives=50",
    "model.hidden_channels=16",
    "model.predictor=dot",
    "train.epochs=12",
    "train.nodes_per_batch=100",
    "train.num_negatives=64",
    "train.num_validations=4",
]
WORKERS = 2
EVERY_S = 0.5
LAUNCHERS: dict[str, Callable[..., Path]] = {"local": train_locally, "ray": train_on_ray}


@contextlib.contextmanager
def peak_memory(peak: list[int]) -> Iterator[None]:
    """Append to a list the largest sum of the proportional memory of all child processes."""
    done = threading.Event()
    peak.append(0)

    def look() -> None:
        while not done.wait(EVERY_S):
            peak[-1] = max(peak[-1], sum(map(memory, psutil.Process().children(recursive=True))))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def memory(process: psutil.Process) -> int:
    """Return the bytes of a process, those that it shares in equal parts."""
    with contextlib.suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="trainings by each launcher")
    rounds = parser.parse_args().rounds
    settings = config.load(overrides=SETTINGS)
    seconds: dict[str, list[float]] = {name: [] for name in LAUNCHERS}
    peaks: dict[str, list[int]] = {name: [] for name in LAUNCHERS}
    digests = set()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        raw = download_dataset("synthetic", data_root=root, config=settings)
        graph = prepare(raw, data_root=root, config=settings.data)
        for number in range(rounds):
            for name, train in LAUNCHERS.items():
                run = RunPaths(root, f"{name}-{number}")
                began = time.monotonic()
                with peak_memory(peaks[name]):
                    model = train(graph, run, config=settings, workers=WORKERS)
                seconds[name].append(time.monotonic() - began)
                digests.add(files.sha256_of_file(model / "model.safetensors"))
    found = {
        name: {
            "seconds": round(statistics.median(seconds[name]), 1),
            "peak_mib": round(statistics.median(peaks[name]) / 2**20),
        }
        for name in LAUNCHERS
    }
    load = round(os.getloadavg()[1], 1)
    print(json.dumps({**found, "rounds": rounds, "models": len(digests), "load": load}))


if __name__ == "__main__":
    main()
