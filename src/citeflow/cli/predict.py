"""`citeflow predict`: the citations that a paper most likely lacks."""

from pathlib import Path

import click

from citeflow.cli import options
from citeflow.errors import NotFoundError
from citeflow.utils.logging import emit


@click.command(cls=options.RecordCommand)
@click.option(
    "--run",
    "folder",
    type=options.Folder(),
    required=True,
    help="The --out folder of a run, or a model.",
)
@click.option("--paper", required=True, metavar="ID", help="The paper's id in the dataset.")
@click.option(
    "-k", type=options.POSITIVE, default=10, show_default=True, metavar="K", help="How many."
)
@options.data_root
def predict(folder: Path, paper: str, k: int, data_root: Path) -> None:
    """List the most likely missing citations of a paper."""
    candidates = [path for path in (folder / "model", folder) if (path / "model.json").is_file()]
    if not candidates:
        hint = "name the --out folder of a run, or its model"
        raise NotFoundError("no model here", folder, hint=hint)
    from citeflow.evaluation import predict as prediction

    for row in prediction.predict(candidates[0], data_root=data_root, paper=paper, k=k):
        emit(row.to_json())
