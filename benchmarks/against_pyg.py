"""Measure citeflow's training against PyG's own recipe, on the same graph and the same cores.

    python benchmarks/against_pyg.py PREPARED_GRAPH [--seconds 60] [--rounds 3] [--batch 1024]
        [--pyg-python PYTHON] [--graphbolt-python PYTHON] [--set SECTION.KEY=VALUE]

Each round trains with all of them in turn: citeflow with two workers and a dot product, citeflow's
default model, `pyg_recipe.py`, and `graphbolt_recipe.py` where its interpreter is named. The first
round tries each number of loader processes; the others keep the fastest. Prints one JSON object:
what the machine can do, the trainings, the medians of the positives per second, their ratios, and
what a million citations cost at a spot price.

`--pyg-python` names an interpreter that has torch-sparse or pyg-lib beside what citeflow needs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import measured

from citeflow import files
from citeflow.artifacts import TRAINED_MODEL
from citeflow.utils import system

HERE = Path(__file__).parent
LOADERS = (0, 1, 2)
MODELS = {"citeflow dot": ["model.predictor=dot"], "citeflow default": []}
PYG, GRAPHBOLT = "PyG LinkNeighborLoader", "DGL GraphBolt"

VCPU_HOUR, GIB_HOUR = 0.01182, 0.001584
"""Prices of C3D spot nodes on GKE in dollars (Google's page cloud.google.com/spot-vms/pricing,
2026); a core is two vCPU, each with the 4 GiB of `c3d-standard`."""

Runs = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Train, round by round, and print."""
    options = _options()
    cores = system.num_cores()
    machine = measured(cores)
    runs: Runs = {}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(options.rounds):
            for name, settings in MODELS.items():
                run_name = f"r{turn}-{name.replace(' ', '-')}"
                run = _citeflow(options, [*settings, *options.overrides], Path(scratch), run_name)
                _keep(runs, name, run)
            recipes = {PYG: ("pyg_recipe.py", options.pyg_python)}
            if options.graphbolt_python:
                recipes[GRAPHBOLT] = ("graphbolt_recipe.py", options.graphbolt_python)
            for name, (script, python) in recipes.items():
                for loaders in _loaders(runs.get(name, [])):
                    run = _recipe(script, python, loaders, options)
                    _keep(runs, name, {"loaders": loaders, **run})
    print(json.dumps({"machine": {"cores": cores, **machine}, **_summary(runs, cores)}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("--seconds", type=float, default=60, help="length of each training")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--batch", type=int, default=1024, help="citations of a recipe's step")
    parser.add_argument(
        "--pyg-python", default=sys.executable, help="interpreter with PyG's sampler"
    )
    parser.add_argument("--graphbolt-python", help="interpreter with DGL")
    parser.add_argument(
        "--pause", type=float, default=0, help="seconds of rest before each training"
    )
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="a setting")
    return parser.parse_args()


def _keep(runs: Runs, name: str, run: dict[str, Any]) -> None:
    runs.setdefault(name, []).append(run)
    print(json.dumps({"name": name, **run}), file=sys.stderr, flush=True)


def _loaders(runs: list[dict[str, Any]]) -> tuple[int, ...]:
    """The numbers of loader processes that are still to be measured."""
    return (max(runs, key=_rate)["loaders"],) if runs else LOADERS


def _rate(run: dict[str, Any]) -> float:
    rate: float = run["positives_per_s"]
    return rate


def _citeflow(
    options: argparse.Namespace, settings: list[str], root: Path, name: str
) -> dict[str, Any]:
    """Train with two workers; the validation at the end is not in the time."""
    command = [sys.executable, "-m", "citeflow", "train", str(options.graph), "--workers", "2"]
    command += ["--run-name", name, "--data-root", str(root)]
    for setting in (
        f"train.minutes={options.seconds / 60}",
        "train.num_validations=1",
        *settings,
    ):
        command += ["--set", setting]
    _run(command, options.pause)
    folder = root / "runs" / name / "model"
    manifest = files.read_manifest(folder, TRAINED_MODEL)
    latest = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[-1])
    return {
        "positives_per_s": manifest.number("positives_per_s"),
        "steps": manifest.number("steps"),
        "cores": manifest.number("cpu_cores"),
        "others_share": manifest.number("others_share"),
        "valid_mrr": latest["valid_mrr"],
    }


def _recipe(script: str, python: str, loaders: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [python, str(HERE / script), str(options.graph), "--seconds", str(options.seconds)]
    command += ["--loaders", str(loaders), "--batch", str(options.batch)]
    found: dict[str, Any] = json.loads(_run(command, options.pause))
    return found


def _run(command: list[str], pause_s: float) -> str:
    time.sleep(pause_s)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def _summary(runs: Runs, cores: int) -> dict[str, Any]:
    best = {
        name: [run for run in each if run.get("loaders") == _loaders(each)[0]]
        if "loaders" in each[0]
        else each
        for name, each in runs.items()
    }
    speed = {name: statistics.median(map(_rate, each)) for name, each in best.items()}
    dollars_an_hour = cores * 2 * (VCPU_HOUR + 4 * GIB_HOUR)
    return {
        "runs": runs,
        "positives_per_s": speed,
        "positives_per_cpu_s": {
            name: statistics.median(run["positives_per_s"] / run["cores"] for run in each)
            for name, each in best.items()
        },
        "loaders": {
            name: each[0]["loaders"] for name, each in best.items() if "loaders" in each[0]
        },
        "times_as_fast_as_pyg": {name: rate / speed[PYG] for name, rate in speed.items()},
        "dollars_an_hour": dollars_an_hour,
        "dollars_per_million_citations": {
            name: 1e6 / rate * dollars_an_hour / 3600 for name, rate in speed.items()
        },
    }


if __name__ == "__main__":
    main()
