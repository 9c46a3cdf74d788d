"""`citeflow xor`: the XOR pipeline on this machine."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citeflow import files
from citeflow.cli import options
from citeflow.experiments.xor import XorSettings
from citeflow.reporting.publish import check_folder
from citeflow.utils.logging import emit, log

if TYPE_CHECKING:
    from citeflow.cli.options import Commands

HELP = {
    "dims": "coordinates of a point; two of them are plotted",
    "train_points": "points to learn from",
    "test_points": "points to test on",
    "epochs": "passes over the training points",
    "hidden": "units of the hidden layer, where there is one",
    "lr": "learning rate of Adam",
    "seed": "of the points and of the weights",
}


def add_to(commands: "Commands") -> None:
    """Add the command."""
    summary = "the XOR pipeline: a minute that shows whether pipelines run, and that a hidden layer is needed"
    parser = options.add_command(commands, "xor", _call, summary)
    for name, default in asdict(XorSettings()).items():
        told = f"{HELP[name]} (default: {default:,})"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default),
            default=default,
            metavar="N",
            help=told,
        )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for pages and figures (default: below data root)",
    )
    options.add_run(parser)


def _call(args: argparse.Namespace) -> None:
    settings, root = (
        XorSettings(**{name: getattr(args, name) for name in HELP}),
        options.data_root(args),
    )
    name = options.run_name(args, "xor")
    out = args.out.expanduser().absolute() if args.out else root / "xor" / name
    options.require("kfp", "sklearn", "matplotlib")
    check_folder(root)
    check_folder(out)
    log("xor", "starts", name=name, **asdict(settings))
    options.run_pipeline(
        "xor", {**asdict(settings), "out_dir": str(out)}, root=root, verbose=args.verbose
    )
    _tell(files.read_json(out / "xor.json"), out)


def _tell(found: dict[str, Any], out: Path) -> None:
    from citeflow.reporting import xor

    table = xor.table(found)
    print("", *(_line(row) for row in (table.header, *table.rows)), sep="\n", file=sys.stderr)
    print(f"\n{found['verdict']}\n", file=sys.stderr, flush=True)
    places = {"page": out / "xor.html", "figures": out / "xor.json"}
    if found["settings"]["dims"] == 2:
        places["points"] = out / "points.html"
    log("xor", "done", page=places["page"])
    last = {
        name: {
            part: {what: values[-1] for what, values in model[part].items()}
            for part in ("train", "test")
        }
        for name, model in found["models"].items()
    }
    emit(
        {
            **{name: str(place) for name, place in places.items()},
            "as_known": found["as_known"],
            **last,
        }
    )


def _line(row: tuple[str, ...]) -> str:
    return row[0].ljust(18) + "".join(cell.rjust(max(20, len(cell) + 2)) for cell in row[1:])
