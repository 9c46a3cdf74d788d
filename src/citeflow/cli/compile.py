"""`citeflow compile`: write the YAML files that Kubeflow Pipelines takes, or check them."""

from dataclasses import dataclass
from pathlib import Path

import click

from citeflow.cli import options
from citeflow.errors import ConfigError, DataError
from citeflow.utils.logging import log


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """Compiled files outside of the checkout, and the images that they name."""

    out: Path | None
    registry: str
    tag: str


export_options = options.grouped(
    "export",
    ExportOptions,
    click.option(
        "--out", type=options.Folder(), help="Write all files there and leave the checkout's alone."
    ),
    click.option(
        "--registry",
        default="",
        metavar="R",
        help="Name images of your own, as `make push REGISTRY=R` pushes them; needs --out.",
    ),
    click.option("--tag", default="", metavar="T", help="Tag of these images."),
)


@click.command(cls=options.RecordCommand)
@click.option("--check", is_flag=True, help="Write nothing; fail where a compiled file is stale.")
@click.option(
    "--root", type=options.Folder(), help="The checkout; by default the one of this citeflow."
)
@export_options
def compile(check: bool, root: Path | None, export: ExportOptions) -> None:
    """Compile components and pipelines of a checkout to YAML."""
    from citeflow.kubeflow import compile as compilation

    root = root or compilation.checkout()
    if export.out is None and (export.registry or export.tag):
        hint = "--out DIR: the files of a checkout name the images that it builds"
        raise ConfigError(
            "images of a registry need a folder", export.registry or export.tag, hint=hint
        )
    if export.out is not None and check:
        raise ConfigError("--check writes nothing", "--out")
    if export.out is not None:
        images = compilation.Images(export.registry, export.tag or compilation.TAG)
        for path in compilation.export(root, export.out, images):
            log("compile", "wrote", file=path)
    elif check:
        _check(root)
    else:
        for path in compilation.write(root):
            log("compile", "wrote", file=path.relative_to(root))


def _check(root: Path) -> None:
    """Fail where a compiled file is stale.

    Raises:
        DataError: one is.
    """
    from citeflow.kubeflow import compile as compilation

    stale = [str(path.relative_to(root)) for path in compilation.stale(root)]
    if stale:
        hint = "run `citeflow compile` and commit them"
        raise DataError("compiled files are stale", ", ".join(stale), hint=hint)
