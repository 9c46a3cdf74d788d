"""`citeflow settings`: print every setting as a run would use it."""

import sys

import click

from citeflow import config
from citeflow.cli import options


@click.command(cls=options.RecordCommand)
@options.settings
def settings(settings: options.Settings) -> None:
    """Print all settings as YAML."""
    sys.stdout.write(config.to_yaml(settings.resolve()))
