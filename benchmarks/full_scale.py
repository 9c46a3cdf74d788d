"""Run the whole job on the synthetic twin at the full shape of ogbl-citation2, and tell what each
stage took.

    python benchmarks/full_scale.py [--minutes 30] [--papers 2927963] [--data-root DIR] [--set
        SECTION.KEY=VALUE]

Every stage is a process of its own, so that its peak of resident memory is its own too. A
perceptron on the features alone, with the same predictor and loss, is trained beside the model for
a fifth of the time. What DIR holds already is not made again, and then costs nothing here: give a
new one. Prints one JSON object.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from citeflow import files

HOLDOUT = 86_596.5 / 2_927_963
"""Share of the papers that give test citations, as in ogbl-citation2."""

FEATURES_ALONE = ["model.num_layers=0"]


def main() -> None:
    """Run the stages and print."""
    options = _options()
    settings = [
        f"synthetic.num_papers={options.papers}",
        f"data.holdout={HOLDOUT}",
        *options.overrides,
    ]
    stages: dict[str, Any] = {}
    raw = _run(stages, "download", ["synthetic", *_common(options, settings)])["path"]
    graph = _run(stages, "preprocess", [raw, *_common(options, settings)])["path"]
    evaluated = {}
    for name, minutes, changes in (
        ("model", options.minutes, []),
        ("features", options.minutes / 5, FEATURES_ALONE),
    ):
        wanted = [*settings, f"train.minutes={minutes}", *changes]
        run = [
            "--run-name",
            f"full-scale-{name}-{files.sha256_of_json([wanted, options.workers])[:8]}",
            "--workers",
            str(options.workers),
        ]
        model = _run(stages, f"train {name}", [graph, *run, *_common(options, wanted)])["path"]
        evaluated[name] = _run(stages, f"evaluate {name}", [model, "--graph", graph])
    reports = {
        name: files.read_json(Path(done["path"]) / "report.json")
        for name, done in evaluated.items()
    }
    print(json.dumps({"stages": stages, "reports": reports}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="time to train")
    parser.add_argument("--papers", type=int, default=2_927_963, help="size of the graph")
    parser.add_argument("--workers", type=int, default=2, help="processes that train")
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path("citeflow-data"),
        help="where graphs and runs are kept",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=["model.predictor=dot"],
        dest="overrides",
        help="a setting",
    )
    return parser.parse_args()


def _common(options: argparse.Namespace, settings: list[str]) -> list[str]:
    return [
        "--data-root",
        str(options.data_root),
        *(part for setting in settings for part in ("--set", setting)),
    ]


def _run(stages: dict[str, Any], name: str, arguments: list[str]) -> dict[str, Any]:
    """Run one command of citeflow; note its seconds and the peak memory of its largest process."""
    command = [
        sys.executable,
        "-c",
        "from citeflow.cli.main import main; main()",
        name.split()[0],
        *arguments,
    ]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--child", *command], check=True, stdout=subprocess.PIPE
    )
    *output, peak = done.stdout.decode().splitlines()
    stages[name] = {"seconds": time.monotonic() - began, "peak_rss_bytes": int(peak)}
    print(json.dumps({name: stages[name]}), file=sys.stderr, flush=True)
    result: dict[str, Any] = json.loads(output[-1])
    return result


def _child(command: list[str]) -> None:
    """Run a command and print the peak of the largest of its processes, in bytes."""
    subprocess.run(command, check=True)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2:])
    else:
        main()
