"""`citeflow tune` and `citeflow katib`: a search for better settings, here or by Katib."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from citeflow import config, files, paths
from citeflow.cli import options
from citeflow.errors import ConfigError, UnavailableError
from citeflow.experiments import search_space as spaces
from citeflow.kubernetes import job_spec as train_spec
from citeflow.reporting import mlflow
from citeflow.reporting.publish import check_output_folders
from citeflow.utils.logging import emit, log, redact_url

if TYPE_CHECKING:
    from citeflow.cli.options import Commands

INSTALL = "pip install '.[train,kfp,tune]' in a checkout of citeflow"


def add_to(commands: "Commands") -> None:
    """Add the commands."""
    tune = options.add_command(
        commands, "tune", _tune, "search for better settings on this machine"
    )
    options.add_dataset(tune)
    _add_search(tune)
    options.add_run(tune)
    options.add_settings(tune)
    katib = options.add_command(
        commands, "katib", _katib, "print the same search as an Experiment of Katib"
    )
    katib.add_argument(
        "graph", type=Path, help="folder that `preprocess` made, at the path where the pods see it"
    )
    katib.add_argument(
        "--run-name", type=paths.check_name, required=True, metavar="NAME", help="a-z, 0-9 and -"
    )
    _add_search(katib)
    katib.add_argument(
        "--job", metavar="YAML", default="", help='what each trial gets: a file, or "{cpu: 4}"'
    )
    katib.add_argument(
        "--namespace", default="", metavar="NS", help="default: that of `kubectl create`"
    )
    katib.add_argument(
        "--max-failed", type=int, default=3, metavar="N", help="trials that may fail (default: 3)"
    )
    options.add_data_root(katib)
    options.add_settings(katib)


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
    check_output_folders(root, out)
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


def _katib(args: argparse.Namespace) -> None:
    options.require("kubernetes", "kubeflow")
    from citeflow.experiments.katib import Search, experiment, to_yaml

    settings = options.resolved(args)
    if args.max_failed < 0:
        raise ConfigError("not a whole number of at least 0", args.max_failed)
    search = Search(
        name=args.run_name,
        namespace=args.namespace,
        graph=args.graph.expanduser().absolute(),
        data_root=options.data_root(args),
        base=settings,
        space=spaces.from_yaml(options.yaml_text(args.space), settings),
        spec=train_spec.from_yaml(options.yaml_text(args.job), workers=args.workers),
        trials=args.trials,
        parallel=args.parallel,
        max_failed=args.max_failed,
    )
    sys.stdout.write(to_yaml(experiment(search)))
