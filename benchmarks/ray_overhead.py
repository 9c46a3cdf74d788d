"""Measure what the launcher `ray` costs beside `local`: seconds and memory of the same training.

    python benchmarks/ray_overhead.py [--rounds 3]

Trains 400 synthetic papers with two workers, by either launcher in turn, and prints one JSON
object: for each the medians of the seconds, of the CPU seconds and of the largest memory of all
processes together (each page counted once), how many different models there were, and the load of
the machine. Other work of the machine changes the seconds, and hardly the others.
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
from dataclasses import dataclass, field
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


@dataclass
class Usage:
    """What the trainings by a launcher took."""

    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    """Bytes."""

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Append what the child processes take during a block."""
        done = threading.Event()
        peak = 0
        cpu_s: dict[int, float] = {}

        def look() -> None:
            nonlocal peak
            while not done.wait(EVERY_S):
                now = 0
                for process in psutil.Process().children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        now += int(process.memory_full_info().pss)
                        cpu_s[process.pid] = sum(process.cpu_times()[:2])
                peak = max(peak, now)

        thread = threading.Thread(target=look)
        began = time.monotonic()
        thread.start()
        try:
            yield
        finally:
            self.seconds.append(time.monotonic() - began)
            done.set()
            thread.join()
        self.peaks.append(peak)
        self.cpu_s.append(sum(cpu_s.values()))

    def medians(self) -> dict[str, float]:
        """Return the median of each."""
        return {
            "seconds": round(statistics.median(self.seconds), 1),
            "cpu_s": round(statistics.median(self.cpu_s), 1),
            "peak_mib": round(statistics.median(self.peaks) / 2**20),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="trainings by each launcher")
    rounds = parser.parse_args().rounds
    settings = config.load(overrides=SETTINGS)
    usage = {name: Usage() for name in LAUNCHERS}
    digests = set()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        raw = download_dataset("synthetic", data_root=root, config=settings)
        graph = prepare(raw, data_root=root, config=settings.data)
        for number in range(rounds):
            for name, train in LAUNCHERS.items():
                run = RunPaths(root, f"{name}-{number}")
                with usage[name].measured():
                    model = train(graph, run, config=settings, workers=WORKERS)
                digests.add(files.sha256_of_file(model / "model.safetensors"))
    found = {name: each.medians() for name, each in usage.items()}
    load = round(os.getloadavg()[1], 1)
    print(json.dumps({**found, "rounds": rounds, "models": len(digests), "load": load}))


if __name__ == "__main__":
    main()
