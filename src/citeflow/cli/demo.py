"""`citeflow demo faults`: what a fault costs, to see for oneself."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from citeflow import files
from citeflow.cli import options
from citeflow.errors import ConfigError, TrainingError
from citeflow.reporting.publish import check_folder
from citeflow.utils.logging import emit, log

if TYPE_CHECKING:
    from citeflow.cli.options import Commands

DEMOS = {"faults": "a worker is killed during training, and the model is the same"}


def add_to(commands: "Commands") -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "demo", _call, "show what citeflow does, on a graph made on the spot"
    )
    told = ", ".join(f"{name}: {what}" for name, what in DEMOS.items())
    parser.add_argument("name", choices=DEMOS, help=told)
    options.add_workers(parser)
    default = Path("citeflow-demo")
    parser.add_argument(
        "--out", type=Path, default=default, metavar="DIR", help=f"folder to work in (./{default})"
    )


def _call(args: argparse.Namespace) -> None:
    if args.workers < 2:
        raise ConfigError(
            "--workers",
            args.workers,
            hint="must be at least 2, as one is killed and the others notice",
        )
    options.require("torch", "matplotlib", "tensorboard")
    from citeflow.experiments import fault_demo
    from citeflow.reporting import recovery

    out = args.out.expanduser().absolute()
    check_folder(out)
    found = fault_demo.demonstrate(out / "data", workers=args.workers)
    page = out / "faults.html"
    files.write_text(page, recovery.render_recovery(found))
    lines = [f"{name:22} {value}" for name, value in recovery.facts(found).rows]
    print("", *lines, "", sep="\n", file=sys.stderr, flush=True)
    log("demo", "done", page=page)
    emit({"page": str(page), **fault_demo.as_json(found), "is_equal": found.is_equal})
    if not found.is_equal:
        raise TrainingError("the model differs from the undisturbed one", page)
