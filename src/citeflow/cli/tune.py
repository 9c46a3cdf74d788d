"""`citeflow tune`: search for better settings on this machine."""

import argparse
import sys
from typing import TYPE_CHECKING

from citeflow import config, files, paths, stages
from citeflow.cli import options
from citeflow.errors import UnavailableError
from citeflow.experiments import search_space as spaces
from citeflow.reporting import mlflow
from citeflow.utils.logging import emit, log, redact_url

if TYPE_CHECKING:
    from citeflow.cli.options import Commands

INSTALL = "pip install '.[train,kfp,tune]' in a checkout of citeflow"


def add_to(commands: "Commands") -> None:
    """Add the command."""
    tune = options.add_command(
        commands, "tune", _tune, "search for better settings on this machine"
    )
    options.add_dataset(tune)
    _add_search(tune)
    options.add_run(tune)
    options.add_settings(tune)


def _add_search(parser: argparse.ArgumentParser) -> None:
    told = "YAML file, or text such as '{train.lr: {low: 0.001, high: 0.1, log: true}, model.hidden_channels: [64, 128]}'"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"the space that is searched without --space:\n\n{spaces.DEFAULT}"
    parser.add_argument("--space", default="", metavar="YAML", help=told)
    parser.add_argument(
        "--trials", type=options.positive, default=12, metavar="N", help="trainings (default: 12)"
    )
    parser.add_argument(
        "--parallel", type=options.positive, default=1, metavar="N", help="at a time (default: 1)"
    )
    parser.add_argument(
        "--workers", type=options.positive, default=1, metavar="N", help="of each (default: 1)"
    )


def _tune(args: argparse.Namespace) -> None:
    settings, dataset, root = (
        options.resolved(args),
        options.dataset(args.dataset),
        options.data_root(args),
    )
    space = spaces.from_yaml(options.yaml_text(args.space), settings)
    name = options.run_name(args, dataset)
    out = paths.published_folder(root, name)
    options.require("kfp", "torch")
    _require_optuna()
    mlflow.check()
    stages.check_places(root, out)
    log(
        "run",
        "starts",
        name=name,
        dataset=redact_url(dataset),
        trials=args.trials,
        data_root=root,
    )
    arguments = {
        "dataset": dataset,
        "trials": args.trials,
        "parallel": args.parallel,
        "space": spaces.to_yaml(space),
        "settings": config.to_yaml(settings),
        "workers": args.workers,
        "run_name": name,
        "data_root": str(root),
    }
    options.run_pipeline("tune", arguments, root=root, verbose=args.verbose)
    result, report = files.read_json(out / "tuning.json"), files.read_json(out / "report.json")
    print(f"\n{(out / 'tuning.md').read_text()}", file=sys.stderr, flush=True)
    places = {
        "page": out / "tuning.html",
        "trials": out / "trials.csv",
        "settings": out / "best.yaml",
    }
    places |= {
        "report": out / "report.html",
        "model": out / "model",
        "logs": paths.log_folder(root, name),
    }
    emit({**{what: str(place) for what, place in places.items()}, **result, "test": report["test"]})


def _require_optuna() -> None:
    try:
        options.require("optuna")
    except UnavailableError as error:
        raise UnavailableError(error.what, error.value, hint=INSTALL) from None
