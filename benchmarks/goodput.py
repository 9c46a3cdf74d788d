"""Measure what kills cost a training: undisturbed, and with a random worker killed at an interval.

    python benchmarks/goodput.py DATASET [--per-hour 240 60] [--rounds 1] [--epochs 6] [--workers 2]
        [--seed 0] [--plot FILE.svg] [--set SECTION.KEY=VALUE]
    python benchmarks/goodput.py --from RESULTS.json --plot FILE.svg

Prints one JSON object: for each round and number of kills per hour the time of the whole command,
the goodput that the run itself reports and what the rest was lost to, the undisturbed time of the
round over the disturbed one, the restarts' time and the steps that were done again, and whether the
model is the same to the bit. Trains by epochs, as a training by minutes ends by the clock. A kill
that finds no worker, as they are about to start again, waits for one, and the next one comes an
interval later. The plot has what was measured, at the rate of kills that came of it, and the line
that follows from the mean loss per kill.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import psutil
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, PercentFormatter
from prometheus_client.parser import text_string_to_metric_families
from ranks import workers_of

from citeflow import config as settings
from citeflow import files
from citeflow.artifacts import TRAINED_MODEL
from citeflow.data.datasets import download_dataset
from citeflow.graph.preparation import prepare
from citeflow.paths import RunPaths
from citeflow.report import TrainSummary
from citeflow.reporting.plots import COLOURS, STYLE
from citeflow.utils.system import METRICS_PORT_VARIABLE

POLL_S = 0.05
OF_KILLS = ("restart", "redone")
"""Causes of a loss that a kill alone brings about."""


def main() -> None:
    """Train at each rate, print, and draw."""
    options = _options()
    if options.results:
        results = json.loads(options.results.read_text())
    else:
        with tempfile.TemporaryDirectory() as scratch:
            results = measure(options, Path(scratch))
        print(json.dumps(results, indent=1))
    if options.plot:
        options.plot.write_text(draw(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", nargs="?", default="synthetic", help="name, folder or file")
    parser.add_argument("--per-hour", type=float, nargs="*", default=[240, 60], help="kills")
    parser.add_argument("--rounds", type=int, default=1, help="trainings of each kind")
    parser.add_argument("--epochs", type=float, default=6, help="length of each training")
    parser.add_argument("--workers", type=int, default=2, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of the ranks in the first round")
    parser.add_argument("--plot", type=Path, help="SVG file to write")
    parser.add_argument("--from", type=Path, dest="results", help="draw these results again")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="a setting")
    return parser.parse_args()


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Train without kills, and then at each rate."""
    config = settings.load(overrides=options.overrides)
    raw = download_dataset(options.dataset, data_root=root, config=config)
    graph = prepare(raw, data_root=root, config=config.data)
    runs = []
    for number in range(options.rounds):
        for per_hour in (0.0, *options.per_hour):
            paths = RunPaths(root, f"kills-{per_hour:g}-{number}")
            run = _train(graph, per_hour, options, paths, seed=options.seed + number)
            if not per_hour:
                whole = run
            run["of_undisturbed_speed"] = whole["wall_s"] / run["wall_s"]
            run["is_same_model"] = run["model_sha256"] == whole["model_sha256"]
            print(json.dumps(run), file=sys.stderr)
            runs.append(run)
    kills = sum(run["kills"] for run in runs)
    lost_s = sum(run["losses"][cause] for run in runs for cause in OF_KILLS)
    return {
        "dataset": Path(options.dataset).name,
        "workers": options.workers,
        "epochs": options.epochs,
        "lost_s_per_kill": lost_s / kills if kills else None,
        "runs": runs,
    }


