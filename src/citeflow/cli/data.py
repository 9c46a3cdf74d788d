"""Commands for data that is not in citeflow's format yet: `import`, `inspect`, `init`."""

import sys
import tempfile
from pathlib import Path

import click

from citeflow import files
from citeflow.cli import options
from citeflow.errors import ConfigError
from citeflow.utils.logging import emit, log


@click.command("import")
@click.argument("source")
@click.option(
    "--out", "-o", type=options.Folder(), required=True, help="New folder for the two tables."
)
def import_(source: str, out: Path) -> None:
    """Turn data of another format into a citation folder.

    SOURCE is a file, a folder, an archive or a URL; `citeflow inspect` says what it is. Prints one
    JSON object. `--dataset` takes every source as it is, too.
    """
    from citeflow.data.importers import registry
    from citeflow.data.importers.source import open_source
    from citeflow.data.importers.unpacked import unpacked

    if out.exists() and any(out.iterdir()):
        raise ConfigError("the folder is not empty", out, hint="name a new one")
    with unpacked(source, out.parent) as path:
        found = registry.recognize(path)
        if found is None:
            if path.is_dir() and registry.native_folder(open_source(path)):
                hint = f"citeflow run --dataset {source}"
                raise ConfigError("it is a citation folder already", source, hint=hint)
            raise registry.unknown(path)
        log("import", found.importer.title, because=found.evidence.because)
        with files.new_directory(out) as work:
            imported = found.write(work)
    emit({"path": str(out), "format": found.importer.name, **imported.to_dict()})


@click.command(cls=options.RecordCommand)
@click.argument("source")
@options.settings
def inspect(source: str, settings: options.Settings) -> None:
    """Say what data is, what of it would be read, and what looks wrong.

    SOURCE is a file, a folder, an archive or a URL. Prints a table on a terminal, elsewhere JSON.
    Nothing is stored.
    """
    from citeflow.graph.inspection import as_table, inspect_source

    config = settings.of_citations().data
    with tempfile.TemporaryDirectory(prefix="citeflow-") as scratch:
        inspection = inspect_source(source, Path(scratch), config)
    if sys.stdout.isatty():
        click.echo(as_table(inspection))
    else:
        emit(inspection.to_dict())


@click.command()
@click.argument("folder", type=options.Folder())
def init(folder: Path) -> None:
    """Write a citation folder with five papers, to fill in.

    FOLDER is made. It runs as it is, but five papers say nothing about a model.
    """
    from citeflow.data.template import write_template

    write_template(folder)
    log("init", "five papers are a template: a run of them works, and its figures say nothing")
    emit({"path": str(folder), "next": f"citeflow run --dataset {folder}"})
