"""`citeflow submit`: upload the pipeline to Kubeflow Pipelines and run it there."""

from dataclasses import dataclass
from typing import Any

import click
import yaml

from citeflow.cli import options
from citeflow.cli.connection import Connection, connection
from citeflow.config import CITATION
from citeflow.errors import ConfigError
from citeflow.kubeflow.client import KfpClient
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubeflow.submit import Package, RunOptions, plan, upload
from citeflow.kubeflow.submit import submit as submit_run
from citeflow.kubernetes.launchers import LAUNCHER_NAMES
from citeflow.tasks import load_settings
from citeflow.utils.logging import emit, log

timeout = click.option(
    "--timeout-minutes",
    type=options.POSITIVE,
    default=24 * 60,
    show_default=True,
    metavar="N",
    help="Longest wait.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterOptions:
    """Parameters of the pipeline; those that have an option of their own, and any."""

    dataset: str | None
    workers: str | None
    launcher: str | None
    job: str
    param: tuple[str, ...]

    def values(self, settings: options.Settings) -> dict[str, Any]:
        """Return what the options give, by the names of the pipeline's parameters.

        Raises:
            ConfigError: one is not of the form KEY=VALUE, or is given twice.
        """
        values: dict[str, Any] = {}
        for name in ("dataset", "workers", "launcher"):
            if getattr(self, name) is not None:
                values[name] = getattr(self, name)
        if settings.preset != options.DEFAULT_PRESET:
            values["preset"] = settings.preset
        if settings.config_file or settings.overrides or settings.task:
            values["settings"] = _changed_settings(settings)
        if self.job:
            values["job"] = self.job
        for pair in self.param:
            name, equals, value = pair.partition("=")
            if not equals:
                hint = "for example --param epochs=3"
                raise ConfigError("not of the form KEY=VALUE", pair, hint=hint)
            if name in values:
                raise ConfigError("parameter is given twice", name)
            values[name] = value
        return values


@dataclass(frozen=True, kw_only=True, slots=True)
class Mode:
    """Extent of a submission."""

    dry_run: bool
    upload_only: bool
    wait: bool
    timeout_minutes: int


parameter_options = options.grouped(
    "parameters",
    ParameterOptions,
    click.option("--dataset", metavar="D", help="Name, folder on the volume, or URL."),
    click.option("--workers", metavar="N", help="Training processes."),
    click.option("--launcher", metavar="L", help=f"One of {', '.join(LAUNCHER_NAMES)}."),
    options.job,
    click.option(
        "--param", multiple=True, metavar="KEY=VALUE", help="Any other parameter; repeatable."
    ),
)

package_options = options.grouped(
    "package",
    Package,
    click.option(
        "--pipeline", type=click.Choice(list(PIPELINES)), default="citation", show_default=True
    ),
    click.option(
        "--pipeline-name",
        "name",
        default="",
        metavar="NAME",
        help="Name on the server; by default that of the pipeline.",
    ),
    click.option(
        "--pipeline-version",
        "version",
        default="",
        metavar="NAME",
        help="By default citeflow-VERSION+COMMIT.",
    ),
    click.option("--step-image", default="", metavar="IMAGE", help="Image of every stage."),
    click.option(
        "--train-image", default="", metavar="IMAGE", help="Image of the workers of a job."
    ),
    click.option("--no-cache", is_flag=True, help="Run every stage, whatever was computed before."),
)

run_options = options.grouped(
    "run",
    RunOptions,
    click.option(
        "--experiment",
        default="",
        metavar="NAME",
        help="Created if there is none; by default citeflow.",
    ),
    click.option(
        "--run-name",
        default="",
        metavar="NAME",
        help="On the run page, on the volume, in TensorBoard; by default dataset and time.",
    ),
    click.option(
        "--service-account", default="", metavar="NAME", help="Account that the stages run as."
    ),
    click.option(
        "--recurring",
        "cron",
        default="",
        metavar="CRON",
        help="Make it a recurring run; six fields, seconds first.",
    ),
    click.option(
        "--max-concurrency",
        type=options.POSITIVE,
        default=1,
        show_default=True,
        metavar="N",
        help="Runs of a recurring run at a time.",
    ),
    click.option("--catchup", is_flag=True, help="Make up for runs that a recurring run missed."),
)

mode_options = options.grouped(
    "mode",
    Mode,
    click.option("--dry-run", is_flag=True, help="Print what would be sent, and send nothing."),
    click.option("--upload-only", is_flag=True, help="Start no run."),
    click.option(
        "--wait",
        is_flag=True,
        help="Until the run has ended; exit code 75 if it failed, 143 if it was cancelled.",
    ),
    timeout,
)


@click.command(cls=options.RecordCommand)
@connection
@parameter_options
@run_options
@package_options
@options.settings
@mode_options
def submit(
    connection: Connection,
    parameters: ParameterOptions,
    run: RunOptions,
    package: Package,
    settings: options.Settings,
    mode: Mode,
) -> None:
    """Run a pipeline on Kubeflow Pipelines."""
    if run.cron and mode.wait:
        hint = "`citeflow runs watch RUN` waits for another"
        raise ConfigError("--wait is for one run", "--recurring", hint=hint)
    planned = plan(parameters.values(settings), package, run)
    if mode.dry_run:
        emit(planned.describe())
        return
    client = connection.connect()
    if mode.upload_only:
        emit(upload(client, planned).describe())
        return
    submitted = submit_run(client, planned)
    log("submit", "see", page=submitted.url)
    if mode.wait:
        wait_for_run(client, submitted.run_id, submitted.describe(), mode.timeout_minutes)
    else:
        emit(submitted.describe())


def wait_for_run(
    client: KfpClient, run_id: str, facts: dict[str, Any], timeout_minutes: int
) -> None:
    """Wait for a run to end and print its facts, however it ends.

    Raises:
        TrainingError, StoppedError: it did not succeed.
        UnavailableError: it has not ended in time.
    """
    from citeflow.kubeflow.watch import watch_run

    run, error = watch_run(client, run_id, timeout_s=60.0 * timeout_minutes)
    emit({**facts, "state": run.state})
    if error:
        raise error


def _changed_settings(settings: options.Settings) -> str:
    """Return the settings that differ from the preset's as YAML: what stays legible in a form."""
    wanted = settings.resolve()
    preset = load_settings(wanted.task, preset=settings.preset).to_dict()
    changed: dict[str, object] = {} if wanted.task == CITATION else {"task": wanted.task}
    for section, values in wanted.to_dict().items():
        different = {key: value for key, value in values.items() if value != preset[section][key]}
        if different:
            changed[section] = different
    return yaml.safe_dump(changed, sort_keys=False) if changed else ""
