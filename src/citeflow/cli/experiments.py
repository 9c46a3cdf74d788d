"""`citeflow sweep` and `citeflow compare`: many runs here, and one table of them."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citeflow import config, paths
from citeflow.cli import options
from citeflow.kubeflow import local_runner
from citeflow.kubeflow.submit import check, checked
from citeflow.reporting import mlflow
from citeflow.reporting.publish import check_folder
from citeflow.utils.logging import emit, log, redact_url

if TYPE_CHECKING:
    from citeflow.cli.options import Commands


def add_to(commands: "Commands") -> None:
    """Add the commands."""
    _add_sweep(commands)
    _add_compare(commands)


def _add_sweep(commands: "Commands") -> None:
    parser = options.add_command(
        commands, "sweep", _sweep, "train with several numbers of workers and of epochs"
    )
    parser.add_argument(
        "--workers", type=options.numbers, default=[1, 2], metavar="N,N", help="(default: 1,2)"
    )
    parser.add_argument(
        "--epochs", type=options.numbers, default=[10], metavar="N,N", help="(default: 10)"
    )
    _add_common(parser)


def _add_compare(commands: "Commands") -> None:
    parser = options.add_command(
        commands, "compare", _compare, "train several models with several seeds"
    )
    told = "YAML file, or text such as '{sage: {}, dot: {model: {predictor: dot}}}'"
    parser.add_argument(
        "--models", metavar="FILE", help=f"{told} (default: the predictors, and features alone)"
    )
    parser.add_argument(
        "--seeds", type=options.numbers, default=[0, 1, 2], metavar="N,N", help="(default: 0,1,2)"
    )
    options.add_workers(parser)
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    options.add_dataset(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for table and page (default: below data root)",
    )
    options.add_run(parser)
    options.add_settings(parser)


def _sweep(args: argparse.Namespace) -> None:
    settings = config.to_yaml(options.resolved(args))
    _run(args, "scaling", {"settings": settings, "workers": args.workers, "epochs": args.epochs})


def _compare(args: argparse.Namespace) -> None:
    settings = config.to_yaml(options.resolved(args))
    models = options.yaml_text(args.models) if args.models else _default("compare", "models")
    given = {"settings": settings, "models": models, "seeds": args.seeds, "workers": args.workers}
    _run(args, "compare", given)


def _run(args: argparse.Namespace, name: str, given: dict[str, Any]) -> None:
    """Run a pipeline here; its table goes to stderr, the places of its results to stdout."""
    dataset, root = options.dataset(args.dataset), options.data_root(args)
    run = options.run_name(args, dataset)
    out = options.absolute(args.out) if args.out else paths.published_folder(root, run)
    options.require("kfp", "torch")
    mlflow.check()
    check_folder(root)
    check_folder(out)
    arguments = {
        "dataset": dataset,
        "run_name": run,
        "out_dir": str(out),
        "data_root": str(root),
        **given,
    }
    check(arguments)
    log("run", "starts", name=run, dataset=redact_url(dataset), data_root=root)
    options.run_pipeline(name, arguments, root=root, verbose=args.verbose)
    stem = {"scaling": "scaling", "compare": "comparison"}[name]
    print(f"\n{(out / f'{stem}.md').read_text()}", file=sys.stderr, flush=True)
    places = {
        "table": out / f"{stem}.csv",
        "page": out / f"{stem}.html",
        "logs": paths.log_folder(root, run),
    }
    emit({name: str(place) for name, place in places.items()})


def _default(name: str, parameter: str) -> str:
    """What a compiled pipeline does where it is told nothing else."""
    return str(checked(local_runner.compiled(name).read_text(), {})[parameter])