def _train(
    graph: Path, per_hour: float, options: argparse.Namespace, run: RunPaths, seed: int
) -> dict[str, Any]:
    """Train once, and say what it cost."""
    port = _free_port()
    command = [sys.executable, "-m", "citeflow", "train"]
    command += [str(graph), "--run-name", run.name, "--data-root", str(run.data_root)]
    command += ["--workers", str(options.workers)]
    for setting in (f"train.epochs={options.epochs}", *options.overrides):
        command += ["--set", setting]
    began = time.monotonic()
    with (run.data_root / "training.log").open("w+") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, METRICS_PORT_VARIABLE: str(port)},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        kills = list(_kill_at_interval(process, port, per_hour, seed))
        if process.wait():
            log.seek(0)
            raise SystemExit(log.read())
    wall_s = time.monotonic() - began
    train = TrainSummary.model_validate(files.read_manifest(run.model, TRAINED_MODEL).facts)
    told = [*(kill["restart_s"] for kill in kills), train.losses["restart"]]
    restarts = [after - before for before, after in itertools.pairwise(told) if after > before]
    return {
        "per_hour": per_hour,
        "seed": seed,
        "wall_s": wall_s,
        "goodput": train.goodput,
        "run_wall_s": train.wall_seconds,
        "losses": train.losses,
        "kills": len(kills),
        "restart_s_p50": statistics.median(restarts) if restarts else None,
        "restart_s_max": max(restarts, default=None),
        "steps": train.steps,
        "redone_steps": _redone_steps(run, kills),
        "model_sha256": files.sha256_of_file(run.model / "model.safetensors"),
    }


def _kill_at_interval(
    process: "subprocess.Popen[bytes]", port: int, per_hour: float, seed: int
) -> Iterator[dict[str, float]]:
    """Kill one worker each interval until the training ends; yield what the run said just before.

    The first kill comes one interval after the first step.
    """
    chosen = random.Random(seed)
    due = float("inf")
    while process.poll() is None:
        time.sleep(POLL_S)
        if per_hour and due == float("inf") and _scrape(port).get("step"):
            due = time.monotonic() + 3600 / per_hour
        if time.monotonic() < due:
            continue
        told = _scrape(port)
        workers = workers_of(process.pid)
        if "restart_s" in told and workers:
            told["wall_time"] = time.time()
            with contextlib.suppress(psutil.NoSuchProcess):
                chosen.choice(workers).kill()
                yield told
            due = time.monotonic() + 3600 / per_hour


def _scrape(port: int) -> dict[str, float]:
    """Return the step of a training and the seconds of its restarts; nothing while it restarts."""
    told = {}
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "citeflow_train_step":
                    told["step"] = sample.value
                if sample.labels.get("cause") == "restart":
                    told["restart_s"] = sample.value
    return told


def _redone_steps(run: RunPaths, kills: list[dict[str, float]]) -> int:
    """Count the steps that were taken before a kill, and that the next attempt began before."""
    leases: list[Any] = [files.read_json(path) for path in sorted(run.leases.glob("*.json"))]
    redone = 0.0
    for kill in kills:
        later = [lease["step"] for lease in leases if lease["wall_time"] > kill["wall_time"]]
        redone += max(0.0, kill["step"] - later[0]) if later else 0.0
    return round(redone)


def draw(results: dict[str, Any]) -> str:
    """Draw the share of the time that kills leave over their number per hour, as an SVG file.

    The time is that from the first step on, which is nearly all of a long training.
    """
    lost_s = results["lost_s_per_kill"]
    rates = np.geomspace(1, 240, 100)
    measured = []
    for run in results["runs"]:
        if run["kills"]:
            since_s = run["run_wall_s"] - run["losses"]["start"]
            lost = sum(run["losses"][cause] for cause in OF_KILLS)
            measured.append((3600 * run["kills"] / since_s, 1 - lost / since_s))
    with matplotlib.style.context(["default", STYLE, {"figure.facecolor": "white"}]):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        label = f"computed from the mean, {lost_s:.2f} s per kill"
        line = 1 - rates * lost_s / 3600
        axes.plot(rates, np.maximum(line, 0), color=COLOURS["sky"], label=label)
        look: dict[str, Any] = {"color": COLOURS["blue"], "marker": "o", "linestyle": "none"}
        axes.plot(*zip(*measured, strict=True), label="measured", **look)
        axes.set(xscale="log", xlim=(0.9, 270), xlabel="Workers killed per hour")
        axes.set(ylabel="Goodput, undisturbed = 100 %")
        axes.xaxis.set_major_locator(FixedLocator([1, 4, 15, 60, 240]))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_ylim(max(0.0, line[-1] - 0.05), 1.01)
        axes.legend(loc="lower left")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    main()
