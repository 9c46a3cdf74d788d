"""`citeflow settings`: print every setting as a run would use it."""

import argparse
import sys
from typing import TYPE_CHECKING

from citeflow import config
from citeflow.cli import options

if TYPE_CHECKING:
    from citeflow.cli.options import Commands


def add_to(commands: "Commands") -> None:
    """Add the command."""
    parser = options.add_command(commands, "settings", _call, "print all settings as YAML")
    options.add_settings(parser)


def _call(args: argparse.Namespace) -> None:
    sys.stdout.write(config.to_yaml(options.resolved(args)))
