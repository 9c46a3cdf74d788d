"""A pipeline that a command runs on this machine: its options, and how it begins and ends."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from citeflow import config, local_runs, own_model, paths
from citeflow.cli import options
from citeflow.config import TaskConfig
from citeflow.errors import ConfigError, StoppedError, TrainingError
from citeflow.files import termination_message
from citeflow.paths import RunPaths
from citeflow.tasks import dataset_names, get_task
from citeflow.training import sandbox
from citeflow.utils.logging import log, redact_url
from citeflow.utils.signals import handle_signals

Tc = TypeVar("Tc", bound=TaskConfig)


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


local_run = options.grouped(
    "local",
    LocalRun,
    click.option(
        "--dataset",
        type=options.Dataset(),
        default="synthetic",
        show_default=True,
        help="Name of a dataset, a file, a folder, an archive or a URL.",
    ),
    click.option("--run-name", type=options.RunName(), help="By default dataset, date and time."),
    click.option("--verbose", is_flag=True, help="Show everything that kfp and the stages print."),
    options.data_root,
    options.trust_code,
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
