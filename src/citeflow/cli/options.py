"""Options that several commands share: their types, their decorators, and the records they fill."""

import contextlib
import dataclasses
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from citeflow import config, local_runs, own_model, paths
from citeflow.artifacts import TRAINED_MODEL
from citeflow.config import CITATION, Config, TaskConfig
from citeflow.errors import (
    INSTALL,
    ConfigError,
    MissingPackageError,
    NotFoundError,
    StoppedError,
    TrainingError,
)
from citeflow.files import termination_message
from citeflow.kubernetes.launchers import LAUNCHERS_HERE, LOCAL
from citeflow.paths import RunPaths
from citeflow.tasks import TASKS, dataset_names, get_task, load_settings, task_of
from citeflow.training import sandbox
from citeflow.utils.logging import log, redact_url
from citeflow.utils.signals import handle_signals

if TYPE_CHECKING:
    ParamType = click.ParamType[Any, Any]
else:  # click's class is generic for type checkers, and in its newest versions alone
    ParamType = click.ParamType

Command = TypeVar("Command", bound=Callable[..., Any])
Tc = TypeVar("Tc", bound=TaskConfig)

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


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalRun:
    """A pipeline that runs on this machine."""

    dataset: str
    run_name: str | None
    verbose: bool
    data_root: Path
    trust_code: bool = False

    def paths(self) -> RunPaths:
        """Return the paths of the run; make a name from dataset and time if there is none."""
        suffix = time.strftime("%Y%m%d-%H%M%S")
        return RunPaths(self.data_root, self.run_name or paths.make_name(self.dataset, suffix))

    def arguments(self, run: RunPaths, settings: TaskConfig) -> dict[str, str]:
        """Return the parameters that all pipelines have.

        Raises:
            ConfigError: the dataset is one of another task, or a file of one's own is not right.
            NotFoundError: there is no such file.
        """
        of_task = get_task(settings.task).datasets
        if self.dataset in dataset_names() and self.dataset not in of_task:
            hint = f"--dataset {', '.join(of_task)}, a folder or a URL"
            raise ConfigError(f"not a dataset of the task {settings.task}", self.dataset, hint=hint)
        settings = bring_files(settings, self.data_root, trust_code=self.trust_code)
        return {
            "dataset": self.dataset,
            "settings": config.to_yaml(settings),
            "run_name": run.name,
            "data_root": str(run.data_root),
        }

    @contextlib.contextmanager
    def started(self, run: RunPaths, begin: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Log and record the pipeline that the block runs; say how to resume it if it is stopped.

        Args:
            run: its paths.
            begin: called when no other pipeline can run under this name, before anything is logged.

        Raises:
            UnavailableError: another pipeline runs under this name.
        """
        dataset = redact_url(self.dataset)
        with _resumable(run.name), local_runs.recorded(run, dataset):
            begin()
            with local_runs.output_kept(run):
                log("run", "starts", name=run.name, dataset=dataset, data_root=run.data_root)
                yield


local_run = grouped(
    "local",
    LocalRun,
    click.option(
        "--dataset",
        type=Dataset(),
        default="synthetic",
        show_default=True,
        help="Name of a dataset, a file, a folder, an archive or a URL.",
    ),
    click.option("--run-name", type=RunName(), help="By default dataset, date and time."),
    click.option("--verbose", is_flag=True, help="Show everything that kfp and the stages print."),
    data_root,
    trust_code,
)


def bring_files(settings: Tc, data_root: Path, *, trust_code: bool) -> Tc:
    """Copy the files of a model of one's own below the data root, if the settings name some.

    Raises:
        ConfigError: one is not right, or there is no sandbox for code.
        NotFoundError: there is no such file.
    """
    if trust_code:
        os.environ[sandbox.TRUST_VARIABLE] = "1"
    sandbox.require(settings)
    return own_model.bring(settings, data_root)


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """A server of Kubeflow Pipelines, and the credentials for it."""

    host: str
    namespace: str
    token_file: Path | None
    ssl_ca_cert: Path | None

    def connect(self) -> Any:
        """Return a KfpClient.

        Raises:
            ConfigError: the host holds a secret, or the server refuses us.
            MissingPackageError: kfp is not installed.
            UnavailableError: the server does not answer.
        """
        from citeflow.kubeflow.connection import connect

        shown = redact_url(self.host)
        if shown.rstrip("/") != self.host.rstrip("/"):
            what = "no user, password or query in --host"
            raise ConfigError(what, shown, hint="--token-file FILE")
        return connect(**dataclasses.asdict(self))


connection = grouped(
    "connection",
    Connection,
    click.option(
        "--host",
        default="",
        metavar="URL",
        help="Of the server's API or UI; by default $KF_PIPELINES_ENDPOINT, or as kfp finds it.",
    ),
    click.option(
        "--namespace",
        default="",
        metavar="NS",
        help="Of your profile, or of the pods; by default kubeflow.",
    ),
    click.option(
        "--token-file",
        type=FILE,
        metavar="FILE",
        help="Bearer token; read again when it changes.",
    ),
    click.option(
        "--ssl-ca-cert",
        type=FILE,
        metavar="FILE",
        help="Certificate authority of the server, PEM.",
    ),
)


@contextlib.contextmanager
def _resumable(run_name: str) -> Iterator[None]:
    """Run a pipeline that a signal ends, its steps first; say how to resume one that ends early."""
    try:
        with handle_signals(termination_message.write):
            yield
    except StoppedError as error:
        hint = f"the same command with --run-name {run_name} resumes it"
        raise StoppedError(error.what, error.value, hint=hint, exit_code=error.exit_code) from None
    except TrainingError:
        log("run", "can be resumed", add=f"--run-name {run_name}")
        raise


def require(*packages: str, hint: str = INSTALL) -> None:
    """Check before any work that packages are installed, without importing them.

    Raises:
        MissingPackageError: one is not.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError("package is not installed", package, hint=hint)


def find_model(run: str, data_root: Path) -> Path:
    """Return the TrainedModel of a run.

    Args:
        run: the --out folder of a run, a model, the name of a run below the data root, or a model
            of MLflow's registry such as models:/citeflow@champion, which is downloaded.
        data_root: the folder of all runs.

    Raises:
        NotFoundError: there is none.
        UnavailableError: MLflow does not answer.
    """
    if run.startswith("models:/"):
        from citeflow.reporting import registered_models

        return registered_models.resolve(run, data_root)
    folder = Path(run).expanduser().absolute()
    named = data_root / "runs" / run
    for path in (folder / "model", folder, named / "model"):
        if (path / "model.json").is_file():
            return path
    hint = "name the --out folder of a run, its model, or a run below the --data-root"
    raise NotFoundError("no model here", folder, hint=hint)


def find_citation_model(run: str, data_root: Path) -> Path:
    """Return the TrainedModel of a run that predicts citations.

    The arguments and errors are those of `find_model`, and:

    Raises:
        ConfigError: it is one of another task.
    """
    model = find_model(run, data_root)
    if (task := task_of(model, TRAINED_MODEL).name) != CITATION:
        hint = f"`citeflow serve` answers with a model of {task}"
        raise ConfigError("not a model of citations", model, hint=hint)
    return model
