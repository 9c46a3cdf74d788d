"""`citeflow compile`: write the YAML files that Kubeflow Pipelines takes, or check them."""

from pathlib import Path

import click

from citeflow.cli import options
from citeflow.errors import DataError
from citeflow.utils.logging import log


@click.command(cls=options.RecordCommand)
@click.option("--check", is_flag=True, help="Write nothing; fail where a compiled file is stale.")
@click.option(
    "--root", type=options.Folder(), help="The checkout; by default the one of this citeflow."
)
def compile(check: bool, root: Path | None) -> None:
    """Compile components and pipelines of a checkout to YAML."""
    from citeflow.kubeflow import compile as compilation

    root = root or compilation.checkout()
    if not check:
        for path in compilation.write(root):
            log("compile", "wrote", file=path.relative_to(root))
        return
    stale = [str(path.relative_to(root)) for path in compilation.stale(root)]
    if stale:
        hint = "run `citeflow compile` and commit them"
        raise DataError("compiled files are stale", ", ".join(stale), hint=hint)
