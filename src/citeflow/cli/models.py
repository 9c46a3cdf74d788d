"""`citeflow models`: the versions of a model in MLflow's registry, and which of them is used."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from citeflow.cli import options
from citeflow.reporting import registered_models
from citeflow.utils.logging import emit

F = TypeVar("F", bound=Callable[..., object])


def named(function: F) -> F:
    """Add the option with the name of the registered model."""
    return click.option(
        "--name",
        default=registered_models.default_name,
        metavar="NAME",
        help=f"The registered model; {registered_models.NAME_VARIABLE} or citeflow.",
    )(function)


@click.group(no_args_is_help=False)
def models() -> None:
    """List, compare and promote the models in MLflow's registry.

    MLFLOW_TRACKING_URI says where it is. VERSION is a number or an alias: each published model is a
    version, the newest is `candidate`, and `champion` is the one that `citeflow serve` follows.
    """


@models.command("list", cls=options.RecordCommand)
@named
def list_(name: str) -> None:
    """Print one JSON object per version, the newest first."""
    for version in registered_models.versions(name):
        emit(dataclasses.asdict(version))


@models.command(cls=options.RecordCommand)
@click.argument("version", default=registered_models.CANDIDATE)
@click.argument("other", default=registered_models.CHAMPION)
@named
def compare(version: str, other: str, name: str) -> None:
    """Print the test scores of two versions by each protocol: the candidate beside the champion."""
    found = [registered_models.find(name, each) for each in (version, other)]
    first, second = (each.scores for each in found)
    for protocol in first.keys() | second.keys():
        pair = (first.get(protocol), second.get(protocol))
        labels = [f"version {each.number}" for each in found]
        emit(
            {
                "protocol": protocol,
                **dict(zip(labels, pair, strict=True)),
                "difference": None if None in pair else first[protocol] - second[protocol],
            }
        )


@models.command(cls=options.RecordCommand)
@click.argument("version", default=registered_models.CANDIDATE)
@click.option(
    "--protocol",
    default="",
    metavar="NAME",
    help="Of the test score that has to be higher than the champion's: ogb, all, hard or cold; by"
    " default all, and of classifiers test, their accuracy.",
)
@click.option("--force", is_flag=True, help="Promote it whatever its figures are.")
@named
@options.data_root
def promote(version: str, protocol: str, force: bool, name: str, data_root: Path) -> None:
    """Make a version the champion, if it is better than the one that is."""
    found = registered_models.promote(
        name, version, protocol=protocol, models=data_root / "models", force=force
    )
    emit(dataclasses.asdict(found))


@models.command(cls=options.RecordCommand)
@named
def rollback(name: str) -> None:
    """Make the version the champion that was it before."""
    emit(dataclasses.asdict(registered_models.rollback(name)))
