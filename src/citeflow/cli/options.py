"""Options that several commands share, and what they mean."""

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from citeflow import config, paths
from citeflow.config import Config
from citeflow.data.datasets import dataset_names
from citeflow.errors import (
    INSTALL,
    ConfigError,
    NotFoundError,
    StoppedError,
    TrainingError,
    UnavailableError,
)
from citeflow.kubeflow import local_runner
from citeflow.utils import termination_message
from citeflow.utils.logging import log
from citeflow.utils.signals import handle_signals

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(
    commands: "Commands", name: str, call: Callable[[argparse.Namespace], None], summary: str
) -> argparse.ArgumentParser:
    """Add a subcommand that `call` carries out."""
    parser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(call=call)
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--preset`, `--config` and `--set`."""
    group = parser.add_argument_group("settings, each over the one before")
    group.add_argument(
        "--preset", default="default", metavar="NAME", help=f"one of {', '.join(config.PRESETS)}"
    )
    group.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file, as `citeflow settings` prints it"
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, train.epochs=3",
    )


def add_data_root(parser: argparse.ArgumentParser) -> None:
    """Add `--data-root`."""
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("CITEFLOW_DATA_ROOT", "citeflow-data")),
        help="folder of all data, models and logs (default: $CITEFLOW_DATA_ROOT or ./citeflow-data)",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add `--workers`."""
    parser.add_argument(
        "--workers", type=positive, default=2, metavar="N", help="training processes (default: 2)"
    )


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Add `--dataset`."""
    told = "synthetic (default), ogbl-citation2, a folder, an archive or a URL"
    parser.add_argument("--dataset", default="synthetic", help=told, metavar="D")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add what every pipeline that runs here has: `--run-name`, `--verbose` and `--data-root`."""
    parser.add_argument(
        "--run-name", type=paths.check_name, metavar="NAME", help="default: dataset, date and time"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show everything that kfp and the steps print"
    )
    add_data_root(parser)


def run_name(args: argparse.Namespace, source: str) -> str:
    """The name that the options give, or one made of the dataset's name or whatever else the run is about."""
    given: str | None = args.run_name
    return given or paths.make_name(source, time.strftime("%Y%m%d-%H%M%S"))


def run_pipeline(name: str, arguments: Mapping[str, Any], *, root: Path, verbose: bool) -> None:
    """Run a compiled pipeline here; if it ends early, say how it goes on.

    Args:
        name: one of `pipeline.NAMES`.
        arguments: its parameters, `run_name` among them.
        root: the data root.
        verbose: show everything that kfp and the steps print.

    Raises:
        CiteflowError: as `pipeline.run`.
    """
    try:
        with handle_signals(termination_message.write):
            local_runner.run(arguments, name=name, scratch=root, verbose=verbose)
    except (StoppedError, TrainingError) as error:
        if "run_name" in arguments:
            log("run", "can go on", add=f"--run-name {arguments['run_name']}")
            if isinstance(error, StoppedError):
                error.hint = f"the same command with --run-name {arguments['run_name']} goes on"
        raise


def resolved(args: argparse.Namespace) -> Config:
    """The settings that the options ask for."""
    return config.load(preset=args.preset, file=args.config, overrides=args.set)


def data_root(args: argparse.Namespace) -> Path:
    """Where all data lies, as a path that does not depend on the working directory."""
    return absolute(args.data_root)


def absolute(path: str | Path) -> Path:
    """A path that does not depend on the working directory, without `..`, and links as they are."""
    return Path(os.path.abspath(Path(path).expanduser()))


def dataset(text: str) -> str:
    """A dataset's name or URL as it is, a folder or an archive as an absolute path.

    Raises:
        NotFoundError: it is none of these.
    """
    if text in dataset_names() or "://" in text:
        return text
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise NotFoundError(
            "no such dataset",
            text,
            hint=f"{', '.join(dataset_names())}, a folder, an archive or a URL",
        )
    return str(path)


def yaml_text(given: str) -> str:
    """YAML text as it is; what has no colon is the name of a file with such text.

    Raises:
        NotFoundError: there is no such file.
    """
    if not given or ": " in given or "\n" in given or given.lstrip().startswith("{"):
        return given
    try:
        return Path(given).expanduser().read_text()
    except OSError:
        hint = 'a YAML file, or text such as "{cpu: 4}"'
        raise NotFoundError("no such file", given, hint=hint) from None


def require(*packages: str) -> None:
    """Find out before any work whether packages are installed, without importing them.

    Raises:
        UnavailableError: one is not.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UnavailableError("package is not installed", package, hint=INSTALL)


def numbers(text: str) -> list[float]:
    """Numbers with commas between them, for argparse."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            "not numbers with commas between them", text, hint="such as 1,2,4"
        ) from None


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError("not a whole number of at least 1", text)
    return int(text)
