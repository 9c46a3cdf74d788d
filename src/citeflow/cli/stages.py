"""One command per stage. Each prints one JSON object: folder, digest and facts of the artifact."""

from pathlib import Path

import click

from citeflow import config, files
from citeflow.artifacts import (
    EVAL_REPORT,
    RAW_DATASET,
    TRAINED_MODEL,
    LocalArtifact,
    resolve_artifact,
)
from citeflow.cli import options
from citeflow.cli.local_run import bring_files
from citeflow.tasks import get_task, task_of
from citeflow.utils.logging import emit

RUN_ID = "by-hand"
"""Stands in for the id of a pipeline run."""


@click.command(cls=options.RecordCommand)
@click.argument("dataset", type=options.Dataset())
@options.data_root
@options.settings
def download(dataset: str, data_root: Path, settings: options.Settings) -> None:
    """Bring a dataset below the data root.

    DATASET is a name, a file, a folder, an archive or a URL.
    """
    resolved = settings.resolve()
    # Not the stage of the pipeline: that refuses a URL with a password, which all who may see a
    # pipeline run would see. This command is the way to download from one.
    folder = get_task(resolved.task).download(dataset, data_root=data_root, settings=resolved)
    _emit(LocalArtifact.open(folder, RAW_DATASET, data_root), RAW_DATASET, data_root)


@click.command(cls=options.RecordCommand)
@click.argument("raw", type=options.Folder())
@options.data_root
@options.settings
def preprocess(raw: Path, data_root: Path, settings: options.Settings) -> None:
    """Split a citation graph and lay it out for training.

    RAW is the folder that `download` made.
    """
    resolved = settings.resolve()
    source = LocalArtifact.open(raw, RAW_DATASET, data_root)
    graph = LocalArtifact()
    from citeflow import stages

    stages.preprocess(source, "", config.to_yaml(resolved), data_root=str(data_root), graph=graph)
    _emit(graph, get_task(resolved.task).prepared_kind, data_root)


@click.command(cls=options.RecordCommand)
@click.argument("graph", type=options.Folder())
@options.run_name
@options.workers_here
@options.data_root
@options.trust_code
@options.settings
def train(
    graph: Path,
    run_name: str,
    here: options.WorkersHere,
    data_root: Path,
    trust_code: bool,
    settings: options.Settings,
) -> None:
    """Fit a link predictor.

    GRAPH is the folder that `preprocess` made.
    """
    resolved = settings.resolve()
    kind = get_task(resolved.task).prepared_kind
    prepared = LocalArtifact.open(graph, kind, data_root)
    options.require("torch")
    resolved = bring_files(resolved, data_root, trust_code=trust_code)
    here.settle()
    model = LocalArtifact()
    from citeflow import stages

    stages.train(
        prepared,
        config.to_yaml(resolved),
        here.workers,
        run_name,
        RUN_ID,
        here.launcher,
        "",
        data_root=str(data_root),
        model=model,
        metrics=LocalArtifact(),
    )
    _emit(model, TRAINED_MODEL, data_root)


@click.command(cls=options.RecordCommand)
@click.argument("model", type=options.Folder())
@click.option(
    "--graph", type=options.Folder(), required=True, help="The graph that it was trained on."
)
def evaluate(model: Path, graph: Path) -> None:
    """Rank held-out citations with a model and baselines.

    MODEL is the folder that `train` made.
    """
    data_root = _data_root_of(model)
    trained = LocalArtifact.open(model, TRAINED_MODEL, data_root)
    kind = task_of(model, TRAINED_MODEL).prepared_kind
    prepared = LocalArtifact.open(graph, kind, data_root)
    options.require("torch")
    report = LocalArtifact()
    from citeflow import stages

    stages.evaluate(
        trained,
        "",
        prepared,
        data_root=str(data_root),
        report=report,
        metrics=LocalArtifact(),
        classification=LocalArtifact(),
    )
    _emit(report, EVAL_REPORT, data_root)


@click.command(cls=options.RecordCommand)
@click.argument("report", type=options.Folder())
@click.option("--model", type=options.Folder(), required=True, help="The model that was evaluated.")
@click.option(
    "--out", type=options.OutputFolder(), required=True, help="Folder for report and model."
)
@options.data_root
def publish(report: Path, model: Path, out: Path, data_root: Path) -> None:
    """Put report, model and TensorBoard logs where people look.

    REPORT is the folder that `evaluate` made.
    """
    evaluated = LocalArtifact.open(report, EVAL_REPORT, data_root)
    trained = LocalArtifact.open(model, TRAINED_MODEL, data_root)
    from citeflow import stages

    folder = stages.publish(
        evaluated,
        "",
        trained,
        str(out),
        data_root=str(data_root),
        summary=LocalArtifact(),
        page=LocalArtifact(),
    )
    emit({"path": str(folder)})


def _data_root_of(model: Path) -> Path:
    """Return the folder above the `runs` that a model is in, or else the model's own."""
    below = [parent for parent in model.parents if parent.name == "runs"]
    return below[0].parent if below else model.parent


def _emit(artifact: LocalArtifact, kind: str, data_root: Path) -> None:
    folder = resolve_artifact(artifact, kind, str(data_root))
    manifest = files.read_manifest(folder, kind)
    emit({"path": str(folder), "sha256": manifest.sha256, **manifest.facts})
