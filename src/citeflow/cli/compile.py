"""`citeflow compile`: write the YAML files that Kubeflow Pipelines takes, or check that they are fresh."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from citeflow.cli import options
from citeflow.errors import DataError
from citeflow.kubeflow import compile
from citeflow.utils.logging import log

if TYPE_CHECKING:
    from citeflow.cli.options import Commands


def add_to(commands: "Commands") -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "compile", _call, "compile components and pipelines of a checkout to YAML"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a compiled file is stale"
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the checkout (default: the one citeflow runs from)",
    )


def _call(args: argparse.Namespace) -> None:
    root = args.root.absolute() if args.root else compile.checkout()
    if args.check:
        _check(root)
    else:
        for path in compile.write(root):
            log("compile", "wrote", file=path.relative_to(root))


def _check(root: Path) -> None:
    stale = [str(path.relative_to(root)) for path in compile.stale(root)]
    if stale:
        raise DataError(
            "compiled files are stale",
            ", ".join(stale),
            hint="run `citeflow compile` and commit them",
        )
