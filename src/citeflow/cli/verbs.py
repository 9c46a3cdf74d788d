"""One command per stage; each prints one JSON object with the folder, digest and facts of the noun that it made."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from citeflow import files, paths
from citeflow.cli import options
from citeflow.utils.logging import emit

if TYPE_CHECKING:
    from citeflow.cli.options import Commands


def add_to(commands: "Commands") -> None:
    """Add the commands."""
    _add_download(commands)
    _add_preprocess(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_publish(commands)


def _add_download(commands: "Commands") -> None:
    parser = options.add_command(
        commands, "download", _download, "bring a dataset below the data root"
    )
    parser.add_argument("dataset", help="synthetic, ogbl-citation2, a folder, an archive or a URL")
    options.add_data_root(parser)
    options.add_settings(parser)


def _add_preprocess(commands: "Commands") -> None:
    parser = options.add_command(
        commands, "preprocess", _preprocess, "split a citation graph and lay it out for training"
    )
    parser.add_argument("raw", type=options.absolute, help="folder that `download` made")
    options.add_data_root(parser)
    options.add_settings(parser)


def _add_train(commands: "Commands") -> None:
    parser = options.add_command(commands, "train", _train, "fit a link predictor")
    parser.add_argument("graph", type=options.absolute, help="folder that `preprocess` made")
    parser.add_argument(
        "--run-name", type=paths.check_name, required=True, metavar="NAME", help="a-z, 0-9 and -"
    )
    options.add_workers(parser)
    options.add_data_root(parser)
    options.add_settings(parser)


def _add_evaluate(commands: "Commands") -> None:
    parser = options.add_command(
        commands, "evaluate", _evaluate, "rank held-out citations with a model and baselines"
    )
    parser.add_argument("model", type=options.absolute, help="folder that `train` made")
    parser.add_argument(
        "--graph",
        type=options.absolute,
        required=True,
        metavar="DIR",
        help="the graph that it was trained on",
    )


def _add_publish(commands: "Commands") -> None:
    parser = options.add_command(
        commands, "publish", _publish, "put report, model and TensorBoard logs where people look"
    )
    parser.add_argument("report", type=options.absolute, help="folder that `evaluate` made")
    parser.add_argument(
        "--model",
        type=options.absolute,
        required=True,
        metavar="DIR",
        help="the model that was evaluated",
    )
    parser.add_argument(
        "--out",
        type=options.absolute,
        required=True,
        metavar="DIR",
        help="folder for report and model",
    )
    options.add_data_root(parser)


def _download(args: argparse.Namespace) -> None:
    dataset, config = options.dataset(args.dataset), options.resolved(args)
    from citeflow import stages

    _tell(stages.download(dataset, data_root=options.data_root(args), config=config), "RawDataset")


def _preprocess(args: argparse.Namespace) -> None:
    config = options.resolved(args)
    files.read_manifest(args.raw, "RawDataset")
    from citeflow import stages

    _tell(
        stages.preprocess(args.raw, data_root=options.data_root(args), config=config),
        "PreparedGraph",
    )


def _train(args: argparse.Namespace) -> None:
    config, root = options.resolved(args), options.data_root(args)
    files.read_manifest(args.graph, "PreparedGraph")
    options.require("torch")
    from citeflow import stages

    place = stages.train(
        args.graph,
        run_dir=paths.run_folder(root, args.run_name),
        log_dir=paths.log_folder(root, args.run_name),
        config=config,
        workers=args.workers,
    )
    _tell(place, "TrainedModel")


def _evaluate(args: argparse.Namespace) -> None:
    files.read_manifest(args.model, "TrainedModel")
    from citeflow import stages

    _tell(stages.evaluate(args.model, graph=args.graph, run_dir=args.model.parent), "EvalReport")


def _publish(args: argparse.Namespace) -> None:
    files.read_manifest(args.report, "EvalReport")
    files.read_manifest(args.model, "TrainedModel")
    root = options.data_root(args)
    log_dir = paths.log_folder(root, paths.name_of(root, args.report.parent))
    from citeflow import stages
    from citeflow.reporting import mlflow

    out = stages.publish(args.report, model=args.model, log_dir=log_dir, out_dir=args.out)
    run = paths.RunPaths.of_folder(root, args.report.parent)
    mlflow.log_run(args.report, model=args.model, run=run, out=out)
    emit({"path": str(out)})


def _tell(place: Path, kind: str) -> None:
    manifest = files.read_manifest(place, kind)
    emit({"path": str(place), "sha256": manifest.sha256, **manifest.facts})
