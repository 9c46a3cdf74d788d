"""Compare citeflow's plain GraphSAGE with OGB's full-batch recipe on the same graph: how good, and
how soon.

    python benchmarks/against_recipe.py PREPARED_GRAPH [--epochs 50] [--every 5] [--minutes 5]
        [--recipe FILE]

The recipe trains first (or its output of an earlier run is read), then citeflow with a dot product
and no structural features. Prints one JSON object: the best validation MRR of the recipe, the test
MRR that goes with it, and the seconds until each had reached that validation MRR; training alone
counts for the recipe, and all that happens between start and evaluation, the evaluations included,
for citeflow.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from ogb_recipe import train

from citeflow import config as settings
from citeflow.evaluation.evaluator import evaluate
from citeflow.graph.prepared import PreparedGraph
from citeflow.paths import RunPaths
from citeflow.report import REPORT
from citeflow.training.launch import train_locally

PLAIN = ["model.predictor=dot"]


def main() -> None:
    """Train both and print."""
    options = _options()
    recipe = _recipe(options)
    overrides = [
        *PLAIN,
        f"train.minutes={options.minutes}",
        f"train.num_validations={options.evaluations}",
    ]
    config = settings.load(overrides=[*overrides, *options.overrides])
    with tempfile.TemporaryDirectory() as scratch:
        run = RunPaths(Path(scratch), "against-recipe")
        model = train_locally(options.graph, run, config=config, workers=options.workers)
        evaluated = evaluate(model, graph=options.graph, run=run)
        report = json.loads((evaluated / REPORT).read_text())
        lines = (model / "evaluations.jsonl").read_text().splitlines()
    print(json.dumps(_compare(recipe, [json.loads(line) for line in lines], report)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("graph", type=Path, help="folder of a PreparedGraph")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of the recipe")
    parser.add_argument(
        "--every", type=int, default=5, help="epochs of the recipe between evaluations"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of the recipe")
    parser.add_argument(
        "--recipe", type=Path, help="what ogb_recipe.py printed for this graph before"
    )
    parser.add_argument("--minutes", type=float, default=5, help="time that citeflow trains")
    parser.add_argument(
        "--evaluations", type=int, default=20, help="how often citeflow evaluates meanwhile"
    )
    parser.add_argument("--workers", type=int, default=2, help="workers of citeflow")
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", help="a setting of citeflow"
    )
    return parser.parse_args()


def _recipe(options: argparse.Namespace) -> list[dict[str, float]]:
    if options.recipe:
        return [json.loads(line) for line in options.recipe.read_text().splitlines()]
    torch.set_num_threads(options.threads)
    progress = []
    for each in train(
        PreparedGraph.open(options.graph), epochs=options.epochs, every=options.every
    ):
        print(json.dumps(each), file=sys.stderr, flush=True)
        progress.append(each)
    return progress


def _compare(
    recipe: list[dict[str, float]], ours: list[dict[str, float]], report: dict[str, Any]
) -> dict[str, Any]:
    best = max(recipe, key=lambda each: each["valid_mrr"])
    reached = [each["seconds"] for each in ours if each["valid_mrr"] >= best["valid_mrr"]]
    return {
        "recipe": best,
        "citeflow": {
            "test_mrr": report["test"]["mrr"],
            "valid_mrr": report["valid"]["mrr"],
            **report["train"],
        },
        "citeflow_reached_it_after_s": reached[0] if reached else None,
        "ratio": best["seconds"] / reached[0] if reached else None,
        "baselines": report["baselines"],
        "evaluations": ours,
    }


if __name__ == "__main__":
    main()
