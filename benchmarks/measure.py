"""What the benchmarks share: one training and its report."""

import json
from pathlib import Path
from typing import Any

from citeflow import config as settings
from citeflow import files
from citeflow.data.datasets import download_dataset
from citeflow.evaluation.evaluator import evaluate
from citeflow.graph.preparation import prepare
from citeflow.paths import RunPaths
from citeflow.report import REPORT
from citeflow.training.launch import train_locally


def report_of(
    name: str,
    dataset: str,
    *,
    data_root: Path,
    workers: int,
    preset: str = "default",
    overrides: list[str],
) -> dict[str, Any]:
    """Download, preprocess, train and evaluate; a run that is complete is not trained again."""
    config = settings.load(preset=preset, overrides=overrides)
    raw = download_dataset(dataset, data_root=data_root, config=config)
    graph = prepare(raw, data_root=data_root, config=config.data)
    digest = files.sha256_of_json([config.to_dict(), str(graph), workers])
    run = RunPaths(data_root, f"{name}-{digest[:8]}")
    model = train_locally(graph, run, config=config, workers=workers)
    report: dict[str, Any] = json.loads(
        (evaluate(model, graph=graph, run=run) / REPORT).read_text()
    )
    return report
