"""Options that several commands share: their types, their decorators, and the records they fill."""

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from citeflow import config, paths
from citeflow.config import Config, TaskConfig
from citeflow.errors import (
    INSTALL,
    ConfigError,
    MissingPackageError,
    NotFoundError,
)
from citeflow.kubernetes.launchers import LAUNCHERS_HERE, LOCAL
from citeflow.tasks import TASKS, dataset_names, load_settings

if TYPE_CHECKING:
    ParamType = click.ParamType[Any, Any]
else:  # click's class is generic for type checkers, and in its newest versions alone
    ParamType = click.ParamType

Command = TypeVar("Command", bound=Callable[..., Any])

DATA_ROOT_VARIABLE = "CITEFLOW_DATA_ROOT"
DEFAULT_DATA_ROOT = "citeflow-data"
DEFAULT_PRESET = "default"


class Folder(click.Path):
    """A folder, as a path that does not depend on the working directory; links stay as they are."""

    def __init__(self) -> None:
        """Take any path that is no file."""
        super().__init__(file_okay=False, path_type=Path)
        self.name = "DIR"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """Make the path absolute, without `..`."""
        absolute = os.path.abspath(Path(str(value)).expanduser())
        super().convert(absolute, param, ctx)
        return Path(absolute)


class OutputFolder(Folder):
    """A folder that can be written to, or made."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """Check it before any work is done."""
        from citeflow.reporting.publish import check_folder

        folder = super().convert(value, param, ctx)
        check_folder(folder)
        return folder


class RunName(ParamType):
    """A name for a folder, a pod and a TensorBoard run."""

    name = "NAME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name."""
        return paths.check_name(value)


class Dataset(ParamType):
    """A dataset by name or URL, or a file or a folder as an absolute path."""

    name = "DATASET"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Find the dataset."""
        if value in dataset_names() or "://" in value:
            return value
        path = Path(value).expanduser().absolute()
        if not path.exists():
            hint = f"{', '.join(dataset_names())}, a file, a folder or a URL"
            raise NotFoundError("no such dataset", value, hint=hint)
        return str(path)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete names of datasets, and files."""
        names = [name for name in dataset_names() if name.startswith(incomplete)]
        files = [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in names] or files


class YamlText(ParamType):
    """YAML text, or the name of a file with such text: text has a colon followed by a space."""

    name = "YAML"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read the file, if it is one."""
        if not value or ": " in value or "\n" in value or value.lstrip().startswith("{"):
            return value
        try:
            return Path(value).expanduser().read_text()
        except (OSError, UnicodeDecodeError):
            hint = 'a YAML file, or text such as "{cpu: 4}"'
            raise NotFoundError("no such file", value, hint=hint) from None


class Numbers(ParamType):
    """Numbers with commas between them."""

    name = "N,N"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[float]:
        """Split the text."""
        try:
            return [float(part) for part in str(value).split(",")]
        except ValueError:
            what = "not numbers with commas between them"
            raise ConfigError(what, value, hint="such as 1,2,4") from None


FILE = click.Path(path_type=Path)
POSITIVE = click.IntRange(min=1)


class RecordCommand(click.Command):
    """A command whose shared options reach it as records.

    The records are made while the command line is parsed, so that no wrapper stands between a
    command and what it calls.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line, and put the options of each record into one."""
        rest = super().parse_args(ctx, args)
        records: dict[str, type[Any]] = getattr(self.callback, RECORDS, {})
        for name, record in records.items():
            fields = dataclasses.fields(record)
            ctx.params[name] = record(
                **{each.name: ctx.params.pop(each.name, None) for each in fields}
            )
        return rest


RECORDS = "__option_records__"
"""Attribute of a command's function: the types of its records, by argument."""


