"""Measure how fast the ranks train: two workers against one with the same cores, and small graphs
against large ones.

    python benchmarks/throughput.py PREPARED_GRAPH... [--seconds 60] [--rounds 3] [--set
        SECTION.KEY=VALUE]

Every round trains on each graph with one and with two workers, so that a noisy machine is noisy for
all of them. Prints one JSON object: what the machine can do, every training, medians of the
positives per second, their ratios, and the peak memory of each worker, in which pages that several
workers map count once (the proportional set size that Linux reports).
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from machine import measured
from ranks import workers_of

from citeflow import files
from citeflow.artifacts import TRAINED_MODEL
from citeflow.utils import system

WORKERS = (2, 1)
SAMPLE_EVERY_S = 0.5


def main() -> None:
    """Train, round by round, and print."""
    options = _options()
    runs: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(options.rounds):
            for graph in options.graphs:
                for workers in WORKERS:
                    run = _train(
                        graph, workers, options, Path(scratch), f"r{turn}-{graph.name}-{workers}"
                    )
                    runs.setdefault(f"{graph.name}/{workers}", []).append(run)
                    print(
                        json.dumps({"graph": graph.name, "workers": workers, **run}),
                        file=sys.stderr,
                    )
    cores = system.num_cores()
    machine = {"cores": cores, **measured(cores)}
    print(json.dumps({"machine": machine, "runs": runs, **_summary(options.graphs, runs)}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "graphs", type=Path, nargs="+", help="folders of PreparedGraphs, the smallest first"
    )
    parser.add_argument("--seconds", type=float, default=60, help="length of each training")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="a setting")
    return parser.parse_args()


def _train(
    graph: Path, workers: int, options: argparse.Namespace, root: Path, name: str
) -> dict[str, float]:
    """Train for a while; the one evaluation at the end is not in the time, but in the memory."""
    settings = [
        f"train.minutes={options.seconds / 60}",
        "train.num_validations=1",
        *options.overrides,
    ]
    command = [sys.executable, "-m", "citeflow", "train", str(graph)]
    command += ["--run-name", name, "--data-root", str(root), "--workers", str(workers)]
    for setting in settings:
        command += ["--set", setting]
    with (root / "training.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        peak = _peak_memory(process)
        if process.returncode:
            log.seek(0)
            raise SystemExit(log.read())
    manifest = files.read_manifest(root / "runs" / name / "model", TRAINED_MODEL)
    return {
        "positives_per_s": manifest.number("positives_per_s"),
        "steps": manifest.number("steps"),
        "cores": manifest.number("cpu_cores"),
        "others_share": manifest.number("others_share"),
        "peak_bytes_per_worker": peak,
    }


def _peak_memory(process: "subprocess.Popen[bytes]") -> float:
    """Highest mean of the workers' proportional set sizes while a training lasts, in bytes."""
    peak = 0.0
    while process.poll() is None:
        sizes = []
        for worker in workers_of(process.pid):
            with contextlib.suppress(psutil.Error):
                sizes.append(worker.memory_full_info().pss)
        peak = max(peak, sum(sizes) / max(1, len(sizes)))
        time.sleep(SAMPLE_EVERY_S)
    return peak


def _summary(graphs: list[Path], runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    names = [graph.name for graph in graphs]
    speed = {
        name: statistics.median(run["positives_per_s"] for run in each)
        for name, each in runs.items()
    }
    peak = {name: max(run["peak_bytes_per_worker"] for run in each) for name, each in runs.items()}
    return {
        "positives_per_s": speed,
        "two_workers_against_one": {
            name: speed[f"{name}/2"] / speed[f"{name}/1"] for name in names
        },
        "cost_of_a_positive_last_against_first": speed[f"{names[0]}/2"] / speed[f"{names[-1]}/2"],
        "peak_bytes_per_worker": peak,
    }


if __name__ == "__main__":
    main()
