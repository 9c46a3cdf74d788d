"""What the benchmarks share: one training and its report."""

from pathlib import Path
from typing import Any

from citeflow import config as settings
from citeflow import files, stages


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
    raw = stages.download(dataset, data_root=data_root, config=config)
    graph = stages.preprocess(raw, data_root=data_root, config=config)
    run = f"{name}-{files.sha256_of_json([config.to_dict(), str(graph), workers])[:8]}"
    run_dir, log_dir = data_root / "runs" / run, data_root / "logs" / run
    model = stages.train(graph, run_dir=run_dir, log_dir=log_dir, config=config, workers=workers)
    report: dict[str, Any] = files.read_json(
        stages.evaluate(model, graph=graph, run_dir=run_dir) / "report.json"
    )
    return report
