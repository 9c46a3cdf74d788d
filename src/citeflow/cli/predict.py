"""`citeflow predict`: the citations that a paper most likely lacks."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from citeflow.cli import options
from citeflow.errors import NotFoundError
from citeflow.utils.logging import emit

if TYPE_CHECKING:
    from citeflow.cli.options import Commands


def add_to(commands: "Commands") -> None:
    """Add the command."""
    parser = options.add_command(
        commands, "predict", _call, "list the most likely missing citations of a paper"
    )
    parser.add_argument(
        "--run", type=Path, required=True, metavar="DIR", help="what `run --out` named, or a model"
    )
    parser.add_argument(
        "--paper", required=True, metavar="ID", help="the paper's id in the dataset"
    )
    parser.add_argument(
        "-k", type=options.positive, default=10, metavar="K", help="how many (default: 10)"
    )
    options.add_data_root(parser)


def _call(args: argparse.Namespace) -> None:
    model = _model(args.run)
    from citeflow.evaluation.predict import predict

    for row in predict(model, data_root=options.data_root(args), paper=args.paper, k=args.k):
        emit(row.to_json())


def _model(folder: Path) -> Path:
    for place in (folder / "model", folder):
        if (place / "model.json").is_file():
            return place
    raise NotFoundError(
        "no model here", folder, hint="name the --out folder of a run, or its model"
    )
