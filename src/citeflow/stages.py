"""The five verbs, one function each: a directory in, a directory out, timed."""

import contextlib
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citeflow import files, paths
from citeflow.config import Config
from citeflow.utils.logging import log
from citeflow.utils.usage import spent

if TYPE_CHECKING:
    from citeflow.kubernetes.job_spec import JobRequest

COUNTED_BY_WORKERS = ("seconds", "cpu_seconds", "read_bytes", "written_bytes")
"""Costs that a TrainedModel notes itself, of all its ranks."""


def download(dataset: str, *, data_root: Path, config: Config) -> Path:
    """Bring a dataset here: a name (`synthetic`, `ogbl-citation2`), a citation folder, or the URL of one.

    Returns:
        A RawDataset in `data_root`/raw.
    """
    from citeflow.data.datasets import download_dataset

    return _timed(
        "download", None, lambda: download_dataset(dataset, data_root=data_root, config=config)
    )


def preprocess(raw: Path, *, data_root: Path, config: Config) -> Path:
    """Read, check, clean and split a RawDataset.

    Returns:
        A PreparedGraph in `data_root`/prepared.
    """
    from citeflow.graph.prepared import prepare

    return _timed("preprocess", raw, lambda: prepare(raw, data_root=data_root, config=config.data))


def train(
    graph: Path,
    *,
    run_dir: Path,
    log_dir: Path,
    config: Config,
    workers: int,
    request: "JobRequest | None" = None,
) -> Path:
    """Fit a model; a run that was stopped goes on, one that is complete is returned as it is.

    Args:
        graph: a PreparedGraph.
        run_dir: folder of the run.
        log_dir: where TensorBoard looks.
        config: all settings.
        workers: number of processes, where they are started here.
        request: the job that trains instead, on a cluster.

    Returns:
        A TrainedModel, `run_dir`/model.
    """

    def make() -> Path:
        if request:
            from citeflow.kubernetes.launch import train_on_cluster

            return train_on_cluster(
                graph, run_dir=run_dir, log_dir=log_dir, config=config, request=request
            )
        from citeflow.training.launch import train_locally

        return train_locally(
            graph, run_dir=run_dir, log_dir=log_dir, config=config, workers=workers
        )

    return _timed("train", graph, make)


def evaluate(model: Path, *, graph: Path, run_dir: Path) -> Path:
    """Rank the held-out citations.

    Returns:
        An EvalReport, `run_dir`/report.
    """
    from citeflow.evaluation.evaluator import KIND, evaluate_model

    def make() -> Path:
        began = spent()
        report, curves, inputs = evaluate_model(model, graph_dir=graph)
        report["stages"] = {**_stages(model), "evaluate": _cost(began)}
        with files.new_directory(run_dir / "report") as work:
            files.write_json(work / "report.json", report)
            files.write_json(work / "curves.json", curves)
            files.write_manifest(
                work, KIND, inputs=inputs, facts={"test_mrr": report["test"]["mrr"]}
            )
        return run_dir / "report"

    return _timed("evaluate", model, make)


def publish(report: Path, *, model: Path, log_dir: Path, out_dir: Path) -> Path:
    """Put report, page and model where people look for them, and the result into TensorBoard's logs.

    Returns:
        `out_dir`: report.json, report.html and model/.

    Raises:
        ConfigError: the results can not go there.
    """
    from citeflow.reporting.publish import publish as publish_results

    run = paths.RunPaths(*paths.place_of(report.parent, log_dir))
    publish_results(report, model=model, run=run, out=out_dir)
    return out_dir


def _timed(verb: str, source: Path | None, make: Callable[[], Path]) -> Path:
    """Run a verb, and note in the manifest of what it made what it and the verbs before it have cost."""
    began = spent()
    log(verb, "begins")
    folder = make()
    manifest: dict[str, Any] = files.read_json(folder / files.MANIFEST)
    if "stages" not in manifest["facts"]:
        cost = _cost(began)
        for name in (
            "peak_rss_bytes",
            *COUNTED_BY_WORKERS,
        ):  # which may have run in pods of their own
            if name in manifest["facts"]:
                cost[name] = max(cost.get(name, 0), manifest["facts"][name])
        manifest["facts"]["stages"] = {**(_stages(source) if source else {}), verb: cost}
        with contextlib.suppress(
            FileNotFoundError
        ):  # another process has just put the same result in its place
            files.write_json(folder / files.MANIFEST, manifest)
    log(verb, "done", seconds=round(spent()["seconds"] - began["seconds"], 1), path=folder)
    return folder


def _stages(folder: Path) -> dict[str, Any]:
    stages: dict[str, Any] = files.read_json(folder / files.MANIFEST)["facts"].get("stages", {})
    return stages


def _cost(began: dict[str, float]) -> dict[str, float]:
    """What was spent since, and the highest memory of this process or one that it started, in bytes."""
    ended = spent()
    used = [
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    counted = {name: ended[name] - value for name, value in began.items() if name in ended}
    return {**counted, "peak_rss_bytes": max(used) * 1024}
