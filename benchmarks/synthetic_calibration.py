"""Measure how hard the synthetic twin is, with citeflow's own engine, against what is published for
ogbl-citation2.

    python benchmarks/synthetic_calibration.py [--papers 97598] [--workers 1] [--data-root DIR]

Prints a table on stderr and one JSON object on stdout; exit code 1 when a figure lies outside its
range.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import report_of

PUBLISHED = {"features": 0.2895, "common_neighbors": 0.5147, "adamic_adar": 0.5189, "sage": 0.8044}
RANGES = {"features": (0.24, 0.34), "adamic_adar": (0.45, 0.60), "sage": (0.70, 0.88)}

FEATURES = [
    "model.num_layers=0",
    "model.predictor=dot",
    "model.dropout=0",
    "train.epochs=40",
    "train.num_validations=4",
]
"""No neighbours: a perceptron on each paper's features, and a dot product."""

SAGE = [
    "model.num_layers=2",
    "model.predictor=dot",
    "model.dropout=0",
    "train.epochs=40",
    "train.num_validations=4",
]
"""Plain GraphSAGE on partitions of the graph: features and neighbors, no structural features."""

OTHER_PROTOCOLS = ["data.num_similar=0", "data.hard_candidates=1", "evaluation.num_sources=1"]
"""No figure here depends on these; they save the time that other protocols than OGB's take."""


def main() -> int:
    """Train both models on one graph, print, and tell whether every figure is in its range."""
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        data_root = options.data_root or Path(scratch)
        common = [
            f"synthetic.num_papers={options.papers}",
            f"synthetic.seed={options.seed}",
            f"data.holdout={options.holdout}",
            *OTHER_PROTOCOLS,
        ]
        reports = {
            name: report_of(
                f"calibration-{name}",
                "synthetic",
                data_root=data_root.absolute(),
                workers=options.workers,
                overrides=[*common, *changes],
            )
            for name, changes in (("features", FEATURES), ("sage", SAGE))
        }
    measured = _figures(reports)
    _print_table(measured)
    wrong = [name for name, (low, high) in RANGES.items() if not low <= measured[name] <= high]
    facts = {
        key: reports["sage"][key]
        for key in ("num_papers", "num_citations", "versions", "stages", "train")
    }
    print(
        json.dumps(
            {
                "test_mrr": measured,
                "published": PUBLISHED,
                "ranges": RANGES,
                "outside": wrong,
                **facts,
            }
        )
    )
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--papers",
        type=int,
        default=97_598,
        help="size of the graph; the default is 1/30 of citation2's",
    )
    parser.add_argument(
        "--holdout", type=float, default=0.03, help="share of papers that give test citations"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the graph")
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument(
        "--data-root",
        type=Path,
        default=None,
        help="where to keep graphs and runs; else thrown away",
    )
    return parser.parse_args()


def _figures(reports: dict[str, dict[str, Any]]) -> dict[str, float]:
    trained = {name: report["test"]["mrr"] for name, report in reports.items()}
    return {
        **trained,
        **{name: figures["mrr"] for name, figures in reports["sage"]["baselines"].items()},
    }


def _print_table(measured: dict[str, float]) -> None:
    print(f"{'test MRR':<22}{'here':>8}{'wanted':>14}{'citation2':>12}", file=sys.stderr)
    for name, value in measured.items():
        low, high = RANGES.get(name, (None, None))
        wanted = f"{low:.2f}-{high:.2f}" if low is not None else ""
        published = f"{PUBLISHED[name]:.3f}" if name in PUBLISHED else ""
        print(f"{name:<22}{value:>8.3f}{wanted:>14}{published:>12}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
