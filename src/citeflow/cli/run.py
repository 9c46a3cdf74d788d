"""`citeflow run`: the whole pipeline on this machine."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citeflow import config, files, paths
from citeflow.cli import options
from citeflow.report import Report
from citeflow.reporting import markdown, mlflow
from citeflow.reporting.publish import check_output_folders
from citeflow.utils.logging import emit, log, redact_url

if TYPE_CHECKING:
    from citeflow.cli.options import Commands


def add_to(commands: "Commands") -> None:
    """Add the command."""
    parser = options.add_command(commands, "run", _call, "run the whole pipeline on this machine")
    options.add_dataset(parser)
    options.add_workers(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for report and model (default: below data root)",
    )
    options.add_run(parser)
    options.add_settings(parser)


def _call(args: argparse.Namespace) -> None:
    settings, dataset, root = (
        options.resolved(args),
        options.dataset(args.dataset),
        options.data_root(args),
    )
    name = options.run_name(args, dataset)
    out = options.absolute(args.out) if args.out else paths.published_folder(root, name)
    options.require("kfp", "torch")
    mlflow.check()
    check_output_folders(root, out)
    log(
        "run",
        "starts",
        name=name,
        dataset=redact_url(dataset),
        workers=args.workers,
        data_root=root,
    )
    arguments = {
        "dataset": dataset,
        "settings": config.to_yaml(settings),
        "workers": args.workers,
        "run_name": name,
        "out_dir": str(out),
        "data_root": str(root),
    }
    options.run_pipeline("citation", arguments, root=root, verbose=args.verbose)
    _tell(files.read_json(out / "report.json"), out, paths.log_folder(root, name))


def _tell(report: dict[str, Any], out: Path, log_dir: Path) -> None:
    print(f"\n{markdown.table(Report.from_json(report))}", file=sys.stderr, flush=True)
    log("run", "done", page=out / "report.html", tensorboard=f"--logdir {log_dir.parent}")
    places = {
        "report": out / "report.json",
        "page": out / "report.html",
        "model": out / "model",
        "logs": log_dir,
    }
    emit({**{name: str(place) for name, place in places.items()}, "test": report["test"]})