def grouped(
    name: str, record: type[object], *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """Make a decorator that adds options to a `RecordCommand`, which gets them as one record.

    Args:
        name: the argument of the command that gets the record.
        record: a dataclass, one field per option.
        options: decorators made by `click.option`.
    """

    def decorate(command: Command) -> Command:
        setattr(command, RECORDS, {**getattr(command, RECORDS, {}), name: record})
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings, each over the one before."""

    preset: str
    config_file: Path | None
    overrides: tuple[str, ...]
    task: str | None = None

    def resolve(self) -> TaskConfig:
        """Read them all.

        Raises:
            ConfigError, NotFoundError: one of them is wrong, or the file does not exist.
        """
        return load_settings(
            self.task or "", preset=self.preset, file=self.config_file, overrides=self.overrides
        )

    def of_citations(self) -> Config:
        """Read them for a command that knows the citation task alone.

        Raises:
            ConfigError: as `resolve`, or they are those of another task.
        """
        resolved = self.resolve()
        if not isinstance(resolved, Config):
            hint = "`citeflow run`, `compare`, `scaling` and `tune` are"
            raise ConfigError("not a command of the task", resolved.task, hint=hint)
        return resolved


settings = grouped(
    "settings",
    Settings,
    click.option(
        "--preset",
        type=click.Choice(list(config.PRESETS)),
        default=DEFAULT_PRESET,
        show_default=True,
        help="Settings to start from.",
    ),
    click.option(
        "--config",
        "config_file",
        type=FILE,
        metavar="FILE",
        help="YAML file over the preset, as `citeflow settings` prints it.",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="One setting over both, such as train.epochs=3; repeatable.",
    ),
    click.option(
        "--task",
        type=click.Choice(list(TASKS)),
        help="What to train; by default what the settings say, else citation.",
    ),
)

data_root = click.option(
    "--data-root",
    type=Folder(),
    envvar=DATA_ROOT_VARIABLE,
    default=DEFAULT_DATA_ROOT,
    show_default=True,
    show_envvar=True,
    help="Folder of all data, models and logs.",
)

workers = click.option(
    "--workers",
    type=POSITIVE,
    default=2,
    show_default=True,
    metavar="N",
    help="Training processes.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkersHere:
    """The training processes of this machine, and what starts them."""

    workers: int
    launcher: str
    ray_address: str

    def settle(self) -> None:
        """Check that they can be started, and let those who start them know where Ray is.

        Raises:
            MissingPackageError: Ray is not installed.
            ConfigError: an address of Ray is given to another launcher.
        """
        if self.launcher == LOCAL and self.ray_address:
            raise ConfigError("--ray-address", self.ray_address, hint="with --launcher ray")
        if self.launcher != LOCAL:
            from citeflow.training import ray_launch

            require("ray", hint=ray_launch.INSTALL)
            if self.ray_address:
                os.environ[ray_launch.ADDRESS_VARIABLE] = self.ray_address


workers_here = grouped(
    "here",
    WorkersHere,
    workers,
    click.option(
        "--launcher",
        type=click.Choice(LAUNCHERS_HERE),
        default=LOCAL,
        show_default=True,
        help="What starts them: torchrun, or Ray with a torchrun for each.",
    ),
    click.option(
        "--ray-address",
        default="",
        metavar="HOST:PORT",
        help="A Ray cluster that this machine is a node of; by default $RAY_ADDRESS, else a Ray "
        "of this training alone.",
    ),
)

run_name = click.option("--run-name", type=RunName(), required=True, help="Of a-z, 0-9 and -.")

trust_code = click.option(
    "--trust-code",
    is_flag=True,
    help="Run model.code as you, without a sandbox; by default bubblewrap runs it, or nobody.",
)

output = click.option(
    "--out",
    type=OutputFolder(),
    help="Folder for the results; by default below the data root.",
)

job = click.option(
    "--job",
    type=YamlText(),
    default="",
    help='Resources of each pod of a job: a YAML file, or text such as "{cpu: 4}".',
)

namespace = click.option(
    "--namespace",
    default="",
    metavar="NS",
    help="By default that of this pod, or of the kubeconfig.",
)


def require(*packages: str, hint: str = INSTALL) -> None:
    """Check before any work that packages are installed, without importing them.

    Raises:
        MissingPackageError: one is not.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError("package is not installed", package, hint=hint)
