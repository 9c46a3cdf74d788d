"""Measure what each part of the model contributes: the same time for each variant, on the same
graph.

    python benchmarks/ablation.py DATASET [--minutes 5] [--workers 2] [--data-root DIR]

Prints a Markdown table on stderr and one JSON object on stdout.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from measure import report_of

EMBEDDING_OFF = ["model.features=ones", "model.num_layers=0"]

VARIANTS: dict[str, tuple[str, list[str]]] = {
    "student model (`--preset seed`)": ("seed", []),
    "features alone, perceptron": ("default", ["model.num_layers=0", "model.predictor=mlp"]),
    "GraphSAGE, `mlp`": ("default", ["model.predictor=mlp"]),
    "GraphSAGE, `dot`": ("default", ["model.predictor=dot"]),
    "structural features alone, paths of 2": (
        "default",
        [*EMBEDDING_OFF, "model.structural_hops=2"],
    ),
    "structural features alone, paths of 2 and 3": ("default", EMBEDDING_OFF),
    "GraphSAGE + citation count and age": ("default", ["model.structural_hops=0"]),
    "GraphSAGE + structural features, paths of 2": ("default", ["model.structural_hops=2"]),
    "default without hidden references": ("default", ["train.hide_references=0"]),
    "default without similar papers": ("default", ["data.num_similar=0"]),
    "GraphSAGE + structural features, paths of 2 and 3 (default)": ("default", []),
}
"""Preset and settings of each row; all but the first use the default settings otherwise."""

COLUMNS = ("mrr", "hits@1", "hits@10", "accuracy", "auc")
PROTOCOLS = [
    (protocol, key) for protocol in ("all", "hard", "cold") for key in ("mrr", "recall@20")
]


def main() -> None:
    """Train every variant and print the table."""
    options = _options()
    reports = {
        name: report_of(
            f"ablation-{place}",
            options.dataset,
            data_root=options.data_root.absolute(),
            workers=options.workers,
            preset=preset,
            overrides=[*overrides, f"train.minutes={options.minutes}"],
        )
        for place, (name, (preset, overrides)) in enumerate(VARIANTS.items())
    }
    _print_table(reports)
    print(json.dumps({name: _figures(report) for name, report in reports.items()}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dataset", help="synthetic, a folder, or a URL")
    parser.add_argument("--minutes", type=float, default=5, help="time to train each variant")
    parser.add_argument("--workers", type=int, default=2, help="processes that train")
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path("citeflow-data"),
        help="where graphs and runs are kept",
    )
    return parser.parse_args()


def _figures(report: dict[str, Any]) -> dict[str, Any]:
    protocols = {
        name: {key: value for key, value in scores.items() if key != "baselines"}
        for name, scores in report["protocols"].items()
    }
    return {
        "test": report["test"],
        "protocols": protocols,
        "valid_mrr": report["valid"]["mrr"],
        "train": report["train"],
    }


def _print_table(reports: dict[str, dict[str, Any]]) -> None:
    header = ["variant", *COLUMNS, *(" ".join(each) for each in PROTOCOLS), "steps"]
    rows = [
        [
            name,
            *(f"{report['test'][key]:.3f}" for key in COLUMNS),
            *(f"{report['protocols'][protocol][key]:.3f}" for protocol, key in PROTOCOLS),
            str(report["train"]["steps"]),
        ]
        for name, report in reports.items()
    ]
    baselines = next(iter(reports.values()))["baselines"]
    rows += [
        [name.replace("_", " "), f"{figures['mrr']:.3f}", *[""] * (len(header) - 2)]
        for name, figures in baselines.items()
    ]
    for row in [header, ["---"] * len(header), *rows]:
        print(f"| {' | '.join(row)} |", file=sys.stderr)


if __name__ == "__main__":
    main()
